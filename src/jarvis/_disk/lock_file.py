"""The file of a writers' lock, and what its holders say in it.

Three things stand there, each at its own place: a `Note` of what the store was like when its last writer left it; a
`Swap`, that another file takes the store's place; and a mark, that a commit is in flight. None of them is synced: only
processes that live on need the last two, and a power cut may leave an older note, never one that runs ahead of what was
synced before.

Holders write to memory that the file is mapped to. A write to the file itself made the sync of the next commit wait for
that too, 80 µs of 430. But whoever cuts the file short takes the memory away, and a touch of it would then kill the
process (SIGBUS). So the kernel copies the bytes there, from a file that only this process knows: where it cannot, that
is an error like any other.
"""

from __future__ import annotations

import binascii
import contextlib
import errno
import mmap
import os
import re
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from jarvis._calls.caller import let_go
from jarvis._disk import files
from jarvis._disk.files import Stamp, explaining
from jarvis.errors import StoreAccessError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Note(NamedTuple):
    """What the last writer left word of: the store's stamp, and the last commit that was synced before."""

    stamp: Stamp
    commit: int


class Swap(NamedTuple):
    """That a holder puts another file in the place of the guarded one, or has done so.

    Attributes:
        token: another one each time, so that two looks that find the same one had no swap between them.
        inode: of the file that takes the place.
        is_over: it is done, or was taken back; until then nobody opens the guarded file.
    """

    token: int
    inode: int
    is_over: bool


_NOTE_BYTES = 128
_SWAP_BYTES = 128  # behind the note; its first byte says whether it is over
_MARK_BYTES = 9  # behind the swap; the last byte says whether the commit is over
_MARK_AT = _NOTE_BYTES + _SWAP_BYTES
_ALL_BYTES = _MARK_AT + _MARK_BYTES
_IN_FLIGHT, _OVER = b"0", b"1"
_TORN = Swap(0, 0, False)
_OURS = re.compile(rb"[0-9 \n\0]*")
_HAS_PREADV = hasattr(os, "preadv")
_LOOK_SECONDS = 0.5  # after so long a reader looks whether the file was removed, and another one made


_Places = dict[str, tuple[memoryview, ...]]  # by what is written there


