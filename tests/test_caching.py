"""A cache gives the answers of the backend that it wraps: never an outdated one, and never its own memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from jarvis import caching
from jarvis.async_memory import AsyncMemoryModule
from jarvis.caching import CachedBackend
from jarvis.capabilities import BacksUp
from jarvis.conformance.fixtures import FAR, NOON, FakeClock, an_entry
from jarvis.errors import InvalidSettingError, KeyUnavailableError, UnsupportedError
from jarvis.json_backend import JSONBackend
from jarvis.keys import KeyFunction
from jarvis.model.entry import MemoryEntry
from jarvis.model.listing import Listing
from jarvis.model.marks import ABSENT
from jarvis.model.query import MemoryQuery
from jarvis.model.revision import Signature
from jarvis.persistent_memory import MemoryModule
from jarvis.postgresql_backend import PostgreSQLBackend
from jarvis.sqlite_backend import SQLiteBackend
from jarvis.storage_backend import BackendWrapper, StorageBackend

from .plain_sqlite import PlainBackend
from .postgresql import a_database
from .test_wrapping import VERBS

CANARY = "canary-7f3a"
LIBRARY = str(Path(caching.__file__).parent)

Open = Callable[[], Any]


def a_key() -> bytes:
    return bytes(range(32))


class Asked(BackendWrapper):
    """Counts the questions that reach the backend, of all handles together."""

    def __init__(self, wrapped: StorageBackend) -> None:
        super().__init__(wrapped)
        self.questions: Counter[str] = Counter()


def _counting(verb: str) -> Callable[..., Any]:
    def ask(self: Asked, *args: Any) -> Any:
        self.questions[verb] += 1
        return getattr(self.wrapped, verb)(*args)

    return ask


QUESTIONS: dict[str, Callable[[Any], Any]] = {
    "read": lambda backend: backend.read("1"),
    "read_many": lambda backend: backend.read_many(["1", "absent"]),
    "newest_of_key": lambda backend: backend.newest_of_key("theme"),
    "last_written": lambda backend: backend.last_written("preferences", "theme"),
    "select": lambda backend: backend.select(MemoryQuery(where={"mode": "dark"}, since=NOON, limit=5)),
    "count": lambda backend: backend.count(MemoryQuery(entity_id="user-1")),
    "list_names": lambda backend: backend.list_names(Listing(field="tag", counts=True)),
}
"""A question to each verb whose answers are kept."""

for _verb in QUESTIONS:
    setattr(Asked, _verb, _counting(_verb))


@pytest.fixture(params=["sqlite", "json", "postgresql"])
def open_backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Return a function that opens a backend of its own on one store."""
    if request.param == "sqlite":
        yield partial(SQLiteBackend, tmp_path / "memory.db", durability="normal")
    elif request.param == "json":
        yield partial(JSONBackend, tmp_path / "memory.json", durability="normal")
    else:
        with a_database() as dsn:
            yield partial(PostgreSQLBackend, dsn, durability="normal", pool_size=3)


@pytest.fixture
def asked(open_backend: Open) -> Asked:
    backend = Asked(open_backend())
    backend.create(an_entry())
    return backend


@pytest.fixture
def cached(asked: Asked) -> CachedBackend:
    return CachedBackend(asked)


