"""The clock of a store: the numbers and moments of its changes, and the instant from which its past is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from jarvis._sql import tables
from jarvis.model.rules import own_instant

if TYPE_CHECKING:
    from jarvis._sql.driver import Driver

_KEEP_MOMENT = "INSERT INTO commits ({column_here}last, first, moment) VALUES ({value_here}?, ?, ?)"


class Mark(NamedTuple):
    """The values that a rollback to a savepoint restores, beside the tables."""

    begins: int | None
    ahead: int
    fed_from: int
    erasing: int


class Clock:
    """The clock inside a transaction, which reads it when it begins and writes it before it ends.

    Attributes:
        commit_number: of the last change.
        began: the `commit_number` with which the transaction began.
        made: instant of the last timestamp that the module made.
        date: the date of a change made then: `made`, or the machine's instant if that was far behind.
        begins: the instant from which the past is known, None before the first change.
        ahead: how much later a timestamp may be than its change, in microseconds.
        fed_from: the feed knows every change with a greater number.
        erasing: the clean-up that an erasure still needs, see `jarvis._sql.tables`.
        generation: how many erasures of names there were.
        found: the greatest number of an entry that a change of the transaction left as it was: see `find`.
    """

    def __init__(self, driver: Driver, *, keeps_history: bool) -> None:
        self._driver, self._keeps_history = driver, keeps_history
        self._is_known = False  # the fields are those of the store, as long as nobody else writes
        self.commit_number = self.began = self.made = self.date = 0
        self.begins: int | None = None
        self.ahead = self.fed_from = self.erasing = 0
        self.found = 0
        self.generation = -1
        self._origin = (0, 0)  # the row's `generation` and `copied`
        self._has_moved = False  # it has changed since it was read
        self._is_due = False  # it has changed in a way that no entry records
        self._last_put: tuple[int, int] | None = None  # (row, instant) of the entry that the transaction wrote last
        self._told: tuple[int, int] | None = None  # (number, instant) of the last change whose row holds its date
        self._has_moment = False  # this transaction has its moment

    # --- the transaction -------------------------------------------------------------------------

    def begin(self) -> None:
        """Read the clock of the store, unless it is known."""
        if not self._is_known:
            read = tables.clock_row(self._driver.rows(self._driver.dialect.say(tables.READ_CLOCK))[0])
            self.commit_number, self.made, self.generation, self.begins, self.ahead, self.fed_from, self.erasing = read[
                :7
            ]
            self._origin = read[7:]
        self._is_known = False  # until it is written
        self.found = 0
        self._has_moved = self._is_due = self._has_moment = False
        self._last_put = self._told = None
        self.began = self.commit_number

    def write(self) -> None:
        """Write what the rows of the transaction do not record."""
        count = self.commit_number - self.began
        is_told = count == 1 and self._told == (self.commit_number, self.made)
        if count and not (is_told and self._keeps_history and self.begins is not None):
            self._keep_moment(is_told=is_told)
        has_moved = self._has_moved and (count or not self.found)
        if self._is_due or (has_moved and self._last_put != (self.commit_number, self.made)):
            row = self.row()
            self._driver.run(self._driver.dialect.say(tables.WRITE_CLOCK), (*row, tables.clock_checksum(row)))

    def keep(self) -> None:
        """Keep the fields after a commit, for the next transaction."""
        self._is_known = True

    def forget(self) -> None:
        """Read the clock again at the next transaction: the one in the store may be another."""
        self._is_known = False

    def row(self) -> tables.ClockRow:
        """Return the row as the transaction would leave it."""
        mine = (self.commit_number, self.made, self.generation, self.begins, self.ahead, self.fed_from, self.erasing)
        return tables.ClockRow._make((*mine, *self._origin))

    def mark(self) -> Mark:
        """Return the values to which `back_to` a savepoint that is set now returns."""
        return Mark(self.begins, self.ahead, self.fed_from, self.erasing)

    def back_to(self, mark: Mark) -> None:
        """Restore the values of a savepoint; numbers and moments that were given since are not given again."""
        self._last_put = self._told = None
        self.begins, self.ahead, self.fed_from, self.erasing = mark

    # --- numbers ---------------------------------------------------------------------------------

    def next_commit(self, count: int = 1) -> int:
        """Take `count` commit numbers, greater than all before; return the last one."""
        self.commit_number += count
        self._has_moved = True
        return self.commit_number

    def take_back(self, count: int = 1) -> None:
        """Take back the numbers that `next_commit` gave last; no row was written with them."""
        self.commit_number -= count

    def find(self, row: int) -> None:
        """Remember that a change found this entry as it would have stored it: its moment alone need not be written."""
        self.found = max(self.found, row)

    def wrote(self, row: int, instant: int) -> None:
        """Remember that an entry was written with the number of `next_commit`: see `tables.clock_row`."""
        self._last_put = (row, instant)
        if not self._has_moment:
            self.moment()
        self._told = (row, instant) if instant == self.made else None
        if instant > self.made:
            self.let_lie_ahead(instant - self.made)

    def removed(self, commit: int) -> None:
        """Remember that a revision records the change with this number and the date `dated`."""
        self._told = (commit, self.dated())

    # --- moments ---------------------------------------------------------------------------------

    def made_at(self, instant: int, date: int) -> None:
        """Set the instant of a timestamp that the module made, and the date of changes made then."""
        self.made, self.date = instant, date
        self._has_moved = self._has_moment = True

    def moment(self) -> int:
        """Return the moment of this transaction: the one that the module gave, or else one from the machine's clock."""
        if not self._has_moment:
            instant = own_instant(self.made)
            self.made_at(instant, instant)
        return self.made

    def dated(self) -> int:
        """Return the date of a change made now: its moment, or the machine's instant if that is far behind."""
        if not self._has_moment:
            self.moment()
        return self.date

    def let_lie_ahead(self, microseconds: int) -> None:
        """Remember that a timestamp is this much later than its change, if none is later still."""
        if microseconds > self.ahead:
            self.ahead = microseconds
            self._is_due = True

    def let_pass(self, instant: int) -> None:
        """Let no later change be dated before this instant, at which a change was made in another store."""
        if instant > self.moment():
            self.made_at(instant, instant)

    # --- the past, the feed and what was erased --------------------------------------------------

    def begin_past(self, instant: int | None) -> None:
        """Begin the known past at this instant; None: the past is unknown until a later change begins it."""
        self.begins = instant
        self._has_moved = self._is_due = True

    def take_over(self, since: int) -> None:
        """Let the changes of this transaction be known from their own dates on, as in the store that they come from.

        The past of that one is known from the instant `since` on.
        """
        if self._keeps_history and self.begins is None:
            self.begin_past(min(since, self.moment()))
        if self.fed_from == self.began:  # it has told of nothing yet
            self.feed_from(self.commit_number)
        self.began = self.commit_number  # so no moment is recorded for them
        self._is_due = True

    def begin_past_again(self, instant: int) -> None:
        """Give moments from `instant` on, even if later ones were given, and begin the known past there.

        Not for use inside a savepoint: it would not take the moments back.
        """
        self.made_at(instant, instant)
        for table in ("commits", "gaps"):
            self._driver.run(self._driver.dialect.say(f"DELETE FROM {table} WHERE {{here}}"))
        if self.begins is not None:
            self._record(1, instant)
        self.begin_past(None if self.begins is None else instant)

    def feed_from(self, number: int) -> None:
        """Begin the feed after the change with this number."""
        self.fed_from = number
        self._has_moved = self._is_due = True

    def erased(self, left: int) -> None:
        """Remember that something was erased, and the clean-up `left` for after the commit."""
        self.erasing |= left
        self._has_moved = self._is_due = True

    def release_names(self) -> None:
        """Have names that no row uses removed after the commit: O(store), some 0.1 µs a row."""
        self.erased(tables.NAMES)

    def _keep_moment(self, *, is_told: bool) -> None:
        """Record when the transaction's changes became visible, unless the row of its only change does."""
        if not self._keeps_history:
            if self.begins is not None:
                self.begin_past(None)
            return
        follows_others = self.begins is None and self.began > 0
        if not is_told or follows_others:
            self._driver.run(
                self._driver.dialect.say(_KEEP_MOMENT), (self.commit_number, self.began + 1, self.moment())
            )
        if self.begins is None:
            self.begin_past(self.made)
            self.fed_from = self.began

    def _record(self, first: int, moment: int) -> None:
        self._driver.run(self._driver.dialect.say(_KEEP_MOMENT), (self.commit_number, first, moment))
