"""The capabilities that a backend may have besides the eight verbs, each a Protocol.

A backend names those that it fulfils in `jarvis.storage_backend.StorageBackend.capabilities`; callers ask for one with
`StorageBackend.capability`. A backend may have any of them without the others, but `KeepsHistory`, `Settles`, `Expires`
and `Erases` work inside transactions, so they need `Transactional`. The rules of each are numbered;
`jarvis.conformance` tests them. The examples run on a `jarvis.json_backend.JSONBackend`, or an `SQLiteBackend`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from jarvis.model.change import Change
from jarvis.model.entry import MemoryEntry
from jarvis.model.erasure import Erased, Judge, Look, Search
from jarvis.model.explanation import Explanation
from jarvis.model.key_place import SlotInfo
from jarvis.model.mending import Entries
from jarvis.model.options import KeySource, TextIndex
from jarvis.model.portable import WholeMemory
from jarvis.model.query import MemoryQuery
from jarvis.model.revision import Revision, Signature
from jarvis.model.rewriting import Progress, Recompression, RewriteProgress, Rewritten
from jarvis.model.salvaged import Salvaged
from jarvis.model.vectors import StoredVector, VectorMark
from jarvis.model.words import Candidates, Term

if TYPE_CHECKING:  # only what counts a whole store needs it
    from jarvis.model.analytics import Sizes
    from jarvis.model.tally import Tally

Result = TypeVar("Result")


class Transactional(Protocol):
    """transactions: several changes kept all or not at all, atomic between threads and processes.

    1. All handles that `StorageBackend.bind` made of a store share one transaction for each thread and task.
    2. Only the owner of a transaction sees its changes before it ends. Other writers wait for it, up to the backend's
       timeout; readers do not wait.
    3. If the block raises anything, its changes are rolled back and the exception propagates. Otherwise they are
       durable when the block ends.
    4. A transaction inside another one is a savepoint: an exception rolls back the changes of the inner block.
    5. In a namespace each `moment` is later than all earlier ones, in all processes.
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
        """Open a transaction for the calling thread, or a savepoint inside its open one.

        Raises:
            StoreBusyError: another writer did not end within the timeout; raised at the beginning of the block.
        """

    def moment(self, now: datetime) -> datetime:
        """Return the timestamp of a change made now: `now`, or one microsecond after the last moment if `now` is not
        later than that.

        Raises:
            TransactionError: no transaction is open in this thread.
        """


class SharesCommits(Protocol):
    """shared commits: changes that several threads make at once wait for the disk together.

    1. `change` keeps all changes of `work`, or none if `work` raises; the exception propagates.
    2. Outside a transaction the backend may call the `work` of several threads in one transaction, and wait for the
       disk once. An exception of one `work` rolls back only its own changes, and only its own caller sees it.
    3. So `work` may be called in another thread, and a second time if a commit fails. It calls only verbs of this
       backend and of handles bound from it, `Transactional.moment` among them.
    4. Inside a transaction of the caller `change` just calls `work`, without a savepoint. If `work` raises after it
       changed something, the block around it cannot be kept: its next verb, and its end, raise `TransactionError`.

    >>> import tempfile; from jarvis.sqlite_backend import SQLiteBackend; from jarvis.model.entry import MemoryEntry
    >>> backend = SQLiteBackend(tempfile.mkdtemp() + "/memory.db")
    >>> _ = backend.change(lambda: backend.create(MemoryEntry("1", "notes", "it", {})))
    >>> len(backend.list_all())
    1
    """

    def change(self, work: Callable[[], Result]) -> Result:
        """Return the result of `work` when its changes are durable."""


