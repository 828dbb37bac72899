"""THE contract of a backend: eight verbs that it must have, and verbs with defaults.

A subclass that implements the eight abstract verbs is a whole backend; everything else here has a correct default that
uses only them. A feature that cannot be built on them is a *capability*: a Protocol of `jarvis.capabilities`, asked for
with `StorageBackend.capability`. `jarvis.conformance` tests any backend for all of this.
"""

from __future__ import annotations

import contextlib
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, ParamSpec, Self, TypeVar

from jarvis import capabilities as protocols
from jarvis.errors import InvalidEntryError, UnsupportedError
from jarvis.model.entry import DEFAULT_NAMESPACE, MemoryEntry, check_namespace
from jarvis.model.explanation import Explanation, without_index
from jarvis.model.former import former_names
from jarvis.model.listing import Listing
from jarvis.model.marks import ABSENT
from jarvis.model.policies import CategoryPolicy
from jarvis.model.query import MemoryQuery
from jarvis.model.record import encode_body, is_same, prepare
from jarvis.model.rules import written

if TYPE_CHECKING:
    from jarvis.capabilities import *  # noqa: F403 - former names, for one release

__all__ = ["DEFAULT_NAMESPACE", "BackendWrapper", "Location", "MemoryEntry", "MemoryQuery", "StorageBackend"]

Location = Path | str
"""Where a store is: the path of a file, or for a database elsewhere its URL."""

Arguments = ParamSpec("Arguments")
Capability = TypeVar("Capability")
Answer = TypeVar("Answer")

__getattr__ = former_names(__name__, "jarvis.capabilities")


