"""`StoreFile`: opens connections to the file of a store, removes erased data, and notes its state."""

from __future__ import annotations

import os
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import apsw

from jarvis._calls.caller import holding
from jarvis._disk import files
from jarvis._disk.files import Stamp
from jarvis._disk.lock_file import Note
from jarvis._disk.locks import WriterLock, held_for_once
from jarvis._sql import tables
from jarvis._sqlite import cipher, engine, migrations, schema, word_tables
from jarvis._sqlite.log_watch import LogWatch
from jarvis._sqlite.replace import compact, copy_file, touched_rows
from jarvis._sqlite.vault import Vault
from jarvis.errors import (
    ReadOnlyStoreError,
    StoreBusyError,
    StoreError,
    StoreMissingError,
)
from jarvis.model.options import ENGLISH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jarvis.encryption.data_key import DataKey
    from jarvis.model.store_options import StoreOptions

MAX_TRIES = 20  # of a reader that a writer disturbs

NOTHING = Note(Stamp(0, 0, 0), 0)
_SETTLING_PAUSE_SECONDS = 0.002
_openings: dict[str, threading.RLock] = {}  # one opening at a time in a process: see `StoreFile.opened`

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_openings.clear)


def end_notes(connection: apsw.Connection) -> None:
    """End the notes of changed rows that a move has begun; no-op if there are none."""
    endings = touched_rows.ending(touched_rows.of(connection))
    with connection:
        for sql in endings:
            connection.execute(sql).fetchall()


