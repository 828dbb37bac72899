"""`Tags`: one row for each tag of an entry, with the columns that narrow questions by tag."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from jarvis._sql.side_tables import SideTable
from jarvis._sql.tables import FIRST_WITH_PAST, Table

if TYPE_CHECKING:
    from jarvis._sql.side_tables import End, Lent, Place
    from jarvis.model.entry import MemoryEntry
    from jarvis.model.record import Encoded

_FEW = 6
AT_ONCE = 100
"""How many tags of an entry one statement writes at most."""

_DELETE_ALL = "DELETE FROM tags WHERE namespace = ?"
_KEEP_ALL = """
WITH places (row, place) AS (SELECT row, row_number() OVER (ORDER BY row) FROM entries WHERE namespace = :namespace)
INSERT INTO past_tags SELECT t.namespace, t.tag, t.instant, t.row, t.category, t.entity_type, :before + place, :made
FROM tags AS t JOIN places AS p ON p.row = t.row WHERE t.namespace = :namespace
"""
_DATE_PAST = """
UPDATE past_tags SET (instant, made) = (
    SELECT r.instant, r.made FROM revisions AS r WHERE r.namespace = past_tags.namespace AND r.ended = past_tags.ended
) WHERE {here} AND (instant > :now OR made > :now)
"""
_NAME = "(SELECT name FROM names WHERE {{{{here}}}} AND id = {})"
_STORED = f"""
SELECT row, {_NAME.format("tag")}, {_NAME.format("namespace")}, {_NAME.format("category")},
    {_NAME.format("entity_type")}, instant, {{}} FROM {{}} WHERE {{{{here}}}} ORDER BY row
"""
_SUMMED = "SELECT tag, namespace, instant, row, category, entity_type{} FROM {} WHERE {{here}}"


class Tags(SideTable):
    """A row for each tag of each present and past state."""

    tables = (
        Table("tags", ("tag",), "tags"),
        Table("past_tags", ("tag",), "tags", FIRST_WITH_PAST),
    )
    needs_tags = True

    def put(
        self,
        session: Lent,
        place: tuple[int, int, int, int, int],
        entry: MemoryEntry,
        encoded: Encoded,  # noqa: ARG002  other side tables need the value
    ) -> None:
        """Add the tags of an entry."""
        _each_part(session, _insert, _ids(session, entry.tags), place)

    def put_all(
        self, session: Lent, states: Sequence[tuple[tuple[int, int, int, int, int], MemoryEntry, Encoded]]
    ) -> None:
        """Add the tags of several entries."""
        rows = [(*place, tag) for place, entry, _ in states if entry.tags for tag in _ids(session, entry.tags)]
        if rows:
            session.driver.many(_insert(1), rows)

    def take(self, session: Lent, place: Place, tags: Sequence[str]) -> int:
        """Remove the tags of an entry; return how many there were."""
        ids = _ids(session, tags)
        _each(session, _delete, ids, place)
        return len(ids)

    def keep(self, session: Lent, place: Place, tags: Sequence[str], end: End) -> None:
        """Move the tags of an entry to a past state."""
        ids = _ids(session, tags)
        _each(session, _keep, ids, (*place, *end))
        _each(session, _delete, ids, place)

    def take_past(self, session: Lent, place: Place, tags: Sequence[str]) -> int:
        """Remove the tags of a past state; return how many there were."""
        ids = _ids(session, tags)
        _each(session, _delete_past, ids, place)
        return len(ids)

    def take_all(self, session: Lent, namespace: int) -> None:
        """Remove the tags of every entry of a namespace."""
        session.driver.run(_DELETE_ALL, (namespace,))

    def keep_all(self, session: Lent, namespace: int, before: int, made: int) -> None:
        """Move the tags of every entry of a namespace to past states."""
        session.driver.run(_KEEP_ALL, {"namespace": namespace, "before": before, "made": made})
        session.driver.run(_DELETE_ALL, (namespace,))

    def date_past(self, session: Lent, now: int) -> None:
        """Give the tags of past states the instants of their states."""
        session.driver.run(session.driver.dialect.say(_DATE_PAST), {"now": now})

    def stored(self, *, is_past: bool) -> str:
        """Return the statement that reads all tags and the columns of their states beside them."""
        return _STORED.format("ended, made" if is_past else "NULL, NULL", self.tables[is_past].name)

    def summed(self, *, is_past: bool) -> str:
        """Return the statement that reads all tags with the ids of their names."""
        return _SUMMED.format(", ended, made" if is_past else "", self.tables[is_past].name)

    def rows_of(
        self, place: tuple[int, int, int, int, int], tags: Sequence[int | None], end: End | tuple[()]
    ) -> list[tuple[int | None, ...]]:
        """Return the rows of the tags of a state."""
        return [(tag, *place, *end) for tag in tags]

    def verify(
        self,
        namespace: str,
        entry: MemoryEntry,
        encoded: Encoded,  # noqa: ARG002  other side tables need the value
        end: End | None,
        rows: Sequence[tuple[Any, ...]],
    ) -> str | None:
        """Compare the tags of a state with those in its body, and the columns beside them with the state."""
        instant, _ = entry.position or (None, None)
        expected = (namespace, entry.category, entry.entity_type, instant, *(end or (None, None)))
        tags = set()
        for _, tag, *columns in rows:
            if tuple(columns) != expected:
                return "a tag of the past does not match its state" if end else "a tag does not match its entry"
            tags.add(tag)
        return None if tags == set(entry.tags) else "the tags of an entry are not those it was stored with"


def _ids(session: Lent, tags: Sequence[str]) -> list[int]:
    """Return the ids of the tags' names, each once."""
    return session.names.intern_all(*set(tags))


