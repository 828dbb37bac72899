"""What do many processes get done on one store at once, how fairly, and is everything there afterwards?

Eight tenths of what a process does are reads (of its own entries, of others', by key), the rest durable
writes: creates, and at every tenth one of five preferences that all share.

python -m benchmarks.many_processes [--quick] [--write]
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.corpus import record
from benchmarks.harness import Goal
from benchmarks.systems import open_system
from benchmarks.worker import ids_of

COMPARED = ("raw", "jarvis")
PROCESSES = (2, 4, 8)
ENTRIES = 1_000
READS = 0.8
PREFERENCES = tuple(f"shared-preference-{number}" for number in range(5))
PREFERENCE_EVERY = 10
RECORDS = [record(number) for number in range(2 * ENTRIES)]


class Work:
    """What one of the processes does, and what came of it in one round."""

    def __init__(self, name: str, directory: Path, number: int) -> None:
        self.system = open_system(name, directory, durable=True)
        self._others: list[Any] = ids_of(directory)
        self._own: list[Any] = [self._others[number]]
        self._number = number
        self._writes = 0
        self._done: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._acknowledged: list[Any] = []
        self._worst_write = 0.0

    def round(self, turn: int, seconds: float) -> dict[str, Any]:
        """Read and write until the seconds are over; return what was done."""
        self._done, self._errors, self._acknowledged, self._worst_write = Counter(), Counter(), [], 0.0
        choice = random.Random(f"{self._number} {turn}")
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            try:
                if choice.random() < READS:
                    self._read(choice)
                else:
                    self._write(choice)
            except Exception as error:  # noqa: BLE001 - it is counted and reported
                self._errors[f"{type(error).__name__}: {error}"] += 1
        return {
            "done": dict(self._done),
            "seconds": time.perf_counter() - start,
            "worst_write_seconds": self._worst_write,
            "errors": dict(self._errors),
            "ids": self._acknowledged,
        }

    def _read(self, choice: random.Random) -> None:
        kind = choice.randrange(3)
        if kind == 0:
            self.system.get(choice.choice(self._own))
        elif kind == 1:
            self.system.get(choice.choice(self._others))
        else:
            self.system.get_by_key(RECORDS[choice.randrange(ENTRIES)].key)
        self._done["reads"] += 1

    def _write(self, choice: random.Random) -> None:
        self._writes += 1
        new = RECORDS[choice.randrange(len(RECORDS))]
        start = time.perf_counter()
        try:
            if self._writes % PREFERENCE_EVERY == 0:
                self.system.set_preference(choice.choice(PREFERENCES), new.value)
                self._done["upserts"] += 1
            else:
                entry_id = self.system.create(new)
                self._own.append(entry_id)
                self._acknowledged.append(entry_id)
                self._done["creates"] += 1
        finally:
            self._worst_write = max(self._worst_write, time.perf_counter() - start)


def work(name: str, directory: Path, number: int) -> None:
    """Answer each line ``TURN SECONDS`` with what was done in that round; leave at the end of the input."""
    process = Work(name, directory, number)
    _say({"versions": process.system.versions()})
    for line in sys.stdin:
        turn, seconds = line.split()
        _say(process.round(int(turn), float(seconds)))
    process.system.close()
    _say({})


def _say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def measure(
    stores: harness.Stores, counts: tuple[int, ...], rounds: int, seconds: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the figures by system and number of processes, and the versions by system."""
    processes: list[harness.Process] = []
    taken: dict[str, dict[int, list[Any]]] = {name: {count: [] for count in counts} for name in COMPARED}
    with harness.ending(processes), ExitStack() as stack:
        stored = {name: stack.enter_context(stores.own(name, ENTRIES)) for name in COMPARED}
        for name, directory in stored.items():
            for number in range(max(counts)):
                module = "benchmarks.many_processes"
                processes.append(harness.Process(name, module, "work", name, directory, number))
        groups = {name: [each for each in processes if each.system == name] for name in COMPARED}
        for turn in range(rounds + 1):
            for count in counts:
                for name in COMPARED if turn % 2 else reversed(COMPARED):
                    taken[name][count].append(_together(groups[name][:count], turn, seconds if turn else 0.3))
        for process in processes:
            process.close()
        results = {name: _sum_up(name, taken[name], directory) for name, directory in stored.items()}
    return results, {name: group[0].greeting["versions"] for name, group in groups.items()}


def _together(group: list[harness.Process], turn: int, seconds: float) -> list[dict[str, Any]]:
    for process in group:
        process.tell(turn, seconds)
    return [process.answer() for process in group]


