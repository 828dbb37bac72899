"""The dates of changes while the clock is behind its store."""

from __future__ import annotations

import threading
import warnings
from datetime import UTC, datetime, timedelta

from jarvis._calls.arguments import own_code, plain_moment
from jarvis.codec import InvalidMomentError
from jarvis.codec.instants import FIRST_INSTANT, MICROSECOND, datetime_of, instant_of
from jarvis.errors import ClockBehindWarning, InvalidEntryError

SKEW = timedelta(days=1)
"""If the clock is behind the last moment of its store by more than this, it was wrong then or is wrong now."""

SKEW_MICROSECONDS = SKEW // MICROSECOND

DATED_BACK = "a change was made by then after one that is dated ahead of the clock; see store.mend_dates()"
"""Why the past is not known at a moment: the changes have another order than their dates."""


def date_of(moment: int, now: int) -> int:
    """Return the date of a change, an instant: its moment, or `now` if that is behind it by more than `SKEW`."""
    return now if moment - now > SKEW_MICROSECONDS else moment


@own_code(InvalidEntryError, "timestamp or created_at")
def times_of_import(
    timestamp: datetime | None, created_at: datetime | None, now: datetime
) -> tuple[datetime | None, datetime]:
    """Return the timestamp that a caller gives an entry, as it is, or None; and the moment of its creation, in UTC.

    If only the timestamp is given, the entry was created then, but not after `now`.

    Raises:
        InvalidEntryError: one of them is no moment, or the creation lies after the timestamp or after `now`.
    """
    latest, of = instant_of(now), "the present"
    if timestamp is not None:
        timestamp, instant = _moment("timestamp", timestamp)
        if instant < latest:
            latest, of = max(instant, FIRST_INSTANT), "the timestamp"
    if created_at is None:
        return timestamp, datetime_of(latest)
    _, created = _moment("created_at", created_at)
    if not FIRST_INSTANT <= created <= latest:
        raise InvalidEntryError("created_at", f"is later than {of}, or before the calendar begins")
    return timestamp, datetime_of(created)


def _moment(field: str, given: object) -> tuple[datetime, int]:
    moment = plain_moment(given)
    if moment is None:
        raise InvalidEntryError(field, f"takes a datetime, not {type(given).__name__}")
    try:
        return moment, instant_of(moment)
    except InvalidMomentError as error:
        raise InvalidEntryError(field, str(error)) from None


class Dates:
    """The dates of the changes that one module and its siblings make.

    Attributes:
        lock: held while a change is made on a backend that has no transactions.
        are_ahead: at the last look, the store's last moment was ahead of the clock by more than `SKEW`.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.are_ahead = False
        self._last = datetime.min.replace(tzinfo=UTC)
        self._has_warned = False

    def moment(self, now: datetime) -> datetime:
        """Do what `Transactional.moment` does, for one module's threads on a backend of eight verbs."""
        self._last = max(now, self._last + timedelta(microseconds=1))
        return self._last

    def look(self, last: datetime, now: datetime, store: object) -> bool:
        """Return whether the store's last moment is ahead of the clock by more than `SKEW`; warn the first time."""
        self.are_ahead = last - now > SKEW
        if self.are_ahead and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"{store}: its last change is dated {last.isoformat()}, and the clock says {now.isoformat()}: one of "
                "them is wrong. If it is the clock, set it right. If not, call store.mend_dates(); until then memories "
                "are dated by the clock, and those that are dated ahead lead each list and do not grow old",
                ClockBehindWarning,
                stacklevel=5,
            )
        return self.are_ahead
