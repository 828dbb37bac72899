"""Promises of versions: a value that stays equal as long as no answer changes, so that a cache may keep answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from jarvis.capabilities import (
    Erases,
    Expires,
    KeepsHistory,
    MendsDates,
    Namespaced,
    SharesCommits,
    TellsVersion,
    Transactional,
)
from jarvis.conformance.fixtures import FAR, NOON, FakeClock, OpenBackend, Promises, an_entry
from jarvis.model.query import MemoryQuery
from jarvis.model.revision import Signature
from jarvis.storage_backend import StorageBackend


def _in_a_transaction(backend: Any) -> None:
    with backend.transaction():
        backend.delete("1")


def _erase(backend: Any) -> None:
    with backend.transaction():
        backend.erase("1")


CHANGES: dict[str, tuple[tuple[type, ...], Callable[[Any], object]]] = {
    "create": ((), lambda backend: backend.create(an_entry("2"))),
    "update": ((), lambda backend: backend.update(an_entry(value={"mode": "light"}))),
    "delete": ((), lambda backend: backend.delete("1")),
    "discard": ((), lambda backend: backend.discard("1")),
    "clear": ((), lambda backend: backend.clear()),
    "recreate": ((KeepsHistory,), lambda backend: backend.recreate(an_entry("2"))),
    "transaction": ((Transactional,), _in_a_transaction),
    "change": ((SharesCommits,), lambda backend: backend.change(lambda: backend.delete("1"))),
    "erase": ((Erases, Transactional), _erase),
    "mend dates": ((MendsDates,), lambda backend: backend.mend_dates(Signature("update"))),
    "in another namespace": ((Namespaced,), lambda backend: backend.bind(namespace="alice").create(an_entry())),
}
"""The changes of a store by name: the capabilities that each takes, and a function that makes it."""


class VersionPromises(Promises):
    """A version is equal to an earlier one only if every answer is."""

    @pytest.fixture
    def telling(self, backend: StorageBackend) -> Any:
        """Return the backend as one that tells its version, with an entry dated ahead of the clock."""
        self.need(backend, TellsVersion)
        backend.create(an_entry(timestamp=FAR))
        if backend.has_capability(MendsDates):  # the date is one of the module's: it can be mended
            with backend.capability(Transactional).transaction():
                backend.update(an_entry(timestamp=backend.capability(Transactional).moment(FAR)))
        return backend

    def test_a_version_stays_as_long_as_nothing_is_changed(self, telling: Any) -> None:
        before = telling.version()

        assert before is not None
        assert telling.read("1") is not None
        assert telling.count(MemoryQuery()) == len(telling.list_all()) == 1
        assert telling.version() == before

    @pytest.mark.parametrize("name", CHANGES)
    @pytest.mark.parametrize("whose", ["own", "of another handle", "of another thread"])
    def test_every_change_makes_another_version(
        self, telling: Any, name: str, whose: str, open_backend: OpenBackend
    ) -> None:
        needed, change = CHANGES[name]
        for protocol in needed:
            self.need(telling, protocol)
        other: Any = open_backend() if whose == "of another handle" else telling
        other.bootstrap()
        seen = [telling.version()]

        if whose == "of another thread":
            thread = threading.Thread(target=lambda: seen.append(change(other)))
            thread.start()
            thread.join()
            seen.pop()
        else:
            change(other)
        seen.append(telling.version())
        telling.bind().bootstrap()
        seen.append(telling.version())

        assert seen[0] != seen[1] == seen[2]
        assert None not in seen

    def test_no_version_comes_back(self, telling: Any) -> None:
        seen = []
        for number in range(5):
            seen.append(telling.version())
            telling.update(an_entry(value={"n": number % 2}))
            telling.list_all()
            seen.append(telling.version())
            telling.shutdown()

        assert len({id(each): each for each in seen}) == len(seen)
        assert [each for place, each in enumerate(seen) if each in seen[:place]] == []

    def test_handles_and_threads_of_a_store_see_the_same_version(self, telling: Any) -> None:
        self.need(telling, Namespaced)
        seen = [telling.version(), telling.bind(namespace="alice").version()]

        thread = threading.Thread(target=lambda: seen.append(telling.version()))
        thread.start()
        thread.join()

        assert seen[0] == seen[1] == seen[2] == telling.version()

    def test_a_transaction_has_no_version(self, telling: Any) -> None:
        self.need(telling, Transactional)
        before = telling.version()

        with telling.transaction():
            telling.delete("1")
            inside = [telling.version(), telling.bind().version()]
            elsewhere: list[object] = []
            thread = threading.Thread(target=lambda: elsewhere.append(telling.version()))
            thread.start()
            thread.join()

        assert inside == [None, None]
        assert elsewhere == [before]
        assert telling.version() not in (None, before)

    def test_a_change_that_is_in_progress_has_no_version(self, telling: Any) -> None:
        self.need(telling, SharesCommits)

        def work() -> object:
            telling.delete("1")
            return telling.version()

        assert telling.change(work) is None

    def test_what_expires_makes_another_version(self, telling: Any) -> None:
        self.need(telling, Expires)
        clock, other_clock = FakeClock(), FakeClock(NOON + timedelta(seconds=30))
        handle, other = telling.bind(clock=clock), telling.bind(clock=other_clock)
        for number in (1, 2):
            handle.create(an_entry(f"e{number}", expires_at=NOON + timedelta(seconds=20 * number)))
        counts, seen = [], []

        for seconds in (0, 19, 1, 19, 1, 100):
            clock.step(seconds=seconds)
            counts.append(handle.count(MemoryQuery()))
            seen.append(handle.version())

        assert counts == [3, 3, 2, 2, 1, 1]
        assert [seen[place] == seen[place - 1] for place in range(1, 6)] == [True, False, True, False, True]
        assert other.count(MemoryQuery()) == 2
        assert other.version() not in (seen[0], seen[4])
        clock.step(seconds=-140)
        assert (handle.count(MemoryQuery()), handle.version()) == (3, seen[0])
