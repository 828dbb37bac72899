"""The specification, sentence by sentence: both backends, and the module on top of each."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from jarvis.json_backend import JSONBackend
from jarvis.persistent_memory import MemoryModule
from jarvis.sqlite_backend import SQLiteBackend
from jarvis.storage_backend import MemoryEntry, StorageBackend

BACKENDS = {"sqlite": (SQLiteBackend, "memory.db"), "json": (JSONBackend, "memory.json")}


@pytest.fixture(params=sorted(BACKENDS))
def backend_type(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def backend(backend_type: str, tmp_path: Path) -> Iterator[StorageBackend]:
    kind, file_name = BACKENDS[backend_type]
    backend: StorageBackend = kind(tmp_path / file_name)
    backend.bootstrap()
    yield backend
    backend.shutdown()


@pytest.fixture
def memory(backend_type: str, tmp_path: Path) -> Iterator[MemoryModule]:
    memory = MemoryModule(storage_dir=tmp_path, backend_type=backend_type)
    memory.bootstrap()
    yield memory
    memory.shutdown()


def _entry(**fields: Any) -> MemoryEntry:
    usual: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "category": "preferences",
        "key": "theme",
        "value": {"mode": "dark"},
        "tags": ["ui"],
        "entity_type": "user_preference",
        "entity_id": None,
        "timestamp": datetime.now(UTC),
        "provenance": {"module": "ui_module"},
    }
    return MemoryEntry(**{**usual, **fields})


class TestBackends:
    def test_create_and_read(self, backend: StorageBackend) -> None:
        entry = _entry()

        backend.create(entry)

        assert backend.read(entry.id) == entry

    def test_update(self, backend: StorageBackend) -> None:
        entry = _entry()
        backend.create(entry)
        entry.value = {"mode": "light"}

        backend.update(entry)

        found = backend.read(entry.id)
        assert found is not None
        assert found.value == {"mode": "light"}

    def test_delete(self, backend: StorageBackend) -> None:
        entry = _entry()
        backend.create(entry)

        backend.delete(entry.id)

        assert backend.read(entry.id) is None

    def test_list_all(self, backend: StorageBackend) -> None:
        entries = [_entry(key=f"key_{number}") for number in range(3)]
        for entry in entries:
            backend.create(entry)

        assert {entry.key for entry in backend.list_all()} == {"key_0", "key_1", "key_2"}

    def test_query_takes_its_filters_in_the_documented_order(self, backend: StorageBackend) -> None:
        wanted = _entry(category="tasks", tags=["executed"], entity_type="task", entity_id="123", key="task_summary")
        for entry in (wanted, _entry(), _entry(category="tasks", entity_type="task", entity_id="124")):
            backend.create(entry)

        assert backend.query("tasks", ["executed", "other"], "task", "123", "task_summary") == [wanted]
        assert len(backend.query(category="tasks")) == 2
        assert len(backend.query(tags=["ui"])) == 2
        assert len(backend.query()) == 3

    def test_entries_persist_across_instances(self, backend: StorageBackend, backend_type: str, tmp_path: Path) -> None:
        entry = _entry()
        backend.create(entry)
        backend.shutdown()

        kind, file_name = BACKENDS[backend_type]
        again: StorageBackend = kind(tmp_path / file_name)

        assert again.list_all() == [entry]
        again.shutdown()

    def test_data_types_are_preserved(self, backend: StorageBackend) -> None:
        value = {
            "text": "x",
            "int": 1,
            "float": 1.5,
            "bool": True,
            "none": None,
            "list": [1, "a"],
            "dict": {"n": {"m": 1}},
        }
        entry = _entry(value=value)

        backend.create(entry)

        found = backend.read(entry.id)
        assert found is not None
        assert found.value == value
        assert [type(held) for held in found.value.values()] == [type(held) for held in value.values()]

    def test_the_path_is_shown(self, tmp_path: Path) -> None:
        assert SQLiteBackend(tmp_path / "m.db").db_path == tmp_path / "m.db"
        assert JSONBackend(str(tmp_path / "m.json")).file_path == tmp_path / "m.json"


class TestModule:
    def test_creating_memories(self, memory: MemoryModule) -> None:
        memory_id = memory.create_memory(
            category="preferences",
            key="theme",
            value={"mode": "dark"},
            entity_type="user_preference",
            tags=["ui", "important"],
            module="ui_module",
            task_id="task_123",
        )

        entry = memory.get_memory(memory_id)
        assert entry is not None
        assert str(uuid.UUID(entry.id)) == entry.id == memory_id
        assert (entry.category, entry.key, entry.value) == ("preferences", "theme", {"mode": "dark"})
        assert (entry.tags, entry.entity_type, entry.entity_id) == (["ui", "important"], "user_preference", None)
        assert (entry.provenance["module"], entry.provenance["task_id"]) == ("ui_module", "task_123")
        assert datetime.fromisoformat(entry.provenance["created_at"]) == entry.timestamp

    def test_reading_memories(self, memory: MemoryModule) -> None:
        theme = memory.create_memory("preferences", "theme", {}, "user_preference", tags=["ui", "important"])
        task = memory.create_memory("tasks", "task_123", {}, "task", entity_id="task_123", tags=["executed"])

        by_key = memory.get_memory_by_key("theme")

        assert by_key is not None
        assert by_key.id == theme
        assert [entry.id for entry in memory.get_memories_by_category("preferences")] == [theme]
        assert [entry.id for entry in memory.get_memories_by_entity("task", entity_id="task_123")] == [task]
        assert [entry.id for entry in memory.get_memories_by_entity("task")] == [task]
        assert [entry.id for entry in memory.get_memories_by_tags(["important"])] == [theme]
        assert [entry.id for entry in memory.list_memories()] == [task, theme]

    def test_search_with_filters(self, memory: MemoryModule) -> None:
        theme = memory.create_memory("preferences", "theme", {}, "user_preference", tags=["ui"])
        memory.create_memory("preferences", "volume", {}, "user_preference", tags=["audio"])
        summary = memory.create_memory("tasks", "task_summary", {}, "task", "123", tags=["executed"])
        urgent = memory.create_memory("notes", "n", {}, "note", tags=["urgent"])

        def ids(**filters: Any) -> list[str]:
            return [entry.id for entry in memory.search_memories(**filters)]

        assert ids(category="preferences", entity_type="user_preference", tags=["ui"]) == [theme]
        assert ids(category="tasks") == ids(entity_type="task", entity_id="123") == [summary]
        assert ids(tags=["urgent", "important"]) == [urgent]
        assert ids(category="tasks", entity_type="task", tags=["executed"], key="task_summary") == [summary]

    def test_value_filters_limits_and_counts(self, memory: MemoryModule) -> None:
        for number in range(20):
            memory.record_task(str(number), {"status": "failed" if number % 2 else "completed", "duration": number})

        slow = memory.search_memories(where={"status": "failed", "duration": {"$gt": 10}}, limit=3)

        assert [entry.value["duration"] for entry in slow] == [19, 17, 15]
        assert memory.count_memories(where={"status": "failed"}) == 10
        assert [entry.value["duration"] for entry in memory.search_memories(limit=2, after=slow[-1])] == [14, 13]
        assert sum(1 for _ in memory.iter_memories(category="tasks")) == 20

    def test_updating_memories(self, memory: MemoryModule) -> None:
        memory_id = memory.create_memory("preferences", "theme", {"mode": "dark"}, "user_preference", module="a")

        success = memory.update_memory(
            memory_id=memory_id, value={"mode": "light"}, tags=["ui", "updated"], module="ui_module"
        )

        entry = memory.get_memory(memory_id)
        assert success is True
        assert entry is not None
        assert (entry.value, entry.tags) == ({"mode": "light"}, ["ui", "updated"])
        assert (entry.provenance["module"], entry.provenance["updated_by"]) == ("a", "ui_module")
        assert datetime.fromisoformat(entry.provenance["updated_at"]) == entry.timestamp

    def test_deleting_memories(self, memory: MemoryModule) -> None:
        memory_id = memory.create_memory("c", "k", {}, "t")
        memory.create_memory("c", "k", {}, "t")

        assert memory.delete_memory(memory_id) is True
        memory.clear_all()

        assert memory.list_memories() == []

    def test_convenience_apis(self, memory: MemoryModule) -> None:
        memory.set_user_preference("theme", {"mode": "dark"})
        memory.set_device_info({"name": "laptop", "os": "linux"})
        memory.record_task(task_id="task_1", task_data={"status": "completed", "duration": 45}, tags=["executed"])

        assert memory.get_user_preferences() == {"theme": {"mode": "dark"}}
        assert memory.get_device_info() == {"name": "laptop", "os": "linux"}
        assert [entry.value["duration"] for entry in memory.get_task_history(limit=10)] == [45]

    def test_the_file_is_where_the_specification_says(
        self, memory: MemoryModule, backend_type: str, tmp_path: Path
    ) -> None:
        memory.bootstrap()

        assert (tmp_path / BACKENDS[backend_type][1]).is_file()

    def test_the_default_directory_is_under_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))

        with MemoryModule() as memory:
            memory.set_user_preference("theme", {"mode": "dark"})

        assert (tmp_path / ".jarvis" / "memory" / "memory.db").is_file()
        assert MemoryModule().get_user_preferences() == {"theme": {"mode": "dark"}}

    def test_cleaning_up_periodically(self, memory: MemoryModule) -> None:
        memory.record_task("old", {}, tags=["archived"])
        memory.record_task("new", {})

        for task in memory.search_memories(category="tasks", tags=["archived"]):
            memory.delete_memory(task.id)

        assert [entry.entity_id for entry in memory.get_task_history()] == ["new"]
