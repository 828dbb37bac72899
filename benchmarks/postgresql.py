"""How fast is the PostgreSQL backend beside a store by hand on the same server, alone, with threads and processes?

python -m benchmarks.postgresql [--quick] [--write]
"""

from __future__ import annotations

import multiprocessing
import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import psycopg

from benchmarks import harness
from benchmarks.harness import Goal
from benchmarks.systems.on_psycopg import ByHand
from jarvis.keys import KeyFunction
from jarvis.persistent_memory import MemoryModule
from jarvis.postgresql_backend import PostgreSQLBackend
from jarvis.sealing import SealedBackend
from tests.postgresql import DSN, Server, a_database

TEXT = "some words that are the text of a memory, " * 4
THREADS, PROCESSES = 16, 8
MOST_NAMESPACES = 1_000
TAG, CATEGORY = 20, 50
"""How many memories are read at once by tag and by category."""

READS = ("get", "key", "tag", "category")


def item(number: int, size: int, *, tags: bool = True) -> dict[str, Any]:
    """Return a memory of a store of some size; as many have its tag, and its category, in any size."""
    return {
        "category": f"category-{number % (size // CATEGORY)}",
        "key": f"key-{number}",
        "value": {"n": number, "text": TEXT},
        "entity_type": "note",
        "tags": [f"tag-{number % (size // TAG)}"] if tags else [],
    }


class Both:
    """The same memories in both stores of one database."""

    def __init__(self, dsn: str, size: int) -> None:
        ByHand.create(dsn)
        self.dsn, self.size, self.rng = dsn, size, random.Random(7)
        self.ours, self.hand = MemoryModule(PostgreSQLBackend(dsn)), ByHand(dsn)
        self.our_ids = self.fill(self.ours, size)
        with self.hand.raw.transaction():
            self.hand_ids = [
                self.hand.insert(each["category"], each["key"], each["value"], each["tags"])
                for each in (item(number, size) for number in range(size))
            ]
        analyse(dsn)

    @staticmethod
    def fill(memory: MemoryModule, size: int) -> list[str]:
        """Store memories, ten thousand in a transaction; return their ids."""
        ids: list[str] = []
        for start in range(0, size, 10_000):
            ids += memory.create_memories(item(number, size) for number in range(start, min(start + 10_000, size)))
        return ids

    def calls(self) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
        """Return for each name two calls that do the same: through jarvis, and by hand."""
        ours, hand, rng, size = self.ours, self.hand, self.rng, self.size
        value = {"n": 1, "text": TEXT}
        return {
            "get": (
                lambda: ours.get_memory(rng.choice(self.our_ids)),
                lambda: hand.get(rng.choice(self.hand_ids)),
            ),
            "key": (
                lambda: ours.get_memory_by_key(f"key-{rng.randrange(size)}"),
                lambda: hand.by_key(f"key-{rng.randrange(size)}"),
            ),
            "tag": (
                lambda: ours.search_memories(tags=[f"tag-{rng.randrange(size // TAG)}"], limit=TAG),
                lambda: hand.of_tag(f"tag-{rng.randrange(size // TAG)}", TAG),
            ),
            "category": (
                lambda: ours.search_memories(category=f"category-{rng.randrange(size // CATEGORY)}", limit=CATEGORY),
                lambda: hand.of_category(f"category-{rng.randrange(size // CATEGORY)}", CATEGORY),
            ),
            "create": (
                lambda: ours.create_memory("new", "k", value, "note", tags=["new"]),
                lambda: hand.insert("new", "k", value, ["new"]),
            ),
            "upsert": (
                lambda: ours.upsert_memory("settings", f"s-{rng.randrange(100)}", {"n": rng.random(), "text": TEXT}),
                lambda: hand.upsert("settings", f"s-{rng.randrange(100)}", {"n": rng.random(), "text": TEXT}),
            ),
        }

    def close(self) -> None:
        """Close both."""
        self.ours.shutdown()
        self.hand.close()


def analyse(dsn: str) -> None:
    """Have the server look at its tables, as it does by itself after a while."""
    with psycopg.connect(dsn, autocommit=True) as raw:
        raw.execute("VACUUM ANALYZE")


