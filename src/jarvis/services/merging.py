"""A JSON merge patch: changes that are merged into a value (https://www.rfc-editor.org/rfc/rfc7396)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jarvis._calls.arguments import own_code
from jarvis.codec import check_extent
from jarvis.codec.values import NO_STACK
from jarvis.errors import InvalidEntryError


@own_code(InvalidEntryError, "changes")
def check_changes(changes: object) -> None:
    """Check that `changes` is a mapping that can be walked; raise `InvalidEntryError` otherwise."""
    if not issubclass(type(changes), Mapping):
        raise InvalidEntryError("changes", f"takes a dict, not {type(changes).__name__}")
    check_extent(changes)


def merged(value: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a new value: mappings on both sides are merged, a None removes its key, all else is replaced.

    Raises:
        InvalidEntryError: `changes` is nested too deep for what is left of the call stack.

    >>> merged({"a": {"b": 1, "c": 2}}, {"a": {"b": None, "d": 3}})
    {'a': {'c': 2, 'd': 3}}
    """
    try:
        with own_code(InvalidEntryError, "changes"):
            return _merged(value, changes)
    except RecursionError:
        raise InvalidEntryError("changes", NO_STACK) from None


def _merged(value: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(value)
    for key, new in changes.items():
        if new is None:
            result.pop(key, None)
        elif isinstance(new, Mapping):
            before = result.get(key)
            result[key] = _merged(before if type(before) is dict else {}, new)
        else:
            result[key] = new
    return result
