"""Several callers on one thread, and threads that are none: tasks, greenlets, forks, handlers of signals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jarvis.async_memory import AsyncMemoryModule
from jarvis.capabilities import BacksUp
from jarvis.errors import TransactionError
from jarvis.persistent_memory import MemoryModule
from jarvis.postgresql_backend import PostgreSQLBackend


@pytest.fixture(params=["sqlite", "json", "postgresql"])
def memory(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryModule:
    if request.param == "postgresql":
        dsn = request.getfixturevalue("dsn")
        return MemoryModule(PostgreSQLBackend(dsn, durability="normal", busy_timeout_seconds=20))
    return MemoryModule(storage_dir=tmp_path, backend_type=request.param, durability="normal", busy_timeout_seconds=20)


# --- tasks and greenlets -----------------------------------------------------------------------------------------


@pytest.fixture
def unit(memory: MemoryModule) -> Iterator[MemoryModule]:
    with memory.transaction():
        yield memory


def test_a_fixture_may_hold_a_transaction_around_a_test(unit: MemoryModule) -> None:
    unit.set_user_preference("inside", {})

    assert unit.get_user_preferences() == {"inside": {}}


def test_tasks_of_a_group_are_callers_of_their_own(memory: MemoryModule) -> None:
    refused: list[int] = []

    async def write(number: int) -> None:
        with contextlib.suppress(TransactionError):
            with memory.transaction():
                memory.set_user_preference(f"{number}-one", {})
                await asyncio.sleep(0)
                memory.set_user_preference(f"{number}-two", {})
            return
        refused.append(number)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(write(number))

    asyncio.run(main())
    kept = {name.partition("-")[0] for name in memory.get_user_preferences()}

    assert len(kept) + len(refused) == 10
    assert len(memory.get_user_preferences()) == 2 * len(kept)


def test_a_loop_that_is_run_inside_a_transaction_takes_no_part_in_it(memory: MemoryModule) -> None:
    async def main() -> None:
        memory.set_user_preference("task", {})

    with memory.transaction():
        memory.set_user_preference("outside", {})
        with pytest.raises(TransactionError, match="another task"):
            asyncio.run(main())

    assert set(memory.get_user_preferences()) == {"outside"}


def test_children_of_an_async_transaction_take_part_in_it(memory: MemoryModule) -> None:
    async def main() -> None:
        shared = AsyncMemoryModule(storage_backend=memory.backend)
        async with shared.transaction(), asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(shared.set_user_preference(str(number), {}))
        await shared.shutdown()

    asyncio.run(main())

    assert len(memory.get_user_preferences()) == 5


def test_a_greenlet_takes_no_part_in_the_transaction_of_another_one(memory: MemoryModule) -> None:
    greenlet = pytest.importorskip("greenlet")

    def hold() -> None:
        with contextlib.suppress(ZeroDivisionError), memory.transaction():
            memory.set_user_preference("lost", {})
            main.switch()
            raise ZeroDivisionError

    main, holder = greenlet.getcurrent(), greenlet.greenlet(hold)
    holder.switch()
    with pytest.raises(TransactionError, match="another task"):
        memory.set_user_preference("refused", {})
    assert memory.get_user_preferences() == {}
    holder.switch()
    memory.set_user_preference("kept", {})

    assert set(memory.get_user_preferences()) == {"kept"}


_GREEN = """
from gevent import monkey; monkey.patch_all()
import subprocess, sys, gevent
from jarvis.persistent_memory import MemoryModule
memory = MemoryModule(storage_dir=sys.argv[1], backend_type=sys.argv[2])
memory.bootstrap()
program = [sys.executable, "-c", sys.argv[3], *sys.argv[1:3]]
holder = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
holder.stdout.readline()
waiting = gevent.spawn(memory.set_user_preference, "waited", {})
for _ in range(20):  # while one waits for another process, the others go on
    gevent.sleep(0.005)
assert not waiting.ready()
assert memory.get_user_preferences() == {}
holder.stdin.close()
waiting.get(timeout=20)
holder.wait()
def pair(number):
    with memory.transaction():
        memory.set_user_preference(f"{number}-one", {})
        gevent.sleep(0.005)
        memory.set_user_preference(f"{number}-two", {})
gevent.joinall([gevent.spawn(pair, number) for number in range(5)], raise_error=True)
print(len(memory.get_user_preferences()))
"""
_HOLDER = """
import sys
from jarvis.persistent_memory import MemoryModule
memory = MemoryModule(storage_dir=sys.argv[1], backend_type=sys.argv[2])
with memory.transaction():
    memory.set_user_preference("holder", {})
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("backend_type", ["sqlite", "json"])
def test_a_green_thread_that_waits_lets_the_others_go_on(backend_type: str, tmp_path: Path) -> None:
    pytest.importorskip("gevent")
    arguments = [sys.executable, "-c", _GREEN, str(tmp_path), backend_type, _HOLDER]

    shown = subprocess.run(arguments, capture_output=True, text=True, timeout=120)

    assert shown.stdout.strip() == "12", shown.stderr


