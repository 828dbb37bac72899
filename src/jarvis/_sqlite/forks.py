"""What is done before and behind a fork of the process, for every store that it has open."""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Protocol

from jarvis._disk.locks import listed

FORK_PATIENCE_SECONDS = 10.0


class Forking(Protocol):
    """What has something open that a child must not inherit."""

    def before_fork(self, deadline: float) -> None:
        """Close what can be closed until then, and keep the other threads waiting."""

    def after_fork_in_parent(self) -> None:
        """Let the other threads go on."""

    def after_fork_in_child(self) -> None:
        """Start anew, and leave alone for ever what could not be closed."""


_all: weakref.WeakSet[Forking] = weakref.WeakSet()
_forking = threading.local()  # what the forking thread has paused


def take_care_of(forking: Forking) -> None:
    """Call its methods from now on at each fork, as long as it lives."""
    _all.add(forking)


def _before_fork() -> None:
    _forking.paused = []
    deadline = time.monotonic() + FORK_PATIENCE_SECONDS
    in_one_order = sorted(listed(_all), key=id)  # or two forks at once would deadlock
    for each in in_one_order:
        _forking.paused.append(each)
        each.before_fork(deadline)


def _after_fork_in_parent() -> None:
    for each in _forking.paused:
        each.after_fork_in_parent()


def _after_fork_in_child() -> None:
    for each in _forking.paused:
        each.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
