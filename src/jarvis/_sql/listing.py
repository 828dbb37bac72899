"""Lists the names that entries use from indexes, without reading an entry: see `jarvis.model.listing.Listing`.

Names alone are found by one seek for each, whatever the number of entries (https://www.sqlite.org/lang_with.html#rcex3).
Counts need all entries of the index. No index has the keys of a category, or the ids of an entity type: there the rows
of that category or type are read, but not their values.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

from jarvis._sql.select import BOUNDS, has_none
from jarvis._sql.shape import range_of

if TYPE_CHECKING:
    from jarvis._sql.dialect import Dialect
    from jarvis._sql.session import Session
    from jarvis.model.listing import Field, Listing

_ALIVE = "{table}.row NOT IN (SELECT row FROM entries WHERE namespace = :namespace AND expires <= :now)"
_TABLES = {"tag": "tags"}
_TEXTS = ("id", "key", "entity_id")
"""The fields whose columns hold the names themselves; others hold ids of names."""

_NEXT = "SELECT min(namespace) FROM entries AS e WHERE e.row NOT IN (SELECT row FROM entries WHERE expires <= :now)"
NAMESPACES = f"""
WITH RECURSIVE found (item) AS (
    {_NEXT} UNION ALL SELECT ({_NEXT} AND namespace > found.item) FROM found WHERE item IS NOT NULL
)
SELECT name FROM found JOIN names ON names.id = found.item
"""
"""Selects the names of the namespaces that have entries, in any order."""


class _Shape(NamedTuple):
    field: Field
    within: str
    bounds: tuple[str, ...]  # these and the limit: only of fields whose columns hold the names
    limit: bool
    counts: bool
    excluded: int


def names(session: Session, namespace: str, listing: Listing, now: int) -> dict[str, int]:
    """Return the answer to `listing`; entries that have expired at `now` are not there."""
    bindings: dict[str, Any] = {"namespace": session.names.fresh_id_of(namespace), "now": now}
    within = ""
    for name in ("category", "entity_type"):
        if (text := getattr(listing, name)) is not None:
            bindings[name], within = session.names.fresh_id_of(text), f"{within} AND e.{name} = :{name}"
    if None in bindings.values() or listing.limit == 0:
        return {}
    is_text = listing.field in _TEXTS
    if is_text:
        bindings.update(range_of("item", listing.prefix))
        if listing.after is not None:
            bindings["item_after"] = listing.after
        if listing.limit is not None:
            bindings["limit"] = listing.limit
    excluded = tuple(dict.fromkeys(listing.exclude_tags or ()))
    bindings.update((f"excluded_{index}", tag) for index, tag in enumerate(excluded))
    bounds = tuple(name for name in BOUNDS if name in bindings)
    shape = _Shape(listing.field, within, bounds, "limit" in bindings, listing.counts, len(excluded))
    rows = session.rows(_text(shape, session.dialect), bindings)
    counts = dict(rows) if listing.counts else dict.fromkeys([item for (item,) in rows], 1)
    if is_text:
        return counts
    return listing.of(dict(zip(session.names.texts_of(counts), counts.values(), strict=True)))


@functools.lru_cache(maxsize=1_000)
def _text(shape: _Shape, dialect: Dialect) -> str:
    """Return the statement that selects the names in the order of code points, or the ids of names in any order.

    Each with its count, if that is asked.
    """
    column = f"e.{shape.field}"
    conditions = [f"e.namespace = :namespace{shape.within}", _ALIVE.format(table="e")]
    if shape.excluded:
        conditions.append(has_none(shape.excluded, "e"))
    if shape.field == "entity_id":
        conditions.append(f"{column} IS NOT NULL")
    conditions += [f"{column} {BOUNDS[name]} :{name}" for name in shape.bounds]
    number = ", number" if shape.counts else ""
    rows = f"FROM {_TABLES.get(shape.field, 'entries')} AS e WHERE {' AND '.join(conditions)}"
    if shape.counts or shape.within:
        text, items = "", f"(SELECT {column} AS item, count(*) AS number {rows} GROUP BY {column}) AS found"
        order = " ORDER BY item" if shape.field in _TEXTS else ""
    else:  # the recursion yields them in order, one by one, so that a limit ends it
        first = f"ORDER BY {column} LIMIT 1"
        text = f"""
WITH RECURSIVE found (item) AS (
    SELECT * FROM (SELECT {column} {rows} {first}) AS least
    UNION ALL SELECT (SELECT {column} {rows} AND {column} > found.item {first}) FROM found WHERE item IS NOT NULL
) """
        items, order = "found", ""
    limit = " LIMIT :limit" if shape.limit else ""
    return dialect.say(f"{text}SELECT item{number} FROM {items} WHERE item IS NOT NULL{order}{limit}")
