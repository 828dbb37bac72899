"""The kind ``mcp-memory``: the file of the memory server of the Model Context Protocol.

Source: https://github.com/modelcontextprotocol/servers/tree/main/src/memory (2025 and 2026): JSON Lines, with
``{"type": "entity", "name": …, "entityType": …, "observations": […]}`` and
``{"type": "relation", "from": …, "to": …, "relationType": …}``. The format has no times.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jarvis.importers.source import Item, OtherKindError, Unmapped, beginning
from jarvis.model.entry import MAX_NAME_BYTES

ENTITIES, RELATIONS = "entities", "relations"
"""The categories of what this reads."""

RELATION = "relation"
"""The entity type of a relation's memory."""

OBSERVATIONS = "observations"
"""The field of an entity's value."""

_KINDS = {"entity": {"name", "entityType", "observations"}, "relation": {"from", "to", "relationType"}}


def looks_like(path: Path) -> bool:
    """Tell whether the first line is an entity or a relation."""
    first = next((line for line in beginning(path).splitlines() if line.strip()), b"")
    try:
        _record(first)
    except ValueError:
        return False
    return True


def read(path: Path) -> Iterator[Item | Unmapped]:
    """Yield the entities, with their observations, and the relations."""
    is_other = True
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            place = f"{path.name}, line {number}"
            try:
                record = _record(line)
            except ValueError as error:
                yield Unmapped(place, str(error))
                continue
            is_other = False
            yield _item(place, record)
            for name in sorted(record.keys() - _KINDS[record["type"]] - {"type"}):
                yield Unmapped(place, f"the field {name!r} is not known")
    if is_other:
        raise OtherKindError("no line is an entity or a relation")


def _record(line: bytes) -> dict[str, Any]:
    """Return the record of a line; raise `ValueError` with the reason if it holds none."""
    try:
        record: Any = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("is no JSON") from None
    kind = record.get("type") if isinstance(record, dict) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError("is neither an entity nor a relation")
    for name in sorted(_KINDS[kind]):
        text = record.get(name)
        is_right = isinstance(text, str)
        if name == "observations":
            is_right = isinstance(text, list) and all(isinstance(each, str) for each in text)
        if not is_right:
            raise ValueError(f"the field {name!r} is missing or of another type")
    return dict(record)


def _item(place: str, record: dict[str, Any]) -> Item:
    if record["type"] == "entity":
        return Item(
            place=place,
            category=ENTITIES,
            key=record["name"],
            value={OBSERVATIONS: record["observations"]},
            entity_type=record["entityType"],
            entity_id=record["name"],
        )
    relation = {name: record[name] for name in ("from", "relationType", "to")}
    return Item(
        place=place,
        category=RELATIONS,
        key=key_of_relation(relation),
        value=relation,
        entity_type=RELATION,
    )


def key_of_relation(relation: dict[str, str]) -> str:
    """Return the key of a relation's memory: its three texts, as JSON, or the digest of that if it is too long."""
    key = json.dumps([relation[name] for name in ("from", "relationType", "to")], ensure_ascii=False)
    if len(key.encode("utf-8", "surrogatepass")) <= MAX_NAME_BYTES:
        return key
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
