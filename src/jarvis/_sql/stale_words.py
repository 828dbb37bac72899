"""`Words`: notes which rows of the index of words are stale; see `jarvis._sql.indexing`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jarvis._sql.side_tables import SideTable
from jarvis._sql.tables import FIRST_WITH_WORDS, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jarvis._sql.side_tables import End, Lent, Place
    from jarvis.model.entry import MemoryEntry
    from jarvis.model.record import Encoded

_NOTE = "INSERT INTO text_stale SELECT ?1, ?2 FROM text_mark WHERE {here} AND upto >= ?2 ON CONFLICT DO NOTHING"
_NOTE_ALL = """
INSERT INTO text_stale SELECT e.namespace, e.row FROM entries AS e
WHERE e.namespace = ? AND e.row <= (SELECT upto FROM text_mark WHERE {here}) ON CONFLICT DO NOTHING
"""


class Words(SideTable):
    """Notes which rows of the index are stale; the index itself is made later, see `advance`."""

    tables = (
        Table("text_stale", since=FIRST_WITH_WORDS, is_derived=True),
        Table("text_counts", since=FIRST_WITH_WORDS, is_derived=True),
        Table("text_mark", since=FIRST_WITH_WORDS, is_derived=True),
        Table("text_index", since=FIRST_WITH_WORDS, is_derived=True),
        Table("text_vocabulary", since=FIRST_WITH_WORDS, is_derived=True),
    )
    lags = True

    def put(self, session: Lent, place: tuple[int, int, int, int, int], entry: MemoryEntry, encoded: Encoded) -> None:
        """Do nothing: the state is in the tail."""

    def put_all(
        self, session: Lent, states: Sequence[tuple[tuple[int, int, int, int, int], MemoryEntry, Encoded]]
    ) -> None:
        """Do nothing."""

    def take(self, session: Lent, place: Place, tags: Sequence[str]) -> int:  # noqa: ARG002
        """Note that the row of a state is stale, if it is in the index."""
        namespace, _, row = place
        session.driver.run(session.driver.dialect.say(_NOTE), (namespace, row))
        return 0

    def keep(self, session: Lent, place: Place, tags: Sequence[str], end: End) -> None:  # noqa: ARG002
        """Note that the row of a state is stale: no past is indexed."""
        self.take(session, place, tags)

    def take_past(self, session: Lent, place: Place, tags: Sequence[str]) -> int:  # noqa: ARG002
        """Do nothing: past states are not indexed."""
        return 0

    def take_all(self, session: Lent, namespace: int) -> None:
        """Note that all rows of a namespace are stale."""
        session.driver.run(session.driver.dialect.say(_NOTE_ALL), (namespace,))

    def keep_all(self, session: Lent, namespace: int, before: int, made: int) -> None:  # noqa: ARG002
        """Note that all rows of a namespace are stale."""
        self.take_all(session, namespace)

    def erase(self, session: Lent, namespace: int) -> int:
        """Note that all rows of a namespace are stale; `forget_stale` removes them."""
        self.take_all(session, namespace)
        return 0

    def date_past(self, session: Lent, now: int) -> None:
        """Do nothing: past states are not indexed."""

    def stored(self, *, is_past: bool) -> None:  # noqa: ARG002
        """Return None: see `jarvis._sql.word_check`."""
        return

    def verify(
        self, namespace: str, entry: MemoryEntry, encoded: Encoded, end: End | None, rows: Sequence[tuple[Any, ...]]
    ) -> str | None:
        """Do nothing: it has no rows of a state."""
