"""Turns of a conversation: where the next one stands, and all of them in their order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from jarvis._calls.arguments import own_code
from jarvis.errors import InvalidEntryError
from jarvis.model.categories import POSITION, SESSION, SPEAKER, TEXT, TURNS, key_of_turn, place_of_turn
from jarvis.model.entry import MemoryEntry
from jarvis.model.query import MemoryQuery
from jarvis.storage_backend import StorageBackend

_COUNTED = 8
"""How many digits of a position count: a hundred million turns; the keys of all of them begin with the same zero."""


def value_of(speaker: str, text: str, details: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the value of a turn, without its position.

    Raises:
        InvalidEntryError: speaker or text is no text, or the details are no dict, or have a field of a turn.
    """
    if not isinstance(speaker, str):
        raise InvalidEntryError("speaker", f"takes a str, not {type(speaker).__name__}")
    if not isinstance(text, str):
        raise InvalidEntryError("text", f"takes a str, not {type(text).__name__}")
    if details is None:
        return {TEXT: text, SPEAKER: speaker}
    if not issubclass(type(details), Mapping):
        raise InvalidEntryError("details", f"takes a dict, not {type(details).__name__}")
    with own_code(InvalidEntryError, "details"):
        more = dict(details)
        taken = [name for name in (TEXT, SPEAKER, POSITION) if name in more]
    if taken:
        raise InvalidEntryError("details", f"may not have a field of a turn: {', '.join(taken)}")
    return {TEXT: text, SPEAKER: speaker, **more}


def next_position(backend: StorageBackend, session_id: str) -> int:
    """Return the position after the last turn of a session; the first one is 1."""
    last = [place for entry in turns_of(backend, session_id, 1, None) if (place := place_of_turn(entry)) is not None]
    return 1 + max((position for _, position in last), default=0)


def turns_of(
    backend: StorageBackend, session_id: str, limit: int | None, hidden: tuple[str, ...] | None
) -> list[MemoryEntry]:
    """Return the turns of a session in their order; with a limit, the last ones.

    Two have one position if the last was deleted, another one recorded, and the deletion undone: the one that was
    recorded first comes first.
    """
    query = MemoryQuery(
        category=TURNS,
        key_prefix=key_of_turn(session_id, 0)[:-_COUNTED],
        exclude_tags=hidden,
        order="key",
        ascending=False,
        limit=limit,
    )
    turns = backend.select(query)
    if not all(turn.entity_id == session_id for turn in turns):  # the name of another session begins so
        turns = backend.select(msgspec.structs.replace(query, entity_type=SESSION, entity_id=session_id))
    return sorted(turns, key=lambda turn: (turn.key, turn.creation))
