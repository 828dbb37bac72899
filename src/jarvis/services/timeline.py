"""The history of an entry: restore a version, undo the last change, compare two versions.

The first two are changes like any other, made inside the caller's transaction, and can be undone themselves.
"""

from __future__ import annotations

from datetime import datetime

from jarvis.capabilities import KeepsHistory
from jarvis.errors import InvalidQueryError, RevisionNotFoundError
from jarvis.model.author import Author
from jarvis.model.entry import MOST_VERSIONS, MemoryEntry
from jarvis.model.revision import Difference, Operation, Revision, differences
from jarvis.storage_backend import StorageBackend


def check_versions(*versions: int) -> None:
    """Raise `InvalidQueryError` if one of them can be no version."""
    for version in versions:
        if type(version) is not int:
            raise InvalidQueryError(f"version: takes a whole number, not {type(version).__name__}")
        if abs(version) >= MOST_VERSIONS:
            raise InvalidQueryError("version: no memory has so many versions")


def restore(backend: StorageBackend, entry_id: str, version: int, author: Author, moment: datetime) -> bool:
    """Give the entry the content of one of its versions; return whether anything is known of the entry.

    Raises:
        RevisionNotFoundError: that version is not known.
    """
    now, past = backend.read(entry_id), backend.capability(KeepsHistory).revisions(entry_id)
    if now is None and not past:
        return False
    if now is None or now.version != version:
        _put(backend, _state(now, past, version), now, now or past[0].entry, "restore", author, moment)
    return True


def undo(backend: StorageBackend, entry_id: str, author: Author, moment: datetime) -> bool:
    """Take back the last change of the entry, whatever it was; return whether anything is known of the entry.

    Raises:
        RevisionNotFoundError: the state before that change is not known any more.
    """
    history = backend.capability(KeepsHistory)
    now, past = backend.read(entry_id), history.revisions(entry_id)
    if now is None and not past:
        return False
    last = past[0] if past else None
    if now is not None and _was_created_last(now, last):
        history.sign(author.signature("delete"))
        backend.delete(entry_id)
        return True
    if last is None or (not last.is_removal if now is None else last.is_removal or last.version != now.version - 1):
        raise RevisionNotFoundError("the state of the memory before its last change is not known any more")
    _put(backend, last.entry, now, now or last.entry, "undo", author, moment)
    return True


def _was_created_last(now: MemoryEntry, last: Revision | None) -> bool:
    """Tell whether the last change of an entry created it, or brought it back."""
    if last is None:
        return now.version == 1
    return last.is_removal and now.version in (1, last.version + 1)


def diff(backend: StorageBackend, entry_id: str, from_version: int, to_version: int) -> list[Difference]:
    """Return the differences between two versions of the entry.

    Raises:
        RevisionNotFoundError: one of them is not known.
    """
    now, past = backend.read(entry_id), backend.capability(KeepsHistory).revisions(entry_id)
    return differences(_state(now, past, from_version), _state(now, past, to_version))


def _state(now: MemoryEntry | None, past: list[Revision], version: int) -> MemoryEntry:
    states = ([] if now is None else [now]) + [revision.entry for revision in past]
    for entry in states:  # the newest first: an id that was given again may have a version twice
        if entry.version == version:
            return entry
    if not states:
        raise RevisionNotFoundError("nothing is known of the memory")
    numbers = ", ".join(str(number) for number in sorted({entry.version for entry in states}))
    raise RevisionNotFoundError(f"version {version} of the memory is not known; known: {numbers}")


def _put(
    backend: StorageBackend,
    wanted: MemoryEntry,
    now: MemoryEntry | None,
    last: MemoryEntry,
    operation: Operation,
    author: Author,
    moment: datetime,
) -> None:
    """Store the state `wanted` again; `last` is the present state, or the last one of a removed entry."""
    wanted.provenance = dict((now or wanted).provenance)
    author.updates(wanted, moment)
    if wanted.expires_at is not None and wanted.expires_at <= moment:
        wanted.expires_at = last.expires_at
    history = backend.capability(KeepsHistory)
    history.sign(author.signature(operation))
    if now is None:
        history.recreate(wanted)
    else:
        backend.update(wanted)
