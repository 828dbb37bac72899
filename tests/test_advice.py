"""What an error advises works: each way out that a message gives is followed here, as somebody who reads it would."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jarvis._sqlite import engine
from jarvis.errors import (
    CorruptStoreError,
    KeyUnavailableError,
    NotEncryptedError,
    ReadOnlyStoreError,
    StoreAccessError,
    StoreError,
    StoreFullError,
    StoreMissingError,
    StoreOutdatedError,
)
from jarvis.keys import KeyFile, Passphrase
from jarvis.persistent_memory import MemoryModule

from .safety import processes

WORDS = Passphrase("correct horse battery staple")
FILES = {"sqlite": "memory.db", "json": "memory.json"}
needs_sqlite3 = pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the command sqlite3 is not installed")
both = pytest.mark.parametrize("backend", ["sqlite", "json"])

Damage = Callable[[bytearray, int], None]


def _opened(directory: Path, backend: str, **options: Any) -> MemoryModule:
    return MemoryModule(storage_dir=directory, backend_type=backend, **options)


def _fill(directory: Path, backend: str = "sqlite", **options: Any) -> Path:
    """Write a store of 60 memories, closed; return its path."""
    with _opened(directory, backend, **options) as memory:
        for number in range(60):
            memory.create_memory("things", f"key-{number}", {"text": f"the value {number}."}, "thing")
    return directory / FILES[backend]


def _refusal(kind: type[StoreError], directory: Path, backend: str = "sqlite", **options: Any) -> str:
    """Return the message of the error of a read."""
    memory = _opened(directory, backend, **options)
    with pytest.raises(kind) as caught:
        memory.list_memories()
    memory.shutdown()
    return str(caught.value)


def _keys(directory: Path, backend: str = "sqlite", **options: Any) -> list[str]:
    with _opened(directory, backend, **options) as memory:
        return [entry.key for entry in memory.list_memories()]


# --- a damaged store ---


def flip_a_letter(data: bytearray, place: int) -> None:
    data[place] ^= 1


def break_the_json(data: bytearray, place: int) -> None:
    data[data.rindex(b"[", 0, place)] = ord("x")


def break_a_page(data: bytearray, place: int) -> None:
    start = place // 4096 * 4096
    data[start : start + 100] = bytes(range(100))


@pytest.mark.parametrize("damage", [flip_a_letter, break_the_json, break_a_page])
@pytest.mark.parametrize("options", [{}, {"encryption": "on", "keys": [WORDS]}], ids=["plain", "encrypted"])
def test_what_is_left_of_a_damaged_store_is_taken_as_advised(
    damage: Damage, options: dict[str, Any], tmp_path: Path
) -> None:
    directory = tmp_path / "with a space"
    path = _fill(directory, **options)
    data = bytearray(path.read_bytes())
    damage(data, data.index(b"the value 30.") if not options else len(data) // 2)
    path.write_bytes(data)

    message = _refusal(CorruptStoreError, directory, keys=options.get("keys", ()))
    assert "memory.store.repair(to='a new directory')" in message
    memory = MemoryModule(storage_dir=directory, keys=options.get("keys", ()))
    report = memory.store.repair(to=tmp_path / "a new directory")

    assert path.read_bytes() == data
    keys = _keys(tmp_path / "a new directory", keys=options.get("keys", ()))
    assert len(keys) == report.memories >= (30 if damage is break_a_page else 57)
    assert {"key-0", "key-59"} <= {*keys} or options


def test_a_backup_of_a_damaged_store_advises_on_the_store_and_not_on_the_copy(tmp_path: Path) -> None:
    path = _fill(tmp_path / "store")
    memory = MemoryModule(storage_dir=tmp_path / "store")
    assert memory.count_memories() == 60
    raw = engine.opened(str(path), None)  # with right checksums of pages, so that only the comparison finds it
    raw.execute("PRAGMA writable_schema = ON")
    raw.execute("UPDATE sqlite_schema SET rootpage = 0 + rootpage - 1 WHERE name = 'entries_by_time'")
    raw.close(True)

    with pytest.raises(CorruptStoreError) as caught:
        memory.store.back_up(tmp_path / "copy")

    assert ".tmp" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert "memory.store.repair" in str(caught.value)
    memory.shutdown()


def test_a_json_store_is_mended_by_hand_as_advised(tmp_path: Path) -> None:
    path = _fill(tmp_path, "json")
    path.write_text(path.read_text().replace('"key": "key-30"', '"key": 30'))

    message = _refusal(CorruptStoreError, tmp_path, "json")
    assert 'remove the member "checksum" and the comma before it' in message
    path.write_text(re.sub(r',\s*"checksum": "[^"]*"', "", path.read_text()))
    message = _refusal(CorruptStoreError, tmp_path, "json")
    found = re.search(r"entry number (\d+)", message)
    assert found is not None
    assert "mend or remove it there" in message
    document = json.loads(path.read_text())
    del document["entries"][list(document["entries"])[int(found[1]) - 1]]
    path.write_text(json.dumps(document))

    assert sorted(_keys(tmp_path, "json")) == sorted(f"key-{number}" for number in range(60) if number != 30)


def test_a_row_of_the_first_life_is_deleted_as_advised(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TABLE memories (id TEXT PRIMARY KEY, category TEXT, key TEXT, value TEXT, tags TEXT, entity_type TEXT,"
        " entity_id TEXT, timestamp TEXT, provenance TEXT, created_at TEXT)"
    )
    for number, value in enumerate(("{}", "no JSON")):
        row = (str(number), "c", f"k{number}", value, "[]", "t", None, "2024-01-15T10:30:00", "{}", "")
        connection.execute("INSERT INTO memories VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    connection.commit()

    message = _refusal(CorruptStoreError, tmp_path)
    found = re.search(r"row (\d+) of table memories", message)
    assert found is not None
    assert f"sqlite3 {path}" in message
    connection.execute("DELETE FROM memories WHERE rowid = ?", (found[1],))
    connection.commit()
    connection.close()

    assert _keys(tmp_path) == ["k0"]


@both
def test_an_empty_file_is_replaced_by_a_backup_or_removed_as_advised(backend: str, tmp_path: Path) -> None:
    path = _fill(tmp_path, backend)
    kept = path.read_bytes()
    path.write_bytes(b"")

    message = _refusal(CorruptStoreError, tmp_path, backend)
    assert re.search(r"restore (a backup|it from a copy)", message)
    path.write_bytes(kept)
    assert len(_keys(tmp_path, backend)) == 60


def test_an_older_file_is_taken_when_the_lock_is_removed_as_advised(tmp_path: Path) -> None:
    path = _fill(tmp_path)
    older = path.read_bytes()
    with MemoryModule(storage_dir=tmp_path) as memory:
        memory.create_memory("things", "later", {}, "thing")
    path.write_bytes(older)

    message = _refusal(CorruptStoreError, tmp_path)
    assert "remove memory.db.lock too" in message
    (tmp_path / "memory.db.lock").unlink()

    assert len(_keys(tmp_path)) == 60


@needs_sqlite3
def test_what_was_restored_from_a_dump_is_taken_over_as_advised(tmp_path: Path) -> None:
    path = _fill(tmp_path)
    with MemoryModule(storage_dir=tmp_path) as memory:
        memory.create_memory("things", "large", {"text": "x" * 5_000}, "thing", tags=["a"])
        before = memory.list_memories()
    dump = subprocess.run(["sqlite3", path, ".dump"], capture_output=True, check=True).stdout
    (tmp_path / "re stored").mkdir()
    subprocess.run(["sqlite3", tmp_path / "re stored" / "memory.db"], input=dump, check=True)

    for read_only in (True, False):
        message = _refusal(CorruptStoreError, tmp_path / "re stored", read_only=read_only)
        assert "restored from a .dump" in message
        assert "first life" not in message
    found = re.search(r"(sqlite3 .*), after which", message)
    assert found is not None
    subprocess.run(shlex.split(found[1]), check=True, capture_output=True)

    with MemoryModule(storage_dir=tmp_path / "re stored") as memory:
        assert memory.list_memories() == before


# --- what the system lacks ---


def test_a_full_disk_is_told_also_where_the_index_of_the_log_has_no_room(tmp_path: Path) -> None:
    _fill(tmp_path)

    said = processes.end(processes.start("children", "no_room", tmp_path))

    assert said.startswith("StoreFullError")
    assert "free some space" in said


@pytest.mark.parametrize("limit", ["size=3m", "nr_inodes=20"])
@pytest.mark.parametrize("backend", ["sqlite", "json", "encrypted"])
def test_a_disk_on_which_nothing_is_left_is_told_by_every_verb(backend: str, limit: str, tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", limit, "none", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    options = {"encryption": "on", "keys": [WORDS]} if backend == "encrypted" else {}
    kind = "json" if backend == "json" else "sqlite"
    try:
        _fill(tmp_path / "store", kind, **options)
        with contextlib.suppress(OSError):
            for number in itertools.count():
                with open(tmp_path / f"filler-{number}", "wb", buffering=0) as file:
                    file.write(b"x" * (4_096 if limit == "size=3m" else 0))
        memory = _opened(tmp_path / "store", kind, **options)
        for attempt in (
            lambda: memory.create_memory("things", "large", {"text": os.urandom(9_000).hex()}, "thing"),
            lambda: memory.clear_all(erase=True),
            lambda: memory.store.back_up(tmp_path / "copy"),
            lambda: _opened(tmp_path / "new", kind, **options).bootstrap(),
        ):
            with pytest.raises(StoreFullError, match="free some space"):
                attempt()
        memory.shutdown()
        for filler in tmp_path.glob("filler-*"):
            filler.unlink()
        assert len(_keys(tmp_path / "store", kind, **options)) == 60
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)


@pytest.mark.skipif(os.name != "posix", reason="there is no such limit")
@pytest.mark.parametrize("backend", ["sqlite", "json", "encrypted"])
def test_a_lack_of_descriptors_is_told_and_needs_only_that_some_are_closed(backend: str, tmp_path: Path) -> None:
    options = {"encryption": "on", "keys": [KeyFile.create(tmp_path / "key")]} if backend == "encrypted" else {}
    kind = "json" if backend == "json" else "sqlite"
    _fill(tmp_path, kind, **options)

    said = processes.end(processes.start("children", "no_descriptors", tmp_path, backend))

    assert said.split("\n")[-2] == "fine", said


@pytest.mark.parametrize("length", [1_100, 4_200])
@pytest.mark.parametrize("backend", ["sqlite", "json", "encrypted"])
def test_too_long_a_path_is_to_be_chosen_shorter(backend: str, length: int, tmp_path: Path) -> None:
    options = {"encryption": "on", "keys": [WORDS]} if backend == "encrypted" else {}
    kind = "json" if backend == "json" else "sqlite"
    directory = tmp_path
    while len(str(directory)) < length:
        directory /= "x" * min(100, max(length - len(str(directory)) - 1, 1))

    if backend == "json" and length < 4_000:
        assert _keys(directory, kind) == []
        return
    message = _refusal(StoreAccessError, directory, kind, **options)
    assert "choose a shorter" in message
    assert "owner" not in message


# --- a store that is not whole, or not as it is to be ---


def test_a_log_without_its_store_is_removed_as_advised(tmp_path: Path) -> None:
    path = _fill(tmp_path)
    path.unlink()
    (tmp_path / "memory.db-wal").write_bytes(b"something")

    message = _refusal(StoreMissingError, tmp_path)
    assert f"({path}-wal)" in message
    assert "remove the log to start again" in message
    (tmp_path / "memory.db-wal").unlink()

    assert _keys(tmp_path) == []


def test_keys_without_their_store_are_removed_as_advised(tmp_path: Path) -> None:
    path = _fill(tmp_path, encryption="on", keys=[WORDS])
    path.unlink()

    message = _refusal(StoreMissingError, tmp_path, encryption="on", keys=[WORDS])
    found = re.search(r"remove (\S+) and (\S+),", message)
    assert found is not None
    os.unlink(found[1])
    os.unlink(found[2])

    assert _keys(tmp_path, encryption="on", keys=[WORDS]) == []


def test_lost_or_damaged_keys_are_put_back_as_advised(tmp_path: Path) -> None:
    _fill(tmp_path, encryption="on", keys=[WORDS])
    keys = tmp_path / "memory.keys"
    kept = keys.read_bytes()

    keys.write_bytes(b"{}")
    assert "put a copy of it from a backup in its place" in _refusal(CorruptStoreError, tmp_path, keys=[WORDS])
    keys.unlink()
    for options in ({"keys": [WORDS]}, {}, {"read_only": True}):
        message = _refusal(KeyUnavailableError, tmp_path, **options)
        assert f"there is no {keys}; put it back from a backup" in message
    keys.write_bytes(kept)

    assert len(_keys(tmp_path, keys=[WORDS])) == 60


def test_a_plain_store_is_encrypted_as_advised(tmp_path: Path) -> None:
    _fill(tmp_path)

    message = _refusal(NotEncryptedError, tmp_path, encryption="required", keys=[WORDS])
    assert "open it with encryption='on' and call store.encrypt()" in message
    with MemoryModule(storage_dir=tmp_path, encryption="on", keys=[WORDS]) as memory:
        memory.store.encrypt()

    assert len(_keys(tmp_path, encryption="required", keys=[WORDS])) == 60


@pytest.mark.skipif(os.name != "posix", reason="files have no modes there")
def test_the_mode_of_a_key_file_is_mended_as_advised(tmp_path: Path) -> None:
    source = KeyFile.create(tmp_path / "my key")
    _fill(tmp_path, encryption="on", keys=[source])
    os.chmod(source.path, 0o644)

    message = _refusal(KeyUnavailableError, tmp_path, keys=[source])
    found = re.search(r"run: (chmod 600 ('[^']+'|\S+))", message)
    assert found is not None
    subprocess.run(shlex.split(found[1]), check=True)

    assert len(_keys(tmp_path, keys=[source])) == 60


@both
def test_what_only_reads_an_old_store_is_let_in_when_it_was_opened_once_as_advised(
    backend: str, tmp_path: Path
) -> None:
    (tmp_path / "memory.json").write_text('{"entries": {}}')
    connection = sqlite3.connect(tmp_path / "memory.db")
    connection.execute(
        "CREATE TABLE memories (id TEXT PRIMARY KEY, category TEXT, key TEXT, value TEXT, tags TEXT, entity_type TEXT,"
        " entity_id TEXT, timestamp TEXT, provenance TEXT, created_at TEXT)"
    )
    connection.close()

    message = _refusal(StoreOutdatedError, tmp_path, backend, read_only=True)
    assert "open it once with" in message
    assert _keys(tmp_path, backend) == []

    assert _keys(tmp_path, backend, read_only=True) == []


@both
def test_what_has_the_place_of_a_file_is_moved_away_as_advised(backend: str, tmp_path: Path) -> None:
    path = _fill(tmp_path, backend)
    lock = tmp_path / f"{path.name}.lock"
    lock.unlink()
    lock.mkdir()
    memory = MemoryModule(storage_dir=tmp_path, backend_type=backend)

    with pytest.raises(StoreAccessError, match=r"move it away, and open the store again") as caught:
        memory.create_memory("things", "later", {}, "thing")
    assert str(lock) in str(caught.value)
    lock.rename(tmp_path / "away")

    memory.create_memory("things", "later", {}, "thing")
    assert memory.count_memories() == 61
    memory.shutdown()


@both
def test_a_store_that_is_only_read_is_changed_as_advised(backend: str, tmp_path: Path) -> None:
    _fill(tmp_path, backend)
    memory = MemoryModule(storage_dir=tmp_path, backend_type=backend, read_only=True)

    with pytest.raises(ReadOnlyStoreError, match=r"open it (without|with read_only=False) to"):
        memory.create_memory("things", "later", {}, "thing")
    memory.shutdown()
    with MemoryModule(storage_dir=tmp_path, backend_type=backend) as memory:
        memory.create_memory("things", "later", {}, "thing")


@both
def test_a_store_removed_while_open_is_begun_anew_as_advised(backend: str, tmp_path: Path) -> None:
    path = _fill(tmp_path, backend)
    memory = MemoryModule(storage_dir=tmp_path, backend_type=backend)
    assert memory.count_memories() == 60
    path.unlink()

    with pytest.raises(StoreMissingError, match=r"call shutdown\(\)"):
        memory.list_memories()
    memory.shutdown()

    assert memory.count_memories() == 0
    memory.shutdown()


@both
def test_a_place_for_a_backup_is_chosen_as_advised(backend: str, tmp_path: Path) -> None:
    _fill(tmp_path, backend)
    with MemoryModule(storage_dir=tmp_path, backend_type=backend) as memory:
        with pytest.raises(StoreAccessError, match="back up into a directory of its own"):
            memory.store.back_up(tmp_path)
        memory.store.back_up(tmp_path / "its own")

    assert len(_keys(tmp_path / "its own", backend)) == 60
