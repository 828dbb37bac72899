"""Runs the calls of an event loop in a few threads, with few hops: one hop costs more than a read.

Each call is in one of four lanes with threads of their own: a call that may wait for the store's writers, or takes
long, never makes a read wait. Nor do reads that wait for a connection keep an iteration from going on, which has one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, Literal

Lane = Literal["read", "step", "change", "long"]

THREADS: dict[Lane, int] = {"read": 4, "step": 4, "change": 4, "long": 16}
"""The most threads of one memory. Reads overlap; changes queue at the store's lock anyway. Each long call has a thread,
up to a number for which a process has enough files: a connection to a SQLite store takes three."""

_PATIENCE_SECONDS = 0.002


class InPlace(Executor):
    """Stands in for a thread where none can be started: the caller itself runs each submitted call at once.

    As in a thread, no loop runs in it: for `jarvis._calls.caller` it is one caller, whichever task submits.
    """

    def __init__(self) -> None:
        self._is_shut = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a call; return its future, which is done."""
        if self._is_shut:
            raise RuntimeError("it was shut down")
        future: Future[Any] = Future()
        loop = asyncio.get_running_loop()
        asyncio._set_running_loop(None)
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - the calling task raises it
            future.set_exception(error)
        finally:
            asyncio._set_running_loop(loop)
        return future

    def shutdown(self, *_: object, **__: object) -> None:
        """Take no more calls."""
        self._is_shut = True


def one_thread(name: str) -> Executor:
    """Return an executor of one new thread; at the interpreter's exit, when none starts any more, one in place."""
    thread = ThreadPoolExecutor(1, thread_name_prefix=name)
    try:
        thread.submit(int)
    except RuntimeError:
        return InPlace()
    return thread


class _Line:
    """The calls of one event loop in one lane that wait for a thread, and the outcomes that wait for the loop.

    A thread takes one call after the other, and wakes the loop once for all calls that are done when the loop looks: a
    hop between threads costs more than a read. If a call has waited for `_PATIENCE_SECONDS`, because the one before it
    waits for the disk, another thread helps. A long call gets its thread at once.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, workers: Workers, lane: Lane) -> None:
        self._lane = lane
        self._loop = weakref.ref(loop)
        self._workers = weakref.ref(workers)
        self._calls: deque[tuple[asyncio.Future[Any], Callable[[], Any]]] = deque()
        self._done: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._threads = 0
        self._is_watched = self._is_woken = False
        self._mutex = threading.Lock()

    def call(self, loop: asyncio.AbstractEventLoop, call: Callable[[], Any]) -> asyncio.Future[Any]:
        """Have a thread run `call`; return the future of its result."""
        future = loop.create_future()
        self._calls.append((future, call))
        if not self._threads or self._lane == "long":
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
            if self._threads == THREADS[self._lane] or workers is None:
                return
            self._threads += 1
        try:
            workers.start(self._lane, self._work)
        except RuntimeError:  # at the interpreter's exit no thread starts any more: use the caller's
            self._work()
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
                    if not self._calls:  # a call that is added from now on needs another thread
                        self._threads -= 1
                        return
                continue
            if future.cancelled():
                continue
            try:
                outcome: tuple[Any, BaseException | None] = (call(), None)
            except BaseException as error:  # noqa: BLE001 - the calling task raises it
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
    """The threads of one memory and its siblings, started when first needed, and again in each forked process."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        """Forget all threads and calls: a forked child has none of its parent's."""
        self._pid = os.getpid()
        self._pools: dict[Lane, ThreadPoolExecutor] = {}
        self._lines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Lane, _Line]]
        self._lines = weakref.WeakKeyDictionary()
        self._fences: list[threading.Event] = []

    def call(self, lane: Lane, call: Callable[[], Any]) -> asyncio.Future[Any]:
        """Have a thread of the lane run `call`; return the future of its result."""
        loop = asyncio.get_running_loop()
        if self._pid != os.getpid():
            self._mutex = threading.Lock()
            self._begin()
        lines = self._lines.get(loop)
        if lines is None:
            lines = self._lines[loop] = {}
        line = lines.get(lane)
        if line is None:
            line = lines[lane] = _Line(loop, self, lane)
        return line.call(loop, call if lane == "read" or not self._fences else self.fenced(call))

    def call_first(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        """Have a thread run `call`, a read, before all changes that are called later; return the future of its result.

        Do not cancel the future: then `call` would not run, and those changes would wait for ever.
        """
        fence = threading.Event()

        def made() -> Any:
            try:
                return call()
            finally:
                fence.set()

        future = self.call("read", made)
        with self._mutex:
            self._fences.append(fence)
        return future

    def fenced(self, call: Callable[[], Any]) -> Callable[[], Any]:
        """Return `call`, made to wait in its thread for all earlier calls of `call_first`."""
        if not self._fences or self._pid != os.getpid():
            return call
        with self._mutex:
            self._fences[:] = fences = [fence for fence in self._fences if not fence.is_set()]

        def after_fences() -> Any:
            for fence in fences:
                fence.wait()
            return call()

        return after_fences if fences else call

    def start(self, lane: Lane, work: Callable[[], None]) -> None:
        """Run `work` in a thread of the lane; that of a long call ends with it, and so does its connection."""
        if lane == "long":
            pool = ThreadPoolExecutor(1, thread_name_prefix="jarvis-memory-long")
            pool.submit(work)
            pool.shutdown(wait=False)
            return
        with self._mutex:
            pool_of_lane = self._pools.get(lane)
            if pool_of_lane is None:
                name = f"jarvis-memory-{lane}"
                pool_of_lane = self._pools[lane] = ThreadPoolExecutor(THREADS[lane], thread_name_prefix=name)
            pool_of_lane.submit(work)

    def stop(self) -> None:
        """Let the threads end when they have nothing left to do."""
        if self._pid != os.getpid():
            return
        with self._mutex:
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.shutdown(wait=False)
