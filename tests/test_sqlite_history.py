"""What history costs and keeps in a SQLite store: migration, pruning, damage, many processes."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest

from jarvis._sql import feed, history
from jarvis._sql.session import Session
from jarvis._sqlite import schema
from jarvis.capabilities import KeepsHistory
from jarvis.conformance.fixtures import FakeClock, an_entry
from jarvis.errors import (
    CorruptStoreError,
    CursorExpiredError,
    HistoryUnavailableError,
    InvalidSettingError,
    RevisionNotFoundError,
)
from jarvis.model.change import Change
from jarvis.persistent_memory import HistoryPolicy, MemoryModule
from jarvis.sqlite_backend import SQLiteBackend

STORES = Path(__file__).parent / "stores"
FAR = datetime(2100, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(FAR)


def _memory(path: Path, clock: FakeClock, **policy: Any) -> MemoryModule:
    return MemoryModule(storage_backend=SQLiteBackend(path, history=HistoryPolicy(**policy)), clock=clock)


def _rows(memory: MemoryModule, sql: str) -> list[Any]:
    def read(session: Session) -> list[Any]:
        return session.rows(sql)

    backend: Any = memory.backend
    found: list[Any] = backend._database.read(read)
    return found


# --- cost ----------------------------------------------------------------------------------------


def test_a_create_writes_nothing_for_history(path: Path, clock: FakeClock) -> None:
    ran: list[str] = []
    memory = _memory(path, clock)
    memory.create_memory("c", "first", {}, "t", tags=["x"])
    backend: Any = memory.backend
    connection: apsw.Connection = backend._database.pool.threads.here.session.raw
    connection.trace_v2(apsw.SQLITE_TRACE_STMT, lambda event: ran.append(event["sql"].split()[0:3]))
    clock.step(hours=1)
    memory.create_memory("c", "second", {}, "t", tags=["x"])

    assert [" ".join(words) for words in ran] == [
        "BEGIN IMMEDIATE",
        "INSERT INTO entries",
        "INSERT INTO tags",
        "COMMIT",
    ]
    memory.shutdown()


def test_a_transaction_writes_one_row_for_its_moment(path: Path, clock: FakeClock) -> None:
    memory = _memory(path, clock)
    with memory.transaction():
        for number in range(50):
            memory.create_memory("c", str(number), {}, "t")
    memory.create_memory("c", "alone", {}, "t")

    assert _rows(memory, "SELECT first, last FROM commits") == [(1, 50)]


# --- stores of earlier versions ------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
def test_the_past_of_an_older_store_begins_where_it_was_migrated(version: int, path: Path) -> None:
    shutil.copy(STORES / f"version-{version}.db", path)
    memory = MemoryModule(storage_dir=path.parent)
    before = memory.list_memories()
    (entry,) = memory.search_memories(key="key-0")
    started = datetime.now(UTC)
    memory.update_memory(entry.id, {"n": "new"})
    memory.delete_memory("id-1")

    assert memory.list_memories() != before
    assert memory.search_memories(as_of=started) == before
    assert [each.entry for each in memory.get_history(entry.id)] == [entry]
    with pytest.raises(HistoryUnavailableError, match="the earliest that is"):
        memory.count_memories(as_of=datetime(2020, 1, 1, tzinfo=UTC))
    memory.shutdown()


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_store_that_is_only_read_has_a_present_and_no_past(version: int, path: Path) -> None:
    shutil.copy(STORES / f"version-{version}.db", path)
    memory = MemoryModule(storage_dir=path.parent, read_only=True)

    assert memory.get_history("id-0") == []
    assert memory.count_memories(as_of=datetime.now(UTC)) == 4
    memory.shutdown()


# --- pruning -------------------------------------------------------------------------------------


def test_more_revisions_than_the_policy_has_are_pruned_and_said(path: Path, clock: FakeClock) -> None:
    memory = _memory(path, clock, max_revisions=3)
    memory_id = memory.create_memory("c", "k", {"n": 0}, "t", tags=["x", "tag of 0"])
    other = memory.create_memory("other", "other", {}, "t")
    for number in range(1, 10):
        clock.step(hours=1)
        memory.update_memory(memory_id, {"n": number}, ["x", f"tag of {number}"])

    assert [each.version for each in memory.get_history(memory_id)] == [9, 8, 7]
    assert [
        (each.value["n"])
        for hours in (6, 7, 8, 9)
        for each in memory.search_memories(category="c", as_of=FAR + hours * HOUR)
    ] == [6, 7, 8, 9]
    for ask in (
        lambda: memory.get_memory(memory_id, as_of=FAR + 5 * HOUR),
        lambda: memory.search_memories(category="c", as_of=FAR + 5 * HOUR),
        lambda: memory.count_memories(as_of=FAR),
        lambda: memory.get_memory_by_key("k", as_of=FAR + 5 * HOUR),
        lambda: list(memory.iter_memories(tags=["tag of 5"], as_of=FAR + 5 * HOUR)),
    ):
        with pytest.raises(HistoryUnavailableError) as caught:
            ask()
        assert caught.value.earliest == FAR + 6 * HOUR
    with pytest.raises(RevisionNotFoundError, match="known: 7, 8, 9, 10"):
        memory.restore_memory(memory_id, 2)
    assert memory.search_memories(category="other", as_of=FAR + HOUR) == [memory.get_memory(other)]
    assert _rows(memory, "SELECT count(*) FROM past_tags") == [(6,)]
    memory.shutdown()
    path.with_name("memory.db.lock").unlink()
    assert _memory(path, clock).count_memories() == 2  # after the whole was compared


def test_what_is_too_old_is_pruned_beside_writes_in_small_steps(path: Path, clock: FakeClock) -> None:
    memory = _memory(path, clock, max_age=timedelta(days=10))
    memory_id = memory.create_memory("c", "k", {"n": 0}, "t", tags=["x"])
    for _ in range(100):
        clock.step(hours=1)
        memory.update_memory(memory_id, {"n": 1})
    oldest = clock.now
    clock.step(days=11)

    for _ in range(100):
        memory.update_memory(memory_id, {"n": 2})

    kept = memory.get_history(memory_id)
    assert all(each.timestamp > oldest for each in kept)
    assert len(kept) == 100
    assert memory.count_memories(as_of=oldest + HOUR) == 1
    with pytest.raises(HistoryUnavailableError):
        memory.count_memories(as_of=oldest - HOUR)


def test_what_was_cleared_is_kept_for_a_time_of_its_own(path: Path, clock: FakeClock) -> None:
    memory = _memory(path, clock)
    ids = [memory.create_memory("c", str(number), {}, "t", tags=["x"]) for number in range(10)]
    clock.step(hours=1)
    memory.clear_all()
    clock.step(days=29)
    assert memory.store.prune_history() == 0
    assert memory.undo(ids[0])
    clock.step(days=2)

    assert [memory.store.prune_history(limit=4) for _ in range(4)] == [4, 4, 2, 0]

    assert all(memory.get_history(each) == [] for each in ids)
    assert memory.count_memories() == 1
    with pytest.raises(HistoryUnavailableError):
        memory.count_memories(as_of=FAR)
    assert memory.count_memories(as_of=FAR + 2 * HOUR) == 0


def test_the_moments_of_transactions_are_pruned_with_the_past(path: Path, clock: FakeClock) -> None:
    memory = _memory(path, clock, max_age=timedelta(days=1))
    for _ in range(20):
        clock.step(hours=1)
        with memory.transaction():
            ids = [memory.create_memory("c", "k", {}, "t") for _ in range(2)]
            memory.delete_memory(ids[0])
    clock.step(days=2)
    memory.store.prune_history()

    assert len(_rows(memory, "SELECT * FROM commits")) == 1
    assert memory.count_memories(as_of=clock.now - timedelta(days=1)) == 20


def test_a_store_without_history_says_so_and_begins_anew(path: Path, clock: FakeClock) -> None:
    without = _memory(path, clock, max_revisions=0)
    memory_id = without.create_memory("c", "k", {"n": 1}, "t")
    clock.step(hours=1)
    without.update_memory(memory_id, {"n": 2})

    assert without.get_history(memory_id) == []
    assert without.count_memories(as_of=clock.now) == 1
    with pytest.raises(HistoryUnavailableError, match="no past is kept"):
        without.count_memories(as_of=FAR)
    with pytest.raises(RevisionNotFoundError):
        without.undo(memory_id)

    clock.step(hours=1)
    keeping = _memory(path, clock)
    keeping.update_memory(memory_id, {"n": 3})
    begins = clock.now
    clock.step(hours=1)
    keeping.update_memory(memory_id, {"n": 4})
    (entry,) = keeping.search_memories(as_of=begins)
    assert entry.value == {"n": 3}
    with pytest.raises(HistoryUnavailableError):
        keeping.count_memories(as_of=begins - HOUR)
    without.delete_memory(memory_id)
    with pytest.raises(HistoryUnavailableError):
        keeping.count_memories(as_of=begins)


@pytest.mark.parametrize(
    "policy", [{"max_revisions": -1}, {"max_revisions": True}, {"max_age": timedelta(0)}, {"cleared_max_age": 5}]
)
def test_a_policy_that_means_nothing_is_refused(policy: dict[str, Any]) -> None:
    with pytest.raises(InvalidSettingError, match="history." + next(iter(policy))):
        HistoryPolicy(**policy)


# --- erasure, damage, processes ------------------------------------------------------------------


def test_erasing_leaves_no_byte_of_the_past(path: Path) -> None:
    memory = MemoryModule(storage_dir=path.parent)
    ids = [
        memory.create_memory(
            "canary-category",
            f"canary-key-{number}",
            {"text": f"canary {number} " * 20},
            "t",
            tags=[f"canary-tag-{number}"],
        )
        for number in range(200)
    ]
    for memory_id in ids:
        memory.update_memory(memory_id, {"n": 1}, reason="canary reason")
    memory.for_namespace("other").create_memory("c", "k", {}, "t")

    assert memory.clear_all(erase=True) == 200

    held = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"canary" not in held
    assert all(memory.get_history(memory_id) == [] for memory_id in ids)
    memory.shutdown()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE revisions SET body = replace(body, 'dark', 'lite')",
        "UPDATE revisions SET change = replace(change, 'ui', 'me')",
        "UPDATE revisions SET made = made - 1",
        "UPDATE revisions SET ended = ended + 1000",
        "DELETE FROM past_tags",
        "UPDATE past_tags SET made = made - 1",
        "UPDATE clock SET begins = 0",
        "UPDATE commits SET moment = moment - 1000000000000 WHERE last = (SELECT max(last) FROM commits)",
        "UPDATE commits SET last = last + 1000",
    ],
)
def test_a_past_that_was_edited_behind_our_back_is_noticed(damage: str, path: Path) -> None:
    with MemoryModule(storage_dir=path.parent) as memory:
        memory_id = memory.create_memory("c", "k", {"mode": "dark"}, "t", tags=["x"])
        memory.update_memory(memory_id, {"mode": "light"}, module="ui")
        for _ in range(2):
            with memory.transaction():
                memory.create_memory("c", "one", {}, "t")
                memory.create_memory("c", "two", {}, "t")
    with apsw.Connection(str(path)) as connection:
        connection.execute(damage)
        assert connection.changes()
    connection.close()

    with pytest.raises(CorruptStoreError):
        MemoryModule(storage_dir=path.parent).bootstrap()


def test_guarded_increments_of_four_processes_add_up(path: Path) -> None:
    program = """
