"""A cursor of the feed is good in the store that gave it, and nowhere else: not in what a backup became."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jarvis.async_memory import AsyncMemoryModule
from jarvis.errors import CursorExpiredError, InvalidQueryError
from jarvis.keys import KeyFunction
from jarvis.model.change import FIRST_GENERATION, cursor_of, new_generation, position_in, position_of
from jarvis.persistent_memory import MemoryModule

Open = Callable[..., MemoryModule]

STORES = Path(__file__).parent / "stores"


@pytest.fixture(params=["sqlite", "encrypted", "json"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Return a function that opens the store in a directory of this name."""

    def open_one(name: str = "data", **options: Any) -> MemoryModule:
        if request.param == "encrypted":
            options = {"encryption": "required", "keys": [KeyFunction(lambda: bytes(32))], **options}
        backend_type = "json" if request.param == "json" else "sqlite"
        return MemoryModule(storage_dir=tmp_path / name, backend_type=backend_type, **options)

    return open_one


def told(memory: MemoryModule, since: str | None = None) -> list[str | None]:
    return [change.key for change in memory.changes(since)]


def test_a_cursor_of_before_a_restore_is_refused_and_new_ones_work(opened: Open, tmp_path: Path) -> None:
    with opened() as memory:
        memory.set_user_preference("a", {})
        before = memory.newest_cursor()
        memory.store.back_up(tmp_path / "saved")
        memory.set_user_preference("b", {})
        after = memory.newest_cursor()
        with opened("saved") as restored:
            for key in ("c", "d", "e"):
                restored.set_user_preference(key, {})

            for cursor in (before, after, memory.changes()[0].cursor, str(position_of(before))):
                with pytest.raises(CursorExpiredError, match="restored") as caught:
                    restored.changes(cursor)
                assert caught.value.is_foreign
            assert told(restored, caught.value.earliest) == ["a", "c", "d", "e"]
            assert told(restored, restored.changes()[0].cursor) == ["c", "d", "e"]
            assert restored.changes(restored.newest_cursor()) == []
        with opened("saved") as restored:
            assert told(restored, restored.changes(limit=2)[-1].cursor) == ["d", "e"]

        assert told(memory, before) == ["b"]
        assert told(memory, str(position_of(before))) == ["b"]


def test_a_copy_that_is_only_read_is_still_the_same_store(opened: Open, tmp_path: Path) -> None:
    with opened() as memory:
        memory.set_user_preference("a", {})
        first = memory.newest_cursor()
        memory.set_user_preference("b", {})
        copy = memory.store.back_up(tmp_path / "saved")
    held = copy.read_bytes()

    with opened("saved", read_only=True) as reader:
        assert told(reader, first) == ["b"]
        assert told(reader, str(position_of(first))) == ["b"]
        again = reader.store.back_up(tmp_path / "again")
    assert copy.read_bytes() == held
    assert again.exists()
    with opened("again") as restored, pytest.raises(CursorExpiredError):
        restored.changes(first)


def test_a_backup_of_what_was_restored_is_a_copy_again(opened: Open, tmp_path: Path) -> None:
    with opened() as memory:
        memory.set_user_preference("a", {})
        memory.store.back_up(tmp_path / "one")
    with opened("one") as memory:
        cursor = memory.newest_cursor()
        memory.store.back_up(tmp_path / "two")
        assert memory.changes(cursor) == []
    with opened("two") as memory:
        memory.set_user_preference("b", {})
        newest = memory.newest_cursor()
        with pytest.raises(CursorExpiredError):
            memory.changes(cursor)
    with opened("two") as memory:
        assert memory.newest_cursor() == newest


def test_opening_erasing_and_moving_a_store_keep_its_cursors(opened: Open) -> None:
    with opened() as memory:
        kept = memory.set_user_preference("a", {})
        cursor = memory.newest_cursor()
    with opened() as memory:
        memory.erase_memory(memory.set_user_preference("b", {}))
        memory.update_memory(kept, {"n": 1})
        assert [change.operation for change in memory.changes(cursor)] == ["erase", "update"]
    if memory.backend.name == "sqlite":
        if memory.store.key_slots():
            memory.store.rotate_key()
        memory.store.recompress()
        assert [change.operation for change in memory.changes(cursor)] == ["erase", "update"]
        memory.shutdown()


def test_a_watch_is_told_that_the_store_was_restored(tmp_path: Path) -> None:
    with MemoryModule(storage_dir=tmp_path / "data") as memory:
        memory.set_user_preference("a", {})
        cursor = memory.newest_cursor()
        memory.store.back_up(tmp_path / "saved")

    async def story() -> None:
        async with AsyncMemoryModule(storage_dir=tmp_path / "saved") as restored:
            with pytest.raises(CursorExpiredError):
                await anext(restored.watch(cursor, idle_seconds=0))

    with MemoryModule(storage_dir=tmp_path / "saved") as restored, pytest.raises(CursorExpiredError):
        next(restored.watch(cursor, idle_seconds=0))
    asyncio.run(story())


@pytest.mark.parametrize("store", sorted(STORES.glob("version-[345].*")), ids=lambda path: path.name)
def test_cursors_of_older_versions_go_on(store: Path, tmp_path: Path) -> None:
    backend_type = {".db": "sqlite", ".json": "json"}[store.suffix]
    shutil.copy(store, tmp_path / f"memory{store.suffix}")
    with MemoryModule(storage_dir=tmp_path, backend_type=backend_type, namespace="lived", read_only=True) as reader:
        numbers = [change.cursor for change in reader.changes()]
        assert all(number.isdecimal() for number in numbers)
        rest = told(reader, numbers[0])

    with MemoryModule(storage_dir=tmp_path, backend_type=backend_type, namespace="lived") as memory:
        memory.set_user_preference("new", {})
        cursors = [change.cursor for change in memory.changes()]
        assert told(memory, numbers[0]) == told(memory, cursors[0]) == [*rest, "new"]
        assert [position_of(cursor) for cursor in cursors[:-1]] == [int(number) for number in numbers]
        assert all("." in cursor for cursor in cursors)


def test_two_stores_never_share_a_cursor(opened: Open) -> None:
    cursors = []
    for name in ("one", "two"):
        with opened(name) as memory:
            memory.set_user_preference("a", {})
            cursors.append(memory.newest_cursor())

    assert cursors[0] != cursors[1]
    with opened("two") as memory, pytest.raises(CursorExpiredError):
        memory.changes(cursors[0])


def test_the_forms_of_a_cursor() -> None:
    generation = new_generation()
    cursor = cursor_of(12, generation)

    assert FIRST_GENERATION <= generation < 36 * FIRST_GENERATION
    assert (len(cursor), position_of(cursor), cursor_of(12, 0)) == (len("12.") + 10, 12, "12")
    assert position_in(cursor, generation, is_restored=True, earliest=0) == 12
    for malformed in ("", ".", "1.", "1.5", "-1", "1.0000000000", "1.ABCDEFGHIJ", "1.1000000000.", "9" * 19, "٣"):
        with pytest.raises(InvalidQueryError):
            position_of(malformed)
    for foreign in (cursor_of(12, new_generation()), "12"):
        with pytest.raises(CursorExpiredError):
            position_in(foreign, generation, is_restored=True, earliest=None)
