"""`Sweeper`: a thread that sweeps, for whoever asks for one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType

Sweep = Callable[[Callable[[], bool]], object]


class Sweeper:
    """A daemon thread that sweeps at once and then after each `interval`, until it is stopped.

    A sweep that fails is logged (``jarvis.retention``), and the next one tries again. The interpreter does
    not wait for the thread: what it was just doing is taken back then, as by a kill.

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
        """Whether it will sweep again, or does so just now."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End the thread behind the transaction it is in, and wait for that; no-op if it has ended."""
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
