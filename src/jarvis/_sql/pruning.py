"""Removes past states that the policy has no room for, and those of what has expired; notes what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jarvis._sql import feed, side_tables
from jarvis._sql.tables import CLEARED
from jarvis.codec.instants import MICROSECOND
from jarvis.model import rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jarvis._sql.session import Session

NO_MORE = 2**62
_CATEGORY_OF = "SELECT category FROM revisions WHERE namespace = ? AND ended = ?"
INTO_GAP = "INSERT INTO gaps (namespace, id, category, key, entity_type, entity_id, row, instant, ended, made, expires)"
_GAP = "namespace, id, category, key, entity_type, entity_id, row, instant"
WIDEN = """
ON CONFLICT (namespace, id) DO UPDATE SET ended = excluded.ended, made = excluded.made, expires = excluded.expires,
    instant = CASE WHEN excluded.row < gaps.row THEN excluded.instant ELSE gaps.instant END,
    row = CASE WHEN excluded.row < gaps.row THEN excluded.row ELSE gaps.row END,
    category = CASE WHEN gaps.category = excluded.category THEN gaps.category END,
    key = CASE WHEN gaps.key = excluded.key THEN gaps.key END,
    entity_type = CASE WHEN gaps.entity_type = excluded.entity_type THEN gaps.entity_type END,
    entity_id = CASE WHEN gaps.entity_id = excluded.entity_id THEN gaps.entity_id END
