"""Where keys come from, and the file that wraps the store's own key for each of them."""

from __future__ import annotations

import base64
import contextlib
import hmac
import os
import pickle
import stat
import subprocess
import sys
from collections.abc import Iterator
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import keyring
import keyring.backend
import keyring.errors
import msgspec
import pytest

from jarvis.config import StorageConfig
from jarvis.encryption import envelope, key_file
from jarvis.encryption.data_key import DataKey
from jarvis.encryption.envelope import Envelope, Opener, Slot
from jarvis.errors import (
    CorruptStoreError,
    InvalidSettingError,
    KeyUnavailableError,
    StoreAccessError,
    StoreTooNewError,
    WrongKeyError,
)
from jarvis.keys import (
    EnvironmentKey,
    KeyFile,
    KeyFunction,
    KeyringKey,
    KeySource,
    Passphrase,
    SecretUnavailableError,
    new_key,
    source_at,
)
from jarvis.model.options import source_from_setting, sources_of
from jarvis.persistent_memory import MemoryModule

WORDS = "correct horse battery staple"


@pytest.fixture
def variable(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("A_KEY", new_key())
    return "A_KEY"


class DictKeyring(keyring.backend.KeyringBackend):
    """A keyring without an operating system."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # the package has no types there
        self.held: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.held[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.held[service, username]


@pytest.fixture
def system_keyring() -> Iterator[DictKeyring]:
    before = keyring.get_keyring()
    ours = DictKeyring()
    keyring.set_keyring(ours)
    yield ours
    keyring.set_keyring(before)


def test_a_variable_gives_its_key(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(EnvironmentKey(variable).secret()) == 32

    for bad in ("", "short", base64.b64encode(b"31 bytes").decode(), "schlüssel", new_key()[:-1]):
        monkeypatch.setenv(variable, bad)
        with pytest.raises(SecretUnavailableError, match="base64 text of 32 bytes") as caught:
            EnvironmentKey(variable).secret()
        assert not bad or bad not in str(caught.value)
    monkeypatch.delenv(variable)
    with pytest.raises(SecretUnavailableError, match="not set"):
        EnvironmentKey(variable).secret()


def test_a_key_file_is_made_for_its_owner_and_refused_when_others_can_read_it(tmp_path: Path) -> None:
    source = KeyFile.create(tmp_path / "key")
    assert stat.S_IMODE(source.path.stat().st_mode) == 0o600
    held = source.secret()
    with pytest.raises(FileExistsError):
        KeyFile.create(source.path)
    assert KeyFile(source.path).secret() == held

    for mode in (0o640, 0o604, 0o620, 0o602, 0o610):
        source.path.chmod(mode)
        with pytest.raises(SecretUnavailableError, match="chmod 600"):
            source.secret()


def test_a_key_file_may_hold_bytes_or_text_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "key"
    for content, key in ((b"k" * 32, b"k" * 32), (base64.b64encode(b"t" * 32) + b"\r\n", b"t" * 32)):
        path.write_bytes(content)
        path.chmod(0o600)
        assert KeyFile(path).secret() == key
    for content in (b"", b"k" * 31, b"k" * 33, b"\xff" * 44, b"k" * 5_000):
        path.write_bytes(content)
        with pytest.raises(SecretUnavailableError, match="32 bytes"):
            KeyFile(path).secret()
    with pytest.raises(SecretUnavailableError, match="cannot be read"):
        KeyFile(tmp_path / "none").secret()
    with pytest.raises(SecretUnavailableError, match="no regular file"):
        KeyFile(tmp_path).secret()


def test_a_keyring_gives_the_key_that_was_put_into_it(system_keyring: DictKeyring) -> None:
    with pytest.raises(SecretUnavailableError, match="no such entry"):
        KeyringKey("ours", "me").secret()
    source = KeyringKey.create("ours", "me")
    assert source.secret() == base64.b64decode(system_keyring.held["ours", "me"])
    with pytest.raises(InvalidSettingError, match="there already"):
        KeyringKey.create("ours", "me")
    system_keyring.held["ours", "me"] = "nonsense"
    with pytest.raises(SecretUnavailableError, match="base64 text of 32 bytes"):
        source.secret()


def test_a_machine_without_a_keyring_says_so() -> None:
    from keyring.backends.fail import Keyring

    before = keyring.get_keyring()
    keyring.set_keyring(Keyring())  # type: ignore[no-untyped-call]  # the package has no types there
    try:
        with pytest.raises(SecretUnavailableError, match="does not answer"):
            KeyringKey().secret()
        with pytest.raises(InvalidSettingError, match="does not answer"):
            KeyringKey.create()
    finally:
        keyring.set_keyring(before)


def test_a_passphrase_is_the_same_however_its_letters_are_typed() -> None:
    assert Passphrase("Schlüsselwort").secret() == Passphrase("Schlu\u0308sselwort").secret()
    assert Passphrase(lambda: WORDS).secret() == WORDS.encode()

    for bad in ("", "seven77", "\ud800" * 9):
        with pytest.raises(InvalidSettingError, match="passphrase must be"):
            Passphrase(bad)
        with pytest.raises(SecretUnavailableError, match="passphrase must be"):
            Passphrase(lambda bad=bad: bad).secret()  # type: ignore[misc]  # mypy infers no type for it


def test_a_function_gives_a_key_or_says_that_it_failed_without_its_words() -> None:
    def leaking() -> bytes:
        raise RuntimeError(WORDS)

    assert KeyFunction(lambda: b"k" * 32, "kms").secret() == b"k" * 32
    for function in (leaking, lambda: b"short", lambda: "text" * 8, lambda: None):
        with pytest.raises(SecretUnavailableError) as caught:
            KeyFunction(function).secret()  # type: ignore[arg-type]  # what is wrong with them is the point
        assert WORDS not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
    with pytest.raises(SecretUnavailableError, match="asking for it failed"):
        Passphrase(leaking).secret()  # type: ignore[arg-type]  # it never returns


def test_no_representation_shows_a_secret(variable: str) -> None:
    key = DataKey.new()
    shown = [repr(Passphrase(WORDS)), str(Passphrase(WORDS)), repr(key), str(key), repr(EnvironmentKey(variable))]
    shown += [repr(KeyFunction(lambda: b"k" * 32)), repr(StorageConfig(keys=[Passphrase(WORDS)]))]
    for text in shown:
        assert WORDS not in text
        assert os.environ[variable] not in text
        assert key.wrapped_content.hex() not in text
    with pytest.raises(TypeError):
        pickle.dumps(key)


def test_what_a_setting_may_say_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORDS", WORDS)
    found = StorageConfig(
        encryption="required",
        keys=[
            {"environment": "A_KEY"},
            {"file": "~/key"},
            {"keyring": "ours"},
            {"passphrase_environment": "WORDS"},
            KeyFunction(lambda: b"k" * 32),
        ],
    ).keys
    assert [source.kind for source in found] == ["environment", "file", "keyring", "passphrase", "function"]
    assert found[3].secret() == WORDS.encode()
    assert str(found[3]) == "the passphrase in WORDS"
    assert not str(found[1].hint).startswith("~")

    unfit: list[Any] = [
        ["JARVIS_KEY"],
        [{"vault": "x"}],
        [{"environment": 1}],
        [{}],
        [{"file": "a", "keyring": "b"}],
        "x",
        [int],
    ]
    for bad in unfit:
        with pytest.raises(InvalidSettingError, match=r"storage\.keys"):
            StorageConfig(keys=bad)
    assert [StorageConfig(encryption=held).encryption for held in (True, False, "on", "off")] == ["on", "off"] * 2
    with pytest.raises(InvalidSettingError, match=r"storage\.encryption must be 'off', 'on' or 'required'"):
        StorageConfig(encryption="maybe")  # type: ignore[arg-type]  # what is wrong with it is the point


def test_sources_are_found_again_by_what_a_slot_says(tmp_path: Path) -> None:
    for source in (EnvironmentKey("A"), KeyFile(tmp_path / "key"), KeyringKey("a/b", "c")):
        found = source_at(source.kind, source.hint)
        assert repr(found) == repr(source)
    assert source_at("passphrase", None) is None
    assert source_at("function", "kms") is None
    assert [type(each) for each in sources_of([lambda: b"k" * 32, Passphrase(WORDS)])] == [KeyFunction, Passphrase]
    with pytest.raises(InvalidSettingError, match="call it to make a source"):
        sources_of([EnvironmentKey])
    with pytest.raises(InvalidSettingError, match="there is no source"):
        source_from_setting({"tape": "x"})


# --- the envelope --------------------------------------------------------------------------------


def made(path: Path, *sources: KeySource) -> tuple[Envelope, DataKey]:
    found, key = envelope.make(Opener(str(path), sources), sources, None)
    key_file.write(str(path), found)
    read = key_file.read(str(path))
    assert read == found
    return found, key


def test_each_slot_opens_the_one_key(tmp_path: Path, variable: str, system_keyring: DictKeyring) -> None:
    path = tmp_path / "memory.keys"
    sources: list[Any] = [
        EnvironmentKey(variable),
        KeyFile.create(tmp_path / "key"),
        KeyringKey.create(),
        Passphrase(WORDS),
        KeyFunction(lambda: b"k" * 32, "kms"),
    ]
    found, key = made(path, *sources)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for source in sources:
        assert Opener(str(path), [source]).open(found, 1).pages == key.pages
    assert Opener(str(path), []).open(found, 1).pages == key.pages, "the slots say where to look"
    text = path.read_text()
    for secret in (*(source.secret() for source in sources), key.wrapped_content, key.pages):
        assert secret.hex() not in text
        assert base64.b64encode(secret).decode() not in text


def test_a_wrong_key_and_no_key_are_told_apart_and_named(tmp_path: Path, variable: str) -> None:
    path = tmp_path / "memory.keys"
    found, _ = made(path, EnvironmentKey(variable), Passphrase(WORDS))
    before = path.read_bytes()

    os.environ[variable] = new_key()
    with pytest.raises(WrongKeyError, match=f"the environment variable {variable} does not open slot 1") as wrong:
        Opener(str(path), []).open(found, 1)
    assert os.environ[variable] not in str(wrong.value)
    with pytest.raises(WrongKeyError, match="the passphrase does not open slot 2") as wrong:
        Opener(str(path), [Passphrase("not these words")]).open(found, 1)
    assert "not these" not in str(wrong.value)
    with pytest.raises(KeyUnavailableError, match=r"NO_KEY: it is not set; the key function kms: it has no slot"):
        Opener(str(path), [EnvironmentKey("NO_KEY"), KeyFunction(lambda: b"k" * 32, "kms")]).open(found, 1)
    with pytest.raises(KeyUnavailableError, match="no source was given"):
        Opener(str(path), []).open(msgspec.structs.replace(found, slots=found.slots[1:]), 1)
    key = Opener(str(path), [EnvironmentKey(variable), Passphrase(WORDS)]).open(found, 1)
    assert key.salt == found.keys[1].salt, "a wrong source does not hide a right one"
    assert path.read_bytes() == before


def test_slots_come_and_go_but_for_the_last(tmp_path: Path, variable: str) -> None:
    path = str(tmp_path / "memory.keys")
    found, key = made(tmp_path / "memory.keys", EnvironmentKey(variable))
    opener = Opener(path, [EnvironmentKey(variable)])

    more = envelope.with_slot(opener, found, Passphrase(WORDS))
    assert [slot.id for slot in more.slots] == [1, 2]
    less = envelope.without_slot(path, more, 1)
    assert Opener(path, [Passphrase(WORDS)]).open(less, 1).pages == key.pages
    with pytest.raises(KeyUnavailableError, match="it has no slot"):
        Opener(path, [EnvironmentKey(variable)]).open(less, 1)
    with pytest.raises(InvalidSettingError, match="is the last one"):
        envelope.without_slot(path, less, 2)
    with pytest.raises(InvalidSettingError, match=r"has no slot 1; it has slot 2 \(passphrase\)"):
        envelope.without_slot(path, less, 1)
    again = envelope.with_slot(Opener(path, [Passphrase(WORDS)]), less, EnvironmentKey(variable))
    assert [slot.id for slot in again.slots] == [2, 3], "a number is never given twice"
    with pytest.raises(KeyUnavailableError, match="cannot become a slot: it is not set"):
        envelope.with_slot(opener, found, EnvironmentKey("NO_KEY"))


def test_a_new_key_needs_the_source_of_every_slot(tmp_path: Path, variable: str) -> None:
    path = str(tmp_path / "memory.keys")
    found, old = made(tmp_path / "memory.keys", EnvironmentKey(variable), Passphrase(WORDS))

    with pytest.raises(KeyUnavailableError, match=r"nothing given opens slot 2 \(passphrase\)"):
        envelope.with_next_key(Opener(path, []), found)
    both = envelope.with_next_key(Opener(path, [EnvironmentKey(variable), Passphrase(WORDS)]), found)
    assert both.change == "rotate"
    for source in (EnvironmentKey(variable), Passphrase(WORDS)):
        opener = Opener(path, [source])
        assert opener.open(both, 1).pages == old.pages
        assert opener.open(both, 2).pages != old.pages
    only = envelope.with_only(both, 2)
    assert set(only.keys) == {2}
    assert all(set(slot.wrapped) == {2} for slot in only.slots)


def test_a_slot_is_bound_to_its_store_its_number_and_its_derivation(tmp_path: Path, variable: str) -> None:
    path = str(tmp_path / "memory.keys")
    source = EnvironmentKey(variable)
    found, _ = made(tmp_path / "memory.keys", source)
    other, _ = made(tmp_path / "other.keys", source)
    [slot] = found.slots
    salted = msgspec.structs.replace(slot.derivation, salt=b"0" * 16)
    forged = [
        msgspec.structs.replace(found, store=other.store),
        msgspec.structs.replace(found, slots=other.slots),
        msgspec.structs.replace(found, keys=other.keys),
        msgspec.structs.replace(found, slots=[msgspec.structs.replace(slot, id=7)], next_slot=8),
        msgspec.structs.replace(found, slots=[msgspec.structs.replace(slot, hint="B_KEY")]),
        msgspec.structs.replace(found, slots=[msgspec.structs.replace(slot, derivation=salted)]),
    ]
    assert Opener(path, [source]).open(found, 1)
    for each in forged:
        with pytest.raises(WrongKeyError):
            Opener(path, [source]).open(each, 1)


def test_a_damaged_file_of_keys_is_never_taken_for_another(tmp_path: Path, variable: str) -> None:
    path = tmp_path / "memory.keys"
    found, _ = made(path, EnvironmentKey(variable))
    whole = path.read_bytes()

    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with contextlib.suppress(CorruptStoreError, StoreTooNewError):
            assert key_file.read(str(path)) == found, "only words about the file may differ"
    for cut in range(0, len(whole) - 2, 7):
        path.write_bytes(whole[:cut])
        with pytest.raises(CorruptStoreError, match="put a copy of it from a backup"):
            key_file.read(str(path))
    for text in ("[" * 10**5 + "]" * 10**5, '{"x":' * 10**5, '"é"', "null"):
        path.write_text(f'{{"about": "", "format": 1, "checksum": "é", "envelope": {text}}}', encoding="utf-8")
        with pytest.raises(CorruptStoreError):
            key_file.read(str(path))


def forge(path: Path, forged: Envelope, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a file of keys that jarvis would not write."""
    with monkeypatch.context() as patch:
        patch.setattr(key_file, "_check", lambda _: None)
        key_file.write(str(path), forged)


def test_a_file_of_keys_cannot_ask_for_all_memory_or_all_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "memory.keys"
    found, _ = made(path, Passphrase(WORDS))
    [slot] = found.slots

    def with_cost(cost: Any, number: int = 1) -> Slot:
        return msgspec.structs.replace(slot, id=number, derivation=msgspec.structs.replace(slot.derivation, cost=cost))

    for slots in (
        *([with_cost(cost)] for cost in ((2**31, 3, 4), (65_536, 10**9, 4), (65_536, 3, 10**6), (0, 3, 4), None)),
        [with_cost((1, 1, 1))],  # less than Argon2id takes
        [with_cost((1_048_576, 16, 4), 1), with_cost((1_048_576, 16, 4), 2)],
        [msgspec.structs.replace(slot, derivation=msgspec.structs.replace(slot.derivation, salt=b""))],
        [with_cost((65_536, 3, 4), number) for number in range(65)],
    ):
        forge(path, msgspec.structs.replace(found, slots=slots, next_slot=100), monkeypatch)
        with pytest.raises(CorruptStoreError):
            key_file.read(str(path))


def test_nothing_is_written_that_could_not_be_read_again(tmp_path: Path, variable: str) -> None:
    path = tmp_path / "memory.keys"
    found, _ = made(path, EnvironmentKey(variable))
    before = path.read_bytes()
    opener = Opener(str(path), [EnvironmentKey(variable)])
    long = envelope.with_slot(opener, found, KeyFunction(lambda: b"k" * 32, name="x" * 2**20))
    many = found
    for number in range(64):
        many = envelope.with_slot(opener, many, KeyFunction(lambda: b"k" * 32, name=f"function {number}"))

    for each, why in ((long, "too long"), (many, "more than 64 slots")):
        with pytest.raises(InvalidSettingError, match=f"cannot hold that: .*{why}; nothing was written"):
            key_file.write(str(path), each)
    assert path.read_bytes() == before


@pytest.mark.skipif(os.name != "posix", reason="there are no such pipes")
def test_no_pipe_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)

    with pytest.raises(SecretUnavailableError, match="no regular file"):
        KeyFile(tmp_path / "pipe").secret()
    MemoryModule(storage_dir=tmp_path / "data", encryption="on", keys=[KeyFunction(lambda: b"k" * 32)]).bootstrap()
    (tmp_path / "data" / "memory.keys").unlink()
    os.mkfifo(tmp_path / "data" / "memory.keys")
    with pytest.raises(StoreAccessError, match="no regular file"):
        MemoryModule(storage_dir=tmp_path / "data").bootstrap()


