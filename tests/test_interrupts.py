"""What arrives from outside, at any moment: interrupts, threads that go, tasks that are cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jarvis._disk.flock import Waiter
from jarvis._sql.session import Session
from jarvis.async_memory import AsyncMemoryModule
from jarvis.errors import StoreBusyError, StoreClosedError, TransactionError
from jarvis.model.change import Change
from jarvis.persistent_memory import MemoryModule


@pytest.fixture(params=["sqlite", "json"])
def memory(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryModule:
    return MemoryModule(storage_dir=tmp_path, backend_type=request.param, busy_timeout_seconds=2)


def _in_thread(work: Any) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_an_interrupt_as_a_transaction_begins_leaves_none_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = MemoryModule(storage_dir=tmp_path)
    memory.bootstrap()
    begin = Session.begin

    def interrupted(session: Session) -> None:
        begin(session)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Session, "begin", interrupted)
        with pytest.raises(KeyboardInterrupt):
            memory.record_task("lost", {})
    memory.record_task("kept", {})
    memory.shutdown()

    assert [task.entity_id for task in MemoryModule(storage_dir=tmp_path).get_task_history()] == ["kept"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs signals of POSIX")
@pytest.mark.parametrize("backend_type", ["sqlite", "json"])
def test_interrupts_at_random_moments_leave_whole_pairs_and_no_lock(backend_type: str, tmp_path: Path) -> None:
    program = """
import random, signal, sys
from jarvis.persistent_memory import MemoryModule
class Interrupt(BaseException): pass
def interrupt(*_): raise Interrupt
memory = MemoryModule(storage_dir=sys.argv[1], backend_type=sys.argv[2], durability="normal", busy_timeout_seconds=5)
memory.bootstrap()
signal.signal(signal.SIGALRM, interrupt)
rng, interrupted = random.Random(3), 0
for number in range(400):
    try:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.00005, 0.0006))
        with memory.transaction():
            memory.create_memory("one", str(number), {}, "t")
            memory.create_memory("two", str(number), {}, "t")
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Interrupt:
        interrupted += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
memory.create_memory("last", "last", {}, "t")
memory.shutdown()
print(interrupted)
"""
    arguments = [sys.executable, "-c", program, str(tmp_path), backend_type]
    shown = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=120)

    memory = MemoryModule(storage_dir=tmp_path, backend_type=backend_type)
    keys = {category: {entry.key for entry in memory.get_memories_by_category(category)} for category in ("one", "two")}
    assert int(shown.stdout) > 20
    assert keys["one"] == keys["two"]
    assert memory.count_memories(category="last") == 1


def test_a_store_open_twice_in_one_thread_does_not_wait_for_itself(memory: MemoryModule, tmp_path: Path) -> None:
    other = MemoryModule(storage_dir=tmp_path, backend_type=memory.backend.name, busy_timeout_seconds=60)
    memory.bootstrap()
    other.bootstrap()

    with memory.transaction(), pytest.raises(TransactionError, match="another module"):
        other.record_task("1", {})

    other.record_task("2", {})
    assert memory.count_memories() == 1


def test_a_transaction_left_in_another_thread_is_an_error_and_no_lock_stays(memory: MemoryModule) -> None:
    memory.record_task("before", {})
    block = memory.transaction()
    _in_thread(block.__enter__)

    with pytest.raises(TransactionError):
        block.__exit__(None, None, None)

    memory.record_task("after", {})
    assert memory.count_memories() == 2


def test_transactions_are_left_in_the_order_in_which_they_nest(tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path)
    outer, inner = memory.transaction(), memory.transaction()
    outer.__enter__()
    inner.__enter__()

    with pytest.raises(TransactionError, match="left before one that was entered inside it"):
        outer.__exit__(None, None, None)

    memory.record_task("after", {})
    assert memory.count_memories() == 1


def _waits_for_the_lock() -> int:
    """Return how many threads of this process wait for a writers' lock on behalf of another one."""
    stacks = (traceback.walk_stack(frame) for frame in sys._current_frames().values())
    return sum(any(frame.f_code is Waiter._run.__code__ for frame, _ in stack) for stack in stacks)


