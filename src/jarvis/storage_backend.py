"""THE contract: what a place to keep memories must do (eight verbs), and what it may do besides.

A subclass that implements the eight abstract verbs is a whole backend; everything else here has a
correct default written over them. What cannot be built on them is a *capability*: a Protocol of
`jarvis.capabilities`, asked for with `StorageBackend.capability`. `jarvis.conformance` holds any
backend to all of this.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from jarvis._calls.former import former_names
from jarvis.errors import UnsupportedError
from jarvis.model.entry import DEFAULT_NAMESPACE, MemoryEntry, MemoryQuery
from jarvis.model.record import prepare

if TYPE_CHECKING:
    from jarvis.capabilities import *  # noqa: F403 - a release long, each has its former name here, too

__all__ = ["DEFAULT_NAMESPACE", "MemoryEntry", "MemoryQuery", "StorageBackend"]

Capability = TypeVar("Capability")

__getattr__ = former_names(__name__, "jarvis.capabilities")


class StorageBackend(ABC):
    """A store of entries, bound to one namespace. Safe to use from any number of threads.

    Nothing aliases: what is passed in is copied, what is handed out belongs to the caller. Lists are
    newest first: sorted by `MemoryEntry.order`, descending. Any verb opens the store if need be, also
    after `shutdown`. Every verb may raise `jarvis.errors.StoreError`.
    """

    name: ClassVar[str] = "unnamed"
    """What the backend is registered as, and called in messages."""

    file_name: ClassVar[str] = "memory.store"
    """The store's file within a storage directory."""

    capabilities: ClassVar[tuple[type, ...]] = ()
    """The Protocols this backend fulfils."""

    # --- the eight verbs -------------------------------------------------------------------------

    @abstractmethod
    def bootstrap(self) -> None:
        """Make the store ready, creating it if it is absent; no-op if it is ready."""

    @abstractmethod
    def create(self, entry: MemoryEntry) -> None:
        """Store a copy of `entry` as version 1; on return it is as durable as the backend promises.

        Raises:
            DuplicateEntryError: the id is taken; the entry that was there stays.
            InvalidEntryError: a field cannot be kept exactly (`jarvis.model.record.encode_body` tells).
        """

    @abstractmethod
    def read(self, entry_id: str) -> MemoryEntry | None:
        """Return the entry with this id, or None if there is none in this namespace."""

    @abstractmethod
    def update(self, entry: MemoryEntry) -> None:
        """Replace the entry that has the id of `entry`; its version becomes one more than it was.

        Raises:
            EntryNotFoundError: no entry has the id; nothing is stored.
            InvalidEntryError: a field cannot be kept exactly; the entry stays as it was.
        """

    @abstractmethod
    def delete(self, entry_id: str) -> None:
        """Remove the entry with this id; no-op if there is none."""

    @abstractmethod
    def list_all(self) -> list[MemoryEntry]:
        """Return every entry of the namespace, newest first."""

    @abstractmethod
    def query(
        self,
        category: str | None = None,
        tags: Collection[str] | None = None,
        entity_type: str | None = None,
        entity_id: str | None = None,
        key: str | None = None,
    ) -> list[MemoryEntry]:
        """Return the entries that match every given filter, newest first; see `MemoryQuery`."""

    @abstractmethod
    def shutdown(self) -> None:
        """Release files, connections and locks; no-op if nothing is open. The next verb opens again."""

    # --- correct defaults over the eight, to be overridden where the medium is faster -----------

    def prepare(self, value: dict[str, Any]) -> dict[str, Any]:
        """Check a value, and return what stands for it in an entry that `create` or `update` is given.

        That is called before the writers' lock is taken, so a backend does here what takes long and needs no lock. What
        comes back is for the verbs of this backend only, and may be anything that they understand; here, the value.

        Raises:
            InvalidEntryError: it cannot be kept exactly.
        """
        prepare(value, "off")
        return value

    def select(self, query: MemoryQuery) -> list[MemoryEntry]:
        """Return the first `query.limit` entries that match `query`, newest first."""
        found = filter(
            query.predicate(),
            self.query(query.category, query.tags, query.entity_type, query.entity_id, query.key),
        )
        return sorted(found, key=lambda entry: entry.order, reverse=True)[: query.limit]

    def count(self, query: MemoryQuery) -> int:
        """Return ``len(self.select(query))``."""
        return len(self.select(query))

    def iterate(self, query: MemoryQuery) -> Iterator[MemoryEntry]:
        """Yield what `select` returns, as it was when the first entry was asked for."""
        yield from self.select(query)

    def newest_of_key(self, key: str) -> MemoryEntry | None:
        """Return the newest entry with this key, in any category, or None."""
        found = self.select(MemoryQuery(key=key, limit=1))
        return found[0] if found else None

    def last_written(self, category: str, key: str) -> MemoryEntry | None:
        """Return the entry of (category, key) that was written last, or None.

        Not the newest by timestamp: a caller may have given one that lies ahead.
        """
        return max(self.query(category=category, key=key), key=_written, default=None)

    def discard(self, entry_id: str) -> bool:
        """Delete the entry with this id; return whether there was one."""
        if self.read(entry_id) is None:
            return False
        self.delete(entry_id)
        return True

    def clear(self) -> int:
        """Delete every entry of the namespace; return how many there were."""
        entries = self.list_all()
        for entry in entries:
            self.delete(entry.id)
        return len(entries)

    # --- capabilities ----------------------------------------------------------------------------

    def has_capability(self, protocol: type) -> bool:
        """Tell whether `capability` would return."""
        return protocol in self.capabilities

    def capability(self, protocol: type[Capability]) -> Capability:
        """Return this backend as one that fulfils `protocol`.

        Ask here and never with isinstance, which answers for a wrapper instead of what it wraps.

        Raises:
            UnsupportedError: it does not.
        """
        if protocol not in self.capabilities:
            purpose = (protocol.__doc__ or protocol.__name__).partition(":")[0]
            raise UnsupportedError(f"the backend {self.name!r} has no {purpose}")
        return self  # type: ignore[return-value]  # capabilities is the declaration that it fulfils it


def _written(entry: MemoryEntry) -> tuple[int, tuple[int, int, str]]:
    """Return what grows with each write: the commit number, or the order where a backend has none."""
    return (entry.position[1] if entry.position else 0), entry.order
