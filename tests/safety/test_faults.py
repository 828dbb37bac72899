from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
from pathlib import Path

import pytest

from jarvis._disk import location
from jarvis.errors import (
    StoreError,
    StoreFullError,
    StoreMissingError,
    UnsafeLocationError,
    UnsafeLocationWarning,
)
from jarvis.persistent_memory import MemoryModule

from . import kill_points, model, processes
from .conftest import Figures
from .faults import CHANGING, FailAt, installed, lifted
from .kill_points import SCENARIOS
from .model import State, single

ANY = CHANGING | {"open", "read"}
FAULTS = {
    "full": (errno.ENOSPC, True),
    "full once": (errno.ENOSPC, False),
    "broken": (errno.EIO, True),
    "broken once": (errno.EIO, False),
    "refused": (errno.EACCES, True),
}
"""The error, and whether it lasts."""


def names(error: StoreError, directory: Path) -> bool:
    """Tell whether the error names a file or directory of the store."""
    path = Path(error.path)
    return str(path) in str(error) and (path == directory or directory in path.parents or path in directory.parents)


@pytest.fixture
def _small_log(monkeypatch: pytest.MonkeyPatch) -> None:
    from jarvis._sqlite import engine

    monkeypatch.setattr(engine, "SETTINGS", engine.SETTINGS)
    kill_points.small_log()


@pytest.mark.usefixtures("_small_log")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_failure_of_any_file_operation_is_a_typed_error_and_loses_nothing(
    backend: str,
    scenario: str,
    fault: str,
    tmp_path: Path,
    soak: bool,
    chance: random.Random,
    figures: Figures,
) -> None:
    plan = SCENARIOS[scenario]
    template = tmp_path / "template"
    known = kill_points.states(plan, plan.prepare(template, backend))
    wrong: list[str] = []
    code, lasting = FAULTS[fault]
    every = 1 if soak else {"sqlite": 41, "json": 5}[backend]
    number, refused = 1 - every + chance.randrange(every), 0
    while True:
        number += every
        directory = tmp_path / f"{number}" / "store"
        directory.parent.mkdir()
        if template.exists():
            shutil.copytree(template, directory)
        hook = FailAt(number, code, verbs=ANY, lasting=lasting)
        with installed(hook):
            finding, errors = survive(backend, plan, directory, hook, known)
        if hook.failed is None:
            break
        refused += errors
        if finding:
            wrong.append(f"{number}: {hook.failed.verb} {os.path.basename(hook.failed.path)}: {finding}")
        shutil.rmtree(directory.parent)

    assert wrong == []
    figures.add(backend, failures=len(range(number, 0, -every)) - 1, errors=refused, lost=0, half_done=0)


def survive(
    backend: str, plan: kill_points.Scenario, directory: Path, hook: FailAt, known: list[State]
) -> tuple[str, int]:
    """Take the steps of the plan against a failure; return what was wrong, or "", and how many errors there were."""
    memory = MemoryModule(storage_dir=directory, backend_type=backend)
    ids: dict[str, str] = {}
    if known[0]:
        with lifted(), MemoryModule(storage_dir=_copy(directory), backend_type=backend) as copy:
            ids = model.ids_of(copy)
    errors = 0
    for number, step in enumerate(plan.steps):
        try:
            kill_points.take(memory, step, dict(ids) if step == "open" else ids)
        except StoreError as error:
            errors += 1
            if hook.failed is None:
                return f"{type(error).__name__} without a failure: {error}", errors
            if not names(error, directory):
                return f"{type(error).__name__} does not name the store: {error}", errors
            allowed = [known[number], known[number + 1]]
            finding = _look_after_error(backend, memory, directory, allowed, step, ids)
            if finding:
                return f"after {type(error).__name__} in step {number}: {finding}", errors
            break
        except Exception as error:  # noqa: BLE001  whatever else it is, it is the finding
            return f"step {number} raised {type(error).__name__}: {error}", errors
    else:
        with lifted():
            found = model.contents(memory)
        if found != known[-1]:
            return f"holds {len(found)} entries after all steps", errors
    with lifted():
        memory.shutdown()
    return "", errors


def _look_after_error(
    backend: str,
    memory: MemoryModule,
    directory: Path,
    allowed: list[State],
    step: kill_points.Step,
    ids: dict[str, str],
) -> str:
    """Once the fault is gone: the same process goes on, and a second one sees what it sees."""
    with lifted():
        try:
            crashed = _copy(directory)  # what another process would find if this one ended here
            found = model.contents(memory)
            if found not in allowed:
                return f"holds {len(found)} entries, allowed {[len(state) for state in allowed]}"
            with MemoryModule(storage_dir=crashed, backend_type=backend) as other:
                if model.contents(other) != found:
                    return "a crash here would leave another state"
            model.perform(memory, single("create", "afterwards", {"n": 2}, []), {})
            expected = model.after(found, single("create", "afterwards", {"n": 2}, []))
            with MemoryModule(storage_dir=directory, backend_type=backend) as other:
                if model.contents(other) != expected:
                    return "another module sees another state"
            memory.shutdown()
            with MemoryModule(storage_dir=directory, backend_type=backend) as other:
                if model.contents(other) != expected:
                    return "a later module sees another state"
        except Exception as error:  # noqa: BLE001  whatever it is, it is the finding
            return f"{type(error).__name__}: {error}"
    return ""


def _copy(directory: Path) -> Path:
    target = directory.parent / f"copy-{len(os.listdir(directory.parent))}"
    if directory.exists():
        shutil.copytree(directory, target)
    return target


# --- without any seam --------------------------------------------------------------------------------------


