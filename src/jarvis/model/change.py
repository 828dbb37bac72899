"""`Change`: what happened to a memory, as the feed of changes tells it."""

from __future__ import annotations

import os
import re
from datetime import datetime
from typing import Literal

import msgspec

from jarvis.errors import CursorExpiredError, InvalidQueryError
from jarvis.model.revision import Operation

Kind = Literal["create", Operation]
_FAR = 2**63
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_CURSOR = re.compile(r"[0-9]{1,19}(\.[1-9a-z][0-9a-z]{9})?")

FIRST_GENERATION = 36**9
"""The smallest number of a generation: each has ten digits, so ``"1.5"`` is no cursor."""

_GENERATIONS = 36**10 - 36**9


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a namespace. It names the memory and holds nothing of its value.

    Attributes:
        cursor: its place in the feed: ``since=`` takes it, also in another process or after a restart. It names the
            store, too: it is refused in a store that was restored from a backup.
        operation: ``create``, ``update``, ``touch`` (of the expiry), ``delete``, ``clear`` (each memory that
            `clear_all` removed), ``restore`` or ``undo`` (of an update or a deletion); ``expire`` (it was
            purged, some time after it expired); ``erase`` (of memories and their past, which are not named).
        memory_id: of the memory; None where it was erased.
        version: of the memory after the change, or when it was removed; None where it was erased.
        category: of the memory; None where it was erased.
        key: likewise.
        timestamp: when the change was made; aware UTC. Of a creation: the timestamp of the memory.
        module: which module made it, or None.
        task_id: for which task, or None.
        reason: why, or None.
        count: the number of memories that were erased; 1 for any other change.
    """

    cursor: str
    operation: Kind
    memory_id: str | None = None
    version: int | None = None
    category: str | None = None
    key: str | None = None
    timestamp: datetime
    module: str | None = None
    task_id: str | None = None
    reason: str | None = None
    count: int = 1


class Deleted(msgspec.Struct, frozen=True):
    """What a deletion of many removed.

    Attributes:
        count: the number of memories.
        cursor: that of the change, which `MemoryModule.undo_change` takes; None if nothing was removed, or the backend
            has no feed.
    """

    count: int
    cursor: str | None


def cursor_of(position: int, generation: int) -> str:
    """Return the cursor that stands for a commit number in a generation of a store; 0 for a store that has none.

    >>> cursor_of(12, FIRST_GENERATION), cursor_of(12, 0)
    ('12.1000000000', '12')
    """
    return f"{position}.{_in_base_36(generation)}" if generation else str(position)


def position_of(cursor: str) -> int:
    """Return the commit number that a cursor of the feed stands for, whatever generation it names.

    Raises:
        InvalidQueryError: it is no cursor.
    """
    number = cursor.partition(".")[0] if type(cursor) is str and _CURSOR.fullmatch(cursor) else ""
    if number and int(number) < _FAR:
        return int(number)
    raise InvalidQueryError("since: takes the .cursor of a change, or what newest_cursor() returned")


def position_in(cursor: str, generation: int, *, is_restored: bool, earliest: int | None) -> int:
    """Return the commit number that a cursor stands for in a store of this generation.

    A cursor without a generation, from an older version, is accepted if the store was never restored.

    Args:
        cursor: of a change.
        generation: of the store, 0 if it has none.
        is_restored: the store was a copy of another, and has been written to since.
        earliest: the number after which all changes are known, None if no change is.

    Raises:
        InvalidQueryError: it is no cursor.
        CursorExpiredError: it is of another generation.
    """
    position = position_of(cursor)
    if is_restored if "." not in cursor else cursor != cursor_of(position, generation):
        first = None if earliest is None else cursor_of(earliest, generation)
        raise CursorExpiredError(cursor, first, is_foreign=True)
    return position


def new_generation() -> int:
    """Return a random number that no other store has, of as many digits as any other."""
    return generation_from(int.from_bytes(os.urandom(8)))


def generation_from(number: int) -> int:
    """Return a number of as many digits as any other that `new_generation` returns, made from another number."""
    return FIRST_GENERATION + number % _GENERATIONS


def _in_base_36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits
