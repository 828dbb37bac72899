"""Exports and imports: exact, canonical, and honest about damage, conflicts and a full disk."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import stat
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jarvis.async_memory import AsyncMemoryModule
from jarvis.conformance.fixtures import FakeClock
from jarvis.errors import (
    CorruptExportError,
    DuplicateEntryError,
    InvalidSettingError,
    StoreAccessError,
    StoreError,
    StoreFullError,
    StoreTooNewError,
    TransactionError,
)
from jarvis.keys import KeyFile
from jarvis.persistent_memory import HistoryPolicy, MemoryModule
from jarvis.services import transferring
from jarvis.storage_backend import MemoryEntry
from tests.postgresql import a_database
from tests.test_third_party import FormerBackend

KINDS = ("sqlite", "json", "postgresql")
Opens = Callable[[str], MemoryModule]


@pytest.fixture
def opens(tmp_path: Path) -> Iterator[Opens]:
    """Return a function that opens an empty store of a kind."""
    opened: list[MemoryModule] = []
    databases = contextlib.ExitStack()

    def open_one(kind: str) -> MemoryModule:
        if kind == "postgresql":
            memory = MemoryModule(databases.enter_context(a_database()))
        else:
            memory = MemoryModule(storage_dir=tmp_path / f"store-{len(opened)}", backend_type=kind)
        opened.append(memory)
        return memory

    yield open_one
    for memory in opened:
        memory.shutdown()
    databases.close()


def filled(memory: MemoryModule) -> MemoryModule:
    """Return a memory with two namespaces, a past, a deleted memory and one that lasts three days."""
    first = memory.create_memory("notes", "tea", {"n": 1, "tags": {"a", "b"}}, "note", tags=["b", "a"])
    memory.update_memory(first, value={"n": 2, "at": datetime(2026, 3, 1, tzinfo=UTC)}, reason="cold")
    gone = memory.create_memory("notes", "milk", {"n": 1}, "note", ttl=timedelta(days=3))
    memory.delete_memory(gone, module="cleaner")
    memory.set_user_preference("long", {"text": "many words " * 2_000})
    memory.for_namespace("alice").create_memory("tasks", "a", {"big": 2**70, "half": "\ud83d"}, "task", "t-1")
    return memory


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("into", KINDS)
def test_an_export_comes_in_exactly_and_goes_out_in_the_same_bytes(
    opens: Opens, tmp_path: Path, kind: str, into: str
) -> None:
    memory, other = filled(opens(kind)), opens(into)

    report = memory.store.export(tmp_path / "one.jsonl")
    imported = other.store.import_(tmp_path / "one.jsonl")
    other.store.export(tmp_path / "two.jsonl")

    assert (report.memories, imported.created, imported.damaged) == (4, 4, ())
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    assert report.bytes == (tmp_path / "one.jsonl").stat().st_size
    assert memory.store.digest() == other.store.digest()
    for name in ("default", "alice"):
        ours, theirs = memory.for_namespace(name), other.for_namespace(name)
        assert ours.list_memories() == theirs.list_memories()
        for entry in ours.list_memories():
            assert ours.get_history(entry.id) == theirs.get_history(entry.id)


def test_the_file_is_for_its_owner_and_tells_what_it_is(opens: Opens, tmp_path: Path) -> None:
    filled(opens("sqlite")).store.export(tmp_path / "new" / "all.jsonl")

    first, *memories, last = lines_of(tmp_path / "new" / "all.jsonl")
    assert (first["jarvis_export"], first["history"]) == (1, True)
    assert last["memories"] == len(memories) == 4
    assert memories[3]["entry"]["value"] == {"text": "many words " * 2_000}
    assert stat.S_IMODE((tmp_path / "new" / "all.jsonl").stat().st_mode) == 0o600


def test_filters_namespaces_and_the_past_choose_what_is_exported(opens: Opens, tmp_path: Path) -> None:
    memory = filled(opens("sqlite"))

    def exported(**options: Any) -> list[tuple[str, str, int]]:
        memory.store.export(tmp_path / "some.jsonl", overwrite=True, **options)
        states = [(each, each.get("entry") or each["past"][-1]) for each in lines_of(tmp_path / "some.jsonl")[1:-1]]
        return [(each["namespace"], state["key"], len(each.get("past", []))) for each, state in states]

    assert exported(history=False) == [("alice", "a", 0), ("default", "tea", 0), ("default", "long", 0)]
    assert exported(namespaces=["alice"]) == [("alice", "a", 0)]
    assert exported(category="notes") == [("default", "tea", 1), ("default", "milk", 1)]
    assert exported(tags=["a"], where={"n": 2}) == [("default", "tea", 1)]
    assert exported(entity_type="task", entity_id="t-1") == [("alice", "a", 0)]
    assert exported(namespaces=["nobody"]) == []


def test_a_small_namespace_of_a_large_store_is_exported_alone(opens: Opens, tmp_path: Path) -> None:
    memory = filled(opens("sqlite"))
    memory.create_memories([{"category": "c", "key": str(n), "value": {}, "entity_type": ""} for n in range(100)])
    alice = memory.for_namespace("alice")
    for number in range(3):
        alice.set_user_preference(f"n{number}", {"n": number})

    memory.store.export(tmp_path / "alice.jsonl", namespaces=["alice"])

    assert [each["entry"]["key"] for each in lines_of(tmp_path / "alice.jsonl")[1:-1]] == ["a", "n0", "n1", "n2"]


def test_expired_memories_are_left_out(tmp_path: Path) -> None:
    clock = FakeClock(datetime.now(UTC))
    memory = MemoryModule(storage_dir=tmp_path / "store", clock=clock)
    memory.create_memory("notes", "short", {"n": 1}, "note", ttl=timedelta(minutes=1))
    memory.delete_memory(memory.create_memory("notes", "removed", {"n": 1}, "note", ttl=timedelta(minutes=1)))
    clock.step(minutes=1)

    assert memory.store.export(tmp_path / "all.jsonl").memories == 0


def test_an_encrypted_store_is_exported_only_if_told_so(tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path / "store", encryption="on", keys=[KeyFile.create(tmp_path / "key")])
    memory.set_user_preference("theme", {"mode": "dark"})

    with pytest.raises(InvalidSettingError, match="plain_text=True"):
        memory.store.export(tmp_path / "all.jsonl")

    assert not (tmp_path / "all.jsonl").exists()
    assert memory.store.export(tmp_path / "all.jsonl", plain_text=True).memories == 1


def test_a_file_that_is_there_is_kept(opens: Opens, tmp_path: Path) -> None:
    (tmp_path / "all.jsonl").write_text("mine")

    with pytest.raises(StoreAccessError, match="overwrite=True"):
        opens("sqlite").store.export(tmp_path / "all.jsonl")

    with pytest.raises(StoreAccessError, match="is no export"):
        opens("sqlite").store.export(tmp_path / "all.jsonl", overwrite=True)

    assert (tmp_path / "all.jsonl").read_text() == "mine"


def test_what_a_killed_process_left_of_an_export_is_removed_by_the_next_one(opens: Opens, tmp_path: Path) -> None:
    (tmp_path / ".all.jsonl.77-0123abcd.tmp").write_text("secrets")

    filled(opens("sqlite")).store.export(tmp_path / "all.jsonl")

    assert [each.name for each in tmp_path.glob("*all.jsonl*")] == ["all.jsonl"]


def test_of_two_exports_to_one_file_one_is_told_that_it_is_there(opens: Opens, tmp_path: Path) -> None:
    memory, other = filled(opens("sqlite")), filled(opens("json"))
    others: list[Any] = []

    def export_too() -> None:
        try:
            others.append(other.store.export(tmp_path / "all.jsonl"))
        except StoreAccessError as error:
            others.append(error)

    thread = threading.Thread(target=export_too)

    def begin(done: int, total: int) -> None:
        if not thread.ident:
            thread.start()
            thread.join(0.3)

    report = memory.store.export(tmp_path / "all.jsonl", progress=begin)
    thread.join()

    assert isinstance(others[0], StoreAccessError)
    assert memory.store.import_(tmp_path / "all.jsonl").unchanged == report.memories


def test_a_link_to_an_export_is_read(opens: Opens, tmp_path: Path) -> None:
    filled(opens("sqlite")).store.export(tmp_path / "all.jsonl")
    (tmp_path / "link").symlink_to(tmp_path / "all.jsonl")

    assert opens("json").store.import_(tmp_path / "link").created == 4


def test_an_export_that_an_editor_saved_with_other_line_ends_is_read(opens: Opens, tmp_path: Path) -> None:
    filled(opens("sqlite")).store.export(tmp_path / "all.jsonl")
    path = tmp_path / "windows.jsonl"
    path.write_bytes((tmp_path / "all.jsonl").read_bytes().replace(b"\n", b"\r\n"))

    assert opens("json").store.import_(path).created == 4


def test_a_full_disk_leaves_nothing_of_an_export(opens: Opens, tmp_path: Path) -> None:
    memory = opens("sqlite")
    memory.create_memories(
        [{"category": "c", "key": str(n), "value": {"n": os.urandom(500).hex()}, "entity_type": ""} for n in range(900)]
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / "exports").mkdir()
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    try:
        with pytest.raises(StoreError):
            memory.store.export(tmp_path / "exports" / "all.jsonl")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert list((tmp_path / "exports").iterdir()) == []


def test_an_export_inside_a_transaction_is_refused(opens: Opens, tmp_path: Path) -> None:
    memory = filled(opens("sqlite"))

    with memory.transaction(), pytest.raises(TransactionError):
        memory.store.export(tmp_path / "all.jsonl")

    assert not (tmp_path / "all.jsonl").exists()


def test_progress_is_told(opens: Opens, tmp_path: Path) -> None:
    memory, other, told = filled(opens("sqlite")), opens("sqlite"), []

    def tell(*numbers: int) -> None:
        told.append(numbers)

    memory.store.export(tmp_path / "all.jsonl", progress=tell)
    other.store.import_(tmp_path / "all.jsonl", progress=tell)
    other.store.digest(progress=tell)

    assert (4, 4) in told
    assert told[-1] == (4, 4)


async def _carried(memory: MemoryModule, other: MemoryModule, path: Path) -> tuple[int, int, bool]:
    one, two = AsyncMemoryModule.of(memory), AsyncMemoryModule.of(other)
    exported = await one.store.export(path)
    imported = await two.store.import_(path)
    return exported.memories, imported.created, await one.store.digest() == await two.store.digest()


def test_the_async_face_exports_and_imports(opens: Opens, tmp_path: Path) -> None:
    import asyncio

    memory, other = filled(opens("sqlite")), opens("json")
    assert asyncio.run(_carried(memory, other, tmp_path / "all.jsonl")) == (4, 4, True)


# --- imports -------------------------------------------------------------------------------------


@pytest.fixture
def exported(opens: Opens, tmp_path: Path) -> Path:
    """Return an export of `filled`."""
    path = tmp_path / "all.jsonl"
    filled(opens("sqlite")).store.export(path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_an_import_is_continued_and_changes_nothing_that_is_there(opens: Opens, exported: Path, kind: str) -> None:
    memory = opens(kind)
    memory.store.import_(exported, namespaces=["alice"])

    planned = memory.store.import_(exported, dry_run=True)
    done = memory.store.import_(exported)
    again = memory.store.import_(exported)

    assert (planned.created, planned.unchanged) == (done.created, 3 - done.created + 1) == (3, 1)
    assert (again.created, again.unchanged) == (0, 4)
    memory.store.export(exported.with_name("again.jsonl"))
    assert exported.read_bytes() == exported.with_name("again.jsonl").read_bytes()


def test_a_dry_run_writes_nothing(opens: Opens, exported: Path) -> None:
    memory = opens("sqlite")

    assert memory.store.import_(exported, dry_run=True).created == 4
    assert memory.store.list_namespaces() == []
    assert memory.store.digest() == opens("json").store.digest()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("on_conflict", "n", "counts"),
    [("skip", 3, (0, 1)), ("replace", 2, (1, 0)), ("newer", 3, (0, 1))],
)
def test_what_another_memory_here_meets(
    opens: Opens, exported: Path, kind: str, on_conflict: Any, n: int, counts: tuple[int, int]
) -> None:
    memory = opens(kind)
    memory.store.import_(exported)
    (tea,) = memory.get_memories_by_category("notes")
    memory.update_memory(tea.id, value={"n": 3})

    with pytest.raises(DuplicateEntryError, match=tea.id):
        memory.store.import_(exported)
    assert memory.get_memory(tea.id).value == {"n": 3}  # type: ignore[union-attr]  # it is there
    report = memory.store.import_(exported, on_conflict=on_conflict)

    entry = memory.get_memory(tea.id)
    assert entry is not None
    assert (entry.value["n"], report.replaced, report.skipped) == (n, *counts)
    if report.replaced:
        assert entry.version == 4
        assert memory.get_history(tea.id)[0].reason == "imported from all.jsonl"
        assert memory.store.import_(exported, on_conflict="replace").unchanged == 4
        assert memory.undo(tea.id)
        assert memory.get_memory(tea.id).value == {"n": 3}  # type: ignore[union-attr]  # it is there


@pytest.mark.parametrize("kind", KINDS)
def test_a_memory_that_was_deleted_here_is_a_conflict(opens: Opens, exported: Path, kind: str) -> None:
    memory = opens(kind)
    memory.store.import_(exported)
    (tea,) = memory.get_memories_by_category("notes")
    memory.delete_memory(tea.id)

    with pytest.raises(DuplicateEntryError):
        memory.store.import_(exported)
    assert memory.store.import_(exported, on_conflict="skip").skipped == 1
    assert memory.store.import_(exported, on_conflict="newer").skipped == 1
    assert memory.get_memory(tea.id) is None
    assert memory.store.import_(exported, on_conflict="replace").replaced == 1

    back = memory.get_memory(tea.id)
    assert back is not None
    assert (back.value["n"], back.timestamp, back.version) == (2, tea.timestamp, 3)


def test_an_import_deletes_nothing(opens: Opens, exported: Path) -> None:
    memory = opens("sqlite")
    memory.store.import_(exported)
    (milk,) = [each["id"] for each in lines_of(exported)[1:-1] if "entry" not in each]
    memory.restore_memory(milk, version=1)

    report = memory.store.import_(exported, on_conflict="replace")

    assert report.skipped == 1
    assert memory.get_memory(milk) is not None


def test_memories_that_come_into_a_store_with_others_are_new_there(opens: Opens, exported: Path) -> None:
    memory = opens("sqlite")
    memory.set_user_preference("mine", {"n": 1})
    then, cursor = datetime.now(UTC), memory.newest_cursor()

    memory.store.import_(exported)

    assert [entry.key for entry in memory.list_memories()] == ["mine", "long", "tea"]
    assert [entry.key for entry in memory.search_memories(as_of=then)] == ["mine"]
    told = [(change.operation, change.key) for change in memory.changes(cursor)]
    assert {("create", "tea"), ("update", "tea"), ("create", "long"), ("delete", "milk")} <= {*told}


@pytest.mark.parametrize("kind", KINDS)
def test_a_memory_that_comes_back_into_the_store_that_made_the_file_is_new_there(
    opens: Opens, tmp_path: Path, kind: str
) -> None:
    memory = filled(opens(kind))
    (tea,) = memory.get_memories_by_category("notes")
    memory.store.export(tmp_path / "all.jsonl")
    memory.erase_memory(tea.id)
    memory.set_user_preference("after", {"n": 1})
    before = datetime.now(UTC)

    assert memory.store.import_(tmp_path / "all.jsonl").created == 1

    assert memory.get_memory(tea.id) is not None
    assert memory.get_memory(tea.id, as_of=before) is None


@pytest.mark.parametrize("on_conflict", ["error", "skip", "replace", "newer"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_memory_that_has_expired_here_is_in_no_ones_way(
    opens: Opens, tmp_path: Path, kind: str, on_conflict: Any
) -> None:
    memory, other = opens("sqlite"), opens(kind)
    tea = memory.create_memory("notes", "tea", {"n": 1}, "note", ttl=timedelta(hours=1))
    memory.store.export(tmp_path / "early.jsonl")
    memory.touch_memory(tea, ttl=timedelta(days=9))
    memory.store.export(tmp_path / "late.jsonl")
    other.store.import_(tmp_path / "early.jsonl")
    later = datetime.now(UTC) + timedelta(days=1)
    other = MemoryModule(other.backend, clock=lambda: later)

    report = other.store.import_(tmp_path / "late.jsonl", on_conflict=on_conflict)

    assert (report.created, report.skipped) == (1, 0)
    assert other.get_memory(tea) is not None


def test_a_damaged_line_is_named_and_loses_no_other_one(opens: Opens, exported: Path) -> None:
    whole = exported.read_bytes()
    lines = whole.splitlines(keepends=True)
    chance = random.Random(5)
    for number in range(1, len(lines) - 1):
        for _ in range(12):
            at = sum(map(len, lines[:number])) + chance.randrange(len(lines[number]) - 1)
            flipped = whole[at] ^ (1 << chance.randrange(7))
            if flipped == ord("\n"):
                continue
            exported.write_bytes(whole[:at] + bytes([flipped]) + whole[at + 1 :])

            report = opens("json").store.import_(exported, incomplete=True)

            assert [each.line for each in report.damaged] == [number + 1], (number, at, whole[at : at + 1])
            assert report.created == 3


@pytest.mark.parametrize("line", [0, -1])
def test_a_damaged_first_or_last_line_is_refused_and_can_be_left_out(opens: Opens, exported: Path, line: int) -> None:
    lines = exported.read_bytes().splitlines(keepends=True)
    lines[line] = b"#" + lines[line][1:]
    exported.write_bytes(b"".join(lines))
    memory = opens("sqlite")

    with pytest.raises(CorruptExportError):
        memory.store.import_(exported)

    assert memory.store.list_namespaces() == []
    assert memory.store.import_(exported, incomplete=True).created == 4


def test_a_file_that_is_not_whole_is_refused(opens: Opens, exported: Path) -> None:
    whole = exported.read_bytes()
    lines = whole.splitlines(keepends=True)
    memory = opens("sqlite")
    for content in (
        whole[:-1_000],
        whole[: len(lines[0]) + 20],
        b"".join([*lines[:2], *lines[3:]]),
        b"".join([*lines[:2], lines[1], *lines[2:]]),
        b"".join([lines[0], *lines[2:4], lines[1], *lines[4:]]),
        b"",
        b"{}\n",
        b"\x00\xff" * 100,
        b"[" * 5_000,
    ):
        exported.write_bytes(content)
        with pytest.raises(CorruptExportError, match=r"all\.jsonl.*incomplete=True"):
            memory.store.import_(exported)
    assert memory.store.list_namespaces() == []


def test_a_line_that_was_changed_on_purpose_is_taken(opens: Opens, exported: Path) -> None:
    lines = exported.read_bytes().splitlines(keepends=True)
    number = next(number for number, line in enumerate(lines) if b'"alice"' in line)
    changed = json.loads(lines[number])
    del changed["crc"]
    changed["entry"]["value"] = {"mine": True}
    exported.write_bytes(b"".join([*lines[:number], json.dumps(changed).encode() + b"\n", *lines[number + 1 :]]))
    memory = opens("sqlite")

    assert memory.store.import_(exported).created == 4
    (entry,) = memory.for_namespace("alice").list_memories()
    assert entry.value == {"mine": True}


@pytest.mark.parametrize(
    "change",
    [
        {"namespace": ""},
        {"namespace": "\0"},
        {"id": "\0"},
        {"unknown": 1},
        {"entry": {"category": "c"}},
        {"entry": None},
        {"past": [{}]},
    ],
)
def test_a_line_with_content_that_cannot_be_stored_is_named(
    opens: Opens, exported: Path, change: dict[str, Any]
) -> None:
    lines = exported.read_bytes().splitlines(keepends=True)
    changed = {**json.loads(lines[1]), **change}
    del changed["crc"]
    exported.write_bytes(b"".join([lines[0], json.dumps(changed).encode() + b"\n", *lines[2:]]))

    report = opens("sqlite").store.import_(exported)

    assert [each.line for each in report.damaged] == [2]
    assert report.created == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gone", [{"entry": None}, {}], ids=["null", "left out"])
@pytest.mark.parametrize("dry_run", [True, False])
def test_a_memory_that_was_removed_by_hand_but_not_by_its_last_change_is_named(
    opens: Opens, exported: Path, kind: str, gone: dict[str, None], dry_run: bool
) -> None:
    lines = exported.read_bytes().splitlines(keepends=True)
    number = next(number for number, line in enumerate(lines) if b'"tea"' in line)
    changed = json.loads(lines[number])
    assert changed["past"][-1]["ended"]["operation"] == "update"
    del changed["crc"], changed["entry"]
    changed |= gone
    exported.write_bytes(b"".join([*lines[:number], json.dumps(changed).encode() + b"\n", *lines[number + 1 :]]))

    report = opens(kind).store.import_(exported, dry_run=dry_run)

    assert [(each.line, each.problem) for each in report.damaged] == [
        (number + 1, 'has no "entry", although its last change is no removal')
    ]
    assert report.created == 3


def test_a_memory_that_a_repair_brought_back_without_its_last_state_is_exported_and_imported(
    opens: Opens, tmp_path: Path
) -> None:
    with MemoryModule(storage_dir=tmp_path / "store") as memory:
        memory_id = memory.create_memory("notes", "tea", {"n": "first state"}, "note")
        memory.update_memory(memory_id, value={"n": "second state"})
    path = tmp_path / "store" / "memory.db"
    path.write_bytes(path.read_bytes().replace(b"second state", b"sacond state"))
    memory.store.repair(tmp_path / "new")

    MemoryModule(storage_dir=tmp_path / "new").store.export(tmp_path / "all.jsonl")
    other = opens("json")
    report = other.store.import_(tmp_path / "all.jsonl")

    assert (report.created, report.damaged) == (1, ())
    assert [each.entry.value for each in other.get_history(memory_id)] == [{"n": "first state"}]


def test_an_id_that_stands_twice_is_taken_once(opens: Opens, exported: Path) -> None:
    first, one, *others, _ = exported.read_bytes().splitlines(keepends=True)
    exported.write_bytes(b"".join([first, one, one, *others]))

    report = opens("sqlite").store.import_(exported, incomplete=True)

    assert (report.created, report.created + report.unchanged + report.skipped) == (4, 5)


def test_an_export_of_a_newer_version_is_named(opens: Opens, exported: Path) -> None:
    exported.write_bytes(exported.read_bytes().replace(b'"jarvis_export":1', b'"jarvis_export":2', 1))

    with pytest.raises(StoreTooNewError, match="pip install -U"):
        opens("sqlite").store.import_(exported)


def test_a_file_that_is_not_there_or_no_file_is_an_error(opens: Opens, tmp_path: Path) -> None:
    memory = opens("sqlite")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "absent", tmp_path, tmp_path / "pipe"):
        with pytest.raises(StoreError, match=str(path)):
            memory.store.import_(path)
    with pytest.raises(InvalidSettingError, match="on_conflict"):
        memory.store.import_(tmp_path / "absent", on_conflict="merge")  # type: ignore[arg-type]  # what is tested


def test_an_import_in_a_transaction_is_part_of_it(opens: Opens, exported: Path) -> None:
    memory = opens("sqlite")

    def broken() -> None:
        with memory.transaction():
            memory.store.import_(exported)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert memory.store.list_namespaces() == []
    assert memory.store.import_(exported).created == 4


def test_an_import_that_breaks_off_goes_on(opens: Opens, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = opens("sqlite")
    with monkeypatch.context() as patch:
        patch.setattr(transferring, "AT_ONCE", 1)

        def stop(done: int, _: int) -> None:
            if done == 2:
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            memory.store.import_(exported, progress=stop)

    assert memory.store.import_(exported).unchanged == 2
    memory.store.export(exported.with_name("again.jsonl"))
    assert exported.read_bytes() == exported.with_name("again.jsonl").read_bytes()


@pytest.mark.parametrize("kind", ["sqlite", "json"])
def test_an_import_onto_a_full_disk_goes_on_when_there_is_room(opens: Opens, tmp_path: Path, kind: str) -> None:
    memory, other = opens("sqlite"), opens(kind)
    memory.create_memories(
        [{"category": "c", "key": str(n), "value": {"n": os.urandom(500).hex()}, "entity_type": ""} for n in range(900)]
    )
    memory.store.export(tmp_path / "all.jsonl")
    other.bootstrap()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    try:
        with pytest.raises(StoreFullError):
            other.store.import_(tmp_path / "all.jsonl")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    report = other.store.import_(tmp_path / "all.jsonl")

    assert report.created + report.unchanged == 900
    other.store.export(tmp_path / "again.jsonl")
    assert (tmp_path / "all.jsonl").read_bytes() == (tmp_path / "again.jsonl").read_bytes()


def test_a_store_that_keeps_no_history_takes_the_present(tmp_path: Path, exported: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path / "none", history=HistoryPolicy(max_revisions=0))

    assert memory.store.import_(exported).created == 4
    (tea,) = memory.get_memories_by_category("notes")
    assert (tea.version, memory.get_history(tea.id)) == (2, [])


def test_a_backend_of_eight_verbs_exports_and_imports_its_present(opens: Opens, exported: Path, tmp_path: Path) -> None:
    memory = MemoryModule(FormerBackend(str(tmp_path)))

    report = memory.store.import_(exported, namespaces=["default"], on_conflict="skip")

    assert report.created == 3
    assert {entry.key for entry in memory.list_memories()} == {"tea", "long"}
    memory.store.export(tmp_path / "dict.jsonl", history=False)
    other = opens("sqlite")
    other.store.import_(tmp_path / "dict.jsonl")
    fields = [name for name in MemoryEntry.__struct_fields__ if name not in ("version", "position")]
    ours, theirs = (
        [[getattr(entry, name) for name in fields] for entry in sorted(each.list_memories(), key=lambda e: e.id)]
        for each in (memory, other)
    )
    assert ours == theirs
