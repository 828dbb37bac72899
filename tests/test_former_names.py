"""What programs of earlier releases import is there, with a warning that says where it stands now."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from pathlib import Path

import pytest

from jarvis.async_memory import AsyncMemoryModule, AsyncStore
from jarvis.capabilities import Namespaced
from jarvis.errors import NotEncryptedError
from jarvis.model.entry import MemoryEntry, check_namespace
from jarvis.model.query import MemoryQuery
from jarvis.model.record import decode_body
from jarvis.model.value_filter import compile_where
from jarvis.persistent_memory import MemoryModule
from jarvis.services.store import Store

MOVED_TO_STORE = {
    "back_up": "back_up",
    "encrypt_store": "encrypt",
    "decrypt_store": "decrypt",
    "rotate_data_key": "rotate_key",
    "key_slots": "key_slots",
    "add_key_slot": "add_key_slot",
    "remove_key_slot": "remove_key_slot",
    "recompress": "recompress",
    "prune_history": "prune_history",
    "purge_expired": "purge_expired",
    "mend_dates": "mend_dates",
    "list_namespaces": "list_namespaces",
    "erase_namespace": "erase_namespace",
}
"""Verbs of `MemoryModule` that are now of `MemoryModule.store`."""


@pytest.mark.parametrize(
    ("former", "now", "wanted"),
    [
        ("jarvis.memory_entry", "jarvis.model.entry", MemoryEntry),
        ("jarvis.memory_entry", "jarvis.model.entry", check_namespace),
        ("jarvis.memory_entry", "jarvis.model.query", MemoryQuery),
        ("jarvis.model.entry", "jarvis.model.query", MemoryQuery),
        ("jarvis.entry_record", "jarvis.model.record", decode_body),
        ("jarvis.value_filter", "jarvis.model.value_filter", compile_where),
        ("jarvis.storage_backend", "jarvis.capabilities", Namespaced),
    ],
)
def test_a_former_name_is_the_same_object_and_warns(former: str, now: str, wanted: type) -> None:
    module = importlib.import_module(former)

    with pytest.warns(
        DeprecationWarning, match=f"{former}.{wanted.__name__} has moved: import {wanted.__name__} from {now}"
    ):
        assert getattr(module, wanted.__name__) is wanted


def test_what_was_never_there_is_not_there_now() -> None:
    module = importlib.import_module("jarvis.memory_entry")

    assert not hasattr(module, "MemoryEntrance")
    assert not hasattr(module, "__path__")


@pytest.mark.parametrize("former", MOVED_TO_STORE)
def test_a_former_verb_has_the_signature_of_the_one_it_has_become(former: str) -> None:
    for kind, part in ((MemoryModule, Store), (AsyncMemoryModule, AsyncStore)):
        now = getattr(part, MOVED_TO_STORE[former])

        assert inspect.signature(getattr(kind, former)) == inspect.signature(now)
        assert inspect.getdoc(getattr(kind, former)) != inspect.getdoc(now)


def test_a_former_verb_warns_and_does_the_same(tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path)
    memory.set_user_preference("theme", {"mode": "dark"})

    with pytest.warns(DeprecationWarning, match=r"MemoryModule.list_namespaces\(\) has moved: call store") as told:
        assert memory.list_namespaces() == memory.store.list_namespaces() == ["default"]
    with pytest.warns(DeprecationWarning, match=r"call store.rotate_key\(\)"), pytest.raises(NotEncryptedError):
        memory.rotate_data_key()
    with pytest.warns(DeprecationWarning, match="erase_namespace"):
        assert memory.erase_namespace("default", reason="asked for").memories == 1

    assert {Path(each.filename).name for each in told} == {Path(__file__).name}


def test_a_former_verb_of_the_async_module_warns_and_does_the_same(tmp_path: Path) -> None:
    async def names() -> list[str]:
        async with AsyncMemoryModule(storage_dir=tmp_path) as memory:
            await memory.set_user_preference("theme", {"mode": "dark"})
            with pytest.warns(DeprecationWarning, match=r"AsyncMemoryModule.list_namespaces\(\) has moved"):
                return await memory.list_namespaces()

    assert asyncio.run(names()) == ["default"]
