"""A swap: another file takes the store's place while processes have the store open, and may be killed at it.

Three names change their files: the store, its log and the log's index. Connections that are open keep the
files they have. But a connection made in between could have the new file with the old index, which says how
many pages the old file has, so nobody is let in meanwhile (see `jarvis._sqlite.store_file.StoreFile.opened`):
the holder of the writers' lock says in the lock's file that a swap begins and when it is over.

1. The log is folded into the old file and emptied: from here on either file alone is the whole store, also
   after a power cut.
2. It is said that a swap begins, and which file takes the place.
3. The index of the log gets another name. Who has it open goes on using it.
4. The new file gets the store's name; the directory is synced.
5. The old log and the old index are removed. It is said that the swap is over.

Who finds a swap that was begun and takes the lock knows that its process was killed: `settle`. Where the new
file has the name already, step 5 is made; otherwise the index gets its name back, with all that writers, who
need not have noticed, have done since.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from jarvis._disk import files
from jarvis._disk.files import Stamp, explaining
from jarvis._disk.lock_file import Note

if TYPE_CHECKING:
    from collections.abc import Callable

    from jarvis._disk.locks import WriterLock


def swap(path: str, new: str, lock: WriterLock, commit: int, after_swap: Callable[[], None]) -> None:
    """Put the file `new` in the place of the store at `path`.

    Needs the writers' lock. The caller has synced the new file, which nobody has open, and emptied the store's
    log; both are on the same file system.

    Args:
        path: the store.
        new: the file that takes its place.
        lock: the writers' lock of the store.
        commit: the last commit that the new file holds.
        after_swap: called when the new file has the store's name, before anybody else is let in.

    Raises:
        StoreError: it failed; the store is the old file, or whoever opens it next finishes the swap.
    """
    inode = os.stat(new).st_ino
    with explaining(path, "put the rewritten file in its place"):
        try:
            lock.write_swap(inode, is_over=False)
            files.system.replace(f"{path}-shm", _aside(path))
            files.system.replace(new, path)
        except BaseException:
            settle(path, lock)
            raise
        files.sync_directory(os.path.dirname(path))
    after_swap()
    lock.write_note(Note(Stamp.of(os.stat(path)), commit))  # or the next opening verifies the whole of it
    settle(path, lock)


def settle(path: str, lock: WriterLock) -> None:
    """Finish a swap that was begun, or take it back; no-op if none was. Needs the writers' lock.

    Raises:
        StoreError: a file operation failed; the swap is still to be settled.
    """
    swap = lock.read_swap()
    if swap is None or swap.is_over:
        return
    aside = _aside(path)
    with explaining(path, "finish putting the rewritten file in its place"):
        if os.stat(path).st_ino == swap.inode:
            # The name may be in the directory only, and what is written from now on must not go with it.
            files.sync_directory(os.path.dirname(path))
            log = f"{path}-wal"
            with contextlib.suppress(FileNotFoundError):
                if not os.stat(log).st_size:  # nobody was let in, so nothing can be in it
                    files.system.unlink(log)
            with contextlib.suppress(FileNotFoundError):
                files.system.unlink(aside)
        elif os.path.exists(aside):
            files.system.replace(aside, f"{path}-shm")
    lock.write_swap(swap.inode, is_over=True)


def _aside(path: str) -> str:
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}.moved-shm")
