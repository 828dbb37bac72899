"""What only `JSONBackend` promises: a file that people read and edit, and that is whole or refused."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import pickle
import random
import re
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jarvis._disk import files
from jarvis._json import file as json_file
from jarvis._json import past as json_past
from jarvis._json import record as json_record
from jarvis.codec import instant_of
from jarvis.config import HistoryPolicy
from jarvis.errors import (
    CorruptStoreError,
    InvalidEntryError,
    InvalidSettingError,
    ReadOnlyStoreError,
    StoreBusyError,
    StoreError,
    StoreFullError,
    StoreMissingError,
    StoreOutdatedError,
    StoreTooNewError,
    TransactionError,
)
from jarvis.json_backend import JSONBackend
from jarvis.model.change import FIRST_GENERATION
from jarvis.model.entry import MemoryEntry
from jarvis.model.query import MemoryQuery
from jarvis.model.revision import Signature
from tests.erasing import erase_namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOMENT = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)


def an_entry(entry_id: str = "1", value: dict[str, Any] | None = None, **fields: Any) -> MemoryEntry:
    fields = {"category": "preferences", "key": "theme", "timestamp": MOMENT, **fields}
    return MemoryEntry(id=entry_id, value={"mode": "dark"} if value is None else value, **fields)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.json"


@pytest.fixture
def backend(path: Path) -> Iterator[JSONBackend]:
    backend = JSONBackend(path)
    yield backend
    backend.shutdown()


FORMAT_1_WITH_A_FEED = {"format": 1, "entries": {}, "clock": {"commit": 0, "made": None, "fed_from": 0}}


def filled(path: Path) -> bytes:
    """Make a store with entries of many kinds and a past, with a gap, in two namespaces; return its bytes."""
    backend = JSONBackend(path, history=HistoryPolicy(max_revisions=2))
    with backend.transaction():
        for number in range(6):
            value = {"mode": "dark", "größe": [number, 1.5, None, True], "at": MOMENT, "nested": {"$type": "x"}}
            backend.create(an_entry(f"id-{number}", value, tags=["ui", f"t{number}"], provenance={"module": "m"}))
        alice = backend.for_namespace("alice")
        alice.create(an_entry("id-0", entity_type="task", entity_id="7"))
        for version in range(3):
            backend.update(an_entry("id-5", {"mode": "dark", "n": version}))
        backend.sign(Signature("delete", "ui", "task-1", "müde"))
        alice.create(an_entry("id-1"))
        alice.delete("id-1")
    backend.shutdown()
    return path.read_bytes()


def unsealed(path: Path) -> dict[str, Any]:
    """Return the content of a store's file without the checksum, as someone would who edits it."""
    document = json.loads(path.read_text(encoding="utf-8"))
    del document["checksum"]
    return dict(document)


class RecordingSystem(files.System):
    """Records every file operation; lets the n-th fail, if told so."""

    def __init__(self, fail_at: int | None = None, error: int = 5) -> None:
        self.operations: list[tuple[str, str]] = []
        self.fail_at, self.error = fail_at, error
        self.names: dict[int, str] = {}

    def note(self, operation: str, name: str) -> None:
        self.operations.append((operation, name))
        if len(self.operations) == self.fail_at:
            raise OSError(self.error, os.strerror(self.error))

    def those(self, *operations: str) -> list[tuple[str, str]]:
        return [each for each in self.operations if each[0] in operations]

    def open(self, path: str, flags: int) -> int:
        name = re.sub(r"^\.(.*)\.\d+-[0-9a-f]{8}\.tmp$", r"\1+", Path(path).name)
        self.note("open to write" if flags & (os.O_WRONLY | os.O_RDWR) else "open to read", name)
        descriptor = super().open(path, flags)
        self.names[descriptor] = name
        return descriptor

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        self.note("write", self.names[descriptor])
        return super().write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self.note("sync", self.names[descriptor])
        super().sync(descriptor)

    def sync_directory(self, path: str) -> None:
        self.note("sync directory", "")
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

    def replace(self, source: str, target: str) -> None:
        self.note("replace", Path(target).name)
        super().replace(source, target)

    def link(self, source: str, target: str) -> None:
        self.note("link", Path(target).name)
        super().link(source, target)

    def unlink(self, path: str) -> None:
        self.note("unlink", Path(path).name)
        super().unlink(path)


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Callable[..., RecordingSystem]:
    def use(fail_at: int | None = None, error: int = 5) -> RecordingSystem:
        recording = RecordingSystem(fail_at, error)
        monkeypatch.setattr(files, "system", recording)
        return recording

    return use


