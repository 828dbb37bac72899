"""`Words`: the index of words of a JSON store, in memory; built at the first search, and kept up at each one."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import threading
from typing import TYPE_CHECKING, Any

from jarvis._json.record import by_order
from jarvis.model.query import MemoryQuery
from jarvis.model.words import Candidates

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jarvis._json.record import Record
    from jarvis._json.room import Room
    from jarvis.model.words import Term

_LAST_SIGN = "\U0010ffff"
"""No word has it."""


class Words:
    """The indexes of the namespaces of a store, which all its handles share.

    A search that comes while another thread uses them makes an index of its own: it never waits.
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
        self._alphabet: list[str] = []  # its words, sorted, up to the last time that they were needed

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

    def candidates(
        self, terms: Sequence[Term], query: MemoryQuery, most: int, now: int, *, respell: bool
    ) -> Candidates:
        """Return what `jarvis.text.candidates.choose` does with the records that have not expired by `now`."""
        from jarvis.text.candidates import masks_of, ranked, rarity
        from jarvis.text.spelling import respelt

        expired = {record.id for record in self._room.expired(now)} if self._room else set()

        def having(term: Term) -> set[str]:
            return self._all_having(term) - expired if expired else self._all_having(term)

        def counted(terms: Sequence[Term]) -> list[int]:
            return [len(having(term)) for term in terms]

        terms, counts, total = tuple(terms), counted(terms), len(self._records) - len(expired)
        if respell and 0 in counts:
            terms, counts = respelt(terms, counts, total, self._vocabulary, counted)
        weights = [rarity(count, total) for count in counts]
        is_open, matches = query == MemoryQuery(), query.predicate()
        masks = masks_of(counts, weights, lambda place, _: having(terms[place]), most if is_open else None)
        best: list[Record] = []
        for ids in ranked(masks, weights, most if is_open else None):
            equal: Any = sorted(map(self._records.__getitem__, ids), key=by_order, reverse=True)
            best += equal if is_open else filter(matches, equal)
            if len(best) >= most:
                break
        return Candidates([record.entry() for record in best[:most]], terms, counts, total)

    def _all_having(self, term: Term) -> set[str]:
        if not term.is_prefix:
            return self._having.get(term.text, set())
        return set[str]().union(*(self._having[word] for word in self._vocabulary(term.text)))

    def _vocabulary(self, beginning: str) -> list[str]:
        """Return the words that begin so; some may only be of records that are gone."""
        words = self._alphabet
        if len(words) != len(self._having):
            words += itertools.islice(self._having, len(words), None)  # a dict keeps the order in which they came
            words.sort()
        return words[bisect.bisect_left(words, beginning) : bisect.bisect_left(words, beginning + _LAST_SIGN)]
