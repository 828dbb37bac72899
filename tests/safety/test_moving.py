"""A store is put into another file while its processes go on: nothing is lost, and nobody waits for long."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from jarvis._sqlite.replace import move
from jarvis.model.rewriting import RewriteProgress, Rewritten
from jarvis.persistent_memory import MemoryModule

from . import model, processes
from .conftest import Figures
from .moving_children import database_of, dies_moving, digest


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
    return max(float(max(each["longest"].values())) for each in said)


def check_writers(store: Path, said: list[dict[str, Any]]) -> None:
    with MemoryModule(storage_dir=store) as memory:
        found = {
            entry.key: [entry.id, entry.value["n"], entry.version]
            for entry in memory.get_memories_by_category("things")
        }
    expected = {key: state for each in said for key, state in each["there"].items()}
    assert found == expected


def test_four_processes_write_while_a_store_is_moved(store: Path, crowd: Crowd, soak: bool, figures: Figures) -> None:
    fill(store, 200_000 if soak else 20_000)
    for number in range(4):
        crowd.start("write", f"w{number}", 1)
    crowd.await_ready()
    moved: list[Rewritten] = []
    with MemoryModule(storage_dir=store) as memory:
        for _ in range(5 if soak else 2):
            began = time.perf_counter()
            moved.append(move.move(database_of(memory)))
            figures.add("sqlite", move_milliseconds=round(1000 * (time.perf_counter() - began)))
    said = crowd.stop()

    check_writers(store, said)
    assert all(each.rounds for each in moved)
    assert all(each["calls"] > 20 for each in said)
    limit = 0.5 if soak else 60.0  # another program may have had the processor
    assert longest(said) < limit
    assert max(each.locked_seconds for each in moved) < limit
    figures.add("sqlite", moves=len(moved), calls=sum(each["calls"] for each in said), lost=0, errors=0)
    figures.add("sqlite", longest_wait_milliseconds=round(1000 * longest(said)))
    with MemoryModule(storage_dir=store) as memory:
        model.check_past(memory)
        last = move.move(database_of(memory))
    assert {"rows": last.rows, "digest": last.digest} == digest(str(store))


def test_openers_readers_and_watchers_go_on_through_many_swaps(
    store: Path, crowd: Crowd, soak: bool, figures: Figures
) -> None:
    fill(store, 0)
    for program in ("open_again", "look"):
        crowd.start(program, "writing")
        crowd.start(program, "read only")
    crowd.start("open_again", "writing")
    crowd.start("count_up")
    crowd.await_ready()
    moves, deadline = 0, time.monotonic() + (600 if soak else 8)
    with MemoryModule(storage_dir=store) as memory:
        while moves < 1_000 and time.monotonic() < deadline:
            move.move(database_of(memory))
            moves += 1
    said = crowd.stop()

    with MemoryModule(storage_dir=store) as memory:
        newest = memory.get_memory_by_key("counter")
        assert newest is not None
        assert newest.value["n"] == said[-1]["n"]
    assert all(each["calls"] > 5 for each in said)
    figures.add("sqlite", moves=moves, openings=sum(each["calls"] for each in said if "open" in each["longest"]))
    figures.add("sqlite", calls=sum(each["calls"] for each in said), lost=0, errors=0)


@pytest.mark.parametrize("stage", ["copy", "verify", "swap"])
def test_a_killed_move_is_gone_on_with(store: Path, stage: str) -> None:
    fill(store, 3_000)
    said = processes.start("moving_children", "move_until", store, stage, 1 if stage == "swap" else 5)
    said.wait()
    assert said.returncode == -signal.SIGKILL
    reports: list[RewriteProgress] = []
    with MemoryModule(storage_dir=store) as memory:
        memory.create_memory("things", "meanwhile", {}, "thing")
        moved = move.move(database_of(memory), progress=reports.append)

        assert moved.resumed >= (1_000 if stage == "copy" else 3_000)
        assert reports[0].stage != "copy" or reports[0].done == moved.resumed
        assert memory.count_memories() == 3_102
    assert {"rows": moved.rows, "digest": moved.digest} == digest(str(store))


@pytest.mark.parametrize(("stage", "torn"), [("copy", False), ("copy", True), ("swap", False)])
def test_a_kill_at_any_file_operation_of_a_move_loses_nothing_of_anybody(
    store: Path, crowd: Crowd, stage: str, torn: bool, soak: bool, figures: Figures
) -> None:
    fill(store, 200)
    for number in range(2):
        crowd.start("write", f"w{number}", 1, 0.02)
    crowd.start("count_up", 0.02)
    crowd.await_ready()
    every = 1 if soak or stage == "swap" else 101
    number, kills, resumed = 1, 0, 0
    while dies_moving(store, number, stage, torn=torn) is not None:
        kills += 1
        with MemoryModule(storage_dir=store, read_only=bool(kills % 2)) as memory:
            assert len(memory.get_memories_by_category("kept")) == 100
        with MemoryModule(storage_dir=store) as memory:
            memory.create_memory("afterwards", f"after {kills}", {}, "thing")
            assert memory.count_memories(category="afterwards") == kills
            if kills % 5 == 1:
                move.abandon(database_of(memory))
            elif kills % 5 == 3:
                resumed += move.move(database_of(memory)).resumed
        number += every + number // 20  # the store grows meanwhile, and with it what a move has to do
    said = crowd.stop()

    assert kills > 2
    check_writers(store, said[:2])
    with MemoryModule(storage_dir=store) as memory:
        newest = memory.get_memory_by_key("counter")
        assert newest is not None
        assert newest.value["n"] == said[2]["n"]
        assert memory.count_memories(category="afterwards") == kills
        memory.shutdown()
        move.move(database_of(memory))
    assert sorted(each.name for each in store.iterdir() if each.name != ".memory.db.moving.lock") == [
        "memory.db",
        "memory.db.lock",
    ]
    figures.add("sqlite", kills=kills, lost=0)
