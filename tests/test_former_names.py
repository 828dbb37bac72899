"""What programs of earlier releases import is there, with a warning that says where it stands now."""

from __future__ import annotations

import importlib

import pytest

from jarvis.capabilities import Namespaced
from jarvis.model.entry import MemoryEntry, check_namespace
from jarvis.model.record import decode_body
from jarvis.model.value_filter import compile_where


@pytest.mark.parametrize(
    ("former", "now", "wanted"),
    [
        ("jarvis.memory_entry", "jarvis.model.entry", MemoryEntry),
        ("jarvis.memory_entry", "jarvis.model.entry", check_namespace),
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
