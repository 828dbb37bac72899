"""`SQLiteBackend`: memories in one SQLite file that several threads and processes share."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from jarvis import _files
from jarvis._sql.select import COLUMNS, NAME_ID, Statement, count, select
from jarvis._sqlite import driver, first_life
from jarvis._sqlite.database import Database
from jarvis._sqlite.session import Session
from jarvis._sqlite.verification import row_checksum
from jarvis.codec import InvalidMomentError
from jarvis.codec.instants import EPOCH
from jarvis.config import Durability, checked
from jarvis.entry_record import decode_body, encode_body, make_entry, may_hold_tags
from jarvis.errors import (
    DuplicateEntryError,
    EntryNotFoundError,
    InvalidEntryError,
    StoreAccessError,
    TransactionError,
)
from jarvis.memory_entry import DEFAULT_NAMESPACE, MemoryEntry, MemoryQuery, check_name, check_namespace
from jarvis.storage_backend import Namespaced, StorageBackend, Transactional

_READ = f"SELECT {COLUMNS} FROM entries AS e WHERE e.namespace = {NAME_ID} AND e.id = ?"
_LAST_WRITTEN = f"""
SELECT {COLUMNS} FROM entries AS e WHERE e.row = (
    SELECT max(row) FROM entries WHERE namespace = {NAME_ID} AND category = {NAME_ID} AND key = ?
)
"""
_FIND = f"SELECT row, instant, version, body FROM entries WHERE namespace = {NAME_ID} AND id = ?"
_INSERT = """
INSERT INTO entries (row, namespace, id, category, key, entity_type, entity_id, instant, version, body, checksum)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_UPDATE = """
UPDATE entries SET row = ?, category = ?, key = ?, entity_type = ?, entity_id = ?, instant = ?, version = ?,
    body = ?, checksum = ? WHERE row = ?
"""
_DELETE = "DELETE FROM entries WHERE row = ?"
_INSERT_TAG = "INSERT INTO tags (namespace, tag, instant, row, category, entity_type) VALUES (?, ?, ?, ?, ?, ?)"
_DELETE_TAG = f"DELETE FROM tags WHERE namespace = {NAME_ID} AND tag = {NAME_ID} AND instant = ? AND row = ?"
_COUNT_ALL = f"SELECT count(*) FROM entries WHERE namespace = {NAME_ID}"
_CLEAR = f"DELETE FROM entries WHERE namespace = {NAME_ID}"
_CLEAR_TAGS = f"DELETE FROM tags WHERE namespace = {NAME_ID}"
# One seek per namespace instead of a scan of all entries (https://www.sqlite.org/lang_with.html#rcex3).
_NAMESPACES = """
WITH RECURSIVE held (namespace) AS (
    SELECT min(namespace) FROM entries
    UNION ALL
    SELECT (SELECT min(namespace) FROM entries WHERE namespace > held.namespace) FROM held WHERE namespace IS NOT NULL
)
SELECT name FROM held JOIN names ON names.id = held.namespace
"""
_UNUSED_NAMES = """
DELETE FROM names WHERE id NOT IN (
    SELECT namespace FROM entries UNION SELECT category FROM entries UNION SELECT entity_type FROM entries
    UNION SELECT tag FROM tags
)
"""
_ALL = MemoryQuery()


