"""Prepares every open store for a fork of the process, and restores it after the fork."""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Protocol

from jarvis._disk.locks import listed

FORK_PATIENCE_SECONDS = 10.0


class Forking(Protocol):
    """An object with connections or files that a child must not inherit."""

    def before_fork(self, deadline: float) -> None:
        """Close all that becomes idle before `deadline`, and make the other threads wait."""

    def after_fork_in_parent(self) -> None:
        """Let the other threads continue."""

    def after_fork_in_child(self) -> None:
        """Start again with nothing open, and never touch what could not be closed."""


_all: weakref.WeakSet[Forking] = weakref.WeakSet()
_forking = threading.local()  # the objects that the forking thread has paused


def take_care_of(forking: Forking) -> None:
    """Call the object's methods at each fork from now on, as long as it lives."""
    _all.add(forking)


def _before_fork() -> None:
    _forking.paused = []
    deadline = time.monotonic() + FORK_PATIENCE_SECONDS
    in_one_order = sorted(listed(_all), key=id)  # else two forks at once would deadlock
    for forking in in_one_order:
        _forking.paused.append(forking)
        forking.before_fork(deadline)


def _after_fork_in_parent() -> None:
    for forking in _forking.paused:
        forking.after_fork_in_parent()


def _after_fork_in_child() -> None:
    for forking in _forking.paused:
        forking.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
