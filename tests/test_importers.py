"""What users have in other programs is imported once, with its times; what cannot be stored is reported."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import types
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from jarvis.errors import InvalidSettingError, JarvisError, StoreAccessError, StoreMissingError
from jarvis.importers import Imported, import_from, known_kinds
from jarvis.importers.source import Item
from jarvis.persistent_memory import MemoryModule

SOURCES = Path(__file__).parent / "importing"
KINDS = ["chatgpt", "langgraph", "markdown", "mcp-memory", "mem0"]


@pytest.fixture(params=["sqlite", "json", "postgresql"])
def memory(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryModule:
    if request.param == "postgresql":
        return MemoryModule(request.getfixturevalue("dsn"))
    return MemoryModule(storage_dir=tmp_path / "store", backend_type=request.param)


@pytest.fixture
def source(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that makes the source of a kind."""

    def make(kind: str) -> Path:
        if kind in ("mem0", "langgraph"):
            path = tmp_path / f"{kind}.db"
            with sqlite3.connect(path) as connection:
                connection.executescript((SOURCES / f"{kind}.sql").read_text(encoding="utf-8"))
            connection.close()
            return path
        name = {"chatgpt": "conversations.json", "markdown": "vault", "mcp-memory": "memory.jsonl"}[kind]
        made = tmp_path / name
        (shutil.copytree if kind == "markdown" else shutil.copy)(SOURCES / name, made)
        return made

    return make


def _reasons(imported: Imported) -> dict[str, str]:
    return {each.place: each.reason for each in imported.unmapped}


def _values(memory: MemoryModule, category: str) -> dict[str, dict[str, Any]]:
    return {entry.key: entry.value for entry in memory.search_memories(category)}


CREATED = {"chatgpt": 2, "langgraph": 2, "markdown": 4, "mcp-memory": 4, "mem0": 2}


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_is_recognized_and_imported_once(memory: MemoryModule, source: Any, kind: str) -> None:
    path, told = source(kind), list[tuple[int, int]]()

    dry = import_from(memory, path, dry_run=True)
    assert memory.count_memories() == 0
    first = import_from(memory, path, progress=lambda *so_far: told.append(so_far))
    before = memory.list_memories()
    second = import_from(memory, path, kind)

    assert dry == first
    assert (first.kind, first.created, first.updated, first.unchanged) == (kind, CREATED[kind], 0, 0)
    assert (second.created, second.updated, second.unchanged) == (0, 0, CREATED[kind])
    assert second.unmapped == first.unmapped
    assert memory.list_memories() == before
    assert told[-1] == (len(told), len(told))
    assert {entry.provenance["module"] for entry in before} == {kind}
    memory.shutdown()


def test_a_knowledge_graph_has_entities_and_relations(memory: MemoryModule, source: Any) -> None:
    imported = import_from(memory, source("mcp-memory"))

    assert _values(memory, "entities") == {
        "John_Smith": {"observations": ["Speaks fluent Spanish", "Prefers morning meetings"]},
        "Anthropic": {"observations": ["Founded in 2021"]},
        "Élodie": {"observations": []},
    }
    (relation,) = memory.get_memories_by_category("relations")
    assert relation.value == {"from": "John_Smith", "relationType": "works_at", "to": "Anthropic"}
    assert [entry.key for entry in memory.get_memories_by_entity("person", "John_Smith")] == ["John_Smith"]
    assert _reasons(imported) == {
        "memory.jsonl, line 3": "is no JSON",
        "memory.jsonl, line 4": "the field 'observations' is missing or of another type",
        "memory.jsonl, line 5": "is neither an entity nor a relation",
        "memory.jsonl, line 8": "the field 'createdAt' is not known",
    }
    memory.shutdown()


def test_a_relation_between_long_names_is_imported_once(memory: MemoryModule, tmp_path: Path) -> None:
    path = tmp_path / "memory.jsonl"
    relation = {"from": "a" * 1_500, "relationType": "knows", "to": "b" * 1_500}
    path.write_text(json.dumps({"type": "relation", **relation}))

    assert import_from(memory, path).created == import_from(memory, path).unchanged == 1

    (entry,) = memory.get_memories_by_category("relations")
    assert entry.value == relation
    memory.shutdown()


