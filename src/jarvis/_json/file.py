"""The JSON store's file: records to bytes and back. It notices damage, and reads files of the first life.

Layout, format 4, UTF-8 (a file that an editor saved with a byte order mark is read, too), two spaces of indent;
"history", "gaps", "events", "commits" and "erasing" are left out if they are empty::

    {
      "format": 4,
      "entries": {id: {the nine fields, "version", "position", perhaps "fold", "zone", "expires_at", "renewed"}},
      "history": [{"ended": commit number, "made": instant, "change": {"operation", …}, "entry": {as above}}],
      "gaps": [{"id", "first", "instant", "ended", "made", …}; see `Gap`],
      "events": [{"number": commit number, "made": instant, "operation", …}; see `Event`],
      "namespaces": {name: {"entries": {…}, "history": […], "gaps": […], "events": […]}},
      "erased": {digest of a namespace's name: {"entries": {}, "events": [that it was erased]}},
      "clock": {
        "commit": last commit number, "made": last instant given, "begins": the instant where the past begins; or null,
        "fed_from": every change with a greater number than this is known,
        "generation": a random number, in each cursor of the feed,
        "copied": 1 in a copy that nobody has written to, 2 in a store that was such a copy
      },
      "commits": [{"first", "last", "made"}; see `Span`],
      "erasing": true, if copies of the first life's file are still to be removed,
      "checksum": "blake2b:<digest of every byte before the comma that precedes this member>"
    }

Format 1 has no past: no "history", "gaps", "events", "begins", "fed_from" and "commits". Format 2 has no expiry:
no "expires_at", and no "expires" in gaps; and no "erasing". Format 3 has no "generation" and no "copied".

A file that ends with a checksum is *sealed*: with one wrong byte anywhere it is refused. A file without a checksum
was edited by hand, or is of the first life. It is read only if it has no unknown member, no name twice in an object,
every entry whole and the past in its order. A flipped bit in the name ``checksum`` makes an unknown member, and a file
that was cut short lacks its last brace: no single damage makes a sealed file look like one that was edited by hand.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

import msgspec

from jarvis._disk import files
from jarvis._disk.encodings import encoding_of
from jarvis._disk.files import Stamp, explaining
from jarvis._json.event import ERASED, check_order, read_event
from jarvis._json.first_life import read_first_life
from jarvis._json.past import Archive, Gap, Span, read_state
from jarvis._json.record import (
    FAR,
    Record,
    decode_stored,
    encode,
    fragment_of,
    indented,
    make_record,
    malformed,
    normalize,
)
from jarvis.codec.nesting import ran_out, stack_error
from jarvis.errors import WAY_OUT, CorruptStoreError, StackFullError, StoreBusyError, StoreTooNewError
from jarvis.model.change import new_generation
from jarvis.model.entry import DEFAULT_NAMESPACE, check_namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from jarvis._json.event import StoredEvent
    from jarvis._json.past import State

Kept = TypeVar("Kept", "State", "StoredEvent")

_MAX_READS = 10  # of a file that somebody writes to in place, not as we do
FORMAT = 4
_FORMATS = (1, 2, 3, 4)
_EXPIRING = 3  # the first with expiry
_MARKING = 4  # the first with generations

COPY, RESTORED = 1, 2

_SEAL = re.compile(rb',\n  "checksum": "blake2b:([0-9a-f]{32})"\n}\n\Z')
_SEAL_BYTES = len(b',\n  "checksum": "blake2b:"\n}\n') + 32
_UNSEALED = (
    f"its checksum does not match its content: it is damaged, or was edited by hand. If it is damaged, {WAY_OUT}; if "
    'the content is as you want it, remove the member "checksum" and the comma before it'
)


# --- the whole -----------------------------------------------------------------------------------


class Clock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The store's counters: the last commit number, and the last instant that was given out, if any.

    The past is known from the instant `begins` on, if any is kept. All changes with greater numbers than `fed_from` are
    known; where a file does not tell that, it is -1, and none is known. `generation` is in each cursor of the feed, 0
    if an older version wrote the file. `copied` is `COPY` in a copy that nobody has written to, and `RESTORED` in a
    store that was such a copy.
    """

    commit: Annotated[int, msgspec.Meta(ge=0)]
    made: Annotated[int, msgspec.Meta(le=FAR)] | None
    begins: Annotated[int, msgspec.Meta(le=FAR)] | None = None
    fed_from: Annotated[int, msgspec.Meta(ge=0)] = -1
    generation: Annotated[int, msgspec.Meta(ge=0)] = 0
    copied: Annotated[int, msgspec.Meta(ge=0, le=RESTORED)] = 0

    def to_be_written(self) -> Clock:
        """Return the clock for the next write: it has a generation, and in a copy a new one."""
        if self.generation and self.copied != COPY:
            return self
        copied = RESTORED if self.copied == COPY else self.copied
        return msgspec.structs.replace(self, generation=new_generation(), copied=copied)


