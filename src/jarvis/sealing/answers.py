"""`Answers`: the reading verbs on a sealed namespace, as it is or as of a moment."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator

import msgspec

from jarvis.capabilities import Past
from jarvis.model.entry import MemoryEntry
from jarvis.model.erasure import Wanted
from jarvis.model.explanation import Explanation, filters_of, hint_for
from jarvis.model.mending import Entries
from jarvis.model.query import MemoryQuery
from jarvis.model.record import encode_body
from jarvis.sealing.sealer import Sealer, decides


class Answers:
    """Answers questions from sealed entries."""

    def __init__(self, sealer: Sealer, sealed: Past) -> None:
        self._sealer, self._sealed = sealer, sealed

    def read(self, entry_id: str) -> MemoryEntry | None:
        name = self._sealer.looked_up("id", entry_id)
        return None if name is None else self.opened(self._sealed.read(name))

    def newest_of_key(self, key: str) -> MemoryEntry | None:
        name = self._sealer.looked_up("key", key)
        return None if name is None else self.opened(self._sealed.newest_of_key(name))

    def select(self, query: MemoryQuery) -> list[MemoryEntry]:
        if decides(query):
            return [*map(self._sealer.opened, self._sealed.select(self._sealer.query(query)))]
        return list(self._judged(query))

    def count(self, query: MemoryQuery) -> int:
        if decides(query):
            return self._sealed.count(self._sealer.query(query))
        return sum(1 for _ in self._judged(query))

    def explain(self, query: MemoryQuery, *, counting: bool = False) -> Explanation:
        sealed = self._sealer.query(query)
        if decides(query):
            return self._sealed.explain(sealed, counting=counting)
        told, left = self._sealed.explain(sealed), set(filters_of(query)) - set(filters_of(sealed))
        return msgspec.structs.replace(
            told,
            judged=told.returned,
            returned=self.count(query),
            in_python=(*told.in_python, *(name for name in filters_of(query) if name in left)),
            hint=hint_for(query, filters_of(sealed)),
        )

    def iterate(self, query: MemoryQuery) -> Iterator[MemoryEntry]:
        if decides(query):
            yield from map(self._sealer.opened, self._sealed.iterate(self._sealer.query(query)))
        else:
            yield from self._judged(query)

    def opened(self, entry: MemoryEntry | None) -> MemoryEntry | None:
        """Return an entry of the backend below, opened; None for none."""
        return None if entry is None else self._sealer.opened(entry)

    def _judged(self, query: MemoryQuery) -> Iterator[MemoryEntry]:
        entries = map(self._sealer.opened, self._sealed.iterate(self._sealer.query(query)))
        matching = filter(query.predicate(), entries)
        if query.order == "key" or query.limit == 0:  # the backend below may still say that it does not know
            return iter(query.arranged(matching))
        stop = None if query.limit is None else min(query.offset + query.limit, sys.maxsize)
        return itertools.islice(matching, min(query.offset, sys.maxsize), stop)


class Mended:
    """The entries of a namespace, by the ids that they have in the backend below."""

    def __init__(self, sealer: Sealer, entries: Entries) -> None:
        self._sealer, self._entries = sealer, entries

    def read(self, entry_id: str) -> MemoryEntry | None:
        return self._entries.read(self._sealer.text("id", entry_id))

    def update(self, entry: MemoryEntry) -> None:
        self._entries.update(entry)


def mentions_in(entry: MemoryEntry, wanted: Wanted) -> int:
    """Return how often ids stand in an entry."""
    names = (entry.id, entry.key, entry.entity_id or "")
    return wanted.count(encode_body(entry)[0]) + sum(wanted.count(name.encode()) for name in names)
