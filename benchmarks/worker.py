"""One process for one system and one workload, told by lines on its input when to run which round.

python -m benchmarks.worker load SYSTEM SIZE DIRECTORY
python -m benchmarks.worker run SYSTEM WORKLOAD SIZE DIRECTORY
"""

from __future__ import annotations

import gc
import json
import pickle
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.corpus import record
from benchmarks.peak import peak_kib
from benchmarks.systems import open_system
from benchmarks.workloads import WORKLOADS, Call, Store, is_right, summary

CHUNK = 1_000


def load(name: str, size: int, directory: Path) -> None:
    """Fill a store with entries 0 to `size` - 1 and note their ids beside it."""
    system = open_system(name, directory, durable=False)
    ids: list[Any] = []
    for start in range(0, size, CHUNK):
        ids += system.bulk(map(record, range(start, min(start + CHUNK, size))))
    system.close()
    directory.with_suffix(".ids").write_bytes(pickle.dumps(ids))


def ids_of(directory: Path) -> list[Any]:
    """Return the ids of the entries of a filled store; none of one that was not filled."""
    noted = directory.with_suffix(".ids")
    ids: list[Any] = pickle.loads(noted.read_bytes()) if noted.exists() else []
    return ids


def run(name: str, workload_name: str, size: int, directory: Path) -> None:
    """Answer each line ``TURN COUNT SECONDS`` with the nanoseconds of its calls; leave at the end of the input."""
    workload = WORKLOADS[workload_name]
    system = open_system(name, directory, durable=workload.durable)
    store = Store(system, ids_of(directory), size)
    _say({"versions": system.versions()})
    for line in sys.stdin:
        turn, count, seconds = line.split()
        _say({"nanoseconds": time_calls(workload.calls(store, int(turn), int(count)), float(seconds))})
    system.close()
    _say({"peak_kib": peak_kib()})


def time_calls(calls: Iterator[Call], seconds: float) -> list[int]:
    """Time each call, at least one, until none is left or the seconds are over."""
    clock = time.perf_counter_ns
    taken = []
    gc.collect()
    end = time.monotonic() + seconds
    for call, wanted in calls:
        start = clock()
        answer = call()
        taken.append(clock() - start)
        if wanted is not None and not is_right(answer, wanted):
            raise AssertionError(f"a wrong answer: {summary(answer)!r:.200} instead of {wanted!r:.200}")
        if time.monotonic() > end:
            break
    return taken


def _say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    if verb == "load":
        load(arguments[0], int(arguments[1]), Path(arguments[2]))
    else:
        run(arguments[0], arguments[1], int(arguments[2]), Path(arguments[3]))
