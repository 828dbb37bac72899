"""How long does it take to count all that a store holds, and how much memory does that need?

python -m benchmarks.analytics [--quick] [--write] [--sizes N,N]
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import harness, new_process
from benchmarks.harness import Goal
from benchmarks.systems.jarvis_sqlite import Jarvis

SIZES = (10_000, 100_000, 1_000_000)
ROUNDS = 3
MOST_MS, MOST_MIB, MOST_KB = 10_000, 256, 20
"""The goals at the largest size: at most ten seconds, and a short report."""

COUNT = """
import sys, time
import msgspec
from jarvis.persistent_memory import MemoryModule
from benchmarks.peak import peak_kib
memory = MemoryModule(storage_dir=sys.argv[1])
memory.count_memories()
start = time.perf_counter_ns()
report = memory.store.analytics()
taken = time.perf_counter_ns() - start
assert report.memories == int(sys.argv[2]), report.memories
print(taken / 1_000_000, peak_kib(), len(msgspec.json.encode(report)))
memory.shutdown()
"""
FIGURES = ("time", "peak memory", "report")


def _said(directory: Path, size: int, figure: int) -> float:
    return float(new_process.said_by(COUNT, directory, size)[figure])


def measure(sizes: list[int], rounds: int) -> dict[str, Any]:
    """Return milliseconds, KiB and bytes by size."""
    results: dict[str, Any] = {}
    with harness.stores() as stores:
        directories = {size: stores.shared("jarvis", size) for size in sizes}
        for number, figure in enumerate(FIGURES):
            ways = {str(size): partial(_said, path, size, number) for size, path in directories.items()}
            results[figure] = new_process.alternately(rounds, ways)
    return results


def goals(results: dict[str, Any]) -> list[Goal]:
    """Return the figures beside what is wanted of the largest store, in proportion to the size."""
    found = []
    for size in results["time"]:
        taken, peak, length = (results[figure][size]["median"] for figure in FIGURES)
        entries = int(size)
        each = round(taken * 1_000 / entries, 2)
        most = MOST_MS * 1_000 / max(SIZES)
        found.append(Goal("analytics, an entry", entries, taken, None, "ms", each, at_most=most, figure_unit="µs"))
        held = round(peak / 1024, 1)
        found.append(Goal("its peak memory", entries, None, None, "", held, at_most=MOST_MIB, figure_unit="MiB"))
        short = round(length / 1_000, 1)
        found.append(Goal("its report, as JSON", entries, None, None, "", short, at_most=MOST_KB, figure_unit="KB"))
    return found


def main() -> None:
    """Measure and check in."""
    chosen = harness.options(__doc__, sizes=",".join(map(str, SIZES)))
    machine = harness.machine()
    sizes = [1_000, 10_000] if chosen.quick else [int(size) for size in chosen.sizes.split(",")]
    results = measure(sizes, 1 if chosen.quick else ROUNDS)
    harness.publish("analytics", machine, {"jarvis": Jarvis.versions()}, results, goals(results), write=chosen.write)


if __name__ == "__main__":
    main()
