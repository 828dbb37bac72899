"""A hot standby answers questions and refuses changes; when it is promoted, programs go on, and nothing is lost."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg import conninfo

from jarvis._postgresql.connection import RUN
from jarvis.caching import CachedBackend
from jarvis.errors import ReadOnlyStoreError, StoreAccessError, StoreBusyError, StoreError, StoreMissingError
from jarvis.keys import Passphrase
from jarvis.persistent_memory import MemoryModule
from jarvis.postgresql_backend import PostgreSQLBackend
from jarvis.sealing import SealedBackend

from .cutting import Proxy
from .postgresql import Server
from .test_postgresql_words import NO_WORDS

NOW = "max_standby_streaming_delay = 0"
MANY = 1_100


class Pair:
    """A primary and its standby."""

    def __init__(self) -> None:
        self.primary = Server("max_connections = 40\nfsync = off")
        self.standby = self.primary.standby(NOW)

    def catch_up(self) -> None:
        """Wait until the standby has what was committed."""
        self.primary.await_standby(self.standby)

    def end(self) -> None:
        """Stop both for ever."""
        self.standby.end()
        self.primary.end()


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.end()


@pytest.fixture
def own_pair() -> Iterator[Pair]:
    """Servers that a test may kill and promote."""
    pair = Pair()
    yield pair
    pair.end()


def run(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def a_database(pair: Pair, name: str) -> tuple[str, str]:
    """Make an empty database; return where it is on the primary, and on the standby."""
    run(pair.primary.dsn, f"CREATE DATABASE {name}")
    pair.catch_up()
    return conninfo.make_conninfo(pair.primary.dsn, dbname=name), conninfo.make_conninfo(pair.standby.dsn, dbname=name)


def opened(dsn: str, **options: Any) -> MemoryModule:
    return MemoryModule(PostgreSQLBackend(dsn, **{"busy_timeout_seconds": 10, **options}))


def create(memory: MemoryModule, key: str, **more: Any) -> str:
    return memory.create_memory("things", key, {"text": f"a {key} thing"}, "thing", **more)


def keys(memory: MemoryModule) -> Counter[str]:
    return Counter(entry.key for entry in memory.iter_memories())


# --- what a standby answers ----------------------------------------------------------------------

FIRST = "6f0e7f6e-54dc-4a5c-9c5f-6a4b6f6f0001"


@pytest.fixture(scope="module")
def filled(pair: Pair) -> Pair:
    memory = opened(pair.primary.dsn)
    with memory.transaction():
        for number in range(MANY):  # more than a write indexes
            create(memory, f"{number}")
    memory.set_user_preference("theme", {"mode": "dark"})
    memory.create_memory("lamps", "kitchen", {"text": "a lamp"}, "lamp", entity_id="l1", tags=["red"])
    known = memory.get_memory_by_key("kitchen")
    assert known is not None
    memory.update_memory(known.id, {"text": "a bright lamp", "n": 2})
    memory.for_namespace("alice").record_task("build", {"status": "failed"})
    memory.record_turn("s1", "user", "Where is the lamp?")
    memory.shutdown()
    pair.catch_up()
    return pair


def lamp(memory: MemoryModule) -> str:
    entry = memory.get_memory_by_key("kitchen")
    assert entry is not None
    return entry.id


QUESTIONS: dict[str, Callable[[MemoryModule], object]] = {
    "get": lambda memory: memory.get_memory(lamp(memory)),
    "list": lambda memory: memory.list_memories(),
    "tags": lambda memory: memory.get_memories_by_tags(["red"]),
    "entity": lambda memory: memory.get_memories_by_entity("lamp", "l1"),
    "filter": lambda memory: memory.search_memories(where={"n": 2}),
    "count": lambda memory: memory.count_memories(category="lamps"),
    "names": lambda memory: (memory.list_keys(), memory.list_tags(), memory.list_categories()),
    "preferences": lambda memory: memory.get_user_preferences(),
    "history": lambda memory: memory.get_history(lamp(memory)),
    "as of": lambda memory: memory.get_memory_by_key("kitchen", as_of=datetime.now(UTC)),
    "changes": lambda memory: memory.changes(limit=MANY * 2),
    "cursor": lambda memory: memory.newest_cursor(),
    "iterate": lambda memory: list(memory.iter_memories()),
    "search": lambda memory: [each.entry for each in memory.search_text("lamp bright", limit=5)],
    "recall": lambda memory: [each.entry for each in memory.recall("where is the lamp", limit=5)],
    "context": lambda memory: memory.build_context("lamp").text,
    "conversation": lambda memory: memory.get_conversation("s1"),
    "plan": lambda memory: memory.plan_retention() is None,
    "analytics": lambda memory: memory.store.analytics().categories,
    "verify": lambda memory: memory.store.verify(),
    "digest": lambda memory: memory.store.digest(),
    "namespaces": lambda memory: memory.store.list_namespaces(),
    "another namespace": lambda memory: memory.for_namespace("alice").get_task_history(),
    "a namespace that was never written to": lambda memory: (
        memory.for_namespace("never").list_memories(),
        memory.for_namespace("never").search_text("lamp"),
        memory.for_namespace("never").newest_cursor(),
        memory.for_namespace("never").changes(),
    ),
}


@pytest.mark.parametrize("read_only", [True, False])
def test_a_standby_gives_every_answer_of_its_primary(read_only: bool, filled: Pair) -> None:
    primary, standby = opened(filled.primary.dsn, read_only=True), opened(filled.standby.dsn, read_only=read_only)

    for question, ask in QUESTIONS.items():
        assert ask(standby) == ask(primary), question
    assert standby.search_text("lamp", limit=5)
    primary.shutdown()
    standby.shutdown()


def _in_a_transaction(memory: MemoryModule) -> None:
    with memory.transaction():
        memory.count_memories()


CHANGES: dict[str, Callable[[MemoryModule], object]] = {
    "create": lambda memory: create(memory, "new"),
    "bulk": lambda memory: memory.create_memories(
        [{"category": "things", "key": f"b{number}", "value": {}, "entity_type": "thing"} for number in range(30)]
    ),
    "upsert": lambda memory: memory.upsert_memory("lamps", "kitchen", {"n": 3}),
    "update": lambda memory: memory.update_memory(lamp(memory), {"n": 3}),
    "move": lambda memory: memory.move_memory(lamp(memory), key="hall"),
    "preference": lambda memory: memory.set_user_preference("theme", {"mode": "light"}),
    "delete": lambda memory: memory.delete_memory(lamp(memory)),
    "clear": lambda memory: memory.clear_all(),
    "erase": lambda memory: memory.erase_memory(lamp(memory)),
    "erase a namespace": lambda memory: memory.store.erase_namespace("alice"),
    "restore": lambda memory: memory.restore_memory(lamp(memory), version=1),
    "touch": lambda memory: memory.touch_memory(lamp(memory), ttl=60.0),
    "remember": lambda memory: memory.remember("the lamp is old"),
    "sweep": lambda memory: memory.sweep(),
    "purge": lambda memory: memory.store.purge_expired(),
    "index": lambda memory: memory.store.rebuild_index(),
    "transaction": _in_a_transaction,
    "a new namespace": lambda memory: create(memory.for_namespace("new"), "one"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("read_only", [True, False])
def test_a_standby_refuses_every_change(read_only: bool, change: str, filled: Pair) -> None:
    memory = opened(filled.standby.dsn, read_only=read_only)
    before = memory.store.digest()

    with pytest.raises(ReadOnlyStoreError, match="read_only=True" if read_only else "is a standby"):
        CHANGES[change](memory)
    assert memory.store.digest() == before
    memory.shutdown()


def test_only_the_owner_of_the_primary_gives_rights(filled: Pair) -> None:
    backend = PostgreSQLBackend(filled.standby.dsn)

    with pytest.raises(ReadOnlyStoreError, match="is a standby"):
        backend.admit("postgres")
    backend.shutdown()


@pytest.mark.parametrize("read_only", [True, False])
def test_a_store_of_an_earlier_version_is_read_on_a_standby(read_only: bool, pair: Pair) -> None:
    here, there = a_database(pair, f"old_{read_only}".lower())
    create(opened(here), "first")
    run(here, NO_WORDS)
    pair.catch_up()
    memory = opened(there, read_only=read_only)

    assert keys(memory) == {"first": 1}
    assert [each.entry.key for each in memory.search_text("thing")] == ["first"]
    with pytest.raises(ReadOnlyStoreError):
        create(memory, "second")
    create(opened(here), "second")  # it migrates the store
    pair.catch_up()
    assert keys(memory) == {"first": 1, "second": 1}
    memory.shutdown()
    assert [each.entry.key for each in memory.search_text("second")] == ["second"]
    memory.shutdown()


def test_a_standby_without_a_store_says_so_until_there_is_one(pair: Pair) -> None:
    here, there = a_database(pair, "empty")
    reader, writer = opened(there, read_only=True), opened(there)
    sealed = MemoryModule(SealedBackend(PostgreSQLBackend(there), keys=[Passphrase("correct horse battery staple")]))

    with pytest.raises(StoreMissingError, match="no store"):
        reader.count_memories()
    for memory in (writer, sealed):
        with pytest.raises(ReadOnlyStoreError, match="is a standby"):
            memory.count_memories()
    create(opened(here), "first")
    pair.catch_up()
    assert keys(reader) == keys(writer) == {"first": 1}
    reader.shutdown()
    writer.shutdown()


@pytest.mark.parametrize("read_only", [True, False])
def test_a_sealed_store_is_read_on_a_standby(read_only: bool, pair: Pair) -> None:
    here, there = a_database(pair, f"sealed_{read_only}".lower())

    def sealed(dsn: str, **options: Any) -> MemoryModule:
        backend = PostgreSQLBackend(dsn, **options)
        return MemoryModule(SealedBackend(backend, keys=[Passphrase("correct horse battery staple")]))

    create(sealed(here), "first", tags=["red"])
    pair.catch_up()
    memory = sealed(there, read_only=read_only)

    assert [entry.key for entry in memory.get_memories_by_tags(["red"])] == ["first"]
    assert [each.entry.key for each in memory.search_text("thing")] == ["first"]
    assert [slot.source for slot in memory.store.key_slots()] == ["passphrase"]
    for change in (memory.store.rotate_key, lambda: memory.store.add_key_slot(Passphrase("another staple"))):
        with pytest.raises(ReadOnlyStoreError):
            change()
    memory.shutdown()


def test_a_cached_memory_on_a_standby_gives_no_answer_that_is_out_of_date(pair: Pair) -> None:
    primary = opened(pair.primary.dsn)
    standby = MemoryModule(CachedBackend(PostgreSQLBackend(pair.standby.dsn)))
    for number in range(3):
        create(primary, f"cached {number}")
        pair.catch_up()
        assert standby.get_memory_by_key(f"cached {number}") is not None
        assert standby.count_memories() == primary.count_memories()
    primary.shutdown()
    standby.shutdown()


def test_a_watcher_on_a_standby_sees_what_the_primary_commits(pair: Pair) -> None:
    primary, standby = opened(pair.primary.dsn), opened(pair.standby.dsn)
    create(primary, "seen 0")
    pair.catch_up()
    watch = standby.watch(idle_seconds=5)
    for number in range(3):
        create(primary, f"watched {number}")
        assert next(watch).key == f"watched {number}"
    watch.close()  # type: ignore[attr-defined]  # a generator
    primary.shutdown()
    standby.shutdown()


# --- what a primary takes from the questions of its standby --------------------------------------


def _vacuum(dsn: str) -> None:
    """Remove a row for good that questions on the standby may still see."""
    run(dsn, "CREATE TABLE IF NOT EXISTS junk (n int)", "INSERT INTO junk VALUES (1)", "DELETE FROM junk")
    run(dsn, "VACUUM junk")


SLOW = """
CREATE OR REPLACE FUNCTION jarvis.numbers_in(list text) RETURNS TABLE (value bigint) LANGUAGE sql STABLE STRICT AS
    'SELECT jsonb_array_elements_text(list::jsonb)::bigint FROM pg_sleep(0.4)'
