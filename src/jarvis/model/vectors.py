"""What makes vectors of texts, and what a store keeps of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32] | Sequence[Sequence[float]]


@runtime_checkable
class Embedder(Protocol):
    """Makes vectors of texts: texts that mean nearly the same get vectors with nearly the same direction.

    1. A vector has `dim` finite numbers. Its length does not matter.
    2. `name` identifies the vectors. A model that makes others must have another name.
    3. Methods are called from any thread, several at once. They may be slow, and they may raise.
    4. `name` and `dim` are read before the model is needed: load it at the first text.
    5. Each text can be encoded as UTF-8. Some are empty, and some have a million characters.
    6. If it raises for several texts, it is asked for each of them alone. A text that it refuses while it takes others
       gets a vector that is like no other: its memory is found by its words.

    A package offers one with an entry point of the group ``jarvis.embedders``: its value is a class, or a function,
    that takes no arguments and returns the embedder.
    """

    @property
    def name(self) -> str:
        """The name of the model, at most 100 signs."""

    @property
    def dim(self) -> int:
        """How many numbers a vector has, from 1 to 4,096."""

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of the texts of memories: shape ``(len(texts), dim)``, float32 or what becomes that."""

    def embed_query(self, text: str) -> Sequence[float] | npt.NDArray[np.float32]:
        """Return the vector of a question: shape ``(dim,)``."""


class StoredVector(NamedTuple):
    """The vector of one state of a memory.

    Attributes:
        change: the commit number of the state: the second number of `MemoryEntry.position`.
        signs: a bit for each number, the first one in the highest bit; 1 for a number from 0 up.
        codes: a float32, a signed byte for each number, and the CRC-32 of all this, both little-endian: the numbers are
            the bytes times the float.
    """

    change: int
    signs: bytes
    codes: bytes


class VectorMark(NamedTuple):
    """A place in the order in which vectors were stored.

    Attributes:
        generation: of the store; marks of another one mean nothing.
        number: of the last vector before the place.
    """

    generation: int = 0
    number: int = 0
