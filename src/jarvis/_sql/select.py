"""Translates `MemoryQuery` to SQL: chooses the index that leads, the filters it answers and the place of the limit.

The text depends on which filters are given, never on their values, so there are few texts: each is made
once and stays in the driver's statement cache. Python applies `MemoryQuery.where` to what `jarvis._sql.preselection`
lets through, and compares the tags of an entry where a query names so many that looking each up would take longer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from jarvis._sql import preselection
from jarvis.model.query import MemoryQuery

if TYPE_CHECKING:
    from jarvis._sql.dialect import Dialect
    from jarvis.model.revision import Cutoff
    from jarvis.model.value_filter import Test

LIVE = "(e.expires <= :now) IS NOT TRUE"
"""The condition for an entry not to have expired; `expires` is NULL if it never does."""

VALUE = "e.body, e.packed"
"""The columns that hold the value of an entry, see `jarvis.model.record.Encoded`."""

COLUMNS = f"e.row, e.id, e.category, e.key, e.entity_type, e.entity_id, e.instant, e.version, e.expires, {VALUE}"


FEW = 8
"""The most tags that a statement names one by one; more are in one list, or left to Python."""

_LISTED = "SELECT value FROM {items}(:listed)"
_LOOKS = 10_000  # at rows of tags, to find the one that the fewest entries have


class Statement(NamedTuple):
    """A statement and its bindings, by name."""

    sql: str
    bindings: dict[str, Any]


class _Shape(NamedTuple):
    """The filters that a query has: its text depends on nothing else."""

    category: bool
    entity_type: bool
    key: bool
    entity_id: bool
    since: bool
    until: bool
    after: bool
    tags: int | None
    listed: bool
    all_tags: bool
    limit: bool
    past: bool
    excluded: int
    values: tuple[str, ...]


class _Era(NamedTuple):
    """The tables that hold states of entries: the present ones, or those that a change ended."""

    entries: str
    tags: str
    joined_by: str
    is_over: bool


_PRESENT = _Era("entries", "tags", "row", is_over=False)
_PAST = _Era("revisions", "past_tags", "ended", is_over=True)


def decides(query: MemoryQuery) -> bool:
    """Tell whether the rows of a statement are the answer, with nothing left for Python to judge."""
    return query.where is None and tags_test(query) is None


def tags_test(query: MemoryQuery) -> Test | None:
    """Return the test of an entry's body by the tags that a statement does not look up, or None if there are none."""
    tags, excluded = query.tags, query.exclude_tags
    if tags is not None and (len(tags) <= FEW or query.tags_match == "any"):
        tags = None
    if excluded is not None and len(excluded) <= FEW:
        excluded = None
    if tags is None and excluded is None:
        return None
    return MemoryQuery(tags=tags, tags_match=query.tags_match, exclude_tags=excluded).predicate()


def select(
    query: MemoryQuery,
    namespace: str,
    name_id: Callable[[str], int | None],
    dialect: Dialect,
    *,
    now: int,
    limited: bool = True,
    cutoff: Cutoff | None = None,
) -> Statement | None:
    """Return the statement that selects `COLUMNS` of the entries that match `query` without `where`, newest first.

    Args:
        query: the question.
        namespace: the namespace's name.
        name_id: returns the id of a name, or None.
        dialect: the words of the database.
        now: the present instant; entries that have expired by then are left out.
        limited: put `query.limit` into the statement; leave it out if Python still filters the rows.
        cutoff: select the states that were visible then, instead of the present ones.

    Returns:
        None when nothing can match: an empty list of tags, a limit of 0, or a name that no entry has.
    """
    bound = _bind(query, namespace, name_id, dialect, now=now, limited=limited, cutoff=cutoff)
    return None if bound is None else Statement(_select_text(bound[0], dialect), bound[1])


def count(
    query: MemoryQuery,
    namespace: str,
    name_id: Callable[[str], int | None],
    dialect: Dialect,
    *,
    now: int,
    cutoff: Cutoff | None = None,
) -> Statement | None:
    """Return the statement that counts the entries that match `query` without `where`, or None for 0."""
    bound = _bind(query, namespace, name_id, dialect, now=now, limited=True, cutoff=cutoff)
    return None if bound is None else Statement(_count_text(bound[0], dialect), bound[1])


