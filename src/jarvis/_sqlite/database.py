"""One SQLite file as this process has it open: a connection per thread, made, checked and closed here.

Process model. A thread gets a connection at its first call and loses it when it ends. Before a fork
every idle connection is closed and calls in progress are waited for, because SQLite's picture of its
own locks is shared by all connections of a process and would be inherited wrong
(https://sqlite.org/howtocorrupt.html, "Carrying an open database connection across a fork()").
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import apsw

from jarvis._calls.caller import Gate, current_task, foreign_task, holding, let_go, no_transaction
from jarvis._disk.files import Stamp
from jarvis._disk.locks import listed
from jarvis._sqlite import driver
from jarvis._sqlite.session import NameBook, Session, read_only
from jarvis._sqlite.shared_commit import Commit, SharedCommit, Write
from jarvis._sqlite.store_file import MAX_TRIES, StoreFile
from jarvis.errors import (
    CorruptStoreError,
    JarvisError,
    ReadOnlyStoreError,
    StoreAccessError,
    StoreBusyError,
    StoreError,
    StoreMissingError,
    TransactionError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from types import FrameType

    from jarvis._sqlite.replace.copy_file import CopyFile
    from jarvis.encryption.data_key import DataKey
    from jarvis.keys import KeySource
    from jarvis.model.options import Encryption, HistoryPolicy

Result = TypeVar("Result")

FORK_PATIENCE_SECONDS = 10.0
_ERASING_AGAIN_SECONDS = 1.0

_databases: weakref.WeakSet[Database] = weakref.WeakSet()


class _ThreadEnd:
    """Lives in a thread's locals; when the thread ends it goes, and takes the connection along."""

    def __init__(self, database: Database, session: Session) -> None:
        self._database = weakref.ref(database)
        self._session = session

    def __del__(self) -> None:
        database = self._database()
        if database is not None and self._session.pid == os.getpid():
            with contextlib.suppress(StoreError):  # the interpreter ends, and a daemon thread was inside a statement
                database.retire(self._session)


class _Thread(Gate):
    """What a thread has of a database: its connection, and the call that is in the middle of something."""

    __slots__ = ("end", "session")

    def __init__(self) -> None:
        super().__init__()
        self.session: Session | None = None
        self.end: _ThreadEnd | None = None


class _Threads(threading.local):
    """What each thread has; `here` is of the calling one."""

    def __init__(self) -> None:
        self.here = _Thread()


