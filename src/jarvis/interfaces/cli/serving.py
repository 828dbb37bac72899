"""``mcp``: the memory as a server for agents."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from jarvis.interfaces.cli.binding import common_options, flag, option, signed
from jarvis.interfaces.cli.session import Session
from jarvis.interfaces.mcp.server import TOKEN_VARIABLE, serve


def _mcp(**given: Any) -> None:
    session = Session.of(given)
    read_only = given["read_only"]
    with session.memory(create=not read_only, read_only=read_only) as memory:
        serve(
            memory,
            tools=given["tools"] or "ours",
            http=given["http"],
            token=given["token"],
            read_only=read_only,
            max_tokens=given["max_tokens"],
            memory_file=given["memory_file"],
        )


_options = [
    option(
        "tools",
        Literal["ours", "official"],
        "ours: remember, recall, context and others; official: the nine tools of the reference memory server",
        default="ours",
    ),
    option("http", int, "serve streamable HTTP on this port of 127.0.0.1, 0 for a free one", metavar="PORT"),
    option("token", str, f"what each HTTP request must have; else {TOKEN_VARIABLE}, else a new one, which is told"),
    flag("read-only", "offer no tool that changes something"),
    option("max-tokens", int, "at most this many tokens in a result, counted as bytes"),
    option("memory-file", Path, "take over this file of the reference memory server, once; else MEMORY_FILE_PATH"),
]

mcp = signed(_mcp, [*_options, *common_options()], "mcp", "Serve the memory to agents over the Model Context Protocol.")
