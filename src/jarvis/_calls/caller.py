"""Who calls: which task of a thread, and whether a call interrupts another one of its thread.

A signal handler, a `__del__` or a log handler runs in the middle of whatever its thread was just doing. A task of an
event loop, or a greenlet, runs while another one of its thread waits with a transaction open. Neither may join what
it was not invited to: what joins a transaction goes when that is rolled back.
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
    """Return what tells apart the callers of one thread: the task, or else the greenlet, that runs just now.

    Not a context variable: `asyncio.to_thread` copies those. Outside of both it is None.
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
    """Release a lock as often as the calling thread has taken it; no-op if it has not."""
    while lock._is_owned():  # type: ignore[attr-defined]  # threading.Condition relies on it too
        lock.release()


def holding(lock: threading.RLock, work: Callable[[], Result]) -> Result:
    """Return what `work` returns, called with the lock taken.

    No exception leaves it taken, at whatever place it is raised from outside: a ``with`` block would, between its last
    step and the release. What calls this inside of `work`, such as a signal handler, releases the lock.
    """
    try:
        try:
            lock.acquire()
            return work()
        finally:
            let_go(lock)
    finally:  # again: one exception keeps at most one of the two from being reached
        let_go(lock)


class Gate:
    """Remembers, for one thread, the call during which no other call may write.

    The call is known by its frame. So a gate that an interrupt has kept from being opened again is no gate: the call
    is not among those that are going on.

    Attributes:
        call: the frame of the call; None while the gate is open. Set it inside of a ``try`` that sets it back.
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
                "handler, and was refused: what it does could go with that one. Set a flag and do it later, or do it "
                "in a thread of its own, without waiting for that"
            )

    def during(self, name: object, work: Callable[[], Result]) -> Result:
        """Return what `work` returns, called with the gate closed; raise as `check` does."""
        self.check(name)
        try:
            self.call = sys._getframe()
            return work()
        finally:
            self.call = None


class Gates(threading.local):
    """A gate for each thread.

    Attributes:
        here: the one of the calling thread. To ask for it takes as long as ten attributes of another object.
    """

    def __init__(self) -> None:
        self.here = Gate()


def foreign_task(name: object) -> TransactionError:
    """Return the error of a task that meets the transaction of another task of its thread."""
    return TransactionError(
        f"{name}: another task of this thread has a transaction open, and to wait for it would stop them both; "
        "use AsyncMemoryModule, write in a thread (asyncio.to_thread), or leave the transaction before you await"
    )


def torn_transaction(name: object) -> TransactionError:
    """Return the error of who goes on with a transaction in which a change was left half made."""
    return TransactionError(f"{name}: an earlier failure took the transaction back; start a new one")


def no_transaction(name: object) -> TransactionError:
    """Return the error of who has no transaction open, for what needs one."""
    return TransactionError(
        f"{name}: no transaction of this caller is open; wrap the calls in transaction(), and leave it where it was "
        "entered, not in another task or thread"
    )
