"""Child processes of the tests: programs of this package, run with this Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]

_started: list[subprocess.Popen[bytes]] = []


def start(program: str, *arguments: object) -> subprocess.Popen[bytes]:
    """Start ``python -m safety.<program>`` with its standard input and output as unbuffered pipes."""
    paths = [str(TESTS), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    child = subprocess.Popen(
        [sys.executable, "-m", f"safety.{program}", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    _started.append(child)
    return child


def read_line(child: subprocess.Popen[bytes]) -> str:
    """Return the next line the child says; fail if it has ended instead."""
    assert child.stdout is not None
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = child.stdout.read(1)
        assert byte, f"the child ended with {child.wait()} after {bytes(line)!r}"
        line += byte
    return line.decode().strip()


def tell(child: subprocess.Popen[bytes], line: str = "") -> None:
    assert child.stdin is not None
    child.stdin.write(f"{line}\n".encode())


def end(child: subprocess.Popen[bytes]) -> str:
    """Wait for the child to end well; return what it said last."""
    said, _ = child.communicate(timeout=300)
    assert child.returncode == 0, f"the child ended with {child.returncode}"
    return said.decode()


def end_all() -> None:
    """Kill and reap what a failed test left running."""
    while _started:
        child = _started.pop()
        if child.poll() is None:
            child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
