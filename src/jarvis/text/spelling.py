"""`respelt`: the words of a question, with those that are most like them in place of words that no memory has."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from jarvis.model.words import Term

_SHORTEST, _FAR = 4, 2
"""How many letters a misspelt word has at least, and by how many its length and its letters differ at most."""

_MOST, _LIKENESS = 3, 0.8
"""How many words stand in for one that no memory has, and how like it they are, see `difflib.get_close_matches`."""

_FEW = 20_000
"""In a namespace of so many memories, the second letter of a misspelt word may be wrong, too."""


def respelt(
    terms: tuple[Term, ...],
    counts: list[int],
    total: int,
    vocabulary: Callable[[str], Collection[str]],
    counted: Callable[[Sequence[Term]], list[int]],
) -> tuple[tuple[Term, ...], list[int]]:
    """Return the terms of a question and how many memories have each, with others for those that no memory has.

    A number and a beginning mean themselves.

    Args:
        terms: of the question.
        counts: how many memories of the namespace have each.
        total: how many memories the namespace has.
        vocabulary: returns all words of the namespace that begin so; words that no memory has any more may be there.
        counted: returns how many memories have each of some terms.
    """
    found: dict[Term, int] = {}
    for term, count in zip(terms, counts, strict=True):
        text = term.text
        if count or term.is_prefix or len(text) < _SHORTEST or not text.isalpha():
            found.setdefault(term, count)
            continue
        some = _alike(text, vocabulary(text[:2]), counted)
        if not some and total <= _FEW:
            some = _alike(text, vocabulary(text[0]), counted)
        for each, number in (some or {term: 0}).items():
            found.setdefault(each, number)
    return tuple(found), list(found.values())


def _alike(text: str, words: Collection[str], counted: Callable[[Sequence[Term]], list[int]]) -> dict[Term, int]:
    """Return the words that are most like a text, and how many memories have each."""
    import difflib  # for few questions

    letters = set(text)
    least, greatest = len(text) - _FAR, len(text) + _FAR
    near = [
        word
        for word in words
        if least <= len(word) <= greatest and len(letters.difference(word)) <= _FAR and word.isalpha()
    ]
    if not near:
        return {}
    terms = [Term(word) for word in difflib.get_close_matches(text, sorted(near), len(near), _LIKENESS)]
    present = [(term, count) for term, count in zip(terms, counted(terms), strict=True) if count]
    return dict(present[:_MOST])
