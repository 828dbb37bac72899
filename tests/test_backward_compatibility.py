"""Stores of every version that landed, as that version wrote them, are opened by today's code."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from jarvis.conformance.fixtures import FakeClock
from jarvis.errors import HistoryUnavailableError
from jarvis.persistent_memory import MemoryModule
from tests.stores.make import FEED, PAST, START, entries

STORES = sorted(path for path in (Path(__file__).parent / "stores").iterdir() if path.stem.startswith("version-"))


@pytest.mark.parametrize("store", STORES, ids=lambda path: path.name)
@pytest.mark.parametrize("read_only", [False, True])
def test_a_store_of_an_earlier_version_is_read_whole_and_written_on(
    store: Path, read_only: bool, tmp_path: Path
) -> None:
    backend_type = {".db": "sqlite", ".json": "json"}[store.suffix]
    shutil.copy(store, tmp_path / f"memory{store.suffix}")
    with MemoryModule(storage_dir=tmp_path, backend_type=backend_type, read_only=read_only) as memory:
        assert memory.list_memories() == entries()
        assert memory.for_namespace("alice").list_memories() == entries()
        assert memory.get_memories_by_tags(["tag-2"]) == [entries()[2]]
        assert memory.get_memories_by_entity("kind", "entity-3") == [entries()[3]]
        if not read_only:
            memory.update_memory("id-1", {"n": 2})
            memory.set_user_preference("theme", {})
            assert memory.count_memories() == 5


@pytest.mark.parametrize("store", [each for each in STORES if int(each.stem.split("-")[1]) >= 3], ids=lambda p: p.name)
@pytest.mark.parametrize("read_only", [False, True])
def test_the_past_of_an_earlier_version_is_read_whole_and_goes_on(store: Path, read_only: bool, tmp_path: Path) -> None:
    backend_type = {".db": "sqlite", ".json": "json"}[store.suffix]
    shutil.copy(store, tmp_path / f"memory{store.suffix}")
    with MemoryModule(storage_dir=tmp_path, backend_type=backend_type, read_only=read_only) as whole:
        memory = whole.for_namespace("lived")
        for hour, held in enumerate(PAST):
            moment = START + timedelta(days=36_500, hours=hour, seconds=1)
            assert {entry.key: entry.value for entry in memory.search_memories(as_of=moment)} == held
        changes = memory.changes()
        assert [change.operation for change in changes] == FEED
        assert (changes[1].module, changes[1].task_id, changes[1].reason) == ("changer", "7", "better")
        assert [change.operation for change in whole.for_namespace("gone").changes()] == ["erase"]
        assert len(memory.get_history(changes[0].memory_id or "")) == 3
        if not read_only:
            assert memory.undo(changes[0].memory_id or "")
            assert [change.operation for change in memory.changes(changes[-1].cursor)] == ["undo"]


@pytest.mark.parametrize("store", [each for each in STORES if int(each.stem.split("-")[1]) >= 4], ids=lambda p: p.name)
@pytest.mark.parametrize("read_only", [False, True])
def test_what_expires_in_a_store_of_an_earlier_version_goes_on_to_expire(
    store: Path, read_only: bool, tmp_path: Path
) -> None:
    backend_type = {".db": "sqlite", ".json": "json"}[store.suffix]
    shutil.copy(store, tmp_path / f"memory{store.suffix}")
    clock = FakeClock(START + timedelta(days=36_500, hours=10))
    with MemoryModule(storage_dir=tmp_path, backend_type=backend_type, read_only=read_only, clock=clock) as whole:
        memory = whole.for_namespace("mortal")
        (entry,) = memory.search_memories(tags=["x"])
        assert (entry.key, entry.expires_at) == ("long", START + timedelta(days=36_600, hours=5))
        told = [(each.operation, each.key, each.module, each.reason) for each in memory.changes()]
        assert told[-1] == ("expire", "purged", "cleaner", "tidying")
        assert [key for _, key, _, _ in told] == ["purged", "waiting", "long", "purged"]
        for hours, key in ((5.5, "purged"), (7.5, "waiting")):
            with pytest.raises(HistoryUnavailableError, match="expired"):
                memory.get_memory_by_key(key, as_of=START + timedelta(days=36_500, hours=hours))
        if not read_only:
            assert whole.store.purge_expired() == 1
        clock.step(days=100)
        assert memory.count_memories() == 0


def test_there_is_a_store_of_each_kind() -> None:
    assert {path.suffix for path in STORES} == {".db", ".json"}
