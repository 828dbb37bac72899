"""How a service makes a change: through `MemoryModule`, and signed by an author."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol, TypeVar

from jarvis.capabilities import KeepsHistory
from jarvis.model.author import Author
from jarvis.model.revision import Operation
from jarvis.storage_backend import StorageBackend

Result = TypeVar("Result")


class Changes(Protocol):
    """A function that makes a change: `MemoryModule._change`, or `MemoryModule._change_apart`."""

    def __call__(self, work: Callable[[datetime], Result], /) -> Result:
        """Call `work` with the moment of the change and return its result; all its changes are kept, or none."""


def sign(backend: StorageBackend, author: Author, operation: Operation) -> None:
    """Sign the next changes of the open transaction as `author`; no-op without history."""
    if backend.has_capability(KeepsHistory):
        backend.capability(KeepsHistory).sign(author.signature(operation))
