"""What does history cost a write, what does a question about the past cost, and how soon is a change seen?

Two stores take turns, one that keeps history and one that does not. Then a store whose every entry has ten
revisions is asked as of its beginning, middle and end. Then its feed is read, and watched while another
process writes, and while nobody does.

python -m benchmarks.looking_back [--quick] [--write] [--entries N]
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.corpus import COMMON_TAG, RARE_TAG, record
from benchmarks.harness import Goal
from benchmarks.systems.jarvis_sqlite import Jarvis
from jarvis.persistent_memory import HistoryPolicy, MemoryModule

ENTRIES = 100_000
WRITTEN_TO = 10_000
REVISIONS = 10
AT_ONCE = 1_000
START = datetime(2100, 1, 1, tzinfo=UTC)
MOMENTS = {"the beginning": 0.02, "the middle": 0.5, "the end": 0.98}
QUESTIONS: dict[str, dict[str, Any]] = {
    "newest 50 of a category": {"category": "conversations", "limit": 50},
    "10 of a rare tag": {"tags": [RARE_TAG], "limit": 10},
    "newest 20 of a common tag": {"tags": [COMMON_TAG], "limit": 20},
    "the 20 of an entity": {"entity_type": "task", "entity_id": record(5).entity_id, "limit": 20},
    "newest 10 tasks": {"category": "tasks", "limit": 10},
    "one of a key": {"key": record(77).key, "limit": 1},
}


class Clock:
    """A clock that goes on by a second a call, so that every change has a moment of its own."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        """Return the next second."""
        self.now += timedelta(seconds=1)
        return self.now


def _opened(directory: Path, clock: Clock, *, durable: bool, revisions: int) -> MemoryModule:
    directory.mkdir(exist_ok=True)
    policy = HistoryPolicy(max_revisions=revisions, max_age=None)
    durability: Any = "full" if durable else "normal"
    return MemoryModule(storage_dir=directory, durability=durability, history=policy, clock=clock)


def _filled(memory: MemoryModule, count: int) -> list[str]:
    system = Jarvis(memory)
    ids: list[str] = []
    for start in range(0, count, AT_ONCE):
        ids += system.bulk(record(number) for number in range(start, min(start + AT_ONCE, count)))
    return ids


def _timed(call: Callable[[], Any], times: int) -> list[int]:
    taken = []
    for _ in range(times):
        start = time.perf_counter_ns()
        call()
        taken.append(time.perf_counter_ns() - start)
    return taken


# --- writing -------------------------------------------------------------------------------------


def writes(directory: Path, entries: int, rounds: int, *, durable: bool) -> dict[str, Any]:
    """Return the figures of a create, an update and a delete, with history and without, in turns."""
    ways = {}
    for name, revisions in (("with history", 100), ("without", 0)):
        memory = _opened(directory / f"{name} {durable}", Clock(), durable=durable, revisions=revisions)
        ids = _filled(memory, entries)
        random.Random(1).shuffle(ids)
        ways[name] = (memory, ids)
    taken: dict[str, dict[str, list[list[int]]]] = {
        call: {name: [] for name in ways} for call in ("create", "update", "delete")
    }
    number = entries
    for turn in range(rounds + 1):
        for name, (memory, ids) in ways.items():
            found: dict[str, list[int]] = {call: [] for call in taken}
            for step in range(40):
                number += 1
                new, memory_id = record(number), ids[(turn * 40 + step) % len(ids)]
                doomed = memory.create_memory(*record(number + 1)[:5], tags=["doomed"])
                calls: dict[str, Callable[[], Any]] = {
                    "create": lambda new=new, memory=memory: memory.create_memory(*new[:5], tags=new.tags),  # type: ignore[misc]  # a lambda's default has no type
                    "update": lambda memory_id=memory_id, new=new, memory=memory: memory.update_memory(  # type: ignore[misc]  # as above
                        memory_id, new.value
                    ),
                    "delete": lambda doomed=doomed, memory=memory: memory.delete_memory(doomed),  # type: ignore[misc]  # as above
                }
                for call, work in calls.items():
                    found[call] += _timed(work, 1)
            if turn:
                for call, figures in found.items():
                    taken[call][name].append(figures)
    for memory, _ in ways.values():
        memory.shutdown()
    return {
        call: {name: harness.statistics_of(rounds_of) for name, rounds_of in each.items()}
        for call, each in taken.items()
    }


# --- reading -------------------------------------------------------------------------------------


def reads(directory: Path, entries: int, times: int) -> dict[str, Any]:
    """Return the figures of each question, about the present and as of moments of the past."""
    clock = Clock()
    memory = _opened(directory / "read", clock, durable=False, revisions=100)
    ids = _filled(memory, entries)
    start = clock.now
    chance = random.Random(1)
    for turn in range(REVISIONS):
        for first in range(0, entries, AT_ONCE):
            some = ids[first : first + AT_ONCE]
            chance.shuffle(some)
            with memory.transaction():
                for memory_id in some:
                    memory.update_memory(memory_id, record(turn).value)
    span = clock.now - start
    found: dict[str, Any] = {}
    for title, filters in QUESTIONS.items():
        ways: dict[str, Callable[[], Any]] = {"the present": lambda filters=filters: memory.search_memories(**filters)}  # type: ignore[misc]  # as above
        for name, share in MOMENTS.items():
            moment = start + span * share
            ways[name] = lambda filters=filters, moment=moment: memory.search_memories(**filters, as_of=moment)  # type: ignore[misc]  # as above
        found[title] = _in_turns(ways, times)
    memory_id, moment = ids[7], start + span / 2
    found["get by id"] = _in_turns(
        {
            "the present": lambda: memory.get_memory(memory_id),
            "the middle": lambda: memory.get_memory(memory_id, as_of=moment),
        },
        times,
    )
    if len(memory.get_history(memory_id)) != REVISIONS:
        raise RuntimeError("a revision is missing")
    found["the history of an entry"] = _in_turns({"10 revisions": lambda: memory.get_history(memory_id)}, times)
    found["the feed"] = {"100 changes": _page_of(memory, start=len(ids))}
    memory.shutdown()
    return found


def _page_of(memory: MemoryModule, start: int) -> dict[str, float]:
    cursors = [str(start + step * 997) for step in range(30)]
    taken = [_timed(lambda cursor=cursor: memory.changes(cursor, limit=100), 1) for cursor in cursors]  # type: ignore[misc]  # as above
    return harness.statistics_of(taken)


# --- watching ------------------------------------------------------------------------------------

WRITER = """
import random, sys, time
from jarvis.persistent_memory import MemoryModule
memory = MemoryModule(storage_dir=sys.argv[1])
for _ in range(int(sys.argv[2])):
    time.sleep(random.uniform(0.02, 0.3))
    memory_id = memory.create_memory("c", "k", {}, "t")
    print(memory_id, time.time_ns(), flush=True)
