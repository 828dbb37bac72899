"""Stores values again with another compression: what `jarvis._sql.recompressing` leaves to the database.

It deletes rows and inserts them again: a row that shrinks in place leaves room in its page that no other row may use,
because row numbers grow. This makes 8,500 of 24,000 pages of 2 KiB values, in a quarter more time; SQLite's own VACUUM
would make 8,300.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jarvis._sql.recompressing import AS_READ, NUMBERS
from jarvis._sql.recompressing import recompress as recompress_all
from jarvis._sql.tables import COMPACTING, FOLDING
from jarvis._sqlite.connection import read_only

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jarvis._sql.recompressing import Again
    from jarvis._sql.session import Session
    from jarvis._sqlite.database import Database
    from jarvis.model.options import Compression
    from jarvis.model.rewriting import Progress, Recompression

VACUUMED_BYTES = 2**25
"""Up to this size the remaining pages are written into a new file at the end: others wait for 0.3 s."""

_VACUUMED_FROM = 8  # if at least one page in 8 is free

_STORED = ("body", "packed", "checksum")
_OTHERS = f"SELECT group_concat(name, ', ') FROM pragma_table_info(?) WHERE name NOT IN {_STORED}"
_TAKE = f"DELETE FROM {{table}} WHERE {{number}} = ? AND {AS_READ} RETURNING {{others}}"
_PUT = f"INSERT INTO {{table}} ({', '.join(_STORED)}, {{others}}) VALUES (?, ?, ?, {{marks}})"


def recompress(database: Database, compression: Compression, progress: Progress | None) -> Recompression:
    """Store every value with this compression; see `jarvis.capabilities.Compresses.recompress`."""
    if database.read_only:
        raise read_only(database.path)
    done = recompress_all((database,), compression, progress, _replace)
    _give_back(database)
    return done


def _replace(session: Session, table: str, states: Sequence[Again]) -> list[Again]:
    others = session.rows(_OTHERS, (table,))[0][0]
    take = _TAKE.format(table=table, number=NUMBERS[table], others=others)
    taken = [(each, row) for each in states for row in session.rows(take, each.as_read)]
    put = _PUT.format(table=table, others=others, marks=", ".join("?" * (others.count(",") + 1)))
    session.driver.many(put, [(*each.values, *row) for each, row in taken])
    return [each for each, _ in taken]


def _give_back(database: Database) -> None:
    """Have the file compacted, as after an erasure, if much of it is free now and the rest is small."""
    pages, free, size = database.read(
        lambda session: [session.rows(f"PRAGMA {name}")[0][0] for name in ("page_count", "freelist_count", "page_size")]
    )
    if free * _VACUUMED_FROM >= pages and (pages - free) * size <= VACUUMED_BYTES:
        with database.changing() as session:
            session.clock.erased(COMPACTING | FOLDING)
