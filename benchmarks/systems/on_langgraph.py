"""LangGraph's `SqliteStore` (https://pypi.org/project/langgraph-checkpoint-sqlite): JSON items in namespaces.

A namespace for each category; tags are fields of the item, so that its filters find them. It has an index of
namespaces and ids only, and filters look at each item. Its lists are newest first to the second, not exactly.
Durability is that of the connection it is given, which has the write-ahead log, as the hand-written store's.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

from langgraph.store.base import Item, PutOp, SearchItem
from langgraph.store.sqlite import SqliteStore

from benchmarks.corpus import Record
from benchmarks.systems.system import System, Touched

ROOT = ("memories",)
ALL = 1_000_000_000


def open_in(directory: Path, *, durable: bool) -> OnLangGraph:
    """Return the store in `directory`, opened."""
    connection = sqlite3.connect(directory / "store.db", timeout=30, check_same_thread=False, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    return OnLangGraph(connection)


class OnLangGraph(System):
    """A `SqliteStore` of memories; an id is a namespace and the key in it."""

    exact_order = False

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.store = SqliteStore(connection)
        self.store.setup()

    @staticmethod
    def versions() -> dict[str, str]:
        package = "langgraph-checkpoint-sqlite"
        return {package: version(package), "sqlite": sqlite3.sqlite_version, "python": sys.version.split()[0]}

    def bulk(self, records: Iterable[Record]) -> list[Any]:
        puts = [PutOp((*ROOT, each.category), str(uuid4()), _item_value(each)) for each in records]
        self.store.batch(puts)
        return [(put.namespace, put.key) for put in puts]

    def create(self, record: Record) -> Any:
        namespace, key = (*ROOT, record.category), str(uuid4())
        self.store.put(namespace, key, _item_value(record))
        return namespace, key

    def get(self, entry_id: Any) -> Touched:
        return _touched(self.store.get(*entry_id))

    def get_by_key(self, key: str) -> Touched:
        return _touched(self.store.search(ROOT, filter={"key": key}, limit=1)[0])

    def of_category(self, category: str, limit: int) -> list[Touched]:
        return _all_touched(self.store.search((*ROOT, category), limit=limit))

    def of_tag(self, tag: str, limit: int) -> list[Touched]:
        return _all_touched(self.store.search(ROOT, filter={f"tags.{tag}": True}, limit=limit))

    def of_entity(self, entity_type: str, entity_id: str) -> list[Touched]:
        wanted = {"entity_type": entity_type, "entity_id": entity_id}
        return _all_touched(self.store.search(ROOT, filter=wanted, limit=ALL))

    def combined(self, category: str, entity_type: str, tag: str) -> list[Touched]:
        wanted = {"entity_type": entity_type, f"tags.{tag}": True}
        return _all_touched(self.store.search((*ROOT, category), filter=wanted, limit=ALL))

    def longer_than(self, duration: int, category: str) -> list[Touched]:
        wanted = {"value.duration": {"$gt": duration}}
        return _all_touched(self.store.search((*ROOT, category), filter=wanted, limit=ALL))

    def everything(self) -> list[Touched]:
        return _all_touched(self.store.search(ROOT, limit=ALL))

    def update(self, entry_id: Any, value: dict[str, Any]) -> None:
        # Two calls, so two transactions: it cannot change an item that it reads in the same one.
        item = self.store.get(*entry_id)
        assert item is not None
        changed = {**item.value, "value": value}
        now = datetime.now(UTC).isoformat()
        changed["provenance"] = {**changed["provenance"], "updated_at": now, "updated_by": "updater"}
        self.store.put(*entry_id, changed)

    def delete(self, entry_id: Any) -> None:
        self.store.delete(*entry_id)

    def set_preference(self, key: str, value: dict[str, Any]) -> None:
        # A put replaces, in one transaction; who created the preference is not kept.
        author = ("preferences_manager", "none")
        preference = Record("preferences", key, value, "user_preference", "", [], *author)
        self.store.put((*ROOT, "preferences"), key, _item_value(preference))

    def clear(self) -> int:
        items = self.store.search(ROOT, limit=ALL)
        self.store.batch([PutOp(item.namespace, item.key, None) for item in items])
        return len(items)

    def close(self) -> None:
        self.connection.close()


def _item_value(record: Record) -> dict[str, Any]:
    provenance = {
        "module": record.module,
        "task_id": record.task_id,
        "created_at": datetime.now(UTC).isoformat(),
    }
    return {
        "category": record.category,
        "key": record.key,
        "value": record.value,
        "entity_type": record.entity_type,
        "entity_id": record.entity_id,
        "tags": dict.fromkeys(record.tags, True),
        "provenance": provenance,
    }


def _touched(item: Item | None) -> Touched:
    if item is None:
        raise LookupError("it was not found")
    value = item.value
    several = len(value["tags"]) + len(value["provenance"]["module"]) + item.updated_at.day
    return value["key"], len(value["value"]["text"]), several


def _all_touched(items: list[SearchItem]) -> list[Touched]:
    return [_touched(item) for item in items]
