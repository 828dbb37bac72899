"""Calls of an event loop made in a few threads: a hop between threads costs more than a read, so few are made."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

WORKERS = 4
"""Threads of one memory: readers overlap, writers queue at the store's lock anyway."""

_PATIENCE_SECONDS = 0.002


class _Line:
    """The calls of one event loop that wait for a thread, and the outcomes that wait for the loop.

    A thread takes one call after the other, and wakes the loop once for all that is done until it
    looks: a hop between threads costs more than a read. Another thread helps when a call has waited
    for `_PATIENCE_SECONDS`, because the one before it waits for the disk.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, workers: Workers) -> None:
        self._loop = weakref.ref(loop)
        self._workers = weakref.ref(workers)
        self._calls: deque[tuple[asyncio.Future[Any], Callable[[], Any]]] = deque()
        self._done: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._threads = 0
        self._is_watched = self._is_woken = False
        self._mutex = threading.Lock()

    def call(self, loop: asyncio.AbstractEventLoop, call: Callable[[], Any]) -> asyncio.Future[Any]:
        """Return a future of what `call` returns, called in a thread."""
        future = loop.create_future()
        self._calls.append((future, call))
        if not self._threads:
            self._help()
        elif not self._is_watched:
            self._is_watched = True
            loop.call_later(_PATIENCE_SECONDS, self._watch)
        return future

    def _watch(self) -> None:
        self._is_watched = False
        loop = self._loop()
        if self._calls and loop is not None:
            self._help()
            self._is_watched = True
            loop.call_later(_PATIENCE_SECONDS, self._watch)

    def _help(self) -> None:
        workers = self._workers()
        with self._mutex:
            if self._threads == WORKERS or workers is None:
                return
            self._threads += 1
        try:
            workers.pool().submit(self._work)
        except BaseException:
            with self._mutex:
                self._threads -= 1
            raise

    def _work(self) -> None:
        while True:
            try:
                future, call = self._calls.popleft()
            except IndexError:
                with self._mutex:
                    if not self._calls:  # whoever adds one from now on finds this thread gone
                        self._threads -= 1
                        return
                continue
            if future.cancelled():
                continue
            try:
                outcome: tuple[Any, BaseException | None] = (call(), None)
            except BaseException as error:  # noqa: BLE001 - it is raised in the task that made the call
                outcome = (None, error)
            self._done.append((future, *outcome))
            del future, call, outcome
            if not self._is_woken:
                self._is_woken = True
                loop = self._loop()
                with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                    if loop is not None:
                        loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._is_woken = False
        while self._done:
            future, result, error = self._done.popleft()
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)


class Workers:
    """The threads of one memory and its siblings, started when first needed, in each process anew."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._pid = 0
        self._lines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Line] = weakref.WeakKeyDictionary()

    def call(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        """Return a future of what `call` returns, called in one of the threads."""
        loop = asyncio.get_running_loop()
        if self._pid != os.getpid():
            self._lines = weakref.WeakKeyDictionary()
            self.pool()
        line = self._lines.get(loop)
        if line is None:
            line = self._lines[loop] = _Line(loop, self)
        return line.call(loop, call)

    def pool(self) -> ThreadPoolExecutor:
        """Return the threads, started anew in a forked child."""
        if self._pool is None or self._pid != os.getpid():  # a forked child has none of its parent's threads
            self._pool, self._pid = ThreadPoolExecutor(WORKERS, thread_name_prefix="jarvis-memory"), os.getpid()
        return self._pool

    def stop(self) -> None:
        """Let the threads end when they have nothing left to do."""
        pool, self._pool = self._pool, None
        if pool is not None and self._pid == os.getpid():
            pool.shutdown(wait=False)
