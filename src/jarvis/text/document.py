"""The words of a memory: what is searched, field by field."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from jarvis.model.categories import FACTS, POSITION, SPEAKER, TEXT, TURNS

if TYPE_CHECKING:
    from jarvis.model.entry import MemoryEntry
    from jarvis.text.analysis import Analyser

MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
TIME_MARK = "_"
"""Begins the words of a time: no word of a text has this sign."""

_MONTHS, _DAYS = [TIME_MARK + name for name in MONTHS], [TIME_MARK + name for name in DAYS]
_REMEMBERED, _MOST_REMEMBERED = 20_000, 500
"""Of how many memories the words are remembered, and how many signs these have at most: some 20 MB."""

_NAMED, _SIGN = re.compile(r"(\w+)(?:['’]s\b)?"), re.compile(r"\w")
_MAIN = (TEXT,)
_MOST_BITS = 200
"""Longer numbers are not searched."""


class Document(NamedTuple):
    """A memory as its words, field by field.

    Attributes:
        text: the main text: the field ``text`` of the value, or all texts of the value.
        words: its words in order.
        names: the words of key, tags, and the other texts of the value.
        about: the words of the entity and of the speaker.
        fields: the words of the names of fields.
        vocabulary: all of these, each once.
    """

    text: str
    words: tuple[str, ...]
    names: tuple[str, ...]
    about: tuple[str, ...]
    fields: tuple[str, ...]
    vocabulary: frozenset[str]


def document_of(entry: MemoryEntry, analyser: Analyser, text_fields: tuple[str, ...] = ()) -> Document:
    """Return the words of a memory, field by field; those of short memories are remembered for the next question.

    Args:
        text_fields: the fields of the value that hold the main text; without them ``text``, or all if there is none.
    """
    texts = _texts(entry, text_fields or _MAIN)
    make = _remembered if sum(map(len, texts)) <= _MOST_REMEMBERED else _made
    return make(analyser, *texts)


def _made(analyser: Analyser, main: str, names: str, about: str, fields: str) -> Document:
    words = analyser.words
    own = words(main)
    more = tuple([word for word in words(names) if word not in own])
    parts = own, more, words(about, names=True), words(fields)
    return Document(main, *parts, frozenset().union(*parts))


_remembered = functools.lru_cache(_REMEMBERED)(_made)


def words_of(entry: MemoryEntry, analyser: Analyser) -> set[str]:
    """Return the words under which a memory is indexed: all of its `Document`, each once."""
    main, names, about, fields = _texts(entry, _MAIN)
    words = analyser.word_set(f"{main} {names} {fields}")
    words.update(analyser.words(about, names=True), times_of(entry))
    return words


def passages_of(entry: MemoryEntry, analyser: Analyser) -> list[tuple[str, ...]]:
    """Return the words of each text of a memory apart: a phrase lies in one of them."""
    main, names, about, _ = _leaves(entry, _MAIN)
    return [analyser.words(text) for text in (*main, *names, *about)]


def meaning_of(entry: MemoryEntry, analyser: Analyser, others: Iterable[str] = ()) -> str:
    """Return the text of a memory that is handed to a model: without the names of its entity, its speaker, and others.

    Names tell a model little, and hide what else is said: they are matched as words. Of facts and turns it is the
    main text, of other memories also their key, tags and the names of their fields.
    """
    main, names, about, fields = _texts(entry, _MAIN)
    text = main if entry.category in (FACTS, TURNS) else f"{names} {fields} {main}"
    return without_names(text, frozenset(analyser.words(" ".join([about, *others]), names=True)), analyser)


def without_names(text: str, names: Collection[str], analyser: Analyser) -> str:
    """Return a text without the words that are names, as the analyser makes them; all of it, if nothing is left.

    >>> from jarvis.text.analysis import analyser
    >>> from jarvis.text.document import without_names
    >>> without_names("When did Maria's sister move?", {"maria"}, analyser("english"))
    'When did sister move?'
    """
    if not names:
        return text
    kept = _NAMED.sub(lambda found: "" if is_name(found[1], names, analyser) else found[0], text)
    return " ".join(kept.split()) if _SIGN.search(kept) else text


def is_name(word: str, names: Collection[str], analyser: Analyser) -> bool:
    """Tell whether a word is one of some names."""
    words = analyser.words(word, names=True)
    return bool(words) and all(each in names for each in words)


def _texts(entry: MemoryEntry, text_fields: tuple[str, ...]) -> tuple[str, str, str, str]:
    """Return the texts of words, names, about and fields of a `Document`."""
    main, names, about, fields = _leaves(entry, text_fields)
    return " ".join(main), " ".join(names), " ".join(about), " ".join(fields)


def _leaves(entry: MemoryEntry, text_fields: tuple[str, ...]) -> tuple[list[str], list[str], list[str], list[str]]:
    """Return the texts of words, names and about of a `Document`, and its fields."""
    main: list[str] = []
    others: list[str] = []
    fields: list[str] = []
    about: list[str] = []
    for name, part in entry.value.items():
        leaves = main if name in text_fields else others
        if type(part) is not str:
            if name != POSITION or entry.category != TURNS:
                fields.append(name)
                _gather(part, leaves, fields)
        elif name == SPEAKER and leaves is others:
            about.append(part)
        else:
            leaves.append(part)
            if name != TEXT:
                fields.append(name)
    if not main:
        main, others = others, []
    if entry.category == TURNS:  # nobody asks for the keys of turns, and for the names of their sessions
        return main, [*entry.tags, *others], about, fields
    about += [entry.entity_type, entry.entity_id or ""]
    keys = [] if entry.category == FACTS else [entry.key]  # the key of a fact is what its text was at first
    return main, [*keys, *entry.tags, *others], about, fields


def _gather(value: object, leaves: list[str], fields: list[str]) -> None:
    """Add the texts and whole numbers in a value, and the names of its fields, in their order."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            leaves.append(item)
        elif isinstance(item, Mapping):
            fields += item
            stack += reversed(list(item.values()))
        elif isinstance(item, list | tuple):
            stack += reversed(item)
        elif isinstance(item, set | frozenset):
            stack += sorted((each for each in item if isinstance(each, str)), reverse=True)  # sets have no order
        elif isinstance(item, int) and not isinstance(item, bool):
            leaves.append(format(item, "d") if item.bit_length() < _MOST_BITS else "")


def times_of(entry: MemoryEntry) -> tuple[str, str, str]:
    """Return month, day of the week, and year of a memory's timestamp, each behind `TIME_MARK`."""
    moment = entry.timestamp
    return _MONTHS[moment.month - 1], _DAYS[moment.weekday()], f"{TIME_MARK}{moment.year}"