def every_state(
    query: MemoryQuery, namespace: str, name_id: Callable[[str], int | None], dialect: Dialect
) -> Statement | None:
    """Return the statement that selects id and `VALUE` of every state, present or past, expired or not, that matches
    `query` without `where`, `limit` and `after`; or None if nothing can match.
    """
    whole = msgspec.structs.replace(query, limit=None, after=None)
    bound = _bind(whole, namespace, name_id, dialect, now=0, limited=False, cutoff=None)
    if bound is None:
        return None
    parts = (_in_era(bound[0], f"e.id, {VALUE}", era, is_live=False)[0] for era in (_PRESENT, _PAST))
    return Statement(dialect.say(" UNION ALL ".join(parts)), bound[1])


def _bind(
    query: MemoryQuery,
    namespace: str,
    name_id: Callable[[str], int | None],
    dialect: Dialect,
    *,
    now: int,
    limited: bool,
    cutoff: Cutoff | None,
) -> tuple[_Shape, dict[str, Any]] | None:
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
            bound["listed"], tags = None if None in wanted else msgspec.json.encode(wanted).decode(), 0
            bound["looks"] = _LOOKS // len(wanted)
        else:
            bound.update((f"tag_{index}", number) for index, number in enumerate(wanted))
    if None in bound.values():
        return None
    if query.key is not None:
        bound["key"] = query.key
    if query.entity_id is not None:
        bound["entity_id"] = query.entity_id
    if query.since is not None or query.until is not None:
        bound["since"], bound["until"] = query.instants
    if query.after is not None and query.position is not None:
        bound["after_instant"], bound["after_row"], _ = query.position  # commit numbers are unique here
    if limit is not None:
        bound["limit"] = limit
    bound["now"] = now
    excluded = () if len(query.exclude_tags or ()) > FEW else tuple(dict.fromkeys(query.exclude_tags or ()))
    bound.update((f"excluded_{index}", tag) for index, tag in enumerate(excluded))
    if cutoff is not None:
        bound["as_of"], bound["done"], bound["open"], bound["latest"] = cutoff
    values: tuple[str, ...] = ()
    if query.where is not None and dialect.reads_values:
        values, bounds = preselection.preselect(query.where)
        bound.update(bounds)
    shape = _Shape(
        query.category is not None,
        query.entity_type is not None,
        query.key is not None,
        query.entity_id is not None,
        query.since is not None,
        query.until is not None,
        query.after is not None,
        tags,
        listed,
        all_tags,
        limit is not None,
        cutoff is not None,
        len(excluded),
        values,
    )
    return shape, bound


@functools.lru_cache(maxsize=1_000)
def _select_text(shape: _Shape, dialect: Dialect) -> str:
    if not shape.past:
        text, order = _in_era(shape, COLUMNS, _PRESENT)
        text = f"{text} {order}"
    else:  # an index returns each part newest first, and SQLite merges them row by row
        parts = [_in_era(shape, COLUMNS, era)[0] for era in (_PRESENT, _PAST)]
        text = f"SELECT * FROM ({' UNION ALL '.join(parts)}) AS states ORDER BY instant DESC, row DESC"
    return dialect.say(f"{text} LIMIT :limit" if shape.limit else text)


@functools.lru_cache(maxsize=1_000)
def _count_text(shape: _Shape, dialect: Dialect) -> str:
    eras = (_PRESENT, _PAST) if shape.past else (_PRESENT,)
    text = " UNION ALL ".join(_in_era(shape, "1", era, is_live=shape.limit)[0] for era in eras)
    if shape.limit:
        return dialect.say(f"SELECT count(*) FROM (SELECT 1 FROM ({text}) AS states LIMIT :limit) AS counted")
    # Subtract the expired entries: they are few, and the others can be counted from the index alone.
    states, expired = (f"(SELECT count(*) FROM ({part}) AS states)" for part in (text, _expired(shape)))
    return dialect.say(f"SELECT {states} - {expired}")


