"""Connections to SQLite files with their settings, and the one table that maps the driver's errors.

The driver is `apsw` with SQLite 3.54 in its wheel: one SQLite with one behaviour on every machine,
without the WAL-reset bug that the standard library's may have (https://sqlite.org/wal.html#walresetbug).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import apsw

from jarvis._disk import files, traces
from jarvis._sql import preselection
from jarvis._sql.dialect import Dialect
from jarvis._sqlite import cipher
from jarvis.errors import (
    WAY_OUT,
    CorruptStoreError,
    ReadOnlyStoreError,
    StoreAccessError,
    StoreBusyError,
    StoreError,
    StoreFullError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from jarvis.encryption.data_key import DataKey

WORDS = {
    "here": "TRUE",
    "unindexed": "+",
    "join_in_order": "CROSS JOIN",
    "clock": "clock",
    "column_here": "",
    "value_here": "",
    "members": "SELECT value FROM json_each",
    "numbers": "SELECT value FROM json_each",
    "pages": "PRAGMA page_count",
}
VALUES = preselection.tests("json_extract", "json_type", WORDS["members"])
DIALECT = Dialect(**WORDS, values=VALUES)
"""Numbers are unique in the whole store. https://sqlite.org/optoverview.html explains the plus and the CROSS JOIN."""

RESERVED_BYTES = 8
"""Bytes at the end of each page for its checksum (https://sqlite.org/cksumvfs.html)."""

WAL_PAGES = 4_000
"""The pages in the log at which SQLite checkpoints: p99.9 of writes is 0.6 ms, and 22 ms at 1,000 pages."""

SETTINGS = f"""
PRAGMA wal_autocheckpoint = {WAL_PAGES};
PRAGMA journal_size_limit = {WAL_PAGES * 4096};
PRAGMA cache_size = -8192;
PRAGMA secure_delete = ON;
PRAGMA temp_store = MEMORY;
PRAGMA mmap_size = 0;
PRAGMA cell_size_check = ON;
PRAGMA trusted_schema = OFF;
"""

_MANY_LOOKS = 100
_STEP = re.compile(r"(?:SEARCH|SCAN) ([egn])\b(?:.*? INDEX (\w+))?")  # by the aliases of `jarvis._sql.select`
_FILES_OF_A_CONNECTION = 4
_JOURNAL_BYTES = len("-journal")

vfs = "cksmvfs"
"""SQLite's file layer for plain stores, with page checksums. A test puts its own layer on top."""

cipher_vfs: str | None = None
"""SQLite's file layer for encrypted stores; None: the driver's default, with the page cipher. A test puts one below."""


@functools.cache
def load_checksums() -> None:
    """Register the checksumming file layer, once per process, without making it everybody's default.

    Raises:
        UnsupportedError: a part of apsw's wheel is missing, as in a bundle that left out its libraries.
    """
    default = apsw.vfs_names()[0]
    connection = apsw.Connection(":memory:")
    # The path that `apsw.sqlite_extra` uses, without its import of 9 ms; SQLite adds the suffix.
    library = os.path.join(os.path.dirname(apsw.__file__), "sqlite_extra_binaries", "cksumvfs")
    try:
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1)
        connection.load_extension(library)
    except apsw.ExtensionLoadingError:
        _load_extra(connection)
    finally:
        connection.close()
    apsw.set_default_vfs(default)


def _load_extra(connection: apsw.Connection) -> None:
    """Load the file layer from the path that apsw gives."""
    try:
        from apsw import sqlite_extra

        try:
            sqlite_extra.load(connection, "cksumvfs")
        except sqlite_extra.NotAvailable as error:
            raise LookupError from error
    except (ImportError, OSError, ValueError, LookupError, apsw.Error) as error:
        raise UnsupportedError(
            "the backend 'sqlite' lacks the library cksumvfs of the package apsw-sqlite3mc; bundle all files of the "
            "package (with PyInstaller: --collect-all apsw), or install it again"
        ) from error