def _await_the_end_of_waits() -> None:
    deadline = time.monotonic() + 10
    while _waits_for_the_lock() and time.monotonic() < deadline:
        time.sleep(0.001)


def test_waits_that_were_given_up_leave_one_thread_at_most(memory: MemoryModule, tmp_path: Path) -> None:
    impatient = MemoryModule(storage_dir=tmp_path, backend_type=memory.backend.name, busy_timeout_seconds=0.01)
    impatient.bootstrap()

    def try_often() -> None:
        for _ in range(20):
            with pytest.raises(StoreBusyError):
                impatient.record_task("1", {})

    with memory.transaction():
        _in_thread(try_often)
        waiting = _waits_for_the_lock()

    assert waiting == 1
    _await_the_end_of_waits()
    impatient.record_task("1", {})
    assert memory.count_memories() == 1


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors the way of Linux")
def test_modules_that_are_dropped_leave_no_file_open(tmp_path: Path) -> None:
    def use() -> None:
        for backend_type in ("sqlite", "json"):
            MemoryModule(storage_dir=tmp_path / backend_type, backend_type=backend_type).set_user_preference(
                "theme", {}
            )

    use()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        use()
    gc.collect()

    assert len(os.listdir("/proc/self/fd")) <= before + 4


def test_readers_and_shutdowns_do_not_get_into_each_others_way(tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path)
    memory.record_task("1", {})
    errors: list[BaseException] = []
    stop = threading.Event()

    def read() -> None:
        try:
            while not stop.is_set():
                assert memory.count_memories() == 1
        except BaseException as error:  # noqa: BLE001 - shown by the assertion
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for _ in range(100):
        memory.shutdown()
    stop.set()
    for reader in readers:
        reader.join()

    assert errors == []
    memory.shutdown()


def test_a_process_that_exits_without_shutdown_says_nothing_and_folds_its_log_in(tmp_path: Path) -> None:
    program = """
import atexit, sys
from jarvis.persistent_memory import MemoryModule
for backend_type in ("sqlite", "json"):
    memory = MemoryModule(storage_dir=sys.argv[1] + backend_type, backend_type=backend_type)
    memory.record_task("1", {})
    atexit.register(memory.record_task, "at exit", {})
"""
    places = f"{tmp_path}{os.sep}"
    shown = subprocess.run([sys.executable, "-c", program, places], capture_output=True, text=True, check=True)

    assert shown.stderr == ""
    assert not (tmp_path / "sqlite" / "memory.db-wal").exists()
    for backend_type in ("sqlite", "json"):
        assert MemoryModule(storage_dir=tmp_path / backend_type, backend_type=backend_type).count_memories() == 2


def test_a_lock_that_was_waited_for_and_dropped_unlocks_nobody_elses(tmp_path: Path) -> None:
    holder = MemoryModule(storage_dir=tmp_path / "one")
    other = MemoryModule(storage_dir=tmp_path / "two", busy_timeout_seconds=0.05)
    rival = MemoryModule(storage_dir=tmp_path / "two", busy_timeout_seconds=0.05)
    rival.bootstrap()

    def wait_in_vain() -> None:
        dropped = MemoryModule(storage_dir=tmp_path / "one", busy_timeout_seconds=0.01)
        dropped.bootstrap()
        with pytest.raises(StoreBusyError):
            dropped.record_task("1", {})

    def intrude() -> None:
        with pytest.raises(StoreBusyError):
            rival.record_task("intruder", {})

    with holder.transaction():
        _in_thread(wait_in_vain)
        gc.collect()
        other.bootstrap()
        held = other.transaction()
        held.__enter__()
    _await_the_end_of_waits()
    _in_thread(intrude)
    held.__exit__(None, None, None)

    rival.record_task("2", {})
    assert rival.count_memories() == 1