class Past(Protocol):
    """A namespace as of a moment: the reading verbs of `StorageBackend`, answering as they did then."""

    def read(self, entry_id: str) -> MemoryEntry | None:
        """Return the entry that had this id, or None."""

    def newest_of_key(self, key: str) -> MemoryEntry | None:
        """Return the newest entry with this key, or None."""

    def select(self, query: MemoryQuery) -> list[MemoryEntry]:
        """Return the first `query.limit` entries that matched `query`, newest first."""

    def count(self, query: MemoryQuery) -> int:
        """Return ``len(self.select(query))``."""

    def explain(self, query: MemoryQuery, *, counting: bool = False) -> Explanation:
        """Answer a query as `select` or `count` does; return how it was answered."""

    def iterate(self, query: MemoryQuery) -> Iterator[MemoryEntry]:
        """Yield the entries that `select` returns."""


class KeepsHistory(Protocol):
    """history: every state that an update or a deletion ends is kept, with who ended it and when.

    1. The state is kept in the transaction of the change that ends it. A creation ends none.
    2. A change has the signature of the last call of `sign` in its block. Without one its operation is ``update``,
       ``delete`` or ``clear``, as it happened, and its author is unknown.
    3. All changes of a transaction become visible at one moment: its last `Transactional.moment`.
    4. `as_of` answers with the states that were visible then, or says that it cannot: it never guesses.
    5. The policy (`jarvis.model.policies.HistoryPolicy`) says how much is kept. The oldest states are removed first. At
       most `max_revisions` states of an id are kept, even if it was deleted and given again.
    6. A state that a ``clear`` ended is removed after all earlier states of its entry.

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
        """Sign the changes that follow in this thread, up to the end of the block of `SharesCommits.change` or
        `Transactional.transaction` in which it is called.

        Raises:
            TransactionError: no transaction is open in this thread.
        """

    def complete(self, now: datetime) -> None:
        """Give the transaction a last `Transactional.moment`, for `now`; no-op without changes or with a later one."""

    def revisions(self, entry_id: str) -> list[Revision]:
        """Return the kept past states of the entry that has or had this id, newest first; empty if there are none."""

    def recreate(self, entry: MemoryEntry) -> None:
        """Store `entry`, which is absent, with the version after the last known one of its id.

        Raises:
            DuplicateEntryError: the id is taken.
        """

    def as_of(self, moment: datetime) -> Past:
        """Return the namespace as of `moment`; at or after the newest change, the present.

        Its verbs raise `jarvis.errors.HistoryUnavailableError` if the answer is not known (any more).

        Raises:
            InvalidQueryError: `moment` is no datetime.
        """

    def prune(self, now: datetime, limit: int) -> int:
        """Remove at most `limit` states that are too old at `now` for the policy; return how many."""


class Settles(Protocol):
    """settled answers: a question as of a moment that has passed always has the same answer.

    1. A change gets its moment before it is visible: it must still be written and synced.
    2. So a writer calls `announce` before it reads the clock for `Transactional.moment`.
    3. `Past` waits for an announced commit before it answers.

    >>> import tempfile; from datetime import UTC, datetime; from jarvis.json_backend import JSONBackend
    >>> backend = JSONBackend(tempfile.mkdtemp() + "/memory.json")
    >>> with backend.transaction():
    ...     backend.announce()
    ...     moment = backend.moment(datetime.now(UTC))
    """

    def announce(self) -> None:
        """Say that the transaction of this thread is about to get its moment, and is visible at its end.

        `KeepsHistory.complete` calls this. No-op in a transaction inside another one.

        Raises:
            TransactionError: no transaction is open in this thread.
        """


class Expires(Protocol):
    """expiry: an entry is absent from the instant `MemoryEntry.expires_at` on, whether or not it was purged.

    1. Each call reads the clock to which the handle was bound (`StorageBackend.bind`), or else the system's.
    2. From that instant on every verb answers as if the entry had never existed. `update` raises `EntryNotFoundError`.
       `create` with its id makes a new entry of version 1.
    3. The past of the entry is absent too: `KeepsHistory.revisions` is empty.
    4. If the entry was deleted or cleared earlier, its past is absent once `expires_at` of the last state has passed.
    5. As of a moment at which the entry existed, a question that might find it raises `HistoryUnavailableError`: one
       for its id, or one whose category, key, type and entity are not given or are its own. Others are answered.
    6. A purge changes no answer. Writers purge some entries, with their past, from time to time. The feed keeps their
       changes, and has an event ``expire`` for each.

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
    """erasure: erased data is gone from every file of the store.

    1. `erase` removes entries, their past, and every row that names them, as a change of its transaction.
    2. In the feed one event ``erase``, which names nothing, takes the place of all their events.
    3. As of an earlier moment, only a question for an id that was known then and still is gets an answer. Any other
       raises `HistoryUnavailableError`.
    4. `finish_erasing` removes the bytes from the files. It may have to wait for readers of an older state; the store
       notes that, and the next writer or opening finishes it.

    >>> import tempfile; from jarvis.json_backend import JSONBackend; from jarvis.model.entry import MemoryEntry
    >>> backend = JSONBackend(tempfile.mkdtemp() + "/memory.json")
    >>> backend.create(MemoryEntry("1", "notes", "it", {}))
    >>> with backend.transaction():
    ...     backend.erase("1").ids
    ('1',)
    >>> backend.finish_erasing(["1"]).found
    0
    """

    def erase(self, which: str | MemoryQuery | None, judge: Judge | None = None) -> Erased:
        """Remove memories of the namespace and every row that names them; return ids and counts.

        Args:
            which: an id; or a query that matches the memories, deleted and expired ones too, in their present or a
                kept past state; or None for all. `limit` and `after` of a query are ignored.
            judge: decides which of the states match that the query matches; for a wrapper that knows more of them. It
                may change the entry that it gets. A memory of which no state is stored then only matches a query if
                it has no state.

        Raises:
            TransactionError: no transaction is open in this thread.
        """

    def finish_erasing(self, ids: Collection[str], look: Look | None = None) -> Search | None:
        """Remove erased data from the files, and search every byte of them for `ids`; None if that has to wait.

        Compressed values are searched too. Ids shorter than 16 bytes are not searched for: they may occur anywhere.

        Args:
            ids: to search for.
            look: returns how often it finds something in all states of the namespace, which is added to what was
                found; for a wrapper that stores them in a form of its own.
        """