class StorageBackend(ABC):
    """A store of entries, bound to one namespace. Safe to use from any number of threads.

    Nothing aliases: arguments are copied, and results belong to the caller. Lists are newest first, sorted by
    `MemoryEntry.order`, unless a query has another order. Any verb opens the store if need be, also after `shutdown`.
    Every verb may raise `jarvis.errors.StoreError`.
    """

    name: ClassVar[str] = "unnamed"
    """The name under which the backend is registered, used in messages."""

    file_name: ClassVar[str] = "memory.store"
    """The store's file within a storage directory."""

    capabilities: ClassVar[tuple[type, ...]] = ()
    """The Protocols that this backend fulfils."""

    namespace: str = DEFAULT_NAMESPACE
    """The namespace of this handle: its verbs read and change nothing else."""

    @classmethod
    def location_in(cls, directory: Path) -> Location:
        """Return the location of the store that a storage directory holds, as the constructor takes it."""
        return directory / cls.file_name

    # --- the eight verbs -------------------------------------------------------------------------

    @abstractmethod
    def bootstrap(self) -> None:
        """Make the store ready, and create it if it is absent; no-op if it is ready."""

    @abstractmethod
    def create(self, entry: MemoryEntry) -> None:
        """Store a copy of `entry` as version 1; on return it is as durable as the backend promises.

        Raises:
            DuplicateEntryError: the id is taken; the existing entry stays.
            InvalidEntryError: a field cannot be stored exactly (see `jarvis.model.record.encode_body`).
        """

    @abstractmethod
    def read(self, entry_id: str) -> MemoryEntry | None:
        """Return the entry with this id, or None if there is none in this namespace."""

    @abstractmethod
    def update(self, entry: MemoryEntry) -> None:
        """Replace the entry that has the id of `entry`; its version grows by one.

        Raises:
            EntryNotFoundError: no entry has the id; nothing is stored.
            InvalidEntryError: a field cannot be stored exactly; the entry stays as it was.
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

    # --- correct defaults that use the eight; override them if the medium can be faster ----------

    def prepare(self, value: dict[str, Any]) -> dict[str, Any]:
        """Return a stand-in for a value, for an entry that is passed to `create` or `update`.

        The module calls this before the writers' lock is taken, so a backend may check and encode a large value here
        without a lock; `create` and `update` check what was not checked. Only the verbs of this backend need to
        understand the result; this default checks the value and returns it.

        Raises:
            InvalidEntryError: the value cannot be stored exactly.
        """
        prepare(value, "off")
        return value

    def create_many(self, several: Sequence[MemoryEntry]) -> None:
        """Store copies of entries as `create` does, in their order; all or none if the backend has transactions.

        Raises:
            DuplicateEntryError: an id is taken.
            InvalidEntryError: a field cannot be stored exactly; the error names the position, and nothing is stored.
        """
        for position, entry in enumerate(several):
            try:
                encode_body(entry)
            except InvalidEntryError as error:
                raise error.of_item(position) from None
        transactional = protocols.Transactional in self.capabilities
        with self.capability(protocols.Transactional).transaction() if transactional else contextlib.nullcontext():
            for entry in several:
                self.create(entry)

    def update_if_changed(self, entry: MemoryEntry, *, renews: bool) -> bool:
        """Update the entry that has the id of `entry`, as `update` does, if anything but its timestamp, provenance and
        version would change; return whether anything was stored.

        Otherwise, with `renews`, only the new timestamp and provenance are stored: that is a *renewal*. A backend with
        `jarvis.capabilities.KeepsHistory` must override this default, which updates:

        1. A renewal gives the entry the place in lists, and a commit number, of a change. The version stays.
        2. No revision and no change in the feed tells of it, and the limit of the history policy does not count it.
        3. As of a moment before it, the entry is as it was then. Once the entry is changed or deleted, the past knows
           only the state before its first renewal.

        On return, what was found is as durable as what is written.

        Raises:
            EntryNotFoundError: no entry has the id.
            InvalidEntryError: a field cannot be stored exactly.
        """
        stored = self.read(entry.id)
        if stored is not None and not renews and is_same(stored, entry):
            return False
        self.update(entry)
        return True

    def read_many(self, ids: Sequence[str]) -> list[MemoryEntry]:
        """Return the entries with these ids, which are distinct, in the order of `ids`; absent ones are left out."""
        return [entry for entry in map(self.read, ids) if entry is not None]

    def select(self, query: MemoryQuery) -> list[MemoryEntry]:
        """Return the entries that match `query`: in its order, from `query.offset` on, at most `query.limit`."""
        entity_id = None if query.entity_id is ABSENT else query.entity_id
        candidates = self.query(query.category, query.tags, query.entity_type, entity_id, query.key)
        return query.arranged(filter(query.predicate(), candidates))

    def count(self, query: MemoryQuery) -> int:
        """Return ``len(self.select(query))``."""
        return len(self.select(query))

    def explain(self, query: MemoryQuery, *, counting: bool = False) -> Explanation:  # noqa: ARG002 - alike here
        """Answer a query as `select` or `count` does; return how. This default says that every entry was read."""
        return without_index(self.name, query, len(self.list_all()), len(self.select(query)))

    def iterate(self, query: MemoryQuery) -> Iterator[MemoryEntry]:
        """Yield the entries that `select` returned at the moment of the first step."""
        yield from self.select(query)

    def list_names(self, listing: Listing) -> dict[str, int]:
        """Return the names that `listing` asks for, in the order of code points, with how many entries have each."""
        return listing.collected(self.iterate(listing.query))

    def newest_of_key(self, key: str) -> MemoryEntry | None:
        """Return the newest entry with this key, in any category, or None."""
        entries = self.select(MemoryQuery(key=key, limit=1))
        return entries[0] if entries else None

    def last_written(self, category: str, key: str) -> MemoryEntry | None:
        """Return the entry of (category, key) that was written last, or None: perhaps not the newest by timestamp."""
        return max(self.query(category=category, key=key), key=written, default=None)

    def size_of(self, entry: MemoryEntry) -> int:
        """Return how many bytes `beyond` counts for an entry; raise `InvalidEntryError` if it cannot be stored."""
        return len(encode_body(entry)[0])

    def beyond(self, category: str, policy: CategoryPolicy) -> list[str]:
        """Return the ids of those entries of a category that a policy has no room for, in the order they were written.

        See `CategoryPolicy.beyond`. This default reads the whole category.
        """
        query = MemoryQuery(category=category, exclude_tags=policy.keep_tags)
        return [entry.id for entry in policy.beyond(sorted(self.select(query), key=written), self.size_of)]

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

    # --- handles ---------------------------------------------------------------------------------

    def bind(
        self,
        *,
        namespace: str | None = None,
        clock: Callable[[], datetime] | None = None,  # noqa: ARG002 - this default has no expiry
    ) -> Self:
        """Return a handle on the same store and connections, of another namespace, or with another clock.

        An argument of None changes nothing. This default knows one namespace and no clock, so it returns `self`. A
        backend that is `jarvis.capabilities.Namespaced` or `jarvis.capabilities.Expires` must override it.

        Args:
            namespace: the part of the store that the handle sees.
            clock: returns the present time, aware, by which entries expire; pickled with the handle.

        Raises:
            InvalidEntryError: `namespace` is no valid name.
            UnsupportedError: `namespace` is another one, and the backend has no namespaces.
        """
        if namespace is not None and check_namespace(namespace) != self.namespace:
            raise UnsupportedError(f"the backend {self.name!r} has no namespaces")
        return self

    def for_namespace(self, namespace: str) -> Self:
        """Return ``self.bind(namespace=namespace)``, but refuse None."""
        return self.bind(namespace=check_namespace(namespace))

    # --- capabilities ----------------------------------------------------------------------------

    def has_capability(self, protocol: type) -> bool:
        """Tell whether the backend has this capability."""
        return protocol in self.capabilities

    def capability(self, protocol: type[Capability]) -> Capability:
        """Return this backend as one that fulfils `protocol`.

        Ask here and never with isinstance, which is wrong for wrappers.

        Raises:
            UnsupportedError: the backend lacks the capability.
        """
        if protocol not in self.capabilities:
            purpose = (protocol.__doc__ or protocol.__name__).partition(":")[0]
            raise UnsupportedError(f"the backend {self.name!r} has no {purpose}")
        return self  # type: ignore[return-value]  # `capabilities` declares it


class SelectingBackend(StorageBackend):
    """A backend whose own work is `select` and `discard`: three of the eight verbs follow from these."""

    def delete(self, entry_id: str) -> None:
        self.discard(entry_id)

    def list_all(self) -> list[MemoryEntry]:
        return self.select(MemoryQuery())

    def query(
        self,
        category: str | None = None,
        tags: Collection[str] | None = None,
        entity_type: str | None = None,
        entity_id: str | None = None,
        key: str | None = None,
    ) -> list[MemoryEntry]:
        return self.select(
            MemoryQuery(category=category, tags=tags, entity_type=entity_type, entity_id=entity_id, key=key)
        )

    @abstractmethod
    def select(self, query: MemoryQuery) -> list[MemoryEntry]: ...

    @abstractmethod
    def discard(self, entry_id: str) -> bool: ...


def _forwarded(verb: Callable[Concatenate[Any, Arguments], Answer]) -> Callable[Concatenate[Any, Arguments], Answer]:
    """Return a verb with the signature and docstring of `verb` that calls the same verb of `BackendWrapper.wrapped`."""
    name = verb.__name__

    @functools.wraps(verb, updated=())  # the __dict__ of an abstract verb marks it as abstract
    def forward(self: Any, /, *args: Arguments.args, **named: Arguments.kwargs) -> Answer:
        answer: Answer = getattr(self.wrapped, name)(*args, **named)
        return answer

    return forward


class BackendWrapper(StorageBackend):
    """A backend around another one: each verb calls the same verb of `wrapped`, and nothing else.

    A subclass overrides the verbs that it changes, and calls ``super()`` in them:

    1. Each verb calls only the same verb of `wrapped`. A subclass that changes how entries are read overrides
       every verb that reads: `read`, `read_many`, `select`, `query`, `list_all`, `count`, `explain`, `iterate`,
       `beyond`, `list_names`, `newest_of_key`, `last_written`, `KeepsHistory.as_of` and those of `SearchesText`. So do
       those that write.
    2. `capabilities` names the capabilities that the wrapper passes on. `capability` returns the wrapper for those of
       them that `wrapped` has, and hides all others. A subclass that does not know what a capability changes leaves it
       out.
    3. `bind` returns a wrapper around the result of `wrapped.bind`. The two wrappers share all other attributes.
    4. `prepare` returns a value that only `wrapped` understands; the module then calls `create` and `update` with it.
       A subclass that looks into values there sets ``prepare = StorageBackend.prepare``.

    >>> from jarvis.sqlite_backend import SQLiteBackend
    >>> from jarvis.storage_backend import BackendWrapper
    >>> import pathlib, tempfile
    >>> class Shouting(BackendWrapper):
    ...     def delete(self, entry_id):
    ...         print("DELETED", entry_id)
    ...         super().delete(entry_id)
    >>> backend = Shouting(SQLiteBackend(pathlib.Path(tempfile.mkdtemp()) / "memory.db"))
    >>> backend.delete("1")
    DELETED 1
    """

    capabilities: ClassVar[tuple[type, ...]] = protocols.CAPABILITIES

    def __init__(self, wrapped: StorageBackend) -> None:
        self.wrapped = wrapped
        self.namespace = wrapped.namespace

    @property
    def name(self) -> str:  # type: ignore[override]  # elsewhere a class attribute
        """The name of `wrapped`, used in messages."""
        return self.wrapped.name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.wrapped!r})"

    def bind(self, *, namespace: str | None = None, clock: Callable[[], datetime] | None = None) -> Self:
        bound = object.__new__(type(self))
        bound.__dict__.update(self.__dict__)
        bound.wrapped = self.wrapped.bind(namespace=namespace, clock=clock)
        bound.namespace = bound.wrapped.namespace
        return bound

    def has_capability(self, protocol: type) -> bool:
        return super().has_capability(protocol) and self.wrapped.has_capability(protocol)

    def capability(self, protocol: type[Capability]) -> Capability:
        self.wrapped.capability(protocol)
        return super().capability(protocol)

    bootstrap = _forwarded(StorageBackend.bootstrap)
    create = _forwarded(StorageBackend.create)
    create_many = _forwarded(StorageBackend.create_many)
    read = _forwarded(StorageBackend.read)
    update = _forwarded(StorageBackend.update)
    update_if_changed = _forwarded(StorageBackend.update_if_changed)
    delete = _forwarded(StorageBackend.delete)
    list_all = _forwarded(StorageBackend.list_all)
    query = _forwarded(StorageBackend.query)
    shutdown = _forwarded(StorageBackend.shutdown)
    prepare = _forwarded(StorageBackend.prepare)
    read_many = _forwarded(StorageBackend.read_many)
    select = _forwarded(StorageBackend.select)
    count = _forwarded(StorageBackend.count)
    explain = _forwarded(StorageBackend.explain)
    iterate = _forwarded(StorageBackend.iterate)
    list_names = _forwarded(StorageBackend.list_names)
    newest_of_key = _forwarded(StorageBackend.newest_of_key)
    last_written = _forwarded(StorageBackend.last_written)
    size_of = _forwarded(StorageBackend.size_of)
    beyond = _forwarded(StorageBackend.beyond)
    discard = _forwarded(StorageBackend.discard)
    clear = _forwarded(StorageBackend.clear)
    transaction = _forwarded(protocols.Transactional.transaction)
    moment = _forwarded(protocols.Transactional.moment)
    change = _forwarded(protocols.SharesCommits.change)
    sign = _forwarded(protocols.KeepsHistory.sign)
    complete = _forwarded(protocols.KeepsHistory.complete)
    revisions = _forwarded(protocols.KeepsHistory.revisions)
    recreate = _forwarded(protocols.KeepsHistory.recreate)
    as_of = _forwarded(protocols.KeepsHistory.as_of)
    prune = _forwarded(protocols.KeepsHistory.prune)
    announce = _forwarded(protocols.Settles.announce)
    purge_expired = _forwarded(protocols.Expires.purge_expired)
    erase = _forwarded(protocols.Erases.erase)
    finish_erasing = _forwarded(protocols.Erases.finish_erasing)
    back_up = _forwarded(protocols.BacksUp.back_up)
    key_slots = _forwarded(protocols.Encrypts.key_slots)
    add_key_slot = _forwarded(protocols.Encrypts.add_key_slot)
    remove_key_slot = _forwarded(protocols.Encrypts.remove_key_slot)
    encrypt = _forwarded(protocols.Encrypts.encrypt)
    decrypt = _forwarded(protocols.Encrypts.decrypt)
    rotate = _forwarded(protocols.Encrypts.rotate)
    recompress = _forwarded(protocols.Compresses.recompress)
    last_moment = _forwarded(protocols.MendsDates.last_moment)
    slide = _forwarded(protocols.Slides.slide)
    mend_dates = _forwarded(protocols.MendsDates.mend_dates)
    changes = _forwarded(protocols.FeedsChanges.changes)
    first_position = _forwarded(protocols.FeedsChanges.first_position)
    last_position = _forwarded(protocols.FeedsChanges.last_position)
    own_position = _forwarded(protocols.FeedsChanges.own_position)
    changes_since = _forwarded(protocols.MarksCursors.changes_since)
    newest_cursor = _forwarded(protocols.MarksCursors.newest_cursor)
    pulse = _forwarded(protocols.WakesWatchers.pulse)
    version = _forwarded(protocols.TellsVersion.version)
    all_namespaces = _forwarded(protocols.Transfers.all_namespaces)
    known_since = _forwarded(protocols.Transfers.known_since)
    whole_memories = _forwarded(protocols.Transfers.whole_memories)
    load = _forwarded(protocols.Transfers.load)
    findings = _forwarded(protocols.Verifies.findings)
    salvage = _forwarded(protocols.Salvages.salvage)
    empty_at = _forwarded(protocols.Salvages.empty_at)
    pending = _forwarded(protocols.KeepsVectors.pending)
    count_vectors = _forwarded(protocols.KeepsVectors.count_vectors)
    put_vectors = _forwarded(protocols.KeepsVectors.put_vectors)
    vectors = _forwarded(protocols.KeepsVectors.vectors)
    codes_of = _forwarded(protocols.KeepsVectors.codes_of)
    entries_at = _forwarded(protocols.KeepsVectors.entries_at)
    text_language = _forwarded(protocols.SearchesText.text_language)
    candidates = _forwarded(protocols.SearchesText.candidates)
    rebuild_index = _forwarded(protocols.SearchesText.rebuild_index)
    index_findings = _forwarded(protocols.SearchesText.index_findings)
    tallies = _forwarded(protocols.Analyses.tallies)
    sizes = _forwarded(protocols.TellsSize.sizes)
    list_namespaces = _forwarded(protocols.Namespaced.list_namespaces)
