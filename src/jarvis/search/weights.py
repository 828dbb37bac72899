"""The weights of the ranking: written by ``python -m benchmarks.learning``, never by hand."""

from __future__ import annotations

TURN = {
    "words": 1.88,
    "coverage": 2.05,
    "before_2": 1.12,
    "asked_before": 2.02,
    "around": 1.91,
    "session": 3.46,
    "about": 2.86,
    "is_question": -0.53,
    "length": 2.63,
    "tells_when": 2.7,
    "tells_how_many": 0.65,
    "time": 4.08,
}
"""Weights of the parts of the score of a turn."""

FACT = {
    "words": 2.74,
    "coverage": 1.57,
    "session": 2.85,
    "about": 2.79,
    "length": 0.88,
    "tells_when": 1.49,
    "time": 3.71,
}
"""Weights of the parts of the score of any other memory."""

TURN_BY_MEANING = {
    "words": 0.88,
    "coverage": 1.8,
    "before_2": 1.13,
    "asked_before": 1.72,
    "around": -0.28,
    "session": 2.8,
    "about": 2.92,
    "is_question": -0.6,
    "length": 2.43,
    "tells_when": 2.94,
    "tells_how_many": 0.59,
    "time": 3.82,
    "meaning": 2.96,
    "meaning_before": 0.33,
    "meaning_behind": 1.25,
    "meaning_around": 0.26,
}
"""Those of a turn, where a model says how similar it is to the question."""

FACT_BY_MEANING = {
    "words": 0.65,
    "coverage": 0.71,
    "session": 2.4,
    "about": 2.88,
    "length": 1.17,
    "tells_when": 1.3,
    "time": 3.55,
    "meaning": 5.17,
}
"""Those of any other memory, where a model does."""
