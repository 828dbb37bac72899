"""`Forgets`: the verbs of `MemoryModule` by which memories expire."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

import msgspec

from jarvis.authorship import Author
from jarvis.backend_registry import ask
from jarvis.errors import EntryNotFoundError, InvalidEntryError
from jarvis.memory_entry import asked_limit, asked_text, check_expiry
from jarvis.revision import Operation
from jarvis.storage_backend import Expires, StorageBackend

Result = TypeVar("Result")
Lifetime = timedelta | float


class Forgets:
    """Let memories expire. Needs a backend that has expiry."""

    backend: StorageBackend

    if TYPE_CHECKING:  # what MemoryModule has

        def _author(self, module: str | None, task_id: str | None, reason: str | None = None) -> Author: ...
        def _change(self, work: Callable[[datetime], Result]) -> Result: ...
        def _now(self) -> datetime: ...
        def _sign(self, author: Author, operation: Operation) -> None: ...

    # --- expiry -----------------------------------------------------------------------------------

    def touch_memory(
        self,
        memory_id: str,
        *,
        ttl: Lifetime | msgspec.UnsetType | None = msgspec.UNSET,
        expires_at: datetime | None = None,
        module: str | None = None,
        task_id: str | None = None,
        reason: str | None = None,
    ) -> bool:
        """Let the memory expire at another time, or never; return whether it exists.

        That is a change with a version and a place in its history; its timestamp, and so its place in lists, stays.

        Args:
            memory_id: which memory; one that has expired does not exist.
            ttl: how long from now on, a timedelta or seconds; None for ever.
            expires_at: until when, in place of `ttl`; naive means local time.
            module, task_id, reason: who makes the change, for which task, and why.

        Raises:
            InvalidEntryError: neither or both are given, `ttl` is not above 0, or `expires_at` has passed.
            UnsupportedError: the backend has no expiry.

        >>> from jarvis.persistent_memory import MemoryModule
        >>> memory = MemoryModule(storage_dir=getfixture("tmp_path"))
        >>> memory_id = memory.set_user_preference("code", {"door": 4711}, ttl=60)
        >>> memory.touch_memory(memory_id, ttl=None)
        True
        >>> print(memory.get_memory(memory_id).expires_at)
        None
        """
        ask(self.backend, Expires)
        memory_id, author = asked_text("memory_id", memory_id), self._author(module, task_id, reason)
        if isinstance(ttl, msgspec.UnsetType) and expires_at is None:
            raise InvalidEntryError("ttl", "is not given; give it, or expires_at=, or ttl=None to keep it for ever")
        until = moment_of_expiry(self._now(), None if isinstance(ttl, msgspec.UnsetType) else ttl, expires_at)

        def touch(_: datetime) -> bool:
            entry = self.backend.read(memory_id)
            if entry is None:
                return False
            entry.expires_at = until
            self._sign(author, "touch")
            try:
                self.backend.update(entry)
            except EntryNotFoundError:  # it has expired since it was read
                return False
            return True

        return self._change(touch)

    def purge_expired(
        self,
        *,
        limit: int = 1_000,
        module: str | None = None,
        task_id: str | None = None,
        reason: str | None = None,
    ) -> int:
        """Remove at most `limit` memories that have expired, in every namespace, and their past; return how many.

        Reads do not see them anyway. Writers purge a few beside their changes, so this is for a store that nobody
        writes to, or to have it done now. Their changes stay in the feed, with the purge of each: who, when and why.

        Raises:
            InvalidQueryError: `limit` is no number above 0.
            UnsupportedError: the backend has no expiry.
        """
        store, author = ask(self.backend, Expires), self._author(module, task_id, reason)
        asked_limit(limit)

        def purge(_: datetime) -> int:
            self._sign(author, "expire")
            return store.purge_expired(limit)

        return self._change(purge)


def moment_of_expiry(now: datetime, ttl: Lifetime | None, expires_at: datetime | None) -> datetime | None:
    """Return when a memory expires that shall live for `ttl` from `now` on, or until `expires_at`; None for never.

    Raises:
        InvalidEntryError: both are given, `ttl` is not above 0, or `expires_at` has passed.
    """
    if ttl is not None and expires_at is not None:
        raise InvalidEntryError("ttl", "and expires_at exclude each other; give one of them")
    if ttl is not None:
        return _end_of(now, ttl)
    if expires_at is None:
        return None
    if isinstance(expires_at, datetime) and expires_at.tzinfo is None:
        expires_at = expires_at.astimezone()
    check_expiry(expires_at)
    if expires_at <= now:
        raise InvalidEntryError("expires_at", f"has passed, it is {now.isoformat()}; to forget it now, delete it")
    return expires_at


def _end_of(now: datetime, ttl: Lifetime) -> datetime:
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float, timedelta)):
        raise InvalidEntryError("ttl", f"takes a timedelta or a number of seconds, not {type(ttl).__name__}")
    try:
        lifetime = ttl if isinstance(ttl, timedelta) else timedelta(seconds=ttl)
        until = now + lifetime
    except (OverflowError, ValueError):  # ValueError: not a number
        raise InvalidEntryError("ttl", "is no length of time that ends before the year 9999") from None
    if until <= now:
        raise InvalidEntryError("ttl", "must be above 0; to forget it now, delete it")
    return until
