"""Values stored anew as the setting of compression has it, in small transactions beside other writers.

What is stored under a commit number is never changed but here. So it is read and compressed without the writers'
lock, and then put in the place of just what was read, if that is still there. Rows are taken out and put in again:
a row that becomes smaller where it is leaves room in its page that no other row may use, because row numbers grow.
Of 24,000 pages of 2 KiB values that leaves 8,500, for a quarter more time; SQLite's own VACUUM would leave 8,300.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from jarvis._sql.tables import COMPACTING, FOLDING, row_checksum
from jarvis._sqlite import driver
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
"""So many states, and about so many bytes of them, are stored anew by one transaction."""

VACUUMED_BYTES = 2**25
"""Up to this size what stays is written into a new file at the end: 0.3 s, for which others wait."""

_VACUUMED_FROM = 8  # if one page of so many is free

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
    """A state of an entry as it is stored; `fields` are what the checksum begins with."""

    number: int
    body: str
    packed: bytes | None
    checksum: int
    fields: tuple[Any, ...]

    @property
    def size(self) -> int:
        return len(self.body.encode()) + len(self.packed or b"")


def recompress(database: Database, compression: Mode, progress: Progress | None) -> Recompression:
    """Store every value of the store as `compression` has it; see `jarvis.capabilities.Compresses.recompress`."""
    if database.read_only:
        raise read_only(database.path)
    if database.in_transaction():
        raise TransactionError("recompress() is for the outside of transactions: it makes many of its own")
    last, total = database.read(lambda session: _survey(session, compression))
    done, before, after, stored = 0, 0, 0, dict.fromkeys(_TABLES, 0)
    for table in _TABLES:  # the past behind the present: what an update ends meanwhile is met there
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
    if progress is not None and (done < total or not done):  # some were removed meanwhile, or there were none
        progress(total, total)
    return Recompression(
        entries=stored["entries"], past_states=stored["revisions"], bytes_before=before, bytes_after=after
    )


def _survey(session: Lease, compression: Mode) -> tuple[int, int]:
    """Return (number of the last commit, how many states may be stored otherwise than `compression` has it).

    What comes later is written as its writer has it.
    """
    last = session.clock_seen().commit_number
    counts = (_COUNT.format(table=table, wanted=_WANTED[compression]) for table in _TABLES)
    return last, sum(session.rows(sql, (last,))[0][0] for sql in counts)


def _next(database: Database, table: str, compression: Mode, reached: int, last: int) -> list[_State]:
    """Return the first states behind a number that may be stored otherwise, verified."""
    sql = _READ.format(table=table, number=_TABLES[table], wanted=_WANTED[compression])

    def read(session: Lease) -> list[_State]:
        found, size = [], 0
        for number, body, packed, checksum, expires, *fields in session.each(sql, {"after": reached, "last": last}):
            known = tuple(fields) if expires is None else (*fields, expires)
            if row_checksum(known, body, packed) != checksum:  # or a new checksum would make damage right
                raise session.driver.corrupt("an entry does not match its checksum")
            found.append(_State(number, body, packed, checksum, known))
            size += found[-1].size
            if size >= AT_ONCE_BYTES:
                break
        return found

    return database.read(read)


def _put(
    database: Database, table: str, compression: Mode, states: list[_State]
) -> list[tuple[_State, bytes, bytes | None]]:
    """Store in one transaction those of the states that are not as `compression` has it; return them."""
    changed = []
    for state in states:
        try:
            anew = repack(state.body, state.packed, compression)
        except ValueError:  # whose message may hold what is stored
            raise driver.corrupt(database.path, "an entry cannot be decoded") from None
        if anew is not None:
            changed.append((state, *anew))
    if not changed:
        return []
    with database.changing() as session:
        others = session.rows(_OTHERS, (table,))[0][0]
        take = _TAKE.format(table=table, number=_TABLES[table], as_read=_AS_READ, others=others)
        taken = []
        for state, body, packed in changed:
            as_read = (state.number, state.body, state.packed, state.checksum)
            taken += [(state, body, packed, row) for row in session.rows(take, as_read)]
        put = _PUT.format(table=table, others=others, marks=", ".join("?" * (others.count(",") + 1)))
        for state, body, packed, row in taken:
            checksum = row_checksum(state.fields, body, packed)
            session.run(put, (body.decode(), packed, checksum, *row))
    return [(state, body, packed) for state, body, packed, _ in taken]


def _give_back(database: Database) -> None:
    """Let the file be written anew, as behind an erasure, if much of it is free now and what stays is little."""
    pages, free, size = database.read(
        lambda session: [session.rows(f"PRAGMA {name}")[0][0] for name in ("page_count", "freelist_count", "page_size")]
    )
    if free * _VACUUMED_FROM >= pages and (pages - free) * size <= VACUUMED_BYTES:
        with database.changing() as session:
            session.clock.erased(COMPACTING | FOLDING)
