"""Watchers on PostgreSQL: notices of other processes wake them, and while nothing happens they ask seldom."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from jarvis._postgresql import notices
from jarvis.model.change import Change
from jarvis.persistent_memory import MemoryModule
from jarvis.postgresql_backend import PostgreSQLBackend

from .postgresql import a_database


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with a_database() as dsn:
        yield dsn


@pytest.fixture
def two(dsn: str) -> Iterator[tuple[MemoryModule, MemoryModule]]:
    """Two memories that share nothing but the server, as in two processes."""
    memories = MemoryModule(PostgreSQLBackend(dsn)), MemoryModule(PostgreSQLBackend(dsn))
    yield memories
    for memory in memories:
        memory.shutdown()


def test_a_watcher_hears_of_commits_elsewhere_through_few_notices(
    two: tuple[MemoryModule, MemoryModule], dsn: str
) -> None:
    watching, writing = two
    watching.bootstrap()
    told: list[Change] = []

    def watch() -> None:
        for change in watching.watch(idle_seconds=10):
            told.append(change)
            if change.key == "last":
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    time.sleep(0.3)
    with psycopg.connect(dsn, autocommit=True) as listener:
        listener.execute(f"LISTEN {notices.CHANNEL}")
        start = time.monotonic()
        for number in range(150):
            writing.create_memory("c", str(number), {}, "t")
        took = time.monotonic() - start
        writing.create_memory("c", "last", {}, "t")
        watcher.join(20)
        heard = list(listener.notifies(timeout=0.1))

    assert not watcher.is_alive()
    assert [change.key for change in told] == [*map(str, range(150)), "last"]
    assert 1 <= len(heard) <= took / 0.05 + 2


def test_a_notice_alone_wakes_a_watcher(
    two: tuple[MemoryModule, MemoryModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    watching, writing = two
    writing.bootstrap()
    monkeypatch.setattr(notices, "_IDLE_SECONDS", 60)
    watcher = watching.watch(idle_seconds=20)
    threading.Timer(0.5, writing.create_memory, ("c", "k", {}, "t")).start()

    assert next(watcher).key == "k"


def test_an_idle_watcher_asks_seldom(two: tuple[MemoryModule, MemoryModule], monkeypatch: pytest.MonkeyPatch) -> None:
    watching, _ = two
    watching.create_memory("c", "k", {}, "t")
    time.sleep(0.2)
    looks = 0
    last_position = PostgreSQLBackend.last_position

    def looked(self: PostgreSQLBackend) -> int:
        nonlocal looks
        looks += 1
        return last_position(self)

    monkeypatch.setattr(PostgreSQLBackend, "last_position", looked)

    assert list(watching.watch(idle_seconds=1.2)) == []
    assert looks < 8


def test_without_a_listener_a_watcher_asks_each_time(
    two: tuple[MemoryModule, MemoryModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    watching, writing = two
    monkeypatch.setattr(notices, "CHANNEL", "a channel that cannot be")
    watcher = watching.watch(idle_seconds=10)
    threading.Timer(0.3, writing.create_memory, ("c", "unheard", {}, "t")).start()

    assert next(watcher).key == "unheard"


def test_a_listener_that_gets_no_answer_is_told_and_keeps_no_watcher_waiting(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    silent = socket.create_server(("127.0.0.1", 0))  # it takes connections, and says nothing
    address = f"postgresql://u:geheim@127.0.0.1:{silent.getsockname()[1]}/d"
    watching, writing = MemoryModule(PostgreSQLBackend(dsn, listen_dsn=address)), MemoryModule(dsn)
    writing.bootstrap()
    watcher = watching.watch(idle_seconds=20)
    threading.Timer(0.3, writing.create_memory, ("c", "unheard", {}, "t")).start()
    began = time.monotonic()

    assert next(watcher).key == "unheard"

    assert time.monotonic() - began < 8
    (told,) = [record.getMessage() for record in caplog.records if record.name == "jarvis.postgresql"]
    assert told.startswith("cannot listen for notices, so watchers ask each time: ")
    assert "geheim" not in told
    for memory in (watching, writing):
        memory.shutdown()
    silent.close()