@pytest.mark.parametrize(("kind", "hint"), [("file", "a\0b"), ("file", ""), ("environment", ""), ("keyring", "/")])
def test_what_a_forged_slot_names_is_not_available(
    tmp_path: Path, variable: str, monkeypatch: pytest.MonkeyPatch, kind: str, hint: str
) -> None:
    found, _ = made(tmp_path / "memory.keys", EnvironmentKey(variable))
    forged = msgspec.structs.replace(found.slots[0], source=kind, hint=hint)

    with pytest.raises(KeyUnavailableError, match="no key is available"):
        Opener("", []).open(msgspec.structs.replace(found, slots=[forged]), 1)


def test_the_name_of_a_new_key_file_is_on_the_disk_when_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = os.fsync

    def sync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)

    source = KeyFile.create(tmp_path / "key")

    assert synced[0] == source.path.stat().st_ino
    assert os.name != "posix" or synced[1] == tmp_path.stat().st_ino


def test_without_the_package_encryption_says_what_to_install() -> None:
    program = """
import sys
sys.modules["cryptography"] = None
from jarvis.model.options import source_from_setting, sources_of
from jarvis.persistent_memory import MemoryModule
from jarvis.keys import KeyFunction
import tempfile
MemoryModule(storage_dir=tempfile.mkdtemp()).bootstrap()
try:
    MemoryModule(storage_dir=tempfile.mkdtemp(), encryption="on", keys=[KeyFunction(lambda: b"k" * 32)]).bootstrap()
except NotImplementedError as error:
    print(error)
"""
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'jarvis-memory[encryption]'" in shown.stdout


