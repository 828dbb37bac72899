"""`SideTable`: rows in tables of their own that go with each state of an entry, such as one for each tag."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from jarvis.model.entry import MemoryEntry
from jarvis.model.record import Encoded, decode_body

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jarvis._sql.driver import Driver
    from jarvis._sql.names import Names
    from jarvis._sql.tables import Table

_NO_TIME = datetime.min.replace(tzinfo=UTC)

Place = tuple[int, int, int]
"""Identifies a state of an entry: (id of its namespace, instant, row). Rows are unique in a namespace, and on SQLite
in the whole store."""

End = tuple[int, int]
"""The change that ended a past state: (commit number, instant)."""


class Lent(Protocol):
    """The part of a `jarvis._sql.session.Session` that a side table uses."""

    @property
    def driver(self) -> Driver:
        """Runs statements."""

    @property
    def names(self) -> Names:
        """The strings that repeat, and their ids."""

    @property
    def side_tables(self) -> tuple[SideTable, ...]:
        """All side tables of the store, in the order in which they are written."""


class SideTable(ABC):
    """Rows that go with each state of an entry.

    1. `put` adds the rows of a state that becomes the present one. Later `take` removes them, or `keep` moves them to
       the past, from which `take_past` removes them. `take_all` and `keep_all` do this for all entries of a namespace.
    2. Each call is part of the transaction of the change. An exception rolls the whole change back.
    3. `take`, `keep` and `take_past` find the rows of a state by its place and tags. They do not get its other content.
       So an FTS5 table needs its own content, or ``contentless_delete``, to delete without the old text.
    4. Removed rows must leave the file. FTS5 keeps deleted words in its index for a while, so an erasure merges each
       declared FTS5 table into one piece (``optimize``).
    5. A move of the store into another file does not copy derived tables (`Table.is_derived`; all of a side table, or
       none). It rebuilds them: each present state is `put`, each past one is `put` and then kept. Derived tables
       intern no names but those of the state itself, or the copy would have other names.

    A side table is declared in `jarvis._sql.registry`. Each database has its own text that creates its tables.

    Attributes:
        tables: the tables that hold its rows, the one of the present first.
        needs_tags: only states with tags have rows; the methods are not called for others.
        lags: its rows are made later, from the entries: a move only creates its tables.
    """

    tables: ClassVar[tuple[Table, ...]]
    needs_tags: ClassVar[bool] = False
    lags: ClassVar[bool] = False

    @abstractmethod
    def put(self, session: Lent, place: tuple[int, int, int, int, int], entry: MemoryEntry, encoded: Encoded) -> None:
        """Add the rows of a state that becomes the present one.

        Args:
            session: the session of the transaction.
            place: a `Place`, and the ids of category and entity type.
            entry: the stored entry without its value; in a rebuild also without timestamp and provenance.
            encoded: holds the value: `jarvis.model.record.check_stored` returns it, at the cost of decoding.
        """

    def put_all(
        self, session: Lent, states: Sequence[tuple[tuple[int, int, int, int, int], MemoryEntry, Encoded]]
    ) -> None:
        """Add the rows of several states, as `put` does."""
        for place, entry, encoded in states:
            if entry.tags or not self.needs_tags:
                self.put(session, place, entry, encoded)

    @abstractmethod
    def take(self, session: Lent, place: Place, tags: Sequence[str]) -> int:
        """Remove the rows of a present state that is not kept; return how many there were."""

    @abstractmethod
    def keep(self, session: Lent, place: Place, tags: Sequence[str], end: End) -> None:
        """Move the rows of a present state to the past, or remove them if the table has no past."""

    @abstractmethod
    def take_past(self, session: Lent, place: Place, tags: Sequence[str]) -> int:
        """Remove the rows of a past state; return how many there were."""

    @abstractmethod
    def take_all(self, session: Lent, namespace: int) -> None:
        """Remove the rows of every entry of a namespace. The entries are still there."""

    @abstractmethod
    def keep_all(self, session: Lent, namespace: int, before: int, made: int) -> None:
        """Keep the rows of every entry of a namespace. The entries are still there.

        The changes `before` + 1, `before` + 2, … end them in the order of their rows, at the instant `made`.
        """

    def erase(self, session: Lent, namespace: int) -> int:
        """Remove all rows of a namespace, present and past; return how many there were.

        Entries and past states are still there.
        """
        count = 0
        for table in self.tables:
            session.driver.run(f"DELETE FROM {table.name} WHERE namespace = ?", (namespace,))
            count += session.driver.changed()
        return count

    @abstractmethod
    def date_past(self, session: Lent, now: int) -> None:
        """Correct instants later than `now` in rows of past states to the new instants of their states."""

    @abstractmethod
    def stored(self, *, is_past: bool) -> str | None:
        """Return the statement that reads the rows of all present or past states for `verify`; None if it has none.

        Its first column is the row of the state, which orders the answer.
        """

    def summed(self, *, is_past: bool) -> str | None:  # noqa: ARG002  for those that have one
        """Return the statement that reads all rows of present or past states in any order, for `rows_of`.

        None, as here: the rows of each state are compared by `verify`.
        """
        return None

    def rows_of(
        self, place: tuple[int, int, int, int, int], tags: Sequence[int | None], end: End | tuple[()]
    ) -> Iterable[tuple[int | None, ...]]:
        """Return the rows of a state that the statement of `summed` reads.

        Args:
            place: as for `put`.
            tags: the ids of the names of its tags, each once; None for a name that has no id.
            end: the end of a past state, empty for a present one.
        """
        raise NotImplementedError

    @abstractmethod
    def verify(
        self, namespace: str, entry: MemoryEntry, encoded: Encoded, end: End | None, rows: Sequence[tuple[Any, ...]]
    ) -> str | None:
        """Compare the rows of one state with the state; return the fault, without content, or None.

        Args:
            namespace: the namespace's name.
            entry: the state without its value, timestamp and provenance.
            encoded: holds the value, see `put`.
            end: the end of a past state, None for a present one.
            rows: the rows of this state from `stored`; empty if there are none.
        """


def take(session: Lent, place: Place, tags: Sequence[str]) -> dict[str, int]:
    """Remove the rows of a present state from the side tables; return how many of each kind."""
    return {
        side.tables[0].counted: side.take(session, place, tags)
        for side in session.side_tables
        if tags or not side.needs_tags
    }


def take_past(session: Lent, place: Place, tags: Sequence[str]) -> dict[str, int]:
    """Remove the rows of a past state from the side tables; return how many of each kind."""
    return {
        side.tables[0].counted: side.take_past(session, place, tags)
        for side in session.side_tables
        if tags or not side.needs_tags
    }


class Stored(NamedTuple):
    """A stored state, with its fields in the order of the columns of `STATES`; `number` is its key there."""

    number: int
    ended: int | None
    made: int | None
    row: int
    namespace: int
    id: str
    category: str
    category_id: int
    key: str
    entity_type: str
    entity_type_id: int
    entity_id: str | None
    instant: int
    version: int
    body: str
    packed: bytes | None

    @property
    def place(self) -> Place:
        """The place of this state."""
        return self.namespace, self.instant, self.row


_NAME = "(SELECT name FROM names WHERE {{here}} AND names.id = s.{})"
_STATE = f"""
s.row, s.namespace, s.id, {_NAME.format("category")}, s.category, s.key, {_NAME.format("entity_type")}, s.entity_type,
s.entity_id, s.instant, s.version, s.body, s.packed
"""
STATES = {
    "entries": f"SELECT * FROM (SELECT row AS number, NULL, NULL, {_STATE} FROM entries AS s) AS states",
    "revisions": f"SELECT * FROM (SELECT ended AS number, ended, made, {_STATE} FROM revisions AS s) AS states",
}
"""By table: the statement that selects its states as they are stored, by their `number`."""


def put_again(session: Lent, state: Stored) -> None:
    """Write the rows of a stored state, present or past, to the side tables again."""
    tags, position = _tags(session, state.body), (state.instant, state.row)
    kind, version = state.entity_type, state.version
    entry = described(state.id, state.category, state.key, tags, kind, state.entity_id, version, position)
    encoded = Encoded(state.body.encode(), state.packed, state.instant)
    for side in session.side_tables:
        if tags or not side.needs_tags:
            side.put(session, (*state.place, state.category_id, state.entity_type_id), entry, encoded)
            if state.ended is not None and state.made is not None:
                side.keep(session, state.place, tags, (state.ended, state.made))


def take_again(session: Lent, state: Stored) -> None:
    """Remove the rows that `put_again` writes."""
    (take if state.ended is None else take_past)(session, state.place, _tags(session, state.body))


def _tags(session: Lent, body: str) -> list[str]:
    try:
        return decode_body(body).tags
    except ValueError:
        raise session.driver.corrupt("an entry cannot be decoded") from None


def described(
    entry_id: str,
    category: str,
    key: str,
    tags: list[str],
    entity_type: str,
    entity_id: str | None,
    version: int,
    position: tuple[int, int],
) -> MemoryEntry:
    """Return an entry without value, timestamp and provenance, which are slow to decode."""
    return MemoryEntry(entry_id, category, key, {}, tags, entity_type, entity_id, _NO_TIME, {}, version, position)
