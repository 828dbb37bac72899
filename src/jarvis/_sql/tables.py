"""The rows that every SQL backend keeps: their checksums, the row of the clock, and the marks in them."""

from __future__ import annotations

import binascii
import hashlib
from typing import Any, NamedTuple

COPY, RESTORED = 1, 2
"""Values of `clock.copied`: a copy that nobody has written to, and a store that was such a copy."""

COMPACTING, FOLDING, COPIES, NAMES = 1, 2, 4, 8
"""The sum in `clock.erasing` says what is due: compact the file, empty the log, remove kept copies, and remove names
that no row uses, which nobody asked to erase."""

CLEARED = """substr(change, 1, 8) = '["clear"'"""
"""The condition for a revision to be ended by a clear of its namespace: the policy has another age for those."""

REMOVED = """(substr(change, 1, 9) = '["delete"' OR substr(change, 1, 8) = '["clear"')"""
"""The condition for a revision to be ended by a removal."""

RENEWAL = '["renew",null,null,null]'
IS_RENEWAL = f"change = '{RENEWAL}'"
"""The condition for a revision to be ended by a renewal: only questions as of a moment see it, nobody is told of it."""

CREATED = "version = 1 AND substr(body, length(body) - 2) <> ',1]'"
"""The condition for a state to tell of the creation of its entry. A renewed one does not: `model.record.renewed`."""

CLOCK_COLUMNS = "commit_number, made, names_generation, begins, ahead, fed_from, erasing, generation, copied"
WRITE_CLOCK = (
    "UPDATE clock SET commit_number = ?, made = ?, names_generation = ?, begins = ?, ahead = ?, fed_from = ?, "
    "erasing = ?, generation = ?, copied = ?, checksum = ? WHERE {here}"
)


FIRST_WITH_PAST = 3
"""The first version of stores that has tables of the past."""

FIRST_WITH_WORDS = 8
"""The first version of stores that has an index of words."""

FIRST_WITH_VECTORS = 9
"""The first version of stores that has vectors."""


class Table(NamedTuple):
    """A table of a store; see `jarvis._sql.registry`.

    Attributes:
        name: its name.
        names: its columns that hold ids of `names`; of a side table, only those that the state does not have.
        counted: the name of its rows in the receipt of an erasure, if they belong to a memory.
        since: the first version of stores that has it.
        is_derived: all its rows can be made from entries and past states.
    """

    name: str
    names: tuple[str, ...] = ()
    counted: str = ""
    since: int = 1
    is_derived: bool = False


def clock_checksum(fields: tuple[int | None, ...]) -> int:
    """Return the CRC-32 in `clock.checksum` of the columns before it."""
    return binascii.crc32(repr(tuple(fields)).encode())


def row_checksum(fields: tuple[object, ...], body: bytes | str, packed: bytes | None = None) -> int:
    """Return the CRC-32 in `entries.checksum`.

    Args:
        fields: commit number, namespace, id, category, key, entity type, entity id, instant, version, and the
            instant of expiry if there is one: names as text, not as the numbers they are interned as.
        body: as stored.
        packed: as stored; without it the checksum is that of earlier versions.
    """
    text = body.encode() if isinstance(body, str) else body
    checksum = binascii.crc32(text, binascii.crc32(repr(fields).encode()))
    return checksum if packed is None else binascii.crc32(packed, binascii.crc32(b"\0", checksum))


def change_checksum(ended: int, made: int, change: str) -> int:
    """Return the value of `revisions.change_checksum`: a CRC-32 to which SQL can add 1 for each further row."""
    return (binascii.crc32(change.encode(), binascii.crc32(b"%d" % made)) + ended) & 0xFFFFFFFF


def digest_of(namespace: str) -> int:
    """Return the number under which erasures of a namespace are stored: below 0, where no id of a name is."""
    return -int.from_bytes(hashlib.blake2b(namespace.encode(), digest_size=7).digest()) - 1


def event_checksum(fields: tuple[object, ...]) -> int:
    """Return the CRC-32 in `events.checksum` of the columns before it."""
    return binascii.crc32(repr(fields).encode())


def digest_of_row(table: str, row: tuple[Any, ...]) -> int:
    """Return a row's summand of the digest of a store: the sum, modulo 2**128, does not depend on the order of rows."""
    return int.from_bytes(hashlib.blake2b(repr((table, row)).encode(), digest_size=16).digest())


class ClockRow(NamedTuple):
    """The row of the table `clock`, with number and instant of the newest entry if that is newer."""

    commit_number: int
    made: int
    names_generation: int
    begins: int | None = None
    ahead: int = 0
    fed_from: int = 0
    erasing: int = 0
    generation: int = 0
    copied: int = 0


_NEWEST_ENTRY = "(SELECT row, instant FROM entries WHERE {here} ORDER BY row DESC LIMIT 1) AS newest"
_FROM_CLOCK = f"FROM {{clock}} LEFT JOIN {_NEWEST_ENTRY} ON TRUE WHERE {{here}}"
READ_FIRST_CLOCK = f"SELECT row, instant, commit_number, made, names_generation {_FROM_CLOCK}"
CLOCK_FIELDS = f"row, instant, {CLOCK_COLUMNS} {_FROM_CLOCK}"
READ_CLOCK = f"SELECT {CLOCK_FIELDS}"


def clock_row(read: tuple[Any, ...]) -> ClockRow:
    """Return the clock of a row of `READ_CLOCK`; its fields are NULL before the first change.

    A change that only adds or replaces an entry, at an instant that the module made, records its number and its
    instant in that entry and leaves the clock's page alone; any other change writes the clock.
    """
    row, instant, commit_number, made, *rest = read
    if commit_number is None:
        return ClockRow(0, 0, 0)
    if row is not None and row > commit_number:
        commit_number, made = row, instant
    return ClockRow(commit_number, made, *rest)
