"""The words for beginners: facts in plain text, their keys, and which memory a text means."""

from __future__ import annotations

from jarvis._calls.arguments import plain_text
from jarvis.errors import AmbiguousError, InvalidEntryError
from jarvis.model.categories import TEXT
from jarvis.model.options import PLAIN
from jarvis.model.query import MemoryQuery
from jarvis.services.duplicates import having_all, said
from jarvis.storage_backend import StorageBackend
from jarvis.text.analysis import analyser

_KEY_SIGNS = 80
_MOST_NAMED = 5


def checked_text(text: object) -> str:
    """Return a text that is to be remembered; raise `InvalidEntryError` if it is no text, or nothing is in it."""
    plain = plain_text(text)
    if plain is None or not plain.strip():
        raise InvalidEntryError("text", "takes a str with something in it")
    return plain


def key_of(text: str) -> str:
    """Return the key of a fact: its first words.

    >>> from jarvis.services.remembering import key_of
    >>> key_of("Maria moves to Lisbon, in May!")
    'maria moves to lisbon in may'
    """
    words = " ".join(analyser(PLAIN).words(text))
    return (words or text.strip())[:_KEY_SIGNS].strip()


def entity_of(about: object) -> tuple[str, str | None]:
    """Return the type and the id of the entity that a fact is about.

    Raises:
        InvalidEntryError: it is no pair of texts.
    """
    if about is None:
        return "", None
    if type(about) in (tuple, list):
        parts = [plain_text(part) for part in about]  # type: ignore[attr-defined]  # it is a list or a tuple
        if len(parts) == 2 and None not in parts:
            return parts[0] or "", parts[1]
    raise InvalidEntryError("about", 'takes the type and the id of an entity, such as ("person", "maria")')


def meant(backend: StorageBackend, text: str, hidden: tuple[str, ...] | None) -> str:
    """Return the id of the one memory that has a text, of those without `hidden` tags.

    Case, spaces and punctuation do not matter.

    Raises:
        AmbiguousError: no memory has it, or several have.
    """
    near, same = having_all(backend, text, MemoryQuery(exclude_tags=hidden)), said(text)
    equal = [entry for entry in near if isinstance(own := entry.value.get(TEXT), str) and said(own) == same]
    if len(equal) != 1:
        raise AmbiguousError([entry.id for entry in (equal or near)[:_MOST_NAMED]], len(equal))
    return equal[0].id
