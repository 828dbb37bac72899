"""What a SQLite store of an earlier version becomes, and the shortcuts that version 2 takes."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jarvis._sql.session import Session
from jarvis._sqlite import engine, schema
from jarvis.errors import CorruptStoreError, ReadOnlyStoreError
from jarvis.persistent_memory import MemoryModule
from jarvis.sqlite_backend import SQLiteBackend
from tests.stores.make import entries

STORES = sorted((Path(__file__).parent / "stores").glob("version-*.db"))
VERSION_1 = STORES[0]
STATES = "SELECT row, body, checksum FROM {} ORDER BY row"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copy(VERSION_1, tmp_path / "memory.db"))


def _rows(backend: Any, sql: str) -> list[Any]:
    def read(session: Session) -> list[Any]:
        return session.rows(sql)

    found: list[Any] = backend._database.read(read)
    return found


def test_a_store_of_version_1_is_migrated_and_its_entries_stay_as_they_are(old: Path, tmp_path: Path) -> None:
    reader = SQLiteBackend(old, read_only=True)
    before = _rows(reader, "SELECT row, body, checksum FROM entries ORDER BY row")
    reader.shutdown()

    with MemoryModule(storage_dir=tmp_path) as memory:
        backend = memory.backend
        assert isinstance(backend, SQLiteBackend)
        after = _rows(backend, "SELECT row, body, checksum FROM entries ORDER BY row")
        indexes = {name for (name,) in _rows(backend, "SELECT name FROM sqlite_schema WHERE type = 'index'")}
        version = _rows(backend, "PRAGMA user_version")
        memory.upsert_memory("category-1", "key-1", {"n": 2})
        memory.create_memory("new", "new", {"n": 3}, "new", tags=["all"])

        assert before == after
        assert "entries_by_category_key" not in indexes
        assert version == [(schema.CURRENT_VERSION,)]
        assert memory.count_memories(tags=["all"]) == 5
    with MemoryModule(storage_dir=tmp_path, read_only=True) as memory:
        assert memory.count_memories() == 5


@pytest.mark.parametrize("store", STORES, ids=lambda path: path.stem)
def test_every_version_is_migrated_without_touching_an_entry_and_then_compressed(store: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(store, tmp_path / "memory.db"))
    tables = ("entries", "revisions") if int(store.stem.split("-")[1]) >= 3 else ("entries",)
    already = 2 if int(store.stem.split("-")[1]) >= schema.FIRST_WITH_PACKED else 0
    reader = SQLiteBackend(path, read_only=True)
    before = [_rows(reader, STATES.format(table)) for table in tables]
    reader.shutdown()
    assert path.read_bytes() == store.read_bytes()

    with MemoryModule(storage_dir=tmp_path) as memory:
        backend = memory.backend
        after = [_rows(backend, STATES.format(table)) for table in tables]
        packed = [_rows(backend, f"SELECT count(packed) FROM {table}") for table in ("entries", "revisions")]
        held = memory.list_memories()
        done = memory.store.recompress()
        update = memory.update_memory("id-3", {"text": "x" * 3_000})

        assert before == after
        assert packed == [[(already,)], [(0,)]]
        assert _rows(backend, "PRAGMA user_version") == [(schema.CURRENT_VERSION,)]
        assert held == entries()
        assert done.entries == 2 - already  # id-3 of both namespaces
        assert update
        assert [revision.entry.value for revision in memory.get_history("id-3")] == [entries()[3].value]
        assert memory.for_namespace("alice").list_memories() == entries()
    (tmp_path / "memory.db.lock").unlink()
    with MemoryModule(storage_dir=tmp_path, read_only=True) as memory:  # which compares the whole
        assert memory.for_namespace("alice").list_memories() == entries()


@pytest.mark.parametrize("store", STORES, ids=lambda path: path.stem)
def test_who_reads_an_old_store_reads_on_when_it_is_migrated_and_compressed(store: Path, tmp_path: Path) -> None:
    shutil.copy(store, tmp_path / "memory.db")
    with (
        MemoryModule(storage_dir=tmp_path, read_only=True) as reader,
        MemoryModule(storage_dir=tmp_path, namespace="alice", read_only=True) as other,
    ):
        assert reader.list_memories() == other.list_memories() == entries()
        with MemoryModule(storage_dir=tmp_path) as writer:
            writer.store.recompress()
            assert reader.list_memories() == entries()
            assert reader.count_memories(where={"text": {"$exists": True}}) == 1
            assert other.get_memory("id-3") == entries()[3]


def test_a_store_that_version_4_left_half_migrated_is_finished(tmp_path: Path) -> None:
    path = Path(shutil.copy(STORES[3], tmp_path / "memory.db"))
    connection = engine.connect(str(path), key=None, durability="full", busy_timeout_seconds=5)
    connection.execute(f"PRAGMA user_version = {schema.MIGRATING}")
    connection.close()

    with MemoryModule(storage_dir=tmp_path) as memory:
        assert memory.list_memories() == entries()
        memory.store.recompress()
        assert _rows(memory.backend, "PRAGMA user_version") == [(schema.CURRENT_VERSION,)]


def test_versions_before_refuse_the_body_of_a_compressed_value(tmp_path: Path) -> None:
    class BodyOfVersion4(msgspec.Struct, array_like=True):
        value: dict[str, Any]
        tags: list[str]
        provenance: dict[str, str] | tuple[str, str]
        moment: str | tuple[str, int, str | None]

    with MemoryModule(storage_dir=tmp_path) as memory:
        memory.create_memory("c", "k", {"text": "x" * 3_000}, "t")
        ((body,),) = _rows(memory.backend, "SELECT body FROM entries")

    with pytest.raises(msgspec.ValidationError):  # it has the store open since before: no empty value for it
        msgspec.json.decode(body, type=BodyOfVersion4)


def test_reading_a_store_of_version_1_changes_no_byte_of_it(old: Path, tmp_path: Path) -> None:
    with MemoryModule(storage_dir=tmp_path, read_only=True) as memory:
        assert memory.list_memories() == entries()
        with pytest.raises(ReadOnlyStoreError):
            memory.set_user_preference("theme", {})

    assert old.read_bytes() == VERSION_1.read_bytes()


def test_a_damaged_store_of_version_1_is_not_migrated(old: Path) -> None:
    damaged = bytearray(old.read_bytes())
    damaged[damaged.index(b'"task_id":"none"') + 11] ^= 1
    old.write_bytes(damaged)

    with pytest.raises(CorruptStoreError):
        SQLiteBackend(old).bootstrap()

    assert old.read_bytes() == damaged


@pytest.mark.parametrize("moment", [datetime(2026, 3, 1, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, 5, UTC)])
def test_other_tools_see_both_forms_of_an_entry_alike(old: Path, tmp_path: Path, moment: datetime) -> None:
    with MemoryModule(storage_dir=tmp_path, clock=lambda: moment) as memory:
        made = memory.create_memory("new", "new", {"n": [1, "ż"]}, "kind", "e", ["t"], "maker", "task")
        backend = memory.backend
        assert isinstance(backend, SQLiteBackend)
        found = {row[0]: row for row in _rows(backend, "SELECT * FROM memories")}
        wanted = {entry.id: entry for entry in memory.list_memories()}
        alice = memory.for_namespace("alice").count_memories()

    assert len(found) == len(wanted) == alice + 1  # the ids of the other namespace are the same
    for entry_id, (_, category, key, _value, tags, entity_type, entity_id, timestamp, provenance, _) in found.items():
        entry = wanted[entry_id]
        assert (category, key, entity_type, entity_id) == (
            entry.category,
            entry.key,
            entry.entity_type,
            entry.entity_id,
        )
        assert json.loads(tags) == entry.tags
        assert json.loads(provenance) == entry.provenance
        assert timestamp == entry.timestamp.isoformat()
    assert json.loads(found[made][3]) == {"n": [1, "ż"]}


def test_numbers_go_on_where_the_newest_entry_was_deleted(tmp_path: Path) -> None:
    def standing() -> datetime:
        return datetime(2026, 3, 1, tzinfo=UTC)

    positions: list[tuple[int, int]] = []
    for _ in range(3):
        with MemoryModule(storage_dir=tmp_path, clock=standing) as memory:
            memory_id = memory.create_memory("c", "k", {}, "t")
            entry = memory.get_memory(memory_id)
            assert entry is not None
            assert entry.position is not None
            positions.append(entry.position)
            memory.delete_memory(memory_id)

    assert positions == sorted(set(positions))


def test_a_name_that_was_erased_and_given_again_is_found_by_who_knew_it(tmp_path: Path) -> None:
    reader = MemoryModule(storage_dir=tmp_path, namespace="alice")
    writer = MemoryModule(storage_dir=tmp_path)
    alice = writer.for_namespace("alice")
    alice.create_memory("notes", "old", {"n": 1}, "note", tags=["x", "y"])
    assert [entry.key for entry in reader.search_memories(category="notes", tags=["x"])] == ["old"]

    writer.store.erase_namespace("alice")
    writer.create_memory("in between", "takes the next numbers", {}, "other", tags=["z"])
    made = alice.create_memory("notes", "new", {"n": 2}, "note", tags=["y", "x"])
    beside = alice.create_memory("notes", "beside", {"n": 3}, "note", tags=["z"])

    assert [entry.key for entry in reader.get_memories_by_tags(["z"])] == ["beside"]
    assert [entry.key for entry in reader.get_memories_by_tags(["x", "z"])] == ["beside", "new"]
    alice.delete_memory(beside)
    assert [entry.key for entry in reader.search_memories(category="notes", tags=["x"])] == ["new"]
    assert [entry.key for entry in reader.get_memories_by_tags(["x", "nowhere"])] == ["new"]
    assert reader.count_memories(entity_type="note") == 1
    assert reader.get_memory_by_key("new") == reader.get_memory(made) != None  # noqa: E711 - both, and there
    assert [entry.category for entry in reader.iter_memories()] == ["notes"]
    for memory in (reader, writer):
        memory.shutdown()


def test_a_store_that_was_put_in_the_place_of_another_is_not_read_by_its_names(tmp_path: Path) -> None:
    for directory, categories in (("one", ["a", "b", "c"]), ("two", ["c", "b", "a"])):
        with MemoryModule(storage_dir=tmp_path / directory) as memory:
            for category in categories:
                memory.create_memory(category, f"{directory}-{category}", {}, category, tags=[category])
    memory = MemoryModule(storage_dir=tmp_path / "one")
    memory.create_memory("a", "known", {}, "b", tags=["c"])
    memory.shutdown()

    (tmp_path / "one" / "memory.db.lock").unlink()
    (tmp_path / "two" / "memory.db").replace(tmp_path / "one" / "memory.db")
    memory.create_memory("a", "new", {}, "b", tags=["c"])

    assert {entry.key: (entry.category, entry.entity_type, entry.tags) for entry in memory.list_memories()} == {
        **{f"two-{name}": (name, name, [name]) for name in "abc"},
        "new": ("a", "b", ["c"]),
    }
    memory.shutdown()
    (tmp_path / "one" / "memory.db.lock").unlink()
    with MemoryModule(storage_dir=tmp_path / "one") as memory:  # which compares the whole
        assert memory.count_memories(category="a", tags=["c"]) == 1


@pytest.mark.parametrize("note", [b"", b"1 2 3 4 5\n", b"1 2 3", b"\xff" * 200])
def test_a_note_that_cannot_be_right_makes_the_next_opening_look_at_the_whole(
    note: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with MemoryModule(storage_dir=tmp_path) as memory:
        memory.create_memory("c", "k", {}, "t")
    (tmp_path / "memory.db.lock").write_bytes(note)

    for verified in (True, False):
        caplog.clear()
        with caplog.at_level(logging.INFO), MemoryModule(storage_dir=tmp_path) as memory:
            assert memory.count_memories() == 1
        assert ("verifying" in caplog.text) is verified


def test_a_note_of_the_first_form_is_trusted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with MemoryModule(storage_dir=tmp_path) as memory:
        memory.create_memory("c", "k", {}, "t")
    lock = tmp_path / "memory.db.lock"
    lock.write_bytes(b"%d %d %d %d\n" % tuple(map(int, lock.read_bytes().split()[:4])))

    with caplog.at_level(logging.INFO), MemoryModule(storage_dir=tmp_path) as memory:
        assert memory.count_memories() == 1

    assert "verifying" not in caplog.text


def test_a_lock_file_that_is_cut_or_replaced_between_two_writes_harms_nothing(tmp_path: Path) -> None:
    program = """
import os, sys
from jarvis.persistent_memory import MemoryModule
memory = MemoryModule(storage_dir=sys.argv[1])
lock = os.path.join(sys.argv[1], "memory.db.lock")
for turn in range(6):
    memory.create_memory("c", str(turn), {}, "t")
    os.truncate(lock, 0) if turn % 2 else os.unlink(lock)
memory.create_memory("c", "last", {}, "t")
memory.shutdown()
print(memory.count_memories())
"""
    shown = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)

    assert shown.stdout == "7\n", shown.stderr
