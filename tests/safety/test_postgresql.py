"""A PostgreSQL server is killed, and connections are cut, while processes write: nothing is lost or doubled."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from jarvis.persistent_memory import MemoryModule
from jarvis.postgresql_backend import PostgreSQLBackend

from ..cutting import Proxy, randomly
from ..postgresql import Server, a_database
from . import processes
from .conftest import Figures


class Writers:
    """Processes that write, and what they said."""

    def __init__(self, dsn: str, count: int, counter: str) -> None:
        self.said = Counter[str]()
        self.fates: dict[str, str] = {}
        self.errors: list[str] = []
        self._children = [processes.start("children", "write_beside_faults", dsn, f"p{n}") for n in range(count)]
        for child in self._children:
            processes.tell(child, counter)
            assert processes.read_line(child) == "writes"
        self._listeners = [threading.Thread(target=self._listen, args=(child,)) for child in self._children]
        for listener in self._listeners:
            listener.start()

    def _listen(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        rest = b""
        while data := child.stdout.read(1 << 16):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                word, _, key = line.decode().partition(" ")
                if word == "error":
                    self.errors.append(key)
                    continue
                self.said[f"{word} {key}" if key == "-" else word] += 1
                self.fates[key] = word

    def stop(self) -> None:
        for child in self._children:
            processes.tell(child)
        for listener in self._listeners:
            listener.join(timeout=60)
        for child in self._children:
            assert child.wait(timeout=60) == 0

    def check(self, memory: MemoryModule, counter: str) -> int:
        """Compare what is there with what was said; return how many writes were acknowledged."""
        there = Counter(entry.key for entry in memory.iter_memories())
        fates = {key: fate for key, fate in self.fates.items() if key != "-"}
        counted = memory.get_memory(counter)
        assert counted is not None

        assert [key for key, fate in fates.items() if fate == "kept" and there[key] != 1] == []
        assert [key for key, fate in fates.items() if fate == "pair" and there[key] != 2] == []
        assert [key for key, fate in fates.items() if fate == "not" and there[key]] == []
        assert [key for key in fates if there[key] not in ((0, 2) if key.endswith("+") else (0, 1))] == []
        assert 0 <= counted.value["n"] - self.said["counted -"] <= self.said["unknown -"]
        assert [error for error in self.errors if "postgresql://" not in error or "secret" in error] == []
        return self.said["kept"] + self.said["pair"] + self.said["counted -"]


@contextmanager
def writing(dsn: str, count: int, directly: str) -> Iterator[tuple[Writers, MemoryModule, str]]:
    memory = MemoryModule(PostgreSQLBackend(directly))
    counter = memory.set_user_preference("counter", {"n": 0})
    writers = Writers(dsn, count, counter)
    yield writers, memory, counter
    writers.stop()


def test_a_killed_server_loses_and_doubles_nothing(soak: bool, chance: random.Random, figures: Figures) -> None:
    server = Server("max_connections = 100\nfsync = on\nshared_buffers = 16MB")
    kills, count = (20, 8) if soak else (1, 3)
    with writing(server.dsn, count, server.dsn) as (writers, memory, counter):
        for _ in range(kills):
            time.sleep(chance.uniform(0.5, 1.5))
            server.kill()
            server.start()
        time.sleep(0.5)

    acknowledged = writers.check(memory, counter)
    assert acknowledged > 50 * kills
    figures.add(
        "postgresql", kills=kills, acknowledged=acknowledged, lost=0, doubled=0, unknown=writers.said["unknown"]
    )
    server.end()


@pytest.mark.parametrize("most", [10_000, 100_000])
def test_connections_cut_at_random_bytes_lose_and_double_nothing(
    most: int, soak: bool, chance: random.Random, figures: Figures
) -> None:
    with a_database() as dsn, Proxy(dsn) as proxy:
        proxy.bytes_left = randomly(chance, most)
        with writing(proxy.dsn, 3, dsn) as (writers, memory, counter):
            time.sleep(60 if soak else 3)
        acknowledged = writers.check(memory, counter)

    assert proxy.cuts > 50
    assert acknowledged > 20
    figures.add("postgresql", cuts=proxy.cuts, acknowledged=acknowledged, lost=0, doubled=0)
