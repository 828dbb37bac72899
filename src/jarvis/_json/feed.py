"""The feed of a JSON store: the changes of a namespace, read from its entries, past states and events.

An entry of version 1 tells of its creation, a past state of the change that ended it. Every other change is kept
as an `Event`.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, TypeVar

import msgspec

from jarvis._json.event import Event, StoredEvent, creation
from jarvis._json.past import by_ended, by_event_number
from jarvis._json.record import by_number
from jarvis.model.rules import version_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jarvis._json.past import Archive, State
    from jarvis._json.room import Room
    from jarvis.model.change import Change

Item = TypeVar("Item")


def ending(state: State) -> Event:
    """Return the event of the change that ended `state`."""
    return Event(
        number=state.ended,
        made=state.made,
        id=state.id,
        version=version_after(state.change.operation, state.version),
        category=state.category,
        key=state.key,
        **msgspec.structs.asdict(state.change),
    )


def told_by(state: State) -> Iterator[Event]:
    """Yield the events of the changes that only `state` tells of; raise ValueError if it is malformed."""
    if state.version == 1 and not state.renewed:
        yield creation(state)
    if not state.ends_in_renewal:
        yield ending(state)


def changes(room: Room, archive: Archive, erasures: Archive, after: int, limit: int, generation: int) -> list[Change]:
    """Return the first `limit` changes of a namespace with numbers greater than `after`.

    Raises:
        ValueError: one of the entries that were created is malformed.
    """
    merged = heapq.merge(
        _told(room.born, by_number, creation, after),
        _told(archive.born, by_number, creation, after),
        _told(archive.states, by_ended, ending, after, lambda state: not state.ends_in_renewal),
        _told(archive.events, by_event_number, StoredEvent.event, after),
        _told(erasures.events, by_event_number, StoredEvent.event, after),
        key=itemgetter(0),
    )
    return [tell().change(generation) for _, tell in islice(merged, limit)]


def _told(
    items: list[Item],
    number_of: Callable[[Item], int],
    tell: Callable[[Item], Event],
    after: int,
    is_told: Callable[[Item], bool] | None = None,
) -> Iterator[tuple[int, Callable[[], Event]]]:
    for index in range(bisect_right(items, after, key=number_of), len(items)):
        if is_told is None or is_told(items[index]):
            yield number_of(items[index]), partial(tell, items[index])
