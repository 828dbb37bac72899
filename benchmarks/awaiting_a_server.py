"""How fast are awaited calls on a PostgreSQL server, beside psycopg's own async connections?

Reads by id and durable creates of one task, and of sixteen tasks at once; both sides have ten connections.

python -m benchmarks.awaiting_a_server [--quick] [--write]
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg

from benchmarks import harness
from benchmarks.harness import Goal
from benchmarks.postgresql import Both, item
from benchmarks.systems.on_psycopg import GET, INSERT, LOCK, TAG, Entry, decode, encode
from jarvis.async_memory import AsyncMemoryModule
from tests.postgresql import a_database

SIZE, CONNECTIONS, TASKS = 10_000, 10, 16


class ByHandAsync:
    """The hand-written store, over async connections that wait in a queue."""

    def __init__(self) -> None:
        self.free: asyncio.Queue[psycopg.AsyncConnection[Any]] = asyncio.Queue()

    async def open(self, dsn: str) -> None:
        """Open the connections."""
        for _ in range(CONNECTIONS):
            connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
            connection.prepare_threshold = 0
            self.free.put_nowait(connection)

    async def close(self) -> None:
        """Close them."""
        while not self.free.empty():
            await self.free.get_nowait().close()

    @asynccontextmanager
    async def lent(self) -> Any:
        """Lend a connection."""
        connection = await self.free.get()
        try:
            yield connection
        finally:
            self.free.put_nowait(connection)

    async def get(self, entry_id: str) -> Entry | None:
        """Return the memory with an id."""
        async with self.lent() as connection:
            row = await (await connection.execute(GET, ("default", entry_id))).fetchone()
        if row is None:
            return None
        found, category, key, value, tags, kind, microseconds, author = row
        moment = datetime.fromtimestamp(microseconds / 1_000_000, UTC)
        return Entry(found, category, key, decode(value), tags, kind, moment, decode(author))

    async def create(self, category: str, key: str, value: dict[str, Any], tags: list[str]) -> str:
        """Store a new memory."""
        entry_id, now = str(uuid.uuid4()), time.time_ns() // 1000
        author = encode({"module": "m", "created_at": now}).decode()
        async with self.lent() as connection, connection.transaction():
            (number,) = await (await connection.execute(LOCK, ("default",))).fetchone()
            fields = (entry_id, category, key, encode(value).decode(), tags, "note", now, author)
            await connection.execute(INSERT, ("default", number, *fields))
            for tag in tags:
                await connection.execute(TAG, ("default", tag, now, number))
        return entry_id


Call = Callable[[int], Awaitable[object]]


async def _timed(call: Call, count: int, tasks: int) -> list[int]:
    """Return what each call took, of `count` that so many tasks make."""
    taken: list[int] = []

    async def work(first: int) -> None:
        for number in range(first, count, tasks):
            start = time.perf_counter_ns()
            await call(number)
            taken.append(time.perf_counter_ns() - start)

    start = time.perf_counter_ns()
    await asyncio.gather(*(work(first) for first in range(tasks)))
    return taken if tasks == 1 else [(time.perf_counter_ns() - start) // count]


async def _measured(dsn: str, both: Both, count: int, rounds: int) -> dict[str, Any]:
    hand = ByHandAsync()
    await hand.open(dsn)
    ours = AsyncMemoryModule.of(both.ours)
    numbers = iter(range(both.size, 10**9))

    async def create_ours(_: int) -> None:
        made = item(next(numbers), both.size)
        await ours.create_memory(made["category"], made["key"], made["value"], "note", tags=made["tags"])

    async def create_by_hand(_: int) -> None:
        made = item(next(numbers), both.size)
        await hand.create(made["category"], made["key"], made["value"], made["tags"])

    calls: dict[str, dict[str, Call]] = {
        "get": {
            "jarvis": lambda number: ours.get_memory(both.our_ids[number * 7_919 % both.size]),
            "by hand": lambda number: hand.get(both.hand_ids[number * 7_919 % both.size]),
        },
        "create": {"jarvis": create_ours, "by hand": create_by_hand},
    }
    taken: dict[str, list[list[int]]] = {}
    for turn in range(rounds + 1):
        for name, sides in calls.items():
            for side, call in sides.items():
                for tasks in (1, TASKS):
                    times = await _timed(call, count, tasks)
                    if turn:
                        taken.setdefault(f"{name} {tasks} {side}", []).append(times)
    await hand.close()
    return {name: harness.statistics_of(times) for name, times in taken.items()}


def measure(count: int, rounds: int) -> dict[str, Any]:
    """Return the figures of both sides."""
    with a_database(syncs=True) as dsn:
        both = Both(dsn, SIZE)
        return asyncio.run(_measured(dsn, both, count, rounds))


def goals(results: dict[str, Any]) -> list[Goal]:
    """Return each figure beside that of psycopg."""
    made = []
    for name in ("get", "create"):
        for tasks, most in ((1, 3.0), (TASKS, 1.5)):
            ours, hand = (results[f"{name} {tasks} {side}"]["median_us"] for side in ("jarvis", "by hand"))
            what = f"an awaited {name}" + ("" if tasks == 1 else f", {tasks} tasks at once")
            made.append(Goal(what, SIZE, ours, hand, "µs", round(ours / hand, 3), most, beside="psycopg's async"))
    return made


def main() -> None:
    """Measure and check in."""
    chosen = harness.options(__doc__)
    machine = harness.machine()
    results = measure(*((64, 1) if chosen.quick else (400, 7)))
    versions = {"jarvis": {"psycopg": psycopg.__version__}}
    harness.publish("awaiting_a_server", machine, versions, results, goals(results), write=chosen.write)


if __name__ == "__main__":
    main()
