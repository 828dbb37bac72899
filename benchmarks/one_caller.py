"""How long does one call take, beside the same call by hand and in the libraries one might take instead?

python -m benchmarks.one_caller [--sizes 10000,100000] [--systems raw,jarvis] [--workloads get,key] [--rounds 7]
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import Any

from benchmarks import harness
from benchmarks.systems import SYSTEMS
from benchmarks.workloads import WORKLOADS

FEW = 3
"""Rounds of a workload whose every call takes long."""


def measure(sizes: list[int], systems: list[str], workloads: list[str], rounds: int) -> dict[str, Any]:
    """Return the figures by size, workload and system."""
    results: dict[str, Any] = {}
    with harness.stores() as stores:
        for size in sizes:
            table = results.setdefault(str(size), {})
            for name in workloads:
                if WORKLOADS[name].only_at in (None, size):
                    present = [system for system in systems if size <= SYSTEMS[system].largest]
                    table[name] = _one(stores, name, size, present, rounds)
                    _print(size, name, table[name])
    return results


def _one(stores: harness.Stores, name: str, size: int, systems: list[str], rounds: int) -> dict[str, Any]:
    workload = WORKLOADS[name]
    with ExitStack() as stack:
        workers = []
        for system in systems:
            if workload.store == "shared":
                directory = stores.shared(system, size)
            else:
                directory = stack.enter_context(stores.own(system, size if workload.store == "own" else 0))
            workers.append(harness.Worker(system, name, size, directory))
        taken = harness.alternate(workers, rounds, workload.calls_a_round)
        peaks = {worker.system: worker.close() for worker in workers}
    found: dict[str, Any] = {
        system: {**harness.statistics_of(calls, workload.each), "peak_kib": peaks[system]}
        for system, calls in taken.items()
    }
    for system in found:
        if "raw" in found:
            found[system]["ratio"] = round(found[system]["median_us"] / found["raw"]["median_us"], 3)
    return found


def _print(size: int, name: str, found: dict[str, Any]) -> None:
    cells = "  ".join(
        f"{system} {each['median_us']:,.1f} µs" + (f" (x{each['ratio']:.2f})" if "ratio" in each else "")
        for system, each in found.items()
    )
    goal = WORKLOADS[name].goal
    print(f"{size:>9,} {WORKLOADS[name].title:<36} {cells}   goal {goal[0] if goal else '-'}", flush=True)


def main() -> None:
    """Measure and check in."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default="10000,100000")
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="check the figures in")
    options = parser.parse_args()
    machine = harness.machine()
    results = measure(
        [int(size) for size in options.sizes.split(",")],
        options.systems.split(","),
        options.workloads.split(","),
        options.rounds,
    )
    if options.write:
        harness.write("one_caller", {"machine": machine, "results": results})


if __name__ == "__main__":
    main()
