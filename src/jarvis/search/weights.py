"""The weights of the ranking: written by ``python -m benchmarks.learning``, never by hand."""

from __future__ import annotations

UTTERANCE = {
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
"""Weights of the parts of the score of an utterance."""

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
