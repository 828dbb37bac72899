"""Reads what is left of a damaged store: every page for itself, and each row only if it matches its checksum.

SQLite gives up at the first damaged page that a statement needs. Rows of the tables `entries` and `revisions` have
checksums of all their content, so they can be trusted wherever they are found. Deleted rows are not found: SQLite
overwrites them with zeros here. Memory holds where each row is, and not the row.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import struct
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import msgspec

from jarvis._disk import files
from jarvis._sql.tables import change_checksum, row_checksum
from jarvis._sqlite import cipher, schema
from jarvis._sqlite.cells import Cells, DamagedError, Pages, Record
from jarvis.errors import CorruptStoreError
from jarvis.model.portable import Ending, PastEntry, SoundEntry, WholeMemory, fields_of, text_at
from jarvis.model.revision import REMOVALS, Signature
from jarvis.model.salvaged import FIRST_LIFE, NO_STORE, LostMemory, Salvaged

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jarvis._sqlite.vault import Vault

_ENOUGH = 3
_MARK = slice(68, 72)  # https://sqlite.org/fileformat2.html#application_id
_FIRST_LIFE_TABLE = b"CREATE TABLE memories"
_ENTRY_COLUMNS, _REVISION_COLUMNS = 14, 18
_CELL_BITS, _PAGE_BITS, _ROW_BITS = 16, 32, 64
_decode_change = msgspec.json.Decoder(Signature).decode

Place = tuple[str, str]
"""Namespace and id."""


def salvage(path: str, vault: Vault) -> Salvaged:
    """Return what is left of the store at a path.

    Raises:
        CorruptStoreError: it is none, or nothing of it is left.
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
    rows = _Rows(Pages(path, key))
    found = rows.found()
    problem = rows.problem()
    if problem is not None:
        raise CorruptStoreError(path, problem)
    return found


