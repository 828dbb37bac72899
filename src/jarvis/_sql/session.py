"""`Session`: a transaction on a connection, or the reads outside of one."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from jarvis._sql import tables
from jarvis._sql.clock import Clock, Mark
from jarvis._sql.names import NameBook, Names
from jarvis.errors import JarvisError, StoreError
from jarvis.model.record import Body, decode_body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jarvis._sql.driver import Driver
    from jarvis._sql.side_tables import SideTable
    from jarvis.model.options import HistoryPolicy
    from jarvis.model.revision import Signature

Result = TypeVar("Result")
Args = TypeVarTuple("Args")

_SPAN = "SELECT first, moment FROM commits WHERE {here} AND last >= ? ORDER BY last LIMIT 1"


class Session:
    """What is going on on one connection, used by one thread at a time.

    Attributes:
        clock: the numbers and moments of changes; valid inside a transaction and, its last number, right after.
        names: the strings that repeat, and the numbers that stand for them.
        history: how much of the past is kept.
        side_tables: what goes with each state of an entry.
        depth: 0 outside a transaction, 1 inside one, one more for each savepoint.
        is_committed: whether the transaction that was begun last is.
        is_still: its reads see one state, see `standing_still`.
        joined: a change is being made, and whatever is done is part of it.
        signature: who makes the changes from here on, if anybody said so.
    """

    def __init__(
        self, driver: Driver, book: NameBook, history: HistoryPolicy, side_tables: tuple[SideTable, ...]
    ) -> None:
        self.driver = driver
        self.rows, self.each, self.run, self.put = driver.rows, driver.each, driver.run, driver.put
        self.path, self.dialect, self.say = driver.path, driver.dialect, driver.dialect.say
        self.history = history
        self.side_tables = side_tables
        self.clock = Clock(driver, keeps_history=bool(history.max_revisions))
        self.names = Names(driver, book)
        self.depth = 0
        self.is_committed = self.is_still = self.joined = False
        self.signature: Signature | None = None
        self._last_read: tuple[int, str, tuple[Any, ...], tuple[str, ...]] | None = None
        self._marks: list[tuple[Mark, Signature | None]] = []  # what each savepoint goes back to

    # --- transactions ----------------------------------------------------------------------------

    def begin(self) -> None:
        """Start a transaction (nobody else writes meanwhile), or a savepoint inside the one that is open."""
        if self.depth:
            self.driver.save(self.depth)
            self._marks[self.depth - 1 :] = [(self.clock.mark(), self.signature)]
            self.depth += 1
            return
        self.is_committed = self.joined = False
        try:
            if not self.driver.begin():
                self.clock.forget()
            self.clock.begin()
            if self.names.generation != self.clock.generation:
                self.names.begin(self.clock.generation)
            self._last_read = self.signature = None
            self.depth = 1
        except BaseException:
            self._roll_back_all()
            raise

    def commit(self) -> None:
        """Keep the changes since the matching `begin`; durable when it is the outermost one."""
        if self.depth > 1:
            self.driver.release(self.depth - 1)
            self.depth -= 1
            _, self.signature = self._marks[self.depth - 1]
            return
        try:
            self.clock.write()
            self.driver.commit()
            self.is_committed = True
        except BaseException as error:
            # What is no error of ours came from outside, and may have come right behind the commit.
            self.is_committed = not isinstance(error, JarvisError) and not self.driver.is_open()
            self._roll_back_all()
            raise
        self.clock.keep()
        if self.names.has_new:
            self.names.share()
        self.depth = 0

    def roll_back(self, level: int = 0) -> None:
        """Take back the changes since the `begin` that raised the depth above `level`; no-op if none did."""
        self.names.forget()
        self._last_read = None
        if level == 0:
            self._roll_back_all()
        elif self.depth > level:
            mark, self.signature = self._marks[level - 1]
            self.clock.back_to(mark)
            try:
                self.driver.back_to(level)
            except StoreError:  # an interrupt came between its release and our note of it: the whole must go
                self.driver.tear()
            self.depth = level  # last, so that this can be called again if an interrupt kept it from its end

    def _roll_back_all(self) -> None:
        self.depth = 0
        self.is_still = self.joined = False
        self.names.forget()
        self.clock.forget()
        self.driver.roll_back()

    def join(self, work: Callable[[*Args], Result], *args: *Args) -> Result:
        """Return what `work` returns, given `args`; it is one change, and all it calls is a part of the transaction."""
        number, signature = self.clock.commit_number, self.signature
        try:
            self.joined = True
            return work(*args)
        except BaseException:
            if self.clock.commit_number != number:
                self.driver.tear()  # the half of it that was done goes with the transaction it is part of
            raise
        finally:
            self.joined, self.signature = False, signature

    def sign(self, signature: Signature) -> None:
        """Let this be who makes the changes from here on."""
        self.signature = signature

    def at_one_moment(self, work: Callable[[Session], Result]) -> Result:
        """Return what `work` returns; its reads see one state of the store, whatever is written meanwhile."""
        if self.depth:
            return work(self)
        try:
            self.is_still = True
            self.driver.stand_still()
            return work(self)
        finally:
            self.driver.go_on()
            self.is_still = False

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """Do what `at_one_moment` does, for a block."""
        if self.depth:
            yield
            return
        try:
            self.is_still = True
            self.driver.stand_still()
            yield
        finally:
            self.driver.go_on()
            self.is_still = False

    # --- what is known of it ---------------------------------------------------------------------

    def note_read(self, namespace: str, row: tuple[Any, ...], tags: list[str]) -> None:
        """Remember the row of `jarvis._sql.select.COLUMNS` that the transaction has just read, and the entry's tags."""
        self._last_read = (self.clock.commit_number, namespace, row, tuple(tags))

    def last_read(self, namespace: str) -> tuple[tuple[Any, ...], tuple[str, ...]] | None:
        """Return what the transaction read last, if that was in this namespace and nothing has changed since."""
        if self._last_read is None:
            return None
        number, read_in, row, tags = self._last_read
        return (row, tags) if read_in == namespace and number == self.clock.commit_number else None

    def clock_seen(self) -> tables.ClockRow:
        """Return the clock as this thread sees it; of a store without a past, one that knows of none."""
        if self.depth:
            return self.clock.row()
        keeps_past = self.driver.keeps_past()
        return tables.clock_row(self.rows(self.say(tables.READ_CLOCK if keeps_past else tables.READ_FIRST_CLOCK))[0])

    def moment_of(self, commit: int, made: int) -> int:
        """Return when a change became visible: with others of its transaction, or when it was made."""
        if self.depth and commit > self.clock.began:
            return self.clock.made
        found = self.rows(self.say(_SPAN), (commit,))
        return int(found[0][1]) if found and found[0][0] <= commit else made

    def body(self, encoded: str) -> Body:
        """Return a stored body, decoded; raise `CorruptStoreError` if it is none."""
        try:
            return decode_body(encoded)
        except ValueError:
            raise self.driver.corrupt("an entry cannot be decoded") from None