def connect(
    path: str, *, key: DataKey | None, durability: str, busy_timeout_seconds: float, checksums: bool = True
) -> apsw.Connection:
    """Return a connection for reading and writing to the file at `path`, which exists.

    Args:
        path: the file.
        key: the key of an encrypted store.
        durability: ``full`` syncs each commit; ``normal`` survives a killed process, not a power cut.
        busy_timeout_seconds: how long SQLite waits for a lock of another program.
        checksums: verify the pages' checksums at each read; an encrypted store's are always verified.

    Raises:
        apsw.Error: see `translated`.
    """
    connection = opened(path, key)
    try:
        if not checksums:
            connection.execute("PRAGMA checksum_verification = OFF").fetchall()
        connection.set_busy_timeout(int(busy_timeout_seconds * 1000))
        # Only shutdown() checkpoints at closing, under the writers' lock: see `database.Database.shutdown`.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        _keep_plans(connection)
        connection.execute(SETTINGS).fetchall()
        if key is not None:  # the same number of bytes, in smaller pages
            pages = int(connection.pragma("wal_autocheckpoint"))
            connection.wal_autocheckpoint(pages * cipher.PLAIN_PAGE_BYTES // cipher.PAGE_BYTES)
        connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'full' else 'NORMAL'}")
        if sys.platform == "darwin":  # fsync does not reach the platter there
            connection.execute("PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def opened(path: str, key: DataKey | None) -> apsw.Connection:
    """Return a connection without settings to a plain file with checksums, or to an encrypted one with its key."""
    load_checksums()
    _check_length(path, vfs if key is None else cipher_vfs)
    if key is None:
        return apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs)
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE, vfs=cipher_vfs)
    try:
        cipher.unlock(connection, key, path)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_read_only(
    path: str,
    *,
    key: DataKey | None,
    immutable: bool,
    checksums: bool,
    busy_timeout_seconds: float,
    views: Callable[[apsw.Connection], str],
) -> apsw.Connection:
    """Return a connection that writes nothing, not even the shared memory beside a live log.

    Args:
        key: the key of an encrypted store.
        immutable: there is no log beside the file, so it is read without locks and shared memory, as read-only media
            need; the caller watches for a writer.
        busy_timeout_seconds: as for `connect`.
        views: returns the SQL of the connection's temporary views.
    """
    from urllib.parse import quote

    load_checksums()
    _check_length(path, vfs if key is None else cipher_vfs)
    how = "immutable=1" if immutable else "readonly_shm=1"
    connection = apsw.Connection(
        f"file:{quote(path)}?mode=ro&{how}",
        flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
        vfs=vfs if key is None else cipher_vfs,
    )
    try:
        if key is not None:
            cipher.unlock(connection, key, path)
        connection.set_busy_timeout(int(busy_timeout_seconds * 1000))
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        _keep_plans(connection)
        if not checksums:
            connection.execute("PRAGMA checksum_verification = OFF").fetchall()
        connection.execute(f"PRAGMA temp_store = MEMORY; PRAGMA cache_size = -8192; {views(connection)}").fetchall()
        connection.execute("PRAGMA query_only = ON").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _check_length(path: str, layer: str | None) -> None:
    """Raise `StoreAccessError` if the path is too long for SQLite, whose own error does not say so."""
    size, most = len(os.fsencode(path)), _longest_path(layer) - _JOURNAL_BYTES
    if size > most:
        raise StoreAccessError(
            path,
            f"cannot be opened: its path has {size:,} bytes, and SQLite takes at most {most:,}; choose a shorter one",
        )


@functools.cache
def _longest_path(layer: str | None) -> int:
    lengths = {details["zName"]: int(details["mxPathname"]) for details in apsw.vfs_details()}
    return lengths.get(str(layer), min(lengths.values()))


def _keep_plans(connection: apsw.Connection) -> None:
    """Make plans independent of bound values: a SQLite with STAT4 prepares some statements again for each value.

    A list of one entry by key took 8 µs in SQLite, and takes 3 with this
    (https://sqlite.org/queryplanner-ng.html#qpstab).
    """
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)


def chunks_of(path: str, size: int | None = None) -> Iterator[bytes]:
    """Yield the bytes of a store's file, or its first `size` bytes, in chunks, as `traces.chunks_of` does.

    SQLite reads the file: to close a descriptor of our own would release all locks that this process has on it, and
    others could then remove the log that its connections write to (https://sqlite.org/howtocorrupt.html, 2.2).

    Raises:
        OSError: the file cannot be read, or is no regular file.
    """
    files.check_regular(path)
    if "unix" not in apsw.vfs_names():
        yield from traces.chunks_of(path)
        return
    try:
        file = apsw.VFSFile("unix", path, [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY, 0])
        try:
            size = file.xFileSize() if size is None else min(size, file.xFileSize())
            for start in range(0, size, traces.CHUNK):
                yield file.xRead(min(traces.CHUNK, size - start), start)
        finally:
            file.xClose()
    except apsw.Error as error:
        os.stat(path)  # raises if it was removed meanwhile
        files.check_descriptors()
        raise OSError(errno.EIO, os.strerror(errno.EIO), path) from error


