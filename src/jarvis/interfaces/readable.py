"""Texts, moments, durations and sizes as people read them; what a memory holds is shown, and never obeyed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from jarvis.codec.json_form import json_form
from jarvis.model.entry import MemoryEntry

_JOINERS = "\u200c\u200d"  # emoji and letters of some scripts are joined by them
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_UNITS = ((365 * 86_400, "year"), (30 * 86_400, "month"), (86_400, "day"), (3_600, "hour"), (60, "minute"))
_SIZES = ("bytes", "KiB", "MiB", "GiB", "TiB")


def safe(text: str) -> str:
    r"""Return a text in one line, with an escape for each sign that a terminal would obey instead of showing it.

    >>> print(safe("red: \x1b[31m"))
    red: \u001b[31m
    """
    if text.isprintable():
        return text
    return "".join(map(_shown, text))


def _shown(sign: str) -> str:
    if sign.isprintable() or sign in _JOINERS:
        return sign
    if sign.isspace() and ord(sign) > 0x7F and sign not in "\x85\u2028\u2029":
        return " "
    units = sign.encode("utf-16-be", "surrogatepass")
    escaped = "".join(f"\\u{units[index]:02x}{units[index + 1]:02x}" for index in range(0, len(units), 2))
    return _SHORT.get(sign) or escaped


def safe_lines(text: str) -> str:
    """Return a text with its line breaks, and all else as `safe` does."""
    return "\n".join(safe(line) for line in text.split("\n"))


def cut(text: str, width: int) -> str:
    """Return a text of at most `width` signs; the last one is an ellipsis if some are missing."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def ago(moment: datetime, now: datetime | None = None) -> str:
    """Return how far a moment is from now, in its largest unit.

    >>> from datetime import UTC, datetime
    >>> ago(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 3, tzinfo=UTC))
    '2 days ago'
    """
    seconds = ((datetime.now(UTC) if now is None else now) - _aware(moment)).total_seconds()
    span = _span(abs(seconds))
    if span is None:
        return "just now" if seconds >= 0 else "in a moment"
    return f"{span} ago" if seconds >= 0 else f"in {span}"


def lasting(duration: timedelta) -> str:
    """Return a duration in its largest unit."""
    return _span(duration.total_seconds()) or f"{duration.total_seconds():g} seconds"


def _span(seconds: float) -> str | None:
    for size, name in _UNITS:
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {name}{'' if count == 1 else 's'}"
    return None


def exact(moment: datetime) -> str:
    """Return a moment in local time, to the second, with its offset."""
    return _aware(moment).astimezone().isoformat(sep=" ", timespec="seconds")


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.astimezone()


def size(count: float) -> str:
    """Return a number of bytes in a unit that fits.

    >>> size(2_500_000)
    '2.4 MiB'
    """
    for unit in _SIZES:
        if abs(count) < 1024 or unit == _SIZES[-1]:
            break
        count /= 1024
    return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"


def as_json(value: Any) -> Any:
    """Return a result of an operation in types of JSON."""
    if isinstance(value, MemoryEntry):
        return value.model_dump(mode="json")
    if isinstance(value, msgspec.Struct):
        return {name: as_json(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: as_json(part) for name, part in zip(value._fields, value, strict=True)}
    if isinstance(value, dict):
        return {str(key): as_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(part) for part in value]
    return None if value is msgspec.UNSET else json_form(value)


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Return a result as JSON that is safe to show: signs that a terminal would obey are escaped."""
    text = msgspec.json.encode(as_json(value)).decode("utf-8", "surrogatepass")
    if indent is not None:
        text = msgspec.json.format(text, indent=indent)
    return "\n".join(safe(line) for line in text.split("\n"))
