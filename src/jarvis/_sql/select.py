"""Translates `MemoryQuery` to SQL: chooses the index that leads, the filters it answers and the place of the limit.

The text depends on which filters are given, never on their values, so there are few texts: each is made
once and stays in the driver's statement cache. Python applies `MemoryQuery.where` to what `jarvis._sql.preselection`
lets through, and compares the tags of an entry where a query names so many that looking each up would take longer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from jarvis._sql import preselection
from jarvis._sql.shape import Shape, bind

if TYPE_CHECKING:
    from jarvis._sql.dialect import Dialect
    from jarvis.model.query import MemoryQuery
    from jarvis.model.revision import Cutoff

LIVE = "(e.expires <= :now) IS NOT TRUE"
"""The condition for an entry not to have expired; `expires` is NULL if it never does."""

VALUE = "e.body, e.packed"
"""The columns that hold the value of an entry, see `jarvis.model.record.Encoded`."""

_CREATION = "coalesce(e.created, e.instant)"
BOUNDS = {
    **{f"{name}_{end}": sign for name in ("key", "category", "item") for end, sign in (("from", ">="), ("to", "<"))},
    "item_after": ">",
}
"""By the name of a binding: how a text is compared with it."""

COLUMNS = f"e.row, e.id, e.category, e.key, e.entity_type, e.entity_id, e.instant, e.version, e.expires, {VALUE}"

_LISTED = "{numbers}(:listed)"


class Statement(NamedTuple):
    """A statement and its bindings, by name."""

    sql: str
    bindings: dict[str, Any]


class _Era(NamedTuple):
    """The tables that hold states of entries: the present ones, or those that a change ended."""

    entries: str
    tags: str
    joined_by: str
    is_over: bool


_PRESENT = _Era("entries", "tags", "row", is_over=False)
_PAST = _Era("revisions", "past_tags", "ended", is_over=True)


def select(
    query: MemoryQuery,
    namespace: str,
    name_id: Callable[[str], int | None],
    dialect: Dialect,
    *,
    now: int,
    limited: bool = True,
    cutoff: Cutoff | None = None,
    watched: bool = False,
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
        watched: call the function of `jarvis._sql.driver.Driver.looks` for each row that is looked at.

    Returns:
        None when nothing can match: an empty list of tags, a limit of 0, or a name that no entry has.
    """
    bound = bind(query, namespace, name_id, dialect, now=now, limited=limited, cutoff=cutoff, watched=watched)
    return None if bound is None else Statement(_select_text(bound[0], dialect), bound[1])


def count(
    query: MemoryQuery,
    namespace: str,
    name_id: Callable[[str], int | None],
    dialect: Dialect,
    *,
    now: int,
    cutoff: Cutoff | None = None,
    watched: bool = False,
) -> Statement | None:
    """Return the statement that counts the entries that match `query` without `where`, or None for 0."""
    bound = bind(query, namespace, name_id, dialect, now=now, limited=True, cutoff=cutoff, watched=watched)
    return None if bound is None else Statement(_count_text(bound[0], dialect), bound[1])


def every_state(
    query: MemoryQuery, namespace: str, name_id: Callable[[str], int | None], dialect: Dialect
) -> Statement | None:
    """Return the statement that selects `COLUMNS` of every state, present or past, expired or not, that matches
    `query` without `where`, page by page or not; or None if nothing can match.
    """
    bound = bind(query.whole(), namespace, name_id, dialect, now=0, limited=False, cutoff=None)
    if bound is None:
        return None
    parts = (_in_era(bound[0], COLUMNS, era, is_live=False)[0] for era in (_PRESENT, _PAST))
    return Statement(dialect.say(" UNION ALL ".join(parts)), bound[1])


