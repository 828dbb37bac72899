"""The clock of a store: which numbers and moments its changes have, and from when on its past is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from jarvis._sql import tables
from jarvis.model.rules import own_instant

if TYPE_CHECKING:
    from jarvis._sql.driver import Driver

_KEEP_MOMENT = "INSERT INTO commits (last, first, moment) VALUES (?, ?, ?)"


class Mark(NamedTuple):
    """What a savepoint goes back to, beside the tables."""

    begins: int | None
    ahead: int
    fed_from: int
    erasing: int


class Clock:
    """The clock inside of a transaction, read when that begins and written before it ends.

    Attributes:
        commit_number: of the last change.
        began: the `commit_number` with which the transaction began.
        made: instant of the last timestamp that the module made.
        date: the instant that a change made then is dated by: that, or the machine's if it was far behind.
        begins: the instant from which on the past is known, None before the first change.
        ahead: how far a timestamp may lie behind its change, in microseconds.
        fed_from: every change with a greater number is known to the feed.
        erasing: what is still to be done about an erasure, see `jarvis._sql.tables`.
        generation: how many erasures of names there were.
    """

    def __init__(self, driver: Driver, *, keeps_history: bool) -> None:
        self._driver, self._keeps_history = driver, keeps_history
        self._is_known = False  # as it is while nobody else writes
        self.commit_number = self.began = self.made = self.date = 0
        self.begins: int | None = None
        self.ahead = self.fed_from = self.erasing = 0
        self.generation = -1
        self._origin = (0, 0)  # the row's `generation` and `copied`
        self._has_moved = False  # since it was read
        self._is_due = False  # no entry can say it
        self._last_put: tuple[int, int] | None = None  # (row, instant) of the entry that the transaction wrote last
        self._told: tuple[int, int] | None = None  # (number, instant) of the last change that tells when it was made
        self._has_moment = False  # the module gave one in this transaction

    # --- the transaction -------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin with what the store's clock shows."""
        if not self._is_known:
            read = tables.clock_row(self._driver.rows(self._driver.dialect.say(tables.READ_CLOCK))[0])
            self.commit_number, self.made, self.generation, self.begins, self.ahead, self.fed_from, self.erasing = read[
                :7
            ]
            self._origin = read[7:]
        self._is_known = False  # until it is written
        self._has_moved = self._is_due = self._has_moment = False
        self._last_put = self._told = None
        self.began = self.commit_number

    def write(self) -> None:
        """Write down what the transaction's last entry does not tell."""
        count = self.commit_number - self.began
        is_told = count == 1 and self._told == (self.commit_number, self.made)
        if count and not (is_told and self._keeps_history and self.begins is not None):
            self._keep_moment(is_told=is_told)
        if self._is_due or (self._has_moved and self._last_put != (self.commit_number, self.made)):
            row = self.row()
            self._driver.run(self._driver.dialect.say(tables.WRITE_CLOCK), (*row, tables.clock_checksum(row)))

    def keep(self) -> None:
        """Know, behind a commit, what it has left."""
        self._is_known = True

    def forget(self) -> None:
        """Read it anew at the next transaction: it may be another one in the store."""
        self._is_known = False

    def row(self) -> tables.ClockRow:
        """Return the row as the transaction would leave it."""
        mine = (self.commit_number, self.made, self.generation, self.begins, self.ahead, self.fed_from, self.erasing)
        return tables.ClockRow._make((*mine, *self._origin))

    def mark(self) -> Mark:
        """Return what a savepoint that is set now goes back to."""
        return Mark(self.begins, self.ahead, self.fed_from, self.erasing)

    def back_to(self, mark: Mark) -> None:
        """Be as when a savepoint was set; numbers and moments that were given since are not given again."""
        self._last_put = self._told = None
        self.begins, self.ahead, self.fed_from, self.erasing = mark

    # --- numbers ---------------------------------------------------------------------------------

    def next_commit(self, count: int = 1) -> int:
        """Return a commit number, the last of `count`, greater than all before, to be written with the transaction."""
        self.commit_number += count
        self._has_moved = True
        return self.commit_number

    def take_back(self) -> None:
        """Take back the number that `next_commit` gave last: nothing was written with it."""
        self.commit_number -= 1

    def wrote(self, row: int, instant: int) -> None:
        """Remember that an entry was written, with the number that `next_commit` gave: see `tables.clock_row`."""
        self._last_put = (row, instant)
        if not self._has_moment:
            self.moment()
        self._told = (row, instant) if instant == self.made else None
        if instant > self.made:
            self.let_lie_ahead(instant - self.made)

    def removed(self, commit: int) -> None:
        """Remember that a revision was written that tells of the change with this number, made at `dated`."""
        self._told = (commit, self.dated())

    # --- moments ---------------------------------------------------------------------------------

    def made_at(self, instant: int, date: int) -> None:
        """Remember the instant of a timestamp that the module made, to be written with the transaction."""
        self.made, self.date = instant, date
        self._has_moved = self._has_moment = True

    def moment(self) -> int:
        """Return the instant of a change that is made now: the last one that the module gave, or the time."""
        if not self._has_moment:
            instant = own_instant(self.made)
            self.made_at(instant, instant)
        return self.made

    def dated(self) -> int:
        """Return the instant that a change made now is dated by: its moment, or the machine's if that is far behind."""
        if not self._has_moment:
            self.moment()
        return self.date

    def let_lie_ahead(self, microseconds: int) -> None:
        """Remember that a timestamp lies so far behind its change, if none lies farther."""
        if microseconds > self.ahead:
            self.ahead = microseconds
            self._is_due = True

    # --- the past, the feed and what was erased --------------------------------------------------

    def begin_past(self, instant: int | None) -> None:
        """Let the past be known from this instant on; None for not at all, until another begins it."""
        self.begins = instant
        self._has_moved = self._is_due = True

    def begin_past_again(self, instant: int) -> None:
        """Let moments go on from `instant`, also where later ones were given, and let the past be known from there on.

        Not inside a savepoint, which would not take the moments back.
        """
        self.made_at(instant, instant)
        for table in ("commits", "gaps"):
            self._driver.run(self._driver.dialect.say(f"DELETE FROM {table} WHERE {{here}}"))
        if self.begins is not None:
            self._driver.run(_KEEP_MOMENT, (self.commit_number, 1, instant))
        self.begin_past(None if self.begins is None else instant)

    def feed_from(self, number: int) -> None:
        """Let the feed begin behind the change with this number."""
        self.fed_from = number
        self._has_moved = self._is_due = True

    def erased(self, left: int) -> None:
        """Remember that something was erased, and what is to be done about it when the transaction has committed."""
        self.erasing |= left
        self._has_moved = self._is_due = True

    def release_names(self) -> None:
        """Let names that nothing has any more be removed behind the commit: O(store), some 0.1 µs a row."""
        self.erased(tables.NAMES)

    def _keep_moment(self, *, is_told: bool) -> None:
        """Write down when the transaction's changes became visible, unless its only one tells that."""
        if not self._keeps_history:
            if self.begins is not None:
                self.begin_past(None)
            return
        begins_behind_others = self.begins is None and self.began > 0
        if not is_told or begins_behind_others:
            self._driver.run(_KEEP_MOMENT, (self.commit_number, self.began + 1, self.moment()))
        if self.begins is None:
            self.begin_past(self.made)
            self.fed_from = self.began
