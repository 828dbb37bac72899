"""Every error of jarvis, in one tree, grouped by the moment it can happen.

``except JarvisError`` catches them all. Where a builtin says the same thing (``ValueError``,
``KeyError``, ``TimeoutError``, …) it is a second parent, so callers need not import anything.
A message names the thing, the path and the way out; it never holds a stored value.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime


class JarvisError(Exception):
    """The root of the tree.

    >>> from jarvis.errors import InvalidEntryError, JarvisError
    >>> issubclass(InvalidEntryError, JarvisError) and issubclass(InvalidEntryError, ValueError)
    True
    """


# --- when something is asked for -----------------------------------------------------------------


class InvalidEntryError(JarvisError, ValueError):
    """An entry holds something that could not come back exactly as it is.

    Attributes:
        field: path of the offending part, such as ``value.items[3].price``.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field = field
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}"


class InvalidQueryError(JarvisError, ValueError):
    """A filter, limit, cursor or operator does not mean anything."""


class InvalidSettingError(JarvisError, ValueError):
    """A setting, in a configuration file or as an argument, is unknown or out of range."""


class UnknownBackendError(JarvisError, ValueError):
    """No storage backend is registered under the name."""


class UnsupportedError(JarvisError, NotImplementedError):
    """The backend in use lacks a capability; the message names the backends that have it."""


class StackFullError(JarvisError, RecursionError):
    """What is stored is nested too deep to be read with what is left of the call stack. Nothing is damaged."""

    def __str__(self) -> str:
        return "what is stored is nested too deep for what is left of the call stack; call it from a shallower place"


class TransactionError(JarvisError, RuntimeError):
    """A transaction is used where it cannot work, such as from another thread."""


# --- when an entry is addressed ------------------------------------------------------------------


class DuplicateEntryError(JarvisError, ValueError):
    """The id is taken in this namespace; the entry that was there first is untouched."""