class StoreFile:
    """The SQLite file at `path` with its writers' lock; see `jarvis._sqlite.database.Database` for the arguments."""

    def __init__(self, path: Path, options: StoreOptions) -> None:
        self.given = Path(path).absolute()
        self.path = os.path.realpath(self.given)
        self.read_only = options.read_only
        self.may_create = options.create
        self.new_language = options.text_index or ENGLISH
        self.durability = options.durability
        self.busy_timeout_seconds = options.busy_timeout_seconds
        self.lock = WriterLock(f"{self.path}.lock", self.path)
        self.log_watch = LogWatch(self.path)
        self.vault = Vault(self.path, options.encryption, options.keys)
        self._noted = NOTHING  # the last note we know of
        self.is_unsealed = False  # all content was verified, but read-only files cannot get their checksums

    def mark_unsealed(self, *, is_unsealed: bool) -> None:
        """Set whether pages lack their checksums, because another program wrote them: connections then check none."""
        self.is_unsealed = is_unsealed

    def status(self) -> os.stat_result:
        """Return the status of the file now at the path; raise `StoreMissingError` if there is none."""
        try:
            return os.stat(self.path)
        except FileNotFoundError:
            raise StoreMissingError(
                self.path, "was removed while it was open; put it back, or call shutdown() to start with a new one"
            ) from None
        except OSError as error:
            raise files.translated(self.path, error, "find the store") from error

    def identity(self) -> tuple[int, int]:
        """Return (device, inode) of the file now at the path; raise as `status` does."""
        status = self.status()
        return status.st_dev, status.st_ino

    def warn(self, message: str, *details: object) -> None:
        """Log a warning for an operator."""
        import logging  # its import takes 8 ms, and most processes never need it

        logging.getLogger("jarvis.sqlite").warning(message, *details)

    def log(self, decision: str, *details: object) -> None:
        """Log a decision."""
        import logging

        logging.getLogger("jarvis.sqlite").info(decision, *details)

    def has_log(self) -> bool:
        """Tell whether a write-ahead log that is not empty lies beside the file."""
        try:
            return os.stat(f"{self.path}-wal").st_size > 0
        except OSError:
            return False

    def connect(self, *, immutable: bool) -> apsw.Connection:
        """Return a new connection; see `jarvis._sqlite.engine`. Links, pipes and other irregular files are an error."""
        for suffix in ("", "-wal", "-shm", "-journal"):
            files.check_regular(f"{self.path}{suffix}")
        if self.read_only:
            return engine.connect_read_only(
                self.path,
                key=self.key(),
                immutable=immutable,
                checksums=not self.is_unsealed,
                busy_timeout_seconds=self.busy_timeout_seconds,
                views=migrations.views_for_reading,
            )
        if not os.access(self.path, os.W_OK):  # SQLite would silently open it for reading only
            raise ReadOnlyStoreError(
                self.path, "may not be written; check its owner and mode, or open it with read_only=True"
            )
        return engine.connect(
            self.path,
            key=self.key(),
            durability=self.durability,
            checksums=not self.is_unsealed,
            busy_timeout_seconds=self.busy_timeout_seconds,
        )

    def beginnings(self) -> list[bytes]:
        """Return the first bytes of the store and of the kept copies beside it, see `engine.beginning_of`."""
        from jarvis._sqlite import first_life

        with files.explaining(self.path, "read the beginning of the store"):
            return [engine.beginning_of(path) for path in (self.path, *first_life.kept_copies(self.path))]

    def settle_keys(self) -> None:
        """End a change of keys, if all files of the store have the new key. Needs the writers' lock."""
        if not self.vault.settle(self.beginnings()):
            self.log("the keys of %s are being changed, or a change was interrupted: call the verb again", self.path)

    def key(self) -> DataKey | None:
        """Return the key of the file now at the path, None if it is plain; raise as `Vault.key_of` does."""
        with files.explaining(self.path, "read the beginning of the store"):
            beginning = engine.beginning_of(self.path)
        return self.vault.key_of(beginning)

    def opened(self) -> tuple[apsw.Connection, os.stat_result, bool]:
        """Return a new connection that has read once, its file's status, and whether it reads without locks.

        A swap of the file (see `jarvis._sqlite.replace.swap`) also gives the names of the log and its index to other
        files, and SQLite opens those at its first read. A connection with some of the old files and some of the new
        would answer wrongly, so a connection that was opened during a swap is closed again. Only one thread of the
        process opens at a time: such a close releases all locks that the process has on these files.

        Raises:
            apsw.Error: see `jarvis._sqlite.engine.translated`.
            StoreError: the file is missing or may not be opened, or a swap takes too long.
        """
        for tried in range(1, MAX_TRIES + 1):
            self.await_swap()
            opened = holding(_openings.setdefault(self.path, threading.RLock()), partial(self._try_opening, tried))
            if opened is not None:
                return opened
        raise self.restless()

    def _try_opening(self, tried: int) -> tuple[apsw.Connection, os.stat_result, bool] | None:
        swap = self.lock.read_swap()
        if swap is not None and not swap.is_over:
            return None
        status, immutable = self.status(), self.read_only and not self.has_log()
        connection = None
        try:
            connection = self.connect(immutable=immutable)
            connection.execute("PRAGMA user_version").fetchall()
            if self.lock.read_swap() == swap:
                return connection, status, immutable
            connection.close()
        except BaseException as error:
            if connection is not None:
                connection.close()
            is_ours = isinstance(error, (apsw.Error, StoreError))
            if not is_ours or (self.lock.read_swap() == swap and not self._may_pass(error, tried)):
                raise
        return None

    def _may_pass(self, error: BaseException, tried: int) -> bool:
        """Wait a moment if a writer was creating the index of the log; return whether a reader should try again."""
        passing = self.read_only and isinstance(error, apsw.ReadOnlyError) and tried < MAX_TRIES
        if passing:
            time.sleep(_SETTLING_PAUSE_SECONDS)
        return passing

    def restless(self) -> StoreBusyError:
        """Return the error for a file that was replaced at each of `MAX_TRIES` attempts to open it."""
        return StoreBusyError(self.path, "was replaced again and again while it was opened; retry")

    def await_swap(self) -> None:
        """Wait until no swap is in progress; finish one whose process was killed."""
        deadline = time.monotonic() + self.busy_timeout_seconds
        while True:
            swap = self.lock.read_swap()
            if swap is None or swap.is_over:
                return
            if self.read_only:
                if time.monotonic() > deadline:
                    raise StoreBusyError(
                        self.path,
                        "a process was killed while it put another file in its place; "
                        "open it once without read_only=True to finish that",
                    )
                time.sleep(_SETTLING_PAUSE_SECONDS)
                continue
            try:
                self.take_lock(self.busy_timeout_seconds)
            finally:
                self.lock.release()

    def take_lock(self, timeout_seconds: float) -> os.stat_result:
        """Wait for the lock, as `WriterLock.acquire`; return the status of the store's file.

        First finish, or undo, a swap whose process was killed.
        """
        self.lock.acquire(timeout_seconds)
        if self.lock.is_swap_open():
            from jarvis._sqlite.replace import swap

            swap.settle(self.path, self.lock)
        return self.status()

    def is_synced(self, commit: int, status: os.stat_result) -> bool:
        """Tell whether the note says that the commit with this number is on the disk. Needs the writers' lock."""
        stamp = status.st_ino, status.st_size, status.st_mtime_ns
        if stamp != self._noted.stamp or commit > self._noted.commit:
            self._noted = self.lock.read_note() or NOTHING
        return stamp == self._noted.stamp and commit <= self._noted.commit

    def leave_note(self, before: os.stat_result, after: os.stat_result, commit: int | None) -> None:
        """Note the state of the store for the next opening. Needs the writers' lock.

        Only if the store was as noted before: a file that another program touched must still be verified.

        Args:
            before: the file's status when the lock was taken.
            after: its status now, another one if we checkpointed.
            commit: the number of the last commit if it is synced, else None.
        """
        stamp = before.st_ino, before.st_size, before.st_mtime_ns
        if stamp != self._noted.stamp:  # another process wrote the last note, or another program the file
            self._noted = self.lock.read_note() or NOTHING
            if stamp != self._noted.stamp:
                return
        note = tuple.__new__(Note, (Stamp.of(after), self._noted.commit if commit is None else commit))
        if note != self._noted:
            self._noted = NOTHING
            try:
                self.lock.write_note(note)
            except StoreError as error:  # the write itself is durable: the old note is only less exact
                self.warn("%s", error)
            else:
                self._noted = note

    def finish_erasing(self, connection: apsw.Connection) -> bool:
        """Remove erased data from the files, step by step; return whether that is complete.

        Needs the writers' lock. It is not complete while somebody reads an older state, whose pages stay in the log.

        Raises:
            apsw.Error, StoreError: a step failed; the store still notes that it is due.
        """
        left = schema.erasing(connection)
        if left & tables.NAMES:
            left &= ~tables.NAMES
            if not os.path.exists(
                copy_file.path_of(self.path)
            ):  # a copy in progress may use those names; the next time removes them
                schema.remove_unused_names(connection)
            schema.set_erasing(connection, left)
        if left and not self._drop_copy(connection):
            return False  # the copy in progress may have erased data; it removes that when it is the store
        if left & tables.COMPACTING:
            schema.remove_unused_names(connection)
            word_tables.merge(connection)
            with files.explaining(self.path, "clean up beside the store"):
                files.remove_leftovers(self.path)  # those of a killed process hold erased data
            compact.compact(connection, self.path, self.key())
            left &= ~tables.COMPACTING
            schema.set_erasing(connection, left)
        if left & tables.COPIES:
            from jarvis._sqlite import first_life

            with files.explaining(self.path, "remove the kept copy of the old store"):
                kept = first_life.kept_copies(self.path)
                for path in kept:
                    files.system.unlink(path)
                if kept:
                    files.sync_directory(os.path.dirname(self.path))
        if left:
            if not self.fold_log(connection, 0):
                return False
            schema.set_erasing(connection, 0)
        return True

    def _drop_copy(self, connection: apsw.Connection) -> bool:
        """Remove the copy of an abandoned move and end its notes of changes; return whether no move is in progress.

        Notes of changes show only that a move was begun. Its lock shows whether it continues. Needs the writers' lock.
        """
        try:
            with held_for_once(copy_file.lock_of(self.path), self.path, 0):
                end_notes(connection)
                copy_file.remove(self.path)
        except StoreBusyError:
            return False
        return True

    def fold_log(self, connection: apsw.Connection, patience_seconds: float) -> bool:
        """Fold the log into the file and empty it durably; return whether that is complete.

        Needs the writers' lock. It is not complete while somebody reads an older state, whose pages stay in the log.

        Raises:
            apsw.Error, StoreError: a step failed.
        """
        connection.set_busy_timeout(int(patience_seconds * 1000))
        try:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.BusyError:
            return False
        finally:
            connection.set_busy_timeout(int(self.busy_timeout_seconds * 1000))
        self.sync_log()  # else a power cut may bring its old content back
        return True

    def sync_log(self) -> None:
        """Return when the log is on the disk, with all commits in it; those that it has not are in the file, synced."""
        with files.explaining(self.path, "sync the log"):
            files.sync_file(f"{self.path}-wal")

    def try_finishing(self, connection: apsw.Connection) -> bool:
        """Do as `finish_erasing`, but log a failure, such as a full disk, and return False."""
        try:
            return self.finish_erasing(connection)
        except (apsw.Error, StoreError) as error:
            self.warn("erased data of %s is still in its files: %s", self.path, type(error).__name__)
            return False

    def files(self) -> list[str]:
        """Return the paths of all files of the store: its own, its log and lock, kept copies, leftovers.

        The index of the log is left out: it has only numbers, and reading it would release the locks on it.
        """
        directory, name = os.path.split(self.path)
        return [
            os.path.join(directory, entry)
            for entry in sorted(os.listdir(directory))
            if (entry.startswith((f"{name}-", f"{name}.", f".{name}.")) and entry != f"{name}-shm") or entry == name
        ]

    def chunks_of(self, path: str) -> Iterator[bytes]:
        """Yield the content of a file of the store in chunks, decrypted if need be.

        Raises:
            OSError: the file cannot be read.
        """
        key, chunks = self.key(), engine.chunks_of(path)
        is_log = path == f"{self.path}-wal"
        if key is None or not (is_log or path == self.path):
            return chunks
        return cipher.pages_of(chunks, key, is_log=is_log)
