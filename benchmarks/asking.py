"""How long do listings, value filters, long lists of tags, and changes of many memories take?

python -m benchmarks.asking [--quick] [--write]
"""

from __future__ import annotations

import random
import shutil
import statistics
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import msgspec

from benchmarks import harness
from benchmarks.harness import Goal
from benchmarks.systems import raw
from benchmarks.systems.jarvis_sqlite import Jarvis
from jarvis._sqlite import engine
from jarvis.persistent_memory import HistoryPolicy, MemoryModule

Item = dict[str, Any]

NAMES = 1_000
OPERANDS = 3_000
TAGS = 500
TAGGED = 20
BARE = """
WITH RECURSIVE found (item) AS (
    SELECT min(namespace) FROM entries
    UNION ALL SELECT (SELECT min(namespace) FROM entries WHERE namespace > found.item) FROM found WHERE item IS NOT NULL
)
SELECT name FROM found JOIN names ON names.id = found.item
"""
BY_HAND = f"PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -8192; {raw.SCHEMA}"


def _timed(call: Callable[[], object]) -> float:
    """Return how many microseconds a call takes."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1_000_000


def _medians(rounds: int, *calls: Callable[[], object]) -> list[float]:
    """Return the median time of each call, over rounds that alternate; each is called once before."""
    for call in calls:
        call()
    taken = [[_timed(call) for call in calls] for _ in range(rounds)]
    return [round(statistics.median(times), 1) for times in zip(*taken, strict=True)]


def _items(entries: int, tags: Iterable[str] = ()) -> list[Item]:
    return [
        {
            "category": f"category-{number % NAMES}",
            "key": f"key-{number}",
            "value": {"n": number, "text": f"the text of number {number}"},
            "entity_type": "note",
            "tags": list(tags),
        }
        for number in range(entries)
    ]


def _stored(connection: apsw.Connection, items: list[Item]) -> None:
    """Store items as the store by hand does, but with the faster driver and encoder, and as one list of rows."""
    encode, now = msgspec.json.Encoder().encode, datetime.now(UTC)
    instant, provenance = int(now.timestamp() * 1_000_000), {"module": "m", "created_at": now.isoformat()}
    rows = (
        (
            "default",
            str(uuid.uuid4()),
            each["category"],
            each["key"],
            encode(each["value"]).decode(),
            encode(each["tags"]).decode(),
            each["entity_type"],
            None,
            instant,
            encode(provenance).decode(),
        )
        for each in items
    )
    with connection:
        connection.executemany(raw.INSERT, rows)


def _listings(directory: Path, entries: int, rounds: int) -> dict[str, Any]:
    with MemoryModule(storage_dir=directory / "names", durability="normal") as memory:
        memory.create_memories(_items(entries))
        (listing,) = _medians(rounds, memory.list_categories)
        (scan,) = _medians(rounds, lambda: sorted({entry.category for entry in memory.list_memories()}))
    with MemoryModule(storage_dir=directory / "spaces", durability="normal") as memory:
        for number in range(NAMES):
            memory.for_namespace(f"namespace-{number}").create_memories(_items(3))
        bare = engine.connect(
            str(directory / "spaces" / "memory.db"), key=None, durability="normal", busy_timeout_seconds=5
        )
        spaces, statement = _medians(rounds, memory.store.list_namespaces, lambda: bare.execute(BARE).fetchall())
        bare.close()
    return {"categories": listing, "a scan": scan, "namespaces": spaces, "a bare statement": statement}


def _questions(directory: Path, entries: int, rounds: int) -> dict[str, Any]:
    rng = random.Random(7)
    with MemoryModule(storage_dir=directory / "values", durability="normal") as memory:
        memory.create_memories(_items(entries))
        (none,) = _medians(rounds, lambda: memory.search_memories(where={"text": "no such text"}))
    with MemoryModule(storage_dir=directory / "tags", durability="normal") as memory:
        tags = [f"tag-{number}" for number in range(TAGS)]
        memory.create_memories(_items(OPERANDS - TAGGED))
        memory.create_memories(_items(TAGGED, tags))
        wanted = rng.sample(range(10 * OPERANDS), OPERANDS)
        rng.shuffle(tags)
        within, tagged = _medians(
            rounds,
            lambda: memory.search_memories(where={"n": {"$in": wanted}}),
            lambda: memory.search_memories(tags=tags, tags_match="all"),
        )
    return {"none matches": none, "one of many": within, "all of many tags": tagged}


def _many_at_once(directory: Path, few: int, many: int, rounds: int) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for name, entries, tags in (("plain", few, ()), ("tagged", few, ("a", "b", "c")), ("large", many, ())):
        items, ours, others = _items(entries, tags), [], []
        for turn in range(rounds):
            with MemoryModule(storage_dir=directory / f"{name}-{turn}") as memory:
                memory.bootstrap()
                ours.append(_timed(lambda: memory.create_memories(items, module="m")) / entries)  # noqa: B023 - called here
            if name == "large":
                by_hand = apsw.Connection(str(directory / f"hand-{turn}"))
                by_hand.execute(BY_HAND).fetchall()
                others.append(_timed(lambda: _stored(by_hand, items)) / entries)  # noqa: B023 - called here
                by_hand.close()
        results[name] = round(statistics.median(ours), 2)
        if others:
            results["by hand"] = round(statistics.median(others), 2)
    return results


def _clearing(directory: Path, entries: int, rounds: int) -> dict[str, Any]:
    bare_deletion = "BEGIN; DELETE FROM tags WHERE namespace > 0; DELETE FROM entries WHERE namespace > 0; COMMIT"
    cleared, deleted = [], []
    for turn in range(rounds):
        place = directory / f"clear-{turn}"
        with MemoryModule(storage_dir=place, history=HistoryPolicy()) as memory:
            memory.create_memories(_items(entries))
            memory.shutdown()
            shutil.copy(place / "memory.db", place / "copy.db")
            memory.count_memories()  # opens it again
            cleared.append(_timed(memory.clear_all))
        bare = engine.connect(str(place / "copy.db"), key=None, durability="full", busy_timeout_seconds=5)
        deleted.append(_timed(partial(bare.execute, bare_deletion)))
        bare.close()
    return {"clear": round(statistics.median(cleared), 1), "a bare deletion": round(statistics.median(deleted), 1)}


def measure(entries: int, many: int, rounds: int) -> dict[str, Any]:
    """Return the figures, in microseconds; those of many memories at once are for one memory."""
    with harness.stores() as stores, stores.own("jarvis", 0) as directory:
        return {
            "entries": entries,
            "many": many,
            **_listings(directory, entries, rounds),
            **_questions(directory, entries, rounds),
            **_many_at_once(directory, entries, many, min(rounds, 5)),
            **_clearing(directory, entries, min(rounds, 5)),
        }


def goals(results: dict[str, Any]) -> list[Goal]:
    """Return each figure beside what is wanted of it."""
    entries, many = results["entries"], results["many"]

    def ratio(what: str, size: int, name: str, other: str, at_most: float) -> Goal:
        one, beside = results[name], results[other]
        return Goal(what, size, one, beside, "µs", round(one / beside, 3), at_most=at_most, beside=other)

    def alone(what: str, size: int, name: str, at_most: float) -> Goal:
        return Goal(what, size, None, None, "", results[name], at_most=at_most, figure_unit="µs")

    return [
        alone(f"list {NAMES:,} categories", entries, "categories", 1_000),
        ratio(f"list {NAMES:,} categories", entries, "categories", "a scan", 0.05),
        ratio(f"list {NAMES:,} namespaces", 3 * NAMES, "namespaces", "a bare statement", 2),
        alone("a value filter that nothing matches", entries, "none matches", 6_000),
        alone(f"`$in` of {OPERANDS:,} numbers", OPERANDS, "one of many", 10_000),
        alone(f"all of {TAGS} tags, which {TAGGED} have", OPERANDS, "all of many tags", 5_000),
        alone("create at once, for each", entries, "plain", 25),
        alone("create at once with three tags, for each", entries, "tagged", 35),
        ratio("create at once, for each", many, "large", "by hand", 1.4),
        ratio("clear all, the past kept", entries, "clear", "a bare deletion", 2),
    ]


def main() -> None:
    """Measure and check in."""
    chosen = harness.options(__doc__)
    machine = harness.machine()
    results = measure(*((2_000, 5_000, 3) if chosen.quick else (10_000, 100_000, 15)))
    harness.publish("asking", machine, {"jarvis": Jarvis.versions()}, results, goals(results), write=chosen.write)


if __name__ == "__main__":
    main()
