"""`Explanation`: how a question was answered."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from jarvis.model.query import MemoryQuery

_NARROWING = ("category", "entity_type", "entity_id", "key", "keys", "key_prefix", "category_prefix", "tags")
_FILTERS = (*_NARROWING, "since", "until", "exclude_tags", "where", "after", "limit")
_NO_INDEX = "no index finds these filters, so every memory may be looked at: add a category, key, entity, tag or time"


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """How a question was answered: what was read for it, and who decided what. The figures are counted, not estimated.

    Attributes:
        index: the index that led; ``"none"`` if there was none, or nothing can match.
        looked_at: the rows of that index that were looked at.
        judged: the entries that the database let through, and Python tested.
        returned: the entries that were returned, or counted.
        in_database: the filters that the database decided; one on values (``where``) only says what it left out.
        in_python: the filters that Python tested.
        hint: how to ask for less work, or None.

    >>> from jarvis.persistent_memory import MemoryModule
    >>> import tempfile
    >>> memory = MemoryModule(storage_dir=tempfile.mkdtemp())
    >>> _ = memory.record_task("1", {"status": "failed"})
    >>> print(memory.search_memories("tasks", where={"status": "failed"}, explain=True))
    1 returned of 1 looked at, by the index entries_by_category
    decided in the database: category, where "status"
    decided in Python, of 1: where
    """

    index: str
    looked_at: int
    judged: int
    returned: int
    in_database: tuple[str, ...]
    in_python: tuple[str, ...]
    hint: str | None = None

    def __str__(self) -> str:
        how = "without an index" if self.index == "none" else f"by the index {self.index}"
        lines = [f"{self.returned:,} returned of {self.looked_at:,} looked at, {how}"]
        if self.in_database:
            lines.append(f"decided in the database: {', '.join(self.in_database)}")
        if self.in_python:
            lines.append(f"decided in Python, of {self.judged:,}: {', '.join(self.in_python)}")
        if self.hint is not None:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


def without_index(backend: str, query: MemoryQuery, everything: int, returned: int) -> Explanation:
    """Return the explanation of a backend that read every entry."""
    return Explanation(
        index="none",
        looked_at=everything,
        judged=everything,
        returned=returned,
        in_database=(),
        in_python=filters_of(query),
        hint=f"the backend {backend!r} names no index, so each question may read every memory",
    )


def filters_of(query: MemoryQuery) -> tuple[str, ...]:
    """Return the names of the filters that a query has."""
    given = [name for name in _FILTERS if getattr(query, name) is not None]
    return tuple(name for name in given if name != "exclude_tags" or query.exclude_tags)


def hint_for(query: MemoryQuery, found_by: Collection[str] = (*_NARROWING, "since", "until")) -> str | None:
    """Return the hint for a query with filters of which an index finds none of those in `found_by`, or None."""
    given = set(filters_of(query)) - {"exclude_tags", "after", "limit"}
    return _NO_INDEX if given and given.isdisjoint(found_by) else None
