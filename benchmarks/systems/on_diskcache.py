"""diskcache (https://pypi.org/project/diskcache): pickles in SQLite, found by key.

A row for each memory, and one that leads from the memory's key to its id. It finds nothing else, so a list
is a walk through the memories, newest first, until there are enough. Syncs each commit if told to.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import diskcache

from benchmarks.corpus import Record
from benchmarks.systems.system import System, Touched

MEMORY, KEY = "memory/", "key/"


def open_in(directory: Path, *, durable: bool) -> OnDiskcache:
    """Return the store in `directory`, opened."""
    # Nothing is evicted, as of a store of memories; no look for the expired at each write: nothing expires.
    return OnDiskcache(
        diskcache.Cache(directory, eviction_policy="none", cull_limit=0, sqlite_synchronous=2 if durable else 1)
    )


class OnDiskcache(System):
    """A `diskcache.Cache` of memories."""

    def __init__(self, cache: diskcache.Cache) -> None:
        self.cache = cache

    @staticmethod
    def versions() -> dict[str, str]:
        return {
            "diskcache": diskcache.__version__,
            "sqlite": sqlite3.sqlite_version,
            "python": sys.version.split()[0],
        }

    def bulk(self, records: Iterable[Record]) -> list[Any]:
        with self.cache.transact():
            return [self._add(each) for each in records]

    def create(self, record: Record) -> Any:
        with self.cache.transact():
            return self._add(record)

    def _add(self, record: Record) -> str:
        now = datetime.now(UTC)
        memory_id = MEMORY + str(uuid4())
        memory = record._asdict()
        memory["timestamp"] = now
        memory["provenance"] = {"module": memory.pop("module"), "task_id": memory.pop("task_id"), "created_at": now}
        self.cache[memory_id] = memory
        self.cache[KEY + record.key] = memory_id
        return memory_id

    def get(self, entry_id: Any) -> Touched:
        return _touched(self.cache[entry_id])

    def get_by_key(self, key: str) -> Touched:
        return _touched(self.cache[self.cache[KEY + key]])

    def of_category(self, category: str, limit: int) -> list[Touched]:
        return self._walk(lambda memory: bool(memory["category"] == category), limit)

    def of_tag(self, tag: str, limit: int) -> list[Touched]:
        return self._walk(lambda memory: tag in memory["tags"], limit)

    def of_entity(self, entity_type: str, entity_id: str) -> list[Touched]:
        return self._walk(
            lambda memory: bool(memory["entity_id"] == entity_id and memory["entity_type"] == entity_type)
        )

    def combined(self, category: str, entity_type: str, tag: str) -> list[Touched]:
        return self._walk(
            lambda memory: (
                memory["category"] == category and memory["entity_type"] == entity_type and tag in memory["tags"]
            )
        )

    def longer_than(self, duration: int, category: str) -> list[Touched]:
        return self._walk(
            lambda memory: bool(memory["category"] == category and memory["value"]["duration"] > duration)
        )

    def everything(self) -> list[Touched]:
        return self._walk(lambda memory: True)

    def _walk(self, is_wanted: Callable[[dict[str, Any]], bool], limit: int | None = None) -> list[Touched]:
        found: list[dict[str, Any]] = []
        for name in reversed(self.cache):  # in the order of insertion
            if name.startswith(MEMORY):
                memory = self.cache[name]
                if is_wanted(memory):
                    found.append(memory)
                    if len(found) == limit:
                        break
        return [_touched(memory) for memory in found]

    def update(self, entry_id: Any, value: dict[str, Any]) -> None:
        with self.cache.transact():
            self._change(entry_id, value, "updater")

    def _change(self, memory_id: str, value: dict[str, Any], module: str) -> None:
        memory = self.cache.pop(memory_id)  # what is inserted anew is the newest
        memory["value"], memory["timestamp"] = value, datetime.now(UTC)
        memory["provenance"].update(updated_at=memory["timestamp"], updated_by=module)
        self.cache[memory_id] = memory

    def delete(self, entry_id: Any) -> None:
        with self.cache.transact():
            memory = self.cache.pop(entry_id)
            if self.cache.get(KEY + memory["key"]) == entry_id:
                del self.cache[KEY + memory["key"]]

    def set_preference(self, key: str, value: dict[str, Any]) -> None:
        with self.cache.transact():
            memory_id = self.cache.get(KEY + key)
            if memory_id is None or self.cache[memory_id]["category"] != "preferences":
                author = ("preferences_manager", "none")
                self._add(Record("preferences", key, value, "user_preference", "", [], *author))
            else:
                self._change(memory_id, value, "preferences_manager")

    def clear(self) -> int:
        with self.cache.transact():
            memories = [name for name in self.cache if name.startswith(MEMORY)]
            self.cache.clear()
        return len(memories)

    def close(self) -> None:
        self.cache.close()


def _touched(memory: dict[str, Any]) -> Touched:
    several = len(memory["tags"]) + len(memory["provenance"]["module"]) + memory["timestamp"].day
    return memory["key"], len(memory["value"]["text"]), several
