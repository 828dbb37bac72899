"""Paths as people give them, made absolute once: they stay the same when the working directory changes."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from jarvis._calls.arguments import own_code
from jarvis.errors import InvalidSettingError, kind_of

NO_SUCH_SYNC = frozenset((errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF))
"""The errors of file systems that cannot sync a directory, such as those of FUSE, 9p or CIFS."""

_VARIABLE = re.compile(r"\$(?:\{([^}]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


class _UnfitError(Exception):
    """The rest of a sentence about a path."""


def given_path(what: str, value: object, *, base: Path | None = None, variables: bool = False) -> Path:
    """Return a path that somebody gave, as an absolute one: ``~`` is expanded.

    Args:
        what: begins each message, such as the name of the setting.
        value: the path.
        base: the directory that a relative path is relative to; None for the working directory of this moment.
        variables: expand ``$NAME`` and ``${NAME}`` too.

    Raises:
        InvalidSettingError: it can be no path of a file here, names a home directory or variable that is not known, or
            is relative while the working directory is gone.
    """
    with own_code(InvalidSettingError, what):
        if not isinstance(value, str | os.PathLike) or not isinstance(name := os.fspath(value), str):
            raise InvalidSettingError(f"{what} must be a path, not {kind_of(value)}")
        if not name or "\0" in name:
            raise InvalidSettingError(f"{what} must be a path: it is empty or holds a NUL character")
        try:
            path = _absolute(name, base, variables=variables)
            os.fsencode(path)
        except _UnfitError as unfit:
            raise InvalidSettingError(f"{what} {unfit}") from None
        except UnicodeEncodeError:
            raise InvalidSettingError(
                f"{what} must be a path: it holds a character that no name of a file here can have"
            ) from None
    return path


def _absolute(name: str, base: Path | None, *, variables: bool) -> Path:
    if variables:
        try:
            name = with_variables(name)
        except LookupError as unset:
            raise _UnfitError(
                f"names the environment variable {unset.args[0]!r}, which is not set; set it, or give the path"
            ) from None
    try:
        expanded = Path(name).expanduser()
        return expanded.absolute() if base is None else base.absolute() / expanded
    except RecursionError:
        raise
    except RuntimeError:
        raise _UnfitError("starts with a home directory that is unknown") from None
    except OSError:
        raise _UnfitError("is relative, and the working directory is gone; give an absolute path") from None


def with_variables(text: str) -> str:
    """Return a text with the values of environment variables in place of ``$NAME`` and ``${NAME}``.

    Raises:
        LookupError: a variable is not set; its argument is the name.
    """
    return _VARIABLE.sub(_value, text)


def _value(match: re.Match[str]) -> str:
    name = match[1] if match[2] is None else match[2]
    value = os.environ.get(name)
    if not value or "\0" in value:  # an empty one would make another path of it, such as the root's
        raise LookupError(name)
    return value
