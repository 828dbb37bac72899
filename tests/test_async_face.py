"""The async module is the module, awaitable: the same signatures, docstrings and types."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jarvis import moving
from jarvis.async_memory import AsyncMemoryModule, AsyncStore, AsyncTable
from jarvis.persistent_memory import MemoryModule
from jarvis.services.store import Store
from jarvis.services.table import Table
from tests.test_former_names import MOVED_TO_STORE

ROOT = Path(__file__).parent.parent

OF_ITS_OWN = {"transaction", "for_namespace"}
"""Verbs that return something else than those of `MemoryModule`, and say so."""
AT_ONCE = {"acting_as", "iter_memories", "sweep_every", "table", "watch", *OF_ITS_OWN}
"""Verbs that are not awaited."""


@pytest.mark.parametrize(
    ("face", "kind"), [(AsyncMemoryModule, MemoryModule), (AsyncStore, Store), (AsyncTable, Table)]
)
def test_an_awaitable_verb_has_the_signature_and_the_docstring_of_its_own(face: type, kind: type) -> None:
    verbs = {name for name, held in vars(kind).items() if name[0] != "_" and inspect.isfunction(held)}
    if kind is MemoryModule:
        verbs -= MOVED_TO_STORE.keys()

    for name in verbs:
        verb, awaited = getattr(kind, name), getattr(face, name)
        assert awaited.__qualname__ == f"{face.__name__}.{name}"  # which an unawaited call is warned of by
        if name not in OF_ITS_OWN:
            assert inspect.signature(awaited) == inspect.signature(verb), name
            assert inspect.getdoc(awaited) == inspect.getdoc(verb), name
        assert inspect.iscoroutinefunction(awaited) != (name in AT_ONCE), name
    assert inspect.signature(AsyncMemoryModule) == inspect.signature(MemoryModule)


@pytest.mark.parametrize("function", [moving.migrate, moving.restore_backup, moving.repair])
def test_each_function_that_moves_a_store_has_an_awaitable_one(function: Callable[..., object]) -> None:
    awaited = getattr(moving, f"{function.__name__}_async")

    assert awaited.__qualname__ == f"{function.__name__}_async"
    assert inspect.iscoroutinefunction(awaited)
    assert inspect.signature(awaited) == inspect.signature(function)
    assert inspect.getdoc(awaited) == inspect.getdoc(function)


PROGRAM = """
from collections.abc import AsyncIterator

from jarvis import MemoryModule
from jarvis.async_memory import AsyncMemoryModule
from jarvis.persistent_memory import Explanation
from jarvis.storage_backend import MemoryEntry


async def right(memory: AsyncMemoryModule) -> None:
    made: str = await memory.create_memory("notes", "k", {"a": 1}, "note", tags=["x"])
    entry: MemoryEntry | None = await memory.get_memory(made)
    told: Explanation = await memory.search_memories("notes", where={"a": 1}, explain=True)
    count: int = await memory.count_memories("notes")
    names: list[str] = await memory.store.list_namespaces()
    entries: AsyncIterator[MemoryEntry] = memory.iter_memories(limit=3)
    AsyncMemoryModule(storage_dir="x", durability="normal")


async def wrong(memory: AsyncMemoryModule) -> None:
    await memory.create_memory("notes", "k", {"a": 1}, "note", tag=["x"])  # a misspelt keyword
    await memory.create_memory("notes", "k", "value", "note")  # a wrong type
    await memory.create_memory("notes", "k")  # too few
    number: int = await memory.create_memory("notes", "k", {}, "note")  # a wrong result
    await memory.store.back_up(1)  # a wrong type
    entries: list[MemoryEntry] = await memory.search_memories("notes", explain=True)  # a wrong result
    await memory.search_memories(categroy="notes")  # a misspelt keyword
    memory.iter_memories(limits=3)  # a misspelt keyword
    await memory.clear_all(eras=True)  # a misspelt keyword
    AsyncMemoryModule(durability="never")  # a wrong value
    AsyncMemoryModule(storage_dri="x")  # a misspelt keyword
    with memory.acting_as(modul="ui"):  # a misspelt keyword
        await memory.encrypt_store(progress=1)  # a wrong type, under a former name
"""


def test_a_type_checker_sees_what_is_wrong_with_an_awaited_call(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--follow-imports=silent", str(program)]

    shown = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)

    told = [int(line) for line in re.findall(r"program\.py:(\d+): error", shown.stdout)]
    wrong = [number for number, line in enumerate(PROGRAM.splitlines(), 1) if "  # " in line]
    assert sorted(set(told)) == wrong, shown.stdout + shown.stderr
