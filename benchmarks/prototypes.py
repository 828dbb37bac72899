"""What could a write cost at best? Prototypes of what is not done, beside what is, in alternating rounds.

python -m benchmarks.prototypes [--quick] [--write]

- *bare*: the statements of a create, of a preference that is set again, of 1,000 creates in one transaction,
  on our tables, and nothing around them: no check of what is given, no writers' lock, no look at the
  file, no note.
- *one index less*: the same without the index that lists the entries of a type.
- *small pages*: the same with pages of 2 KiB.
- *plain pages*: the same without page checksums.
- *one thread, 28 a commit*: what 32 threads could make if waking them cost nothing.
- *sync behind the lock*, of eight processes: each commits without a sync, lets the next one write, and
  syncs the log itself before it acknowledges. Readers then see what a power cut takes back.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import msgspec

from benchmarks import harness
from benchmarks.corpus import record
from benchmarks.systems import open_system
from benchmarks.systems.system import System
from benchmarks.worker import load
from jarvis._sqlite import engine, schema
from jarvis.model.identifiers import new_id

SIZE = 10_000
TYPE_INDEX = "CREATE INDEX entries_by_type ON entries (namespace, entity_type, instant);\n"
TYPE_STATISTICS = "    ('entries', 'entries_by_type', '1000000 1000000 100000 2'),\n"
INSERT = """
INSERT INTO entries (row, namespace, id, category, key, entity_type, entity_id, instant, version, body, checksum)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, ?, 4000000000)
"""
INSERT_TAGS = """
INSERT INTO tags (namespace, tag, instant, row, category, entity_type)
VALUES (?1, ?6, ?2, ?3, ?4, ?5), (?1, ?7, ?2, ?3, ?4, ?5), (?1, ?8, ?2, ?3, ?4, ?5)
"""
LAST_WRITTEN = """
SELECT row, id, category, key, entity_type, entity_id, instant, version, body FROM entries
WHERE row = (SELECT max(row) FROM entries WHERE namespace = ? AND category = ? AND key = ?)
"""
UPDATE = "UPDATE entries SET row = ?, instant = ?, version = ?, body = ?, checksum = 4000000000 WHERE row = ?"
BULK = 1_000
PREFERENCES = 100


class Bare:
    """A connection to our tables, and what a create says to it."""

    def __init__(
        self, path: Path, *, tables: str = schema.TABLES, page_bytes: int = 4096, vfs: str = "cksmvfs"
    ) -> None:
        engine.load_checksums()
        self._db = apsw.Connection(str(path), vfs=vfs)
        self._db.execute(f"PRAGMA page_size = {page_bytes}").fetchall()
        self._db.reserve_bytes(reserve=engine.RESERVED_BYTES if vfs == "cksmvfs" else 0)
        self._db.execute("PRAGMA journal_mode = WAL").fetchall()
        self._db.execute(tables).fetchall()
        self._db.execute("ANALYZE sqlite_schema").fetchall()  # look at the statistics that the tables came with
        self._db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        self._db.execute(engine.SETTINGS).fetchall()
        self._names: dict[str, int] = {}
        self._row = 0
        self._fill()

    def _fill(self) -> None:
        self._db.execute("BEGIN")
        for number in range(SIZE):
            self._insert(number)
        self._db.execute("COMMIT")

    def create(self, number: int) -> None:
        """Store one entry."""
        self._db.execute("BEGIN IMMEDIATE")
        self._insert(number)
        self._db.execute("COMMIT")

    def create_many(self, number: int) -> None:
        """Store a thousand entries in one transaction."""
        self._db.execute("BEGIN IMMEDIATE")
        for each in range(BULK):
            self._insert(number * BULK + each)
        self._db.execute("COMMIT")

    def set_again(self, number: int) -> None:
        """Give the entry of a key another value."""
        each = record(number % PREFERENCES)
        self._db.execute("BEGIN IMMEDIATE")
        names = (self._id("default"), self._id(each.category), each.key)
        found: list[Any] = self._db.execute(LAST_WRITTEN, names).fetchall()
        row, *_, version, body = found[0]
        _, *others = msgspec.json.decode(body)
        self._row += 1
        body = msgspec.json.encode([record(number).value, *others])
        self._db.execute(UPDATE, (self._row, time.time_ns() // 1000, version + 1, body.decode(), row))
        self._db.execute("COMMIT")

    def set_durable(self, durable: bool) -> None:
        """Let commits sync, or not."""
        self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")

    def _insert(self, number: int) -> None:
        each = record(number)
        self._row += 1
        instant = time.time_ns() // 1000
        namespace, category, entity_type, *tags = map(
            self._id, ("default", each.category, each.entity_type, *each.tags)
        )
        body = msgspec.json.encode([each.value, each.tags, [each.module, each.task_id], "2026-01-01T00:00:00.000000"])
        names = (namespace, new_id(), category, each.key, entity_type, each.entity_id)
        self._db.execute(INSERT, (self._row, *names, instant, body.decode()))
        self._db.execute(INSERT_TAGS, (namespace, instant, self._row, category, entity_type, *tags))

    def _id(self, name: str) -> int:
        known = self._names.get(name)
        if known is None:
            self._db.execute("INSERT INTO names (name) VALUES (?)", (name,))
            known = self._names[name] = self._db.last_insert_rowid()
        return known


def writes(rounds: int, count: int) -> dict[str, Any]:
    """Return the figures of a create: by hand, ours, and the prototypes, each synced and not."""
    found: dict[str, Any] = {}
    with harness.stores() as stores:
        directory = stores.shared("raw", SIZE).parent
        without = schema.TABLES.replace(TYPE_INDEX, "").replace(TYPE_STATISTICS, "")
        if len(without) == len(schema.TABLES):
            raise RuntimeError("the tables have no index by type any more")
        prototypes = {
            "bare": Bare(directory / "bare.db"),
            "one index less": Bare(directory / "less.db", tables=without),
            "small pages": Bare(directory / "small.db", page_bytes=2048),
            "plain pages": Bare(directory / "plain.db", vfs=apsw.vfs_names()[0]),
        }
        for durable in (True, False):
            systems = {}
            for name in ("raw", "jarvis"):
                (directory / f"{name}-{durable}").mkdir()
                load(name, SIZE, directory / f"{name}-{durable}")
                systems[name] = open_system(name, directory / f"{name}-{durable}", durable=durable)
            for bare in prototypes.values():
                bare.set_durable(durable)
            ways: dict[str, Callable[[int], object]] = {
                name: partial(_create, system) for name, system in systems.items()
            }
            ways |= {name: bare.create for name, bare in prototypes.items()}
            os.sync()
            found["create, durable" if durable else "create, without sync"] = _alternate(ways, rounds, count)
            if durable:
                ways = {name: partial(_set_again, system) for name, system in systems.items()}
                ways["bare"] = prototypes["bare"].set_again
                found["set a preference, durable"] = _alternate(ways, rounds, count)
                ways = {name: partial(_create_many, system) for name, system in systems.items()}
                ways["bare"] = prototypes["bare"].create_many
                found["1,000 creates in one transaction"] = _alternate(ways, 2, max(count // 8, 2))
    return found


def _create(system: System, number: int) -> None:
    system.create(record(number))


def _set_again(system: System, number: int) -> None:
    system.set_preference(record(number % PREFERENCES).key, record(number).value)


def _create_many(system: System, number: int) -> None:
    system.bulk(record(number * BULK + each) for each in range(BULK))


def _alternate(ways: dict[str, Callable[[int], object]], rounds: int, count: int) -> dict[str, Any]:
    taken: dict[str, list[list[int]]] = {name: [] for name in ways}
    number = SIZE
    for _ in range(rounds):
        for name, create in ways.items():
            calls = []
            for _ in range(count):
                number += 1
                start = time.perf_counter_ns()
                create(number)
                calls.append(time.perf_counter_ns() - start)
            taken[name].append(calls)
    return {name: harness.statistics_of(calls) for name, calls in taken.items()}


# --- many threads --------------------------------------------------------------------------------


def shared(seconds: float, together: int = 28) -> dict[str, Any]:
    """Return the durable creates a second of one thread: one a commit, and as many as 32 threads share."""
    found = {}
    with harness.stores() as stores:
        directory = stores.shared("jarvis", SIZE)
        system: Any = open_system("jarvis", directory, durable=True)
        for count in (1, together):
            made, end = 0, time.perf_counter() + seconds
            while time.perf_counter() < end:
                system.bulk(record(SIZE + made + step) for step in range(count))
                made += count
            found[f"{count} a commit"] = {"creates_a_second": round(made / seconds)}
        system.close()
    return found


# --- eight processes -----------------------------------------------------------------------------


def processes(seconds: float, count: int = 8) -> dict[str, Any]:
    """Return the durable creates a second of eight processes that read four times as often as they write."""
    found = {}
    with harness.stores() as stores:
        for way in ("raw", "jarvis", "sync behind the lock"):
            name = "raw" if way == "raw" else "jarvis"
            directory = stores.shared(name, 1_000)
            children = [
                subprocess.Popen(
                    [sys.executable, "-m", "benchmarks.prototypes", "child", way, directory, str(number), str(seconds)],
                    cwd=harness.ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for number in range(count)
            ]
            for child in children:
                _line(child)
            for child in children:
                assert child.stdin is not None
                print("go", file=child.stdin, flush=True)
            made = [int(_line(child)) for child in children]
            for child in children:
                child.wait()
            found[way] = {
                "creates_a_second": round(sum(made) / seconds),
                "slowest_to_fastest": round(min(made) / max(made), 2),
            }
    return found


def _line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise RuntimeError("a process ended early")
    return line


def _child(way: str, directory: Path, number: int, seconds: float) -> None:
    from benchmarks.worker import ids_of

    outside = way == "sync behind the lock"
    system = open_system("raw" if way == "raw" else "jarvis", directory, durable=not outside)
    ids = ids_of(directory)
    system.create(record(2_000_000 + number))
    log = os.open(directory / "memory.db-wal", os.O_RDWR) if outside else -1
    print("ready", flush=True)
    sys.stdin.readline()
    end, made = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        for step in range(4):
            system.get(ids[(made * 7_919 + step) % len(ids)])
        system.create(record(1_000_000 + number * 100_000 + made))
        if outside:
            os.fdatasync(log)
        made += 1
    print(made, flush=True)


def main() -> None:
    """Measure and check in."""
    chosen = harness.options(__doc__)
    started = harness.machine()
    results = {
        "writes": writes(5 if chosen.quick else 25, 20 if chosen.quick else 40),
        "one thread": shared(1 if chosen.quick else 4),
        "eight processes": processes(1 if chosen.quick else 4),
    }
    for title, ways in results["writes"].items():
        for name, figures in ways.items():
            print(f"{title:<24} {name:<20} {harness.amount(figures['median_us'], 'µs')}")
    for name, figures in results["one thread"].items():
        print(f"1 thread {'':<15} {name:<20} {figures['creates_a_second']:,} creates a second")
    for name, figures in results["eight processes"].items():
        fair = figures["slowest_to_fastest"]
        print(f"8 processes {'':<12} {name:<20} {figures['creates_a_second']:,} creates a second, fair to {fair}")
    harness.publish("prototypes", started, {}, results, [], write=chosen.write)


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        _child(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
    else:
        main()
