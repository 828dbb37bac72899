"""Copies that mix two states of a store are errors: no acknowledged write is missing from what is answered."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from jarvis.errors import CorruptStoreError, StoreError
from jarvis.persistent_memory import MemoryModule

FILES = ("memory.db", "memory.db-wal", "memory.db.lock", "memory.keys")


def _key() -> bytes:
    return bytes(range(32))


@pytest.fixture(params=["plain", "sealed"])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {} if request.param == "plain" else {"encryption": "on", "keys": [_key]}


def _copy(source: Path, target: Path, *, without: tuple[str, ...] = ()) -> Path:
    target.mkdir(exist_ok=True)
    for name in FILES:
        if name not in without and (source / name).exists():
            shutil.copy(source / name, target / name)
    return target


def _crashed(directory: Path, options: dict[str, Any], count: int) -> Path:
    """Return a directory in which `count` writes were acknowledged, and whose process was killed: a copy in use."""
    memory = MemoryModule(storage_dir=directory / "live", **options)
    for number in range(count):
        memory.create_memory("notes", str(number), {"text": "x" * 300}, "note")
    crashed = _copy(directory / "live", directory / "crashed")
    memory.shutdown()
    return crashed


def _refused(directory: Path, options: dict[str, Any]) -> None:
    with pytest.raises(StoreError):  # with a log beside it, it is not even looked at
        MemoryModule(storage_dir=directory, read_only=True, **options).count_memories()
    with pytest.raises(CorruptStoreError):
        MemoryModule(storage_dir=directory, **options).count_memories()
    with pytest.raises(CorruptStoreError):
        MemoryModule(storage_dir=directory, **options).set_user_preference("theme", {})


def test_a_copy_of_a_crashed_store_has_every_write(options: dict[str, Any], tmp_path: Path) -> None:
    crashed = _crashed(tmp_path, options, 60)

    assert MemoryModule(storage_dir=crashed, **options).count_memories() == 60


@pytest.mark.parametrize("left", [None, 0, 40_000, 100_000], ids=["gone", "empty", "cut", "cut later"])
def test_a_copy_whose_log_is_cut_or_gone_is_an_error(options: dict[str, Any], left: int | None, tmp_path: Path) -> None:
    crashed = _crashed(tmp_path, options, 60)
    log = crashed / "memory.db-wal"
    assert log.stat().st_size > 100_000
    if left is None:
        log.unlink()
    else:
        os.truncate(log, left)

    _refused(crashed, options)


@pytest.mark.parametrize("with_lock", [True, False], ids=["lock too", "without the lock"])
def test_an_earlier_file_beside_a_later_log_is_an_error(
    options: dict[str, Any], with_lock: bool, tmp_path: Path
) -> None:
    memory = MemoryModule(storage_dir=tmp_path / "live", **options)
    memory.bootstrap()
    memory.shutdown()
    _copy(tmp_path / "live", tmp_path / "mixed")
    with memory.transaction():
        for number in range(3000):
            memory.create_memory("notes", str(number), {"text": "x" * 100}, "note")
    memory.shutdown()  # which folds the log in
    memory.create_memory("notes", "last", {}, "note")
    kept = () if with_lock else ("memory.db.lock",)
    _copy(tmp_path / "live", tmp_path / "mixed", without=("memory.db", *kept))

    _refused(tmp_path / "mixed", options)


def test_bytes_behind_the_last_page_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    with MemoryModule(storage_dir=tmp_path, **options) as memory:
        memory.set_user_preference("theme", {})
    with (tmp_path / "memory.db").open("ab") as file:
        file.write(b"\0" * 4096)

    _refused(tmp_path, options)


def test_an_older_backup_beside_the_lock_of_the_store_says_what_to_remove(
    options: dict[str, Any], tmp_path: Path
) -> None:
    memory = MemoryModule(storage_dir=tmp_path / "store", **options)
    memory.set_user_preference("first", {})
    copy = memory.store.back_up(tmp_path / "backup")
    memory.set_user_preference("second", {})
    memory.shutdown()
    shutil.copy(copy, tmp_path / "store" / "memory.db")

    with pytest.raises(CorruptStoreError, match=r"remove memory\.db\.lock too"):
        memory.get_user_preferences()

    (tmp_path / "store" / "memory.db.lock").unlink()
    assert memory.get_user_preferences() == {"first": {}}
