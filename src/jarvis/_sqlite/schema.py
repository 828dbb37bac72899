"""Creates a store: its tables, and the numbers that mark it as one of ours."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

import apsw

from jarvis._disk import files
from jarvis._sql import registry
from jarvis._sql.tables import (
    CLEARED,
    CLOCK_COLUMNS,
    COPY,
    FIRST_WITH_PAST,
    FIRST_WITH_VECTORS,
    FIRST_WITH_WORDS,
    READ_FIRST_CLOCK,
    REMOVED,
    RESTORED,
    WRITE_CLOCK,
    ClockRow,
    clock_checksum,
    clock_row,
)
from jarvis._sqlite import cipher, engine, vector_tables, word_tables
from jarvis.model.change import new_generation

if TYPE_CHECKING:
    from jarvis.encryption.data_key import DataKey

APPLICATION_ID = 0x4A525653  # "JRVS": `file` and other tools can recognise it
CURRENT_VERSION = 9
FIRST_WITH_EXPIRY = 4
"""The first version whose entries may expire, and whose stores know of unfinished erasures."""

FIRST_WITH_PACKED = 5
"""The first version whose values may be compressed."""

FIRST_WITH_GENERATION = 6
"""The first version whose stores have a generation, see `jarvis.capabilities.MarksCursors`."""

FIRST_WITH_CREATION = 7
"""The first version whose entries have the instant of their creation in a column."""

MIGRATING = -1
"""User version of a first-life store after its entries were moved and before its pages are rewritten."""

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
"""The columns of its one table, ``memories``; the earliest stores lack the last one."""

READABLE_VERSIONS = (1, 2, 3, 4, 5, 6, 7, 8)
"""The versions that can be read as they are; only writes, and the past, need `CURRENT_VERSION`."""


# `row` is the commit number of the entry's last change. SQLite adds it to every index, so each index returns lists in
# the order (instant, commit number) without sorting. Strings that repeat (namespace, category, entity type, tag) are
# interned in `names`, whose ids are never given twice: 724 bytes an entry became 550 in the prototype.
#
# Each index costs a write its own page in the log, about 5 µs, so each one serves a kind of question.
#
# Version 2 has the packed bodies of `jarvis.model.record` (bodies of version 1 stay as they are), and no index by
# category and key: few entries share a key. Version 3 has `HISTORY`. In version 4 entries may expire: `expires` is
# NULL for most, which its index leaves out. In version 5 the value of an entry may be compressed: then the body has
# null in its place, which earlier versions refuse to decode. Version 7 has `created`, by which lists can be ordered.
# Version 8 has an index of words.
TABLES = """
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
    body TEXT NOT NULL,          -- JSON of what is not looked up, see jarvis.model.record
    checksum INTEGER NOT NULL,   -- CRC-32 of all the others, for verification of the whole
    expires INTEGER,             -- from this instant on the entry is absent
    packed BLOB,                 -- the value, compressed, if the body says null in its place
    created INTEGER              -- instant of the creation, if it is not that of `timestamp`
) STRICT;
CREATE UNIQUE INDEX entries_by_id ON entries (namespace, id);
CREATE INDEX entries_by_time ON entries (namespace, instant);
CREATE INDEX entries_by_key ON entries (namespace, key, instant);
CREATE INDEX entries_by_category ON entries (namespace, category, instant, row, entity_type);
CREATE INDEX entries_by_type ON entries (namespace, entity_type, instant);
CREATE INDEX entries_by_entity ON entries (namespace, entity_id, instant) WHERE entity_id IS NOT NULL;
CREATE INDEX entries_by_expiry ON entries (expires, namespace, category, entity_type) WHERE expires IS NOT NULL;

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
    checksum INTEGER NOT NULL,        -- CRC-32 of the others
    begins INTEGER,                   -- from this instant on the past is known; NULL before the first change
    ahead INTEGER NOT NULL DEFAULT 0, -- how far a timestamp that a caller gave lies behind its change, at most
    fed_from INTEGER NOT NULL DEFAULT 0, -- every change with a greater number is known to the feed
    erasing INTEGER NOT NULL DEFAULT 0, -- what is still to be done so that nothing is left of what was erased
    generation INTEGER NOT NULL DEFAULT 0, -- a random number, in each cursor of the feed
    copied INTEGER NOT NULL DEFAULT 0   -- 1: a copy that nobody has written to; 2: a store that was one
) STRICT;

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
    ('entries', 'entries_by_expiry', '1000 1 1 1 1'),
    ('tags', 'tags', '3000000 3000000 20000 2 1'),
    ('names', 'sqlite_autoindex_names_1', '1000 1');
