"""Finds the entries that share words with a question: those of the index of words, and those of its tail.

Its answers are those of `jarvis.text.candidates.choose`. The rarest words are looked up first; when enough entries are
better than all that have only the others can be, these only tell the entries apart.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from jarvis._sql import indexing
from jarvis._sql.select import COLUMNS, LIVE
from jarvis._sql.shape import as_json
from jarvis.errors import (
    CorruptStoreError,
    InvalidSettingError,
    ReadOnlyStoreError,
    StoreBusyError,
    StoreFullError,
    TransactionError,
    UnsupportedError,
)
from jarvis.model.options import NO_INDEX
from jarvis.model.query import MemoryQuery
from jarvis.model.rules import PRUNED_EVERY
from jarvis.model.words import Candidates

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from jarvis._sql.reading import Reader
    from jarvis._sql.session import Session
    from jarvis._sql.word_index import Mark
    from jarvis.model.entry import MemoryEntry
    from jarvis.model.options import TextIndex
    from jarvis.model.recompression import Progress
    from jarvis.model.words import Term

Result = TypeVar("Result")
MOST_ROWS = 20_000
"""How many entries of a word a search without filters looks at: the newest ones."""

_MOST_BEHIND = 2 * PRUNED_EVERY
"""A search that finds more to do indexes it first."""

_AT_ONCE, _SCANNED_FOR_ONE, _SEEKING = 1_000, 8, 3
_EPSILON = 1e-9  # sums of floats depend on their order
_BEGINNING = re.compile("_?[0-9A-Za-z\x80-\U0010ffff]*")  # no word has other signs of ASCII, which may be operators
_BEHIND = """
SELECT (SELECT count(*) FROM (SELECT 1 FROM entries WHERE {here} AND row > ?1 LIMIT ?2) AS tail)
    + (SELECT count(*) FROM (SELECT 1 FROM text_stale WHERE {here} LIMIT ?2) AS gone)
