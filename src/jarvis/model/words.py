"""What an index of words is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from jarvis.model.entry import MemoryEntry


class Term(NamedTuple):
    """A word to look up in an index, or the beginning of words.

    Attributes:
        text: the word as the analyser makes it, or the folded beginning.
        is_prefix: all words that begin with it are meant.
    """

    text: str
    is_prefix: bool = False

    def is_in(self, words: Collection[str]) -> bool:
        """Tell whether it means one of some words."""
        text = self.text
        return any(word.startswith(text) for word in words) if self.is_prefix else text in words


class Candidates(NamedTuple):
    """The memories that a question may mean.

    Attributes:
        entries: those that share the rarest words with the question, the best first.
        terms: what was looked up: the terms of the question, or what stands in for misspelt ones.
        counts: in how many memories of the namespace each term is.
        total: how many memories the namespace has.
    """

    entries: list[MemoryEntry]
    terms: tuple[Term, ...]
    counts: list[int]
    total: int
