"""The JSON store's file: records to bytes and back, with damage noticed and the first life understood.

Layout, format 1, UTF-8, two spaces of indent::

    {
      "format": 1,
      "entries": {id: {the nine fields, "version", "position", perhaps "fold" and "zone"}},
      "namespaces": {name: {"entries": {…}}},
      "clock": {"commit": last commit number, "made": last instant given, or null},
      "checksum": "blake2b:<digest of every byte before the comma that precedes this member>"
    }

A file that ends with a checksum is *sealed*: one wrong byte anywhere and it is refused. A file without
one was edited by hand (or is the first life's); it is taken as it is, but only if nothing about it is
odd: no unknown member, no name twice in an object, every entry whole. A flipped bit in the name
``checksum`` makes an unknown member; a file cut short lacks its last brace; so no single damage turns
a sealed file into one that was edited by hand.
"""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_left
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from jarvis.codec import InvalidMomentError, flatten, format_moment, instant_of, parse_moment, revive
from jarvis.codec.values import MAX_VALUE_BYTES
from jarvis.entry_record import Body, encode_body, make_body, make_entry, may_hold_tags
from jarvis.errors import CorruptStoreError, StoreTooNewError
from jarvis.memory_entry import DEFAULT_NAMESPACE, MemoryEntry, check_namespace

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from jarvis.memory_entry import MemoryQuery

FORMAT = 1

_SEAL = re.compile(rb',\n  "checksum": "blake2b:([0-9a-f]{32})"\n}\n\Z')
_SEAL_BYTES = len(b',\n  "checksum": "blake2b:"\n}\n') + 32
_UNSEALED = (
    "its checksum does not match its content: it is damaged, or was edited by hand. Restore it from a copy; or, if "
    'the content is as you want it, remove the member "checksum" and the comma before it'
)
_FAR = 253_402_387_200_000_000  # a day past the year 9999, in microseconds


# --- one entry -----------------------------------------------------------------------------------