def test_a_note_has_its_properties_tags_and_times(memory: MemoryModule, source: Any) -> None:
    path = source("markdown")
    imported = import_from(memory, path)

    coffee = memory.get_memory_by_key("projects/Coffee Brewing.md", "notes")
    assert coffee is not None
    assert coffee.value["title"] == "Coffee Brewing Methods"
    assert coffee.value["text"].startswith("# Coffee Brewing Methods\n\n- [method] Pour over")
    assert coffee.value["properties"]["permalink"] == "projects/coffee-brewing"
    assert (coffee.entity_type, coffee.tags) == ("guide", ["coffee", "brewing"])
    assert coffee.created_at == datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
    assert coffee.timestamp == datetime(2024, 2, 20).astimezone()
    daily, rules = (memory.get_memory_by_key(key, "notes") for key in ("daily.md", "CLAUDE.md"))
    assert daily is not None
    assert (daily.tags, daily.timestamp) == (["journal", "home"], datetime(2024, 3, 1).astimezone())
    assert rules is not None
    assert rules.value == {"title": "CLAUDE", "text": "# Project rules\n\n- Use tabs.\n"}
    assert abs(rules.timestamp.timestamp() - (path / "CLAUDE.md").stat().st_mtime) < 1e-5
    reasons = _reasons(imported)
    assert (reasons["img/photo.png"], reasons["latin.md"]) == ("is no note", "is not UTF-8")
    assert "no YAML (line" in reasons["projects/broken.md"]
    assert _values(memory, "notes")["projects/broken.md"]["text"].endswith("The text is kept.\n")
    assert len(reasons) == 3
    memory.shutdown()


def test_a_conversation_is_the_branch_that_was_last_seen(memory: MemoryModule, source: Any) -> None:
    imported = import_from(memory, source("chatgpt"))

    bread = memory.get_memory_by_key("6b1b1c4e-0b57-4b5e-9f51-0d7a4a9f2f10", "conversations")
    assert bread is not None
    assert [(each["role"], each["text"]) for each in bread.value["messages"]] == [
        ("user", "What bread is this?"),
        ("assistant", "It looks like soda bread."),
        ("user", "Thanks 🍞"),
    ]
    assert bread.value["messages"][0]["at"] == datetime(2023, 11, 9, 21, 20, 1, tzinfo=UTC)
    assert bread.created_at == datetime.fromtimestamp(1699564800.123, UTC)
    assert bread.timestamp == datetime.fromtimestamp(1699568400.5, UTC)
    assert [(each.place, each.reason) for each in imported.unmapped] == [
        ("conversations.json, conversation 1", "1 parts of messages are no text, such as images"),
        ("conversations.json, conversation 1", "1 messages are of branches that were left"),
        ("conversations.json, conversation 2", "has no id"),
        ("conversations.json, conversation 3", "is no conversation"),
    ]
    memory.shutdown()


def test_memories_of_mem0_are_as_they_were_last(memory: MemoryModule, source: Any) -> None:
    imported = import_from(memory, source("mem0"))

    tea = memory.get_memory_by_key("f0a1", "mem0")
    assert tea is not None
    assert tea.value == {"memory": "Likes green tea", "actor_id": "alice", "role": "user"}
    west = timezone(timedelta(hours=-8))
    assert tea.created_at == datetime(2025, 1, 10, 8, tzinfo=west)
    assert tea.timestamp == datetime(2025, 2, 1, 9, 30, tzinfo=west)
    assert _values(memory, "mem0").keys() == {"f0a1", "f0a4"}
    assert _reasons(imported) == {
        "mem0.db, row 5 of history": "tells no memory",
        "mem0.db, table messages": "its 1 messages are no memories",
    }
    memory.shutdown()


def test_items_of_langgraph_keep_namespace_times_and_expiry(memory: MemoryModule, source: Any) -> None:
    imported = import_from(memory, source("langgraph"))

    food, soon = (memory.get_memory_by_key(key, "users.alice") for key in ("food", "soon"))
    assert food is not None
    assert food.value == {"likes": ["pizza"], "n": 3}
    assert food.created_at == datetime(2025, 3, 1, 12, tzinfo=UTC)
    assert food.timestamp == datetime(2025, 3, 2, 13, tzinfo=UTC)
    assert soon is not None
    assert soon.expires_at == datetime(2999, 1, 1, tzinfo=UTC)
    reasons = _reasons(imported)
    assert reasons["langgraph.db, row 3 of store"] == "has expired"
    assert reasons["langgraph.db, row 4 of store"] == "its value is no JSON"
    assert reasons["langgraph.db, row 5 of store"] == "its value is no object of JSON"
    assert reasons["langgraph.db, table store_vectors"] == "its 1 vectors are no memories"
    memory.shutdown()


def test_what_changed_there_is_updated_and_can_be_undone(memory: MemoryModule, tmp_path: Path) -> None:
    note = tmp_path / "note.md"
    note.write_text("one", encoding="utf-8")
    import_from(memory, note)
    note.write_text("---\ntype: plan\ntags: [x]\n---\ntwo", encoding="utf-8")

    assert import_from(memory, note).updated == 1

    (entry,) = memory.list_memories()
    assert (entry.value["text"], entry.tags, entry.entity_type) == ("two", ["x"], "plan")
    memory.undo(entry.id)
    assert memory.list_memories()[0].value["text"] == "one"
    memory.shutdown()


