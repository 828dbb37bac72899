"""The fixtures and helpers that every group of promises uses."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jarvis.capabilities import KeepsHistory, Transactional
from jarvis.model.entry import MemoryEntry
from jarvis.persistent_memory import MemoryModule
from jarvis.storage_backend import StorageBackend

OpenBackend = Callable[[], StorageBackend]

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
FAR = datetime(2100, 1, 1, tzinfo=UTC)
"""Ahead of the system's time, which changes without a moment get."""
FIRST, LAST = datetime.min, datetime.max  # noqa: DTZ901 - naive on purpose


class FakeClock:
    """A clock that moves only when `move` is called."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        """Return the time to which it was set."""
        return self.now

    def step(self, **units: float) -> None:
        """Move by a timedelta of `units`; backwards if negative."""
        self.now += timedelta(**units)


def an_entry(entry_id: str = "1", **fields: Any) -> MemoryEntry:
    """Return an entry with content in every field; `fields` replace some."""
    usual: dict[str, Any] = {
        "category": "preferences",
        "key": "theme",
        "value": {"mode": "dark"},
        "tags": ["ui", "important"],
        "entity_type": "user_preference",
        "entity_id": "user-1",
        "timestamp": NOON,
        "provenance": {"module": "ui_module", "task_id": "task_123", "created_at": NOON.isoformat()},
    }
    return MemoryEntry(entry_id, **{**usual, **fields})


class Promises:
    """The base of every group: its fixtures, and the one that the backend's author writes."""

    @pytest.fixture
    def open_backend(self) -> OpenBackend:
        """Return a function that opens a new handle on one store; the store is empty at first."""
        raise NotImplementedError("give the fixture open_backend: see jarvis.conformance")

    @pytest.fixture
    def backend(self, open_backend: OpenBackend) -> Iterator[StorageBackend]:
        """Return a handle on an empty store."""
        backend = open_backend()
        backend.bootstrap()
        yield backend
        backend.shutdown()

    @pytest.fixture
    def store(self, backend: StorageBackend) -> Any:
        """Return the backend as one with transactions."""
        self.need(backend, Transactional)
        return backend

    @pytest.fixture
    def clock(self) -> FakeClock:
        """Return the clock of `memory`."""
        return FakeClock()

    @pytest.fixture
    def later(self) -> FakeClock:
        """Return a clock that is ahead of the system's."""
        return FakeClock(FAR)

    @pytest.fixture
    def memory(self, backend: StorageBackend, clock: FakeClock) -> MemoryModule:
        """Return a module on `backend`, with a clock that stands still."""
        return MemoryModule(storage_backend=backend, clock=clock)

    @pytest.fixture
    def past(self, backend: StorageBackend, later: FakeClock) -> MemoryModule:
        """Return a module on a backend that keeps history."""
        self.need(backend, KeepsHistory)
        return MemoryModule(storage_backend=backend, clock=later)

    @pytest.fixture
    def in_zone(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
        """Return a function that moves this machine to a time zone, until the end of the test."""
        if not hasattr(time, "tzset"):
            pytest.skip("the zone of a process cannot be set here")

        def move(zone: str) -> None:
            patch.setenv("TZ", zone)
            time.tzset()

        with monkeypatch.context() as patch:
            yield move
        time.tzset()

    def need(self, backend: StorageBackend, protocol: type) -> None:
        """Skip the test, with a message, if the backend lacks the capability."""
        if not backend.has_capability(protocol):
            pytest.skip(f"the backend {backend.name!r} lacks {protocol.__name__}")
