"""What is erased is in no byte of the store's directory: after each kind of erasure, and after it was killed."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from jarvis.persistent_memory import MemoryModule

from . import canaries, kill_points
from .canaries import KINDS, Canaries
from .conftest import Figures
from .faults import KillAt, installed

CANARIES, ENTRIES = 1_000, 20_000


@pytest.fixture(scope="module", params=["sqlite", "json"])
def churned(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, dict[str, Canaries]]:
    """Return a backend, a directory with a churned store, which is only copied, and what is hidden in it."""
    directory = tmp_path_factory.mktemp("churned") / "store"
    return request.param, directory, canaries.fill(directory, request.param, canaries=CANARIES, entries=ENTRIES, seed=1)


@pytest.mark.xdist_group("erasure")
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_of_what_is_erased(
    churned: tuple[str, Path, dict[str, Canaries]], kind: str, tmp_path: Path, figures: Figures
) -> None:
    backend, template, hidden = churned
    store = tmp_path / "store"
    shutil.copytree(template, store)
    with MemoryModule(storage_dir=store, backend_type=backend) as memory:
        reader = MemoryModule(storage_dir=store, backend_type=backend)
        reader.list_memories(limit=10)  # another handle, with names and pages in its caches
        assert len(hidden[kind].found(store)) > CANARIES

        receipt = canaries.erase(memory, kind, template.with_name("store.json"))

        assert (receipt.state, receipt.searched and receipt.searched.found) == ("done", 0)
        assert hidden[kind].found(store) == []
        reader.set_user_preference("after", {})
        reader.shutdown()
    assert hidden[kind].found(store) == []
    for other in KINDS:
        if other != kind:
            assert len(hidden[other].found(store)) > CANARIES
    figures.add(backend, erasures=1, canaries=CANARIES)


@pytest.mark.parametrize("kind", KINDS)
def test_an_erasure_that_is_killed_is_finished_by_the_next_opening(
    backend: str, kind: str, tmp_path: Path, soak: bool, figures: Figures
) -> None:
    template = tmp_path / "store"
    count = 40
    hidden = canaries.fill(template, backend, canaries=count, entries=600, seed=2)[kind]
    kills = 0
    for number in _points(soak, backend):
        store = tmp_path / f"killed at {number}"
        shutil.copytree(template, store)
        if not _dies(backend, store, kind, tmp_path / "store.json", number):
            shutil.rmtree(store)
            break
        kills += 1
        with MemoryModule(storage_dir=store, backend_type=backend) as memory:
            held = _held(memory, kind, tmp_path / "store.json")
        found = hidden.found(store)
        assert (not held and found == []) or (held and len(found) > count), number
        shutil.rmtree(store)
    figures.add(backend, kills=kills)
    assert kills >= 3


def _points(soak: bool, backend: str) -> Iterator[int]:
    number = 1
    while True:
        yield number
        number += 1 if soak or backend == "json" else max(number // 3, 1)


def _held(memory: MemoryModule, kind: str, known: Path) -> int:
    """Return how many of the canaries that an erasure of this kind takes are still there."""
    if kind == "namespace":
        return sum(
            memory.for_namespace(name).count_memories() for name in memory.store.list_namespaces() if "victim" in name
        )
    filters = {
        "id": {"tags": None, "key": None},
        "entity": {"entity_type": "person"},
        "filters": {"category": "secrets"},
    }
    if kind == "id":
        import json

        return sum(memory.get_memory(each) is not None for each in json.loads(known.read_text())["ids"])
    return memory.count_memories(**filters[kind])  # type: ignore[arg-type]


def _dies(backend: str, store: Path, kind: str, known: Path, number: int) -> bool:
    """Erase in a child that is killed at its file operation `number`; return whether it came to that."""
    child = os.fork()
    if not child:
        code = 70
        try:
            kill_points.small_log()
            with installed(KillAt(number, os.open(os.devnull, os.O_WRONLY), torn=False)):
                memory = MemoryModule(storage_dir=store, backend_type=backend)
                canaries.erase(memory, kind, known)
                code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    assert status == 0
    return False


def test_an_erasure_waits_for_readers_of_an_older_state(tmp_path: Path) -> None:
    store = tmp_path / "store"
    hidden = canaries.fill(store, "sqlite", canaries=20, entries=200, seed=3)["entity"]
    memory, other = MemoryModule(storage_dir=store), MemoryModule(storage_dir=store)
    reading = other.iter_memories()
    next(reading)

    receipt = memory.erase_entity("person")

    assert (receipt.state, receipt.searched, receipt.memories) == ("pending", None, 20)
    assert memory.count_memories(entity_type="person") == 0
    assert sum(1 for _ in reading) > 100  # it sees the state it began with
    assert hidden.found(store) != []
    memory.shutdown()
    other.shutdown()
    with MemoryModule(storage_dir=store) as opened:  # or the next writer, a second later
        opened.bootstrap()
        assert hidden.found(store) == []


def test_the_next_writer_finishes_an_erasure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jarvis._sqlite.database._ERASING_AGAIN_SECONDS", 0.0)
    store = tmp_path / "store"
    hidden = canaries.fill(store, "sqlite", canaries=20, entries=200, seed=4)["filters"]
    memory, other = MemoryModule(storage_dir=store), MemoryModule(storage_dir=store)
    reading = other.iter_memories()
    next(reading)
    assert memory.erase_memories(category="secrets").state == "pending"
    memory.set_user_preference("during", {})
    assert hidden.found(store) != []
    reading.close()  # type: ignore[attr-defined]  # it is a generator

    other.set_user_preference("after", {})

    assert hidden.found(store) == []
    memory.shutdown()
    other.shutdown()
