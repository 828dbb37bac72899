"""A child that copies a store, or imports a file, in small steps, and says how far it is."""

from __future__ import annotations

import sys

from jarvis.moving import migrate
from jarvis.persistent_memory import MemoryModule
from jarvis.services import transferring


def main() -> None:
    what, source, target, kind = sys.argv[1:]
    transferring.AT_ONCE = 20
    with MemoryModule(storage_dir=target, backend_type=kind) as memory:
        if what == "migrate":
            migrate(source, memory, progress=lambda done, _: print(done, flush=True))
        else:
            memory.store.import_(source, progress=lambda done, _: print(done, flush=True))
    print("done", flush=True)


if __name__ == "__main__":
    main()
