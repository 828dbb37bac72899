"""Migrates a store of the first life (version 0), one table ``memories`` of JSON texts.

The migration changes the file itself, under the writers' lock. So a program of the first life that still has it open
gets an error ("memories is a view") and never writes into a file that nobody reads.
"""

from __future__ import annotations

import json
import os
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import apsw
import msgspec

from jarvis._disk import files
from jarvis._sql import registry
from jarvis._sql.names import NameBook
from jarvis._sql.session import Session
from jarvis._sql.side_tables import STATES, Stored, put_again
from jarvis._sql.tables import row_checksum
from jarvis._sqlite import creation, engine, schema
from jarvis._sqlite.connection import Connection
from jarvis.codec import InvalidMomentError, flatten, format_moment, instant_of
from jarvis.codec.nesting import ran_out, stack_error
from jarvis.errors import CorruptStoreError, InvalidEntryError, StackFullError, StoreAccessError
from jarvis.model.entry import DEFAULT_NAMESPACE
from jarvis.model.policies import Histories, HistoryPolicy
from jarvis.model.record import Body

if TYPE_CHECKING:
    from collections.abc import Iterator


_READ = f"SELECT {', '.join(schema.FIRST_LIFE_COLUMNS)} FROM memories WHERE rowid = ?"
_INTERN = "INSERT INTO names (name) VALUES (?) ON CONFLICT DO NOTHING"
_NAME = "(SELECT id FROM names WHERE name = ?)"
_INSERT = f"""
INSERT INTO entries (row, namespace, id, category, key, entity_type, entity_id, instant, version, body, checksum)
VALUES (?, {_NAME}, ?, {_NAME}, ?, {_NAME}, ?, ?, 1, ?, ?)
"""


def migrate(connection: apsw.Connection, path: str) -> None:
    """Migrate the first-life store at `path` to the current version; keep a copy of the old file beside it.

    Needs the writers' lock. A kill at any point leaves the old store, or one that `finish` completes.

    Raises:
        CorruptStoreError: a row cannot be decoded; the file is unchanged.
        apsw.Error: see `jarvis._sqlite.engine.translated`.
    """
    _refuse_other_tables(connection, path)
    kept = _keep_copy(connection, path)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        has_created = any(
            name == "created_at" for (name,) in connection.execute("SELECT name FROM pragma_table_info('memories')")
        )
        connection.execute("ALTER TABLE memories RENAME TO first_life")
        for (index,) in connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'first_life' AND sql IS NOT NULL"
        ).fetchall():
            connection.execute(f'DROP INDEX "{index}"')
        connection.execute(schema.CURRENT).fetchall()
        count = _move(connection, path, has_created=has_created)
        creation.tell(connection)
        connection.execute(creation.FILL.format("entries")).fetchall()
        connection.execute("DROP TABLE first_life")
        schema.mark(connection, schema.MIGRATING)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    import logging  # its import takes 3 ms, and most processes never need it

    logging.getLogger("jarvis.sqlite").info(
        "migrated %s from its first life: %d entries; the old file is kept as %s", path, count, kept
    )
    finish(connection)


def _refuse_other_tables(connection: apsw.Connection, path: str) -> None:
    ours = {"first_life", *(table.name for table in registry.tables())}
    tables: list[Any] = connection.execute("SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')").fetchall()
    for (name,) in tables:
        if str(name).lower() in ours:
            raise StoreAccessError(
                path,
                f"is a store of the first life to which somebody added a table {name!r}, a name that jarvis needs; "
                f"rename it (ALTER TABLE {name} RENAME TO …) and open the store again",
            )


def finish(connection: apsw.Connection) -> None:
    """Give every page its checksum and turn on the write-ahead log: no transaction can contain these steps."""
    connection.execute("PRAGMA journal_mode = DELETE").fetchall()
    connection.reserve_bytes(reserve=engine.RESERVED_BYTES)
    connection.execute("VACUUM")
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    version = schema.version_of_tables(connection)  # an earlier version may have left it here
    connection.execute(f"PRAGMA user_version = {version}")


def kept_copies(path: str) -> list[str]:
    """Return the paths of the copies of old files beside the store at `path`."""
    directory, name = os.path.split(path)
    pattern = re.compile(re.escape(name) + r"\.first-life(\.\d+)?")
    return [os.path.join(directory, entry) for entry in sorted(os.listdir(directory)) if pattern.fullmatch(entry)]


