"""Texts of the command line to values: pairs, conditions and sources of keys.

Each function raises `ValueError` with one sentence that says what it takes.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jarvis.errors import InvalidSettingError
from jarvis.interfaces.readable import safe
from jarvis.keys import KeySource, Passphrase
from jarvis.model.options import source_from_setting

_CONDITION = re.compile(r"([^=<>!~]+?)\s*(>=|<=|!=|=|>|<|~)\s*(.*)", re.DOTALL)
_OPERATORS = {"=": "$eq", "!=": "$ne", ">": "$gt", ">=": "$gte", "<": "$lt", "<=": "$lte", "~": "$icontains"}


def source(text: str) -> KeySource:
    """Return a source of keys: ``environment:NAME``, ``file:PATH``, ``keyring:SERVICE``, ``passphrase``, or
    ``passphrase-environment:NAME``.
    """
    if text == "passphrase":
        return Passphrase(_asked_passphrase)
    kind, colon, name = text.partition(":")
    if not colon:
        raise ValueError(
            "takes file:PATH, environment:NAME, keyring:SERVICE, passphrase-environment:NAME or passphrase, "
            f"not {safe(text)!r}"
        )
    try:
        return source_from_setting({kind.replace("-", "_"): name})
    except InvalidSettingError as error:
        raise ValueError(str(error)) from None


def _asked_passphrase() -> str:
    import getpass

    if not sys.stdin.isatty():
        raise InvalidSettingError("a passphrase is asked for on a terminal; give passphrase-environment:NAME instead")
    return getpass.getpass("Passphrase: ", stream=sys.stderr)


def value(pairs: Sequence[str], text: str | None, file: str | None) -> dict[str, Any]:
    """Return the value that is given as pairs, as JSON, in a file, or on the standard input (``-``)."""
    if (bool(pairs)) + (text is not None) + (file is not None) != 1:
        raise ValueError("give the value in one way: key=value …, --value JSON, or --from FILE (- for standard input)")
    if file is not None:
        text = standard_input() if file == "-" else _read(file)
    if text is not None:
        return _object(text)
    return _unrepeated([_pair(each) for each in pairs])


def standard_input() -> str:
    """Return all of the standard input."""
    try:
        text = sys.stdin.read()
        text.encode()  # in the locale C, bytes that are no UTF-8 come as lone surrogates
    except UnicodeError:
        raise ValueError("the standard input is not UTF-8") from None
    return text


def _read(file: str) -> str:
    try:
        return Path(file).expanduser().read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not UTF-8") from None
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror or error}") from None


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text, object_pairs_hook=_unrepeated, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise ValueError("the value is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"the value is no JSON: {error.msg} in line {error.lineno}, column {error.colno}") from None
    if not isinstance(found, dict):
        raise ValueError('the value must be a JSON object, such as \'{"mode": "dark"}\'')
    return found


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("the value has a key twice")
    return dict(pairs)


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is more than a number can hold")
    return number


def _pair(text: str) -> tuple[str, Any]:
    name, sign, given = text.partition("=")
    if not (name and sign):
        raise ValueError(f"takes key=value, not {safe(text)!r}")
    return name, typed(given)


def typed(text: str) -> Any:
    """Return what a text says: JSON, such as ``3``, ``true``, ``null``, ``"3"`` or ``[1, 2]``, or else the text."""
    try:
        return json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError):
        return text


def where(conditions: Sequence[str]) -> dict[str, Any]:
    """Return the filter on values that conditions say together: ``status=failed``, ``n>10``, ``text~word``, or JSON."""
    parts = [_object(each) if each.lstrip().startswith("{") else _condition(each) for each in conditions]
    return parts[0] if len(parts) == 1 else {"$and": parts}


def _condition(text: str) -> dict[str, Any]:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise ValueError(f"takes a condition such as status=failed, duration>10 or text~word, not {safe(text)!r}")
    path, operator, given = match.groups()
    return {path: {_OPERATORS[operator]: given if operator == "~" else typed(given)}}
