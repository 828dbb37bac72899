"""The past of a store: it keeps the states that changes end, and answers questions as of a moment.

A change writes its revision on its own connection and in its own transaction, so there is no change without its
revision and no revision without its change. The tables are `revisions`, `commits`, `events` and `gaps`.
"""

from __future__ import annotations

import functools
import itertools
import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from jarvis._sql import feed, pruning, side_tables, tables
from jarvis._sql.pruning import NO_MORE
from jarvis._sql.select import COLUMNS, LIVE, made_until, visible
from jarvis._sql.tables import change_checksum
from jarvis.codec.instants import datetime_of, instant_of
from jarvis.model import rules
from jarvis.model.dating import DATED_BACK
from jarvis.model.revision import Cutoff, Revision, Signature

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jarvis._sql.reading import Reader
    from jarvis._sql.session import Session
    from jarvis.model.entry import MemoryEntry
    from jarvis.model.revision import Operation

_CONTENT = "id, category, key, entity_type, entity_id, instant, version, body, checksum, expires, packed, created"
_STATE = f"row, namespace, {_CONTENT}"
_INTO = f"INSERT INTO revisions (ended, made, change, change_checksum, {_STATE})"
_KEEP = f"{_INTO} SELECT ?, ?, ?, ?, {_STATE} FROM entries WHERE namespace = ? AND row = ?"
_BEFORE_RENEWAL = f"{side_tables.STATES['revisions']} WHERE namespace = ? AND number = ?"
_END_AGAIN = """
UPDATE revisions SET ended = ?, made = ?, change = ?, change_checksum = ? WHERE namespace = ? AND ended = ?
"""
_KEEP_ALL = f"""
{_INTO} SELECT :before + place, :made, :change, (:checksum + place) & 4294967295, {_STATE}
FROM (SELECT row_number() OVER (ORDER BY row) AS place, * FROM entries WHERE namespace = :namespace) AS ended
"""
OF_ENTRY = f"""
SELECT e.made, e.change, {COLUMNS} FROM revisions AS e WHERE e.namespace = ? AND e.id = ? AND NOT {tables.IS_RENEWAL}
ORDER BY e.ended DESC
"""
NEWEST_OF = {
    name: " UNION ALL ".join(
        f"SELECT {COLUMNS} FROM {table} AS e WHERE e.namespace = :namespace AND e.{name} = :held "
        f"AND {' AND '.join([*visible('e', is_over=is_over), *others])}"
        for table, is_over, others in (("entries", False, [LIVE]), ("revisions", True, []))
    )
    + " ORDER BY 7 DESC, 1 DESC LIMIT 1"  # instant, row
    for name in ("id", "key")
}
"""By column: the statement that selects `COLUMNS` of the newest visible state with that id or key."""

_ENDED_SINCE = "SELECT ended, id FROM revisions WHERE namespace = ? AND ended > ? ORDER BY ended"
HAS_EXPIRED = "SELECT 1 FROM entries WHERE namespace = ? AND id = ? AND expires <= ?"
LAST_VERSION = "SELECT version FROM revisions WHERE namespace = ? AND id = ? ORDER BY ended DESC LIMIT 1"
_LOOK_BACK = f"""
SELECT (SELECT last FROM commits WHERE {{here}} AND moment <= ?1 ORDER BY moment DESC, last DESC LIMIT 1),
    (SELECT first FROM commits WHERE {{here}} AND moment > ?1 ORDER BY moment, last LIMIT 1),
    EXISTS (SELECT 1 FROM gaps WHERE {{here}}), EXISTS (SELECT 1 FROM events WHERE {{here}} AND id IS NULL),
    {tables.CLOCK_FIELDS}
"""
_DATED_BACK = """
SELECT 1 FROM entries WHERE row >= :ahead AND instant <= :as_of AND namespace = :namespace
UNION ALL SELECT 1 FROM revisions WHERE ended >= :ahead AND (made <= :as_of OR (row >= :ahead AND instant <= :as_of))
    AND namespace = :namespace
UNION ALL SELECT 1 FROM events WHERE number >= :ahead AND made <= :as_of AND namespace IN (:namespace, :digest)
LIMIT 1
"""
_FIRST_AHEAD = "SELECT first FROM commits WHERE {here} AND moment > ? ORDER BY moment, last LIMIT 1"
_ERASED_SINCE = f"""
SELECT min(number), max(number), max(made) FROM events AS e
WHERE id IS NULL AND namespace = :digest AND NOT {made_until("e", "number", "made")}
"""
_WAS_KNOWN = """
SELECT 1 FROM entries WHERE namespace = :namespace AND id = :id AND row < :number UNION ALL
SELECT 1 FROM revisions WHERE namespace = :namespace AND id = :id AND row < :number
"""


