from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jarvis.errors import StoreBusyError
from jarvis.persistent_memory import MemoryModule
from jarvis.sqlite_backend import SQLiteBackend

from . import cached, model, processes
from .conftest import Figures

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
deadline_seconds = 60.0


# --- processes ---------------------------------------------------------------------------------------------


def test_processes_that_write_at_once_lose_nothing(backend: str, tmp_path: Path, soak: bool, figures: Figures) -> None:
    count, creates, upserts = (8, 200, 50) if soak else (4, 40, 10)
    children = [
        processes.start("children", "create_and_upsert", backend, tmp_path, f"p{each}", creates, upserts)
        for each in range(count)
    ]
    for child in children:
        assert processes.read_line(child) == "ready"
    for child in children:
        processes.tell(child)
    done = [int(processes.read_line(child)) for child in children]
    for child in children:
        processes.end(child)

    assert done == [creates + upserts] * count
    with MemoryModule(storage_dir=tmp_path, backend_type=backend) as memory:
        entries = memory.list_memories()
        keys = [entry.key for entry in entries]
        assert sorted(keys) == sorted([*(f"p{p}.{n}" for p in range(count) for n in range(creates)), "shared"])
        shared = memory.get_memory_by_key("shared")
        assert shared is not None
        assert shared.version == upserts * count
        instants = [entry.timestamp for entry in entries]
        assert len(set(instants)) == len(instants)
        assert instants == sorted(instants, reverse=True)
    figures.add(backend, processes=count, creates=count * creates, upserts=count * upserts, errors=0, lost=0)


def test_processes_that_talk_in_one_conversation_lose_no_turn(backend: str, tmp_path: Path, soak: bool) -> None:
    count, exchanges = (4, 200) if soak else (2, 40)
    children = [processes.start("children", "talk", backend, tmp_path, f"p{each}", exchanges) for each in range(count)]
    for child in children:
        assert processes.read_line(child) == "ready"
    for child in children:
        processes.tell(child)
    for child in children:
        processes.end(child)

    with MemoryModule(storage_dir=tmp_path, backend_type=backend) as memory:
        turns = memory.get_conversation("shared")
        assert [turn.value["position"] for turn in turns] == list(range(1, 2 * count * exchanges + 1))
        asked = [turn.value["text"].removeprefix("ask ") for turn in turns[::2]]
        assert [turn.value["text"] for turn in turns[1::2]] == [f"answer {said}" for said in asked]
        assert sorted(asked) == sorted(f"p{p}.{n}" for p in range(count) for n in range(exchanges))
        told = memory.get_conversation_history()
        assert [[ran.execution_id for ran in each.execution_history] for each in told] == [
            [said] for said in asked[::-1]
        ]


@pytest.mark.parametrize("found", ["nothing", "first life"])
def test_processes_that_open_a_store_at_once_all_find_it_whole(
    backend: str, found: str, tmp_path: Path, soak: bool, figures: Figures
) -> None:
    rounds, count = (10 if soak else 1), 8
    for each in range(rounds):
        directory = tmp_path / f"{each}"
        state = model.first_life_store(directory, backend, 200) if found == "first life" else {}
        children = [
            processes.start("children", "open_at_once", backend, directory, f"p{number}") for number in range(count)
        ]
        for child in children:
            assert processes.read_line(child) == "ready"
        for child in children:
            processes.tell(child)
        seen = [int(processes.read_line(child)) for child in children]
        for child in children:
            processes.end(child)

        assert all(len(state) <= number < len(state) + count for number in seen)
        with MemoryModule(storage_dir=directory, backend_type=backend) as memory:
            now = model.contents(memory)
        assert {key: now[key] for key in state} == state
        assert set(now) - set(state) == {f"by p{number}" for number in range(count)}
        copies = list(directory.glob("*.first-life*"))
        assert len(copies) == (found == "first life")
    figures.add(backend, openings=rounds * count, errors=0)


