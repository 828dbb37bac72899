"""What does compression save of real text, what does it cost, and does storing anew hinder other writers?

The text is that of Python's own help, cut into values of three sizes. Levels of zstd are compared on it; then three
modules, one for each setting, take turns, each on a store of its own; then a store that was written plain is stored
anew while another module writes.

python -m benchmarks.compression [--quick] [--write] [--entries N]
"""

from __future__ import annotations

import functools
import pydoc_data.topics
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import Goal
from benchmarks.systems.jarvis_sqlite import Jarvis
from jarvis.codec import compression, encode
from jarvis.codec.compression import Mode
from jarvis.persistent_memory import MemoryModule

SIZES = {"300 B": 300, "2 KiB": 2_048, "50 KiB": 51_200}
LEVELS = (1, 3, 6, 9, 12, 15, 19, 22)
ENTRIES = 20_000
SAMPLES = 40

TEXT = "\n".join(text for _, text in sorted(pydoc_data.topics.topics.items()))
"""English prose with some code in it, 700 kB."""


def value(number: int, size: int) -> dict[str, Any]:
    """Return the value with this number, about `size` bytes of JSON."""
    start = number * 7_919 % (len(TEXT) - size)
    return {"role": "user", "text": TEXT[start : start + size - 40], "turn": number}


def levels(times: int) -> dict[str, Any]:
    """Return, by size and level, the ratio, and the time to compress and to decompress, each in turns."""
    found: dict[str, Any] = {}
    zstd: Any = compression._zstd()
    for name, size in SIZES.items():
        plain = [encode(value(number, size)) for number in range(SAMPLES)]
        taken: dict[int, tuple[list[int], list[int]]] = {level: ([], []) for level in LEVELS}
        packed: dict[int, list[bytes]] = {level: [zstd.compress(each, level) for each in plain] for level in LEVELS}
        for turn in range(times):
            for level in LEVELS:
                data, frame = plain[turn % SAMPLES], packed[level][turn % SAMPLES]
                taken[level][0].append(_timed(functools.partial(zstd.compress, data, level)))
                taken[level][1].append(_timed(functools.partial(compression.decompress, frame)))
        found[name] = {
            str(level): {
                "ratio": round(sum(map(len, plain)) / sum(map(len, packed[level])), 3),
                "compress_us": round(statistics.median(taken[level][0]) / 1000, 1),
                "decompress_us": round(statistics.median(taken[level][1]) / 1000, 1),
            }
            for level in LEVELS
        }
    return found


def _timed(call: Callable[[], object]) -> int:
    start = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - start


def calls(directory: Path, name: str, size: int, rounds: int) -> dict[str, Any]:
    """Return, by setting, the figures of a durable create and of a get, and the bytes of an entry in the file."""
    modes: tuple[Mode, ...] = ("off", "auto", "max")
    memories = {mode: MemoryModule(storage_dir=_file(directory, name, mode).parent, compression=mode) for mode in modes}
    ids: dict[str, list[str]] = {mode: [] for mode in modes}
    creates: dict[str, list[list[int]]] = {mode: [] for mode in modes}
    gets: dict[str, list[list[int]]] = {mode: [] for mode in modes}
    count = 20 if size < 10_000 else 5
    for turn in range(rounds + 1):
        for mode, memory in memories.items():
            first = len(ids[mode])
            made = [_create(memory, number, size, ids[mode]) for number in range(first, first + count)]
            got = []
            for number in range(first, first + count):
                start = time.perf_counter_ns()
                entry = memory.get_memory(ids[mode][number])
                got.append(time.perf_counter_ns() - start)
                if entry is None or entry.value != value(number, size):
                    raise RuntimeError("another value came back than was stored")
            if turn:
                creates[mode].append(made)
                gets[mode].append(got)
    for memory in memories.values():
        memory.shutdown()
    return {
        mode: {
            "create": harness.statistics_of(creates[mode]),
            "get": harness.statistics_of(gets[mode]),
            "bytes_an_entry": round(_file(directory, name, mode).stat().st_size / len(ids[mode])),
        }
        for mode in modes
    }


def _file(directory: Path, name: str, mode: str) -> Path:
    return directory / f"{name} {mode}" / "memory.db"


def _create(memory: MemoryModule, number: int, size: int, ids: list[str]) -> int:
    held = value(number, size)
    start = time.perf_counter_ns()
    memory_id = memory.create_memory("conversations", f"message-{number}", held, "message", tags=["said"])
    taken = time.perf_counter_ns() - start
    ids.append(memory_id)
    return taken