def test_a_memory_of_another_origin_is_left_alone(memory: MemoryModule, tmp_path: Path) -> None:
    mine = memory.create_memory("notes", "note.md", {"text": "mine"}, "note")
    (tmp_path / "note.md").write_text("theirs", encoding="utf-8")

    imported = import_from(memory, tmp_path / "note.md")

    assert "was not imported" in _reasons(imported)["note.md"]
    assert [entry.id for entry in memory.list_memories()] == [mine]
    memory.shutdown()


def test_an_import_that_fails_leaves_nothing(memory: MemoryModule, source: Any) -> None:
    def stop(number: int, _: int) -> None:
        if number == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_from(memory, source("markdown"), progress=stop)

    assert memory.count_memories() == 0
    memory.shutdown()


# --- sources that are none -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b"\x00\xff" * 50, b"[" * 100_000, b"SQLite format 3\0" + bytes(500)]
)
def test_a_file_of_another_kind_is_told_with_the_kinds(tmp_path: Path, kind: str, text: bytes) -> None:
    (tmp_path / "file.bin").write_bytes(text)
    memory = MemoryModule(storage_dir=tmp_path / "store")

    with pytest.raises(InvalidSettingError, match="of no known kind; known: chatgpt, langgraph"):
        import_from(memory, tmp_path / "file.bin")
    with pytest.raises((InvalidSettingError, StoreAccessError)) as caught:
        import_from(memory, tmp_path / "file.bin", kind)

    assert "known: chatgpt, langgraph" in str(caught.value) or isinstance(caught.value, StoreAccessError)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_an_absent_source_is_told(tmp_path: Path, kind: str | None) -> None:
    memory = MemoryModule(storage_dir=tmp_path / "store")

    with pytest.raises(StoreMissingError, match="nowhere"):
        import_from(memory, tmp_path / "nowhere", kind)


def test_a_sqlite_file_that_is_damaged_is_told_and_imports_nothing(tmp_path: Path, source: Any) -> None:
    path = source("langgraph")
    data = bytearray(path.read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    path.write_bytes(data)
    memory = MemoryModule(storage_dir=tmp_path / "store")

    with pytest.raises(StoreAccessError, match=r"langgraph\.db: cannot read: SQLite says SQLITE_"):
        import_from(memory, path, "langgraph")
    assert memory.count_memories() == 0
    memory.shutdown()


def test_a_row_that_is_no_text_loses_no_other(tmp_path: Path, source: Any) -> None:
    path = source("langgraph")
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO store (prefix, key, value) VALUES ('p', x'ff', '{}')")
        connection.execute("INSERT INTO store (prefix, key, value) VALUES ('p', 'k', CAST(x'7bff7d' AS TEXT))")
    connection.close()
    memory = MemoryModule(storage_dir=tmp_path / "store")

    imported = import_from(memory, path)

    assert imported.created == CREATED["langgraph"]
    assert {"langgraph.db, row 6 of store", "langgraph.db, row 7 of store"} <= _reasons(imported).keys()
    memory.shutdown()


HOSTILE: list[Any] = [None, 5, b"x", "", "a\0b", "\ud83d", object(), [], Path("x/" * 3_000)]


@pytest.mark.parametrize("path", HOSTILE, ids=lambda each: repr(each)[:20])
def test_hostile_arguments_are_our_errors(tmp_path: Path, path: Any) -> None:
    memory, note = MemoryModule(storage_dir=tmp_path / "store"), tmp_path / "a.md"
    note.write_text("x", encoding="utf-8")

    other: Any = "x" if path is None else path  # None is fit for the others

    for arguments in ((memory, path), (path, note), (memory, note, other)):
        with pytest.raises(JarvisError):
            import_from(*arguments)
    with pytest.raises(JarvisError):
        import_from(memory, note, progress=other)


def test_a_package_adds_a_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = types.ModuleType("letters_importer")
    module.looks_like = lambda path: path.suffix == ".letters"
    module.read = lambda path: (
        Item(place=sign, category="letters", key=sign, value={}, entity_type="letter") for sign in path.read_text()
    )
    monkeypatch.setitem(sys.modules, "letters_importer", module)
    info = tmp_path / "letters-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: letters\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[jarvis.importers]\nletters = letters_importer\nlost = not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "a.letters").write_text("abc")
    memory = MemoryModule(storage_dir=tmp_path / "store")

    assert known_kinds() == sorted([*KINDS, "letters", "lost"])
    assert import_from(memory, tmp_path / "a.letters").created == 3
    with pytest.raises(InvalidSettingError, match="importer 'lost' cannot be imported: ModuleNotFoundError"):
        import_from(memory, tmp_path / "a.letters", "lost")
    memory.shutdown()