@pytest.fixture
def time_passes(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that moves the monotonic clock of the caches on."""
    now = [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


def held(backend: CachedBackend) -> bytes:
    """Return all that a cache holds in memory."""
    slots = backend._kept.shelf._slots
    return b"".join([key + slot.packed for key, slot in slots.items()])


# --- what is kept --------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", QUESTIONS)
def test_a_question_that_is_asked_again_is_answered_from_memory(cached: CachedBackend, asked: Asked, verb: str) -> None:
    first = QUESTIONS[verb](cached)

    again = QUESTIONS[verb](cached)

    assert first
    assert again == first == QUESTIONS[verb](asked.wrapped)
    assert asked.questions == {verb: 1}


CHANGING = {
    *("create", "create_many", "update", "update_if_changed", "recreate", "delete", "discard", "clear", "load"),
    *("mend_dates", "transaction", "change", "shutdown"),
}
PASSED_ON = {
    *("iterate", "explain", "as_of", "revisions", "changes", "changes_since", "first_position", "last_position"),
    *("size_of", "beyond", "slide", "whole_memories", "known_since", "all_namespaces"),
    *("findings", "salvage", "empty_at", "tallies", "sizes"),
    *("candidates", "text_language", "rebuild_index", "index_findings"),
    *("pending", "count_vectors", "put_vectors", "vectors", "codes_of", "entries_at"),
    *("own_position", "newest_cursor", "pulse", "list_namespaces", "last_moment", "key_slots", "prepare", "moment"),
    *("sign", "announce", "complete", "bootstrap", "prune", "purge_expired", "back_up", "recompress", "version"),
    *("erase", "finish_erasing", "add_key_slot", "remove_key_slot", "encrypt", "decrypt", "rotate"),
}


def test_a_cache_knows_of_each_verb_what_it_does() -> None:
    own = {name for name in vars(CachedBackend) if name in VERBS}

    assert QUESTIONS.keys() | {"query", "list_all"} | CHANGING == own
    assert own | PASSED_ON == VERBS


def test_every_field_of_an_entry_is_kept(cached: CachedBackend, asked: Asked) -> None:
    cached.update(an_entry(expires_at=FAR, ttl=timedelta(days=1), sliding=True))
    stored, blank = asked.wrapped.read("1"), MemoryEntry("", "", "", {})
    assert stored is not None

    kept = [cached.read("1") for _ in range(2)][1]

    for name in MemoryEntry.__struct_fields__:
        assert getattr(kept, name) == getattr(stored, name)
        assert getattr(stored, name) != getattr(blank, name), f"{name}: give the entry another one"


def test_an_absent_entry_is_kept_until_it_is_there(cached: CachedBackend, asked: Asked) -> None:
    assert cached.read("2") is cached.read("2") is cached.newest_of_key("absent") is cached.newest_of_key("absent")
    assert asked.questions == {"read": 1, "newest_of_key": 1}

    asked.wrapped.create(an_entry("2", key="absent"))

    assert cached.read("2") == cached.newest_of_key("absent") == an_entry("2", key="absent")


def test_an_entry_that_is_returned_is_a_copy(cached: CachedBackend) -> None:
    for _ in range(2):
        entries = [*cached.list_all(), *cached.query(key="theme"), cached.read("1")]
        assert entries == [an_entry()] * 3
        for entry in filter(None, entries):
            entry.value["mode"] = "light"
            entry.tags.clear()
            entry.provenance.clear()

    assert cached.read("1") == an_entry()


def test_one_cache_serves_all_namespaces_and_each_sees_its_own(cached: CachedBackend, asked: Asked) -> None:
    alice = cached.for_namespace("alice")

    assert [cached.read("1"), alice.read("1"), alice.count(MemoryQuery())] == [an_entry(), None, 0]
    assert [cached.read("1"), alice.read("1"), alice.count(MemoryQuery())] == [an_entry(), None, 0]
    assert asked.questions == {"read": 2, "count": 1}


def test_questions_that_are_equal_in_python_and_differ_are_told_apart(open_backend: Open) -> None:
    cached = CachedBackend(open_backend())
    kinds: list[Any] = [1, True, 0, False, 1.0, "1", None, [1], [True]]
    for number, kind in enumerate(kinds):
        cached.create(an_entry(f"{number}", value={"n": kind}, entity_id=None if number else "True"))

    for query in (
        *(MemoryQuery(where={"n": kind}) for kind in kinds),
        *(MemoryQuery(entity_id=entity) for entity in ("True", ABSENT, None)),
        *(MemoryQuery(**{name: NOON}) for name in ("since", "until")),  # type: ignore[arg-type]  # two of its filters
        *(MemoryQuery(after=cached.read(f"{number}")) for number in range(3)),
        MemoryQuery(after=cached.read("1"), order="key"),
    ):
        for _ in range(2):
            assert cached.select(query) == cached.wrapped.select(query)
            assert cached.count(query) == cached.wrapped.count(query)


def test_what_may_mean_anything_is_asked_each_time(cached: CachedBackend, asked: Asked) -> None:
    class Text(str):
        __slots__ = ()

    class Own(MemoryQuery, frozen=True, kw_only=True):
        pass

    class OwnListing(Listing, frozen=True, kw_only=True):
        pass

    for _ in range(2):
        assert cached.read(Text("1")) == asked.wrapped.read(Text("1"))
        assert cached.select(Own()) == [an_entry()]
        assert cached.list_names(OwnListing(field="category")) == {"preferences": 1}
        assert cached.count(MemoryQuery(where={"mode": {"$lt": datetime.now(UTC)}})) == 0

    assert asked.questions == {"read": 2, "select": 2, "list_names": 2, "count": 2}


def test_streams_and_explanations_and_the_past_are_asked_each_time(cached: CachedBackend, asked: Asked) -> None:
    memory = MemoryModule(storage_backend=cached)
    for _ in range(2):
        assert [entry.id for entry in memory.iter_memories()] == ["1"]
        assert memory.search_memories(explain=True).returned == 1
        assert memory.get_memory("1", as_of=datetime(2100, 1, 1, tzinfo=UTC)) == an_entry()

    assert held(cached) == b""


class Foreign(Asked):
    """Returns entries in forms that a store of ours does not have."""

    def select(self, query: MemoryQuery) -> list[MemoryEntry]:
        self.questions["select"] += 1
        entry = an_entry(expires_at=FAR.astimezone(timezone(timedelta(hours=2))))
        return [entry, an_entry("2", tags=("a", "b"))] if query.key else [entry]


@pytest.mark.parametrize("query", [MemoryQuery(), MemoryQuery(key="theme")])
def test_entries_that_would_come_back_otherwise_are_not_kept(asked: Asked, query: MemoryQuery) -> None:
    foreign = Foreign(asked.wrapped)
    cached = CachedBackend(foreign)

    first, again = cached.select(query), cached.select(query)

    assert repr(first) == repr(again) == repr(foreign.select(query))
    assert foreign.questions == {"select": 3}


def test_a_timestamp_without_a_time_zone_comes_back_as_it_is(asked: Asked) -> None:
    class Naive(Asked):
        def read(self, entry_id: str) -> MemoryEntry | None:
            self.questions["read"] += 1
            return an_entry(entry_id, timestamp=datetime(2026, 10, 25, 2, 30, fold=1))

    naive = Naive(asked.wrapped)
    cached = CachedBackend(naive)

    assert repr(cached.read("1")) == repr(cached.read("1")) == repr(naive.read("1"))
    assert naive.questions == {"read": 2}


# --- how much is kept ----------------------------------------------------------------------------


def test_what_was_used_least_recently_goes_first(asked: Asked) -> None:
    cached = CachedBackend(asked, entries=2)
    for entry_id in ("1", "2", "1", "3", "1", "2"):
        cached.read(entry_id)

    assert asked.questions == {"read": 4}


def test_an_entry_of_a_list_counts_for_itself(asked: Asked) -> None:
    for number in range(2, 6):
        asked.wrapped.create(an_entry(f"{number}"))
    few, enough = CachedBackend(asked, entries=4), CachedBackend(asked, entries=5)

    assert [len(backend.list_all()) for backend in (few, few, enough, enough)] == [5] * 4

    assert asked.questions == {"select": 3}


def test_an_answer_that_is_too_large_drives_nothing_out(asked: Asked) -> None:
    asked.wrapped.create(an_entry("2", value={"text": "x" * 5_000}))
    for limits in ({"entries": 1}, {"bytes": 5_000}):
        cached = CachedBackend(asked, **limits)
        asked.questions.clear()

        assert [cached.count(MemoryQuery()), len(cached.list_all()), cached.count(MemoryQuery())] == [2, 2, 2]

        assert asked.questions == {"count": 1, "select": 1}


def test_a_cache_takes_no_more_memory_than_it_may(open_backend: Open) -> None:
    cached = CachedBackend(open_backend(), bytes=20_000)
    with cached.transaction():
        for number in range(60):
            cached.create(an_entry(f"{number}", value={"text": "x" * number * 30}))
    sizes = []

    for number in (*range(60), *range(0, 60, 7)):
        cached.read(f"{number}")
        cached.count(MemoryQuery(where={"text": "x" * number}))
        shelf = cached._kept.shelf
        sizes.append(sum(len(key) + len(slot.packed) for key, slot in shelf._slots.items()))
        assert shelf._bytes == sizes[-1] + caching._SLOT_BYTES * len(shelf._slots)
        assert shelf._entries == len(shelf._slots)

    assert 10_000 < max(sizes) < 20_000


@pytest.mark.parametrize("limits", [{"entries": 0}, {"bytes": 1.5}, {"bytes": True}, {"entries": 2**63}])
def test_limits_that_limit_nothing_are_refused(asked: Asked, limits: dict[str, Any]) -> None:
    with pytest.raises(InvalidSettingError, match=rf"cache\.{next(iter(limits))} must be a whole number from 1 up"):
        CachedBackend(asked, **limits)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "5", True])
def test_a_stated_bound_is_a_number_of_seconds(asked: Asked, seconds: Any) -> None:
    with pytest.raises(InvalidSettingError, match=r"cache\.stale_seconds must be a number above 0, up to a day"):
        CachedBackend(asked, stale_seconds=seconds)


def test_only_a_backend_can_be_cached() -> None:
    with pytest.raises(InvalidSettingError, match="wrapped: takes a StorageBackend, not str"):
        CachedBackend("memory.db")  # type: ignore[arg-type]  # on purpose


# --- nothing outdated ----------------------------------------------------------------------------


def test_what_another_handle_changes_shows_at_once(cached: CachedBackend, asked: Asked, open_backend: Open) -> None:
    for number, other in enumerate((asked.wrapped, open_backend(), cached, CachedBackend(open_backend()))):
        assert [len(cached.list_all()), cached.count(MemoryQuery())] == [number + 1] * 2
        other.create(an_entry(f"n{number}"))
        assert [len(cached.list_all()), cached.count(MemoryQuery())] == [number + 2] * 2
        assert cached.read(f"n{number}") is not None


def test_a_transaction_sees_its_own_changes_and_nobody_else_does(cached: CachedBackend, asked: Asked) -> None:
    seen: list[Any] = []

    def look() -> None:
        seen.append(cached.read("1"))

    with contextlib.suppress(LookupError), asked.transaction():
        look()
        asked.wrapped.update(an_entry(value={"mode": "light"}))
        look()
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        assert cached.count(MemoryQuery(where={"mode": "light"})) == 1
        raise LookupError
    look()

    assert [entry.value["mode"] for entry in seen] == ["dark", "light", "dark", "dark"]
    assert cached.count(MemoryQuery(where={"mode": "light"})) == 0


def test_an_answer_that_comes_after_a_commit_is_not_kept(open_backend: Open) -> None:
    class Slow(BackendWrapper):
        """Makes a change after it has read, and before it answers."""

        def read(self, entry_id: str) -> MemoryEntry | None:
            entry = super().read(entry_id)
            if entry is not None and entry.value["mode"] == "dark":
                self.wrapped.update(an_entry(value={"mode": "light"}))
            return entry

    backend = Slow(open_backend())
    backend.create(an_entry())
    cached = CachedBackend(backend)

    first = cached.read("1")

    assert [entry and entry.value["mode"] for entry in (first, cached.read("1"))] == ["dark", "light"]


def test_what_expires_is_absent_at_once_by_the_clock_of_the_handle(open_backend: Open) -> None:
    clock, slow = FakeClock(), FakeClock(NOON - timedelta(days=1))
    cached = CachedBackend(open_backend()).bind(clock=clock)
    other = cached.bind(clock=slow)
    cached.create(an_entry(expires_at=NOON + timedelta(seconds=10)))
    seen = []

    for seconds in (0, 9.999999, 0.000001, -5, 30):
        clock.step(seconds=seconds)
        seen += [(backend.read("1") is not None, backend.count(MemoryQuery())) for backend in (cached, other)]

    there, gone = (True, 1), (False, 0)
    assert seen == [there, there, there, there, gone, there, there, there, gone, there]


def test_a_preference_that_is_set_again_is_the_newest_at_once(open_backend: Open) -> None:
    memory = MemoryModule(storage_backend=CachedBackend(open_backend()))
    other = MemoryModule(storage_backend=open_backend())
    for key in ("a", "b", "a", "b"):
        memory.list_memories()
        other.set_user_preference(key, {"n": 1})

        assert memory.list_memories() == other.list_memories()


def test_another_task_takes_no_part_in_a_transaction(open_backend: Open) -> None:
    async def main() -> list[int]:
        memory = AsyncMemoryModule.of(MemoryModule(storage_backend=CachedBackend(open_backend())))
        is_open, counts = asyncio.Event(), [await memory.count_memories()]

        async def look() -> None:
            await is_open.wait()
            counts.append(await memory.count_memories())

        task = asyncio.create_task(look())
        async with memory.transaction():
            await memory.create_memory("c", "k", {}, "t")
            counts.append(await memory.count_memories())
            is_open.set()
            await task
        counts.append(await memory.count_memories())
        await memory.shutdown()
        return counts

    assert asyncio.run(main()) == [0, 1, 0, 1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_a_forked_child_sees_what_its_parent_changes(cached: CachedBackend) -> None:
    assert cached.count(MemoryQuery()) == 1
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.read(told, 1)
            status = 0 if cached.count(MemoryQuery()) == 2 else 2
        finally:
            os._exit(status)

    cached.create(an_entry("2"))
    os.write(tell, b"!")

    assert os.waitpid(child, 0)[1] == 0
    os.close(told)
    os.close(tell)
    assert cached.count(MemoryQuery()) == 2


def test_a_pickle_holds_no_answers(cached: CachedBackend) -> None:
    cached.create(an_entry("2", value={"secret": CANARY}))
    assert cached.list_all() == cached.list_all()
    assert CANARY.encode() in held(cached)

    data = pickle.dumps(cached.bind(namespace="default"))
    copy: CachedBackend = pickle.loads(data)

    assert CANARY.encode() not in data
    assert (copy.list_all(), held(copy)) == (cached.list_all(), held(cached))
    copy.shutdown()


def test_a_store_that_takes_the_place_of_another_is_seen(open_backend: Open, tmp_path: Path) -> None:
    cached = CachedBackend(open_backend())
    if not cached.has_capability(BacksUp):
        pytest.skip("another store cannot take its place without a restart of the server")
    cached.create(an_entry())
    copy = cached.back_up(tmp_path / "copy")
    cached.delete("1")
    cached.shutdown()
    assert cached.list_all() == []

    for path in tmp_path.glob("memory.*"):
        if path.name.endswith(("-wal", "-shm")):
            path.unlink()
    copy.replace(tmp_path / copy.name)

    assert [entry.id for entry in cached.list_all()] == ["1"]


# --- nothing erased ------------------------------------------------------------------------------


def test_what_was_erased_is_not_in_memory(cached: CachedBackend, open_backend: Open) -> None:
    for other in (MemoryModule(storage_backend=cached), MemoryModule(storage_backend=open_backend())):
        memory_id = other.create_memory("c", CANARY, {"secret": CANARY}, "t")
        for _ in range(2):
            assert cached.newest_of_key(CANARY) is not None
            assert len(cached.list_all()) == 2
        assert CANARY.encode() in held(cached)

        other.erase_memory(memory_id)
        if other.backend is not cached:
            assert cached.for_namespace("alice").read("1") is None  # a question about anything

        assert CANARY.encode() not in held(cached)


def test_an_answer_that_comes_after_an_erasure_is_not_kept(open_backend: Open) -> None:
    cached: CachedBackend

    class Slow(BackendWrapper):
        """Has the entry erased after it has read it."""

        def read(self, entry_id: str) -> MemoryEntry | None:
            entry = super().read(entry_id)
            MemoryModule(storage_backend=cached).erase_memory(entry_id)
            return entry

    backend = open_backend()
    backend.create(an_entry(value={"secret": CANARY}))
    cached = CachedBackend(Slow(backend))

    assert cached.read("1") is not None

    assert CANARY.encode() not in held(cached)


def test_a_shutdown_leaves_nothing_in_memory(cached: CachedBackend) -> None:
    assert cached.list_all() == cached.list_all()
    assert held(cached)

    cached.shutdown()

    assert held(cached) == b""
    assert cached.list_all() == [an_entry()]


def test_a_handle_without_the_key_is_not_served(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    with_key = CachedBackend(SQLiteBackend(path, encryption="on", keys=[KeyFunction(a_key)]))
    with_key.create(an_entry())
    assert with_key.read("1") == with_key.read("1") == an_entry()

    with pytest.raises(KeyUnavailableError):
        CachedBackend(SQLiteBackend(path)).read("1")


def test_a_cache_follows_its_store_through_encryption(tmp_path: Path) -> None:
    keys = [KeyFunction(a_key)]
    cached = CachedBackend(SQLiteBackend(tmp_path / "memory.db", keys=keys))
    cached.create(an_entry())
    other = SQLiteBackend(tmp_path / "memory.db", keys=keys)
    for number, move in enumerate((cached.encrypt, other.rotate, other.decrypt)):
        assert len(cached.list_all()) == len(cached.list_all()) == number + 1
        move(None) if move == other.decrypt else move((), None)  # type: ignore[operator]  # three verbs
        other.create(an_entry(f"n{number}"))

        assert len(cached.list_all()) == number + 2


# --- the stated bound ----------------------------------------------------------------------------


@pytest.fixture(params=["tells its version", "does not"])
def far(request: pytest.FixtureRequest, tmp_path: Path) -> Asked:
    """Return a backend as of a store behind a network."""
    kind: Any = SQLiteBackend if request.param == "tells its version" else PlainBackend
    backend = Asked(kind(tmp_path / "memory.db"))
    backend.create(an_entry())
    return backend


def test_a_backend_that_tells_no_version_needs_a_bound(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"does not tell when others change the store.*give stale_seconds="):
        CachedBackend(PlainBackend(tmp_path / "memory.db"))
    with pytest.raises(UnsupportedError, match="give stale_seconds="):
        CachedBackend(CachedBackend(SQLiteBackend(tmp_path / "memory.db"), stale_seconds=60))


def test_within_the_bound_nothing_is_asked_and_behind_it_everything_shows(
    far: Asked, time_passes: Callable[[float], None]
) -> None:
    cached = CachedBackend(far, stale_seconds=5)
    counts = []

    for seconds in (0, 4.9, 0.1, 4.9, 0.1):
        time_passes(seconds)
        counts.append(cached.count(MemoryQuery()))
        cached.for_namespace("alice").count(MemoryQuery())
        far.wrapped.create(an_entry(f"n{len(counts)}"))

    assert counts == [1, 1, 3, 3, 5]
    assert far.questions == {"count": 6}


def _date_ahead(backend: Any) -> None:
    with backend.transaction():
        backend.update(an_entry("4", timestamp=backend.moment(FAR)))


def test_what_is_changed_through_the_cache_shows_at_once(far: Asked) -> None:
    cached = CachedBackend(far, stale_seconds=60)
    changes: list[Callable[[], object]] = [
        lambda: cached.create(an_entry("2")),
        lambda: cached.for_namespace("default").create(an_entry("3")),
        lambda: cached.update(an_entry("2", tags=["new"])),
        lambda: cached.update_if_changed(an_entry("2", tags=["new"], timestamp=FAR), renews=True),
        lambda: cached.create_many([an_entry("5"), an_entry("6")]),
        lambda: cached.delete("2"),
        lambda: cached.discard("3"),
        lambda: cached.recreate(an_entry("3")),
        lambda: cached.change(lambda: far.create(an_entry("4"))),
        partial(_date_ahead, cached),
        lambda: cached.mend_dates(Signature("update")),
        cached.clear,
    ]
    for change in changes:
        assert cached.list_all() == far.wrapped.list_all()
        change()
        assert cached.list_all() == far.wrapped.list_all()


def test_a_transaction_bypasses_the_bound(far: Asked) -> None:
    cached = CachedBackend(far, stale_seconds=60)
    modes = [cached.list_all()[0].value["mode"]]

    with contextlib.suppress(LookupError), cached.transaction():
        with cached.transaction():
            pass
        modes.append(cached.list_all()[0].value["mode"])
        far.update(an_entry(value={"mode": "light"}))
        modes.append(cached.list_all()[0].value["mode"])
        raise LookupError
    modes.append(cached.list_all()[0].value["mode"])

    def work() -> str:
        far.update(an_entry(value={"mode": "light"}))
        return str(cached.list_all()[0].value["mode"])

    modes.append(cached.change(work))
    assert modes == ["dark", "dark", "light", "dark", "light"]


def test_what_expires_within_the_bound_is_absent_at_once(far: Asked) -> None:
    clock = FakeClock()
    cached = CachedBackend(far, stale_seconds=60).bind(clock=clock)
    cached.create(an_entry("2", expires_at=NOON + timedelta(seconds=1)))
    assert cached.read("2") == cached.list_all()[0]

    clock.step(seconds=1)

    assert (cached.read("2"), len(cached.list_all())) == (None, 1)


def test_a_call_without_a_version_says_nothing_about_the_next_one(tmp_path: Path) -> None:
    far = Asked(SQLiteBackend(tmp_path / "memory.db"))
    cached = CachedBackend(far, stale_seconds=60)
    with far.transaction():  # not through the cache, so it learns of it by the version alone
        assert cached.count(MemoryQuery()) == 0

    assert cached.count(MemoryQuery()) == cached.count(MemoryQuery()) == 0

    assert far.questions == {"count": 2}


def test_handles_with_different_clocks_have_answers_of_their_own(far: Asked) -> None:
    cached = CachedBackend(far, stale_seconds=60)
    handles = [cached.bind(clock=FakeClock(NOON + timedelta(seconds=seconds))) for seconds in (0, 2, 0, 2)]
    cached.create(an_entry("2", expires_at=NOON + timedelta(seconds=1)))

    for _ in range(2):
        assert [handle.count(MemoryQuery()) for handle in handles] == [2, 1, 2, 1]


# --- threads and interrupts ----------------------------------------------------------------------


def test_what_an_interrupt_leaves_behind_stops_nobody(cached: CachedBackend, asked: Asked) -> None:
    cached.read("1")
    cached._kept.shelf._putting.acquire()

    assert cached.list_all() == cached.list_all() == [an_entry()]
    assert asked.questions["select"] == 2
    cached._kept.shelf._putting.release()
    cached._kept.shelf._bytes = 2**40  # as if an interrupt had kept what was counted from being put
    assert cached.list_all() == cached.list_all() == [an_entry()]
    cached.create(an_entry("2"))
    assert len(cached.list_all()) == len(cached.list_all()) == 2
    assert asked.questions["select"] == 5


class Interrupt(BaseException):
    """What a signal handler raises."""


def interrupted(call: Callable[[], object], at: int) -> int:
    """Make a call, and raise at the n-th bytecode of the library that it comes to; return how many there were."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if LIBRARY not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            count += 1
            if count == at:
                sys.settrace(None)
                raise Interrupt
        return trace

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(None)
    return count


def test_an_interrupt_at_any_place_leaves_the_cache_right_and_no_lock(open_backend: Open) -> None:
    cached = CachedBackend(open_backend())
    cached.create(an_entry(value={"n": 0}))

    def write_and_read(number: int) -> None:
        cached.update(an_entry(value={"n": number}))
        seen.append(cached.list_all()[0].value["n"])

    count = interrupted(cached.list_all, 0)
    for at in range(1, count, 11):
        seen: list[int] = []
        with contextlib.suppress(Interrupt):
            interrupted(cached.list_all, at)
        thread = threading.Thread(target=write_and_read, args=(at,), daemon=True)
        thread.start()
        thread.join(20)

        assert seen == [at]
        assert cached.list_all()[0].value["n"] == at
    assert count > 500


READINGS: dict[str, Callable[[CachedBackend], MemoryEntry | None]] = {
    "read": lambda cached: cached.read("1"),
    "select": lambda cached: cached.list_all()[0],
    "newest_of_key": lambda cached: cached.newest_of_key("theme"),
}


def test_threads_never_see_less_than_was_acknowledged(open_backend: Open) -> None:
    cached, acknowledged = CachedBackend(open_backend(), entries=20), [0]
    wrong: list[object] = []
    cached.create(an_entry(value={"n": 0}))

    def write() -> None:
        for number in range(1, 200):
            cached.update(an_entry(value={"n": number}))
            acknowledged[0] = number

    def read() -> None:
        while acknowledged[0] < 199 and not wrong:
            for verb in ("read", "select", "newest_of_key"):
                before = acknowledged[0]
                entry = READINGS[verb](cached)
                if entry is None or entry.value["n"] < before:
                    wrong.append((before, entry))

    threads = [threading.Thread(target=work) for work in (write, read, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
