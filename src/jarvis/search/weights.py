"""The weights of the ranking: written by ``python -m benchmarks.learning``, never by hand."""

from __future__ import annotations

UTTERANCE = {
    "words": 1.84,
    "coverage": 1.88,
    "before_2": 0.99,
    "asked_before": 1.93,
    "around": 0.42,
    "session": 3.46,
    "about": 2.67,
    "is_question": -0.55,
    "length": 2.7,
    "tells_when": 2.75,
    "tells_how_many": 0.67,
    "time": 4.55,
}
"""Weights of the parts of the score of an utterance."""

FACT = {
    "words": 2.85,
    "coverage": 1.47,
    "session": 2.86,
    "about": 2.77,
    "length": 1.02,
    "tells_when": 1.49,
    "time": 3.86,
}
"""Weights of the parts of the score of any other memory."""