def _sum_up(name: str, taken: dict[int, list[Any]], directory: Path) -> dict[str, Any]:
    """Return the figures of one system, of all rounds but the first, and what its store holds at the end."""
    table: dict[str, Any] = {}
    for count, rounds in taken.items():
        errors: Counter[str] = Counter()
        for process in (each for turn in rounds for each in turn):
            errors.update(process["errors"])
        table[f"{count} processes"] = {
            "creates_a_second": round(statistics.median(_rate(turn, "creates") for turn in rounds[1:]), 1),
            "upserts_a_second": round(statistics.median(_rate(turn, "upserts") for turn in rounds[1:]), 1),
            "reads_a_second": round(statistics.median(_rate(turn, "reads") for turn in rounds[1:]), 1),
            "slowest_to_fastest": round(statistics.median(map(_fairness, rounds[1:])), 3),
            "worst_write_seconds": round(max(p["worst_write_seconds"] for turn in rounds[1:] for p in turn), 3),
            "errors": dict(errors),
        }
    ids = [each for rounds in taken.values() for turn in rounds for process in turn for each in process["ids"]]
    return {**table, **_look(name, directory, ids)}


def _rate(turn: list[dict[str, Any]], kind: str) -> float:
    return sum(float(process["done"].get(kind, 0) / process["seconds"]) for process in turn)


def _fairness(turn: list[dict[str, Any]]) -> float:
    done = [Counter(process["done"]).total() for process in turn]
    return min(done) / max(done)


def _look(name: str, directory: Path, ids: list[Any]) -> dict[str, int]:
    """Open the store and return how many acknowledged entries are lost, and preferences that are there twice."""
    system = open_system(name, directory, durable=True)
    lost = 0
    for each in ids:
        try:
            system.get(each)
        except (LookupError, TypeError):
            lost += 1
    keys = Counter(touched[0] for touched in system.of_category("preferences", 1_000_000_000))
    system.close()
    twice = sum(keys[key] - 1 for key in PREFERENCES if keys[key] > 1)
    return {"acknowledged": len(ids), "lost": lost, "duplicate preferences": twice}


def goals(results: dict[str, Any], count: int) -> list[Goal]:
    """Return the figures at the greatest number of processes beside what is wanted of them."""
    ours, raw = (results[name][f"{count} processes"] for name in ("jarvis", "raw"))
    rates = (ours["creates_a_second"], raw["creates_a_second"])
    fair = (ours["slowest_to_fastest"], raw["slowest_to_fastest"])
    waits = (ours["worst_write_seconds"], raw["worst_write_seconds"])
    of = f"{count} processes"
    ratio = round(rates[0] / rates[1], 3)
    wrong = sum(results["jarvis"][f"{each}"] for each in ("lost", "duplicate preferences"))
    errors = sum(sum(table["errors"].values()) for table in _tables(results["jarvis"]))
    return [
        Goal(f"durable creates a second, {of}", ENTRIES, *rates, "", ratio, at_least=1.3),
        Goal(f"slowest process to the fastest, {of}", ENTRIES, *fair, "x", fair[0], at_least=0.8),
        Goal(f"longest wait of a write, {of}", ENTRIES, *waits, "s", waits[0], at_most=0.5, figure_unit="s"),
        Goal("errors, losses and duplicates", ENTRIES, None, None, "", wrong + errors, at_most=0, figure_unit=""),
    ]


def _tables(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [table for table in result.values() if isinstance(table, dict)]


def main() -> None:
    """Measure and check in; fail if ours lost or doubled an entry or raised an error."""
    chosen = harness.options(__doc__)
    machine = harness.machine()
    counts, rounds, seconds = ((2, 8), 2, 1.5) if chosen.quick else (PROCESSES, 5, 3.0)
    with harness.stores() as stores:
        results, versions = measure(stores, counts, rounds, seconds)
    for name, result in results.items():
        for count in counts:
            each = result[f"{count} processes"]
            print(
                f"{name:<8} {count} processes {each['creates_a_second']:>7,.0f} creates, "
                f"{each['upserts_a_second']:>5,.0f} upserts, {each['reads_a_second']:>7,.0f} reads a second   "
                f"slowest/fastest {each['slowest_to_fastest']:.2f}   longest write {each['worst_write_seconds']:.2f} s"
                f"   errors {each['errors'] or 0}"
            )
        print(
            f"{name:<8} {result['acknowledged']:,} acknowledged, {result['lost']} of them lost, "
            f"{result['duplicate preferences']} duplicate preferences"
        )
    verdicts = goals(results, counts[-1])
    harness.publish("many_processes", machine, versions, results, verdicts, write=chosen.write)
    if not verdicts[-1].is_met:
        sys.exit("many_processes: errors, losses or duplicates, see above")


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        work(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
