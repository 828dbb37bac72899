"""Promises of upserts that change nothing: no version, no past state, no event, and a timestamp that stays true."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from jarvis.capabilities import Expires, FeedsChanges, KeepsHistory, Transactional
from jarvis.conformance.fixtures import NOON, FakeClock, Promises, an_entry
from jarvis.errors import EntryNotFoundError
from jarvis.model.policies import RetentionRule
from jarvis.persistent_memory import MemoryModule
from jarvis.storage_backend import StorageBackend

_EAST = timezone(timedelta(hours=2))
_DIFFERENT: list[tuple[Any, Any]] = [
    (1, True),
    (1, 1.0),
    (0.0, -0.0),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    (datetime(2026, 3, 1, 12, tzinfo=UTC), datetime(2026, 3, 1, 14, tzinfo=_EAST)),
    ([1, 2], (1, 2)),
    ("x" * 2_000, "x" * 1_999 + "y"),
]


class RenewalPromises(Promises):
    """Upserts, preferences and device information that are what is stored already."""

    def test_what_changes_nothing_is_no_change(self, memory: MemoryModule, clock: FakeClock) -> None:
        for _ in range(100):
            memory_id = memory.set_user_preference("theme", {"mode": "dark", "text": "x" * 2_000})
            device_id = memory.set_device_info({"name": "desk", "ratio": math.nan})
            clock.step(seconds=30)

        for found in map(memory.get_memory, (memory_id, device_id)):
            assert found is not None
            assert found.version == 1
            assert found.timestamp < NOON + timedelta(seconds=1)
        if memory.backend.has_capability(KeepsHistory):
            assert memory.get_history(memory_id) == []
        if memory.backend.has_capability(FeedsChanges):
            assert [change.operation for change in memory.changes()] == ["create", "create"]

    @pytest.mark.parametrize(("one", "other"), _DIFFERENT)
    def test_a_value_of_other_bytes_is_a_change(self, memory: MemoryModule, one: Any, other: Any) -> None:
        versions = []
        for part in (one, other, other, one, one):
            memory_id = memory.set_user_preference("theme", {"part": part})
            entry = memory.get_memory(memory_id)
            assert entry is not None
            versions.append(entry.version)

        assert versions == [1, 2, 2, 3, 3]

    def test_other_tags_and_another_expiry_are_a_change(self, memory: MemoryModule) -> None:
        self.need(memory.backend, Transactional)
        self.need(memory.backend, Expires)
        until = NOON + timedelta(days=1)
        versions = []
        for tags, expires_at in (
            (["a", "b"], None),
            (["a", "b"], None),
            (["b", "a"], None),
            (["b", "a"], until),
            (None, until.astimezone(_EAST)),
            (None, None),
            ([], None),
        ):
            memory_id = memory.upsert_memory("c", "k", {}, "t", "e", tags, expires_at=expires_at)
            entry = memory.get_memory(memory_id)
            assert entry is not None
            versions.append(entry.version)

        assert versions == [1, 1, 2, 3, 3, 3, 4]

    def test_an_update_to_what_is_there_is_a_change(self, memory: MemoryModule) -> None:
        memory_id = memory.set_user_preference("theme", {"mode": "dark"})

        memory.update_memory(memory_id, {"mode": "dark"})

        entry = memory.get_memory(memory_id)
        assert entry is not None
        assert entry.version == 2

    def test_after_an_hour_the_timestamp_is_renewed(self, memory: MemoryModule, clock: FakeClock) -> None:
        memory_id = memory.set_user_preference("theme", {"mode": "dark"}, module="ui")
        other = memory.set_user_preference("sound", {"on": True}, module="ui")
        times = []
        for minutes in (59, 1, 59, 1):
            clock.step(minutes=minutes)
            memory.set_user_preference("theme", {"mode": "dark"}, module="ui")
            entry = memory.get_memory(memory_id)
            assert entry is not None
            times.append(round((entry.timestamp - NOON).total_seconds() / 60))

        assert times == [0, 60, 60, 120]
        assert [entry.id for entry in memory.list_memories()] == [memory_id, other]

    def test_another_author_is_noted_at_once(self, memory: MemoryModule, clock: FakeClock) -> None:
        memory_id = memory.set_user_preference("theme", {"mode": "dark"}, module="ui", task_id="1")
        authors = []
        for module, task_id in (("ui", "1"), ("sync", None), (None, None), ("sync", "2"), ("sync", "3")):
            clock.step(minutes=1)
            memory.set_user_preference("theme", {"mode": "dark"}, module=module, task_id=task_id)
            entry = memory.get_memory(memory_id)
            assert entry is not None
            said = entry.provenance.get
            authors.append((said("module"), said("updated_by"), said("updated_task_id"), entry.timestamp.minute))

        assert authors == [
            ("ui", None, None, 0),
            ("ui", "sync", None, 2),
            ("ui", "preferences_manager", None, 3),  # the usual one
            ("ui", "sync", "2", 4),
            ("ui", "sync", "3", 5),
        ]

    def test_a_key_still_finds_what_was_set_last(self, memory: MemoryModule, clock: FakeClock) -> None:
        memory_id = memory.set_user_preference("theme", {"mode": "dark"})
        clock.step(minutes=1)
        memory.create_memory("notes", "theme", {}, "note")
        clock.step(minutes=1)

        memory.set_user_preference("theme", {"mode": "dark"})

        newest = memory.get_memory_by_key("theme")
        assert newest is not None
        assert newest.id == memory_id

    def test_a_rule_of_thirty_days_spares_what_is_set_daily(self, backend: StorageBackend, clock: FakeClock) -> None:
        rule = RetentionRule(category="preferences", max_age=timedelta(days=30))
        memory = MemoryModule(storage_backend=backend, clock=clock, retention=[rule])
        memory.set_user_preference("once", {})
        for _ in range(40):
            memory.set_user_preference("daily", {"mode": "dark"})
            memory.sweep()
            clock.step(days=1)

        assert list(memory.get_user_preferences()) == ["daily"]

    # --- the past -------------------------------------------------------------------------------

    def test_a_renewal_is_in_no_history_and_no_feed(self, past: MemoryModule, later: FakeClock) -> None:
        for number in (1, 2):
            memory_id = past.set_user_preference("theme", {"n": number}, module="ui")
        for day in range(150):  # more than a policy keeps
            later.step(days=1)
            past.set_user_preference("theme", {"n": 2}, module=f"m{day}")

        entry = past.get_memory(memory_id)
        assert entry is not None
        assert (entry.version, entry.timestamp, entry.provenance["updated_by"]) == (2, later.now, "m149")
        assert [(each.version, each.operation) for each in past.get_history(memory_id)] == [(1, "update")]
        if past.backend.has_capability(FeedsChanges):
            assert [(change.operation, change.version) for change in past.changes()] == [("create", 1), ("update", 2)]

    def test_before_a_renewal_a_memory_was_as_it_was(self, past: MemoryModule, later: FakeClock) -> None:
        memory_id = past.set_user_preference("theme", {"n": 1}, module="ui")
        before = past.get_memory(memory_id)
        created = later.now
        later.step(hours=2)
        past.set_user_preference("theme", {"n": 1}, module="sync")
        renewed = past.get_memory(memory_id)
        moment = later.now
        later.step(hours=2)
        past.create_memory("c", "k", {}, "t")

        assert past.get_memory(memory_id, as_of=created) == before
        assert past.search_memories(category="preferences", until=moment, as_of=moment - timedelta(1 / 24)) == [before]
        assert past.get_memory(memory_id, as_of=moment) == renewed

        past.update_memory(memory_id, {"n": 2})
        later.step(hours=2)
        past.create_memory("c", "k", {}, "t")
        assert past.get_memory(memory_id, as_of=created) == past.get_memory(memory_id, as_of=moment) == before
        assert [each.entry for each in past.get_history(memory_id)] == [before]

    def test_what_was_renewed_can_be_undone_deleted_and_cleared(self, past: MemoryModule, later: FakeClock) -> None:
        def renew() -> str:
            later.step(hours=1)
            return past.upsert_memory("c", "k", {"n": 2}, "t", None, ["x"])

        past.upsert_memory("c", "k", {"n": 1}, "t", None, ["x"])
        renew()
        memory_id = renew()
        shown = []
        past.undo(memory_id)
        shown.append([entry.value["n"] for entry in past.get_memories_by_tags(["x"])])
        past.undo(memory_id)
        renew()
        past.delete_memory(memory_id)
        past.undo(memory_id)
        renew()
        shown.append([entry.value["n"] for entry in past.get_memories_by_tags(["x"])])
        past.clear_all()
        past.undo(memory_id)

        shown.append([entry.value["n"] for entry in past.get_memories_by_tags(["x"])])
        assert shown == [[1], [2], [2]]
        assert [each.operation for each in past.get_history(memory_id)] == ["clear", "delete", "undo", "undo", "update"]
        if past.backend.has_capability(FeedsChanges):
            told = [(change.operation, change.version) for change in past.changes()]
            assert told == [
                ("create", 1),
                ("update", 2),
                ("undo", 3),
                ("undo", 4),
                ("delete", 4),
                ("undo", 5),
                ("clear", 5),
                ("undo", 6),
            ]

    def test_renewals_among_changes_leave_past_and_feed_as_they_were(
        self, past: MemoryModule, later: FakeClock
    ) -> None:
        chance, states, told = random.Random(7), [], 0  # noqa: S311  not for secrets
        for _ in range(120):
            later.step(minutes=40)
            entries = {entry.key: entry for entry in past.list_memories()}
            key = chance.choice("abc")
            kind = chance.choice(["upsert"] * 6 + ["update", "delete", "undo", "clear"])
            if kind == "upsert":
                value = {"n": chance.choice([1, 1, 1, 2])}
                past.upsert_memory("c", key, value, "t", None, ["x"], module=chance.choice("mn"))
                told += key not in entries or entries[key].value != value
            elif kind == "clear" and chance.random() < 0.3:
                told += past.clear_all()
            elif key in entries and kind == "update":
                told += past.update_memory(entries[key].id, {"n": 1})
            elif key in entries and kind == "delete":
                told += past.delete_memory(entries[key].id)
            elif key in entries and kind == "undo":
                told += past.undo(entries[key].id)
            seen = {entry.id: (entry.version, entry.value) for entry in past.get_memories_by_tags(["x"])}
            states.append((later.now, seen))
        past.create_memory("other", "k", {}, "t")

        for moment, seen in states:
            then = past.search_memories(tags=["x"], as_of=moment)
            assert {entry.id: (entry.version, entry.value) for entry in then} == seen
            assert all(entry.timestamp <= moment for entry in then)
        if past.backend.has_capability(FeedsChanges):
            assert len(past.changes(limit=1_000)) == told + 1

    # --- the verb of a backend ------------------------------------------------------------------

    def test_a_backend_updates_only_what_changes(self, backend: StorageBackend) -> None:
        backend.create(an_entry(version=1))
        later = NOON + timedelta(hours=2)

        answers = [
            backend.update_if_changed(an_entry(timestamp=later, provenance={}), renews=False),
            backend.update_if_changed(an_entry(value={"mode": "light"}, timestamp=later), renews=False),
            backend.update_if_changed(an_entry(value={"mode": "light"}, timestamp=later, key="k"), renews=True),
            backend.update_if_changed(an_entry(value={"mode": "light"}, timestamp=later, key="k"), renews=False),
        ]

        assert answers == [False, True, True, False]
        entry = backend.read("1")
        assert entry is not None
        assert (entry.version, entry.value, entry.key) == (3, {"mode": "light"}, "k")
        with pytest.raises(EntryNotFoundError):
            backend.update_if_changed(an_entry("absent"), renews=False)
