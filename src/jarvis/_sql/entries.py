"""Writes entries: each change gets its commit number, its checksum and its side tables in one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jarvis._sql import expiry, feed, history, side_tables
from jarvis._sql.reading import READ
from jarvis._sql.tables import row_checksum
from jarvis.errors import DuplicateEntryError, EntryNotFoundError
from jarvis.model.entry import check_expiry
from jarvis.model.record import holds, is_renewed, renewed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jarvis._sql.session import Session
    from jarvis.model.entry import MemoryEntry
    from jarvis.model.record import Encoded
    from jarvis.model.revision import Operation

_FIND = "SELECT row, instant, version, body FROM entries WHERE namespace = ? AND id = ? AND (expires <= ?) IS NOT TRUE"
INSERT = """
INSERT INTO entries (row, namespace, id, category, key, entity_type, entity_id, instant, version, body, checksum,
    expires, packed, created)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_UPDATE = """
UPDATE entries SET row = ?, category = ?, key = ?, entity_type = ?, entity_id = ?, instant = ?, version = ?,
    body = ?, checksum = ?, expires = ?, packed = ?, created = ? WHERE namespace = ? AND row = ?
"""
AT_ONCE = 1_000
_DELETE = "DELETE FROM entries WHERE namespace = ? AND row = ?"
_COUNT_ALL = "SELECT count(*) FROM entries WHERE namespace = ?"
_CLEAR = "DELETE FROM entries WHERE namespace = ?"


def insert(
    session: Session,
    now: Callable[[], int],
    namespace: str,
    entry: MemoryEntry,
    encoded: Encoded,
    *,
    version: int = 1,
) -> None:
    """Store `entry`, whose encoded form is `encoded`, as this version.

    An expired entry with the same id is purged first.

    Raises:
        DuplicateEntryError: the id is taken; nothing was changed.
    """
    row = row_of(session, namespace, entry, encoded, session.clock.next_commit(), version)
    commit, namespace_id, _, category, _, entity_type, _, instant, *_ = row
    if not session.put(INSERT, row):
        session.clock.take_back()
        if expiry.purge_entry(session, namespace_id, entry.id, now()):
            insert(session, now, namespace, entry, encoded, version=version)
            return
        raise DuplicateEntryError(
            f"the id is taken in namespace {namespace!r} of {session.path}; update it or choose another"
        )
    session.clock.wrote(commit, instant)
    for side in session.side_tables:
        if entry.tags or not side.needs_tags:
            side.put(session, (namespace_id, instant, commit, category, entity_type), entry, encoded)


def insert_all(
    session: Session,
    now: Callable[[], int],
    namespace: str,
    several: Sequence[MemoryEntry],
    encoded: Sequence[Encoded],
) -> None:
    """Store entries as `insert` does, in their order."""
    for start in range(0, len(several), AT_ONCE):
        part = list(zip(several[start : start + AT_ONCE], encoded[start : start + AT_ONCE], strict=True))
        if not insert_at_once(session, namespace, part, [1] * len(part)):
            for entry, each in part:
                insert(session, now, namespace, entry, each)


def insert_at_once(
    session: Session, namespace: str, part: Sequence[tuple[MemoryEntry, Encoded]], versions: Sequence[int]
) -> bool:
    """Store entries as these versions; return False, and store none, if the id of one is taken."""
    first = session.clock.commit_number + 1
    session.clock.next_commit(len(part))
    rows = [
        row_of(session, namespace, *each, commit, version)
        for commit, (each, version) in enumerate(zip(part, versions, strict=True), first)
    ]
    if not session.driver.put_all(INSERT, rows):
        session.clock.take_back(len(part))
        return False
    for row in rows:
        session.clock.wrote(row[0], row[7])
    states = [((row[1], row[7], row[0], row[3], row[5]), *each) for row, each in zip(rows, part, strict=True)]
    for side in session.side_tables:
        side.put_all(session, states)
    return True


def row_of(
    session: Session, namespace: str, entry: MemoryEntry, encoded: Encoded, commit: int, version: int
) -> tuple[Any, ...]:
    """Return the values of `INSERT`."""
    namespace_id, category, entity_type = session.names.intern_all(namespace, entry.category, entry.entity_type)
    expires = None if entry.expires_at is None else check_expiry(entry.expires_at)
    body, packed, instant, created = encoded
    names = (namespace, entry.id, entry.category, entry.key, entry.entity_type, entry.entity_id)
    end = (version,) if expires is None else (version, expires)
    checksum = row_checksum((commit, *names, instant, *end), body, packed)
    fields = (commit, namespace_id, entry.id, category, entry.key, entity_type, entry.entity_id, instant, version)
    return (*fields, body.decode(), checksum, expires, packed, created)


