"""The names at the top of a file of settings: which of them are ours, and which look like slips.

The file belongs to the whole assistant, so names at its top may be anybody's. A name that differs from ours only by
case, white space or one letter is taken for a slip.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from typing import NamedTuple

SECTION = "storage"
_UNSEEN = ("Cc", "Cf")  # control characters, and marks such as a zero-width space


class Top(NamedTuple):
    """A name at the top of a file.

    Attributes:
        name: as it stands there.
        value: its value if that is text, else None.
        line: its line, if the parser tells.
    """

    name: object
    value: str | None
    line: int | None


def misspelt_section(tops: Collection[Top]) -> Top | None:
    """Return the first slip of our section's name; None if there is none, or the section itself is there."""
    if any(top.name == SECTION for top in tops):
        return None
    return next((top for top in tops if _is_nearly(top.name, SECTION)), None)


def misplaced(tops: Collection[Top], keys: Collection[str]) -> list[Top]:
    """Return the names at the top that are keys of ours, also as ``storage.key``."""
    return [top for top in tops if _folded(top.name).removeprefix(f"{SECTION}.") in keys]


def demands_encryption(tops: Collection[Top]) -> Top | None:
    """Return the name at the top that requires encryption, where it has no effect; or None."""
    for top in tops:
        is_ours = _is_nearly(top.name, "encryption") or _is_nearly(top.name, f"{SECTION}.encryption")
        if is_ours and _is_nearly(top.value, "required"):
            return top
    return None


def _folded(name: object) -> str:
    """Return `name` without case, white space and invisible characters; ``""`` if it is no text."""
    if not isinstance(name, str):
        return ""
    text = unicodedata.normalize("NFKC", name).casefold()
    return "".join(sign for sign in text if not sign.isspace() and unicodedata.category(sign) not in _UNSEEN)


def _is_nearly(name: object, word: str) -> bool:
    """Tell whether `name` is `word` but for case, white space and one letter: another, missing, added or swapped.

    >>> [_is_nearly(name, "storage") for name in ("Storage ", "stroage", "storag", "storages", "store", "")]
    [True, True, True, True, False, False]
    """
    text = _folded(name)
    same = 0
    while same < min(len(text), len(word)) and text[same] == word[same]:
        same += 1
    here, there = text[same:], word[same:]
    swapped = here[1:2] + here[:1] + here[2:]
    return here[1:] == there[1:] or here[1:] == there or here == there[1:] or swapped == there
