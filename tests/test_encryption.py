"""Encrypted stores: opened with their keys and nothing else, never plain in silence, readable by SQLCipher."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from jarvis._disk import files
from jarvis._sqlite import cipher, engine
from jarvis.config import ConfigLoader
from jarvis.container import Container
from jarvis.encryption import envelope, key_file
from jarvis.encryption.data_key import DataKey
from jarvis.encryption.envelope import Opener
from jarvis.errors import (
    CorruptStoreError,
    InvalidSettingError,
    JarvisError,
    KeyUnavailableError,
    NoRecoveryWarning,
    NotEncryptedError,
    ReadOnlyStoreError,
    StoreAccessError,
    StoreError,
    StoreMissingError,
    TransactionError,
    UnsupportedError,
    WrongKeyError,
)
from jarvis.keys import EnvironmentKey, KeyFile, KeyFunction, Passphrase, new_key
from jarvis.persistent_memory import MemoryModule
from jarvis.sqlite_backend import SQLiteBackend
from tests.stores import make
from tests.test_keys import DictKeyring, system_keyring  # noqa: F401  # a fixture

CANARY = "canary-feeds-on-seeds"
WORDS = "correct horse battery staple"


@pytest.fixture(autouse=True)
def _no_key_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JARVIS_KEY", raising=False)


def key() -> bytes:
    return b"k" * 32


def other_key() -> bytes:
    return b"o" * 32


KEYS = [KeyFunction(key)]


def encrypted(directory: Path, **options: Any) -> MemoryModule:
    return MemoryModule(storage_dir=directory, **{"encryption": "required", "keys": KEYS, **options})


def filled(directory: Path, **options: Any) -> list[str]:
    """Make an encrypted store of a few memories, closed."""
    with encrypted(directory, **options) as memory:
        return [
            memory.create_memory("notes", f"{CANARY}-{number}", {"text": CANARY * 20}, "note", tags=[CANARY])
            for number in range(40)
        ]


def content(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(directory.iterdir())}


def test_nothing_that_is_stored_can_be_read_from_the_files(tmp_path: Path) -> None:
    with encrypted(tmp_path) as memory:
        memory.create_memory("notes", CANARY, {CANARY: [CANARY]}, CANARY, CANARY, tags=[CANARY])
        for path in tmp_path.iterdir():
            if not path.name.endswith("-shm"):  # closing a descriptor on it would end the locks of the store
                assert CANARY.encode() not in path.read_bytes(), path.name
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"memory.db", "memory.db.lock", "memory.keys"}
    assert all(CANARY.encode() not in path.read_bytes() for path in tmp_path.iterdir())


def test_another_program_opens_the_file_with_the_key_of_its_pages(tmp_path: Path) -> None:
    sqlcipher = pytest.importorskip("sqlcipher3")
    filled(tmp_path)
    found = key_file.read(str(tmp_path / "memory.keys"))
    assert found is not None
    pages = Opener("", KEYS).open(found, 1).pages

    connection = sqlcipher.connect(str(tmp_path / "memory.db"))
    try:
        connection.execute(f"PRAGMA key = \"x'{pages.hex()}'\"")
        connection.execute(f"PRAGMA cipher_page_size = {cipher.PAGE_BYTES}")
        assert connection.execute("PRAGMA cipher_version").fetchone()[0].startswith("4.")
        assert connection.execute("PRAGMA cipher_integrity_check").fetchall() == []
        rows = connection.execute("SELECT key, json_extract(value, '$.text') FROM memories").fetchall()
    finally:
        connection.close()
    assert sorted(rows) == sorted((f"{CANARY}-{number}", CANARY * 20) for number in range(40))


def test_the_sources_are_tried_wherever_the_store_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", new_key())
    file = KeyFile.create(tmp_path / "key")
    ids = filled(tmp_path / "data", keys=[EnvironmentKey("A_KEY"), file, Passphrase(WORDS)])

    for keys in (
        [],
        [EnvironmentKey("A_KEY")],
        [file],
        [Passphrase(WORDS)],
        [EnvironmentKey("NONE"), Passphrase(WORDS)],
    ):
        for encryption in ("off", "on", "required"):
            with encrypted(tmp_path / "data", keys=keys, encryption=encryption) as memory:
                assert len(memory.search_memories(category="notes")) == len(ids)
    monkeypatch.delenv("A_KEY")
    with encrypted(tmp_path / "data", keys=[]) as memory:
        assert memory.get_memory(ids[0]) is not None, "the key file is left"
    file.path.chmod(0o644)
    with pytest.raises(
        KeyUnavailableError, match=r"A_KEY: it is not set; the key file .*: others may read or write it"
    ):
        encrypted(tmp_path / "data", keys=[]).bootstrap()


def test_a_wrong_key_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    filled(tmp_path)
    before = content(tmp_path)

    for encryption in ("off", "on", "required"):
        for read_only in (False, True):
            memory = encrypted(tmp_path, keys=[KeyFunction(other_key)], encryption=encryption, read_only=read_only)
            for ask in (memory.search_memories, memory.bootstrap, lambda memory=memory: memory.get_memory_by_key("x")):
                with pytest.raises(WrongKeyError, match="the key function other_key does not open slot 1"):
                    ask()
            memory.shutdown()
    with pytest.raises(KeyUnavailableError, match="no source was given; the store opens with slot 1"):
        encrypted(tmp_path, keys=[]).bootstrap()
    assert content(tmp_path) == before


def test_keys_that_are_not_there_are_missed_by_name(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / "memory.keys").rename(tmp_path / "elsewhere")

    with pytest.raises(KeyUnavailableError, match=r"there is no .*memory\.keys; put it back from a backup"):
        encrypted(tmp_path).bootstrap()
    with pytest.raises(KeyUnavailableError, match=r"there is no .*memory\.keys; put it back from a backup"):
        MemoryModule(storage_dir=tmp_path).bootstrap()
    (tmp_path / "elsewhere").rename(tmp_path / "memory.keys")
    assert len(encrypted(tmp_path).search_memories()) == 40


def test_keys_of_another_store_are_refused(tmp_path: Path) -> None:
    filled(tmp_path / "one")
    filled(tmp_path / "two")
    before = content(tmp_path / "one")["memory.db"]
    shutil.copy(tmp_path / "two" / "memory.keys", tmp_path / "one" / "memory.keys")

    with pytest.raises(WrongKeyError, match="one of the two belongs to another store"):
        encrypted(tmp_path / "one").search_memories()
    assert content(tmp_path / "one")["memory.db"] == before


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_foreign_file_of_keys_and_damage_of_the_first_bytes_write_nothing(tmp_path: Path, is_killed: bool) -> None:
    memory = encrypted(tmp_path / "own")
    memory.set_user_preference("theme", {"mode": "dark"})
    if not is_killed:
        memory.shutdown()  # or a log with its index is beside it
    shutil.copytree(tmp_path / "own", tmp_path / "foreign")
    shutil.copytree(tmp_path / "own", tmp_path / "damaged")
    with encrypted(tmp_path / "other") as other:
        other.bootstrap()
    shutil.copy(tmp_path / "other" / "memory.keys", tmp_path / "foreign" / "memory.keys")
    path = tmp_path / "damaged" / "memory.db"
    path.write_bytes(bytes(16) + path.read_bytes()[16:])

    for directory, wrong in ((tmp_path / "foreign", WrongKeyError), (tmp_path / "damaged", CorruptStoreError)):
        before = content(directory)
        for read_only in (False, True):
            with pytest.raises(wrong):
                encrypted(directory, read_only=read_only).get_user_preferences()
            assert content(directory) == before


def test_a_plain_store_is_refused_where_an_encrypted_one_is_required(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with MemoryModule(storage_dir=tmp_path) as memory:
        memory.set_user_preference("theme", {"mode": "dark"})
    before = content(tmp_path)

    with pytest.raises(NotEncryptedError, match=r"call store.encrypt\(\)"):
        encrypted(tmp_path).get_user_preferences()
    assert content(tmp_path) == before
    with caplog.at_level(logging.WARNING), encrypted(tmp_path, encryption="on") as memory:
        assert memory.get_user_preferences() == {"theme": {"mode": "dark"}}
    assert "is plain, though encryption is on" in caplog.text


def test_a_plain_file_in_the_place_of_an_encrypted_one_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    with MemoryModule(storage_dir=tmp_path / "plain") as memory:
        memory.set_user_preference("theme", {"mode": "dark"})
    shutil.copy(tmp_path / "plain" / "memory.db", tmp_path / "memory.db")

    for encryption in ("off", "on", "required"):
        with pytest.raises(NotEncryptedError, match="somebody put another file in its place"):
            encrypted(tmp_path, encryption=encryption).get_user_preferences()
    found = key_file.read(str(tmp_path / "memory.keys"))
    assert found is not None
    key_file.write(str(tmp_path / "memory.keys"), msgspec.structs.replace(found, change="rotate"))
    with pytest.raises(NotEncryptedError, match="somebody put another file in its place"):
        encrypted(tmp_path, encryption="on").get_user_preferences()  # a rotation makes nothing plain


def test_a_driver_that_does_not_encrypt_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain:
        """A connection of plain SQLite, which ignores what it does not know."""

        def __init__(self) -> None:
            self.connection = apsw.Connection(":memory:")

        def execute(self, sql: str, **_: object) -> Any:
            return self.connection.execute("PRAGMA cypher = 'sqlcipher'" if "cipher" in sql else "PRAGMA kee = 1")

    held: Any = Plain()
    with pytest.raises(StoreAccessError, match="the driver does not encrypt"):
        cipher.unlock(held, DataKey.new(), "memory.db")

    monkeypatch.setattr(cipher, "unlock", lambda *_: None)  # as one that answers, and writes plain pages
    with pytest.raises(StoreAccessError, match="was not encrypted, although the driver said so"):
        encrypted(tmp_path).set_user_preference("theme", {"mode": CANARY})
    assert not (tmp_path / "memory.db").exists()
    assert all(CANARY.encode() not in path.read_bytes() for path in tmp_path.iterdir())


def test_what_was_written_begins_with_the_salt_of_its_key(tmp_path: Path) -> None:
    with encrypted(tmp_path) as memory:
        memory.bootstrap()
    found = key_file.read(str(tmp_path / "memory.keys"))
    assert found is not None
    right, path = Opener("", KEYS).open(found, 1), str(tmp_path / "memory.db")
    connection = engine.opened(path, right)
    connection.execute("SELECT 1 FROM sqlite_schema").fetchall()

    cipher.check(connection, engine.beginning_of(path), right, path)
    for beginning in (cipher.PLAIN, b"", DataKey.new().salt):
        with pytest.raises(StoreAccessError, match="was not encrypted, although the driver said so"):
            cipher.check(connection, beginning, right, path)
    connection.close()


def test_stores_whose_names_differ_in_their_ends_do_not_share_keys(tmp_path: Path) -> None:
    names = ("a.db", "a.sqlite", "a.b.db")
    stores = [SQLiteBackend(tmp_path / name, encryption="on", keys=KEYS) for name in names]
    for store in stores:
        store.bootstrap()
    stores[0].rotate((), None)
    stores[2].decrypt(None)

    for name in names:
        assert SQLiteBackend(tmp_path / name, keys=KEYS).list_all() == []


def test_a_store_whose_making_was_cut_off_behind_its_keys_is_made_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyUnavailableError, match="JARVIS_KEY cannot become a slot: it is not set"):
        encrypted(tmp_path / "data", keys=[]).bootstrap()
    with pytest.raises(KeyUnavailableError, match="NONE cannot become a slot"):
        encrypted(tmp_path / "data", keys=[*KEYS, EnvironmentKey("NONE")]).bootstrap()
    assert not list((tmp_path / "data").glob("memory.[dk]*[by]*s"))

    _cut_off_behind_the_keys(tmp_path / "data", monkeypatch)
    made = key_file.read(str(tmp_path / "data" / "memory.keys"))
    assert made is not None
    assert made.change == "create"
    with pytest.raises(WrongKeyError):
        encrypted(tmp_path / "data", keys=[KeyFunction(other_key)]).bootstrap()
    with encrypted(tmp_path / "data", encryption="off") as memory:
        assert memory.search_memories() == []
    assert key_file.read(str(tmp_path / "data" / "memory.keys")) == msgspec.structs.replace(made, change=None)
    assert (tmp_path / "data" / "memory.db").read_bytes()[:16] != cipher.PLAIN


def _cut_off_behind_the_keys(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """End the making of an encrypted store when its keys are there, and it is not."""

    class Killed(BaseException):
        pass

    class System(files.System):
        def link(self, source: str, target: str) -> None:
            if target.endswith(".db"):
                raise Killed
            super().link(source, target)

    memory = encrypted(directory)
    with monkeypatch.context() as patch:
        patch.setattr(files, "system", System())
        with pytest.raises(Killed):
            memory.bootstrap()
    assert (directory / "memory.keys").exists()
    assert not (directory / "memory.db").exists()


def test_a_store_that_is_gone_is_not_made_anew_under_its_keys(tmp_path: Path) -> None:
    filled(tmp_path)
    store = (tmp_path / "memory.db").read_bytes()
    (tmp_path / "memory.db").unlink()
    before = content(tmp_path)

    for has_lock in (True, False):
        if not has_lock:
            (tmp_path / "memory.db.lock").unlink()
            before.pop("memory.db.lock")
        for options in ({}, {"encryption": "off"}, {"encryption": "on"}, {"keys": [KeyFunction(other_key)]}):
            with pytest.raises(StoreMissingError, match=r"keys of an encrypted store are .*put the store back"):
                encrypted(tmp_path, **options).bootstrap()
        after = content(tmp_path)
        after.pop("memory.db.lock", None)
        assert after.items() <= before.items()

    (tmp_path / "memory.db").write_bytes(store)
    assert len(encrypted(tmp_path).search_memories()) == 40


def test_a_store_is_begun_anew_where_its_keys_and_its_lock_are_removed_too(tmp_path: Path) -> None:
    filled(tmp_path)
    for name in ("memory.db", "memory.db.lock", "memory.keys"):
        (tmp_path / name).unlink()

    with encrypted(tmp_path) as memory:
        assert memory.search_memories() == []


def test_a_creation_that_was_cut_off_goes_on_also_where_a_plain_store_was_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MemoryModule(storage_dir=tmp_path).set_user_preference("theme", {})
    for path in tmp_path.glob("memory.db*"):
        if path.name != "memory.db.lock":
            path.unlink()
    _cut_off_behind_the_keys(tmp_path, monkeypatch)

    with encrypted(tmp_path) as memory:
        assert memory.search_memories() == []


def test_keys_that_were_not_settled_tell_of_a_store_by_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _cut_off_behind_the_keys(tmp_path, monkeypatch)
    begun = (tmp_path / "memory.keys").read_bytes()
    filled(tmp_path)
    (tmp_path / "memory.keys").write_bytes(begun)
    (tmp_path / "memory.db").unlink()

    with pytest.raises(StoreMissingError, match="put the store back"):
        encrypted(tmp_path).bootstrap()


def test_a_keyring_alone_is_no_way_back(tmp_path: Path, system_keyring: DictKeyring) -> None:  # noqa: F811  # the fixture
    from jarvis.keys import KeyringKey

    source = KeyringKey.create()
    with pytest.warns(NoRecoveryWarning, match=r"add_key_slot\(Passphrase"):
        filled(tmp_path / "one", keys=[source])
    filled(tmp_path / "two", keys=[source, Passphrase(WORDS)])


def test_settings_encrypt_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", new_key())
    path = tmp_path / "config.yaml"
    path.write_text("storage: {data_dir: data, encryption: on, keys: [{environment: A_KEY}]}")
    container = Container()
    container.get_memory_module(path).set_user_preference("theme", {"mode": CANARY})
    container.shutdown()

    store = tmp_path / "data" / "persistent_memory" / "memory.db"
    assert store.read_bytes()[:16] != cipher.PLAIN
    assert ConfigLoader(path).load().storage.encryption == "on"
    path.write_text("storage: {data_dir: data, backend: json, encryption: required, keys: [{environment: A_KEY}]}")
    with pytest.raises(UnsupportedError, match="'json' has no option 'encryption', 'keys'; postgresql and sqlite have"):
        Container().get_memory_module(path)


def test_processes_share_an_encrypted_store_and_one_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    program = textwrap.dedent(
        f"""
        import os, signal, sys
        from pathlib import Path
        from tests.test_encryption import encrypted
        memory = encrypted(Path({str(tmp_path)!r}))
        for number in range(50):
            memory.create_memory("notes", f"{{sys.argv[1]}}-{{number}}", {{"n": number}}, "note")
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, str(each)]) for each in range(3)]
    assert [writer.wait() for writer in writers] == [-9] * 3
    assert (tmp_path / "memory.db-wal").stat().st_size > 0

    with encrypted(tmp_path) as memory:
        assert len(memory.search_memories(category="notes")) == 150
        with encrypted(tmp_path, read_only=True) as reading:
            assert len(reading.search_memories(category="notes")) == 150


