"""What a good engineer writes by hand over psycopg, for the same duties as ours has on a PostgreSQL server.

Namespaces whose changes are in one order, lists newest first, tags by a table of their own, the author of each change,
and the states that changes end: with the indexes that each question needs, prepared statements and one connection.
It leaves out what nobody asked it for: checks of what it is given, exact types, checksums, lost connections.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import psycopg

SCHEMA = """
CREATE SCHEMA hand;
CREATE TABLE hand.clock (namespace text PRIMARY KEY, number bigint NOT NULL);
CREATE TABLE hand.memories (
    namespace text NOT NULL, number bigint NOT NULL, id text NOT NULL, category text NOT NULL, key text NOT NULL,
    value text NOT NULL, tags text[] NOT NULL, entity_type text NOT NULL, time bigint NOT NULL, author text NOT NULL,
    PRIMARY KEY (namespace, number));
CREATE UNIQUE INDEX ON hand.memories (namespace, id);
CREATE INDEX ON hand.memories (namespace, time, number);
CREATE INDEX ON hand.memories (namespace, key, time, number);
CREATE INDEX ON hand.memories (namespace, category, time, number);
CREATE INDEX ON hand.memories (namespace, entity_type, time, number);
CREATE TABLE hand.tags (
    namespace text NOT NULL, tag text NOT NULL, time bigint NOT NULL, number bigint NOT NULL,
    PRIMARY KEY (namespace, tag, time, number));
