"""`rank`: the candidates of a question in their order."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from jarvis.model.recalled import Recalled
from jarvis.search.parts import scored
from jarvis.search.weights import FACT, UTTERANCE

if TYPE_CHECKING:
    from jarvis.search.parts import Scored
    from jarvis.text.analysis import Analyser
    from jarvis.text.candidates import Candidates
    from jarvis.text.question import Question

_RECENCY = 1.0
"""The weight of recency where a caller asks for it, beside weights that are learned."""


def rank(
    question: Question,
    candidates: Candidates,
    analyser: Analyser,
    *,
    half_life: timedelta | None = None,
    now: datetime | None = None,
) -> list[Recalled]:
    """Return the candidates with their scores, the best first; equal ones the newest first."""
    each = scored(question, candidates, analyser)
    match = max((one.share for one in each), default=0.0)
    answer = [_recalled(one, match, half_life, now) for one in each]
    return sorted(answer, key=lambda recalled: (recalled.score, *recalled.entry.order), reverse=True)


def _recalled(one: Scored, match: float, half_life: timedelta | None, now: datetime | None) -> Recalled:
    weights = UTTERANCE if one.is_turn else FACT
    parts = {name: weight * one.parts[name] for name, weight in weights.items() if one.parts[name]}
    whole = sum(weight for weight in weights.values() if weight > 0)
    if half_life is not None and now is not None:
        age = max(now - one.entry.timestamp.astimezone(now.tzinfo), timedelta(0))
        parts["recency"] = _RECENCY * 0.5 ** (age / half_life)
        whole += _RECENCY
    parts = {name: match * part / whole for name, part in parts.items()}
    return Recalled(one.entry, max(0.0, min(1.0, sum(parts.values()))), parts)
