"""`Notices`: tells the watchers of other processes of commits, and hears of theirs, through LISTEN and NOTIFY.

A NOTIFY makes commits of the whole database wait for each other, so a process sends one in `_PAUSE_SECONDS` at most. A
watcher that heard one looks at the feed again for longer than that, and now and then in any case: it misses nothing.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg

from jarvis._calls.caller import holding

CHANNEL = "jarvis"
_PAUSE_SECONDS = 0.05
_HOT_SECONDS = 3 * _PAUSE_SECONDS
_IDLE_SECONDS = 0.5
_MANY = 10_000  # namespaces of which it remembers when something was sent or heard last


class Notices:
    """The notices of one process about one store.

    Args:
        dsn: where the server is; None: notices are sent, but not heard of.
    """

    def __init__(self, dsn: str | None) -> None:
        self._dsn = dsn
        self._mutex = threading.RLock()
        self._listener: psycopg.Connection[Any] | None = None
        self._heard: dict[str, float] = {}  # by the number of a namespace: when a notice came last
        self._sent: dict[int, float] = {}  # likewise: when one was sent

    def is_due(self, namespace: int) -> bool:
        """Tell whether a commit in a namespace should send a notice."""
        now = time.monotonic()
        if now - self._sent.get(namespace, 0.0) < _PAUSE_SECONDS:
            return False
        if len(self._sent) >= _MANY:
            self._sent.clear()
        self._sent[namespace] = now
        return True

    def should_look(self, namespace: int, looked: float) -> bool:
        """Tell whether a watcher of a namespace should look at the feed, who looked last at the time `looked`."""
        now = time.monotonic()
        if self._dsn is None or now - looked >= _IDLE_SECONDS:
            return True
        if holding(self._mutex, self._listen):
            return True
        return now - self._heard.get(str(namespace), 0.0) < _HOT_SECONDS

    def _listen(self) -> bool:
        """Note which namespaces notices have come of; return whether some may have been missed."""
        try:
            if self._listener is None:
                assert self._dsn is not None  # noqa: S101 - asked before
                self._listener = psycopg.connect(self._dsn, autocommit=True)
                self._listener.execute(f"LISTEN {CHANNEL}")
                return True
            now = time.monotonic()
            for notice in self._listener.notifies(timeout=0):
                if len(self._heard) >= _MANY:
                    self._heard.clear()
                self._heard[notice.payload] = now
        except psycopg.Error:
            self._close()
            return True
        return False

    def close(self) -> None:
        """Hear of nothing until the next look."""
        holding(self._mutex, self._close)

    def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
