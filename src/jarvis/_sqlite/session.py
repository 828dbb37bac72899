"""One connection, used by one thread: its transaction, and the funnel of every statement."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import apsw

from jarvis._calls.caller import holding, torn_transaction
from jarvis._sqlite import driver, schema
from jarvis.errors import (
    JarvisError,
    ReadOnlyStoreError,
    StoreAccessError,
    StoreError,
    StoreTooNewError,
)
from jarvis.model.record import Body, decode_body
from jarvis.model.rules import own_instant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jarvis._disk.files import Stamp
    from jarvis.model.options import HistoryPolicy
    from jarvis.model.revision import Signature

_KEEP_MOMENT = "INSERT INTO commits (last, first, moment) VALUES (?, ?, ?)"
_SPAN = "SELECT first, moment FROM commits WHERE last >= ? ORDER BY last LIMIT 1"
_INTERN = "INSERT INTO names (name) VALUES (?)"
_NAME_ID = "SELECT id FROM names WHERE name = ?"
_NAME = "SELECT name FROM names WHERE id = ?"
_MANY_LOOKS = 100  # of a reader at what a writer is changing
_MANY_NAMES = 10_000  # that a connection remembers, before it forgets them all


class NameBook:
    """The names that the connections of one process know, for the next one to begin with.

    Attributes:
        generation: how many erasures of names there were; at that number all of it is right.
        ids: the id of each name; never changed, but replaced.
        texts: the name of each id; likewise.
    """

    def __init__(self) -> None:
        self.put(-1, {}, {})

    def put(self, generation: int, ids: dict[str, int], texts: dict[int, str]) -> None:
        """Let the next connection begin with these."""
        self.page = (generation, dict(ids), dict(texts))


class _Mark(NamedTuple):
    """What a savepoint goes back to, beside the tables."""

    begins: int | None
    ahead: int
    fed_from: int
    erasing: int
    signature: Signature | None


class Session:
    """A connection and the state of its transaction. Only the thread that owns it calls its methods,
    except `close`, which anybody may call while `busy` is 0.

    Attributes:
        busy: how many calls and iterations use the connection just now.
        epoch: the `Database.epoch` it was opened in; another one there means that it is stale.
        identity: (device, inode) of the file it has open.
        immutable: None, or the stamp of a file that it reads without locks: right only while nobody writes.
        is_suspended: it belongs to an iteration that has handed out an entry, and may be left open for ever.
        depth: 0 outside a transaction, 1 inside one, one more for each savepoint.
        task: which has the transaction open, see `jarvis._calls.caller.current_task`, if other verbs take part in it.
        is_committed: whether the transaction that was begun last is.
        is_still: its reads see one state, see `standing_still`.
        joined: a change is being made, and whatever is done is part of it.
        commit_number: of the last change, or of the last transaction; valid inside one and right after.
        texts: names by their ids, as far as they were looked up; an id never gets another name.
        last_read: (namespace, row of `_sql.select.COLUMNS`) of the entry that the transaction read last, if it
            changed nothing since.
        made: instant of the last timestamp the module made; valid inside a transaction.
        date: the instant that a change made then is dated by: that, or the clock's if it was far behind; likewise.
        began: the `commit_number` with which the transaction began.
        begins: the instant from which on the past is known, None before the first change; valid inside one.
        ahead: how far a timestamp may lie behind its change, in microseconds; valid inside one.
        fed_from: every change with a greater number is known to the feed; valid inside one.
        erasing: what is still to be done about an erasure, see `jarvis._sqlite.erasing`; valid inside one.
        history: how much of the past is kept.
        signature: who makes the changes from here on, if anybody said so.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        path: str,
        names: NameBook,
        *,
        epoch: int,
        identity: tuple[int, int],
        immutable: Stamp | None,
        history: HistoryPolicy,
    ) -> None:
        self.history = history
        self.connection = connection
        self._cursor = connection.cursor()  # of statements that are run to their end at once
        self.path = path
        self.epoch = epoch
        self.identity = identity
        self.pid = os.getpid()
        self.busy = 0
        self.depth = 0
        self.task: object = None
        self.joined = False
        self.is_committed = False
        self.made = self.date = 0
        self.closed = False
        self.immutable = immutable
        self.is_suspended = self.is_still = False
        self.thread = threading.get_ident()
        self.commit_number = 0
        self._generation = -1
        self._data_version = -1
        self._clock: schema.Clock | None = None  # as it is while nobody else writes
        self._origin = (0, 0)  # the clock's `generation` and `copied`; valid inside a transaction
        self._clock_moved = False  # since it was read
        self._clock_due = False  # no entry can say it
        self._last_put: tuple[int, int] | None = None  # (row, instant) of the entry that the transaction wrote last
        self._told: tuple[int, int] | None = None  # (number, instant) of the last change that tells when it was made
        self._keeps_past = False  # as far as is known
        self._has_moment = False  # the module gave one in this transaction
        self.began = 0
        self.begins: int | None = None
        self.ahead = self.fed_from = self.erasing = 0
        self.signature: Signature | None = None
        self._broken = False
        self._book = names
        _, ids, texts = names.page
        self._names: dict[str, int] = dict(ids)
        self.texts: dict[int, str] = dict(texts)
        self.last_read: tuple[str, tuple[Any, ...]] | None = None
        self._marks: list[_Mark] = []  # of each savepoint
        self.guard = threading.RLock()  # held by whoever closes the connection, or uses another thread's

    # --- statements ------------------------------------------------------------------------------

    def rows(self, sql: str, bindings: Sequence[Any] | dict[str, Any] = (), doing: str = "read") -> list[Any]:
        """Run one statement and return all its rows.

        Raises:
            StoreError: the driver failed.
            TransactionError: the transaction this belongs to was already taken back by a failure.
        """
        if self._broken:
            raise torn_transaction(self.path)
        try:
            return self._cursor.execute(sql, bindings).fetchall()
        except apsw.Error as error:
            found: list[Any] = self._again(error, lambda: self._cursor.execute(sql, bindings).fetchall(), doing)
            return found
        except UnicodeDecodeError:  # it carries what is stored
            raise driver.corrupt(self.path, "a text is no text") from None

    def _again(self, error: apsw.Error, run: Callable[[], Any], doing: str) -> Any:
        """Repeat a read that met a writer half-way, and return what `run` returns; raise the error if it is another.

        A connection that may not write takes an index of the log that is just being changed, one look in 70,000
        beside a busy writer, for one that has to be recovered.
        """
        for _ in range(_MANY_LOOKS):
            if driver.extended_code(error) != apsw.SQLITE_READONLY_RECOVERY:
                break
            time.sleep(0.001)
            try:
                return run()
            except apsw.Error as another:
                error = another
        raise self.failed(error, doing) from error

    def each(self, sql: str, bindings: Sequence[Any] | dict[str, Any] = ()) -> Iterator[Any]:
        """Run one statement and yield its rows as they are found; raise as `rows` does."""
        self._check_whole()
        try:
            try:
                found = self.connection.execute(sql, bindings)
            except apsw.Error as error:
                found = self._again(error, lambda: self.connection.execute(sql, bindings), "read")
            yield from found
        except apsw.Error as error:
            raise self.failed(error, "read") from error
        except UnicodeDecodeError:
            raise driver.corrupt(self.path, "a text is no text") from None

    def _check_whole(self) -> None:
        if self._broken:
            raise torn_transaction(self.path)

    def failed(self, error: apsw.Error, doing: str) -> Exception:
        """Return the error of ours for the driver's `error`; notice if it ended the transaction."""
        if self.depth and not self.connection.in_transaction:
            self._broken = True
        return driver.translated(self.path, error, doing, self.connection.system_errno)

    # --- transactions ----------------------------------------------------------------------------

    def begin(self) -> None:
        """Start a transaction (the caller holds the writer lock), or a savepoint inside the one that is open."""
        if self.depth:
            self.rows(f"SAVEPOINT level_{self.depth}", (), "write")
            mark = _Mark(self.begins, self.ahead, self.fed_from, self.erasing, self.signature)
            self._marks[self.depth - 1 :] = [mark]
            self.depth += 1
            return
        self.is_committed = False
        try:
            self.rows("BEGIN IMMEDIATE", (), "write")
            data_version = self.connection.data_version()
            if data_version != self._data_version:  # somebody else wrote since this connection last looked
                version = self.rows("PRAGMA user_version")[0][0]
                if version != schema.CURRENT_VERSION:
                    raise too_new(self.path, version)
                self._data_version = data_version
                self._clock = None
            if self._clock is None:
                self._clock = schema.clock(self.rows(schema.READ_CLOCK)[0])
            self.commit_number, self.made, generation, self.begins, self.ahead, self.fed_from, self.erasing = (
                self._clock[:7]
            )
            self._origin = self._clock[7:]
            if generation != self._generation:
                self._generation = generation
                written_at, ids, texts = self._book.page
                is_right = written_at == generation
                self._names, self.texts = (dict(ids), dict(texts)) if is_right else ({}, {})
            self._clock_moved = self._clock_due = self._broken = self._has_moment = False
            self._last_put = self._told = self.last_read = self.signature = None
            self.began = self.commit_number
            self.depth = 1
        except BaseException:
            self._roll_back_all()
            raise

    def commit(self) -> None:
        """Keep the changes since the matching `begin`; durable when it is the outermost one."""
        if self.depth > 1:
            self.rows(f"RELEASE level_{self.depth - 1}", (), "write")
            self.depth -= 1
            self.signature = self._marks[self.depth - 1].signature
            return
        try:
            if self.commit_number != self.began:
                self._keep_moment()
            if self._clock_due or (self._clock_moved and self._last_put != (self.commit_number, self.made)):
                clock = self.clock_now()
                self.rows(schema.WRITE_CLOCK, (*clock, schema.clock_checksum(clock)), "write")
            self.rows("COMMIT", (), "write")
            self.is_committed = True
        except BaseException as error:
            # What is no error of ours came from outside, and may have come right behind the commit.
            self.is_committed = not isinstance(error, JarvisError) and not self.connection.in_transaction
            self._roll_back_all()
            raise
        self._data_version = self.connection.data_version()  # our own commits move it too
        self._clock = self.clock_now()
        written_at, ids, _ = self._book.page
        if written_at != self._generation or len(self._names) > len(ids) * 1.25:
            self._book.put(self._generation, self._names, self.texts)
        self.depth, self.task = 0, None

    def roll_back(self, level: int = 0) -> None:
        """Take back the changes since the `begin` that raised the depth above `level`; no-op if none did."""
        self._names, self.texts = {}, {}  # ids that were given in what is taken back may be given again
        self.last_read = None
        if level == 0:
            self._roll_back_all()
        elif self.depth > level:
            self._last_put = self._told = None
            self.begins, self.ahead, self.fed_from, self.erasing, self.signature = self._marks[level - 1]
            try:
                if self.connection.in_transaction:
                    self._broken = False
                    self.rows(f"ROLLBACK TO level_{level}", (), "write")
                    self.rows(f"RELEASE level_{level}", (), "write")
            except StoreError:  # an interrupt came between its release and our note of it: the whole must go
                self._broken = True
            self.depth = level  # last, so that this can be called again if an interrupt kept it from its end

    def tear(self) -> None:
        """Refuse to keep the transaction, or the savepoint, that half a change was made in."""
        self._broken = True

    def _roll_back_all(self) -> None:
        self.depth, self.task, self._broken = 0, None, False
        self.is_still = False
        self._names, self.texts = {}, {}
        self._clock = None
        try:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK").fetchall()
        except apsw.Error:  # this connection is past saving: it is dropped, and the next one rolls back
            self.epoch = -1

    # --- inside a transaction --------------------------------------------------------------------

    def next_commit(self, count: int = 1) -> int:
        """Return a commit number, the last of `count`, greater than all before, to be written with the transaction."""
        self.commit_number += count
        self._clock_moved = True
        self.last_read = None
        return self.commit_number

    def put(self, sql: str, bindings: Sequence[Any]) -> bool:
        """Run the statement that inserts an entry under the number `next_commit` gave last; False if its id is taken.

        Then nothing was done, and that number was not given.
        """
        self._check_whole()
        try:
            self._cursor.execute(sql, bindings)
        except apsw.ConstraintError:
            self.commit_number -= 1
            return False
        except apsw.Error as error:
            raise self.failed(error, "write") from error
        return True

    def wrote(self, row: int, instant: int) -> None:
        """Remember that an entry was written, with the number that `next_commit` gave: see `schema.clock`."""
        self._last_put = (row, instant)
        self._told = (row, instant) if instant == self.moment() else None
        if instant > self.made:
            self.let_lie_ahead(instant - self.made)

    def removed(self, commit: int) -> None:
        """Remember that a revision was written that tells of the change with this number, made at `dated`."""
        self._told = (commit, self.dated())

    def made_at(self, instant: int, date: int) -> None:
        """Remember the instant of a timestamp that the module made, to be written with the transaction."""
        self.made, self.date = instant, date
        self._clock_moved = self._has_moment = True

    def moment(self) -> int:
        """Return the instant of a change that is made now: the last one that the module gave, or the time."""
        if not self._has_moment:
            instant = own_instant(self.made)
            self.made_at(instant, instant)
        return self.made

    def dated(self) -> int:
        """Return the instant that a change made now is dated by: its moment, or the clock's if that is far behind."""
        self.moment()
        return self.date

    def moment_of(self, commit: int, made: int) -> int:
        """Return when a change became visible: with others of its transaction, or when it was made."""
        if self.depth and commit > self.began:
            return self.made
        found = self.rows(_SPAN, (commit,))
        return int(found[0][1]) if found and found[0][0] <= commit else made

    def let_lie_ahead(self, microseconds: int) -> None:
        """Remember that a timestamp lies so far behind its change, if none lies farther."""
        if microseconds > self.ahead:
            self.ahead = microseconds
            self._clock_due = True

    def feed_from(self, number: int) -> None:
        """Let the feed begin behind the change with this number."""
        self.fed_from = number
        self._clock_moved = self._clock_due = True

    def erased(self, left: int) -> None:
        """Remember that something was erased, and what is to be done about it when the transaction has committed."""
        self.erasing |= left
        self._clock_moved = self._clock_due = True

    def release_names(self) -> None:
        """Let names that nothing has any more be removed behind the commit: O(store), some 0.1 µs a row."""
        self.erased(schema.NAMES)

    def forget_clock(self) -> None:
        """Read the clock anew at the next transaction: it was written behind this connection's back."""
        self._clock = None

    def clock_now(self) -> schema.Clock:
        """Return the clock as the transaction would leave it."""
        return schema.Clock(
            self.commit_number,
            self.made,
            self._generation,
            self.begins,
            self.ahead,
            self.fed_from,
            self.erasing,
            *self._origin,
        )

    def clock_seen(self) -> schema.Clock:
        """Return the clock as this thread sees it; of a store without a past, one that knows of none."""
        if self.depth:
            return self.clock_now()
        return schema.clock(self.rows(schema.READ_CLOCK if self.keeps_past() else schema.READ_FIRST_CLOCK)[0])

    def keeps_past(self) -> bool:
        """Tell whether the store has the tables of the past; one of an earlier version that is only read has not."""
        if not self._keeps_past:
            self._keeps_past = bool(self.rows("PRAGMA user_version")[0][0] >= schema.FIRST_WITH_PAST)
        return self._keeps_past

    def begin_past_again(self, instant: int) -> None:
        """Let moments go on from `instant`, also where later ones were given, and let the past be known from there on.

        Not inside a savepoint, which would not take the moments back.
        """
        self.made_at(instant, instant)
        self.rows("DELETE FROM commits", (), "write")
        self.rows("DELETE FROM gaps", (), "write")
        if self.begins is not None:
            self.rows(_KEEP_MOMENT, (self.commit_number, 1, instant), "write")
        self.begin_past(None if self.begins is None else instant)

    def begin_past(self, instant: int | None) -> None:
        """Let the past be known from this instant on; None for not at all, until another begins it."""
        self.begins = instant
        self._clock_moved = self._clock_due = True

    def _keep_moment(self) -> None:
        """Write down when the transaction's changes became visible, unless its only one tells that."""
        if not self.history.max_revisions:
            if self.begins is not None:
                self.begin_past(None)
            return
        is_told = self._told == (self.commit_number, self.made)
        begins_behind_others = self.begins is None and self.began > 0
        if self.commit_number - self.began > 1 or not is_told or begins_behind_others:
            self.rows(_KEEP_MOMENT, (self.commit_number, self.began + 1, self.moment()), "write")
        if self.begins is None:
            self.begin_past(self.made)
            self.fed_from = self.began

    def body(self, encoded: str) -> Body:
        """Return a stored body, decoded; raise `CorruptStoreError` if it is none."""
        try:
            return decode_body(encoded)
        except ValueError:
            raise driver.corrupt(self.path, "an entry cannot be decoded") from None

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """Let the reads of a block see one state of the store, whatever is written meanwhile."""
        if self.depth:
            yield
            return
        try:
            self.is_still = True
            self.rows("BEGIN")
            yield
        finally:
            if self.connection.in_transaction:
                self.rows("COMMIT")
            self.is_still = False

    def intern(self, name: str) -> int:
        """Return the id of `name`, giving it one if it has none."""
        known = self._names.get(name)
        if known is None:
            known = self.fresh_name_id(name)
        if known is None:
            self.rows(_INTERN, (name,), "write")
            known = self._remember(name, self.connection.last_insert_rowid())
        return known

    # --- names -----------------------------------------------------------------------------------

    def name_id(self, name: str) -> int | None:
        """Return the id of `name`, or None if it has none.

        Outside a transaction it may be the id of a name that was erased since, and perhaps given anew. As
        no id is given twice, what is asked for by it is not found; only then ask `fresh_name_id`.
        """
        known = self._names.get(name)
        return self.fresh_name_id(name) if known is None else known

    def fresh_name_id(self, name: str) -> int | None:
        """Return the id that `name` has now, or None."""
        found = self.rows(_NAME_ID, (name,))
        return self._remember(name, found[0][0]) if found else None

    def name_of(self, name_id: int) -> str | None:
        """Return the name with this id, or None if there is none any more."""
        known = self.texts.get(name_id)
        if known is None:
            found = self.rows(_NAME, (name_id,))
            if not found:
                return None
            known = found[0][0]
            if len(self.texts) >= _MANY_NAMES:
                self.texts = {}
            self.texts[name_id] = known
        return known

    def _remember(self, name: str, name_id: int) -> int:
        if len(self._names) >= _MANY_NAMES:
            self._names = {}
        self._names[name] = name_id
        return name_id

    # --- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connection, in the process that opened it; no-op if it is closed."""
        if self.pid != os.getpid():
            return
        holding(self.guard, self._close)

    def _close(self) -> None:
        if self.closed:
            return
        self.closed = True
        try:
            self.connection.close(True)
        except apsw.Error as error:
            raise StoreAccessError(self.path, "the connection could not be closed") from error


def too_new(path: str, version: int) -> StoreTooNewError:
    """Return the error that says that a newer jarvis wrote the store."""
    return StoreTooNewError(
        path,
        f"has store version {version}, this jarvis knows up to {schema.CURRENT_VERSION}: pip install -U jarvis-memory",
    )


def read_only(path: str) -> ReadOnlyStoreError:
    """Return the error that says that a read-only store was asked to change."""
    return ReadOnlyStoreError(path, "is open with read_only=True; open it without to change anything")
