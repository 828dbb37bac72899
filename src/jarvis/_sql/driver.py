"""The seam between the statements of SQL backends and a database: what a connection must do for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from jarvis._sql.dialect import Dialect
from jarvis.errors import CorruptStoreError

Bindings = Sequence[Any] | dict[str, Any]


class Driver(Protocol):
    """A connection to one store, used by one thread at a time.

    1. `rows` and `each` are for statements whose answer is needed, `run` for those that only change something: they
       may be sent along with the next one, as long as each error comes before `commit` returns.
    2. Each method raises a `StoreError` that names the store where the database fails.
    3. A failure that ends the transaction, and `tear`, make every statement `TransactionError` until `roll_back`, or
       until `back_to` a savepoint that still stands.

    Attributes:
        path: names the store in messages.
        dialect: the words of the database.
    """

    path: str
    dialect: Dialect

    def rows(self, sql: str, bindings: Bindings = ()) -> list[Any]:
        """Run one statement and return all its rows."""

    def each(self, sql: str, bindings: Bindings = ()) -> Iterator[Any]:
        """Run one statement and yield its rows as they are found."""

    def run(self, sql: str, bindings: Bindings = ()) -> None:
        """Run one statement that changes something and has no answer."""

    def put(self, sql: str, bindings: Bindings) -> bool:
        """Run one statement that inserts a row; False if a unique one of the same kind is there: nothing was done."""

    def changed(self) -> int:
        """Return how many rows the last statement changed."""

    # --- transactions ----------------------------------------------------------------------------

    def is_open(self) -> bool:
        """Tell whether a transaction is open: the database says so, not what was asked of it."""

    def begin(self) -> bool:
        """Open a transaction in which nobody else writes; return whether nobody else wrote since the last one."""

    def commit(self) -> None:
        """End the transaction: what it changed is there for everybody, and for ever, when this returns."""

    def roll_back(self) -> None:
        """Take the open transaction back, if there is one. It raises nothing: who cannot do it is used no more."""

    def save(self, level: int) -> None:
        """Set a savepoint inside the transaction; savepoints have the numbers 1, 2, … from the outermost on."""

    def release(self, level: int) -> None:
        """Keep what was changed since the savepoint with this number, as a part of what is around it."""

    def back_to(self, level: int) -> None:
        """Take back what was changed since the savepoint with this number, and the savepoint with it."""

    def tear(self) -> None:
        """Refuse to keep the transaction, or the savepoint, that half a change was made in."""

    def stand_still(self) -> None:
        """Let the reads from here on see one state of the store, until `go_on`."""

    def go_on(self) -> None:
        """Let the reads from here on see what is there."""

    # --- the store -------------------------------------------------------------------------------

    def keeps_past(self) -> bool:
        """Tell whether the store has tables of the past; one of an earlier version that is only read may have none."""

    def corrupt(self, finding: str) -> CorruptStoreError:
        """Return the error that says that the store is damaged, and the way out."""
