"""The module in its surroundings: container, sessions, processes, both backends, whole workflows."""

from __future__ import annotations

import asyncio
import inspect
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jarvis.async_memory import AsyncMemoryModule
from jarvis.container import Container
from jarvis.errors import (
    InvalidSettingError,
    ReadOnlyStoreError,
    StoreMissingError,
    TransactionError,
    UnknownBackendError,
)
from jarvis.persistent_memory import MemoryModule
from jarvis.sqlite_backend import SQLiteBackend


class TestContainer:
    def test_the_container_gives_one_memory_at_the_configured_place(self, tmp_path: Path) -> None:
        config = tmp_path / "config.yaml"
        config.write_text(f"storage:\n  data_dir: {tmp_path / 'data'}\n")
        container = Container()

        memory = container.get_memory_module(config_path=str(config))
        memory.set_user_preference("theme", {"mode": "dark"})

        assert container.get_memory_module() is memory
        assert isinstance(memory.backend, SQLiteBackend)
        assert memory.backend.db_path == tmp_path / "data" / "persistent_memory" / "memory.db"
        assert memory.backend.db_path.is_file()
        memory.shutdown()

    def test_a_second_container_remembers(self, tmp_path: Path) -> None:
        config = tmp_path / "config.json"
        config.write_text(
            json.dumps({"storage": {"data_dir": str(tmp_path)}, "llm": {"model": "other part's business"}})
        )
        first = Container().get_memory_module(config_path=config)
        first.record_task("1", {"status": "completed"})
        first.shutdown()

        second = Container().get_memory_module(config_path=config)

        assert [entry.value for entry in second.get_task_history()] == [{"status": "completed"}]
        second.shutdown()


@pytest.mark.parametrize("backend_type", ["sqlite", "json"])
class TestSessions:
    def test_everything_is_remembered_by_the_next_process(self, backend_type: str, tmp_path: Path) -> None:
        program = """
import sys
from jarvis.persistent_memory import MemoryModule
memory = MemoryModule(storage_dir=sys.argv[1], backend_type=sys.argv[2])
memory.set_user_preference("theme", {"mode": "dark"})
memory.set_device_info({"name": "laptop", "os": "linux"})
memory.record_task("1", {"status": "completed"})
memory.create_memory("tools", "tool_ls", {"path": "/bin/ls"}, "tool", "ls", ["learned", "tool"], "tool_teaching_module")
"""  # no shutdown: never closing loses nothing
        subprocess.run([sys.executable, "-c", program, str(tmp_path), backend_type], check=True)

        with MemoryModule(storage_dir=tmp_path, backend_type=backend_type) as memory:
            tool = memory.get_memory_by_key("tool_ls")
            assert memory.get_user_preferences() == {"theme": {"mode": "dark"}}
            assert memory.get_device_info() == {"name": "laptop", "os": "linux"}
            assert len(memory.get_task_history()) == 1
            assert tool is not None
            assert tool.value == {"path": "/bin/ls"}

    def test_a_call_after_shutdown_opens_again(self, backend_type: str, tmp_path: Path) -> None:
        memory = MemoryModule(storage_dir=tmp_path, backend_type=backend_type)
        memory.set_user_preference("theme", {"mode": "dark"})
        memory.shutdown()
        memory.shutdown()

        assert memory.get_user_preferences() == {"theme": {"mode": "dark"}}
        memory.shutdown()

    def test_a_module_can_be_pickled_as_the_way_to_its_store(self, backend_type: str, tmp_path: Path) -> None:
        memory = MemoryModule(storage_dir=tmp_path, backend_type=backend_type, namespace="alice")
        memory.set_user_preference("theme", {"mode": "dark"})

        copy = pickle.loads(pickle.dumps(memory))

        assert copy.namespace == "alice"
        assert copy.get_user_preferences() == {"theme": {"mode": "dark"}}
        copy.shutdown()
        memory.shutdown()

    def test_read_only_reads_and_writes_nothing(self, backend_type: str, tmp_path: Path) -> None:
        with MemoryModule(storage_dir=tmp_path, backend_type=backend_type) as memory:
            memory.set_user_preference("theme", {"mode": "dark"})
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        memory = MemoryModule(storage_dir=tmp_path, backend_type=backend_type, read_only=True)

        assert memory.get_user_preferences() == {"theme": {"mode": "dark"}}
        for write in (
            lambda: memory.set_user_preference("theme", {}),
            lambda: memory.delete_memory("x"),
            memory.clear_all,
            lambda: memory.record_task("1", {}),
        ):
            with pytest.raises(ReadOnlyStoreError, match="read_only"):
                write()
        memory.shutdown()
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_read_only_creates_nothing(self, backend_type: str, tmp_path: Path) -> None:
        memory = MemoryModule(storage_dir=tmp_path / "absent", backend_type=backend_type, read_only=True)

        with pytest.raises(StoreMissingError, match="read_only"):
            memory.list_memories()

        assert not (tmp_path / "absent").exists()

    def test_a_whole_workflow(self, backend_type: str, tmp_path: Path) -> None:
        with (
            MemoryModule(storage_dir=tmp_path, backend_type=backend_type) as memory,
            memory.acting_as(module="planner"),
        ):
            with memory.transaction():
                task = memory.record_task("build", {"status": "running"})
                memory.upsert_memory("tools", "tool_make", {"version": "4.3"}, "tool", "make", ["learned"])
            memory.update_memory(task, {"status": "completed", "duration": 12})
            memory.upsert_memory("tools", "tool_make", {"version": "4.4"})

        with MemoryModule(storage_dir=tmp_path, backend_type=backend_type) as memory:
            (done,) = memory.search_memories(category="tasks", where={"status": "completed"})
            (tool,) = memory.get_memories_by_tags(["learned"])
            assert (done.version, done.provenance["updated_by"]) == (2, "planner")
            assert (tool.value, tool.entity_id) == ({"version": "4.4"}, "make")