def _expired(shape: _Shape) -> str:
    """Return the text that selects the expired entries through their own index."""
    text = _led_by_entries(shape, "1", _PRESENT, ["e.expires <= :now"])
    return text.replace("e.namespace =", "{unindexed}e.namespace =", 1)


def _in_era(shape: _Shape, columns: str, era: _Era, *, is_live: bool = True) -> tuple[str, str]:
    """Return the text that selects the states of an era, and its order, newest first.

    With `is_live` expired entries are left out. Past states are not tested for expiry: before the past is read,
    `jarvis._sql.history.cutoff` has checked that no state is missing.
    """
    extra = [LIVE] if is_live and not era.is_over else []
    extra += preselection.conditions(shape.values)
    if shape.tags is None or shape.key or shape.entity_id:
        return _led_by_entries(shape, columns, era, extra), _newest_first("e")
    if shape.tags == 1 or shape.all_tags:
        return _led_by_tag(shape, _placed_by("g", columns), era, extra), _newest_first("g")
    return _merged_tags(shape, _placed_by("m", columns), era, extra), _newest_first("m")


def _placed_by(table: str, columns: str) -> str:
    """Return the columns with row and instant taken from `table`, whose order needs no sorting."""
    return columns.replace("e.row,", f"{table}.row,").replace("e.instant,", f"{table}.instant,")


def _led_by_entries(shape: _Shape, columns: str, era: _Era, extra: list[str]) -> str:
    """Return the text in which the entries lead, by the best index for the filters; tags are looked up row by row."""
    conditions = [*extra, *_common(shape, "e", era)]  # values first: few entries are then looked up by tag
    if shape.key:
        conditions.append("e.key = :key")
    if shape.entity_id:
        conditions.append("e.entity_id = :entity_id")
    marks = [f":tag_{index}" for index in range(shape.tags or 0)]
    if shape.listed and not shape.all_tags:
        marks = [_LISTED]
    groups = [[mark] for mark in marks] if shape.all_tags else [marks] if marks else []
    conditions += [f"EXISTS (SELECT 1 FROM {era.tags} AS t WHERE {_is_tagged('e', group)})" for group in groups]
    return f"SELECT {columns} FROM {era.entries} AS e WHERE {' AND '.join(conditions)}"


def _led_by_tag(shape: _Shape, columns: str, era: _Era, extra: list[str]) -> str:
    """Return the text in which the rows of one tag lead: they are newest first and hold category and entity type.

    The tables are joined in that order, so only entries that are returned are read.
    """
    conditions = [f"g.tag = {_rarest(era) if shape.listed else ':tag_0'}", *_common(shape, "g", era), *extra]
    conditions += [
        f"EXISTS (SELECT 1 FROM {era.tags} AS t WHERE {_is_tagged('g', [f':tag_{index}'])})"
        for index in range(1, shape.tags or 0)
    ]
    source = f"{era.tags} AS g {{join_in_order}} {era.entries} AS e ON {_is_same('e', 'g', era)}"
    return f"SELECT {columns} FROM {source} WHERE {' AND '.join(conditions)}"


def _rarest(era: _Era) -> str:
    """Return the text that selects the tag with the fewest rows of the listed ones, as far as that is seen at once."""
    few = f"SELECT 1 FROM {era.tags} AS n WHERE n.namespace = :namespace AND n.tag = w.value LIMIT :looks"
    return f"(SELECT w.value FROM ({_LISTED}) AS w ORDER BY (SELECT count(*) FROM ({few}) AS seen) LIMIT 1)"


def _merged_tags(shape: _Shape, columns: str, era: _Era, extra: list[str]) -> str:
    """Return the text that unites the rows of each tag, at most `limit` of each; UNION returns an entry once.

    SQLite sorts what the parts find; no other text needs that.
    """
    if not shape.listed:
        union = " UNION ".join(_of_tags(shape, "g", f"= :tag_{index}", era, extra) for index in range(shape.tags or 0))
    elif shape.limit:
        newest = f"SELECT instant, row FROM ({_of_tags(shape, 'n', '= w.value', era, extra)}) AS n"
        rows = f"{era.tags} AS g ON g.namespace = :namespace AND g.tag = w.value AND (g.instant, g.row) IN ({newest})"
        union = f"SELECT DISTINCT {_placed('g', era)} FROM ({_LISTED}) AS w {{join_in_order}} {rows}"
    else:
        union = f"SELECT DISTINCT * FROM ({_of_tags(shape, 'g', f'IN ({_LISTED})', era, extra)}) AS n"
    only = f" WHERE {' AND '.join(extra)}" if extra and not shape.limit else ""
    joined = f"{era.entries} AS e ON {_is_same('e', 'm', era)}"
    return f"SELECT {columns} FROM ({union}) AS m {{join_in_order}} {joined}{only}"


