"""A wrapper around a backend sees every call, whatever handles are made of it."""

from __future__ import annotations

import inspect
import pickle
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jarvis import capabilities
from jarvis.capabilities import CAPABILITIES, KeepsHistory, Namespaced, Transactional
from jarvis.conformance.fixtures import FakeClock
from jarvis.errors import UnsupportedError
from jarvis.keys import KeyFunction
from jarvis.model.entry import MemoryEntry
from jarvis.model.query import MemoryQuery
from jarvis.persistent_memory import MemoryModule
from jarvis.sqlite_backend import SQLiteBackend
from jarvis.storage_backend import BackendWrapper, StorageBackend

_OF_HANDLES = {"bind", "for_namespace", "capability", "has_capability"}
VERBS = {
    name
    for kind in (StorageBackend, *CAPABILITIES)
    for name, held in vars(kind).items()
    if inspect.isfunction(held) and not name.startswith("_")
} - _OF_HANDLES


class Counting(BackendWrapper):
    """Counts the calls of each verb, of all handles together."""

    def __init__(self, wrapped: StorageBackend) -> None:
        super().__init__(wrapped)
        self.calls: Counter[str] = Counter()

    def __getattribute__(self, name: str) -> Any:
        if name in VERBS:
            self.calls[name] += 1
        return super().__getattribute__(name)


def a_key() -> bytes:
    return b"k" * 32


@pytest.fixture
def counting(tmp_path: Path) -> Counting:
    return Counting(SQLiteBackend(tmp_path / "memory.db", durability="normal", keys=[KeyFunction(a_key)]))


CALLS: dict[str, Callable[[MemoryModule], object]] = {
    "bootstrap": lambda memory: memory.bootstrap(),
    "prepare, change, moment, create": lambda memory: memory.create_memory("c", "k", {}, "t", ttl=60),
    "read": lambda memory: memory.get_memory("1"),
    "sign, update": lambda memory: memory.update_memory("1", {"n": 2}),
    "last_written": lambda memory: memory.set_user_preference("k", {}),
    "newest_of_key": lambda memory: memory.get_memory_by_key("k"),
    "select": lambda memory: memory.list_memories(),
    "count": lambda memory: memory.count_memories(),
    "explain": lambda memory: memory.search_memories(explain=True),
    "iterate": lambda memory: list(memory.iter_memories()),
    "transaction, complete": lambda memory: memory.modify_memory("1", lambda value: value),
    "discard": lambda memory: memory.delete_memory("1"),
    "clear": lambda memory: memory.clear_all(),
    "revisions": lambda memory: memory.get_history("1"),
    "as_of": lambda memory: memory.count_memories(as_of=datetime.now(UTC)),
    "delete": lambda memory: memory.undo("1"),
    "recreate": lambda memory: memory.delete_memory("1") and memory.restore_memory("1", 1),
    "prune": lambda memory: memory.store.prune_history(),
    "purge_expired": lambda memory: memory.store.purge_expired(),
    "erase, finish_erasing": lambda memory: memory.erase_memory("1"),
    "first_position, changes": lambda memory: memory.changes(),
    "changes_since": lambda memory: memory.changes(since=memory.newest_cursor()),
    "newest_cursor": lambda memory: memory.newest_cursor(),
    "last_moment": lambda memory: memory.bootstrap(),
    "mend_dates": lambda memory: memory.store.mend_dates(),
    "recompress": lambda memory: memory.store.recompress(),
    "back_up": lambda memory: memory.store.back_up(Path(memory.backend.wrapped.db_path).parent / "copy"),  # type: ignore[attr-defined]  # SQLite's
    "key_slots": lambda memory: memory.store.key_slots(),
    "encrypt": lambda memory: memory.store.encrypt([KeyFunction(a_key)]),
    "list_namespaces": lambda memory: memory.store.list_namespaces(),
    "shutdown": lambda memory: memory.shutdown(),
}
"""What the module asks of its backend, by the verbs that it then calls."""


@pytest.mark.parametrize("verbs", CALLS)
@pytest.mark.parametrize("namespace", ["default", "alice"])
def test_a_wrapper_sees_every_call_of_a_module(counting: Counting, verbs: str, namespace: str) -> None:
    memory = MemoryModule(storage_backend=counting, clock=lambda: datetime.now(UTC)).for_namespace(namespace)
    memory.backend.create(MemoryEntry("1", "c", "k", {"n": 1}))
    counting.calls.clear()

    CALLS[verbs](memory)

    assert [verb for verb in verbs.split(", ") if not counting.calls[verb]] == []


def test_what_a_wrapper_binds_is_a_wrapper(counting: Counting) -> None:
    memory = MemoryModule(storage_backend=counting, namespace="alice", clock=FakeClock())
    sibling = memory.for_namespace("bob")

    memory.create_memory("c", "k", {}, "t")
    sibling.store.erase_namespace("alice")
    sibling.create_memory("c", "k", {}, "t")

    assert isinstance(memory.backend, Counting)
    assert isinstance(sibling.backend, Counting)
    assert counting.calls["create"] == 2
    assert (counting.calls["erase"], sibling.store.list_namespaces()) == (1, ["bob"])
    assert (memory.namespace, sibling.namespace, counting.namespace) == ("alice", "bob", "default")


def test_a_wrapper_passes_every_verb_on() -> None:
    assert set(CAPABILITIES) == {
        kind
        for name, kind in vars(capabilities).items()
        if getattr(kind, "__module__", "") == capabilities.__name__ and inspect.isclass(kind) and name != "Past"
    }
    assert VERBS - vars(BackendWrapper).keys() == set()


def test_a_wrapper_hides_what_it_does_not_name(counting: Counting) -> None:
    class Few(BackendWrapper):
        capabilities = (Transactional,)

    few = Few(counting)

    assert few.capability(Transactional) is few
    assert not few.has_capability(KeepsHistory)
    with pytest.raises(UnsupportedError, match="'sqlite' has no history"):
        few.capability(KeepsHistory)
    with pytest.raises(UnsupportedError, match="'sqlite' has no history"):
        MemoryModule(storage_backend=few).get_history("1")


def test_a_wrapper_claims_no_more_than_what_is_wrapped(counting: Counting) -> None:
    class Plain(BackendWrapper):
        capabilities = ()

    wrapper = BackendWrapper(Plain(counting))

    assert [each for each in CAPABILITIES if wrapper.has_capability(each)] == []
    with pytest.raises(UnsupportedError, match="'sqlite' has no namespaces"):
        wrapper.capability(Namespaced)


def test_a_wrapper_is_pickled_with_what_it_wraps(tmp_path: Path) -> None:
    clock = FakeClock()
    wrapper = BackendWrapper(SQLiteBackend(tmp_path / "memory.db")).bind(namespace="alice", clock=clock)
    wrapper.create(MemoryEntry("1", "c", "k", {}, expires_at=clock.now + timedelta(seconds=1)))

    copy: BackendWrapper = pickle.loads(pickle.dumps(wrapper))

    assert (type(copy), copy.namespace, copy.count(MemoryQuery())) == (BackendWrapper, "alice", 1)
    copy.shutdown()
    wrapper.shutdown()
