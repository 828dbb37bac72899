"""A PostgreSQL server ends, refuses or keeps silent: no write is lost or doubled, and errors say what was kept."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg import conninfo

from jarvis._postgresql import schema
from jarvis.conformance.fixtures import an_entry
from jarvis.errors import (
    InvalidSettingError,
    OutcomeUnknownError,
    ReadOnlyStoreError,
    StoreAccessError,
    StoreBusyError,
    TransactionError,
)
from jarvis.model.policies import HistoryPolicy
from jarvis.persistent_memory import MemoryModule
from jarvis.postgresql_backend import PostgreSQLBackend

from .cutting import Proxy
from .postgresql import Server


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


# --- what the server refuses ---------------------------------------------------------------------


def test_a_pool_that_is_exhausted_is_named(dsn: str) -> None:
    memory = opened(dsn, pool_size=2, busy_timeout_seconds=0.2)
    backend: Any = memory.backend
    pool = backend._lender.pool
    leases = [pool.take(), pool.take()]

    with pytest.raises(StoreBusyError, match=r"all 2 connections of this process.*pool_size"):
        memory.count_memories()
    pool.give_back(leases[0])
    assert memory.count_memories() == 0


def test_threads_wait_for_a_free_connection(dsn: str) -> None:
    memory = opened(dsn, pool_size=2)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: create(memory, f"{number}"), range(100)))
        list(pool.map(lambda _: memory.count_memories(), range(100)))

    assert memory.count_memories() == 100
    assert len(backends(dsn)) == 2


def test_a_server_with_too_many_clients_is_busy(own_server: Server) -> None:
    memory = opened(own_server.dsn, busy_timeout_seconds=0.3)
    memory.shutdown()
    others: list[psycopg.Connection[Any]] = []
    try:
        refused = 0
        while refused < 10:  # a process of the server that just ends still has a place, and leaves it then
            try:
                others.append(psycopg.connect(own_server.dsn))
                refused = 0
            except psycopg.OperationalError:
                refused += 1
                time.sleep(0.05)
        with pytest.raises(StoreBusyError, match="no connection left"):
            memory.count_memories()
    finally:
        for other in others:
            other.close()
    memory.count_memories()


def _set(dsn: str, setting: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{connection.info.dbname}" SET {setting}')


def test_a_statement_that_the_server_ends_is_an_error_and_keeps_nothing(dsn: str) -> None:
    _set(dsn, "statement_timeout = '300ms'")
    memory = opened(dsn)
    create(memory, "first")
    with psycopg.connect(dsn) as other:
        other.execute("SELECT FROM jarvis.clock FOR UPDATE")
        with pytest.raises(StoreBusyError, match="statement timeout"):
            create(memory, "second")

    create(memory, "third")
    assert keys(memory) == {"first": 1, "third": 1}


def test_a_transaction_that_the_server_ends_keeps_nothing(dsn: str) -> None:
    _set(dsn, "idle_in_transaction_session_timeout = '200ms'")
    memory = opened(dsn)

    def write() -> None:
        with memory.transaction():
            create(memory, "one")
            memory.count_memories()
            memory.count_memories()  # the server does not time what idles after a pipeline
            time.sleep(0.5)
            create(memory, "two")

    with pytest.raises((StoreBusyError, StoreAccessError), match="nothing of it was kept"):
        write()
    create(memory, "three")

    assert keys(memory) == {"three": 1}


def test_a_writer_that_waits_too_long_for_another_is_busy(dsn: str) -> None:
    memory = opened(dsn, busy_timeout_seconds=0.2)
    create(memory, "first")

    with psycopg.connect(dsn) as other:
        other.execute("SELECT FROM jarvis.clock FOR UPDATE")
        with pytest.raises(StoreBusyError, match="busy_timeout_seconds"):
            create(memory, "second")
    assert keys(memory) == {"first": 1}


def test_transactions_that_go_to_two_namespaces_crosswise_lose_one_deadlock(dsn: str) -> None:
    _set(dsn, "deadlock_timeout = '100ms'")
    memory = opened(dsn)
    namespaces = [memory.for_namespace("a"), memory.for_namespace("b")]
    for each in namespaces:
        each.bootstrap()
        create(each, "first")
    both = threading.Barrier(2)
    errors: list[StoreBusyError] = []

    def write(first: MemoryModule, second: MemoryModule, key: str) -> None:
        try:
            with first.transaction():
                create(first, key)
                first.count_memories()
                both.wait(timeout=10)
                create(second, key)
                second.count_memories()
        except StoreBusyError as error:
            errors.append(error)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, namespaces, namespaces[::-1], ["x", "y"]))
    there = [keys(each) for each in namespaces]

    assert len(errors) == 1
    assert "deadlock" in str(errors[0])
    assert there[0] == there[1]
    assert len(there[0]) == 2


def test_a_transaction_waits_for_another_namespace(dsn: str) -> None:
    memory = opened(dsn)
    other = memory.for_namespace("other")
    create(other, "first")
    has_it, done = threading.Event(), threading.Event()

    def hold() -> None:
        with other.transaction():
            create(other, "held")
            other.count_memories()
            has_it.set()
            time.sleep(0.3)
            done.set()

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(hold)
        has_it.wait(timeout=10)
        with memory.transaction():
            create(memory, "one")
            create(other, "two")
            assert done.is_set()
        holding.result()

    assert keys(other) == {"first": 1, "held": 1, "two": 1}
    assert keys(memory) == {"one": 1}


SECRET = "s3cret-w0rd"
WRONG = {
    "host": {"host": "/nowhere"},
    "name": {"host": "no-such-host.invalid"},
    "port": {"port": "1"},
    "database": {"dbname": "nowhere"},
    "role": {"user": "nobody-here"},
    "password": {"user": "guarded"},
}


@pytest.fixture(scope="module")
def guarded_server() -> Server:
    """A server that asks for passwords."""
    server = Server("max_connections = 10")
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("CREATE ROLE guarded LOGIN PASSWORD 'another'")
    access = server.directory / "data" / "pg_hba.conf"
    access.write_text("local all postgres trust\nlocal all all scram-sha-256\n")
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_reload_conf()")
    return server


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_with_an_address_is_said_without_the_password(
    wrong: str, guarded_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    dsn = conninfo.make_conninfo(guarded_server.dsn, **{"password": SECRET, "connect_timeout": "3", **WRONG[wrong]})
    memory = MemoryModule(PostgreSQLBackend(dsn))
    given = conninfo.conninfo_to_dict(dsn)

    with pytest.raises(StoreAccessError) as caught:
        memory.count_memories()
    shown = "".join(traceback.format_exception(caught.value))
    error: BaseException | None = caught.value
    while error is not None:
        shown += f"{error!r} {error} {error.args}"
        error = error.__cause__ or error.__context__

    assert f"{given['host']}" in str(caught.value)
    assert f"/{given['dbname']}" in str(caught.value)
    assert SECRET not in shown + caplog.text + repr(memory) + repr(memory.backend) + repr(vars(memory.backend))


def test_an_at_sign_in_a_password_is_asked_to_be_escaped() -> None:
    with pytest.raises(InvalidSettingError, match="%40") as caught:
        PostgreSQLBackend("postgresql://me:pass@s3cret-w0rd@host/database")

    assert SECRET not in str(caught.value)


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


def test_a_server_that_was_started_again_tells_another_version(own_server: Server) -> None:
    backend = PostgreSQLBackend(own_server.dsn)
    backend.create(an_entry())
    seen = [backend.version()]

    for end in (own_server.stop, own_server.kill):
        end()
        own_server.start()
        assert backend.read("1") is not None
        seen.append(backend.version())
        assert backend.version() == seen[-1]

    assert len(set(seen)) == 3
    backend.shutdown()


@pytest.mark.parametrize(("given", "seconds"), [({}, "30"), ({"keepalives_idle": 5}, "5")])
def test_a_machine_that_vanishes_is_noticed_by_the_system(dsn: str, given: dict[str, int], seconds: str) -> None:
    backend = PostgreSQLBackend(conninfo.make_conninfo(dsn, **given))
    with backend._server.snapshot() as session:
        used = session.driver.raw.info.get_parameters()

    assert (used["keepalives_idle"], used["keepalives_interval"], used["keepalives_count"]) == (seconds, "10", "3")
    assert used["tcp_user_timeout"] == "60000"
    backend.shutdown()


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


# --- several processes ---------------------------------------------------------------------------


def _in_a_child(work: Callable[[], object], *, ends_normally: bool = False) -> None:
    """Do the work in a forked child; fail if it raises."""
    program = os.fork()
    if not program:
        code = 70
        try:
            work()
            code = 0
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent is told
            os.write(2, f"{error!r}\n".encode())
        finally:
            if ends_normally:
                gc.collect()
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(program, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own_and_leaves_those_of_its_parent_whole(dsn: str) -> None:
    memory = opened(dsn)
    create(memory, "before")
    mine = backends(dsn)

    def work() -> None:
        nonlocal memory
        assert memory.count_memories() >= 1
        create(memory, "child")
        memory.shutdown()
        del memory

    for number in range(3):
        _in_a_child(work, ends_normally=True)
        create(memory, f"parent {number}")

    assert backends(dsn) == mine, "the parent had to connect again"
    assert keys(memory) == {"before": 1, "child": 3, "parent 0": 1, "parent 1": 1, "parent 2": 1}


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_child_that_is_forked_inside_a_transaction_can_neither_write_into_it_nor_harm_it(dsn: str) -> None:
    memory = opened(dsn)

    def work() -> None:
        with pytest.raises(TransactionError, match="forked"):
            memory.count_memories()
        with pytest.raises(TransactionError, match="forked"):
            create(memory, "child")

    with memory.transaction():
        create(memory, "one")
        _in_a_child(work)
        create(memory, "two")

    assert keys(memory) == {"one": 1, "two": 1}


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_forks_beside_writing_threads_leave_children_that_write(dsn: str) -> None:
    memory = opened(dsn)
    is_over = threading.Event()

    def write(thread: int) -> int:
        number = 0
        while not is_over.is_set():
            create(memory, f"{thread}-{number}")
            number += 1
        return number

    with ThreadPoolExecutor(3) as pool:
        writing = [pool.submit(write, thread) for thread in range(3)]
        for number in range(20):
            _in_a_child(lambda number=number: create(memory, f"child {number}"))  # type: ignore[misc]  # not inferred
        is_over.set()
        count = sum(each.result() for each in writing)

    assert memory.count_memories() == count + 20


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_memory_goes_to_the_processes_of_a_pool(method: str, dsn: str) -> None:
    memory = opened(dsn)

    with multiprocessing.get_context(method).Pool(3) as workers:
        workers.starmap(create, [(memory, f"{number}") for number in range(9)])

    assert memory.count_memories() == 9


def test_a_connection_that_a_dead_parent_left_to_its_child_holds_nothing_up(dsn: str) -> None:
    opened(dsn).shutdown()
    program = """if True:
        import os, sys, time
        from jarvis.persistent_memory import MemoryModule
        from jarvis.postgresql_backend import PostgreSQLBackend
        memory = MemoryModule(PostgreSQLBackend(sys.argv[1]))
        with memory.transaction():
            memory.create_memory("things", "lost", {}, "thing")
            memory.count_memories()
            if not os.fork():
                os.close(1)
                time.sleep(20)
                os._exit(0)
            time.sleep(0.2)
            os.kill(os.getpid(), 9)
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", program, dsn], check=False, stdout=subprocess.DEVNULL)
    memory = opened(dsn, busy_timeout_seconds=3)

    create(memory, "one")

    assert keys(memory) == {"one": 1}


