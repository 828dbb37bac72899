"""How long do vectors take: to find the memories that mean the same, to make them, and in a write?

python -m benchmarks.meaning [--quick] [--write]

A search has the vector of its question at once: what a model takes for it is another figure. Vectors of memories are
drawn at random; those of questions are like that of one memory. Texts for the model are those of `benchmarks.corpus`.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import harness
from benchmarks.harness import Goal
from benchmarks.systems.jarvis_sqlite import Jarvis
from benchmarks.text_search import AT_ONCE, Texts, timed
from jarvis.embedding.finding import load_embedder
from jarvis.model.entry import MemoryEntry
from jarvis.model.query import MemoryQuery
from jarvis.search.vectors import coded
from jarvis.services.meaning import Meaning
from jarvis.sqlite_backend import SQLiteBackend

DIM = 384
GOALS = {10_000: 5.0, 100_000: 25.0, 1_000_000: 120.0}
MODEL = "random"


class Drawn:
    """An embedder whose vectors are there already."""

    name, dim = MODEL, DIM

    def __init__(self) -> None:
        self._chance = np.random.default_rng(5)
        self.asked: npt.NDArray[np.float32] = self.draw(1)[0]

    def draw(self, count: int) -> npt.NDArray[np.float32]:
        """Return vectors at random."""
        return self._chance.standard_normal((count, DIM)).astype(np.float32)

    def embed_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return vectors at random."""
        return self.draw(len(texts))

    def embed_query(self, text: str) -> npt.NDArray[np.float32]:
        """Return what was set before."""
        return self.asked


def _searches(path: Path, texts: Texts, entries: int, rounds: int) -> dict[str, float]:
    """Return the milliseconds of the part of a search that vectors add, and of the first, which reads them."""
    backend, embedder = SQLiteBackend(path, durability="normal"), Drawn()
    some: npt.NDArray[np.float32] = embedder.draw(0)
    for start in range(0, entries, AT_ONCE):
        several = texts.entries(min(AT_ONCE, entries - start))
        backend.create_many(several)
        pending = backend.pending(MODEL, start, AT_ONCE)
        some = embedder.draw(len(pending))
        backend.put_vectors(
            MODEL, coded(some, [change for entry in pending for _, change in [entry.position or (0, 0)]])
        )
    meaning = Meaning(embedder)
    by_words = backend.select(MemoryQuery(limit=200))
    embedder.asked = some[-1]
    first = timed(lambda: _found(meaning, backend, by_words)) / 1_000
    taken = []
    gc.collect()
    for number in range(rounds):
        embedder.asked = some[number] + embedder.draw(1)[0] / 2
        taken.append(timed(lambda: _found(meaning, backend, by_words)) / 1_000)
    taken.sort()
    backend.shutdown()
    return {"p50": round(taken[rounds // 2], 2), "p95": round(taken[rounds * 95 // 100], 2), "first": round(first, 1)}


def _found(meaning: Meaning, backend: SQLiteBackend, by_words: list[MemoryEntry]) -> None:
    asked = meaning.asked(backend, "question", ())
    assert asked is not None
    assert len(asked.similarities(by_words)) == len(by_words)
    assert asked.candidates(MemoryQuery())


def _made(path: Path, texts: Texts, entries: int) -> dict[str, float]:
    """Return how many texts the small model embeds and stores in a second of one core, and what a question takes."""
    embedder = load_embedder("minilm")
    embedder.embed_query("load it")
    backend = SQLiteBackend(path)
    backend.create_many([_readable(entry, number) for number, entry in enumerate(texts.entries(entries))])
    start = time.process_time()
    made = Meaning(embedder).index(backend, None)
    taken = time.process_time() - start
    backend.shutdown()
    asked = [timed(lambda: embedder.embed_query("What did Maria say about the move?")) / 1_000 for _ in range(50)]
    return {"a second": round(made / taken, 1), "question": round(statistics.median(asked), 2)}


def _readable(entry: MemoryEntry, number: int) -> MemoryEntry:
    """Return an entry with a text of 20 English words, as people write them."""
    words = "Maria told me that she wants to move to Lisbon in May because the light there is so good for painting"
    entry.value = {"text": f"{words} {number}"}
    return entry


def _creates(directory: Path, texts: Texts, rounds: int) -> dict[str, float]:
    """Return the microseconds of a create in a store that has vectors, and in one without, in turn."""
    stores = {name: SQLiteBackend(directory / f"{name}.db") for name in ("with", "without")}
    for backend in stores.values():
        backend.create_many(texts.entries(2_000))
    pending = stores["with"].pending(MODEL, None, 2_000)
    stores["with"].put_vectors(
        MODEL,
        coded(Drawn().draw(len(pending)), [change for entry in pending for _, change in [entry.position or (0, 0)]]),
    )
    taken: dict[str, list[float]] = {name: [] for name in stores}
    for _ in range(rounds):
        for name, backend in stores.items():
            several = texts.entries(64)
            taken[name].append(timed(lambda: deque(map(backend.create, several), 0)) / 64)  # noqa: B023
    for backend in stores.values():
        backend.shutdown()
    return {name: round(statistics.median(times), 1) for name, times in taken.items()}


def measure(sizes: Sequence[int], embedded: int, rounds: int) -> dict[str, Any]:
    """Return the figures."""
    texts, results = Texts(), dict[str, Any]()
    with harness.stores() as stores, stores.own("jarvis", 0) as directory:
        results["search"] = {
            str(entries): _searches(directory / f"{entries}.db", texts, entries, rounds) for entries in sizes
        }
        results["minilm"] = _made(directory / "minilm.db", texts, embedded)
        results["create"] = _creates(directory, texts, rounds // 5)
    return results


def goals(results: dict[str, Any]) -> list[Goal]:
    """Return each figure beside what is wanted of it."""
    held = []
    for size, times in results["search"].items():
        entries = int(size)
        most = next(most for known, most in GOALS.items() if entries <= known)
        held.append(
            Goal("vectors of a search, p95", entries, None, None, "", times["p95"], at_most=most, figure_unit="ms")
        )
    made = results["minilm"]["a second"]
    held.append(
        Goal(
            "texts embedded and stored by one core in a second",
            None,
            None,
            None,
            "",
            made,
            at_least=60.0,
            figure_unit="",
        )
    )
    ours, other = results["create"]["with"], results["create"]["without"]
    held.append(
        Goal("create, with vectors pending", None, ours, other, "µs", round(ours / other, 3), 1.05, beside="without")
    )
    return held


def main() -> None:
    """Measure and check in."""
    chosen = harness.options(__doc__)
    machine = harness.machine()
    results = measure(*(((2_000,), 64, 40) if chosen.quick else ((10_000, 100_000, 1_000_000), 1_000, 200)))
    harness.publish("meaning", machine, {"jarvis": Jarvis.versions()}, results, goals(results), write=chosen.write)


if __name__ == "__main__":
    main()