def test_pages_that_fail_under_the_right_key_are_damage(tmp_path: Path) -> None:
    filled(tmp_path)
    store = tmp_path / "memory.db"
    whole = store.read_bytes()
    for place in (3, 20, 4_090, 4_096 * 2 + 77, len(whole) - 5):
        store.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CorruptStoreError):
            encrypted(tmp_path).search_memories(category="notes")
    store.write_bytes(whole)
    assert len(encrypted(tmp_path).search_memories(category="notes")) == 40


def test_an_erasure_searches_what_the_pages_hold(tmp_path: Path) -> None:
    ids = filled(tmp_path)
    memory = encrypted(tmp_path)
    database = memory.backend._database  # type: ignore[attr-defined]  # what the search reads is not to be seen else
    from jarvis._disk.traces import search_files

    assert search_files(database.file.files(), ids, database.file.chunks_of).found >= len(ids)
    receipt = memory.erase_memory(ids[0])
    assert receipt.state == "done"
    assert receipt.searched is not None
    assert receipt.searched.found == 0
    assert search_files(database.file.files(), ids[1:], database.file.chunks_of).found >= len(ids) - 1


def test_no_secret_stands_in_any_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", new_key())
    filled(tmp_path, keys=[EnvironmentKey("A_KEY"), Passphrase(WORDS)])
    found = key_file.read(str(tmp_path / "memory.keys"))
    assert found is not None
    held = Opener("", []).open(found, 1)
    secrets = [os.environ["A_KEY"], WORDS, held.wrapped_content.hex(), held.pages.hex(), CANARY, "words that are wrong"]
    store = (tmp_path / "memory.db").read_bytes()

    import traceback

    shown = []
    (tmp_path / "memory.db").write_bytes(store[:5_000] + b"x" * 500 + store[5_500:])
    for keys in ([], [Passphrase("words that are wrong")], [KeyFunction(other_key)], [EnvironmentKey("NONE")]):
        try:
            encrypted(tmp_path, keys=keys).search_memories()
        except JarvisError as error:
            shown.append("".join(traceback.format_exception(error)) + repr(error))
    assert len(shown) == 4
    for text in shown:
        assert not [secret for secret in secrets if secret in text]


