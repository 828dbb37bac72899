"""Until the command line has it: ``python -m jarvis.interfaces.mcp --store DIR``."""

from __future__ import annotations

import argparse

from jarvis.interfaces.mcp.server import serve
from jarvis.persistent_memory import MemoryModule


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", required=True)
    parser.add_argument("--backend", default="sqlite")
    parser.add_argument("--tools", default="ours")
    parser.add_argument("--http", type=int)
    parser.add_argument("--token")
    parser.add_argument("--read-only", action="store_true")
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--namespace", default="default")
    given = parser.parse_args()
    is_url = given.backend == "postgresql"
    memory = MemoryModule(given.store) if is_url else MemoryModule(storage_dir=given.store, backend_type=given.backend)
    if given.namespace != "default":
        memory = memory.for_namespace(given.namespace)
    serve(
        memory,
        tools=given.tools,
        http=given.http,
        token=given.token,
        read_only=given.read_only,
        max_tokens=given.max_tokens,
    )


if __name__ == "__main__":
    main()
