"""Texts, moments, sizes and spans of time as people read them; what a memory holds is shown, and never obeyed."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from jarvis.codec.json_form import json_form
from jarvis.model.entry import MemoryEntry

_JOINERS = "\u200c\u200d"  # emoji and letters of some scripts are joined by them
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_SPANS = ((365.25 * 86_400, "year"), (30 * 86_400, "month"), (86_400, "day"), (3_600, "hour"), (60, "minute"))
_KILO, _ONE_DIGIT = 1_000, 100
_NO_WIDTH = frozenset(("Mn", "Me"))
_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


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
    return _SHORT.get(sign) or escaped(sign)


def escaped(sign: str) -> str:
    """Return the escape of a sign in JSON."""
    units = sign.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[index]:02x}{units[index + 1]:02x}" for index in range(0, len(units), 2))


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
    if abs(seconds) < _SPANS[-1][0]:
        return "just now" if seconds >= 0 else "in a moment"
    return f"{span(seconds)} ago" if seconds > 0 else f"in {span(-seconds)}"


def lasting(duration: timedelta) -> str:
    """Return a duration in its largest unit."""
    return span(duration.total_seconds())


def exact(moment: datetime) -> str:
    """Return a moment in local time, to the second, with its offset."""
    return _aware(moment).astimezone().isoformat(sep=" ", timespec="seconds")


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.astimezone()


def columns(text: str) -> int:
    """Return how many columns of a terminal a text takes.

    >>> columns("memory"), columns("\u8a18\u61b6"), columns("e\u0301")
    (6, 4, 1)
    """
    return len(text) if text.isascii() else sum(map(_columns_of, text))


def _columns_of(sign: str) -> int:
    if unicodedata.category(sign) in _NO_WIDTH:
        return 0
    return 2 if unicodedata.east_asian_width(sign) in "WF" else 1


def fitted(text: str, width: int) -> str:
    """Return a text with exactly so many columns: cut with an ellipsis, or filled with spaces.

    >>> fitted("preferences", 6), fitted("a", 3)
    ('prefe\u2026', 'a  ')
    """
    if columns(text) > width:
        kept, taken = "", 1
        for sign in text:
            taken += _columns_of(sign)
            if taken > width:
                break
            kept += sign
        text = kept + _ELLIPSIS
    return text + " " * (width - columns(text))


def size(amount: int | None) -> str:
    """Return a number of bytes with three digits that count; a dash if it is not known.

    >>> size(0), size(999), size(1_234), size(45_678_901), size(None)
    ('0 B', '999 B', '1.23 kB', '45.7 MB', '\u2013')
    """
    if amount is None:
        return "\N{EN DASH}"
    number, unit = float(amount), 0
    while round(number, 2) >= _KILO - (0.5 if unit else 0) and unit < len(_UNITS) - 1:
        number, unit = number / _KILO, unit + 1
    if unit == 0:
        return f"{amount} B"
    digits = 0 if number >= _ONE_DIGIT else 1 if number >= _ONE_DIGIT / 10 else 2
    return f"{number:.{digits}f} {_UNITS[unit]}"


def span(seconds: float | None) -> str:
    """Return a span of time in its largest unit; a dash if it is not known.

    >>> span(42), span(90), span(7_200), span(86_400 * 400), span(-1)
    ('42 seconds', '1 minute', '2 hours', '1 year', 'none')
    """
    if seconds is None:
        return "\N{EN DASH}"
    if seconds < 0:
        return "none"
    for length, name in _SPANS:
        if seconds >= length:
            return several(int(seconds / length), name)
    return several(int(seconds), "second")


def several(count: int, name: str) -> str:
    """Return a number with a name, which gets an "s" unless there is one.

    >>> several(1, "tag"), several(1_200, "tag"), several(2, "memory")
    ('1 tag', '1,200 tags', '2 memories')
    """
    if count != 1:
        name = f"{name[:-1]}ies" if name.endswith("y") and name[-2:] != "ay" else f"{name}s"
    return f"{count:,} {name}"


def share(part: int, whole: int) -> str:
    """Return a part of a whole in percent.

    >>> share(1, 3), share(1, 4_000), share(0, 0)
    ('33%', '<1%', '0%')
    """
    percent = 100 * part / whole if whole else 0.0
    return "<1%" if 0 < percent < 1 else f"{percent:.0f}%"


def greatest(numbers: Iterable[int]) -> int:
    """Return the greatest of some numbers from 0 up; at least 1, so that it can be divided by."""
    return max([1, *numbers])


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
