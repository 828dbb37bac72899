"""Texts, sizes and spans of time as people read them, on a terminal and on a page."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_SPANS = ((365.25 * 86_400, "year"), (30 * 86_400, "month"), (86_400, "day"), (3_600, "hour"), (60, "minute"))
_KILO, _ONE_DIGIT = 1_000, 100
_SHOWN_AS_CODE = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
_NO_WIDTH = frozenset(("Mn", "Me"))
_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


def plain(text: str) -> str:
    r"""Return a stored text as one that does nothing: what controls a terminal or a page is written as its code.

    Those are control characters, escape sequences, marks that turn the direction of text, and half characters.

    >>> plain("a\x1b[31m\u202eb\n")
    'a\\x1b[31m\\u202eb\\n'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        sign.encode("unicode_escape", "backslashreplace").decode()
        if unicodedata.category(sign) in _SHOWN_AS_CODE
        else sign
        for sign in text
    )


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
