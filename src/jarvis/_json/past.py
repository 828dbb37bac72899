"""The past of a JSON store: the states that changes ended, and which of them existed at a moment."""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from jarvis._json.record import (
    Instant,
    Number,
    Provenance,
    Record,
    Stored,
    by_number,
    by_order,
    fragment_of,
    indented,
    make_record,
    margin_of,
    normalize,
    revived,
)
from jarvis.codec.nesting import decoder_of
from jarvis.model import rules
from jarvis.model.entry import MemoryEntry
from jarvis.model.query import EXACT
from jarvis.model.record import may_hold_typed_forms
from jarvis.model.revision import REMOVALS, Cutoff, Operation, Revision

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from jarvis._json.event import Event, StoredEvent
    from jarvis._json.room import LiveRoom, Room
    from jarvis.model.query import MemoryQuery

ENDLESS = 2**62
"""Greater than every number and instant."""


# --- one past state ------------------------------------------------------------------------------


_Signature = tuple[Operation, str | None, str | None, str | None]


class StoredSignature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A `jarvis.model.revision.Signature` as the file shows it: a field that is not known is left out."""

    operation: Operation
    module: str | None = None
    task_id: str | None = None
    reason: str | None = None


class _Kept(msgspec.Struct, forbid_unknown_fields=True):
    """A past state as the file shows it."""

    ended: Number
    made: Instant
    change: StoredSignature
    entry: Stored


class _Signed(msgspec.Struct):
    entry: Provenance


class State(Record, frozen=True):
    """A past state: the fields of its record, and the whole as the bytes that stand in the file.

    Attributes:
        ended: the commit number of the change that ended it; no other change of the store has it.
        made: the instant of that change.
        change: who made that change, and how.
    """

    ended: int
    made: int
    change: StoredSignature

    @property
    def value(self) -> Any:
        value = decode_kept(self.fragment).entry.value
        return revived(value, self.id) if may_hold_typed_forms(self.fragment) else value

    @property
    def provenance(self) -> dict[str, str]:
        return _decode_signed(self.fragment).entry.provenance

    def entry(self) -> MemoryEntry:
        return decode_kept(self.fragment).entry.entry(plain=not may_hold_typed_forms(self.fragment))

    def ends_expired(self, now: int) -> bool:
        """Tell whether the entry was removed in this state, which has expired at the instant `now`."""
        return self.has_expired(now) and self.change.operation in REMOVALS

    @property
    def ends_in_renewal(self) -> bool:
        """Whether a renewal ended the state. History and feed leave it out; only questions as of a moment see it."""
        return self.change.operation == "renew"

    def revision(self, timestamp: datetime) -> Revision:
        """Return the state as callers see it, ended at `timestamp`; raise ValueError as `entry` does."""
        signature = msgspec.structs.asdict(self.change)
        return Revision(version=self.version, entry=self.entry(), timestamp=timestamp, **signature)


decode_kept = decoder_of(_Kept)
_decode_signed = decoder_of(_Signed)
by_ended = attrgetter("ended")
by_event_number = attrgetter("number")
_by_made = attrgetter("made")
_by_first = attrgetter("first")


def keep(record: Record, namespace: str, ended: int, made: int, signed: _Signature) -> State:
    """Return the past state that `record` of `namespace` becomes, perhaps a past state that now ends at another change.

    The entry of a present one is not encoded again.
    """
    if isinstance(record, State):
        stored = decode_kept(record.fragment).entry
        record = make_record(stored, fragment_of(stored, namespace))
    return _state(record, namespace, ended, made, StoredSignature(*signed))


def read_state(fragment: bytes, edited_in: str | None) -> State:
    """Return the state in the bytes; if they were edited by hand, check and encode all of it.

    Raises:
        ValueError: they are malformed.
    """
    kept = decode_kept(fragment)
    stored = kept.entry
    if kept.ended <= stored.position[1]:
        raise ValueError("it ended before it began")
    if edited_in is not None:
        normalize(stored)
        record = make_record(stored, fragment_of(stored, edited_in))
        return _state(record, edited_in, kept.ended, kept.made, kept.change)
    return _of_record(make_record(stored, fragment), fragment, kept.ended, kept.made, kept.change)


def redated(state: State, namespace: str, begun: int | None, made: int) -> State:
    """Return `state` of `namespace` as begun and ended at these instants; `begun` None changes nothing there.

    The timestamp of the entry stays.
    """
    if (begun is None or begun == state.order[0]) and made == state.made:
        return state
    stored = decode_kept(state.fragment).entry
    stored.position = (stored.position[0] if begun is None else begun, stored.position[1])
    record = make_record(stored, fragment_of(stored, namespace))
    return _state(record, namespace, state.ended, made, state.change)


def _state(record: Record, namespace: str, ended: int, made: int, change: StoredSignature) -> State:
    margin = margin_of(namespace)
    inner = margin + b"  "
    pieces = (
        b'{%b"ended": %d' % (inner, ended),
        b'"made": %d' % made,
        b'"change": %b' % indented(change, inner),
        b'"entry": %b%b}' % (record.fragment.replace(b"\n", b"\n  "), margin),
    )
    return _of_record(record, (b"," + inner).join(pieces), ended, made, change)


def _of_record(record: Record, fragment: bytes, ended: int, made: int, change: StoredSignature) -> State:
    fields: list[Any] = [b"", fragment, *msgspec.structs.astuple(record)[2:], ended, made, change]
    return State(*fields)


# --- states that were removed --------------------------------------------------------------------


class Gap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Consecutive states of one entry that were removed because there were too many, or the entry expired.

    Attributes:
        id: of the entry.
        first: the commit number of the first missing state.
        instant: the instant of that one.
        ended: the commit number of the change that ended the last missing state.
        made: the instant of that change.
        expires: the instant of expiry, if the last missing state was removed because of that.
        category: of every missing state; left out if they differ. The same holds for the fields after it.
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
        """Tell whether a missing state may answer a question at the cutoff.

        Args:
            cutoff: of the question.
            asked: what it asks of fields, by their names; None asks nothing.
        """
        return (
            cutoff.includes(self.first, self.instant)
            and not cutoff.includes(self.ended, self.made)
            and (self.expires is msgspec.UNSET or self.expires > cutoff.instant)
            and all(text is None or getattr(self, name) in (text, msgspec.UNSET) for name, text in asked.items())
        )


def widened(gap: Gap | None, record: Record, ended: int, made: int) -> Gap:
    """Return `gap`, or a new gap, with `record` added, which is newer than its states and ended as given."""
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
        events: the changes that neither entries nor states tell of, by number, ascending.
    """

    def __init__(
        self, states: Iterable[State] = (), gaps: Iterable[Gap] = (), events: Iterable[StoredEvent] = ()
    ) -> None:
        self.states = list(states)
        by_id: dict[str, list[State]] = {}
        for state in self.states:
            by_id.setdefault(state.id, []).append(state)
        self.of_id = {entry_id: tuple(states) for entry_id, states in by_id.items()}
        self.gaps = {gap.id: gap for gap in gaps}
        self.events = list(events)
        self._born: list[State] | None = None
        self._mortal: list[State] | None = None

    def __bool__(self) -> bool:
        return bool(self.states or self.gaps or self.events)

    @property
    def born(self) -> list[State]:
        """The first states of entries, by the commit number of the creation, ascending."""
        born = self._born
        if born is None:
            born = sorted((state for state in self.states if state.version == 1 and not state.renewed), key=by_number)
            self._born = born
        return born

    def expired(self, now: int) -> list[State]:
        """Return, of each entry, the latest state for which `State.ends_expired` is true at the instant `now`."""
        mortal = self._mortal
        if mortal is None:
            mortal = [
                state for state in self.states if state.expires is not None and state.change.operation in REMOVALS
            ]
            self._mortal = mortal
        return list({state.id: state for state in mortal if state.has_expired(now)}.values())

    def before_renewal(self, record: Record) -> State | None:
        """Return the state that the first renewal of `record` ended; None if it was not renewed, or that is gone."""
        states = self.of_id.get(record.id) if record.renewed else None
        return states[-1] if states and states[-1].ended == by_number(record) else None

    def copy(self) -> Archive:
        """Return an archive with the same content, which may be changed."""
        archive = Archive()
        archive.states, archive.of_id, archive.gaps = self.states.copy(), self.of_id.copy(), self.gaps.copy()
        archive.events = self.events.copy()
        return archive

    def add(self, state: State) -> None:
        """Insert `state` in its order."""
        self._born = self._mortal = None
        self.states.insert(bisect_left(self.states, state.ended, key=by_ended), state)
        states = self.of_id.get(state.id, ())
        index = bisect_left(states, state.ended, key=by_ended)
        self.of_id[state.id] = (*states[:index], state, *states[index:])

    def remove(self, state: State) -> None:
        """Remove `state`, which is there."""
        self._born = self._mortal = None
        del self.states[bisect_left(self.states, state.ended, key=by_ended)]
        states = self.of_id[state.id]
        if len(states) == 1:
            del self.of_id[state.id]
        else:
            index = bisect_left(states, state.ended, key=by_ended)
            self.of_id[state.id] = states[:index] + states[index + 1 :]

    def set_gap(self, entry_id: str, gap: Gap | None) -> Gap | None:
        """Replace the gap of this entry, or remove it for None; return the gap from before."""
        before = self.gaps.pop(entry_id, None) if gap is None else self.gaps.get(entry_id)
        if gap is not None:
            self.gaps[entry_id] = gap
        return before

    def add_event(self, event: StoredEvent) -> None:
        """Insert `event` in its order."""
        self.events.insert(bisect_left(self.events, event.number, key=by_event_number), event)

    def remove_event(self, event: StoredEvent) -> None:
        """Remove `event`, which is there."""
        del self.events[bisect_left(self.events, event.number, key=by_event_number)]

    def cleared(self, before: int) -> Iterator[State]:
        """Yield the states that clearings before an instant ended, each after all earlier states of its entry."""
        for last in self.states:  # all of them: after a clock that was ahead, dates do not grow with the numbers
            if last.made < before and last.change.operation == "clear":
                yield from (state for state in self.of_id[last.id] if state.ended <= last.ended)


