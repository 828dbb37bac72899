"""Makes conditions of a filter on values, by which the database leaves out most entries that cannot match.

A condition compares one number or text at a path, and selects more than the filter: Python judges what it lets
through. It lets through each entry whose value may be stored in another way:

* compressed, or in a body of store version 1;
* in a tagged form of `jarvis.codec`, at the path or around it, such as a Decimal that equals an int;
* as a float, whose digits a database may round otherwise: its bounds are wider than those that were asked for.

Where that cannot be told, Python alone judges: null, lists and dicts, texts with NUL, keys with quotes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from jarvis.model.query import end_of

MOST = 2
"""The most conditions in a statement: each costs 0.4 µs an entry, for nothing if all entries match."""

_MOST_STEPS, _MOST_CHARACTERS = 10, 1_000
_EXACT = 2**49  # up to here every database reads a whole number exactly, also if it is written as a float
_ROUNDING, _SMALLEST = 1e-12, 1e-300
_ABOVE_TEXT = b""  # numbers are less than texts, and texts less than bytes

_MAYBE = """(e.packed IS NOT NULL OR e.body NOT LIKE '[{%' OR e.body LIKE '%"$type"%')"""
_OBJECT = "x BETWEEN '{' AND '|'"
# With a LIMIT the inner query is not merged into the outer one, which would read the JSON again at each x.
_FOUND = "(SELECT CASE WHEN x IS NULL THEN {} ELSE {} END FROM (SELECT {}(e.body, :path_#) AS x LIMIT 1) AS found)"
_TEXTS = {
    "absent": _FOUND.format("TRUE", "FALSE", "{kind_at}"),
    "list": _FOUND.format(_MAYBE, f"x IN ({{members}}(:items_#)) OR {_OBJECT}", "{value_at}"),
    "present": _FOUND.format(_MAYBE, "TRUE", "{kind_at}"),
    "range": _FOUND.format(_MAYBE, f"x BETWEEN :low_# AND :high_# OR {_OBJECT}", "{value_at}"),
    "text": f"coalesce({{value_at}}(e.body, :path_#) = :text_#, {_MAYBE})",  # no tagged form at the path equals a text
}
"""By the kind of a condition."""

Bound = int | float | str | bytes


class Preselection(NamedTuple):
    """Conditions of a statement: their kinds, on which alone its text depends, and their bindings."""

    kinds: tuple[str, ...]
    bindings: dict[str, Bound]


def preselect(where: Any) -> Preselection:
    """Return the conditions that every entry satisfies whose value satisfies `where`; no kinds if there are none."""
    chosen = sorted(itertools.islice(_conditions(where), MOST), key=lambda condition: condition[0])
    bindings = {f"{name}_{n}": bound for n, (_, bounds) in enumerate(chosen) for name, bound in bounds.items()}
    return Preselection(tuple(kind for kind, _ in chosen), bindings)


def conditions(kinds: tuple[str, ...]) -> list[str]:
    """Return the texts of conditions on the entry `e`, with marks of the dialect."""
    return [_TEXTS[kind].replace("#", str(n)) for n, kind in enumerate(kinds)]


def _conditions(where: Any) -> Iterator[tuple[str, dict[str, Bound]]]:
    """Yield (kind, bindings without number) of what `where` asks for and a database can decide."""
    if type(where) is not dict:
        return
    for part in (where, *where.get("$and", ())):
        for path, condition in part.items() if type(part) is dict else ():
            if (text := _path(path)) is None:
                continue
            for name, operand in _operators(condition):
                made = _condition(name, operand)
                if made is not None:
                    yield made[0], {"path": text, **made[1]}


def _path(path: Any) -> str | None:
    """Return a path in the value of a body as JSON path; None if a database might read it otherwise."""
    steps = path.split(".") if type(path) is str and not path.startswith("$") else path
    if not isinstance(steps, (list, tuple)) or len(steps) > _MOST_STEPS or sum(map(len, steps)) > _MOST_CHARACTERS:
        return None
    if not all(type(step) is str and step and step.isprintable() and not set(step) & {'"', "\\"} for step in steps):
        return None
    return "$[0]" + "".join(f'."{step}"' for step in steps)


def _operators(condition: Any) -> list[tuple[Any, Any]]:
    if type(condition) is dict and any(type(key) is str and key.startswith("$") for key in condition):
        return list(condition.items())
    return [("$eq", condition)]


def _condition(name: Any, operand: Any) -> tuple[str, dict[str, Bound]] | None:
    if name == "$exists":
        return ("present" if operand else "absent"), {}
    if name == "$in":
        items = _items(operand)
        return None if items is None else ("list", {"items": items})
    if name == "$eq" and type(operand) is str:
        return ("text", {"text": operand}) if _is_plain_text(operand) else None
    bounds = _bounds(name, operand)
    return None if bounds is None else ("range", {"low": bounds[0], "high": bounds[1]})


def _items(operands: Any) -> str | None:
    """Return texts and numbers that are exact in every database as a JSON list; None if there are others."""
    for each in operands:
        if not (_is_plain_text(each) if type(each) is str else _is_exact(each)):
            return None
    return msgspec.json.encode([int(each) if type(each) is bool else each for each in operands]).decode()


def _bounds(name: Any, operand: Any) -> tuple[Bound, Bound] | None:
    """Return the least and the greatest value that can satisfy an operator; None if they cannot be told."""
    low: Bound
    high: Bound
    lowest: Bound = -math.inf
    highest: Bound = math.inf
    if type(operand) is str:
        if not _is_plain_text(operand):
            return None
        if name == "$startswith":
            return operand, end_of(operand) or _ABOVE_TEXT
        low, high, lowest, highest = operand, operand, "", _ABOVE_TEXT
    elif _is_exact(operand):
        low = high = int(operand)
    elif type(operand) in (int, float) and operand == operand:
        number = _nearest(operand)
        rounding = abs(number) * _ROUNDING + _SMALLEST if math.isfinite(number) else 0.0
        low, high = number - rounding, number + rounding
    else:
        return None
    if name == "$eq":
        return low, high
    if name in ("$gt", "$gte"):
        return low, highest
    return (lowest, high) if name in ("$lt", "$lte") else None


def _is_plain_text(text: str) -> bool:
    """Tell whether every database can hold a text."""
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_exact(number: Any) -> bool:
    return type(number) is bool or (type(number) is int and -_EXACT <= number <= _EXACT)


def _nearest(number: int | float) -> float:
    try:
        return float(number)
    except OverflowError:  # an int that is greater than every float
        return math.inf if number > 0 else -math.inf
