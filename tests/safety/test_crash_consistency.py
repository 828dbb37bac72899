from __future__ import annotations

import json
import os
import random
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from jarvis.persistent_memory import MemoryModule

from . import kill_points, model, processes
from .conftest import Figures
from .model import Action, State


class Life(NamedTuple):
    """What a killed writer had said."""

    done: list[tuple[Action, dict[str, str]]]
    in_flight: Action | None


def kill_a_writer(backend: str, directory: Path, chance: random.Random, first: int) -> Life:
    """Let a writer go on for a while, kill it, and return what it had acknowledged."""
    child = processes.start("writer", backend, directory, chance.random(), first)
    said: list[str] = []
    for _ in range(chance.choice((0, 1, 5, 30, 100))):
        said.append(processes.read_line(child))
    inside = chance.random() < 0.9
    while inside and not (said and said[-1].startswith("do ")):
        said.append(processes.read_line(child))
    moment = time.perf_counter() + chance.random() * (chance.choice((0, 0, 0.0005)) if inside else 0.01)
    while time.perf_counter() < moment:
        pass
    child.kill()
    rest, _ = child.communicate()
    lines = said + rest.decode().split("\n")[:-1]  # a last line without its end was not said
    done: list[tuple[Action, dict[str, str]]] = []
    for announced, acknowledged in zip(lines[::2], lines[1::2], strict=False):
        done.append((json.loads(announced[3:]), json.loads(acknowledged[3:])))
    return Life(done, json.loads(lines[-1][3:]) if len(lines) % 2 else None)


def look(backend: str, directory: Path, manner: int) -> tuple[State, dict[str, str]]:
    """Read what is there, in place or in a copy."""
    if manner == 0:
        with MemoryModule(storage_dir=directory, backend_type=backend) as memory:
            model.check_past(memory)
            return model.contents(memory), model.ids_of(memory)
    copy = directory.with_name(f"copy of {directory.name}")
    shutil.copytree(directory, copy)
    try:
        return look(backend, copy, 0)
    finally:
        shutil.rmtree(copy)


def test_a_killed_writer_loses_nothing_it_acknowledged(
    backend: str, tmp_path: Path, soak: bool, chance: random.Random, figures: Figures
) -> None:
    kills = 120 if soak else 10
    directory = tmp_path / "store"
    MemoryModule(storage_dir=directory, backend_type=backend).bootstrap()
    state: State = {}
    inside = acknowledged = number = kept = 0
    for each in range(kills):
        life = kill_a_writer(backend, directory, chance, number)
        ids: dict[str, str] = {}
        for action, touched in life.done:
            state = model.after(state, action)
            ids |= touched
        acknowledged += len(life.done)
        number += len(life.done) + 1
        found, found_ids = look(backend, directory, each % 2)
        if life.in_flight is None or found == state:
            assert found == state
        else:
            assert found == model.after(state, life.in_flight), f"kill {each}"
            kept += 1
        inside += life.in_flight is not None
        if found == state:  # the call in flight may have cleared the ids away
            assert {key: found_ids[key] for key in ids if key in state} == {
                key: ids[key] for key in ids if key in state
            }
        state = found

    assert inside * 10 >= kills
    figures.add(backend, kills=kills, inside_a_call=inside, acknowledged=acknowledged, in_flight_kept=kept)
    figures.add(backend, lost=0, torn=0, half_done=0)


def test_what_a_killed_writer_left_opens_read_only(backend: str, tmp_path: Path, chance: random.Random) -> None:
    MemoryModule(storage_dir=tmp_path, backend_type=backend).bootstrap()
    life = Life([], None)
    while not life.done:
        life = kill_a_writer(backend, tmp_path, chance, 0)
    with_log = sorted(os.listdir(tmp_path))
    expected: State = {}
    for action, _ in life.done:
        expected = model.after(expected, action)

    found = model.contents(MemoryModule(storage_dir=tmp_path, backend_type=backend, read_only=True))
    assert found == expected or (life.in_flight is not None and found == model.after(expected, life.in_flight))
    assert sorted(os.listdir(tmp_path)) == with_log


@pytest.mark.parametrize("scenario", kill_points.SCENARIOS)
def test_a_kill_at_any_file_operation_leaves_all_or_nothing_of_the_call(
    backend: str, scenario: str, tmp_path: Path, soak: bool, chance: random.Random, figures: Figures
) -> None:
    every = 1 if soak or backend == "json" else 11
    child = processes.start("kill_points", backend, scenario, tmp_path / "kills", every, chance.randrange(every))
    said = processes.end(child)

    results = [json.loads(line) for line in said.splitlines()]
    assert [each for each in results if each["wrong"]] == []
    assert len(results) > 4
    main_file = model.FILES[backend]
    checkpoints = sum(
        backend == "sqlite" and scenario not in ("first", "migration") and each["at"].split()[2] == main_file
        for each in results
    )
    if backend == "sqlite" and scenario == "changes":
        assert checkpoints >= (10 if soak else 2)
    figures.add(backend, kills=len(results), inside_a_checkpoint=checkpoints, lost=0, half_done=0)


def test_a_writer_killed_in_its_first_call_leaves_a_store_or_none(backend: str, tmp_path: Path) -> None:
    (tmp_path / f".{model.FILES[backend]}.1-00.tmp").write_bytes(b"half a store of a killed process")
    with MemoryModule(storage_dir=tmp_path, backend_type=backend) as memory:
        assert model.contents(memory) == {}

    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]
