"""Stores values again with another compression, in small transactions beside other writers.

Only this changes a row without a new commit number. So it reads and compresses rows without the writers' lock, and then
replaces only rows that are still as it read them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jarvis._sql.tables import row_checksum
from jarvis.codec.compression import THRESHOLD_BYTES
from jarvis.errors import TransactionError
from jarvis.model.record import repack
from jarvis.model.rewriting import Recompression

if TYPE_CHECKING:
    from jarvis._sql.lender import Lender
    from jarvis._sql.session import Session
    from jarvis.codec.compression import Mode
    from jarvis.model.rewriting import Progress

AT_ONCE = 256
AT_ONCE_BYTES = 2**20
"""How many states, and about how many bytes of them, one transaction stores again."""

NUMBERS = {"entries": "row", "revisions": "ended"}
"""By table: the column that numbers its states. The past comes last: states that an update ends are found there."""

AS_READ = "body = ? AND packed IS NOT DISTINCT FROM ? AND checksum = ?"
"""The condition for a row to be as it was read."""

_LARGE = f"octet_length(body) >= {THRESHOLD_BYTES}"
_WANTED = {
    "auto": f"packed IS NULL AND {_LARGE}",
    "max": f"(packed IS NOT NULL OR {_LARGE})",
    "off": "packed IS NOT NULL",
}
_NAME = "(SELECT name FROM names WHERE {{{{here}}}} AND names.id = s.{})"
_READ = f"""
SELECT {{number}}, body, packed, checksum, expires, row, {_NAME.format("namespace")}, id, {_NAME.format("category")},
    key, {_NAME.format("entity_type")}, entity_id, instant, version
FROM {{table}} AS s
WHERE {{{{here}}}} AND {{number}} > :after AND row <= :last AND {{wanted}} ORDER BY {{number}} LIMIT {AT_ONCE}
"""
_COUNT = "SELECT count(*) FROM {table} WHERE {{here}} AND row <= ? AND {wanted}"


class State(NamedTuple):
    """A stored state of an entry; `fields` are the first part of the data under its checksum."""

    number: int
    body: str
    packed: bytes | None
    checksum: int
    fields: tuple[Any, ...]

    @property
    def size(self) -> int:
        """How many bytes its value takes, with the rest of its body."""
        return len(self.body.encode()) + len(self.packed or b"")


class Again(NamedTuple):
    """A state, and what is to be stored in the place of its value."""

    state: State
    body: bytes
    packed: bytes | None

    @property
    def values(self) -> tuple[str, bytes | None, int]:
        """The new body, packed value and checksum."""
        return self.body.decode(), self.packed, row_checksum(self.state.fields, self.body, self.packed)

    @property
    def as_read(self) -> tuple[int, str, bytes | None, int]:
        """The number, and the parameters of `AS_READ`."""
        return self.state.number, self.state.body, self.state.packed, self.state.checksum


Replace = Callable[["Session", str, Sequence[Again]], Sequence[Again]]
"""Stores states of a table again, as far as they are as they were read; returns these."""


def recompress(
    lenders: Sequence[Lender], compression: Mode, progress: Progress | None, replace: Replace
) -> Recompression:
    """Store every value with this compression; see `jarvis.capabilities.Compresses.recompress`."""
    if any(lender.in_transaction() for lender in lenders):
        raise TransactionError("recompress() is for the outside of transactions: it makes many of its own")
    surveys = [lender.read(_survey, compression) for lender in lenders]
    total, done, before, after, stored = sum(count for _, count in surveys), 0, 0, 0, dict.fromkeys(NUMBERS, 0)
    for lender, (last, _) in zip(lenders, surveys, strict=True):
        for table in NUMBERS:
            reached = 0
            while states := lender.read(_next, table, compression, reached, last):
                reached = states[-1].number
                for again in _replaced(lender, table, compression, states, replace):
                    stored[table] += 1
                    before += again.state.size
                    after += len(again.body) + len(again.packed or b"")
                done += len(states)
                if progress is not None:
                    progress(done, max(done, total))
    if progress is not None and (done < total or not done):  # states were removed meanwhile, or there were none
        progress(total, total)
    return Recompression(
        entries=stored["entries"], past_states=stored["revisions"], bytes_before=before, bytes_after=after
    )


def _survey(session: Session, compression: Mode) -> tuple[int, int]:
    """Return (number of the last commit, how many states may have another compression).

    Later states have the compression of their writer.
    """
    last = session.clock_seen().commit_number
    counts = (session.say(_COUNT.format(table=table, wanted=_WANTED[compression])) for table in NUMBERS)
    return last, sum(session.rows(sql, (last,))[0][0] for sql in counts)


def _next(session: Session, table: str, compression: Mode, reached: int, last: int) -> list[State]:
    """Return the first states after the number `reached` that may have another compression, verified."""
    sql = session.say(_READ.format(table=table, number=NUMBERS[table], wanted=_WANTED[compression]))
    states, size = list[State](), 0
    for number, body, packed, checksum, expires, *fields in session.each(sql, {"after": reached, "last": last}):
        content = tuple(fields) if expires is None else (*fields, expires)
        if row_checksum(content, body, packed) != checksum:  # else a new checksum would hide the damage
            raise session.driver.corrupt("an entry does not match its checksum")
        states.append(State(number, body, packed, checksum, content))
        size += states[-1].size
        if size >= AT_ONCE_BYTES:
            break
    return states


def _replaced(
    lender: Lender, table: str, compression: Mode, states: Sequence[State], replace: Replace
) -> Sequence[Again]:
    """Store the states that have another compression again, in one transaction; return them."""
    changed = []
    for state in states:
        try:
            repacked = repack(state.body, state.packed, compression)
        except ValueError:  # its message may hold stored values
            raise lender.corrupt("an entry cannot be decoded") from None
        if repacked is not None:
            changed.append(Again(state, *repacked))
    if not changed:
        return ()
    with lender.changing() as session:
        return replace(session, table, changed)
