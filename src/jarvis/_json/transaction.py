"""`Transaction`: a private copy of the state of a JSON store, which changes and may be written to the file."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from functools import partial
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING

import msgspec

from jarvis._calls.caller import current_task
from jarvis._json import erasing, feed, pruning
from jarvis._json.event import Event, about, creation, erasures_of, store_event
from jarvis._json.past import Archive, Gap, Span, State, keep, widened
from jarvis._json.record import Record, by_number, with_expiry
from jarvis._json.room import Room
from jarvis._json.seen import NO_PAST, Seen, Snapshot
from jarvis.codec import instant_of
from jarvis.model import rules
from jarvis.model.entry import DEFAULT_NAMESPACE
from jarvis.model.erasure import Erased, Judge
from jarvis.model.revision import Operation, Signature

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from jarvis.model.change import Change, Kind
    from jarvis.model.policies import Histories
    from jarvis.model.query import MemoryQuery

_PURGED_AT_ONCE = 16  # entries, beside the changes of a transaction

_expiry = itemgetter(0)


class Transaction(Seen):
    """A private copy of the state, for the thread that opened it, which can take changes back.

    Attributes:
        owner: (process id, thread id) of the caller that opened it.
        date: the date of a change made at the last moment, an instant; see `jarvis.model.dating.date_of`.
        task: the caller's task, see `jarvis._calls.caller.current_task`.
        depth: the number of savepoints that are open in it.
        signature: who makes the changes; None if nobody said.
        is_torn: a change was left half made, so nothing of it is kept.
        erases: something was erased, so the temporary files of killed writers go, too.
        found: a change found what it would have stored.
    """

    def __init__(self, base: Snapshot, owner: tuple[int, int], histories: Histories) -> None:
        super().__init__(dict(base.rooms), dict(base.archives), base.clock, base.spans, base.erasing)
        self.owner, self.task = owner, current_task()
        self.date = self.depth = 0
        self.is_torn = self.erases = self.found = False
        self.base = base
        self.signature: Signature | None = None
        self._histories = histories
        self._begins_here = False  # the past begins at the moment of this transaction
        self._least_fed_from = base.clock.fed_from  # whatever is taken back
        self._told = False  # a caller was given a moment
        self._instants: set[int] = set()  # of the changes, as they tell them themselves
        self._copied: set[str] = set()  # namespaces whose rooms no snapshot holds
        self._undo: list[Callable[[], object]] = []
        self._purges = False  # a caller asked for a purge

    @property
    def mark(self) -> int:
        """The number of changes so far, for `take_back`."""
        return len(self._undo)

    @property
    def keeps_history(self) -> bool:
        """Whether the past of any entry is kept."""
        return self._histories.keep_any

    @property
    def is_changed(self) -> bool:
        """Whether there is something to write: a change, or a moment that no later one may repeat.

        The moment of a change that found what it would have stored alone may be repeated.
        """
        return bool(self._undo) or (self._told and not (self.found and self.own is None))

    def take_back(self, mark: int) -> None:
        """Undo the changes since `mark` was read. Numbers and instants that were given are not given again."""
        while len(self._undo) > mark:
            self._undo.pop()()

    # --- numbers and instants ---

    def next_commit(self) -> int:
        """Return the next commit number, for a change at the last instant that was given."""
        clock = self.clock
        if self.own is None:
            self.own = clock.commit + 1
            if clock.begins is None:
                self._begins_here = True
                self._least_fed_from = clock.commit
                self._feed_from(clock.commit)
        self._set_clock(clock.commit + 1, self._made())
        return self.clock.commit

    def moment(self, now: datetime) -> datetime:
        """Return `now`, or a microsecond after the last moment given; see `Transactional.moment`."""
        moment, instant, self.date = rules.next_moment(now, self.clock.made)
        self._set_clock(self.clock.commit, instant)
        self._told = True
        return moment

    def complete(self, now: datetime) -> None:
        """Make `now` the last moment, if it is later; see `jarvis.capabilities.KeepsHistory.complete`."""
        if instant_of(now) > self._made():
            self.moment(now)

    def begin_past_again(self, instant: int) -> None:
        """Continue moments from `instant`, even if later ones were given, and begin the past there.

        Do not call it inside a savepoint: taking that back would not take the moments back.
        """
        begins = None if self.clock.begins is None else instant
        self.clock = msgspec.structs.replace(self.clock, made=instant, begins=begins)
        self.date, self._told = instant, True
        self.spans = [Span(1, self.clock.commit, instant)] if begins is not None and self.clock.commit else []

    def take_over(self, since: int) -> None:
        """Let the changes so far be known from their own dates on: the past of another store, known from `since` on."""
        if self.keeps_history and (self.clock.begins is None or self._begins_here):
            self._undo.append(partial(self._begin_again, self.clock.begins, self._begins_here))
            self._begins_here, self._purges = False, True
            self.clock = msgspec.structs.replace(self.clock, begins=min(since, self._made()))
        if self.base.clock.commit in (0, self.base.clock.fed_from):  # the feed has told of nothing yet
            self._feed_from(self.clock.commit)
        self.own = None  # so no moment is noted for them

    def settle(self) -> None:
        """Note when the changes become visible: when this transaction ends. It may be written then."""
        self.clock = self.clock.to_be_written()
        clock, spans = self.clock, self.spans
        if clock.begins is None:
            self.spans = []
            return
        if self.own is not None and clock.made is not None:
            alone = self.own == clock.commit and self._instants == {clock.made}
            if not alone or (self._begins_here and self.own > 1):  # the span covers the changes before the past
                spans = [*spans, Span(self.own, clock.commit, clock.made)]
        self.spans = spans[max(bisect_right(spans, clock.begins, key=attrgetter("made")) - 1, 0) :]

    def _made(self) -> int:
        """Return the last instant that this transaction was given; take one if there is none."""
        made = self.clock.made
        if made is None or made == self.base.clock.made:
            self.date = made = rules.own_instant(made)
            self._set_clock(self.clock.commit, made)
        return made

    def _dated(self) -> int:
        """Return the date of a change made now: its moment, or the clock's instant if that is far behind."""
        self._made()
        return self.date

    def _set_clock(self, commit: int, made: int | None) -> None:
        begins = made if self._begins_here else self.clock.begins
        begins = begins if self._histories.keep_any else None
        self.clock = msgspec.structs.replace(self.clock, commit=commit, made=made, begins=begins)

    # --- changes ---

    def put(self, namespace: str, record: Record) -> None:
        """Store `record`, which has the last number, in place of the one with its id; one of its version renews it."""
        self._instants.add(record.order[0])
        before = self.room(namespace).get(record.id)
        if before is not None:
            self._keep(namespace, before, "renew" if record.version == before.version else "update")
        self._set(namespace, record.id, record)

    def slide(self, namespace: str, record: Record, expires: int) -> None:
        """Give a record another expiry, which is no change; raise ValueError if it is malformed."""
        self._purges = True  # not beside a read
        self._set(namespace, record.id, with_expiry(record, namespace, expires))

    def remove(self, namespace: str, record: Record, operation: Operation) -> None:
        """Remove `record` from the namespace."""
        self.next_commit()
        self._keep(namespace, record, operation)
        self._set(namespace, record.id, None)

    def clear(self, namespace: str, now: int) -> int:
        """Remove every record of the namespace; return how many had not expired at the instant `now`."""
        for record in self.room(namespace).expired(now):
            self._purge(namespace, record)
        for state in self.archive(namespace).expired(now):
            self._purge_past(namespace, state)
        records = sorted(self.room(namespace).records.values(), key=by_number)
        for record in records:
            self.remove(namespace, record, "clear")
        if records and self._histories.keep_any:
            self.prune(self._dated(), rules.PRUNED_AT_ONCE)
        return len(records)

    def erase(self, namespace: str, which: str | MemoryQuery | None, judge: Judge | None) -> Erased:
        """Remove what `which` names, and its past; see `jarvis.capabilities.Erases`.

        One event tells of that, in place of all that named what was erased.

        Raises:
            ValueError: an entry is malformed.
        """
        room, archive = self.room(namespace), self.archive(namespace)
        events = [(stored.event(), stored) for stored in archive.events]
        ids = erasing.ids_of(which, room, archive, [event for event, _ in events], judge)
        self.erases = True
        if namespace == DEFAULT_NAMESPACE and not self.erasing:  # all that the first life had
            self._undo.append(partial(setattr, self, "erasing", False))
            self.erasing = True
        if not ids:
            return Erased((), {})
        left = Archive(
            (state for state in archive.states if state.id not in ids),
            (gap for gap in archive.gaps.values() if gap.id not in ids),
            (stored for event, stored in events if event.id not in ids),
        )
        self.next_commit()
        self._instants.add(self._dated())
        records = [room.records[entry_id] for entry_id in ids if entry_id in room.records]
        for record in records:
            self._set(namespace, record.id, None)
        self.archives[namespace] = left
        self._undo.append(partial(self.archives.__setitem__, namespace, archive))
        self._add_event(erasures_of(namespace), self._event("erase", len(ids)))
        return Erased(tuple(sorted(ids)), erasing.counted(ids, records, archive, left))

    def _set(self, namespace: str, entry_id: str, record: Record | None) -> None:
        if namespace not in self._copied:
            self.rooms[namespace] = Room(dict(self.room(namespace).records))
            self._copied.add(namespace)
        room = self.rooms[namespace]
        self._undo.append(partial(room.set, entry_id, room.set(entry_id, record)))

    # --- the feed, of what was committed before: a number that is taken back may be given to another change ---

    def changes(self, namespace: str, after: int, limit: int) -> list[Change]:
        return self.base.changes(namespace, after, limit)

    def first_number(self) -> int:
        return self.base.first_number()

    def last_number(self) -> int:
        return self.base.last_number()

    def tell_again(self, namespace: str, record: Record) -> None:
        """Add the event that the change with the last number brought back `record`, which does not tell that."""
        self._add_event(namespace, about(self._event("create"), record))

    def _event(self, operation: Kind, count: int = 1) -> Event:
        """Return an event of the change with the last number."""
        said, module, task_id, reason = rules.signed(self.signature, operation)
        return Event(
            number=self.clock.commit,
            made=self._dated(),
            operation=said,
            module=module,
            task_id=task_id,
            reason=reason,
            count=count,
        )

    def _add_event(self, namespace: str, event: Event) -> None:
        """Add `event`, if anybody can ask for it."""
        clock = self.clock
        if clock.begins is not None and event.number > clock.fed_from:
            archive, stored = self._own_archive(namespace), store_event(event, namespace)
            archive.add_event(stored)
            self._undo.append(partial(archive.remove_event, stored))

    def _drop_events(self, aged: int, limit: int) -> None:
        """Remove at most `limit` events: older than the instant `aged`, too many, or that nobody can ask for."""
        known = max(self.clock.fed_from, self.clock.commit - self._histories.max_events)
        due = [
            (event.number, namespace, event)
            for namespace, archive in self.archives.items()
            for event in archive.events
            if event.made < aged or event.number <= known
        ]
        for number, namespace, event in heapq.nsmallest(limit, due, key=itemgetter(0)):
            archive = self._own_archive(namespace)
            archive.remove_event(event)
            self._undo.append(partial(archive.add_event, event))
            if event.operation == "erase" and self.clock.begins is not None:  # it keeps the past before it closed
                self._begin(max(self._moment_of(number, event.made), self.clock.begins), number)
            if number > self.clock.fed_from:
                self._undo.append(partial(self._feed_from, self.clock.fed_from))
                self._feed_from(number)

    def _feed_from(self, number: int) -> None:
        self.clock = msgspec.structs.replace(self.clock, fed_from=max(number, self._least_fed_from))

    # --- expiry ---

    def purge(self, now: int, limit: int) -> int:
        """Remove at most `limit` entries that have expired at the instant `now`, with their past; return how many.

        The past of entries that were deleted before they expired counts, too.
        """
        self._purges = True
        due = [(record.expires, name, record) for name, room in self.rooms.items() for record in room.expired(now)]
        chosen = heapq.nsmallest(limit, due, key=_expiry)
        for _, namespace, record in chosen:
            self._purge(namespace, record)
        ended = [(state.expires, name, state) for name, past in self.archives.items() for state in past.expired(now)]
        ended = heapq.nsmallest(limit - len(chosen), ended, key=_expiry)
        for _, namespace, state in ended:
            self._purge_past(namespace, state)
        return len(chosen) + len(ended)

    def purge_some(self, now: int) -> None:
        """Purge a few entries if this transaction changed something, but purged and erased nothing."""
        if self._undo and not self._purges and not self.erases:
            self.purge(now, _PURGED_AT_ONCE)

    def purge_entry(self, namespace: str, entry_id: str, now: int) -> None:
        """Remove the entry with this id, or the rest of its past, if it has expired."""
        record = self.room(namespace).get(entry_id)
        if record is not None and record.has_expired(now):
            self._purge(namespace, record)
        for state in reversed(self.archive(namespace).of_id.get(entry_id, ())):
            if state.ends_expired(now):
                self._purge_past(namespace, state)
                break

    def _purge(self, namespace: str, record: Record) -> None:
        self.next_commit()
        for state in self.archive(namespace).of_id.get(record.id, ()):
            self._lose_state(namespace, state)
        number, made = self.clock.commit, self._dated()
        self._instants.add(made)
        self._lose(namespace, record, number, made)
        self._note_expiry(namespace, record)
        if record.version == 1 and not record.renewed:
            self._add_event(namespace, creation(record))
        reason = rules.signed_expiry(self.signature, record.expires or 0)[-1]
        self._add_event(namespace, msgspec.structs.replace(about(self._event("expire"), record), reason=reason))
        self._set(namespace, record.id, None)

    def _purge_past(self, namespace: str, last: State) -> None:
        """Remove the states of an entry up to `last`, in which it was removed, and which has expired."""
        for state in self.archive(namespace).of_id[last.id]:
            if state.ended <= last.ended:
                self._lose_state(namespace, state)
        self._note_expiry(namespace, last)

    def _lose(self, namespace: str, record: Record, ended: int, made: int) -> None:
        """Note that a state is no longer known. It must be newer than the missing states of its entry."""
        gap = self.archive(namespace).gaps.get(record.id)
        if self.clock.begins is not None:
            self.set_gap(namespace, record.id, widened(gap, record, ended, made))

    def _lose_state(self, namespace: str, state: State) -> None:
        self._lose(namespace, state, state.ended, state.made)
        self._drop(namespace, state)

    def _note_expiry(self, namespace: str, record: Record) -> None:
        gap = self.archive(namespace).gaps.get(record.id)
        if gap is not None and record.expires is not None:
            self.set_gap(namespace, record.id, msgspec.structs.replace(gap, expires=record.expires))

    # --- the past ---

    def prune(self, now: int, limit: int) -> int:
        """Remove at most `limit` states that are too old at the instant `now`; return how many.

        Cleared states go first, each after the earlier states of its entry. Events take over what the states told
        of changes; of the events that are too old, at most `limit` go too.
        """
        named = pruning.of_named(self.archives, self._histories, now, limit)
        for namespace, state in named:
            self._lose_state(namespace, state)
        chosen = pruning.of_usual(self.archives, self._histories, now, limit - len(named))
        for namespace, state in chosen:
            self._drop(namespace, state)
        if chosen and self.clock.begins is not None:
            moments = [self._moment_of(state.ended, state.made) for _, state in chosen]
            self._begin(max(*moments, self.clock.begins), max(state.ended for _, state in chosen))
        self._drop_events(pruning.ago(now, self._histories.usual.max_age), limit)
        return len(named) + len(chosen)

    def _keep(self, namespace: str, record: Record, operation: Operation) -> None:
        """Keep `record` as a past state, ended by the change with the last number."""
        made, most = self._dated(), self._histories.of(record.category).max_revisions
        self._instants.add(made)
        if not self._histories.keep_any:
            return
        number, archive = self.clock.commit, self._own_archive(namespace)
        first = archive.before_renewal(record)
        if first is not None:
            archive.remove(first)
            self._undo.append(partial(archive.add, first))
        state = keep(first or record, namespace, number, made, rules.signed(self.signature, operation))
        self.add_state(namespace, state)
        if operation != "renew" or not most:
            states = archive.of_id[state.id]
            for old in states[: max(len(states) - most, 0)]:
                self._lose_state(namespace, old)
        if number % rules.PRUNED_EVERY == 0:
            self.prune(made, rules.PRUNED_AT_ONCE)

    def _begin(self, begins: int, number: int) -> None:
        """Begin the past at `begins`: the moment of the change `number`, or later."""
        before = self.clock.begins, self._begins_here
        self._begins_here = self._begins_here or (self.own is not None and number >= self.own)
        self.clock = msgspec.structs.replace(self.clock, begins=begins)
        self._undo.append(partial(self._begin_again, *before))
        for namespace, archive in list(self.archives.items()):
            for gap in [each for each in archive.gaps.values() if each.made <= begins]:
                self.set_gap(namespace, gap.id, None)

    def _begin_again(self, begins: int | None, begins_here: bool) -> None:
        self._begins_here = begins_here
        self.clock = msgspec.structs.replace(self.clock, begins=self.clock.made if begins_here else begins)

    def add_state(self, namespace: str, state: State) -> None:
        """Add a past state, which ends with a number of this transaction."""
        archive = self._own_archive(namespace)
        archive.add(state)
        self._undo.append(partial(archive.remove, state))

    def _drop(self, namespace: str, state: State) -> None:
        archive = self._own_archive(namespace)
        archive.remove(state)
        self._undo.append(partial(archive.add, state))
        for event in feed.told_by(state):
            self._add_event(namespace, event)

    def set_gap(self, namespace: str, entry_id: str, gap: Gap | None) -> None:
        """Note that states of an entry are missing; None: that none is."""
        archive = self._own_archive(namespace)
        self._undo.append(partial(archive.set_gap, entry_id, archive.set_gap(entry_id, gap)))

    def _own_archive(self, namespace: str) -> Archive:
        """Return the archive of the namespace, as a copy that no snapshot holds, to be changed."""
        archive = self.archive(namespace)
        if archive is self.base.archives.get(namespace, NO_PAST):
            archive = self.archives[namespace] = archive.copy()
        return archive
