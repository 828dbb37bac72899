"""Directories for stores that end with their process: in memory, where the system has a file system there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator

from jarvis._disk.flock import try_lock

_MEMORY = "/dev/shm"  # noqa: S108 - the directory that is made there is its owner's alone
_PREFIX, _NEW = "jarvis-in-memory-", "jarvis-new-"
_ALIVE = "alive"  # its process holds the lock of this file


class Volatile:
    """A new directory, for its owner alone. What killed processes left is removed first."""

    def __init__(self) -> None:
        base = _MEMORY if os.access(_MEMORY, os.W_OK) else tempfile.gettempdir()
        _remove_leftovers(base)
        new = tempfile.mkdtemp(prefix=_NEW, dir=base)
        self.path = os.path.join(base, _PREFIX + os.path.basename(new).removeprefix(_NEW))
        self._lock = os.open(os.path.join(new, _ALIVE), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try_lock(self._lock)
        os.rename(new, self.path)  # only now can anybody take it for one that was left

    def end_with(self, owner: object) -> None:
        """Remove the directory when `owner` is no more, or at the end of the process; not in a forked one."""
        weakref.finalize(owner, _remove, self.path, self._lock, os.getpid())


def _remove(path: str, lock: int, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _remove_leftovers(base: str) -> None:
    for path in _left_in(base):
        with contextlib.suppress(OSError):  # somebody else's, or removed meanwhile
            lock = os.open(os.path.join(path, _ALIVE), os.O_RDWR)
            try:
                if try_lock(lock):
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def _left_in(base: str) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for name in os.listdir(base):
            if name.startswith(_PREFIX):
                yield os.path.join(base, name)