def test_the_driver_answers_as_the_one_that_was_chosen() -> None:
    assert engine.cipher_vfs is None
    assert "multipleciphers-unix" in apsw.vfs_names() or sys.platform != "linux"


# --- the ways to the key -------------------------------------------------------------------------


def test_slots_are_added_and_removed_and_the_store_is_not_touched(tmp_path: Path) -> None:
    filled(tmp_path)
    before = content(tmp_path)["memory.db"]
    memory = encrypted(tmp_path)
    assert memory.store.key_slots() == [(1, "function", "key")]

    assert memory.store.add_key_slot(Passphrase(WORDS)) == 2
    assert [(slot.id, slot.source) for slot in memory.store.key_slots()] == [(1, "function"), (2, "passphrase")]
    memory.store.remove_key_slot(1)
    memory.shutdown()
    assert content(tmp_path)["memory.db"] == before
    assert stat.S_IMODE((tmp_path / "memory.keys").stat().st_mode) == 0o600
    with pytest.raises(KeyUnavailableError, match="it has no slot"):
        encrypted(tmp_path).search_memories()
    with encrypted(tmp_path, keys=[Passphrase(WORDS)]) as again:
        assert len(again.search_memories()) == 40
        with pytest.raises(InvalidSettingError, match="is the last one"):
            again.store.remove_key_slot(2)
        with pytest.raises(InvalidSettingError, match="has no slot 9"):
            again.store.remove_key_slot(9)
        with pytest.raises(InvalidSettingError, match="must be a number"):
            again.store.remove_key_slot("2")  # type: ignore[arg-type]  # what is wrong with it is the point
        with pytest.raises(InvalidSettingError, match="item 1 is no source"):
            again.store.add_key_slot("JARVIS_KEY")  # type: ignore[arg-type]  # what is wrong with it is the point
        with pytest.raises(KeyUnavailableError, match="NONE cannot become a slot"):
            again.store.add_key_slot(EnvironmentKey("NONE"))
        assert len(again.store.key_slots()) == 1


