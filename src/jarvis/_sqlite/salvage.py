"""Reads what is left of a damaged store: every page for itself, and each row only if it matches its checksum.

SQLite gives up at the first damaged page that a statement needs. Rows of the tables `entries` and `revisions` have
checksums of all their content, so they can be trusted wherever they are found
(https://sqlite.org/fileformat2.html#b_tree_pages). Deleted rows are not found: SQLite overwrites them with zeros here.
Nothing is written, and no lock is taken.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import msgspec

from jarvis._disk import files
from jarvis._sql.tables import change_checksum, row_checksum
from jarvis._sqlite import cipher, engine, verification
from jarvis.model.portable import Ending, PastEntry, PortableEntry, WholeMemory, fields_of, text_at
from jarvis.model.revision import REMOVALS, Signature
from jarvis.model.salvaged import LostMemory, Salvaged

if TYPE_CHECKING:
    from jarvis._sqlite.vault import Vault
    from jarvis.encryption.data_key import DataKey

_LEAF, _INDEX_LEAF, _INDEX_INNER = 0x0D, 0x0A, 0x02
_FIRST_PAGE_HEADER = 100
_MOST_CELLS, _ENOUGH = 20_000, 3
_ENTRY_COLUMNS, _REVISION_COLUMNS = 14, 18
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}  # bytes by serial type
_FLOAT, _RESERVED = 7, (10, 11)
_CONSTANTS: dict[int, int | None] = {0: None, 8: 0, 9: 1}
_decode_change = msgspec.json.Decoder(Signature).decode

Row = tuple[Any, ...]


class _DamagedError(Exception):
    """A cell cannot be read."""


def salvage(path: str, vault: Vault) -> Salvaged:
    """Return what is left of the store at a path.

    Raises:
        StoreError: the file cannot be read.
        KeyUnavailableError, WrongKeyError: it is encrypted, and no key opens it.
    """
    with files.explaining(path, "read"), open(files.open_regular(path, os.O_RDONLY), "rb") as file:
        beginning = file.read(cipher.SALT_BYTES)
    envelope = None if beginning == cipher.PLAIN else vault.envelope()
    key = None
    if envelope is not None:
        number = envelope.key_with(beginning)
        key = vault.opener.open(envelope, envelope.newest if number is None else number)
    return _Rows(_Pages(path, key)).found()


class _Pages:
    """The pages of a store, those in its log included, decrypted, each without its checksum."""

    def __init__(self, path: str, key: DataKey | None) -> None:
        self._key = key
        self._size = cipher.PLAIN_PAGE_BYTES if key is None else cipher.PAGE_BYTES
        self.usable = self._size - (engine.RESERVED_BYTES if key is None else cipher.RESERVED_BYTES)
        self._file = files.open_regular(path, os.O_RDONLY)
        self._logged: dict[int, bytes] = {}
        for frame in verification.frames(path):
            number = int.from_bytes(frame[:4])
            self._logged[number] = frame[-self._size :]
        self.count = max(os.fstat(self._file).st_size // self._size, *self._logged, 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def page(self, number: int) -> bytes:
        """Return the content of a page; raise `_DamagedError` if there is none."""
        if not 0 < number <= self.count:
            raise _DamagedError
        data = self._logged.get(number) or os.pread(self._file, self._size, (number - 1) * self._size)
        if len(data) < self._size:
            raise _DamagedError
        if self._key is not None:
            data = cipher.decrypted(data, self._key, is_first=number == 1)
        return data[: self.usable]


class _Rows:
    """The rows on the pages of a store that are what they were."""

    def __init__(self, pages: _Pages) -> None:
        self._pages = pages
        self._names: defaultdict[int, set[str]] = defaultdict(set)
        self._entries: list[tuple[int, Row]] = []
        self._revisions: list[tuple[int, Row]] = []
        self._known: set[tuple[int, str, int]] = set()  # namespace, id and number, as an index names them

    def found(self) -> Salvaged:
        """Read all pages, and return what they have."""
        try:
            for number in range(1, self._pages.count + 1):
                self._read(number)
        finally:
            self._pages.close()
        present: dict[tuple[str, str], tuple[int, PortableEntry]] = {}
        past: defaultdict[tuple[str, str], list[tuple[int, PastEntry]]] = defaultdict(list)
        sound: set[int] = set()
        for row, values in self._entries:
            place, fields = self._state(row, values[1:])
            if fields is not None and row > present.get(place, (0, None))[0]:
                present[place] = row, PortableEntry(*fields)
                sound.add(row)
        for ended, values in self._revisions:
            place, fields = self._state(values[4], values[5:])
            ending = _ending(ended, *values[1:4])
            if fields is not None and ending is not None:
                past[place].append((ended, PastEntry(*fields, ended=ending)))
                sound.add(ended)
        memories, lost = [], self._lost(present, sound)
        for place in sorted({*present, *past}, key=lambda each: (each[0], present.get(each, (0, None))[0])):
            row, entry = present.get(place, (0, None))
            states = [state for ended, state in sorted(past[place], key=lambda each: each[0])]
            memories.append(WholeMemory(*place, entry, states))
            if entry is None and states[-1].ended.operation not in REMOVALS:
                lost.add(LostMemory(*place))
        return Salvaged(memories, sorted(lost))

    def _lost(self, present: dict[tuple[str, str], tuple[int, PortableEntry]], sound: set[int]) -> set[LostMemory]:
        lost = set()
        for namespace, entry_id, number in self._known:
            if number in sound:
                continue
            for name in self._names[namespace] or {"?"}:
                if present.get((name, entry_id), (0, None))[0] < number:
                    lost.add(LostMemory(name, entry_id))
        return lost

    def _state(self, row: int, values: Row) -> tuple[tuple[str, str], tuple[Any, ...] | None]:
        """Return namespace and id of a state, and its fields, None if they are not what was stored."""
        (
            namespace,
            entry_id,
            category,
            key,
            entity_type,
            entity_id,
            instant,
            version,
            body,
            checksum,
            expires,
            packed,
        ) = values[:12]
        if not isinstance(body, str) or not isinstance(packed, bytes | None):  # damage changes types as well
            return ("", entry_id), None
        names = (self._names[number] for number in (namespace, category, entity_type))
        for in_namespace, in_category, of_type in itertools.product(*names):
            end = (version,) if expires is None else (version, expires)
            fields = (row, in_namespace, entry_id, in_category, key, of_type, entity_id, instant, *end)
            if row_checksum(fields, body, packed) == checksum:
                try:
                    return (in_namespace, entry_id), fields_of(
                        (in_category, key, of_type, entity_id), version, expires, body, packed
                    )
                except ValueError:
                    break
        return ("", entry_id), None

    def _read(self, number: int) -> None:
        """Read the cells of a page that may be rows of a table or of the indexes of names and ids.

        A page belongs to one table or index: if its first cells are of another index, so are the others.
        """
        try:
            page = self._pages.page(number)
        except _DamagedError:
            return
        start = _FIRST_PAGE_HEADER if number == 1 else 0
        kind = page[start]
        if kind not in (_LEAF, _INDEX_LEAF, _INDEX_INNER):
            return
        head, others = start + (12 if kind == _INDEX_INNER else 8), 0
        for cell in range(min(int.from_bytes(page[start + 3 : start + 5]), _MOST_CELLS)):
            at = int.from_bytes(page[head + 2 * cell : head + 2 * cell + 2])
            try:
                if kind == _LEAF:
                    self._take_row(*self._record(page, at, is_table=True))
                elif not self._take_key(self._record(page, at + (4 if kind == _INDEX_INNER else 0), is_table=False)[1]):
                    others += 1
                    if others == _ENOUGH:
                        return
            except (_DamagedError, IndexError, UnicodeDecodeError):
                continue

    def _take_row(self, row: int, values: list[Any]) -> None:
        kinds = [type(value) for value in values]
        if len(values) == 2 and kinds[1] is str:
            self._names[row].add(values[1])
        elif kinds[:3] == [type(None), int, str] and 11 <= len(values) <= _ENTRY_COLUMNS:
            self._entries.append((row, (*values, *[None] * (_ENTRY_COLUMNS - len(values)))))
        elif kinds[1:5] == [int, str, int, int] and 15 <= len(values) <= _REVISION_COLUMNS:
            self._revisions.append((row, (*values, *[None] * (_REVISION_COLUMNS - len(values)))))

    def _take_key(self, values: list[Any]) -> bool:
        kinds = [type(value) for value in values]
        if kinds == [str, int]:  # the index of names
            self._names[values[1]].add(values[0])
        elif kinds == [int, str, int]:  # that of ids
            self._known.add((values[0], values[1], values[2]))
        else:
            return False
        return True

    def _record(self, page: bytes, at: int, *, is_table: bool) -> tuple[int, list[Any]]:
        """Return the number of a row, 0 in an index, and its values."""
        size, at = _varint(page, at)
        row = 0
        if is_table:
            row, at = _varint(page, at)
        usable = self._pages.usable
        most = usable - 35 if is_table else (usable - 12) * 64 // 255 - 23
        if size <= most:
            payload = page[at : at + size]
        else:
            least = (usable - 12) * 32 // 255 - 23
            local = least + (size - least) % (usable - 4)
            local = local if local <= most else least
            payload = page[at : at + local] + self._overflow(page[at + local : at + local + 4], size - local)
        if len(payload) < size:
            raise _DamagedError
        return row, _values(payload)

    def _overflow(self, pointer: bytes, size: int) -> bytes:
        """Return the rest of a value, which lies on pages of its own."""
        parts: list[bytes] = []
        seen = set[bytes]()
        while size > 0:
            if pointer in seen:
                raise _DamagedError
            seen.add(pointer)
            page = self._pages.page(int.from_bytes(pointer))
            parts.append(page[4 : 4 + size])
            size -= len(parts[-1])
            pointer = page[:4]
        return b"".join(parts)


def _ending(ended: int, made: int, change: str, checksum: int) -> Ending | None:
    """Return the change that ended a past state, None if it is not what was stored."""
    if change_checksum(ended, made, change) != checksum:
        return None
    try:
        operation, *author = _decode_change(change)
    except ValueError:
        return None
    return Ending(operation, text_at(made), *author)


def _values(payload: bytes) -> list[Any]:
    """Return the values of a record (https://sqlite.org/fileformat2.html#record_format)."""
    header, at = _varint(payload, 0)
    body = header
    values: list[Any] = []
    while at < header:
        kind = payload[at]
        at += 1
        if kind >= 0x80:
            kind, at = _varint(payload, at - 1)
        if kind in _CONSTANTS:
            values.append(_CONSTANTS[kind])
            continue
        size = _INTEGERS[kind] if kind in _INTEGERS else 8 if kind == _FLOAT else (kind - 12) // 2
        part = payload[body : body + size]
        if kind in _RESERVED or len(part) < size:
            raise _DamagedError
        body += size
        if kind in _INTEGERS:
            values.append(int.from_bytes(part, signed=True))
        else:
            values.append(part.decode() if kind % 2 and kind != _FLOAT else part)
    return values


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of variable length, and where it ends."""
    value = 0
    for length in range(8):
        byte = data[at + length]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + length + 1
    return value << 8 | data[at + 8], at + 9
