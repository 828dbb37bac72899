"""The command line ``jarvis-memory``: how people meet the memory. Nothing here knows how a memory works."""

from __future__ import annotations


def main() -> None:
    """Run the command line with the arguments of the process; end the process with an exit code."""
    from jarvis.interfaces.cli.app import run

    run()
