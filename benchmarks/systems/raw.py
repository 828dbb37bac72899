"""What a good engineer writes by hand over the standard library's `sqlite3` and `json`, for the same duties.

Namespaces, lists newest first, tags by a table of their own, the author of each change, a full sync of
each commit: with the indexes that each question needs, constant SQL texts that stay in the statement
cache, one connection, the write-ahead log, no second query per row, and as large a page cache as the
library's. It leaves out what nobody asked it for: checks of what it is given, exact types, several
writers' order, damage.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.corpus import Record
from benchmarks.systems.system import System, Touched

SCHEMA = """
CREATE TABLE IF NOT EXISTS memories (
    row INTEGER PRIMARY KEY,
    namespace TEXT NOT NULL,
    id TEXT NOT NULL,
    category TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    tags TEXT NOT NULL,
    entity_type TEXT NOT NULL,
    entity_id TEXT,
    time INTEGER NOT NULL,
    provenance TEXT NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS by_id ON memories (namespace, id);
CREATE INDEX IF NOT EXISTS by_time ON memories (namespace, time);
CREATE INDEX IF NOT EXISTS by_key ON memories (namespace, key, time);
CREATE INDEX IF NOT EXISTS by_category ON memories (namespace, category, time);
CREATE INDEX IF NOT EXISTS by_entity ON memories (namespace, entity_type, entity_id, time);
CREATE TABLE IF NOT EXISTS tags (
    namespace TEXT NOT NULL,
    tag TEXT NOT NULL,
    time INTEGER NOT NULL,
    row INTEGER NOT NULL,
    PRIMARY KEY (namespace, tag, time, row)
) WITHOUT ROWID;
"""
COLUMNS = "m.id, m.category, m.key, m.value, m.tags, m.entity_type, m.entity_id, m.time, m.provenance"
INSERT = """
INSERT INTO memories (namespace, id, category, key, value, tags, entity_type, entity_id, time, provenance)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
INSERT_TAG = "INSERT OR IGNORE INTO tags (namespace, tag, time, row) VALUES (?, ?, ?, ?)"
GET = f"SELECT {COLUMNS} FROM memories AS m WHERE namespace = ? AND id = ?"
BY_KEY = f"SELECT {COLUMNS} FROM memories AS m WHERE namespace = ? AND key = ? ORDER BY time DESC, row DESC LIMIT 1"
BY_CATEGORY = (
    f"SELECT {COLUMNS} FROM memories AS m WHERE namespace = ? AND category = ? ORDER BY time DESC, row DESC LIMIT ?"
)
BY_ENTITY = (
    f"SELECT {COLUMNS} FROM memories AS m WHERE namespace = ? AND entity_type = ? AND entity_id = ? "
    "ORDER BY time DESC, row DESC"
)
ALL = f"SELECT {COLUMNS} FROM memories AS m WHERE namespace = ? ORDER BY time DESC, row DESC"
BY_TAG = f"""
SELECT {COLUMNS} FROM tags AS t JOIN memories AS m ON m.row = t.row
WHERE t.namespace = ? AND t.tag = ? ORDER BY t.time DESC, t.row DESC LIMIT ?
"""
COMBINED = f"""
SELECT {COLUMNS} FROM tags AS t JOIN memories AS m ON m.row = t.row
WHERE t.namespace = ? AND t.tag = ? AND m.category = ? AND m.entity_type = ? ORDER BY t.time DESC, t.row DESC
"""
LONGER = f"""
SELECT {COLUMNS} FROM memories AS m
WHERE namespace = ? AND category = ? AND json_extract(value, '$.duration') > ? ORDER BY time DESC, row DESC
"""
FIND = "SELECT row, time, tags, provenance FROM memories WHERE namespace = ? AND id = ?"
FIND_KEY = (
    "SELECT row, time, tags, provenance FROM memories INDEXED BY by_key WHERE namespace = ? AND category = ? "
    "AND key = ? ORDER BY time DESC, row DESC LIMIT 1"
)
UPDATE = "UPDATE memories SET value = ?, time = ?, provenance = ? WHERE row = ?"
DELETE = "DELETE FROM memories WHERE row = ?"
DELETE_TAG = "DELETE FROM tags WHERE namespace = ? AND tag = ? AND time = ? AND row = ?"


@dataclass(slots=True)
class Entry:
    """A memory, as a good engineer returns it."""

    id: str
    category: str
    key: str
    value: dict[str, Any]
    tags: list[str]
    entity_type: str
    entity_id: str | None
    timestamp: datetime
    provenance: dict[str, str]


def open_in(directory: Path, *, durable: bool) -> Raw:
    """Return the store in `directory`, opened."""
    return Raw(directory / "raw.db", durable=durable)


class Raw(System):
    """The hand-written store of one namespace."""

    def __init__(self, path: Path, *, durable: bool) -> None:
        self.namespace = "default"
        self.db = sqlite3.connect(path, timeout=30, isolation_level=None)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        self.db.execute("PRAGMA cache_size = -8192")
        self.db.execute("PRAGMA temp_store = MEMORY")
        self.db.execute("PRAGMA wal_autocheckpoint = 4000")
        self.db.executescript(SCHEMA)

    @staticmethod
    def versions() -> dict[str, str]:
        return {"python": sys.version.split()[0], "sqlite": sqlite3.sqlite_version}

    def _begin(self) -> None:
        self.db.execute("BEGIN IMMEDIATE")

    def _commit(self) -> None:
        self.db.execute("COMMIT")

    def bulk(self, records: Iterable[Record]) -> list[Any]:
        self._begin()
        try:
            ids = [self._insert(each) for each in records]
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self._commit()
        return ids

    def create(self, record: Record) -> Any:
        self._begin()
        try:
            entry_id = self._insert(record)
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self._commit()
        return entry_id

    def _insert(self, record: Record) -> str:
        entry_id, now = str(uuid4()), time.time_ns() // 1000
        provenance = {"module": record.module, "task_id": record.task_id, "created_at": _moment(now).isoformat()}
        row = self.db.execute(
            INSERT,
            (
                self.namespace,
                entry_id,
                record.category,
                record.key,
                json.dumps(record.value),
                json.dumps(record.tags),
                record.entity_type,
                record.entity_id,
                now,
                json.dumps(provenance),
            ),
        ).lastrowid
        self.db.executemany(INSERT_TAG, [(self.namespace, tag, now, row) for tag in record.tags])
        return entry_id

    def get(self, entry_id: Any) -> Touched:
        return _touched(_entry(self.db.execute(GET, (self.namespace, entry_id)).fetchone()))

    def get_by_key(self, key: str) -> Touched:
        return _touched(_entry(self.db.execute(BY_KEY, (self.namespace, key)).fetchone()))

    def of_category(self, category: str, limit: int) -> list[Touched]:
        return self._select(BY_CATEGORY, category, limit)

    def of_tag(self, tag: str, limit: int) -> list[Touched]:
        return self._select(BY_TAG, tag, limit)

    def of_entity(self, entity_type: str, entity_id: str) -> list[Touched]:
        return self._select(BY_ENTITY, entity_type, entity_id)

    def combined(self, category: str, entity_type: str, tag: str) -> list[Touched]:
        return self._select(COMBINED, tag, category, entity_type)

    def longer_than(self, duration: int, category: str) -> list[Touched]:
        return self._select(LONGER, category, duration)

    def everything(self) -> list[Touched]:
        return self._select(ALL)

    def _select(self, sql: str, *bindings: Any) -> list[Touched]:
        entries = [_entry(row) for row in self.db.execute(sql, (self.namespace, *bindings))]
        return [_touched(entry) for entry in entries]

    def update(self, entry_id: Any, value: dict[str, Any]) -> None:
        self._begin()
        try:
            self._change(self.db.execute(FIND, (self.namespace, entry_id)).fetchone(), value, "updater")
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self._commit()

    def _change(self, found: Any, value: dict[str, Any], module: str) -> None:
        row, before, tags, provenance = found
        now = time.time_ns() // 1000
        author = json.loads(provenance)
        author["updated_at"], author["updated_by"] = _moment(now).isoformat(), module
        self.db.execute(UPDATE, (json.dumps(value), now, json.dumps(author), row))
        held = json.loads(tags)
        self.db.executemany(DELETE_TAG, [(self.namespace, tag, before, row) for tag in held])
        self.db.executemany(INSERT_TAG, [(self.namespace, tag, now, row) for tag in held])

    def delete(self, entry_id: Any) -> None:
        self._begin()
        try:
            row, before, tags, _ = self.db.execute(FIND, (self.namespace, entry_id)).fetchone()
            self.db.execute(DELETE, (row,))
            self.db.executemany(DELETE_TAG, [(self.namespace, tag, before, row) for tag in json.loads(tags)])
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self._commit()

    def set_preference(self, key: str, value: dict[str, Any]) -> None:
        self._begin()
        try:
            found = self.db.execute(FIND_KEY, (self.namespace, "preferences", key)).fetchone()
            if found is None:
                author = ("preferences_manager", "none")
                self._insert(Record("preferences", key, value, "user_preference", "", [], *author))
            else:
                self._change(found, value, "preferences_manager")
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self._commit()

    def clear(self) -> int:
        self._begin()
        try:
            self.db.execute("DELETE FROM tags WHERE namespace = ?", (self.namespace,))
            removed = self.db.execute("DELETE FROM memories WHERE namespace = ?", (self.namespace,)).rowcount
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self._commit()
        return removed

    def close(self) -> None:
        self.db.close()


def _moment(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds / 1_000_000, UTC)


def _entry(row: Any) -> Entry:
    entry_id, category, key, value, tags, entity_type, entity_id, microseconds, provenance = row
    return Entry(
        entry_id,
        category,
        key,
        json.loads(value),
        json.loads(tags),
        entity_type,
        entity_id,
        _moment(microseconds),
        json.loads(provenance),
    )


def _touched(entry: Entry) -> Touched:
    return entry.key, len(entry.value["text"]), len(entry.tags) + len(entry.provenance["module"]) + entry.timestamp.day