def test_who_may_not_write_or_has_the_wrong_key_changes_no_slot(tmp_path: Path) -> None:
    filled(tmp_path)
    before = content(tmp_path)
    for keys, read_only, kind in (
        ([KeyFunction(other_key)], False, WrongKeyError),
        ([], False, KeyUnavailableError),
        (KEYS, True, ReadOnlyStoreError),
    ):
        memory = encrypted(tmp_path, keys=keys, read_only=read_only)
        with pytest.raises(kind):
            memory.store.add_key_slot(Passphrase(WORDS))
        with pytest.raises(kind):
            memory.store.remove_key_slot(1)
        assert len(memory.store.key_slots()) == 1, "what ways there are is no secret"
        memory.shutdown()
    assert content(tmp_path) == before

    memory = encrypted(tmp_path)
    with memory.transaction(), pytest.raises(TransactionError, match="inside a transaction"):
        memory.store.add_key_slot(Passphrase(WORDS))


def test_a_plain_store_has_no_slots(tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path)
    memory.bootstrap()
    assert memory.store.key_slots() == []
    with pytest.raises(NotEncryptedError, match=r"call store.encrypt\(\)"):
        memory.store.add_key_slot(KeyFunction(key))
    readable = MemoryModule(storage_dir=tmp_path, backend_type="json")
    with pytest.raises(UnsupportedError, match="'json' has no encryption; backends that have it: sqlite"):
        readable.store.key_slots()