"""


def watched(directory: Path, changes: int, idle_seconds: float) -> dict[str, float]:
    """Return how long after the write returned a change of another process was seen, and what idling takes."""
    memory = MemoryModule(storage_dir=directory / "watched")
    memory.bootstrap()
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory / "watched"), str(changes)], stdout=subprocess.PIPE, text=True
    )
    seen = {}
    for change in memory.watch("0", idle_seconds=10):
        seen[change.memory_id] = time.time_ns()
        if len(seen) == changes:
            break
    assert writer.stdout is not None
    written = {memory_id: int(moment) for memory_id, moment in map(str.split, writer.stdout)}
    if written.keys() != seen.keys():
        raise RuntimeError("the watcher saw something else than what was written")
    delays = sorted((seen[each] - moment) / 1_000_000 for each, moment in written.items())
    start = time.process_time()
    list(memory.watch(idle_seconds=idle_seconds))
    idle = (time.process_time() - start) / idle_seconds
    memory.shutdown()
    return {
        "median_ms": round(delays[len(delays) // 2], 1),
        "longest_ms": round(delays[-1], 1),
        "idle_cores": round(idle, 5),
    }


def _in_turns(ways: dict[str, Callable[[], Any]], times: int) -> dict[str, Any]:
    taken: dict[str, list[list[int]]] = {name: [] for name in ways}
    for turn in range(times + 1):
        for name, call in ways.items():
            figures = _timed(call, 10)
            if turn:
                taken[name].append(figures)
    return {name: harness.statistics_of(figures) for name, figures in taken.items()}


def goals(results: dict[str, Any]) -> list[Goal]:
    """Return each ratio beside what is wanted of it."""
    found = []
    for title, calls in results["writes"].items():
        for call, figures in calls.items():
            ours, other = (figures[name]["median_us"] for name in ("with history", "without"))
            wanted = 1.05 if call == "create" else 1.5
            ratio = round(ours / other, 3)
            found.append(
                Goal(f"{call}, {title}", WRITTEN_TO, ours, other, "µs", ratio, at_most=wanted, beside="without history")
            )
    watch = results["watch"]
    found += [
        Goal(
            "a change of another process is seen",
            None,
            None,
            None,
            "",
            watch["longest_ms"],
            at_most=100,
            figure_unit="ms",
        ),
        Goal(
            "an idle watcher, of a core", None, None, None, "", watch["idle_cores"] * 100, at_most=0.5, figure_unit="%"
        ),
    ]
    page = results["reads"]["the feed"]["100 changes"]["median_us"]
    found.append(
        Goal(
            "changes a second are read from the feed",
            results["entries"] * (REVISIONS + 1),
            None,
            None,
            "",
            round(100_000_000 / page),
            at_least=50_000,
            figure_unit="",
        )
    )
    for title, figures in results["reads"].items():
        for moment in MOMENTS:
            if moment in figures:
                ours, other = figures[moment]["median_us"], figures["the present"]["median_us"]
                ratio = round(ours / other, 3)
                what = f"{title}, as of {moment}"
                entries = results["entries"]
                found.append(Goal(what, entries, ours, other, "µs", ratio, at_most=5.0, beside="the present"))
    return found


def main() -> None:
    """Measure and check in."""
    chosen = harness.options(__doc__, entries=str(ENTRIES))
    machine = harness.machine()
    entries = 2_000 if chosen.quick else int(chosen.entries)
    with harness.stores() as stores, stores.own("jarvis", 0) as directory:
        results = {
            "writes": {
                "durable": writes(directory, min(entries, WRITTEN_TO), 3 if chosen.quick else 20, durable=True),
                "without sync": writes(directory, min(entries, WRITTEN_TO), 3 if chosen.quick else 20, durable=False),
            },
            "entries": entries,
            "watch": watched(directory, 20 if chosen.quick else 100, 2 if chosen.quick else 20),
            "reads": reads(directory, entries, 5 if chosen.quick else 30),
        }
    harness.publish("looking_back", machine, {"jarvis": Jarvis.versions()}, results, goals(results), write=chosen.write)


if __name__ == "__main__":
    main()