def test_memories_move_between_backends_unchanged(tmp_path: Path) -> None:
    with MemoryModule(storage_dir=tmp_path) as source:
        source.set_user_preference("theme", {"mode": "dark", "since": (2024, 1)})
        source.record_task("1", {"status": "completed"})
        entries = source.list_memories()

        with MemoryModule(storage_dir=tmp_path / "json", backend_type="json") as target, target.transaction():
            for entry in reversed(list(source.iter_memories())):
                target.backend.create(entry)

    with MemoryModule(storage_dir=tmp_path / "json", backend_type="json") as target:
        assert target.list_memories() == entries


def test_an_unknown_backend_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UnknownBackendError, match=r"no backend named 'sqllite'; known: .*did you mean 'sqlite'"):
        MemoryModule(storage_dir=tmp_path, backend_type="sqllite")


def test_settings_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    for settings in ({"durability": "fulll"}, {"busy_timeout_seconds": -1}, {"busy_timeout_seconds": "5"}):
        for backend_type in ("sqlite", "json"):
            with pytest.raises(InvalidSettingError, match=next(iter(settings))):
                MemoryModule(storage_dir=tmp_path, backend_type=backend_type, **settings)
    with pytest.raises(InvalidSettingError, match="storage_backend"):
        MemoryModule(tmp_path)  # type: ignore[arg-type]  # hostile