def _open_files(directory: Path) -> int:
    """Return how many files of a directory this process has open."""
    return sum(os.path.realpath(each).startswith(str(directory)) for each in Path("/proc/self/fd").glob("*"))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="sends itself signals")
@pytest.mark.parametrize("backend_type", ["sqlite", "json"])
def test_a_signal_handler_may_shut_down_what_it_interrupts(tmp_path: Path, backend_type: str) -> None:
    memory = MemoryModule(storage_dir=tmp_path, backend_type=backend_type)
    with memory.transaction():
        for number in range(500):
            memory.record_task(str(number), {"n": number})
    fired: list[int] = []

    def shut_down(*_: object) -> None:
        memory.shutdown()
        fired.append(1)

    def walk() -> None:
        while not fired:
            for _ in memory.iter_memories(where={"n": {"$gt": 490}}):
                pass

    usual = signal.signal(signal.SIGALRM, shut_down)
    try:
        for number in range(20):
            fired.clear()
            signal.setitimer(signal.ITIMER_REAL, 0.0005 + number / 5000)
            with contextlib.suppress(StoreClosedError):
                walk()
    finally:
        signal.signal(signal.SIGALRM, usual)

    assert memory.count_memories() == 500
    memory.shutdown()
    assert _open_files(tmp_path) == 0


