"""`CachedBackend`: keeps the answers of another backend in memory, and gives none that a commit has outdated."""

from __future__ import annotations

import functools
import marshal
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar, Concatenate, NamedTuple, ParamSpec, Self, TypeVar

import msgspec

from jarvis.capabilities import CAPABILITIES, Result, TellsVersion, Transactional
from jarvis.errors import InvalidSettingError, JarvisError, UnsupportedError
from jarvis.model.cache_limits import CacheLimits
from jarvis.model.entry import MemoryEntry
from jarvis.model.listing import Listing
from jarvis.model.marks import ABSENT
from jarvis.model.query import MemoryQuery
from jarvis.model.record import decode_entry, encode_body
from jarvis.storage_backend import BackendWrapper, SelectingBackend, StorageBackend

Answer = TypeVar("Answer")
Arguments = ParamSpec("Arguments")

_USUAL = CacheLimits()
_SLOT_BYTES = 420  # what Python adds to the bytes of a key and of an answer
_MARSHAL_VERSION = 2  # from 3 on, equal values may be written differently
_MOMENTS_AND_PLACE = ("since", "until", "after")  # of a query
_PLAIN_KINDS = frozenset((str, int, bool, type(None), tuple, dict))


_Row = tuple[str, str, str, str, str | None, int, tuple[int, int] | None, bytes, datetime | None]
"""An entry as it is kept: the arguments of `decode_entry`, but for a compressed value."""

_encode = msgspec.msgpack.Encoder().encode
_decode_rows = msgspec.msgpack.Decoder(list[_Row]).decode
_decode_count = msgspec.msgpack.Decoder(int).decode
_decode_names = msgspec.msgpack.Decoder(dict[str, int]).decode


class _Slot(NamedTuple):
    """An answer as it is kept.

    Attributes:
        packed: the answer, encoded.
        entries: for how many entries it counts.
        until: when the first of its entries expires.
    """

    packed: bytes
    entries: int
    until: datetime | None


class _Shelf:
    """The answers at one version of the store. It is never brought up to date but replaced.

    So an answer that was asked before a commit and comes after it is put on a shelf that nobody looks at.
    """

    def __init__(self, version: object, limits: CacheLimits) -> None:
        self.version = version
        self._limits = limits
        self._slots: OrderedDict[bytes, _Slot] = OrderedDict()
        self._entries = self._bytes = 0
        self._putting = threading.Lock()

    def get(self, key: bytes) -> _Slot | None:
        """Return the answer to a question, or None."""
        slot = self._slots.get(key)
        if slot is not None:
            try:  # noqa: SIM105  calls less in each read
                self._slots.move_to_end(key)
            except KeyError:  # another thread has just made room
                pass
        return slot

    def put(self, key: bytes, slot: _Slot) -> None:
        """Keep an answer, unless it is too large, and let go of those that were used least recently.

        It never waits: if another thread is putting, or an exception from outside has left the lock taken, nothing is
        kept.
        """
        limits = self._limits
        if (
            slot.entries > limits.entries
            or _size(key, slot) > limits.bytes
            or not self._putting.acquire(blocking=False)
        ):
            return
        try:
            self._count(key, slot, 1)  # first: an exception from outside must not make it keep too much
            before = self._slots.pop(key, None)
            if before is not None:
                self._count(key, before, -1)
            self._slots[key] = slot
            while self._slots and (self._entries > limits.entries or self._bytes > limits.bytes):
                self._count(*self._slots.popitem(last=False), -1)
        finally:
            self._putting.release()

    def _count(self, key: bytes, slot: _Slot, times: int) -> None:
        self._entries += times * slot.entries
        self._bytes += times * _size(key, slot)


def _size(key: bytes, slot: _Slot) -> int:
    return len(key) + len(slot.packed) + _SLOT_BYTES


class _Inside(threading.local):
    """How many blocks of a change the calling thread is in."""

    depth = 0


class _Kept:
    """What all handles of one cache share: the shelf, and who is inside a change."""

    def __init__(self, limits: CacheLimits) -> None:
        self.limits = limits
        self.inside = _Inside()
        self.drop()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Kept, (self.limits,)  # a copy in another process begins empty

    def drop(self) -> None:
        """Let go of every answer."""
        self.shelf = _Shelf(object(), self.limits)  # no version is equal to this one

    def within(self, work: Callable[[], Result]) -> Result:
        """Return the result of `work`, during which nothing is kept for the calling thread, or answered from here."""
        depth = self.inside.depth
        try:
            self.inside.depth = depth + 1
            return work()
        finally:
            self.inside.depth = depth


class _Told:
    """The version that a backend told last, and until when it counts by the monotonic clock; for handles of one clock.

    It stays when the cache is emptied: what is put on a shelf from then on was read after that.
    """

    def __init__(self) -> None:
        self.told: tuple[float, object] = 0.0, None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Told, ()