class TestAsync:
    def test_the_async_verbs_have_the_same_names_and_arguments(self) -> None:
        def public(kind: type) -> dict[str, Any]:
            return {name: held for name, held in inspect.getmembers(kind) if not name.startswith("_")}

        verbs, awaited = public(MemoryModule), public(AsyncMemoryModule)
        del verbs["in_memory"]  # which `of` makes awaitable

        assert awaited.keys() - {"backend", "of", "run"} == verbs.keys()
        for name in ("__init__", *verbs):
            if name not in ("namespace", "store"):
                ours, theirs = (
                    inspect.signature(getattr(MemoryModule, name)),
                    inspect.signature(getattr(AsyncMemoryModule, name)),
                )
                assert ours.parameters == theirs.parameters, name
                if inspect.iscoroutinefunction(getattr(AsyncMemoryModule, name)):
                    assert ours.return_annotation == theirs.return_annotation, name

    def test_calls_overlap_and_transactions_hold(self, tmp_path: Path) -> None:
        async def story() -> tuple[int, int, list[int]]:
            async with AsyncMemoryModule(storage_dir=tmp_path) as memory:
                await asyncio.gather(*(memory.record_task(str(n), {"n": n}) for n in range(20)))
                inside = 0

                async def fail() -> None:
                    nonlocal inside
                    async with memory.transaction():
                        await memory.clear_all()
                        async with memory.transaction():
                            await memory.record_task("inner", {})
                        inside = await memory.count_memories()
                        raise ZeroDivisionError

                with pytest.raises(ZeroDivisionError):
                    await fail()
                seen = [entry.value["n"] async for entry in memory.iter_memories(category="tasks")]
                return inside, await memory.count_memories(), seen

        inside, after, seen = asyncio.run(story())

        assert (inside, after) == (1, 20)
        assert sorted(seen) == list(range(20))

    def test_a_cancelled_call_leaves_nothing_half_done_and_no_lock(self, tmp_path: Path) -> None:
        async def story() -> tuple[int, int]:
            async with AsyncMemoryModule(storage_dir=tmp_path, busy_timeout_seconds=5) as memory:
                inside, waiting = asyncio.Event(), asyncio.Event()

                async def hold() -> None:
                    async with memory.transaction():
                        await memory.record_task("held", {})
                        inside.set()
                        await asyncio.Event().wait()

                async def wait() -> None:
                    waiting.set()
                    async with memory.transaction():
                        await memory.record_task("never", {})

                holder = asyncio.create_task(hold())
                await inside.wait()
                waiter = asyncio.create_task(wait())
                await waiting.wait()
                for task in (waiter, holder):
                    task.cancel()
                outcome = await asyncio.gather(waiter, holder, return_exceptions=True)
                assert all(isinstance(each, asyncio.CancelledError) for each in outcome)
                await memory.record_task("after", {})
                return await memory.count_memories(), len(outcome)

        assert asyncio.run(story()) == (1, 2)

    def test_a_task_that_outlives_its_transaction_is_told(self, tmp_path: Path) -> None:
        async def story() -> None:
            async with AsyncMemoryModule(storage_dir=tmp_path) as memory:
                ended = asyncio.Event()

                async def late() -> None:
                    await ended.wait()
                    await memory.record_task("late", {})

                async with memory.transaction():
                    task = asyncio.create_task(late())
                    await asyncio.sleep(0)
                ended.set()
                with pytest.raises(TransactionError):
                    await task

        asyncio.run(story())

    def test_no_thread_is_left_after_shutdown(self, tmp_path: Path) -> None:
        import threading

        async def story() -> None:
            async with AsyncMemoryModule(storage_dir=tmp_path) as memory:
                await asyncio.gather(*(memory.record_task(str(n), {}) for n in range(8)))
                async with memory.transaction():
                    await memory.record_task("x", {})

        asyncio.run(story())

        for thread in threading.enumerate():
            if thread.name.startswith("jarvis-"):
                thread.join(timeout=10)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("jarvis-")]


async def _watched(memory: AsyncMemoryModule) -> list[str | None]:
    watcher = memory.watch(idle_seconds=5)
    for number in range(5):
        await memory.create_memory("c", str(number), {}, "t")
    found: list[str | None] = []
    async for change in watcher:
        found.append(change.key)
        if len(found) == 5:
            break
    later = memory.watch(idle_seconds=5)
    waiting = asyncio.ensure_future(anext(later))
    await asyncio.sleep(0.2)
    await memory.create_memory("c", "own", {}, "t")
    found.append((await asyncio.wait_for(waiting, 5)).key)
    return found


def test_an_async_watcher_sees_what_its_own_memory_does_from_the_call_on(tmp_path: Path) -> None:
    async def watch() -> list[str | None]:
        async with AsyncMemoryModule(storage_dir=tmp_path) as memory:
            return await _watched(memory)

    assert asyncio.run(watch()) == ["0", "1", "2", "3", "4", "own"]
