"""A clock that was once ahead, on our backends: all or nothing, whole stores, old ones, the ends of the calendar."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jarvis.async_memory import AsyncMemoryModule
from jarvis.conformance.fixtures import NOON, FakeClock, an_entry
from jarvis.errors import ClockBehindWarning, ReadOnlyStoreError, StoreAccessError
from jarvis.json_backend import JSONBackend
from jarvis.model.mending import mended
from jarvis.persistent_memory import HistoryPolicy, MemoryModule
from jarvis.postgresql_backend import PostgreSQLBackend
from jarvis.sqlite_backend import SQLiteBackend

from .test_unknown_zones import elsewhere

YEARS = 4_400  # days
STORES = Path(__file__).parent / "stores"
Open = Callable[..., Any]


@pytest.fixture(params=[SQLiteBackend, JSONBackend, PostgreSQLBackend])
def open_backend(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Return a function that opens the store."""
    is_on_a_server = request.param is PostgreSQLBackend
    place = request.getfixturevalue("dsn") if is_on_a_server else tmp_path / "store"
    return lambda **options: request.param(place, **options)


def ahead_and_back(memory: MemoryModule, clock: FakeClock, seed: int = 0, steps: int = 60) -> None:
    """Let a clock go ahead and come back now and then, while all sorts of changes are made."""
    chance = random.Random(seed)
    other = memory.for_namespace("other")
    ids: list[tuple[MemoryModule, str]] = []
    for number in range(steps):
        clock.step(seconds=chance.randrange(1, 90))
        if number in (15, 35):
            clock.step(days=YEARS)
        if number in (25, 40):
            clock.step(days=-YEARS)
        at = chance.choice([memory, other])
        kind = chance.randrange(6)
        if kind < 2 or not ids:
            ids.append((at, at.create_memory("c", chance.choice("xyz"), {"n": number}, "t", tags=["a", str(number)])))
        elif kind == 2:
            with memory.transaction():
                for one, memory_id in ids[-3:]:
                    one.update_memory(memory_id, {"n": number}, tags=["b"])
        elif kind == 3:
            one, memory_id = chance.choice(ids)
            one.update_memory(memory_id, {"n": number})
        elif kind == 4:
            one, memory_id = chance.choice(ids)
            one.delete_memory(memory_id)
        else:
            one, memory_id = chance.choice(ids)
            one.undo(memory_id)
    clock.step(minutes=1)


@pytest.mark.parametrize("seed", range(6))
def test_behind_a_mending_all_dates_have_passed_and_ascend_with_the_numbers(open_backend: Open, seed: int) -> None:
    clock = FakeClock()
    backend = open_backend()
    memory = MemoryModule(storage_backend=backend, clock=clock)
    ahead_and_back(memory, clock, seed)
    before = {(one.namespace, each.id): each.value for one in _spaces(memory) for each in one.list_memories()}

    memory.store.mend_dates()

    changes = [[(_number(each.cursor), each.timestamp) for each in one.changes(limit=1000)] for one in _spaces(memory)]
    if not isinstance(backend, PostgreSQLBackend):  # there each namespace has numbers of its own
        changes = [sorted(itertools.chain(*changes))]
    for told in changes:
        dates = [date for _, date in told]
        assert dates == sorted(dates)
        assert dates[-1] <= clock.now
    assert max(told[-1][1] for told in changes) == clock.now
    for one in _spaces(memory):
        for entry in one.list_memories():
            assert entry.timestamp <= clock.now
            assert max(entry.provenance["created_at"], entry.provenance.get("updated_at", "")) <= clock.now.isoformat()
            assert entry.id in {each.id for each in one.get_memories_by_tags(entry.tags)}
    assert {(one.namespace, each.id): each.value for one in _spaces(memory) for each in one.list_memories()} == before
    backend.shutdown()


def _spaces(memory: MemoryModule) -> list[MemoryModule]:
    return [memory, memory.for_namespace("other")]


def _number(cursor: str) -> int:
    return int(re.findall(r"\d+", cursor)[0])


@pytest.mark.parametrize("is_mended", [False, True])
def test_the_store_is_whole(open_backend: Open, tmp_path: Path, is_mended: bool) -> None:
    clock = FakeClock()
    backend = open_backend()
    if isinstance(backend, PostgreSQLBackend):
        pytest.skip("its copies are made by the server")
    memory = MemoryModule(storage_backend=backend, clock=clock)
    ahead_and_back(memory, clock)
    if is_mended:
        memory.store.mend_dates()
    found = [one.list_memories() for one in _spaces(memory)]
    (tmp_path / "copy").mkdir()
    copy = memory.store.back_up(tmp_path / "copy")
    backend.shutdown()
    if isinstance(backend, JSONBackend):  # edited by hand, it is looked at whole
        document = json.loads(copy.read_bytes())
        del document["checksum"]
        copy.write_text(json.dumps(document))

    again = type(backend)(copy)  # a copy is compared whole at its first opening
    restored = MemoryModule(storage_backend=again, clock=clock)
    assert [one.list_memories() for one in _spaces(restored)] == found
    again.shutdown()


