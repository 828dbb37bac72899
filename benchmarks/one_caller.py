"""How long does one call take, beside the same call by hand and in the libraries one might take instead?

python -m benchmarks.one_caller [--sizes 10000,100000] [--systems raw,jarvis] [--workloads get,key] [--rounds 21]
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, NamedTuple

from benchmarks import harness
from benchmarks.systems import SYSTEMS
from benchmarks.workloads import WORKLOADS

CLAIMED = (10_000, 100_000)
"""Sizes that the goals are for; others show how it grows, and what systems cost that cannot hold more."""


class Pace(NamedTuple):
    """How many rounds are measured, and after how many seconds one is cut short."""

    rounds: int
    seconds: float = harness.SECONDS_A_ROUND


def measure(
    stores: harness.Stores, sizes: list[int], systems: list[str], workloads: list[str], pace: Pace
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the figures by size, workload and system, and the versions by system."""
    results: dict[str, Any] = {}
    versions: dict[str, Any] = {}
    for size in sizes:
        table = results.setdefault(str(size), {})
        for name in workloads:
            if WORKLOADS[name].only_at in (None, size):
                present = [system for system in systems if size <= SYSTEMS[system].largest]
                table[name] = _one(stores, name, size, present, pace, versions)
                _print(size, name, table[name])
    return results, versions


def _one(
    stores: harness.Stores, name: str, size: int, systems: list[str], pace: Pace, versions: dict[str, Any]
) -> dict[str, Any]:
    workload = WORKLOADS[name]
    workers: list[harness.Worker] = []
    with harness.ending(workers), ExitStack() as stack:
        for system in systems:
            if workload.store == "shared":
                directory = stores.shared(system, size)
            else:
                directory = stack.enter_context(stores.own(system, size if workload.store == "own" else 0))
            workers.append(harness.Worker(system, name, size, directory))
            versions[system] = workers[-1].versions
        rounds = min(pace.rounds, workload.rounds)
        taken = harness.alternate(workers, rounds, workload.calls_a_round, pace.seconds)
        peaks = [worker.close()["peak_kib"] for worker in workers]
    found: dict[str, Any] = {
        system: {**harness.statistics_of(calls, workload.each), "peak_kib": peak}
        for system, calls, peak in zip(systems, taken, peaks, strict=True)
    }
    for system in found:
        if "raw" in found:
            found[system]["ratio"] = round(found[system]["median_us"] / found["raw"]["median_us"], 3)
    return found


def _print(size: int, name: str, found: dict[str, Any]) -> None:
    cells = "   ".join(
        f"{system} {harness.amount(each['median_us'], 'µs')}"
        + (f" ({harness.amount(each['ratio'], 'x')})" if "ratio" in each and system != "raw" else "")
        for system, each in found.items()
    )
    print(f"{size:>9,} {WORKLOADS[name].title:<36} {cells}", flush=True)


def goals(results: dict[str, Any]) -> list[harness.Goal]:
    """Return our ratios to the store by hand beside what is wanted of them, at the sizes that the goals are for."""
    found = []
    for size in CLAIMED:
        for name, systems in results.get(str(size), {}).items():
            wanted = WORKLOADS[name].goal
            if wanted is not None and "jarvis" in systems and "raw" in systems:
                ours, other = (systems[system]["median_us"] for system in ("jarvis", "raw"))
                title, ratio = WORKLOADS[name].title, systems["jarvis"]["ratio"]
                found.append(harness.Goal(title, size, ours, other, "µs", ratio, at_most=wanted[0]))
    return found


def main() -> None:
    """Measure and check in."""
    chosen = harness.options(
        __doc__,
        sizes="1000,10000,100000",
        systems=",".join(SYSTEMS),
        workloads=",".join(WORKLOADS),
        rounds=str(harness.MANY),
    )
    machine = harness.machine()
    with harness.stores() as stores:
        results, versions = measure(
            stores,
            [1_000, 10_000] if chosen.quick else [int(size) for size in chosen.sizes.split(",")],
            chosen.systems.split(","),
            chosen.workloads.split(","),
            Pace(2, 0.2) if chosen.quick else Pace(int(chosen.rounds)),
        )
    harness.publish("one_caller", machine, versions, results, goals(results), write=chosen.write)


if __name__ == "__main__":
    main()
