"""Finds what an erasure removes, and counts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jarvis._json.past import noted_ids
from jarvis.model.query import MemoryQuery

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jarvis._json.event import Event
    from jarvis._json.past import Archive
    from jarvis._json.record import Record
    from jarvis._json.room import Room
    from jarvis._json.seen import Seen
    from jarvis.model.erasure import Judge, Look, Search


def ids_of(
    which: str | MemoryQuery | None,
    room: Room,
    archive: Archive,
    events: Sequence[Event],
    judge: Judge | None,
) -> set[str]:
    """Return the ids in a namespace that `which` names; see `jarvis.capabilities.Erases`."""
    if isinstance(which, MemoryQuery):
        found = filter(which.predicate(), (*room.records.values(), *archive.states))
        ids = {state.id for state in found if judge is None or judge(state.entry())}
        return ids | noted_ids(which, room, archive, events, has_judge=judge is not None)
    ids = {*room.records, *archive.of_id, *archive.gaps}
    ids |= {event.id for event in events if event.id is not None}
    return ids if which is None else ids & {which}


def counted(ids: set[str], records: Sequence[Record], before: Archive, left: Archive) -> dict[str, int]:
    """Return how many rows of each kind are gone with these ids, as a receipt names them."""
    states = [state for state in before.states if state.id in ids]
    removed = {
        "entries": len(records),
        "tags": sum(len(each.tags) for each in (*records, *states)),
        "past states": len(states),
        "gaps": len(before.gaps) - len(left.gaps),
        "changes": len(before.events) - len(left.events),
    }
    return {name: count for name, count in removed.items() if count}


def looked_through(searched: Search | None, look: Look | None, seen: Seen, namespace: str) -> Search | None:
    """Return a search with what `look` finds in every state of a namespace, present or past, expired or not."""
    if searched is None or look is None:
        return searched
    states = (*seen.room(namespace).records.values(), *seen.archive(namespace).states)
    return searched._replace(found=searched.found + look(state.entry() for state in states))
