"""A change of a JSON store that neither an entry nor a past state tells of: in the file, and in memory."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated

import msgspec

from jarvis._json.record import FAR, Instant, Number, indented, margin_of
from jarvis.codec.instants import datetime_of
from jarvis.model.author import creator_in
from jarvis.model.change import Change, Kind, cursor_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jarvis._json.record import Record


class Event(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A change as the file shows it: its commit number, its instant, and the fields of `jarvis.model.change.Change`."""

    number: Number
    made: Instant
    operation: Kind
    id: str | None = None
    version: Annotated[int, msgspec.Meta(ge=1)] | None = None
    category: str | None = None
    key: str | None = None
    module: str | None = None
    task_id: str | None = None
    reason: str | None = None
    count: Annotated[int, msgspec.Meta(ge=0)] = 1

    def change(self, generation: int) -> Change:
        """Return the change as callers see it, in a store of this generation."""
        return Change(
            cursor=cursor_of(self.number, generation),
            operation=self.operation,
            memory_id=self.id,
            version=self.version,
            category=self.category,
            key=self.key,
            timestamp=datetime_of(self.made),
            module=self.module,
            task_id=self.task_id,
            reason=self.reason,
            count=self.count,
        )


class StoredEvent(msgspec.Struct, frozen=True):
    """An event in memory: the fields that are looked at, and the whole as the bytes that stand in the file."""

    fragment: bytes
    number: int
    made: int
    operation: Kind

    def event(self) -> Event:
        """Decode and return the event."""
        return _decode(self.fragment)


_decode = msgspec.json.Decoder(Event).decode

ERASED = "\0"
"""The prefix of a digest that takes the place of a namespace's name. No name begins so."""


def erasures_of(namespace: str) -> str:
    """Return the key under which the erasures of a namespace are kept: a digest, for its name must not stay."""
    return ERASED + hashlib.blake2b(namespace.encode(), digest_size=8).hexdigest()


def about(event: Event, record: Record) -> Event:
    """Return `event` as that of a change of `record`."""
    named = {name: getattr(record, name) for name in ("id", "version", "category", "key")}
    return msgspec.structs.replace(event, **named)


def creation(record: Record) -> Event:
    """Return the event of the creation of `record`, which has version 1; raise ValueError if it is malformed."""
    return Event(
        number=record.order[1],
        made=min(max(record.order[0], -FAR), FAR),  # an edited file may say anything
        operation="create",
        id=record.id,
        version=record.version,
        category=record.category,
        key=record.key,
        **creator_in(record.provenance)._asdict(),
    )


def store_event(event: Event, namespace: str) -> StoredEvent:
    """Return `event` as it stands in the file, in the part of `namespace`."""
    return _stored(event, indented(event, margin_of(namespace)))


def read_event(fragment: bytes, edited_in: str | None) -> StoredEvent:
    """Return the event in the bytes; if they were edited by hand, check and encode all of it.

    Raises:
        ValueError: they are malformed.
    """
    event = _decode(fragment)
    if edited_in is None:
        return _stored(event, fragment)
    named = [field is not None for field in (event.id, event.version, event.category, event.key)]
    if any(named) if event.operation == "erase" else not all(named):
        raise ValueError("it names a memory in part, or one that was erased")
    return store_event(event, edited_in)


def _stored(event: Event, fragment: bytes) -> StoredEvent:
    return StoredEvent(fragment, event.number, event.made, event.operation)


def check_order(events: Iterable[StoredEvent], ended: Iterable[int]) -> None:
    """Raise ValueError if the numbers do not ascend, or an event repeats a change that a past state tells of."""
    numbers = [event.number for event in events]
    if numbers != sorted(set(numbers)):
        raise ValueError("its events are out of order")
    if not set(numbers).isdisjoint(ended):
        raise ValueError("a change stands among its events and in its history")