import sys
from jarvis.errors import ConflictError
from jarvis.persistent_memory import MemoryModule
memory = MemoryModule(storage_dir=sys.argv[1])
conflicts = 0
for _ in range(100):
    while True:
        entry = memory.get_memory(sys.argv[2])
        try:
            memory.update_memory(entry.id, {"n": entry.value["n"] + 1}, if_version=entry.version)
            break
        except ConflictError:
            conflicts += 1
for _ in range(25):
    memory.modify_memory(sys.argv[3], lambda value: {"n": value["n"] + 1})
memory.shutdown()
print(conflicts)
"""
    memory = MemoryModule(storage_dir=path.parent, durability="normal")
    guarded, by_function = (memory.create_memory("c", str(number), {"n": 0}, "t") for number in range(2))
    arguments = [sys.executable, "-c", program, str(path.parent), guarded, by_function]
    children = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    conflicts = [int(child.communicate()[0]) for child in children]

    found = [memory.get_memory(each) for each in (guarded, by_function)]
    assert [(entry.value["n"], entry.version) for entry in found if entry] == [(400, 401), (100, 101)]
    assert sum(conflicts) > 0
    assert len(memory.get_history(by_function)) == 100
    memory.shutdown()


def test_a_read_only_handle_looks_back(path: Path, clock: FakeClock) -> None:
    memory = _memory(path, clock)
    memory.backend.create(an_entry())
    memory_id = memory.create_memory("c", "k", {"n": 1}, "t")
    clock.step(hours=1)
    memory.update_memory(memory_id, {"n": 2})
    memory.shutdown()

    reader = MemoryModule(storage_dir=path.parent, read_only=True)
    past: Any = reader.backend.capability(KeepsHistory)
    assert past.as_of(FAR).read(memory_id).value == {"n": 1}
    assert len(reader.get_history(memory_id)) == 1
    assert _rows(reader, "PRAGMA user_version") == [(schema.CURRENT_VERSION,)]
    reader.shutdown()


# --- the beginnings and the gaps of the past ------------------------------------------------------


def test_the_past_begins_when_what_was_pruned_had_become_visible_to_end(path: Path, clock: FakeClock) -> None:
    memory = _memory(path, clock, max_age=timedelta(days=1))
    memory_id = memory.create_memory("c", "k", {"n": 1}, "t")
    clock.step(hours=1)
    with memory.transaction():
        memory.update_memory(memory_id, {"n": 2})
        clock.step(hours=1)
    visible = clock.now
    clock.step(days=3)
    memory.store.prune_history()

    with pytest.raises(HistoryUnavailableError) as caught:
        memory.count_memories(as_of=visible - timedelta(minutes=1))
    assert caught.value.earliest == visible
    assert [entry.value for entry in memory.search_memories(as_of=visible)] == [{"n": 2}]


def test_a_gap_of_states_that_differ_refuses_the_filters_of_all(path: Path, clock: FakeClock) -> None:
    memory = _memory(path, clock, max_revisions=1)
    entry = an_entry(category="first")
    with memory.transaction():
        memory.backend.create(entry)
    for number, category in enumerate(("first", "second", "third", "third")):
        clock.step(hours=1)
        entry.category, entry.key = category, f"key-{number}"
        with memory.transaction():
            memory.backend.update(entry)

    asked: list[dict[str, Any]] = [{"category": "first"}, {"category": "second"}, {"key": "theme"}, {}]
    for filters in asked:
        with pytest.raises(HistoryUnavailableError):
            memory.search_memories(**filters, as_of=FAR + timedelta(minutes=30))
    assert memory.search_memories(entity_type="other", as_of=FAR + timedelta(minutes=30)) == []


def test_what_was_stored_without_history_is_in_the_past_that_begins_later(path: Path, clock: FakeClock) -> None:
    without = _memory(path, clock, max_revisions=0)
    with without.transaction():
        without.backend.create(an_entry(timestamp=FAR + timedelta(days=36_500)))
    clock.step(hours=1)
    keeping = _memory(path, clock)
    keeping.create_memory("c", "k", {}, "t")
    begins = clock.now
    clock.step(hours=1)
    keeping.clear_all()

    assert keeping.count_memories(as_of=begins) == 2


def test_a_moment_that_a_caller_gave_as_timestamp_is_not_that_of_its_change(path: Path, clock: FakeClock) -> None:
    memory = _memory(path, clock)
    backend: Any = memory.backend
    backend.create(an_entry())
    ends = FAR + HOUR
    with memory.transaction():
        backend.moment(FAR)
        backend.update(an_entry(timestamp=ends, key="new"))
        clock.now = ends

    (entry,) = memory.search_memories(as_of=ends - timedelta(minutes=1))
    assert entry.key == "theme"


# --- the feed ------------------------------------------------------------------------------------


def test_what_is_pruned_stays_in_the_feed_until_it_is_too_old(path: Path, clock: FakeClock) -> None:
    memory = _memory(path, clock, max_revisions=2, max_age=timedelta(days=10))
    memory_id = memory.create_memory("c", "k", {"n": 0}, "t", module="maker")
    for number in range(1, 8):
        clock.step(hours=1)
        memory.update_memory(memory_id, {"n": number}, reason=f"because {number}")
    whole = memory.changes()
    assert [each.version for each in whole] == list(range(1, 9))
    assert [each.reason for each in whole[1:]] == [f"because {number}" for number in range(1, 8)]
    assert whole[0].module == "maker"
    assert _rows(memory, "SELECT count(*) FROM events") == [(6,)]

    clock.step(days=20)
    memory.store.prune_history()

    assert memory.changes() == []
    with pytest.raises(CursorExpiredError, match="the earliest that can be asked is") as caught:
        memory.changes(whole[3].cursor)
    assert caught.value.earliest == whole[-1].cursor
    memory.update_memory(memory_id, {"n": "new"})
    assert [each.version for each in memory.changes(caught.value.earliest)] == [9]


@pytest.mark.parametrize("version", [1, 2])
def test_the_feed_of_an_older_store_begins_where_it_was_migrated(version: int, path: Path) -> None:
    shutil.copy(STORES / f"version-{version}.db", path)
    reader = MemoryModule(storage_dir=path.parent, read_only=True)
    with pytest.raises(CursorExpiredError, match="no history is kept"):
        reader.changes()
    reader.shutdown()
    memory = MemoryModule(storage_dir=path.parent)

    assert memory.changes() == []
    memory.update_memory("id-0", {"n": 1})

    assert [(each.operation, each.version) for each in memory.changes()] == [("update", 2)]
    with pytest.raises(CursorExpiredError):
        memory.changes("1")
    memory.shutdown()


def test_without_history_there_is_no_feed_until_it_begins_anew(path: Path, clock: FakeClock) -> None:
    without = _memory(path, clock, max_revisions=0)
    memory_id = without.create_memory("c", "k", {}, "t")
    with pytest.raises(CursorExpiredError, match="no history is kept"):
        without.changes()
    keeping = _memory(path, clock)
    keeping.update_memory(memory_id, {"n": 1})

    assert [each.operation for each in keeping.changes()] == ["update"]


def test_followers_miss_and_repeat_nothing_while_four_processes_write(path: Path) -> None:
    program = """
