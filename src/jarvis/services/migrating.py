"""Moves all memories of one store into another one, on any backends, and compares both."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import datetime

from jarvis.capabilities import Encrypts
from jarvis.errors import CorruptStoreError, InvalidSettingError, StoreBusyError, TargetNotEmptyError
from jarvis.model.portable import WholeMemory
from jarvis.model.rewriting import Progress
from jarvis.model.transfers import MigrationReport
from jarvis.services import transferring
from jarvis.services.bulk import without_collection
from jarvis.storage_backend import StorageBackend


def migrate(
    source: StorageBackend, target: StorageBackend, *, plain_text: bool, progress: Progress | None
) -> MigrationReport:
    """Copy the memories of `source` into `target`; see `jarvis.moving.migrate`."""
    if not plain_text and is_encrypted(source) and not is_encrypted(target):
        raise InvalidSettingError(
            "plain_text: the source is encrypted, and the target is not: pass plain_text=True, or encrypt the target"
        )
    names = transferring.namespaces_of(source)
    parts = transferring.handles(source, names)
    since = transferring.known_since(parts)
    total = 0 if progress is None else transferring.count(parts)
    done = resumed = 0
    foreign = [name for name in transferring.namespaces_of(target) if name not in names]
    for part in transferring.handles(target, foreign):
        for _ in transferring.wholes(part, past=True):
            raise _not_empty(target)
    copied = transferring.Digest()
    targets = transferring.handles(target, names)
    for part, into in zip(parts, targets, strict=True):
        resumed += _skipped(transferring.wholes(part, past=True), into)
    with without_collection():
        for part, into in zip(parts, targets, strict=True):
            memories = copied.of(transferring.wholes(part, past=True))
            done += _skipped(memories, into)
            while batch := list(itertools.islice(memories, transferring.AT_ONCE)):
                transferring.put(into, batch, since)
                done += len(batch)
                if progress is not None:
                    progress(done, max(done, total))
    _compare(source, target, copied.hexdigest(), since)
    return MigrationReport(memories=done, resumed=resumed, digest=copied.hexdigest())


def _skipped(memories: Iterator[WholeMemory], into: StorageBackend) -> int:
    """Skip the memories that an earlier run has copied into a namespace; return how many.

    Raises:
        TargetNotEmptyError: it has others, or in another order.
    """
    count = 0
    for count, there in enumerate(transferring.wholes(into, past=True), 1):  # noqa: B007  counted for the result
        if next(memories, None) != there:
            raise _not_empty(into)
    return count


def _compare(source: StorageBackend, target: StorageBackend, copied: str, since: datetime | None) -> None:
    """Compare both stores with what was copied.

    Raises:
        StoreBusyError: the source was written to meanwhile.
        CorruptStoreError: the target is not what was copied.
    """
    if _digest_of(target) == copied:
        if _digest_of(source) == copied:
            return
        raise StoreBusyError(
            str(source), "was written to while it was copied: stop its writers, empty the target, and begin again"
        )
    kept = transferring.known_since(transferring.handles(target, transferring.namespaces_of(target)))
    if since is not None and kept is None:
        raise InvalidSettingError(
            f"history: the target {target!r} keeps no history, so the past of the memories is not in it; open it with "
            "a HistoryPolicy that keeps some, empty, and begin again"
        )
    raise CorruptStoreError(str(target), "does not have what was copied into it; empty it, and begin again")


def _digest_of(backend: StorageBackend) -> str:
    return transferring.digest_of(transferring.handles(backend, transferring.namespaces_of(backend)))


def is_encrypted(backend: StorageBackend) -> bool:
    """Tell whether a store is encrypted; one that is absent is not."""
    return backend.has_capability(Encrypts) and bool(backend.capability(Encrypts).key_slots())


def _not_empty(target: StorageBackend) -> TargetNotEmptyError:
    return TargetNotEmptyError(
        str(target),
        "has other memories than an interrupted copy of this source would have left; give an empty target. To add to "
        "the memories that are there, use store.export and store.import_",
    )
