"""`JSONBackend`: memories in one readable file, for development and small stores."""

from __future__ import annotations

import contextlib
import itertools
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from jarvis._json import erasing, mending, salvage, transferring, writing
from jarvis._json.answer import Answers, Then
from jarvis._json.file import size_of
from jarvis._json.record import Draft, by_number
from jarvis._json.room import Room
from jarvis._json.seen import Snapshot
from jarvis._json.store import Store
from jarvis._json.words import Words
from jarvis.capabilities import (
    BacksUp,
    Erases,
    Expires,
    FeedsChanges,
    KeepsHistory,
    MarksCursors,
    MendsDates,
    Namespaced,
    Past,
    Salvages,
    SearchesText,
    Settles,
    Slides,
    TellsSize,
    TellsVersion,
    Transactional,
    Transfers,
    Verifies,
)
from jarvis.codec import instant_of
from jarvis.codec.instants import FIRST_INSTANT, datetime_of
from jarvis.errors import TransactionError, UnsupportedError
from jarvis.model.analytics import Sizes
from jarvis.model.entry import DEFAULT_NAMESPACE, MemoryEntry, check_expiry, check_namespace, check_text
from jarvis.model.options import ENGLISH, Compression, Durability, TextIndex, checked
from jarvis.model.policies import HistoryPolicy
from jarvis.model.query import MemoryQuery, asked_as_of
from jarvis.model.record import is_small, prepare
from jarvis.model.revision import Revision, Signature
from jarvis.model.rules import settle
from jarvis.model.store_options import StoreOptions
from jarvis.storage_backend import SelectingBackend

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from jarvis._json.answer import Answering
    from jarvis._json.room import LiveRoom
    from jarvis.model.change import Change
    from jarvis.model.erasure import Erased, Judge, Look, Search
    from jarvis.model.explanation import Explanation
    from jarvis.model.listing import Listing
    from jarvis.model.mending import Entries
    from jarvis.model.policies import CategoryPolicy
    from jarvis.model.portable import WholeMemory
    from jarvis.model.rewriting import Progress
    from jarvis.model.salvaged import Salvaged
    from jarvis.model.words import Candidates, Term


