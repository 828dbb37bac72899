"""Finds the entries that share words with a question: those of the index of words, and those of its tail.

Its answers are those of `jarvis.text.candidates.choose`.
"""

from __future__ import annotations

import contextlib
import re
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
from jarvis.model.words import Candidates, Term

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from jarvis._sql.reading import Reader
    from jarvis._sql.session import Session
    from jarvis._sql.word_index import Mark
    from jarvis.model.entry import MemoryEntry
    from jarvis.model.options import TextIndex
    from jarvis.model.rewriting import Progress

Result = TypeVar("Result")
MOST_ROWS = 20_000
"""How many entries of a word a search without filters looks at: the newest ones."""

_MOST_BEHIND = 2 * PRUNED_EVERY
"""A search that finds more to do indexes it first."""

_AT_ONCE, _SCANNED_FOR_ONE, _SEEKING = 1_000, 8, 3
_BEGINNING = re.compile("_?[^\x00-/:-@\\[-`{-\x7f]*")  # no word has other signs of ASCII, which may be operators
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


class _BehindError(Exception):
    """The tail is long: index it first, in steps."""


class _Asked(NamedTuple):
    """What `jarvis.capabilities.SearchesText.candidates` is asked."""

    terms: tuple[Term, ...]
    query: MemoryQuery
    most: int
    respell: bool


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


def candidates(
    reader: Reader, terms: Sequence[Term], query: MemoryQuery, most: int, *, respell: bool, may_index: bool
) -> Candidates:
    """Return what `jarvis.capabilities.SearchesText.candidates` does; with `may_index`, index a long tail before."""
    asked = _Asked(tuple(terms), query, most, respell)
    lender = reader.lender
    if may_index and not lender.read_only and not lender.in_transaction():
        try:
            return reader.reading(_candidates, reader, asked, True)
        except _BehindError:
            try_to_catch_up(reader)
    return reader.reading(_candidates, reader, asked, False)


