"""How many durable creates a second come from many threads of one process?

python -m benchmarks.many_threads [--quick] [--write]
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.corpus import record
from benchmarks.harness import Goal
from benchmarks.systems import open_system
from benchmarks.systems.system import System

COMPARED = ("raw", "jarvis")
ONE_FOR_ALL = ("jarvis",)
"""Systems whose threads share one object; in the others each thread opens the store for itself."""

THREADS = (1, 2, 8, 32)
RECORDS = [record(number) for number in range(4_096)]


class Round:
    """The threads of one round, which begin together and stop when the seconds are over."""

    def __init__(self, work: Work, threads: int, seconds: float) -> None:
        self._work = work
        self._seconds = seconds
        self._all_ready = threading.Barrier(threads + 1)
        self.errors: Counter[str] = Counter()
        self.acknowledged: list[list[Any]] = [[] for _ in range(threads)]
        self.taken: list[list[int]] = [[] for _ in range(threads)]
        self._threads = [threading.Thread(target=self._create, args=(place,)) for place in range(threads)]

    def run(self) -> float:
        """Run it; return how many seconds it took."""
        for thread in self._threads:
            thread.start()
        self._all_ready.wait()
        start = time.perf_counter()
        for thread in self._threads:
            thread.join()
        return time.perf_counter() - start

    def _create(self, place: int) -> None:
        clock = time.perf_counter_ns
        acknowledged, taken = self.acknowledged[place], self.taken[place]
        with self._work.opened_for_a_thread() as system:
            try:
                acknowledged.append(system.create(RECORDS[place]))  # opens what is opened at the first call
            except BaseException:
                self._all_ready.abort()  # else all others would wait for ever
                raise
            self._all_ready.wait()
            end = time.monotonic() + self._seconds
            while time.monotonic() < end:
                each = RECORDS[(place * 97 + len(taken)) % len(RECORDS)]
                start = clock()
                try:
                    acknowledged.append(system.create(each))
                except Exception as error:  # noqa: BLE001 - it is counted and reported
                    self.errors[f"{type(error).__name__}: {error}"] += 1
                taken.append(clock() - start)


class Work:
    """What one process does: rounds of creates, and at the end a look whether all are there."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.system = open_system(name, directory, durable=True)
        self.ids: list[Any] = []

    @contextmanager
    def opened_for_a_thread(self) -> Iterator[System]:
        """Lend a thread what it stores by."""
        if self.name in ONE_FOR_ALL:
            yield self.system
        else:
            own = open_system(self.name, self.directory, durable=True)
            try:
                yield own
            finally:
                own.close()

    def round(self, threads: int, seconds: float) -> dict[str, Any]:
        """Create from so many threads; return how many, how fast, how long each took, and the errors."""
        run = Round(self, threads, seconds)
        elapsed = run.run()
        for ids in run.acknowledged:
            self.ids += ids
        microseconds = sorted(each / 1000 for taken in run.taken for each in taken)
        return {
            "creates_a_second": (len(microseconds) - run.errors.total()) / elapsed,
            "p50_us": statistics.median(microseconds),
            "p99_us": microseconds[min(len(microseconds) - 1, int(len(microseconds) * 0.99))],
            "errors": dict(run.errors),
        }

    def end(self) -> dict[str, int]:
        """Close, open again, and return how many were acknowledged, and how many of those are not there."""
        self.system.close()
        again = open_system(self.name, self.directory, durable=True)
        lost = 0
        for each in self.ids:
            try:
                again.get(each)
            except (LookupError, TypeError):
                lost += 1
        more = len(again.everything()) - (len(self.ids) - lost)
        again.close()
        return {"acknowledged": len(self.ids), "lost": lost, "never acknowledged": more}


def work(name: str, directory: Path) -> None:
    """Answer each line ``THREADS SECONDS`` with the figures of a round; at the end of the input, look for all."""
    process = Work(name, directory)
    _say({"versions": process.system.versions()})
    for line in sys.stdin:
        threads, seconds = line.split()
        _say(process.round(int(threads), float(seconds)))
    _say(process.end())


def _say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def measure(stores: harness.Stores, rounds: int, seconds: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the figures by system and number of threads, and the versions by system."""
    processes: list[harness.Process] = []
    taken: dict[str, dict[int, list[dict[str, Any]]]] = {name: {each: [] for each in THREADS} for name in COMPARED}
    with harness.ending(processes), ExitStack() as stack:
        for name in COMPARED:
            directory = stack.enter_context(stores.own(name, 0))
            processes.append(harness.Process(name, "benchmarks.many_threads", "work", name, directory))
        for turn in range(rounds + 1):
            for threads in THREADS:
                for process in processes if turn % 2 else reversed(processes):
                    found = process.ask(threads, seconds if turn else 0.2)
                    if turn:
                        taken[process.system][threads].append(found)
        results = {process.system: {**_medians(taken[process.system]), **process.close()} for process in processes}
    return results, {process.system: process.greeting["versions"] for process in processes}


def _medians(taken: dict[int, list[dict[str, Any]]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for threads, rounds in taken.items():
        errors: Counter[str] = Counter()
        for each in rounds:
            errors.update(each["errors"])
        table[f"{threads} threads"] = {
            name: round(statistics.median(each[name] for each in rounds), 1)
            for name in ("creates_a_second", "p50_us", "p99_us")
        } | {"errors": dict(errors)}
    return table


def goals(results: dict[str, Any]) -> list[Goal]:
    """Return how the rate grows with the threads beside what is wanted."""
    rates = {threads: results["jarvis"][f"{threads} threads"]["creates_a_second"] for threads in THREADS}
    return [
        Goal(
            f"durable creates a second, {threads} threads",
            None,
            rates[threads],
            rates[1],
            "",
            round(rates[threads] / rates[1], 2),
            at_least=wanted,
            beside="one thread",
        )
        for threads, wanted in ((8, 2.0), (32, 3.0))
    ]


def main() -> None:
    """Measure and check in; fail if ours lost an entry or raised an error."""
    chosen = harness.options(__doc__)
    machine = harness.machine()
    with harness.stores() as stores:
        results, versions = measure(stores, *((2, 0.4) if chosen.quick else (7, 1.0)))
    for name, table in results.items():
        for threads in THREADS:
            each = table[f"{threads} threads"]
            print(
                f"{name:<8} {threads:>3} threads {each['creates_a_second']:>9,.0f} creates a second"
                f"   p50 {each['p50_us']:>9,.0f} µs   p99 {each['p99_us']:>9,.0f} µs   errors {each['errors'] or 0}"
            )
        print(f"{name:<8} {table['acknowledged']:,} acknowledged, {table['lost']} of them lost")
    harness.publish("many_threads", machine, versions, results, goals(results), write=chosen.write)
    ours = results["jarvis"]
    if ours["lost"] or ours["never acknowledged"] or any(ours[f"{each} threads"]["errors"] for each in THREADS):
        sys.exit(f"many_threads: errors, losses or entries that nobody made: {ours}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        work(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
