"""A PostgreSQL server ends, refuses or keeps silent: no write is lost or doubled, and errors say what was kept."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from jarvis.errors import (
    OutcomeUnknownError,
    StoreAccessError,
    StoreBusyError,
)
from jarvis.model.policies import HistoryPolicy
from jarvis.persistent_memory import MemoryModule
from jarvis.postgresql_backend import PostgreSQLBackend

from .cutting import Proxy
from .postgresql import Server, a_database


@pytest.fixture
def dsn() -> Iterator[str]:
    with a_database() as dsn:
        yield dsn


@pytest.fixture
def proxy(dsn: str) -> Iterator[Proxy]:
    with Proxy(dsn) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def own_server() -> Server:
    """A server that tests may stop and kill, and that keeps what it acknowledged."""
    return Server("max_connections = 40\nsuperuser_reserved_connections = 3")


@pytest.fixture
def own_proxy(own_server: Server) -> Iterator[Proxy]:
    with psycopg.connect(own_server.dsn, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS jarvis CASCADE")
    with Proxy(own_server.dsn) as proxy:
        yield proxy


def opened(dsn: str, **options: Any) -> MemoryModule:
    memory = MemoryModule(PostgreSQLBackend(dsn, **{"busy_timeout_seconds": 10, **options}))
    memory.bootstrap()
    return memory


def fresh(proxy: Proxy, **options: Any) -> MemoryModule:
    """Return a memory with one connection, which has prepared nothing: the proxy can read it."""
    memory = opened(proxy.dsn, **options)
    memory.create_memory("things", "first", {}, "thing")
    memory.shutdown()
    return memory


def create(memory: MemoryModule, key: str) -> None:
    memory.create_memory("things", key, {"key": key}, "thing", tags=["red"])


def keys(memory: MemoryModule) -> Counter[str]:
    return Counter(entry.key for entry in memory.list_memories())


def backends(dsn: str) -> list[int]:
    """Return the servers' processes for other connections to the database."""
    with psycopg.connect(dsn) as connection:
        return [
            pid
            for (pid,) in connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
                "AND backend_type = 'client backend'"
            )
        ]


def kill_connections(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for pid in set(backends(dsn)) - {connection.info.backend_pid}:
            connection.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))


# --- an outcome that is not known ----------------------------------------------------------------


@pytest.mark.parametrize("where", ["before", "after", "held"])
def test_a_create_whose_commit_is_cut_is_there_once(where: Any, proxy: Proxy) -> None:
    memory = fresh(proxy)
    proxy.at_commit = where

    create(memory, "one")

    assert proxy.at_commit is None
    assert keys(memory) == {"first": 1, "one": 1}
    create(memory, "two")
    assert memory.count_memories() == 3


@pytest.mark.parametrize("where", ["before", "after", "held"])
def test_a_transaction_whose_commit_is_cut_is_kept_or_raises(where: Any, proxy: Proxy) -> None:
    memory = fresh(proxy)

    def write() -> None:
        with memory.transaction():
            create(memory, "one")
            memory.delete_memory(memory.list_memories()[1].id)
            proxy.at_commit = where

    if where == "after":
        write()
        assert keys(memory) == {"one": 1}
    else:
        with pytest.raises(StoreAccessError, match="nothing of it was kept"):
            write()
        assert keys(memory) == {"first": 1}
    create(memory, "two")


@pytest.mark.parametrize("where", ["before", "after"])
def test_writes_that_share_a_commit_that_is_cut_are_each_there_once(where: Any, proxy: Proxy) -> None:
    memory = opened(proxy.dsn)
    create(memory, "first")
    cuts = 0
    with ThreadPoolExecutor(8) as pool:
        for turn in range(10):
            memory.shutdown()
            proxy.at_commit = where
            list(pool.map(lambda number, turn=turn: create(memory, f"{turn}-{number}"), range(8)))
            cuts += proxy.at_commit is None

    assert cuts == 10
    assert keys(memory) == Counter(["first", *(f"{turn}-{number}" for turn in range(10) for number in range(8))])


