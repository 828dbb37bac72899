"""`MemoryQuery` to SQL: which index leads, what it filters, where the limit may stand.

The text depends on which filters are given, never on their values, so there are few texts and they
stay in the driver's statement cache. `MemoryQuery.where` is left to its Python meaning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from jarvis.memory_entry import MemoryQuery

NAME_ID = "(SELECT id FROM names WHERE name = ?)"
COLUMNS = (
    "e.row, e.id, (SELECT name FROM names WHERE id = e.category), e.key, "
    "(SELECT name FROM names WHERE id = e.entity_type), e.entity_id, e.instant, e.version, e.body"
)


class Statement(NamedTuple):
    """A statement and its bindings."""

    sql: str
    bindings: tuple[Any, ...]


class _Conditions:
    """The conditions of one table, and what is bound to them, in the order of the text."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.bound: list[Any] = []

    def add(self, condition: str, *bindings: Any) -> None:
        self.parts.append(condition)
        self.bound.extend(bindings)

    def values(self) -> tuple[Any, ...]:
        return tuple(self.bound)

    def __str__(self) -> str:
        return " AND ".join(self.parts)


def select(query: MemoryQuery, namespace: str, *, columns: str = COLUMNS, limited: bool = True) -> Statement | None:
    """Return the statement that selects the entries of `query` but for `where`, newest first.

    Args:
        query: what is asked.
        namespace: where.
        columns: what to select; the entry's table is called ``e``.
        limited: put `query.limit` into the statement; leave it out if rows are still to be sifted.

    Returns:
        None when nothing can match: no tag wanted, or a limit of 0.
    """
    limit = query.limit if limited else None
    wanted = None if query.tags is None else list(dict.fromkeys(query.tags))
    if wanted == [] or query.limit == 0:
        return None
    if wanted is None or query.key is not None or query.entity_id is not None:
        statement = _led_by_entries(query, namespace, columns, wanted or [])
    elif len(wanted) == 1 or query.tags_match == "all":
        statement = _led_by_tag(query, namespace, columns, wanted)
    else:
        statement = _merged_tags(query, namespace, columns, wanted, limit)
    if limit is None:
        return statement
    return Statement(f"{statement.sql} LIMIT ?", (*statement.bindings, limit))


def count(query: MemoryQuery, namespace: str) -> Statement | None:
    """Return the statement whose one row is how many entries `query` (without `where`) selects, or None for 0."""
    statement = select(query, namespace, columns="1")
    if statement is None:
        return None
    sql = statement.sql
    if query.limit is None:  # nothing to cut off, so nothing to order either
        sql = sql[: sql.rindex(" ORDER BY ")]
    return Statement(f"SELECT count(*) FROM ({sql})", statement.bindings)


def _led_by_entries(query: MemoryQuery, namespace: str, columns: str, wanted: list[str]) -> Statement:
    """The entries table leads, by whatever index its filters have; tags are looked up row by row."""
    conditions = _Conditions()
    _add_common(conditions, query, namespace, "e")
    if query.key is not None:
        conditions.add("e.key = ?", query.key)
    if query.entity_id is not None:
        conditions.add("e.entity_id = ?", query.entity_id)
    groups = [[tag] for tag in wanted] if query.tags_match == "all" else [wanted] if wanted else []
    for group in groups:
        conditions.add(f"EXISTS (SELECT 1 FROM tags AS t WHERE {_is_tagged('e', group)})", *group)
    return Statement(f"SELECT {columns} FROM entries AS e WHERE {conditions} {_newest_first('e')}", conditions.values())


def _led_by_tag(query: MemoryQuery, namespace: str, columns: str, wanted: list[str]) -> Statement:
    """The rows of one tag lead: they are newest first already, and carry category and entity type.

    CROSS JOIN keeps that order of tables, so no entry is touched that is not returned.
    """
    first, *others = wanted
    conditions = _Conditions()
    conditions.add(f"g.tag = {NAME_ID}", first)
    _add_common(conditions, query, namespace, "g")
    for other in others:
        conditions.add(f"EXISTS (SELECT 1 FROM tags AS t WHERE {_is_tagged('g', [other])})", other)
    source = "tags AS g CROSS JOIN entries AS e ON e.row = g.row"
    return Statement(f"SELECT {columns} FROM {source} WHERE {conditions} {_newest_first('g')}", conditions.values())


def _merged_tags(query: MemoryQuery, namespace: str, columns: str, wanted: list[str], limit: int | None) -> Statement:
    """The rows of each tag, at most `limit` of each, merged; UNION reports an entry once."""
    parts, bound = [], []
    for tag in wanted:
        conditions = _Conditions()
        conditions.add(f"g.tag = {NAME_ID}", tag)
        _add_common(conditions, query, namespace, "g")
        part = f"SELECT g.instant, g.row FROM tags AS g WHERE {conditions}"
        bound += conditions.bound
        if limit is not None:
            part = f"SELECT * FROM ({part} {_newest_first('g')} LIMIT ?)"
            bound.append(limit)
        parts.append(part)
    source = f"({' UNION '.join(parts)}) AS m CROSS JOIN entries AS e ON e.row = m.row"
    return Statement(f"SELECT {columns} FROM {source} {_newest_first('m')}", tuple(bound))


def _is_tagged(table: str, tags: list[str]) -> str:
    marks = ", ".join([NAME_ID] * len(tags))
    place = f"t.namespace = {table}.namespace AND t.instant = {table}.instant AND t.row = {table}.row"
    return f"{place} AND t.tag IN ({marks})"


def _newest_first(table: str) -> str:
    return f"ORDER BY {table}.instant DESC, {table}.row DESC"


def _add_common(conditions: _Conditions, query: MemoryQuery, namespace: str, table: str) -> None:
    """Add what both the entries and the tags table can answer from an index."""
    conditions.add(f"{table}.namespace = {NAME_ID}", namespace)
    if query.category is not None:
        conditions.add(f"{table}.category = {NAME_ID}", query.category)
    if query.entity_type is not None:
        conditions.add(f"{table}.entity_type = {NAME_ID}", query.entity_type)
    since, until = query.instants
    if since is not None:
        conditions.add(f"{table}.instant >= ?", since)
    if until is not None:
        conditions.add(f"{table}.instant < ?", until)
    if query.position is not None:
        instant, commit, _ = query.position  # commit numbers are unique here, so the id decides nothing
        conditions.add(f"({table}.instant, {table}.row) < (?, ?)", instant, commit)
