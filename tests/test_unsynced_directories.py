"""A directory whose names cannot be synced: said once, and no write that is kept is called a failure."""

from __future__ import annotations

import errno
import logging
import os
import warnings
from pathlib import Path

import pytest

from jarvis._disk import files
from jarvis.errors import StoreAccessError, StoreError, UnsafeLocationWarning
from jarvis.json_backend import JSONBackend
from jarvis.keys import KeyFile, KeyFunction
from jarvis.model.entry import MemoryEntry
from jarvis.persistent_memory import MemoryModule
from jarvis.sqlite_backend import SQLiteBackend
from tests.erasing import erase_namespace

BOTH = pytest.mark.parametrize("kind", [SQLiteBackend, JSONBackend])
NOT_OFFERED = ("EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EBADF")


class System(files.System):
    """A file system that fails to sync directories below one, with an error number; 0 for not at all."""

    def __init__(self) -> None:
        self.number = 0
        self.tried: list[str] = []

    def sync_directory(self, path: str) -> None:
        self.tried.append(path)
        if self.number:
            raise OSError(self.number, os.strerror(self.number))
        super().sync_directory(path)


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> System:
    system = System()
    monkeypatch.setattr(files, "system", system)
    monkeypatch.setattr(files, "_can_sync", {})
    return system


def entry(name: str) -> MemoryEntry:
    return MemoryEntry(name, "c", "k", {"a": 1})


@BOTH
@pytest.mark.parametrize("number", NOT_OFFERED)
def test_a_sync_that_is_not_offered_is_said_once_and_fails_nothing(
    kind: type[SQLiteBackend] | type[JSONBackend], number: str, tmp_path: Path, system: System
) -> None:
    system.number = getattr(errno, number)
    path = tmp_path / kind.file_name
    backend = kind(path)

    with pytest.warns(UnsafeLocationWarning, match="cannot sync a directory.*power cut") as caught:
        backend.bootstrap()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for each in ("1", "2"):
            backend.create(entry(each))
        erase_namespace(backend, "other")
        backend.shutdown()
        reopened = kind(path)
        reopened.create(entry("3"))

    assert [str(tmp_path) in str(each.message) for each in caught] == [True]
    assert system.tried == [str(tmp_path)]
    assert sorted(each.id for each in reopened.list_all()) == ["1", "2", "3"]
    reopened.shutdown()


def test_what_a_directory_offers_is_found_out_before_the_first_write(tmp_path: Path, system: System) -> None:
    JSONBackend(tmp_path / "memory.json").create(entry("1"))
    files._can_sync.clear()
    system.number = errno.EINVAL
    backend = JSONBackend(tmp_path / "memory.json")

    with pytest.warns(UnsafeLocationWarning):
        assert backend.read("1") is not None
    backend.create(entry("2"))
    backend.shutdown()


def test_neither_readers_nor_writers_that_sync_nothing_find_it_out(tmp_path: Path, system: System) -> None:
    JSONBackend(tmp_path / "memory.json").create(entry("1"))
    files._can_sync.clear()
    system.number = errno.EINVAL
    tried = len(system.tried)

    JSONBackend(tmp_path / "memory.json", read_only=True).bootstrap()
    JSONBackend(tmp_path / "memory.json", durability="normal").create(entry("2"))

    assert len(system.tried) == tried


def test_a_write_that_is_kept_is_acknowledged_also_where_the_sync_fails(
    tmp_path: Path, system: System, caplog: pytest.LogCaptureFixture
) -> None:
    backend = JSONBackend(tmp_path / "memory.json")
    backend.create(entry("1"))
    system.number = errno.EIO

    with caplog.at_level(logging.WARNING, "jarvis.files"):
        backend.create(entry("2"))
        backend.update(entry("1"))
        backend.delete("1")

    assert [each.id for each in JSONBackend(tmp_path / "memory.json").list_all()] == ["2"]
    assert [each.name for each in caplog.records] == ["jarvis.files"] * 3
    assert all("power cut may take this write back" in each.getMessage() for each in caplog.records)
    system.number = 0
    backend.create(entry("3"))
    backend.shutdown()


def test_a_warning_that_was_made_an_error_fails_no_write_that_is_kept(tmp_path: Path, system: System) -> None:
    backend = JSONBackend(tmp_path / "memory.json")
    backend.create(entry("1"))
    files._can_sync.clear()  # as if the directory had been mounted anew
    system.number = errno.EINVAL

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backend.create(entry("2"))

    assert backend.read("2") is not None
    backend.shutdown()


def test_keys_whose_name_may_be_lost_are_an_error(tmp_path: Path, system: System) -> None:
    keys = [KeyFunction(lambda: b"k" * 32)]
    memory = MemoryModule(storage_dir=tmp_path, encryption="on", keys=keys)
    memory.bootstrap()
    system.number = errno.EIO

    with pytest.raises(StoreAccessError, match="could not be synced"):
        memory.store.rotate_key()
    with pytest.raises(StoreError):
        MemoryModule(storage_dir=tmp_path / "new", encryption="on", keys=keys).bootstrap()
    system.number = errno.EINVAL
    with pytest.warns(UnsafeLocationWarning):
        MemoryModule(storage_dir=tmp_path / "other", encryption="on", keys=keys).bootstrap()
    memory.shutdown()


def test_a_key_file_that_cannot_be_made_durable_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = errno.EIO
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        KeyFile.create(tmp_path / "key")
    assert not (tmp_path / "key").exists()
    number = errno.EINVAL

    assert len(KeyFile.create(tmp_path / "key").secret()) == 32
