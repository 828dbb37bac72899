"""Categories that verbs have for their memories, the fields of these, and the place of a turn in its conversation."""

from __future__ import annotations

from jarvis.model.entry import MemoryEntry

PREFERENCES, TASKS, DEVICES = "preferences", "tasks", "devices"
DEVICE_KEY = "device_info"
"""The key of the device's information."""

PREFERENCES_MANAGER, TASK_EXECUTOR, DEVICE_MANAGER = "preferences_manager", "task_executor", "device_manager"
"""The authors of these memories if no other module is named."""

FACTS = "facts"
"""The category of facts in plain words."""

TEXT, SPEAKER = "text", "speaker"
"""The fields of a value that hold its main text, and who said it."""

TURNS, SESSION, POSITION = "turns", "session", "position"
"""The category of turns, the type of the entity that they are about, and the field with their place."""

_DIGITS = 9


def place_of_turn(entry: MemoryEntry) -> tuple[str, int] | None:
    """Return session and position of a turn; None for any other memory."""
    if entry.category != TURNS or entry.entity_id is None:
        return None
    session, _, position = entry.key.rpartition(" ")
    return (session, int(position)) if session == entry.entity_id and position.isdecimal() else None


def key_of_turn(session_id: str, position: int) -> str:
    """Return the key of a turn; keys of a session are in the order of their positions."""
    return f"{session_id} {position:0{_DIGITS}}"
