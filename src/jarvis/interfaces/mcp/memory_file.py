"""Takes over the file of the reference memory server, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from jarvis.errors import InvalidSettingError, translated
from jarvis.importers import mcp_memory
from jarvis.importers.source import Item, OtherKindError
from jarvis.interfaces.mcp.graph import Entity, KnowledgeGraph, Observed, Relation, can_be
from jarvis.persistent_memory import MemoryModule

VARIABLE = "MEMORY_FILE_PATH"
"""The environment variable that names the file, as it did for the reference server."""

IMPORTS = "imports"
"""The category of the memories that say which files were taken over."""

_MODULE = "mcp-memory"


def import_once(memory: MemoryModule, path: Path) -> str | None:
    """Add what a file holds to the graph of a memory, in one transaction, unless that was done before.

    The file is only read. An entity that is there gets the observations that it lacks. What was deleted later does not
    come back: the memory notes that it took over this path.

    Returns:
        What was done, in a line for people; None if it was done before.

    Raises:
        InvalidSettingError: the file is of another kind.
        StoreError: it cannot be read, or the memory cannot be written.
    """
    path = path.absolute()
    with memory.acting_as(module=_MODULE), memory.transaction():
        if memory.get_memory_by_key(str(path), IMPORTS) is not None:
            return None
        if not path.exists():
            return f"{VARIABLE}: there is no {path}; the first start that finds it reads it"
        items = _items_of(path)
        done = _put(KnowledgeGraph(memory), [item for item in items if isinstance(item, Item)])
        done["refused"] += sum(not isinstance(item, Item) for item in items)
        memory.create_memory(IMPORTS, str(path), dict(done), "file", str(path))
    refused = f", what could not be: {done['refused']:,}" if done["refused"] else ""
    return (
        f"{VARIABLE}: took over {path}, which is no longer used; "
        f"entities: {done['entities']:,}, relations: {done['relations']:,}{refused}"
    )


def _items_of(path: Path) -> list[object]:
    try:
        if not path.stat().st_size:
            return []
        return list(mcp_memory.read(path))
    except OtherKindError as error:
        raise InvalidSettingError(f"{VARIABLE}: {path} is no file of the reference memory server: {error}") from None
    except OSError as error:
        raise translated(path, error, "read") from None


def _put(graph: KnowledgeGraph, items: Iterable[Item]) -> Counter[str]:
    entities: dict[str, Entity] = {}
    relations, done = [], Counter[str](entities=0, relations=0, refused=0)
    for item in items:
        if not _can_be_kept(item):
            done["refused"] += 1
            continue
        if item.category == mcp_memory.RELATIONS:
            relations.append(Relation(item.value["from"], item.value["to"], item.value["relationType"]))
            continue
        first = entities.setdefault(item.key, Entity(item.key, item.entity_type, []))
        first.observations = list(dict.fromkeys(first.observations + item.value[mcp_memory.OBSERVATIONS]))
    created = {entity.name for entity in graph.create_entities(list(entities.values()))}
    known = [entity for entity in entities.values() if entity.name not in created]
    graph.add_observations([Observed(entity.name, entity.observations) for entity in known])
    graph.create_relations(relations)
    done["entities"], done["relations"] = len(entities), len(relations)
    return done


def _can_be_kept(item: Item) -> bool:
    is_relation = item.category == mcp_memory.RELATIONS
    names = item.value.values() if is_relation else (item.key, item.entity_type)
    return all(map(can_be, names))
