"""What a `MemoryQuery` asks of a statement: the shape, on which its text depends, and the values that are bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from jarvis._sql import preselection
from jarvis.model.marks import ABSENT
from jarvis.model.query import MemoryQuery, end_of

if TYPE_CHECKING:
    from jarvis._sql.dialect import Dialect
    from jarvis.model.place import Order
    from jarvis.model.revision import Cutoff
    from jarvis.model.value_filter import Test

FEW = 8
"""The most tags that a statement names one by one; more are in one list, or left to Python."""

_LOOKS = 10_000  # at rows of tags, to find the one that the fewest entries have
_ALL = 2**62
"""The limit of a page without one."""


def as_json(members: Sequence[object]) -> str:
    """Return a list as the value of a parameter behind ``{members}``."""
    return msgspec.json.encode(members).decode()


class More(NamedTuple):
    """The part of a shape that most queries leave out."""

    is_absent: bool = False
    keys: bool = False
    ranges: tuple[str, ...] = ()
    order: Order = "changed"
    is_ascending: bool = False
    offset: bool = False
    listed: bool = False
    values: tuple[str, ...] = ()
    watched: bool = False


class Shape(NamedTuple):
    """The filters that a query has: its text depends on nothing else. `rest` is None where that is usual."""

    category: bool
    entity_type: bool
    key: bool
    entity_id: bool
    since: bool
    until: bool
    after: bool
    tags: int | None
    all_tags: bool
    limit: bool
    past: bool
    excluded: int
    rest: More | None

    @property
    def more(self) -> More:
        """What the query has of the filters that most leave out."""
        return _NOTHING_MORE if self.rest is None else self.rest

    @property
    def names_entries(self) -> bool:
        """Whether it names keys or an entity, which few entries have: these lead, whatever the tags."""
        return self.key or self.entity_id or self.more.keys or "key_from" in self.more.ranges


_NOTHING_MORE = More()


def decides(query: MemoryQuery) -> bool:
    """Tell whether the rows of a statement are the answer, with nothing left for Python to judge."""
    if query.where is not None:
        return False
    return (query.tags is None and query.exclude_tags is None) or not tags_left(query)


def tags_test(query: MemoryQuery) -> Test | None:
    """Return the test of an entry's body by the tags that a statement does not look up, or None if there are none."""
    left = tags_left(query)
    return MemoryQuery(tags_match=query.tags_match, **left).predicate() if left else None


def tags_left(query: MemoryQuery) -> dict[str, Any]:
    """Return the filters by tags that a statement leaves to Python."""
    left: dict[str, Any] = {}
    tags, excluded = query.tags, query.exclude_tags
    if tags is not None and len(tags) > FEW and (query.tags_match == "all" or _names_entries(query)):
        left["tags"] = tags
    if excluded is not None and len(excluded) > FEW:
        left["exclude_tags"] = excluded
    return left


def _names_entries(query: MemoryQuery) -> bool:
    """Tell whether a query names keys or an entity, which few entries have: these lead, whatever the tags."""
    has_entity = query.entity_id is not None and query.entity_id is not ABSENT
    return has_entity or query.key is not None or query.keys is not None or bool(query.key_prefix)


def bind(
    query: MemoryQuery,
    namespace: str,
    name_id: Callable[[str], int | None],
    dialect: Dialect,
    *,
    now: int,
    limited: bool,
    cutoff: Cutoff | None,
    watched: bool = False,
) -> tuple[Shape, dict[str, Any]] | None:
    limit = query.limit if limited else None
    if query.limit == 0:
        return None
    bound: dict[str, Any] = {"namespace": name_id(namespace)}
    if query.category is not None:
        bound["category"] = name_id(query.category)
    if query.entity_type is not None:
        bound["entity_type"] = name_id(query.entity_type)
    tags, listed, all_tags = None, False, query.tags_match == "all"
    if query.tags is not None:
        wanted = [name_id(tag) for tag in dict.fromkeys(query.tags)]
        if not all_tags:
            wanted = [number for number in wanted if number is not None]
        if not wanted:
            return None
        tags, listed = len(wanted), len(query.tags) > FEW
        if listed:
            bound["listed"], tags = None if None in wanted else as_json(wanted), 0
            bound["looks"] = _LOOKS // len(wanted)
        else:
            bound.update((f"tag_{index}", number) for index, number in enumerate(wanted))
    if None in bound.values():
        return None
    named = (query.key, query.entity_id, query.key_prefix, query.category_prefix)
    if any(type(text) is str and "\0" in text for text in named):
        return None  # no stored name has a NUL, and not every database has a text with one
    if query.key is not None:
        bound["key"] = query.key
    if query.entity_id is not None and query.entity_id is not ABSENT:
        bound["entity_id"] = query.entity_id
    if query.since is not None or query.until is not None:
        bound["since"], bound["until"] = query.instants
    if query.after is not None and query.position is not None:
        *first, bound["after_instant"], bound["after_row"], _ = query.position  # commit numbers are unique here
        bound.update(("after", place) for place in first)
    if limit is not None:
        bound["limit"] = bound["reach"] = limit
    bound["now"] = now
    excluded: tuple[str, ...] = ()
    if query.exclude_tags is not None and len(query.exclude_tags) <= FEW:
        excluded = tuple(tag for tag in dict.fromkeys(query.exclude_tags) if "\0" not in tag)
        bound.update((f"excluded_{index}", tag) for index, tag in enumerate(excluded))
    if cutoff is not None:
        bound["as_of"], bound["done"], bound["open"], bound["latest"] = cutoff
    values: tuple[str, ...] = ()
    if query.where is not None and dialect.reads_values:
        values, bounds = preselection.preselect(query.where)
        bound.update(bounds)
    rest = None
    if (  # most queries leave these out
        query.order != "changed"
        or query.ascending
        or query.offset
        or query.keys is not None
        or query.key_prefix
        or query.category_prefix
        or query.entity_id is ABSENT
        or listed
        or values
        or watched
    ):
        rest = _more(query, bound, limited=limited)._replace(listed=listed, values=values, watched=watched)
    fields = (
        query.category is not None,
        query.entity_type is not None,
        query.key is not None,
        "entity_id" in bound,
        query.since is not None,
        query.until is not None,
        query.after is not None,
        tags,
        all_tags,
        limit is not None,
        cutoff is not None,
        len(excluded),
        rest,
    )
    return tuple.__new__(Shape, fields), bound  # no call, see `jarvis._disk.files.Stamp`


def _more(query: MemoryQuery, bound: dict[str, Any], *, limited: bool) -> More:
    """Return what a query has of the filters that most leave out, and bind their values."""
    if query.keys is not None:
        bound["keys"] = as_json([key for key in query.keys if "\0" not in key])
    ranges = [*range_of("key", query.key_prefix), *range_of("category", query.category_prefix)]
    bound.update(ranges)
    offset = query.offset if limited else 0
    if offset:
        limit = bound.setdefault("limit", _ALL)
        bound["offset"], bound["reach"] = offset, min(limit + offset, _ALL)
    return More(
        is_absent=query.entity_id is ABSENT,
        keys=query.keys is not None,
        ranges=tuple(name for name, _ in ranges),
        order=query.order,
        is_ascending=query.is_ascending,
        offset=offset > 0,
    )


def range_of(name: str, prefix: str | None) -> list[tuple[str, str]]:
    """Return the bounds, by the names of their bindings, of the texts that begin with `prefix`."""
    if not prefix:
        return []
    end = end_of(prefix)
    bounds = [(f"{name}_from", prefix)]
    return bounds if end is None else [*bounds, (f"{name}_to", end)]
