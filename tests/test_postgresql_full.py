"""The disk of a PostgreSQL server is full: writes raise and keep nothing, and go on when there is room again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from jarvis._postgresql import failures
from jarvis.errors import OutcomeUnknownError, StoreAccessError, StoreBusyError, StoreError, StoreFullError
from jarvis.persistent_memory import MemoryModule
from jarvis.postgresql_backend import PostgreSQLBackend

from .postgresql import IS_ROOT, NOBODY, Server, programs

MEBIBYTE = 1 << 20


class SmallServer(Server):
    """A server one of whose directories is on a small disk; to mount one takes the rights of root.

    Args:
        name: the directory, under that of its data.
        size: of the disk.
        settings: lines of its configuration.
    """

    def __init__(self, name: str, size: int, settings: str = "") -> None:
        if programs() is None or sys.platform != "linux" or not IS_ROOT:
            pytest.skip("this machine has no packaged server, or this is not root, who may mount a small disk")
        self._name, self._bytes = name, size
        self.disk: Path | None = None
        super().__init__(f"max_connections = 40\nfsync = off\n{settings}")

    def run(self, program: str, *arguments: str) -> None:
        super().run(program, *arguments, "--wal-segsize=1")
        disk, there = self.directory / "disk", self.directory / "data" / self._name
        disk.mkdir()
        options = f"size={self._bytes},uid={NOBODY},gid={NOBODY},mode=700"
        mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("this machine lets nobody mount a small disk")
        self.disk = disk
        shutil.copytree(there, disk / self._name)
        for each in [disk / self._name, *(disk / self._name).rglob("*")]:
            os.chown(each, NOBODY, NOBODY)
        os.chmod(disk / self._name, 0o700)
        shutil.rmtree(there)
        there.symlink_to(disk / self._name)

    def resize(self, size: int) -> None:
        """Give the disk another size."""
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.disk)], check=True)

    def end(self) -> None:
        """Stop it for ever, and remove its disk."""
        self.stop()
        if self.disk is not None:
            subprocess.run(["umount", "-l", str(self.disk)], check=True)
            self.disk = None
        shutil.rmtree(self.directory, ignore_errors=True)


def opened(server: Server, busy_timeout_seconds: float = 2.0) -> MemoryModule:
    return MemoryModule(PostgreSQLBackend(server.dsn, busy_timeout_seconds=busy_timeout_seconds))


def create(memory: MemoryModule, key: str) -> str:
    noise = os.urandom(4_000).hex()  # which the server cannot compress away
    return memory.create_memory("things", key, {"text": noise}, "thing")


def fill(memory: MemoryModule) -> None:
    """Write until it fails, or for too long."""
    for number in range(50):
        create(memory, f"fills {number}")


def keys(memory: MemoryModule) -> Counter[str]:
    return Counter(entry.key for entry in memory.iter_memories())


@pytest.fixture(scope="module")
def small() -> Iterator[SmallServer]:
    """A server with some room for tables."""
    server = SmallServer("base", 60 * MEBIBYTE)
    yield server
    server.end()


@pytest.fixture
def full(small: SmallServer) -> Iterator[tuple[MemoryModule, Callable[[], None]]]:
    """A memory on a server whose disk is full, and what makes room."""
    with psycopg.connect(small.dsn, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS jarvis CASCADE")
    memory = opened(small)
    create(memory, "first")
    assert small.disk is not None
    ballast = small.disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small.disk).free))
    with pytest.raises(StoreFullError, match=r"no room.*No space left"):
        fill(memory)
    yield memory, ballast.unlink
    ballast.unlink(missing_ok=True)
    memory.shutdown()


def _in_a_transaction(memory: MemoryModule) -> None:
    with memory.transaction():
        for number in range(40):
            create(memory, f"in one {number}")


def _in_bulk(memory: MemoryModule) -> None:
    text = os.urandom(4_000).hex()
    memory.create_memories(
        [
            {"category": "things", "key": f"b{number}", "value": {"text": text, "n": number}, "entity_type": "thing"}
            for number in range(40)
        ]
    )


WRITES: dict[str, Callable[[MemoryModule], object]] = {
    "create": lambda memory: create(memory, "one"),
    "transaction": _in_a_transaction,
    "bulk": _in_bulk,
    "upsert": lambda memory: memory.upsert_memory("things", "first", {"text": os.urandom(20_000).hex()}),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_write_on_a_full_disk_keeps_nothing_and_the_next_one_goes_on(
    write: str, full: tuple[MemoryModule, Callable[[], None]]
) -> None:
    memory, make_room = full
    before = memory.store.digest()

    for _ in range(2):
        with pytest.raises(StoreFullError):
            WRITES[write](memory)
    assert memory.store.digest() == before
    make_room()
    WRITES[write](memory)
    assert memory.store.digest() != before
    assert memory.store.verify().problems == {}


def test_threads_that_share_commits_on_a_full_disk_each_hear_of_their_own_write(
    full: tuple[MemoryModule, Callable[[], None]],
) -> None:
    memory, make_room = full
    before = keys(memory)

    def write(number: int) -> str | None:
        try:
            create(memory, f"{number}")
        except StoreFullError:
            return None
        return f"{number}"

    with ThreadPoolExecutor(8) as pool:
        refused = list(pool.map(write, range(40)))
        make_room()
        kept = list(pool.map(write, range(100, 140)))

    assert refused[-8:] == [None] * 8
    assert keys(memory) == before + Counter(filter(None, refused + kept))
    assert all(kept)


def test_what_is_on_a_full_disk_is_read(
    full: tuple[MemoryModule, Callable[[], None]],
) -> None:
    memory, _ = full

    assert memory.get_memory_by_key("first") is not None
    assert memory.count_memories() >= 1
    assert memory.search_text("first")


def test_a_server_whose_log_has_no_room_loses_nothing_that_it_acknowledged() -> None:
    server = SmallServer("pg_wal", 9 * MEBIBYTE, "min_wal_size = 2MB\nmax_wal_size = 200MB")
    memory = opened(server, 0.5)
    kept: list[str] = []
    unknown: list[str] = []
    errors: set[type[StoreError]] = set()

    def write(thread: int) -> None:
        for number in range(200):
            key = f"{thread}-{number}"
            try:
                create(memory, key)
                kept.append(key)
            except OutcomeUnknownError:
                unknown.append(key)
            except StoreError as error:
                errors.add(type(error))
                if isinstance(error, StoreAccessError) and "cannot be reached" in str(error):
                    return  # the server has ended itself

    try:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(write, range(6)))
        server.process.wait(timeout=10)
        with pytest.raises(StoreAccessError, match="cannot be reached"):
            create(memory, "while it is away")
        server.resize(64 * MEBIBYTE)
        server.start()
        create(memory, "after")
        there = keys(memory)
    finally:
        server.end()

    assert kept
    assert errors <= {StoreAccessError, StoreFullError, StoreBusyError, failures.LostConnectionError}
    assert not set(kept) - set(there)
    assert not set(there) - {*kept, *unknown, "after"}
    assert max(there.values()) == 1


@pytest.mark.parametrize("said", ["No space left on device", "Disk quota exceeded", "File too large"])
def test_what_the_system_of_the_server_says_of_room_is_understood(small: SmallServer, said: str) -> None:
    state = {"No space left on device": "53100"}.get(said, "XX000")  # what a server makes of it
    ask = f"DO $$ BEGIN RAISE EXCEPTION 'could not extend file: {said}' USING ERRCODE = '{state}'; END $$"
    with psycopg.connect(small.dsn) as connection, pytest.raises(psycopg.Error) as caught:
        connection.execute(ask)

    assert isinstance(failures.translated("store", caught.value, "write"), StoreFullError)
