"""Promises of undoing, restoring and comparing, and of changes that keep those of others."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from jarvis.conformance.fixtures import FakeClock, Promises
from jarvis.errors import (
    ConflictError,
    InvalidQueryError,
    RevisionNotFoundError,
)
from jarvis.model.revision import MISSING
from jarvis.persistent_memory import MemoryModule


class ChangePromises(Promises):
    """Restore, undo and compare; change a memory only if nobody else has changed it first."""

    def test_a_restored_memory_is_a_new_version_of_the_same(self, past: MemoryModule, later: FakeClock) -> None:
        memory_id = past.create_memory("c", "k", {"n": 1}, "t", tags=["x"], module="maker")
        past.update_memory(memory_id, {"n": 2}, [])
        later.step(hours=1)

        assert past.restore_memory(memory_id, 1, module="restorer", reason="back")

        entry = past.get_memory(memory_id)
        assert entry is not None
        assert (entry.value, entry.tags, entry.version, entry.timestamp) == ({"n": 1}, ["x"], 3, later.now)
        assert (entry.provenance["module"], entry.provenance["updated_by"]) == ("maker", "restorer")
        newest = past.get_history(memory_id)[0]
        assert (newest.operation, newest.module, newest.reason, newest.version) == ("restore", "restorer", "back", 2)

    def test_a_deleted_memory_comes_back_under_its_id(self, past: MemoryModule) -> None:
        memory_id = past.create_memory("c", "k", {"n": 1}, "t", tags=["x"])
        past.update_memory(memory_id, {"n": 2})
        past.delete_memory(memory_id)

        assert past.restore_memory(memory_id, 1)

        (entry,) = past.get_memories_by_tags(["x"])
        assert (entry.id, entry.value, entry.version) == (memory_id, {"n": 1}, 3)

    def test_restoring_the_present_changes_nothing_and_the_unknown_is_said(self, past: MemoryModule) -> None:
        memory_id = past.create_memory("c", "k", {"n": 1}, "t")
        past.update_memory(memory_id, {"n": 2})

        assert past.restore_memory(memory_id, 2)
        assert past.restore_memory("absent", 1) is past.undo("absent") is False
        assert len(past.get_history(memory_id)) == 1
        with pytest.raises(RevisionNotFoundError, match="version 7 of the memory is not known; known: 1, 2"):
            past.restore_memory(memory_id, 7)

    def test_an_undo_takes_back_an_update_and_an_undo(self, past: MemoryModule) -> None:
        memory_id = past.create_memory("c", "k", {"n": 1}, "t", tags=["x"])
        past.update_memory(memory_id, {"n": 2}, ["y"])

        found = []
        for _ in range(3):
            assert past.undo(memory_id, module="undoer")
            entry = past.get_memory(memory_id)
            assert entry is not None
            found.append((entry.value["n"], entry.tags, entry.version))

        assert found == [(1, ["x"], 3), (2, ["y"], 4), (1, ["x"], 5)]
        assert [each.operation for each in past.get_history(memory_id)] == ["undo", "undo", "undo", "update"]

    def test_an_undo_takes_back_several_changes_at_once(self, past: MemoryModule) -> None:
        memory_id = past.create_memory("c", "k", {"n": 1}, "t")
        for number in (2, 3):
            past.update_memory(memory_id, {"n": number})
        past.delete_memory(memory_id)
        found = []
        for steps in (2, 4, 1, 6, 4):
            assert past.undo(memory_id, steps)
            entry = past.get_memory(memory_id)
            found.append(None if entry is None else (entry.value["n"], entry.version))

        # The states were: none, 1, 2, 3, none, 2, 1, 2, 1, none.
        assert found == [(2, 4), (1, 5), (2, 6), (1, 7), None]
        assert past.undo(memory_id, 5)
        assert past.get_memory(memory_id) is None
        assert past.undo("absent", 3) is False
        with pytest.raises(RevisionNotFoundError, match="only the last 9 changes"):
            past.undo(memory_id, 10)
        hostile: tuple[Any, ...] = (0, -1, 1.0, True, None, 2**70)
        for wrong in hostile:
            with pytest.raises(InvalidQueryError, match="steps"):
                past.undo(memory_id, wrong)

    def test_an_undo_takes_back_a_deletion_and_a_creation(self, past: MemoryModule) -> None:
        memory_id = past.create_memory("c", "k", {"n": 1}, "t")
        there = []
        for _ in range(4):
            past.undo(memory_id)
            there.append(past.get_memory(memory_id) is not None)
        past.delete_memory(memory_id)
        past.undo(memory_id)

        assert there == [False, True, False, True]
        assert past.get_memory(memory_id) is not None

    def test_each_cleared_memory_can_be_brought_back(self, past: MemoryModule) -> None:
        ids = [past.create_memory("c", str(number), {"n": number}, "t") for number in range(3)]
        past.clear_all()

        assert all(past.undo(each) for each in ids)

        assert sorted(entry.value["n"] for entry in past.list_memories()) == [0, 1, 2]

    def test_versions_are_compared_down_to_paths(self, past: MemoryModule) -> None:
        memory_id = past.create_memory("c", "k", {"a": {"b": 1, "gone": None}, "l": [1, 2], "same": True}, "t")
        past.update_memory(memory_id, {"a": {"b": 1.0, "new": {}}, "l": [1, 3, 4], "same": True}, ["x"])

        found = {each.path: each[1:] for each in past.diff_memory(memory_id, 1, 2)}

        assert found.pop(("timestamp",))
        assert found.pop(("provenance", "updated_at"))
        assert found == {
            ("value", "a", "b"): (1, 1.0),
            ("value", "a", "gone"): (None, MISSING),
            ("value", "a", "new"): (MISSING, {}),
            ("value", "l", 1): (2, 3),
            ("value", "l", 2): (MISSING, 4),
            ("tags",): ([], ["x"]),
        }
        with pytest.raises(RevisionNotFoundError):
            past.diff_memory(memory_id, 1, 3)
        with pytest.raises(RevisionNotFoundError):
            past.diff_memory("absent", 1, 2)

    def test_a_change_that_was_overtaken_is_refused(self, memory: MemoryModule) -> None:
        memory_id = memory.create_memory("c", "k", {"n": 1}, "t")
        assert memory.update_memory(memory_id, {"n": 2}, if_version=1)

        with pytest.raises(ConflictError, match="has version 2, the change was meant for version 1"):
            memory.update_memory(memory_id, {"n": 3}, if_version=1)
        with pytest.raises(ConflictError):
            memory.delete_memory(memory_id, if_version=1)
        with pytest.raises(ConflictError):
            memory.modify_memory(memory_id, lambda value: value, if_version=3)

        entry = memory.get_memory(memory_id)
        assert entry is not None
        assert (entry.value, entry.version) == ({"n": 2}, 2)
        assert memory.delete_memory(memory_id, if_version=2)
        with pytest.raises(ConflictError, match="is gone"):
            memory.merge_memory(memory_id, {}, if_version=2)

    def test_a_merge_lays_changes_over_the_value(self, memory: MemoryModule) -> None:
        memory_id = memory.create_memory("c", "k", {"a": {"b": 1, "c": 2}, "d": [1], "e": 1}, "t", tags=["x"])

        assert memory.merge_memory(memory_id, {"a": {"c": None, "f": 3}, "d": [2], "g": {"h": None, "i": 1}})

        entry = memory.get_memory(memory_id)
        assert entry is not None
        assert entry.value == {"a": {"b": 1, "f": 3}, "d": [2], "e": 1, "g": {"i": 1}}
        assert entry.tags == ["x"]
        assert memory.merge_memory("absent", {}) is memory.modify_memory("absent", lambda value: value) is False

    def test_a_function_has_an_author_and_is_dated_when_it_is_done(self, past: MemoryModule, later: FakeClock) -> None:
        memory_id = past.create_memory("c", "k", {"n": 1}, "t")

        def slow(value: dict[str, Any]) -> dict[str, Any]:
            later.step(hours=1)
            return {"n": value["n"] + 1}

        assert past.modify_memory(memory_id, slow, module="counter", reason="one more")

        (revision,) = past.get_history(memory_id)
        assert (revision.module, revision.reason) == ("counter", "one more")
        meanwhile = past.get_memory(memory_id, as_of=later.now - timedelta(minutes=1))
        assert meanwhile is not None
        assert meanwhile.value == {"n": 1}

    def test_a_function_changes_the_value_or_nothing(self, memory: MemoryModule) -> None:
        memory_id = memory.create_memory("c", "k", {"n": 1}, "t")

        assert memory.modify_memory(memory_id, lambda value: {"n": value["n"] + 1})
        with pytest.raises(ZeroDivisionError):
            memory.modify_memory(memory_id, lambda value: {"n": value["n"] / 0})

        entry = memory.get_memory(memory_id)
        assert entry is not None
        assert (entry.value, entry.version) == ({"n": 2}, 2)
