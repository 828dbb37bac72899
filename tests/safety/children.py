"""Small programs of the tests.

python -m safety.children PROGRAM ARGUMENT…
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import resource
import shutil
import signal
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from jarvis.errors import (
    JarvisError,
    OutcomeUnknownError,
    ReadOnlyStoreError,
    StoreAccessError,
    StoreBusyError,
    StoreFullError,
    TransactionError,
)
from jarvis.keys import KeyFile
from jarvis.model.policies import HistoryPolicy
from jarvis.persistent_memory import MemoryModule

from . import model

NOBODY = 65534


def say(line: object) -> None:
    os.write(1, f"{line}\n".encode())


def await_line() -> None:
    assert sys.stdin.readline(), "the parent has gone"


class Interrupt(BaseException):
    """What a signal handler raises."""


def opened(kind: str, directory: str | Path, *, busy_timeout_seconds: float) -> MemoryModule:
    """Return a store that forgets its past.

    Args:
        kind: ``sqlite``, ``json``, ``sealed`` (SQLite, encrypted), or ``postgresql``.
        directory: where it is; for PostgreSQL the DSN.
        busy_timeout_seconds: how long a call waits for others.
    """
    if kind == "postgresql":
        from jarvis.postgresql_backend import PostgreSQLBackend

        history = HistoryPolicy(max_revisions=2)
        return MemoryModule(
            PostgreSQLBackend(
                str(directory), durability="normal", history=history, busy_timeout_seconds=busy_timeout_seconds
            )
        )
    sealed: dict[str, Any] = {"encryption": "on", "keys": [partial(bytes, range(32))]} if kind == "sealed" else {}
    return MemoryModule(
        storage_dir=directory,
        backend_type="json" if kind == "json" else "sqlite",
        durability="normal",
        history=HistoryPolicy(max_revisions=2),
        busy_timeout_seconds=busy_timeout_seconds,
        **sealed,
    )


def rival(kind: str, directory: str) -> None:
    """Write, or hold the writers' lock for 3 ms, each time that is asked for."""
    memory = opened(kind, directory, busy_timeout_seconds=1)
    memory.bootstrap()
    say("ready")
    for line in sys.stdin:
        try:
            if line == "hold\n":
                with memory.transaction():
                    say("held")
                    time.sleep(0.003)
            else:
                memory.set_user_preference("rival", {})
                say("kept")
        except JarvisError as error:
            say(repr(error))


def interrupted(kind: str, directory: str, name: str, count: str) -> None:
    """Write while signals raise at random moments; say how many did, and the keys that were acknowledged."""
    memory, chance = opened(kind, directory, busy_timeout_seconds=30), random.Random(name)
    memory.bootstrap()

    def interrupt(*_: object) -> None:
        raise Interrupt

    signal.signal(signal.SIGALRM, interrupt)
    interrupts, kept = 0, []
    for number in range(int(count)):
        key = f"{name}-{number}"
        try:
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.00005, 0.002))
            memory.create_memory("new", key, {}, "t")
            kept.append(key)
            with memory.transaction():
                memory.create_memory("pair", key, {}, "t", tags=[name])
                memory.create_memory("pair", key, {}, "t", tags=[name])
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupt:
            interrupts += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
    say(" ".join([str(interrupts), *kept]))


def write_beside_faults(dsn: str, name: str) -> None:
    """Write until a word of the parent; say what became of each key and of a counter, and each error."""
    from jarvis.postgresql_backend import PostgreSQLBackend

    memory = MemoryModule(PostgreSQLBackend(dsn, busy_timeout_seconds=20))
    stop, mutex = threading.Event(), threading.Lock()

    def told(kept: str, key: str, work: Callable[[], object]) -> None:
        error: JarvisError | None = None
        try:
            work()
        except OutcomeUnknownError as problem:
            kept, error = "unknown", problem
        except StoreAccessError as problem:
            kept, error = "not", problem
            time.sleep(0.02)
        with mutex:
            say(f"{kept} {key}")
            if error is not None:
                say(f"error {type(error).__name__} {error}")

    def pair(key: str) -> None:
        with memory.transaction():
            memory.create_memory("pair", key, {}, "thing", tags=["a"])
            memory.create_memory("pair", key, {}, "thing", tags=["b"])

    def write(thread: int) -> None:
        number = 0
        while not stop.is_set():
            key = f"{name}.{thread}.{number}"
            told("kept", key, partial(memory.create_memory, "one", key, {"k": key}, "thing", tags=["x"]))
            told("pair", f"{key}+", partial(pair, f"{key}+"))
            told("counted", "-", lambda: memory.modify_memory(counter, lambda value: {"n": value["n"] + 1}))
            number += 1

    counter = sys.stdin.readline().strip()
    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(2)]
    say("writes")
    for thread in threads:
        thread.start()
    await_line()
    stop.set()
    for thread in threads:
        thread.join()