@functools.lru_cache(maxsize=1_000)
def _select_text(shape: Shape, dialect: Dialect) -> str:
    if not shape.past:
        text, order = _in_era(shape, COLUMNS, _PRESENT)
        text = f"{text} {order}"
    else:  # an index returns each part newest first, and SQLite merges them row by row
        columns = f"{COLUMNS}, {_CREATION} AS creation" if shape.more.order == "created" else COLUMNS
        parts = [_in_era(shape, columns, era)[0] for era in (_PRESENT, _PAST)]
        states = f"({' UNION ALL '.join(parts)}) AS states"
        text = f"SELECT {COLUMNS.replace('e.', '')} FROM {states} {_ordered(shape, '', 'creation')}"
    return dialect.say(text + _page(shape))


@functools.lru_cache(maxsize=1_000)
def _count_text(shape: Shape, dialect: Dialect) -> str:
    eras = (_PRESENT, _PAST) if shape.past else (_PRESENT,)
    text = " UNION ALL ".join(_in_era(shape, "1", era, is_live=shape.limit or shape.more.offset)[0] for era in eras)
    if shape.limit or shape.more.offset:
        return dialect.say(f"SELECT count(*) FROM (SELECT 1 FROM ({text}) AS states{_page(shape)}) AS counted")
    # Subtract the expired entries: they are few, and the others can be counted from the index alone.
    states, expired = (f"(SELECT count(*) FROM ({part}) AS states)" for part in (text, _expired(shape)))
    return dialect.say(f"SELECT {states} - {expired}")


def _expired(shape: Shape) -> str:
    """Return the text that selects the expired entries through their own index."""
    text = _led_by_entries(shape, "1", _PRESENT, ["e.expires <= :now"])
    return text.replace("e.namespace =", "{unindexed}e.namespace =", 1)


def _in_era(shape: Shape, columns: str, era: _Era, *, is_live: bool = True) -> tuple[str, str]:
    """Return the text that selects the states of an era, and its order, newest first.

    With `is_live` expired entries are left out. Past states are not tested for expiry: before the past is read,
    `jarvis._sql.history.cutoff` has checked that no state is missing.
    """
    extra = [LIVE] if is_live and not era.is_over else []
    values = preselection.conditions(shape.more.values)
    if _watches_values(shape):  # a planner may put the conditions on values first
        values = [f"CASE WHEN looked_at(e.row) THEN {' AND '.join(values)} END"]
    extra += values
    if _is_led_by_entries(shape):
        return _led_by_entries(shape, columns, era, extra), _ordered(shape, "e.")
    if shape.tags == 1 or shape.all_tags:
        return _led_by_tag(shape, _placed_by("g", columns), era, [*_own(shape, "g"), *extra]), _ordered(shape, "g.")
    return _merged_tags(shape, _placed_by("m", columns), era, [*_own(shape, "m"), *extra]), _ordered(shape, "m.")


def _is_led_by_entries(shape: Shape) -> bool:
    return shape.tags is None or shape.names_entries


def _watches_values(shape: Shape) -> bool:
    return shape.more.watched and bool(shape.more.values) and _is_led_by_entries(shape)


def _placed_by(table: str, columns: str) -> str:
    """Return the columns with row and instant taken from `table`, whose order needs no sorting."""
    return columns.replace("e.row,", f"{table}.row,").replace("e.instant,", f"{table}.instant,")


def _led_by_entries(shape: Shape, columns: str, era: _Era, extra: list[str]) -> str:
    """Return the text in which the entries lead, by the best index for the filters; tags are looked up row by row."""
    source, categories = f"{era.entries} AS e", _categories(shape)
    if categories and not shape.names_entries:  # else the planner, who knows no figures of these, reads all entries
        source = f"({categories}) AS c {{join_in_order}} {source} ON e.category = c.id"
        categories = ""
    conditions = [*_common(shape, "e", era, categories), *_own(shape, "e"), *extra, *_excluding(shape, "e", era)]
    marks = [f":tag_{index}" for index in range(shape.tags or 0)]
    if shape.more.listed and not shape.all_tags and not shape.names_entries:
        marks = [_LISTED]
    groups = [[mark] for mark in marks] if shape.all_tags else [marks] if marks else []
    conditions += [f"EXISTS (SELECT 1 FROM {era.tags} AS t WHERE {_is_tagged('e', group)})" for group in groups]
    return f"SELECT {columns} FROM {source} WHERE {' AND '.join(conditions)}"


