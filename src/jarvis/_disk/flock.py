"""The kernel's lock on an open file, and a thread that waits for it."""

from __future__ import annotations

import _thread
import os
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Waiter:
    """A thread that waits for the lock on a descriptor of its own, until a caller takes it or gives it up.

    The thread alone closes the descriptor, unless a caller has taken it. An interrupt can leave no lock in here taken:
    each attribute is written by one side only, the thread or the callers, and each side reads the other's attributes
    after it has written its own.
    """

    descriptor = -1
    is_started = False
    _is_wanted, _is_taken = True, False  # the callers'
    _is_locked, _is_over = False, False  # the thread's

    def __init__(self, open_file: Callable[[], int]) -> None:
        self._got, self._asked = threading.Lock(), threading.Lock()
        self._got.acquire()
        self._asked.acquire()
        self.descriptor = open_file()

    def start(self) -> None:
        """Begin to wait; raise RuntimeError if no thread can be started, such as at the interpreter's end."""
        # Thread.start waits for the thread, and would turn an exception during that wait into a RuntimeError.
        _thread.start_new_thread(self._run, ())
        self.is_started = True

    def _run(self) -> None:
        lock(self.descriptor)
        self._is_locked = True
        _let(self._got)
        while not self._is_taken:
            if not self._is_wanted:
                self._is_over = True
                if not self._is_wanted:
                    os.close(self.descriptor)  # which unlocks it
                    return
                self._is_over = False  # a caller wants it again
            self._asked.acquire()

    def take_over(self) -> bool:
        """Want the lock again; return False if the thread got it meanwhile and released it."""
        self._is_wanted = True
        if self._is_over:
            self.give_up()
            return False
        return True

    def wait(self, seconds: float) -> bool:
        """Wait at most `seconds`; return whether the descriptor is locked, and can be taken."""
        return self._is_locked or self._got.acquire(timeout=seconds) or self._is_locked

    def hand_over(self) -> None:
        """Leave the descriptor to the caller."""
        self._is_taken = True
        _let(self._asked)

    def give_up(self) -> None:
        """Want the lock no longer: the thread releases it as soon as it gets it."""
        self._is_wanted = False
        _let(self._asked)

    def disown(self) -> None:
        """Leave the descriptor to the caller, in a forked child, where this thread does not exist."""
        self._is_taken = True

    def __del__(self) -> None:
        if self.descriptor != -1 and not self._is_locked and not self._is_taken:  # the thread was never started
            os.close(self.descriptor)


def _let(lock: threading.Lock) -> None:
    """Release a lock that the other side waits for; no-op if it is released already."""
    try:
        lock.release()
    except RuntimeError:
        return


if sys.platform == "win32":
    import contextlib
    import msvcrt
    import time

    def try_lock(descriptor: int) -> bool:
        try:
            os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # beyond the note: such locks are mandatory
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def lock(descriptor: int) -> None:
        while not try_lock(descriptor):
            time.sleep(0.01)

    def unlock(descriptor: int) -> None:
        with contextlib.suppress(OSError):  # it was not locked
            os.lseek(descriptor, 1 << 30, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)

    def unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
