"""The law: a value is stored plainly if and only if decoding its encoding gives an equal value of the
same types. Otherwise it is stored in a tagged form, or refused.

The types are walked *before* encoding, because fast encoders silently turn NaN into null, integer
keys into text and tuples into lists. The tagged form is an object ``{"$type": name, "$value": …}``.
A caller's own object that has a ``"$type"`` key is itself tagged (as ``"dict"``), so nothing collides.
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
"""Deepest nesting of a value. Decoders recurse: a deeper value could be written from a shallow call stack, and then
not be read from a deep one."""

MAX_VALUE_BYTES = 64 * 1024 * 1024
"""Largest encoded value. Store larger data in a file, and its path in the memory."""

TAG = "$type"
_CONTENT = "$value"
_MARK = b'"$type"'  # is in the bytes of every value that holds a tagged form (and perhaps in others)

_BUDGET = MAX_VALUE_BYTES
"""Bytes of long texts, and `_PART` for each part, before a value is checked for whether it explodes."""

_PART = 256  # the budget is spent after 30 ms
_LONG = 4096  # characters; a longer text costs its length
_NO_LIMIT = 2**80

INT_MIN, INT_MAX = -(2**63), 2**64 - 1  # what JSON readers everywhere keep exactly as integers

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


NO_STACK = "is nested too deep for what is left of the call stack"
_TOO_DEEP = f"is nested deeper than {MAX_DEPTH} levels; store parts of it as entries of their own"


class _RefusedError(Exception):
    """Carries the reason, and collects the path on its way up to the field, segment by segment."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        self.path: list[str] = []


class _SpentError(Exception):
    """The budget is spent: the value is very large, or explodes."""


class Prepared(dict[str, Any]):
    """Takes the place of a value that was encoded before it was needed, such as before a lock was taken.

    It is an empty dict: the content of the value is in `json`.

    Attributes:
        json: the value, checked and encoded by `encode`.
        packed: the same compressed, or None if it is not to be compressed.
    """

    __slots__ = ("json", "packed")

    def __init__(self, json: bytes, packed: bytes | None) -> None:
        super().__init__()
        self.json, self.packed = json, packed


