"""What only the SQLite backend does: its file, its connections, its migrations, its view for other tools."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import apsw
import pytest

from jarvis._disk.files import Stamp
from jarvis._sql.session import Session
from jarvis._sqlite import engine, schema, verification
from jarvis._sqlite.connection import Connection
from jarvis.errors import (
    CorruptStoreError,
    StoreAccessError,
    StoreMissingError,
    StoreOutdatedError,
    StoreTooNewError,
    TransactionError,
)
from jarvis.model.entry import MemoryEntry
from jarvis.model.query import MemoryQuery
from jarvis.persistent_memory import MemoryModule
from jarvis.sqlite_backend import SQLiteBackend

FIRST_LIFE = """
CREATE TABLE memories (
    id TEXT PRIMARY KEY, category TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, tags TEXT NOT NULL,
    entity_type TEXT NOT NULL, entity_id TEXT, timestamp TEXT NOT NULL, provenance TEXT NOT NULL,
    created_at TEXT NOT NULL
);
CREATE INDEX idx_category ON memories(category);
CREATE INDEX idx_entity ON memories(entity_type, entity_id);
CREATE INDEX idx_tags ON memories(tags);
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


OTHER_TOOL = """
import json, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
rows = connection.execute(sys.argv[2]).fetchall()
connection.commit()
print(json.dumps(rows))
"""


def _with_other_tool(path: Path, sql: str) -> Any:
    """Run SQL with the standard library's SQLite, in a process of its own, as another tool would."""
    arguments = [sys.executable, "-c", OTHER_TOOL, str(path), sql]
    return json.loads(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)


def _set_version(path: Path, version: int) -> None:
    """Mark the store as a later jarvis would, with page checksums."""
    connection = engine.connect(str(path), key=None, durability="full", busy_timeout_seconds=5)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()


def _first_life_store(path: Path, rows: int = 3, *, wal: bool = False) -> list[dict[str, Any]]:
    connection = sqlite3.connect(path)
    if wal:
        connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(FIRST_LIFE)
    start = datetime(2024, 1, 15, 10, 30, 0, 123456)
    entries = [
        {
            "id": f"id-{number}",
            "category": "tasks" if number % 2 else "preferences",
            "key": f"key-{number}",
            "value": {"n": number, "$type": "literal", "bad": float("nan") if number == 1 else None},
            "tags": ["a", f"t{number}", "a"],
            "entity_type": "task",
            "entity_id": None if number == 0 else str(number),
            "timestamp": (start - timedelta(hours=number)).isoformat(" " if number == 2 else "T"),
            "provenance": {"module": "m", "task_id": "none"},
        }
        for number in range(rows)
    ]
    for entry in entries:
        texts = [json.dumps(held) if isinstance(held, (dict, list)) else held for held in entry.values()]
        connection.execute(
            "INSERT INTO memories VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*texts, "2024-01-01T00:00:00")
        )
    connection.commit()
    connection.close()
    return entries


# --- the file ---


def test_the_store_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deeper" / "memory.db"
    backend = SQLiteBackend(path)
    backend.create(MemoryEntry("1", "c", "k", {}))

    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}

    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700
    backend.shutdown()
    assert sorted(each.name for each in path.parent.iterdir()) == ["memory.db", "memory.db.lock"]


def test_other_tools_read_the_nine_fields_in_a_view(path: Path) -> None:
    with MemoryModule(storage_backend=SQLiteBackend(path)) as memory:
        memory.create_memory("tools", "tool_ls", {"path": "/bin/ls"}, "tool", "ls", ["learned"], "teacher")

    rows = _with_other_tool(path, "SELECT category, key, value, tags, entity_type, entity_id, namespace FROM memories")
    provenance = _with_other_tool(path, "SELECT provenance ->> 'module', timestamp FROM memories")

    assert rows == [["tools", "tool_ls", '{"path":"/bin/ls"}', '["learned"]', "tool", "ls", "default"]]
    assert provenance[0][0] == "teacher"
    assert datetime.fromisoformat(provenance[0][1]).tzinfo is not None


def test_opening_a_current_store_changes_no_byte_of_it(path: Path) -> None:
    with MemoryModule(storage_backend=SQLiteBackend(path)) as memory:
        memory.set_user_preference("theme", {"mode": "dark"})
    before, status = path.read_bytes(), path.stat()

    with MemoryModule(storage_backend=SQLiteBackend(path)) as memory:
        memory.get_user_preferences()

    assert path.read_bytes() == before
    assert Stamp.of(path.stat()) == Stamp.of(status)


