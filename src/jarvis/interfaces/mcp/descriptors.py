"""Standard input and output, kept for the protocol; what is said to people goes to standard error."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def only_protocol() -> Iterator[tuple[int, int]]:
    """Keep standard input and output for the protocol in a block; yield descriptors of them.

    What anything else prints, in this process or one that it starts, goes to standard error. It reads an empty input.
    """
    sys.stdout.flush()
    source, sink = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    printed, sys.stdout = sys.stdout, sys.stderr
    try:
        yield source, sink
    finally:
        sys.stdout = printed
        os.dup2(source, 0)
        os.dup2(sink, 1)
        os.close(sink)  # the source stays open: a thread may still read it


def say(text: str) -> None:
    """Print a line for the person who started the server: standard output is for the protocol."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - a server has no other way to tell its address
