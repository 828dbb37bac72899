"""The store of `jarvis.json_backend`: the state read from the file, and the transaction that rewrites it.

The truth is the file. A write takes the writers' lock, looks whether the file changed, writes a whole new file beside
the old one and renames it into place. A read takes no lock: it compares the file's `Stamp` with that of the state in
memory, which is never changed but replaced, in one assignment.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from jarvis._calls.caller import Gates, current_task, foreign_task, no_transaction
from jarvis._disk import files, location
from jarvis._disk.copies import place_for_copy, put_copy
from jarvis._disk.files import Stamp, explaining
from jarvis._disk.locks import WriterLock
from jarvis._json import remains
from jarvis._json.file import COPY, Clock, LastRead, parse, read_whole, render
from jarvis._json.room import Room
from jarvis._json.seen import Seen, Snapshot
from jarvis._json.transaction import Transaction
from jarvis.errors import (
    JarvisError,
    ReadOnlyStoreError,
    StoreAccessError,
    StoreBusyError,
    StoreError,
    StoreMissingError,
    StoreOutdatedError,
    TransactionError,
    torn_transaction,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from contextlib import AbstractContextManager
    from types import FrameType

    from jarvis.model.erasure import Search
    from jarvis.model.store_options import StoreOptions

_BEGINNING = Clock(0, None, None, 0)


class Store:
    """A file, the state last read from it, and the transaction that is open on it; siblings share one.

    It has no lock for the state: its stamp shows at the next use that an assignment was stale.
    """

    def __init__(self, file_path: Path, options: StoreOptions) -> None:
        self.file_path = file_path
        self._histories = options.histories
        self._read_only, self._sync = options.read_only, options.durability == "full"
        self._timeout, self._may_create = options.busy_timeout_seconds, options.create
        self._snapshot: Snapshot | None = None
        self._transactions: dict[tuple[int, int], Transaction] = {}  # by process and thread
        self._gates = Gates()
        self._locks: dict[str, WriterLock] = {}  # by file: a link may point elsewhere after a shutdown
        self._located = False
        self._synced: Stamp | None = None  # of a file that is known to be on the disk

    def seen(self) -> Seen:
        """Return the state that the caller sees; open the store if it is not open.

        A call that interrupts another call of the thread, or another task's transaction, sees the last commit.
        """
        if self._gates.here.is_closed() and self._snapshot is None:
            raise TransactionError(
                f"{self.file_path}: this call interrupts another one of its thread that is just opening the store, and "
                "cannot be answered; call again when that has returned"
            )
        transaction = self._open_one()
        if transaction is None or self._gates.here.is_closed() or transaction.task is not current_task():
            return self._committed()
        self._check_whole(transaction)
        return transaction

    def _open_one(self) -> Transaction | None:
        """Return the transaction that is open in the calling thread, or None."""
        transaction = self._transactions.get(_caller())
        if transaction is not None and not self._lock_of(transaction).is_mine():
            del self._transactions[transaction.owner]  # an exception from outside kept its end from running
            return None
        return transaction

    def own_transaction(self) -> Transaction:
        """Return the caller's transaction; raise `TransactionError` if it has none."""
        self._gates.here.check(self.file_path)
        transaction = self._open_one()
        if transaction is None:
            raise no_transaction(self.file_path)
        if transaction.task is not current_task():
            raise foreign_task(self.file_path)
        return transaction

    def _check_whole(self, transaction: Transaction) -> None:
        if transaction.is_torn:
            raise torn_transaction(self.file_path)

    def announce(self) -> None:
        """Say that the caller's transaction is about to end; the date of its changes is read after this."""
        transaction = self.own_transaction()
        if not transaction.depth:
            self._lock_of(transaction).announce()

    def await_commit(self) -> None:
        """Wait for the commit that is in flight now, if there is any and it is not the caller's own.

        Raises:
            StoreBusyError: it takes too long.
            TransactionError: the call that this one interrupts is just making it.
        """
        seen = self.seen()
        if isinstance(seen, Snapshot):
            self._lock_at(seen.path).await_commit(self._timeout)

    def changing(
        self, now: Callable[[], int], patience_seconds: float | None = None
    ) -> AbstractContextManager[Transaction]:
        """Open a transaction, or a savepoint in the open one; `now` returns the instant of now.

        No other call takes part in it: neither one that interrupts the calling function, nor one of another task.
        `patience_seconds`: how long to wait for other writers, if not as long as the store says.
        """
        return self._begun(now, sys._getframe(1), patience_seconds)

    def transaction(self, now: Callable[[], int]) -> AbstractContextManager[Transaction]:
        """Do as `changing` does, for a block in which the calling task calls other verbs, which take part in it."""
        return self._begun(now, None)

    @contextlib.contextmanager
    def _begun(
        self, now: Callable[[], int], call: FrameType | None, patience: float | None = None
    ) -> Iterator[Transaction]:
        if self._read_only:
            raise ReadOnlyStoreError(self.file_path, "is open read-only; open it with read_only=False to write")
        gate = self._gates.here
        gate.check(self.file_path)
        transaction = self._open_one()
        if transaction is not None:
            if transaction.task is not current_task():
                raise foreign_task(self.file_path)
            self._check_whole(transaction)
        closing = call or sys._getframe()
        try:
            gate.call = closing
            # No name for the block: an exception from outside before it begins must end it at once.
            with self._opened(now, patience) if transaction is None else _savepoint(transaction, call is None) as inner:
                try:
                    if call and transaction is None:
                        self._lock_of(inner).announce()
                    gate.call = call
                    yield inner
                finally:
                    gate.call = closing
        finally:
            gate.call = None
            del closing  # or the frame would keep itself and its variables alive until the garbage collector comes

    @contextlib.contextmanager
    def _opened(self, now: Callable[[], int], patience_seconds: float | None) -> Iterator[Transaction]:
        opened = self._committed()
        with self._locked(opened.path, patience_seconds):
            transaction = Transaction(self._refreshed(opened, locked=True), _caller(), self._histories)
            self._transactions[transaction.owner] = transaction
            try:
                yield transaction
                _check_leaving(transaction)
                self._check_whole(transaction)
                transaction.purge_some(now())
                if transaction.is_changed:
                    self._commit(transaction)
                elif transaction.found and self._sync and transaction.base.stamp != self._synced:
                    files.sync_file(opened.path)  # its writer may not have waited for the disk
                    files.sync_directory(os.path.dirname(opened.path))
                    self._synced = transaction.base.stamp
            finally:
                self._transactions.pop(transaction.owner, None)

    def finish_erasing(self, ids: Collection[str]) -> Search | None:
        """Remove the copies that an erasure left, and search all files for `ids`; return None if that has to wait."""
        if self._read_only:
            raise ReadOnlyStoreError(self.file_path, "is open read-only; open it with read_only=False to erase")
        self._gates.here.check(self.file_path)
        if self._open_one() is not None:
            return None
        try:
            self._gates.here.call = sys._getframe()
            opened = self._committed()
            with contextlib.suppress(StoreError), self._locked(opened.path):  # busy, or a file cannot be removed
                remains.remove_leftovers(opened.path)
                if self._refreshed(opened, locked=True).erasing:
                    remains.remove_kept_copies(opened.path)
                return remains.search(opened.path, ids)
            return None
        finally:
            self._gates.here.call = None

    def copy(self, target: Path) -> int:
        """Write the last commit to `target`, marked as a copy, and read it again before it gets that name.

        Return how many states it has.

        Raises:
            StoreError: the store cannot be read, the copy cannot be written, or differs from what was written.
        """
        with place_for_copy(target, (), self._timeout):
            return self._write_copy(str(target))

    def _write_copy(self, target: str) -> int:
        committed, temporary = self._committed(), files.temporary_path(target)
        data = _rendered(committed, msgspec.structs.replace(committed.clock, copied=COPY))
        with explaining(target, "write the backup"):
            try:
                files.write_whole(temporary, [data])
                written = files.read_regular(temporary)
                parse(target, written, LastRead({}, {}))
                if written != data:
                    raise StoreAccessError(target, "differs from what was written; nothing was kept, check the disk")
                put_copy(temporary, target)
                present = sum(len(room.records) for room in committed.rooms.values())
                return present + sum(len(archive.states) for archive in committed.archives.values())
            finally:
                with contextlib.suppress(OSError):
                    files.system.unlink(temporary)

    def shut_down(self) -> None:
        """Forget the state and close the lock's file.

        A transaction of another thread or task goes on, and so does a call that this one interrupts.

        Raises:
            TransactionError: the caller has a transaction open.
        """
        transaction = self._open_one()
        if transaction is not None and not self._gates.here.is_closed() and transaction.task is current_task():
            raise TransactionError(f"{self.file_path}: shutdown() inside a transaction; leave the transaction first")
        if self._gates.here.is_closed():
            self._snapshot = None
            return
        try:
            self._gates.here.call = sys._getframe()
            self._snapshot = None
            for lock in list(self._locks.values()):
                lock.close()
        finally:
            self._gates.here.call = None

    # --- inside ---

    def _committed(self) -> Snapshot:
        snapshot = self._snapshot
        if snapshot is not None:
            return self._refreshed(snapshot, locked=False)
        gate = self._gates.here
        call = gate.call
        try:
            gate.call = call or sys._getframe()
            return self._open()
        finally:
            gate.call = call

    def _open(self) -> Snapshot:
        with explaining(self.file_path, "find the store"):
            location.check_links(self.file_path)
        path = os.path.realpath(self.file_path)
        if not self._located:
            location.check_location(Path(path))
            location.warn_of_readers(path)
            self._located = True
        if self._read_only:
            return self._load(path, None, locked=False)
        if not (is_there := files.is_there(path)) and not self._may_create:
            raise files.absent(path)
        files.ensure_directory(Path(path).parent)
        if is_there:
            if self._sync:
                files.try_directory(os.path.dirname(path))
            if self._open_one() is not None:  # of another task of this thread, or of the interrupted call
                return self._load(path, None, locked=False)
            with contextlib.suppress(StoreBusyError), self._locked(path, 0):  # busy: the next opening tidies up
                remains.remove_leftovers(path)
                snapshot = self._load(path, None, locked=True)
                if snapshot.erasing:
                    _finish(path)
                return self._renewed(snapshot)
            return self._load(path, None, locked=False)  # readers wait for no writer
        with self._locked(path):
            remains.remove_leftovers(path)
            empty = render({}, {}, _BEGINNING.to_be_written(), [], erasing=False)
            files.write_whole(path, [empty], keep_existing=True, sync=self._sync)
            return self._load(path, None, locked=True)

    def _renewed(self, snapshot: Snapshot) -> Snapshot:
        """Write a copy again with a generation of its own; return the state. Needs the writers' lock."""
        if snapshot.clock.copied != COPY:
            return snapshot
        files.write_whole(snapshot.path, [_rendered(snapshot, snapshot.clock.to_be_written())], sync=self._sync)
        return self._load(snapshot.path, None, locked=True)

    def _refreshed(self, snapshot: Snapshot, *, locked: bool) -> Snapshot:
        """Return the state of the file now: `snapshot` if the file did not change, else a new one."""
        now = self._stamp_now(snapshot.path)
        if now == snapshot.stamp:
            return snapshot
        latest = self._snapshot
        if latest is not None and now == latest.stamp and latest.path == snapshot.path:
            return latest
        return self._load(snapshot.path, snapshot, locked=locked)

    def _stamp_now(self, path: str) -> Stamp:
        try:
            return Stamp.of(os.stat(path))
        except FileNotFoundError as error:
            raise StoreMissingError(
                path, "was removed while it was open; put it back, or call shutdown() to start with a new one"
            ) from error
        except OSError as error:
            raise files.translated(path, error, "read") from error

    def _load(self, path: str, last: Snapshot | None, *, locked: bool) -> Snapshot:
        data, stamp, descriptor = read_whole(path)
        try:
            rooms, archives = ({}, {}) if last is None else (last.rooms, last.archives)
            contents = parse(path, data, LastRead({name: room.records for name, room in rooms.items()}, archives))
        except BaseException:
            os.close(descriptor)
            raise
        read = {name: Room(records) for name, records in contents.namespaces.items()}
        snapshot = Snapshot(
            path, stamp, descriptor, read, contents.archives, contents.clock, contents.spans, contents.erasing
        )
        if contents.first_life:
            return self._migrated(snapshot, data, locked=locked)
        self._snapshot = snapshot
        return snapshot

    def _migrated(self, old: Snapshot, data: bytes, *, locked: bool) -> Snapshot:
        """Copy the first life's bytes to a file beside the store, rewrite the store, and return it as read back."""
        if self._read_only:
            raise StoreOutdatedError(old.path, "was written by an older version; open it once with read_only=False")
        if not locked:  # another process may be at it: look again under the lock
            with self._locked(old.path):
                return self._load(old.path, None, locked=True)
        remains.keep_copy(old.path, data)  # always synced: nothing else holds these bytes once the store is rewritten
        files.write_whole(old.path, [_rendered(old, old.clock.to_be_written())])
        return self._load(old.path, None, locked=True)

    def _commit(self, transaction: Transaction) -> None:
        path = transaction.base.path
        if self._stamp_now(path) != transaction.base.stamp:
            raise StoreBusyError(
                path, "another program wrote to it during this transaction, of which nothing was kept; retry"
            )
        transaction.settle()
        if transaction.erases:
            remains.remove_leftovers(path)
        transaction.erasing = transaction.erasing and bool(remains.kept_copies(path))
        files.write_whole(path, [_rendered(transaction)], sync=self._sync)
        with contextlib.suppress(OSError):  # the write is done; the next use reads the file
            descriptor = files.open_regular(path, os.O_RDONLY)
            self._snapshot = Snapshot(
                path,
                Stamp.of(os.fstat(descriptor)),
                descriptor,
                {name: room for name, room in transaction.rooms.items() if room.records},
                {name: archive for name, archive in transaction.archives.items() if archive},
                transaction.clock,
                transaction.spans,
                transaction.erasing,
            )
        if transaction.erasing:
            _finish(path)

    def _lock_at(self, path: str) -> WriterLock:
        return self._locks.get(path) or self._locks.setdefault(path, WriterLock(path + ".lock", path))

    def _lock_of(self, transaction: Transaction) -> WriterLock:
        return self._locks[transaction.base.path]

    @contextlib.contextmanager
    def _locked(self, path: str, timeout_seconds: float | None = None) -> Iterator[None]:
        lock = self._lock_at(path)
        if self._open_one() is not None:  # or the end of this call would release the lock of that transaction
            raise foreign_task(self.file_path)
        holder = _caller()
        try:
            try:
                lock.acquire(self._timeout if timeout_seconds is None else timeout_seconds)
                yield
            finally:
                lock.release_for(holder)
        finally:  # again: one exception from outside can skip only one of the two
            lock.release()


