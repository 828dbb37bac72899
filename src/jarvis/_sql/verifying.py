"""Compares the rows of a store with their checksums and with each other; returns what is wrong, without content."""

from __future__ import annotations

import contextlib
import itertools
import operator
from typing import TYPE_CHECKING, Any

from jarvis._sql import registry, tables, word_check
from jarvis._sql.side_tables import described
from jarvis.model.portable import check_form
from jarvis.model.record import Encoded, creation_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jarvis._sql.session import Session
    from jarvis._sql.side_tables import SideTable

    Each = Callable[[str], Iterator[Any]]
    """Runs a statement, and yields its rows."""
    Ask = Callable[[str, Sequence[Any]], Sequence[Any]]
    """Runs a statement with values, and returns its rows, which are few."""

_ROWS = """
SELECT row, namespace, id, category, key, entity_type, entity_id, instant, version, {columns}, body, checksum
FROM {table} WHERE {here} ORDER BY row
"""
_MANY = 50_000
_SOME_NAMES = "SELECT id, name FROM names WHERE {here} LIMIT ?"
_NAME, _ID = (
    f"SELECT {column} FROM names WHERE {{here}} AND {by} = ?" for column, by in (("name", "id"), ("id", "name"))
)
ALL = "expires, packed, created"
_COMMITS = "SELECT first, last, moment FROM commits WHERE {here} ORDER BY last"
_CHANGES = "SELECT ended, made, change, change_checksum FROM revisions WHERE {here}"
_EVENTS = """
SELECT number, made, namespace, change, id, category, key, version, count, checksum FROM events WHERE {here}
"""
_CLOCK = f"SELECT checksum, {tables.CLOCK_COLUMNS} FROM clock WHERE {{here}}"
BAD_CLOCK = "its clock does not match its checksum"
_OUT_OF_ORDER = """
SELECT 1 FROM revisions AS r WHERE {here} AND (r.row >= r.ended OR EXISTS (
    SELECT 1 FROM entries AS e WHERE e.namespace = r.namespace AND e.id = r.id AND e.row < r.ended)) LIMIT 1
"""
_VANISHED = f"""
SELECT count(*) FROM revisions AS r WHERE {{here}} AND r.made >= ? AND NOT {tables.REMOVED}
    AND NOT EXISTS (SELECT 1 FROM entries AS e WHERE e.namespace = r.namespace AND e.id = r.id)
    AND NOT EXISTS (SELECT 1 FROM revisions AS l WHERE l.namespace = r.namespace AND l.id = r.id AND l.ended > r.ended)
"""


def findings(session: Session, looked_at: Callable[[], object]) -> Iterator[str]:
    """Yield what is wrong with the part of a store that a session sees; the session stands still."""
    driver = session.driver

    def each(sql: str) -> Iterator[Any]:
        return driver.each(driver.dialect.say(sql))

    states = States(each, lambda sql, values: driver.rows(driver.dialect.say(sql), values), registry.SIDE_TABLES)
    for table in ("entries", "revisions"):
        yield from states.findings(table, ALL, looked_at)
    for checksum, *fields in each(_CLOCK):
        if tables.clock_checksum(tuple(fields)) != checksum:
            yield BAD_CLOCK
    clock = session.clock_seen()
    yield from past(each, clock.commit_number)
    yield from chains(session, clock.begins)
    yield from word_check.findings(session)


