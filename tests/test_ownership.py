"""Whoever could open a store still can after a run of root; nobody else can, unless that was chosen."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from jarvis.errors import ReadableByOthersWarning
from jarvis.keys import KeyFile, Passphrase
from jarvis.persistent_memory import MemoryModule

OWNER, GROUP = 65_534, 65_533
WORDS = Passphrase("correct horse battery staple")
FILES = {"sqlite": "memory.db", "json": "memory.json"}
FIRST_LIFE = """
CREATE TABLE memories (
    id TEXT PRIMARY KEY, category TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, tags TEXT NOT NULL,
    entity_type TEXT NOT NULL, entity_id TEXT, timestamp TEXT NOT NULL, provenance TEXT NOT NULL,
    created_at TEXT NOT NULL)
"""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="files have no modes there")
as_root = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="gives files away, which only root may")
both = pytest.mark.parametrize("backend", ["sqlite", "json"])


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory of somebody else, who can reach it."""
    path = Path(tempfile.mkdtemp(dir="/tmp"))
    os.chown(path, OWNER, GROUP)
    yield path
    shutil.rmtree(path)


def _foreign(home: Path) -> list[str]:
    """Return what in the directory its owner could not open, or others could."""
    found = []
    for path in home.rglob("*"):
        status = path.lstat()
        mode = 0o700 if path.is_dir() else 0o600
        if (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) != (OWNER, GROUP, mode):
            found.append(f"{path.name}: {status.st_uid}:{status.st_gid} {status.st_mode:o}")
    return found


@as_root
@both
def test_what_root_creates_is_of_the_directorys_owner(backend: str, home: Path) -> None:
    with MemoryModule(storage_dir=home / "new" / "deep", backend_type=backend) as memory:
        memory.set_user_preference("theme", {"mode": "dark"})
        assert _foreign(home) == []
        memory.store.back_up(home / "copies" / "today")

    assert _foreign(home) == []


@as_root
@both
def test_what_root_writes_again_stays_of_its_owner(backend: str, home: Path) -> None:
    os.chmod(home, 0o777)
    with MemoryModule(storage_dir=home, backend_type=backend) as memory:
        memory.set_user_preference("theme", {"mode": "dark"})
    os.chown(home, 0, 0)  # such as /var/lib/assistant, where others may make files
    (home / f"{FILES[backend]}.lock").unlink()

    with MemoryModule(storage_dir=home, backend_type=backend) as memory:
        memory.set_user_preference("theme", {"mode": "light"})
        memory.clear_all(erase=True)
        assert _foreign(home) == []
    assert _foreign(home) == []


@as_root
def test_keys_and_what_they_replace_stay_of_the_stores_owner(home: Path) -> None:
    with MemoryModule(storage_dir=home, backend_type="sqlite") as memory:
        memory.set_user_preference("theme", {"mode": "dark"})
    os.chown(home, 0, 0)
    with MemoryModule(storage_dir=home, encryption="on", keys=[WORDS]) as memory:
        memory.store.encrypt()
        assert _foreign(home) == []
        memory.store.rotate_key()
        memory.set_user_preference("theme", {"mode": "light"})
        assert _foreign(home) == []
        memory.store.decrypt()
    assert _foreign(home) == []


@as_root
def test_an_encrypted_store_that_root_creates_is_of_the_directorys_owner(home: Path) -> None:
    with MemoryModule(storage_dir=home, encryption="on", keys=[KeyFile.create(home / "key")]) as memory:
        memory.set_user_preference("theme", {"mode": "dark"})
        memory.store.back_up(home / "copy")

    assert _foreign(home) == []


@as_root
@both
def test_the_old_store_that_root_migrates_and_its_kept_copy_are_of_its_owner(backend: str, home: Path) -> None:
    path = home / FILES[backend]
    _write_first_life(backend, path)
    os.chown(path, OWNER, GROUP)
    os.chmod(path, 0o600)
    os.chown(home, 0, 0)

    with MemoryModule(storage_dir=home, backend_type=backend) as memory:
        assert memory.count_memories() == 1

    assert (home / f"{FILES[backend]}.first-life").exists()
    assert _foreign(home) == []