def test_a_zero_byte_file_is_damage_and_stays_as_it_is(path: Path) -> None:
    path.touch()

    with pytest.raises(CorruptStoreError, match=r"memory\.db.*empty"):
        SQLiteBackend(path).list_all()

    assert path.stat().st_size == 0


def test_a_file_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    _with_other_tool(path, "CREATE TABLE notes (text)")
    before = path.read_bytes()

    with pytest.raises(CorruptStoreError, match="no store of jarvis"):
        SQLiteBackend(path).list_all()

    assert path.read_bytes() == before


def test_a_directory_or_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreAccessError, match="no regular file"):
        SQLiteBackend(tmp_path).list_all()


def test_a_store_of_a_newer_version_is_refused(path: Path) -> None:
    SQLiteBackend(path).bootstrap()
    _set_version(path, 99)

    for read_only in (False, True):
        with pytest.raises(StoreTooNewError, match=r"version 99.*pip install -U"):
            SQLiteBackend(path, read_only=read_only).list_all()


def test_a_store_that_becomes_newer_while_open_is_not_written(path: Path) -> None:
    backend = SQLiteBackend(path)
    backend.bootstrap()
    _set_version(path, 99)

    with pytest.raises(StoreTooNewError):
        backend.create(MemoryEntry("1", "c", "k", {}))
    backend.shutdown()


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    link = tmp_path / "memory.db"
    link.symlink_to(real / "memory.db")
    with MemoryModule(storage_dir=real) as memory:
        memory.bootstrap()

    with MemoryModule(storage_backend=SQLiteBackend(link)) as memory:
        memory.set_user_preference("theme", {})

    assert link.is_symlink()
    assert (real / "memory.db").is_file()


# --- verification ---