class BacksUp(Protocol):
    """backups: a consistent copy of the store, made while it is in use.

    1. The copy has the state of the store at one moment between two commits. Writers continue meanwhile.
    2. The copy is durable before the call returns. It is a store: a backend opens it where it is.
    3. The copy of an encrypted store is encrypted, and its file of keys lies beside it.

    >>> import tempfile; from pathlib import Path; from jarvis.json_backend import JSONBackend
    >>> JSONBackend(tempfile.mkdtemp() + "/memory.json").back_up(Path(tempfile.mkdtemp()) / "new").name
    'memory.json'
    """

    def back_up(self, directory: Path, progress: Progress | None = None) -> Path:
        """Write the store into `directory`, and create that if it is absent; return the path of the copy.

        `progress` is called with (done, total) now and then.

        Raises:
            StoreAccessError: the directory already has such a file.
        """


class Encrypts(Protocol):
    """encryption: the files of the store have no plain content, and the keys that open it can be changed.

    1. The store has one data key. Each slot has that key, sealed with the secret of one source.
    2. Adding or removing a slot writes only the file of keys.
    3. `encrypt`, `decrypt` and `rotate` rewrite the store while others read and write. They call `progress` again and
       again, outside of transactions; an exception of it interrupts the work, and the next call resumes it. On a
       server all is one transaction: others read meanwhile, and an exception takes all of it back.
    4. After each of them no file of the store has bytes of the former form.

    >>> import tempfile; from jarvis.sqlite_backend import SQLiteBackend
    >>> backend = SQLiteBackend(tempfile.mkdtemp() + "/memory.db")
    >>> backend.bootstrap()
    >>> backend.key_slots()
    []
    """

    def key_slots(self) -> list[SlotInfo]:
        """Return the slots of the store, none if it is plain."""

    def add_key_slot(self, source: KeySource) -> int:
        """Add a slot so that one more source opens the store; return the number of the slot.

        Raises:
            KeyUnavailableError: the source has no secret to give.
            NotEncryptedError: the store is plain.
        """

    def remove_key_slot(self, slot_id: int) -> None:
        """Remove a slot, so that its source no longer opens the store.

        Raises:
            InvalidSettingError: there is no such slot, or it is the last one.
            NotEncryptedError: the store is plain.
        """

    def encrypt(
        self, sources: Sequence[KeySource], progress: Callable[[RewriteProgress], None] | None
    ) -> Rewritten | None:
        """Encrypt the plain store, with a slot for each source; return a report.

        None if this only ended an interrupted encryption, or called off another change.

        Raises:
            InvalidSettingError: the store is encrypted.
            KeyUnavailableError: there is no source, or one has no secret to give.
            StoreBusyError: somebody else rewrites the store, or reads an older state for too long; call again.
        """

    def decrypt(self, progress: Callable[[RewriteProgress], None] | None) -> Rewritten | None:
        """Make the encrypted store plain; return as `encrypt` does.

        Raises:
            NotEncryptedError: the store is plain.
            InvalidSettingError: this handle requires encryption.
            StoreBusyError: as for `encrypt`.
        """

    def rotate(self, sources: Sequence[KeySource], progress: Callable[[RewriteProgress], None] | None) -> Rewritten:
        """Give the encrypted store a new data key; return a report.

        Args:
            sources: the sources of slots that the backend does not have itself.
            progress: see rule 3.

        Raises:
            NotEncryptedError: the store is plain.
            WrongKeyError, KeyUnavailableError: the source of a slot is missing.
            StoreBusyError: as for `encrypt`.
        """


