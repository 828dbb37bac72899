"""How long does it take to find the memories that share words with a question, and what does the index cost a write?

python -m benchmarks.text_search [--quick] [--write]

The words of a text, 20, are drawn by Zipf's law from 50,000: no list of stop words makes this easier than it is.
"""

from __future__ import annotations

import bisect
import gc
import itertools
import random
import statistics
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import Goal
from benchmarks.systems.jarvis_sqlite import Jarvis
from jarvis.json_backend import JSONBackend
from jarvis.model.entry import MemoryEntry
from jarvis.persistent_memory import MemoryModule
from jarvis.postgresql_backend import PostgreSQLBackend
from jarvis.sqlite_backend import SQLiteBackend
from jarvis.storage_backend import StorageBackend
from jarvis.text.analysis import analyser
from tests.postgresql import a_database

VOCABULARY, WORDS_A_TEXT, WORDS_A_QUESTION = 50_000, 20, 6
AT_ONCE = 10_000
START = datetime(2026, 1, 1, tzinfo=UTC)


class Texts:
    """Draws words, texts and entries."""

    def __init__(self) -> None:
        self._chance = random.Random(7)
        letters = "abcdefghijklmnopqrstuvwxyz"
        self._words = ["".join(self._chance.choices(letters, k=5 + place % 6)) for place in range(VOCABULARY)]
        self._chances = list(itertools.accumulate(1 / (place + 1) for place in range(VOCABULARY)))
        analyser("english").words(" ".join(self._words))  # a program meets most words once

    def text(self, words: int) -> str:
        """Return a text of so many words."""
        total = self._chances[-1]
        places = (bisect.bisect(self._chances, self._chance.random() * total) for _ in range(words))
        return " ".join(self._words[place] for place in places)

    def entries(self, count: int) -> list[MemoryEntry]:
        """Return new entries."""
        return [
            MemoryEntry(
                str(uuid.UUID(int=self._chance.getrandbits(128))),
                "facts",
                f"key-{number}",
                {"text": self.unspaced(WORDS_A_TEXT) if number % 20 == 0 else self.text(WORDS_A_TEXT)},
                ["tag"],
                "person",
                f"person-{number % 100}",
                START + timedelta(seconds=number),
            )
            for number in range(count)
        ]

    def question(self) -> str:
        """Return a question in words."""
        return self.text(WORDS_A_QUESTION)

    def misspelt(self) -> str:
        """Return a question of which one word has two letters the wrong way round."""
        *right, word = self.text(WORDS_A_QUESTION).split()
        place = self._chance.randrange(2, len(word) - 1)
        return " ".join([*right, word[:place] + word[place + 1] + word[place] + word[place + 2 :]])

    def unspaced(self, signs: int = 4) -> str:
        """Return a text without spaces."""
        return "".join(chr(0x4E00 + int(500 * self._chance.random() ** 2)) for _ in range(signs))