class _Rows:
    """The rows on the pages of a store that are what they were."""

    def __init__(self, pages: Pages) -> None:
        self._pages, self._cells = pages, Cells(pages)
        self._names: defaultdict[int, set[str]] = defaultdict(set)
        self._entries: list[int] = []  # namespace, row, page and place there, in one number
        self._twice: set[int] = set()  # hashes of the namespaces and ids that have two rows
        self._past: defaultdict[tuple[int, bytes], list[int]] = defaultdict(list)  # of namespace and id, as `_entries`
        self._indexes: list[int] = []  # the pages that have keys of ids
        self._rows: dict[int, int] = {}  # the row of each sound entry by the hash of its place
        self._sound: set[int] = set()
        self._lost: set[LostMemory] = set()

    def found(self) -> Salvaged:
        """Read all pages, and return what they have."""
        with self._pages:
            self._read_all()
        self._entries.sort()
        lost: list[LostMemory] = []
        return Salvaged(len(self._entries), self._memories(lost), lost)

    def problem(self) -> str | None:
        """Return why nothing can be taken; None if a page has a row of a store, or the first one its mark."""
        if self._entries or self._past:
            return None
        try:
            with self._pages:
                first = self._pages.page(1)
        except DamagedError:
            return NO_STORE
        if first[_MARK] == schema.APPLICATION_ID.to_bytes(4):
            return None
        return FIRST_LIFE if _FIRST_LIFE_TABLE in first else NO_STORE

    def _read_all(self) -> None:
        """Find the rows and the names on all pages.

        A page belongs to one table or index: if its first records are of another index, so are the others.
        """
        seen: set[int] = set()
        for number in range(1, self._pages.count + 1):
            others = 0
            for record in self._cells.on(number):
                kind = record.kind
                if kind == "entry":
                    place = record.place()
                    if place[0] >= 0:
                        self._entries.append(_code(place[0], record.row, number, record.at))
                        known = hash(place)
                        (self._twice if known in seen else seen).add(known)
                elif kind == "revision":
                    self._past[record.place()].append(_code(0, record.row, number, record.at))
                elif kind in ("name", "key of a name"):
                    self._take_name(record)
                elif not record.row:
                    if kind and not (self._indexes and self._indexes[-1] == number):
                        self._indexes.append(number)
                    others += 1
                    if others == _ENOUGH:
                        break

    def _take_name(self, record: Record) -> None:
        with contextlib.suppress(ValueError, struct.error):
            one, other = record.values()
            if record.kind == "name":
                self._names[record.row].add(other)
            else:
                self._names[other].add(one)

    def _memories(self, lost: list[LostMemory]) -> Iterator[WholeMemory]:
        """Yield what is sound, and then fill the list of what is lost."""
        of_twice: dict[Place, tuple[int, WholeMemory]] = {}
        left: defaultdict[Place, list[PastEntry]] = defaultdict(list)
        with self._pages:
            for code in self._entries:
                row, values = self._values(code)
                place, fields = self._state(row, values[1:]) if values else (("", ""), None)
                if fields is None:
                    continue
                self._sound.add(row)
                self._rows[hash(place)] = row
                stored = (values[9], values[12], values[7])  # body, packed, instant
                whole = WholeMemory(*place, SoundEntry(*fields, stored=stored))
                key = (values[1], place[1].encode())
                if self._twice and hash(key) in self._twice:
                    of_twice[place] = values[1], whole  # the newest row comes last
                else:
                    yield self._with_past(whole, key, left)
            for number, whole in of_twice.values():
                yield self._with_past(whole, (number, whole.id.encode()), left)
            for key in [*self._past]:
                self._take_past(key, left)
            for place, states in left.items():
                yield WholeMemory(*place, None, states)
                if states[-1].ended.operation not in REMOVALS:
                    self._lost.add(LostMemory(*place))
            self._find_lost()
        lost.extend(sorted(self._lost))

    def _with_past(
        self, whole: WholeMemory, key: tuple[int, bytes], left: defaultdict[Place, list[PastEntry]]
    ) -> WholeMemory:
        if key in self._past:
            self._take_past(key, left)
            whole.past = left.pop((whole.namespace, whole.id), [])
        return whole

    def _take_past(self, key: tuple[int, bytes], left: defaultdict[Place, list[PastEntry]]) -> None:
        """Add the sound past states with a number of a namespace and an id to `left`, the oldest first."""
        for code in sorted(self._past.pop(key)):
            ended, values = self._values(code)
            if values:
                place, fields = self._state(values[4], values[5:])
                ending = _ending(ended, *values[1:4])
                if fields is not None and ending is not None:
                    left[place].append(PastEntry(*fields, ended=ending))
                    self._sound.add(ended)

    def _find_lost(self) -> None:
        """Find the ids whose newest row is not there, or not sound, by the index of ids."""
        for page in self._indexes:
            for record in self._cells.on(page):
                if record.kind == "key of an id" and record.number() not in self._sound:
                    with contextlib.suppress(ValueError, struct.error):
                        namespace, entry_id, number = record.values()
                        for name in () if number in self._sound else self._names[namespace] or {"?"}:
                            if self._rows.get(hash((name, entry_id)), 0) < number:
                                self._lost.add(LostMemory(name, entry_id))

    def _values(self, code: int) -> tuple[int, tuple[Any, ...]]:
        """Return the number of a row, and its values with those of columns that its version lacked; none if damaged."""
        at, page, row = code & _mask(_CELL_BITS), code >> _CELL_BITS, code >> _CELL_BITS + _PAGE_BITS
        try:
            record = self._cells.at(page & _mask(_PAGE_BITS), at)
            columns = _ENTRY_COLUMNS if record.kind == "entry" else _REVISION_COLUMNS
            values = record.values()
        except (DamagedError, ValueError, struct.error):
            values, columns = (), 0
        return row & _mask(_ROW_BITS), values + (None,) * (columns - len(values))

    def _state(self, row: int, values: Sequence[Any]) -> tuple[Place, tuple[Any, ...] | None]:
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


def _code(namespace: int, row: int, page: int, at: int) -> int:
    return ((namespace << _ROW_BITS | row) << _PAGE_BITS | page) << _CELL_BITS | at


def _mask(bits: int) -> int:
    return (1 << bits) - 1


def _ending(ended: int, made: int, change: str, checksum: int) -> Ending | None:
    """Return the change that ended a past state, None if it is not what was stored."""
    if change_checksum(ended, made, change) != checksum:
        return None
    try:
        operation, *author = _decode_change(change)
    except ValueError:
        return None
    return Ending(operation, text_at(made), *author)
