"""Promises of `MemoryModule` on any backend: the specification's own API."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from jarvis.capabilities import (
    BacksUp,
    Compresses,
    Encrypts,
    Erases,
    Expires,
    FeedsChanges,
    KeepsHistory,
    Namespaced,
    Transactional,
)
from jarvis.conformance.fixtures import NOON, FakeClock, OpenBackend, Promises, an_entry
from jarvis.conformance.values import exploding, identical
from jarvis.errors import InvalidEntryError, InvalidQueryError, UnsupportedError
from jarvis.persistent_memory import MemoryModule
from jarvis.storage_backend import StorageBackend

_VERBS: dict[type, tuple[Callable[[MemoryModule], object], ...]] = {
    Transactional: (
        lambda memory: memory.transaction(),
        lambda memory: memory.upsert_memory("c", "k", {}),
        lambda memory: memory.create_memory("c", "k", {}, "t", if_absent=True),
    ),
    Namespaced: (lambda memory: memory.for_namespace("alice"), lambda memory: memory.store.list_namespaces()),
    KeepsHistory: (
        lambda memory: memory.get_history("1"),
        lambda memory: memory.undo("1"),
        lambda memory: memory.count_memories(as_of=NOON),
    ),
    Expires: (
        lambda memory: memory.create_memory("c", "k", {}, "t", ttl=60),
        lambda memory: memory.touch_memory("1", ttl=60),
        lambda memory: memory.store.purge_expired(),
    ),
    Erases: (lambda memory: memory.erase_memory("1"), lambda memory: memory.store.erase_namespace("alice")),
    FeedsChanges: (lambda memory: memory.changes(), lambda memory: memory.newest_cursor()),
    BacksUp: (lambda memory: memory.store.back_up("copy"),),
    Encrypts: (lambda memory: memory.store.key_slots(), lambda memory: memory.store.encrypt()),
    Compresses: (lambda memory: memory.store.recompress(),),
}
"""Verbs of the module that need a capability."""


class ModulePromises(Promises):
    """Preferences, device, tasks, provenance, time, upserts, refusals."""

    def test_a_memory_has_the_documented_provenance(self, memory: MemoryModule) -> None:
        memory_id = memory.create_memory("c", "k", {}, "t")
        full_id = memory.create_memory("c", "k", {}, "t", "e", ["tag"], "m", "task")

        entry, full = memory.get_memory(memory_id), memory.get_memory(full_id)

        assert entry is not None
        assert full is not None
        assert entry.provenance == {"module": "unknown", "task_id": "none", "created_at": NOON.isoformat()}
        assert (full.provenance["module"], full.provenance["task_id"]) == ("m", "task")
        assert (entry.tags, entry.entity_id, entry.timestamp) == ([], None, NOON)

    def test_an_update_refreshes_the_timestamp_and_names_its_author(
        self, memory: MemoryModule, clock: FakeClock
    ) -> None:
        memory_id = memory.create_memory("c", "k", {"a": 1}, "t", tags=["x"], module="maker")
        clock.step(hours=1)

        assert memory.update_memory(memory_id, {"a": 2}, module="changer") is True

        entry = memory.get_memory(memory_id)
        assert entry is not None
        assert (entry.value, entry.tags, entry.timestamp) == ({"a": 2}, ["x"], NOON + timedelta(hours=1))
        assert entry.provenance == {
            "module": "maker",
            "task_id": "none",
            "created_at": NOON.isoformat(),
            "updated_at": (NOON + timedelta(hours=1)).isoformat(),
            "updated_by": "changer",
        }

    def test_an_update_keeps_tags_that_are_none_and_clears_empty_ones(self, memory: MemoryModule) -> None:
        memory_id = memory.create_memory("c", "k", {}, "t", tags=["x"])

        memory.update_memory(memory_id, {"n": 1})
        kept = memory.get_memories_by_tags(["x"])
        memory.update_memory(memory_id, {"n": 1}, [])

        assert [entry.tags for entry in kept] == [["x"]]
        assert memory.get_memories_by_tags(["x"]) == []

    def test_updating_or_deleting_an_absent_id_returns_false(self, memory: MemoryModule) -> None:
        memory_id = memory.create_memory("c", "k", {}, "t")

        assert memory.update_memory("absent", {}) is False
        assert memory.delete_memory("absent") is False
        assert memory.delete_memory(memory_id) is True
        assert memory.delete_memory(memory_id) is False
        assert memory.get_memory(memory_id) is None

    def test_a_key_finds_the_newest_memory_in_any_category(self, memory: MemoryModule, clock: FakeClock) -> None:
        memory.create_memory("a", "k", {"n": 1}, "t")
        clock.step(seconds=1)
        newest = memory.create_memory("b", "k", {"n": 2}, "t")

        found = memory.get_memory_by_key("k")

        assert found is not None
        assert found.id == newest
        assert memory.get_memory_by_key("absent") is None

    def test_a_key_and_a_category_find_the_newest_memory_there(self, memory: MemoryModule, clock: FakeClock) -> None:
        for category in ("a", "a", "b"):
            wanted = memory.create_memory(category, "k", {}, "t")
            clock.step(seconds=1)
            if category == "a":
                newest = wanted

        entry = memory.get_memory_by_key("k", "a")

        assert entry is not None
        assert entry.id == newest
        assert memory.get_memory_by_key("k", "absent") is None

    def test_one_preference_is_the_one_among_all(self, memory: MemoryModule, clock: FakeClock) -> None:
        for number in (1, 2):
            memory.create_memory("preferences", "theme", {"n": number}, "user_preference")
            clock.step(seconds=1)
        memory.record_task("1", {"status": "completed"})

        assert memory.get_user_preference("theme") == memory.get_user_preferences()["theme"] == {"n": 2}
        assert memory.get_user_preference("task_1") is None
        assert memory.get_user_preference("task_1", {"n": 0}) == {"n": 0}

    def test_a_deleted_preference_is_gone_with_all_of_its_key(self, memory: MemoryModule) -> None:
        for number in (1, 2):
            memory.create_memory("preferences", "theme", {"n": number}, "user_preference")
        memory.create_memory("notes", "theme", {}, "note")
        memory.set_user_preference("volume", {"level": 3})

        assert memory.delete_user_preference("theme") is True

        assert memory.get_user_preferences() == {"volume": {"level": 3}}
        assert memory.get_memory_by_key("theme", "notes") is not None
        assert memory.delete_user_preference("theme") is False

    def test_a_preference_is_one_entry_however_often_it_is_set(self, memory: MemoryModule) -> None:
        first = memory.set_user_preference("theme", {"mode": "dark"})
        second = memory.set_user_preference("theme", {"mode": "light"})
        memory.set_user_preference("volume", {"level": 3})

        entry = memory.get_memory(first)
        assert first == second
        assert entry is not None
        assert (entry.entity_type, entry.provenance["module"]) == ("user_preference", "preferences_manager")
        assert entry.provenance["updated_by"] == "preferences_manager"
        assert memory.get_user_preferences() == {"theme": {"mode": "light"}, "volume": {"level": 3}}

    def test_a_preference_touches_no_task_or_device_of_the_same_key(self, memory: MemoryModule) -> None:
        memory.record_task("1", {"status": "completed"})
        memory.set_device_info({"name": "laptop"})

        memory.set_user_preference("task_1", {"mine": True})
        memory.set_user_preference("device_info", {"mine": True})

        assert [entry.value for entry in memory.get_task_history()] == [{"status": "completed"}]
        assert memory.get_device_info() == {"name": "laptop"}
        assert memory.get_user_preferences() == {"task_1": {"mine": True}, "device_info": {"mine": True}}

    def test_of_two_preferences_with_one_key_the_newest_counts(self, memory: MemoryModule, clock: FakeClock) -> None:
        for number in (1, 2):
            memory.create_memory("preferences", "theme", {"n": number}, "user_preference")
            clock.step(seconds=1)

        assert memory.get_user_preferences() == {"theme": {"n": 2}}

    def test_what_is_set_now_is_read_next_whatever_timestamps_lie_ahead(
        self, memory: MemoryModule, backend: StorageBackend
    ) -> None:
        for number in (1, 2):
            ahead = NOON + timedelta(days=36500 - number)
            backend.create(an_entry(str(number), category="preferences", key="theme", timestamp=ahead))

        memory.set_user_preference("theme", {"mode": "set now"})

        assert memory.get_user_preferences() == {"theme": {"mode": "set now"}}

    def test_the_device_is_one_entry(self, memory: MemoryModule) -> None:
        assert memory.get_device_info() == {}

        memory.set_device_info({"name": "laptop", "os": "linux"})
        memory.set_device_info({"name": "desktop"})

        (entry,) = memory.get_memories_by_category("devices")
        assert memory.get_device_info() == {"name": "desktop"}
        assert (entry.key, entry.entity_type, entry.provenance["module"]) == ("device_info", "device", "device_manager")

    def test_a_task_record_has_the_documented_form(self, memory: MemoryModule, clock: FakeClock) -> None:
        memory.record_task("1", {"status": "completed"})
        clock.step(seconds=1)
        memory.record_task("2", {"status": "failed"}, tags=["failed"])
        clock.step(seconds=1)
        memory.record_task("3", {}, tags=[])

        third, second, first = memory.get_task_history()

        assert (first.key, first.entity_type, first.entity_id, first.tags) == ("task_1", "task", "1", ["executed"])
        assert (first.provenance["module"], first.provenance["task_id"]) == ("task_executor", "1")
        assert (second.tags, third.tags) == (["failed"], [])
        assert memory.get_task_history(limit=1) == [third]
        assert memory.get_task_history(limit=0) == []
        assert memory.get_memories_by_entity("task", entity_id="2") == [second]

    def test_a_task_whose_result_cannot_be_stored_can_be_recorded_in_words(self, memory: MemoryModule) -> None:
        class Answer:
            def __repr__(self) -> str:
                return "the answer" * 1_000

        class Silent:
            def __repr__(self) -> str:
                raise LookupError

        fine = {"at": NOON, "pair": (1, {2.5})}
        result: dict[Any, Any] = {"fine": fine, 1: Answer(), "list": [Silent(), {3j}, exploding(dict)]}
        endless: dict[str, Any] = {"status": "completed"}
        endless["self"] = endless

        with pytest.raises(InvalidEntryError):
            memory.record_task("1", {"status": "completed", "result": result})
        memory.record_task("1", {"status": "completed", "result": result}, on_unstorable="repr")
        memory.record_task("2", endless, on_unstorable="repr")
        memory.record_task("3", fine, on_unstorable="repr")

        third, second, first = memory.get_task_history()
        assert first.value["status"] == second.value["status"] == "completed"
        assert identical(first.value["result"]["fine"], fine)
        assert identical(third.value, fine)
        answer = first.value["result"]["1"]
        assert (len(answer), answer[:10], answer[-1]) == (1_001, "the answer", "…")
        assert first.value["result"]["list"][:2] == ["<Silent object>", "{3j}"]
        assert second.value["self"] == "<dict object>"
        with pytest.raises(InvalidQueryError, match="on_unstorable"):
            memory.record_task("4", {}, on_unstorable="str")  # type: ignore[arg-type]  # hostile
        with pytest.raises(InvalidEntryError, match="value"):
            memory.record_task("4", object(), on_unstorable="repr")  # type: ignore[arg-type]  # hostile

    def test_module_timestamps_grow_while_the_clock_stands_or_goes_back(
        self, memory: MemoryModule, clock: FakeClock
    ) -> None:
        ids = []
        for step in (0, 0, -3600, 0, 7200):
            clock.step(seconds=step)
            ids.append(memory.create_memory("c", "k", {}, "t"))

        listed = memory.list_memories()

        assert [entry.id for entry in listed] == ids[::-1]
        assert len({entry.timestamp for entry in listed}) == 5
        assert listed[0].timestamp == NOON + timedelta(hours=1)

    def test_acting_as_names_the_author_of_a_block(self, memory: MemoryModule) -> None:
        with memory.acting_as(module="planner", task_id="t-1"):
            with memory.acting_as(module="executor"):
                inner = memory.create_memory("c", "k", {}, "t")
            outer = memory.create_memory("c", "k", {}, "t")
            own = memory.create_memory("c", "k", {}, "t", module="self")
        after = memory.create_memory("c", "k", {}, "t")

        authors = []
        for memory_id in (inner, outer, own, after):
            entry = memory.get_memory(memory_id)
            assert entry is not None
            authors.append((entry.provenance["module"], entry.provenance["task_id"]))
        assert authors == [("executor", "t-1"), ("planner", "t-1"), ("self", "t-1"), ("unknown", "none")]

    def test_clear_all_removes_and_counts_everything(self, memory: MemoryModule) -> None:
        for number in range(3):
            memory.record_task(str(number), {})

        assert memory.clear_all() == 3
        assert memory.list_memories() == []
        assert memory.clear_all() == 0

    def test_an_empty_memory_is_truthy(self, memory: MemoryModule) -> None:
        assert memory

    def test_a_refused_memory_costs_nothing_that_was_there(self, memory: MemoryModule) -> None:
        memory_id = memory.create_memory("c", "k", {"a": 1}, "t")
        bad: Any = {"a": object()}
        for attempt in (
            lambda: memory.create_memory("c", "k", bad, "t"),
            lambda: memory.create_memory(None, "k", {}, "t"),  # type: ignore[arg-type]  # hostile
            lambda: memory.create_memory("c", "k", {}, "t", tags="ui"),
            lambda: memory.create_memory("c", "k", {}, "t", module=1),  # type: ignore[arg-type]  # hostile
            lambda: memory.update_memory(memory_id, bad),
            lambda: memory.update_memory(memory_id, {}, tags=[None]),  # type: ignore[list-item]  # hostile
            lambda: memory.set_user_preference("theme", "dark"),  # type: ignore[arg-type]  # hostile
            lambda: memory.set_user_preference("theme", None),  # type: ignore[arg-type]  # hostile
            lambda: memory.set_user_preference(None, {}),  # type: ignore[arg-type]  # hostile
            lambda: memory.record_task(None, {}),  # type: ignore[arg-type]  # hostile
            lambda: memory.set_device_info([1]),  # type: ignore[arg-type]  # hostile
        ):
            with pytest.raises(InvalidEntryError):
                attempt()

        (entry,) = memory.list_memories()
        assert (entry.id, entry.value) == (memory_id, {"a": 1})

    def test_no_verb_lets_a_value_explode(self, memory: MemoryModule) -> None:
        memory_id = memory.create_memory("c", "k", {"a": 1}, "t")
        part: Any = exploding(dict)
        bad = {"v": part}
        attempts: list[Callable[[], object]] = [
            lambda: memory.create_memory("c", "k", bad, "t"),
            lambda: memory.update_memory(memory_id, bad),
            lambda: memory.merge_memory(memory_id, bad),
            lambda: memory.merge_memory(memory_id, {"v": exploding(list)}),
            lambda: memory.modify_memory(memory_id, lambda _: bad),
            lambda: memory.set_user_preference("theme", bad),
            lambda: memory.set_device_info(bad),
            lambda: memory.record_task("1", bad),
        ]
        if memory.backend.has_capability(Transactional):
            attempts.append(lambda: memory.upsert_memory("c", "k", bad))
        for attempt in attempts:
            with pytest.raises(InvalidEntryError, match="shared parts") as caught:
                attempt()
            assert caught.value.field == "value"

        (entry,) = memory.list_memories()
        assert (entry.id, entry.value) == (memory_id, {"a": 1})

    def test_a_value_is_checked_before_the_writers_lock_is_waited_for(
        self, memory: MemoryModule, backend: StorageBackend, open_backend: OpenBackend
    ) -> None:
        self.need(backend, Transactional)
        memory_id = memory.create_memory("c", "k", {"a": 1}, "t")
        bad: Any = {"a": object()}
        other = open_backend()

        with other.capability(Transactional).transaction():
            for attempt in (
                lambda: memory.create_memory("c", "k", bad, "t"),
                lambda: memory.upsert_memory("c", "k", bad),
                lambda: memory.update_memory(memory_id, bad),
                lambda: memory.set_user_preference("theme", bad),
                lambda: memory.set_device_info(bad),
                lambda: memory.record_task("1", bad),
                lambda: memory.merge_memory(memory_id, {"v": exploding(dict)}),
            ):
                with pytest.raises(InvalidEntryError):
                    attempt()

        other.shutdown()

    def test_a_question_that_means_nothing_is_refused(self, memory: MemoryModule) -> None:
        for ask in (
            lambda: memory.get_memory(None),  # type: ignore[arg-type]  # hostile
            lambda: memory.get_memory_by_key(1),  # type: ignore[arg-type]  # hostile
            lambda: memory.get_memories_by_category(None),  # type: ignore[arg-type]  # hostile
            lambda: memory.get_memories_by_entity(None),  # type: ignore[arg-type]  # hostile
            lambda: memory.get_memories_by_tags("ui"),
            lambda: memory.get_task_history(limit=-1),
            lambda: memory.search_memories(where={"a": {"$like": "b"}}),
        ):
            with pytest.raises(InvalidQueryError):
                ask()

    def test_an_upsert_creates_once_and_then_updates(self, memory: MemoryModule, backend: StorageBackend) -> None:
        self.need(backend, Transactional)

        first = memory.upsert_memory("tools", "ls", {"n": 1}, "tool", "ls", ["learned"], module="a")
        second = memory.upsert_memory("tools", "ls", {"n": 2}, module="b")

        (entry,) = memory.list_memories()
        assert first == second == entry.id
        assert (entry.value, entry.tags, entry.entity_type, entry.version) == ({"n": 2}, ["learned"], "tool", 2)
        assert entry.provenance["updated_by"] == "b"

    def test_upserts_of_one_key_by_many_threads_leave_one_entry(
        self, backend: StorageBackend, open_backend: OpenBackend
    ) -> None:
        self.need(backend, Transactional)
        handles = [open_backend() for _ in range(4)]
        errors: list[BaseException] = []

        def upsert(place: int, handle: StorageBackend) -> None:
            try:
                for number in range(10):
                    MemoryModule(storage_backend=handle).set_user_preference("theme", {"n": number, "by": place})
            except BaseException as error:  # noqa: BLE001 - shown by the assertion
                errors.append(error)

        threads = [threading.Thread(target=upsert, args=each) for each in enumerate(handles)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for handle in handles:
            handle.shutdown()

        assert errors == []
        assert [(entry.key, entry.version) for entry in backend.list_all()] == [("theme", 40)]

    def test_a_namespace_of_a_module_is_a_memory_of_its_own(
        self, memory: MemoryModule, backend: StorageBackend
    ) -> None:
        self.need(backend, Namespaced)
        alice = memory.for_namespace("alice")

        memory.set_user_preference("theme", {"mode": "dark"})
        alice.set_user_preference("theme", {"mode": "light"})

        assert memory.get_user_preferences() == {"theme": {"mode": "dark"}}
        assert alice.get_user_preferences() == {"theme": {"mode": "light"}}
        assert (memory.namespace, alice.namespace, memory.store.list_namespaces()) == (
            "default",
            "alice",
            ["alice", "default"],
        )

    def test_a_missing_capability_is_said_with_the_backends_that_have_it(
        self, memory: MemoryModule, backend: StorageBackend
    ) -> None:
        lacking = [protocol for protocol in _VERBS if not backend.has_capability(protocol)]
        if not lacking:
            pytest.skip("the backend lacks nothing")
        for protocol in lacking:
            for verb in _VERBS[protocol]:
                with pytest.raises(UnsupportedError, match=r"\bsqlite$") as caught:
                    verb(memory)
                assert str(caught.value).startswith(f"the backend {backend.name!r} has no ")
