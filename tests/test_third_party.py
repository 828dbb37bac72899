"""A backend that a stranger wrote against the eight verbs, kept here as it was: it works as it did."""

from __future__ import annotations

import itertools
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest

from jarvis.capabilities import Namespaced, Transactional
from jarvis.conformance import BackendContract
from jarvis.conformance.fixtures import OpenBackend
from jarvis.errors import DuplicateEntryError, EntryNotFoundError, UnsupportedError
from jarvis.model.record import decode_body, encode_body, make_entry
from jarvis.persistent_memory import MemoryModule
from jarvis.sqlite_backend import SQLiteBackend
from jarvis.storage_backend import DEFAULT_NAMESPACE, MemoryEntry, MemoryQuery, StorageBackend


class FormerBackend(StorageBackend):
    """Memories in a dict: gone with the process. All handles on a path share it."""

    name = "dict"
    stores: ClassVar[dict[str, Any]] = {}
    lock = threading.RLock()

    def __init__(self, path: str) -> None:
        self.path = path
        self.records, self.commits = self.stores.setdefault(path, ({}, itertools.count(1)))

    def bootstrap(self) -> None:
        pass

    def shutdown(self) -> None:
        pass

    def create(self, entry: MemoryEntry) -> None:
        with self.lock:
            if entry.id in self.records:
                raise DuplicateEntryError("the id is taken")
            self.put(entry, version=1)

    def update(self, entry: MemoryEntry) -> None:
        with self.lock:
            if entry.id not in self.records:
                raise EntryNotFoundError("no entry has the id")
            self.put(entry, version=self.records[entry.id][5] + 1)

    def read(self, entry_id: str) -> MemoryEntry | None:
        record = self.records.get(entry_id)
        return None if record is None else self.entry(record)

    def delete(self, entry_id: str) -> None:
        self.records.pop(entry_id, None)

    def list_all(self) -> list[MemoryEntry]:
        entries = [self.entry(record) for record in list(self.records.values())]
        return sorted(entries, key=lambda entry: entry.order, reverse=True)

    def query(
        self, category: Any = None, tags: Any = None, entity_type: Any = None, entity_id: Any = None, key: Any = None
    ) -> list[MemoryEntry]:
        query = MemoryQuery(category=category, tags=tags, entity_type=entity_type, entity_id=entity_id, key=key)
        return [entry for entry in self.list_all() if query.matches(entry)]

    def put(self, entry: MemoryEntry, version: int) -> None:
        body, instant = encode_body(entry)  # raises InvalidEntryError
        self.records[entry.id] = (
            entry.id,
            entry.category,
            entry.key,
            entry.entity_type,
            entry.entity_id,
            version,
            (instant, next(self.commits)),
            body,
        )

    def entry(self, record: Any) -> MemoryEntry:
        *fields, body = record
        return make_entry(*fields, decode_body(body))  # type: ignore[call-arg, arg-type]  # the record has its fields


class FormerNamespacedBackend(FormerBackend):
    """Memories in dicts, one for each namespace of a path, from before handles were made by ``bind``."""

    name = "dicts"
    capabilities = (Namespaced,)
    stores: ClassVar[dict[str, Any]] = {}

    def __init__(self, path: str, namespace: str = DEFAULT_NAMESPACE) -> None:
        super().__init__(f"{path}/{namespace}")
        self.whole, self.namespace = path, namespace

    def for_namespace(self, namespace: str) -> Any:
        return type(self)(self.whole, namespace)

    def list_namespaces(self) -> list[str]:
        return sorted(path.rpartition("/")[2] for path, (records, _) in self.stores.items() if records)


class TestFormer(BackendContract):
    @pytest.fixture
    def open_backend(self, tmp_path: Path) -> OpenBackend:
        return lambda: FormerBackend(str(tmp_path))


def test_a_module_on_eight_verbs_takes_a_clock_and_refuses_a_namespace(tmp_path: Path) -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    memory = MemoryModule(storage_backend=FormerBackend(str(tmp_path)), clock=lambda: noon)

    memory.record_task("1", {"status": "completed"})

    assert [entry.timestamp for entry in memory.get_task_history()] == [noon]
    with pytest.raises(UnsupportedError, match="has no namespaces; backends that have it: json, postgresql, sqlite"):
        memory.for_namespace("alice")


def test_a_module_finds_the_namespaces_of_a_backend_that_knows_no_bind(tmp_path: Path) -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    backend = FormerNamespacedBackend(str(tmp_path))
    alice = MemoryModule(storage_backend=backend, namespace="alice", clock=lambda: noon)

    alice.set_user_preference("theme", {"mode": "light"})
    alice.for_namespace("bob").set_user_preference("theme", {"mode": "dark"})

    assert alice.store.list_namespaces() == ["alice", "bob"]
    assert MemoryModule(storage_backend=backend).for_namespace("alice").get_user_preferences() == {
        "theme": {"mode": "light"}
    }


class OnlyTransactional(SQLiteBackend):
    """Tells of transactions alone; nothing expires."""

    capabilities = (Transactional,)


def test_a_table_is_put_into_a_backend_on_which_nothing_expires(tmp_path: Path) -> None:
    memory = MemoryModule(OnlyTransactional(tmp_path / "memory.db"))
    table = memory.table("things")

    table.put("a", {"n": 1})
    table.put_many({"b": {"n": 2}})

    assert table.items() == [("a", {"n": 1}), ("b", {"n": 2})]
    with pytest.raises(UnsupportedError, match="has no expiry"):
        table.put("a", {}, ttl=60)
    memory.shutdown()
