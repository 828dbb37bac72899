"""`LaterTable`: a side table whose rows come behind the writes, and belong to present states only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jarvis._sql.side_tables import SideTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jarvis._sql.side_tables import End, Lent, Place
    from jarvis.model.entry import MemoryEntry
    from jarvis.model.record import Encoded


class LaterTable(SideTable):
    """A side table that a write adds nothing to: `take` and `take_all` remove what was made of a state later."""

    def put(self, session: Lent, place: tuple[int, int, int, int, int], entry: MemoryEntry, encoded: Encoded) -> None:
        """Do nothing."""

    def put_all(
        self, session: Lent, states: Sequence[tuple[tuple[int, int, int, int, int], MemoryEntry, Encoded]]
    ) -> None:
        """Do nothing."""

    def keep(self, session: Lent, place: Place, tags: Sequence[str], end: End) -> None:  # noqa: ARG002
        """Remove the rows of a state: past states have none."""
        self.take(session, place, tags)

    def take_past(self, session: Lent, place: Place, tags: Sequence[str]) -> int:  # noqa: ARG002
        """Do nothing."""
        return 0

    def keep_all(self, session: Lent, namespace: int, before: int, made: int) -> None:  # noqa: ARG002
        """Remove the rows of every entry of a namespace."""
        self.take_all(session, namespace)

    def erase(self, session: Lent, namespace: int) -> int:
        """Remove the rows of every entry of a namespace; receipts do not count them."""
        self.take_all(session, namespace)
        return 0

    def date_past(self, session: Lent, now: int) -> None:
        """Do nothing."""

    def stored(self, *, is_past: bool) -> None:  # noqa: ARG002
        """Return None: a state says nothing of the rows that it should have."""
        return

    def verify(
        self, namespace: str, entry: MemoryEntry, encoded: Encoded, end: End | None, rows: Sequence[tuple[Any, ...]]
    ) -> str | None:
        """Do nothing: there are no rows to compare."""
