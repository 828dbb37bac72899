"""Which indexes PostgreSQL uses: for the owner of the tables, and behind the wall around a namespace.

Behind the wall only operators that cannot leak what they compare may use an index, so plans are looked at there too.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import conninfo

from jarvis._postgresql.connection import Connection
from jarvis.persistent_memory import MemoryModule
from jarvis.postgresql_backend import PostgreSQLBackend

from .postgresql import a_database

ROLE = f"tenant_{uuid.uuid4().hex[:12]}"
ENTRIES = 8_000


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with a_database() as dsn, psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {ROLE} LOGIN")
        backend = PostgreSQLBackend(dsn, durability="normal")
        for number in range(20):
            _fill(MemoryModule(backend.for_namespace(f"other {number}")), 50)
        _fill(MemoryModule(backend.for_namespace("alice")), ENTRIES)
        backend.for_namespace("alice").admit(ROLE)
        backend.shutdown()
        owner.execute("ANALYZE")
        yield dsn
        owner.execute(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")


def _fill(memory: MemoryModule, count: int) -> None:
    memory.create_memories(
        [
            {
                "category": f"category {number % 40}",
                "key": f"key {number}",
                "value": {"n": number},
                "entity_type": f"type {number % 10}",
                "entity_id": f"entity {number % 100}",
                "tags": [f"tag {number % 50}", f"tag {number % 7}"],
            }
            for number in range(count)
        ]
    )


@pytest.fixture(params=["owner", "role"])
def memory(dsn: str, request: pytest.FixtureRequest) -> Iterator[MemoryModule]:
    where = dsn if request.param == "owner" else conninfo.make_conninfo(dsn, user=ROLE)
    memory = MemoryModule(PostgreSQLBackend(where, namespace="alice"))
    yield memory
    memory.shutdown()


Ask = Callable[[MemoryModule], object]
ASKED: dict[str, tuple[str, Ask]] = {
    "id": ("entries_by_id", lambda memory: memory.get_memory("01a22b80-bf76-7e02-afba-752db0db078c")),
    "ids": ("entries_by_id", lambda memory: memory.get_memories(["01a22b80-bf76-7e02-afba-752db0db078c", "other"])),
    "key": ("entries_by_key", lambda memory: memory.get_memory_by_key("key 7")),
    "keys": ("entries_by_key", lambda memory: memory.search_memories(keys=["key 7", "key 8"])),
    "key prefix": ("entries_by_key", lambda memory: memory.search_memories(key_prefix="key 77")),
    "category": ("entries_by_category", lambda memory: memory.search_memories(category="category 3", limit=10)),
    "entity": ("entries_by_entity", lambda memory: memory.search_memories(entity_id="entity 3", limit=10)),
    "type": ("entries_by_type", lambda memory: memory.search_memories(entity_type="type 3", limit=10)),
    "newest": ("entries_by_time", lambda memory: memory.list_memories(limit=10)),
    "tag": ("tags_pkey", lambda memory: memory.search_memories(tags=["tag 3"], limit=10)),
    "tags": ("tags_pkey", lambda memory: memory.search_memories(tags=["tag 3", "tag 40"], limit=10)),
    "all tags": ("tags_pkey", lambda memory: memory.search_memories(tags=["tag 3", "tag 17"], tags_match="all")),
    "categories": ("entries_by_category", lambda memory: memory.list_categories()),
    "tag and category": ("tags_pkey", lambda memory: memory.search_memories(tags=["tag 3"], category="category 3")),
    "count": ("entries_by_category", lambda memory: memory.count_memories(category="category 3")),
}


def test_a_key_leads_before_the_server_has_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_database() as dsn:
        memory = MemoryModule(PostgreSQLBackend(dsn, durability="normal"))
        memory.bootstrap()
        items = [{"category": "c", "key": str(n), "value": {}, "entity_type": "t"} for n in range(3_000)]
        for start in range(0, 3_000, 500):  # a larger fill lets the server look
            memory.create_memories(items[start : start + 500])
        assert _figures(dsn) == -1
        for ask in (
            lambda: memory.get_memory_by_key("7", "c"),
            lambda: memory.search_memories("c", "t", key="7"),
            lambda: memory.backend.last_written("c", "7"),  # as an upsert does
        ):
            memory.shutdown()  # a new connection is asked
            _check_led_by("entries_by_key", memory, ask, monkeypatch)
        memory.shutdown()


def _figures(dsn: str) -> float:
    """Return how many rows the server takes the table of entries to have; -1 if it has never looked."""
    with psycopg.connect(dsn) as raw:
        ((count,),) = raw.execute("SELECT reltuples FROM pg_class WHERE oid = 'jarvis.entries'::regclass").fetchall()
    return float(count)


@pytest.mark.parametrize("partitions", [0, 2])
def test_the_server_has_figures_after_a_large_fill(partitions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with a_database() as dsn:
        memory = MemoryModule(PostgreSQLBackend(dsn, durability="normal", partitions=partitions))

        _fill(memory, 3_000)

        assert _figures(dsn) == 3_000
        asked = ASKED["all tags"][1]
        memory.shutdown()
        _check_led_by("tags_", memory, lambda: asked(memory), monkeypatch)
        memory.shutdown()


def test_a_role_that_may_not_let_the_server_look_fills_all_the_same(dsn: str) -> None:
    with a_database() as other:
        owner = MemoryModule(PostgreSQLBackend(other, durability="normal"))
        owner.bootstrap()
        owner.backend.admit(ROLE)  # type: ignore[attr-defined]  # PostgreSQL's
        tenant = MemoryModule(PostgreSQLBackend(conninfo.make_conninfo(other, user=ROLE)))

        _fill(tenant, 1_500)

        assert owner.count_memories() == 1_500
        assert _figures(other) == -1
        for memory in (owner, tenant):
            memory.shutdown()


@pytest.mark.parametrize("asked", ASKED)
def test_a_question_is_led_by_its_index(memory: MemoryModule, asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    index, ask = ASKED[asked]
    _check_led_by(index, memory, lambda: ask(memory), monkeypatch)


def _check_led_by(index: str, memory: MemoryModule, ask: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, Any]] = []
    for name in ("rows", "each"):
        monkeypatch.setattr(Connection, name, _noting(seen, getattr(Connection, name)))
    ask()
    monkeypatch.undo()

    server = memory.backend._server  # type: ignore[attr-defined]  # PostgreSQL's
    plans = [_plan(server, *statement) for statement in seen if "entries" in statement[0]]

    assert plans
    for plan in plans:
        used = {node["Index Name"] for node in _nodes(plan) if "Index Name" in node}
        assert any(name.startswith(index) for name in used), plan
        assert not [
            node for node in _nodes(plan) if node["Node Type"] == "Seq Scan" and node["Relation Name"] != "roles"
        ]


def _noting(seen: list[tuple[str, Any]], ask: Callable[..., Any]) -> Callable[..., Any]:
    def noted(self: Connection, sql: str, bound: Any = ()) -> Any:
        seen.append((sql, bound))
        return ask(self, sql, bound)

    return noted


def _plan(server: Any, sql: str, bound: Any) -> dict[str, Any]:
    def explain(session: Any) -> Any:
        text, values = session.driver._translated(sql, bound)
        return session.driver.raw.execute("EXPLAIN (FORMAT JSON) " + _inlined(text, values)).fetchall()[0][0]

    return dict(server.read(explain)[0]["Plan"])


def _inlined(text: str, values: Any) -> str:
    for number, value in reversed(list(enumerate(values, 1))):
        text = text.replace(f"${number}", psycopg.sql.Literal(value).as_string())
    return text


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)
