"""No verb answers any input with an error that is not ours: ``except JarvisError`` catches them all.

Verbs and their arguments are found by inspection. A new verb whose arguments have no good example here fails the test.
"""

from __future__ import annotations

import asyncio
import enum
import inspect
import itertools
import json
import operator
import sqlite3
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from jarvis.async_memory import AsyncMemoryModule, AsyncStore
from jarvis.config import ConfigLoader, JarvisConfig, StorageConfig
from jarvis.conformance.values import exploding, nested
from jarvis.container import Container
from jarvis.errors import CorruptStoreError, JarvisError
from jarvis.json_backend import JSONBackend
from jarvis.keys import KeyFile, KeyFunction
from jarvis.model.cache_limits import CacheLimits
from jarvis.model.entry import MemoryEntry
from jarvis.model.postgresql_config import PostgreSQLConfig
from jarvis.model.query import MemoryQuery
from jarvis.persistent_memory import CategoryPolicy, HistoryPolicy, MemoryModule, RetentionRule
from jarvis.postgresql_backend import PostgreSQLBackend
from jarvis.sealing import SealedBackend
from jarvis.services.store import Store
from jarvis.sqlite_backend import SQLiteBackend
from jarvis.storage_backend import StorageBackend
from tests.test_former_names import MOVED_TO_STORE

from .postgresql import a_database


class _Colour(enum.Enum):
    RED = "red"


class _Name(str):
    pass


class _Nowhere(tzinfo):
    """A time zone that does not know where it is."""

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return None

    dst = tzname = utcoffset  # type: ignore[assignment]  # hostile


class _Anything:
    def __init__(self, *_: object) -> None:
        pass


def _endless(kind: type) -> Any:
    part: Any = {} if kind is dict else []
    part.update(a=part) if kind is dict else part.append(part)
    return part


def _deep(kind: type, depth: int = 100_000) -> Any:
    part: Any = 1
    for _ in range(depth):
        part = {"a": part} if kind is dict else kind([part])
    return part


FIRST, LAST = datetime.min, datetime.max

ANYTHING: dict[str, Any] = {
    "None": None,
    "True": True,
    "0": 0,
    "-1": -1,
    "2**31": 2**31,
    "2**63": 2**63,
    "-2**63 - 1": -(2**63) - 1,
    "10**5000": 10**5000,
    "1.5": 1.5,
    "1e308": 1e308,
    "nan": float("nan"),
    "inf": float("inf"),
    "-inf": float("-inf"),
    "complex": 1j,
    "a signalling decimal": Decimal("sNaN"),
    "empty text": "",
    "text": "x",
    "NUL": "a\0b",
    "half an emoji": "\ud83d",
    "long text": "é" * 3_000,
    "a subclass of str": _Name("x"),
    "bytes": b"\xff",
    "bytearray": bytearray(b"x"),
    "list": [],
    "list of None": [None],
    "list of half an emoji": ["\ud83d"],
    "list of lists": [[]],
    "many": ["x"] * 1_000,
    "tuple": (1,),
    "set": {1},
    "dict": {},
    "dict of a number": {1: 1},
    "dict of half an emoji": {"\ud83d": "\ud83d"},
    "dict of an object": {"a": object()},
    "an operator": {"$gt": 1},
    "operators": {"a": {"$gt": []}, "b": {"$in": 1}},
    "ordered dict": OrderedDict(a=1),
    "read-only dict": types.MappingProxyType({"a": 1}),
    "endless dict": _endless(dict),
    "endless list": _endless(list),
    "deep dict": _deep(dict),
    "deep list": _deep(list),
    "deep tuple": _deep(tuple),
    "a dict as deep as may be": nested(100),
    "a dict too deep": nested(101),
    "a dict of a deep list": {"a": _deep(list)},
    "exploding": exploding(dict),
    "exploding list": exploding(list),
    "object": object(),
    "class": _Anything,
    "function": lambda *_: None,
    "function of a number": lambda *_: 1,
    "generator": (number for number in range(3)),
    "member": _Colour.RED,
    "date": date(2026, 3, 1),
    "first": FIRST,
    "last": LAST,
    "first in UTC": FIRST.replace(tzinfo=UTC),
    "last in UTC": LAST.replace(tzinfo=UTC),
    "first far in the east": FIRST.replace(tzinfo=timezone(timedelta(hours=14))),
    "last far in the west": LAST.replace(tzinfo=timezone(timedelta(hours=-14))),
    "nowhere": LAST.replace(tzinfo=_Nowhere()),
    "no zone": datetime(2026, 3, 1, tzinfo=tzinfo()),  # type: ignore[abstract]  # hostile
    "shortest": timedelta.min,
    "longest": timedelta.max,
    "path": Path("x"),
    "path with NUL": Path("a\0b"),
    "path with half an emoji": Path("\ud83d"),
    "long path": "x/" * 3_000,
    "long name": "x" * 300,
    "unknown home": "~no-such-user/x",
    "entry": MemoryEntry("1", "c", "k", {}),
    "entry of nothing": MemoryEntry(None, None, None, None, None, None, 1, None, None, None, None, 1),  # type: ignore[arg-type]  # hostile
    "query": MemoryQuery(),
}