def run(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return output


# --- the file as people see it -------------------------------------------------------------------


def test_the_file_is_indented_json_with_the_fields_in_the_order_of_the_specification(path: Path) -> None:
    backend = JSONBackend(path)
    backend.create(an_entry("a", {"mode": "düster"}, tags=["ui"], provenance={"module": "m"}))
    backend.for_namespace("alice").create(an_entry("b"))
    backend.shutdown()

    text, _, checksum = path.read_text(encoding="utf-8").partition(',\n  "checksum": ')
    assert json.loads(text + "}")["entries"]["a"] == {
        "id": "a",
        "category": "preferences",
        "key": "theme",
        "value": {"mode": "düster"},
        "tags": ["ui"],
        "entity_type": "",
        "entity_id": None,
        "timestamp": "2024-01-15T10:30:00+00:00",
        "provenance": {"module": "m"},
        "version": 1,
        "position": [instant_of(MOMENT), 1],
    }
    assert list(json.loads(text + "}")) == ["format", "entries", "namespaces", "clock", "commits"]
    assert checksum == f'"blake2b:{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"\n}}\n'
    whole = json.loads(path.read_bytes())
    assert path.read_text(encoding="utf-8") == json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def test_an_empty_store_is_a_readable_file(path: Path, backend: JSONBackend) -> None:
    backend.bootstrap()

    document = unsealed(path)
    clock = {"commit": 0, "made": None, "begins": None, "fed_from": 0}
    assert document["clock"].pop("generation") >= FIRST_GENERATION
    assert document == {"format": 4, "entries": {}, "clock": {**clock, "copied": 0}}


def test_a_namespace_without_entries_and_past_is_not_in_the_file(path: Path, backend: JSONBackend) -> None:
    alice = backend.for_namespace("alice")
    alice.create(an_entry())
    alice.delete("1")
    assert list(unsealed(path)["namespaces"]) == ["alice"]
    erase_namespace(backend, "alice")
    assert "namespaces" not in unsealed(path)
    ((digest, held),) = unsealed(path)["erased"].items()
    assert "alice" not in digest
    assert [event["operation"] for event in held["events"]] == ["erase"]
    backend.prune(datetime(2200, 1, 1, tzinfo=UTC), 10)

    assert "erased" not in unsealed(path)


def test_what_was_written_comes_back_exactly_from_the_file(path: Path) -> None:
    value = {
        "$type": "dict",
        "floats": [math.inf, -0.0, 1e300],
        "text": "\ud800 \u2028 \0",
        "big": 2**80,
        "at": datetime(2024, 10, 27, 2, 30, fold=1),
        "tuple": (1, {2}),
    }
    naive = an_entry("1", value, timestamp=datetime(2024, 10, 27, 2, 30, fold=1), tags=["b", "a", "b"])
    first = JSONBackend(path)
    first.create(naive)
    first.shutdown()

    found = JSONBackend(path, read_only=True).read("1")
    assert found is not None
    assert (found, found.timestamp.fold, repr(found.value)) == (naive, 1, repr(value))


# --- damage --------------------------------------------------------------------------------------


def assert_refused_and_kept(path: Path, damaged: bytes, *, read_only: bool = True) -> CorruptStoreError:
    path.write_bytes(damaged)
    backend = JSONBackend(path, read_only=read_only)
    try:
        with pytest.raises(CorruptStoreError) as caught:
            backend.list_all()
    finally:
        backend.shutdown()
    assert caught.value.path == str(path)
    assert path.read_bytes() == damaged
    return caught.value


def test_a_flipped_bit_anywhere_is_noticed(path: Path) -> None:
    whole = filled(path)
    chance = random.Random(1)
    ends = [*range(60), *range(len(whole) - 120, len(whole))]
    flips = [(offset, bit) for offset in ends for bit in range(8)]
    flips += [(chance.randrange(len(whole)), chance.randrange(8)) for _ in range(2000)]

    for offset, bit in flips:
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << bit
        assert_refused_and_kept(path, bytes(damaged))


def test_a_truncation_at_any_byte_is_noticed(path: Path) -> None:
    whole = filled(path)

    for length in range(len(whole)):
        assert_refused_and_kept(path, whole[:length])


@pytest.mark.parametrize("size", [16, 64, 512])
def test_swapped_repeated_and_zeroed_blocks_are_noticed(path: Path, size: int) -> None:
    whole = filled(path)
    blocks = [whole[start : start + size] for start in range(0, len(whole), size)]
    chance = random.Random(size)

    for _ in range(200):
        damaged = list(blocks)
        one, other = chance.sample(range(len(blocks)), 2)
        how = chance.choice(["swap", "repeat", "zero", "drop"])
        if how == "swap":
            damaged[one], damaged[other] = damaged[other], damaged[one]
        elif how == "repeat":
            damaged[one] = damaged[other]
        else:
            damaged[one] = bytes(len(damaged[one])) if how == "zero" else b""
        if b"".join(damaged) != whole:
            assert_refused_and_kept(path, b"".join(damaged))


@pytest.mark.parametrize("damaged", [b"", b"\n", b"\0" * 4096, b"SQLite format 3\0", b"[]", b"{}", b"null", b"\xff{}"])
@pytest.mark.parametrize("read_only", [True, False])
def test_what_is_no_store_is_refused_and_left_alone(path: Path, damaged: bytes, read_only: bool) -> None:
    assert_refused_and_kept(path, damaged, read_only=read_only)


def test_a_damaged_store_takes_no_write(path: Path) -> None:
    damaged = filled(path).replace(b"dark", b"lark", 1)
    path.write_bytes(damaged)

    with pytest.raises(CorruptStoreError):
        JSONBackend(path).create(an_entry("new"))

    assert path.read_bytes() == damaged


def test_damage_that_happens_while_the_store_is_open_is_noticed(path: Path, backend: JSONBackend) -> None:
    backend.create(an_entry())
    path.write_bytes(path.read_bytes()[:-20])

    with pytest.raises(CorruptStoreError):
        backend.read("1")
    with pytest.raises(CorruptStoreError):
        backend.delete("1")


# --- edited by hand ------------------------------------------------------------------------------


def test_a_file_edited_by_hand_is_taken_once_its_checksum_is_removed(path: Path, backend: JSONBackend) -> None:
    backend.create(an_entry())
    document = unsealed(path)
    document["entries"]["1"]["value"] = {"mode": "light", "ratio": 1.10, "escaped": "\u2028"}
    path.write_text(json.dumps(document), encoding="utf-8")

    found = backend.read("1")
    assert found is not None
    assert found.value == {"mode": "light", "ratio": 1.1, "escaped": "\u2028"}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("kind", ["sealed", "edited", "first life"])
def test_a_file_that_was_saved_with_a_byte_order_mark_is_read(path: Path, kind: str, encoding: str) -> None:
    text = filled(path).decode()
    if kind == "edited":
        text = json.dumps(unsealed(path), ensure_ascii=False)
    if kind == "first life":
        entry: dict[str, Any] = dict.fromkeys(("category", "key", "entity_type"), "größe")
        entry |= {"id": "1", "value": {}, "tags": []}
        entry |= {"entity_id": None, "timestamp": "2024-01-15T10:30:00", "provenance": {}}
        text = json.dumps({"entries": {"1": entry}})
    path.write_text(text, encoding="utf-8")
    before = JSONBackend(path).list_all()
    path.write_bytes((("\ufeff" if encoding.endswith("be") else "") + text).encode(encoding))

    backend = JSONBackend(path)
    assert backend.list_all() == before != []
    backend.create(an_entry("new"))

    assert path.read_bytes().startswith(b"{")
    assert len(JSONBackend(path, read_only=True).list_all()) == len(before) + 1
    backend.shutdown()


def test_the_message_about_a_wrong_checksum_says_the_way_out(path: Path) -> None:
    damaged = filled(path).replace(b"dark", b"lark", 1)

    error = assert_refused_and_kept(path, damaged)
    assert 'remove the member "checksum" and the comma before it' in str(error)
    assert "lark" not in str(error)


def test_the_next_write_seals_a_file_that_was_edited_by_hand(path: Path, backend: JSONBackend) -> None:
    backend.create(an_entry())
    path.write_text(json.dumps(unsealed(path)), encoding="utf-8")
    backend.create(an_entry("2"))

    assert_refused_and_kept(path, path.read_bytes().replace(b"dark", b"lark", 1))


def test_an_escaped_tag_in_a_file_edited_by_hand_is_still_a_tag(path: Path, backend: JSONBackend) -> None:
    backend.create(an_entry("1", {"at": (1, 2)}))
    path.write_text(json.dumps(unsealed(path)).replace("$type", "\\u0024type"), encoding="utf-8")

    found = backend.read("1")
    assert found is not None
    assert found.value == {"at": (1, 2)}


def test_commit_numbers_go_on_after_the_greatest_in_a_file_edited_by_hand(path: Path, backend: JSONBackend) -> None:
    backend.create(an_entry())
    document = unsealed(path)
    document["entries"]["1"]["position"][1] = 41
    path.write_text(json.dumps(document), encoding="utf-8")
    backend.create(an_entry("2"))

    assert [entry.position and entry.position[1] for entry in backend.list_all()] == [42, 41]


def _set(*steps: Any) -> Callable[[dict[str, Any]], None]:
    """Return a function that puts the last of `steps` where the others lead."""

    def change(document: dict[str, Any]) -> None:
        *way, last, held = steps
        for step in way:
            document = document[step]
        document[last] = held

    return change


def _drop(*steps: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        *way, last = steps
        for step in way:
            document = document[step]
        del document[last]

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set("checksun", "blake2b:00"),
        _set("checksum", None),
        _set("format", "1"),
        _set("format", 0),
        _set("format", True),
        _drop("format"),
        _drop("entries"),
        _drop("clock"),
        _set("entries", []),
        _set("clock", {}),
        _set("clock", "commit", -1),
        _set("clock", "made", 10**30),
        _set("namespaces", {"default": {"entries": {}}}),
        _set("namespaces", {"": {"entries": {}}}),
        _set("namespaces", {"bob": {}}),
        _set("namespaces", {"bob": {"entries": {}, "more": 1}}),
        _set("entries", "other", {}),
        _set("entries", "id-0", "id", "id-1"),
        _set("entries", "id-0", "more", 1),
        _set("entries", "id-0", "value", [1]),
        _set("entries", "id-0", "value", {"at": {"$type": "unheard of"}}),
        _set("entries", "id-0", "value", {"text": "\ud800"}),
        _set("entries", "id-0", "tags", [1]),
        _set("entries", "id-0", "timestamp", "yesterday"),
        _set("entries", "id-0", "version", 0),
        _set("entries", "id-0", "position", [1]),
        _set("entries", "id-0", "fold", 2),
        _set("entries", "id-0", "zone", "Nowhere/At all"),
        _drop("entries", "id-0", "key"),
        _drop("entries", "id-0", "position"),
        _set("format", 1),
        _set("clock", "begins", 10**17),
        _set("clock", "made", None),
        _set("history", {}),
        _set("history", 0, "more", 1),
        _set("history", 0, "ended", 0),
        _set("history", 0, "ended", 10**6),
        _set("history", 1, "made", 10**17),
        _set("history", 0, "change", {}),
        _set("history", 0, "change", "operation", "devour"),
        _set("history", 0, "entry", "timestamp", "yesterday"),
        _set("history", 0, "entry", "position", [0, 10**6]),
        _drop("history", 0, "entry"),
        _drop("history", 0, "change"),
        _set("gaps", 0, "more", 1),
        _set("gaps", 0, "id", 1),
        _drop("gaps", 0, "ended"),
        lambda document: document["gaps"].append(document["gaps"][0]),
        lambda document: (document.clear(), document.update(FORMAT_1_WITH_A_FEED)),
        _set("clock", "fed_from", -1),
        _set("clock", "fed_from", None),
        _set("events", {}),
        _set("events", 0, "more", 1),
        _set("events", 0, "number", 0),
        _set("events", 0, "operation", "devour"),
        _set("events", 0, "operation", "erase"),
        _set("events", 0, "version", 0),
        _set("events", 0, "count", -1),
        _set("events", 0, "made", 10**30),
        _set("events", 1, "made", 10**17),
        _set("events", 0, "key", "\ud800"),
        _drop("events", 0, "key"),
        _drop("events", 0, "made"),
        lambda document: document["events"].reverse(),
        lambda document: document["events"].append(document["events"][-1]),
        lambda document: document["events"][-1].update(number=document["history"][0]["ended"]),
        lambda document: document["history"].reverse(),
        lambda document: document["commits"].append(document["commits"][0]),
        _set("commits", 0, "first", 10**6),
        _set("commits", 0, "made", 10**17),
        _set("namespaces", "alice", "history", 0, "entry", "value", {"at": {"$type": "unheard of"}}),
    ],
)
def test_a_file_without_checksum_is_taken_only_if_nothing_about_it_is_odd(
    path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    filled(path)
    document = unsealed(path)
    change(document)

    assert_refused_and_kept(path, json.dumps(document).encode())


@pytest.mark.parametrize(
    "name",
    [
        *("entries", "id-0", "key", "mode", "format", "clock", "namespaces"),
        *("history", "ended", "change", "entry", "operation", "gaps", "commits", "begins", "first"),
        *("events", "number", "fed_from"),
    ],
)
def test_a_name_that_stands_twice_in_a_file_without_checksum_is_damage(path: Path, name: str) -> None:
    filled(path)
    text = json.dumps(unsealed(path))
    start = text.index(f'"{name}": ') + len(f'"{name}": ')
    _, length = json.JSONDecoder().raw_decode(text[start:])
    doubled = f'{text[: start + length]}, "{name}": {text[start:]}'
    assert json.loads(doubled) == json.loads(text)  # a careless reader sees nothing

    assert_refused_and_kept(path, doubled.encode())


def test_a_file_of_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    newer = json.dumps({"format": 5, "tables": [], "checksum": "sha1024:…"}).encode()
    path.write_bytes(newer)

    with pytest.raises(StoreTooNewError):
        JSONBackend(path).list_all()

    assert path.read_bytes() == newer


# --- the first life's files ----------------------------------------------------------------------


def an_old_entry(entry_id: str, **fields: Any) -> dict[str, Any]:
    plain = {
        "id": entry_id,
        "category": "preferences",
        "key": "theme",
        "value": {"mode": "dark"},
        "tags": ["ui"],
        "entity_type": "user_preference",
        "entity_id": None,
        "timestamp": "2024-01-15T10:30:00.000001",
        "provenance": {"module": "ui"},
    }
    return {**plain, **fields}


def an_old_store(path: Path, *entries: dict[str, Any]) -> bytes:
    document = {"entries": {entry["id"]: entry for entry in entries}, "updated_at": "2024-01-15T10:30:00"}
    path.write_text(json.dumps(document, indent=2), encoding="utf-8")
    return path.read_bytes()


def test_a_first_lifes_file_opens_with_every_entry_as_it_was(path: Path, backend: JSONBackend) -> None:
    an_old_store(path, an_old_entry("1"), an_old_entry("2", entity_id="7", timestamp="2024-01-16 10:30:00"))

    newest, oldest = backend.list_all()
    assert oldest == MemoryEntry(
        "1",
        "preferences",
        "theme",
        {"mode": "dark"},
        ["ui"],
        "user_preference",
        None,
        datetime(2024, 1, 15, 10, 30, 0, 1),  # naive, as the first life wrote it
        {"module": "ui"},
    )
    assert (newest.id, newest.timestamp) == ("2", datetime(2024, 1, 16, 10, 30))  # naive
    assert newest.position == (instant_of(newest.timestamp), 2)
    assert backend.query(entity_id="7") == [newest]


def test_a_first_lifes_values_are_literal(path: Path, backend: JSONBackend) -> None:
    value = {
        "$type": "tuple",
        "floats": [math.inf, -math.inf],
        "text": "a\ud800b\0",
        "big": -(2**70),
        "inner": {"$type": {"\udfff": None}},
    }
    an_old_store(path, an_old_entry("1", value={**value, "nan": math.nan}))
    assert "NaN" in path.read_text(encoding="utf-8")

    found = backend.read("1")
    assert found is not None
    assert math.isnan(found.value.pop("nan"))
    assert found.value == value


def test_a_name_twice_inside_a_first_lifes_value_counts_as_it_did_then(path: Path, backend: JSONBackend) -> None:
    an_old_store(path, an_old_entry("1", value={1: "first", "1": "last"}))
    assert path.read_text(encoding="utf-8").count('"1":') == 3  # its id, and the name twice

    found = backend.read("1")
    assert found is not None
    assert found.value == {"1": "last"}


def test_a_first_lifes_names_are_not_held_to_limits_it_did_not_have(path: Path, backend: JSONBackend) -> None:
    an_old_store(path, an_old_entry("i\0d", key="k\0y", category="c" * 5000, tags=["t" * 5000, ""]))

    assert [entry.id for entry in backend.query(key="k\0y", category="c" * 5000, tags=["t" * 5000])] == ["i\0d"]


def test_migration_keeps_the_old_bytes_beside_the_store(path: Path, backend: JSONBackend) -> None:
    old = an_old_store(path, an_old_entry("1"))
    backend.bootstrap()

    assert Path(f"{path}.first-life").read_bytes() == old
    assert unsealed(path)["format"] == 4


def test_migration_never_replaces_another_kept_copy(path: Path) -> None:
    first = an_old_store(path, an_old_entry("1"))
    JSONBackend(path).bootstrap()
    second = an_old_store(path, an_old_entry("2"))
    JSONBackend(path).bootstrap()
    path.write_bytes(first)
    JSONBackend(path).bootstrap()

    kept = {each.name: each.read_bytes() for each in path.parent.glob("*.first-life*")}
    assert kept == {"memory.json.first-life": first, "memory.json.first-life.2": second}


def test_the_kept_copy_is_durable_before_the_store_is_replaced(
    path: Path, system: Callable[..., RecordingSystem]
) -> None:
    an_old_store(path, an_old_entry("1"))
    recording = system()
    JSONBackend(path, durability="normal").bootstrap()

    assert recording.those("sync", "link", "replace", "sync directory") == [
        ("sync", "memory.json.first-life+"),
        ("link", "memory.json.first-life"),
        ("sync directory", ""),
        ("sync", "memory.json+"),
        ("replace", "memory.json"),
        ("sync directory", ""),
    ]


def test_a_first_lifes_file_is_not_opened_read_only(path: Path) -> None:
    old = an_old_store(path, an_old_entry("1"))

    with pytest.raises(StoreOutdatedError, match="read_only=False"):
        JSONBackend(path, read_only=True).list_all()

    assert [each.name for each in path.parent.iterdir()] == ["memory.json"]
    assert path.read_bytes() == old


def test_a_first_lifes_file_that_replaces_an_open_store_is_migrated(path: Path, backend: JSONBackend) -> None:
    backend.create(an_entry("new"))
    old = an_old_store(path, an_old_entry("old"))

    assert [entry.id for entry in backend.list_all()] == ["old"]
    assert Path(f"{path}.first-life").read_bytes() == old


def test_a_first_lifes_file_is_migrated_only_under_the_writer_lock(path: Path, backend: JSONBackend) -> None:
    backend.bootstrap()
    impatient = JSONBackend(path, busy_timeout_seconds=0)
    impatient.bootstrap()
    with backend.transaction():
        old = an_old_store(path, an_old_entry("old"))
        with pytest.raises(StoreBusyError):
            impatient.list_all()

    assert path.read_bytes() == old
    assert [entry.id for entry in impatient.list_all()] == ["old"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "other"},
        {"key": None},
        {"value": [1]},
        {"value": None},
        {"tags": "ui"},
        {"tags": [1]},
        {"entity_id": 7},
        {"timestamp": 1705312200},
        {"timestamp": "yesterday"},
        {"provenance": {"created_at": 1}},
        {"key": "\ud800"},
        {"surprise": 1},
    ],
)
def test_a_malformed_first_life_entry_is_named_by_its_place(path: Path, wrong: dict[str, Any]) -> None:
    document = {"entries": {"secret": an_old_entry("secret"), "sign": {**an_old_entry("sign"), **wrong}}}

    error = assert_refused_and_kept(path, json.dumps(document).encode(), read_only=False)
    assert "entry number 2" in str(error)
    assert "secret" not in str(error)
    assert [each.name for each in path.parent.glob("*.first-life*")] == []


