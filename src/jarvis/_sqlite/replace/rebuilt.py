"""Rebuilds tables in the copy of a move: derived tables need not be copied, and virtual ones cannot have triggers.

For each kind of table:

- A derived table of ours is made from the entries and past states of the copy, beside writers. The rows of a noted
  state are removed and put again. The index of words is only created, empty: it is filled after the move.
- An FTS5 table of somebody else with its own content: its rows are copied beside writers, 7 µs a row of ten words, and
  all of them are compared once more while writers wait, 3 µs a row.
- An FTS5 table with its content in another table: it is created empty, and its own ``rebuild`` fills it from the copy
  of that table while writers wait, 2 µs a row of ten words. This also corrects an index that was wrong.
- A virtual table that stores nothing in the file, such as ``fts5vocab``: it is created.
- Any other, such as an FTS5 table without content, or one whose module or tokenizer is missing here, cannot be read
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
from jarvis._sqlite import word_tables
from jarvis._sqlite.connection import Connection
from jarvis._sqlite.replace import touched_rows
from jarvis._sqlite.replace.touched_rows import Key, Row, Table, quoted
from jarvis.errors import StoreAccessError
from jarvis.model.policies import Histories, HistoryPolicy

if TYPE_CHECKING:
    from jarvis._sql.side_tables import SideTable
    from jarvis._sqlite.replace.copy_file import CopyFile

Read = Callable[[Callable[[Session], tuple[list[Row], bool]]], tuple[list[Row], bool]]
"""Lends a session on the store to a function, and returns its result."""

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
    """A table to rebuild.

    Attributes:
        name: its name.
        sql: the statement that creates it.
        settings: the settings of an FTS5 table, which are not in that statement.
        content: the source of its rows: ``states`` of entries, at once or ``later``, its ``rows`` in the store, another
            ``table``, or ``nothing``.
    """

    name: str
    sql: str
    settings: list[tuple[str, Any]]
    content: Literal["states", "later", "rows", "table", "nothing"]


def needed(session: Session) -> list[Rebuilt]:
    """Return the tables of a store that a move must rebuild.

    Raises:
        StoreAccessError: one of them cannot be rebuilt.
    """
    derived: dict[str, Literal["states", "later"]] = {
        table.name: "later" if side.lags else "states"
        for side in registry.SIDE_TABLES
        for table in side.tables
        if table.is_derived
    }
    shadows = {name for (name,) in session.rows(_SHADOWS)}
    tables: list[Rebuilt] = []
    for name, kind, sql in session.rows(_FOUND):
        if kind == "table" and name not in derived:
            continue
        content = derived.get(name) or _content(name, sql)
        try:
            session.rows(f"SELECT * FROM {quoted(name)} LIMIT 1")  # its content may be in a table that does not exist
        except StoreAccessError:
            content = None
        if content is None:
            raise StoreAccessError(
                session.path,
                f"cannot be moved: it has a virtual table {name!r} whose rows cannot be read back, or not here. "
                "DROP that table, call the verb again, and create the table again afterwards",
            )
        config = f"{name}_config"
        settings = session.rows(_SETTINGS.format(quoted(config))) if config in shadows else []
        if name == "text_mark":
            sql = f"{sql}; {word_tables.begin(session.driver.words.mark(session.driver).language)}"
        tables.append(Rebuilt(name, sql, settings, content))
    return tables


def _content(name: str, sql: str) -> Literal["rows", "table", "nothing"] | None:
    """Return the source of a virtual table's rows, None if there is none; an empty table in memory shows it."""
    connection = apsw.Connection(":memory:")
    try:
        connection.execute(sql)
        shadows = {shadow for (shadow,) in connection.execute(_SHADOWS)}
        if not shadows:
            return "nothing"
        connection.execute(_COMMAND.format(quoted(name)), ("rebuild", None))  # only FTS5 accepts this
    except apsw.SQLError as error:
        return "table" if str(error).startswith("no such table") else None  # its content table does not exist in memory
    finally:
        connection.close()
    return "rows" if f"{name}_content" in shadows else "table"