class Database:
    """The file at `path` and this process's connections to it; shared by all namespaces of a store.

    Args:
        path: the store's file.
        read_only: nothing is written, not even a lock file.
        durability: ``full`` or ``normal``, see `jarvis._sqlite.driver.connect`.
        busy_timeout_seconds: how long a writer waits for another one.
        history: how much of the past is kept.
        encryption: whether a new store is encrypted, and a plain one refused, see `jarvis._sqlite.vault.Vault`.
        keys: the sources of its keys.
        create: make a store that is not there.
    """

    def __init__(
        self,
        path: Path,
        *,
        read_only: bool,
        durability: str,
        busy_timeout_seconds: float,
        history: HistoryPolicy,
        encryption: Encryption,
        keys: Sequence[KeySource],
        create: bool = True,
    ) -> None:
        self._file = StoreFile(
            path,
            read_only=read_only,
            durability=durability,
            busy_timeout_seconds=busy_timeout_seconds,
            encryption=encryption,
            keys=keys,
            create=create,
        )
        self.create = create
        self.vault = self._file.vault
        self.file, self.path, self.lock = self._file, self._file.path, self._file.lock
        self.copy: CopyFile | None = None  # that is made of it just now
        self.read_only = read_only
        self.durability = durability
        self.busy_timeout_seconds = busy_timeout_seconds
        self.history = history
        self.epoch = 0
        self._shared = SharedCommit(self.lock, busy_timeout_seconds)
        self._threads = _Threads()
        self._mutex = threading.RLock()  # never waited for by whoever has the writers' lock: who opens takes both
        self._sessions: set[Session] = set()
        self._names = NameBook()
        self._writer: Session | None = None  # lent to whoever leads while threads take turns
        self._prepared: tuple[int, int] | None = None  # identity of the file that was checked at opening
        self._inherited = False
        self._paused: CopyFile | None = None  # by a fork
        self._finish_after = 0.0  # the time of the monotonic clock from which on an erasure is finished by writers
        _databases.add(self)

    # --- for the backend -------------------------------------------------------------------------

    def read(self, work: Callable[[Session], Result]) -> Result:
        """Return what `work` returns when lent the calling thread's connection, opened if need be.

        Who interrupts a call of the thread, or another task's transaction on it, is lent a connection of its own,
        which sees the last commit.

        Raises:
            StoreError: whatever is wrong with the store.
            TransactionError: the call that this one interrupts is just opening the store.
        """
        thread = self._threads.here
        session = thread.session
        # What a change asks, which is most of what is asked inside a transaction, nobody else can ask.
        is_alone = thread.call is None and (session is None or not session.depth or session.joined)
        if is_alone and session is not None and session.joined and self.lock.is_mine():
            try:
                thread.call = sys._getframe()
                return work(session)
            finally:
                thread.call = None
        if not is_alone and self._is_aside(thread):
            with self.snapshot() as session:
                return work(session)
        try:
            thread.call = sys._getframe()
            for attempt in range(MAX_TRIES):
                session = self._enter()
                try:
                    result = work(session)
                    if session.immutable is None or self._is_there(session):
                        return result
                    session.epoch = -1  # a writer came: what was read without locks may be torn, so read again
                except CorruptStoreError:
                    if session.depth or (attempt and session.immutable is None):
                        raise
                    self._distrust()  # another program may have written: look at the whole again, once
                finally:
                    self._leave(session)
        except BaseException:
            if thread.session is None or not thread.session.depth:
                self._put_right(thread)
            raise
        finally:
            thread.call = None
        raise StoreBusyError(
            self.path, "writers keep changing it while it is read from where no lock can be had; retry"
        )

    def _is_aside(self, thread: _Thread) -> bool:
        """Tell whether the caller may not use the thread's connection: a call, or another task's transaction, does."""
        return (thread.call is not None and thread.is_closed()) or self._is_of_another_task(thread.session)

    def _is_of_another_task(self, session: Session | None) -> bool:
        # While a change is made no other task runs, so that need not be asked again and again.
        return bool(
            session is not None
            and session.depth
            and not session.joined
            and session.task is not current_task()
            and self.lock.is_mine()
        )

    def _own(self, thread: _Thread) -> Session | None:
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

    def _distrust(self) -> None:
        """Let every connection be opened anew, and the file be verified before."""
        with self._mutex:
            self.epoch += 1
            self._prepared = None

    def changing(self) -> AbstractContextManager[Session]:
        """Lend the calling thread its connection inside a transaction, or a savepoint of the open one.

        Committed when the block is left, rolled back when it raises anything. Nobody else takes part in it: neither
        who interrupts the function that this is called in, nor another task.

        Raises:
            StoreError: the store is read-only, busy, full, damaged or gone; nothing of the block was kept.
            TransactionError: it interrupts another call, or meets another task's transaction; or this process was
                forked inside the block.
        """
        return self._begun(sys._getframe(1))

    def transaction(self) -> AbstractContextManager[Session]:
        """Do as `changing` does, for a block in which the calling task calls other verbs, which take part in it."""
        return self._begun(None)

    @contextlib.contextmanager
    def _begun(self, call: FrameType | None) -> Iterator[Session]:
        if self.read_only:
            raise read_only(self.path)
        thread = self._threads.here
        own = self._own(thread)
        level = 0 if own is None else own.depth
        closing = call or sys._getframe()
        try:
            thread.call = closing
            session = self._enter()
            try:
                if not level:
                    session, before = self._lock_out(session, self.busy_timeout_seconds)
                session.begin()
                if not level:
                    session.task = current_task()
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
                    session.epoch = -1  # after a failed write or sync nothing is known of this connection: drop it
                raise
            finally:
                if not level:
                    self.lock.release_for((session.pid, session.thread))
                    self._shared.wake_next()
                self._leave(session)
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
    def alone(self, patience_seconds: float) -> Iterator[Session]:
        """Lend the calling thread its connection, outside of any transaction, and keep all other writers out.

        Raises:
            StoreError: the store is busy, damaged or gone.
            TransactionError: it interrupts another call, or meets another task's transaction.
        """
        thread = self._threads.here
        self._own(thread)
        try:
            thread.call = sys._getframe(2)  # of the function whose block this is
            session = self._enter()
            try:
                session, _ = self._lock_out(session, patience_seconds)
                yield session
            finally:
                self.lock.release()
                self._shared.wake_next()
                self._leave(session)
        except BaseException:
            self._put_right(thread)
            raise
        finally:
            thread.call = None

    def _lock_out(self, session: Session, patience_seconds: float) -> tuple[Session, os.stat_result]:
        """Take the writers' lock; return the thread's connection, a new one if the file was replaced, and its status.

        While the connection waits it is idle: a fork, or a shutdown, may close it. Also if this raises, whoever calls
        this releases the lock and leaves the session that it knows of.
        """
        while True:
            session.busy -= 1
            try:
                status = self._file.take_lock(patience_seconds)
            finally:
                session.busy += 1  # before it is looked at, see `_enter`
            if self._is_current(session) and (status.st_dev, status.st_ino) == session.identity:
                return session, status
            self.lock.release()  # what is opened may need the lock itself
            self._leave(session)
            session = self._enter()

    def _is_current(self, session: Session) -> bool:
        return session.epoch == self.epoch and not session.closed

    def change(self, work: Callable[[Session], Result]) -> Result:
        """Return what `work` returns, lent a connection; what it changes is kept whole or not at all.

        Inside the calling task's transaction it is part of that. Elsewhere it may be done by another
        thread, together with what other threads change, and is on the disk when this returns. It may be
        called twice, and uses no other store. What interrupts it takes no part in it, see also `letting_in`.

        Raises:
            StoreError: the store is read-only, busy, full, damaged or gone; nothing of `work` was kept.
            TransactionError: it interrupts another call, or meets another task's transaction.
        """
        thread = self._threads.here
        session = self._own(thread)
        if session is None:
            return self._share(work)
        try:
            thread.call = sys._getframe()
            return work(session) if session.joined else self._joined(session, work)
        finally:
            thread.call = None

    def _share(self, work: Callable[[Session], Result]) -> Result:
        if self.read_only:
            raise read_only(self.path)
        thread = self._threads.here
        try:
            thread.call = sys._getframe()
            result: Result = self._shared.make(work, self._lead, self._be_ready)
            return result
        except BaseException:
            self._put_right(thread)
            raise
        finally:
            thread.call = None

    def _put_right(self, thread: _Thread) -> None:
        """End what an exception, raised from outside at any place, has left of a call that was in no transaction.

        Each end of a call is written down twice, where it belongs and here: one exception keeps at most one of the two
        from being reached. It may find nothing to do, which is what it finds mostly.
        """
        session = thread.session
        if session is not None:
            if (session.pid, session.thread) != (os.getpid(), threading.get_ident()):
                return
            if not session.closed and (session.depth or session.is_still or session.connection.in_transaction):
                session.roll_back(0)
            session.joined = False
            self._leave(session)
        self.lock.release()
        for mutex in (self._mutex, *(each.guard for each in list(self._sessions))):
            let_go(mutex)
        self._shared.wake_next()

    def _joined(self, session: Session, work: Callable[[Session], Result]) -> Result:
        """Return what `work` returns, as a part of the transaction that is open."""
        commit, signature = session.commit_number, session.signature
        session.joined = True
        try:
            return work(session)
        except BaseException:
            if session.commit_number != commit:
                session.tear()  # the half of it that was done goes with the transaction it is part of
            raise
        finally:
            session.joined, session.signature = False, signature

    def within(self, work: Callable[[Session], Result]) -> Result:
        """Return what `work` returns, lent the connection on which the caller has a transaction open.

        Raises:
            TransactionError: it has none.
        """
        session, thread = self.own_session(), self._threads.here
        try:
            thread.call = sys._getframe()
            return work(session)
        finally:
            thread.call = None

    def own_session(self) -> Session:
        """Return the connection on which the caller has a transaction open; raise `TransactionError` if it has none."""
        session = self._own(self._threads.here)
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
        session = self._own(self._threads.here)
        if session is None:
            return self._share(lambda _: self.letting_in(work))
        return work() if session.joined else self._joined(session, lambda _: work())

    def letting_in(self, work: Callable[[], Result]) -> Result:
        """Return what `work` returns, which is called inside `change` and calls other verbs, which take part in it."""
        thread = self._threads.here
        call = thread.call
        try:
            thread.call = None
            return work()
        finally:
            thread.call = call

    def _be_ready(self) -> None:
        """Have a connection of the calling thread, so that it need not be opened while its write has the lead."""
        session = self._threads.here.session
        if (
            session is None
            or session.depth
            or session.epoch != self.epoch
            or session.closed
            or session.pid != os.getpid()
            or session.is_still
        ):
            self._leave(self._enter(look=False))

    def _lead(self, own: Write) -> None:
        """Make `own`, and the writes that wait, in one transaction, or leave each to be made alone.

        If there is no connection (any more), as behind a fork or where the file was replaced, nothing is done.
        """
        thread = self._threads.here
        mine = session = thread.session
        if mine is None or session is None:
            return
        commit = Commit([own])
        try:
            try:
                if self._shared.is_crowded and self.lock.is_mine():
                    session = thread.session = self._lend_writer(mine)
                session.is_committed = False
                before = self._file.take_lock(self.busy_timeout_seconds)
                session.busy += 1  # from here on only: while it waits a fork may close it
                if not self._is_current(session) or (before.st_dev, before.st_ino) != session.identity:
                    mine.epoch = session.epoch = -1
                    return
                if own.commit.is_done:  # to open gives the lock back: whoever led meanwhile made it along with theirs
                    return
                commit = self._shared.join(own)
                session.begin()
                self.lock.announce()  # before any of them asks for the time
                session.joined = True
                for write in commit.writes:
                    made, session.signature = session.commit_number, None
                    try:
                        write.result = write.work(session)
                    except Exception as error:
                        if len(commit.writes) == 1 or session.commit_number != made:
                            raise
                        write.error = error  # nothing of it was written: it is raised in the thread it belongs to
                self._commit(session, before)
                commit.is_done = True
            except BaseException as error:
                if session.is_committed and not isinstance(error, JarvisError):  # an interrupt behind the commit
                    commit.is_done = True
                    raise
                session.roll_back(0)
                if isinstance(error, (StoreAccessError, CorruptStoreError, ReadOnlyStoreError)):
                    session.epoch = -1  # after a failed write or sync nothing is known of this connection: drop it
                if len(commit.writes) == 1:
                    raise
                if not isinstance(error, Exception):
                    self._shared.part(commit.writes[1:])
                    raise
                self._shared.part(commit.writes)
                return
            finally:
                session.joined = False
                thread.session = mine
                if session.busy:
                    self._leave(session)
                for write in commit.writes[1:]:
                    write.wake()
        finally:  # again, see `_put_right`
            thread.session = mine
            if session.depth:
                session.roll_back(0)
            session.joined = False
        if session.erasing:
            self.letting_in(lambda: self._finish_behind(session))

    def _lend_writer(self, mine: Session) -> Session:
        """Return what writes in place of the calling thread's connection `mine` while threads take turns.

        A connection forgets the pages it has when another one writes: each leader would read them anew.
        """
        writer = self._writer
        if writer is None or not self._is_current(writer):
            if not self._mutex.acquire(blocking=False):  # who has it may wait for this thread, which has the lead
                return mine
            try:
                writer = self._open()
            finally:
                self._mutex.release()
            if not self.lock.is_mine():  # to open took the lock and gave it back: another thread may lead by now
                self.retire(writer)
                return mine
            old, self._writer = self._writer, writer
            if old is not None:
                self.retire(old)
        writer.busy, writer.thread = 0, threading.get_ident()  # nobody else uses it
        return writer

    def _check_leaving(self, session: Session, level: int) -> None:
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
    def snapshot(self) -> Iterator[Session]:
        """Lend a connection of its own, for an iteration that outlives the call; not for transactions."""
        session = self._open_aside() if self._is_aside(self._threads.here) else self._opened_again()
        try:
            try:
                session.busy = 1
                yield session
            finally:
                session.busy = 0
                self.retire(session)
        finally:  # again, see `_put_right`
            session.busy = 0
            self.retire(session)

    def is_disturbed(self, session: Session) -> bool:
        """Tell whether what reads without locks met a writer: what it read may be torn."""
        return session.immutable is not None and not self._is_there(session)

    def check_undisturbed(self, session: Session) -> None:
        """Raise `StoreBusyError` if an iteration that reads without locks met a writer."""
        if self.is_disturbed(session):
            raise StoreBusyError(self.path, "a writer came while it was read from read-only media; start again")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep all writers out, for something else than a transaction.

        Raises:
            TransactionError: it interrupts another call, or meets another task's transaction.
        """
        thread = self._threads.here
        self._own(thread)
        try:
            thread.call = sys._getframe(2)  # of the function whose block this is
            self._file.take_lock(self.busy_timeout_seconds)
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
        if self._own(self._threads.here):
            raise TransactionError(f"{self.path}: that cannot be done inside a transaction; leave it first")

    def in_transaction(self) -> Session | None:
        """Return the connection on which the caller has a transaction open, or None.

        It has none if it interrupts a call that has, or is another task than the one that opened it.
        """
        thread = self._threads.here
        session = thread.session
        if session is None or not session.depth or not self.lock.is_mine() or self._is_aside(thread):
            return None
        return session

    def retire(self, session: Session) -> None:
        """Close a connection that no call uses any more."""
        self._sessions.discard(session)
        session.close()

    def shutdown(self) -> None:
        """Close what is idle, let the rest close itself when it is done, and fold the log into the file.

        If it interrupts a call of its thread, that is one of the rest, and the log stays.

        Raises:
            TransactionError: the caller has a transaction open.
        """
        if self.in_transaction():
            raise TransactionError(f"{self.path}: shutdown() inside a transaction; leave the transaction first")
        if self._is_aside(self._threads.here):  # it may have the mutex and the lock
            self.epoch += 1
            return
        thread = self._threads.here
        try:
            thread.call = sys._getframe()
            with self._mutex:
                sessions = list(self._sessions)
                self.epoch += 1
                self._prepared = None
                idle = [session for session in sessions if not session.busy and not session.closed]
                if idle and not self.read_only and os.path.exists(self.path):
                    self._checkpoint(idle)
                for session in idle:
                    self.retire(session)
                self.lock.close()
        except BaseException:
            self._put_right(thread)
            raise
        finally:
            thread.call = None

    # --- a call ----------------------------------------------------------------------------------

    def _enter(self, *, look: bool = True) -> Session:
        """Return the calling thread's connection, opened if need be; whoever calls this calls `_leave`.

        With ``look=False`` the caller sees to it that the connection still is one to the file of that name.
        """
        session = self._threads.here.session
        if session is not None and session.pid != os.getpid():
            raise self._forked()
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
                if session.depth or (is_current and (not look or self._is_there(session))):
                    return session
            except BaseException:
                session.busy -= 1
                raise
            session.busy -= 1
            if not session.busy:
                self.retire(session)
        with self._mutex:
            session = self._open()
            session.busy = 1
            self._threads.here.session = session
            self._threads.here.end = _ThreadEnd(self, session)
            return session

    def _leave(self, session: Session) -> None:
        session.busy = session.busy - 1 if session.depth else 0
        if not session.busy and session.epoch != self.epoch and session.pid == os.getpid():
            self.retire(session)

    def _is_there(self, session: Session) -> bool:
        """Tell whether the path still names the file that `session` has open; raise if it names none."""
        status = self._file.status()
        if (status.st_dev, status.st_ino) != session.identity:
            return False
        return session.immutable is None or (Stamp.of(status) == session.immutable and not self._file.has_log())

    def _commit(self, session: Session, status: os.stat_result) -> None:
        """Commit, given the file's status when the lock was taken."""
        before = Stamp.of(status)
        session.commit()
        after = self._file.status()  # before anything is acknowledged: a write into a removed file is none
        if (after.st_dev, after.st_ino) != session.identity:
            raise StoreMissingError(self.path, "was replaced while a write was in progress; that write is lost")
        self._file.leave_word(before, Stamp.of(after), session.commit_number if self.durability == "full" else None)

    # --- opening ---------------------------------------------------------------------------------

    def _open(self) -> Session:
        """Return a new connection to the file as it is now, checked; needs the mutex."""
        if self._inherited:
            raise self._forked()
        for _ in range(MAX_TRIES):
            if self._prepared is None:
                self._names = NameBook()  # what comes now may be another file, with other ids
                self._prepared = self._file.prepare()
            try:
                connection, status, immutable = self._file.opened()
            except apsw.Error as error:
                raise driver.translated(self.path, error, "open the store") from error
            if self._prepared == (status.st_dev, status.st_ino):
                break
            connection.close()  # somebody put another file in its place
            self.epoch += 1
            self._prepared = None
        else:
            raise StoreBusyError(self.path, "was replaced again and again while it was opened; retry")
        return self._session(connection, status, immutable)

    def _opened_again(self) -> Session:
        """Return a new connection; what seems damaged is looked at as a whole again, once, as `read` does."""
        try:
            return holding(self._mutex, self._open)
        except CorruptStoreError:
            self._distrust()
            return holding(self._mutex, self._open)

    def _open_aside(self) -> Session:
        """Return a new connection for who interrupts a call of the thread, which may have the mutex and the lock."""
        if self._prepared is None or (self.lock.is_mine() and self.lock.is_swap_open()):
            raise TransactionError(
                f"{self.path}: this call interrupts another one of its thread that is just opening the store, and "
                "cannot be answered; call again when that has returned"
            )
        try:
            connection, status, immutable = self._file.opened()
        except apsw.Error as error:
            raise driver.translated(self.path, error, "open the store") from error
        if self._prepared != (status.st_dev, status.st_ino):
            connection.close()
            raise StoreBusyError(self.path, "was replaced while it was opened; retry")
        return self._session(connection, status, immutable)

    def _session(self, connection: apsw.Connection, status: os.stat_result, immutable: bool) -> Session:
        session = Session(
            connection,
            self.path,
            self._names,
            epoch=self.epoch,
            identity=(status.st_dev, status.st_ino),
            immutable=Stamp.of(status) if immutable else None,
            history=self.history,
        )
        self._sessions.add(session)
        return session

    def _forked(self) -> TransactionError:
        return TransactionError(
            f"{self.path}: this process was forked while its parent was inside a call or transaction on the store; "
            "fork outside of them, or start processes with spawn"
        )

    # --- the end ---------------------------------------------------------------------------------

    def finish_erasing(self, patience_seconds: float) -> bool:
        """Clean the files of what was erased; return whether nothing is left to do.

        Inside a transaction, while a reader of an older state hinders it, if it fails, or if other writers keep the
        lock for so long, that is later: the next writer tries again, after a second, and so does the next opening.
        """
        if self.in_transaction():
            return False
        is_done = False
        with contextlib.suppress(StoreBusyError), self.alone(patience_seconds) as session:
            before = Stamp.of(self._file.status())
            session.forget_clock()
            is_done = self._file.try_finishing(session.connection)
            if not is_done:
                session.epoch = -1  # as behind any failed write: drop it
            self._file.leave_word(before, Stamp.of(self._file.status()), None)
        self._finish_after = 0.0 if is_done else time.monotonic() + _ERASING_AGAIN_SECONDS
        return is_done

    def files(self) -> list[str]:
        """Return the paths of all files of the store."""
        return self._file.files()

    def key(self) -> DataKey | None:
        """Return the key of the file that has the path now, None if it is plain."""
        return self._file.key()

    def identity(self) -> tuple[int, int]:
        """Return (device, inode) of the file that has the path now."""
        status = self._file.status()
        return status.st_dev, status.st_ino

    def chunks_of(self, path: str) -> Iterator[bytes]:
        """Yield what a file of the store holds, decrypted if it is encrypted."""
        return self._file.chunks_of(path)

    def _finish_behind(self, session: Session) -> None:
        """Let a commit be followed by what is to be done about an erasure, if anything is."""
        if session.erasing and time.monotonic() >= self._finish_after:
            self.finish_erasing(0)

    def _checkpoint(self, idle: list[Session]) -> None:
        """Fold the log into the file, through the last connection that closes."""
        try:
            status = self._file.take_lock(0)
            before = Stamp.of(status)
            *others, last = idle
            for session in others:
                self.retire(session)
            if last.identity != (status.st_dev, status.st_ino):
                return  # another file has its place, and the log that has its name is of that one
            with last.guard:
                if last.closed:
                    return
                last.connection.set_busy_timeout(0)
                with contextlib.suppress(apsw.BusyError):  # of readers: what they do not need was folded in
                    last.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
                    last.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
            self.retire(last)
            self._file.leave_word(before, Stamp.of(self._file.status()), None)
        except (apsw.BusyError, StoreBusyError):
            pass  # somebody reads or writes: the log stays, and a later checkpoint folds it in
        except apsw.Error as error:
            self._file.warn("the log of %s stays beside it, nothing is lost: %s", self.path, type(error).__name__)
        finally:
            self.lock.release()

    def before_fork(self, deadline: float) -> None:
        """Close every connection that can be closed until `deadline`, so that a child inherits none."""
        self._paused = self.copy
        if self._paused is not None:
            self._paused.before_fork(deadline)
        self._mutex.acquire()
        self.epoch += 1
        for session in list(self._sessions):
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
        inherited = [session for session in self._sessions if not session.closed]
        self._inherited = self._inherited or bool(inherited)
        if inherited:
            import ctypes

            for session in inherited:  # closing one here would confuse the parent's, also at exit
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(session.connection))
        self._mutex = threading.RLock()
        self._shared = SharedCommit(self.lock, self.busy_timeout_seconds)
        self._threads = _Threads()
        self._sessions = set()
        self._writer = self._prepared = None


if hasattr(os, "register_at_fork"):
    _forking = threading.local()  # what the forking thread has paused

    def _before_fork() -> None:
        _forking.paused = []
        deadline = time.monotonic() + FORK_PATIENCE_SECONDS
        in_one_order = sorted(listed(_databases), key=id)  # or two forks at once would deadlock
        for database in in_one_order:
            _forking.paused.append(database)
            database.before_fork(deadline)

    def _after_fork_in_parent() -> None:
        for database in _forking.paused:
            database.after_fork_in_parent()

    def _after_fork_in_child() -> None:
        for database in _forking.paused:
            database.after_fork_in_child()

    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


@atexit.register
def _shut_all_down() -> None:
    """Fold the logs in when the interpreter ends; nothing is lost where this does not happen."""
    for database in listed(_databases):
        with contextlib.suppress(JarvisError):
            database.shutdown()
