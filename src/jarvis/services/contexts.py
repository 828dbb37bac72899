"""Gathers what goes into a context for a prompt: streams of memories, the most important of each section first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime

import msgspec

from jarvis.conversations.filling import Candidate, Filling
from jarvis.conversations.tokens import TokenCounter, checked_counter
from jarvis.errors import InvalidQueryError
from jarvis.model.categories import DEVICE_KEY, DEVICES, FACTS, PREFERENCES, TASKS
from jarvis.model.context import SECTIONS, Context, Section
from jarvis.model.query import MemoryQuery, asked_number, asked_texts
from jarvis.model.recalled import Recalled
from jarvis.storage_backend import StorageBackend

_PAGE, _MOST_RECALLED, _MOST_NAMED = 50, 10_000, 100

Search = Callable[[str, MemoryQuery, int], list[Recalled]]
"""Returns so many memories at most that answer a question best, of those that match a query."""


def checked_sections(include: object) -> tuple[Section, ...]:
    """Return the sections that a caller wants; raise `InvalidQueryError` if there is no such section."""
    names = asked_texts("include", include, _MOST_NAMED)  # type: ignore[arg-type]  # it is checked there
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        raise InvalidQueryError(f"include: takes some of {', '.join(SECTIONS)}")
    return tuple(section for section in SECTIONS if section in names)


class Streams:
    """The memories of each section of a context.

    Args:
        question: of the section ``recalled``; without one that has the newest facts.
        hidden: tags of memories that are left out.
    """

    def __init__(
        self, backend: StorageBackend, search: Search, question: str | None, hidden: tuple[str, ...] | None
    ) -> None:
        self._backend, self._search, self._question, self._hidden = backend, search, question, hidden

    def context(
        self,
        sections: Sequence[Section],
        max_tokens: int,
        counter: TokenCounter | None,
        now: datetime,
        without: Collection[str],
    ) -> Context:
        """Return the context of some sections; see `MemoryModule.build_context`.

        Raises:
            InvalidQueryError: `max_tokens` is no number of tokens, or the counter does not count.
        """
        room, count = asked_number("max_tokens", max_tokens, 0), checked_counter(counter)
        return Filling({section: self.of(section) for section in sections}, room, count, now, without).context()

    def of(self, section: Section) -> Iterator[Candidate]:
        """Yield the memories of a section."""
        if section == "device":
            return self._device()
        if section == "preferences":
            return self._preferences()
        if section == "recent_tasks":
            return self._newest(TASKS)
        return self._newest(FACTS) if self._question is None else self._recalled(self._question)

    def _device(self) -> Iterator[Candidate]:
        entry = self._backend.last_written(DEVICES, DEVICE_KEY)
        if entry is not None:
            yield Candidate(entry)

    def _preferences(self) -> Iterator[Candidate]:
        """Yield the last written memory of each preference, the newest first."""
        entries = self._backend.select(MemoryQuery(category=PREFERENCES, exclude_tags=self._hidden))
        last = {entry.key: entry for entry in sorted(entries, key=lambda entry: (entry.position or (0, 0))[1])}
        yield from map(Candidate, sorted(last.values(), key=lambda entry: entry.order, reverse=True))

    def _newest(self, category: str) -> Iterator[Candidate]:
        query = MemoryQuery(category=category, limit=_PAGE, exclude_tags=self._hidden)
        while True:
            page = self._backend.select(query)
            yield from map(Candidate, page)
            if len(page) < _PAGE:
                return
            query = msgspec.structs.replace(query, after=page[-1])

    def _recalled(self, question: str) -> Iterator[Candidate]:
        query, told, most = MemoryQuery(exclude_tags=self._hidden), set[str](), _PAGE
        while True:
            found = self._search(question, query, most)
            for recalled in found:
                if recalled.entry.id not in told:
                    told.add(recalled.entry.id)
                    yield Candidate(recalled.entry, recalled.score)
            if len(found) < most or most >= _MOST_RECALLED:
                return
            most *= 4