def timed(call: Callable[[], object]) -> float:
    """Return how many microseconds a call takes."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1_000_000


def _filled(backend: StorageBackend, texts: Texts, entries: int) -> float:
    """Store entries at once; return the microseconds for each."""
    taken = 0.0
    for start in range(0, entries, AT_ONCE):
        several = texts.entries(min(AT_ONCE, entries - start))
        taken += timed(lambda: backend.create_many(several))  # noqa: B023 - called here
    return taken / entries


def _searches(backend: StorageBackend, texts: Texts, rounds: int) -> dict[str, float]:
    """Return the milliseconds of a search of each kind: half of them take at most p50, 95 of 100 at most p95."""
    memory = MemoryModule(backend)
    memory.search_text(texts.text(WORDS_A_QUESTION))
    figures = {}
    for kind, question in (("words", texts.question), ("misspelt", texts.misspelt), ("unspaced", texts.unspaced)):
        questions = [question() for _ in range(rounds)]
        gc.collect()
        taken = sorted(timed(partial(memory.search_text, each)) / 1_000 for each in questions)
        figures[f"{kind} p50"] = round(taken[rounds // 2], 2)
        figures[f"{kind} p95"] = round(taken[rounds * 95 // 100], 2)
    return figures


def _writes(directory: Path, texts: Texts, entries: int, count: int) -> dict[str, float]:
    """Return the microseconds of a create, and of one of many, with the index and without, in rounds that alternate."""
    backends = {
        "with": SQLiteBackend(directory / "with.db"),
        "without": SQLiteBackend(directory / "without.db", text_index="off"),
    }
    taken: dict[str, list[float]] = {name: [] for name in backends}
    bulk: dict[str, list[float]] = {name: [] for name in backends}
    for backend in backends.values():
        backend.create_many(texts.entries(entries))
    backends["with"].rebuild_index(None, None)
    for _ in range(count // 64):
        for name, backend in backends.items():
            several = texts.entries(64)
            taken[name].append(timed(partial(deque, map(backend.create, several), 0)) / 64)
    for _ in range(5):
        for name, backend in backends.items():
            several = texts.entries(AT_ONCE // 5)
            bulk[name].append(timed(lambda: backend.create_many(several)) / len(several))  # noqa: B023
    for backend in backends.values():
        backend.shutdown()
    return {
        **{f"create {name}": round(statistics.median(times), 1) for name, times in taken.items()},
        **{f"bulk {name}": round(statistics.median(times), 2) for name, times in bulk.items()},
    }


def measure(sizes: Sequence[int], on_server: Sequence[int], json_entries: int, rounds: int) -> dict[str, Any]:
    """Return the figures, in microseconds."""
    texts = Texts()
    results: dict[str, Any] = {"sqlite": {}, "postgresql": {}, "json": {}, "sizes": [*sizes]}
    with harness.stores() as stores, stores.own("jarvis", 0) as directory:
        for entries in sizes:
            backend = SQLiteBackend(directory / f"{entries}.db", durability="normal")
            _filled(backend, texts, entries)
            indexed = timed(lambda: backend.rebuild_index(None, None)) / entries  # noqa: B023 - called here
            found = _searches(backend, texts, rounds)
            results["sqlite"][str(entries)] = {**found, "to index": round(indexed, 1)}
            backend.shutdown()
        backend_of_json = JSONBackend(directory / "memory.json")
        _filled(backend_of_json, texts, json_entries)
        results["json"][str(json_entries)] = _searches(backend_of_json, texts, rounds)
        results.update(_writes(directory, texts, sizes[0], 20 * 64 if rounds > 50 else 2 * 64))
    for entries in on_server:
        with a_database() as dsn:
            server = PostgreSQLBackend(dsn)
            _filled(server, texts, entries)
            server.rebuild_index(None, None)
            results["postgresql"][str(entries)] = _searches(server, texts, rounds)
            server.shutdown()
    return results


def goals(results: dict[str, Any]) -> list[Goal]:
    """Return each figure beside what is wanted of it."""
    held = []
    wanted = {10_000: 10.0, 100_000: 40.0, 1_000_000: 250.0}
    for name, factor in (("sqlite", 1), ("postgresql", 2), ("json", 1)):
        for size, times in results[name].items():
            entries = int(size)
            most = next(most for known, most in wanted.items() if entries <= known) * factor
            for kind, more in (("words", 1), ("misspelt", 4), ("unspaced", 4)):
                what = f"search on {name}, {kind}, p95"
                figure = times[f"{kind} p95"]
                held.append(Goal(what, entries, None, None, "", figure, at_most=most * more, figure_unit="ms"))
    size = results["sizes"][0]
    for what, most in (("create", 1.6), ("bulk", 1.5)):
        ours, other = results[f"{what} with"], results[f"{what} without"]
        name = "create" if what == "create" else "create at once, for each"
        held.append(
            Goal(f"{name}, with the index", size, ours, other, "µs", round(ours / other, 3), most, beside="without")
        )
    bulk = results["bulk with"] + results["sqlite"][str(size)]["to index"]
    name = "create at once and index, for each"
    other = results["bulk without"]
    held.append(Goal(name, size, bulk, other, "µs", round(bulk / other, 3), 1.5, beside="without"))
    return held


def main() -> None:
    """Measure and check in."""
    chosen = harness.options(__doc__)
    machine = harness.machine()
    usual = (10_000, 100_000, 1_000_000), (10_000, 100_000), 10_000, 200
    results = measure(*(((2_000,), (2_000,), 2_000, 40) if chosen.quick else usual))
    harness.publish("text_search", machine, {"jarvis": Jarvis.versions()}, results, goals(results), write=chosen.write)


if __name__ == "__main__":
    main()
