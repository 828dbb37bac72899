"""One SQLite file as this process has it open: which connection a call is lent, and how its transaction ends."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from jarvis._calls.caller import current_task, foreign_task, no_transaction
from jarvis._disk.locks import listed
from jarvis._sqlite import driver, forks
from jarvis._sqlite.connection import read_only
from jarvis._sqlite.leader import Leader
from jarvis._sqlite.pool import Lease, Pool, Thread
from jarvis._sqlite.shared_commit import NOT_MADE, Write
from jarvis._sqlite.store_file import MAX_TRIES, StoreFile
from jarvis.errors import (
    CorruptStoreError,
    JarvisError,
    ReadOnlyStoreError,
    StoreAccessError,
    StoreBusyError,
    StoreMissingError,
    TransactionError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from types import FrameType

    from jarvis._sql.session import Session
    from jarvis.model.store_options import StoreOptions

Result = TypeVar("Result")
Args = TypeVarTuple("Args")

_ERASING_AGAIN_SECONDS = 1.0

_databases: weakref.WeakSet[Database] = weakref.WeakSet()


class Database:
    """The file at `path` and this process's connections to it; shared by all namespaces of a store.

    Args:
        path: the store's file.
        options: read-only: nothing is written, not even a lock file. Its encryption and keys are as it was opened with;
            as they are by now: `jarvis._sqlite.vault.Vault`.
    """

    def __init__(self, path: Path, options: StoreOptions) -> None:
        self.file = StoreFile(path, options)
        self.options = options
        self.vault, self.path, self.lock = self.file.vault, self.file.path, self.file.lock
        self.read_only = options.read_only
        self.busy_timeout_seconds = options.busy_timeout_seconds
        self.pool = Pool(self.file, options.history)
        self._leader = Leader(self.pool, self._commit, self._behind, options.busy_timeout_seconds)
        self._finish_after = 0.0  # the time of the monotonic clock from which on an erasure is finished by writers
        _databases.add(self)
        forks.take_care_of(self)

    # --- for the backend -------------------------------------------------------------------------

    def read(self, work: Callable[[Lease, *Args], Result], *args: *Args) -> Result:
        """Return what `work` returns, given the calling thread's connection, opened if need be, and `args`.

        Who interrupts a call of the thread, or another task's transaction on it, is lent a connection of its own,
        which sees the last commit.

        Raises:
            StoreError: whatever is wrong with the store.
            TransactionError: the call that this one interrupts is just opening the store.
        """
        thread = self.pool.threads.here
        session = thread.session
        # What a change asks, which is most of what is asked inside a transaction, nobody else can ask.
        is_alone = thread.call is None and (session is None or not session.depth or session.joined)
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
                    session.drop()  # a writer came: what was read without locks may be torn, so read again
                except CorruptStoreError:
                    if session.depth or (attempt and session.immutable is None):
                        raise
                    self.pool.distrust()  # another program may have written: look at the whole again, once
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

    def _is_aside(self, thread: Thread) -> bool:
        """Tell whether the caller may not use the thread's connection: a call, or another task's transaction, does."""
        return (thread.call is not None and thread.is_closed()) or self._is_of_another_task(thread.session)

    def _is_of_another_task(self, session: Lease | None) -> bool:
        # While a change is made no other task runs, so that need not be asked again and again.
        return bool(
            session is not None
            and session.depth
            and not session.joined
            and session.task is not current_task()
            and self.lock.is_mine()
        )

    def _own(self, thread: Thread) -> Lease | None:
        """Return the connection on which the caller, who is about to write, has a transaction open, or None.

        Raises:
            TransactionError: it interrupts a call, or meets another task's transaction.
        """
        if thread.call is not None:
            thread.check(self.path)
        session = thread.session
        if session is None or not session.depth or not self.lock.is_mine():
            return None
        if not session.joined and session.task is not current_task():
            raise foreign_task(self.path)
        return session

    def changing(self) -> AbstractContextManager[Lease]:
        """Lend the calling thread its connection inside a transaction, or a savepoint of the open one.

        Committed when the block is left, rolled back when it raises anything. Nobody else takes part in it: neither
        who interrupts the function that this is called in, nor another task.

        Raises:
            StoreError: the store is read-only, busy, full, damaged or gone; nothing of the block was kept.
            TransactionError: it interrupts another call, or meets another task's transaction; or this process was
                forked inside the block.
        """
        return self._begun(sys._getframe(1))

    def transaction(self) -> AbstractContextManager[Lease]:
        """Do as `changing` does, for a block in which the calling task calls other verbs, which take part in it."""
        return self._begun(None)

    @contextlib.contextmanager
    def _begun(self, call: FrameType | None) -> Iterator[Lease]:
        if self.read_only:
            raise read_only(self.path)
        thread = self.pool.threads.here
        own = self._own(thread)
        level = 0 if own is None else own.depth
        closing = call or sys._getframe()
        try:
            thread.call = closing
            session = self.pool.enter()
            try:
                if not level:
                    session, before = self._lock_out(session, self.busy_timeout_seconds)
                session.begin()
                if not level:
                    session.belong_to(current_task())
                    if call:
                        self.lock.announce()
                thread.call = call
                yield session
                thread.call = closing
                self._check_leaving(session, level)
                if level:
                    session.commit()
                else:
                    self._commit(session, before)
            except BaseException as error:
                thread.call = closing
                if session.pid == os.getpid():
                    session.roll_back(level)
                if isinstance(error, (StoreAccessError, CorruptStoreError, ReadOnlyStoreError)):
                    session.drop()
                raise
            finally:
                if not level:
                    session.belong_to(None)
                    self.lock.release_for((session.pid, session.thread))
                    self._leader.shared.wake_next()
                self.pool.leave(session)
        except BaseException:
            if own is None:
                self._put_right(thread)
            else:
                own.roll_back(level)
            raise
        finally:
            thread.call = None
            del closing  # or the frame would hold itself until the garbage collector comes
        if not level:
            self._finish_behind(session)

    @contextlib.contextmanager
    def alone(self, patience_seconds: float) -> Iterator[Lease]:
        """Lend the calling thread its connection, outside of any transaction, and keep all other writers out.

        Raises:
            StoreError: the store is busy, damaged or gone.
            TransactionError: it interrupts another call, or meets another task's transaction.
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
                self._leader.shared.wake_next()
                self.pool.leave(session)
        except BaseException:
            self._put_right(thread)
            raise
        finally:
            thread.call = None

    def _lock_out(self, session: Lease, patience_seconds: float) -> tuple[Lease, os.stat_result]:
        """Take the writers' lock; return the thread's connection, a new one if the file was replaced, and its status.

        While the connection waits it is idle: a fork, or a shutdown, may close it. Also if this raises, whoever calls
        this releases the lock and leaves the session that it knows of.
        """
        while True:
            session.give_back()
            try:
                status = self.file.take_lock(patience_seconds)
            finally:
                session.take()  # before it is looked at, see `Pool.enter`
            if self.pool.is_current(session) and (status.st_dev, status.st_ino) == session.identity:
                return session, status
            self.lock.release()  # what is opened may need the lock itself
            self.pool.leave(session)
            session = self.pool.enter()

    def change(self, work: Callable[[Lease, *Args], Result], *args: *Args) -> Result:
        """Return what `work` returns, given a connection and `args`; what it changes is kept whole or not at all.

        Inside the calling task's transaction it is part of that. Elsewhere it may be done by another
        thread, together with what other threads change, and is on the disk when this returns. It may be
        called twice, and uses no other store. What interrupts it takes no part in it, see also `letting_in`.

        Raises:
            StoreError: the store is read-only, busy, full, damaged or gone; nothing of `work` was kept.
            TransactionError: it interrupts another call, or meets another task's transaction.
        """
        thread = self.pool.threads.here
        session = thread.session
        if thread.call is not None or session is None or not session.joined or not self.lock.is_mine():
            session = self._own(thread)  # else it is a part of the change that this thread is making
        if session is None:
            result: Result = self._share(Write(work, args, NOT_MADE), thread)
            return result
        try:
            thread.call = sys._getframe()
            return work(session, *args) if session.joined else session.join(work, session, *args)
        finally:
            thread.call = None

    def _share(self, write: Write, thread: Thread) -> Any:
        if self.read_only:
            raise read_only(self.path)
        leader = self._leader
        try:
            thread.call = sys._getframe()
            return leader.shared.make(write, leader.lead, leader.be_ready)
        except BaseException:
            self._put_right(thread)
            raise
        finally:
            thread.call = None

    def _put_right(self, thread: Thread) -> None:
        """End what an exception, raised from outside at any place, has left of a call that was in no transaction.

        Each end of a call is written down twice, where it belongs and here: one exception keeps at most one of the two
        from being reached. It may find nothing to do, which is what it finds mostly.
        """
        session = thread.session
        if session is not None:
            if (session.pid, session.thread) != (os.getpid(), threading.get_ident()):
                return
            if not session.closed and (session.depth or session.is_still or session.raw.in_transaction):
                session.roll_back(0)
            self.pool.leave(session)
        self.lock.release()
        self.pool.let_go()
        self._leader.shared.wake_next()

    def within(self, work: Callable[[Lease], Result]) -> Result:
        """Return what `work` returns, lent the connection on which the caller has a transaction open.

        Raises:
            TransactionError: it has none.
        """
        session, thread = self.own_session(), self.pool.threads.here
        try:
            thread.call = sys._getframe()
            return work(session)
        finally:
            thread.call = None

    def own_session(self) -> Lease:
        """Return the connection on which the caller has a transaction open; raise `TransactionError` if it has none."""
        thread = self.pool.threads.here
        session = thread.session
        if session is not None and session.joined and thread.call is None and self.lock.is_mine():
            return session  # of a change that this thread is making: the same, at less cost
        session = self._own(thread)
        if session is None:
            raise no_transaction(self.path)
        return session

    def announce(self) -> None:
        """Say that the caller's transaction is about to end: what it is dated by is read after this."""
        if self.own_session().depth == 1:
            self.lock.announce()

    def await_commit(self) -> None:
        """Return when the commit is over that is in flight now, if there is any, unless it is the caller's own.

        Raises:
            StoreBusyError: it takes too long.
            TransactionError: the call that this one interrupts is just making it.
        """
        if not self.in_transaction():
            self.lock.await_commit(self.busy_timeout_seconds)

    def change_as_one(self, work: Callable[[], Result]) -> Result:
        """Return what `work` returns, as `change` does; the verbs that it calls take part in the change."""
        thread = self.pool.threads.here
        session = thread.session
        may_be_inside = thread.call is not None or (session is not None and session.depth > 0)
        session = self._own(thread) if may_be_inside else None
        if session is None:
            result: Result = self._share(Write(work, (), NOT_MADE, lets_in=True), thread)
            return result
        return work() if session.joined else session.join(work)

    def letting_in(self, work: Callable[[], Result]) -> Result:
        """Return what `work` returns, which is called inside `change` and calls other verbs, which take part in it."""
        thread = self.pool.threads.here
        call = thread.call
        try:
            thread.call = None
            return work()
        finally:
            thread.call = call

    def _check_leaving(self, session: Lease, level: int) -> None:
        if session.pid != os.getpid():
            raise TransactionError(f"{self.path}: forked inside the transaction, which belongs to the parent process")
        if session.thread != threading.get_ident():
            raise TransactionError(
                f"{self.path}: a transaction was left in another thread than it was entered in; nothing of it was kept"
            )
        if session.task is not current_task():
            raise TransactionError(
                f"{self.path}: a transaction was left in another task than it was entered in; nothing of it was kept"
            )
        if session.depth != level + 1:
            raise TransactionError(f"{self.path}: a transaction was left before one that was entered inside it")

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Lease]:
        """Lend a connection of its own, for an iteration that outlives the call; not for transactions."""
        session = self.pool.open_aside() if self._is_aside(self.pool.threads.here) else self.pool.opened_again()
        try:
            try:
                yield session
            finally:
                self.pool.retire(session)
        finally:  # again, see `_put_right`
            self.pool.retire(session)

    def iterate(self, find: Callable[[Session], Iterator[Result]]) -> Iterator[Result]:
        """Yield what `find` yields when lent a connection of its own; not for who is inside a transaction.

        Raises:
            StoreBusyError: it reads without locks and met a writer.
        """
        with self.file.log_watch.reading(), self.snapshot() as session:
            for found in find(session):
                if self.pool.is_disturbed(session):
                    raise StoreBusyError(self.path, "a writer came while it was read from read-only media; start again")
                session.suspend()
                yield found
                session.resume()

    def corrupt(self, finding: str) -> CorruptStoreError:
        """Return the error that says that the store is damaged, and the way out."""
        return driver.corrupt(self.path, finding)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep all writers out, for something else than a transaction.

        Raises:
            TransactionError: it interrupts another call, or meets another task's transaction.
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
        """Raise the error of who may not replace files of the store: a reader, or somebody inside a transaction."""
        if self.read_only:
            raise read_only(self.path)
        if self._own(self.pool.threads.here):
            raise TransactionError(f"{self.path}: that cannot be done inside a transaction; leave it first")

    def in_transaction(self) -> Lease | None:
        """Return the connection on which the caller has a transaction open, or None.

        It has none if it interrupts a call that has, or is another task than the one that opened it.
        """
        thread = self.pool.threads.here
        session = thread.session
        if session is None or not session.depth or not self.lock.is_mine() or self._is_aside(thread):
            return None
        return session

    def shutdown(self) -> None:
        """Close what is idle, let the rest close itself when it is done, and fold the log into the file.

        If it interrupts a call of its thread, that is one of the rest, and the log stays.

        Raises:
            TransactionError: the caller has a transaction open.
        """
        if self.in_transaction():
            raise TransactionError(f"{self.path}: shutdown() inside a transaction; leave the transaction first")
        if self._is_aside(self.pool.threads.here):  # it may have the pool's mutex and the lock
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
        session.commit()
        after = self.file.status()  # before anything is acknowledged: a write into a removed file is none
        if (after.st_dev, after.st_ino) != session.identity:
            raise StoreMissingError(self.path, "was replaced while a write was in progress; that write is lost")
        synced = session.clock.commit_number if self.options.durability == "full" else None
        self.file.leave_word(status, after, synced)

    def finish_erasing(self, patience_seconds: float) -> bool:
        """Clean the files of what was erased; return whether nothing is left to do.

        Inside a transaction, while a reader of an older state hinders it, if it fails, or if other writers keep the
        lock for so long, that is later: the next writer tries again, after a second, and so does the next opening.
        """
        if self.in_transaction():
            return False
        is_done = False
        with contextlib.suppress(StoreBusyError), self.alone(patience_seconds) as session:
            before = self.file.status()
            session.clock.forget()
            is_done = self.file.try_finishing(session.raw)
            if not is_done:
                session.drop()  # as behind any failed write
            self.file.leave_word(before, self.file.status(), None)
        self._finish_after = 0.0 if is_done else time.monotonic() + _ERASING_AGAIN_SECONDS
        return is_done

    def _behind(self, session: Lease) -> None:
        self.letting_in(lambda: self._finish_behind(session))

    def _finish_behind(self, session: Lease) -> None:
        """Let a commit be followed by what is to be done about an erasure, if anything is."""
        if session.clock.erasing and time.monotonic() >= self._finish_after:
            self.finish_erasing(0)

    # --- a fork ----------------------------------------------------------------------------------

    def before_fork(self, deadline: float) -> None:
        """Close every connection that can be closed until `deadline`, so that a child inherits none."""
        self.pool.before_fork(deadline)

    def after_fork_in_parent(self) -> None:
        """Let the other threads go on."""
        self.pool.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Start anew."""
        self.pool.after_fork_in_child()
        self._leader.begin_anew()


@atexit.register
def _shut_all_down() -> None:
    """Fold the logs in when the interpreter ends; nothing is lost where this does not happen."""
    for database in listed(_databases):
        with contextlib.suppress(JarvisError):
            database.shutdown()
