"""`Database`: lends the calls of this process connections to one SQLite file, and ends their transactions."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from jarvis._disk.locks import WriterLock, listed
from jarvis._sql import lending
from jarvis._sql.lending import Lending
from jarvis._sqlite import engine, forks
from jarvis._sqlite.connection import read_only
from jarvis._sqlite.leader import Leader
from jarvis._sqlite.pool import Lease, Pool
from jarvis._sqlite.store_file import MAX_TRIES, StoreFile
from jarvis._sqlite.version_watch import VersionWatch
from jarvis.errors import (
    CorruptStoreError,
    JarvisError,
    ReadOnlyStoreError,
    StoreBusyError,
    StoreMissingError,
    TransactionError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jarvis._sql.session import Session
    from jarvis.model.store_options import StoreOptions

Result = TypeVar("Result")
Args = TypeVarTuple("Args")

_ERASING_AGAIN_SECONDS = 1.0

_databases: weakref.WeakSet[Database] = weakref.WeakSet()


class Database(Lending[Lease]):
    """The file at `path` and this process's connections to it; all namespaces of a store share it.

    It is the `jarvis._sql.lender.Lender` of SQLite.

    Args:
        path: the store's file.
        options: with `read_only` nothing is written, not even a lock file. Encryption and keys are those at opening;
            `jarvis._sqlite.vault.Vault` has those of now.
    """

    pool: Pool
    lock: WriterLock
    leader: Leader

    def __init__(self, path: Path, options: StoreOptions) -> None:
        self.file = StoreFile(path, options)
        self.options = options
        self.vault, self.path, self.lock = self.file.vault, self.file.path, self.file.lock
        self.read_only = options.read_only
        self.busy_timeout_seconds = options.busy_timeout_seconds
        self.pool = Pool(self.file, options.histories)
        self._versions = VersionWatch(self.pool)
        self.leader = Leader(self.pool, self._commit, self._finish_inside, options.busy_timeout_seconds)
        self._finish_after = 0.0  # monotonic time before which writers do not try again to finish an erasure
        _databases.add(self)
        forks.take_care_of(self)

    # --- for the backend -------------------------------------------------------------------------

    def read(self, work: Callable[[Lease, *Args], Result], *args: *Args) -> Result:
        """Run `work` with the calling thread's connection, opened if need be, and `args`; return its result.

        A call that interrupts another one of its thread, or another task's transaction, gets a connection of its own,
        which sees the last commit.

        Raises:
            StoreError: the store cannot be read.
            TransactionError: this call interrupts one that is opening the store.
        """
        thread = self.pool.threads.here
        session = thread.session
        is_alone = thread.call is None and (session is None or not session.depth or session.joined)
        # While a change is made nobody else can read on its connection, so nothing needs to be checked.
        if is_alone and session is not None and session.joined and self.lock.is_mine():
            try:
                thread.call = sys._getframe()
                return work(session, *args)
            finally:
                thread.call = None
        if not is_alone and self._is_aside(thread):
            with self.snapshot() as session:
                return work(session, *args)
        try:
            thread.call = sys._getframe()
            for attempt in range(MAX_TRIES):
                session = self.pool.enter()
                try:
                    result = work(session, *args)
                    if session.immutable is None or self.pool.is_there(session):
                        return result
                    session.drop()  # a writer came: reads without locks may be torn, so read again
                except CorruptStoreError:
                    if session.depth or (attempt and not self.pool.is_disturbed(session)):
                        raise
                    self.pool.distrust()  # another program may have written: verify the file again, once
                finally:
                    self.pool.leave(session)
        except BaseException:
            if thread.session is None or not thread.session.depth:
                self._put_right(thread)
            raise
        finally:
            thread.call = None
        raise StoreBusyError(
            self.path, "writers keep changing it while it is read from where no lock can be had; retry"
        )

    @contextlib.contextmanager
    def alone(self, patience_seconds: float) -> Iterator[Lease]:
        """Lend the calling thread its connection outside of any transaction, and keep all other writers out.

        Raises:
            StoreError: the store is busy, damaged or gone.
            TransactionError: the caller interrupts another call, or meets another task's transaction.
        """
        thread = self.pool.threads.here
        self._own(thread)
        try:
            thread.call = sys._getframe(2)  # of the function whose block this is
            session = self.pool.enter()
            try:
                session, _ = self._lock_out(session, patience_seconds)
                yield session
            finally:
                self.lock.release()
                self.leader.shared.wake_next()
                self.pool.leave(session)
        except BaseException:
            self._put_right(thread)
            raise
        finally:
            thread.call = None

    def change_at_once(self, work: Callable[[Lease], Result]) -> Result:
        """Run `work` in a transaction of its own that is not synced; inside one of the caller's as a part of that.

        Raises:
            StoreBusyError: another writer has the lock; it was not waited for.
            StoreError, TransactionError: as for `alone`.
        """
        if self.read_only:
            raise self.read_only_error()
        if self.in_transaction():
            return self.within(work)
        with self.alone(0) as session:
            try:
                return self._unsynced(session, work)
            except BaseException:
                session.roll_back(0)
                session.drop()  # an exception from outside may have kept its settings from being put back
                raise

    def _unsynced(self, session: Lease, work: Callable[[Lease], Result]) -> Result:
        """Run `work` in a transaction that waits neither for another program nor for the disk."""
        connection, is_full = session.raw, self.options.durability == "full"
        connection.set_busy_timeout(0)
        if is_full:
            connection.execute("PRAGMA synchronous = NORMAL")
        status = self.file.status()
        session.begin()
        result = work(session)
        session.commit()
        self.file.leave_note(status, self.file.status(), None)
        if is_full:
            connection.execute("PRAGMA synchronous = FULL")
        connection.set_busy_timeout(int(self.busy_timeout_seconds * 1000))
        return result

    def _lock_out(self, session: Lease, patience_seconds: float) -> tuple[Lease, os.stat_result]:
        """Take the writers' lock; return the thread's connection (new if the file was replaced) and the file's status.

        While this waits the connection is idle: a fork or a shutdown may close it. Also if this raises, the caller
        releases the lock and leaves the session that it has.
        """
        while True:
            session.give_back()
            try:
                status = self.file.take_lock(patience_seconds)
            finally:
                session.take()  # before `is_current` looks at it
            if self.pool.is_current(session) and (status.st_dev, status.st_ino) == session.identity:
                return session, status
            self.lock.release()  # to open a connection may need the lock
            self.pool.leave(session)
            session = self.pool.enter()

    def _put_right(self, thread: lending.Thread[Lease]) -> None:
        session = thread.session
        if session is not None:
            if (session.pid, session.thread) != (os.getpid(), threading.get_ident()):
                return
            if not session.closed and (session.depth or session.is_still or session.raw.in_transaction):
                session.roll_back(0)
            self.pool.leave(session)
        self.lock.release()
        self.pool.let_go()
        self.leader.shared.wake_next()

    def announce(self) -> None:
        """Say that the caller's transaction is about to end: its date is read after this."""
        if self.own_session().depth == 1:
            self.lock.announce()

    def await_commit(self) -> None:
        """Wait for the commit that is in progress now, if there is one and it is not the caller's own.

        Raises:
            StoreBusyError: the commit takes too long.
            TransactionError: this call interrupts the one that is committing.
        """
        if not self.in_transaction():
            self.lock.await_commit(self.busy_timeout_seconds)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Lease]:
        """Lend a separate connection, for an iteration that outlives the call; not for transactions."""
        session = self.pool.open_aside() if self._is_aside(self.pool.threads.here) else self.pool.opened_again()
        try:
            try:
                yield session
            finally:
                self.pool.retire(session)
        finally:  # again, see `_put_right`
            self.pool.retire(session)

    def iterate(self, find: Callable[[Session], Iterator[Result]]) -> Iterator[Result]:
        """Yield what `find` yields on a separate connection; not for callers inside a transaction.

        Raises:
            StoreBusyError: a writer came while the connection read without locks.
        """
        with self.file.log_watch.reading(), self.snapshot() as session:
            for result in find(session):
                if self.pool.is_disturbed(session):
                    raise StoreBusyError(self.path, "a writer came while it was read from read-only media; start again")
                session.suspend()
                yield result
                session.resume()

    def version(self, now: int) -> object:
        """Return a value that is equal as long as nobody commits and no entry expires, by the instant `now`.

        None inside a transaction, also of another task of the thread, and in a call that interrupts another one.

        Raises:
            StoreError: the store cannot be read.
        """
        thread = self.pool.threads.here
        if thread.call is not None or (thread.session is not None and thread.session.depth):
            return None
        try:
            thread.call = sys._getframe()
            return self._versions.version(now)
        except CorruptStoreError:  # another program may have written: the read that follows verifies the file
            return None
        except BaseException:
            self._put_right(thread)
            raise
        finally:
            thread.call = None

    def read_only_error(self) -> ReadOnlyStoreError:
        """Return the error for a change of a store that is open for reading only."""
        return read_only(self.path)

    def corrupt(self, finding: str) -> CorruptStoreError:
        """Return the error that says that the store is damaged, and what to do."""
        return engine.corrupt(self.path, finding)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep all writers out during a block, without a transaction.

        Raises:
            TransactionError: the caller interrupts another call, or meets another task's transaction.
        """
        thread = self.pool.threads.here
        self._own(thread)
        try:
            thread.call = sys._getframe(2)  # of the function whose block this is
            self.file.take_lock(self.busy_timeout_seconds)
            yield
        except BaseException:
            self._put_right(thread)
            raise
        finally:
            self.lock.release()
            thread.call = None

    def check_may_rewrite(self) -> None:
        """Raise our error if the caller may not replace files: the store is read-only, or a transaction is open."""
        if self.read_only:
            raise self.read_only_error()
        if self._own(self.pool.threads.here):
            raise TransactionError(f"{self.path}: that cannot be done inside a transaction; leave it first")

    def shutdown(self) -> None:
        """Close idle connections, let the others close when they are returned, and fold the log into the file.

        If this interrupts a call of its thread, the connection of that call closes later and the log stays.

        Raises:
            TransactionError: the caller has a transaction open.
        """
        if self.in_transaction():
            raise TransactionError(f"{self.path}: shutdown() inside a transaction; leave the transaction first")
        if self._is_aside(self.pool.threads.here):  # the interrupted call may hold the pool's mutex and the lock
            self.pool.close_all_later()
            return
        thread = self.pool.threads.here
        try:
            thread.call = sys._getframe()
            self.pool.close_idle()
        except BaseException:
            self._put_right(thread)
            raise
        finally:
            thread.call = None

    # --- a call ----------------------------------------------------------------------------------

    def _commit(self, session: Lease, status: os.stat_result) -> None:
        """Commit, given the file's status when the lock was taken."""
        clock, is_full = session.clock, self.options.durability == "full"
        is_synced = is_full and clock.commit_number != clock.began
        if clock.found and is_full and not is_synced and not self.file.is_synced(clock.found, status):
            self.file.sync_log()
            is_synced = True
        session.commit()
        after = self.file.status()  # before the acknowledgement: a write into a removed file is lost
        if (after.st_dev, after.st_ino) != session.identity:
            raise StoreMissingError(self.path, "was replaced while a write was in progress; that write is lost")
        synced = clock.commit_number if is_synced else None
        self.file.leave_note(status, after, synced)

    def finish_erasing(self, patience_seconds: float) -> bool:
        """Remove erased data from the files; return whether nothing is left to do.

        This is postponed inside a transaction, while somebody reads an older state, if it fails, or if other writers
        keep the lock longer than `patience_seconds`. The next writer tries again, after a second, and so does the
        next opening.
        """
        if self.in_transaction():
            return False
        is_done = False
        with contextlib.suppress(StoreBusyError), self.alone(patience_seconds) as session:
            before = self.file.status()
            session.clock.forget()
            is_done = self.file.try_finishing(session.raw)
            if not is_done:
                session.drop()  # as after any failed write
            self.file.leave_note(before, self.file.status(), None)
        self._finish_after = 0.0 if is_done else time.monotonic() + _ERASING_AGAIN_SECONDS
        return is_done

    def _finish_inside(self, session: Lease) -> None:
        self.letting_in(lambda: self._finish_after_commit(session))

    def _finish_after_commit(self, session: Lease) -> None:
        """Finish a pending erasure after a commit, if it is time to try again."""
        if session.clock.erasing and time.monotonic() >= self._finish_after:
            self.finish_erasing(0)

    # --- a fork ----------------------------------------------------------------------------------

    def before_fork(self, deadline: float) -> None:
        """Close every connection that becomes idle before `deadline`, so that a child inherits none."""
        self.pool.before_fork(deadline)

    def after_fork_in_parent(self) -> None:
        """Let the other threads continue."""
        self.pool.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Start again with no connections."""
        self.pool.after_fork_in_child()
        self.leader.start_again()


@atexit.register
def _shut_all_down() -> None:
    """Fold the logs in when the interpreter ends; nothing is lost if this does not run."""
    for database in listed(_databases):
        with contextlib.suppress(JarvisError):
            database.shutdown()
