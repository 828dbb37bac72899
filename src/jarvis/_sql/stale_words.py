"""`Words`: notes which rows of the index of words are stale; see `jarvis._sql.indexing`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jarvis._sql.later_table import LaterTable
from jarvis._sql.tables import FIRST_WITH_WORDS, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jarvis._sql.side_tables import Lent, Place

_NOTE = "INSERT INTO text_stale SELECT ?1, ?2 FROM text_mark WHERE {here} AND upto >= ?2 ON CONFLICT DO NOTHING"
_NOTE_ALL = """
INSERT INTO text_stale SELECT e.namespace, e.row FROM entries AS e
WHERE e.namespace = ? AND e.row <= (SELECT upto FROM text_mark WHERE {here}) ON CONFLICT DO NOTHING
"""


class Words(LaterTable):
    """Notes which rows of the index are stale; the index itself is made later, see `advance`."""

    tables = (
        Table("text_stale", since=FIRST_WITH_WORDS, is_derived=True),
        Table("text_counts", since=FIRST_WITH_WORDS, is_derived=True),
        Table("text_mark", since=FIRST_WITH_WORDS, is_derived=True),
        Table("text_index", since=FIRST_WITH_WORDS, is_derived=True),
        Table("text_vocabulary", since=FIRST_WITH_WORDS, is_derived=True),
    )
    lags = True

    def take(self, session: Lent, place: Place, tags: Sequence[str]) -> int:  # noqa: ARG002
        """Note that the row of a state is stale, if it is in the index; `forget_stale` removes it."""
        namespace, _, row = place
        session.driver.run(session.driver.dialect.say(_NOTE), (namespace, row))
        return 0

    def take_all(self, session: Lent, namespace: int) -> None:
        """Note that all rows of a namespace are stale."""
        session.driver.run(session.driver.dialect.say(_NOTE_ALL), (namespace,))
