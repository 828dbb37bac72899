"""Verifies a JSON store, and reads what is left of a damaged one: each memory by the lines that it stands on."""

from __future__ import annotations

import contextlib
import json
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import msgspec

from jarvis._disk import files
from jarvis._json.file import LastRead, parse
from jarvis._json.past import Archive, decode_kept
from jarvis._json.record import by_number, decode_stored
from jarvis._json.transferring import ended_entry, fields_of
from jarvis.errors import CorruptStoreError, JarvisError
from jarvis.model.entry import DEFAULT_NAMESPACE
from jarvis.model.portable import PastEntry, PortableEntry, WholeMemory
from jarvis.model.revision import REMOVALS
from jarvis.model.salvaged import FIRST_LIFE, NO_STORE, LostMemory, Salvaged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jarvis._json.record import Stored

_UNKNOWN = ""  # no namespace has this name
_NAMED = re.compile(rb'( *)("(?:[^"\\]|\\.)*"): ([{\[])\Z')
_FORMAT = b'"format"'
_SECTIONS = (b'"entries"', b'"history"')
_TOP, _BELOW = 4, 8  # the indents of what the default namespace and the others have
_ENDS = (b"}", b"},", b"]", b"],")
_encode = msgspec.json.Encoder().encode

Part = tuple[str, bool, str | None, bytes]
"""Namespace, whether it is a past state, the id in front of it, and its JSON."""


def findings(path: str, looked_at: Callable[[], object]) -> Iterator[str]:
    """Yield what is wrong with the store at a path; call `looked_at` for each state."""
    with files.explaining(path, "read"):
        data = files.read_regular(path)
    try:
        contents = parse(path, data, LastRead({}, {}))
    except CorruptStoreError as error:
        yield error.problem
        return
    for namespace in {*contents.namespaces, *contents.archives}:
        records, archive = contents.namespaces.get(namespace, {}), contents.archives.get(namespace, Archive())
        for record in (*records.values(), *archive.states):
            looked_at()
            try:
                record.entry()
            except (ValueError, RecursionError, JarvisError):
                yield "an entry cannot be decoded"
        for entry_id, states in archive.of_id.items():
            last = states[-1]
            if entry_id in records and by_number(records[entry_id]) < last.ended:
                yield "the past of a memory is not older than the memory"
            is_known = contents.clock.begins is not None and last.made >= contents.clock.begins
            if is_known and entry_id not in records and last.change.operation not in REMOVALS:
                yield "a memory is missing, and its past has no deletion: somebody removed it by hand"


def salvage(path: str) -> Salvaged:
    """Return what is left of the store at a path.

    Raises:
        CorruptStoreError: it is none, or nothing of it is left.
        StoreError: the file cannot be read.
    """
    with files.explaining(path, "read"):
        data = files.read_regular(path)
    try:
        parts = list(_parsed(json.loads(data)))
    except (ValueError, RecursionError):
        parts = list(_lines(data))
    present: dict[tuple[str, str], tuple[int, PortableEntry]] = {}
    past: defaultdict[tuple[str, str], list[tuple[int, PastEntry]]] = defaultdict(list)
    lost = set()
    for namespace, is_past, label, text in parts:
        try:
            if is_past:
                kept = decode_kept(text)
                past[namespace, kept.entry.id].append((kept.ended, ended_entry(kept.entry, kept.made, kept.change)))
            else:
                stored = _checked(namespace, label, text)
                present[namespace, stored.id] = stored.position[1], PortableEntry(*fields_of(stored))
        except (ValueError, RecursionError, JarvisError):
            if label is not None:
                lost.add(LostMemory(namespace, label))
    memories = []
    for place in sorted({*present, *past}, key=lambda each: (each[0], present.get(each, (0, None))[0])):
        states = [state for _, state in sorted(past[place], key=lambda each: each[0])]
        entry = present[place][1] if place in present else None
        memories.append(WholeMemory(*place, entry, states))
        if entry is None and states[-1].ended.operation not in REMOVALS:
            lost.add(LostMemory(*place))
    named = {LostMemory(each.namespace or "?", each.id) for each in lost}
    memories = [whole for whole in memories if whole.namespace != _UNKNOWN]
    if not memories and not (_SECTIONS[0] in data and _FORMAT in data):
        raise CorruptStoreError(path, FIRST_LIFE if _SECTIONS[0] in data else NO_STORE)
    return Salvaged(len(memories), memories, sorted(named))


def _checked(namespace: str, label: str | None, text: bytes) -> Stored:
    stored = decode_stored(text)
    WholeMemory(namespace, stored.id, PortableEntry(*fields_of(stored))).steps()
    if label is not None and label != stored.id:
        raise ValueError("it has another id than its name says")
    return stored


def _parsed(document: Any) -> Iterator[Part]:
    """Yield the parts of a file that is JSON as a whole."""
    if not isinstance(document, dict):
        return
    more = document.get("namespaces")
    for name, content in {DEFAULT_NAMESPACE: document, **(more if isinstance(more, dict) else {})}.items():
        if isinstance(content, dict):
            entries, history = content.get("entries"), content.get("history")
            for entry_id, stored in entries.items() if isinstance(entries, dict) else ():
                yield name, False, entry_id, _encode(stored)
            for kept in history if isinstance(history, list) else ():
                yield name, True, None, _encode(kept)


def _lines(data: bytes) -> Iterator[Part]:
    """Yield the parts of a file that is no JSON as a whole, as far as its lines show where each begins and ends."""
    namespace, section, margin = DEFAULT_NAMESPACE, b"", _TOP
    label: bytes | None = None
    waiting: list[bytes] = []
    for line in data.split(b"\n"):
        indent, content = len(line) - len(line.lstrip(b" ")), line.strip()
        named = _NAMED.match(line)
        ends, begins = content in _ENDS, bool(section) and indent == margin
        if waiting and not (begins and not ends):
            waiting.append(line)
            if begins:
                yield _part(namespace, section, label, waiting)
                waiting = []
            continue
        if waiting:  # the end of the one before is damaged
            yield _part(namespace, section, label, waiting)
            waiting = []
        if begins and not ends:
            label, waiting = None if named is None else named[2], [b"{"]
        elif indent == _TOP - 2:
            namespace, section, margin = DEFAULT_NAMESPACE, b"", _TOP
            if named is not None and named[2] in _SECTIONS:
                section = named[2]
        elif indent == _TOP and not ends and content:  # the name of a namespace should stand here
            namespace, section = (None if named is None else _text(named[2])) or _UNKNOWN, b""
            margin = _BELOW
        elif margin == _BELOW and indent == _BELOW - 2:
            section = named[2] if named is not None and named[2] in _SECTIONS else b""
    if waiting:
        yield _part(namespace, section, label, waiting)


def _part(namespace: str, section: bytes, label: bytes | None, lines: list[bytes]) -> Part:
    text = b"\n".join(lines).rstrip().removesuffix(b",")
    return namespace, section == _SECTIONS[1], None if label is None else _text(label), text


def _text(quoted: bytes) -> str | None:
    with contextlib.suppress(ValueError):
        return msgspec.json.decode(quoted, type=str)
    return None
