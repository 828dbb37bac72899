"""Paths as people give them, made whole once: where they lie does not change when the working directory does."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

NO_SUCH_SYNC = frozenset((errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF))
"""What a file system says of the sync of a directory that it does not offer, such as one of FUSE, 9p or CIFS."""

_VARIABLE = re.compile(r"\$(?:\{([^}]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


class UnfitPathError(Exception):
    """It is no path of a file here; the message is the rest of a sentence that begins with what it is for."""


def absolute(
    path: str | os.PathLike[str], *, base: str | os.PathLike[str] | None = None, variables: bool = False
) -> Path:
    """Return `path` as an absolute one: ``~`` is expanded, what is relative is relative to `base`.

    Args:
        path: what somebody gave.
        base: a directory; None for the working directory of this moment.
        variables: expand ``$NAME`` and ``${NAME}`` too.

    Raises:
        UnfitPathError: it names a home directory or variable that is not known, or the working directory is gone.
    """
    name = os.fspath(path)
    if variables:
        name = _VARIABLE.sub(_value, name)
    try:
        expanded = Path(name).expanduser()
        return expanded.absolute() if base is None else Path(base).absolute() / expanded
    except RecursionError:
        raise
    except RuntimeError:
        raise UnfitPathError("starts with a home directory that is unknown") from None
    except OSError:
        raise UnfitPathError("is relative, and the working directory is gone; give an absolute path") from None


def _value(found: re.Match[str]) -> str:
    name = found[1] if found[2] is None else found[2]
    held = os.environ.get(name)
    if not held or "\0" in held:  # an empty one would make another path of it, such as the root's
        raise UnfitPathError(f"names the environment variable {name!r}, which is not set; set it, or give the path")
    return held