CREATE TABLE hand.past (LIKE hand.memories, ended bigint NOT NULL, PRIMARY KEY (namespace, ended));
CREATE INDEX ON hand.past (namespace, id, ended);
"""
_COLUMNS = "m.id, m.category, m.key, m.value, m.tags, m.entity_type, m.time, m.author"
GET = f"SELECT {_COLUMNS} FROM hand.memories AS m WHERE namespace = %s AND id = %s"
_BY_KEY = f"""
SELECT {_COLUMNS} FROM hand.memories AS m WHERE namespace = %s AND key = %s ORDER BY time DESC, number DESC LIMIT 1
"""
_BY_CATEGORY = f"""
SELECT {_COLUMNS} FROM hand.memories AS m WHERE namespace = %s AND category = %s
ORDER BY time DESC, number DESC LIMIT %s
"""
_BY_TAG = f"""
SELECT {_COLUMNS} FROM hand.tags AS t
JOIN hand.memories AS m ON m.namespace = t.namespace AND m.number = t.number
WHERE t.namespace = %s AND t.tag = %s ORDER BY t.time DESC, t.number DESC LIMIT %s
"""
LOCK = "UPDATE hand.clock SET number = number + 1 WHERE namespace = %s RETURNING number"
INSERT = "INSERT INTO hand.memories VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
TAG = "INSERT INTO hand.tags VALUES (%s, %s, %s, %s)"
_FIND = """
SELECT number, time, tags FROM hand.memories WHERE namespace = %s AND category = %s AND key = %s
ORDER BY time DESC, number DESC LIMIT 1
"""
_KEEP = "INSERT INTO hand.past SELECT m.*, %s FROM hand.memories AS m WHERE namespace = %s AND number = %s"
_UPDATE = (
    "UPDATE hand.memories SET number = %s, value = %s, time = %s, author = %s WHERE namespace = %s AND number = %s"
)

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(slots=True)
class Entry:
    """A memory, as a good engineer returns it."""

    id: str
    category: str
    key: str
    value: dict[str, Any]
    tags: list[str]
    entity_type: str
    timestamp: datetime
    author: dict[str, Any]


class ByHand:
    """The hand-written store of one namespace."""

    def __init__(self, dsn: str, namespace: str = "default") -> None:
        self.namespace = namespace
        self.raw = psycopg.connect(dsn, autocommit=True)
        self.raw.execute("INSERT INTO hand.clock VALUES (%s, 0) ON CONFLICT DO NOTHING", (namespace,))
        self.raw.prepare_threshold = 0

    @staticmethod
    def create(dsn: str) -> None:
        """Make the tables."""
        with psycopg.connect(dsn, autocommit=True) as raw:
            raw.execute(SCHEMA)

    def close(self) -> None:
        """Close the connection."""
        self.raw.close()

    def get(self, entry_id: str) -> Entry | None:
        """Return the memory with an id."""
        rows = self._select(GET, entry_id)
        return rows[0] if rows else None

    def by_key(self, key: str) -> Entry | None:
        """Return the newest memory with a key."""
        rows = self._select(_BY_KEY, key)
        return rows[0] if rows else None

    def of_category(self, category: str, limit: int) -> list[Entry]:
        """Return the newest memories of a category."""
        return self._select(_BY_CATEGORY, category, limit)

    def of_tag(self, tag: str, limit: int) -> list[Entry]:
        """Return the newest memories with a tag."""
        return self._select(_BY_TAG, tag, limit)

    def insert(self, category: str, key: str, value: dict[str, Any], tags: Sequence[str] = ()) -> str:
        """Store a new memory."""
        with self.raw.transaction():
            number = self._number()
            return self._insert(number, category, key, value, tags)

    def upsert(self, category: str, key: str, value: dict[str, Any]) -> None:
        """Set the value of the memory with a category and a key, or store a new one."""
        with self.raw.transaction():
            number = self._number()
            found = self.raw.execute(_FIND, (self.namespace, category, key)).fetchone()
            if found is None:
                self._insert(number, category, key, value, ())
                return
            before, _, _ = found
            now = time.time_ns() // 1000
            self.raw.execute(_KEEP, (number, self.namespace, before))
            author = encode({"module": "m", "updated_at": now}).decode()
            self.raw.execute(_UPDATE, (number, encode(value).decode(), now, author, self.namespace, before))

    def copy(self, items: Iterable[dict[str, Any]]) -> None:
        """Store many memories without tags, as fast as the server takes them."""
        now = time.time_ns() // 1000
        author = encode({"module": "m", "created_at": now}).decode()
        with self.raw.transaction(), self.raw.cursor() as cursor:
            number = self._number()
            with cursor.copy("COPY hand.memories FROM STDIN") as copy:
                for number, item in enumerate(items, number):  # noqa: B020 - the numbers go on
                    value = encode(item["value"]).decode()
                    entry_id, kind = str(uuid.uuid4()), item["entity_type"]
                    fields: tuple[Any, ...] = (entry_id, item["category"], item["key"], value, [], kind, now, author)
                    copy.write_row((self.namespace, number, *fields))
            cursor.execute("UPDATE hand.clock SET number = %s WHERE namespace = %s", (number, self.namespace))

    def _number(self) -> int:
        row = self.raw.execute(LOCK, (self.namespace,)).fetchone()
        assert row is not None
        return int(row[0])

    def _insert(self, number: int, category: str, key: str, value: dict[str, Any], tags: Sequence[str]) -> str:
        entry_id, now = str(uuid.uuid4()), time.time_ns() // 1000
        author = encode({"module": "m", "created_at": now}).decode()
        fields: tuple[Any, ...] = (entry_id, category, key, encode(value).decode(), list(tags), "note", now, author)
        self.raw.execute(INSERT, (self.namespace, number, *fields))
        for tag in tags:
            self.raw.execute(TAG, (self.namespace, tag, now, number))
        return entry_id

    def _select(self, sql: str, *bindings: Any) -> list[Entry]:
        rows = self.raw.execute(sql, (self.namespace, *bindings)).fetchall()
        return [
            Entry(
                entry_id,
                category,
                key,
                decode(value),
                tags,
                kind,
                datetime.fromtimestamp(microseconds / 1_000_000, UTC),
                decode(author),
            )
            for entry_id, category, key, value, tags, kind, microseconds, author in rows
        ]
