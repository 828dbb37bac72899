"""The file of a writers' lock, and what its holders write into it.

It has three parts, each at its own place: a `Note` of the store's state when its last writer left it; a `Swap`, if
another file takes the store's place; and a mark, if a commit is in flight. None of them is synced. Only living
processes need the last two. A power cut may leave an older note, but never one that is ahead of the synced commits.

Holders write to memory that the file is mapped to. A write to the file itself would make the sync of the next commit
wait for that too, 80 µs of 430. But if another program truncates the file, that memory is gone, and touching it would
kill the process (SIGBUS). So the kernel copies the bytes there, from a file that only this process knows; if that
fails, it is an ordinary error.
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
    """The store's stamp when the last writer left it, and the last commit that was synced before."""

    stamp: Stamp
    commit: int


class Swap(NamedTuple):
    """The last swap: a holder puts another file in the place of the guarded one.

    Attributes:
        token: different for each swap: between two reads of the same token there was none.
        inode: of the new file.
        is_over: the swap is done, or was taken back; until then nobody opens the guarded file.
    """

    token: int
    inode: int
    is_over: bool


_NOTE_BYTES = 128
_SWAP_BYTES = 128  # after the note; its first byte says whether it is over
_MARK_BYTES = 9  # after the swap; its last byte says whether the commit is over
_MARK_AT = _NOTE_BYTES + _SWAP_BYTES
_ALL_BYTES = _MARK_AT + _MARK_BYTES
_IN_FLIGHT, _OVER = b"0", b"1"
_TORN = Swap(0, 0, False)
_OURS = re.compile(rb"[0-9 \n\0]*")
_HAS_PREADV = hasattr(os, "preadv")
_LOOK_SECONDS = 0.5  # how often a reader looks whether the file was removed and made again


_Places = dict[str, tuple[memoryview, ...]]  # by the name of what is written there


