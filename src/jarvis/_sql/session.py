"""`Session`: a transaction on a connection, or reads outside of one."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from jarvis._sql import tables
from jarvis._sql.clock import Clock
from jarvis._sql.names import NameBook, Names
from jarvis.errors import JarvisError, StoreError
from jarvis.model.record import Body, decode_body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jarvis._sql.driver import Driver
    from jarvis._sql.side_tables import SideTable
    from jarvis.model.policies import Histories
    from jarvis.model.revision import Signature

Result = TypeVar("Result")
Args = TypeVarTuple("Args")

_SPAN = "SELECT first, moment FROM commits WHERE {here} AND last >= ? ORDER BY last LIMIT 1"


class Session:
    """The transaction and the reads of one connection, used by one thread at a time.

    Attributes:
        clock: the numbers and moments of changes; valid inside a transaction, the last number also right after it.
        names: the strings that repeat, and their ids.
        history: how much of the past is kept.
        side_tables: the rows that go with each state of an entry.
        depth: 0 outside a transaction, 1 inside one, one more for each savepoint.
        is_committed: the last transaction has committed.
        is_still: all reads see one state, see `standing_still`.
        joined: a change is in progress, and every call is part of it.
        signature: who makes the changes from here on, None if nobody signed.
    """

    def __init__(self, driver: Driver, book: NameBook, history: Histories, side_tables: tuple[SideTable, ...]) -> None:
        self.driver = driver
        self.rows, self.each, self.run, self.put = driver.rows, driver.each, driver.run, driver.put
        self.path, self.dialect, self.say = driver.path, driver.dialect, driver.dialect.say
        self.history = history
        self.side_tables = side_tables
        self.clock = Clock(driver, keeps_history=history.keep_any)
        self.names = Names(driver, book)
        self.depth = 0
        self.is_committed = self.is_still = self.joined = False
        self.signature: Signature | None = None
        self._last_read: tuple[int, str, tuple[Any, ...], tuple[str, ...]] | None = None
        self._marks: list[tuple[Any, Signature | None]] = []  # of each savepoint

    # --- transactions ----------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin a transaction (nobody else writes meanwhile), or a savepoint inside the open one."""
        if self.depth:
            self.driver.save(self.depth)
            self._marks[self.depth - 1 :] = [(self._mark(), self.signature)]
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
        """Commit the changes since the matching `begin`; the outermost commit makes them durable."""
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
            # An error that is not ours came from outside, perhaps right after the commit.
            self.is_committed = not isinstance(error, JarvisError) and not self.driver.is_open()
            self._roll_back_all()
            raise
        self.clock.keep()
        if self.names.has_new:
            self.names.share()
        self.depth = 0

    def roll_back(self, level: int = 0) -> None:
        """Roll back the changes since the `begin` that raised the depth above `level`; no-op if none did."""
        self._last_read = None
        if level == 0:
            self._roll_back_all()
        elif self.depth > level:
            mark, self.signature = self._marks[level - 1]
            self._back_to(mark)
            try:
                self.driver.back_to(level)
            except StoreError:  # interrupted between its release and our note of it: roll back everything
                self.driver.tear()
            self.depth = level  # last, so that this can be called again after an interrupt

    def _roll_back_all(self) -> None:
        self.depth = 0
        self.is_still = self.joined = False
        self._forget()
        self.driver.roll_back()

    # What a database overrides whose transactions have a clock for each namespace.

    def _mark(self) -> Any:
        return self.clock.mark()

    def _back_to(self, mark: Any) -> None:
        self.names.forget()
        self.clock.back_to(mark)

    def _forget(self) -> None:
        self.names.forget()
        self.clock.forget()

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
        """Run `work` with reads that see one state of the store, whatever is written meanwhile; return its result."""
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
        """Let the reads of a block see one state of the store, as `at_one_moment` does."""
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

    # --- its state -------------------------------------------------------------------------------

    def note_read(self, namespace: str, row: tuple[Any, ...], tags: list[str]) -> None:
        """Remember the row (`jarvis._sql.select.COLUMNS`) that the transaction has just read, and the entry's tags."""
        self._last_read = (self.clock.commit_number, namespace, row, tuple(tags))

    def last_read(self, namespace: str) -> tuple[tuple[Any, ...], tuple[str, ...]] | None:
        """Return the row and tags that the transaction read last, if in this namespace and with no change since."""
        if self._last_read is None:
            return None
        number, read_in, row, tags = self._last_read
        return (row, tags) if read_in == namespace and number == self.clock.commit_number else None

    def clock_seen(self) -> tables.ClockRow:
        """Return the clock as this thread sees it; for a store without tables of the past, without their fields."""
        if self.depth:
            return self.clock.row()
        keeps_past = self.driver.keeps_past()
        return tables.clock_row(self.rows(self.say(tables.READ_CLOCK if keeps_past else tables.READ_FIRST_CLOCK))[0])

    def digest_of(self, namespace: str) -> int:
        """Return the number under which erasures of a namespace are stored."""
        return tables.digest_of(namespace)

    def moment_of(self, commit: int, made: int) -> int:
        """Return when a change became visible: the moment of its transaction if recorded, or else `made`."""
        if self.depth and commit > self.clock.began:
            return self.clock.made
        rows = self.rows(self.say(_SPAN), (commit,))
        return int(rows[0][1]) if rows and rows[0][0] <= commit else made

    def body(self, encoded: str) -> Body:
        """Decode a stored body; raise `CorruptStoreError` if that fails."""
        try:
            return decode_body(encoded)
        except ValueError:
            raise self.driver.corrupt("an entry cannot be decoded") from None
