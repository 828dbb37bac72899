"""Tells how many bytes a SQLite store takes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jarvis._disk import files
from jarvis.model.analytics import Sizes

if TYPE_CHECKING:
    from jarvis._sql.session import Session
    from jarvis._sqlite.database import Database

_FREE = "SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size"
_HAS_INDEX = "SELECT 1 FROM sqlite_schema WHERE name = 'text_index_data'"
_INDEX = """
SELECT (SELECT coalesce(sum(length(block)), 0) FROM text_index_data)
    + (SELECT coalesce(sum(length(sz)), 0) FROM text_index_docsize)
"""
"""The tables of https://sqlite.org/fts5.html, section 9.1; without what SQLite adds to each row."""


def sizes(database: Database) -> Sizes:
    """Return how many bytes the store takes."""
    free, index = database.read(_inside)
    with files.explaining(database.path, "look at its size"):
        size = os.stat(database.path).st_size
    try:
        log = os.stat(f"{database.path}-wal").st_size
    except OSError:  # there is none, or it has just been removed
        log = 0
    return Sizes(size, log, index, free)


def _inside(session: Session) -> tuple[int, int]:
    ((free,),) = session.rows(_FREE)
    ((index,),) = session.rows(_INDEX) if session.rows(_HAS_INDEX) else ((0,),)
    return free, index
