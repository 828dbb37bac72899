"""A bar with rate and time left for what takes longer than a second; silent where nobody looks."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from jarvis.interfaces.cli.showing import Look, console, is_terminal
from jarvis.interfaces.operation import Operation
from jarvis.model.rewriting import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import Task, TaskID

PATIENCE_SECONDS = 1.0


class Interruption:
    """How far the work of the process was when Ctrl-C came."""

    done: int | None = None
    total: int | None = None


class _Shown:
    """Begins a bar when the work has lasted for a second, and moves it on."""

    def __init__(self, name: str) -> None:
        self._name, self._began = name, time.monotonic()
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def __call__(self, done: int, total: int) -> None:
        Interruption.done, Interruption.total = done, total
        if self._bar is None or self._task is None:
            if time.monotonic() - self._began < PATIENCE_SECONDS:
                return
            self._begin()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total)

    def _begin(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        class _Rate(ProgressColumn):
            def render(self, task: Task) -> str:
                return "" if task.speed is None else f"{task.speed:,.0f}/s"

        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            console=console(stderr=True),
            transient=True,
        )
        self._bar.start()
        self._task = self._bar.add_task(self._name)

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()


class _Waiting:
    """Says that something goes on, when it has lasted for a second and does not tell how far it is."""

    def __init__(self, name: str) -> None:
        self._name, self._bar = name, None
        self._timer = threading.Timer(PATIENCE_SECONDS, self._begin)
        self._timer.daemon = True
        self._timer.start()

    _bar: Bar | None

    def _begin(self) -> None:
        from rich.progress import Progress as Bar
        from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        self._bar = Bar(*columns, console=console(stderr=True), transient=True)
        self._bar.add_task(self._name, total=None)
        self._bar.start()

    def end(self) -> None:
        """Take the sign away."""
        self._timer.cancel()
        self._timer.join()
        if self._bar is not None:
            self._bar.stop()


def _noted(done: int, total: int) -> None:
    Interruption.done, Interruption.total = done, total


@contextmanager
def progressing(operation: Operation[..., Any], look: Look) -> Iterator[Progress | None]:
    """Lend what an operation tells its progress to; None if it tells none."""
    if look.quiet or not is_terminal(sys.stderr):
        yield _noted if operation.tells_progress else None
        return
    shown = _Shown(operation.name) if operation.tells_progress else _Waiting(operation.name)
    try:
        yield shown if isinstance(shown, _Shown) else None
    finally:
        shown.end()
