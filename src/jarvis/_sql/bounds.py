"""Finds the entries that the policy of a category has no room for; see `jarvis.model.policies.CategoryPolicy`.

A category that is full is full at each write. So the rows of all its entries are counted and summed up where they are,
and only the few that were written longest ago are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jarvis._sql.select import LIVE, count, has_none
from jarvis.model.query import MemoryQuery

if TYPE_CHECKING:
    from jarvis._sql.reading import Reader
    from jarvis._sql.session import Session
    from jarvis.model.policies import CategoryPolicy

_SIZE = "octet_length(e.body) + coalesce(octet_length(e.packed), 0)"
_HERE = "entries AS e WHERE e.namespace = :namespace AND e.category = :category"
_TOTAL = f"SELECT count(*), coalesce(sum({_SIZE}), 0) FROM {_HERE} AND {LIVE}"
_ALIVE = "e.row NOT IN (SELECT row FROM entries WHERE namespace = :namespace AND expires <= :now)"
_OLDEST = f"""
SELECT e.id, {_SIZE} FROM entries AS e
WHERE {{unindexed}}e.namespace = :namespace AND e.row IN (
    SELECT e.row FROM {_HERE} AND {_ALIVE}{{pins}} ORDER BY e.row LIMIT :page
) ORDER BY e.row
"""
_FEW = 4


def beyond(session: Session, reader: Reader, category: str, policy: CategoryPolicy) -> list[str]:
    """Return the ids of the entries of a category that a policy has no room for, in the order they were written."""
    pinned, name_id = policy.keep_tags, session.names.id_of if session.depth else session.names.fresh_id_of
    bindings: dict[str, Any] = {"now": reader.now()}
    bindings.update(namespace=name_id(reader.namespace), category=name_id(category))
    bindings.update((f"excluded_{index}", tag) for index, tag in enumerate(pinned))
    pins = f" AND {has_none(len(pinned), 'e')}" if pinned else ""
    with session.standing_still():
        if policy.max_bytes is None:  # then an index has all that is asked
            rows = reader.rows(session, MemoryQuery(category=category, exclude_tags=pinned), count)
            number, size = (rows[0][0] if rows else 0), 0
        else:
            number, size = session.rows(session.say(_TOTAL + pins), bindings)[0]
        surplus = 0 if policy.max_entries is None else number - policy.max_entries
        excess = 0 if policy.max_bytes is None else size - policy.max_bytes
        found: list[str] = []
        while len(found) < number and (len(found) < surplus or excess > 0):
            bindings["page"] = max(4 * len(found), surplus, _FEW)
            for entry_id, of_it in session.rows(session.say(_OLDEST.replace("{pins}", pins)), bindings)[len(found) :]:
                if len(found) >= surplus and excess <= 0:
                    break
                found.append(entry_id)
                excess -= of_it
        return found