# --- threads -------------------------------------------------------------------------------------------------


def test_threads_on_one_module_get_right_answers_and_lose_nothing(
    backend: str, tmp_path: Path, soak: bool, figures: Figures
) -> None:
    memory = MemoryModule(storage_dir=tmp_path, backend_type=backend)
    each_writes, wrong = (60 if soak else 12), []
    start, written = threading.Barrier(16), threading.Semaphore(0)

    def write(which: int) -> None:
        start.wait()
        for number in range(each_writes):
            key = f"t{which}.{number}"
            memory_id = memory.create_memory("things", key, {"n": number, "of": which}, "thing", tags=[f"t{which}"])
            assert memory.get_memory(memory_id) is not None, "its own write is not there"
            assert memory.update_memory(memory_id, {"n": number, "of": which, "again": True})
            found = memory.get_memory_by_key(key)
            assert found is not None
            assert found.value == {"n": number, "of": which, "again": True}
            assert memory.count_memories(tags=[f"t{which}"]) == number + 1
            memory.set_user_preference("shared", {"by": which})
            if number % 5 == 4:
                with memory.transaction():
                    gone = memory.create_memory("things", f"{key} gone", {}, "thing")
                    assert memory.delete_memory(gone)
            written.release()

    def read(which: int) -> None:
        start.wait()
        before = 0
        for _ in range(each_writes):
            written.acquire()
            entries = memory.get_memories_by_category("things")
            assert len(entries) >= before, "an entry has gone"
            assert all(entry.value["n"] < each_writes for entry in entries)
            assert len({entry.key for entry in entries}) == len(entries)
            assert not any(entry.key.endswith("gone") for entry in entries), "half a transaction was seen"
            assert sum(1 for _ in memory.iter_memories(category="things")) >= len(entries)
            before = len(entries)

    def noting(work: object, which: int) -> None:
        try:
            work(which)  # type: ignore[operator]  # one of the two above
        except BaseException as error:  # noqa: BLE001  it is the finding, and the main thread raises it
            wrong.append(f"{type(error).__name__}: {error}")
            written.release(8 * each_writes)

    threads = [threading.Thread(target=noting, args=(write, which)) for which in range(8)]
    threads += [threading.Thread(target=noting, args=(read, which)) for which in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert memory.count_memories(category="things") == 8 * each_writes
    assert memory.count_memories(category="preferences") == 1
    memory.shutdown()
    figures.add(backend, threads=16, writes=8 * each_writes * 3, errors=0, wrong=0, lost=0)


def test_no_connection_of_an_ended_thread_stays_open(backend: str, tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path, backend_type=backend)
    memory.create_memory("things", "one", {}, "thing")
    before = _open_files(tmp_path)

    def work() -> None:
        memory.create_memory("things", threading.current_thread().name, {}, "thing")
        assert memory.count_memories() > 1
        next(iter(memory.iter_memories()))

    for _ in range(5):
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    del threads

    assert memory.count_memories() == 41
    assert _connections(memory) <= 2  # this thread's, and the one that threads lend each other to write
    # SQLite keeps a descriptor for reuse as long as closing it would drop the locks of others in this process.
    assert _open_files(tmp_path) <= before + 2 * 8
    memory.shutdown()
    assert _open_files(tmp_path) == 0


def test_a_failing_thread_leaves_no_connection_and_no_lock(backend: str, tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path, backend_type=backend, busy_timeout_seconds=5)
    memory.create_memory("things", "one", {}, "thing")

    def work() -> None:
        with contextlib.suppress(ZeroDivisionError), memory.transaction():
            memory.create_memory("things", "two", {}, "thing")
            raise ZeroDivisionError

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert _connections(memory) <= 1
    memory.create_memory("things", "three", {}, "thing")
    assert set(model.contents(memory)) == {"one", "three"}
    memory.shutdown()


def _connections(memory: MemoryModule) -> int:
    return len(memory.backend._database.pool._leases) if isinstance(memory.backend, SQLiteBackend) else 0


def _open_files(directory: Path) -> int:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("this platform does not list a process's open files")
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{name}").startswith(str(directory))
    return count


# --- readers and writers -----------------------------------------------------------------------------------------


def test_a_reader_with_a_snapshot_never_blocks_a_writer(backend: str, tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path, backend_type=backend, busy_timeout_seconds=0)
    with memory.transaction():
        for number in range(50):
            memory.create_memory("things", f"k{number}", {"n": number}, "thing")
    reading = memory.iter_memories()
    seen = [next(reading).key]

    with MemoryModule(storage_dir=tmp_path, backend_type=backend, busy_timeout_seconds=0) as other:
        other.create_memory("things", "meanwhile", {}, "thing")
        other.clear_all()
        other.create_memory("things", "afterwards", {}, "thing")
        assert other.count_memories() == 1
    memory.create_memory("things", "mine", {}, "thing")
    seen += [entry.key for entry in reading]

    assert seen == [f"k{number}" for number in reversed(range(50))]
    assert set(model.contents(memory)) == {"afterwards", "mine"}
    memory.shutdown()


@contextlib.contextmanager
def another_program(*arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """Let another process hold a lock for the time of the block; a word to it lets go."""
    child = processes.start("children", *arguments)
    try:
        assert processes.read_line(child) == "held"
        yield child
    finally:
        child.kill()
        child.communicate()


_HOLDERS = [
    ("sqlite", "hold_sqlite", "BEGIN IMMEDIATE"),
    ("sqlite", "hold_sqlite", "BEGIN EXCLUSIVE"),
    ("sqlite", "hold_flock"),
    ("json", "hold_flock"),
]


@pytest.mark.parametrize("holder", _HOLDERS, ids=" ".join)
def test_a_foreign_lock_is_waited_for(holder: tuple[str, ...], tmp_path: Path) -> None:
    kind, program, *statement = holder
    memory = MemoryModule(storage_dir=tmp_path, backend_type=kind, busy_timeout_seconds=deadline_seconds)
    memory.create_memory("things", "one", {}, "thing")
    with another_program(program, tmp_path / model.FILES[kind], *statement) as child:
        began, done = threading.Event(), threading.Event()

        def write() -> None:
            began.set()
            memory.create_memory("things", "two", {}, "thing")
            done.set()

        thread = threading.Thread(target=write)
        thread.start()
        began.wait()
        assert memory.count_memories() == 1  # reading needs no lock
        assert not done.wait(0.1)
        processes.tell(child)
        thread.join()

    assert done.is_set()
    assert set(model.contents(memory)) == {"one", "two"}
    memory.shutdown()


@pytest.mark.parametrize("holder", _HOLDERS, ids=" ".join)
def test_a_foreign_lock_that_is_kept_is_a_store_busy_error(holder: tuple[str, ...], tmp_path: Path) -> None:
    kind, program, *statement = holder
    path = tmp_path / model.FILES[kind]
    memory = MemoryModule(storage_dir=tmp_path, backend_type=kind, busy_timeout_seconds=0.1)
    memory.create_memory("things", "one", {}, "thing")
    with another_program(program, path, *statement) as child:
        for _ in range(2):
            with pytest.raises(StoreBusyError, match=path.name):
                memory.create_memory("things", "two", {}, "thing")
        with pytest.raises(StoreBusyError, match=path.name), memory.transaction():
            pass
        memory.shutdown()
        processes.tell(child)
        assert processes.read_line(child) == "released"
        memory.create_memory("things", "three", {}, "thing")

    assert set(model.contents(memory)) == {"one", "three"}
    memory.shutdown()


def test_a_thread_in_a_transaction_makes_others_wait_and_then_give_up(backend: str, tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path, backend_type=backend, busy_timeout_seconds=0.1)
    said: list[str] = []

    def write() -> None:
        try:
            memory.create_memory("things", "two", {}, "thing")
        except StoreBusyError as error:
            said.append(str(error))

    with memory.transaction():
        memory.create_memory("things", "one", {}, "thing")
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()

    assert len(said) == 1
    assert model.FILES[backend] in said[0]
    assert set(model.contents(memory)) == {"one"}
    memory.shutdown()


# --- forks -----------------------------------------------------------------------------------------------------------


@forks
def test_a_fork_of_an_idle_process_gives_two_that_write(backend: str, tmp_path: Path) -> None:
    said = processes.end(processes.start("children", "fork_idle", backend, tmp_path))

    assert said == "['before', 'child', 'parent']\n"


@forks
def test_a_child_forked_inside_a_transaction_holds_nothing_of_it(backend: str, tmp_path: Path) -> None:
    said = processes.end(processes.start("children", "fork_in_transaction", backend, tmp_path))

    assert said == "['one', 'three', 'two']\n"


@forks
def test_a_child_that_outlives_a_killed_parent_keeps_no_lock(backend: str, tmp_path: Path) -> None:
    parent = processes.start("children", "fork_and_be_killed", backend, tmp_path)
    child = int(processes.read_line(parent).split()[1])
    parent.kill()
    parent.wait()
    try:
        with MemoryModule(storage_dir=tmp_path, backend_type=backend, busy_timeout_seconds=0) as memory:
            memory.create_memory("things", "three", {}, "thing")
            assert set(model.contents(memory)) == {"one", "three"}
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        parent.communicate()


@forks
def test_a_fork_beside_threads_inside_calls_leaves_parent_and_child_able_to_write(
    backend: str, tmp_path: Path, soak: bool, figures: Figures
) -> None:
    count = 200 if soak else 10
    processes.end(processes.start("children", "fork_beside_threads", backend, tmp_path, count))

    with MemoryModule(storage_dir=tmp_path, backend_type=backend) as memory:
        assert sum(key.startswith("child") for key in model.contents(memory)) == count
    figures.add(backend, forks=count, errors=0, lost=0)


@pytest.mark.parametrize("method", ["fork", "spawn"] if sys.platform != "win32" else ["spawn"])
def test_a_pool_of_processes_writes_to_the_memory_it_is_passed(backend: str, method: str, tmp_path: Path) -> None:
    said = processes.end(processes.start("children", "pool", backend, tmp_path, method))

    assert said == "32\n"


def test_a_handle_of_a_store_closes_every_connection_at_shutdown(tmp_path: Path, chance: random.Random) -> None:
    store = SQLiteBackend(tmp_path / "memory.db")
    memory = MemoryModule(store)
    memory.create_memory("things", "one", {}, "thing")
    iterations = [memory.iter_memories() for _ in range(3)]
    for iteration in iterations:
        next(iteration)
    memory.shutdown()
    for iteration in chance.sample(iterations, 3):
        assert list(iteration) == []

    assert _open_files(tmp_path) == 0


# --- caches ----------------------------------------------------------------------------------------------------------


def test_processes_that_read_through_caches_get_no_outdated_answer(
    backend: str, tmp_path: Path, soak: bool, figures: Figures
) -> None:
    log = tmp_path / "log"
    log.write_bytes(bytes(cached.LOG_BYTES))
    seconds = 60 if soak else 2
    children = [
        processes.start("cached", backend, tmp_path / "store", log, which, seconds) for which in range(cached.PROCESSES)
    ]
    for child in children:
        assert processes.read_line(child) == "ready"
    for child in children:
        processes.tell(child)
    said = [tuple(map(int, processes.read_line(child).split())) for child in children]
    for child in children:
        processes.end(child)

    commits, reads, from_memory, outdated = map(sum, zip(*said, strict=True))
    assert outdated == 0
    assert commits > 20
    assert reads > from_memory > 200
    figures.add(backend, commits=commits, reads=reads, from_memory=from_memory, outdated=outdated)
