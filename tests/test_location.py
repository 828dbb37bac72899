"""A store is the one that was meant, whatever becomes of the working directory, links, mounts and neighbours."""

from __future__ import annotations

import asyncio
import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from jarvis._disk import location
from jarvis.async_memory import AsyncMemoryModule
from jarvis.backend_registry import load_backend
from jarvis.config import ConfigLoader, StorageConfig
from jarvis.container import Container
from jarvis.errors import InvalidSettingError, OtherStoreWarning, StoreMissingError, UnsafeLocationError
from jarvis.json_backend import JSONBackend
from jarvis.keys import KeyFile
from jarvis.model.entry import MemoryEntry
from jarvis.persistent_memory import MemoryModule
from jarvis.sqlite_backend import SQLiteBackend

Kind = type[SQLiteBackend] | type[JSONBackend]
BOTH = pytest.mark.parametrize("kind", [SQLiteBackend, JSONBackend])
ENTRY = MemoryEntry("1", "c", "k", {"a": 1})


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere"


# --- where a path leads ---


@BOTH
def test_a_relative_path_means_the_directory_it_was_given_in(
    kind: Kind, tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    backend = kind(Path("data") / kind.file_name)
    copy = pickle.dumps(backend)

    monkeypatch.chdir(elsewhere)
    backend.create(ENTRY)
    backend.shutdown()
    copied = pickle.loads(copy)

    assert copied.read("1") == backend.read("1") == ENTRY
    assert (tmp_path / "data" / kind.file_name).exists()
    assert list(elsewhere.iterdir()) == []
    copied.shutdown()
    backend.shutdown()


@pytest.mark.parametrize("backend_type", ["sqlite", "json"])
def test_the_directory_of_a_module_stays_where_it_was_given(
    backend_type: str, tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    memory = MemoryModule(storage_dir="data", backend_type=backend_type)
    monkeypatch.chdir(elsewhere)
    copied = pickle.loads(pickle.dumps(memory))
    for each in (memory, copied):
        each.set_user_preference("theme", {"mode": "dark"})
        each.shutdown()

    assert (tmp_path / "data" / load_backend(backend_type).file_name).exists()
    assert list(elsewhere.iterdir()) == []


def test_settings_and_keys_are_absolute_from_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert StorageConfig(data_dir="data", logs_dir="logs").data_dir == tmp_path / "data"
    assert KeyFile("keys/one").path == tmp_path / "keys" / "one"


@pytest.mark.parametrize("written", ["$PLACE/data", "${PLACE}/data", "~/data"])
def test_settings_expand_what_a_shell_would(tmp_path: Path, written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", str(tmp_path / "a place"))
    monkeypatch.setenv("HOME", str(tmp_path / "a place"))
    file = tmp_path / "settings.yaml"
    file.write_text(f"storage: {{data_dir: '{written}', logs_dir: logs, keys: [{{file: '{written}'}}]}}")

    storage = ConfigLoader(file).load().storage

    assert storage.data_dir == tmp_path / "a place" / "data"
    assert storage.logs_dir == tmp_path / "logs"
    assert storage.keys[0].hint == str(tmp_path / "a place" / "data")
    assert StorageConfig(data_dir=written).data_dir == StorageConfig(data_dir=Path(written)).data_dir


@pytest.mark.parametrize("written", ["$NO_SUCH/data", "${NO_SUCH}/data", "/x/$NO_SUCH", "${}/data", "$EMPTY/data"])
def test_a_variable_that_is_not_set_is_refused_by_name(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH", raising=False)
    monkeypatch.setenv("EMPTY", "")

    attempts: tuple[Callable[[], object], ...] = (
        lambda: StorageConfig(data_dir=written),
        lambda: StorageConfig(logs_dir=written),
        lambda: StorageConfig(keys=[{"file": written}]),
    )
    for attempt in attempts:
        with pytest.raises(InvalidSettingError, match=r"variable '(NO_SUCH|EMPTY|)'"):
            attempt()


def test_arguments_take_a_dollar_as_it_is(tmp_path: Path) -> None:
    MemoryModule(storage_dir=tmp_path / "$HOME").bootstrap()

    assert (tmp_path / "$HOME" / "memory.db").exists()


def test_an_unknown_home_is_a_setting_that_is_refused(tmp_path: Path) -> None:
    nobody = "~nobody-at-all/data"
    for attempt in (
        lambda: SQLiteBackend(nobody),
        lambda: JSONBackend(nobody),
        lambda: MemoryModule(storage_dir=nobody),
        lambda: StorageConfig(data_dir=nobody),
        lambda: KeyFile(nobody),
        lambda: StorageConfig(keys=[{"file": nobody}]),
        lambda: ConfigLoader(f"{nobody}/settings.yaml"),
        lambda: MemoryModule(storage_dir=tmp_path).store.back_up(nobody),
    ):
        with pytest.raises(InvalidSettingError, match="home directory"):
            attempt()


def test_a_relative_path_needs_a_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    for attempt in (lambda: SQLiteBackend("memory.db"), lambda: JSONBackend("memory.json"), lambda: KeyFile("key")):
        with pytest.raises(InvalidSettingError, match="working directory is gone"):
            attempt()
    assert SQLiteBackend(os.path.join(tmp_path, "memory.db")).db_path == tmp_path / "memory.db"


# --- links that lead nowhere ---


@BOTH
@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("link", ["file", "directory", "directory above", "link to a link"])
def test_nothing_is_created_through_a_link_that_leads_nowhere(
    kind: Kind, read_only: bool, link: str, tmp_path: Path
) -> None:
    disk, place = tmp_path / "disk", tmp_path / "place"
    if link == "file":
        place.mkdir()
        path = at = place / kind.file_name
        at.symlink_to(disk / kind.file_name)
    elif link == "directory":
        path, at = place / kind.file_name, place
        at.symlink_to(disk)
    elif link == "directory above":
        path, at = place / "a" / "b" / kind.file_name, place
        at.symlink_to("disk")
    else:
        (tmp_path / "between").symlink_to(disk)
        path, at = place / kind.file_name, place
        at.symlink_to(tmp_path / "between")
    there = sorted(os.walk(tmp_path))
    backend = kind(path, read_only=read_only)

    for attempt in (backend.bootstrap, lambda: backend.read("1"), lambda: backend.list_all()):
        with pytest.raises(StoreMissingError, match=r"symbolic link to .*not there; mount") as caught:
            attempt()
        assert str(at) in str(caught.value)

    assert sorted(os.walk(tmp_path)) == there
    disk.mkdir()
    if not read_only and link != "file":
        backend.create(ENTRY)
        assert backend.read("1") == ENTRY
    backend.shutdown()


@BOTH
def test_no_backup_is_made_through_a_link_that_leads_nowhere(kind: Kind, tmp_path: Path) -> None:
    backend = kind(tmp_path / "store" / kind.file_name)
    backend.create(ENTRY)
    (tmp_path / "copies").symlink_to(tmp_path / "disk")

    with pytest.raises(StoreMissingError, match="symbolic link"):
        backend.back_up(tmp_path / "copies" / "today")

    assert not (tmp_path / "disk").exists()
    backend.shutdown()


# --- mounts ---


def _mountinfo(tmp_path: Path, *points: str) -> str:
    lines = ["1 0 8:1 / / rw,relatime shared:1 - overlay overlay rw"]
    lines += [f"{number} 1 0:{number} / {point} rw - ext4 /dev/a rw" for number, point in enumerate(points, 2)]
    (tmp_path / "mountinfo").write_text("\n".join(lines) + "\n")
    return str(tmp_path / "mountinfo")


@pytest.mark.parametrize("name", ["plain", "with a space", "tab\tand\nline", "back\\slash", "\\040"])
def test_a_file_that_is_mounted_alone_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name / "memory.db"
    escaped = str(path).replace("\\", r"\134").replace(" ", r"\040").replace("\t", r"\011").replace("\n", r"\012")

    monkeypatch.setattr(location, "MOUNTS", _mountinfo(tmp_path, escaped))
    with pytest.raises(UnsafeLocationError, match=r"mounted as a file alone.* mount its directory") as caught:
        location.check_location(path)
    for other in (escaped.removesuffix("/memory.db"), f"{escaped}.lock"):
        monkeypatch.setattr(location, "MOUNTS", _mountinfo(tmp_path, other))
        location.check_location(path)

    assert str(path) in str(caught.value)


@BOTH
@pytest.mark.parametrize("read_only", [False, True])
def test_a_store_that_is_mounted_alone_is_not_opened(
    kind: Kind, read_only: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store" / kind.file_name
    monkeypatch.setattr(location, "MOUNTS", _mountinfo(tmp_path, str(path)))

    with pytest.raises(UnsafeLocationError):
        kind(path, read_only=read_only).bootstrap()

    assert not path.parent.exists()


def test_without_a_table_of_mounts_the_devices_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(location, "MOUNTS", str(tmp_path / "none"))
    (tmp_path / "memory.db").touch()
    location.check_location(tmp_path / "memory.db")
    mounted = next((each for each in (Path("/proc"), Path("/dev/shm")) if each.is_mount()), None)
    if mounted is None:
        pytest.skip("needs something that is mounted")

    with pytest.raises(UnsafeLocationError, match="mounted as a file alone"):
        location.check_location(mounted)


# --- a store of another backend beside it ---


@BOTH
def test_a_store_of_another_backend_beside_it_is_warned_of_once(kind: Kind, tmp_path: Path) -> None:
    other = JSONBackend if kind is SQLiteBackend else SQLiteBackend
    before = other(tmp_path / other.file_name)
    before.create(ENTRY)
    before.shutdown()
    path = tmp_path / kind.file_name
    backend = kind(path)

    with pytest.warns(OtherStoreWarning, match="nothing is taken over") as caught:
        assert backend.read("1") is None
    backend.shutdown()
    backend.bootstrap()
    kind(path).bootstrap()

    assert len(caught) == 1
    assert str(path) in str(caught[0].message)
    assert str(tmp_path / other.file_name) in str(caught[0].message)
    backend.shutdown()
    with pytest.warns(OtherStoreWarning):  # from the other side, too
        assert other(tmp_path / other.file_name).read("1") == ENTRY


@pytest.mark.parametrize("name", ["memory.json.lock", "memory.json.first-life", "other.json", "memory.yaml"])
def test_other_files_beside_a_store_are_not_warned_of(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("{}")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", OtherStoreWarning)
        SQLiteBackend(tmp_path / "memory.db").bootstrap()
        SQLiteBackend(tmp_path / "other.db").bootstrap()

    assert caught == []


# --- a store that is not to be created ---


@BOTH
def test_a_store_that_is_not_to_be_created_is_missed_and_nothing_is_made(kind: Kind, tmp_path: Path) -> None:
    backend = kind(tmp_path / "new" / kind.file_name, create=False)
    copied = pickle.loads(pickle.dumps(backend))
    sibling = backend.for_namespace("alice")

    for each in (backend, copied, sibling):
        for attempt in (each.bootstrap, each.list_all, lambda each=each: each.create(ENTRY)):
            with pytest.raises(StoreMissingError, match=r"create=True"):
                attempt()
    assert list(tmp_path.iterdir()) == []

    (tmp_path / "new").mkdir()
    with pytest.raises(StoreMissingError):
        backend.create(ENTRY)
    assert list((tmp_path / "new").iterdir()) == []


@BOTH
def test_a_store_that_is_there_opens_also_where_none_is_to_be_created(kind: Kind, tmp_path: Path) -> None:
    made = kind(tmp_path / kind.file_name)
    made.create(ENTRY)
    made.shutdown()
    backend = kind(tmp_path / kind.file_name, create=False)

    backend.update(ENTRY)
    backend.shutdown()
    found = backend.read("1")
    backend.shutdown()

    assert found is not None
    assert found.version == 2
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(StoreMissingError):
        backend.read("1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("backend_type", ["sqlite", "json"])
def test_modules_and_containers_pass_on_that_nothing_is_to_be_created(backend_type: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(f"storage: {{data_dir: data, backend: {backend_type}, create: false}}")
    data = tmp_path / "data"

    with pytest.raises(StoreMissingError):
        MemoryModule(storage_dir=data, backend_type=backend_type, create=False).bootstrap()
    with pytest.raises(StoreMissingError):
        asyncio.run(AsyncMemoryModule(storage_dir=data, backend_type=backend_type, create=False).list_memories())
    with pytest.raises(StoreMissingError):
        Container().get_memory_module(file)
    with pytest.raises(InvalidSettingError, match="create"):
        StorageConfig(create="no")  # type: ignore[arg-type]  # hostile

    assert not data.exists()
