"""Promises of large values, which a backend may store compressed: only the size of the store shows it."""

from __future__ import annotations

import contextlib
import random
from datetime import timedelta
from typing import Any

import pytest

from jarvis.capabilities import Compresses, Erases, Expires, FeedsChanges, KeepsHistory, Namespaced, Transactional
from jarvis.conformance.fixtures import FAR, FakeClock, Promises, an_entry
from jarvis.conformance.values import identical
from jarvis.errors import InvalidEntryError, TransactionError
from jarvis.model.query import MemoryQuery
from jarvis.persistent_memory import MemoryModule
from jarvis.storage_backend import StorageBackend

PROSE = (
    "The user asked for the lights in the hall to go out at ten, unless somebody is still up; then they "
    "go out when the last door closes. She has said so twice, and changed her mind about the kitchen once. "
)


def prose(size: int) -> dict[str, Any]:
    """Return a value whose JSON has `size` bytes."""
    empty = len('{"text":""}')
    return {"text": (PROSE * (size // len(PROSE) + 1))[: size - empty]}


_NOISE = random.Random(1)  # noqa: S311 - any noise will do
LARGE: dict[str, dict[str, Any]] = {
    "1 KiB less 1": prose(1023),
    "1 KiB": prose(1024),
    "50 KiB": prose(51_200),
    "1 MiB": prose(2**20),
    "noise": {"text": "".join(chr(_NOISE.randrange(32, 0xD800)) for _ in range(3_000))},
    "bytes": {"held": _NOISE.randbytes(4_000), "pair": (1, 2)},
    "unicode": {"żółć 🦊": ["日本 \u2028 \x00 " * 400, "\ud800" * 300, {"$type": "mine", "n": -0.0}]},
    "numbers": {"n": [number / 7 for number in range(600)], "big": 2**70},
    "many keys": {f"key {number}": {"a": None, "b": [True, number]} for number in range(300)},
}
"""Values around the size at which compression may begin."""


class CompressionPromises(Promises):
    """Values of a kibibyte and more keep the promises of all values."""

    @pytest.mark.parametrize("kind", LARGE)
    def test_a_large_value_comes_back_as_it_was(self, backend: StorageBackend, kind: str) -> None:
        backend.create(an_entry("1", value=LARGE[kind]))
        backend.create(an_entry("2", value={"small": 1}))
        backend.update(an_entry("2", value=LARGE[kind]))
        backend.shutdown()

        for entry_id in ("1", "2"):
            entry = backend.read(entry_id)
            assert entry is not None
            assert identical(entry.value, LARGE[kind])
            assert entry.tags == an_entry().tags
            assert entry.provenance == an_entry().provenance
        assert all(identical(entry.value, LARGE[kind]) for entry in backend.list_all())

    def test_large_values_are_found_by_every_question(self, memory: MemoryModule, clock: FakeClock) -> None:
        ids = {}
        for number, (kind, value) in enumerate(LARGE.items()):
            ids[kind] = memory.create_memory("notes", kind, {**value, "n": number}, "note", kind, ["large", kind])
            clock.step(seconds=1)
        wanted = [{**value, "n": number} for number, value in enumerate(LARGE.values())][::-1]

        assert all(map(identical, [entry.value for entry in memory.search_memories(tags=["large"])], wanted))
        assert all(map(identical, [entry.value for entry in memory.iter_memories(category="notes")], wanted))
        assert [entry.key for entry in memory.search_memories(where={"n": {"$lt": 2}})] == ["1 KiB", "1 KiB less 1"]
        assert memory.count_memories(where={"text": {"$exists": True}}) == 5
        assert [entry.key for entry in memory.iter_memories(where={"pair": (1, 2)})] == ["bytes"]
        for number, (kind, memory_id) in enumerate(ids.items()):
            for entry in (
                memory.get_memory(memory_id),
                memory.get_memory_by_key(kind),
                *memory.get_memories_by_entity("note", kind),
                *memory.search_memories(where={"n": number}),
            ):
                assert entry is not None
                assert entry.id == memory_id
                assert identical(entry.value, {**LARGE[kind], "n": number})

    def test_large_values_have_a_past(self, backend: StorageBackend, later: FakeClock) -> None:
        self.need(backend, KeepsHistory)
        memory = MemoryModule(storage_backend=backend, clock=later)
        kinds, moments = list(LARGE), []
        memory_id = memory.create_memory("notes", "k", LARGE[kinds[0]], "note", tags=["x"])
        for kind in kinds[1:]:
            moments.append(later.now)
            later.step(hours=1)
            memory.update_memory(memory_id, LARGE[kind])
        memory.delete_memory(memory_id)

        states = [revision.entry.value for revision in memory.get_history(memory_id)]
        assert all(map(identical, states, [LARGE[kind] for kind in reversed(kinds)]))
        for kind, moment in zip(kinds, moments, strict=False):
            (past,) = memory.search_memories(tags=["x"], as_of=moment)
            assert identical(past.value, LARGE[kind])
            (field,) = list(LARGE[kind])[:1]
            assert memory.count_memories(where={field: {"$exists": True}}, as_of=moment) == 1
            assert memory.count_memories(where={"nothing": 1}, as_of=moment) == 0
        assert memory.undo(memory_id)
        later.step(hours=1)
        assert memory.clear_all() == 1
        assert memory.list_memories() == []
        (cleared,) = memory.search_memories(tags=["x"], as_of=later.now - timedelta(minutes=1))
        assert identical(cleared.value, LARGE[kinds[-1]])
        assert memory.undo(memory_id)
        entry = memory.get_memory(memory_id)
        assert entry is not None
        assert identical(entry.value, LARGE[kinds[-1]])

    def test_large_values_expire_and_are_erased(self, backend: StorageBackend, later: FakeClock) -> None:
        self.need(backend, Expires)
        self.need(backend, Erases)
        memory = MemoryModule(storage_backend=backend, clock=later)
        kept = memory.create_memory("notes", "kept", prose(3_000), "note")
        memory.create_memory("notes", "mortal", prose(4_000), "note", ttl=timedelta(hours=1))
        erased = memory.create_memory("notes", "erased", {**prose(5_000), "of": "ada"}, "note")
        memory.update_memory(erased, prose(2_000))
        later.step(hours=2)

        assert memory.store.purge_expired() == 1
        assert memory.erase_memories(where={"of": "ada"}).memories == 1

        assert [(entry.id, entry.value) for entry in memory.list_memories()] == [(kept, prose(3_000))]
        assert memory.get_history(erased) == []

    def test_large_values_are_written_in_bulk_and_taken_back(self, backend: StorageBackend, clock: FakeClock) -> None:
        self.need(backend, Transactional)
        memory = MemoryModule(storage_backend=backend, clock=clock)
        with memory.transaction():
            for number in range(50):
                memory.create_memory("notes", str(number), {**prose(1_000 + number), "n": number}, "note")
            with contextlib.suppress(InvalidEntryError), memory.transaction():
                memory.create_memory("notes", "undone", prose(9_000), "note")
                memory.create_memory("notes", "refused", {**prose(9_000), "n": object()}, "note")
            entry = memory.get_memory_by_key("7")  # read and changed in one transaction
            assert entry is not None
            assert memory.update_memory(entry.id, {**entry.value, "n": 7_000})

        assert memory.count_memories() == 50
        changed = memory.get_memory_by_key("7")
        assert changed is not None
        assert changed.value == {**prose(1_007), "n": 7_000}

    # --- Compresses -------------------------------------------------------------------------------

    def test_recompressing_is_no_change(self, backend: StorageBackend, later: FakeClock) -> None:
        for protocol in (Compresses, KeepsHistory, FeedsChanges, Namespaced):
            self.need(backend, protocol)
        memory = MemoryModule(storage_backend=backend, clock=later)
        memory_id = memory.create_memory("notes", "k", LARGE["50 KiB"], "note", tags=["x"])
        for name in LARGE:
            memory.update_memory(memory_id, LARGE[name], reason=name)
            memory.for_namespace("alice").create_memory("notes", name, LARGE[name], "note", ttl=60)

        def seen() -> list[Any]:
            return [
                (each.list_memories(), each.get_history(memory_id), each.changes())
                for each in (memory, memory.for_namespace("alice"))
            ]

        before, position = seen(), backend.capability(FeedsChanges).last_position()
        told: list[tuple[int, int]] = []

        memory.store.recompress(lambda done, total: told.append((done, total)))

        assert seen() == before
        assert backend.capability(FeedsChanges).last_position() == position
        assert told == sorted(told)
        assert told[-1][0] == told[-1][1]

    def test_recompressing_is_for_the_outside_of_transactions(self, backend: StorageBackend) -> None:
        self.need(backend, Compresses)
        self.need(backend, Transactional)
        memory = MemoryModule(storage_backend=backend, clock=FakeClock(FAR))
        with memory.transaction():
            memory_id = memory.create_memory("notes", "k", prose(5_000), "note")
            with pytest.raises(TransactionError):
                memory.store.recompress()

        assert backend.count(MemoryQuery()) == 1
        assert memory.get_memory(memory_id) is not None
