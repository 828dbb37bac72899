"""Expiry and erasure of the SQLite backend, where they meet history, transactions and the file system."""

from __future__ import annotations

import contextlib
import json
import os
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis._disk.traces import Wanted, search_files
from jarvis._sql import history
from jarvis._sql.listing import NAMESPACES
from jarvis._sqlite.schema import FIRST_LIFE_COLUMNS
from jarvis._sqlite.store_file import StoreFile
from jarvis.codec import encode
from jarvis.config import HistoryPolicy
from jarvis.conformance.fixtures import FAR, FakeClock
from jarvis.errors import EntryNotFoundError, HistoryUnavailableError, InvalidEntryError
from jarvis.model.entry import MemoryEntry
from jarvis.model.options import Compression
from jarvis.model.rules import PRUNED_EVERY
from jarvis.persistent_memory import MemoryModule
from jarvis.sqlite_backend import SQLiteBackend


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(FAR)


@pytest.fixture
def memory(tmp_path: Path, clock: FakeClock) -> MemoryModule:
    return MemoryModule(storage_dir=tmp_path, clock=clock, history=HistoryPolicy(max_revisions=2))


# --- erasing what was asked for, and nothing else ---


@pytest.mark.parametrize("is_pruned", [True, False])
@pytest.mark.parametrize(
    "filters",
    [
        {"category": "notes", "tags": ["secret"]},
        {"category": "notes", "where": {"n": 99}},
        {"key": "plain", "since": FAR.replace(year=2101)},
        {"entity_type": "person", "entity_id": "ada"},
        {"category": "notes", "entity_id": "ada"},
    ],
)
def test_filters_erase_no_memory_that_is_only_known_to_have_been_changed(
    memory: MemoryModule, is_pruned: bool, filters: dict[str, Any]
) -> None:
    kept = memory.create_memory("notes", "plain", {"n": 0}, "person", None, ["open"])
    if is_pruned:
        for number in range(5):
            memory.update_memory(kept, {"n": number})
    else:  # the feed has a row about its return
        memory.delete_memory(kept)
        memory.undo(kept)

    assert memory.erase_memories(**filters).memories == 0
    assert memory.get_memory(kept) is not None


def test_filters_by_what_is_known_erase_the_notes_of_what_expired(memory: MemoryModule, clock: FakeClock) -> None:
    for person in ("ada", "bob", None):
        memory.create_memory("notes", "expired", {}, "person", person, ttl=1)
    clock.step(seconds=1)
    assert memory.store.purge_expired() == 3

    assert memory.erase_entity("person", "ada").memories == 1
    assert memory.erase_memories(category="notes", key="expired", where={"n": 1}).memories == 2


# --- expiry ---


def test_what_expires_between_two_calls_of_a_transaction_is_gone_for_the_second(
    memory: MemoryModule, clock: FakeClock
) -> None:
    memory_id = memory.create_memory("notes", "k", {"n": 1}, "note", ttl=1)
    with memory.transaction():
        entry = memory.backend.read(memory_id)
        assert entry is not None
        clock.step(seconds=1)
        assert memory.delete_memory(memory_id) is False
        with pytest.raises(EntryNotFoundError):
            memory.backend.update(entry)


def test_a_version_that_would_have_expired_is_restored_to_expire_as_the_memory_did_last(
    memory: MemoryModule, clock: FakeClock
) -> None:
    memory_id = memory.create_memory("notes", "k", {"n": 1}, "note", ttl=1)
    memory.touch_memory(memory_id, ttl=None)
    memory.delete_memory(memory_id)
    clock.step(seconds=1)

    assert memory.restore_memory(memory_id, 1)

    restored = memory.get_memory(memory_id)
    assert restored is not None
    assert (restored.value, restored.expires_at) == ({"n": 1}, None)
    memory.store.purge_expired()
    assert [revision.version for revision in memory.get_history(memory_id)] == [2, 1]


# --- what is taken back ---


