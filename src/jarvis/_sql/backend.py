"""`SQLBackend`: the verbs of a backend, made of the shared statements on sessions of a store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, ClassVar, Self, TypeVarTuple

from jarvis._sql import (
    analysing,
    bounds,
    entries,
    erasing,
    expiry,
    feed,
    history,
    indexing,
    mending,
    pruning,
    searching,
    transferring,
    vectors,
)
from jarvis._sql import listing as listings
from jarvis._sql.lender import Lender
from jarvis._sql.names import ErasedError
from jarvis._sql.past import PastView
from jarvis._sql.reading import LAST_WRITTEN, NEWEST_OF_KEY, READ, Reader, can_be_looked_up
from jarvis._sql.select import count, select
from jarvis._sql.session import Session
from jarvis._sql.shape import decides
from jarvis.capabilities import (
    Analyses,
    Expires,
    FeedsChanges,
    KeepsHistory,
    KeepsVectors,
    MarksCursors,
    MendsDates,
    Namespaced,
    Past,
    Result,
    SearchesText,
    Settles,
    SharesCommits,
    Transactional,
    Transfers,
    WakesWatchers,
)
from jarvis.codec.instants import datetime_of, instant_of
from jarvis.errors import InvalidEntryError, TransactionError
from jarvis.model.change import Change
from jarvis.model.entry import MemoryEntry, check_namespace
from jarvis.model.erasure import Erased, Judge
from jarvis.model.explanation import Explanation
from jarvis.model.listing import Listing
from jarvis.model.mending import Entries
from jarvis.model.options import NO_INDEX, Compression, TextIndex
from jarvis.model.policies import CategoryPolicy
from jarvis.model.portable import WholeMemory
from jarvis.model.query import MemoryQuery, asked_as_of
from jarvis.model.record import encode_entry, is_small, prepare
from jarvis.model.revision import Revision, Signature
from jarvis.model.rewriting import Progress
from jarvis.model.rules import PRUNED_AT_ONCE, PRUNED_EVERY, next_moment
from jarvis.model.tally import Tally
from jarvis.model.vectors import StoredVector, VectorMark
from jarvis.model.words import Candidates, Term
from jarvis.storage_backend import SelectingBackend

Args = TypeVarTuple("Args")
Work = Callable[[Session, Callable[[], int], str, *Args], Result]


class SQLBackend(SelectingBackend):
    """Memories in a SQL database. See `StorageBackend` for what every verb does.

    A subclass makes the lender, and adds the verbs that concern its files.

    Args:
        compression: the compression of values from 1 KiB up.
        text_index: the language of the index of words, None for the one that the store has.
    """

    capabilities: ClassVar[tuple[type, ...]] = (
        Transactional,
        SharesCommits,
        Namespaced,
        KeepsHistory,
        Expires,
        FeedsChanges,
        MarksCursors,
        MendsDates,
        WakesWatchers,
        Settles,
        Transfers,
        SearchesText,
        KeepsVectors,
        Analyses,
    )

    def __init__(
        self, lender: Lender, namespace: str, compression: Compression, text_index: TextIndex | None = None
    ) -> None:
        self.namespace = check_namespace(namespace)
        self._lender, self._compression, self._text_index = lender, compression, text_index
        self._reader = Reader(lender, self.namespace, None)
        kind = type(self)  # the verb of a subclass gets the value itself
        self._takes_prepared = kind.create is SQLBackend.create and kind.update is SQLBackend.update

    # --- the eight verbs -------------------------------------------------------------------------

    def bootstrap(self) -> None:
        self._lender.read(lambda _: None)

    def create(self, entry: MemoryEntry) -> None:
        self._write(entries.insert, entry, encode_entry(entry, self._compression))

    def create_many(self, several: Sequence[MemoryEntry]) -> None:
        if not self._takes_prepared:
            super().create_many(several)
            return
        encoded = []
        for position, entry in enumerate(several):
            try:
                encoded.append(encode_entry(entry, self._compression))
            except InvalidEntryError as error:
                raise error.of_item(position) from None
        self._write(entries.insert_all, several, encoded)

    def read(self, entry_id: str) -> MemoryEntry | None:
        if not can_be_looked_up(entry_id):
            return None
        return self._reader.one(READ, (), entry_id)

    def update(self, entry: MemoryEntry) -> None:
        self._write(entries.replace, entry, encode_entry(entry, self._compression))

    def update_if_changed(self, entry: MemoryEntry, *, renews: bool) -> bool:
        if not self._takes_prepared:  # a subclass has a verb of its own
            return super().update_if_changed(entry, renews=renews)
        return self._write(entries.replace_if_changed, entry, encode_entry(entry, self._compression), renews)

    def shutdown(self) -> None:
        self._lender.shutdown()

    # --- handles ---------------------------------------------------------------------------------

    def bind(self, *, namespace: str | None = None, clock: Callable[[], datetime] | None = None) -> Self:
        sibling = object.__new__(type(self))
        sibling.__dict__.update(self.__dict__)
        if namespace is not None:
            sibling.namespace = check_namespace(namespace)
        sibling._reader = Reader(self._lender, sibling.namespace, self._reader.clock if clock is None else clock)
        return sibling

    # --- faster than the defaults ----------------------------------------------------------------

    def prepare(self, value: dict[str, Any]) -> dict[str, Any]:
        if is_small(value):
            return value
        if self._takes_prepared:
            return prepare(value, self._compression)
        return super().prepare(value)

    def read_many(self, ids: Sequence[str]) -> list[MemoryEntry]:
        return self._reader.reading(self._reader.several, list(filter(can_be_looked_up, ids)))

    def select(self, query: MemoryQuery) -> list[MemoryEntry]:
        def answer(session: Session) -> list[MemoryEntry]:
            try:
                if decides(query):
                    return self._reader.entries(session, self._reader.rows(session, query, select))
                return self._reader.entries(session, list(self._reader.matching(session, query, self._reader.now())))
            except ErasedError:  # `sift` looks names up again, while its statement holds one state of the store
                pass
            return list(self._reader.sift(session, query, self._reader.now()))

        return self._lender.read(answer)

    def count(self, query: MemoryQuery) -> int:
        if not decides(query):
            return self._lender.read(
                lambda session: sum(1 for _ in self._reader.matching(session, query, self._reader.now()))
            )
        rows = self._lender.read(lambda session: self._reader.rows(session, query, count))
        return int(rows[0][0]) if rows else 0

    def explain(self, query: MemoryQuery, *, counting: bool = False) -> Explanation:
        def answer(session: Session) -> Explanation:
            return self._reader.explain(session, query, self._reader.now(), counting=counting)

        return self._lender.read(Session.at_one_moment, answer)

    def iterate(self, query: MemoryQuery) -> Iterator[MemoryEntry]:
        if self._lender.in_transaction():  # only its own connection sees its changes
            yield from self.select(query)
            return
        yield from self._lender.iterate(lambda session: self._reader.sift(session, query, self._reader.now()))

    def list_names(self, listing: Listing) -> dict[str, int]:
        return self._reader.reading(listings.names, self.namespace, listing, self._reader.now())

    def newest_of_key(self, key: str) -> MemoryEntry | None:
        return self._reader.one(NEWEST_OF_KEY, (), key)

    def last_written(self, category: str, key: str) -> MemoryEntry | None:
        return self._reader.one(LAST_WRITTEN, (category,), key)

    def size_of(self, entry: MemoryEntry) -> int:
        body, packed, *_ = encode_entry(entry, self._compression)
        return len(body) + len(packed or b"")

    def beyond(self, category: str, policy: CategoryPolicy) -> list[str]:
        return self._lender.read(bounds.beyond, self._reader, category, policy)

    def discard(self, entry_id: str) -> bool:
        return can_be_looked_up(entry_id) and self._write(entries.remove, entry_id)

    def clear(self) -> int:
        return self._write(entries.remove_all)

    # --- Transactional ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        with self._lender.transaction():
            yield

    def moment(self, now: datetime) -> datetime:
        session = self._lender.own_session()
        moment, instant, date = next_moment(now, session.clock.made)
        session.clock.made_at(instant, date)
        return moment

    def change(self, work: Callable[[], Result]) -> Result:
        return self._lender.change_as_one(work)

    # --- KeepsHistory ----------------------------------------------------------------------------

    def sign(self, signature: Signature) -> None:
        self._lender.own_session().sign(signature)

    def complete(self, now: datetime) -> None:
        session = self._lender.own_session()
        if session.clock.commit_number == session.clock.began:
            return
        self._lender.announce()
        instant = max(instant_of(now), self._reader.now())
        if instant > session.clock.made:
            self.moment(datetime_of(instant))

    def announce(self) -> None:
        self._lender.announce()

    def revisions(self, entry_id: str) -> list[Revision]:
        if not can_be_looked_up(entry_id):
            return []
        return self._reader.reading(history.revisions, self._reader, entry_id)

    def recreate(self, entry: MemoryEntry) -> None:
        self._write(entries.recreate, entry, encode_entry(entry, self._compression))

    def as_of(self, moment: datetime) -> Past:
        return PastView(self._reader, asked_as_of(moment))

    def prune(self, now: datetime, limit: int) -> int:
        instant = instant_of(now)
        with self._lender.changing() as session:
            return self._without_names(session, pruning.prune(session, instant, limit))

    # --- Expires ---------------------------------------------------------------------------------

    def purge_expired(self, limit: int) -> int:
        with self._lender.changing() as session:
            return self._without_names(session, expiry.purge(session, self._reader.now(), limit))

    # --- MendsDates ------------------------------------------------------------------------------

    def last_moment(self) -> datetime | None:
        """Return the last moment that was given to a change; None if there was none."""
        made = self._lender.read(lambda session: session.clock_seen().made)
        return datetime_of(made) if made else None

    def mend_dates(self, signature: Signature, entries: Callable[[str], Entries] | None = None) -> int:
        if self._lender.in_transaction():
            raise TransactionError("mend_dates() is for the outside of transactions: it makes one of its own")

        def mend() -> int:
            self.sign(signature)
            return mending.mend(self._lender.own_session(), entries or self.for_namespace, self._reader.now())

        with self._lender.transaction():
            self._lender.announce()
            return self._lender.change_as_one(mend)

    # --- FeedsChanges, WakesWatchers -------------------------------------------------------------

    def changes(self, after: int, limit: int) -> list[Change]:
        return self._changes(after, limit)

    def changes_since(self, cursor: str, limit: int) -> list[Change]:
        return self._changes(cursor, limit)

    def newest_cursor(self) -> str:
        return self._lender.read(feed.newest)

    def _changes(self, after: int | str, limit: int) -> list[Change]:
        return self._reader.reading(feed.read, self.namespace, after, limit)

    def first_position(self) -> int:
        return self._lender.read(lambda session: feed.first(session, 0))

    def last_position(self) -> int:
        return self._lender.read(
            lambda session: session.clock.began if session.depth else session.clock_seen().commit_number
        )

    def own_position(self) -> int:
        return self._lender.own_session().clock.commit_number

    def pulse(self) -> object:
        return self.last_position()

    # --- Namespaced ------------------------------------------------------------------------------

    def list_namespaces(self) -> list[str]:
        now = {"now": self._reader.now()}
        return sorted(name for (name,) in self._lender.read(lambda session: session.rows(listings.NAMESPACES, now)))

    # --- Transfers -------------------------------------------------------------------------------

    def all_namespaces(self) -> list[str]:
        return sorted(name for (name,) in self._lender.read(transferring.namespaces))

    def known_since(self) -> datetime | None:
        begins = self._lender.read(lambda session: session.clock_seen().begins)
        return None if begins is None else datetime_of(begins)

    def whole_memories(self, *, past: bool) -> Iterator[WholeMemory]:
        self._check_outside()
        for page in self._lender.iterate(lambda session: transferring.pages(session, self.namespace, past=past)):
            yield from page

    def load(self, several: Sequence[WholeMemory], since: datetime | None) -> None:
        packs = self._compression
        encoded = [
            (whole, [(step, step.stored or encode_entry(step.entry, packs)) for step in whole.steps(packs)])
            for whole in several
        ]
        instant = None if since is None else instant_of(since)
        try:
            self._lender.change(transferring.load, self.namespace, encoded, instant)
        finally:
            encoded.clear()  # the write and its commit keep each other, and this, until the garbage collector runs

    def tallies(
        self, namespaces: Sequence[str], now: int, most: int, looked_at: Callable[[int], object]
    ) -> Iterator[Tally]:
        self._check_outside()
        yield from self._lender.iterate(lambda session: analysing.tallies(session, namespaces, now, most, looked_at))

    # --- SearchesText ----------------------------------------------------------------------------

    def text_language(self) -> TextIndex:
        return searching.language(self._reader, self._text_index)

    def candidates(self, terms: Sequence[Term], query: MemoryQuery, most: int, *, respell: bool = False) -> Candidates:
        may_index = self._text_index != NO_INDEX
        return searching.candidates(self._reader, terms, query, most, respell=respell, may_index=may_index)

    def rebuild_index(self, language: TextIndex | None, progress: Progress | None) -> None:
        searching.rebuild(self._reader, language, progress)

    def index_findings(self, looked_at: Callable[[], object]) -> Iterator[str]:
        self._check_outside()
        for name in self.all_namespaces():
            yield from searching.findings(self.for_namespace(name)._reader, looked_at)

    def unindexed(self) -> Self:
        """Return a handle like this one that neither keeps nor uses the index of words."""
        sibling = self.bind()
        sibling._text_index = NO_INDEX
        return sibling

    # --- KeepsVectors ----------------------------------------------------------------------------

    def pending(self, model: str, after: int | None, most: int) -> list[MemoryEntry]:
        self._check_outside()
        return self._reader.reading(vectors.pending, self._reader, model, after, most)

    def count_vectors(self, model: str | None, most: int | None = None) -> int:
        return self._reader.reading(vectors.count, self._reader, model, most)

    def put_vectors(self, model: str, several: Sequence[StoredVector]) -> int:
        self._check_outside()
        return self._lender.change(vectors.put, self._reader, model, several)

    def vectors(
        self, model: str, since: VectorMark, most: int, *, whole: bool
    ) -> tuple[VectorMark, list[StoredVector]]:
        return self._reader.reading(vectors.after, self._reader, model, since, most, whole)

    def codes_of(self, model: str, changes: Sequence[int]) -> list[tuple[int, bytes]]:
        return self._reader.reading(vectors.codes_of, self._reader, model, changes)

    def entries_at(self, changes: Sequence[int]) -> list[MemoryEntry]:
        return self._reader.reading(vectors.entries_at, self._reader, changes)

    # --- Erases ----------------------------------------------------------------------------------

    def erase(self, which: str | MemoryQuery | None, judge: Judge | None = None) -> Erased:
        return self._lender.within(lambda session: erasing.erase(session, self._reader, which, judge))

    # --- inside ----------------------------------------------------------------------------------

    def _write(self, work: Work[*Args, Result], *args: *Args) -> Result:
        """Run `work` in a transaction, with session, the function `now`, namespace and `args`; return its result."""
        return self._lender.change(self._write_and_tidy, work, args)

    def _write_and_tidy(self, session: Session, work: Work[*Args, Result], args: tuple[*Args]) -> Result:
        before = session.clock.commit_number
        result = work(session, self._reader.now, self.namespace, *args)
        if session.clock.commit_number % PRUNED_EVERY == 0 and result is not False:
            if session.clock.commit_number - before < PRUNED_EVERY and self._text_index != NO_INDEX:
                indexing.keep_up(session, self._reader)
            expiry.release_names(session)
            if session.clock.commit_number - session.clock.began <= PRUNED_EVERY:  # else this transaction fills the log
                self._look_after(session)
            now = self._reader.now()
            if expiry.purge(session, now, expiry.AT_ONCE):
                pruning.prune(session, now, PRUNED_AT_ONCE)
        return result

    def _without_names(self, session: Session, removed: int) -> int:
        """Have the names that only removed states had removed, too; return how many states were."""
        if removed:
            session.clock.release_names()
            self._look_after(session)
        return removed

    def _check_outside(self) -> None:
        if self._lender.in_transaction():
            raise TransactionError("this verb is for the outside of transactions: end this one first")

    def _look_after(self, session: Session) -> None:
        """Maintain the store; called now and then, after a change in its transaction."""
