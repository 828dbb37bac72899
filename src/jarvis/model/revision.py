"""`Revision`: an entry before a change, and who made that change; `differences` between two states."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal, NamedTuple

import msgspec

from jarvis.codec import check_extent
from jarvis.errors import StackFullError
from jarvis.model.entry import MemoryEntry

Operation = Literal["update", "touch", "delete", "clear", "restore", "undo", "expire", "erase", "renew"]
"""How a change ended a state. ``renew`` is not shown: see `jarvis.storage_backend.StorageBackend.update_if_changed`."""

REMOVALS = ("delete", "clear", "expire")
"""Operations that remove the entry."""

MISSING: Any = msgspec.UNSET
"""In `Difference.before` and `Difference.after`: there is no value. None is a value."""


class Signature(NamedTuple):
    """Who makes a change, how and why; what is not known is None."""

    operation: Operation
    module: str | None = None
    task_id: str | None = None
    reason: str | None = None


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """One past state of a memory, and the change that ended it.

    Attributes:
        version: of the state.
        entry: the memory as it was; a copy.
        operation: that ended it: ``update``, ``touch`` (of its expiry), ``delete``, ``clear`` (of everything),
            ``restore`` or ``undo``.
        timestamp: of that change; aware UTC.
        module: that made it, or None.
        task_id: of the task that it was for, or None.
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
        """Whether the change removed the memory."""
        return self.operation in REMOVALS


class Difference(NamedTuple):
    """One difference between two states of a memory.

    Attributes:
        path: the field, and the way into it: ``("value", "mode")``, ``("value", "items", 3)``, ``("tags",)``.
        before: the value there in the one state, or `MISSING`.
        after: the value there in the other state, or `MISSING`.
    """

    path: tuple[str | int, ...]
    before: Any
    after: Any


_COMPARED = ("category", "key", "value", "tags", "entity_type", "entity_id", "timestamp", "provenance", "expires_at")


def differences(before: MemoryEntry, after: MemoryEntry) -> list[Difference]:
    """Return the differences field by field; values are compared down to the innermost dict or list.

    Equal means equal and of the same types: 1, 1.0 and True differ. Tags differ as a whole.

    Raises:
        InvalidEntryError: an entry was not stored, and its value is nested too deep or explodes.
        StackFullError: too little of the call stack is left to compare them.

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
    all_of_them: list[Difference] = []
    for name in _COMPARED:
        one, other = getattr(before, name), getattr(after, name)
        if name in ("value", "provenance"):
            all_of_them += _inside((name,), one, other)
        elif one != other or (name == "timestamp" and one.utcoffset() != other.utcoffset()):
            all_of_them.append(Difference((name,), one, other))
    return all_of_them


def _inside(path: tuple[str | int, ...], one: Any, other: Any) -> Iterator[Difference]:
    if type(one) is dict and type(other) is dict:
        for key in [*one, *(key for key in other if key not in one)]:
            yield from _inside((*path, key), one.get(key, MISSING), other.get(key, MISSING))
    elif type(one) is list and type(other) is list:
        for index in range(max(len(one), len(other))):
            left = one[index] if index < len(one) else MISSING
            yield from _inside((*path, index), left, other[index] if index < len(other) else MISSING)
    elif not _same(one, other):
        yield Difference(path, one, other)


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(item, other[key]) for key, item in one.items())
    if isinstance(one, (set, frozenset)):
        return sorted(map(_typed, one)) == sorted(map(_typed, other))
    if isinstance(one, (float, datetime)):
        return repr(one) == repr(other)  # -0.0 is not 0.0; the same instant in another zone is another text
    return bool(one == other)


def _typed(member: Any) -> str:
    return f"{type(member).__name__} {member!r}"


class Cutoff(NamedTuple):
    """Where the past ends, as seen from a moment, in the numbers that changes carry.

    The changes of one transaction become visible at one moment, and moments grow with the numbers. Most
    transactions are one change, and its own instant is that moment. Of the others the store keeps the first
    and the last number and the moment.

    Attributes:
        instant: the moment, in microseconds since 1970 UTC.
        done: all changes up to this number were visible: the last one of a kept transaction.
        open: no change from this number on was visible: the first one of a kept transaction.
        latest: no entry that was visible has a timestamp after this instant.
    """

    instant: int
    done: int
    open: int
    latest: int

    def includes(self, commit: int, instant: int) -> bool:
        """Tell whether a change with this number, made at `instant`, was visible."""
        return commit <= self.done or (commit < self.open and instant <= self.instant)