_DECODE_CHANGE = msgspec.json.Decoder(Signature).decode


class LookBack(NamedTuple):
    """What a store records about an instant.

    Attributes:
        instant: the instant.
        clock: the clock as it is now.
        last_until: the last commit number of the last recorded transaction that was visible then, 0 for none.
        first_after: the first commit number of the first recorded transaction that was not visible then.
        has_gaps: some past states of entries are missing.
        has_erasures: memories of the store were erased at some time.
    """

    instant: int
    clock: tables.ClockRow
    last_until: int
    first_after: int
    has_gaps: bool
    has_erasures: bool


_OF_GAPS = ("namespace", "id")
# --- keeping --------------------------------------------------------------------------------------


def keep(
    session: Session,
    namespace: int,
    entry_id: str,
    state: tuple[int, int, int],
    commit: int,
    tags: Sequence[str],
    *,
    is_renewed: bool,
    operation: Operation = "update",
) -> None:
    """Keep the state of an entry that the change `commit` ends; prune the states that the policy has no room for.

    Of a state that was renewed, the one before its first renewal is kept, as ended by this change.

    Args:
        session: the session of the transaction; the state is still the present one.
        namespace: the id of the namespace's name.
        entry_id: the entry.
        state: (row, instant, version) of the state.
        commit: the number that `Clock.next_commit` gave.
        tags: the tags of the state.
        is_renewed: a renewal stored the state.
        operation: of the change, if nobody signed it as another: ``update``, ``delete`` or ``renew``.
    """
    row, instant, version = state
    made, change = session.clock.dated(), feed.signed(session, operation)
    end = (commit, made, change, change_checksum(commit, made, change), namespace, row)
    before = session.rows(session.say(_BEFORE_RENEWAL), (namespace, row)) if is_renewed else []
    if before:
        first = side_tables.Stored(*before[0])
        side_tables.take(session, (namespace, instant, row), tags)
        side_tables.take_again(session, first)
        session.run(_END_AGAIN, end)
        side_tables.put_again(session, first._replace(number=commit, ended=commit, made=made))
    else:
        session.run(_KEEP, end)
        for side in session.side_tables:
            if tags or not side.needs_tags:
                side.keep(session, (namespace, instant, row), tags, (commit, made))
    most = pruning.most_of(session, namespace, commit)
    if operation == "delete" or not most or (operation == "update" and version > most):
        pruning.prune_entry(session, namespace, entry_id, most)  # also of a deletion: the id may be given again
    if commit % rules.PRUNED_EVERY == 0:
        pruning.prune(session, made, rules.PRUNED_AT_ONCE)


def keep_all(session: Session, namespace: int, count: int) -> None:
    """Keep the states of all `count` entries of a namespace, before they are removed at once."""
    before, made = session.clock.commit_number, session.clock.dated()
    change = feed.signed(session, "clear")
    bound = {"before": before, "made": made, "namespace": namespace}
    for side in session.side_tables:
        side.keep_all(session, namespace, before, made)
    checksum = change_checksum(before, made, change)
    session.run(_KEEP_ALL, {**bound, "change": change, "checksum": checksum})
    session.clock.next_commit(count)
    if session.history.named:
        for ended, entry_id in session.rows(_ENDED_SINCE, (namespace, before)):
            if not pruning.most_of(session, namespace, ended):
                pruning.prune_entry(session, namespace, entry_id, 0)
    pruning.prune(session, made, rules.PRUNED_AT_ONCE)


