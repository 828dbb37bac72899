"""The one table that maps the driver's errors to ours. No message holds a password or a stored value."""

from __future__ import annotations

import os

import psycopg
from psycopg import errors as sqlstates

from jarvis.errors import (
    CorruptStoreError,
    DuplicateEntryError,
    JarvisError,
    ReadOnlyStoreError,
    StoreAccessError,
    StoreBusyError,
    StoreError,
    StoreFullError,
    StoreMissingError,
    StoreTooNewError,
)
from jarvis.errors import translated as translated_from_system

_BUSY = (
    sqlstates.LockNotAvailable,
    sqlstates.QueryCanceled,
    sqlstates.TooManyConnections,
    sqlstates.IdleInTransactionSessionTimeout,
)


_GIVEN_UP = (sqlstates.SerializationFailure, sqlstates.DeadlockDetected)
"""On a standby also the conflict of a question with what the primary does: see
https://www.postgresql.org/docs/current/hot-standby.html#HOT-STANDBY-CONFLICT
"""

_QUOTA = ("Disk quota exceeded", "File too large")
"""How the message of a server ends to which its system refuses more room; the state alone says "internal error"."""

_CROWDED = ("too many clients", "too many connections", "remaining connection slots")


class LostConnectionError(StoreAccessError):
    """The connection to the server has ended."""


class GivenUpError(StoreBusyError):
    """The server ended what was asked in favour of others; asked again, it may come to its end."""


def translated(path: str, error: psycopg.Error, doing: str, *, is_lost: bool = False) -> JarvisError:
    """Return our error for the driver's.

    Args:
        path: names the store.
        error: the driver's error.
        doing: what was being done, as in "cannot read".
        is_lost: the connection cannot be used any more.
    """
    state = error.sqlstate or ""
    said = error.diag.message_primary or (str(error) if is_lost else "").partition("\n")[0] or type(error).__name__
    if isinstance(error, _GIVEN_UP):
        return GivenUpError(path, f"cannot {doing}: {_why_busy(error, said)}")
    if isinstance(error, _BUSY):
        return StoreBusyError(path, f"cannot {doing}: {_why_busy(error, said)}")
    if isinstance(error, (sqlstates.DiskFull, sqlstates.OutOfMemory)) or said.endswith(_QUOTA):
        hint = f"; {error.diag.message_hint}" if error.diag.message_hint else ""
        return StoreFullError(path, f"cannot {doing}: the server has no room ({said}{hint})")
    if isinstance(error, sqlstates.UniqueViolation):
        return DuplicateEntryError(f"{path}: cannot {doing}: a row with this key is there")
    if isinstance(error, sqlstates.ReadOnlySqlTransaction):
        return ReadOnlyStoreError(path, f"cannot {doing}: the server is a standby, or the role may only read ({said})")
    if isinstance(error, sqlstates.InsufficientPrivilege):
        return StoreAccessError(path, f"cannot {doing}: a right is missing ({said})")
    if isinstance(error, (sqlstates.UndefinedTable, sqlstates.InvalidSchemaName)):
        return StoreMissingError(
            path,
            f"cannot {doing}: its tables were removed ({said}); restore the database from a backup, or, for a new "
            "store, drop what is left of the schema and call shutdown()",
        )
    if isinstance(error, sqlstates.DivisionByZero):  # see `jarvis._postgresql.connection`
        return replaced(path)
    if isinstance(error, sqlstates.UndefinedColumn):
        return StoreTooNewError(
            path,
            f"cannot {doing}: its tables are not those that this jarvis knows ({said}); pip install -U jarvis-memory",
        )
    if isinstance(error, sqlstates.UndefinedObject):
        return StoreAccessError(path, f"cannot {doing}: {said}")
    if isinstance(error, (sqlstates.InvalidTextRepresentation, sqlstates.UntranslatableCharacter)):
        return damaged(path, "an entry cannot be decoded")  # a body is no JSON
    if state.startswith("XX"):
        return CorruptStoreError(path, f"cannot {doing}: the server reports damage ({state})")
    if is_lost or isinstance(error, psycopg.OperationalError):
        nothing = "; nothing of it was kept, retry" if doing == "write" else ""
        return LostConnectionError(path, f"cannot {doing}: the connection to the server has ended ({said}){nothing}")
    return StoreAccessError(path, f"cannot {doing}: the server reports {type(error).__name__} ({state})")


def unreachable(path: str, error: psycopg.Error) -> StoreError:
    """Return our error for a connection that the driver could not make: it names hosts and roles, and no password."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as lack:  # of descriptors, of which libpq says nothing
        return translated_from_system(path, lack, "connect to the server")
    said = " ".join(str(error).split()) or type(error).__name__
    if any(words in said for words in _CROWDED):
        return StoreBusyError(path, f"the server has no connection left ({said}); retry, or lower pool_size")
    return StoreAccessError(path, f"cannot be reached: {said}")


def damaged(path: str, finding: str) -> CorruptStoreError:
    """Return the error that says that the store is damaged, and what to do."""
    return CorruptStoreError(
        path,
        f"is damaged: {finding}; other entries can be read. Restore the database from a backup, or delete the rows of "
        "the damaged entry from the tables of the schema by its id",
    )


def replaced(path: str) -> StoreAccessError:
    """Return the error for a store that is not the one that was opened."""
    return StoreAccessError(
        path,
        "is another store than the one that was opened: its tables were removed and created again, or it was given "
        "other keys; call shutdown() to open this one",
    )


def exhausted(path: str, size: int, timeout_seconds: float) -> StoreBusyError:
    """Return the error for a call that found no free connection."""
    return StoreBusyError(
        path,
        f"all {size} connections of this process have been in use for {timeout_seconds:g} s; "
        "leave transactions and iterations sooner, or raise pool_size",
    )


def _why_busy(error: psycopg.Error, said: str) -> str:
    if isinstance(error, sqlstates.LockNotAvailable):
        return "another writer has kept it locked; retry, let the other finish, or raise busy_timeout_seconds"
    if isinstance(error, sqlstates.SerializationFailure):
        return (
            f"the standby gave it up for changes of its primary ({said}); retry, or raise max_standby_streaming_delay "
            "or switch on hot_standby_feedback there"
        )
    return f"the server gave it up ({said}); nothing of it was kept, retry"
