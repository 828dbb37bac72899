"""Kill a scenario at every file operation it makes, each time on a fresh copy, and look at what is left.

    python -m safety.kill_points BACKEND SCENARIO DIRECTORY EVERY OFFSET

One process forks a child for each point. One line of JSON on standard output for each kill.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from jarvis._sqlite import engine
from jarvis.capabilities import Compresses
from jarvis.persistent_memory import MemoryModule

from . import model
from .faults import KillAt, installed
from .model import Action, State, bulk, single

Step = Action | str  # "open", "shutdown", "erase", "recompress", or an action

_NOISE = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789é", k=6_000))
"""More than a page of it stays when it is compressed."""


class Scenario(NamedTuple):
    """Steps to make in a directory that `prepare` fills; it returns what is in the store then."""

    prepare: Callable[[Path, str], State]
    steps: tuple[Step, ...]


def _nothing(directory: Path, backend: str) -> State:
    return {}


def _old(directory: Path, backend: str) -> State:
    return model.first_life_store(directory, backend, 60)


def _some(directory: Path, backend: str) -> State:
    state: State = {}
    with MemoryModule(storage_dir=directory, backend_type=backend) as memory:
        ids: dict[str, str] = {}
        action = bulk(
            ["create", f"s{n}", {"n": n, "text": "x" * (n * 97 % 700)}, [model.TAGS[n % 5]]] for n in range(60)
        )
        model.perform(memory, action, ids)
    return model.after(state, action)


def _large(directory: Path, backend: str) -> State:
    """Fill a store as it was before there was compression, with a past."""
    options = {"compression": "off"} if backend == "sqlite" else {}
    state: State = {}
    with MemoryModule(storage_dir=directory, backend_type=backend, **options) as memory:  # type: ignore[arg-type]  # one
        ids: dict[str, str] = {}
        for action in (
            bulk(["create", f"s{n}", {"n": n, "text": _NOISE[: 900 + 60 * n] * 2}, ["red"]] for n in range(20)),
            bulk(["update", f"s{n}", {"n": n, "text": _NOISE[: 800 + 60 * n]}, ["blue"]] for n in range(12)),
        ):
            model.perform(memory, action, ids)
            state = model.after(state, action)
    return state


_CHANGES: tuple[Step, ...] = (
    single("create", "new", {"a": 1}, ["red"]),
    single("update", "s3", {"b": [1, 2]}, ["blue"]),
    single("upsert", "u1", {"c": _NOISE}),
    single("delete", "s5"),
    single("upsert", "u1", {"c": "e"}),
)

SCENARIOS: dict[str, Scenario] = {
    "first": Scenario(_nothing, ("open", single("create", "a", {"n": 1}, ["red"]), "shutdown")),
    "migration": Scenario(_old, ("open", single("create", "a", {"n": 1}, ["red"]), "shutdown")),
    "changes": Scenario(_some, (*_CHANGES, "shutdown", single("create", "last", {}, []), "shutdown")),
    "bulk": Scenario(
        _some,
        (
            bulk(
                [
                    *(["create", f"b{n}", {"n": n, "text": "y" * (n * 31 % 900)}, ["green"]] for n in range(40)),
                    *(["delete", f"s{n}"] for n in range(10)),
                    ["upsert", "u1", {}],
                ],
                [["create", "undone", {}, []], ["delete", "s11"]],
            ),
            "shutdown",
        ),
    ),
    "clear": Scenario(_some, (single("clear"), single("create", "a", {}, []), "shutdown")),
    "erase": Scenario(_some, ("erase", single("create", "a", {}, []), "shutdown")),
    "recompress": Scenario(_large, ("open", "recompress", single("create", "a", {}, []), "shutdown")),
}


def states(scenario: Scenario, start: State) -> list[State]:
    """Return what is in the store before the first step and after each."""
    found = [start]
    for step in scenario.steps:
        if step == "erase":
            found.append({})
        elif isinstance(step, str):
            found.append(found[-1])
        else:
            found.append(model.after(found[-1], step))
    return found


def take(memory: MemoryModule, step: Step, ids: dict[str, str]) -> None:
    if step == "open":
        memory.bootstrap()
    elif step == "shutdown":
        memory.shutdown()
    elif step == "erase":
        memory.store.erase_namespace("default")
    elif step == "recompress":
        if memory.backend.has_capability(Compresses):
            memory.store.recompress()
    elif not isinstance(step, str):
        model.perform(memory, step, ids)


def small_log() -> None:
    """Let SQLite checkpoint after a few pages, so that it happens inside calls."""
    engine.SETTINGS = engine.SETTINGS.replace(f"wal_autocheckpoint = {engine.WAL_PAGES}", "wal_autocheckpoint = 20")


def run_and_die(backend: str, scenario: Scenario, directory: Path, number: int, report: int, *, torn: bool) -> None:
    small_log()
    ids: dict[str, str] = {}
    if scenario.prepare is _some:
        with MemoryModule(storage_dir=directory, backend_type=backend) as known:
            ids = model.ids_of(known)
    with installed(KillAt(number, report, torn=torn)):
        memory = MemoryModule(storage_dir=directory, backend_type=backend)
        for step in scenario.steps:
            take(memory, step, ids)
            os.write(report, b"ok\n")


def kill(
    backend: str, scenario: Scenario, template: Path, directory: Path, number: int, *, torn: bool
) -> list[str] | None:
    """Kill the scenario at its file operation `number`; return what it reported, or None if it came to its end."""
    shutil.copytree(template, directory)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        code = 70
        try:
            run_and_die(backend, scenario, directory, number, writing, torn=torn)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading) as pipe:
        report = pipe.read().splitlines()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return report
    assert status == 0, f"the scenario failed with {status} before operation {number}"
    return None


def look(backend: str, directory: Path, allowed: list[State]) -> str:
    """Open what a killed process left, twice, with a write between; return what is wrong, or ""."""
    try:
        with MemoryModule(storage_dir=directory, backend_type=backend) as memory:
            found = model.contents(memory)
            if found not in allowed:
                return f"holds {len(found)} entries, allowed {[len(state) for state in allowed]}"
            model.perform(memory, single("create", "afterwards", {"n": 2}, []), {})
        with MemoryModule(storage_dir=directory, backend_type=backend) as memory:
            found_again = model.contents(memory)
        if found_again != model.after(found, single("create", "afterwards", {"n": 2}, [])):
            return "changed by being opened again"
    except Exception as error:  # noqa: BLE001  whatever it is, it is the finding
        return f"{type(error).__name__}: {error}"
    left = [name for name in os.listdir(directory) if ".tmp" in name]
    return f"leaves {left}" if left else ""


def main(backend: str, name: str, directory: Path, every: int, offset: int) -> None:
    scenario = SCENARIOS[name]
    template = directory / "template"
    template.mkdir(parents=True)
    known = states(scenario, scenario.prepare(template, backend))
    number = 1 + offset
    for torn in (False, True):
        while True:
            copy = directory / f"{number}{'-torn' if torn else ''}"
            report = kill(backend, scenario, template, copy, number, torn=torn)
            if report is None:
                break
            done, where = report.count("ok"), report[-1]
            wrong = look(backend, copy, known[done : done + 2])
            if not wrong and name == "migration" and done:
                wrong = "" if list(copy.glob("*.first-life")) else "keeps no copy of the old file"
            print(json.dumps({"number": number, "torn": torn, "at": where, "done": done, "wrong": wrong}), flush=True)
            if not wrong:
                shutil.rmtree(copy)
            number += every
        number = 1 + offset


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
