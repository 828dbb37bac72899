"""`Words`: the index of words of a JSON store, in memory; built at the first search, and kept up at each one."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from jarvis._json.record import by_order
from jarvis.model.query import MemoryQuery
from jarvis.model.words import Candidates

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jarvis._json.record import Record
    from jarvis._json.room import Room
    from jarvis.model.words import Term


class Words:
    """The indexes of the namespaces of a store, which all its handles share.

    A search that comes while another thread uses them makes an index of its own: it never waits.

    Args:
        language: of the texts.
    """

    def __init__(self, language: str) -> None:
        self._language = language
        self._of_rooms: dict[str, _Index] = {}
        self._using = threading.Lock()

    def clear(self) -> None:
        """Forget all words."""
        self._of_rooms = {}

    @contextlib.contextmanager
    def of(self, namespace: str, room: Room) -> Iterator[_Index]:
        """Lend the index of the records of a namespace."""
        if not self._using.acquire(blocking=False):
            index = _Index(self._language)
            index.keep_up(room)
            yield index
            return
        try:
            index = self._of_rooms.setdefault(namespace, _Index(self._language))
            try:
                index.keep_up(room)
                yield index
            except BaseException:  # perhaps half-way
                self._of_rooms.pop(namespace, None)
                raise
        finally:
            self._using.release()


class _Index:
    """The words of records, and the records that have a word, by their ids."""

    def __init__(self, language: str) -> None:
        self._language = language
        self._room: Room | None = None
        self._changes = 0
        self._records: dict[str, Record] = {}
        self._words: dict[str, set[str]] = {}
        self._having: dict[str, set[str]] = {}

    def keep_up(self, room: Room) -> None:
        """Index the records of a room, and nothing else; those that are indexed already stay so."""
        if room is self._room and room.changes == self._changes:
            return
        from jarvis.text.analysis import analyser
        from jarvis.text.document import words_of

        self._room, self._changes, by = room, room.changes, analyser(self._language)
        records = dict(room.records)
        gone = [
            entry_id
            for entry_id, record in self._records.items()
            if (now := records.get(entry_id)) is not record and (now is None or now.fragment != record.fragment)
        ]
        for entry_id in gone:
            for word in self._words.pop(entry_id):
                self._having[word].discard(entry_id)
        self._records = records
        for entry_id in records.keys() - self._words.keys():
            words = self._words[entry_id] = words_of(records[entry_id].entry(), by)
            for word in words:
                self._having.setdefault(word, set()).add(entry_id)

    def candidates(self, terms: Sequence[Term], query: MemoryQuery, most: int, now: int) -> Candidates:
        """Return what `jarvis.text.candidates.choose` does with the records that have not expired by `now`."""
        from jarvis.text.candidates import rarity

        records = self._records
        expired = {record.id for record in self._room.expired(now)} if self._room else set()
        masks: dict[str, int] = {}  # by id: a bit for each term
        counts = [0] * len(terms)
        for place, term in enumerate(terms):
            having = self._all_having(term)
            having = having - expired if expired else having
            counts[place], bit = len(having), 1 << place
            fresh = dict.fromkeys(having, bit)
            for entry_id in masks.keys() & having:
                fresh[entry_id] = masks.pop(entry_id) | bit
            fresh.update(masks)
            masks = fresh
        total = len(records) - len(expired)
        weights = [rarity(count, total) for count in counts]
        best: list[Record] = []
        if query == MemoryQuery():
            for equal in self._ranked(masks, weights, most):
                best += equal
        else:
            matches: Any = query.predicate()
            for equal in self._ranked(masks, weights, None):
                best += filter(matches, equal)
                if len(best) >= most:
                    break
        return Candidates([record.entry() for record in best[:most]], counts, total)

    def _ranked(self, masks: dict[str, int], weights: list[float], most: int | None) -> Iterator[list[Record]]:
        """Yield the records of equal scores, the newest first, those with the greatest score first.

        With `most`, no more scores than have as many records.
        """
        numbers: Counter[float] = Counter()
        score_of: dict[int, float] = {}
        for mask, number in Counter(masks.values()).items():
            score_of[mask] = score = sum(weight for place, weight in enumerate(weights) if mask >> place & 1)
            numbers[score] += number
        scores = sorted(numbers, reverse=True)
        if most is not None:
            reached = itertools.accumulate(numbers[score] for score in scores)
            scores = scores[: 1 + next((place for place, count in enumerate(reached) if count >= most), len(scores))]
        ranked: dict[float, list[Record]] = {score: [] for score in scores}
        lists = {mask: ranked[score] for mask, score in score_of.items() if score in ranked}
        for entry_id, mask in masks.items():
            if mask in lists:
                lists[mask].append(self._records[entry_id])
        for equal in ranked.values():
            equal.sort(key=by_order, reverse=True)
            yield equal

    def _all_having(self, term: Term) -> set[str]:
        if not term.is_prefix:
            return self._having.get(term.text, set())
        return set[str]().union(*(having for word, having in self._having.items() if word.startswith(term.text)))

    def vocabulary(self, beginning: str) -> list[str]:
        """Return the words that begin so, sorted."""
        return sorted(word for word, having in self._having.items() if having and word.startswith(beginning))