def test_a_mending_that_fails_leaves_all_as_it_was(open_backend: Open) -> None:
    clock = FakeClock()
    backend = open_backend()
    memory = MemoryModule(storage_backend=backend, clock=clock)
    clock.step(days=YEARS)
    first = memory.create_memory("c", "first", {}, "t")
    backend.create(an_entry("far", timestamp=clock.now.astimezone(elsewhere())))
    memory.create_memory("c", "last", {}, "t")
    clock.step(days=-YEARS)
    last, cursor = backend.last_moment(), memory.newest_cursor()

    with pytest.raises(StoreAccessError, match="'far'"):
        memory.store.mend_dates()

    entry = memory.get_memory(first)
    assert entry is not None
    assert (entry.version, entry.timestamp.year) == (1, 2038)
    assert backend.last_moment() == last
    assert memory.changes(cursor) == []
    assert memory.delete_memory("far")
    assert memory.store.mend_dates() == 2
    backend.shutdown()


def test_past_states_that_are_dated_ahead_hold_up_no_others(open_backend: Open) -> None:
    clock = FakeClock()
    backend = open_backend(history=HistoryPolicy(max_age=timedelta(days=7)))
    memory = MemoryModule(storage_backend=backend, clock=clock)
    ids = [memory.create_memory("c", str(number), {}, "t") for number in range(5)]
    clock.step(days=YEARS)
    with memory.transaction():
        for number in range(400):
            memory.update_memory(ids[number % 4], {"n": number})
    clock.step(days=-YEARS, minutes=1)
    memory.update_memory(ids[4], {"n": 1})
    clock.step(days=8)

    assert memory.store.prune_history(limit=100) == 1
    assert memory.get_history(ids[4]) == []
    assert len(memory.get_history(ids[0])) == 100
    memory.store.mend_dates()
    clock.step(days=8)
    memory.store.prune_history()
    assert memory.get_history(ids[0]) == []
    backend.shutdown()


def test_a_store_that_was_dated_at_the_end_of_the_calendar_is_mended(open_backend: Open) -> None:
    backend = open_backend()
    end = datetime.max.replace(tzinfo=UTC)
    with backend.transaction():
        backend.moment(end)
        backend.create(an_entry("1", timestamp=end))
    memory = MemoryModule(storage_backend=backend)
    with pytest.warns(ClockBehindWarning, match="9999"):
        later = memory.create_memory("preferences", "theme", {}, "t")  # whose key the other one has

    assert memory.store.mend_dates() == 2
    entries = memory.list_memories()
    assert [each.id for each in entries] == [later, "1"]
    assert entries[0].timestamp <= datetime.now(UTC)
    backend.shutdown()


def test_a_store_that_keeps_no_past_is_mended(open_backend: Open) -> None:
    clock = FakeClock()
    backend = open_backend(history=HistoryPolicy(max_revisions=0))
    memory = MemoryModule(storage_backend=backend, clock=clock)
    clock.step(days=YEARS)
    memory_id = memory.create_memory("c", "k", {}, "t")
    clock.step(days=-YEARS)

    assert memory.store.mend_dates() == 1
    entry = memory.get_memory(memory_id)
    assert entry is not None
    assert entry.timestamp <= clock.now
    backend.shutdown()


def test_a_store_that_is_only_read_warns_and_is_not_mended(open_backend: Open) -> None:
    clock = FakeClock()
    backend = open_backend()
    MemoryModule(storage_backend=backend, clock=clock).create_memory("c", "k", {}, "t")
    backend.shutdown()
    clock.step(days=-3)
    reader = MemoryModule(storage_backend=open_backend(read_only=True), clock=clock)

    with pytest.warns(ClockBehindWarning):
        reader.bootstrap()
    with pytest.raises(ReadOnlyStoreError):
        reader.store.mend_dates()
    reader.shutdown()


def test_the_async_module_mends(open_backend: Open) -> None:
    clock = FakeClock()
    backend = open_backend()
    clock.step(days=YEARS)
    MemoryModule(storage_backend=backend, clock=clock).create_memory("c", "k", {}, "t")
    clock.step(days=-YEARS)

    async def mend() -> int:
        memory = AsyncMemoryModule.of(MemoryModule(storage_backend=backend, clock=clock))
        try:
            return await memory.store.mend_dates()
        finally:
            await memory.shutdown()

    assert asyncio.run(mend()) == 1


@pytest.mark.parametrize("name", [each.name for each in sorted(STORES.glob("version-*"))])
def test_a_store_of_an_earlier_version_is_mended(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    shutil.copy(STORES / name, path)
    backend: Any = (JSONBackend if path.suffix == ".json" else SQLiteBackend)(path)
    clock = FakeClock(NOON.replace(year=2001))
    memory = MemoryModule(storage_backend=backend, clock=clock)
    spaces = [memory.for_namespace(each) for each in memory.store.list_namespaces()]
    before = [[each.id for each in one.list_memories()] for one in spaces]

    memory.store.mend_dates()

    assert [[each.id for each in one.list_memories()] for one in spaces] == before
    assert all(each.timestamp <= clock.now for one in spaces for each in one.list_memories())
    assert backend.last_moment() == clock.now
    backend.shutdown()


def test_a_date_before_the_last_that_was_right_is_none_to_go_by() -> None:
    # the third was dated back by a caller, so it does not say when the second was made
    assert mended({1: 50, 2: 900, 3: 10, 4: 60}, 100) == {2: 59}
    # no room between its neighbours
    assert mended({1: 50, 2: 900, 3: 990, 4: 51}, 100) == {2: 50, 3: 50}
