"""Expiry in the SQLite store: how it is found, migrated, verified, and seen by others."""

from __future__ import annotations

import itertools
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import apsw
import pytest

from jarvis._sql import expiry, sliding
from jarvis._sql.session import Session
from jarvis._sqlite import engine
from jarvis.config import HistoryPolicy
from jarvis.conformance.fixtures import FAR, FakeClock
from jarvis.errors import CorruptStoreError, HistoryUnavailableError
from jarvis.persistent_memory import MemoryModule
from jarvis.sqlite_backend import SQLiteBackend

STORES = Path(__file__).parent / "stores"
SECOND = timedelta(seconds=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(FAR)


def _rows(memory: MemoryModule, sql: str) -> list[Any]:
    backend = memory.backend
    assert isinstance(backend, SQLiteBackend)

    def read(session: Session) -> list[Any]:
        return session.rows(sql)

    return backend._database.read(read)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_read_only_handle_on_an_older_store_sees_what_expires_once_it_is_migrated(version: int, path: Path) -> None:
    shutil.copy(STORES / f"version-{version}.db", path)
    reader = MemoryModule(storage_dir=path.parent, read_only=True, clock=FakeClock(FAR + SECOND))
    before = reader.count_memories()
    assert reader.get_memory("id-1") is not None

    with MemoryModule(storage_dir=path.parent, clock=FakeClock(FAR)) as writer:
        assert writer.touch_memory("id-1", ttl=1)
        writer.create_memory("c", "new", {}, "t", ttl=1)
        assert writer.count_memories() == before + 1

        assert reader.count_memories() == before - 1
        assert reader.get_memory("id-1") is None
        assert reader.get_memory_by_key("new") is None
        assert len(reader.list_memories()) == before - 1
    reader.shutdown()


def test_purging_and_counting_seek_what_has_expired(path: Path) -> None:
    memory = MemoryModule(storage_dir=path.parent)
    memory.create_memory("c", "k", {}, "t", ttl=1)

    for sql in (expiry._DUE, expiry._DUE_IN, expiry._DUE_ENDED, expiry._DUE_ENDED_IN):
        plan = [row[3] for row in _rows(memory, engine.DIALECT.say(f"EXPLAIN QUERY PLAN {sql.replace('?', '1')}"))]
        (step,) = [line for line in plan if line.startswith(("SEARCH", "SCAN"))]
        assert "_by_expiry (expires<?)" in step
    memory.shutdown()


def test_a_writer_purges_so_many_and_no_more(path: Path, clock: FakeClock) -> None:
    memory = MemoryModule(storage_dir=path.parent, clock=clock)
    with memory.transaction():
        for number in range(500):
            memory.create_memory("c", f"k{number}", {}, "t", ttl=1)
    clock.step(seconds=1)

    left = []
    for number in range(128):
        memory.set_user_preference("counter", {"n": number})
        left.append(_rows(memory, "SELECT count(*) FROM entries WHERE expires IS NOT NULL")[0][0])

    steps = {before - after for before, after in itertools.pairwise(left)}
    assert steps == {0, expiry.AT_ONCE}
    memory.shutdown()


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_a_row_that_slides_keeps_its_checksum_and_its_connection_the_sync(
    path: Path, clock: FakeClock, durability: Literal["full", "normal"]
) -> None:
    memory = MemoryModule(storage_dir=path.parent, clock=clock, durability=durability)
    text = {"text": "compressed " * 500}
    memory_id = memory.create_memory("c", "k", text, "t", "e", ["x"], ttl=60, sliding=True)
    synchronous = _rows(memory, "PRAGMA synchronous")
    clock.step(seconds=30)
    assert memory.get_memory(memory_id) is not None

    assert _rows(memory, "SELECT expires - instant FROM entries") == [(90_000_000,)]
    assert _rows(memory, "PRAGMA synchronous") == synchronous == [(2 if durability == "full" else 1,)]
    memory.shutdown()
    (path.parent / "memory.db.lock").unlink()
    with MemoryModule(storage_dir=path.parent, clock=clock, read_only=True) as reader:  # which compares the whole
        clock.step(seconds=30)
        entry = reader.get_memory(memory_id)
        assert entry is not None
        assert entry.expires_at == clock.now + timedelta(seconds=30)


def test_an_interrupted_renewal_leaves_no_connection_that_does_not_sync(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = MemoryModule(storage_dir=path.parent, clock=clock)
    memory_id = memory.create_memory("c", "k", {}, "t", ttl=60, sliding=True)
    clock.step(seconds=30)

    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sliding, "_slide", interrupted)
        with pytest.raises(KeyboardInterrupt):
            memory.get_memory(memory_id)

    assert _rows(memory, "PRAGMA synchronous") == [(2,)]
    assert _rows(memory, "PRAGMA busy_timeout") == [(30_000,)]
    assert memory.touch_memory(memory_id)
    memory.shutdown()


def test_what_was_pruned_and_then_expired_leaves_one_gap(path: Path, clock: FakeClock) -> None:
    memory = MemoryModule(storage_dir=path.parent, clock=clock, history=HistoryPolicy(max_revisions=2))
    memory_id = memory.create_memory("c", "k", {"n": 0}, "t", ttl=60)
    other = memory.create_memory("c", "other", {}, "t")
    for number in range(1, 6):
        clock.step(seconds=1)
        memory.update_memory(memory_id, {"n": number})
    clock.step(seconds=100)
    assert memory.store.purge_expired() == 1

    assert _rows(memory, "SELECT count(*), max(expires - instant) FROM gaps") == [(1, 60_000_000)]
    assert _rows(memory, "SELECT count(*) FROM revisions") == [(0,)]
    for seconds in (0, 3, 59):
        with pytest.raises(HistoryUnavailableError, match="expired and was purged"):
            memory.get_memory(memory_id, as_of=FAR + timedelta(seconds=seconds))
        assert memory.get_memory(other, as_of=FAR + timedelta(seconds=seconds, milliseconds=1)) is not None
    assert memory.get_memory(memory_id, as_of=FAR + timedelta(seconds=60)) is None
    memory.shutdown()


def test_without_history_purging_leaves_nothing(path: Path, clock: FakeClock) -> None:
    with MemoryModule(storage_dir=path.parent, clock=clock) as memory:
        memory_id = memory.create_memory("c", "k", {"n": 0}, "t", tags=["x"], ttl=60)
        memory.update_memory(memory_id, {"n": 1})
    clock.step(seconds=60)
    with MemoryModule(storage_dir=path.parent, clock=clock, history=HistoryPolicy(max_revisions=0)) as memory:
        assert memory.store.purge_expired() == 1
        for table in ("entries", "tags", "revisions", "past_tags"):
            assert _rows(memory, f"SELECT count(*) FROM {table}") == [(0,)]


@pytest.mark.parametrize("table", ["entries", "revisions"])
def test_an_expiry_that_was_edited_behind_our_back_is_noticed(table: str, path: Path) -> None:
    with MemoryModule(storage_dir=path.parent) as memory:
        memory_id = memory.create_memory("c", "k", {"n": 1}, "t", ttl=3600)
        memory.update_memory(memory_id, {"n": 2})
    connection = apsw.Connection(str(path))
    connection.execute(f"UPDATE {table} SET expires = expires + 1").fetchall()
    connection.close()

    with pytest.raises(CorruptStoreError):
        MemoryModule(storage_dir=path.parent).list_memories()


def test_other_tools_see_no_more_than_is_there(path: Path) -> None:
    memory = MemoryModule(storage_dir=path.parent)
    memory.create_memory("c", "short", {}, "t", expires_at=datetime.now(UTC) + timedelta(milliseconds=50))
    memory.create_memory("c", "long", {}, "t", ttl=3600)
    memory.create_memory("c", "ever", {}, "t")
    while memory.count_memories() == 3:
        pass
    time.sleep(0.002)  # SQLite's clock tells milliseconds

    found = _rows(memory, "SELECT key FROM memories ORDER BY key")

    assert found == [("ever",), ("long",)]
    memory.shutdown()


def test_a_clock_that_steps_back_brings_back_what_was_not_purged(path: Path, clock: FakeClock) -> None:
    memory = MemoryModule(storage_dir=path.parent, clock=clock)
    memory_id = memory.create_memory("c", "k", {}, "t", ttl=10)
    clock.step(seconds=10)
    assert memory.get_memory(memory_id) is None
    clock.step(microseconds=-1)
    assert memory.get_memory(memory_id) is not None
    memory.shutdown()