class _OwnCodeError(Exception):
    pass


def _own(kind: type, *names: str) -> type:
    """Return a subclass whose methods of these names raise an error of its own."""

    def refuse(*_: object, **__: object) -> Any:
        raise _OwnCodeError

    return type(f"Own{kind.__name__}", (kind,), dict.fromkeys(names, refuse))


def _looks_like(kind: type) -> Any:
    """Return an object that only says it is of a kind, as ``Mock(spec=…)`` does."""
    return type("Stand", (), {"__class__": property(lambda _: kind)})()


_EVERY = tuple(
    f"__{name}__"
    for name in (
        *("eq", "hash", "str", "repr", "bool", "len", "iter", "contains", "lt", "le", "gt", "ge"),
        *("getitem", "index", "int", "float", "fspath", "add", "radd"),
    )
)
_OwnZone = _own(tzinfo, "utcoffset", "dst", "tzname")
_WrongZone = type("WrongZone", (tzinfo,), dict.fromkeys(("utcoffset", "dst", "tzname"), lambda *_: 5))
_Tag = type("Tag", (str,), {"__eq__": lambda one, other: str.__eq__(one, other)})  # which makes it unhashable
_items = _own(Collection, "__iter__", "__len__", "__contains__")

OWN: dict[str, Any] = {
    "object": _own(object, *_EVERY)(),
    "str": _own(str, *_EVERY, "encode", "isascii", "split", "lower", "strip")("x"),
    "a text without a hash": _Tag("x"),
    "empty str": _own(str, *_EVERY)(""),
    "int": _own(int, *_EVERY)(1),
    "float": _own(float, *_EVERY)(1.0),
    "dict": _own(dict, *_EVERY, "items", "keys", "values", "get")(a=1),
    "list": _own(list, *_EVERY)(["x"]),
    "tuple": _own(tuple, *_EVERY)(("x",)),
    "set": _own(set, *_EVERY)(["x"]),
    "collection": _items(),
    "datetime": _own(datetime, *_EVERY, "utcoffset", "astimezone", "isoformat", "replace")(2026, 3, 1),
    "aware datetime": _own(datetime, *_EVERY, "utcoffset", "astimezone", "isoformat")(2026, 3, 1, tzinfo=UTC),
    "timedelta": _own(timedelta, *_EVERY, "total_seconds")(1),
    "zone": datetime(2026, 3, 1, tzinfo=_OwnZone()),
    "zone of numbers": datetime(2026, 3, 1, tzinfo=_WrongZone()),
    "time in zone": time(1, tzinfo=_OwnZone()),
    "in a dict": {"a": _own(dict, *_EVERY, "items")(a=1)},
    "operand": {"a": {"$gt": datetime(2026, 3, 1, tzinfo=_OwnZone())}},
    "operands": {"a": {"$in": _items()}},
    "entry": MemoryEntry("1", "c", "k", {}, timestamp=datetime(2026, 3, 1, tzinfo=_OwnZone())),
    "entry far away": MemoryEntry("1", "c", "k", {}, position=(10**5000, 1)),
    "entry of no place": MemoryEntry("1", "c", "k", {}, position=("a",)),  # type: ignore[arg-type]  # hostile
    **{f"like {kind.__name__}": _looks_like(kind) for kind in (str, int, dict, list, datetime, timedelta, MemoryEntry)},
}

