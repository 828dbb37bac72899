"""`SealedBackend`: a backend whose entries another one stores sealed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Self

from jarvis.capabilities import (
    CAPABILITIES,
    Analyses,
    BacksUp,
    Compresses,
    Encrypts,
    Erases,
    FeedsChanges,
    KeepsHistory,
    KeepsVectors,
    MarksCursors,
    MendsDates,
    Namespaced,
    Past,
    Result,
    Salvages,
    SearchesText,
    SharesCommits,
    Slides,
    Transactional,
    Transfers,
)
from jarvis.errors import InvalidEntryError, InvalidSettingError, UnsupportedError
from jarvis.model.change import Change
from jarvis.model.entry import MemoryEntry, check_namespace
from jarvis.model.erasure import Erased, Judge, Look, Search, Wanted
from jarvis.model.explanation import Explanation
from jarvis.model.key_place import KeyPlace, SlotInfo
from jarvis.model.listing import Listing
from jarvis.model.mending import Entries
from jarvis.model.options import Compression, Encryption, KeySource, KeySources, checked
from jarvis.model.policies import CategoryPolicy
from jarvis.model.portable import WholeMemory
from jarvis.model.query import MemoryQuery, asked_as_of
from jarvis.model.record import is_same, is_small, prepare
from jarvis.model.revision import Revision, Signature
from jarvis.model.rewriting import Rewritten
from jarvis.sealing import rekeying, wholes
from jarvis.sealing.answers import Answers, Mended, mentions_in
from jarvis.sealing.if_sealed import if_sealed
from jarvis.sealing.keys import Keys
from jarvis.sealing.open_store import OpenStore, place_of_keys
from jarvis.sealing.rekeying import OnProgress
from jarvis.sealing.sealer import Draft, Sealer, decides
from jarvis.storage_backend import BackendWrapper, Capability, SelectingBackend, StorageBackend

Clock = Callable[[], datetime]

_NOT_PASSED_ON = (Analyses, BacksUp, Compresses, KeepsVectors, Salvages, SearchesText)
"""A copy would lack the keys, what is sealed does not get smaller, a new store would not be sealed, an index would show
words, and to count what is sealed would count the seals."""


class SealedBackend(BackendWrapper, SelectingBackend):
    """A backend whose entries another one stores sealed: who reads its database learns neither values nor names.

    Ids, categories, keys, tags, entities, namespaces and authors are sealed so that equal ones are equal, because they
    are looked up. So it shows which are equal, how many there are, how long they are, and when they were written.
    Filters on values, prefixes and the order of keys are decided here, of all entries that match the rest.

    Args:
        wrapped: the backend. It is used through this one only, and keeps the keys: `PostgreSQLBackend` can.
        encryption: ``"required"``, ``"on"``: a new store is sealed, and one that was plain stays so; or ``"off"``: a
            new one is plain, too. A sealed store is opened with its keys, whatever this says.
        keys: the key sources, see `jarvis.keys`; if there are none, those that the store names, and for a new store
            the environment variable ``JARVIS_KEY``.
        compression: how values from 1 KiB up are written, before they are sealed.

    Raises:
        InvalidSettingError: an argument is out of range.
        UnsupportedError: `wrapped` cannot keep keys.
    """

    capabilities: ClassVar[tuple[type, ...]] = tuple(each for each in CAPABILITIES if each not in _NOT_PASSED_ON)

    def __init__(
        self,
        wrapped: StorageBackend,
        *,
        encryption: Encryption = "required",
        keys: KeySources = (),
        compression: Compression = "auto",
    ) -> None:
        if not issubclass(type(wrapped), StorageBackend):
            raise InvalidSettingError(f"wrapped: takes a StorageBackend, not {type(wrapped).__name__}")
        place: KeyPlace | None = getattr(wrapped, "key_place", None)
        if place is None:
            raise UnsupportedError(f"the backend {wrapped.name!r} cannot keep the keys of a sealed store")
        self.namespace = wrapped.namespace
        self._clock: Clock | None = None
        self._as_opened: Self | None = None
        self._opened: tuple[Sealer | None, StorageBackend] | None = None
        opener = Keys(place.path, checked("encryption", encryption), checked("keys", keys))
        self._store = OpenStore((wrapped, opener))
        self._compression: Compression = checked("compression", compression)

    # --- handles ---------------------------------------------------------------------------------

    @property
    def wrapped(self) -> StorageBackend:  # type: ignore[override]  # the store tells it, and is not open at first
        """The handle of the wrapped backend on this namespace; the first look opens the store."""
        return self._now[1]

    @property
    def _sealer(self) -> Sealer | None:
        return self._now[0]

    @property
    def _now(self) -> tuple[Sealer | None, StorageBackend]:
        opened = self._fixed._opened
        assert opened is not None  # noqa: S101 - that of a fixed handle
        return opened

    @property
    def _fixed(self) -> Self:
        """This handle with the keys that the store has now: a verb that has begun keeps them to its end."""
        if self._opened is not None:
            return self
        fixed = self._as_opened
        if fixed is None or fixed._store.opening is not self._store.opening:
            fixed = self._as_opened = self._open()
        return fixed

    def _open(self) -> Self:
        # Not a cached property, which has a lock in Python 3.11: it could stay taken in a forked child.
        fixed = self.bind()
        fixed._store = OpenStore(self._store.opening)
        fixed._opened = fixed._store.at(self.namespace, self._clock)
        return fixed

    @property
    def name(self) -> str:  # type: ignore[override]  # elsewhere a class attribute
        return self._store.opening[0].name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._store.opening[0]!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None, "_as_opened": None}

    def bind(self, *, namespace: str | None = None, clock: Clock | None = None) -> Self:
        base, _ = self._store.opening
        if namespace is not None and not base.has_capability(Namespaced):
            base.bind(namespace=namespace)  # raises if it is another one
        bound = object.__new__(type(self))
        bound.__dict__.update(self.__getstate__())
        bound.namespace = self.namespace if namespace is None else check_namespace(namespace)
        bound._clock = self._clock if clock is None else clock
        return bound

    def has_capability(self, protocol: type) -> bool:
        return protocol in self.capabilities and (
            protocol is Encrypts or self._store.opening[0].has_capability(protocol)
        )

    def capability(self, protocol: type[Capability]) -> Capability:
        if not self.has_capability(protocol):
            raise UnsupportedError(f"the backend {self.name!r} has no {_purpose(protocol)} when it is sealed")
        return self  # type: ignore[return-value]  # it was just asked

    def shutdown(self) -> None:
        self._store.opening[0].shutdown()
        self._store.open_again()

    # --- what is written -------------------------------------------------------------------------

    def prepare(self, value: dict[str, Any]) -> dict[str, Any]:
        if self._sealer is None:
            return self.wrapped.prepare(value)
        return value if is_small(value) else prepare(value, self._compression)

    @if_sealed
    def create(self, entry: MemoryEntry) -> None:
        self.wrapped.create(self._own.entry(self._draft(entry), 1))

    @if_sealed
    def create_many(self, several: Sequence[MemoryEntry]) -> None:
        sealed = []
        for position, entry in enumerate(several):
            try:
                sealed.append(self._own.entry(self._draft(entry), 1))
            except InvalidEntryError as error:
                raise error.of_item(position) from None
        self.wrapped.create_many(sealed)

    @if_sealed
    def update(self, entry: MemoryEntry) -> None:
        draft = self._draft(entry)

        def work() -> None:
            present = self.wrapped.read(self._own.name("id", entry.id))
            self.wrapped.update(self._own.entry(draft, 1 if present is None else present.version + 1))

        self._together(work)

    @if_sealed
    def update_if_changed(self, entry: MemoryEntry, *, renews: bool) -> bool:
        draft = self._draft(entry)

        def work() -> bool:
            present = self.wrapped.read(self._own.name("id", entry.id))
            if present is None:
                self.wrapped.update(self._own.entry(draft, 1))  # raises
                return True
            version, value = present.version, present.value
            if not is_same(self._own.opened(present), entry):
                self.wrapped.update(self._own.entry(draft, version + 1))
                return True
            sealed = self._own.entry(draft, version)
            sealed.value = value  # a newer library may compress in another way
            return self.wrapped.update_if_changed(sealed, renews=renews)

        return self._together(work)

    @if_sealed
    def recreate(self, entry: MemoryEntry) -> None:
        draft, now = self._draft(entry), datetime.now(UTC) if self._clock is None else self._clock()
        store: Any = self.wrapped.bind(clock=lambda: now)  # what has expired in between would have another version

        def work() -> None:
            past = store.revisions(self._own.name("id", entry.id))
            store.recreate(self._own.entry(draft, past[0].version + 1 if past else 1))

        self._together(work)

    @if_sealed
    def discard(self, entry_id: str) -> bool:
        name = self._own.looked_up("id", entry_id)
        return name is not None and self.wrapped.discard(name)

    def delete(self, entry_id: str) -> None:
        self.discard(entry_id)

    @if_sealed
    def size_of(self, entry: MemoryEntry) -> int:
        return self.wrapped.size_of(self._own.entry(self._draft(entry), 1))

    @if_sealed
    def sign(self, signature: Signature) -> None:
        self.wrapped.capability(KeepsHistory).sign(self._own.signature(signature))

    @if_sealed
    def slide(self, entry_id: str, expires_at: datetime) -> bool:
        name = self._own.looked_up("id", entry_id)
        return name is not None and self.wrapped.capability(Slides).slide(name, expires_at)

    @if_sealed
    def erase(self, which: str | MemoryQuery | None, judge: Judge | None = None) -> Erased:
        store = self.wrapped.capability(Erases)
        if not isinstance(which, MemoryQuery):
            return self._own.erased(store.erase(None if which is None else self._own.looked_up("id", which) or ""))
        which = which.whole()
        sealed, matches = self._own.query(which), which.predicate()

        def decide(entry: MemoryEntry) -> bool:
            opened = self._own.opened(entry)
            return matches(opened) and (judge is None or judge(opened))

        return self._own.erased(store.erase(sealed, None if judge is None and decides(which) else decide))

    @if_sealed
    def finish_erasing(self, ids: Collection[str], look: Look | None = None) -> Search | None:
        wanted = Wanted(ids)

        def mentions(states: Iterator[MemoryEntry]) -> int:
            opened = map(self._own.opened, states)
            return look(opened) if look is not None else sum(mentions_in(entry, wanted) for entry in opened)

        names = self._own.names("id", ids)
        return self.wrapped.capability(Erases).finish_erasing(names, mentions if wanted or look is not None else None)

    @if_sealed
    def mend_dates(self, signature: Signature, entries: Callable[[str], Entries] | None = None) -> int:
        def there(namespace: str) -> Entries:
            sealer = self._own.of_namespace(namespace)
            return Mended(sealer, (entries or self.for_namespace)(sealer.namespace))

        return self.wrapped.capability(MendsDates).mend_dates(self._own.signature(signature), there)

    @if_sealed
    def load(self, several: Sequence[WholeMemory], since: datetime | None) -> None:
        sealed = [wholes.sealed(self._own, whole, self._compression) for whole in several]
        self.wrapped.capability(Transfers).load(sealed, since)

    # --- what is read ----------------------------------------------------------------------------

    @if_sealed
    def read(self, entry_id: str) -> MemoryEntry | None:
        return self._answers.read(entry_id)

    @if_sealed
    def read_many(self, ids: Sequence[str]) -> list[MemoryEntry]:
        names = [name for entry_id in ids if (name := self._own.looked_up("id", entry_id)) is not None]
        return [*map(self._own.opened, self.wrapped.read_many(names))]

    @if_sealed
    def select(self, query: MemoryQuery) -> list[MemoryEntry]:
        return self._answers.select(query)

    list_all = SelectingBackend.list_all
    query = SelectingBackend.query

    @if_sealed
    def count(self, query: MemoryQuery) -> int:
        return self._answers.count(query)

    @if_sealed
    def explain(self, query: MemoryQuery, *, counting: bool = False) -> Explanation:
        return self._answers.explain(query, counting=counting)

    @if_sealed
    def iterate(self, query: MemoryQuery) -> Iterator[MemoryEntry]:
        return self._answers.iterate(query)

    @if_sealed
    def list_names(self, listing: Listing) -> dict[str, int]:
        found = self.wrapped.list_names(self._own.listing(listing))
        return listing.of({self._own.text(listing.field, name): count for name, count in found.items()})

    @if_sealed
    def newest_of_key(self, key: str) -> MemoryEntry | None:
        return self._answers.newest_of_key(key)

    @if_sealed
    def last_written(self, category: str, key: str) -> MemoryEntry | None:
        kind, name = self._own.looked_up("category", category), self._own.looked_up("key", key)
        if kind is None or name is None:
            return None
        return self._answers.opened(self.wrapped.last_written(kind, name))

    @if_sealed
    def beyond(self, category: str, policy: CategoryPolicy) -> list[str]:
        sealed = self._own.policy(policy, category)
        return [self._own.text("id", name) for name in self.wrapped.beyond(sealed.category, sealed)]

    @if_sealed
    def revisions(self, entry_id: str) -> list[Revision]:
        name = self._own.looked_up("id", entry_id)
        found = [] if name is None else self.wrapped.capability(KeepsHistory).revisions(name)
        return [*map(self._own.revision, found)]

    @if_sealed
    def as_of(self, moment: datetime) -> Past:
        asked_as_of(moment)
        return Answers(self._own, self.wrapped.capability(KeepsHistory).as_of(moment))

    @if_sealed
    def changes(self, after: int, limit: int) -> list[Change]:
        return [*map(self._own.change, self.wrapped.capability(FeedsChanges).changes(after, limit))]

    @if_sealed
    def changes_since(self, cursor: str, limit: int) -> list[Change]:
        return [*map(self._own.change, self.wrapped.capability(MarksCursors).changes_since(cursor, limit))]

    @if_sealed
    def list_namespaces(self) -> list[str]:
        return self._own.namespaces(self.wrapped.capability(Namespaced).list_namespaces())

    @if_sealed
    def all_namespaces(self) -> list[str]:
        return self._own.namespaces(self.wrapped.capability(Transfers).all_namespaces())

    @if_sealed
    def whole_memories(self, *, past: bool) -> Iterator[WholeMemory]:
        found = self.wrapped.capability(Transfers).whole_memories(past=past)
        return wholes.in_order(wholes.opened(self._own, whole) for whole in found)

    @if_sealed
    def findings(self, looked_at: Callable[[], object]) -> Iterator[str]:
        return wholes.findings(self._own, self.wrapped, looked_at)

    # --- Encrypts --------------------------------------------------------------------------------

    def key_slots(self) -> list[SlotInfo]:
        base, keys = self._store.opening
        return keys.slots(place_of_keys(base))

    def add_key_slot(self, source: KeySource) -> int:
        base, keys = self._store.opening
        return keys.add(place_of_keys(base), source)

    def remove_key_slot(self, slot_id: int) -> None:
        base, keys = self._store.opening
        keys.remove(place_of_keys(base), slot_id)

    def encrypt(self, sources: Sequence[KeySource], progress: OnProgress | None) -> Rewritten | None:
        return rekeying.encrypt(self._store, sources, self._compression, progress)

    def decrypt(self, progress: OnProgress | None) -> Rewritten | None:
        return rekeying.decrypt(self._store, self._compression, progress)

    def rotate(self, sources: Sequence[KeySource], progress: OnProgress | None) -> Rewritten:
        return rekeying.rotate(self._store, sources, self._compression, progress)

    # --- inside ----------------------------------------------------------------------------------

    @property
    def _own(self) -> Sealer:
        assert self._sealer is not None  # noqa: S101 - the verb was called because the store is sealed
        return self._sealer

    @property
    def _answers(self) -> Answers:
        return Answers(self._own, self.wrapped)

    def _draft(self, entry: MemoryEntry) -> Draft:
        return Draft(entry, self._compression)

    def _together(self, work: Callable[[], Result]) -> Result:
        """Run `work` so that nobody else writes between what it reads and what it writes; return its result."""
        if self.wrapped.has_capability(SharesCommits):
            return self.wrapped.capability(SharesCommits).change(work)
        if not self.wrapped.has_capability(Transactional):
            return work()
        with self.wrapped.capability(Transactional).transaction():
            return work()


def _purpose(protocol: type) -> str:
    return (protocol.__doc__ or protocol.__name__).partition(":")[0]
