"""Tables that a move makes anew in the copy: what is derived need not be copied, and what is virtual has no triggers.

What each kind takes:

- A derived table of ours is made from the entries and past states of the copy, beside writers. A state that is noted
  is taken out of it and put in again.
- A table of FTS5 that somebody else made, with content of its own: its rows are copied beside writers, 7 µs a row of
  ten words, and all of them are compared once more while writers wait, 3 µs a row.
- One whose content is in another table: it is created empty, and its own ``rebuild`` fills it from the copy of that
  table while writers wait, 2 µs a row of ten words. If it was not right before, it is afterwards.
- A virtual table that keeps nothing in the file, such as ``fts5vocab``: it is created.
- Any other, such as one of FTS5 without content, or one whose module or tokenizer is not at hand, cannot be read
  back. The move is refused before anything is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import apsw

from jarvis._sql import registry, side_tables
from jarvis._sql.names import NameBook
from jarvis._sql.session import Session
from jarvis._sql.side_tables import Stored
from jarvis._sqlite.connection import Connection
from jarvis._sqlite.replace import touched_rows
from jarvis._sqlite.replace.touched_rows import Key, Row, Table, quoted
from jarvis.errors import StoreAccessError
from jarvis.model.options import HistoryPolicy

if TYPE_CHECKING:
    from jarvis._sql.side_tables import SideTable
    from jarvis._sqlite.replace.copy_file import CopyFile

Read = Callable[[Callable[[Session], tuple[list[Row], bool]]], tuple[list[Row], bool]]
"""Lends a session to the store, and returns what is read of it."""

_FOUND = """
SELECT l.name, l.type, s.sql FROM pragma_table_list AS l JOIN sqlite_schema AS s ON s.type = 'table' AND s.name = l.name
WHERE l.schema = 'main' AND l.type IN ('table', 'virtual') ORDER BY s.rowid
"""
_SHADOWS = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'shadow'"
_SETTINGS = "SELECT k, v FROM {} WHERE k != 'version'"
_COMMAND = "INSERT INTO {0} ({0}, rank) VALUES (?, ?)"  # https://sqlite.org/fts5.html#special_insert_commands
_AT_ONCE = 256
_LEAST, _GREATEST = -(2**63), 2**63 - 1


class Rebuilt(NamedTuple):
    """A table that is made anew.

    Attributes:
        name: its name.
        sql: what creates it.
        settings: of an FTS5 table, which are not in that text.
        content: what fills it: ``states`` of entries, its ``rows`` in the store, another ``table``, or ``nothing``.
    """

    name: str
    sql: str
    settings: list[tuple[str, Any]]
    content: Literal["states", "rows", "table", "nothing"]


def found(session: Session) -> list[Rebuilt]:
    """Return the tables of a store that are to be made anew.

    Raises:
        StoreAccessError: one of them cannot be.
    """
    derived = {table.name for table in registry.tables() if table.is_derived}
    shadows = {name for (name,) in session.rows(_SHADOWS)}
    every: list[Rebuilt] = []
    for name, kind, sql in session.rows(_FOUND):
        if kind == "table" and name not in derived:
            continue
        content = "states" if name in derived else _content(name, sql)
        try:
            session.rows(f"SELECT * FROM {quoted(name)} LIMIT 1")  # its content may be in a table that is not there
        except StoreAccessError:
            content = None
        if content is None:
            raise StoreAccessError(
                session.path,
                f"cannot be written anew: it has a virtual table {name!r} whose rows cannot be read back, or not here. "
                "DROP that table, call the verb again, and create it anew afterwards",
            )
        config = f"{name}_config"
        settings = session.rows(_SETTINGS.format(quoted(config))) if config in shadows else []
        every.append(Rebuilt(name, sql, settings, content))
    return every


def _content(name: str, sql: str) -> Literal["rows", "table", "nothing"] | None:
    """Return what a virtual table is filled from, None if it cannot be: SQLite tells it of an empty one in memory."""
    connection = apsw.Connection(":memory:")
    try:
        connection.execute(sql)
        shadows = {shadow for (shadow,) in connection.execute(_SHADOWS)}
        if not shadows:
            return "nothing"
        connection.execute(_COMMAND.format(quoted(name)), ("rebuild", None))  # which none but FTS5 takes
    except apsw.SQLError as error:
        return "table" if str(error).startswith("no such table") else None  # it has none to rebuild itself from
    finally:
        connection.close()
    return "rows" if f"{name}_content" in shadows else "table"


class Rebuilder:
    """Makes tables anew in a copy of a store. Its verbs are called in their order, from `create` on.

    Args:
        copy: the copy.
    """

    def __init__(self, copy: CopyFile) -> None:
        self._copy = copy
        self._every: list[Rebuilt] = []
        self._derived: tuple[SideTable, ...] = ()
        self._is_filled = False

    def create(self, every: list[Rebuilt]) -> None:
        """Create the tables that are not there yet; derived ones are emptied, whatever another run made of them."""
        self._every, self._is_filled = every, False
        derived = {each.name for each in every if each.content == "states"}
        self._derived = tuple(side for side in registry.SIDE_TABLES if side.tables[0].name in derived)
        with self._copy.used() as copy, copy:
            there = {name for (name,) in copy.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
            for name, sql, settings, _ in every:
                if name in there & derived:
                    copy.execute(f"DROP TABLE {quoted(name)}")
                if name not in there - derived:
                    copy.execute(sql)
                    copy.executemany(_COMMAND.format(quoted(name)), settings)

    def fill(self, read: Read) -> Iterator[int]:
        """Fill the tables, but for those that are filled at the end; yield how many rows are done, again and again.

        The copy equals a state of the store. From here on it is to be told of what changes, by `take` and `put`.
        """
        done = 0
        for select in side_tables.STATES.values() if self._derived else ():
            last = -1
            while True:
                with self._copy.used() as copy, copy:
                    session = self._session(copy)
                    states = session.rows(f"{select} WHERE number > ? ORDER BY number LIMIT ?", (last, _AT_ONCE))
                    for state in states:
                        side_tables.put_again(session, Stored(*state))
                if not states:
                    break
                last, done = states[-1][0], done + len(states)
                yield done
        self._is_filled = True
        for each in self._every:
            if each.content == "rows":
                for count in self._refill(each.name, read):
                    done += count
                    yield done

    def take(self, copy: apsw.Connection, changed: Mapping[str, Iterable[Key]]) -> None:
        """Remove what was made of states, given by table and key, before they change."""
        self._again(copy, changed, side_tables.take_again)

    def put(self, copy: apsw.Connection, changed: Mapping[str, Iterable[Key]]) -> None:
        """Make again what is made of states, after they have changed."""
        self._again(copy, changed, side_tables.put_again)

    def _again(
        self, copy: apsw.Connection, changed: Mapping[str, Iterable[Key]], do: Callable[[Session, Stored], None]
    ) -> None:
        if not self._is_filled or not self._derived:
            return
        session = self._session(copy)
        for table, keys in changed.items():
            for key in keys if table in side_tables.STATES else ():
                for state in session.rows(f"{side_tables.STATES[table]} WHERE number = ?", key):
                    do(session, Stored(*state))

    def finish(self, read: Read) -> None:
        """Fill what no note tells of, while writers wait."""
        for each in self._every:
            if each.content == "rows":
                for _ in self._refill(each.name, read):
                    pass
            elif each.content == "table":
                with self._copy.used() as copy:
                    copy.execute(_COMMAND.format(quoted(each.name)), ("rebuild", None))

    def _refill(self, name: str, read: Read) -> Iterator[int]:
        """Make the rows of a table those of the store; yield how many were compared, some at a time."""
        with self._copy.used() as copy:
            columns = [column for (column,) in copy.execute("SELECT name FROM pragma_table_info(?)", (name,))]
        table = Table(-1, name, ("rowid",), ("rowid", *columns))
        key: Key = ()
        while key != (_GREATEST,):
            rows, is_last = read(lambda session: touched_rows.chunk(session.each, table, key))  # noqa: B023  at once
            between = (key[0] + 1 if key else _LEAST, _GREATEST if is_last else rows[-1][0])
            wanted = {row[0]: row for row in rows}
            with self._copy.used() as copy, copy:
                there = {row[0]: row for row in copy.execute(table.between, between)}
                # Not by equality: 1 is not 1.0, and both can be there.
                unequal = [rowid for rowid in wanted | there if repr(wanted.get(rowid)) != repr(there.get(rowid))]
                copy.executemany(table.delete, [(rowid,) for rowid in unequal if rowid in there])
                copy.executemany(table.insert(replacing=False), [wanted[rowid] for rowid in unequal if rowid in wanted])
            yield len(rows)
            key = (between[1],)

    def _session(self, copy: apsw.Connection) -> Session:
        return Session(Connection(copy, self._copy.store), NameBook(), HistoryPolicy(), self._derived)
