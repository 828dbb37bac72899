"""Whole memories out of a namespace and into one: see `jarvis.capabilities.Transfers`."""

from __future__ import annotations

import contextlib
import heapq
import itertools
from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from jarvis._sql import entries, feed, pruning
from jarvis._sql.shape import as_json
from jarvis._sql.tables import change_checksum
from jarvis.errors import DuplicateEntryError
from jarvis.model.portable import Ending, Lost, PastEntry, PortableEntry, Step, WholeMemory, fields_of, text_at
from jarvis.model.record import Encoded, renewed
from jarvis.model.revision import REMOVALS, Signature

if TYPE_CHECKING:
    from jarvis._sql.session import Session

_A_PAGE = 256
"""How many memories are read at once."""

_SHARE = """
SELECT (SELECT count(*) FROM entries WHERE namespace = ?), (SELECT count(*) FROM entries WHERE {here})
"""
_NUMBERS = "SELECT row FROM entries WHERE namespace = ? ORDER BY row"
_NEXT_NUMBERS = "SELECT row FROM entries WHERE {unindexed}namespace = ? AND row > ? ORDER BY row LIMIT ?"
_NUMBERS_AT_ONCE, _SMALL = 4_096, 16
_REMOVED_AT = """
SELECT r.ended FROM revisions AS r WHERE r.namespace = :namespace
    AND NOT EXISTS (SELECT 1 FROM revisions AS l WHERE l.namespace = :namespace AND l.id = r.id AND l.ended > r.ended)
    AND NOT EXISTS (SELECT 1 FROM entries AS e WHERE e.namespace = :namespace AND e.id = r.id)
ORDER BY r.ended
"""
_STATE = "id, category, key, entity_type, entity_id, version, expires, body, packed"
_PRESENT = f"SELECT row, {_STATE} FROM entries WHERE namespace = ? AND row IN ({{numbers}}(?)) ORDER BY row"
_REMOVED = "SELECT ended, id FROM revisions WHERE namespace = ? AND ended IN ({numbers}(?))"
_PAST = f"""
SELECT made, change, {_STATE} FROM revisions WHERE namespace = ? AND id IN ({{members}}(?)) ORDER BY ended
"""
_GAP = "id, category, key, entity_type, entity_id, instant, made, expires"
_GAPS = f"SELECT {_GAP} FROM gaps WHERE namespace = ? AND id IN ({{members}}(?))"
_LOST = f"""
SELECT {_GAP} FROM gaps AS g WHERE g.namespace = :namespace AND g.id > :after
    AND NOT EXISTS (SELECT 1 FROM entries AS e WHERE e.namespace = :namespace AND e.id = g.id)
    AND NOT EXISTS (SELECT 1 FROM revisions AS r WHERE r.namespace = :namespace AND r.id = g.id)
ORDER BY g.id LIMIT :limit
"""
_KNOWN = "SELECT 1 FROM revisions WHERE namespace = ? AND id IN ({members}(?)) LIMIT 1"
_INSERT_PAST = """
INSERT INTO revisions (ended, made, change, change_checksum, row, namespace, id, category, key, entity_type, entity_id,
    instant, version, body, checksum, expires, packed, created)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_INSERT_GAP = f"{pruning.INTO_GAP} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) {pruning.WIDEN}"
_decode_change = msgspec.json.Decoder(Signature).decode

Encodings = Sequence[tuple[WholeMemory, Sequence[tuple[Step, Encoded]]]]
"""Memories with their states, the oldest first, and these as they are to be stored."""


_NEXT = "SELECT min(namespace) FROM {table}"
_IN_TABLE = f"""
WITH RECURSIVE found (item) AS (
    {_NEXT} UNION ALL SELECT ({_NEXT} WHERE namespace > found.item) FROM found WHERE item IS NOT NULL
)
SELECT name FROM found JOIN names ON names.id = found.item
"""


def namespaces(session: Session) -> set[tuple[str]]:
    """Return the names of the namespaces that have entries, a past or gaps."""
    tables = ("entries", "revisions", "gaps") if session.driver.keeps_past() else ("entries",)
    return {name for table in tables for name in session.rows(_IN_TABLE.format(table=table))}


# --- out --------------------------------------------------------------------------------------------


def pages(session: Session, namespace: str, *, past: bool) -> Iterator[list[WholeMemory]]:
    """Yield the memories of a namespace, by the commit number of the last change of each, a page at a time.

    Those of which nothing but a gap is left come last, by their ids. With `past` False only present states are read.
    """
    with contextlib.nullcontext() if session.is_still else session.standing_still():
        number = session.names.fresh_id_of(namespace)
        if number is None:
            return
        past = past and session.driver.keeps_past()
        reader = _Reader(session, namespace, number, past=past)
        removed = array("q")
        if reader.has_past:
            removed.extend(ended for (ended,) in session.each(_REMOVED_AT, {"namespace": number}))
        merged = heapq.merge(((row, True) for row in _rows(session, number)), ((ended, False) for ended in removed))
        while page := list(itertools.islice(merged, _A_PAGE)):
            yield reader.page([row for row, is_there in page if is_there], [n for n, is_there in page if not is_there])
        if reader.has_gaps:
            yield from reader.lost()


def _rows(session: Session, namespace: int) -> Iterator[int]:
    """Yield the rows of a namespace, ascending, in memory that does not grow with their number.

    Where rows are numbered throughout the store, those of a small namespace are collected and sorted; those of a large
    one are found by looking at all.
    """
    ((own, of_all),) = session.rows(session.say(_SHARE), (namespace,))
    if own * _SMALL < of_all:
        yield from array("q", (row for (row,) in session.each(_NUMBERS, (namespace,))))
        return
    after = -1
    while page := session.rows(session.say(_NEXT_NUMBERS), (namespace, after, _NUMBERS_AT_ONCE)):
        after = page[-1][0]
        yield from (row for (row,) in page)


class _Reader:
    """Reads whole memories of one namespace on a session that stands still."""

    def __init__(self, session: Session, namespace: str, number: int, *, past: bool) -> None:
        self._session, self._namespace, self._number = session, namespace, number
        self.has_past, self.has_gaps = (
            past and bool(session.rows(f"SELECT 1 FROM {table} WHERE namespace = ? LIMIT 1", (number,)))
            for table in ("revisions", "gaps")
        )

    def page(self, rows: list[int], removed: list[int]) -> list[WholeMemory]:
        """Return the memories with these present rows, and those that these changes removed, in their order."""
        found: list[tuple[int, str, PortableEntry | None]] = []
        for row, entry_id, *state in self._rows(_PRESENT, rows):
            found.append((row, entry_id, PortableEntry(*self._fields(*state))))
        if removed:
            found += [(ended, entry_id, None) for ended, entry_id in self._rows(_REMOVED, removed)]
            found.sort(key=lambda each: each[0])
        past: dict[str, list[PastEntry]] = {}
        lost: dict[str, Lost] = {}
        ids = [entry_id for _, entry_id, _ in found]
        if self.has_past:
            for made, change, entry_id, *state in self._rows(_PAST, ids):
                past.setdefault(entry_id, []).append(self._ended(made, change, state))
        if self.has_gaps:
            lost = {entry_id: self._lost(*fields) for entry_id, *fields in self._rows(_GAPS, ids)}
        return [
            WholeMemory(self._namespace, entry_id, entry, past.get(entry_id, []), lost.get(entry_id))
            for _, entry_id, entry in found
        ]

    def lost(self) -> Iterator[list[WholeMemory]]:
        """Yield the memories of which only a gap is left, by id."""
        after = ""
        while True:
            page = {"namespace": self._number, "after": after, "limit": _A_PAGE}
            rows = self._session.rows(_LOST, page)
            if rows:
                yield [WholeMemory(self._namespace, row[0], lost=self._lost(*row[1:])) for row in rows]
                after = rows[-1][0]
            if len(rows) < _A_PAGE:
                return

    def _rows(self, sql: str, among: Sequence[int | str]) -> list[Any]:
        return self._session.rows(self._session.say(sql), (self._number, as_json(among)))

    def _fields(
        self,
        category: int,
        key: str,
        entity_type: int,
        entity_id: str | None,
        version: int,
        expires: int | None,
        body: str,
        packed: bytes | None,
    ) -> tuple[Any, ...]:
        names = self._name(category), key, self._name(entity_type), entity_id
        try:
            return fields_of(names, version, expires, body, packed)
        except ValueError:
            raise self._session.driver.corrupt("an entry cannot be decoded") from None

    def _ended(self, made: int, change: str, state: list[Any]) -> PastEntry:
        try:
            operation, *author = _decode_change(change)
        except ValueError:
            raise self._session.driver.corrupt("a change cannot be decoded") from None
        return PastEntry(*self._fields(*state), ended=Ending(operation, text_at(made), *author))

    def _lost(
        self,
        category: int | None,
        key: str | None,
        entity_type: int | None,
        entity_id: str | None,
        instant: int,
        made: int,
        expires: int | None,
    ) -> Lost:
        named = {"category": category, "entity_type": entity_type}
        known: dict[str, Any] = {name: self._name(each) for name, each in named.items() if each is not None}
        if key is not None:
            known["key"] = key
        if entity_id is not None:
            known["entity_id"] = entity_id
        expired_at = None if expires is None else text_at(expires)
        return Lost(text_at(instant), text_at(made), expired_at, **known)

    def _name(self, number: int) -> str:
        return self._session.names.texts.get(number) or self._session.names.texts_of([number])[0]


# --- in ---------------------------------------------------------------------------------------------


def load(session: Session, namespace: str, several: Encodings, since: int | None) -> None:
    """Store memories; see `jarvis.capabilities.Transfers.load`.

    Raises:
        DuplicateEntryError: an id is taken, or has a past here.
    """
    number = session.names.intern(namespace)
    ids = as_json([whole.id for whole, _ in several])
    if session.driver.keeps_past() and session.rows(session.say(_KNOWN), (number, ids)):
        raise DuplicateEntryError(f"one of the ids has a past in namespace {namespace!r} of {session.path}")
    for is_plain, group in itertools.groupby(several, lambda each: not each[0].past and each[0].lost is None):
        members = list(group)
        if not is_plain or not _load_present(session, namespace, members):
            for whole, states in members:
                _load_whole(session, namespace, number, whole, states)
    if since is not None:
        session.clock.take_over(since)
    else:
        _tell(session, number, several)


def _load_present(session: Session, namespace: str, several: Encodings) -> bool:
    """Store memories without a past at once; return False, and store none, if that does not work."""
    part = [(step.entry, encoded) for _, ((step, encoded),) in several]
    return entries.insert_at_once(session, namespace, part, [entry.version for entry, _ in part])


def _load_whole(
    session: Session, namespace: str, number: int, whole: WholeMemory, states: Sequence[tuple[Step, Encoded]]
) -> None:
    """Store a memory with its past; if no past is kept, without it."""
    begun = None
    if not session.history.keep_any:
        states = [state for state in states if state[0].made is None]
    elif whole.lost is not None:
        begun = _load_gap(session, number, whole.id, whole.lost)
    for step, encoded in states:
        begun = session.clock.next_commit() if begun is None else begun
        if step.renews:
            encoded = encoded._replace(body=renewed(encoded.body))
        row = entries.row_of(session, namespace, step.entry, encoded, begun, step.entry.version)
        session.clock.wrote(begun, encoded.instant)
        place = (number, encoded.instant, begun)
        has_rows = [side for side in session.side_tables if step.entry.tags or not side.needs_tags]
        if step.made is None or step.signature is None:
            if not session.put(entries.INSERT, row):
                raise _taken(session, namespace)
            for side in has_rows:
                side.put(session, (*place, row[3], row[5]), step.entry, encoded)
            return
        ended, change = session.clock.next_commit(), feed.written(step.signature)
        session.run(_INSERT_PAST, (ended, step.made, change, change_checksum(ended, step.made, change), *row))
        session.clock.let_pass(step.made)
        for side in has_rows:
            side.put(session, (*place, row[3], row[5]), step.entry, encoded)
            side.keep(session, place, step.entry.tags, (ended, step.made))
        begun = None if step.signature.operation in REMOVALS else ended


def _load_gap(session: Session, number: int, entry_id: str, lost: Lost) -> int:
    """Store that states are missing; return the number of the change that ended them."""
    first, ended = session.clock.next_commit(), session.clock.next_commit()
    since, until, expires = lost.instants
    category, entity_type = (
        None if name is msgspec.UNSET else session.names.intern(name) for name in (lost.category, lost.entity_type)
    )
    key, entity_id = (None if text is msgspec.UNSET else text for text in (lost.key, lost.entity_id))
    named = (number, entry_id, category, key, entity_type, entity_id)
    session.run(_INSERT_GAP, (*named, first, since, ended, until, expires))
    session.clock.let_pass(until)
    return ended


def _tell(session: Session, number: int, several: Encodings) -> None:
    """Tell the feed of memories whose rows tell of no creation."""
    made, change = session.clock.dated(), feed.signed(session, "create")
    for whole, states in several:
        if not whole.past and states and states[0][0].entry.version > 1:
            entry = states[0][0].entry
            named = (entry.id, session.names.intern(entry.category), entry.key)
            place = (session.clock.next_commit(), made, number)
            feed.keep(session, place, change, named, entry.version)


def _taken(session: Session, namespace: str) -> DuplicateEntryError:
    return DuplicateEntryError(f"one of the ids is taken in namespace {namespace!r} of {session.path}")
