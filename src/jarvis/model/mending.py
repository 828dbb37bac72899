"""New dates for changes that are dated ahead of the clock, because the clock was once ahead itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Protocol

from jarvis.codec.instants import MICROSECOND, InvalidMomentError, datetime_of, instant_of
from jarvis.model.entry import MemoryEntry

LEAST = timedelta(seconds=1) // MICROSECOND
"""A last moment may be this far ahead of the clock, in microseconds, from many changes made at once."""


class Entries(Protocol):
    """The entries of a namespace, such as a backend."""

    def read(self, entry_id: str) -> MemoryEntry | None:
        """Return the entry with this id, or None."""

    def update(self, entry: MemoryEntry) -> None:
        """Store `entry` in place of the one with its id."""


class Dated:
    """The dates of changes, by commit number, but those that a caller gave; it computes new dates for those ahead."""

    def __init__(self, now: int, last: int, moment_of: Callable[[int, int], int]) -> None:
        """Begin without dates.

        Args:
            now: the instant of now.
            last: the last moment of the store.
            moment_of: returns the moment of a change with a number, and a date.
        """
        self._now, self._last, self._moment_of = now, last, moment_of
        self._dates: dict[int, int] = {}
        self._ahead: set[int] = set()

    def add(self, number: int, date: int) -> None:
        """Note a date of a change. It may have several: an entry can be dated after another entry of its key."""
        if date > self._now:
            if not self._now < self._moment_of(number, date) <= self._last or date > self._last:
                return  # a caller gave that date
            self._ahead.add(number)
        self._dates[number] = min(date, self._dates.get(number, date))

    def mended(self) -> dict[int, int]:
        """Return the new dates of the changes that are dated ahead of now."""
        new = mended(self._dates, self._now)
        return {number: new.get(number, self._dates[number]) for number in self._ahead}


def mended(dates: Mapping[int, int], now: int) -> dict[int, int]:
    """Return the new dates of those changes that are dated later than `now`.

    They keep their order and, where there is room, the time between them. A run of such changes ends just before the
    date of the next change, and begins no earlier than that of the change before it.

    Args:
        dates: the instants of changes by their commit numbers.
        now: the instant of now.

    >>> mended({1: 10, 2: 900, 3: 905, 4: 30, 5: 990}, 100)
    {2: 24, 3: 29, 5: 99}
    """
    new_dates: dict[int, int] = {}
    run: list[tuple[int, int]] = []
    before: int | None = None
    for number, date in [*sorted(dates.items()), (-1, now)]:
        if date > now:
            run.append((number, date))
        elif before is None or date >= before:  # else a caller dated it back: that does not tell when it was made
            last = run[-1][1] if run else 0
            for each, ahead in run:
                new = date - 1 - max(last - ahead, 0)
                before = new if before is None else max(new, before)
                new_dates[each] = before
            run, before = [], date
    return new_dates


def redate_all(entries: Iterable[tuple[Entries, str, int | None]], now: int) -> int:
    """Update those entries whose timestamp or provenance is dated ahead of the clock; return how many.

    Args:
        entries: of each entry, where it is, its id, and its new instant or None.
        now: the instant of now.
    """
    count = 0
    for backend, entry_id, instant in entries:
        entry = backend.read(entry_id)
        if entry is not None and _redate(entry, instant, now):
            backend.update(entry)
            count += 1
    return count


def _redate(entry: MemoryEntry, instant: int | None, now: int) -> bool:
    before = instant_of(entry.timestamp)
    after = before if instant is None else instant
    if after != before:
        zone = entry.timestamp.tzinfo
        moment = datetime_of(after).astimezone(zone)
        entry.timestamp = moment if zone is not None else moment.replace(tzinfo=None)
    date = datetime_of(after).isoformat()
    ahead = [name for name in ("created_at", "updated_at") if _is_ahead(entry.provenance.get(name, ""), now)]
    entry.provenance.update(dict.fromkeys(ahead, date))
    return after != before or bool(ahead)


def _is_ahead(text: str, now: int) -> bool:
    try:
        return instant_of(datetime.fromisoformat(text)) > now
    except (ValueError, InvalidMomentError):  # we did not write that
        return False
