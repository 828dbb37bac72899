"""Promises of history: every past state, who ended it, and the answers of earlier moments."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from jarvis.capabilities import Erases, Expires, KeepsHistory, Namespaced, Settles, SharesCommits, Transactional
from jarvis.conformance.fixtures import FAR, FIRST, LAST, FakeClock, OpenBackend, Promises, an_entry
from jarvis.errors import (
    DuplicateEntryError,
    HistoryUnavailableError,
    InvalidQueryError,
    TransactionError,
)
from jarvis.model.entry import MemoryEntry
from jarvis.model.policies import HistoryPolicy
from jarvis.model.query import MemoryQuery
from jarvis.model.revision import Revision, Signature
from jarvis.persistent_memory import MemoryModule
from jarvis.storage_backend import StorageBackend

_FAR_EAST, _FAR_WEST = timezone(timedelta(hours=14)), timezone(timedelta(hours=-14))


class HistoryPromises(Promises):
    """Keep, show, compare, restore, undo, and answer as of a moment."""

    # --- what is kept ---

    def test_an_update_keeps_what_was_before(self, past: MemoryModule, later: FakeClock) -> None:
        memory_id = past.create_memory("c", "k", {"n": 1, "at": FAR}, "t", "e", ["x"], module="maker")
        before = past.get_memory(memory_id)
        later.step(hours=1)
        past.update_memory(memory_id, {"n": 2}, ["y"], module="changer", task_id="task", reason="it was wrong")

        (revision,) = past.get_history(memory_id)

        assert revision == Revision(
            version=1,
            entry=before or an_entry(),
            operation="update",
            timestamp=FAR + timedelta(hours=1),
            module="changer",
            task_id="task",
            reason="it was wrong",
        )

    def test_history_is_newest_first_and_survives_deletion(self, past: MemoryModule) -> None:
        memory_id = past.create_memory("c", "k", {"n": 0}, "t")
        for number in (1, 2):
            past.update_memory(memory_id, {"n": number})
        past.delete_memory(memory_id, module="cleaner")

        history = past.get_history(memory_id)

        assert [(each.version, each.entry.value["n"], each.operation) for each in history] == [
            (3, 2, "delete"),
            (2, 1, "update"),
            (1, 0, "update"),
        ]
        assert history[0].module == "cleaner"
        assert [each.is_removal for each in history] == [True, False, False]

    def test_what_never_changed_has_no_history(self, past: MemoryModule) -> None:
        memory_id = past.create_memory("c", "k", {}, "t")

        assert past.get_history(memory_id) == past.get_history("absent") == []

    def test_a_history_comes_in_pages(self, past: MemoryModule) -> None:
        memory_id = past.create_memory("notes", "n", {"n": 0}, "note")
        for number in range(1, 6):
            past.update_memory(memory_id, {"n": number})
        whole = past.get_history(memory_id)

        assert [revision.version for revision in whole] == [5, 4, 3, 2, 1]
        assert past.get_history(memory_id, limit=2, offset=1) == whole[1:3]
        assert past.get_history(memory_id, ascending=True, limit=2) == whole[:-3:-1]
        assert past.get_history(memory_id, offset=9) == past.get_history(memory_id, limit=0) == []
        with pytest.raises(InvalidQueryError, match="offset"):
            past.get_history(memory_id, offset=-1)

    def test_clearing_keeps_every_memory(self, past: MemoryModule) -> None:
        ids = [past.create_memory("c", str(number), {"n": number}, "t", tags=["x"]) for number in range(5)]

        assert past.clear_all(module="cleaner", reason="moving out") == 5

        for number, memory_id in enumerate(ids):
            (revision,) = past.get_history(memory_id)
            assert (revision.entry.value, revision.operation, revision.reason) == ({"n": number}, "clear", "moving out")

    def test_a_failed_change_leaves_no_revision(self, past: MemoryModule) -> None:
        memory_id = past.create_memory("c", "k", {"n": 1}, "t")

        def fail() -> None:
            with past.transaction():
                past.update_memory(memory_id, {"n": 2})
                past.delete_memory(memory_id)
                raise KeyError

        with pytest.raises(KeyError):
            fail()

        assert past.get_history(memory_id) == []
        past.update_memory(memory_id, {"n": 3})
        assert [each.entry.value for each in past.get_history(memory_id)] == [{"n": 1}]

    def test_a_savepoint_that_is_taken_back_leaves_no_revision(self, past: MemoryModule) -> None:
        memory_id = past.create_memory("c", "k", {"n": 1}, "t")
        with past.transaction():
            past.update_memory(memory_id, {"n": 2})
            with contextlib.suppress(KeyError), past.transaction():
                past.update_memory(memory_id, {"n": 3})
                raise KeyError

        assert [each.entry.value["n"] for each in past.get_history(memory_id)] == [1]

    def test_verbs_of_the_backend_are_kept_without_an_author(self, past: MemoryModule) -> None:
        backend = past.backend
        backend.create(an_entry())
        backend.update(an_entry(key="other"))
        backend.delete("1")

        history = past.get_history("1")

        assert [(each.operation, each.module, each.entry.key) for each in history] == [
            ("delete", None, "other"),
            ("update", None, "theme"),
        ]

    def test_an_author_is_not_that_of_the_next_change(self, past: MemoryModule) -> None:
        backend: Any = past.backend
        ids = [past.create_memory("c", str(number), {}, "t") for number in range(3)]
        with past.transaction():
            past.delete_memory(ids[0], module="one", reason="why")
            backend.delete(ids[1])
        past.delete_memory(ids[2])

        assert [past.get_history(each)[0].module for each in ids] == ["one", None, None]
        with pytest.raises(TransactionError):
            backend.sign(Signature("update"))

    def test_an_author_makes_all_changes_of_the_block_that_says_so(self, past: MemoryModule) -> None:
        self.need(past.backend, Transactional)
        backend: Any = past.backend
        backend.create(an_entry("1"))

        with backend.transaction():
            backend.sign(Signature("update", "outer"))
            backend.update(an_entry("1"))
            with backend.transaction():
                backend.update(an_entry("1"))
                backend.sign(Signature("update", "inner"))
                backend.update(an_entry("1"))
            backend.update(an_entry("1"))
        backend.update(an_entry("1"))

        assert [each.module for each in past.get_history("1")] == [None, "outer", "inner", "outer", "outer"]

    def test_a_change_that_nobody_signs_is_what_it_is(self, past: MemoryModule) -> None:
        backend: Any = past.backend
        for name in "123":
            backend.create(an_entry(name))

        def change() -> None:
            backend.delete("1")
            backend.update(an_entry("2"))
            backend.create(an_entry("1"))
            backend.clear()

        if backend.has_capability(SharesCommits):
            backend.change(change)
        else:
            with backend.transaction():
                change()

        histories = {name: [each.operation for each in past.get_history(name)] for name in "123"}
        assert histories == {"1": ["clear", "delete"], "2": ["clear", "update"], "3": ["clear"]}

    def test_who_erases_makes_no_other_change(self, past: MemoryModule) -> None:
        self.need(past.backend, Erases)
        backend: Any = past.backend
        backend.create(an_entry("1"))
        backend.create(an_entry("2"))

        with backend.transaction():
            backend.sign(Signature("erase", "eraser"))
            backend.erase("1")
            backend.update(an_entry("2"))
        with backend.transaction():
            backend.sign(Signature("update", "editor"))
            backend.erase("1")
            backend.update(an_entry("2"))

        history = past.get_history("2")
        assert [(each.operation, each.module) for each in history] == [("update", "editor"), ("update", None)]

    def test_namespaces_have_histories_of_their_own(self, past: MemoryModule) -> None:
        self.need(past.backend, Erases)
        self.need(past.backend, Namespaced)
        other = past.for_namespace("other")
        for memory in (past, other):
            memory.backend.create(an_entry())
        past.backend.update(an_entry(key="new"))

        assert (len(past.get_history("1")), other.get_history("1")) == (1, [])
        assert past.store.erase_namespace(past.namespace).removed["entries"] == 1
        assert past.get_history("1") == []

    # --- how much is kept ---

    def test_of_an_id_that_is_given_again_no_more_is_kept_than_of_another(self, past: MemoryModule) -> None:
        self.need(past.backend, Transactional)
        most = HistoryPolicy().max_revisions
        with past.transaction():
            for _ in range(most + 5):
                past.backend.create(an_entry())
                past.backend.delete("1")

        assert len(past.get_history("1")) == most

    def test_what_was_cleared_goes_with_all_that_was_before_it(self, past: MemoryModule, later: FakeClock) -> None:
        memory_id = past.create_memory("c", "k", {"n": 1}, "t")
        past.update_memory(memory_id, {"n": 2})
        past.update_memory(memory_id, {"n": 3})
        past.clear_all()
        kept = past.update_memory(past.create_memory("c", "k", {}, "t"), {"n": 1})
        aged = HistoryPolicy().cleared_max_age
        assert aged is not None
        later.now += aged + timedelta(seconds=1)

        pruned = past.backend.capability(KeepsHistory).prune(later.now, 1)
        left = past.get_history(memory_id)
        pruned += past.store.prune_history()

        assert (kept, pruned) == (True, 3)
        assert [(each.operation, each.version) for each in left] == [("clear", 3), ("update", 2)]
        assert past.get_history(memory_id) == []

    def test_what_is_too_old_is_removed_from_every_namespace(self, past: MemoryModule, later: FakeClock) -> None:
        self.need(past.backend, Namespaced)
        spaces = [past, past.for_namespace("alice"), past.for_namespace("bob")]
        ids = [part.create_memory("c", "k", {"n": 1}, "t") for part in spaces]
        for part in spaces:
            part.clear_all()
        aged = HistoryPolicy().cleared_max_age
        assert aged is not None
        later.now += aged + timedelta(seconds=1)

        pruned = [past.store.prune_history(limit=limit) for limit in (2, 9, 9)]

        assert pruned == [2, 1, 0]
        assert [part.get_history(each) for part, each in zip(spaces, ids, strict=True)] == [[], [], []]

    def test_a_taken_id_is_not_recreated(self, past: MemoryModule) -> None:
        backend: Any = past.backend
        backend.create(an_entry())

        with pytest.raises(DuplicateEntryError):
            backend.recreate(an_entry())

    # --- as of a moment ---

    def test_every_question_is_answered_as_it_was(self, past: MemoryModule, later: FakeClock) -> None:
        memory_id = past.set_user_preference("theme", {"mode": "dark"})
        past.record_task("1", {"n": 1})
        then = later.now = later.now + timedelta(hours=1)
        later.step(hours=1)
        past.set_user_preference("theme", {"mode": "light"})
        past.set_user_preference("new", {})
        past.record_task("2", {"n": 2})
        past.clear_all()

        entry = past.get_memory(memory_id, as_of=then)
        assert entry is not None
        assert (entry.value, entry.version, entry.timestamp) == ({"mode": "dark"}, 1, FAR)
        assert past.get_memory_by_key("theme", as_of=then) == entry
        assert past.get_memory_by_key("new", as_of=then) is None
        assert past.get_memory_by_key("theme", "preferences", as_of=then) == entry
        assert past.get_user_preferences(as_of=then) == {"theme": {"mode": "dark"}}
        assert past.get_user_preference("theme", as_of=then) == {"mode": "dark"}
        assert past.get_user_preference("new", {"n": 0}, as_of=then) == {"n": 0}
        assert [each.value for each in past.get_task_history(as_of=then)] == [{"n": 1}]
        assert past.search_memories(category="preferences", where={"mode": "dark"}, as_of=then) == [entry]
        assert past.search_memories(where={"mode": "light"}, as_of=then) == []
        assert past.count_memories(as_of=then) == 2
        assert past.count_memories(where={"mode": "dark"}, as_of=then) == 1
        assert [each.key for each in past.iter_memories(as_of=then)] == ["task_1", "theme"]
        assert past.count_memories() == past.count_memories(as_of=later.now + timedelta(hours=1)) == 0

    def test_the_changes_of_a_transaction_appear_at_one_moment(self, past: MemoryModule, later: FakeClock) -> None:
        memory_id = past.create_memory("c", "old", {"n": 1}, "t")
        start = later.now
        with past.transaction():
            later.step(hours=1)
            past.update_memory(memory_id, {"n": 2})
            later.step(hours=1)
            past.create_memory("c", "new", {"n": 3}, "t")
            later.step(hours=1)

        def seen(hours: float) -> list[Any]:
            entries = past.search_memories(category="c", as_of=start + timedelta(hours=hours))
            return [entry.value["n"] for entry in entries]

        assert [seen(hours) for hours in (0, 0.5, 1.5, 2.5, 3)] == [[1], [1], [1], [1], [3, 2]]

    def test_a_timestamp_that_a_caller_gave_does_not_move_the_past(self, past: MemoryModule, later: FakeClock) -> None:
        past.create_memory("c", "first", {}, "t")
        moments = []
        for number, years in enumerate((300, -90)):
            later.step(hours=1)
            with past.transaction():
                past.create_memory("c", f"beside {number}", {}, "t")
                past.backend.create(an_entry(str(number), timestamp=FAR + timedelta(days=365 * years)))
            moments.append(later.now)
        later.step(hours=1)
        past.clear_all()

        early = FAR + timedelta(minutes=1)
        assert [entry.key for entry in past.search_memories(as_of=early)] == ["first"]
        assert past.count_memories(as_of=moments[0]) == 3
        assert past.count_memories(as_of=moments[1]) == 5
        newest = past.search_memories(limit=1, as_of=moments[1])
        assert [entry.id for entry in newest] == ["0"]

    def test_before_the_first_change_nothing_is_known(self, past: MemoryModule) -> None:
        assert past.count_memories(as_of=FAR - timedelta(days=1)) == 0  # an empty store has no past: it is the present
        memory_id = past.create_memory("c", "k", {}, "t")

        with pytest.raises(HistoryUnavailableError, match="2100-01-01T00:00:00") as caught:
            past.get_memory(memory_id, as_of=FAR - timedelta(days=1))

        assert caught.value.earliest == FAR
        for filters in ({}, {"where": {"n": 1}}, {"key_prefix": "k"}, {"order": "key"}):
            with pytest.raises(HistoryUnavailableError):
                past.search_memories(limit=0, as_of=FAR - timedelta(days=1), **filters)

    @pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
    def test_the_ends_of_the_calendar_are_the_first_moment_and_the_present(
        self, past: MemoryModule, in_zone: Callable[[str], None], zone: str
    ) -> None:
        in_zone(zone)
        past.create_memory("c", "k", {}, "t")

        for end in (LAST, LAST.replace(tzinfo=UTC), LAST.replace(tzinfo=_FAR_WEST)):
            assert past.count_memories(as_of=end) == 1
        for beginning in (FIRST, FIRST.replace(tzinfo=UTC), FIRST.replace(tzinfo=_FAR_EAST)):
            with pytest.raises(HistoryUnavailableError, match="0001-01-01"):
                past.count_memories(as_of=beginning)

    def test_what_is_no_moment_is_refused(self, past: MemoryModule) -> None:
        no_moment: Any = "yesterday"
        with pytest.raises(InvalidQueryError, match="as_of"):
            past.count_memories(as_of=no_moment)

    def test_the_present_inside_a_transaction_holds_its_changes(self, past: MemoryModule, later: FakeClock) -> None:
        memory_id = past.create_memory("c", "k", {"n": 1}, "t")
        then = later.now
        with past.transaction():
            later.step(hours=1)
            past.update_memory(memory_id, {"n": 2})
            past.create_memory("c", "other", {}, "t")

            assert [entry.value for entry in past.search_memories(as_of=then)] == [{"n": 1}]
            between = later.now
            later.step(hours=1)
            past.create_memory("c", "last", {}, "t")
            assert [entry.value for entry in past.search_memories(as_of=between)] == [{"n": 1}]
            assert past.count_memories(as_of=later.now + timedelta(hours=1)) == 3

    @pytest.mark.parametrize("seed", range(6))
    def test_any_past_moment_is_answered_as_it_was(
        self, past: MemoryModule, later: FakeClock, open_backend: OpenBackend, seed: int
    ) -> None:
        story = _Story(past, later, random.Random(seed))  # noqa: S311 - no secret
        for _ in range(60):
            story.step()
        again = open_backend()
        reopened = MemoryModule(storage_backend=again, clock=later)

        for memory in (past, reopened):
            for moment, entries in story.moments:
                for query in story.queries():
                    wanted = sorted(filter(query.matches, entries), key=lambda entry: entry.order, reverse=True)
                    seen: Any = memory.backend
                    view = seen.as_of(moment)
                    assert view.select(query) == wanted[: query.limit], (moment, query)
                    assert [entry.position for entry in view.select(query)] == [
                        entry.position for entry in wanted[: query.limit]
                    ]
                    assert view.count(query) == len(wanted[: query.limit])
                    assert list(view.iterate(query)) == wanted[: query.limit]
        again.shutdown()

    def test_what_an_erased_namespace_held_is_not_known_any_more(self, past: MemoryModule, later: FakeClock) -> None:
        self.need(past.backend, Erases)
        self.need(past.backend, Namespaced)
        past.create_memory("c", "k", {}, "t")
        then = later.now
        later.step(hours=1)
        past.clear_all(erase=True)
        erased = later.now
        later.step(hours=1)
        past.create_memory("c", "new", {}, "t")

        with pytest.raises(HistoryUnavailableError) as caught:
            past.count_memories(as_of=then)
        assert caught.value.earliest == erased
        assert past.count_memories(as_of=erased) == 0
        assert past.for_namespace("other").count_memories(as_of=then) == 0

    def test_a_question_about_just_now_waits_for_the_change_that_is_dated_before(self, backend: StorageBackend) -> None:
        self.need(backend, KeepsHistory)
        self.need(backend, Settles)
        self.need(backend, Expires)  # it reads the clock between the date of a change and its end
        reached, going_on = threading.Event(), threading.Event()
        asked = 0

        def slow() -> datetime:
            nonlocal asked
            now = datetime.now(UTC)
            asked += 1
            if asked == 2:
                reached.set()
                going_on.wait(timeout=30)
            return now

        memory, writer = MemoryModule(storage_backend=backend), MemoryModule(storage_backend=backend, clock=slow)
        memory.set_user_preference("n", {"n": 0})
        writing = threading.Thread(target=writer.set_user_preference, args=("n", {"n": 1}))
        writing.start()
        assert reached.wait(timeout=30)
        then = datetime.now(UTC)
        answers: list[Any] = []
        asking = threading.Thread(target=lambda: answers.append(memory.get_user_preferences(as_of=then)))
        asking.start()
        asking.join(timeout=0.05)
        early = list(answers)
        going_on.set()
        asking.join()
        writing.join()

        assert early == []
        assert answers == [memory.get_user_preferences(as_of=then)] == [{"n": {"n": 1}}]

    def test_a_question_about_just_now_is_answered_twice_alike_beside_writers(self, backend: StorageBackend) -> None:
        self.need(backend, KeepsHistory)
        self.need(backend, Settles)
        memory, is_over = MemoryModule(storage_backend=backend), threading.Event()
        memory.set_user_preference("n", {"n": 0})

        def write() -> None:
            number = 0
            while not is_over.is_set():
                number += 1
                memory.set_user_preference("n", {"n": number})
                with memory.transaction():
                    memory.set_user_preference("m", {"n": number})
                    memory.set_user_preference("n", {"n": -number})

        writing = [threading.Thread(target=write) for _ in range(2)]
        for thread in writing:
            thread.start()
        asked: list[tuple[datetime, Any]] = []
        for number in range(200):
            then = datetime.now(UTC) - timedelta(microseconds=number * 7 % 1500)
            with contextlib.suppress(HistoryUnavailableError):  # the history may be pruned by now
                asked.append((then, memory.get_user_preferences(as_of=then)))
        is_over.set()
        for thread in writing:
            thread.join()
        answers = []
        for then, answer in asked:
            with contextlib.suppress(HistoryUnavailableError):
                answers.append((answer, memory.get_user_preferences(as_of=then)))

        assert len(answers) > 10
        assert [again for _, again in answers] == [answer for answer, _ in answers]

    def test_a_transaction_that_is_open_keeps_no_question_waiting(self, backend: StorageBackend) -> None:
        self.need(backend, KeepsHistory)
        self.need(backend, Settles)
        memory = MemoryModule(storage_backend=backend)
        memory.set_user_preference("n", {"n": 0})
        answers: list[Any] = []

        def ask() -> None:
            answers.append(memory.get_user_preferences(as_of=datetime.now(UTC)))

        with memory.transaction():
            memory.set_user_preference("n", {"n": 1})
            with memory.transaction():
                memory.set_user_preference("m", {"n": 1})
            asking = threading.Thread(target=ask)
            asking.start()
            asking.join(timeout=20)
            assert answers == [{"n": {"n": 0}}]
            assert memory.get_user_preferences(as_of=datetime.now(UTC)) == {"n": {"n": 1}, "m": {"n": 1}}


class _Story:
    """Makes changes of every kind, and remembers the memories after each commit."""

    def __init__(self, memory: MemoryModule, clock: FakeClock, chance: random.Random) -> None:
        self.memory, self.clock, self.chance = memory, clock, chance
        self.moments: list[tuple[datetime, list[MemoryEntry]]] = []
        self.count = 0

    def step(self) -> None:
        """Make a commit and remember the memories; look again between this commit and the next."""
        self.clock.step(seconds=self.chance.choice([0.000001, 1, 1, 3600]))
        if self.chance.random() < 0.3:
            with self.memory.transaction():
                for _ in range(self.chance.randint(0, 4)):
                    self._change()
                    self.clock.step(seconds=self.chance.choice([0, 1]))
        else:
            self._change()
        if self.count:
            self.clock.step(seconds=1)  # after the microseconds that the module added to keep times apart
            self.moments.append((self.clock.now, self.memory.list_memories()))
            self.clock.step(seconds=1)

    def _change(self) -> None:
        chance, memory = self.chance, self.memory
        entries = memory.list_memories()
        some = chance.choice(entries).id if entries else "absent"
        kind = chance.choice(["create"] * 3 + ["update"] * 4 + ["delete", "undo", "undo", "raw", "restore", "clear"])
        if kind == "create":
            self.count += 1
            fields = (chance.choice("ab"), chance.choice("kl"), {"n": chance.randint(0, 3)}, chance.choice("tu"))
            memory.create_memory(*fields, chance.choice([None, "e"]), chance.sample("xyz", chance.randint(0, 3)))
        elif kind == "update":
            memory.update_memory(some, {"n": chance.randint(0, 3)}, chance.sample("xyz", chance.randint(0, 3)))
        elif kind == "delete":
            memory.delete_memory(some)
        elif kind == "undo":
            memory.undo(some)
        elif kind == "raw" and entries:
            entry = chance.choice(entries)
            entry.category = chance.choice("ab")
            entry.timestamp += timedelta(days=chance.choice([-1, 1]))
            with memory.transaction():
                memory.backend.update(entry)
        elif kind == "restore" and memory.get_history(some):
            memory.restore_memory(some, chance.choice(memory.get_history(some)).version)
        elif kind == "clear" and chance.random() < 0.3:
            memory.clear_all()

    def queries(self) -> list[MemoryQuery]:
        """Return a question for each kind of filter that can lead a search."""
        chance = self.chance
        return [
            MemoryQuery(),
            MemoryQuery(category=chance.choice("ab"), limit=chance.randint(0, 5)),
            MemoryQuery(key=chance.choice("kl"), where={"n": {"$gte": 1}}),
            MemoryQuery(tags=["x"], limit=3),
            MemoryQuery(tags=["x", "y"], tags_match=chance.choice(["any", "all"]), category=chance.choice("ab")),
            MemoryQuery(entity_type="t", entity_id=chance.choice([None, "e"])),
            MemoryQuery(since=FAR + timedelta(hours=chance.randint(0, 5)), tags=["y", "z"], limit=2),
            MemoryQuery(exclude_tags=["x", "absent"], category=chance.choice("ab"), limit=3),
            MemoryQuery(tags=["x", "z"], exclude_tags=["y"], limit=2),
        ]
