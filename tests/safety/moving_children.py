"""Processes that use a store while it is moved.

    python -m safety.moving_children PROGRAM DIRECTORY ARGUMENT…

Each goes on until a file ``stop`` is beside the store's directory, and says then, as a line of JSON, what it did.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jarvis._sqlite.database import Database
from jarvis._sqlite.replace import move
from jarvis.errors import StoreBusyError
from jarvis.model.rewriting import RewriteProgress
from jarvis.persistent_memory import MemoryModule
from jarvis.sqlite_backend import SQLiteBackend

from . import model
from .faults import KillAt, Operation, installed


def say(line: object) -> None:
    os.write(1, f"{json.dumps(line)}\n".encode())


def database_of(memory: MemoryModule) -> Database:
    assert isinstance(memory.backend, SQLiteBackend)
    return memory.backend._database


class Clock:
    """The longest call of each kind, and what each was called."""

    def __init__(self) -> None:
        self.longest: dict[str, float] = {}
        self.calls = 0

    @contextlib.contextmanager
    def timing(self, kind: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.calls += 1
        self.longest[kind] = max(self.longest.get(kind, 0.0), time.perf_counter() - began)


def _stopped(directory: str) -> Callable[[], bool]:
    stop = str(Path(directory).with_name("stop"))
    return lambda: os.path.exists(stop)


def write(directory: str, name: str, seed: str, pause: str = "0") -> None:
    """Create, update, delete, alone and in transactions, and read what was written; say what should be there."""
    chance, clock, stopped = random.Random(f"{seed} {name}"), Clock(), _stopped(directory)
    memory = MemoryModule(storage_dir=directory)
    there: dict[str, tuple[str, int, int]] = {}  # by key: id, what the value holds, version
    say("ready")
    number = 0

    def create() -> None:
        nonlocal number
        number += 1
        key = f"{name}.{number}"
        text = "x" * (number * 37 % 500)
        made = memory.create_memory("things", key, {"n": number, "text": text}, "thing", key, [name, "red"])
        changed[key] = made, number, 1

    def update(key: str) -> None:
        memory_id, held, version = there[key]
        assert memory.update_memory(memory_id, {"n": held + 1, "text": "y" * (held * 91 % 700)}, [name])
        changed[key] = memory_id, held + 1, version + 1

    def delete(key: str) -> None:
        assert memory.delete_memory(there[key][0])
        changed[key] = None

    changed: dict[str, tuple[str, int, int] | None] = {}
    while not stopped():
        changed.clear()
        some = chance.sample(sorted(there), min(len(there), 4)) if number % 8 == 0 or len(there) < 40 else []
        some = some or [f"{name}.{chance.randint(max(1, number - 200), number)}" for _ in range(4)] if number else []
        some = [key for key in dict.fromkeys(some) if key in there]
        luck = chance.random()
        if luck < 0.45 or not some:
            with clock.timing("create"):
                create()
        elif luck < 0.6:
            with clock.timing("update"):
                update(some[0])
        elif luck < 0.7:
            with clock.timing("delete"):
                delete(some[0])
        elif luck < 0.8:
            with clock.timing("transaction"), memory.transaction():
                create()
                for each, key in enumerate(some):
                    (update, delete)[each % 2](key)
        elif luck < 0.9:
            with clock.timing("get"):
                found = memory.get_memory(there[some[0]][0])
            assert found is not None, f"{some[0]} is gone"
            assert (found.value["n"], found.version) == there[some[0]][1:]
        else:
            with clock.timing("list"):
                listed = memory.get_memories_by_entity("thing", some[0])
            assert [(entry.value["n"], entry.version) for entry in listed] == [there[some[0]][1:]]
        for changed_key, state in changed.items():
            if state is None:
                there.pop(changed_key, None)
            else:
                there[changed_key] = state
        if float(pause):
            time.sleep(float(pause))
    say({"there": there, "calls": clock.calls, "longest": clock.longest, "deleted": number - len(there)})
    memory.shutdown()


def open_again(directory: str, read_only: str) -> None:
    """Open the store, look, and close it, again and again; what is found must never become less."""
    stopped, clock = _stopped(directory), Clock()
    least = 0
    say("ready")
    while not stopped():
        with clock.timing("open"):
            memory = MemoryModule(storage_dir=directory, read_only=read_only == "read only")
            count = memory.count_memories(category="kept")
            newest = memory.get_memory_by_key("counter")
        assert count == 100, count
        assert newest is not None
        assert newest.value["n"] >= least, f"{newest.value['n']} behind {least}"
        least = newest.value["n"]
        assert len(memory.get_memories_by_category("kept")) == 100
        memory.shutdown()
    say({"calls": clock.calls, "longest": clock.longest})


def look(directory: str, read_only: str) -> None:
    """Read through one handle, in calls, lasting iterations and the feed."""
    stopped, clock = _stopped(directory), Clock()
    memory = MemoryModule(storage_dir=directory, read_only=read_only == "read only")
    seen, iterations, cursor = 0, 0, memory.newest_cursor()
    pulse = memory.backend.pulse()  # type: ignore[attr-defined]  # SQLite's
    moved = disturbed = 0
    say("ready")
    while not stopped():
        with clock.timing("read"):
            newest = memory.get_memory_by_key("counter")
        assert newest is not None
        assert newest.value["n"] >= seen
        seen = newest.value["n"]
        try:
            iteration = memory.iter_memories(category="kept")
            entries = [next(iteration)]
            with clock.timing("changes"):
                page = memory.changes(cursor, limit=500)
            if page:
                cursor = page[-1].cursor
            entries += iteration
            assert len({entry.id for entry in entries}) == 100
            iterations += 1
        except StoreBusyError as error:  # for a moment there was no log, so it was read without locks
            if read_only != "read only" or "start again" not in str(error):
                raise
            disturbed += 1
        if (now := memory.backend.pulse()) != pulse:  # type: ignore[attr-defined]  # SQLite's
            pulse, moved = now, moved + 1
    say(
        {
            "calls": clock.calls,
            "longest": clock.longest,
            "iterations": iterations,
            "disturbed": disturbed,
            "pulses": moved,
        }
    )


def count_up(directory: str, pause: str = "0") -> None:
    """Let a counter grow, one write after the other; say where it ends."""
    stopped, clock = _stopped(directory), Clock()
    memory = MemoryModule(storage_dir=directory)
    number = 0
    say("ready")
    while not stopped():
        number += 1
        with clock.timing("upsert"):
            memory.upsert_memory("counters", "counter", {"n": number}, "counter")
        time.sleep(float(pause))
    say({"calls": clock.calls, "longest": clock.longest, "n": number})


class KillFrom(KillAt):
    """Counts from the moment on that a move reports a stage; of the swap all but writes of pages."""

    def __init__(self, number: int, report: int, stage: str, *, torn: bool) -> None:
        super().__init__(number, report, torn=torn)
        self._stage, self._is_there = stage, False

    def look(self, progress: RewriteProgress) -> None:
        self._is_there = self._is_there or progress.stage == self._stage

    def before(self, operation: Operation) -> bool:
        is_of_a_page = operation.verb in ("write", "truncate") and not operation.path.endswith(".lock")
        return self._is_there and not (is_of_a_page and self._stage == "swap") and super().before(operation)


def dies_moving(directory: Path, number: int, stage: str, *, torn: bool) -> str | None:
    """Move the store in a forked child that is killed at a file operation of a stage; return which, or None."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        code = 70
        try:
            hook = KillFrom(number, writing, stage, torn=torn)
            with installed(hook):
                move.move(database_of(MemoryModule(storage_dir=directory)), progress=hook.look)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading) as pipe:
        report = pipe.read().strip()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return report
    assert status == 0, f"the move failed with {status} before operation {number}"
    return None


