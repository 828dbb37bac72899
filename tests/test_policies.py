"""Policies by category beyond what any backend promises: settings, arguments, pickles."""

from __future__ import annotations

import contextlib
import pickle
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jarvis.async_memory import AsyncMemoryModule
from jarvis.capabilities import Erases
from jarvis.config import CategoryPolicy, HistoryPolicy, StorageConfig
from jarvis.conformance.fixtures import FAR, FakeClock
from jarvis.container import Container
from jarvis.errors import CursorExpiredError, HistoryUnavailableError, InvalidSettingError, RevisionNotFoundError
from jarvis.json_backend import JSONBackend
from jarvis.persistent_memory import MemoryEntry, MemoryModule
from jarvis.sqlite_backend import SQLiteBackend

from .plain_sqlite import PlainBackend

HOUR = timedelta(hours=1)
SHORT = CategoryPolicy("short", ttl=HOUR)


@pytest.mark.parametrize("as_mapping", [True, False])
@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "a policy needs a history, a max_entries, a max_bytes, a ttl or text_fields"),
        ({"max_entries": 0}, "max_entries must be a whole number from 1 up"),
        ({"max_entries": True}, "max_entries must be a whole number from 1 up"),
        ({"max_bytes": 1.5}, "max_bytes must be a whole number from 1 up"),
        ({"max_bytes": 9, "keep_tags": "pin"}, "keep_tags must be tags, such as"),
        ({"max_bytes": 9, "keep_tags": [7]}, "keep_tags must be tags, such as"),
        ({"max_bytes": 9, "keep_tags": [str(n) for n in range(101)]}, "keep_tags must be at most 100 tags"),
        ({"ttl": HOUR, "keep_tags": ["pin"]}, "keep_tags need a max_entries or a max_bytes"),
        ({"ttl": HOUR, "history": HistoryPolicy(max_events=5)}, "max_events is of the whole store; set it in"),
        ({"text_fields": "title"}, "text_fields must be names of fields, such as"),
        ({"text_fields": [5]}, "text_fields must be names of fields, such as"),
        ({"category": 5, "ttl": HOUR}, "category must be a text"),
        ({"category": "\ud800", "ttl": HOUR}, "category must be a text"),
        ({"ttl": timedelta(0)}, "ttl must be a timedelta above 0, up to 100 years"),
        ({"ttl": timedelta.max}, "ttl must be a timedelta above 0, up to 100 years"),
    ],
)
def test_a_policy_that_means_nothing_is_refused(fields: dict[str, Any], problem: str, as_mapping: bool) -> None:
    fields = {"category": "c", **fields}
    if as_mapping:
        with pytest.raises(InvalidSettingError, match=rf"^storage\.policies policy 1 .* policies: {problem}"):
            StorageConfig(policies=[fields])
    else:
        with pytest.raises(InvalidSettingError, match=f"^policies: {problem}"):
            CategoryPolicy(**fields)


@pytest.mark.parametrize(
    ("policies", "problem"),
    [
        ([{"category": "a", "tttl": "1 day"}], r"policy 1 has no key 'tttl' \(did you mean 'ttl'\?\); known: category"),
        ([SHORT, {"ttl": "1 day"}], "policy 2 needs a category"),
        ([{"category": "a", "ttl": "soon"}], "policy 1 has a ttl that must be a duration such as '12 hours'"),
        ([{"category": "a", "history": 5}], "policy 1 has a history that must be a HistoryPolicy or a mapping"),
        ([{"category": "a", "history": {"max_age": "x"}}], "policy 1 has a history that has a max_age that must be a"),
        ([SHORT, CategoryPolicy("*", ttl=HOUR), SHORT], "1 and 3 are of one category; make one of them"),
        (["a"], "policy 1 must be a CategoryPolicy or a mapping of its fields, not a value of type str"),
        (SHORT, "must be a list of policies, not"),
    ],
)
def test_a_mistake_in_policies_says_which(tmp_path: Path, policies: Any, problem: str) -> None:
    with pytest.raises(InvalidSettingError, match=rf"^storage\.policies {problem}"):
        StorageConfig(policies=policies)
    with pytest.raises(InvalidSettingError, match=rf"^policies {problem}"):
        MemoryModule(storage_dir=tmp_path, policies=policies)


