"""What a service asks for to make a change: how `MemoryModule` makes one, and who signs it."""

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
    """What makes a change: `MemoryModule._change`, or `MemoryModule._change_apart`."""

    def __call__(self, work: Callable[[datetime], Result], /) -> Result:
        """Return what `work` returns, given its moment; all that it changes is kept, or nothing."""


def sign(backend: StorageBackend, author: Author, operation: Operation) -> None:
    """Make `author` the one who makes the next changes of the open transaction; no-op without history."""
    if backend.has_capability(KeepsHistory):
        backend.capability(KeepsHistory).sign(author.signature(operation))
