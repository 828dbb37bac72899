"""Promises of `MemoryModule.shutdown` on any backend: it ends every call, and nothing opens the store again."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jarvis.capabilities import FeedsChanges, KeepsHistory, Namespaced, Transactional, WakesWatchers
from jarvis.conformance.fixtures import OpenBackend, Promises
from jarvis.errors import StoreClosedError, TransactionError
from jarvis.model.entry import MemoryEntry
from jarvis.persistent_memory import MemoryModule, RetentionRule
from jarvis.storage_backend import StorageBackend

_MANY = 150  # more than anything fetches at a time


def open_files(memory: MemoryModule) -> list[str]:
    """Return the files of the store that this process has open, on a system that lists them."""
    path = getattr(memory.backend, "db_path", None) or getattr(memory.backend, "file_path", None)
    descriptors = Path("/proc/self/fd")
    if path is None or not descriptors.is_dir():
        return []
    return [name for name in map(_target, descriptors.iterdir()) if name.startswith(str(Path(path).resolve()))]


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except OSError:  # that of the listing itself
        return ""


class ShutdownPromises(Promises):
    """End every watch, iteration and sweep."""

    @pytest.fixture
    def own(self, open_backend: OpenBackend) -> Iterator[MemoryModule]:
        """Return a module, the only one on its store."""
        memory = MemoryModule(storage_backend=open_backend())
        for number in range(_MANY):
            memory.record_task(str(number), {"n": number})
        yield memory
        memory.shutdown()

    @pytest.mark.parametrize("kind", ["iter_memories", "as_of", "sibling"])
    def test_an_iteration_behind_a_shutdown_raises(self, own: MemoryModule, kind: str) -> None:
        iteration = self._iteration(own, kind)
        next(iteration)

        own.shutdown()

        with pytest.raises(StoreClosedError, match="begin it again"):
            next(iteration)
        assert open_files(own) == []
        assert list(iteration) == []
        assert sum(1 for _ in self._iteration(own, kind)) == _MANY

    def _iteration(self, memory: MemoryModule, kind: str) -> Iterator[MemoryEntry]:
        if kind == "as_of":
            self.need(memory.backend, KeepsHistory)
            (newest,) = memory.list_memories(limit=1)
            return memory.iter_memories(as_of=newest.timestamp)
        if kind == "sibling":
            self.need(memory.backend, Namespaced)
            return memory.for_namespace(memory.namespace).iter_memories()
        return memory.iter_memories()

    def test_an_iteration_that_was_not_begun_opens_nothing_behind_a_shutdown(self, own: MemoryModule) -> None:
        iteration = own.iter_memories()

        own.shutdown()

        with pytest.raises(StoreClosedError):
            next(iteration)
        assert open_files(own) == []

    def test_a_loop_may_shut_down_what_it_iterates_over(self, own: MemoryModule) -> None:
        seen = []

        def walk() -> None:
            for entry in own.iter_memories():
                seen.append(entry.key)
                own.shutdown()

        with pytest.raises(StoreClosedError):
            walk()

        assert len(seen) == 1
        assert open_files(own) == []

    def test_leaving_the_block_of_a_memory_ends_its_iterations(self, own: MemoryModule) -> None:
        with own:
            iteration = own.iter_memories()
            next(iteration)

        with pytest.raises(StoreClosedError):
            next(iteration)

    def test_iterations_in_other_threads_are_ended(self, own: MemoryModule) -> None:
        turns = threading.Barrier(5)
        outcomes: list[bool] = []

        def walk() -> None:
            iteration = own.iter_memories()
            next(iteration)
            turns.wait()
            try:
                outcomes.append(sum(1 for _ in iteration) == _MANY - 1)
            except StoreClosedError:
                outcomes.append(True)

        threads = [threading.Thread(target=walk) for _ in range(4)]
        for thread in threads:
            thread.start()
        turns.wait()
        own.shutdown()
        for thread in threads:
            thread.join()

        assert outcomes == [True] * 4
        assert open_files(own) == []

    def test_a_shutdown_that_is_refused_ends_nothing(self, own: MemoryModule) -> None:
        self.need(own.backend, Transactional)
        iteration = own.iter_memories()
        next(iteration)

        with own.transaction(), pytest.raises(TransactionError):
            own.shutdown()

        assert sum(1 for _ in iteration) == _MANY - 1

    def test_a_watch_ends_behind_a_shutdown(self, own: MemoryModule) -> None:
        self._need_watching(own.backend)
        watch = own.watch(own.newest_cursor())
        own.set_user_preference("theme", {})
        assert next(watch).key == "theme"

        own.shutdown()

        assert list(watch) == []
        assert open_files(own) == []

    def test_a_watch_in_another_thread_ends_behind_a_shutdown(self, own: MemoryModule) -> None:
        self._need_watching(own.backend)
        first = threading.Event()

        def follow(memory: MemoryModule) -> None:
            for _ in memory.watch(cursor):
                first.set()

        cursor = own.newest_cursor()
        siblings = [own, own.for_namespace(own.namespace)] if own.backend.has_capability(Namespaced) else [own]
        threads = [threading.Thread(target=follow, args=(memory,), daemon=True) for memory in siblings]
        for thread in threads:
            thread.start()
        own.set_user_preference("theme", {})
        assert first.wait(10)
        own.shutdown()

        for thread in threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in threads)
        assert open_files(own) == []

    def test_a_watch_that_shuts_down_is_told_no_more(self, own: MemoryModule) -> None:
        self._need_watching(own.backend)
        cursor = own.newest_cursor()
        for name in ("a", "b", "c"):
            own.set_user_preference(name, {})
        seen = []

        for change in own.watch(cursor):
            seen.append(change)
            own.shutdown()

        assert [change.key for change in seen] == ["a"]
        assert [change.key for change in own.changes(seen[-1].cursor)] == ["b", "c"]

    def test_a_watch_begun_behind_a_shutdown_works(self, own: MemoryModule) -> None:
        self._need_watching(own.backend)
        own.shutdown()
        watch = own.watch(idle_seconds=5)
        own.set_user_preference("theme", {})

        assert next(watch).key == "theme"

    def test_a_sweep_in_another_thread_is_ended(self, open_backend: OpenBackend) -> None:
        is_sweeping, is_shut_down, times = threading.Event(), threading.Event(), itertools.count()

        def clock() -> datetime:
            if threading.current_thread() is sweeper:
                if next(times) == _MANY // 4:
                    is_sweeping.set()
                is_shut_down.wait(0.01)  # so that the sweep is not over before the shutdown begins
            return datetime.now(UTC)

        rule = RetentionRule(category="tasks", max_entries=1)
        memory = MemoryModule(storage_backend=open_backend(), retention=[rule], clock=clock)
        self.need(memory.backend, Transactional)
        sweeper = threading.Thread(target=lambda: memory.sweep(batch=1))
        for number in range(_MANY):
            memory.record_task(str(number), {})

        sweeper.start()
        assert is_sweeping.wait(60)
        memory.shutdown()
        is_shut_down.set()

        assert open_files(memory) == []
        sweeper.join()
        assert 1 < memory.count_memories() < _MANY
        memory.shutdown()

    def _need_watching(self, backend: StorageBackend) -> None:
        self.need(backend, FeedsChanges)
        self.need(backend, WakesWatchers)
