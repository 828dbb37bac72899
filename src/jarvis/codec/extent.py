"""How far a value reaches when it is written out, told without writing it out.

A dict that holds one part twice, which holds another twice, and so on, has 2^60 leaves behind sixty small
dicts. A walk over the leaves never ends; a walk over the distinct containers ends at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

TALLEST = 250
"""What is nested deeper is not looked into; it is told as this deep. Circles are, too."""

_CONTAINERS = (dict, list, tuple, set, frozenset)
_SMALL = frozenset((bool, float, type(None)))


class Extent(NamedTuple):
    """How far a value reaches, a shared part counted wherever it stands.

    Attributes:
        parts: how many containers, elements and items there are.
        least_bytes: JSON of it has at least so many.
        height: how many containers lie in each other, up to `TALLEST`.
    """

    parts: int
    least_bytes: int
    height: int


_DOT = Extent(1, 1, 0)
_CIRCLE = Extent(0, 0, TALLEST)


def extent_of(value: Any) -> Extent:
    """Return the extent of `value`, in time that grows with its distinct containers.

    >>> part = {}
    >>> for _ in range(60):
    ...     part = {"a": part, "b": part}
    >>> extent_of(part).parts == 2**61 - 1
    True
    """
    return _extent(value, {}, 0)


def _extent(value: Any, known: dict[int, Extent], depth: int) -> Extent:
    kind = type(value)
    if kind is str or kind is bytes:
        return Extent(1, len(value) + 2, 0)
    if kind is int:
        return Extent(1, max(1, value.bit_length() // 4), 0)
    is_mapping = issubclass(kind, Mapping)
    if not is_mapping and not issubclass(kind, _CONTAINERS):
        return _DOT
    found = known.get(id(value))
    if found is not None:
        return found
    if depth >= TALLEST:
        return _CIRCLE
    known[id(value)] = _CIRCLE  # until it is known: whoever meets it before is inside of it
    parts, least_bytes, height = 1, 2, 0
    if is_mapping:
        for key in value:
            if type(key) is str:
                least_bytes += len(key) + 3
            else:  # a tuple is a path, and may be of shared parts, too
                inner = _extent(key, known, depth + 1)
                parts, least_bytes, height = parts + inner.parts, least_bytes + 1, max(height, inner.height)
    for held in value.values() if is_mapping else value:
        if type(held) in _SMALL:  # as below, without the call
            parts, least_bytes = parts + 1, least_bytes + 2
            continue
        inner = _extent(held, known, depth + 1)
        parts += inner.parts
        least_bytes += inner.least_bytes + 1
        height = max(height, inner.height)
    known[id(value)] = extent = Extent(parts, least_bytes - 1, min(height + 1, TALLEST))
    return extent
