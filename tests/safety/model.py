"""A memory as a plain dict, the changes that are made to both, and the comparison."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypedDict

from jarvis.persistent_memory import MemoryEntry, MemoryModule

FILES = {"sqlite": "memory.db", "json": "memory.json"}
TAGS = ("red", "green", "blue", "grün", "a b")
UPSERTED = tuple(f"u{number}" for number in range(6))
FAR_KEY = "no such key"

Row = tuple[str, str, tuple[str, ...], str, str | None]
"""Category, value as JSON, tags, entity type and id; the key is the name of the row."""
State = dict[str, Row]
Change = list[Any]
"""["create", key, value, tags] | ["update", key, value, tags] | ["upsert", key, value] | ["delete", key] | ["clear"]"""


class Action(TypedDict):
    """One call, or one transaction of several changes; those of `undone` are taken back before its end."""

    bulk: bool
    changes: list[Change]
    undone: list[Change]


def single(*change: Any) -> Action:
    return {"bulk": False, "changes": [list(change)], "undone": []}


def bulk(changes: Iterable[Change], undone: Iterable[Change] = ()) -> Action:
    return {"bulk": True, "changes": list(changes), "undone": list(undone)}


# --- on the dict -----------------------------------------------------------------------------------


def after(state: State, action: Action) -> State:
    """Return the state that a completed action leaves."""
    state = dict(state)
    for verb, *arguments in action["changes"]:
        if verb == "clear":
            state.clear()
            continue
        key = arguments[0]
        if verb == "delete":
            del state[key]
        elif verb == "create":
            state[key] = row("things", arguments[1], arguments[2], "thing", key)
        elif verb == "update":
            category, _, _, entity_type, entity_id = state[key]
            state[key] = row(category, arguments[1], arguments[2], entity_type, entity_id)
        else:
            tags = state[key][2] if key in state else ()
            state[key] = row("preferences", arguments[1], tags, "user_preference", None)
    return state


def row(category: str, value: Any, tags: Iterable[str], entity_type: str, entity_id: str | None) -> Row:
    return category, json.dumps(value, sort_keys=True), tuple(tags), entity_type, entity_id


def random_action(chance: random.Random, state: State, number: int) -> Action:
    """Return something to do in this state; `number` was not used in it before."""
    kind = chance.random()
    if kind < 0.02:
        return single("clear")
    if kind < 0.75:
        change = _random_change(chance, state, f"k{number}")
        return {"bulk": False, "changes": [change], "undone": []}
    changes = []
    inside = state
    for each in range(chance.choice((2, 5, 40))):
        change = _random_change(chance, inside, f"k{number}.{each}")
        changes.append(change)
        inside = after(inside, bulk([change]))
    undone = [["create", f"k{number}.undone", {"n": number}, []]] if chance.random() < 0.3 else []
    return bulk(changes, undone)


def _random_change(chance: random.Random, state: State, fresh: str) -> Change:
    verb = chance.choice(("create", "create", "create", "update", "upsert", "delete"))
    known = list(state)
    if verb in ("update", "delete") and not known:
        verb = "create"
    value = {"text": random_text(chance), "n": chance.randrange(1 << 40)}
    tags = chance.sample(TAGS, chance.randrange(3))
    if verb == "create":
        return [verb, fresh, value, tags]
    if verb == "upsert":
        return [verb, chance.choice(UPSERTED), value]
    if verb == "delete":
        return [verb, chance.choice(known)]
    return [verb, chance.choice(known), value, tags]


def random_text(chance: random.Random) -> str:
    length = chance.choice((0, 20, 20, 200, 200, 3000, 20000))
    return chance.randbytes(length // 2).hex() + "é\n"


# --- on the memory ---------------------------------------------------------------------------------


class _TakeBackError(Exception):
    pass


def perform(memory: MemoryModule, action: Action, ids: dict[str, str]) -> None:
    """Do the action for real; `ids` holds the id of every key and is kept up to date."""
    if not action["bulk"]:
        _change(memory, action["changes"][0], ids)
        return
    with memory.transaction():
        half = len(action["changes"]) // 2
        for change in action["changes"][:half]:
            _change(memory, change, ids)
        if action["undone"]:
            try:
                with memory.transaction():
                    for change in action["undone"]:
                        _change(memory, change, dict(ids))
                    raise _TakeBackError
            except _TakeBackError:
                pass
        for change in action["changes"][half:]:
            _change(memory, change, ids)


def _change(memory: MemoryModule, change: Change, ids: dict[str, str]) -> None:
    verb, *arguments = change
    if verb == "clear":
        memory.clear_all()
        ids.clear()
    elif verb == "create":
        key, value, tags = arguments
        ids[key] = memory.create_memory("things", key, value, "thing", key, tags, module="writer")
    elif verb == "update":
        key, value, tags = arguments
        assert memory.update_memory(ids[key], value, tags)
    elif verb == "delete":
        assert memory.delete_memory(ids.pop(arguments[0]))
    else:
        key, value = arguments
        ids[key] = memory.upsert_memory("preferences", key, value, "user_preference")


# --- what is there -----------------------------------------------------------------------------------


def entry_row(entry: MemoryEntry) -> Row:
    return row(entry.category, entry.value, entry.tags, entry.entity_type, entry.entity_id)


def ids_of(memory: MemoryModule) -> dict[str, str]:
    return {entry.key: entry.id for entry in memory.list_memories()}


def check_past(memory: MemoryModule) -> None:
    """Replay the feed: it must lead to what is there, and every version before the present one must be known."""
    there: dict[str | None, int | None] = {}
    since: str | None = None
    while page := memory.changes(since, limit=500):
        for change in page:
            before = there.pop(change.memory_id, None)
            if change.operation in ("delete", "clear"):
                assert before == change.version
            else:
                assert change.version == (before or 0) + 1
                there[change.memory_id] = change.version
        since = page[-1].cursor
    entries = memory.list_memories()
    assert there == {entry.id: entry.version for entry in entries}
    for entry in entries:
        known = [revision.version for revision in memory.get_history(entry.id)]
        assert known == list(range(entry.version - 1, max(entry.version - 101, 0), -1))


def contents(memory: MemoryModule) -> State:
    """Return what is stored, read in every way there is; fail if two ways differ or a key is there twice."""
    entries = memory.list_memories()
    state = {entry.key: entry_row(entry) for entry in entries}
    assert len(state) == len(entries), "an entry is there twice"
    dumped = [entry.model_dump() for entry in entries]
    assert [entry.model_dump() for entry in memory.iter_memories()] == dumped
    assert memory.count_memories() == len(entries)
    for entry in entries:
        assert memory.get_memory(entry.id) == entry
        assert memory.get_memory_by_key(entry.key) == entry
    assert memory.get_memory_by_key(FAR_KEY) is None
    for tag in {tag for entry in entries for tag in entry.tags}.union(TAGS):
        assert memory.get_memories_by_tags([tag]) == [entry for entry in entries if tag in entry.tags]
    for category in {entry.category for entry in entries}:
        assert memory.get_memories_by_category(category) == [e for e in entries if e.category == category]
    for entity_type in {entry.entity_type for entry in entries}:
        assert memory.get_memories_by_entity(entity_type) == [e for e in entries if e.entity_type == entity_type]
    return state


# --- stores of the first life --------------------------------------------------------------------------


def first_life_store(directory: Path, backend: str, count: int) -> State:
    """Write a store as the first life did; return what it holds."""
    state: State = {}
    fields = []
    for number in range(count):
        key, value = f"old{number}", {"n": number, "text": "long ago " * (number % 40)}
        tags = [TAGS[number % 3], TAGS[number % 5]] if number % 3 != number % 5 else [TAGS[0]]
        state[key] = row("old times", value, tags, "thing", None if number % 2 else "e")
        stamp = f"2023-05-{1 + number % 28:02}T12:{number % 60:02}:00.{number:06}"
        origin = {"module": "unknown", "task_id": "none"}
        fields.append(
            (
                f"id-{number}",
                "old times",
                key,
                value,
                tags,
                "thing",
                state[key][4],
                stamp,
                {**origin, "created_at": stamp},
            )
        )
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / FILES[backend]
    if backend == "json":
        names = ("id", "category", "key", "value", "tags", "entity_type", "entity_id", "timestamp", "provenance")
        entries = {each[0]: dict(zip(names, each, strict=True)) for each in fields}
        path.write_text(json.dumps({"entries": entries, "updated_at": "2023-06-01T00:00:00"}, indent=2))
        return state
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TABLE memories (id TEXT PRIMARY KEY, category TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, "
        "tags TEXT NOT NULL, entity_type TEXT NOT NULL, entity_id TEXT, timestamp TEXT NOT NULL, "
        "provenance TEXT NOT NULL, created_at TEXT NOT NULL)"
    )
    connection.execute("CREATE INDEX idx_category ON memories (category)")
    for each in fields:
        texts = [json.dumps(part) if isinstance(part, (dict, list)) else part for part in each]
        connection.execute(f"INSERT INTO memories VALUES ({','.join('?' * 10)})", (*texts, each[7]))
    connection.commit()
    connection.close()
    return state
