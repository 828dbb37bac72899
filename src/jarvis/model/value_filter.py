"""The language of value filters: ``where={"status": "failed", "duration": {"$gt": 10}}``.

The words are MongoDB's, the meaning is narrower and the same on every backend:

* Only values of one kind are compared: a bool is no number, ``"10"`` is no ``10``, an aware datetime is
  never compared with a naive one. Values that cannot be compared do not match.
* A missing path is not null: ``{"a": None}`` matches a stored null only; ``$ne``, ``$nin`` and
  ``$not`` match a missing path too, as their positive forms do not.
* A path is dotted (``"result.code"``) or a tuple (``("a.b", "c")``) where a key holds a dot. A path
  steps into dicts only. ``$contains``, ``$icontains``, ``$any`` and ``$all`` look into lists, and nothing else.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, time
from typing import Any

from jarvis.codec.extent import extent_of
from jarvis.errors import InvalidQueryError, nearest

Test = Callable[[Any], bool]

MAX_FILTER_DEPTH = 50
MAX_FILTER_PARTS = 250_000
"""The most conditions, operands and parts of operands in a filter; a shared part counts at each place."""

_TALLEST = 100 + MAX_FILTER_DEPTH  # no value is nested deeper than 100

_MISSING: Any = object()
_LISTS = (list, tuple, set, frozenset)
_CONTAINERS = (dict, *_LISTS)
_IN_PLACE_OF_A_PATH = ("$and", "$or", "$not")
_PAGE = "docs/reference/value-filters.md"
_ORDERED = frozenset(
    ("number", "str", "bytes", "bool", "date", "datetime", "naive datetime", "time", "naive time", "timedelta")
)
_STORED = _ORDERED | {"NoneType", "list", "tuple", "set", "dict", "UUID", "PosixPath", "WindowsPath"}


def compile_where(where: Mapping[Any, Any]) -> Test:
    """Return a function that tells whether a value (a dict) satisfies `where`; every value satisfies ``{}``.

    Raises:
        InvalidQueryError: `where` is no mapping, or a path, operator or operand means nothing.

    >>> failed_slowly = compile_where({"status": "failed", "time.total": {"$gt": 10}})
    >>> failed_slowly({"status": "failed", "time": {"total": 45}})
    True
    >>> failed_slowly({"status": "failed", "time": {"total": "45"}})
    False
    """
    check_where(where)
    try:
        return _compile_clauses(where, 0)
    except RecursionError:
        raise _no_stack() from None


def check_where(where: object) -> None:
    """Check that a filter can be walked; raise `InvalidQueryError` if it is nested too deep or has too many parts."""
    try:
        extent = extent_of(where)
    except RecursionError:
        raise _no_stack() from None
    if extent.height > _TALLEST:
        raise InvalidQueryError(f"where: is nested deeper than {MAX_FILTER_DEPTH} levels")
    if extent.parts > MAX_FILTER_PARTS:
        raise InvalidQueryError(
            f"where: has over {MAX_FILTER_PARTS:,} conditions and operands, where a repeated one counts each time; "
            "ask in several queries"
        )


def _no_stack() -> InvalidQueryError:
    return InvalidQueryError("where: it, or a value, is nested too deep for what is left of the call stack")


def _compile_clauses(where: Any, depth: int) -> Test:
    if not isinstance(where, Mapping):
        raise InvalidQueryError(f"where: takes a dict of path to condition, not {type(where).__name__}")
    if depth > MAX_FILTER_DEPTH:
        raise InvalidQueryError(f"where: is nested deeper than {MAX_FILTER_DEPTH} levels")
    tests = [_compile_clause(path, condition, depth) for path, condition in where.items()]
    return tests[0] if len(tests) == 1 else lambda value: all(test(value) for test in tests)


def _compile_clause(path: Any, condition: Any, depth: int) -> Test:
    if path in ("$and", "$or"):
        if not isinstance(condition, (list, tuple)) or not condition:
            raise InvalidQueryError(f"where: {path} takes a list of at least one condition")
        tests = [_compile_clauses(part, depth + 1) for part in condition]
        if path == "$and":
            return lambda value: all(test(value) for test in tests)
        return lambda value: any(test(value) for test in tests)
    if path == "$not":
        negated = _compile_clauses(condition, depth + 1)
        return lambda value: not negated(value)
    steps = _steps(path)
    test = _compile_condition(condition, depth + 1)
    if len(steps) == 1:
        step = steps[0]
        return lambda value: test(value.get(step, _MISSING))
    return lambda value: test(_look_up(value, steps))


def _steps(path: Any) -> tuple[str, ...]:
    if isinstance(path, str):
        if path.startswith("$"):
            raise InvalidQueryError(
                f"where: no operator named {path!r} can stand here, only paths, $and, $or and $not"
                f"{nearest(path, _IN_PLACE_OF_A_PATH)} "
                f"(a key that starts with $ is written as a tuple: ({path!r},)); see {_PAGE}"
            )
        return tuple(path.split("."))
    if isinstance(path, tuple) and path and all(isinstance(step, str) for step in path):
        return path
    raise InvalidQueryError("where: a path is a dotted str, or a tuple of str where a key holds a dot")


def _look_up(value: Any, steps: tuple[str, ...]) -> Any:
    for step in steps:
        if type(value) is not dict:
            return _MISSING
        value = value.get(step, _MISSING)
    return value


def _compile_condition(condition: Any, depth: int) -> Test:
    if depth > MAX_FILTER_DEPTH:
        raise InvalidQueryError(f"where: is nested deeper than {MAX_FILTER_DEPTH} levels")
    if isinstance(condition, Mapping) and any(isinstance(key, str) and key.startswith("$") for key in condition):
        tests = [_compile_operator(name, operand, depth) for name, operand in condition.items()]
        return tests[0] if len(tests) == 1 else lambda value: all(test(value) for test in tests)
    return _equal(condition)


def _compile_operator(name: Any, operand: Any, depth: int) -> Test:
    if name == "$not":
        negated = _compile_condition(operand, depth + 1)
        return lambda value: not negated(value)
    if name in ("$any", "$all"):
        return _of_elements(name, operand, depth)
    try:
        make = _OPERATORS[name]
    except (KeyError, TypeError):
        names = [*_OPERATORS, "$not", "$any", "$all"]
        raise InvalidQueryError(
            f"where: no operator named {name!r}{nearest(str(name), names)}; "
            f"known: {', '.join(sorted(names))}; see {_PAGE}"
        ) from None
    return make(operand)


def _of_elements(name: str, condition: Any, depth: int) -> Test:
    if isinstance(condition, _LISTS):  # in MongoDB it has another meaning
        raise InvalidQueryError(
            f"where: {name} takes one condition for the elements, no list; "
            '"has all of these" is an $and of $contains, and an element that is a list is {"$eq": […]}'
        )
    test, quantifier = _compile_element(condition, depth + 1), any if name == "$any" else all
    return lambda value: isinstance(value, _LISTS) and quantifier(map(test, value))


def _compile_element(condition: Any, depth: int) -> Test:
    """Return the test of an element: of one that is a dict by a filter with paths, of any by a condition."""
    if isinstance(condition, Mapping):
        if len(condition) == 1 and "$not" in condition:
            negated = _compile_element(condition["$not"], depth + 1)
            return lambda value: not negated(value)
        operators = [key for key in condition if isinstance(key, str) and key.startswith("$")]
        if set(operators) <= set(_IN_PLACE_OF_A_PATH):
            of_dict = _compile_clauses(condition, depth + 1)
            return lambda value: type(value) is dict and of_dict(value)
    return _compile_condition(condition, depth)


# --- what the operators mean ---------------------------------------------------------------------


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are equal *and* of the same kinds all the way down. NaN equals nothing.

    >>> same([1, 2.0], [1.0, 2]), same([True], [1]), same((1,), [1])
    (True, False, False)
    """
    kind = _kind(one)
    if kind != _kind(other):
        return False
    try:
        if kind in ("list", "tuple"):
            return len(one) == len(other) and all(map(same, one, other))
        if kind == "dict":
            return len(one) == len(other) and all(key in other and same(item, other[key]) for key, item in one.items())
        if kind == "set":
            return len(one) == len(other) and _same_members(one, other)
    except RecursionError:
        raise _no_stack() from None
    return _compared(operator.eq, one, other)


