"""Repairs: every sound memory of a damaged store comes back, what is gone is named, and nothing else is invented."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jarvis._sqlite import engine
from jarvis.async_memory import AsyncMemoryModule
from jarvis.conformance.fixtures import FakeClock
from jarvis.errors import (
    CorruptStoreError,
    KeyUnavailableError,
    StoreAccessError,
    StoreError,
    StoreMissingError,
    UnsupportedError,
)
from jarvis.keys import KeyFile, Passphrase
from jarvis.moving import repair
from jarvis.persistent_memory import MemoryModule
from tests.safety import model
from tests.test_migrating import START, generated
from tests.test_third_party import FormerBackend

FILES = {"sqlite": "memory.db", "sealed": "memory.db", "json": "memory.json"}
PAGE = {"sqlite": 4_096, "sealed": 1_024}
STORES = Path(__file__).parent / "stores"


def options_of(kind: str, tmp_path: Path) -> dict[str, Any]:
    if kind == "sealed":
        key = tmp_path / "key"
        return {"encryption": "on", "keys": [KeyFile(key) if key.exists() else KeyFile.create(key)]}
    return {"backend_type": kind}


def filled(memory: MemoryModule, count: int = 400) -> dict[tuple[str, str], tuple[str, int, int]]:
    """Fill two namespaces; return namespace and id of each memory with its key, version and number of past states."""
    chance = random.Random(3)
    names = ("default", "alice")
    for name in names:
        part = memory.for_namespace(name)
        ids = part.create_memories(
            [
                {
                    "category": f"c{number % 40}",
                    "key": f"{name} {number}",
                    "value": {"n": number, "text": os.urandom(chance.choice([9, 90, 900, 3_000])).hex()},
                    "entity_type": "thing",
                    "tags": [f"t{number % 7}"],
                }
                for number in range(count // 2)
            ]
        )
        for memory_id in ids[::9]:
            part.update_memory(memory_id, value={"n": -1})
        part.delete_memory(ids[5])
    return contents(memory)


def contents(memory: MemoryModule) -> dict[tuple[str, str], tuple[str, int, int]]:
    parts = [memory.for_namespace(name) for name in memory.store.list_namespaces()]
    return {
        (part.namespace, entry.id): (entry.key, entry.version, len(part.get_history(entry.id)))
        for part in parts
        for entry in part.list_memories()
    }


@pytest.mark.parametrize("kind", ["sqlite", "sealed"])
def test_of_a_store_with_any_one_damaged_page_nearly_all_comes_back(kind: str, tmp_path: Path) -> None:
    options = options_of(kind, tmp_path)
    with MemoryModule(storage_dir=tmp_path / "store", **options) as memory:
        before = filled(memory)
    path = tmp_path / "store" / "memory.db"
    whole = path.read_bytes()
    pages = range(len(whole) // PAGE[kind])
    chance = random.Random(9)
    for page in [0, *chance.sample(pages, 14 if kind == "sealed" else 24)]:
        damaged = bytearray(whole)
        damaged[page * PAGE[kind] : (page + 1) * PAGE[kind]] = chance.randbytes(PAGE[kind])
        path.write_bytes(damaged)

        report = repair(tmp_path / "store", tmp_path / f"new {page}", keys=options.get("keys", ()))

        with MemoryModule(storage_dir=tmp_path / f"new {page}", **options) as new:
            after = contents(new)
        missing = {place for place in before if place not in after}
        assert len(after) >= 0.95 * len(before), page
        assert missing <= {*report.lost}, page
        assert all(after[place][:2] == before[place][:2] for place in after), page
        assert path.read_bytes() == damaged


def test_a_page_that_the_disk_cannot_read_costs_no_other_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with MemoryModule(storage_dir=tmp_path / "store") as memory:
        before = filled(memory)
    read, bad = os.pread, (tmp_path / "store" / "memory.db").stat().st_size // 4096 // 2 * 4096

    def failing(descriptor: int, size: int, offset: int) -> bytes:
        if size == 4096 and offset == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", failing)
    report = repair(tmp_path / "store", tmp_path / "new")

    monkeypatch.undo()
    after = contents(MemoryModule(storage_dir=tmp_path / "new"))
    assert 0.95 * len(before) <= len(after)
    assert {*before} - {*after} <= {*report.lost}


def test_a_row_whose_types_are_damaged_costs_no_other_one(tmp_path: Path) -> None:
    path = tmp_path / "store" / "memory.db"
    with MemoryModule(storage_dir=tmp_path / "store") as memory:
        damaged = memory.create_memory("notes", "one", {"n": 1}, "note")
        memory.create_memory("notes", "two", {"n": 2}, "note")
    whole = path.read_bytes()
    of_row = whole.rindex(damaged.encode(), 0, whole.index(b'[{"n":1}'))  # its types stand before it
    for at in range(of_row - 15, of_row):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 8]) + whole[at + 1 :])

        repair(tmp_path / "store", tmp_path / f"new {at}")

        assert MemoryModule(storage_dir=tmp_path / f"new {at}").get_memory_by_key("two", "notes") is not None


@pytest.mark.parametrize("kind", FILES)
def test_of_a_sound_store_all_comes_back(kind: str, tmp_path: Path) -> None:
    options = options_of(kind, tmp_path)
    with MemoryModule(storage_dir=tmp_path / "store", **options) as memory:
        before = filled(memory, 60)

        report = memory.store.repair(tmp_path / "new")

        with MemoryModule(storage_dir=tmp_path / "new", **options) as new:
            assert contents(new) == before
            assert new.list_memories() == memory.list_memories()
            assert [len(new.get_history(each.id)) for each in new.list_memories()]
    assert (report.memories, report.past_states, report.lost) == (62 - 2, 10, ())


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("compression", ["auto", "off"])
def test_each_state_comes_back_as_it_was_and_in_the_form_of_today(kind: str, compression: Any, tmp_path: Path) -> None:
    clock = FakeClock(START)
    options = {**options_of(kind, tmp_path), "compression": compression, "clock": clock}
    memory = MemoryModule(storage_dir=tmp_path / "store", **options)
    generated(memory, clock, 300)
    memory.create_memory("c", "large", {"text": "large " * 2_000}, "note", timestamp=datetime(1999, 1, 1, tzinfo=UTC))
    for hours in range(3):
        memory.set_user_preference("renewed", {"n": 1})
        clock.step(hours=2 + hours)

    memory.store.repair(tmp_path / "new")

    new = MemoryModule(storage_dir=tmp_path / "new", **options)
    assert wholes_of(new) == wholes_of(memory)
    assert new.store.verify().problems == {}
    if kind == "sqlite":
        assert bodies_in(tmp_path / "new") == bodies_in(tmp_path / "store")


def bodies_in(directory: Path) -> list[str]:
    connection = engine.opened(str(directory / "memory.db"), None)
    bodies = sorted(body for (body,) in connection.execute("SELECT body FROM entries"))
    connection.close()
    return bodies


def wholes_of(memory: MemoryModule) -> dict[tuple[str, str], bytes]:
    """Return what is known of each memory, but for what is missing in its past."""
    parts: list[Any] = [memory.for_namespace(name).backend for name in memory.store.list_namespaces()]
    return {
        (whole.namespace, whole.id): msgspec.json.encode(msgspec.structs.replace(whole, lost=None))
        for part in parts
        for whole in part.whole_memories(past=True)
        if whole.entry or whole.past
    }


def test_the_newer_one_of_two_rows_of_a_memory_comes_back(tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path / "store", durability="normal")
    ids = memory.create_memories(
        [{"category": "c", "key": f"{n}", "value": {"text": "old" * 300}, "entity_type": "t"} for n in range(40)]
    )
    memory.shutdown()
    path = tmp_path / "store" / "memory.db"
    old = path.read_bytes()
    tables = [at for at in range(0, len(old), 4096) if old[at] == 13 and ids[0].encode() in old[at : at + 4096]]
    memory.update_memory(ids[0], value={"text": "new" * 300})
    memory.shutdown()
    data = bytearray(path.read_bytes())
    for at in tables:  # as if the disk had not written that page
        data[at : at + 4096] = old[at : at + 4096]
    path.write_bytes(data)

    report = repair(tmp_path / "store", tmp_path / "new")

    new = MemoryModule(storage_dir=tmp_path / "new")
    entry = new.get_memory(ids[0])
    assert entry is not None
    assert entry.value == {"text": "new" * 300}
    assert (report.memories, report.lost) == (40, ())


def test_what_was_erased_does_not_come_back(tmp_path: Path) -> None:
    with MemoryModule(storage_dir=tmp_path / "store") as memory:
        filled(memory, 100)
        gone = memory.create_memory("secrets", "mine", {"text": "canary " * 900}, "note", tags=["canary"])
        memory.update_memory(gone, value={"text": "canary"})
        memory.erase_memory(gone)

        memory.store.repair(tmp_path / "new")

    assert b"canary" not in (tmp_path / "new" / "memory.db").read_bytes()
    assert gone not in str(contents(MemoryModule(storage_dir=tmp_path / "new")))


@pytest.mark.parametrize("kind", ["sqlite", "sealed"])
def test_the_log_of_a_killed_process_is_read(kind: str, tmp_path: Path) -> None:
    options = options_of(kind, tmp_path)
    memory = MemoryModule(storage_dir=tmp_path / "store", **options)
    for number in range(50):
        memory.set_user_preference(f"k{number}", {"n": number})
    shutil.copytree(tmp_path / "store", tmp_path / "killed")  # as a killed process leaves it
    log = (tmp_path / "killed" / "memory.db-wal").read_bytes()
    assert len(log) > 50_000

    report = repair(tmp_path / "killed", tmp_path / "new", keys=options.get("keys", ()))

    assert report.memories == 50
    assert (tmp_path / "killed" / "memory.db-wal").read_bytes() == log


def test_a_memory_whose_present_state_is_gone_is_named_and_keeps_its_past(tmp_path: Path) -> None:
    with MemoryModule(storage_dir=tmp_path / "store") as memory:
        memory_id = memory.create_memory("notes", "tea", {"n": "first state"}, "note")
        memory.update_memory(memory_id, value={"n": "second state"})
    path = tmp_path / "store" / "memory.db"
    path.write_bytes(path.read_bytes().replace(b"second state", b"sacond state"))

    report = repair(tmp_path / "store", tmp_path / "new")

    assert report.lost == (("default", memory_id),)
    new = MemoryModule(storage_dir=tmp_path / "new")
    assert new.get_memory(memory_id) is None
    assert [each.entry.value for each in new.get_history(memory_id)] == [{"n": "first state"}]
    assert new.restore_memory(memory_id, version=1)


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6])
def test_stores_of_earlier_versions_are_repaired(version: int, tmp_path: Path) -> None:
    found = sorted(STORES.glob(f"version-{version}*.db"))
    if not found:
        pytest.skip("no store of this version is kept")
    (tmp_path / "store").mkdir()
    shutil.copy(found[0], tmp_path / "store" / "memory.db")
    report = repair(tmp_path / "store", tmp_path / "new")
    old, new = MemoryModule(storage_dir=tmp_path / "store"), MemoryModule(storage_dir=tmp_path / "new")
    assert {place: what[:2] for place, what in contents(new).items()} == {
        place: what[:2] for place, what in contents(old).items()
    }
    assert report.lost == ()
    assert new.store.verify().problems == {}
    assert all(body.startswith("[") for body in bodies_in(tmp_path / "new"))


# --- a JSON store --------------------------------------------------------------------------------


def damaged_at(text: bytes, at: int, byte: bytes) -> bytes:
    return text[:at] + byte + text[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text, at: damaged_at(text, text.index(b'"', at), b"'"),
        lambda text, at: damaged_at(text, text.index(b"{", at), b"["),
        lambda text, at: damaged_at(text, text.index(b"\n    }", at) + 5, b"x"),
        lambda text, at: damaged_at(text, text.index(b":", at), b";"),
        lambda text, at: damaged_at(text, text.index(b'"', text.index(b"position", at)), b"\xff"),
        lambda text, at: damaged_at(text, text.index(b"\n", at + 60), b" "),
        lambda text, at: text.replace(text[at : at + 20], b"\0" * 20),
        lambda text, at: text[:at] + text[text.index(b"\n", text.index(b'"timestamp"', at)) :],
    ],
)
def test_every_other_memory_of_a_json_store_comes_back(damage: Callable[[bytes, int], bytes], tmp_path: Path) -> None:
    with MemoryModule(storage_dir=tmp_path / "store", backend_type="json") as memory:
        before = filled(memory, 40)
    path = tmp_path / "store" / "memory.json"
    whole = path.read_bytes()
    ids = [entry_id for name, entry_id in before if name == "default"]
    for entry_id in (ids[0], ids[7], ids[-1]):
        at = whole.index(b'    "%b": {' % entry_id.encode())
        path.write_bytes(damage(whole, at + 4))
        shutil.rmtree(tmp_path / "new", ignore_errors=True)

        repair(tmp_path / "store", tmp_path / "new")

        after = contents(MemoryModule(storage_dir=tmp_path / "new", backend_type="json"))
        assert {place for place in before if place not in after} <= {("default", entry_id)}
        assert {place: after[place][:2] for place in after} == {place: before[place][:2] for place in after}


def test_a_json_store_that_was_cut_short_gives_what_is_there(tmp_path: Path) -> None:
    with MemoryModule(storage_dir=tmp_path / "store", backend_type="json") as memory:
        before = filled(memory, 40)
    path = tmp_path / "store" / "memory.json"
    whole = path.read_bytes()
    for share in (0.2, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        shutil.rmtree(tmp_path / "new", ignore_errors=True)
        report = repair(tmp_path / "store", tmp_path / "new")
        after = contents(MemoryModule(storage_dir=tmp_path / "new", backend_type="json"))
        assert all(before[place][:2] == after[place][:2] for place in after)
        assert len(after) >= int(len(before) * share * 0.3), share
        assert report.memories >= len(after)


def test_a_namespace_whose_name_is_damaged_is_not_given_to_another(tmp_path: Path) -> None:
    with MemoryModule(storage_dir=tmp_path / "store", backend_type="json") as memory:
        before = filled(memory, 40)
    path = tmp_path / "store" / "memory.json"
    path.write_bytes(path.read_bytes().replace(b'    "alice": {', b"    'alice\": {"))

    report = repair(tmp_path / "store", tmp_path / "new")

    after = contents(MemoryModule(storage_dir=tmp_path / "new", backend_type="json"))
    assert after == {place: what for place, what in before.items() if place[0] == "default"}
    assert report.memories == len(after) + 1  # and a deleted one


@pytest.mark.parametrize("kind", ["sqlite", "json"])
def test_a_namespace_may_be_called_like_an_unknown_one(kind: str, tmp_path: Path) -> None:
    with MemoryModule(storage_dir=tmp_path / "store", backend_type=kind, namespace="?") as memory:
        memory.set_user_preference("theme", {"mode": "dark"})

    assert repair(tmp_path / "store", tmp_path / "new").memories == 1


def test_a_json_store_of_one_line_is_repaired_too(tmp_path: Path) -> None:
    with MemoryModule(storage_dir=tmp_path / "store", backend_type="json") as memory:
        before = filled(memory, 40)
    path = tmp_path / "store" / "memory.json"
    document = json.loads(path.read_text())
    gone = next(iter(document["entries"]))
    document["entries"][gone]["version"] = "x"
    path.write_text(json.dumps(document))

    report = repair(tmp_path / "store", tmp_path / "new")

    after = contents(MemoryModule(storage_dir=tmp_path / "new", backend_type="json"))
    assert {*before} - {*after} == {("default", gone)}
    assert report.lost == (("default", gone),)


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "json"])
def test_a_module_that_writes_nothing_repairs_as_well(kind: str, tmp_path: Path) -> None:
    with MemoryModule(storage_dir=tmp_path / "store", backend_type=kind) as memory:
        memory.set_user_preference("theme", {"mode": "dark"})
    without: list[dict[str, Any]] = [{"read_only": True}, {"create": False}]
    for options in without:
        reader = MemoryModule(storage_dir=tmp_path / "store", backend_type=kind, **options)
        new = tmp_path / f"new {options}"

        assert reader.store.repair(new).memories == 1
        assert MemoryModule(storage_dir=new, backend_type=kind).get_user_preferences() == {"theme": {"mode": "dark"}}


def test_a_directory_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    with MemoryModule(storage_dir=tmp_path / "store") as memory:
        memory.set_user_preference("theme", {"mode": "dark"})
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "file").write_text("x")
        (tmp_path / "file").write_text("x")
        (tmp_path / "empty").mkdir()
        for target in (tmp_path / "mine", tmp_path / "store", tmp_path / "file"):
            with pytest.raises(StoreAccessError, match=str(target)):
                memory.store.repair(target)
        assert memory.store.repair(tmp_path / "empty").memories == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "mine", "store"]


_KILLED = """
import os, signal, sys
from jarvis.moving import repair
repair(sys.argv[1], sys.argv[2], progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.mark.parametrize("kind", ["sqlite", "json"])
def test_what_a_killed_repair_left_is_removed_by_the_next_one(kind: str, tmp_path: Path) -> None:
    with MemoryModule(storage_dir=tmp_path / "store", backend_type=kind) as memory:
        before = filled(memory, 40)
    for _ in range(2):
        subprocess.run([sys.executable, "-c", _KILLED, tmp_path / "store", tmp_path / "new"], check=False)
        left = sorted(path.name for path in tmp_path.iterdir())
        assert left[0].startswith(".new.")
        assert any(name.endswith(".part") for name in left)
    (tmp_path / ".newer.1-01234567.part").mkdir()  # of another target

    repair(tmp_path / "store", tmp_path / "new")

    assert sorted(path.name for path in tmp_path.iterdir()) == [".newer.1-01234567.part", "new", "store"]
    assert contents(MemoryModule(storage_dir=tmp_path / "new", backend_type=kind)) == before


def test_of_two_repairs_into_one_directory_the_later_one_waits_and_is_refused(tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path / "store")
    before = filled(memory, 40)
    late: list[StoreAccessError] = []

    def repair_too() -> None:
        try:
            memory.store.repair(tmp_path / "new")
        except StoreAccessError as error:
            late.append(error)

    thread = threading.Thread(target=repair_too)

    def overtaken(*_: int) -> None:
        if thread.ident is None:
            thread.start()
            thread.join(timeout=0.2)
            assert thread.is_alive()

    repair(tmp_path / "store", tmp_path / "new", progress=overtaken)
    thread.join()

    assert "is not empty" in str(late[0])
    assert contents(MemoryModule(storage_dir=tmp_path / "new")) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "store"]