def _keep_copy(connection: apsw.Connection, path: str) -> str:
    """Make a durable copy beside the store and return its path; reuse an existing copy with the same content."""
    temporary = files.temporary_path(path)
    with files.explaining(path, "keep a copy of the old store"):
        os.close(files.create(temporary, path, private=True))
        copy = apsw.Connection(temporary, flags=apsw.SQLITE_OPEN_READWRITE, vfs=engine.vfs)
        try:
            copy.execute("PRAGMA synchronous = FULL; PRAGMA journal_mode = OFF").fetchall()
            with copy.backup("main", connection, "main") as backup:
                backup.step(-1)
            if copy.pragma("journal_mode") == "wal":
                copy.execute("PRAGMA journal_mode = DELETE").fetchall()
        finally:
            copy.close()
        number = 1
        while True:
            kept = f"{path}.first-life" + (f".{number}" if number > 1 else "")
            if not os.path.lexists(kept):
                files.put_in_place(temporary, kept, keep_existing=True, strict=True)
                return kept
            if _same_content(temporary, kept):  # an earlier migration was killed after this
                files.system.unlink(temporary)
                return kept
            number += 1


def _same_content(one: str, other: str) -> bool:
    import filecmp

    return not os.path.islink(other) and filecmp.cmp(one, other, shallow=False)


def _move(connection: apsw.Connection, path: str, *, has_created: bool) -> int:
    read = _READ.replace("FROM memories", "FROM first_life")
    if not has_created:
        read = read.replace(", created_at", ", NULL")
    commit = 0
    for commit, (instant, moment, rowid) in enumerate(_in_order(connection, path), start=1):
        row: Any = connection.execute(read, (rowid,)).fetchall()[0]
        entry_id, category, key, value, tags, entity_type, entity_id, _, provenance, created_at = row
        try:
            _check_texts(entry_id, category, key, entity_type, *([] if entity_id is None else [entity_id]))
            body = _body(value, tags, provenance, created_at, moment)
            encoded = msgspec.json.encode(body).decode()
        except (ValueError, TypeError, InvalidEntryError, RecursionError) as error:  # its text may hold stored values
            problem = stack_error(f"{value}{tags}{provenance}") if type(error) is RecursionError else error
            raise StackFullError() if ran_out(problem) else _malformed(path, rowid) from None
        for name in {DEFAULT_NAMESPACE, category, entity_type}:
            connection.execute(_INTERN, (name,))
        fields = (commit, DEFAULT_NAMESPACE, entry_id, category, key, entity_type, entity_id, instant, 1)
        checksum = row_checksum(fields, encoded)
        connection.execute(
            _INSERT,
            (commit, DEFAULT_NAMESPACE, entry_id, category, key, entity_type, entity_id, instant, encoded, checksum),
        )
    session = Session(Connection(connection, path), NameBook(), Histories(HistoryPolicy()), registry.SIDE_TABLES)
    for state in session.each(session.say(STATES["entries"])):
        put_again(session, Stored(*state))
    schema.begin_history(connection, commit, 0, 0)
    return commit


def _in_order(connection: apsw.Connection, path: str) -> Iterator[tuple[int, datetime, int]]:
    """Yield (instant, timestamp, rowid), oldest first, so that commit numbers follow time."""
    rows = []
    for rowid, text in connection.execute("SELECT rowid, timestamp FROM first_life"):
        try:
            moment = datetime.fromisoformat(text)
            rows.append((instant_of(moment), moment, rowid))
        except (ValueError, TypeError, InvalidMomentError):
            raise _malformed(path, rowid) from None
    yield from sorted(rows, key=lambda row: (row[0], row[2]))


def _body(value: Any, tags: Any, provenance: Any, created_at: Any, moment: datetime) -> Body:
    """Return the body of a first-life row; its value is plain, even where it looks like a tagged form."""
    content, labels, origin = json.loads(value), json.loads(tags), json.loads(provenance)
    if type(content) is not dict or type(labels) is not list or type(origin) is not dict:
        raise TypeError("value, tags or provenance is of another type")
    if created_at is not None:
        origin.setdefault("created_at", created_at)
    if not all(type(text) is str for text in (*labels, *origin.values())):
        raise TypeError("a tag or a provenance is no text")
    text, fold, zone = format_moment(moment)
    return Body(flatten(content), labels, origin, (text, fold, zone))


def _check_texts(*texts: object) -> None:
    if not all(type(text) is str for text in texts):
        raise TypeError("a name is no text")


def _malformed(path: str, rowid: int) -> CorruptStoreError:
    import shlex

    return CorruptStoreError(
        path,
        f"is a store of the first life whose row {rowid} of table memories cannot be understood; the file was left "
        f"as it is. Mend or delete that row (sqlite3 {shlex.quote(path)}) and open it again",
    )
