"""Fast by construction: statements, rows touched, syncs and query plans are counted here, never timed.

What a statement touches is told by SQLite itself: the plan names the index, and the profile counts
the rows that a full scan stepped over (https://sqlite.org/c3ref/c_stmtstatus_counter.html).
"""

from __future__ import annotations

import functools
import gc
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, get_args

import apsw
import pytest

from jarvis._disk import files
from jarvis._sql.select import count, select
from jarvis._sql.session import Session
from jarvis._sqlite import engine
from jarvis.conformance.compression import prose
from jarvis.json_backend import JSONBackend
from jarvis.model.entry import MemoryEntry
from jarvis.model.listing import Field, Listing
from jarvis.model.options import Compression
from jarvis.model.query import MemoryQuery
from jarvis.persistent_memory import CategoryPolicy, MemoryModule
from jarvis.sqlite_backend import SQLiteBackend

ENTRIES = 20_000
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SQLiteBackend]:
    """A store of 20,000 entries in which ten have a rare tag, fifty a small category."""
    backend = SQLiteBackend(tmp_path_factory.mktemp("store") / "memory.db", durability="normal")
    with backend.transaction():
        for number in range(ENTRIES):
            backend.create(
                MemoryEntry(
                    f"id-{number}",
                    "small" if number % 400 == 0 else f"category-{number % 9}",
                    f"key-{number}",
                    {"n": number},
                    ["common", "rare"] if number % 2000 == 0 else ["common"],
                    "tool" if number % 400 == 0 else "task",
                    f"entity-{number % 2000}",
                    START + timedelta(seconds=number),
                )
            )
    yield backend
    backend.shutdown()


class Watch:
    """Records the statements that the calling thread's connection runs, with what they cost."""

    def __init__(self, backend: SQLiteBackend) -> None:
        self._backend = backend
        self.statements: list[dict[str, Any]] = []

    def __enter__(self) -> Watch:
        self._connection().trace_v2(apsw.SQLITE_TRACE_PROFILE, self.statements.append, id="watch")
        return self

    def __exit__(self, *_: object) -> None:
        self._connection().trace_v2(0, None, id="watch")

    def _connection(self) -> apsw.Connection:
        return self._backend._database.read(lambda session: session.raw)

    def texts(self) -> list[str]:
        return [statement["sql"].split()[0] for statement in self.statements]

    def total(self, counter: str) -> int:
        return sum(statement["stmt_status"][counter] for statement in self.statements)


def _plan(backend: SQLiteBackend, query: MemoryQuery, make: Callable[..., Any] = select) -> list[str]:
    def explained(session: Session) -> list[Any]:
        statement = make(query, "default", session.names.id_of, session.dialect, now=0)
        return session.rows(f"EXPLAIN QUERY PLAN {statement.sql}", statement.bindings)

    return [row[3] for row in backend._database.read(explained)]


def test_a_read_by_id_is_one_statement_on_one_index(store: SQLiteBackend) -> None:
    store.read("id-777")  # its names are known from now on

    with Watch(store) as watch:
        assert store.read("id-777") is not None

    assert watch.texts() == ["SELECT"]
    assert watch.total("SQLITE_STMTSTATUS_FULLSCAN_STEP") == 0
    assert watch.total("SQLITE_STMTSTATUS_VM_STEP") < 100


def test_many_reads_by_id_are_one_statement_on_one_index(store: SQLiteBackend) -> None:
    ids = [f"id-{number}" for number in range(100)]
    store.read_many(ids)  # their names are known from now on

    with Watch(store) as watch:
        assert len(store.read_many(ids)) == 100

    assert watch.texts() == ["SELECT"]
    assert watch.total("SQLITE_STMTSTATUS_VM_STEP") < 100 * 60


@pytest.mark.parametrize(
    ("query", "index", "entries", "sorts"),
    [
        (MemoryQuery(keys=["key-1", "key-2", "absent"]), "entries_by_key (namespace=? AND key=?)", 2, True),
        (MemoryQuery(key_prefix="key-1999"), "entries_by_key (namespace=? AND key>? AND key<?)", 11, True),
        (MemoryQuery(key_prefix="key-1999", order="key"), "entries_by_key (namespace=? AND key>?", 11, False),
        (MemoryQuery(order="key", limit=20), "entries_by_key (namespace=?)", 20, False),
        (MemoryQuery(category_prefix="sm"), "entries_by_category (namespace=? AND category=?)", 50, True),
        (MemoryQuery(ascending=True, limit=20), "entries_by_time (namespace=?)", 20, False),
        (MemoryQuery(tags=["common"], ascending=True, limit=20), "PRIMARY KEY (namespace=? AND tag=?)", 20, False),
    ],
)
def test_beginnings_and_orders_are_ranges_of_an_index(
    store: SQLiteBackend, query: MemoryQuery, index: str, entries: int, sorts: bool
) -> None:
    plan = _plan(store, query)

    with Watch(store) as watch:
        assert len(store.select(query)) == entries

    assert any(index in step for step in plan), plan
    assert ("USE TEMP B-TREE FOR ORDER BY" in plan) is sorts
    assert watch.total("SQLITE_STMTSTATUS_VM_STEP") < 1_000 + 50 * entries


