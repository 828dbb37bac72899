"""Values with parts that cannot be stored: the text of ``repr`` takes their place."""

from __future__ import annotations

from typing import Any

from jarvis._calls.arguments import plain_text
from jarvis.codec.extent import extent_of
from jarvis.codec.values import MAX_DEPTH, NO_STACK, flatten
from jarvis.errors import InvalidEntryError, InvalidQueryError

LONGEST_REPR = 1_000
"""Characters; a longer text is cut, and ends in ``…``."""

_MOST_PARTS = 100_000  # of a container; if it has more, such as one that explodes, only its type is told


def storable(value: Any, on_unstorable: str) -> Any:
    """Return `value` as it is, or, with ``"repr"``, through `with_reprs`.

    Raises:
        InvalidQueryError: `on_unstorable` is neither ``"raise"`` nor ``"repr"``.
    """
    asked = plain_text(on_unstorable)
    if asked == "raise":
        return value
    if asked != "repr":
        raise InvalidQueryError('on_unstorable: takes "raise" or "repr"')
    return with_reprs(value)


def with_reprs(value: Any) -> Any:
    """Return `value`, or a copy in which the ``repr`` of each part that cannot be stored takes its place.

    So does that of a key that is no text. Other parts stay as they are.

    >>> with_reprs({"code": 0, "result": {1: object}})
    {'code': 0, 'result': {'1': "<class 'object'>"}}
    """
    if _is_storable(value):
        return value
    try:
        told = _told(value, 0, {})
        if type(told) is dict and not _is_storable(told):  # its parts are too large or too deep together
            return {key: item if type(item) is str else _repr(item) for key, item in told.items()}
    except RecursionError:
        raise InvalidEntryError("value", NO_STACK) from None
    return told


def _is_storable(value: Any) -> bool:
    try:
        flatten(value)
    except InvalidEntryError:
        return False
    return True


def _told(value: Any, depth: int, told_before: dict[int, Any]) -> Any:
    """Return `value` with reprs; each container is walked once (`told_before`, by identity)."""
    kind = type(value)
    if kind not in (dict, list, tuple):
        return value if _is_storable(value) else _repr(value)
    if id(value) not in told_before:
        told_before[id(value)] = _type_of(value)  # in case it is inside itself
        if depth < MAX_DEPTH:
            if kind is dict:
                told: Any = {_key(key): _told(item, depth + 1, told_before) for key, item in value.items()}
            else:
                told = kind([_told(item, depth + 1, told_before) for item in value])
            if extent_of(told).parts <= _MOST_PARTS:
                told_before[id(value)] = told
    return told_before[id(value)]


def _key(key: Any) -> str:
    return key if type(key) is str else _repr(key)


def _type_of(value: Any) -> str:
    return f"<{type(value).__name__} object>"


def _repr(value: Any) -> str:
    """Return the ``repr`` of a value, cut; if it explodes, or ``repr`` raises, only its type."""
    try:
        text = repr(value) if extent_of(value).parts <= _MOST_PARTS else _type_of(value)
    except Exception:  # noqa: BLE001 - of anybody's class
        text = _type_of(value)
    return text if len(text) <= LONGEST_REPR else f"{text[:LONGEST_REPR]}…"
