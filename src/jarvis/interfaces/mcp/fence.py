"""Memories in the result of a tool: as data, with source and age, and never more than has room.

The text is a block like that of `MemoryModule.build_context`, but with whole ids, which other tools take. For programs
there is the same as JSON. Both have the same room, because it is up to the client which of them a model reads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, NamedTuple

import msgspec

from jarvis.conversations.lines import BEGIN, END, NOTE, age_of, content_of, cut, in_one_line, named, source_of
from jarvis.conversations.tokens import most_tokens
from jarvis.errors import JarvisError
from jarvis.model.entry import MAX_NAME_BYTES, MemoryEntry

FRAME = most_tokens(BEGIN + NOTE + END) + 500
"""What a block needs around its lines, with what is said before and after it."""

_WORTH_CUTTING = 400  # a smaller part of a memory helps nobody
_MOST_TAGS_BYTES = 500
_MARK = re.compile(r"\[(?=/?[a-z]?[A-Z][A-Z0-9_]*\])")  # such as [INST]; JSON itself has no such sign


class ShownMemory(msgspec.Struct, omit_defaults=True, rename="camel", kw_only=True):
    """A memory, for programs."""

    id: Annotated[str, msgspec.Meta(description="Other tools take it as address")]
    category: str
    source: Annotated[str, msgspec.Meta(description="The category, what it is about, and which program wrote it")]
    age: str
    timestamp: str
    version: int
    key: str | None = None
    about: Annotated[str | None, msgspec.Meta(description="Type and id of what it is about")] = None
    tags: list[str] | None = None
    score: Annotated[float | None, msgspec.Meta(description="How well it answers, from 0 to 1")] = None
    value: Annotated[dict[str, Any] | None, msgspec.Meta(description="Missing if it has no room here")] = None
    is_cut: Annotated[bool, msgspec.Meta(description="get shows the rest")] = False


class Line(NamedTuple):
    """A line of a block, and the same for programs."""

    text: str
    memory: dict[str, Any]


class Block:
    """Lines that have room.

    Args:
        room: of the whole result, in tokens.
        now: the age of a memory is told as of then.
    """

    def __init__(self, room: int, now: datetime) -> None:
        self._whole = room - FRAME
        self._text_room = self._json_room = self._whole
        self._now = now
        self._left_out = 0
        self.lines: list[Line] = []

    def fill(self, entries: Sequence[MemoryEntry], scores: Sequence[float] | None = None) -> int:
        """Add memories as long as they have room; return how many were added, or can never have room.

        A memory that is longer than half of the room is cut, and so is the first one that has none left.
        """
        for number, entry in enumerate(entries):
            score = None if scores is None else scores[number]
            most = self._text_room if number == len(entries) - 1 else min(self._text_room, self._whole // 2)
            line = self._line(entry, score, most)
            if line is not None:
                self.lines.append(line)
                self._text_room -= most_tokens(line.text) + 1
                self._json_room -= size_as_json(line.memory) + 1
            elif self.lines:
                return number
            else:
                self._left_out += 1
        return len(entries)

    def _line(self, entry: MemoryEntry, score: float | None, most: int) -> Line | None:
        """Return a memory as a line of at most so many tokens, None if there is no room for it."""
        head = f"- [{named(entry.id, MAX_NAME_BYTES)}] {source_of(entry)}, {age_of(entry, self._now)}: "
        content, is_whole = content_of(entry, self._whole)
        text = f"{head}{content}"
        if most_tokens(text) + 1 > most or not is_whole:
            if self.lines and most < _WORTH_CUTTING:
                return None
            text, is_whole = _shortened(head, content, most), False
        memory = self._memory(entry, score, is_whole) if text else None
        return None if memory is None else Line(text, memory)

    def _memory(self, entry: MemoryEntry, score: float | None, is_whole: bool) -> dict[str, Any] | None:
        """Return a memory for programs with as many of its fields as have room, None if not even the id has."""
        shown = ShownMemory(
            id=entry.id,
            category=entry.category,
            source=source_of(entry),
            age=age_of(entry, self._now),
            timestamp=entry.timestamp.isoformat(),
            version=entry.version,
            key=entry.key,
            about=None if entry.entity_id is None else f"{entry.entity_type}/{entry.entity_id}",
            tags=entry.tags if entry.tags and size_as_json(entry.tags) <= _MOST_TAGS_BYTES else None,
            score=score,
            value=value_of(entry) if is_whole else None,
        )
        shown.is_cut = shown.value is None
        for dropped in ((), ("value",), ("tags", "about", "key")):
            for name in dropped:
                setattr(shown, name, None)
            shown.is_cut |= bool(dropped)
            memory: dict[str, Any] = msgspec.to_builtins(shown)
            if size_as_json(memory) <= self._json_room:
                return memory
        return None

    @property
    def memories(self) -> list[dict[str, Any]]:
        """The memories for programs."""
        return [line.memory for line in self.lines]

    @property
    def has_cut(self) -> bool:
        """Whether a memory is not there as a whole."""
        return any("isCut" in line.memory for line in self.lines)

    def notes(self) -> list[str]:
        """Say what is not there."""
        notes = ["Some are cut, at …; get shows one whole, part by part"] if self.has_cut else []
        return [*notes, f"{self._left_out:,} with very long names are left out"] if self._left_out else notes


def fenced(lines: Iterable[str], before: str = "", after: str = "") -> str:
    """Return lines as a block that says that it is data, with what the server says before and after it."""
    body = "".join(f"{line}\n" for line in lines)
    parts = [before, f"{BEGIN}{NOTE}{body}{END}" if body else "", after]
    return "\n".join(part for part in parts if part)


def value_of(entry: MemoryEntry) -> dict[str, Any] | None:
    """Return the value as JSON can have it, None if it has no such form."""
    try:
        value: dict[str, Any] = entry.model_dump(mode="json")["value"]
    except (JarvisError, RecursionError):  # two keys would be one in JSON, or it is nested very deep
        return None
    return value


def whole_text_of(entry: MemoryEntry) -> str:
    """Return the value as exact JSON in one line that no text in it can end."""
    value = value_of(entry)
    text = json.dumps(repr(entry.value) if value is None else value, ensure_ascii=False)
    return exact_in_one_line(text)


def exact_in_one_line(text: str) -> str:
    r"""Return JSON as equal JSON, with an escape for each sign that `in_one_line` escapes or replaces.

    >>> print(exact_in_one_line('"a\u00a0</memories>"'))
    "a\u00a0\u003c/memories>"
    """
    if in_one_line(text) == text:
        return text
    escapes = {ord(sign): _escape(sign) for sign in set(text) if in_one_line(sign) != sign}
    return _MARK.sub(r"\\u005b", text.translate(escapes))


def _escape(sign: str) -> str:
    return f"\\u{ord(sign):04x}" if sign.isascii() else json.dumps(sign)[1:-1]


def beginning_of(text: str, room: int) -> str:
    """Return the first signs of JSON in one line that have room; no escape is cut in two."""
    if most_tokens(text) <= room:
        return text
    size = max(room, 0)
    while size > 0 and most_tokens(text[:size]) > room:
        size -= max((most_tokens(text[:size]) - room) // 4, 1)
    slash = text.rfind("\\", max(size - 5, 0), size)
    return text[: slash if slash > 0 else size]


def _shortened(head: str, content: str, most: int) -> str:
    size = most - most_tokens(head) - 8
    while size > 0:
        text = f"{head}{cut(content, size)}"
        excess = most_tokens(text) + 1 - most
        if excess <= 0:
            return text
        size -= max(excess // 4, 1)
    return ""


def size_as_json(value: Any) -> int:
    """Return the most tokens of a value that is sent as JSON."""
    return most_tokens(json.dumps(value, ensure_ascii=False)) + 1
