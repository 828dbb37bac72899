from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from jarvis.errors import CorruptStoreError, StoreError
from jarvis.persistent_memory import MemoryModule

from . import model, processes
from .conftest import Figures
from .model import State, bulk

BLOCK = 4096

Damage = Callable[[random.Random, bytearray], None]


def flip_bits(chance: random.Random, data: bytearray) -> None:
    for _ in range(chance.choice((1, 1, 1, 3, 20))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def flip_a_bit_of_the_head(chance: random.Random, data: bytearray) -> None:
    data[chance.randrange(min(len(data), 120))] ^= 1 << chance.randrange(8)


def cut(chance: random.Random, data: bytearray) -> None:
    del data[chance.randrange(1, len(data)) :]


def cut_blocks(chance: random.Random, data: bytearray) -> None:
    blocks = len(data) // BLOCK
    del data[(blocks - chance.randrange(1, min(blocks, 4) + 1)) * BLOCK or BLOCK // 2 :]


def cut_to_nothing(chance: random.Random, data: bytearray) -> None:
    data.clear()


def put_garbage(chance: random.Random, data: bytearray) -> None:
    length = min(chance.choice((1, 16, 512, BLOCK, 5 * BLOCK)), len(data) - 1)
    start = chance.randrange(len(data) - length)
    data[start : start + length] = chance.choice((bytes(length), chance.randbytes(length), b"\xff" * length))


def swap_blocks(chance: random.Random, data: bytearray) -> None:
    blocks = len(data) // BLOCK
    if blocks < 2:
        return flip_bits(chance, data)
    one, other = (block * BLOCK for block in chance.sample(range(blocks), 2))
    data[one : one + BLOCK], data[other : other + BLOCK] = data[other : other + BLOCK], data[one : one + BLOCK]
    return None


def repeat_a_block(chance: random.Random, data: bytearray) -> None:
    blocks = max(len(data) // BLOCK, 2)
    one, other = (block * BLOCK for block in chance.sample(range(blocks), 2))
    data[one : one + BLOCK] = data[other : other + BLOCK]


def drop_a_block(chance: random.Random, data: bytearray) -> None:
    start = chance.randrange(max(len(data) // BLOCK, 1)) * BLOCK
    del data[start : start + BLOCK]


def add_to_the_end(chance: random.Random, data: bytearray) -> None:
    data += chance.choice((b"\0", b"}\n", bytes(BLOCK), chance.randbytes(100)))


DAMAGES: tuple[Damage, ...] = (
    *(flip_bits, flip_bits, flip_bits, flip_a_bit_of_the_head, cut, cut_blocks, cut_to_nothing),
    *(put_garbage, put_garbage, swap_blocks, swap_blocks, repeat_a_block, drop_a_block, add_to_the_end),
)


def build(directory: Path, backend: str, count: int) -> State:
    """Write a store of `count` entries in one transaction, closed; return what it holds."""
    changes: list[model.Change] = [
        ["create", f"k{n}", {"n": n, "text": f"{n} " * (n * 7919 % 60)}, [model.TAGS[n % 5]]] for n in range(count)
    ]
    with MemoryModule(storage_dir=directory, backend_type=backend) as memory:
        model.perform(memory, bulk(changes), {})
    return model.after({}, bulk(changes))


def quick_contents(memory: MemoryModule) -> State:
    """Return what is stored; for a store too large for `model.contents`."""
    entries = memory.list_memories()
    assert memory.count_memories() == len(entries)
    for entry in entries[:: len(entries) // 50 or 1]:
        assert memory.get_memory(entry.id) == entry
        assert memory.get_memory_by_key(entry.key) == entry
    tag = model.TAGS[0]
    assert len(memory.get_memories_by_tags([tag])) == sum(tag in entry.tags for entry in entries)
    state = {entry.key: model.entry_row(entry) for entry in entries}
    assert len(state) == len(entries)
    return state


def examine(directory: Path, backend: str, expected: State, name: str, *, read_only: bool) -> str:
    """Read everything of a damaged store, each answer by itself; return "exact", "refused" or what is wrong."""
    read = model.contents if len(expected) < 1000 else quick_contents
    damaged = (directory / name).read_bytes()
    verdict = ""
    memory = MemoryModule(storage_dir=directory, backend_type=backend, read_only=read_only)
    try:
        verdict = "exact" if read(memory) == expected else "answers from a store that lost or changed entries"
    except CorruptStoreError as error:
        verdict = "refused" if model.FILES[backend] in error.path else f"names {error.path}"
    except StoreError as error:
        verdict = "refused" if model.FILES[backend] in str(error) else f"names {error.path}"
    except Exception as error:  # noqa: BLE001  whatever it is, it is the finding
        return f"{type(error).__name__}: {error}"
    if verdict == "refused":
        if (directory / name).read_bytes() != damaged:
            return "changes the damaged bytes"
        verdict = _single_answers(memory, expected) or verdict
        if verdict == "refused" and not read_only:
            try:
                memory.create_memory("things", "new", {}, "thing")
            except StoreError:
                if (directory / name).read_bytes() != damaged:
                    return "changes the damaged bytes"
            else:
                return "takes a write into a damaged store"
    with contextlib.suppress(StoreError):
        memory.shutdown()
    if verdict == "refused":
        if (directory / name).read_bytes() != damaged:
            return "changes the damaged bytes at its end"
        try:
            with MemoryModule(storage_dir=directory, backend_type=backend) as again:
                found = read(again)
        except StoreError:
            return verdict
        return "is opened without a word the second time" if found != expected else "exact"
    return verdict


def _single_answers(memory: MemoryModule, expected: State) -> str:
    """Ask a damaged store for single entries; return what is wrong with an answer, or ""."""
    few = len(expected) >= 1000  # each question may read the whole file again
    for key in list(expected)[:: len(expected) // (2 if few else 20) or 1]:
        try:
            entry = memory.get_memory_by_key(key)
        except StoreError:
            continue
        if entry is None or model.entry_row(entry) != expected[key]:
            return f"gives another answer for {key}"
    for tag in model.TAGS[:1] if few else model.TAGS:
        try:
            found = len(memory.get_memories_by_tags([tag]))
        except StoreError:
            continue
        if found != sum(tag in each[2] for each in expected.values()):
            return f"gives another answer for the tag {tag}"
    with contextlib.suppress(StoreError):
        if memory.count_memories() != len(expected):
            return "counts another number"
    return ""


@pytest.mark.parametrize("count", [300, 100_000])
def test_a_damaged_copy_gives_the_exact_data_or_a_clear_error(
    backend: str, count: int, tmp_path: Path, soak: bool, chance: random.Random, figures: Figures
) -> None:
    if count > 1000 and not soak:
        pytest.skip("a store of this size is for --soak")
    whole = tmp_path / "whole"
    expected = build(whole, backend, count)
    pristine = (whole / model.FILES[backend]).read_bytes()
    verdicts: dict[str, int] = {}
    wrong: list[str] = []
    copies = 300 if soak else 60
    if backend == "json" and count > 300:
        copies = 60  # a hundred times what the backend is meant for, and seconds to read
    for number in range(copies):
        directory = tmp_path / f"{number}"
        directory.mkdir()
        damage = DAMAGES[number % len(DAMAGES)]
        data = bytearray(pristine)
        while data == pristine:
            damage(chance, data)
        (directory / model.FILES[backend]).write_bytes(data)
        verdict = examine(directory, backend, expected, model.FILES[backend], read_only=number % 4 == 3)
        verdicts[verdict] = verdicts.get(verdict, 0) + 1
        if verdict in ("exact", "refused"):
            shutil.rmtree(directory)
        else:
            wrong.append(f"{number}: {damage.__name__}: {verdict}")

    assert wrong == []
    figures.add(f"{backend} {count}", copies=copies, wrong=0, **verdicts)


def test_damage_in_place_between_two_openings_is_noticed(
    backend: str, tmp_path: Path, soak: bool, chance: random.Random, figures: Figures
) -> None:
    template = tmp_path / "template"
    expected = build(template, backend, 300)
    wrong = []
    copies = 300 if soak else 28
    for number in range(copies):
        directory = tmp_path / f"{number}"
        build_from(template, directory, backend, expected)
        path = directory / model.FILES[backend]
        damage = DAMAGES[number % len(DAMAGES)]
        before = path.stat().st_mtime_ns
        data = bytearray(pristine := path.read_bytes())
        while data == pristine:
            damage(chance, data)
        while path.stat().st_mtime_ns == before:  # the file system's clock ticks every few milliseconds
            with path.open("r+b") as file:
                file.truncate(len(data))
                file.write(data)
        verdict = examine(directory, backend, expected, model.FILES[backend], read_only=number % 4 == 3)
        if verdict not in ("exact", "refused"):
            wrong.append(f"{number}: {damage.__name__}: {verdict}")

    assert wrong == []
    figures.add(backend, damages=copies, wrong=0)


def build_from(template: Path, directory: Path, backend: str, expected: State) -> None:
    """Make a copy that the library knows: it was opened and closed where it is."""
    shutil.copytree(template, directory)
    with MemoryModule(storage_dir=directory, backend_type=backend) as memory:
        assert memory.count_memories() == len(expected)


def test_damage_under_an_open_store_never_gives_another_answer(
    backend: str, tmp_path: Path, soak: bool, chance: random.Random
) -> None:
    template = tmp_path / "template"
    expected = build(template, backend, 300)
    for number in range(60 if soak else 14):
        directory = tmp_path / f"{number}"
        build_from(template, directory, backend, expected)
        memory = MemoryModule(storage_dir=directory, backend_type=backend)
        assert memory.get_memory_by_key("k1") is not None
        path = directory / model.FILES[backend]
        data = bytearray(path.read_bytes())
        flip_bits(chance, data)
        with path.open("r+b") as file:
            file.write(data)
        wrong = _single_answers(memory, expected)
        with contextlib.suppress(StoreError):
            memory.shutdown()
        assert not wrong, number


def test_an_empty_file_is_an_error_and_not_an_empty_memory(backend: str, tmp_path: Path) -> None:
    path = tmp_path / model.FILES[backend]
    path.touch()
    for read_only in (False, True):
        memory = MemoryModule(storage_dir=tmp_path, backend_type=backend, read_only=read_only)
        for _ in range(2):
            with pytest.raises(CorruptStoreError, match=path.name):
                memory.list_memories()
    with pytest.raises(CorruptStoreError, match=path.name):
        MemoryModule(storage_dir=tmp_path, backend_type=backend).create_memory("things", "one", {}, "thing")

    assert path.read_bytes() == b""


@pytest.mark.parametrize("content", [b"hello\n", b"\0" * 8192, b"{}", b"[]", b"SQLite format 3\0" + b"\0" * 4080])
def test_a_file_that_is_no_store_is_an_error_and_stays_as_it_is(backend: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / model.FILES[backend]
    path.write_bytes(content)
    memory = MemoryModule(storage_dir=tmp_path, backend_type=backend)

    with pytest.raises(CorruptStoreError, match=path.name):
        memory.create_memory("things", "one", {}, "thing")
    assert path.read_bytes() == content


def test_another_programs_database_is_an_error_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE letters (text)")
    connection.commit()
    connection.close()
    content = path.read_bytes()

    with pytest.raises(CorruptStoreError, match="no store of jarvis"):
        MemoryModule(storage_dir=tmp_path).list_memories()
    assert path.read_bytes() == content


# --- the log of a writer that was killed ------------------------------------------------------------------------


def killed_store(directory: Path) -> State:
    """Leave a store as a killed writer does: thirty entries in the file, thirty more in its log."""
    processes.end(processes.start("children", "leave_a_log", directory))
    whole = directory.with_name(f"{directory.name}-whole")
    shutil.copytree(directory, whole)
    with MemoryModule(storage_dir=whole) as memory:
        state = model.contents(memory)
    assert len(state) == 60
    return state


def flip_a_bit_of_the_logs_head(chance: random.Random, data: bytearray) -> None:
    data[chance.randrange(32)] ^= 1 << chance.randrange(8)


def flip_a_bit_before_the_last_commits(chance: random.Random, data: bytearray) -> None:
    data[chance.randrange(32, len(data) // 2)] ^= 1 << chance.randrange(8)


def put_garbage_before_the_last_commits(chance: random.Random, data: bytearray) -> None:
    length = chance.choice((1, 16, 512, BLOCK))
    start = chance.randrange(len(data) // 2)
    data[start : start + length] = chance.randbytes(length)


def flip_a_bit_of_the_last_commit(chance: random.Random, data: bytearray) -> None:
    data[-1 - chance.randrange(BLOCK)] ^= 1 << chance.randrange(8)


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit_before_the_last_commits,
        put_garbage_before_the_last_commits,
        flip_a_bit_of_the_logs_head,
        flip_a_bit_of_the_last_commit,
        cut,
        cut_to_nothing,
    ],
)
def test_a_damaged_log_gives_the_exact_data_or_a_clear_error(
    damage: Damage, tmp_path: Path, soak: bool, chance: random.Random, figures: Figures
) -> None:
    expected = killed_store(tmp_path / "killed")
    wrong = []
    copies = 50 if soak else 10
    for number in range(copies):
        directory = tmp_path / f"{number}"
        shutil.copytree(tmp_path / "killed", directory)
        log = directory / "memory.db-wal"
        data = bytearray(log.read_bytes())
        damage(chance, data)
        log.write_bytes(data)
        verdict = examine(directory, "sqlite", expected, "memory.db-wal", read_only=False)
        if verdict not in ("exact", "refused"):
            wrong.append(f"{number}: {verdict}")

    assert wrong == []
    figures.add("sqlite", copies=copies, wrong=0)


def test_a_lost_log_is_noticed(tmp_path: Path) -> None:
    expected = killed_store(tmp_path / "killed")
    os.unlink(tmp_path / "killed" / "memory.db-wal")

    verdict = examine(tmp_path / "killed", "sqlite", expected, "memory.db", read_only=False)
    assert verdict in ("exact", "refused")