def test_a_copy_is_verified_once_and_then_trusted(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[str] = []
    real = verification.verify

    def noted(connection: apsw.Connection, path: str, *, encrypted: bool) -> None:
        verified.append(path)
        real(connection, path, encrypted=encrypted)

    monkeypatch.setattr(verification, "verify", noted)
    with MemoryModule(storage_backend=SQLiteBackend(path)) as memory:
        memory.set_user_preference("theme", {})
    with MemoryModule(storage_backend=SQLiteBackend(path)) as memory:
        memory.set_user_preference("theme", {"n": 1})
    by_us = len(verified)
    copy = tmp_path / "copy.db"
    copy.write_bytes(path.read_bytes())

    for _ in range(2):
        SQLiteBackend(copy).bootstrap()

    assert (by_us, len(verified)) == (0, 1)


def test_a_page_in_anothers_place_is_noticed(tmp_path: Path, path: Path) -> None:
    with MemoryModule(storage_backend=SQLiteBackend(path)) as memory, memory.transaction():
        for number in range(500):
            memory.create_memory("c", f"key-{number}", {"text": "x" * 100}, "t")
    pages = [path.read_bytes()[start : start + 4096] for start in range(0, path.stat().st_size, 4096)]

    noticed = 0
    for first, second in ((8, 33), (5, 30), (12, 13), (len(pages) - 1, len(pages) - 2)):
        assert pages[first] != pages[second]
        swapped = list(pages)
        swapped[first], swapped[second] = pages[second], pages[first]
        copy = tmp_path / f"{first}.db"
        copy.write_bytes(b"".join(swapped))
        with pytest.raises(CorruptStoreError, match=rf"{first}\.db"):
            SQLiteBackend(copy).list_all()
        noticed += copy.read_bytes() == b"".join(swapped)

    assert noticed == 4


def test_a_row_that_was_edited_behind_our_back_is_noticed(path: Path) -> None:
    with MemoryModule(storage_backend=SQLiteBackend(path)) as memory:
        memory.set_user_preference("theme", {"mode": "dark"})
    _with_other_tool(path, "UPDATE entries SET body = replace(body, 'dark', 'lite')")

    with pytest.raises(CorruptStoreError):
        SQLiteBackend(path).list_all()


@pytest.mark.parametrize("body", ["", "[", "null", '["dark"]', '[{"mode":"dark"}', "\ud7ff"])
def test_a_filter_on_values_says_that_a_body_is_damaged(path: Path, body: str) -> None:
    backend = SQLiteBackend(path)
    memory = MemoryModule(storage_backend=backend)
    memory.set_user_preference("theme", {"mode": "dark"})
    with backend._database.changing() as session:
        session.run("UPDATE entries SET body = ?", (body,))

    for where in ({"mode": "light"}, {"n": {"$gt": 1}}, {"$or": [{"n": 1}]}):
        with pytest.raises(CorruptStoreError, match="cannot be decoded"):
            memory.search_memories(where=where)


@pytest.mark.parametrize("how", ["backup", "vacuum into"])
def test_what_other_tools_copied_is_accepted_and_sealed_again(tmp_path: Path, path: Path, how: str) -> None:
    memory = MemoryModule(storage_backend=SQLiteBackend(path))
    for number in range(50):
        memory.create_memory("c", str(number), {"n": number}, "t", tags=["a", f"t{number}"])
    copy = tmp_path / "copy.db"
    program = """
import sqlite3, sys
source, target = sqlite3.connect(sys.argv[1]), sys.argv[2]
if sys.argv[3] == "backup":
    source.backup(sqlite3.connect(target))
else:
    source.execute("VACUUM INTO ?", (target,))
"""
    subprocess.run([sys.executable, "-c", program, str(path), str(copy), how], check=True)

    for read_only in (True, False, False):
        with MemoryModule(storage_backend=SQLiteBackend(copy, read_only=read_only)) as opened:
            assert opened.list_memories() == memory.list_memories()
            assert opened.get_memories_by_tags(["t7"]) == memory.get_memories_by_tags(["t7"])
    damaged = bytearray(copy.read_bytes())
    damaged[damaged.index(b'"n":25') + 1] ^= 1  # a byte that an answer is made of
    copy.write_bytes(damaged)
    with pytest.raises(CorruptStoreError):
        SQLiteBackend(copy).list_all()
    memory.shutdown()


@pytest.mark.parametrize("writes", [1, 3, 30])
def test_a_store_whose_log_another_tool_folded_in_is_accepted(path: Path, writes: int) -> None:
    program = """
import os, sys
from jarvis.persistent_memory import MemoryModule
from jarvis.sqlite_backend import SQLiteBackend
memory = MemoryModule(storage_backend=SQLiteBackend(sys.argv[1]))
for number in range(int(sys.argv[2])):
    memory.record_task(str(number), {"n": number})
os._exit(9)
"""
    subprocess.run([sys.executable, "-c", program, str(path), str(writes)], check=False)
    assert _with_other_tool(path, "SELECT count(*) FROM memories") == [[writes]]
    assert not path.with_name("memory.db-wal").exists()

    with MemoryModule(storage_backend=SQLiteBackend(path)) as memory:
        assert memory.count_memories() == writes
    assert len(SQLiteBackend(path, read_only=True).list_all()) == writes


# --- removed, replaced ---


def test_a_store_that_was_removed_is_noticed_and_never_written_into_nothing(path: Path) -> None:
    memory = MemoryModule(storage_backend=SQLiteBackend(path))
    memory.set_user_preference("theme", {})
    path.unlink()

    for call in (memory.list_memories, lambda: memory.set_user_preference("theme", {})):
        with pytest.raises(StoreMissingError, match=r"removed.*shutdown"):
            call()

    memory.shutdown()
    with pytest.raises(StoreMissingError, match=r"log with its last writes.*remove the log"):
        memory.list_memories()
    path.with_name("memory.db-wal").unlink()
    assert memory.list_memories() == []
    memory.shutdown()


def test_a_store_removed_within_a_transaction_is_no_acknowledged_write(path: Path) -> None:
    memory = MemoryModule(storage_backend=SQLiteBackend(path))
    memory.bootstrap()

    def write_and_remove() -> None:
        with memory.transaction():
            memory.record_task("1", {})
            path.unlink()

    with pytest.raises(StoreMissingError):
        write_and_remove()
    memory.shutdown()


def test_a_store_that_was_replaced_is_opened_anew(tmp_path: Path, path: Path) -> None:
    memory = MemoryModule(storage_backend=SQLiteBackend(path))
    memory.set_user_preference("theme", {"from": "old"})
    other = tmp_path / "other.db"
    with MemoryModule(storage_backend=SQLiteBackend(other)) as replacement:
        replacement.set_user_preference("theme", {"from": "new"})
    memory.shutdown()
    memory.get_user_preferences()

    os.replace(other, path)

    assert memory.get_user_preferences() == {"theme": {"from": "new"}}
    memory.set_user_preference("volume", {})
    memory.shutdown()
    assert len(MemoryModule(storage_backend=SQLiteBackend(path)).list_memories()) == 2


# --- connections ---


def test_the_connection_of_an_ended_thread_is_closed(path: Path) -> None:
    backend = SQLiteBackend(path)
    backend.bootstrap()

    for _ in range(20):
        thread = threading.Thread(target=backend.list_all)
        thread.start()
        thread.join()

    assert len(backend._database.pool._leases) == 1
    backend.shutdown()
    assert len(backend._database.pool._leases) == 0


def test_an_iteration_that_is_dropped_gives_its_connection_back(path: Path) -> None:
    backend = SQLiteBackend(path)
    for number in range(3):
        backend.create(MemoryEntry(str(number), "c", "k", {}))
    entries = backend.iterate(MemoryQuery())
    next(entries)
    while_open = len(backend._database.pool._leases)

    del entries

    assert (while_open, len(backend._database.pool._leases)) == (2, 1)
    backend.shutdown()


def test_shutdown_lets_the_calls_of_other_threads_end(path: Path) -> None:
    backend = SQLiteBackend(path)
    entered, leave = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def hold() -> None:
        try:
            with backend.transaction():
                backend.create(MemoryEntry("1", "c", "k", {}))
                entered.set()
                leave.wait()
        except BaseException as error:  # noqa: BLE001 - shown by the assertion
            errors.append(error)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    backend.shutdown()
    leave.set()
    thread.join()

    assert errors == []
    assert [entry.id for entry in backend.list_all()] == ["1"]
    backend.shutdown()


def test_a_failed_statement_that_ends_the_transaction_cannot_be_swallowed(path: Path) -> None:
    backend = SQLiteBackend(path)

    def swallow() -> None:
        with backend.transaction():
            backend.create(MemoryEntry("1", "c", "k", {}))
            backend._database.read(lambda session: session.raw.execute("ROLLBACK"))
            backend._database.read(lambda session: session.driver.tear())
            backend.create(MemoryEntry("2", "c", "k", {}))

    with pytest.raises(TransactionError, match="rolled the transaction back"):
        swallow()

    assert backend.list_all() == []
    backend.create(MemoryEntry("3", "c", "k", {}))
    backend.shutdown()


# --- erasing ---


def test_an_erased_namespace_leaves_no_bytes_in_the_files_of_the_store(path: Path) -> None:
    memory = MemoryModule(storage_backend=SQLiteBackend(path))
    alice = memory.for_namespace("alice-canary")
    for number in range(200):
        alice.create_memory(
            "cat-canary", f"key-canary-{number}", {"secret": "value-canary"}, "type-canary", tags=["tag-canary"]
        )
        memory.create_memory("kept", str(number), {"n": number}, "kept")

    memory.store.erase_namespace("alice-canary")

    for each in path.parent.iterdir():
        assert b"canary" not in each.read_bytes(), each.name
    assert memory.count_memories() == 200
    memory.shutdown()


# --- the first life ---


@pytest.mark.parametrize("wal", [False, True])
def test_a_first_life_store_is_migrated_whole(path: Path, wal: bool) -> None:
    old = _first_life_store(path, wal=wal)
    memory = MemoryModule(storage_backend=SQLiteBackend(path))

    found = memory.list_memories()

    assert [entry.id for entry in found] == ["id-0", "id-1", "id-2"]
    for entry, row in zip(found, old, strict=True):
        for name in ("id", "category", "key", "tags", "entity_type", "entity_id"):
            assert getattr(entry, name) == row[name]
        assert repr(entry.value) == repr(row["value"])
        assert entry.timestamp == datetime.fromisoformat(row["timestamp"])
        assert entry.provenance == {**row["provenance"], "created_at": "2024-01-01T00:00:00"}
    assert [entry.id for entry in memory.get_memories_by_tags(["t1"])] == ["id-1"]
    memory.set_user_preference("key-0", {"n": 10})
    memory.shutdown()
    assert len(MemoryModule(storage_backend=SQLiteBackend(path)).list_memories()) == 3


def test_the_old_file_is_kept_and_erased_with_its_namespace(path: Path) -> None:
    _first_life_store(path)
    rows = _with_other_tool(path, "SELECT * FROM memories ORDER BY id")
    memory = MemoryModule(storage_backend=SQLiteBackend(path))
    memory.bootstrap()
    kept = path.with_name("memory.db.first-life")

    assert _with_other_tool(kept, "SELECT * FROM memories ORDER BY id") == rows
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    memory.store.erase_namespace("default")
    assert not kept.exists()
    memory.shutdown()


def test_a_first_life_store_is_not_migrated_read_only(path: Path) -> None:
    _first_life_store(path)
    before = path.read_bytes()

    with pytest.raises(StoreOutdatedError, match="open it once"):
        SQLiteBackend(path, read_only=True).list_all()

    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["memory.db"]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE memories SET value = '{not json' WHERE id = 'id-1'",
        "UPDATE memories SET value = '[1]' WHERE id = 'id-1'",
        "UPDATE memories SET tags = '[1]' WHERE id = 'id-1'",
        "UPDATE memories SET timestamp = 'yesterday' WHERE id = 'id-1'",
        "UPDATE memories SET provenance = '{\"module\": 1}' WHERE id = 'id-1'",
    ],
)
def test_a_row_that_cannot_be_understood_stops_the_migration_and_changes_nothing(path: Path, damage: str) -> None:
    _first_life_store(path)
    _with_other_tool(path, damage)
    before = path.read_bytes()

    for _ in range(2):
        with pytest.raises(CorruptStoreError, match="row 2 of table memories"):
            SQLiteBackend(path).list_all()

    assert path.read_bytes() == before
    assert len(list(path.parent.glob("memory.db.first-life*"))) == 1


