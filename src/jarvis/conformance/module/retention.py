"""Promises of retention: a sweep removes the memories that the rules name and no others, as its plan says."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from jarvis.capabilities import Expires, FeedsChanges, KeepsHistory, Namespaced, Transactional
from jarvis.conformance.fixtures import NOON, FakeClock, OpenBackend, Promises, an_entry
from jarvis.errors import InvalidQueryError, InvalidSettingError
from jarvis.model.entry import MemoryEntry
from jarvis.model.query import MemoryQuery
from jarvis.persistent_memory import MemoryModule, RetentionPlan, RetentionRule, SweepReport
from jarvis.storage_backend import BackendWrapper, StorageBackend

MONTH = timedelta(days=30)
OLD_TASKS = RetentionRule(category="tasks", max_age=MONTH)
TWO_TASKS = RetentionRule(category="tasks", max_entries=2)
PUT_AWAY = RetentionRule(category="tasks", max_age=MONTH, action="archive")


class _Overtaken(BackendWrapper):
    """A backend that calls a function after its first list, as if another writer came between."""

    def __init__(self, wrapped: StorageBackend, happens: Callable[[], None]) -> None:
        super().__init__(wrapped)
        self.happening = [happens]

    def select(self, query: MemoryQuery) -> list[MemoryEntry]:
        found = super().select(query)
        if self.happening:
            self.happening.pop()()
        return found


class RetentionPromises(Promises):
    """Rules by age and number, pins, archives, plans and sweeps."""

    @pytest.fixture
    def ruled(self, backend: StorageBackend, clock: FakeClock) -> Callable[..., MemoryModule]:
        """Return a function that makes a module on `backend` with the given rules."""
        return lambda *rules: MemoryModule(storage_backend=backend, clock=clock, retention=rules)

    def _put(self, backend: StorageBackend, entry_id: str, days: float, **fields: Any) -> None:
        """Store a task whose timestamp is `days` ago."""
        usual = {"category": "tasks", "key": entry_id, "tags": [], "timestamp": NOON - timedelta(days=days)}
        backend.create(an_entry(entry_id, **{**usual, **fields}))

    def _ids(self, backend: StorageBackend) -> list[str]:
        return [entry.id for entry in backend.list_all()]

    # --- what goes ---

    def test_what_is_older_than_the_age_goes_and_what_is_as_old_stays(
        self, backend: StorageBackend, ruled: Callable[..., MemoryModule]
    ) -> None:
        for name, days in (("new", 1), ("as old", 30), ("older", 30 + 1e-9), ("ahead", -400), ("ancient", 9000)):
            self._put(backend, name, days)

        report = ruled(OLD_TASKS).sweep()

        assert (report.deleted, report.archived, report.moment) == (2, 0, NOON)
        assert self._ids(backend) == ["ahead", "new", "as old"]

    def test_all_but_the_newest_go_and_of_equal_timestamps_the_last_written_is_the_newest(
        self, backend: StorageBackend, ruled: Callable[..., MemoryModule]
    ) -> None:
        for name in "abcd":
            self._put(backend, name, 1)

        assert ruled(TWO_TASKS).sweep().deleted == 2
        assert self._ids(backend) == ["d", "c"]
        assert ruled(TWO_TASKS).sweep().deleted == 0

    def test_of_an_age_and_a_number_either_is_enough(
        self, backend: StorageBackend, ruled: Callable[..., MemoryModule]
    ) -> None:
        rule = RetentionRule(category="tasks", max_age=MONTH, max_entries=3)
        for name, days in (("a", 1), ("b", 2), ("c", 40), ("d", 50)):
            self._put(backend, name, days)

        ruled(rule).sweep()
        by_age = self._ids(backend)
        for name in ("e", "f"):
            self._put(backend, name, 3)
        ruled(rule).sweep()

        assert by_age == ["a", "b"]
        assert self._ids(backend) == ["a", "b", "f"]

    def test_a_rule_governs_its_category_and_if_it_names_them_its_type_and_tag(
        self, backend: StorageBackend, ruled: Callable[..., MemoryModule]
    ) -> None:
        for name, fields in (
            ("all", {"entity_type": "job", "tags": ["tmp", "x"]}),
            ("no tag", {"entity_type": "job", "tags": ["tmpx"]}),
            ("no type", {"entity_type": "jobs", "tags": ["tmp"]}),
            ("no category", {"entity_type": "job", "tags": ["tmp"], "category": "Tasks"}),
        ):
            self._put(backend, name, 99, **fields)

        ruled(RetentionRule(category="tasks", entity_type="job", tag="tmp", max_age=MONTH)).sweep()
        narrow = self._ids(backend)
        ruled(OLD_TASKS).sweep()

        assert narrow == ["no category", "no type", "no tag"]
        assert self._ids(backend) == ["no category"]

    def test_what_is_pinned_is_neither_touched_nor_counted(
        self, backend: StorageBackend, ruled: Callable[..., MemoryModule]
    ) -> None:
        for name, days, tags in (("a", 1, []), ("b", 2, ["pin", "x"]), ("c", 3, []), ("d", 4, []), ("e", 90, ["keep"])):
            self._put(backend, name, days, tags=tags)
        rules = [
            RetentionRule(category="tasks", max_entries=2, keep_tags=("keep", "pin")),
            RetentionRule(category="tasks", max_age=MONTH, action="archive", keep_tags=("keep",)),
        ]

        ruled(*rules).sweep()

        assert self._ids(backend) == ["a", "b", "c", "e"]
        assert [entry.version for entry in backend.list_all()] == [1, 1, 1, 1]

    def test_a_rule_sees_its_own_namespace_only(
        self, backend: StorageBackend, ruled: Callable[..., MemoryModule]
    ) -> None:
        self.need(backend, Namespaced)
        other = backend.for_namespace("other")
        for each in (backend, other):
            self._put(each, "old", 99)

        assert ruled(OLD_TASKS).for_namespace("other").sweep().deleted == 1
        assert (self._ids(backend), self._ids(other)) == (["old"], [])

    # --- archives ---

    def test_archiving_adds_a_tag_and_leaves_all_else(
        self, backend: StorageBackend, ruled: Callable[..., MemoryModule]
    ) -> None:
        self._put(backend, "old", 31, value={"n": (1, NOON)}, tags=["x"])
        before = backend.read("old")

        report = ruled(PUT_AWAY).sweep(module="cleaner")

        after = backend.read("old")
        assert before is not None
        assert after is not None
        assert (report.deleted, report.archived) == (0, 1)
        assert (after.tags, after.value, after.timestamp) == (["x", "archived"], before.value, before.timestamp)
        assert (after.version, after.provenance["updated_by"]) == (2, "cleaner")

    def test_what_is_archived_is_not_archived_again_nor_counted(
        self, backend: StorageBackend, ruled: Callable[..., MemoryModule]
    ) -> None:
        for name, days in (("a", 1), ("b", 2), ("c", 3)):
            self._put(backend, name, days)
        memory = ruled(RetentionRule(category="tasks", max_entries=2, action="archive"))

        reports = [memory.sweep().archived for _ in range(2)]
        self._put(backend, "d", 0)

        assert reports == [1, 0]
        assert memory.sweep().archived == 1
        assert [entry.id for entry in memory.list_memories()] == ["d", "a"]

    def test_archived_memories_are_in_no_list_unless_they_are_asked_for(
        self, backend: StorageBackend, ruled: Callable[..., MemoryModule]
    ) -> None:
        self._put(backend, "new", 1, tags=["x"])
        self._put(backend, "old", 31, tags=["x"])
        memory = ruled(PUT_AWAY)
        memory.sweep()

        lists: tuple[Callable[..., Sequence[MemoryEntry]], ...] = (
            memory.list_memories,
            memory.search_memories,
            lambda **more: list(memory.iter_memories(category="tasks", **more)),
            lambda **more: memory.get_memories_by_category("tasks", **more),
            lambda **more: memory.get_memories_by_entity("user_preference", **more),
            lambda **more: memory.get_memories_by_tags(["x"], **more),
            memory.get_task_history,
        )
        for listed in lists:
            assert [entry.id for entry in listed()] == ["new"]
            assert [entry.id for entry in listed(include_archived=True)] == ["new", "old"]
        assert (memory.count_memories(), memory.count_memories(include_archived=True)) == (1, 2)
        assert [entry.id for entry in memory.get_memories_by_tags(["archived"])] == ["old"]
        assert [entry.id for entry in memory.search_memories(tags=["archived", "x"])] == ["new", "old"]
        assert memory.count_memories(tags=["x", "archived"], tags_match="all") == 1
        assert [entry.id for entry in memory.iter_memories(tags=["archived"])] == ["old"]

    def test_an_archived_memory_is_found_by_its_id_and_key(
        self, backend: StorageBackend, ruled: Callable[..., MemoryModule]
    ) -> None:
        self._put(backend, "old", 31)
        memory = ruled(PUT_AWAY)
        memory.sweep()

        assert memory.get_memory("old") == memory.get_memory_by_key("old") == backend.read("old")
        assert memory.list_memories() == []

    def test_a_module_that_archives_nothing_hides_nothing(
        self, backend: StorageBackend, ruled: Callable[..., MemoryModule]
    ) -> None:
        self._put(backend, "own", 1, tags=["archived"])

        for memory in (ruled(), ruled(OLD_TASKS)):
            assert [entry.id for entry in memory.list_memories()] == ["own"]
            assert memory.count_memories() == len(memory.get_task_history()) == 1
        assert ruled(PUT_AWAY).list_memories() == []

    def test_what_is_set_again_is_in_use_again(self, ruled: Callable[..., MemoryModule], clock: FakeClock) -> None:
        rule = RetentionRule(category="preferences", max_age=MONTH, action="archive")
        memory = ruled(rule)
        theme = memory.set_user_preference("theme", {"mode": "dark"})
        clock.step(days=31)
        memory.sweep()
        hidden = memory.get_user_preferences()
        shown = memory.get_user_preferences(include_archived=True)

        assert memory.set_user_preference("theme", {"mode": "light"}) == theme

        assert (hidden, shown) == ({}, {"theme": {"mode": "dark"}})
        assert memory.get_user_preferences() == {"theme": {"mode": "light"}}
        assert memory.sweep().archived == 0

    def test_an_upsert_takes_the_tag_off_only_where_it_hides_and_no_tags_are_given(
        self, backend: StorageBackend, ruled: Callable[..., MemoryModule]
    ) -> None:
        self.need(backend, Transactional)
        self._put(backend, "old", 31, tags=["x", "archived"])
        plain, hiding = ruled(), ruled(PUT_AWAY)

        tags = []
        for memory, given in ((plain, None), (hiding, ["archived"]), (hiding, None)):
            memory.upsert_memory("tasks", "old", {"n": 1}, tags=given)
            (entry,) = memory.list_memories(include_archived=True)
            tags.append(entry.tags)
            backend.update(an_entry("old", category="tasks", key="old", tags=["x", "archived"]))

        assert tags == [["x", "archived"], ["archived"], ["x"]]

    def test_lists_of_the_past_hide_what_was_archived_then(
        self, backend: StorageBackend, clock: FakeClock, ruled: Callable[..., MemoryModule]
    ) -> None:
        self.need(backend, KeepsHistory)
        clock.step(days=36_500)  # after the system's time, which dates a change made through the backend
        memory = ruled(PUT_AWAY)
        task = memory.record_task("1", {})
        clock.step(days=31)
        before = clock.now
        clock.step(hours=1)
        memory.sweep()
        after = clock.now
        clock.step(hours=1)
        memory.update_memory(task, {}, ["in use"])

        assert memory.count_memories(as_of=before) == memory.count_memories() == 1
        assert memory.search_memories(as_of=after) == memory.get_task_history(as_of=after) == []
        assert memory.count_memories(as_of=after, include_archived=True) == 1

    # --- several rules ---

    def test_what_an_earlier_rule_acts_upon_is_of_no_concern_to_a_later_one(
        self, backend: StorageBackend, ruled: Callable[..., MemoryModule]
    ) -> None:
        for name, days, tags in (("a", 1, ["tmp"]), ("b", 2, []), ("c", 3, []), ("d", 4, []), ("e", 99, [])):
            self._put(backend, name, days, tags=tags)
        rules = (
            RetentionRule(category="tasks", tag="tmp", max_age=timedelta(hours=1)),
            RetentionRule(category="tasks", max_age=MONTH, action="archive"),
            RetentionRule(category="tasks", max_entries=2),
        )

        plan, report = ruled(*rules).plan_retention(), ruled(*rules).sweep()

        assert [step.count for step in plan.steps] == [step.count for step in report.steps] == [1, 1, 1]
        assert [entry.id for entry in plan.steps[2].examples] == ["d"]
        assert {entry.id: entry.tags for entry in backend.list_all()} == {"b": [], "c": [], "e": ["archived"]}

    def test_what_a_sweep_archives_it_does_not_delete(
        self, backend: StorageBackend, ruled: Callable[..., MemoryModule]
    ) -> None:
        self._put(backend, "old", 99)
        memory = ruled(PUT_AWAY, RetentionRule(category="tasks", tag="archived", max_age=2 * MONTH))

        reports = [memory.sweep() for _ in range(3)]

        assert [(each.archived, each.deleted) for each in reports] == [(1, 0), (0, 1), (0, 0)]

    @pytest.mark.parametrize("seed", range(12))
    def test_a_sweep_does_what_the_plan_says_and_the_rules_mean(
        self, backend: StorageBackend, ruled: Callable[..., MemoryModule], seed: int
    ) -> None:
        chance = random.Random(seed)  # noqa: S311 - no secret
        for number in range(40):
            tags = chance.sample(["tmp", "pin", "archived", "x"], chance.choice([0, 0, 1, 1, 2]))
            fields = {"category": chance.choice(["tasks", "notes"]), "entity_type": chance.choice("ab"), "tags": tags}
            self._put(backend, str(number), chance.randrange(8) * 10, **fields)
        rules = [_some_rule(chance) for _ in range(chance.randrange(1, 5))]
        wanted = _meant(backend.list_all(), rules)
        memory = ruled(*rules)

        plan, before = memory.plan_retention(examples=100), backend.list_all()
        report = memory.sweep(batch=chance.choice([1, 3, 500]))

        assert [{entry.id for entry in step.examples} for step in plan.steps] == wanted, rules
        assert [step.count for step in plan.steps] == [step.count for step in report.steps] == list(map(len, wanted))
        deleted, archived = (
            {each for rule, ids in zip(rules, wanted, strict=True) if rule.action == action for each in ids}
            for action in ("delete", "archive")
        )
        assert (report.deleted, report.archived) == (len(deleted), len(archived))
        after = {entry.id: entry.tags for entry in backend.list_all()}
        assert after == {
            entry.id: [*entry.tags, "archived"] if entry.id in archived else entry.tags
            for entry in before
            if entry.id not in deleted
        }

    # --- plans ---

    def test_a_plan_changes_nothing_and_shows_the_newest_of_what_would_go(
        self, backend: StorageBackend, ruled: Callable[..., MemoryModule]
    ) -> None:
        for number in range(6):
            self._put(backend, str(number), 40 + number)
        memory, before = ruled(OLD_TASKS, PUT_AWAY, OLD_TASKS), self._state(backend)

        plans = [memory.plan_retention(), memory.plan_retention(examples=0), memory.plan_retention(examples=100)]

        assert [plan.count for plan in plans] == [6, 6, 6]
        assert [[step.count for step in plan.steps] for plan in plans] == [[6, 0, 0]] * 3
        assert [[entry.id for entry in plan.steps[0].examples] for plan in plans] == [
            ["0", "1", "2"],
            [],
            ["0", "1", "2", "3", "4", "5"],
        ]
        assert plans[0].steps[0].rule == OLD_TASKS
        assert plans[0].moment == NOON
        assert self._state(backend) == before

    def test_where_nothing_is_due_nothing_is_written(
        self, backend: StorageBackend, ruled: Callable[..., MemoryModule]
    ) -> None:
        self._put(backend, "new", 1)
        before = self._state(backend)

        for memory in (ruled(), ruled(OLD_TASKS, TWO_TASKS, PUT_AWAY)):
            assert (memory.plan_retention().count, memory.sweep().deleted) == (0, 0)

        assert self._state(backend) == before

    def _state(self, backend: StorageBackend) -> object:
        feed = backend.capability(FeedsChanges).last_position() if backend.has_capability(FeedsChanges) else None
        return feed, [(entry, entry.position) for entry in backend.list_all()]

    # --- sweeps ---

    def test_a_sweep_that_fails_keeps_its_batches_and_another_goes_on(
        self, backend: StorageBackend, ruled: Callable[..., MemoryModule], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(9):
            self._put(backend, str(number), 40 + number)
        self._put(backend, "new", 1)
        memory, calls = ruled(OLD_TASKS), []

        def failing(entry_id: str) -> bool:
            calls.append(entry_id)
            if len(calls) == 6:
                raise KeyError
            return type(backend).discard(memory.backend, entry_id)

        with monkeypatch.context() as patch:
            patch.setattr(memory.backend, "discard", failing)
            with pytest.raises(KeyError):
                memory.sweep(batch=2)
        left = self._ids(backend)

        taken_back = ["4"] if backend.has_capability(Transactional) else []
        assert left == ["new", *taken_back, "5", "6", "7", "8"]
        assert memory.sweep(batch=2).deleted == len(left) - 1
        assert self._ids(backend) == ["new"]

    def test_what_changed_meanwhile_is_judged_as_it_is(
        self, backend: StorageBackend, clock: FakeClock, open_backend: OpenBackend
    ) -> None:
        rule = RetentionRule(category="tasks", max_age=MONTH, keep_tags=("pin",))
        other = open_backend()
        for name in ("first", "pinned", "touched", "gone", "moved", "last"):
            self._put(backend, name, 40)

        def meanwhile() -> None:
            other.update(an_entry("pinned", category="tasks", tags=["pin"], timestamp=NOON - 2 * MONTH))
            other.update(an_entry("touched", category="tasks", tags=[], timestamp=NOON))
            other.update(an_entry("moved", category="notes", tags=[], timestamp=NOON - 2 * MONTH))
            other.delete("gone")
            self._put(other, "new", 0)

        overtaken = _Overtaken(backend, meanwhile)
        report = MemoryModule(storage_backend=overtaken, clock=clock, retention=[rule]).sweep(batch=2)
        other.shutdown()

        assert (report.deleted, overtaken.happening) == (2, [])
        assert set(self._ids(backend)) == {"pinned", "touched", "moved", "new"}

    def test_two_sweeps_at_once_delete_each_memory_once(
        self, backend: StorageBackend, clock: FakeClock, open_backend: OpenBackend
    ) -> None:
        self.need(backend, Transactional)
        with backend.capability(Transactional).transaction():
            for number in range(120):
                self._put(backend, str(number), 40 if number % 3 else 1)
        handles = [open_backend() for _ in range(3)]
        reports: list[SweepReport] = []
        modules = [MemoryModule(storage_backend=handle, clock=clock, retention=[OLD_TASKS]) for handle in handles]
        threads = [
            threading.Thread(target=lambda module=module: reports.append(module.sweep(batch=7))) for module in modules
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for handle in handles:
            handle.shutdown()

        assert sum(report.deleted for report in reports) == 80
        assert len(reports) == 3
        assert len(backend.list_all()) == 40

    def test_a_sweep_in_a_transaction_goes_with_it(
        self, backend: StorageBackend, ruled: Callable[..., MemoryModule]
    ) -> None:
        self.need(backend, Transactional)
        for number in range(5):
            self._put(backend, str(number), 40)
        memory = ruled(OLD_TASKS)

        def fail() -> None:
            with memory.transaction():
                assert memory.sweep(batch=2).deleted == 5
                raise KeyError

        with pytest.raises(KeyError):
            fail()

        assert len(backend.list_all()) == 5

    def test_every_change_of_a_sweep_is_signed_and_can_be_undone(
        self, backend: StorageBackend, ruled: Callable[..., MemoryModule], clock: FakeClock
    ) -> None:
        self.need(backend, KeepsHistory)
        for name, tags in (("a", ["tmp"]), ("b", [])):
            self._put(backend, name, 40, tags=tags)
        both = ruled(RetentionRule(category="tasks", tag="tmp", max_age=MONTH, max_entries=7), PUT_AWAY)
        both.sweep()
        deletion, archival = both.get_history("a")[0], both.get_history("b")[0]
        assert both.undo("a")  # counts as a use: its age begins here
        assert both.sweep().deleted == 0
        clock.step(days=36_500)  # after the system's time, which dates a change made through the backend
        both.sweep(module="janitor", task_id="night", reason="asked for")
        again = both.get_history("a")[0]

        assert (deletion.operation, deletion.module) == ("delete", "retention")
        assert deletion.reason == "retention: tasks tagged tmp older than 30 days or beyond the newest 7"
        assert (archival.operation, archival.reason) == ("update", "retention: tasks older than 30 days")
        assert (again.module, again.task_id, again.reason) == ("janitor", "night", "asked for")
        if backend.has_capability(FeedsChanges):
            found = [(each.operation, each.memory_id, each.reason) for each in both.changes()]
            assert ("delete", "a", "asked for") in found

    def test_the_loop_of_the_specification_is_one_line_and_still_works(
        self, backend: StorageBackend, ruled: Callable[..., MemoryModule]
    ) -> None:
        for name in ("a", "b"):
            self._put(backend, f"{name} old", 40)
            self._put(backend, f"{name} new", 1)
            memory = ruled(PUT_AWAY)
            memory.sweep()
            if name == "a":
                old = memory.search_memories(category="tasks", tags=["archived"])
                for task in old:
                    memory.delete_memory(task.id)
            else:
                ruled(RetentionRule(category="tasks", tag="archived", max_age=timedelta(0))).sweep()
            assert f"{name} old" not in self._ids(backend)

        assert self._ids(backend) == ["b new", "a new"]

    # --- again and again ---

    def test_a_sweeper_sweeps_at_once_and_again_until_it_is_stopped(
        self, backend: StorageBackend, ruled: Callable[..., MemoryModule]
    ) -> None:
        memory = ruled(OLD_TASKS)
        self._put(backend, "first", 40)
        with memory.sweep_every(0.01) as sweeper:
            _await(lambda: backend.read("first") is None)
            self._put(backend, "second", 40)
            _await(lambda: backend.read("second") is None)
            assert sweeper.is_running
        self._put(backend, "third", 40)

        assert not sweeper.is_running
        assert self._ids(backend) == ["third"]
        sweeper.stop()

    def test_a_sweeper_ends_with_the_shutdown_of_its_module(
        self, backend: StorageBackend, ruled: Callable[..., MemoryModule]
    ) -> None:
        memory = ruled(OLD_TASKS)
        sweepers = [memory.sweep_every(timedelta(days=30)), memory.sweep_every(0.001)]

        memory.shutdown()

        assert [each.is_running for each in sweepers] == [False, False]
        self._put(backend, "old", 40)
        assert memory.count_memories() == 1

    def test_a_sweep_that_fails_is_logged_and_made_again(
        self,
        backend: StorageBackend,
        ruled: Callable[..., MemoryModule],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        memory = ruled(OLD_TASKS)
        self._put(backend, "old", 40)
        failed = threading.Event()

        def failing(_: object) -> list[MemoryEntry]:
            failed.set()
            raise ZeroDivisionError("no luck")

        monkeypatch.setattr(memory.backend, "select", failing)
        with memory.sweep_every(0.01):
            assert failed.wait(10)
            monkeypatch.undo()
            _await(lambda: backend.read("old") is None)

        (first, *_) = [record for record in caplog.records if record.name == "jarvis.retention"]
        assert (first.levelname, "ZeroDivisionError: no luck" in first.getMessage()) == ("WARNING", True)

    # --- bad input ---

    @pytest.mark.parametrize(
        "fields",
        [
            {"category": None},
            {"category": "\ud800"},
            {"entity_type": 1},
            {"tag": ["x"]},
            {"max_age": 30},
            {"max_age": timedelta(seconds=-1)},
            {"max_age": timedelta(days=36_526)},
            {"max_age": None, "max_entries": None},
            {"max_entries": 0},
            {"max_entries": True},
            {"max_entries": 2**63},
            {"max_entries": "10"},
            {"action": "erase"},
            {"keep_tags": "important"},
            {"keep_tags": [1]},
            {"keep_tags": ["\ud800"]},
            {"keep_tags": [str(number) for number in range(101)]},
            {"tag": "x", "keep_tags": ["x"]},
            {"tag": "archived", "action": "archive"},
        ],
        ids=str,
    )
    def test_a_rule_that_means_nothing_is_refused(self, fields: dict[str, Any]) -> None:
        with pytest.raises(InvalidSettingError, match=r"^retention: .*"):
            RetentionRule(**{"category": "tasks", "max_age": MONTH, **fields})

    def test_what_is_no_rule_is_refused(self, backend: StorageBackend) -> None:
        for rules in (OLD_TASKS, [{"category": "tasks", "max_age": MONTH}], "tasks", None, [None]):
            with pytest.raises(InvalidSettingError, match="retention"):
                MemoryModule(storage_backend=backend, retention=rules)  # type: ignore[arg-type]  # hostile

    def test_a_plan_or_sweep_that_means_nothing_is_refused(self, memory: MemoryModule) -> None:
        attempts: tuple[Callable[[], RetentionPlan | SweepReport], ...] = (
            lambda: memory.plan_retention(examples=-1),
            lambda: memory.plan_retention(examples=True),
            lambda: memory.plan_retention(examples=10_001),
            lambda: memory.sweep(batch=0),
            lambda: memory.sweep(batch="10"),  # type: ignore[arg-type]  # hostile
            lambda: memory.sweep(batch=10_001),
        )
        for attempt in attempts:
            with pytest.raises(InvalidQueryError, match="takes a whole number"):
                attempt()
        bad: Any
        for bad in (0, -1, timedelta(0), timedelta(days=31), float("nan"), float("inf"), "1 hour", True, None):
            with pytest.raises(InvalidSettingError, match="sweep_every"):
                memory.sweep_every(bad)

    def test_a_sweep_purges_what_has_expired(self, backend: StorageBackend, later: FakeClock) -> None:
        self.need(backend, Expires)
        memory = MemoryModule(storage_backend=backend, clock=later)
        for _ in range(7):
            memory.create_memory("c", "k", {}, "t", ttl=1)
        memory.create_memory("c", "k", {}, "t")
        later.step(seconds=1)

        report = memory.sweep(batch=3)

        assert (report.purged, report.deleted, report.archived) == (7, 0, 0)
        assert memory.store.purge_expired() == 0


def _some_rule(chance: random.Random) -> RetentionRule:
    max_age = chance.choice([None, timedelta(days=20), timedelta(days=40)])
    return RetentionRule(
        category=chance.choice(["tasks", "tasks", "notes"]),
        entity_type=chance.choice([None, None, "a"]),
        tag=chance.choice([None, None, "tmp"]),
        max_age=max_age,
        max_entries=chance.choice([1, 4, 9, 30]) if max_age is None else chance.choice([None, 5]),
        action=chance.choice(["delete", "archive"]),
        keep_tags=chance.choice([(), ("pin",), ("pin", "x")]),
    )


def _meant(listed: list[MemoryEntry], rules: list[RetentionRule]) -> list[set[str]]:
    """Return the memories that each rule acts upon, by the simplest code; `listed` is newest first."""
    acted: list[set[str]] = []
    for rule in rules:
        governed = [
            entry
            for entry in listed
            if entry.category == rule.category
            and rule.entity_type in (None, entry.entity_type)
            and (rule.tag is None or rule.tag in entry.tags)
            and not set(rule.keep_tags) & set(entry.tags)
            and not (rule.action == "archive" and "archived" in entry.tags)
            and not any(entry.id in ids for ids in acted)
        ]
        doomed = set() if rule.max_entries is None else {entry.id for entry in governed[rule.max_entries :]}
        if rule.max_age is not None:
            doomed |= {entry.id for entry in governed if entry.timestamp < NOON - rule.max_age}
        acted.append(doomed)
    return acted


def _await(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)
