"""Notices that something keeps reading an old state of a store, for whose log that means to grow until it ends."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from jarvis._sqlite.driver import WAL_PAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGE_BYTES = 4 * WAL_PAGES * 4096
"""A log that nobody keeps from being folded in is a quarter of that, behind a transaction of any size."""


class LogWatch:
    """Knows the readings of this process that last, and warns of a log that one keeps from being folded in.

    Args:
        path: of the store.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._begun: dict[object, float] = {}  # readings that go on, and when each began
        self._was_large = False
        self._told_bytes = 0

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Remember that a state of the store is read during a block."""
        reading = object()
        self._begun[reading] = time.monotonic()
        try:
            yield
        finally:
            self._begun.pop(reading, None)

    def look(self) -> None:
        """Log a warning if the log is large and was so at the last look, too; and again each time it has doubled.

        Once it may be large for another reason: behind a large transaction, until the next one begins it anew.
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
        import logging  # 8 ms to import, which most processes never need

        begun = min(list(self._begun.values()), default=None)
        where = "elsewhere" if begun is None else f"in this process, for {time.monotonic() - begun:.0f} s"
        logging.getLogger("jarvis.sqlite").warning(
            "the log of %s has grown to %d MB, because something reads an old state of it %s: it cannot be folded in "
            "before that ends; let each iter_memories() end, or close() it",
            self._path,
            size // 2**20,
            where,
        )
