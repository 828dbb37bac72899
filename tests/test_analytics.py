"""Analytics of whole stores: the same figures on every backend, and what is each one's own."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg import conninfo

from jarvis.async_memory import AsyncMemoryModule
from jarvis.conformance.fixtures import FakeClock
from jarvis.conformance.module.analytics import Uncounted
from jarvis.errors import CorruptStoreError, StoreAccessError, TransactionError
from jarvis.json_backend import JSONBackend
from jarvis.keys import KeyFunction
from jarvis.model.analytics import Analytics, Overhead, Period
from jarvis.persistent_memory import MemoryModule
from jarvis.postgresql_backend import PostgreSQLBackend
from jarvis.services.analytics import _growth
from jarvis.sqlite_backend import SQLiteBackend
from tests.postgresql import a_database
from tests.test_migrating import generated

START = datetime(2099, 3, 1, 12, tzinfo=UTC)
"""Ahead of the system's time, which changes without a moment get."""

A_KEY = KeyFunction(lambda: b"k" * 32)
OWN = {"store_bytes": None, "log_bytes": None, "index_bytes": None, "free_bytes": None}


@pytest.fixture
def database() -> Iterator[str]:
    with a_database() as dsn:
        yield dsn


def nameless(report: Analytics) -> Any:
    """Return a report without ids, which differ from store to store, and without sizes on the disk."""
    plain = msgspec.to_builtins(report)
    plain["overhead"] |= OWN
    lists = plain["largest"], plain["churn"]["most_changed"], plain["duplicates"]["largest"], plain["near"]["largest"]
    for members in lists:
        for member in members:
            del member["id" if "id" in member else "ids"]
        members.sort(key=lambda member: sorted(map(repr, member.items())))
    return plain


def test_a_generated_store_has_the_same_figures_on_every_backend(tmp_path: Path, database: str) -> None:
    reports = {}
    with a_database() as other:
        stores: dict[str, dict[str, Any]] = {
            "json": {"storage_dir": tmp_path / "json", "backend_type": "json"},
            "sqlite": {"storage_dir": tmp_path / "sqlite"},
            "off": {"storage_dir": tmp_path / "off", "compression": "off"},
            "encrypted": {"storage_dir": tmp_path / "encrypted", "encryption": "on", "keys": [A_KEY]},
            "postgresql": {"storage_backend": database},
            "sealed": {"storage_backend": other, "encryption": "on", "keys": [A_KEY]},
        }
        for name, options in stores.items():
            clock = FakeClock(START)
            with MemoryModule(**options, clock=clock) as memory:
                generated(memory, clock, 900)
                for space in ("default", "alice", "bob"):  # when each purges beside its writes is its own
                    while memory.for_namespace(space).store.purge_expired(limit=1_000):
                        pass
                clock.step(seconds=1)
                memory.create_memories(
                    {"category": "short", "key": f"k{n}", "value": {}, "entity_type": "thing", "ttl": 60 + 60 * n}
                    for n in range(9)
                )
                clock.step(minutes=5)
                reports[name] = memory.store.analytics(top=1_000, near=True)

    first = nameless(reports["json"])
    assert (first["memories"] > 500, first["expiry"]["expired"], first["churn"]["removed"] > 50) == (True, 5, True)
    assert first["overhead"]["past_states"] > 50
    for name, report in reports.items():
        assert nameless(report) == first, name


def test_an_imported_store_tells_of_the_changes_that_its_feed_has(tmp_path: Path, database: str) -> None:
    clock = FakeClock(START)
    source = MemoryModule(storage_dir=tmp_path / "source", clock=clock)
    generated(source, clock, 90)
    source.store.export(tmp_path / "all.jsonl")
    for backend in (SQLiteBackend(tmp_path / "memory.db"), PostgreSQLBackend(database)):
        memory = MemoryModule(backend, clock=clock)
        memory.store.import_(tmp_path / "all.jsonl")
        clock.step(days=1)
        memory.create_memory("notes", "new", {}, "note")

        report = memory.store.analytics()
        plain = MemoryModule(Uncounted(backend), clock=clock).store.analytics()

        assert (report, report.churn.created) == (plain, 1)
        assert report.overhead.past_states
        backend.shutdown()


def test_a_store_of_each_former_version_is_counted(tmp_path: Path) -> None:
    files = sorted((Path(__file__).parent / "stores").glob("version-*.db"))
    assert files
    for number, file in enumerate(files):
        path = tmp_path / str(number) / "memory.db"
        path.parent.mkdir()
        shutil.copy(file, path)
        clock = FakeClock(START)
        for read_only in (True, False):
            backend = SQLiteBackend(path, read_only=read_only)
            with contextlib.suppress(StoreAccessError):  # the first life is not read without a migration
                report = MemoryModule(backend, clock=clock).store.analytics()
                plain = MemoryModule(Uncounted(backend), clock=clock).store.analytics()
                assert report == msgspec.structs.replace(plain, overhead=report.overhead), (file.name, read_only)
            backend.shutdown()


def test_a_small_namespace_of_a_large_store_is_counted_alone(tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path)
    memory.create_memories(
        {"category": "notes", "key": str(n), "value": {"n": n}, "entity_type": "note"} for n in range(200)
    )
    memory.for_namespace("bob").create_memory("notes", "one", {}, "note")

    report = memory.store.analytics(namespaces=["bob"])

    assert (report.memories, [share.name for share in report.namespaces.shares]) == (1, ["bob"])
    assert memory.store.analytics().memories == 201