@pytest.mark.parametrize(("field", "names"), [("category", 10), ("entity_type", 2), ("tag", 2), ("key", None)])
def test_names_are_found_by_one_seek_each(store: SQLiteBackend, field: Field, names: int | None) -> None:
    listing = Listing(field=field, limit=None if names else 20)

    with Watch(store) as watch:
        assert len(store.list_names(listing)) == (names or 20)

    assert watch.total("SQLITE_STMTSTATUS_VM_STEP") < 400 + 80 * (names or 20)


def test_an_offset_skips_rows_without_reading_them_whole(store: SQLiteBackend) -> None:
    with Watch(store) as watch:
        assert [entry.id for entry in store.select(MemoryQuery(offset=10_000, limit=1))] == ["id-9999"]

    assert watch.total("SQLITE_STMTSTATUS_VM_STEP") < 12 * 10_000


def test_a_read_by_key_is_one_statement_on_one_index(store: SQLiteBackend) -> None:
    memory = MemoryModule(storage_backend=store)
    memory.get_memory_by_key("key-777")

    with Watch(store) as watch:
        assert memory.get_memory_by_key("key-777") is not None

    assert watch.texts() == ["SELECT"]
    assert watch.total("SQLITE_STMTSTATUS_SORT") == watch.total("SQLITE_STMTSTATUS_FULLSCAN_STEP") == 0
    assert watch.total("SQLITE_STMTSTATUS_VM_STEP") < 100


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (MemoryQuery(category="small"), "entries_by_category "),
        (MemoryQuery(key="key-777"), "entries_by_key "),
        (MemoryQuery(category="small", key="key-400"), "entries_by_key "),
        (MemoryQuery(category="small", entity_type="tool"), "entries_by_category "),
        (MemoryQuery(entity_type="tool"), "entries_by_type "),
        (MemoryQuery(entity_type="task", limit=10), "entries_by_type "),
        (MemoryQuery(category="small", entity_type="tool", key="key-400"), "entries_by_key "),
        (MemoryQuery(category="small", entity_id="entity-400", since=START), "entries_by_entity "),
        (MemoryQuery(entity_type="task", entity_id="entity-7"), "entries_by_entity "),
        (MemoryQuery(entity_id="entity-7"), "entries_by_entity "),
        (MemoryQuery(tags=["rare"]), "g USING PRIMARY KEY"),
        (MemoryQuery(tags=["rare", "absent"]), "g USING PRIMARY KEY"),
        (MemoryQuery(tags=["rare"], category="small", entity_type="tool"), "g USING PRIMARY KEY"),
        (MemoryQuery(tags=["common", "rare"], limit=10), "g USING PRIMARY KEY"),
        (MemoryQuery(tags=["common"], key="key-777"), "entries_by_key "),
        (MemoryQuery(tags=["common", "rare"], entity_id="entity-0"), "entries_by_entity "),
        (MemoryQuery(limit=10), "entries_by_time "),
        (MemoryQuery(limit=10, category="category-1"), "entries_by_category "),
        (MemoryQuery(limit=10, tags=["common"]), "g USING PRIMARY KEY"),
        (MemoryQuery(limit=10, exclude_tags=["rare", "absent"]), "entries_by_time "),
        (MemoryQuery(limit=10, category="category-1", exclude_tags=["rare"]), "entries_by_category "),
        (MemoryQuery(limit=10, tags=["common"], exclude_tags=["rare"]), "g USING PRIMARY KEY"),
        (MemoryQuery(limit=10, since=START, until=START + timedelta(hours=1)), "entries_by_time "),
    ],
    ids=str,
)
def test_a_query_touches_what_it_returns_and_little_else(store: SQLiteBackend, query: MemoryQuery, index: str) -> None:
    store.select(query)  # its names are known from now on, but for one that is not there, or several

    with Watch(store) as watch:
        returned = len(store.select(query))

    steps = [line for line in _plan(store, query) if line.startswith(("SEARCH", "SCAN")) and " names " not in line]
    assert index in f"{steps[0]} "
    explained = store.explain(query)
    assert _plan(store, query, functools.partial(select, watched=True)) == _plan(store, query)
    assert explained.index == ("tags" if "PRIMARY" in index else index.strip())
    assert (explained.returned, explained.looked_at >= returned) == (returned, True)
    several = query.tags is not None and len(query.tags) > 1
    assert watch.texts() == ["SELECT"] * (2 + len(query.tags) if query.tags is not None and several else 1)
    assert 0 < returned <= 50
    assert watch.total("SQLITE_STMTSTATUS_FULLSCAN_STEP") == 0
    assert watch.total("SQLITE_STMTSTATUS_VM_STEP") < 200 + 150 * returned


