"""Write the stores of this version that later ones must open: python tests/stores/make.py VERSION.

Run it once, before a change of format lands; what it wrote is never written again.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from jarvis.persistent_memory import MemoryModule
from jarvis.storage_backend import MemoryEntry

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def entries() -> list[MemoryEntry]:
    """Return what the stores hold, newest first, but for what the module fills in."""
    values: list[dict[str, Any]] = [
        {"n": 1},
        {"at": START, "pair": (1, 2)},
        {"$type": "mine"},
        {"text": "żółć \x00 " + "x" * 5000},
    ]
    return [
        MemoryEntry(
            f"id-{number}",
            f"category-{number % 2}",
            f"key-{number}",
            value,
            ["all", f"tag-{number}"],
            "kind",
            None if number == 0 else f"entity-{number}",
            START - timedelta(hours=number),
            {"module": "maker", "task_id": "none", "created_at": START.isoformat()},
        )
        for number, value in enumerate(values)
    ]


def main() -> None:
    """Write both backends' stores, with a second namespace in each."""
    directory = Path(__file__).parent
    for backend_type, suffix in (("sqlite", "db"), ("json", "json")):
        with MemoryModule(storage_dir=directory / "new", backend_type=backend_type) as memory:
            for entry in reversed(entries()):
                memory.backend.create(entry)
                memory.for_namespace("alice").backend.create(entry)
        (directory / "new" / f"memory.{suffix}").rename(directory / f"version-{sys.argv[1]}.{suffix}")
    for left in (directory / "new").iterdir():
        left.unlink()
    (directory / "new").rmdir()


if __name__ == "__main__":
    main()
