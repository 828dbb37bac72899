"""Retention beyond what any backend promises: settings, kills, threads that end with the process, flat memory."""

from __future__ import annotations

import gc
import json
import logging
import pickle
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jarvis.async_memory import AsyncMemoryModule
from jarvis.config import ConfigLoader, RetentionRule, StorageConfig
from jarvis.container import Container
from jarvis.errors import InvalidSettingError, ReadOnlyStoreError
from jarvis.model.author import NOBODY
from jarvis.model.entry import MemoryEntry
from jarvis.persistent_memory import HistoryPolicy, MemoryModule

LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)
OLD = RetentionRule(category="tasks", max_age=timedelta(days=30))


@pytest.fixture(params=["sqlite", "json"])
def backend_type(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _fill(memory: MemoryModule, count: int, timestamp: datetime = LONG_AGO) -> None:
    with memory.transaction():
        for number in range(count):
            memory.backend.create(
                MemoryEntry(f"{timestamp.year}-{number}", "tasks", f"k{number}", {"n": number}, timestamp=timestamp)
            )


# --- settings ------------------------------------------------------------------------------------

YAML = """
storage:
  data_dir: data
  retention:
    - {category: tasks, max_age: 30 days, action: archive, keep_tags: [important]}
    - {category: notes, entity_type: note, tag: tmp, max_entries: 10}
  sweep_every: 1 hour
"""
JSON = {
    "storage": {
        "data_dir": "data",
        "retention": [
            {"category": "tasks", "max_age": "30 days", "action": "archive", "keep_tags": ["important"]},
            {"category": "notes", "entity_type": "note", "tag": "tmp", "max_entries": 10},
        ],
        "sweep_every": "1 hour",
    }
}


@pytest.mark.parametrize(("name", "text"), [("config.yaml", YAML), ("config.json", json.dumps(JSON))])
def test_rules_are_read_from_the_settings(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)

    storage = ConfigLoader(tmp_path / name).load().storage

    assert storage.retention == (
        RetentionRule(category="tasks", max_age=timedelta(days=30), action="archive", keep_tags=("important",)),
        RetentionRule(category="notes", entity_type="note", tag="tmp", max_entries=10),
    )
    assert storage.sweep_every == timedelta(hours=1)


@pytest.mark.parametrize(
    ("retention", "problem"),
    [
        (
            [{"category": "tasks", "max_agee": "1 day"}],
            r"rule 1 has no key 'max_agee' \(did you mean 'max_age'\?\); "
            "known: category, entity_type, tag, max_age, max_entries, action, keep_tags$",
        ),
        ([{"category": "a", "max_entries": 1}, {"max_entries": 1}], "rule 2 needs a category"),
        ([{"category": "a", 5: 1}], "rule 1 has no key 5; known: category"),
        ([{"category": "a"}], "rule 1 does not fit: retention: a rule needs a max_age or a max_entries"),
        ([{"category": "a", "max_age": "soon"}], "rule 1 has a max_age that must be a duration such as '12 hours'"),
        ([{"category": "a", "max_age": "1 day", "action": "erase"}], "action must be 'delete' or 'archive'"),
        ([{"category": 5, "max_age": "1 day"}], "category must be a text"),
        ([{"category": "a", "max_entries": "10"}], "max_entries must be a whole number"),
        (["tasks"], "rule 1 must be a RetentionRule or a mapping of its fields, not a value of type str"),
        ({"category": "tasks"}, "must be a list of rules"),
        ("30 days", "must be a list of rules"),
        (None, "must be a list of rules, not nothing"),
    ],
)
def test_a_mistake_in_a_rule_says_which_and_what_is_possible(retention: Any, problem: str) -> None:
    with pytest.raises(InvalidSettingError, match=rf"^storage\.retention .*{problem}"):
        StorageConfig(retention=retention)


def test_a_mistake_in_a_file_names_the_file_and_the_line(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("storage:\n  retention:\n    - {category: tasks, max_entrys: 5}\n")
    (tmp_path / "config.json").write_text('{"storage": {"retention": [{"category": "a", "category": "b"}]}}')

    with pytest.raises(InvalidSettingError, match=r"config\.yaml, line 2: .*rule 1 has no key 'max_entrys'"):
        ConfigLoader(tmp_path / "config.yaml").load()
    with pytest.raises(InvalidSettingError, match=r"config\.json: storage\.retention rule 1 has a key twice"):
        ConfigLoader(tmp_path / "config.json").load()


@pytest.mark.parametrize("value", ["soon", 5, "0 seconds", "31 days", True])
def test_an_interval_that_means_nothing_is_refused(value: Any) -> None:
    with pytest.raises(InvalidSettingError, match=r"^storage\.sweep_every must be"):
        StorageConfig(sweep_every=value)


def test_a_store_that_is_only_read_cannot_be_swept(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("storage: {read_only: true, sweep_every: 1 day}")
    with pytest.raises(InvalidSettingError, match=r"config\.yaml: storage\.sweep_every .* read_only"):
        ConfigLoader(tmp_path / "config.yaml").load()
    with MemoryModule(storage_dir=tmp_path) as memory:
        _fill(memory, 2)
    with MemoryModule(storage_dir=tmp_path, read_only=True, retention=[OLD]) as reader:
        assert reader.plan_retention().count == 2
        with pytest.raises(ReadOnlyStoreError):
            reader.sweep()
        assert reader.count_memories() == 2


def test_a_container_sweeps_as_the_settings_say_and_no_more_after_shutdown(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(YAML.replace("action: archive, ", ""))
    container = Container()
    with MemoryModule(storage_dir=tmp_path / "data" / "persistent_memory") as memory:
        _fill(memory, 3)
        shared = container.get_memory_module(tmp_path / "config.yaml")
        _await(lambda: memory.count_memories() == 0)
        assert len(_sweepers()) == 1
        assert container.get_memory_module() is shared
        assert len(_sweepers()) == 1

        container.shutdown()

        assert _sweepers() == []
        _fill(memory, 3)
        container.get_memory_module()  # which is used again, and swept again
        _await(lambda: memory.count_memories() == 0)
        container.shutdown()


def test_a_container_does_not_sweep_unless_it_is_asked_to(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(YAML.replace("sweep_every: 1 hour", ""))
    container = Container()

    memory = container.get_memory_module(tmp_path / "config.yaml")

    assert _sweepers() == []
    assert [rule.category for rule in memory.retention] == ["tasks", "notes"]
    container.shutdown()


def test_a_pickled_module_has_its_rules(tmp_path: Path) -> None:
    with MemoryModule(storage_dir=tmp_path, retention=[OLD]) as memory:
        _fill(memory, 2)
        with pickle.loads(pickle.dumps(memory)) as copy:
            assert copy.sweep().deleted == 2


def test_an_async_module_sweeps_too(tmp_path: Path) -> None:
    import asyncio

    async def story() -> tuple[int, int, int]:
        async with AsyncMemoryModule(storage_dir=tmp_path, retention=[OLD]) as memory:
            _fill(memory._inner, 2)
            plan, report = await memory.plan_retention(), await memory.sweep()
            _fill(memory._inner, 2)
            sweeper = memory.sweep_every(3600)
            while await memory.count_memories():
                await asyncio.sleep(0.005)
        return plan.count, report.deleted, sweeper.is_running

    assert asyncio.run(story()) == (2, 2, False)


# --- the reason ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (timedelta(days=1), "1 day"),
        (timedelta(days=28), "28 days"),
        (timedelta(hours=36), "36 hours"),
        (timedelta(minutes=1), "1 minute"),
        (timedelta(seconds=86_401), "86401 seconds"),
        (timedelta(seconds=0.5), "0.5 seconds"),
        (timedelta(0), "0 seconds"),
    ],
)
def test_the_reason_says_the_rule_in_words(tmp_path: Path, age: timedelta, words: str) -> None:
    rule = RetentionRule(category="tasks", entity_type="job", max_age=age)
    with MemoryModule(storage_dir=tmp_path, retention=[rule]) as memory:
        memory.backend.create(MemoryEntry("1", "tasks", "k", {}, entity_type="job", timestamp=LONG_AGO))
        memory.sweep()

        assert memory.get_history("1")[0].reason == f"retention: tasks of type job older than {words}"


def test_a_sweep_logs_how_much_and_nothing_if_there_was_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "jarvis")
    with MemoryModule(storage_dir=tmp_path, retention=[OLD]) as memory:
        _fill(memory, 2)
        memory.sweep()
        memory.sweep()

    assert [(each.name, each.getMessage()) for each in caplog.records if each.name == "jarvis.retention"] == [
        ("jarvis.retention", "deleted 2, archived 0, purged 0")
    ]


# --- kills and ends ------------------------------------------------------------------------------

SWEEP = """
import sys
from datetime import timedelta
from jarvis.persistent_memory import MemoryModule, RetentionRule

class Telling(MemoryModule):
    def _change(self, work):
        result = super()._change(work)
        print("batch", flush=True)
        return result

rule = RetentionRule(category="tasks", max_age=timedelta(days=30), action=sys.argv[3])
Telling(storage_dir=sys.argv[1], backend_type=sys.argv[2], retention=[rule]).sweep(batch=5)
print("done", flush=True)
"""


@pytest.mark.parametrize("action", ["delete", "archive"])
def test_a_sweep_that_was_killed_is_gone_on_with(tmp_path: Path, backend_type: str, action: Any) -> None:
    rule = RetentionRule(category="tasks", max_age=timedelta(days=30), action=action)
    memory = MemoryModule(storage_dir=tmp_path, backend_type=backend_type, retention=[rule])
    _fill(memory, 400)
    memory.record_task("new", {})
    memory.shutdown()
    child = subprocess.Popen(
        [sys.executable, "-c", SWEEP, str(tmp_path), backend_type, action], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    for _ in range(3):
        assert child.stdout.readline() == "batch\n"
    child.kill()
    batches = 3 + len(child.stdout.read().splitlines())
    child.wait()
    child.stdout.close()

    left = memory.plan_retention().count

    assert 5 * batches <= 400 - left <= 5 * (batches + 1)
    assert left % 5 == 0
    report = memory.sweep()
    assert report.deleted + report.archived == left > 0
    assert [entry.key for entry in memory.list_memories()] == ["task_new"]
    assert memory.count_memories(include_archived=True) == (1 if action == "delete" else 401)
    memory.shutdown()


LEFT_RUNNING = """
import sys
from datetime import timedelta
from jarvis.persistent_memory import MemoryModule, RetentionRule

rule = RetentionRule(category="tasks", max_age=timedelta(days=30))
memory = MemoryModule(storage_dir=sys.argv[1], retention=[rule])
memory.bootstrap()
memory.sweep_every(0.001)
"""


def test_a_sweeper_does_not_keep_the_interpreter_alive(tmp_path: Path) -> None:
    with MemoryModule(storage_dir=tmp_path) as memory:
        _fill(memory, 2_000)

    for _ in range(3):
        ended = subprocess.run(
            [sys.executable, "-c", LEFT_RUNNING, str(tmp_path)], timeout=30, capture_output=True, text=True, check=False
        )
        assert (ended.returncode, ended.stderr) == (0, "")

    with MemoryModule(storage_dir=tmp_path, retention=[OLD]) as memory:
        memory.sweep()
        assert memory.count_memories() == 0


def test_a_shutdown_in_the_midst_of_a_sweep_waits_for_one_batch(tmp_path: Path, backend_type: str) -> None:
    memory = MemoryModule(
        storage_dir=tmp_path, backend_type=backend_type, durability="normal", retention=[OLD], history=HistoryPolicy()
    )
    _fill(memory, 3_000)
    sweeper = memory.sweep_every(3600)
    _await(lambda: memory.count_memories() < 3_000)

    memory.shutdown()

    assert not sweeper.is_running
    assert (3_000 - memory.count_memories()) % 500 == 0
    memory.shutdown()


def test_a_sweep_that_is_told_to_end_ends_behind_the_batch(tmp_path: Path, backend_type: str) -> None:
    with MemoryModule(storage_dir=tmp_path, backend_type=backend_type, retention=[OLD, OLD]) as memory:
        _fill(memory, 20)

        report = memory._sweep(4, NOBODY, lambda: memory.count_memories() <= 10)

        assert (report.deleted, memory.count_memories()) == (12, 8)


# --- how much it takes ---------------------------------------------------------------------------


def test_a_sweep_of_much_takes_no_more_memory_than_one_of_little(tmp_path: Path) -> None:
    peaks = []
    for count in (1_000, 10_000):
        with MemoryModule(
            storage_dir=tmp_path / str(count), durability="normal", retention=[OLD, OLD, _at_most(count // 2)]
        ) as memory:
            _fill(memory, count)
            _fill(memory, count, datetime.now(UTC))
            gc.collect()
            tracemalloc.start()
            memory.plan_retention()
            report = memory.sweep()
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            assert report.deleted == count + count // 2

    assert peaks[1] < peaks[0] * 1.5


def _at_most(count: int) -> RetentionRule:
    return RetentionRule(category="tasks", max_entries=count)


# --- what the tests share ------------------------------------------------------------------------


def _await(is_so: Any) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


def _sweepers() -> list[str]:
    import threading

    return [thread.name for thread in threading.enumerate() if thread.name == "jarvis-sweeper"]


@pytest.fixture(autouse=True)
def no_sweeper_is_left() -> Iterator[None]:
    """Check that whoever began to sweep has ended it."""
    yield
    assert _sweepers() == []