@pytest.mark.parametrize(
    "text",
    [
        '{"entries": {}, "updated_at": "", "more": 1}',
        '{"entries": {}, "gormat": 1, "clock": {"commit": 0, "made": null}}',
        '{"entries": {}, "entries": {}}',
        '{"entries": {"1": 1}}',
        '{"entries": {"1": {}, "1": {}}}',
        '{"entries": []}',
        '{"updated_at": ""}',
        "[" * 100_000,
        '{"entries": {}',
    ],
)
def test_what_is_not_quite_a_first_lifes_file_is_refused(path: Path, text: str) -> None:
    assert_refused_and_kept(path, text.encode(), read_only=False)


OPENER = """
import sys
from jarvis.json_backend import JSONBackend
sys.stdin.readline()
print(*sorted(entry.id for entry in JSONBackend(sys.argv[1]).list_all()))
"""


def test_eight_processes_that_open_at_once_migrate_once(path: Path) -> None:
    old = an_old_store(path, *(an_old_entry(str(number)) for number in range(50)))
    processes = [
        subprocess.Popen([sys.executable, "-c", OPENER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    seen = {process.communicate(timeout=60)[0] for process in processes}

    assert seen == {" ".join(sorted(map(str, range(50)))) + "\n"}
    assert sorted(each.name for each in path.parent.iterdir()) == [
        "memory.json",
        "memory.json.first-life",
        "memory.json.lock",
    ]
    assert Path(f"{path}.first-life").read_bytes() == old


KILLED = """
import os, sys
from jarvis._disk import files
from jarvis.json_backend import JSONBackend

class Dying(files.System):
    left = int(sys.argv[2])

def dying(name):
    real = getattr(files.System, name)
    def operation(self, *arguments):
        Dying.left -= 1
        if Dying.left == 0:
            os._exit(0)  # as kill -9: nothing is cleaned up
        return real(self, *arguments)
    return operation

for name in ("open", "write", "sync", "sync_directory", "replace", "link", "unlink"):
    setattr(Dying, name, dying(name))
files.system = Dying()
JSONBackend(sys.argv[1]).bootstrap()
print("survived")
"""


def test_a_kill_at_any_moment_of_the_migration_loses_nothing(tmp_path: Path) -> None:
    for moment in itertools.count(1):
        path = tmp_path / str(moment) / "memory.json"
        path.parent.mkdir()
        old = an_old_store(path, an_old_entry("1"), an_old_entry("2"))
        survived = finished(run(KILLED, path, moment))

        assert [entry.id for entry in JSONBackend(path).list_all()] == ["2", "1"]
        assert Path(f"{path}.first-life").read_bytes() == old
        assert [each.name for each in path.parent.glob(".*")] == []
        if survived:
            break
    assert moment > 10


def test_erasing_the_default_namespace_removes_the_kept_copies(path: Path, backend: JSONBackend) -> None:
    an_old_store(path, an_old_entry("1"))
    other = path.with_name("memory.json.first-life.txt")
    other.write_text("not ours")
    backend.bootstrap()

    assert erase_namespace(backend, "default") == 1
    assert [each.name for each in path.parent.glob("*.first-life*")] == [other.name]
    assert b"dark" not in path.read_bytes()


def test_an_erasure_that_is_taken_back_keeps_the_kept_copies(path: Path, backend: JSONBackend) -> None:
    an_old_store(path, an_old_entry("1"))
    with backend.transaction():
        backend.create(an_entry("2"))

        def fail() -> None:
            with backend.transaction():
                erase_namespace(backend, "default")
                raise KeyError

        with pytest.raises(KeyError):
            fail()

    assert sorted(entry.id for entry in backend.list_all()) == ["1", "2"]
    assert Path(f"{path}.first-life").exists()


def test_erasing_another_namespace_leaves_the_kept_copies(path: Path, backend: JSONBackend) -> None:
    an_old_store(path, an_old_entry("1"))
    backend.for_namespace("alice").create(an_entry())

    assert erase_namespace(backend, "alice") == 1
    assert Path(f"{path}.first-life").exists()


# --- what a write does to the disk ---------------------------------------------------------------


def test_a_commit_is_synced_then_renamed_then_its_directory_is_synced(
    backend: JSONBackend, system: Callable[..., RecordingSystem]
) -> None:
    backend.bootstrap()
    recording = system()
    backend.create(an_entry())

    assert recording.operations == [
        ("open to write", "memory.json+"),
        ("write", "memory.json+"),
        ("sync", "memory.json+"),
        ("replace", "memory.json"),
        ("sync directory", ""),
        ("open to read", "memory.json"),  # to keep its inode from being given away
    ]


def test_normal_durability_waits_for_no_disk(path: Path, system: Callable[..., RecordingSystem]) -> None:
    backend = JSONBackend(path, durability="normal")
    recording = system()
    backend.create(an_entry())

    assert recording.those("sync", "sync directory") == []
    assert recording.those("replace") == [("replace", "memory.json")]


def test_a_transaction_rewrites_the_file_once(backend: JSONBackend, system: Callable[..., RecordingSystem]) -> None:
    backend.bootstrap()
    recording = system()
    with backend.transaction():
        for number in range(20):
            backend.create(an_entry(str(number)))
            with backend.transaction():
                backend.update(an_entry(str(number), {"mode": "light"}))
        backend.for_namespace("alice").create(an_entry())
        backend.delete("3")

    assert recording.those("replace") == [("replace", "memory.json")]
    assert (backend.count(MemoryQuery()), backend.list_namespaces()) == (19, ["alice", "default"])


def test_a_transaction_that_changed_nothing_writes_nothing(
    backend: JSONBackend, system: Callable[..., RecordingSystem]
) -> None:
    backend.create(an_entry())
    recording = system()
    with backend.transaction():
        backend.delete("absent")

        def fail() -> None:
            with backend.transaction():
                backend.delete("1")
                raise KeyError

        with pytest.raises(KeyError):
            fail()

    assert recording.operations == []
    assert backend.read("1") is not None


def test_an_unchanged_file_is_not_read_again(backend: JSONBackend, system: Callable[..., RecordingSystem]) -> None:
    backend.create(an_entry())
    recording = system()
    for _ in range(10):
        backend.read("1")
        backend.query(category="preferences")
        backend.count(MemoryQuery())
        backend.list_namespaces()

    assert recording.operations == []


def test_an_entry_that_did_not_change_is_not_encoded_anew(
    path: Path, backend: JSONBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    with backend.transaction():
        for number in range(10):
            backend.create(an_entry(str(number)))
    real, calls = json_record.fragment_of, itertools.count()
    monkeypatch.setattr(json_record, "fragment_of", lambda *arguments: (next(calls), real(*arguments))[1])
    backend.update(an_entry("3", {"mode": "light"}))

    assert next(calls) == 1
    assert len(unsealed(path)["entries"]) == 10


def test_any_failing_file_operation_leaves_the_old_or_the_new_state_whole(
    path: Path, backend: JSONBackend, system: Callable[..., RecordingSystem]
) -> None:
    backend.create(an_entry("1", {"n": 0}))
    for fail_at in itertools.count(1):
        before = backend.read("1")
        assert before is not None
        recording = system(fail_at)
        failed = False
        try:
            backend.update(an_entry("1", {"n": fail_at}))
        except StoreError:
            failed = True
        reached = len(recording.operations) >= fail_at
        system()

        for reader in (backend, JSONBackend(path, read_only=True)):
            found = reader.read("1")
            assert found is not None
            assert found.value == {"n": fail_at} or (failed and found == before)
        backend.update(an_entry("1", {"n": -fail_at}))
        if not reached:
            break
    assert fail_at > 5
    assert sorted(each.name for each in path.parent.iterdir()) == ["memory.json", "memory.json.lock"]


@pytest.mark.parametrize("old_store", [False, True])
def test_any_failing_file_operation_while_opening_does_no_harm(
    tmp_path: Path, system: Callable[..., RecordingSystem], old_store: bool
) -> None:
    for fail_at in itertools.count(1):
        path = tmp_path / str(fail_at) / "memory.json"
        path.parent.mkdir()
        if old_store:
            an_old_store(path, an_old_entry("1"))
        recording = system(fail_at)
        backend = JSONBackend(path)
        try:
            backend.bootstrap()
        except StoreError:
            assert len(recording.operations) >= fail_at
        system()

        assert [entry.id for entry in backend.list_all()] == (["1"] if old_store else [])
        backend.create(an_entry("2"))
        if len(recording.operations) < fail_at:
            break
    assert fail_at > 5


def test_a_full_disk_is_named_and_keeps_the_old_state(
    path: Path, backend: JSONBackend, system: Callable[..., RecordingSystem]
) -> None:
    backend.create(an_entry())
    before = path.read_bytes()
    system(2, error=28)

    def fail() -> None:
        with backend.transaction():
            backend.delete("1")

    with pytest.raises(StoreFullError):
        fail()

    assert path.read_bytes() == before
    assert backend.read("1") is not None


# --- others at the same file ---------------------------------------------------------------------

WRITER = """
import sys
from jarvis.json_backend import JSONBackend
from jarvis.model.entry import MemoryEntry
backend = JSONBackend(sys.argv[1], durability="normal")
for number in range(int(sys.argv[3])):
    backend.create(MemoryEntry(f"{sys.argv[2]}-{number}", "tasks", "k", {"n": number}))
"""


def test_a_write_of_another_process_is_seen(path: Path, backend: JSONBackend) -> None:
    backend.create(an_entry())
    finished(run(WRITER, path, "other", 1))

    assert {entry.id for entry in backend.list_all()} == {"1", "other-0"}
    backend.create(an_entry("2"))
    assert {entry.id for entry in JSONBackend(path).list_all()} == {"1", "2", "other-0"}


def test_only_what_another_wrote_is_decoded_again(
    path: Path, backend: JSONBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(path)
    backend.bootstrap()
    JSONBackend(path).update(an_entry("id-3", {"mode": "light"}))
    real, calls = json_file._read_entry, itertools.count()
    monkeypatch.setattr(json_file, "_read_entry", lambda *arguments: (next(calls), real(*arguments))[1])

    assert backend.list_all() == JSONBackend(path, read_only=True).list_all()
    assert next(calls) == 1 + 7  # the one that changed, and each of the store that was opened to compare


def test_only_the_past_that_another_wrote_is_decoded_again(
    path: Path, backend: JSONBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(path)
    backend.bootstrap()
    JSONBackend(path).update(an_entry("id-3", {"mode": "light"}))
    real, calls = json_past.read_state, itertools.count()
    monkeypatch.setattr(json_file, "read_state", lambda *arguments: (next(calls), real(*arguments))[1])

    assert len(backend.revisions("id-3")) == 1
    assert next(calls) == 1


def test_processes_that_write_at_once_lose_no_entry_and_use_no_commit_number_twice(
    path: Path, backend: JSONBackend
) -> None:
    processes = [run(WRITER, path, name, 25) for name in "abcd"]
    for process in processes:
        finished(process)

    entries = backend.list_all()
    assert {entry.id for entry in entries} == {f"{name}-{number}" for name in "abcd" for number in range(25)}
    assert {entry.position and entry.position[1] for entry in entries} == set(range(1, 101))


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be renamed over there")
def test_a_version_of_the_same_size_and_time_is_not_taken_for_the_one_before(path: Path) -> None:
    no_past = HistoryPolicy(max_revisions=0)
    reader, writer = JSONBackend(path), JSONBackend(path, history=no_past)
    writer.create(an_entry("1", {"n": 0}))
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    sizes = set()
    for number in (1, 2, 1, 2, 1, 2):
        os.utime(path, ns=times)
        reader.bootstrap()
        writer.shutdown()  # so that only the reader keeps the file
        for last in (3, number):
            writer.update(an_entry("1", {"n": last}))
            document = unsealed(path)
            document["entries"]["1"]["version"], document["entries"]["1"]["position"][1] = 1, 1
            document["clock"]["commit"] = 1
            writer.shutdown()
            path.with_name("new").write_text(json.dumps(document))
            path.with_name("new").replace(path)
        os.utime(path, ns=times)
        sizes.add(path.stat().st_size)

        found = reader.read("1")
        assert found is not None
        assert found.value == {"n": number}
    assert len(sizes) == 1


def test_a_program_that_replaces_the_file_during_a_transaction_is_not_overwritten(
    path: Path, backend: JSONBackend
) -> None:
    filled(path)
    backend.bootstrap()
    replacement = path.with_name("replacement")
    replacement.write_text(json.dumps(unsealed(path)))

    def fail() -> None:
        with backend.transaction():
            backend.create(an_entry("new"))
            replacement.replace(path)

    with pytest.raises(StoreBusyError, match="retry"):
        fail()

    assert backend.read("new") is None
    backend.create(an_entry("new"))
    assert backend.read("new") is not None


def test_a_removed_file_is_reported_until_shutdown(path: Path, backend: JSONBackend) -> None:
    backend.create(an_entry())
    path.unlink()

    for _ in range(2):
        with pytest.raises(StoreMissingError):
            backend.list_all()
        with pytest.raises(StoreMissingError):
            backend.create(an_entry("2"))
    assert not path.exists()
    backend.shutdown()
    assert backend.list_all() == []


def test_a_file_removed_during_a_transaction_is_reported(path: Path, backend: JSONBackend) -> None:
    backend.create(an_entry())

    def fail() -> None:
        with backend.transaction():
            backend.create(an_entry("2"))
            path.unlink()

    with pytest.raises(StoreMissingError):
        fail()

    assert not path.exists()


def test_a_file_put_in_its_place_is_taken(path: Path, backend: JSONBackend, tmp_path: Path) -> None:
    backend.create(an_entry())
    other = JSONBackend(tmp_path / "other.json")
    other.create(an_entry("from the other"))
    (tmp_path / "other.json").replace(path)

    assert [entry.id for entry in backend.list_all()] == ["from the other"]


def test_a_store_can_be_opened_and_read_while_another_writes(path: Path, backend: JSONBackend) -> None:
    backend.create(an_entry())
    with backend.transaction():
        backend.create(an_entry("2"))
        seen = [entry.id for entry in JSONBackend(path, busy_timeout_seconds=0).list_all()]

    assert seen == ["1"]


def test_a_busy_store_is_reported_after_the_timeout(path: Path, backend: JSONBackend) -> None:
    impatient = JSONBackend(path, busy_timeout_seconds=0)
    with backend.transaction(), pytest.raises(StoreBusyError):
        impatient.create(an_entry())


# --- where it lies, who may see it ---------------------------------------------------------------


def test_files_and_directories_are_their_owners_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "memory.json"
    JSONBackend(path).create(an_entry())

    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in [path, *path.parents[:2], *path.parent.iterdir()]}
    assert modes == {"memory.json": 0o600, "memory.json.lock": 0o600, "deep": 0o700, "new": 0o700}


def test_a_link_is_written_through_and_never_replaced(tmp_path: Path) -> None:
    target = tmp_path / "real" / "target.json"
    target.parent.mkdir()
    link = tmp_path / "memory.json"
    link.symlink_to(target)
    linked, direct = JSONBackend(link), JSONBackend(target)
    direct.bootstrap()
    linked.create(an_entry())

    assert link.is_symlink()
    assert direct.read("1") is not None
    with direct.transaction(), pytest.raises(StoreBusyError):
        JSONBackend(link, busy_timeout_seconds=0).delete("1")  # one lock, whichever name is used
    assert (linked.file_path, [each.name for each in tmp_path.glob("memory*")]) == (link, ["memory.json"])


def test_a_directory_in_place_of_the_file_is_a_store_error(path: Path) -> None:
    path.mkdir()

    with pytest.raises(StoreError):
        JSONBackend(path).list_all()


def test_leftovers_of_killed_writers_are_removed_at_opening(path: Path) -> None:
    leftover = path.with_name(".memory.json.123-0badf00d.tmp")
    leftover.write_text("half a fi")
    JSONBackend(path).bootstrap()

    assert not leftover.exists()


def test_construction_touches_nothing(tmp_path: Path) -> None:
    JSONBackend(tmp_path / "new" / "memory.json").for_namespace("alice")

    assert list(tmp_path.iterdir()) == []


def test_read_only_writes_nothing_at_all(path: Path) -> None:
    filled(path)
    path.with_name("memory.json.lock").unlink()
    before = path.stat()
    backend = JSONBackend(path, read_only=True)

    assert backend.count(MemoryQuery()) == 6
    for write in (lambda: backend.create(an_entry("new")), lambda: backend.delete("id-0"), backend.clear):
        with pytest.raises(ReadOnlyStoreError):
            write()
    assert [each.name for each in path.parent.iterdir()] == ["memory.json"]
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_read_only_needs_a_store(path: Path) -> None:
    with pytest.raises(StoreMissingError):
        JSONBackend(path, read_only=True).list_all()

    assert list(path.parent.iterdir()) == []


def test_a_tilde_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))

    assert JSONBackend("~/memory.json").file_path == tmp_path / "memory.json"


def test_unknown_settings_are_refused_with_the_known_ones(path: Path) -> None:
    with pytest.raises(InvalidSettingError, match="durability must be 'full' or 'normal'"):
        JSONBackend(path, durability="ful")  # type: ignore[arg-type]  # what is tested
    with pytest.raises(InvalidSettingError, match="busy_timeout_seconds"):
        JSONBackend(path, busy_timeout_seconds=-1)
    with pytest.raises(InvalidEntryError, match="namespace"):
        JSONBackend(path, namespace="")


def test_a_pickled_copy_opens_for_itself(path: Path, backend: JSONBackend) -> None:
    alice = backend.for_namespace("alice")
    alice.create(an_entry())
    copy = pickle.loads(pickle.dumps(alice))
    backend.shutdown()

    assert (copy.namespace, copy.file_path, copy.read("1")) == ("alice", path, an_entry())


def test_a_pickled_copy_keeps_its_options(path: Path) -> None:
    filled(path)
    copy = pickle.loads(pickle.dumps(JSONBackend(path, read_only=True)))

    with pytest.raises(ReadOnlyStoreError):
        copy.delete("id-0")


def test_shutdown_closes_every_file(path: Path) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("cannot count open files here")

    def opened() -> list[str]:
        """Return the open files of the store; other tests leave descriptors that are closed at any time."""
        names = [os.path.realpath(each) for each in descriptors.iterdir()]
        return [name for name in names if name.startswith(str(path.parent))]

    backend = JSONBackend(path)
    for number in range(5):
        backend.create(an_entry(str(number)))
    while_open = opened()
    backend.shutdown()
    backend.shutdown()

    assert while_open
    assert opened() == []


# --- transactions as this backend makes them -----------------------------------------------------


def test_other_threads_see_nothing_of_an_open_transaction(backend: JSONBackend) -> None:
    backend.create(an_entry())
    seen: list[list[str]] = []

    def look() -> None:
        seen.append([entry.id for entry in backend.list_all()])

    with backend.transaction():
        backend.create(an_entry("2"))
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    assert seen == [["1"]]


def test_a_transaction_left_in_another_thread_keeps_nothing_and_frees_the_lock(backend: JSONBackend) -> None:
    transaction = backend.transaction()
    transaction.__enter__()
    backend.create(an_entry())
    errors: list[BaseException] = []

    def leave() -> None:
        try:
            transaction.__exit__(None, None, None)
        except TransactionError as error:
            errors.append(error)

    thread = threading.Thread(target=leave)
    thread.start()
    thread.join()

    assert len(errors) == 1
    assert backend.list_all() == []
    backend.create(an_entry())


FORKED = """
import os, sys
from jarvis.errors import StoreBusyError, TransactionError
from jarvis.json_backend import JSONBackend
from jarvis.model.entry import MemoryEntry
backend = JSONBackend(sys.argv[1], busy_timeout_seconds=0)
backend.create(MemoryEntry("1", "tasks", "k", {}))
child = None
try:
    with backend.transaction():
        backend.create(MemoryEntry("2", "tasks", "k", {}))
        child = os.fork()
        if child == 0:
            assert [entry.id for entry in backend.list_all()] == ["1"]
            try:
                backend.create(MemoryEntry("3", "tasks", "k", {}))
            except StoreBusyError:
                print("busy", flush=True)
        else:
            assert os.waitpid(child, 0)[1] == 0
except TransactionError:
    assert child == 0
    print("left", flush=True)
    os._exit(0)
backend.create(MemoryEntry("4", "tasks", "k", {}))
print(*sorted(entry.id for entry in backend.list_all()))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_cannot_commit_the_transaction_of_its_parent(path: Path) -> None:
    assert finished(run(FORKED, path)).split("\n") == ["busy", "left", "1 2 4", ""]


def test_a_moment_is_later_than_every_one_before_in_any_process(path: Path, backend: JSONBackend) -> None:
    with backend.transaction():
        first = backend.moment(MOMENT)
        backend.create(an_entry("1", timestamp=first))
    other = JSONBackend(path)
    with other.transaction():
        second = other.moment(MOMENT - timedelta(days=1))

    assert (first, second) == (MOMENT, MOMENT + timedelta(microseconds=1))
    with pytest.raises(TransactionError):
        backend.moment(MOMENT)


# --- indexes -------------------------------------------------------------------------------------


def test_indexed_answers_equal_the_meaning_of_the_query(backend: JSONBackend) -> None:
    chance = random.Random(7)

    def some(names: str) -> str | None:
        return None if chance.random() < 0.4 else chance.choice(names)

    def a_query() -> MemoryQuery:
        tags = chance.choice([None, None, [], ["a"], ["a", "b"], ["a", "b", "absent"]])
        return MemoryQuery(
            category=some("xyz"),
            key=some("kl"),
            entity_type=some("t"),
            entity_id=some("12"),
            tags=tags,
            tags_match=chance.choice(["any", "all"]),
            since=chance.choice([None, MOMENT + timedelta(seconds=2)]),
            until=chance.choice([None, MOMENT + timedelta(seconds=4)]),
            where=chance.choice([None, {"n": {"$gt": 20}}]),
            after=chance.choice([None, f"{instant_of(MOMENT) + 3_000_000}:30:"]),
            limit=chance.choice([None, 0, 1, 5]),
        )

    def fail(entry: MemoryEntry) -> None:
        with backend.transaction():
            backend.clear()
            backend.create(entry)
            raise KeyError

    with backend.transaction():
        for number in range(300):
            entry_id = str(chance.randrange(60))
            entry = an_entry(
                entry_id,
                {"n": number % 40},
                category=chance.choice("xy"),
                key=chance.choice("kl"),
                entity_type=chance.choice(["t", ""]),
                entity_id=some("12"),
                tags=chance.choices("abc", k=chance.randrange(4)),
                timestamp=MOMENT + timedelta(seconds=chance.randrange(6)),
            )
            if backend.read(entry_id) is None:
                backend.create(entry)
            elif chance.random() < 0.3:
                backend.delete(entry_id)
            else:
                backend.update(entry)
            query = a_query()
            everything = sorted(backend.list_all(), key=lambda entry: entry.order, reverse=True)
            expected = list(filter(query.matches, everything))[: query.limit]
            assert backend.select(query) == expected == list(backend.iterate(query))
            assert backend.count(query) == len(expected)
            if chance.random() < 0.2:
                with pytest.raises(KeyError):
                    fail(entry)
                assert backend.select(query) == expected