"""
_FALL_INTO_GAP = f"{INTO_GAP} SELECT {_GAP}, ended, made, NULL FROM revisions WHERE namespace = ? AND ended = ? {WIDEN}"
_EXPIRE_INTO_GAP = f"{INTO_GAP} SELECT {_GAP}, ?, ?, expires FROM entries WHERE namespace = ? AND row = ? {WIDEN}"
_EXPIRED_INTO_GAP = "UPDATE gaps SET expires = ? WHERE namespace = ? AND id = ?"
_DOOMED = "ended, made, change, row, namespace, id, category, key, instant, version, body"
_TOO_MANY = f"""
SELECT * FROM (
    SELECT {_DOOMED} FROM revisions WHERE namespace = ? AND id = ? ORDER BY ended DESC LIMIT {NO_MORE} OFFSET ?
) AS too_many ORDER BY ended LIMIT ?
"""
_TOO_OLD = f"SELECT {_DOOMED} FROM revisions WHERE {{here}}{{others}} ORDER BY ended LIMIT ?"
_TOO_OLD_BEHIND = f"SELECT {_DOOMED} FROM revisions WHERE {{here}} AND made < ?{{others}} ORDER BY ended LIMIT ?"
_CLEARED = f"""
SELECT {_DOOMED} FROM revisions WHERE {{here}} AND {CLEARED} AND made < ?{{others}} ORDER BY made LIMIT ?
"""
_NEXT = "SELECT min(namespace) FROM revisions WHERE {here}"
_TOO_OLD_IN = f"""
WITH RECURSIVE found (item) AS (
    {_NEXT} UNION ALL SELECT ({_NEXT} AND namespace > found.item) FROM found WHERE item IS NOT NULL
)
SELECT r.namespace, r.id, r.ended FROM found JOIN revisions AS r ON r.namespace = found.item AND r.category = :category
WHERE r.made < :aged ORDER BY r.ended LIMIT :limit
"""
_CLEARED_IN = f"""
SELECT namespace, id, ended FROM revisions WHERE {{here}} AND {CLEARED} AND category = :category AND made < :cleared
ORDER BY ended LIMIT :limit
"""
_OLDER = f"SELECT {_DOOMED} FROM revisions WHERE namespace = ? AND id = ? AND ended < ? ORDER BY ended LIMIT ?"
_PRUNE = "DELETE FROM revisions WHERE namespace = ? AND ended = ?"
_OLD_GAPS = "SELECT ended, made FROM gaps WHERE {here} AND made < ? ORDER BY made LIMIT ?"
_PRUNE_GAPS = "DELETE FROM gaps WHERE {here} AND made <= ?"
_PRUNE_COMMITS = """
DELETE FROM commits WHERE {here} AND last IN (
    SELECT last FROM commits WHERE {here} AND last < (SELECT max(last) FROM commits WHERE {here} AND moment <= ?)
    ORDER BY last LIMIT ?
)
"""


def prune(session: Session, now: int, limit: int) -> int:
    """Remove at most `limit` revisions that are older at the instant `now` than the policy keeps; return how many.

    The known past then begins where the last of them ended.
    """
    policy = session.history.usual
    pruned = _prune_named(session, now, limit)
    begins = session.clock.begins
    ids = ", ".join(map(str, _ids_of_named(session).values()))
    others = f" AND category NOT IN ({ids})" if ids else ""
    if policy.cleared_max_age is not None:
        for cleared in session.rows(
            session.say(_CLEARED.replace("{others}", others)), (now - policy.cleared_max_age // MICROSECOND, limit)
        ):
            ended, *_, namespace, entry_id, _, _, _, _, _ = cleared
            older = session.rows(_OLDER, (namespace, entry_id, ended, limit - pruned))
            begins, pruned = _remove(session, older, begins), pruned + len(older)
            if pruned >= limit or session.rows(_OLDER, (namespace, entry_id, ended, 1)):
                break  # the next step resumes here: the cleared state is removed after all older ones
            begins, pruned = _remove(session, [cleared], begins), pruned + 1
    before = -NO_MORE if policy.max_age is None else now - policy.max_age // MICROSECOND
    if policy.max_age is not None and pruned < limit:
        oldest = session.rows(session.say(_TOO_OLD.replace("{others}", others)), (limit - pruned,))
        if oldest and oldest[-1][1] > now:  # dated ahead of the clock: revisions after them must not wait
            oldest = session.rows(session.say(_TOO_OLD_BEHIND.replace("{others}", others)), (before, limit - pruned))
        states = [state for state in oldest if state[1] < before]
        begins, pruned = _remove(session, states, begins), pruned + len(states)
        old_gaps = session.rows(session.say(_OLD_GAPS), (before, limit))
        for ended, made in old_gaps[-1:]:  # where no revision is pruned, only gaps show how far the past goes
            moment = session.moment_of(ended, made)
            begins = moment if begins is None else max(begins, moment)
    if pruned < limit:
        feed.prune(session, before, limit)
        if begins is not None and session.clock.begins is not None:  # pruning an erasure may have moved it
            begins = max(begins, session.clock.begins)
    if begins != session.clock.begins and session.clock.begins is not None and begins is not None:
        session.clock.begin_past(begins)
        session.run(session.say(_PRUNE_GAPS), (begins,))
        session.run(session.say(_PRUNE_COMMITS), (begins, limit))
    return pruned


def prune_entry(session: Session, namespace: int, entry_id: str, most: int) -> None:
    """Remove all but `most` past states of the entry that has or had this id, and note the gap."""
    _forget(session, session.rows(_TOO_MANY, (namespace, entry_id, most, rules.PRUNED_AT_ONCE)))


def most_of(session: Session, namespace: int, ended: int) -> int:
    """Return how many past states the policy keeps of the memory whose state `ended` ended."""
    if not session.history.named:
        return session.history.usual.max_revisions
    category = session.names.text_of(session.rows(_CATEGORY_OF, (namespace, ended))[0][0])
    return session.history.of(category or "").max_revisions


def _prune_named(session: Session, now: int, limit: int) -> int:
    """Remove states of the categories that have a policy of their own, as it says; return how many.

    They leave gaps: the known past of the others does not begin later because of them.
    """
    pruned = 0
    for category, number in _ids_of_named(session).items():
        policy = session.history.of(category)
        ages = ((_CLEARED_IN, "cleared", policy.cleared_max_age), (_TOO_OLD_IN, "aged", policy.max_age))
        for sql, name, age in ages:
            if age is None:
                continue
            bindings = {"category": number, name: now - age // MICROSECOND, "limit": limit - pruned}
            for namespace, entry_id, ended in session.rows(session.say(sql), bindings):
                states = session.rows(_OLDER, (namespace, entry_id, ended + 1, limit - pruned))
                _forget(session, states)
                pruned += len(states)
    return pruned


def _ids_of_named(session: Session) -> dict[str, int]:
    ids = {category: session.names.id_of(category) for category in session.history.named}
    return {category: number for category, number in ids.items() if number is not None}


def _forget(session: Session, states: Sequence[Sequence[Any]]) -> None:
    """Remove the oldest past states of one entry, and note the gap."""
    for ended, _, _, _, namespace, *_ in states:  # oldest first, so the gap has no hole
        session.run(_FALL_INTO_GAP, (namespace, ended))
    for state in states:
        _remove_state(session, state)


def _remove(session: Session, states: Sequence[Sequence[Any]], begins: int | None) -> int | None:
    """Remove past states; return from when on the past is known then, which was `begins` before."""
    for state in states:
        _remove_state(session, state)
        moment = session.moment_of(state[0], state[1])
        begins = moment if begins is None else max(begins, moment)
    return begins


def _remove_state(session: Session, state: Sequence[Any]) -> None:
    ended, made, change, row, namespace, entry_id, category, key, instant, version, encoded = state
    feed.keep_told(session, (ended, made, namespace), change, (entry_id, category, key), version)
    if version == 1:
        feed.keep_created(session, (row, instant, namespace), encoded, (entry_id, category, key))
    side_tables.take_past(session, (namespace, instant, row), session.body(encoded).tags)
    session.run(_PRUNE, (namespace, ended))


def expire(session: Session, entry: tuple[int, str], until: int, expires: int) -> None:
    """Remove the states of an expired entry that ended up to the number `until`, and note only that they expired.

    Args:
        session: the session of the transaction.
        entry: (id of the namespace's name, id).
        until: the number of the last change that ended such a state.
        expires: the instant of expiry.
    """
    _forget(session, session.rows(_OLDER, (*entry, until + 1, NO_MORE)))
    session.run(_EXPIRED_INTO_GAP, (expires, *entry))


def expire_present(session: Session, namespace: int, row: int) -> None:
    """Note that the last change purges an entry, whose past states `expire` has removed."""
    session.run(_EXPIRE_INTO_GAP, (session.clock.commit_number, session.clock.dated(), namespace, row))
