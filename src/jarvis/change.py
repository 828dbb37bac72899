"""`Change`: what happened to a memory, as the feed of changes tells it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from jarvis.errors import InvalidQueryError

Kind = Literal["create", "update", "touch", "delete", "clear", "restore", "undo", "expire", "erase"]
_FAR = 2**63


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a namespace. It names the memory and holds nothing of its value.

    Attributes:
        cursor: its place in the feed: ``since=`` takes it, also in another process or after a restart.
        operation: ``create``, ``update``, ``touch`` (of the expiry), ``delete``, ``clear`` (each memory that
            `clear_all` removed), ``restore`` or ``undo`` (of an update or a deletion); ``expire`` (it was
            purged, some time after it expired); ``erase`` (of memories and their past, which are not named).
        memory_id: of the memory; None where it was erased.
        version: that the memory has since the change, or had when it was removed; None where it was erased.
        category: of the memory; None where it was erased.
        key: likewise.
        timestamp: when the change was made; aware UTC. Of a creation: the timestamp of the memory.
        module: which module made it, or None.
        task_id: for which task, or None.
        reason: why, or None.
        count: how many memories were erased; 1 for any other change.
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


def position_of(cursor: str) -> int:
    """Return the commit number that a cursor of the feed stands for.

    Raises:
        InvalidQueryError: it is no cursor.
    """
    if type(cursor) is str and cursor.isascii() and cursor.isdecimal() and len(cursor) < 20 and int(cursor) < _FAR:
        return int(cursor)
    raise InvalidQueryError("since: takes the .cursor of a change, or what newest_cursor() returned")