def move_until(directory: str, stage: str, count: str) -> None:
    """Move the store, and be killed at the n-th report of a stage."""
    memory, left = MemoryModule(storage_dir=directory), int(count)

    def report(progress: RewriteProgress) -> None:
        nonlocal left
        if progress.stage == stage:
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    move.move(database_of(memory), progress=report)
    say("moved")


def keys(directory: str) -> None:
    """Say the keys of all memories."""
    with MemoryModule(storage_dir=directory) as memory:
        say([entry.key for entry in memory.list_memories()])


def digest(directory: str) -> dict[str, Any]:
    """Return the rows of every table, and the digest of all, as a move counts them."""
    from jarvis._sql import tables
    from jarvis._sqlite.replace import touched_rows

    connection = move.plain(str(Path(directory) / model.FILES["sqlite"]))
    try:
        rows: dict[str, int] = {}
        total = 0
        for table in touched_rows.tables(touched_rows.of(connection)):
            found: list[Any] = connection.execute(table.select(after=False)).fetchall()
            rows[table.name] = len(found)
            total += sum(tables.digest_of_row(table.name, row) for row in found)
        return {"rows": rows, "digest": f"{total % (1 << 128):032x}"}
    finally:
        connection.close()


PROGRAMS: dict[str, Callable[..., None]] = {
    function.__name__: function for function in (write, open_again, look, count_up, move_until, keys)
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