class PastRoom:
    """The entries of a namespace at a `cutoff`; answers as `jarvis._json.room.Room` does."""

    def __init__(self, room: Room | LiveRoom, archive: Archive, cutoff: Cutoff) -> None:
        self._room, self._archive, self._cutoff = room, archive, cutoff

    def get(self, entry_id: str) -> Record | None:
        """Return the record that had this id, or None."""
        present = self._room.get(entry_id)
        if present is not None and self._was_there(present):
            return present
        states = self._archive.of_id.get(entry_id, ())
        return next((state for state in states if self._was_ended_later(state)), None)

    def lead(self, query: MemoryQuery) -> tuple[str, list[Record]]:
        """Return the index that has the fewest present records for a query, and these."""
        return self._room.lead(query)

    def candidates(self, query: MemoryQuery) -> Iterator[Record]:
        """Return, newest first, records among which are all that matched."""
        present = filter(self._was_there, self._room.candidates(query))
        states = self._archive.states
        start = bisect_right(states, self._cutoff.done, key=by_ended)  # all states before had ended by then
        ended = sorted(filter(self._was_ended_later, states[start:]), key=by_order, reverse=True)
        return heapq.merge(present, ended, key=by_order, reverse=True)

    def _was_there(self, record: Record) -> bool:
        return self._cutoff.includes(record.order[1], record.order[0])

    def _was_ended_later(self, state: State) -> bool:
        return self._was_there(state) and not self._cutoff.includes(state.ended, state.made)


