"""Promises of policies by category: the usual ttl."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from jarvis.capabilities import Expires, Namespaced, Transactional
from jarvis.conformance.fixtures import FakeClock, Promises
from jarvis.errors import UnsupportedError
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

    def test_a_usual_ttl_needs_a_backend_with_expiry(self, governed: Governed, backend: StorageBackend) -> None:
        if backend.has_capability(Expires):
            pytest.skip("the backend has it")

        with pytest.raises(UnsupportedError, match="expiry"):
            governed(CategoryPolicy("c", ttl=_HOUR))
