"""When a memory expires, and how expired memories are purged."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from jarvis._calls.arguments import own_code, plain_moment
from jarvis.capabilities import Expires
from jarvis.errors import EntryNotFoundError, InvalidEntryError
from jarvis.model.author import Author
from jarvis.model.entry import OUTSIDE, check_expiry
from jarvis.model.marks import NEVER, Never
from jarvis.services.changing import Changes, sign
from jarvis.storage_backend import StorageBackend

Lifetime = timedelta | float | Never
Expiry = datetime | Never | None
"""The expiry that a caller gives; None leaves it as it is."""


@own_code(InvalidEntryError, "expiry")
def moment_of_expiry(now: datetime, ttl: Lifetime | None, expires_at: datetime | None) -> Expiry:
    """Return the expiry of a memory that lives for `ttl` from `now` on, or until `expires_at`; None without both.

    Raises:
        InvalidEntryError: both are given, `ttl` is not above 0, or `expires_at` has passed.
    """
    if ttl is not None and expires_at is not None:
        raise InvalidEntryError("ttl", "and expires_at exclude each other; give one of them")
    if ttl is not None:
        return NEVER if ttl is NEVER else _end_of(now, ttl)
    if expires_at is None:
        return None
    expires_at = plain_moment(expires_at) or expires_at  # `check_expiry` refuses what is no moment
    if type(expires_at) is datetime and expires_at.tzinfo is None:
        try:
            expires_at = expires_at.astimezone()
        except (ValueError, OverflowError, OSError):  # such as for datetime.max in some time zones
            raise InvalidEntryError("expires_at", OUTSIDE) from None
    check_expiry(expires_at)
    if expires_at <= now:
        raise InvalidEntryError("expires_at", f"has passed, it is {now.isoformat()}; to forget it now, delete it")
    return expires_at


def moment_of_new_expiry(
    now: datetime, ttl: Lifetime | msgspec.UnsetType | None, expires_at: datetime | None
) -> datetime | None:
    """Return the new expiry of a memory; None if `ttl` is `NEVER` or None.

    Raises:
        InvalidEntryError: as there, or neither argument is given.
    """
    if ttl is msgspec.UNSET and expires_at is None:
        raise InvalidEntryError("ttl", "is not given; give it, or expires_at=, or ttl=NEVER to keep it for ever")
    if ttl is None and expires_at is not None:
        raise InvalidEntryError("ttl", "and expires_at exclude each other; give one of them")
    return expiry_in(moment_of_expiry(now, None if ttl is msgspec.UNSET else ttl, expires_at))


def expiry_in(expires_at: Expiry) -> datetime | None:
    """Return an expiry that a caller gives as an entry has it."""
    return None if expires_at is NEVER else expires_at


def touch(backend: StorageBackend, entry_id: str, expires_at: datetime | None, author: Author) -> bool:
    """Set the expiry of the entry, inside the caller's change; return whether the entry exists."""
    entry = backend.read(entry_id)
    if entry is None:
        return False
    entry.expires_at = expires_at
    sign(backend, author, "touch")
    try:
        backend.update(entry)
    except EntryNotFoundError:  # it has expired since it was read
        return False
    return True


def purge(backend: StorageBackend, limit: int, author: Author, change: Changes) -> int:
    """Remove at most `limit` entries that have expired, in one change; return how many."""

    def work(_: datetime) -> int:
        sign(backend, author, "expire")
        return backend.capability(Expires).purge_expired(limit)

    return change(work)


def _end_of(now: datetime, ttl: timedelta | float) -> datetime:
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float, timedelta)):
        raise InvalidEntryError("ttl", f"takes a timedelta, a number of seconds or NEVER, not {type(ttl).__name__}")
    try:
        lifetime = ttl if isinstance(ttl, timedelta) else timedelta(seconds=ttl)
        until = now + lifetime
    except (OverflowError, ValueError):  # ValueError: not a number
        raise InvalidEntryError("ttl", "is no length of time that ends before the year 9999") from None
    if until <= now:
        raise InvalidEntryError("ttl", "must be above 0; to forget it now, delete it")
    return until
