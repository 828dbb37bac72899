"""Async readers pass writers that wait, and long calls keep nobody waiting."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest

from jarvis._calls.lanes import THREADS
from jarvis.async_memory import AsyncMemoryModule
from jarvis.errors import InvalidEntryError
from jarvis.persistent_memory import MemoryModule
from jarvis.postgresql_backend import PostgreSQLBackend

Result = TypeVar("Result")

BACKENDS = ("sqlite", "json")
WRITERS = 6  # more than there are threads for them


def told(story: Callable[[], Awaitable[Result]]) -> Result:
    """Return what the story returns; a call that waits for ever fails instead."""

    async def in_time() -> Result:
        return await asyncio.wait_for(story(), 20)

    return asyncio.run(in_time())


@contextlib.contextmanager
def writing(directory: Path, backend_type: str) -> Iterator[None]:
    """Have another handle hold the writers' lock, in a thread of its own."""
    is_held, is_over = threading.Event(), threading.Event()

    def hold() -> None:
        other = MemoryModule(storage_dir=directory, backend_type=backend_type)
        with other.transaction():
            other.set_user_preference("held", {})
            is_held.set()
            is_over.wait()
        other.shutdown()

    thread = threading.Thread(target=hold)
    thread.start()
    is_held.wait()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


async def reads(memory: AsyncMemoryModule) -> list[Any]:
    """Make a call of every kind that waits for no writer."""
    await memory.changes()
    await memory.get_user_preferences()
    await memory.get_memory("no such id")
    await memory.get_history("no such id")
    assert await memory.store.list_namespaces() == ["default"]
    return [entry.key async for entry in memory.iter_memories()]


@pytest.mark.parametrize("backend_type", BACKENDS)
@pytest.mark.parametrize("is_open", [True, False], ids=["open", "not-opened-yet"])
def test_reads_pass_writes_that_wait(tmp_path: Path, backend_type: str, is_open: bool) -> None:
    MemoryModule(storage_dir=tmp_path, backend_type=backend_type).set_user_preference("theme", {"mode": "dark"})

    async def story() -> tuple[list[str], list[bool], int]:
        memory = AsyncMemoryModule(storage_dir=tmp_path, backend_type=backend_type)
        if is_open:
            await memory.bootstrap()
        with writing(tmp_path, backend_type):
            writes = [asyncio.ensure_future(memory.record_task(str(number), {})) for number in range(WRITERS)]
            await asyncio.sleep(0)
            seen = await reads(memory)
            seen += await reads(memory.for_namespace("default"))
            are_done = [write.done() for write in writes]
        await asyncio.gather(*writes)
        count = await memory.count_memories(category="tasks")
        await memory.shutdown()
        return seen, are_done, count

    assert told(story) == (["theme", "theme"], [False] * WRITERS, WRITERS)


@pytest.mark.parametrize("backend_type", BACKENDS)
def test_a_transaction_may_await_what_another_task_reads(tmp_path: Path, backend_type: str) -> None:
    async def story() -> tuple[int, int]:
        async with AsyncMemoryModule(storage_dir=tmp_path, backend_type=backend_type) as memory:
            is_asked: asyncio.Queue[asyncio.Future[int]] = asyncio.Queue()

            async def answer() -> None:
                answered = await is_asked.get()
                answered.set_result(await memory.count_memories())

            go = asyncio.Event()

            async def write(number: int) -> str:
                await go.wait()
                return await memory.record_task(str(number), {})

            other = asyncio.create_task(answer())
            writes = [asyncio.create_task(write(number)) for number in range(WRITERS)]
            async with memory.transaction():
                await memory.record_task("own", {})
                go.set()
                await asyncio.sleep(0)
                question: asyncio.Future[int] = asyncio.get_running_loop().create_future()
                await is_asked.put(question)
                seen = await question
            await asyncio.gather(other, *writes)
            return seen, await memory.count_memories()

    assert told(story) == (0, WRITERS + 1)


