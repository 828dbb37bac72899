"""What does expiry cost a create and a read, and how long does purging and erasing take?

Two modules take turns on one store, one that gives its memories a time to live. Then a store half of whose
entries have expired is asked, beside one that holds only the other half, before and after it was purged. Then one
memory is erased.

python -m benchmarks.forgetting [--quick] [--write] [--entries N]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.corpus import COMMON_TAG, record
from benchmarks.harness import Goal
from benchmarks.systems.jarvis_sqlite import Jarvis
from jarvis.persistent_memory import MemoryModule

ENTRIES = 100_000
WRITTEN_TO = 10_000
AT_ONCE = 1_000
BATCH = 100
LIVED = timedelta(hours=1)
Questions = dict[str, Callable[[MemoryModule], Any]]

QUESTIONS: Questions = {
    "newest 50 of a category": lambda memory: memory.search_memories(category="conversations", limit=50),
    "newest 20 of a common tag": lambda memory: memory.search_memories(tags=[COMMON_TAG], limit=20),
    "count of a category": lambda memory: memory.count_memories(category="conversations"),
    "count of all": lambda memory: memory.count_memories(),
    "preferences": lambda memory: memory.get_user_preferences(),
    "one of a key": lambda memory: memory.search_memories(key=record(77).key, limit=1),
}


class Clock:
    """A clock that is told."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        """Return the time it was set to."""
        return self.now


def creates(directory: Path, entries: int, rounds: int, *, durable: bool) -> dict[str, Any]:
    """Return the figures of a create with a time to live and of one without, in turns on one store."""
    memory = MemoryModule(storage_dir=directory / f"create {durable}", durability="full" if durable else "normal")
    _fill(memory, range(entries), None)
    taken: dict[str, list[list[int]]] = {"with a ttl": [], "without": []}
    number = entries
    for turn in range(rounds + 1):
        for name, ttl in (("with a ttl", LIVED), ("without", None)):
            figures = []
            for _ in range(40):
                number += 1
                start = time.perf_counter_ns()
                memory.create_memory(*record(number)[:5], tags=record(number).tags, ttl=ttl)
                figures.append(time.perf_counter_ns() - start)
            if turn:
                taken[name].append(figures)
    memory.shutdown()
    return {name: harness.statistics_of(figures) for name, figures in taken.items()}


def reads(directory: Path, entries: int, times: int) -> dict[str, Any]:
    """Return the figures of each question to a store of which half has expired, and to one of the other half."""
    clock = Clock()
    stores = {
        name: MemoryModule(storage_dir=directory / name, durability="normal", clock=clock) for name in ("half", "other")
    }
    for start in range(0, entries, AT_ONCE):
        numbers = range(start, min(start + AT_ONCE, entries))
        _fill(stores["half"], numbers, lambda number: None if _stays(number) else LIVED)
        _fill(stores["other"], filter(_stays, numbers), None)
    clock.now += LIVED * 2
    found = _asked(stores, times)
    before = _size(directory / "half")
    purged, taken = 0, []
    while True:
        start_ns = time.perf_counter_ns()
        last = stores["half"].store.purge_expired(limit=BATCH)
        if not last:
            break
        taken.append((time.perf_counter_ns() - start_ns) / last)
        purged += last
    if purged != sum(not _stays(number) for number in range(entries)):
        raise RuntimeError("something else was purged than has expired")
    results = {
        "expired": found,
        "purged": _asked(stores, times),
        "purge_us_an_entry": round(sorted(taken)[len(taken) // 2] / 1000, 2),
        "bytes_before": before,
    }
    memory = stores["other"]
    memory_id = memory.list_memories(limit=1)[0].id
    begin = time.perf_counter()
    receipt = memory.erase_memory(memory_id)
    results["erase_seconds"] = round(time.perf_counter() - begin, 3)
    if receipt.searched is None or receipt.searched.found:
        raise RuntimeError("something is left of what was erased")
    for each in stores.values():
        each.shutdown()
    return results


def _stays(number: int) -> bool:
    """Choose half of all numbers, of every kind of entry about the half (multiplicative hashing)."""
    return bool(number * 2_654_435_761 >> 16 & 1)


def _fill(memory: MemoryModule, numbers: Any, lifetime_of: Callable[[int], timedelta | None] | None) -> None:
    with memory.transaction():
        for number in numbers:
            made = record(number)
            ttl = lifetime_of(number) if lifetime_of else None
            memory.create_memory(*made[:5], tags=made.tags, ttl=ttl)


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


def _asked(stores: dict[str, MemoryModule], times: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for title, ask in QUESTIONS.items():
        if _shape(ask(stores["half"])) != _shape(ask(stores["other"])):
            raise RuntimeError(f"the stores answer differently: {title}")
        taken: dict[str, list[list[int]]] = {name: [] for name in stores}
        for turn in range(times + 1):
            for name, memory in stores.items():
                figures = []
                for _ in range(10):
                    start = time.perf_counter_ns()
                    ask(memory)
                    figures.append(time.perf_counter_ns() - start)
                if turn:
                    taken[name].append(figures)
        found[title] = {name: harness.statistics_of(figures) for name, figures in taken.items()}
    return found


def _shape(answer: Any) -> Any:
    return [entry.key for entry in answer] if isinstance(answer, list) else answer


def goals(results: dict[str, Any]) -> list[Goal]:
    """Return each ratio beside what is wanted of it."""
    found = []
    for title, figures in results["creates"].items():
        ours, other = figures["with a ttl"]["median_us"], figures["without"]["median_us"]
        what, ratio = f"a create with a ttl, {title}", round(ours / other, 3)
        found.append(Goal(what, WRITTEN_TO, ours, other, "µs", ratio, at_most=1.15, beside="a create without"))
    entries = results["entries"]
    for state, wanted, beside in (("expired", 5.0, "a store of the other half"), ("purged", 1.25, "the same, purged")):
        for title, figures in results["reads"][state].items():
            ours, other = figures["half"]["median_us"], figures["other"]["median_us"]
            what = f"{title}, half of all {state}"
            found.append(Goal(what, entries, ours, other, "µs", round(ours / other, 3), at_most=wanted, beside=beside))
    reads = results["reads"]
    found.append(
        Goal("purging, an entry", entries, None, None, "", reads["purge_us_an_entry"], at_most=200, figure_unit="µs")
    )
    found.append(
        Goal(
            "one memory is erased in", entries // 2, None, None, "", reads["erase_seconds"], at_most=2, figure_unit="s"
        )
    )
    return found


def main() -> None:
    """Measure and check in."""
    chosen = harness.options(__doc__, entries=str(ENTRIES))
    machine = harness.machine()
    entries = 2_000 if chosen.quick else int(chosen.entries)
    rounds = 3 if chosen.quick else 20
    with harness.stores() as stores, stores.own("jarvis", 0) as directory:
        few = min(entries, WRITTEN_TO)
        results = {
            "creates": {
                "durable": creates(directory, few, rounds, durable=True),
                "without sync": creates(directory, few, rounds, durable=False),
            },
            "entries": entries,
            "reads": reads(directory, entries, 3 if chosen.quick else 10),
        }
    harness.publish("forgetting", machine, {"jarvis": Jarvis.versions()}, results, goals(results), write=chosen.write)


if __name__ == "__main__":
    main()