def test_an_upsert_reads_one_entry_however_many_share_its_key(store: SQLiteBackend) -> None:
    with store.transaction():
        for number in range(300):
            store.create(MemoryEntry(f"shared-{number}", "shared", "shared", {}))

    store.last_written("shared", "shared")

    with Watch(store) as watch:
        found = store.last_written("shared", "shared")

    assert found is not None
    assert found.id == "shared-299"
    assert watch.texts() == ["SELECT"]
    assert watch.total("SQLITE_STMTSTATUS_VM_STEP") < 300 * 11


@pytest.mark.parametrize(
    "query", [MemoryQuery(limit=10, tags=["common"]), MemoryQuery(limit=10), MemoryQuery(key="key-1")]
)
def test_newest_first_comes_out_of_the_index_without_sorting(store: SQLiteBackend, query: MemoryQuery) -> None:
    assert not any("TEMP B-TREE" in line for line in _plan(store, query))


def test_pages_deep_in_a_list_cost_what_the_first_costs(store: SQLiteBackend) -> None:
    costs = []
    for after in (None, "1767242800000000:10000:x"):
        with Watch(store) as watch:
            assert len(store.select(MemoryQuery(limit=10, after=after))) == 10
        costs.append(watch.total("SQLITE_STMTSTATUS_VM_STEP"))

    assert costs[1] < costs[0] * 1.5


def test_counting_builds_no_entry(store: SQLiteBackend) -> None:
    assert "COVERING INDEX" in " ".join(_plan(store, MemoryQuery(category="category-1"), count))


def test_a_create_is_two_statements_in_one_transaction(store: SQLiteBackend) -> None:
    memory = MemoryModule(storage_backend=store)
    memory.create_memory("category-1", "warm", {}, "task", tags=["common", "rare"])

    with Watch(store) as watch:
        memory.create_memory("category-1", "new", {}, "task", tags=["common", "rare"])

    assert watch.texts() == ["BEGIN", "INSERT", "INSERT", "COMMIT"]  # the entry, and all its tags
    assert watch.total("SQLITE_STMTSTATUS_FULLSCAN_STEP") == 0


def test_a_policy_costs_writes_into_other_categories_no_statement(store: SQLiteBackend) -> None:
    memory = MemoryModule(storage_backend=store, policies=[CategoryPolicy("small", max_entries=100)])
    memory.create_memory("category-1", "warm", {}, "task", tags=["common", "rare"])

    with Watch(store) as watch:
        memory.create_memory("category-1", "new", {}, "task", tags=["common", "rare"])

    assert watch.texts() == ["BEGIN", "INSERT", "INSERT", "COMMIT"]


@pytest.mark.parametrize(
    "policy", [CategoryPolicy("category-1", max_entries=2_000), CategoryPolicy("category-1", max_bytes=80_000)]
)
def test_a_write_into_a_full_category_costs_little_for_each_entry(store: SQLiteBackend, policy: CategoryPolicy) -> None:
    memory = MemoryModule(storage_backend=store, policies=[policy])
    memory.create_memory("category-1", "warm", {}, "task")
    count = memory.count_memories("category-1")

    with Watch(store) as watch:
        memory.create_memory("category-1", "new", {}, "task")

    assert abs(memory.count_memories("category-1") - count) <= 1
    assert {"DELETE"} < {*watch.texts()}
    assert watch.total("SQLITE_STMTSTATUS_VM_STEP") < 40 * count


def test_a_compressed_value_takes_as_many_statements_and_fewer_pages(tmp_path: Path) -> None:
    frames = {}
    for mode in get_args(Compression):
        memory = MemoryModule(storage_dir=tmp_path / mode, compression=mode)
        backend = memory.backend
        assert isinstance(backend, SQLiteBackend)
        memory.get_memory(memory.create_memory("c", "warm", prose(6_000), "t", tags=["x"]))
        before = (tmp_path / mode / "memory.db-wal").stat().st_size
        with Watch(backend) as watch:
            memory_id = memory.create_memory("c", "new", prose(6_000), "t", tags=["x"])
        frames[mode] = ((tmp_path / mode / "memory.db-wal").stat().st_size - before) // 4_096
        assert watch.texts() == ["BEGIN", "INSERT", "INSERT", "COMMIT"]
        with Watch(backend) as watch:
            memory.get_memory(memory_id)
        assert watch.texts() == ["SELECT"]
        memory.shutdown()

    assert frames["auto"] == frames["max"] < frames["off"]


