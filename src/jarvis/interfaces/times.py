"""Moments and durations as people and agents write them.

Each function raises `ValueError` with one sentence that says what it takes.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from jarvis.interfaces.readable import safe

_UNITS = {
    "s": "seconds",
    "sec": "seconds",
    "second": "seconds",
    "m": "minutes",
    "min": "minutes",
    "minute": "minutes",
    "h": "hours",
    "hour": "hours",
    "d": "days",
    "day": "days",
    "w": "weeks",
    "week": "weeks",
}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)\s*")

DURATION = "a duration such as 90s, 12h, 30d or '2 weeks'"
MOMENT = "a moment such as 2026-11-30, 2026-11-30T12:00, yesterday, '2 hours ago' or 'in 2 days'"


def duration(text: str) -> timedelta:
    """Return a duration: numbers with units, such as ``1h30m`` or ``2 weeks``."""
    rest, total = text.strip().lower(), timedelta()
    if not rest:
        raise ValueError(f"takes {DURATION}")
    while rest:
        match = _PART.match(rest)
        unit = _UNITS.get(match[2]) or _UNITS.get(match[2].rstrip("s")) if match else None
        if match is None or unit is None:
            raise ValueError(f"takes {DURATION}, not {safe(text)!r}")
        try:
            total += timedelta(**{unit: float(match[1])})
        except OverflowError:
            raise ValueError("takes a shorter duration") from None
        rest = rest[match.end() :]
    return total


def moment(text: str) -> datetime:
    """Return a moment: ISO 8601 (local time, if it has no offset), a word, ``2 hours ago`` or ``in 2 hours``."""
    word, now = text.strip().lower(), datetime.now().astimezone()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    day = timedelta(days=1)
    words = {"now": now, "today": midnight, "yesterday": midnight - day, "tomorrow": midnight + day}
    if word in words:
        return words[word]
    try:
        if word.endswith(" ago"):
            return now - duration(word.removesuffix(" ago"))
        if word.startswith("in "):
            return now + duration(word.removeprefix("in "))
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError):
        raise ValueError(f"takes {MOMENT}, not {safe(text)!r}") from None