def test_a_history_in_code_must_be_a_policy() -> None:
    with pytest.raises(InvalidSettingError, match=r"^policies: history must be a HistoryPolicy$"):
        CategoryPolicy("c", history={"max_revisions": 3})  # type: ignore[arg-type]  # on purpose


def test_policies_of_the_settings_reach_the_memory_of_the_container(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "storage: {data_dir: data, policies: [{category: short, ttl: 1 hour, history: {max_revisions: 1}}]}",
        encoding="utf-8",
    )
    container = Container()

    memory = container.get_memory_module(file)
    memory_id = memory.create_memory("short", "k", {}, "t")
    (entry,) = memory.list_memories()
    for number in range(3):
        memory.update_memory(memory_id, {"n": number})
    revisions = memory.get_history(memory_id)
    container.shutdown()

    assert entry.expires_at is not None
    assert len(revisions) == 1


PROGRAM = """
import sys
from jarvis.persistent_memory import CategoryPolicy, MemoryModule
_, directory, backend_type, name = sys.argv
memory = MemoryModule(
    storage_dir=directory, backend_type=backend_type, durability="normal", policies=[CategoryPolicy("c", max_entries=9)]
)
for number in range(60):
    memory.create_memory("c", f"{name}-{number}", {}, "t")
    assert memory.count_memories("c") <= 9
memory.shutdown()
"""


@pytest.mark.parametrize("backend_type", ["sqlite", "json"])
def test_several_processes_keep_one_bound(tmp_path: Path, backend_type: str) -> None:
    arguments = [sys.executable, "-c", PROGRAM, str(tmp_path), backend_type]
    processes = [subprocess.Popen([*arguments, name]) for name in "ab"]

    assert [process.wait(timeout=100) for process in processes] == [0, 0]
    with MemoryModule(storage_dir=tmp_path, backend_type=backend_type) as memory:
        assert memory.count_memories("c") == 9
        assert len(memory.changes(limit=1_000)) == 120 + 111


def test_a_copy_of_a_memory_has_its_policies() -> None:
    policy = CategoryPolicy("short", ttl=HOUR, max_entries=1, history=HistoryPolicy(max_revisions=0))
    memory = MemoryModule.in_memory(policies=[policy])
    inner = AsyncMemoryModule.of(pickle.loads(pickle.dumps(memory)))._inner

    first = inner.create_memory("short", "k", {}, "t")
    inner.create_memory("short", "k", {}, "t")

    assert memory.get_history(first) == []

    (entry,) = memory.list_memories()
    assert entry.expires_at is not None


# --- how much of the past is kept of a category ---------------------------------------------------

DAY = timedelta(days=1)
OFF = HistoryPolicy(max_revisions=0)
ENDLESS = HistoryPolicy(max_age=None, cleared_max_age=None)
Opened = Callable[..., MemoryModule]


