"""Reads the pages of a store and the records on them without SQLite, each for itself (https://sqlite.org/fileformat2.html).

Nothing is written, and no lock is taken.
"""

from __future__ import annotations

import operator
import os
import re
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from jarvis._disk import files
from jarvis._sqlite import cipher, engine, verification

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jarvis.encryption.data_key import DataKey

LEAF, INDEX_LEAF, INDEX_INNER = 0x0D, 0x0A, 0x02
_FIRST_PAGE_HEADER = 100
_MOST_CELLS, _MOST_SHAPES = 20_000, 20_000
_INTEGERS = {1: "b", 2: "h", 3: "3s", 4: "i", 5: "6s", 6: "q"}  # by serial type, as `struct` reads them
_WIDE = (3, 5)
_CONSTANTS: dict[int, tuple[int, int | None]] = {0: (0, None), 8: (1, 0), 9: (2, 1)}
_VALUES: list[Any] = [value for _, value in _CONSTANTS.values()]
_FLOAT, _RESERVED, _FIRST_LENGTH = 7, (10, 11), 12
_STATE = "ititi[tn]iiti(?:[in](?:[bn][in]?)?)?"
_KINDS = {
    "entry": (re.compile("n" + _STATE), 1, 9),
    "revision": (re.compile("nitii" + _STATE), 5, 13),
    "name": (re.compile("nt"), None, None),
    "key of a name": (re.compile("ti"), None, None),
    "key of an id": (re.compile("iti"), 0, None),
}
"""By kind of record: the types of its values, where the namespace stands, before an id, and where the body."""


class DamagedError(Exception):
    """A page or a cell cannot be read."""


