"""What a backend may do besides the eight verbs: its capabilities, each a Protocol.

A backend names those it fulfils in `jarvis.storage_backend.StorageBackend.capabilities`, and is asked for one with
`StorageBackend.capability`. Each may be there without the others, but `KeepsHistory`, `Expires` and `Erases` are about
what happens inside a transaction, so they need `Transactional`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

from jarvis.encryption.envelope import SlotInfo
from jarvis.keys import KeySource
from jarvis.model.change import Change
from jarvis.model.entry import MemoryEntry, MemoryQuery
from jarvis.model.erasure import Erased, Search
from jarvis.model.recompression import Progress, Recompression
from jarvis.model.revision import Revision, Signature
from jarvis.model.rewriting import RewriteProgress, Rewritten

Result = TypeVar("Result")


class Transactional(Protocol):
    """transactions: several changes kept all or not at all, atomic between threads and processes."""

    def transaction(self) -> AbstractContextManager[None]:
        """Open a write transaction for the calling thread, or a savepoint inside the one it has.

        Leaving normally commits and makes the changes durable; leaving with any exception takes back
        all of them, of this block only. The calling thread reads its own changes; nobody else does.
        """

    def moment(self, now: datetime) -> datetime:
        """Return the timestamp of a change made now: `now` or, where that would not be later, one
        microsecond after the last one that this method gave for the namespace, in any process.

        Raises:
            TransactionError: no transaction is open in this thread.
        """


class SharesCommits(Protocol):
    """shared commits: changes that several threads make at once wait for the disk together."""

    def change(self, work: Callable[[], Result]) -> Result:
        """Return what `work` returns; what it changes is kept at the end, all of it or, if it raises, nothing.

        As in ``with transaction(): return work()``, but outside a transaction `work` may be called in
        another thread, beside what other threads change, and a second time if that commit fails. So it
        calls verbs of this backend and its siblings, `Transactional.moment` among them, and nothing else.
        What another thread's `work` raises is not noticed here.
        """


class Past(Protocol):
    """What a namespace held at a moment: the reading verbs of `StorageBackend`, answering as they did then."""

    def read(self, entry_id: str) -> MemoryEntry | None:
        """Return the entry that had this id, or None."""

    def newest_of_key(self, key: str) -> MemoryEntry | None:
        """Return the newest entry with this key, or None."""

    def select(self, query: MemoryQuery) -> list[MemoryEntry]:
        """Return the first `query.limit` entries that matched `query`, newest first."""

    def count(self, query: MemoryQuery) -> int:
        """Return ``len(self.select(query))``."""

    def iterate(self, query: MemoryQuery) -> Iterator[MemoryEntry]:
        """Yield what `select` returns."""


class KeepsHistory(Protocol):
    """history: every state that an update or a deletion ends is kept, with who ended it and when.

    It is kept inside the transaction of the change, as far as the store's policy has room for it.
    """

    def sign(self, signature: Signature) -> None:
        """Say who makes the changes that follow in this thread's transaction, up to the end of the
        block of `SharesCommits.change` or `transaction` it is called in.

        Raises:
            TransactionError: no transaction is open in this thread.
        """

    def complete(self, now: datetime) -> None:
        """Let the changes of this thread's transaction be visible from `now` on, as its last
        `Transactional.moment`; no-op if it changed nothing, or gave a later moment before.
        """

    def revisions(self, entry_id: str) -> list[Revision]:
        """Return the kept states of the entry that has or had this id, the newest first."""

    def recreate(self, entry: MemoryEntry) -> None:
        """Store `entry`, which is absent, as one version more than the last one that is known of its id.

        Raises:
            DuplicateEntryError: the id is taken.
        """

    def as_of(self, moment: datetime) -> Past:
        """Return the namespace as it was at `moment`; at or after the newest change that is the present.

        Its verbs raise `jarvis.errors.HistoryUnavailableError` if what they are asked is not known any more.

        Raises:
            InvalidQueryError: `moment` is no moment.
        """

    def prune(self, now: datetime, limit: int) -> int:
        """Remove at most `limit` states that the policy has no room for at `now`; return how many."""


class Settles(Protocol):
    """settled answers: what is asked as of a moment that has passed is always answered alike.

    A change is dated before it is visible: in between it is written and synced. Who asks as of a moment waits for the
    commit that is in flight, because the change may be dated by then.
    """

    def announce(self) -> None:
        """Say that the changes of this thread's transaction are dated from here on, and visible at its end.

        Call it before the clock is read for `Transactional.moment`. `KeepsHistory.complete` does so by itself. No-op in
        a transaction inside another one.

        Raises:
            TransactionError: no transaction is open in this thread.
        """


class Expires(Protocol):
    """expiry: an entry is absent from the instant `MemoryEntry.expires_at` on, whether or not it was purged.

    Absent for every verb, as if it had never been, and so is its past: nothing is known of its id, which may be
    given anew, and is not as of a moment either. What ended with a deletion, in a past state whose expiry has
    passed since, is gone likewise, with all states before.
    As of a moment at which an entry was there that has expired since, questions that might find it raise
    `jarvis.errors.HistoryUnavailableError`.
    """

    def purge_expired(self, limit: int) -> int:
        """Remove at most `limit` entries of the store that have expired, with their past; return how many.

        The feed goes on to tell of their changes, and of the purge of each.
        """


class Erases(Protocol):
    """erasure: nothing is left of what is erased in any file of the store.

    That is a removal in a transaction, and the cleaning of the files behind it, which may have to wait until nobody
    reads an older state. Until then the store knows that it is to be done: the next writer or opening does it.
    """

    def erase(self, which: str | MemoryQuery | None) -> Erased:
        """Remove memories of the namespace with their past, and whatever else names them, as this thread's change.

        In the feed one event ``erase`` takes the place of all that told of them, if anything was removed. As of a
        moment before, questions are answered only if they are about an id that is known; all others raise
        `jarvis.errors.HistoryUnavailableError`.

        Args:
            which: an id; or what the memories match, now or in a state that is kept of them, deleted and expired
                ones too; or None for all. Of a query `limit` and `after` do not count.

        Raises:
            TransactionError: no transaction is open in this thread.
        """

    def finish_erasing(self, ids: Collection[str]) -> Search | None:
        """Clean the files of the store, and search every byte of them for `ids`; None if that has to wait.

        What the store holds compressed is searched, too.

        Names shorter than `jarvis.model.erasure.SEARCHED_BYTES` are not searched for: they may stand anywhere.
        """


class BacksUp(Protocol):
    """backups: a consistent copy of the store, made while it is in use."""

    def back_up(self, directory: Path) -> Path:
        """Write the store as it is now into a directory, durably, with the keys that open it; return the copy's path.

        The directory is made if it is absent. Opened from there, the copy is a store.

        Raises:
            StoreAccessError: the directory holds such a file already.
        """


class Encrypts(Protocol):
    """encryption: the files of the store hold nothing in the clear, and the keys that open it may be changed."""

    def key_slots(self) -> list[SlotInfo]:
        """Return the ways to the store's key, none if the store is plain."""

    def add_key_slot(self, source: KeySource) -> int:
        """Let one more source open the store; return the number of its slot. Only the file of keys is written.

        Raises:
            KeyUnavailableError: the source has no secret to give.
            NotEncryptedError: the store is plain.
        """

    def remove_key_slot(self, slot_id: int) -> None:
        """Let a slot open the store no longer. Only the file of keys is written.

        Raises:
            InvalidSettingError: there is no such slot, or it is the last one.
            NotEncryptedError: the store is plain.
        """

    def encrypt(
        self, sources: Sequence[KeySource], progress: Callable[[RewriteProgress], None] | None
    ) -> Rewritten | None:
        """Encrypt the plain store while it is in use, with a slot for each source; return what was done.

        None if that was only to end an encryption that was broken off, or to call off another change.

        Raises:
            InvalidSettingError: it is encrypted.
            KeyUnavailableError: a source has no secret to give, or there is none.
            StoreBusyError: somebody else does such a thing, or reads an older state for too long; call it again.
        """

    def decrypt(self, progress: Callable[[RewriteProgress], None] | None) -> Rewritten | None:
        """Make the encrypted store plain while it is in use; return as `encrypt` does.

        Raises:
            NotEncryptedError: it is plain.
            InvalidSettingError: encryption is required by this handle.
            StoreBusyError: as for `encrypt`.
        """

    def rotate(self, sources: Sequence[KeySource], progress: Callable[[RewriteProgress], None] | None) -> Rewritten:
        """Give the encrypted store a new key while it is in use; return what was done.

        Args:
            sources: of slots, besides those that the backend has.
            progress: called again and again; what it raises breaks it off, and the next call goes on.

        Raises:
            NotEncryptedError: it is plain.
            WrongKeyError, KeyUnavailableError: the source of a slot is not at hand.
            StoreBusyError: as for `encrypt`.
        """