@pytest.fixture(params=["sqlite", "json", "plain"])
def opened(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Iterator[Opened]:
    """Return a function that opens the store with these policies, and perhaps a policy of all the past."""
    kinds: dict[str, Any] = {"sqlite": SQLiteBackend, "json": JSONBackend, "plain": PlainBackend}
    made: list[MemoryModule] = []

    def open_it(*policies: CategoryPolicy, history: HistoryPolicy = HistoryPolicy()) -> MemoryModule:  # noqa: B008 - frozen
        backend = kinds[request.param](tmp_path / "store", policies=policies, history=history)
        made.append(MemoryModule(backend, clock=clock))
        return made[-1]

    yield open_it
    for memory in made:
        memory.shutdown()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(FAR)


def _changed(memory: MemoryModule, clock: FakeClock, category: str, times: int) -> str:
    memory_id = memory.create_memory(category, f"of-{category}", {"n": 0}, "t")
    for number in range(times):
        clock.step(minutes=1)
        memory.update_memory(memory_id, {"n": number + 1})
    return memory_id


def test_each_category_keeps_as_many_states_as_its_policy_says(opened: Opened, clock: FakeClock) -> None:
    few, off = CategoryPolicy("few", history=HistoryPolicy(max_revisions=2)), CategoryPolicy("off", history=OFF)
    memory = opened(few, off, CategoryPolicy("bound", max_entries=9), history=HistoryPolicy(max_revisions=3))

    ids = {category: _changed(memory, clock, category, 5) for category in ("few", "off", "bound", "other")}
    for memory_id in ids.values():
        memory.delete_memory(memory_id)

    found = {category: len(memory.get_history(memory_id)) for category, memory_id in ids.items()}
    assert found == {"few": 2, "off": 0, "bound": 3, "other": 3}
    assert len(memory.changes(limit=99)) == 4 * 7


def test_all_categories_without_a_policy_have_that_of_the_star(opened: Opened, clock: FakeClock) -> None:
    star = CategoryPolicy("*", history=HistoryPolicy(max_revisions=1))
    memory = opened(star, CategoryPolicy("own", max_entries=5), history=HistoryPolicy(max_revisions=3))

    ids = [_changed(memory, clock, category, 5) for category in ("own", "other")]

    assert [len(memory.get_history(memory_id)) for memory_id in ids] == [3, 1]


def test_one_category_may_have_a_history_in_a_store_without(opened: Opened, clock: FakeClock) -> None:
    memory = opened(CategoryPolicy("kept", history=HistoryPolicy()), history=OFF)
    ids = [_changed(memory, clock, category, 2) for category in ("kept", "other")]
    before = clock.now - timedelta(minutes=1)

    assert memory.undo(ids[0])
    assert [entry.value for entry in memory.search_memories("kept", as_of=before)] == [{"n": 2}]
    with pytest.raises(RevisionNotFoundError):
        memory.undo(ids[1])

    assert [len(memory.get_history(memory_id)) for memory_id in ids] == [3, 0]


def test_nothing_of_the_past_stays_of_a_category_without_history(opened: Opened, clock: FakeClock) -> None:
    memory = opened(CategoryPolicy("off", history=OFF))
    memory_id = _changed(memory, clock, "off", 2)
    begins = clock.now
    other = _changed(memory, clock, "other", 1)
    clock.step(hours=2)
    memory.upsert_memory("off", "of-off", {"n": 2})  # renews it
    with pytest.raises(HistoryUnavailableError):
        memory.get_memory(memory_id, as_of=begins)
    renewed = clock.now
    clock.step(hours=2)
    memory.clear_all()

    assert memory.get_history(memory_id) == []
    assert len(memory.get_history(other)) == 2
    assert memory.restore_memory(memory_id, 1) is False
    for moment in (begins, renewed):
        for category, key in (("off", None), (None, "of-off"), (None, None)):
            with pytest.raises(HistoryUnavailableError):
                memory.search_memories(category, key=key, as_of=moment)
        with pytest.raises(HistoryUnavailableError):
            memory.get_memory(memory_id, as_of=moment)
        assert memory.get_memory(other, as_of=moment) is not None or moment == begins
        assert len(memory.search_memories("other", as_of=renewed)) == 1
    assert memory.search_memories("off", as_of=clock.now) == []


def test_each_category_keeps_its_past_as_long_as_its_policy_says(opened: Opened, clock: FakeClock) -> None:
    short = HistoryPolicy(max_age=2 * DAY, cleared_max_age=DAY)
    policies = [CategoryPolicy("short", history=short), CategoryPolicy("long", history=ENDLESS)]
    memory = opened(*policies, history=HistoryPolicy(max_age=5 * DAY, cleared_max_age=2 * DAY))
    ids = {category: _changed(memory, clock, category, 2) for category in ("short", "long", "other")}
    found = []
    for days in (1, 2, 3):
        clock.step(days=days)
        memory.store.prune_history()
        found.append({category: len(memory.get_history(memory_id)) for category, memory_id in ids.items()})
        if days == 2:
            assert memory.search_memories("other", as_of=clock.now - 2 * DAY)[0].value == {"n": 2}

    assert found == [
        {"short": 2, "long": 2, "other": 2},
        {"short": 0, "long": 2, "other": 2},
        {"short": 0, "long": 2, "other": 0},
    ]
    memory.clear_all()
    for expected in ([0, 3, 1], [0, 3, 0]):
        clock.step(days=1, minutes=1)
        memory.store.prune_history()
        assert [len(memory.get_history(ids[category])) for category in ("short", "long", "other")] == expected


def test_what_only_the_feed_knows_is_bounded(opened: Opened, clock: FakeClock) -> None:
    memory = opened(history=HistoryPolicy(max_revisions=5, max_age=None, max_events=100))
    first = memory.newest_cursor()
    for number in range(400):
        memory.set_user_preference("theme", {"n": number})

    with pytest.raises(CursorExpiredError) as caught:
        memory.changes(first)
    known = memory.changes(caught.value.earliest, limit=1_000)

    assert 100 <= len(known) < 100 + 2 * 64
    assert [change.version for change in known] == list(range(401 - len(known), 401))


def test_an_erasure_that_the_feed_forgets_still_closes_the_past_before_it(opened: Opened, clock: FakeClock) -> None:
    memory = opened(history=HistoryPolicy(max_age=None, max_events=10))
    if not memory.backend.has_capability(Erases):
        pytest.skip("the backend cannot erase")
    kept, erased = (_changed(memory, clock, category, 1) for category in ("kept", "erased"))
    before = clock.now
    clock.step(hours=1)
    memory.erase_memory(erased)

    for number in range(200):
        clock.step(minutes=1)
        memory.update_memory(kept, {"n": number})

    assert "erase" not in [change.operation for change in memory.changes(limit=1_000)]
    with pytest.raises(HistoryUnavailableError):
        memory.search_memories(as_of=before)
    assert len(memory.search_memories(as_of=clock.now - timedelta(minutes=9))) == 1


@pytest.mark.parametrize("seed", range(4))
def test_no_question_as_of_a_moment_is_answered_wrongly(opened: Opened, clock: FakeClock, seed: int) -> None:
    dice = random.Random(seed)
    memory = opened(
        CategoryPolicy("off", history=OFF),
        CategoryPolicy("few", history=HistoryPolicy(max_revisions=1, max_age=20 * DAY)),
        CategoryPolicy("short", history=HistoryPolicy(max_age=3 * DAY, cleared_max_age=DAY)),
        CategoryPolicy("long", history=HistoryPolicy(max_age=None)),
        history=HistoryPolicy(max_age=6 * DAY),
    )
    categories, then, answered = ("off", "few", "short", "long", "other"), [], 0
    for number in range(150):
        clock.step(hours=dice.randrange(1, 5))
        entries = memory.list_memories()
        what = dice.randrange(12)
        if what < 4 or not entries:
            memory.create_memory(dice.choice(categories), f"k{dice.randrange(4)}", {"n": number}, "t")
        elif what < 7:
            memory.update_memory(dice.choice(entries).id, {"n": number})
        elif what == 7:
            entry = dice.choice(entries)
            memory.upsert_memory(entry.category, entry.key, entry.value)
        elif what == 8:
            memory.delete_memory(dice.choice(entries).id)
        elif what == 9:
            memory.move_memory(dice.choice(entries).id, category=dice.choice(categories))
        elif what == 10:
            memory.store.prune_history()
        elif not dice.randrange(3):
            memory.clear_all()
        then.append((clock.now, memory.list_memories()))

    for moment, entries in then:
        for category in (None, *categories):
            expected = [_content(entry) for entry in entries if category in (None, entry.category)]
            with contextlib.suppress(HistoryUnavailableError):
                found = [_content(entry) for entry in memory.search_memories(category, as_of=moment)]
                assert sorted(found) == sorted(expected)
                answered += 1
        for entry in entries:
            with contextlib.suppress(HistoryUnavailableError):
                assert _content(memory.get_memory(entry.id, as_of=moment)) == _content(entry)
    assert answered > 20


def _content(entry: MemoryEntry | None) -> tuple[str, int, str, int]:
    """Return what the past of an entry has to tell: it forgets renewals, see decision 29."""
    assert entry is not None
    return entry.id, entry.version, entry.category, entry.value["n"]
