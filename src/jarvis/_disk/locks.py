"""A lock between the threads of all processes."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, TypeVar

from jarvis._calls.caller import let_go
from jarvis._disk import files, flock
from jarvis._disk.flock import Waiter
from jarvis._disk.lock_file import LockFile, Note, Swap
from jarvis.errors import StoreBusyError, StoreError, TransactionError, UnsafeLocationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Member = TypeVar("Member")


_POLL_SECONDS = 0.002
_PROBE_SECONDS = 0.02
_NO_LOCKS = frozenset((errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL))


_locks: weakref.WeakSet[WriterLock] = weakref.WeakSet()


class WriterLock:
    """An exclusive advisory lock: one holder among all threads of all processes.

    Waiters queue in the kernel, so none starves. The lock dies with its process. A forked child
    never holds, and never keeps alive, a lock of its parent. An exception may arrive from outside at any place in here,
    such as KeyboardInterrupt: `release` puts everything right again.

    Holders write into its file, see `jarvis._disk.lock_file`.

    Args:
        path: of the lock's file, created when first needed; it may be removed while nobody holds the lock.
        guarded: the file that error messages name.

    Attributes:
        is_mine: tells whether the calling thread holds the lock.
    """

    is_mine: Callable[[], bool]

    def __init__(self, path: str, guarded: str) -> None:
        self.path = path
        self.guarded = guarded
        self._let_in_all_threads()
        self._descriptors: set[int] = set()  # every open one
        self._held: int | None = None
        self._identity = (0, 0)  # device and inode of the held file
        self._size = 0
        self._file = LockFile(path, guarded)
        self._has_announced = False  # a commit that is in flight
        self._waiters: list[Waiter] = []  # at most one: the wait in progress, still wanted or given up
        weakref.finalize(self, _let_go, self._descriptors, self._waiters).atexit = False  # others still need it then
        _locks.add(self)

    def _let_in_all_threads(self) -> None:
        self._mutex = threading.RLock()  # of the threads of this process; it knows its owner by itself
        self.is_mine = self._mutex._is_owned  # type: ignore[attr-defined]  # threading.Condition relies on it too

    def try_threads(self) -> bool:
        """Keep the other threads of this process out, if none of them has the lock: the first half of `acquire`.

        Call `release` next, also if this raises.
        """
        return self._mutex.acquire(blocking=False)

    def acquire(self, timeout_seconds: float) -> None:
        """Wait for the lock. Call `release` next, also if this raises.

        Raises:
            StoreBusyError: another thread or process held it for longer than `timeout_seconds`.
            TransactionError: this thread holds it already, through another opening of the same store.
            StoreError: the lock's file cannot be opened.
        """
        deadline = time.monotonic() + timeout_seconds
        if not self._mutex.acquire(timeout=max(timeout_seconds, 0)):
            raise self.busy(timeout_seconds)
        is_new = self._held is None
        while True:
            descriptor = self._hold(self._open()) if self._held is None else self._held
            try:
                is_free = flock.try_lock(descriptor)
            except OSError as error:
                raise self._unlockable(error) from error
            if not is_free:
                self._wait(deadline, timeout_seconds)
            if self._is_current():
                if is_new:
                    self._file.make_ready(self._identity)
                return
            if self._held is not None:
                self._close(self._held)  # the file was removed meanwhile: its lock guards nothing
                is_new = True

    def release(self) -> None:
        """Give the lock to the next waiter; no-op if the calling thread does not hold it."""
        if self.is_mine():
            if self._has_announced:
                self._has_announced = False
                try:  # noqa: SIM105  three calls less in each write
                    self._file.mark_end(self._identity, self._size)
                except OSError:  # a reader notices by itself that nobody holds the lock
                    pass
            if self._waiters:
                self._settle_waiter()  # an interrupt kept its descriptor from being handed over
            if self._held is not None:
                try:
                    flock.unlock(self._held)
                except OSError:  # closing it unlocks as well
                    self._close(self._held)
            while self.is_mine():
                self._mutex.release()

    def release_for(self, holder: tuple[int, int]) -> None:
        """Release the lock that the thread with this (process id, thread id) acquired.

        Another thread of its process may do that: one that ends the transaction in its place, or collects it after
        its end. A forked child holds nothing to release.
        """
        if holder == (os.getpid(), threading.get_ident()):
            self.release()
        elif holder[0] == os.getpid():
            if self._held is not None:
                self._close(self._held)
            self._has_announced = False
            self._let_in_all_threads()

    def close(self) -> None:
        """Close the lock's file, if nobody in this process holds the lock; it opens again when needed."""
        if self.is_mine():
            return
        try:
            try:
                if self._mutex.acquire(blocking=False):
                    if self._held is not None:
                        self._close(self._held)
                    self._file.forget()
            finally:
                let_go(self._mutex)
        finally:  # again, see `jarvis._calls.caller.holding`
            let_go(self._mutex)

    # --- what its holders write ---

    def read_note(self) -> Note | None:
        """Return the last note of a holder, or None; anybody may read it."""
        return self._file.read_note()

    def write_note(self, note: Note) -> None:
        """Write a note, and that the commit in flight is over; the caller holds the lock."""
        if self._held is None:
            raise _not_held()
        self._file.write_note(note, self._identity, self._size, is_end=self._has_announced)
        self._has_announced = False

    def read_swap(self) -> Swap | None:
        """Return the last swap of the guarded file, or None; anybody may read it."""
        return self._file.read_swap()

    def is_swap_open(self) -> bool:
        """Tell the holder whether a swap has begun that is not over, because its process was killed."""
        return self._held is not None and self._file.is_swap_open(self._held)

    def write_swap(self, inode: int, *, is_over: bool) -> None:
        """Write that a swap begins or is over; the caller holds the lock."""
        if self._held is None:
            raise _not_held()
        self._file.write_swap(inode, is_over=is_over)

    def announce(self) -> None:
        """Write that a commit is in flight: changes dated from here on become visible when it is over.

        The caller holds the lock. The commit is over when a note is written, or the lock is released.
        """
        if not self._has_announced:
            self._file.mark_begin(self._identity, self._size)
            self._has_announced = True

    def await_commit(self, timeout_seconds: float) -> None:
        """Wait until the commit that is in flight now is over; no-op if there is none. Later ones do not count.

        Raises:
            StoreBusyError: it took too long.
            TransactionError: the call that this one interrupts is making it.
        """
        name = self._file.commit_in_flight()
        if name is None:
            return
        if self.is_mine():
            raise TransactionError(
                f"{self.guarded}: this call interrupts another one of its thread, whose change is being committed; "
                "ask again when that has returned"
            )
        self._refuse_deadlock()
        began = time.monotonic()
        while self._file.commit_in_flight() == name:
            waited = time.monotonic() - began
            if waited > timeout_seconds:
                raise self.busy(timeout_seconds)
            if waited > _PROBE_SECONDS and self._is_free():
                return  # its process was killed
            time.sleep(_POLL_SECONDS / 10)

    def _is_free(self) -> bool:
        """Tell whether nobody holds the lock, by taking it for a moment."""
        try:
            descriptor = files.open_regular(self.path, os.O_RDONLY, os.open)
        except OSError:
            return True
        try:
            return self._try(descriptor)
        finally:
            os.close(descriptor)

    def busy(self, timeout_seconds: float) -> StoreBusyError:
        """Return the error of a wait that took too long."""
        return StoreBusyError(
            self.guarded,
            f"another writer has kept it locked for {timeout_seconds:g} s; "
            "retry, let the other finish, or raise busy_timeout_seconds",
        )

    # --- inside ---

    def _open(self) -> int:
        return self._file.open()

    def _try(self, descriptor: int) -> bool:
        """Take the lock if it is free; return whether it was free."""
        try:
            return flock.try_lock(descriptor)
        except OSError as error:
            raise self._unlockable(error) from error

    def _unlockable(self, error: OSError) -> StoreError:
        if error.errno not in _NO_LOCKS:
            return files.translated(self.guarded, error, "lock the store")
        return UnsafeLocationError(
            self.guarded, f"lies on a file system that gives no file locks ({error.strerror}); choose another"
        )

    def _hold(self, descriptor: int) -> int:
        self._held = descriptor
        self._descriptors.add(descriptor)
        status = os.fstat(descriptor)
        self._identity = (status.st_dev, status.st_ino)
        return descriptor

    def _close(self, descriptor: int) -> None:
        if descriptor == self._held:
            self._held = None
        if descriptor in self._descriptors:
            self._descriptors.discard(descriptor)
            os.close(descriptor)

    def _wait(self, deadline: float, timeout_seconds: float) -> None:
        """Wait in the kernel's queue, in a thread of its own: a blocking flock has no timeout.

        The thread of a wait that was given up goes on, and the next wait takes it over. If none does, the thread
        releases the lock as soon as it gets it.
        """
        if deadline <= time.monotonic():
            raise self.busy(timeout_seconds)
        self._refuse_deadlock()
        if _are_threads_green():
            self._poll(deadline, timeout_seconds)
            return
        try:
            if not self._waiters or not self._waiters[0].take_over():
                self._waiters[:] = [Waiter(self._open)]
                try:
                    self._waiters[0].start()
                except RuntimeError:  # the interpreter ends: it starts no more threads
                    self._poll(deadline, timeout_seconds)
                    return
            if not self._waiters[0].wait(max(deadline - time.monotonic(), 0)):
                raise self.busy(timeout_seconds)
            if self._held is not None:
                self._close(self._held)
            self._hold(self._waiters[0].descriptor)
        finally:
            self._settle_waiter()

    def _settle_waiter(self) -> None:
        """Take over the waiter's descriptor if that holds the lock, else give it up. No-op if there is no waiter."""
        for waiter in self._waiters[:]:
            if waiter.descriptor == self._held:
                waiter.hand_over()
                self._waiters.clear()
            else:
                waiter.give_up()
                if not waiter.is_started:
                    self._waiters.clear()

    def _poll(self, deadline: float, timeout_seconds: float) -> None:
        """Try again and again, for green threads: one that waits in the kernel stops all of them."""
        while self._held is None or not self._try(self._held):
            if time.monotonic() >= deadline:
                raise self.busy(timeout_seconds)
            time.sleep(_POLL_SECONDS)

    def _refuse_deadlock(self) -> None:
        """Raise if this thread would wait for itself: it has a transaction open through another opening."""
        for other in listed(_locks):
            if other is not self and other.path == self.path and other.is_mine():
                raise TransactionError(
                    f"{self.guarded}: this thread has a transaction open on it through another module or backend; "
                    "use that one, or its for_namespace()"
                )

    def _is_current(self) -> bool:
        try:
            status = os.stat(self.path)
        except OSError:
            return False
        self._size = status.st_size
        return (status.st_dev, status.st_ino) == self._identity

    def _forget(self) -> None:
        """In a forked child: close the parent's descriptors without unlocking them."""
        for waiter in self._waiters:
            waiter.disown()
            self._descriptors.add(waiter.descriptor)
        self._waiters.clear()
        _let_go(self._descriptors, self._waiters)
        self._held, self._has_announced = None, False
        self._file.forget()
        self._let_in_all_threads()


