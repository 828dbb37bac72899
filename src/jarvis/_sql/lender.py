"""`Lender`: what SQL backends need of the object that lends sessions of a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar, TypeVarTuple

from jarvis._sql.session import Session
from jarvis.errors import CorruptStoreError

Result = TypeVar("Result")
Args = TypeVarTuple("Args")


class Lender(Protocol):
    """Lends each call a session of the store.

    Attributes:
        path: names the store in messages.
        read_only: the store is never written.
    """

    path: str
    read_only: bool

    def read(self, work: Callable[[Session, *Args], Result], *args: *Args) -> Result:
        """Run `work` with a session and `args`, inside a transaction with the caller's own; return its result."""

    def iterate(self, find: Callable[[Session], Iterator[Result]]) -> Iterator[Result]:
        """Yield what `find` yields on a session of its own; not for callers inside a transaction."""

    def in_transaction(self) -> Session | None:
        """Return the session on which the caller has a transaction open, or None."""

    def own_session(self) -> Session:
        """Return the session on which the caller has a transaction open; raise `TransactionError` if it has none."""

    def within(self, work: Callable[[Session], Result]) -> Result:
        """Run `work` with the session of `own_session`, and let no interrupting call write; return its result."""

    def change(self, work: Callable[[Session, *Args], Result], *args: *Args) -> Result:
        """Run `work` with a session and `args`, and keep its changes whole or not at all; return its result.

        Inside a transaction of the caller the changes are part of that; elsewhere they are durable when this returns.
        `work` may be called twice, and in another thread.
        """

    def change_at_once(self, work: Callable[[Session], Result]) -> Result:
        """Run `work` in a transaction of its own that is not synced; inside one of the caller's as a part of that.

        Raises:
            StoreBusyError: another writer is writing; it was not waited for.
        """

    def change_as_one(self, work: Callable[[], Result]) -> Result:
        """Run `work` as `change` does; the verbs that it calls take part in the change."""

    def transaction(self) -> AbstractContextManager[Session]:
        """Lend a session in a transaction, or a savepoint of the open one; other verbs of the caller take part."""

    def changing(self) -> AbstractContextManager[Session]:
        """Lend a session as `transaction` does, but let no other verb take part."""

    def announce(self) -> None:
        """Say that the caller's transaction is about to end: its date is read after this."""

    def shutdown(self) -> None:
        """Close idle sessions now, and the others when they are returned."""

    def await_commit(self) -> None:
        """Wait for the commit that is in progress now, if there is one and it is not the caller's own."""

    def corrupt(self, finding: str) -> CorruptStoreError:
        """Return the error that says that the store is damaged, and what to do."""