def _told_of_damage(session: Session, mark: Mark, answer: Callable[[Mark], Result]) -> Result:
    """Return what `answer` returns, given the mark; if the index is damaged, given that of an empty one."""
    try:
        return answer(mark)
    except CorruptStoreError:  # perhaps of the index alone
        if not mark.upto:
            raise
        import logging  # its import takes 3 ms, and most processes never need it

        found = answer(mark._replace(made_by="", upto=0))
        logging.getLogger("jarvis.store").warning(
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
    import logging  # as above

    behind = last - (mark.upto if mark.fits else 0)
    logging.getLogger("jarvis.store").info("indexing the texts of %s: %d changes behind", reader.lender.path, behind)
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


def _candidates(session: Session, reader: Reader, asked: _Asked, is_patient: bool) -> Candidates:
    with session.standing_still():
        namespace = session.names.fresh_id_of(reader.namespace)
        if namespace is None:
            return Candidates([], asked.terms, [0] * len(asked.terms), 0)
        mark = session.driver.words.mark(session.driver)
        if mark.language == NO_INDEX:
            raise UnsupportedError(f"{session.path} has no index of words")
        if is_patient and not mark.is_newer:
            behind = session.rows(session.say(_BEHIND), (mark.upto if mark.fits else 0, _MOST_BEHIND + 1))
            if behind[0][0] > _MOST_BEHIND:
                raise _BehindError
        return _told_of_damage(session, mark, lambda mark: _Search(session, reader, namespace, mark).answer(asked))


def findings(reader: Reader, looked_at: Callable[[], object]) -> Iterator[str]:
    """Return what `jarvis.capabilities.SearchesText.index_findings` does, of one namespace."""
    from jarvis._sql import word_check

    return reader.lender.iterate(partial(word_check.words_of_namespace, reader=reader, looked_at=looked_at))


class _Search:
    """One search, in one namespace at one moment."""

    def __init__(self, session: Session, reader: Reader, namespace: int, mark: Mark) -> None:
        self._session, self._reader, self._namespace, self._mark = session, reader, namespace, mark
        self._driver, self._index = session.driver, session.driver.words
        self._now = reader.now()
        self._wanted: set[int] | None = None  # the rows that match the query, if they were looked up
        self._gone = self._rows_gone() if mark.fits else set()
        self._short_tail: list[tuple[int, set[str]]] | None = None
        self._total = sum(1 for _ in self._tail())
        if mark.fits:
            self._total += sum(number for (number,) in session.rows(_COUNTED, (namespace,))) - len(self._gone)

    def answer(self, asked: _Asked) -> Candidates:
        """Return the candidates."""
        from jarvis.text.candidates import masks_of, rarity
        from jarvis.text.spelling import respelt

        terms, counts = asked.terms, self._counts(asked.terms)
        if asked.respell and 0 in counts:
            terms, counts = respelt(terms, counts, self._total, self._vocabulary, self._counts)
        weights = [rarity(each, self._total) for each in counts]
        is_open = asked.query == MemoryQuery()
        enough = asked.most + len(self._gone) if is_open else None
        numbers = [count if self._is_indexed(term) else 0 for term, count in zip(terms, counts, strict=True)]
        limit = MOST_ROWS if is_open and asked.most <= MOST_ROWS else None
        masks = masks_of(numbers, weights, partial(self._rows_of, terms, numbers, limit), enough)
        for row in self._gone:
            masks.pop(row, None)
        for row, words in self._tail():
            mask = sum(1 << place for place, term in enumerate(terms) if term.is_in(words))
            if mask:
                masks[row] = mask
        return Candidates(self._best(masks, weights, asked, is_open=is_open), terms, counts, self._total)

    def _rows_gone(self) -> set[int]:
        """Return the rows of the index that are stale or have expired."""
        rows = self._session.rows(self._session.say(_GONE), (self._namespace, self._now))
        return {row for (row,) in rows if row <= self._mark.upto}

    def _tail(self) -> Iterable[tuple[int, set[str]]]:
        """Return the entries that the index lacks: row and words of each."""
        if self._short_tail is not None:
            return self._short_tail
        asked = self._namespace, self._mark.upto if self._mark.fits else 0, self._now
        some = self._session.rows(f"{self._session.say(_TAIL)} LIMIT {_MOST_BEHIND + 1}", asked)
        if len(some) > _MOST_BEHIND:  # and more than is kept in memory
            return self._with_words(self._session.each(self._session.say(_TAIL), asked))
        self._short_tail = list(self._with_words(some))
        return self._short_tail

    def _with_words(self, rows: Iterable[Any]) -> Iterator[tuple[int, set[str]]]:
        for row in rows:
            yield row[0], indexing.words_in(self._session, self._reader, (row,), self._mark.analyser)[0]

    def _is_indexed(self, term: Term) -> bool:
        return self._mark.fits and bool(term.text) and _BEGINNING.fullmatch(term.text) is not None

    def _counts(self, terms: Sequence[Term]) -> list[int]:
        """Return how many entries have each of some words."""
        indexed = [term for term in terms if self._is_indexed(term)]
        numbers = dict(zip(indexed, self._index.counts(self._driver, self._namespace, indexed), strict=True))
        counts = [numbers.get(term, 0) for term in terms]
        if self._gone:
            counts = [
                count and count - len(self._among(term, self._gone)) for term, count in zip(terms, counts, strict=True)
            ]
        for _, words in self._tail():
            for place, term in enumerate(terms):
                counts[place] += term.is_in(words)
        return counts

    def _vocabulary(self, beginning: str) -> set[str]:
        """Return the words that begin so; some may only be of rows that are gone."""
        words = {word for _, some in self._tail() for word in some if word.startswith(beginning)}
        if self._is_indexed(Term(beginning)):
            words.update(self._index.words(self._driver, self._namespace, beginning))
        return words

    def _among(self, term: Term, rows: Collection[int]) -> list[int]:
        return self._index.among(self._driver, self._namespace, term, list(rows))

    def _rows_of(
        self,
        terms: Sequence[Term],
        numbers: Sequence[int],
        limit: int | None,
        place: int,
        rows: Collection[int] | None,
    ) -> Collection[int]:
        """Return the rows that have the word at a place, or those of some rows, whatever is faster."""
        if rows is not None and self._index.seeks and _SEEKING * len(rows) < numbers[place]:
            return self._among(terms[place], rows)
        most = limit if limit is not None and numbers[place] > limit else None
        return self._index.rows(self._driver, self._namespace, terms[place], most)

    def _best(
        self, masks: dict[int, int], weights: Sequence[float], asked: _Asked, *, is_open: bool
    ) -> list[MemoryEntry]:
        """Return the entries with the greatest scores that match, the newest first of those that are equal."""
        from jarvis.text.candidates import ranked, scores_of

        best: list[MemoryEntry] = []
        most, matches, looked_at = asked.most, asked.query.predicate(), 0
        scores = scores_of(masks.values(), weights)
        equals = ranked(masks, weights, most if is_open else None)
        for rows in self._chunks(equals, most if is_open else max(most, _AT_ONCE)):
            found: list[Any] = self._session.rows(self._session.say(_READ), (self._namespace, as_json(rows)))
            entries = self._reader.entries(self._session, found)
            score_of = {row[1]: scores[masks[row[0]]] for row in found}
            entries.sort(key=lambda entry: (score_of[entry.id], entry.order), reverse=True)
            best += entries if is_open else filter(matches, entries)
            looked_at += len(rows)
            if len(best) >= most:
                break
            if looked_at > 2 * most and self._wanted is None:
                matching = self._reader.matching(self._session, asked.query.whole(), self._now)
                self._wanted = {row[0] for row in matching}
        return best[:most]

    def _chunks(self, equals: Iterable[list[int]], size: int) -> Iterator[list[int]]:
        """Yield the rows in their order, in lists of this size, but the last one."""
        chunk: list[int] = []
        for rows in equals:
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