class Compresses(Protocol):
    """compression: large values are stored compressed, as a setting of the backend says, and can always be read.

    1. The setting says how values are written from now on. Values with any compression can be read.
    2. `recompress` writes every value of the store again with the setting: of all namespaces, and all kept states.
    3. That changes no entry: versions, timestamps, history, feed and commit numbers stay.
    4. It works in small steps beside other writers. Finished steps stay if it is interrupted; the next call does the
       rest.

    >>> import tempfile; from jarvis.sqlite_backend import SQLiteBackend
    >>> SQLiteBackend(tempfile.mkdtemp() + "/memory.db", compression="max").recompress(None).entries
    0
    """

    def recompress(self, progress: Progress | None) -> Recompression:
        """Store every value of the store again with the setting; return counts and sizes.

        Args:
            progress: called after each step, outside of transactions; an exception of it ends the work.

        Raises:
            TransactionError: a transaction is open in this thread.
        """


class Slides(Protocol):
    """expiry that slides: a reader lets an entry expire later, without a change.

    1. `slide` changes nothing but the expiry of an entry. That is no change: no version, no commit number, no past
       state and no event tells of it. Questions as of a moment are answered as before.
    2. It never waits: if another writer is writing, or the handle is read-only, it does nothing.
    3. An entry that has expired stays expired, and no expiry gets earlier.
    4. It need not be durable: a power cut may take the expiry back to the one before.
    5. Inside a transaction of the caller it is a part of that.

    >>> import tempfile; from datetime import UTC, datetime; from jarvis.json_backend import JSONBackend
    >>> from jarvis.model.entry import MemoryEntry
    >>> backend = JSONBackend(tempfile.mkdtemp() + "/memory.json")
    >>> backend.create(MemoryEntry("1", "notes", "it", {}, expires_at=datetime(2100, 1, 1, tzinfo=UTC)))
    >>> backend.slide("1", datetime(2101, 1, 1, tzinfo=UTC))
    True
    >>> backend.read("1").expires_at.year, backend.read("1").version
    (2101, 1)
    """

    def slide(self, entry_id: str, expires_at: datetime) -> bool:
        """Let the entry expire at this moment, an aware one; return whether that was done."""


