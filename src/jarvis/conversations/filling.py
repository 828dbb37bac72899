"""Fills a context: which memories go into it, and how much of each, so that it has at most so many tokens.

1. Each section gets its share of the room, and takes memories from its stream until that is full.
2. What is left goes to the memories that wait, section by section, and to those that were cut.
3. The last that waits is cut to the room that is left.

What does not depend on the question stands first, and is the same for every question: memories of these sections that
only got room because few answer the question stand at the end.

The tokens of a line are counted alone at first. In the end the whole text counts, and a line goes if that is too long.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from jarvis.conversations.lines import BEGIN, END, NOTE, age_of, content_of, cut, short_id_of, source_of
from jarvis.conversations.tokens import TokenCounter
from jarvis.model.context import SECTIONS, Context, ContextLine, Section
from jarvis.model.entry import MemoryEntry

_SHARES: Mapping[Section, float] = {"device": 0.1, "preferences": 0.25, "recent_tasks": 0.15, "recalled": 0.5}
_LEFT_OVER: tuple[Section, ...] = ("recalled", "preferences", "recent_tasks", "device")
"""Which section gets the room first that others left."""

_MOST_OF_A_SHARE = 0.5
"""How much of the share of its section one memory gets at first."""

_LEAST_SHOWN = 12
"""Signs of a memory that is cut."""

_NEAR, _SLACK = 32, 2
"""How near a guess is mostly, as a share of it; and how many signs a memory may be shorter than it could be."""

_ENOUGH = 0.05
"""How much of the room may be left if filling it changed what does not depend on the question."""

_TRIED, _ROUNDS, _MOST_LINES = 8, 6, 10_000
"""How many memories that are too long are passed over for shorter ones; how often all is counted; lines at most."""


_LONGEST, _SIGNS_A_TOKEN = 1_000_000, 20
"""How many signs of a memory are read at most, and for each token that there is room for."""


class Candidate(NamedTuple):
    """A memory that may go into a context."""

    entry: MemoryEntry
    score: float | None = None


class _Line:
    """A memory that went in, and how much of it."""

    def __init__(self, section: Section, candidate: Candidate, rank: int, now: datetime, most: int) -> None:
        self.section, self.candidate, self.rank = section, candidate, rank
        self.source, self.age = source_of(candidate.entry), age_of(candidate.entry, now)
        self.content, self._is_whole = content_of(candidate.entry, most)
        self.said = " ".join(self.content.casefold().split())  # what two memories have in common that say the same
        self.size, self.short_id, self.cost = len(self.content), "", 0
        self.costs: dict[int, int] = {}  # of so many signs
        self.is_extra = False  # it is there because the question left room

    def text(self, size: int | None = None) -> str:
        shown = cut(self.content, self.size if size is None else size)
        return f"- [{self.short_id}] {self.source}, {self.age}: {shown}\n"

    @property
    def is_cut(self) -> bool:
        return self.size < len(self.content) or not self._is_whole

    @property
    def place(self) -> tuple[Any, ...]:
        """Where the line stands: what changes least comes first, and new tasks and facts come last."""
        entry, order = self.candidate.entry, SECTIONS.index(self.section)
        order += len(SECTIONS) * self.is_extra
        if self.section == "preferences":
            return order, entry.key, entry.id
        if self.section == "recalled" and self.candidate.score is not None:
            return order, self.rank
        return order, entry.order


def _largest(fits: Callable[[int], bool], low: int, high: int, guess: int) -> int:
    """Return about the largest size up to `high` that fits, of which it is known that `low` does.

    A guess makes it cheap: most sizes near it are told apart by a few calls.
    """
    if fits(high):
        return high
    for probe in (guess - guess // _NEAR - 1, guess + guess // _NEAR + 1):
        if low < probe < high:
            low, high = (probe, high) if fits(probe) else (low, probe)
    while high - low > _SLACK:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


class Filling:
    """A context that is being filled.

    Args:
        streams: the memories of each section, the most important first.
        room: how many tokens it may have.
        count: counts the tokens of a text.
        now: the present moment, for ages.
        without: the ids of memories that are left out.
    """

    def __init__(
        self,
        streams: Mapping[Section, Iterator[Candidate]],
        room: int,
        count: TokenCounter,
        now: datetime,
        without: Collection[str],
    ) -> None:
        self._streams, self._room, self._count, self._now = streams, room, count, now
        self._ids, self._said, self._short_ids = set(without), set[str](), set[str]()
        self._lines: list[_Line] = []
        self._waiting: dict[Section, list[_Line]] = {section: [] for section in streams}
        self._rank = 0
        self._longest = min(_LONGEST, _SIGNS_A_TOKEN * room)
        self._is_shared_out = False

    def context(self) -> Context:
        """Return the filled context."""
        frame = self._count(BEGIN + NOTE + END) if self._room else 1
        if frame < self._room:
            self._share_out(self._room - frame)
            self._use_the_rest()
            self._extend()
        text = self._whole()
        while self._lines and (tokens := self._count(text)) > self._room:  # a counter may have moods
            self._withdraw(self._lines.pop())
            text = self._whole()
        is_complete = not any(line.is_cut for line in self._lines) and not any(map(self._has_more, self._streams))
        if not self._lines:
            return Context(is_complete=is_complete)
        return Context(text, tuple(map(self._told, self._ordered())), tokens, is_complete=is_complete)

    # --- first, by estimates -----------------------------------------------------------------------

    def _share_out(self, room: int) -> None:
        """Give each section its share of the room."""
        whole = sum(_SHARES[section] for section in self._streams)
        for section in SECTIONS:
            if section in self._streams:
                share = int(room * _SHARES[section] / whole)
                self._take(section, share, int(share * _MOST_OF_A_SHARE))
        self._is_shared_out = True

    def _use_the_rest(self) -> None:
        """Give the room that is left to the memories that wait, and count again, until nothing changes."""
        for _ in range(_ROUNDS):
            self._drop()
            before = len(self._lines)
            for section in _LEFT_OVER:
                if section in self._streams:
                    left = self._room - self._count(self._whole())
                    if left > 0:
                        self._take(section, left, left, passing=_TRIED)
                        self._drop()
            if len(self._lines) == before:
                return

    def _take(self, section: Section, room: int, most: int, passing: int = 0) -> None:
        """Take memories of a section while there is room; one that is longer than `most` is cut to that."""
        passed: list[_Line] = []
        while len(self._lines) < _MOST_LINES:
            line = self._next(section)
            if line is None:
                break
            line.cost = self._cost(line, len(line.content))
            if line.cost > most:
                self._cut(line, most)
            if line.size and line.cost <= room:
                room -= line.cost
                self._admit(line)
            else:
                line.size = len(line.content)
                passed.append(line)
                if len(passed) > passing:
                    break
        self._waiting[section] = passed + self._waiting[section]

    def _cut(self, line: _Line, most: int) -> None:
        """Show as much of a line as costs at most so much; nothing, if `_LEAST_SHOWN` signs of it cost more."""
        whole, guess, line.size = len(line.content), len(line.content) * most // line.cost, 0
        if whole > _LEAST_SHOWN and self._cost(line, _LEAST_SHOWN) <= most:
            line.size = _largest(lambda size: self._cost(line, size) <= most, _LEAST_SHOWN, whole, guess)
            line.cost = self._cost(line, line.size)

    def _cost(self, line: _Line, size: int) -> int:
        """Return the tokens of a line, alone, of which so many signs are shown."""
        if size not in line.costs:
            line.costs[size] = self._count(line.text(size))
        return line.costs[size]

    # --- then, by the whole text -------------------------------------------------------------------

    def _drop(self) -> None:
        """Let the lines that came last wait again while the whole text is too long."""
        while self._lines:
            excess = self._count(self._whole()) - self._room
            if excess <= 0:
                return
            while self._lines and excess > 0:
                line = self._lines.pop()
                excess -= max(1, line.cost)
                self._withdraw(line)

    def _extend(self) -> None:
        """Show more of the lines that were cut, and as much as fits of the first that wait.

        Those that do not depend on the question come last: what they show changes if they are stretched.
        """
        self._stretch_cut(lambda line: line.section == "recalled" or line.is_extra)
        left = self._room - self._count(self._whole())
        for section in _LEFT_OVER:
            for line in self._waiting.get(section, [])[:_TRIED]:
                least = min(_LEAST_SHOWN, len(line.content))
                if not self._is_new(line) or self._cost(line, least) > left:
                    continue
                self._admit(line)
                line.size = least
                if self._count(self._whole()) <= self._room:
                    self._waiting[section].remove(line)
                    self._stretch(line, least)
                    left = self._room - self._count(self._whole())
                else:
                    self._lines.remove(line)
                    self._withdraw(line)
        if left > _ENOUGH * self._room:
            self._stretch_cut(lambda _: True)

    def _stretch_cut(self, which: Callable[[_Line], bool]) -> None:
        cut_short = [line for line in self._lines if line.size < len(line.content) and which(line)]
        for line in sorted(cut_short, key=lambda line: (_LEFT_OVER.index(line.section), line.rank)):
            self._stretch(line, line.size)

    def _stretch(self, line: _Line, size: int) -> None:
        """Show as much of a line as fits into the whole; `size` signs of it fit."""

        def fits(longer: int) -> bool:
            line.size = longer
            return self._count(self._whole()) <= self._room

        left, whole = self._room - self._count(self._whole()), len(line.content)
        cost = self._count(line.content) or 1
        line.size = _largest(fits, size, whole, size + whole * max(0, left) // cost)

    # --- lines -------------------------------------------------------------------------------------

    def _next(self, section: Section) -> _Line | None:
        """Return the next memory of a section that the context does not have yet, or None."""
        while True:
            waiting = self._waiting[section]
            if waiting:
                line = waiting.pop(0)
            else:
                candidate = next(self._streams[section], None)
                if candidate is None:
                    return None
                if candidate.entry.id in self._ids:
                    continue
                line = _Line(section, candidate, self._rank, self._now, self._longest)
                self._rank += 1
            if self._is_new(line):
                line.short_id = short_id_of(line.candidate.entry.id, self._short_ids)
                return line

    def _is_new(self, line: _Line) -> bool:
        return line.candidate.entry.id not in self._ids and line.said not in self._said

    def _admit(self, line: _Line) -> None:
        line.short_id = short_id_of(line.candidate.entry.id, self._short_ids)
        line.is_extra = self._is_shared_out and line.section != "recalled" and "recalled" in self._streams
        self._lines.append(line)
        self._ids.add(line.candidate.entry.id)
        self._said.add(line.said)
        self._short_ids.add(line.short_id)

    def _withdraw(self, line: _Line) -> None:
        self._ids.discard(line.candidate.entry.id)
        self._said.discard(line.said)
        self._short_ids.discard(line.short_id)
        line.size = len(line.content)
        if line not in self._waiting[line.section]:
            self._waiting[line.section].insert(0, line)

    def _has_more(self, section: Section) -> bool:
        """Tell whether a memory of a section is left; at the end only, for it takes memories from the stream."""
        line = self._next(section)
        if line is not None:
            self._waiting[section].insert(0, line)
        return line is not None

    def _ordered(self) -> list[_Line]:
        return sorted(self._lines, key=lambda line: line.place)

    def _whole(self) -> str:
        return BEGIN + NOTE + "".join(line.text() for line in self._ordered()) + END

    def _told(self, line: _Line) -> ContextLine:
        entry = line.candidate.entry
        text = line.text().removesuffix("\n")
        return ContextLine(
            entry.id,
            line.short_id,
            line.section,
            line.source,
            line.age,
            text,
            line.is_cut,
            entry,
            line.candidate.score,
        )
