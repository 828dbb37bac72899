"""Backups: one state each, whole or not there, and of nothing but the store; and what is on the disk when."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jarvis._disk import files
from jarvis._sqlite import backup, engine, verification
from jarvis.encryption import key_file
from jarvis.errors import CorruptStoreError, StoreAccessError, StoreBusyError, StoreFullError
from jarvis.persistent_memory import MemoryModule
from tests.safety import model
from tests.test_encryption import CANARY, KEYS, encrypted, filled
from tests.test_keys_changed_at_once import broken_off, once_before


@pytest.mark.parametrize("encryption", ["off", "on"])
def test_a_reader_without_locks_backs_up_no_torn_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encryption: str
) -> None:
    def opened(read_only: bool = False) -> MemoryModule:
        return encrypted(tmp_path / "data", encryption=encryption, keys=KEYS, read_only=read_only)

    def write(letter: str) -> None:
        with opened() as memory:
            for number in range(200):
                memory.set_user_preference(f"{number}", {"text": letter * 300})

    write("a")
    reading = opened(read_only=True)
    assert len(reading.get_user_preferences()) == 200

    real = engine.opened
    was_written: list[bool] = []

    def written(path: str, key: Any) -> Any:
        copy = real(path, key)
        if "saved" in path and not was_written:
            was_written.append(True)
            write("b")
        return copy

    monkeypatch.setattr(engine, "opened", written)
    reading.store.back_up(tmp_path / "saved")

    with encrypted(tmp_path / "saved", encryption=encryption, keys=KEYS) as copy:
        held = copy.get_user_preferences()
    assert len(held) == 200
    assert {each["text"] for each in held.values()} == {"b" * 300}


def test_a_reader_that_writers_always_meet_says_so_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path / "data")
    reading = encrypted(tmp_path / "data", read_only=True)
    monkeypatch.setattr("jarvis._sqlite.pool.Pool.is_disturbed", lambda *_: True)

    with pytest.raises(StoreBusyError, match="while it is backed up; retry"):
        reading.store.back_up(tmp_path / "saved")
    assert list((tmp_path / "saved").iterdir()) == []


def test_a_backup_notes_nothing_for_a_change_of_keys_that_is_none_of_its_own(tmp_path: Path) -> None:
    filled(tmp_path / "data")
    memory = encrypted(tmp_path / "data")
    broken_off(memory.store.rotate_key)
    memory.store.back_up(tmp_path / "saved")
    found = key_file.read(str(tmp_path / "saved" / "memory.keys"))
    assert found is not None
    assert (set(found.keys), found.change) == ({1}, None)

    with encrypted(tmp_path / "saved") as copy:
        copy.set_user_preference("theme", {"mode": "dark"})
    connection = engine.opened(str(tmp_path / "saved" / "memory.db"), copy.backend._database.file.key())  # type: ignore[attr-defined]  # inside
    assert connection.execute("SELECT name FROM sqlite_schema WHERE name LIKE 'moved%'").fetchall() == []
    connection.close()
    assert memory.store.rotate_key().resumed >= 0, "and the store still knows of its own"


def test_the_log_of_another_store_is_not_taken_for_that_of_a_backup(tmp_path: Path) -> None:
    filled(tmp_path / "data")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "memory.db-wal").write_bytes(b"of another")

    with pytest.raises(StoreAccessError, match=r"memory\.db-wal: is there already"):
        encrypted(tmp_path / "data").store.back_up(tmp_path / "saved")


def test_of_two_backups_into_one_directory_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path / "data")
    memory, other = encrypted(tmp_path / "data"), encrypted(tmp_path / "data")

    late: list[StoreAccessError] = []

    def back_up_too() -> None:
        try:
            other.store.back_up(tmp_path / "saved")
        except StoreAccessError as error:
            late.append(error)

    thread = threading.Thread(target=back_up_too)

    def overtake() -> None:
        thread.start()  # which waits for the first one
        memory.store.rotate_key()

    once_before(monkeypatch, backup, "_put", overtake)
    memory.store.back_up(tmp_path / "saved")
    thread.join()

    assert "is there already" in str(late[0])
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {"memory.db", "memory.keys"}
    with encrypted(tmp_path / "saved") as copy:
        assert len(copy.search_memories(category="notes")) == 40


def test_a_backup_that_fails_at_the_end_leaves_nothing_and_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path / "data")
    memory = encrypted(tmp_path / "data")
    real = files.put_in_place

    def failing(temporary: str, path: str, **options: Any) -> None:
        if path.endswith("saved/memory.db"):
            raise OSError(28, os.strerror(28))
        real(temporary, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(files, "put_in_place", failing)
        with pytest.raises(OSError, match="cannot write the backup"):
            memory.store.back_up(tmp_path / "saved")

    assert list((tmp_path / "saved").iterdir()) == []
    assert memory.store.back_up(tmp_path / "saved").exists()


@pytest.mark.parametrize("options", [{"encryption": "off"}, {"encryption": "on"}, {"backend_type": "json"}], ids=str)
@pytest.mark.parametrize("policy", [{}, {"keep_daily": 1}], ids=str)
@pytest.mark.parametrize("limit", [1_000, 60_000, 2_100_000])
def test_a_backup_that_has_no_room_says_so_and_leaves_nothing(
    tmp_path: Path, options: dict[str, Any], policy: dict[str, Any], limit: int
) -> None:
    with_keys = options if "backend_type" in options else {**options, "keys": KEYS}
    memory = MemoryModule(storage_dir=tmp_path / "data", durability="normal", **with_keys)
    memory.create_memories(
        [{"category": "c", "key": str(n), "value": {"t": "x" * 800}, "entity_type": "t"} for n in range(3_000)]
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(StoreFullError, match="free some space"):
            memory.store.back_up(tmp_path / "saved", **policy)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert {path.name for path in (tmp_path / "saved").rglob("*")} <= {"store.txt"}
    assert memory.store.back_up(tmp_path / "saved", **policy).exists()


class Order(files.System):
    """Sees to it that what gets a name was synced before, and that its directory is before the next name changes."""

    def __init__(self) -> None:
        self.synced: set[int] = set()
        self.waiting = ""
        self.named: set[str] = set()
        self.wrong: list[str] = []

    def open(self, path: str, flags: int) -> int:
        descriptor = super().open(path, flags)
        if flags & os.O_CREAT:  # a number that was another file's
            self.synced.discard(os.fstat(descriptor).st_ino)
        return descriptor

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        self.synced.discard(os.fstat(descriptor).st_ino)
        return super().write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self.synced.add(os.fstat(descriptor).st_ino)
        super().sync(descriptor)

    def sync_directory(self, path: str) -> None:
        super().sync_directory(path)
        if os.path.dirname(self.waiting) == path:
            self.waiting = ""

    def replace(self, source: str, target: str) -> None:
        self._name(source, target)
        super().replace(source, target)

    def link(self, source: str, target: str) -> None:
        self._name(source, target)
        super().link(source, target)

    def _name(self, source: str, target: str) -> None:
        if source.endswith("-shm") or target.endswith("-shm"):
            return  # an index, which is of no use behind a power cut
        if self.waiting or os.stat(source).st_ino not in self.synced:
            self.wrong.append(target)
        self.waiting = target
        self.named.add(os.path.basename(target))


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> Iterator[Order]:
    held = Order()
    monkeypatch.setattr(files, "system", held)
    yield held
    assert held.wrong == []
    assert held.waiting == ""


def test_a_power_cut_meets_store_and_keys_that_belong_together(tmp_path: Path, order: Order) -> None:
    memory = encrypted(tmp_path / "data", encryption="on")
    memory.set_user_preference("theme", {"mode": "dark"})
    memory.store.remove_key_slot(memory.store.add_key_slot(KEYS[0]))
    memory.store.rotate_key()
    memory.store.back_up(tmp_path / "saved")
    memory.store.decrypt()
    with contextlib.suppress(StoreAccessError):
        memory.store.back_up(tmp_path / "saved")
    memory.store.encrypt()

    assert {name for name in order.named if not name.startswith(".")} == {"memory.keys", "memory.db"}


def test_a_power_cut_meets_a_kept_copy_that_is_whole(tmp_path: Path, order: Order) -> None:
    model.first_life_store(tmp_path, "sqlite", 5)
    memory = MemoryModule(storage_dir=tmp_path, keys=KEYS)
    memory.bootstrap()
    order.wrong.clear()  # SQLite syncs what it copies there
    memory.store.encrypt()

    assert "memory.db.first-life" in order.named
    assert not list(tmp_path.glob("*.tmp"))
    assert not list(tmp_path.glob(".*.tmp"))


_BACK_UP = """
import sys
from pathlib import Path
from jarvis.errors import StoreAccessError
from jarvis.persistent_memory import MemoryModule
memory = MemoryModule(storage_dir=sys.argv[1], backend_type=sys.argv[2],
    keys=[lambda: bytes([7]) * 32] if sys.argv[3] == "on" else [])