def encode(value: Any) -> bytes:
    """Return `value` as UTF-8 JSON bytes, which `decode` turns back into the exact value.

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
    """Return the value that `encode` was given, as a new object at every call.

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
    """Check that `value` does not explode, quickly also where `flatten` would never end: each container is seen once.

    Raises:
        InvalidEntryError: it is nested too deep, or sure to be over `MAX_VALUE_BYTES`.
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
        return value if INT_MIN <= value <= INT_MAX else _long_form({TAG: "int", _CONTENT: hex(value)}, budget)
    if kind is bool or value is None:
        return value
    if kind is float:
        return value if math.isfinite(value) else {TAG: "float", _CONTENT: repr(value)}
    if depth >= MAX_DEPTH:
        raise _RefusedError(_TOO_DEEP)
    if kind is dict:
        return _flatten_dict(value, depth, budget)
    if kind is list:
        return _flatten_items(value, depth, budget)
    if kind is tuple:
        return {TAG: "tuple", _CONTENT: _flatten_items(list(value), depth, budget)}
    if kind is set or kind is frozenset:  # their order differs between processes: equal ones get the same bytes
        return {TAG: kind.__name__, _CONTENT: sorted(_flatten_items(list(value), depth, budget), key=_encoder.encode)}
    return _long_form(_flatten_other(value, kind), budget)


def _spend(budget: list[int], cost: int) -> None:
    budget[0] -= cost
    if budget[0] < 0:
        raise _SpentError


def _long_form(tagged: dict[str, Any], budget: list[int]) -> dict[str, Any]:
    """Return a tagged form; a long one costs its length."""
    size = len(tagged[_CONTENT])
    if size >= _LONG:
        _spend(budget, size)
    return tagged


def _flatten_dict(value: dict[Any, Any], depth: int, budget: list[int]) -> Any:
    budget[0] -= len(value) * _PART + _PART
    if budget[0] < 0:
        raise _SpentError
    changed: dict[str, Any] | None = None
    plain_keys = TAG not in value
    for key, item in value.items():
        if type(key) is not str:
            raise _RefusedError(f"has a key of type {type(key).__name__}; keys are str, so {_why_no_key(type(key))}")
        kind = type(item)
        if key.isascii() and len(key) < _LONG:  # what most are
            if kind is str:
                if len(item) < _LONG and item.isascii():
                    continue
            elif (kind is int and INT_MIN <= item <= INT_MAX) or kind is bool or item is None:
                continue
        try:
            flat = _flatten(item, depth + 1, budget)
        except _RefusedError as refused:
            refused.path.append(f".{_shown(key)}")
            raise
        if flat is not item:
            changed = dict(value) if changed is None else changed
            changed[key] = flat
        if (len(key) >= _LONG or not key.isascii()) and _flatten_text(key, budget) is not key:
            plain_keys = False
    result = value if changed is None else changed
    if plain_keys:
        return result
    return {TAG: "dict", _CONTENT: [[_flatten(key, 0, budget), item] for key, item in result.items()]}


def _flatten_items(items: list[Any], depth: int, budget: list[int]) -> list[Any]:
    budget[0] -= len(items) * _PART + _PART
    if budget[0] < 0:
        raise _SpentError
    changed: list[Any] | None = None
    for index, item in enumerate(items):
        try:
            flat = _flatten(item, depth + 1, budget)
        except _RefusedError as refused:
            refused.path.append(f"[{index}]")
            raise
        if flat is not item:
            changed = list(items) if changed is None else changed
            changed[index] = flat
    return items if changed is None else changed


def _flatten_text(text: str, budget: list[int]) -> Any:
    if len(text) >= _LONG:
        _spend(budget, len(text))
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate: UTF-8 has no form for it
        return {TAG: "str", _CONTENT: text.encode("utf-8", "surrogatepass").hex()}
    return text


def _flatten_other(value: Any, kind: type) -> Any:
    if kind is datetime or kind is time:
        try:
            text, fold, zone = format_moment(value)
        except InvalidMomentError as error:
            raise _RefusedError(str(error)) from None
        tagged: dict[str, Any] = {TAG: kind.__name__, _CONTENT: text}
        if fold:
            tagged["fold"] = fold
        if zone is not None:
            tagged["zone"] = zone
        return tagged
    if kind is date:
        return {TAG: "date", _CONTENT: value.isoformat()}
    if kind is timedelta:
        return {TAG: "timedelta", _CONTENT: [value.days, value.seconds, value.microseconds]}
    if kind is bytes:
        return {TAG: "bytes", _CONTENT: binascii.b2a_base64(value, newline=False).decode("ascii")}
    name = kind.__name__
    if kind.__module__ == "uuid" and name == "UUID":
        return {TAG: "uuid", _CONTENT: str(value)}
    if kind.__module__ in ("decimal", "_pydecimal") and name == "Decimal":
        return {TAG: "decimal", _CONTENT: str(value)}
    if kind.__module__.partition(".")[0] == "pathlib":
        from pathlib import Path

        if kind is type(Path()):
            return {TAG: "path", _CONTENT: _flatten_text(str(value), [_NO_LIMIT])}
    raise _RefusedError(f"is of type {why_refused(kind)}")


_WAYS_OUT = {
    bytearray: "convert it with bytes(...)",
    datetime: "it would come back as datetime, so convert it with datetime.fromisoformat(it.isoformat())",
    date: "it would come back as date, so convert it with date.fromisoformat(it.isoformat())",
    time: "it would come back as time, so convert it with time.fromisoformat(it.isoformat())",
    timedelta: "it would come back as timedelta, so convert it with timedelta(it.days, it.seconds, it.microseconds)",
}


def why_refused(kind: type) -> str:
    """Return why a value of this type cannot be stored, and the way out, as the rest of a sentence "it is of type"."""
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
    """Return a dict key as a segment of a path: whole if it is short and printable, else cut and escaped."""
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
            for key, item in plain.items():
                if type(item) is dict or type(item) is list:
                    plain[key] = _revive(item)
            return plain
        try:
            return _REVIVERS[tag](plain)
        except InvalidMomentError:
            raise
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise ValueError("a stored value has an unknown or malformed tagged form") from error
    if kind is list:
        for index, item in enumerate(plain):
            if type(item) is dict or type(item) is list:
                plain[index] = _revive(item)
    return plain


def _revive_decimal(plain: dict[str, Any]) -> Any:
    from decimal import Decimal

    return Decimal(plain[_CONTENT])


def _revive_uuid(plain: dict[str, Any]) -> Any:
    from uuid import UUID

    return UUID(plain[_CONTENT])


def _revive_path(plain: dict[str, Any]) -> Any:
    from pathlib import Path

    return Path(_revive(plain[_CONTENT]))


_REVIVERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "int": lambda plain: int(plain[_CONTENT], 16),
    "float": lambda plain: float(plain[_CONTENT]),
    "str": lambda plain: bytes.fromhex(plain[_CONTENT]).decode("utf-8", "surrogatepass"),
    "dict": lambda plain: {_revive(key): _revive(item) for key, item in plain[_CONTENT]},
    "tuple": lambda plain: tuple(_revive(plain[_CONTENT])),
    "set": lambda plain: set(_revive(plain[_CONTENT])),
    "frozenset": lambda plain: frozenset(_revive(plain[_CONTENT])),
    "datetime": lambda plain: parse_moment(datetime, plain[_CONTENT], plain.get("fold", 0), plain.get("zone")),
    "time": lambda plain: parse_moment(time, plain[_CONTENT], plain.get("fold", 0), plain.get("zone")),
    "date": lambda plain: date.fromisoformat(plain[_CONTENT]),
    "timedelta": lambda plain: timedelta(*plain[_CONTENT]),
    "bytes": lambda plain: binascii.a2b_base64(plain[_CONTENT]),
    "uuid": _revive_uuid,
    "decimal": _revive_decimal,
    "path": _revive_path,
}
