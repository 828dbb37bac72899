"""The past of a JSON store: the states that changes ended, and which of them were there at a moment."""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from jarvis._json.instants import Instant, Number
from jarvis._json.record import (
    Provenance,
    Record,
    Stored,
    by_number,
    encode,
    fragment_of,
    make_record,
    normalize,
    revived,
)
from jarvis.codec.nesting import decoder_of
from jarvis.model.entry import DEFAULT_NAMESPACE, EXACT, MemoryEntry
from jarvis.model.record import may_hold_tags
from jarvis.model.revision import REMOVALS, Cutoff, Operation, Revision

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from jarvis._json.event import StoredEvent
    from jarvis._json.room import LiveRoom, Room
    from jarvis.model.entry import MemoryQuery

ENDLESS = 2**62
"""Beyond every number and instant."""


# --- one past state ------------------------------------------------------------------------------


_Signature = tuple[Operation, str | None, str | None, str | None]


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A `jarvis.model.revision.Signature` as the file shows it: who is not known is left out."""

    operation: Operation
    module: str | None = None
    task_id: str | None = None
    reason: str | None = None


class _Kept(msgspec.Struct, forbid_unknown_fields=True):
    """A past state as the file shows it."""

    ended: Number
    made: Instant
    change: Change
    entry: Stored


class _Signed(msgspec.Struct):
    entry: Provenance


class State(Record, frozen=True):
    """A past state: the record it was, with the whole of it as the bytes that stand in the file.

    Attributes:
        ended: the commit number of the change that ended it; no other change of the store has it.
        made: the instant of that change.
        change: who made it, and how.
    """

    ended: int
    made: int
    change: Change

    @property
    def value(self) -> Any:
        """The value, decoded anew."""
        value = _decode_kept(self.fragment).entry.value
        return revived(value, self.id) if may_hold_tags(self.fragment) else value

    @property
    def provenance(self) -> dict[str, str]:
        """The provenance, decoded anew."""
        return _decode_signed(self.fragment).entry.provenance

    def entry(self) -> MemoryEntry:
        """Return the entry as it was, decoded anew; raise ValueError if a tagged form or the time means nothing."""
        return _decode_kept(self.fragment).entry.entry(plain=not may_hold_tags(self.fragment))

    def ends_expired(self, now: int) -> bool:
        """Tell whether this is the last state of a life whose expiry is over at the instant `now`."""
        return self.has_expired(now) and self.change.operation in REMOVALS

    def revision(self, timestamp: datetime) -> Revision:
        """Return the state as callers see it, ended at `timestamp`; raise ValueError as `entry` does."""
        change = self.change
        return Revision(
            version=self.version,
            entry=self.entry(),
            operation=change.operation,
            timestamp=timestamp,
            module=change.module,
            task_id=change.task_id,
            reason=change.reason,
        )


_decode_kept = decoder_of(_Kept)
_decode_signed = decoder_of(_Signed)
_by_ended = attrgetter("ended")
_by_event_number = attrgetter("number")
_by_order = attrgetter("order")
_by_made = attrgetter("made")
_by_first = attrgetter("first")


def keep(record: Record, namespace: str, ended: int, made: int, signed: _Signature) -> State:
    """Return the past state that `record` of `namespace` becomes. Its entry is not encoded anew."""
    return _state(record, namespace, ended, made, Change(*signed))


def read_state(fragment: bytes, edited_in: str | None) -> State:
    """Return the state in the bytes; if they were edited by hand, check them whole and write them anew.

    Raises:
        ValueError: they are malformed.
    """
    kept = _decode_kept(fragment)
    stored = kept.entry
    if kept.ended <= stored.position[1]:
        raise ValueError("it was ended before it was there")
    if edited_in is not None:
        normalize(stored)
        record = make_record(stored, fragment_of(stored, edited_in))
        return _state(record, edited_in, kept.ended, kept.made, kept.change)
    return _of_record(make_record(stored, fragment), fragment, kept.ended, kept.made, kept.change)


def redated(state: State, namespace: str, begun: int | None, made: int) -> State:
    """Return `state` of `namespace` as begun and ended at these instants; None is as it is. Its timestamp stays."""
    if (begun is None or begun == state.order[0]) and made == state.made:
        return state
    stored = _decode_kept(state.fragment).entry
    stored.position = (stored.position[0] if begun is None else begun, stored.position[1])
    record = make_record(stored, fragment_of(stored, namespace))
    return _state(record, namespace, state.ended, made, state.change)


def _state(record: Record, namespace: str, ended: int, made: int, change: Change) -> State:
    margin = b"\n    " if namespace == DEFAULT_NAMESPACE else b"\n        "
    inner = margin + b"  "
    pieces = (
        b'{%b"ended": %d' % (inner, ended),
        b'"made": %d' % made,
        b'"change": %b' % msgspec.json.format(encode(change), indent=2).replace(b"\n", inner),
        b'"entry": %b%b}' % (record.fragment.replace(b"\n", b"\n  "), margin),
    )
    return _of_record(record, (b"," + inner).join(pieces), ended, made, change)


def _of_record(record: Record, fragment: bytes, ended: int, made: int, change: Change) -> State:
    return State(
        b"",
        fragment,
        record.id,
        record.category,
        record.key,
        record.tags,
        record.entity_type,
        record.entity_id,
        record.version,
        record.order,
        record.expires,
        ended,
        made,
        change,
    )


# --- what is not there any more ------------------------------------------------------------------


class Gap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """States of one entry that were removed because there were too many, or it expired, as one stretch.

    Attributes:
        id: of the entry.
        first: the commit number of the first missing state.
        instant: the instant of that one.
        ended: the commit number of the change that ended the last missing state.
        made: the instant of that change.
        expires: the instant of expiry, if the last missing state was removed because of that.
        category: of every missing state; left out if they differ. So with the fields that follow.
    """

    id: str
    first: Annotated[int, msgspec.Meta(ge=0)]
    instant: int
    ended: Number
    made: Instant
    expires: Instant | msgspec.UnsetType = msgspec.UNSET
    category: str | msgspec.UnsetType = msgspec.UNSET
    key: str | msgspec.UnsetType = msgspec.UNSET
    entity_type: str | msgspec.UnsetType = msgspec.UNSET
    entity_id: str | msgspec.UnsetType | None = msgspec.UNSET

    def matters(self, cutoff: Cutoff, asked: Mapping[str, str | None]) -> bool:
        """Tell whether what `asked` wants at the cutoff may have been here. None wants anything."""
        return (
            cutoff.includes(self.first, self.instant)
            and not cutoff.includes(self.ended, self.made)
            and (self.expires is msgspec.UNSET or self.expires > cutoff.instant)
            and all(held is None or getattr(self, name) in (held, msgspec.UNSET) for name, held in asked.items())
        )


def widened(gap: Gap | None, record: Record, ended: int, made: int) -> Gap:
    """Return `gap`, or a new one, with `record` in it, which is newer than what it holds and ended as given."""
    named = {name: getattr(record, name) for name in EXACT}
    one = Gap(id=record.id, first=record.order[1], instant=record.order[0], ended=ended, made=made, **named)
    if gap is None:
        return one
    differing = {name: msgspec.UNSET for name in EXACT if getattr(gap, name) != getattr(one, name)}
    return msgspec.structs.replace(one, first=gap.first, instant=gap.instant, **differing)


# --- one namespace in memory ---------------------------------------------------------------------


class Archive:
    """The past states of a namespace, its gaps and events. One that a snapshot holds is never changed.

    Attributes:
        states: by the number of the change that ended them, ascending.
        of_id: those of each entry, likewise.
        gaps: by the entry's id.
        events: what entries and states do not tell of changes, by number, ascending.
    """

    def __init__(
        self, states: Iterable[State] = (), gaps: Iterable[Gap] = (), events: Iterable[StoredEvent] = ()
    ) -> None:
        self.states = list(states)
        by_id: dict[str, list[State]] = {}
        for state in self.states:
            by_id.setdefault(state.id, []).append(state)
        self.of_id = {entry_id: tuple(held) for entry_id, held in by_id.items()}
        self.gaps = {gap.id: gap for gap in gaps}
        self.events = list(events)
        self._born: list[State] | None = None
        self._mortal: list[State] | None = None

    def __bool__(self) -> bool:
        return bool(self.states or self.gaps or self.events)

    @property
    def born(self) -> list[State]:
        """The states in which entries were created, by the commit number of that, ascending."""
        born = self._born
        if born is None:
            born = sorted((state for state in self.states if state.version == 1), key=by_number)
            self._born = born
        return born

    def expired(self, now: int) -> list[State]:
        """Return the last states of lives whose expiry is over at the instant `now`: the latest of each entry."""
        mortal = self._mortal
        if mortal is None:
            mortal = [
                state for state in self.states if state.expires is not None and state.change.operation in REMOVALS
            ]
            self._mortal = mortal
        return list({state.id: state for state in mortal if state.has_expired(now)}.values())

    def copy(self) -> Archive:
        """Return one that holds the same and may be changed."""
        archive = Archive()
        archive.states, archive.of_id, archive.gaps = self.states.copy(), self.of_id.copy(), self.gaps.copy()
        archive.events = self.events.copy()
        return archive

    def add(self, state: State) -> None:
        """Put `state` where it belongs."""
        self._born = self._mortal = None
        self.states.insert(bisect_left(self.states, state.ended, key=_by_ended), state)
        held = self.of_id.get(state.id, ())
        place = bisect_left(held, state.ended, key=_by_ended)
        self.of_id[state.id] = (*held[:place], state, *held[place:])

    def remove(self, state: State) -> None:
        """Remove `state`, which is there."""
        self._born = self._mortal = None
        del self.states[bisect_left(self.states, state.ended, key=_by_ended)]
        held = self.of_id[state.id]
        if len(held) == 1:
            del self.of_id[state.id]
        else:
            place = bisect_left(held, state.ended, key=_by_ended)
            self.of_id[state.id] = held[:place] + held[place + 1 :]

    def set_gap(self, entry_id: str, gap: Gap | None) -> Gap | None:
        """Put `gap` where one of this entry may be, or nothing; return what was there."""
        before = self.gaps.pop(entry_id, None) if gap is None else self.gaps.get(entry_id)
        if gap is not None:
            self.gaps[entry_id] = gap
        return before

    def add_event(self, event: StoredEvent) -> None:
        """Put `event` where it belongs."""
        self.events.insert(bisect_left(self.events, event.number, key=_by_event_number), event)

    def remove_event(self, event: StoredEvent) -> None:
        """Remove `event`, which is there."""
        del self.events[bisect_left(self.events, event.number, key=_by_event_number)]

    def cleared(self, before: int) -> Iterator[State]:
        """Yield the states that clearings before an instant have ended, each behind all earlier ones of its entry."""
        for last in self.states:  # all of them: dates do not grow with the numbers behind a clock that was ahead
            if last.made < before and last.change.operation == "clear":
                yield from (state for state in self.of_id[last.id] if state.ended <= last.ended)


class PastRoom:
    """What a namespace held where `cutoff` cuts; answers as `jarvis._json.room.Room` does."""

    def __init__(self, room: Room | LiveRoom, archive: Archive, cutoff: Cutoff) -> None:
        self._room, self._archive, self._cutoff = room, archive, cutoff

    def get(self, entry_id: str) -> Record | None:
        """Return the record that had this id, or None."""
        present = self._room.get(entry_id)
        if present is not None and self._was_there(present):
            return present
        states = self._archive.of_id.get(entry_id, ())
        return next((state for state in states if self._was_ended_later(state)), None)

    def candidates(self, query: MemoryQuery) -> Iterator[Record]:
        """Return, newest first, records among which are all that matched."""
        present = filter(self._was_there, self._room.candidates(query))
        states = self._archive.states
        start = bisect_right(states, self._cutoff.done, key=_by_ended)  # those before were ended by then
        ended = sorted(filter(self._was_ended_later, states[start:]), key=_by_order, reverse=True)
        return heapq.merge(present, ended, key=_by_order, reverse=True)

    def _was_there(self, record: Record) -> bool:
        return self._cutoff.includes(record.order[1], record.order[0])

    def _was_ended_later(self, state: State) -> bool:
        return self._was_there(state) and not self._cutoff.includes(state.ended, state.made)


def expired_since(room: Room, archive: Archive, seen: Cutoff, now: int, asked: Mapping[str, str | None]) -> int | None:
    """Return the latest expiry of what `asked` wants, was there at a cutoff, and has expired until `now`, if any.

    None wants anything. Of an entry that has expired the states before count too.
    """

    def was_there(record: Record) -> bool:
        return seen.includes(record.order[1], record.order[0]) and all(
            held is None or getattr(record, name) == held for name, held in asked.items()
        )

    def was_kept(entry_id: str, until: int) -> bool:
        states = archive.of_id.get(entry_id, ())
        return any(
            was_there(state) and not seen.includes(state.ended, state.made) for state in states if state.ended <= until
        )

    found: list[Record] = [
        record
        for record in room.expired(now)
        if (not record.has_expired(seen.instant) and was_there(record)) or was_kept(record.id, ENDLESS)
    ]
    found += [state for state in archive.expired(now) if was_kept(state.id, state.ended)]
    return max((record.expires for record in found if record.expires is not None), default=None)


# --- when changes became visible -----------------------------------------------------------------


class Span(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A transaction whose moment the changes do not tell themselves: its first and last number, and the moment."""

    first: Number
    last: Number
    made: Instant


def cutoff(spans: list[Span], instant: int, own: int | None) -> Cutoff:
    """Return where the past ends as seen from `instant`. Changes from number `own` on are not committed yet."""
    place = bisect_right(spans, instant, key=_by_made)
    later = spans[place].first if place < len(spans) else ENDLESS
    done = spans[place - 1].last if place else 0
    return Cutoff(instant, done, later if own is None else min(later, own), ENDLESS)


def moment_of(spans: list[Span], number: int, made: int) -> int:
    """Return the moment at which a committed change became visible that was made at the instant `made`."""
    place = bisect_right(spans, number, key=_by_first) - 1
    return spans[place].made if place >= 0 and number <= spans[place].last else made
