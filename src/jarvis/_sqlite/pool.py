"""`Pool`: the connections of one process to one SQLite file. A thread has one from its first call to its end.

Before a fork the pool closes every idle connection and waits for calls in progress: all connections of a process share
SQLite's record of its locks, and a child would inherit a wrong one
(https://sqlite.org/howtocorrupt.html, "Carrying an open database connection across a fork()").
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING

import apsw

from jarvis._calls.caller import holding, let_go
from jarvis._disk.files import Stamp
from jarvis._disk.locks import listed
from jarvis._sql import lending, registry
from jarvis._sql.names import NameBook
from jarvis._sqlite import engine
from jarvis._sqlite.connection import Connection
from jarvis._sqlite.opening import Opening
from jarvis._sqlite.store_file import MAX_TRIES, StoreFile
from jarvis.errors import (
    CorruptStoreError,
    StoreAccessError,
    StoreBusyError,
    StoreError,
    TransactionError,
)

if TYPE_CHECKING:
    from jarvis._sqlite.replace.copy_file import CopyFile
    from jarvis.model.policies import Histories

_LEFT_SECONDS = 0.02  # an iteration that hands out nothing for so long while a fork waits may be left for ever


class Lease(lending.Lease):
    """A session on a connection of its own. Only the thread that owns it calls its methods; any thread may call `close`
    while `busy` is 0.

    Attributes:
        raw: the driver's connection.
        busy: how many calls and iterations use the connection now.
        epoch: the `Pool.epoch` in which it was opened; stale if the pool has another one, dropped if None.
        identity: (device, inode) of the file that it has open.
        immutable: None, or the stamp of a file that it reads without locks: valid only while nobody writes.
        is_suspended: it belongs to an iteration that has handed out an entry, and may stay open for ever.
        handed_out: how many entries that iteration has handed out.
        closed: the connection is closed.
        guard: held to close the connection, or to use that of another thread.
    """

    def __init__(
        self,
        raw: apsw.Connection,
        path: str,
        book: NameBook,
        *,
        epoch: int,
        identity: tuple[int, int],
        immutable: Stamp | None,
        history: Histories,
    ) -> None:
        self._connection = Connection(raw, path)
        super().__init__(self._connection, book, history, registry.SIDE_TABLES)
        self.raw = raw
        self.epoch: int | None = epoch
        self.identity = identity
        self.immutable = immutable
        self.pid, self.thread = os.getpid(), threading.get_ident()
        self.busy = 1  # in use from the start, or a fork could close it
        self.task: object = None
        self.closed = self.is_suspended = False
        self.handed_out = 0
        self.guard = threading.RLock()

    def _roll_back_all(self) -> None:
        super()._roll_back_all()
        if self._connection.is_lost:
            self.drop()

    # How it is used: written down by who is lent it.

    def take(self) -> None:
        """Begin a call on it."""
        self.busy += 1

    def give_back(self) -> None:
        """End a call on it."""
        self.busy -= 1

    def hand_over(self) -> None:
        """Be used by the calling thread from here on; nobody else uses it."""
        self.busy, self.thread = 0, threading.get_ident()

    def suspend(self) -> None:
        """Be left alone by an iteration, perhaps for ever."""
        self.is_suspended = True
        self.handed_out += 1

    def resume(self) -> None:
        """Be used by the iteration again."""
        self.is_suspended = False

    def drop(self) -> None:
        """Have the connection closed when nobody uses it: after a failed write or sync its state is unknown."""
        self.epoch = None

    def close(self) -> None:
        """Close the connection, in the process that opened it; no-op if it is closed."""
        if self.pid != os.getpid():
            return
        holding(self.guard, self._close)

    def fold_log(self) -> bool:
        """Fold the log into the file as far as no reader needs it; False if the connection is closed."""
        if self.closed:
            return False
        self.raw.set_busy_timeout(0)
        with contextlib.suppress(apsw.BusyError):  # readers: all but the part that they need is folded in
            self.raw.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self.raw.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
        return True

    def _close(self) -> None:
        if self.closed:
            return
        self.closed = True
        try:
            self.raw.close(True)
        except apsw.Error as error:
            raise StoreAccessError(self.path, "the connection could not be closed") from error


class _ThreadEnd:
    """Closes a thread's connection when the thread ends, because the thread's locals then drop this object."""

    def __init__(self, pool: Pool, session: Lease) -> None:
        self._pool = weakref.ref(pool)
        self._session = session

    def __del__(self) -> None:
        pool = self._pool()
        if pool is not None and self._session.pid == os.getpid():
            with contextlib.suppress(StoreError):  # at the interpreter's end, with a daemon thread inside a statement
                pool.retire(self._session)


class Thread(lending.Thread[Lease]):
    """A thread's part of a store: its connection, and its call in progress."""

    __slots__ = ("end",)

    def __init__(self) -> None:
        super().__init__()
        self.end: _ThreadEnd | None = None

    def lend(self, session: Lease, end: _ThreadEnd | None = None) -> None:
        """Let this be the thread's connection, to be retired with `end`."""
        self.session, self.end = session, end or self.end


