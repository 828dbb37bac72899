"""What a result of a tool may take of a model's context: JSON that shows every sign, and how much of it has room."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from jarvis.conversations.tokens import most_tokens
from jarvis.interfaces.readable import escaped

LEAST_TOKENS = 2_000
"""The smallest room that a server can be given: less would not hold a name and how to go on."""

INDENT = 2


def shown(value: Any) -> str:
    r"""Return a value as indented JSON in which signs that are not printed are escaped.

    So a terminal obeys no escape code, and a model reads no invisible letter. The JSON is exact all the same.

    >>> print(shown(["one\u202e"]))
    [
      "one\u202e"
    ]
    """
    text = json.dumps(value, indent=INDENT, ensure_ascii=False)
    return text if text.replace("\n", "").isprintable() else "".join(map(_shown, text))


def _shown(sign: str) -> str:
    return sign if sign.isprintable() or sign == "\n" else escaped(sign)


def size_of(item: Any, depth: int) -> int:
    """Return the most tokens of an item of a list that stands so deep in a result."""
    text = shown(item)
    return most_tokens(text) + (text.count("\n") + 1) * INDENT * depth + 2


def fitting(items: Iterable[Any], room: int, depth: int) -> Iterator[Any]:
    """Yield the first items, as many as have room."""
    for item in items:
        room -= size_of(item, depth)
        if room < 0:
            return
        yield item


def beginning_that_fits(text: str, room: int) -> int:
    """Return how many of the first signs of a text have room, as JSON."""
    low, high = 0, min(len(text), room)
    while low < high:
        middle = (low + high + 1) // 2
        if most_tokens(shown(text[:middle])) <= room:
            low = middle
        else:
            high = middle - 1
    return low


def cleaned(value: Any) -> Any:
    """Return a value that can be sent: lone surrogates, which UTF-8 has no form for, become escapes."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [cleaned(each) for each in value]
    if isinstance(value, dict):
        return {cleaned(name): cleaned(each) for name, each in value.items()}
    return value
