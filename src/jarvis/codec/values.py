"""The law: a value is stored plainly if and only if decoding its encoding gives an equal value of the
same types; otherwise it is stored in a tagged form; otherwise it is refused.

The types are walked *before* encoding, because fast encoders silently turn NaN into null, integer
keys into text and tuples into lists. The tagged form is an object ``{"$type": name, "$value": …}``;
a caller's own object that has a ``"$type"`` key is itself tagged (as ``"dict"``), so nothing collides.
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec

from jarvis.codec.extent import extent_of
from jarvis.codec.instants import InvalidMomentError, format_moment, parse_moment
from jarvis.errors import InvalidEntryError, StackFullError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_DEPTH = 100
"""Deepest nesting of a value. Decoders recurse, so a deeper value could be written from a shallow
call stack and then be unreadable from a deep one."""

MAX_VALUE_BYTES = 64 * 1024 * 1024
"""Largest encoded value. Beyond it belongs a file, and its path in the memory."""

TAG = "$type"
_HELD = "$value"
_MARK = b'"$type"'  # is in the bytes of every value that holds a tagged form (and perhaps in others)

_BUDGET = MAX_VALUE_BYTES
"""What a value may spend before it is looked at whether it explodes: the bytes of long texts, and `_PART` a part."""

_PART = 256  # so that the budget is spent in 30 ms
_LONG = 4096  # characters, from which on a text is counted by its length
_NO_LIMIT = 2**80

INT_MIN, INT_MAX = -(2**63), 2**64 - 1  # what JSON readers everywhere keep exactly as integers

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


NO_STACK = "is nested too deep for what is left of the call stack"
_TOO_DEEP = f"is nested deeper than {MAX_DEPTH} levels; store parts of it as entries of their own"


class _RefusedError(Exception):
    """Carries the reason, and the path back up to the field, segment by segment."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        self.path: list[str] = []


class _SpentError(Exception):
    """The budget is spent: the value is very large, or explodes."""


class Prepared(dict[str, Any]):
    """Stands for a value whose encoding was made before it was needed, such as before a lock was taken.

    An empty dict: all that is in the value is in `json`.

    Attributes:
        json: the value, checked, as `encode` has it.
        packed: that compressed, or None if it stays as it is.
    """

    __slots__ = ("json", "packed")

    def __init__(self, json: bytes, packed: bytes | None) -> None:
        super().__init__()
        self.json, self.packed = json, packed


def encode(value: Any) -> bytes:
    """Return `value` as UTF-8 JSON bytes that `decode` turns back into the exact value.

    Raises:
        InvalidEntryError: the value cannot come back exactly, or is over `MAX_VALUE_BYTES`.

    >>> encode({"at": (1, 2)})
    b'{"at":{"$type":"tuple","$value":[1,2]}}'
    """
    plain = flatten(value)
    try:
        encoded = _encoder.encode(plain)
    except RecursionError:
        raise InvalidEntryError("value", NO_STACK) from None
    if len(encoded) > MAX_VALUE_BYTES:
        raise InvalidEntryError(
            "value",
            f"is {len(encoded):,} bytes long, the limit is {MAX_VALUE_BYTES:,}; store a file and keep its path",
        )
    return encoded


def decode(encoded: bytes | str) -> Any:
    """Return the value that `encode` was given; a new object at every call.

    Raises:
        ValueError: the bytes are no such encoding (`msgspec.DecodeError` is one).

    >>> decode(encode({"at": (1, 2)}))
    {'at': (1, 2)}
    """
    plain = _decoder.decode(encoded)
    mark = _MARK if isinstance(encoded, bytes) else '"$type"'
    return revive(plain) if mark in encoded else plain  # type: ignore[operator]  # mark has the type of encoded


def flatten(value: Any) -> Any:
    """Return `value` in plain JSON types, tagged where needed; the same object if it is plain already.

    Raises:
        InvalidEntryError: some part cannot come back exactly; its path is the error's `field`.
    """
    try:
        try:
            return _flatten_dict(value, 0, [_BUDGET]) if type(value) is dict else _flatten(value, 0, [_BUDGET])
        except _SpentError:
            check_extent(value)
            return _flatten(value, 0, [_NO_LIMIT])
    except _RefusedError as refused:
        raise InvalidEntryError("value" + "".join(reversed(refused.path)), refused.problem) from None
    except RecursionError:
        raise InvalidEntryError("value", NO_STACK) from None