class Contents(msgspec.Struct, frozen=True):
    """The content of a file. `first_life` says that its layout is not that of `render`."""

    namespaces: dict[str, dict[str, Record]]
    clock: Clock
    archives: dict[str, Archive] = {}
    spans: list[Span] = []
    first_life: bool = False
    erasing: bool = False


def render(
    namespaces: Mapping[str, Iterable[Record]],
    archives: Mapping[str, Archive],
    clock: Clock,
    spans: list[Span],
    *,
    erasing: bool,
) -> bytes:
    """Return the bytes of a file, sealed. A namespace without entries and past is left out."""
    none, nothing = (), Archive()
    pieces = [b'{\n  "format": %d,\n  ' % FORMAT]
    pieces += _members(namespaces.get(DEFAULT_NAMESPACE, none), archives.get(DEFAULT_NAMESPACE, nothing), b"  ")
    names = [name for name in dict.fromkeys([*namespaces, *archives]) if name != DEFAULT_NAMESPACE]
    for title, is_erased in ((b"namespaces", False), (b"erased", True)):
        before = b',\n  "%b": {\n    ' % title
        for name in names:
            entries, archive = list(namespaces.get(name, none)), archives.get(name, nothing)
            if name.startswith(ERASED) is is_erased and (entries or archive):
                label = encode(name.removeprefix(ERASED))
                pieces += [before, b"%b: {\n      " % label, *_members(entries, archive, b"      "), b"\n    }"]
                before = b",\n    "
        if before == b",\n    ":
            pieces.append(b"\n  }")
    pieces.append(b',\n  "clock": %b' % indented(clock, b"\n  "))
    if spans:
        pieces.append(b',\n  "commits": %b' % indented(spans, b"\n  "))
    if erasing:
        pieces.append(b',\n  "erasing": true')
    text = b"".join(pieces)
    return b'%b,\n  "checksum": "blake2b:%b"\n}\n' % (text, _digest(text))


def _members(records: Iterable[Record], archive: Archive, margin: bytes) -> Iterator[bytes]:
    """Yield the members of a namespace's object, in pieces that `render` joins at once."""
    first = before = b'"entries": {\n%b  ' % margin
    between = b",\n%b  " % margin
    for record in records:
        yield before
        yield record.label
        yield record.fragment
        before = between
    yield b'"entries": {}' if before is first else b"\n%b}" % margin
    yield from _listed(b"history", archive.states, margin)
    if archive.gaps:
        yield b',\n%b"gaps": %b' % (margin, indented(list(archive.gaps.values()), b"\n" + margin))
    yield from _listed(b"events", archive.events, margin)


def _listed(name: bytes, items: Iterable[State | StoredEvent], margin: bytes) -> Iterator[bytes]:
    first = before = b',\n%b"%b": [\n%b  ' % (margin, name, margin)
    for each in items:
        yield before
        yield each.fragment
        before = b",\n%b  " % margin
    if before is not first:
        yield b"\n%b]" % margin


def _digest(text: bytes | memoryview) -> bytes:
    return hashlib.blake2b(text, digest_size=16).hexdigest().encode()


class _Namespace(msgspec.Struct, forbid_unknown_fields=True):
    entries: dict[str, msgspec.Raw]
    history: list[msgspec.Raw] = []
    gaps: list[Gap] = []
    events: list[msgspec.Raw] = []


class _Document(_Namespace, forbid_unknown_fields=True, kw_only=True):
    format: int
    clock: Clock
    namespaces: dict[str, _Namespace] = {}
    erased: dict[str, _Namespace] = {}
    commits: list[Span] = []
    erasing: bool = False
    checksum: str | None = None


class _Versioned(msgspec.Struct):
    format: int


class LastRead(NamedTuple):
    """The records and archives that were read before, by namespace. Those with the same bytes are not read again."""

    records: Mapping[str, Mapping[str, Record]]
    archives: Mapping[str, Archive]