def stored_anew(directory: Path, entries: int, mode: Mode) -> dict[str, Any]:
    """Return how long storing a plain store anew takes, and how long the slowest write of another waits."""
    store = directory / f"anew-{mode}"
    with MemoryModule(storage_dir=store, compression="off", durability="normal") as memory:
        for start in range(0, entries, 1_000):
            with memory.transaction():
                for number in range(start, min(start + 1_000, entries)):
                    memory.create_memory("conversations", str(number), value(number, 2_048), "message", tags=["said"])
    file = store / "memory.db"
    before, waited, is_over = file.stat().st_size, [0], threading.Event()
    other = MemoryModule(storage_dir=store)

    def write() -> None:
        while not is_over.wait(0.005):
            waited.append(_timed(lambda: other.create_memory("beside", "k", {"n": 1}, "t")))
        other.shutdown()

    writer = threading.Thread(target=write)
    with MemoryModule(storage_dir=store, compression=mode) as memory:
        writer.start()
        begin = time.perf_counter()
        done = memory.store.recompress()
        seconds = time.perf_counter() - begin
        is_over.set()
        writer.join()
        if done.entries != entries:
            raise RuntimeError("something was not stored anew")
    return {
        "entries": entries,
        "seconds": round(seconds, 3),
        "values_bytes": [done.bytes_before, done.bytes_after],
        "file_bytes": [before, file.stat().st_size],
        "writes_beside": len(waited) - 1,
        "longest_write_seconds": round(max(waited) / 1e9, 3),
    }


def goals(results: dict[str, Any]) -> list[Goal]:
    """Return each figure beside what is wanted of it."""
    found = []
    for name, ratio in (("2 KiB", 2.0), ("50 KiB", 2.5)):
        fast, thorough = results["levels"][name]["3"], results["levels"][name]["19"]
        found.append(Goal(f"{name} of text, auto: smaller by", None, None, None, "", fast["ratio"], at_least=ratio))
        found.append(Goal(f"{name} of text, max: smaller by", None, None, None, "", thorough["ratio"], at_least=ratio))
    wanted = {"300 B": (1.1, 1.1), "2 KiB": (1.25, 2.0), "50 KiB": (1.25, 2.0)}
    for name, figures in results["calls"].items():
        for title, verb, mode, at_most in (
            ("create, durable", "create", "auto", wanted[name][0]),  # who asks for max has asked for what it costs
            ("get", "get", "auto", wanted[name][1]),
            ("get", "get", "max", wanted[name][1]),
        ):
            ours, plain = figures[mode][verb]["median_us"], figures["off"][verb]["median_us"]
            what, ratio = f"{title}, {name}, {mode}", round(ours / plain, 3)
            found.append(Goal(what, None, ours, plain, "µs", ratio, at_most=at_most, beside="plain"))
    for mode, figures in results["stored_anew"].items():
        title, entries = f"2 KiB values stored anew, {mode}", figures["entries"]
        each = round(figures["seconds"] / entries * 1e6, 1)
        found.append(Goal(f"{title}, each", entries, None, None, "", each, at_most=1_000, figure_unit="µs"))
        wait = figures["longest_write_seconds"]
        found.append(
            Goal(f"{title}, longest write beside", entries, None, None, "", wait, at_most=0.5, figure_unit="s")
        )
        for what, at_most in (("values", 0.55), ("file", 1.0)):
            before, after = (size / 1024 for size in figures[f"{what}_bytes"])
            ratio = round(after / before, 3)
            found.append(
                Goal(f"{title}, {what}", entries, after, before, "KiB", ratio, at_most=at_most, beside="before")
            )
    return found


def main() -> None:
    """Measure and check in."""
    chosen = harness.options(__doc__, entries=str(ENTRIES))
    machine = harness.machine()
    entries = 500 if chosen.quick else int(chosen.entries)
    rounds = 3 if chosen.quick else 40
    with harness.stores() as stores, stores.own("jarvis", 0) as directory:
        modes: tuple[Mode, ...] = ("auto", "max")
        results = {
            "levels": levels(SAMPLES if chosen.quick else 10 * SAMPLES),
            "calls": {name: calls(directory, name, size, rounds) for name, size in SIZES.items()},
            "stored_anew": {mode: stored_anew(directory, entries, mode) for mode in modes},
        }
    harness.publish("compression", machine, {"jarvis": Jarvis.versions()}, results, goals(results), write=chosen.write)


if __name__ == "__main__":
    main()
