"""The seam for what goes with the entries of a store in tables of its own, such as a row for each of their tags."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from jarvis.model.entry import MemoryEntry
from jarvis.model.record import Encoded, decode_body

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jarvis._sql.driver import Driver
    from jarvis._sql.names import Names
    from jarvis._sql.tables import Table

_NO_TIME = datetime.min.replace(tzinfo=UTC)

Place = tuple[int, int, int]
"""Tells a state of an entry apart: (id of its namespace, instant, row). No two of a namespace have the same row; no two
of a store have it on SQLite."""

End = tuple[int, int]
"""Which change ended a past state: (commit number, instant)."""


class Lent(Protocol):
    """What a side table is lent of a `jarvis._sql.session.Session`: its connection, its names."""

    @property
    def driver(self) -> Driver:
        """Runs statements."""

    @property
    def names(self) -> Names:
        """Strings that repeat, and the numbers that stand for them."""

    @property
    def side_tables(self) -> tuple[SideTable, ...]:
        """All of the store's, in the order in which they are written."""


class SideTable(ABC):
    """Rows that go with each state of an entry.

    1. A state is `put` when it becomes the present one. Then it is taken out (`take`), or kept for the past (`keep`),
       from where it is taken out (`take_past`). `take_all` and `keep_all` do that with all entries of a namespace.
    2. Each call is a part of the transaction that makes the change. What one raises takes all of it back.
    3. `take`, `keep` and `take_past` find the rows of a state by its place and tags. Its other content is not given. So
       an FTS5 table needs content of its own, or ``contentless_delete``: it can delete without the old text then.
    4. What is taken out leaves the file: FTS5 keeps deleted words in its index for a while, so where something is
       erased, each FTS5 table that is declared is merged into one piece (``optimize``).
    5. Tables that are derived (`Table.is_derived`; all of a side table, or none) are not copied where a store is moved
       into another file. They are made anew there: each present state is `put`, each past one is `put` and then kept.
       They give no text an id of a name but those that the state itself has, or the copy would have other names.

    It is declared in `jarvis._sql.registry`. The text that creates its tables is the database's own.

    Attributes:
        tables: those that its rows are in, the one of the present first.
        needs_tags: it has rows of states that have tags, and is not asked about others.
    """

    tables: ClassVar[tuple[Table, ...]]
    needs_tags: ClassVar[bool] = False

    @abstractmethod
    def put(self, session: Lent, place: tuple[int, int, int, int, int], entry: MemoryEntry, encoded: Encoded) -> None:
        """Add the rows of a state that becomes the present one.

        Args:
            session: in whose transaction.
            place: a `Place`, and the ids of category and entity type.
            entry: what is stored, but for its value; of a table that is made anew, also for timestamp and provenance.
            encoded: has the value: `jarvis.model.record.check_stored` returns it, at the price of decoding.
        """

    @abstractmethod
    def take(self, session: Lent, place: Place, tags: Sequence[str]) -> int:
        """Remove the rows of a present state, of which nothing stays; return how many there were."""

    @abstractmethod
    def keep(self, session: Lent, place: Place, tags: Sequence[str], end: End) -> None:
        """Move the rows of a present state to the past, or remove them if it has none of the past."""

    @abstractmethod
    def take_past(self, session: Lent, place: Place, tags: Sequence[str]) -> int:
        """Remove the rows of a past state; return how many there were."""

    @abstractmethod
    def take_all(self, session: Lent, namespace: int) -> None:
        """Do what `take` does for every entry of a namespace. All of them are still there."""

    @abstractmethod
    def keep_all(self, session: Lent, namespace: int, before: int, made: int) -> None:
        """Do what `keep` does for every entry of a namespace. All of them are still there.

        In the order of their rows they are ended by the changes `before` + 1, `before` + 2, …, at the instant `made`.
        """

    def erase(self, session: Lent, namespace: int) -> int:
        """Remove all rows of a namespace, of its present and of its past; return how many there were.

        Entries and past states are still there.
        """
        count = 0
        for table in self.tables:
            session.driver.run(f"DELETE FROM {table.name} WHERE namespace = ?", (namespace,))
            count += session.driver.changed()
        return count

    @abstractmethod
    def date_past(self, session: Lent, now: int) -> None:
        """Give rows of past states that noted instants behind `now` those that their states have by now."""

    @abstractmethod
    def stored(self, *, is_past: bool) -> str | None:
        """Return the statement that reads the rows of all present or past states, for `verify`; None if there are none.

        Its first column is the row of the state, by which it is ordered.
        """

    @abstractmethod
    def verify(
        self, namespace: str, entry: MemoryEntry, encoded: Encoded, end: End | None, rows: Sequence[tuple[Any, ...]]
    ) -> str | None:
        """Compare what `stored` gave of one state with the state; return what is wrong, without its content, or None.

        Args:
            namespace: its name.
            entry: the state, but for its value, timestamp and provenance.
            encoded: has the value, see `put`.
            end: of a past state.
            rows: those with its row; empty if there are none.
        """


def take(session: Lent, place: Place, tags: Sequence[str]) -> dict[str, int]:
    """Remove what goes with a present state; return how many rows of what."""
    return {
        side.tables[0].counted: side.take(session, place, tags)
        for side in session.side_tables
        if tags or not side.needs_tags
    }


def take_past(session: Lent, place: Place, tags: Sequence[str]) -> dict[str, int]:
    """Remove what goes with a past state; return how many rows of what."""
    return {
        side.tables[0].counted: side.take_past(session, place, tags)
        for side in session.side_tables
        if tags or not side.needs_tags
    }


class Stored(NamedTuple):
    """A state as it is stored, in the order of the columns of `STATES`; `number` is its key there."""

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
        """Where it is."""
        return self.namespace, self.instant, self.row


_NAME = "(SELECT name FROM names WHERE names.id = s.{})"
_STATE = f"""
s.row, s.namespace, s.id, {_NAME.format("category")}, s.category, s.key, {_NAME.format("entity_type")}, s.entity_type,
s.entity_id, s.instant, s.version, s.body, s.packed
"""
STATES = {
    "entries": f"SELECT * FROM (SELECT row AS number, NULL, NULL, {_STATE} FROM entries AS s)",
    "revisions": f"SELECT * FROM (SELECT ended AS number, ended, made, {_STATE} FROM revisions AS s)",
}
"""By the table that has them: the statements that select states as they are stored, by their `number`."""


def put_again(session: Lent, state: Stored) -> None:
    """Make what goes with a state that is stored, of the present or of the past."""
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
    """Remove what `put_again` makes of a state."""
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
    """Return an entry without value, timestamp and provenance, which take long to decode."""
    return MemoryEntry(entry_id, category, key, {}, tags, entity_type, entity_id, _NO_TIME, {}, version, position)
