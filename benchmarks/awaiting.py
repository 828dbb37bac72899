"""What does awaiting cost, beside handing the same call to a thread oneself?

python -m benchmarks.awaiting [--quick] [--write]
"""

from __future__ import annotations

import asyncio
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import Goal
from benchmarks.systems import open_system
from benchmarks.worker import ids_of
from jarvis.async_memory import AsyncMemoryModule
from jarvis.persistent_memory import MemoryModule

ENTRIES = 10_000
CALLS = 500
AT_ONCE = 100
THREADS = 4
BATCHES = 20


async def _one_by_one(directory: Path, rounds: int) -> dict[str, Any]:
    """Return what one awaited get takes, and one that is handed to a thread, in rounds that alternate."""
    ids = ids_of(directory)
    memory = MemoryModule(storage_dir=directory)
    taken: dict[str, list[list[int]]] = {"jarvis": [], "to_thread": []}
    async with AsyncMemoryModule(storage_dir=directory) as awaitable:
        for turn in range(rounds + 1):
            asked = [ids[(turn * CALLS + step) * 7_919 % ENTRIES] for step in range(CALLS)]
            awaited, handed = [], []
            for each in asked:
                start = time.perf_counter_ns()
                found = await awaitable.get_memory(each)
                awaited.append(time.perf_counter_ns() - start)
                assert found is not None
                assert found.id == each
            for each in asked:
                start = time.perf_counter_ns()
                found = await asyncio.to_thread(memory.get_memory, each)
                handed.append(time.perf_counter_ns() - start)
                assert found is not None
                assert found.id == each
            if turn:
                taken["jarvis"].append(awaited)
                taken["to_thread"].append(handed)
    memory.shutdown()
    return {name: harness.statistics_of(calls) for name, calls in taken.items()}


async def _all_at_once(directory: Path, rounds: int) -> dict[str, Any]:
    """Return how many gets a second come of many awaited at once, and of as many threads as that uses."""
    ids = ids_of(directory)
    memory = MemoryModule(storage_dir=directory)
    rates: dict[str, list[float]] = {"jarvis": [], "threads": []}
    with ThreadPoolExecutor(THREADS) as pool:
        async with AsyncMemoryModule(storage_dir=directory) as awaitable:
            for turn in range(rounds + 1):
                asked = [ids[(turn * AT_ONCE + step) * 7_919 % ENTRIES] for step in range(AT_ONCE)]
                start = time.perf_counter()
                for _ in range(BATCHES):
                    awaited = await asyncio.gather(*(awaitable.get_memory(each) for each in asked))
                first = time.perf_counter() - start
                start = time.perf_counter()
                for _ in range(BATCHES):
                    handed = list(pool.map(memory.get_memory, asked))
                second = time.perf_counter() - start
                assert [each.id for each in awaited if each] == [each.id for each in handed if each] == asked
                if turn:
                    rates["jarvis"].append(BATCHES * AT_ONCE / first)
                    rates["threads"].append(BATCHES * AT_ONCE / second)
    memory.shutdown()
    return {name: {"gets_a_second": round(statistics.median(each))} for name, each in rates.items()}


def main() -> None:
    """Measure and check in."""
    chosen = harness.options(__doc__)
    machine = harness.machine()
    rounds = 3 if chosen.quick else 11
    with harness.stores() as stores:
        directory = stores.shared("jarvis", ENTRIES)
        opened = open_system("jarvis", directory, durable=True)
        versions = {"jarvis": opened.versions()}
        opened.close()
        single = asyncio.run(_one_by_one(directory, rounds))
        many = asyncio.run(_all_at_once(directory, rounds))
    times = (single["jarvis"]["median_us"], single["to_thread"]["median_us"])
    rates = (many["jarvis"]["gets_a_second"], many["threads"]["gets_a_second"])
    goals = [
        Goal(
            "one awaited get",
            ENTRIES,
            *times,
            "µs",
            round(times[0] / times[1], 3),
            at_most=1.5,
            beside="asyncio.to_thread",
        ),
        Goal(
            f"{AT_ONCE} awaited gets at once, a second",
            ENTRIES,
            *rates,
            "",
            round(rates[0] / rates[1], 3),
            at_least=0.8,
            beside=f"{THREADS} threads",
        ),
    ]
    results = {"one get": single, f"{AT_ONCE} gets at once": many}
    harness.publish("awaiting", machine, versions, results, goals, write=chosen.write)


if __name__ == "__main__":
    main()
