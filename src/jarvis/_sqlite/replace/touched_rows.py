"""Notes, by triggers in the store itself, which rows change while it is copied.

A trigger writes the key of each row that any process, of any library version, inserts, changes or deletes to the
table `moved`, in the same transaction. So a copy that was made row by row, beside writers, becomes right when the noted
rows are copied again, and a later run can resume an interrupted copy. Row 0 of `moved` names the run.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import apsw

from jarvis._sql import registry

Ask = Callable[[str, tuple[Any, ...]], list[Any]]
"""Runs a statement with its bindings, and returns all its rows."""

Key = tuple[Any, ...]
Row = tuple[Any, ...]

MOST_ROWS = 1_000
"""How many rows one short read transaction reads, unless they are large."""

MOST_BYTES = 1 << 20

NAME = "moved"

_TABLES = """
SELECT name FROM pragma_table_list
WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite@_%' ESCAPE '@' AND name != 'moved' ORDER BY name
"""
_COLUMNS = "SELECT name, pk FROM pragma_table_info(?)"
_TRIGGERS = "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND name LIKE 'moved@_%' ESCAPE '@'"
_IS_THERE = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'moved'"
_RUN = "SELECT k1 FROM moved WHERE seq = 0"


class Table(NamedTuple):
    """A table of the store, with the statements that read and write its rows.

    Attributes:
        number: its index among the tables, which the notes of its rows have.
        key: the columns that identify a row and order the reads.
    """

    number: int
    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]

    def key_of(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the key of one of its rows."""
        return tuple(row[self.columns.index(column)] for column in self.key)

    def select(self, *, after: bool) -> str:
        """Return the statement for all rows in the order of their keys, or for those after the bound key."""
        key = _listed(self.key)
        where = f" WHERE ({key}) > ({_marks(self.key)})" if after else ""
        return f"{self._all}{where} ORDER BY {key}"

    @property
    def between(self) -> str:
        """The statement for the rows from one key to another, for keys of one column."""
        return f"{self._all} WHERE {_listed(self.key)} BETWEEN ? AND ?"

    @property
    def one(self) -> str:
        """The statement for the row with a key."""
        return f"{self._all} WHERE {self._same}"

    @property
    def delete(self) -> str:
        """The statement that deletes the row with a key."""
        return f"DELETE FROM {quoted(self.name)} WHERE {self._same}"

    def insert(self, *, replacing: bool) -> str:
        """Return the statement that inserts a row, and with `replacing` deletes rows with its key or unique values."""
        how = "INSERT OR REPLACE" if replacing else "INSERT"
        return f"{how} INTO {quoted(self.name)} ({_listed(self.columns)}) VALUES ({_marks(self.columns)})"

    @property
    def _all(self) -> str:
        return f"SELECT {_listed(self.columns)} FROM {quoted(self.name)}"

    @property
    def _same(self) -> str:
        return " AND ".join(f"{quoted(column)} = ?" for column in self.key)


def quoted(name: str) -> str:
    """Return a name, with any characters, quoted for a statement."""
    return '"' + name.replace('"', '""') + '"'


def _listed(columns: tuple[str, ...]) -> str:
    return ", ".join(map(quoted, columns))


def _marks(columns: tuple[str, ...]) -> str:
    return ", ".join("?" * len(columns))


class Budget:
    """Counts the rows and bytes of one read."""

    def __init__(self, *, is_bounded: bool) -> None:
        self._is_bounded, self._rows, self._bytes = is_bounded, 0, 0

    def is_spent(self, row: Row) -> bool:
        """Count a row; return whether it must be the last one."""
        self._rows += 1
        self._bytes += sum(len(column) for column in row if isinstance(column, (str, bytes)))
        return self._is_bounded and (self._rows >= MOST_ROWS or self._bytes >= MOST_BYTES)


