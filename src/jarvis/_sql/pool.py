"""Where the sessions of a store come from: what the shared statements ask of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar, TypeVarTuple

from jarvis._sql.session import Session
from jarvis.errors import CorruptStoreError

Result = TypeVar("Result")
Args = TypeVarTuple("Args")


class Pool(Protocol):
    """Where the sessions of a store come from: each call is lent one.

    Attributes:
        path: names the store in messages.
        read_only: nothing is written.
    """

    path: str
    read_only: bool

    def read(self, work: Callable[[Session, *Args], Result], *args: *Args) -> Result:
        """Return what `work` returns, given a session and `args`: the caller's own, inside a transaction of it."""

    def iterate(self, find: Callable[[Session], Iterator[Result]]) -> Iterator[Result]:
        """Yield what `find` yields when lent a session of its own; not for who is inside a transaction."""

    def in_transaction(self) -> Session | None:
        """Return the session on which the caller has a transaction open, or None."""

    def own_session(self) -> Session:
        """Return the session on which the caller has a transaction open; raise `TransactionError` if it has none."""

    def within(self, work: Callable[[Session], Result]) -> Result:
        """Return what `work` returns when lent the session of `own_session`; nobody who interrupts it writes."""

    def change(self, work: Callable[[Session, *Args], Result], *args: *Args) -> Result:
        """Return what `work` returns, given a session and `args`; what it changes is kept whole or not at all.

        Inside a transaction of the caller it is part of that, elsewhere it is kept for ever when this returns. `work`
        may be called twice, and in another thread.
        """

    def change_as_one(self, work: Callable[[], Result]) -> Result:
        """Return what `work` returns, as `change` does; the verbs that it calls take part in the change."""

    def transaction(self) -> AbstractContextManager[Session]:
        """Lend a session in a transaction, or a savepoint of the open one; other verbs of the caller take part."""

    def changing(self) -> AbstractContextManager[Session]:
        """Do as `transaction` does, for a block in which nobody else takes part."""

    def announce(self) -> None:
        """Say that the caller's transaction is about to end: what it is dated by is read after this."""

    def shutdown(self) -> None:
        """Close what is idle, and the rest when it is done."""

    def await_commit(self) -> None:
        """Return when the commit is over that is in flight now, if there is any, unless it is the caller's own."""

    def corrupt(self, finding: str) -> CorruptStoreError:
        """Return the error that says that the store is damaged, and the way out."""