ANYTHING |= OWN

GOOD: dict[str, Any] = {
    "about": ("person", "maria"),
    "after": None,
    "as_of": None,
    "ascending": None,
    "assistant_response": "Good morning",
    "batch": 10,
    "category": "tasks",
    "category_prefix": None,
    "change": lambda value: value,
    "changes": {"a": 1},
    "code_generated": "print(1)",
    "context_tags": ["chat"],
    "counts": False,
    "created_at": None,
    "cursor": "1",
    "default": None,
    "description": "a file counter",
    "details": {"mood": "glad"},
    "device_info": {"os": "linux"},
    "directory": "copies",
    "dry_run": False,
    "entity_id": "1",
    "entity_type": "task",
    "erase": False,
    "error_message": None,
    "examples": 1,
    "exclude_ids": (),
    "execution_history": [{"user_request": "count", "description": "a counter"}],
    "execution_id": "run-1",
    "execution_run_ids": ["run-1"],
    "execution_time_ms": 1.5,
    "expires_at": None,
    "explain": False,
    "file_locations": ["counter.py"],
    "from_version": 1,
    "half_life": None,
    "history": True,
    "id": None,
    "idle_seconds": 0.0,
    "ids": None,
    "if_absent": False,
    "if_version": None,
    "include": ["preferences", "recalled"],
    "include_archived": False,
    "incomplete": False,
    "index": False,
    "interval": 60,
    "items": [{"category": "tasks", "key": "k", "value": {"a": 1}, "entity_type": "task"}],
    "keep_daily": None,
    "keep_weekly": None,
    "key": "k",
    "key_prefix": None,
    "keys": (),
    "language": None,
    "background": False,
    "top": 5,
    "near": True,
    "limit": 10,
    "max_tokens": 500,
    "memory_id": "absent",  # or one that is there, see `_call`
    "metadata": {"a": 1},
    "min_score": 0.0,
    "module": None,
    "namespace": "alice",
    "namespaces": ["other"],
    "num_turns": 5,
    "offset": 0,
    "on_conflict": "skip",
    "on_duplicate": "keep",
    "on_unstorable": "repr",
    "order": "changed",
    "output": "1",
    "overwrite": True,
    "path": "exported",
    "plain_text": False,
    "prefix": None,
    "progress": None,
    "query": "who moves?",
    "question": "who moves?",
    "reason": None,
    "session_id": "monday",
    "since": None,
    "sliding": False,
    "slot_id": 1,
    "source": KeyFunction(lambda: b"k" * 32),
    "speaker": "Maria",
    "steps": 1,
    "success": True,
    "successful_only": False,
    "tag": "x",
    "tags": None,
    "tags_match": "any",
    "task_data": {"status": "completed"},
    "task_id": "1",
    "text": "Maria moves to Lisbon in May",
    "threshold": 0.8,
    "timestamp": None,
    "to": "repaired",
    "to_version": 1,
    "token_counter": len,
    "ttl": None,
    "until": None,
    "user_message": "Hello",
    "user_request": "count my files",
    "value": {"a": 1},
    "version": 1,
    "where": None,
}
"""A good argument for each parameter of a verb."""

Arguments = dict[str, Any]


