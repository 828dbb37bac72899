"""A memory without a file of its own has every capability, and leaves nothing behind."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from jarvis._sqlite import volatile
from jarvis.capabilities import CAPABILITIES
from jarvis.errors import InvalidEntryError, InvalidSettingError
from jarvis.keys import KeyFunction
from jarvis.persistent_memory import HistoryPolicy, MemoryModule
from jarvis.sqlite_backend import InMemoryBackend

LEAVING = """
import os, signal
from jarvis.persistent_memory import MemoryModule
memory = MemoryModule.in_memory()
memory.set_user_preference("theme", {"mode": "dark"})
if os.fork() == 0:
    memory.set_user_preference("look", {"mode": "dark"})
    raise SystemExit
os.wait()
assert memory.get_user_preferences().keys() == {"theme", "look"}
print(memory.backend.db_path.parent, flush=True)
{end}
"""


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory in which stores in memory are made."""
    monkeypatch.setattr(volatile, "_MEMORY", str(tmp_path))
    return tmp_path


def test_it_has_every_capability(base: Path) -> None:
    memory = MemoryModule.in_memory()

    assert all(memory.backend.has_capability(protocol) for protocol in CAPABILITIES)
    memory_id = memory.set_user_preference("theme", {"mode": "dark"})
    memory.store.encrypt([KeyFunction(lambda: b"k" * 32)])
    copy = memory.store.back_up(base / "copy")
    memory.shutdown()
    assert memory.get_user_preferences() == {"theme": {"mode": "dark"}}
    assert memory.erase_memory(memory_id).state == "done"
    assert copy.exists()


def test_two_are_apart_and_nothing_is_left_of_either(base: Path) -> None:
    one, other = MemoryModule.in_memory(), MemoryModule.in_memory(namespace="alice")
    one.set_user_preference("theme", {"mode": "dark"})
    sibling = one.for_namespace("alice")
    assert other.list_memories() == sibling.list_memories() == []
    assert len(list(base.iterdir())) == 2

    del one, other
    gc.collect()
    sibling.set_user_preference("theme", {"mode": "light"})  # a handle on the first
    assert len(list(base.iterdir())) == 1

    del sibling
    gc.collect()
    assert list(base.iterdir()) == []


def test_a_pickle_is_a_handle_on_the_same_store(base: Path) -> None:
    memory = MemoryModule.in_memory()
    other = pickle.loads(pickle.dumps(memory))
    memory.set_user_preference("theme", {"mode": "dark"})

    assert other.get_user_preferences() == {"theme": {"mode": "dark"}}
    assert list(base.iterdir()) == [memory.backend.db_path.parent]  # type: ignore[attr-defined]  # of this backend


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), signal.SIGKILL)"], ids=["ends", "killed"])
def test_what_a_process_leaves_is_removed(end: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", LEAVING.replace("{end}", end)], capture_output=True, text=True, check=False
    )
    path = Path(told.stdout.strip())
    assert path.name.startswith("jarvis-in-memory-"), told.stderr
    assert path.exists() is bool(end)

    MemoryModule.in_memory()
    assert not path.exists()


def test_wrong_options_are_refused(base: Path) -> None:
    with pytest.raises(InvalidSettingError, match="history"):
        MemoryModule.in_memory(history=5)  # type: ignore[arg-type]  # hostile
    with pytest.raises(InvalidSettingError, match="compression"):
        MemoryModule.in_memory(compression="best")  # type: ignore[arg-type]  # hostile
    with pytest.raises(InvalidEntryError, match="namespace"):
        MemoryModule.in_memory(namespace="\ud800")
    assert list(base.iterdir()) == []
    assert repr(InMemoryBackend(history=HistoryPolicy(max_revisions=0))) == "InMemoryBackend(namespace='default')"