def _same_members(one: Collection[Any], other: Collection[Any]) -> bool:
    """Tell whether each member of a set is the same as one of another set.

    A set has at most one member that equals a given value, so each member is compared with that one only.
    """
    members = {member: member for member in other}
    return all(same(member, members.get(member, _MISSING)) for member in one)


def _compared(compare: Callable[[Any, Any], Any], one: Any, other: Any) -> bool:
    try:
        return bool(compare(one, other))
    except ArithmeticError:  # a Decimal that is no number
        return False


def _kind(value: Any) -> str:
    """Return the kind of a value: only values of one kind are compared."""
    kind = type(value)
    if kind is int or kind is float:
        return "number"
    if kind is datetime or kind is time:
        return kind.__name__ if value.utcoffset() is not None else f"naive {kind.__name__}"
    if kind is frozenset:
        return "set"
    if kind.__name__ == "Decimal":
        return "number"
    return kind.__name__


def _check_operand(operand: Any) -> None:
    """Raise if no stored value can be of the kind of `operand`."""
    if _kind(operand) not in _STORED:
        raise InvalidQueryError(
            f"where: no stored value is of type {type(operand).__name__}; compare with its value, or a built-in type"
        )
    parts = [*operand, *operand.values()] if isinstance(operand, dict) else operand
    if isinstance(operand, _CONTAINERS):
        for part in parts:
            _check_operand(part)