def test_what_is_derived_for_one_purpose_says_nothing_of_another() -> None:
    key = DataKey(b"k" * 32, b"s" * 16)
    derived = [key.derive(purpose) for purpose in ("pages", "key check")]
    assert len(set(derived)) == 2
    extracted = hmac.digest(b"s" * 16, b"k" * 32, "sha256")  # RFC 5869, by hand
    assert key.pages == hmac.digest(extracted, b"jarvis pages\x01", "sha256")


class Token:
    """A source that somebody else wrote."""

    kind = "token"
    is_passphrase = False
    hint = "blue"

    def secret(self) -> bytes:
        return b"t" * 32

    def __str__(self) -> str:
        return "the blue token"


def test_a_source_of_somebody_else_is_one(tmp_path: Path) -> None:
    path = tmp_path / "memory.keys"
    [source] = sources_of([Token()])
    found, key = made(path, source)
    assert found.slots[0].source == "token"
    assert Opener(str(path), [Token()]).open(found, 1).pages == key.pages
    with pytest.raises(KeyUnavailableError, match=r"opens with slot 1 \(token blue\)"):
        Opener(str(path), []).open(found, 1)


def test_a_source_of_somebody_else_gives_a_key_and_a_hint_that_can_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong: Any
    for wrong in (5, b"blue", Path("blue"), "\udcff"):
        token = Token()
        token.hint = wrong
        with pytest.raises(InvalidSettingError, match="item 1 needs a kind, and a hint"):
            sources_of([token])
    for wrong in (b"", b"short", b"t" * 33, "t" * 32, None, 7):
        token = Token()
        monkeypatch.setattr(token, "secret", partial(copy, wrong))
        with pytest.raises(KeyUnavailableError, match="something else than 32 bytes"):
            made(tmp_path / "memory.keys", token)
    for make in (EnvironmentKey, KeyringKey, Passphrase.from_environment):
        with pytest.raises(InvalidSettingError, match="must be a text"):
            make("\ud800")
    with pytest.raises(InvalidSettingError, match="item 1 needs"):
        sources_of([KeyFile(os.fsdecode(b"/key-\xff"))])
