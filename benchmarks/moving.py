"""How fast do memories leave a store, come into another one, and how fast are they copied, verified and repaired?

Each step runs in a process of its own, on the store that `create_memories` has just filled in the same way.

python -m benchmarks.moving [--quick] [--write] [--entries N]
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import harness, new_process
from benchmarks.harness import Goal
from benchmarks.systems.jarvis_sqlite import Jarvis

ENTRIES = 1_000_000
FEW = 10_000
_BEGIN = """
import json, os, sys, time
from benchmarks.peak import peak_kib
from jarvis.persistent_memory import MemoryModule
where, count = sys.argv[1], int(sys.argv[2])
def opened(name):
    memory = MemoryModule(storage_dir=f"{where}/{name}", durability="normal")
    memory.bootstrap()
    return memory
"""
_END = """
print(json.dumps({"seconds": seconds, "peak_kib": peak_kib()}))
"""
FILL = f"""{_BEGIN}
from benchmarks.corpus import record
from benchmarks.systems.jarvis_sqlite import Jarvis
memory = opened("store")
system, seconds = Jarvis(memory), 0.0
for start in range(0, count, 1_000):
    made = [record(number) for number in range(start, min(start + 1_000, count))]
    before = time.perf_counter()
    system.bulk(made)
    seconds += time.perf_counter() - before
{_END}"""
STEPS = {
    "export": 'memory.store.export(f"{where}/present.jsonl", history=False)',
    "export with the past": 'memory.store.export(f"{where}/all.jsonl")',
    "import": 'opened("imported").store.import_(f"{where}/all.jsonl")',
    "digest": "memory.store.digest()",
    "backup": 'memory.store.back_up(f"{where}/backup")',
    "verify": "assert not memory.store.verify().problems",
    "repair": 'memory.shutdown(); memory.store.repair(f"{where}/repaired")',
}


def _measured(program: str, directory: Path, entries: int) -> dict[str, float]:
    said: dict[str, float] = json.loads(" ".join(new_process.said_by(program, directory, entries)))
    return said


def _program(step: str) -> str:
    return f"""{_BEGIN}
memory = opened("store")
memory.count_memories()
start = time.perf_counter()
{step}
seconds = time.perf_counter() - start
{_END}"""


def measure(entries: int, few: int) -> dict[str, Any]:
    """Return the figures of every step at both sizes."""
    results: dict[str, Any] = {"entries": entries, "few": few}
    with harness.stores() as stores:
        for size in (few, entries):
            with stores.own("jarvis", 0) as directory:
                results[f"fill {size}"] = _measured(FILL, directory, size)
                results[f"bytes {size}"] = sum(each.stat().st_size for each in (directory / "store").iterdir())
                for name, step in STEPS.items():
                    results[f"{name} {size}"] = _measured(_program(step), directory, size)
    return results


def goals(results: dict[str, Any]) -> list[Goal]:
    """Return each figure beside what is wanted of it."""
    entries, few = results["entries"], results["few"]
    megabytes = results[f"bytes {entries}"] / 1_000_000

    def alone(what: str, amount: float, least: float) -> Goal:
        return Goal(what, entries, None, None, "", round(amount), at_least=least, figure_unit="")

    def of(name: str, size: int = entries, figure: str = "seconds") -> float:
        return float(results[f"{name} {size}"][figure])

    def beside(what: str, ours: str, other: str, least: float, called: str) -> Goal:
        one, two = (of(name) * 1_000_000 / entries for name in (ours, other))
        return Goal(what, entries, one, two, "µs", round(two / one, 3), at_least=least, beside=called)

    def peak(name: str) -> Goal:
        ours, other = of(name, figure="peak_kib"), of(name, few, "peak_kib")
        beside = f"of {few:,}"
        return Goal(f"peak memory of {name}", entries, ours, other, "KiB", round(ours / other, 3), 1.5, beside=beside)

    return [
        alone("entries a second are exported", entries / of("export"), 100_000),
        alone("entries a second are exported with the past", entries / of("export with the past"), 100_000),
        peak("export"),
        beside("an import, an entry", "import", "fill", 0.7, "create_memories"),
        peak("import"),
        alone("MB a second are backed up", megabytes / of("backup"), 100),
        alone("MB a second are verified", megabytes / of("verify"), 50),
        beside("a repair, an entry", "repair", "import", 1.0, "an import"),
    ]


def main() -> None:
    """Measure and check in."""
    chosen = harness.options(__doc__, entries=str(ENTRIES))
    machine = harness.machine()
    entries, few = (20_000, 2_000) if chosen.quick else (int(chosen.entries), FEW)
    results = measure(entries, few)
    harness.publish("moving", machine, {"jarvis": Jarvis.versions()}, results, goals(results), write=chosen.write)


if __name__ == "__main__":
    main()