def test_an_unknown_namespace_is_empty(tmp_path: Path) -> None:
    for backend in (SQLiteBackend(tmp_path / "memory.db"), JSONBackend(tmp_path / "memory.json")):
        report = MemoryModule(backend).store.analytics(namespaces=["nobody"])

        assert (report.memories, report.namespaces.shares, report.churn.created) == (0, [], 0)
        assert MemoryModule(backend).store.analytics().overhead.store_bytes


def test_each_backend_tells_the_bytes_that_it_has(tmp_path: Path, database: str) -> None:
    taken: dict[str, Overhead] = {}
    for name, options in {
        "sqlite": {"storage_dir": tmp_path / "sqlite"},
        "json": {"storage_dir": tmp_path / "json", "backend_type": "json"},
        "postgresql": {"storage_backend": database},
    }.items():
        with MemoryModule(**options) as memory:  # type: ignore[arg-type]  # each has its own types
            for number in range(100):
                memory.remember(f"The cat number {number} sleeps on the warm roof")
            memory.recall("cat")
            taken[name] = memory.store.analytics().overhead
            if name == "sqlite":
                file = tmp_path / "sqlite" / "memory.db"
                log = file.with_name("memory.db-wal")
                assert (taken[name].store_bytes, taken[name].log_bytes) == (file.stat().st_size, log.stat().st_size)

    assert taken["json"].store_bytes == (tmp_path / "json" / "memory.json").stat().st_size
    assert taken["json"].index_bytes is taken["json"].log_bytes is taken["postgresql"].log_bytes is None
    for name in ("sqlite", "postgresql"):
        store, index = taken[name].store_bytes, taken[name].index_bytes
        assert store is not None
        assert index is not None
        assert 500 < index < store


def test_a_role_counts_its_namespace_and_no_other(database: str) -> None:
    role = f"tenant_{uuid.uuid4().hex[:12]}"
    owner = PostgreSQLBackend(database)
    for name in ("alice", "bob"):
        MemoryModule(owner.for_namespace(name)).create_memory("notes", name, {}, "note")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN")
        owner.for_namespace("alice").admit(role)
        tenant = MemoryModule(PostgreSQLBackend(conninfo.make_conninfo(database, user=role), namespace="alice"))

        own = tenant.store.analytics(namespaces=["alice"])
        others = tenant.store.analytics(namespaces=["bob"])
        with pytest.raises(StoreAccessError, match="a role that it admitted"):
            tenant.store.analytics()

        assert ([large.key for large in own.largest], others.memories) == (["alice"], 0)
        tenant.shutdown()
        owner.shutdown()
        connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_analytics_are_for_the_outside_of_transactions(tmp_path: Path) -> None:
    for backend in (SQLiteBackend(tmp_path / "memory.db"), JSONBackend(tmp_path / "memory.json")):
        memory = MemoryModule(backend)
        with memory.transaction():
            memory.set_user_preference("theme", {"mode": "dark"})
            with pytest.raises(TransactionError):
                memory.store.analytics()


@pytest.mark.parametrize("body", ["[1", '[null,[],[],"2026-01-01T00:00:00"]', "", '[{},[],5,""]', "{}"])
def test_a_memory_that_cannot_be_decoded_is_damage(tmp_path: Path, body: str) -> None:
    backend = SQLiteBackend(tmp_path / "memory.db")
    memory = MemoryModule(backend)
    memory.create_memory("notes", "it", {"secret": 1}, "note")
    backend._lender.change(lambda session: session.run("UPDATE entries SET body = ?", (body,)))

    with pytest.raises(CorruptStoreError, match="cannot be decoded"):
        memory.store.analytics()


def test_a_function_is_told_how_far_it_is(tmp_path: Path) -> None:
    for backend in (SQLiteBackend(tmp_path / "memory.db"), JSONBackend(tmp_path / "memory.json")):
        memory, told = MemoryModule(backend), list[tuple[int, int]]()
        memory.create_memories(
            {"category": "notes", "key": str(n), "value": {}, "entity_type": "note"} for n in range(4_500)
        )

        memory.store.analytics(progress=lambda *figures: told.append(figures))  # noqa: B023  it is called here

        assert told == sorted(told)
        assert len(told) >= 3
        assert {total for _, total in told} == {4_500}
        assert told[-1] == (4_500, 4_500)


def test_analytics_can_be_awaited(tmp_path: Path) -> None:
    async def counted() -> int:
        async with AsyncMemoryModule(storage_dir=tmp_path) as memory:
            await memory.set_user_preference("theme", {"mode": "dark"})
            return (await memory.store.analytics()).memories

    assert asyncio.run(counted()) == 1


@pytest.mark.parametrize(("apart", "days"), [(0, 1), (59, 1), (60, 7), (400, 7), (500, 28), (3_600_000, 364_000)])
def test_growth_has_few_periods_without_a_gap(apart: int, days: int) -> None:
    first = int(datetime(1, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
    growth = _growth([first, first + apart * 86_400_000_000])

    assert growth.days == days
    assert len(growth.periods) <= 60
    assert sum(period.memories for period in growth.periods) == growth.periods[-1].total == 2
    starts = [period.start.toordinal() for period in growth.periods]
    assert starts == list(range(starts[0], starts[0] + len(starts) * days, days))
    assert growth.periods[0] == Period(
        datetime(1, 1, 1, tzinfo=UTC).date(), 2 if apart < days else 1, growth.periods[0].total
    )