def check_extent(value: Any, *, field: str = "value") -> None:
    """Check that `value` does not explode: that it is neither nested too deep nor sure to be over `MAX_VALUE_BYTES`.

    Each container is looked at once, however often it is held, so this is quick where `flatten` would have no end.

    Raises:
        InvalidEntryError: it is.
    """
    try:
        extent = extent_of(value)
    except RecursionError:
        raise InvalidEntryError(field, NO_STACK) from None
    if extent.height > MAX_DEPTH:
        raise InvalidEntryError(field, _TOO_DEEP)
    if extent.least_bytes > MAX_VALUE_BYTES:
        raise InvalidEntryError(
            field,
            f"is over the limit of {MAX_VALUE_BYTES:,} bytes, with its shared parts written out wherever they stand; "
            "store such a part once, as an entry of its own, and keep its id",
        )


def _flatten(value: Any, depth: int, budget: list[int]) -> Any:
    kind = type(value)
    if kind is str:
        return value if len(value) < _LONG and value.isascii() else _flatten_text(value, budget)
    if kind is int:
        return value if INT_MIN <= value <= INT_MAX else _long_form({TAG: "int", _HELD: hex(value)}, budget)
    if kind is bool or value is None:
        return value
    if kind is float:
        return value if math.isfinite(value) else {TAG: "float", _HELD: repr(value)}
    if depth >= MAX_DEPTH:
        raise _RefusedError(_TOO_DEEP)
    if kind is dict:
        return _flatten_dict(value, depth, budget)
    if kind is list:
        return _flatten_items(value, depth, budget)
    if kind is tuple or kind is set or kind is frozenset:
        return {TAG: kind.__name__, _HELD: _flatten_items(list(value), depth, budget)}
    return _long_form(_flatten_other(value, kind), budget)


def _spend(budget: list[int], cost: int) -> None:
    budget[0] -= cost
    if budget[0] < 0:
        raise _SpentError


def _long_form(tagged: dict[str, Any], budget: list[int]) -> dict[str, Any]:
    """Return a tagged form, paid for if it is long."""
    size = len(tagged[_HELD])
    if size >= _LONG:
        _spend(budget, size)
    return tagged


def _flatten_dict(value: dict[Any, Any], depth: int, budget: list[int]) -> Any:
    budget[0] -= len(value) * _PART + _PART
    if budget[0] < 0:
        raise _SpentError
    changed: dict[str, Any] | None = None
    plain_keys = TAG not in value
    for key, held in value.items():
        if type(key) is not str:
            raise _RefusedError(f"has a key of type {type(key).__name__}; keys are str, so {_why_no_key(type(key))}")
        kind = type(held)
        if key.isascii() and len(key) < _LONG:  # what most are
            if kind is str:
                if len(held) < _LONG and held.isascii():
                    continue
            elif (kind is int and INT_MIN <= held <= INT_MAX) or kind is bool or held is None:
                continue
        try:
            flat = _flatten(held, depth + 1, budget)
        except _RefusedError as refused:
            refused.path.append(f".{_shown(key)}")
            raise
        if flat is not held:
            changed = dict(value) if changed is None else changed
            changed[key] = flat
        if (len(key) >= _LONG or not key.isascii()) and _flatten_text(key, budget) is not key:
            plain_keys = False
    result = value if changed is None else changed
    if plain_keys:
        return result
    return {TAG: "dict", _HELD: [[_flatten(key, 0, budget), held] for key, held in result.items()]}


def _flatten_items(items: list[Any], depth: int, budget: list[int]) -> list[Any]:
    budget[0] -= len(items) * _PART + _PART
    if budget[0] < 0:
        raise _SpentError
    changed: list[Any] | None = None
    for index, held in enumerate(items):
        try:
            flat = _flatten(held, depth + 1, budget)
        except _RefusedError as refused:
            refused.path.append(f"[{index}]")
            raise
        if flat is not held:
            changed = list(items) if changed is None else changed
            changed[index] = flat
    return items if changed is None else changed


def _flatten_text(text: str, budget: list[int]) -> Any:
    if len(text) >= _LONG:
        _spend(budget, len(text))
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate: UTF-8 has no form for it
        return {TAG: "str", _HELD: text.encode("utf-8", "surrogatepass").hex()}
    return text


def _flatten_other(value: Any, kind: type) -> Any:
    if kind is datetime or kind is time:
        try:
            text, fold, zone = format_moment(value)
        except InvalidMomentError as error:
            raise _RefusedError(str(error)) from None
        tagged: dict[str, Any] = {TAG: kind.__name__, _HELD: text}
        if fold:
            tagged["fold"] = fold
        if zone is not None:
            tagged["zone"] = zone
        return tagged
    if kind is date:
        return {TAG: "date", _HELD: value.isoformat()}
    if kind is timedelta:
        return {TAG: "timedelta", _HELD: [value.days, value.seconds, value.microseconds]}
    if kind is bytes:
        return {TAG: "bytes", _HELD: binascii.b2a_base64(value, newline=False).decode("ascii")}
    name = kind.__name__
    if kind.__module__ == "uuid" and name == "UUID":
        return {TAG: "uuid", _HELD: str(value)}
    if kind.__module__ in ("decimal", "_pydecimal") and name == "Decimal":
        return {TAG: "decimal", _HELD: str(value)}
    if kind.__module__.partition(".")[0] == "pathlib":
        from pathlib import Path

        if kind is type(Path()):
            return {TAG: "path", _HELD: _flatten_text(str(value), [_NO_LIMIT])}
    raise _RefusedError(f"is of type {why_refused(kind)}")


