"""`CacheLimits`: how much a cache keeps in memory, and for how long it answers without asking."""

from __future__ import annotations

import msgspec

from jarvis._calls.arguments import own_code
from jarvis.errors import InvalidSettingError

_LONGEST_SECONDS = 86_400.0


class CacheLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much `jarvis.caching.CachedBackend` keeps in memory. What was used least recently goes first.

    Attributes:
        entries: the most entries that it keeps; an answer without entries, such as a count, counts as one.
        bytes: the most memory that it takes.
        stale_seconds: for how long it may miss what OTHER PROCESSES change; None: it misses nothing.

    Raises:
        InvalidSettingError: a value has the wrong type or is out of range.

    >>> from jarvis.model.cache_limits import CacheLimits
    >>> CacheLimits(entries=500).bytes
    67108864
    """

    entries: int = 10_000
    bytes: int = 64 * 2**20
    stale_seconds: float | None = None

    @own_code(InvalidSettingError, "cache")
    def __post_init__(self) -> None:
        """Check every field."""
        for name in ("entries", "bytes"):
            number = getattr(self, name)
            if type(number) is not int or not 1 <= number < 2**63:
                raise InvalidSettingError(f"cache.{name} must be a whole number from 1 up")
        seconds = self.stale_seconds
        if seconds is not None and (type(seconds) not in (int, float) or not 0 < seconds <= _LONGEST_SECONDS):
            raise InvalidSettingError(
                "cache.stale_seconds must be a number above 0, up to a day; leave it out to miss no change"
            )
