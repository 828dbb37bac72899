"""A search of every byte of files for ids, in every form in which they may be written there."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

import msgspec

from jarvis._disk import files

SEARCHED_BYTES = 16
"""The shortest id that is searched for, in bytes."""

_UUID = re.compile(rb"(?=([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}))")
_UUID_BYTES = 36
_MOST_OTHERS = 100  # ids that are no UUIDs: each needs a search of its own

UNREACHABLE = (
    "copies of the store that were made elsewhere: backups, snapshots of the file system, replicas",
    "blocks that the file system has freed and not yet overwritten",
)
"""Where data that was erased from files may still be: no erasure reaches it."""

CHUNK = 2**22
"""Bytes read at a time."""


class Search(NamedTuple):
    """A search of every byte of a store's files, and of the values that are compressed in them.

    Attributes:
        files: their paths.
        size: of all of them, in bytes.
        found: how often an erased id stands there, at least: other memories may mention it. The search does not look
            into ``bytes``, nor into JSON that stands as a text in JSON.
        unreachable: where erased data may still be: no erasure reaches it.
    """

    files: tuple[str, ...]
    size: int
    found: int
    unreachable: tuple[str, ...] = UNREACHABLE


def chunks_of(path: str) -> Iterator[bytes]:
    """Yield the bytes of a file in chunks; raise OSError if it cannot be read."""
    with open(files.open_regular(path, os.O_RDONLY, os.open), "rb") as file:
        while data := file.read(CHUNK):
            yield data


class Wanted:
    r"""Ids to search for, in every form in which they may be written.

    Args:
        ids: those shorter than `SEARCHED_BYTES` are left out: they may stand anywhere by chance.
        most_others: the most ids to search for that are no UUIDs.

    >>> wanted = Wanted(['the "first" of all'])
    >>> wanted.count(b'the "first" of all'), wanted.count(rb'{"see": "the \"first\" of all"}'), wanted.count(b"first")
    (1, 1, 0)
    """

    def __init__(self, ids: Collection[str], most_others: int = _MOST_OTHERS) -> None:
        written = {each: forms(each) for each in ids}
        long = [each for each in written.values() if each and len(each[-1]) >= SEARCHED_BYTES]
        self._uuids = {each[0] for each in long if len(each[0]) == _UUID_BYTES and _UUID.match(each[0])}
        self._others = sorted(each for each in long if each[0] not in self._uuids)[:most_others]
        longest = [len(each[0]) for each in self._others] + ([_UUID_BYTES] if self._uuids else [])
        self.overlap = max(longest, default=1) - 1
        """How many bytes of a chunk may be the beginning of an id that ends in the next one."""

    def __bool__(self) -> bool:
        return bool(self._uuids or self._others)

    def count(self, data: bytes, seen: int = 0) -> int:
        """Return how often one of the ids stands in `data` and ends after its first `seen` bytes."""
        total = 0
        if self._uuids:
            total += sum(each[1] in self._uuids and each.end(1) > seen for each in _UUID.finditer(data))
        for written in self._others:
            alone: list[tuple[bytes, int]] = []
            for form in written:  # one may be the end of a longer one, and is not counted twice
                count = data.count(form, max(seen - len(form) + 1, 0))
                alone.append((form, max(count - sum(times * longer.count(form) for longer, times in alone), 0)))
            total += sum(count for _, count in alone)
        return total


def search_files(
    paths: Iterable[str], ids: Collection[str] | Wanted, chunks: Callable[[str], Iterator[bytes]] = chunks_of
) -> Search:
    """Return how often ids stand in the bytes of files, in any of their `forms`.

    Files that are gone, not regular or not readable are left out.

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
    r"""Return the forms in which a text is written in files, the longest first; none if it is no UTF-8.

    These are the plain text and its JSON, as our codec writes it and as programs that escape all but ASCII do.

    >>> [form.decode() for form in forms('ż "x"')]
    ['\\u017c \\"x\\"', 'ż \\"x\\"', 'ż "x"']
    """
    try:
        plain = name.encode()
    except UnicodeEncodeError:
        return []
    written = {plain, msgspec.json.encode(name)[1:-1], json.dumps(name)[1:-1].encode()}
    return sorted({*written, json.dumps(name, ensure_ascii=False)[1:-1].encode()}, key=len, reverse=True)