def test_a_table_that_somebody_added_under_a_name_of_ours_is_named(path: Path) -> None:
    _first_life_store(path)
    _with_other_tool(path, "CREATE TABLE tags (mine)")

    with pytest.raises(StoreAccessError, match=r"table 'tags'.*rename it"):
        SQLiteBackend(path).list_all()


def test_a_program_of_the_first_life_gets_an_error_after_the_migration(path: Path) -> None:
    _first_life_store(path)
    program = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT * FROM memories").fetchall()
print("ready", flush=True)
sys.stdin.readline()
try:
    connection.execute("DELETE FROM memories")
    connection.commit()
    print("wrote")
except sqlite3.Error as error:
    print(error)
"""
    old = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert old.stdout is not None
    assert old.stdout.readline() == "ready\n"
    memory = MemoryModule(storage_backend=SQLiteBackend(path))
    memory.bootstrap()

    shown, _ = old.communicate("go\n")

    assert "is a view" in shown
    assert memory.count_memories() == 3
    memory.shutdown()


def test_a_migration_that_was_killed_after_its_transaction_is_finished(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jarvis._sqlite import first_life

    _first_life_store(path)

    def killed(_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(first_life, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            SQLiteBackend(path).bootstrap()
    assert _with_other_tool(path, "PRAGMA user_version") == [[schema.MIGRATING]]
    with pytest.raises(StoreOutdatedError):
        SQLiteBackend(path, read_only=True).list_all()

    backend = SQLiteBackend(path)

    assert len(backend.list_all()) == 3
    backend.shutdown()
    assert _with_other_tool(path, "PRAGMA user_version") == [[schema.CURRENT_VERSION]]


# --- read only ---


def test_read_only_follows_a_live_writer(path: Path) -> None:
    writer = MemoryModule(storage_backend=SQLiteBackend(path))
    writer.set_user_preference("n", {"n": 0})
    writer.shutdown()
    reader = MemoryModule(storage_backend=SQLiteBackend(path, read_only=True))
    seen = [reader.get_user_preferences()["n"]["n"]]

    for number in (1, 2):
        writer.set_user_preference("n", {"n": number})
        seen.append(reader.get_user_preferences()["n"]["n"])
    writer.shutdown()
    seen.append(reader.get_user_preferences()["n"]["n"])

    assert seen == [0, 1, 2, 2]
    reader.shutdown()


def test_read_only_notices_a_writer_that_came_and_went(path: Path) -> None:
    writer = MemoryModule(storage_backend=SQLiteBackend(path))
    writer.set_user_preference("n", {"n": 0})
    writer.shutdown()
    reader = MemoryModule(storage_backend=SQLiteBackend(path, read_only=True))
    seen = [reader.get_user_preferences()["n"]["n"]]
    iteration = reader.iter_memories()

    for number in (1, 2):
        writer.set_user_preference("n", {"n": number})
        writer.shutdown()
        seen.append(reader.get_user_preferences()["n"]["n"])

    assert seen == [0, 1, 2]
    assert [entry.value["n"] for entry in iteration] == [2]
    reader.shutdown()


def test_read_only_reads_what_a_killed_writer_left_in_the_log(path: Path) -> None:
    program = """
