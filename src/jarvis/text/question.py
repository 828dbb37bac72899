"""`Question`: what a user typed, taken apart."""

from __future__ import annotations

import re
from typing import NamedTuple

from jarvis.model.words import Term as Term
from jarvis.text.analysis import Analyser, folded
from jarvis.text.document import DAYS, MONTHS, TIME_MARK

MOST_SIGNS, MOST_WORDS = 10_000, 64
"""How much of a question is read."""

_SHORTEST, _LONGEST_ENDING = 2, 4
_PART = re.compile(r'(?:(?<=\s)|^)(-?)"([^"]*)"|(?:(?<=\s)|^)-(?=\w)(\S+)|(\S+)')
_PREFIX = re.compile(r"(\w{2,})\*\W*")
_SIGNS = re.compile(r"\w+")
_TIMES = frozenset((*MONTHS, *DAYS))
_YEAR = re.compile(r"(?:19|20)\d\d")


class Question(NamedTuple):
    """A question in words.

    Attributes:
        text: as it was typed.
        terms: what is looked up, each once, in order; a memory should have some of them.
        phrases: words that must stand side by side.
        excluded: words, or words side by side, that must not be there.
    """

    text: str
    terms: tuple[Term, ...]
    phrases: tuple[tuple[str, ...], ...] = ()
    excluded: tuple[tuple[str, ...], ...] = ()


def question_of(text: str, analyser: Analyser) -> Question:
    """Take a question apart: words, ``"phrases in quotes"``, ``begin*`` and ``-without``.

    Every text is a question. Signs that mean nothing separate words.

    >>> from jarvis.text.analysis import analyser
    >>> from jarvis.text.question import question_of
    >>> question = question_of('trips "to Lisbon" plan* -work', analyser("english"))
    >>> [term.text for term in question.terms], question.phrases, question.excluded
    (['trip', 'lisbon', 'plan'], (('lisbon',),), (('work',),))
    """
    text = text[:MOST_SIGNS]
    terms: dict[Term, None] = {}
    phrases, excluded = [], []
    for minus, phrase, unwanted, plain in _PART.findall(text):
        if phrase or unwanted:
            words = tuple(analyser.words(phrase or unwanted))
            if not words:
                continue
            if minus or unwanted:
                excluded.append(words)
                continue
            phrases.append(words)
            terms.update((Term(word), None) for word in words)
            continue
        prefix = _PREFIX.fullmatch(plain)
        if prefix:
            terms[Term(_beginning(folded(prefix[1]), analyser), is_prefix=True)] = None
            continue
        is_name = plain[:1].isupper() and len(plain) > 1 and bool(terms or phrases)  # a capital inside a question
        terms.update((Term(word), None) for word in analyser.words(plain, names=is_name))
        for word in _SIGNS.findall(folded(plain)):
            if word in _TIMES or _YEAR.fullmatch(word):
                terms[Term(TIME_MARK + word)] = None
    if not terms and not excluded:  # Who is Will?
        terms = {Term(word): None for word in analyser.words(text, names=True)}
    return Question(text, tuple(terms)[:MOST_WORDS], tuple(phrases), tuple(excluded))


def _beginning(typed: str, analyser: Analyser) -> str:
    """Return what the words begin with that a user means by a beginning: of ``moving*`` it is ``mov``, as of move."""
    stems, kept = analyser.words(typed), typed
    while stems and not stems[0].startswith(kept):
        kept = kept[:-1]
    return kept if len(kept) >= max(_SHORTEST, len(typed) - _LONGEST_ENDING) else typed
