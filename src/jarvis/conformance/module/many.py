"""Promises of many memories in one change: created, upserted, deleted, popped, undone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest

from jarvis.capabilities import Expires, FeedsChanges, KeepsHistory, Transactional
from jarvis.conformance.fixtures import FAR, NOON, FakeClock, OpenBackend, Promises, an_entry
from jarvis.errors import DuplicateEntryError, InvalidEntryError, InvalidQueryError, RevisionNotFoundError
from jarvis.persistent_memory import MemoryModule
from jarvis.storage_backend import StorageBackend


def _item(number: int, **more: Any) -> dict[str, Any]:
    return {"category": "c", "key": f"k{number}", "value": {"n": number}, "entity_type": "t", **more}


_BAD: tuple[Any, ...] = (
    None,
    "text",
    [("category", "c")],
    {},
    {"category": "c", "key": "k", "value": {}, "entity_type": "t", "colour": "red"},
    {"category": "c", "key": "k", "value": {}, "entity_type": "t", 1: 2},
    _item(1, value=None),
    _item(1, value={"a": object()}),
    _item(1, value={1: "a"}),
    _item(1, key="a\0"),
    _item(1, category=None),
    _item(1, entity_type=7),
    _item(1, tags="x"),
    _item(1, tags=["x", None]),
    _item(1, ttl=-1),
    _item(1, created_at=NOON, timestamp=NOON - timedelta(days=1)),
)


class ManyPromises(Promises):
    """Many memories in one change, all or none."""

    def test_many_are_created_at_once_in_their_order(self, memory: MemoryModule) -> None:
        tagged = _item(2, tags=["x", "y"], entity_id="e", timestamp=NOON - timedelta(days=1))
        large = MappingProxyType(_item(3, value={"text": "x" * 5_000}))

        ids = memory.create_memories(iter([_item(1), tagged, large]), module="importer")

        assert [entry.id for entry in memory.list_memories()] == [ids[2], ids[0], ids[1]]
        entries = [memory.get_memory(memory_id) for memory_id in ids]
        assert [entry.value for entry in entries if entry] == [{"n": 1}, {"n": 2}, large["value"]]
        (found,) = memory.search_memories(tags=["x"], entity_id="e")
        assert (found.id, found.provenance["module"], found.timestamp) == (ids[1], "importer", tagged["timestamp"])
        assert memory.create_memories([]) == []
        if memory.backend.has_capability(FeedsChanges):
            assert [change.key for change in memory.changes()] == ["k1", "k2", "k3"]

    @pytest.mark.parametrize("bad", _BAD, ids=range(len(_BAD)))
    def test_a_bad_item_names_its_position_and_nothing_is_written(self, memory: MemoryModule, bad: Any) -> None:
        calls: list[Callable[[Any], object]] = [memory.create_memories]
        if memory.backend.has_capability(Transactional):
            calls.append(memory.upsert_memories)
        if isinstance(bad, dict) and "ttl" in bad:
            self.need(memory.backend, Expires)
        for call in calls:
            with pytest.raises(InvalidEntryError, match=r"^item 2: "):
                call([_item(0), _item(1), bad, _item(3)])
        for wrong in (None, "items", 1, {"category": "c"}):
            with pytest.raises(InvalidEntryError, match=r"^items: "):
                memory.create_memories(wrong)  # type: ignore[arg-type]  # hostile

        assert memory.list_memories() == []

    def test_many_are_upserted_at_once(self, memory: MemoryModule, clock: FakeClock) -> None:
        self.need(memory.backend, Transactional)
        first = memory.upsert_memory("c", "k1", {"n": 1}, "t", tags=["x"])
        same = memory.upsert_memory("c", "k2", {"n": 2}, "t")
        clock.step(minutes=1)

        ids = memory.upsert_memories([_item(1, value={"n": 9}), _item(2), _item(3), _item(3, value={"n": 4})])

        assert ids[:2] == [first, same]
        assert ids[2] == ids[3]
        entries = {entry.key: entry for entry in memory.list_memories()}
        assert {key: (entry.version, entry.value["n"]) for key, entry in entries.items()} == {
            "k1": (2, 9),
            "k2": (1, 2),
            "k3": (2, 4),
        }
        assert entries["k1"].tags == ["x"]
        with pytest.raises(InvalidEntryError, match=r"^item 0: timestamp"):
            memory.upsert_memories([_item(1, timestamp=NOON)])

    def test_many_are_deleted_by_filters_or_ids(self, memory: MemoryModule) -> None:
        ids = memory.create_memories([_item(number, tags=[f"x{number % 2}"]) for number in range(6)])

        assert memory.delete_memories(tags=["x0"], where={"n": {"$gt": 0}}).count == 2
        assert memory.delete_memories(ids=[ids[1], "absent", ids[1], ids[2]]).count == 1
        assert memory.delete_memories(ids=[]).count == memory.delete_memories(category="absent").count == 0
        assert memory.delete_memories(ids=[]).cursor is None
        assert {entry.id for entry in memory.list_memories()} == {ids[0], ids[3], ids[5]}
        hostile: tuple[Any, ...] = (
            {},
            {"ids": "abc"},
            {"ids": [1]},
            {"ids": {"a": 1}},
            {"ids": [ids[0]], "category": "c"},
            {"tags_match": "all"},
            {"include_archived": True},
        )
        for wrong in hostile:
            with pytest.raises(InvalidQueryError, match="ids"):
                memory.delete_memories(**wrong)
        with pytest.raises(InvalidQueryError, match="clear_all"):
            memory.delete_memories()
        assert memory.count_memories() == 3

    def test_what_was_deleted_at_once_is_undone_at_once(self, past: MemoryModule, later: FakeClock) -> None:
        self.need(past.backend, FeedsChanges)
        past.create_memory("d", "k", {}, "t")
        ids = past.create_memories([_item(number, tags=["x"]) for number in range(300)])
        before = {entry.id: entry.value for entry in past.list_memories()}
        later.step(hours=1)
        past.delete_memory(ids[0], module="m")
        deleted = past.delete_memories(category="c", module="m", reason="by mistake")
        past.create_memory("d", "other", {}, "t")

        assert deleted.cursor is not None
        assert past.changes(deleted.cursor)[0].key == "other"
        with past.transaction():
            assert past.undo_change(deleted.cursor, module="undoer") == deleted.count == 299
        assert {entry.id for entry in past.get_memories_by_tags(["x"])} == set(ids[1:])
        assert past.undo(ids[0])
        assert {entry.id: entry.value for entry in past.list_memories() if entry.key != "other"} == before
        with pytest.raises(RevisionNotFoundError, match="later change"):
            past.undo_change(deleted.cursor)

    def test_one_change_is_undone_by_its_cursor(self, past: MemoryModule, later: FakeClock) -> None:
        self.need(past.backend, FeedsChanges)
        memory_id = past.create_memory("c", "k", {"n": 1}, "t")
        past.update_memory(memory_id, {"n": 2})
        past.upsert_memories([_item(1), _item(1, value={"n": 5}), _item(2)])
        later.step(hours=1)
        created, updated = past.changes()[:2]

        with pytest.raises(RevisionNotFoundError):
            past.undo_change(created.cursor)
        assert past.undo_change(updated.cursor) == 1
        entry = past.get_memory(memory_id)
        assert entry is not None
        assert (entry.value, entry.version) == ({"n": 1}, 3)
        past.clear_all()
        cleared = past.newest_cursor()
        assert past.undo_change(cleared) == 3
        assert past.count_memories() == 3
        past.clear_all()
        with pytest.raises(RevisionNotFoundError, match="later change"):
            past.undo_change(cleared)
        assert past.undo_change(past.newest_cursor()) == 3
        past.upsert_memories([_item(1, value={"n": 6}), _item(1, value={"n": 7})])
        assert past.undo_change(past.newest_cursor()) == 1
        (once,) = past.search_memories(key="k1")
        assert once.value == {"n": 5}
        for wrong in ("x", None, ""):
            with pytest.raises(InvalidQueryError):
                past.undo_change(wrong)  # type: ignore[arg-type]  # hostile

    def test_a_queue_gives_each_memory_to_one_taker(
        self, memory: MemoryModule, open_backend: OpenBackend, clock: FakeClock
    ) -> None:
        self.need(memory.backend, Transactional)
        for number in range(20):
            clock.step(seconds=1)
            memory.create_memory("jobs", str(number), {"n": number}, "job")
        first = memory.pop_memory(category="jobs", ascending=True)
        last = memory.pop_memory(category="jobs")
        taken: list[str] = []

        def take() -> None:
            other = MemoryModule(storage_backend=open_backend())
            while (entry := other.pop_memory(category="jobs", order="created", ascending=True)) is not None:
                taken.append(entry.key)
            other.shutdown()

        threads = [threading.Thread(target=take) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert first is not None
        assert last is not None
        assert (first.key, last.key) == ("0", "19")
        assert sorted(map(int, taken)) == list(range(1, 19))
        assert memory.pop_memory(category="jobs") is None

    def test_a_backend_creates_many_or_none(self, backend: StorageBackend) -> None:
        backend.create(an_entry("taken"))

        backend.create_many([an_entry("1"), an_entry("2", tags=[], timestamp=FAR)])
        assert [entry.id for entry in backend.list_all()] == ["2", "1", "taken"]
        with pytest.raises(InvalidEntryError, match=r"^item 1: key"):
            backend.create_many([an_entry("3"), an_entry("4", key=None)])
        if backend.has_capability(Transactional):
            for ids in (["3", "taken"], ["3", "3"]):
                with pytest.raises(DuplicateEntryError):
                    backend.create_many([an_entry(entry_id) for entry_id in ids])
        assert len(backend.list_all()) == 3
        if backend.has_capability(KeepsHistory):
            assert backend.capability(KeepsHistory).revisions("1") == []
