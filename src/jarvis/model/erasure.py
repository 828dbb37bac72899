"""`ErasureReceipt`: what an erasure removed from where, what was verified, and what it cannot reach."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

import msgspec

from jarvis._disk.search import Search

__all__ = ["MOST_SEARCHED", "UNREACHABLE", "Erased", "ErasureReceipt", "Search"]

UNREACHABLE = (
    "copies of the store that were made elsewhere: backups, snapshots of the file system, replicas",
    "blocks that the file system has freed and not yet overwritten",
)
"""What no erasure reaches."""


MOST_SEARCHED = 10_000
"""So many ids of one erasure are searched for in files."""


class Erased(NamedTuple):
    """What a backend removed in a transaction.

    Attributes:
        ids: of which something was removed.
        removed: how many of what: ``entries``, ``past states``, ``tags``, ``gaps`` (notes of what was pruned),
            ``changes`` (of the feed, that neither an entry nor a past state told of).
    """

    ids: tuple[str, ...]
    removed: dict[str, int]


class ErasureReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an erasure.

    Attributes:
        moment: when; aware UTC.
        memories: how many memories are gone: there, deleted, or expired before.
        removed: how many of what: ``entries``, ``past states``, ``tags``, ``gaps`` (notes of what was pruned),
            ``changes`` (of the feed, that neither an entry nor a past state told of).
        state: ``done``, or ``pending``: what was removed is out of reach of every call, and its bytes go with the
            next write or opening after the last reader of an older state has ended, or the transaction has.
        searched: the search of all files for the ids of what was erased, if that is done: it found ``found``.
        unreachable: where it may still be, which no program of ours can reach.
    """

    moment: datetime
    memories: int
    removed: dict[str, int]
    state: Literal["done", "pending"]
    searched: Search | None = None
    unreachable: tuple[str, ...] = UNREACHABLE