def test_slots_that_processes_change_at_once_are_all_kept(tmp_path: Path) -> None:
    filled(tmp_path)
    program = textwrap.dedent(
        f"""
        import sys
        from pathlib import Path
        from jarvis.keys import KeyFunction
        from tests.test_encryption import encrypted
        memory = encrypted(Path({str(tmp_path)!r}))
        for number in range(5):
            memory.store.add_key_slot(KeyFunction(lambda: b"x" * 32, f"{{sys.argv[1]}}-{{number}}"))
        """
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, str(each)]) for each in range(3)]
    assert [writer.wait() for writer in writers] == [0] * 3
    slots = encrypted(tmp_path).store.key_slots()
    assert len({slot.id for slot in slots}) == len({slot.hint for slot in slots}) == 16


# --- backups -------------------------------------------------------------------------------------


def test_a_lost_directory_comes_back_from_its_backup_and_the_passphrase(tmp_path: Path) -> None:
    data, saved = tmp_path / "data", tmp_path / "saved"
    ids = filled(data, keys=[*KEYS, Passphrase(WORDS)])
    with encrypted(data) as memory:
        memory.update_memory(ids[0], {"text": "changed"})
        copy = memory.store.back_up(saved)
        memory.update_memory(ids[0], {"text": "later"})
    assert copy == saved / "memory.db"
    assert {path.name for path in saved.iterdir()} == {"memory.db", "memory.keys"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in saved.iterdir())
    assert all(CANARY.encode() not in path.read_bytes() for path in saved.iterdir())

    shutil.rmtree(data)
    shutil.copytree(saved, data)
    with pytest.raises(KeyUnavailableError):
        encrypted(data, keys=[]).bootstrap()
    with encrypted(data, keys=[Passphrase(WORDS)]) as memory:
        assert len(memory.search_memories(category="notes")) == 40
        found = memory.get_memory(ids[0])
        assert found is not None
        assert found.value == {"text": "changed"}
        assert memory.get_history(ids[0])[0].entry.value == {"text": CANARY * 20}


