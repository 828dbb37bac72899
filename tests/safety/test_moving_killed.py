"""A migration and an import that are killed at any point go on, and nothing is lost or doubled."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from jarvis.moving import migrate
from jarvis.persistent_memory import MemoryModule

from . import processes


@pytest.mark.parametrize("kind", ["sqlite", "json"])
@pytest.mark.parametrize("what", ["migrate", "import"])
def test_what_is_killed_goes_on(tmp_path: Path, what: str, kind: str, soak: bool) -> None:
    chance = random.Random(1)
    source = MemoryModule(storage_dir=tmp_path / "source", durability="normal")
    for name in ("default", "alice"):
        part = source.for_namespace(name)
        ids = part.create_memories(
            [{"category": "c", "key": str(number), "value": {"n": number}, "entity_type": "t"} for number in range(200)]
        )
        for memory_id in ids[::5]:
            part.update_memory(memory_id, value={"n": -1})
    source.store.export(tmp_path / "all.jsonl")
    source.shutdown()
    whole = (tmp_path / "all.jsonl").read_bytes()
    given = tmp_path / ("source" if what == "migrate" else "all.jsonl")
    killed = 0
    for round_ in range(40 if soak else 4):
        target = tmp_path / f"target {round_}"
        for _ in range(3):
            child = processes.start("moving", what, given, target, kind)
            for _ in range(chance.randrange(1, 8)):
                if processes.read_line(child) == "done":
                    break
            else:
                time.sleep(chance.random() / 100)
                child.kill()
                killed += 1
            child.wait()
        with MemoryModule(storage_dir=target, backend_type=kind) as memory:
            if what == "migrate":
                migrate(tmp_path / "source", memory)
            else:
                memory.store.import_(given)
            memory.store.export(tmp_path / "again.jsonl", overwrite=True)
            assert (tmp_path / "again.jsonl").read_bytes() == whole
            assert memory.store.verify().problems == {}
    assert killed
