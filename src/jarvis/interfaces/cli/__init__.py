"""The command line ``jarvis-memory``: how people meet the memory. Nothing here knows how a memory works."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line with the arguments of the process; end the process with an exit code."""
    try:
        from jarvis.interfaces.cli.app import run

        run()
    except KeyboardInterrupt:  # before a command has begun
        sys.exit(130)
