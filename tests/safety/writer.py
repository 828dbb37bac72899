"""A process that writes without end, says what it is about to do, and acknowledges what is done.

    python -m safety.writer BACKEND DIRECTORY SEED FIRST_NUMBER

Lines on standard output, unbuffered: ``do <action>`` before a call, ``ok <ids of the keys it touched>`` after it.
"""

from __future__ import annotations

import json
import os
import random
import sys

from jarvis._sqlite import engine
from jarvis.persistent_memory import MemoryModule

from . import model


def say(word: str, what: object) -> None:
    os.write(1, f"{word} {json.dumps(what)}\n".encode())


def main(backend: str, directory: str, seed: str, first: int) -> None:
    chance = random.Random(seed)
    engine.SETTINGS = engine.SETTINGS.replace(f"wal_autocheckpoint = {engine.WAL_PAGES}", "wal_autocheckpoint = 150")
    memory = MemoryModule(storage_dir=directory, backend_type=backend)
    state = model.contents(memory)
    ids = model.ids_of(memory)
    number = first
    while True:
        action = model.random_action(chance, state, number)
        say("do", action)
        model.perform(memory, action, ids)
        touched = {change[1] for change in action["changes"] if len(change) > 1}
        say("ok", {key: ids[key] for key in touched if key in ids})
        state = model.after(state, action)
        if chance.random() < 0.05:
            memory.shutdown()
        number += 1


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
