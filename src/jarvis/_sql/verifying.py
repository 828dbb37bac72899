"""Compares the rows of a store with their checksums and with each other; returns what is wrong, without content."""

from __future__ import annotations

import itertools
import operator
from typing import TYPE_CHECKING, Any

from jarvis._sql import registry, tables, word_check
from jarvis._sql.side_tables import described
from jarvis.model.record import Encoded, check_stored, creation_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jarvis._sql.session import Session
    from jarvis._sql.side_tables import SideTable

    Each = Callable[[str], Iterator[Any]]
    """Runs a statement, and yields its rows."""

_NAME = "(SELECT name FROM names WHERE {{here}} AND id = {})"
_ROWS = f"""
SELECT row, {_NAME.format("namespace")}, id, {_NAME.format("category")}, key, {_NAME.format("entity_type")}, entity_id,
    instant, version, {{columns}}, body, checksum FROM {{table}} WHERE {{here}} ORDER BY row
"""
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


def rows(table: str, columns: str, *, is_past: bool) -> str:
    """Return the statement that reads all states of a table for `states`; `columns` are those of `ALL` or NULL."""
    end = "ended, made" if is_past else "NULL, NULL"
    return _ROWS.replace("{columns}", f"{end}, {columns}").replace("{table}", table)


def findings(session: Session, looked_at: Callable[[], object]) -> Iterator[str]:
    """Yield what is wrong with the part of a store that a session sees; the session stands still.

    Args:
        session: to read on.
        looked_at: is called for each state.
    """
    driver = session.driver

    def each(sql: str) -> Iterator[Any]:
        return driver.each(driver.dialect.say(sql))

    for table in ("entries", "revisions"):
        is_past = table == "revisions"
        yield from states(each, rows(table, ALL, is_past=is_past), registry.SIDE_TABLES, looked_at, is_past=is_past)
    for checksum, *fields in each(_CLOCK):
        if tables.clock_checksum(tuple(fields)) != checksum:
            yield BAD_CLOCK
    clock = session.clock_seen()
    yield from past(each, clock.commit_number)
    yield from chains(session, clock.begins)
    yield from word_check.findings(session)


def states(
    each: Each, sql: str, sides: Sequence[SideTable], looked_at: Callable[[], object], *, is_past: bool
) -> Iterator[str]:
    """Compare states with their checksums and side tables: O(store), about 15 µs a state."""
    statements = ((side, side.stored(is_past=is_past)) for side in sides)
    stored = [(side, _Grouped(each(text))) for side, text in statements if text is not None]
    for *fields, ended, made, expires, packed, created, body, checksum in each(sql):
        looked_at()
        content = (*fields, expires) if expires is not None else tuple(fields)
        if tables.row_checksum(content, body, packed) != checksum:
            yield "an entry does not match its checksum"
        row, namespace, entry_id, category, key, entity_type, entity_id, instant, version = fields
        try:
            stored_body = check_stored(body, packed)
        except ValueError:
            yield "an entry cannot be decoded"
            for _, those in stored:
                those.of(row)
            continue
        if created != creation_of(stored_body, instant):
            yield "the moment of a creation is not the one of its entry"
        entry = described(entry_id, category, key, stored_body.tags, entity_type, entity_id, version, (instant, row))
        encoded = Encoded(body.encode(), packed, instant)
        for side, those in stored:
            finding = side.verify(namespace, entry, encoded, (ended, made) if is_past else None, those.of(row))
            if finding is not None:
                yield finding
    for side, those in stored:
        if not those.is_over():
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
