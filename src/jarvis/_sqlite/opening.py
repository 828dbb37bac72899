"""Opens a store: finds or creates its file, verifies it and migrates it, before anybody connects to it.

A store that is as this library left it needs only this module. The others (`first_life`, `verification`) are imported
where they are used, because most processes never need them.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import apsw

from jarvis._disk import files, location
from jarvis._disk.files import Stamp
from jarvis._disk.lock_file import Note
from jarvis._sqlite import engine, migrations, schema, word_tables
from jarvis._sqlite.connection import too_new
from jarvis._sqlite.replace import copy_file
from jarvis._sqlite.store_file import MAX_TRIES, NOTHING, StoreFile, end_notes
from jarvis.errors import (
    CorruptStoreError,
    StoreAccessError,
    StoreBusyError,
    StoreError,
    StoreMissingError,
    StoreOutdatedError,
)


class ReplacedError(Exception):
    """Another file has taken the store's place: check that one."""


class Opening:
    """Opens a `StoreFile`."""

    def __init__(self, file: StoreFile) -> None:
        self._file, self._path = file, file.path

    def prepare(self) -> tuple[int, int]:
        """Create, migrate or verify the file, as needed; return its (device, inode)."""
        with files.explaining(self._path, "find the store"):
            location.check_links(self._file.given)
            location.check_location(Path(self._path))
        location.warn_of_readers(self._path, self._file.vault.path)
        for _ in range(MAX_TRIES):
            self._file.await_swap()
            swap = self._file.lock.read_swap()
            try:
                prepared = self._prepare()
                if not self._file.read_only and self._file.vault.is_changing():
                    self._settle_keys_at_opening()
                return prepared
            except ReplacedError:
                continue
            except StoreError:
                if self._file.lock.read_swap() == swap:
                    raise
        raise self._file.restless()

    def _prepare(self) -> tuple[int, int]:
        if not files.is_there(self._path):
            if self._file.read_only:
                raise StoreMissingError(self._path, "is not there; open it once without read_only=True to create it")
            if not self._file.may_create:
                raise files.absent(self._path)
            self._create()
        status = self._file.status()
        if not stat.S_ISREG(status.st_mode):
            raise StoreAccessError(self._path, "is no regular file; give the path of the store itself")
        if status.st_size == 0:
            raise CorruptStoreError(
                self._path,
                "is empty (0 bytes), which a store never is; restore a backup, or remove the file to start again",
            )
        if self._file.read_only and self._file.has_log() and not os.path.exists(f"{self._path}-shm"):
            raise StoreAccessError(
                self._path, "has a log of last writes beside it; open it once without read_only=True to fold that in"
            )
        for _ in range(MAX_TRIES if self._file.read_only else 1):
            state = self._state()
            try:
                return self._check_file()
            except CorruptStoreError:
                if self._state() == state:
                    raise
        return self._check_file()

    def _check_file(self) -> tuple[int, int]:
        self._file.mark_unsealed(is_unsealed=False)
        swap = self._file.lock.read_swap()
        try:
            try:
                return self._check_connected()
            except (apsw.IOError, CorruptStoreError) as error:
                if isinstance(error, apsw.IOError) and engine.extended_code(error) != apsw.SQLITE_IOERR_DATA:
                    raise
                if self._file.key() is not None:  # no page of an encrypted store is read without its checksum
                    raise
                if self._file.lock.read_swap() != swap:
                    raise ReplacedError from None  # the note may be of the new file, and the pages of the old one
                # Pages with wrong checksums are damaged, or another program wrote them. If all content proves
                # undamaged by other means, it was another program.
                self._file.mark_unsealed(is_unsealed=True)
                return self._check_connected()
        except apsw.Error as error:
            raise engine.translated(self._path, error, "open the store") from error

    def _check_connected(self) -> tuple[int, int]:
        connection, status, _ = self._file.opened()
        try:
            self._check(connection, (status.st_dev, status.st_ino))
        finally:
            connection.close()
        return status.st_dev, status.st_ino

    def _state(self) -> tuple[Stamp, int]:
        """Return stamp and log size, which every write changes: without a lock, a reader may see half a write."""
        try:
            log_size = os.stat(f"{self._path}-wal").st_size
        except OSError:
            log_size = 0
        return Stamp.of(self._file.status()), log_size

    def _create(self) -> None:
        files.ensure_directory(Path(self._path).parent)
        try:
            self._file.lock.acquire(self._file.busy_timeout_seconds)
            if self._file.has_log() and not os.path.exists(self._path):
                raise StoreMissingError(
                    self._path,
                    f"is not there, but the log with its last writes is ({self._path}-wal); "
                    "put the store back, or remove the log to start again",
                )
            with files.explaining(self._path, "create the store"):
                self._remove_leftovers()
            if not os.path.exists(self._path):
                key = self._file.vault.key_to_create(was_there=self._was_there())
                schema.create_store(self._path, key, self._file.new_language)
                if key is not None:
                    self._file.vault.settle([engine.beginning_of(self._path)])
                self._file.lock.write_note(Note(Stamp.of(self._file.status()), 0))
        finally:
            self._file.lock.release()

    def _was_there(self) -> bool:
        """Tell whether the lock's file has a note of a store; remove a note if nothing else of its store is left."""
        if self._file.lock.read_note() in {None, NOTHING}:
            return False
        if os.path.exists(self._file.vault.path):
            return True
        self._file.lock.write_note(
            NOTHING
        )  # else a creation that is killed after it wrote its keys could not be resumed
        return False

    def _remove_leftovers(self) -> None:
        files.remove_leftovers(self._path)
        files.remove_leftovers(self._file.vault.path)

    def _acquire(self, identity: tuple[int, int], timeout_seconds: float) -> None:
        """Wait for the lock, as `WriterLock.acquire`; raise `ReplacedError` if the store is then another file."""
        status = self._file.take_lock(timeout_seconds)
        if (status.st_dev, status.st_ino) != identity:
            raise ReplacedError

    def _check(self, connection: apsw.Connection, identity: tuple[int, int]) -> None:
        if self._is_as_we_left_it(connection):
            if not self._file.read_only and schema.erasing(connection):
                self._finish_erasing_at_opening(connection, identity)
            return
        if self._file.read_only:
            if schema.is_first_life(connection) or schema.read_mark(connection)[1] == schema.MIGRATING:
                raise StoreOutdatedError(
                    self._path, "was written by an older version; open it once without read_only=True to migrate it"
                )
            self._verify(connection)
            return
        try:
            self._acquire(identity, self._file.busy_timeout_seconds)
            if self._is_as_we_left_it(connection):  # meanwhile another process has verified or migrated it
                return
            with files.explaining(self._path, "clean up beside the store"):
                self._remove_leftovers()
            if schema.is_first_life(connection):
                from jarvis._sqlite import first_life

                first_life.migrate(connection, self._path)
                word_tables.set_language(connection, self._file.new_language)
            elif schema.read_mark(connection)[1] == schema.MIGRATING:
                from jarvis._sqlite import first_life

                first_life.finish(connection)
            self._verify(connection)
            self._migrate(connection)
            schema.renew_generation(connection)
            connection.execute("PRAGMA journal_mode = WAL").fetchall()  # a copy by VACUUM INTO has another mode
            if self._file.is_unsealed:
                from jarvis._sqlite import verification

                verification.seal(connection)
                self._file.mark_unsealed(is_unsealed=False)
                self._file.log("gave every page of %s its checksum again, which another program left out", self._path)
            self._file.try_finishing(connection)
            self._file.lock.write_note(Note(Stamp.of(self._file.status()), schema.last_commit(connection)))
        finally:
            self._file.lock.release()

    def _migrate(self, connection: apsw.Connection) -> None:
        """Migrate the store to the current version; give up the copy of a move that an earlier version began.

        Give up also a move whose copy is missing: this store is a backup that was taken during it.
        """
        is_current = schema.read_mark(connection)[1] == schema.CURRENT_VERSION
        if not is_current or not os.path.exists(copy_file.path_of(self._path)):
            end_notes(connection)
        if not is_current:
            copy_file.remove(self._path)
            migrations.migrate(connection, self._file.new_language)

    def _finish_erasing_at_opening(self, connection: apsw.Connection, identity: tuple[int, int]) -> None:
        try:
            self._acquire(identity, 0)
            before = self._file.status()
            self._file.try_finishing(connection)
            self._file.leave_note(before, self._file.status(), None)
        except StoreBusyError:  # the present writer finishes it
            pass
        finally:
            self._file.lock.release()

    def _settle_keys_at_opening(self) -> None:
        """End a change of keys whose process was killed after it had replaced the store's file."""
        try:
            self._file.lock.acquire(0)
            self._file.settle_keys()
        except StoreBusyError:  # the present writer may be changing the keys
            pass
        finally:
            self._file.lock.release()

    def _is_as_we_left_it(self, connection: apsw.Connection) -> bool:
        application, version = schema.read_mark(connection)
        if application != schema.APPLICATION_ID:
            if schema.is_first_life(connection):
                return False
            raise migrations.unmarked(connection, self._path)
        if version > schema.CURRENT_VERSION:
            raise too_new(self._path, version)
        note = self._file.lock.read_note()  # before the commit number: a writer may commit in between
        if note is not None and schema.last_commit(connection) < note.commit:  # also in a copied directory
            raise engine.corrupt(
                self._path,
                f"{note.commit - schema.last_commit(connection)} acknowledged commits are missing: the log with "
                "its last writes is damaged or gone, or the file is an older one (if you put a backup in its place, "
                f"remove {os.path.basename(self._file.lock.path)} too)",
            )
        if version != schema.CURRENT_VERSION and not (self._file.read_only and version in schema.READABLE_VERSIONS):
            return False
        if note is None:
            return False
        stamp = Stamp.of(self._file.status())
        return note.stamp == stamp and not self._file.is_unsealed and self._log_is_whole(connection)

    def _verify(self, connection: apsw.Connection) -> None:
        if not self._log_is_whole(connection):
            raise engine.corrupt(self._path, "its write-ahead log breaks off before commits that were acknowledged")
        from jarvis._sqlite import verification

        verification.check_pages(connection, self._path, self._valid_frames(connection) if self._file.has_log() else 0)
        self._file.log("verifying %s: it is not as this library left it", self._path)
        verification.verify(connection, self._path, encrypted=self._file.key() is not None)

    def _log_is_whole(self, connection: apsw.Connection) -> bool:
        if self._file.durability != "full" or not self._file.has_log():
            return True  # with normal, a power cut may rightly cost the last commits
        from jarvis._sqlite import verification

        lost = verification.lost_commits(self._path, self._valid_frames(connection))
        return lost <= 1  # one may be a power cut's torn write

    def _valid_frames(self, connection: apsw.Connection) -> int:
        if self._file.read_only:
            from jarvis._sqlite import verification

            return verification.count_valid_frames(self._path)
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # recovers the log
        return engine.count_frames(connection)
