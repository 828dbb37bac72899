"""A proxy before a PostgreSQL server that cuts connections, or goes silent."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from psycopg import conninfo

_COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00"  # what the server says of it

Where = Literal["before", "after", "held", "silent before", "silent after"]


class Proxy:
    """Forwards the socket of a server; use it in a `with` block.

    Args:
        dsn: where the server is.

    Attributes:
        dsn: where the proxy is.
        at_commit: how to cut the next connection that commits: before the server gets it, after the server's answer, or
            before and so that the server does not notice; or when to go silent instead.
        meanwhile: called after such a cut, before the client sees it.
        speaks: while it is not set, the proxy lets clients in, and keeps all that is sent to itself.
        bytes_left: returns after how many bytes in a direction a new connection is cut.
    """

    def __init__(self, dsn: str) -> None:
        self.forward_to(dsn)
        self._directory = tempfile.TemporaryDirectory(prefix="px", dir="/tmp")
        self.dsn = conninfo.make_conninfo(dsn, host=self._directory.name)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(Path(self._directory.name) / ".s.PGSQL.5432"))
        self._listening.listen(100)
        self.at_commit: Where | None = None
        self.meanwhile: Callable[[], object] = lambda: None
        self.bytes_left: Callable[[], int] = lambda: 1 << 60
        self.cuts = 0
        self._held: list[socket.socket] = []
        self._forwarded: set[socket.socket] = set()
        self.speaks = threading.Event()
        self.speaks.set()

    def forward_to(self, dsn: str) -> None:
        """Let new connections be with this server."""
        self._server = str(conninfo.conninfo_to_dict(dsn)["host"]) + "/.s.PGSQL.5432"

    def cut(self) -> None:
        """Cut all connections that there are."""
        for each in list(self._forwarded):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.speaks.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for held in self._held:
            held.close()
        self._directory.cleanup()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        to = {client: server, server: client}
        left = {client: self.bytes_left(), server: self.bytes_left()}
        self._forwarded |= {client, server}
        try:
            server.connect(self._server)
            while True:
                for came in select.select([client, server], [], [])[0]:
                    data = came.recv(1 << 16)
                    if not data or self._is_cut_at(data, server, from_client=came is client):
                        return
                    self.speaks.wait()
                    to[came].sendall(data[: left[came]])
                    left[came] -= len(data)
                    if left[came] <= 0:
                        self.cuts += 1
                        return
        except OSError:
            return
        finally:
            self._forwarded -= {client, server}
            client.close()
            if server not in self._held:
                server.close()

    def _is_cut_at(self, data: bytes, server: socket.socket, *, from_client: bool) -> bool:
        where = self.at_commit
        if where is None or (b"COMMIT\x00" not in data if from_client else _COMMITTED not in data):
            return False
        if from_client == where.endswith("after"):
            return False
        self.at_commit = None
        if where.startswith("silent"):
            self.speaks.clear()
            self.meanwhile()
            return False
        if where == "held":
            self._held.append(server)
        self.meanwhile()
        return True


def randomly(chance: random.Random, most: int) -> Callable[[], int]:
    """Return what cuts each connection after some bytes, mostly few."""
    return lambda: int(most ** chance.uniform(0.5, 1.0))
