"""A search of every byte of files for texts, in all the forms in which they may be written there."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

import msgspec

from jarvis._disk import files

SEARCHED_BYTES = 16
"""Ids from this length on are searched for."""

_UUID = re.compile(rb"(?=([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}))")
_UUID_BYTES = 36
_MOST_OTHERS = 100  # ids that are no UUIDs: each of them is a search of its own

CHUNK = 2**22
"""So many bytes of a file are read at a time."""


class Search(NamedTuple):
    """A search of every byte of a store's files, and of the values that are compressed in them.

    Attributes:
        files: their paths.
        size: how many bytes that were.
        found: how often an id that was erased stands there, at least: other memories may mention it. In ``bytes``, and
            where JSON stands as a text in JSON, it is not looked for.
    """

    files: tuple[str, ...]
    size: int
    found: int


def chunks_of(path: str) -> Iterator[bytes]:
    """Yield the bytes of a file, some at a time.

    Raises:
        OSError: it cannot be read.
    """
    with open(files.open_regular(path, os.O_RDONLY, os.open), "rb") as file:
        while data := file.read(CHUNK):
            yield data


class Wanted:
    r"""Ids that are searched for in bytes, in every form in which they may be written there.

    Args:
        ids: those shorter than `SEARCHED_BYTES` are left out, for they may stand anywhere.
        most_others: of those that are no UUIDs the first ones are searched for, so many.

    >>> wanted = Wanted(['the "first" of all'])
    >>> wanted.count(b'the "first" of all'), wanted.count(rb'{"see": "the \"first\" of all"}'), wanted.count(b"first")
    (1, 1, 0)
    """

    def __init__(self, ids: Collection[str], most_others: int = _MOST_OTHERS) -> None:
        written = {each: forms(each) for each in ids}
        long = [found for found in written.values() if found and len(found[-1]) >= SEARCHED_BYTES]
        self._uuids = {found[0] for found in long if len(found[0]) == _UUID_BYTES and _UUID.match(found[0])}
        self._others = sorted(found for found in long if found[0] not in self._uuids)[:most_others]
        longest = [len(found[0]) for found in self._others] + ([_UUID_BYTES] if self._uuids else [])
        self.overlap = max(longest, default=1) - 1
        """How many bytes before some others may belong to an id that ends in those."""

    def __bool__(self) -> bool:
        return bool(self._uuids or self._others)

    def count(self, data: bytes, seen: int = 0) -> int:
        """Return how often one of the ids stands in `data` and ends behind its first `seen` bytes."""
        found = 0
        if self._uuids:
            found += sum(each[1] in self._uuids and each.end(1) > seen for each in _UUID.finditer(data))
        for written in self._others:
            alone: list[tuple[bytes, int]] = []
            for form in written:  # one may be the end of a longer one, and is not counted twice
                count = data.count(form, max(seen - len(form) + 1, 0))
                alone.append((form, max(count - sum(held * longer.count(form) for longer, held in alone), 0)))
            found += sum(count for _, count in alone)
        return found


def search_files(
    paths: Iterable[str], ids: Collection[str] | Wanted, chunks: Callable[[str], Iterator[bytes]] = chunks_of
) -> Search:
    """Return how often ids stand in the bytes of files, in any of their `forms`.

    What is no regular file (any more), or may not be read, is left out.

    Args:
        paths: of the files.
        ids: what to look for.
        chunks: reads a file, where that takes more than `chunks_of`.

    Raises:
        OSError: a file cannot be read.
    """
    wanted = ids if isinstance(ids, Wanted) else Wanted(ids)
    files: list[str] = []
    size = found = 0
    if not wanted:
        return Search((), 0, 0)
    for path in paths:
        if not os.path.isfile(path) or os.path.islink(path):
            continue
        try:
            tail = b""
            for data in chunks(path):
                size += len(data)
                whole = tail + data
                found += wanted.count(whole, len(tail))
                tail = whole[-wanted.overlap :] if wanted.overlap else b""
        except (FileNotFoundError, PermissionError):
            continue
        files.append(path)
    return Search(tuple(files), size, found)


def forms(name: str) -> list[bytes]:
    r"""Return the ways in which a text is written in files, the longest first; none if it is no UTF-8.

    That is as it is, and in JSON: as our codec writes it, and as others do, which escape all that is not ASCII.

    >>> [form.decode() for form in forms('ż "x"')]
    ['\\u017c \\"x\\"', 'ż \\"x\\"', 'ż "x"']
    """
    try:
        plain = name.encode()
    except UnicodeEncodeError:
        return []
    written = {plain, msgspec.json.encode(name)[1:-1], json.dumps(name)[1:-1].encode()}
    return sorted({*written, json.dumps(name, ensure_ascii=False)[1:-1].encode()}, key=len, reverse=True)