def expired_since(room: Room, archive: Archive, seen: Cutoff, now: int, asked: Mapping[str, str | None]) -> int | None:
    """Return the latest expiry among the states that would answer a question, but have expired by now; else None.

    The earlier states of an entry that has expired count too.

    Args:
        room: the entries of the namespace.
        archive: their past.
        seen: the cutoff of the question.
        asked: what the question asks of fields, by their names; None asks nothing.
    """

    def was_there(record: Record) -> bool:
        return seen.includes(record.order[1], record.order[0]) and all(
            text is None or getattr(record, name) == text for name, text in asked.items()
        )

    def was_kept(entry_id: str, until: int) -> bool:
        states = archive.of_id.get(entry_id, ())
        return any(
            was_there(state) and not seen.includes(state.ended, state.made) for state in states if state.ended <= until
        )

    expired: list[Record] = [
        record
        for record in room.expired(now)
        if (not record.has_expired(seen.instant) and was_there(record)) or was_kept(record.id, ENDLESS)
    ]
    expired += [state for state in archive.expired(now) if was_kept(state.id, state.ended)]
    return max((record.expires for record in expired if record.expires is not None), default=None)


def noted_ids(
    query: MemoryQuery, room: Room, archive: Archive, events: Iterable[Event], *, has_judge: bool
) -> set[str]:
    """Return the ids in gaps and events whose category, key and entity match a query.

    If the query asks more than that, or has a judge, ids of entries that have a state are left out: the states decide.
    """
    given = rules.exact_filters(query)
    if not given:
        return set()
    notes: list[Gap | Event] = list(archive.gaps.values())
    if given.keys() <= {"category", "key"}:
        notes += events
    ids = {note.id for note in notes if all(getattr(note, name) == text for name, text in given.items())}
    judged = {*room.records, *archive.of_id} if has_judge or rules.asks_for_more(query) else set()
    return {entry_id for entry_id in ids - judged if entry_id is not None}


# --- when changes became visible -----------------------------------------------------------------


class Span(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first and last number of a transaction, and its moment, where its changes do not tell that themselves."""

    first: Number
    last: Number
    made: Instant


def cutoff(spans: list[Span], instant: int, own: int | None) -> Cutoff:
    """Return where the past ends as seen from `instant`. Changes from number `own` on are not committed yet."""
    index = bisect_right(spans, instant, key=_by_made)
    later = spans[index].first if index < len(spans) else ENDLESS
    done = spans[index - 1].last if index else 0
    return Cutoff(instant, done, later if own is None else min(later, own), ENDLESS)


def moment_of(spans: list[Span], number: int, made: int) -> int:
    """Return the moment at which a committed change, made at the instant `made`, became visible."""
    index = bisect_right(spans, number, key=_by_first) - 1
    return spans[index].made if index >= 0 and number <= spans[index].last else made
