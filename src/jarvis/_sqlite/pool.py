"""The connections of one process to one SQLite file: a thread gets one at its first call and loses it when it ends.

Before a fork every idle connection is closed and calls in progress are waited for, because SQLite's picture of its
own locks is shared by all connections of a process and would be inherited wrong
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

from jarvis._calls.caller import Gate, holding, let_go
from jarvis._disk.files import Stamp
from jarvis._disk.locks import listed
from jarvis._sql import registry
from jarvis._sql.names import NameBook
from jarvis._sql.session import Session
from jarvis._sqlite import driver
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
    from jarvis.model.options import HistoryPolicy


class Lease(Session):
    """A session on a connection of its own. Only the thread that owns it calls its methods,
    except `close`, which anybody may call while `busy` is 0.

    Attributes:
        raw: the driver's connection.
        busy: how many calls and iterations use the connection just now.
        epoch: the `Pool.epoch` it was opened in; another one there means that it is stale, None that it is dropped.
        identity: (device, inode) of the file it has open.
        immutable: None, or the stamp of a file that it reads without locks: right only while nobody writes.
        is_suspended: it belongs to an iteration that has handed out an entry, and may be left open for ever.
        task: which has the transaction open, see `jarvis._calls.caller.current_task`, if other verbs take part in it.
        pid: of the process that opened it.
        thread: that uses it.
        closed: whether it is.
        guard: held by whoever closes the connection, or uses another thread's.
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
        history: HistoryPolicy,
    ) -> None:
        self._connection = Connection(raw, path)
        super().__init__(self._connection, book, history, registry.SIDE_TABLES)
        self.raw = raw
        self.epoch: int | None = epoch
        self.identity = identity
        self.immutable = immutable
        self.pid, self.thread = os.getpid(), threading.get_ident()
        self.busy = 1  # whoever opens it uses it: before that a fork could close it
        self.task: object = None
        self.closed = self.is_suspended = False
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

    def belong_to(self, task: object) -> None:
        """Let its transaction be one of a task, None for one that has ended."""
        self.task = task

    def suspend(self) -> None:
        """Be left alone by an iteration, perhaps for ever."""
        self.is_suspended = True

    def resume(self) -> None:
        """Be used by the iteration again."""
        self.is_suspended = False

    def drop(self) -> None:
        """Let it be closed when nobody uses it: after a failed write or sync nothing is known of it."""
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
        with contextlib.suppress(apsw.BusyError):  # of readers: what they do not need was folded in
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
    """Lives in a thread's locals; when the thread ends it goes, and takes the connection along."""

    def __init__(self, pool: Pool, session: Lease) -> None:
        self._pool = weakref.ref(pool)
        self._session = session

    def __del__(self) -> None:
        pool = self._pool()
        if pool is not None and self._session.pid == os.getpid():
            with contextlib.suppress(StoreError):  # the interpreter ends, and a daemon thread was inside a statement
                pool.retire(self._session)


class Thread(Gate):
    """What a thread has of a store: its connection, and the call that is in the middle of something."""

    __slots__ = ("end", "session")

    def __init__(self) -> None:
        super().__init__()
        self.session: Lease | None = None
        self.end: _ThreadEnd | None = None

    def lend(self, session: Lease, end: _ThreadEnd | None = None) -> None:
        """Let this be the thread's connection, to be retired with `end`."""
        self.session, self.end = session, end or self.end


class _Threads(threading.local):
    """What each thread has; `here` is of the calling one."""

    def __init__(self) -> None:
        self.here = Thread()


