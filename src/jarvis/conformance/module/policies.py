"""Promises of policies by category: bounds, and the usual ttl."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from jarvis.capabilities import Expires, FeedsChanges, KeepsHistory, Namespaced, Transactional
from jarvis.conformance.fixtures import NOON, FakeClock, OpenBackend, Promises, an_entry
from jarvis.errors import InvalidEntryError, UnsupportedError
from jarvis.model.marks import NEVER
from jarvis.persistent_memory import CategoryPolicy, MemoryModule
from jarvis.storage_backend import StorageBackend

_HOUR = timedelta(hours=1)
Governed = Callable[..., MemoryModule]


class PolicyPromises(Promises):
    """A module keeps its policies at each write."""

    @pytest.fixture
    def governed(self, backend: StorageBackend, clock: FakeClock) -> Governed:
        """Return a function that makes a module with these policies, on the one backend."""
        return lambda *policies: MemoryModule(backend, policies=policies, clock=clock)

    def test_a_new_memory_gets_the_ttl_of_its_category(
        self, governed: Governed, backend: StorageBackend, clock: FakeClock
    ) -> None:
        self.need(backend, Expires)
        memory = governed(CategoryPolicy("short", ttl=_HOUR), CategoryPolicy("*", ttl=3 * _HOUR))

        ids = [
            memory.create_memory("short", "a", {}, "t"),
            memory.create_memory("short", "b", {}, "t", ttl=2 * _HOUR),
            memory.create_memory("short", "c", {}, "t", expires_at=clock.now + 5 * _HOUR),
            memory.create_memory("short", "d", {}, "t", ttl=NEVER),
            memory.record_task("1", {}),
            *memory.create_memories([{"category": "short", "key": "e", "value": {}, "entity_type": "t"}]),
            *memory.create_memories([{"category": "short", "key": "f", "value": {}, "entity_type": "t", "ttl": NEVER}]),
        ]

        entries = [memory.get_memory(memory_id) for memory_id in ids]
        hours = [1, 2, 5, None, 3, 1, None]
        assert [entry.expires_at for entry in entries if entry] == [
            None if number is None else clock.now + number * _HOUR for number in hours
        ]

    def test_only_an_upsert_that_creates_gives_the_usual_ttl(
        self, governed: Governed, backend: StorageBackend, clock: FakeClock
    ) -> None:
        for protocol in (Expires, Transactional):
            self.need(backend, protocol)
        forever = governed().set_user_preference("old", {})
        memory = governed(CategoryPolicy("preferences", ttl=_HOUR))

        ids = [memory.set_user_preference(key, {"n": 1}) for key in ("old", "new")]
        clock.step(minutes=30)
        memory.upsert_memories([{"category": "preferences", "key": "new", "value": {"n": 2}}])
        memory.update_memory(ids[1], {"n": 3})
        expiries = [entry.expires_at for entry in memory.get_memories(ids)]
        clock.step(minutes=30)
        again = memory.set_user_preference("new", {"n": 4})

        assert (ids[0], expiries) == (forever, [None, clock.now])
        assert again != ids[1]
        assert [entry.expires_at for entry in memory.get_memories([again])] == [clock.now + _HOUR]

    def test_siblings_of_other_namespaces_have_the_policies(
        self, governed: Governed, backend: StorageBackend, clock: FakeClock
    ) -> None:
        for protocol in (Expires, Namespaced):
            self.need(backend, protocol)
        sibling = governed(CategoryPolicy("c", ttl=_HOUR)).for_namespace("alice")

        sibling.create_memory("c", "k", {}, "t")
        sibling.create_memory("other", "k", {}, "t")

        assert [entry.expires_at for entry in sibling.list_memories()] == [None, clock.now + _HOUR]

    # --- bounds ---

    def _keys(self, memory: MemoryModule, category: str = "c") -> list[str]:
        return sorted(entry.key for entry in memory.get_memories_by_category(category))

    def _fill(self, memory: MemoryModule, count: int, **more: Any) -> list[str]:
        return [memory.create_memory("c", f"k{number}", {"n": number}, "t", **more) for number in range(count)]

    def test_a_write_deletes_what_was_written_longest_ago(
        self, governed: Governed, backend: StorageBackend, clock: FakeClock
    ) -> None:
        memory = governed(CategoryPolicy("c", max_entries=3))
        ids = self._fill(memory, 3)
        memory.update_memory(ids[0], {"n": 7})
        clock.step(minutes=1)
        other = [memory.create_memory("other", "k", {}, "t") for _ in range(5)]

        late = memory.create_memory("c", "late", {}, "t", timestamp=NOON - timedelta(days=9), module="m", task_id="7")

        by_time = memory.get_memory(late).position is None  # type: ignore[union-attr]  # it was just stored
        assert by_time or self._keys(memory) == ["k0", "k2", "late"]
        assert "late" in self._keys(memory)
        assert memory.count_memories("other") == len(other)
        if backend.has_capability(KeepsHistory):
            (removal,) = memory.get_history(ids[1])
            reason = "policy of c: c beyond the 3 written last"
            assert (removal.operation, removal.module, removal.task_id, removal.reason) == ("delete", "m", "7", reason)
        if backend.has_capability(FeedsChanges):
            assert [(each.operation, each.key) for each in memory.changes()][-2:] == [
                ("create", "late"),
                ("delete", "k1"),
            ]

    def test_every_verb_that_writes_keeps_the_bounds(self, governed: Governed, backend: StorageBackend) -> None:
        for protocol in (Transactional, KeepsHistory, FeedsChanges):
            self.need(backend, protocol)
        free, memory = governed(), governed(CategoryPolicy("*", max_entries=2, keep_tags=("pin",)))

        def overfull() -> list[str]:
            free.clear_all()
            return self._fill(free, 4)

        item = {"category": "c", "key": "k3", "value": {}, "entity_type": "t"}
        calls: dict[str, Callable[[list[str]], object]] = {
            "create": lambda _: memory.create_memory("c", "k3", {}, "t"),
            "create many": lambda _: memory.create_memories([item, item]),
            "upsert": lambda _: memory.upsert_memory("c", "k3", {}),
            "upsert what is stored": lambda _: memory.upsert_memory("c", "k3", {"n": 3}),
            "upsert many": lambda _: memory.upsert_memories([item]),
            "update": lambda ids: memory.update_memory(ids[3], {}),
            "merge": lambda ids: memory.merge_memory(ids[3], {"m": 1}),
            "modify": lambda ids: memory.modify_memory(ids[3], lambda value: value),
            "move": lambda ids: memory.move_memory(ids[3], key="k4"),
            "restore": lambda ids: free.delete_memory(ids[3]) and memory.restore_memory(ids[3], 1),
            "undo": lambda ids: free.delete_memory(ids[3]) and memory.undo(ids[3]),
            "undo a change": lambda ids: (
                free.delete_memories(ids=ids[2:]),
                memory.undo_change(free.newest_cursor()),
            ),
        }
        for name, call in calls.items():
            ids = overfull()
            call(ids)
            assert memory.count_memories("c") == 2, name
            assert memory.get_memory(ids[0]) is memory.get_memory(ids[1]) is None, name

    def test_a_memory_that_is_set_to_what_it_is_stays(self, governed: Governed, backend: StorageBackend) -> None:
        self.need(backend, Transactional)
        self._fill(governed(), 4)

        governed(CategoryPolicy("c", max_entries=2)).upsert_memory("c", "k0", {"n": 0})

        assert "k0" in self._keys(governed())

    def test_preferences_tasks_and_moves_keep_the_bounds_of_their_categories(
        self, governed: Governed, backend: StorageBackend
    ) -> None:
        self.need(backend, Transactional)
        memory = governed(CategoryPolicy("*", max_entries=2), CategoryPolicy("tasks", max_entries=1))
        for number in range(3):
            memory.set_user_preference(f"p{number}", {})
            memory.record_task(f"{number}", {})
        ids = [memory.create_memory(f"from-{number}", f"k{number}", {}, "t") for number in range(3)]

        for memory_id in ids:
            memory.move_memory(memory_id, category="to")

        assert sorted(memory.get_user_preferences()) == ["p1", "p2"]
        assert self._keys(memory, "tasks") == ["task_2"]
        assert self._keys(memory, "to") == ["k1", "k2"]

    def test_bytes_are_bounded_and_the_pinned_and_the_expired_do_not_count(
        self, governed: Governed, backend: StorageBackend, clock: FakeClock
    ) -> None:
        self.need(backend, Expires)
        text = {"text": "ä" * 300}
        size = backend.size_of(an_entry("1", value=text, tags=[], provenance={}))
        memory = governed(CategoryPolicy("c", max_bytes=3 * size + 600, keep_tags=("pin", "keep")))
        memory.create_memory("c", "k0", {"text": "ä" * 9_000}, "t", tags=["x", "pin"])
        memory.create_memory("c", "k1", text, "t", ttl=60)
        clock.step(minutes=2)

        for number in range(2, 5):
            memory.create_memory("c", f"k{number}", text, "t")
        before = self._keys(memory)
        memory.create_memory("c", "k5", text, "t")

        assert before == ["k0", "k2", "k3", "k4"]
        assert self._keys(memory) == ["k0", "k3", "k4", "k5"]

    def test_what_is_larger_than_all_of_its_category_is_refused(
        self, governed: Governed, backend: StorageBackend
    ) -> None:
        memory = governed(CategoryPolicy("c", max_bytes=600, keep_tags=("pin",)))
        large = {"n": list(range(1_000))}
        ids = self._fill(memory, 2)
        item = {"category": "c", "key": "k", "value": large, "entity_type": "t"}

        calls: list[Callable[[], object]] = [
            lambda: memory.create_memory("c", "k", large, "t"),
            lambda: memory.update_memory(ids[0], large),
            lambda: memory.create_memories([{**item, "value": {}}, item]),
        ]
        if backend.has_capability(Transactional):
            calls.append(lambda: memory.upsert_memory("c", "k0", large))
            calls.append(lambda: memory.upsert_memories([{**item, "value": {}}, item]))
        if backend.has_capability(KeepsHistory):
            MemoryModule(backend).update_memory(ids[1], large)
            MemoryModule(backend).update_memory(ids[1], {"n": 1})
            calls.append(lambda: memory.undo(ids[1]))
        for call in calls:
            with pytest.raises(InvalidEntryError, match=r"value: makes a memory of [\d,]+ bytes, .* max_bytes=600;"):
                call()

        assert sorted(entry.value["n"] for entry in memory.get_memories_by_category("c")) == [0, 1]
        assert memory.create_memory("c", "k", large, "t", tags=["pin"])

    def test_bounds_are_kept_in_the_transaction_of_the_write(self, governed: Governed, store: Any) -> None:
        memory = governed(CategoryPolicy("c", max_entries=2))
        ids = self._fill(memory, 2)

        with memory.transaction():
            memory.create_memory("c", "new", {}, "t")
            inside = self._keys(memory)
            with contextlib.suppress(ZeroDivisionError), memory.transaction():
                memory.create_memory("c", "newer", {}, "t")
                raise ZeroDivisionError
        kept = self._keys(memory)
        with contextlib.suppress(ZeroDivisionError), memory.transaction():
            memory.create_memory("c", "newest", {}, "t")
            raise ZeroDivisionError

        assert inside == kept == self._keys(memory) == ["k1", "new"]
        assert store.beyond("c", CategoryPolicy("c", max_entries=1)) == [ids[1]]

    def test_what_a_policy_deleted_comes_back_as_the_last_one_written(
        self, governed: Governed, backend: StorageBackend
    ) -> None:
        self.need(backend, KeepsHistory)
        memory = governed(CategoryPolicy("c", max_entries=2))
        ids = self._fill(memory, 3)

        memory.undo(ids[0])

        assert self._keys(memory) == ["k0", "k2"]

    def test_two_handles_keep_one_bound(
        self, governed: Governed, open_backend: OpenBackend, backend: StorageBackend
    ) -> None:
        self.need(backend, Transactional)
        policies = [CategoryPolicy("c", max_entries=2)]
        one, two = governed(*policies), MemoryModule(open_backend(), policies=policies)

        for number in range(4):
            (one, two)[number % 2].create_memory("c", f"k{number}", {}, "t")
        found = self._keys(one), self._keys(two)
        two.shutdown()

        assert found == (["k2", "k3"],) * 2

    def test_a_backend_finds_what_a_policy_has_no_room_for_as_the_default_does(self, backend: StorageBackend) -> None:
        for number in range(12):
            tags = ["pin"] if number % 4 == 1 else ["x"]
            timestamp, value = NOON - timedelta(hours=number), {"text": "x" * 900 * (number % 3)}
            category = "c" if number % 6 else "other"
            entry = an_entry(f"{number}", category=category, tags=tags, timestamp=timestamp, value=value)
            backend.create(entry)
        backend.update(an_entry("2", category="c", tags=[], timestamp=NOON + timedelta(hours=1)))

        for policy in (
            CategoryPolicy("c", max_entries=3),
            CategoryPolicy("c", max_entries=3, keep_tags=("pin", "none")),
            CategoryPolicy("c", max_bytes=1_500),
            CategoryPolicy("c", max_bytes=1_500, max_entries=2, keep_tags=("pin",)),
            CategoryPolicy("c", max_entries=99, max_bytes=99_999),
        ):
            for category in ("c", "other", "none"):
                expected = StorageBackend.beyond(backend, category, policy)
                assert backend.beyond(category, policy) == expected, policy

    # --- what it needs ---

    def test_a_usual_ttl_needs_a_backend_with_expiry(self, governed: Governed, backend: StorageBackend) -> None:
        if backend.has_capability(Expires):
            pytest.skip("the backend has it")

        with pytest.raises(UnsupportedError, match="expiry"):
            governed(CategoryPolicy("c", ttl=_HOUR))
