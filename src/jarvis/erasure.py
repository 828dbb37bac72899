"""`ErasureReceipt`: what an erasure removed from where, what was verified, and what it cannot reach."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

import msgspec

UNREACHABLE = (
    "copies of the store that were made elsewhere: backups, snapshots of the file system, replicas",
    "blocks that the file system has freed and not yet overwritten",
)
"""What no erasure reaches."""


SEARCHED_BYTES = 16
"""Ids from this length on are searched for in files, at most `MOST_SEARCHED` of one erasure."""

MOST_SEARCHED = 10_000


class Erased(NamedTuple):
    """What a backend removed in a transaction.

    Attributes:
        ids: of which something was removed.
        removed: how many of what: ``entries``, ``past states``, ``tags``, ``changes`` (of the feed), ``names``, …
    """

    ids: tuple[str, ...]
    removed: dict[str, int]


class Search(NamedTuple):
    """A search of every byte of a store's files.

    Attributes:
        files: their paths.
        size: how many bytes that were.
        found: how often an id that was erased stands there: other memories may mention it.
    """

    files: tuple[str, ...]
    size: int
    found: int


class ErasureReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an erasure.

    Attributes:
        moment: when; aware UTC.
        memories: how many memories are gone: there, deleted, or expired before.
        removed: how many of what: ``entries``, ``past states``, ``tags``, ``changes`` of the feed, ``names``, …
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
