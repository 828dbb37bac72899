"""What a backend may do besides the eight verbs: its capabilities, each a Protocol.

A backend names those that it fulfils in `jarvis.storage_backend.StorageBackend.capabilities`; who needs one asks
`StorageBackend.capability` for it. Each may be there without the others, but `KeepsHistory`, `Settles`, `Expires` and
`Erases` are about what happens inside a transaction, so they need `Transactional`. The rules of each are numbered;
`jarvis.conformance` checks them. The examples run on a `jarvis.json_backend.JSONBackend`, or an `SQLiteBackend`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

from jarvis.keys import KeySource
from jarvis.model.change import Change
from jarvis.model.entry import MemoryEntry, MemoryQuery
from jarvis.model.erasure import Erased, Search
from jarvis.model.key_slot import SlotInfo
from jarvis.model.recompression import Progress, Recompression
from jarvis.model.revision import Revision, Signature
from jarvis.model.rewriting import RewriteProgress, Rewritten

Result = TypeVar("Result")


class Transactional(Protocol):
    """transactions: several changes kept all or not at all, atomic between threads and processes.

    1. All handles that `StorageBackend.bind` made of a store share one transaction for each thread and task.
    2. Only its owner reads what it changed before it ends. Other writers wait for it, up to the backend's timeout;
       readers do not wait.
    3. If the block raises anything, its changes are taken back and the exception goes on. Otherwise they are durable
       when the block ends.
    4. A transaction inside another one is a savepoint: an exception takes back the changes of the inner block.
    5. In a namespace `moment` gives no process a time that is not later than all that it gave before.
    6. `StorageBackend.shutdown` inside a transaction raises `TransactionError`.

    >>> import tempfile; from jarvis.json_backend import JSONBackend; from jarvis.model.entry import MemoryEntry
    >>> backend = JSONBackend(tempfile.mkdtemp() + "/memory.json")
    >>> try:
    ...     with backend.transaction():
    ...         backend.create(MemoryEntry("1", "notes", "it", {}))
    ...         raise LookupError
    ... except LookupError:
    ...     backend.list_all()
    []
    """

    def transaction(self) -> AbstractContextManager[None]:
        """Open a transaction for the calling thread, or a savepoint inside the one that it has.

        Raises:
            StoreBusyError: another writer was not done within the timeout; at the beginning of the block.
        """

    def moment(self, now: datetime) -> datetime:
        """Return the timestamp of a change made now: `now`, or one microsecond after the last moment if `now` is not
        later than that.

        Raises:
            TransactionError: no transaction is open in this thread.
        """


class SharesCommits(Protocol):
    """shared commits: changes that several threads make at once wait for the disk together.

    1. `change` keeps all that `work` changes, or, if `work` raises, nothing of it; the exception goes on.
    2. Outside a transaction the backend may call the `work` of several threads in one transaction, and wait for the
       disk once. What one of them raises takes back only its own changes, and only its own caller sees it.
    3. So `work` may be called in another thread, and a second time if a commit fails. It calls verbs of this backend
       and of handles bound from it, `Transactional.moment` among them, and nothing else.
    4. Inside a transaction of the caller `change` is ``with transaction(): return work()``.

    >>> import tempfile; from jarvis.sqlite_backend import SQLiteBackend; from jarvis.model.entry import MemoryEntry
    >>> backend = SQLiteBackend(tempfile.mkdtemp() + "/memory.db")
    >>> _ = backend.change(lambda: backend.create(MemoryEntry("1", "notes", "it", {})))
    >>> len(backend.list_all())
    1
    """

    def change(self, work: Callable[[], Result]) -> Result:
        """Return what `work` returns, when what it changed is durable."""


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

    1. The state is kept in the transaction of the change that ends it. A creation ends none.
    2. A change is made by whoever called `sign` last, in the block in which it is made. If nobody did, its operation is
       ``update``, ``delete`` or ``clear``, whichever it is, and its author is unknown.
    3. All changes of a transaction become visible at one moment: its last `Transactional.moment`.
    4. `as_of` answers by what was visible at a moment, or says that this is not known: it never guesses.
    5. The policy (`jarvis.model.options.HistoryPolicy`) says how much is kept. The oldest states go first. No more than
       its `max_revisions` are kept of an id, also of one that was deleted and given again.
    6. A state that a ``clear`` ended goes after all earlier states of its entry.

    >>> import tempfile; from jarvis.json_backend import JSONBackend; from jarvis.model.entry import MemoryEntry
    >>> from jarvis.model.revision import Signature
    >>> backend = JSONBackend(tempfile.mkdtemp() + "/memory.json")
    >>> backend.create(MemoryEntry("1", "notes", "it", {"n": 1}))
    >>> with backend.transaction():
    ...     backend.sign(Signature("update", module="editor"))
    ...     backend.update(MemoryEntry("1", "notes", "it", {"n": 2}))
    >>> [(each.version, each.module, each.entry.value) for each in backend.revisions("1")]
    [(1, 'editor', {'n': 1})]
    """

    def sign(self, signature: Signature) -> None:
        """Say who makes the changes that follow in this thread, up to the end of the block of `SharesCommits.change` or
        `Transactional.transaction` in which it is called.

        Raises:
            TransactionError: no transaction is open in this thread.
        """

    def complete(self, now: datetime) -> None:
        """Give a last `Transactional.moment` for `now`; no-op if nothing was changed, or a later one was given."""

    def revisions(self, entry_id: str) -> list[Revision]:
        """Return the kept states of the entry that has or had this id, the newest first; empty if there is none."""

    def recreate(self, entry: MemoryEntry) -> None:
        """Store `entry`, which is absent, with the version after the last one that is known of its id.

        Raises:
            DuplicateEntryError: the id is taken.
        """

    def as_of(self, moment: datetime) -> Past:
        """Return the namespace as it was at `moment`; at or after the newest change, the present.

        Its verbs raise `jarvis.errors.HistoryUnavailableError` if the answer is not known (any more).

        Raises:
            InvalidQueryError: `moment` is no moment.
        """

    def prune(self, now: datetime, limit: int) -> int:
        """Remove at most `limit` states that are too old at `now` for the policy; return how many."""