for number in range(8):
    try:
        print(memory.store.back_up(Path(sys.argv[4]) / str(number)))
    except StoreAccessError:
        pass
"""


@pytest.mark.parametrize(("backend_type", "encryption"), [("sqlite", "off"), ("sqlite", "on"), ("json", "off")])
def test_each_backup_that_processes_make_at_once_is_whole(backend_type: str, encryption: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"encryption": "on", "keys": [lambda: bytes([7]) * 32]} if encryption == "on" else {}
    memory = MemoryModule(storage_dir=tmp_path / "data", backend_type=backend_type, **options)
    memory.set_user_preference("theme", {"mode": "dark"})
    arguments = [str(tmp_path / "data"), backend_type, encryption, str(tmp_path / "saved")]
    children = [
        subprocess.Popen([sys.executable, "-c", _BACK_UP, *arguments], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    paths = [path for child in children for path in child.communicate(timeout=120)[0].split()]

    assert len(paths) == 8
    for path in paths:
        copy = MemoryModule(storage_dir=Path(path).parent, backend_type=backend_type, **options)
        assert copy.get_user_preferences() == {"theme": {"mode": "dark"}}
        copy.shutdown()


@pytest.mark.parametrize("is_pending", [False, True], ids=["plain", "while an erasure waits"])
def test_every_page_of_a_backup_has_its_checksum(is_pending: bool, tmp_path: Path) -> None:
    """Over 2 MB the backup's cache is full, and pages are written before the first one, that has to be there."""
    memory = MemoryModule(storage_dir=tmp_path / "data", durability="normal")
    with memory.transaction():
        for number in range(3000):
            memory.create_memory("notes", str(number), {"text": "x" * 600 + str(number)}, "note", tags=["a"])
    reading = memory.iter_memories()
    next(reading)
    if is_pending:
        assert memory.erase_memory(memory.list_memories(limit=1)[0].id).state == "pending"

    copy = memory.store.back_up(tmp_path / "saved")

    connection = engine.opened(str(copy), None)
    verification.verify(connection, str(copy), encrypted=False)
    connection.close()
    reading.close()  # type: ignore[attr-defined]  # it is a generator


