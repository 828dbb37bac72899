"""Promises of the change feed: every change, in order, once, also for a reader that resumes with a cursor."""

from __future__ import annotations

import contextlib
import threading
from datetime import timedelta
from typing import Any

import pytest

from jarvis.capabilities import Erases, FeedsChanges, KeepsHistory, Namespaced, Transactional, WakesWatchers
from jarvis.conformance.fixtures import FAR, FakeClock, OpenBackend, Promises, an_entry
from jarvis.errors import CursorExpiredError, HistoryUnavailableError, InvalidQueryError
from jarvis.model.change import Change
from jarvis.persistent_memory import MemoryModule
from jarvis.storage_backend import StorageBackend


class FeedPromises(Promises):
    """Return every change of the namespace once, in the order of commits."""

    @pytest.fixture
    def fed(self, backend: StorageBackend, later: FakeClock) -> MemoryModule:
        """Return a module on a backend with a feed."""
        self.need(backend, FeedsChanges)
        return MemoryModule(storage_backend=backend, clock=later)

    def test_every_kind_of_change_is_told_in_order(self, fed: MemoryModule, later: FakeClock) -> None:
        self.need(fed.backend, KeepsHistory)
        memory_id = fed.create_memory("c", "k", {"n": 1}, "t", module="maker", task_id="task", reason="needed")
        later.step(hours=1)
        fed.update_memory(memory_id, {"n": 2}, module="changer", reason="better")
        fed.undo(memory_id, module="undoer")
        fed.restore_memory(memory_id, 2)
        fed.delete_memory(memory_id, module="cleaner")
        fed.undo(memory_id, module="undoer", reason="a mistake")
        fed.create_memory("c", "other", {}, "t")
        fed.clear_all(module="sweeper")

        changes = fed.changes()

        assert [(change.operation, change.version, change.key, change.module, change.reason) for change in changes] == [
            ("create", 1, "k", "maker", "needed"),
            ("update", 2, "k", "changer", "better"),
            ("undo", 3, "k", "undoer", None),
            ("restore", 4, "k", None, None),
            ("delete", 4, "k", "cleaner", None),
            ("undo", 5, "k", "undoer", "a mistake"),
            ("create", 1, "other", None, None),
            ("clear", 5, "k", "sweeper", None),
            ("clear", 1, "other", "sweeper", None),
        ]
        assert {change.memory_id for change in changes if change.key == "k"} == {memory_id}
        assert (changes[0].timestamp, changes[0].task_id, changes[0].category) == (FAR, "task", "c")
        assert all(change.timestamp >= later.now for change in changes[1:])

    def test_a_cursor_goes_on_where_it_was_also_after_reopening(
        self, fed: MemoryModule, open_backend: OpenBackend
    ) -> None:
        for number in range(10):
            fed.create_memory("c", str(number), {}, "t")
        whole = fed.changes()
        again = open_backend()
        other = MemoryModule(storage_backend=again)

        changes: list[Change] = []
        while page := other.changes(changes[-1].cursor if changes else None, limit=3):
            changes += page
            again.shutdown()

        assert changes == whole
        assert [change.key for change in changes] == [str(number) for number in range(10)]
        assert fed.changes(fed.newest_cursor()) == []
        again.shutdown()

    def test_the_last_changes_come_newest_first(self, fed: MemoryModule) -> None:
        assert fed.recent_changes() == []
        for number in range(250):
            fed.create_memory("c", str(number), {}, "t")
            if fed.backend.has_capability(Namespaced) and number % 10 == 0:
                fed.for_namespace("other").create_memory("c", "n", {}, "t")

        assert fed.recent_changes(limit=1_000) == fed.changes(limit=1_000)[::-1]
        assert [change.key for change in fed.recent_changes(limit=3)] == ["249", "248", "247"]
        if fed.backend.has_capability(Namespaced):
            assert len(fed.for_namespace("other").recent_changes(limit=20)) == 20

    def test_what_is_taken_back_is_not_told(self, fed: MemoryModule) -> None:
        self.need(fed.backend, Transactional)
        fed.create_memory("c", "first", {}, "t")
        with contextlib.suppress(KeyError), fed.transaction():
            fed.create_memory("c", "never", {}, "t")
            raise KeyError
        with fed.transaction():
            fed.create_memory("c", "second", {}, "t")
            with contextlib.suppress(KeyError), fed.transaction():
                fed.create_memory("c", "never", {}, "t")
                raise KeyError
            assert [each.key for each in fed.changes()] == ["first"]  # uncommitted changes have no number yet
            cursor = fed.newest_cursor()
        assert [each.key for each in fed.changes(cursor)] == ["second"]
        fed.create_memory("c", "third", {}, "t")

        assert [each.key for each in fed.changes()] == ["first", "second", "third"]

    def test_namespaces_have_feeds_of_their_own(self, fed: MemoryModule) -> None:
        self.need(fed.backend, Namespaced)
        alice = fed.for_namespace("alice")
        fed.create_memory("c", "mine", {}, "t")
        alice.create_memory("c", "hers", {}, "t")

        assert [each.key for each in fed.changes()] == ["mine"]
        assert [each.key for each in alice.changes()] == ["hers"]

    def test_of_what_was_erased_only_that_is_told(self, fed: MemoryModule) -> None:
        self.need(fed.backend, Erases)
        self.need(fed.backend, Namespaced)
        alice = fed.for_namespace("alice")
        memory_id = alice.create_memory("c", "secret", {}, "t")
        alice.update_memory(memory_id, {"n": 1})
        alice.create_memory("c", "secret", {}, "t")
        seen = alice.changes(limit=1)[0].cursor
        fed.store.erase_namespace("alice")
        alice.create_memory("c", "new", {}, "t")

        for since in (None, seen):
            erased, created = alice.changes(since)
            assert (erased.operation, erased.count, erased.memory_id, erased.key) == ("erase", 2, None, None)
            assert created.key == "new"
        assert fed.changes() == []

    def test_verbs_of_the_backend_are_told_too(self, fed: MemoryModule) -> None:
        backend: Any = fed.backend
        backend.create(an_entry())
        backend.update(an_entry(key="other"))
        backend.delete("1")
        backend.create(an_entry())

        changes = [(change.operation, change.key, change.version) for change in fed.changes()]

        assert changes == [
            ("create", "theme", 1),
            ("update", "theme", 2),
            ("delete", "other", 2),
            ("create", "theme", 1),
        ]

    @pytest.mark.parametrize("since", ["", "yesterday", "-1", "1.5", 3, "9" * 30])
    def test_what_is_no_cursor_is_refused(self, fed: MemoryModule, since: Any) -> None:
        with pytest.raises(InvalidQueryError, match="since"):
            fed.changes(since)
        with pytest.raises(InvalidQueryError, match="limit"):
            fed.changes(limit=0)

    def test_a_watcher_sees_what_other_threads_and_handles_do(
        self, fed: MemoryModule, open_backend: OpenBackend
    ) -> None:
        self.need(fed.backend, WakesWatchers)
        again = open_backend()
        other = MemoryModule(storage_backend=again)
        fed.create_memory("c", "before", {}, "t")
        since = fed.newest_cursor()
        seen: list[str | None] = []

        def watch() -> None:
            for change in fed.watch(since, idle_seconds=5):
                seen.append(change.key)
                if len(seen) == 20:
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        for number in range(20):
            (fed, other)[number % 2].create_memory("c", str(number), {}, "t")
        watcher.join()

        assert seen == [str(number) for number in range(20)]
        assert list(fed.watch(idle_seconds=0)) == []
        again.shutdown()

    def test_erasing_nothing_is_no_change_and_every_other_erasure_stays(self, fed: MemoryModule) -> None:
        self.need(fed.backend, Erases)
        self.need(fed.backend, Namespaced)
        fed.create_memory("c", "k", {}, "t")
        for _ in range(2):
            fed.store.erase_namespace(fed.namespace)
        fed.create_memory("c", "k", {}, "t")
        fed.delete_memory(fed.create_memory("c", "k", {}, "t"))
        fed.store.erase_namespace(fed.namespace)

        assert [(each.operation, each.count) for each in fed.changes()] == [("erase", 1), ("erase", 2)]

    def test_what_was_before_an_erasure_stays_unknown_when_the_feed_forgets_it(
        self, fed: MemoryModule, later: FakeClock
    ) -> None:
        self.need(fed.backend, Erases)
        for protocol in (Namespaced, KeepsHistory):
            self.need(fed.backend, protocol)
        fed.create_memory("c", "secret", {}, "t")
        later.step(days=1)
        fed.store.erase_namespace(fed.namespace)
        later.step(days=400)
        fed.create_memory("c", "new", {}, "t")

        fed.store.prune_history()

        assert [each.key for each in fed.changes()] == ["new"]
        with pytest.raises(HistoryUnavailableError):
            fed.count_memories(as_of=FAR)
        assert fed.count_memories(as_of=FAR + timedelta(days=2)) == 0

    def test_who_erased_is_told_and_not_who_changed_before(self, fed: MemoryModule) -> None:
        self.need(fed.backend, Erases)
        self.need(fed.backend, KeepsHistory)
        self.need(fed.backend, Namespaced)
        alice = fed.for_namespace("alice")
        memory_id = alice.create_memory("c", "k", {}, "t")
        with fed.transaction():
            alice.update_memory(memory_id, {"n": 1}, module="changer", reason="a secret")
            fed.store.erase_namespace("alice", module="eraser", reason="asked for")
        fed.create_memory("c", "k", {}, "t")
        fed.clear_all(erase=True, module="cleaner")

        (erased,) = alice.changes()
        assert (erased.operation, erased.module, erased.reason) == ("erase", "eraser", "asked for")
        assert [(each.operation, each.module) for each in fed.changes()] == [("erase", "cleaner")]

    def test_a_cursor_ahead_of_the_store_is_refused(self, fed: MemoryModule) -> None:
        fed.create_memory("c", "k", {}, "t")

        with pytest.raises(CursorExpiredError):
            fed.changes("1000")

    def test_a_watcher_does_not_mind_what_other_namespaces_do(self, fed: MemoryModule) -> None:
        self.need(fed.backend, Namespaced)
        self.need(fed.backend, WakesWatchers)
        quiet = fed.for_namespace("quiet")
        watcher = quiet.watch(idle_seconds=0)
        for number in range(5):
            fed.create_memory("c", str(number), {}, "t")
        assert list(watcher) == []
        watcher = quiet.watch(quiet.newest_cursor(), idle_seconds=5)
        quiet.create_memory("c", "mine", {}, "t")

        assert next(watcher).key == "mine"
