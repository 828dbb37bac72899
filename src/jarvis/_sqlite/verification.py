"""Verifies a store: the log and the number of pages, and all content.

Page checksums reveal a flipped bit when its page is read. They do not reveal a page in the place of another one, so a
file that another program changed, or copied here, is verified as a whole once.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import struct
from typing import TYPE_CHECKING, Any

import apsw

from jarvis._disk import files
from jarvis._sql import registry, tables, verifying, word_check
from jarvis._sqlite import cipher, creation, engine, schema, word_tables
from jarvis.errors import CorruptStoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jarvis._sql.session import Session


_FIRST_CLOCK = "checksum, commit_number, made, names_generation"
_SECOND_CLOCK = f"{_FIRST_CLOCK}, begins, ahead, fed_from"
_THIRD_CLOCK = f"{_SECOND_CLOCK}, erasing"
_CLOCK = f"{_THIRD_CLOCK}, generation, copied"
_TRIGGERS = "SELECT name FROM sqlite_schema WHERE type = 'trigger' ORDER BY name"
_MOST = 100
_WAL_HEADER = struct.Struct(">8I")  # https://sqlite.org/fileformat2.html#the_write_ahead_log
_WAL_FRAME = struct.Struct(">6I")
_WAL_MAGIC = 0x377F0682


def verify(connection: apsw.Connection, path: str, *, encrypted: bool) -> None:
    """Read the whole store and verify all of it; see `findings`.

    Raises:
        CorruptStoreError: the store is damaged.
        apsw.Error: a page could not be read.
    """
    for finding in findings(connection, encrypted=encrypted, looked_at=lambda: None, most=1):
        raise engine.corrupt(path, finding)


def check_structure(connection: apsw.Connection, path: str, *, encrypted: bool) -> None:
    """Read all pages, and compare structure and indexes with the rows; raise as `verify` does."""
    for finding in _structure(connection, _reserved(encrypted=encrypted), 1):
        raise engine.corrupt(path, finding)


def findings(
    connection: apsw.Connection, *, encrypted: bool, looked_at: Callable[[], object], most: int
) -> Iterator[str]:
    """Compare structure and indexes with the rows, each row with its checksum, and the side tables with the bodies.

    O(store), about 10 µs an entry.

    Args:
        connection: of a store of any version, at one moment.
        looked_at: is called for each state.
        most: how many contradictions of tables and indexes are told, at most.

    Raises:
        apsw.Error: a page could not be read.
    """
    try:
        yield from _structure(connection, _reserved(encrypted=encrypted), most)
        yield from _content(connection, looked_at)
    except UnicodeDecodeError:  # it carries stored text
        yield "a text is no text"


def all_findings(session: Session, looked_at: Callable[[], object]) -> Iterator[str]:
    """Yield what `findings` yields, and what else other programs may have done, as long as pages can be read."""
    driver: Any = session.driver
    connection: apsw.Connection = driver.raw
    try:
        with session.standing_still():  # whose end fails on an encrypted store, too
            is_sealed = connection.reserve_bytes() == cipher.RESERVED_BYTES
            yield from findings(connection, encrypted=is_sealed, looked_at=looked_at, most=_MOST)
            if schema.read_mark(connection)[1] >= tables.FIRST_WITH_PAST:
                yield from verifying.chains(session, session.clock_seen().begins)
            if schema.read_mark(connection)[1] >= tables.FIRST_WITH_WORDS:
                yield from word_tables.findings(connection) or word_check.findings(session)
            for (name,) in connection.execute(_TRIGGERS):
                yield f"it has the trigger {name!r} of another program"
    except (apsw.CorruptError, apsw.IOError, CorruptStoreError):
        yield "a page fails its checksum or its structure is broken"


def _reserved(*, encrypted: bool) -> int:
    return cipher.RESERVED_BYTES if encrypted else engine.RESERVED_BYTES


def _structure(connection: apsw.Connection, reserved: int, most: int) -> Iterator[str]:
    if connection.reserve_bytes() != reserved:
        yield "its pages carry no checksums"
    for (finding,) in connection.execute(f"PRAGMA integrity_check({most + 1})").fetchall():
        if finding != "ok" and not word_tables.is_of_index(str(finding)):  # which is derived: see `all_findings`
            yield "its tables and indexes contradict each other"


def _content(connection: apsw.Connection, looked_at: Callable[[], object]) -> Iterator[str]:
    version = schema.read_mark(connection)[1]
    has_past, has_expiry = version >= tables.FIRST_WITH_PAST, version >= schema.FIRST_WITH_EXPIRY
    since = (("expires", schema.FIRST_WITH_EXPIRY), ("packed", schema.FIRST_WITH_PACKED))
    columns = ", ".join(column if version >= first else "NULL" for column, first in since)
    if version < schema.FIRST_WITH_CREATION:
        creation.tell(connection)
    columns = f"{columns}, {'created' if version >= schema.FIRST_WITH_CREATION else creation.COMPUTED}"
    sides = [side for side in registry.SIDE_TABLES if side.tables[0].since <= version]

    def each(sql: str, values: Sequence[Any] = ()) -> Any:
        return connection.execute(engine.DIALECT.say(sql), values)

    states = verifying.States(each, each, sides)
    for table in ("entries", "revisions") if has_past else ("entries",):
        yield from states.findings(table, columns, looked_at)
    if has_past:
        yield from verifying.past(each, schema.last_commit(connection))
    earlier = _THIRD_CLOCK if has_expiry else _SECOND_CLOCK if has_past else _FIRST_CLOCK
    clock_columns = _CLOCK if version >= schema.FIRST_WITH_GENERATION else earlier
    clocks: list[Any] = connection.execute(f"SELECT {clock_columns} FROM clock").fetchall()
    for checksum, *clock in clocks:
        if tables.clock_checksum(tuple(clock)) != checksum:
            yield verifying.BAD_CLOCK


def seal(connection: apsw.Connection) -> None:
    """Give every page its checksum again, after another program wrote pages without checksums: O(store).

    Such a program need not have changed content: SQLite's backup rewrites the first page, and the last program that
    closes a store folds its log in, whose pages get their checksums only then. The caller has verified all content,
    and holds the writers' lock.

    Raises:
        apsw.Error: a step failed; the content is as it was.
    """
    connection.execute("VACUUM")
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


def lost_commits(path: str, valid_frames: int) -> int:
    """Return how many commits the write-ahead log has after the point where it breaks.

    SQLite ends its recovery at the first frame that fails its checksum and silently drops the rest: right for the one
    torn write of a power cut, wrong for a damaged log. Frames of the current log share its salts, so commit marks
    after the break show which commits were dropped.

    Args:
        path: the store (the log is beside it, with ``-wal`` at its end).
        valid_frames: how many frames SQLite accepts.
    """
    with _log(path) as log:
        if log is None:
            return 0
        if not log.is_valid:  # SQLite ignores the whole log, and a header is never torn: it fits in a sector
            return 2 if log.size > _WAL_HEADER.size + _WAL_FRAME.size else 0
        frames = itertools.takewhile(bool, map(log.frame_header, itertools.count(max(valid_frames, 0))))
        return sum(header[1] != 0 and header[2:4] == log.salts for header in frames if header)


def check_pages(connection: apsw.Connection, path: str, valid_frames: int) -> None:
    """Check that file and log together have all pages of the store: those of two different states do not.

    A commit in the log says how many pages the store has. The file may lack pages that are in the log; if a page is in
    neither, the file is older than a checkpoint after which the log begins.

    Args:
        path: the path of the store (the log is beside it).
        valid_frames: how many frames of the log SQLite accepts, 0 if there is no log.

    Raises:
        CorruptStoreError: a page is missing, or bytes follow the last page.
    """
    size, page_size = os.stat(path).st_size, int(connection.pragma("page_size"))
    with _log(path) as log:
        frames = [] if log is None else [log.frame_header(number) for number in range(valid_frames)]
    if not all(frames):
        raise engine.corrupt(path, "its write-ahead log was cut short while it was read")
    if frames:
        logged = {frame[0] for frame in frames}
        if any(page not in logged for page in range(size // page_size + 1, frames[-1][1] + 1)):
            raise engine.corrupt(path, "the file and its write-ahead log are of two different states")
    elif size != int(connection.pragma("page_count")) * page_size:
        raise engine.corrupt(path, "its size is not that of its pages: bytes are missing, or follow the last one")


def frames(path: str) -> Iterator[bytes]:
    """Yield the frames of the write-ahead log that SQLite accepts, each with its header."""
    valid = count_valid_frames(path)
    with _log(path) as log:
        if log is not None:
            yield from map(log.frame, range(valid))


def count_valid_frames(path: str) -> int:
    """Return how many frames of the write-ahead log SQLite accepts, without writing to a file.

    ``wal_checkpoint`` returns the same number to a connection that may write. This takes 0.1 ms a frame
    (https://sqlite.org/fileformat2.html#checksum_algorithm).
    """
    with _log(path) as log:
        if log is None or not log.is_valid:
            return 0
        valid, sums = 0, log.sums
        for number in itertools.count():
            header, frame = log.frame_header(number), log.frame(number)
            if not header or header[2:4] != log.salts or len(frame) < _WAL_FRAME.size + log.page_size:
                return valid
            sums = _checksum(frame[:8] + frame[_WAL_FRAME.size :], sums, log.byte_order)
            if sums != header[4:6]:
                return valid
            if header[1]:
                valid = number + 1
    return 0


class _Log:
    """The header and frames of a write-ahead log."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        self.header = os.pread(descriptor, _WAL_HEADER.size, 0)
        fields = _WAL_HEADER.unpack(self.header.ljust(_WAL_HEADER.size, b"\0"))
        self.magic, self.page_size, self.salts, self.sums = fields[0], fields[2], fields[4:6], fields[6:8]

        self.byte_order = ">" if self.magic & 1 else "<"

    @property
    def is_valid(self) -> bool:
        """True if SQLite accepts the header."""
        is_size = 512 <= self.page_size <= 65536 and int(self.page_size).bit_count() == 1
        sums = _checksum(self.header[:24].ljust(24, b"\0"), (0, 0), self.byte_order)
        return bool(self.magic & ~1 == _WAL_MAGIC and is_size and sums == self.sums)

    def frame(self, number: int) -> bytes:
        """Return a frame with its header; fewer bytes at the end of the file."""
        step = _WAL_FRAME.size + self.page_size
        return os.pread(self._descriptor, step, _WAL_HEADER.size + number * step)

    def frame_header(self, number: int) -> tuple[int, ...]:
        """Return (page, size after a commit or 0, salt, salt, sum, sum) of a frame; () after the last one."""
        offset = _WAL_HEADER.size + number * (_WAL_FRAME.size + self.page_size)
        header = os.pread(self._descriptor, _WAL_FRAME.size, offset)
        return _WAL_FRAME.unpack(header) if len(header) == _WAL_FRAME.size else ()


@contextlib.contextmanager
def _log(path: str) -> Iterator[_Log | None]:
    try:
        descriptor = files.open_regular(f"{path}-wal", os.O_RDONLY, os.open)
    except FileNotFoundError:
        yield None
        return
    try:
        yield _Log(descriptor)
    finally:
        os.close(descriptor)


def _checksum(data: bytes, sums: tuple[int, ...], order: str) -> tuple[int, ...]:
    one, two = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return one, two
