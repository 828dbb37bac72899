"""Promises of what is created, moved and deleted: only if absent, with moments of its own, many at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from jarvis.capabilities import FeedsChanges, KeepsHistory, Transactional
from jarvis.conformance.fixtures import FIRST, NOON, FakeClock, Promises
from jarvis.errors import HistoryUnavailableError, InvalidEntryError
from jarvis.model.marks import ABSENT
from jarvis.persistent_memory import MemoryModule


class CreatingPromises(Promises):
    """Create if absent, import, move."""

    def test_what_is_created_if_absent_is_created_once(self, memory: MemoryModule, clock: FakeClock) -> None:
        self.need(memory.backend, Transactional)
        first = memory.create_memory("c", "k", {"n": 1}, "t", if_absent=True)
        memory.create_memory("d", "k", {}, "t")
        clock.step(seconds=1)

        assert memory.create_memory("c", "k", {"n": 2}, "t", "e", ["x"], if_absent=True) == first
        second = memory.create_memory("c", "k", {"n": 3}, "t")
        assert memory.create_memory("c", "k", {"n": 4}, "t", if_absent=True) == second
        entry = memory.get_memory(first)
        assert entry is not None
        assert (entry.value, entry.version, memory.count_memories()) == ({"n": 1}, 1, 3)
        hostile: tuple[Any, ...] = (
            {"value": None},
            {"value": {"a": object()}},
            {"category": None},
            {"key": "a\0"},
            {"tags": "x"},
        )
        for wrong in hostile:
            with pytest.raises(InvalidEntryError):
                memory.create_memory(
                    **{"category": "c", "key": "k", "value": {}, "entity_type": "t", "if_absent": True, **wrong}
                )

    def test_an_import_keeps_its_moments_and_its_author(self, memory: MemoryModule, clock: FakeClock) -> None:
        old, older = NOON - timedelta(days=30), datetime(2020, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
        far = datetime(2099, 1, 1, tzinfo=UTC)
        both = memory.create_memory("c", "both", {}, "t", module="m", timestamp=old, created_at=older)
        one = memory.create_memory("c", "one", {}, "t", module="m", timestamp=older)
        ahead = memory.create_memory("c", "ahead", {}, "t", timestamp=far)
        created = memory.create_memory("c", "created", {}, "t", created_at=older)
        clock.step(seconds=1)
        now = memory.create_memory("c", "now", {}, "t")

        entries = {entry.id: entry for entry in memory.list_memories()}
        assert list(entries) == [ahead, now, created, both, one]
        assert [entries[each].timestamp for each in (both, one, ahead, now)] == [old, older, far, clock.now]
        assert entries[one].timestamp.utcoffset() == timedelta(hours=2)
        made = [entries[each].created_at for each in (both, one, ahead, created)]
        assert made == [older, older, entries[ahead].created_at, older]
        assert abs(entries[ahead].created_at - NOON) < timedelta(milliseconds=1)
        assert entries[both].provenance == {
            "module": "m",
            "task_id": "none",
            "created_at": older.astimezone(UTC).isoformat(),
        }
        hostile: tuple[Any, ...] = (
            {"created_at": NOON + timedelta(days=1)},
            {"created_at": NOON, "timestamp": old},
            {"created_at": "2020-01-01"},
            {"timestamp": 0},
            {"timestamp": FIRST, "created_at": NOON},
            {"timestamp": NOON, "created_at": datetime.min.replace(tzinfo=timezone(timedelta(hours=9)))},
        )
        for wrong in hostile:
            with pytest.raises(InvalidEntryError, match=f"^({'|'.join(wrong)}): "):
                memory.create_memory("c", "k", {}, "t", **wrong)

    def test_an_import_is_there_from_its_call_on(self, past: MemoryModule, later: FakeClock) -> None:
        before = later.now
        later.step(days=1)
        past.create_memory("c", "k", {}, "t", timestamp=before - timedelta(days=9))
        imported = later.now
        later.step(days=1)
        past.create_memory("c", "other", {}, "t")

        assert past.count_memories(as_of=imported) == 1
        with pytest.raises(HistoryUnavailableError):
            past.count_memories(as_of=before)

    def test_a_moved_memory_keeps_its_id_value_tags_and_history(self, memory: MemoryModule, clock: FakeClock) -> None:
        memory_id = memory.create_memory("inbox", "k", {"n": 1}, "note", "e", ["x"], module="maker")
        clock.step(hours=1)

        assert memory.move_memory(memory_id, "projects", entity_type="plan", entity_id=ABSENT, module="mover")
        assert memory.move_memory(memory_id, key="hat", reason="found a name")

        (entry,) = memory.search_memories(category="projects", key="hat", entity_type="plan", tags=["x"])
        assert (entry.id, entry.value, entry.entity_id, entry.version) == (memory_id, {"n": 1}, None, 3)
        assert (entry.provenance["module"], entry.provenance["updated_by"]) == ("maker", "mover")
        assert abs(entry.timestamp - clock.now) < timedelta(milliseconds=1)
        assert memory.get_memories_by_category("inbox") == memory.search_memories(entity_id="e") == []
        assert memory.move_memory("absent", "c") is False
        hostile: tuple[Any, ...] = (
            {},
            {"category": 1},
            {"key": "\ud800"},
            {"entity_type": ABSENT},
            {"entity_id": "\0"},
        )
        for wrong in hostile:
            with pytest.raises(InvalidEntryError):
                memory.move_memory(memory_id, **wrong)
        assert memory.get_memory(memory_id) == entry
        if memory.backend.has_capability(KeepsHistory):
            assert [each.operation for each in memory.get_history(memory_id)] == ["update", "update"]
            assert memory.undo(memory_id, 2)
            (back,) = memory.search_memories(category="inbox", key="k", entity_type="note", entity_id="e")
            assert (back.id, back.version) == (memory_id, 4)
        if memory.backend.has_capability(FeedsChanges):
            told = [(change.operation, change.category, change.key) for change in memory.changes()]
            assert told[:3] == [("create", "inbox", "k"), ("update", "inbox", "k"), ("update", "projects", "k")]
