"""Entries written to the tables: each change with its commit number, its checksum and its tags, in one transaction."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from jarvis._sqlite import feed, history
from jarvis._sqlite.history import TAGS_AT_ONCE
from jarvis._sqlite.schema import row_checksum
from jarvis.errors import DuplicateEntryError, EntryNotFoundError
from jarvis.revision import Signature

if TYPE_CHECKING:
    from jarvis._sqlite.session import Session
    from jarvis.memory_entry import MemoryEntry

_FIND = "SELECT row, instant, version, body FROM entries WHERE namespace = ? AND id = ?"
_INSERT = """
INSERT INTO entries (row, namespace, id, category, key, entity_type, entity_id, instant, version, body, checksum)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_UPDATE = """
UPDATE entries SET row = ?, category = ?, key = ?, entity_type = ?, entity_id = ?, instant = ?, version = ?,
    body = ?, checksum = ? WHERE row = ?
"""
_DELETE = "DELETE FROM entries WHERE row = ?"
_COUNT_ALL = "SELECT count(*) FROM entries WHERE namespace = ?"
_CLEAR = "DELETE FROM entries WHERE namespace = ?"
_CLEAR_TAGS = "DELETE FROM tags WHERE namespace = ?"
_DELETION = Signature("delete")


def insert(
    session: Session, namespace: str, entry: MemoryEntry, body: bytes, instant: int, *, version: int = 1
) -> None:
    """Store `entry`, whose encoded body and instant are given, as this version.

    Raises:
        DuplicateEntryError: its id is taken; nothing was changed.
    """
    namespace_id = session.intern(namespace)
    category, entity_type = session.intern(entry.category), session.intern(entry.entity_type)
    commit = session.next_commit()
    checksum = _checksum(namespace, entry, commit, instant, version, body)
    fields = (commit, namespace_id, entry.id, category, entry.key, entity_type, entry.entity_id, instant, version)
    if not session.put(_INSERT, (*fields, body.decode(), checksum)):
        raise DuplicateEntryError(
            f"the id is taken in namespace {namespace!r} of {session.path}; update it or choose another"
        )
    session.wrote(commit, instant)
    if entry.tags:
        ids = _tag_ids(session, entry.tags)
        _each_part(session, _insert_tags, ids, (namespace_id, instant, commit, category, entity_type))


def replace(session: Session, namespace: str, entry: MemoryEntry, body: bytes, instant: int) -> None:
    """Store `entry` as the next version of the one with its id.

    Raises:
        EntryNotFoundError: there is none; nothing was changed.
    """
    namespace_id = session.name_id(namespace)
    found = _find(session, namespace_id, namespace, entry.id)
    if namespace_id is None or found is None:
        raise EntryNotFoundError(f"no entry has the id in namespace {namespace!r} of {session.path}")
    row, old_instant, version, old_body = found
    before = _tag_ids(session, session.body(old_body).tags)
    after = _tag_ids(session, entry.tags)
    category, entity_type = session.intern(entry.category), session.intern(entry.entity_type)
    commit = session.next_commit()
    if session.history.max_revisions:
        history.keep(session, namespace_id, (row, old_instant, version), commit, before)
    checksum = _checksum(namespace, entry, commit, instant, version + 1, body)
    fields = (commit, category, entry.key, entity_type, entry.entity_id, instant, version + 1)
    session.rows(_UPDATE, (*fields, body.decode(), checksum, row), "write")
    session.wrote(commit, instant)
    _each_part(session, _delete_tags, before, (namespace_id, old_instant, row))
    _each_part(session, _insert_tags, after, (namespace_id, instant, commit, category, entity_type))


def recreate(session: Session, namespace: str, entry: MemoryEntry, body: bytes, instant: int) -> None:
    """Store `entry` as the version after the last one that the past knows of its id; raise as `insert` does."""
    found = session.rows(history.LAST_VERSION, (session.name_id(namespace), entry.id))
    version = found[0][0] + 1 if found else 1
    insert(session, namespace, entry, body, instant, version=version)
    if version > 1:  # else the entry itself tells of its creation
        place = (session.commit_number, session.moment(), session.intern(namespace))
        named = (entry.id, session.intern(entry.category), entry.key)
        feed.keep(session, place, feed.signed(session, "create"), named, version)


def remove(session: Session, namespace: str, entry_id: str) -> bool:
    """Remove the entry with this id; return whether there was one."""
    namespace_id = session.name_id(namespace)
    found = _find(session, namespace_id, namespace, entry_id)
    if namespace_id is None or found is None:
        return False
    row, instant, version, body = found
    tags = _tag_ids(session, session.body(body).tags)
    commit = session.next_commit()
    if session.history.max_revisions:
        session.signature = session.signature or _DELETION
        history.keep(session, namespace_id, (row, instant, version), commit, tags, is_removal=True)
        session.removed(commit)
    session.rows(_DELETE, (row,), "write")
    _each_part(session, _delete_tags, tags, (namespace_id, instant, row))
    return True


def _find(
    session: Session, namespace_id: int | None, namespace: str, entry_id: str
) -> tuple[int, int, int, str] | None:
    """Return (row, instant, version, body) of the entry with this id, or None if there is none."""
    if session.last_read is not None:
        read_in, (row, read_id, *_, instant, version, body) = session.last_read
        if read_id == entry_id and read_in == namespace:
            return row, instant, version, body
    found = session.rows(_FIND, (namespace_id, entry_id))
    return found[0] if found else None


def remove_all(session: Session, namespace: str, *, keeping: bool = True) -> int:
    """Remove every entry of a namespace, keeping their states if the policy has it; return how many there were."""
    namespace_id = session.name_id(namespace)
    removed = int(session.rows(_COUNT_ALL, (namespace_id,))[0][0])
    if namespace_id is not None and removed:
        if keeping and session.history.max_revisions:
            history.keep_all(session, namespace_id, removed)
        else:
            session.next_commit()
        session.rows(_CLEAR_TAGS, (namespace_id,), "write")
        session.rows(_CLEAR, (namespace_id,), "write")
    return removed


def _checksum(namespace: str, entry: MemoryEntry, commit: int, instant: int, version: int, body: bytes) -> int:
    names = (namespace, entry.id, entry.category, entry.key, entry.entity_type, entry.entity_id)
    return row_checksum((commit, *names, instant, version), body)


def _tag_ids(session: Session, tags: list[str]) -> list[int]:
    return [session.intern(tag) for tag in set(tags)]


def _each_part(session: Session, text: Callable[[int], str], ids: Sequence[int], others: tuple[int, ...]) -> None:
    """Run a statement for the tags with these ids, or for each hundred of them: `text` is its text for so many."""
    for start in range(0, len(ids), TAGS_AT_ONCE):
        part = ids[start : start + TAGS_AT_ONCE]
        session.rows(text(len(part)), (*others, *part), "write")


# In each, the numbered parameters come first and those of the tags behind them.
@functools.lru_cache(maxsize=TAGS_AT_ONCE)
def _insert_tags(count: int) -> str:
    rows = ", ".join(f"(?1, ?{place}, ?2, ?3, ?4, ?5)" for place in range(6, 6 + count))
    return f"INSERT INTO tags (namespace, tag, instant, row, category, entity_type) VALUES {rows}"


@functools.lru_cache(maxsize=TAGS_AT_ONCE)
def _delete_tags(count: int) -> str:
    marks = ", ".join(f"?{place}" for place in range(4, 4 + count))
    return f"DELETE FROM tags WHERE namespace = ?1 AND tag IN ({marks}) AND instant = ?2 AND row = ?3"
