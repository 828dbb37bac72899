"""Searches memories by words: candidates of the backend, their neighbours, and the ranking."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from jarvis.capabilities import SearchesText
from jarvis.errors import InvalidQueryError
from jarvis.model.entry import MemoryEntry
from jarvis.model.options import ENGLISH, NO_INDEX
from jarvis.model.query import MemoryQuery
from jarvis.model.recalled import Recalled
from jarvis.model.turn import TURNS, key_of_turn, place_of_turn
from jarvis.search.parts import TextFields, no_fields
from jarvis.search.ranking import rank
from jarvis.storage_backend import StorageBackend
from jarvis.text.analysis import Analyser, analyser
from jarvis.text.candidates import Candidates, choose
from jarvis.text.document import passages_of, words_of
from jarvis.text.question import Question, Term, question_of

MOST_CANDIDATES, _MORE = 200, 10
"""How many candidates are ranked if no more are wanted; and how many times as many are looked at next, until enough of
them have the phrases of a question."""

_WITH_NEIGHBOURS = 100
"""Of how many candidates the neighbours in their conversation are ranked, too."""

_NEIGHBOURS = (-1, 1, 2)


def search(
    backend: StorageBackend,
    text: str,
    query: MemoryQuery,
    limit: int,
    *,
    min_score: float = 0.0,
    half_life: timedelta | None = None,
    now: datetime | None = None,
    text_fields: TextFields = no_fields,
) -> list[Recalled]:
    """Return the memories that answer a question best, of those that match a query."""
    question, candidates, words = gathered(backend, text, query, limit)
    ranked = rank(question, candidates, words, limit, half_life=half_life, now=now, text_fields=text_fields)
    return [recalled for recalled in ranked if recalled.score >= min_score]


def gathered(
    backend: StorageBackend, text: str, query: MemoryQuery, limit: int = 0
) -> tuple[Question, Candidates, Analyser]:
    """Return a question, the memories that are to be ranked for it, and the analyser of their words.

    There are `MOST_CANDIDATES` and their neighbours at most, or `limit` if that is more.
    """
    words = analyser_of(backend)
    question = question_of(text, words)
    if not question.terms:
        return question, Candidates([], (), [], 0), words
    ranked = max(MOST_CANDIDATES, limit)
    candidates = candidates_of(backend, question.terms, query, ranked, respell=True)
    question = question._replace(terms=candidates.terms)
    if question.phrases or question.excluded:
        return question, _narrowed(backend, question, query, candidates, ranked, words), words
    neighbours = _neighbours(backend, candidates.entries, query)
    return question, candidates._replace(entries=candidates.entries + neighbours), words


def candidates_of(
    backend: StorageBackend,
    terms: Sequence[Term],
    query: MemoryQuery,
    most: int = MOST_CANDIDATES,
    *,
    respell: bool = False,
) -> Candidates:
    """Return the candidates for some words, from the index, or from all memories where there is none."""
    if _has_index(backend):
        return backend.capability(SearchesText).candidates(terms, query, most, respell=respell)
    words, matches = analyser_of(backend), query.matches
    entries = backend.select(MemoryQuery())
    wanted = [entry.id for entry in entries if matches(entry)]
    documents = [(entry, words_of(entry, words)) for entry in entries]
    return choose(documents, terms, wanted, most, respell=respell)


def checked_share(name: str, number: float) -> float:
    """Return a number from 0 to 1 that a caller gave.

    Raises:
        InvalidQueryError: it is no such number.
    """
    if type(number) not in (int, float) or not 0 <= number <= 1:
        raise InvalidQueryError(f"{name}: takes a number from 0 to 1")
    return float(number)


def checked_half_life(half_life: timedelta | None) -> timedelta | None:
    """Return the half-life that a caller gave.

    Raises:
        InvalidQueryError: it is no timedelta above 0.
    """
    if half_life is not None and (type(half_life) is not timedelta or half_life <= timedelta(0)):
        raise InvalidQueryError("half_life: takes a timedelta above 0, such as timedelta(days=30)")
    return half_life


def _has_index(backend: StorageBackend) -> bool:
    return backend.has_capability(SearchesText) and backend.capability(SearchesText).text_language() != NO_INDEX


def analyser_of(backend: StorageBackend) -> Analyser:
    """Return the analyser of the words under which the memories of a backend are found."""
    return analyser(backend.capability(SearchesText).text_language() if _has_index(backend) else ENGLISH)


def _neighbours(backend: StorageBackend, entries: list[MemoryEntry], query: MemoryQuery) -> list[MemoryEntry]:
    """Return the utterances beside some candidates that are no candidates themselves."""
    places = [place_of_turn(entry) for entry in entries]
    near = [place for place in places[:_WITH_NEIGHBOURS] if place is not None]
    missing = {(session, position + step) for session, position in near for step in _NEIGHBOURS}.difference(places)
    if not missing:
        return []
    keys = [key_of_turn(session, position) for session, position in sorted(missing) if position > 0]
    turns = backend.select(MemoryQuery(category=TURNS, keys=keys))
    return [turn for turn in turns if place_of_turn(turn) in missing and query.matches(turn)]


def _narrowed(
    backend: StorageBackend,
    question: Question,
    query: MemoryQuery,
    candidates: Candidates,
    ranked: int,
    words: Analyser,
) -> Candidates:
    """Return the candidates that have all phrases of a question, and nothing that it excludes."""
    most = ranked
    while True:
        entries = [entry for entry in candidates.entries if _fits(entry, question, words)]
        if len(entries) >= ranked or len(candidates.entries) < most:
            return candidates._replace(entries=entries[:ranked])
        most *= _MORE
        candidates = candidates_of(backend, question.terms, query, most)


def _fits(entry: MemoryEntry, question: Question, words: Analyser) -> bool:
    """Tell whether a memory has all phrases of a question, and nothing that it excludes."""
    passages = passages_of(entry, words)
    return all(_has(passages, phrase) for phrase in question.phrases) and not any(
        _has(passages, phrase) for phrase in question.excluded
    )


def _has(passages: list[tuple[str, ...]], phrase: tuple[str, ...]) -> bool:
    size = len(phrase)
    return any(
        passage[start : start + size] == phrase for passage in passages for start in range(len(passage) - size + 1)
    )