def _dropping(verb: Callable[Concatenate[Any, Arguments], Answer]) -> Callable[Concatenate[Any, Arguments], Answer]:
    """Return the verb of the wrapped backend that `verb` names, after which the cache is empty."""
    name = verb.__name__

    @functools.wraps(verb, updated=())  # as in `jarvis.storage_backend`
    def drop(self: Any, /, *args: Arguments.args, **named: Arguments.kwargs) -> Answer:
        try:
            answer: Answer = getattr(self.wrapped, name)(*args, **named)
            return answer
        finally:
            self._kept.drop()

    return drop


class CachedBackend(BackendWrapper, SelectingBackend):
    """A backend that keeps the answers of another one in memory, for all handles that are bound from it.

    Reads by id and key, lists, counts and names are kept, encoded: an entry that is returned is a copy of its own.
    `iterate`, `explain`, the past and the feed are asked each time. It never gives an answer that a commit has
    outdated, whoever made it: `wrapped` tells its version first, which takes about half the time of a read by id from
    SQLite. So the cache pays for lists, counts and filters that are asked again and again, and not for reads by id.

    Inside a transaction nothing is kept or answered from the cache. Each commit empties it, and so does `shutdown`.

    Args:
        wrapped: the backend; change the store through the cache if `stale_seconds` is given.
        entries: the most entries that are kept; an answer without entries counts as one.
        bytes: the most memory that the cache takes.
        stale_seconds: for how long answers may MISS WHAT OTHERS CHANGE, for a store behind a network: within that time
            `wrapped` is not asked for its version. What was changed through this cache, and what has expired, shows at
            once. None, the strict mode, asks each time.

    Raises:
        InvalidSettingError: an argument has the wrong type or is out of range.
        UnsupportedError: `wrapped` does not tell its version, and there are no `stale_seconds`.

    >>> import pathlib, tempfile
    >>> from jarvis.caching import CachedBackend
    >>> from jarvis.persistent_memory import MemoryModule
    >>> from jarvis.sqlite_backend import SQLiteBackend
    >>> backend = SQLiteBackend(pathlib.Path(tempfile.mkdtemp()) / "memory.db")
    >>> memory = MemoryModule(storage_backend=CachedBackend(backend, entries=1_000))
    >>> _ = memory.set_user_preference("theme", {"mode": "dark"})
    >>> memory.count_memories(category="preferences"), memory.count_memories(category="preferences")
    (1, 1)
    """

    capabilities: ClassVar[tuple[type, ...]] = tuple(each for each in CAPABILITIES if each is not TellsVersion)

    def __init__(
        self,
        wrapped: StorageBackend,
        *,
        entries: int = _USUAL.entries,
        bytes: int = _USUAL.bytes,  # noqa: A002 - named as in the settings
        stale_seconds: float | None = None,
    ) -> None:
        if not issubclass(type(wrapped), StorageBackend):
            raise InvalidSettingError(f"wrapped: takes a StorageBackend, not {type(wrapped).__name__}")
        limits = CacheLimits(entries=entries, bytes=bytes, stale_seconds=stale_seconds)
        if stale_seconds is None and not wrapped.has_capability(TellsVersion):
            raise UnsupportedError(
                f"the backend {wrapped.name!r} does not tell when others change the store, so its answers cannot be "
                "kept; give stale_seconds= to miss their changes for so long"
            )
        super().__init__(wrapped)
        self._kept, self._told = _Kept(limits), _Told()
        self._clock: Callable[[], datetime] | None = None
        self._teller = self._teller_of(wrapped)

    @staticmethod
    def _teller_of(wrapped: StorageBackend) -> TellsVersion | None:
        return wrapped.capability(TellsVersion) if wrapped.has_capability(TellsVersion) else None

    def bind(self, *, namespace: str | None = None, clock: Callable[[], datetime] | None = None) -> Self:
        bound = super().bind(namespace=namespace, clock=clock)
        bound._teller = self._teller_of(bound.wrapped)
        if clock is not None:
            bound._clock, bound._told = clock, _Told()
        return bound

    # --- what is kept ----------------------------------------------------------------------------

    def read(self, entry_id: str) -> MemoryEntry | None:
        return self._one(("read", entry_id), partial(self.wrapped.read, entry_id))

    def newest_of_key(self, key: str) -> MemoryEntry | None:
        return self._one(("newest_of_key", key), partial(self.wrapped.newest_of_key, key))

    def last_written(self, category: str, key: str) -> MemoryEntry | None:
        return self._one(("last_written", category, key), partial(self.wrapped.last_written, category, key))

    def read_many(self, ids: Sequence[str]) -> list[MemoryEntry]:
        return self._answer(("read_many", ids), partial(self.wrapped.read_many, ids), _packed, _unpacked)

    def select(self, query: MemoryQuery) -> list[MemoryEntry]:
        return self._answer(("select", *_plain(query)), partial(self.wrapped.select, query), _packed, _unpacked)

    list_all = SelectingBackend.list_all
    query = SelectingBackend.query

    def count(self, query: MemoryQuery) -> int:
        return self._answer(
            ("count", *_plain(query)), partial(self.wrapped.count, query), _packed_number, _decode_count
        )

    def list_names(self, listing: Listing) -> dict[str, int]:
        return self._answer(
            ("list_names", type(listing) is Listing or listing, *msgspec.structs.astuple(listing)),
            partial(self.wrapped.list_names, listing),
            _packed_number,
            _decode_names,
        )

    def _one(self, question: tuple[Any, ...], ask: Callable[[], MemoryEntry | None]) -> MemoryEntry | None:
        return self._answer(question, ask, _packed_one, _unpacked_one)

    def _answer(
        self,
        question: tuple[Any, ...],
        ask: Callable[[], Answer],
        pack: Callable[[Answer], _Slot | None],
        unpack: Callable[[bytes], Answer],
    ) -> Answer:
        """Return the answer to a question: the one that is kept, or else what `ask` returns, which is then kept."""
        try:
            key = marshal.dumps((self.namespace, *question), _MARSHAL_VERSION)
        except ValueError:  # it holds more than plain texts and numbers
            return ask()
        shelf = self._shelf()
        if shelf is None:
            return ask()
        slot = shelf.get(key)
        if slot is not None and (slot.until is None or slot.until > self._now()):
            return unpack(slot.packed)
        answer = ask()
        slot = pack(answer)
        if slot is not None:
            shelf.put(key, slot)
        return answer

    def _shelf(self) -> _Shelf | None:
        """Return the shelf of the version of now; None if nothing may be kept for the caller."""
        kept, version = self._kept, self._version()
        if version is None:
            return None
        shelf = kept.shelf
        if shelf.version != version:
            shelf = kept.shelf = _Shelf(version, kept.limits)
        return shelf

    def _version(self) -> object:
        kept, teller = self._kept, self._teller
        stale_seconds = kept.limits.stale_seconds
        if stale_seconds is None:
            return None if teller is None else teller.version()
        if kept.inside.depth:
            return None
        now = time.monotonic()
        until, version = self._told.told
        if now >= until:
            version = object() if teller is None else teller.version()
            if version is not None:
                self._told.told = now + stale_seconds, version
        return version

    def _now(self) -> datetime:
        return datetime.now(UTC) if self._clock is None else self._clock()

    # --- what changes the store ------------------------------------------------------------------

    create = _dropping(StorageBackend.create)
    create_many = _dropping(StorageBackend.create_many)
    update = _dropping(StorageBackend.update)
    update_if_changed = _dropping(StorageBackend.update_if_changed)
    delete = _dropping(StorageBackend.delete)
    discard = _dropping(StorageBackend.discard)
    clear = _dropping(StorageBackend.clear)
    shutdown = _dropping(StorageBackend.shutdown)
    recreate = _dropping(BackendWrapper.recreate)
    load = _dropping(BackendWrapper.load)
    mend_dates = _dropping(BackendWrapper.mend_dates)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        inside = self._kept.inside
        depth = inside.depth
        try:
            inside.depth = depth + 1
            with self.wrapped.capability(Transactional).transaction():
                yield
        finally:
            inside.depth = depth
            self._kept.drop()

    def change(self, work: Callable[[], Result]) -> Result:
        try:
            return super().change(partial(self._kept.within, work))
        finally:
            self._kept.drop()


