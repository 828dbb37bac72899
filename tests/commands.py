"""Runs the command line as a person or a script does: in this process, in another one, or in a terminal."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pexpect
import pyte

from jarvis.interfaces.cli.app import _run

WIDTH, HEIGHT = 100, 50
_SIZES = ("COLUMNS", "LINES")


class Ended(NamedTuple):
    """A command that ended: its exit code, and what it wrote."""

    code: int
    out: str
    err: str


def called(*arguments: str, given: str = "") -> Ended:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "stdin", io.StringIO(given)),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")
        code = _run(list(arguments))
    return Ended(code, out.getvalue(), err.getvalue())


def command(*arguments: str) -> list[str]:
    """Return the command of another process."""
    return [sys.executable, "-m", "jarvis", *arguments]


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in another process, whose output goes to a pipe."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120, check=False, **options)


class Terminal:
    """A command that runs in a terminal of `WIDTH` columns."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str] | None = None, width: int = WIDTH) -> None:
        self._screen = pyte.Screen(width, HEIGHT)
        self._stream = pyte.Stream(self._screen)
        self.raw = ""
        program, *rest = command(*arguments)
        environment = {name: value for name, value in os.environ.items() if name not in _SIZES}
        self.process = pexpect.spawn(
            program,
            rest,
            dimensions=(HEIGHT, width),
            env={**environment, "TERM": "xterm-256color", **(env or {})},
            encoding="utf-8",
            timeout=60,
        )

    def wait_for(self, text: str) -> None:
        """Wait until a text was written."""
        self.process.expect_exact(text)
        self._take(str(self.process.before) + str(self.process.after))

    def type(self, line: str) -> None:
        """Type a line."""
        self.process.sendline(line)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.process.sendintr()

    def interrupted(self) -> int:
        """Press Ctrl-C until it ends, and return the exit code: one that comes just before it reads is lost."""
        for _ in range(10):
            self.interrupt()
            if self.process.expect([pexpect.EOF, pexpect.TIMEOUT], timeout=5) == 0:
                break
        self._take(str(self.process.before))
        self.process.close()
        assert self.process.exitstatus is not None
        return int(self.process.exitstatus)

    def ended(self) -> int:
        """Wait for the end, and return the exit code."""
        self.process.expect(pexpect.EOF)
        self._take(str(self.process.before))
        self.process.close()
        assert self.process.exitstatus is not None
        return int(self.process.exitstatus)

    @property
    def lines(self) -> list[str]:
        """The lines on the screen."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        """What stands on the screen."""
        return "\n".join(self.lines).rstrip()

    def _take(self, text: str) -> None:
        self.raw += text
        self._stream.feed(text)


def shown(*arguments: str, env: Mapping[str, str] | None = None, width: int = WIDTH) -> Terminal:
    """Run a command in a terminal to its end."""
    terminal = Terminal(arguments, env, width)
    terminal.ended()
    return terminal


def written(path: Path, text: str) -> Path:
    """Write a file that can be run, and return its path."""
    path.write_text(text, encoding="utf-8")
    path.chmod(0o700)
    return path