def parse(path: str, data: bytes, last: LastRead) -> Contents:
    """Return the contents in the bytes of the file at `path`.

    Args:
        last: the contents that were read before.

    Raises:
        CorruptStoreError: the bytes are incomplete or changed.
        StoreTooNewError: a newer version wrote them.
        StackFullError: they are nested too deep for what is left of the call stack.
    """
    if not data:
        raise CorruptStoreError(path, f"is empty, which a store never is: it is damaged; {WAY_OUT}")
    try:
        encoding = encoding_of(data)
        if encoding != "utf-8":  # an editor put a byte order mark in front, and perhaps changed nothing else
            data = data.decode(encoding).encode()
        seal = _SEAL.search(data, max(len(data) - _SEAL_BYTES, 0))
        if seal is None:
            return _parse_unsealed(path, data)
        if _digest(memoryview(data)[: seal.start()]) != seal[1]:
            raise CorruptStoreError(path, _UNSEALED)
        _refuse_other_formats(path, msgspec.json.decode(data, type=_Versioned).format)
        return _read_document(path, data, last)
    except (ValueError, RecursionError) as error:
        problem = stack_error(data) if type(error) is RecursionError else error
        if ran_out(problem):
            raise StackFullError from None
        raise CorruptStoreError(path, f"is not a JSON store: {problem}; {WAY_OUT}") from None


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
        records = read_first_life(path, document, doubled)
        return _without_past(Contents({DEFAULT_NAMESPACE: records}, Clock(len(records), None), first_life=True))
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
    if number not in _FORMATS:
        raise ValueError("there is no such format")


def _read_document(path: str, data: bytes, last: LastRead | None) -> Contents:
    """Return the contents of a file with a format; `last` is None if it has no checksum."""
    document = msgspec.json.decode(data, type=_Document)
    if DEFAULT_NAMESPACE in document.namespaces:
        raise ValueError(f'the namespace {DEFAULT_NAMESPACE!r} stands under "namespaces", not at the top')
    namespaces: dict[str, dict[str, Record]] = {}
    archives: dict[str, Archive] = {}
    for name, namespace in {DEFAULT_NAMESPACE: document, **document.namespaces}.items():
        check_namespace(name)
        namespaces[name] = _read_entries(path, name, namespace, last)
        if namespace.history or namespace.gaps or namespace.events:
            archives[name] = _read_archive(path, name, namespace, last)
    for digest, erased in document.erased.items():
        if erased.entries or erased.history or erased.gaps:
            raise ValueError("it holds more than the event of an erasure")
        archives[ERASED + digest] = _read_archive(path, ERASED + digest, erased, last)
    if last is None:
        _check_past(document, archives.values())
        if document.format < _EXPIRING and (document.erasing or _has_expiry(namespaces.values(), archives.values())):
            raise ValueError(f"format {document.format} has no expiry, and no unfinished erasure")
        if document.format < _MARKING and (document.clock.generation or document.clock.copied):
            raise ValueError(f"format {document.format} has no generation")
    clock = _clock_after(document, namespaces, archives)
    contents = Contents(namespaces, clock, archives, document.commits, erasing=document.erasing)
    return contents if document.format > 1 else _without_past(contents)


def _read_entries(path: str, name: str, namespace: _Namespace, last: LastRead | None) -> dict[str, Record]:
    before = {} if last is None else last.records.get(name, {})
    records = {}
    for number, (entry_id, raw) in enumerate(namespace.entries.items(), 1):
        fragment = bytes(raw)
        record = before.get(entry_id)
        if record is None or record.fragment != fragment:
            try:
                record = _read_entry(entry_id, fragment, None if last is not None else name)
            except (ValueError, RecursionError) as error:
                raise malformed(path, f"entry number {number}", name, error) from None
        records[entry_id] = record
    return records


def _read_archive(path: str, name: str, namespace: _Namespace, last: LastRead | None) -> Archive:
    before = Archive() if last is None else last.archives.get(name, Archive())

    def read(
        raws: list[msgspec.Raw], before: list[Kept], read_one: Callable[[bytes, str | None], Kept], title: str
    ) -> Iterator[Kept]:
        read_before = {each.fragment: each for each in before}
        for number, raw in enumerate(raws, 1):
            fragment = bytes(raw)
            item = read_before.get(fragment)
            if item is None:
                try:
                    item = read_one(fragment, None if last is not None else name)
                except (ValueError, RecursionError) as error:
                    raise malformed(path, f"{title} number {number}", name, error) from None
            yield item

    states = read(namespace.history, before.states, read_state, "past state")
    return Archive(states, namespace.gaps, read(namespace.events, before.events, read_event, "event"))


