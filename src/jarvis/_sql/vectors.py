"""Vectors of entries: each belongs to one state of an entry, and goes with it in the same transaction.

They come later, in transactions of their own: see `jarvis.services.meaning`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jarvis._sql.later_table import LaterTable
from jarvis._sql.select import COLUMNS, LIVE
from jarvis._sql.shape import as_json
from jarvis._sql.tables import FIRST_WITH_VECTORS, Table
from jarvis.model.vectors import StoredVector, VectorMark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jarvis._sql.reading import Reader
    from jarvis._sql.session import Session
    from jarvis._sql.side_tables import Lent, Place
    from jarvis.model.entry import MemoryEntry

_AT_ONCE_OF_COMMIT = 1 << 28
"""The number of a vector is the number of the last change of entries, times this, plus a count.

So no number is given twice: the vector with the greatest number only goes with another change.
"""

_TAKE = "DELETE FROM vectors WHERE namespace = ? AND row = ?"
_TAKE_ALL = "DELETE FROM vectors WHERE namespace = ?"
_LAST = "SELECT row FROM vectors WHERE namespace = :namespace AND model = :model ORDER BY row DESC LIMIT 1"
_OTHERS = "SELECT 1 FROM vectors WHERE namespace = :namespace AND model <> :model LIMIT 1"
_PENDING = f"""
SELECT {COLUMNS} FROM entries AS e WHERE {{unindexed}}e.namespace = :namespace AND e.row > :after AND {LIVE}
AND NOT EXISTS (
    SELECT 1 FROM vectors AS v WHERE v.namespace = e.namespace AND v.row = e.row AND v.model = :model
) ORDER BY e.row LIMIT :most
"""
_COUNT = "SELECT count(*) FROM (SELECT 1 FROM vectors WHERE namespace = :namespace{}) AS found"
_OF_MODEL, _AT_MOST = " AND model = :model", " LIMIT :most"
_NUMBER = "SELECT coalesce(max(number), 0) FROM vectors WHERE namespace = ?"
_PUT = """
INSERT INTO vectors (namespace, row, number, model, signs, codes)
SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE EXISTS (SELECT 1 FROM entries WHERE namespace = ?1 AND row = ?2)
ON CONFLICT (namespace, row) DO UPDATE
SET number = excluded.number, model = excluded.model, signs = excluded.signs, codes = excluded.codes
WHERE vectors.model <> excluded.model
"""
_AFTER = """
SELECT number, row, signs, {} FROM vectors WHERE namespace = ? AND model = ? AND number > ? ORDER BY number LIMIT ?
"""
_CODES = "SELECT row, codes FROM vectors WHERE namespace = ? AND row IN ({numbers}(?)) AND model = ?"
_READ = f"""
SELECT {COLUMNS} FROM entries AS e WHERE e.namespace = :namespace AND e.row IN ({{numbers}}(:rows)) AND {LIVE}
"""


class Vectors(LaterTable):
    """Removes the vector of a state that is no longer the present one."""

    tables = (Table("vectors", since=FIRST_WITH_VECTORS),)

    def take(self, session: Lent, place: Place, tags: Sequence[str]) -> int:  # noqa: ARG002
        """Remove the vector of a state, if it has one; receipts do not count it."""
        namespace, _, row = place
        session.driver.run(_TAKE, (namespace, row))
        return 0

    def take_all(self, session: Lent, namespace: int) -> None:
        """Remove the vectors of a namespace."""
        session.driver.run(_TAKE_ALL, (namespace,))


def _namespace(session: Session, reader: Reader) -> int | None:
    """Return the id of the reader's namespace; None if it is empty, or the store is of a version without vectors."""
    has_table = any(isinstance(side, Vectors) for side in session.side_tables)
    return session.names.fresh_id_of(reader.namespace) if has_table else None


def pending(session: Session, reader: Reader, model: str, after: int | None, most: int) -> list[MemoryEntry]:
    """Return what `jarvis.capabilities.KeepsVectors.pending` does."""
    namespace = _namespace(session, reader)
    if namespace is None:
        return []
    asked = {"namespace": namespace, "model": model, "now": reader.now(), "most": most}
    if after is None:
        rows = [] if session.rows(_OTHERS, asked) else session.rows(_LAST, asked)
        after = rows[0][0] if rows else 0
    return reader.entries(session, session.rows(session.say(_PENDING), {**asked, "after": after}))


def count(session: Session, reader: Reader, model: str | None, most: int | None) -> int:
    """Return what `jarvis.capabilities.KeepsVectors.count_vectors` does."""
    namespace = _namespace(session, reader)
    if namespace is None:
        return 0
    which = (_OF_MODEL if model is not None else "") + (_AT_MOST if most is not None else "")
    asked = {"namespace": namespace, "model": model, "most": most}
    return int(session.rows(_COUNT.format(which), asked)[0][0])


def put(session: Session, reader: Reader, model: str, vectors: Sequence[StoredVector]) -> int:
    """Do what `jarvis.capabilities.KeepsVectors.put_vectors` does, in the session's transaction."""
    namespace = _namespace(session, reader)
    if namespace is None:
        return 0
    last = max(session.rows(_NUMBER, (namespace,))[0][0], session.clock.commit_number * _AT_ONCE_OF_COMMIT)
    done = 0
    for number, (row, signs, codes) in enumerate(vectors, last + 1):
        session.driver.run(_PUT, (namespace, row, number, model, signs, codes))
        done += session.driver.changed()
    return done


def after(
    session: Session,
    reader: Reader,
    model: str,
    since: VectorMark,
    most: int,
    is_whole: bool,
) -> tuple[VectorMark, list[StoredVector]]:
    """Return what `jarvis.capabilities.KeepsVectors.vectors` does."""
    generation = session.clock_seen().generation
    number = since.number if since.generation == generation else 0
    namespace = _namespace(session, reader)
    if namespace is None:
        return VectorMark(generation, 0), []
    rows = session.rows(_AFTER.format("codes" if is_whole else "NULL"), (namespace, model, number, most))
    mark = VectorMark(generation, rows[-1][0] if rows else number)
    return mark, [StoredVector(row, signs, codes or b"") for _, row, signs, codes in rows]


def codes_of(session: Session, reader: Reader, model: str, changes: Sequence[int]) -> list[tuple[int, bytes]]:
    """Return what `jarvis.capabilities.KeepsVectors.codes_of` does."""
    namespace = _namespace(session, reader)
    if namespace is None:
        return []
    return session.rows(session.say(_CODES), (namespace, as_json(changes), model))


def entries_at(session: Session, reader: Reader, changes: Sequence[int]) -> list[MemoryEntry]:
    """Return what `jarvis.capabilities.KeepsVectors.entries_at` does."""
    namespace = _namespace(session, reader)
    if namespace is None:
        return []
    asked = {"namespace": namespace, "rows": as_json(changes), "now": reader.now()}
    return reader.entries(session, session.rows(session.say(_READ), asked))