class TestTasks:
    def test_a_task_that_outlives_a_savepoint_is_told(self, tmp_path: Path) -> None:
        async def story() -> list[str]:
            async with AsyncMemoryModule(storage_dir=tmp_path) as memory:
                ended = asyncio.Event()

                async def late() -> None:
                    await ended.wait()
                    await memory.record_task("late", {})

                async with memory.transaction():
                    async with memory.transaction():
                        task = asyncio.create_task(late())
                    ended.set()
                    with pytest.raises(TransactionError, match="has ended"):
                        await task
                    await memory.record_task("kept", {})
                return [entry.entity_id or "" for entry in await memory.get_task_history()]

        assert asyncio.run(story()) == ["kept"]

    def test_transactions_of_siblings_take_turns(self, tmp_path: Path) -> None:
        async def story() -> tuple[list[Any], list[str]]:
            async with AsyncMemoryModule(storage_dir=tmp_path) as memory:

                async def nested(number: int) -> None:
                    async with memory.transaction():
                        await memory.record_task(str(number), {})
                        await asyncio.sleep(0)
                        if number == 1:
                            raise ValueError
                        await memory.record_task(f"{number}-second", {})

                async with memory.transaction():
                    outcome = await asyncio.gather(
                        *(nested(number) for number in range(4)),
                        memory.record_task("plain", {}),
                        return_exceptions=True,
                    )
                return outcome, sorted(task.entity_id or "" for task in await memory.get_task_history())

        outcome, kept = asyncio.run(story())

        assert [type(each) for each in outcome] == [type(None), ValueError, type(None), type(None), str]
        assert kept == ["0", "0-second", "2", "2-second", "3", "3-second", "plain"]

    def test_cancelling_an_iteration_is_a_cancellation(self, tmp_path: Path) -> None:
        async def story() -> list[str]:
            async with AsyncMemoryModule(storage_dir=tmp_path) as memory:
                async with memory.transaction():
                    for number in range(300):
                        await memory.record_task(str(number), {"n": number})

                async def walk() -> None:
                    while True:
                        async for _ in memory.iter_memories(where={"n": {"$lt": 0}}):
                            pass

                outcomes = []
                for number in range(20):
                    task = asyncio.create_task(walk())
                    await asyncio.sleep(number / 5000)
                    task.cancel()
                    (outcome,) = await asyncio.gather(task, return_exceptions=True)
                    outcomes.append(type(outcome).__name__)
                await memory.record_task("after", {})
                return outcomes

        assert set(asyncio.run(story())) == {"CancelledError"}

    @pytest.mark.parametrize("backend_type", ["sqlite", "json"])
    def test_a_shutdown_ends_what_another_task_iterates_over(self, tmp_path: Path, backend_type: str) -> None:
        async def story() -> tuple[int, int]:
            memory = AsyncMemoryModule(storage_dir=tmp_path, backend_type=backend_type)
            async with memory.transaction():
                for number in range(300):
                    await memory.record_task(str(number), {})
            iteration = memory.iter_memories()
            await anext(iteration)
            await asyncio.create_task(memory.shutdown())
            with pytest.raises(StoreClosedError):
                await anext(iteration)
            names = _open_files(tmp_path)
            count = len([entry async for entry in memory.iter_memories()])
            await memory.shutdown()
            return names, count

        assert asyncio.run(story()) == (0, 300)

    @pytest.mark.parametrize("is_left", [False, True], ids=["shutdown", "left-block"])
    def test_a_shutdown_ends_a_watch_that_another_task_awaits(self, tmp_path: Path, is_left: bool) -> None:
        async def story() -> tuple[list[str | None], list[str | None], int]:
            memory = AsyncMemoryModule(storage_dir=tmp_path)

            async def follow(watch: AsyncIterator[Change]) -> list[str | None]:
                return [change.key async for change in watch]

            await memory.bootstrap()
            tasks = [asyncio.create_task(follow(each.watch())) for each in (memory, memory.for_namespace("default"))]
            await asyncio.sleep(0)
            await memory.set_user_preference("theme", {})
            await asyncio.sleep(0.2)
            if is_left:
                async with memory:
                    pass
            else:
                await memory.shutdown()
            seen = await asyncio.wait_for(asyncio.gather(*tasks), 10)
            return seen[0], seen[1], _open_files(tmp_path)

        assert asyncio.run(story()) == (["theme"], ["theme"], 0)

    def test_a_loop_that_closes_while_a_task_waits_leaves_no_lock(self, tmp_path: Path) -> None:
        holder = MemoryModule(storage_dir=tmp_path)
        memory = AsyncMemoryModule(storage_dir=tmp_path, busy_timeout_seconds=5)

        async def enter() -> None:
            async with memory.transaction():
                pass

        async def story() -> None:
            await asyncio.wait_for(enter(), 0.05)

        with holder.transaction():
            holder.record_task("held", {})
            with pytest.raises(TimeoutError):
                asyncio.run(story())

        holder.record_task("after", {})
        assert holder.count_memories() == 2

    def test_an_async_generator_left_inside_a_transaction_leaves_no_lock(self, tmp_path: Path) -> None:
        async def story() -> int:
            async with AsyncMemoryModule(storage_dir=tmp_path) as memory:

                async def tasks() -> Any:
                    async with memory.transaction():
                        await memory.record_task("1", {})
                        yield 1
                        yield 2

                walk = tasks()
                async for _ in walk:
                    break
                await asyncio.create_task(walk.aclose())
                return await AsyncMemoryModule(storage_dir=tmp_path, busy_timeout_seconds=5).count_memories()

        assert asyncio.run(story()) == 0
        MemoryModule(storage_dir=tmp_path, busy_timeout_seconds=5).record_task("after", {})

    def test_an_async_memory_can_be_pickled(self, tmp_path: Path) -> None:
        memory = AsyncMemoryModule(storage_dir=tmp_path)

        async def story() -> dict[str, Any]:
            await memory.set_user_preference("theme", {"mode": "dark"})
            copy: AsyncMemoryModule = pickle.loads(pickle.dumps(memory))
            return await copy.get_user_preferences()

        assert asyncio.run(story()) == {"theme": {"mode": "dark"}}

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
    def test_an_async_memory_works_in_a_forked_child(self, tmp_path: Path) -> None:
        program = """
import asyncio, os, sys
from jarvis.async_memory import AsyncMemoryModule
memory = AsyncMemoryModule(storage_dir=sys.argv[1])
async def write(name): await memory.record_task(name, {})
asyncio.run(write("parent"))
child = os.fork()
if not child:
    asyncio.run(write("child"))
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
        subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=60)

        assert MemoryModule(storage_dir=tmp_path).count_memories() == 2
