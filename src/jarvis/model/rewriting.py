"""What is told of a store that is written anew while it is in use: how far it is, and what was done."""

from __future__ import annotations

from typing import NamedTuple


class RewriteProgress(NamedTuple):
    """How far the rewriting of a store has come.

    Attributes:
        stage: ``copy``, ``index``, ``catch up``, ``verify`` or ``swap``, in this order.
        done: rows, indexes or noted changes of this stage that are done.
        total: how many there are, as far as is known; writers may add some.
    """

    stage: str
    done: int
    total: int


class Rewritten(NamedTuple):
    """What the rewriting of a store has done. The rows of the new file were compared with those of the old one.

    Attributes:
        run: what the run was called.
        rows: how many rows each table had when the new file took the store's place.
        digest: of all these rows, the same for equal rows in any order.
        rounds: how often changed rows were copied again.
        resumed: how many rows an earlier run had copied, that was broken off.
        locked_seconds: how long the writers' lock was held, at most.
    """

    run: str
    rows: dict[str, int]
    digest: str
    rounds: int
    resumed: int
    locked_seconds: float
