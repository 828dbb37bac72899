"""`VersionWatch`: notices every commit to a server, also those of other programs, with one cheap question."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from jarvis._postgresql.connection import RUN

if TYPE_CHECKING:
    from jarvis._postgresql.lease import Lease

_NOW = f"SELECT CAST(pg_current_snapshot() AS text), {RUN}, pg_is_in_recovery()"
"""Two equal snapshots of one run of a server see the same commits: its numbers of transactions only grow.

On a standby the text does not name those that are in progress.
https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT
"""

_NEXT = "SELECT min(namespace) FROM entries WHERE expires IS NOT NULL"
_EXPIRIES = f"""
WITH RECURSIVE there (namespace) AS (
    {_NEXT} UNION ALL SELECT ({_NEXT} AND namespace > there.namespace) FROM there WHERE namespace IS NOT NULL
)
SELECT
    max((SELECT max(e.expires) FROM entries AS e WHERE e.namespace = there.namespace AND e.expires <= :now)),
    min((SELECT min(e.expires) FROM entries AS e WHERE e.namespace = there.namespace AND e.expires > :now))
FROM there WHERE there.namespace IS NOT NULL
"""
_FIRST, _ENDLESS = -(2**63), 2**63


class Version(NamedTuple):
    """A state of a store, as a handle sees it.

    Attributes:
        opening: tells it from those before the last `shutdown`.
        run: of the server.
        snapshot: which commits are seen.
        since: the last expiry of an entry of the store; one that was before.
        until: the next one.
    """

    opening: object
    run: str
    snapshot: str
    since: int
    until: int


class VersionWatch:
    """Tells the version of a store."""

    def __init__(self) -> None:
        self._seen: Version | None = None

    def version(self, session: Lease, opening: object, now: int) -> Version | None:
        """Return a value that is equal as long as nobody commits and no entry expires, by the instant `now`.

        None on a standby.
        """
        ((snapshot, run, is_standby),) = session.rows(_NOW)
        if is_standby:
            return None
        seen, told = self._seen, (opening, run, snapshot)
        if seen is None or seen[:3] != told or not seen.since <= now < seen.until:
            ((since, until),) = session.rows(_EXPIRIES, {"now": now})
            seen = Version(*told, _FIRST if since is None else since, _ENDLESS if until is None else until)
            self._seen = seen
        return seen
