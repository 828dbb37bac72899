"""The orders of lists, and the place of an entry in each of them: as a sort key, and as the text of a cursor.

The text is ``+instant:commit:creation:length of the id:``, then id and key. Earlier releases wrote
``instant:commit:id``, which has a place in the order ``changed`` only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, get_args

from jarvis.errors import nearest

Order = Literal["changed", "created", "key"]
"""By the timestamp, by the moment of creation, or by the key. Within equals by the timestamp, then as written."""

ORDERS: tuple[str, ...] = get_args(Order)

_LATER = "+"  # begins a cursor that has a place in every order
_LIMIT = 2**63


class Placed(Protocol):
    """The part of an entry that decides about its places."""

    @property
    def key(self) -> str:
        """Its key."""

    @property
    def order(self) -> tuple[int, int, str]:
        """(Instant, commit number, id)."""

    @property
    def creation(self) -> int:
        """The instant of its creation."""


def place_in(order: Order, entry: Placed) -> tuple[Any, ...]:
    """Return the sort key of an entry in an order."""
    if order == "changed":
        return entry.order
    return (entry.creation if order == "created" else entry.key, *entry.order)


def cursor_of(entry: Placed) -> str:
    """Return the places of an entry as text."""
    instant, commit, entry_id = entry.order
    return f"{_LATER}{instant}:{commit}:{entry.creation}:{len(entry_id)}:{entry_id}{entry.key}"


def place_of(order: Order, cursor: str) -> tuple[Any, ...]:
    """Return the sort key that a cursor names in an order; raise ValueError if it names none."""
    if not cursor.startswith(_LATER):
        if order != "changed":
            raise ValueError("a cursor of an earlier release")
        instant, commit, entry_id = cursor.split(":", 2)
        return _number(instant), _number(commit, 0), entry_id
    instant, commit, creation, length, rest = cursor[1:].split(":", 4)
    size = _number(length, 0)
    if size > len(rest):
        raise ValueError("a cursor that was cut off")
    place = (_number(instant), _number(commit, 0), rest[:size])
    if order == "changed":
        return place
    return (_number(creation) if order == "created" else rest[size:], *place)


def renamed(cursor: str, rename: Callable[[str, str], tuple[str, str]]) -> str:
    """Return a cursor that names a place, with id and key as `rename` returns them."""
    if not cursor.startswith(_LATER):
        instant, commit, entry_id = cursor.split(":", 2)
        return f"{instant}:{commit}:{rename(entry_id, '')[0]}"
    *numbers, length, rest = cursor[1:].split(":", 4)
    entry_id, key = rename(rest[: int(length)], rest[int(length) :])
    return f"{_LATER}{':'.join(numbers)}:{len(entry_id)}:{entry_id}{key}"


def _number(text: str, least: int = 1 - _LIMIT) -> int:
    number = int(text)
    if not least <= number < _LIMIT:
        raise ValueError("out of range")
    return number


def unknown_order(given: str | None) -> str:
    """Return what is wrong with the name of an order that is none."""
    return f'order: takes "changed", "created" or "key"{nearest(given or "", ORDERS)}'
