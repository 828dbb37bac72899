"""What does the readable file cost: a create beside one rewrite of the file, reads, and many writers?

python -m benchmarks.json_file [--quick] [--write]
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.corpus import record
from benchmarks.harness import Goal
from benchmarks.systems import open_system
from benchmarks.worker import ids_of

ENTRIES = 1_000
READS = 100
PROCESSES = 8


def _rewrite(path: Path, data: bytes) -> None:
    """Replace a file so that a power cut leaves the old bytes or the new ones."""
    draft = path.with_suffix(".draft")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _timed(calls: Iterator[Callable[[], Any]]) -> list[int]:
    clock = time.perf_counter_ns
    taken = []
    for call in calls:
        start = clock()
        call()
        taken.append(clock() - start)
    return taken


def _creates_and_rewrites(directory: Path, rounds: int) -> dict[str, Any]:
    """Create entries, and in the rounds between rewrite as many times the bytes that the file then has."""
    number = ENTRIES
    taken: dict[str, list[list[int]]] = {"jarvis-json": [], "one rewrite": []}
    system = open_system("jarvis-json", directory, durable=True)
    scratch = directory / "scratch"
    scratch.mkdir()
    for turn in range(rounds + 1):
        new = [record(number + step) for step in range(10)]
        number += len(new)
        created = _timed(_bound(system.create, new))
        data = (directory / "memory.json").read_bytes()
        rewritten = _timed(_bound(lambda held: _rewrite(scratch / "copy.json", held), [data] * len(new)))
        if turn:
            taken["jarvis-json"].append(created)
            taken["one rewrite"].append(rewritten)
    system.close()
    return {name: harness.statistics_of(calls) for name, calls in taken.items()} | {"bytes": len(data)}


def _bound(call: Callable[[Any], Any], arguments: list[Any]) -> Iterator[Callable[[], Any]]:
    for each in arguments:
        yield lambda each=each: call(each)  # type: ignore[misc]  # a lambda's default has no type


class _Opened:
    """Counts the files that this process opens (https://docs.python.org/3/library/audit_events.html)."""

    def __init__(self) -> None:
        self.number = 0
        self._is_counting = False
        sys.addaudithook(self._hear)  # it cannot be taken away again

    def _hear(self, event: str, _: tuple[Any, ...]) -> None:
        if self._is_counting and event == "open":
            self.number += 1

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count in this block."""
        self._is_counting = True
        try:
            yield
        finally:
            self._is_counting = False


def _opens_of_reads(directory: Path) -> int:
    ids = ids_of(directory)
    system = open_system("jarvis-json", directory, durable=True)
    opened = _Opened()
    system.get(ids[0])
    with opened.counting():
        for each in ids[:READS]:
            system.get(each)
    system.close()
    return opened.number


def work(directory: Path, place: int) -> None:
    """Answer each line ``COUNT`` with the ids of so many creates; leave at the end of the input."""
    system = open_system("jarvis-json", directory, durable=True)
    _say({"versions": system.versions()})
    for line in sys.stdin:
        _say({"ids": [system.create(record(1_000_000 * (place + 1) + step)) for step in range(int(line))]})
    system.close()
    _say({})


def _say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def _many_writers(directory: Path, count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Let several processes create at once; return how long it took and how many are lost, and the versions."""
    processes: list[harness.Process] = []
    with harness.ending(processes):
        for place in range(PROCESSES):
            processes.append(harness.Process("jarvis-json", "benchmarks.json_file", "work", directory, place))
        start = time.perf_counter()
        for process in processes:
            process.tell(count)
        ids = [each for process in processes for each in process.answer()["ids"]]
        elapsed = time.perf_counter() - start
        for process in processes:
            process.close()
    system = open_system("jarvis-json", directory, durable=True)
    held = len(system.everything())
    system.close()
    found = {"seconds": round(elapsed, 2), "creates": len(ids), "lost": ENTRIES + len(set(ids)) - held}
    return found, {"jarvis-json": processes[0].greeting["versions"]}


def main() -> None:
    """Measure and check in; fail if an entry was lost."""
    chosen = harness.options(__doc__)
    machine = harness.machine()
    rounds, creates = (2, 25) if chosen.quick else (7, 200)
    with harness.stores() as stores:
        with stores.own("jarvis-json", ENTRIES) as directory:
            single = _creates_and_rewrites(directory, rounds)
        with stores.own("jarvis-json", ENTRIES) as directory:
            many, versions = _many_writers(directory, creates)
        opens = _opens_of_reads(stores.shared("jarvis-json", ENTRIES))
    ours, other = (single[name]["median_us"] for name in ("jarvis-json", "one rewrite"))
    ratio = round(ours / other, 3)
    seconds, lost = many["seconds"], many["lost"]
    writers = f"{PROCESSES} processes, {creates} creates each"
    goals = [
        Goal("create, durable", ENTRIES, ours, other, "µs", ratio, at_most=3.0, beside="one rewrite"),
        Goal(f"files opened by {READS} reads", ENTRIES, None, None, "", opens, at_most=0, figure_unit=""),
        Goal(f"{writers}: all done", ENTRIES, None, None, "", seconds, at_most=30, figure_unit="s"),
        Goal(f"{writers}: lost", ENTRIES, None, None, "", lost, at_most=0, figure_unit=""),
    ]
    results = {"create": single, f"opens of {READS} reads": opens, f"{PROCESSES} processes": many}
    harness.publish("json_file", machine, versions, results, goals, write=chosen.write)
    if lost:
        sys.exit(f"json_file: {lost} entries lost")


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        work(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