def replace(
    session: Session,
    now: Callable[[], int],
    namespace: str,
    entry: MemoryEntry,
    encoded: Encoded,
    *,
    renews: bool = False,
) -> None:
    """Store `entry` as the next version of the entry with its id, or as the same version with `renews`.

    Raises:
        EntryNotFoundError: there is no such entry; nothing was changed.
    """
    namespace_id = session.names.id_of(namespace)
    present = _find(session, namespace_id, namespace, entry.id, now)
    if namespace_id is None or present is None:
        raise EntryNotFoundError(f"no entry has the id in namespace {namespace!r} of {session.path}")
    row, old_instant, version, tags, was_renewed = present
    category, entity_type = session.names.intern_all(entry.category, entry.entity_type)
    commit = session.clock.next_commit()
    if session.history.keep_any:
        operation: Operation = "renew" if renews else "update"
        state = (row, old_instant, version)
        history.keep(session, namespace_id, entry.id, state, commit, tags, is_renewed=was_renewed, operation=operation)
    else:
        side_tables.take(session, (namespace_id, old_instant, row), tags)
    expires = None if entry.expires_at is None else check_expiry(entry.expires_at)
    body, packed, instant, created = encoded
    names = (namespace, entry.id, entry.category, entry.key, entry.entity_type, entry.entity_id)
    if renews:
        body = renewed(body)
    else:
        version += 1
    end = (version,) if expires is None else (version, expires)
    checksum = row_checksum((commit, *names, instant, *end), body, packed)
    fields = (commit, category, entry.key, entity_type, entry.entity_id, instant, version)
    session.run(_UPDATE, (*fields, body.decode(), checksum, expires, packed, created, namespace_id, row))
    session.clock.wrote(commit, instant)
    for side in session.side_tables:
        if entry.tags or not side.needs_tags:
            side.put(session, (namespace_id, instant, commit, category, entity_type), entry, encoded)


def replace_if_changed(
    session: Session, now: Callable[[], int], namespace: str, entry: MemoryEntry, encoded: Encoded, renews: bool
) -> bool:
    """Do what `StorageBackend.update_if_changed` does; raise as `replace` does."""
    last = session.last_read(namespace)
    rows = [last[0]] if last is not None and last[0][1] == entry.id else []
    rows = rows or session.rows(READ, (session.names.id_of(namespace), entry.id, now()))
    is_same = bool(rows) and _is_same(session, rows[0], entry, encoded)
    if is_same and not renews and (entry.expires_at is None or rows[0][-3] > now()):
        session.clock.find(rows[0][0])
        return False
    replace(session, now, namespace, entry, encoded, renews=is_same)
    return True


def _is_same(session: Session, row: tuple[Any, ...], entry: MemoryEntry, encoded: Encoded) -> bool:
    """Tell whether a row of `COLUMNS` has all of an entry, byte for byte, but its timestamp and provenance."""
    _, _, category, key, entity_type, entity_id, _, _, expires, body, packed = row
    id_of, until = session.names.id_of, None if entry.expires_at is None else check_expiry(entry.expires_at)
    if (key, entity_id, expires) != (entry.key, entry.entity_id, until) or id_of(entry.category) != category:
        return False
    try:
        return id_of(entry.entity_type) == entity_type and holds(body, packed, encoded, entry.provenance)
    except ValueError:
        raise session.driver.corrupt("an entry cannot be decoded") from None


def recreate(session: Session, now: Callable[[], int], namespace: str, entry: MemoryEntry, encoded: Encoded) -> None:
    """Store `entry` as the version after the last one that is kept of its id; raise as `insert` does."""
    expiry.purge_entry(session, session.names.intern(namespace), entry.id, now())
    versions = session.rows(history.LAST_VERSION, (session.names.id_of(namespace), entry.id))
    version = versions[0][0] + 1 if versions else 1
    insert(session, now, namespace, entry, encoded, version=version)
    if version > 1:  # version 1 itself records its creation for the feed
        place = (session.clock.commit_number, session.clock.dated(), session.names.intern(namespace))
        named = (entry.id, session.names.intern(entry.category), entry.key)
        feed.keep(session, place, feed.signed(session, "create"), named, version)


def remove(session: Session, now: Callable[[], int], namespace: str, entry_id: str) -> bool:
    """Remove the entry with this id; return whether there was one."""
    namespace_id = session.names.id_of(namespace)
    present = _find(session, namespace_id, namespace, entry_id, now)
    if namespace_id is None or present is None:
        return False
    row, instant, version, tags, was_renewed = present
    commit = session.clock.next_commit()
    if session.history.keep_any:
        state = (row, instant, version)
        history.keep(session, namespace_id, entry_id, state, commit, tags, is_renewed=was_renewed, operation="delete")
        session.clock.removed(commit)
    else:
        side_tables.take(session, (namespace_id, instant, row), tags)
    session.run(_DELETE, (namespace_id, row))
    return True


def _find(
    session: Session, namespace_id: int | None, namespace: str, entry_id: str, now: Callable[[], int]
) -> tuple[int, int, int, tuple[str, ...], bool] | None:
    """Return (row, instant, version, tags, whether a renewal stored it) of the entry with this id.

    None if there is none or it has expired.
    """
    last = session.last_read(namespace)
    if last is not None:
        (row, read_id, *_, instant, version, expires, body, _), tags = last
        if read_id == entry_id and (expires is None or expires > now()):
            return row, instant, version, tags, is_renewed(body)
    for row, instant, version, body in session.rows(_FIND, (namespace_id, entry_id, now())):
        return row, instant, version, tuple(session.body(body).tags), is_renewed(body)
    return None


def remove_all(session: Session, now: Callable[[], int], namespace: str) -> int:
    """Remove every entry of a namespace and return how many; keep their states if the history policy says so.

    Expired entries are purged and do not count.
    """
    namespace_id = session.names.id_of(namespace)
    if namespace_id is not None:
        expiry.purge_namespace(session, namespace_id, now())
    removed = int(session.rows(_COUNT_ALL, (namespace_id,))[0][0])
    if namespace_id is not None and removed:
        if session.history.keep_any:
            history.keep_all(session, namespace_id, removed)
        else:
            session.clock.next_commit()
            for side in session.side_tables:
                side.take_all(session, namespace_id)
        session.run(_CLEAR, (namespace_id,))
    return removed
