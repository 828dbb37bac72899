"""`serve`: a server of the Model Context Protocol over a memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Literal

from jarvis._disk.paths import given_path
from jarvis.errors import InvalidSettingError, UnsupportedError
from jarvis.interfaces.mcp.descriptors import only_protocol, say
from jarvis.interfaces.mcp.memory_file import VARIABLE as FILE_VARIABLE
from jarvis.interfaces.mcp.memory_file import import_once
from jarvis.persistent_memory import MemoryModule

ToolSet = Literal["ours", "official"]

TOKEN_VARIABLE = "JARVIS_MEMORY_MCP_TOKEN"  # noqa: S105 - the name of a variable


def serve(
    memory: MemoryModule,
    *,
    tools: ToolSet = "ours",
    http: int | None = None,
    token: str | None = None,
    read_only: bool = False,
    max_tokens: int | None = None,
    memory_file: str | os.PathLike[str] | None = None,
) -> None:
    """Serve a memory until the client closes the connection, or SIGTERM or SIGINT arrives; then shut it down.

    Args:
        memory: with the namespace that clients see. What one of them changes has its name and version as author.
        tools: ``"ours"``, or ``"official"`` for the tools of the reference memory server.
        http: a port of 127.0.0.1 for streamable HTTP, 0 for a free one; None serves standard input and output.
        token: each request over HTTP must have it, as ``Authorization: Bearer …``. None: that of the environment
            variable ``JARVIS_MEMORY_MCP_TOKEN``; if it is not set, one is made, and printed to standard error.
        read_only: tools that change something are not there.
        max_tokens: how long a result may be, in tokens: one for each byte. None is 4,000, or 40,000 for the official
            tools, which have no other way to limit an answer.
        memory_file: the file of the reference memory server, which is taken over once; only with its tools. None: that
            of the environment variable ``MEMORY_FILE_PATH``, if it is set.

    Raises:
        InvalidSettingError: an argument is none of these, the port is taken, or the file is of another kind.
        UnsupportedError: the package of the protocol is not installed.
        StoreError: the file cannot be read, or the memory cannot be written.
    """
    if not isinstance(memory, MemoryModule):
        raise InvalidSettingError(f"memory: takes a MemoryModule, not {type(memory).__name__}")
    if memory_file is not None and (tools == "ours" or read_only):
        raise InvalidSettingError(
            "memory_file: goes with the official tools, of a server that also changes; this one would pass over it"
        )
    try:
        with contextlib.ExitStack() as stack:
            pipes = stack.enter_context(only_protocol()) if http is None else None  # before anything can print
            try:
                from jarvis.interfaces.mcp.served import Served, serve_stdio
            except ModuleNotFoundError as error:
                raise _missing(error) from None
            served = Served(memory, tools=tools, read_only=read_only, max_tokens=max_tokens)
            if tools == "official" and not read_only:
                _take_over(memory, memory_file or os.environ.get(FILE_VARIABLE) or None)
            if pipes is not None:
                asyncio.run(serve_stdio(served, *pipes))
            else:
                from jarvis.interfaces.mcp.http import serve_http

                asyncio.run(serve_http(served, http, token or os.environ.get(TOKEN_VARIABLE) or None))
    finally:
        memory.shutdown()


def _take_over(memory: MemoryModule, path: str | os.PathLike[str] | None) -> None:
    said = None if path is None else import_once(memory, given_path("memory_file", path))
    if said is not None:
        say(said)


def _missing(error: ModuleNotFoundError) -> Exception:
    package = (error.name or "").partition(".")[0]
    if package == "jarvis":
        return error
    return UnsupportedError(f"the server needs the package {package}: pip install 'jarvis-memory[mcp]'")
