"""The container: one configuration and one memory module for a whole application."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from jarvis.caching import CachedBackend
from jarvis.config import CacheLimits
from jarvis.container import Container
from jarvis.errors import (
    InvalidSettingError,
    ReadOnlyStoreError,
    StoreMissingError,
    UnknownBackendError,
    UnsupportedError,
)
from jarvis.persistent_memory import MemoryModule

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a home directory of its own."""
    directory = tmp_path / "home"
    directory.mkdir()
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.setenv("USERPROFILE", str(directory))
    return directory


@pytest.fixture
def container() -> Container:
    """Make a container in a home directory without a configuration."""
    return Container()


def written(path: Path, storage: str) -> Path:
    """Write a configuration file whose data are beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"storage: {{data_dir: data, {storage}}}", encoding="utf-8")
    return path


# --- the configuration ---------------------------------------------------------------------------


def test_the_configuration_is_read_once(home: Path, container: Container) -> None:
    file = written(home / ".jarvis" / "config.yaml", "namespace: alice")
    first = container.get_config()
    written(file, "namespace: bob")

    assert container.get_config() is first
    assert first.storage.namespace == "alice"


def test_a_later_configuration_is_ignored_with_a_warning_that_names_both(
    tmp_path: Path, container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    alice = written(tmp_path / "alice.yaml", "namespace: alice")
    bob = written(tmp_path / "bob.yaml", "namespace: bob")
    container.get_config(alice)

    later = container.get_config(bob)

    assert later.storage.namespace == "alice"
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("jarvis.container", logging.WARNING)
    assert str(alice) in record.message
    assert str(bob) in record.message


def test_the_same_configuration_is_named_again_without_a_warning(
    tmp_path: Path, container: Container, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path / "alice.yaml", "namespace: alice")
    monkeypatch.chdir(tmp_path)
    container.get_config(file)

    container.get_config()
    container.get_config(str(file))
    container.get_config("alice.yaml")

    assert caplog.records == []


def test_a_configuration_that_could_not_be_loaded_does_not_count(tmp_path: Path, container: Container) -> None:
    broken = written(tmp_path / "broken.yaml", "durability: never")
    with pytest.raises(InvalidSettingError):
        container.get_config(broken)

    assert container.get_config(written(tmp_path / "good.yaml", "namespace: good")).storage.namespace == "good"


# --- the memory module ---------------------------------------------------------------------------


def test_the_store_is_in_persistent_memory_within_the_data_directory(home: Path, container: Container) -> None:
    container.get_memory_module()

    assert (home / ".jarvis" / "data" / "persistent_memory" / "memory.db").is_file()


def test_the_module_follows_the_configuration(tmp_path: Path, container: Container) -> None:
    config = written(tmp_path / "config.yaml", "backend: json, namespace: alice")
    container.get_memory_module(config).set_user_preference("theme", {"mode": "dark"})
    container.shutdown()

    directory = tmp_path / "data" / "persistent_memory"
    with MemoryModule(storage_dir=directory, backend_type="json", namespace="alice") as memory:
        assert memory.get_user_preferences() == {"theme": {"mode": "dark"}}
    with MemoryModule(storage_dir=directory, backend_type="json") as memory:
        assert memory.get_user_preferences() == {}


def test_the_settings_cache_the_module(tmp_path: Path, container: Container) -> None:
    config = written(tmp_path / "config.yaml", "cache: {entries: 5, stale_seconds: 2}")

    backend = container.get_memory_module(config).backend

    assert isinstance(backend, CachedBackend)
    assert backend._kept.limits == CacheLimits(entries=5, stale_seconds=2)
    assert not isinstance(Container().get_memory_module().backend, CachedBackend)


def test_a_module_that_is_read_only_refuses_changes(tmp_path: Path, container: Container) -> None:
    Container().get_memory_module(written(tmp_path / "writing.yaml", "")).shutdown()
    memory = container.get_memory_module(written(tmp_path / "reading.yaml", "read_only: true"))

    with pytest.raises(ReadOnlyStoreError):
        memory.set_user_preference("theme", {"mode": "dark"})


def test_the_module_is_made_once(container: Container) -> None:
    assert container.get_memory_module() is container.get_memory_module()


def test_many_threads_that_ask_at_once_get_one_module(container: Container) -> None:
    together = threading.Barrier(16)

    def ask(_: int) -> MemoryModule:
        together.wait()
        return container.get_memory_module()

    with ThreadPoolExecutor(16) as threads:
        modules = set(map(id, threads.map(ask, range(16))))

    assert modules == {id(container.get_memory_module())}


def test_two_containers_share_nothing(tmp_path: Path) -> None:
    alice, bob = Container(), Container()
    alice.get_memory_module(written(tmp_path / "alice" / "config.yaml", "")).set_user_preference("a", {"n": 1})
    found = bob.get_memory_module(written(tmp_path / "bob" / "config.yaml", "")).get_user_preferences()
    alice.shutdown()
    bob.shutdown()

    assert found == {}


def test_an_unknown_backend_is_refused(tmp_path: Path, container: Container) -> None:
    with pytest.raises(UnknownBackendError, match="did you mean 'sqlite'"):
        container.get_memory_module(written(tmp_path / "config.yaml", "backend: sqllite"))


def test_a_module_that_could_not_be_opened_does_not_count(tmp_path: Path, container: Container) -> None:
    reading = written(tmp_path / "config.yaml", "read_only: true")
    with pytest.raises(StoreMissingError):
        container.get_memory_module(reading)
    Container().get_memory_module(written(tmp_path / "writing.yaml", "")).shutdown()

    assert container.get_memory_module().get_user_preferences() == {}


# --- the end -------------------------------------------------------------------------------------


def test_what_was_remembered_is_there_in_the_next_session(container: Container) -> None:
    container.get_memory_module().set_user_preference("theme", {"mode": "dark"})
    container.shutdown()

    assert Container().get_memory_module().get_user_preferences() == {"theme": {"mode": "dark"}}


def test_shutting_down_what_was_never_used_does_nothing(home: Path, container: Container) -> None:
    container.shutdown()
    container.shutdown()

    assert list(home.iterdir()) == []


def test_a_container_can_be_used_again_after_shutdown(container: Container) -> None:
    memory = container.get_memory_module()
    container.shutdown()

    assert container.get_memory_module() is memory
    memory.set_user_preference("theme", {"mode": "dark"})
    assert container.get_memory_module().get_user_preferences() == {"theme": {"mode": "dark"}}


# --- mistakes that only a backend can judge ------------------------------------------------------


def test_an_unknown_backend_is_named_with_file_and_line(tmp_path: Path, container: Container) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("storage:\n  data_dir: data\n  backend: mongo\n", encoding="utf-8")

    for make in (container.get_memory_module, container.get_async_memory_module):
        with pytest.raises(UnknownBackendError) as caught:
            make(file)
        assert str(caught.value).startswith(f"{file}, line 3: storage.backend: no backend named 'mongo'")


def test_what_the_backend_lacks_is_named_with_file_and_line(tmp_path: Path, container: Container) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("storage:\n  data_dir: data\n  backend: json\n  encryption: required\n", encoding="utf-8")

    with pytest.raises(UnsupportedError) as caught:
        container.get_memory_module(file)

    assert str(caught.value).startswith(f"{file}, line 3: storage.backend: ")


def test_a_namespace_that_is_no_name_is_named_with_file_and_line(tmp_path: Path, container: Container) -> None:
    file = tmp_path / "config.yaml"
    file.write_text('storage:\n  data_dir: data\n  namespace: "a\\0b"\n', encoding="utf-8")

    with pytest.raises(InvalidSettingError) as caught:
        container.get_memory_module(file)

    assert str(caught.value).startswith(f"{file}, line 3: storage.namespace: ")


# --- awaited -------------------------------------------------------------------------------------


def test_the_async_module_is_one_and_has_all_that_the_settings_say(tmp_path: Path, container: Container) -> None:
    config = written(
        tmp_path / "config.yaml",
        "namespace: alice, retention: [{category: tasks, max_entries: 1, action: archive}]",
    )

    async def remember() -> tuple[int, int]:
        memory = container.get_async_memory_module(config)
        for number in range(3):
            await memory.record_task(str(number), {})
        report = await memory.sweep()
        return report.archived, await memory.count_memories(category="tasks")

    assert asyncio.run(remember()) == (2, 1)
    assert container.get_async_memory_module() is container.get_async_memory_module()
    assert container.get_async_memory_module().namespace == "alice"
    assert container.get_memory_module().count_memories(category="tasks") == 1
    assert (tmp_path / "data" / "persistent_memory" / "memory.db").is_file()
    container.shutdown()


def test_shutting_down_ends_the_threads_of_the_async_module_too(container: Container) -> None:
    memory = container.get_async_memory_module()

    async def remember() -> None:
        await memory.set_user_preference("theme", {"mode": "dark"})
        container.shutdown()

    asyncio.run(remember())

    for thread in threading.enumerate():
        if thread.name.startswith("jarvis-memory"):
            thread.join(10)
            assert not thread.is_alive()
    assert asyncio.run(memory.get_user_preferences()) == {"theme": {"mode": "dark"}}
    container.shutdown()