"""

# When a change ends a state of an entry, the state moves unchanged to `revisions`, and its tags to `past_tags`. Both
# have the columns and indexes that questions need. Each index also has the columns that show whether the state was
# visible at a moment, see `jarvis.model.revision.Cutoff`. A pruned state leaves a row in `gaps`, so that a question
# about a missing state is refused.
HISTORY = f"""
CREATE TABLE revisions (
    ended INTEGER PRIMARY KEY,        -- commit number of the change that ended the state
    made INTEGER NOT NULL,            -- instant of that change
    change TEXT NOT NULL,             -- JSON: [operation, module, task id, reason]
    change_checksum INTEGER NOT NULL,
    row INTEGER NOT NULL,             -- from here on as in entries
    namespace INTEGER NOT NULL,
    id TEXT NOT NULL,
    category INTEGER NOT NULL,
    key TEXT NOT NULL,
    entity_type INTEGER NOT NULL,
    entity_id TEXT,
    instant INTEGER NOT NULL,
    version INTEGER NOT NULL,
    body TEXT NOT NULL,
    checksum INTEGER NOT NULL,
    expires INTEGER,
    packed BLOB,
    created INTEGER
) STRICT;
CREATE INDEX revisions_by_id ON revisions (namespace, id);
CREATE INDEX revisions_by_time ON revisions (namespace, instant, row, made, entity_type);
CREATE INDEX revisions_by_key ON revisions (namespace, key, instant, row, made);
CREATE INDEX revisions_by_category ON revisions (namespace, category, instant, row, made, entity_type);
CREATE INDEX revisions_by_entity ON revisions (namespace, entity_id, instant, row, made) WHERE entity_id IS NOT NULL;
CREATE INDEX revisions_created ON revisions (row) WHERE version = 1;
CREATE INDEX revisions_cleared ON revisions (made) WHERE {CLEARED};
CREATE INDEX revisions_by_expiry ON revisions (expires) WHERE expires IS NOT NULL AND {REMOVED};

CREATE TABLE past_tags (
    namespace INTEGER NOT NULL,
    tag INTEGER NOT NULL,
    instant INTEGER NOT NULL,
    row INTEGER NOT NULL,
    category INTEGER NOT NULL,
    entity_type INTEGER NOT NULL,
    ended INTEGER NOT NULL,
    made INTEGER NOT NULL,
    PRIMARY KEY (namespace, tag, instant, row)
) STRICT, WITHOUT ROWID;

CREATE TABLE commits (                -- transactions that are not one change, visible at its own instant
    last INTEGER PRIMARY KEY,         -- greatest commit number
    first INTEGER NOT NULL,           -- smallest
    moment INTEGER NOT NULL           -- instant at which they became visible
) STRICT;
CREATE INDEX commits_by_moment ON commits (moment, last, first);

CREATE TABLE events (                 -- changes that neither an entry nor a revision tells (any more)
    number INTEGER PRIMARY KEY,       -- commit number
    made INTEGER NOT NULL,
    namespace INTEGER NOT NULL,       -- or, of an erasure, a digest of its name: see jarvis._sql.feed
    change TEXT NOT NULL,             -- JSON: [operation, module, task id, reason]
    id TEXT,
    category INTEGER,
    key TEXT,
    version INTEGER,
    count INTEGER NOT NULL,
    checksum INTEGER NOT NULL         -- CRC-32 of all the others
) STRICT;

CREATE INDEX erasures ON events (namespace, number) WHERE id IS NULL;

