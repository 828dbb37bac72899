"""`ErasureReceipt`: what an erasure removed, what a search of the files found, and what it cannot reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Literal, NamedTuple

import msgspec

from jarvis._disk.traces import UNREACHABLE, Search, Wanted
from jarvis.model.entry import MemoryEntry

__all__ = ["MOST_SEARCHED", "UNREACHABLE", "Erased", "ErasureReceipt", "Judge", "Look", "Search", "Wanted"]

Judge = Callable[[MemoryEntry], bool]
"""Decides of a state whether it is to be erased with its memory; see `jarvis.capabilities.Erases`."""

Look = Callable[[Iterator[MemoryEntry]], int]
"""Looks through all states of a namespace, and returns how often it found something."""

MOST_SEARCHED = 10_000
"""The most ids of one erasure that are searched for in files."""


class Erased(NamedTuple):
    """What a backend removed in a transaction.

    Attributes:
        ids: of the memories of which something was removed.
        removed: how many ``entries``, ``past states``, ``tags``, ``gaps`` (notes of what was pruned),
            ``changes`` (of the feed, that neither an entry nor a past state told of).
    """

    ids: tuple[str, ...]
    removed: dict[str, int]


class ErasureReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an erasure.

    Attributes:
        moment: when; aware UTC.
        memories: the number of memories that are gone, also those that were deleted or had expired before.
        removed: how many ``entries``, ``past states``, ``tags``, ``gaps`` (notes of what was pruned),
            ``changes`` (of the feed, that neither an entry nor a past state told of).
        state: ``done``, or ``pending``: no call returns what was removed, but its bytes stay until the next write or
            opening after the last reader of an older state, or the transaction, has ended.
        searched: the search of all files for the erased ids, once that is done; ``found`` counts what it found.
        unreachable: where erased data may still be, out of reach of jarvis.
    """

    moment: datetime
    memories: int
    removed: dict[str, int]
    state: Literal["done", "pending"]
    searched: Search | None = None
    unreachable: tuple[str, ...] = UNREACHABLE
