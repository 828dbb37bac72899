"""The size of a value when it is written out, computed without writing it out.

A dict that holds one part twice, which holds another twice, and so on for sixty levels, has 2^60 leaves. A walk over
the leaves never ends; a walk over the distinct containers ends at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

TALLEST = 250
"""The greatest height that is told: deeper parts are not looked into, and circles have this height."""

_CONTAINERS = (dict, list, tuple, set, frozenset)
_SMALL = frozenset((bool, float, type(None)))


class Extent(NamedTuple):
    """The size of a value, in which a shared part counts at each place.

    Attributes:
        parts: the number of containers, elements and items.
        least_bytes: the least size of its JSON.
        height: the number of containers inside each other, up to `TALLEST`.
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


def _extent(value: Any, extents: dict[int, Extent], depth: int) -> Extent:
    kind = type(value)
    if kind is str or kind is bytes:
        return Extent(1, len(value) + 2, 0)
    if kind is int:
        return Extent(1, max(1, value.bit_length() // 4), 0)
    is_mapping = issubclass(kind, Mapping)
    if not is_mapping and not issubclass(kind, _CONTAINERS):
        return _DOT
    extent = extents.get(id(value))
    if extent is not None:
        return extent
    if depth >= TALLEST:
        return _CIRCLE
    extents[id(value)] = _CIRCLE  # until the end of this call: if it is met before, it is inside itself
    parts, least_bytes, height = 1, 2, 0
    if is_mapping:
        for key in value:
            if type(key) is str:
                least_bytes += len(key) + 3
            else:  # a tuple is a path, and may have shared parts, too
                inner = _extent(key, extents, depth + 1)
                parts, least_bytes, height = parts + inner.parts, least_bytes + 1, max(height, inner.height)
    for item in value.values() if is_mapping else value:
        kind = type(item)
        if kind in _SMALL:  # as below, without the call
            parts, least_bytes = parts + 1, least_bytes + 2
            continue
        if kind is int:
            parts, least_bytes = parts + 1, least_bytes + (item.bit_length() // 4 or 1) + 1
            continue
        inner = _extent(item, extents, depth + 1)
        parts += inner.parts
        least_bytes += inner.least_bytes + 1
        height = max(height, inner.height)
    extents[id(value)] = extent = Extent(parts, least_bytes - 1, min(height + 1, TALLEST))
    return extent