class Compresses(Protocol):
    """compression: large values are stored compressed, as a setting of the backend has it, and read however stored."""

    def recompress(self, progress: Progress | None) -> Recompression:
        """Store every value of the store, in all namespaces and of all states that are kept, as the setting has it.

        That is no change: versions, timestamps, history, feed and commit numbers stay. It is done in small steps
        beside other writers; if it is ended, what was done stays, and the next call does the rest.

        Args:
            progress: is called after each step, outside of transactions; what it raises ends the whole.

        Raises:
            TransactionError: a transaction is open in this thread.
        """


class MendsDates(Protocol):
    """mendable dates: what is dated ahead of the clock, because it once was ahead, can be dated anew."""

    def last_moment(self) -> datetime | None:
        """Return the last moment that a change of the store was given; None if there was none."""

    def mend_dates(self, signature: Signature) -> int:
        """Let no change of the store, in any namespace, be dated later than now; return how many entries changed.

        Those are updates, all in one transaction, made by `signature`. Past states, and what the feed tells, are
        dated anew as well: in the order of the changes, with the time between them where there is room. Numbers,
        versions and cursors stay; as of a moment the past is known from now on. No-op if no change is dated later.

        Raises:
            TransactionError: a transaction is open in this thread.
        """


class FeedsChanges(Protocol):
    """a change feed: what happened, in the order of commits, across processes."""

    def changes(self, after: int, limit: int) -> list[Change]:
        """Return the first `limit` changes of the namespace whose commit numbers are greater than `after`.

        Inside a transaction it tells what was committed before: a number that is taken back may be given again.

        Raises:
            CursorExpiredError: some of them are not known any more.
        """

    def first_position(self) -> int:
        """Return the smallest number that `changes` takes: all that happened behind it is known."""

    def last_position(self) -> int:
        """Return the number of the newest commit of the store."""


