"""Swaps the file of a store for another one while processes have the store open; a kill at any point is safe.

Three names change their files: the store, its log and the log's index. Open connections keep the files they have.
But a connection that is opened in between could get the new file with the old index, which has the number of pages of
the old file. So nobody opens the store meanwhile (see `jarvis._sqlite.store_file.StoreFile.opened`): the holder of the
writers' lock writes into the lock's file that a swap begins, and when it is over.

1. Fold the log into the old file and empty it: from here on either file alone is the whole store, also after a power
   cut.
2. Write that a swap begins, and which file takes the place.
3. Give the index of the log another name. Processes that have the old index open keep using it.
4. Give the new file the store's name; sync the directory.
5. Remove the old log and the old index. Write that the swap is over.

A process that takes the lock and finds a swap in progress knows that the swapping process was killed: it calls
`settle`. If the new file already has the name, that does step 5. Otherwise it gives the index its name back, with all
changes that writers have made since, perhaps without noticing.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from jarvis._disk import files
from jarvis._disk.files import Stamp, explaining
from jarvis._disk.lock_file import Note

if TYPE_CHECKING:
    from jarvis._disk.locks import WriterLock


def swap(path: str, new: str, lock: WriterLock, commit: int) -> None:
    """Put the file `new` in the place of the store at `path`.

    Needs the writers' lock. The caller has synced the new file, which nobody has open and which is on the same file
    system, and has emptied the store's log.

    Args:
        new: the file that takes its place.
        commit: the number of the last commit in the new file.

    Raises:
        StoreError: a step failed; the store is the old file, or the next opening finishes the swap.
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
    lock.write_note(Note(Stamp.of(os.stat(path)), commit))  # else the next opening verifies the whole file
    settle(path, lock)


def settle(path: str, lock: WriterLock) -> None:
    """Finish a swap that was begun, or undo it; no-op if none was. Needs the writers' lock.

    Raises:
        StoreError: a file operation failed; the swap is still to be settled.
    """
    swap = lock.read_swap()
    if swap is None or swap.is_over:
        return
    aside = _aside(path)
    with explaining(path, "finish putting the rewritten file in its place"):
        if os.stat(path).st_ino == swap.inode:
            # The new name may not be on the disk yet: a power cut must not lose it, and later writes with it.
            files.sync_directory(os.path.dirname(path))
            log = f"{path}-wal"
            with contextlib.suppress(FileNotFoundError):
                if not os.stat(log).st_size:  # nobody could open the store, so it is empty
                    files.system.unlink(log)
            with contextlib.suppress(FileNotFoundError):
                files.system.unlink(aside)
        elif os.path.exists(aside):
            files.system.replace(aside, f"{path}-shm")
    lock.write_swap(swap.inode, is_over=True)


def _aside(path: str) -> str:
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}.moved-shm")