def test_an_error_of_a_progress_function_leaves_nothing_and_stays_as_it_is(tmp_path: Path) -> None:
    with MemoryModule(storage_dir=tmp_path / "store") as memory:
        filled(memory, 40)

    def broken(*_: int) -> None:
        raise ConnectionError("of the caller")

    with pytest.raises(ConnectionError, match=r"^of the caller$"):
        repair(tmp_path / "store", tmp_path / "below" / "new", progress=broken)
    assert list((tmp_path / "below").iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    with MemoryModule(storage_dir=tmp_path / "store") as memory:
        filled(memory)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        with pytest.raises(StoreError):
            repair(tmp_path / "store", tmp_path / "new")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreMissingError, match="absent"):
        repair(tmp_path / "absent", tmp_path / "new")
    sealed = MemoryModule(storage_dir=tmp_path / "sealed", encryption="on", keys=[Passphrase("a passphrase")])
    sealed.set_user_preference("theme", {"mode": "dark"})
    sealed.shutdown()
    (tmp_path / "new").mkdir()
    with pytest.raises(KeyUnavailableError):
        repair(tmp_path / "sealed", tmp_path / "new")
    (tmp_path / "new").rmdir()  # it is still there
    with pytest.raises(UnsupportedError, match="json, sqlite"):
        MemoryModule(FormerBackend(str(tmp_path))).store.repair(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["memory.db", "memory.json", "picture.jpg"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"some text\n" * 900,
        b"\xff\xd8\xff\xe0" + random.Random(2).randbytes(50_000),
        b'{"a": 1}',
        b"[1, 2]",
        b"SQLite format 3\0" + b"\0" * 9_000,
    ],
)
def test_what_is_no_store_is_refused_by_its_path(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / name).write_bytes(content)
    for path in (tmp_path / "store", tmp_path / "store" / name):
        with pytest.raises(CorruptStoreError, match=rf"store/{name}: is no store of jarvis, or nothing of one is left"):
            repair(path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_sqlite_file_of_another_program_is_no_store(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT)")
        other.execute("INSERT INTO names VALUES (1, 'a')")
        other.commit()

    with pytest.raises(CorruptStoreError, match="is no store of jarvis"):
        repair(tmp_path / "other.db", tmp_path / "new")


def test_an_empty_directory_has_no_store(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(StoreMissingError, match="empty"):
        repair(tmp_path / "empty", tmp_path / "new")


@pytest.mark.parametrize("kind", FILES)
def test_a_store_without_memories_is_repaired(kind: str, tmp_path: Path) -> None:
    options = options_of(kind, tmp_path)
    MemoryModule(storage_dir=tmp_path / "store", **options).bootstrap()

    assert repair(tmp_path / "store", tmp_path / "new", keys=options.get("keys", ())).memories == 0
    assert MemoryModule(storage_dir=tmp_path / "new", **options).list_memories() == []


@pytest.mark.parametrize("kind", ["sqlite", "json"])
def test_a_store_of_the_first_life_is_not_taken_for_an_empty_one(kind: str, tmp_path: Path) -> None:
    model.first_life_store(tmp_path, kind, 5)

    with pytest.raises(CorruptStoreError, match="open it with MemoryModule, which migrates it"):
        repair(tmp_path, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert len(MemoryModule(storage_dir=tmp_path, backend_type=kind).list_memories()) == 5


def test_pages_that_point_at_each_other_end(tmp_path: Path) -> None:
    chance = random.Random(11)
    path = tmp_path / "store" / "memory.db"
    with MemoryModule(storage_dir=tmp_path / "store") as memory:
        memory.create_memory("c", "k", {"text": os.urandom(20_000).hex()}, "note")
    data = bytearray(path.read_bytes())
    for page in range(1, len(data) // 4096):
        if data[page * 4096] not in (2, 5, 10, 13):  # the rest of a long value
            data[page * 4096 : page * 4096 + 4] = (chance.randrange(1, 1 + len(data) // 4096)).to_bytes(4)
    path.write_bytes(data)

    report = repair(tmp_path / "store", tmp_path / "new")

    assert report.memories == 0
    assert len(report.lost) == 1


def test_the_async_face_repairs(tmp_path: Path) -> None:
    async def repaired() -> int:
        async with AsyncMemoryModule(storage_dir=tmp_path / "store") as memory:
            await memory.set_user_preference("theme", {"mode": "dark"})
            return (await memory.store.repair(tmp_path / "new")).memories

    assert asyncio.run(repaired()) == 1
