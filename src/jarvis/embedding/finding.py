"""Finds embedders by name, and imports them only when they are asked for.

A package adds its own with an entry point of the group `ENTRY_POINT_GROUP`; the names of jarvis's own embedders always
mean those of jarvis.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jarvis.errors import InvalidSettingError, UnsupportedError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.metadata import EntryPoint

ENTRY_POINT_GROUP = "jarvis.embedders"

_BUILT_IN = {"minilm": ("jarvis.embedding.minilm", "MiniLM")}
"""The embedders of jarvis, each with an extra of its name: where its class is."""


def known_embedders() -> list[str]:
    """Return every name that `load_embedder` takes, sorted.

    >>> "minilm" in known_embedders()
    True
    """
    return sorted({*_BUILT_IN, *(point.name for point in _entry_points())})


def load_embedder(name: str) -> Any:
    """Return the embedder of this name; what a package registered may be anything.

    Raises:
        InvalidSettingError: there is none.
        UnsupportedError: a package that it needs is not installed. Models are loaded later.

    >>> load_embedder("minilmm")
    Traceback (most recent call last):
    ...
    jarvis.errors.InvalidSettingError: embedder: none is named 'minilmm'; known: minilm (did you mean 'minilm'?)
    """
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name]
        return getattr(import_module(module), attribute)()
    points = [point for point in _entry_points() if point.name == name]
    if not points:
        known = known_embedders()
        raise InvalidSettingError(f"embedder: none is named {name!r}; known: {', '.join(known)}{nearest(name, known)}")
    make: Any = points[0].load()
    return make()


def installed_embedder() -> Any:
    """Return the embedder that is used if none was named: the installed one, of several the first by name; or None."""
    for name in known_embedders():
        try:
            return load_embedder(name)
        except UnsupportedError:
            continue
    return None


def _entry_points() -> Iterable[EntryPoint]:
    from importlib.metadata import entry_points  # takes 20 ms, and looks at every installed package

    return [point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name not in _BUILT_IN]