@pytest.mark.parametrize("backend", ["sqlite", "json"])
def test_a_backup_is_one_state_though_others_write_on(tmp_path: Path, backend: str) -> None:
    data = tmp_path / "data"
    program = textwrap.dedent(
        f"""
        import sys
        from jarvis.persistent_memory import MemoryModule
        memory = MemoryModule(storage_dir={str(data)!r}, backend_type={backend!r}, durability="normal")
        number = 0
        while True:
            number += 1
            with memory.transaction():
                memory.set_user_preference("one", {{"n": number}})
                memory.set_user_preference("two", {{"n": number}})
            print(number, flush=True)
        """
    )
    numbers = []
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        memory = MemoryModule(storage_dir=data, backend_type=backend)
        for each in range(15):
            memory.store.back_up(tmp_path / str(each))
            held = MemoryModule(storage_dir=tmp_path / str(each), backend_type=backend).get_user_preferences()
            assert held["one"] == held["two"]
            numbers.append(held["one"]["n"])
        writer.kill()
    assert numbers == sorted(numbers)
    assert numbers[-1] > numbers[0]


def test_a_backup_takes_no_other_ones_place(tmp_path: Path) -> None:
    filled(tmp_path / "data")
    memory = encrypted(tmp_path / "data")
    memory.store.back_up(tmp_path / "saved")
    before = content(tmp_path / "saved")
    with pytest.raises(StoreAccessError, match="is there already"):
        memory.store.back_up(tmp_path / "saved")
    with pytest.raises(StoreAccessError, match="is there already"):
        memory.store.back_up(tmp_path / "data")
    assert content(tmp_path / "saved") == before
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        memory.store.back_up(tmp_path / "file" / "below")
    with encrypted(tmp_path / "data", read_only=True) as reading:
        assert reading.store.back_up(tmp_path / "again").exists()