def test_sixteen_processes_that_open_an_empty_database_at_once_make_one_store(dsn: str) -> None:
    program = """if True:
        import sys
        from jarvis.persistent_memory import MemoryModule
        from jarvis.postgresql_backend import PostgreSQLBackend
        memory = MemoryModule(PostgreSQLBackend(sys.argv[1]))
        print("ready", flush=True)
        sys.stdin.readline()
        memory.create_memory("things", sys.argv[2], {}, "thing")
    """
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    children = [subprocess.Popen([sys.executable, "-c", program, dsn, str(n)], **pipes) for n in range(16)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"\n")
        child.stdin.flush()
    codes = [child.wait(timeout=60) for child in children]
    for child in children:
        child.communicate()

    assert codes == [0] * 16
    assert keys(opened(dsn)) == Counter(str(n) for n in range(16))


def test_a_creation_that_fails_leaves_nothing(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(schema, "TABLES", f"{schema.TABLES}\nSELECT 1 / 0;")
        with pytest.raises(StoreAccessError):
            opened(dsn)
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT to_regnamespace('jarvis')").fetchall() == [(None,)]

    create(opened(dsn), "one")


def test_tables_of_another_program_are_left_alone(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE SCHEMA jarvis")
        connection.execute("CREATE TABLE jarvis.store (shop text)")
        connection.execute("INSERT INTO jarvis.store VALUES ('corner')")

    with pytest.raises(StoreAccessError, match="another program"):
        opened(dsn)

    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT * FROM jarvis.store").fetchall() == [("corner",)]


def test_a_server_that_only_reads_says_so(dsn: str) -> None:
    create(opened(dsn), "one")
    _set(dsn, "default_transaction_read_only = on")
    memory = MemoryModule(PostgreSQLBackend(dsn))

    assert keys(memory) == {"one": 1}
    with pytest.raises(ReadOnlyStoreError):
        create(memory, "two")


def test_an_empty_database_that_only_reads_says_so(dsn: str) -> None:
    _set(dsn, "default_transaction_read_only = on")

    with pytest.raises(ReadOnlyStoreError):
        opened(dsn)
