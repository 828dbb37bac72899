"""`ErasureReceipt`: what an erasure removed from where, what was verified, and what it cannot reach."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
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
        removed: how many of what: ``entries``, ``past states``, ``tags``, ``gaps`` (notes of what was pruned),
            ``changes`` (of the feed).
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
        removed: how many of what: ``entries``, ``past states``, ``tags``, ``gaps`` (notes of what was pruned),
            ``changes`` (of the feed).
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


_UUID = re.compile(rb"(?=([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}))")
_UUID_BYTES = 36
_MOST_OTHERS = 100  # ids that are no UUIDs: each of them is a search of its own

CHUNK = 2**22
"""So many bytes of a file are read at a time."""


def chunks_of(path: str) -> Iterator[bytes]:
    """Yield the bytes of a file, some at a time.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        while data := file.read(CHUNK):
            yield data


def search(paths: Iterable[str], ids: Collection[str], chunks: Callable[[str], Iterator[bytes]] = chunks_of) -> Search:
    """Return how often the ids stand in the bytes of files, as UTF-8 or escaped as in JSON; see `SEARCHED_BYTES`.

    What is no regular file (any more), or may not be read, is left out. Of ids that are no UUIDs the first hundred
    are searched for.

    Args:
        paths: of the files.
        ids: what to look for.
        chunks: reads a file, where that takes more than `chunks_of`.

    Raises:
        OSError: a file cannot be read.
    """
    wanted = {form for each in ids for form in _forms(each) if len(form) >= SEARCHED_BYTES}
    uuids = {form for form in wanted if len(form) == _UUID_BYTES and _UUID.match(form)}
    others = sorted(wanted - uuids)[:_MOST_OTHERS]
    overlap = max(map(len, wanted), default=1) - 1
    files: list[str] = []
    size = found = 0
    if not wanted:
        return Search((), 0, 0)
    for path in paths:
        if not os.path.isfile(path):
            continue
        try:
            tail = b""
            for data in chunks(path):
                size += len(data)
                whole = tail + data
                if uuids:  # one that ends in the tail was counted before
                    found += sum(each[1] in uuids and each.end(1) > len(tail) for each in _UUID.finditer(whole))
                found += sum(whole.count(other, max(len(tail) - len(other) + 1, 0)) for other in others)
                tail = whole[-overlap:] if overlap else b""
        except (FileNotFoundError, PermissionError):
            continue
        files.append(path)
    return Search(tuple(files), size, found)


def _forms(name: str) -> set[bytes]:
    return {name.encode(), json.dumps(name)[1:-1].encode()}
