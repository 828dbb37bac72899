"""Where the sessions of a store come from: what the shared statements ask of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from jarvis._sql.session import Session
from jarvis.errors import CorruptStoreError

Result = TypeVar("Result")


class Pool(Protocol):
    """Where the sessions of a store come from: each call is lent one.

    Attributes:
        path: names the store in messages.
    """

    path: str

    def read(self, work: Callable[[Session], Result]) -> Result:
        """Return what `work` returns when lent a session: the caller's own, inside a transaction of the caller."""

    def iterate(self, find: Callable[[Session], Iterator[Result]]) -> Iterator[Result]:
        """Yield what `find` yields when lent a session of its own; not for who is inside a transaction."""

    def in_transaction(self) -> Session | None:
        """Return the session on which the caller has a transaction open, or None."""

    def await_commit(self) -> None:
        """Return when the commit is over that is in flight now, if there is any, unless it is the caller's own."""

    def corrupt(self, finding: str) -> CorruptStoreError:
        """Return the error that says that the store is damaged, and the way out."""
