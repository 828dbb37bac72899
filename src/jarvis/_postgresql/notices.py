"""`Notices`: tells the watchers of other processes of commits, and hears of theirs, through LISTEN and NOTIFY.

A NOTIFY makes commits of the whole database wait for each other, so a process sends one in `_PAUSE_SECONDS` at most. A
watcher that heard one looks at the feed again for longer than that, and now and then in any case: it misses nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import psycopg
from psycopg import conninfo

from jarvis._calls.caller import holding

CHANNEL = "jarvis"
_PAUSE_SECONDS = 0.05
_HOT_SECONDS = 3 * _PAUSE_SECONDS
_IDLE_SECONDS = 0.5
_CONNECT_SECONDS = 2
_RETRY_SECONDS = 10.0  # after which a connection that could not be made is tried again
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
        self._retry_at = 0.0  # until then no connection is tried
        self._is_told = False

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
        now = time.monotonic()
        try:
            if self._listener is None:
                if now >= self._retry_at:
                    self._retry_at = now + _RETRY_SECONDS
                    self._begin()
                return True
            for notice in self._listener.notifies(timeout=0):
                if len(self._heard) >= _MANY:
                    self._heard.clear()
                self._heard[notice.payload] = now
        except psycopg.Error as error:
            self._close()
            if not self._is_told:
                self._is_told = True
                logging.getLogger("jarvis.postgresql").warning(
                    "cannot listen for notices, so watchers ask each time: %s", " ".join(str(error).split())
                )
            return True
        return False

    def _begin(self) -> None:
        """Connect and listen; a server that does not answer keeps the watchers waiting for a moment only."""
        assert self._dsn is not None  # noqa: S101 - asked before
        given: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS, **conninfo.conninfo_to_dict(self._dsn)}
        self._listener = psycopg.connect(autocommit=True, **given)
        self._listener.execute(f"LISTEN {CHANNEL}")
        self._is_told, self._retry_at = False, 0.0

    def close(self) -> None:
        """Hear of nothing until the next look."""
        holding(self._mutex, self._close)

    def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
