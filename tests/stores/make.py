"""Write the stores of this version that later ones must open: python tests/stores/make.py VERSION.

Run it once, before a change of format lands; what it wrote is never written again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from jarvis.keys import KeyFunction, Passphrase
from jarvis.persistent_memory import MemoryModule
from jarvis.storage_backend import MemoryEntry

Clock = Callable[[int], None]

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


def live(memory: MemoryModule, tell: Clock) -> None:
    """Give a namespace a past: in hourly steps from `START` on, what `PAST` says; see there for what was when."""
    first = memory.create_memory("notes", "first", {"n": 1}, "note", tags=["x"], module="maker")
    tell(1)
    memory.update_memory(first, {"n": 2, "at": START}, ["x", "y"], module="changer", task_id="7", reason="better")
    tell(2)
    with memory.transaction():
        memory.create_memory("notes", "second", {"n": 3}, "note")
        memory.delete_memory(first, module="cleaner")
    tell(3)
    memory.undo(first, module="undoer")
    tell(4)
    memory.clear_all(reason="moving")
    tell(5)


PAST: list[dict[str, dict[str, Any]]] = [
    {"first": {"n": 1}},
    {"first": {"n": 2, "at": START}},
    {"second": {"n": 3}},
    {"first": {"n": 2, "at": START}, "second": {"n": 3}},
    {},
]
"""Keys and values in the namespace ``lived`` of stores from version 3 on, as of each hour."""

FEED = ["create", "update", "create", "delete", "undo", "clear", "clear"]
"""The changes of that namespace."""


def mortal(memory: MemoryModule, tell: Clock) -> None:
    """Give a namespace memories that expire: one that was purged, one that was not yet, and one that lives on."""
    tell(5)
    memory.create_memory("notes", "purged", {"n": 1}, "note", ttl=timedelta(hours=1))
    memory.create_memory("notes", "waiting", {"n": 2}, "note", tags=["x"], ttl=timedelta(hours=3))
    memory.create_memory("notes", "long", {"n": 3}, "note", tags=["x"], ttl=timedelta(days=100))
    tell(7)
    memory.store.purge_expired(module="cleaner", reason="tidying")
    tell(10)


WORDS = "correct horse battery staple"
LONG = "a text that is stored compressed, " * 100


def sealed_key() -> bytes:
    """Return the key of the encrypted store that is kept here."""
    return bytes(range(32))


def seal(version: str) -> None:
    """Write an encrypted store with two slots, a value that is compressed, and a past."""
    directory = Path(__file__).parent
    keys: list[Any] = [KeyFunction(sealed_key), Passphrase(WORDS)]
    with MemoryModule(storage_dir=directory / "new", encryption="required", keys=keys) as memory:
        memory.set_user_preference("theme", {"mode": "light"})
        memory.set_user_preference("theme", {"mode": "dark"}, reason="night")
        memory.create_memory("notes", "long", {"text": LONG}, "note", tags=["x"])
    for suffix in ("db", "keys"):
        (directory / "new" / f"memory.{suffix}").rename(directory / f"sealed-{version}.{suffix}")


def main() -> None:
    """Write both backends' stores, with a second namespace in each, a past, and what expired and was erased."""
    hours = 0

    def tell(hour: int) -> None:
        nonlocal hours
        hours = hour

    directory = Path(__file__).parent
    for backend_type, suffix in (("sqlite", "db"), ("json", "json")):
        with MemoryModule(
            storage_dir=directory / "new",
            backend_type=backend_type,
            clock=lambda: START + timedelta(days=36_500, hours=hours),
        ) as memory:
            tell(0)
            with memory.transaction():
                for entry in reversed(entries()):
                    memory.backend.create(entry)
                    memory.for_namespace("alice").backend.create(entry)
            live(memory.for_namespace("lived"), tell)
            memory.for_namespace("gone").create_memory("c", "k", {}, "t")
            memory.store.erase_namespace("gone")
            mortal(memory.for_namespace("mortal"), tell)  # nobody writes behind it
        (directory / "new" / f"memory.{suffix}").rename(directory / f"version-{sys.argv[1]}.{suffix}")
    seal(sys.argv[1])
    for left in (directory / "new").iterdir():
        left.unlink()
    (directory / "new").rmdir()


if __name__ == "__main__":
    main()