def _of_tags(shape: _Shape, table: str, tag: str, era: _Era, extra: list[str]) -> str:
    """Return the text that selects the places of the states with a tag, at most `limit`."""
    conditions = [f"{table}.tag {tag}", *_common(shape, table, era)]
    if shape.limit and extra:  # else rows that are left out later would fill the limit
        inner = f"SELECT 1 FROM {era.entries} AS e WHERE {_is_same('e', table, era)}"
        conditions.append(f"EXISTS ({inner} AND {' AND '.join(extra)})")
    part = f"SELECT {_placed(table, era)} FROM {era.tags} AS {table} WHERE {' AND '.join(conditions)}"
    return f"SELECT * FROM ({part} {_newest_first(table)} LIMIT :limit) AS newest" if shape.limit else part


def _placed(table: str, era: _Era) -> str:
    return f"{table}.namespace, {table}.instant, {table}.row{f', {table}.ended' if era.is_over else ''}"


def _is_same(table: str, other: str, era: _Era) -> str:
    return f"{table}.namespace = {other}.namespace AND {table}.{era.joined_by} = {other}.{era.joined_by}"


def _is_tagged(table: str, marks: list[str]) -> str:
    is_state = f"t.namespace = {table}.namespace AND t.instant = {table}.instant AND t.row = {table}.row"
    return f"{is_state} AND t.tag IN ({', '.join(marks)})"


def _newest_first(table: str) -> str:
    return f"ORDER BY {table}.instant DESC, {table}.row DESC"


def _common(shape: _Shape, table: str, era: _Era) -> list[str]:
    """Return the conditions that an index of the entries and one of the tags can both answer."""
    conditions = [f"{table}.namespace = :namespace"]
    if shape.category:
        conditions.append(f"{table}.category = :category")
    if shape.entity_type:
        conditions.append(f"{table}.entity_type = :entity_type")
    if shape.since:
        conditions.append(f"{table}.instant >= :since")
    if shape.until:
        conditions.append(f"{table}.instant < :until")
    if shape.after:
        conditions.append(f"({table}.instant, {table}.row) < (:after_instant, :after_row)")
    if shape.past:
        conditions += visible(table, is_over=era.is_over)
    if shape.excluded:
        conditions.append(_has_none(shape.excluded, table, era))
    return conditions


def _has_none(count: int, table: str, era: _Era) -> str:
    # By name, not by id as elsewhere: an id that was looked up before may be out of date, or the tag may have
    # got its first id since. Then the query would return entries that have the tag.
    marks = ", ".join(f":excluded_{index}" for index in range(count))
    tagged = _is_tagged(table, [f"SELECT id FROM names WHERE {{here}} AND name IN ({marks})"])
    return f"NOT EXISTS (SELECT 1 FROM {era.tags} AS t WHERE {tagged})"


def visible(table: str, *, is_over: bool) -> list[str]:
    """Return the conditions for a state to have been visible at the cutoff; see `jarvis.model.revision.Cutoff`.

    Args:
        table: the table's alias in the statement.
        is_over: the table holds ended states; the change that ended a state must not have been visible.
    """
    conditions = [f"{table}.instant <= :latest", made_until(table, "row", "instant")]
    if is_over:
        conditions.append(f"NOT {made_until(table, 'ended', 'made')}")
    return conditions


def made_until(table: str, commit: str, instant: str) -> str:
    """Return the condition for the change with the number and instant in these columns to have been visible."""
    number = f"{{unindexed}}{table}.{commit}"  # else the planner searches both halves of the OR by number
    return f"({number} <= :done OR ({number} < :open AND {table}.{instant} <= :as_of))"
