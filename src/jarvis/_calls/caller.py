"""Tells callers apart: the task of a thread, and a call that interrupts another one of its thread.

A signal handler, a `__del__` or a log handler runs in the middle of another call of its thread. A task of an event
loop, or a greenlet, runs while another one of its thread waits with a transaction open. Neither may join that
transaction: its changes would be lost when the transaction is rolled back.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

from jarvis.errors import TransactionError

Result = TypeVar("Result")


def current_task() -> object | None:
    """Return the present task, or else the greenlet, which tells apart the callers of one thread; None outside of both.

    Not a context variable: `asyncio.to_thread` copies those.
    """
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        loop = asyncio._get_running_loop()
        if loop is not None:
            task: object = asyncio.current_task(loop) or loop
            return task
    greenlet = sys.modules.get("greenlet")
    if greenlet is not None:
        current: object = greenlet.getcurrent()
        return None if current.parent is None else current  # type: ignore[attr-defined]  # of every greenlet
    return None


def let_go(lock: threading.RLock) -> None:
    """Release a lock as often as the calling thread has taken it; no-op if the thread does not hold it."""
    while lock._is_owned():  # type: ignore[attr-defined]  # threading.Condition relies on it too
        lock.release()


def holding(lock: threading.RLock, work: Callable[[], Result]) -> Result:
    """Run `work` with the lock taken; return its result.

    No exception from outside leaves the lock taken, wherever it is raised: in a ``with`` block one could, between the
    last step and the release. A call of this inside of `work`, as in a signal handler, releases the lock.
    """
    try:
        try:
            lock.acquire()
            return work()
        finally:
            let_go(lock)
    finally:  # again: one exception can keep only one of the two from running
        let_go(lock)


class Gate:
    """Remembers, for one thread, the call during which no other call may write.

    The gate knows the call by its frame. So a gate that an interrupt has left closed does no harm: its call is not on
    the stack any more.

    Attributes:
        call: the frame of the call; None while the gate is open. Set it inside a ``try`` that sets it back.
    """

    __slots__ = ("call",)

    def __init__(self) -> None:
        self.call: FrameType | None = None

    def is_closed(self) -> bool:
        """Tell whether the caller interrupts the call that closed the gate."""
        if self.call is None:
            return False
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame is self.call:
                return True
            frame = frame.f_back
        self.call = None
        return False

    def check(self, name: object) -> None:
        """Raise `TransactionError` if the caller interrupts the call that closed the gate; `name` is the store's."""
        if self.call is not None and self.is_closed():
            raise TransactionError(
                f"{name}: this call interrupts another one of its thread, as in a signal handler, a __del__ or a log "
                "handler, and was refused: its changes could be lost with that one. Set a flag and call later, or call "
                "in a thread of its own, without waiting for it"
            )

    def during(self, name: object, work: Callable[[], Result]) -> Result:
        """Run `work` with the gate closed and return its result; raise as `check` does."""
        self.check(name)
        try:
            self.call = sys._getframe()
            return work()
        finally:
            self.call = None


class Gates(threading.local):
    """A gate for each thread.

    Attributes:
        here: the gate of the calling thread. Reading it takes as long as ten attributes of another object.
    """

    def __init__(self) -> None:
        self.here = Gate()


def foreign_task(name: object) -> TransactionError:
    """Return the error for a task that meets the transaction of another task of its thread."""
    return TransactionError(
        f"{name}: another task of this thread has a transaction open, and to wait for it would stop them both; "
        "use AsyncMemoryModule, write in a thread (asyncio.to_thread), or leave the transaction before you await"
    )


def no_transaction(name: object) -> TransactionError:
    """Return the error for a call that needs a transaction and has none open."""
    return TransactionError(
        f"{name}: no transaction of this caller is open; wrap the calls in transaction(), and leave it where it was "
        "entered, not in another task or thread"
    )
