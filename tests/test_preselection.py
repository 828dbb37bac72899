"""The database leaves out no entry that matches, and most that do not."""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from jarvis._postgresql import schema
from jarvis._postgresql.dialect import DIALECT, translated
from jarvis._postgresql.raw import Raw, configure
from jarvis._postgresql.wire import Wire
from jarvis._sql.preselection import MOST, conditions, preselect
from jarvis._sqlite import engine
from jarvis.conformance.fixtures import an_entry
from jarvis.errors import InvalidEntryError, InvalidQueryError
from jarvis.model.options import Compression
from jarvis.model.record import encode_entry
from jarvis.model.value_filter import compile_where

from .plain_sqlite import PlainDriver
from .postgresql import DSN, a_database, programs

_TABLE = "CREATE TABLE e (number INTEGER PRIMARY KEY, body TEXT, packed BLOB)"
_NAMED = b'{"value":{"a":1},"tags":[],"timestamp":"2026-01-01T00:00:00+00:00","provenance":{}}'

_KEYS = st.sampled_from(
    ["a", "b", "a.b", "$type", "$value", "[0]", "", 'q"', "\\", "é", "\0", "\ud800", "x y", "%", "'"]
)
_EDGES = [0, 1, -1, 2**49, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**400]
_NUMBERS = (
    st.sampled_from([True, False, *_EDGES, -0.0, 0.1, 1.0, 2.0**53, 1e22, 5e-324, 1.7976931348623157e308, 3e-308])
    | st.sampled_from([float("inf"), float("-inf"), float("nan"), Decimal(1), Decimal("1E+999"), Decimal("NaN")])
    | st.integers()
    | st.integers(-3, 3)
    | st.floats()
    | st.decimals(places=1)
)
_TEXTS = st.sampled_from(
    [
        "",
        "a",
        "ab",
        "a\0b",
        "a\0",
        "\ud800",
        "a\ud800",
        "\ud7ff",
        "\ue000",
        "\U0010ffff",
        "a\U0010ffff",
        "{",
        '{"$type"',
        "|",
        "1",
    ]
) | st.text(max_size=3)
_OTHERS = st.sampled_from([None, b"a", datetime(2026, 1, 1, tzinfo=UTC), [], [1], {}, {"a": 1}, (1,), {"$type": "int"}])
_SCALARS = _NUMBERS | _TEXTS | _OTHERS
_VALUES = st.dictionaries(_KEYS, _SCALARS | st.dictionaries(_KEYS, _SCALARS, max_size=3), max_size=4)
_PATHS = _KEYS.filter(lambda key: not key.startswith("$")) | st.lists(_KEYS, min_size=1, max_size=2).map(tuple)
_ORDERED = _NUMBERS | _TEXTS | st.just(datetime(2026, 1, 1, tzinfo=UTC))
_OPERATORS = st.one_of(
    _SCALARS,
    _SCALARS.map(lambda operand: {"$eq": operand}),
    st.tuples(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), _ORDERED).map(lambda pair: dict([pair])),
    st.tuples(_NUMBERS, _NUMBERS).map(lambda both: {"$gt": both[0], "$lt": both[1]}),
    st.lists(_SCALARS, max_size=4).map(lambda operands: {"$in": operands}),
    st.lists(_NUMBERS | _TEXTS, max_size=4).map(lambda operands: {"$in": operands}),
    st.booleans().map(lambda operand: {"$exists": operand}),
    _TEXTS.map(lambda operand: {"$startswith": operand}),
    _SCALARS.map(lambda operand: {"$ne": operand}),
)
_FILTERS = st.dictionaries(_PATHS, _OPERATORS, min_size=1, max_size=3)
_WHERES = _FILTERS | st.lists(_FILTERS, min_size=1, max_size=2).map(lambda parts: {"$and": parts})


class OnServer:
    """Runs statements on a PostgreSQL server as the backend does."""

    def __init__(self, dsn: str) -> None:
        self._raw = Raw.connect(dsn, autocommit=True)
        configure(self._raw)
        self._wire = Wire(self._raw)
        for statement in filter(str.strip, schema.TABLES.split(";\n")):
            if "texts_in" in statement:
                self._raw.execute(statement.replace("{schema}", "public"))

    def execute(self, sql: str, bindings: Any = ()) -> list[Any]:
        statement = translated(sql.replace("BLOB", "bytea"), "public")
        (result,) = self._wire.exchange([(statement.sql, statement.values(bindings, 0))])
        return self._wire.rows_of(result)