class _Stored(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """An entry as the file shows it. `value` is in the plain form of `jarvis.codec`."""

    id: str
    category: str
    key: str
    value: dict[str, Any]
    tags: list[str]
    entity_type: str
    entity_id: str | None
    timestamp: str
    provenance: dict[str, str]
    version: Annotated[int, msgspec.Meta(ge=1)]
    position: tuple[int, Annotated[int, msgspec.Meta(ge=0)]]
    fold: Annotated[int, msgspec.Meta(ge=0, le=1)] = 0
    zone: str | None = None

    def entry(self, *, plain: bool) -> MemoryEntry:
        """Return the entry, built of the parts of this object; raise ValueError if it is malformed."""
        body = Body(self.value, self.tags, self.provenance, (self.timestamp, self.fold, self.zone))
        return make_entry(
            self.id,
            self.category,
            self.key,
            self.entity_type,
            self.entity_id,
            self.version,
            self.position,
            body,
            plain=plain,
        )


class Record(msgspec.Struct, frozen=True):
    """A stored entry: what is looked up, ready, and the whole as the bytes that stand in the file.

    `label` is its id as it stands before those. `MemoryQuery.predicate` takes a record in place of an
    entry; the value is decoded only if it is asked for.
    """

    label: bytes
    fragment: bytes
    id: str
    category: str
    key: str
    tags: tuple[str, ...]
    entity_type: str
    entity_id: str | None
    version: int
    order: tuple[int, int, str]

    @property
    def value(self) -> Any:
        """The value, decoded anew."""
        value = _decode_stored(self.fragment).value
        return revive(value) if may_hold_tags(self.fragment) else value

    def entry(self) -> MemoryEntry:
        """Return the entry, decoded anew; raise ValueError if a tagged form or the time means nothing here."""
        return _decode_stored(self.fragment).entry(plain=not may_hold_tags(self.fragment))


_by_order = attrgetter("order")
_encode = msgspec.json.Encoder().encode
_decode_stored = msgspec.json.Decoder(_Stored).decode


class Draft:
    """An entry that was checked whole and waits for its version and commit number."""

    def __init__(self, entry: MemoryEntry) -> None:
        """Check `entry`; raise `InvalidEntryError` naming the field that cannot be kept exactly."""
        body, self._instant = make_body(entry)
        text, fold, zone = format_moment(entry.timestamp)
        self._stored = _Stored(
            entry.id,
            entry.category,
            entry.key,
            body.value,
            body.tags,
            entry.entity_type,
            entry.entity_id,
            text,
            entry.provenance,
            1,
            (self._instant, 0),
            fold,
            zone,
        )
        if len(_encode(self._stored)) > MAX_VALUE_BYTES:
            encode_body(entry)  # refuses by the rule, and in the words, of every backend

    def record(self, namespace: str, version: int, commit: int) -> Record:
        """Return the record to store in `namespace`."""
        self._stored.version, self._stored.position = version, (self._instant, commit)
        return _record(self._stored, _fragment(self._stored, namespace))


def _record(stored: _Stored, fragment: bytes) -> Record:
    return Record(
        b"%b: " % _encode(stored.id),
        fragment,
        stored.id,
        stored.category,
        stored.key,
        tuple(stored.tags),
        stored.entity_type,
        stored.entity_id,
        stored.version,
        (*stored.position, stored.id),
    )


def _fragment(stored: _Stored, namespace: str) -> bytes:
    margin = b"\n    " if namespace == DEFAULT_NAMESPACE else b"\n        "
    return msgspec.json.format(_encode(stored), indent=2).replace(b"\n", margin)  # no text holds a bare newline


# --- one namespace in memory ---------------------------------------------------------------------


class Room:
    """The records of a namespace by id and, built when first asked for, by what queries look up.

    Every list is sorted by `Record.order`, ascending. One that a snapshot holds is never changed.
    """

    def __init__(self, records: dict[str, Record]) -> None:
        self.records = records
        self._ordered: list[Record] | None = None
        self._indexes: dict[str, dict[str | None, list[Record]]] = {}

    def set(self, entry_id: str, record: Record | None) -> Record | None:
        """Put `record` where one with this id may be, or nothing; return what was there."""
        before = self.records.pop(entry_id, None) if record is None else self.records.get(entry_id)
        if before is not None:
            for records in self._lists_of(before):
                del records[bisect_left(records, before.order, key=_by_order)]
        if record is not None:
            self.records[entry_id] = record
            for records in self._lists_of(record):
                records.insert(bisect_left(records, record.order, key=_by_order), record)
        return before

    def candidates(self, query: MemoryQuery) -> Iterator[Record]:
        """Return, newest first, records among which are all that match; they are as they were at this call."""
        lists = [
            self._index(name).get(held, [])
            for name in ("key", "entity_id", "category", "entity_type")
            if (held := getattr(query, name)) is not None
        ]
        tagged: list[list[Record]] = []
        if query.tags is not None:
            tagged = [self._index("tags").get(tag, []) for tag in set(query.tags)]
            if not tagged:
                return iter(())
            if query.tags_match == "all" or len(tagged) == 1:
                lists += tagged
        chosen = min(lists, key=len) if lists else None
        if chosen is None:
            chosen = _merged(tagged) if tagged else self._all()
        since, until = query.instants
        start = 0 if since is None else bisect_left(chosen, (since,), key=_by_order)
        stop = len(chosen) if until is None else bisect_left(chosen, (until,), key=_by_order)
        if query.position is not None:
            stop = min(stop, bisect_left(chosen, query.position, key=_by_order))
        return reversed(chosen[start:stop])

    def _all(self) -> list[Record]:
        ordered = self._ordered
        if ordered is None:
            ordered = self._ordered = sorted(self.records.values(), key=_by_order)
        return ordered

    def _index(self, name: str) -> dict[str | None, list[Record]]:
        index = self._indexes.get(name)
        if index is None:
            index = {}
            for record in self._all():
                for held in _held(record, name):
                    index.setdefault(held, []).append(record)
            self._indexes[name] = index
        return index

    def _lists_of(self, record: Record) -> Iterator[list[Record]]:
        if self._ordered is not None:
            yield self._ordered
        for name, index in self._indexes.items():
            for held in _held(record, name):
                yield index.setdefault(held, [])


def _held(record: Record, name: str) -> Collection[str | None]:
    return set(record.tags) if name == "tags" else (getattr(record, name),)


def _merged(lists: list[list[Record]]) -> list[Record]:
    return sorted({record.id: record for records in lists for record in records}.values(), key=_by_order)


# --- the whole -----------------------------------------------------------------------------------


class Clock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The store's counters: the last commit number, and the last instant that was given out, if any."""

    commit: Annotated[int, msgspec.Meta(ge=0)]
    made: Annotated[int, msgspec.Meta(le=_FAR)] | None


class Contents(msgspec.Struct, frozen=True):
    """What a file holds. `first_life` says that its layout is not the one `render` writes."""

    namespaces: dict[str, dict[str, Record]]
    clock: Clock
    first_life: bool = False


def render(namespaces: Mapping[str, Iterable[Record]], clock: Clock) -> bytes:
    """Return the bytes of a file, sealed. A namespace without entries is left out."""
    pieces = [b'{\n  "format": %d,\n  ' % FORMAT, *_member(list(namespaces.get(DEFAULT_NAMESPACE, ())), b"  ")]
    before = b',\n  "namespaces": {\n    '
    for name, records in namespaces.items():
        entries = list(records)
        if name != DEFAULT_NAMESPACE and entries:
            pieces += [before, b"%b: {\n      " % _encode(name), *_member(entries, b"      "), b"\n    }"]
            before = b",\n    "
    if before == b",\n    ":
        pieces.append(b"\n  }")
    pieces.append(b',\n  "clock": %b' % msgspec.json.format(_encode(clock), indent=2).replace(b"\n", b"\n  "))
    text = b"".join(pieces)
    return b'%b,\n  "checksum": "blake2b:%b"\n}\n' % (text, _digest(text))


def _member(records: list[Record], margin: bytes) -> Iterator[bytes]:
    """Yield the member ``entries`` of an object in pieces, which are joined once."""
    if not records:
        yield b'"entries": {}'
        return
    before = b'"entries": {\n%b  ' % margin
    between = b",\n%b  " % margin
    for record in records:
        yield before
        yield record.label
        yield record.fragment
        before = between
    yield b"\n%b}" % margin


def _digest(text: bytes | memoryview) -> bytes:
    return hashlib.blake2b(text, digest_size=16).hexdigest().encode()


class _Namespace(msgspec.Struct, forbid_unknown_fields=True):
    entries: dict[str, msgspec.Raw]


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    entries: dict[str, msgspec.Raw]
    clock: Clock
    namespaces: dict[str, _Namespace] = {}
    checksum: str | None = None


class _Versioned(msgspec.Struct):
    format: int


def parse(path: str, data: bytes, known: Mapping[str, Mapping[str, Record]]) -> Contents:
    """Return what the bytes of the file at `path` hold.

    Args:
        path: what error messages name.
        data: the whole file.
        known: records by namespace and id; those whose bytes are still the same are taken over.

    Raises:
        CorruptStoreError: the bytes are not, whole and unchanged, what was written.
        StoreTooNewError: a newer version wrote them.
    """
    if not data:
        raise CorruptStoreError(path, "is empty, which a store never is: it is damaged; restore it from a copy")
    try:
        seal = _SEAL.search(data, max(len(data) - _SEAL_BYTES, 0))
        if seal is None:
            return _parse_unsealed(path, data)
        if _digest(memoryview(data)[: seal.start()]) != seal[1]:
            raise CorruptStoreError(path, _UNSEALED)
        _refuse_other_formats(path, msgspec.json.decode(data, type=_Versioned).format)
        return _read_document(path, data, known)
    except (ValueError, RecursionError) as error:
        raise CorruptStoreError(path, f"is not a JSON store: {error}; restore it from a copy") from None


def _parse_unsealed(path: str, data: bytes) -> Contents:
    doubled: list[object] = []  # objects in which a name stands twice

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(pairs)
        if len(built) != len(pairs):
            doubled.append(built)
        return built

    document = json.loads(data.decode("utf-8"), object_pairs_hook=collect)
    if type(document) is not dict:
        raise ValueError("it holds no object")
    if "format" not in document:
        return _read_first_life(path, document, doubled)
    if type(document["format"]) is not int:
        raise ValueError("its format is no number")
    _refuse_other_formats(path, document["format"])
    if "checksum" in document:
        raise CorruptStoreError(path, _UNSEALED)
    if doubled:
        raise ValueError("a name stands twice in an object")
    return _read_document(path, data, None)


def _refuse_other_formats(path: str, number: int) -> None:
    if number > FORMAT:
        raise StoreTooNewError(
            path, f"has format {number}, and this jarvis knows up to {FORMAT}; upgrade jarvis-memory"
        )
    if number != FORMAT:
        raise ValueError("there is no such format")


def _read_document(path: str, data: bytes, known: Mapping[str, Mapping[str, Record]] | None) -> Contents:
    """Return the contents of a format 1 file; `known` is None for a file that no checksum vouches for."""
    document = msgspec.json.decode(data, type=_Document)
    if DEFAULT_NAMESPACE in document.namespaces:
        raise ValueError(f'the namespace {DEFAULT_NAMESPACE!r} stands under "namespaces", not at the top')
    namespaces: dict[str, dict[str, Record]] = {}
    for name, namespace in {DEFAULT_NAMESPACE: _Namespace(document.entries), **document.namespaces}.items():
        check_namespace(name)
        before = {} if known is None else known.get(name, {})
        records = namespaces[name] = {}
        for number, (entry_id, raw) in enumerate(namespace.entries.items(), 1):
            fragment = bytes(raw)
            record = before.get(entry_id)
            if record is None or record.fragment != fragment:
                try:
                    record = _read_entry(entry_id, fragment, None if known is not None else name)
                except (ValueError, RecursionError) as error:
                    raise _malformed(path, number, name, error) from None
            records[entry_id] = record
    last = max((record.order[1] for records in namespaces.values() for record in records.values()), default=0)
    clock = Clock(max(document.clock.commit, last), document.clock.made)
    return Contents(namespaces, clock)


def _read_entry(entry_id: str, fragment: bytes, edited_in: str | None) -> Record:
    """Return the record in the bytes; if they were edited by hand, check them whole and write them anew."""
    stored = _decode_stored(fragment)
    if stored.id != entry_id:
        raise ValueError("its id is not the one it stands under")
    if edited_in is not None:
        stored.value = flatten(stored.entry(plain=False).value)
        fragment = _fragment(stored, edited_in)
    return _record(stored, fragment)


def _malformed(path: str, number: int, namespace: str, error: Exception) -> CorruptStoreError:
    problem = "a text holds a lone surrogate" if isinstance(error, UnicodeError) else str(error)
    return CorruptStoreError(
        path, f"entry number {number} of namespace {namespace!r} is malformed: {problem}; restore the file from a copy"
    )


# --- the first life ------------------------------------------------------------------------------


class _FirstLifeEntry(msgspec.Struct, forbid_unknown_fields=True):
    """The nine fields as the first life wrote them with `json.dumps`; the value is literal, not tagged."""

    id: str
    category: str
    key: str
    value: Any
    tags: list[str]
    entity_type: str
    entity_id: str | None
    timestamp: str
    provenance: dict[str, str]


def _read_first_life(path: str, document: dict[str, Any], doubled: list[object]) -> Contents:
    """Return the contents of a first life's file: no format, no checksum, naive times that mean local time.

    A name may stand twice inside a value (``json.dumps({1: …, "1": …})`` does that), where the last one
    counts, as it did then; anywhere else it is damage.
    """
    entries = document.get("entries")
    if type(entries) is not dict or not document.keys() <= {"entries", "updated_at"}:
        raise ValueError('it holds neither a "format" nor the "entries" of the first life alone')
    structure = [document, entries, *entries.values()]
    structure += [each["provenance"] for each in entries.values() if type(each) is dict and "provenance" in each]
    if any(each is other for each in doubled for other in structure):
        raise ValueError("a name stands twice in an object")
    records: dict[str, Record] = {}
    for number, (entry_id, plain) in enumerate(entries.items(), 1):
        try:
            records[entry_id] = _read_first_life_entry(entry_id, plain, number)
        except (ValueError, RecursionError) as error:
            raise _malformed(path, number, DEFAULT_NAMESPACE, error) from None
    return Contents({DEFAULT_NAMESPACE: records}, Clock(len(records), None), first_life=True)


def _read_first_life_entry(entry_id: str, plain: Any, commit: int) -> Record:
    old = msgspec.convert(plain, _FirstLifeEntry)
    if old.id != entry_id:
        raise ValueError("its id is not the one it stands under")
    if type(old.value) is not dict:
        raise ValueError("its value is no object")
    try:
        moment = parse_moment(datetime, old.timestamp)
        instant = instant_of(moment)
    except InvalidMomentError as error:
        raise ValueError(f"its timestamp {error}") from error
    stored = _Stored(
        old.id,
        old.category,
        old.key,
        flatten(old.value),
        old.tags,
        old.entity_type,
        old.entity_id,
        format_moment(moment)[0],
        old.provenance,
        1,
        (instant, commit),
    )
    return _record(stored, _fragment(stored, DEFAULT_NAMESPACE))