def fill(backend: str, directory: str) -> None:
    """Write until files may not grow any more, then raise the limit and go on; say the error and how many were kept."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    memory = MemoryModule(storage_dir=directory, backend_type=backend, compression="off")
    memory.create_memory("things", "first", {}, "thing")
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    kept, kind, message = 1, "none", ""
    for number in range(10_000):
        try:
            memory.create_memory("things", f"k{number}", {"text": "x" * 5000}, "thing")
            kept += 1
        except StoreFullError as error:
            kind, message = type(error).__name__, str(error)
            break
    assert directory in message
    assert memory.count_memories() == kept
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    memory.create_memory("things", "last", {"text": "x" * 500_000}, "thing")
    kept += 1
    assert len(model.contents(memory)) == kept
    say(f"{kind} {kept}")


def no_room(directory: str) -> None:
    """Open a store for whose log's index there is no room; say the error."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_192, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    try:
        MemoryModule(storage_dir=directory).list_memories()
    except JarvisError as error:
        say(f"{type(error).__name__}: {error}")


def no_descriptors(directory: str, backend: str) -> None:
    """Write with ever more descriptors left, until there are enough; say what was wrong with an error, or "fine"."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    keys = [KeyFile(Path(directory) / "key")] if backend == "encrypted" else []
    backend_type = "json" if backend == "json" else "sqlite"
    MemoryModule(storage_dir=directory, backend_type=backend_type, keys=keys).list_memories()  # imports are over
    for left in range(30):
        memory = MemoryModule(storage_dir=directory, backend_type=backend_type, keys=keys)
        gc.collect()  # or what the last failure left behind is closed in the middle of the next write
        taken: list[int] = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.dup(0))
            for descriptor in taken[:left]:
                os.close(descriptor)
            memory.create_memory("things", f"with {left}", {}, "thing")
            break
        except JarvisError as error:
            message = str(error)
        finally:
            for descriptor in taken[left:]:
                os.close(descriptor)
        if "Too many open files" not in message or "owner" in message:
            say(f"with {left}: {message}")
        memory.create_memory("things", f"after {left}", {}, "thing")
        memory.shutdown()
    assert 2 < left < 29
    say("fine")


def refused(backend: str, what: str) -> None:
    """As nobody, meet a store that may not be written; then be let in again."""
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    with MemoryModule(
        storage_dir=directory / "warm", backend_type=backend
    ) as memory:  # nobody may import what it needs
        memory.create_memory("things", "one", {}, "thing")
        model.contents(memory)
    model.contents(MemoryModule(storage_dir=directory / "warm", backend_type=backend, read_only=True))
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        shutil.rmtree(directory)
        say("fine" if status == 0 else f"ended with {status}")
        return
    try:
        os.chown(directory, NOBODY, NOBODY)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        _meet(backend, what, directory)
    except BaseException as error:  # noqa: BLE001  whatever it is, the parent is told
        say(repr(error))
        os._exit(1)
    os._exit(0)


def _meet(backend: str, what: str, directory: Path) -> None:
    store = directory / "parent" / "store"
    memory = MemoryModule(storage_dir=store, backend_type=backend)
    if what == "parent":
        (directory / "parent").mkdir()
        os.chmod(directory / "parent", 0o500)
        _expect(memory, directory)
        os.chmod(directory / "parent", 0o700)
        memory.create_memory("things", "two", {}, "thing")
        return
    memory.create_memory("things", "one", {}, "thing")
    memory.shutdown()
    path = store / model.FILES[backend]
    before = path.read_bytes()
    locked = {"file": path, "directory": store}[what]
    mode = stat.S_IMODE(locked.stat().st_mode)
    os.chmod(locked, mode & ~0o222)
    if (what, backend) != ("file", "json"):  # a JSON file is not written to but replaced, which its directory allows
        _expect(memory, directory)
        assert path.read_bytes() == before
    assert len(model.contents(MemoryModule(storage_dir=store, backend_type=backend, read_only=True))) == 1
    os.chmod(locked, mode)
    memory.create_memory("things", "two", {}, "thing")
    assert set(model.contents(memory)) == {"one", "two"}
    memory.shutdown()
    os.chmod(path, 0)
    try:
        memory.count_memories()
    except (ReadOnlyStoreError, StoreAccessError) as error:
        message = str(error)
    else:
        raise AssertionError("a file that may not be read was read")
    assert str(directory) in message
    os.chmod(path, 0o600)
    assert memory.count_memories() == 2


def _expect(memory: MemoryModule, directory: Path) -> None:
    try:
        memory.create_memory("things", "refused", {}, "thing")
    except (ReadOnlyStoreError, StoreAccessError) as error:
        message = str(error)
    else:
        raise AssertionError("a write that cannot be was acknowledged")
    assert str(directory) in message


def leave_a_log(directory: str) -> None:
    """Leave thirty entries in the store's file and thirty in its log, by being killed."""
    pid = os.fork()
    if not pid:
        memory = MemoryModule(storage_dir=directory)
        for number in range(60):
            memory.create_memory("things", f"k{number}", {"text": "x" * number}, "thing", tags=["red"])
            if number == 29:
                memory.shutdown()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)