class Table:
    """A table of bodies in databases that spell, parse and round in their own ways."""

    def __init__(self, server: str | None) -> None:
        self._said: list[tuple[Any, Any]] = [
            (apsw.Connection(":memory:").execute, engine.DIALECT),
            (sqlite3.connect(":memory:").execute, PlainDriver.dialect),
        ]
        if server is not None:
            self._said.append((OnServer(server).execute, DIALECT))
        for execute, _ in self._said:
            execute(_TABLE)

    def fill(self, values: list[dict[str, Any]], compression: Compression = "off") -> None:
        self.store([encode_entry(an_entry(value=value), compression)[:2] for value in values])

    def store(self, rows: list[tuple[bytes, bytes | None]]) -> None:
        for execute, _ in self._said:
            execute("DELETE FROM e")
            for number, (body, packed) in enumerate(rows):
                execute("INSERT INTO e VALUES (?, ?, ?)", (number, body.decode(), packed))

    def chosen(self, where: dict[Any, Any]) -> list[set[int]]:
        """Return the numbers of the values that the conditions of a filter let through, in each database."""
        kinds, bindings = preselect(where)
        test = " AND ".join(["TRUE", *conditions(kinds)])
        return [
            {number for (number,) in execute(dialect.say(f"SELECT number FROM e WHERE {test}"), bindings)}
            for execute, dialect in self._said
        ]


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    if programs() is None and DSN not in os.environ:
        yield Table(None)
        return
    with a_database() as dsn:
        yield Table(dsn)


@settings(max_examples=400, suppress_health_check=[HealthCheck.filter_too_much])
@given(st.lists(_VALUES, min_size=1, max_size=6), _WHERES)
@example([{"a": 2**53}, {"a": 2**53 + 1}, {"a": 2.0**53}, {"a": Decimal(2**53)}], {"a": 2**53 + 1})
@example([{"a": 0}, {"a": -0.0}, {"a": False}, {"a": Decimal("-0")}], {"a": {"$in": [0]}})
@example([{"a": 2**64 - 1}, {"a": 2.0**64}, {"a": 10**400}], {"a": {"$gte": 2**64 - 1}})
@example([{"a": "x", "$type": 1}, {"a": "y", "\ud800": 1}], {"a": "x"})
@example([{"a": {"$type": "int", "b": 1}}, {"a": {"b": Decimal(1)}}, {"a": {"b": 1}}], {"a.b": 1})
@example([{"a": None}, {"a": {}}], {"a": {"$exists": True}})
@example([{"a": "\ud7ffa"}], {"a": {"$startswith": "\ud7ff"}})
@example([{"a": "a\0b"}, {"a": "a"}], {"a": {"$gt": "a"}})
def test_every_value_that_matches_is_chosen(table: Table, values: list[dict[str, Any]], where: dict[Any, Any]) -> None:
    try:
        table.fill(values)
        matches = compile_where(where)
    except (InvalidEntryError, InvalidQueryError):
        assume(False)

    matching = {number for number, value in enumerate(values) if matches(value)}
    for chosen in table.chosen(where):
        assert matching <= chosen


@pytest.mark.parametrize(
    "where",
    [
        {"a": "x"},
        {"a": {"$eq": 7}},
        {"a": {"$gt": 7.5}},
        {"a": {"$lt": -(10**400)}},
        {"a": {"$gte": "n"}},
        {"a": {"$lt": "a"}},
        {"a": {"$startswith": "n"}},
        {"a": {"$in": ["x", 7, 8]}},
        {"a": {"$in": []}},
        {"a": {"$exists": False}},
        {"x": {"$exists": True}},
        {"d.b": 1},
        {("d", "a.b"): {"$in": [2]}},
        {"$and": [{"a": {"$gte": 1}}, {"d.e": {"$gt": 1}}]},
        {"a": {"$gt": 10, "$ne": None}},
    ],
    ids=lambda where: ascii(where)[:40],
)
def test_a_value_that_does_not_match_is_left_out(table: Table, where: dict[Any, Any]) -> None:
    table.fill([{"a": "m", "d": {"b": 2, "a.b": 1}}, {"a": 5, "d": {"e": 0.5}}, {"a": -2.5}])

    assert all(chosen == set() for chosen in table.chosen(where))


def test_compressed_and_old_values_are_always_chosen(table: Table) -> None:
    table.fill([{"a": "again and again " * 500}], "auto")
    assert all(chosen == {0} for chosen in table.chosen({"a": 1}))

    table.store([(_NAMED, None)])
    assert all(chosen == {0} for chosen in table.chosen({"a": 1}))


@pytest.mark.parametrize(
    "where",
    [
        {"a": None},
        {"a": [1]},
        {"a": {"$in": [1, None]}},
        {"a": "x\0"},
        {"a": "\ud800"},
        {'a"': 1},
        {"a\\": 1},
        {"a..b": 1},
        {"a": {"$ne": 1}},
        {"$not": {"a": 1}},
        {"$or": [{"a": 1}, {"b": 1}]},
        {"a": datetime(2026, 1, 1, tzinfo=UTC)},
        {"a": Decimal(1)},
        {"a": float("nan")},
        {"a": {"$contains": "x"}},
    ],
    ids=ascii,
)
def test_python_alone_judges_what_is_not_sure_in_every_database(where: dict[Any, Any]) -> None:
    assert preselect(where).kinds == ()


def test_the_texts_of_conditions_are_few_whatever_is_asked() -> None:
    parts = [{"a": 1}, {"b": {"$in": [1]}}, {"c": {"$exists": True}}, {"d": {"$exists": False}}, {"e": {"$gt": "x"}}]
    kinds = {preselect({"$and": list(asked)}).kinds for asked in itertools.permutations(parts, 3)}

    assert all(len(each) == MOST for each in kinds)
    assert len(kinds) <= 10
