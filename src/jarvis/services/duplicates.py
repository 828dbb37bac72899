"""Finds memories that say the same: equal ones, and nearly equal ones."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

from jarvis.model.entry import MemoryEntry
from jarvis.model.options import PLAIN
from jarvis.model.query import MemoryQuery
from jarvis.model.record import prepare
from jarvis.model.turn import TEXT
from jarvis.services.searching import MOST_NARROWED, analyser_of, candidates_of
from jarvis.storage_backend import StorageBackend
from jarvis.text.analysis import analyser
from jarvis.text.document import document_of, words_of
from jarvis.text.question import question_of

_SHINGLE = 3
"""How many words stand side by side in a shingle: https://en.wikipedia.org/wiki/W-shingling."""


_ENOUGH, _USUALLY_ALL = 3, 50
"""How many of the longest words of a text, which are mostly rare, are looked up, and how many memories rarely have all
of them."""


class Duplicates(NamedTuple):
    """Memories of one category that say the same.

    Attributes:
        entries: the newest first.
        similarity: of the two that are least alike, from 0 to 1; 1 if all say the same, word for word.
    """

    entries: list[MemoryEntry]
    similarity: float


def said(text: str) -> object:
    """Return what two texts have in common that say the same: case, accents, spaces and punctuation do not matter."""
    return tuple(analyser(PLAIN).words(text)) or text.strip()


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
    category: str,
    value: dict[str, Any],
    entity_type: str,
    entity_id: str | None,
    key: str | None = None,
) -> list[MemoryEntry]:
    """Return the memories of a category that say the same of the same entity, the newest first.

    With `key`, only those with this key: that takes no search.
    """
    query = MemoryQuery(category=category, entity_type=entity_type, key=key)
    text, same = value.get(TEXT), wording(value)
    by_words = key is None and isinstance(text, str)
    entries = having_all(backend, str(text), query) if by_words else backend.select(query)
    alike = [entry for entry in entries if entry.entity_id == entity_id and wording(entry.value) == same]
    return sorted(alike, key=lambda entry: entry.order, reverse=True)


def having_all(backend: StorageBackend, text: str, query: MemoryQuery) -> list[MemoryEntry]:
    """Return memories that share words with a text, those that have all of its words first, and all of these."""
    words = analyser_of(backend)
    terms = question_of(text, words).terms
    if not terms:
        return backend.select(query)
    rare = sorted(terms, key=lambda term: -len(term.text))[:_ENOUGH]
    entries = candidates_of(backend, rare, query, _USUALLY_ALL).entries
    if len(entries) < _USUALLY_ALL or not all(term.is_in(words_of(entries[-1], words)) for term in rare):
        return entries
    return candidates_of(backend, terms, query, MOST_NARROWED).entries


def groups(entries: Iterable[MemoryEntry], threshold: float) -> list[Duplicates]:
    """Return the groups of memories of one category whose texts are alike; the largest groups first.

    Two texts are as alike as the share of the runs of three words that both have, of those that one of them has
    (Jaccard). A memory belongs to a group if it is alike enough to one of its members.
    """
    by_category: defaultdict[str, list[MemoryEntry]] = defaultdict(list)
    for entry in entries:
        by_category[entry.category].append(entry)
    found = [group for some in by_category.values() for group in _groups(some, threshold)]
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
            shared.update(having[shingle])
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
