"""Searches memories by words: candidates of the backend, their neighbours, and the ranking."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from jarvis.capabilities import SearchesText
from jarvis.errors import InvalidQueryError
from jarvis.model.categories import TURNS, key_of_turn, place_of_turn
from jarvis.model.entry import MemoryEntry
from jarvis.model.query import MemoryQuery
from jarvis.model.recalled import Recalled
from jarvis.search.parts import TextFields, no_fields
from jarvis.search.ranking import rank
from jarvis.services.meaning import Meaning
from jarvis.services.words import analyser_of, has_index
from jarvis.storage_backend import StorageBackend
from jarvis.text.analysis import Analyser
from jarvis.text.candidates import Candidates, choose
from jarvis.text.document import document_of, passages_of, words_of
from jarvis.text.question import Question, Term, question_of

MOST_CANDIDATES, _MORE = 200, 10
"""How many candidates are ranked if no more are wanted; and how many times as many are looked at next, until enough of
them have the phrases of a question."""

_WITH_NEIGHBOURS = 100
"""Of how many candidates the neighbours in their conversation are ranked, too: by words, and as many by meaning."""

_WITH_VECTORS = 0.9
"""How many of the candidates by words must have a vector: less, and the others would be at a disadvantage."""

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
    meaning: Meaning | None = None,
) -> list[Recalled]:
    """Return the memories that answer a question best, of those that match a query; by words, and by `meaning`."""
    found = gathered(backend, text, query, limit, meaning)
    ranked = rank(*found, limit, half_life=half_life, now=now, text_fields=text_fields)
    return [recalled for recalled in ranked if recalled.score >= min_score]


def gathered(
    backend: StorageBackend, text: str, query: MemoryQuery, limit: int = 0, meaning: Meaning | None = None
) -> tuple[Question, Candidates, Analyser, dict[str, float] | None]:
    """Return a question, the memories that are to be ranked for it, the analyser of their words, and similarities.

    There are `MOST_CANDIDATES` and their neighbours at most, or `limit` if that is more; and with vectors, about as
    many again, whose similarity to the question is told by their ids. It is None if most of them have no vectors.
    """
    words = analyser_of(backend)
    question = question_of(text, words)
    ranked = max(MOST_CANDIDATES, limit)
    candidates = Candidates([], (), [], 0)
    if question.terms:
        candidates = candidates_of(backend, question.terms, query, ranked, respell=True)
        question = question._replace(terms=candidates.terms)
    if question.phrases or question.excluded:
        return question, _narrowed(backend, question, query, candidates, ranked, words), words, None
    asked = None if meaning is None else meaning.asked(backend, text, _names_in(candidates.entries, words))
    if asked is not None:
        known = asked.similarities(candidates.entries)
        if len(known) >= _WITH_VECTORS * len(candidates.entries):
            more = [entry for entry in asked.candidates(query) if entry.id not in known]
            more += _neighbours(backend, query, candidates.entries, more)
            entries, similar = candidates.entries + more, known | asked.similarities(more)
            return question, candidates._replace(entries=entries), words, similar
    neighbours = _neighbours(backend, query, candidates.entries)
    return question, candidates._replace(entries=candidates.entries + neighbours), words, None


def _names_in(entries: Iterable[MemoryEntry], words: Analyser) -> frozenset[str]:
    """Return the words of the entities and speakers of some memories."""
    return frozenset().union(*(document_of(entry, words).about for entry in entries))


def candidates_of(
    backend: StorageBackend,
    terms: Sequence[Term],
    query: MemoryQuery,
    most: int = MOST_CANDIDATES,
    *,
    respell: bool = False,
) -> Candidates:
    """Return the candidates for some words, from the index, or from all memories where there is none."""
    if has_index(backend):
        return backend.capability(SearchesText).candidates(terms, query, most, respell=respell)
    words, matches = analyser_of(backend), query.matches
    entries = backend.select(MemoryQuery())
    wanted = [entry.id for entry in entries if matches(entry)]
    documents = [(entry, words_of(entry, words)) for entry in entries]
    return choose(documents, terms, wanted, most, respell=respell)


def checked_share(name: str, number: float) -> float:
    """Return a number from 0 to 1 that a caller gave; raise `InvalidQueryError` if it is no such number."""
    if type(number) not in (int, float) or not 0 <= number <= 1:
        raise InvalidQueryError(f"{name}: takes a number from 0 to 1")
    return float(number)


def checked_half_life(half_life: timedelta | None) -> timedelta | None:
    """Return the half-life that a caller gave; raise `InvalidQueryError` if it is no timedelta above 0."""
    if half_life is not None and (type(half_life) is not timedelta or half_life <= timedelta(0)):
        raise InvalidQueryError("half_life: takes a timedelta above 0, such as timedelta(days=30)")
    return half_life


def _neighbours(backend: StorageBackend, query: MemoryQuery, *lists: list[MemoryEntry]) -> list[MemoryEntry]:
    """Return the turns beside the best of some lists of candidates that are no candidates themselves."""
    places = [[place_of_turn(entry) for entry in entries] for entries in lists]
    near = [place for some in places for place in some[:_WITH_NEIGHBOURS] if place is not None]
    missing = {(session, position + step) for session, position in near for step in _NEIGHBOURS}.difference(*places)
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