class Pages:
    """The pages of a store, those in its log included, decrypted, each without its checksum; open inside ``with``.

    Attributes:
        usable: the bytes of a page that may have content.
    """

    def __init__(self, path: str, key: DataKey | None) -> None:
        self._path, self._key, self._file = path, key, -1
        self._size = cipher.PLAIN_PAGE_BYTES if key is None else cipher.PAGE_BYTES
        self.usable = self._size - (engine.RESERVED_BYTES if key is None else cipher.RESERVED_BYTES)
        self._logged: dict[int, bytes] = {}
        for frame in verification.frames(path):
            number = int.from_bytes(frame[:4])
            self._logged[number] = frame[-self._size :]
        self.count = max(os.stat(path).st_size // self._size, *self._logged, 0)

    def __enter__(self) -> None:
        with files.explaining(self._path, "read"):
            self._file = files.open_regular(self._path, os.O_RDONLY)

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def page(self, number: int) -> bytes:
        """Return the content of a page; raise `DamagedError` if there is none."""
        if not 0 < number <= self.count:
            raise DamagedError
        try:
            data = self._logged.get(number) or os.pread(self._file, self._size, (number - 1) * self._size)
        except OSError:  # of the disk
            raise DamagedError from None
        if len(data) < self._size:
            raise DamagedError
        if self._key is not None:
            data = cipher.decrypted(data, self._key, is_first=number == 1)
        return data[: self.usable]


class _Shape(NamedTuple):
    """How the values of a record are read, which its header tells.

    Attributes:
        kind: what has values of these types, see `_KINDS`; empty if nothing that matters here has.
        layout: reads the values that have bytes.
        texts, wide: which of those are texts, but for a body; and integers that `layout` cannot read.
        order: returns all values, of those and `_VALUES`.
        place: the namespace if the header tells it, where its bytes begin, and where the id does and ends.
    """

    kind: str
    layout: struct.Struct
    texts: tuple[int, ...]
    wide: tuple[int, ...]
    order: operator.itemgetter[Any]
    place: tuple[int | None, int, int, int]


class Record(NamedTuple):
    """A record: what it is of, where it begins on its page, the number of its row (0 in an index), and its bytes."""

    kind: str
    at: int
    row: int
    shape: _Shape
    payload: bytes

    def values(self) -> tuple[Any, ...]:
        """Return its values; a body stays UTF-8.

        Raises:
            ValueError, struct.error: it is damaged.
        """
        _, _, _, shape, payload = self
        read = list(shape.layout.unpack_from(payload))
        for place in shape.texts:
            read[place] = read[place].decode()
        for place in shape.wide:
            read[place] = int.from_bytes(read[place], signed=True)
        values: tuple[Any, ...] = shape.order(read + _VALUES)
        return values

    def place(self) -> tuple[int, bytes]:
        """Return the number of the namespace, and the id."""
        number, start, middle, end = self.shape.place
        if number is None:
            number = int.from_bytes(self.payload[start:middle], signed=True)
        return number, self.payload[middle:end]

    def number(self) -> int:
        """Return the number after the id, in a key of an id; 0 if its bytes are not there."""
        return int.from_bytes(self.payload[self.shape.place[3] :], signed=True)


class Cells:
    """The records on the pages of a store."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._most = (pages.usable - 12) * 64 // 255 - 23, pages.usable - 35  # bytes of a record on its page
        self._shapes: dict[bytes, _Shape] = {}
        self._last = 0, b""

    def on(self, number: int) -> Iterator[Record]:
        """Yield the records on a page of a table or an index, but for those that are damaged."""
        try:
            page = self._page(number)
        except DamagedError:
            return
        start = _FIRST_PAGE_HEADER if number == 1 else 0
        kind = page[start]
        if kind not in (LEAF, INDEX_LEAF, INDEX_INNER):
            return
        is_table, skipped = kind == LEAF, 4 if kind == INDEX_INNER else 0
        count = min(int.from_bytes(page[start + 3 : start + 5]), _MOST_CELLS)
        head = start + 8 + skipped
        pointers = page[head : head + 2 * count]
        for at in struct.unpack(f">{len(pointers) // 2}H", pointers[: len(pointers) // 2 * 2]):
            try:
                yield self._record(page, at + skipped, is_table=is_table)
            except (DamagedError, IndexError):
                continue

    def at(self, number: int, at: int) -> Record:
        """Return the record of a table that begins there on a page; raise `DamagedError` if it cannot be read."""
        try:
            return self._record(self._page(number), at, is_table=True)
        except IndexError:
            raise DamagedError from None

    def _page(self, number: int) -> bytes:
        if self._last[0] != number:
            self._last = number, self._pages.page(number)
        return self._last[1]

    def _record(self, page: bytes, at: int, *, is_table: bool) -> Record:
        begin, row = at, 0
        size, at = _varint(page, at)
        if is_table:
            row, at = _varint(page, at)
        most = self._most[is_table]
        if size <= most:
            payload = page[at : at + size]
        else:
            usable = self._pages.usable
            least = (usable - 12) * 32 // 255 - 23
            local = least + (size - least) % (usable - 4)
            local = local if local <= most else least
            payload = page[at : at + local] + self._overflow(page[at + local : at + local + 4], size - local)
        if len(payload) < size:
            raise DamagedError
        shape = self._shapes.get(payload[: payload[0]]) or self._shape(payload)
        return Record(shape.kind, begin, row, shape, payload)

    def _shape(self, payload: bytes) -> _Shape:
        """Return the shape that the header of a record says, and remember it."""
        end, at = _varint(payload, 0)
        types = []
        while at < end:
            kind, at = _varint(payload, at)
            types.append(kind)
        shape = _shape_of(types, end)
        if len(self._shapes) >= _MOST_SHAPES:
            self._shapes.clear()
        self._shapes[payload[:end]] = shape  # one of over 127 bytes is never found there
        return shape

    def _overflow(self, pointer: bytes, size: int) -> bytes:
        """Return the rest of a value, which lies on pages of its own."""
        parts: list[bytes] = []
        seen = set[bytes]()
        while size > 0:
            if pointer in seen:
                raise DamagedError
            seen.add(pointer)
            page = self._pages.page(int.from_bytes(pointer))
            parts.append(page[4 : 4 + size])
            size -= len(parts[-1])
            pointer = page[:4]
        return b"".join(parts)


def _shape_of(types: list[int], header: int) -> _Shape:
    """Return the shape of records with these serial types (https://sqlite.org/fileformat2.html#record_format)."""
    letters, layout, order, texts, wide = "", f">{header}x", [], [], []
    starts, at, read = [], header, 0
    for kind in types:
        starts.append(at)
        if kind in _RESERVED:
            raise DamagedError
        if kind in _CONSTANTS:
            letters += "n" if kind == 0 else "i"
            order.append(_CONSTANTS[kind][0] - len(_VALUES))
            continue
        if kind in _INTEGERS:
            letters += "i"
            code = _INTEGERS[kind]
            if kind in _WIDE:
                wide.append(read)
        else:
            letters += "f" if kind == _FLOAT else "t" if kind % 2 else "b"
            code = "8s" if kind == _FLOAT else f"{(kind - _FIRST_LENGTH) // 2}s"
        layout += code
        at += struct.calcsize(f">{code}")
        order.append(read)
        read += 1
    starts.append(at)
    for name, (pattern, namespace, body) in _KINDS.items():
        if pattern.fullmatch(letters):
            texts = [order[column] for column, letter in enumerate(letters) if letter == "t" and column != body]
            place: tuple[int | None, int, int, int] = (None, 0, 0, 0)
            if namespace is not None:
                number = None if order[namespace] >= 0 else _VALUES[order[namespace]]
                place = number, starts[namespace], starts[namespace + 1], starts[namespace + 2]
            return _Shape(name, struct.Struct(layout), tuple(texts), tuple(wide), operator.itemgetter(*order), place)
    return _Shape("", struct.Struct(""), (), (), operator.itemgetter(0), (None, 0, 0, 0))


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of variable length, and where it ends."""
    value = data[at]
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    for length in range(1, 8):
        byte = data[at + length]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + length + 1
    return value << 8 | data[at + 8], at + 9
