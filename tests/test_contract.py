"""Every backend keeps the contract: ours, and one that a stranger wrote from the eight verbs alone."""

from __future__ import annotations

import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar

import pytest

from jarvis.conformance import BackendContract
from jarvis.conformance.fixtures import OpenBackend
from jarvis.entry_record import decode_body, encode_body, make_entry
from jarvis.errors import DuplicateEntryError, EntryNotFoundError
from jarvis.json_backend import JSONBackend
from jarvis.keys import KeyFunction
from jarvis.memory_entry import MemoryEntry, MemoryQuery
from jarvis.sqlite_backend import SQLiteBackend
from jarvis.storage_backend import StorageBackend


class DictBackend(StorageBackend):
    """A whole backend in the eight verbs: entries as bytes in a dict, shared by all handles on a path."""

    name: ClassVar[str] = "dict"
    _stores: ClassVar[dict[str, dict[str, tuple[Any, ...]]]] = {}
    _lock: ClassVar[Any] = threading.RLock()

    def __init__(self, path: str | Path) -> None:
        self._held = self._stores.setdefault(str(path), {})

    def bootstrap(self) -> None:
        pass

    def shutdown(self) -> None:
        pass

    def create(self, entry: MemoryEntry) -> None:
        record = self._record(entry, 1)
        with self._lock:
            if entry.id in self._held:
                raise DuplicateEntryError("the id is taken")
            self._held[entry.id] = record

    def read(self, entry_id: str) -> MemoryEntry | None:
        record = self._held.get(entry_id)
        return None if record is None else self._entry(record)

    def update(self, entry: MemoryEntry) -> None:
        with self._lock:
            if entry.id not in self._held:
                raise EntryNotFoundError("no entry has the id")
            self._held[entry.id] = self._record(entry, self._held[entry.id][5] + 1)

    def delete(self, entry_id: str) -> None:
        self._held.pop(entry_id, None)

    def list_all(self) -> list[MemoryEntry]:
        entries = [self._entry(record) for record in list(self._held.values())]
        return sorted(entries, key=lambda entry: entry.order, reverse=True)

    def query(
        self,
        category: str | None = None,
        tags: Collection[str] | None = None,
        entity_type: str | None = None,
        entity_id: str | None = None,
        key: str | None = None,
    ) -> list[MemoryEntry]:
        query = MemoryQuery(category=category, tags=tags, entity_type=entity_type, entity_id=entity_id, key=key)
        return [entry for entry in self.list_all() if query.matches(entry)]

    def _record(self, entry: MemoryEntry, version: int) -> tuple[Any, ...]:
        body, instant = encode_body(entry)
        commit = self._stores.setdefault("commits", {}).setdefault("last", (0,))[0] + 1
        self._stores["commits"]["last"] = (commit,)
        return entry.id, entry.category, entry.key, entry.entity_type, entry.entity_id, version, (instant, commit), body

    def _entry(self, record: tuple[Any, ...]) -> MemoryEntry:
        entry_id, category, key, entity_type, entity_id, version, position, body = record
        return make_entry(entry_id, category, key, entity_type, entity_id, version, position, decode_body(body))


class TestSQLite(BackendContract):
    @pytest.fixture
    def open_backend(self, tmp_path: Path) -> OpenBackend:
        return lambda: SQLiteBackend(tmp_path / "memory.db", durability="normal")


def a_key() -> bytes:
    return b"a key of the suite, 32 bytes long"[:32]


class TestSQLiteEncrypted(BackendContract):
    @pytest.fixture
    def open_backend(self, tmp_path: Path) -> OpenBackend:
        keys = [KeyFunction(a_key)]
        return lambda: SQLiteBackend(tmp_path / "memory.db", durability="normal", encryption="required", keys=keys)


class TestJSON(BackendContract):
    @pytest.fixture
    def open_backend(self, tmp_path: Path) -> OpenBackend:
        return lambda: JSONBackend(tmp_path / "memory.json", durability="normal")


class TestThirdParty(BackendContract):
    @pytest.fixture
    def open_backend(self, tmp_path: Path) -> OpenBackend:
        return lambda: DictBackend(tmp_path / "store")
