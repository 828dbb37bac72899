"""Stores values again with another compression, in small transactions beside other writers.

Only this module changes a row without a new commit number. So it reads and compresses rows without the writers' lock,
and then replaces only rows that are still as it read them. It deletes rows and inserts them again: a row that shrinks
in place leaves room in its page that no other row may use, because row numbers grow. This makes 8,500 of 24,000 pages
of 2 KiB values, in a quarter more time; SQLite's own VACUUM would make 8,300.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from jarvis._sql.tables import COMPACTING, FOLDING, row_checksum
from jarvis._sqlite import engine
from jarvis._sqlite.connection import read_only
from jarvis.codec.compression import THRESHOLD_BYTES
from jarvis.errors import TransactionError
from jarvis.model.recompression import Recompression
from jarvis.model.record import repack

if TYPE_CHECKING:
    from jarvis._sqlite.database import Database
    from jarvis._sqlite.pool import Lease
    from jarvis.codec.compression import Mode
    from jarvis.model.recompression import Progress

AT_ONCE = 256
AT_ONCE_BYTES = 2**20
"""How many states, and about how many bytes of them, one transaction stores again."""

VACUUMED_BYTES = 2**25
"""Up to this size the remaining pages are written into a new file at the end: others wait for 0.3 s."""

_VACUUMED_FROM = 8  # if at least one page in 8 is free

_TABLES = {"entries": "row", "revisions": "ended"}
_LARGE = f"octet_length(body) >= {THRESHOLD_BYTES}"
_WANTED = {
    "auto": f"packed IS NULL AND {_LARGE}",
    "max": f"(packed IS NOT NULL OR {_LARGE})",
    "off": "packed IS NOT NULL",
}
_NAME = "(SELECT name FROM names WHERE names.id = s.{})"
_READ = f"""
SELECT {{number}}, body, packed, checksum, expires, row, {_NAME.format("namespace")}, id, {_NAME.format("category")},
    key, {_NAME.format("entity_type")}, entity_id, instant, version
FROM {{table}} AS s WHERE {{number}} > :after AND row <= :last AND {{wanted}} ORDER BY {{number}} LIMIT {AT_ONCE}
"""
_COUNT = "SELECT count(*) FROM {table} WHERE row <= ? AND {wanted}"
_STORED = ("body", "packed", "checksum")
_OTHERS = f"SELECT group_concat(name, ', ') FROM pragma_table_info(?) WHERE name NOT IN {_STORED}"
_TAKE = "DELETE FROM {table} WHERE {number} = ? AND {as_read} RETURNING {others}"
_AS_READ = "body = ? AND packed IS ? AND checksum = ?"
_PUT = f"INSERT INTO {{table}} ({', '.join(_STORED)}, {{others}}) VALUES (?, ?, ?, {{marks}})"


class _State(NamedTuple):
    """A stored state of an entry; `fields` are the first part of the data under its checksum."""

    number: int
    body: str
    packed: bytes | None
    checksum: int
    fields: tuple[Any, ...]

    @property
    def size(self) -> int:
        return len(self.body.encode()) + len(self.packed or b"")


def recompress(database: Database, compression: Mode, progress: Progress | None) -> Recompression:
    """Store every value with this compression; see `jarvis.capabilities.Compresses.recompress`."""
    if database.read_only:
        raise read_only(database.path)
    if database.in_transaction():
        raise TransactionError("recompress() is for the outside of transactions: it makes many of its own")
    last, total = database.read(lambda session: _survey(session, compression))
    done, before, after, stored = 0, 0, 0, dict.fromkeys(_TABLES, 0)
    for table in _TABLES:  # the past after the present: states that an update ends meanwhile are found there
        reached = 0
        while states := _next(database, table, compression, reached, last):
            reached = states[-1].number
            for state, body, packed in _put(database, table, compression, states):
                stored[table] += 1
                before += state.size
                after += len(body) + len(packed or b"")
            done += len(states)
            if progress is not None:
                progress(done, max(done, total))
    _give_back(database)
    if progress is not None and (done < total or not done):  # states were removed meanwhile, or there were none
        progress(total, total)
    return Recompression(
        entries=stored["entries"], past_states=stored["revisions"], bytes_before=before, bytes_after=after
    )


def _survey(session: Lease, compression: Mode) -> tuple[int, int]:
    """Return (number of the last commit, how many states may have another compression).

    Later states have the compression of their writer.
    """
    last = session.clock_seen().commit_number
    counts = (_COUNT.format(table=table, wanted=_WANTED[compression]) for table in _TABLES)
    return last, sum(session.rows(sql, (last,))[0][0] for sql in counts)


def _next(database: Database, table: str, compression: Mode, reached: int, last: int) -> list[_State]:
    """Return the first states after the number `reached` that may have another compression, verified."""
    sql = _READ.format(table=table, number=_TABLES[table], wanted=_WANTED[compression])

    def read(session: Lease) -> list[_State]:
        states, size = [], 0
        for number, body, packed, checksum, expires, *fields in session.each(sql, {"after": reached, "last": last}):
            content = tuple(fields) if expires is None else (*fields, expires)
            if row_checksum(content, body, packed) != checksum:  # else a new checksum would hide the damage
                raise session.driver.corrupt("an entry does not match its checksum")
            states.append(_State(number, body, packed, checksum, content))
            size += states[-1].size
            if size >= AT_ONCE_BYTES:
                break
        return states

    return database.read(read)


def _put(
    database: Database, table: str, compression: Mode, states: list[_State]
) -> list[tuple[_State, bytes, bytes | None]]:
    """Store the states that have another compression again, in one transaction; return them."""
    changed = []
    for state in states:
        try:
            repacked = repack(state.body, state.packed, compression)
        except ValueError:  # its message may hold stored values
            raise engine.corrupt(database.path, "an entry cannot be decoded") from None
        if repacked is not None:
            changed.append((state, *repacked))
    if not changed:
        return []
    with database.changing() as session:
        other_columns = session.rows(_OTHERS, (table,))[0][0]
        take = _TAKE.format(table=table, number=_TABLES[table], as_read=_AS_READ, others=other_columns)
        taken = []
        for state, body, packed in changed:
            as_read = (state.number, state.body, state.packed, state.checksum)
            taken += [(state, body, packed, row) for row in session.rows(take, as_read)]
        put = _PUT.format(table=table, others=other_columns, marks=", ".join("?" * (other_columns.count(",") + 1)))
        for state, body, packed, row in taken:
            checksum = row_checksum(state.fields, body, packed)
            session.run(put, (body.decode(), packed, checksum, *row))
    return [(state, body, packed) for state, body, packed, _ in taken]


def _give_back(database: Database) -> None:
    """Have the file compacted, as after an erasure, if much of it is free now and the rest is small."""
    pages, free, size = database.read(
        lambda session: [session.rows(f"PRAGMA {name}")[0][0] for name in ("page_count", "freelist_count", "page_size")]
    )
    if free * _VACUUMED_FROM >= pages and (pages - free) * size <= VACUUMED_BYTES:
        with database.changing() as session:
            session.clock.erased(COMPACTING | FOLDING)