def _plain(query: MemoryQuery) -> tuple[Any, ...]:
    """Return what a query asks as values that `marshal` writes, different ones for different questions."""
    if type(query) is not MemoryQuery:
        return (query,)  # which `marshal` refuses: it may mean anything
    parts = msgspec.structs.astuple(query)
    if _PLAIN_KINDS.issuperset(map(type, parts)):  # as most are
        return parts
    named = zip(query.__struct_fields__, parts, strict=True)
    plain = (part is ABSENT or part for name, part in named if name not in _MOMENTS_AND_PLACE)
    return (*plain, query.instants, query.position)


def _packed(entries: list[MemoryEntry]) -> _Slot | None:
    """Return entries encoded; None if they would not come back exactly, as those of a backend of somebody else."""
    rows: list[_Row] = []
    until = None
    try:
        for entry in entries:
            expires_at = entry.expires_at
            if expires_at is not None and expires_at.tzinfo is not UTC:
                return None
            body, _ = encode_body(entry)
            if expires_at is not None and (until is None or expires_at < until):
                until = expires_at
            names = entry.id, entry.category, entry.key, entry.entity_type, entry.entity_id
            rows.append((*names, entry.version, entry.position, body, expires_at))
        return _Slot(_encode(rows), len(rows) or 1, until)
    except (JarvisError, AttributeError, OverflowError, RecursionError, TypeError):
        return None


def _packed_one(entry: MemoryEntry | None) -> _Slot | None:
    return _packed([] if entry is None else [entry])


def _packed_number(answer: int | dict[str, int]) -> _Slot:
    return _Slot(_encode(answer), 1, None)


def _unpacked(packed: bytes) -> list[MemoryEntry]:
    return [decode_entry(*row, None) for row in _decode_rows(packed)]


def _unpacked_one(packed: bytes) -> MemoryEntry | None:
    entries = _unpacked(packed)
    return entries[0] if entries else None
