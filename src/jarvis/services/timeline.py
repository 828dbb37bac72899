"""The history of an entry: restore a version, undo the last change, compare two versions.

The first two are changes like any other, made inside the caller's transaction, and can be undone themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from jarvis.capabilities import KeepsHistory
from jarvis.errors import InvalidQueryError, RevisionNotFoundError
from jarvis.model.author import Author
from jarvis.model.change import Change
from jarvis.model.entry import MOST_VERSIONS, MemoryEntry
from jarvis.model.revision import REMOVALS, Difference, Operation, Revision, differences
from jarvis.services.bounds import Bounds
from jarvis.storage_backend import StorageBackend


def check_versions(*versions: int) -> None:
    """Raise `InvalidQueryError` if one of them can be no version."""
    for version in versions:
        if type(version) is not int:
            raise InvalidQueryError(f"version: takes a whole number, not {type(version).__name__}")
        if abs(version) >= MOST_VERSIONS:
            raise InvalidQueryError("version: no memory has so many versions")


def restore(
    backend: StorageBackend, entry_id: str, version: int, author: Author, bounds: Bounds, moment: datetime
) -> bool:
    """Give the entry the content of one of its versions; return whether anything is known of the entry.

    Raises:
        RevisionNotFoundError: that version is not known.
        InvalidEntryError: it is larger than its category may be now.
    """
    now, past = backend.read(entry_id), backend.capability(KeepsHistory).revisions(entry_id)
    if now is None and not past:
        return False
    if now is None or now.version != version:
        wanted = _state(now, past, version)
        _put(backend, wanted, now, now or past[0].entry, "restore", author, bounds, moment)
        bounds.keep(backend, (wanted,), author)
    return True


def undo(backend: StorageBackend, entry_id: str, steps: int, author: Author, bounds: Bounds, moment: datetime) -> bool:
    """Take back the last changes of the entry, whatever they were; return whether anything is known of the entry.

    Raises:
        RevisionNotFoundError: the state before these changes is not known any more, or there was none.
        InvalidEntryError: that state is larger than its category may be now.
    """
    taken_back = take_back(backend, entry_id, steps, author, bounds, moment)
    if taken_back is not None:
        bounds.keep(backend, taken_back, author)
    return taken_back is not None


def take_back(
    backend: StorageBackend, entry_id: str, steps: int, author: Author, bounds: Bounds, moment: datetime
) -> Sequence[MemoryEntry] | None:
    """Do what `undo` does, but delete nothing that its category has no room for then.

    Returns:
        the entry as it was stored, if it exists again; None if nothing is known of it.
    """
    history = backend.capability(KeepsHistory)
    now, past = backend.read(entry_id), history.revisions(entry_id)
    if now is None and not past:
        return None
    states = _states(now, past)
    if steps >= len(states):
        if steps > 1:
            raise RevisionNotFoundError(f"only the last {len(states) - 1} changes of the memory can be undone")
        raise RevisionNotFoundError("the state of the memory before its last change is not known any more")
    wanted = states[steps]
    if wanted is not None:
        _put(backend, wanted, now, now or past[0].entry, "undo", author, bounds, moment)
        return (wanted,)
    if now is not None:
        history.sign(author.signature("delete"))
        backend.delete(entry_id)
    return ()


def ends_with(backend: StorageBackend, entry_id: str, change: Change) -> bool:
    """Tell whether a change is the last one of the entry."""
    now, past = backend.read(entry_id), backend.capability(KeepsHistory).revisions(entry_id)
    if (now is None) != (change.operation in REMOVALS) or (now is not None and now.version != change.version):
        return False
    return not past or past[0].timestamp <= change.timestamp  # an id may be used again, with the same versions


def _states(now: MemoryEntry | None, past: list[Revision]) -> list[MemoryEntry | None]:
    """Return the states between changes, the present one first, as far as they are known; None where there was none."""
    states = [now]
    for revision in past:
        last = states[-1]
        if revision.is_removal:
            if last is not None:
                if last.version not in (1, revision.version + 1):
                    return states
                states.append(None)
        elif last is None or revision.version != last.version - 1:
            return states
        states.append(revision.entry)
    if states[-1] is not None and states[-1].version == 1:
        states.append(None)
    return states


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
    bounds: Bounds,
    moment: datetime,
) -> None:
    """Store the state `wanted` again; `last` is the present state, or the last one of a removed entry."""
    wanted.provenance = dict((now or wanted).provenance)
    author.updates(wanted, moment)
    if wanted.expires_at is not None and wanted.expires_at <= moment:
        wanted.expires_at, wanted.ttl, wanted.sliding = last.expires_at, last.ttl, last.sliding
    bounds.check(backend, wanted)
    history = backend.capability(KeepsHistory)
    history.sign(author.signature(operation))
    if now is None:
        history.recreate(wanted)
    else:
        backend.update(wanted)
