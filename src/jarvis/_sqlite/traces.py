"""Searches all files of a store for erased ids.

A deletion overwrites the deleted cells, but not their copies in the log or where the b-tree moved cells from one page
to another. So an erasure compacts the file and empties the log, see
`jarvis._sqlite.store_file.StoreFile.finish_erasing`, and then searches whether any id is left.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from jarvis._disk import files
from jarvis._disk.traces import Wanted, search_files
from jarvis.codec.compression import decompress
from jarvis.model.erasure import Search

if TYPE_CHECKING:
    from jarvis._sql.session import Session
    from jarvis._sqlite.database import Database

_LARGE = """
SELECT id, key, entity_id, body, packed, NULL FROM entries
WHERE packed IS NOT NULL OR octet_length(key) + octet_length(body) > :large
UNION ALL
SELECT id, key, entity_id, body, packed, change FROM revisions
WHERE packed IS NOT NULL OR octet_length(key) + octet_length(body) + octet_length(change) > :large
UNION ALL
SELECT id, key, NULL, NULL, NULL, change FROM events WHERE octet_length(change) > :large
"""


def search(database: Database, ids: Collection[str]) -> Search:
    """Search the files of a store for `ids`: every byte, and the rows that a search of bytes cannot see."""
    wanted = Wanted(ids)
    with files.explaining(database.path, "search the files of the store"):
        result = search_files(database.file.files(), wanted, database.file.chunks_of)
    if not wanted:
        return result
    try:
        seen, hidden = database.read(lambda session: _mentions(session, wanted))
    except ValueError:  # a value that cannot be decompressed
        raise database.corrupt("an entry cannot be decoded") from None
    return result._replace(found=max(result.found, seen) + hidden)


def _mentions(session: Session, wanted: Wanted) -> tuple[int, int]:
    """Return how often ids stand in large rows: where a search of the file's bytes may see them, and where it cannot.

    A search of bytes does not see compressed text, nor text across the end of a page, which a row of more than half
    a page may have (https://sqlite.org/fileformat2.html#cell_payload_overflow_pages).

    Raises:
        ValueError: a value cannot be decompressed.
    """
    seen = hidden = 0
    large = session.rows("PRAGMA page_size")[0][0] // 2
    for *texts, packed, change in session.each(_LARGE, {"large": large}):
        seen += sum(wanted.count(text.encode()) for text in (*texts, change) if text is not None)
        if packed is not None:
            as_stored = wanted.count(packed)  # zstd leaves some texts as they are
            seen += as_stored
            hidden += max(wanted.count(decompress(packed)) - as_stored, 0)
    return seen, hidden
