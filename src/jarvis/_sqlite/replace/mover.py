"""`Mover`: one move of a store, from the first copied row to the swap; see `move` for the whole."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import apsw

from jarvis._sql.tables import digest_of_row
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
"""At most this many notes are left for the last round, during which writers wait; each try doubles it."""

PATIENCE_SECONDS = 30.0
"""How long it tries to swap while a reader uses an older state of the store."""

_FOLDING_PATIENCE_SECONDS = 0.05  # to wait for readers of an older state, while writers wait
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
    """The progress of a copy: `done` rows, up to the one with `key` in table `number`, and up to the note `seq`."""

    seq: int
    number: int
    key: Key
    done: int


class UnequalError(Exception):
    """The copy does not equal the store."""


class _Seen(NamedTuple):
    """The part of the store that was read at one moment.

    Attributes:
        seq: the last note that was read.
        notes: how many notes were read.
        is_all: no note is left.
        changed: for each table the noted keys, each with its row, or None if that was deleted.
        chunk: the next rows of the table that is copied or compared.
        is_last: the table has no more rows.
    """

    seq: int
    notes: int
    is_all: bool
    changed: dict[int, dict[Key, Row | None]]
    chunk: list[Row]
    is_last: bool


class _Shape(NamedTuple):
    """The tables of a store that are copied, those that are rebuilt, and its indexes and views."""

    copied: list[Table]
    rebuilt: list[Rebuilt]
    later: list[tuple[str, str, str]]


class Mover:
    """One move; see `jarvis._sqlite.replace.move.move` for the arguments. Call the verbs in their order here."""

    def __init__(
        self,
        database: Database,
        make: Callable[[str], apsw.Connection],
        progress: Callable[[RewriteProgress], None],
    ) -> None:
        self.database = database
        self.copy = CopyFile(database.path, make)
        self._rebuilder = Rebuilder(self.copy)
        self._progress = progress
        self._run = ""
        self._place = Place(0, 0, (), 0)
        self._tables: list[Table] = []
        self._shape = _Shape([], [], [])
        self._total = 0
        self._rounds = 0
        self._resumed = 0
        self._compared: Place | None = None  # up to here the copy equals the store; None before all is copied
        self._rows: dict[str, int] = {}  # compared rows of each table
        self._digest = 0
        self._locked_seconds = 0.0

    def _report(self, done: RewriteProgress) -> None:
        self._progress(done)
        self.copy.check_process()  # the caller's function may have forked

    # --- beginning -------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin to note changes, and create the copy; or resume an interrupted run."""
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
            copy_run, seq, number, key, done = _all(copy, _READ_PROGRESS)[0]
            existing = dict(_all(copy, _MADE))
        self._shape = self.database.read(_shape)
        wanted = dict(self.database.read(lambda session: session.rows(_MADE)))
        # Somebody may have dropped or created a table or an index since the copy was begun.
        is_there = existing.items() <= wanted.items() and all(table.name in existing for table in self._shape.copied)
        if copy_run != run or not is_there:
            return False
        self._run, self._place, self._resumed = run, Place(seq, number, tuple(json.loads(key)), done), done
        return True

    def _running(self, session: Lease) -> str:
        run = touched_rows.run(session.rows)
        if run is None or (self._run and run != self._run):
            raise StoreAccessError(
                self.database.path, "the move was given up, or another store put in its place; move it again"
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
        """Copy the rows that are not copied yet, then those that have changed meanwhile."""
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
        """Create the indexes and views of the store, and rebuild tables."""
        self._rebuilder.create(self._shape.rebuilt)
        with self.copy.used() as copy:
            existing = {name for _, name, _ in _all(copy, _LATER)}
        for number, (_, name, sql) in enumerate(self._shape.later):
            self._report(RewriteProgress("index", number, len(self._shape.later)))
            if name not in existing:
                with self.copy.used() as copy:
                    copy.execute(sql).fetchall()
        self._catch_up()
        for done in self._rebuilder.fill(self.database.read):
            self._report(RewriteProgress("index", done, done))

    def _catch_up(self) -> None:
        """Copy changed rows again, until the copy equals a state of the store."""
        done = 0
        while True:
            seen = self.database.read(self._look)
            self._repeat(seen)
            done += seen.notes
            if seen.is_all:
                return
            self._report(RewriteProgress("catch up", done, done + touched_rows.MOST_ROWS))

    def _look(self, session: Lease, chunk: Place | None = None, *, noted: bool = True) -> _Seen:
        """Read, at one moment, a bounded number of changed rows, and the next chunk after the place `chunk`."""
        with session.standing_still():
            self._running(session)
            changed: dict[int, dict[Key, Row | None]] = {}
            seq, count, is_all, budget = self._place.seq, 0, True, Budget(is_bounded=self._compared is None)
            for note, number, *columns in self._notes(session, seq) if noted else ():
                seq, count = note, count + 1
                table, keys = self._tables[number], changed.setdefault(number, {})
                key = tuple(columns[: len(table.key)])
                if key not in keys:
                    rows_of_key = session.rows(table.one, key)
                    keys[key] = rows_of_key[0] if rows_of_key else None
                    if budget.is_spent(rows_of_key[0] if rows_of_key else key):
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
        """Copy the changed rows again."""
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
            # Until all is copied, an outdated row of the copy may have a unique value of a newer row. It is replaced:
            # the outdated row was noted too, and is copied again.
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
        """Add a row of the copy to the digest, or subtract it, if it lies in the compared part; return the row."""
        if self._compared is None or (table.number, key) > (self._compared.number, self._compared.key):
            return expected
        rows = _all(copy, table.one, key)
        for row in rows:
            self._rows[table.name] += sign
            self._digest += sign * digest_of_row(table.name, row)
        return rows[0] if rows else None

    def _write_progress(self, copy: apsw.Connection) -> None:
        place = self._place
        copy.execute(_WRITE_PROGRESS, (place.seq, place.number, json.dumps(place.key), place.done))

    # --- comparing -------------------------------------------------------------------------------

    def compare(self) -> None:
        """Compare every row of the copy with the store's; each chunk at one moment of both."""
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
                    self._digest += digest_of_row(table.name, row)
                if seen.is_last and next(rows, None) is not None:
                    raise UnequalError
                rows.close(True)
            self._rows[table.name] += len(seen.chunk)
            self._compared = _behind(self._tables, place, seen)
        with self.copy.used() as copy:
            if _all(copy, "PRAGMA integrity_check(1)") != [("ok",)]:
                raise UnequalError

    # --- swapping --------------------------------------------------------------------------------

    def swap(self, before_swap: Callable[[str], None]) -> Rewritten:
        """Copy the last changes, and put the copy in the store's place as soon as no reader prevents it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        patience = self.database.busy_timeout_seconds
        # This leaves little for later. A failure, such as a full disk, is raised then.
        with self.database.alone(patience) as session, self._timing(), self._noting(), contextlib.suppress(apsw.Error):
            session.raw.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        for tries in itertools.count():
            self._catch_up()
            with self.copy.used() as copy:
                copy.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self._report(RewriteProgress("swap", 0, 1))
            with self.database.alone(patience) as session, self._timing():
                if self._is_swapped(session, FEW_NOTES << min(tries, 16), before_swap):
                    break
            if time.monotonic() > deadline:
                raise StoreBusyError(
                    self.database.path,
                    "cannot be replaced while somebody reads an older state of it: end that iteration and call again",
                )
            time.sleep(_PAUSE_SECONDS)
        self._report(RewriteProgress("swap", 1, 1))
        digest = f"{self._digest % (1 << 128):032x}"
        return Rewritten(self._run, self._rows, digest, self._rounds, self._resumed, self._locked_seconds)

    def _is_swapped(self, session: Lease, few: int, before_swap: Callable[[str], None]) -> bool:
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
        session.drop()  # it is a connection to the old file
        try:
            self._finish(application, version, sequences, triggers)
            before_swap(self.copy.path)
            swap.swap(self.database.path, self.copy.path, self.database.lock, commit)
        except BaseException:
            with contextlib.suppress(StoreError):
                self._unfinish()
            raise
        return True

    def _finish(self, application: int, version: int, sequences: list[Row], triggers: list[str]) -> None:
        """Turn the copy into a store."""
        with self.copy.used() as copy, copy:
            for name, number in sequences:  # no id is given twice, not even that of a deleted last row
                copy.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = ?", (number, name))
                if not copy.changes():
                    copy.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, number))
            for sql in triggers:  # last: the store's rows already have the effects of its triggers
                copy.execute(sql)
            copy.execute("DROP TABLE moving")
            copy.execute(f"PRAGMA application_id = {application}")
            copy.execute(f"PRAGMA user_version = {version}")
        self.copy.finish()

    def _unfinish(self) -> None:
        """Turn it back into a copy that a later run can resume, unless it has taken the store's place."""
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
        """Note the state of the file after a checkpoint."""
        before = self.database.file.status()
        try:
            yield
        finally:
            self.database.file.leave_note(before, self.database.file.status(), None)

    @contextlib.contextmanager
    def _timing(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._locked_seconds = max(self._locked_seconds, time.perf_counter() - began)


def _behind(tables: list[Table], place: Place, seen: _Seen) -> Place:
    """Return the place after the chunk that was read at `place`."""
    done = place.done + len(seen.chunk)
    if seen.is_last:
        return place._replace(number=place.number + 1, key=(), done=done)
    return place._replace(key=tables[place.number].key_of(seen.chunk[-1]), done=done)


def _all(connection: apsw.Connection, sql: str, bindings: Key = ()) -> list[Any]:
    return connection.execute(sql, bindings).fetchall()


def _shape(session: Lease) -> _Shape:
    return _Shape(touched_rows.tables(session.rows), rebuilt.needed(session), session.rows(_LATER))


def _run(session: Lease) -> str | None:
    return touched_rows.run(session.rows)