CREATE TABLE gaps (                   -- what was pruned of entries that have later states
    namespace INTEGER NOT NULL,
    id TEXT NOT NULL,
    category INTEGER,                 -- of all of them; NULL, as in the next three, if they differ
    key TEXT,
    entity_type INTEGER,
    entity_id TEXT,
    row INTEGER NOT NULL,             -- of the first state that is missing
    instant INTEGER NOT NULL,
    ended INTEGER NOT NULL,           -- of the last one
    made INTEGER NOT NULL,
    expires INTEGER,                  -- from this instant on nothing of it was there anyway
    PRIMARY KEY (namespace, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX gaps_by_end ON gaps (made);

INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('revisions', 'revisions_by_id', '1000000 1000000 10'),
    ('revisions', 'revisions_by_time', '1000000 1000000 2 1 1 1'),
    ('revisions', 'revisions_by_key', '1000000 1000000 30 1 1 1'),
    ('revisions', 'revisions_by_category', '1000000 1000000 50000 2 1 1 1'),
    ('revisions', 'revisions_by_entity', '1000000 1000000 200 2 1 1'),
    ('revisions', 'revisions_cleared', '1000000 1000'),
    ('revisions', 'revisions_created', '100000 1'),
    ('revisions', 'revisions_by_expiry', '1000 1'),
    ('past_tags', 'past_tags', '3000000 3000000 20000 2 1'),
    ('events', 'erasures', '100 10 1'),
    ('commits', 'commits_by_moment', '1000000 1 1 1'),
    ('gaps', 'gaps', '10000 10000 1'),
    ('gaps', 'gaps_by_end', '10000 1');
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
    WHERE e.expires IS NULL OR e.expires > (julianday('now') - 2440587.5) * 86400000000
)
ORDER BY instant DESC, row DESC;
"""
"""The nine fields of each entry that has not expired, for other tools, from both forms of the body.

A compressed value is NULL there.
"""

CURRENT = f"""{TABLES}
INSERT INTO clock VALUES (1, 0, 0, 0, {clock_checksum((0, 0, 0, None, 0, 0, 0, 0, 0))}, NULL, 0, 0, 0, 0, 0);
{HISTORY}{word_tables.CREATE}{vector_tables.CREATE}{VIEW}"""

_NEWEST = "SELECT max(instant) FROM entries"


def begin_history(connection: apsw.Connection, commit: int, made: int, generation: int) -> None:
    """Begin the known past at the present state of the store.

    Args:
        connection: a connection inside a transaction, to a store of the current version.
        commit: the number of the last change.
        made: the instant of the last timestamp that the module made, or 0.
        generation: the number of erasures of names.
    """
    instant: Any = connection.execute(_NEWEST).fetchall()[0][0]
    newest = int(instant or 0)
    made = made or min(newest, time.time_ns() // 1000)
    begins = made if commit else None
    if commit:
        connection.execute("INSERT INTO commits (last, first, moment) VALUES (?, 1, ?)", (commit, made))
    fields = ClockRow(commit, made, generation, begins, max(newest - made, 0), commit, 0, new_generation())
    connection.execute(engine.DIALECT.say(WRITE_CLOCK), (*fields, clock_checksum(fields)))


def erasing(connection: apsw.Connection) -> int:
    """Return the clean-up that an erasure still needs, in a store of the current version."""
    rows: Any = connection.execute("SELECT erasing FROM clock").fetchall()
    return int(rows[0][0])


def set_erasing(connection: apsw.Connection, left: int) -> None:
    """Note the clean-up that an erasure still needs, in a transaction of its own. Needs the writers' lock."""
    with connection:
        _change_clock(connection, erasing=left)


def begin_generation(connection: apsw.Connection) -> None:
    """Give a store without a generation one. Needs the writers' lock."""
    _change_clock(connection, generation=new_generation())


def mark_copied(connection: apsw.Connection) -> None:
    """Mark a copy as one; no-op if its version has no generations."""
    if read_mark(connection)[1] >= FIRST_WITH_GENERATION:
        _change_clock(connection, copied=COPY)


def renew_generation(connection: apsw.Connection) -> None:
    """Give a copy that is first opened for writing its own generation; no-op on others. Needs the writers' lock."""
    rows: Any = connection.execute("SELECT copied FROM clock").fetchall()
    if rows[0][0] == COPY:
        with connection:
            _change_clock(connection, generation=new_generation(), copied=RESTORED)


def remove_unused_names(connection: apsw.Connection) -> None:
    """Remove the names that no row uses, and tell every process. Needs the writers' lock."""
    used = " UNION ".join(
        f"SELECT {column} FROM {table.name} WHERE {column} IS NOT NULL"
        for table in registry.tables()
        for column in table.names
    )
    with connection:
        connection.execute(f"DELETE FROM names WHERE id NOT IN ({used})")
        if connection.changes():
            rows: Any = connection.execute("SELECT names_generation FROM clock").fetchall()
            _change_clock(connection, names_generation=rows[0][0] + 1)


def _change_clock(connection: apsw.Connection, **changes: int) -> None:
    rows: Any = connection.execute(f"SELECT {CLOCK_COLUMNS} FROM clock").fetchall()
    fields = tuple(ClockRow(*rows[0])._replace(**changes))
    connection.execute(engine.DIALECT.say(WRITE_CLOCK), (*fields, clock_checksum(fields)))


def create_store(path: str, key: DataKey | None, language: str) -> None:
    """Create an empty store at `path`, encrypted if a key is given, in one step; no-op if a file is there.

    Its texts are to be indexed in this language.

    Needs the writers' lock.

    The store is built under another name, synced and linked into place. So a zero-byte or half-written file at `path`
    is always damaged, and never a store that is being created.
    """
    temporary = files.temporary_path(path)
    with files.explaining(path, "create the store"):
        os.close(files.create(temporary))
        try:
            connection = engine.opened(temporary, key)
            try:
                connection.execute("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF").fetchall()
                if key is None:
                    connection.reserve_bytes(reserve=engine.RESERVED_BYTES)
                connection.execute(f"BEGIN; {CURRENT}").fetchall()
                word_tables.set_language(connection, language)
                begin_generation(connection)
                mark(connection, CURRENT_VERSION)
                connection.execute("COMMIT")
                connection.execute("PRAGMA journal_mode = WAL").fetchall()
                if key is not None:
                    cipher.check(connection, engine.beginning_of(temporary), key, temporary)
            finally:
                connection.close()
            files.sync_file(temporary)
            files.put_in_place(temporary, path, keep_existing=True, strict=True)
        except apsw.Error as error:
            _remove(temporary)
            raise engine.translated(path, error, "create the store") from error
        except BaseException:
            _remove(temporary)
            raise


def _remove(temporary: str) -> None:
    for name in (temporary, f"{temporary}-wal", f"{temporary}-shm"):
        with contextlib.suppress(OSError):  # the next opening for writing removes it
            files.system.unlink(name)


def is_first_life(connection: apsw.Connection) -> bool:
    """Tell whether the file is a store of the first life: unmarked, with its table."""
    if read_mark(connection) != (0, 0):
        return False
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'memories'").fetchall():
        return False  # later stores have a view of that name
    return columns_of(connection, "memories").issuperset(FIRST_LIFE_COLUMNS[:-1])


def columns_of(connection: apsw.Connection, table: str) -> set[str]:
    """Return the names of the columns of a table or view; an empty set if there is none of that name."""
    rows: list[Any] = connection.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall()
    return {name for (name,) in rows}


def version_of_tables(connection: apsw.Connection) -> int:
    """Return the version of a store's tables, whatever its header says."""
    if columns_of(connection, "vectors"):
        return FIRST_WITH_VECTORS
    if columns_of(connection, "text_mark"):
        return FIRST_WITH_WORDS
    if "created" in columns_of(connection, "entries"):
        return FIRST_WITH_CREATION
    if "generation" in columns_of(connection, "clock"):
        return FIRST_WITH_GENERATION
    if "packed" in columns_of(connection, "entries"):
        return FIRST_WITH_PACKED
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    if "entries_by_expiry" in names:
        return FIRST_WITH_EXPIRY
    return FIRST_WITH_PAST if "revisions" in names else 1 if "entries_by_category_key" in names else 2


def mark(connection: apsw.Connection, version: int) -> None:
    """Write into the file's header that it is a store of jarvis, of `version`."""
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {version}")


def read_mark(connection: apsw.Connection) -> tuple[int, int]:
    """Return (application id, user version) from the file's header."""
    return int(connection.pragma("application_id")), int(connection.pragma("user_version"))


def last_commit(connection: apsw.Connection) -> int:
    """Return the number of the last commit that the connection sees, in a store of any version."""
    return clock_row(connection.execute(engine.DIALECT.say(READ_FIRST_CLOCK)).fetchall()[0])[0]