def _led_by_tag(shape: Shape, columns: str, era: _Era, extra: list[str]) -> str:
    """Return the text in which the rows of one tag lead: they are newest first and hold category and entity type.

    The tables are joined in that order, so only entries that are returned are read.
    """
    tag, common = _rarest(era) if shape.more.listed else ":tag_0", _common(shape, "g", era, _categories(shape))
    conditions = [f"g.tag = {tag}", *common, *_excluding(shape, "g", era), *extra]
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


def _merged_tags(shape: Shape, columns: str, era: _Era, extra: list[str]) -> str:
    """Return the text that unites the rows of each tag, at most `limit` of each; UNION returns an entry once.

    SQLite sorts what the parts find; no other text needs that.
    """
    is_cut = shape.limit and shape.more.order == "changed"
    inner = extra if is_cut else []  # else rows that are left out later would fill the limit
    if not shape.more.listed:
        union = " UNION ".join(_of_tags(shape, "g", f"= :tag_{index}", era, inner) for index in range(shape.tags or 0))
    elif is_cut:
        first = f"SELECT instant, row FROM ({_of_tags(shape, 'n', '= w.value', era, inner)}) AS n"
        rows = f"{era.tags} AS g ON g.namespace = :namespace AND g.tag = w.value AND (g.instant, g.row) IN ({first})"
        union = f"SELECT DISTINCT {_placed('g', era)} FROM ({_LISTED}) AS w {{join_in_order}} {rows}"
    else:
        union = f"SELECT DISTINCT * FROM ({_of_tags(shape, 'g', f'IN ({_LISTED})', era, inner)}) AS n"
    only = f" WHERE {' AND '.join(extra)}" if extra and not is_cut else ""
    joined = f"{era.entries} AS e ON {_is_same('e', 'm', era)}"
    return f"SELECT {columns} FROM ({union}) AS m {{join_in_order}} {joined}{only}"


def _of_tags(shape: Shape, table: str, tag: str, era: _Era, extra: list[str]) -> str:
    """Return the text that selects the places of the states with a tag, of a page only as many as it reaches."""
    common = _common(shape, table, era, _categories(shape))
    conditions = [f"{table}.tag {tag}", *common, *_excluding(shape, table, era)]
    if extra:
        inner = f"SELECT 1 FROM {era.entries} AS e WHERE {_is_same('e', table, era)}"
        conditions.append(f"EXISTS ({inner} AND {' AND '.join(extra)})")
    part = f"SELECT {_placed(table, era)} FROM {era.tags} AS {table} WHERE {' AND '.join(conditions)}"
    if not shape.limit or shape.more.order != "changed":
        return part
    return f"SELECT * FROM ({part} {_ordered(shape, f'{table}.')} LIMIT :reach) AS first_rows"


def _placed(table: str, era: _Era) -> str:
    return f"{table}.namespace, {table}.instant, {table}.row{f', {table}.ended' if era.is_over else ''}"


def _is_same(table: str, other: str, era: _Era) -> str:
    return f"{table}.namespace = {other}.namespace AND {table}.{era.joined_by} = {other}.{era.joined_by}"


def _is_tagged(table: str, marks: list[str]) -> str:
    is_state = f"t.namespace = {table}.namespace AND t.instant = {table}.instant AND t.row = {table}.row"
    return f"{is_state} AND t.tag IN ({', '.join(marks)})"


