"""A store is put into another file while its processes go on: nothing is lost, and nobody waits for long."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from jarvis._sqlite import moving
from jarvis.persistent_memory import MemoryModule

from . import processes
from .conftest import Figures
from .moving_children import database_of


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def fill(store: Path, count: int) -> None:
    with MemoryModule(storage_dir=store) as memory:
        with memory.transaction():
            for number in range(100):
                memory.create_memory("kept", f"kept{number}", {"n": number}, "thing", tags=["kept"])
            memory.upsert_memory("counters", "counter", {"n": 0}, "counter")
            for number in range(count):
                value = {"n": number, "text": "z" * (number * 31 % 400)}
                memory.create_memory("filling", f"f{number}", value, "thing", tags=["blue", f"t{number % 7}"])
        with memory.transaction():
            for entry in memory.get_memories_by_category("filling")[: count // 5]:
                memory.update_memory(entry.id, {"again": True})


class Crowd:
    """Processes that use the store until they are told to stop."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._stop = store.with_name("stop")
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self, program: str, *arguments: object) -> None:
        self._children.append(processes.start("moving_children", program, self._store, *arguments))

    def await_ready(self) -> None:
        for child in self._children:
            assert json.loads(processes.read_line(child)) == "ready"

    def stop(self) -> list[dict[str, Any]]:
        self._stop.touch()
        said = [json.loads(processes.end(child).splitlines()[-1]) for child in self._children]
        self._children.clear()
        self._stop.unlink()
        return said


@pytest.fixture
def crowd(store: Path) -> Crowd:
    return Crowd(store)


def longest(said: list[dict[str, Any]]) -> float:
    return max(max(each["longest"].values()) for each in said)


def check_writers(store: Path, said: list[dict[str, Any]]) -> None:
    with MemoryModule(storage_dir=store) as memory:
        found = {
            entry.key: [entry.id, entry.value["n"], entry.version]
            for entry in memory.get_memories_by_category("things")
        }
    expected = {key: state for each in said for key, state in each["there"].items()}
    assert found == expected


def test_four_processes_write_while_a_store_is_moved(store: Path, crowd: Crowd, soak: bool, figures: Figures) -> None:
    fill(store, 20_000)
    for number in range(4):
        crowd.start("write", f"w{number}", 1)
    crowd.await_ready()
    memory = MemoryModule(storage_dir=store)
    moves = 5 if soak else 1
    moved = []
    for _ in range(moves):
        time.sleep(0.3)
        began = time.perf_counter()
        moved.append(moving.move(database_of(memory)))
        print(time.perf_counter() - began, moved[-1])
    time.sleep(0.3)
    memory.shutdown()
    said = crowd.stop()

    for each in said:
        print(each["calls"], each["longest"])
    check_writers(store, said)
    print(longest(said))
