"""`Driver`: what the shared statements need of a connection to a database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from jarvis._sql.dialect import Dialect
from jarvis.errors import CorruptStoreError

if TYPE_CHECKING:
    from jarvis._sql.word_index import WordIndex

Bindings = Sequence[Any] | dict[str, Any]


class Driver(Protocol):
    """A connection to one store, used by one thread at a time.

    1. `rows` and `each` run statements whose answer is needed. `run` runs those that only change something: a driver
       may send them along with the next statement, if it raises each error before `commit` returns.
    2. Where the database fails, each method raises a `StoreError` that names the store.
    3. After a failure that ends the transaction, and after `tear`, every statement raises `TransactionError` until
       `roll_back`, or until `back_to` a savepoint that still exists.

    Attributes:
        path: names the store in messages.
        dialect: the words of the database.
        words: the index of words of the database.
    """

    path: str
    dialect: Dialect
    words: WordIndex

    def rows(self, sql: str, bindings: Bindings = ()) -> list[Any]:
        """Run one statement and return all its rows."""

    def each(self, sql: str, bindings: Bindings = ()) -> Iterator[Any]:
        """Run one statement and yield its rows as they are found."""

    def index_of(self, sql: str, bindings: Bindings = ()) -> str:
        """Return the name of the index that leads in the database's plan of a statement; ``"none"`` if none does."""

    def looks(self) -> int:
        """Return how often statements have called the function ``looked_at``; the first call makes it known.

        It takes a number and returns 1.
        """

    def run(self, sql: str, bindings: Bindings = ()) -> None:
        """Run one statement that changes something and has no answer."""

    def many(self, sql: str, several: Sequence[Bindings]) -> None:
        """Run one statement that changes something once for each of these bindings."""

    def put(self, sql: str, bindings: Bindings) -> bool:
        """Insert a row; False, and nothing done, if a unique index already has such a row."""

    def put_all(self, sql: str, several: Sequence[Bindings]) -> bool:
        """Insert several rows inside a transaction; False, and nothing done, if a unique index already has one."""

    def changed(self) -> int:
        """Return how many rows the last statement changed."""

    # --- transactions ----------------------------------------------------------------------------

    def is_open(self) -> bool:
        """Ask the database whether a transaction is open."""

    def begin(self) -> bool:
        """Begin a transaction in which nobody else writes; return whether nobody else wrote since the last one."""

    def commit(self) -> None:
        """Commit the transaction: when this returns, its changes are durable and visible to everybody."""

    def roll_back(self) -> None:
        """Roll back the open transaction, if there is one. Raise nothing: a connection that fails is not used again."""

    def save(self, level: int) -> None:
        """Set a savepoint inside the transaction; savepoints are numbered 1, 2, … from the outermost one."""

    def release(self, level: int) -> None:
        """Release the savepoint with this number: its changes become part of the transaction around it."""

    def back_to(self, level: int) -> None:
        """Roll back the changes since the savepoint with this number, and remove the savepoint."""

    def tear(self) -> None:
        """Refuse to commit the transaction or savepoint in which a change was interrupted half-way."""

    def stand_still(self) -> None:
        """Let all reads from here on see one state of the store, until `go_on`."""

    def go_on(self) -> None:
        """Let reads see the newest state again."""

    # --- the store -------------------------------------------------------------------------------

    def keeps_past(self) -> bool:
        """Tell whether the store has tables of the past; an older store that is opened read-only may have none."""

    def corrupt(self, finding: str) -> CorruptStoreError:
        """Return the error that says that the store is damaged, and what to do."""
