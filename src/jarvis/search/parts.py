"""The parts of the score of a memory: what it shares with a question, itself and through its neighbours."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from jarvis.model.categories import place_of_turn
from jarvis.model.entry import MemoryEntry
from jarvis.text.analysis import Analyser, folded
from jarvis.text.candidates import Candidates, rarity
from jarvis.text.document import TIME_MARK, Document, document_of, times_of
from jarvis.text.question import Question, Term

_SATURATION, _LENGTH_SHARE = 1.2, 0.75
"""The parameters k1 and b of BM25, at their usual values."""

_USUAL_WORDS, _USUAL_SESSION_WORDS = 12, 200
"""The lengths of a memory and of a session that count as average: a real average would change with every write."""

_NAME_WEIGHT, _FIELD_WEIGHT = 0.6, 0.2
_REACH = 3
"""How many neighbours on each side of a turn count as around it."""

_ASKS_WHEN = re.compile(r"\s*when\b|.*\bhow long\b|.*\b(?:what|which) (?:year|month|date|day)\b", re.DOTALL)
_ASKS_HOW_MANY = re.compile(r".*\bhow (?:many|much|often|old)\b", re.DOTALL)
_TIME_WORD = re.compile(
    r"\b(?:yesterday|today|tonight|tomorrow|last|next|ago|since|weeks?|weekend|months?|years?|morning|night|recently|"
    r"(?:mon|tues|wednes|thurs|fri|satur|sun)day|january|february|march|april|june|july|august|september|october|"
    r"november|december|\d{4})\b"
)
_NUMBER = re.compile(
    r"\b(?:\d+|one|two|three|four|five|six|seven|eight|nine|ten|once|twice|several|couple|few|first|second|third)\b"
)


class Parts(NamedTuple):
    """The candidates of a question, and the parts of their scores, each from 0 to 1.

    Attributes:
        entries: the candidates.
        are_turns: whether each is a turn of a conversation, with neighbours.
        columns: a number for each candidate, by the name of the part; `jarvis.search.weights` has the names.
        shares: how many of the words of the question each has, or one of its neighbours, from 0 to 1.
    """

    entries: list[MemoryEntry]
    are_turns: list[bool]
    columns: dict[str, list[float]]
    shares: list[float]


TextFields = Callable[[str], tuple[str, ...]]
"""Returns the fields of the values of a category that hold the main text; see `jarvis.text.document.document_of`."""


def no_fields(_: str) -> tuple[str, ...]:
    """Return no field, for any category."""
    return ()


Counts = dict[int, float]
"""How often a document has words of the question, by the index of the word; only those that it has."""


def parts_of(
    question: Question,
    candidates: Candidates,
    analyser: Analyser,
    similar: Mapping[str, float] | None = None,
    text_fields: TextFields = no_fields,
) -> Parts:
    """Return the parts of the score of each candidate, in the order of the candidates.

    Args:
        similar: how similar candidates are to the question by their vectors, by id; None: not known. A candidate that
            is not there counts as the others do on average.
        text_fields: of categories.
    """
    entries = candidates.entries
    documents = [document_of(entry, analyser, text_fields(entry.category)) for entry in entries]
    words: list[Term] = []
    weights: list[float] = []
    asked_times: dict[str, float] = {}
    known = 0.0
    for term, count in zip(question.terms, candidates.counts, strict=True):
        weight = rarity(count, candidates.total)
        if term.text.startswith(TIME_MARK):
            asked_times[term.text] = weight
        else:
            words.append(term)
            weights.append(weight)
            known += weight if count else 0.0
    shared = _shared(words, documents)
    counts = [_counts(words, some, document) for some, document in zip(shared, documents, strict=True)]
    abouts = [
        [index for index in some if words[index].is_in(document.about)]
        for some, document in zip(shared, documents, strict=True)
    ]
    times = [[name for name in times_of(entry) if name in asked_times] if asked_times else [] for entry in entries]
    places = [place_of_turn(entry) for entry in entries]
    own = _scaled([_match(count, weights, document) for count, document in zip(counts, documents, strict=True)])
    columns = {
        "words": own,
        "coverage": _divided([sum([weights[index] for index in count]) for count in counts], known),
        "session": _sessions(entries, places, counts, documents, len(words)),
        "about": _divided(
            [sum([weights[index] for index in about]) for about in abouts],
            sum(weights[index] for index in set().union(*abouts)),
        ),
        "length": [min(1.0, math.log1p(len(document.words)) / 4) for document in documents],
        "is_question": [float(_asks(document)) for document in documents],
        "time": _divided([sum([asked_times[name] for name in some]) for some in times], sum(asked_times.values())),
        **_forms(folded(question.text), documents),
        **_around(places, own, documents),
    }
    if similar is not None:
        columns["meaning"] = meanings = _meanings(entries, similar)
        columns.update(_meanings_around(places, meanings))
    asked = len(question.terms) or 1
    shares = _nearby(places, [(len(some) + len(more)) / asked for some, more in zip(shared, times, strict=True)])
    return Parts(entries, [place is not None for place in places], columns, shares)


def _shared(words: Sequence[Term], documents: Sequence[Document]) -> list[list[int]]:
    """Return the places of the words that each document has."""
    place_of = {term.text: place for place, term in enumerate(words) if not term.is_prefix}
    whole = frozenset(place_of)
    beginnings = [place for place, term in enumerate(words) if term.is_prefix]
    return [
        sorted(
            [place_of[word] for word in whole & document.vocabulary]
            + [place for place in beginnings if words[place].is_in(document.vocabulary)]
        )
        for document in documents
    ]


def _counts(words: Sequence[Term], shared: Sequence[int], document: Document) -> Counts:
    """Return how often a document has each word of the question; names and fields count less."""
    counts = {}
    for index in shared:
        term = words[index]
        count = _often(term, document.words) + _NAME_WEIGHT * _often(term, document.names)
        count += _FIELD_WEIGHT * _often(term, document.fields)
        if count:
            counts[index] = count
    return counts


def _often(term: Term, words: Sequence[str]) -> int:
    if term.is_prefix:
        return sum(1 for word in words if word.startswith(term.text))
    return words.count(term.text)


def _match(counts: Counts, weights: Sequence[float], document: Document) -> float:
    """Return the score of a document by BM25."""
    if not counts:
        return 0.0
    return _bm25(counts, weights, len(document.words) + _NAME_WEIGHT * len(document.names), _USUAL_WORDS)


def _bm25(counts: Counts, weights: Sequence[float], length: float, usual: int) -> float:
    norm = _SATURATION * (1 - _LENGTH_SHARE + _LENGTH_SHARE * length / usual)
    return sum(weights[index] * count * (_SATURATION + 1) / (count + norm) for index, count in counts.items())


def _sessions(
    entries: Sequence[MemoryEntry],
    places: Sequence[tuple[str, int] | None],
    counts: Sequence[Counts],
    documents: Sequence[Document],
    size: int,
) -> list[float]:
    """Return the score of the session of each candidate; the best has 1.

    The session of a memory that is no turn is its day.
    """
    keys: list[object] = [
        entry.timestamp.date() if place is None else place[0] for entry, place in zip(entries, places, strict=True)
    ]
    sums: defaultdict[object, Counts] = defaultdict(dict)
    lengths: defaultdict[object, int] = defaultdict(int)
    for key, count, document in zip(keys, counts, documents, strict=True):
        total = sums[key]
        for index, number in count.items():
            total[index] = total.get(index, 0.0) + number
        lengths[key] += len(document.words)
    having = [0] * size
    for total in sums.values():
        for index in total:
            having[index] += 1
    weights = [rarity(number, len(sums)) for number in having]
    scores = {key: _bm25(total, weights, lengths[key], _USUAL_SESSION_WORDS) for key, total in sums.items()}
    return _scaled([scores[key] for key in keys])


def _forms(question: str, documents: Sequence[Document]) -> dict[str, list[float]]:
    """Return whether each document has a word of time, or a number, if the question asks for it."""
    nothing = [0.0] * len(documents)
    asked = {
        "tells_when": _TIME_WORD if _ASKS_WHEN.match(question) else None,
        "tells_how_many": _NUMBER if _ASKS_HOW_MANY.match(question) else None,
    }
    return {
        name: nothing
        if form is None
        else [float(form.search(folded(document.text)) is not None) for document in documents]
        for name, form in asked.items()
    }


def _asks(document: Document) -> bool:
    return document.text.rstrip().endswith("?")


def _around(
    places: Sequence[tuple[str, int] | None], own: Sequence[float], documents: Sequence[Document]
) -> dict[str, list[float]]:
    """Return what the neighbours of each turn share with the question."""
    asked, second, around = ([0.0] * len(own) for _ in range(3))
    index_of = {place: index for index, place in enumerate(places) if place is not None}
    for index, place in enumerate(places):
        if place is None or not own[index]:
            continue
        session, position = place
        for step in range(-_REACH, _REACH + 1):
            other = index_of.get((session, position + step))
            if other is not None:
                around[other] += own[index] / (2 * _REACH + 1)
                if step == 1 and _asks(documents[index]):
                    asked[other] = own[index]
                elif step == 2:
                    second[other] = own[index]
    return {"asked_before": asked, "before_2": second, "around": around}


def _meanings(entries: Sequence[MemoryEntry], similar: Mapping[str, float]) -> list[float]:
    """Return how similar each candidate is to the question; the most similar has 1."""
    usual = sum(max(0.0, number) for number in similar.values()) / len(similar) if similar else 0.0
    return _scaled([max(0.0, similar.get(entry.id, usual)) for entry in entries])


def _meanings_around(places: Sequence[tuple[str, int] | None], meanings: Sequence[float]) -> dict[str, list[float]]:
    """Return how similar the neighbours of each turn are: the one before, the one behind, the others' mean."""
    meaning_of = {place: meaning for place, meaning in zip(places, meanings, strict=True) if place is not None}
    steps = {"meaning_before": (-1,), "meaning_behind": (1,), "meaning_around": (-3, -2, 2, 3)}
    return {
        name: [
            sum(meaning_of.get((place[0], place[1] + step), 0.0) for step in some) / len(some) if place else 0.0
            for place in places
        ]
        for name, some in steps.items()
    }


def _nearby(places: Sequence[tuple[str, int] | None], shares: Sequence[float]) -> list[float]:
    """Return for each candidate the greatest share of itself and its neighbours."""
    greatest = list(shares)
    index_of = {place: index for index, place in enumerate(places) if place is not None}
    for index, place in enumerate(places):
        if place is not None and shares[index]:
            session, position = place
            for step in range(-_REACH, _REACH + 1):
                other = index_of.get((session, position + step))
                if other is not None and greatest[other] < shares[index]:
                    greatest[other] = shares[index]
    return greatest


def _scaled(numbers: list[float]) -> list[float]:
    """Return numbers divided by the greatest."""
    return _divided(numbers, max(numbers, default=0.0))


def _divided(numbers: list[float], whole: float) -> list[float]:
    return [number / whole for number in numbers] if whole else numbers
