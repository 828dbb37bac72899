"""Threads that share a commit: each is told the truth, whatever happens to the one that leads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import apsw
import pytest

from jarvis._disk.locks import WriterLock
from jarvis._sql.write_queue import NO_COMMIT, Write, WriteQueue
from jarvis._sqlite import engine
from jarvis.errors import StoreBusyError
from jarvis.persistent_memory import MemoryModule

_BASE = engine.vfs


class _LogFile(apsw.VFSFile):
    """Keeps what was written to the log, and how much of that was synced."""

    written: ClassVar[list[bytes]] = []
    synced: ClassVar[int] = 0
    syncs: ClassVar[int] = 0

    def __init__(self, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._is_log = bool(flags[0] & apsw.SQLITE_OPEN_WAL)
        super().__init__(_BASE, name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        super().xWrite(data, offset)
        if self._is_log:
            self.written.append(bytes(data))

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        before = len(self.written)
        super().xSync(flags)
        if self._is_log:
            _LogFile.synced = before
            _LogFile.syncs += 1


class _LogVFS(apsw.VFS):
    def __init__(self) -> None:
        super().__init__("log", _BASE)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        return _LogFile(name, flags)


@pytest.fixture
def log_file(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_LogFile]]:
    engine.load_checksums()
    layer = _LogVFS()
    monkeypatch.setattr(engine, "vfs", "log")
    _LogFile.written.clear()
    _LogFile.synced = _LogFile.syncs = 0
    yield _LogFile
    layer.unregister()


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[MemoryModule]:
    memory = MemoryModule(storage_dir=tmp_path, busy_timeout_seconds=20)
    memory.bootstrap()
    yield memory
    memory.shutdown()


def test_each_write_is_acknowledged_after_a_sync_that_covers_it(log_file: type[_LogFile], memory: MemoryModule) -> None:
    early: list[str] = []
    start = log_file.syncs

    def write(thread: int) -> None:
        for turn in range(25):
            memory_id = memory.create_memory("c", f"{thread}-{turn}", {}, "t", tags=["a"])
            if not any(memory_id.encode() in data for data in log_file.written[: log_file.synced]):
                early.append(memory_id)

    _run(8, write)

    assert early == []
    assert log_file.syncs - start < 150  # 200 writes
    assert memory.count_memories() == 200


def test_writes_that_wait_for_a_transaction_are_made_in_one_after_it(
    log_file: type[_LogFile], memory: MemoryModule
) -> None:
    memory.create_memory("c", "first", {}, "t")  # a new log's header has a sync of its own

    with memory.transaction():
        memory.create_memory("c", "second", {}, "t")
        threads = _start(10, lambda number: memory.create_memory("c", str(number), {}, "t"))
        _await_waiting(memory, 10)
        before = log_file.syncs
    _join(threads)

    assert log_file.syncs - before == 2
    assert memory.count_memories() == 12


def test_a_write_that_waits_too_long_is_not_made(tmp_path: Path, memory: MemoryModule) -> None:
    hasty = MemoryModule(storage_dir=tmp_path, busy_timeout_seconds=0.1)
    errors: list[Exception] = []
    release = threading.Event()

    def hold(_: int) -> None:
        with hasty.transaction():
            release.wait(20)

    def write(number: int) -> None:
        try:
            hasty.create_memory("c", str(number), {}, "t")
        except StoreBusyError as error:
            errors.append(error)

    holders = _start(1, hold)
    while memory.backend._database.lock.is_mine() or not _is_held(hasty):  # type: ignore[attr-defined]  # SQLite's
        time.sleep(0.001)
    _run(3, write)
    release.set()
    _join(holders)

    assert len(errors) == 3
    assert memory.count_memories() == 0
    assert hasty.create_memory("c", "later", {}, "t")
    hasty.shutdown()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs limits of POSIX")
def test_a_write_that_fills_the_disk_fails_alone(tmp_path: Path) -> None:
    program = """
import resource, signal, sys, threading, time
from jarvis.errors import StoreFullError
from jarvis.persistent_memory import MemoryModule
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
memory = MemoryModule(storage_dir=sys.argv[1], compression="off")
memory.bootstrap()
waiting = memory.backend._database.leader.shared._waiting
outcomes = {}
def write(number):
    value = {"text": "x" * (40_000_000 if number == 3 else 10)}
    try:
        outcomes[number] = memory.create_memory("c", str(number), value, "t", tags=["a"])
    except StoreFullError:
        outcomes[number] = "full"
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, 20_000_000))
threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
with memory.transaction():
    for thread in threads:
        thread.start()
    while len(waiting) < 8:
        time.sleep(0.001)