@contextmanager
def both(size: int) -> Iterator[Both]:
    """Make a database with both stores for a block."""
    with a_database(syncs=True) as dsn:
        stores = Both(dsn, size)
        try:
            yield stores
        finally:
            stores.close()


@contextmanager
def on_one_core(dsn: str) -> Iterator[None]:
    """Let this process and the server's processes for its connections run on one core in a block.

    A caller and the server take turns. Where the kernel puts them on two cores, each question waits twice for a core
    to wake up: the same call takes 40 or 80 µs, by chance.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    with psycopg.connect(dsn, autocommit=True) as raw:
        rows = raw.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'").fetchall()
    before = os.sched_getaffinity(0)
    both = [0, *(pid for (pid,) in rows if is_of_server(pid))]
    try:
        for pid in both:
            os.sched_setaffinity(pid, {min(before)})
        yield
    finally:
        for pid in both:
            with suppress(ProcessLookupError):
                os.sched_setaffinity(pid, before)


def is_of_server(pid: int) -> bool:
    """Tell whether a process of this machine belongs to a server; one elsewhere may have processes of that number."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"postgres:")
    except OSError:
        return False


def alternated(dsn: str, calls: Sequence[Callable[[], object]], rounds: int, each: int) -> list[float]:
    """Return the median time of each call, in microseconds, over rounds that alternate."""
    taken: list[list[float]] = [[] for _ in calls]
    for call in calls:  # opens connections, and lets the server settle on plans
        for _ in range(max(each // 2, 1)):
            call()
    with on_one_core(dsn):
        for _ in range(rounds):
            for call, times in zip(calls, taken, strict=True):
                for _ in range(each):
                    start = time.perf_counter()
                    call()
                    times.append((time.perf_counter() - start) * 1e6)
    return [round(statistics.median(times), 1) for times in taken]


def one_caller(stores: Both, rounds: int) -> dict[str, Any]:
    """Measure each call alone, ours and by hand in turn."""
    return {
        name: dict(zip(("ours", "by hand"), alternated(stores.dsn, calls, rounds, 20), strict=True))
        for name, calls in stores.calls().items()
    }


def sealed(stores: Both, rounds: int) -> dict[str, Any]:
    """Measure each call alone, of a sealed store and of a plain one in turn."""
    with a_database(syncs=True) as dsn:
        other: Any = object.__new__(Both)
        other.__dict__.update(stores.__dict__)
        other.ours = MemoryModule(SealedBackend(PostgreSQLBackend(dsn, compression="off"), keys=[KeyFunction(a_key)]))
        other.our_ids = Both.fill(other.ours, stores.size)
        analyse(dsn)
        of_sealed, of_plain = other.calls(), stores.calls()
        figures = {
            name: dict(
                zip(
                    ("sealed", "plain"),
                    alternated(dsn, (of_sealed[name][0], of_plain[name][0]), rounds, 20),
                    strict=True,
                )
            )
            for name in of_plain
        }
        other.ours.shutdown()
    return figures


def a_key() -> bytes:
    """Return the key of the sealed store."""
    return bytes(32)


def bulk(stores: Both, count: int, rounds: int) -> dict[str, float]:
    """Measure many new memories at once, for each of them."""
    items = [item(number, count, tags=False) for number in range(count)]
    calls = (lambda: stores.ours.create_memories(items), lambda: stores.hand.copy(items))
    return {
        name: round(time_ / count, 2)
        for name, time_ in zip(("ours", "copy"), alternated(stores.dsn, calls, rounds, 1), strict=True)
    }


def a_second(works: Sequence[Callable[[], object]], seconds: float) -> float:
    """Return how many calls a second threads make, each of which repeats one of `works`."""
    end, counts = time.perf_counter() + seconds, [0] * len(works)

    def repeat(number: int) -> None:
        while time.perf_counter() < end:
            works[number]()
            counts[number] += 1

    threads = [threading.Thread(target=repeat, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return round(sum(counts) / seconds, 1)


def threads(stores: Both, rounds: int, seconds: float) -> dict[str, float]:
    """Measure durable creates of one thread and of many, in turn."""
    create = stores.calls()["create"][0]
    one, many = [], []
    for _ in range(rounds):
        one.append(a_second([create], seconds))
        many.append(a_second([create] * THREADS, seconds))
    return {"one": statistics.median(one), "many": statistics.median(many)}


def _write(kind: str, dsn: str, namespace: str, seconds: float, ready: Any, counts: Any) -> None:
    value: dict[str, Any] = {"n": 1, "text": TEXT}
    create: Callable[[], object]
    if kind == "by hand":
        hand = ByHand(dsn, namespace)
        create, close = partial(hand.insert, "new", "k", value, ["new"]), hand.close
    else:
        words: Literal["off"] | None = None if kind == "with words" else "off"
        memory = MemoryModule(PostgreSQLBackend(dsn, namespace=namespace, text_index=words))
        create, close = partial(memory.create_memory, "new", "k", value, "note", tags=["new"]), memory.shutdown
    for _ in range(20):  # until each statement is prepared
        create()
    ready.wait()
    counts.put(a_second([create], seconds))
    close()


def processes(dsn: str, rounds: int, seconds: float) -> dict[str, float]:
    """Measure durable creates of many processes, each in a namespace of its own.

    The store by hand has no index of words, so ours is measured without one beside it, and then with it.
    """
    spawn = multiprocessing.get_context("spawn")
    made: dict[str, list[float]] = {"ours": [], "by hand": [], "with words": []}
    for turn in range(rounds):
        for kind in made:
            ready, counts = spawn.Barrier(PROCESSES), spawn.Queue()
            names = [f"{kind} {turn} {number}" for number in range(PROCESSES)]
            writers = [spawn.Process(target=_write, args=(kind, dsn, name, seconds, ready, counts)) for name in names]
            for writer in writers:
                writer.start()
            made[kind].append(sum(counts.get(timeout=120) for _ in writers))
            for writer in writers:
                writer.join()
    return {kind: round(statistics.median(each), 1) for kind, each in made.items()}


def growth(few: int, many: int, rounds: int) -> dict[str, Any]:
    """Measure calls in a small store, in a large one, and in one of many namespaces, ours and by hand in turn."""
    grown: dict[str, Any] = {}
    count = MOST_NAMESPACES if many >= 100_000 else 20
    with both(few) as small, both(few) as split, a_database(syncs=True) as dsn:
        for number in range(count):
            split.ours.for_namespace(f"namespace-{number}").create_memories(item(each, 50) for each in range(20))
            other = ByHand(split.dsn, f"namespace-{number}")
            other.copy([item(each, 50, tags=False) for each in range(20)])
            other.close()
        analyse(split.dsn)
        large = copied(dsn, many)
        stores = {"few": small, "many": large, "namespaces": split}
        of_each = {name: store.calls() for name, store in stores.items()}
        for name in (*READS, "create", "upsert"):
            calls = [of_each[where][name][whose] for whose in (0, 1) for where in of_each]
            times = alternated(dsn, calls, rounds, 20)
            grown[name] = {
                whose: dict(zip(of_each, times[start : start + 3], strict=True))
                for whose, start in (("ours", 0), ("by hand", 3))
            }
        large.close()
    return grown


COPY = """
INSERT INTO hand.memories SELECT 'default', e.row, e.id, c.name, e.key, CAST(CAST(e.body AS jsonb) -> 0 AS text),
    ARRAY(SELECT jsonb_array_elements_text(CAST(e.body AS jsonb) -> 1)), 'note', e.instant, '{"module": "m"}'
FROM jarvis.entries AS e JOIN jarvis.names AS c ON c.namespace = e.namespace AND c.id = e.category;
INSERT INTO hand.tags SELECT 'default', n.name, t.instant, t.row
FROM jarvis.tags AS t JOIN jarvis.names AS n ON n.namespace = t.namespace AND n.id = t.tag;
UPDATE hand.clock SET number = (SELECT max(number) FROM hand.memories)
"""


def copied(dsn: str, size: int) -> Both:
    """Return both stores of a database: the one by hand is copied from ours on the server."""
    ByHand.create(dsn)
    stores: Any = object.__new__(Both)
    stores.dsn, stores.size, stores.rng = dsn, size, random.Random(7)
    stores.ours, stores.hand = MemoryModule(PostgreSQLBackend(dsn, compression="off")), ByHand(dsn)
    stores.our_ids = stores.hand_ids = Both.fill(stores.ours, size)
    for statement in COPY.split(";\n"):
        stores.hand.raw.execute(statement)
    analyse(dsn)
    return stores  # type: ignore[no-any-return]  # it was made without its own filling


def measure(size: int, many: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Return the figures: microseconds, or calls a second."""
    with both(size) as stores:
        results: dict[str, Any] = {
            "size": size,
            "many": many,
            "one caller": one_caller(stores, rounds),
            "sealed": sealed(stores, rounds),
            "bulk": bulk(stores, size, min(rounds, 5)),
            "threads": threads(stores, min(rounds, 5), seconds),
            "processes": processes(stores.dsn, 3, seconds),
        }
        server = psycopg.connect(stores.dsn).info.server_version
    return {**results, "growth": growth(size, many, rounds), "server": f"{server // 10_000}.{server % 10_000}"}


def goals(results: dict[str, Any]) -> list[Goal]:
    """Return each figure beside what is wanted of it."""
    size, many, wanted = results["size"], results["many"], []
    for name, each in results["one caller"].items():
        ours, hand = each["ours"], each["by hand"]
        wanted.append(Goal(name, size, ours, hand, "µs", round(ours / hand, 3), at_most=1.4, beside="by hand"))
    for name, each in results["sealed"].items():
        slower, most = round(each["sealed"] / each["plain"], 3), 4 if name in ("tag", "category") else 2
        what = f"{name}, sealed"
        wanted.append(Goal(what, size, each["sealed"], each["plain"], "µs", slower, at_most=most, beside="plain"))
    ours, copy = results["bulk"]["ours"], results["bulk"]["copy"]
    wanted.append(
        Goal("create in bulk, for each", size, ours, copy, "µs", round(ours / copy, 3), at_most=2, beside="COPY")
    )
    one, shared = results["threads"]["one"], results["threads"]["many"]
    what = f"creates a second of {THREADS} threads"
    wanted.append(Goal(what, size, shared, one, "/s", round(shared / one, 3), at_least=2, beside="one thread"))
    hand = results["processes"]["by hand"]
    what = f"creates a second of {PROCESSES} processes, each in its namespace"
    for kind, more in (("ours", ", without an index of words"), ("with words", "")):
        ours = results["processes"][kind]
        wanted.append(Goal(what + more, size, ours, hand, "/s", round(ours / hand, 3), at_least=0.8, beside="by hand"))
    for name, each in results["growth"].items():
        for where, what in (("many", "in a large store"), ("namespaces", f"beside {MOST_NAMESPACES:,} namespaces")):
            ours, hand = (each[whose][where] / each[whose]["few"] for whose in ("ours", "by hand"))
            entries, beside = many if where == "many" else size, f"{size:,}, by hand {hand:.2f}×"
            grown, few = each["ours"][where], each["ours"]["few"]
            wanted.append(
                Goal(f"{name}, {what}", entries, grown, few, "µs", round(ours, 3), at_most=1.5, beside=beside)
            )
    return wanted


def main() -> None:
    """Measure and check in."""
    chosen = harness.options(__doc__)
    machine = harness.machine()
    # With the usual 128 MB of buffers a million memories would be read from the system's cache, page by page.
    os.environ.setdefault(DSN, Server("max_connections = 300\nshared_buffers = 2GB").dsn)
    results = measure(*((1_000, 5_000, 3, 0.5) if chosen.quick else (10_000, 1_000_000, 15, 2.0)))
    versions = {"jarvis": {"postgresql": results.pop("server"), "psycopg": psycopg.__version__}}
    harness.publish("postgresql", machine, versions, results, goals(results), write=chosen.write)


if __name__ == "__main__":
    main()