def _equal(operand: Any) -> Test:
    if type(operand) is str:  # by far the most common condition
        return lambda value: type(value) is str and value == operand
    _check_operand(operand)
    return lambda value: value is not _MISSING and same(value, operand)


def _unequal(operand: Any) -> Test:
    equal = _equal(operand)
    return lambda value: not equal(value)


def _ordering(name: str, compare: Callable[[Any, Any], bool]) -> Callable[[Any], Test]:
    def make(operand: Any) -> Test:
        kind = _kind(operand)
        if kind not in _ORDERED:
            raise InvalidQueryError(f"where: {name} cannot order a value of type {type(operand).__name__}")
        return lambda value: value is not _MISSING and _kind(value) == kind and _compared(compare, value, operand)

    return make


def _within(operand: Any) -> Test:
    if not isinstance(operand, (list, tuple, set, frozenset)):
        raise InvalidQueryError("where: $in and $nin take a list of values")
    scalars: dict[str, set[Any]] = {}
    tests = []
    types = set(map(type, operand))
    if types == {int} or types == {str}:  # as most are
        scalars[_kind(next(iter(operand)))] = set(operand)
    else:
        for each in operand:
            if isinstance(each, _CONTAINERS):
                tests.append(_equal(each))
                continue
            _check_operand(each)
            if same(each, each):  # else it is no number, and equals nothing
                scalars.setdefault(_kind(each), set()).add(each)

    def test(value: Any) -> bool:
        if isinstance(value, _CONTAINERS):
            return any(test(value) for test in tests)
        members = scalars.get(_kind(value))
        try:
            return members is not None and value in members
        except (TypeError, ArithmeticError):  # a Decimal that signals, and equals nothing
            return False

    return test


def _not_within(operand: Any) -> Test:
    within = _within(operand)
    return lambda value: not within(value)


def _exists(operand: Any) -> Test:
    if not isinstance(operand, bool):
        raise InvalidQueryError("where: $exists takes True or False")
    return lambda value: (value is not _MISSING) is operand


def _contains(operand: Any) -> Test:
    _check_operand(operand)

    def test(value: Any) -> bool:
        if type(value) is str:
            return type(operand) is str and operand in value
        return type(value) in _LISTS and any(same(item, operand) for item in value)

    return test


def _contains_folded(operand: Any) -> Test:
    folded = _text("$icontains", operand).casefold()

    def test(value: Any) -> bool:
        if type(value) is str:
            return folded in value.casefold()
        return type(value) in _LISTS and any(type(item) is str and item.casefold() == folded for item in value)

    return test


def _starts_with(operand: Any) -> Test:
    text = _text("$startswith", operand)
    return lambda value: type(value) is str and value.startswith(text)


def _text(name: str, operand: Any) -> str:
    if type(operand) is not str:
        raise InvalidQueryError(f"where: {name} takes a str, not {type(operand).__name__}")
    return operand


_OPERATORS: dict[str, Callable[[Any], Test]] = {
    "$eq": _equal,
    "$ne": _unequal,
    "$gt": _ordering("$gt", lambda value, operand: value > operand),
    "$gte": _ordering("$gte", lambda value, operand: value >= operand),
    "$lt": _ordering("$lt", lambda value, operand: value < operand),
    "$lte": _ordering("$lte", lambda value, operand: value <= operand),
    "$in": _within,
    "$nin": _not_within,
    "$exists": _exists,
    "$contains": _contains,
    "$icontains": _contains_folded,
    "$startswith": _starts_with,
}