@pytest.mark.parametrize("backend_type", BACKENDS)
def test_a_long_call_keeps_neither_reads_nor_writes_waiting(tmp_path: Path, backend_type: str) -> None:
    starts, goes_on = threading.Semaphore(0), threading.Event()

    def clock() -> datetime:
        if threading.current_thread().name.startswith("jarvis-memory-long"):
            starts.release()
            goes_on.wait()
        return datetime.now(UTC)

    async def story() -> tuple[int, list[bool]]:
        async with AsyncMemoryModule(storage_dir=tmp_path, backend_type=backend_type, clock=clock) as memory:
            try:
                plans = [asyncio.ensure_future(memory.plan_retention()) for _ in range(WRITERS)]
                for _ in plans:
                    assert await asyncio.to_thread(functools.partial(starts.acquire, timeout=10))
                await memory.set_user_preference("theme", {"mode": "dark"})
                count = await memory.count_memories()
                are_done = [plan.done() for plan in plans]
            finally:
                goes_on.set()
            await asyncio.gather(*plans)
            return count, are_done

    assert told(story) == (1, [False] * WRITERS)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("jarvis-memory-long")]


def test_recompressing_keeps_neither_reads_nor_writes_waiting(tmp_path: Path) -> None:
    with MemoryModule(storage_dir=tmp_path, compression="off") as plain:
        plain.create_memory("notes", "long", {"text": "again and again " * 500}, "note")
    starts, goes_on = threading.Event(), threading.Event()

    def progress(*_: object) -> None:
        starts.set()
        goes_on.wait()

    async def story() -> tuple[int, bool, int]:
        async with AsyncMemoryModule(storage_dir=tmp_path) as memory:
            try:
                work = asyncio.ensure_future(memory.store.recompress(progress))
                assert await asyncio.to_thread(functools.partial(starts.wait, 10))
                await asyncio.gather(*(memory.record_task(str(number), {}) for number in range(WRITERS)))
                count, is_done = await memory.count_memories(), work.done()
            finally:
                goes_on.set()
            return count, is_done, (await work).entries

    assert told(story) == (WRITERS + 1, False, 1)


@pytest.mark.parametrize("backend_type", BACKENDS)
def test_many_erasures_at_once_need_few_threads(tmp_path: Path, backend_type: str) -> None:
    async def story() -> tuple[int, int]:
        async with AsyncMemoryModule(storage_dir=tmp_path, backend_type=backend_type) as memory:
            async with memory.transaction():
                ids = [await memory.record_task(str(number), {}) for number in range(40)]
            before = threading.active_count()
            erasures = [asyncio.ensure_future(memory.erase_memory(memory_id)) for memory_id in ids]
            await asyncio.sleep(0)
            most = threading.active_count() - before
            await asyncio.gather(*erasures)
            return most, await memory.count_memories()

    most, left = told(story)

    assert (0 < most <= THREADS["long"], left) == (True, 0)


@pytest.mark.parametrize("is_in_transaction", [False, True], ids=["call", "transaction"])
def test_no_later_change_is_made_before_a_watch_knows_where_it_begins(tmp_path: Path, is_in_transaction: bool) -> None:
    starts, goes_on = threading.Semaphore(0), threading.Event()

    def clock() -> datetime:
        if threading.current_thread().name.startswith("jarvis-memory-read"):
            starts.release()
            goes_on.wait()
        return datetime.now(UTC)

    async def write(memory: AsyncMemoryModule) -> None:
        async with memory.transaction() if is_in_transaction else contextlib.nullcontext():
            await memory.set_user_preference("theme", {})

    async def story() -> str | None:
        async with AsyncMemoryModule(storage_dir=tmp_path, clock=clock) as memory:
            try:
                counts = [asyncio.ensure_future(memory.count_memories()) for _ in range(THREADS["read"])]
                for _ in counts:
                    assert await asyncio.to_thread(functools.partial(starts.acquire, timeout=10))
                watcher = memory.watch(idle_seconds=1)
                written = asyncio.create_task(write(memory))
                await asyncio.wait([written], timeout=0.2)
            finally:
                goes_on.set()
            await asyncio.gather(written, *counts)
            return (await anext(watcher)).key

    assert told(story) == "theme"


