"""Does a call take longer when the store is larger?

The stores of all sizes are asked in turns. What writes comes last, and works on the stores themselves: a
copy would be looked through at its first opening.

python -m benchmarks.growth [--quick] [--write]
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import harness, new_process
from benchmarks.harness import Goal
from benchmarks.workloads import WORKLOADS

SIZES = (1_000, 10_000, 100_000, 1_000_000)
READS = ("get", "key", "category", "common-tag", "rare-tag", "newest-tasks")
WRITES = ("create", "update")
BASES = {"rare-tag": 10_000}
"""What a workload is compared to, if not to 1,000 entries: ten have the rare tag from 10,000 on."""

USUAL_BASE = 1_000
GETS = 1_000
OPEN = """
import sys, time
from jarvis.persistent_memory import MemoryModule
with MemoryModule(storage_dir=sys.argv[2]) as other:  # imports what is imported at the first opening
    other.get_memory("none")
start = time.perf_counter_ns()
memory = MemoryModule(storage_dir=sys.argv[1])
memory.bootstrap()
print(time.perf_counter_ns() - start)
memory.shutdown()
"""


def _workload(stores: harness.Stores, name: str, sizes: list[int], rounds: int, versions: dict[str, Any]) -> Any:
    workers: list[harness.Worker] = []
    with harness.ending(workers):
        for size in sizes:
            workers.append(harness.Worker("jarvis", name, size, stores.shared("jarvis", size)))
        taken = harness.alternate(workers, rounds, WORKLOADS[name].calls_a_round)
        versions["jarvis"] = workers[0].versions
        for worker in workers:
            worker.close()
    return {str(size): harness.statistics_of(calls) for size, calls in zip(sizes, taken, strict=True)}


def _opening_ms(directory: Path, other: Path) -> float:
    return int(new_process.said_by(OPEN, directory, other)[0]) / 1_000_000


def measure(sizes: list[int], rounds: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the figures by what is done and size, and the versions."""
    results: dict[str, Any] = {}
    versions: dict[str, Any] = {}
    with harness.stores() as stores, stores.own("jarvis", 0) as empty, stores.own("jarvis", 0) as other:
        directories = {str(size): stores.shared("jarvis", size) for size in sizes}
        for name in READS:
            asked = [size for size in sizes if size >= BASES.get(name, USUAL_BASE)]
            results[name] = _workload(stores, name, asked, rounds, versions)
        opened = {"0": empty, **directories}
        ways = {size: partial(_opening_ms, directory, other) for size, directory in opened.items()}
        results["opening"] = new_process.alternately(rounds, ways)
        peaks = {
            size: partial(new_process.peak_of_gets, "jarvis", directory, GETS)
            for size, directory in directories.items()
        }
        results["peak memory"] = new_process.alternately(3, peaks)
        for name in WRITES:
            results[name] = _workload(stores, name, sizes, rounds, versions)
    return results, versions


def goals(results: dict[str, Any]) -> list[Goal]:
    """Return the figures of the larger stores over those of the smallest, beside what is wanted."""
    found = []
    for name in (*READS, *WRITES):
        figures = {int(size): figure["median_us"] for size, figure in results[name].items()}
        found += _growth(WORKLOADS[name].title, figures, "µs", BASES.get(name, USUAL_BASE))
    peaks = {int(size): figure["median"] for size, figure in results["peak memory"].items()}
    found += _growth(f"peak memory, {GETS:,} gets", peaks, "KiB", USUAL_BASE)
    opening = {int(size): figure["median"] for size, figure in results["opening"].items()}
    size = max(opening)
    ratio = round(opening[size] / opening[0], 3)
    found.append(Goal("opening", size, opening[size], opening[0], "ms", ratio, at_most=2.0, beside="an empty store"))
    return found


def _growth(what: str, figures: dict[int, float], unit: str, base: int) -> list[Goal]:
    return [
        Goal(
            what,
            size,
            figure,
            figures[base],
            unit,
            round(figure / figures[base], 3),
            at_most=1.5 if size <= 100_000 else 3.0,
            beside=f"{base:,} entries",
        )
        for size, figure in figures.items()
        if size > base
    ]


def main() -> None:
    """Measure and check in."""
    chosen = harness.options(__doc__, sizes=",".join(map(str, SIZES)))
    machine = harness.machine()
    sizes = [1_000, 10_000] if chosen.quick else [int(size) for size in chosen.sizes.split(",")]
    results, versions = measure(sizes, 2 if chosen.quick else harness.MANY)
    harness.publish("growth", machine, versions, results, goals(results), write=chosen.write)


if __name__ == "__main__":
    main()
