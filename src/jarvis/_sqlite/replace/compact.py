"""A store's file written anew, in its place, with memory that does not grow with the store.

SQLite's VACUUM does the same in two steps: it builds the new content in a temporary database and copies that over
the old pages. The temporary database would be in memory, as large as the store: 123 MB for one of 107. Here it is
a file beside the store, with its owner, its key if it is encrypted, and a name by which the next writer removes what
a killed process left.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from jarvis._disk import files
from jarvis._sqlite import driver

if TYPE_CHECKING:
    import apsw

    from jarvis.encryption.data_key import DataKey


def compact(connection: apsw.Connection, path: str, key: DataKey | None) -> None:
    """Write the store at `path` anew, without free pages and without what b-trees left where they moved cells from.

    Needs the writer lock, and room on the disk for the store twice: in the file, and in the log.

    Raises:
        apsw.Error, StoreError: it failed; the store is as it was.
    """
    temporary = files.temporary_path(path)
    with files.explaining(path, "write the store anew"):
        os.close(files.create(temporary, path, private=True))
        try:
            connection.execute("VACUUM INTO ?", (temporary,)).fetchall()  # with the connection's key, if it has one
            source = driver.opened(temporary, key)
            try:
                if key is None:  # the checksum layer learns from the first page, which is written late, to make them
                    source.execute("PRAGMA checksum_verification = OFF").fetchall()
                copying = connection.backup("main", source, "main")
                try:
                    copying.step(-1)
                    copying.finish()
                finally:
                    copying.close(True)  # which tells no error a second time, as the end of a with block does
            finally:
                source.close()
        finally:
            with contextlib.suppress(OSError):
                files.system.unlink(temporary)
