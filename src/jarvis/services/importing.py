"""Imports a file of exported memories into a store that may have memories already."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from jarvis.capabilities import Expires, FeedsChanges, KeepsHistory
from jarvis.codec.instants import instant_of
from jarvis.errors import CursorExpiredError, DuplicateEntryError, InvalidEntryError
from jarvis.exports import lines
from jarvis.model.author import Author
from jarvis.model.portable import PortableEntry, WholeMemory, portable
from jarvis.model.rewriting import Progress
from jarvis.model.transfers import DamagedLine, ImportReport, OnConflict
from jarvis.services import transferring
from jarvis.services.bulk import without_collection
from jarvis.services.changing import sign
from jarvis.storage_backend import StorageBackend

_NAMED = 5
Numbered = tuple[int, WholeMemory]
"""A line's number, and its memory."""


class Import:
    """One import.

    Args:
        backend: of any namespace of the store.
        path: of the file.
        on_conflict: see `jarvis.services.store.Store.import_`.
        author: who replaces what is here.
        namespaces: those to import, None for all.
        incomplete: take a file that is not whole.
    """

    def __init__(
        self,
        backend: StorageBackend,
        path: Path,
        *,
        on_conflict: OnConflict,
        author: Author,
        namespaces: frozenset[str] | None,
        incomplete: bool,
    ) -> None:
        self._backend, self._path, self._on_conflict = backend, path, on_conflict
        self._author, self._namespaces = author, namespaces
        self._checked = lines.check(path, incomplete=incomplete)
        self._damaged = {each.line: each.problem for each in self._checked.damaged}
        self._count = dict.fromkeys(("created", "replaced", "unchanged", "skipped"), 0)
        self._is_empty, self._since = self._taken_over()

    def run(self, progress: Progress | None, *, dry: bool) -> ImportReport:
        """Import the memories, or, if `dry`, only find out what would be done; return a report.

        Raises:
            DuplicateEntryError: `on_conflict` is ``"error"``, and some memories are others here. Nothing was imported.
        """
        if dry or (self._on_conflict == "error" and not self._is_empty):
            self._look(dry=dry)
        if not dry:
            done = 0
            for backend, batch in self._batches():
                with without_collection():
                    self._put(backend, batch)
                done += len(batch)
                if progress is not None:
                    progress(done, self._checked.memories)
        return ImportReport(**self._count, damaged=tuple(itertools.starmap(DamagedLine, sorted(self._damaged.items()))))

    def _taken_over(self) -> tuple[bool, datetime | None]:
        """Return whether the store is empty; and since when the past of the file is known, if it is taken over.

        It is if the store is empty, or an import of this file that was broken off has begun to fill it: the feed has
        told of nothing then. The store that made the file, and one restored from its backup, have told of changes.
        """
        since = self._checked.header.since if self._checked.header.history else None
        parts = transferring.handles(self._backend, transferring.namespaces_of(self._backend))
        is_empty = not any(True for part in parts for _ in itertools.islice(transferring.wholes(part, past=True), 1))
        takes_over = is_empty or (transferring.known_since(parts) == since and not _has_told(self._backend))
        return is_empty, since if takes_over else None

    def _batches(self) -> Iterator[tuple[StorageBackend, list[Numbered]]]:
        """Yield the memories to import in groups of one namespace, each with a handle of it."""
        known: dict[str, StorageBackend] = {}
        for name, group in itertools.groupby(lines.memories(self._path, self._damaged), lambda each: each[1].namespace):
            if self._namespaces is None or name in self._namespaces:
                backend = known.setdefault(name, *transferring.handles(self._backend, [name]))
                while batch := list(itertools.islice(group, transferring.AT_ONCE)):
                    yield backend, batch

    def _look(self, *, dry: bool) -> None:
        """Find the conflicts, before anything is written."""
        conflicts: list[str] = []
        for backend, batch in self._batches():
            for whole, verdict in self._judged(backend, batch):
                if verdict == "error":
                    conflicts.append(whole.id)
                elif dry:
                    self._count[verdict] += 1
        if conflicts:
            named = ", ".join(map(repr, conflicts[:_NAMED])) + (", …" if len(conflicts) > _NAMED else "")
            raise DuplicateEntryError(
                f"{len(conflicts):,} of the memories in {self._path} are others here, or were deleted: {named}; import "
                'them with on_conflict="skip", "newer" or "replace". Nothing was imported'
            )

    def _put(self, backend: StorageBackend, batch: list[Numbered]) -> None:
        """Import memories of one namespace: at once if all are sound and new, else each as it has to be."""
        if self._try(backend, [whole for _, whole in batch]):
            return
        judged = list(self._judged(backend, batch))
        new = [whole for whole, verdict in judged if verdict == "created"]
        if new and not self._try(backend, new):
            _purge_expired(backend)  # they may have the ids, though nobody sees them any more
            for whole in new:  # one of them stands twice in the file, or another writer has just made it
                self._count["skipped"] += not self._try(backend, [whole])
        changed = [whole for whole, verdict in judged if verdict == "replaced"]
        if changed:
            with transferring.transaction(backend):
                sign(backend, self._author, "update")
                for whole in changed:
                    _replace(backend, whole)
        for verdict in ("replaced", "unchanged", "skipped"):
            self._count[verdict] += sum(each == verdict for _, each in judged)
        self._count["skipped"] += sum(verdict == "error" for _, verdict in judged)  # just made by another writer

    def _try(self, backend: StorageBackend, several: list[WholeMemory]) -> bool:
        """Store memories that are not here, and count them; return False if that does not work."""
        try:
            transferring.put(backend, several, self._since)
        except (DuplicateEntryError, InvalidEntryError):
            return False
        self._count["created"] += len(several)
        return True

    def _judged(self, backend: StorageBackend, batch: list[Numbered]) -> Iterator[tuple[WholeMemory, str]]:
        """Yield the sound ones of some memories, each with what becomes of it; note the others as damaged."""
        present = {entry.id: entry for entry in backend.read_many([whole.id for _, whole in batch])}
        history = backend.capability(KeepsHistory) if backend.has_capability(KeepsHistory) else None
        for number, whole in batch:
            try:
                for step in whole.steps():
                    portable(step.entry)
            except InvalidEntryError as error:
                self._damaged[number] = str(error)
                continue
            entry = present.get(whole.id)
            if entry is not None:
                yield whole, self._verdict(whole, portable(entry), entry.timestamp)
                continue
            past = [] if history is None else history.revisions(whole.id)
            yield whole, self._verdict(whole, None, past[0].timestamp) if past else "created"

    def _verdict(self, whole: WholeMemory, here: PortableEntry | None, changed: datetime) -> str:
        """Return the count of `ImportReport` that a memory adds to, or ``"error"``.

        `here` is its state here, None if it was deleted here, and `changed` says when.
        """
        if whole.entry is None:  # an import deletes nothing
            return "unchanged" if here is None else "skipped"
        if here is not None and msgspec.structs.replace(whole.entry, version=here.version) == here:
            return "unchanged"
        if self._on_conflict == "newer":
            is_newer = instant_of(whole.entry.named(whole.id).timestamp) > instant_of(changed)
            return "replaced" if is_newer else "skipped"
        return {"skip": "skipped", "replace": "replaced", "error": "error"}[self._on_conflict]


def _purge_expired(backend: StorageBackend) -> None:
    if backend.has_capability(Expires):
        while backend.capability(Expires).purge_expired(transferring.AT_ONCE):
            pass


def _has_told(backend: StorageBackend) -> bool:
    """Tell whether the feed of a store knows a change."""
    if not backend.has_capability(FeedsChanges):
        return False
    feed = backend.capability(FeedsChanges)
    with contextlib.suppress(CursorExpiredError):
        return feed.first_position() < feed.last_position()
    return False


def _replace(backend: StorageBackend, whole: WholeMemory) -> None:
    """Give a memory the state of a file, as its next version, or bring it back in that state if it was deleted."""
    if whole.entry is None:
        return
    entry = whole.entry.named(whole.id)
    if backend.read(whole.id) is not None:
        backend.update(entry)
    else:
        backend.capability(KeepsHistory).recreate(entry)