def _verbs(kind: type, part: type) -> dict[str, list[str]]:
    """Return the public verbs of a class, and of the store that it has, each with its parameters."""
    others = {"of", "run", "in_memory", "table", *MOVED_TO_STORE}
    verbs = {name: verb for name, verb in inspect.getmembers(kind, callable) if name not in others}
    verbs |= {f"store.{name}": verb for name, verb in inspect.getmembers(part, callable) if name[0] != "_"}
    return {
        name: [parameter for parameter in inspect.signature(verb).parameters if parameter != "self"]
        for name, verb in verbs.items()
        if not name.startswith("_")
    }


VERBS = _verbs(MemoryModule, Store)


def test_every_parameter_of_every_verb_has_a_good_argument() -> None:
    asked = {parameter for parameters in VERBS.values() for parameter in parameters}

    assert asked == set(GOOD)
    assert VERBS.keys() == _verbs(AsyncMemoryModule, AsyncStore).keys()


def _attempts(verb: str, memory_id: str) -> Iterator[tuple[str, Arguments]]:
    """Yield what a verb is called with: each time one argument is hostile, and all others are good."""
    good = {parameter: GOOD[parameter] for parameter in VERBS[verb]}
    if "memory_id" in good:
        good["memory_id"] = memory_id
    if "where" in good:
        good["keys"] = None  # those of a search, not of an encryption
    elif "ids" in good:
        good["ids"] = [memory_id]
    if "ttl" in good and verb == "touch_memory":
        good["ttl"] = 60
    yield "nothing", good
    for parameter, (name, held) in itertools.product(good, ANYTHING.items()):
        arguments = {**good, parameter: held}
        if parameter == "expires_at":
            arguments.pop("ttl", None)
        yield f"{parameter}: {name}", arguments


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with a_database() as dsn:
        yield dsn


