"""The file of a store: found, created, verified, migrated, connected to, and what is noted of it.

What a store needs that is as this library left it is here; what is needed otherwise (`first_life`,
`verification`) is imported where it is, because most processes never need it.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import apsw

from jarvis._calls.caller import holding
from jarvis._disk import files, location
from jarvis._disk.files import Stamp
from jarvis._disk.lock_file import Note
from jarvis._disk.locks import WriterLock, held_for_once
from jarvis._sql import tables
from jarvis._sqlite import cipher, driver, migrations, schema
from jarvis._sqlite.connection import too_new
from jarvis._sqlite.log_watch import LogWatch
from jarvis._sqlite.replace import compact, copy_file, touched_rows
from jarvis._sqlite.vault import Vault
from jarvis.errors import (
    CorruptStoreError,
    ReadOnlyStoreError,
    StoreAccessError,
    StoreBusyError,
    StoreError,
    StoreMissingError,
    StoreOutdatedError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jarvis.encryption.data_key import DataKey
    from jarvis.model.store_options import StoreOptions

MAX_TRIES = 20  # of a reader that meets writers half-way

_NOTHING = Note(Stamp(0, 0, 0), 0)
_SETTLING_PAUSE_SECONDS = 0.002
_openings: dict[str, threading.RLock] = {}  # one opens a store at a time in a process: see `StoreFile.opened`

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_openings.clear)


class ReplacedError(Exception):
    """Another file has the store's place by now: look at that one."""


