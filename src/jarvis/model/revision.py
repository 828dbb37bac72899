"""`Revision`: how an entry was before a change, and who made that change; `differences`, between two states."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal, NamedTuple

import msgspec

from jarvis.codec import check_extent
from jarvis.errors import StackFullError
from jarvis.model.entry import MemoryEntry

Operation = Literal["update", "touch", "delete", "clear", "restore", "undo", "expire", "erase"]
REMOVALS = ("delete", "clear", "expire")
"""Operations behind which the entry is not there any more."""

MISSING: Any = msgspec.UNSET
"""Stands for what is not there in `Difference.before` and `Difference.after`; None is a value."""


class Signature(NamedTuple):
    """Who changes something, how and why. What is None is not known."""

    operation: Operation
    module: str | None = None
    task_id: str | None = None
    reason: str | None = None


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """One past state of a memory, and the change that ended it.

    Attributes:
        version: of the state.
        entry: the memory as it was; a copy.
        operation: ``update``, ``touch`` (of its expiry), ``delete``, ``clear`` (of everything), ``restore`` or
            ``undo``: what ended it.
        timestamp: when that was done; aware UTC.
        module: which module did it, or None.
        task_id: for which task, or None.
        reason: why, or None.
    """

    version: int
    entry: MemoryEntry
    operation: Operation
    timestamp: datetime
    module: str | None = None
    task_id: str | None = None
    reason: str | None = None

    @property
    def is_removal(self) -> bool:
        """Whether the memory was not there any more behind the change."""
        return self.operation in REMOVALS


class Difference(NamedTuple):
    """What differs at one place of two states of a memory.

    Attributes:
        path: the field, and the way into it: ``("value", "mode")``, ``("value", "items", 3)``, ``("tags",)``.
        before: what is there in the one state, or `MISSING`.
        after: what is there in the other state, or `MISSING`.
    """

    path: tuple[str | int, ...]
    before: Any
    after: Any


_COMPARED = ("category", "key", "value", "tags", "entity_type", "entity_id", "timestamp", "provenance", "expires_at")


def differences(before: MemoryEntry, after: MemoryEntry) -> list[Difference]:
    """Return what differs, field by field, in values down to the innermost dict or list.

    Equal means equal and of the same types: 1, 1.0 and True differ. Tags differ as a whole.

    Raises:
        InvalidEntryError: a value, which was not stored, is nested too deep or explodes.
        StackFullError: what is left of the call stack is not enough to compare them.

    >>> one = MemoryEntry("1", "c", "k", {"mode": "dark", "sizes": [1, 2]})
    >>> other = MemoryEntry("1", "c", "k", {"mode": "light", "sizes": [1, 2, 3]}, timestamp=one.timestamp)
    >>> [(each.path, each.after) for each in differences(one, other)]
    [(('value', 'mode'), 'light'), (('value', 'sizes', 2), 3)]
    """
    check_extent(before.value)
    check_extent(after.value)
    try:
        return _differences(before, after)
    except RecursionError:
        raise StackFullError from None


def _differences(before: MemoryEntry, after: MemoryEntry) -> list[Difference]:
    found: list[Difference] = []
    for name in _COMPARED:
        one, other = getattr(before, name), getattr(after, name)
        if name in ("value", "provenance"):
            found += _inside((name,), one, other)
        elif one != other or (name == "timestamp" and one.utcoffset() != other.utcoffset()):
            found.append(Difference((name,), one, other))
    return found


def _inside(path: tuple[str | int, ...], one: Any, other: Any) -> Iterator[Difference]:
    if type(one) is dict and type(other) is dict:
        for key in [*one, *(key for key in other if key not in one)]:
            yield from _inside((*path, key), one.get(key, MISSING), other.get(key, MISSING))
    elif type(one) is list and type(other) is list:
        for place in range(max(len(one), len(other))):
            left = one[place] if place < len(one) else MISSING
            yield from _inside((*path, place), left, other[place] if place < len(other) else MISSING)
    elif not _same(one, other):
        yield Difference(path, one, other)


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(held, other[key]) for key, held in one.items())
    if isinstance(one, (set, frozenset)):
        return sorted(map(_typed, one)) == sorted(map(_typed, other))
    if isinstance(one, (float, datetime)):
        return repr(one) == repr(other)  # -0.0 is not 0.0; the same instant in another zone is another text
    return bool(one == other)


def _typed(member: Any) -> str:
    return f"{type(member).__name__} {member!r}"


class Cutoff(NamedTuple):
    """Where the past ends, as seen from a moment, in the numbers that changes carry.

    Changes of one transaction become visible at one moment, and moments grow with the numbers. Most
    transactions are one change, whose own instant that moment is; of the others the store keeps the first
    and the last number and the moment.

    Attributes:
        instant: the moment, in microseconds since 1970 UTC.
        done: all changes up to this number were visible: the last of a kept transaction that was.
        open: no change from this number on was visible: the first of a kept transaction that was not.
        latest: no entry that was visible has a timestamp behind this instant.
    """

    instant: int
    done: int
    open: int
    latest: int

    def includes(self, commit: int, instant: int) -> bool:
        """Tell whether a change with this number, made at `instant`, was visible."""
        return commit <= self.done or (commit < self.open and instant <= self.instant)
