"""Runs workers in rounds that alternate between the systems, and makes tables of what they say.

A system and a workload have a process of their own. The rounds alternate (A B A B), so that whatever
else the machine does meets all alike; ratios are of the medians of one run. Every answer is checked
in the same run, outside the clock.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.systems import SYSTEMS

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
ENVIRONMENTS = ROOT / ".venv-benchmarks"


def python_of(system: str) -> str:
    """Return the interpreter of a system's environment, made at the first call; ours is this one."""
    packages = SYSTEMS[system].packages
    if not packages:
        return sys.executable
    directory = ENVIRONMENTS / system
    ready = directory / ".ready"
    python = directory / "bin" / "python"
    if not ready.exists() or ready.read_text() != " ".join(packages):
        venv.create(directory, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        ready.write_text(" ".join(packages))
    return str(python)


def start(system: str, module: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start ``python -m module`` in the system's environment."""
    command = [python_of(system), "-m", module, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, **options)


class Worker:
    """A process that runs one workload on one system, round by round (see `benchmarks.worker`)."""

    def __init__(self, system: str, workload: str, size: int, directory: Path) -> None:
        self.system = system
        self._process = start(
            system, "benchmarks.worker", "run", system, workload, size, directory, stdin=subprocess.PIPE
        )
        self.versions: dict[str, str] = self._read()["versions"]

    def round(self, turn: int, count: int) -> list[int]:
        """Run one round; return the nanoseconds of each call."""
        assert self._process.stdin is not None
        print(turn, count, file=self._process.stdin, flush=True)
        taken: list[int] = self._read()["nanoseconds"]
        return taken

    def close(self) -> int:
        """End the process; return the most memory it ever had, in KiB."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        peak: int = self._read()["peak_kib"]
        self._process.wait()
        return peak

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker of {self.system} ended early, with status {self._process.wait()}")
        message: dict[str, Any] = json.loads(line)
        return message


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
def closing_all(workers: Iterable[Worker]) -> Iterator[list[Worker]]:
    """Lend the workers; end them."""
    with ExitStack() as stack:
        lent = []
        for worker in workers:
            stack.callback(worker.close)
            lent.append(worker)
        yield lent


def alternate(workers: Sequence[Worker], rounds: int, count: int) -> dict[str, list[list[int]]]:
    """Return the nanoseconds of each system's rounds, which take turns; the first, which warms up, is left out."""
    taken: dict[str, list[list[int]]] = {worker.system: [] for worker in workers}
    for turn in range(rounds + 1):
        for worker in workers if turn % 2 else reversed(workers):
            measured = worker.round(turn, count)
            if turn:
                taken[worker.system].append(measured)
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


def write(name: str, results: dict[str, Any]) -> None:
    """Check the figures of one question in."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