class Pool:
    """The connections to one file.

    Args:
        file: what they are to.
        history: how much of the past is kept.

    Attributes:
        epoch: another number each time that all connections become stale.
        threads: its `here` is what the calling thread has.
        copy: of the store, that is made just now.
    """

    def __init__(self, file: StoreFile, history: HistoryPolicy) -> None:
        self.file, self.path, self.lock, self.read_only = file, file.path, file.lock, file.read_only
        self._history = history
        self.epoch = 0
        self.threads = _Threads()
        self.copy: CopyFile | None = None
        self._mutex = threading.RLock()  # never waited for by whoever has the writers' lock: who opens takes both
        self._leases: weakref.WeakSet[Lease] = weakref.WeakSet()  # one that an interrupt has left to nobody goes
        self._book = NameBook()
        self._prepared: tuple[int, int] | None = None  # identity of the file that was checked at opening
        self._inherited = False
        self._paused: CopyFile | None = None  # by a fork

    # --- a call ----------------------------------------------------------------------------------

    def enter(self, *, look: bool = True) -> Lease:
        """Return the calling thread's connection, opened if need be; whoever calls this calls `_leave`.

        With ``look=False`` the caller sees to it that the connection still is one to the file of that name.
        """
        session = self.threads.here.session
        if session is not None and session.pid != os.getpid():
            raise self.forked()
        if session is not None:
            # Who closes connections (shutdown, fork) raises epoch first and looks at busy then; in
            # this order at least one of the two sees the other.
            if session.depth and not self.lock.is_mine() and not self.read_only:
                session.roll_back(0)  # an exception from outside tore a transaction away from its end
            if not session.depth:
                session.busy = 0
                if session.is_still:  # an exception from outside kept a reader from ending that
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
        """Tell whether a connection is of today, and open."""
        return session.epoch == self.epoch and not session.closed

    def is_there(self, session: Lease) -> bool:
        """Tell whether the path still names the file that `session` has open; raise if it names none."""
        status = self.file.status()
        if (status.st_dev, status.st_ino) != session.identity:
            return False
        return session.immutable is None or (Stamp.of(status) == session.immutable and not self.file.has_log())

    def is_disturbed(self, session: Lease) -> bool:
        """Tell whether what reads without locks met a writer: what it read may be torn."""
        return session.immutable is not None and not self.is_there(session)

    def retire(self, session: Lease) -> None:
        """Close a connection that no call uses any more."""
        session.busy = 0
        try:
            session.close()  # it is known as long as somebody may wait for its guard, see `let_go`
        finally:
            self._leases.discard(session)

    def distrust(self) -> None:
        """Let every connection be opened anew, and the file be verified before."""
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
                self._book = NameBook()  # what comes now may be another file, with other ids
                self._prepared = Opening(self.file).prepare()
            try:
                connection, status, immutable = self.file.opened()
            except apsw.Error as error:
                raise driver.translated(self.path, error, "open the store") from error
            if self._prepared == (status.st_dev, status.st_ino):
                break
            connection.close()  # somebody put another file in its place
            self.epoch += 1
            self._prepared = None
        else:
            raise StoreBusyError(self.path, "was replaced again and again while it was opened; retry")
        return self._lease(connection, status, immutable)

    def opened_again(self) -> Lease:
        """Return a new connection; what seems damaged is looked at as a whole again, once, as `read` does."""
        try:
            return holding(self._mutex, self.open)
        except CorruptStoreError:
            self.distrust()
            return holding(self._mutex, self.open)

    def open_aside(self) -> Lease:
        """Return a new connection for who interrupts a call of the thread, which may have the mutex and the lock."""
        if self._prepared is None or (self.lock.is_mine() and self.lock.is_swap_open()):
            raise TransactionError(
                f"{self.path}: this call interrupts another one of its thread that is just opening the store, and "
                "cannot be answered; call again when that has returned"
            )
        try:
            connection, status, immutable = self.file.opened()
        except apsw.Error as error:
            raise driver.translated(self.path, error, "open the store") from error
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
        """Return the error of a child whose parent was in the middle of something."""
        return TransactionError(
            f"{self.path}: this process was forked while its parent was inside a call or transaction on the store; "
            "fork outside of them, or start processes with spawn"
        )

    # --- closing ---------------------------------------------------------------------------------

    def close_idle(self) -> None:
        """Close what is idle, let the rest close itself when it is done, and fold the log into the file."""
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
        """Let every connection close itself when nobody uses it; for who may wait for nothing."""
        self.epoch += 1

    def let_go(self) -> None:
        """Release what an exception from outside has left locked by the calling thread."""
        for mutex in (self._mutex, *(each.guard for each in listed(self._leases))):
            let_go(mutex)

    def open_at_once(self) -> Lease | None:
        """Return a new connection, for who may wait for nobody; None if that would take a wait."""
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
            *others, last = idle
            for session in others:
                self.retire(session)
            if last.identity != (status.st_dev, status.st_ino):
                return  # another file has its place, and the log that has its name is of that one
            if not holding(last.guard, last.fold_log):
                return
            self.retire(last)
            self.file.leave_word(status, self.file.status(), None)
        except (apsw.BusyError, StoreBusyError):
            pass  # somebody reads or writes: the log stays, and a later checkpoint folds it in
        except apsw.Error as error:
            self.file.warn("the log of %s stays beside it, nothing is lost: %s", self.path, type(error).__name__)
        finally:
            self.lock.release()

    # --- a fork ----------------------------------------------------------------------------------

    def before_fork(self, deadline: float) -> None:
        """Close every connection that can be closed until `deadline`, so that a child inherits none."""
        self._paused = self.copy
        if self._paused is not None:
            self._paused.before_fork(deadline)
        self._mutex.acquire()
        self.epoch += 1
        for session in listed(self._leases):
            mine = session.thread == threading.get_ident()
            while session.busy and not mine and not session.is_suspended and time.monotonic() < deadline:
                time.sleep(0.001)
            if not session.busy:
                with contextlib.suppress(StoreError):  # then it counts as one that could not be closed
                    self.retire(session)

    def after_fork_in_parent(self) -> None:
        """Let the other threads go on."""
        self._mutex.release()
        if self._paused is not None:
            self._paused.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Start anew; connections that could not be closed are kept for ever, untouched."""
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