@pytest.fixture(params=["sqlite", "encrypted", "json", "postgresql", "sealed"])
def backend(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StorageBackend:
    monkeypatch.chdir(tmp_path)
    if request.param in ("postgresql", "sealed"):
        dsn = request.getfixturevalue("server" if request.param == "postgresql" else "dsn")
        plain = PostgreSQLBackend(dsn, durability="normal", namespace=tmp_path.name)
        return plain if request.param == "postgresql" else SealedBackend(plain, keys=[lambda: bytes(32)])
    if request.param == "json":
        return JSONBackend("memory.json", durability="normal")
    keys: Any = {"encryption": "on", "keys": [lambda: bytes(32)]} if request.param == "encrypted" else {}
    return SQLiteBackend("memory.db", durability="normal", **keys)


@pytest.fixture
def memory(backend: StorageBackend) -> Iterator[MemoryModule]:
    memory = MemoryModule(backend, retention=[RetentionRule(category="none", max_entries=1)])
    memory.create_memory("tasks", "k", {"a": 1}, "task", "1", ["x"])
    yield memory
    memory.shutdown()


def _there(memory: MemoryModule) -> str:
    """Return the id of a memory that is there."""
    return memory.upsert_memory("kept", "kept", {"a": {"b": 1}}, tags=["x"])


def _used(verb: str, memory: MemoryModule, result: Any) -> None:
    """Use what a verb returned as far as it goes."""
    if verb == "watch":
        memory.create_memory("c", "k", {}, "t")
        next(result)
        result.close()
    elif inspect.isgenerator(result) or isinstance(result, Iterator):
        list(result)
    elif verb in ("acting_as", "transaction"):
        with result:
            pass
    elif isinstance(result, MemoryModule):
        result.list_memories()
    elif verb == "sweep_every":
        result.stop()


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_raises_nothing_but_our_errors(verb: str, memory: MemoryModule) -> None:
    foreign = []
    for what, arguments in _attempts(verb, _there(memory)):
        try:
            _used(verb, memory, operator.attrgetter(verb)(memory)(**arguments))
        except JarvisError:
            pass
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            foreign.append(f"{what}: {type(error).__name__}: {error}"[:200])

    assert not foreign, "\n".join(foreign)
    assert memory.list_memories() is not None


async def _next(result: Any) -> Any:
    return await anext(result, None)  # it may end before the change is made


async def _awaited(verb: str, memory: AsyncMemoryModule, result: Any) -> None:
    """Use what an asynchronous verb returned as far as it goes."""
    if inspect.isawaitable(result):
        await result
    elif verb == "watch":
        step = asyncio.ensure_future(_next(result))
        while not step.done():
            await memory.create_memory("c", "k", {}, "t")
        await step
        await result.aclose()
    elif inspect.isasyncgen(result):
        [entry async for entry in result]
    elif verb == "transaction":
        async with result:
            pass
    elif verb == "acting_as":
        with result:
            pass
    elif isinstance(result, AsyncMemoryModule):
        await result.list_memories()
    elif verb == "sweep_every":
        result.stop()


@pytest.mark.parametrize("verb", VERBS)
def test_an_awaited_verb_raises_nothing_but_our_errors(verb: str, memory: MemoryModule) -> None:
    async def attempt() -> list[str]:
        awaited, foreign = AsyncMemoryModule.of(memory), []
        for what, arguments in _attempts(verb, _there(memory)):
            try:
                await _awaited(verb, awaited, operator.attrgetter(verb)(awaited)(**arguments))
            except JarvisError:
                pass
            except Exception as error:  # noqa: BLE001 - that is what is looked for
                foreign.append(f"{what}: {type(error).__name__}: {error}"[:200])
        await awaited.shutdown()
        return foreign

    foreign = asyncio.run(attempt())

    assert not foreign, "\n".join(foreign)


# --- what makes a module, and what it is made of -------------------------------------------------

MAKERS: dict[str, tuple[Callable[..., Any], Callable[[Any], Any]]] = {
    "postgresql": (PostgreSQLBackend, lambda backend: (backend.list_all(), backend.shutdown())),
    "server": (PostgreSQLConfig, repr),
    "role": (lambda dsn, role: PostgreSQLBackend(dsn).admit(role), lambda _: None),
    "former role": (lambda dsn, role: PostgreSQLBackend(dsn).expel(role), lambda _: None),
    "cache": (CacheLimits, repr),
    "sealed": (
        partial(SealedBackend, SQLiteBackend("sealed.db", durability="normal"), keys=[lambda: bytes(32)]),
        lambda backend: (backend.list_all(), backend.shutdown()),
    ),
    "module": (MemoryModule, lambda memory: (memory.list_memories(), memory.shutdown())),
    "async module": (AsyncMemoryModule, lambda memory: asyncio.run(memory.list_memories())),
    "sqlite": (SQLiteBackend, lambda backend: (backend.list_all(), backend.shutdown())),
    "json": (JSONBackend, lambda backend: (backend.list_all(), backend.shutdown())),
    "settings": (StorageConfig, lambda _: None),
    "all settings": (JarvisConfig, lambda _: None),
    "loader": (ConfigLoader, lambda loader: loader.load()),
    "query": (MemoryQuery, lambda query: query.matches(MemoryEntry("1", "c", "k", {}))),
    "history": (HistoryPolicy, lambda _: None),
    "rule": (lambda **fields: RetentionRule(**{"category": "c", "max_entries": 1, **fields}), lambda _: None),
    "policy": (lambda **fields: CategoryPolicy(**{"category": "c", "max_entries": 1, **fields}), lambda _: None),
    "container": (
        lambda config_path=None: Container().get_memory_module(config_path),
        lambda memory: memory.shutdown(),
    ),
    "key file": (lambda path="key": KeyFile(path), lambda _: None),
    "new key file": (lambda path="key": KeyFile.create(path), lambda _: None),
}


@pytest.mark.filterwarnings("ignore::jarvis.errors.NoRecoveryWarning")
@pytest.mark.parametrize("maker", MAKERS)
def test_what_is_made_with_a_hostile_argument_raises_nothing_but_our_errors(
    maker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    make, use = MAKERS[maker]
    parameters = list(inspect.signature({"rule": RetentionRule, "policy": CategoryPolicy}.get(maker, make)).parameters)
    first = {"sqlite": {"db_path": "memory.db"}, "json": {"file_path": "memory.json"}}.get(maker, {})
    if "dsn" in parameters:
        first = {"dsn": request.getfixturevalue("server"), **({"role": "pg_monitor"} if "role" in parameters else {})}

    foreign = []
    for parameter, (name, held) in itertools.product(parameters, ANYTHING.items()):
        try:
            use(make(**{**first, parameter: held}))
        except JarvisError:
            pass
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            foreign.append(f"{parameter}: {name}: {type(error).__name__}: {error}"[:200])

    assert not foreign, "\n".join(foreign)


def _entry_with(field: str, held: Any) -> MemoryEntry:
    entry = MemoryEntry("1", "c", "k", {})
    setattr(entry, field, held)
    return entry


def test_an_entry_of_hostile_parts_raises_nothing_but_our_errors(backend: StorageBackend) -> None:
    backend.create(MemoryEntry("kept", "c", "k", {}))

    foreign = []
    for field, (name, held) in itertools.product(MemoryEntry.__struct_fields__, ANYTHING.items()):
        entry = _entry_with(field, held)
        for what in (backend.create, backend.update, MemoryEntry.model_dump, _json_dump):
            try:
                what(entry)
            except JarvisError:
                pass
            except Exception as error:  # noqa: BLE001 - that is what is looked for
                foreign.append(f"{what.__name__}, {field}: {name}: {type(error).__name__}: {error}"[:200])
        if backend.read("1") is not None:
            backend.delete("1")
    backend.shutdown()

    assert not foreign, "\n".join(foreign)


def _json_dump(entry: MemoryEntry) -> dict[str, Any]:
    return entry.model_dump(mode="json")


# --- little stack ----------------------------------------------------------------------------------


def _with_frames_left(frames: int, call: Callable[[], Any]) -> str:
    """Return what becomes of a call that has so many frames of the stack left."""
    depth, frame = 0, sys._getframe()
    while frame.f_back is not None:
        depth, frame = depth + 1, frame.f_back

    def down(more: int) -> Any:
        return down(more - 1) if more > 0 else call()

    try:
        down(sys.getrecursionlimit() - depth - frames)
    except JarvisError as error:
        return type(error).__name__
    except RecursionError:
        return "RecursionError"
    return "done"


@pytest.mark.parametrize("kind", [dict, list, tuple])
def test_deep_values_and_filters_on_a_deep_stack_are_our_errors(memory: MemoryModule, kind: type) -> None:
    memory_id = _there(memory)
    deep: dict[str, Any] = nested(99, kind=kind)
    calls: dict[str, Callable[[Any], Any]] = {
        "create": lambda value: memory.create_memory("c", "k", value, "t"),
        "upsert": lambda value: memory.upsert_memory("c", "k", value),
        "update": lambda value: memory.update_memory(memory_id, value),
        "merge": lambda value: memory.merge_memory(memory_id, value),
        "where": lambda value: memory.search_memories(where=value),
        "equal": lambda value: memory.search_memories(where={"x": {"$eq": value}}),
        "dump": lambda value: MemoryEntry("1", "c", "k", value).model_dump(),
        "json dump": lambda value: MemoryEntry("1", "c", "k", value).model_dump(mode="json"),
    }
    for name, call in calls.items():
        outcomes = set()
        for frames in range(40, 440, 10):
            memory.update_memory(memory_id, {})
            memory.upsert_memory("c", "k", {})
            if _with_frames_left(frames, partial(call, {})) != "RecursionError":
                outcomes.add(_with_frames_left(frames, partial(call, deep)))
        assert "RecursionError" not in outcomes, name
        assert len(outcomes) > 1 or name in ("where", "equal"), name


def _reopened(memory: MemoryModule) -> StorageBackend:
    memory.shutdown()
    return memory.backend


READERS: dict[str, Callable[[MemoryModule, str], Any]] = {
    "get": lambda memory, memory_id: memory.get_memory(memory_id),
    "by key": lambda memory, _: memory.get_memory_by_key("kept"),
    "list": lambda memory, _: memory.list_memories(),
    "search": lambda memory, _: memory.search_memories(where={"b": 1}),
    "iterate": lambda memory, _: list(memory.iter_memories()),
    "count": lambda memory, _: memory.count_memories(where={"b": 1}),
    "history": lambda memory, memory_id: memory.get_history(memory_id),
    "difference": lambda memory, memory_id: memory.diff_memory(memory_id, 1, 2),
    "as of": lambda memory, _: memory.search_memories(as_of=list(memory.changes())[-2].timestamp),
    "changes": lambda memory, _: list(memory.changes(since=None)),
    "modify": lambda memory, memory_id: memory.modify_memory(memory_id, lambda value: value),
    "touch": lambda memory, memory_id: memory.touch_memory(memory_id, ttl=60),
    "restore": lambda memory, memory_id: memory.restore_memory(memory_id, 1),
    "undo": lambda memory, memory_id: memory.undo(memory_id),
    "open": lambda memory, _: MemoryModule(_reopened(memory)).list_memories(),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("size", [0, 3_000])
@pytest.mark.parametrize("kind", [dict, tuple])
def test_what_is_deep_is_read_or_is_our_error_on_a_deep_stack_and_never_damage(
    memory: MemoryModule, kind: type, size: int, name: str
) -> None:
    memory_id = memory.create_memory("c", "kept", {**nested(99, kind=kind), "text": "x" * size}, "t")
    memory.update_memory(memory_id, {**nested(99, kind=kind), "text": "y" * size})
    read = partial(READERS[name], memory, memory_id)

    outcomes = {_with_frames_left(frames, read) for frames in range(45, 450, 5)}

    assert outcomes & {"StackFullError", "InvalidEntryError", "done"}
    assert not outcomes & {"RecursionError", "CorruptStoreError", "InvalidSettingError"}
    assert _with_frames_left(700, read) == "done"
    assert memory.get_memory(memory_id) is not None


def test_a_record_in_words_of_a_deep_result_is_our_error_on_a_deep_stack(memory: MemoryModule) -> None:
    result = nested(98, kind=tuple)
    record = partial(memory.record_task, "1", {"result": result, "other": object()}, on_unstorable="repr")

    assert {_with_frames_left(frames, record) for frames in range(45, 700, 5)} == {"InvalidEntryError", "done"}


def test_a_file_that_is_nested_deeper_than_anything_of_ours_is_damage(tmp_path: Path) -> None:
    deep = "[" * 5_000 + "]" * 5_000
    entry = MemoryEntry("1", "c", "k", {"a": "HERE"}).model_dump(mode="json")
    first_life = {name: held for name, held in entry.items() if name not in ("version", "expires_at", "position")}
    for text in (
        deep,
        json.dumps({"entries": {"1": {**first_life, "timestamp": "2026-03-01T12:00:00"}}}).replace('"HERE"', deep),
    ):
        (tmp_path / "memory.json").write_text(text)
        with pytest.raises(CorruptStoreError, match=r"deeper|holds no object"):  # as far as this Python reads it
            JSONBackend(tmp_path / "memory.json").bootstrap()

    path = tmp_path / "memory.db"
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TABLE memories (id TEXT PRIMARY KEY, category TEXT, key TEXT, value TEXT, tags TEXT, entity_type TEXT,"
        " entity_id TEXT, timestamp TEXT, provenance TEXT, created_at TEXT)"
    )
    row = ("1", "c", "k", f'{{"a": {deep}}}', "[]", "t", None, "2026-03-01T12:00:00", "{}", "")
    connection.execute("INSERT INTO memories VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    connection.commit()
    connection.close()
    with pytest.raises(CorruptStoreError, match="row 1 of table memories"):
        SQLiteBackend(path).bootstrap()