class Settles(Protocol):
    """settled answers: what is asked as of a moment that has passed is always answered alike.

    1. A change gets its moment before it is visible: it is still to be written and synced.
    2. So a writer calls `announce` before it reads the clock for `Transactional.moment`.
    3. `Past` waits for a commit that was announced, before it answers as of a moment.

    >>> import tempfile; from datetime import UTC, datetime; from jarvis.json_backend import JSONBackend
    >>> backend = JSONBackend(tempfile.mkdtemp() + "/memory.json")
    >>> with backend.transaction():
    ...     backend.announce()
    ...     moment = backend.moment(datetime.now(UTC))
    """

    def announce(self) -> None:
        """Say that the transaction of this thread gets its moment from now on, and is visible at its end.

        `KeepsHistory.complete` calls it by itself. No-op in a transaction inside another one.

        Raises:
            TransactionError: no transaction is open in this thread.
        """


class Expires(Protocol):
    """expiry: an entry is absent from the instant `MemoryEntry.expires_at` on, whether or not it was purged.

    1. The time is that of the clock that the handle was bound to (`StorageBackend.bind`), or else the system's. It is
       read at each call.
    2. From that instant on every verb answers as if the entry had never been. `update` raises `EntryNotFoundError`.
       `create` with its id makes a new entry of version 1.
    3. Its past goes with it: `KeepsHistory.revisions` is empty.
    4. If it was deleted or cleared before, its past goes when the `expires_at` of the last state has passed.
    5. As of a moment at which it was there, a question that might find it raises `HistoryUnavailableError`: one for
       its id, or one whose category, key, type and entity are not given or are its own. Other questions are answered.
    6. Purging changes no answer. Whoever writes purges some entries, with their past, from time to time. The feed still
       tells their changes, and has an event ``expire`` for each.

    >>> import tempfile; from datetime import UTC, datetime, timedelta; from jarvis.json_backend import JSONBackend
    >>> from jarvis.model.entry import MemoryEntry
    >>> now = datetime(2026, 3, 1, tzinfo=UTC)
    >>> backend = JSONBackend(tempfile.mkdtemp() + "/memory.json").bind(clock=lambda: now)
    >>> backend.create(MemoryEntry("1", "notes", "it", {}, expires_at=now + timedelta(seconds=1)))
    >>> now += timedelta(seconds=1)
    >>> backend.read("1"), backend.purge_expired(100), backend.purge_expired(100)
    (None, 1, 0)
    """

    def purge_expired(self, limit: int) -> int:
        """Remove at most `limit` entries that have expired, of any namespace, with their past; return how many."""


