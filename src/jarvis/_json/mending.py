"""Mends dates that lie ahead of the clock; `jarvis._sql.mending` does the same in tables."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from jarvis._json.event import store_event
from jarvis._json.past import Archive, moment_of, redated
from jarvis._json.record import by_number
from jarvis.model.mending import LEAST, Dated, redate_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jarvis._json.event import StoredEvent
    from jarvis._json.transaction import Transaction
    from jarvis.model.mending import Entries


def mend(transaction: Transaction, namespace: Callable[[str], Entries], now: int) -> int:
    """Mend the dates of the store; return how many entries got another date. No-op if its last moment has passed.

    Args:
        transaction: one that has changed nothing yet.
        namespace: returns the backend of a namespace, whose changes belong to the transaction.

    Raises:
        ValueError: a past state or an event is malformed.
    """
    made = transaction.clock.made
    if made is None or made - now <= LEAST:
        return 0
    dated = Dated(now, made, partial(moment_of, transaction.spans))
    for number, date in _dates(transaction):
        dated.add(number, date)
    new = dated.mended()
    first = min(new, default=transaction.clock.commit + 1)
    transaction.begin_past_again(now)
    records = [
        (by_number(record), name, record.id)
        for name, room in transaction.rooms.items()
        for record in room.records.values()
        if by_number(record) >= first
    ]
    count = redate_all(((namespace(name), entry_id, new.get(each)) for each, name, entry_id in sorted(records)), now)
    transaction.archives = {name: _redated(name, archive, new, now) for name, archive in transaction.archives.items()}
    return count


def _dates(transaction: Transaction) -> Iterator[tuple[int, int]]:
    for room in transaction.rooms.values():
        for record in room.records.values():
            yield record.order[1], record.order[0]
    for archive in transaction.archives.values():
        for state in archive.states:
            yield state.order[1], state.order[0]
            yield state.ended, state.made
        for event in archive.events:
            yield event.number, event.made


def _redated(namespace: str, archive: Archive, new: dict[int, int], now: int) -> Archive:
    def dated(event: StoredEvent) -> StoredEvent:
        if event.made <= now:
            return event
        date = new.get(event.number, now)
        return store_event(msgspec.structs.replace(event.event(), made=date), namespace)

    states = (
        redated(state, namespace, new.get(by_number(state)), min(new.get(state.ended, state.made), now))
        for state in archive.states
    )
    return Archive(states, (), map(dated, archive.events))
