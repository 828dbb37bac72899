"""Searches the rows of a namespace for erased ids, and removes the names that no row uses any more.

A row that was removed lies in the server's files until a VACUUM, and its bytes in a page until others take their place;
the server's log, replicas and backups have their own copies. No client reaches these, so they are named instead.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from jarvis._sql import erasing, registry
from jarvis.model.erasure import Search, Wanted

if TYPE_CHECKING:
    from jarvis._sql.session import Session

UNREACHABLE = (
    "rows that the server has removed but not yet overwritten: VACUUM frees them, and VACUUM FULL writes the rest anew",
    "the server's statistics of columns, which ANALYZE replaces",
    "the server's write-ahead log, its standby servers, and backups of it",
    "blocks that the file system has freed and not yet overwritten",
)
"""Where erased data may still be: no erasure reaches it."""

_USES = " AND ".join(
    f"NOT EXISTS (SELECT 1 FROM {table.name} AS t WHERE t.namespace = n.namespace AND t.{column} = n.id)"
    for table in registry.tables()
    for column in table.names
    if column != "namespace"
)
_REMOVE_UNUSED = f"DELETE FROM names AS n WHERE n.namespace = :here_ AND n.id <> :here_ AND {_USES}"


def remove_unused_names(session: Session) -> None:
    """Remove the names of the namespace that no row uses, as a part of the session's transaction."""
    session.run(_REMOVE_UNUSED, {})
    if session.driver.changed():
        session.clock.generation += 1
        session.names.forget()
    session.clock.erasing = 0
    session.clock.erased(0)


def search(session: Session, ids: Collection[str]) -> Search:
    """Search the rows of the namespace for `ids`, also in compressed values."""
    wanted = Wanted(ids)
    if not wanted:
        return Search((), 0, 0, UNREACHABLE)
    return Search(tuple(erasing.TEXTS), *erasing.mentions(session, wanted), UNREACHABLE)
