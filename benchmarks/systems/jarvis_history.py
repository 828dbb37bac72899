"""The library itself as its users have it: what a change ends is kept."""

from __future__ import annotations

from pathlib import Path

from benchmarks.systems.jarvis_sqlite import Jarvis, opened
from jarvis.persistent_memory import HistoryPolicy


def open_in(directory: Path, *, durable: bool) -> JarvisWithHistory:
    """Return the store in `directory`, opened."""
    return JarvisWithHistory(opened(directory, "sqlite", durable=durable, history=HistoryPolicy()))


class JarvisWithHistory(Jarvis):
    """The same calls, with the usual policy."""