# --- reading --------------------------------------------------------------------------------------


def revisions(session: Session, reader: Reader, entry_id: str) -> list[Revision]:
    """Return the kept past states of the entry that has or had this id, newest first."""
    if reader.lender.read_only and not session.driver.keeps_past():
        return []
    namespace, now = session.names.fresh_id_of(reader.namespace), reader.now()
    with session.standing_still():
        if session.rows(HAS_EXPIRED, (namespace, entry_id, now)):
            return []
        rows = session.rows(OF_ENTRY, (namespace, entry_id))
    states = reader.entries(session, [row[2:] for row in rows])
    found = [_revision(reader, row[0], row[1], state) for row, state in zip(rows, states, strict=True)]
    return list(itertools.takewhile(lambda revision: not _has_expired(revision, now), found))


def _revision(reader: Reader, made: int, change: str, entry: MemoryEntry) -> Revision:
    try:
        signature = _DECODE_CHANGE(change)
    except ValueError:
        raise reader.undecodable(entry.id) from None
    return Revision(version=entry.version, entry=entry, timestamp=datetime_of(made), **signature._asdict())


def _has_expired(revision: Revision, now: int) -> bool:
    """Tell whether a past state is the last one of an entry that was deleted and has expired."""
    expires_at = revision.entry.expires_at
    return expires_at is not None and revision.is_removal and instant_of(expires_at) <= now


