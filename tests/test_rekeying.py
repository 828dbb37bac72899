"""Stores on a server that are sealed, made plain, or given another key in their place."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import conninfo

from jarvis._postgresql import rewriting
from jarvis._sql import registry
from jarvis.capabilities import Encrypts
from jarvis.conformance.fixtures import an_entry
from jarvis.errors import (
    CorruptStoreError,
    InvalidSettingError,
    KeyUnavailableError,
    NotEncryptedError,
    ReadOnlyStoreError,
    StoreAccessError,
    StoreBusyError,
    TransactionError,
    UnsupportedError,
    WrongKeyError,
)
from jarvis.keys import KeyFunction, Passphrase
from jarvis.model.query import MemoryQuery
from jarvis.model.rewriting import RewriteProgress
from jarvis.persistent_memory import MemoryModule
from jarvis.postgresql_backend import PostgreSQLBackend
from jarvis.sealing import SealedBackend

from .postgresql import a_database
from .sealable import SealableJSON
from .test_sealing import WORDS, a_key, another_key, everything, live_through_everything, run

Open = Callable[..., SealedBackend]
NAMESPACES = ("default", "canary_space")
_KILLED = """
import os, signal, sys
from jarvis.keys import KeyFunction
from jarvis.postgresql_backend import PostgreSQLBackend
from jarvis.sealing import SealedBackend

backend = SealedBackend(PostgreSQLBackend(sys.argv[1]), encryption="off", keys=[KeyFunction(lambda: bytes(range(32)))])

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2] == "after":
    from jarvis._postgresql import rewriting
    rewriting.scrub = die
    backend.encrypt([], None)
else:
    backend.encrypt([], lambda told: told.done >= int(sys.argv[2]) and die())