@contextlib.contextmanager
def held_for_once(path: str, guarded: str, timeout_seconds: float) -> Iterator[None]:
    """Hold the lock with the file at `path` during a block, and remove the file after it.

    Raises:
        StoreBusyError: another thread or process held it for longer than `timeout_seconds`.
    """
    lock = WriterLock(path, guarded)
    try:
        lock.acquire(timeout_seconds)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                files.system.unlink(path)
    finally:
        lock.release()
        lock.close()


def _not_held() -> RuntimeError:
    return RuntimeError("only the holder of the lock writes to its file")


def _are_threads_green() -> bool:
    """Tell whether threads are greenlets of one thread, because gevent or eventlet patched the standard library."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    return bool(
        (gevent is not None and gevent.is_module_patched("threading"))
        or (eventlet is not None and eventlet.is_monkey_patched("thread"))
    )


def _let_go(descriptors: set[int], waiters: list[Waiter]) -> None:
    while waiters:
        waiters.pop().give_up()
    while descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptors.pop())


def listed(members: weakref.WeakSet[Member]) -> list[Member]:
    """Return the members of a set of weak references, also while other threads add to it."""
    while True:
        try:
            return list(members)
        except RuntimeError:  # it changed size during the iteration
            continue


if sys.platform != "win32":

    def _forget_locks() -> None:
        for lock in listed(_locks):
            lock._forget()

    os.register_at_fork(after_in_child=_forget_locks)
