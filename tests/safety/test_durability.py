from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jarvis.persistent_memory import MemoryModule

from . import kill_points, model
from .conftest import Figures
from .faults import Hook, Operation, Recorder, installed
from .kill_points import SCENARIOS
from .model import bulk, single

_OURS = re.compile(r"\.lock$|-shm$")  # neither holds an entry; the log's shared memory is rebuilt, the stamp checked


class PowerCut(Hook):
    """Knows, at any moment, the least that a power cut would leave: synced bytes under synced names."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.synced: dict[int, bytes] = {}
        self.names: dict[str, int] = {}

    def done(self, operation: Operation) -> None:
        if operation.verb == "sync" and os.path.exists(operation.path):
            path = Path(operation.path)
            self.synced[path.stat().st_ino] = path.read_bytes()
            if path.name.endswith(("-wal", "-journal")):  # SQLite syncs the directory with a log's first sync
                self.names[path.name] = path.stat().st_ino
        elif operation.verb == "sync_directory" and Path(operation.path) == self.directory:
            self.names = {
                name: (self.directory / name).stat().st_ino
                for name in os.listdir(self.directory)
                if not name.endswith("-shm")
            }

    def happen(self, target: Path) -> None:
        """Write what is left into a new directory."""
        target.mkdir()
        for name, inode in self.names.items():
            if not _OURS.search(name):
                (target / name).write_bytes(self.synced.get(inode, b""))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_power_cut_after_any_call_leaves_everything_acknowledged(
    backend: str, scenario: str, tmp_path: Path, figures: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jarvis._sqlite import engine

    monkeypatch.setattr(engine, "SETTINGS", engine.SETTINGS)
    kill_points.small_log()
    plan = SCENARIOS[scenario]
    directory = tmp_path / "store"
    known = kill_points.states(plan, plan.prepare(directory, backend))
    ids: dict[str, str] = {}
    if plan.prepare is kill_points._some:
        with MemoryModule(storage_dir=directory, backend_type=backend) as memory:
            ids = model.ids_of(memory)
    hook = PowerCut(directory)
    if directory.exists():
        for path in directory.iterdir():
            hook.done(Operation("sync", str(path)))
        hook.done(Operation("sync_directory", str(directory)))
    with installed(hook):
        memory = MemoryModule(storage_dir=directory, backend_type=backend)
        for number, step in enumerate(plan.steps):
            kill_points.take(memory, step, ids)
            hook.happen(tmp_path / f"{number}")
        memory.shutdown()

    for number in range(len(plan.steps)):
        with MemoryModule(storage_dir=tmp_path / f"{number}", backend_type=backend) as left:
            assert model.contents(left) == known[number + 1], f"after step {number}"
    figures.add(backend, power_cuts=len(plan.steps), lost=0)


def assert_synced(operations: list[Operation], directory: Path) -> None:
    """Fail if a write was not followed by a sync of its file, or a new name by one of its directory."""
    for number, operation in enumerate(operations):
        later = operations[number + 1 :]
        if _OURS.search(operation.path):
            continue
        if operation.verb == "truncate" and operation.path.endswith("-wal"):
            continue  # a log that comes back after a power cut holds nothing that the file does not
        if operation.verb in ("write", "truncate"):
            names = {operation.path, *(each.path for each in later if each.verb in ("replace", "link"))}
            gone = Operation("unlink", operation.path) in later
            assert gone or any(each.verb == "sync" and each.path in names for each in later), operation
        elif operation.verb in ("replace", "link"):
            assert Operation("sync_directory", str(directory)) in later, operation
        elif operation.verb == "make_directory":
            assert Operation("sync_directory", os.path.dirname(operation.path)) in later, operation


def calls(memory: MemoryModule) -> list[Callable[[], object]]:
    ids: dict[str, str] = {}
    actions = [
        single("create", "a", {"n": 1}, ["red"]),
        single("update", "a", {"n": 2}, ["blue"]),
        single("upsert", "u1", {"n": 3}),
        single("upsert", "u1", {"n": 4}),
        bulk([["create", f"b{n}", {"text": "x" * 900}, []] for n in range(100)]),
        single("delete", "b7"),
        single("clear"),
        single("create", "c", {}, []),
    ]

    def performing(action: model.Action) -> Callable[[], object]:
        return lambda: model.perform(memory, action, ids)

    return [memory.bootstrap, *map(performing, actions), lambda: memory.store.erase_namespace("default")]


def test_when_a_call_returns_its_files_and_directory_are_synced(backend: str, tmp_path: Path) -> None:
    directory = tmp_path / "new" / "store"
    memory = MemoryModule(storage_dir=directory, backend_type=backend)
    for call in calls(memory):
        recorder = Recorder()
        with installed(recorder):
            if call == memory.bootstrap:
                memory.shutdown()
            call()
        assert recorder.operations
        assert_synced(recorder.operations, directory)


@pytest.mark.parametrize("old", ["sqlite", "json"])
def test_when_a_migration_returns_old_and_new_file_are_synced(old: str, tmp_path: Path) -> None:
    model.first_life_store(tmp_path, old, 30)
    recorder = Recorder()
    with installed(recorder):
        MemoryModule(storage_dir=tmp_path, backend_type=old).bootstrap()

    assert_synced(recorder.operations, tmp_path)
    kept = [each for each in recorder.operations if ".first-life" in each.path]
    assert kept
    store = str(tmp_path / model.FILES[old])
    first_change = next(
        number
        for number, each in enumerate(recorder.operations)
        if each.path == store and each.verb in ("write", "replace")
    )
    kept_at = recorder.operations.index(kept[-1])
    assert Operation("sync_directory", str(tmp_path)) in recorder.operations[kept_at:first_change]


def test_a_sqlite_write_costs_one_sync(tmp_path: Path, soak: bool, figures: Figures) -> None:
    recorder = Recorder()
    count = 1000
    with installed(recorder):
        memory = MemoryModule(storage_dir=tmp_path)
        memory.create_memory("things", "first", {}, "thing")
        recorder.operations.clear()
        for number in range(count):
            memory.create_memory("things", f"k{number}", {"n": number}, "thing", tags=["red"])
    syncs = sum(each.verb == "sync" for each in recorder.operations)
    memory.shutdown()

    assert count <= syncs <= 1.2 * count
    figures.add("sqlite", writes=count, syncs=syncs)


def test_a_json_commit_is_one_rewrite_and_one_sync_of_file_and_directory(tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path, backend_type="json")
    memory.create_memory("things", "first", {}, "thing")
    for action in (single("create", "a", {}, []), bulk([["create", f"b{n}", {}, []] for n in range(50)])):
        recorder = Recorder()
        with installed(recorder):
            model.perform(memory, action, {})
        verbs = [each.verb for each in recorder.operations if each.verb != "open"]
        assert verbs == ["write", "sync", "replace", "sync_directory"]


def test_a_bulk_load_on_sqlite_is_one_sync(tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path)
    recorder = Recorder()
    with installed(recorder):
        memory.create_memory("things", "first", {}, "thing")
        recorder.operations.clear()
        model.perform(memory, bulk(["create", f"b{n}", {"n": n}, ["red"]] for n in range(500)), {})
    syncs = [each for each in recorder.operations if each.verb == "sync"]
    memory.shutdown()

    assert len(syncs) == 1


def test_reading_writes_and_syncs_nothing(backend: str, tmp_path: Path) -> None:
    with MemoryModule(storage_dir=tmp_path, backend_type=backend) as memory:
        memory.create_memory("things", "first", {}, "thing", tags=["red"])
    recorder = Recorder()
    with installed(recorder):
        memory = MemoryModule(storage_dir=tmp_path, backend_type=backend)
        assert set(model.contents(memory)) == {"first"}
    memory.shutdown()

    assert [each for each in recorder.operations if each.verb not in ("open", "read")] == []


_PROGRAM = """
import sys, os
from jarvis.persistent_memory import MemoryModule
memory = MemoryModule(storage_dir=sys.argv[1], backend_type=sys.argv[2])
memory.create_memory("things", "first", {}, "thing")
os.write(2, b"CALL BEGINS")
memory.create_memory("things", "second", {}, "thing")
os.write(2, b"CALL ENDS")
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not on the PATH")
def test_the_kernel_is_asked_to_sync_before_a_call_returns(backend: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    try:
        subprocess.run(
            [
                *("strace", "-f", "-y", "-o", str(trace)),
                *("-e", "trace=fsync,fdatasync,write,pwrite64,rename,renameat,renameat2"),
                *(sys.executable, "-c", _PROGRAM, str(tmp_path / "store"), backend),
            ],
            check=True,
            capture_output=True,
        )
    except subprocess.CalledProcessError as error:
        if b"PTRACE" in error.stderr or b"ptrace" in error.stderr:
            pytest.skip("strace may not trace here")
        raise
    text = trace.read_text(errors="replace")
    store = str(tmp_path / "store")
    opening = text.split("CALL BEGINS")[0]
    assert re.search(rf"fsync\(\d+<{re.escape(store)}>", opening), "the directory of the new store was not synced"
    call = text.split("CALL BEGINS")[1].split("CALL ENDS")[0].splitlines()
    written = [number for number, line in enumerate(call) if "write" in line and store in line and ".lock" not in line]
    synced = [number for number, line in enumerate(call) if re.search(r"\bf(data)?sync\(", line) and store in line]
    assert written
    assert synced
    assert max(written) < max(synced)
    if backend == "json":
        renamed = max(number for number, line in enumerate(call) if "rename" in line)
        assert any(f"<{store}>" in line for line in call[renamed + 1 :]), (
            "the directory was not synced after the rename"
        )
        assert any(written[-1] < number < renamed for number in synced)
    else:
        assert len(synced) == 1