class JSONBackend(SelectingBackend):
    """Memories in one human-readable JSON file. A commit rewrites the file: put bulk work in `transaction`.

    A pickle holds the path and the options; the copy opens the file for itself.

    Args:
        file_path: the file; ``~`` is expanded. Missing directories are created.
        namespace: the one that the verbs work in.
        read_only: write nothing at all, not even a lock's file; the store must exist.
        durability: ``"full"`` has every commit on the disk when it returns. ``"normal"`` does not wait
            for the disk: a killed process loses nothing, a power cut MAY LOSE THE WHOLE FILE.
        busy_timeout_seconds: how long a write waits for other writers.
        history: how much of the past is kept by changes made here, and by `prune`.
        compression: ``"auto"`` and ``"off"``: none, because people read the file. ``"max"`` is refused.
        policies: of which `CategoryPolicy.history` holds here, for what history says of all categories.
        create: make a store that is not there; if False, the first call raises `StoreMissingError`.
        text_index: the language of the index of words, which is in memory; None: ``"english"``; ``"off"``: none.

    Raises:
        UnsupportedError: `compression` is ``"max"``.
        InvalidSettingError: an option is unknown or out of range.
        InvalidEntryError: `namespace` cannot be a name.

    >>> from jarvis.json_backend import JSONBackend
    >>> from jarvis.model.entry import MemoryEntry
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     backend = JSONBackend(directory + "/memory.json")
    ...     backend.create(MemoryEntry("1", "preferences", "theme", {"mode": "dark"}))
    ...     found = backend.query(key="theme")
    ...     backend.shutdown()
    >>> found[0].value
    {'mode': 'dark'}
    """

    name: ClassVar[str] = "json"
    file_name: ClassVar[str] = "memory.json"
    capabilities: ClassVar[tuple[type, ...]] = (
        Transactional,
        KeepsHistory,
        Expires,
        Erases,
        FeedsChanges,
        MarksCursors,
        MendsDates,
        Namespaced,
        BacksUp,
        Settles,
        Slides,
        TellsVersion,
        Transfers,
        Verifies,
        Salvages,
        SearchesText,
        TellsSize,
    )

    def __init__(
        self,
        file_path: str | os.PathLike[str],
        *,
        namespace: str = DEFAULT_NAMESPACE,
        read_only: bool = False,
        durability: Durability = "full",
        busy_timeout_seconds: float = 30.0,
        history: HistoryPolicy = HistoryPolicy(),  # noqa: B008 - frozen
        compression: Compression = "auto",
        policies: Sequence[CategoryPolicy] = (),
        create: bool = True,
        text_index: TextIndex | None = None,
    ) -> None:
        if checked("compression", compression) == "max":
            raise UnsupportedError("the backend 'json' has no compression, because people read its file; sqlite has it")
        self.namespace = check_namespace(namespace)
        self._options = StoreOptions(
            read_only=read_only,
            durability=durability,
            busy_timeout_seconds=busy_timeout_seconds,
            history=history,
            compression=compression,
            policies=policies,
            create=create,
            text_index=text_index,
        )
        self._store = Store(checked("file_path", file_path), self._options)
        self._words = Words(self.text_language())
        self._answers = Answers(self.file_path)
        self._clock: Callable[[], datetime] | None = None  # the system's
        verbs = type(self).create, type(self).update  # those of a subclass get the value itself
        self._takes_prepared = verbs == (JSONBackend.create, JSONBackend.update)

    @property
    def file_path(self) -> Path:
        """The path of the store's file, made absolute when it was given."""
        return self._store.file_path

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.file_path)!r}, namespace={self.namespace!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"file_path": self.file_path, "namespace": self.namespace, "clock": self._clock, **self._options.given()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        clock = state.pop("clock")
        JSONBackend.__init__(self, **state)
        self._clock = clock

    # --- the eight verbs -------------------------------------------------------------------------

    def bootstrap(self) -> None:
        self._store.seen()

    def create(self, entry: MemoryEntry) -> None:
        writing.create(self._store, self.namespace, self._now, entry)

    def read(self, entry_id: str) -> MemoryEntry | None:
        return self._answers.entry(self._room().get(entry_id))

    def update(self, entry: MemoryEntry) -> None:
        writing.update(self._store, self.namespace, self._now, entry, is_change=True)

    def update_if_changed(self, entry: MemoryEntry, *, renews: bool) -> bool:
        if not self._takes_prepared:
            return super().update_if_changed(entry, renews=renews)
        return writing.update(self._store, self.namespace, self._now, entry, is_change=False, renews=renews)

    def shutdown(self) -> None:
        self._store.shut_down()

    # --- handles ---------------------------------------------------------------------------------

    def bind(self, *, namespace: str | None = None, clock: Callable[[], datetime] | None = None) -> Self:
        sibling = object.__new__(type(self))
        sibling.__dict__.update(self.__dict__)
        if namespace is not None:
            sibling.namespace = check_namespace(namespace)
        if clock is not None:
            sibling._clock = clock
        return sibling

    # --- faster than the defaults ----------------------------------------------------------------

    def prepare(self, value: dict[str, Any]) -> dict[str, Any]:
        if is_small(value):
            return value
        return prepare(value, "off") if self._takes_prepared else super().prepare(value)

    def read_many(self, ids: Sequence[str]) -> list[MemoryEntry]:
        records = map(self._room().get, ids)
        with self._answers.decoding():
            return [record.entry() for record in records if record is not None]

    def select(self, query: MemoryQuery) -> list[MemoryEntry]:
        return self._answers.listed(self._room(), query)

    def count(self, query: MemoryQuery) -> int:
        return self._answers.counted(self._room(), query)

    def explain(self, query: MemoryQuery, *, counting: bool = False) -> Explanation:  # noqa: ARG002 - alike here
        return self._answers.explained(self._room(), query)

    def iterate(self, query: MemoryQuery) -> Iterator[MemoryEntry]:
        yield from self._answers.entries(self._room(), query)

    def list_names(self, listing: Listing) -> dict[str, int]:
        room, query = self._room(), listing.query
        if isinstance(room, Room) and query == MemoryQuery():  # all of its entries are there
            return listing.of(room.names(listing.field))
        return listing.collected(filter(query.predicate(), room.candidates(query)))

    def beyond(self, category: str, policy: CategoryPolicy) -> list[str]:
        records, pinned = self._room().candidates(MemoryQuery(category=category)), set(policy.keep_tags)
        kept = [each for each in records if pinned.isdisjoint(each.tags)]
        with self._answers.decoding():
            found = policy.beyond(sorted(kept, key=by_number), lambda record: self.size_of(record.entry()))
        return [record.id for record in found]

    def discard(self, entry_id: str) -> bool:
        with self._store.changing(self._now) as transaction:
            record = transaction.room(self.namespace).live(self._now()).get(entry_id)
            if record is not None:
                transaction.remove(self.namespace, record, "delete")
            return record is not None

    def clear(self) -> int:
        with self._store.changing(self._now) as transaction:
            return transaction.clear(self.namespace, self._now())

    # --- capabilities ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        with self._store.transaction(self._now):
            yield

    def moment(self, now: datetime) -> datetime:
        return self._store.own_transaction().moment(now)

    def sign(self, signature: Signature) -> None:
        transaction = self._store.own_transaction()
        for field, text in zip(signature._fields[1:], signature[1:], strict=True):
            if text is not None:
                check_text(field, text)
        transaction.signature = signature

    def complete(self, now: datetime) -> None:
        transaction = self._store.own_transaction()
        if transaction.own is not None:
            self._store.announce()
            transaction.complete(datetime_of(max(instant_of(now), self._now())))

    def announce(self) -> None:
        self._store.announce()

    def revisions(self, entry_id: str) -> list[Revision]:
        seen, now = self._store.seen(), self._now()
        record = seen.room(self.namespace).get(entry_id)
        if record is not None and record.has_expired(now):
            return []
        states = reversed(seen.archive(self.namespace).of_id.get(entry_id, ()))
        with self._answers.decoding():
            return [
                state.revision(datetime_of(state.made))
                for state in itertools.takewhile(lambda state: not state.ends_expired(now), states)
                if not state.ends_in_renewal
            ]

    def recreate(self, entry: MemoryEntry) -> None:
        writing.recreate(self._store, self.namespace, self._now, entry)

    def as_of(self, moment: datetime) -> Past:
        return Then(self._answers, partial(self._room_at, max(asked_as_of(moment), FIRST_INSTANT)))

    def prune(self, now: datetime, limit: int) -> int:
        with self._store.changing(self._now) as transaction:
            return transaction.prune(instant_of(now), limit)

    def purge_expired(self, limit: int) -> int:
        with self._store.changing(self._now) as transaction:
            return transaction.purge(self._now(), limit)

    def slide(self, entry_id: str, expires_at: datetime) -> bool:
        with self._answers.decoding():
            return writing.slide(self._store, self.namespace, entry_id, check_expiry(expires_at), self._now)

    def last_moment(self) -> datetime | None:
        made = self._store.seen().clock.made
        return None if made is None else datetime_of(made)

    def mend_dates(self, signature: Signature, entries: Callable[[str], Entries] | None = None) -> int:
        with self._store.transaction(self._now), self._answers.decoding():
            transaction = self._store.own_transaction()
            if transaction.depth:
                raise TransactionError("mend_dates() is for the outside of transactions: it makes one of its own")
            self._store.announce()
            self.sign(signature)
            return mending.mend(transaction, entries or self.for_namespace, self._now())

    def changes(self, after: int, limit: int) -> list[Change]:
        seen = self._store.seen()
        with self._answers.decoding():
            return seen.changes(self.namespace, after, limit)

    def changes_since(self, cursor: str, limit: int) -> list[Change]:
        seen = self._store.seen()
        after = seen.position_in(cursor)
        with self._answers.decoding():
            return seen.changes(self.namespace, after, limit)

    def newest_cursor(self) -> str:
        return self._store.seen().newest_cursor()

    def first_position(self) -> int:
        return self._store.seen().first_number()

    def last_position(self) -> int:
        return self._store.seen().last_number()

    def version(self) -> object:
        return self._store.seen().version(self._now())

    def own_position(self) -> int:
        return self._store.own_transaction().clock.commit

    def all_namespaces(self) -> list[str]:
        return sorted(transferring.namespaces(self._store.seen()))

    def known_since(self) -> datetime | None:
        begins = self._store.seen().clock.begins
        return None if begins is None else datetime_of(begins)

    def whole_memories(self, *, past: bool) -> Iterator[WholeMemory]:
        with self._answers.decoding():
            yield from transferring.wholes(self._committed(), self.namespace, past=past)

    def load(self, several: Sequence[WholeMemory], since: datetime | None) -> None:
        drafts = [(whole, [(step, Draft(step.entry)) for step in whole.steps()]) for whole in several]
        instant = None if since is None else instant_of(since)
        with self._store.changing(self._now) as transaction:
            transferring.load(transaction, self.namespace, drafts, instant)

    def text_language(self) -> TextIndex:
        return self._options.text_index or ENGLISH

    def candidates(self, terms: Sequence[Term], query: MemoryQuery, most: int, *, respell: bool = False) -> Candidates:
        room = self._store.seen().room(self.namespace)
        with self._answers.decoding(), self._words.of(self.namespace, room) as words:
            return words.candidates(terms, query, most, self._now(), respell=respell)

    def rebuild_index(self, language: TextIndex | None, progress: Progress | None) -> None:
        self._committed()
        if language not in (None, self.text_language()):
            raise UnsupportedError(f"the file of a JSON store names no language: open it with text_index={language!r}")
        self._words.clear()
        if progress is not None:
            progress(1, 1)

    def index_findings(self, looked_at: Callable[[], object]) -> Iterator[str]:  # noqa: ARG002  nothing is stored
        self._committed()
        return iter(())

    def list_namespaces(self) -> list[str]:
        now = self._now()
        return sorted(n for n, room in self._store.seen().rooms.items() if len(room.records) > len(room.expired(now)))

    def erase(self, which: str | MemoryQuery | None, judge: Judge | None = None) -> Erased:
        self._store.own_transaction()
        if isinstance(which, MemoryQuery):
            which = which.whole()
        with self._store.changing(self._now) as transaction, self._answers.decoding():
            return transaction.erase(self.namespace, which, judge)

    def finish_erasing(self, ids: Collection[str], look: Look | None = None) -> Search | None:
        searched = self._store.finish_erasing(ids)
        with self._answers.decoding():
            return erasing.looked_through(searched, look, self._store.seen(), self.namespace)

    def back_up(self, directory: Path, progress: Progress | None = None) -> Path:
        target = directory / self.file_path.name
        count = self._store.copy(target)
        if progress is not None:
            progress(count, count)
        return target

    def findings(self, looked_at: Callable[[], object]) -> Iterator[str]:
        self._committed()
        return salvage.findings(str(self.file_path), looked_at)

    def sizes(self) -> Sizes:
        self._store.seen()
        return Sizes(store_bytes=size_of(self.file_path))

    def salvage(self) -> Salvaged:
        return salvage.salvage(str(self.file_path))

    def empty_at(self, directory: Path) -> Self:
        return type(self)(directory / self.file_name, **{**self._options.given(), "read_only": False, "create": True})

    # --- inside ----------------------------------------------------------------------------------

    def _committed(self) -> Snapshot:
        seen = self._store.seen()
        if not isinstance(seen, Snapshot):
            raise TransactionError("this verb reads the whole store, outside of transactions: end this one first")
        return seen

    def _now(self) -> int:
        return time.time_ns() // 1000 if self._clock is None else instant_of(self._clock())

    def _room(self) -> Room | LiveRoom:
        return self._store.seen().room(self.namespace).live(self._now())

    def _room_at(self, instant: int, asked: Mapping[str, str | None]) -> Answering:
        """Return the namespace as it was at an instant, for a question that fixes the fields `asked`."""
        settle(instant, self._now(), self._store.await_commit)
        return self._store.seen().room_at(self.namespace, instant, self._now(), asked)
