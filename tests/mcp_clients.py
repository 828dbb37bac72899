"""Starts servers of the Model Context Protocol, and talks to them with the client of the SDK."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import Implementation

CLIENT = Implementation(name="a client", version="1.2")
TOKEN = "a token of twenty signs".replace(" ", "-")


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "jarvis", "mcp", *options]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "default", **more}


@contextlib.asynccontextmanager
async def client(*options: str, mode: str = "legacy", **more: Any) -> AsyncIterator[Client]:
    """Start a server that serves standard input and output, and connect to it."""
    first, *rest = command(*options)
    server = StdioServerParameters(command=first, args=rest, env=environment(**more.pop("env", {})))
    async with Client(stdio_client(server), mode=mode, client_info=CLIENT, **more) as connected:
        yield connected


@contextlib.contextmanager
def piped(*options: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server with plain pipes; kill it at the end if it is still there."""
    with subprocess.Popen(
        command(*options),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(**env),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def http_server(
    *options: str, token: str | None = TOKEN, **env: str
) -> Iterator[tuple[subprocess.Popen[bytes], str, str]]:
    """Start a server for HTTP; yield it, its address and its token."""
    given = [] if token is None else ["--token", token]
    with piped("--http", "0", *given, *options, **env) as process:
        assert process.stderr is not None
        told = b""
        lines = 1 if token is not None or env else 2
        deadline = time.monotonic() + 30
        while told.count(b"\n") < lines and time.monotonic() < deadline:
            told += process.stderr.readline()
        text = told.decode()
        address = re.search(r"http://127\.0\.0\.1:[0-9]+/mcp", text)
        assert address is not None, text
        made = re.search(r"token: (\S+)", text)
        yield process, address[0], made[1] if made else str(token)


@contextlib.asynccontextmanager
async def http_client(address: str, token: str, mode: str = "legacy", **more: Any) -> AsyncIterator[Client]:
    """Connect to a server over HTTP."""
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
        transport = streamable_http_client(address, http_client=http)
        async with Client(transport, mode=mode, client_info=CLIENT, **more) as connected:
            yield connected


def store_options(backend: str, tmp_path: Path, dsn: str | None) -> list[str]:
    """Return the options that name a store."""
    return ["--backend", backend, "--store", dsn if dsn is not None else str(tmp_path / "store")]
