"""Notices every commit to a store, of this process and of others, whoever made it and whatever it changed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from jarvis._calls.caller import holding

if TYPE_CHECKING:
    from jarvis._sqlite.pool import Lease, Pool

_EXPIRIES = """
SELECT (SELECT max(expires) FROM entries WHERE expires <= ?1), (SELECT min(expires) FROM entries WHERE expires > ?1)
"""
_FIRST, _ENDLESS = -(2**63), 2**63


class _Opened(NamedTuple):
    """A connection, and what tells it from all earlier ones."""

    lease: Lease
    identity: object


class _Seen(NamedTuple):
    """The last version: on which connection, after which commit, and between which expiries it was seen."""

    identity: object
    commit: int
    since: int
    until: int


class VersionWatch:
    """A connection on which nobody writes, so that its ``PRAGMA data_version`` moves with every commit of anybody.

    All threads use the same one, because numbers of two connections cannot be compared. The pool may close it at any
    time, so it is used with its guard held.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._opened: _Opened | None = None
        self._seen = _Seen(None, 0, 0, 0)

    def version(self, now: int) -> object:
        """Return a value that is equal as long as nobody commits and no entry expires, by the instant `now`."""
        version = None
        while version is None:
            opened = self._opened
            if opened is None or not self._is_current(opened):
                opened = self._open()
            version = holding(opened.lease.guard, partial(self._version, opened, now))
        return version

    def _is_current(self, opened: _Opened) -> bool:
        return self._pool.is_current(opened.lease) and self._pool.is_there(opened.lease)

    def _open(self) -> _Opened:
        """Return a connection to the file that the path names now."""
        before, lease = self._opened, self._pool.opened_again()
        lease.hand_over()
        opened = self._opened = _Opened(lease, object())
        if before is not None:  # a thread that is about to use it finds it closed, and tries again
            self._pool.retire(before.lease)
        return opened

    def _version(self, opened: _Opened, now: int) -> object:
        """Return the version; None if the connection was closed meanwhile."""
        lease, identity = opened
        if lease.closed:
            return None
        commit = lease.rows("PRAGMA data_version")[0][0]
        seen = self._seen
        if seen.identity is not identity or seen.commit != commit or not seen.since <= now < seen.until:
            since, until = lease.rows(_EXPIRIES, (now,))[0]
            seen = _Seen(identity, commit, _FIRST if since is None else since, _ENDLESS if until is None else until)
            self._seen = seen
        return seen