def _clock_after(
    document: _Document, namespaces: Mapping[str, Mapping[str, Record]], archives: Mapping[str, Archive]
) -> Clock:
    """Return the clock, with the greatest number of any change: a file edited by hand may hold a greater one."""
    clock = document.clock
    numbers = [record.order[1] for records in namespaces.values() for record in records.values()]
    numbers += [archive.states[-1].ended for archive in archives.values() if archive.states]
    numbers += [gap.ended for archive in archives.values() for gap in archive.gaps.values()]
    numbers += [archive.events[-1].number for archive in archives.values() if archive.events]
    numbers += [span.last for span in document.commits[-1:]]
    commit = max(clock.commit, clock.fed_from, *numbers, 0)
    fed_from = commit if clock.fed_from < 0 else clock.fed_from
    return msgspec.structs.replace(clock, commit=commit, fed_from=fed_from)


def _check_past(document: _Document, archives: Iterable[Archive]) -> None:
    """Raise ValueError if no changes can have made such a past."""
    clock, spans = document.clock, document.commits
    archives = list(archives)
    if document.format == 1 and (any(archives) or spans or clock.begins is not None or clock.fed_from >= 0):
        raise ValueError("format 1 has no past")
    made = -FAR if clock.made is None else clock.made
    if clock.begins is not None and clock.begins > made:
        raise ValueError("its past begins after its end")
    numbers = [number for span in spans for number in (span.first, span.last + 1)]
    if numbers != sorted(numbers) or any(span.first > span.last for span in spans):
        raise ValueError("its commits are out of order")
    _check_instants([span.made for span in spans], made, "commits")
    for archive in archives:
        ended = [state.ended for state in archive.states]
        if any(one >= other for one, other in pairwise(ended)):
            raise ValueError("its history is out of order")
        _check_instants(sorted(state.made for state in archive.states), made, "history")
        check_order(archive.events, ended)
        told = sorted(
            event.made for event in archive.events if event.operation != "create"
        )  # a creation has the entry's own timestamp
        _check_instants(told, made, "events")
    for namespace in (document, *document.namespaces.values()):
        if len({gap.id for gap in namespace.gaps}) != len(namespace.gaps):
            raise ValueError("an entry has several gaps")


def _has_expiry(namespaces: Iterable[Mapping[str, Record]], archives: Iterable[Archive]) -> bool:
    records = [record for entries in namespaces for record in entries.values()]
    records += [state for archive in archives for state in archive.states]
    gaps = [gap for archive in archives for gap in archive.gaps.values()]
    return any(each.expires is not None for each in records) or any(gap.expires is not msgspec.UNSET for gap in gaps)


def _check_instants(instants: list[int], made: int, name: str) -> None:
    if instants != sorted(instants) or (instants and instants[-1] > made):
        raise ValueError(f"the instants of its {name} are out of order")


def _without_past(contents: Contents) -> Contents:
    """Return the contents from an older version, with a past that begins at their last change."""
    clock, made = contents.clock, contents.clock.made
    instants = [record.order[0] for records in contents.namespaces.values() for record in records.values()]
    if made is None and instants:
        made = min(time.time_ns() // 1000, max(instants))
    spans = [Span(1, clock.commit, made)] if made is not None and clock.commit else []
    return Contents(contents.namespaces, Clock(clock.commit, made, made, clock.commit), {}, spans, contents.first_life)


def _read_entry(entry_id: str, fragment: bytes, edited_in: str | None) -> Record:
    """Return the record in the bytes; if they were edited by hand, check and encode all of it."""
    stored = decode_stored(fragment)
    if stored.id != entry_id:
        raise ValueError("its id is not the one it stands under")
    if edited_in is not None:
        normalize(stored)
        fragment = fragment_of(stored, edited_in)
    return make_record(stored, fragment)


def read_whole(path: str) -> tuple[bytes, Stamp, int]:
    """Return the bytes of the file, their stamp, and the descriptor, still open."""
    for _ in range(_MAX_READS):
        with explaining(path, "read"):
            descriptor = files.open_regular(path, os.O_RDONLY)
            try:
                stamp = Stamp.of(os.fstat(descriptor))
                with open(descriptor, "rb", closefd=False) as file:
                    data = file.read()
                if Stamp.of(os.fstat(descriptor)) == stamp:
                    return data, stamp, descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
    raise StoreBusyError(path, "another program keeps writing to it, so it cannot be read whole; retry")


def size_of(path: Path) -> int:
    """Return how many bytes a store's file takes."""
    with explaining(path, "look at its size"):
        return os.stat(path).st_size
