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
CURRENT_VERSION = 2
MIGRATING = -1
"""User version of a first-life store whose entries are moved and whose pages are not yet rewritten."""

FIRST_LIFE_COLUMNS = (
    "id",
    "category",
    "key",
    "value",
    "tags",
    "entity_type",
    "entity_id",
    "timestamp",
    "provenance",
    "created_at",
)
"""Of its one table, ``memories``; the last one was not there from the beginning."""

READABLE_VERSIONS = (1, 2)
"""What is answered from as it is; only writing needs `CURRENT_VERSION`."""


def clock_checksum(fields: tuple[int, ...]) -> int:
    """Return the CRC-32 that `clock.checksum` holds of (commit number, made, names generation)."""
    return binascii.crc32(repr(tuple(fields)).encode())


def row_checksum(fields: tuple[object, ...], body: bytes | str) -> int:
    """Return the CRC-32 that `entries.checksum` holds.

    Args:
        fields: commit number, namespace, id, category, key, entity type, entity id, instant, version: names
            as text, not as the numbers they are interned as.
        body: as stored.
    """
    text = body.encode() if isinstance(body, str) else body
    return binascii.crc32(text, binascii.crc32(repr(fields).encode()))


# `row` is the commit number of the entry's last change: every index ends with it for free, so the
# order (instant, commit number) of lists comes out of each of them without sorting. Strings that
# repeat (namespace, category, entity type, tag) are interned in `names`, whose ids are never given
# twice: 724 bytes an entry became 550 in the prototype.
#
# Each index costs a write its own page in the log, about 5 µs, so there are no more than there are questions.
#
# Version 2 has the packed bodies of `jarvis.entry_record` (those of version 1 are read where they
# are), and no index by category and key: few entries share a key.
TABLES = f"""
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
    body TEXT NOT NULL,          -- JSON of what is not looked up, see jarvis.entry_record
    checksum INTEGER NOT NULL    -- CRC-32 of all the others, for verification of the whole
) STRICT;
CREATE UNIQUE INDEX entries_by_id ON entries (namespace, id);
CREATE INDEX entries_by_time ON entries (namespace, instant);
CREATE INDEX entries_by_key ON entries (namespace, key, instant);
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
    commit_number INTEGER NOT NULL,   -- of the last change, if no entry has a greater one in its row
    made INTEGER NOT NULL,            -- instant of the last timestamp that the module made; else that entry's
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
    ('entries', 'entries_by_category', '1000000 1000000 50000 2 1 1'),
    ('entries', 'entries_by_type', '1000000 1000000 100000 2'),
    ('entries', 'entries_by_entity', '1000000 1000000 20 2'),
    ('tags', 'tags', '3000000 3000000 20000 2 1'),
    ('names', 'sqlite_autoindex_names_1', '1000 1');
"""

VIEW = """
CREATE VIEW memories AS
SELECT id, category, key, value, tags, entity_type, entity_id, timestamp,
       CASE json_type(author) WHEN 'object' THEN author ELSE
            json_object('module', author ->> 0, 'task_id', author ->> 1, 'created_at', timestamp) END AS provenance,
       namespace
FROM (
    SELECT e.id, c.name AS category, e.key, t.name AS entity_type, e.entity_id, n.name AS namespace,
           coalesce(json_extract(e.body, '$[0]'), json_extract(e.body, '$.value')) AS value,
           coalesce(json_extract(e.body, '$[1]'), json_extract(e.body, '$.tags')) AS tags,
           coalesce(json_extract(e.body, '$[2]'), json_extract(e.body, '$.provenance')) AS author,
           coalesce(json_extract(e.body, '$[3][0]'), json_extract(e.body, '$[3]') || '+00:00',
                    json_extract(e.body, '$.timestamp')) AS timestamp,
           e.instant, e.row
    FROM entries AS e
    JOIN names AS n ON n.id = e.namespace
    JOIN names AS c ON c.id = e.category
    JOIN names AS t ON t.id = e.entity_type
)
ORDER BY instant DESC, row DESC;
"""
"""The nine fields of each entry, for other tools, from either form of its body."""

CURRENT = TABLES + VIEW

_TO_VERSION_2 = f"""
DROP VIEW memories;
{VIEW}
DROP INDEX entries_by_category_key;
DELETE FROM sqlite_stat1 WHERE idx = 'entries_by_category_key';
"""


def migrate(connection: apsw.Connection) -> None:
    """Make a whole store of version 1 one of the current version, in one transaction that touches no entry.

    Needs the writer lock. No-op on a store that is current.
    """
    if read_mark(connection)[1] == 1:
        with connection:
            connection.execute(_TO_VERSION_2).fetchall()
            mark(connection, 2)


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
                connection.execute(f"BEGIN; {CURRENT}").fetchall()
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


def is_first_life(connection: apsw.Connection) -> bool:
    """Tell whether the file is a store of the first life: unmarked, with its table."""
    if read_mark(connection) != (0, 0):
        return False
    found = connection.execute("SELECT name FROM pragma_table_info('memories')").fetchall()
    return {name for (name,) in found}.issuperset(FIRST_LIFE_COLUMNS[:-1])


def mark(connection: apsw.Connection, version: int) -> None:
    """Write into the file's header that it is a store of ours, of `version`."""
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {version}")


def read_mark(connection: apsw.Connection) -> tuple[int, int]:
    """Return (application id, user version) from the file's header."""
    return int(connection.pragma("application_id")), int(connection.pragma("user_version"))


def last_commit(connection: apsw.Connection) -> int:
    """Return the number of the last commit that the connection sees."""
    rows: list[Any] = connection.execute(READ_CLOCK).fetchall()
    return clock(rows[0])[0]


READ_CLOCK = """
SELECT commit_number, made, names_generation, row, instant
FROM clock LEFT JOIN (SELECT row, instant FROM entries ORDER BY row DESC LIMIT 1)
"""


def clock(read: tuple[int, int, int, int | None, int]) -> tuple[int, int, int]:
    """Return (commit number, made, names generation) of what `READ_CLOCK` gave.

    A change that only adds or replaces an entry, at an instant that the module made, says both
    numbers by that entry, and leaves the clock's page alone; any other change writes the clock.
    """
    commit, made, generation, row, instant = read
    return (commit, made, generation) if row is None or row <= commit else (row, instant, generation)