class EntryNotFoundError(JarvisError, KeyError):
    """No entry has the id in this namespace."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the message in quotes


class ConflictError(JarvisError, RuntimeError):
    """Somebody else was faster: the memory has another version than the change was meant for; nothing was changed.

    Attributes:
        expected: the version that the change was meant for.
        found: the version that the memory has, or None if it is gone.
    """

    def __init__(self, expected: int, found: int | None) -> None:
        super().__init__(expected, found)
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        now = "is gone" if self.found is None else f"has version {self.found}"
        return f"the memory {now}, the change was meant for version {self.expected}; read it again and retry"


class RevisionNotFoundError(JarvisError, LookupError):
    """The memory has no such version that is still known; the message says which are."""


class HistoryUnavailableError(JarvisError, LookupError):
    """What was remembered at a moment is not known: before the store existed, or pruned since.

    Attributes:
        moment: what was asked for; aware UTC.
        earliest: from when on the question can be answered, or None if no past is kept.
        because: what is missing, or None if it was pruned or never there.
    """

    def __init__(self, moment: datetime, earliest: datetime | None, because: str | None = None) -> None:
        super().__init__(moment, earliest, because)
        self.moment = moment
        self.earliest = earliest
        self.because = because

    def __str__(self) -> str:
        if self.earliest is None:
            return f"as_of: no past is kept, so {self.moment.isoformat()} is not known; ask for the present"
        because = f", because {self.because}" if self.because else ""
        return (
            f"as_of: {self.moment.isoformat()} is not known{because}; the earliest that is: {self.earliest.isoformat()}"
            + ("; a question that does not touch it can be answered" if because else "")
        )


class CursorExpiredError(JarvisError, LookupError):
    """Changes behind the cursor are not known: they were pruned, history was turned off, or the store was restored.

    Attributes:
        cursor: what was asked for.
        earliest: the cursor from which on all changes are known, or None if no history is kept.
        is_foreign: the cursor is of another store, or of this one before it was restored from a backup.
    """

    def __init__(self, cursor: str, earliest: str | None, is_foreign: bool = False) -> None:
        super().__init__(cursor, earliest, is_foreign)
        self.cursor = cursor
        self.earliest = earliest
        self.is_foreign = is_foreign

    def __str__(self) -> str:
        if self.is_foreign:
            return (
                f"since: the cursor {self.cursor} is of another store, or of this one before it was restored; "
                "read the memories themselves, then go on from newest_cursor()"
            )
        if self.earliest is None:
            return "since: no history is kept, so changes are not known; read the memories themselves"
        return (
            f"since: changes behind the cursor {self.cursor} are not known any more; the earliest that can be asked is "
            f"{self.earliest}: read the memories themselves, then go on from newest_cursor()"
        )


# --- when a store is opened, read or written -----------------------------------------------------


class StoreError(JarvisError, OSError):
    """Something is wrong with the store itself, not with the question.

    Attributes:
        path: the file or directory that the message is about.
    """

    def __init__(self, path: str | os.PathLike[str], problem: str) -> None:
        super().__init__(problem)
        self.path = str(path)
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"

    def __reduce__(self) -> tuple[type[StoreError], tuple[str, str]]:
        return type(self), (self.path, self.problem)


class CorruptStoreError(StoreError):
    """The store is damaged. Nothing was answered from it, and its bytes were left as they are."""


class StoreTooNewError(StoreError):
    """A newer version of jarvis wrote the store."""


class StoreOutdatedError(StoreError):
    """An older version wrote the store and it is opened read-only, so it cannot be migrated."""


class StoreMissingError(StoreError, FileNotFoundError):
    """There is no store to read or to create, it was removed while it was open, or a link to it leads nowhere."""


class StoreBusyError(StoreError, TimeoutError):
    """Another writer kept the store locked for longer than the busy timeout."""


class StoreClosedError(StoreError):
    """The memory was shut down while an iteration was open; begin it again, which opens the store."""


class ReadOnlyStoreError(StoreError, PermissionError):
    """A write was asked of a store that is open read-only or may not be written."""


class StoreFullError(StoreError):
    """The disk, a quota or a size limit is exhausted; nothing of the failed write was kept."""


class StoreAccessError(StoreError):
    """The operating system refused or failed a file operation; the message says which."""


class WrongKeyError(StoreError):
    """A key was given, and it is not the one: the store's key cannot be had with it. Nothing was written."""


class KeyUnavailableError(StoreError):
    """The store is encrypted, and no source gave a key; the message says which were tried, and why each had none."""


class KeyFileExistsError(StoreError, FileExistsError):
    """A new key file was to be written where a file is already; that one was left as it is."""


class NotEncryptedError(StoreError):
    """The store is plain, and encryption is required of it, or is what its keys say. Nothing was written."""


class UnsafeLocationError(StoreError):
    """The store lies where its promises cannot hold: on a network file system, or mounted without its directory."""


class UnsafeLocationWarning(UserWarning):
    """The store lies where something may come to it: another program copies it about, or names cannot be synced."""


class MisplacedSettingWarning(UserWarning):
    """A file of settings has keys of the memory outside of the section ``storage``, where nobody reads them."""


class ClockBehindWarning(UserWarning):
    """The clock is behind the last change of the store by more than a day: one of them is wrong."""


class OtherStoreWarning(UserWarning):
    """A store of another backend lies in the same directory; nothing is taken over from it."""


class ReadableByOthersWarning(UserWarning):
    """A store's file has a mode with which others may read or write it: it was migrated, restored or shared so."""


class NoRecoveryWarning(UserWarning):
    """Only a keyring opens the encrypted store: when its machine or account is lost, so is the store."""


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


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest known name, or an empty string.

    >>> nearest("sqllite", ["json", "sqlite"])
    " (did you mean 'sqlite'?)"
    >>> nearest("zebra", ["json", "sqlite"])
    ''
    """
    import difflib  # 9 ms to import, and needed only when something went wrong

    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def kind_of(value: object) -> str:
    """Return what messages call a value of a wrong type."""
    return "nothing" if value is None else f"a value of type {type(value).__name__}"
