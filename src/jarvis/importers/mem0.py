"""The kind ``mem0``: the SQLite file in which mem0 keeps the history of its memories, ``history.db``.

Source: https://github.com/mem0ai/mem0/blob/main/mem0/memory/storage.py (mem0ai 0.1 to 1.0): the table ``history``, a
row for each event ADD, UPDATE or DELETE of a memory. Users, agents and metadata are in mem0's vector store alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jarvis.importers.source import Item, OtherKindError, Unmapped
from jarvis.importers.sqlite_file import columns_of, has, moment, opened

_COLUMNS = ("memory_id", "new_memory", "event", "created_at", "updated_at")
_OPTIONAL = ("actor_id", "role")


def looks_like(path: Path) -> bool:
    """Tell whether it is a SQLite file with a table ``history`` of mem0."""
    return has(path, "history", _COLUMNS)


def read(path: Path) -> Iterator[Item | Unmapped]:
    """Yield the memories that were not deleted, as they were last; the key is mem0's id."""
    with opened(path) as connection:
        columns = columns_of(connection, "history")
        if not set(_COLUMNS) <= columns:
            raise OtherKindError("it has no table 'history' of mem0")
        wanted = [*_COLUMNS, *(name for name in _OPTIONAL if name in columns)]
        found: dict[str, dict[str, object]] = {}
        for row, *fields in connection.execute(f"SELECT rowid, {', '.join(wanted)} FROM history ORDER BY rowid"):
            event = dict(zip(wanted, fields, strict=True))
            memory_id = event["memory_id"]
            place = f"{path.name}, row {row} of history"
            if event["event"] == "DELETE" and isinstance(memory_id, str):
                found.pop(memory_id, None)
            elif not isinstance(memory_id, str) or not isinstance(event["new_memory"], str):
                yield Unmapped(place, "tells no memory")
            else:
                first = found.get(memory_id, event)
                found[memory_id] = {**event, "created_at": first["created_at"], "place": place}
        if columns_of(connection, "messages"):
            ((count,),) = connection.execute("SELECT count(*) FROM messages")
            if count:
                yield Unmapped(f"{path.name}, table messages", f"its {count} messages are no memories")
    for memory_id, event in found.items():
        created = moment(event["created_at"])
        yield Item(
            place=str(event["place"]),
            category="mem0",
            key=memory_id,
            value={
                "memory": event["new_memory"],
                **{name: event[name] for name in _OPTIONAL if event.get(name) is not None},
            },
            entity_type="memory",
            created_at=created,
            timestamp=moment(event["updated_at"]) or created,
        )
