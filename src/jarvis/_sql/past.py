"""`PastView`: a namespace as of a moment, read from entries and from the states that changes ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from jarvis._sql import history
from jarvis._sql.reading import NEWEST_OF_KEY, READ, Result, can_be_looked_up
from jarvis._sql.select import count
from jarvis._sql.session import Session
from jarvis._sql.shape import decides
from jarvis.model.entry import MemoryEntry
from jarvis.model.explanation import Explanation
from jarvis.model.query import MemoryQuery
from jarvis.model.rules import exact_filters, settle

if TYPE_CHECKING:
    from jarvis._sql.reading import Reader
    from jarvis.model.revision import Cutoff


class PastView:
    """A namespace as of an instant: entries unchanged since then, and states that were ended since."""

    def __init__(self, reader: Reader, instant: int) -> None:
        self._reader, self._instant = reader, instant

    def read(self, entry_id: str) -> MemoryEntry | None:
        if not can_be_looked_up(entry_id):
            return None
        return self._one("id", entry_id, READ)

    def newest_of_key(self, key: str) -> MemoryEntry | None:
        return self._one("key", key, NEWEST_OF_KEY)

    def select(self, query: MemoryQuery) -> list[MemoryEntry]:
        def answer(session: Session) -> list[MemoryEntry]:
            now = self._reader.now()
            rows = self._reader.matching(session, query, now, self._look(session, query, now))
            return self._reader.entries(session, list(rows))

        return self._reading(answer)

    def count(self, query: MemoryQuery) -> int:
        def answer(session: Session) -> int:
            now = self._reader.now()
            seen = self._look(session, query, now)
            if not decides(query):
                return sum(1 for _ in self._reader.matching(session, query, now, seen))
            name_id = session.names.id_of
            statement = count(query, self._reader.namespace, name_id, session.dialect, now=now, cutoff=seen)
            return int(session.rows(*statement)[0][0]) if statement else 0

        return self._reading(answer)

    def explain(self, query: MemoryQuery, *, counting: bool = False) -> Explanation:
        def answer(session: Session) -> Explanation:
            now = self._reader.now()
            return self._reader.explain(session, query, now, self._look(session, query, now), counting=counting)

        return self._reading(answer)

    def iterate(self, query: MemoryQuery) -> Iterator[MemoryEntry]:
        if self._reader.lender.in_transaction():
            yield from self.select(query)
            return

        def answer(session: Session) -> Iterator[MemoryEntry]:
            with session.standing_still():
                now = self._reader.now()
                yield from self._reader.sift(session, query, now, self._look(session, query, now))

        self._settle()
        yield from self._reader.lender.iterate(answer)

    def _one(self, name: str, text: str, present: str) -> MemoryEntry | None:
        def find(session: Session) -> MemoryEntry | None:
            look, now = history.seen_from(session, self._instant), self._reader.now()
            namespace = session.names.id_of(self._reader.namespace)
            asked: dict[str, object] = {"namespace": namespace, name: text}
            seen = history.cutoff(session, self._reader.namespace, look, now, asked)
            if seen is None:
                return self._reader.find(session, present, (), text)
            bound = {"namespace": namespace, "held": text, "now": now, **history.bound(seen)}
            rows = session.rows(session.say(history.NEWEST_OF[name]), bound)
            return self._reader.entries(session, rows)[0] if rows else None

        return self._reading(find)

    def _look(self, session: Session, query: MemoryQuery, now: int) -> Cutoff | None:
        """Return the cutoff; raise if a state that `query` might match is missing."""
        look, asked = history.seen_from(session, self._instant), exact_filters(query)
        for name in ("category", "entity_type"):
            if name in asked:
                asked[name] = session.names.id_of(asked[name])
        asked["namespace"] = session.names.id_of(self._reader.namespace)
        return history.cutoff(session, self._reader.namespace, look, now, asked)

    def _reading(self, work: Callable[[Session], Result]) -> Result:
        self._settle()
        return self._reader.reading(Session.at_one_moment, work)

    def _settle(self) -> None:
        settle(self._instant, self._reader.now(), self._reader.lender.await_commit)
