"""The feed of changes: read from entries and revisions, and from `events` where those cannot record a change.

An entry of version 1, or its first revision, records its creation; a revision records the change that ended it.
So the feed adds no cost to a change. The changes of a pruned revision, the return of a deleted entry and an erasure
have a row in `events`, which holds no value. The row of an erasure has a digest of the namespace, because the name
must not stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from jarvis._sql import tables
from jarvis.codec.instants import datetime_of
from jarvis.errors import CursorExpiredError
from jarvis.model import rules
from jarvis.model.author import Author, creator_in
from jarvis.model.change import Change, cursor_of, position_in
from jarvis.model.record import is_renewed

if TYPE_CHECKING:
    from jarvis._sql.session import Session
    from jarvis.model.record import Body

Place = tuple[int, int, int]
"""(commit number, instant, id of the namespace's name) of a change."""

Named = tuple[str | None, int | None, str | None]
"""(id, id of the category's name, key) of an entry."""

# Each part is in the order of its numbers, and SQLite merges them, so a page costs only the rows it returns.
_CHANGES = f"""
SELECT row AS number, instant, NULL, id, category, key, version, 1, body FROM entries
WHERE row > :after AND row <= :until AND namespace = :namespace AND {tables.CREATED}
UNION ALL SELECT row, instant, NULL, id, category, key, version, 1, body FROM revisions
WHERE row > :after AND row <= :until AND namespace = :namespace AND {tables.CREATED}
UNION ALL SELECT ended, made, change, id, category, key, NULL, version, NULL FROM revisions
WHERE ended > :after AND ended <= :until AND namespace = :namespace AND NOT {tables.IS_RENEWAL}
UNION ALL SELECT number, made, change, id, category, key, version, count, NULL FROM events
WHERE number > :after AND number <= :until AND namespace IN (:namespace, :digest)
ORDER BY number LIMIT :limit
"""
_KEEP = """
INSERT INTO events (number, made, namespace, change, id, category, key, version, count, checksum)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_OLDEST = "SELECT number, made, id FROM events WHERE {here} ORDER BY number LIMIT ?"
_PRUNE = "DELETE FROM events WHERE {here} AND number <= ?"

_LOOKED_AT = 256
"""How many commit numbers the first step searches; each later step searches four times as many."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[str, str | None, str | None, str | None]).decode


# --- keeping -------------------------------------------------------------------------------------


def signed(session: Session, usual: str) -> str:
    """Return the signature of a change made now, as stored; `usual` is the operation if nobody signed."""
    return _encode(rules.signed(session.signature, usual)).decode()


def written(change: tuple[str, str | None, str | None, str | None]) -> str:
    """Return the signature of a change, as stored."""
    return _encode(change).decode()


def keep(session: Session, place: Place, change: str, named: Named, version: int | None, count: int = 1) -> None:
    """Store a change that no other row records."""
    fields = (*place, change, *named, version, count)
    session.run(_KEEP, (*fields, tables.event_checksum(fields)))


def keep_told(session: Session, place: Place, change: str, named: Named, version: int) -> None:
    """Store the change that ended a revision, before the revision is pruned."""
    if change != tables.RENEWAL:
        keep(session, place, change, named, rules.version_after(_change(session, change)[0], version))


def keep_created(session: Session, place: Place, encoded: str, named: Named) -> None:
    """Store the creation that a state of version 1, whose body is `encoded`, records, before the state is pruned."""
    if not is_renewed(encoded):
        keep(session, place, _encode(("create", *_creator(session.body(encoded)))).decode(), named, 1)


def keep_erasure(session: Session, namespace: str, count: int) -> None:
    """Store when and by whom `count` memories of a namespace were erased."""
    place = (session.clock.next_commit(), session.clock.dated(), session.digest_of(namespace))
    keep(session, place, signed(session, "erase"), (None, None, None), None, count)


def prune(session: Session, before: int, limit: int) -> None:
    """Remove at most `limit` of the oldest events: of those that were made before the instant `before`, or before the
    last `max_events` changes, up to the first other one.
    """
    last, known = 0, session.clock.commit_number - session.history.max_events
    for number, made, entry_id in session.rows(session.say(_OLDEST), (limit,)):
        if made >= before and number > known:
            break
        last = number
        if entry_id is None and session.clock.begins is not None:  # no row records that erasure any more
            session.clock.begin_past(max(session.moment_of(number, made), session.clock.begins))
    if last:
        session.run(session.say(_PRUNE), (last,))
        session.clock.feed_from(max(last, session.clock.fed_from))


# --- reading -------------------------------------------------------------------------------------


def read(session: Session, namespace: str, after: int | str, limit: int) -> list[Change]:
    """Return `changes` of one state of the store."""
    with session.standing_still():
        return changes(session, namespace, after, limit)


def changes(session: Session, namespace: str, after: int | str, limit: int) -> list[Change]:
    """Return at most `limit` changes of a namespace after `after`, a number or a cursor, in their order.

    Inside a transaction only the changes committed before it are returned: a number that is taken back may be given
    to another change, which a reader that kept it as a cursor would skip.

    Raises:
        CursorExpiredError: some of the changes are not known any more, or the cursor is of another store.
    """
    clock = session.clock_seen()
    generation, asked = clock.generation, after
    if isinstance(asked, str):
        is_known = clock.begins is not None or not clock.commit_number
        after = position_in(
            asked,
            generation,
            is_restored=clock.copied == tables.RESTORED,
            earliest=clock.fed_from if is_known else None,
        )
    else:
        after = asked
    begins = _first(clock, after)
    if after < begins or after > clock.commit_number:  # a cursor of another store, or of a later copy
        raise CursorExpiredError(str(asked), cursor_of(begins, generation))
    last = session.clock.began if session.depth else clock.commit_number
    bound = {"namespace": session.names.fresh_id_of(namespace), "digest": session.digest_of(namespace)}
    answer: list[Change] = []
    span = max(_LOOKED_AT, 2 * limit)  # numbers of entries that were changed since yield nothing
    while after < last and len(answer) < limit:
        until = min(after + span, last)
        page = {**bound, "after": after, "until": until, "limit": limit - len(answer)}
        answer += [_told(session, row, generation) for row in session.rows(_CHANGES, page)]
        after, span = until, 4 * span
    return answer


def first(session: Session, after: int) -> int:
    """Return the number after which every change is known; raise `CursorExpiredError` about `after` if none is."""
    return _first(session.clock_seen(), after)


def newest(session: Session) -> str:
    """Return the cursor of the newest commit."""
    clock = session.clock_seen()
    return cursor_of(session.clock.began if session.depth else clock.commit_number, clock.generation)


def _first(clock: tables.ClockRow, after: int) -> int:
    if clock.begins is None and clock.commit_number:
        raise CursorExpiredError(str(after), None)
    return clock.fed_from


def _told(session: Session, row: tuple[Any, ...], generation: int) -> Change:
    number, made, change, entry_id, category, key, version, version_or_count, encoded = row
    count = 1
    if change is None:
        operation, module, task_id, reason = "create", *_creator(session.body(encoded))
    else:
        operation, module, task_id, reason = _change(session, change)
        if version is None and entry_id is not None:
            version = rules.version_after(operation, version_or_count)
        else:
            count = version_or_count
    try:
        return msgspec.convert(
            {
                "cursor": cursor_of(number, generation),
                "operation": operation,
                "memory_id": entry_id,
                "version": version,
                "category": None if category is None else session.names.text_of(category),
                "key": key,
                "timestamp": datetime_of(made),
                "module": module,
                "task_id": task_id,
                "reason": reason,
                "count": count,
            },
            Change,
        )
    except msgspec.ValidationError:
        raise session.driver.corrupt("a change cannot be decoded") from None


def _change(session: Session, change: str) -> tuple[str, str | None, str | None, str | None]:
    try:
        return _decode(change)
    except ValueError:
        raise session.driver.corrupt("a change cannot be decoded") from None


def _creator(body: Body) -> Author:
    provenance = body.provenance
    return creator_in(
        provenance if isinstance(provenance, dict) else {"module": provenance[0], "task_id": provenance[1]}
    )