def chunk(each: Callable[[str, Key], Iterator[Row]], table: Table, key: Key) -> tuple[list[Row], bool]:
    """Return the next rows of a table after a key, or its first rows, and whether those are the last ones."""
    rows, budget = [], Budget(is_bounded=True)
    with contextlib.closing(each(table.select(after=bool(key)), key)) as answer:  # type: ignore[type-var]  # it is a generator
        for row in answer:
            rows.append(row)
            if budget.is_spent(row):
                return rows, False
    return rows, True


def of(connection: apsw.Connection) -> Ask:
    """Return a function that runs statements on a connection; its errors are the driver's."""
    return lambda sql, bindings: connection.execute(sql, bindings).fetchall()


def tables(ask: Ask) -> list[Table]:
    """Return the tables of a store whose rows are copied: not `moved`, SQLite's own, or rebuilt ones.

    The store lists them, not this code, so that tables of a later version are copied too. Virtual and derived tables
    are rebuilt, see `jarvis._sqlite.replace.rebuilt`.
    """
    derived = {table.name for table in registry.tables() if table.is_derived}
    listed = []
    for number, name in enumerate(name for (name,) in ask(_TABLES, ()) if name not in derived):
        columns = ask(_COLUMNS, (name,))
        names = tuple(column for column, _ in columns)
        key = tuple(column for column, place in sorted(columns, key=lambda pair: pair[1]) if place)
        listed.append(Table(number, name, key, names) if key else Table(number, name, ("rowid",), ("rowid", *names)))
    return listed


def run(ask: Ask) -> str | None:
    """Return the name of the run for which changes are noted, or None if none are."""
    if not ask(_IS_THERE, ()):
        return None
    rows = ask(_RUN, ())
    return str(rows[0][0]) if rows else None


def beginning(ask: Ask) -> list[str]:
    """Return the statements that begin a new run in place of any other, for one transaction."""
    copied = tables(ask)
    keys = _key_columns(copied)
    name = os.urandom(8).hex()
    statements = [
        *ending(ask),
        f"CREATE TABLE {NAME} (seq INTEGER PRIMARY KEY, part, {', '.join(keys)})",
        f"INSERT INTO {NAME} (seq, k1) VALUES (0, '{name}')",
    ]
    for table in copied:
        given = f"INSERT INTO {NAME} (part, {', '.join(keys[: len(table.key)])})"
        old, new = ([f"{which}.{quoted(column)}" for column in table.key] for which in ("OLD", "NEW"))
        note_old, note_new = (f"{given} VALUES ({table.number}, {', '.join(key)});" for key in (old, new))
        moved = " OR ".join(f"{one} IS NOT {other}" for one, other in zip(old, new, strict=True))
        also_new = f"{given} SELECT {table.number}, {', '.join(new)} WHERE {moved};"
        for verb, notes in (("INSERT", note_new), ("UPDATE", f"{note_old} {also_new}"), ("DELETE", note_old)):
            trigger = quoted(f"{NAME}_{table.name}_{verb.lower()}")
            statements.append(f"CREATE TRIGGER {trigger} AFTER {verb} ON {quoted(table.name)} BEGIN {notes} END")
    return statements


def ending(ask: Ask) -> list[str]:
    """Return the statements that end the notes, for one transaction; none if no changes are noted."""
    drops = [f"DROP TRIGGER {quoted(name)}" for (name,) in ask(_TRIGGERS, ())]
    return [*drops, f"DROP TABLE {NAME}"] if ask(_IS_THERE, ()) else drops


def notes(copied: list[Table]) -> str:
    """Return the statement for the notes after a given one, oldest first: number, number of the table, key columns."""
    return f"SELECT seq, part, {', '.join(_key_columns(copied))} FROM {NAME} WHERE seq > ? ORDER BY seq"


def _key_columns(copied: list[Table]) -> tuple[str, ...]:
    return tuple(f"k{number + 1}" for number in range(max(len(table.key) for table in copied)))