# --- many at once ----------------------------------------------------------------------------------------


def create_and_upsert(backend: str, directory: str, name: str, creates: str, upserts: str) -> None:
    """At a word of the parent, write together with others; say how many calls came back."""
    memory = MemoryModule(storage_dir=directory, backend_type=backend)
    say("ready")
    await_line()
    done = 0
    every = max(int(creates) // max(int(upserts), 1), 1)
    for number in range(int(creates)):
        memory.create_memory("things", f"{name}.{number}", {"by": name, "n": number}, "thing", tags=[name])
        done += 1
        if number % every == 0 and number // every < int(upserts):
            memory.set_user_preference("shared", {"by": name, "n": number})
            done += 1
    say(done)


def talk(backend: str, directory: str, name: str, exchanges: str) -> None:
    """Save exchanges of one conversation, beside others, each with an execution."""
    memory = MemoryModule(storage_dir=directory, backend_type=backend, busy_timeout_seconds=60)
    say("ready")
    await_line()
    for number in range(int(exchanges)):
        said = f"{name}.{number}"
        ran = {"user_request": said, "description": said, "execution_id": said}
        memory.save_conversation_turn(f"ask {said}", f"answer {said}", [ran], session_id="shared")
    memory.shutdown()


def open_at_once(backend: str, directory: str, name: str) -> None:
    """At a word of the parent, open a store that is not ready, look, and add one entry."""
    memory = MemoryModule(storage_dir=directory, backend_type=backend)
    say("ready")
    await_line()
    say(len(memory.list_memories()))
    memory.create_memory("things", f"by {name}", {}, "thing")


def hold_sqlite(path: str, statement: str) -> None:
    """Hold a lock on the file, as another program, until the parent says a word."""
    import apsw

    connection = apsw.Connection(path)
    connection.execute(statement)
    say("held")
    await_line()
    connection.execute("ROLLBACK")
    say("released")
    await_line()


def hold_flock(path: str) -> None:
    """Hold the writer lock of a store, until the parent says a word."""
    import fcntl

    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    say("held")
    await_line()
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    say("released")
    await_line()


# --- fork ------------------------------------------------------------------------------------------------


def _forked(work: Callable[[], object]) -> int:
    """Do the work in a forked child; return its exit code, 70 if it raised."""
    pid = os.fork()
    if not pid:
        code = 70
        try:
            work()
            code = 0
        except BaseException as error:  # noqa: BLE001  whatever it is, the parent is told
            os.write(2, f"{error!r}\n".encode())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fork_idle(backend: str, directory: str) -> None:
    """Write before a fork, in the child, and in the parent after it."""
    memory = MemoryModule(storage_dir=directory, backend_type=backend)
    memory.create_memory("things", "before", {}, "thing")

    def work() -> None:
        assert memory.count_memories() == 1
        memory.create_memory("things", "child", {}, "thing")
        memory.shutdown()

    assert _forked(work) == 0
    assert memory.count_memories() == 2
    memory.create_memory("things", "parent", {}, "thing")
    assert _forked(lambda: memory.update_memory(memory.list_memories()[0].id, {"n": 1})) == 0
    say(sorted(model.contents(memory)))


def fork_in_transaction(backend: str, directory: str) -> None:
    """Fork inside a transaction: the child can neither write into it nor harm it."""
    memory = MemoryModule(storage_dir=directory, backend_type=backend, busy_timeout_seconds=0.2)

    def leave() -> None:
        try:
            memory.create_memory("things", "by the child", {}, "thing")
        except (TransactionError, StoreBusyError):
            return
        raise AssertionError("the child wrote while its parent was in a transaction")

    code = -1
    with memory.transaction():
        memory.create_memory("things", "one", {}, "thing")
        code = _forked(leave)
        memory.create_memory("things", "two", {}, "thing")
    assert code == 0, code
    pid = -1
    try:
        with memory.transaction():
            memory.create_memory("things", "three", {}, "thing")
            pid = os.fork()
    except TransactionError:
        os._exit(0 if pid == 0 else 71)
    if pid == 0:
        os._exit(72)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    say(sorted(model.contents(memory)))


def fork_and_be_killed(backend: str, directory: str) -> None:
    """Fork inside a transaction a child that outlives its parent."""
    memory = MemoryModule(storage_dir=directory, backend_type=backend)
    memory.create_memory("things", "one", {}, "thing")
    with memory.transaction():
        memory.create_memory("things", "two", {}, "thing")
        pid = os.fork()
        if not pid:
            say(f"child {os.getpid()}")
            await_line()
            os._exit(0)
        os.waitpid(pid, 0)


def fork_beside_threads(backend: str, directory: str, forks: str) -> None:
    """Fork while threads are inside calls; every child writes or says that it cannot."""
    memory = MemoryModule(storage_dir=directory, backend_type=backend)
    memory.bootstrap()
    stop, counts, wrong = threading.Event(), [0, 0, 0], []

    def write(which: int) -> None:
        try:
            while not stop.is_set():
                memory.create_memory("things", f"t{which}.{counts[which]}", {}, "thing")
                counts[which] += 1
        except BaseException as error:  # noqa: BLE001  whatever it is, the parent is told
            wrong.append(repr(error))

    threads = [threading.Thread(target=write, args=(which,)) for which in range(3)]
    for thread in threads:
        thread.start()
    codes = [
        _forked(partial(memory.create_memory, "things", f"child{number}", {}, "thing")) for number in range(int(forks))
    ]
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong, wrong
    assert not any(codes), codes
    assert memory.count_memories() == sum(counts) + int(forks)
    say(memory.count_memories())


def pool_task(memory: MemoryModule, name: str) -> int:
    for number in range(5):
        memory.create_memory("things", f"{name}.{number}", {}, "thing")
    return memory.count_memories(tags=None)


def pool(backend: str, directory: str, method: str) -> None:
    """Write from the processes of a pool, to which the memory is passed as an argument."""
    import multiprocessing

    memory = MemoryModule(storage_dir=directory, backend_type=backend)
    memory.create_memory("things", "first", {}, "thing")
    with multiprocessing.get_context(method).Pool(3) as workers:
        workers.starmap(pool_task, [(memory, f"p{number}") for number in range(6)])
    memory.create_memory("things", "last", {}, "thing")
    say(len(model.contents(memory)))


PROGRAMS: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (
        *(
            fill,
            no_room,
            no_descriptors,
            refused,
            leave_a_log,
            create_and_upsert,
            talk,
            open_at_once,
            hold_sqlite,
            hold_flock,
        ),
        *(rival, interrupted, write_beside_faults),
        *(fork_idle, fork_in_transaction, fork_and_be_killed, fork_beside_threads, pool),
    )
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
