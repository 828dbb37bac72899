"""Policies by category beyond what any backend promises: settings, arguments, pickles."""

from __future__ import annotations

import pickle
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jarvis.async_memory import AsyncMemoryModule
from jarvis.config import CategoryPolicy, StorageConfig
from jarvis.container import Container
from jarvis.errors import InvalidSettingError
from jarvis.persistent_memory import MemoryModule

HOUR = timedelta(hours=1)
SHORT = CategoryPolicy("short", ttl=HOUR)


@pytest.mark.parametrize("as_mapping", [True, False])
@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "a policy needs a max_entries, a max_bytes or a ttl"),
        ({"max_entries": 0}, "max_entries must be a whole number from 1 up"),
        ({"max_entries": True}, "max_entries must be a whole number from 1 up"),
        ({"max_bytes": 1.5}, "max_bytes must be a whole number from 1 up"),
        ({"max_bytes": 9, "keep_tags": "pin"}, "keep_tags must be tags, such as"),
        ({"max_bytes": 9, "keep_tags": [7]}, "keep_tags must be tags, such as"),
        ({"max_bytes": 9, "keep_tags": [str(n) for n in range(101)]}, "keep_tags must be at most 100 tags"),
        ({"ttl": HOUR, "keep_tags": ["pin"]}, "keep_tags need a max_entries or a max_bytes"),
        ({"category": 5, "ttl": HOUR}, "category must be a text"),
        ({"category": "\ud800", "ttl": HOUR}, "category must be a text"),
        ({"ttl": timedelta(0)}, "ttl must be a timedelta above 0, up to 100 years"),
        ({"ttl": timedelta.max}, "ttl must be a timedelta above 0, up to 100 years"),
    ],
)
def test_a_policy_that_means_nothing_is_refused(fields: dict[str, Any], problem: str, as_mapping: bool) -> None:
    fields = {"category": "c", **fields}
    if as_mapping:
        with pytest.raises(InvalidSettingError, match=rf"^storage\.policies policy 1 .* policies: {problem}"):
            StorageConfig(policies=[fields])
    else:
        with pytest.raises(InvalidSettingError, match=f"^policies: {problem}"):
            CategoryPolicy(**fields)


@pytest.mark.parametrize(
    ("policies", "problem"),
    [
        ([{"category": "a", "tttl": "1 day"}], r"policy 1 has no key 'tttl' \(did you mean 'ttl'\?\); known: category"),
        ([SHORT, {"ttl": "1 day"}], "policy 2 needs a category"),
        ([{"category": "a", "ttl": "soon"}], "policy 1 has a ttl that must be a duration such as '12 hours'"),
        ([SHORT, CategoryPolicy("*", ttl=HOUR), SHORT], "1 and 3 are of one category; make one of them"),
        (["a"], "policy 1 must be a CategoryPolicy or a mapping of its fields, not a value of type str"),
        (SHORT, "must be a list of policies, not"),
    ],
)
def test_a_mistake_in_policies_says_which(tmp_path: Path, policies: Any, problem: str) -> None:
    with pytest.raises(InvalidSettingError, match=rf"^storage\.policies {problem}"):
        StorageConfig(policies=policies)
    with pytest.raises(InvalidSettingError, match=rf"^policies {problem}"):
        MemoryModule(storage_dir=tmp_path, policies=policies)


def test_policies_of_the_settings_reach_the_memory_of_the_container(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("storage: {data_dir: data, policies: [{category: short, ttl: 1 hour}]}", encoding="utf-8")
    container = Container()

    memory = container.get_memory_module(file)
    memory.create_memory("short", "k", {}, "t")
    (entry,) = memory.list_memories()
    container.shutdown()

    assert entry.expires_at is not None


PROGRAM = """
import sys
from jarvis.persistent_memory import CategoryPolicy, MemoryModule
_, directory, backend_type, name = sys.argv
memory = MemoryModule(
    storage_dir=directory, backend_type=backend_type, durability="normal", policies=[CategoryPolicy("c", max_entries=9)]
)
for number in range(60):
    memory.create_memory("c", f"{name}-{number}", {}, "t")
    assert memory.count_memories("c") <= 9
memory.shutdown()
"""


@pytest.mark.parametrize("backend_type", ["sqlite", "json"])
def test_several_processes_keep_one_bound(tmp_path: Path, backend_type: str) -> None:
    arguments = [sys.executable, "-c", PROGRAM, str(tmp_path), backend_type]
    processes = [subprocess.Popen([*arguments, name]) for name in "ab"]

    assert [process.wait(timeout=100) for process in processes] == [0, 0]
    with MemoryModule(storage_dir=tmp_path, backend_type=backend_type) as memory:
        assert memory.count_memories("c") == 9
        assert len(memory.changes(limit=1_000)) == 120 + 111


def test_a_copy_of_a_memory_has_its_policies() -> None:
    memory = MemoryModule.in_memory(policies=[SHORT])
    inner = AsyncMemoryModule.of(pickle.loads(pickle.dumps(memory)))._inner

    inner.create_memory("short", "k", {}, "t")

    (entry,) = memory.list_memories()
    assert entry.expires_at is not None
