"""Places for copies of a store, kept from others while a copy is written."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

from jarvis._disk import files
from jarvis._disk.locks import held_for_once
from jarvis.errors import StoreAccessError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_PART = ".part"


@contextlib.contextmanager
def place_for_copy(target: Path, beside: Sequence[Path], timeout_seconds: float) -> Iterator[None]:
    """Keep others from writing a copy of a store to `target` during a block; create its directory if it is absent.

    Raises:
        StoreAccessError: it is there already, or one of the files that belong `beside` it.
        StoreBusyError: another process wrote one there for longer than `timeout_seconds`.
        StoreError: the directory cannot be made.
    """
    _check_free(target, *beside)
    files.ensure_directory(target.parent.absolute())
    lock = str(target.with_name(f".{target.name}.saving.lock"))
    with files.explaining(target, "write the backup"), held_for_once(lock, str(target), timeout_seconds):
        _check_free(target, *beside)  # another process may have written one meanwhile
        with contextlib.suppress(FileNotFoundError):
            files.system.unlink(f"{target}.lock")  # it may have a note of another store that was there
        for path in (target, *beside):
            files.remove_leftovers(str(path))
        yield


@contextlib.contextmanager
def place_for_directory(target: Path, timeout_seconds: float) -> Iterator[Path]:
    """Lend the path for a directory, which gets the name `target` after the block; if that raises, it is removed.

    What killed processes left of others for the same target is removed, too.

    Raises:
        StoreBusyError: another process makes one there for longer than `timeout_seconds`.
        StoreError: the directory cannot be made.
    """
    files.ensure_directory(target.parent)
    lock = str(target.with_name(f".{target.name}.saving.lock"))
    with held_for_once(lock, str(target), timeout_seconds):
        with files.explaining(target, "make the directory"):
            for name in os.listdir(target.parent):
                if name.startswith(f".{target.name}.") and name.endswith(_PART):
                    shutil.rmtree(target.with_name(name))
        part = target.with_name(f".{target.name}.{os.getpid()}-{os.urandom(4).hex()}{_PART}")
        try:
            yield part
            with files.explaining(target, "make the directory"):
                os.rename(part, target)
                files.sync_directory(str(target.parent))
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


def put_copy(temporary: str, target: str) -> None:
    """Give a finished copy its name; raise `StoreAccessError` if a store of that name was made meanwhile."""
    inode = os.stat(temporary).st_ino
    files.put_in_place(temporary, target, keep_existing=True)
    if os.stat(target).st_ino != inode:
        raise _taken(target)


def _check_free(*paths: Path) -> None:
    for path in paths:
        if os.path.lexists(path):
            raise _taken(path)


def _taken(path: Path | str) -> StoreAccessError:
    return StoreAccessError(path, "is there already; back up into a directory of its own")
