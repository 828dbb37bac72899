"""How a service makes a change: through `MemoryModule`, and signed by an author."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple, Protocol, TypeVar

from jarvis.capabilities import KeepsHistory, Settles, SharesCommits, Transactional
from jarvis.model.author import Author
from jarvis.model.revision import Operation
from jarvis.storage_backend import StorageBackend

Result = TypeVar("Result")
Ability = TypeVar("Ability")


class Changes(Protocol):
    """A function that makes a change: `MemoryModule._change`, or `MemoryModule._change_apart`."""

    def __call__(self, work: Callable[[datetime], Result], /) -> Result:
        """Call `work` with the moment of the change and return its result; all its changes are kept, or none."""


class Abilities(NamedTuple):
    """What a backend has of the capabilities that a change takes: itself, or None where it has not that one."""

    backend: StorageBackend
    transactional: Transactional | None
    sharing: SharesCommits | None
    settling: Settles | None
    history: KeepsHistory | None


def abilities_of(backend: StorageBackend) -> Abilities:
    """Return what a backend has of them, to be asked for once instead of in each change."""

    def ability(protocol: type[Ability]) -> Ability | None:
        return backend.capability(protocol) if backend.has_capability(protocol) else None

    return Abilities(backend, ability(Transactional), ability(SharesCommits), ability(Settles), ability(KeepsHistory))


def sign(backend: StorageBackend, author: Author, operation: Operation) -> None:
    """Sign the next changes of the open transaction as `author`; no-op without history."""
    if backend.has_capability(KeepsHistory):
        backend.capability(KeepsHistory).sign(author.signature(operation))
