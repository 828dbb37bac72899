"""What a verification finds, and what a repair brings back and does not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from jarvis.model.portable import WholeMemory

NO_STORE = (
    "is no store of jarvis, or nothing of one is left in it; give the path of a store, or restore a backup. "
    "Nothing was written"
)
FIRST_LIFE = (
    "is a store of the first version of jarvis, which is not repaired: open it with MemoryModule, which migrates it, "
    "or restore a backup. Nothing was written"
)
"""What is wrong with a file out of which nothing can be taken."""


class LostMemory(NamedTuple):
    """A memory that is known by its id, but whose last state could not be read.

    Attributes:
        namespace: its namespace, ``"?"`` if that is not known either.
        id: its id.
    """

    namespace: str
    id: str


class Salvaged(NamedTuple):
    """What a damaged store still has.

    Attributes:
        total: about how many memories there are.
        memories: every memory with a sound state, those of a namespace in the order in which they were written.
        lost: the ids that are known, and whose last state is not; filled when all memories were taken.
    """

    total: int
    memories: Iterable[WholeMemory]
    lost: list[LostMemory]


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What a verification found.

    Attributes:
        states: how many states of memories were read, present and past.
        problems: what is wrong, each with the number of times; empty if the store is sound.
    """

    states: int
    problems: dict[str, int]


class RepairReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a repair brought back.

    Attributes:
        path: the directory of the new store.
        memories: how many it has, with those of which only a past is left.
        past_states: how many past states they have.
        lost: the memories whose last state is gone. Of some of them an earlier state may be in the history.
    """

    path: Path
    memories: int
    past_states: int
    lost: tuple[LostMemory, ...]
