"""``watch``: changes of the memory as they happen, by any program."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from jarvis.capabilities import WakesWatchers
from jarvis.interfaces.cli.binding import common_options, option, signed
from jarvis.interfaces.cli.session import Session
from jarvis.interfaces.cli.showing import Look, is_terminal, say, show, show_line
from jarvis.interfaces.readable import exact, json_text, safe
from jarvis.model.change import Change
from jarvis.persistent_memory import MemoryModule

_INTERVAL_SECONDS = 0.25


def _watch(**given: Any) -> None:
    session = Session.of(given)
    with session.memory() as memory:
        memory.bootstrap()
        if is_terminal() and not session.look.quiet:
            say("watching; Ctrl-C ends it")
        idle = given["idle"]
        seconds = None if idle is None else idle.total_seconds()
        is_woken = memory.backend.has_capability(WakesWatchers)
        begin = MemoryModule.watch if is_woken else _polled
        for change in begin(memory, given["since"], idle_seconds=seconds):
            _show(memory, change, session.look)


def _polled(memory: MemoryModule, since: str | None, *, idle_seconds: float | None) -> Iterator[Change]:
    """Yield changes as `MemoryModule.watch` does, of a backend that wakes nobody: it is asked now and then."""
    cursor, last = since or memory.newest_cursor(), time.monotonic()
    while idle_seconds is None or time.monotonic() - last < idle_seconds:
        page = memory.changes(cursor)
        yield from page
        if page:
            cursor, last = page[-1].cursor, time.monotonic()
        else:
            time.sleep(_INTERVAL_SECONDS)


def _show(memory: MemoryModule, change: Change, look: Look) -> None:
    if look.form != "usual":
        show(change, Look(form="jsonl"))
        return
    entry = memory.get_memory(change.memory_id) if change.memory_id is not None else None
    name = f"{change.category}/{change.key}" if change.category is not None else f"{change.count} memories"
    value = "" if entry is None else json_text(entry.value)
    by = " ".join(filter(None, (change.module, change.reason)))
    show_line([exact(change.timestamp), change.operation, safe(name), value, safe(by)])


watch = signed(
    _watch,
    [
        option("since", str, "also show the changes after this cursor", metavar="CURSOR"),
        option("idle", timedelta, "end after this time without a change"),
        *common_options(),
    ],
    "watch",
    "Show changes as they happen, by any program, until Ctrl-C.",
)
