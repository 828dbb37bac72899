"""The seam for what goes with the entries of a store in tables of its own, such as a row for each of their tags."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jarvis._sql.driver import Driver
    from jarvis._sql.names import Names
    from jarvis._sql.tables import Table
    from jarvis.model.entry import MemoryEntry
    from jarvis.model.record import Encoded

Place = tuple[int, int, int]
"""Tells a state of an entry apart: (id of its namespace, instant, row). No two states in a store have the same row."""

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
    5. A table that is derived (`Table.is_derived`) is not copied where a store is moved into another file. It is made
       anew there: each present state is `put`, each past one is `put` and then kept.

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