def beginning_of(path: str) -> bytes:
    """Return the first 16 bytes of the store at `path`: `cipher.PLAIN`, or the salt of its key.

    Raises:
        OSError: the file cannot be read.
    """
    return next(chunks_of(path, cipher.SALT_BYTES), b"")[: cipher.SALT_BYTES]


def count_frames(connection: apsw.Connection) -> int:
    """Return how many frames of the write-ahead log SQLite accepts.

    SQLite does not wait for a lock here: a look at the log's index while a writer changes it, one in 20,000, returns
    "busy" at once and is repeated.

    Raises:
        apsw.Error: see `translated`.
    """
    for _ in range(_MANY_LOOKS):
        with contextlib.suppress(apsw.BusyError):
            return connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)[0]
        time.sleep(0.001)
    return connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)[0]


def translated(path: str, error: apsw.Error, doing: str, system_errno: int = 0) -> StoreError:
    """Return our error for the driver's `error` about the store at `path`.

    `system_errno` is the connection's last error of the operating system, 0 if not known.
    """
    extended = extended_code(error)
    if isinstance(error, (apsw.BusyError, apsw.LockedError, apsw.ProtocolError)):
        return StoreBusyError(
            path,
            f"cannot {doing}: another program keeps it locked; let it finish, or raise busy_timeout_seconds",
        )
    if isinstance(error, (apsw.CorruptError, apsw.NotADBError, apsw.FormatError)) or extended in (
        apsw.SQLITE_IOERR_DATA,
        apsw.SQLITE_IOERR_SHORT_READ,
        apsw.SQLITE_IOERR_CORRUPTFS,
    ):
        return corrupt(path)
    if isinstance(error, apsw.SQLError) and "malformed JSON" in str(error):  # a condition of `jarvis._sql.preselection`
        return corrupt(path, "an entry cannot be decoded")
    is_full = isinstance(error, apsw.FullError) or extended == apsw.SQLITE_IOERR_SHMSIZE  # no room for the log's index
    if is_full or system_errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreFullError(
            path,
            f"cannot {doing}: the disk or a quota is full; nothing of this write was kept, free some space and retry",
        )
    if isinstance(error, (apsw.ReadOnlyError, apsw.PermissionsError)):
        return ReadOnlyStoreError(
            path, f"cannot {doing}: the file or its directory may not be written; check their owner and mode"
        )
    if isinstance(error, apsw.CantOpenError):
        try:
            files.check_descriptors(_FILES_OF_A_CONNECTION)
            files.check_room(os.path.dirname(path))  # for the log, or its index
        except OSError as lack:
            return files.translated(path, lack, doing)
        return StoreAccessError(
            path,
            f"cannot {doing}: it, or the log beside it, cannot be opened; check the owner and mode of the directory",
        )
    name = apsw.mapping_extended_result_codes.get(extended) or apsw.mapping_result_codes.get(extended & 0xFF)
    return StoreAccessError(path, f"cannot {doing}: SQLite reports {name or type(error).__name__}")


class Looks:
    """Counts the rows that statements look at."""

    def __init__(self) -> None:
        self.count = 0

    def look(self, *_: object) -> int:
        """Count a row; statements call this as ``looked_at``."""
        self.count += 1
        return 1


def leading_index(plan: Iterable[str]) -> str:
    """Return the index by which a plan (https://sqlite.org/eqp.html) reads entries first; ``"none"`` for a scan."""
    for step in plan:
        match = _STEP.match(step)
        if match:
            return "tags" if match[1] in "gn" else match[2] or "none"
    return "none"


def extended_code(error: apsw.Error) -> int:
    """Return SQLite's extended result code of an error, 0 if it has none (https://sqlite.org/rescode.html)."""
    return int(getattr(error, "extendedresult", 0))


def corrupt(path: str, finding: str = "a page fails its checksum or its structure is broken") -> CorruptStoreError:
    """Return the error that says that the store is damaged, and what to do."""
    return CorruptStoreError(
        path,
        f"is damaged: {finding}; nothing was answered from it and its bytes were left as they are; {WAY_OUT}",
    )