# --- forks ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_beside_threads_that_write_is_quick_and_its_child_works(memory: MemoryModule) -> None:
    is_over = threading.Event()

    def write(number: int) -> None:
        while not is_over.is_set():
            memory.set_user_preference(str(number), {})
            with memory.transaction():
                memory.set_user_preference(str(number), {"n": 1})

    memory.bootstrap()
    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    failed, longest = 0, 0.0
    for _ in range(60):
        began = time.monotonic()
        child = os.fork()
        if not child:
            try:
                memory.set_user_preference("child", memory.get_user_preferences().get("child", {}))
                os._exit(0)
            finally:
                os._exit(1)
        longest = max(longest, time.monotonic() - began)
        failed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
    is_over.set()
    for thread in threads:
        thread.join()

    assert failed == 0
    assert longest < 5, "a fork waited for a writer that waits for somebody else"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("what", ["back up", "iterate"])
def test_a_fork_beside_a_long_call_waits_for_it(memory: MemoryModule, what: str, tmp_path: Path) -> None:
    if what == "back up" and not memory.backend.has_capability(BacksUp):
        pytest.skip("the server's own tools make its backups")
    is_over = threading.Event()
    with memory.transaction():
        for number in range(300):
            memory.create_memory("notes", str(number), {"text": "x" * 300}, "note")

    def work() -> None:
        number = 0
        while not is_over.is_set():
            number += 1
            if what == "back up":
                memory.store.back_up(tmp_path / f"saved-{number}")
            else:
                assert len(list(memory.iter_memories())) >= 300

    thread = threading.Thread(target=work)
    thread.start()
    failed = 0
    for _ in range(10 if what == "back up" else 40):
        child = os.fork()
        if not child:
            try:
                memory.set_user_preference("child", {})
                os._exit(0)
            finally:
                os._exit(1)
        failed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
    is_over.set()
    thread.join()

    assert failed == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_beside_a_writer_that_waits_does_not_wait_for_it(memory: MemoryModule) -> None:
    memory.bootstrap()
    waiting = threading.Thread(target=memory.set_user_preference, args=("waited", {}))
    with memory.transaction():
        memory.set_user_preference("first", {})
        waiting.start()
        while not waiting.is_alive():
            time.sleep(0.001)
        time.sleep(0.05)  # for it to come to the lock
        began = time.monotonic()
        child = os.fork()
        if not child:
            os._exit(0)
        took = time.monotonic() - began
        os.waitpid(child, 0)
    waiting.join()

    assert took < 5
    assert set(memory.get_user_preferences()) == {"first", "waited"}


# --- handlers -------------------------------------------------------------------------------------------------------

_SIGTERM = """
import signal, sys, threading
from jarvis.errors import TransactionError
from jarvis.persistent_memory import MemoryModule
memory = MemoryModule(storage_dir=sys.argv[1], backend_type=sys.argv[2])
memory.bootstrap()
stopped = []
def bye(*_):
    stopped.append(True)  # Python swallows what a handler raises while something is finalized
    if sys.argv[3] == "direct":
        try:
            memory.set_user_preference("bye", {})
        except TransactionError:
            print("refused", flush=True)
        else:
            print("kept", flush=True)
    else:
        threading.Thread(target=memory.set_user_preference, args=("bye", {})).start()
        print("kept", flush=True)
    raise SystemExit
signal.signal(signal.SIGTERM, bye)
print("ready", flush=True)
number = 0
while not stopped:
    number += 1
    memory.set_user_preference("n", {"number": number})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals of POSIX")
@pytest.mark.parametrize("how", ["direct", "thread"])
@pytest.mark.parametrize("backend_type", ["sqlite", "json"])
def test_what_a_handler_of_sigterm_was_told_is_kept(backend_type: str, how: str, tmp_path: Path) -> None:
    told: dict[str, int] = {"kept": 0, "refused": 0}
    for number in range(6):
        directory = tmp_path / str(number)
        arguments = [sys.executable, "-c", _SIGTERM, str(directory), backend_type, how]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(0.003 * number)  # at another moment of its work each time
            child.send_signal(signal.SIGTERM)
            answer = child.communicate(timeout=60)[0].split()[0]
        told[answer] += 1
        preferences = MemoryModule(storage_dir=directory, backend_type=backend_type).get_user_preferences()
        assert ("bye" in preferences) == (answer == "kept")

    assert how == "direct" or told["kept"] == 6