"""


@pytest.fixture(params=[0, 3], ids=["plain tables", "partitioned"])
def partitions(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture
def dsn() -> Iterator[str]:
    with a_database() as dsn:
        yield dsn


@pytest.fixture
def store(dsn: str) -> Iterator[Open]:
    """Opens the store of a database, plain if it is new; arguments go to `SealedBackend`, or else to the backend."""
    opened = []

    def open_it(**options: Any) -> SealedBackend:
        of_sealing = {name: options.pop(name) for name in ("encryption", "keys", "compression") if name in options}
        given = {"encryption": "off", "keys": [KeyFunction(a_key)], **of_sealing}
        opened.append(SealedBackend(PostgreSQLBackend(dsn, **options), **given))
        return opened[-1]

    yield open_it
    for backend in opened:
        backend.shutdown()


def rows(dsn: str) -> dict[str, list[Any]]:
    """Return the rows of every table of memories but those of the index of words, which is made again later."""
    found = {}
    for table in ("clock", "names", "entries", "revisions", "gaps", "events", "commits", "tags", "past_tags", "roles"):
        found[table] = sorted(map(repr, run(dsn, f"SELECT * FROM jarvis.{table}")))
    return found


def told(backend: SealedBackend) -> list[Any]:
    """Return what every verb that reads tells of a store."""
    answers: list[Any] = [backend.list_namespaces()]
    for name in NAMESPACES:
        there = backend.for_namespace(name)
        memory = MemoryModule(there)
        answers += [there.list_all(), list(there.whole_memories(past=True)), there.changes(0, 1_000)]
        answers += [
            there.newest_cursor(),
            there.select(MemoryQuery(tags=["canary_tag"])),
            memory.get_user_preferences(),
        ]
        answers += [memory.list_categories(), there.revisions("canary_id"), list(there.findings(lambda: None))]
    return answers


# --- everything stays -----------------------------------------------------------------------------


def test_a_store_tells_the_same_before_and_after_each_change_of_its_key(store: Open, dsn: str, partitions: int) -> None:
    live_through_everything(store(partitions=partitions))
    backend, stored = store(), rows(dsn)
    before = told(backend)
    backend.iterate(MemoryQuery())

    done = backend.encrypt([], None)
    assert done is not None
    assert done.rows["entries"] == len(stored["entries"]) > 0
    assert done.rows["revisions"] == len(stored["revisions"]) > 0
    assert told(backend) == told(store()) == before
    assert backend.rotate([], None).rows == done.rows
    assert told(backend) == told(store()) == before
    backend.decrypt(None)

    assert told(backend) == told(store(keys=[])) == before
    assert rows(dsn) == stored


def test_a_store_that_is_sealed_in_its_place_shows_nothing_any_more(store: Open, dsn: str) -> None:
    backend = store()
    live_through_everything(backend)
    MemoryModule(backend).search_memories("canary_value")  # makes the index of words
    run(dsn, "ANALYZE")
    assert b"canary_value" in everything(dsn)
    assert "canary" in repr(run(dsn, "SELECT * FROM pg_stats WHERE schemaname = 'jarvis'"))

    backend.encrypt([], None)

    assert [word for word in WORDS if word.encode() in everything(dsn)] == []
    shown = repr(run(dsn, "SELECT * FROM pg_stats WHERE schemaname = 'jarvis'"))
    assert [word for word in WORDS if word in shown] == []
    assert in_files(dsn) == []


def in_files(dsn: str) -> list[str]:
    """Return which of `WORDS` stand in the files of the tables and indexes, as the server has them on its disk."""
    run(dsn, "CHECKPOINT")
    files = run(
        dsn,
        "SELECT pg_relation_filepath(oid) FROM pg_class WHERE relkind IN ('r', 'i', 't') AND (relnamespace = "
        "'jarvis'::regnamespace OR oid IN (SELECT reltoastrelid FROM pg_class WHERE relnamespace = "
        "'jarvis'::regnamespace))",
    )
    found = set()
    for (path,) in files:
        ((content,),) = run(dsn, "SELECT coalesce(pg_read_binary_file(%s), '')", path)
        found |= {word for word in WORDS if word.encode() in content}
    return sorted(found)


def test_the_files_of_a_plain_store_would_show_these_words(store: Open, dsn: str) -> None:
    live_through_everything(store())

    assert set(WORDS) - set(in_files(dsn)) <= {"canary_value"}  # most of these are compressed


def test_words_are_found_before_and_after(store: Open) -> None:
    memory = MemoryModule(store())
    for number in range(70):
        memory.create_memory("notes", f"note {number}", {"text": f"the kettle of room {number}"}, "note")
    words = ("kettle", "kett*", "lamp")

    def found() -> list[list[str]]:
        return [sorted(hit.entry.key for hit in memory.search_text(word, limit=100)) for word in words]

    before = found()
    assert [len(keys) for keys in before] == [70, 70, 0]
    memory.store.encrypt()
    memory.store.rotate_key()
    memory.create_memory("notes", "lamp", {"text": "a lamp"}, "note")
    memory.store.decrypt()

    assert found() == [*before[:2], ["lamp"]]
    assert memory.store.verify().problems == {}


def test_cursors_go_on_and_new_changes_follow_the_former_ones(store: Open) -> None:
    memory = MemoryModule(store())
    memory.set_user_preference("theme", {"mode": "dark"})
    cursor = memory.newest_cursor()
    was = memory.create_memory("notes", "one", {"n": 1}, "note", tags=["a"])

    memory.store.encrypt()
    memory.update_memory(was, {"n": 2})

    assert [change.operation for change in memory.changes(cursor)] == ["create", "update"]
    assert [each.version for each in memory.get_history(was)] == [1]
    assert [each.id for each in memory.search_memories(tags=["a"], where={"n": 2})] == [was]


def test_a_renewed_memory_is_still_renewed(store: Open, dsn: str) -> None:
    memory = MemoryModule(store())
    for _ in range(3):
        memory.set_user_preference("theme", {"mode": "dark"})
    before = rows(dsn)

    memory.store.encrypt()
    memory.set_user_preference("theme", {"mode": "dark"})

    assert len(memory.changes()) == 1
    assert run(dsn, "SELECT count(*) FROM jarvis.entries") == [(1,)]
    assert len(before["entries"]) == 1


def test_every_table_is_written_again_or_made_again() -> None:
    others = {table.name for table in registry.tables()} - {*rewriting.REWRITTEN}

    assert others == {"names", "text_stale", "text_counts", "text_mark", "text_index", "text_vocabulary", "vectors"}


# --- keys -----------------------------------------------------------------------------------------


def test_after_a_rotation_neither_the_former_key_nor_a_copy_of_the_keys_opens_it(store: Open, dsn: str) -> None:
    backend = store(encryption="on", keys=[KeyFunction(a_key)])
    backend.create(an_entry())
    ((old_keys,),) = run(dsn, "SELECT content FROM jarvis.keys")
    old_content = everything(dsn)

    backend.rotate([], None)

    ((new_keys,),) = run(dsn, "SELECT content FROM jarvis.keys")
    run(dsn, "UPDATE jarvis.keys SET content = %s", old_keys)
    with pytest.raises((CorruptStoreError, KeyUnavailableError)):
        assert store().list_namespaces() == []
    run(dsn, "UPDATE jarvis.keys SET content = %s", new_keys)
    assert store().read("1") == an_entry()
    names = [row[0].encode() for row in run(dsn, "SELECT id FROM jarvis.entries")]
    assert not any(name in old_content for name in names)


def test_sources_given_with_the_call_open_it_from_then_on(store: Open) -> None:
    words = Passphrase("correct horse battery staple")
    backend = store(keys=[])
    backend.create(an_entry())

    backend.encrypt([words], None)

    assert backend.for_namespace("other").list_all() == []
    assert [slot.source for slot in backend.key_slots()] == ["passphrase"]
    assert store(keys=[words]).read("1") == backend.read("1") == an_entry()
    with pytest.raises(KeyUnavailableError):
        store(keys=[]).read("1")
    backend.add_key_slot(KeyFunction(another_key))
    with pytest.raises(KeyUnavailableError, match="needs the source of each"):
        store(keys=[words]).rotate([], None)
    backend.rotate([KeyFunction(another_key)], None)
    assert store(keys=[KeyFunction(another_key)]).read("1") == an_entry()


def test_what_cannot_be_done_is_said_and_changes_nothing(store: Open, dsn: str, tmp_path: Any) -> None:
    backend = store()
    backend.create(an_entry())
    before = everything(dsn)

    refusals: list[Callable[[], object]] = [lambda: backend.decrypt(None), lambda: backend.rotate([], None)]
    for refused in refusals:
        with pytest.raises(NotEncryptedError, match="is plain"):
            refused()
    with pytest.raises(TransactionError), backend.transaction():
        backend.encrypt([], None)
    with pytest.raises(ReadOnlyStoreError):
        store(read_only=True).encrypt([], None)
    with pytest.raises(KeyUnavailableError, match="JARVIS_KEY"):
        store(keys=[]).encrypt([], None)
    assert everything(dsn) == before
    backend.encrypt([], None)
    with pytest.raises(InvalidSettingError, match="is encrypted already"):
        backend.encrypt([], None)
    with pytest.raises(InvalidSettingError, match="encryption='required'"):
        store(encryption="required").decrypt(None)
    with pytest.raises(UnsupportedError, match="cannot rewrite a store in its place"):
        SealedBackend(SealableJSON(tmp_path / "memory.json"), keys=[KeyFunction(a_key)]).rotate([], None)


def test_a_damaged_store_is_left_as_it_is(store: Open, dsn: str) -> None:
    backend = store()
    backend.create(an_entry())
    run(dsn, "UPDATE jarvis.entries SET body = 'no body'")
    before = everything(dsn)

    with pytest.raises(CorruptStoreError, match="cannot be decoded"):
        backend.encrypt([], None)

    assert everything(dsn) == before
    assert backend.list_namespaces() == ["default"]


def test_only_the_owner_of_the_tables_may_do_it(store: Open, dsn: str) -> None:
    owner = store()
    owner.create(an_entry())
    run(dsn, "DROP ROLE IF EXISTS rekeying_tenant; CREATE ROLE rekeying_tenant LOGIN")
    base: Any = owner.wrapped
    base.admit("rekeying_tenant", all_namespaces=True)
    try:
        tenant = SealedBackend(
            PostgreSQLBackend(conninfo.make_conninfo(dsn, user="rekeying_tenant")),
            encryption="off",
            keys=[KeyFunction(a_key)],
        )
        with pytest.raises(StoreAccessError, match="a right is missing"):
            tenant.encrypt([], None)

        assert tenant.read("1") == an_entry()
        owner.encrypt([], None)
        tenant.shutdown()
        assert tenant.read("1") == an_entry()
        tenant.update(an_entry(value={"n": 2}))
        tenant.shutdown()
    finally:
        run(dsn, "DROP OWNED BY rekeying_tenant; DROP ROLE rekeying_tenant")


def test_a_role_of_one_namespace_keeps_it(store: Open, dsn: str) -> None:
    owner = store()
    owner.for_namespace("alice").create(an_entry())
    run(dsn, "DROP ROLE IF EXISTS rekeying_alice; CREATE ROLE rekeying_alice LOGIN")
    base: Any = owner.for_namespace("alice").wrapped
    base.admit("rekeying_alice")
    try:
        owner.encrypt([], None)

        alice = SealedBackend(
            PostgreSQLBackend(conninfo.make_conninfo(dsn, user="rekeying_alice"), namespace="alice"),
            keys=[KeyFunction(a_key)],
        )
        assert alice.read("1") == an_entry()
        with pytest.raises(StoreAccessError, match="may see its own namespaces only"):
            alice.rotate([], None)
        alice.shutdown()
    finally:
        run(dsn, "DROP OWNED BY rekeying_alice; DROP ROLE rekeying_alice")


# --- others ---------------------------------------------------------------------------------------


ASKING: dict[str, Callable[[Any], object]] = {
    "read": lambda other: other.read("1"),
    "an absent one": lambda other: other.read("2"),
    "key": lambda other: other.newest_of_key("theme"),
    "list": lambda other: other.list_all(),
    "count": lambda other: other.count(MemoryQuery()),
    "iterate": lambda other: list(other.iterate(MemoryQuery())),
    "many": lambda other: other.read_many(["1"]),
    "where": lambda other: other.select(MemoryQuery(where={"mode": "dark"})),
    "names": lambda other: other.list_namespaces(),
    "revisions": lambda other: other.revisions("1"),
    "feed": lambda other: other.changes(0, 10),
    "cursor": lambda other: other.newest_cursor(),
    "create": lambda other: other.create(an_entry("3")),
    "discard": lambda other: other.discard("1"),
    "transaction": lambda other: other.transaction().__enter__(),
}


CHANGES: list[Callable[[SealedBackend], object]] = [
    lambda backend: backend.encrypt([], None),
    lambda backend: backend.rotate([], None),
    lambda backend: backend.decrypt(None),
]


@pytest.mark.parametrize("asked", ASKING)
def test_who_has_it_open_is_told_and_never_gets_a_wrong_answer(store: Open, asked: str) -> None:
    backend, other = store(), store()
    backend.create(an_entry())
    assert other.read("1") == an_entry()
    assert other.read("2") is None

    for change in CHANGES:
        change(backend)

        with pytest.raises(StoreAccessError, match="is another store than the one that was opened"):
            ASKING[asked](other)
        other.shutdown()
        assert other.read("1") == an_entry()
    assert other.count(MemoryQuery()) == 1


def test_who_has_it_open_without_keys_is_told(store: Open, dsn: str) -> None:
    backend, other = store(), PostgreSQLBackend(dsn)
    backend.create(an_entry())
    assert other.read("1") == an_entry()

    backend.encrypt([], None)

    with pytest.raises(StoreAccessError, match="is another store than the one that was opened"):
        other.read("2")
    other.shutdown()
    with pytest.raises(KeyUnavailableError, match="is sealed"):
        other.read("2")


def test_what_threads_of_the_process_were_told_is_kept(store: Open) -> None:
    backend = store()
    backend.create(an_entry("first"))
    kept, refused, is_over = set[str](), list[Exception](), threading.Event()

    def write(thread: int) -> None:
        number = 0
        while not is_over.is_set():
            number += 1
            try:
                backend.create_many([an_entry(f"{thread}-{number}-{each}") for each in "ab"])
                assert backend.read(f"{thread}-{number}-a") is not None
                backend.update(an_entry(f"{thread}-{number}-a", value={"n": 2}))
            except (StoreAccessError, WrongKeyError) as error:
                refused.append(error)
            else:
                kept.update(f"{thread}-{number}-{each}" for each in "ab")

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(3)]
    for each in threads:
        each.start()
    for change in CHANGES:
        time.sleep(0.1)
        change(backend)
    is_over.set()
    for each in threads:
        each.join()

    there = {entry.id for entry in backend.list_all()}
    assert len(kept) > 20
    assert kept - there == set()
    assert list(backend.findings(lambda: None)) == []


def test_writers_wait_and_readers_go_on_meanwhile(store: Open, dsn: str) -> None:
    backend = store()
    for number in range(300):
        backend.create(an_entry(str(number)))
    reader, writer, seen = store(), store(), []
    assert len(reader.list_all()) == 300
    refused: list[Exception] = []

    def write() -> None:
        try:
            writer.create(an_entry("new"))
        except StoreAccessError as error:
            refused.append(error)

    threads = [threading.Thread(target=write)]

    def look(told: RewriteProgress) -> None:
        seen.append(len(reader.list_all()))
        if len(seen) == 1:
            threads[0].start()

    with pytest.raises(StoreBusyError):
        store(busy_timeout_seconds=0.2).encrypt(
            [],
            lambda _: PostgreSQLBackend(
                dsn,
                busy_timeout_seconds=0.2,
            ).create(an_entry("in vain")),
        )
    backend.encrypt([], look)
    threads[0].join()

    assert set(seen) == {300}
    assert "is another store" in str(refused[0])
    assert {entry.id for entry in backend.list_all()} == {str(number) for number in range(300)}


def test_a_progress_that_raises_leaves_all_as_it_was(store: Open, dsn: str) -> None:
    backend = store()
    live_through_everything(backend)
    before = everything(dsn)

    def stop(told: RewriteProgress) -> None:
        if told.done > 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backend.encrypt([], stop)

    assert everything(dsn) == before
    assert backend.count(MemoryQuery()) > 0


@pytest.mark.parametrize("moment", ["1", "12", "25"])
def test_a_kill_leaves_the_former_state_and_the_next_call_does_it(store: Open, dsn: str, moment: str) -> None:
    backend = store()
    live_through_everything(backend)
    before = told(backend)

    killed = subprocess.run([sys.executable, "-c", _KILLED, dsn, moment], check=False)

    assert killed.returncode == -signal.SIGKILL
    assert told(backend) == told(store()) == before
    assert backend.encrypt([], None) is not None
    assert told(backend) == before


def test_a_kill_after_the_commit_leaves_the_new_state_and_the_next_call_ends_it(store: Open, dsn: str) -> None:
    live_through_everything(store())
    before = told(store())

    killed = subprocess.run([sys.executable, "-c", _KILLED, dsn, "after"], check=False)

    assert killed.returncode == -signal.SIGKILL
    backend = store()
    assert told(backend) == before
    assert in_files(dsn) != []
    assert backend.encrypt([], None) is None
    assert told(backend) == before
    assert in_files(dsn) == []
    with pytest.raises(InvalidSettingError, match="is encrypted already"):
        backend.encrypt([], None)


def test_a_reader_of_the_former_state_is_waited_for_and_then_named(store: Open, dsn: str) -> None:
    backend = store(busy_timeout_seconds=0.3)
    live_through_everything(backend)
    with psycopg.connect(dsn) as reader:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT 1").fetchall()

        with pytest.raises(StoreBusyError, match="a transaction in this database began before"):
            backend.encrypt([], None)

    assert told(backend) == told(store())
    assert backend.encrypt([], None) is None
    assert in_files(dsn) == []


def test_of_two_who_seal_it_at_once_one_does(store: Open) -> None:
    store().create(an_entry())
    backends, outcomes = [store() for _ in range(2)], list[object]()
    ready = threading.Barrier(2)

    def seal(backend: SealedBackend) -> None:
        backend.read("1")
        ready.wait()
        try:
            outcomes.append(backend.encrypt([], lambda _: time.sleep(0.02)))
        except (StoreBusyError, StoreAccessError, InvalidSettingError) as error:
            outcomes.append(error)

    threads = [threading.Thread(target=seal, args=(backend,)) for backend in backends]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(isinstance(outcome, Exception) for outcome in outcomes) == 1
    assert store().read("1") == an_entry()
    assert len(store().key_slots()) == 1


def test_a_new_store_in_its_place_is_not_taken_for_it(store: Open, dsn: str) -> None:
    backend = store(encryption="on")
    backend.create(an_entry())
    run(dsn, "DROP SCHEMA jarvis CASCADE")
    other = SealedBackend(PostgreSQLBackend(dsn), keys=[KeyFunction(another_key)])
    other.bootstrap()

    with pytest.raises(StoreAccessError, match="is another store"):
        backend.read("1")
    backend.shutdown()
    with pytest.raises(WrongKeyError):
        backend.read("1")
    assert backend.capability(Encrypts) is backend
    other.shutdown()