import sys
from jarvis.persistent_memory import MemoryModule
memory = MemoryModule(storage_dir=sys.argv[1], durability="normal")
ids = [memory.create_memory("c", f"{sys.argv[2]}-{number}", {"n": 0}, "t") for number in range(30)]
for memory_id in ids:
    memory.update_memory(memory_id, {"n": 1})
with memory.transaction():
    for memory_id in ids:
        memory.delete_memory(memory_id)
memory.shutdown()
"""
    memory = MemoryModule(storage_dir=path.parent, durability="normal")
    memory.bootstrap()
    arguments = [sys.executable, "-c", program, str(path.parent)]
    children = [subprocess.Popen([*arguments, str(number)]) for number in range(4)]
    watched: list[Change] = []
    for change in memory.watch("0", idle_seconds=20):
        watched.append(change)
        if len(watched) == 360:
            break
    paged: list[Change] = []
    while page := memory.changes(paged[-1].cursor if paged else None, limit=7):
        paged += page

    assert [child.wait() for child in children] == [0] * 4
    assert [(each.cursor, each.operation, each.key) for each in watched] == [
        (each.cursor, each.operation, each.key) for each in paged
    ]
    stories: dict[str | None, list[str]] = {}
    for change in paged:
        stories.setdefault(change.key, []).append(change.operation)
    assert len(stories) == 120
    assert set(map(tuple, stories.values())) == {("create", "update", "delete")}
    memory.shutdown()


# --- several policies, and what nobody can tell ---------------------------------------------------


def test_a_much_smaller_policy_prunes_in_steps_and_leaves_no_hole(path: Path, clock: FakeClock) -> None:
    many = _memory(path, clock, max_revisions=1000)
    memory_id = many.create_memory("c", "k", {"n": 0}, "t")
    moments = [clock.now]
    for number in range(1, 401):
        clock.step(seconds=1)
        many.update_memory(memory_id, {"n": number})
        moments.append(clock.now)
    few = _memory(path, clock, max_revisions=10)

    for _ in range(3):
        clock.step(seconds=1)
        few.update_memory(memory_id, {"n": "new"})
        for number in range(0, 401, 7):
            try:
                entry = few.get_memory(memory_id, as_of=moments[number])
            except HistoryUnavailableError:
                continue
            assert entry is not None
            assert entry.value == {"n": number}

    assert len(few.get_history(memory_id)) == 10


def test_pruning_does_not_bring_back_a_past_that_was_ended(path: Path, clock: FakeClock) -> None:
    keeping, without = _memory(path, clock), _memory(path, clock, max_revisions=0)
    first, second = (keeping.create_memory("c", key, {"n": 1}, "t") for key in "ab")
    keeping.update_memory(second, {"n": 2})
    then, cursor = clock.now, keeping.newest_cursor()
    clock.step(hours=1)
    without.update_memory(first, {"n": 3})
    clock.step(days=400)
    keeping.store.prune_history()

    with pytest.raises(HistoryUnavailableError):
        keeping.get_memory(first, as_of=then)
    with pytest.raises(CursorExpiredError):
        keeping.changes(cursor)


def test_an_undo_that_would_take_back_another_change_is_refused(path: Path, clock: FakeClock) -> None:
    keeping, without = _memory(path, clock), _memory(path, clock, max_revisions=0)
    recreated, updated, deleted = (keeping.create_memory("c", key, {"n": 1}, "t") for key in "abc")
    keeping.delete_memory(recreated)
    keeping.undo(recreated)
    for memory_id in (updated, deleted):
        keeping.update_memory(memory_id, {"n": 2})
    for memory_id in (recreated, updated):
        without.update_memory(memory_id, {"n": 3})
    without.delete_memory(deleted)

    for memory_id in (recreated, updated, deleted):
        with pytest.raises(RevisionNotFoundError, match="before its last change"):
            keeping.undo(memory_id)
    assert {entry.id for entry in keeping.list_memories()} == {recreated, updated}


def test_what_was_cleared_goes_with_all_its_past(path: Path, clock: FakeClock) -> None:
    memory = _memory(path, clock)
    memory_id = memory.create_memory("c", "k", {"n": 1}, "t")
    for number in range(5):
        memory.update_memory(memory_id, {"n": number})
    memory.clear_all()
    clock.step(days=31)

    assert [memory.store.prune_history(limit=2) for _ in range(4)] == [2, 2, 2, 0]
    assert memory.get_history(memory_id) == []
    assert memory.undo(memory_id) is False


def test_a_namespace_of_ids_given_anew_keeps_no_more_than_the_policy(path: Path) -> None:
    backend = SQLiteBackend(path, history=HistoryPolicy(max_revisions=3))
    for _ in range(20):
        backend.create(an_entry())
        backend.delete("1")

    assert len(backend.revisions("1")) == 3
    backend.shutdown()


def test_a_page_of_the_feed_costs_what_it_returns(path: Path, clock: FakeClock) -> None:
    memory = _memory(path, clock)
    memory_id = memory.create_memory("c", "k", {}, "t")
    memory.update_memory(memory_id, {"n": 1})
    backend: Any = memory.backend
    session = backend._database.pool.threads.here.session
    bound = {"after": 0, "until": 10, "limit": 1, "namespace": 1, "digest": -1}
    plan = [row[3] for row in session.rows(f"EXPLAIN QUERY PLAN {feed._CHANGES}", bound)]

    assert not [step for step in plan if "TEMP B-TREE" in step]
    assert not [step for step in plan if step.startswith("SCAN")]


def test_looking_back_seeks_the_moments_of_transactions(path: Path, clock: FakeClock) -> None:
    memory = _memory(path, clock)
    memory.create_memory("c", "k", {}, "t")
    backend: Any = memory.backend
    session = backend._database.pool.threads.here.session
    plan = [row[3] for row in session.rows(session.say(f"EXPLAIN QUERY PLAN {history._LOOK_BACK}"), (1,))]

    assert len([step for step in plan if step.startswith("SEARCH commits USING COVERING INDEX")]) == 2
    assert not [step for step in plan if "TEMP B-TREE" in step]


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_store_that_is_only_read_does_not_know_what_was(version: int, path: Path) -> None:
    shutil.copy(STORES / f"version-{version}.db", path)
    with (
        MemoryModule(storage_dir=path.parent, read_only=True) as memory,
        pytest.raises(HistoryUnavailableError),
    ):
        memory.count_memories(as_of=datetime(1971, 1, 1, tzinfo=UTC))


def test_readers_of_the_present_as_of_now_stand_a_shutdown(path: Path) -> None:
    memory = MemoryModule(storage_dir=path.parent)
    memory_id = memory.create_memory("c", "k", {}, "t")
    wrong: list[BaseException] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            try:
                assert memory.get_memory(memory_id, as_of=datetime.now(UTC)) is not None
            except BaseException as error:  # noqa: BLE001 - reported below
                wrong.append(error)
                return

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(40):
        memory.shutdown()
    over.set()
    for thread in threads:
        thread.join()

    assert wrong == []
    memory.shutdown()