class Rebuilder:
    """Rebuilds tables in the copy of a store. Call the verbs in their order here."""

    def __init__(self, copy: CopyFile) -> None:
        self._copy = copy
        self._tables: list[Rebuilt] = []
        self._derived: tuple[SideTable, ...] = ()
        self._is_filled = False

    def create(self, tables: list[Rebuilt]) -> None:
        """Create the tables that do not exist yet; empty derived ones, which an earlier run may have filled."""
        self._tables, self._is_filled = tables, False
        derived = {table.name for table in tables if table.content in ("states", "later")}
        filled = {table.name for table in tables if table.content == "states"}
        self._derived = tuple(side for side in registry.SIDE_TABLES if side.tables[0].name in filled)
        with self._copy.used() as copy, copy:
            existing = {name for (name,) in copy.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
            for name, sql, settings, _ in tables:
                if name in existing & derived:
                    copy.execute(f"DROP TABLE {quoted(name)}")
                if name not in existing - derived:
                    copy.execute(sql)
                    copy.executemany(_COMMAND.format(quoted(name)), settings)

    def fill(self, read: Read) -> Iterator[int]:
        """Fill the tables, except those that `finish` fills; yield the number of rows done, again and again.

        The copy equals a state of the store. From here on each change must be passed to `take` and `put`.
        """
        done = 0
        for select in side_tables.STATES.values() if self._derived else ():
            last = -1
            while True:
                with self._copy.used() as copy, copy:
                    session = self._session(copy)
                    sql = session.say(f"{select} WHERE number > ? ORDER BY number LIMIT ?")
                    states = session.rows(sql, (last, _AT_ONCE))
                    for state in states:
                        side_tables.put_again(session, Stored(*state))
                if not states:
                    break
                last, done = states[-1][0], done + len(states)
                yield done
        self._is_filled = True
        for table in self._tables:
            if table.content == "rows":
                for count in self._refill(table.name, read):
                    done += count
                    yield done

    def take(self, copy: apsw.Connection, changed: Mapping[str, Iterable[Key]]) -> None:
        """Remove the derived rows of states, given by table and key, before they change."""
        self._again(copy, changed, side_tables.take_again)

    def put(self, copy: apsw.Connection, changed: Mapping[str, Iterable[Key]]) -> None:
        """Write the derived rows of states again, after they have changed."""
        self._again(copy, changed, side_tables.put_again)

    def _again(
        self, copy: apsw.Connection, changed: Mapping[str, Iterable[Key]], do: Callable[[Session, Stored], None]
    ) -> None:
        if not self._is_filled or not self._derived:
            return
        session = self._session(copy)
        for table, keys in changed.items():
            for key in keys if table in side_tables.STATES else ():
                for state in session.rows(session.say(f"{side_tables.STATES[table]} WHERE number = ?"), key):
                    do(session, Stored(*state))

    def finish(self, read: Read) -> None:
        """Fill the tables whose changes cannot be noted, while writers wait."""
        for table in self._tables:
            if table.content == "rows":
                for _ in self._refill(table.name, read):
                    pass
            elif table.content == "table":
                with self._copy.used() as copy:
                    copy.execute(_COMMAND.format(quoted(table.name)), ("rebuild", None))

    def _refill(self, name: str, read: Read) -> Iterator[int]:
        """Make the rows of a table equal to the store's, chunk by chunk; yield the number of rows compared."""
        with self._copy.used() as copy:
            columns = [column for (column,) in copy.execute("SELECT name FROM pragma_table_info(?)", (name,))]
        table = Table(-1, name, ("rowid",), ("rowid", *columns))
        key: Key = ()
        while key != (_GREATEST,):
            rows, is_last = read(lambda session: touched_rows.chunk(session.each, table, key))  # noqa: B023  called at once
            between = (key[0] + 1 if key else _LEAST, _GREATEST if is_last else rows[-1][0])
            wanted = {row[0]: row for row in rows}
            with self._copy.used() as copy, copy:
                existing = {row[0]: row for row in copy.execute(table.between, between)}
                # By `repr`, not by equality: 1 and 1.0 differ, and both can occur.
                unequal = [rowid for rowid in wanted | existing if repr(wanted.get(rowid)) != repr(existing.get(rowid))]
                copy.executemany(table.delete, [(rowid,) for rowid in unequal if rowid in existing])
                copy.executemany(table.insert(replacing=False), [wanted[rowid] for rowid in unequal if rowid in wanted])
            yield len(rows)
            key = (between[1],)

    def _session(self, copy: apsw.Connection) -> Session:
        return Session(Connection(copy, self._copy.store), NameBook(), Histories(HistoryPolicy()), self._derived)
