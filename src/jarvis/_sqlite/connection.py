"""One connection to a SQLite file, as the shared statements use it: see `jarvis._sql.driver.Driver`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import apsw

from jarvis._sql import tables
from jarvis._sqlite import engine, schema, word_tables
from jarvis.errors import CorruptStoreError, ReadOnlyStoreError, StoreTooNewError, torn_transaction

if TYPE_CHECKING:
    from jarvis._sql.driver import Bindings
    from jarvis._sql.word_index import WordIndex

_MANY_LOOKS = 100  # by a reader at an index that a writer is changing


class Connection:
    """A connection of the driver, with its errors translated.

    Attributes:
        raw: the driver's connection.
        is_lost: a rollback failed, so the connection is not used again.
    """

    dialect = engine.DIALECT
    words: WordIndex = word_tables.FTS5Index()

    def __init__(self, raw: apsw.Connection, path: str) -> None:
        self.raw, self.path = raw, path
        self.is_lost = False
        self._cursor = raw.cursor()  # for statements that run to their end at once
        self._data_version = -1
        self._is_torn = self._is_writing = False
        self._keeps_past = False  # False: not known yet
        self._looks: engine.Looks | None = None

    # --- statements ------------------------------------------------------------------------------

    def rows(self, sql: str, bindings: Bindings = ()) -> list[Any]:
        """Run one statement and return all its rows."""
        if self._is_torn:
            raise torn_transaction(self.path)
        try:
            return self._cursor.execute(sql, bindings).fetchall()
        except apsw.Error as error:
            rows: list[Any] = self._again(error, lambda: self._cursor.execute(sql, bindings).fetchall())
            return rows
        except UnicodeDecodeError:  # it carries stored text
            raise self.corrupt("a text is no text") from None

    def each(self, sql: str, bindings: Bindings = ()) -> Iterator[Any]:
        """Run one statement and yield its rows as they are found."""
        if self._is_torn:
            raise torn_transaction(self.path)
        try:
            try:
                rows = self.raw.execute(sql, bindings)
            except apsw.Error as error:
                rows = self._again(error, lambda: self.raw.execute(sql, bindings))
            yield from rows
        except apsw.Error as error:
            raise self._failed(error, "read") from error
        except UnicodeDecodeError:
            raise self.corrupt("a text is no text") from None

    def index_of(self, sql: str, bindings: Bindings = ()) -> str:
        """Return the index that leads in a statement."""
        return engine.leading_index(step for _, _, _, step in self.rows(f"EXPLAIN QUERY PLAN {sql}", bindings))

    def looks(self) -> int:
        """Return how often statements have called the function ``looked_at``."""
        if self._looks is None:
            self._looks = engine.Looks()
            self.raw.create_scalar_function("looked_at", self._looks.look, 1)
        return self._looks.count

    def run(self, sql: str, bindings: Bindings = ()) -> None:
        """Run one statement that changes something and has no answer."""
        if self._is_torn:
            raise torn_transaction(self.path)
        try:
            self._cursor.execute(sql, bindings)
        except apsw.Error as error:
            raise self._failed(error, "write") from error

    def many(self, sql: str, several: Sequence[Bindings]) -> None:
        """Run one statement that changes something once for each of these bindings."""
        if self._is_torn:
            raise torn_transaction(self.path)
        try:
            self._cursor.executemany(sql, several)
        except apsw.Error as error:
            raise self._failed(error, "write") from error

    def put(self, sql: str, bindings: Bindings) -> bool:
        """Insert a row; False, and nothing done, if a unique index already has such a row."""
        if self._is_torn:
            raise torn_transaction(self.path)
        try:
            self._cursor.execute(sql, bindings)
        except apsw.ConstraintError:
            return False
        except apsw.Error as error:
            raise self._failed(error, "write") from error
        return True

    def put_all(self, sql: str, several: Sequence[Bindings]) -> bool:
        """Insert several rows; False, and nothing done, if a unique index already has one."""
        self.run("SAVEPOINT all_or_none")
        try:
            self._cursor.executemany(sql, several)
        except apsw.ConstraintError:
            self.run("ROLLBACK TO all_or_none")
            self.run("RELEASE all_or_none")
            return False
        except apsw.Error as error:
            raise self._failed(error, "write") from error
        self.run("RELEASE all_or_none")
        return True

    def changed(self) -> int:
        """Return how many rows the last statement changed."""
        return self.raw.changes()

    def _again(self, error: apsw.Error, run: Callable[[], Any]) -> Any:
        """Repeat a read that a writer disturbed, and return its result; raise any other error.

        If a writer is changing the index of the log, a connection that may not write takes it for one that needs
        recovery: one look in 70,000 beside a busy writer.
        """
        for _ in range(_MANY_LOOKS):
            if engine.extended_code(error) != apsw.SQLITE_READONLY_RECOVERY:
                break
            time.sleep(0.001)
            try:
                return run()
            except apsw.Error as another:
                error = another
        raise self._failed(error, "read") from error

    def _failed(self, error: apsw.Error, doing: str) -> Exception:
        """Return our error for the driver's `error`; note if that ended the transaction."""
        if self._is_writing and not self.raw.in_transaction:
            self._is_torn = True
        return engine.translated(self.path, error, doing, self.raw.system_errno)

    # --- transactions ----------------------------------------------------------------------------

    def is_open(self) -> bool:
        """Tell whether a transaction is open."""
        return self.raw.in_transaction

    def begin(self) -> bool:
        """Begin a transaction (the caller has the writers' lock); return whether nobody else wrote since the last one.

        Raises:
            StoreTooNewError: a newer jarvis has migrated the store meanwhile.
        """
        try:
            self._cursor.execute("BEGIN IMMEDIATE")
        except apsw.Error as error:
            raise self._failed(error, "write") from error
        self._is_writing = True
        data_version = self.raw.data_version()
        if data_version == self._data_version:
            return True
        version = self.rows("PRAGMA user_version")[0][0]
        if version != schema.CURRENT_VERSION:
            raise too_new(self.path, version)
        self._data_version = data_version
        return False

    def commit(self) -> None:
        """Commit the transaction: when this returns, its changes are durable."""
        if self._is_torn:
            raise torn_transaction(self.path)
        try:
            self._cursor.execute("COMMIT")
        except apsw.Error as error:
            raise self._failed(error, "write") from error
        self._is_writing = False
        self._data_version = self.raw.data_version()  # our own commits move it too

    def roll_back(self) -> None:
        """Roll back the open transaction, if there is one."""
        self._is_torn = self._is_writing = False
        try:
            if self.raw.in_transaction:
                self.raw.execute("ROLLBACK").fetchall()
        except apsw.Error:  # the next connection rolls back
            self.is_lost = True

    def save(self, level: int) -> None:
        """Set a savepoint."""
        self.run(f"SAVEPOINT level_{level}")

    def release(self, level: int) -> None:
        """Release a savepoint and keep its changes."""
        self.run(f"RELEASE level_{level}")

    def back_to(self, level: int) -> None:
        """Roll back to a savepoint and remove it, if it still exists."""
        if self.raw.in_transaction:
            self._is_torn = False
            self.run(f"ROLLBACK TO level_{level}")
            self.run(f"RELEASE level_{level}")

    def tear(self) -> None:
        """Refuse to commit the transaction or savepoint in which a change was interrupted half-way."""
        self._is_torn = True

    def stand_still(self) -> None:
        """Let all reads from here on see one state."""
        self.rows("BEGIN")

    def go_on(self) -> None:
        """Let reads see the newest state again."""
        if self.raw.in_transaction:
            self.rows("COMMIT")

    # --- the store -------------------------------------------------------------------------------

    def keeps_past(self) -> bool:
        """Tell whether the store has the tables of the past."""
        if not self._keeps_past:
            self._keeps_past = bool(self.rows("PRAGMA user_version")[0][0] >= tables.FIRST_WITH_PAST)
        return self._keeps_past

    def corrupt(self, finding: str) -> CorruptStoreError:
        """Return the error that says that the store is damaged, and what to do."""
        return engine.corrupt(self.path, finding)


def too_new(path: str, version: int) -> StoreTooNewError:
    """Return the error that says that a newer jarvis wrote the store."""
    return StoreTooNewError(
        path,
        f"has store version {version}, this jarvis knows up to {schema.CURRENT_VERSION}: pip install -U jarvis-memory",
    )


def read_only(path: str) -> ReadOnlyStoreError:
    """Return the error for a change of a store that is open read-only."""
    return ReadOnlyStoreError(path, "is open with read_only=True; open it without to change anything")