"""
_COUNTED = "SELECT entries FROM text_counts WHERE namespace = ?"
_GONE = """
SELECT row FROM text_stale WHERE namespace = ?1
UNION SELECT row FROM entries WHERE {unindexed}namespace = ?1 AND expires <= ?2
"""
_TAIL = f"SELECT {COLUMNS} FROM entries AS e WHERE {{unindexed}}e.namespace = ? AND e.row > ? AND {LIVE}".replace(
    ":now", "?"
)
_READ = f"SELECT {COLUMNS} FROM entries AS e WHERE e.namespace = ? AND e.row IN ({{numbers}}(?))"
_NEWEST_OF = """
SELECT row FROM entries WHERE namespace = ? AND row IN ({numbers}(?)) ORDER BY instant + 0 DESC, row DESC LIMIT ?
"""  # the sum keeps a planner without figures from looking for them among all entries, newest first: 76 ms for 1
_NEWEST = "SELECT row FROM entries WHERE namespace = ? ORDER BY instant DESC, row DESC LIMIT ?"

log = logging.getLogger("jarvis.store")


class _BehindError(Exception):
    """The tail is long: index it first, in steps."""


class _Word(NamedTuple):
    """A word of a question, and how many rows of the index have it, those that are left out included."""

    place: int
    term: Term
    number: int


def language(reader: Reader, setting: TextIndex | None) -> TextIndex:
    """Return the language of the index; see `jarvis.capabilities.SearchesText.text_language`."""
    if setting == NO_INDEX:
        return setting
    stored = reader.lender.read(lambda session: session.driver.words.mark(session.driver).language)
    if setting is not None and setting != stored:
        raise InvalidSettingError(
            f"text_index is {setting!r}, but the store is indexed as {stored!r}: leave text_index out, or call "
            f"memory.store.rebuild_index(language={setting!r}) once"
        )
    return stored


def candidates(reader: Reader, terms: Sequence[Term], query: MemoryQuery, most: int, *, may_index: bool) -> Candidates:
    """Return what `jarvis.capabilities.SearchesText.candidates` does; with `may_index`, index a long tail before."""
    lender = reader.lender
    if may_index and not lender.read_only and not lender.in_transaction():
        try:
            return reader.reading(_candidates, reader, terms, query, most, True)
        except _BehindError:
            try_to_catch_up(reader)
    return reader.reading(_candidates, reader, terms, query, most, False)


def vocabulary(session: Session, reader: Reader, beginning: str) -> list[str]:
    """Return what `jarvis.capabilities.SearchesText.vocabulary` does."""
    namespace = session.names.fresh_id_of(reader.namespace)
    if namespace is None:
        return []
    with session.standing_still():
        mark = session.driver.words.mark(session.driver)
        return _told_of_damage(session, mark, lambda mark: _vocabulary(session, reader, namespace, mark, beginning))


def _vocabulary(session: Session, reader: Reader, namespace: int, mark: Mark, beginning: str) -> list[str]:
    tail = _words_of_tail(session, reader, namespace, mark)
    words = {word for _, of_row in tail for word in of_row if word.startswith(beginning)}
    if mark.fits and _BEGINNING.fullmatch(beginning):
        words.update(session.driver.words.words(session.driver, namespace, beginning))
    return sorted(words)


def _told_of_damage(session: Session, mark: Mark, answer: Callable[[Mark], Result]) -> Result:
    """Return what `answer` returns, given the mark; if the index is damaged, given that of an empty one."""
    try:
        return answer(mark)
    except CorruptStoreError:  # perhaps of the index alone
        if not mark.upto:
            raise
        found = answer(mark._replace(made_by="", upto=0))
        log.warning(
            "the index of words of %s is damaged: memory.store.rebuild_index() makes it again; "
            "until then searches read every memory",
            session.path,
        )
        return found


def try_to_catch_up(reader: Reader) -> None:
    """Index what is not indexed yet, as long as nobody else writes: a search waits for no writer, it takes longer."""
    with contextlib.suppress(StoreBusyError, StoreFullError, ReadOnlyStoreError, CorruptStoreError, TransactionError):
        _catch_up(reader, reader.lender.change_at_once, None)


def _catch_up(reader: Reader, change: Callable[[Callable[[Session], bool]], bool], progress: Progress | None) -> None:
    """Index all that is not indexed yet, in steps, each a transaction of its own."""
    last = reader.lender.read(lambda session: session.clock_seen().commit_number)
    mark = reader.lender.read(lambda session: session.driver.words.mark(session.driver))
    if mark.language == NO_INDEX or mark.is_newer:
        return
    log.info("indexing the texts of %s: %d changes behind", reader.lender.path, last - (mark.upto if mark.fits else 0))
    done = 0
    while not change(partial(_step, reader=reader)):
        done = min(reader.lender.read(lambda session: session.driver.words.mark(session.driver)).upto, last)
        if progress is not None:
            progress(done, last)
    if progress is not None:
        progress(last, last)


def _step(session: Session, reader: Reader) -> bool:
    mark = session.driver.words.mark(session.driver)
    return mark.language == NO_INDEX or mark.is_newer or indexing.advance(session, reader, mark, indexing.AT_ONCE)


def rebuild(reader: Reader, language: TextIndex | None, progress: Progress | None) -> None:
    """Do what `jarvis.capabilities.SearchesText.rebuild_index` does."""
    if reader.lender.in_transaction():
        raise TransactionError("rebuild_index() is for the outside of transactions: it makes many of its own")
    reader.lender.change(_empty, language)
    _catch_up(reader, reader.lender.change, progress)


def _empty(session: Session, language: TextIndex | None) -> None:
    indexing.start_again(session)
    if language is not None:
        session.driver.words.set_language(session.driver, language)


def _candidates(
    session: Session, reader: Reader, terms: Sequence[Term], query: MemoryQuery, most: int, is_patient: bool
) -> Candidates:
    with session.standing_still():
        namespace = session.names.fresh_id_of(reader.namespace)
        if namespace is None:
            return Candidates([], [0] * len(terms), 0)
        mark = session.driver.words.mark(session.driver)
        if mark.language == NO_INDEX:
            raise UnsupportedError(f"{session.path} has no index of words")
        if is_patient and not mark.is_newer:
            behind = session.rows(session.say(_BEHIND), (mark.upto if mark.fits else 0, _MOST_BEHIND + 1))
            if behind[0][0] > _MOST_BEHIND:
                raise _BehindError
        return _told_of_damage(
            session, mark, lambda mark: _Search(session, reader, namespace, mark, terms).answer(query, most)
        )


def findings(reader: Reader, looked_at: Callable[[], object]) -> Iterator[str]:
    """Return what `jarvis.capabilities.SearchesText.index_findings` does, of one namespace."""
    from jarvis._sql import word_check

    return reader.lender.iterate(partial(word_check.words_of_namespace, reader=reader, looked_at=looked_at))


def _words_of_tail(session: Session, reader: Reader, namespace: int, mark: Mark) -> Iterator[tuple[int, set[str]]]:
    """Yield the entries that the index lacks: row and words of each."""
    asked = namespace, mark.upto if mark.fits else 0, reader.now()
    some = session.rows(f"{session.say(_TAIL)} LIMIT {_MOST_BEHIND + 1}", asked)  # mostly all; a cursor takes longer
    for row in some if len(some) <= _MOST_BEHIND else session.each(session.say(_TAIL), asked):
        yield row[0], indexing.words_in(session, reader, (row,), mark.analyser)[0]


class _Search:
    """One search, in one namespace at one moment."""

    def __init__(self, session: Session, reader: Reader, namespace: int, mark: Mark, terms: Sequence[Term]) -> None:
        self._session, self._reader, self._namespace, self._mark = session, reader, namespace, mark
        self._terms, self._index = terms, session.driver.words
        self._now = reader.now()
        self._wanted: set[int] | None = None  # the rows that match the query, if they were looked up
        self._total = 0

    def answer(self, query: MemoryQuery, most: int) -> Candidates:
        """Return the candidates."""
        from jarvis.text.candidates import rarity

        tail: dict[int, int] = {}  # by row: a bit for each term
        counts = [0] * len(self._terms)
        gone = self._gone() if self._mark.fits else set()
        if self._mark.fits:
            self._total = sum(number for (number,) in self._session.rows(_COUNTED, (self._namespace,))) - len(gone)
        for row, words in _words_of_tail(self._session, self._reader, self._namespace, self._mark):
            self._total += 1
            for number, term in enumerate(self._terms):
                if term.is_in(words):
                    counts[number] += 1
                    tail[row] = tail.get(row, 0) | 1 << number
        asked = self._words() if self._mark.fits else []
        for word in asked:
            counts[word.place] += self._count(word, gone)
        weights = [rarity(each, self._total) for each in counts]
        is_open = query == MemoryQuery()
        asked.sort(key=lambda word: -weights[word.place])
        masks = self._masks(asked, weights, gone, most if is_open else None)
        masks.update(tail)
        scores = {mask: _score(mask, weights) for mask in set(masks.values())}
        return Candidates(self._best(masks, scores, query, most, is_open=is_open), counts, self._total)

    def _gone(self) -> set[int]:
        """Return the rows of the index that are stale or have expired."""
        rows = self._session.rows(self._session.say(_GONE), (self._namespace, self._now))
        return {row for (row,) in rows if row <= self._mark.upto}

    def _words(self) -> list[_Word]:
        places = [place for place, term in enumerate(self._terms) if term.text and _BEGINNING.fullmatch(term.text)]
        terms = [self._terms[place] for place in places]
        return list(map(_Word, places, terms, self._index.counts(self._session.driver, self._namespace, terms)))

    def _count(self, word: _Word, gone: set[int]) -> int:
        """Return how many rows have a word that are not gone."""
        if not gone or not word.number:
            return word.number
        return word.number - len(self._among(word, gone))

    def _among(self, word: _Word, rows: Collection[int]) -> list[int]:
        return self._index.among(self._session.driver, self._namespace, word.term, list(rows))

    def _masks(
        self,
        words: Sequence[_Word],
        weights: Sequence[float],
        gone: set[int],
        most: int | None,
    ) -> dict[int, int]:
        """Return the rows that may be candidates: by row, a bit for each word. The rarest words come first.

        With `most`, only rows that can be among the best `most`.
        """
        masks: dict[int, int] = {}
        is_enough = False
        for place, word in enumerate(words):
            if not word.number:
                continue
            rest = sum(weights[each.place] for each in words[place:]) * (1 + _EPSILON)  # what no row can get more of
            if most is not None and len(masks) > most + len(gone):
                least = _least(masks, weights, most + len(gone))
                is_enough = is_enough or least > rest
                if is_enough:  # others would have to become better than those that are
                    kinds = {mask for mask in set(masks.values()) if _score(mask, weights) + rest >= least}
                    masks = {row: mask for row, mask in masks.items() if mask in kinds}
            bit = 1 << word.place
            if is_enough and self._index.seeks and _SEEKING * len(masks) < word.number:
                rows = self._among(word, masks)
            else:
                limit = MOST_ROWS if most is not None and most <= MOST_ROWS < word.number else None
                rows = self._index.rows(self._session.driver, self._namespace, word.term, limit)
            both = masks.keys() & rows
            if is_enough:
                for row in both:
                    masks[row] |= bit
                continue
            fresh = dict.fromkeys(rows, bit)
            for row in both:
                fresh[row] = masks.pop(row) | bit
            fresh.update(masks)
            masks = fresh
        for row in gone:
            masks.pop(row, None)
        return masks

    def _best(
        self, masks: dict[int, int], scores: dict[int, float], query: MemoryQuery, most: int, *, is_open: bool
    ) -> list[MemoryEntry]:
        """Return the entries with the greatest scores that match, the newest first of those that are equal."""
        best: list[MemoryEntry] = []
        matches, looked_at = query.predicate(), 0
        ranked = self._ranked(masks, scores, most if is_open else None)
        for rows in self._chunks(ranked, most if is_open else max(most, _AT_ONCE)):
            found: list[Any] = self._session.rows(self._session.say(_READ), (self._namespace, as_json(rows)))
            entries = self._reader.entries(self._session, found)
            score_of = {row[1]: scores[masks[row[0]]] for row in found}
            entries.sort(key=lambda entry: (score_of[entry.id], entry.order), reverse=True)
            best += entries if is_open else filter(matches, entries)
            looked_at += len(rows)
            if len(best) >= most:
                break
            if looked_at > 2 * most and self._wanted is None:
                matching = self._reader.matching(self._session, query.whole(), self._now)
                self._wanted = {row[0] for row in matching}
        return best[:most]

    def _chunks(self, ranked: Iterable[list[int]], size: int) -> Iterator[list[int]]:
        """Yield the rows in their order, in lists of this size, but the last one."""
        chunk: list[int] = []
        for rows in ranked:
            left = rows
            while left:
                if self._wanted is not None:
                    left = [row for row in left if row in self._wanted]
                part = self._newest(left, size - len(chunk))
                chunk += part
                left = [] if len(part) == len(left) else list(set(left).difference(part))
                if len(chunk) >= size:
                    yield chunk
                    chunk = []
        if chunk:
            yield chunk

    def _ranked(self, masks: dict[int, int], scores: dict[int, float], most: int | None) -> list[list[int]]:
        """Return the rows, those with the greatest score first; with `most`, no more scores than have as many rows."""
        numbers = Counter(masks.values())
        kinds = sorted(numbers, key=scores.__getitem__, reverse=True)
        if most is not None:
            reached = list(itertools.accumulate(numbers[mask] for mask in kinds))
            needed = next((place for place, count in enumerate(reached) if count >= most), len(kinds))
            last = scores[kinds[needed]] if needed < len(kinds) else 0.0
            kinds = [mask for mask in kinds if scores[mask] >= last]
        ranked: dict[float, list[int]] = {scores[mask]: [] for mask in kinds}
        lists = {mask: ranked[scores[mask]] for mask in kinds}
        for row, mask in masks.items():
            if mask in lists:
                lists[mask].append(row)
        return list(ranked.values())

    def _newest(self, rows: list[int], most: int) -> list[int]:
        """Return the newest of some rows of entries, at most `most`."""
        if len(rows) <= most:
            return rows
        asked = set(rows)
        newest: list[int] = []
        if len(rows) > _AT_ONCE and most * self._total < _SCANNED_FOR_ONE * len(rows) ** 2:
            looks = _SCANNED_FOR_ONE * len(rows)  # looking each up takes as long
            found = self._session.each(_NEWEST, (self._namespace, looks))
            with contextlib.closing(found):  # type: ignore[type-var]  # it is a generator
                for (row,) in found:
                    if row in asked:
                        newest.append(row)
                        if len(newest) == most:
                            return newest
            rows = list(asked.difference(newest))
        older = self._session.rows(self._session.say(_NEWEST_OF), (self._namespace, as_json(rows), most - len(newest)))
        return newest + [row for (row,) in older]


def _score(mask: int, weights: Sequence[float]) -> float:
    """Return the sum of the weights of a mask, added up in the order of the terms."""
    return sum(weights[number] for number in _bits(mask))


def _least(masks: dict[int, int], weights: Sequence[float], most: int) -> float:
    """Return the score that `most` of the rows have at least."""
    reached = 0
    numbers = Counter(masks.values())
    for score, number in sorted(((_score(mask, weights), number) for mask, number in numbers.items()), reverse=True):
        reached += number
        if reached >= most:
            return score
    return 0.0


def _bits(mask: int) -> Iterator[int]:
    """Yield the numbers of the bits of a mask, ascending."""
    number = 0
    while mask:
        if mask & 1:
            yield number
        mask >>= 1
        number += 1
