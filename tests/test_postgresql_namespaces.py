"""Transactions that go to several namespaces of a PostgreSQL store, each of which has a clock of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from jarvis.async_memory import AsyncMemoryModule
from jarvis.errors import InvalidEntryError, StoreBusyError
from jarvis.persistent_memory import MemoryModule
from jarvis.postgresql_backend import PostgreSQLBackend

from .postgresql import a_database


@pytest.fixture
def memory() -> Iterator[MemoryModule]:
    with a_database() as dsn:
        memory = MemoryModule(PostgreSQLBackend(dsn, namespace="m"))
        yield memory
        memory.shutdown()


def test_all_namespaces_commit_at_once_or_not_at_all(memory: MemoryModule) -> None:
    other = memory.for_namespace("other")

    with contextlib.suppress(ZeroDivisionError), memory.transaction():
        memory.set_user_preference("a", {})
        other.set_user_preference("b", {})
        raise ZeroDivisionError
    assert (memory.count_memories(), other.count_memories()) == (0, 0)

    with memory.transaction():
        memory.set_user_preference("a", {})
        other.set_user_preference("b", {})
        assert (memory.count_memories(), other.count_memories()) == (1, 1)
    assert (memory.count_memories(), other.count_memories()) == (1, 1)
    assert [[change.key for change in each.changes()] for each in (memory, other)] == [["a"], ["b"]]


def test_a_savepoint_takes_back_what_it_did_in_every_namespace(memory: MemoryModule) -> None:
    other, third = memory.for_namespace("other"), memory.for_namespace("third")

    with memory.transaction():
        other.set_user_preference("kept", {})
        with contextlib.suppress(ZeroDivisionError), memory.transaction():
            other.set_user_preference("lost", {})
            third.set_user_preference("lost", {})
            raise ZeroDivisionError
        third.set_user_preference("kept", {})
        other.set_user_preference("also", {})

    assert set(other.get_user_preferences()) == {"kept", "also"}
    assert set(third.get_user_preferences()) == {"kept"}
    assert [change.key for change in third.changes()] == ["kept"]


def test_a_change_of_another_namespace_is_dated_by_the_end_of_the_transaction(memory: MemoryModule) -> None:
    other = memory.for_namespace("other")
    for each in (memory, other):
        each.set_user_preference("n", {"n": 0})

    with memory.transaction():
        other.set_user_preference("n", {"n": 1})
        memory.set_user_preference("n", {"n": 1})
        time.sleep(0.02)
        between = datetime.now(UTC)
        time.sleep(0.02)

    assert other.get_user_preferences(as_of=between) == {"n": {"n": 0}}
    assert memory.get_user_preferences(as_of=between) == {"n": {"n": 0}}


def crossing(memory: MemoryModule, change: Callable[[MemoryModule, str], None]) -> list[BaseException]:
    """Let two threads change two namespaces in opposite orders, again and again; return their errors."""
    errors: list[BaseException] = []

    def repeat(first: str, second: str) -> None:
        try:
            for _ in range(25):
                change(memory.for_namespace(first), second)
        except StoreBusyError as error:
            errors.append(error)

    threads = [threading.Thread(target=repeat, args=names) for names in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return errors


def both(mine: MemoryModule, name: str, **given: Any) -> None:
    with mine.transaction(**given):
        mine.create_memory("c", "k", {}, "t")
        mine.for_namespace(name).create_memory("c", "k", {}, "t")


def test_transactions_that_name_their_namespaces_wait_in_one_order(memory: MemoryModule) -> None:
    assert crossing(memory, lambda mine, name: both(mine, name, namespaces=[name])) == []
    assert [memory.for_namespace(name).count_memories() for name in "ab"] == [50, 50]


def test_one_of_two_that_wait_for_each_other_is_taken_back_whole(memory: MemoryModule) -> None:
    met = threading.Barrier(2)

    def meet(mine: MemoryModule, name: str) -> None:
        with mine.transaction():
            mine.create_memory("c", "k", {}, "t")
            if not met.broken:
                with contextlib.suppress(threading.BrokenBarrierError):
                    met.wait(2)
            mine.for_namespace(name).create_memory("c", "k", {}, "t")

    errors = crossing(memory, meet)
    met.abort()

    assert "deadlock detected" in str(errors[0])
    counts = [memory.for_namespace(name).count_memories() for name in "ab"]
    assert counts[0] == counts[1] > 0


def test_a_transaction_of_an_async_memory_names_its_namespaces(memory: MemoryModule) -> None:
    async def change() -> None:
        mine = AsyncMemoryModule.of(memory)
        async with mine.transaction(namespaces=["other"]):
            await mine.for_namespace("other").set_user_preference("a", {})

    asyncio.run(change())

    assert memory.for_namespace("other").count_memories() == 1


@pytest.mark.parametrize("names", ["other", {"a": 1}, 5, ["ok", ""], ["a", 7], [None]])
def test_what_is_no_list_of_names_is_refused(memory: MemoryModule, names: Any) -> None:
    with pytest.raises(InvalidEntryError, match="namespace"):
        memory.transaction(namespaces=names)
