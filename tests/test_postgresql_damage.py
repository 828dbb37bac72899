"""A store on a server of which something is missing or damaged: what is told, and what is advised works."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from jarvis.errors import CorruptStoreError, StoreAccessError, StoreFullError, StoreMissingError, StoreTooNewError
from jarvis.persistent_memory import MemoryModule
from jarvis.postgresql_backend import PostgreSQLBackend

from .postgresql import Server

QUESTIONS: dict[str, Callable[[MemoryModule], Any]] = {
    "list": lambda memory: memory.list_memories(),
    "by key": lambda memory: memory.get_memory_by_key("k1"),
    "iterate": lambda memory: list(memory.iter_memories()),
    "search": lambda memory: memory.search_memories(where={"n": 2}),
}


@pytest.fixture
def memory(dsn: str) -> Iterator[MemoryModule]:
    memory = MemoryModule(dsn, busy_timeout_seconds=2)
    for number in range(3):
        memory.create_memory("things", f"k{number}", {"n": number}, "thing", tags=["tag"])
    yield memory
    memory.shutdown()


def _run(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement)


@pytest.mark.parametrize("ask", QUESTIONS.values(), ids=QUESTIONS)
def test_a_damaged_entry_is_named_and_removed_as_advised(memory: MemoryModule, dsn: str, ask: Any) -> None:
    (damaged, other) = (memory.get_memory_by_key(key) for key in ("k1", "k0"))
    assert damaged is not None
    _run(dsn, "UPDATE jarvis.entries SET body = '{broken' WHERE key = 'k1'")

    with pytest.raises(CorruptStoreError, match=f"{damaged.id} cannot be decoded; other entries can be read"):
        ask(memory)
    assert memory.get_memory_by_key("k0") == other
    _run(dsn, f"DELETE FROM jarvis.entries WHERE id = '{damaged.id}'")

    assert [entry.key for entry in memory.search_memories(tags=["tag"])] == ["k2", "k0"]
    ask(memory)


@pytest.mark.parametrize("ask", QUESTIONS.values(), ids=QUESTIONS)
def test_an_entry_without_its_name_is_damage(memory: MemoryModule, dsn: str, ask: Any) -> None:
    _run(dsn, "DELETE FROM jarvis.names WHERE name = 'things'")
    memory = MemoryModule(dsn)  # the other one remembers the name

    with pytest.raises(CorruptStoreError, match="has a name that is not there"):
        ask(memory)
    memory.shutdown()


@pytest.mark.parametrize("removed", ["SCHEMA jarvis", "TABLE jarvis.entries"])
def test_tables_that_are_gone_are_begun_again_as_advised(memory: MemoryModule, dsn: str, removed: str) -> None:
    _run(dsn, f"DROP {removed} CASCADE")

    for call in (memory.list_memories, lambda: memory.set_user_preference("theme", {})):
        with pytest.raises(StoreMissingError, match="drop what is left of the schema and call shutdown"):
            call()
    _run(dsn, "DROP SCHEMA IF EXISTS jarvis CASCADE")
    memory.shutdown()

    assert memory.list_memories() == []


def test_tables_of_another_form_are_a_newer_version(memory: MemoryModule, dsn: str) -> None:
    _run(dsn, "ALTER TABLE jarvis.entries DROP COLUMN packed")

    with pytest.raises(StoreTooNewError, match="pip install -U jarvis-memory"):
        memory.list_memories()


def test_a_schema_that_is_no_whole_store_is_renamed_as_advised(memory: MemoryModule, dsn: str) -> None:
    _run(dsn, "DELETE FROM jarvis.store")
    memory.shutdown()

    with pytest.raises(StoreAccessError, match="Drop or rename that schema"):
        memory.list_memories()
    _run(dsn, "ALTER SCHEMA jarvis RENAME TO old")

    assert memory.list_memories() == []


def test_a_question_that_fails_leaves_nothing_for_the_garbage_collector(memory: MemoryModule, dsn: str) -> None:
    _run(dsn, "UPDATE jarvis.entries SET body = '{broken' WHERE key = 'k1'")

    with pytest.raises(CorruptStoreError):  # it ends an iteration; pytest reports what it raises later
        memory.search_memories(where={"n": 2})
    gc.collect()


@contextmanager
def _no_descriptors_left() -> Iterator[None]:
    import resource  # not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, hard))
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_lack_of_descriptors_is_told_and_needs_only_that_some_are_closed(dsn: str) -> None:
    memory = MemoryModule(dsn)
    with _no_descriptors_left(), pytest.raises(StoreAccessError, match=r"Too many open files.*ulimit -n"):
        memory.list_memories()

    assert memory.list_memories() == []
    memory.shutdown()


def test_a_server_without_room_tells_which_of_its_settings_gives_some() -> None:
    server = Server("max_connections = 10\nmax_locks_per_transaction = 10")
    backend = PostgreSQLBackend(server.dsn, partitions=100)

    with pytest.raises(StoreFullError, match="max_locks_per_transaction"):
        backend.list_all()
    backend.shutdown()
