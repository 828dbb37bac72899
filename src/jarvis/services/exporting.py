"""Exports memories of a store to a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from jarvis.capabilities import Encrypts
from jarvis.codec.instants import instant_of, text_of
from jarvis.errors import InvalidSettingError
from jarvis.exports import lines
from jarvis.model.portable import WholeMemory
from jarvis.model.query import MemoryQuery
from jarvis.model.rewriting import Progress
from jarvis.model.transfers import ExportReport
from jarvis.services import transferring
from jarvis.storage_backend import StorageBackend


def parts_of(backend: StorageBackend, namespaces: Sequence[str] | None) -> list[StorageBackend]:
    """Return a handle of each of these namespaces, in the order of their names; None means all."""
    return transferring.handles(backend, transferring.namespaces_of(backend) if namespaces is None else namespaces)


def export(
    parts: Sequence[StorageBackend],
    path: Path,
    *,
    query: MemoryQuery,
    past: bool,
    plain_text: bool,
    overwrite: bool,
    now: Callable[[], datetime],
    progress: Progress | None,
) -> ExportReport:
    """Write the memories of some namespaces that match a query; see `jarvis.services.store.Store.export`."""
    for part in parts[:1]:
        if not plain_text and part.has_capability(Encrypts) and part.capability(Encrypts).key_slots():
            raise InvalidSettingError(
                "plain_text: the store is encrypted, and an export is not: pass plain_text=True, and keep the file safe"
            )
    since, instant = transferring.known_since(parts) if past else None, instant_of(now())

    takes_all = query == MemoryQuery()

    def chosen() -> Iterator[WholeMemory]:
        for part in parts:
            for whole in transferring.wholes(part, past=past):
                if not whole.has_expired(instant) and (takes_all or _matches(whole, query)):
                    yield whole

    header = lines.Header(lines.FORMAT, past, None if since is None else text_of(since))
    total = 0 if progress is None else transferring.count(parts)
    written = lines.write(path, header, transferring.told(chosen(), progress, total), overwrite=overwrite)
    return ExportReport(path=path, memories=written.memories, bytes=written.bytes, checksum=written.checksum)


def _matches(whole: WholeMemory, query: MemoryQuery) -> bool:
    last = whole.entry or (whole.past[-1] if whole.past else None)
    return last is not None and query.matches(last.named(whole.id))
