"""The progress and the result of rewriting a store into a new file while it is in use."""

from __future__ import annotations

from typing import NamedTuple


class RewriteProgress(NamedTuple):
    """The progress of rewriting a store.

    Attributes:
        stage: ``copy``, ``index``, ``catch up``, ``verify`` or ``swap``, in this order.
        done: the number of rows, indexes or noted changes of this stage that are done.
        total: the number of all that are known; writers may add some.
    """

    stage: str
    done: int
    total: int


class Rewritten(NamedTuple):
    """The result of rewriting a store. The rows of the new file were compared with those of the old one.

    Attributes:
        run: the name of the run.
        rows: the number of rows of each table when the new file took the store's place.
        digest: of all these rows, the same for equal rows in any order.
        rounds: how often changed rows were copied again.
        resumed: the number of rows that an interrupted earlier run had copied.
        locked_seconds: the longest time for which the writers' lock was held.
    """

    run: str
    rows: dict[str, int]
    digest: str
    rounds: int
    resumed: int
    locked_seconds: float
