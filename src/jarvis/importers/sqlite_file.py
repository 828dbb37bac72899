"""Reads a SQLite file of another program, and writes nothing to it."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jarvis.importers.source import OtherKindError, beginning

if TYPE_CHECKING:
    import sqlite3

_HEADER = b"SQLite format 3\0"


def has(path: Path, table: str, columns: Sequence[str]) -> bool:
    """Tell whether a file is of SQLite and has a table with these columns."""
    if beginning(path, len(_HEADER)) != _HEADER:
        return False
    try:
        with opened(path) as connection:
            return set(columns) <= columns_of(connection, table)
    except (OtherKindError, OSError):
        return False


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a file for a block.

    Raises:
        OtherKindError: it is none of SQLite.
        OSError: it cannot be read, such as one that is damaged.
    """
    import sqlite3

    if beginning(path, len(_HEADER)) != _HEADER:
        path.stat()
        raise OtherKindError("it is no SQLite file")
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            connection.text_factory = _text
            yield connection
    except (sqlite3.Error, UnicodeError) as error:  # its message may quote the file, or be no text
        raise OSError(errno.EIO, f"SQLite says {getattr(error, 'sqlite_errorname', 'no text')}") from None


def _text(data: bytes) -> str | bytes:
    """Return the text of a column; the bytes if it is none, so that only this row is refused."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def columns_of(connection: sqlite3.Connection, table: str) -> set[str]:
    """Return the columns of a table, none if it is not there."""
    return {name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))}


def moment(found: Any) -> datetime | None:
    """Return the moment of a column; without a zone it is in UTC, as SQLite's own are. None if it tells none."""
    try:
        told = datetime.fromisoformat(found)
    except (TypeError, ValueError):
        return None
    return told if told.tzinfo is not None else told.replace(tzinfo=UTC)
