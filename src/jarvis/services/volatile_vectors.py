"""`VolatileVectors`: the vectors of a namespace whose backend keeps none, in memory, for this process alone."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Sequence

from jarvis.model.change import new_generation
from jarvis.model.entry import MemoryEntry
from jarvis.model.query import MemoryQuery
from jarvis.model.vectors import StoredVector, VectorMark
from jarvis.storage_backend import StorageBackend

MOST = 20_000
"""Of how many memories of a namespace vectors are kept: the newest ones."""


class VolatileVectors:
    """Fulfils `jarvis.capabilities.KeepsVectors` for any backend; nothing of it is stored.

    A vector of a memory that has changed goes at the next `pending`, and is not used before that.
    """

    def __init__(self, backend: StorageBackend) -> None:
        self._backend = backend
        self._lock = threading.Lock()
        self._forget("")

    def _forget(self, model: str) -> None:
        self._model, self._generation, self._last = model, new_generation(), 0
        self._vectors: dict[int, tuple[int, str, StoredVector]] = {}  # by commit number: number, id, vector
        self._missing: list[MemoryEntry] = []

    def pending(self, model: str, after: int | None, most: int) -> list[MemoryEntry]:
        """Return memories without a vector, as they were when `after` was None the last time."""
        with self._lock:
            if model != self._model:
                self._forget(model)
            if after is None:
                newest = MemoryQuery(limit=MOST)
                entries = {entry.position[1]: entry for entry in self._backend.select(newest) if entry.position}
                self._vectors = {change: kept for change, kept in self._vectors.items() if change in entries}
                self._missing = [entries[change] for change in sorted(entries.keys() - self._vectors.keys())]
                after = -1
            start = bisect.bisect_right(self._missing, after, key=_change)
            return self._missing[start : start + most]

    def count_vectors(self, model: str | None, most: int | None = None) -> int:
        count = len(self._vectors) if model in (None, self._model) else 0
        return count if most is None else min(count, most)

    def put_vectors(self, model: str, several: Sequence[StoredVector]) -> int:
        with self._lock:
            ids = {_change(entry): entry.id for entry in self._missing} if model == self._model else {}
            known = [vector for vector in several if vector.change in ids and vector.change not in self._vectors]
            for vector in known:
                self._last += 1
                self._vectors[vector.change] = self._last, ids[vector.change], vector
            return len(known)

    def vectors(
        self,
        model: str,
        since: VectorMark,
        most: int,
        *,
        whole: bool,  # noqa: ARG002  they are here anyway
    ) -> tuple[VectorMark, list[StoredVector]]:
        with self._lock:
            number = since.number if since.generation == self._generation else 0
            kept = self._vectors.values() if model == self._model else ()
            found = sorted(each for each in kept if each[0] > number)[:most]
            mark = VectorMark(self._generation, found[-1][0] if found else number)
            return mark, [vector for _, _, vector in found]

    def codes_of(self, model: str, changes: Sequence[int]) -> list[tuple[int, bytes]]:
        vectors = self._vectors if model == self._model else {}
        return [(change, kept[2].codes) for change in changes if (kept := vectors.get(change)) is not None]

    def entries_at(self, changes: Sequence[int]) -> list[MemoryEntry]:
        ids = [kept[1] for change in changes if (kept := self._vectors.get(change)) is not None]
        wanted = set(changes)
        return [entry for entry in self._backend.read_many(ids) if entry.position and entry.position[1] in wanted]


def _change(entry: MemoryEntry) -> int:
    return entry.position[1] if entry.position else 0
