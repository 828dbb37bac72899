"""Answers questions from the records of a room, and explains how."""

from __future__ import annotations

import contextlib
import itertools
import sys
from typing import TYPE_CHECKING

from jarvis.codec import InvalidMomentError
from jarvis.errors import CorruptStoreError, StoreAccessError
from jarvis.model.explanation import Explanation, filters_of, hint_for
from jarvis.model.query import EXACT, MemoryQuery
from jarvis.model.record import unknown_zone
from jarvis.model.rules import exact_filters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from jarvis._json.past import PastRoom
    from jarvis._json.record import Record
    from jarvis._json.room import LiveRoom, Room
    from jarvis.model.entry import MemoryEntry

    Answering = Room | LiveRoom | PastRoom


class Answers:
    """The answers of rooms. An entry that cannot be decoded raises a `StoreError` that names the file at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def entry(self, record: Record | None) -> MemoryEntry | None:
        """Return the entry of a record; None for None."""
        if record is None:
            return None
        with self.decoding():
            return record.entry()

    def listed(self, room: Answering, query: MemoryQuery) -> list[MemoryEntry]:
        """Return the entries of a room that match a query."""
        records = _matching(room.candidates(query), query)
        with self.decoding():
            return [record.entry() for record in records]

    def entries(self, room: Answering, query: MemoryQuery) -> Iterator[MemoryEntry]:
        """Yield what `listed` returns."""
        records = _matching(room.candidates(query), query)
        while True:
            with self.decoding():
                record = next(records, None)
                if record is None:
                    return
                entry = record.entry()
            yield entry

    def counted(self, room: Answering, query: MemoryQuery) -> int:
        """Return how many entries of a room match a query."""
        with self.decoding():
            return sum(1 for _ in _matching(room.candidates(query), query))

    def explained(self, room: Answering, query: MemoryQuery) -> Explanation:
        """Answer a query, and return how. Python decides all filters, for the records of one index or for all."""
        looks = itertools.count()
        records = (record for record in room.candidates(query) if next(looks) >= 0)
        with self.decoding():
            returned = sum(1 for _ in _matching(records, query))
        looked_at = next(looks)
        return Explanation(
            index=room.lead(query)[0],
            looked_at=looked_at,
            judged=looked_at,
            returned=returned,
            in_database=(),
            in_python=filters_of(query),
            hint=hint_for(query, (*EXACT, "keys", "tags", "since", "until")),
        )

    @contextlib.contextmanager
    def decoding(self) -> Iterator[None]:
        """Let an error of decoding in a block name the file."""
        try:
            yield
        except InvalidMomentError as error:
            raise StoreAccessError(self._path, unknown_zone(error.entry_id, error)) from None
        except ValueError:  # its message may hold stored values
            raise CorruptStoreError(self._path, "holds an entry that cannot be read; restore a copy") from None


class Then:
    """A namespace as it was at an instant; see `jarvis.capabilities.Past`.

    `room_at` returns it, for a question that fixes some fields.
    """

    def __init__(self, answers: Answers, room_at: Callable[[Mapping[str, str | None]], Answering]) -> None:
        self._answers, self._room_at = answers, room_at

    def read(self, entry_id: str) -> MemoryEntry | None:
        return self._answers.entry(self._room_at({"id": entry_id}).get(entry_id))

    def newest_of_key(self, key: str) -> MemoryEntry | None:
        return next(iter(self.select(MemoryQuery(key=key, limit=1))), None)

    def select(self, query: MemoryQuery) -> list[MemoryEntry]:
        return self._answers.listed(self._room_at(exact_filters(query)), query)

    def count(self, query: MemoryQuery) -> int:
        return self._answers.counted(self._room_at(exact_filters(query)), query)

    def explain(self, query: MemoryQuery, *, counting: bool = False) -> Explanation:  # noqa: ARG002 - alike here
        return self._answers.explained(self._room_at(exact_filters(query)), query)

    def iterate(self, query: MemoryQuery) -> Iterator[MemoryEntry]:
        yield from self._answers.entries(self._room_at(exact_filters(query)), query)


def _matching(candidates: Iterator[Record], query: MemoryQuery) -> Iterator[Record]:
    """Return those of the candidates that a query asks for, in its order and from its offset up to its limit."""
    matching = filter(query.predicate(), candidates)
    if not query.is_newest_first:
        return iter(query.arranged(matching))
    stop = None if query.limit is None else min(query.offset + query.limit, sys.maxsize)
    return itertools.islice(matching, query.offset, stop)
