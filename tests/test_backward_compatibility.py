"""Stores of every version that landed, as that version wrote them, are opened by today's code."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jarvis.persistent_memory import MemoryModule
from tests.stores.make import entries

STORES = sorted(path for path in (Path(__file__).parent / "stores").iterdir() if path.stem.startswith("version-"))


@pytest.mark.parametrize("store", STORES, ids=lambda path: path.name)
@pytest.mark.parametrize("read_only", [False, True])
def test_a_store_of_an_earlier_version_is_read_whole_and_written_on(
    store: Path, read_only: bool, tmp_path: Path
) -> None:
    backend_type = {".db": "sqlite", ".json": "json"}[store.suffix]
    shutil.copy(store, tmp_path / f"memory{store.suffix}")
    with MemoryModule(storage_dir=tmp_path, backend_type=backend_type, read_only=read_only) as memory:
        assert memory.list_memories() == entries()
        assert memory.for_namespace("alice").list_memories() == entries()
        assert memory.get_memories_by_tags(["tag-2"]) == [entries()[2]]
        assert memory.get_memories_by_entity("kind", "entity-3") == [entries()[3]]
        if not read_only:
            memory.update_memory("id-1", {"n": 2})
            memory.set_user_preference("theme", {})
            assert memory.count_memories() == 5


def test_there_is_a_store_of_each_kind() -> None:
    assert {path.suffix for path in STORES} == {".db", ".json"}
