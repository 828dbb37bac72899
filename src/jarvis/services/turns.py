"""Turns of a conversation: where the next one stands, and all of them in their order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jarvis._calls.arguments import own_code
from jarvis.errors import InvalidEntryError
from jarvis.model.entry import MemoryEntry
from jarvis.model.query import MemoryQuery
from jarvis.model.turn import POSITION, SESSION, SPEAKER, TEXT, TURNS, key_of_turn, place_of_turn
from jarvis.storage_backend import StorageBackend


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
    turns = MemoryQuery(category=TURNS, entity_type=SESSION, entity_id=session_id, order="created", limit=1)
    last = [place_of_turn(entry) for entry in backend.select(turns)]
    position = 1 + max([backend.count(turns), *(place[1] for place in last if place is not None)])
    while backend.last_written(TURNS, key_of_turn(session_id, position)) is not None:  # it was not created last
        position += 1
    return position


def turns_of(
    backend: StorageBackend, session_id: str, limit: int | None, hidden: tuple[str, ...] | None
) -> list[MemoryEntry]:
    """Return the turns of a session in their order; with a limit, the last ones."""
    query = MemoryQuery(category=TURNS, entity_type=SESSION, entity_id=session_id, exclude_tags=hidden)
    placed = [(place[1], entry.order, entry) for entry in backend.select(query) if (place := place_of_turn(entry))]
    turns = [entry for *_, entry in sorted(placed, key=lambda each: each[:2])]
    return turns if limit is None else turns[-limit:]
