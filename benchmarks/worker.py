"""One process for one system and one workload, told by lines on its input when to run which round.

python -m benchmarks.worker load SYSTEM SIZE DIRECTORY
python -m benchmarks.worker run SYSTEM WORKLOAD SIZE DIRECTORY
"""

from __future__ import annotations

import gc
import json
import pickle
import resource
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.corpus import record
from benchmarks.systems import open_system
from benchmarks.workloads import WORKLOADS, Store, summary

CHUNK = 1_000


def load(name: str, size: int, directory: Path) -> None:
    """Fill a store with entries 0 to `size` - 1 and note their ids beside it."""
    system = open_system(name, directory, durable=False)
    ids: list[Any] = []
    for start in range(0, size, CHUNK):
        ids += system.bulk(map(record, range(start, min(start + CHUNK, size))))
    system.close()
    directory.with_suffix(".ids").write_bytes(pickle.dumps(ids))


def run(name: str, workload_name: str, size: int, directory: Path) -> None:
    """Answer each line ``round N`` with the nanoseconds of its calls; leave at the end of the input."""
    workload = WORKLOADS[workload_name]
    system = open_system(name, directory, durable=workload.durable)
    noted = directory.with_suffix(".ids")
    store = Store(system, pickle.loads(noted.read_bytes()) if noted.exists() else [], size)
    _say({"versions": system.versions})
    for line in sys.stdin:
        turn, count = map(int, line.split())
        _say({"nanoseconds": _round(workload.calls(store, turn, count))})
    system.close()
    _say({"peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss})


def _round(calls: Any) -> list[int]:
    clock = time.perf_counter_ns
    taken = []
    gc.collect()
    for call, wanted in calls:
        start = clock()
        answer = call()
        taken.append(clock() - start)
        if wanted is not None and summary(answer) != wanted:
            raise AssertionError(f"a wrong answer: {summary(answer)!r:.200} instead of {wanted!r:.200}")
    return taken


def _say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    if verb == "load":
        load(arguments[0], int(arguments[1]), Path(arguments[2]))
    else:
        run(arguments[0], arguments[1], int(arguments[2]), Path(arguments[3]))
