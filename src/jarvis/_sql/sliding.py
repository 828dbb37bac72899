"""Lets an entry expire later in its row, beside writers and without a sync: see `jarvis.capabilities.Slides`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from jarvis._sql.reading import can_be_looked_up
from jarvis._sql.tables import row_checksum
from jarvis.errors import ReadOnlyStoreError, StoreBusyError

if TYPE_CHECKING:
    from jarvis._sql.session import Session

_NAME = "(SELECT name FROM names WHERE {{here}} AND names.id = e.{})"
_FIND = f"""
SELECT row, {_NAME.format("namespace")}, id, {_NAME.format("category")}, key, {_NAME.format("entity_type")}, entity_id,
    instant, version, body, packed, checksum, expires
FROM entries AS e WHERE namespace = ? AND id = ? AND expires > ? AND expires < ?
"""


class ChangesAtOnce(Protocol):
    """A `jarvis._sql.lender.Lender` that can make a change without waiting for anything."""

    def change_at_once(self, work: Callable[[Session], bool]) -> bool:
        """Run `work` in a transaction of its own that is not synced; inside one of the caller's as a part of that.

        Raises:
            StoreBusyError: another writer is writing; it was not waited for.
        """


_SLIDE = "UPDATE entries SET expires = ?, checksum = ? WHERE namespace = ? AND row = ?"


def try_to(lender: ChangesAtOnce, namespace: str, entry_id: str, expires: int, now: int) -> bool:
    """Let an entry that has not expired at `now` expire later, at `expires`, unless somebody is writing."""
    if not can_be_looked_up(entry_id):
        return False
    try:
        return lender.change_at_once(lambda session: _slide(session, namespace, entry_id, expires, now))
    except (StoreBusyError, ReadOnlyStoreError):
        return False


def _slide(session: Session, namespace: str, entry_id: str, expires: int, now: int) -> bool:
    namespace_id = session.names.fresh_id_of(namespace)
    found = session.rows(session.say(_FIND), (namespace_id, entry_id, now, expires))
    for *fields, body, packed, checksum, before in found:
        if row_checksum((*fields, before), body, packed) != checksum:  # else a new checksum would hide the damage
            raise session.driver.corrupt("an entry does not match its checksum")
        session.run(_SLIDE, (expires, row_checksum((*fields, expires), body, packed), namespace_id, fields[0]))
        return True
    return False
