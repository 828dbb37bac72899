"""Mends dates ahead of the clock, which a clock that was once ahead has given, in one transaction.

An entry gets its new date by an ordinary change. Rows about past changes get a new date in place: no commit number,
version or cursor moves. Nobody ever saw the past in the order of the new dates, so questions as of a moment are
answered from the mending on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jarvis._sql import tables
from jarvis.model.mending import LEAST, Dated, redate_all

if TYPE_CHECKING:
    from jarvis._sql.session import Session
    from jarvis.model.mending import Entries

_FIRST_AHEAD = """
SELECT min(number) FROM (
    SELECT min(row) AS number FROM entries WHERE {here} AND instant > :now
    UNION ALL SELECT min(row) FROM revisions WHERE {here} AND instant > :now
    UNION ALL SELECT min(ended) FROM revisions WHERE {here} AND made > :now
    UNION ALL SELECT min(number) FROM events WHERE {here} AND made > :now) AS ahead
"""
_LAST_BEFORE = """
SELECT number, date FROM (
    SELECT row AS number, instant AS date FROM entries WHERE {here} AND row < :first AND instant <= :now
    UNION ALL SELECT ended, made FROM revisions WHERE {here} AND ended < :first AND made <= :now
    UNION ALL SELECT number, made FROM events WHERE {here} AND number < :first AND made <= :now) AS before
ORDER BY date DESC LIMIT 1
"""
_DATES = """
SELECT row, instant FROM entries WHERE {here} AND row >= :first
UNION ALL SELECT row, instant FROM revisions WHERE {here} AND row >= :first
UNION ALL SELECT ended, made FROM revisions WHERE {here} AND ended >= :first
UNION ALL SELECT number, made FROM events WHERE {here} AND number >= :first
"""
_ENTRIES = """
SELECT namespace, id, row FROM entries WHERE {here} AND row >= ? ORDER BY row
"""
_REVISIONS = "SELECT namespace, ended, made, change FROM revisions WHERE {here} AND made > ?"
_DATE_REVISION = "UPDATE revisions SET made = ?, change_checksum = ? WHERE namespace = ? AND ended = ?"
_STATES = """
SELECT ended, body, packed, checksum, instant, expires, row, version, namespace, id, category, key, entity_type,
    entity_id
FROM revisions WHERE {here} AND instant > ?
"""
_DATE_STATE = "UPDATE revisions SET instant = ?, checksum = ? WHERE namespace = ? AND ended = ?"
_EVENTS = (
    "SELECT number, made, namespace, change, id, category, key, version, count FROM events WHERE {here} AND made > ?"
)
_DATE_EVENT = "UPDATE events SET made = ?, checksum = ? WHERE {here} AND number = ?"
_NEWEST = "SELECT max(instant) FROM entries WHERE {here}"


def mend(session: Session, namespace: Callable[[str], Entries], now: int) -> int:
    """Mend the dates of the store; return how many entries got another one. No-op if its last moment has passed.

    Args:
        session: a session in a transaction that has changed nothing.
        namespace: returns the backend of a namespace, which takes part in the transaction.
        now: the present instant.
    """
    if session.clock.made - now <= LEAST:
        return 0
    first = session.rows(session.say(_FIRST_AHEAD), {"now": now})[0][0]
    new = {} if first is None else _mended(session, first, now)
    for namespace_id, ended, made, change in session.rows(session.say(_REVISIONS), (now,)):
        date = new.get(ended, min(made, now))
        checksum = tables.change_checksum(ended, date, change)
        session.run(_DATE_REVISION, (date, checksum, namespace_id, ended))
    for number, made, *fields in session.rows(session.say(_EVENTS), (now,)):
        date = new.get(number, min(made, now))
        session.run(session.say(_DATE_EVENT), (date, tables.event_checksum((number, date, *fields)), number))
    session.clock.begin_past_again(now)
    entries: list[Any] = [] if first is None else session.rows(session.say(_ENTRIES), (first,))
    count = redate_all(
        ((namespace(_name(session, namespace_id)), entry_id, new.get(row)) for namespace_id, entry_id, row in entries),
        now,
    )
    _redate_states(session, new, now)
    for side in session.side_tables:
        side.date_past(session, now)
    session.clock.let_lie_ahead((session.rows(session.say(_NEWEST))[0][0] or 0) - now)
    return count


def _redate_states(session: Session, new: dict[int, int], now: int) -> None:
    """Give past states a new date, also those that the mending has ended. Their content stays as it was."""
    states = session.rows(session.say(_STATES), (now,))
    for ended, body, packed, checksum, instant, expires, row, version, *ids in states:
        namespace, entry_id, category, key, entity_type, entity_id = ids
        names = (
            _name(session, namespace),
            entry_id,
            _name(session, category),
            key,
            _name(session, entity_type),
            entity_id,
        )
        end = (version,) if expires is None else (version, expires)
        if tables.row_checksum((row, *names, instant, *end), body, packed) != checksum:
            raise session.driver.corrupt("an entry does not match its checksum")
        date = new.get(row, instant)
        session.run(_DATE_STATE, (date, tables.row_checksum((row, *names, date, *end), body, packed), namespace, ended))


def _name(session: Session, name_id: int) -> str:
    name = session.names.text_of(name_id)
    if name is None:
        raise session.driver.corrupt("an entry has a name that is not there")
    return name


def _mended(session: Session, first: int, now: int) -> dict[int, int]:
    """Return the new dates, by number, of the changes from number `first` on that are dated ahead."""
    dated = Dated(now, session.clock.made, session.moment_of)
    for number, date in session.rows(session.say(_LAST_BEFORE), {"first": first, "now": now}):
        dated.add(number, date)
    for number, date in session.rows(session.say(_DATES), {"first": first}):
        dated.add(number, date)
    return dated.mended()
