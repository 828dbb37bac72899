"""Is the file what we left? A cheap answer at every opening, a whole check when that answer is no.

Page checksums notice a flipped bit at the read that meets it. They cannot notice a page that stands
in another's place, so a file that somebody else changed, or copied here, is checked whole once.
"""

from __future__ import annotations

import binascii
import os
import struct

import apsw

from jarvis._sqlite import driver

_ALL_ROWS = "SELECT id, key, body, checksum FROM entries"
_WAL_HEADER = struct.Struct(">8I")  # https://sqlite.org/fileformat2.html#the_write_ahead_log
_WAL_FRAME = struct.Struct(">6I")
_WAL_MAGIC = 0x377F0682


def row_checksum(entry_id: str, key: str, body: bytes | str) -> int:
    """Return the CRC-32 that `entries.checksum` holds: body, bound to the id and key it belongs to."""
    text = body.encode() if isinstance(body, str) else body
    return binascii.crc32(text, binascii.crc32(f"{entry_id}\0{key}".encode()))


def verify(connection: apsw.Connection, path: str) -> None:
    """Read the whole store and compare everything that can be compared; O(store), 7 µs an entry.

    Raises:
        CorruptStoreError: something does not fit.
        apsw.Error: a page could not be read.
    """
    if connection.reserve_bytes() != driver.RESERVED_BYTES:
        raise driver.corrupt(path, "its pages carry no checksums")
    finding = connection.execute("PRAGMA integrity_check(1)").fetchall()[0][0]
    if finding != "ok":
        raise driver.corrupt(path, "its tables and indexes contradict each other")
    for entry_id, key, body, checksum in connection.execute(_ALL_ROWS):
        if row_checksum(entry_id, key, body) != checksum:
            raise driver.corrupt(path, "an entry does not match its checksum")


def lost_commits(path: str, valid_frames: int) -> int:
    """Return how many commits stand in the write-ahead log behind a point where it breaks.

    SQLite ends its recovery at the first frame that fails its checksum and drops the rest in silence:
    right for the one torn write of a power cut, wrong for a damaged log. Frames of the current log
    share its salts, so commit marks behind the break show what was dropped.

    Args:
        path: the store (the log is beside it, with ``-wal`` at its end).
        valid_frames: how many frames SQLite accepts.
    """
    try:
        descriptor = os.open(f"{path}-wal", os.O_RDONLY)
    except OSError:
        return 0
    try:
        header = os.read(descriptor, _WAL_HEADER.size)
        if len(header) < _WAL_HEADER.size:
            return 0
        magic, _, page_size, _, *salts, _, _ = _WAL_HEADER.unpack(header)
        if magic & ~1 != _WAL_MAGIC or page_size < 512 or page_size & (page_size - 1):
            return 2 if os.fstat(descriptor).st_size > _WAL_HEADER.size + _WAL_FRAME.size else 0
        step = _WAL_FRAME.size + page_size
        offset, commits = _WAL_HEADER.size + valid_frames * step, 0
        while len(frame := os.pread(descriptor, _WAL_FRAME.size, offset)) == _WAL_FRAME.size:
            _, size_after_commit, *frame_salts, _, _ = _WAL_FRAME.unpack(frame)
            if frame_salts == salts and size_after_commit:
                commits += 1
            offset += step
        return commits
    finally:
        os.close(descriptor)
