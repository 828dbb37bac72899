"""Something else in the place of one of our files, such as a pipe or a link: never waited for, never followed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from jarvis._disk import files
from jarvis._disk.lock_file import Note
from jarvis._disk.locks import WriterLock
from jarvis.errors import StoreAccessError, StoreError
from jarvis.keys import KeyFunction
from jarvis.persistent_memory import MemoryModule

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and links of POSIX")

SQLITE = ("", "-wal", "-shm", "-journal", ".lock", ".first-life")
BESIDE = (".memory.db.moving", ".memory.db.moving-wal", ".memory.db.moving.lock", ".memory.db.moved-shm", "memory.keys")
NAMES = [
    *(("sqlite", f"memory.db{suffix}") for suffix in SQLITE),
    *(("sqlite", name) for name in BESIDE),
    *(("json", f"memory.json{suffix}") for suffix in ("", ".lock", ".first-life")),
]


def _memory(directory: Path, backend_type: str) -> MemoryModule:
    return MemoryModule(storage_dir=directory, backend_type=backend_type, busy_timeout_seconds=2)


def _key() -> bytes:
    return bytes(range(32))


def _in_time(call: Callable[[], object]) -> StoreError | None:
    """Return the error of ours that the call raises, if any; fail if it never returns, as who opens a pipe does not."""
    errors: list[StoreError] = []
    others: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except StoreError as error:
            errors.append(error)
        except BaseException as error:  # noqa: BLE001 - raised below
            others.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout=30)
    assert not thread.is_alive(), "it waits for ever"
    for error in others:
        raise error
    return errors[0] if errors else None


def _use(directory: Path, backend_type: str) -> None:
    memory = _memory(directory, backend_type)
    try:
        memory_id = memory.set_user_preference("after", {"theme": "light"})
        assert memory.get_user_preferences()["after"] == {"theme": "light"}
        memory.erase_memory(memory_id)
        if backend_type == "sqlite":
            memory.store.encrypt([KeyFunction(_key)])
    finally:
        memory.shutdown()


@pytest.mark.parametrize(("backend_type", "name"), NAMES)
def test_a_pipe_is_not_waited_for(backend_type: str, name: str, tmp_path: Path) -> None:
    with _memory(tmp_path, backend_type) as memory:
        memory.set_user_preference("before", {})
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)

    error = _in_time(lambda: _use(tmp_path, backend_type))

    assert error is None or name in str(error)
    (tmp_path / name).unlink(missing_ok=True)


@pytest.mark.parametrize("what", [b"somebody's own\n" * 100, b"1" * 500, b""], ids=["text", "digits", "empty"])
@pytest.mark.parametrize(("backend_type", "name"), NAMES)
def test_a_link_is_not_written_through(backend_type: str, name: str, what: bytes, tmp_path: Path) -> None:
    store, target = tmp_path / "store", tmp_path / "target"
    with _memory(store, backend_type) as memory:
        memory.set_user_preference("before", {})
    target.write_bytes(what)
    if name not in ("memory.db", "memory.json"):  # which may be a link to a store: that is opened, not written here
        (store / name).unlink(missing_ok=True)
        (store / name).symlink_to(target)

        error = _in_time(lambda: _use(store, backend_type))

        assert target.read_bytes() == what
        assert error is None or name in str(error)


def test_a_second_name_of_a_file_is_no_file_of_a_lock(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("mine\n" * 100)
    os.link(tmp_path / "own", tmp_path / "memory.json.lock")
    lock = WriterLock(str(tmp_path / "memory.json.lock"), "memory.json")
    try:
        lock.acquire(1)
        with pytest.raises(StoreAccessError, match=r"memory\.json\.lock: is not the file of a lock"):
            lock.write_note(Note(files.Stamp(1, 2, 3), 4))
        with pytest.raises(StoreAccessError, match="is not the file of a lock"):
            lock.write_swap(1, is_over=False)
    finally:
        lock.release()

    assert (tmp_path / "own").read_text() == "mine\n" * 100


_CUT = """
import os, sys
from jarvis.persistent_memory import MemoryModule
memory = MemoryModule(storage_dir=sys.argv[1], backend_type=sys.argv[2])
for number in range(20):
    with memory.transaction():
        memory.set_user_preference(str(number), {})
        path = next(os.path.join(sys.argv[1], each) for each in os.listdir(sys.argv[1]) if each.endswith(".lock"))
        os.truncate(path, 0)
    os.truncate(path, 10)
    memory.get_user_preferences()
print(len(memory.get_user_preferences()))
"""


@pytest.mark.parametrize("backend_type", ["sqlite", "json"])
def test_a_lock_file_that_is_cut_short_ends_no_process(backend_type: str, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", _CUT, str(tmp_path), backend_type]
    shown = subprocess.run(arguments, capture_output=True, text=True, timeout=60)

    assert (shown.returncode, shown.stdout.strip()) == (0, "20"), shown.stderr


def test_a_copy_of_an_old_store_is_kept_beside_a_link_that_has_its_name(tmp_path: Path) -> None:
    (tmp_path / "memory.json").write_text('{"entries": {}}')
    (tmp_path / "memory.json.first-life").symlink_to(tmp_path / "nowhere")

    with _memory(tmp_path, "json") as memory:
        memory.set_user_preference("theme", {})

    assert (tmp_path / "memory.json.first-life.2").read_text() == '{"entries": {}}'
    assert not (tmp_path / "nowhere").exists()
