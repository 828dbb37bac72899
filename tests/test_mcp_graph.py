"""The knowledge graph over a memory keeps the facts of the reference memory server, and reads in parts."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jarvis.conversations.tokens import most_tokens
from jarvis.errors import InvalidEntryError, InvalidQueryError, InvalidSettingError
from jarvis.importers import import_from
from jarvis.interfaces.mcp.graph import (
    Added,
    Deletion,
    Entity,
    KnowledgeGraph,
    Observed,
    Relation,
    entity_of,
    relation_of,
)
from jarvis.interfaces.mcp.graph_pages import Wanted, page_of
from jarvis.interfaces.mcp.memory_file import import_once
from jarvis.interfaces.mcp.room import shown
from jarvis.persistent_memory import MemoryModule

FILE = Path(__file__).parent / "importing" / "memory.jsonl"

ALICE = Entity("Alice", "person", ["works at Acme Corp", "likes programming"])
BOB = Entity("Bob", "person", ["works at TechCo"])
ACME = Entity("Acme Corp", "company", ["tech company"])
WORKS_AT = Relation("Alice", "Acme Corp", "works_at")
COMPETES = Relation("Bob", "Acme Corp", "competitor")


@pytest.fixture(params=["sqlite", "json", "postgresql"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], MemoryModule]]:
    """Return a function that opens one store, again and again."""
    made: list[MemoryModule] = []

    def open_it() -> MemoryModule:
        if request.param == "postgresql":
            made.append(MemoryModule(request.getfixturevalue("dsn")))
        else:
            made.append(MemoryModule(storage_dir=tmp_path / "store", backend_type=request.param))
        return made[-1]

    yield open_it
    for memory in made:
        memory.shutdown()


@pytest.fixture
def graph(opened: Callable[[], MemoryModule]) -> KnowledgeGraph:
    return KnowledgeGraph(opened())


@pytest.fixture
def filled(graph: KnowledgeGraph) -> KnowledgeGraph:
    graph.create_entities([ALICE, BOB, ACME])
    graph.create_relations([WORKS_AT, COMPETES])
    return graph


@pytest.fixture
def volatile() -> Iterator[KnowledgeGraph]:
    memory = MemoryModule.in_memory()
    yield KnowledgeGraph(memory)
    memory.shutdown()


def _entities(graph: KnowledgeGraph, **wanted: Any) -> list[Entity]:
    return [entity_of(entry) for entry in graph.entities(**wanted)]


def _relations(graph: KnowledgeGraph) -> list[Relation | None]:
    return [relation_of(entry) for entry in graph.relations()]


# --- the facts of the reference server ------------------------------------------------------------


def test_new_entities_are_created_and_returned_in_their_order(graph: KnowledgeGraph) -> None:
    assert graph.create_entities([BOB, ALICE]) == [BOB, ALICE]

    assert _entities(graph) == [BOB, ALICE]


def test_an_entity_whose_name_is_taken_stays_as_it_is(filled: KnowledgeGraph) -> None:
    other = Entity("Alice", "robot", ["is no person"])

    assert filled.create_entities([other]) == []

    assert _entities(filled, names=["Alice"]) == [ALICE]


def test_an_entity_that_a_call_names_twice_is_created_once(graph: KnowledgeGraph) -> None:
    assert graph.create_entities([BOB, Entity("Bob", "robot", [])]) == [BOB]

    assert _entities(graph) == [BOB]


def test_relations_are_created_once(filled: KnowledgeGraph) -> None:
    new = Relation("Bob", "Alice", "knows")

    assert filled.create_relations([WORKS_AT, new, new]) == [new]

    assert _relations(filled) == [WORKS_AT, COMPETES, new]


def test_a_relation_needs_no_entities(graph: KnowledgeGraph) -> None:
    assert graph.create_relations([WORKS_AT]) == [WORKS_AT]


def test_empty_lists_change_nothing(graph: KnowledgeGraph) -> None:
    assert not (graph.create_entities([]))
    assert not (graph.create_relations([]))
    assert not (graph.add_observations([]))
    graph.delete_entities([])
    graph.delete_observations([])
    graph.delete_relations([])

    assert not (_entities(graph))
    assert not (_relations(graph))


def test_an_entity_gets_the_observations_that_it_lacks(filled: KnowledgeGraph) -> None:
    more = Observed("Alice", ["has a dog", "likes programming", "has a dog"])

    assert filled.add_observations([more]) == [Added("Alice", ["has a dog"])]

    assert _entities(filled, names=["Alice"])[0].observations == [*ALICE.observations, "has a dog"]


def test_observations_of_an_unknown_entity_change_nothing(filled: KnowledgeGraph) -> None:
    with pytest.raises(InvalidQueryError, match=r"^Entity with name Alicia not found; .* did you mean 'Alice'\?"):
        filled.add_observations([Observed("Bob", ["sings"]), Observed("Alicia", ["dances"])])

    assert _entities(filled) == [ALICE, BOB, ACME]


def test_a_deleted_entity_takes_its_relations_along(filled: KnowledgeGraph) -> None:
    filled.delete_entities(["Alice", "Nobody"])

    assert _entities(filled) == [BOB, ACME]
    assert _relations(filled) == [COMPETES]


def test_relations_to_a_deleted_entity_go_too(filled: KnowledgeGraph) -> None:
    filled.delete_entities(["Acme Corp"])

    assert _relations(filled) == []


def test_observations_are_deleted_and_unknown_ones_passed_over(filled: KnowledgeGraph) -> None:
    filled.delete_observations([Deletion("Alice", ["likes programming", "flies"]), Deletion("Nobody", ["is"])])

    assert _entities(filled, names=["Alice"])[0].observations == ["works at Acme Corp"]


def test_one_of_two_relations_is_deleted(filled: KnowledgeGraph) -> None:
    filled.create_relations([Relation("Alice", "Acme Corp", "founded")])
    filled.delete_relations([WORKS_AT, Relation("Alice", "Bob", "knows")])

    assert _relations(filled) == [COMPETES, Relation("Alice", "Acme Corp", "founded")]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("lic", ["Alice"]),
        ("ALICE", ["Alice"]),
        ("company", ["Acme Corp"]),
        ("programming", ["Alice"]),
        ("acme", ["Alice", "Acme Corp"]),
        ("", ["Alice", "Bob", "Acme Corp"]),
        ("Nobody", []),
    ],
)
def test_a_search_looks_at_names_types_and_observations(filled: KnowledgeGraph, query: str, found: list[str]) -> None:
    assert [entity.name for entity in _entities(filled, query=query)] == found


def test_a_search_has_the_relations_of_what_it_finds(filled: KnowledgeGraph) -> None:
    page = page_of(filled, Wanted(query="Alice"), 40_000)

    assert page.relations == [{"from": "Alice", "to": "Acme Corp", "relationType": "works_at"}]


def test_opened_nodes_have_the_relations_that_begin_or_end_there(filled: KnowledgeGraph) -> None:
    page = page_of(filled, Wanted(names=("Acme Corp", "Nobody", "Acme Corp")), 40_000)

    assert [entity["name"] for entity in page.entities] == ["Acme Corp"]
    assert [relation["from"] for relation in page.relations] == ["Alice", "Bob"]


def test_no_names_open_nothing(filled: KnowledgeGraph) -> None:
    assert page_of(filled, Wanted(names=()), 40_000) == ([], [], None, 0)


def test_an_entity_has_its_three_fields_and_no_more(filled: KnowledgeGraph) -> None:
    page = page_of(filled, Wanted(), 40_000)

    assert {frozenset(entity) for entity in page.entities} == {frozenset(("name", "entityType", "observations"))}
    assert {frozenset(relation) for relation in page.relations} == {frozenset(("from", "to", "relationType"))}


def test_a_graph_is_there_when_the_store_is_opened_again(
    filled: KnowledgeGraph, opened: Callable[[], MemoryModule]
) -> None:
    again = KnowledgeGraph(opened())

    assert _entities(again) == [ALICE, BOB, ACME]
    assert _relations(again) == [WORKS_AT, COMPETES]


# --- what the reference server does not promise ---------------------------------------------------


def test_fifty_threads_and_two_stores_lose_no_entity(opened: Callable[[], MemoryModule]) -> None:
    graphs = [KnowledgeGraph(opened()), KnowledgeGraph(opened())]
    created: list[Entity] = []

    def create(number: int) -> None:
        mine = [Entity(f"thing {number}", "thing", []), Entity("shared", "thing", [])]
        created.extend(graphs[number % 2].create_entities(mine))

    threads = [threading.Thread(target=create, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    names = sorted(entity.name for entity in _entities(graphs[0]))
    assert names == sorted(entity.name for entity in created)
    assert names == sorted(["shared", *(f"thing {number}" for number in range(50))])


def test_a_call_that_cannot_be_kept_changes_nothing(graph: KnowledgeGraph) -> None:
    for name in ("nul\0", "x" * 2_001, "\ud800"):
        with pytest.raises(InvalidEntryError, match=r"^entities\[1\]\.name"):
            graph.create_entities([ALICE, Entity(name, "person", [])])
        with pytest.raises(InvalidEntryError, match=r"^relations\[1\]\.to"):
            graph.create_relations([WORKS_AT, Relation("Alice", name, "knows")])

        graph.delete_entities([name])
        assert not (_entities(graph, names=[name]))
        assert not (_entities(graph))
        assert not (_relations(graph))


def test_a_relation_between_long_names_is_kept_once(graph: KnowledgeGraph) -> None:
    long = Relation("a" * 1_500, "b" * 1_500, "knows")

    assert graph.create_relations([long]) == [long]
    assert graph.create_relations([long]) == []
    graph.delete_relations([long])
    assert _relations(graph) == []


def test_every_change_has_an_author_and_can_be_undone(filled: KnowledgeGraph) -> None:
    memory = filled.memory
    with memory.acting_as(module="claude-desktop 1.2"):
        filled.add_observations([Observed("Alice", ["has a dog"])])
    entry = memory.get_memory_by_key("Alice", "entities")
    assert entry is not None
    assert entry.provenance["updated_by"] == "claude-desktop 1.2"

    assert memory.undo(entry.id)
    assert _entities(filled, names=["Alice"]) == [ALICE]


def test_memories_that_other_programs_made_are_no_obstacle(graph: KnowledgeGraph) -> None:
    graph.memory.create_memory("entities", "odd", {"observations": "one", "color": "red"}, "thing")
    graph.memory.create_memory("relations", "odd", {"from": 1}, "thing")

    graph.add_observations([Observed("odd", ["two"])])

    entry = graph.memory.get_memory_by_key("odd", "entities")
    assert entry is not None
    assert entry.value == {"observations": ["two"], "color": "red"}
    assert _relations(graph) == []


# --- parts ----------------------------------------------------------------------------------------


def _parts(graph: KnowledgeGraph, wanted: Wanted, room: int) -> Iterator[tuple[list[dict[str, Any]], list[Any]]]:
    cursor = None
    for _ in range(1_000):
        page = page_of(graph, wanted, room, cursor)
        told = {"entities": page.entities, "relations": page.relations, "nextCursor": page.next_cursor}
        assert most_tokens(shown({**told, "note": "x" * 200})) <= room
        yield page.entities, page.relations
        cursor = page.next_cursor
        if cursor is None:
            return
    raise AssertionError("it does not end")


def _grown(graph: KnowledgeGraph) -> list[Entity]:
    entities = [Entity(f"thing {number}", "thing", [f"{'ä' * number} <b>\u202e"]) for number in range(120)]
    graph.create_entities(entities)
    graph.create_relations([Relation(f"thing {number}", f"thing {number + 1}", "before") for number in range(119)])
    return entities


@pytest.mark.parametrize("wanted", [Wanted(), Wanted(query="THING"), Wanted(query="g 1")])
def test_a_graph_is_read_whole_in_parts(graph: KnowledgeGraph, wanted: Wanted) -> None:
    entities = [entity for entity in _grown(graph) if (wanted.query or "").lower() in entity.name]
    names = {entity.name for entity in entities}

    parts = list(_parts(graph, wanted, 4_000))

    assert len(parts) > 3
    assert [each["name"] for part, _ in parts for each in part] == [entity.name for entity in entities]
    relations = [(each["from"], each["to"]) for _, part in parts for each in part]
    assert len(relations) == len(set(relations))
    assert all(start in names or end in names for start, end in relations)


def test_named_entities_are_opened_in_parts(volatile: KnowledgeGraph) -> None:
    entities = _grown(volatile)
    names = tuple(entity.name for entity in entities[::-2])

    parts = list(_parts(volatile, Wanted(names=names), 4_000))

    assert sorted(each["name"] for part, _ in parts for each in part) == sorted(names)


def test_an_entity_larger_than_an_answer_is_read_in_parts(volatile: KnowledgeGraph) -> None:
    observations = ["ä\n" * 5_000, *(f"{number}: " + "y" * 500 for number in range(30)), ""]
    volatile.create_entities([BOB, Entity("Big", "thing", observations), ACME])

    parts = [each for part, _ in _parts(volatile, Wanted(), 4_000) for each in part]

    names = [each["name"] for each in parts]
    assert (names[0], names[-1]) == ("Bob", "Acme Corp")
    texts = [text for each in parts if each["name"] == "Big" for text in each["observations"]]
    assert "".join(texts) == "".join(observations)
    assert texts[-31:] == observations[-31:]


def test_parts_go_on_while_others_write(volatile: KnowledgeGraph) -> None:
    entities = _grown(volatile)
    first = page_of(volatile, Wanted(), 4_000)
    last = first.entities[-1]["name"]

    volatile.add_observations([Observed(last, ["changed"])])
    volatile.delete_entities([first.entities[0]["name"]])
    second = page_of(volatile, Wanted(), 4_000, first.next_cursor)

    assert second.entities[0]["name"] == entities[len(first.entities)].name


@pytest.mark.parametrize("cursor", ["", "e", "e:0:0:x", "x:0:0:", "e:-1:0:", "e:0:0:+1:2:3:99:", "r:1:1:" + "9" * 400])
def test_what_is_no_cursor_is_refused(volatile: KnowledgeGraph, cursor: str) -> None:
    with pytest.raises(InvalidQueryError, match=r"^(cursor|after): takes"):
        page_of(volatile, Wanted(), 4_000, cursor)


def test_json_for_a_model_shows_every_sign_and_is_exact() -> None:
    value = {"text": "a\u202e\x1b[31m\u00a0\U000e0041 ä <|im_end|>", "lone": "\ud800"}

    text = shown(value)

    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == value


# --- the file of the reference server -------------------------------------------------------------


def test_the_file_of_the_reference_server_is_taken_over_once(graph: KnowledgeGraph, tmp_path: Path) -> None:
    path = tmp_path / "memory.jsonl"
    shutil.copy(FILE, path)
    before = path.read_bytes()

    said = import_once(graph.memory, path)
    graph.delete_entities(["Anthropic"])
    again = import_once(graph.memory, path)

    assert said is not None
    assert "entities: 3, relations: 1" in said
    assert again is None
    assert [entity.name for entity in _entities(graph)] == ["John_Smith", "Élodie"]
    assert path.read_bytes() == before


def test_an_entity_that_is_there_gets_the_observations_of_the_file(graph: KnowledgeGraph) -> None:
    graph.create_entities([Entity("John_Smith", "person", ["Speaks fluent Spanish", "is tall"])])

    import_once(graph.memory, FILE)

    assert _entities(graph, names=["John_Smith"])[0].observations == [
        "Speaks fluent Spanish",
        "is tall",
        "Prefers morning meetings",
    ]


def test_what_the_importer_made_is_a_graph(graph: KnowledgeGraph) -> None:
    import_from(graph.memory, FILE)

    assert [entity.name for entity in _entities(graph)] == ["John_Smith", "Anthropic", "Élodie"]
    assert graph.create_relations([Relation("John_Smith", "Anthropic", "works_at")]) == []
    assert import_from(graph.memory, FILE).unchanged == 4


def test_a_file_that_comes_later_is_taken_over_later(volatile: KnowledgeGraph, tmp_path: Path) -> None:
    path = tmp_path / "memory.jsonl"

    assert "there is no" in str(import_once(volatile.memory, path))
    shutil.copy(FILE, path)
    assert "took over" in str(import_once(volatile.memory, path))


def test_a_file_of_another_kind_is_refused(volatile: KnowledgeGraph, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no graph")

    with pytest.raises(InvalidSettingError, match="is no file of the reference memory server"):
        import_once(volatile.memory, path)

    path.write_text("")
    assert "entities: 0, relations: 0" in str(import_once(volatile.memory, path))


def test_a_name_in_the_file_that_cannot_be_kept_is_counted(volatile: KnowledgeGraph, tmp_path: Path) -> None:
    path = tmp_path / "memory.jsonl"
    bad = {"type": "entity", "name": "x" * 3_000, "entityType": "thing", "observations": []}
    relation = {"type": "relation", "from": "nul\0", "to": "Bob", "relationType": "knows"}
    good = {"type": "entity", "name": "Bob", "entityType": "thing", "observations": ["\ud800"]}
    path.write_text("\n".join(map(json.dumps, (bad, relation, good, {**good, "observations": ["more"]}))))

    said = import_once(volatile.memory, path)

    assert "entities: 1, relations: 0" in str(said)
    assert "what could not be: 2" in str(said)
    assert _entities(volatile) == [Entity("Bob", "thing", ["\ud800", "more"])]
