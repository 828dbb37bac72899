"""The watches, iterations and sweeps that a module and its siblings have open: they outlive a call.

`MemoryModule.shutdown` ends them all, or they would open the store again after it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from functools import partial
from types import FrameType, GeneratorType
from typing import TYPE_CHECKING, Any

from jarvis._calls.caller import holding
from jarvis.errors import StoreClosedError

if TYPE_CHECKING:
    from jarvis.model.entry import MemoryEntry
    from jarvis.storage_backend import StorageBackend


_PAUSE_SECONDS = 0.001


class Activity:
    """One watch, iteration or sweep.

    Attributes:
        lock: held by a watch or a sweep while it calls the backend, never while it yields something.
        is_over: it must not call the backend any more; read it with the lock held.
    """

    def __init__(self, entries: Iterator[MemoryEntry] | None = None) -> None:
        self.lock = threading.RLock()  # a signal handler may shut down what its own thread is doing
        self.is_over = False
        self._entries = entries
        self._pid = os.getpid()

    def end(self) -> None:
        """Wait for a call in progress, and close the generator of an iteration; no-op if it has ended."""
        self.is_over = True
        if self._pid == os.getpid():  # else it is the parent's, and a thread of that may have had the lock
            holding(self.lock, partial(_close, self._entries))


def _close(entries: Iterator[MemoryEntry] | None) -> None:
    """Close a generator after its current step; an iterator of another kind, of a stranger's backend, stays as it is.

    There is no lock: it would make each step of an iteration a tenth slower. A running generator refuses to be closed.
    """
    while isinstance(entries, GeneratorType):
        try:
            entries.close()
        except ValueError as error:
            if str(error) != "generator already executing":
                raise
            if _is_in(entries):
                return
            time.sleep(_PAUSE_SECONDS)  # another thread is in it
        else:
            return


def _is_in(generator: GeneratorType[Any, Any, Any]) -> bool:
    """Tell whether this thread is inside the generator, as when a signal handler or a callback shuts down."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame is not generator.gi_frame:
        frame = frame.f_back
    return frame is not None


class Ongoing:
    """The activities of one module and its siblings of other namespaces."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._mutex = threading.RLock()  # a signal handler may shut down
        self._pid = os.getpid()
        self._activities: weakref.WeakSet[Activity] = weakref.WeakSet()

    def begin(self, entries: Iterator[MemoryEntry] | None = None) -> Activity:
        """Return a new activity; `entries` are closed when it is ended."""
        activity = Activity(entries)
        holding(self._own_mutex(), lambda: self._activities.add(activity))
        return activity

    def end(self) -> bool:
        """End all, and wait until none calls the backend; return whether there was one."""
        activities = holding(self._own_mutex(), self._take_all)
        for activity in activities:
            activity.is_over = True
        for activity in activities:
            activity.end()
        return bool(activities)

    def _take_all(self) -> list[Activity]:
        activities = [each for each in self._activities if not each.is_over]
        self._activities = weakref.WeakSet()
        return activities

    def iterating(self, backend: StorageBackend, entries: Iterator[MemoryEntry]) -> Iterator[MemoryEntry]:
        """Return an iterator over `entries` that raises `StoreClosedError` after a shutdown."""
        return _iterating(self.begin(entries), backend, entries)

    def _own_mutex(self) -> threading.RLock:
        if self._pid != os.getpid():  # a thread of the parent may have had it when this process was forked
            activities = list(self._activities)
            self._begin()
            self._activities.update(activities)
        return self._mutex


def _iterating(activity: Activity, backend: StorageBackend, entries: Iterator[MemoryEntry]) -> Iterator[MemoryEntry]:
    """Yield the entries, reading one ahead: after the last one the iteration ends without an error."""
    try:
        entry = next(entries, None)
        is_cut = entry is None and activity.is_over  # it was closed just now, by another thread
        while entry is not None:
            following = next(entries, None)
            is_cut = following is None and activity.is_over
            yield entry
            if activity.is_over and following is not None:
                raise closed(backend)
            entry = following
        if is_cut:
            raise closed(backend)
    finally:
        activity.end()


def closed(backend: StorageBackend) -> StoreClosedError:
    """Return the error that a shutdown ended an iteration."""
    path = getattr(backend, "db_path", None) or getattr(backend, "file_path", None) or backend.name
    return StoreClosedError(path, "the memory was shut down while this iteration was open; begin it again")
