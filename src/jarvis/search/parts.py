"""The parts of the score of a memory: what it shares with a question, itself and through its neighbours."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from jarvis.model.entry import MemoryEntry
from jarvis.model.turn import place_of_turn
from jarvis.text.analysis import Analyser, folded
from jarvis.text.candidates import Candidates, rarity
from jarvis.text.document import TIME_MARK, Document, document_of
from jarvis.text.question import Question, Term

_SATURATION, _LENGTH_SHARE = 1.2, 0.75
"""The parameters k1 and b of BM25, at their usual values."""

_USUAL_WORDS, _USUAL_SESSION_WORDS = 12, 200
"""The lengths of a memory and of a session that count as average: a real average would change with every write."""

_NAME_WEIGHT, _FIELD_WEIGHT = 0.6, 0.2
_REACH = 3
"""How many neighbours on each side of an utterance count as around it."""

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


class Scored(NamedTuple):
    """A candidate and the parts of its score, each from 0 to 1 (`around`: to 7).

    Attributes:
        entry: the memory.
        is_turn: it is an utterance of a conversation, with neighbours.
        parts: by name; `jarvis.search.weights` has the names.
        share: how much of the question it has, or one of its neighbours, in rarity.
    """

    entry: MemoryEntry
    is_turn: bool
    parts: dict[str, float]
    share: float


def scored(question: Question, candidates: Candidates, analyser: Analyser) -> list[Scored]:
    """Return the parts of the score of each candidate, in the order of the candidates."""
    return _Scoring(question, candidates, analyser).answer()


class _Scoring:
    """The state of the scoring of one question."""

    def __init__(self, question: Question, candidates: Candidates, analyser: Analyser) -> None:
        self._entries = candidates.entries
        self._documents = [document_of(entry, analyser) for entry in candidates.entries]
        weights = [
            (term, rarity(count, candidates.total), count)
            for term, count in zip(question.terms, candidates.counts, strict=True)
        ]
        self._words = [(term, weight) for term, weight, _ in weights if not _is_time(term)]
        self._times = [(term, weight) for term, weight, _ in weights if _is_time(term)]
        self._all = sum(weight for _, weight, _ in weights) or 1.0
        self._known = sum(weight for term, weight, count in weights if count and not _is_time(term)) or 1.0
        text = folded(question.text)
        self._when = bool(_ASKS_WHEN.match(text))
        self._how_many = bool(_ASKS_HOW_MANY.match(text))

    def answer(self) -> list[Scored]:
        """Return the candidates and their parts."""
        counts = [self._counts(document) for document in self._documents]
        matches = [self._match(count, document) for count, document in zip(counts, self._documents, strict=True)]
        best = max((match for match, _ in matches), default=0.0) or 1.0
        words = [match / best for match, _ in matches]
        turns = [place_of_turn(entry) for entry in self._entries]
        index_of = {turn: index for index, turn in enumerate(turns) if turn is not None}
        sessions = self._sessions(counts, turns)
        shares = [self._share(count, document) for count, document in zip(counts, self._documents, strict=True)]
        abouts = self._about()
        answer = []
        for index, (entry, document) in enumerate(zip(self._entries, self._documents, strict=True)):
            text = folded(document.text)
            share = shares[index]
            parts = {
                "words": words[index],
                "coverage": matches[index][1] / self._known,
                "session": sessions[index],
                "about": abouts[index],
                "length": math.log1p(len(document.words)) / 4,
                "tells_when": float(self._when and _TIME_WORD.search(text) is not None),
                "tells_how_many": float(self._how_many and _NUMBER.search(text) is not None),
                "is_question": float(text.rstrip().endswith("?")),
                "time": self._time(document),
            }
            turn = turns[index]
            if turn is not None:
                session, position = turn
                near = {
                    step: other
                    for step in range(-_REACH, _REACH + 1)
                    if (other := index_of.get((session, position + step))) is not None
                }
                before = near.get(-1)
                parts["asked_before"] = (
                    words[before] if before is not None and self._documents[before].text.rstrip().endswith("?") else 0.0
                )
                parts["before_2"] = words[near[-2]] if -2 in near else 0.0
                parts["around"] = sum(words[other] for other in near.values())
                share = max(shares[other] for other in near.values())
            answer.append(Scored(entry, turn is not None, parts, share))
        return answer

    def _counts(self, document: Document) -> list[float]:
        """Return how often each word of the question is in a document; names and fields count less."""
        counts = []
        for term, _ in self._words:
            count = _often(term, document.words) + _NAME_WEIGHT * _often(term, document.names)
            counts.append(count + _FIELD_WEIGHT * _often(term, document.fields))
        return counts

    def _match(self, counts: Sequence[float], document: Document) -> tuple[float, float]:
        """Return the score of a document by BM25, and the rarity of the words that it shares."""
        length = len(document.words) + _NAME_WEIGHT * len(document.names)
        norm = _SATURATION * (1 - _LENGTH_SHARE + _LENGTH_SHARE * length / _USUAL_WORDS)
        match = share = 0.0
        for count, (_, weight) in zip(counts, self._words, strict=True):
            if count:
                match += weight * count * (_SATURATION + 1) / (count + norm)
                share += weight
        return match, share

    def _share(self, counts: Sequence[float], document: Document) -> float:
        """Return how much of the question a document has anywhere, in rarity."""
        share = sum(
            weight
            for count, (term, weight) in zip(counts, self._words, strict=True)
            if count or _often(term, document.about)
        )
        return (share + sum(weight for term, weight in self._times if term.text in document.times)) / self._all

    def _sessions(self, counts: Sequence[Sequence[float]], turns: Sequence[tuple[str, int] | None]) -> list[float]:
        """Return the score of the session of each candidate, of which the best has 1.

        The session of a memory that is no utterance is its day.
        """
        keys: list[object] = [
            turn[0] if turn is not None else entry.timestamp.date()
            for entry, turn in zip(self._entries, turns, strict=True)
        ]
        sums: defaultdict[object, list[float]] = defaultdict(lambda: [0.0] * len(self._words))
        lengths: defaultdict[object, int] = defaultdict(int)
        for key, count, document in zip(keys, counts, self._documents, strict=True):
            sums[key] = [total + each for total, each in zip(sums[key], count, strict=True)]
            lengths[key] += len(document.words)
        weights = [
            rarity(sum(1 for total in sums.values() if total[index]), len(sums)) for index in range(len(self._words))
        ]
        scores = {}
        for key, total in sums.items():
            norm = _SATURATION * (1 - _LENGTH_SHARE + _LENGTH_SHARE * lengths[key] / _USUAL_SESSION_WORDS)
            scores[key] = sum(
                weight * count * (_SATURATION + 1) / (count + norm)
                for weight, count in zip(weights, total, strict=True)
                if count
            )
        best = max(scores.values(), default=0.0) or 1.0
        return [scores[key] / best for key in keys]

    def _about(self) -> list[float]:
        """Return how much of the names in the question each memory is about, or was said by."""
        shares = [
            {index for index, (term, _) in enumerate(self._words) if _often(term, document.about)}
            for document in self._documents
        ]
        whole = sum(self._words[index][1] for index in set().union(*shares)) or 1.0
        return [sum(self._words[index][1] for index in share) / whole for share in shares]

    def _time(self, document: Document) -> float:
        """Return how much of the months, days and years in the question the time of a memory has."""
        whole = sum(weight for _, weight in self._times) or 1.0
        return sum(weight for term, weight in self._times if term.text in document.times) / whole


def _is_time(term: Term) -> bool:
    return term.text.startswith(TIME_MARK)


def _often(term: Term, words: list[str]) -> int:
    if term.is_prefix:
        return sum(1 for word in words if word.startswith(term.text))
    return words.count(term.text)
