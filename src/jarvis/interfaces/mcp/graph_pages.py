"""Parts of a graph that have room in the context of a model, each with the place where the next part begins.

A place is the text ``list:observation:sign:cursor``: the list is ``e`` (entities) or ``r`` (relations), the cursor is
that of a memory, without its key. With 0 and 0 the part begins after that memory; else inside of it, at this sign of
this observation. So an entity of any size can be read, part by part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from jarvis.conversations.tokens import most_tokens
from jarvis.errors import InvalidQueryError
from jarvis.interfaces.mcp.graph import Entity, KnowledgeGraph, entity_of, relation_of
from jarvis.interfaces.mcp.room import beginning_that_fits, shown, size_of
from jarvis.model.entry import MemoryEntry

_FRAME = 700  # the lists' names, the cursor and the note
_DEPTH, _LINE = 2, 10  # levels that an entity is indented, signs that its observation is, with what ends the line
_PLACE = re.compile(
    r"([er]):([0-9]{1,12}):([0-9]{1,12}):((?:\+-?[0-9]{1,19}:[0-9]{1,19}:-?[0-9]{1,19}:[0-9]{1,4}:.+)?)"
)


class Wanted(NamedTuple):
    """The part of a graph that a call asks for; without a query and names it is the whole."""

    query: str | None = None
    names: tuple[str, ...] | None = None

    @property
    def is_all(self) -> bool:
        """Whether it is the whole graph."""
        return self.query is None and self.names is None


class Page(NamedTuple):
    """A part of an answer.

    Attributes:
        entities, relations: as the reference server writes them.
        next_cursor: where the next part begins; None if there is no more.
        left_out: the number of entities with names so long that they have no room.
    """

    entities: list[dict[str, Any]]
    relations: list[dict[str, Any]]
    next_cursor: str | None
    left_out: int = 0


class _Place(NamedTuple):
    """A place in an answer, see above."""

    is_relation: bool = False
    observation: int = 0
    sign: int = 0
    after: str | None = None

    def __str__(self) -> str:
        return f"{'r' if self.is_relation else 'e'}:{self.observation}:{self.sign}:{self.after or ''}"

    @property
    def is_inside(self) -> bool:
        """Whether it is inside of an entity, not between two."""
        return bool(self.observation or self.sign)

    @property
    def entity_id(self) -> str | None:
        """The id of the entity that it is in or after."""
        return None if self.after is None else self.after.split(":", 4)[4]


class _FullError(Exception):
    """The page has no room left; the argument is the place where the next one begins."""


def page_of(graph: KnowledgeGraph, wanted: Wanted, room: int, cursor: str | None = None) -> Page:
    """Return what has room of the entities that are wanted and the relations from or to them.

    Raises:
        InvalidQueryError: `cursor` is none.
    """
    filling = _Filling(graph, wanted, room - _FRAME, begins=cursor is None)
    place = _Place() if cursor is None else _place_at(cursor)
    try:
        if not place.is_relation:
            filling.add_entities(place)
            place = _Place(is_relation=True)
        filling.add_relations(place)
    except _FullError as full:
        return filling.page(str(full.args[0]))
    return filling.page(None)


class _Filling:
    """A page that is being filled; the one that `begins` an answer has all entities before a relation is asked for."""

    def __init__(self, graph: KnowledgeGraph, wanted: Wanted, room: int, *, begins: bool) -> None:
        self._graph, self._wanted, self._room = graph, wanted, room
        self._entities: list[dict[str, Any]] = []
        self._relations: list[dict[str, Any]] = []
        self._left_out = 0
        self._begins = begins

    def page(self, cursor: str | None) -> Page:
        """Return the page."""
        return Page(self._entities, self._relations, cursor, self._left_out)

    def add_entities(self, place: _Place) -> None:
        """Add the entities from a place on; raise `_FullError` if not all have room."""
        if place.is_inside and place.entity_id is not None:
            begun = self._graph.memory.get_memory(place.entity_id)
            if begun is not None:
                self._add_entity(begun, place, place)
        before = place._replace(observation=0, sign=0)
        for entry in self._found(place.after):
            if entry.id != place.entity_id:  # it was changed meanwhile, which moves it behind the place
                self._add_entity(entry, before, _Place())
                before = _Place(after=_cursor_of(entry))

    def _found(self, after: str | None) -> Iterator[MemoryEntry]:
        if self._wanted.names is None:
            yield from self._graph.entities(query=self._wanted.query, after=after)
            return
        found = list(self._graph.entities(names=self._wanted.names))
        cursors = [_cursor_of(entry) for entry in found]
        yield from found[cursors.index(after) + 1 if after in cursors else 0 :]

    def _add_entity(self, entry: MemoryEntry, before: _Place, start: _Place) -> None:
        """Add an entity, or its rest; what has no room is left to the next page, which begins with it."""
        entity = entity_of(entry)
        entity.observations = entity.observations[start.observation :]
        if entity.observations and start.sign:
            entity.observations[0] = entity.observations[0][start.sign :]
        size = _size_of(entity)
        if size <= self._room:
            self._put(entity, size)
        elif self._entities:
            raise _FullError(before)
        else:
            self._add_part(entity, entry, start)

    def _add_part(self, entity: Entity, entry: MemoryEntry, start: _Place) -> None:
        """Add the first observations of an entity that is longer than a page; if none fits, the beginning of one."""
        all_of_it, entity.observations = entity.observations, []
        size, sign = _size_of(entity) + _LINE, 0
        for text in all_of_it:
            more = most_tokens(shown(text)) + _LINE
            if size + more > self._room:
                break
            size += more
            entity.observations.append(text)
        count = len(entity.observations)
        if not count and all_of_it and size < self._room:
            sign = beginning_that_fits(all_of_it[0], self._room - size - _LINE)
            entity.observations.append(all_of_it[0][:sign])
        if not count and not sign:
            self._left_out += 1
            return
        self._put(entity, size)
        if count < len(all_of_it):
            signs_before = start.sign if count == 0 else 0
            raise _FullError(_Place(False, start.observation + count, signs_before + sign, _cursor_of(entry)))

    def _put(self, entity: Entity, size: int) -> None:
        self._entities.append(msgspec.to_builtins(entity))
        self._room -= size

    def add_relations(self, place: _Place) -> None:
        """Add the relations from a place on; raise `_FullError` if not all have room."""
        last = place
        names = self._names()
        if names is not None and not names:
            return
        for entry in self._graph.relations(of=names, after=place.after):
            relation = msgspec.to_builtins(relation_of(entry))
            size = size_of(relation, _DEPTH)
            if size <= self._room:
                self._relations.append(relation)
                self._room -= size
            elif self._relations or self._entities:
                raise _FullError(last)
            else:
                self._left_out += 1
            last = _Place(is_relation=True, after=_cursor_of(entry))

    def _names(self) -> set[str] | None:
        """Return the names of the entities that are wanted, None for all."""
        if self._wanted.is_all:
            return None
        if self._begins:
            return {str(entity["name"]) for entity in self._entities}
        return {entry.key for entry in self._graph.entities(query=self._wanted.query, names=self._wanted.names)}


def _size_of(entity: Entity) -> int:
    return size_of(msgspec.to_builtins(entity), _DEPTH)


def _cursor_of(entry: MemoryEntry) -> str:
    """Return the cursor of a memory for lists in the order of creation, which do without the key."""
    return entry.cursor.removesuffix(entry.key)


def _place_at(cursor: str) -> _Place:
    match = _PLACE.fullmatch(cursor)
    if match is None:
        raise InvalidQueryError("cursor: takes the nextCursor of an earlier answer to the same question, as it was")
    kind, observation, sign, after = match.groups()
    return _Place(kind == "r", int(observation), int(sign), after or None)