for thread in threads:
    thread.join(60)
assert outcomes[3] == "full", outcomes
assert sorted(outcomes) == list(range(8)), outcomes
assert {entry.id for entry in memory.list_memories()} == {outcomes[number] for number in range(8) if number != 3}
print("done")
"""
    shown = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False, timeout=120
    )

    assert shown.stdout == "done\n", shown.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs signals of POSIX")
def test_interrupts_of_one_thread_cost_the_others_nothing(tmp_path: Path) -> None:
    program = """
import random, signal, sys, threading
from jarvis.persistent_memory import MemoryModule
class Interrupt(BaseException): pass
def interrupt(*_): raise Interrupt
memory = MemoryModule(storage_dir=sys.argv[1], durability="normal", busy_timeout_seconds=20)
memory.bootstrap()
signal.signal(signal.SIGALRM, interrupt)
rng, interrupted, made, over = random.Random(5), 0, {}, threading.Event()
def write(thread):
    turn = 0
    while not over.is_set():
        key = f"{thread}-{turn}"
        made[key] = memory.create_memory("c", key, {}, "t", tags=["a"])
        turn += 1
threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
for turn in range(600):
    try:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.00005, 0.002))
        made[f"main-{turn}"] = memory.create_memory("c", f"main-{turn}", {}, "t", tags=["a"])
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Interrupt:
        interrupted += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
over.set()
for thread in threads:
    thread.join(60)
    assert not thread.is_alive()
entries = memory.list_memories()
keys = [entry.key for entry in entries]
assert len(keys) == len(set(keys)), "a write was made twice"
held = {entry.id for entry in entries}
assert held >= set(made.values()), "a write was lost"
others = [key for key in keys if not key.startswith("main")]
assert len(others) == sum(not key.startswith("main") for key in made), "a write was made that nobody was told of"
print(interrupted)
"""
    shown = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False, timeout=180
    )

    assert shown.stderr == ""
    assert int(shown.stdout) > 30


def test_a_write_whose_shared_commit_fails_waits_once() -> None:
    lock = WriterLock("unused", "unused")
    queue = WriteQueue(lock, timeout_seconds=5)
    own, other = (Write(lambda: None, (), NO_COMMIT) for _ in range(2))
    other.queue()
    queue._waiting.append(other)

    def lead(write: Write) -> None:
        commit = queue.join(write)
        if len(commit.writes) > 1:
            queue.part(commit.writes)
        else:
            commit.is_done = True

    queue.make(own, lead, lambda: None)

    assert list(queue._waiting) == [other]


def _is_held(memory: MemoryModule) -> bool:
    lock = memory.backend._database.lock  # type: ignore[attr-defined]  # SQLite's
    if lock.try_threads():
        lock.release()
        return False
    return True


def _await_waiting(memory: MemoryModule, count: int) -> None:
    waiting: Any = memory.backend._database.leader.shared._waiting  # type: ignore[attr-defined]  # SQLite's
    deadline = time.monotonic() + 20
    while len(waiting) < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _start(count: int, work: Callable[[int], object]) -> list[threading.Thread]:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads


def _join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


def _run(count: int, work: Callable[[int], object]) -> None:
    _join(_start(count, work))


def test_the_connection_that_writes_for_all_is_closed_when_another_takes_its_place(memory: MemoryModule) -> None:
    database: Any = memory.backend._database  # type: ignore[attr-defined]  # SQLite's

    for _ in range(5):
        for _ in range(2):  # the second time it is known that they crowd
            with memory.transaction():
                threads = _start(4, lambda number: memory.record_task(str(number), {}))
                _await_waiting(memory, 4)
            _join(threads)
        assert database.leader._writer is not None
        database.pool.distrust()  # as when another program has written

    assert len(database.pool._leases) <= 2
    assert memory.count_memories() == 40


def test_a_write_is_made_once_also_by_threads_that_open_the_store(tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path)
    memory.bootstrap()
    for _ in range(60):  # without the check, some of these are made twice
        memory.shutdown()
        (tmp_path / "memory.db.lock").unlink()  # so it is verified under the lock, which is given back then
        together = threading.Barrier(4)

        def write(together: threading.Barrier = together) -> None:
            together.wait()
            memory.record_task("1", {})

        threads = [threading.Thread(target=write) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert memory.count_memories() == 240
