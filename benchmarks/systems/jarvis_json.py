"""The library itself on its readable file."""

from __future__ import annotations

from pathlib import Path

from benchmarks.systems import jarvis_sqlite


def open_in(directory: Path, *, durable: bool) -> jarvis_sqlite.Jarvis:
    """Return the store in `directory`, opened."""
    return jarvis_sqlite.open_in(directory, durable=durable, backend_type="json")
