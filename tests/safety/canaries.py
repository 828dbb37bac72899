"""A store full of canaries that was churned, each kind of erasure, and a search of every byte for what is left."""

from __future__ import annotations

import json
import random
import re
import string
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from jarvis.model.erasure import ErasureReceipt
from jarvis.persistent_memory import MemoryModule

KINDS = ("id", "entity", "filters", "namespace")
FRAGMENT = 8

_LETTERS = string.ascii_uppercase + string.digits  # no id and no text of ours holds eight of them in a row
_CYRILLIC = "абвгдежзийклмнопрстуфхцчшщъыьэюя"
_FIRST = re.compile(rb"[\xd0\xd1]|\\u04|[0-9a-f]{8}-")  # where a text or an id may begin
_RUNS = re.compile(rb"[A-Z0-9]{%d,}" % FRAGMENT)


class Canary(NamedTuple):
    """Texts that are in one memory and nowhere else."""

    token: str
    text: str
    memory_id: str


class Canaries:
    """Those of one kind, and how to look for them."""

    def __init__(self, held: Iterable[Canary]) -> None:
        self.held = list(held)
        self._fragments = {
            canary.token[start : start + FRAGMENT].encode()
            for canary in self.held
            for start in range(len(canary.token) - FRAGMENT + 1)
        }
        self._whole: dict[int, set[bytes]] = {}  # by their length
        for canary in self.held:
            for form in (canary.text, canary.memory_id, json.dumps(canary.text)[1:-1]):
                self._whole.setdefault(len(form.encode()), set()).add(form.encode())

    def found(self, directory: Path) -> list[str]:
        """Return where a fragment, a text (as UTF-8 or escaped) or an id stands in the files of a directory.

        Another process copies them: closing a file that SQLite has open ends this process's locks on it.
        """
        with tempfile.TemporaryDirectory() as copies:
            subprocess.run(["cp", "-R", str(directory), copies], check=True)
            return self._found(Path(copies))

    def _found(self, directory: Path) -> list[str]:
        found = []
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                data = path.read_bytes()
                for run in _RUNS.finditer(data):
                    text = run[0]
                    if any(text[at : at + FRAGMENT] in self._fragments for at in range(len(text) - FRAGMENT + 1)):
                        found.append(f"{path.name} at {run.start()}: {text!r}")
                for place in _FIRST.finditer(data):
                    at = place.start()
                    if any(data[at : at + length] in forms for length, forms in self._whole.items()):
                        found.append(f"{path.name} at {at}")
        return found


def fill(directory: Path, backend: str, *, canaries: int, entries: int, seed: int) -> dict[str, Canaries]:
    """Make a store with so many canaries of each kind among so many entries, and churn it."""
    chance = random.Random(seed)
    made: dict[str, list[Canary]] = {kind: [] for kind in KINDS}
    with MemoryModule(storage_dir=directory, backend_type=backend, durability="normal") as memory:
        victim = memory.for_namespace(f"victim-{_token(chance)}")
        names = {"namespace": victim.namespace}
        plain: list[str] = []
        step = max(entries // canaries, 1)
        for first in range(0, entries, 2_000):
            with memory.transaction():
                for number in range(first, min(first + 2_000, entries)):
                    plain.append(_create(memory, number, chance))
                    if number % step == 0 and number // step < canaries:
                        for kind in KINDS:
                            where = victim if kind == "namespace" else memory
                            made[kind].append(_hide(where, kind, number // step, chance))
        _churn(memory, plain, chance)
        for kind in KINDS:
            _churn_canaries(victim if kind == "namespace" else memory, made[kind])
    found = {kind: Canaries(held) for kind, held in made.items()}
    (directory.parent / f"{directory.name}.json").write_text(
        json.dumps({"namespace": names["namespace"], "ids": [canary.memory_id for canary in made["id"]]})
    )
    return found


def erase(memory: MemoryModule, kind: str, known: Path) -> ErasureReceipt:
    """Erase the canaries of a kind; `known` is the file that `fill` wrote beside the store."""
    told = json.loads(known.read_text())
    erasures: dict[str, Callable[[], ErasureReceipt]] = {
        "id": lambda: _each(memory, told["ids"]),
        "entity": lambda: memory.erase_entity("person", "canary"),
        "filters": lambda: memory.erase_memories(category="secrets", where={"is": {"$in": ["canary", "changed"]}}),
        "namespace": lambda: memory.store.erase_namespace(told["namespace"]),
    }
    return erasures[kind]()


def _each(memory: MemoryModule, ids: list[str]) -> ErasureReceipt:
    with memory.transaction():  # the file is written anew once, behind the last
        for memory_id in ids:
            assert memory.erase_memory(memory_id).state == "pending"
    return memory.erase_memory(ids[-1])  # of which nothing is known any more: the files are clean


def _token(chance: random.Random) -> str:
    return "".join(chance.choices(_LETTERS, k=20))


def _create(memory: MemoryModule, number: int, chance: random.Random) -> str:
    value = {"n": number, "text": "x" * chance.randrange(400)}
    return memory.create_memory(f"plain-{number % 7}", f"k{number}", value, "plain", None, [f"t{number % 11}"])


def _hide(memory: MemoryModule, kind: str, number: int, chance: random.Random) -> Canary:
    token, text = _token(chance), "".join(chance.choices(_CYRILLIC, k=16))
    category = "secrets" if kind == "filters" else f"category-{token}"
    memory_id = memory.create_memory(
        category,
        f"key-{token}",
        {"is": "canary", "text": f"«{text}»\n{token}", token: [token] * 3},
        "person" if kind == "entity" else f"type-{token}",
        "canary" if kind == "entity" else f"entity-{token}",
        [f"tag-{token}", token, "canary"],
        module=f"module-{token}",
        task_id=token,
        reason=f"because {token}",
        # Of what was purged no value is known: a filter by value does not find what is noted of it.
        ttl=timedelta(milliseconds=1) if number % 10 == 7 and kind != "filters" else None,
    )
    return Canary(token, text, memory_id)


def _churn(memory: MemoryModule, plain: list[str], chance: random.Random) -> None:
    for first in range(0, len(plain), 2_000):
        with memory.transaction():
            for memory_id in plain[first : first + 2_000]:
                luck = chance.random()
                if luck < 0.3:
                    memory.update_memory(memory_id, {"text": "y" * chance.randrange(900)})
                elif luck < 0.5:
                    memory.delete_memory(memory_id)


def _churn_canaries(memory: MemoryModule, canaries: list[Canary]) -> None:
    with memory.transaction():
        for number, (token, text, memory_id) in enumerate(canaries):
            value = {"is": "changed", "text": f"{text} {token}", "more": "z" * (number * 37 % 800)}
            memory.update_memory(memory_id, value, [f"new-{token}"], module=token, reason=token)
            if number % 5 == 1:
                memory.delete_memory(memory_id, reason=f"gone {token}")
            if number % 10 == 6:
                memory.undo(memory_id, reason=token)
