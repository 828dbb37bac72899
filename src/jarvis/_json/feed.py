"""The feed of a JSON store: what happened in a namespace, told by what is kept of it.

An entry of version 1 tells of its creation, a past state of the change that ended it. What neither tells
any more, or never did, is kept as an `Event`.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from functools import partial
from itertools import islice
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, TypeVar

from jarvis._json.event import Event, StoredEvent, creation
from jarvis._json.record import by_number
from jarvis.model.rules import version_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jarvis._json.past import Archive, State
    from jarvis._json.room import Room
    from jarvis.model.change import Change

Held = TypeVar("Held")

_by_ended = attrgetter("ended")
_by_event_number = attrgetter("number")


def ending(state: State) -> Event:
    """Return the event of the change that ended `state`."""
    change = state.change
    return Event(
        number=state.ended,
        made=state.made,
        operation=change.operation,
        id=state.id,
        version=version_after(change.operation, state.version),
        category=state.category,
        key=state.key,
        module=change.module,
        task_id=change.task_id,
        reason=change.reason,
    )


def changes(room: Room, archive: Archive, erasures: Archive, after: int, limit: int, generation: int) -> list[Change]:
    """Return the first `limit` changes of a namespace with numbers greater than `after`.

    Raises:
        ValueError: an entry whose creation is told is malformed.
    """
    merged = heapq.merge(
        _told(room.born, by_number, creation, after),
        _told(archive.born, by_number, creation, after),
        _told(archive.states, _by_ended, ending, after),
        _told(archive.events, _by_event_number, StoredEvent.event, after),
        _told(erasures.events, _by_event_number, StoredEvent.event, after),
        key=itemgetter(0),
    )
    return [tell().change(generation) for _, tell in islice(merged, limit)]


def _told(
    held: list[Held], number_of: Callable[[Held], int], tell: Callable[[Held], Event], after: int
) -> Iterator[tuple[int, Callable[[], Event]]]:
    for place in range(bisect_right(held, after, key=number_of), len(held)):
        yield number_of(held[place]), partial(tell, held[place])
