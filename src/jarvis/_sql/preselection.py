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
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from jarvis.model.query import end_of

MOST = 2
"""The most conditions in a statement: each costs 0.4 µs an entry, for nothing if all entries match."""

_MOST_STEPS, _MOST_CHARACTERS = 10, 1_000
_EXACT = 2**49  # up to here every database reads a whole number exactly, also if it is written as a float
_ROUNDING, _SMALLEST = 1e-12, 1e-300
_LIKE, _ESCAPED = re.compile(r"([\\%_])"), r"\\\1"
_ABOVE_TEXT = b""  # numbers are less than texts, and texts less than bytes

_MAYBE = """(e.packed IS NOT NULL OR e.body NOT LIKE '[{%' OR e.body LIKE '%"$type"%')"""
_OBJECT = "x BETWEEN '{' AND '|'"
# With a LIMIT the inner query is not merged into the outer one, which would read the JSON again at each x.
_FOUND = "(SELECT CASE WHEN x IS NULL THEN {} ELSE {} END FROM (SELECT {}(e.body, :path_#) AS x LIMIT 1) AS found)"


def tests(value_at: str, kind_at: str, members: str) -> dict[str, str]:
    """Return the conditions of a database that orders numbers before texts, and texts before bytes.

    Args:
        value_at: the function that returns what is at a path, such as ``$[0]."key"``, of a JSON text: a number, a text,
            true as 1, false as 0, an object as text that begins with ``{``; NULL for null, or if there is nothing.
        kind_at: the function that returns NULL only if there is nothing at a path.
        members: see `jarvis._sql.dialect.Dialect`.
    """
    between = _FOUND.format(_MAYBE, f"x BETWEEN :low_# AND :high_# OR {_OBJECT}", value_at)
    return {
        "absent": _FOUND.format("TRUE", "FALSE", kind_at),
        "equal": between,
        "list": _FOUND.format(_MAYBE, f"x IN ({members}(:items_#)) OR {_OBJECT}", value_at),
        "numbers": between,
        "present": _FOUND.format(_MAYBE, "TRUE", kind_at),
        # no tagged form at the path equals a text
        "text": f"coalesce({value_at}(e.body, :path_#) = :text_#, {_MAYBE})",
        "texts": between,
    }


Bound = int | float | str | bytes | None


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
    """Return conditions on the entry `e`, as marks of the dialect."""
    return [f"{{value {kind} {n}}}" for n, kind in enumerate(kinds)]


def _conditions(where: Any) -> Iterator[tuple[str, dict[str, Bound]]]:
    """Yield (kind, bindings without number) of what `where` asks for and a database can decide."""
    if type(where) is not dict:
        return
    for part in (where, *where.get("$and", ())):
        for path, condition in part.items() if type(part) is dict else ():
            if (steps := _steps(path)) is None:
                continue
            for name, operand in _operators(condition):
                made = _condition(steps[-1], name, operand)
                if made is not None and not (made[0] == "absent" and any(map(_is_index, steps))):
                    yield made[0], {"path": _path(steps), "steps": _as_json(["0", *steps]), **made[1]}


def _steps(path: Any) -> Sequence[str] | None:
    """Return the steps of a path; None if a database might read one otherwise."""
    steps = path.split(".") if type(path) is str and not path.startswith("$") else path
    if not isinstance(steps, (list, tuple)) or len(steps) > _MOST_STEPS or sum(map(len, steps)) > _MOST_CHARACTERS:
        return None
    if not all(type(step) is str and step and step.isprintable() and not set(step) & {'"', "\\"} for step in steps):
        return None
    return steps


def _path(steps: Sequence[str]) -> str:
    """Return steps into the value of a body as JSON path."""
    return "$[0]" + "".join(f'."{step}"' for step in steps)


def _is_index(step: str) -> bool:
    """Tell whether a database may take a step for one into a list, where Python finds nothing."""
    return step.strip().lstrip("+-").isdigit()


def _as_json(members: Sequence[str]) -> str:
    return msgspec.json.encode(members).decode()


def _operators(condition: Any) -> list[tuple[Any, Any]]:
    if type(condition) is dict and any(type(key) is str and key.startswith("$") for key in condition):
        return list(condition.items())
    return [("$eq", condition)]


def _condition(key: str, name: Any, operand: Any) -> tuple[str, dict[str, Bound]] | None:
    if name == "$exists":
        return ("present", {"parts": _parts(key, [""])}) if operand else ("absent", {})
    if name == "$in":
        items = _items(operand)
        return None if items is None else ("list", {"items": items})
    if name == "$eq" and type(operand) is str:
        if not _is_plain_text(operand):
            return None
        return "text", {"text": operand, "parts": _parts(key, _written(operand))}
    bounds = _bounds(name, operand)
    if bounds is None:
        return None
    low, high = bounds
    if name == "$eq" and _is_exact(operand):
        return "equal", {"low": low, "high": high, "parts": _parts(key, _written(operand))}
    is_text = type(operand) is str
    return "texts" if is_text else "numbers", {"low": low, "high": high, "end": high if type(high) is str else None}


def _written(operand: str | int) -> list[str]:
    """Return how values that equal a text or an exact number begin in JSON, if they are in no tagged form."""
    written = msgspec.json.encode(operand).decode()
    return [written, "-0"] if operand == 0 else [written]  # -0.0


def _parts(key: str, written: Collection[str]) -> str:
    """Return patterns of LIKE, as a JSON list: a body that has none of them has none of these values under a key."""
    name = msgspec.json.encode(key).decode()
    return _as_json([f"%{_LIKE.sub(_ESCAPED, f'{name}:{each}')}%" for each in written])


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
