"""Where does a cache of reads pay, and where does it not?

The same questions are asked again and again, in turns, of a store and of a cache around it: a plain store, an encrypted
one, one whose values of 2 KiB are compressed, and a store that is 1 ms away, asked each time or with a stated bound.

python -m benchmarks.caching [--quick] [--write] [--entries N]
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import compression, harness
from benchmarks.corpus import record
from benchmarks.harness import Goal
from benchmarks.systems.jarvis_sqlite import Jarvis
from jarvis.caching import CachedBackend
from jarvis.capabilities import TellsVersion
from jarvis.keys import KeyFunction
from jarvis.model.entry import MemoryEntry
from jarvis.model.query import MemoryQuery
from jarvis.sqlite_backend import SQLiteBackend
from jarvis.storage_backend import BackendWrapper, StorageBackend

ENTRIES = 10_000
AWAY_SECONDS = 0.001
BOUND_SECONDS = 3_600.0
TIMES = 20
CATEGORY = record(77).category

QUESTIONS: dict[str, Callable[[StorageBackend, int], Any]] = {
    "get by id": lambda backend, turn: backend.read(f"id-{turn}"),
    "newest 50 of a category": lambda backend, _: backend.select(MemoryQuery(category=CATEGORY, limit=50)),
    "count of a category": lambda backend, _: backend.count(MemoryQuery(category=CATEGORY)),
    "value filter without an index": lambda backend, _: backend.select(MemoryQuery(where={"absent": True})),
}
WANTED = {"get by id": 1.1, "newest 50 of a category": 1.0, "count of a category": 0.6}
WANTED_OF = {("compressed", "get by id"): 0.6, ("plain", "value filter without an index"): 0.1}
STORES = ("plain", "encrypted", "compressed", "1 ms away", "1 ms away, with a bound")


class Away(BackendWrapper):
    """A store behind a network: each call waits for an answer."""

    def read(self, entry_id: str) -> MemoryEntry | None:
        time.sleep(AWAY_SECONDS)
        return super().read(entry_id)

    def select(self, query: MemoryQuery) -> list[MemoryEntry]:
        time.sleep(AWAY_SECONDS)
        return super().select(query)

    def count(self, query: MemoryQuery) -> int:
        time.sleep(AWAY_SECONDS)
        return super().count(query)

    def version(self) -> object:
        time.sleep(AWAY_SECONDS)
        return self.wrapped.capability(TellsVersion).version()


def _key() -> bytes:
    return b"k" * 32


@contextmanager
def filled(directory: Path, name: str, entries: int) -> Iterator[StorageBackend]:
    """Lend a backend of a new store with so many entries."""
    options: dict[str, Any] = {"encryption": "required", "keys": [KeyFunction(_key)]} if name == "encrypted" else {}
    backend = SQLiteBackend(directory / name / "memory.db", durability="normal", **options)
    with backend.transaction():
        for number in range(entries):
            made = record(number)
            value = compression.value(number, 2_048) if name == "compressed" else made.value
            backend.create(MemoryEntry(f"id-{number}", made.category, made.key, value, list(made.tags), "thing"))
    try:
        yield Away(backend) if name.startswith("1 ms") else backend
    finally:
        backend.shutdown()


def asked(backend: StorageBackend, cached: StorageBackend, question: str, rounds: int) -> dict[str, Any]:
    """Return the figures of a question that is asked again and again, without the cache and with it."""
    taken: dict[str, list[list[int]]] = {"without": [], "with": []}
    ask, kinds = QUESTIONS[question], {"without": backend, "with": cached}
    if not (ask(cached, 7) == ask(cached, 7) == ask(backend, 7)):
        raise RuntimeError("the cache answers otherwise")
    for turn in range(rounds + 1):
        for name, kind in kinds.items():
            figures = []
            for number in range(TIMES):
                start = time.perf_counter_ns()
                ask(kind, number)
                figures.append(time.perf_counter_ns() - start)
            if turn:
                taken[name].append(figures)
    return {name: harness.statistics_of(figures) for name, figures in taken.items()}


def first_answers(backend: SQLiteBackend, question: str, rounds: int) -> dict[str, Any]:
    """Return the figures of the first answer after a change, without a cache and with one."""
    taken: dict[str, list[list[int]]] = {"without": [[]], "with": [[]]}
    ask, kinds = QUESTIONS[question], {"without": backend, "with": CachedBackend(backend)}
    for turn in range(rounds):
        for name, kind in kinds.items():
            backend.update(MemoryEntry("id-0", "changed", "changed", {"n": turn}))
            start = time.perf_counter_ns()
            ask(kind, 7)
            taken[name][0].append(time.perf_counter_ns() - start)
    return {name: harness.statistics_of(figures) for name, figures in taken.items()}


def goals(results: dict[str, Any], entries: int) -> list[Goal]:
    """Return each figure beside what is wanted of it."""
    found = []
    for store, questions in results["again"].items():
        for question, figures in questions.items():
            wanted = WANTED_OF.get((store, question), WANTED.get(question, 0.2))
            if store.startswith("1 ms"):
                wanted = 0.2 if "bound" in store else 1.3
            found.append(_goal(f"{question}, {store}", entries, figures, wanted))
    for question, figures in results["first"].items():
        found.append(_goal(f"{question}, plain, first after a change", entries, figures, 4.0))
    return found


def _goal(what: str, entries: int, figures: dict[str, Any], at_most: float) -> Goal:
    ours, other = figures["with"]["median_us"], figures["without"]["median_us"]
    return Goal(what, entries, ours, other, "µs", round(ours / other, 3), at_most=at_most, beside="without")


def main() -> None:
    """Measure and check in."""
    chosen = harness.options(__doc__, entries=str(ENTRIES))
    machine = harness.machine()
    entries, rounds = (500, 2) if chosen.quick else (int(chosen.entries), 21)
    results: dict[str, Any] = {"again": {}, "first": {}}
    with harness.stores() as stores, stores.own("jarvis", 0) as directory:
        for name in STORES:
            with filled(directory, name, entries) as backend:
                cached = CachedBackend(backend, stale_seconds=BOUND_SECONDS if "bound" in name else None)
                results["again"][name] = {question: asked(backend, cached, question, rounds) for question in QUESTIONS}
                if name == "plain" and isinstance(backend, SQLiteBackend):
                    results["first"] = {
                        question: first_answers(backend, question, rounds * 10)
                        for question in ("get by id", "newest 50 of a category")
                    }
    harness.publish(
        "caching", machine, {"jarvis": Jarvis.versions()}, results, goals(results, entries), write=chosen.write
    )


if __name__ == "__main__":
    main()
