"""`Tally`: what is counted of the memories of one namespace, on any backend, one memory after another.

Each memory takes 32 bytes here while they are counted: the instant of its creation, which the median needs, and the
digest and the size of its value with a reference to it, by which equal values are found.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from jarvis.codec.compression import decompress
from jarvis.model.analytics import SameValue
from jarvis.model.entry import NO_MODULE
from jarvis.model.portable import raw_body
from jarvis.model.record import decode_body, encode_body, is_named, is_renewed, make_entry
from jarvis.model.revision import REMOVALS

A_DAY = 86_400_000_000
"""Microseconds."""

DAYS = 30
"""How many days of changes are told one by one."""

HOUR = 3_600
BOUNDS = (HOUR, 24 * HOUR, 7 * 24 * HOUR, 30 * 24 * HOUR, 365 * 24 * HOUR)
"""The bounds of each histogram of times, in seconds."""

IDS = 5
"""Of how many memories of a group the ids are told."""

_BOUNDS = [bound * 1_000_000 for bound in BOUNDS]
_first = struct.Struct(">q").unpack_from
_RENEWAL, _BYTES_OF_MARK, _BYTES_OF_NULL = "renew", 2, 4

Named = tuple[str, str, str]
"""Id, category and key of a memory."""


class Measured(NamedTuple):
    """What is counted of a stored state.

    Attributes:
        size: its encoded bytes, see `jarvis.model.analytics`.
        tags: its tags.
        module: which module created it.
        value_size: the bytes of the JSON of its value.
        digest: the first 8 bytes of the SHA-256 digest of that, as a number with a sign.
        is_renewed: a renewal stored it, so it tells of no creation.
    """

    size: int
    tags: list[str]
    module: str
    value_size: int
    digest: int
    is_renewed: bool


def measured(body: str, packed: bytes | None) -> Measured:
    """Return what is counted of a state, given its body and its compressed value as they are stored.

    Raises:
        ValueError: it is malformed.
    """
    if is_named(body):  # of a store of version 1
        body = encode_body(make_entry("1", "-", "-", "-", None, 1, None, decode_body(body)))[0].decode()
    raw = raw_body(body)
    value, author = bytes(raw.value) if packed is None else decompress(packed), raw.provenance
    if not value.startswith(b"{"):
        raise ValueError("it has no value")
    size, renewed = len(body) if body.isascii() else len(body.encode()), is_renewed(body)
    if packed is not None:
        size += len(value) - _BYTES_OF_NULL
    if renewed:
        size -= _BYTES_OF_MARK
    module = author[0] if type(author) is tuple else author.get("module", NO_MODULE)  # type: ignore[union-attr]  # a dict
    (digest,) = _first(hashlib.sha256(value).digest())
    return tuple.__new__(Measured, (size, raw.tags, module, len(value), digest, renewed))  # without a call


class Greatest:
    """Keeps the memories with the greatest numbers; of equal ones, those with the first ids.

    Attributes:
        floor: a memory with a smaller number would not be kept.
    """

    def __init__(self, most: int) -> None:
        self._most, self.floor = most, 0
        self._kept: list[tuple[int, Named]] = []

    def add(self, number: int, memory: Named) -> None:
        """Keep a memory if its number is among the greatest."""
        if number >= self.floor:
            self._kept.append((-number, memory))
            if len(self._kept) > 4 * self._most + 16:
                self._cut()

    def _cut(self) -> None:
        self._kept = sorted(self._kept)[: self._most]
        self.floor = -self._kept[-1][0] if len(self._kept) == self._most else 0

    def found(self) -> list[tuple[int, Named]]:
        """Return the numbers and their memories, the greatest first."""
        return [(-number, memory) for number, memory in sorted(self._kept)[: self._most]]


class Tally:
    """The figures of one namespace, which `jarvis.services.analytics` sums up to a report.

    Args:
        now: the instant from which expiry is counted.
        most: how many memories and groups are told.

    Attributes:
        named: by category, entity type and module: [memories, encoded bytes].
        tags: by tag: likewise.
        created: the instants of creation.
        expired, never: how many memories have expired, and how many never do.
        expiring: how many expire below each of `BOUNDS`, and later.
        changes: how many changes there were, by kind and by day since 1970; None for a day that is not told. The whole
            is None if there is no feed.
        past_states, past_bytes: how many past states there are, and their encoded bytes; None if no past is kept.
        repeats: (groups, memories, bytes of values that would not be there if each were stored once).
        groups: memories with equal values.
    """

    def __init__(self, namespace: str, now: int, most: int) -> None:
        self.namespace, self._now, self._most = namespace, now, most
        self.memories = self.bytes = self.expired = self.never = 0
        self.named: dict[tuple[str, str, str], list[int]] = {}
        self.tags: dict[str, list[int]] = {}
        self.created = array("q")
        self.expiring = [0] * (len(BOUNDS) + 1)
        self.changes: Counter[tuple[str, int | None]] | None = None
        self.past_states: int | None = None
        self.past_bytes: int | None = None
        self.largest, self.most_changed = Greatest(most), Greatest(most)
        self.repeats = (0, 0, 0)
        self.groups: list[tuple[int, SameValue]] = []
        self._today = now // A_DAY
        self._digests, self._sizes, self._references = array("q"), array("q"), array("q")

    def add(
        self,
        reference: int,
        memory: Named,
        entity_type: str,
        version: int,
        created: int,
        expires: int | None,
        state: Measured,
    ) -> None:
        """Count a present state. `reference`: by which `finish` asks for the id."""
        if expires is None:
            self.never += 1
        elif expires <= self._now:
            self.expired += 1
            return
        else:
            self.expiring[bisect_right(_BOUNDS, expires - self._now)] += 1
        size, tags, module, value_size, digest, _ = state
        self.memories += 1
        self.bytes += size
        _count(self.named, (memory[1], entity_type, module), size)
        if tags:
            counts = self.tags
            for tag in tags if len(tags) == 1 else dict.fromkeys(tags):
                if (both := counts.get(tag)) is None:
                    counts[tag] = [1, size]
                else:
                    both[0] += 1
                    both[1] += size
        self.created.append(created)
        if size >= self.largest.floor:
            self.largest.add(size, memory)
        if version > 1:
            self.most_changed.add(version, memory)
        self._digests.append(digest)
        self._sizes.append(value_size)
        self._references.append(reference)

    def by(self, place: int) -> dict[str, list[int]]:
        """Return [memories, encoded bytes] by the category, the entity type or the module: 0, 1 or 2."""
        counts: dict[str, list[int]] = {}
        for names, (memories, size) in self.named.items():
            both = counts.setdefault(names[place], [0, 0])
            both[0] += memories
            both[1] += size
        return counts

    def keep(self, *, past: bool, feed: bool) -> None:
        """Begin to count past states, and changes; without this there are none to be counted."""
        if past:
            self.past_states = self.past_bytes = 0
        if feed:
            self.changes = Counter()

    def add_past(self, size: int) -> None:
        """Count a past state with its encoded bytes."""
        if self.past_states is not None and self.past_bytes is not None:
            self.past_states += 1
            self.past_bytes += size

    def add_change(self, operation: str, made: int, count: int = 1) -> None:
        """Count changes of the feed; a renewal is none."""
        if operation == _RENEWAL or self.changes is None:
            return
        if operation in ("create", "restore"):
            kind = "created"
        else:
            kind = "removed" if operation in REMOVALS or operation == "erase" else "updated"
        day = made // A_DAY
        self.changes[kind, day if self._today - DAYS < day <= self._today else None] += count

    def finish(self, ids_of: Callable[[Sequence[int]], list[str]]) -> None:
        """Find the memories with equal values, when all are counted; `ids_of` returns the ids of some, in any order."""
        several = {digest for digest, following in pairwise(sorted(self._digests)) if digest == following}
        found: dict[int, tuple[int, list[int]]] = {}
        for digest, size, reference in zip(self._digests, self._sizes, self._references, strict=True):
            if digest in several:
                found.setdefault(digest, (size, []))[1].append(reference)
        ordered = sorted(found.items(), key=lambda each: (-len(each[1][1]), -each[1][0], each[0]))
        for digest, (size, members) in ordered[: self._most]:
            self.groups.append((digest, SameValue(self.namespace, len(members), size, sorted(ids_of(members))[:IDS])))
        spare = sum(size * (len(members) - 1) for size, members in found.values())
        self.repeats = (len(found), sum(len(members) for _, members in found.values()), spare)
        self._digests, self._sizes, self._references = array("q"), array("q"), array("q")


def _count(counts: dict[tuple[str, str, str], list[int]], name: tuple[str, str, str], size: int) -> None:
    if (both := counts.get(name)) is None:
        counts[name] = [1, size]
    else:
        both[0] += 1
        both[1] += size
