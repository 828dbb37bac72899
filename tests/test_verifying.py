"""Verifications: a sound store has no findings, and what other programs do to one is found."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jarvis._sql import verifying
from jarvis._sql.side_tables import SideTable
from jarvis._sql.tagging import Tags
from jarvis._sqlite import engine
from jarvis.async_memory import AsyncMemoryModule
from jarvis.conformance.fixtures import FakeClock
from jarvis.errors import CorruptStoreError, TransactionError, UnsupportedError
from jarvis.keys import KeyFile
from jarvis.persistent_memory import HistoryPolicy, MemoryModule
from tests.test_exporting import KINDS, Opens, filled
from tests.test_exporting import opens as opens  # a fixture
from tests.test_migrating import START, generated
from tests.test_third_party import FormerBackend


@pytest.mark.parametrize("kind", [*KINDS, "sealed"])
def test_a_sound_store_has_no_findings(opens: Opens, kind: str, tmp_path: Path) -> None:
    clock = FakeClock(START)
    if kind == "sealed":
        keys = [KeyFile.create(tmp_path / "key")]
        memory = MemoryModule(storage_dir=tmp_path / "sealed", clock=clock, encryption="on", keys=keys)
    else:
        memory = MemoryModule(opens(kind).backend, clock=clock)
    generated(memory, clock, 300)
    memory.set_user_preference("n", {"n": 1})
    clock.step(hours=2)
    memory.set_user_preference("n", {"n": 1})
    clock.step(hours=2)
    memory.store.purge_expired()
    memory.for_namespace("bob").clear_all()
    memory.erase_memory(memory.list_memories()[0].id)
    told: list[tuple[int, int]] = []

    found = memory.store.verify(progress=lambda *numbers: told.append(numbers))

    assert found.problems == {}
    assert found.states > 250
    assert told[-1] == (found.states, found.states)


def test_a_store_whose_history_was_off_for_a_while_has_no_findings(tmp_path: Path) -> None:
    ids: list[str] = []
    for revisions in (9, 0, 9):
        with MemoryModule(storage_dir=tmp_path, history=HistoryPolicy(max_revisions=revisions)) as memory:
            ids = ids or [memory.create_memory("c", str(number), {"n": 1}, "note") for number in range(6)]
            for memory_id in ids[: 2 + bool(revisions)]:
                memory.update_memory(memory_id, value={"n": revisions})
            if not revisions:
                memory.delete_memory(ids.pop(0))
            assert memory.store.verify().problems == {}


BY_HAND: dict[str, tuple[str, str]] = {
    "a changed body": (
        """UPDATE entries SET body = replace(body, '"n":2', '"n":3')""",
        "an entry does not match its checksum",
    ),
    "a changed past state": ("UPDATE revisions SET key = 'x'", "an entry does not match its checksum"),
    "a removed tag": (
        "DELETE FROM tags WHERE tag IN (SELECT max(tag) FROM tags)",
        "the tags of an entry are not those",
    ),
    "an added tag": (
        "INSERT INTO tags SELECT namespace, tag, instant, row + 1000, category, entity_type FROM tags",
        "it has tags that no entry has",
    ),
    "a deleted entry with tags": (
        "DELETE FROM entries WHERE row IN (SELECT row FROM tags)",
        "it has tags that no entry has",
    ),
    "a deleted entry with a past": ("DELETE FROM entries WHERE key = 'tea'", "another program deleted them"),
    "a changed signature": ("UPDATE revisions SET change = replace(change, 'cold', 'warm')", "a change does not match"),
    "a changed clock": ("UPDATE clock SET ahead = ahead + 1", "its clock does not match its checksum"),
    "a present that is older than its past": ("UPDATE revisions SET ended = ended + 1000", "is not older than"),
    "a tag of another entry": ("UPDATE tags SET row = row + 1000", "the tags of an entry are not those"),
    "a changed column beside a tag": (
        "UPDATE tags SET category = category + 1000",
        "a tag does not match its entry",
    ),
    "a changed creation": ("UPDATE entries SET created = 5", "the moment of a creation"),
}


@pytest.mark.parametrize("what", BY_HAND)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_another_program_did_is_found(opens: Opens, kind: str, what: str) -> None:
    memory = filled(opens(kind))
    statement, expected = BY_HAND[what]
    assert changed_by_hand(memory, kind, statement)

    found = memory.store.verify()

    assert any(expected in problem for problem in found.problems), found


def changed_by_hand(memory: MemoryModule, kind: str, statement: str) -> int:
    """Run a statement as another program; return how many rows it changed."""
    backend: Any = memory.backend
    if kind == "postgresql":
        with psycopg.connect(backend._address.dsn, autocommit=True) as connection:
            connection.execute("SET search_path TO jarvis")
            return connection.execute(statement).rowcount
    raw = engine.opened(str(backend.db_path), None)  # with right checksums of pages, so that the store opens
    raw.execute(statement)
    changed = raw.changes()
    raw.close(True)
    return changed


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("many", [50_000, 2])
def test_adding_side_tables_up_finds_what_comparing_them_row_by_row_finds(
    opens: Opens, kind: str, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "_MANY", many)  # names that are known at once
    clock = FakeClock(START)
    memory = MemoryModule(opens(kind).backend, clock=clock)
    generated(memory, clock, 100)
    by_hand = (
        "UPDATE {} SET category = category + 1000 WHERE row IN (SELECT max(row) FROM {})",
        "DELETE FROM {} WHERE tag IN (SELECT min(tag) FROM {})",
        "UPDATE {} SET row = row + 100000 WHERE tag IN (SELECT min(tag) FROM {})",
    )
    statements = ("", *(text.replace("{}", table) for table in ("tags", "past_tags") for text in by_hand))
    for statement in statements:
        assert not statement or changed_by_hand(memory, kind, statement)
        short = memory.store.verify()
        with monkeypatch.context() as patch:
            patch.setattr(Tags, "summed", SideTable.summed)
            assert memory.store.verify() == short
            assert bool(short.problems) is bool(statement)
        if not statement:
            with monkeypatch.context() as patch:
                patch.setattr(Tags, "stored", lambda *_, **__: pytest.fail("the sums of a sound store are equal"))
                memory.store.verify()


def test_a_trigger_of_another_program_is_found(tmp_path: Path) -> None:
    memory = filled(MemoryModule(storage_dir=tmp_path))
    raw = engine.opened(str(tmp_path / "memory.db"), None)
    raw.execute("CREATE TRIGGER spy AFTER INSERT ON entries BEGIN SELECT 1; END")
    raw.close(True)

    assert memory.store.verify().problems == {"it has the trigger 'spy' of another program": 1}


@pytest.mark.parametrize("kind", ["plain", "encrypted"])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_damaged_page_is_found_in_a_store_that_is_open(tmp_path: Path, kind: str, read_only: bool) -> None:
    options: dict[str, Any] = {}
    if kind == "encrypted":
        options = {"encryption": "on", "keys": [KeyFile.create(tmp_path / "key")]}
    memory = MemoryModule(storage_dir=tmp_path, **options)
    memory.create_memories(
        [
            {"category": "c", "key": str(number), "value": {"t": os.urandom(300).hex()}, "entity_type": "note"}
            for number in range(300)
        ]
    )
    memory.shutdown()
    memory = MemoryModule(storage_dir=tmp_path, read_only=read_only, **options)
    assert memory.count_memories() == 300
    path = tmp_path / "memory.db"
    data, status = bytearray(path.read_bytes()), path.stat()
    for at in range(len(data) // 3, 2 * len(data) // 3, 4096):  # pages of memories are among them
        data[at] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    assert memory.store.verify().problems == {"a page fails its checksum or its structure is broken": 1}
    calls: list[Callable[[], object]] = [
        memory.list_memories,
        lambda: list(memory.iter_memories()),
        memory.store.digest,
        lambda: memory.store.export(tmp_path / "export.jsonl", plain_text=True),
        lambda: memory.store.back_up(tmp_path / "backup"),
        lambda: memory.store.back_up(tmp_path / "backups", keep_daily=1),
    ]
    for call in calls:
        with pytest.raises(CorruptStoreError) as caught:
            call()
        assert str(caught.value).startswith(str(path))
    assert not (tmp_path / "export.jsonl").exists()
    assert list(tmp_path.rglob("memory.db")) == [path]


def test_a_damaged_page_of_any_table_is_found_by_a_reader_without_locks(tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path)
    memory.create_memory("notes", "tea", {"n": 1}, "note", tags=["hot"])
    memory.shutdown()
    path = tmp_path / "memory.db"
    whole, status = path.read_bytes(), path.stat()
    for page in range(1, len(whole) // 4096):
        at = page * 4096 + 2_937
        with path.open("r+b") as file:
            file.write(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

        with contextlib.suppress(CorruptStoreError), MemoryModule(storage_dir=tmp_path, read_only=True) as reader:
            assert len(reader.store.verify().problems) <= 1  # and no other error


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda document, _: document["entries"].popitem(), "its checksum does not match"),
        (lambda document, gone: document["entries"].pop(gone), "its past has no deletion"),
        (lambda document, gone: document["entries"][gone].update(zone="No/Where"), "entry number 1"),
        (lambda document, gone: document["entries"][gone].update(position=[1, 1]), "is not older than"),
    ],
)
def test_what_somebody_did_to_a_json_store_is_found(
    tmp_path: Path, change: Callable[[dict[str, Any], str], object], expected: str
) -> None:
    memory = filled(MemoryModule(storage_dir=tmp_path, backend_type="json"))
    (tea,) = [entry.id for entry in memory.get_memories_by_category("notes")]
    path = tmp_path / "memory.json"
    document = json.loads(path.read_text())
    change(document, tea)
    if "checksum" not in expected:
        del document["checksum"]
    path.write_text(json.dumps(document, indent=2))

    try:
        problems = list(memory.store.verify().problems)
    except CorruptStoreError as error:
        problems = [str(error)]
    assert any(expected in problem for problem in problems), problems


def test_verifying_inside_a_transaction_is_refused(opens: Opens) -> None:
    for kind in KINDS:
        memory = filled(opens(kind))
        with memory.transaction(), pytest.raises(TransactionError):
            memory.store.verify()


def test_a_backend_that_verifies_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="json, postgresql, sqlite"):
        MemoryModule(FormerBackend(str(tmp_path))).store.verify()


def test_the_async_face_verifies(tmp_path: Path) -> None:
    async def verified() -> int:
        async with AsyncMemoryModule(storage_dir=tmp_path / "store") as memory:
            await memory.create_memory("c", "k", {"n": 1}, "note", ttl=timedelta(days=1))
            return (await memory.store.verify()).states

    assert asyncio.run(verified()) == 1
