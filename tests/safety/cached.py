"""A process that writes and reads through a cache, and checks each answer against the log of what all have committed.

python -m safety.cached BACKEND DIRECTORY LOG WHICH SECONDS
"""

from __future__ import annotations

import contextlib
import mmap
import random
import sys
import time
from pathlib import Path
from typing import Any

from jarvis.caching import CachedBackend
from jarvis.json_backend import JSONBackend
from jarvis.model.entry import MemoryEntry
from jarvis.model.query import MemoryQuery
from jarvis.sqlite_backend import SQLiteBackend
from jarvis.storage_backend import BackendWrapper, StorageBackend

from . import model
from .children import await_line, say

PROCESSES = 4
LOG_BYTES = 2 * 8 * PROCESSES
"""Of each process the number that it is about to commit, then of each the last one that was acknowledged."""

WRITES, UNDONE = 0.02, 0.01


class Counting(BackendWrapper):
    """Counts the questions that the cache passes on."""

    def __init__(self, wrapped: StorageBackend) -> None:
        super().__init__(wrapped)
        self.passed_on = 0

    def read(self, entry_id: str) -> MemoryEntry | None:
        self.passed_on += 1
        return super().read(entry_id)

    def select(self, query: MemoryQuery) -> list[MemoryEntry]:
        self.passed_on += 1
        return super().select(query)

    def count(self, query: MemoryQuery) -> int:
        self.passed_on += 1
        return super().count(query)


def entry_of(which: int, number: int) -> MemoryEntry:
    """Return the entry of a process after its commit with this number."""
    return MemoryEntry(f"of {which}", "numbers", f"of {which}", {"n": number}, ["all"])


def run(backend: str, directory: str, path: str, which: int, seconds: float) -> None:
    """Write and read for so long; say (commits, reads, how many were answered from memory, how many were outdated)."""
    kind = JSONBackend if backend == "json" else SQLiteBackend
    store: Any = Counting(kind(Path(directory) / model.FILES[backend], durability="normal"))
    cached, chance = CachedBackend(store), random.Random(which)
    with open(path, "r+b") as file:
        log = memoryview(mmap.mmap(file.fileno(), LOG_BYTES)).cast("Q")
    begun, acknowledged = log[:PROCESSES], log[PROCESSES:]
    commits = reads = outdated = 0
    cached.create(entry_of(which, 0))
    say("ready")
    await_line()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if chance.random() < WRITES:
            begun[which] += 1
            cached.update(entry_of(which, begun[which]))
            acknowledged[which] = begun[which]
            commits += 1
        if chance.random() < UNDONE:
            with contextlib.suppress(LookupError), store.transaction():
                store.update(entry_of(which, 2**60))  # a number that nobody else may see
                cached.select(MemoryQuery(tags=["all"]))
                raise LookupError
        other = chance.randrange(PROCESSES)
        before = list(acknowledged)
        which_question = chance.randrange(3)
        if which_question == 0:
            found = [(other, cached.read(f"of {other}"))]
        elif which_question == 1:
            found = [(int(entry.id[3:]), entry) for entry in cached.select(MemoryQuery(tags=["all"]))]
            outdated += len(found) != PROCESSES
        else:
            found = []
            at_least = MemoryQuery(where={"n": {"$gte": before[other]}}, key=f"of {other}")
            outdated += cached.count(at_least) != 1
        reads += 1
        outdated += any(
            entry is None or not before[of] <= entry.value["n"] <= begun[of] for of, entry in found
        )  # `begun` is read after the answer
    cached.shutdown()
    say(f"{commits} {reads} {reads - store.passed_on} {outdated}")


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))
