"""One SQLite file as this process has it open: a connection per thread, made, checked and closed here.

Process model. A thread gets a connection at its first call and loses it when it ends. Before a fork
every idle connection is closed and calls in progress are waited for, because SQLite's picture of its
own locks is shared by all connections of a process and would be inherited wrong
(https://sqlite.org/howtocorrupt.html, "Carrying an open database connection across a fork()").
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import stat
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import apsw

from jarvis import _files
from jarvis._files import Stamp
from jarvis._locks import Note, WriterLock, listed
from jarvis._sqlite import driver, first_life, schema, verification
from jarvis._sqlite.session import Session, read_only, too_new
from jarvis.errors import (
    CorruptStoreError,
    JarvisError,
    ReadOnlyStoreError,
    StoreAccessError,
    StoreBusyError,
    StoreError,
    StoreMissingError,
    StoreOutdatedError,
    TransactionError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Result = TypeVar("Result")

log = logging.getLogger("jarvis.sqlite")

FORK_PATIENCE_SECONDS = 10.0
MAX_TRIES = 20  # of a reader that meets writers half-way

_NOTHING = Note(Stamp(0, 0, 0), 0)

_databases: weakref.WeakSet[Database] = weakref.WeakSet()


class _ThreadEnd:
    """Lives in a thread's locals; when the thread ends it goes, and takes the connection along."""

    def __init__(self, database: Database, session: Session) -> None:
        self._database = weakref.ref(database)
        self._session = session

    def __del__(self) -> None:
        database = self._database()
        if database is not None and self._session.pid == os.getpid():
            database.retire(self._session)


