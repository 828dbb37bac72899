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
_NEWEST_FIRST = "ORDER BY {0}.instant DESC, {0}.row DESC"


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
    conditions = _Conditions()
    if wanted is None:
        _add_common(conditions, query, namespace, "e")
        _add_exact(conditions, query)
        source, table = "entries AS e", "e"
    else:
        _add_common(conditions, query, namespace, "t")
        source, table = _add_tags(conditions, query, wanted), "t"
        _add_exact(conditions, query)
    sql = f"SELECT {columns} FROM {source} WHERE {conditions} {_NEWEST_FIRST.format(table)}"
    if limit is not None:
        sql += " LIMIT ?"
        conditions.bound.append(limit)
    return Statement(sql, tuple(conditions.bound))


def count(query: MemoryQuery, namespace: str) -> Statement | None:
    """Return the statement whose one row is how many entries `query` (without `where`) selects, or None for 0."""
    statement = select(query, namespace, columns="1")
    if statement is None:
        return None
    sql = statement.sql
    if query.limit is None:  # nothing to cut off, so nothing to order either
        sql = sql[: sql.rindex(" ORDER BY ")]
    return Statement(f"SELECT count(*) FROM ({sql})", statement.bindings)


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


def _add_exact(conditions: _Conditions, query: MemoryQuery) -> None:
    if query.key is not None:
        conditions.add("e.key = ?", query.key)
    if query.entity_id is not None:
        conditions.add("e.entity_id = ?", query.entity_id)


def _add_tags(conditions: _Conditions, query: MemoryQuery, wanted: list[str]) -> str:
    """Add the tag conditions; return the source: the tags table leads and the entries follow by row.

    CROSS JOIN keeps that order: the tag's rows are newest first already and carry category and
    entity type, so no entry is touched that is not returned.
    """
    if len(wanted) == 1 or query.tags_match == "all":
        first, *others = wanted
        conditions.add(f"t.tag = {NAME_ID}", first)
        for other in others:
            conditions.add(
                "EXISTS (SELECT 1 FROM tags AS o WHERE o.namespace = t.namespace "
                f"AND o.tag = {NAME_ID} AND o.instant = t.instant AND o.row = t.row)",
                other,
            )
        return "tags AS t CROSS JOIN entries AS e ON e.row = t.row"
    # An entry with several of the tags is reported by the first of them only.
    marks = ", ".join([NAME_ID] * len(wanted))
    conditions.add(f"t.tag IN ({marks})", *wanted)
    conditions.add(
        "NOT EXISTS (SELECT 1 FROM tags AS o WHERE o.namespace = t.namespace "
        f"AND o.tag IN ({marks}) AND o.tag < t.tag AND o.instant = t.instant AND o.row = t.row)",
        *wanted,
    )
    return "tags AS t CROSS JOIN entries AS e ON e.row = t.row"
