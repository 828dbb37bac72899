"""Moves a store into a file of another format, such as an encrypted one, while its processes continue to write.

A move copies the rows beside writers, a thousand at a time. Triggers note the rows that change meanwhile (see
`touched_rows`); the move copies those again, in rounds that become smaller. Then it compares copy and store row by row,
and from there on also each row that it copies again. Writers wait only during the last round, and until the copy has
taken the store's place (see `swap`). Tables that cannot have triggers, such as a text index, are rebuilt (see
`rebuilt`).

The copy and its progress are on the disk: the next move resumes one that was interrupted or killed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import apsw

from jarvis._disk.locks import held_for_once
from jarvis._sqlite import engine
from jarvis._sqlite.connection import read_only
from jarvis._sqlite.replace import copy_file, touched_rows
from jarvis._sqlite.replace.mover import Mover, UnequalError
from jarvis.errors import StoreAccessError, StoreBusyError, TransactionError
from jarvis.model.rewriting import RewriteProgress, Rewritten

if TYPE_CHECKING:
    from jarvis._sqlite.database import Database


def plain(path: str) -> apsw.Connection:
    """Open the file at `path`, which may be empty, as one with checksums in its pages."""
    engine.load_checksums()
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE, vfs=engine.vfs)
    connection.reserve_bytes(reserve=engine.RESERVED_BYTES)
    return connection


def abandon(database: Database) -> None:
    """Give up an interrupted move and remove its copy; no-op if there is none.

    Raises:
        StoreBusyError: somebody is moving the store.
        StoreError: the store is read-only, busy, full, damaged or gone.
    """
    with _only_one(database):
        with database.changing() as session:
            for sql in touched_rows.ending(session.rows):
                session.run(sql)
        copy_file.remove(database.path)


def move(
    database: Database,
    make: Callable[[str], apsw.Connection] = plain,
    *,
    progress: Callable[[RewriteProgress], None] | None = None,
    before_swap: Callable[[str], None] | None = None,
) -> Rewritten:
    """Copy the store into a file that `make` opens, and put that file in the store's place; return a report.

    All processes continue to read and write. An interrupted move leaves the store as it is, and its triggers continue
    to note changes: the next `move` resumes it if `make` can open the copy; `abandon` gives it up.

    Args:
        make: opens the file at a path, which may be empty, for reading and writing, with the settings of its format.
        progress: called again and again beside writers; an exception of it interrupts the move.
        before_swap: called under the writers' lock, with the path of the finished copy, which nobody has open; an
            exception of it interrupts the move.

    Raises:
        StoreBusyError: somebody else is moving the store, or reads an older state for too long; resume later.
        StoreAccessError: the copy does not equal the store, and was removed; or the store has a virtual table that
            cannot be rebuilt, and nothing was begun. The store is as it was.
        StoreError: the store, or the copy, is read-only, full, damaged or gone.
        TransactionError: the calling thread has a transaction open.
    """
    if database.read_only:
        raise read_only(database.path)
    if database.in_transaction():
        raise TransactionError(f"{database.path}: cannot be moved inside a transaction; leave the transaction first")
    with _only_one(database):
        mover = Mover(database, make, progress or (lambda _: None))
        try:
            database.pool.copy = mover.copy
            mover.begin()
            mover.fill()
            mover.make_indexes()
            mover.compare()
            return mover.swap(before_swap or (lambda _: None))
        except apsw.Error as error:
            raise engine.translated(database.path, error, "fold in the log of the store") from error
        except UnequalError:
            mover.copy.close()
            copy_file.remove(database.path)
            raise StoreAccessError(
                database.path, "the copy that was to take its place does not equal it, and was removed; move it again"
            ) from None
        finally:
            database.pool.copy = None
            with contextlib.suppress(apsw.Error):
                mover.copy.close()


@contextlib.contextmanager
def _only_one(database: Database) -> Iterator[None]:
    """Keep other processes and threads from moving the same store."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held_for_once(copy_file.lock_of(database.path), database.path, 0))
        except StoreBusyError:
            raise StoreBusyError(database.path, "is being moved by somebody else; let that finish") from None
        yield
