"""PostgreSQL behind a proxy that gives each transaction any connection of its own."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import conninfo

from jarvis.conformance import BackendContract
from jarvis.conformance.fixtures import OpenBackend
from jarvis.errors import InvalidSettingError, StoreBusyError
from jarvis.persistent_memory import MemoryModule
from jarvis.postgresql_backend import PostgreSQLBackend

from .postgresql import IS_ROOT, NOBODY, a_database

PROXY = shutil.which("pgbouncer")
needs_proxy = pytest.mark.skipif(PROXY is None, reason="pgbouncer is not installed (Debian's package of that name)")
SETTINGS = """
[databases]
* = host={host} user={user}
[pgbouncer]
listen_addr =
unix_socket_dir = {directory}
listen_port = 6432
auth_type = any
pool_mode = transaction
default_pool_size = 20
max_client_conn = 500
"""


@contextmanager
def behind_a_proxy(dsn: str) -> Iterator[str]:
    """Start a proxy before the server for a block; yield the dsn through it."""
    assert PROXY is not None
    given = conninfo.conninfo_to_dict(dsn)
    directory = Path(tempfile.mkdtemp(prefix="pgb", dir="/tmp"))
    directory.chmod(0o777)
    file = directory / "proxy.ini"
    file.write_text(SETTINGS.format(host=given["host"], user=given["user"], directory=directory))
    options: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": ()} if IS_ROOT else {}
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([PROXY, file], stdout=log, stderr=log, **options)
    through = conninfo.make_conninfo(host=str(directory), port=6432, dbname=given["dbname"], user=given["user"])
    try:
        for _ in range(100):
            try:
                psycopg.connect(through).close()
            except psycopg.OperationalError:
                time.sleep(0.05)
            else:
                break
        yield through
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)


@needs_proxy
class TestPostgreSQLBehindProxy(BackendContract):
    @pytest.fixture
    def open_backend(self) -> Iterator[OpenBackend]:
        backends: list[PostgreSQLBackend] = []

        def open_it() -> PostgreSQLBackend:
            backends.append(PostgreSQLBackend(through, durability="normal", transaction_pooling=True))
            return backends[-1]

        with a_database() as dsn, behind_a_proxy(dsn) as through:
            yield open_it
            for backend in backends:
                backend.shutdown()


@needs_proxy
def test_nothing_stays_on_a_connection_of_the_server() -> None:
    with a_database() as dsn, behind_a_proxy(dsn) as through:
        memory = MemoryModule(PostgreSQLBackend(through, transaction_pooling=True, listen_dsn=dsn))
        for number in range(20):
            memory.upsert_memory("c", "k", {"n": number}, tags=["a"])
            memory.search_memories(tags=["a"], where={"n": number})
        with psycopg.connect(through, autocommit=True) as other:  # it is given one that the memory has used
            assert other.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
            assert other.execute("SHOW enable_seqscan").fetchone() == ("on",)
        memory.shutdown()


@needs_proxy
def test_a_lock_is_not_waited_for_longer_than_asked() -> None:
    with a_database() as dsn, behind_a_proxy(dsn) as through:
        holder = MemoryModule(PostgreSQLBackend(dsn))
        hasty = MemoryModule(PostgreSQLBackend(through, transaction_pooling=True, busy_timeout_seconds=0.2))
        hasty.create_memory("c", "k", {}, "t")
        with holder.transaction():
            holder.create_memory("c", "k", {}, "t")
            with pytest.raises(StoreBusyError):
                hasty.create_memory("c", "k", {}, "t")
        holder.shutdown()
        hasty.shutdown()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"transaction_pooling": 1}, "transaction_pooling"),
        ({"listen_dsn": 7}, "dsn"),
        ({"partitions": -1}, "partitions"),
        ({"pool_size": True}, "pool_size"),
    ],
)
def test_arguments_that_mean_nothing_are_named(given: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidSettingError, match=named):
        PostgreSQLBackend("postgresql://host/database", **given)
