"""What does encryption cost: a warm read, a durable create, opening, and changing the keys?

A plain store and an encrypted one of the same entries are asked in turns, in one process. Then each is opened again and
again, with the key at hand and with a passphrase. Then slots are added and removed, and a store is encrypted.

python -m benchmarks.encryption [--quick] [--write] [--entries N]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.corpus import COMMON_TAG, record
from benchmarks.harness import Goal
from benchmarks.systems.jarvis_sqlite import Jarvis
from jarvis.keys import KeyFunction, Passphrase
from jarvis.persistent_memory import MemoryModule

ENTRIES = 10_000
AT_ONCE = 1_000
WORDS = "correct horse battery staple"
NAMES = ("encrypted", "plain")

QUESTIONS: dict[str, Callable[[MemoryModule], Any]] = {
    "get by key": lambda memory: memory.get_memory_by_key(record(77).key),
    "newest 50 of a category": lambda memory: memory.search_memories(category="conversations", limit=50),
    "newest 20 of a common tag": lambda memory: memory.search_memories(tags=[COMMON_TAG], limit=20),
    "list all": lambda memory: memory.list_memories(),
}


def _key() -> bytes:
    return b"k" * 32


def opened(directory: Path, name: str, *, durable: bool = True) -> MemoryModule:
    """Return a memory on a store of its own, encrypted or plain."""
    options: dict[str, Any] = {"encryption": "required", "keys": [KeyFunction(_key)]} if name == "encrypted" else {}
    return MemoryModule(storage_dir=directory / name, durability="full" if durable else "normal", **options)


def _fill(memory: MemoryModule, entries: int) -> None:
    for first in range(0, entries, AT_ONCE):
        with memory.transaction():
            for number in range(first, min(first + AT_ONCE, entries)):
                memory.create_memory(*record(number)[:5], tags=record(number).tags)


def in_turns(stores: dict[str, MemoryModule], act: Callable[[MemoryModule], Any], rounds: int, times: int) -> Any:
    """Return the figures of an action on each store, in turns; the first round is not counted."""
    taken: dict[str, list[list[int]]] = {name: [] for name in stores}
    for turn in range(rounds + 1):
        for name, memory in stores.items():
            figures = []
            for _ in range(times):
                start = time.perf_counter_ns()
                act(memory)
                figures.append(time.perf_counter_ns() - start)
            if turn:
                taken[name].append(figures)
    return {name: harness.statistics_of(figures) for name, figures in taken.items()}


def creates(directory: Path, entries: int, rounds: int, *, durable: bool) -> Any:
    """Return the figures of a create."""
    stores = {name: opened(directory / f"{durable}", name, durable=durable) for name in NAMES}
    for memory in stores.values():
        _fill(memory, entries)
    number = entries

    def create(memory: MemoryModule) -> None:
        nonlocal number
        number += 1
        memory.create_memory(*record(number)[:5], tags=record(number).tags)

    found = in_turns(stores, create, rounds, 40)
    for memory in stores.values():
        memory.shutdown()
    return found


def openings(directory: Path, entries: int, rounds: int) -> dict[str, Any]:
    """Return the figures of a first read by a new module, with the packages loaded."""
    for name in NAMES:
        with opened(directory, name) as memory:
            _fill(memory, entries)

    def open_and_read(name: str) -> None:
        memory = opened(directory, name)
        memory.get_memory_by_key("none")
        memory.shutdown()

    taken: dict[str, list[list[int]]] = {name: [] for name in NAMES}
    for turn in range(rounds + 1):
        for name in NAMES:
            figures = []
            for _ in range(10):
                start = time.perf_counter_ns()
                open_and_read(name)
                figures.append(time.perf_counter_ns() - start)
            if turn:
                taken[name].append(figures)
    return {name: harness.statistics_of(figures) for name, figures in taken.items()}


def keys(directory: Path, entries: int, rounds: int) -> dict[str, float]:
    """Return how long the keys of a store of so many entries take to be changed: milliseconds, then seconds."""
    with opened(directory, "encrypted") as memory:
        adding, removing, spoken = [], [], []
        for _ in range(rounds):
            start = time.perf_counter()
            slot = memory.store.add_key_slot(KeyFunction(_key, "another"))
            adding.append(time.perf_counter() - start)
            start = time.perf_counter()
            memory.store.remove_key_slot(slot)
            removing.append(time.perf_counter() - start)
        start = time.perf_counter()
        slot = memory.store.add_key_slot(Passphrase(WORDS))
        spoken.append(time.perf_counter() - start)
        start = time.perf_counter()
        rotated = memory.store.rotate_key()
        rotating = time.perf_counter() - start
    start = time.perf_counter()
    with MemoryModule(storage_dir=directory / "encrypted", keys=[Passphrase(WORDS)]) as memory:
        memory.get_memory_by_key("none")
    by_passphrase = time.perf_counter() - start
    return {
        "add_slot_ms": round(sorted(adding)[rounds // 2] * 1000, 2),
        "remove_slot_ms": round(sorted(removing)[rounds // 2] * 1000, 2),
        "add_passphrase_ms": round(spoken[0] * 1000, 1),
        "open_by_passphrase_ms": round(by_passphrase * 1000, 1),
        "rotate_seconds": round(rotating, 3),
        "rotate_locked_ms": round(rotated.locked_seconds * 1000, 1),
        "entries": entries,
    }


def goals(results: dict[str, Any]) -> list[Goal]:
    """Return each ratio beside what is wanted of it."""
    found = []
    entries = results["entries"]
    for title, figures in results["creates"].items():
        ours, other = figures["encrypted"]["median_us"], figures["plain"]["median_us"]
        wanted = 1.25 if title == "durable" else 2.0
        found.append(
            Goal(
                f"a create, {title}", entries, ours, other, "µs", round(ours / other, 3), at_most=wanted, beside="plain"
            )
        )
    for title, figures in results["reads"].items():
        ours, other = figures["encrypted"]["median_us"], figures["plain"]["median_us"]
        found.append(Goal(title, entries, ours, other, "µs", round(ours / other, 3), at_most=1.15, beside="plain"))
    opening = results["openings"]
    more = (opening["encrypted"]["median_us"] - opening["plain"]["median_us"]) / 1000
    found.append(Goal("opening takes longer by", entries, None, None, "", round(more, 3), at_most=2, figure_unit="ms"))
    held = results["keys"]
    for title, key, unit, most in (
        ("a slot is added in", "add_slot_ms", "ms", 10),
        ("a slot is removed in", "remove_slot_ms", "ms", 10),
        ("a slot for a passphrase is added in", "add_passphrase_ms", "ms", 1_000),
        ("opening with a passphrase", "open_by_passphrase_ms", "ms", 1_000),
        ("the key is rotated in", "rotate_seconds", "s", 10),
        ("writers wait for that", "rotate_locked_ms", "ms", 500),
    ):
        found.append(Goal(title, entries, None, None, "", held[key], at_most=most, figure_unit=unit))
    return found


def main() -> None:
    """Measure and check in."""
    chosen = harness.options(__doc__, entries=str(ENTRIES))
    machine = harness.machine()
    entries = 1_000 if chosen.quick else int(chosen.entries)
    rounds = 3 if chosen.quick else 20
    with harness.stores() as stores, stores.own("jarvis", 0) as directory:
        held = {name: opened(directory / "reads", name, durable=False) for name in NAMES}
        for memory in held.values():
            _fill(memory, entries)
        results = {
            "entries": entries,
            "reads": {title: in_turns(held, ask, rounds, 10) for title, ask in QUESTIONS.items()},
            "creates": {
                "durable": creates(directory, entries, rounds, durable=True),
                "without sync": creates(directory, entries, rounds, durable=False),
            },
            "openings": openings(directory / "openings", entries, rounds),
        }
        for memory in held.values():
            memory.shutdown()
        results["keys"] = keys(directory / "openings", entries, 20)
    harness.publish("encryption", machine, {"jarvis": Jarvis.versions()}, results, goals(results), write=chosen.write)


if __name__ == "__main__":
    main()
