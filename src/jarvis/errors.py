"""Every error of jarvis, in one tree, grouped by the moment it can happen.

``except JarvisError`` catches them all. A builtin of the same meaning (``ValueError``, ``KeyError``, ``TimeoutError``,
…) is a second parent, so callers need not import anything.
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


# --- when a call is made -------------------------------------------------------------------------


class InvalidEntryError(JarvisError, ValueError):
    """An entry has a part that could not be read back exactly.

    Attributes:
        field: path of the offending part, such as ``value.items[3].price``.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field = field
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}"

    def of_item(self, position: int) -> InvalidEntryError:
        """Return the same error about the item at this position of a list, counted from 0."""
        return InvalidEntryError(f"item {position}: {self.field}", self.problem)


class InvalidQueryError(JarvisError, ValueError):
    """A filter, limit, cursor or operator does not mean anything."""


class InvalidSettingError(JarvisError, ValueError):
    """A setting, in a configuration file or as an argument, is unknown or out of range."""


class UnknownBackendError(JarvisError, ValueError):
    """No storage backend is registered under the name."""


class UnsupportedError(JarvisError, NotImplementedError):
    """The backend in use lacks a capability; the message names the backends that have it."""


class EmbedderError(JarvisError, RuntimeError):
    """An embedder failed, or returned no vectors. Its own error is the cause of this one.

    Memories are found by their words meanwhile.

    Attributes:
        embedder: its name.
        problem: what it did.
    """

    def __init__(self, embedder: str, problem: str) -> None:
        super().__init__(embedder, problem)
        self.embedder, self.problem = embedder, problem

    def __str__(self) -> str:
        return f"the embedder {self.embedder!r} {self.problem}; what it made before stays"


class StackFullError(JarvisError, RecursionError):
    """A stored value is nested too deep to be read with the rest of the call stack. Nothing is damaged."""

    def __str__(self) -> str:
        return "a stored value is nested too deep for what is left of the call stack; call from a shallower place"


class TransactionError(JarvisError, RuntimeError):
    """A transaction is used where it cannot work, such as from another thread."""


# --- when an entry is addressed ------------------------------------------------------------------


def torn_transaction(name: object) -> TransactionError:
    """Return the error for a call in a transaction in which a change was interrupted half-way."""
    return TransactionError(f"{name}: an earlier failure rolled the transaction back; start a new one")


class DuplicateEntryError(JarvisError, ValueError):
    """The id is taken in this namespace; the entry that has it is untouched."""


class EntryNotFoundError(JarvisError, KeyError):
    """No entry has the id in this namespace."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the message in quotes


class ConflictError(JarvisError, RuntimeError):
    """The memory has another version than the change was meant for: another writer was faster. Nothing was changed.

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


class AmbiguousError(JarvisError, LookupError):
    """A text or an address is to name one memory, but none has it, or several have. Nothing was changed.

    Attributes:
        candidates: the ids of the memories that have the text, or of those that come near; at most 5.
        count: how many have it.
        address: the address, or None if it is a text.
    """

    def __init__(self, candidates: list[str], count: int, address: str | None = None) -> None:
        super().__init__(candidates, count, address)
        self.candidates = candidates
        self.count = count
        self.address = address

    def __str__(self) -> str:
        ids = ", ".join(self.candidates)
        if self.address is not None:
            more = ", …" if self.count > len(self.candidates) else ""
            return f"{self.address!r} names several memories, nothing was changed; give one of these ids: {ids}{more}"
        if self.count:
            return f"{self.count} memories have this text, nothing was changed; give the id of one of them: {ids}"
        near = f"; these come near, give the id of one of them: {ids}" if ids else ""
        return f"no memory has this text, nothing was changed{near}"


class RevisionNotFoundError(JarvisError, LookupError):
    """No such version of the memory is known; the message lists those that are."""