class LockFile:
    """What stands in the file at a path, which is made when it is first opened for writing.

    Holders of the lock write, one at a time; anybody reads. Who may use the guarded file may use this one.
    """

    _places: _Places | None = None  # in the memory that the file is mapped to
    _source: tuple[int, mmap.mmap] | None = None  # what the kernel copies from: a descriptor, and its memory
    _readers: tuple[int, ...] = ()  # descriptors, of which the last one is in use: a thread may still read another

    def __init__(self, path: str, guarded: str) -> None:
        self.path = path
        self._guarded = guarded
        self._page_identity = (0, 0)
        self._looking = threading.RLock()
        self._looked = 0.0

    def open(self) -> int:
        """Return a new descriptor of the file, for writing."""
        with explaining(self.path, "open the writer lock"):
            return files.open_or_create(self.path, self._guarded)

    def make_ready(self, identity: tuple[int, int]) -> None:
        """Map the file that a holder has just opened, before it has anything to say; what hinders it is told then."""
        with contextlib.suppress(OSError):
            self._map(identity)

    def forget(self) -> None:
        """Let go of everything that is open."""
        self._places = None
        open_ones = [*self._readers, *((self._source or ())[:1])]
        self._source, self._readers = None, ()
        for descriptor in open_ones:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def __del__(self) -> None:
        self.forget()

    # --- the note --------------------------------------------------------------------------------

    def read_note(self) -> Note | None:
        """Return the note that a holder left last, or None."""
        for _ in range(3):  # a holder may be writing it
            try:
                fields = [int(field) for field in self._read(0, _NOTE_BYTES).split()]
            except OSError:
                return None
            except ValueError:
                continue
            if len(fields) == 4 or (len(fields) == 5 and fields[4] == _checksum(fields[:4])):
                return Note(Stamp(*fields[:3]), fields[3])  # four were written by an earlier version
        return None

    def write_note(self, note: Note, identity: tuple[int, int], size: int, *, is_end: bool) -> None:
        """Leave a note in the file that the holder has open, whose (device, inode) and size are given.

        With `is_end` it says as well that the commit in flight is over: one write takes less than two.
        """
        fields = (*note.stamp, note.commit)
        checksum = binascii.crc32(repr(fields).encode())  # as `_checksum`, without its call
        text = (b"%d %d %d %d %d" % (*fields, checksum)).ljust(_NOTE_BYTES - 1) + b"\n"
        if is_end:
            self._write("note_and_end", text + _OVER, identity, size)
        else:
            self._write("note", text, identity, size)

    # --- a swap ----------------------------------------------------------------------------------

    def read_swap(self) -> Swap | None:
        """Return what is known of the last swap of the guarded file, None if there was none."""
        try:
            fields = [int(field) for field in self._read(_NOTE_BYTES, _SWAP_BYTES).split()]
        except ValueError:
            return _TORN
        except OSError:
            return None
        if not fields:
            return None
        if len(fields) != 4 or fields[3] != _checksum(fields[:3]):
            return _TORN  # a holder is writing it, or was killed at that
        return Swap(fields[1], fields[2], bool(fields[0]))

    def is_swap_open(self, held: int) -> bool:
        """Tell the holder, whose descriptor is given, whether a swap was begun that is not over."""
        if _read_at(held, 1, _NOTE_BYTES) in (b"1", b" ", b""):
            return False
        swap = self.read_swap()
        return swap is not None and not swap.is_over

    def write_swap(self, inode: int, *, is_over: bool) -> None:
        """Say that a swap begins or is over; see `jarvis._sqlite.replace.swap`."""
        fields = (int(is_over), int.from_bytes(os.urandom(7)), inode)
        text = b"%d %d %d %d" % (*fields, _checksum(fields))
        with explaining(self.path, "write"):
            descriptor = files.open_regular(self.path, os.O_RDWR)
            try:
                self._check_ours(descriptor)
                _extend(descriptor, _NOTE_BYTES)
                os.lseek(descriptor, _NOTE_BYTES, os.SEEK_SET)
                files.system.write(descriptor, text.ljust(_SWAP_BYTES - 1) + b"\n")
            finally:
                os.close(descriptor)

    # --- a commit in flight ----------------------------------------------------------------------

    def mark_begin(self, identity: tuple[int, int], size: int) -> None:
        """Say that a commit is in flight; the time makes its name."""
        self._write("mark", time.time_ns().to_bytes(_MARK_BYTES - 1) + _IN_FLIGHT, identity, size)

    def mark_end(self, identity: tuple[int, int], size: int) -> None:
        """Say that the commit in flight is over."""
        self._write("end", _OVER, identity, size)

    def commit_in_flight(self) -> bytes | None:
        """Return the name of the commit that is in flight, None if there is none. About 1 µs.

        One that is just being said may be read torn: it is dated after that, so nobody has to wait for it.
        """
        while True:
            now = time.monotonic()
            if (not self._readers or now - self._looked > _LOOK_SECONDS) and self._looking.acquire(blocking=False):
                try:
                    self._look(now)
                finally:
                    let_go(self._looking)
            readers = self._readers
            if not readers:
                return None
            try:
                found: bytes = _read_at(readers[-1], _MARK_BYTES, _MARK_AT)
            except OSError as error:
                if error.errno != errno.EBADF:
                    raise
                continue  # another thread has just shut down: look again
            return found if found[-1:] == _IN_FLIGHT else None

    def _look(self, now: float) -> None:
        """Have the file open that has the path now, if any."""
        self._looked = now
        readers = self._readers
        with contextlib.suppress(OSError):
            if not readers or not os.fstat(readers[-1]).st_nlink:
                self._readers = (*self._readers, files.open_regular(self.path, os.O_RDONLY, os.open))

    # --- bytes -----------------------------------------------------------------------------------

    def _read(self, start: int, size: int) -> bytes:
        descriptor = files.open_regular(self.path, os.O_RDONLY, os.open)
        try:
            found: bytes = _read_at(descriptor, size, start)
            return found
        finally:
            os.close(descriptor)

    def _write(self, name: str, data: bytes, identity: tuple[int, int], size: int) -> None:
        """Write `data` to the places of this name, one behind the other."""
        try:
            if self._places is not None and self._page_identity == identity and size >= _ALL_BYTES:
                if self._source is None or not _HAS_PREADV:
                    self._put(self._places[name], data)
                    return
                descriptor, memory = self._source
                memory[: len(data)] = data
                os.preadv(descriptor, self._places[name], 0)
                return
        except OSError:  # somebody has cut the file short just now
            pass
        with explaining(self.path, "write"):
            self._put(self._map(identity)[name], data)

    def _put(self, places: tuple[memoryview, ...], data: bytes) -> None:
        if not _HAS_PREADV:  # Windows, where nobody can cut short what is mapped
            for place in places:
                place[:], data = data[: len(place)], data[len(place) :]
            return
        if self._source is None:
            self._source = _source()
        descriptor, memory = self._source
        memory[: len(data)] = data
        os.preadv(descriptor, places, 0)

    def _check_ours(self, descriptor: int) -> None:
        if os.fstat(descriptor).st_nlink > 1 and not _OURS.fullmatch(os.read(descriptor, _MARK_AT)):
            raise StoreAccessError(
                self.path, "is no file of a lock, but holds something else; move it away, it is made again"
            )

    def _map(self, identity: tuple[int, int]) -> _Places:
        """Map the file and return the places in it.

        That takes a descriptor of its own: the one that is locked must have no copy.
        What has several names, and holds something else than a holder writes, is not ours but somebody's file.
        """
        self._places = None
        descriptor = files.open_regular(self.path, os.O_RDWR)
        try:
            self._check_ours(descriptor)
            _extend(descriptor, _ALL_BYTES)  # so that the mapping has its place on the disk
            page = memoryview(mmap.mmap(descriptor, _ALL_BYTES))
        finally:
            os.close(descriptor)
        note, mark, end = page[:_NOTE_BYTES], page[_MARK_AT:], page[_ALL_BYTES - 1 :]
        self._places = {"note": (note,), "note_and_end": (note, end), "mark": (mark,), "end": (end,)}
        self._page_identity = identity
        return self._places


def _source() -> tuple[int, mmap.mmap]:
    """Return a file without a name, as (descriptor, the memory that it is mapped to)."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("jarvis-lock")
    else:
        import tempfile

        descriptor, path = tempfile.mkstemp()
        os.unlink(path)
    try:
        os.ftruncate(descriptor, _ALL_BYTES)
        return descriptor, mmap.mmap(descriptor, _ALL_BYTES)
    except BaseException:
        os.close(descriptor)
        raise


def _checksum(fields: Sequence[int]) -> int:
    return binascii.crc32(repr(tuple(fields)).encode())


def _seek_and_read(descriptor: int, size: int, start: int) -> bytes:
    os.lseek(descriptor, start, os.SEEK_SET)
    return os.read(descriptor, size)


_read_at = getattr(os, "pread", _seek_and_read)  # which Windows has not


def _extend(descriptor: int, size: int) -> None:
    """Let a file be at least so long, with spaces."""
    missing = size - os.lseek(descriptor, 0, os.SEEK_END)
    if missing > 0:
        files.system.write(descriptor, b" " * missing)