# --- old stores ----------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [KeyFunction(make.sealed_key), Passphrase(make.WORDS)], ids=str)
def test_an_encrypted_store_that_was_made_before_opens(tmp_path: Path, source: Any) -> None:
    for suffix in ("db", "keys"):
        shutil.copy(Path(__file__).parent / "stores" / f"sealed-5.{suffix}", tmp_path / f"memory.{suffix}")

    with pytest.raises(WrongKeyError):
        encrypted(tmp_path, keys=[KeyFunction(other_key)]).bootstrap()
    for read_only in (True, False):
        with encrypted(tmp_path, keys=[source], read_only=read_only) as memory:
            assert memory.get_user_preferences() == {"theme": {"mode": "dark"}}
            found = memory.get_memory_by_key("theme")
            assert found is not None
            assert memory.get_history(found.id)[0].entry.value == {"mode": "light"}
            assert memory.search_memories(where={"text": make.LONG}, tags=["x"])[0].key == "long"
    with encrypted(tmp_path, keys=[KeyFunction(make.sealed_key), Passphrase(make.WORDS)]) as memory:
        assert memory.store.rotate_key().rows["entries"] == 2


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_an_encrypted_store_of_an_earlier_version_is_migrated(tmp_path: Path, version: int) -> None:
    old = Path(__file__).parent / "stores" / f"version-{version}.db"
    (tmp_path / "plain").mkdir()
    shutil.copy(old, tmp_path / "plain" / "memory.db")
    with MemoryModule(storage_dir=tmp_path / "plain", read_only=True) as memory:
        expected = [(entry.id, entry.version, entry.value) for entry in memory.list_memories()]
    found, held = envelope.make(Opener("", KEYS), KEYS, None)
    key_file.write(str(tmp_path / "memory.keys"), found)
    shutil.copy(old, tmp_path / "old.db")
    connection = apsw.Connection(f"file:{tmp_path}/old.db", flags=apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE)
    connection.execute(f"PRAGMA journal_mode = DELETE; PRAGMA page_size = {cipher.PAGE_BYTES}").fetchall()
    connection.execute("VACUUM INTO ?", (cipher.address(str(tmp_path / "memory.db"), held),))
    connection.close()

    with encrypted(tmp_path, read_only=True) as reading:
        assert [(entry.id, entry.version, entry.value) for entry in reading.list_memories()] == expected
    with encrypted(tmp_path) as memory:
        assert [(entry.id, entry.version, entry.value) for entry in memory.list_memories()] == expected
        memory.set_user_preference("theme", {"mode": "dark"})
    with encrypted(tmp_path) as memory:
        assert len(memory.list_memories()) == len(expected) + 1


def test_the_copy_that_is_kept_of_the_first_life_goes_along(tmp_path: Path) -> None:
    from tests.safety import model

    state = model.first_life_store(tmp_path, "sqlite", 20)
    memory = MemoryModule(storage_dir=tmp_path)
    assert memory.count_memories() == len(state)
    kept = tmp_path / "memory.db.first-life"
    assert b"SQLite" in kept.read_bytes()[:16]
    before = apsw.Connection(str(kept)).execute("SELECT * FROM memories ORDER BY id").fetchall()

    memory.store.encrypt(KEYS)
    assert b"SQLite" not in kept.read_bytes()[:16]
    assert memory.store.key_slots()
    salt = kept.read_bytes()[:16]
    memory.store.rotate_key()
    assert kept.read_bytes()[:16] not in (salt, cipher.PLAIN)
    with encrypted(tmp_path) as again:
        assert again.count_memories() == len(state)
    memory.store.decrypt()
    assert apsw.Connection(str(kept)).execute("SELECT * FROM memories ORDER BY id").fetchall() == before
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert not (tmp_path / "memory.keys").exists()
    memory.store.encrypt(KEYS)
    memory.erase_memory("none")
    memory.create_memory("notes", "gone", {}, "note")
    assert memory.clear_all(erase=True)
    assert not kept.exists()


# --- turned on, off and over ---------------------------------------------------------------------


def test_a_store_is_encrypted_rekeyed_and_made_plain_with_its_past_and_its_feed(tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path)
    theme = memory.set_user_preference("theme", {"mode": "light"})
    cursor = memory.newest_cursor()
    memory.set_user_preference("theme", {"mode": CANARY}, reason="a whim")
    memory.for_namespace("alice").set_user_preference("theme", {"mode": "alice's"})
    code = memory.set_user_preference("code", {"door": 4711}, ttl=3600)

    def check() -> None:
        assert memory.get_history(theme)[0].entry.value == {"mode": "light"}
        assert next(change.reason for change in memory.changes(cursor)) == "a whim"
        assert memory.for_namespace("alice").get_user_preferences() == {"theme": {"mode": "alice's"}}
        held = memory.get_memory(code)
        assert held is not None
        assert held.expires_at is not None

    told: list[Any] = []
    done = memory.store.encrypt(KEYS, progress=told.append)
    assert done is not None
    assert done.rows["entries"] == 3
    assert {each.stage for each in told} == {"copy", "index", "verify", "swap"} | {each.stage for each in told}
    check()
    assert CANARY.encode() not in (tmp_path / "memory.db").read_bytes()
    first = (tmp_path / "memory.db").read_bytes()[:16]
    assert memory.store.rotate_key().digest
    check()
    assert (tmp_path / "memory.db").read_bytes()[:16] not in (first, cipher.PLAIN)
    with pytest.raises(InvalidSettingError, match="opened with encryption='required'"):
        encrypted(tmp_path).store.decrypt()
    assert memory.store.decrypt()
    check()
    assert {path.name for path in tmp_path.glob("memory.keys*")} == set()