class MendsDates(Protocol):
    """mendable dates: dates ahead of the clock, which a clock that was once ahead has given, can be corrected.

    1. After `mend_dates` no change of the store, in any namespace, is dated later than now, except entries whose
       timestamp a caller gave.
    2. Each entry that gets another date is updated with `signature`, all of them in one transaction.
    3. Past states and the feed get new dates in place. They keep their order and, where there is room, the time
       between them. Commit numbers, versions and cursors stay.
    4. As of an earlier moment the past is not known any more.

    >>> import tempfile; from jarvis.json_backend import JSONBackend; from jarvis.model.revision import Signature
    >>> backend = JSONBackend(tempfile.mkdtemp() + "/memory.json")
    >>> backend.last_moment(), backend.mend_dates(Signature("update"))
    (None, 0)
    """

    def last_moment(self) -> datetime | None:
        """Return the last moment that was given to a change of the store; None if there was none."""

    def mend_dates(self, signature: Signature, entries: Callable[[str], Entries] | None = None) -> int:
        """Date no change later than now; return how many entries changed.

        Args:
            signature: of the changes.
            entries: reads and updates the entries of the namespace with a name; for a wrapper that stores them in a
                form of its own. None: the backend itself does.

        Raises:
            TransactionError: a transaction is open in this thread.
        """


class FeedsChanges(Protocol):
    """a change feed: all changes, in the order of commits, across processes.

    1. Every change of an entry has a number, which grows with each change of the store.
    2. `changes` returns the changes of the namespace in the order of their numbers, each once.
    3. Inside a transaction it returns only earlier commits: a number that is rolled back may be given again.
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
            CursorExpiredError: some of these changes are not known any more.
        """

    def first_position(self) -> int:
        """Return the smallest number that `changes` takes: all changes after it are known.

        Raises:
            CursorExpiredError: no change is known.
        """

    def last_position(self) -> int:
        """Return the number of the newest commit of the store."""

    def own_position(self) -> int:
        """Return the number of the last change of the caller's transaction, which others do not see yet.

        Raises:
            TransactionError: no transaction is open in this thread.
        """


