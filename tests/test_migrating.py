"""Migrations between backends, compared by digest and by the bytes of their exports."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from jarvis.async_memory import AsyncMemoryModule
from jarvis.conformance.fixtures import FakeClock
from jarvis.errors import (
    InvalidSettingError,
    JarvisError,
    OtherStoreWarning,
    StoreAccessError,
    StoreBusyError,
    StoreMissingError,
    TargetNotEmptyError,
)
from jarvis.json_backend import JSONBackend
from jarvis.keys import KeyFile
from jarvis.moving import migrate, migrate_async, repair, repair_async, restore_backup, restore_backup_async
from jarvis.persistent_memory import HistoryPolicy, MemoryModule, RetentionRule
from jarvis.services import transferring
from jarvis.sqlite_backend import SQLiteBackend
from tests.postgresql import a_database
from tests.test_exporting import KINDS, Opens, filled
from tests.test_exporting import opens as opens  # a fixture

COUNT = 5_000
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
VALUES: tuple[Callable[[random.Random], Any], ...] = (
    lambda chance: chance.random(),
    lambda chance: -chance.randrange(2**80),
    lambda _: float("-inf"),
    lambda chance: "".join(chance.choices('aäß\U0001f600\ud83d\n"\\ ', k=30)),
    lambda chance: "words that repeat " * chance.randrange(200),
    lambda chance: START.astimezone(ZoneInfo("Asia/Kathmandu")) + timedelta(seconds=chance.randrange(10**6)),
    lambda chance: date(2026, 1, 1 + chance.randrange(28)),
    lambda chance: {chance.randrange(9), "x", (1, 2)},
    lambda chance: (None, True, [chance.randbytes(9)], frozenset({1.5})),
    lambda chance: {"uuid": UUID(int=chance.getrandbits(128)), "sum": Decimal("1.10"), "at": Path("/x")},
)


def generated(memory: MemoryModule, clock: FakeClock, count: int, seed: int = 7) -> None:
    """Make `count` memories in three namespaces: with all types, a past, tags, expiry, archived and deleted ones."""
    chance = random.Random(seed)
    for name in ("default", "alice", "bob"):
        part = memory.for_namespace(name)
        ids: list[str] = []
        with part.transaction():
            for number in range(count // 3):
                clock.step(milliseconds=chance.randrange(1, 5_000))
                value = {f"v{n}": chance.choice(VALUES)(chance) for n in range(chance.randrange(4))}
                life = chance.choice([None, None, None, timedelta(hours=1), timedelta(days=900)])
                tags = chance.sample(["a", "b", "Ü", "archived", "long tag " * 9], chance.randrange(4))
                of = chance.choice([None, f"e{number % 50}"])
                ids.append(part.create_memory(f"c{number % 9}", f"k{number % 77}", value, "thing", of, tags, ttl=life))
        for _ in range(count // 15):
            clock.step(seconds=chance.randrange(1, 60))
            some = chance.choice(ids)
            match chance.randrange(5):
                case 0:
                    part.delete_memory(some, module="cleaner", reason="old")
                case 1:
                    part.touch_memory(some, ttl=timedelta(days=chance.randrange(1, 9)))
                case 2:
                    part.set_user_preference(f"p{chance.randrange(9)}", {"n": chance.randrange(2)})
                case _:
                    part.update_memory(some, value={"n": chance.random()}, tags=["again"])
    memory.sweep()


def exported(memory: MemoryModule, path: Path) -> bytes:
    memory.store.export(path, overwrite=True)
    return path.read_bytes()


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    """Return the address of an empty database."""
    with a_database() as address:
        yield address


def test_a_round_through_all_backends_changes_no_byte(tmp_path: Path, dsn: str) -> None:
    clock = FakeClock(START)
    few = HistoryPolicy(max_revisions=3)
    rule = RetentionRule(category="c1", max_age=timedelta(hours=2), action="archive")
    source = MemoryModule(storage_dir=tmp_path / "one", clock=clock, history=few, retention=[rule], durability="normal")
    generated(source, clock, COUNT)
    stores = [
        source,
        MemoryModule(dsn, clock=clock),
        MemoryModule(storage_dir=tmp_path / "two", backend_type="json", clock=clock),
        MemoryModule(storage_dir=tmp_path / "three", clock=clock),
    ]
    before = exported(source, tmp_path / "one.jsonl")
    digest = source.store.digest()

    for one, other in itertools.pairwise(stores):
        report = migrate(one, other)

        assert report.digest == one.store.digest() == other.store.digest() == digest
        assert exported(other, tmp_path / "other.jsonl") == before
        for name in ("default", "alice", "bob"):
            ours, theirs = source.for_namespace(name), other.for_namespace(name)
            both = ours.list_memories(include_archived=True), theirs.list_memories(include_archived=True)
            assert both[0] == both[1]
    for store in stores:
        store.shutdown()
    assert report.memories > COUNT
    assert before.count(b"\n") > COUNT // 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("into", KINDS)
def test_the_past_is_answered_as_before(opens: Opens, kind: str, into: str) -> None:
    source, target = opens(kind), opens(into)
    clock = FakeClock(datetime.now(UTC) + timedelta(hours=1))
    source._clock = target._clock = clock
    moments = []
    with_clock = MemoryModule(source.backend, clock=clock)
    first = with_clock.create_memory("notes", "tea", {"n": 0}, "note")
    for n in range(1, 5):
        clock.step(minutes=1)
        moments.append(clock.now)
        clock.step(minutes=1)
        with_clock.update_memory(first, value={"n": n})
        with_clock.create_memory("notes", f"more {n}", {"n": n}, "note")
    with_clock.delete_memory(first)

    migrate(with_clock, target)

    for moment in moments:
        ours, theirs = (
            [(e.id, e.value) for e in each.search_memories(category="notes", as_of=moment)]
            for each in (with_clock, target)
        )
        assert ours
        assert ours == theirs


@pytest.mark.parametrize("into", KINDS)
def test_what_has_expired_comes_along_from_every_namespace(opens: Opens, into: str) -> None:
    memory, target = opens("sqlite"), opens(into)
    memory.create_memory("notes", "tea", {"n": 1}, "note", ttl=timedelta(seconds=1))
    memory.for_namespace("other").create_memory("notes", "milk", {"n": 1}, "note")
    later = datetime.now(UTC) + timedelta(days=1)

    target.backend = target.backend.bind(clock=lambda: later)

    assert migrate(memory, target).digest == memory.store.digest()


def test_a_target_with_other_memories_is_left_alone(opens: Opens) -> None:
    source = filled(opens("sqlite"))
    for name in ("default", "carol"):
        target = opens("json")
        target.for_namespace(name).set_user_preference("mine", {"n": 1})
        before = target.store.digest()

        with pytest.raises(TargetNotEmptyError, match=r"store\.import_"):
            migrate(source, target)

        assert target.store.digest() == before


@pytest.mark.parametrize("into", KINDS)
def test_a_migration_that_breaks_off_goes_on(opens: Opens, monkeypatch: pytest.MonkeyPatch, into: str) -> None:
    source, target = filled(opens("sqlite")), opens(into)

    def stop(done: int, _: int) -> None:
        if done == 3:
            raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(transferring, "AT_ONCE", 1)
        with pytest.raises(ZeroDivisionError):
            migrate(source, target, progress=stop)

    report = migrate(source, target)
    assert (report.memories, report.resumed) == (4, 3)
    assert migrate(source, target).resumed == 4


def test_what_is_written_to_the_source_meanwhile_is_told(opens: Opens) -> None:
    source, target = filled(opens("sqlite")), opens("json")

    def write(done: int, _: int) -> None:
        source.set_user_preference("late", {"n": done})

    with pytest.raises(StoreBusyError, match="stop its writers"):
        migrate(source, target, progress=write)


def test_a_target_without_history_says_so(opens: Opens, tmp_path: Path) -> None:
    target = MemoryModule(storage_dir=tmp_path / "none", history=HistoryPolicy(max_revisions=0))

    with pytest.raises(InvalidSettingError, match="keeps no history"):
        migrate(filled(opens("sqlite")), target)


def test_an_encrypted_store_becomes_plain_only_if_told_so(opens: Opens, tmp_path: Path) -> None:
    keys = [KeyFile.create(tmp_path / "key")]
    source = filled(MemoryModule(storage_dir=tmp_path / "one", encryption="on", keys=keys))
    target = opens("json")

    with pytest.raises(InvalidSettingError, match="plain_text=True"):
        migrate(source, target)

    assert target.store.list_namespaces() == []
    sealed = MemoryModule(storage_dir=tmp_path / "two", encryption="on", keys=keys)
    sealed.bootstrap()
    assert migrate(source, sealed).memories == migrate(source, target, plain_text=True).memories == 4


@pytest.mark.parametrize("encryption", ["on", "required"])
def test_an_encrypted_store_goes_into_an_absent_one_that_is_to_be_encrypted(tmp_path: Path, encryption: Any) -> None:
    keys = [KeyFile.create(tmp_path / "key")]
    source = filled(MemoryModule(storage_dir=tmp_path / "one", encryption="on", keys=keys))
    target = MemoryModule(storage_dir=tmp_path / "other", encryption=encryption, keys=keys)
    with a_database() as address, MemoryModule(address, encryption=encryption, keys=keys) as on_server:
        assert migrate(source, target).digest == migrate(source, on_server).digest
        assert target.store.key_slots()
        assert on_server.store.key_slots()


def test_places_are_opened_and_closed(tmp_path: Path, dsn: str) -> None:
    with MemoryModule(storage_dir=tmp_path / "one") as memory:
        memory.set_user_preference("theme", {"mode": "dark"})
    (tmp_path / "config.yaml").write_text("storage: {data_dir: data, backend: json}")

    assert migrate(tmp_path / "one", str(tmp_path / "two")).memories == 1
    assert migrate(tmp_path / "two", tmp_path / "config.yaml").memories == 1
    assert migrate(tmp_path / "data" / "persistent_memory", tmp_path / "three").memories == 1
    with pytest.raises(StoreMissingError):
        migrate(tmp_path / "absent", tmp_path / "four")
    assert not (tmp_path / "absent").exists()
    assert not (tmp_path / "four").exists()


def test_stores_are_moved_in_async_code_beside_other_tasks(tmp_path: Path) -> None:
    async def moved() -> AsyncMemoryModule:
        threads: set[int] = set()
        source = AsyncMemoryModule(storage_dir=tmp_path / "one")
        target = AsyncMemoryModule(storage_dir=tmp_path / "two", backend_type="json")
        await source.set_user_preference("theme", {"mode": "dark"})
        copy = await source.store.back_up(tmp_path / "backup")
        assert (await migrate_async(source, target, progress=lambda *_: threads.add(threading.get_ident()))).memories
        await restore_backup_async(copy, tmp_path / "three")
        assert (await repair_async(tmp_path / "three", tmp_path / "four")).memories == 1
        assert threads
        assert threading.get_ident() not in threads
        assert await target.get_user_preferences() == {"theme": {"mode": "dark"}}
        await target.set_user_preference("still", {"open": True})
        return source

    asyncio.run(moved())
    assert MemoryModule(storage_dir=tmp_path / "four").get_user_preferences() == {"theme": {"mode": "dark"}}


@pytest.mark.parametrize("file", ["notes.db", "notes.json", "notes", "notes.sqlite"])
def test_a_store_whose_file_has_a_name_of_its_own_is_found(tmp_path: Path, file: str) -> None:
    of_file = JSONBackend if file.endswith(".json") else SQLiteBackend
    memory = filled(MemoryModule(of_file(tmp_path / "store" / file)))
    digest = memory.store.digest()
    copy = memory.store.back_up(tmp_path / "backup")
    newest = memory.store.back_up(tmp_path / "all", keep_daily=2)
    memory.shutdown()
    (tmp_path / "backup" / ".hidden").touch()

    restored = [
        restore_backup(tmp_path / "backup", tmp_path / "from a directory"),
        restore_backup(copy, tmp_path / "from a file"),
        restore_backup(tmp_path / "all", tmp_path / "from generations"),
        restore_backup(newest, tmp_path / "from the newest"),
    ]

    assert {path.name for path in restored} == {file}
    assert {MemoryModule(of_file(path)).store.digest() for path in restored} == {digest}
    assert migrate(tmp_path / "store", tmp_path / "plain").digest == digest
    assert migrate(tmp_path / "store" / file, tmp_path / "plain too").digest == digest
    MemoryModule(of_file(tmp_path / "into" / file)).bootstrap()
    assert migrate(memory, tmp_path / "into" / file).digest == digest
    assert repair(tmp_path / "store", tmp_path / "repaired").memories == 4
    assert repair(tmp_path / "store" / file, tmp_path / "repaired too").memories == 4


def test_an_encrypted_store_with_a_name_of_its_own_is_restored_with_its_keys(tmp_path: Path) -> None:
    keys = [KeyFile.create(tmp_path / "key")]
    memory = filled(MemoryModule(SQLiteBackend(tmp_path / "store" / "notes.db", encryption="on", keys=keys)))
    memory.store.back_up(tmp_path / "backup")

    path = restore_backup(tmp_path / "backup", tmp_path / "restored", keys=keys)

    assert sorted(each.name for each in path.parent.iterdir()) == ["notes.db", "notes.keys"]
    assert MemoryModule(SQLiteBackend(path, keys=keys)).store.digest() == memory.store.digest()


def test_a_directory_with_several_stores_asks_for_one(tmp_path: Path) -> None:
    for name in ("one", "two"):
        filled(MemoryModule(SQLiteBackend(tmp_path / "store" / f"{name}.db"))).shutdown()
    calls: list[Callable[[], object]] = [
        lambda: migrate(tmp_path / "store", tmp_path / "to"),
        lambda: restore_backup(tmp_path / "store", tmp_path / "to"),
        lambda: repair(tmp_path / "store", tmp_path / "to"),
    ]
    for call in calls:
        with pytest.raises(StoreAccessError, match=r"one\.db, two\.db.*give the path of one of them"):
            call()
    assert not (tmp_path / "to").exists()
    assert migrate(tmp_path / "store" / "two.db", tmp_path / "to").memories == 4


def test_a_target_with_other_files_gets_a_store_beside_them(tmp_path: Path) -> None:
    source = filled(MemoryModule(storage_dir=tmp_path / "one"))
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "readme.db").write_text("mine")

    migrate(source, tmp_path / "two")

    assert MemoryModule(storage_dir=tmp_path / "two").store.digest() == source.store.digest()
    assert (tmp_path / "two" / "readme.db").read_text() == "mine"


def test_a_directory_with_a_store_of_another_backend_names_the_way(tmp_path: Path) -> None:
    MemoryModule(storage_dir=tmp_path).set_user_preference("theme", {"mode": "dark"})

    with pytest.warns(OtherStoreWarning, match=r"jarvis\.moving\.migrate"):
        MemoryModule(storage_dir=tmp_path, backend_type="json").bootstrap()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OtherStoreWarning)
        assert migrate(MemoryModule(storage_dir=tmp_path), MemoryModule(storage_dir=tmp_path, backend_type="json"))


BAD: tuple[Any, ...] = (None, 5, b"x", object(), [], "a\0b", "x" * 5_000, "\ud800", "mongo://x")


@pytest.mark.parametrize("which", range(len(BAD)))
def test_a_place_that_is_none_is_named(tmp_path: Path, which: int, opens: Opens) -> None:
    good, bad = filled(opens("sqlite")), BAD[which]
    calls: list[Callable[[], object]] = [
        lambda: migrate(bad, good),
        lambda: migrate(good, bad),
        lambda: restore_backup(bad, tmp_path / "into"),
        lambda: repair(bad, tmp_path / "to"),
    ]
    for call in calls:
        with pytest.raises(JarvisError):
            call()


def test_a_store_that_is_moved_into_itself_stays_as_it_is(tmp_path: Path) -> None:
    memory = filled(MemoryModule(storage_dir=tmp_path / "one"))
    digest = memory.store.digest()

    assert migrate(tmp_path / "one", tmp_path / "one").resumed == 4
    assert memory.store.digest() == digest
