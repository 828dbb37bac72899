"""Moving a store into a file of another format, such as an encrypted one, while all its processes go on writing.

The rows are copied beside writers, a thousand at a time; what changes meanwhile is noted by triggers (see
`touched_rows`) and copied again, in rounds that become smaller. When the copy equals the store it is
compared with it row by row, and each row that changes from there on when it is copied again. Only for the
last round, and until the copy has taken the store's place (see `swap`), writers wait. Tables without
triggers, such as a text index, are made anew (see `rebuilt`).

What is copied is on the disk with how far it has come: a move that is broken off, or killed, is gone on with by
the next one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import apsw

from jarvis._disk.locks import held_for_once
from jarvis._sqlite import driver
from jarvis._sqlite.connection import read_only
from jarvis._sqlite.replace import copy_file, touched_rows
from jarvis._sqlite.replace.mover import Mover, UnequalError
from jarvis.errors import StoreAccessError, StoreBusyError, TransactionError
from jarvis.model.rewriting import RewriteProgress, Rewritten

if TYPE_CHECKING:
    from jarvis._sqlite.database import Database


def plain(path: str) -> apsw.Connection:
    """Open the file at `path` as one whose pages carry checksums, also if it has no bytes yet."""
    driver.load_checksums()
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE, vfs=driver.vfs)
    connection.reserve_bytes(reserve=driver.RESERVED_BYTES)
    return connection


def abandon(database: Database) -> None:
    """Give up a move that was broken off, and remove what it has copied; no-op if there is none.

    Raises:
        StoreBusyError: somebody moves the store just now.
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
    after_swap: Callable[[], None] | None = None,
    patience_seconds: float = 30.0,
) -> Rewritten:
    """Copy the store into a file that `make` opens, and put that in the store's place; return what was done.

    All processes go on reading and writing. A move that is broken off leaves the store as it is, and its changes are
    noted from there on: the next `move` goes on with it, if `make` can open what was copied; `abandon` gives it up.

    Args:
        database: the store.
        make: opens the file at a path for reading and writing, also one of no bytes, with the settings that
            belong to its format.
        progress: called beside writers, again and again; what it raises breaks the move off.
        before_swap: called under the writers' lock, with the path of the finished copy, which nobody has open; what it
            raises breaks the move off.
        after_swap: called under the writers' lock when the copy has the store's place, before anybody opens it. If
            the process is killed before that it is not called: see `jarvis._sqlite.replace.swap.settle`.
        patience_seconds: how long to try while somebody reads an older state of the store.

    Raises:
        StoreBusyError: somebody else moves the store, or an older state was read for too long; go on later.
        StoreAccessError: the copy does not equal the store, and was removed; or the store has a virtual table that
            cannot be made anew, and nothing was begun. The store is as it was.
        StoreError: the store, or the copy, is read-only, full, damaged or gone.
        TransactionError: the calling thread has a transaction open.
    """
    if database.read_only:
        raise read_only(database.path)
    if database.in_transaction():
        raise TransactionError(f"{database.path}: cannot be moved inside a transaction; leave the transaction first")
    with _only_one(database):
        mover = Mover(database, make, progress or (lambda _: None), patience_seconds)
        try:
            database.pool.copy = mover.copy
            mover.begin()
            mover.fill()
            mover.make_indexes()
            mover.compare()
            return mover.swap(before_swap or (lambda _: None), after_swap or (lambda: None))
        except apsw.Error as error:
            raise driver.translated(database.path, error, "fold in the log of the store") from error
        except UnequalError:
            mover.copy.close()
            copy_file.remove(database.path)
            raise StoreAccessError(
                database.path, "the copy that was to take its place does not equal it, and was removed; move it anew"
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
