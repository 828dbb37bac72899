"""The tables of a store, the numbers that say it is one of ours, and how one is created."""

from __future__ import annotations

import binascii
import contextlib
import os
from typing import Any

import apsw

from jarvis import _files
from jarvis._sqlite import driver

APPLICATION_ID = 0x4A525653  # "JRVS": what `file` and other tools can recognise
CURRENT_VERSION = 1
MIGRATING = -1
"""User version of a first-life store whose entries are moved and whose pages are not yet rewritten."""


def clock_checksum(fields: tuple[int, ...]) -> int:
    """Return the CRC-32 that `clock.checksum` holds of (commit number, made, names generation)."""
    return binascii.crc32(repr(tuple(fields)).encode())


# `row` is the commit number of the entry's last change: every index ends with it for free, so the
# order (instant, commit number) of lists comes out of each of them without sorting. Strings that
# repeat (namespace, category, entity type, tag) are interned in `names`, whose ids are never given
# twice: 724 bytes an entry became 550 in the prototype.
VERSION_1 = f"""
CREATE TABLE names (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE entries (
    row INTEGER PRIMARY KEY,
    namespace INTEGER NOT NULL,
    id TEXT NOT NULL,
    category INTEGER NOT NULL,
    key TEXT NOT NULL,
    entity_type INTEGER NOT NULL,
    entity_id TEXT,
    instant INTEGER NOT NULL,    -- microseconds since 1970 UTC of `timestamp`
    version INTEGER NOT NULL,
    body TEXT NOT NULL,          -- JSON: value, tags, timestamp, provenance
    checksum INTEGER NOT NULL    -- CRC-32 of all the others, for verification of the whole
) STRICT;
CREATE UNIQUE INDEX entries_by_id ON entries (namespace, id);
CREATE INDEX entries_by_time ON entries (namespace, instant);
CREATE INDEX entries_by_key ON entries (namespace, key, instant);
CREATE INDEX entries_by_category_key ON entries (namespace, category, key, instant);
CREATE INDEX entries_by_category ON entries (namespace, category, instant, row, entity_type);
CREATE INDEX entries_by_type ON entries (namespace, entity_type, instant);
CREATE INDEX entries_by_entity ON entries (namespace, entity_id, instant) WHERE entity_id IS NOT NULL;

CREATE TABLE tags (
    namespace INTEGER NOT NULL,
    tag INTEGER NOT NULL,
    instant INTEGER NOT NULL,
    row INTEGER NOT NULL,
    category INTEGER NOT NULL,
    entity_type INTEGER NOT NULL,
    PRIMARY KEY (namespace, tag, instant, row)
) STRICT, WITHOUT ROWID;

CREATE TABLE clock (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    commit_number INTEGER NOT NULL,   -- of the last change
    made INTEGER NOT NULL,            -- instant of the last timestamp that the module made
    names_generation INTEGER NOT NULL, -- counts the erasures of names
    checksum INTEGER NOT NULL         -- CRC-32 of the three before
) STRICT;
INSERT INTO clock VALUES (1, 0, 0, 0, {clock_checksum((0, 0, 0))});

-- What ANALYZE would find in a large store: average rows per prefix of each index. Written once by
-- hand, so that the plan of a query never changes with the store (https://sqlite.org/fileformat2.html#stat1tab).
ANALYZE sqlite_schema;
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('entries', 'entries_by_id', '1000000 1000000 1'),
    ('entries', 'entries_by_time', '1000000 1000000 2'),
    ('entries', 'entries_by_key', '1000000 1000000 3 1'),
    ('entries', 'entries_by_category_key', '1000000 1000000 50000 2 1'),
    ('entries', 'entries_by_category', '1000000 1000000 50000 2 1 1'),
    ('entries', 'entries_by_type', '1000000 1000000 100000 2'),
    ('entries', 'entries_by_entity', '1000000 1000000 20 2'),
    ('tags', 'tags', '3000000 3000000 20000 2 1'),
    ('names', 'sqlite_autoindex_names_1', '1000 1');

CREATE VIEW memories AS
SELECT e.id, c.name AS category, e.key, json_extract(e.body, '$.value') AS value,
       json_extract(e.body, '$.tags') AS tags, t.name AS entity_type, e.entity_id,
       json_extract(e.body, '$.timestamp') AS timestamp,
       json_extract(e.body, '$.provenance') AS provenance, n.name AS namespace
FROM entries AS e
JOIN names AS n ON n.id = e.namespace
JOIN names AS c ON c.id = e.category
JOIN names AS t ON t.id = e.entity_type
ORDER BY e.instant DESC, e.row DESC;
"""


def create_store(path: str) -> None:
    """Create an empty store at `path` in one step; no-op if a file is there. Needs the writer lock.

    A store is built under another name, synced and linked into place, so a zero-byte or half-written
    file at `path` is always damage and never a store that is being created.
    """
    temporary = _files.temporary_path(path)
    with _files.explaining(path, "create the store"):
        os.close(_files.system.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        try:
            driver.load_checksums()
            connection = apsw.Connection(temporary, flags=apsw.SQLITE_OPEN_READWRITE, vfs=driver.vfs)
            try:
                connection.execute("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF").fetchall()
                connection.reserve_bytes(reserve=driver.RESERVED_BYTES)
                connection.execute(f"BEGIN; {VERSION_1}").fetchall()
                mark(connection, CURRENT_VERSION)
                connection.execute("COMMIT")
                connection.execute("PRAGMA journal_mode = WAL").fetchall()
            finally:
                connection.close()
            descriptor = _files.system.open(temporary, os.O_RDWR)
            try:
                _files.system.sync(descriptor)
            finally:
                os.close(descriptor)
            _files.put_in_place(temporary, path, keep_existing=True)
        except apsw.Error as error:
            _remove(temporary)
            raise driver.translated(path, error, "create the store") from error
        except BaseException:
            _remove(temporary)
            raise


def _remove(temporary: str) -> None:
    for name in (temporary, f"{temporary}-wal", f"{temporary}-shm"):
        with contextlib.suppress(OSError):  # what stays is removed at the next opening for writing
            _files.system.unlink(name)


def mark(connection: apsw.Connection, version: int) -> None:
    """Write into the file's header that it is a store of ours, of `version`."""
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {version}")


def read_mark(connection: apsw.Connection) -> tuple[int, int]:
    """Return (application id, user version) from the file's header."""
    return int(connection.pragma("application_id")), int(connection.pragma("user_version"))


def last_commit(connection: apsw.Connection) -> int:
    """Return the number of the last commit that the connection sees."""
    rows: list[Any] = connection.execute("SELECT commit_number FROM clock").fetchall()
    return int(rows[0][0])