"""


def test_a_question_that_the_standby_gives_up_for_its_primary_is_asked_again(pair: Pair) -> None:
    here, there = a_database(pair, "slow")
    with opened(here) as memory:
        for number in range(3):
            memory.create_memory(f"category {number}", "key", {}, f"type {number}")
    run(here, SLOW)
    pair.catch_up()
    standby = opened(there)
    with ThreadPoolExecutor(1) as pool, psycopg.connect(there, autocommit=True) as look:
        asked = pool.submit(standby.list_memories)
        while not look.execute("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'").fetchall():
            assert not asked.done()
        _vacuum(here)
        entries = asked.result()
        conflicts = "SELECT sum(confl_snapshot) FROM pg_stat_database_conflicts WHERE datname = 'slow'"
        assert look.execute(conflicts).fetchall() == [(1,)]

    assert len(entries) == 3
    standby.shutdown()


def test_an_iteration_that_the_standby_gives_up_for_its_primary_raises(filled: Pair) -> None:
    standby = opened(filled.standby.dsn)
    found = standby.iter_memories()
    next(found)
    _vacuum(filled.primary.dsn)
    filled.catch_up()

    with pytest.raises((StoreBusyError, StoreAccessError), match=r"conflict with recovery|connection to the server"):
        list(found)
    assert standby.count_memories()
    standby.shutdown()


# --- promotion -----------------------------------------------------------------------------------


def test_programs_write_on_a_promoted_standby_without_a_restart(own_pair: Pair) -> None:
    create(opened(own_pair.primary.dsn), "first")
    own_pair.catch_up()
    memory = MemoryModule(CachedBackend(PostgreSQLBackend(own_pair.standby.dsn)))
    assert keys(memory) == {"first": 1}
    with pytest.raises(ReadOnlyStoreError):
        create(memory, "early")
    watch = memory.watch(idle_seconds=5)

    own_pair.primary.kill()
    own_pair.standby.promote()
    create(memory, "second")
    assert next(watch).key == "second"
    assert keys(memory) == {"first": 1, "second": 1}
    assert memory.count_memories() == 2
    own_pair.primary.start()


def test_writers_of_two_hosts_go_on_at_the_new_primary_and_lose_nothing(own_pair: Pair) -> None:
    primary, standby = own_pair.primary, own_pair.standby
    create(opened(primary.dsn), "first")
    run(primary.dsn, "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
    both = f"{primary.directory},{standby.directory}"
    memory = opened(conninfo.make_conninfo(primary.dsn, host=both, target_session_attrs="read-write"))
    kept: list[str] = []
    refused: list[str] = []
    is_over = threading.Event()

    def write(thread: int) -> None:
        number = 0
        while not is_over.is_set():
            key, number = f"{thread}-{number}", number + 1
            try:
                create(memory, key)
                kept.append(key)
            except StoreError:
                refused.append(key)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    primary.kill()
    before = len(kept)
    standby.promote()
    while len(kept) < before + 100:
        time.sleep(0.01)
    is_over.set()
    for thread in threads:
        thread.join()
    there = keys(opened(standby.dsn))

    assert before
    assert not set(kept) - set(there)
    assert max(there.values()) == 1
    assert refused == []
    primary.start()


@pytest.mark.parametrize("other", ["nobody", "one"])
def test_a_commit_that_the_new_primary_does_not_have_is_not_taken_for_kept(other: str, own_pair: Pair) -> None:
    primary, standby = own_pair.primary, own_pair.standby
    with Proxy(primary.dsn) as proxy:
        memory = opened(proxy.dsn)
        create(memory, "first")
        memory.shutdown()
        own_pair.catch_up()
        run(standby.dsn, "ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
        with psycopg.connect(standby.dsn, autocommit=True) as look:
            while look.execute("SELECT FROM pg_stat_wal_receiver").fetchall():
                time.sleep(0.01)

        def fail_over() -> None:
            primary.kill()
            standby.promote()
            proxy.forward_to(standby.dsn)
            there = opened(standby.dsn)
            if other == "one":
                create(there, "other")
            proxy.cut()

        proxy.at_commit, proxy.meanwhile = "after", fail_over
        create(memory, "mine")

        assert keys(opened(standby.dsn)) == Counter(["first", "mine", *["other"] * (other == "one")])
    primary.start()


def test_a_writer_whose_connection_is_at_a_standby_looks_for_the_primary(pair: Pair) -> None:
    run(pair.primary.dsn, "DROP SCHEMA IF EXISTS jarvis CASCADE")
    with Proxy(pair.primary.dsn) as proxy:
        memory = opened(proxy.dsn)
        create(memory, "first")
        memory.shutdown()
        pair.catch_up()
        proxy.forward_to(pair.standby.dsn)
        assert keys(memory) == {"first": 1}
        proxy.forward_to(pair.primary.dsn)

        create(memory, "second")

    assert keys(opened(pair.primary.dsn)) == {"first": 1, "second": 1}


def test_the_run_of_a_server_has_one_name_in_all_time_zones(pair: Pair) -> None:
    with psycopg.connect(pair.primary.dsn, autocommit=True) as connection:
        names = set()
        for zone in ("UTC", "Asia/Kathmandu"):
            connection.execute(f"SET timezone = '{zone}'")
            names.add(connection.execute(f"SELECT {RUN}").fetchall()[0][0])

    assert len(names) == 1
