"""Promises of vectors: each belongs to one state of a memory, and goes with it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from jarvis.capabilities import Erases, Expires, KeepsVectors, Namespaced, Transactional
from jarvis.conformance.fixtures import NOON, FakeClock, Promises, an_entry
from jarvis.model.entry import MemoryEntry
from jarvis.model.vectors import StoredVector, VectorMark
from jarvis.persistent_memory import MemoryModule
from jarvis.storage_backend import StorageBackend

MODEL = "a model"


def vector_of(entry: MemoryEntry, mark: bytes = b"") -> StoredVector:
    """Return the vector of an entry: bytes by which it is recognised."""
    assert entry.position is not None
    return StoredVector(entry.position[1], b"signs", b"codes of " + entry.id.encode() + mark)


def index(backend: StorageBackend, model: str = MODEL, at_once: int = 3) -> list[str]:
    """Store the vectors that entries lack; return the ids of these."""
    store, done, after = backend.capability(KeepsVectors), [], None
    while entries := store.pending(model, after, at_once):
        assert store.put_vectors(model, [vector_of(entry) for entry in entries]) == len(entries)
        done += [entry.id for entry in entries]
        assert entries[-1].position is not None
        after = entries[-1].position[1]
    return done


def stored(backend: StorageBackend, model: str = MODEL) -> dict[int, bytes]:
    """Return the codes of all vectors, by the commit numbers of the states."""
    mark, found = VectorMark(), dict[int, bytes]()
    while True:
        mark, vectors = backend.capability(KeepsVectors).vectors(model, mark, 2, whole=True)
        found.update({vector.change: vector.codes for vector in vectors})
        if len(vectors) < 2:
            return found


class VectorPromises(Promises):
    """A vector is that of its memory as it is now."""

    @pytest.fixture
    def vectored(self, backend: StorageBackend) -> StorageBackend:
        """Return a backend that keeps vectors, with ten entries that have one."""
        self.need(backend, KeepsVectors)
        backend.create_many([an_entry(f"e-{number}", key=f"key {number}") for number in range(10)])
        assert index(backend) == [f"e-{number}" for number in range(10)]
        return backend

    def test_each_memory_gets_a_vector_once_in_the_order_of_changes(self, vectored: StorageBackend) -> None:
        store = vectored.capability(KeepsVectors)
        changes = [entry.position[1] for entry in vectored.list_all() if entry.position]

        assert index(vectored) == []
        assert list(stored(vectored)) == sorted(changes)
        assert set(stored(vectored).values()) == {b"codes of e-%d" % number for number in range(10)}
        assert store.count_vectors(MODEL) == store.count_vectors(None) == 10
        assert store.count_vectors(MODEL, 3) == 3
        assert store.count_vectors("another") == 0
        vectored.create(an_entry("new"))
        assert index(vectored) == ["new"]

    def test_what_was_stored_since_a_mark_is_told(self, vectored: StorageBackend) -> None:
        store = vectored.capability(KeepsVectors)
        mark, vectors = store.vectors(MODEL, VectorMark(), 100, whole=False)
        assert [vector.codes for vector in vectors] == [b""] * 10
        assert {vector.signs for vector in vectors} == {b"signs"}

        vectored.create(an_entry("new"))
        index(vectored)
        between, vectors = store.vectors(MODEL, mark, 100, whole=True)
        assert [vector.codes for vector in vectors] == [b"codes of new"]
        vectored.delete("new")  # its number is not given again
        vectored.create(an_entry("newer"))
        index(vectored)

        later, vectors = store.vectors(MODEL, between, 100, whole=True)
        assert [vector.codes for vector in vectors] == [b"codes of newer"]
        assert store.vectors(MODEL, later, 100, whole=True) == (later, [])
        assert len(store.vectors(MODEL, VectorMark(mark.generation + 1, mark.number), 100, whole=True)[1]) == 11

    def test_a_changed_memory_loses_its_vector(self, vectored: StorageBackend) -> None:
        vectored.update(an_entry("e-3", value={"mode": "light"}))
        vectored.delete("e-4")

        assert len(stored(vectored)) == 8
        assert not {b"codes of e-3", b"codes of e-4"} & set(stored(vectored).values())
        assert index(vectored) == ["e-3"]

    def test_a_vector_of_a_former_state_is_not_stored(self, vectored: StorageBackend) -> None:
        store = vectored.capability(KeepsVectors)
        vectored.create(an_entry("new"))
        (before,) = store.pending(MODEL, None, 5)
        vectored.update(an_entry("new", value={"mode": "light"}))

        assert store.put_vectors(MODEL, [vector_of(before)]) == 0
        assert index(vectored) == ["new"]

    def test_another_model_takes_the_place_of_the_first(self, vectored: StorageBackend) -> None:
        store = vectored.capability(KeepsVectors)
        some = store.pending("another", 0, 4)
        assert store.put_vectors("another", [vector_of(entry, b" anew") for entry in some]) == 4

        assert len(stored(vectored)) == 6
        assert set(stored(vectored, "another").values()) == {b"codes of e-%d anew" % number for number in range(4)}
        assert store.put_vectors("another", [vector_of(some[0])]) == 0
        assert len(index(vectored, "another")) == 6
        assert store.count_vectors(MODEL) == 0

    def test_a_model_gets_back_what_another_one_took(self, vectored: StorageBackend) -> None:
        store = vectored.capability(KeepsVectors)
        some = store.pending("another", None, 4)
        store.put_vectors("another", [vector_of(entry) for entry in some])

        assert index(vectored) == [entry.id for entry in some]
        assert store.count_vectors(MODEL) == 10

    def test_codes_and_entries_are_found_by_their_changes(self, vectored: StorageBackend) -> None:
        store = vectored.capability(KeepsVectors)
        entries = {entry.position[1]: entry for entry in vectored.list_all() if entry.position}
        some = [*list(entries)[:4], 10**9]

        assert {entry.id for entry in store.entries_at(some)} == {entries[change].id for change in some[:4]}
        assert dict(store.codes_of(MODEL, some)) == {
            change: b"codes of " + entries[change].id.encode() for change in some[:4]
        }
        assert store.codes_of("another", some) == []
        assert store.entries_at([]) == []

    def test_a_clear_takes_all_vectors(self, vectored: StorageBackend) -> None:
        vectored.clear()

        assert stored(vectored) == {}
        vectored.create(an_entry("new"))
        assert index(vectored) == ["new"]

    def test_an_erasure_takes_the_vectors(self, vectored: StorageBackend) -> None:
        self.need(vectored, Erases)
        memory = MemoryModule(vectored)
        memory.erase_memory("e-2")
        assert len(stored(vectored)) == 9
        memory.erase_memories(keys=["key 3", "key 4"])
        assert len(stored(vectored)) == 7

        memory.store.erase_namespace(vectored.namespace)

        assert stored(vectored) == {}

    def test_an_expired_memory_is_no_neighbour_and_its_vector_goes_with_it(self, vectored: StorageBackend) -> None:
        self.need(vectored, Expires)
        clock = FakeClock()
        bound = vectored.bind(clock=clock)
        bound.create(an_entry("mortal", expires_at=NOON + timedelta(hours=1)))
        assert index(bound) == ["mortal"]
        change = max(stored(bound))
        clock.step(hours=2)

        assert bound.capability(KeepsVectors).entries_at([change]) == []
        assert index(bound) == []
        bound.capability(Expires).purge_expired(100)
        assert len(stored(bound)) == 10

    def test_a_namespace_has_its_own_vectors(self, vectored: StorageBackend) -> None:
        self.need(vectored, Namespaced)
        other = vectored.bind(namespace="other")
        store = other.capability(KeepsVectors)
        assert (stored(other), store.count_vectors(None), store.pending(MODEL, None, 5)) == ({}, 0, [])
        other.create(an_entry("theirs"))
        assert index(other) == ["theirs"]
        assert set(stored(other).values()) == {b"codes of theirs"}
        assert store.put_vectors("another", [vector_of(entry) for entry in vectored.list_all()[:5]]) == 0

        other.clear()

        assert len(stored(vectored)) == 10

    def test_a_transaction_that_is_taken_back_leaves_the_vectors(self, vectored: StorageBackend) -> None:
        self.need(vectored, Transactional)
        store: Any = vectored

        def change() -> None:
            with store.transaction():
                vectored.delete("e-1")
                vectored.update(an_entry("e-2", value={"mode": "light"}))
                assert len(stored(vectored)) == 8
                raise LookupError

        with pytest.raises(LookupError):
            change()

        assert len(stored(vectored)) == 10

    def test_other_handles_see_them(self, vectored: StorageBackend, open_backend: Callable[[], StorageBackend]) -> None:
        other = open_backend()
        assert stored(other) == stored(vectored)
        other.update(an_entry("e-5", value={"mode": "light"}))
        assert len(stored(vectored)) == 9
        other.shutdown()
