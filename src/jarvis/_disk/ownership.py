"""The owner and mode of new files: the users of a store can still open it after a run as root.

They are set on the open file, never by its name: another user who may write the directory could put a link there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEPT_BITS = 0o777
_OWN_BITS = stat.S_IRUSR | stat.S_IWUSR
_CANNOT_CHANGE = frozenset(
    (errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
)  # not ours to give; an owner that this container does not know; a file system without owners


def take_after(descriptor: int, path: str, *models: str, private: bool = False) -> None:
    """Give a new file the owner, the group and the mode of the first of `models` that is there.

    If none is, a file that root makes gets the owner of its directory, and stays its owner's only. Where a group
    cannot be given, its rights are not given to another one. No-op on Windows, which has neither.

    Args:
        descriptor: of the new file, which only its owner may use so far.
        path: of it.
        models: the file that it replaces, and then the file that it belongs to.
        private: it is its owner's only, also if its model is not.

    Raises:
        OSError: owner or mode cannot be read or changed, but not for want of permission.
    """
    if os.name != "posix":
        return
    mine = os.fstat(descriptor)
    model = _status_of_first(models)
    if model is None:
        if _is_root():
            _give(descriptor, mine, os.stat(os.path.dirname(path) or "."))
        return
    mode = stat.S_IMODE(model.st_mode) & _KEPT_BITS | _OWN_BITS
    if not _give(descriptor, mine, model):
        mode &= ~stat.S_IRWXG
    if private:
        mode = _OWN_BITS
    if mode != stat.S_IMODE(mine.st_mode):
        with _unless_impossible():
            os.fchmod(descriptor, mode)


def take_after_parent(directory: str) -> None:
    """Give a directory that root has just made the owner of the one it is in.

    Raises:
        OSError: it cannot be opened or changed, but not for want of permission.
    """
    if not _is_root():
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _give(descriptor, os.fstat(descriptor), os.stat(os.path.dirname(directory)))
    finally:
        os.close(descriptor)


def _is_root() -> bool:
    return os.name == "posix" and os.geteuid() == 0


def _status_of_first(paths: tuple[str, ...]) -> os.stat_result | None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return os.stat(path)
    return None


def _give(descriptor: int, mine: os.stat_result, model: os.stat_result) -> bool:
    """Give a file the group of another one and, as root, its owner; return whether it has that group now."""
    owner = model.st_uid if _is_root() else mine.st_uid
    if (owner, model.st_gid) == (mine.st_uid, mine.st_gid):
        return True
    with _unless_impossible():
        os.fchown(descriptor, owner, model.st_gid)
        return True
    return False


@contextlib.contextmanager
def _unless_impossible() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _CANNOT_CHANGE:
            raise