def _write_first_life(backend: str, path: Path) -> None:
    fields: dict[str, object] = {
        "id": "1",
        "category": "c",
        "key": "k",
        "value": {"a": 1},
        "tags": [],
        "entity_type": "t",
        "entity_id": None,
        "timestamp": "2024-01-15T10:30:00",
        "provenance": {},
    }
    if backend == "json":
        path.write_text(json.dumps({"entries": {"1": fields}}))
        return
    connection = sqlite3.connect(path)
    connection.execute(FIRST_LIFE)
    row = [json.dumps(each) if isinstance(each, dict | list) else each for each in fields.values()]
    connection.execute("INSERT INTO memories VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, "2024-01-15T10:30:00"))
    connection.commit()
    connection.close()


# --- stores that are shared ---


@pytest.mark.filterwarnings("ignore::jarvis.errors.ReadableByOthersWarning")
@pytest.mark.parametrize("mode", [0o640, 0o660, 0o644, 0o600])
@both
def test_a_store_keeps_the_mode_it_was_given_and_what_belongs_to_it_has_that_too(
    backend: str, mode: int, tmp_path: Path
) -> None:
    path = tmp_path / FILES[backend]
    with MemoryModule(storage_dir=tmp_path, backend_type=backend) as memory:
        memory.set_user_preference("theme", {"mode": "dark"})
    os.chmod(path, mode)
    (tmp_path / f"{path.name}.lock").unlink()

    with MemoryModule(storage_dir=tmp_path, backend_type=backend) as memory:
        memory.set_user_preference("theme", {"mode": "light"})
        memory.clear_all(erase=True)
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()}

    assert set(modes.values()) == {mode}, modes
    assert len(modes) >= 2


@pytest.mark.filterwarnings("ignore::jarvis.errors.ReadableByOthersWarning")
def test_the_keys_of_a_shared_store_are_shared_as_it_is(tmp_path: Path) -> None:
    with MemoryModule(storage_dir=tmp_path) as memory:
        memory.set_user_preference("theme", {"mode": "dark"})
    os.chmod(tmp_path / "memory.db", 0o660)

    with MemoryModule(storage_dir=tmp_path, encryption="on", keys=[WORDS]) as memory:
        memory.store.encrypt()
        memory.store.rotate_key()

    shared = [tmp_path / "memory.db", tmp_path / "memory.keys"]
    assert {stat.S_IMODE(each.stat().st_mode) for each in shared} == {0o660}


@as_root
@pytest.mark.filterwarnings("ignore::jarvis.errors.ReadableByOthersWarning")
def test_a_group_that_a_member_of_another_cannot_give_is_not_replaced_by_its_own(home: Path) -> None:
    with MemoryModule(storage_dir=home, backend_type="json") as memory:
        memory.set_user_preference("theme", {"mode": "dark"})
    os.chmod(home, 0o777)
    os.chmod(home / "memory.json", 0o666)
    os.chmod(home / "memory.json.lock", 0o666)
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(OWNER - 5)
            os.setuid(OWNER - 5)
            with MemoryModule(storage_dir=home, backend_type="json") as memory:
                memory.set_user_preference("theme", {"mode": "light"})
            os._exit(0)
        except BaseException:  # noqa: BLE001  whatever it is, the parent is told
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0

    assert stat.S_IMODE((home / "memory.json").stat().st_mode) == 0o606


@both
def test_a_store_that_others_may_read_is_warned_of_once(backend: str, tmp_path: Path) -> None:
    path = tmp_path / FILES[backend]
    with MemoryModule(storage_dir=tmp_path, backend_type=backend) as memory:
        memory.set_user_preference("theme", {"mode": "dark"})
    os.chmod(path, 0o644)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            with MemoryModule(storage_dir=tmp_path, backend_type=backend) as memory:
                memory.list_memories()

    [warning] = [each for each in caught if issubclass(each.category, ReadableByOthersWarning)]
    assert "0644" in str(warning.message)
    assert f"chmod 600 {path}" in str(warning.message)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_keys_that_others_may_read_are_warned_of(tmp_path: Path) -> None:
    with MemoryModule(storage_dir=tmp_path, encryption="on", keys=[WORDS]) as memory:
        memory.set_user_preference("theme", {"mode": "dark"})
    os.chmod(tmp_path / "memory.keys", 0o640)

    with (
        pytest.warns(ReadableByOthersWarning, match=r"memory\.keys has the mode 0640"),
        MemoryModule(storage_dir=tmp_path, keys=[WORDS]) as memory,
    ):
        memory.list_memories()
