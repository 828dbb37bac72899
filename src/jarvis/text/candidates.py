"""What the candidates of a question are: the memories that share words with it, before they are ranked."""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterable, Sequence

from jarvis.model.entry import MemoryEntry
from jarvis.model.words import Candidates as Candidates
from jarvis.model.words import Term


def rarity(count: int, total: int) -> float:
    """Return the weight of a word that `count` of `total` memories have: its inverse document frequency in BM25.

    Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009.
    """
    return math.log(1 + (total - count + 0.5) / (count + 0.5))


def choose(
    documents: Iterable[tuple[MemoryEntry, Collection[str]]], terms: Sequence[Term], wanted: Iterable[str], most: int
) -> Candidates:
    """Return the candidates among memories and their words: what every index of words answers.

    Args:
        documents: all memories of a namespace, with their words.
        terms: of the question.
        wanted: the ids of the memories that may be candidates; the others only count.
        most: how many candidates there are at most.
    """
    having: list[tuple[MemoryEntry, list[int]]] = []
    counts, total = [0] * len(terms), 0
    for entry, words in documents:
        total += 1
        present = [index for index, term in enumerate(terms) if term.is_in(words)]
        for index in present:
            counts[index] += 1
        if present:
            having.append((entry, present))
    ids = set(wanted)
    weights = [rarity(count, total) for count in counts]
    scored = [
        (sum(weights[index] for index in present), entry.order, entry) for entry, present in having if entry.id in ids
    ]
    best = heapq.nlargest(most, scored, key=lambda each: each[:2])
    return Candidates([entry for _, _, entry in best], counts, total)
