"""A copy of a store that is in use, with the keys that open it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import apsw

from jarvis import _files
from jarvis._sqlite import cipher, driver
from jarvis.errors import StoreAccessError, StoreBusyError

if TYPE_CHECKING:
    from jarvis._sqlite.database import Database

_MANY_TRIES = 20


def back_up(database: Database, directory: Path) -> Path:
    """Write the store as it is now into a directory, as a file of the same name; return its path.

    Readers and writers go on. The copy is encrypted as the store is, and its file of keys comes along.

    Raises:
        StoreAccessError: the directory holds such a file already.
        StoreError: the store cannot be read, or the copy cannot be written.
    """
    target = directory / os.path.basename(database.path)
    keys = directory / os.path.basename(database.vault.path)
    for path in (target, keys):
        if path.exists():
            raise StoreAccessError(path, "is there already; back up into a directory of its own")
    _files.ensure_directory(directory.absolute())
    with _files.explaining(target, "write the backup"):
        _files.remove_leftovers(str(target))
    temporary = _files.temporary_path(str(target))
    try:
        for _ in range(_MANY_TRIES):
            if _copied(database, temporary, str(keys)):
                _files.put_in_place(temporary, str(target), keep_existing=True)
                return target
        raise StoreBusyError(database.path, "it keeps being replaced while it is backed up; retry")
    except BaseException:
        with contextlib.suppress(OSError):
            _files.system.unlink(temporary)
        raise


def _copied(database: Database, temporary: str, keys: str) -> bool:
    """Write the copy and its keys; False if the store was replaced by another file meanwhile."""
    with database.snapshot() as session, _files.explaining(temporary, "write the backup"):
        key, envelope = database.key(), database.vault.envelope()
        if database.identity() != session.identity:
            return False
        os.close(_files.system.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
        try:
            copy = driver.opened(temporary, key)
            try:
                copy.execute("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF").fetchall()
                with copy.backup("main", session.connection, "main") as backup:
                    backup.step(-1)
                if key is not None:
                    cipher.check(copy, driver.beginning_of(temporary), key, temporary)
            finally:
                copy.close()
        except apsw.Error as error:
            raise driver.translated(temporary, error, "write the backup") from error
        _files.sync_file(temporary)
    if key is not None:
        from jarvis import envelope as keeping

        number = None if envelope is None else envelope.key_with(key.salt)
        if envelope is None or number is None:
            return False
        keeping.write(keys, keeping.with_only(envelope, number))
    return True