class MarksCursors(Protocol):
    """cursors that name their store: a cursor from before a restore is refused, not taken for one from after it.

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
        """Return changes as `FeedsChanges.changes` does, after `cursor`, which is checked against the same state.

        Raises:
            CursorExpiredError: the cursor is of another generation, or some of the changes are not known any more.
            InvalidQueryError: `cursor` is no cursor.
        """

    def newest_cursor(self) -> str:
        """Return the cursor of the newest commit of the store."""


class WakesWatchers(Protocol):
    """waking: it is cheap to notice that somebody has committed.

    1. `pulse` costs about 5 µs.
    2. Two of its results are equal if nobody has committed in between, and differ if somebody has.

    >>> import tempfile; from jarvis.model.entry import MemoryEntry; from jarvis.sqlite_backend import SQLiteBackend
    >>> backend = SQLiteBackend(tempfile.mkdtemp() + "/memory.db")
    >>> before = backend.pulse()
    >>> backend.create(MemoryEntry("1", "notes", "it", {}))
    >>> backend.pulse() == before
    False
    """

    def pulse(self) -> object:
        """Return a value that stays equal as long as nobody commits."""


class TellsVersion(Protocol):
    """versions: it is cheap to notice that an answer may have changed.

    1. Between two equal results the reading verbs of `StorageBackend` have one answer to each question.
    2. So a result differs from all earlier ones after a commit of anybody, in any process, that changes an answer, also
       one that takes no commit number, and after another store took the place of this one. It may differ without cause.
    3. In a backend that `Expires`, it differs when an entry of the store has expired, by the clock of the handle.
    4. Results of all handles that `StorageBackend.bind` made of a store can be compared. They hold nothing stored.
    5. Where the answers may not be those of the last commit, as inside a transaction of the caller, it is None.

    >>> import tempfile; from jarvis.json_backend import JSONBackend; from jarvis.model.entry import MemoryEntry
    >>> backend = JSONBackend(tempfile.mkdtemp() + "/memory.json")
    >>> before = backend.version()
    >>> backend.version() == before
    True
    >>> backend.create(MemoryEntry("1", "notes", "it", {}))
    >>> backend.version() == before
    False
    """

    def version(self) -> object:
        """Return a value that stays equal as long as every answer of this handle stays the same; or None."""


class Transfers(Protocol):
    """whole memories go out of the store and into another one, with id, version, dates, author, expiry and past.

    1. A memory is the same `WholeMemory` on every backend that keeps the same of it. Numbers of commits are not part
       of it.
    2. `whole_memories` yields every memory of the namespace once: those that are there and those that were removed,
       by the number of the last change of each; and last those of which only a gap is left. Expired ones that are not
       purged yet are among them: whoever shows them asks `WholeMemory.has_expired`. It sees one state of the
       namespace, whatever is written meanwhile.
    3. `load` stores memories in their order, all or none, as they are. It applies no policy but that a store which
       keeps no history keeps none of theirs.
    4. With a moment `since`, the store takes over the memories of another one: questions as of a moment find them from
       their own dates on. If the store had no past yet, its past is known from `since` on, and its feed begins after
       them. With None they are new here: known from now on, and told by the feed.

    >>> from jarvis.sqlite_backend import SQLiteBackend
    >>> from jarvis.storage_backend import MemoryEntry
    >>> import pathlib, tempfile
    >>> one, other = (SQLiteBackend(pathlib.Path(tempfile.mkdtemp()) / "memory.db") for _ in range(2))
    >>> one.create(MemoryEntry("1", "notes", "tea", {"likes": "mint"}))
    >>> other.load(list(one.whole_memories(past=True)), one.known_since())
    >>> other.read("1") == one.read("1")
    True
    """

    def all_namespaces(self) -> list[str]:
        """Return the names of all namespaces of the store that hold something, be it a past alone, sorted."""

    def known_since(self) -> datetime | None:
        """Return the moment from which the past of the namespace is known; None if it is not kept."""

    def whole_memories(self, *, past: bool) -> Iterator[WholeMemory]:
        """Yield the memories of the namespace; without their past, and without removed ones, if `past` is False.

        Raises:
            TransactionError: the caller has a transaction open.
        """

    def load(self, several: Sequence[WholeMemory], since: datetime | None) -> None:
        """Store memories.

        Args:
            several: no two of them have the same id.
            since: see rule 4.

        Raises:
            InvalidEntryError: a part of one cannot be stored, or its versions are out of order.
            DuplicateEntryError: an id is taken, or a memory with that id was removed and has a past here.
        """


class Verifies(Protocol):
    """verification: everything that is stored is read, and compared with all else that the store says of it.

    1. Structure, checksums, indexes, side tables, past and clock are compared, whatever the store did before.
    2. A finding names what is wrong, and nothing of the content. A sound store has none.
    3. `looked_at` is called for each state, present or past. Others may write meanwhile.

    >>> import tempfile; from jarvis.json_backend import JSONBackend
    >>> list(JSONBackend(tempfile.mkdtemp() + "/memory.json").findings(lambda: None))
    []
    """

    def findings(self, looked_at: Callable[[], object]) -> Iterator[str]:
        """Yield what is wrong with the store.

        Raises:
            TransactionError: the caller has a transaction open.
            StoreError: the store cannot be opened, such as a damaged one.
        """


class Salvages(Protocol):
    """repair: what is left of a damaged store is read, memory by memory.

    1. `salvage` works on a store that cannot be opened. It changes nothing, and takes no lock.
    2. It returns each memory that is as it was stored, as far as the store can tell, and none that was erased.
    3. `empty_at` makes a backend with the options of this one, for the new store.

    >>> import tempfile; from pathlib import Path; from jarvis.json_backend import JSONBackend
    >>> path = Path(tempfile.mkdtemp()) / "memory.json"
    >>> JSONBackend(path).bootstrap()
    >>> JSONBackend(path).salvage()
    Salvaged(total=0, memories=[], lost=[])
    """

    def salvage(self) -> Salvaged:
        """Return what is left of the store.

        Raises:
            StoreMissingError: there is no file.
            CorruptStoreError: it is no store, or nothing is left of one.
            KeyUnavailableError, WrongKeyError: it is encrypted, and no key opens it.
        """

    def empty_at(self, directory: Path) -> Any:
        """Return a backend of a store in another directory; nothing is opened or created."""


class KeepsVectors(Protocol):
    """vectors: a vector beside each memory, by which memories are found that mean what a question means.

    1. A vector is stored behind the write of its memory, in a transaction of its own, and only if the memory has not
       changed meanwhile. It goes with the state that it was made of, in the same transaction: when the memory is
       changed, deleted, cleared, purged or erased.
    2. A memory has one vector at most. It says by which model it was made.
    3. Namespaces never see each other's.
    4. Moves, backups and changes of keys keep them. Exports do not have them.
    """

    def pending(self, model: str, after: int | None, most: int) -> list[MemoryEntry]:
        """Return memories without a vector of this model, at most `most`, in the order of their last changes.

        Args:
            model: the name of the embedder.
            after: the commit number behind which they are; None: that of the last memory with a vector of the model, or
                0 if there are vectors of another model.
            most: how many are returned at most.

        Raises:
            TransactionError: the caller has a transaction open: a model may be slow.
        """

    def count_vectors(self, model: str | None, most: int | None = None) -> int:
        """Return how many vectors of this model, or of any, there are; with `most`, do not count any further."""

    def put_vectors(self, model: str, several: Sequence[StoredVector]) -> int:
        """Store vectors of memories that are still as they were; return how many were stored.

        One of another model is replaced; no-op for a memory that has one of this model.

        Raises:
            TransactionError: the caller has a transaction open.
        """

    def vectors(
        self, model: str, since: VectorMark, most: int, *, whole: bool
    ) -> tuple[VectorMark, list[StoredVector]]:
        """Return vectors of this model that were stored since a mark, at most `most`, and the mark behind them.

        If the store has another generation than the mark, they are from the beginning on. Without `whole` their codes
        are empty.
        """

    def codes_of(self, model: str, changes: Sequence[int]) -> list[tuple[int, bytes]]:
        """Return the codes of the vectors of states, by the commit number of each; of those that have one."""

    def entries_at(self, changes: Sequence[int]) -> list[MemoryEntry]:
        """Return the memories whose last changes have these commit numbers, in any order; not the expired ones."""


class SearchesText(Protocol):
    """text search: an index of words, by which memories are found without reading the others.

    1. `candidates` answers as `jarvis.text.candidates.choose` does with all memories of the namespace that have not
       expired: the counts are of all of them, and only those that match the query are candidates. One difference is
       allowed: of a word that more than 20,000 memories have, only the newest 20,000 need be looked at for candidates.
    2. A change is found by the next call, in any process, and inside its transaction by its owner. What was deleted,
       erased, or belongs to another namespace, is neither found nor counted.
    3. The words are those that the analyser of `text_language` makes: see `jarvis.text`.
    4. The index is made of the entries. It can be made again at any time, and no answer depends on when it was made.

    >>> import tempfile; from jarvis.sqlite_backend import SQLiteBackend
    >>> from jarvis.model.entry import MemoryEntry; from jarvis.model.query import MemoryQuery
    >>> from jarvis.model.words import Term
    >>> backend = SQLiteBackend(tempfile.mkdtemp() + "/memory.db")
    >>> backend.create(MemoryEntry("1", "facts", "move", {"text": "Maria moves to Lisbon"}))
    >>> found = backend.candidates([Term("lisbon"), Term("paris")], MemoryQuery(), 10)
    >>> [entry.id for entry in found.entries], found.counts, found.total
    (['1'], [1, 0], 1)
    """

    def text_language(self) -> TextIndex:
        """Return the language of the store's index; ``"off"`` if it has none, or this handle is not to use it.

        Raises:
            InvalidSettingError: this handle was opened with another language than the store has.
        """

    def candidates(self, terms: Sequence[Term], query: MemoryQuery, most: int, *, respell: bool = False) -> Candidates:
        """Return the entries that share the rarest words with a question, the best first, at most `most`.

        With `respell`, words that are alike stand in for those that no memory has.

        Raises:
            UnsupportedError: the store has no index.
        """

    def rebuild_index(self, language: TextIndex | None, progress: Progress | None) -> None:
        """Make the index of the whole store again, in small transactions beside other writers.

        Args:
            language: of the texts; None for the one that the index has, ``"off"`` to have none from here on.
            progress: is called with how much is done, and how much there is.

        Raises:
            TransactionError: the caller has a transaction open.
        """

    def index_findings(self, looked_at: Callable[[], object]) -> Iterator[str]:
        """Compare the index of the whole store with its memories; yield what is wrong, without content.

        `looked_at` is called for each memory. `Verifies.findings` only compares numbers.

        Raises:
            TransactionError: the caller has a transaction open.
        """


class Analyses(Protocol):
    """analytics where the memories are: counted without making an entry of each.

    1. The answer is that of `jarvis.services.analytics.count_each` for each namespace: a backend may be faster, never
       different.
    2. It takes memory for numbers of each memory, not for values.

    >>> import tempfile; from jarvis.model.entry import MemoryEntry; from jarvis.sqlite_backend import SQLiteBackend
    >>> backend = SQLiteBackend(tempfile.mkdtemp() + "/memory.db")
    >>> backend.create(MemoryEntry("1", "notes", "it", {}))
    >>> [tally.memories for tally in backend.tallies(["default"], 0, 20, lambda count: None)]
    [1]
    """

    def tallies(
        self, namespaces: Sequence[str], now: int, most: int, looked_at: Callable[[int], object]
    ) -> Iterator[Tally]:
        """Yield what is counted of each of some namespaces of the store, in any order.

        Args:
            namespaces: their names.
            now: the instant from which expiry is counted.
            most: how many memories and groups are told.
            looked_at: is called now and then with how many states were counted since the last call.

        Raises:
            TransactionError: the caller has a transaction open.
        """


class TellsSize(Protocol):
    """sizes: what the store takes on its disk.

    >>> import tempfile; from jarvis.json_backend import JSONBackend
    >>> backend = JSONBackend(tempfile.mkdtemp() + "/memory.json")
    >>> backend.bootstrap()
    >>> backend.sizes().store_bytes > 0
    True
    """

    def sizes(self) -> Sizes:
        """Return how many bytes the whole store takes, all namespaces together."""


class Namespaced(Protocol):
    """namespaces: several memories in one store that never see each other.

    1. `StorageBackend.bind` takes any namespace that `jarvis.model.entry.check_namespace` takes, and returns a handle
       of the same class on the same store and connections. The original handle stays as it is.
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
        """Return the names of the namespaces that have an entry, sorted."""


CAPABILITIES: tuple[type, ...] = (
    Transactional,
    SharesCommits,
    KeepsHistory,
    Settles,
    Expires,
    Slides,
    Erases,
    BacksUp,
    Encrypts,
    Compresses,
    MendsDates,
    FeedsChanges,
    MarksCursors,
    WakesWatchers,
    TellsVersion,
    Transfers,
    Verifies,
    Salvages,
    SearchesText,
    KeepsVectors,
    Analyses,
    TellsSize,
    Namespaced,
)
"""All capabilities."""
