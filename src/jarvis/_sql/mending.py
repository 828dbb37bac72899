"""Dates that lie ahead of the clock, because it once was ahead itself, mended in one transaction.

What an entry is dated by is a change of it, as any other. What tells of past changes is dated anew where it is: no
commit number, version or cursor moves. In the order of the new dates the past is not what anybody saw, so as of a
moment it is known from the mending on.
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
    SELECT min(row) AS number FROM entries WHERE instant > :now
    UNION ALL SELECT min(row) FROM revisions WHERE instant > :now
    UNION ALL SELECT min(ended) FROM revisions WHERE made > :now
    UNION ALL SELECT min(number) FROM events WHERE made > :now)
"""
_LAST_BEFORE = """
SELECT number, max(date) FROM (
    SELECT row AS number, max(instant) AS date FROM entries WHERE row < :first AND instant <= :now
    UNION ALL SELECT ended, max(made) FROM revisions WHERE ended < :first AND made <= :now
    UNION ALL SELECT number, max(made) FROM events WHERE number < :first AND made <= :now)
"""
_DATES = """
SELECT row, instant FROM entries WHERE row >= :first
UNION ALL SELECT row, instant FROM revisions WHERE row >= :first
UNION ALL SELECT ended, made FROM revisions WHERE ended >= :first
UNION ALL SELECT number, made FROM events WHERE number >= :first
"""
_ENTRIES = """
SELECT n.name, e.id, e.row FROM entries AS e JOIN names AS n ON n.id = e.namespace WHERE e.row >= ? ORDER BY e.row
"""
_REVISIONS = "SELECT ended, made, change FROM revisions WHERE made > ?"
_DATE_REVISION = "UPDATE revisions SET made = ?, change_checksum = ? WHERE ended = ?"
_NAME = "(SELECT name FROM names WHERE names.id = r.{})"
_STATES = f"""
SELECT ended, body, packed, checksum, instant, expires, row, {_NAME.format("namespace")}, id,
    {_NAME.format("category")}, key, {_NAME.format("entity_type")}, entity_id, version
FROM revisions AS r WHERE instant > ?
"""
_DATE_STATE = "UPDATE revisions SET instant = ?, checksum = ? WHERE ended = ?"
_EVENTS = "SELECT number, made, namespace, change, id, category, key, version, count FROM events WHERE made > ?"
_DATE_EVENT = "UPDATE events SET made = ?, checksum = ? WHERE number = ?"
_NEWEST = "SELECT max(instant) FROM entries"


def mend(session: Session, namespace: Callable[[str], Entries], now: int) -> int:
    """Mend the dates of the store; return how many entries got another. No-op if its last moment has passed.

    Args:
        session: in a transaction that has changed nothing.
        namespace: returns the backend of a namespace, which takes part in it.
        now: the instant of now.
    """
    if session.clock.made - now <= LEAST:
        return 0
    first = session.rows(_FIRST_AHEAD, {"now": now})[0][0]
    new = {} if first is None else _mended(session, first, now)
    for ended, made, change in session.rows(_REVISIONS, (now,)):
        date = new.get(ended, min(made, now))
        checksum = tables.change_checksum(ended, date, change)
        session.run(_DATE_REVISION, (date, checksum, ended))
    for number, made, *fields in session.rows(_EVENTS, (now,)):
        date = new.get(number, min(made, now))
        session.run(_DATE_EVENT, (date, tables.event_checksum((number, date, *fields)), number))
    session.clock.begin_past_again(now)
    found: list[Any] = [] if first is None else session.rows(_ENTRIES, (first,))
    count = redate_all(((namespace(name), entry_id, new.get(row)) for name, entry_id, row in found), now)
    _redate_states(session, new, now)
    for side in session.side_tables:
        side.date_past(session, now)
    session.clock.let_lie_ahead((session.rows(_NEWEST)[0][0] or 0) - now)
    return count


def _redate_states(session: Session, new: dict[int, int], now: int) -> None:
    """Date anew when past states began, those too that the mending has ended. What they hold stays as it was."""
    for ended, body, packed, checksum, instant, expires, row, *names, version in session.rows(_STATES, (now,)):
        end = (version,) if expires is None else (version, expires)
        if tables.row_checksum((row, *names, instant, *end), body, packed) != checksum:
            raise session.driver.corrupt("an entry does not match its checksum")
        date = new.get(row, instant)
        session.run(_DATE_STATE, (date, tables.row_checksum((row, *names, date, *end), body, packed), ended))


def _mended(session: Session, first: int, now: int) -> dict[int, int]:
    """Return the new dates of those changes from number `first` on that are dated ahead."""
    dated = Dated(now, session.clock.made, session.moment_of)
    before, date = session.rows(_LAST_BEFORE, {"first": first, "now": now})[0]
    if date is not None:
        dated.add(before, date)
    for number, date in session.rows(_DATES, {"first": first}):
        dated.add(number, date)
    return dated.mended()
