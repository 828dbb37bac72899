"""What the candidates of a question are: the memories that share words with it, before they are ranked.

The rarest words are looked up first. When enough memories have a better score than those can get that have only the
other words, these words only tell the memories apart.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

from jarvis.model.entry import MemoryEntry
from jarvis.model.words import Candidates as Candidates
from jarvis.model.words import Term
from jarvis.text.spelling import respelt

Row = TypeVar("Row", bound=Hashable)
_EPSILON = 1e-9  # sums of floats depend on their order


def rarity(count: int, total: int) -> float:
    """Return the weight of a word that `count` of `total` memories have: its inverse document frequency in BM25.

    Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009.
    """
    return math.log(1 + (total - count + 0.5) / (count + 0.5))


def choose(
    documents: Collection[tuple[MemoryEntry, Collection[str]]],
    terms: Sequence[Term],
    wanted: Iterable[str],
    most: int,
    *,
    respell: bool = False,
) -> Candidates:
    """Return the candidates among memories and their words: what every index of words answers.

    Args:
        documents: all memories of a namespace, with their words.
        terms: of the question.
        wanted: the ids of the memories that may be candidates; the others only count.
        most: how many candidates there are at most.
        respell: let words that are alike stand in for one that no memory has; see `jarvis.text.spelling.respelt`.
    """

    def counted(terms: Sequence[Term]) -> list[int]:
        return [sum(term.is_in(words) for _, words in documents) for term in terms]

    def vocabulary(beginning: str) -> set[str]:
        return {word for _, words in documents for word in words if word.startswith(beginning)}

    terms, counts, total = tuple(terms), counted(terms), len(documents)
    if respell:
        terms, counts = respelt(terms, counts, total, vocabulary, counted)
    ids = set(wanted)
    weights = [rarity(count, total) for count in counts]
    masks = ((entry, sum(1 << place for place, term in enumerate(terms) if term.is_in(w))) for entry, w in documents)
    scored = [(score_of(mask, weights), entry.order, entry) for entry, mask in masks if mask and entry.id in ids]
    best = heapq.nlargest(most, scored, key=lambda each: each[:2])
    return Candidates([entry for _, _, entry in best], terms, counts, total)


def masks_of(
    counts: Sequence[int],
    weights: Sequence[float],
    rows_of: Callable[[int, Collection[Row] | None], Collection[Row]],
    most: int | None,
) -> dict[Row, int]:
    """Return the rows that have some words: by row, a bit for the place of each word.

    Args:
        counts: how many rows have each word, or more.
        weights: of the words, see `rarity`.
        rows_of: returns the rows that have the word at a place; given rows, perhaps only those of them that have it.
        most: only rows that can be among the best so many are wanted; None for all.
    """
    places = sorted((place for place, count in enumerate(counts) if count), key=lambda place: -weights[place])
    masks: dict[Row, int] = {}
    is_enough = False
    for number, place in enumerate(places):
        rest = sum(weights[each] for each in places[number:]) * (1 + _EPSILON)  # what no other row can get more of
        if most is not None and len(masks) > most:
            least = _least(masks, weights, most)
            is_enough = is_enough or least > rest
            if is_enough:  # others would have to become better than those that are
                kinds = {mask for mask in set(masks.values()) if score_of(mask, weights) + rest >= least}
                masks = {row: mask for row, mask in masks.items() if mask in kinds}
        rows, bit = rows_of(place, masks.keys() if is_enough else None), 1 << place
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
    return masks


def ranked(masks: dict[Row, int], weights: Sequence[float], most: int | None) -> list[list[Row]]:
    """Return rows by their score, those with the greatest first; rows of equal scores are in one list.

    With `most`, there are no more lists than are needed for so many rows.
    """
    numbers: Counter[float] = Counter()
    scores = scores_of(masks.values(), weights)
    for mask, number in Counter(masks.values()).items():
        numbers[scores[mask]] += number
    order = sorted(numbers, reverse=True)
    if most is not None:
        reached = itertools.accumulate(numbers[score] for score in order)
        order = order[: 1 + next((place for place, count in enumerate(reached) if count >= most), len(order))]
    lists: dict[float, list[Row]] = {score: [] for score in order}
    list_of = {mask: lists[score] for mask, score in scores.items() if score in lists}
    for row, mask in masks.items():
        if mask in list_of:
            list_of[mask].append(row)
    return list(lists.values())


def scores_of(masks: Iterable[int], weights: Sequence[float]) -> dict[int, float]:
    """Return the score of each mask: the sum of the weights of its words."""
    return {mask: score_of(mask, weights) for mask in set(masks)}


def score_of(mask: int, weights: Sequence[float]) -> float:
    """Return the sum of the weights of a mask, added up in the order of the terms."""
    return sum(weights[number] for number in _bits(mask))


def _least(masks: dict[Row, int], weights: Sequence[float], most: int) -> float:
    """Return the score that `most` of the rows have at least."""
    reached = 0
    numbers = Counter(masks.values())
    for score, number in sorted(((score_of(mask, weights), number) for mask, number in numbers.items()), reverse=True):
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
