"""Warns of a reader that keeps an old state of a store open: the store's log grows until that reader ends."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from jarvis._sqlite.engine import WAL_PAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGE_BYTES = 4 * WAL_PAGES * 4096
"""Four times the size of a log that can be folded in, even after a transaction of any size."""


class LogWatch:
    """Knows the long reads of this process, and warns if one keeps the log from being folded in."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._begun: dict[object, float] = {}  # when each read in progress began
        self._was_large = False
        self._told_bytes = 0

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Note that a block reads one state of the store."""
        reading = object()
        self._begun[reading] = time.monotonic()
        try:
            yield
        finally:
            self._begun.pop(reading, None)

    def look(self) -> None:
        """Log a warning if the log is large and was so at the last look too; and again each time its size has doubled.

        Once it may be large for another reason: after a large transaction, until the next one restarts the log.
        """
        try:
            size = os.stat(f"{self._path}-wal").st_size
        except OSError:
            return
        if size < LARGE_BYTES:
            self._was_large, self._told_bytes = False, 0
        elif not self._was_large:
            self._was_large = True
        elif size >= 2 * self._told_bytes:
            self._told_bytes = size
            self._warn(size)

    def _warn(self, size: int) -> None:
        import logging  # its import takes 8 ms, and most processes never need it

        begun = min(list(self._begun.values()), default=None)
        where = "elsewhere" if begun is None else f"in this process, for {time.monotonic() - begun:.0f} s"
        logging.getLogger("jarvis.sqlite").warning(
            "the log of %s has grown to %d MB, because something reads an old state of it %s: it cannot be folded in "
            "before that ends; let each iter_memories() end, or close() it",
            self._path,
            size // 2**20,
            where,
        )