class SQLiteBackend(StorageBackend):
    """Memories in one SQLite file. See `StorageBackend` for what every verb does.

    A write that returned is on the disk: it survives ``kill -9`` and, unless `durability` is
    ``"normal"``, a power cut. The file is read by any SQLite tool (view ``memories``); writing with
    other tools is refused at the next opening if it did harm.

    Args:
        db_path: the file; created with its directory at the first call, for the owner only.
        namespace: which of the store's memories this handle sees.
        read_only: write nothing at all; works on read-only media.
        durability: ``"full"``, or ``"normal"``: several times faster, but a POWER CUT LOSES THE LAST
            COMMITS (a killed process still loses nothing).
        busy_timeout_seconds: how long a write waits for other writers before `StoreBusyError`.

    Raises:
        InvalidSettingError: an argument is out of range.
        InvalidEntryError: the namespace is no name.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     backend = SQLiteBackend(Path(directory) / "memory.db")
    ...     backend.create(MemoryEntry("1", "preferences", "theme", {"mode": "dark"}))
    ...     backend.shutdown()
    ...     backend.read("1").value
    {'mode': 'dark'}
    """

    name: ClassVar[str] = "sqlite"
    file_name: ClassVar[str] = "memory.db"
    capabilities: ClassVar[tuple[type, ...]] = (Transactional, Namespaced)

    def __init__(
        self,
        db_path: str | Path,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        read_only: bool = False,
        durability: Durability = "full",
        busy_timeout_seconds: float = 30.0,
    ) -> None:
        self.db_path: Path = checked("db_path", db_path)
        self.namespace = check_namespace(namespace)
        self._database = Database(
            self.db_path,
            read_only=checked("read_only", read_only),
            durability=checked("durability", durability),
            busy_timeout_seconds=checked("busy_timeout_seconds", busy_timeout_seconds),
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.db_path)!r}, namespace={self.namespace!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        database = self._database
        options = (database.read_only, database.durability, database.busy_timeout_seconds)
        return _reopen, (type(self), self.db_path, self.namespace, *options)

    # --- the eight verbs -------------------------------------------------------------------------

    def bootstrap(self) -> None:
        self._database.read(lambda _: None)

    def create(self, entry: MemoryEntry) -> None:
        body, instant = encode_body(entry)
        with self._database.changing() as session:
            if session.rows(_FIND, (self.namespace, entry.id)):
                raise DuplicateEntryError(
                    f"the id is taken in namespace {self.namespace!r} of {self.db_path}; update it or choose another"
                )
            self._insert(session, entry, body.decode(), instant)

    def read(self, entry_id: str) -> MemoryEntry | None:
        if not _can_be_looked_up(entry_id):
            return None
        rows = self._database.read(lambda session: session.rows(_READ, (self.namespace, entry_id)))
        return self._entry(rows[0]) if rows else None

    def update(self, entry: MemoryEntry) -> None:
        encoded, instant = encode_body(entry)
        body = encoded.decode()
        with self._database.changing() as session:
            found = session.rows(_FIND, (self.namespace, entry.id))
            if not found:
                raise EntryNotFoundError(f"no entry has the id in namespace {self.namespace!r} of {self.db_path}")
            row, old_instant, version, old_body = found[0]
            self._remove_tags(session, row, old_instant, old_body)
            commit = session.next_commit()
            category, entity_type = session.intern(entry.category), session.intern(entry.entity_type)
            checksum = self._checksum(entry, commit, instant, version + 1, body)
            session.rows(
                _UPDATE,
                (commit, category, entry.key, entity_type, entry.entity_id, instant, version + 1, body, checksum, row),
                "write",
            )
            self._insert_tags(session, entry.tags, instant, commit, category, entity_type)

    def delete(self, entry_id: str) -> None:
        if not _can_be_looked_up(entry_id):
            return
        with self._database.changing() as session:
            for row, instant, _, body in session.rows(_FIND, (self.namespace, entry_id)):
                self._remove_tags(session, row, instant, body)
                session.rows(_DELETE, (row,), "write")
                session.next_commit()

    def list_all(self) -> list[MemoryEntry]:
        return self.select(_ALL)

    def query(
        self,
        category: str | None = None,
        tags: Collection[str] | None = None,
        entity_type: str | None = None,
        entity_id: str | None = None,
        key: str | None = None,
    ) -> list[MemoryEntry]:
        return self.select(
            MemoryQuery(category=category, tags=tags, entity_type=entity_type, entity_id=entity_id, key=key)
        )

    def shutdown(self) -> None:
        self._database.shutdown()

    # --- faster than the defaults ----------------------------------------------------------------

    def select(self, query: MemoryQuery) -> list[MemoryEntry]:
        if query.where is not None:
            return self._database.read(lambda session: list(self._sift(session, query)))
        statement = select(query, self.namespace)
        if statement is None:
            return []
        rows = self._database.read(lambda session: session.rows(*statement))
        return [self._entry(row) for row in rows]

    def count(self, query: MemoryQuery) -> int:
        if query.where is not None:
            return self._database.read(lambda session: sum(1 for _ in self._sift(session, query)))
        statement = count(query, self.namespace)
        if statement is None:
            return 0
        return int(self._database.read(lambda session: session.rows(*statement))[0][0])

    def iterate(self, query: MemoryQuery) -> Iterator[MemoryEntry]:
        if self._database.in_transaction():  # its changes are visible to its own connection only
            yield from self.select(query)
            return
        with self._database.snapshot() as session:
            for entry in self._sift(session, query):
                self._database.check_undisturbed(session)
                yield entry

    def last_written(self, category: str, key: str) -> MemoryEntry | None:
        names = (self.namespace, category, key)
        rows = self._database.read(lambda session: session.rows(_LAST_WRITTEN, names))
        return self._entry(rows[0]) if rows else None

    def clear(self) -> int:
        with self._database.changing() as session:
            removed = int(session.rows(_COUNT_ALL, (self.namespace,))[0][0])
            if removed:
                session.rows(_CLEAR_TAGS, (self.namespace,), "write")
                session.rows(_CLEAR, (self.namespace,), "write")
                session.next_commit()
        return removed

    # --- Transactional ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        with self._database.changing():
            yield

    def moment(self, now: datetime) -> datetime:
        if not self._database.in_transaction():
            raise TransactionError("moment() is given inside a transaction only")

        def next_moment(session: Session) -> int:
            instant = max((now - EPOCH) // timedelta(microseconds=1), session.made + 1)
            session.made_at(instant)
            return instant

        return EPOCH.astimezone(UTC) + timedelta(microseconds=self._database.read(next_moment))

    # --- Namespaced ------------------------------------------------------------------------------

    def for_namespace(self, namespace: str) -> SQLiteBackend:
        sibling = object.__new__(type(self))
        sibling.__dict__.update(self.__dict__)
        sibling.namespace = check_namespace(namespace)
        return sibling

    def list_namespaces(self) -> list[str]:
        return sorted(name for (name,) in self._database.read(lambda session: session.rows(_NAMESPACES)))

    def erase_namespace(self, namespace: str) -> int:
        sibling = self.for_namespace(namespace)
        with self._database.changing() as session:
            removed = sibling.clear()
            session.rows(_UNUSED_NAMES, (), "write")
            session.forget_names()
            if namespace == DEFAULT_NAMESPACE:
                self._database.when_committed(self._remove_kept_copies)
            self._database.when_committed(self._database.fold_log)
        return removed

    # --- inside ----------------------------------------------------------------------------------

    def _insert(self, session: Session, entry: MemoryEntry, body: str, instant: int) -> None:
        commit = session.next_commit()
        namespace = session.intern(self.namespace)
        category, entity_type = session.intern(entry.category), session.intern(entry.entity_type)
        checksum = self._checksum(entry, commit, instant, 1, body)
        session.rows(
            _INSERT,
            (
                commit,
                namespace,
                entry.id,
                category,
                entry.key,
                entity_type,
                entry.entity_id,
                instant,
                1,
                body,
                checksum,
            ),
            "write",
        )
        self._insert_tags(session, entry.tags, instant, commit, category, entity_type)

    def _checksum(self, entry: MemoryEntry, commit: int, instant: int, version: int, body: str) -> int:
        names = (self.namespace, entry.id, entry.category, entry.key, entry.entity_type, entry.entity_id)
        return row_checksum((commit, *names, instant, version), body)

    def _insert_tags(
        self, session: Session, tags: list[str], instant: int, commit: int, category: int, entity_type: int
    ) -> None:
        if tags:
            namespace = session.intern(self.namespace)
            for tag in set(tags):
                bindings = (namespace, session.intern(tag), instant, commit, category, entity_type)
                session.rows(_INSERT_TAG, bindings, "write")

    def _remove_tags(self, session: Session, row: int, instant: int, body: str) -> None:
        for tag in set(decode_body(body).tags):
            session.rows(_DELETE_TAG, (self.namespace, tag, instant, row), "write")

    def _sift(self, session: Session, query: MemoryQuery) -> Iterator[MemoryEntry]:
        """Yield what the statement finds and `where` lets through, up to the limit, row by row."""
        test, left = query.test, query.limit
        statement: Statement | None = select(query, self.namespace, limited=test is None)
        if statement is None:
            return
        for row in session.each(*statement):
            entry = self._entry(row)
            if test is None or test(entry.value):
                yield entry
                if left is not None:
                    left -= 1
                    if left == 0:
                        return

    def _entry(self, row: tuple[Any, ...]) -> MemoryEntry:
        commit, entry_id, category, key, entity_type, entity_id, instant, version, text = row
        try:
            return make_entry(
                entry_id,
                category,
                key,
                entity_type,
                entity_id,
                version,
                (instant, commit),
                decode_body(text),
                plain=not may_hold_tags(text),
            )
        except InvalidMomentError as error:
            raise StoreAccessError(self.db_path, f"an entry {error}") from None
        except (ValueError, TypeError):  # whose message may hold what is stored
            raise driver.corrupt(self._database.path, "an entry cannot be decoded") from None

    def _remove_kept_copies(self) -> None:
        with _files.explaining(self.db_path, "remove the kept copy of the old store"):
            for kept in first_life.kept_copies(self._database.path):
                _files.system.unlink(kept)


def _reopen(
    kind: type[SQLiteBackend], db_path: Path, namespace: str, read_only: bool, durability: Durability, busy: float
) -> SQLiteBackend:
    return kind(db_path, namespace=namespace, read_only=read_only, durability=durability, busy_timeout_seconds=busy)


def _can_be_looked_up(name: object) -> bool:
    """Tell whether an entry can have this id: what is no name was never stored."""
    try:
        check_name("id", name)
    except InvalidEntryError:
        return False
    return True
