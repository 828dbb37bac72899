"""Programs that run in a process of their own, given as text, so that they import what they measure and no more."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.harness import ROOT, environment, python_of
from benchmarks.systems import SYSTEMS
from benchmarks.worker import ids_of

OPEN = """
import sys
from pathlib import Path
from benchmarks.systems.{module} import open_in
system = open_in(Path(sys.argv[1]), durable=True)
"""
_LIST_ALL = OPEN + "from benchmarks.peak import peak_kib; print(len(system.everything()), peak_kib())"
_GET_MANY = (
    OPEN
    + "import json; ids = json.loads(sys.argv[2]); answers = [system.get(each) for each in ids]\n"
    + "from benchmarks.peak import peak_kib; print(len(answers), peak_kib())"
)


def start(program: str, *arguments: object, system: str = "jarvis") -> subprocess.Popen[str]:
    """Start a program in the environment of a system; what it prints is piped."""
    command = [python_of(system), "-s", "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment())


def said_by(program: str, *arguments: object, system: str = "jarvis") -> list[str]:
    """Run a program; return the words it printed."""
    with start(program, *arguments, system=system) as process:
        assert process.stdout is not None
        words = process.stdout.read().split()
    if process.returncode:
        raise RuntimeError(f"a program failed: {program}")
    return words


def peak_of_listing(system: str, directory: Path, size: int) -> float:
    """Return the most memory, in KiB, of a process that lists all of a store of `size` entries."""
    return _peak(said_by(_LIST_ALL.format(module=SYSTEMS[system].module), directory, system=system), size)


def peak_of_gets(system: str, directory: Path, count: int) -> float:
    """Return the most memory, in KiB, of a process that gets `count` entries by their ids."""
    asked = random.Random(count).sample(ids_of(directory), count)
    return _peak(
        said_by(_GET_MANY.format(module=SYSTEMS[system].module), directory, json.dumps(asked), system=system), count
    )


def _peak(words: list[str], wanted: int) -> float:
    number, peak = map(int, words)
    if number != wanted:
        raise RuntimeError(f"{number} entries came instead of {wanted}")
    return float(peak)


def alternately(runs: int, ways: Mapping[str, Callable[[], float]]) -> dict[str, dict[str, float]]:
    """Run the ways in turns, once each for nothing; return the median and spread of each."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(runs + 1):
        for name in ways if turn % 2 else reversed(list(ways)):
            figure = ways[name]()
            if turn:
                taken[name].append(figure)
    return {
        name: {"median": round(statistics.median(each), 2), "least": round(min(each), 2), "most": round(max(each), 2)}
        for name, each in taken.items()
    }
