r"""A value in JSON types only, for other programs. It is not read back: `jarvis.codec.values` is for that.

=====================================  ================================================================
in the value                           in JSON
=====================================  ================================================================
dict, list, text, bool, None           the same
int                                    a number within 64 bits; else text in hexadecimal, ``"0x…"``
float                                  a number; else ``"NaN"``, ``"Infinity"``, ``"-Infinity"``
tuple                                  a list
set, frozenset                         a list, in the order of the JSON of its members
datetime, date, time                   ISO 8601 text, with ``Z`` for UTC
timedelta                              ISO 8601 text, such as ``"-PT90S"``
bytes                                  base64 text
UUID, Decimal, Path, and others        the text of ``str``
a lone surrogate, also in a key        the six characters of its escape, such as ``\ud800``
=====================================  ================================================================
"""

from __future__ import annotations

import math
from datetime import datetime, time
from typing import Any

import msgspec

from jarvis.codec.values import INT_MAX, INT_MIN
from jarvis.errors import InvalidEntryError

_encoder = msgspec.json.Encoder()


def json_form(value: Any) -> Any:
    """Return `value` as a new object of JSON types. It must not be nested without end.

    Raises:
        InvalidEntryError: two keys of a dict would be the same in JSON.

    >>> json_form({"at": (1, float("nan")), "tags": {"b", "a"}})
    {'at': [1, 'NaN'], 'tags': ['a', 'b']}
    """
    kind = type(value)
    if kind is str:
        return _text(value)
    if kind is bool or value is None:
        return value
    if kind is int:
        return value if INT_MIN <= value <= INT_MAX else hex(value)
    if kind is float:
        return value if math.isfinite(value) else _NO_NUMBERS[str(value)]
    if isinstance(value, dict):
        return _object(value)
    if isinstance(value, (list, tuple)):
        return [json_form(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(json_form, value), key=_encoder.encode)
    if isinstance(value, (datetime, time)):
        try:
            return value.isoformat().replace("+00:00", "Z")
        except Exception:  # noqa: BLE001 - the time zone may be anybody's class
            raise InvalidEntryError("value", "has a time zone that tells no offset") from None
    plain = msgspec.to_builtins(value, str_keys=True, enc_hook=str)
    return _text(plain) if type(plain) is str else json_form(plain)


_NO_NUMBERS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def _text(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _object(value: dict[Any, Any]) -> dict[str, Any]:
    members = {_key(key): json_form(item) for key, item in value.items()}
    if len(members) != len(value):
        raise InvalidEntryError("value", "has a dict with two keys that would be one in JSON; rename one of them")
    return members


def _key(key: Any) -> str:
    form = json_form(key)
    return form if type(form) is str else _encoder.encode(form).decode()
