"""How long does it take to clean a store up, and how much memory?

Stores of two sizes are swept whole, by age, each in a process of its own; beside them the smaller one is emptied
by the loop that the specification gives: search, then delete one by one.

python -m benchmarks.sweeping [--quick] [--write] [--entries N]
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import harness, new_process
from benchmarks.corpus import record
from benchmarks.harness import Goal
from benchmarks.systems.jarvis_sqlite import Jarvis
from jarvis.persistent_memory import MemoryModule

ENTRIES = 1_000_000
FEW = 10_000
AT_ONCE = 1_000
OPEN = """
import json, sys, time
from datetime import UTC, datetime, timedelta
from benchmarks.corpus import CATEGORIES
from benchmarks.peak import peak_kib
from jarvis.persistent_memory import MemoryModule, RetentionRule
rules = [RetentionRule(category=category, max_age=timedelta(days=30)) for category in dict.fromkeys(CATEGORIES)]
memory = MemoryModule(storage_dir=sys.argv[1], retention=rules, clock=lambda: datetime(2100, 1, 1, tzinfo=UTC))
memory.bootstrap()
before, start = peak_kib(), time.perf_counter()
"""
SAY = """
seconds = time.perf_counter() - start
print(json.dumps({"entries": count, "seconds": seconds, "peak_kib": peak_kib(), "peak_before_kib": before}))
"""
SWEEP = f"{OPEN}count = memory.sweep().deleted{SAY}"
PLAN = f"{OPEN}count = memory.plan_retention().count{SAY}"
LOOP = f"""{OPEN}
count = 0
for rule in rules:
    old = memory.search_memories(category=rule.category)
    for task in old:
        count += memory.delete_memory(task.id)
{SAY}"""


def _filled(directory: Path, entries: int) -> None:
    with MemoryModule(storage_dir=directory, durability="normal") as memory:
        system = Jarvis(memory)
        for start in range(0, entries, AT_ONCE):
            system.bulk(record(number) for number in range(start, min(start + AT_ONCE, entries)))


def _measured(program: str, directory: Path, entries: int) -> dict[str, float]:
    said: dict[str, float] = json.loads(" ".join(new_process.said_by(program, directory)))
    if said["entries"] != entries:
        raise RuntimeError("something else was cleaned up than was there")
    said["us_an_entry"] = round(said["seconds"] * 1_000_000 / entries, 2)
    return said


def measure(entries: int, few: int) -> dict[str, Any]:
    """Return the figures of plans and sweeps of both sizes, and of the loop over the smaller one."""
    results: dict[str, Any] = {"entries": entries, "few": few}
    with harness.stores() as stores:
        for size in (few, entries):
            with stores.own("jarvis", 0) as directory:
                _filled(directory, size)
                results[f"plan {size}"] = _measured(PLAN, directory, size)
                results[f"sweep {size}"] = _measured(SWEEP, directory, size)
        with stores.own("jarvis", 0) as directory:
            _filled(directory, few)
            results["loop"] = _measured(LOOP, directory, few)
    return results


def goals(results: dict[str, Any]) -> list[Goal]:
    """Return each figure beside what is wanted of it."""
    entries, few = results["entries"], results["few"]
    large, small, loop = results[f"sweep {entries}"], results[f"sweep {few}"], results["loop"]
    plan = results[f"plan {entries}"]
    beside = f"a sweep of {few:,}"

    def goal(what: str, size: int, of: dict[str, float], to: dict[str, float], name: str, beside: str) -> Goal:
        unit, most = ("KiB", 1.2) if name == "peak_kib" else ("µs", 1.0 if to is loop else 3.0)
        return Goal(what, size, of[name], to[name], unit, round(of[name] / to[name], 3), at_most=most, beside=beside)

    return [
        goal("a sweep, an entry", few, small, loop, "us_an_entry", "deleted one by one"),
        goal("a sweep, an entry", entries, large, small, "us_an_entry", beside),
        goal("peak memory of a sweep", entries, large, small, "peak_kib", beside),
        # Beside a sweep: a plan of few does not even fill the driver's page cache.
        goal("peak memory of a plan", entries, plan, small, "peak_kib", beside),
        Goal(
            "entries a second are swept",
            entries,
            None,
            None,
            "",
            round(entries / large["seconds"]),
            at_least=5_000,
            figure_unit="",
        ),
    ]


def main() -> None:
    """Measure and check in."""
    chosen = harness.options(__doc__, entries=str(ENTRIES))
    machine = harness.machine()
    entries, few = (20_000, 2_000) if chosen.quick else (int(chosen.entries), FEW)
    results = measure(entries, few)
    harness.publish("sweeping", machine, {"jarvis": Jarvis.versions()}, results, goals(results), write=chosen.write)


if __name__ == "__main__":
    main()
