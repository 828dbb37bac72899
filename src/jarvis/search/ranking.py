"""`rank`: the candidates of a question in their order."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from jarvis.model.recalled import Recalled
from jarvis.search.parts import Parts, TextFields, no_fields, parts_of
from jarvis.search.weights import FACT, FACT_BY_MEANING, TURN, TURN_BY_MEANING

if TYPE_CHECKING:
    from jarvis.text.analysis import Analyser
    from jarvis.text.candidates import Candidates
    from jarvis.text.question import Question

_RECENCY = 1.0
"""The weight of recency where a caller asks for it, beside weights that are learned."""


def rank(
    question: Question,
    candidates: Candidates,
    analyser: Analyser,
    similar: Mapping[str, float] | None,
    limit: int,
    *,
    half_life: timedelta | None = None,
    now: datetime | None = None,
    text_fields: TextFields = no_fields,
) -> list[Recalled]:
    """Return the candidates with the highest scores, the best first; equal ones the newest first.

    `similar` is that of `parts_of`.
    """
    parts = parts_of(question, candidates, analyser, similar, text_fields)
    recency = _RECENCY if half_life is not None and now is not None else 0.0
    if half_life is not None and now is not None:
        seconds = [max(0.0, now.timestamp() - entry.order[0] / 1_000_000) for entry in parts.entries]
        parts.columns["recency"] = [0.5 ** (age / half_life.total_seconds()) for age in seconds]
    learned = (FACT, TURN) if similar is None else (FACT_BY_MEANING, TURN_BY_MEANING)
    tables = [{**weights, "recency": recency} for weights in learned]
    match = max((*parts.shares, *(similar or {}).values()), default=0.0)
    told = {name for name, column in parts.columns.items() if any(column)}  # what the question asks for
    factors = [
        match / (sum(weight for name, weight in weights.items() if weight > 0 and name in told) or 1.0)
        for weights in tables
    ]
    scores = [0.0] * len(parts.entries)
    for name, column in parts.columns.items():
        fact, turn = (factor * weights.get(name, 0.0) for factor, weights in zip(factors, tables, strict=True))
        scores = [
            score + (turn if is_turn else fact) * number
            for score, is_turn, number in zip(scores, parts.are_turns, column, strict=True)
        ]
    best = heapq.nlargest(limit, range(len(scores)), key=lambda index: (scores[index], *parts.entries[index].order))
    return [
        Recalled(parts.entries[index], scores[index], _explained(parts, index, tables, factors))
        for index in best
        if scores[index] > 0
    ]


def _explained(parts: Parts, index: int, tables: list[dict[str, float]], factors: list[float]) -> dict[str, float]:
    """Return what the score of a candidate consists of."""
    is_turn = parts.are_turns[index]
    weights, factor = tables[is_turn], factors[is_turn]
    products = {name: factor * weights.get(name, 0.0) * column[index] for name, column in sorted(parts.columns.items())}
    return {name: product for name, product in products.items() if product}