def test_a_full_disk_is_a_typed_error_and_the_memory_goes_on_when_there_is_room(backend: str, tmp_path: Path) -> None:
    said = processes.end(processes.start("children", "fill", backend, tmp_path))

    kind, written = said.split()
    assert kind == StoreFullError.__name__
    with MemoryModule(storage_dir=tmp_path, backend_type=backend) as memory:
        assert len(model.contents(memory)) == int(written)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="drops the privileges of root")
@pytest.mark.parametrize("what", ["file", "directory", "parent"])
def test_what_may_not_be_written_is_a_typed_error_that_names_it(backend: str, what: str) -> None:
    child = processes.start("children", "refused", backend, what)

    assert processes.end(child).split("\n")[-2] == "fine"


def test_a_store_removed_while_open_is_noticed(backend: str, tmp_path: Path) -> None:
    path = tmp_path / model.FILES[backend]
    memory = MemoryModule(storage_dir=tmp_path, backend_type=backend)
    memory.create_memory("things", "one", {}, "thing")
    memory.shutdown()
    assert memory.count_memories() == 1
    kept = path.read_bytes()
    path.unlink()

    with pytest.raises(StoreMissingError, match=model.FILES[backend]):
        memory.create_memory("things", "two", {}, "thing")
    with pytest.raises(StoreMissingError):
        memory.list_memories()
    assert not path.exists()

    path.write_bytes(kept)
    assert [entry.key for entry in memory.list_memories()] == ["one"]
    path.unlink()
    memory.shutdown()
    assert memory.count_memories() == 0


def test_a_directory_removed_while_open_is_noticed(backend: str, tmp_path: Path) -> None:
    directory = tmp_path / "store"
    memory = MemoryModule(storage_dir=directory, backend_type=backend)
    memory.create_memory("things", "one", {}, "thing")
    shutil.rmtree(directory)

    with pytest.raises(StoreMissingError):
        memory.create_memory("things", "two", {}, "thing")
    assert not directory.exists()


def test_a_store_replaced_while_open_is_the_one_that_is_read_and_written(backend: str, tmp_path: Path) -> None:
    name = model.FILES[backend]
    with MemoryModule(storage_dir=tmp_path / "other", backend_type=backend) as other:
        other.create_memory("things", "of the other", {}, "thing")
    memory = MemoryModule(storage_dir=tmp_path / "store", backend_type=backend)
    memory.create_memory("things", "one", {}, "thing")
    memory.shutdown()
    assert memory.count_memories() == 1
    shutil.copy(tmp_path / "other" / name, tmp_path / "new")
    os.replace(tmp_path / "new", tmp_path / "store" / name)

    assert [entry.key for entry in memory.list_memories()] == ["of the other"]
    memory.create_memory("things", "two", {}, "thing")
    with MemoryModule(storage_dir=tmp_path / "store", backend_type=backend) as again:
        assert set(model.contents(again)) == {"of the other", "two"}


def test_a_store_replaced_beside_its_log_never_mixes_the_two(backend: str, tmp_path: Path) -> None:
    name = model.FILES[backend]
    with MemoryModule(storage_dir=tmp_path / "other", backend_type=backend) as other, other.transaction():
        for number in range(50):
            other.create_memory("others", f"o{number}", {"text": "o" * 500}, "thing", tags=["red"])
    memory = MemoryModule(storage_dir=tmp_path / "store", backend_type=backend)
    for number in range(5):
        memory.create_memory("things", f"s{number}", {}, "thing", tags=["blue"])
    before = model.contents(memory)
    shutil.copy(tmp_path / "other" / name, tmp_path / "new")
    os.replace(tmp_path / "new", tmp_path / "store" / name)

    with MemoryModule(storage_dir=tmp_path / "other", backend_type=backend) as other:
        replaced = model.contents(other)
    with contextlib.suppress(StoreError):
        assert model.contents(memory) in (before, replaced)
    with contextlib.suppress(StoreError):
        memory.create_memory("things", "new", {}, "thing")
        found = model.contents(memory)
        found.pop("new")
        assert found in (before, replaced)


# --- where a store may lie -----------------------------------------------------------------------------------


@pytest.fixture
def _mounted(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the store's directory be a mount of the file system type that the test asks for."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        f"1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:5 / {tmp_path}/store rw - {request.param} server:/a rw\n"
    )
    monkeypatch.setattr(location, "MOUNTS", str(mounts))


@pytest.mark.usefixtures("_mounted")
@pytest.mark.parametrize("_mounted", ["nfs4", "cifs", "fuse.sshfs"], indirect=True)
def test_a_store_on_a_network_file_system_is_refused(backend: str, tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path / "store", backend_type=backend)

    with pytest.raises(UnsafeLocationError, match="local directory"):
        memory.create_memory("things", "one", {}, "thing")
    assert not (tmp_path / "store").exists()


@pytest.mark.usefixtures("_mounted")
@pytest.mark.parametrize("_mounted", ["9p", "virtiofs"], indirect=True)
def test_a_store_shared_with_the_host_is_warned_of(backend: str, tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path / "store", backend_type=backend)

    with pytest.warns(UnsafeLocationWarning, match="shared with the host"):
        memory.create_memory("things", "one", {}, "thing")


@pytest.mark.parametrize("folder", ["Dropbox", "OneDrive - Firm", "Nextcloud"])
def test_a_store_in_a_synchronised_folder_is_warned_of(backend: str, folder: str, tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path / folder / "store", backend_type=backend)

    with pytest.warns(UnsafeLocationWarning, match="synchronised"):
        memory.create_memory("things", "one", {}, "thing")
