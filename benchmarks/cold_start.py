"""What does a process cost that has just begun, and what does a store take, beside one by hand?

python -m benchmarks.cold_start [--quick] [--write]
"""

from __future__ import annotations

import json
import os
import pickle
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import Goal
from benchmarks.systems import SYSTEMS, open_system

COMPARED = ("raw", "jarvis")
IMPORT = "import jarvis.persistent_memory"
OPEN = """
import sys
from pathlib import Path
from benchmarks.systems.{module} import open_in
system = open_in(Path(sys.argv[1]), durable=True)
"""
GET_ONE = OPEN + "print(system.get(sys.argv[2])[0], flush=True); system.close()"
LIST_ALL = OPEN + "from benchmarks.peak import peak_kib; print(len(system.everything()), peak_kib())"
GET_MANY = (
    OPEN
    + "import json; ids = json.loads(sys.argv[2]); answers = [system.get(each) for each in ids]\n"
    + "from benchmarks.peak import peak_kib; print(len(answers), peak_kib())"
)
GETS = 1_000
MEMORY_RUNS = 3


def _start(program: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-s", "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, cwd=harness.ROOT, stdout=subprocess.PIPE, text=True)


def _cpu_ms(program: str) -> float:
    """Run a program; return the time it kept a processor busy, its own and the kernel's."""
    process = _start(program)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.stdout is not None
    process.stdout.close()
    if process.returncode:
        raise RuntimeError(f"{program!r} failed")
    return (used.ru_utime + used.ru_stime) * 1000


def _first_answer_ms(module: str, directory: Path, entry_id: str) -> float:
    """Return the time from starting a process until it has given the entry."""
    started = time.perf_counter()
    with _start(GET_ONE.format(module=module), directory, entry_id) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        taken = time.perf_counter() - started
    if not line.strip():
        raise RuntimeError(f"{module} gave no answer")
    return taken * 1000


def _peak_kib(program: str, module: str, number: int, *arguments: object) -> float:
    """Run a program that says how many entries it got, and its peak."""
    with _start(program.format(module=module), *arguments) as process:
        assert process.stdout is not None
        words = process.stdout.read().split()
    if not words or int(words[0]) != number:
        raise RuntimeError(f"{module} gave {words[:1]} entries instead of {number}")
    return float(words[1])


def _alternately(runs: int, ways: dict[str, Callable[[], float]]) -> dict[str, Any]:
    """Run the ways in turns, once each for nothing; return the median and spread of each."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(runs + 1):
        for name in ways if turn % 2 else reversed(ways):
            figure = ways[name]()
            if turn:
                taken[name].append(figure)
    return {
        name: {"median": round(statistics.median(each), 2), "least": round(min(each), 2), "most": round(max(each), 2)}
        for name, each in taken.items()
    }


def _import_time(runs: int) -> tuple[dict[str, Any], list[Goal]]:
    found = _alternately(runs, {"import": lambda: _cpu_ms(IMPORT), "nothing": lambda: _cpu_ms("pass")})
    whole, nothing = found["import"]["median"], found["nothing"]["median"]
    share = round(whole - nothing, 2)
    return found, [Goal("import, processor time over `pass`", None, whole, nothing, "ms", share, at_most=50)]


def _first_answer(stores: harness.Stores, size: int, runs: int) -> tuple[dict[str, Any], Goal]:
    def way(system: str) -> Callable[[], float]:
        directory = stores.shared(system, size)
        ids = pickle.loads(directory.with_suffix(".ids").read_bytes())
        return lambda: _first_answer_ms(SYSTEMS[system].module, directory, random.choice(ids))

    found = _alternately(runs, {system: way(system) for system in COMPARED})
    return found, _compare("new process to its first answer", size, found, "ms", at_most=1.6)


def _bytes_an_entry(stores: harness.Stores, size: int) -> tuple[dict[str, Any], Goal]:
    found = {}
    for system in COMPARED:
        files = [path for path in stores.shared(system, size).rglob("*") if path.is_file()]
        found[system] = {"median": round(sum(path.stat().st_size for path in files) / size, 1)}
    return found, _compare("bytes an entry, store closed", size, found, "bytes", at_most=0.85)


def _memory(stores: harness.Stores, size: int) -> tuple[dict[str, Any], list[Goal]]:
    def listing(system: str) -> Callable[[], float]:
        return lambda: _peak_kib(LIST_ALL, SYSTEMS[system].module, size, stores.shared(system, size))

    def getting(system: str) -> Callable[[], float]:
        directory = stores.shared(system, size)
        ids = pickle.loads(directory.with_suffix(".ids").read_bytes())
        asked = json.dumps(random.Random(size).sample(ids, GETS))
        return lambda: _peak_kib(GET_MANY, SYSTEMS[system].module, GETS, directory, asked)

    lists = _alternately(MEMORY_RUNS, {system: listing(system) for system in COMPARED})
    gets = _alternately(MEMORY_RUNS, {system: getting(system) for system in COMPARED})
    return {"list all": lists, f"{GETS} gets": gets}, [
        _compare("peak memory, list all", size, lists, "KiB", at_most=1.3),
        _compare(f"peak memory, {GETS:,} gets", size, gets, "KiB", at_most=1.3),
    ]


def _compare(what: str, size: int, found: dict[str, Any], unit: str, *, at_most: float) -> Goal:
    other, ours = (found[system]["median"] for system in COMPARED)
    return Goal(what, size, ours, other, unit, round(ours / other, 3), at_most=at_most)


def _versions(stores: harness.Stores, size: int) -> dict[str, Any]:
    versions = {}
    for system in COMPARED:
        opened = open_system(system, stores.shared(system, size), durable=True)
        versions[system] = opened.versions()
        opened.close()
    return versions


def main() -> None:
    """Measure and check in."""
    chosen = harness.options(__doc__)
    machine = harness.machine()
    sizes, runs = ((10_000,), 5) if chosen.quick else ((10_000, 100_000), 25)
    results: dict[str, Any] = {}
    results["import"], goals = _import_time(runs)
    with harness.stores() as stores:
        versions = _versions(stores, sizes[0])
        for size in sizes:
            answer, answer_goal = _first_answer(stores, size, runs)
            room, room_goal = _bytes_an_entry(stores, size)
            memory, memory_goals = _memory(stores, size)
            results[str(size)] = {"first answer, ms": answer, "bytes an entry": room, "peak KiB": memory}
            goals += [answer_goal, room_goal, *memory_goals]
    harness.publish("cold_start", machine, versions, results, goals, write=chosen.write)


if __name__ == "__main__":
    main()
