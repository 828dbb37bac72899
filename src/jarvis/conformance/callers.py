"""Promises to several callers on one thread: tasks of an event loop, and calls that interrupt another one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from jarvis.conformance.fixtures import FakeClock, Promises, an_entry
from jarvis.errors import TransactionError
from jarvis.persistent_memory import MemoryModule


class _Stop(BaseException):
    """Like SystemExit, no subclass of Exception."""


class CallerPromises(Promises):
    """A transaction belongs to one task; a call that interrupts a verb takes no part in it."""

    @pytest.fixture
    def shared(self, store: Any) -> MemoryModule:
        """Return a module that several tasks use."""
        return MemoryModule(storage_backend=store)

    # --- tasks ---

    def test_another_task_takes_no_part_in_a_transaction(self, shared: MemoryModule) -> None:
        shared.set_user_preference("before", {})

        async def main() -> None:
            is_open, is_over = asyncio.Event(), asyncio.Event()

            async def one() -> None:
                with contextlib.suppress(_Stop), shared.transaction():
                    shared.set_user_preference("one", {})
                    is_open.set()
                    await is_over.wait()
                    assert set(shared.get_user_preferences()) == {"before", "one"}
                    raise _Stop

            task = asyncio.ensure_future(one())
            await is_open.wait()
            with pytest.raises(TransactionError, match="another task of this thread"):
                shared.set_user_preference("other", {})
            with pytest.raises(TransactionError, match="another task of this thread"), shared.transaction():
                pass
            with pytest.raises(TransactionError, match="another task of this thread"):
                shared.backend.create(an_entry("other"))
            assert set(shared.get_user_preferences()) == {"before"}
            assert shared.count_memories() == len(list(shared.iter_memories())) == 1
            is_over.set()
            await task
            shared.set_user_preference("after", {})

        asyncio.run(main())

        assert set(shared.get_user_preferences()) == {"before", "after"}

    def test_what_a_task_was_told_is_kept_whatever_becomes_of_another_ones_transaction(
        self, shared: MemoryModule
    ) -> None:
        kept: list[str] = []

        async def one(number: int) -> None:
            with contextlib.suppress(_Stop, TransactionError), shared.transaction():
                shared.set_user_preference(f"lost-{number}", {})
                await asyncio.sleep(0)
                raise _Stop

        async def other(number: int) -> None:
            await asyncio.sleep(0)
            with contextlib.suppress(TransactionError):
                shared.set_user_preference(f"kept-{number}", {})
                kept.append(f"kept-{number}")

        async def main() -> None:
            for number in range(5):
                await asyncio.gather(one(number), other(number), other(number + 100))

        asyncio.run(main())

        assert set(shared.get_user_preferences()) == set(kept)

    def test_a_generator_around_a_transaction_is_no_caller_of_its_own(self, shared: MemoryModule) -> None:
        @contextlib.contextmanager
        def unit_of_work() -> Iterator[None]:
            with shared.transaction():
                yield

        async def main() -> None:
            with unit_of_work():
                shared.set_user_preference("with", {})
                await asyncio.sleep(0)
            with contextlib.ExitStack() as stack:
                stack.enter_context(unit_of_work())
                shared.set_user_preference("stack", {})
                await asyncio.sleep(0)

        asyncio.run(main())
        with unit_of_work():
            shared.set_user_preference("no loop", {})

        assert set(shared.get_user_preferences()) == {"with", "stack", "no loop"}

    def test_a_thread_that_a_task_starts_waits_for_the_transaction(self, shared: MemoryModule) -> None:
        async def main() -> None:
            with shared.transaction():
                shared.set_user_preference("task", {})
                waiting = asyncio.ensure_future(asyncio.to_thread(shared.set_user_preference, "thread", {}))
                await asyncio.sleep(0.05)
                assert not waiting.done()
            await waiting

        asyncio.run(main())

        assert set(shared.get_user_preferences()) == {"task", "thread"}

    def test_a_transaction_is_left_in_the_task_that_entered_it(self, shared: MemoryModule) -> None:
        async def main() -> None:
            block = shared.transaction()

            async def enter() -> None:
                block.__enter__()
                shared.set_user_preference("lost", {})

            async def leave() -> None:
                with pytest.raises(TransactionError, match="another task"):
                    block.__exit__(None, None, None)

            await asyncio.ensure_future(enter())
            await asyncio.ensure_future(leave())
            shared.set_user_preference("after", {})

        asyncio.run(main())

        assert set(shared.get_user_preferences()) == {"after"}

    def test_shutting_down_in_another_task_leaves_a_transaction_alone(self, shared: MemoryModule) -> None:
        async def main() -> None:
            is_open, is_over = asyncio.Event(), asyncio.Event()

            async def one() -> None:
                with shared.transaction():
                    shared.set_user_preference("one", {})
                    is_open.set()
                    await is_over.wait()
                    shared.set_user_preference("two", {})

            task = asyncio.ensure_future(one())
            await is_open.wait()
            shared.shutdown()
            assert shared.get_user_preferences() == {}
            assert shared.count_memories() == 0
            with pytest.raises(TransactionError, match="another task"):
                shared.set_user_preference("other", {})
            is_over.set()
            await task

        asyncio.run(main())

        assert set(shared.get_user_preferences()) == {"one", "two"}

    # --- interruptions ---

    @pytest.mark.parametrize("raises", [False, True], ids=["goes on", "raises"])
    def test_a_write_inside_a_verb_is_refused(self, store: Any, raises: bool) -> None:
        """Calls a handler when the module reads the time, in the middle of a change."""
        clock = FakeClock()
        refused = 0
        is_handled = False

        def interrupting() -> datetime:
            nonlocal refused, is_handled
            if is_handled:
                return clock()
            is_handled = True
            for write in (
                lambda: memory.set_user_preference("bye", {}),
                lambda: memory.update_memory(memory_id, {}),
                lambda: memory.delete_memory(memory_id),
                lambda: memory.transaction().__enter__(),
                memory.clear_all,
            ):
                with pytest.raises(TransactionError, match="interrupts another one of its thread"):
                    write()
                refused += 1
            memory.get_memory(memory_id)
            if raises:
                raise _Stop
            return clock()

        memory_id = MemoryModule(storage_backend=store, clock=clock).create_memory("notes", "it", {"n": 0}, "note")
        clock.step(seconds=1)
        memory = MemoryModule(storage_backend=store, clock=interrupting)
        with contextlib.suppress(_Stop):
            memory.merge_memory(memory_id, {"n": 1})
        after = MemoryModule(storage_backend=store, clock=clock)

        assert refused >= 5
        assert [entry.value for entry in after.list_memories()] == [{"n": 0 if raises else 1}]
        after.merge_memory(memory_id, {"n": 2})
        assert [entry.value for entry in after.list_memories()] == [{"n": 2}]