class Erases(Protocol):
    """erasure: nothing is left of what is erased in any file of the store.

    1. `erase` removes entries, their past, and whatever else names them, as a change of its transaction.
    2. In the feed one event ``erase``, which names nothing, takes the place of all that told of them.
    3. As of a moment before, a question is answered only if it is about an id that was known then and still is. Any
       other raises `HistoryUnavailableError`.
    4. `finish_erasing` removes the bytes from the files. It may have to wait for readers of an older state; the store
       remembers that, and the next writer or opening does it.

    >>> import tempfile; from jarvis.json_backend import JSONBackend; from jarvis.model.entry import MemoryEntry
    >>> backend = JSONBackend(tempfile.mkdtemp() + "/memory.json")
    >>> backend.create(MemoryEntry("1", "notes", "it", {}))
    >>> with backend.transaction():
    ...     backend.erase("1").ids
    ('1',)
    >>> backend.finish_erasing(["1"]).found
    0
    """

    def erase(self, which: str | MemoryQuery | None) -> Erased:
        """Remove memories of the namespace and all that names them; return what was removed.

        Args:
            which: an id; or what the memories match, now or in a state that is kept of them, deleted and expired
                ones too; or None for all. `limit` and `after` of a query do not count.

        Raises:
            TransactionError: no transaction is open in this thread.
        """

    def finish_erasing(self, ids: Collection[str]) -> Search | None:
        """Clean the files of the store, and search every byte of them for `ids`; None if that has to wait.

        Compressed values are searched, too. Ids shorter than 16 bytes are not searched for:
        they may stand anywhere.
        """


class BacksUp(Protocol):
    """backups: a consistent copy of the store, made while it is in use.

    1. The copy holds the store as it was at one moment between two commits. Writers go on meanwhile.
    2. It is durable before the call returns. It is a store: a backend opens it where it is.
    3. The copy of an encrypted store is encrypted, and its file of keys stands beside it.

    >>> import tempfile; from pathlib import Path; from jarvis.json_backend import JSONBackend
    >>> JSONBackend(tempfile.mkdtemp() + "/memory.json").back_up(Path(tempfile.mkdtemp()) / "new").name
    'memory.json'
    """

    def back_up(self, directory: Path) -> Path:
        """Write the store into `directory`, which is made if it is absent; return the path of the copy.

        Raises:
            StoreAccessError: the directory holds such a file already.
        """


