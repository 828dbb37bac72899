"""The state of a JSON store as a thread sees it, and its answers; `Snapshot`, the state in the file."""

from __future__ import annotations

import os
import sys
import weakref
from bisect import bisect_right
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec

from jarvis._disk.files import Stamp
from jarvis._json import feed
from jarvis._json.event import erasures_of
from jarvis._json.file import RESTORED, Clock
from jarvis._json.past import ENDLESS, Archive, PastRoom, Span, cutoff, expired_since, moment_of
from jarvis._json.record import by_order
from jarvis._json.room import LiveRoom, Room
from jarvis.errors import CursorExpiredError
from jarvis.model import rules
from jarvis.model.change import cursor_of, position_in
from jarvis.model.dating import DATED_BACK
from jarvis.model.revision import Cutoff

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jarvis.model.change import Change

NO_ENTRIES = Room({})
"""The room of an empty namespace; never changed."""

NO_PAST = Archive()
"""The archive of a namespace without a past; never changed."""


class Seen:
    """The state that a thread sees: that of the file, or of its own transaction.

    Attributes:
        rooms: the entries, by namespace.
        archives: their past, by namespace.
        clock: the counters.
        spans: transactions whose moments their changes do not tell, ascending.
        erasing: copies of the first life's file are still to be removed.
        own: the first commit number of changes that are not committed yet, or None.
    """

    def __init__(
        self, rooms: dict[str, Room], archives: dict[str, Archive], clock: Clock, spans: list[Span], erasing: bool
    ) -> None:
        self.rooms, self.archives, self.clock, self.spans = rooms, archives, clock, spans
        self.erasing = erasing
        self.own: int | None = None

    def room(self, namespace: str) -> Room:
        """Return the entries of the namespace; do not change them."""
        return self.rooms.get(namespace, NO_ENTRIES)

    def archive(self, namespace: str) -> Archive:
        """Return the past of the namespace; do not change it."""
        return self.archives.get(namespace, NO_PAST)

    def room_at(
        self, namespace: str, instant: int, now: int, asked: Mapping[str, str | None]
    ) -> Room | LiveRoom | PastRoom:
        """Return the entries of the namespace at `instant`, but those that have expired at `now`.

        Raises:
            HistoryUnavailableError: the past of then is not known, or not for a question that asks `asked` of fields.
        """
        clock, room, archive = self.clock, self.room(namespace), self.archive(namespace)
        if rules.is_present(instant, clock.made, clock.begins):
            if instant < now:
                self._refuse_expired(room, archive, Cutoff(instant, ENDLESS, ENDLESS, ENDLESS), now, asked)
            return room.live(now)
        made = clock.made or 0  # it is not None: without it, this would be the present
        if rules.may_be_dated_back(instant, now, made) and self._is_dated_back(namespace, instant, now):
            raise rules.unavailable(instant, made, DATED_BACK)
        then = cutoff(self.spans, instant, self.own)
        self._refuse_erased(namespace, then, asked)
        missing = [gap for gap in archive.gaps.values() if gap.matters(then, asked)]
        if missing:
            gap = max(missing, key=attrgetter("ended"))
            if gap.expires is not msgspec.UNSET:
                raise rules.unavailable(instant, gap.expires, rules.WAS_PURGED)
            raise rules.unavailable(instant, self._moment_of(gap.ended, gap.made))
        self._refuse_expired(room, archive, then, now, asked)
        return PastRoom(room.live(now), archive, then)

    def _is_dated_back(self, namespace: str, instant: int, now: int) -> bool:
        """Tell whether a change dated up to `instant` was made after changes that are ahead of the clock."""
        ahead = next((span.first for span in self.spans if span.made > now), ENDLESS)
        archive = self.archive(namespace)
        made = [
            (date, number)
            for date, number, _ in map(by_order, (*self.room(namespace).records.values(), *archive.states))
        ]
        made += [(state.made, state.ended) for state in archive.states]
        made += [
            (event.made, event.number) for event in (*archive.events, *self.archive(erasures_of(namespace)).events)
        ]
        return any(number >= ahead and date <= instant for date, number in made)

    def changes(self, namespace: str, after: int, limit: int) -> list[Change]:
        """Return the first `limit` changes of the namespace with numbers greater than `after`.

        Raises:
            CursorExpiredError: one of them may not be known.
            ValueError: an entry is malformed.
        """
        self._check_fed(after)
        clock = self.clock
        if after < clock.fed_from or after > clock.commit:  # a cursor of another store, or of a later copy
            raise CursorExpiredError(str(after), cursor_of(clock.fed_from, clock.generation))
        room, archive, erasures = self.room(namespace), self.archive(namespace), self.archive(erasures_of(namespace))
        return feed.changes(room, archive, erasures, after, limit, clock.generation)

    def position_in(self, cursor: str) -> int:
        """Return the number that a cursor stands for; raise as `jarvis.model.change.position_in` does."""
        clock = self.clock
        earliest = None if clock.begins is None and clock.commit else clock.fed_from
        return position_in(cursor, clock.generation, is_restored=clock.copied == RESTORED, earliest=earliest)

    def newest_cursor(self) -> str:
        """Return the cursor of the last commit number."""
        return cursor_of(self.last_number(), self.clock.generation)

    def first_number(self) -> int:
        """Return the smallest number that `changes` takes; raise `CursorExpiredError` if it takes none."""
        self._check_fed(0)
        return self.clock.fed_from

    def last_number(self) -> int:
        """Return the last commit number."""
        return self.clock.commit

    def version(self, now: int) -> object:
        """Return None: what a transaction sees may be rolled back."""

    def _refuse_erased(self, namespace: str, seen: Cutoff, asked: Mapping[str, str | None]) -> None:
        """Raise if something was erased since, unless the question is about an entry that was known before."""
        erasures = self.archive(erasures_of(namespace)).events
        unseen = [each for each in erasures if not seen.includes(each.number, each.made)]
        entry_id = asked.get("id")
        if unseen and (entry_id is None or self._known_from(namespace, entry_id) > unseen[0].number):
            erased = self._moment_of(unseen[-1].number, unseen[-1].made)
            raise rules.unavailable(seen.instant, erased, rules.WAS_ERASED)

    def _known_from(self, namespace: str, entry_id: str) -> int:
        """Return the number of the first change of an entry that is known."""
        states = self.archive(namespace).of_id.get(entry_id)
        first = states[0] if states else self.room(namespace).get(entry_id)
        return ENDLESS if first is None else first.order[1]

    @staticmethod
    def _refuse_expired(room: Room, archive: Archive, seen: Cutoff, now: int, asked: Mapping[str, str | None]) -> None:
        expiry = expired_since(room, archive, seen, now, asked)
        if expiry is not None:
            raise rules.unavailable(seen.instant, expiry, rules.HAS_EXPIRED)

    def _check_fed(self, after: int) -> None:
        if self.clock.begins is None and self.clock.commit:
            raise CursorExpiredError(str(after), None)

    def _moment_of(self, number: int, made: int) -> int:
        if self.own is not None and number >= self.own:
            return made if self.clock.made is None else self.clock.made
        return moment_of(self.spans, number, made)


class Snapshot(Seen):
    """The state in the file when it had `stamp`. Never changed, so any thread may read it without a lock.

    It keeps the file open. No new file gets the inode of an open one, so no later version of the store can look like
    this one (same inode, same size, written within one tick of the clock). Windows does not rename over open files, but
    gives new files new numbers.
    """

    def __init__(
        self,
        path: str,
        stamp: Stamp,
        descriptor: int,
        rooms: dict[str, Room],
        archives: dict[str, Archive],
        clock: Clock,
        spans: list[Span],
        erasing: bool,
    ) -> None:
        super().__init__(rooms, archives, clock, spans, erasing)
        self.path, self.stamp = path, stamp
        self._identity = object()
        self._expiries: list[int] | None = None
        if sys.platform == "win32":
            os.close(descriptor)
        else:
            weakref.finalize(self, os.close, descriptor)

    def version(self, now: int) -> object:
        """Return a value that is equal as long as this is the state in the file and no entry expires."""
        expiries = self._expiries
        if expiries is None:
            records = (record for room in self.rooms.values() for record in room.records.values())
            expiries = self._expiries = sorted(record.expires for record in records if record.expires is not None)
        return self._identity, bisect_right(expiries, now)