class MarksCursors(Protocol):
    """cursors that name their store: a cursor of before a restore is refused, and not taken for one of after it.

    The store has a generation, a number that is random; a copy that `BacksUp.back_up` made gets another one when it is
    first opened for writing. `Change.cursor` is made by `jarvis.model.change.cursor_of`.
    """

    def changes_since(self, cursor: str, limit: int) -> list[Change]:
        """Return what `FeedsChanges.changes` does, for a cursor that is checked against the same state of the store.

        Raises:
            CursorExpiredError: it is of another generation, or some of the changes are not known any more.
            InvalidQueryError: it is no cursor.
        """

    def newest_cursor(self) -> str:
        """Return the cursor of the newest commit of the store."""


class WakesWatchers(Protocol):
    """waking: it is cheap to notice that somebody has committed."""

    def pulse(self) -> object:
        """Return what stays equal as long as no other connection or process commits. About 5 µs."""


class Namespaced(Protocol):
    """namespaces: several memories in one store that never see each other."""

    namespace: str

    def list_namespaces(self) -> list[str]:
        """Return the names of the namespaces that hold an entry, sorted."""

    def erase_namespace(self, namespace: str) -> int:
        """Delete every entry of `namespace`, overwriting them; return how many there were."""


CAPABILITIES: tuple[type, ...] = (
    Transactional,
    SharesCommits,
    KeepsHistory,
    Settles,
    Expires,
    Erases,
    BacksUp,
    Encrypts,
    Compresses,
    MendsDates,
    FeedsChanges,
    MarksCursors,
    WakesWatchers,
    Namespaced,
)
"""All that there are."""