class States:
    """Compares states with their checksums and side tables: O(store), about 7 µs a state.

    Args:
        each: runs long statements.
        ask: runs short ones, also before the end of a long one.
        sides: the side tables that the store has.
    """

    def __init__(self, each: Each, ask: Ask, sides: Sequence[SideTable]) -> None:
        self._each, self._sides = each, sides
        names: list[tuple[int, str]] = list(ask(_SOME_NAMES, (_MANY,)))
        self._texts = _Known(dict(names), lambda number: ask(_NAME, (number,)))
        self._ids = _Known({text: number for number, text in names}, lambda text: ask(_ID, (text,)))

    def findings(self, table: str, columns: str, looked_at: Callable[[], object]) -> Iterator[str]:
        """Yield what is wrong with the states in a table; `columns` are those of `ALL` or NULL.

        The rows of a side table are added up as hashes, in any order. If the sum is not that of the states, they are
        sorted, and compared with each state.
        """
        is_past, texts, ids = table == "revisions", self._texts, self._ids
        sums = {side: 0 for side in self._sides if side.summed(is_past=is_past) is not None}
        sql = _ROWS.replace("{table}", table)
        sql = sql.replace("{columns}", f"{'ended, made' if is_past else 'NULL, NULL'}, {columns}")
        for (
            row,
            namespace,
            entry_id,
            category,
            key,
            entity_type,
            entity_id,
            instant,
            version,
            ended,
            made,
            expires,
            packed,
            created,
            body,
            checksum,
        ) in self._each(sql):
            looked_at()
            encoded = body.encode()
            end = (version,) if expires is None else (version, expires)
            names = texts[namespace], entry_id, texts[category], key, texts[entity_type], entity_id
            if tables.row_checksum((row, *names, instant, *end), encoded, packed) != checksum:
                yield "an entry does not match its checksum"
            try:
                stored = check_form(encoded, packed)
            except ValueError:
                yield "an entry cannot be decoded"
                continue
            if created != creation_of(stored.provenance, instant):
                yield "the moment of a creation is not the one of its entry"
            if sums and stored.tags:
                place = (namespace, instant, row, category, entity_type)
                numbers = [ids[tag] for tag in set(stored.tags)]
                for side in sums:
                    sums[side] += sum(map(hash, side.rows_of(place, numbers, (ended, made) if is_past else ())))
        for side in self._sides:
            text = side.summed(is_past=is_past)
            if text is None or sum(map(hash, self._each(text))) != sums[side]:
                yield from self._compared(side, sql, is_past=is_past)

    def _compared(self, side: SideTable, sql: str, *, is_past: bool) -> Iterator[str]:
        """Compare the rows of a side table with those of each state."""
        text = side.stored(is_past=is_past)
        if text is None:
            return
        texts, rows = self._texts, _Grouped(self._each(text))
        for row, namespace, entry_id, category, key, entity_type, entity_id, instant, version, *more in self._each(sql):
            ended, made, _, packed, _, body, _ = more
            own = rows.of(row)
            with contextlib.suppress(ValueError):
                tags = check_form(body, packed).tags
                kind, position = texts[entity_type], (instant, row)
                entry = described(entry_id, texts[category], key, tags, kind, entity_id, version, position)
                encoded, end = Encoded(body.encode(), packed, instant), (ended, made) if is_past else None
                finding = side.verify(texts[namespace], entry, encoded, end, own)
                if finding is not None:
                    yield finding
        if not rows.is_over():
            yield f"it has {side.tables[0].counted or side.tables[0].name} that no entry has"


def past(each: Each, last_commit: int) -> Iterator[str]:
    """Compare changes, events and transactions with their checksums and with each other."""
    for ended, made, change, checksum in each(_CHANGES):
        if tables.change_checksum(ended, made, change) != checksum:
            yield "a change does not match its checksum"
    before = moved = 0
    for first, last, moment in each(_COMMITS):
        if not before < first <= last or moment < moved:
            yield "its transactions contradict each other"
        before, moved = last, moment
    if before > last_commit:
        yield "its table of transactions has commits that are missing"
    for *fields, checksum in each(_EVENTS):
        if tables.event_checksum(tuple(fields)) != checksum:
            yield "an event does not match its checksum"


def chains(session: Session, begins: int | None) -> Iterator[str]:
    """Compare the past of memories with their present: what its history does not remove must be there."""
    if session.rows(session.say(_OUT_OF_ORDER)):
        yield "the past of a memory is not older than the memory"
    if begins is not None and (vanished := session.rows(session.say(_VANISHED), (begins,))[0][0]):
        yield f"{vanished:,} memories are missing, and their past has no deletion: another program deleted them"


class _Known(dict[Any, Any]):
    """The names of some ids, or the ids of some names; None for one that is not there. Others are looked up."""

    def __init__(self, known: dict[Any, Any], look_up: Callable[[Any], Sequence[Any]]) -> None:
        super().__init__(known)
        self._look_up = look_up

    def __missing__(self, key: Any) -> Any:
        rows = list(self._look_up(key))
        if len(self) >= _MANY:
            self.clear()
        self[key] = rows[0][0] if rows else None
        return self[key]


class _Grouped:
    """Groups rows that have the same first column, by which they are ordered."""

    def __init__(self, rows: Iterator[tuple[Any, ...]]) -> None:
        self._groups = itertools.groupby(rows, operator.itemgetter(0))
        self._next = next(self._groups, None)

    def of(self, first: int) -> list[tuple[Any, ...]]:
        """Return the next group if its first column has this value, else no rows."""
        if self._next is None or self._next[0] != first:
            return []
        rows = list(self._next[1])
        self._next = next(self._groups, None)
        return rows

    def is_over(self) -> bool:
        """Tell whether there are no more."""
        return self._next is None
