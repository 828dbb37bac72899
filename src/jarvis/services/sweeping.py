"""Sweeping now and again: a `Sweeper` is a thread that does it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType

from jarvis._calls.arguments import own_code
from jarvis.errors import InvalidSettingError
from jarvis.model.options import checked

BATCH = 500  # some 30 ms, for which other writers wait
MANY = 10_000

Sweep = Callable[[Callable[[], bool]], object]


class Sweeper:
    """A daemon thread that sweeps at once and then after each `interval`, until it is stopped.

    A sweep that fails is logged (``jarvis.retention``), and the next one tries again. The interpreter does
    not wait for the thread at its end: an unfinished change is taken back then, as by a kill.

    Args:
        sweep: makes one sweep, and ends it early when the function that it is given returns True.
        interval: how long to wait between the end of a sweep and the next.

    >>> import time
    >>> with Sweeper(lambda is_over: print("swept"), timedelta(hours=1)):
    ...     time.sleep(0.1)
    swept
    """

    def __init__(self, sweep: Sweep, interval: timedelta) -> None:
        self._sweep = sweep
        self.interval = interval
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jarvis-sweeper", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.interval}, is_running={self.is_running})"

    def __enter__(self) -> Sweeper:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def is_running(self) -> bool:
        """Whether it is sweeping, or will sweep again."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End the thread after its current transaction, and wait for that; no-op if it has ended."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        import logging  # 8 ms to import, which most sessions never need

        log = logging.getLogger("jarvis.retention")
        while not self._over.is_set():
            try:
                self._sweep(self._over.is_set)
            except Exception as error:  # noqa: BLE001 - the outermost door of this thread
                log.warning("a sweep failed, the next one is in %s: %s: %s", self.interval, type(error).__name__, error)
            self._over.wait(self.interval.total_seconds())


class Sweepers:
    """The sweepers of one module and its siblings of other namespaces."""

    def __init__(self) -> None:
        self._sweepers: list[Sweeper] = []

    def start(self, sweep: Sweep, interval: timedelta | float) -> Sweeper:
        """Start and return a new sweeper.

        Raises:
            InvalidSettingError: `interval` is not above 0, or longer than 30 days.
        """
        with own_code(InvalidSettingError, "sweep_every"):
            if isinstance(interval, float | int) and not isinstance(interval, bool):
                try:
                    interval = timedelta(seconds=interval)
                except (ValueError, OverflowError):
                    raise InvalidSettingError("sweep_every: takes a number of seconds up to 30 days") from None
            if not isinstance(interval, timedelta):
                raise InvalidSettingError(
                    f"sweep_every: takes a timedelta or a number of seconds, not {type(interval).__name__}"
                )
        checked("sweep_every", interval)
        sweeper = Sweeper(sweep, interval)
        self._sweepers[:] = [*(each for each in self._sweepers if each.is_running), sweeper]
        return sweeper

    def stop(self) -> bool:
        """Stop all sweepers; return whether there was one."""
        stopped = self._sweepers[:]
        for sweeper in stopped:
            sweeper.stop()
        self._sweepers[:] = [each for each in self._sweepers if each not in stopped]
        return bool(stopped)