@pytest.mark.parametrize("read_only", [False, True])
def test_no_plan_depends_on_what_is_bound(store: SQLiteBackend, read_only: bool) -> None:
    backend = SQLiteBackend(store.db_path, read_only=read_only)

    stable = backend._database.read(lambda session: session.raw.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, -1))

    assert stable == 1  # else SQLite with STAT4 prepares a list anew for each value
    backend.shutdown()


def test_an_update_and_a_delete_touch_one_entry(store: SQLiteBackend) -> None:
    memory = MemoryModule(storage_backend=store)
    memory_id = memory.create_memory("category-1", "new", {}, "task", tags=["common"])

    changes: tuple[Callable[[], bool], ...] = (
        lambda: memory.update_memory(memory_id, {"n": 1}),
        lambda: memory.delete_memory(memory_id),
    )
    for change in changes:
        with Watch(store) as watch:
            assert change()
        assert watch.total("SQLITE_STMTSTATUS_FULLSCAN_STEP") <= 1
        assert watch.total("SQLITE_STMTSTATUS_VM_STEP") < 1000


class _CountingFile(apsw.VFSFile):
    syncs: ClassVar[int] = 0

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        _CountingFile.syncs += 1
        super().xSync(flags)


class _CountingVFS(apsw.VFS):
    def __init__(self) -> None:
        super().__init__("counting", engine.vfs)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        return _CountingFile(_BASE, name, flags)


_BASE = engine.vfs


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_CountingFile]]:
    engine.load_checksums()
    layer = _CountingVFS()
    monkeypatch.setattr(engine, "vfs", "counting")
    _CountingFile.syncs = 0
    yield _CountingFile
    layer.unregister()


def test_a_write_is_one_sync_and_a_bulk_load_is_one_too(tmp_path: Path, counting: type[_CountingFile]) -> None:
    with MemoryModule(storage_dir=tmp_path) as memory:
        memory.create_memory("c", "first", {}, "t")
        counting.syncs = 0
        for number in range(100):
            memory.create_memory("c", str(number), {"text": "x" * 300}, "t", tags=["a", "b", "c"])
        for_creates = counting.syncs
        counting.syncs = 0
        with memory.transaction():
            for number in range(1000):
                memory.create_memory("c", str(number), {"text": "x" * 300}, "t", tags=["a", "b", "c"])
        for_bulk = counting.syncs

    assert for_creates <= 120
    assert for_bulk <= 4  # its own, and a checkpoint's


def test_an_upsert_that_changes_nothing_writes_nothing(store: SQLiteBackend) -> None:
    memory = MemoryModule(storage_backend=store)
    memory.upsert_memory("c", "same", {"n": 1}, "t", tags=["common"])
    memory.upsert_memory("c", "same", {"n": 1}, "t", tags=["common"])

    with Watch(store) as watch:
        memory.upsert_memory("c", "same", {"n": 1}, "t", tags=["common"])

    assert watch.texts() == ["BEGIN", "SELECT", "SELECT", "COMMIT"]  # by category and key; the newest of the key


def test_what_a_full_handle_finds_is_on_the_disk_when_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counting: type[_CountingFile]
) -> None:
    class Counting(files.System):
        def sync(self, descriptor: int) -> None:
            counting.syncs += 1
            super().sync(descriptor)

    monkeypatch.setattr(files, "system", Counting())
    lazy = MemoryModule(storage_dir=tmp_path, durability="normal")
    syncs = []
    with MemoryModule(storage_dir=tmp_path) as memory:
        for number in (1, 1, 2, 2):
            lazy.set_user_preference("theme", {"n": number})
            with memory.transaction():
                pass  # syncs nothing, so it notes nothing as synced
            for _ in range(2):
                counting.syncs = 0
                memory.set_user_preference("theme", {"n": number})
                syncs.append(counting.syncs)
    lazy.shutdown()

    assert syncs == [1, 0, 0, 0, 1, 0, 0, 0]


def test_json_writes_its_file_once_in_a_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(files.System):
        replaced = 0

        def replace(self, source: str, target: str) -> None:
            self.replaced += 1
            super().replace(source, target)

    memory = MemoryModule(storage_backend=JSONBackend(tmp_path / "memory.json"))
    memory.create_memory("c", "first", {}, "t")
    monkeypatch.setattr(files, "system", system := Counting())

    with memory.transaction():
        for number in range(100):
            memory.create_memory("c", str(number), {}, "t")

    assert system.replaced == 1
    assert memory.count_memories() == 101


def test_iterating_over_everything_takes_no_more_memory_than_over_little(store: SQLiteBackend) -> None:
    peaks = []
    for limit in (200, None):
        gc.collect()
        tracemalloc.start()
        for _ in store.iterate(MemoryQuery(limit=limit)):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert peaks[1] < peaks[0] * 1.5
