"""Answers questions from the records of a room, and explains how."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jarvis.model.explanation import Explanation, filters_of, hint_for
from jarvis.model.query import EXACT, MemoryQuery

if TYPE_CHECKING:
    from jarvis._json.past import PastRoom
    from jarvis._json.record import Record
    from jarvis._json.room import LiveRoom, Room


def matching(candidates: Iterator[Record], query: MemoryQuery) -> Iterator[Record]:
    """Return those of the candidates that a query asks for, in its order and from its offset up to its limit."""
    matching = filter(query.predicate(), candidates)
    if not query.is_newest_first:
        return iter(query.arranged(matching))
    stop = None if query.limit is None else min(query.offset + query.limit, sys.maxsize)
    return itertools.islice(matching, query.offset, stop)


def explained(room: Room | LiveRoom | PastRoom, query: MemoryQuery) -> Explanation:
    """Answer a query, and return how. Python decides all filters, for the records of one index or for all."""
    looks = itertools.count()
    returned = sum(1 for _ in matching((record for record in room.candidates(query) if next(looks) >= 0), query))
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