def seen_from(session: Session, instant: int) -> LookBack:
    """Return what the store records about an instant, and update the session's names. The session stands still."""
    if session.driver.keeps_past():
        done, first, has_gaps, has_erasures, *read = session.rows(session.say(_LOOK_BACK), (instant,))[0]
        clock = session.clock.row() if session.depth else tables.clock_row(tuple(read))
        look = LookBack(instant, clock, done or 0, first or NO_MORE, bool(has_gaps), bool(has_erasures))
    else:
        clock = session.clock_seen()
        if not clock.made:  # no change has a moment: as in `schema.begin_history`
            newest = session.rows(session.say("SELECT max(instant) FROM entries WHERE {here}"))[0][0] or 0
            clock = clock._replace(made=min(newest, time.time_ns() // 1000))
        look = LookBack(instant, clock, 0, NO_MORE, has_gaps=False, has_erasures=False)
    session.names.begin(clock.names_generation)
    return look


def cutoff(session: Session, namespace: str, look: LookBack, now: int, asked: dict[str, object]) -> Cutoff | None:
    """Return which changes were visible at an instant, or None if that is the present.

    Args:
        session: the session to read on; it stands still.
        namespace: the namespace's name.
        look: what `seen_from` returned.
        now: entries that have expired by this instant are not known any more.
        asked: the columns that the question fixes, with their values: namespace, and perhaps id, category, key, …

    Raises:
        HistoryUnavailableError: the store did not exist then, or a state that was visible and fits `asked` was pruned
            or has expired, or the namespace was erased since.
    """
    instant, clock = look.instant, look.clock
    if rules.is_present(instant, clock.made, clock.begins):
        if instant < now and session.driver.keeps_past():
            _refuse_expired(session, Cutoff(instant, NO_MORE, NO_MORE, NO_MORE), now, asked)
        return None
    if rules.may_be_dated_back(instant, now, clock.made) and _is_dated_back(session, namespace, instant, now, asked):
        raise rules.unavailable(instant, clock.made, DATED_BACK)
    first = look.first_after
    if session.depth and session.clock.commit_number > session.clock.began:
        first = min(first, session.clock.began + 1)  # nobody has seen uncommitted changes
    seen = Cutoff(instant, look.last_until, first, instant + clock.ahead)
    if look.has_erasures:
        _refuse_erased(session, namespace, seen, asked)
    if look.has_gaps:
        _refuse_gaps(session, seen, asked)
    _refuse_expired(session, seen, now, asked)
    return seen


def _is_dated_back(session: Session, namespace: str, instant: int, now: int, asked: dict[str, object]) -> bool:
    """Tell whether a change dated until `instant` was made after changes that are dated ahead of the clock."""
    ahead = session.rows(session.say(_FIRST_AHEAD), (now,))
    bindings = {"as_of": instant, "namespace": asked["namespace"], "digest": session.digest_of(namespace)}
    return bool(ahead and session.rows(_DATED_BACK, {**bindings, "ahead": ahead[0][0]}))


def bound(seen: Cutoff) -> dict[str, int]:
    """Return the bindings of `jarvis._sql.select.visible`."""
    return {"as_of": seen.instant, "done": seen.done, "open": seen.open, "latest": seen.latest}


def _refuse_erased(session: Session, namespace: str, seen: Cutoff, asked: dict[str, object]) -> None:
    """Raise if memories were erased since, unless the question is for an id that was known before and still is."""
    bindings = {**bound(seen), "digest": session.digest_of(namespace)}
    del bindings["latest"]
    first, last, made = session.rows(session.say(_ERASED_SINCE), bindings)[0]
    if first is None or ("id" in asked and session.rows(_WAS_KNOWN, {**asked, "number": first})):
        return
    raise rules.unavailable(seen.instant, session.moment_of(last, made), rules.WAS_ERASED)


def _refuse_gaps(session: Session, seen: Cutoff, asked: dict[str, object]) -> None:
    conditions = [f"(g.{name} IS NULL OR g.{name} = :{name})" for name in asked if name not in _OF_GAPS]
    conditions += [f"g.{name} = :{name}" for name in asked if name in _OF_GAPS] + visible("g", is_over=True)
    conditions.append("(g.expires <= :as_of) IS NOT TRUE")
    sql = f"SELECT ended, made, expires FROM gaps AS g WHERE {' AND '.join(conditions)} ORDER BY ended DESC LIMIT 1"
    for ended, made, expires in session.rows(session.say(sql), {**bound(seen), **asked}):
        if expires is not None:
            raise rules.unavailable(seen.instant, expires, rules.WAS_PURGED)
        raise rules.unavailable(seen.instant, session.moment_of(ended, made))


def _refuse_expired(session: Session, seen: Cutoff, now: int, asked: dict[str, object]) -> None:
    """Raise if a state that fits `asked` was visible at the cutoff and its entry has expired by now."""
    bindings = {**bound(seen), **asked, "now": now}
    for (expires,) in session.rows(session.say(_expired_since(tuple(asked))), bindings):
        if expires is not None:
            raise rules.unavailable(seen.instant, expires, rules.HAS_EXPIRED)


@functools.lru_cache(maxsize=64)
def _expired_since(names: tuple[str, ...]) -> str:
    """Return the text that selects the latest expiry of the entries asked for; NULL if none has expired since.

    `names` are the columns that the question fixes, the namespace among them.
    """

    def asked(table: str) -> str:
        return " AND ".join(f"{table}.{name} = :{name}" for name in names if name != "namespace") or "TRUE"

    was_there = " AND ".join(visible("x", is_over=False))
    # The index of expiry leads, or that of the id if there is one.
    expired = "x.expires <= :now AND {unindexed}x.namespace = :namespace"
    if "id" in names:
        expired = "{unindexed}x.expires <= :now AND x.namespace = :namespace AND x.id = :id"
    earlier = (
        f"r.namespace = x.namespace AND r.id = x.id AND {asked('r')} AND {' AND '.join(visible('r', is_over=True))}"
    )
    return f"""
SELECT max(expires) FROM (
    SELECT x.expires FROM entries AS x WHERE {expired} AND (
        (x.expires > :as_of AND {asked("x")} AND {was_there}) OR EXISTS (SELECT 1 FROM revisions AS r WHERE {earlier}))
    UNION ALL
    SELECT x.expires FROM revisions AS x WHERE {expired} AND {tables.REMOVED}
        AND EXISTS (SELECT 1 FROM revisions AS r WHERE {earlier} AND r.ended <= x.ended)
) AS expired
"""