def _ordered(shape: Shape, table: str, creation: str = _CREATION) -> str:
    """Return the order of the rows; `table` holds instant and row."""
    way = "ASC" if shape.more.is_ascending else "DESC"
    columns = [f"{table}instant", f"{table}row"]
    if shape.more.order != "changed":
        columns.insert(0, creation if shape.more.order == "created" else "e.key" if table else "key")
    return f"ORDER BY {', '.join(f'{column} {way}' for column in columns)}"


def _page(shape: Shape) -> str:
    """Return the end of a statement that leaves out what is before and after a page."""
    if not shape.limit and not shape.more.offset:
        return ""
    return " LIMIT :limit OFFSET :offset" if shape.more.offset else " LIMIT :limit"


def _own(shape: Shape, table: str) -> list[str]:
    """Return the conditions that only the entries themselves can answer; `table` holds instant and row."""
    conditions = []
    if shape.key:
        conditions.append("e.key = :key")
    if shape.more.keys:
        conditions.append("e.key IN ({members}(:keys))")
    conditions += [f"e.key {BOUNDS[name]} :{name}" for name in shape.more.ranges if name.startswith("key")]
    if shape.entity_id:
        conditions.append("e.entity_id = :entity_id")
    if shape.more.is_absent:
        conditions.append("e.entity_id IS NULL")
    if shape.after and shape.more.order != "changed":
        first = _CREATION if shape.more.order == "created" else "e.key"
        place = f"({first}, {table}.instant, {table}.row)"
        conditions.append(f"{place} {_beyond(shape)} (:after, :after_instant, :after_row)")
    return conditions


def _beyond(shape: Shape) -> str:
    return ">" if shape.more.is_ascending else "<"


def _categories(shape: Shape) -> str:
    """Return the text that selects the ids of the categories that begin as asked; empty if it is not asked."""
    ranges = [f"name {BOUNDS[name]} :{name}" for name in shape.more.ranges if name.startswith("category")]
    return f"SELECT id FROM names WHERE {{here}} AND {' AND '.join(ranges)}" if ranges else ""


def _common(shape: Shape, table: str, era: _Era, categories: str) -> list[str]:
    """Return the conditions that an index of the entries and one of the tags can both answer.

    `categories` selects the ids of the categories that match, if there are such.
    """
    conditions = [f"{table}.namespace = :namespace"]
    if shape.more.watched and not _watches_values(shape):  # before all that may leave a row out
        conditions.append(f"looked_at({table}.row)")
    names = [f"{table}.{name} = :{name}" for name in ("category", "entity_type") if getattr(shape, name)]
    conditions += [f"({name}) IS TRUE" for name in names] if shape.key else names  # see `LAST_WRITTEN`
    if shape.since:
        conditions.append(f"{table}.instant >= :since")
    if shape.until:
        conditions.append(f"{table}.instant < :until")
    if categories:
        conditions.append(f"{table}.category IN ({categories})")
    if shape.after and shape.more.order == "changed":
        conditions.append(f"({table}.instant, {table}.row) {_beyond(shape)} (:after_instant, :after_row)")
    if shape.past:
        conditions += visible(table, is_over=era.is_over)
    return conditions


def _excluding(shape: Shape, table: str, era: _Era) -> list[str]:
    """Return the condition for a state to have no excluded tag: the last, for it takes more than the others."""
    return [has_none(shape.excluded, table, era.tags)] if shape.excluded else []


def has_none(count: int, table: str, tags: str = _PRESENT.tags) -> str:
    """Return the condition for a state in `table` to have none of `count` tags, bound as ``excluded_0`` and so on."""
    # By name, not by id as elsewhere: an id that was looked up before may be out of date, or the tag may have
    # got its first id since. Then the query would return entries that have the tag.
    marks = ", ".join(f":excluded_{index}" for index in range(count))
    tagged = _is_tagged(table, [f"SELECT id FROM names WHERE {{here}} AND name IN ({marks})"])
    return f"NOT EXISTS (SELECT 1 FROM {tags} AS t WHERE {tagged})"


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
