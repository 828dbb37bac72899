"""What an upsert that changes nothing does to the files of a store, and to what a policy keeps."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from jarvis._disk import files
from jarvis.conformance.compression import prose
from jarvis.conformance.fixtures import FakeClock, an_entry
from jarvis.json_backend import JSONBackend
from jarvis.model.options import Compression
from jarvis.persistent_memory import HistoryPolicy, MemoryEntry, MemoryModule
from jarvis.sqlite_backend import SQLiteBackend
from jarvis.storage_backend import StorageBackend

_FAR = datetime(2100, 1, 1, tzinfo=UTC)
_VALUE = {"text": prose(9_000)["text"], "n": 1}


def _renewed(directory: Path, backend_type: str, **options: Any) -> tuple[MemoryModule, FakeClock, str]:
    """Return a memory in which one of two versions was renewed, its clock, and the id."""
    clock = FakeClock(_FAR)
    memory = MemoryModule(storage_dir=directory, backend_type=backend_type, clock=clock, **options)
    for number in (1, 2, 2, 2):
        memory_id = memory.upsert_memory("c", "k", {"n": number}, "t", None, ["x", "y"])
        clock.step(hours=2)
    return memory, clock, memory_id


@pytest.mark.parametrize("backend_type", ["sqlite", "json"])
def test_the_limit_of_revisions_counts_no_renewal(tmp_path: Path, backend_type: str) -> None:
    memory, clock, memory_id = _renewed(tmp_path, backend_type, history=HistoryPolicy(max_revisions=3))
    for number in (3, 3, 3, 4, 4, 4):
        memory.upsert_memory("c", "k", {"n": number})
        clock.step(hours=2)

    assert [(each.version, each.entry.value["n"]) for each in memory.get_history(memory_id)] == [(3, 3), (2, 2), (1, 1)]
    memory.upsert_memory("c", "k", {"n": 5})
    assert [each.version for each in memory.get_history(memory_id)] == [4, 3, 2]
    memory.shutdown()


@pytest.mark.parametrize("backend_type", ["sqlite", "json"])
@pytest.mark.parametrize("age", [None, timedelta(days=1)])
def test_each_change_is_told_once_while_the_past_is_pruned(
    tmp_path: Path, backend_type: str, age: timedelta | None
) -> None:
    memory, clock, memory_id = _renewed(tmp_path, backend_type, history=HistoryPolicy(max_age=age, max_revisions=1))
    born = memory.upsert_memory("c", "born", {}, "t")
    clock.step(hours=2)
    memory.upsert_memory("c", "born", {}, "t")
    clock.step(days=2)

    memory.store.prune_history()
    for number in (1, 2):
        memory.upsert_memory("c", "born", {"n": number})
    memory.delete_memory(memory_id)
    later = [(change.operation, change.memory_id) for change in memory.changes()][-3:]
    if age is not None:
        assert len(memory.changes()) == 3
    clock.step(days=2)
    memory.store.prune_history()

    told = [(change.operation, change.memory_id) for change in memory.changes()]
    earlier = [("create", memory_id), ("update", memory_id), ("create", born)]
    assert later == [("update", born), ("update", born), ("delete", memory_id)]
    assert told == ([*earlier, *later] if age is None else [])
    assert len(memory.get_history(born)) == (age is None)
    memory.shutdown()


@pytest.mark.parametrize("backend_type", ["sqlite", "json"])
@pytest.mark.parametrize("end", ["expire", "clear"])
def test_each_change_is_told_once_if_what_was_renewed_is_removed(tmp_path: Path, backend_type: str, end: str) -> None:
    clock = FakeClock(_FAR)
    policy = HistoryPolicy(cleared_max_age=timedelta(days=1))
    memory = MemoryModule(storage_dir=tmp_path, backend_type=backend_type, clock=clock, history=policy)
    for _ in range(3):
        memory.upsert_memory("c", "k", {}, "t", expires_at=_FAR + timedelta(days=3) if end == "expire" else None)
        clock.step(hours=2)
    if end == "clear":
        memory.clear_all()
    clock.step(days=4)
    memory.store.purge_expired()
    memory.store.prune_history()

    assert [change.operation for change in memory.changes()] == ["create", end]
    memory.shutdown()


@pytest.mark.parametrize("backend_type", ["sqlite", "json"])
def test_a_renewed_store_is_read_again_moved_and_mended_as_it_is(tmp_path: Path, backend_type: Any) -> None:
    memory, clock, memory_id = _renewed(tmp_path / "one", backend_type)
    memory.upsert_memory("c", "other", {}, "t", None, ["x"])
    clock.step(hours=2)
    memory.upsert_memory("c", "other", {}, "t", None, ["x"])
    entries, history, changes = memory.list_memories(), memory.get_history(memory_id), memory.changes()
    memory.store.back_up(tmp_path / "copy")  # it verifies the copy
    memory.shutdown()

    for directory in ("one", "copy"):
        again = MemoryModule(storage_dir=tmp_path / directory, backend_type=backend_type, clock=clock)
        assert again.list_memories() == entries
        assert again.get_history(memory_id) == history
        assert len(again.changes()) == len(changes) == 3
        moment = clock.now
        clock.step(hours=2)
        again.clear_all()
        assert [each.id for each in again.search_memories(tags=["x"], as_of=moment)] == [each.id for each in entries]
        again.store.back_up(tmp_path / f"copy of {directory}")
        again.shutdown()


@pytest.mark.parametrize("first", ["off", "auto", "max"])
@pytest.mark.parametrize("second", ["off", "auto", "max"])
def test_a_value_of_another_compression_is_the_same(tmp_path: Path, first: Compression, second: Compression) -> None:
    clock = FakeClock(_FAR)
    for compression in (first, second):
        memory = MemoryModule(storage_dir=tmp_path, compression=compression, clock=clock)
        memory_id = memory.set_user_preference("theme", _VALUE)
        memory.shutdown()
    clock.step(hours=2)
    memory.set_user_preference("theme", _VALUE)
    memory.store.recompress()
    memory.store.back_up(tmp_path / "copy")
    entry = memory.get_memory(memory_id)

    assert entry is not None
    assert (entry.version, entry.value, entry.timestamp) == (1, _VALUE, clock.now)
    assert [change.operation for change in memory.changes()] == ["create"]
    memory.set_user_preference("theme", {**_VALUE, "n": 2})
    assert len(memory.get_history(memory_id)) == 1
    memory.shutdown()


def test_recompressing_keeps_the_mark_of_a_renewal(tmp_path: Path) -> None:
    clock = FakeClock(_FAR)
    memory = MemoryModule(storage_dir=tmp_path, compression="off", clock=clock)
    memory.set_user_preference("theme", _VALUE)
    clock.step(hours=2)
    memory_id = memory.set_user_preference("theme", _VALUE)
    memory.shutdown()

    memory = MemoryModule(storage_dir=tmp_path, compression="max", clock=clock)
    assert memory.store.recompress().entries == 1
    memory.delete_memory(memory_id)

    assert [change.operation for change in memory.changes()] == ["create", "delete"]
    memory.shutdown()


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_json_syncs_what_it_finds_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: Literal["full", "normal"]
) -> None:
    class Counting(files.System):
        synced: list[str]

        def sync(self, descriptor: int) -> None:
            self.synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
            super().sync(descriptor)

    path = tmp_path / "memory.json"
    MemoryModule(storage_backend=JSONBackend(path, durability="normal")).set_user_preference("theme", {"n": 1})
    stamp = path.stat()
    memory = MemoryModule(storage_backend=JSONBackend(path, durability=durability))
    memory.get_user_preferences()
    monkeypatch.setattr(files, "system", system := Counting())
    system.synced = []
    memory.set_user_preference("theme", {"n": 1})
    memory.set_user_preference("theme", {"n": 1})

    assert system.synced == (["memory.json", tmp_path.name] if durability == "full" else [])
    assert path.stat() == stamp
    memory.shutdown()


@pytest.mark.parametrize("kind", [SQLiteBackend, JSONBackend])
def test_a_backend_with_an_update_of_its_own_sees_each_update(tmp_path: Path, kind: Any) -> None:
    class Watched(kind):  # type: ignore[misc]  # of either class
        seen: tuple[MemoryEntry, ...] = ()

        def update(self, entry: MemoryEntry) -> None:
            Watched.seen += (entry,)
            super().update(entry)

    backend: StorageBackend = Watched(tmp_path / "store")
    backend.create(an_entry())
    backend.update_if_changed(an_entry(), renews=False)
    backend.update_if_changed(an_entry(key="other"), renews=False)

    assert [entry.key for entry in Watched.seen] == ["other"]
    backend.shutdown()
