"""The library itself, by its public module, on the embedded default."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.corpus import Record
from benchmarks.systems.system import System, Touched
from jarvis.persistent_memory import HistoryPolicy, MemoryEntry, MemoryModule


def open_in(directory: Path, *, durable: bool) -> Jarvis:
    """Return the store in `directory`, opened."""
    return Jarvis(opened(directory, "sqlite", durable=durable))


NO_PAST = HistoryPolicy(max_revisions=0)
"""Keep no past states: the other systems keep none."""


def opened(directory: Path, backend_type: str, *, durable: bool, history: HistoryPolicy = NO_PAST) -> MemoryModule:
    """Return the module on the store in `directory`, ready."""
    memory = MemoryModule(
        storage_dir=directory,
        backend_type=backend_type,
        durability="full" if durable else "normal",
        history=history,
    )
    memory.bootstrap()
    return memory


class Jarvis(System):
    """`MemoryModule`, as its users call it."""

    def __init__(self, memory: MemoryModule) -> None:
        self.memory = memory

    @staticmethod
    def versions() -> dict[str, str]:
        from importlib.metadata import version  # slow to import, which is measured

        import apsw

        return {
            "jarvis": version("jarvis-memory"),
            "sqlite": apsw.sqlite_lib_version(),
            "python": sys.version.split()[0],
        }

    def bulk(self, records: Iterable[Record]) -> list[Any]:
        with self.memory.transaction():
            return [self.create(each) for each in records]

    def create(self, record: Record) -> Any:
        return self.memory.create_memory(*record[:5], tags=record.tags, module=record.module, task_id=record.task_id)

    def get(self, entry_id: Any) -> Touched:
        return _touched(self.memory.get_memory(entry_id))

    def get_by_key(self, key: str) -> Touched:
        return _touched(self.memory.get_memory_by_key(key))

    def of_category(self, category: str, limit: int) -> list[Touched]:
        return _all_touched(self.memory.search_memories(category=category, limit=limit))

    def of_tag(self, tag: str, limit: int) -> list[Touched]:
        return _all_touched(self.memory.search_memories(tags=[tag], limit=limit))

    def of_entity(self, entity_type: str, entity_id: str) -> list[Touched]:
        return _all_touched(self.memory.get_memories_by_entity(entity_type, entity_id))

    def combined(self, category: str, entity_type: str, tag: str) -> list[Touched]:
        return _all_touched(self.memory.search_memories(category=category, entity_type=entity_type, tags=[tag]))

    def longer_than(self, duration: int, category: str) -> list[Touched]:
        return _all_touched(self.memory.search_memories(category=category, where={"duration": {"$gt": duration}}))

    def everything(self) -> list[Touched]:
        return _all_touched(self.memory.list_memories())

    def update(self, entry_id: Any, value: dict[str, Any]) -> None:
        self.memory.update_memory(entry_id, value, module="updater")

    def delete(self, entry_id: Any) -> None:
        self.memory.delete_memory(entry_id)

    def set_preference(self, key: str, value: dict[str, Any]) -> None:
        self.memory.set_user_preference(key, value)

    def clear(self) -> int:
        return self.memory.clear_all()

    def close(self) -> None:
        self.memory.shutdown()


def _touched(entry: MemoryEntry | None) -> Touched:
    if entry is None:
        raise LookupError("it was not found")
    return entry.key, len(entry.value["text"]), len(entry.tags) + len(entry.provenance["module"]) + entry.timestamp.day


def _all_touched(entries: list[MemoryEntry]) -> list[Touched]:
    return [_touched(entry) for entry in entries]
