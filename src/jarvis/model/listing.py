"""`Listing`, a question about the names that memories use, such as their categories."""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterable
from typing import Literal, Protocol

import msgspec

from jarvis.errors import InvalidQueryError
from jarvis.model.entry import MOST_VERSIONS
from jarvis.model.query import MemoryQuery, asked_name

Field = Literal["id", "category", "key", "entity_type", "entity_id", "tag"]


class Named(Protocol):
    """The part of an entry that has names."""

    @property
    def tags(self) -> Collection[str]:
        """Its tags."""


class Names(list[str]):
    """The names that a listing found. `counts` says how many memories have each, if that was asked."""

    _counts: dict[str, int] | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many memories have each name.

        Raises:
            InvalidQueryError: it was not asked.
        """
        if self._counts is None:
            raise InvalidQueryError("counts: ask with counts=True")
        return self._counts


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a list of names, which is in the order of code points.

    Attributes:
        prefix: only names that begin so.
        limit: at most so many, the first ones.
        after: only names after this one.

    Raises:
        InvalidQueryError: at construction, when an argument means nothing.
    """

    prefix: str | None = None
    limit: int | None = None
    after: str | None = None

    def __post_init__(self) -> None:
        for name in ("prefix", "after"):
            text = getattr(self, name)
            if text is not None:
                msgspec.structs.force_setattr(self, name, asked_name(name, text))
        if self.limit is not None and (type(self.limit) is not int or not 0 <= self.limit < MOST_VERSIONS):
            raise InvalidQueryError("limit: takes a whole number from 0 up, or None for all")

    def of(self, counts: dict[str, int]) -> dict[str, int]:
        """Return the part of all names, with their counts, that is asked for."""
        names = sorted(counts)
        if self.after is not None:
            names = names[bisect.bisect_right(names, self.after) :]
        if self.prefix is not None:
            names = [name for name in names if name.startswith(self.prefix)]
        return {name: counts[name] for name in names[: self.limit]}


class Listing(Page, frozen=True, kw_only=True):
    """A question as a value. `collected` is its meaning; a backend may be faster, never different.

    Attributes:
        field: whose names are listed.
        category, entity_type: only those of memories of this category or entity type.
        counts: how many memories have each name is asked, too; else the counts in the answer mean nothing.
        exclude_tags: memories with one of these tags are as if they were not there.
    """

    field: Field
    category: str | None = None
    entity_type: str | None = None
    counts: bool = False
    exclude_tags: Collection[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("category", "entity_type"):
            text = getattr(self, name)
            if text is not None:
                msgspec.structs.force_setattr(self, name, asked_name(name, text))

    @property
    def query(self) -> MemoryQuery:
        """The question about the memories whose names are listed."""
        return MemoryQuery(category=self.category, entity_type=self.entity_type, exclude_tags=self.exclude_tags)

    def collected(self, entries: Iterable[Named]) -> dict[str, int]:
        """Return the names of entries that match `query`, in the order of code points, with their counts."""
        counts: dict[str, int] = {}
        for entry in entries:
            for name in set(entry.tags) if self.field == "tag" else (getattr(entry, self.field),):
                if name is not None:
                    counts[name] = counts.get(name, 0) + 1
        return self.of(counts)

    def names(self, counts: dict[str, int]) -> Names:
        """Return the names of an answer, with their counts if these are asked."""
        names = Names(counts)
        if self.counts:
            names._counts = counts
        return names
