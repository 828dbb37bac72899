"""The command line: every command on a real store of every backend."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jarvis.interfaces.cli.app import GROUPS
from jarvis.keys import KeyFile
from jarvis.persistent_memory import MemoryModule
from tests.commands import Ended, called, run
from tests.postgresql import a_database

BACKENDS = ("sqlite", "json", "postgresql")


class Person:
    """A person at a store, and where that is."""

    def __init__(self, backend: str, place: str, directory: Path) -> None:
        self.backend, self.place, self.directory = backend, place, directory
        self._opened: list[MemoryModule] = []
        self.options = ["--store", place, *([] if backend == "postgresql" else ["--backend", backend])]

    def does(self, *arguments: str, given: str = "") -> Ended:
        """Run a command on the store."""
        return called(*arguments, *self.options, given=given)

    def says(self, *arguments: str, given: str = "") -> str:
        """Run a command that works, and return what it wrote."""
        ended = self.does(*arguments, given=given)
        assert ended.code == 0, ended
        return ended.out

    def reads(self, *arguments: str) -> Any:
        """Run a command that works, and return its JSON."""
        return json.loads(self.says(*arguments, "--json"))

    @property
    def memory(self) -> MemoryModule:
        """The memory of the store."""
        is_server = self.backend == "postgresql"
        memory = MemoryModule(self.place) if is_server else MemoryModule(None, self.place, self.backend)
        self._opened.append(memory)
        return memory

    def leaves(self) -> None:
        """Close what was opened."""
        for memory in self._opened:
            memory.shutdown()

    def fill(self) -> None:
        """Put some memories into the store."""
        self.says("set", "preferences/theme", "mode=dark", "size=3", "--tag", "ui")
        self.says("set", "tasks/task_1", "status=failed", "duration=45", "--entity-type", "task", "--entity-id", "1")
        self.says("set", "tools/grep", "purpose=find lines", "--tag", "learned")
        self.says("remember", "Maria moves to Lisbon in May", "--about", "person/maria")


@pytest.fixture(params=BACKENDS)
def person(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Person]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("JARVIS_MEMORY_STORE", raising=False)
    if request.param != "postgresql":
        person = Person(request.param, str(tmp_path / "store"), tmp_path)
        yield person
        person.leaves()
        return
    with a_database() as dsn:
        person = Person(request.param, dsn, tmp_path)
        yield person
        person.leaves()


# --- each command, as a person uses it --------------------------------------------------------------


def _list(person: Person) -> None:
    lines = person.says("list").splitlines()
    assert [line.split("\t")[1] for line in lines][::3] == ["facts/maria moves to lisbon in may", "preferences/theme"]
    assert [each["key"] for each in person.reads("list", "tasks")] == ["task_1"]
    assert len(person.reads("list", "--limit", "2")) == 2
    assert person.reads("list", "--order", "key", "--ascending")[0]["key"] == "grep"


def _get(person: Person) -> None:
    entry = person.reads("get", "preferences/theme")
    assert entry["value"] == {"mode": "dark", "size": 3}
    assert person.reads("get", entry["id"]) == person.reads("get", entry["id"][:-1]) == entry
    assert '"mode": "dark"' in person.says("get", "preferences/theme")


def _find(person: Person) -> None:
    assert [each["category"] for each in person.reads("find", "lisbon")] == ["facts"]
    assert person.reads("find", "lisbon")[0]["score"] > 0.5
    for filters in (
        ("--category", "tasks"),
        ("--entity-type", "task", "--entity-id", "1"),
        ("--key", "task_1", "--key", "absent"),
        ("--key-prefix", "task"),
        ("--category-prefix", "tas"),
        ("--where", "status=failed", "--where", "duration>10"),
        ("--where", '{"duration": {"$gte": 45}}'),
        ("--where", "status~FAIL"),
    ):
        assert [each["key"] for each in person.reads("find", *filters)] == ["task_1"], filters
    assert [each["key"] for each in person.reads("find", "--tag", "ui", "--tag", "learned")] == ["grep", "theme"]
    assert person.reads("find", "--tag", "ui", "--tag", "learned", "--all-tags") == []
    assert len(person.reads("find", "--since", "1h ago")) == 4
    assert {each["key"] for each in person.reads("find", "--no-entity-id")} == {"theme", "grep"}
    assert person.reads("find", "--until", "yesterday") == []


def _names(person: Person) -> None:
    assert person.reads("tags") == {"learned": 1, "ui": 1}
    assert person.says("tags", "u") == "ui\t1\n"
    assert person.reads("categories") == {"facts": 1, "preferences": 1, "tasks": 1, "tools": 1}
    assert person.reads("namespaces") == {"default": 4}


def _prefs(person: Person) -> None:
    assert person.reads("prefs") == {"theme": {"mode": "dark", "size": 3}}
    assert person.reads("prefs", "theme") == person.reads("prefs")
    ended = person.does("prefs", "them")
    assert (ended.code, "did you mean 'theme'" in ended.err) == (1, True)


def _device(person: Person) -> None:
    assert person.reads("device") == {}
    person.says("set", "devices/device_info", "os=Linux")
    assert person.reads("device") == {"os": "Linux"}
    assert person.memory.get_device_info() == {"os": "Linux"}


def _tasks_and_tools(person: Person) -> None:
    assert [each["key"] for each in person.reads("tasks", "--status", "failed")] == ["task_1"]
    assert person.reads("tasks", "--status", "done") == []
    assert [each["key"] for each in person.reads("tools")] == ["grep"]


def _in_words(person: Person) -> None:
    first = person.reads("remember", "The cat is Mia")
    assert person.reads("remember", "the cat is mia")["id"] == first["id"]
    assert person.reads("recall", "where does Maria move?")[0]["value"] == {"text": "Maria moves to Lisbon in May"}
    assert "Lisbon" in person.says("context", "Maria")
    assert person.says("forget", "The cat is Mia", "--yes").startswith("forgot facts/the cat is mia")
    assert person.does("get", first["id"]).code == 1
    assert person.says("remember", "-", given="from a pipe\n").startswith("remembered facts/from a pipe, version 1")


def _set(person: Person) -> None:
    assert person.says("set", "a/b", "n=1", "text=two words", "list=[1, 2]", 'digits="3"').startswith("stored a/b")
    assert person.reads("get", "a/b")["value"] == {"n": 1, "text": "two words", "list": [1, 2], "digits": "3"}
    person.says("set", "a/b", "n=2", "--merge", "--reason", "counted")
    assert person.reads("get", "a/b")["value"]["text"] == "two words"
    assert person.reads("get", "a/b")["value"]["n"] == 2
    person.says("set", "a/b", "--value", '{"deep": {"er": null}}')
    assert person.reads("get", "a/b")["value"] == {"deep": {"er": None}}
    person.says("set", "a/b", "--from", "-", given='{"from": "a pipe"}')
    assert person.reads("get", "a/b")["value"] == {"from": "a pipe"}
    file = person.directory / "value.json"
    file.write_text('{"from": "a file"}', encoding="utf-8")
    assert person.reads("set", "a/b", "--from", str(file), "--ttl", "1h")["expires_at"] is not None
    assert person.reads("history", "a/b")["revisions"][-1]["reason"] == "counted"


def _edit(person: Person) -> None:
    editor = person.directory / "editor.py"
    editor.write_text(
        "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.write_text(p.read_text().replace('dark', 'light'))"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDITOR", f"python3 {editor}")
        patch.delenv("VISUAL", raising=False)
        person.says("edit", "preferences/theme", "--reason", "brighter")
        assert person.reads("prefs", "theme")["theme"]["mode"] == "light"
        assert "nothing was changed" in person.does("edit", "preferences/theme").err


def _tag_and_move(person: Person) -> None:
    assert person.reads("tag", "tools/grep", "unix", "text", "--remove", "learned")["tags"] == ["unix", "text"]
    before = person.reads("get", "tools/grep")["id"]
    assert person.reads("move", "tools/grep", "commands/grep", "--entity-type", "command")["id"] == before
    assert person.reads("move", "commands/grep", "/rg")["key"] == "rg"
    assert person.does("get", "tools/grep").code == 1
    assert person.does("tag", "commands/rg").code == 2


def _delete(person: Person) -> None:
    assert person.does("delete", "tools/grep").code == 3
    assert person.says("delete", "tools/grep", "--dry-run").startswith("This would delete 1 memory:")
    assert person.memory.count_memories() == 4
    assert "undo --change" in person.says("delete", "tools/grep", "preferences/theme", "--yes")
    assert person.memory.count_memories() == 2
    cursor = person.reads("delete", "--category", "tasks", "--yes")["cursor"]
    person.says("undo", "--change", cursor)
    assert person.memory.count_memories() == 2
    assert person.does("delete").code == 2
    assert "nothing to do" in person.does("delete", "--category", "absent").err


def _past(person: Person) -> None:
    person.says("set", "preferences/theme", "mode=light", "--reason", "it was noon", "--author", "settings")
    told = person.says("history", "preferences/theme")
    assert "it was noon" in told
    assert "settings" in told
    assert person.says("diff", "preferences/theme") == 'value.mode\t"dark"\t"light"\nvalue.size\t3\t(none)\n'
    assert person.reads("diff", "preferences/theme", "2", "1")[0]["after"] == "dark"
    person.says("undo", "preferences/theme")
    assert person.reads("prefs") == {"theme": {"mode": "dark", "size": 3}}
    person.says("delete", "preferences/theme", "--yes")
    gone = person.reads("recent", "--limit", "1")[0]
    assert (gone["is_gone"], gone["entry"]["value"]) == (True, {"mode": "dark", "size": 3})
    assert person.says("undo", "preferences/theme").startswith("brought back preferences/theme")
    recent = person.reads("recent", "--limit", "3")
    assert [each["change"]["operation"] for each in recent] == ["undo", "delete", "undo"]
    assert person.says("recent", "--limit", "1").split("\t")[1:3] == ["undo", "preferences/theme"]


def _future(person: Person) -> None:
    assert person.reads("expire", "tools/grep", "30d")["expires_at"] is not None
    assert person.reads("expire", "tools/grep", "--never")["expires_at"] is None
    assert person.reads("expire", "tools/grep", "--at", "2100-01-01")["expires_at"].startswith("2")
    assert person.does("expire", "tools/grep").code == 2
    settings = person.directory / "rules.yaml"
    settings.write_text("storage: {retention: [{category: tasks, max_entries: 1}]}", encoding="utf-8")
    person.says("set", "tasks/task_2", "status=done")
    rules = ("--config", str(settings))
    assert person.says("retention", "plan", *rules).split("\t")[:4] == ["delete", "tasks", "beyond the newest 1", "1"]
    assert person.does("retention", "apply", *rules).code == 3
    assert person.reads("retention", "apply", "--yes", *rules)["deleted"] == 1
    assert [each["key"] for each in person.reads("tasks")] == ["task_2"]


def _erase(person: Person) -> None:
    assert person.does("erase", "tools/grep").code == 3
    person.says("delete", "tools/grep", "--yes")
    assert person.reads("erase", "tools/grep", "--yes")[0]["state"] == "done"
    assert person.does("history", "tools/grep").code == 1
    assert person.reads("erase", "--category", "tasks", "--yes")[0]["memories"] == 1
    person.says("set", "notes/one", "a=1", "--namespace", "alice")
    assert person.reads("erase", "--whole-namespace", "alice", "--yes")[0]["memories"] == 1
    assert person.reads("namespaces") == {"default": 2}


def _keys(person: Person) -> None:
    if person.backend == "json":
        ended = person.does("encrypt", "environment:JARVIS_KEY")
        assert ended.code == 3
        assert "sqlite" in ended.err
        return
    first, second = person.directory / "first.key", person.directory / "second.key"
    assert "key file" in person.says("keys", "new", str(first))
    assert person.does("keys", "new", str(first)).code == 3
    KeyFile.create(second)
    person.says("encrypt", f"file:{first}")
    unlock = ("--unlock", f"file:{first}")
    assert person.says("keys", "list", *unlock).split("\t")[1] == "file"
    person.says("keys", "add", f"file:{second}", *unlock)
    assert len(person.reads("keys", "list", *unlock)) == 2
    assert person.does("keys", "rotate", *unlock).code == 3
    person.says("keys", "rotate", f"file:{second}", *unlock)
    assert person.does("keys", "remove", "1", *unlock).code == 3
    person.says("keys", "remove", str(person.reads("keys", "list", *unlock)[1]["id"]), "--yes", *unlock)
    assert person.reads("get", "preferences/theme", *unlock)["value"]["mode"] == "dark"
    assert person.does("decrypt", *unlock).code == 3
    person.says("decrypt", "--yes", *unlock)
    assert person.reads("get", "preferences/theme")["value"]["mode"] == "dark"


def _moving(person: Person) -> None:
    path = str(person.directory / "all.jsonl")
    assert person.reads("export", path)["memories"] == 4
    assert person.does("export", path).code == 3
    assert person.reads("export", path, "--overwrite", "--category", "tasks", "--no-history")["memories"] == 1
    assert person.reads("import", path, "--dry-run")["unchanged"] == 1
    note = person.directory / "CLAUDE.md"
    note.write_text("Use tabs.", encoding="utf-8")
    assert person.reads("import", str(note))["created"] == 1
    target = str(person.directory / "target")
    assert person.reads("migrate", target)["memories"] == 5
    assert json.loads(called("namespaces", "--store", target, "--json").out) == {"default": 5}
    person.says("set", "notes/one", "a=1", "--namespace", "alice")
    assert person.reads("export", path, "--overwrite", "--namespace", "alice")["memories"] == 1


def _care(person: Person) -> None:
    assert person.reads("verify")["problems"] == {}
    if person.backend == "postgresql":
        assert person.does("backup", str(person.directory / "copy")).code == 3
        assert person.does("repair", str(person.directory / "new")).code == 3
    else:
        copy = person.says("backup", str(person.directory / "copy")).strip()
        assert Path(copy).exists()
        restored = str(person.directory / "restored")
        assert Path(called("restore", copy, restored).out.strip()).parent == Path(restored)
        assert json.loads(called("namespaces", "--store", restored, "--json").out) == {"default": 4}
        assert called("restore", copy, restored).code == 3
        assert person.reads("repair", str(person.directory / "new"))["memories"] == 4
    person.says("set", "big/one", f"text={'x' * 5_000}", "--ttl", "0.05s")
    assert person.reads("compact")["expired"] in (0, 1)
    assert person.reads("index", "--rebuild") >= 4
    assert person.says("mend-dates") == "memories with new dates: 0\n"
    assert person.reads("recall", "a pet or a journey of Maria")[0]["key"].startswith("maria")


def _stats(person: Person) -> None:
    assert person.reads("stats")["memories"] == 4
    told = person.says("stats")
    assert "Categories" in told
    assert max(map(len, told.splitlines())) <= 100
    person.says("set", "notes/one", "a=1", "--namespace", "alice")
    assert person.reads("stats", "--namespace", "alice")["memories"] == 1
    page = person.directory / "page.html"
    assert person.says("stats", "--deep", "--html", str(page)) == ""
    assert page.read_text(encoding="utf-8").endswith("</html>\n")
    assert page.stat().st_mode & 0o077 == 0


def _doctor(person: Person) -> None:
    if person.backend == "postgresql":
        found = person.does("doctor", "--json")
        assert found.code in (0, 4)
        assert {each["check"] for each in json.loads(found.out)} <= {"role", "connection", "engine"}
        return
    assert person.reads("doctor") == []
    assert "good health" in person.says("doctor")
    Path(person.place, "memory.db" if person.backend == "sqlite" else "memory.json").chmod(0o666)
    ended = person.does("doctor")
    assert ended.code == 4
    assert "$ chmod" in ended.out
    assert called("doctor", "--store", str(person.directory / "absent")).code == 1


def _mcp(person: Person) -> None:
    ended = run("mcp", *person.options, input="")  # the client is gone at once
    assert (ended.returncode, ended.stdout) == (0, "")
    assert person.does("mcp", "--tools", "others").code == 2


def _watch(person: Person) -> None:
    cursor = person.memory.newest_cursor()
    person.says("set", "notes/one", "a=1")
    told = person.says("watch", "--since", cursor, "--idle", "0.3s")
    assert told.split("\t")[1:4] == ["create", "notes/one", '{"a":1}']
    assert json.loads(person.says("watch", "--since", cursor, "--idle", "0.3s", "--jsonl"))["key"] == "one"


def _setup(person: Person) -> None:
    assert person.reads("init")["state"] == "was there already, with 4 memories"
    assert person.reads("config", "path")["chosen by"] == "--store"
    assert person.reads("config", "show")["namespace"] == "default"
    settings = person.directory / "settings.yaml"
    assert person.does("config", "check", "--config", str(settings)).code == 2
    settings.write_text("storage: {namespac: x}", encoding="utf-8")
    ended = person.does("config", "check", "--config", str(settings))
    assert (ended.code, "did you mean 'namespace'" in ended.err) == (2, True)
    settings.write_text("storage: {namespace: x}", encoding="utf-8")
    assert "in range" in person.says("config", "check", "--config", str(settings))
    assert "jarvis-memory" in called("completion", "bash").out


CASES: dict[str, Callable[[Person], None]] = {
    "list": _list,
    "get": _get,
    "find": _find,
    "tags categories namespaces": _names,
    "prefs": _prefs,
    "device": _device,
    "tasks tools": _tasks_and_tools,
    "remember recall forget context": _in_words,
    "set": _set,
    "edit": _edit,
    "tag move": _tag_and_move,
    "delete": _delete,
    "history diff undo recent": _past,
    "expire retention": _future,
    "erase": _erase,
    "encrypt decrypt keys": _keys,
    "export import migrate": _moving,
    "verify repair backup restore compact index mend-dates": _care,
    "stats": _stats,
    "mcp": _mcp,
    "doctor": _doctor,
    "watch": _watch,
    "init config completion": _setup,
}


@pytest.mark.parametrize("name", CASES)
def test_a_command_does_what_it_says(person: Person, name: str) -> None:
    person.fill()

    CASES[name](person)


def test_every_command_has_a_case() -> None:
    covered = {name for names in CASES for name in names.split()}

    assert {name.partition(" ")[0] for names in GROUPS.values() for name in names} == covered