class StoreFile:
    """The SQLite file at `path` with its writers' lock; see `jarvis._sqlite.database.Database` for the arguments."""

    def __init__(self, path: Path, options: StoreOptions) -> None:
        self._given = Path(path).absolute()
        self.path = os.path.realpath(self._given)
        self.read_only = options.read_only
        self._may_create = options.create
        self.durability = options.durability
        self.busy_timeout_seconds = options.busy_timeout_seconds
        self.lock = WriterLock(f"{self.path}.lock", self.path)
        self.log_watch = LogWatch(self.path)
        self.vault = Vault(self.path, options.encryption, options.keys)
        self._noted = _NOTHING  # the last note we know of
        self._unsealed = False  # it was verified whole, but may not be written to give its pages their checksums

    def status(self) -> os.stat_result:
        """Return the status of the file that has the path now; raise `StoreMissingError` if none has it."""
        try:
            return os.stat(self.path)
        except FileNotFoundError:
            raise StoreMissingError(
                self.path, "was removed while it was open; put it back, or call shutdown() to start with a new one"
            ) from None
        except OSError as error:
            raise files.translated(self.path, error, "find the store") from error

    def identity(self) -> tuple[int, int]:
        """Return (device, inode) of the file that has the path now; raise as `status` does."""
        status = self.status()
        return status.st_dev, status.st_ino

    def warn(self, message: str, *details: object) -> None:
        """Log what an operator should know."""
        import logging  # 8 ms to import, which most processes never need

        logging.getLogger("jarvis.sqlite").warning(message, *details)

    def _log(self, decision: str, *details: object) -> None:
        import logging

        logging.getLogger("jarvis.sqlite").info(decision, *details)

    def has_log(self) -> bool:
        """Tell whether a write-ahead log with something in it stands beside the file."""
        try:
            return os.stat(f"{self.path}-wal").st_size > 0
        except OSError:
            return False

    def connect(self, *, immutable: bool) -> apsw.Connection:
        """Return a new connection; see `jarvis._sqlite.driver`. What SQLite would follow, or wait for, is an error."""
        for suffix in ("", "-wal", "-shm", "-journal"):
            files.check_regular(f"{self.path}{suffix}")
        if self.read_only:
            return driver.connect_read_only(
                self.path,
                key=self.key(),
                immutable=immutable,
                checksums=not self._unsealed,
                busy_timeout_seconds=self.busy_timeout_seconds,
                views=migrations.views_for_reading,
            )
        if not os.access(self.path, os.W_OK):  # SQLite would open it for reading only, in silence
            raise ReadOnlyStoreError(
                self.path, "may not be written; check its owner and mode, or open it with read_only=True"
            )
        return driver.connect(
            self.path,
            key=self.key(),
            durability=self.durability,
            checksums=not self._unsealed,
            busy_timeout_seconds=self.busy_timeout_seconds,
        )

    def beginnings(self) -> list[bytes]:
        """Return what the store and the copies that are kept beside it begin with, see `driver.beginning_of`."""
        from jarvis._sqlite import first_life

        with files.explaining(self.path, "read the beginning of the store"):
            return [driver.beginning_of(path) for path in (self.path, *first_life.kept_copies(self.path))]

    def settle_keys(self) -> None:
        """End a change of the keys, if all files of the store have come over. Needs the writer lock."""
        if not self.vault.settle(self.beginnings()):
            self._log("the keys of %s are being changed, or that was broken off: call the verb again", self.path)

    def _settle_keys_at_opening(self) -> None:
        """End a change of the keys whose process was killed when the store had come over."""
        try:
            self.lock.acquire(0)
            self.settle_keys()
        except StoreBusyError:  # whoever writes just now may be at it
            pass
        finally:
            self.lock.release()

    def key(self) -> DataKey | None:
        """Return the key of the file that has the path now, None if it is plain; raise as `Vault.key_of` does."""
        with files.explaining(self.path, "read the beginning of the store"):
            beginning = driver.beginning_of(self.path)
        return self.vault.key_of(beginning)

    def opened(self) -> tuple[apsw.Connection, os.stat_result, bool]:
        """Return a new connection that has read, its file's status, and whether it reads without locks.

        A swap of the file (see `jarvis._sqlite.replace.swap`) gives the names of the log and of its index to other
        files, too, and SQLite opens those when it reads first. A connection that has some of the old files and some
        of the new would answer wrongly, so what was opened beside a swap is closed again. One at a time in this
        process: closing such a one ends all locks that the process has on these files.

        Raises:
            apsw.Error: see `jarvis._sqlite.driver.translated`.
            StoreError: the file is missing, may not be opened, or a swap takes too long.
        """
        for tried in range(1, MAX_TRIES + 1):
            self._await_swap()
            opened = holding(_openings.setdefault(self.path, threading.RLock()), partial(self._try_opening, tried))
            if opened is not None:
                return opened
        raise self._restless()

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
        """Tell whether a reader should try again: a writer was just making the index of the log; wait a moment."""
        passing = self.read_only and isinstance(error, apsw.ReadOnlyError) and tried < MAX_TRIES
        if passing:
            time.sleep(_SETTLING_PAUSE_SECONDS)
        return passing

    def _restless(self) -> StoreBusyError:
        return StoreBusyError(self.path, "was replaced again and again while it was opened; retry")

    def _await_swap(self) -> None:
        """Wait until no swap is going on; finish one whose process was killed."""
        deadline = time.monotonic() + self.busy_timeout_seconds
        while True:
            swap = self.lock.read_swap()
            if swap is None or swap.is_over:
                return
            if self.read_only:
                if time.monotonic() > deadline:
                    raise StoreBusyError(
                        self.path,
                        "another file was to take its place when the process that did it was killed; "
                        "open it once without read_only=True to finish that",
                    )
                time.sleep(_SETTLING_PAUSE_SECONDS)
                continue
            try:
                self.take_lock(self.busy_timeout_seconds)
            finally:
                self.lock.release()

    def take_lock(self, timeout_seconds: float) -> os.stat_result:
        """Wait for the lock, as `WriterLock.acquire`; return the status of the file that is the store now.

        A swap whose process was killed is finished, or taken back, before.
        """
        self.lock.acquire(timeout_seconds)
        if self.lock.is_swap_open():
            from jarvis._sqlite.replace import swap

            swap.settle(self.path, self.lock)
        return self.status()

    def prepare(self) -> tuple[int, int]:
        """Create, migrate or verify the file, whatever it needs; return its (device, inode)."""
        with files.explaining(self.path, "find the store"):
            location.check_links(self._given)
            location.check_location(Path(self.path))
        location.warn_of_readers(self.path, self.vault.path)
        for _ in range(MAX_TRIES):
            self._await_swap()
            swap = self.lock.read_swap()
            try:
                prepared = self._prepare()
                if not self.read_only and self.vault.is_changing():
                    self._settle_keys_at_opening()
                return prepared
            except ReplacedError:
                continue
            except StoreError:
                if self.lock.read_swap() == swap:
                    raise
        raise self._restless()

    def _prepare(self) -> tuple[int, int]:
        if not files.is_there(self.path):
            if self.read_only:
                raise StoreMissingError(self.path, "is not there; open it once without read_only=True to create it")
            if not self._may_create:
                raise files.absent(self.path)
            self._create()
        status = self.status()
        if not stat.S_ISREG(status.st_mode):
            raise StoreAccessError(self.path, "is no regular file; give the path of the store itself")
        if status.st_size == 0:
            raise CorruptStoreError(
                self.path,
                "is empty (0 bytes), which a store never is; restore a backup, or remove the file to start anew",
            )
        if self.read_only and self.has_log() and not os.path.exists(f"{self.path}-shm"):
            raise StoreAccessError(
                self.path, "has a log of last writes beside it; open it once without read_only=True to fold that in"
            )
        for _ in range(MAX_TRIES if self.read_only else 1):
            state = self._state()
            try:
                return self._check_file()
            except CorruptStoreError:
                if self._state() == state:
                    raise
        return self._check_file()

    def leave_word(self, before: Stamp, after: Stamp, commit: int | None) -> None:
        """Note, under the writer lock, what the store is like now, for whoever opens it next.

        Only if it was as noted before: what somebody else touched is still to be verified.

        Args:
            before: the file's stamp when the lock was taken.
            after: its stamp now; another one, if we checkpointed.
            commit: the last commit, which is synced; None if it is not.
        """
        if before != self._noted.stamp:  # another process wrote the last note, or somebody else the file
            self._noted = self.lock.read_note() or _NOTHING
            if before != self._noted.stamp:
                return
        note = Note(after, self._noted.commit if commit is None else commit)
        if note != self._noted:
            self._noted = _NOTHING
            try:
                self.lock.write_note(note)
            except StoreError as error:  # the write itself is done: the old note is only less exact
                self.warn("%s", error)
            else:
                self._noted = note

    def _state(self) -> tuple[Stamp, int]:
        """Return what changes when somebody writes: without a lock, a reader may meet a writer half-way."""
        try:
            log_size = os.stat(f"{self.path}-wal").st_size
        except OSError:
            log_size = 0
        return Stamp.of(self.status()), log_size

    def _check_file(self) -> tuple[int, int]:
        self._unsealed = False
        swap = self.lock.read_swap()
        try:
            try:
                return self._check_connected()
            except (apsw.IOError, CorruptStoreError) as error:
                if isinstance(error, apsw.IOError) and driver.extended_code(error) != apsw.SQLITE_IOERR_DATA:
                    raise
                if self.key() is not None:  # no page of an encrypted store is read without its checksum
                    raise
                if self.lock.read_swap() != swap:
                    raise ReplacedError from None  # the note may be of the new file, and what was read of the old one
                # Pages without a right checksum are damage, or another program's way of writing them. If
                # all content proves whole without their help, it was the latter.
                self._unsealed = True
                return self._check_connected()
        except apsw.Error as error:
            raise driver.translated(self.path, error, "open the store") from error

    def _check_connected(self) -> tuple[int, int]:
        connection, status, _ = self.opened()
        try:
            self._check(connection, (status.st_dev, status.st_ino))
        finally:
            connection.close()
        return status.st_dev, status.st_ino

    def finish_erasing(self, connection: apsw.Connection) -> bool:
        """Clean the files of what was erased, step by step; return whether that is done.

        Needs the writer lock. It has to wait while somebody reads an older state, whose pages stay in the log.

        Raises:
            apsw.Error, StoreError: a step failed; the store still knows of it.
        """
        left = schema.erasing(connection)
        if left & tables.NAMES:
            left &= ~tables.NAMES
            if not os.path.exists(copy_file.path_of(self.path)):  # what a copy has been given stays; the next time does
                schema.remove_unused_names(connection)
            schema.set_erasing(connection, left)
        if left and not self._drop_copy(connection):
            return False  # the copy that is made just now may hold it; it has the same to do when it is the store
        if left & tables.COMPACTING:
            schema.remove_unused_names(connection)
            schema.merge_indexes(connection)
            with files.explaining(self.path, "clean up beside the store"):
                files.remove_leftovers(self.path)  # a killed one's holds what was erased
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
        """Remove the copy of a move that nobody makes any more, and end its notes; return whether nobody does.

        That changes are noted says only that a move was begun. Its lock says whether it goes on. Needs the writer lock.
        """
        try:
            with held_for_once(copy_file.lock_of(self.path), self.path, 0):
                endings = touched_rows.ending(touched_rows.of(connection))
                with connection:
                    for sql in endings:
                        connection.execute(sql).fetchall()
                copy_file.remove(self.path)
        except StoreBusyError:
            return False
        return True

    def fold_log(self, connection: apsw.Connection, patience_seconds: float) -> bool:
        """Fold the log into the file and empty it, durably; return whether that is done.

        Needs the writer lock. It has to wait while somebody reads an older state, whose pages stay in the log.

        Raises:
            apsw.Error, StoreError: it failed.
        """
        connection.set_busy_timeout(int(patience_seconds * 1000))
        try:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.BusyError:
            return False
        finally:
            connection.set_busy_timeout(int(self.busy_timeout_seconds * 1000))
        self._sync_log()  # or what stood in it comes back with a power cut
        return True

    def try_finishing(self, connection: apsw.Connection) -> bool:
        """Return what `finish_erasing` does; what fails, such as on a full disk, is logged and hinders nobody."""
        try:
            return self.finish_erasing(connection)
        except (apsw.Error, StoreError) as error:
            self.warn("what was erased from %s is still in its files: %s", self.path, type(error).__name__)
            return False

    def _sync_log(self) -> None:
        """Make what was done to the log durable."""
        with files.explaining(self.path, "sync the log"):
            descriptor = files.open_regular(f"{self.path}-wal", os.O_RDWR, os.open)
            try:
                files.system.sync(descriptor)
            finally:
                os.close(descriptor)

    def files(self) -> list[str]:
        """Return the paths of all files of the store: itself, its log and lock, kept copies, leftovers.

        But not the index of the log: it holds numbers only, and reading it would end the locks that are on it.
        """
        directory, name = os.path.split(self.path)
        return [
            os.path.join(directory, each)
            for each in sorted(os.listdir(directory))
            if (each.startswith((f"{name}-", f"{name}.", f".{name}.")) and each != f"{name}-shm") or each == name
        ]

    def chunks_of(self, path: str) -> Iterator[bytes]:
        """Yield what a file of the store holds, some of it at a time; decrypted if it is encrypted.

        Raises:
            OSError: it cannot be read.
        """
        key, chunks = self.key(), driver.chunks_of(path)
        is_log = path == f"{self.path}-wal"
        if key is None or not (is_log or path == self.path):
            return chunks
        return cipher.pages_of(chunks, key, is_log=is_log)

    def _create(self) -> None:
        files.ensure_directory(Path(self.path).parent)
        try:
            self.lock.acquire(self.busy_timeout_seconds)
            if self.has_log() and not os.path.exists(self.path):
                raise StoreMissingError(
                    self.path,
                    f"is not there, but the log with its last writes is ({self.path}-wal); "
                    "put the store back, or remove the log to start anew",
                )
            with files.explaining(self.path, "create the store"):
                self._remove_leftovers()
            if not os.path.exists(self.path):
                key = self.vault.key_to_create(was_there=self._was_there())
                schema.create_store(self.path, key)
                if key is not None:
                    self.vault.settle([driver.beginning_of(self.path)])
                self.lock.write_note(Note(Stamp.of(self.status()), 0))
        finally:
            self.lock.release()

    def _was_there(self) -> bool:
        """Tell whether the lock's file has a note of a store. Of one that nothing else is left of it is taken away."""
        if self.lock.read_note() in {None, _NOTHING}:
            return False
        if os.path.exists(self.vault.path):
            return True
        self.lock.write_note(_NOTHING)  # or a creation that is killed behind its keys could not be gone on with
        return False

    def _remove_leftovers(self) -> None:
        files.remove_leftovers(self.path)
        files.remove_leftovers(self.vault.path)

    def _acquire(self, identity: tuple[int, int], timeout_seconds: float) -> None:
        """Wait for the lock, as `WriterLock.acquire`; raise `ReplacedError` if the store is another file by then."""
        status = self.take_lock(timeout_seconds)
        if (status.st_dev, status.st_ino) != identity:
            raise ReplacedError

    def _check(self, connection: apsw.Connection, identity: tuple[int, int]) -> None:
        if self._is_as_we_left_it(connection):
            if not self.read_only and schema.erasing(connection):
                self._finish_erasing_at_opening(connection, identity)
            return
        if self.read_only:
            if schema.is_first_life(connection) or schema.read_mark(connection)[1] == schema.MIGRATING:
                raise StoreOutdatedError(
                    self.path, "was written by an older version; open it once without read_only=True to migrate it"
                )
            self._verify(connection)
            return
        try:
            self._acquire(identity, self.busy_timeout_seconds)
            if self._is_as_we_left_it(connection):  # by now: another process has just verified or migrated it
                return
            with files.explaining(self.path, "clean up beside the store"):
                self._remove_leftovers()
            if schema.is_first_life(connection):
                from jarvis._sqlite import first_life

                first_life.migrate(connection, self.path)
            elif schema.read_mark(connection)[1] == schema.MIGRATING:
                from jarvis._sqlite import first_life

                first_life.finish(connection)
            self._verify(connection)
            self._migrate(connection)
            schema.renew_generation(connection)
            connection.execute("PRAGMA journal_mode = WAL").fetchall()  # a copy by VACUUM INTO is in another mode
            if self._unsealed:
                from jarvis._sqlite import verification

                verification.seal(connection)
                self._unsealed = False
                self._log("gave every page of %s its checksum again, which another program had left out", self.path)
            self.try_finishing(connection)
            self.lock.write_note(Note(Stamp.of(self.status()), schema.last_commit(connection)))
        finally:
            self.lock.release()

    def _migrate(self, connection: apsw.Connection) -> None:
        """Make it a store of the current version; a copy that was begun of an earlier one is given up.

        So is one that is not there: this store is a backup that was taken meanwhile.
        """
        is_current = schema.read_mark(connection)[1] == schema.CURRENT_VERSION
        if not is_current or not os.path.exists(copy_file.path_of(self.path)):
            endings = touched_rows.ending(touched_rows.of(connection))
            with connection:
                for sql in endings:
                    connection.execute(sql).fetchall()
        if not is_current:
            copy_file.remove(self.path)
            migrations.migrate(connection)

    def _finish_erasing_at_opening(self, connection: apsw.Connection, identity: tuple[int, int]) -> None:
        try:
            self._acquire(identity, 0)
            before = Stamp.of(self.status())
            self.try_finishing(connection)
            self.leave_word(before, Stamp.of(self.status()), None)
        except StoreBusyError:  # whoever writes just now does it
            pass
        finally:
            self.lock.release()

    def _is_as_we_left_it(self, connection: apsw.Connection) -> bool:
        application, version = schema.read_mark(connection)
        if application != schema.APPLICATION_ID:
            if schema.is_first_life(connection):
                return False
            raise migrations.unmarked(connection, self.path)
        if version > schema.CURRENT_VERSION:
            raise too_new(self.path, version)
        note = self.lock.read_note()  # before the commit number: a writer may commit in between
        if note is not None and schema.last_commit(connection) < note.commit:  # also in a copied directory
            raise driver.corrupt(
                self.path,
                f"{note.commit - schema.last_commit(connection)} acknowledged commits are missing: the log with "
                "its last writes is damaged or gone, or the file is an older one (if you put a backup in its place, "
                f"remove {os.path.basename(self.lock.path)} too)",
            )
        if version != schema.CURRENT_VERSION and not (self.read_only and version in schema.READABLE_VERSIONS):
            return False
        if note is None:
            return False
        stamp = Stamp.of(self.status())
        return note.stamp == stamp and not self._unsealed and self._log_is_whole(connection)

    def _verify(self, connection: apsw.Connection) -> None:
        if not self._log_is_whole(connection):
            raise driver.corrupt(self.path, "its write-ahead log breaks off before commits that were acknowledged")
        from jarvis._sqlite import verification

        verification.check_pages(connection, self.path, self._valid_frames(connection) if self.has_log() else 0)
        self._log("verifying %s: it is not as this library left it", self.path)
        verification.verify(connection, self.path, encrypted=self.key() is not None)

    def _log_is_whole(self, connection: apsw.Connection) -> bool:
        if self.durability != "full" or not self.has_log():
            return True  # with normal, a power cut may rightly cost the last commits
        from jarvis._sqlite import verification

        lost = verification.lost_commits(self.path, self._valid_frames(connection))
        return lost <= 1  # one may be a power cut's torn write

    def _valid_frames(self, connection: apsw.Connection) -> int:
        if self.read_only:
            from jarvis._sqlite import verification

            return verification.count_valid_frames(self.path)
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # recovers the log
        return driver.count_frames(connection)
