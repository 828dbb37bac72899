"""`KnowledgeGraph`: entities and the relations between them, kept as memories.

An entity is a memory of the category ``entities`` whose key is its name; a relation is one of ``relations``. The
importer of files of the reference memory server makes the same memories, so an imported file is a graph.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from typing import Annotated, Any

import msgspec

from jarvis.errors import InvalidQueryError, JarvisError
from jarvis.importers.mcp_memory import ENTITIES, OBSERVATIONS, RELATION, RELATIONS, key_of_relation
from jarvis.model.entry import MemoryEntry, check_name
from jarvis.persistent_memory import MemoryModule

_PAGE, _MOST_NAMED, _MOST_IN_A_FILTER, _MOST_NEAR = 300, 10_000, 1_000, 3
_MOST_SHOWN = 200  # signs of a name in a message


Name = Annotated[str, msgspec.Meta(description="The name of an entity")]


class Entity(msgspec.Struct, rename="camel"):
    """A thing that is remembered, by a name that no other has."""

    name: Annotated[str, msgspec.Meta(description="The name of the entity; no two have the same")]
    entity_type: Annotated[str, msgspec.Meta(description="Its type, such as person or project")]
    observations: Annotated[list[str], msgspec.Meta(description="What is known about it, one fact in each text")]


class Relation(msgspec.Struct, frozen=True, rename="camel"):
    """How one entity relates to another. Outside, `source` and `target` are called ``from`` and ``to``."""

    source: Annotated[str, msgspec.Meta(description="The name of the entity where it begins")] = msgspec.field(
        name="from"
    )
    target: Annotated[str, msgspec.Meta(description="The name of the entity where it ends")] = msgspec.field(name="to")
    relation_type: Annotated[str, msgspec.Meta(description="A verb in the active voice, such as works_at")]


class Observed(msgspec.Struct, frozen=True, rename="camel"):
    """Observations to add to an entity."""

    entity_name: Name
    contents: Annotated[list[str], msgspec.Meta(description="The observations to add, one fact in each text")]


class Added(msgspec.Struct, frozen=True, rename="camel"):
    """The observations that an entity got, without those that it had."""

    entity_name: Name
    added_observations: Annotated[list[str], msgspec.Meta(description="The observations that it got")]


class Deletion(msgspec.Struct, frozen=True, rename="camel"):
    """Observations to delete from an entity."""

    entity_name: Name
    observations: Annotated[list[str], msgspec.Meta(description="The observations to delete, each as it is there")]


class KnowledgeGraph:
    """A graph in a memory. Each change is one transaction; entities and relations come in the order of their creation.

    >>> from jarvis.interfaces.mcp.graph import Entity, KnowledgeGraph
    >>> from jarvis.persistent_memory import MemoryModule
    >>> graph = KnowledgeGraph(MemoryModule.in_memory())
    >>> maria = Entity("Maria", "person", ["moves to Lisbon"])
    >>> graph.create_entities([maria]) == [maria], graph.create_entities([maria])
    (True, [])
    """

    def __init__(self, memory: MemoryModule) -> None:
        self.memory = memory

    def create_entities(self, entities: Sequence[Entity]) -> list[Entity]:
        """Create those entities whose names are new; return them.

        Raises:
            InvalidEntryError: an entity cannot be stored; nothing was created.
        """
        for number, entity in enumerate(entities):
            check_name(f"entities[{number}].name", entity.name)
            check_name(f"entities[{number}].entityType", entity.entity_type)
        created = []
        with self.memory.transaction():
            taken = {entry.key for entry in self._named([entity.name for entity in entities])}
            for entity in entities:
                if entity.name not in taken:
                    taken.add(entity.name)
                    value = {OBSERVATIONS: entity.observations}
                    self.memory.create_memory(ENTITIES, entity.name, value, entity.entity_type, entity.name)
                    created.append(entity)
        return created

    def create_relations(self, relations: Sequence[Relation]) -> list[Relation]:
        """Create those relations that are new; return them. The entities need not be there.

        Raises:
            InvalidEntryError: a relation cannot be stored; nothing was created.
        """
        for number, relation in enumerate(relations):
            for name, text in _value_of(relation).items():
                check_name(f"relations[{number}].{name}", text)
        created = []
        with self.memory.transaction():
            by_key = {_key_of(relation): relation for relation in relations}
            for keys in _parts([*by_key]):
                for entry in self.memory.search_memories(RELATIONS, keys=keys):
                    by_key.pop(entry.key, None)
            for key, relation in by_key.items():
                self.memory.create_memory(RELATIONS, key, _value_of(relation), RELATION)
                created.append(relation)
        return created

    def add_observations(self, additions: Sequence[Observed]) -> list[Added]:
        """Add to each entity the observations that it lacks; return those.

        Raises:
            InvalidQueryError: an entity is not there; nothing was added.
        """
        with self.memory.transaction():
            return [self._add(addition) for addition in additions]

    def _add(self, addition: Observed) -> Added:
        entry = self.memory.get_memory_by_key(addition.entity_name, ENTITIES)
        if entry is None:
            near = " or ".join(map(repr, self._near(addition.entity_name)))
            way_out = f"did you mean {near}?" if near else "search_nodes finds names"
            raise InvalidQueryError(
                f"Entity with name {addition.entity_name[:_MOST_SHOWN]} not found; nothing was changed; {way_out}"
            )
        observations = observations_of(entry)
        new = [text for text in dict.fromkeys(addition.contents) if text not in set(observations)]
        if new:
            self.memory.update_memory(entry.id, {**entry.value, OBSERVATIONS: observations + new})
        return Added(addition.entity_name, new)

    def delete_entities(self, names: Collection[str]) -> None:
        """Delete the entities with these names, and all relations that begin or end there."""
        with self.memory.transaction():
            for some in _parts([*names]):
                self.memory.delete_memories(ENTITIES, keys=list(filter(can_be, some)))
                self.memory.delete_memories(RELATIONS, where=_touching(some))

    def delete_observations(self, deletions: Sequence[Deletion]) -> None:
        """Delete observations; what is not there is passed over."""
        with self.memory.transaction():
            for deletion in deletions:
                for entry in self._named([deletion.entity_name]):
                    observations, gone = observations_of(entry), set(deletion.observations)
                    rest = [text for text in observations if text not in gone]
                    if rest != observations:
                        self.memory.update_memory(entry.id, {**entry.value, OBSERVATIONS: rest})

    def delete_relations(self, relations: Sequence[Relation]) -> None:
        """Delete relations; what is not there is passed over."""
        with self.memory.transaction():
            for keys in _parts([*{_key_of(relation) for relation in relations}]):
                self.memory.delete_memories(RELATIONS, keys=keys)

    def entities(
        self, *, query: str | None = None, names: Collection[str] | None = None, after: str | None = None
    ) -> Iterator[MemoryEntry]:
        """Yield the memories of the entities that have a text or a name, of all without both.

        Args:
            query: a part of the name, the type or an observation; case does not matter.
            after: begin after this place, see `MemoryEntry.cursor`.
        """
        if names is not None:
            wanted = (entry for some in _parts([*dict.fromkeys(names)]) for entry in self._named(some))
            yield from sorted(wanted, key=lambda entry: (entry.creation, entry.order))
            return
        needle = None if query is None else query.lower()
        for entry in self._each(ENTITIES, after):
            if needle is None or any(needle in text.lower() for text in _texts_of(entry)):
                yield entry

    def relations(self, *, of: Collection[str] | None = None, after: str | None = None) -> Iterator[MemoryEntry]:
        """Yield the memories of the relations that begin or end at one of some entities, of all without `of`."""
        wanted = None if of is None else set(of)
        where = None if wanted is None or len(wanted) > _MOST_IN_A_FILTER else _touching([*wanted])
        for entry in self._each(RELATIONS, after, where):
            relation = relation_of(entry)
            if relation is not None and (wanted is None or relation.source in wanted or relation.target in wanted):
                yield entry

    def _each(self, category: str, after: str | None, where: dict[str, Any] | None = None) -> Iterator[MemoryEntry]:
        """Yield the memories of a category: first a page, as mostly no more are wanted, then the rest in one pass.

        A page costs 0.05 s in a graph of 100,000, because there is no index of the order of creation.
        """
        if where is None:
            page = self.memory.search_memories(category, order="created", ascending=True, limit=_PAGE, after=after)
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1].cursor
        rest = self.memory.iter_memories(category, where=where, order="created", ascending=True, after=after)
        with contextlib.closing(rest):  # type: ignore[type-var]  # it is a generator, which can be closed
            yield from rest

    def _named(self, names: Sequence[str]) -> list[MemoryEntry]:
        found: list[MemoryEntry] = []
        for some in _parts([*dict.fromkeys(names)]):
            found += self.memory.search_memories(ENTITIES, keys=list(filter(can_be, some)))
        return found

    def _near(self, name: str) -> list[str]:
        """Return names of entities that share words with a name, or are spelt nearly so."""
        near = self.memory.search_text(f"{name} {name.replace('_', ' ')}", category=ENTITIES, limit=_MOST_NEAR)
        return list(dict.fromkeys(recalled.entry.key for recalled in near))


def entity_of(entry: MemoryEntry) -> Entity:
    """Return a memory as an entity."""
    return Entity(entry.key, entry.entity_type, observations_of(entry))


def observations_of(entry: MemoryEntry) -> list[str]:
    """Return the observations in a memory; none if another program made it otherwise."""
    observations = entry.value.get(OBSERVATIONS)
    return [text for text in observations if isinstance(text, str)] if isinstance(observations, list) else []


def relation_of(entry: MemoryEntry) -> Relation | None:
    """Return a memory as a relation, None if another program made it otherwise."""
    try:
        return msgspec.convert(entry.value, Relation)
    except msgspec.ValidationError:
        return None


def _texts_of(entry: MemoryEntry) -> Iterator[str]:
    yield entry.key
    yield entry.entity_type
    yield from observations_of(entry)


def _value_of(relation: Relation) -> dict[str, str]:
    return {"from": relation.source, "relationType": relation.relation_type, "to": relation.target}


def _key_of(relation: Relation) -> str:
    return key_of_relation(_value_of(relation))


def _touching(names: Sequence[str]) -> dict[str, Any]:
    return {"$or": [{"from": {"$in": [*names]}}, {"to": {"$in": [*names]}}]}


def can_be(name: str) -> bool:
    """Tell whether a memory can have such a key: what is looked up is refused otherwise."""
    try:
        check_name("name", name)
    except JarvisError:
        return False
    return True


def _parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), _MOST_NAMED):
        yield names[start : start + _MOST_NAMED]
