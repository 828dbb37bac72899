"""How often PostgreSQL is waited for, and what is prepared there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from jarvis._postgresql import wire
from jarvis._postgresql.raw import Raw
from jarvis._postgresql.wire import Wire
from jarvis.persistent_memory import MemoryModule
from jarvis.postgresql_backend import PostgreSQLBackend

from .postgresql import a_database


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with a_database() as dsn:
        yield dsn


@pytest.fixture
def memory(dsn: str) -> Iterator[MemoryModule]:
    memory = MemoryModule(PostgreSQLBackend(dsn))
    yield memory
    memory.shutdown()


Call = Callable[[MemoryModule], object]
CALLS: dict[str, tuple[int, Call]] = {
    "get": (1, lambda memory: memory.get_memory("00000000-0000-7000-8000-000000000000")),
    "key": (1, lambda memory: memory.get_memory_by_key("k")),
    "absent key": (1, lambda memory: memory.get_memory_by_key("no such key")),
    "preference": (1, lambda memory: memory.get_user_preference("theme")),
    "category": (1, lambda memory: memory.search_memories(category="c", limit=10)),
    "tag": (1, lambda memory: memory.search_memories(tags=["a"], limit=10)),
    "count": (1, lambda memory: memory.count_memories(category="c")),
    "categories": (1, lambda memory: memory.list_categories()),
    "create": (3, lambda memory: memory.create_memory("c", "k", {"n": 1}, "t", tags=["a", "b"])),
    "upsert": (3, lambda memory: memory.upsert_memory("settings", "theme", {"n": id(object())})),
    "create 100": (12, lambda memory: memory.create_memories(HUNDRED)),
}
HUNDRED: list[dict[str, Any]] = [
    {"category": "c", "key": f"k{number}", "value": {}, "entity_type": "t", "tags": ["a"]} for number in range(100)
]


@pytest.mark.parametrize("name", CALLS)
def test_a_call_waits_for_the_server_this_often(
    memory: MemoryModule, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    most, call = CALLS[name]
    for _ in range(3):
        call(memory)
    waits, wait = 0, Raw.wait

    def counted(self: Any, *given: Any, **more: Any) -> Any:
        nonlocal waits
        waits += 1
        return wait(self, *given, **more)

    monkeypatch.setattr(Raw, "wait", counted)
    call(memory)

    assert waits <= most


def test_the_names_of_a_list_are_looked_up_at_once(memory: MemoryModule, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = memory.for_namespace("named")
    memory.create_memories({**item, "category": f"c{n}", "entity_type": f"t{n}"} for n, item in enumerate(HUNDRED))
    memory.list_memories()
    known = memory.backend._server.pool._texts  # type: ignore[attr-defined]  # PostgreSQL's
    assert len(known) > 200
    known.clear()
    waits, wait = 0, Raw.wait

    def counted(self: Any, *given: Any, **more: Any) -> Any:
        nonlocal waits
        waits += 1
        return wait(self, *given, **more)

    monkeypatch.setattr(Raw, "wait", counted)
    found = memory.list_memories()

    assert waits == 2
    assert {(each.category, each.entity_type) for each in found} == {(f"c{n}", f"t{n}") for n in range(100)}


def test_a_statement_is_prepared_when_it_comes_again_and_not_if_the_first_one_failed(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as raw:
        line = Wire(raw)
        asked = "SELECT $1 + 1"
        for number in range(4):
            (result,) = line.exchange([(asked, (number,))])
            assert line.rows_of(result) == [(number + 1,)]
        assert _prepared(raw) == [asked]

        for _ in range(3):  # what stands behind an error is not run, and not taken for prepared
            with pytest.raises(psycopg.errors.DivisionByZero):
                line.exchange([("SELECT 1 / $1", (0,)), ("SELECT $1 + 2", (1,))])
        (result,) = line.exchange([("SELECT $1 + 2", (1,))])
        assert line.rows_of(result) == [(3,)]
        assert [line.rows_of(each) for each in line.exchange([(asked, (1,)), ("SELECT $1 + 2", (1,))])] == [
            [(2,)],
            [(3,)],
        ]


def test_a_statement_that_is_sent_many_times_at_once_is_prepared_once(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as raw:
        line = Wire(raw)
        results = line.exchange([("SELECT $1 + 3", (number,)) for number in range(50)])

        assert [line.rows_of(result) for result in results] == [[(number + 3,)] for number in range(50)]
        assert _prepared(raw) == ["SELECT $1 + 3"]


def test_statements_that_a_connection_prepares_are_bounded(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_MOST", 5)
    with psycopg.connect(dsn, autocommit=True) as raw:
        line = Wire(raw)
        for number in range(40):
            for _ in range(2):
                (result,) = line.exchange([(f"SELECT {number} + $1", (1,))])
                assert line.rows_of(result) == [(number + 1,)]

        assert len(_prepared(raw)) == 5


def test_much_is_sent_and_received_at_once(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as raw:
        line, text = Wire(raw), "x" * 1_000_000

        results = line.exchange([("SELECT $1", (f"{number}{text}",)) for number in range(40)])

        assert [line.rows_of(result)[0][0][:2] for result in results] == [f"{number}x"[:2] for number in range(40)]


def _prepared(raw: psycopg.Connection[Any]) -> list[str]:
    return [sql for (sql,) in raw.execute("SELECT statement FROM pg_prepared_statements").fetchall()]


def test_an_answer_is_let_go_with_its_rows(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as raw:
        line = Wire(raw)
        (result,) = line.exchange([("SELECT $1", ("x" * 1_000_000,))])
        references = sys.getrefcount(result)

        assert len(line.rows_of(result)) == 1

        assert sys.getrefcount(result) == references
