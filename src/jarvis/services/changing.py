"""How a service makes a change: through `MemoryModule`, and signed by an author."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple, Protocol, TypeVar

from jarvis.capabilities import KeepsHistory, Settles, SharesCommits, Transactional
from jarvis.codec.instants import datetime_of, instant_of
from jarvis.model.author import Author
from jarvis.model.entry import MemoryEntry
from jarvis.model.query import MemoryQuery
from jarvis.model.revision import Operation
from jarvis.storage_backend import StorageBackend

Result = TypeVar("Result")
Ability = TypeVar("Ability")


class Changes(Protocol):
    """A function that makes a change: `MemoryModule._change`, or `MemoryModule._change_apart`."""

    def __call__(self, work: Callable[[datetime], Result], /) -> Result:
        """Call `work` with the moment of the change and return its result; all its changes are kept, or none."""


class Abilities(NamedTuple):
    """What a backend has of the capabilities that a change takes: itself, or None where it has not that one."""

    backend: StorageBackend
    transactional: Transactional | None
    sharing: SharesCommits | None
    settling: Settles | None
    history: KeepsHistory | None


def abilities_of(backend: StorageBackend) -> Abilities:
    """Return what a backend has of them, to be asked for once instead of in each change."""

    def ability(protocol: type[Ability]) -> Ability | None:
        return backend.capability(protocol) if backend.has_capability(protocol) else None

    return Abilities(backend, ability(Transactional), ability(SharesCommits), ability(Settles), ability(KeepsHistory))


def sign(backend: StorageBackend, author: Author, operation: Operation) -> None:
    """Sign the next changes of the open transaction as `author`; no-op without history."""
    if backend.has_capability(KeepsHistory):
        backend.capability(KeepsHistory).sign(author.signature(operation))


def after_its_key(backend: StorageBackend, key: str, entry_id: str | None, moment: datetime) -> datetime:
    """Return `moment`, or one right after the newest other entry of this key, so that the last write leads."""
    others = [entry for entry in backend.select(MemoryQuery(key=key, limit=2)) if entry.id != entry_id]
    return max([moment, *(datetime_of(instant_of(entry.timestamp) + 1) for entry in others)])


def update_if_changed(backend: StorageBackend, author: Author, provenance: dict[str, str], entry: MemoryEntry) -> None:
    """Store an entry that was set; renew it if it is what it was, and due or not the newest of its key any more."""
    if backend.update_if_changed(entry, renews=False):
        return
    made = instant_of(entry.timestamp)
    if not author.renews(provenance, made - entry.order[0]):
        newest = backend.newest_of_key(entry.key)
        if newest is None or newest.id == entry.id or newest.order[0] >= made:
            return
    backend.update_if_changed(entry, renews=True)