class Encrypts(Protocol):
    """encryption: the files of the store hold nothing in the clear, and the keys that open it may be changed.

    1. The store has one data key. Each slot holds that key, sealed with the secret of one source.
    2. Adding and removing a slot writes only the file of keys.
    3. `encrypt`, `decrypt` and `rotate` rewrite the store while others read and write. Their `progress` is called again
       and again, outside of transactions; what it raises breaks the work off, and the next call does the rest.
    4. After each of them no file of ours holds bytes of the former form.

    >>> import tempfile; from jarvis.sqlite_backend import SQLiteBackend
    >>> backend = SQLiteBackend(tempfile.mkdtemp() + "/memory.db")
    >>> backend.bootstrap()
    >>> backend.key_slots()
    []
    """

    def key_slots(self) -> list[SlotInfo]:
        """Return the slots of the store, none if it is plain."""

    def add_key_slot(self, source: KeySource) -> int:
        """Let one more source open the store; return the number of its slot.

        Raises:
            KeyUnavailableError: the source has no secret to give.
            NotEncryptedError: the store is plain.
        """

    def remove_key_slot(self, slot_id: int) -> None:
        """Let a slot open the store no longer.

        Raises:
            InvalidSettingError: there is no such slot, or it is the last one.
            NotEncryptedError: the store is plain.
        """

    def encrypt(
        self, sources: Sequence[KeySource], progress: Callable[[RewriteProgress], None] | None
    ) -> Rewritten | None:
        """Encrypt the plain store, with a slot for each source; return what was done.

        None if that was only to end an encryption that was broken off, or to call off another change.

        Raises:
            InvalidSettingError: it is encrypted.
            KeyUnavailableError: a source has no secret to give, or there is none.
            StoreBusyError: somebody else rewrites the store, or reads an older state for too long; call it again.
        """

    def decrypt(self, progress: Callable[[RewriteProgress], None] | None) -> Rewritten | None:
        """Make the encrypted store plain; return as `encrypt` does.

        Raises:
            NotEncryptedError: it is plain.
            InvalidSettingError: encryption is required by this handle.
            StoreBusyError: as for `encrypt`.
        """

    def rotate(self, sources: Sequence[KeySource], progress: Callable[[RewriteProgress], None] | None) -> Rewritten:
        """Give the encrypted store a new data key; return what was done.

        Args:
            sources: of slots, besides those that the backend has.
            progress: see rule 3.

        Raises:
            NotEncryptedError: it is plain.
            WrongKeyError, KeyUnavailableError: the source of a slot is not at hand.
            StoreBusyError: as for `encrypt`.
        """


class Compresses(Protocol):
    """compression: large values are stored compressed, as a setting of the backend has it, and read however stored.

    1. The setting says how values are written from now on. Any value is read, however it was written.
    2. `recompress` writes every value of the store as the setting has it: of all namespaces, and of all kept states.
    3. That is no change: versions, timestamps, history, feed and commit numbers stay.
    4. It works in small steps beside other writers. What was done stays, if it is ended; the next call does the rest.

    >>> import tempfile; from jarvis.sqlite_backend import SQLiteBackend
    >>> SQLiteBackend(tempfile.mkdtemp() + "/memory.db", compression="max").recompress(None).entries
    0
    """

    def recompress(self, progress: Progress | None) -> Recompression:
        """Store every value of the store as the setting has it; return what that came to.

        Args:
            progress: is called after each step, outside of transactions; what it raises ends the whole.

        Raises:
            TransactionError: a transaction is open in this thread.
        """


class MendsDates(Protocol):
    """mendable dates: what is dated ahead of the clock, because it once was ahead, can be dated anew.

    1. After `mend_dates` no change of the store, in any namespace, is dated later than now, but for entries whose
       timestamp a caller gave.
    2. Each entry that gets another date is updated, all of them in one transaction, by `signature`.
    3. Past states and the feed get new dates where they are. They keep their order and, where there is room, the time
       between them. Commit numbers, versions and cursors stay.
    4. As of a moment before, the past is not known any more.

    >>> import tempfile; from jarvis.json_backend import JSONBackend; from jarvis.model.revision import Signature
    >>> backend = JSONBackend(tempfile.mkdtemp() + "/memory.json")
    >>> backend.last_moment(), backend.mend_dates(Signature("update"))
    (None, 0)
    """

    def last_moment(self) -> datetime | None:
        """Return the last moment that a change of the store was given; None if there was none."""

    def mend_dates(self, signature: Signature) -> int:
        """Let no change be dated later than now; return how many entries changed, 0 if none was.

        Raises:
            TransactionError: a transaction is open in this thread.
        """