def test_a_watch_that_is_cancelled_at_once_holds_up_no_write(tmp_path: Path) -> None:
    async def story() -> int:
        async with AsyncMemoryModule(storage_dir=tmp_path) as memory:
            for number in range(20):
                watching = asyncio.ensure_future(anext(memory.watch()))
                await asyncio.sleep(0)
                watching.cancel()
                await memory.record_task(str(number), {})
            return await memory.count_memories()

    assert told(story) == 20


def test_two_loops_at_once_use_one_memory(tmp_path: Path) -> None:
    memory = AsyncMemoryModule(storage_dir=tmp_path)

    async def story() -> None:
        for number in range(20):
            await asyncio.gather(memory.record_task(str(number), {}), memory.count_memories())

    threads = [threading.Thread(target=told, args=(story,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert told(memory.count_memories) == 40
    asyncio.run(memory.shutdown())


@pytest.mark.parametrize("backend_type", BACKENDS)
def test_a_function_of_many_calls_is_one_change_in_one_thread(tmp_path: Path, backend_type: str) -> None:
    threads: set[int] = set()

    def compound(memory: MemoryModule) -> str:
        threads.add(threading.get_ident())
        memory.set_user_preference("one", {"n": 1})
        memory.set_user_preference("two", {"n": memory.get_user_preferences()["one"]["n"] + 1})
        return memory.namespace

    def failing(memory: MemoryModule) -> None:
        compound(memory)
        memory.delete_user_preference("one")
        raise LookupError

    async def coroutine(memory: MemoryModule) -> None:
        compound(memory)

    async def story() -> None:
        async with AsyncMemoryModule(storage_dir=tmp_path, backend_type=backend_type) as memory:
            assert await memory.for_namespace("alice").run(compound) == "alice"
            with pytest.raises(LookupError):
                await memory.run(failing)
            for wrong in (coroutine, None):
                with pytest.raises(InvalidEntryError, match="function"):
                    await memory.run(wrong)  # type: ignore[arg-type,unused-coroutine]  # hostile
            assert await memory.get_user_preferences() == {}
            async with memory.transaction():
                await memory.run(compound)
                with pytest.raises(LookupError):
                    await memory.run(failing)
            assert await memory.get_user_preferences() == {"one": {"n": 1}, "two": {"n": 2}}

    told(story)
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("backend_type", BACKENDS)
def test_a_cancelled_function_still_runs_to_its_end(tmp_path: Path, backend_type: str) -> None:
    has_begun = threading.Event()

    def slow(memory: MemoryModule) -> None:
        memory.set_user_preference("one", {"n": 1})
        has_begun.set()
        threading.Event().wait(0.1)
        memory.set_user_preference("two", {"n": 2})

    async def story() -> None:
        async with AsyncMemoryModule(storage_dir=tmp_path, backend_type=backend_type) as memory:
            task = asyncio.ensure_future(memory.run(slow))
            await asyncio.to_thread(has_begun.wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await memory.set_user_preference("three", {})  # waits for its turn to write
            assert (await memory.get_user_preferences()).keys() == {"one", "two", "three"}

    told(story)


def test_iterations_go_on_while_others_wait_for_a_connection(dsn: str) -> None:
    memory = AsyncMemoryModule(PostgreSQLBackend(dsn, pool_size=2, busy_timeout_seconds=5))

    async def story() -> list[int]:
        items = [{"category": "c", "key": str(n), "value": {}, "entity_type": "t"} for n in range(300)]
        await memory.create_memories(items)

        async def count() -> int:
            return len([entry async for entry in memory.iter_memories()])

        counts = await asyncio.gather(*(count() for _ in range(2 * THREADS["read"])))
        await memory.shutdown()
        return counts

    assert told(story) == [300] * 2 * THREADS["read"]
