"""The restore drill: backups in generations, put back and compared."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jarvis.conformance.fixtures import FakeClock
from jarvis.errors import (
    CorruptStoreError,
    CursorExpiredError,
    InvalidSettingError,
    KeyUnavailableError,
    StoreAccessError,
    StoreMissingError,
    WrongKeyError,
)
from jarvis.keys import KeyFile, Passphrase
from jarvis.moving import restore_backup
from jarvis.persistent_memory import MemoryModule
from jarvis.services.backups import generations, kept
from jarvis.sqlite_backend import SQLiteBackend
from tests.test_exporting import filled

STORES = Path(__file__).parent / "stores"
MONDAY = datetime(2026, 3, 2, 9, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "json", "sealed"])
def options(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Return the options of a store."""
    if request.param == "sealed":
        return {"encryption": "on", "keys": [KeyFile.create(tmp_path / "key")]}
    return {"backend_type": request.param}


def content(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_backup_becomes_a_store_with_all_that_it_had(options: dict[str, Any], tmp_path: Path) -> None:
    memory = filled(MemoryModule(storage_dir=tmp_path / "store", **options))
    cursor, digest = memory.newest_cursor(), memory.store.digest()
    memory.store.back_up(tmp_path / "backup")
    before = content(tmp_path / "backup")
    memory.set_user_preference("later", {"n": 1})

    told: list[tuple[int, int]] = []
    path = restore_backup(
        tmp_path / "backup",
        tmp_path / "restored",
        keys=options.get("keys", ()),
        progress=lambda *numbers: told.append(numbers),
    )

    assert told[-1][0] == told[-1][1] > 0
    assert path.parent == tmp_path / "restored"
    assert content(tmp_path / "backup") == before
    restored = MemoryModule(storage_dir=tmp_path / "restored", **options)
    assert restored.store.digest() == digest
    restored.set_user_preference("other", {"n": 1})
    with pytest.raises(CursorExpiredError):
        restored.changes(cursor)


def test_backups_in_generations_are_thinned_out(options: dict[str, Any], tmp_path: Path) -> None:
    clock = FakeClock(MONDAY)
    memory = filled(MemoryModule(storage_dir=tmp_path / "store", clock=clock, **options))
    for _ in range(30):
        memory.set_user_preference("n", {"at": clock.now})
        memory.store.back_up(tmp_path / "all", keep_daily=3, keep_weekly=2)
        clock.step(hours=13)

    names = generations(tmp_path / "all")
    assert names[0] == "2026-03-18T02-00-00Z"
    assert names == sorted(kept(names, 3, 2), reverse=True)
    assert [name[:10] for name in names] == ["2026-03-18", "2026-03-17", "2026-03-16", "2026-03-15"]
    restore_backup(tmp_path / "all", tmp_path / "restored", keys=options.get("keys", ()))
    restored = MemoryModule(storage_dir=tmp_path / "restored", **options)
    assert restored.store.digest() == memory.store.digest()


def test_a_new_backup_stays_though_the_clock_was_ahead_at_an_earlier_one(tmp_path: Path) -> None:
    clock = FakeClock(MONDAY + timedelta(days=9))
    memory = MemoryModule(storage_dir=tmp_path / "store", clock=clock)
    memory.store.back_up(tmp_path / "all", keep_daily=1)
    clock.now = MONDAY

    path = memory.store.back_up(tmp_path / "all", keep_daily=1)

    assert path.exists()


def test_backups_of_a_file_with_a_name_of_its_own_are_thinned_out(tmp_path: Path) -> None:
    clock = FakeClock(MONDAY)
    memory = MemoryModule(SQLiteBackend(tmp_path / "notes.db"), clock=clock)
    for _ in range(3):
        path = memory.store.back_up(tmp_path / "all", keep_daily=1)
        clock.step(hours=1)

    assert [*(tmp_path / "all").rglob("notes.db")] == [path]


def test_keys_without_a_copy_which_a_killed_process_left_are_no_backup(tmp_path: Path) -> None:
    key = KeyFile.create(tmp_path / "key")
    memory = MemoryModule(storage_dir=tmp_path / "store", encryption="on", keys=[key])
    memory.set_user_preference("n", {"n": 1})
    copy = memory.store.back_up(tmp_path / "all", keep_daily=1)
    later = tmp_path / "all" / "2999-01-01T00-00-00Z"
    later.mkdir()
    shutil.copy(copy.with_name("memory.keys"), later)

    restore_backup(tmp_path / "all", tmp_path / "restored", keys=[key])

    restored = MemoryModule(storage_dir=tmp_path / "restored", encryption="on", keys=[key])
    assert restored.get_user_preferences() == {"n": {"n": 1}}


@pytest.mark.parametrize(("mark", "is_taken"), [(b"", True), (b"\xff", False)])
def test_a_damaged_note_of_whose_backups_there_are_is_no_riddle(tmp_path: Path, mark: bytes, is_taken: bool) -> None:
    memory = MemoryModule(storage_dir=tmp_path / "store")
    memory.set_user_preference("n", {"n": 1})
    memory.store.back_up(tmp_path / "all", keep_daily=1)
    (tmp_path / "all" / "store.txt").write_bytes(mark)
    shutil.rmtree(next((tmp_path / "all").glob("2*")))

    if is_taken:
        assert memory.store.back_up(tmp_path / "all", keep_daily=1).exists()
    else:
        with pytest.raises(StoreAccessError, match="another store"):
            memory.store.back_up(tmp_path / "all", keep_daily=1)


def test_what_a_killed_process_left_of_a_backup_is_removed_a_day_later(tmp_path: Path) -> None:
    clock = FakeClock(MONDAY)
    memory = MemoryModule(storage_dir=tmp_path / "store", clock=clock)
    left = tmp_path / "all" / "2026-03-02T08-00-00Z"
    left.mkdir(parents=True)
    (left / ".memory.db.77-0123abcd.tmp").write_bytes(b"most of a copy")
    (left / ".memory.db.saving.lock").touch()
    for _ in range(2):
        memory.store.back_up(tmp_path / "all", keep_daily=9)
        assert left.exists()
        clock.step(hours=12)

    memory.store.back_up(tmp_path / "all", keep_daily=9)

    assert not left.exists()
    assert len(generations(tmp_path / "all")) == 2


@pytest.mark.parametrize("version", range(1, 7))
def test_backups_of_earlier_versions_are_verified_and_restored(version: int, tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()
    shutil.copy(STORES / f"version-{version}.db", tmp_path / "backup" / "memory.db")

    restore_backup(tmp_path / "backup", tmp_path / "restored")

    backup = MemoryModule(storage_dir=tmp_path / "backup", read_only=True)
    assert backup.store.verify().problems == {}
    assert backup.store.digest() == MemoryModule(storage_dir=tmp_path / "restored").store.digest()


def test_nothing_but_backups_is_removed(tmp_path: Path) -> None:
    clock = FakeClock(MONDAY)
    memory = MemoryModule(storage_dir=tmp_path / "store", clock=clock)
    memory.set_user_preference("n", {"n": 1})
    for name in ("mine", "2026-01-01", "2026-01-01T00-00-00Z"):
        (tmp_path / "all" / name).mkdir(parents=True)
        (tmp_path / "all" / name / "file").write_text("x")
    for _ in range(3):
        memory.store.back_up(tmp_path / "all", keep_daily=1)
        clock.step(hours=1)

    left = sorted(path.name for path in (tmp_path / "all").iterdir())
    assert left == ["2026-01-01", "2026-01-01T00-00-00Z", "2026-03-02T11-00-00Z", "mine", "store.txt"]


def test_the_backups_of_another_store_are_left_alone(options: dict[str, Any], tmp_path: Path) -> None:
    clock = FakeClock(MONDAY)
    for name in ("one", "other"):
        memory = filled(MemoryModule(storage_dir=tmp_path / name, clock=clock, **options))
        if name == "one":
            memory.store.back_up(tmp_path / "all", keep_daily=1)
            clock.step(days=1)
            continue
        with pytest.raises(StoreAccessError, match="another store"):
            memory.store.back_up(tmp_path / "all", keep_daily=1)
    assert generations(tmp_path / "all") == ["2026-03-02T09-00-00Z"]


@pytest.mark.parametrize("number", [0, -1, True, 1.5, "3", 10**9])
def test_a_policy_is_a_number(tmp_path: Path, number: Any) -> None:
    with pytest.raises(InvalidSettingError, match="keep_weekly"):
        MemoryModule(storage_dir=tmp_path / "store").store.back_up(tmp_path / "all", keep_weekly=number)
    assert not (tmp_path / "all").exists()


def test_a_damaged_backup_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    memory = filled(MemoryModule(storage_dir=tmp_path / "store", **options))
    path = memory.store.back_up(tmp_path / "backup")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)

    with pytest.raises(CorruptStoreError):
        restore_backup(tmp_path / "backup", tmp_path / "restored", keys=options.get("keys", ()))

    assert content(tmp_path / "restored") == {} if (tmp_path / "restored").exists() else True


def test_a_store_that_is_there_is_left_alone(options: dict[str, Any], tmp_path: Path) -> None:
    memory = filled(MemoryModule(storage_dir=tmp_path / "store", **options))
    memory.store.back_up(tmp_path / "backup")
    digest = memory.store.digest()

    with pytest.raises(StoreAccessError):
        restore_backup(tmp_path / "backup", tmp_path / "store", keys=options.get("keys", ()))

    assert memory.store.digest() == digest


def test_what_is_no_backup_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "absent"):
        with pytest.raises(StoreMissingError, match=str(path)):
            restore_backup(path, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()
    assert not (tmp_path / "absent").exists()


def test_an_encrypted_backup_takes_its_key(tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path / "store", encryption="on", keys=[Passphrase("correct horse battery")])
    memory.set_user_preference("theme", {"mode": "dark"})
    memory.store.back_up(tmp_path / "backup")

    with pytest.raises(KeyUnavailableError):
        restore_backup(tmp_path / "backup", tmp_path / "restored")
    with pytest.raises(WrongKeyError):
        restore_backup(tmp_path / "backup", tmp_path / "restored", keys=[Passphrase("another passphrase")])

    keys = [Passphrase("correct horse battery")]
    restore_backup(tmp_path / "backup", tmp_path / "restored", keys=keys)
    restored = MemoryModule(storage_dir=tmp_path / "restored", keys=keys)
    assert restored.get_user_preferences() == {"theme": {"mode": "dark"}}


def test_the_newest_of_each_day_and_week_is_kept() -> None:
    hours = [MONDAY - timedelta(hours=hours) for hours in range(0, 24 * 40, 7)]
    names = [moment.strftime("%Y-%m-%dT%H-%M-%SZ") for moment in hours]

    found = sorted(kept(names, 3, 4), reverse=True)

    assert [name[:10] for name in found] == ["2026-03-02", "2026-03-01", "2026-02-28", "2026-02-22", "2026-02-15"]
    assert found[0] == names[0]