def _each(session: Lent, text: Callable[[int], str], ids: Sequence[int], bindings: tuple[int, ...]) -> None:
    """Run a statement that finds the rows of these tags: for each tag if they are few, else for each hundred.

    SQLite makes a table of its own for a list of several: 20 µs, as much as three times the statement for one.
    """
    if len(ids) > _FEW:
        _each_part(session, text, ids, bindings)
    else:
        session.driver.many(text(1), [(*bindings, tag) for tag in ids])


def _each_part(session: Lent, text: Callable[[int], str], ids: Sequence[int], bindings: tuple[int, ...]) -> None:
    """Run a statement for each hundred of these tags; `text` returns it for a number of tags."""
    for start in range(0, len(ids), AT_ONCE):
        part = ids[start : start + AT_ONCE]
        session.driver.run(text(len(part)), (*bindings, *part))


# In each statement the parameters of the tags come last.
@functools.lru_cache(maxsize=AT_ONCE)
def _insert(count: int) -> str:
    rows = ", ".join(f"(?1, ?{parameter}, ?2, ?3, ?4, ?5)" for parameter in range(6, 6 + count))
    return f"INSERT INTO tags (namespace, tag, instant, row, category, entity_type) VALUES {rows}"


@functools.lru_cache(maxsize=AT_ONCE)
def _delete(count: int) -> str:
    return f"DELETE FROM tags {_of_state(count)}"


@functools.lru_cache(maxsize=AT_ONCE)
def _delete_past(count: int) -> str:
    return f"DELETE FROM past_tags {_of_state(count)}"


def _of_state(count: int) -> str:
    marks = ", ".join(f"?{parameter}" for parameter in range(4, 4 + count))
    return f"WHERE namespace = ?1 AND tag IN ({marks}) AND instant = ?2 AND row = ?3"


@functools.lru_cache(maxsize=AT_ONCE)
def _keep(count: int) -> str:
    marks = ", ".join(f"?{parameter}" for parameter in range(6, 6 + count))
    return (
        "INSERT INTO past_tags SELECT namespace, tag, instant, row, category, entity_type, ?4, ?5 FROM tags "
        f"WHERE namespace = ?1 AND tag IN ({marks}) AND instant = ?2 AND row = ?3"
    )