@pytest.mark.parametrize("what", ["update", "upsert", "delete", "clear"])
def test_every_kind_of_change_whose_commit_is_cut_is_made_once(what: str, proxy: Proxy) -> None:
    memory = fresh(proxy)
    known = memory.list_memories()[0]
    changes: dict[str, Callable[[], object]] = {
        "update": lambda: memory.update_memory(known.id, {"n": 1}, if_version=1),
        "upsert": lambda: memory.upsert_memory("things", "first", {"n": 1}),
        "delete": lambda: memory.delete_memory(known.id),
        "clear": memory.clear_all,
    }
    for where in ("before", "after"):
        memory.shutdown()
        proxy.at_commit = where
        if where == "after" and what == "update":
            memory.update_memory(known.id, {"n": 2}, if_version=2)
        else:
            changes[what]()

    there = memory.get_memory(known.id)
    assert (None if there is None else there.version) == {"update": 3, "upsert": 2}.get(what)


def test_a_crash_beside_a_commit_keeps_what_was_durable(own_server: Server, own_proxy: Proxy) -> None:
    memory = fresh(own_proxy)
    other = opened(own_server.dsn)

    def crash() -> None:
        own_server.kill()
        own_server.start()

    for number, where in enumerate(("before", "after", "before", "after")):
        memory.shutdown()
        own_proxy.at_commit, own_proxy.meanwhile = where, crash  # type: ignore[assignment]  # one of its words
        create(memory, f"{number}")

    assert keys(other) == Counter(["first", "0", "1", "2", "3"])


def test_a_number_that_a_crash_gives_to_another_transaction_is_no_proof(own_server: Server, own_proxy: Proxy) -> None:
    memory = fresh(own_proxy)
    other = opened(own_server.dsn)
    numbers: list[int] = []

    def crash() -> None:
        with psycopg.connect(own_server.dsn) as connection:  # of the first transaction that has not ended: ours
            ((mine,),) = connection.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
        own_server.kill()
        own_server.start()
        create(other, "other")
        with psycopg.connect(own_server.dsn) as connection:
            ((now,),) = connection.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
        numbers.extend((mine, now))

    own_proxy.at_commit, own_proxy.meanwhile = "before", crash
    create(memory, "mine")

    assert numbers[1] == numbers[0] + 1, "the crash did not take the number back"
    assert keys(other) == {"first": 1, "other": 1, "mine": 1}


def test_an_outcome_that_nobody_can_tell_is_an_error_of_its_own(own_server: Server, own_proxy: Proxy) -> None:
    memory = fresh(own_proxy, busy_timeout_seconds=0.5)
    own_proxy.at_commit, own_proxy.meanwhile = "after", own_server.stop
    try:
        with pytest.raises(OutcomeUnknownError, match=r"cannot tell whether the write was kept.*before you repeat it"):
            create(memory, "one")
    finally:
        own_server.start()

    assert keys(memory) == {"first": 1, "one": 1}


def test_no_write_of_a_shared_commit_is_repeated_while_its_outcome_is_unknown(
    own_server: Server, own_proxy: Proxy
) -> None:
    memory = fresh(own_proxy, busy_timeout_seconds=1)
    own_proxy.at_commit, own_proxy.meanwhile = "after", own_server.stop
    said = Counter[str]()

    def write(number: int) -> None:
        try:
            create(memory, f"{number}")
        except (OutcomeUnknownError, StoreAccessError, StoreBusyError) as error:
            said[type(error).__name__] += 1
            if not isinstance(error, OutcomeUnknownError):
                refused.append(f"{number}")

    refused: list[str] = []
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(8)))
    finally:
        own_server.start()
    there = keys(memory)

    assert said["OutcomeUnknownError"] >= 1
    assert said.total() == 8
    assert max(there.values()) == 1
    assert not set(refused) & set(there)


