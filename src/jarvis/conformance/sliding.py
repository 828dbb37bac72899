"""Promises of expiry that slides: reads by id and key let a ttl begin again, without a change and without waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from jarvis.capabilities import FeedsChanges, KeepsHistory, Namespaced, Slides, Transactional
from jarvis.conformance.fixtures import FakeClock, OpenBackend, Promises
from jarvis.errors import InvalidEntryError
from jarvis.model.entry import MemoryEntry
from jarvis.model.marks import NEVER
from jarvis.persistent_memory import MemoryModule
from jarvis.storage_backend import StorageBackend

TTL = timedelta(minutes=10)


class SlidingPromises(Promises):
    """Expiry that slides."""

    @pytest.fixture
    def sliding(self, backend: StorageBackend, later: FakeClock) -> MemoryModule:
        """Return a module on a backend whose expiry slides."""
        self.need(backend, Slides)
        return MemoryModule(storage_backend=backend, clock=later)

    def _sliding_one(self, memory: MemoryModule) -> str:
        return memory.create_memory("preferences", "theme", {"n": 1}, "t", tags=["x"], ttl=TTL, sliding=True)

    def _end_of_all(self, memory: MemoryModule) -> Any:
        (entry,) = memory.list_memories()  # which renews nothing
        return entry.expires_at

    @pytest.mark.parametrize(
        "read",
        [
            lambda memory, memory_id: memory.get_memory(memory_id),
            lambda memory, _: memory.get_memory_by_key("theme"),
            lambda memory, _: memory.get_memory_by_key("theme", "preferences"),
            lambda memory, _: memory.get_user_preference("theme"),
        ],
    )
    def test_a_read_by_id_or_key_lets_the_ttl_begin_again(
        self, sliding: MemoryModule, later: FakeClock, read: Callable[[MemoryModule, str], object]
    ) -> None:
        memory_id, made = self._sliding_one(sliding), later.now
        later.now += timedelta(seconds=59)
        read(sliding, memory_id)
        assert self._end_of_all(sliding) == made + TTL  # not yet a tenth

        for _ in range(5):
            later.now += timedelta(minutes=9)
            found = read(sliding, memory_id)
            assert found is not None
            if isinstance(found, MemoryEntry):
                assert found.expires_at == later.now + TTL
            assert self._end_of_all(sliding) == later.now + TTL
        later.now += TTL
        assert read(sliding, memory_id) is None

    def test_nothing_else_tells_of_it(self, sliding: MemoryModule, later: FakeClock, open_backend: OpenBackend) -> None:
        memory_id = self._sliding_one(sliding)
        before = sliding.get_memory(memory_id)
        has_feed = sliding.backend.has_capability(FeedsChanges)
        cursor = sliding.newest_cursor() if has_feed else ""
        later.now += timedelta(minutes=5)
        after = sliding.get_memory(memory_id)

        assert before is not None
        assert after is not None
        assert after != before
        before.expires_at = after.expires_at
        assert after == before
        assert after.position == before.position
        if has_feed:
            assert sliding.changes(cursor) == []
        if sliding.backend.has_capability(KeepsHistory):
            assert sliding.get_history(memory_id) == []
        other = MemoryModule(storage_backend=open_backend(), clock=later)
        assert other.list_memories() == [after]
        assert sliding.update_memory(memory_id, {"n": 2})
        again = sliding.get_memory(memory_id)
        assert again is not None
        assert (again.ttl, again.sliding, again.version) == (TTL, True, 2)

    def test_lists_and_the_past_renew_nothing(self, sliding: MemoryModule, later: FakeClock) -> None:
        memory_id, made = self._sliding_one(sliding), later.now
        later.now += timedelta(minutes=5)
        sliding.search_memories(key="theme")
        sliding.get_memories([memory_id])
        if sliding.backend.has_capability(KeepsHistory):
            assert sliding.get_memory(memory_id, as_of=later.now) is not None
            assert sliding.get_memory_by_key("theme", as_of=later.now) is not None
        assert self._end_of_all(sliding) == made + TTL

    def test_a_read_waits_for_no_writer(
        self, sliding: MemoryModule, later: FakeClock, open_backend: OpenBackend
    ) -> None:
        self.need(sliding.backend, Transactional)
        memory_id, made = self._sliding_one(sliding), later.now
        later.now += timedelta(minutes=5)
        is_held, is_over = threading.Event(), threading.Event()

        def hold() -> None:
            other = MemoryModule(storage_backend=open_backend())
            with other.transaction():
                other.create_memory("c", "k", {}, "t")
                is_held.set()
                is_over.wait(20)
            other.shutdown()

        writer = threading.Thread(target=hold)
        writer.start()
        try:
            assert is_held.wait(20)
            start = time.monotonic()
            entry = sliding.get_memory(memory_id)
            took = time.monotonic() - start
        finally:
            is_over.set()
            writer.join()
        assert entry is not None
        assert entry.expires_at == made + TTL
        assert took < 5
        sliding.get_memory(memory_id)
        assert later.now + TTL in [each.expires_at for each in sliding.list_memories()]

    def test_a_renewal_in_a_transaction_is_a_part_of_it(self, sliding: MemoryModule, later: FakeClock) -> None:
        self.need(sliding.backend, Transactional)
        memory_id, made = self._sliding_one(sliding), later.now
        later.now += timedelta(minutes=5)

        def failing() -> None:
            with sliding.transaction():
                sliding.get_memory(memory_id)
                raise LookupError

        with pytest.raises(LookupError):
            failing()
        assert self._end_of_all(sliding) == made + TTL
        with sliding.transaction():
            sliding.get_memory(memory_id)
            sliding.update_memory(memory_id, {"n": 2})
        assert self._end_of_all(sliding) == later.now + TTL

    def test_what_has_expired_does_not_come_back(self, sliding: MemoryModule, later: FakeClock) -> None:
        backend: Any = sliding.backend
        memory_id = self._sliding_one(sliding)
        forever = sliding.create_memory("c", "k", {}, "t")
        assert not backend.slide(forever, later.now + TTL)
        assert not backend.slide("absent", later.now + TTL)
        assert not backend.slide("\0", later.now + TTL)
        assert not backend.slide(memory_id, later.now + timedelta(minutes=1))  # earlier
        if backend.has_capability(Namespaced):
            assert not backend.for_namespace("alice").slide(memory_id, later.now + 2 * TTL)
        later.now += TTL
        assert not backend.bind(clock=later).slide(memory_id, later.now + TTL)
        assert sliding.get_memory(memory_id) is None
        assert sliding.list_memories() == [sliding.get_memory(forever)]

    def test_a_touch_lets_it_slide_on_and_a_new_ttl_does_not(self, sliding: MemoryModule, later: FakeClock) -> None:
        memory_id = self._sliding_one(sliding)
        later.now += timedelta(seconds=1)
        sliding.touch_memory(memory_id)
        entry = sliding.get_memory(memory_id)
        assert entry is not None
        assert (entry.expires_at, entry.sliding, entry.version) == (later.now + TTL, True, 2)
        sliding.touch_memory(memory_id, ttl=60)
        entry = sliding.get_memory(memory_id)
        assert entry is not None
        assert (entry.ttl, entry.sliding) == (timedelta(minutes=1), False)
        sliding.touch_memory(memory_id, ttl=60, sliding=True)
        (again,) = sliding.list_memories()
        assert again.sliding

    @pytest.mark.parametrize("given", [{}, {"ttl": NEVER}, {"ttl": 60, "sliding": 1}, {"ttl": 60, "sliding": None}])
    def test_what_slides_needs_a_ttl(self, sliding: MemoryModule, given: dict[str, Any]) -> None:
        with pytest.raises(InvalidEntryError, match="sliding"):
            sliding.create_memory("c", "k", {}, "t", **{"sliding": True, **given})
        with pytest.raises(InvalidEntryError, match="item 0: sliding"):
            sliding.create_memories([{"category": "c", "key": "k", "value": {}, "entity_type": "t", "sliding": True}])
        assert sliding.list_memories() == []
