"""Tells by which words the memories of a backend are found."""

from __future__ import annotations

from jarvis.capabilities import SearchesText
from jarvis.model.options import ENGLISH, NO_INDEX
from jarvis.storage_backend import StorageBackend
from jarvis.text.analysis import Analyser, analyser


def has_index(backend: StorageBackend) -> bool:
    """Tell whether the backend has an index of words, and this handle may use it."""
    return backend.has_capability(SearchesText) and backend.capability(SearchesText).text_language() != NO_INDEX


def analyser_of(backend: StorageBackend) -> Analyser:
    """Return the analyser of the words under which the memories of a backend are found."""
    return analyser(backend.capability(SearchesText).text_language() if has_index(backend) else ENGLISH)