def test_what_cannot_be_done_says_so_and_does_nothing(tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path)
    memory.set_user_preference("theme", {"mode": "dark"})
    with pytest.raises(KeyUnavailableError, match="JARVIS_KEY cannot become a slot"):
        memory.store.encrypt()
    with pytest.raises(NotEncryptedError, match="is plain already"):
        memory.store.decrypt()
    with pytest.raises(NotEncryptedError, match=r"call store.encrypt\(\)"):
        memory.store.rotate_key()
    with memory.transaction(), pytest.raises(TransactionError):
        memory.store.encrypt(KEYS)
    with MemoryModule(storage_dir=tmp_path, read_only=True) as reading, pytest.raises(ReadOnlyStoreError):
        reading.store.encrypt(KEYS)
    readable = MemoryModule(storage_dir=tmp_path, backend_type="json")
    with pytest.raises(UnsupportedError, match="'json' has no encryption; backends that have it: sqlite"):
        readable.store.encrypt(KEYS)
    assert not (tmp_path / "memory.keys").exists()

    memory.store.encrypt([*KEYS, Passphrase(WORDS)])
    with pytest.raises(InvalidSettingError, match="is encrypted already"):
        memory.store.encrypt(KEYS)
    before = (tmp_path / "memory.keys").read_bytes()
    with encrypted(tmp_path) as other, pytest.raises(KeyUnavailableError, match=r"nothing given opens slot 2"):
        other.store.rotate_key()
    with encrypted(tmp_path) as other, pytest.raises(KeyUnavailableError, match=r"nothing given opens slot 2"):
        other.store.rotate_key(keys=[Passphrase("not those words")])
    assert (tmp_path / "memory.keys").read_bytes() == before
    with encrypted(tmp_path) as other:
        assert other.store.rotate_key(keys=[Passphrase(WORDS)])


class StopError(Exception):
    """Breaks a change off."""


def stop_at(stage: str) -> Any:
    def report(progress: Any) -> None:
        if progress.stage == stage:
            raise StopError

    return report


def test_who_begins_again_with_other_keys_gets_those(tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path)
    memory.set_user_preference("theme", {"mode": "dark"})
    with pytest.raises(StopError):
        memory.store.encrypt([Passphrase("a passphrase with a tpyo")], progress=stop_at("verify"))
    memory.shutdown()
    again = MemoryModule(storage_dir=tmp_path)
    assert again.store.encrypt([Passphrase(WORDS)])
    assert [slot.source for slot in again.store.key_slots()] == ["passphrase"]
    assert encrypted(tmp_path, keys=[Passphrase(WORDS)]).get_user_preferences() == {"theme": {"mode": "dark"}}


@pytest.mark.parametrize("stage", ["copy", "index", "verify", "swap"])
def test_a_change_that_is_broken_off_is_gone_on_with_or_called_off(tmp_path: Path, stage: str) -> None:
    memory = MemoryModule(storage_dir=tmp_path)
    with memory.transaction():
        for number in range(3_000):
            memory.create_memory("notes", f"n{number}", {"n": number}, "note")

    def count() -> None:
        assert memory.count_memories() == 3_000
        with MemoryModule(storage_dir=tmp_path, keys=KEYS) as other:
            assert other.count_memories() == 3_000

    with pytest.raises(StopError):
        memory.store.encrypt(KEYS, progress=stop_at(stage))
    count()
    assert memory.store.decrypt() is None, "called off"
    assert {path.name for path in tmp_path.iterdir()} <= {
        "memory.db",
        "memory.db-wal",
        "memory.db-shm",
        "memory.db.lock",
    }
    with pytest.raises(StopError):
        memory.store.encrypt(KEYS, progress=stop_at(stage))
    done = memory.store.encrypt(progress=None)
    assert done is not None
    assert stage == "copy" or done.resumed
    count()
    with pytest.raises(StopError):
        memory.store.decrypt(progress=stop_at(stage))
    count()
    assert memory.store.encrypt() is None, "called off"
    with pytest.raises(StopError):
        memory.store.rotate_key(progress=stop_at(stage))
    found = key_file.read(str(tmp_path / "memory.keys"))
    assert found is not None
    assert set(found.keys) == {1, 2}, "both until it is done"
    count()
    memory.store.add_key_slot(Passphrase(WORDS))
    assert memory.store.rotate_key().rows["entries"] == 3_000
    found = key_file.read(str(tmp_path / "memory.keys"))
    assert found is not None
    assert (set(found.keys), len(found.slots)) == ({2}, 2)
    count()
    with pytest.raises(StopError):
        memory.store.rotate_key(progress=stop_at(stage))
    assert memory.store.decrypt(), "a rotation is called off by it"
    count()
    assert {path.name for path in tmp_path.glob("*keys*")} == set()
