"""A store is put into another file: what each caller sees of it, at each stage."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest

from jarvis._disk.lock_file import Note
from jarvis._sqlite import engine, verification
from jarvis._sqlite.database import Database
from jarvis._sqlite.opening import Opening, ReplacedError
from jarvis._sqlite.replace import copy_file, mover, swap, touched_rows
from jarvis._sqlite.replace import move as moving
from jarvis.config import HistoryPolicy
from jarvis.errors import (
    CorruptStoreError,
    ReadOnlyStoreError,
    StoreAccessError,
    StoreBusyError,
    StoreFullError,
    TransactionError,
)
from jarvis.model.rewriting import RewriteProgress as MoveProgress
from jarvis.model.rewriting import Rewritten as Moved
from jarvis.persistent_memory import MemoryModule
from jarvis.sqlite_backend import SQLiteBackend

from .safety import model, processes
from .safety.faults import FailAt, installed, lifted
from .safety.moving_children import digest


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def memory(store: Path) -> MemoryModule:
    """A memory of 300 entries, some of which have a past."""
    memory = MemoryModule(storage_dir=store, busy_timeout_seconds=5)
    with memory.transaction():
        for number in range(300):
            value = {"n": number, "text": "x" * (number * 31 % 400)}
            memory.create_memory("things", f"k{number}", value, "thing", tags=["red", f"t{number % 7}"])
    with memory.transaction():
        for entry in memory.list_memories()[::5]:
            memory.update_memory(entry.id, {"again": True})
    return memory


def pending(database: Database) -> str | None:
    """Return what a run is called that was broken off; None if there is none."""
    return database.read(lambda session: touched_rows.run(session.rows))


def database_of(memory: MemoryModule) -> Database:
    assert isinstance(memory.backend, SQLiteBackend)
    return memory.backend._database


def move(memory: MemoryModule, after_swap: Callable[[], object] | None = None, **options: Any) -> Moved:
    """Move the store; call `after_swap` when the copy has its name, before anybody else can open it."""

    def note(*fields: Any) -> Note:
        if after_swap is not None:
            after_swap()
        return Note(*fields)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(mover, "PATIENCE_SECONDS", 0.2)
        patched.setattr(swap, "Note", note)
        return moving.move(database_of(memory), **options)


def at(stage: str, action: Callable[[], object], times: int = 1) -> Callable[[MoveProgress], None]:
    """Return what does something at the first reports of a stage."""
    left = times

    def report(progress: MoveProgress) -> None:
        nonlocal left
        if progress.stage == stage and left:
            left -= 1
            action()

    return report


def names(store: Path) -> list[str]:
    return sorted(each.name for each in store.iterdir())


STAGES = ("copy", "index", "verify", "swap")


@pytest.fixture
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(touched_rows, "MOST_ROWS", 50)


# --- what comes over -------------------------------------------------------------------------------------


def test_a_moved_store_holds_what_it_held(memory: MemoryModule, store: Path) -> None:
    before, inode = model.contents(memory), (store / "memory.db").stat().st_ino

    moved = move(memory)

    assert model.contents(memory) == before
    model.check_past(memory)
    memory.shutdown()
    assert (store / "memory.db").stat().st_ino != inode
    assert names(store) == ["memory.db", "memory.db.lock"]
    assert {"rows": moved.rows, "digest": moved.digest} == digest(str(store))
    assert moved.rows["entries"] == 300
    connection = moving.plain(str(store / "memory.db"))
    verification.verify(connection, str(store), encrypted=False)
    connection.close()


def test_the_schema_and_the_statistics_come_over(memory: MemoryModule, store: Path) -> None:
    def schema() -> list[Any]:
        memory.shutdown()
        connection = moving.plain(str(store / "memory.db"))
        try:
            found: list[Any] = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema").fetchall()
            found += connection.execute("SELECT * FROM sqlite_stat1").fetchall()
            return [*sorted(map(repr, found)), connection.pragma("application_id"), connection.pragma("user_version")]
        finally:
            connection.close()

    before = schema()
    move(memory)

    assert schema() == before


def test_a_moved_store_is_not_compared_at_its_next_opening(
    memory: MemoryModule, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move(memory)
    monkeypatch.setattr(verification, "verify", lambda *_: pytest.fail("it was compared"))

    with MemoryModule(storage_dir=store) as other:
        assert other.count_memories() == 300
    memory.shutdown()


def test_an_id_of_a_name_that_is_gone_is_not_given_again(memory: MemoryModule) -> None:
    memory.create_memory("a category of its own", "one", {}, "thing")
    assert memory.erase_memories(category="a category of its own").state == "done"

    def last_id() -> Any:
        return database_of(memory).read(lambda session: session.rows("SELECT seq FROM sqlite_sequence"))

    before = last_id()
    move(memory)

    assert last_id() == before


def test_the_mode_of_the_file_stays(memory: MemoryModule, store: Path) -> None:
    (store / "memory.db").chmod(0o640)

    move(memory)

    assert (store / "memory.db").stat().st_mode & 0o777 == 0o640


def test_a_flipped_bit_of_a_moved_store_is_noticed(memory: MemoryModule, store: Path) -> None:
    move(memory)
    memory.shutdown()
    data = bytearray((store / "memory.db").read_bytes())
    place = data.index(b"again")
    data[place] ^= 1
    (store / "memory.db").write_bytes(data)

    with pytest.raises(CorruptStoreError), MemoryModule(storage_dir=store) as damaged:
        damaged.list_memories()


# --- what changes meanwhile ------------------------------------------------------------------------------


@pytest.mark.usefixtures("_small_chunks")
@pytest.mark.parametrize("stage", STAGES)
def test_what_changes_at_any_stage_is_in_the_moved_store(memory: MemoryModule, store: Path, stage: str) -> None:
    other = MemoryModule(storage_dir=store, history=HistoryPolicy(max_revisions=3))
    number = 0

    def change() -> None:
        nonlocal number
        number += 1
        entries = other.get_memories_by_category("things")
        other.create_memory("things", f"new{number}", {"n": number}, "thing", tags=["green"])
        assert other.update_memory(entries[0].id, {"changed": number}, ["blue"])
        assert other.delete_memory(entries[-1].id)
        with other.transaction():
            for entry in entries[100:110]:
                other.update_memory(entry.id, {"in a transaction": number})
            other.upsert_memory("things", "again and again", {"n": number}, "thing")

    move(memory, progress=at(stage, change, times=5))

    assert number > 0
    found = model.contents(other)
    assert model.contents(memory) == found
    assert {f"new{each + 1}" for each in range(number)} <= set(found)
    memory.shutdown()
    other.shutdown()
    with MemoryModule(storage_dir=store) as again:
        assert model.contents(again) == found


@pytest.mark.usefixtures("_small_chunks")
def test_what_expires_and_is_pruned_meanwhile_is_gone(memory: MemoryModule, store: Path) -> None:
    past = memory.create_memory("things", "passing", {}, "thing", ttl=timedelta(microseconds=1))
    later = datetime.now(UTC) + timedelta(days=2)
    few = SQLiteBackend(store / "memory.db", history=HistoryPolicy(max_age=timedelta(days=1)))

    def tidy() -> None:
        few.purge_expired(1000)
        few.prune(later, 1000)

    moved = move(memory, progress=at("verify", tidy, times=2))

    assert memory.get_memory(past) is None
    memory.shutdown()
    few.shutdown()
    assert {"rows": moved.rows, "digest": moved.digest} == digest(str(store))
    assert moved.rows["revisions"] < 60


def test_a_write_that_waits_while_the_file_is_swapped_goes_into_the_new_one(memory: MemoryModule, store: Path) -> None:
    others = [MemoryModule(storage_dir=store, busy_timeout_seconds=5) for _ in range(3)]
    for other in others:
        other.count_memories()
    began, wrong = threading.Barrier(4), []

    def create() -> None:
        others[0].count_memories()
        began.wait()
        others[0].create_memory("things", "alone", {}, "thing")

    def in_transaction() -> None:
        others[1].count_memories()
        began.wait()
        with others[1].transaction():
            others[1].create_memory("things", "in a transaction", {}, "thing")

    def clear() -> None:
        others[2].count_memories()
        began.wait()
        others[2].upsert_memory("things", "upserted", {}, "thing")

    def noting(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  it is the finding
            wrong.append(repr(error))

    threads = [threading.Thread(target=noting, args=(work,), daemon=True) for work in (create, in_transaction, clear)]

    def start(_: str) -> None:
        for thread in threads:
            thread.start()
        began.wait()
        threading.Event().wait(0.2)  # they come as far as the lock

    move(memory, before_swap=start)
    for thread in threads:
        thread.join()

    assert wrong == []
    assert {"alone", "in a transaction", "upserted"} <= set(model.contents(memory))
    for each in others:
        each.shutdown()
    memory.shutdown()
    with MemoryModule(storage_dir=store) as again:
        assert again.count_memories() == 303


def test_who_opens_while_the_file_is_swapped_waits_and_finds_the_new_one(memory: MemoryModule, store: Path) -> None:
    found: list[object] = []

    def look(read_only: bool) -> None:
        try:
            with MemoryModule(storage_dir=store, read_only=read_only) as other:
                found.append(other.count_memories())
                if not read_only:
                    other.create_memory("things", "of the opener", {}, "thing")
                    found.append(database_of(other).pool._prepared)
        except BaseException as error:  # noqa: BLE001  it is the finding
            found.append(repr(error))

    threads = [threading.Thread(target=look, args=(read_only,), daemon=True) for read_only in (False, True)]

    def start() -> None:
        for thread in threads:
            thread.start()
        threading.Event().wait(0.2)
        assert found == []

    move(memory, after_swap=start)
    for thread in threads:
        thread.join()

    status = (store / "memory.db").stat()
    assert (status.st_dev, status.st_ino) in found
    assert memory.count_memories() == 301
    memory.shutdown()


def test_an_iteration_of_the_old_file_sees_its_state_to_the_end(memory: MemoryModule, store: Path) -> None:
    other = MemoryModule(storage_dir=store)
    readings = []
    keys = []

    def begin(_: str) -> None:
        readings.append(other.iter_memories())
        keys.append(next(readings[0]).key)

    move(memory, before_swap=begin)
    memory.clear_all()
    memory.create_memory("things", "new", {}, "thing")

    keys += [entry.key for entry in readings[0]]
    assert len(keys) == 300
    assert [entry.key for entry in other.list_memories()] == ["new"]
    other.shutdown()
    memory.shutdown()


# --- broken off, and gone on with ------------------------------------------------------------------------


class BreakError(Exception):
    pass


def breaking() -> None:
    raise BreakError


@pytest.mark.usefixtures("_small_chunks")
@pytest.mark.parametrize("stage", STAGES)
def test_a_move_that_its_progress_breaks_off_is_gone_on_with(memory: MemoryModule, store: Path, stage: str) -> None:
    before = model.contents(memory)
    reports: list[MoveProgress] = []

    def report(progress: MoveProgress) -> None:
        reports.append(progress)
        if progress.stage == stage and len(reports) > 4:
            breaking()

    with pytest.raises(BreakError):
        move(memory, progress=report)
    assert model.contents(memory) == before
    run = pending(database_of(memory))
    assert run is not None
    memory.create_memory("things", "meanwhile", {}, "thing")
    memory.delete_memory(memory.list_memories()[-1].id)
    memory.shutdown()
    expected = model.contents(memory)

    again: list[MoveProgress] = []
    moved = move(memory, progress=again.append)

    assert moved.run == run
    assert moved.resumed > 0
    assert again[0].stage != "copy" or again[0].done == moved.resumed
    assert pending(database_of(memory)) is None
    assert model.contents(memory) == expected
    memory.shutdown()
    assert {"rows": moved.rows, "digest": moved.digest} == digest(str(store))
    assert names(store) == ["memory.db", "memory.db.lock"]


@pytest.mark.parametrize("hook", ["before_swap", "after_swap"])
def test_what_a_hook_raises_leaves_a_whole_store(memory: MemoryModule, store: Path, hook: str) -> None:
    before = model.contents(memory)
    inode = (store / "memory.db").stat().st_ino

    with pytest.raises(BreakError):
        move(memory, **{hook: lambda *_: breaking()})

    assert model.contents(memory) == before
    memory.create_memory("things", "afterwards", {}, "thing")
    is_swapped = (store / "memory.db").stat().st_ino != inode
    assert is_swapped == (hook == "after_swap")
    if not is_swapped:
        assert move(memory).resumed > 300
    assert memory.count_memories() == 301
    memory.shutdown()
    assert names(store) == ["memory.db", "memory.db.lock"]


def test_a_move_that_is_given_up_leaves_nothing(memory: MemoryModule, store: Path) -> None:
    before = model.contents(memory)
    with pytest.raises(BreakError):
        move(memory, progress=at("verify", breaking))
    assert ".memory.db.moving" in names(store)

    moving.abandon(database_of(memory))

    assert pending(database_of(memory)) is None
    assert model.contents(memory) == before
    tables = database_of(memory).read(lambda session: session.rows("SELECT name FROM sqlite_schema"))
    assert not [name for (name,) in tables if name.startswith("moved")]
    moving.abandon(database_of(memory))
    memory.shutdown()
    assert names(store) == ["memory.db", "memory.db.lock"]


@pytest.mark.parametrize("damage", ["gone", "cut", "of another run", "no database"])
def test_a_copy_that_does_not_fit_is_made_anew(memory: MemoryModule, store: Path, damage: str) -> None:
    with pytest.raises(BreakError):
        move(memory, progress=at("verify", breaking))
    copy = store / ".memory.db.moving"
    if damage == "gone":
        copy_file.remove(str(store / "memory.db"))
    elif damage == "cut":
        copy_file.remove(str(store / "memory.db"))
        copy.touch()
    elif damage == "no database":
        copy_file.remove(str(store / "memory.db"))
        copy.write_bytes(b"of another key " * 1000)
    else:
        connection = moving.plain(str(copy))
        connection.execute("UPDATE moving SET run = 'another'")
        connection.close()

    moved = move(memory)

    assert moved.resumed == 0
    assert memory.count_memories() == 300
    memory.shutdown()
    assert names(store) == ["memory.db", "memory.db.lock"]


def test_a_copy_of_a_store_that_another_took_the_place_of_is_not_used(memory: MemoryModule, store: Path) -> None:
    memory.shutdown()
    shutil.copy(store / "memory.db", store.with_name("backup"))
    with pytest.raises(BreakError):
        move(memory, progress=at("verify", breaking))
    memory.create_memory("things", "not in the backup", {}, "thing")
    memory.shutdown()
    os.replace(store.with_name("backup"), store / "memory.db")
    (store / "memory.db.lock").unlink()  # which knows of a later commit

    assert move(memory).resumed == 0
    assert memory.count_memories() == 300
    memory.shutdown()


def test_a_copy_of_the_file_that_was_taken_meanwhile_notes_nothing_any_more(
    memory: MemoryModule, store: Path, tmp_path: Path
) -> None:
    def back_up() -> None:
        memory.shutdown()
        (tmp_path / "other").mkdir()
        shutil.copy(store / "memory.db", tmp_path / "other" / "memory.db")

    move(memory, progress=at("verify", back_up))

    with MemoryModule(storage_dir=tmp_path / "other") as other:
        assert pending(database_of(other)) is None
        assert other.erase_memory(other.list_memories()[0].id).state == "done"
    memory.shutdown()


def test_a_store_that_is_replaced_while_it_is_moved_is_left_alone(memory: MemoryModule, store: Path) -> None:
    memory.shutdown()
    shutil.copy(store / "memory.db", store.with_name("backup"))

    def restore() -> None:
        memory.shutdown()
        os.replace(store.with_name("backup"), store / "memory.db")

    with pytest.raises(StoreAccessError, match="another store put in its place"):
        move(memory, progress=at("verify", restore))

    assert memory.count_memories() == 300
    memory.shutdown()


# --- not allowed, not now --------------------------------------------------------------------------------


def test_a_second_mover_is_refused(memory: MemoryModule, store: Path) -> None:
    other = MemoryModule(storage_dir=store)
    refused = []

    def second() -> None:
        for each in (memory, other):
            with pytest.raises(StoreBusyError, match="moved by somebody else"):
                move(each)
            with pytest.raises(StoreBusyError, match="moved by somebody else"):
                moving.abandon(database_of(each))
            refused.append(each)

    move(memory, progress=at("verify", second))

    assert len(refused) == 2
    assert other.count_memories() == 300
    other.shutdown()
    memory.shutdown()


def test_a_store_is_not_moved_inside_a_transaction_nor_read_only(memory: MemoryModule, store: Path) -> None:
    with memory.transaction(), pytest.raises(TransactionError, match="leave the transaction"):
        move(memory)
    with MemoryModule(storage_dir=store, read_only=True) as reader, pytest.raises(ReadOnlyStoreError):
        move(reader)

    assert pending(database_of(memory)) is None
    memory.shutdown()


def test_a_reader_of_an_older_state_hinders_the_swap_and_nothing_else(memory: MemoryModule, store: Path) -> None:
    other = MemoryModule(storage_dir=store)
    other.create_memory("things", "in the log", {}, "thing")
    reading = other.iter_memories()
    next(reading)
    other.create_memory("things", "after it began", {}, "thing")

    with pytest.raises(StoreBusyError, match="reads an older state"):
        move(memory)
    memory.create_memory("things", "later", {}, "thing")
    assert len(list(reading)) == 300
    moved = move(memory)

    assert moved.resumed > 300
    assert memory.count_memories() == other.count_memories() == 303
    other.shutdown()
    memory.shutdown()


def test_a_copy_that_is_not_equal_is_noticed_and_the_store_stays(memory: MemoryModule, store: Path) -> None:
    before, inode = model.contents(memory), (store / "memory.db").stat().st_ino
    changes = (
        "UPDATE entries SET key = 'forged' WHERE row = (SELECT min(row) FROM entries)",
        "DELETE FROM tags WHERE row = (SELECT max(row) FROM tags)",
        "DELETE FROM revisions WHERE ended = (SELECT max(ended) FROM revisions)",
        "INSERT INTO names (name) VALUES ('of nobody')",
    )
    for change in changes:

        def forge(sql: str = change) -> None:
            connection = moving.plain(str(store / ".memory.db.moving"))
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.execute(sql)
            connection.close()

        with pytest.raises(StoreAccessError, match="does not equal"):
            move(memory, progress=at("verify", forge))
        assert ".memory.db.moving" not in names(store)
        assert model.contents(memory) == before

    assert (store / "memory.db").stat().st_ino == inode
    memory.shutdown()


def _open_files() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.parametrize("stage", STAGES)
def test_a_child_that_is_forked_meanwhile_writes_and_the_move_goes_on_in_the_parent(
    memory: MemoryModule, store: Path, stage: str
) -> None:
    children: list[int] = []

    def fork() -> None:
        child = os.fork()
        if not child:
            code = 70
            try:
                assert not [path for path in _open_files() if ".memory.db.moving" in path and ".lock" not in path]
                memory.create_memory("things", "of the child", {}, "thing")
                memory.shutdown()
                code = 0
            finally:
                os._exit(code)
        children.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    move(memory, progress=at(stage, fork))

    assert children == [0]
    assert "of the child" in model.contents(memory)
    memory.shutdown()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_a_fork_does_not_move_twice(memory: MemoryModule, store: Path) -> None:
    pids: list[int] = []
    code = None
    try:
        moved = move(memory, progress=at("verify", lambda: pids.append(os.fork())))
    except TransactionError:
        code = 0 if pids == [0] else 71
    finally:
        if pids == [0]:
            os._exit(72 if code is None else code)

    assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 0
    assert moved.rows["entries"] == memory.count_memories() == 300
    memory.shutdown()


# --- erasing ---------------------------------------------------------------------------------------------


def _finds(store: Path, text: bytes) -> list[str]:
    return [each.name for each in store.iterdir() if text in each.read_bytes()]


@pytest.mark.usefixtures("_small_chunks")
@pytest.mark.parametrize("stage", STAGES)
def test_what_is_erased_while_a_store_is_moved_is_gone_when_that_is_done(
    memory: MemoryModule, store: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jarvis._sqlite.database._ERASING_AGAIN_SECONDS", 0.0)
    token = "QWERTZUIOP123"
    ids = [memory.create_memory("secrets", f"{token}{n}", {token: token * 9}, token, token, [token]) for n in range(30)]
    for each in ids:
        memory.update_memory(each, {"more": token * 20})
    receipts = []

    move(memory, progress=at(stage, lambda: receipts.append(memory.erase_memories(category="secrets"))))

    assert [receipt.state for receipt in receipts] == ["pending"]
    memory.create_memory("things", "the next write", {}, "thing")
    assert memory.erase_memory(ids[0]).state == "done"
    memory.shutdown()
    assert _finds(store, token.encode()) == []
    assert memory.count_memories() == 301
    memory.shutdown()


def test_an_erasure_that_was_not_finished_is_finished_behind_a_move(
    memory: MemoryModule, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "QWERTZUIOP123"
    memory.create_memory("secrets", token, {token: token * 9}, token, token, [token])
    other = MemoryModule(storage_dir=store)
    reading = other.iter_memories()
    next(reading)
    assert memory.erase_memories(category="secrets").state == "pending"
    reading.close()  # type: ignore[attr-defined]  # it is a generator

    move(memory)
    memory.shutdown()
    other.shutdown()
    with MemoryModule(storage_dir=store) as again:
        again.bootstrap()

    assert _finds(store, token.encode()) == []


def test_an_erasure_removes_the_copy_of_a_store_that_is_not_moved_any_more(memory: MemoryModule, store: Path) -> None:
    (store / ".memory.db.moving").write_bytes(b"left by somebody")

    assert memory.erase_memory(memory.list_memories()[0].id).state == "done"

    memory.shutdown()
    assert names(store) == ["memory.db", "memory.db.lock"]


# --- what goes wrong -------------------------------------------------------------------------------------


def test_a_full_disk_at_any_moment_leaves_the_store_and_the_move_is_gone_on_with(
    memory: MemoryModule, store: Path, tmp_path: Path
) -> None:
    before = model.contents(memory)
    memory.shutdown()
    number = 1
    errors: list[str] = []
    while True:
        copy = tmp_path / f"copy {number}"
        shutil.copytree(store, copy)
        hook = FailAt(number, 28, verbs=frozenset({"write", "truncate", "replace", "link", "open"}), lasting=True)
        with installed(hook):
            other = MemoryModule(storage_dir=copy, busy_timeout_seconds=1)
            try:
                move(other)
            except (StoreFullError, StoreAccessError) as error:  # the latter for a file that cannot be opened
                errors.append(str(error))
            with lifted():
                assert model.contents(other) == before, number
                other.create_memory("things", "afterwards", {}, "thing")
                if pending(database_of(other)) is not None:
                    move(other)
                assert other.count_memories() == 301
                other.shutdown()
                assert names(copy) == ["memory.db", "memory.db.lock"], number
        shutil.rmtree(copy)
        if hook.failed is None:
            break
        number += max(number // 4, 1)

    assert len(errors) > 10
    assert [error for error in errors if not error.startswith(str(tmp_path))] == []


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_store_of_an_earlier_version_gives_up_a_move_when_it_is_migrated(store: Path, version: int) -> None:
    store.mkdir()
    shutil.copy(Path(__file__).parent / "stores" / f"version-{version}.db", store / "memory.db")
    connection = moving.plain(str(store / "memory.db"))
    for sql in touched_rows.beginning(touched_rows.of(connection)):
        connection.execute(sql).fetchall()
    connection.close()
    (store / ".memory.db.moving").write_bytes(b"begun by the earlier version")

    with MemoryModule(storage_dir=store) as memory:
        before = memory.list_memories()
        assert pending(database_of(memory)) is None
        assert ".memory.db.moving" not in names(store)
        move(memory)
        assert memory.list_memories() == before != []
    connection = moving.plain(str(store / "memory.db"))
    verification.verify(connection, str(store), encrypted=False)
    connection.close()


def test_a_process_killed_behind_the_swap_leaves_it_to_be_finished(memory: MemoryModule, store: Path) -> None:
    before = model.contents(memory)
    memory.shutdown()
    child = os.fork()
    if not child:
        move(memory, after_swap=lambda: os._exit(9))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert ".memory.db.moved-shm" in names(store)

    reader = MemoryModule(storage_dir=store, read_only=True, busy_timeout_seconds=0.05)
    with pytest.raises(StoreBusyError, match="without read_only=True"):
        reader.count_memories()
    assert model.contents(memory) == before
    assert reader.count_memories() == 300
    reader.shutdown()
    moving.abandon(database_of(memory))  # of which only the lock is left
    memory.shutdown()
    assert names(store) == ["memory.db", "memory.db.lock"]


def test_the_log_knows_every_table_that_can_be_noted(memory: MemoryModule) -> None:
    tables = database_of(memory).read(lambda session: touched_rows.tables(session.rows))

    assert {table.name: table.key for table in tables} == {
        "clock": ("only",),
        "commits": ("last",),
        "entries": ("row",),
        "events": ("number",),
        "gaps": ("namespace", "id"),
        "names": ("id",),
        "past_tags": ("namespace", "tag", "instant", "row"),
        "revisions": ("ended",),
        "tags": ("namespace", "tag", "instant", "row"),
        "vectors": ("namespace", "row"),
    }
    memory.shutdown()


# --- between the files -----------------------------------------------------------------------------------


def test_a_connection_that_was_made_beside_a_swap_is_not_used(
    memory: MemoryModule, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.shutdown()
    swaps: list[str] = []

    def swap_once(connection: apsw.Connection) -> None:
        """Come when the file is open, and nothing is read: the log and its index are those of the next file."""
        if not swaps:
            swaps.append(processes.end(processes.start("moving_children", "move_until", store, "never", 1)))
        keep_plans(connection)

    keep_plans = engine._keep_plans
    monkeypatch.setattr(engine, "_keep_plans", swap_once)
    file = database_of(memory).file
    connection, status, _ = file.opened()
    try:
        assert len(swaps) == 1
        assert status.st_ino == (store / "memory.db").stat().st_ino
    finally:
        connection.close()


def test_nobody_is_let_in_when_a_swap_begins_in_the_last_moment(
    memory: MemoryModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.shutdown()
    file = database_of(memory).file
    awaited: list[bool] = []

    def say(*, is_over: bool) -> None:
        try:
            file.lock.acquire(1)
            file.lock.write_swap(1, is_over=is_over)
        finally:
            file.lock.release()

    def await_swap() -> None:
        say(is_over=bool(awaited))
        awaited.append(True)

    monkeypatch.setattr(file, "await_swap", await_swap)
    file.opened()[0].close()

    assert len(awaited) == 2


def test_a_swap_that_was_taken_back_leaves_the_writers_of_the_old_file_what_they_have(
    memory: MemoryModule, store: Path
) -> None:
    """As when a process is killed behind the renaming of the index, and others go on."""
    memory.create_memory("things", "in the log", {}, "thing")
    lock = database_of(memory).lock
    try:
        lock.acquire(1)
        lock.write_swap(1, is_over=False)
    finally:
        lock.release()
    os.replace(store / "memory.db-shm", store / ".memory.db.moved-shm")
    index = (store / ".memory.db.moved-shm").stat().st_ino

    memory.create_memory("things", "of a writer that has it open", {}, "thing")

    assert (store / "memory.db-shm").stat().st_ino == index
    said = processes.end(processes.start("moving_children", "keys", store))
    assert {"in the log", "of a writer that has it open"} <= set(json.loads(said))
    assert memory.count_memories() == 302
    memory.shutdown()


def test_an_opening_that_waited_for_the_lock_does_nothing_to_the_old_file(memory: MemoryModule, store: Path) -> None:
    file = database_of(memory).file
    connection, status, _ = file.opened()
    try:
        memory.shutdown()
        processes.end(processes.start("moving_children", "move_until", store, "never", 1))
        (store / "memory.db.lock").unlink()  # so that the whole is to be compared, under the lock

        with pytest.raises(ReplacedError):
            Opening(file)._check(connection, (status.st_dev, status.st_ino))
    finally:
        connection.close()
    assert memory.count_memories() == 300
    memory.shutdown()
