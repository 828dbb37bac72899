"""Erases memories, their past and every row that names them, in one transaction.

The database itself cleans its files or pages after the commit: `Clock.erased` notes that this is due.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jarvis._sql import feed, indexing, registry, side_tables
from jarvis._sql.reading import can_be_looked_up
from jarvis._sql.select import every_state
from jarvis._sql.shape import tags_test
from jarvis._sql.tables import COMPACTING, COPIES, FOLDING
from jarvis.codec.compression import decompress
from jarvis.model import rules
from jarvis.model.entry import DEFAULT_NAMESPACE
from jarvis.model.erasure import Erased, Judge, Look, Wanted
from jarvis.model.query import MemoryQuery

if TYPE_CHECKING:
    from jarvis._sql.reading import Reader
    from jarvis._sql.session import Session

_OF_MEMORIES = [table for table in registry.own_tables() if table.counted]
_ALL_IDS = " UNION ".join(f"SELECT id FROM {table.name} WHERE namespace = :namespace" for table in _OF_MEMORIES)
_SAME = "WHERE namespace = :namespace AND id = :id"
_KNOWN = f"{' UNION ALL '.join(f'SELECT 1 FROM {table.name} {_SAME}' for table in _OF_MEMORIES)} LIMIT 1"
_STATES = "SELECT row, instant, body FROM {} WHERE namespace = ? AND id = ?"
_NO_STATE = """
NOT EXISTS (SELECT 1 FROM entries AS e WHERE e.namespace = n.namespace AND e.id = n.id)
AND NOT EXISTS (SELECT 1 FROM revisions AS r WHERE r.namespace = n.namespace AND r.id = n.id)
"""
_AT_ONCE = 1_000
TEXTS = {
    "entries": "id, key, entity_id, body, NULL, packed",
    "revisions": "id, key, entity_id, body, change, packed",
    "events": "id, key, NULL, NULL, change, NULL",
    "gaps": "id, key, entity_id, NULL, NULL, NULL",
}
"""By table: its columns with texts of memories, and the one with compressed text."""


def erase(session: Session, reader: Reader, which: str | MemoryQuery | None, judge: Judge | None) -> Erased:
    """Remove memories, their past and every row that names them; see `jarvis.capabilities.Erases.erase`."""
    namespace = reader.namespace
    # Also if no row is left: the file may hold bytes of entries that were deleted without history.
    session.clock.erased(COMPACTING | FOLDING | (COPIES if namespace == DEFAULT_NAMESPACE else 0))
    namespace_id = session.names.id_of(namespace)
    if namespace_id is None:
        return Erased((), {})
    if which is None:
        ids = tuple(entry_id for (entry_id,) in session.rows(_ALL_IDS, {"namespace": namespace_id}) if entry_id)
    elif isinstance(which, str):
        is_known = can_be_looked_up(which) and session.rows(_KNOWN, {"namespace": namespace_id, "id": which})
        ids = (which,) if is_known else ()
    else:
        ids = _matching(session, reader, which, judge)
    if not ids:
        return Erased((), {})
    session.clock.next_commit()
    removed = _remove_all(session, namespace_id) if which is None else _remove(session, namespace_id, ids)
    indexing.forget_erased(session)
    feed.keep_erasure(session, namespace, len(ids))
    return Erased(ids, {what: count for what, count in removed.items() if what and count})


def mentions(session: Session, wanted: Wanted) -> tuple[int, int]:
    """Return how many bytes the texts of the session's namespaces have, and how often ids stand there.

    Also in compressed values, of which the size is that of the text.
    """
    size = found = 0
    for table, columns in TEXTS.items():
        for *texts, packed in session.each(session.say(f"SELECT {columns} FROM {table} WHERE {{here}}")):
            parts = [text.encode() for text in texts if text is not None]
            if packed is not None:
                try:
                    parts.append(decompress(packed))
                except ValueError:  # its message may hold stored values
                    raise session.driver.corrupt("an entry cannot be decoded") from None
            size += sum(map(len, parts))
            found += sum(map(wanted.count, parts))
    return size, found


def look_through(session: Session, reader: Reader, look: Look) -> int:
    """Return what `look` finds in every state of the namespace, present or past, expired or not."""
    statement = every_state(MemoryQuery(), reader.namespace, session.names.id_of, session.dialect)
    rows = iter(()) if statement is None else session.each(*statement)
    return look(reader.entries(session, (row,))[0] for row in rows)


def _matching(session: Session, reader: Reader, query: MemoryQuery, judge: Judge | None) -> tuple[str, ...]:
    """Return the ids of the memories of which `query` matches any stored state, and `judge` agrees.

    Of pruned and expired states only category, key and entity are known: they match if the given ones do.
    If the query has other filters too, or a judge, only memories without any stored state are matched that way.
    """
    statement = every_state(query, reader.namespace, session.names.id_of, session.dialect)
    test, has_tags = query.test, tags_test(query)
    ids: dict[str, None] = {}
    if statement is not None:
        for row in session.each(*statement):
            _, entry_id, *_, body, packed = row
            if entry_id in ids or not (has_tags is None or has_tags(session.body(body))):
                continue
            if test is not None and not test(reader.value(entry_id, body, packed)):
                continue
            if judge is None or judge(reader.entries(session, (row,))[0]):
                ids[entry_id] = None
    given = rules.exact_filters(query)
    for name in {"category", "entity_type"} & given.keys():
        given[name] = session.names.id_of(given[name])
    if given:
        same = " AND ".join(f"{name} = :{name}" for name in given)  # NULL, for none or several, is no match
        if rules.asks_for_more(query) or judge is not None:
            same += f" AND {_NO_STATE}"
        sql = f"SELECT id FROM gaps AS n WHERE namespace = :namespace AND {same}"
        if given.keys() <= {"category", "key"}:
            sql += f" UNION SELECT id FROM events AS n WHERE namespace = :namespace AND id IS NOT NULL AND {same}"
        bindings = {**given, "namespace": session.names.id_of(reader.namespace)}
        ids.update((entry_id, None) for (entry_id,) in session.rows(sql, bindings))
    return tuple(ids)


def _remove_all(session: Session, namespace: int) -> Counter[str]:
    """Remove all rows of a namespace; return how many of each kind."""
    removed: Counter[str] = Counter()
    for side in session.side_tables:  # before the states, which they may look up
        removed[side.tables[0].counted] += side.erase(session, namespace)
    for table in _OF_MEMORIES:
        sql = f"DELETE FROM {table.name} WHERE namespace = ? AND id IS NOT NULL"  # earlier erasures have none, and stay
        removed[table.counted] += _changed(session, sql, (namespace,))
    return removed


def _remove(session: Session, namespace: int, ids: Sequence[str]) -> Counter[str]:
    """Remove all rows of these memories; return how many of each kind."""
    removed: Counter[str] = Counter(entries=0)  # first in the receipt
    for entry_id in ids:
        for states, take in (("entries", side_tables.take), ("revisions", side_tables.take_past)):
            for row, instant, encoded in session.rows(_STATES.format(states), (namespace, entry_id)):
                removed.update(take(session, (namespace, instant, row), session.body(encoded).tags))
    for start in range(0, len(ids), _AT_ONCE):
        part = ids[start : start + _AT_ONCE]
        for table in _OF_MEMORIES:
            sql = f"DELETE FROM {table.name} WHERE namespace = ? AND id IN ({', '.join('?' * len(part))})"
            removed[table.counted] += _changed(session, sql, (namespace, *part))
    return removed


def _changed(session: Session, sql: str, bindings: tuple[object, ...]) -> int:
    session.run(sql, bindings)
    return session.driver.changed()