def test_an_erasure_that_is_taken_back_leaves_the_kept_copy_of_the_old_store(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "memory.db")) as old:
        old.execute(f"CREATE TABLE memories ({', '.join(FIRST_LIFE_COLUMNS)})")
        values = ("1", "c", "k", "{}", "[]", "t", None, "2020-01-01T00:00:00", "{}", None)
        old.execute("INSERT INTO memories VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        old.commit()
    memory = MemoryModule(storage_dir=tmp_path)
    with memory.transaction():
        memory.set_user_preference("kept", {})
        with contextlib.suppress(KeyError), memory.transaction():
            assert memory.erase_memory("1").memories == 1
            raise KeyError

    assert memory.get_memory("1") is not None
    assert (tmp_path / "memory.db.first-life").exists()


def test_pruning_that_is_taken_back_ends_no_past(tmp_path: Path, clock: FakeClock) -> None:
    memory = MemoryModule(storage_dir=tmp_path, clock=clock, history=HistoryPolicy(max_age=timedelta(days=1)))
    memory_id = memory.create_memory("c", "k", {"n": 1}, "t")
    clock.step(seconds=1)
    before, first = clock.now, memory.newest_cursor()
    clock.step(seconds=1)
    memory.update_memory(memory_id, {"n": 2})
    clock.step(days=2)
    with memory.transaction():
        memory.set_user_preference("kept", {})
        with contextlib.suppress(KeyError), memory.transaction():
            assert memory.store.prune_history() == 1
            raise KeyError

    seen = memory.get_memory(memory_id, as_of=before)
    assert seen is not None
    assert seen.value == {"n": 1}
    assert [change.operation for change in memory.changes(first)] == ["update", "create"]


# --- receipts ---


def test_a_directory_beside_the_store_costs_no_receipt(memory: MemoryModule, tmp_path: Path) -> None:
    (tmp_path / "memory.db.backups").mkdir()
    receipt = memory.erase_memory(memory.create_memory("c", "k", {}, "t"))
    assert receipt.state == "done"
    assert receipt.searched is not None
    assert str(tmp_path / "memory.db.backups") not in receipt.searched.files


# --- cleaning keeps up ---


def _count(memory: MemoryModule, table: str) -> int:
    assert isinstance(memory.backend, SQLiteBackend)
    return int(memory.backend._database.read(lambda session: session.rows(f"SELECT count(*) FROM {table}"))[0][0])


def test_writers_purge_as_fast_as_they_write(memory: MemoryModule, clock: FakeClock) -> None:
    for number in range(1_000):
        memory.set_user_preference("code", {"n": number}, ttl=1)
        clock.step(seconds=2)
    assert _count(memory, "entries") <= PRUNED_EVERY


def test_notes_of_what_was_purged_go_with_the_past(tmp_path: Path, clock: FakeClock) -> None:
    policy = HistoryPolicy(max_age=timedelta(days=1))
    memory = MemoryModule(storage_dir=tmp_path, clock=clock, history=policy)
    for number in range(1_000):  # none of which is ever updated or deleted
        memory.create_memory("c", f"k{number}", {}, "t", ttl=1)
        clock.step(minutes=10)
    day = 24 * 6 + 2 * PRUNED_EVERY
    assert _count(memory, "gaps") <= day
    assert _count(memory, "events") <= 2 * day
    with pytest.raises(HistoryUnavailableError):
        memory.search_memories(as_of=clock.now - timedelta(days=3))


def test_a_look_back_at_one_memory_does_not_look_at_all_that_has_expired(memory: MemoryModule) -> None:
    assert isinstance(memory.backend, SQLiteBackend)
    memory.bootstrap()
    sql = history._expired_since(("id",))
    bound = dict.fromkeys(("as_of", "done", "open", "latest", "namespace", "now", "id"), 1)
    plan = memory.backend._database.read(lambda session: session.rows(session.say(f"EXPLAIN QUERY PLAN {sql}"), bound))
    assert not [step for *_, step in plan if "by_expiry" in step]


# --- erasures that wait ---


@pytest.mark.parametrize("is_touched", [True, False])
def test_an_erasure_that_cannot_be_finished_keeps_nobody_from_opening(
    memory: MemoryModule, tmp_path: Path, is_touched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory_id = memory.create_memory("c", "k", {}, "t")
    kept = memory.create_memory("c", "kept", {}, "t")

    def fails(*_: object) -> bool:
        raise apsw.FullError

    with monkeypatch.context() as patch:
        patch.setattr(StoreFile, "finish_erasing", fails)
        assert memory.erase_memory(memory_id).state == "pending"
        memory.shutdown()
        if is_touched:  # so that the whole store is verified
            os.utime(tmp_path / "memory.db")
        with MemoryModule(storage_dir=tmp_path) as opened:
            assert [entry.id for entry in opened.list_memories()] == [kept]
    with MemoryModule(storage_dir=tmp_path) as opened:
        opened.bootstrap()
    assert memory_id.encode() not in (tmp_path / "memory.db").read_bytes()


_WRITES_AND_ENDS = """
import sys
from jarvis.persistent_memory import MemoryModule
with MemoryModule(storage_dir=sys.argv[1]) as memory:
    memory.create_memory("c", "of another process", {}, "t")
    print(memory.count_memories())
"""


def test_the_search_behind_an_erasure_leaves_the_locks_of_the_process(memory: MemoryModule, tmp_path: Path) -> None:
    receipt = memory.erase_memory(memory.create_memory("c", "k", {}, "t"))
    assert receipt.searched is not None
    assert {Path(path).name for path in receipt.searched.files} == {"memory.db", "memory.db-wal", "memory.db.lock"}

    for number in (1, 3):
        child = [sys.executable, "-c", _WRITES_AND_ENDS, str(tmp_path)]
        assert int(subprocess.run(child, check=True, capture_output=True).stdout) == number  # and takes no log away
        memory.create_memory("c", "acknowledged", {}, "t")
    assert memory.count_memories() == 4


def test_the_name_of_a_namespace_goes_also_when_nothing_else_is_known_of_it(tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path, history=HistoryPolicy(max_revisions=0))
    hidden = memory.for_namespace("of-somebody")
    hidden.delete_memory(hidden.create_memory("of-somebody", "k", {}, "t"))

    assert memory.store.erase_namespace("of-somebody").state == "done"

    memory.shutdown()
    assert b"of-somebody" not in (tmp_path / "memory.db").read_bytes()


def test_touching_takes_one_expiry(memory: MemoryModule, clock: FakeClock) -> None:
    memory_id = memory.create_memory("c", "k", {}, "t")
    with pytest.raises(InvalidEntryError):
        memory.touch_memory(memory_id, ttl=None, expires_at=clock.now + timedelta(days=1))
    entry = memory.get_memory(memory_id)
    assert entry is not None
    assert entry.expires_at is None


def test_namespaces_are_listed_without_a_scan_of_their_entries(memory: MemoryModule) -> None:
    assert isinstance(memory.backend, SQLiteBackend)
    memory.bootstrap()
    plan = memory.backend._database.read(
        lambda session: session.rows(f"EXPLAIN QUERY PLAN {NAMESPACES}", {"now": 0}),
    )
    steps = [step for *_, step in plan]
    assert any(step.startswith("SEARCH e ") for step in steps)
    assert not any(step.startswith("SCAN e") for step in steps)


def test_what_was_deleted_without_history_is_cleaned_out_of_the_files(tmp_path: Path) -> None:
    names, none = [f"CANARY{number:06}" for number in range(300)], HistoryPolicy(max_revisions=0)
    with MemoryModule(storage_dir=tmp_path, history=none) as memory:
        ids = [memory.create_memory("c", name, {"text": name * 20}, "t") for name in names]
        for memory_id in ids:
            memory.delete_memory(memory_id)
        receipt = memory.erase_memory(ids[0])
        assert (receipt.state, receipt.memories, receipt.removed) == ("done", 0, {})
        assert receipt.searched is not None
        assert receipt.searched.found == 0
    assert all(b"CANARY" not in path.read_bytes() for path in tmp_path.iterdir())


@pytest.mark.parametrize("compression", ["auto", "off"])
def test_mentions_that_go_over_the_end_of_a_page_are_counted(tmp_path: Path, compression: Compression) -> None:
    backend = SQLiteBackend(tmp_path / "memory.db", compression=compression, history=HistoryPolicy(max_revisions=3))
    gone = "a name that is longer than sixteen bytes"
    backend.create(MemoryEntry(gone, "c", "k", {}))
    with backend.transaction():
        for number in range(120):  # so that the ends of pages fall everywhere
            noise = random.Random(number).randbytes(4_000 + 17 * number).hex()
            backend.create(MemoryEntry(str(number), "c", "k", {"noise": noise, "see": gone, "more": noise}))
        backend.update(MemoryEntry("7", "c", "k", {}))
        backend.erase(gone)

    searched = backend.finish_erasing([gone])

    assert searched is not None
    assert searched.found == 120
    backend.shutdown()


def test_a_mention_in_a_reason_is_found(memory: MemoryModule) -> None:
    memory_id = memory.create_memory("c", "k", {}, "t")
    other = memory.create_memory("c", "k", {}, "t")
    memory.update_memory(other, {}, reason="x" * 5_000 + memory_id + "x" * 5_000)

    receipt = memory.erase_memory(memory_id)

    assert receipt.searched is not None
    assert receipt.searched.found == 1


def test_a_name_that_is_no_text_is_searched_for_nowhere(memory: MemoryModule) -> None:
    memory.create_memory("c", "k", {}, "t")

    receipt = memory.erase_memory("\ud800" * 20)

    assert (receipt.memories, receipt.state) == (0, "done")


@given(
    st.lists(st.sampled_from(['"', "\\", "a", "é", "\x01", "🦊", "/"]), min_size=16, max_size=24).map("".join),
    st.lists(st.sampled_from(["raw", "ours", "ascii", "other"]), max_size=5),
    st.integers(min_value=1, max_value=60),
)
def test_a_search_in_pieces_counts_what_a_search_of_the_whole_counts(name: str, how: list[str], size: int) -> None:
    written = {
        "raw": name.encode(),
        "ours": encode({"see": name}),
        "ascii": json.dumps([name]).encode(),
        "other": b"another text that is long",
    }
    data = b"\n".join(written[each] for each in how)
    wanted = Wanted([name])

    in_pieces = search_files(
        [__file__], wanted, lambda _: iter([data[at : at + size] for at in range(0, len(data), size)])
    )

    assert in_pieces.found == wanted.count(data)
    if not name.startswith('"') and "\\" not in name:
        assert in_pieces.found == sum(each != "other" for each in how)
