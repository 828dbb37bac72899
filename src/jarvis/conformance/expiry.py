"""Promises of expiry: from its expiry on an entry and its past are absent, purged or not."""

from __future__ import annotations

import contextlib
import copy
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from jarvis.capabilities import Expires, FeedsChanges, KeepsHistory, Namespaced, Transactional
from jarvis.conformance.fixtures import FAR as START
from jarvis.conformance.fixtures import FakeClock, OpenBackend, Promises, an_entry
from jarvis.errors import (
    ConflictError,
    DuplicateEntryError,
    EntryNotFoundError,
    HistoryUnavailableError,
    InvalidEntryError,
    InvalidQueryError,
    RevisionNotFoundError,
)
from jarvis.model.entry import MemoryEntry
from jarvis.model.marks import ABSENT, NEVER
from jarvis.model.query import MemoryQuery
from jarvis.persistent_memory import MemoryModule
from jarvis.storage_backend import StorageBackend

MICROSECOND = timedelta(microseconds=1)
Create = Callable[..., str]


class ExpiryPromises(Promises):
    """Expire to the microsecond, for every question; touch; purge; refuse invalid moments."""

    @pytest.fixture
    def mortal(self, backend: StorageBackend, later: FakeClock) -> MemoryModule:
        """Return a module on a backend whose entries may expire."""
        self.need(backend, Expires)
        return MemoryModule(storage_backend=backend, clock=later)

    @pytest.fixture
    def mortal_past(self, mortal: MemoryModule) -> MemoryModule:
        """Return `mortal` if its backend keeps history too."""
        self.need(mortal.backend, KeepsHistory)
        return mortal

    # --- being absent ---

    @pytest.mark.parametrize("is_purged", [False, True], ids=["unpurged", "purged"])
    def test_it_is_absent_from_its_instant_on_for_every_question(
        self, mortal: MemoryModule, later: FakeClock, is_purged: bool
    ) -> None:
        gone = mortal.create_memory("tasks", "k", {"n": 1}, "task", "e", ["x", "y"], ttl=timedelta(seconds=10))
        kept = mortal.create_memory("tasks", "k", {"n": 2}, "task", "e", ["x"])
        mortal.set_user_preference("theme", {"mode": "dark"}, ttl=10)

        later.now = START + timedelta(seconds=10) - MICROSECOND
        assert self._answers(mortal) == {
            **dict.fromkeys(("list", "iterate", "count"), 3),
            **dict.fromkeys(("category", "entity", "entity type", "tags", "any tag", "key", "where", "limited"), 2),
            "all tags": 1,
            "counted of one tag": 2,
            "preferences": {"theme": {"mode": "dark"}},
        }
        assert mortal.get_memory(gone) is not None
        later.now += MICROSECOND
        if is_purged:
            assert mortal.store.purge_expired() == 2
            assert mortal.store.purge_expired() == 0

        assert self._answers(mortal) == {
            **dict.fromkeys(
                ("list", "iterate", "count", "category", "entity", "entity type", "tags", "any tag", "key", "where"), 1
            ),
            "limited": 1,
            "all tags": 0,
            "counted of one tag": 1,
            "preferences": {},
        }
        assert mortal.get_memory(gone) is None
        entry = mortal.get_memory_by_key("k")
        assert entry is not None
        assert entry.id == kept
        assert [entry.id for entry in mortal.get_task_history(1)] == [kept]
        assert mortal.update_memory(gone, {"n": 3}) is False
        assert mortal.merge_memory(gone, {"n": 3}) is False
        assert mortal.modify_memory(gone, lambda value: value) is False
        assert mortal.touch_memory(gone, ttl=None) is False
        assert mortal.delete_memory(gone) is False
        with pytest.raises(ConflictError):
            mortal.update_memory(gone, {}, if_version=1)
        with pytest.raises(EntryNotFoundError):
            mortal.backend.update(an_entry(gone))
        assert mortal.clear_all() == 1
        assert mortal.count_memories() == 0

    def _answers(self, memory: MemoryModule) -> dict[str, Any]:
        return {
            "list": len(memory.list_memories()),
            "iterate": len(list(memory.iter_memories())),
            "count": memory.count_memories(),
            "category": len(memory.get_memories_by_category("tasks")),
            "entity": len(memory.get_memories_by_entity("task", "e")),
            "entity type": len(memory.get_memories_by_entity("task")),
            "tags": len(memory.get_memories_by_tags(["x"])),
            "any tag": memory.count_memories(tags=["x", "y"]),
            "all tags": memory.count_memories(tags=["x", "y"], tags_match="all"),
            "key": len(memory.search_memories(key="k")),
            "where": memory.count_memories(where={"n": {"$gte": 1}}),
            "limited": len(memory.search_memories(tags=["y", "x"], limit=2)),
            "counted of one tag": memory.count_memories(tags=["x"]),
            "preferences": memory.get_user_preferences(),
        }

    def test_a_limit_is_filled_with_what_has_not_expired(self, mortal: MemoryModule, later: FakeClock) -> None:
        kept = [mortal.create_memory("c", "k", {}, "t", tags=["x", f"y{number}"]) for number in range(3)]
        for _ in range(5):  # newer than those
            mortal.create_memory("c", "k", {}, "t", tags=["x", "z"], ttl=1)
        later.step(seconds=1)

        for filters in ({"category": "c"}, {"tags": ["x"]}, {"tags": ["x", "z"]}, {"key": "k"}, {"entity_type": "t"}):
            entries = mortal.search_memories(**filters, limit=2)
            assert [entry.id for entry in entries] == [kept[2], kept[1]]
            query = MemoryQuery(**filters, limit=2)
            assert mortal.backend.count(query) == 2

    def test_it_may_expire_in_the_middle_of_a_transaction_that_has_read_it(
        self, mortal: MemoryModule, later: FakeClock
    ) -> None:
        self.need(mortal.backend, Transactional)
        memory_id = mortal.create_memory("c", "k", {}, "t", ttl=1)

        with mortal.transaction():
            assert mortal.get_memory(memory_id) is not None
            later.step(seconds=1)
            assert mortal.delete_memory(memory_id) is False
            assert mortal.update_memory(memory_id, {}) is False
            with pytest.raises(EntryNotFoundError):
                mortal.backend.update(an_entry(memory_id))

        assert mortal.count_memories() == 0

    def test_creating_over_it_is_a_new_entry(self, mortal: MemoryModule, later: FakeClock) -> None:
        first = mortal.set_user_preference("theme", {"mode": "dark"}, ttl=1)
        later.step(seconds=1)

        second = mortal.set_user_preference("theme", {"mode": "light"})

        assert second != first
        entry = mortal.get_memory(second)
        assert entry is not None
        assert (entry.version, entry.expires_at, "updated_at" in entry.provenance) == (1, None, False)

    def test_its_id_may_be_given_anew(self, mortal: MemoryModule, later: FakeClock) -> None:
        mortal.backend.create(an_entry("1", value={"n": 1}, expires_at=START + timedelta(seconds=1)))
        mortal.update_memory("1", {"n": 2})
        with pytest.raises(DuplicateEntryError):
            mortal.backend.create(an_entry("1"))
        later.step(seconds=1)

        mortal.backend.create(an_entry("1", value={"n": 3}))

        entry = mortal.get_memory("1")
        assert entry is not None
        assert (entry.version, entry.value, entry.expires_at) == (1, {"n": 3}, None)
        if mortal.backend.has_capability(KeepsHistory):
            assert mortal.get_history("1") == []
        later.step(days=1000)
        assert mortal.get_memory("1") is not None

    def test_a_namespace_of_what_has_expired_is_not_listed(self, mortal: MemoryModule, later: FakeClock) -> None:
        self.need(mortal.backend, Namespaced)
        alice = mortal.for_namespace("alice")
        alice.create_memory("c", "k", {}, "t", ttl=1)
        bob = mortal.for_namespace("bob")
        bob.create_memory("c", "k", {}, "t", ttl=1)
        bob.create_memory("c", "k", {}, "t")
        assert mortal.store.list_namespaces() == ["alice", "bob"]
        later.step(seconds=1)

        assert mortal.store.list_namespaces() == ["bob"]
        assert (alice.count_memories(), bob.count_memories()) == (0, 1)

    # --- when ---

    def test_an_expiry_comes_back_in_utc(self, mortal: MemoryModule) -> None:
        east = timezone(timedelta(hours=5))
        until = (START + timedelta(hours=1, microseconds=1)).astimezone(east)

        memory_id = mortal.create_memory("c", "k", {}, "t", expires_at=until)

        entry = mortal.get_memory(memory_id)
        assert entry is not None
        assert entry.expires_at == until
        assert entry.expires_at.tzinfo is UTC
        assert entry.model_dump()["expires_at"] == until
        assert copy.deepcopy(entry) == pickle.loads(pickle.dumps(entry)) == entry  # noqa: S301 - made here

    def test_updates_leave_it_unless_they_give_another(self, mortal: MemoryModule, later: FakeClock) -> None:
        memory_id = mortal.upsert_memory("c", "k", {"n": 1}, ttl=10)
        mortal.update_memory(memory_id, {"n": 2}, ["x"])
        mortal.merge_memory(memory_id, {"m": 1})
        mortal.modify_memory(memory_id, lambda value: value)
        mortal.upsert_memory("c", "k", {"n": 3})
        assert self._expiry(mortal, memory_id) == START + timedelta(seconds=10)

        mortal.upsert_memory("c", "k", {"n": 4}, expires_at=START + timedelta(seconds=20))

        assert self._expiry(mortal, memory_id) == START + timedelta(seconds=20)
        task = mortal.record_task("1", {}, ttl=timedelta(seconds=5))
        assert self._expiry(mortal, task) == START + timedelta(seconds=5)
        later.step(seconds=5)
        assert mortal.get_task_history() == []

    def test_never_ends_it_where_nothing_given_leaves_it(self, mortal: MemoryModule) -> None:
        preference = mortal.set_user_preference("theme", {}, ttl=10)
        other = mortal.upsert_memory("c", "k", {}, "t", ttl=10)
        touched = mortal.create_memory("c", "touched", {}, "t", ttl=10)
        made = [mortal.create_memory("c", "made", {}, "t", ttl=NEVER), mortal.record_task("1", {}, ttl=NEVER)]
        mortal.set_user_preference("theme", {})
        mortal.upsert_memory("c", "k", {})
        assert self._expiry(mortal, preference) == self._expiry(mortal, other) == START + timedelta(seconds=10)

        mortal.set_user_preference("theme", {}, ttl=NEVER)
        mortal.upsert_memory("c", "k", {}, ttl=NEVER)
        mortal.touch_memory(touched, ttl=NEVER)

        assert {self._expiry(mortal, memory_id) for memory_id in (preference, other, touched, *made)} == {None}
        for call in (
            lambda: mortal.upsert_memory("c", "k", {}, ttl=NEVER, expires_at=START),
            lambda: mortal.touch_memory(touched, ttl=NEVER, expires_at=START),
            lambda: mortal.touch_memory(touched, ttl=ABSENT),  # type: ignore[arg-type]  # hostile
        ):
            with pytest.raises(InvalidEntryError, match="ttl: "):
                call()

    def test_touching_moves_it_and_nothing_else(self, mortal: MemoryModule, later: FakeClock) -> None:
        first = mortal.create_memory("c", "k", {"n": 1}, "t", tags=["x"], ttl=10)
        second = mortal.create_memory("c", "k", {"n": 2}, "t")
        before = mortal.get_memory(first)
        assert before is not None
        later.step(seconds=9)

        assert mortal.touch_memory(first, ttl=10, module="toucher", reason="used")

        after = mortal.get_memory(first)
        assert after is not None
        assert (after.version, after.expires_at) == (2, START + timedelta(seconds=19))
        assert (after.value, after.tags, after.timestamp, after.provenance) == (
            before.value,
            before.tags,
            before.timestamp,
            before.provenance,
        )
        assert [entry.id for entry in mortal.list_memories()] == [second, first]
        later.step(seconds=9)
        assert mortal.touch_memory(first, ttl=None)
        assert self._expiry(mortal, first) is None
        assert mortal.touch_memory(second, expires_at=later.now + MICROSECOND)
        later.step(days=36500)
        assert [entry.id for entry in mortal.list_memories()] == [first]
        assert mortal.touch_memory("absent", ttl=1) is False
        if mortal.backend.has_capability(KeepsHistory):
            history = mortal.get_history(first)
            assert [(each.operation, each.module, each.reason) for each in history] == [
                ("touch", None, None),
                ("touch", "toucher", "used"),
            ]

    def _expiry(self, memory: MemoryModule, memory_id: str) -> datetime | None:
        entry = memory.get_memory(memory_id)
        assert entry is not None
        return entry.expires_at

    @pytest.mark.parametrize("ttl", [0, -1, 0.0, 1e-9, float("nan"), float("inf"), 1e300, True, "1", timedelta(0)])
    def test_a_lifetime_that_is_none_is_refused(self, mortal: MemoryModule, ttl: Any) -> None:
        memory_id = mortal.create_memory("c", "k", {"n": 1}, "t", ttl=10)
        calls: list[Callable[[], object]] = [
            lambda: mortal.create_memory("c", "k", {}, "t", ttl=ttl),
            lambda: mortal.upsert_memory("c", "k", {}, ttl=ttl),
            lambda: mortal.set_user_preference("k", {}, ttl=ttl),
            lambda: mortal.record_task("1", {}, ttl=ttl),
            lambda: mortal.touch_memory(memory_id, ttl=ttl),
        ]
        for call in calls:
            with pytest.raises(InvalidEntryError, match="ttl: "):
                call()

        assert mortal.count_memories() == 1
        assert self._expiry(mortal, memory_id) == START + timedelta(seconds=10)

    def test_an_expiry_that_has_passed_is_refused(self, mortal: MemoryModule) -> None:
        memory_id = mortal.create_memory("c", "k", {"n": 1}, "t")

        for until in (START, START - timedelta(days=1), "tomorrow", 5):
            with pytest.raises(InvalidEntryError, match="expires_at: "):
                mortal.create_memory("c", "k", {}, "t", expires_at=until)  # type: ignore[arg-type]
            with pytest.raises(InvalidEntryError, match="expires_at: "):
                mortal.touch_memory(memory_id, expires_at=until)  # type: ignore[arg-type]
        for both in ({}, {"ttl": 1, "expires_at": START + timedelta(1)}):
            with pytest.raises(InvalidEntryError, match="ttl: "):
                mortal.touch_memory(memory_id, **both)  # type: ignore[arg-type]
        with pytest.raises(InvalidEntryError, match="expires_at: "):
            mortal.backend.create(an_entry("2", expires_at=datetime(2100, 1, 1)))  # noqa: DTZ001 - refused for that
        with pytest.raises(InvalidQueryError, match="limit: "):
            mortal.store.purge_expired(limit=0)

        assert mortal.count_memories() == 1

    # --- purging ---

    def test_purging_is_bounded_and_tells_the_feed(self, mortal: MemoryModule, later: FakeClock) -> None:
        self.need(mortal.backend, KeepsHistory)
        self.need(mortal.backend, FeedsChanges)
        ids = [mortal.create_memory("c", f"k{number}", {"n": number}, "t", ttl=number + 1) for number in range(5)]
        mortal.update_memory(ids[0], {"n": 10}, module="changer")
        kept = mortal.create_memory("c", "k", {}, "t", ttl=3600)
        cursor = mortal.newest_cursor()
        later.step(seconds=60)

        assert mortal.store.purge_expired(limit=2, module="cleaner", reason="tidying") == 2
        assert mortal.store.purge_expired(module="cleaner") == 3

        told = mortal.changes(cursor)
        assert [(each.operation, each.memory_id, each.key, each.version) for each in told] == [
            ("expire", memory_id, f"k{number}", 2 if number == 0 else 1) for number, memory_id in enumerate(ids)
        ]
        assert {each.module for each in told} == {"cleaner"}
        assert told[0].reason == "tidying"
        assert told[4].reason == "expired at 2100-01-01T00:00:05+00:00"
        first = [each for each in mortal.changes() if each.memory_id == ids[0]]
        assert [(each.operation, each.module, each.version) for each in first] == [
            ("create", None, 1),
            ("update", "changer", 2),
            ("expire", "cleaner", 2),
        ]
        assert [entry.id for entry in mortal.list_memories()] == [kept]

    def test_a_purge_is_of_every_namespace(self, mortal: MemoryModule, later: FakeClock) -> None:
        self.need(mortal.backend, Namespaced)
        spaces = [mortal, mortal.for_namespace("alice"), mortal.for_namespace("bob")]
        for part in spaces:
            for _ in range(2):
                part.create_memory("c", "k", {}, "t", ttl=1)
            part.create_memory("c", "kept", {}, "t")
        later.step(seconds=1)

        purged = [mortal.store.purge_expired(limit=limit, module="cleaner") for limit in (1, 3, 9, 9)]

        assert purged == [1, 3, 2, 0]
        for part in spaces:
            assert [entry.key for entry in part.list_memories()] == ["kept"]
            if part.backend.has_capability(FeedsChanges):
                told = [each.module for each in part.changes() if each.operation == "expire"]
                assert told == ["cleaner", "cleaner"]

    def test_writers_purge_beside_their_changes(self, mortal: MemoryModule, later: FakeClock) -> None:
        for _ in range(20):
            mortal.create_memory("c", "k", {}, "t", ttl=1)
        later.step(seconds=1)

        for number in range(200):
            mortal.set_user_preference("counter", {"n": number})

        assert mortal.store.purge_expired() == 0

    def test_purging_can_be_taken_back(self, mortal: MemoryModule, later: FakeClock) -> None:
        self.need(mortal.backend, Transactional)
        memory_id = mortal.create_memory("c", "k", {"n": 1}, "t", ttl=1)
        later.step(seconds=1)

        with contextlib.suppress(KeyError), mortal.transaction():
            assert mortal.store.purge_expired() == 1
            raise KeyError

        later.step(seconds=-1)
        assert mortal.get_memory(memory_id) is not None

    # --- the past ---

    def test_nothing_is_known_of_its_past(self, mortal_past: MemoryModule, later: FakeClock) -> None:
        memory_id = mortal_past.create_memory("c", "k", {"n": 1}, "t")
        mortal_past.update_memory(memory_id, {"n": 2})
        mortal_past.touch_memory(memory_id, ttl=1)
        assert len(mortal_past.get_history(memory_id)) == 2
        later.step(seconds=1)

        for _ in range(2):
            assert mortal_past.get_history(memory_id) == []
            assert mortal_past.undo(memory_id) is False
            assert mortal_past.restore_memory(memory_id, 1) is False
            with pytest.raises(RevisionNotFoundError):
                mortal_past.diff_memory(memory_id, 1, 2)
            mortal_past.store.purge_expired()

    def test_what_was_deleted_expires_too(self, mortal_past: MemoryModule, later: FakeClock) -> None:
        memory_id = mortal_past.create_memory("c", "k", {"n": 1}, "t", ttl=10)
        mortal_past.update_memory(memory_id, {"n": 2})
        mortal_past.delete_memory(memory_id)
        later.step(seconds=9)
        assert mortal_past.undo(memory_id)
        assert self._expiry(mortal_past, memory_id) == START + timedelta(seconds=10)
        mortal_past.delete_memory(memory_id)
        assert len(mortal_past.get_history(memory_id)) == 3
        later.step(seconds=1)

        for is_purged in (False, True):
            assert mortal_past.get_history(memory_id) == []
            assert mortal_past.undo(memory_id) is False
            assert mortal_past.restore_memory(memory_id, 2) is False
            with pytest.raises(HistoryUnavailableError):
                mortal_past.get_memory(memory_id, as_of=START)
            if not is_purged:  # of a purged entry only its beginning and end are known
                assert mortal_past.get_memory(memory_id, as_of=START + timedelta(seconds=5)) is None
            assert (mortal_past.store.purge_expired() > 0) is not is_purged

    @pytest.mark.parametrize("is_purged", [False, True], ids=["unpurged", "purged"])
    def test_a_moment_at_which_it_was_there_is_refused_where_it_might_be_found(
        self, mortal_past: MemoryModule, later: FakeClock, is_purged: bool
    ) -> None:
        other = mortal_past.create_memory("other", "other", {}, "other", "other")
        later.step(seconds=10)
        gone = mortal_past.create_memory("c", "k", {"n": 1}, "t", "e", ["x"], ttl=10)
        later.step(seconds=10)
        mortal_past.record_task("1", {})
        if is_purged:
            mortal_past.store.purge_expired()
        inside = START + timedelta(seconds=15)

        refused: list[Callable[[], object]] = [
            lambda: mortal_past.get_memory(gone, as_of=inside),
            lambda: mortal_past.get_memory_by_key("k", as_of=inside),
            lambda: mortal_past.search_memories(as_of=inside),
            lambda: mortal_past.search_memories(category="c", limit=1, as_of=inside),
            lambda: mortal_past.search_memories(entity_type="t", entity_id="e", as_of=inside),
            lambda: mortal_past.count_memories(as_of=inside),
            lambda: list(mortal_past.iter_memories(key="k", as_of=inside)),
            lambda: mortal_past.count_memories(as_of=START + timedelta(seconds=20) - MICROSECOND),
        ]
        for question in refused:
            with pytest.raises(HistoryUnavailableError, match="expired") as caught:
                question()
            assert caught.value.earliest == START + timedelta(seconds=20)
        entry = mortal_past.get_memory(other, as_of=inside)
        assert entry is not None
        assert mortal_past.get_memory_by_key("other", as_of=inside) == entry
        assert mortal_past.search_memories(category="other", as_of=inside) == [entry]
        assert mortal_past.search_memories(entity_id="other", as_of=inside) == [entry]
        assert mortal_past.get_user_preferences(as_of=inside) == {}
        assert mortal_past.count_memories(as_of=START + timedelta(seconds=5)) == 1  # before it existed
        assert mortal_past.count_memories(as_of=START + timedelta(seconds=20)) == 2  # and after, with the task's record
        assert mortal_past.get_memory(gone, as_of=START + timedelta(seconds=20)) is None

    @pytest.mark.parametrize("is_purged", [False, True], ids=["unpurged", "purged"])
    def test_a_moment_behind_its_expiry_is_answered_without_it(
        self, mortal_past: MemoryModule, later: FakeClock, is_purged: bool
    ) -> None:
        gone = mortal_past.create_memory("c", "k", {}, "t", ttl=10)
        later.step(seconds=20)
        if is_purged:
            mortal_past.store.purge_expired()
        later.step(seconds=20)
        mortal_past.create_memory("c", "new", {}, "t")

        for seconds in (10, 15, 25):
            assert mortal_past.get_memory(gone, as_of=START + timedelta(seconds=seconds)) is None
            assert mortal_past.count_memories(as_of=START + timedelta(seconds=seconds)) == 0

    def test_of_an_id_that_was_given_anew_only_the_life_that_expired_is_gone(
        self, mortal_past: MemoryModule, later: FakeClock
    ) -> None:
        def put(number: int, until: datetime | None = None) -> None:
            entry = an_entry("1", value={"n": number}, timestamp=later.now, expires_at=until)
            with mortal_past.transaction():
                backend: Any = mortal_past.backend
                backend.moment(later.now)
                backend.update(entry) if number % 2 == 0 else backend.create(entry)
            later.step(seconds=1)

        put(1, START + timedelta(seconds=60))
        mortal_past.delete_memory("1")
        later.step(seconds=1)
        put(3)
        put(4)
        second = START + timedelta(seconds=2, milliseconds=1)
        later.step(seconds=60)

        for _ in range(2):
            assert [(each.version, each.entry.value) for each in mortal_past.get_history("1")] == [(1, {"n": 3})]
            with pytest.raises(HistoryUnavailableError):
                mortal_past.get_memory("1", as_of=START)
            entry = mortal_past.get_memory("1", as_of=second)
            assert entry is not None
            assert entry.value == {"n": 3}
            mortal_past.store.purge_expired()
        assert mortal_past.undo("1")
        entry = mortal_past.get_memory("1")
        assert entry is not None
        assert (entry.version, entry.value) == (3, {"n": 3})

    def test_what_has_not_expired_is_seen_as_it_was(self, mortal_past: MemoryModule, later: FakeClock) -> None:
        memory_id = mortal_past.create_memory("c", "k", {"n": 1}, "t", ttl=3600)
        later.step(seconds=10)
        mortal_past.update_memory(memory_id, {"n": 2})
        mortal_past.touch_memory(memory_id, ttl=7200)
        later.step(seconds=3600)

        for then, number, until in ((5, 1, 3600), (10, 2, 7210)):
            entry = mortal_past.get_memory(memory_id, as_of=START + timedelta(seconds=then, milliseconds=1))
            assert entry is not None
            assert entry.value == {"n": number}
            assert entry.expires_at == START + timedelta(seconds=until)

    def test_going_back_brings_no_expiry_that_has_passed(self, mortal_past: MemoryModule, later: FakeClock) -> None:
        memory_id = mortal_past.set_user_preference("theme", {"mode": "dark"}, ttl=10)
        later.step(seconds=5)
        mortal_past.set_user_preference("theme", {"mode": "light"}, ttl=10)
        assert mortal_past.undo(memory_id)
        assert self._expiry(mortal_past, memory_id) == START + timedelta(seconds=10)
        assert mortal_past.undo(memory_id)
        assert self._expiry(mortal_past, memory_id) == START + timedelta(seconds=15)
        later.step(seconds=6)

        assert mortal_past.restore_memory(memory_id, 1)

        assert mortal_past.get_user_preferences() == {"theme": {"mode": "dark"}}
        assert self._expiry(mortal_past, memory_id) == START + timedelta(seconds=15)
        later.step(seconds=4)
        assert mortal_past.get_user_preferences() == {}

    # --- handles ---

    def test_every_handle_tells_the_time_by_its_own_clock(
        self, mortal: MemoryModule, open_backend: OpenBackend
    ) -> None:
        memory_id = mortal.create_memory("c", "k", {}, "t", ttl=10)
        other = MemoryModule(storage_backend=open_backend(), clock=lambda: START + timedelta(seconds=10))

        assert mortal.get_memory(memory_id) is not None
        assert other.get_memory(memory_id) is None
        assert MemoryModule(storage_backend=open_backend()).get_memory(memory_id) is not None  # the system's
        other.shutdown()

    def test_a_handle_of_another_namespace_keeps_the_clock_and_one_of_another_clock_the_namespace(
        self, backend: StorageBackend, later: FakeClock
    ) -> None:
        self.need(backend, Namespaced)
        self.need(backend, Expires)
        by_name = backend.bind(clock=later).bind(namespace="alice")
        by_clock = backend.bind(namespace="alice").bind(clock=later)
        by_name.create(MemoryEntry("1", "c", "k", {}, expires_at=START + timedelta(seconds=1)))
        assert by_name.count(MemoryQuery()) == by_clock.count(MemoryQuery()) == 1

        later.step(seconds=1)

        assert by_name.count(MemoryQuery()) == by_clock.count(MemoryQuery()) == 0
        assert backend.bind(namespace="alice").count(MemoryQuery()) == 1  # by the system's clock

    def test_an_expiry_survives_reopening(self, mortal: MemoryModule, later: FakeClock) -> None:
        entry = MemoryEntry("1", "c", "k", {}, expires_at=START + timedelta(seconds=1))
        mortal.backend.create(entry)
        mortal.shutdown()

        reopened = mortal.get_memory("1")

        assert reopened is not None
        assert reopened.expires_at == entry.expires_at
        mortal.shutdown()
        later.step(seconds=1)
        assert mortal.get_memory("1") is None

    def test_a_ttl_is_remembered_and_begins_again(
        self, mortal: MemoryModule, later: FakeClock, open_backend: OpenBackend
    ) -> None:
        text = {"text": "a text that may be compressed " * 100}
        memory_id = mortal.create_memory("notes", "n", text, "note", ttl=timedelta(minutes=10, microseconds=1))
        moment, later.now = later.now, later.now + timedelta(minutes=9)
        mortal.update_memory(memory_id, {"n": 2})
        other = MemoryModule(storage_backend=open_backend(), clock=later)
        entry = other.get_memory(memory_id)

        assert entry is not None
        assert (entry.ttl, entry.value) == (timedelta(minutes=10, microseconds=1), {"n": 2})
        assert mortal.touch_memory(memory_id)
        later.now += timedelta(minutes=9)
        again = mortal.get_memory(memory_id)
        assert again is not None
        assert again.expires_at == moment + timedelta(minutes=19, microseconds=1)
        assert again.version == 3
        if mortal.backend.has_capability(KeepsHistory):
            assert [each.entry.ttl for each in mortal.get_history(memory_id)] == [entry.ttl, entry.ttl]
            mortal.undo(memory_id, steps=2)
            first = mortal.get_memory(memory_id)
            assert first is not None
            assert (first.ttl, first.value) == (entry.ttl, text)

    def test_only_a_ttl_is_remembered(self, mortal: MemoryModule, later: FakeClock) -> None:
        for given in ({}, {"ttl": NEVER}, {"expires_at": later.now + timedelta(hours=1)}):
            memory_id = mortal.create_memory("notes", "n", {}, "note", **given)
            entry = mortal.get_memory(memory_id)
            assert entry is not None
            assert entry.ttl is None
            with pytest.raises(InvalidEntryError, match="ttl"):
                mortal.touch_memory(memory_id)
        mortal.set_user_preference("p", {}, ttl=60)
        mortal.set_user_preference("p", {"n": 1}, ttl=NEVER)
        (entry,) = mortal.search_memories("preferences")
        assert (entry.expires_at, entry.ttl) == (None, None)
        assert not mortal.touch_memory("absent")

    def test_the_same_expiry_by_another_ttl_is_a_change(self, mortal: MemoryModule, later: FakeClock) -> None:
        memory_id = mortal.set_user_preference("p", {}, ttl=60)
        mortal.set_user_preference("p", {}, expires_at=later.now + timedelta(seconds=60))
        entry = mortal.get_memory(memory_id)
        assert entry is not None
        assert (entry.version, entry.ttl) == (2, None)

    @pytest.mark.parametrize("ttl", [60, timedelta(0), timedelta(-1), "1"])
    def test_a_ttl_that_is_none_is_refused_by_the_backend(self, backend: StorageBackend, ttl: Any) -> None:
        self.need(backend, Expires)
        with pytest.raises(InvalidEntryError, match="ttl"):
            backend.create(an_entry(expires_at=START, ttl=ttl))
        with pytest.raises(InvalidEntryError, match="ttl"):
            backend.create(an_entry(ttl=timedelta(1)))
        assert backend.list_all() == []
