"""When a memory expires, and how expired memories are purged."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from jarvis._calls.arguments import own_code, plain_moment
from jarvis.capabilities import Expires, Slides
from jarvis.errors import EntryNotFoundError, InvalidEntryError, JarvisError
from jarvis.model.author import Author
from jarvis.model.entry import OUTSIDE, MemoryEntry, check_expiry
from jarvis.model.marks import NEVER, Never
from jarvis.services.changing import Changes, sign
from jarvis.storage_backend import StorageBackend

Lifetime = timedelta | float | Never


class Expiry(NamedTuple):
    """The expiry that a caller gives, as an entry has it; no ttl if a moment was given, and neither for `NEVER`."""

    expires_at: datetime | None = None
    ttl: timedelta | None = None
    sliding: bool = False


NO_EXPIRY = Expiry()


@own_code(InvalidEntryError, "expiry")
def moment_of_expiry(
    now: datetime, ttl: Lifetime | None, expires_at: datetime | None, sliding: object = False
) -> Expiry | None:
    """Return the expiry of a memory that lives for `ttl` from `now` on, or until `expires_at`; None without both.

    Raises:
        InvalidEntryError: both are given, `ttl` is not above 0, or `expires_at` has passed; or it slides without a ttl.
    """
    if sliding is not False and (sliding is not True or ttl is None or ttl is NEVER):
        raise InvalidEntryError("sliding", "takes True or False, and True only together with a ttl that ends")
    if ttl is not None and expires_at is not None:
        raise InvalidEntryError("ttl", "and expires_at exclude each other; give one of them")
    if ttl is not None:
        return NO_EXPIRY if ttl is NEVER else _life_of(now, ttl)._replace(sliding=sliding is True)
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
    return Expiry(expires_at)


def moment_of_new_expiry(
    now: datetime, ttl: Lifetime | msgspec.UnsetType | None, expires_at: datetime | None, sliding: object
) -> Expiry | None:
    """Return the new expiry of a memory, a `ttl` of None being `NEVER`; None if neither argument is given.

    Raises:
        InvalidEntryError: as there.
    """
    if ttl is None and expires_at is not None:
        raise InvalidEntryError("ttl", "and expires_at exclude each other; give one of them")
    if ttl is None:
        ttl = NEVER
    return moment_of_expiry(now, None if ttl is msgspec.UNSET else ttl, expires_at, sliding)


def touch(backend: StorageBackend, entry_id: str, expiry: Expiry | None, now: datetime, author: Author) -> bool:
    """Set the expiry of the entry, or let its ttl begin again for None; return whether the entry exists.

    Raises:
        InvalidEntryError: it has no ttl that could begin again.
    """
    entry = backend.read(entry_id)
    if entry is None:
        return False
    if expiry is None:
        if entry.ttl is None:
            raise InvalidEntryError("ttl", "the memory has none that could begin again; give ttl= or expires_at=")
        expiry = _life_of(now, entry.ttl)._replace(sliding=entry.sliding)
    entry.expires_at, entry.ttl, entry.sliding = expiry
    sign(backend, author, "touch")
    try:
        backend.update(entry)
    except EntryNotFoundError:  # it has expired since it was read
        return False
    return True


def slide(backend: StorageBackend, entry: MemoryEntry, now: datetime) -> None:
    """Let the ttl of an entry that was just read begin again, if a tenth of it has passed and nobody is writing.

    Whatever fails, the entry was read: the next read tries again.
    """
    if entry.ttl is None or entry.expires_at is None or not backend.has_capability(Slides):
        return
    try:
        until = _life_of(now, entry.ttl).expires_at
        is_due = until is not None and until - entry.expires_at >= entry.ttl / 10
        if until is not None and is_due and backend.capability(Slides).slide(entry.id, until):
            entry.expires_at = until
    except JarvisError:
        return


def purge(backend: StorageBackend, limit: int, author: Author, change: Changes) -> int:
    """Remove at most `limit` entries that have expired, in one change; return how many."""

    def work(_: datetime) -> int:
        sign(backend, author, "expire")
        return backend.capability(Expires).purge_expired(limit)

    return change(work)


def _life_of(now: datetime, ttl: timedelta | float) -> Expiry:
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float, timedelta)):
        raise InvalidEntryError("ttl", f"takes a timedelta, a number of seconds or NEVER, not {type(ttl).__name__}")
    try:
        lifetime = timedelta(0) + ttl if isinstance(ttl, timedelta) else timedelta(seconds=ttl)
        until = now + lifetime
    except (OverflowError, ValueError):  # ValueError: not a number
        raise InvalidEntryError("ttl", "is no length of time that ends before the year 9999") from None
    if until <= now:
        raise InvalidEntryError("ttl", "must be above 0; to forget it now, delete it")
    return Expiry(until, lifetime)
