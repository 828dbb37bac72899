"""What a store can be told is told once: whoever opens it, all of it arrives, and the defaults are the same."""

from __future__ import annotations

import inspect
import pickle
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jarvis.backend_registry import open_backend
from jarvis.config import StorageConfig
from jarvis.container import Container
from jarvis.errors import InvalidSettingError
from jarvis.json_backend import JSONBackend
from jarvis.keys import EnvironmentKey
from jarvis.model.policies import CategoryPolicy, HistoryPolicy
from jarvis.model.store_options import StoreOptions
from jarvis.persistent_memory import MemoryModule
from jarvis.sqlite_backend import SQLiteBackend

GIVEN: dict[str, Any] = {
    "read_only": True,
    "durability": "normal",
    "busy_timeout_seconds": 1.5,
    "history": HistoryPolicy(max_age=timedelta(days=1)),
    "encryption": "on",
    "keys": (EnvironmentKey("A_KEY"),),
    "compression": "off",
    "text_index": "german",
    "policies": (CategoryPolicy("c", history=HistoryPolicy(max_revisions=1)),),
    "create": False,
}


def _told(memory: MemoryModule) -> StoreOptions:
    assert isinstance(memory.backend, SQLiteBackend)
    return memory.backend._database.options


def test_every_option_is_tried_here() -> None:
    assert StoreOptions(**GIVEN).given() == GIVEN


@pytest.mark.parametrize("kind", [MemoryModule, SQLiteBackend, JSONBackend])
def test_the_defaults_of_a_signature_are_those_of_the_options(kind: type) -> None:
    parameters = inspect.signature(kind).parameters

    usual = {name: getattr(StoreOptions(), name) for name in StoreOptions.__struct_fields__}
    if kind is JSONBackend:
        del usual["encryption"], usual["keys"]
    assert {name: parameters[name].default for name in usual} == usual


def test_the_defaults_of_the_settings_are_those_of_the_options() -> None:
    assert StorageConfig().options == StoreOptions()


def test_all_that_is_given_reaches_the_store(tmp_path: Path) -> None:
    whole = StoreOptions(**GIVEN)

    assert _told(MemoryModule(storage_dir=tmp_path, **GIVEN)) == whole
    assert _told(MemoryModule(open_backend("sqlite", tmp_path / "memory.db", whole))) == whole
    assert StorageConfig(**GIVEN).options == whole
    assert str(_told(pickle.loads(pickle.dumps(MemoryModule(storage_dir=tmp_path, **GIVEN))))) == str(whole)


def test_the_settings_reach_the_store_by_way_of_the_container(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("storage: {data_dir: data, durability: normal, history: {max_revisions: 3}}", encoding="utf-8")
    container = Container()

    told = _told(container.get_memory_module(file))
    container.shutdown()

    assert told == StoreOptions(durability="normal", history=HistoryPolicy(max_revisions=3))


@pytest.mark.parametrize("name", GIVEN)
def test_an_option_that_does_not_fit_is_refused_before_a_backend_is_asked(name: str) -> None:
    unfit: Any = {name: object()}

    with pytest.raises(InvalidSettingError, match=name):
        StoreOptions(**unfit)