class HistoryUnavailableError(JarvisError, LookupError):
    """The memories of a moment are not known: it is before the store existed, or they were pruned since.

    Attributes:
        moment: of the question; aware UTC.
        earliest: the first moment for which the question can be answered, or None if no past is kept.
        because: the reason, or None if the past was pruned or never there.
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
    """Changes after the cursor are not known: they were pruned, history was turned off, or the store was restored.

    Attributes:
        cursor: of the question.
        earliest: the cursor after which all changes are known, or None if no history is kept.
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
            f"since: changes after the cursor {self.cursor} are not known any more; the earliest that can be asked is "
            f"{self.earliest}: read the memories themselves, then go on from newest_cursor()"
        )


# --- when a store is opened, read or written -----------------------------------------------------


class StoreError(JarvisError, OSError):
    """Something is wrong with the store itself, not with the call.

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


WAY_OUT = "restore a backup, or take what is left into a new store: memory.store.repair(to='a new directory')"
"""What to do about a damaged store, for messages."""


class CorruptStoreError(StoreError):
    """The store is damaged. Nothing was read from it, and its bytes were left as they are."""


class CorruptExportError(StoreError):
    """A file is no export of jarvis, or not a whole one. Nothing was imported from it."""


class TargetNotEmptyError(StoreError):
    """A store into which another one is to be copied has memories of its own. Nothing was written to it."""


class StoreTooNewError(StoreError):
    """A newer version of jarvis wrote the store."""


class StoreOutdatedError(StoreError):
    """An older version wrote the store, and it is opened read-only, so it cannot be migrated."""


class StoreMissingError(StoreError, FileNotFoundError):
    """There is no store to read or to create, it was removed while it was open, or a link to it leads nowhere."""


class StoreBusyError(StoreError, TimeoutError):
    """Another writer kept the store locked for longer than the busy timeout."""


class StoreClosedError(StoreError):
    """The memory was shut down while an iteration was open; begin it again, which opens the store."""


class ReadOnlyStoreError(StoreError, PermissionError):
    """A write to a store that is open read-only, or whose files may not be written."""


class StoreFullError(StoreError):
    """The disk, a quota or a size limit is exhausted; nothing of the failed write was kept."""


class StoreAccessError(StoreError):
    """The operating system refused a file operation, or it failed; the message says which."""


class OutcomeUnknownError(StoreError):
    """The connection to the server ended during a commit, and it cannot be told whether the write was kept."""


class WrongKeyError(StoreError):
    """A key was given, but it does not open the store. Nothing was written."""


class KeyUnavailableError(StoreError):
    """The store is encrypted, and no source gave a key; the message names each source and why it had none."""


class KeyFileExistsError(StoreError, FileExistsError):
    """There is already a file where a new key file was to be written; it was not changed."""


class NotEncryptedError(StoreError):
    """The store is plain, but encryption is required, or it has a file of keys. Nothing was written."""


class UnsafeLocationError(StoreError):
    """The store lies where its promises cannot hold: on a network file system, or mounted without its directory."""


class UnsafeLocationWarning(UserWarning):
    """The store lies at a risky place: another program may copy it, or names of files cannot be synced."""


class MisplacedSettingWarning(UserWarning):
    """A file of settings has keys of the memory outside of the section ``storage``, where they are not read."""


class ClockBehindWarning(UserWarning):
    """The clock is behind the last change of the store by more than a day: one of them is wrong."""


class OtherStoreWarning(UserWarning):
    """A store of another backend lies in the same directory; its memories are not taken over."""


class ReadableByOthersWarning(UserWarning):
    """The mode of a store's file lets others read or write it: it was migrated, restored or shared so."""


class NoRecoveryWarning(UserWarning):
    """Only a keyring opens the encrypted store: when its machine or account is lost, so is the store."""


NO_DESCRIPTORS = frozenset((errno.EMFILE, errno.ENFILE))


def translated(path: str | os.PathLike[str], error: OSError, doing: str) -> StoreError:
    """Return our error for an OSError about the file at `path`."""
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


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest of some names, or an empty string.

    >>> nearest("sqllite", ["json", "sqlite"])
    " (did you mean 'sqlite'?)"
    >>> nearest("zebra", ["json", "sqlite"])
    ''
    """
    import difflib  # 9 ms to import, and only needed for an error

    close = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def kind_of(value: object) -> str:
    """Return the words of messages for a value of a wrong type."""
    return "nothing" if value is None else f"a value of type {type(value).__name__}"
