"""``stats``: what the store holds, as charts on a terminal, as JSON, or as one page of charts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jarvis.errors import StoreAccessError
from jarvis.interfaces.charts import text_of
from jarvis.interfaces.cli.binding import argument_options, common_options, option, signed
from jarvis.interfaces.cli.progress import progressing
from jarvis.interfaces.cli.session import Session
from jarvis.interfaces.cli.showing import console, is_terminal, say, show, write
from jarvis.interfaces.operations import OPERATIONS
from jarvis.interfaces.page import page
from jarvis.interfaces.stores import find
from jarvis.model.analytics import Analytics

_STATS = OPERATIONS["stats"]
_PIPE_WIDTH, _ROWS, _ALL_ROWS = 100, 10, 1_000


def _stats(**given: Any) -> None:
    session = Session.of(given)
    with session.memory() as memory, progressing(_STATS, session.look) as progress:
        report: Analytics = _STATS.run(memory, session.with_namespace(_STATS, given), progress)
    if given["html"] is not None:
        path = Path(given["html"]).expanduser()
        _written(path, page(report, find(session.choice, create=False).place))
        say(f"written: {path}")
        return
    if session.look.form != "usual":
        show(report, session.look)
        return
    on_terminal = is_terminal()
    text = text_of(
        report,
        width=console().width if on_terminal else _PIPE_WIDTH,
        colours=on_terminal and not os.environ.get("NO_COLOR"),
        rows=_ALL_ROWS if session.look.full else _ROWS,
    )
    write(text.rstrip("\n"))


def _written(path: Path, text: str) -> None:
    """Write a page for its owner only, because names of memories are in it; replace nothing but an earlier page.

    Raises:
        StoreAccessError: the path is a file of another kind, such as the store.
    """
    if path.is_file():  # no pipe, nor a device
        beginning = text.partition("<title>")[0].encode()
        with open(path, "rb") as present:
            if present.read(len(beginning)) not in (b"", beginning):
                raise StoreAccessError(path, "is no page of stats, and nothing else is replaced; give another path")
    with open(path, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)


stats = signed(
    _stats,
    [
        *argument_options(_STATS),
        option("html", Path, "write one page of charts to this file, and nothing else"),
        *common_options(),
    ],
    "stats",
    _STATS.summary,
)
