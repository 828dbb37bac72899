"""The rows that say which entries have a tag: one for each tag of an entry, with what narrows questions by tag."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jarvis._sql.session import Session

AT_ONCE = 100
"""So many tags of an entry are written by one statement."""


def ids(session: Session, tags: Sequence[str]) -> list[int]:
    """Return the ids of tags as names, each once."""
    return session.names.intern_all(*set(tags)) if tags else []


def put(session: Session, tags: Sequence[int], entry: tuple[int, int, int, int, int]) -> None:
    """Note the tags of an entry: (namespace, instant, row, category, entity type)."""
    _each_part(session, _insert, tags, entry)


def take(session: Session, tags: Sequence[int], entry: tuple[int, int, int]) -> None:
    """Remove the tags of an entry: (namespace, instant, row)."""
    _each_part(session, _delete, tags, entry)


def take_past(session: Session, tags: Sequence[int], state: tuple[int, int, int]) -> None:
    """Remove the tags of a past state: (namespace, instant, row)."""
    _each_part(session, _delete_past, tags, state)


def keep(session: Session, tags: Sequence[int], state: tuple[int, int, int, int, int]) -> None:
    """Note the tags of an entry as those of a past state: (namespace, instant, row, number that ended it, instant)."""
    _each_part(session, _keep, tags, state)


def _each_part(session: Session, text: Callable[[int], str], ids: Sequence[int], others: tuple[int, ...]) -> None:
    """Run a statement for the tags with these ids, or for each hundred of them: `text` is its text for so many."""
    for start in range(0, len(ids), AT_ONCE):
        part = ids[start : start + AT_ONCE]
        session.run(text(len(part)), (*others, *part))


# In each, the numbered parameters come first and those of the tags behind them.
@functools.lru_cache(maxsize=AT_ONCE)
def _insert(count: int) -> str:
    rows = ", ".join(f"(?1, ?{place}, ?2, ?3, ?4, ?5)" for place in range(6, 6 + count))
    return f"INSERT INTO tags (namespace, tag, instant, row, category, entity_type) VALUES {rows}"


@functools.lru_cache(maxsize=AT_ONCE)
def _delete(count: int) -> str:
    return f"DELETE FROM tags {_of_state(count)}"


@functools.lru_cache(maxsize=AT_ONCE)
def _delete_past(count: int) -> str:
    return f"DELETE FROM past_tags {_of_state(count)}"


def _of_state(count: int) -> str:
    marks = ", ".join(f"?{place}" for place in range(4, 4 + count))
    return f"WHERE namespace = ?1 AND tag IN ({marks}) AND instant = ?2 AND row = ?3"


@functools.lru_cache(maxsize=AT_ONCE)
def _keep(count: int) -> str:
    marks = ", ".join(f"?{place}" for place in range(6, 6 + count))
    return (
        "INSERT INTO past_tags SELECT namespace, tag, instant, row, category, entity_type, ?4, ?5 FROM tags "
        f"WHERE namespace = ?1 AND tag IN ({marks}) AND instant = ?2 AND row = ?3"
    )
