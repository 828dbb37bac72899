"""Whole memories out of any backend and into any, by the capability `Transfers` or by the verbs that all have."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import msgspec

from jarvis.capabilities import Namespaced, Transactional, Transfers
from jarvis.model.entry import DEFAULT_NAMESPACE
from jarvis.model.portable import WholeMemory, portable
from jarvis.model.query import MemoryQuery
from jarvis.model.rewriting import Progress
from jarvis.storage_backend import StorageBackend

AT_ONCE = 2_000
"""How many memories one transaction stores."""

_encode = msgspec.json.Encoder().encode


def namespaces_of(backend: StorageBackend) -> list[str]:
    """Return the names of all namespaces that hold something, be it a past alone, sorted."""
    if not backend.has_capability(Namespaced):
        return [DEFAULT_NAMESPACE]
    if backend.has_capability(Transfers):
        return backend.capability(Transfers).all_namespaces()
    return backend.capability(Namespaced).list_namespaces()


def handles(backend: StorageBackend, namespaces: Iterable[str]) -> list[StorageBackend]:
    """Return a handle of each namespace."""
    return [backend if name == backend.namespace else backend.for_namespace(name) for name in namespaces]


def known_since(parts: Sequence[StorageBackend]) -> datetime | None:
    """Return since when the past of all these namespaces is known, None if it is not."""
    moments = [part.capability(Transfers).known_since() for part in parts if part.has_capability(Transfers)]
    known = [moment for moment in moments if moment is not None]
    return max(known) if known and len(known) == len(parts) else None


def wholes(backend: StorageBackend, *, past: bool) -> Iterator[WholeMemory]:
    """Yield the memories of the namespace; of a backend without `Transfers`, the present ones, oldest first."""
    if backend.has_capability(Transfers):
        yield from backend.capability(Transfers).whole_memories(past=past)
        return
    for entry in sorted(backend.iterate(MemoryQuery()), key=lambda entry: entry.order):
        yield WholeMemory(backend.namespace, entry.id, portable(entry))


def put(backend: StorageBackend, several: Sequence[WholeMemory], since: datetime | None) -> None:
    """Store memories as `Transfers.load` does; without that capability their present states, as version 1."""
    if backend.has_capability(Transfers):
        backend.capability(Transfers).load(several, since)
    else:
        backend.create_many([whole.entry.named(whole.id) for whole in several if whole.entry is not None])


def transaction(backend: StorageBackend) -> contextlib.AbstractContextManager[None]:
    """Return a transaction of the namespace; a block without one if the backend has none."""
    if backend.has_capability(Transactional):
        return backend.capability(Transactional).transaction()
    return contextlib.nullcontext()


def told(memories: Iterable[WholeMemory], progress: Progress | None, total: int) -> Iterator[WholeMemory]:
    """Yield memories, and tell a function how far this is, now and then."""
    done = 0
    for done, whole in enumerate(memories, 1):
        yield whole
        if progress is not None and done % AT_ONCE == 0:
            progress(done, max(done, total))
    if progress is not None:
        progress(done, done)


class Digest:
    """The BLAKE2b digest of the memories that pass through it, in their order."""

    def __init__(self) -> None:
        self._made = hashlib.blake2b(digest_size=32)

    def of(self, memories: Iterable[WholeMemory]) -> Iterator[WholeMemory]:
        """Yield memories, and add each to the digest."""
        for whole in memories:
            self._made.update(_encode(whole))
            self._made.update(b"\n")
            yield whole

    def hexdigest(self) -> str:
        """Return the digest so far, as hexadecimal text."""
        return self._made.hexdigest()


def digest_of(parts: Sequence[StorageBackend], progress: Progress | None = None) -> str:
    """Return the digest of all memories of some namespaces and their past."""
    memories = (whole for part in parts for whole in wholes(part, past=True))
    made = Digest()
    for _ in told(made.of(memories), progress, 0 if progress is None else count(parts)):
        pass
    return made.hexdigest()


def count(parts: Sequence[StorageBackend]) -> int:
    """Return about how many memories these namespaces have."""
    return sum(part.count(MemoryQuery()) for part in parts)
