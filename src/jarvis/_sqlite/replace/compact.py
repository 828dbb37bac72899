"""Compacts a store's file in place, with memory that does not grow with the store.

SQLite's VACUUM does the same in two steps: it builds the new content in a temporary database and copies that over
the old pages. That database would be in memory, as large as the store: 123 MB for one of 107. Here it is a file beside
the store, with its owner and its key if it is encrypted. By the file's name the next writer finds and removes it if
the process was killed.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from jarvis._disk import files
from jarvis._sqlite import engine

if TYPE_CHECKING:
    import apsw

    from jarvis.encryption.data_key import DataKey


def compact(connection: apsw.Connection, path: str, key: DataKey | None) -> None:
    """Write the store at `path` again, without free pages and without copies of cells that b-trees have moved.

    Needs the writers' lock, and room on the disk for the store twice: in the temporary file, and in the log.

    Raises:
        apsw.Error, StoreError: a step failed; the store is as it was.
    """
    temporary = files.temporary_path(path)
    with files.explaining(path, "compact the store"):
        os.close(files.create(temporary, path, private=True))
        try:
            connection.execute("VACUUM INTO ?", (temporary,)).fetchall()  # with the connection's key, if it has one
            source = engine.opened(temporary, key)
            try:
                if (
                    key is None
                ):  # the checksum layer reads in the first page, which is written late, that it must make checksums
                    source.execute("PRAGMA checksum_verification = OFF").fetchall()
                copying = connection.backup("main", source, "main")
                try:
                    copying.step(-1)
                    copying.finish()
                finally:
                    copying.close(True)  # unlike the end of a with block, this raises no error a second time
            finally:
                source.close()
        finally:
            with contextlib.suppress(OSError):
                files.system.unlink(temporary)