@pytest.mark.parametrize("comes", [True, False])
def test_a_commit_that_no_standby_has_confirmed_is_not_acknowledged(comes: bool, own_server: Server) -> None:
    memory = opened(own_server.dsn, busy_timeout_seconds=2 if comes else 0.5)

    def wait_for(names: str) -> None:
        with psycopg.connect(own_server.dsn, autocommit=True) as connection:
            connection.execute("SET synchronous_commit = off")
            connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
            connection.execute("SELECT pg_reload_conf()")
        time.sleep(0.2)

    def cancel() -> None:
        with psycopg.connect(own_server.dsn, autocommit=True) as connection:
            ask = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            while not connection.execute(ask).fetchall():
                time.sleep(0.02)
        if comes:
            time.sleep(0.2)
            wait_for("")

    memory.count_memories()
    wait_for("nobody")
    key = f"standby {comes}"
    try:
        with ThreadPoolExecutor(1) as pool:
            cancelled = pool.submit(cancel)
            if comes:
                create(memory, key)
            else:
                with pytest.raises(OutcomeUnknownError, match="no standby has confirmed it"):
                    create(memory, key)
            cancelled.result()
    finally:
        wait_for("")

    assert keys(memory)[key] == 1


# --- connections that have ended -----------------------------------------------------------------


def _idle_connections(memory: MemoryModule, count: int) -> None:
    """Have the memory open this many connections."""
    backend: Any = memory.backend
    pool = backend._lender.pool
    for lease in [pool.take() for _ in range(count)]:
        pool.give_back(lease)


@pytest.fixture
def with_dead_connections(dsn: str) -> MemoryModule:
    memory = opened(dsn)
    create(memory, "first")
    _idle_connections(memory, 8)
    assert len(backends(dsn)) >= 8
    kill_connections(dsn)
    return memory


CALLS: dict[str, Callable[[MemoryModule], object]] = {
    "get": lambda memory: memory.get_memory_by_key("first"),
    "search": lambda memory: memory.search_memories(category="things"),
    "iterate": lambda memory: list(memory.iter_memories()),
    "create": lambda memory: create(memory, "new"),
    "upsert": lambda memory: memory.upsert_memory("things", "first", {"n": 2}),
    "transaction": lambda memory: _in_a_transaction(memory),
    "as of": lambda memory: memory.get_memory_by_key("first", as_of=memory.list_memories()[0].timestamp),
    "changes": lambda memory: memory.changes(),
}


def _in_a_transaction(memory: MemoryModule) -> None:
    with memory.transaction():
        create(memory, "new")


@pytest.mark.parametrize("call", CALLS)
def test_calls_do_not_notice_that_all_idle_connections_have_ended(
    call: str, with_dead_connections: MemoryModule
) -> None:
    for _ in range(9):
        CALLS[call](with_dead_connections)

    assert keys(with_dead_connections)["first"] == 1


def test_a_restart_is_waited_for(own_server: Server) -> None:
    memory = opened(own_server.dsn)
    create(memory, "before")
    own_server.stop()
    threading.Timer(0.5, own_server.start).start()

    assert keys(memory)["before"] == 1


def test_a_server_that_is_down_is_waited_for_once(own_server: Server) -> None:
    memory = opened(own_server.dsn, busy_timeout_seconds=0.5)
    own_server.stop()
    try:
        for _ in range(20):
            began = time.monotonic()
            with pytest.raises(StoreAccessError, match=f"{own_server.directory}.*cannot be reached"):
                memory.count_memories()
        last = time.monotonic() - began
    finally:
        own_server.start()

    assert last < 0.4
    memory.count_memories()


def test_a_connection_that_ends_inside_a_transaction_takes_all_of_it_back(dsn: str) -> None:
    memory = opened(dsn)

    def write() -> None:
        with memory.transaction():
            create(memory, "one")
            kill_connections(dsn)
            create(memory, "two")

    with pytest.raises(StoreAccessError, match="nothing of it was kept"):
        write()

    assert keys(memory) == {}
    create(memory, "three")


def test_history_that_is_not_kept_leaves_the_same_answer(own_server: Server, own_proxy: Proxy) -> None:
    memory = fresh(own_proxy, history=HistoryPolicy(max_revisions=0))

    def crash() -> None:
        own_server.kill()
        own_server.start()

    own_proxy.at_commit, own_proxy.meanwhile = "after", crash
    create(memory, "one")

    assert keys(memory) == {"first": 1, "one": 1}
