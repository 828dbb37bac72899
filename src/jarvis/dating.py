"""Which date a change gets while the clock is behind its store, and what dates become that lie ahead of the clock."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from jarvis.codec.instants import MICROSECOND
from jarvis.errors import ClockBehindWarning

SKEW = timedelta(days=1)
"""A clock that is behind the last moment of its store by more than this was wrong then, or is wrong now."""

SKEW_MICROSECONDS = SKEW // MICROSECOND

DATED_BACK = "a change was made by then behind one that is dated ahead of the clock; see mend_dates()"
"""Why the past is not known at a moment: in the order of the changes it does not come where the dates have it."""


class Dates:
    """The dates of the changes that one module and its siblings make.

    Attributes:
        lock: held while a change is made on a backend that has no transactions.
        are_ahead: the store's last moment lay ahead of the clock by more than `SKEW` when it was last looked at.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.are_ahead = False
        self._last = datetime.min.replace(tzinfo=UTC)
        self._has_warned = False

    def moment(self, now: datetime) -> datetime:
        """Stand in for `Transactional.moment` on a backend of eight verbs, for one module's threads."""
        self._last = max(now, self._last + timedelta(microseconds=1))
        return self._last

    def look(self, last: datetime, now: datetime, store: object) -> bool:
        """Return whether the store's last moment lies ahead of the clock by more than `SKEW`; the first time, warn."""
        self.are_ahead = last - now > SKEW
        if self.are_ahead and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"{store}: its last change is dated {last.isoformat()}, and the clock says {now.isoformat()}: one of "
                "them is wrong. If it is the clock, set it right. If not, call mend_dates(); until then memories are "
                "dated by the clock, and those that are dated ahead lead each list and do not grow old",
                ClockBehindWarning,
                stacklevel=5,
            )
        return self.are_ahead


def mended(dates: Mapping[int, int], now: int) -> dict[int, int]:
    """Return the new dates of those changes that are dated later than `now`.

    They keep their order and, where there is room, the time between them: a run of such changes ends right before the
    next change that is dated rightly, and begins no earlier than the one before was made.

    Args:
        dates: the instants of changes by their commit numbers.
        now: the instant of now.

    >>> mended({1: 10, 2: 900, 3: 905, 4: 30, 5: 990}, 100)
    {2: 24, 3: 29, 5: 99}
    """
    found: dict[int, int] = {}
    run: list[tuple[int, int]] = []
    before: int | None = None
    for number, date in [*sorted(dates.items()), (-1, now)]:
        if date > now:
            run.append((number, date))
        elif before is None or date >= before:  # one that a caller dated back says nothing of when it was made
            last = run[-1][1] if run else 0
            for each, ahead in run:
                new = date - 1 - max(last - ahead, 0)
                before = new if before is None else max(new, before)
                found[each] = before
            run, before = [], date
    return found
