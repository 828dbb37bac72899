"""A copy of a store that is in use, with the keys that open it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import apsw

from jarvis._disk import files
from jarvis._disk.copies import place_for_copy, put_copy
from jarvis._sqlite import cipher, engine, schema, verification
from jarvis._sqlite.replace import touched_rows
from jarvis.errors import CorruptStoreError, StoreBusyError, StoreError

if TYPE_CHECKING:
    from jarvis._sqlite.database import Database
    from jarvis._sqlite.pool import Lease
    from jarvis.encryption.data_key import DataKey
    from jarvis.encryption.envelope import Envelope
    from jarvis.model.rewriting import Progress

_MANY_TRIES = 20
_PAGES_AT_ONCE = 4_000


def back_up(database: Database, directory: Path, progress: Progress | None) -> Path:
    """Write the present state of the store to a file of the same name in a directory; return its path.

    Readers and writers continue. The copy is encrypted like the store and gets its file of keys. Before it gets its
    name every page of it is read again, see `_check`. Meanwhile other writers of a store at that path wait.
    `progress` is called with (pages that were copied, all pages).

    Raises:
        StoreAccessError: the directory already has such a file.
        CorruptStoreError: the store is damaged; no copy was kept.
        StoreError: the store cannot be read, or the copy cannot be written.
    """
    target = directory / os.path.basename(database.path)
    keys = directory / os.path.basename(database.vault.path)

    beside = (keys, Path(f"{target}-wal"))  # SQLite would read another store's log as the copy's
    temporaries = (files.temporary_path(str(target)), files.temporary_path(str(keys)))
    with place_for_copy(target, beside, database.busy_timeout_seconds):
        try:
            for _ in range(_MANY_TRIES):
                if _copied(database, *temporaries, progress):
                    _put(temporaries, (str(target), str(keys)))
                    return target
            raise StoreBusyError(
                database.path,
                "it keeps being replaced, or written beside a reader without locks, while it is backed up; retry",
            )
        finally:
            for temporary in temporaries:
                with contextlib.suppress(OSError):
                    files.system.unlink(temporary)


def _put(temporaries: tuple[str, str], targets: tuple[str, str]) -> None:
    """Give copy and keys their names, both or none; the keys first, so that no copy is ever without."""
    placed = []
    try:
        for temporary, target in zip(reversed(temporaries), reversed(targets), strict=True):
            if os.path.exists(temporary):  # a plain store has no keys
                put_copy(temporary, target)
                placed.append(target)
    except BaseException:
        for target in placed:
            with contextlib.suppress(OSError):
                files.system.unlink(target)
        raise


def _key_of(database: Database, session: Lease) -> tuple[DataKey | None, Envelope | None] | None:
    """Return the key of a connection's file, and the file of keys; None if the file was replaced."""
    try:
        keys = database.file.key(), database.vault.envelope()
    except StoreError:
        if database.file.identity() == session.identity:
            raise
        return None
    return keys if database.file.identity() == session.identity else None


def _check(database: Database, temporary: str, key: DataKey | None, *, whole: bool) -> None:
    """Read all pages of the copy again, and compare its tables and indexes with each other; with `whole` all content.

    Pages that were read with their checksums have the content that this library wrote.
    """
    try:
        written = engine.connect_read_only(
            temporary, key=key, immutable=True, checksums=True, busy_timeout_seconds=0, views=lambda _: ""
        )
        try:
            check = verification.verify if whole else verification.check_structure
            check(written, database.path, encrypted=key is not None)
        finally:
            written.close()
    except apsw.Error as error:
        raise engine.translated(database.path, error, "read the backup that was just written") from error
    except CorruptStoreError as error:
        raise CorruptStoreError(database.path, f"cannot be backed up: {error.problem}") from None


def _copied(database: Database, temporary: str, keys: str, progress: Progress | None) -> bool:
    """Write the copy and its keys; False if the store was meanwhile replaced, or written while read without locks."""
    with database.snapshot() as session, files.explaining(temporary, "write the backup"):
        own_keys = _key_of(database, session)
        if own_keys is None:
            return False
        key, envelope = own_keys
        is_unsealed = database.file.is_unsealed
        with contextlib.suppress(FileNotFoundError):  # of the previous try
            files.system.unlink(temporary)
        os.close(files.create(temporary))
        lack = 0
        try:
            copy = engine.opened(temporary, key)
            try:
                copy.execute("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF").fetchall()
                if key is None:
                    # The checksum layer reads in the first page that pages have room for checksums. The backup writes
                    # that page last, and others earlier, when its cache of 2 MB is full.
                    copy.reserve_bytes(reserve=engine.RESERVED_BYTES)
                    copy.execute("CREATE TABLE first (page); DROP TABLE first").fetchall()
                with session.standing_still(), copy.backup("main", session.raw, "main") as backup:
                    while not backup.step(_PAGES_AT_ONCE):
                        if progress is not None:
                            progress(backup.page_count - backup.remaining, backup.page_count)
                    if progress is not None:
                        progress(backup.page_count, backup.page_count)
                for sql in touched_rows.ending(touched_rows.of(copy)):  # the move is not the copy's
                    copy.execute(sql).fetchall()
                schema.mark_copied(copy)
                if key is not None:
                    cipher.check(copy, engine.beginning_of(temporary), key, temporary)
            finally:
                lack = copy.system_errno
                copy.close()
        except apsw.Error as error:
            if database.pool.is_disturbed(session):
                return False
            told = engine.translated(temporary, error, "write the backup", lack)
            raise (engine.corrupt(database.path) if isinstance(told, CorruptStoreError) else told) from error
        if database.pool.is_disturbed(session):
            return False
        _check(database, temporary, key, whole=is_unsealed)
        files.sync_file(temporary)
    if key is not None:
        from jarvis.encryption.envelope import with_only
        from jarvis.encryption.key_file import write

        number = None if envelope is None else envelope.key_with(key.salt)
        if envelope is None or number is None:
            return False
        write(keys, with_only(envelope, number))
    return True
