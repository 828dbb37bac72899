"""`Recalled`: a memory that was found, and how well it answers."""

from __future__ import annotations

from typing import NamedTuple

from jarvis.model.entry import MemoryEntry


class Recalled(NamedTuple):
    """A memory that answers a question.

    Attributes:
        entry: the memory.
        score: how well it answers, from 0 to 1.
        parts: what the score consists of, by name; `docs/reference/ranking.md` explains each.
    """

    entry: MemoryEntry
    score: float
    parts: dict[str, float]
