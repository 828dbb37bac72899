"""No cost grows faster than the list that a verb is given: the steps of the database are counted, never the time."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jarvis.model.query import MAX_NAMED, MAX_TAGS
from jarvis.model.value_filter import MAX_FILTER_PARTS
from jarvis.persistent_memory import MemoryModule
from jarvis.services.store import Store
from jarvis.sqlite_backend import SQLiteBackend

from .test_by_construction import Watch

_SHORTER = 20
"""A list at the limit is compared with one that is this many times shorter."""

_MOST_TEXT, _MOST_QUERIES = 6_000, 40
"""Of a statement: the database counts no steps while it plans what is nested or joined, but that may take seconds."""

_TAGS = [f"tag-{number}" for number in range(MAX_TAGS)]
_KEYS = [f"key-{number}" for number in range(MAX_NAMED)]
_ITEMS = [{"category": "items", "key": key, "value": {}, "entity_type": "t"} for key in _KEYS[:2_000]]
_HISTORY = [{"user_request": "a", "description": "b", "execution_id": key} for key in _KEYS[:1_000]]
_NUMBERS = list(range(MAX_FILTER_PARTS))

Case = tuple[str, int, Callable[[MemoryModule, int], object]]


def _made(memory: MemoryModule) -> str:
    return memory.search_memories("made", limit=1)[0].id


def _within(memory: MemoryModule, namespaces: list[str]) -> None:
    with memory.transaction(namespaces=namespaces):
        memory.create_memory("made", "k", {}, "t")


def _exported(memory: MemoryModule, **options: Any) -> Path:
    assert isinstance(memory.backend, SQLiteBackend)
    path = memory.backend.db_path.with_name("exported")
    memory.store.export(path, overwrite=True, **options)
    return path


def _doubled(memory: MemoryModule, tags: list[str]) -> object:
    with memory.transaction():  # else it has a connection of its own
        return memory.find_duplicates(tags=tags)


def _exchanged(memory: MemoryModule, history: list[dict[str, str]] | None, tags: list[str] | None = None) -> None:
    memory.save_conversation_turn("a", "b", history, tags)


def _imported(memory: MemoryModule, namespaces: list[str]) -> None:
    memory.store.import_(_exported(memory, category="made"), namespaces=namespaces, on_conflict="skip")


def _of_each(verb: str, *others: str) -> list[Case]:
    """Return the cases of a verb that takes the filters of a search."""

    def call(memory: MemoryModule, **filters: Any) -> object:
        if verb != "iter_memories":
            return getattr(memory, verb)(*others, **filters)
        with memory.transaction():  # else it has a connection of its own
            return list(memory.iter_memories(**filters))

    most = MAX_FILTER_PARTS - 10
    return [
        (f"{verb} tags", MAX_TAGS, lambda memory, n: call(memory, tags=_TAGS[:n])),
        (f"{verb} tags all", MAX_TAGS, lambda memory, n: call(memory, tags=_TAGS[n - 1 :: -1], tags_match="all")),
        (f"{verb} tags key", MAX_TAGS, lambda memory, n: call(memory, tags=_TAGS[:n], key="key-7")),
        (f"{verb} keys", MAX_NAMED, lambda memory, n: call(memory, keys=_KEYS[:n])),
        (f"{verb} keys tags", MAX_TAGS, lambda memory, n: call(memory, keys=_KEYS[:n], tags=_TAGS[:n])),
        (f"{verb} where", most, lambda memory, n: call(memory, where={"n": {"$in": _NUMBERS[:n]}})),
        (f"{verb} where or", 5_000, lambda memory, n: call(memory, where={"$or": [{"n": each} for each in range(n)]})),
        (f"{verb} where and", 5_000, lambda memory, n: call(memory, where={"$and": [{"n": {"$lt": 30}}] * n})),
    ]


CASES: list[Case] = [
    ("create_memory tags", MAX_TAGS, lambda memory, n: memory.create_memory("made", "k", {}, "t", tags=_TAGS[:n])),
    ("upsert_memory tags", MAX_TAGS, lambda memory, n: memory.upsert_memory("made", "u", {}, "t", tags=_TAGS[:n])),
    ("record_task tags", MAX_TAGS, lambda memory, n: memory.record_task("1", {}, tags=_TAGS[:n])),
    ("update_memory tags", MAX_TAGS, lambda memory, n: memory.update_memory(_made(memory), tags=_TAGS[:n])),
    ("get_memories_by_tags tags", MAX_TAGS, lambda memory, n: memory.get_memories_by_tags(_TAGS[:n])),
    ("get_memories ids", MAX_NAMED, lambda memory, n: memory.get_memories([_made(memory), *_KEYS][:n])),
    *_of_each("search_memories"),
    ("search_memories tags limit", MAX_TAGS, lambda memory, n: memory.search_memories(tags=_TAGS[:n], limit=5)),
    *_of_each("count_memories"),
    *_of_each("iter_memories"),
    *_of_each("recall", "absent"),
    *_of_each("search_text", "absent"),
    ("find_duplicates tags", MAX_TAGS, lambda memory, n: _doubled(memory, _TAGS[:n])),
    ("remember tags", MAX_TAGS, lambda memory, n: memory.remember(f"text {n}", tags=_TAGS[:n])),
    ("record_turn tags", MAX_TAGS, lambda memory, n: memory.record_turn("s", "a", "b", tags=_TAGS[:n])),
    ("save_execution tags", MAX_TAGS, lambda memory, n: memory.save_execution("a", "b", tags=_TAGS[:n])),
    ("save_execution file_locations", 2_000, lambda memory, n: memory.save_execution("a", "b", None, _KEYS[:n])),
    ("save_conversation_turn execution_history", 1_000, lambda memory, n: _exchanged(memory, _HISTORY[:n])),
    ("save_conversation_turn context_tags", MAX_TAGS, lambda memory, n: _exchanged(memory, None, _TAGS[:n])),
    (
        "save_conversation_turn execution_run_ids",
        MAX_NAMED,
        lambda memory, n: memory.save_conversation_turn("a", "b", execution_run_ids=_KEYS[:n]),
    ),
    ("build_context include", 100, lambda memory, n: memory.build_context(include=["preferences"] * n)),
    ("build_context exclude_ids", MAX_NAMED, lambda memory, n: memory.build_context("made", exclude_ids=_KEYS[:n])),
    *_of_each("erase_memories", "absent"),
    *_of_each("delete_memories", "absent"),
    *_of_each("pop_memory", "absent"),
    ("delete_memories ids", MAX_NAMED, lambda memory, n: memory.delete_memories(ids=_KEYS[:n])),
    ("create_memories items", 2_000, lambda memory, n: memory.create_memories(_ITEMS[:n])),
    ("upsert_memories items", 2_000, lambda memory, n: memory.upsert_memories(_ITEMS[:n])),
    ("transaction namespaces", 1_000, lambda memory, n: _within(memory, _KEYS[:n])),
    ("export tags", MAX_TAGS, lambda memory, n: _exported(memory, tags=_TAGS[:n])),
    ("export keys", MAX_NAMED, lambda memory, n: _exported(memory, keys=_KEYS[:n])),
    ("export where", 5_000, lambda memory, n: _exported(memory, where={"n": {"$in": _NUMBERS[:n]}})),
    ("export namespaces", 1_000, lambda memory, n: _exported(memory, namespaces=_KEYS[:n])),
    ("analytics namespaces", 1_000, lambda memory, n: memory.store.analytics(namespaces=_KEYS[:n])),
    ("import_ namespaces", 1_000, lambda memory, n: _imported(memory, _KEYS[:n])),
]


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MemoryModule]:
    """A store of 200 entries, of which twenty have every tag."""
    memory = MemoryModule(storage_dir=tmp_path_factory.mktemp("store"), durability="normal")
    with memory.transaction():
        memory.create_memory("made", "k", {}, "t", tags=_TAGS)
        for number in range(200):
            memory.create_memory(
                "c", f"key-{number}", {"n": number}, "t", tags=_TAGS if number % 10 == 0 else ["other"]
            )
    yield memory
    memory.shutdown()


def _cost(memory: MemoryModule, call: Callable[[MemoryModule, int], object], length: int) -> tuple[int, list[str]]:
    """Return the steps of the database, and its statements, of the cheapest of three calls: a write may tidy up."""
    assert isinstance(memory.backend, SQLiteBackend)
    costs = []
    for _ in range(3):
        with Watch(memory.backend) as watch:
            call(memory, length)
        costs.append((watch.total("SQLITE_STMTSTATUS_VM_STEP"), [each["sql"] for each in watch.statements]))
    return min(costs)


@pytest.mark.parametrize(("length", "call"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_cost_of_a_list_grows_with_its_length_at_most(
    memory: MemoryModule, length: int, call: Callable[[MemoryModule, int], object]
) -> None:
    short, _ = _cost(memory, call, length // _SHORTER)
    long, statements = _cost(memory, call, length)

    assert long <= short * _SHORTER
    assert max(map(len, statements)) < _MOST_TEXT
    assert max(text.count("SELECT") for text in statements) < _MOST_QUERIES


def test_every_verb_that_takes_a_list_is_measured() -> None:
    taken = {
        f"{name} {parameter.name}"
        for kind in (MemoryModule, Store)
        for name, verb in vars(kind).items()
        if not name.startswith("_") and inspect.isfunction(verb)
        for parameter in inspect.signature(verb).parameters.values()
        if any(kind in str(parameter.annotation) for kind in ("Collection[", "Iterable[")) or parameter.name == "where"
    }

    assert {" ".join(name.split()[:2]) for name, _, _ in CASES} == taken
