"""One move of a store, from the first row that is copied to the swap; see `move` for the whole."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import apsw

from jarvis._sqlite import schema
from jarvis._sqlite.replace import copy_file, rebuilt, swap, touched_rows
from jarvis._sqlite.replace.copy_file import CopyFile
from jarvis._sqlite.replace.rebuilt import Rebuilder, Rebuilt
from jarvis._sqlite.replace.touched_rows import Budget, Key, Row, Table, quoted
from jarvis.errors import StoreAccessError, StoreBusyError, StoreError
from jarvis.model.rewriting import RewriteProgress, Rewritten

if TYPE_CHECKING:
    from jarvis._sqlite.database import Database
    from jarvis._sqlite.pool import Lease

FEW_NOTES = 500
"""So few notes are left for the last round, for which writers wait; twice as many with each try."""

_FOLDING_PATIENCE_SECONDS = 0.05  # writers wait as long for readers of an older state
_PAUSE_SECONDS = 0.05  # between two tries

_LATER = "SELECT type, name, sql FROM sqlite_schema WHERE type IN ('index', 'view') AND sql IS NOT NULL ORDER BY rowid"
_TABLES = "SELECT name, sql FROM sqlite_schema WHERE type = 'table' ORDER BY rowid"
_TRIGGERS = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND name NOT LIKE 'moved@_%' ESCAPE '@'"
_MADE = """
SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite@_%' ESCAPE '@' AND name != 'moving'
AND name NOT IN (SELECT name FROM pragma_table_list WHERE type = 'shadow')
"""
_STATISTICS = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'sqlite@_stat%' ESCAPE '@'"
_SEQUENCES = "SELECT name, seq FROM sqlite_sequence ORDER BY name"
_PROGRESS = "CREATE TABLE moving (run TEXT, seq INTEGER, number INTEGER, key TEXT, done INTEGER)"
_KEEP_PROGRESS = "INSERT INTO moving VALUES (?, ?, ?, ?, ?)"
_WRITE_PROGRESS = "UPDATE moving SET seq = ?, number = ?, key = ?, done = ?"
_READ_PROGRESS = "SELECT run, seq, number, key, done FROM moving"


class Place(NamedTuple):
    """How far the copy has come: so many rows, up to the one with `key` in the table `number`, and the note `seq`."""

    seq: int
    number: int
    key: Key
    done: int


class UnequalError(Exception):
    """The copy does not equal the store."""


class _Seen(NamedTuple):
    """What was read of the store at one moment.

    Attributes:
        seq: the last note that was looked at.
        notes: how many there were.
        is_all: no note is left.
        changed: for each table the keys that were noted, with the rows, or None where there is none any more.
        chunk: the next rows of the table that is copied or compared.
        is_last: the table has no more.
    """

    seq: int
    notes: int
    is_all: bool
    changed: dict[int, dict[Key, Row | None]]
    chunk: list[Row]
    is_last: bool


class _Shape(NamedTuple):
    """The tables of a store whose rows are copied, those that are made anew, and its indexes and views."""

    copied: list[Table]
    rebuilt: list[Rebuilt]
    later: list[tuple[str, str, str]]


def digest_of(table: str, row: Row) -> int:
    """Return what a row adds to the digest of a store: the sum, modulo 2**128, does not depend on an order."""
    return int.from_bytes(hashlib.blake2b(repr((table, row)).encode(), digest_size=16).digest())


class Mover:
    """One move; see `jarvis._sqlite.replace.move.move` for the arguments. Its verbs are called in their order."""

    def __init__(
        self,
        database: Database,
        make: Callable[[str], apsw.Connection],
        progress: Callable[[RewriteProgress], None],
        patience_seconds: float,
    ) -> None:
        self.database = database
        self.copy = CopyFile(database.path, make)
        self._rebuilder = Rebuilder(self.copy)
        self._progress = progress
        self._patience_seconds = patience_seconds
        self._run = ""
        self._place = Place(0, 0, (), 0)
        self._tables: list[Table] = []
        self._shape = _Shape([], [], [])
        self._total = 0
        self._rounds = 0
        self._resumed = 0
        self._compared: Place | None = None  # up to there the copy equals the store; None before all is copied
        self._rows: dict[str, int] = {}  # of what is compared
        self._digest = 0
        self._locked_seconds = 0.0

    def _report(self, done: RewriteProgress) -> None:
        self._progress(done)
        self.copy.check_process()  # the caller's function may have forked

    # --- beginning -------------------------------------------------------------------------------

    def begin(self) -> None:
        """Let changes be noted, and make the copy; or go on where another run was broken off."""
        run = self.database.read(_run)
        if run is None or not self._go_on(run):
            self.copy.close()
            copy_file.remove(self.database.path)
            try:
                with self.database.changing() as session, self._timing():
                    self._shape = _shape(session)  # first: a store that cannot be moved is refused
                    self.copy.create()
                    for sql in touched_rows.beginning(session.rows):
                        session.run(sql)
            except BaseException:
                with contextlib.suppress(StoreError):
                    copy_file.remove(self.database.path)
                raise
            self._run = self.database.read(self._running)
            self._create(self.database.read(self._layout))
        self._tables = self._shape.copied
        self._total = self.database.read(self._count)

    def _go_on(self, run: str) -> bool:
        if not copy_file.fits(self.copy):
            return False
        with self.copy.used() as copy:
            found, seq, number, key, done = _all(copy, _READ_PROGRESS)[0]
            there = dict(_all(copy, _MADE))
        self._shape = self.database.read(_shape)
        wanted = dict(self.database.read(lambda session: session.rows(_MADE)))
        # Somebody may have dropped or created what is in the copy already, or should be.
        is_there = there.items() <= wanted.items() and all(table.name in there for table in self._shape.copied)
        if found != run or not is_there:
            return False
        self._run, self._place, self._resumed = run, Place(seq, number, tuple(json.loads(key)), done), done
        return True

    def _running(self, session: Lease) -> str:
        run = touched_rows.run(session.rows)
        if run is None or (self._run and run != self._run):
            raise StoreAccessError(
                self.database.path, "the move was given up, or another store put in its place; move it anew"
            )
        return run

    def _layout(self, session: Lease) -> tuple[list[str], dict[str, list[Row]]]:
        with session.standing_still():
            statistics = {name: session.rows(f"SELECT * FROM {name}") for (name,) in session.rows(_STATISTICS)}
            copied = {table.name for table in self._shape.copied}
            return [sql for name, sql in session.rows(_TABLES) if name in copied], statistics

    def _create(self, layout: tuple[list[str], dict[str, list[Row]]]) -> None:
        tables, statistics = layout
        with self.copy.used() as copy:
            with copy:
                for sql in (*tables, "ANALYZE sqlite_schema"):
                    copy.execute(sql).fetchall()
                for name, rows in statistics.items():
                    for row in rows:
                        copy.execute(f"INSERT INTO {name} VALUES ({', '.join('?' * len(row))})", row)
                self._keep_progress(copy)
            copy.execute("PRAGMA journal_mode = WAL").fetchall()

    def _keep_progress(self, copy: apsw.Connection) -> None:
        copy.execute(_PROGRESS)
        place = self._place
        copy.execute(_KEEP_PROGRESS, (self._run, place.seq, place.number, json.dumps(place.key), place.done))

    def _count(self, session: Lease) -> int:
        return sum(int(session.rows(f"SELECT count(*) FROM {quoted(table.name)}")[0][0]) for table in self._tables)

    # --- copying ---------------------------------------------------------------------------------

    def fill(self) -> None:
        """Copy what is not copied yet, then what has changed meanwhile."""
        while self._place.number < len(self._tables):
            self._report(RewriteProgress("copy", self._place.done, max(self._total, self._place.done)))
            place = self._place
            seen = self.database.read(partial(self._look, chunk=place, noted=False))
            self._place = _behind(self._tables, place, seen)
            with self.copy.used() as copy, copy:
                copy.executemany(self._tables[place.number].insert(replacing=True), seen.chunk)
                self._write_progress(copy)
        self._catch_up()

    def make_indexes(self) -> None:
        """Make the indexes and views that the store has, and the tables that are made anew."""
        self._rebuilder.create(self._shape.rebuilt)
        with self.copy.used() as copy:
            there = {name for _, name, _ in _all(copy, _LATER)}
        for number, (_, name, sql) in enumerate(self._shape.later):
            self._report(RewriteProgress("index", number, len(self._shape.later)))
            if name not in there:
                with self.copy.used() as copy:
                    copy.execute(sql).fetchall()
        self._catch_up()
        for done in self._rebuilder.fill(self.database.read):
            self._report(RewriteProgress("index", done, done))

    def _catch_up(self) -> None:
        """Copy again what has changed, until the copy equals a state of the store."""
        done = 0
        while True:
            seen = self.database.read(self._look)
            self._repeat(seen)
            done += seen.notes
            if seen.is_all:
                return
            self._report(RewriteProgress("catch up", done, done + touched_rows.MOST_ROWS))

    def _look(self, session: Lease, chunk: Place | None = None, *, noted: bool = True) -> _Seen:
        """Read, at one moment, what has changed, as much of it as fits, and the next chunk behind a place."""
        with session.standing_still():
            self._running(session)
            changed: dict[int, dict[Key, Row | None]] = {}
            seq, count, is_all, budget = self._place.seq, 0, True, Budget(is_bounded=self._compared is None)
            for note, number, *columns in self._notes(session, seq) if noted else ():
                seq, count = note, count + 1
                table, keys = self._tables[number], changed.setdefault(number, {})
                key = tuple(columns[: len(table.key)])
                if key not in keys:
                    found = session.rows(table.one, key)
                    keys[key] = found[0] if found else None
                    if budget.is_spent(found[0] if found else key):
                        is_all = False
                        break
            rows: list[Row] = []
            is_last = True
            if chunk is not None:
                rows, is_last = touched_rows.chunk(session.each, self._tables[chunk.number], chunk.key)
        return _Seen(seq, count, is_all, changed, rows, is_last)

    def _notes(self, session: Lease, seq: int) -> Iterator[Any]:
        with contextlib.closing(session.each(touched_rows.notes(self._tables), (seq,))) as notes:  # type: ignore[type-var]  # it is a generator
            yield from notes

    def _repeat(self, seen: _Seen) -> None:
        """Copy the rows again that have changed."""
        if not seen.notes:
            return
        self._rounds += 1
        self._place = self._place._replace(seq=seen.seq)
        by_name = {self._tables[number].name: keys for number, keys in seen.changed.items()}
        with self.copy.used() as copy, copy:
            self._rebuilder.take(copy, by_name)
            for number, keys in seen.changed.items():
                table = self._tables[number]
                for key in keys:
                    self._tally(copy, table, key, -1)
                copy.executemany(table.delete, keys)
            # While not all is copied, a row of the copy may be older than the others, and have what is unique
            # of one that is newer; it was noted, too.
            replacing = self._compared is None
            for number, keys in seen.changed.items():
                table = self._tables[number]
                copy.executemany(table.insert(replacing=replacing), [row for row in keys.values() if row is not None])
            for number, keys in seen.changed.items():
                for key, row in keys.items():
                    if self._tally(copy, self._tables[number], key, +1, row) != row:
                        raise UnequalError
            self._rebuilder.put(copy, by_name)
            self._write_progress(copy)

    def _tally(
        self, copy: apsw.Connection, table: Table, key: Key, sign: int, expected: Row | None = None
    ) -> Row | None:
        """Count a row of the copy in or out, if it is of the part that is compared; return it."""
        if self._compared is None or (table.number, key) > (self._compared.number, self._compared.key):
            return expected
        found = _all(copy, table.one, key)
        for row in found:
            self._rows[table.name] += sign
            self._digest += sign * digest_of(table.name, row)
        return found[0] if found else None

    def _write_progress(self, copy: apsw.Connection) -> None:
        place = self._place
        copy.execute(_WRITE_PROGRESS, (place.seq, place.number, json.dumps(place.key), place.done))

    # --- comparing -------------------------------------------------------------------------------

    def compare(self) -> None:
        """Compare every row of the copy with the store's; each chunk as both are at one moment."""
        self._compared = Place(0, 0, (), 0)
        self._rows = dict.fromkeys((table.name for table in self._tables), 0)
        while self._compared.number < len(self._tables):
            place = self._compared
            self._report(RewriteProgress("verify", place.done, max(self._total, place.done)))
            seen = self.database.read(partial(self._look, chunk=place))
            self._repeat(seen)
            table = self._tables[place.number]
            with self.copy.used() as copy:
                rows = copy.execute(table.select(after=bool(place.key)), place.key)
                for row in seen.chunk:
                    if next(rows, None) != row:
                        raise UnequalError
                    self._digest += digest_of(table.name, row)
                if seen.is_last and next(rows, None) is not None:
                    raise UnequalError
                rows.close(True)
            self._rows[table.name] += len(seen.chunk)
            self._compared = _behind(self._tables, place, seen)
        with self.copy.used() as copy:
            if _all(copy, "PRAGMA integrity_check(1)") != [("ok",)]:
                raise UnequalError

    # --- swapping --------------------------------------------------------------------------------

    def swap(self, before_swap: Callable[[str], None], after_swap: Callable[[], None]) -> Rewritten:
        """Copy what has changed last, and put the copy in the store's place, as soon as no reader hinders it."""
        deadline = time.monotonic() + self._patience_seconds
        patience = self.database.busy_timeout_seconds
        # So that little is left for later; what hinders it, such as a full disk, is told then.
        with self.database.alone(patience) as session, self._timing(), self._noting(), contextlib.suppress(apsw.Error):
            session.raw.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        for tries in itertools.count():
            self._catch_up()
            with self.copy.used() as copy:
                copy.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self._report(RewriteProgress("swap", 0, 1))
            with self.database.alone(patience) as session, self._timing():
                if self._is_swapped(session, FEW_NOTES << min(tries, 16), before_swap, after_swap):
                    break
            if time.monotonic() > deadline:
                raise StoreBusyError(
                    self.database.path,
                    "cannot be replaced while somebody reads an older state of it: end that iteration and go on",
                )
            time.sleep(_PAUSE_SECONDS)
        self._report(RewriteProgress("swap", 1, 1))
        digest = f"{self._digest % (1 << 128):032x}"
        return Rewritten(self._run, self._rows, digest, self._rounds, self._resumed, self._locked_seconds)

    def _is_swapped(
        self, session: Lease, few: int, before_swap: Callable[[str], None], after_swap: Callable[[], None]
    ) -> bool:
        with self._noting():
            if not self.database.file.fold_log(session.raw, _FOLDING_PATIENCE_SECONDS):
                return False
        seen = self._look(session)
        if seen.notes > few:
            return False
        if _shape(session) != self._shape:  # somebody has added a table, an index or a view meanwhile
            raise UnequalError
        self._repeat(seen)
        self._rebuilder.finish(lambda work: work(session))
        application, version = schema.read_mark(session.raw)
        sequences, triggers = session.rows(_SEQUENCES), [sql for _, sql in session.rows(_TRIGGERS)]
        commit = schema.last_commit(session.raw)
        session.drop()  # the connection is one to the old file
        try:
            self._finish(application, version, sequences, triggers)
            before_swap(self.copy.path)
            swap.swap(self.database.path, self.copy.path, self.database.lock, commit, after_swap)
        except BaseException:
            with contextlib.suppress(StoreError):
                self._unfinish()
            raise
        return True

    def _finish(self, application: int, version: int, sequences: list[Row], triggers: list[str]) -> None:
        """Make a store of the copy."""
        with self.copy.used() as copy, copy:
            for name, number in sequences:  # no id is given twice, also not the last ones that are gone
                copy.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = ?", (number, name))
                if not copy.changes():
                    copy.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, number))
            for sql in triggers:  # last: what they do was done in the store
                copy.execute(sql)
            copy.execute("DROP TABLE moving")
            copy.execute(f"PRAGMA application_id = {application}")
            copy.execute(f"PRAGMA user_version = {version}")
        self.copy.finish()

    def _unfinish(self) -> None:
        """Make a copy of it again that can be gone on with, if it has not taken the store's place."""
        if os.path.exists(self.copy.path):
            with self.copy.used() as copy:
                copy.execute("PRAGMA journal_mode = WAL").fetchall()
                with copy:
                    for name, _ in _all(copy, _TRIGGERS):
                        copy.execute(f"DROP TRIGGER {quoted(name)}")
                    copy.execute("PRAGMA application_id = 0")
                    copy.execute("PRAGMA user_version = 0")
                    self._keep_progress(copy)

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        """Leave word of what the file is like behind a checkpoint."""
        before = self.database.file.status()
        try:
            yield
        finally:
            self.database.file.leave_word(before, self.database.file.status(), None)

    @contextlib.contextmanager
    def _timing(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._locked_seconds = max(self._locked_seconds, time.perf_counter() - began)


def _behind(tables: list[Table], place: Place, seen: _Seen) -> Place:
    """Return the place behind the chunk that was seen at another."""
    done = place.done + len(seen.chunk)
    if seen.is_last:
        return place._replace(number=place.number + 1, key=(), done=done)
    return place._replace(key=tables[place.number].key_of(seen.chunk[-1]), done=done)


def _all(connection: apsw.Connection, sql: str, bindings: Key = ()) -> list[Any]:
    return connection.execute(sql, bindings).fetchall()


def _shape(session: Lease) -> _Shape:
    return _Shape(touched_rows.tables(session.rows), rebuilt.found(session), session.rows(_LATER))


def _run(session: Lease) -> str | None:
    return touched_rows.run(session.rows)