_WAYS_OUT = {
    bytearray: "convert it with bytes(...)",
    datetime: "it would come back as datetime, so convert it with datetime.fromisoformat(it.isoformat())",
    date: "it would come back as date, so convert it with date.fromisoformat(it.isoformat())",
    time: "it would come back as time, so convert it with time.fromisoformat(it.isoformat())",
    timedelta: "it would come back as timedelta, so convert it with timedelta(it.days, it.seconds, it.microseconds)",
}


def why_refused(kind: type) -> str:
    """Return why a value of this type cannot be stored, and what can be done: the rest of "it is of type"."""
    if issubclass(kind, Enum):
        return f"{kind.__name__}: it would not come back as a member, so store its .value, or its .name"
    for plain in (dict, list, tuple, set, frozenset, str, bool, int, float, bytes):
        if issubclass(kind, plain):
            return f"{kind.__name__}: it would come back as {plain.__name__}, so convert it with {plain.__name__}(...)"
    if issubclass(kind, Mapping):
        return f"{kind.__name__}: convert it with dict(...)"
    for other, way_out in _WAYS_OUT.items():
        if issubclass(kind, other):
            return f"{kind.__name__}: {way_out}"
    return f"{kind.__name__}, which cannot be stored; turn it into JSON types or bytes"


def _why_no_key(kind: type) -> str:
    if issubclass(kind, Enum):
        return "use the member's .value, if that is a str, or its .name"
    return "use key.decode()" if kind is bytes else "use str(key)"


def _shown(key: str) -> str:
    """Return a dict key for use in a path: whole if it is short and printable, else cut and escaped."""
    return key if key.isprintable() and len(key) <= 40 else ascii(key[:40])[1:-1] + "…"


# --- back ----------------------------------------------------------------------------------------


def revive(plain: Any) -> Any:
    """Return the value whose `flatten` is `plain`. Lists and dicts are changed in place.

    Raises:
        ValueError: a tagged form is unknown or malformed.
        StackFullError: it is nested too deep for what is left of the call stack.
    """
    try:
        return _revive(plain)
    except RecursionError:
        raise StackFullError from None


def _revive(plain: Any) -> Any:
    kind = type(plain)
    if kind is dict:
        tag = plain.get(TAG)
        if tag is None:
            for key, held in plain.items():
                if type(held) is dict or type(held) is list:
                    plain[key] = _revive(held)
            return plain
        try:
            return _REVIVERS[tag](plain)
        except InvalidMomentError:
            raise
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise ValueError("a stored value has an unknown or malformed tagged form") from error
    if kind is list:
        for index, held in enumerate(plain):
            if type(held) is dict or type(held) is list:
                plain[index] = _revive(held)
    return plain


def _revive_decimal(plain: dict[str, Any]) -> Any:
    from decimal import Decimal

    return Decimal(plain[_HELD])


def _revive_uuid(plain: dict[str, Any]) -> Any:
    from uuid import UUID

    return UUID(plain[_HELD])


def _revive_path(plain: dict[str, Any]) -> Any:
    from pathlib import Path

    return Path(_revive(plain[_HELD]))


_REVIVERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "int": lambda plain: int(plain[_HELD], 16),
    "float": lambda plain: float(plain[_HELD]),
    "str": lambda plain: bytes.fromhex(plain[_HELD]).decode("utf-8", "surrogatepass"),
    "dict": lambda plain: {_revive(key): _revive(held) for key, held in plain[_HELD]},
    "tuple": lambda plain: tuple(_revive(plain[_HELD])),
    "set": lambda plain: set(_revive(plain[_HELD])),
    "frozenset": lambda plain: frozenset(_revive(plain[_HELD])),
    "datetime": lambda plain: parse_moment(datetime, plain[_HELD], plain.get("fold", 0), plain.get("zone")),
    "time": lambda plain: parse_moment(time, plain[_HELD], plain.get("fold", 0), plain.get("zone")),
    "date": lambda plain: date.fromisoformat(plain[_HELD]),
    "timedelta": lambda plain: timedelta(*plain[_HELD]),
    "bytes": lambda plain: binascii.a2b_base64(plain[_HELD]),
    "uuid": _revive_uuid,
    "decimal": _revive_decimal,
    "path": _revive_path,
}