class _Threads(threading.local):
    """The `Thread` of each thread; `here` is the one of the calling thread."""

    def __init__(self) -> None:
        self.here = Thread()


class Pool:
    """The connections to one file.

    Args:
        file: the file.
        history: how much of the past is kept.

    Attributes:
        epoch: grows each time that all connections become stale.
        threads: `threads.here` is the calling thread's part.
        copy: the copy of the store that a move is making now.
    """

    def __init__(self, file: StoreFile, history: Histories) -> None:
        self.file, self.path, self.lock, self.read_only = file, file.path, file.lock, file.read_only
        self._history = history
        self.epoch = 0
        self.threads = _Threads()
        self.copy: CopyFile | None = None
        self._mutex = threading.RLock()  # a thread with the writers' lock never waits for this: opening takes both
        self._leases: weakref.WeakSet[Lease] = (
            weakref.WeakSet()
        )  # weak, so that one that an interrupt left without an owner is freed
        self._book = NameBook()
        self._prepared: tuple[int, int] | None = None  # identity of the file that `Opening` checked
        self._inherited = False
        self._paused: CopyFile | None = None  # the copy that a fork has paused

    # --- a call ----------------------------------------------------------------------------------

    def enter(self, *, look: bool = True) -> Lease:
        """Return the calling thread's connection, opened if need be; the caller must call `leave`.

        With ``look=False`` the caller checks that the path still names the connection's file.
        """
        session = self.threads.here.session
        if session is not None and session.pid != os.getpid():
            raise self.forked()
        if session is not None:
            # A shutdown or a fork raises epoch before it looks at busy; this sets busy before it looks at epoch. So at
            # least one of the two sees the other.
            if session.depth and not self.lock.is_mine() and not self.read_only:
                session.roll_back(0)  # an exception from outside kept a transaction from its end
            if not session.depth:
                session.busy = 0
                if session.is_still:  # an exception from outside kept a read from its end
                    session.roll_back(0)
            session.busy += 1
            try:
                is_current = session.epoch == self.epoch and not session.closed  # inlined: a read takes 8 µs
                if session.depth or (is_current and (not look or self.is_there(session))):
                    return session
            except BaseException:
                session.busy -= 1
                raise
            session.busy -= 1
            if not session.busy:
                self.retire(session)
        with self._mutex:
            session = self.open()
            self.threads.here.lend(session, _ThreadEnd(self, session))
            return session

    def leave(self, session: Lease) -> None:
        """End the use of a connection that `enter` returned."""
        session.busy = session.busy - 1 if session.depth else 0
        if not session.busy and session.epoch != self.epoch and session.pid == os.getpid():
            self.retire(session)

    def is_current(self, session: Lease) -> bool:
        """Tell whether a connection is open and not stale."""
        return session.epoch == self.epoch and not session.closed

    def is_there(self, session: Lease) -> bool:
        """Tell whether the path still names the file that `session` has open; raise if there is no file."""
        status = self.file.status()
        if (status.st_dev, status.st_ino) != session.identity:
            return False
        return session.immutable is None or (Stamp.of(status) == session.immutable and not self.file.has_log())

    def is_disturbed(self, session: Lease) -> bool:
        """Tell whether a connection without locks met a writer: its reads may be torn."""
        return session.immutable is not None and not self.is_there(session)

    def retire(self, session: Lease) -> None:
        """Close a connection that no call uses any more."""
        session.busy = 0
        try:
            session.close()  # kept in `_leases` as long as a thread may hold its guard, see `let_go`
        finally:
            self._leases.discard(session)

    def distrust(self) -> None:
        """Have the file verified again, and then every connection opened again."""
        with self._mutex:
            self.epoch += 1
            self._prepared = None

    # --- opening ---------------------------------------------------------------------------------

    def open(self) -> Lease:
        """Return a new connection to the file as it is now, checked; needs the mutex."""
        if self._inherited:
            raise self.forked()
        for _ in range(MAX_TRIES):
            if self._prepared is None:
                self._book = NameBook()  # this may be another file, with other ids
                self._prepared = Opening(self.file).prepare()
            try:
                connection, status, immutable = self.file.opened()
            except apsw.Error as error:
                raise engine.translated(self.path, error, "open the store") from error
            if self._prepared == (status.st_dev, status.st_ino):
                break
            connection.close()  # somebody put another file in its place
            self.epoch += 1
            self._prepared = None
        else:
            raise StoreBusyError(self.path, "was replaced again and again while it was opened; retry")
        return self._lease(connection, status, immutable)

    def opened_again(self) -> Lease:
        """Return a new connection; if the file seems damaged, verify it again and retry once, as `read` does."""
        try:
            return holding(self._mutex, self.open)
        except CorruptStoreError:
            self.distrust()
            return holding(self._mutex, self.open)

    def open_aside(self) -> Lease:
        """Return a new connection for a call that interrupts another one, which may hold the mutex and the lock."""
        if self._prepared is None or (self.lock.is_mine() and self.lock.is_swap_open()):
            raise TransactionError(
                f"{self.path}: this call interrupts another one of its thread that is opening the store, and "
                "cannot be answered; call again when that has returned"
            )
        try:
            connection, status, immutable = self.file.opened()
        except apsw.Error as error:
            raise engine.translated(self.path, error, "open the store") from error
        if self._prepared != (status.st_dev, status.st_ino):
            connection.close()
            raise StoreBusyError(self.path, "was replaced while it was opened; retry")
        return self._lease(connection, status, immutable)

    def _lease(self, connection: apsw.Connection, status: os.stat_result, immutable: bool) -> Lease:
        session = Lease(
            connection,
            self.path,
            self._book,
            epoch=self.epoch,
            identity=(status.st_dev, status.st_ino),
            immutable=Stamp.of(status) if immutable else None,
            history=self._history,
        )
        self._leases.add(session)
        return session

    def forked(self) -> TransactionError:
        """Return the error for a child whose parent forked during a call."""
        return TransactionError(
            f"{self.path}: this process was forked while its parent was inside a call or transaction on the store; "
            "fork outside of them, or start processes with spawn"
        )

    # --- closing ---------------------------------------------------------------------------------

    def close_idle(self) -> None:
        """Close idle connections, let the others close when they are returned, and fold the log into the file."""
        with self._mutex:
            leases = listed(self._leases)
            self.epoch += 1
            self._prepared = None
            idle = [lease for lease in leases if not lease.busy and not lease.closed]
            if idle and not self.read_only and os.path.exists(self.path):
                self._checkpoint(idle)
            for lease in idle:
                self.retire(lease)
            self.lock.close()

    def close_all_later(self) -> None:
        """Let every connection close when nobody uses it; for callers that may not wait."""
        self.epoch += 1

    def let_go(self) -> None:
        """Release the locks that an exception from outside has left to the calling thread."""
        for mutex in (self._mutex, *(lease.guard for lease in listed(self._leases))):
            let_go(mutex)

    def open_at_once(self) -> Lease | None:
        """Return a new connection without waiting for other threads; None if that is not possible."""
        if not self._mutex.acquire(blocking=False):
            return None
        try:
            return self.open()
        finally:
            self._mutex.release()

    def _checkpoint(self, idle: list[Lease]) -> None:
        """Fold the log into the file, through the last connection that closes."""
        try:
            status = self.file.take_lock(0)
            *rest, last = idle
            for session in rest:
                self.retire(session)
            if last.identity != (status.st_dev, status.st_ino):
                return  # the file was replaced, and the log beside it is the new file's
            if not holding(last.guard, last.fold_log):
                return
            self.retire(last)
            self.file.leave_note(status, self.file.status(), None)
        except (apsw.BusyError, StoreBusyError):
            pass  # somebody reads or writes: the log stays, and a later checkpoint folds it in
        except apsw.Error as error:
            self.file.warn("the log of %s stays beside it, nothing is lost: %s", self.path, type(error).__name__)
        finally:
            self.lock.release()

    # --- a fork ----------------------------------------------------------------------------------

    def before_fork(self, deadline: float) -> None:
        """Close every connection that becomes idle before `deadline`, so that a child inherits none."""
        self._paused = self.copy
        if self._paused is not None:
            self._paused.before_fork(deadline)
        self._mutex.acquire()
        self.epoch += 1
        for session in listed(self._leases):
            mine = session.thread == threading.get_ident()
            while session.busy and not mine and time.monotonic() < deadline:
                handed_out = session.handed_out
                time.sleep(_LEFT_SECONDS if session.is_suspended else 0.001)
                if session.is_suspended and session.handed_out == handed_out:
                    break  # its thread does something else, and may do so for ever
            if not session.busy:
                with contextlib.suppress(StoreError):  # it counts as not closed
                    self.retire(session)

    def after_fork_in_parent(self) -> None:
        """Let the other threads continue."""
        self._mutex.release()
        if self._paused is not None:
            self._paused.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Start again with no connections; keep those that could not be closed for ever, untouched."""
        if self._paused is not None:
            self._paused.after_fork_in_child()
            self.copy = None
        inherited = [session for session in listed(self._leases) if not session.closed]
        self._inherited = self._inherited or bool(inherited)
        if inherited:
            import ctypes

            for session in inherited:  # closing one here would confuse the parent's, also at exit
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(session.raw))
        self._mutex = threading.RLock()
        self.threads = _Threads()
        self._leases = weakref.WeakSet()
        self._prepared = None
