"""Changes of a store's keys that meet: whoever comes second, the store keeps the key that it has."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jarvis._sqlite import cipher, engine
from jarvis._sqlite.database import Database
from jarvis._sqlite.replace import move
from jarvis._sqlite.store_file import StoreFile
from jarvis.encryption import key_file
from jarvis.encryption.envelope import Opener
from jarvis.errors import (
    InvalidSettingError,
    KeyUnavailableError,
    StoreAccessError,
    StoreBusyError,
    WrongKeyError,
)
from jarvis.keys import EnvironmentKey, KeyFunction
from jarvis.model.rewriting import RewriteProgress
from jarvis.persistent_memory import MemoryModule
from tests.safety import model
from tests.test_encryption import KEYS, encrypted, key, other_key

HELD = {"theme": {"mode": "dark"}}


class BrokenOff(BaseException):
    """What a change is broken off with, as by a signal."""


def break_off(_: object) -> None:
    raise BrokenOff


def opened(directory: Path) -> MemoryModule:
    return MemoryModule(storage_dir=directory, keys=KEYS)


def begun(directory: Path, *, plain: bool) -> tuple[MemoryModule, MemoryModule]:
    """Return two modules of a new store, plain or encrypted."""
    one = opened(directory) if plain else encrypted(directory, encryption="on")
    one.set_user_preference("theme", {"mode": "dark"})
    return one, opened(directory)


def once_before(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, act: Callable[[], object]) -> None:
    """Let something happen before the first call of a function."""
    real = getattr(owner, name)
    was_called: list[bool] = []

    def called(*arguments: Any, **options: Any) -> Any:
        if not was_called:
            was_called.append(True)
            act()
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, called)


def broken_off(verb: Callable[..., object]) -> None:
    with pytest.raises(BrokenOff):
        verb(progress=break_off)


def test_of_two_rotations_that_begin_at_once_both_use_the_key_that_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = begun(tmp_path, plain=False)
    once_before(
        monkeypatch, Database, "locked", lambda: broken_off(other.store.rotate_key)
    )  # the new key is made by then

    one.store.rotate_key()

    for memory in (one, other, opened(tmp_path)):
        assert memory.get_user_preferences() == HELD


def test_a_change_that_somebody_ends_is_not_called_off_behind_their_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again: Callable[[MemoryModule], object]
    for name, verb, again in (
        ("encrypt", "encrypt", lambda memory: memory.store.decrypt()),
        ("rotate", "rotate_key", lambda memory: memory.store.decrypt()),
        ("anew", "encrypt", lambda memory: memory.store.encrypt([KeyFunction(other_key)])),
        ("decrypt", "decrypt", lambda memory: memory.store.rotate_key()),
    ):
        one, other = begun(tmp_path / name, plain=verb == "encrypt")
        broken_off(getattr(other.store, verb))
        with monkeypatch.context() as patch:
            once_before(patch, move, "abandon", getattr(other.store, verb))
            with pytest.raises(StoreBusyError, match="somebody else has just changed the keys"):
                again(one)

        assert opened(tmp_path / name).get_user_preferences() == HELD, name
        assert (tmp_path / name / "memory.keys").exists() == (name != "decrypt")


def test_a_change_whose_process_was_killed_behind_the_swap_is_not_called_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = begun(tmp_path, plain=False)
    broken_off(other.store.rotate_key)
    with monkeypatch.context() as patch:
        patch.setattr(StoreFile, "settle_keys", lambda _: None)
        once_before(patch, move, "abandon", other.store.rotate_key)
        with pytest.raises(StoreBusyError, match="somebody else has just changed the keys"):
            one.store.decrypt()

    assert opened(tmp_path).get_user_preferences() == HELD


@pytest.mark.parametrize("verb", ["encrypt", "rotate_key", "decrypt"])
def test_a_change_that_is_called_off_before_it_begins_to_copy_comes_to_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    one, other = begun(tmp_path, plain=verb == "encrypt")

    def call_off() -> None:
        if verb == "encrypt":
            other.store.decrypt()
            return
        if verb == "rotate_key":
            broken_off(other.store.decrypt)
        other.store.encrypt()

    with monkeypatch.context() as patch:
        once_before(patch, move, "move", call_off)
        with pytest.raises(StoreBusyError, match="was changed by somebody else meanwhile"):
            getattr(one.store, verb)()

    assert opened(tmp_path).get_user_preferences() == HELD
    assert not list(tmp_path.glob(".memory.db.moving*")), "nothing of the copy stays, nor is it noted what changes"
    getattr(one.store, verb)()
    assert opened(tmp_path).get_user_preferences() == HELD


def test_a_number_that_comes_to_another_key_is_not_taken_for_the_first(tmp_path: Path) -> None:
    one, other = begun(tmp_path, plain=False)
    broken_off(one.store.rotate_key)
    other.store.add_key_slot(KeyFunction(other_key))  # and so it has seen the second key
    broken_off(one.store.decrypt)
    one.store.encrypt()  # the rotation was called off, and then the decryption
    one.store.rotate_key(keys=[KeyFunction(other_key)])

    assert other.get_user_preferences() == HELD
    other.store.add_key_slot(KeyFunction(other_key, name="a third"))
    assert other.store.rotate_key(keys=[KeyFunction(other_key)]).rows["entries"] == 1


def test_a_source_that_had_no_key_to_give_does_not_spoil_the_next_call(tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path)
    memory.set_user_preference("theme", {"mode": "dark"})
    with pytest.raises(KeyUnavailableError, match="NOT_THERE cannot become a slot"):
        memory.store.encrypt([EnvironmentKey("NOT_THERE")])

    memory.store.encrypt([KeyFunction(key)])

    assert [slot.source for slot in memory.store.key_slots()] == ["function"]
    assert memory.get_user_preferences() == HELD


def test_the_key_of_a_kept_copy_is_not_given_up_with_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model.first_life_store(tmp_path, "sqlite", 5)
    memory = opened(tmp_path)
    memory.store.encrypt()
    memory.store.back_up(tmp_path / "saved")
    with monkeypatch.context() as patch:
        patch.setattr(StoreFile, "settle_keys", lambda _: None)  # as if killed before that
        memory.store.rotate_key()
    memory.shutdown()
    (tmp_path / "saved" / "memory.db").replace(tmp_path / "memory.db")  # the old key's
    (tmp_path / "memory.db.lock").unlink()

    with pytest.raises(StoreBusyError):
        opened(tmp_path).store.decrypt()
    memory = opened(tmp_path)
    memory.store.rotate_key()
    memory.store.decrypt()
    assert memory.count_memories() == 5
    assert (tmp_path / "memory.db.first-life").read_bytes()[:16] == cipher.PLAIN


def test_a_copy_that_is_not_encrypted_does_not_take_the_place_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, _ = begun(tmp_path, plain=True)
    real = engine.beginning_of
    monkeypatch.setattr(engine, "beginning_of", lambda path: cipher.PLAIN if path.endswith(".moving") else real(path))

    with pytest.raises(StoreAccessError, match="was not written as it was to be"):
        memory.store.encrypt()
    assert opened(tmp_path).get_user_preferences() == HELD


def test_who_removes_the_own_way_to_the_key_has_none_at_the_next_opening(tmp_path: Path) -> None:
    memory = encrypted(tmp_path, keys=[KeyFunction(key)])
    memory.store.add_key_slot(KeyFunction(other_key))
    memory.store.remove_key_slot(1)
    memory.shutdown()

    with pytest.raises(WrongKeyError):
        memory.get_user_preferences()
    assert encrypted(tmp_path, keys=[KeyFunction(other_key)]).get_user_preferences() == {}


def test_what_is_no_list_of_sources_is_told(tmp_path: Path) -> None:
    memory = encrypted(tmp_path)
    wrong: Any
    for wrong in (None, KeyFunction(key), "words and words", {1}):
        with pytest.raises(InvalidSettingError, match="keys must be a list of sources"):
            memory.store.encrypt(wrong)
        with pytest.raises(InvalidSettingError, match="keys must be a list of sources"):
            memory.store.rotate_key(keys=wrong)


def test_an_encrypted_store_without_its_keys_does_not_look_plain(tmp_path: Path) -> None:
    encrypted(tmp_path).bootstrap()
    (tmp_path / "memory.keys").rename(tmp_path / "elsewhere")

    with pytest.raises(KeyUnavailableError, match="its keys are missing"):
        encrypted(tmp_path).store.key_slots()


def test_the_key_is_in_no_log_of_sqlite_where_a_kept_copy_cannot_be_written(tmp_path: Path) -> None:
    model.first_life_store(tmp_path, "sqlite", 5)
    program = textwrap.dedent(
        f"""
        import logging, os, sys, traceback
        import apsw.ext
        logging.basicConfig(stream=sys.stdout, level=0)
        apsw.ext.log_sqlite(level=logging.DEBUG)
        from jarvis._disk import files
        from jarvis.errors import StoreError
        from jarvis.keys import KeyFunction
        from jarvis.persistent_memory import MemoryModule

        class OutOfDescriptors(files.System):
            def open(self, path, flags):
                descriptor = super().open(path, flags)
                if path.endswith(".tmp") and "memory.db" in path:
                    os.unlink(path), os.mkdir(path)
                return descriptor

        memory = MemoryModule(storage_dir={str(tmp_path)!r})
        memory.bootstrap()
        files.system = OutOfDescriptors()
        try:
            memory.store.encrypt([KeyFunction(lambda: b"k" * 32)])
        except StoreError as error:
            print(error, repr(error.__context__), repr(error.__cause__))
            traceback.print_exc(file=sys.stdout)
        """
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found = key_file.read(str(tmp_path / "memory.keys"))
    assert found is not None
    pages = Opener("", KEYS).open(found, 1).pages.hex()

    assert "cannot rewrite the kept copy" in shown.stdout
    for spoken in (pages, pages.encode().hex(), f"x'{pages}".encode().hex()):
        assert spoken not in (shown.stdout + shown.stderr).lower()


@pytest.mark.parametrize("stage", ["copy", "index", "verify", "swap"])
@pytest.mark.parametrize("verb", ["encrypt", "decrypt", "rotate_key"])
def test_an_erasure_behind_a_change_that_was_broken_off_is_finished(verb: str, stage: str, tmp_path: Path) -> None:
    secret = "QWERTZUIOP123"
    memory, _ = begun(tmp_path, plain=verb == "encrypt")
    with memory.transaction():
        for number in range(400):
            memory.create_memory("secrets", str(number), {"text": secret * 60}, "secret")

    def break_at(progress: RewriteProgress) -> None:
        if progress.stage == stage:
            raise BrokenOff

    with pytest.raises(BrokenOff):
        getattr(memory.store, verb)(progress=break_at)
    receipt = memory.erase_memories(category="secrets")
    memory.shutdown()

    assert receipt.state == "done"
    assert [path.name for path in _files_of(tmp_path) if secret.encode() in path.read_bytes()] == []
    assert sum(path.stat().st_size for path in _files_of(tmp_path)) < 200_000
    assert not any(".moving" in path.name for path in _files_of(tmp_path))
    getattr(memory.store, verb)()
    assert memory.get_user_preferences() == HELD


def _files_of(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]
