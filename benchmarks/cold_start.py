"""What does a process cost that has just begun, and what does a store take, beside one by hand?

python -m benchmarks.cold_start [--quick] [--write]
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import harness, new_process
from benchmarks.harness import Goal
from benchmarks.new_process import alternately
from benchmarks.systems import SYSTEMS, open_system
from benchmarks.worker import ids_of
from jarvis.persistent_memory import MemoryModule

COMPARED = ("raw", "jarvis")
IMPORT = "import jarvis.persistent_memory"
GET_ONE = new_process.OPEN + "print(system.get(sys.argv[2])[0], flush=True); system.close()"
GETS = 1_000
MEMORY_RUNS = 3


def _cpu_ms(program: str) -> float:
    """Run a program; return the time it kept a processor busy, its own and the kernel's."""
    process = new_process.start(program)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.stdout is not None
    process.stdout.close()
    if process.returncode:
        raise RuntimeError(f"{program!r} failed")
    return (used.ru_utime + used.ru_stime) * 1000


def _command_time(runs: int) -> tuple[dict[str, Any], list[Goal]]:
    """Measure `jarvis-memory get`, from the start of its process to the end."""
    with tempfile.TemporaryDirectory() as directory, MemoryModule(storage_dir=directory) as memory:
        memory.set_user_preference("theme", {"mode": "dark"})
        arguments = ["jarvis-memory", "get", "preferences/theme", "--store", directory]
        program = f"import sys; sys.argv = {arguments!r}; from jarvis.interfaces.cli import main; main()"
        found = alternately(runs, {"get": lambda: _cpu_ms(program), "nothing": lambda: _cpu_ms("pass")})
    whole, nothing = found["get"]["median"], found["nothing"]["median"]
    title = "`jarvis-memory get`, processor time of the process"
    return found, [Goal(title, None, whole, nothing, "ms", whole, at_most=250, beside="`pass`", figure_unit="ms")]


def _first_answer_ms(system: str, directory: Path, ids: list[Any]) -> float:
    """Return the time from starting a process until it has given one of the entries."""
    wanted = random.choice(ids)
    program = GET_ONE.format(module=SYSTEMS[system].module)
    started = time.perf_counter()
    with new_process.start(program, directory, wanted, system=system) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        taken = time.perf_counter() - started
    if not line.strip() or process.returncode:
        raise RuntimeError(f"{system} gave no answer")
    return taken * 1000


def _import_time(runs: int) -> tuple[dict[str, Any], list[Goal]]:
    found = alternately(runs, {"import": lambda: _cpu_ms(IMPORT), "nothing": lambda: _cpu_ms("pass")})
    whole, nothing = found["import"]["median"], found["nothing"]["median"]
    share = round(whole - nothing, 2)
    title = "import, processor time of its own"
    return found, [Goal(title, None, whole, nothing, "ms", share, at_most=50, beside="`pass`", figure_unit="ms")]


def _of_a_store(stores: harness.Stores, size: int, runs: int) -> tuple[dict[str, Any], list[Goal]]:
    directories = {system: stores.shared(system, size) for system in COMPARED}
    found = {
        "new process to its first answer": alternately(runs, _first_answers(directories)),
        "bytes an entry, store closed": {
            system: {"median": round(_bytes(directory) / size, 1)} for system, directory in directories.items()
        },
        "peak memory, list all": alternately(
            MEMORY_RUNS,
            {each: partial(new_process.peak_of_listing, each, directories[each], size) for each in COMPARED},
        ),
        f"peak memory, {GETS:,} gets": alternately(
            MEMORY_RUNS, {each: partial(new_process.peak_of_gets, each, directories[each], GETS) for each in COMPARED}
        ),
    }
    goals = []
    for (what, figures), unit, wanted in zip(
        found.items(), ("ms", "bytes", "KiB", "KiB"), (1.6, 0.85, 1.3, 1.3), strict=True
    ):
        other, ours = (figures[system]["median"] for system in COMPARED)
        goals.append(Goal(what, size, ours, other, unit, round(ours / other, 3), at_most=wanted))
    return found, goals


def _first_answers(directories: dict[str, Path]) -> dict[str, Callable[[], float]]:
    return {
        system: partial(_first_answer_ms, system, directory, ids_of(directory))
        for system, directory in directories.items()
    }


def _bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


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
    results["command"], more = _command_time(runs)
    goals += more
    with harness.stores() as stores:
        versions = _versions(stores, sizes[0])
        for size in sizes:
            results[str(size)], more = _of_a_store(stores, size, runs)
            goals += more
    harness.publish("cold_start", machine, versions, results, goals, write=chosen.write)


if __name__ == "__main__":
    main()
