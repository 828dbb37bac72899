"""What stores take of memory and of the disk is bounded by what they hold, not by what they held."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import psycopg
import pytest

from jarvis._disk import files
from jarvis._sql import expiry
from jarvis._sqlite import cipher
from jarvis.conformance.fixtures import FAR, FakeClock
from jarvis.keys import KeyFunction
from jarvis.persistent_memory import MemoryModule
from jarvis.postgresql_backend import PostgreSQLBackend
from jarvis.sqlite_backend import SQLiteBackend
from jarvis.storage_backend import StorageBackend

KEY = KeyFunction(lambda: b"k" * 32)
SEALED: dict[str, Any] = {"encryption": "on", "keys": [KEY]}


class Watching(files.System):
    """Notes what temporary files of stores begin with, and with which mode, when they are removed."""

    def __init__(self) -> None:
        self.seen: list[tuple[bytes, int]] = []

    def unlink(self, path: str) -> None:
        if path.endswith(".tmp"):
            with open(path, "rb") as file:
                self.seen.append((file.read(16), os.fstat(file.fileno()).st_mode & 0o777))
        super().unlink(path)


def _fill(memory: MemoryModule, megabytes: int) -> None:
    with memory.transaction():
        for number in range(megabytes * 32):
            memory.create_memory("things", f"key-{number}", {"text": os.urandom(15_000).hex()}, "thing")
        memory.create_memory("things", "small", {}, "thing")


@pytest.mark.parametrize("options", [{}, SEALED], ids=["plain", "encrypted"])
def test_erasing_a_small_memory_takes_no_memory_that_grows_with_the_store(
    options: dict[str, Any], tmp_path: Path
) -> None:
    size = 48
    with MemoryModule(storage_dir=tmp_path, compression="off", **options) as memory:
        _fill(memory, size)
        before = memory.list_memories(limit=5)
        assert (tmp_path / "memory.db").stat().st_size + (tmp_path / "memory.db-wal").stat().st_size > size * 2**20
        used = apsw.memory_used()
        assert used > 0
        apsw.memory_high_water(reset=True)

        receipt = memory.erase_memories(key="small")

        taken = apsw.memory_high_water() - used
        assert receipt.state == "done"
        assert taken < size * 2**20 / 2, taken
        assert memory.count_memories() == size * 32
        assert memory.list_memories(limit=4) == before[1:]
    assert sorted(each.name for each in tmp_path.glob("*mem*") if ".tmp" in each.name) == []


@pytest.mark.parametrize("options", [{}, SEALED], ids=["plain", "encrypted"])
def test_what_is_beside_the_store_meanwhile_is_for_its_owner_only_and_as_encrypted_as_the_store(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = Watching()
    with MemoryModule(storage_dir=tmp_path, **options) as memory:
        _fill(memory, 1)
        monkeypatch.setattr(files, "system", system)
        memory.erase_memories(key="small")

    [(beginning, mode)] = system.seen
    assert (beginning == cipher.PLAIN) is (not options)
    assert mode == 0o600 or os.name != "posix"


class Place(NamedTuple):
    """Where a store is: how it is opened, and which names are in it."""

    opened: Callable[[], StorageBackend]
    names: Callable[[], set[str]]


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "postgresql":
        dsn = request.getfixturevalue("dsn")
        return Place(lambda: PostgreSQLBackend(dsn, durability="normal"), lambda: _names_on(dsn))
    path = tmp_path / "memory.db"
    return Place(lambda: SQLiteBackend(path, durability="normal"), lambda: _names(path))


def _names(path: Path) -> set[str]:
    backend = SQLiteBackend(path, read_only=True)
    with backend._database.snapshot() as session:
        found = {name for (name,) in session.rows("SELECT name FROM names")}
    backend.shutdown()
    return found


def _names_on(dsn: str) -> set[str]:
    with psycopg.connect(dsn) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM jarvis.names")}


def test_names_that_only_expired_memories_had_go_with_them(place: Place) -> None:
    clock = FakeClock(FAR)
    memory = MemoryModule(storage_backend=place.opened(), clock=clock)
    for number in range(20):
        memory.create_memory("sessions", f"s{number}", {}, "session", tags=[f"of-{number}"], ttl=60)
    memory.create_memory("sessions", "stays", {}, "session", tags=["of-3", "mine"])
    other = MemoryModule(storage_backend=place.opened(), clock=clock)
    assert len(other.get_memories_by_tags(["of-7", "of-3"])) == 3  # its names are known there from now on
    clock.now += timedelta(hours=1)

    assert memory.store.purge_expired() == 20

    assert place.names() == {"default", "sessions", "session", "of-3", "mine"}
    other.create_memory("sessions", "later", {}, "session", tags=["of-7", "mine"])
    assert [entry.key for entry in memory.get_memories_by_tags(["of-7"])] == ["later"]
    assert len(memory.get_memories_by_tags(["mine"])) == 2
    memory.shutdown()
    other.shutdown()


def test_names_that_only_pruned_states_had_go_with_them(place: Place) -> None:
    clock = FakeClock(FAR)
    memory = MemoryModule(storage_backend=place.opened(), clock=clock)
    memory_id = memory.create_memory("notes", "n", {}, "note", tags=["before"])
    memory.update_memory(memory_id, {}, tags=["now"])
    clock.now += timedelta(days=400)

    assert memory.store.prune_history() == 1

    assert place.names() == {"default", "notes", "note", "now"}
    memory.shutdown()


def test_a_transaction_that_purges_and_uses_the_names_again_keeps_them(place: Place) -> None:
    clock = FakeClock(FAR)
    memory = MemoryModule(storage_backend=place.opened(), clock=clock)
    memory.create_memory("sessions", "s", {}, "session", tags=["again", "gone"], ttl=60)
    clock.now += timedelta(hours=1)

    with memory.transaction():
        memory.store.purge_expired()
        memory.create_memory("sessions", "t", {}, "session", tags=["again"])

    assert [entry.key for entry in memory.get_memories_by_tags(["again"])] == ["t"]
    memory.shutdown()
    assert place.names() == {"default", "sessions", "session", "again"}


def test_names_go_also_beside_writes_where_nobody_purges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "_LEAST_CHANGES", 512)
    monkeypatch.setattr(expiry, "_CHANGES_A_PAGE", 1)
    clock = FakeClock(FAR)
    memory = MemoryModule(storage_backend=SQLiteBackend(tmp_path / "memory.db", durability="normal"), clock=clock)
    for number in range(4_000):
        memory.create_memory("sessions", f"s{number}", {}, "session", tags=[f"of-{number}"], ttl=60)
        clock.now += timedelta(seconds=1)
    memory.shutdown()

    assert len(_names(tmp_path / "memory.db")) < 2_000