def _caller() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


@contextlib.contextmanager
def _savepoint(transaction: Transaction, is_open: bool) -> Iterator[Transaction]:
    """Open a savepoint, for a block in which other calls take part, or for one change.

    An exception that is no error of ours may have come at any place of a change, which is then half made.
    """
    mark, depth, signature = transaction.mark, transaction.depth, transaction.signature
    try:
        transaction.depth = depth + 1
        yield transaction
        _check_leaving(transaction)
    except BaseException as error:
        was_torn, transaction.is_torn = transaction.is_torn, True  # stays so if the next line is interrupted
        transaction.take_back(mark)
        transaction.is_torn = was_torn or not (is_open or isinstance(error, JarvisError))
        raise
    finally:
        try:
            transaction.depth, transaction.signature = depth, signature
        finally:  # again, see `Store._locked`
            transaction.depth, transaction.signature = depth, signature


def _check_leaving(transaction: Transaction) -> None:
    if transaction.owner != _caller() or transaction.task is not current_task():
        raise TransactionError(
            "a transaction was left in another task, thread or process than it was opened in; nothing of it was kept"
        )


def _finish(path: str) -> None:
    """Remove the copies that an erasure left. It may fail, for the store still says that it is to be done."""
    with contextlib.suppress(StoreError):
        remains.remove_kept_copies(path)


def _rendered(seen: Seen, clock: Clock | None = None) -> bytes:
    records = {name: room.records.values() for name, room in seen.rooms.items()}
    return render(records, seen.archives, clock or seen.clock, seen.spans, erasing=seen.erasing)
