"""The library itself on its readable file."""

from __future__ import annotations

from pathlib import Path

from benchmarks.systems.jarvis_sqlite import Jarvis, opened


def open_in(directory: Path, *, durable: bool) -> JarvisJSON:
    """Return the store in `directory`, opened."""
    return JarvisJSON(opened(directory, "json", durable=durable))


class JarvisJSON(Jarvis):
    """The same calls, without SQLite."""

    @staticmethod
    def versions() -> dict[str, str]:
        return {name: number for name, number in Jarvis.versions().items() if name != "sqlite"}