class FeedsChanges(Protocol):
    """a change feed: what happened, in the order of commits, across processes.

    1. Every change of an entry has a number, which grows with each change of the store.
    2. `changes` tells the changes of the namespace in the order of their numbers, each once.
    3. Inside a transaction it tells what was committed before: a number that is taken back may be given again.
    4. A number below `first_position` or above `last_position` raises `CursorExpiredError`.

    >>> import tempfile; from jarvis.json_backend import JSONBackend; from jarvis.model.entry import MemoryEntry
    >>> backend = JSONBackend(tempfile.mkdtemp() + "/memory.json")
    >>> backend.create(MemoryEntry("1", "notes", "it", {}))
    >>> backend.delete("1")
    >>> [change.operation for change in backend.changes(backend.first_position(), 100)]
    ['create', 'delete']
    """

    def changes(self, after: int, limit: int) -> list[Change]:
        """Return the first `limit` changes of the namespace whose numbers are greater than `after`.

        Raises:
            CursorExpiredError: some of them are not known any more.
        """

    def first_position(self) -> int:
        """Return the smallest number that `changes` takes: all that happened after it is known.

        Raises:
            CursorExpiredError: nothing is known.
        """

    def last_position(self) -> int:
        """Return the number of the newest commit of the store."""


class MarksCursors(Protocol):
    """cursors that name their store: a cursor of before a restore is refused, and not taken for one of after it.

    1. The store has a generation, a random number (`jarvis.model.change.new_generation`).
    2. A copy that `BacksUp.back_up` made gets another generation when it is first opened for writing.
    3. `Change.cursor` is made by `jarvis.model.change.cursor_of`, and read by `jarvis.model.change.position_in`.

    >>> import tempfile; from jarvis.json_backend import JSONBackend; from jarvis.model.entry import MemoryEntry
    >>> backend = JSONBackend(tempfile.mkdtemp() + "/memory.json")
    >>> backend.bootstrap()
    >>> cursor = backend.newest_cursor()
    >>> backend.create(MemoryEntry("1", "notes", "it", {}))
    >>> [change.memory_id for change in backend.changes_since(cursor, 100)]
    ['1']
    """

    def changes_since(self, cursor: str, limit: int) -> list[Change]:
        """Return what `FeedsChanges.changes` does after `cursor`, which is checked against the same state of the store.

        Raises:
            CursorExpiredError: it is of another generation, or some of the changes are not known any more.
            InvalidQueryError: it is no cursor.
        """

    def newest_cursor(self) -> str:
        """Return the cursor of the newest commit of the store."""


class WakesWatchers(Protocol):
    """waking: it is cheap to notice that somebody has committed.

    1. `pulse` costs about 5 µs.
    2. Two of its answers are equal if nobody has committed in between, and differ if somebody has.

    >>> import tempfile; from jarvis.model.entry import MemoryEntry; from jarvis.sqlite_backend import SQLiteBackend
    >>> backend = SQLiteBackend(tempfile.mkdtemp() + "/memory.db")
    >>> before = backend.pulse()
    >>> backend.create(MemoryEntry("1", "notes", "it", {}))
    >>> backend.pulse() == before
    False
    """

    def pulse(self) -> object:
        """Return what stays equal as long as nobody commits."""


class Namespaced(Protocol):
    """namespaces: several memories in one store that never see each other.

    1. `StorageBackend.bind` takes any namespace that `jarvis.model.entry.check_namespace` takes, and returns a handle
       of the same class on the same store and connections. The handle it was called on stays as it is.
    2. Every verb reads and changes the namespace of its handle only. Ids are unique within a namespace.
    3. "Not there" and "in another namespace" answer alike.
    4. A transaction covers all handles of the store.

    >>> import tempfile; from jarvis.json_backend import JSONBackend; from jarvis.model.entry import MemoryEntry
    >>> backend = JSONBackend(tempfile.mkdtemp() + "/memory.json")
    >>> backend.bind(namespace="alice").create(MemoryEntry("1", "notes", "it", {}))
    >>> backend.read("1"), backend.list_namespaces()
    (None, ['alice'])
    """

    namespace: str

    def list_namespaces(self) -> list[str]:
        """Return the names of the namespaces that hold an entry, sorted."""


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
