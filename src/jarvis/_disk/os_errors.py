"""What the operating system says of a file, as an error of ours that tells the way out."""

from __future__ import annotations

import errno
import os

from jarvis.errors import ReadOnlyStoreError, StoreAccessError, StoreError, StoreFullError, StoreMissingError

NO_DESCRIPTORS = frozenset((errno.EMFILE, errno.ENFILE))


def translated(path: str | os.PathLike[str], error: OSError, doing: str) -> StoreError:
    """Return the error of ours that says what `error` means for the store at `path`."""
    reason = error.strerror or type(error).__name__
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreFullError(
            path, f"cannot {doing}: {reason}; nothing of this write was kept, free some space and retry"
        )
    if error.errno == errno.ENOENT:
        return StoreMissingError(path, f"cannot {doing}: it is not there")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return ReadOnlyStoreError(
            path, f"cannot {doing}: {reason}; check the owner and mode of the file and its directory"
        )
    return StoreAccessError(path, f"cannot {doing}: {reason}{_way_out(error.errno)}")


def _way_out(number: int | None) -> str:
    if number in NO_DESCRIPTORS:
        return "; close files that are not needed, or raise the limit (ulimit -n)"
    if number == errno.ENAMETOOLONG:
        return "; choose a shorter path"
    return ""
