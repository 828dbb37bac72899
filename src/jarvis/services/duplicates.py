"""Finds memories that say the same: equal ones, and nearly equal ones."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from jarvis.model.categories import TEXT
from jarvis.model.entry import MemoryEntry
from jarvis.model.options import PLAIN
from jarvis.model.query import MemoryQuery
from jarvis.model.record import prepare
from jarvis.services.searching import candidates_of
from jarvis.services.words import analyser_of
from jarvis.storage_backend import StorageBackend
from jarvis.text.analysis import analyser
from jarvis.text.document import document_of, words_of
from jarvis.text.question import MOST_WORDS, Term

_SHINGLE = 3
"""How many words stand side by side in a shingle: https://en.wikipedia.org/wiki/W-shingling."""


_USUALLY_ALL, _MORE = 20, 10
"""How many memories rarely have all words of a text; and how many times as many are looked at next."""

_MOST_COMPARED = 50
"""With how many memories that share a shingle with it one is compared at most: those before it."""

_ENDING = r"""[.,;:!?)"'\u2026\u201d\u2019\u00bb]+(?=\s|$)"""
_BEGINNING = r"""(?:(?<=\s)|^)[("'\u201c\u201e\u2018\u00ab\u00bf\u00a1]+"""
_PUNCTUATION = re.compile(f"{_ENDING}|{_BEGINNING}")
"""Punctuation that ends or begins a word."""


class Duplicates(NamedTuple):
    """Memories of one category, about one entity, that say the same.

    Attributes:
        entries: the newest first.
        similarity: of the least alike pair that joined them, from 0 to 1; 1 if all say the same, word for word.
    """

    entries: list[MemoryEntry]
    similarity: float


def said(text: str) -> str:
    """Return what two texts have in common that say the same: case, spaces and punctuation do not matter.

    Signs inside words and numbers do, and all others, such as in C++ and -5.

    >>> from jarvis.services.duplicates import said
    >>> said("Tea,  at FIVE!") == said("tea at five"), said("C++") == said("C#")
    (True, False)
    """
    plain = unicodedata.normalize("NFC", text).casefold()
    return " ".join(_PUNCTUATION.sub("", plain).split()) or text


def wording(value: dict[str, Any]) -> tuple[object, bytes]:
    """Return what two values have in common that say the same: what is said in the field ``text``, and all else.

    All else is compared as it is stored, so that 1, 1.0 and True differ.

    Raises:
        InvalidEntryError: the value cannot be stored.
    """
    text = value.get(TEXT)
    if not isinstance(text, str):
        return None, prepare(dict(sorted(value.items())), "off").json
    return said(text), prepare({name: value[name] for name in sorted(value) if name != TEXT}, "off").json


def equal_to(
    backend: StorageBackend,
    query: MemoryQuery,
    value: dict[str, Any],
    entity_id: str | None,
    life: datetime | None = None,
) -> list[MemoryEntry]:
    """Return the memories that match a query and say the same of the same entity, the newest first.

    Those that expire before the moment `life`, or at all without one, do not count. Unless the query has a key, a
    memory with a text is found by a search.
    """
    text, same = value.get(TEXT), wording(value)
    by_words = query.key is None and isinstance(text, str)
    entries = having_all(backend, str(text), query) if by_words else backend.select(query)
    alike = [
        entry
        for entry in entries
        if entry.entity_id == entity_id
        and wording(entry.value) == same
        and (entry.expires_at is None or (life is not None and life <= entry.expires_at))
    ]
    return sorted(alike, key=lambda entry: entry.order, reverse=True)


def having_all(backend: StorageBackend, text: str, query: MemoryQuery) -> list[MemoryEntry]:
    """Return memories that share words with a text, those that have all of its words first, and all of these."""
    words = analyser_of(backend)
    terms = [Term(word) for word in dict.fromkeys(words.words(text))][:MOST_WORDS]
    if not terms:
        return backend.select(query)
    most = _USUALLY_ALL
    while True:
        entries = candidates_of(backend, terms, query, most).entries
        if len(entries) < most or not all(term.is_in(words_of(entries[-1], words)) for term in terms):
            return entries
        most *= _MORE


def groups(entries: Iterable[MemoryEntry], threshold: float) -> list[Duplicates]:
    """Return the groups of memories of one category and entity with texts that are alike; the largest first.

    Two texts are as alike as the share of the runs of three words that both have, of those that one of them has
    (Jaccard). A memory belongs to a group if it is alike enough to one of its members.
    """
    apart: defaultdict[tuple[str, str, str | None], list[MemoryEntry]] = defaultdict(list)
    for entry in entries:
        apart[entry.category, entry.entity_type, entry.entity_id].append(entry)
    found = [group for some in apart.values() for group in _groups(some, threshold)]
    return sorted(found, key=lambda group: (-len(group.entries), [entry.id for entry in group.entries]))


def _groups(entries: list[MemoryEntry], threshold: float) -> list[Duplicates]:
    shingles = [_shingles(entry) for entry in entries]
    having: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    leader, least = list(range(len(entries))), [1.0] * len(entries)

    def lead(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    for index, own in enumerate(shingles):
        shared: Counter[int] = Counter()
        for shingle in own:
            shared.update(having[shingle][-_MOST_COMPARED:])
            having[shingle].append(index)
        for other, count in shared.items():
            likeness = count / (len(own) + len(shingles[other]) - count)
            if likeness >= threshold:
                first, second = lead(other), lead(index)
                leader[second] = first
                least[first] = min(least[first], least[second], likeness)
    members: defaultdict[int, list[MemoryEntry]] = defaultdict(list)
    for index, entry in enumerate(entries):
        members[lead(index)].append(entry)
    return [
        Duplicates(sorted(some, key=lambda entry: entry.order, reverse=True), least[index])
        for index, some in members.items()
        if len(some) > 1
    ]


def _shingles(entry: MemoryEntry) -> set[tuple[str, ...]]:
    """Return the runs of words of a memory's text; all of it, if that is shorter."""
    words = document_of(entry, analyser(PLAIN)).words
    return {tuple(words[start : start + _SHINGLE]) for start in range(max(1, len(words) - _SHINGLE + 1)) if words}
