"""Embedders that a caller gave or that are installed, and what they make, checked: anything may happen in them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jarvis._calls.arguments import own_code
from jarvis.embedding.finding import known_embedders, load_embedder
from jarvis.errors import EmbedderError, InvalidSettingError, UnsupportedError
from jarvis.model.vectors import Embedder

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_MOST_SIGNS, _MOST_NUMBERS = 100, 4_096
_USUAL_SIZE = 1e30
"""Vectors with greater numbers, or only with ones below the inverse, are scaled: a float32 has room for some more."""

_LIKE_NONE, _MOST_REFUSED = 1e-3, 3
"""The first number of the vector of a text without meaning; and how many texts in a row a model refuses that works."""

log = logging.getLogger("jarvis.search")


def checked_embedder(embedder: object) -> Embedder:
    """Return an embedder that a caller gave, or a package registered; raise `InvalidSettingError` if it is none."""
    with own_code(InvalidSettingError, "embedder"):
        if not isinstance(embedder, Embedder):
            raise InvalidSettingError(
                f"embedder: takes a name, or an object with name, dim, embed_documents and embed_query, "
                f"not {type(embedder).__name__}"
            )
        name, dim = embedder.name, embedder.dim
    if type(name) is not str or not 0 < len(name) <= _MOST_SIGNS or not name.isprintable():
        raise InvalidSettingError(f"embedder: its name must have 1 to {_MOST_SIGNS} signs that can be printed")
    if type(dim) is not int or not 1 <= dim <= _MOST_NUMBERS:
        raise InvalidSettingError(f"embedder: its dim must be a whole number from 1 to {_MOST_NUMBERS:,}")
    return embedder


def named_embedder(name: str) -> Embedder:
    """Return the embedder of this name.

    Raises:
        InvalidSettingError: there is none, or what a package registered cannot be loaded or is none.
        UnsupportedError: a package that it needs is not installed.
    """
    with own_code(InvalidSettingError, f"embedder {name!r}"):
        return checked_embedder(load_embedder(name))


def installed_embedders() -> list[Embedder]:
    """Return the embedders that are installed, by their names in the order of the alphabet.

    One that cannot be loaded is logged.
    """
    several = []
    for name in known_embedders():
        try:
            several.append(named_embedder(name))
        except UnsupportedError:
            continue
        except InvalidSettingError as error:
            log.warning("an installed embedder is left out: %s", error)
    return several


def check_numpy() -> None:
    """Raise `UnsupportedError` if the package that compares vectors is not installed."""
    try:
        from numpy import bitwise_count  # noqa: F401  since version 2
    except ImportError:
        raise UnsupportedError(
            "vectors need the package numpy, from version 2 on: pip install 'jarvis-memory[vectors]'"
        ) from None


def vectors_of_texts(embedder: Embedder, texts: list[str]) -> npt.NDArray[np.float32]:
    """Return the vectors of texts; of one that the model refuses, while it takes others, one that is like no other.

    Raises:
        EmbedderError: the model fails at every text, or at several in a row.
    """
    import numpy as np

    def made(some: list[str]) -> npt.NDArray[np.float32]:
        return vectors_of(embedder, lambda: embedder.embed_documents(some), len(some))

    try:
        return made(texts)
    except EmbedderError:
        if len(texts) == 1:
            raise
    several, refused, in_a_row = [], 0, 0
    for place, text in enumerate(texts):
        try:
            several.append(made([text]))
            in_a_row = 0
        except EmbedderError:
            refused, in_a_row = refused + 1, in_a_row + 1
            if in_a_row == _MOST_REFUSED or (place + 1 == len(texts) == refused):
                raise
            several.append(np.array([[_LIKE_NONE, *[0.0] * (embedder.dim - 1)]], np.float32))
    if refused:
        log.warning("the embedder %r refused %d memories, which are found by their words", embedder.name, refused)
    return np.concatenate(several)


def vectors_of(embedder: Embedder, make: Callable[[], Any], count: int) -> npt.NDArray[np.float32]:
    """Return the vectors that an embedder makes, checked.

    Raises:
        EmbedderError: it raised, or returned something else.
    """
    import numpy as np

    try:
        vectors = np.array(make(), np.float64)  # a copy: it may return an array that is its own, or read-only
    except UnsupportedError:
        raise
    except Exception as error:  # somebody's model: anything may happen in it
        raise EmbedderError(embedder.name, f"raised {type(error).__name__}") from error
    if vectors.shape != (count, embedder.dim):
        raise EmbedderError(embedder.name, f"returned vectors of shape {vectors.shape}, not {(count, embedder.dim)}")
    if not np.isfinite(vectors).all():
        raise EmbedderError(embedder.name, "returned a vector with a number that is not finite")
    vectors[~vectors.any(axis=1), 0] = _LIKE_NONE
    greatest = np.abs(vectors).max(axis=1, keepdims=True)
    is_usual = (greatest > 1 / _USUAL_SIZE) & (greatest < _USUAL_SIZE)
    scaled: npt.NDArray[np.float32] = (vectors / np.where(is_usual, 1.0, greatest)).astype(np.float32)
    return scaled