class Database:
    """The file at `path` and this process's connections to it; shared by all namespaces of a store.

    Args:
        path: the store's file.
        read_only: nothing is written, not even a lock file.
        durability: ``full`` or ``normal``, see `jarvis._sqlite.driver.connect`.
        busy_timeout_seconds: how long a writer waits for another one.
    """

    def __init__(self, path: Path, *, read_only: bool, durability: str, busy_timeout_seconds: float) -> None:
        self.path = os.path.realpath(path)
        self.read_only = read_only
        self.durability = durability
        self.busy_timeout_seconds = busy_timeout_seconds
        self.lock = WriterLock(f"{self.path}.lock", self.path)
        self.epoch = 0
        self._local = threading.local()
        self._mutex = threading.RLock()
        self._sessions: set[Session] = set()
        self._prepared: tuple[int, int] | None = None  # identity of the file that was checked at opening
        self._noted = _NOTHING  # the last note we know of
        self._unsealed = False  # it was verified whole, but may not be written to give its pages their checksums
        self._inherited = False
        _databases.add(self)

    # --- for the backend -------------------------------------------------------------------------

    def read(self, work: Callable[[Session], Result]) -> Result:
        """Return what `work` returns when lent the calling thread's connection, opened if need be.

        Raises:
            StoreError: whatever is wrong with the store.
        """
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
        raise StoreBusyError(
            self.path, "writers keep changing it while it is read from where no lock can be had; retry"
        )

    def _distrust(self) -> None:
        """Let every connection be opened anew, and the file be verified before."""
        with self._mutex:
            self.epoch += 1
            self._prepared = None

    @contextlib.contextmanager
    def changing(self) -> Iterator[Session]:
        """Lend the calling thread its connection inside a transaction, or a savepoint of the open one.

        Committed when the block is left, rolled back when it raises anything.

        Raises:
            StoreError: the store is read-only, busy, full, damaged or gone; nothing of the block was kept.
            TransactionError: this process was forked inside the block.
        """
        if self.read_only:
            raise read_only(self.path)
        session = self._enter()
        level, after_commit = session.depth, []
        try:
            if not level:
                self.lock.acquire(self.busy_timeout_seconds)
            session.begin()
            yield session
            self._check_leaving(session, level)
            if level:
                session.commit()
            else:
                after_commit = session.after_commit
                self._commit(session)
        except BaseException as error:
            after_commit = []
            if session.pid == os.getpid():
                session.roll_back(level)
            if isinstance(error, (StoreAccessError, CorruptStoreError, ReadOnlyStoreError)):
                session.epoch = -1  # after a failed write or sync nothing is known of this connection: drop it
            raise
        finally:
            if not level:
                self.lock.release_for((session.pid, session.thread))
            self._leave(session)
        for action in after_commit:
            action()

    def _check_leaving(self, session: Session, level: int) -> None:
        if session.pid != os.getpid():
            raise TransactionError(f"{self.path}: forked inside the transaction, which belongs to the parent process")
        if session.thread != threading.get_ident():
            raise TransactionError(
                f"{self.path}: a transaction was left in another thread than it was entered in; nothing of it was kept"
            )
        if session.depth != level + 1:
            raise TransactionError(f"{self.path}: a transaction was left before one that was entered inside it")

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Session]:
        """Lend a connection of its own, for an iteration that outlives the call; not for transactions."""
        with self._mutex:
            session = self._open()
            session.busy, session.lasting = 1, True
        try:
            yield session
        finally:
            session.busy = 0
            self.retire(session)

    def check_undisturbed(self, session: Session) -> None:
        """Raise `StoreBusyError` if an iteration that reads without locks met a writer."""
        if session.immutable is not None and not self._is_there(session):
            raise StoreBusyError(self.path, "a writer came while it was read from read-only media; start again")

    def in_transaction(self) -> bool:
        """Tell whether the calling thread has a transaction open."""
        session: Session | None = getattr(self._local, "session", None)
        return session is not None and session.depth > 0 and self.lock.is_mine()

    def when_committed(self, action: Callable[[], None]) -> None:
        """Do something after the calling thread's transaction has committed; never if it is rolled back."""
        session: Session = self._local.session
        session.after_commit.append(action)

    def retire(self, session: Session) -> None:
        """Close a connection that no call uses any more."""
        self._sessions.discard(session)
        session.close()

    def shutdown(self) -> None:
        """Close what is idle, let the rest close itself when it is done, and fold the log into the file.

        Raises:
            TransactionError: the calling thread has a transaction open.
        """
        if self.in_transaction():
            raise TransactionError(f"{self.path}: shutdown() inside a transaction; leave the transaction first")
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

    # --- a call ----------------------------------------------------------------------------------

    def _enter(self) -> Session:
        session: Session | None = getattr(self._local, "session", None)
        if session is not None and session.pid != os.getpid():
            raise self._forked()
        if session is not None:
            # Who closes connections (shutdown, fork) raises epoch first and looks at busy then; in
            # this order at least one of the two sees the other.
            if session.depth and not self.lock.is_mine() and not self.read_only:
                session.roll_back(0)  # an exception from outside tore a transaction away from its end
            if not session.depth:
                session.busy = 0
            session.busy += 1
            try:
                if session.depth or (session.epoch == self.epoch and self._is_there(session)):
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
            self._local.session = session
            self._local.end = _ThreadEnd(self, session)
            return session

    def _leave(self, session: Session) -> None:
        session.busy -= 1
        if not session.busy and session.epoch != self.epoch and session.pid == os.getpid():
            self.retire(session)

    def _is_there(self, session: Session) -> bool:
        """Tell whether the path still names the file that `session` has open; raise if it names none."""
        status = self._status()
        if (status.st_dev, status.st_ino) != session.identity:
            return False
        return session.immutable is None or (Stamp.of(status) == session.immutable and not self._has_log())

    def _status(self) -> os.stat_result:
        try:
            return os.stat(self.path)
        except FileNotFoundError:
            raise StoreMissingError(
                self.path, "was removed while it was open; put it back, or call shutdown() to start with a new one"
            ) from None
        except OSError as error:
            raise _files.translated(self.path, error, "find the store") from error

    def _commit(self, session: Session) -> None:
        before = Stamp.of(self._status())
        session.commit()
        after = self._status()  # before anything is acknowledged: a write into a removed file is none
        if (after.st_dev, after.st_ino) != session.identity:
            raise StoreMissingError(self.path, "was replaced while a write was in progress; that write is lost")
        self._leave_word(before, Stamp.of(after), session.commit_number if self.durability == "full" else None)

    def _leave_word(self, before: Stamp, after: Stamp, commit: int | None) -> None:
        """Note, under the writer lock, what the store is like now, for whoever opens it next.

        Only if it was as noted before: what somebody else touched is still to be verified.

        Args:
            before: the file's stamp when the lock was taken.
            after: its stamp now; another one, if we checkpointed.
            commit: the last commit, which is synced; None if it is not.
        """
        if before != self._noted.stamp:  # another process wrote the last note, or somebody else the file
            self._noted = self.lock.read_note() or _NOTHING
            if before != self._noted.stamp:
                return
        note = Note(after, self._noted.commit if commit is None else commit)
        if note != self._noted:
            self._noted = _NOTHING
            try:
                self.lock.write_note(note)
            except StoreError as error:  # the write itself is done: the old note is only less exact
                log.warning("%s", error)
            else:
                self._noted = note

    # --- opening ---------------------------------------------------------------------------------

    def _open(self) -> Session:
        """Return a new connection to the file as it is now, checked; needs the mutex."""
        if self._inherited:
            raise self._forked()
        if self._prepared is None:
            self._prepare()
        status = self._status()
        if self._prepared != (status.st_dev, status.st_ino):  # somebody put another file in its place
            self.epoch += 1
            self._prepare()
            status = self._status()
        immutable = self.read_only and not self._has_log()
        try:
            connection = self._connect(immutable=immutable)
        except apsw.Error as error:
            raise driver.translated(self.path, error, "open the store") from error
        session = Session(
            connection,
            self.path,
            epoch=self.epoch,
            identity=(status.st_dev, status.st_ino),
            immutable=Stamp.of(status) if immutable else None,
        )
        self._sessions.add(session)
        return session

    def _forked(self) -> TransactionError:
        return TransactionError(
            f"{self.path}: this process was forked while its parent was inside a call or transaction on the store; "
            "fork outside of them, or start processes with spawn"
        )

    def _has_log(self) -> bool:
        try:
            return os.stat(f"{self.path}-wal").st_size > 0
        except OSError:
            return False

    def _connect(self, *, immutable: bool) -> apsw.Connection:
        if self.read_only:
            return driver.connect_read_only(
                self.path,
                immutable=immutable,
                checksums=not self._unsealed,
                busy_timeout_seconds=self.busy_timeout_seconds,
            )
        if not os.access(self.path, os.W_OK):  # SQLite would open it for reading only, in silence
            raise ReadOnlyStoreError(
                self.path, "may not be written; check its owner and mode, or open it with read_only=True"
            )
        return driver.connect(
            self.path,
            durability=self.durability,
            checksums=not self._unsealed,
            busy_timeout_seconds=self.busy_timeout_seconds,
        )

    def _prepare(self) -> None:
        """Create, migrate or verify the file, whatever it needs."""
        _files.check_location(Path(self.path))
        if not os.path.exists(self.path):
            if self.read_only:
                raise StoreMissingError(self.path, "is not there; open it once without read_only=True to create it")
            self._create()
        status = self._status()
        if not stat.S_ISREG(status.st_mode):
            raise StoreAccessError(self.path, "is no regular file; give the path of the store itself")
        if status.st_size == 0:
            raise CorruptStoreError(
                self.path,
                "is empty (0 bytes), which a store never is; restore a backup, or remove the file to start anew",
            )
        if self.read_only and self._has_log() and not os.path.exists(f"{self.path}-shm"):
            raise StoreAccessError(
                self.path, "has a log of last writes beside it; open it once without read_only=True to fold that in"
            )
        for _ in range(MAX_TRIES if self.read_only else 1):
            state = self._state()
            try:
                self._check_file()
                break
            except CorruptStoreError:
                if self._state() == state:
                    raise
        else:
            self._check_file()
        self._prepared = (status.st_dev, status.st_ino)

    def _state(self) -> tuple[Stamp, int]:
        """Return what changes when somebody writes: without a lock, a reader may meet a writer half-way."""
        try:
            log_size = os.stat(f"{self.path}-wal").st_size
        except OSError:
            log_size = 0
        return Stamp.of(self._status()), log_size

    def _check_file(self) -> None:
        self._unsealed = False
        try:
            try:
                self._check_connected()
            except (apsw.IOError, CorruptStoreError) as error:
                if isinstance(error, apsw.IOError) and driver.extended_code(error) != apsw.SQLITE_IOERR_DATA:
                    raise
                # Pages without a right checksum are damage, or another program's way of writing them. If
                # all content proves whole without their help, it was the latter.
                self._unsealed = True
                self._check_connected()
        except apsw.Error as error:
            raise driver.translated(self.path, error, "open the store") from error

    def _check_connected(self) -> None:
        connection = self._connect(immutable=self.read_only and not self._has_log())
        try:
            self._check(connection)
        finally:
            connection.close()

    def _create(self) -> None:
        _files.ensure_directory(Path(self.path).parent)
        try:
            self.lock.acquire(self.busy_timeout_seconds)
            if self._has_log() and not os.path.exists(self.path):
                raise StoreMissingError(
                    self.path,
                    f"is not there, but the log with its last writes is ({self.path}-wal); "
                    "put the store back, or remove the log to start anew",
                )
            with _files.explaining(self.path, "create the store"):
                _files.remove_leftovers(self.path)
            if not os.path.exists(self.path):
                schema.create_store(self.path)
                self.lock.write_note(Note(Stamp.of(self._status()), 0))
        finally:
            self.lock.release()

    def _check(self, connection: apsw.Connection) -> None:
        if self._is_as_we_left_it(connection):
            return
        if self.read_only:
            if first_life.is_first_life(connection) or schema.read_mark(connection)[1] == schema.MIGRATING:
                raise StoreOutdatedError(
                    self.path, "was written by an older version; open it once without read_only=True to migrate it"
                )
            self._verify(connection)
            return
        try:
            self.lock.acquire(self.busy_timeout_seconds)
            if self._is_as_we_left_it(connection):  # by now: another process has just verified or migrated it
                return
            with _files.explaining(self.path, "clean up beside the store"):
                _files.remove_leftovers(self.path)
            if first_life.is_first_life(connection):
                first_life.migrate(connection, self.path)
            elif schema.read_mark(connection)[1] == schema.MIGRATING:
                first_life.finish(connection)
            self._verify(connection)
            connection.execute("PRAGMA journal_mode = WAL").fetchall()  # a copy by VACUUM INTO is in another mode
            if self._unsealed:
                verification.seal(connection)
                self._unsealed = False
                log.info("gave every page of %s its checksum again, which another program had left out", self.path)
            self.lock.write_note(Note(Stamp.of(self._status()), schema.last_commit(connection)))
        finally:
            self.lock.release()

    def _is_as_we_left_it(self, connection: apsw.Connection) -> bool:
        application, version = schema.read_mark(connection)
        if application != schema.APPLICATION_ID:
            if first_life.is_first_life(connection):
                return False
            raise CorruptStoreError(self.path, "is a SQLite file, but no store of jarvis; give another path")
        if version > schema.CURRENT_VERSION:
            raise too_new(self.path, version)
        note = self.lock.read_note()  # before the commit number: a writer may commit in between
        if version != schema.CURRENT_VERSION or note is None:
            return False
        stamp = Stamp.of(self._status())
        if note.stamp[1:] == stamp[1:] and schema.last_commit(connection) < note.commit:  # also for a copied directory
            raise driver.corrupt(
                self.path,
                "the log with its last writes is damaged or gone (if you put a backup in its place, "
                f"remove {os.path.basename(self.lock.path)} too)",
            )
        return note.stamp == stamp and not self._unsealed and self._log_is_whole(connection)

    def _verify(self, connection: apsw.Connection) -> None:
        if not self._log_is_whole(connection):
            raise driver.corrupt(self.path, "its write-ahead log breaks off before commits that were acknowledged")
        log.info("verifying %s: it is not as this library left it", self.path)
        verification.verify(connection, self.path)

    def _log_is_whole(self, connection: apsw.Connection) -> bool:
        if self.durability != "full" or not self._has_log():
            return True  # with normal, a power cut may rightly cost the last commits
        if self.read_only:
            valid_frames = verification.count_valid_frames(self.path)
        else:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # recovers the log
            valid_frames, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        return verification.lost_commits(self.path, valid_frames) <= 1  # one may be a power cut's torn write

    # --- the end ---------------------------------------------------------------------------------

    def fold_log(self) -> None:
        """Fold the log into the file and empty it, as far as readers of older states allow."""
        session = self._enter()
        try:
            self._checkpoint([session], closing=False)
        finally:
            self._leave(session)

    def _checkpoint(self, idle: list[Session], *, closing: bool = True) -> None:
        """Fold the log into the file, through the last connection that closes."""
        try:
            self.lock.acquire(0)
            before = Stamp.of(self._status())
            *others, last = idle
            for session in others:
                self.retire(session)
            with last.guard:
                if last.closed:
                    return
                last.connection.set_busy_timeout(0)
                last.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
                if closing:
                    last.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
                    self.retire(last)
                else:
                    last.connection.set_busy_timeout(int(self.busy_timeout_seconds * 1000))
                    self._sync_log()
            self._leave_word(before, Stamp.of(self._status()), None)
        except (apsw.BusyError, StoreBusyError):
            pass  # somebody reads or writes: the log stays, and a later checkpoint folds it in
        except apsw.Error as error:
            log.warning("the log of %s stays beside it, nothing is lost: %s", self.path, type(error).__name__)
        finally:
            self.lock.release()

    def _sync_log(self) -> None:
        """Make the truncation of the log durable: what was erased does not come back with a power cut."""
        with _files.explaining(self.path, "sync the log"):
            descriptor = os.open(f"{self.path}-wal", os.O_RDWR)
            try:
                _files.system.sync(descriptor)
            finally:
                os.close(descriptor)

    def before_fork(self, deadline: float) -> None:
        """Close every connection that can be closed until `deadline`, so that a child inherits none."""
        self._mutex.acquire()
        self.epoch += 1
        for session in list(self._sessions):
            mine = session.thread == threading.get_ident()
            while session.busy and not mine and not session.lasting and time.monotonic() < deadline:
                time.sleep(0.001)
            if not session.busy:
                with contextlib.suppress(StoreError):  # then it counts as one that could not be closed
                    self.retire(session)

    def after_fork_in_parent(self) -> None:
        """Let the other threads go on."""
        self._mutex.release()

    def after_fork_in_child(self) -> None:
        """Start anew; connections that could not be closed are kept for ever, untouched."""
        inherited = [session for session in self._sessions if not session.closed]
        self._inherited = self._inherited or bool(inherited)
        if inherited:
            import ctypes

            for session in inherited:  # closing one here would confuse the parent's, also at exit
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(session.connection))
        self._mutex = threading.RLock()
        self._local = threading.local()
        self._sessions = set()
        self._prepared = None


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
