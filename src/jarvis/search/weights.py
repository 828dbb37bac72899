"""The weights of the ranking: written by ``python -m benchmarks.learning``, never by hand."""

from __future__ import annotations

UTTERANCE = {
    "words": 1.73,
    "coverage": 2.04,
    "before_2": 0.99,
    "asked_before": 1.92,
    "around": 0.46,
    "session": 3.33,
    "about": 2.84,
    "is_question": -0.53,
    "length": 2.62,
    "tells_when": 2.7,
    "tells_how_many": 0.65,
    "time": 4.09,
}
"""Weights of the parts of the score of an utterance."""

FACT = {
    "words": 2.68,
    "coverage": 1.66,
    "session": 2.85,
    "about": 2.79,
    "length": 0.89,
    "tells_when": 1.49,
    "time": 3.72,
}
"""Weights of the parts of the score of any other memory."""
