"""`CopyFile`: the file beside a store into which a move copies it, and which then takes the store's place.

Until it is finished it is no store: it has the tables, and a table `moving` with the progress of the copy.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import apsw

from jarvis._calls.caller import let_go
from jarvis._disk import files, ownership
from jarvis._disk.files import explaining
from jarvis._sqlite import engine
from jarvis.errors import StoreError, TransactionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SETTINGS = """
PRAGMA synchronous = NORMAL;
PRAGMA wal_autocheckpoint = 1000;
PRAGMA cache_size = -32768;
PRAGMA secure_delete = ON;
PRAGMA temp_store = MEMORY;
PRAGMA mmap_size = 0;
PRAGMA cell_size_check = ON;
PRAGMA trusted_schema = OFF;
"""
"""Each checkpoint, and so each sync, is a few megabytes: the sync of a writer waits for all data before it."""


def path_of(store: str) -> str:
    """Return the path of the copy of a store; its log and the log's index are beside it."""
    directory, name = os.path.split(store)
    return os.path.join(directory, f".{name}.moving")


def lock_of(store: str) -> str:
    """Return the path of the lock that the process holds which copies the store."""
    return f"{path_of(store)}.lock"


def remove(store: str) -> None:
    """Remove the copy of a store, with its log and the log's index, if they exist.

    Raises:
        StoreError: a file cannot be removed.
    """
    path = path_of(store)
    with explaining(path, "remove the copy of the store"):
        for name in (f"{path}-wal", f"{path}-shm", path):
            with contextlib.suppress(FileNotFoundError):
                files.system.unlink(name)


class CopyFile:
    """The copy of a store, and this process's connection to it, which is opened at its first use.

    Args:
        store: the path of the store.
        make: opens the file at a path, which may be empty, for reading and writing, with the settings of its format:
            page checksums, or a key.
    """

    def __init__(self, store: str, make: Callable[[str], apsw.Connection]) -> None:
        self.store = store
        self.path = path_of(store)
        self._make = make
        self._connection: apsw.Connection | None = None
        self._guard = threading.RLock()  # held while the connection is used: a fork waits for it
        self._pid = os.getpid()

    @contextlib.contextmanager
    def used(self) -> Iterator[apsw.Connection]:
        """Lend the connection.

        Raises:
            StoreError: the copy cannot be read or written.
            TransactionError: this process was forked meanwhile; the copy continues in its parent.
        """
        self.check_process()
        try:
            try:
                self._guard.acquire()
                if self._connection is None:
                    self._connection = self._opened()
                yield self._connection
            except BaseException as error:
                errno = self._connection.system_errno if self._connection is not None else 0
                with contextlib.suppress(apsw.Error):  # the first error is raised
                    self.close()
                if isinstance(error, apsw.Error):
                    raise engine.translated(self.path, error, "copy the store", errno) from error
                raise
            finally:
                let_go(self._guard)
        finally:  # again, see `jarvis._calls.caller.holding`
            let_go(self._guard)

    def check_process(self) -> None:
        """Raise `TransactionError` in a process that was forked while the store was copied."""
        if os.getpid() != self._pid:
            raise TransactionError(
                f"{self.store}: forked while it was copied; the copy continues in the parent process"
            )

    def create(self) -> None:
        """Create the file, still empty; raise `StoreError` if the file cannot be created."""
        with explaining(self.path, "create the copy of the store"):
            os.close(files.create(self.path, self.store))

    def _opened(self) -> apsw.Connection:
        with explaining(self.path, "open the copy of the store"):
            for suffix in ("", "-wal", "-shm", "-journal"):
                files.check_regular(f"{self.path}{suffix}")
            is_new = not os.stat(self.path).st_size
        connection = self._make(self.path)
        try:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
            if is_new:
                connection.execute("PRAGMA journal_mode = DELETE").fetchall()
            connection.execute(_SETTINGS).fetchall()
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Close the connection; the file and its log stay."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close(True)

    def finish(self) -> None:
        """Fold the log of the copy into it, close and sync it: then the file alone is the whole copy.

        Raises:
            StoreError: a step failed.
        """
        with self.used() as connection:
            connection.execute("PRAGMA synchronous = FULL").fetchall()
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
            self.close()  # this removes the log and its index
        with explaining(self.path, "sync the copy of the store"):
            for name in (f"{self.path}-wal", f"{self.path}-shm"):
                with contextlib.suppress(FileNotFoundError):
                    files.system.unlink(name)
            descriptor = files.open_regular(self.path, os.O_RDWR)
            try:
                ownership.take_after(descriptor, self.path, self.store)  # the owner may have changed since the start
                files.system.sync(descriptor)
            finally:
                os.close(descriptor)

    # --- forks -----------------------------------------------------------------------------------

    def before_fork(self, deadline: float) -> None:
        """Close the connection if it becomes idle before `deadline`, so that a child does not inherit it."""
        if self._guard.acquire(timeout=max(deadline - time.monotonic(), 0)):
            with contextlib.suppress(apsw.Error):
                self.close()

    def after_fork_in_parent(self) -> None:
        """Allow the use of the connection again."""
        if self._guard._is_owned():  # type: ignore[attr-defined]  # threading.Condition relies on it too
            self._guard.release()

    def after_fork_in_child(self) -> None:
        """Keep a connection that could not be closed for ever, untouched: a close here would disturb the parent's."""
        if self._connection is not None:
            import ctypes

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))
        self._guard = threading.RLock()


def fits(copy: CopyFile) -> bool:
    """Tell whether a copy exists that can be opened and has a table of progress."""
    if not os.path.exists(copy.path):
        return False
    try:
        with copy.used() as connection:
            rows: Any = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'moving'").fetchall()
    except StoreError:  # another format, or another key
        return False
    return bool(rows)