def test_a_backup_of_what_is_damaged_is_not_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path / "data")
    memory = encrypted(tmp_path / "data")
    real = backup._check

    def damaged(database: Any, temporary: str, *rest: Any, **options: Any) -> None:
        with open(temporary, "r+b") as file:
            file.seek(-600, os.SEEK_END)
            file.write(b"\0" * 8)
        real(database, temporary, *rest, **options)

    monkeypatch.setattr(backup, "_check", damaged)
    with pytest.raises(CorruptStoreError):
        memory.store.back_up(tmp_path / "saved")

    assert list((tmp_path / "saved").iterdir()) == []


@pytest.mark.parametrize("encryption", ["off", "on"])
def test_a_flipped_bit_on_any_page_of_the_store_is_in_no_backup(tmp_path: Path, encryption: str) -> None:
    filled(tmp_path / "data", encryption=encryption)
    whole = (tmp_path / "data" / "memory.db").read_bytes()
    refused = 0
    for at in range(700, len(whole), 4096):
        directory = tmp_path / str(at)
        shutil.copytree(tmp_path / "data", directory)
        with encrypted(directory, encryption=encryption) as memory:
            digest = memory.store.digest()
            path = directory / "memory.db"
            data, status = path.read_bytes(), path.stat()
            path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

            try:
                memory.store.back_up(directory / "saved")
            except CorruptStoreError:
                refused += 1
                assert list((directory / "saved").iterdir()) == []
                continue
        with encrypted(directory / "saved", encryption=encryption) as copy:  # the byte was in no row
            assert copy.store.digest() == digest
            assert copy.store.verify().problems == {}
    assert refused > 5


def test_pages_without_checksums_are_in_no_backup_before_their_content_was_compared(tmp_path: Path) -> None:
    filled(tmp_path / "data", encryption="off")
    path = tmp_path / "data" / "memory.db"
    with sqlite3.connect(path) as other:  # which writes no checksums
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("VACUUM")
    other.close()
    reading = encrypted(tmp_path / "data", encryption="off", read_only=True)
    assert reading.count_memories() == 40
    assert reading.store.back_up(tmp_path / "good").exists()
    data, status = path.read_bytes(), path.stat()
    at = data.index((CANARY * 9).encode())
    path.write_bytes(data[:at] + b"#" + data[at + 1 :])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    with pytest.raises(CorruptStoreError, match=r"cannot be backed up: .* an entry does not match its checksum"):
        reading.store.back_up(tmp_path / "bad")