import os, sys
from jarvis.persistent_memory import MemoryModule
from jarvis.sqlite_backend import SQLiteBackend
memory = MemoryModule(storage_backend=SQLiteBackend(sys.argv[1]))
memory.set_user_preference("theme", {"mode": "dark"})
os._exit(9)
"""
    subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    before = {each.name: each.read_bytes() for each in path.parent.iterdir()}

    with MemoryModule(storage_backend=SQLiteBackend(path, read_only=True)) as memory:
        assert memory.get_user_preferences() == {"theme": {"mode": "dark"}}

    after = {each.name: each.read_bytes() for each in path.parent.iterdir()}
    assert after.keys() == before.keys()
    assert after["memory.db"] == before["memory.db"]
    assert after["memory.db-wal"] == before["memory.db-wal"]


def test_both_ways_of_counting_the_frames_of_a_log_agree(path: Path) -> None:
    memory = MemoryModule(storage_backend=SQLiteBackend(path, compression="off"))
    for number in range(20):
        memory.record_task(str(number), {"text": "x" * 3000})
    log = path.with_name("memory.db-wal")
    whole = log.read_bytes()

    for cut in (len(whole), len(whole) - 1, 5000, 32, 0):
        copy = path.with_name(f"copy-{cut}.db")
        copy.write_bytes(path.read_bytes())
        Path(f"{copy}-wal").write_bytes(whole[:cut])
        counted = verification.count_valid_frames(str(copy))
        connection = engine.connect(str(copy), key=None, durability="full", busy_timeout_seconds=5)
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        assert counted == max(connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)[0], 0)
        connection.close()
    memory.shutdown()


def test_a_log_that_breaks_before_acknowledged_commits_is_damage(path: Path) -> None:
    memory = MemoryModule(storage_backend=SQLiteBackend(path))
    for number in range(20):
        memory.record_task(str(number), {})
    log = bytearray(path.with_name("memory.db-wal").read_bytes())
    log[len(log) // 2] ^= 1

    for read_only in (False, True):
        copy = path.with_name(f"copy-{read_only}.db")
        copy.write_bytes(path.read_bytes())
        Path(f"{copy}-wal").write_bytes(log)
        Path(f"{copy}-shm").write_bytes(bytes(32768))
        with pytest.raises(CorruptStoreError, match="write-ahead log breaks off"):
            SQLiteBackend(copy, read_only=read_only).list_all()
    memory.shutdown()


def test_an_opening_beside_a_writer_looks_at_the_log_again(tmp_path: Path) -> None:
    class Changing:
        """A connection to a store whose log's index is being changed at the first looks."""

        looks = 0

        def wal_checkpoint(self, mode: int) -> tuple[int, int]:
            self.looks += 1
            if self.looks < 3:
                raise apsw.BusyError
            return 7, 0

    assert engine.count_frames(cast("apsw.Connection", Changing())) == 7


def test_a_read_only_connection_beside_a_writer_looks_again(path: Path) -> None:
    writer = SQLiteBackend(path)
    writer.create(MemoryEntry("1", "c", "k", {}))
    backend = SQLiteBackend(path, read_only=True)

    class Changing:
        """A cursor of a store whose log's index is being changed at the first looks."""

        def __init__(self, cursor: apsw.Cursor) -> None:
            self.cursor, self.looks = cursor, 0

        def execute(self, sql: str, bindings: Any) -> apsw.Cursor:
            self.looks += 1
            if self.looks < 3:
                raise apsw.exception_for(apsw.SQLITE_READONLY_RECOVERY)
            return self.cursor.execute(sql, bindings)

    def look(session: Session) -> list[Any]:
        connection = cast("Connection", session.driver)
        connection._cursor = cast("apsw.Cursor", Changing(connection._cursor))
        return session.rows("SELECT id FROM entries")

    assert backend._database.read(look) == [("1",)]
    backend.shutdown()
    writer.shutdown()