class LockFile:
    """The content of the file at a path, which is made when it is first opened for writing.

    Holders of the lock write, one at a time; anybody reads. It has the owner and mode of the guarded file.
    """

    _places: _Places | None = None  # in the memory that the file is mapped to
    _source: tuple[int, mmap.mmap] | None = None  # the kernel copies from it: a descriptor, and its memory
    _readers: tuple[int, ...] = ()  # descriptors; the last one is in use, but a thread may still read another

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
        """Map the file that a holder has just opened. If that fails, the first write tries again and raises."""
        with contextlib.suppress(OSError):
            self._map(identity)

    def forget(self) -> None:
        """Close everything that is open."""
        self._places = None
        descriptors = [*self._readers, *((self._source or ())[:1])]
        self._source, self._readers = None, ()
        for descriptor in descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def __del__(self) -> None:
        self.forget()

    # --- the note --------------------------------------------------------------------------------

    def read_note(self) -> Note | None:
        """Return the last note of a holder, or None."""
        for _ in range(3):  # a holder may be writing it
            try:
                fields = [int(field) for field in self._read(0, _NOTE_BYTES).split()]
            except OSError:
                return None
            except ValueError:
                continue
            if len(fields) == 4 or (len(fields) == 5 and fields[4] == _checksum(fields[:4])):
                return Note(Stamp(*fields[:3]), fields[3])  # an earlier version wrote four
        return None

    def write_note(self, note: Note, identity: tuple[int, int], size: int, *, is_end: bool) -> None:
        """Write a note into the file that the holder has open.

        Args:
            note: the note.
            identity: (device, inode) of the file.
            size: of the file.
            is_end: say as well that the commit in flight is over: one write takes less time than two.
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
        """Return the last swap of the guarded file, or None."""
        try:
            fields = [int(field) for field in self._read(_NOTE_BYTES, _SWAP_BYTES).split()]
        except ValueError:
            return _TORN
        except OSError:
            return None
        if not fields:
            return None
        if len(fields) != 4 or fields[3] != _checksum(fields[:3]):
            return _TORN  # a holder is writing it, or was killed meanwhile
        return Swap(fields[1], fields[2], bool(fields[0]))

    def is_swap_open(self, descriptor: int) -> bool:
        """Tell the holder, who has this descriptor of the file, whether a swap has begun that is not over."""
        if _read_at(descriptor, 1, _NOTE_BYTES) in (b"1", b" ", b""):
            return False
        swap = self.read_swap()
        return swap is not None and not swap.is_over

    def write_swap(self, inode: int, *, is_over: bool) -> None:
        """Write that a swap begins or is over; see `jarvis._sqlite.replace.swap`."""
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
        """Write that a commit is in flight; the time is its name."""
        self._write("mark", time.time_ns().to_bytes(_MARK_BYTES - 1) + _IN_FLIGHT, identity, size)

    def mark_end(self, identity: tuple[int, int], size: int) -> None:
        """Write that the commit in flight is over."""
        self._write("end", _OVER, identity, size)

    def commit_in_flight(self) -> bytes | None:
        """Return the name of the commit that is in flight, or None. About 1 µs.

        A name that is just being written may be read torn. Such a commit is dated later, so nobody has to wait for it.
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
                mark: bytes = _read_at(readers[-1], _MARK_BYTES, _MARK_AT)
            except OSError as error:
                if error.errno != errno.EBADF:
                    raise
                continue  # another thread has just shut down: look again
            return mark if mark[-1:] == _IN_FLIGHT else None

    def _look(self, now: float) -> None:
        """Open the file that has the path now, if there is one that is not open yet."""
        self._looked = now
        readers = self._readers
        with contextlib.suppress(OSError):
            if not readers or not os.fstat(readers[-1]).st_nlink:
                self._readers = (*self._readers, files.open_regular(self.path, os.O_RDONLY, os.open))

    # --- bytes -----------------------------------------------------------------------------------

    def _read(self, start: int, size: int) -> bytes:
        descriptor = files.open_regular(self.path, os.O_RDONLY, os.open)
        try:
            data: bytes = _read_at(descriptor, size, start)
            return data
        finally:
            os.close(descriptor)

    def _write(self, name: str, data: bytes, identity: tuple[int, int], size: int) -> None:
        """Write `data` to the places of this name, in their order."""
        try:
            if self._places is not None and self._page_identity == identity and size >= _ALL_BYTES:
                if self._source is None or not _HAS_PREADV:
                    self._put(self._places[name], data)
                    return
                descriptor, memory = self._source
                memory[: len(data)] = data
                os.preadv(descriptor, self._places[name], 0)
                return
        except OSError:  # another program has just truncated the file
            pass
        with explaining(self.path, "write"):
            self._put(self._map(identity)[name], data)

    def _put(self, places: tuple[memoryview, ...], data: bytes) -> None:
        if not _HAS_PREADV:  # Windows, where nobody can truncate a mapped file
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
                self.path, "is not the file of a lock but holds something else; move it away, and a new one is made"
            )

    def _map(self, identity: tuple[int, int]) -> _Places:
        """Map the file and return the places in it.

        That takes a descriptor of its own: the locked one must have no copy. A file that has several names, and
        holds something that no holder writes, is not ours.
        """
        self._places = None
        descriptor = files.open_regular(self.path, os.O_RDWR)
        try:
            self._check_ours(descriptor)
            _extend(descriptor, _ALL_BYTES)  # or the mapping would have no room on the disk
            page = memoryview(mmap.mmap(descriptor, _ALL_BYTES))
        finally:
            os.close(descriptor)
        note, mark, end = page[:_NOTE_BYTES], page[_MARK_AT:], page[_ALL_BYTES - 1 :]
        self._places = {"note": (note,), "note_and_end": (note, end), "mark": (mark,), "end": (end,)}
        self._page_identity = identity
        return self._places


def _source() -> tuple[int, mmap.mmap]:
    """Return a new file without a name, as (descriptor, the memory that it is mapped to)."""
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


_read_at = getattr(os, "pread", _seek_and_read)  # Windows has no pread


def _extend(descriptor: int, size: int) -> None:
    """Append spaces to a file that is shorter than `size`."""
    missing = size - os.lseek(descriptor, 0, os.SEEK_END)
    if missing > 0:
        files.system.write(descriptor, b" " * missing)
