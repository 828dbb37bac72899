"""`Connector`: makes connections to one server, and waits for it while it restarts."""

from __future__ import annotations

import math
import os
import time
from typing import Any

import psycopg
from psycopg import conninfo

from jarvis._postgresql import failures
from jarvis._postgresql.raw import ANSWER_SECONDS, Raw, configure
from jarvis.model.store_options import StoreOptions

_RESTART_SECONDS = 5.0
"""How long calls wait in all for a server that was there before, from the first one that misses it."""

_PAUSE_SECONDS = 0.05
_VANISHED = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}
"""Ends a connection, in about a minute, to a machine that is not there any more and has not said so.

Else a call waits for its answer for two hours: https://www.postgresql.org/docs/current/libpq-connect.html
"""

_SHORTEST_TIMEOUT = 2  # seconds, of libpq
_NOT_SYNCED = "SET synchronous_commit = off"
_SYNCED = """
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
"""


class Connector:
    """Makes connections to one server.

    Args:
        dsn: where the server is, as a URL or in keywords.
        path: names the store in messages.
        options: the options of the store.
        transaction_pooling: a proxy gives each transaction any connection of its own, so that neither settings nor
            prepared statements may be left on one.
    """

    def __init__(self, dsn: str, path: str, options: StoreOptions, *, transaction_pooling: bool = False) -> None:
        self._dsn, self.path = dsn, path
        self.timeout_seconds = options.busy_timeout_seconds
        milliseconds = max(int(self.timeout_seconds * 1_000), 1)
        settings = [
            f"SET lock_timeout = {milliseconds}",
            "SET jit = off",
            "SET enable_seqscan = off",
            "SET plan_cache_mode = force_generic_plan",
            _NOT_SYNCED if options.durability == "normal" else _SYNCED,
        ]
        if options.read_only:
            settings.append("SET default_transaction_read_only = on")
        self._settings = "" if transaction_pooling else "; ".join(settings)
        self._local: tuple[str, ...] = ()
        if transaction_pooling:
            synced = "off" if options.durability == "normal" else "on"
            self._local = f"SET LOCAL lock_timeout = {milliseconds}", f"SET LOCAL synchronous_commit = {synced}"
        given = conninfo.conninfo_to_dict(dsn)
        self._more: dict[str, Any] = {name: value for name, value in _VANISHED.items() if name not in given}
        self._more["client_encoding"] = "UTF8"  # `Wire` writes it, whatever the environment says
        timeout = given.get("connect_timeout") or os.environ.get("PGCONNECT_TIMEOUT")
        self._connect_timeout = None if timeout else max(math.ceil(self.timeout_seconds), _SHORTEST_TIMEOUT)
        self._was_there = False
        self._away_since: float | None = None

    def connect(self, patience_seconds: float | None = None) -> Raw:
        """Return a new connection.

        Args:
            patience_seconds: how long to wait for the server to be there; None: some seconds if it was there before,
                which all calls share that miss it.

        Raises:
            StoreBusyError: the server has no connection left.
            StoreAccessError: the server cannot be reached, or lets nobody in.
        """
        began = time.monotonic()
        more = {**self._more, "connect_timeout": self._connect_timeout}
        if patience_seconds is not None and patience_seconds < self.timeout_seconds:
            more["connect_timeout"] = max(math.ceil(patience_seconds), _SHORTEST_TIMEOUT)
        while True:
            try:
                raw = Raw.connect(self._dsn, autocommit=True, **more)
                self._configure(raw)
            except psycopg.Error as error:
                problem = failures.unreachable(self.path, error)
            else:
                self._was_there, self._away_since = True, None
                return raw
            now = time.monotonic()
            if patience_seconds is not None:
                ends = began + patience_seconds
            elif not self._was_there:
                raise problem from None
            else:
                if self._away_since is None:
                    self._away_since = began
                ends = self._away_since + min(self.timeout_seconds, _RESTART_SECONDS)
            if now >= ends:
                raise problem from None
            time.sleep(_PAUSE_SECONDS)

    def is_there(self, raw: Raw) -> bool:
        """Tell whether the server of a connection lets another one in; also if it says that it does not."""
        where = {"host": raw.info.host, "hostaddr": raw.info.hostaddr, "port": str(raw.info.port)}
        try:
            psycopg.connect(
                self._dsn, **{**self._more, **where, "target_session_attrs": "any", "connect_timeout": ANSWER_SECONDS}
            ).close()
        except psycopg.errors.ConnectionTimeout:
            return False
        except psycopg.Error:
            return True
        return True

    def _configure(self, raw: Raw) -> None:
        raw.is_there = self.is_there
        raw.warnings = warnings = []
        raw.add_notice_handler(lambda said: warnings.append("01000") if said.sqlstate == "01000" else None)
        configure(raw)
        raw.local = self._local
        if self._settings:
            raw.execute(self._settings)
