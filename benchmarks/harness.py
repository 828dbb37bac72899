"""Runs workers in rounds that alternate between the systems, and makes tables of what they say.

A system and a workload have a process of their own. The rounds alternate (A B A B), so that whatever
else the machine does meets all alike; ratios are of the medians of one run. Every answer is checked
in the same run, outside the clock.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.systems import SYSTEMS

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
ENVIRONMENTS = ROOT / ".venv-benchmarks"
SECONDS_A_ROUND = 1.0
MANY, FEW = 21, 5
"""Rounds that are measured if they are short, so that noise of a second does not meet most of them; else few."""


@functools.cache
def python_of(system: str) -> str:
    """Return the interpreter of a system's environment, made when it is absent or of another version.

    Ours is installed there as its users install it, from this repository as it is now.
    """
    directory = ENVIRONMENTS / SYSTEMS[system].environment
    python = directory / "bin" / "python"
    ready = directory / ".ready"
    packages = [str(ROOT) if package == "." else package for package in SYSTEMS[system].packages]
    wanted = " ".join([f"python=={platform.python_version()}", *packages, _state() if str(ROOT) in packages else ""])
    if not ready.exists() or ready.read_text() != wanted:
        venv.create(directory, with_pip=True, clear=True, symlinks=True)
        if packages:
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        ready.write_text(wanted)
    return str(python)


def _state() -> str:
    """Return what changes when the source of the library does."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "src").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def environment() -> dict[str, str]:
    """Return the variables of this process, but with bytecode kept, as is usual."""
    return {name: held for name, held in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def start(system: str, module: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start ``python -m module`` in the system's environment."""
    command = [python_of(system), "-m", module, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment(), **options)


class Process:
    """A process that is told by lines what to do, and answers each with a line of JSON."""

    def __init__(self, system: str, module: str, *arguments: object) -> None:
        self.system = system
        self._process = start(system, module, *arguments, stdin=subprocess.PIPE)
        self.greeting = self.answer()

    def tell(self, *words: object) -> None:
        """Send it a line of these words."""
        assert self._process.stdin is not None
        print(*words, file=self._process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        """Wait for its next line, and return it."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a process of {self.system} ended early, with status {self._process.wait()}")
        message: dict[str, Any] = json.loads(line)
        return message

    def ask(self, *words: object) -> dict[str, Any]:
        """Send it a line and return its answer."""
        self.tell(*words)
        return self.answer()

    def close(self) -> dict[str, Any]:
        """End its input and return its last words."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        farewell = self.answer()
        self._process.wait()
        self._process.stdout.close()
        return farewell

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class Worker(Process):
    """A process that runs one workload on one system, round by round (see `benchmarks.worker`)."""

    def __init__(self, system: str, workload: str, size: int, directory: Path) -> None:
        super().__init__(system, "benchmarks.worker", "run", system, workload, size, directory)
        self.versions: dict[str, str] = self.greeting["versions"]

    def round(self, turn: int, count: int, seconds: float = SECONDS_A_ROUND) -> list[int]:
        """Run a round of `count` calls, or of fewer when the seconds are over; return the nanoseconds of each."""
        taken: list[int] = self.ask(turn, count, seconds)["nanoseconds"]
        return taken


class Stores:
    """Filled stores, each made once: in the directory that is lent, and gone with it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._copies = 0

    def shared(self, system: str, size: int) -> Path:
        """Return a store of `size` entries that nobody may change."""
        directory = self._directory / f"{system}-{size}"
        if not directory.exists():
            directory.mkdir()
            if start(system, "benchmarks.worker", "load", system, size, directory).wait():
                raise RuntimeError(f"the store of {system} could not be filled")
            os.sync()  # else what was filled is written while what comes next is measured
        return directory

    @contextmanager
    def own(self, system: str, size: int) -> Iterator[Path]:
        """Lend a copy of `shared`, or an empty directory if `size` is 0."""
        self._copies += 1
        directory = self._directory / f"copy-{self._copies}"
        if size:
            source = self.shared(system, size)
            shutil.copytree(source, directory)
            shutil.copy(source.with_suffix(".ids"), directory.with_suffix(".ids"))
            os.sync()
        else:
            directory.mkdir()
        try:
            yield directory
        finally:
            shutil.rmtree(directory)


@contextmanager
def stores() -> Iterator[Stores]:
    """Lend a place for stores on the disk that holds the repository, not in memory."""
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=ROOT) as directory:
        yield Stores(Path(directory))


@contextmanager
def ending(processes: list[Any]) -> Iterator[None]:
    """Leave no process of the list behind, however the block ends; processes may be added in it."""
    try:
        yield
    finally:
        for process in processes:
            process.kill()


def alternate(
    workers: Sequence[Worker], rounds: int, count: int, seconds: float = SECONDS_A_ROUND
) -> list[list[list[int]]]:
    """Return the nanoseconds of each worker's rounds, which take turns; the first, which warms up, is left out.

    Takes no more than `FEW` rounds of a worker whose first took more than a quarter of the seconds.
    """
    taken: list[list[list[int]]] = [[] for _ in workers]
    wanted = [rounds for _ in workers]
    for turn in range(rounds + 1):
        for place in range(len(workers)) if turn % 2 else reversed(range(len(workers))):
            if turn > wanted[place]:
                continue
            start = time.monotonic()
            measured = workers[place].round(turn, count, seconds)
            if turn:
                taken[place].append(measured)
            elif time.monotonic() - start > seconds / 4:
                wanted[place] = min(rounds, FEW)
    return taken


def statistics_of(rounds: list[list[int]], each: int = 1) -> dict[str, float]:
    """Return the median and the 99th percentile, in microseconds, of all calls of all rounds."""
    everything = sorted(nanoseconds / each / 1000 for calls in rounds for nanoseconds in calls)
    return {
        "median_us": round(statistics.median(everything), 2),
        "p99_us": round(everything[min(len(everything) - 1, int(len(everything) * 0.99))], 2),
        "calls": len(everything),
    }


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "load_at_start": os.getloadavg()[0],
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


class Goal(NamedTuple):
    """A figure held against what is wanted of it.

    Attributes:
        what: what was measured, as the tables call it.
        entries: the size of the store, or None if it does not matter.
        ours, other: what was compared, in `unit`; `other` is None if the figure stands alone.
        unit: of both, such as ``"µs"``.
        figure: what is held against the goal: the ratio of both, their difference, or what stands alone.
        at_most, at_least: the goal; one of them is None.
        beside: what `other` is.
        figure_unit: of the figure and the goal: ``"x"`` for a ratio, ``""`` for a number.
    """

    what: str
    entries: int | None
    ours: float | None
    other: float | None
    unit: str
    figure: float
    at_most: float | None = None
    at_least: float | None = None
    beside: str = "by hand"
    figure_unit: str = "x"

    @property
    def is_met(self) -> bool:
        """Whether the figure reaches the goal."""
        return (self.at_most is None or self.figure <= self.at_most) and (
            self.at_least is None or self.figure >= self.at_least
        )

    def __str__(self) -> str:
        size = "" if self.entries is None else f"{self.entries:,}"
        compared = "" if self.ours is None else amount(self.ours, self.unit)
        if self.other is not None:
            compared += f", {self.beside} {amount(self.other, self.unit)}"
        verdict = "met" if self.is_met else "MISSED"
        figure = amount(self.figure, self.figure_unit)
        return f"{size:>9}  {self.what:<50} {compared:<44} {figure:>10}   goal {self.wanted:<10} {verdict}"

    @property
    def wanted(self) -> str:
        """The goal as a text."""
        if self.at_most is not None:
            return f"≤ {self.at_most:g}{_spaced(self.figure_unit)}"
        return f"≥ {self.at_least:g}{_spaced(self.figure_unit)}"


_LARGER_UNITS = {"µs": ("ms", 1000), "ms": ("s", 1000), "KiB": ("MiB", 1024)}


def amount(number: float, unit: str) -> str:
    """Return a number with three digits that count, in the unit that suits it."""
    while unit in _LARGER_UNITS and number >= _LARGER_UNITS[unit][1]:
        unit, factor = _LARGER_UNITS[unit]
        number /= factor
    if number == int(number) and unit == "":
        return f"{number:,.0f}"
    digits = 0 if abs(number) >= 100 else 1 if abs(number) >= 10 else 2
    return f"{number:,.{digits}f}{_spaced(unit)}"


def _spaced(unit: str) -> str:
    return "×" if unit == "x" else f" {unit}" if unit else ""


def publish(
    name: str,
    started: dict[str, Any],
    versions: dict[str, Any],
    results: dict[str, Any],
    goals: Sequence[Goal],
    *,
    write: bool,
) -> None:
    """Print each goal with its figure; check the figures of this question in if `write`."""
    for goal in goals:
        print(goal, flush=True)
    if write:
        RESULTS.mkdir(exist_ok=True)
        held = [{**goal._asdict(), "met": goal.is_met} for goal in goals]
        document = {"machine": started, "versions": versions, "results": results, "goals": held}
        (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def options(description: str | None, **more: str) -> argparse.Namespace:
    """Return the options that every script has, and `more` of them with their defaults."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="measure less, in seconds; the figures mean little")
    parser.add_argument("--write", action="store_true", help="check the figures in")
    for name, usual in more.items():
        parser.add_argument(f"--{name}", default=usual, help=f"(default: {usual})")
    chosen = parser.parse_args()
    if chosen.quick and chosen.write:
        parser.error("--quick: its figures mean too little to be checked in")
    return chosen
