"""How the command line behaves: which store it opens, exit codes, pipes, terminals, questions and interruptions."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jarvis.container import Container
from jarvis.interfaces.cli import failing
from jarvis.persistent_memory import MemoryModule
from tests.commands import WIDTH, Terminal, called, command, run, shown, written

ESCAPE = "\x1b"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("JARVIS_MEMORY_STORE", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryModule:
    """Return a memory that commands use, too."""
    monkeypatch.setenv("JARVIS_MEMORY_STORE", str(tmp_path / "store"))
    memory = MemoryModule(storage_dir=tmp_path / "store")
    memory.set_user_preference("theme", {"mode": "dark"})
    return memory


# --- which store ------------------------------------------------------------------------------------


def _with_note(place: Path | str | None, text: str) -> None:
    memory = MemoryModule(storage_dir=place)
    memory.remember(text)
    memory.shutdown()


def _opened(*arguments: str) -> str:
    return str(json.loads(called("list", "--json", *arguments).out)[0]["value"]["text"])


def test_the_store_that_is_named_comes_first_then_the_variable_the_configuration_and_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_note(None, "default")
    assert _opened() == "default"

    settings = tmp_path / "home" / ".jarvis" / "config.yaml"
    settings.write_text("storage: {data_dir: data}", encoding="utf-8")
    _with_note(settings.parent / "data" / "persistent_memory", "configuration")
    assert _opened() == "configuration"

    other = tmp_path / "other.yaml"
    other.write_text("storage: {data_dir: other}", encoding="utf-8")
    _with_note(tmp_path / "other" / "persistent_memory", "other configuration")
    assert _opened("--config", str(other)) == "other configuration"

    _with_note(tmp_path / "variable", "variable")
    monkeypatch.setenv("JARVIS_MEMORY_STORE", "variable")
    assert _opened() == _opened("--config", str(other)) == "variable"

    _with_note(tmp_path / "named", "named")
    assert _opened("--store", "named") == "named"
    assert _opened("--store", "named/memory.db") == "named"
    assert called("--store", "named", "list").out == called("list", "--store", "named").out


def test_it_says_which_store_it_opened_if_two_may_be_meant() -> None:
    _with_note(None, "default")
    Container().get_memory_module().remember("configuration")

    ended = called("list")

    assert "configuration" in ended.out
    assert "opened the store of the configuration" in ended.err
    assert ".jarvis/memory" in ended.err
    assert called("list", "--quiet").err == ""


def test_looking_never_creates_a_store(tmp_path: Path) -> None:
    for arguments in (
        ["list"],
        ["get", "a/b"],
        ["find", "x"],
        ["tags"],
        ["recall", "x"],
        ["history", "a/b"],
        ["prefs"],
    ):
        ended = called(*arguments, "--store", "absent")
        assert (ended.code, "jarvis-memory init" in ended.err) == (1, True), arguments
    for arguments in (["delete", "a/b", "--yes"], ["tag", "a/b", "x"], ["verify"], ["compact"], ["undo", "a/b"]):
        assert called(*arguments, "--store", "absent").code == 1, arguments

    assert list(tmp_path.iterdir()) == []


def test_the_settings_of_a_configuration_count_for_its_own_store_or_when_it_is_named(tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("storage: {namespace: alice, data_dir: data}", encoding="utf-8")

    called("remember", "hers", "--config", str(settings), "--store", "here")

    assert json.loads(called("namespaces", "--store", "here", "--json").out) == {"alice": 1}
    assert json.loads(called("list", "--store", "here", "--namespace", "alice", "--json").out)[0]["key"] == "hers"


def test_a_moment_before_the_command_counts_for_commands_that_look(store: MemoryModule) -> None:
    moment = store.get_memory_by_key("theme")
    assert moment is not None
    store.set_user_preference("theme", {"mode": "light"})

    told = called("--as-of", moment.timestamp.isoformat(), "prefs", "--json")

    assert json.loads(told.out) == {"theme": {"mode": "dark"}}
    assert called("--as-of", "now", "recall", "x").code == failing.USAGE


# --- exit codes -------------------------------------------------------------------------------------


def test_each_exit_code_says_what_it_says(store: MemoryModule, tmp_path: Path) -> None:
    assert called("get", "preferences/theme").code == failing.DONE
    assert called("get", "preferences/none").code == failing.NOT_FOUND
    assert called("get").code == failing.USAGE
    assert called("get", "preferences/theme", "--as-of", "whenever").code == failing.USAGE
    assert called("delete", "preferences/theme").code == failing.REFUSED
    with store.transaction():
        store.remember("in another process")
        settings = written(tmp_path / "hasty.yaml", "storage: {busy_timeout_seconds: 0}")
        assert run("set", "a/b", "c=1", "--config", str(settings)).returncode == failing.BUSY
    store.shutdown()
    (tmp_path / "store" / "memory.db").write_bytes(b"no store" * 1_000)
    ended = called("list")
    assert ended.code == failing.DAMAGED
    assert "jarvis-memory doctor" in ended.err
    assert set(failing.EXIT_CODES) == {0, 1, 2, 3, 4, 5, 130}


def test_an_error_is_two_lines_at_most_and_has_no_trace_but_with_debug(store: MemoryModule) -> None:
    for arguments in (["get", "nothing"], ["lst"], ["list", "--stor", "x"], ["set", "a"], ["list", "-b", "sqllite"]):
        ended = called(*arguments)
        assert ended.code in (1, 2)
        assert 1 <= len(ended.err.splitlines()) <= 2, ended.err
        assert "Traceback" not in ended.err
    assert "Traceback" in run("get", "nothing", "--debug").stderr


def test_advice_in_messages_is_in_commands(store: MemoryModule, tmp_path: Path) -> None:
    called("export", str(tmp_path / "all.jsonl"))
    advice = {
        ("export", str(tmp_path / "all.jsonl")): "--overwrite",
        ("keys", "rotate"): "jarvis-memory encrypt",
        ("decrypt", "--yes"): "plain already",
        ("list", "--backend", "json"): "jarvis-memory migrate",
    }
    for arguments, way_out in advice.items():
        ended = called(*arguments)
        assert ended.code in (1, 3), ended
        assert way_out in ended.err
        assert not re.search(r"store\.\w+\(|=True|keys=|jarvis\.moving", ended.err), ended.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["find", "--where", "a=1", "--limit", "0"], failing.USAGE),
        (["list", "--limit", "-1"], failing.USAGE),
        (["recall", ""], failing.DONE),
        (["find", "zebra"], failing.DONE),
        (["list", "--namespace", ""], failing.USAGE),
        (["list", "--namespace", "another"], failing.DONE),
        (["list", "--store", ""], failing.USAGE),
        (["set", "a/b", "--value", '{"n": 1e999}'], failing.USAGE),
        (["set", "a/b", "--value", '{"n": 1, "n": 2}'], failing.USAGE),
        (["set", "a/b", "--value", "[1]"], failing.USAGE),
        (["set", "a/b", "n=1", "--value", "{}"], failing.USAGE),
        (["set", "a", "n=1"], failing.USAGE),
        (["set", "a/b", "--from", "absent.json"], failing.USAGE),
        (["import", "absent.jsonl"], failing.NOT_FOUND),
        (["expire", "preferences/theme", "99999999999d"], failing.USAGE),
        (["find", "--since", "whenever"], failing.USAGE),
        (["find", "--where", ""], failing.USAGE),
        (["undo", "preferences/theme", "--steps", "9"], failing.NOT_FOUND),
        (["tag", "preferences/theme", ""], failing.USAGE),
        (["set", "a/b", "n=\udcff"], failing.USAGE),
        (["recall", "x" * 200_000], failing.DONE),
        (["set", "a/b", "n=" + "[" * 2_000], failing.DONE),
    ],
)
def test_a_hostile_argument_gets_an_answer_and_changes_nothing(
    store: MemoryModule, arguments: list[str], code: int
) -> None:
    ended = called(*arguments)

    assert ended.code == code, ended
    assert "fault of jarvis" not in ended.err
    assert store.get_user_preferences() == {"theme": {"mode": "dark"}}


def test_numbers_that_json_lacks_are_texts(store: MemoryModule) -> None:
    called("set", "a/b", "x=1e999", "y=NaN", "z=-Infinity", "n=1e3")

    entry = store.get_memory_by_key("b")
    assert entry is not None
    assert entry.value == {"x": "1e999", "y": "NaN", "z": "-Infinity", "n": 1000.0}


def test_output_that_cannot_be_written_is_an_error(store: MemoryModule) -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run(command("list"), stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    assert ended.returncode == failing.REFUSED
    assert "No space left" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_misspelt_command_key_or_backend_gets_the_nearest_one(store: MemoryModule) -> None:
    assert "'list'" in called("lst").err
    assert "'preferences/theme'" in called("get", "preferences/thme").err
    assert "'sqlite'" in called("list", "-b", "sqllite").err
    assert "--store" in called("list", "--stor", "x").err


def test_the_module_and_the_program_are_one_command_line(store: MemoryModule) -> None:
    ended = run("get", "preferences/theme", "--json")
    assert (ended.returncode, json.loads(ended.stdout)["value"]) == (0, {"mode": "dark"})
    assert ended.stderr == ""


# --- addresses --------------------------------------------------------------------------------------


def test_an_address_that_names_several_memories_is_refused_with_their_ids(store: MemoryModule) -> None:
    ids = sorted(store.create_memory("notes", "n", {}, "note") for _ in range(2))

    ended = called("delete", "notes/n", "--yes")

    assert ended.code == failing.NOT_FOUND
    assert all(each in ended.err for each in ids)
    assert called("get", ids[0][:6]).code == failing.NOT_FOUND
    assert called("delete", ids[0], "--yes").code == failing.DONE


def test_slashes_may_stand_in_categories_and_keys(store: MemoryModule) -> None:
    for category, key in (("a/b", "c"), ("a", "b/d"), ("x", "/"), ("y", "")):
        store.create_memory(category, key, {"at": f"{category}|{key}"}, "note")

    for address, at in (("a/b/c", "a/b|c"), ("a/b/d", "a|b/d"), ("x//", "x|/"), ("y/", "y|")):
        assert json.loads(called("get", address, "--json").out)["value"]["at"] == at


# --- in a pipe --------------------------------------------------------------------------------------


def test_a_pipe_gets_plain_lines_with_whole_ids_and_exact_moments(store: MemoryModule) -> None:
    [line] = called("list").out.splitlines()

    memory_id, name, value, tags, changed = line.split("\t")
    assert store.get_memory(memory_id) is not None
    assert (name, value, tags) == ("preferences/theme", '{"mode":"dark"}', "")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d", changed)


def test_a_reader_that_has_enough_ends_the_command_quietly(store: MemoryModule) -> None:
    with store.transaction():
        for number in range(3_000):
            store.create_memory("many", str(number), {"text": "x" * 100}, "t")

    program = " ".join(command("list", "--limit", "3000"))
    ended = subprocess.run(["bash", "-c", f"{program} | head -1"], capture_output=True, text=True, check=False)

    assert len(ended.stdout.splitlines()) == 1
    assert ended.stderr == ""


def test_json_lines_are_one_for_each_memory(store: MemoryModule) -> None:
    store.remember("two")
    lines = called("list", "--jsonl").out.splitlines()
    assert [json.loads(line)["category"] for line in lines] == ["facts", "preferences"]
    assert called("list", "--json", "--jsonl").code == failing.USAGE


HOSTILE = f"{ESCAPE}[31mred{ESCAPE}]0;title\x07 \x9b31m \u202eback \r\n\tnext \x00 \ud800".replace("\x00", "")


def test_signs_that_a_terminal_obeys_are_shown_and_never_sent(store: MemoryModule) -> None:
    text = HOSTILE.replace("\ud800", "")
    store.create_memory(text, text, {text: text}, text, text, [text], module=text, reason=text)
    memory_id = store.search_memories(text)[0].id
    store.update_memory(memory_id, {"new": text}, module=text, reason=text)
    obeyed = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

    for arguments in (["list"], ["get", memory_id], ["history", memory_id], ["recent"], ["tags"], ["categories"]):
        for form in ([], ["--json"], ["--jsonl"]):
            ended = called(*arguments, *form)
            assert ended.code == 0
            assert not obeyed.search(ended.out), (arguments, form)
    for arguments in (["delete", memory_id, "--dry-run"], ["get", text], ["diff", memory_id]):
        ended = called(*arguments)
        assert not obeyed.search(ended.out + ended.err), arguments
    assert json.loads(called("get", memory_id, "--json").out)["value"] == {"new": text}


# --- on a terminal ----------------------------------------------------------------------------------


def test_a_table_fits_the_terminal_and_cuts_what_is_long(store: MemoryModule) -> None:
    store.remember("word " * 200)
    for width in (60, WIDTH):
        lines = shown("list", width=width).lines
        assert lines[0].split() == ["id", "memory", "value", "tags", "changed"]
        assert "…" in lines[1]
        assert lines[1].endswith("just now")
    assert "…" not in shown("list", "--full").text
    assert "just now" not in shown("list", "--exact").text


def test_colour_and_styles_are_left_out_with_no_color(store: MemoryModule) -> None:
    styled = re.compile(r"\x1b\[[0-9;]*3[0-9]m")

    assert ESCAPE in shown("list").raw
    assert not styled.search(shown("list", env={"NO_COLOR": "1"}).raw)


def test_a_terminal_never_obeys_a_memory(store: MemoryModule) -> None:
    store.create_memory("notes", "evil", {"text": f"{ESCAPE}]0;owned\x07{ESCAPE}[2J"}, "note")

    for arguments in (["list"], ["get", "notes/evil"], ["recent"]):
        terminal = shown(*arguments)
        assert "]0;own" in terminal.text
        assert f"{ESCAPE}]0" not in terminal.raw
        assert f"{ESCAPE}[2J" not in terminal.raw


def test_what_destroys_says_what_it_will_do_and_asks(store: MemoryModule) -> None:
    terminal = Terminal(["delete", "preferences/theme"])
    terminal.wait_for("This would delete 1 memory:")
    terminal.wait_for("Do it? [y/N]:")
    terminal.type("n")
    assert terminal.ended() == failing.REFUSED
    assert "nothing was changed" in terminal.text
    assert store.get_user_preferences() != {}

    terminal = Terminal(["delete", "preferences/theme"])
    terminal.wait_for("Do it? [y/N]:")
    terminal.type("y")
    assert terminal.ended() == failing.DONE
    assert store.get_user_preferences() == {}


def test_a_move_onto_the_name_of_another_memory_is_refused(store: MemoryModule) -> None:
    store.set_user_preference("sound", {"on": True})

    ended = called("move", "preferences/sound", "/theme")

    assert ended.code == failing.REFUSED
    assert store.get_user_preferences() == {"theme": {"mode": "dark"}, "sound": {"on": True}}


def test_moments_to_come_are_understood(store: MemoryModule) -> None:
    for moment in ("tomorrow", "in 2 days"):
        ended = called("expire", "preferences/theme", "--at", moment)
        assert ended.code == 0, ended


def test_only_that_is_done_which_was_told(store: MemoryModule) -> None:
    store.create_memory("notes", "one", {}, "note")
    terminal = Terminal(["delete", "--category", "notes"])
    terminal.wait_for("Do it? [y/N]:")
    store.create_memory("notes", "two", {}, "note")
    terminal.type("y")

    assert terminal.ended() == failing.REFUSED
    assert store.count_memories("notes") == 2


def test_ctrl_c_at_a_question_changes_nothing(store: MemoryModule) -> None:
    terminal = Terminal(["erase", "preferences/theme"])
    terminal.wait_for("Nothing brings it back. [y/N]:")

    assert terminal.interrupted() in (failing.REFUSED, failing.INTERRUPTED)
    assert store.get_user_preferences() != {}


def test_ctrl_c_ends_a_watch(store: MemoryModule) -> None:
    terminal = Terminal(["watch"])
    terminal.wait_for("watching")
    store.set_user_preference("sound", {"on": True})
    terminal.wait_for("preferences/sound")
    terminal.interrupt()

    assert terminal.ended() == failing.INTERRUPTED
    assert "the store is sound" in terminal.text


def test_ctrl_c_in_the_midst_of_work_leaves_the_store_sound_and_says_how_far_it_was(
    store: MemoryModule, tmp_path: Path
) -> None:
    with store.transaction():
        for number in range(60_000):
            store.create_memory("many", str(number), {"text": "x" * 100}, "t")
    store.store.export(tmp_path / "all.jsonl")

    terminal = Terminal(["import", str(tmp_path / "all.jsonl"), "--store", str(tmp_path / "new")])
    terminal.wait_for("import")  # the bar, which has begun
    terminal.interrupt()

    assert terminal.ended() == failing.INTERRUPTED
    assert re.search(r"interrupted after [\d,]+ of [\d,]+", terminal.text)
    again = called("import", str(tmp_path / "all.jsonl"), "--store", str(tmp_path / "new"), "--json")
    assert again.code == 0
    assert sum(json.loads(again.out)[name] for name in ("created", "unchanged")) == 60_001
    assert json.loads(called("verify", "--store", str(tmp_path / "new"), "--json").out)["problems"] == {}


def test_long_work_is_silent_in_a_pipe(store: MemoryModule) -> None:
    assert run("verify").stderr == ""


def test_an_edit_beside_another_writer_is_refused_and_keeps_the_text(store: MemoryModule, tmp_path: Path) -> None:
    editor = written(
        tmp_path / "editor",
        f"#!{sys.executable}\n"
        "import os, pathlib, sys\n"
        "from jarvis.persistent_memory import MemoryModule\n"
        "MemoryModule(storage_dir=os.environ['JARVIS_MEMORY_STORE']).set_user_preference('theme', {'mode': 'red'})\n"
        'pathlib.Path(sys.argv[1]).write_text(\'{"mode": "mine"}\')\n',
    )

    terminal = Terminal(["edit", "preferences/theme"], env={"EDITOR": str(editor), "VISUAL": ""})

    assert terminal.ended() == failing.REFUSED
    assert store.get_user_preferences() == {"theme": {"mode": "red"}}
    [draft] = re.findall(r"your text is in (\S+)", terminal.text.replace("\n", ""))
    assert "mine" in Path(draft).read_text(encoding="utf-8")


def test_an_editor_that_leaves_a_copy_beside_the_text_leaves_nothing(
    store: MemoryModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafts = tmp_path / "drafts"
    drafts.mkdir()
    monkeypatch.setenv("TMPDIR", str(drafts))
    editor = written(
        tmp_path / "editor",
        f"#!{sys.executable}\n"
        "import pathlib, sys\n"
        "draft = pathlib.Path(sys.argv[1])\n"
        "draft.with_name(draft.name + '~').write_bytes(draft.read_bytes())\n"
        'draft.write_text(\'{"mode": "light"}\')\n',
    )
    monkeypatch.setenv("VISUAL", str(editor))

    ended = run("edit", "preferences/theme")

    assert (ended.returncode, list(drafts.iterdir())) == (failing.DONE, [])
    assert store.get_user_preferences() == {"theme": {"mode": "light"}}


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ("sys.exit(1)", failing.REFUSED),
        ("draft.unlink()", failing.USAGE),
        ("draft.write_text('')", failing.USAGE),
    ],
)
def test_an_edit_that_failed_before_there_was_a_new_text_leaves_no_copy_of_the_old(
    store: MemoryModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, code: int
) -> None:
    drafts = tmp_path / "drafts"
    drafts.mkdir()
    monkeypatch.setenv("TMPDIR", str(drafts))
    editor = written(
        tmp_path / "editor",
        f"#!{sys.executable}\nimport pathlib, sys\ndraft = pathlib.Path(sys.argv[1])\n{lines}\n",
    )
    monkeypatch.setenv("VISUAL", str(editor))

    ended = run("edit", "preferences/theme")

    assert (ended.returncode, list(drafts.iterdir())) == (code, [])
    assert "your text is in" not in ended.stderr


def test_an_edit_that_is_not_utf_8_is_refused_and_kept(
    store: MemoryModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    editor = written(tmp_path / "editor", f"#!{sys.executable}\nimport sys\nopen(sys.argv[1], 'wb').write(b'\\xff')\n")
    monkeypatch.setenv("VISUAL", str(editor))

    ended = run("edit", "preferences/theme")

    assert ended.returncode == failing.USAGE
    assert "not UTF-8" in ended.stderr
    [draft] = re.findall(r"your text is in (\S+)", ended.stderr)
    assert Path(draft).read_bytes() == b"\xff"


def test_an_edit_that_is_no_json_can_be_edited_again(store: MemoryModule, tmp_path: Path) -> None:
    editor = written(
        tmp_path / "editor",
        f"#!{sys.executable}\n"
        "import pathlib, sys\n"
        "draft = pathlib.Path(sys.argv[1])\n"
        "draft.write_text('{\"mode\": \"light\"}' if draft.read_text().startswith('broken') else 'broken')\n",
    )

    terminal = Terminal(["edit", "preferences/theme"], env={"EDITOR": str(editor), "VISUAL": ""})
    terminal.wait_for("Edit it again?")
    terminal.type("y")

    assert terminal.ended() == failing.DONE
    assert store.get_user_preferences() == {"theme": {"mode": "light"}}


def test_an_edit_of_types_that_json_lacks_is_refused(store: MemoryModule) -> None:
    store.set_user_preference("theme", {"modes": ("a", "b")})

    ended = called("edit", "preferences/theme")

    assert ended.code == failing.USAGE
    assert store.get_user_preferences() == {"theme": {"modes": ("a", "b")}}


# --- killed, and beside others ----------------------------------------------------------------------


def test_a_killed_command_loses_nothing_that_it_told(store: MemoryModule) -> None:
    watching = subprocess.Popen(command("watch", "--jsonl"), stdout=subprocess.PIPE, text=True)
    try:
        assert run("remember", "first").returncode == 0
    finally:
        watching.send_signal(signal.SIGKILL)
        watching.communicate()

    assert [entry.value["text"] for entry in store.search_memories("facts")] == ["first"]


def test_commands_at_once_lose_nothing(store: MemoryModule) -> None:
    running = [
        subprocess.Popen(command("remember", f"fact {number}"), stdout=subprocess.DEVNULL) for number in range(8)
    ]

    assert [each.wait() for each in running] == [0] * 8
    assert store.count_memories("facts") == 8


def test_every_change_has_an_author(store: MemoryModule) -> None:
    called("set", "preferences/theme", "mode=light", "--reason", "asked for")
    called("set", "preferences/theme", "mode=red", "--author", "robot")

    first, second = store.get_history(store.search_memories("preferences")[0].id)[::-1]
    assert (first.module or "").startswith("jarvis-memory")
    assert first.reason == "asked for"
    assert second.module == "robot"


def test_get_answers_within_a_quarter_of_a_second_of_work(store: MemoryModule) -> None:
    """The modules that a `get` imports are few: none of the tables, questions and servers."""
    program = (
        "import sys; sys.argv = ['x', 'get', 'preferences/theme']\n"
        "from jarvis.interfaces.cli.app import _run\n"
        "code = _run(sys.argv[1:])\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"
        "sys.exit(code)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert not {"rich", "mcp", "numpy", "psycopg", "asyncio", "yaml"} & set(ended.stderr.split())


# --- saying and doing --------------------------------------------------------------------------------


def test_an_undo_that_takes_a_memory_away_says_so(store: MemoryModule) -> None:
    assert "the memory is not there now" in called("undo", "preferences/theme").out
    assert store.get_user_preferences() == {}

    assert "brought back preferences/theme" in called("undo", "preferences/theme").out


def test_an_undo_of_a_change_says_how_many_memories_it_concerned(store: MemoryModule) -> None:
    cursor = store.delete_memories(category="preferences").cursor

    assert called("undo", "--change", str(cursor)).out == "took the change of 1 memory back\n"


def test_an_erasure_by_filters_reaches_what_was_deleted_before(store: MemoryModule, tmp_path: Path) -> None:
    store.set_user_preference("theme", {"mode": "a secret colour"})
    store.delete_memories(category="preferences")

    ended = called("erase", "--category", "preferences", "--yes")

    assert (ended.code, "nothing to do" in ended.err) == (failing.DONE, False)
    assert not any(b"a secret colour" in file.read_bytes() for file in (tmp_path / "store").iterdir())


def test_an_erasure_of_a_namespace_reaches_what_was_deleted_before(store: MemoryModule, tmp_path: Path) -> None:
    alice = store.for_namespace("alice")
    alice.set_user_preference("theme", {"mode": "a secret colour"})
    alice.delete_memories(category="preferences")

    ended = called("erase", "--whole-namespace", "alice", "--yes")

    assert (ended.code, "nothing to do" in ended.err) == (failing.DONE, False)
    assert not any(b"a secret colour" in file.read_bytes() for file in (tmp_path / "store").iterdir())


def test_less_than_four_signs_of_an_id_name_no_memory(store: MemoryModule) -> None:
    [entry] = store.search_memories("preferences")

    assert called("delete", entry.id[:3], "--yes").code == failing.NOT_FOUND
    assert called("get", entry.id[:4]).code == failing.DONE
    store.delete_memory(entry.id)
    assert called("undo", entry.id[:3]).code == failing.NOT_FOUND
    assert called("undo", entry.id[:4]).code == failing.DONE


def test_a_value_with_a_key_twice_is_refused(store: MemoryModule) -> None:
    ended = called("set", "preferences/theme", "mode=dark", "mode=light")

    assert (ended.code, "twice" in ended.err) == (failing.USAGE, True)


@pytest.mark.parametrize("verb", [["restore", "backup"], ["repair"], ["backup"], ["export"]])
@pytest.mark.parametrize("place", ["postgresql://user:password@host/name", "-"])
def test_what_is_written_to_a_directory_refuses_a_url(
    store: MemoryModule, tmp_path: Path, verb: list[str], place: str
) -> None:
    store.store.back_up(tmp_path / "backup")
    before = sorted(tmp_path.iterdir())

    ended = called(*verb, place)

    assert (ended.code, "takes a path" in ended.err, "password" in ended.err) == (failing.USAGE, True, False)
    assert sorted(tmp_path.iterdir()) == before


def test_the_doctor_advises_in_commands(store: MemoryModule, tmp_path: Path) -> None:
    store.shutdown()
    file = tmp_path / "store" / "memory.db"
    file.write_bytes(file.read_bytes().replace(b'"dark"', b'"dusk"'))

    ended = called("doctor")

    assert ended.code == failing.DAMAGED
    assert "damaged" in ended.out
    assert "memory.store" not in ended.out


def test_an_import_that_was_cut_short_names_the_option(store: MemoryModule, tmp_path: Path) -> None:
    store.store.export(tmp_path / "all.jsonl")
    (tmp_path / "cut.jsonl").write_bytes((tmp_path / "all.jsonl").read_bytes()[:-20])

    ended = called("import", "cut.jsonl", "--store", "new")

    assert (ended.code, "--incomplete" in ended.err, "True" in ended.err) == (failing.DAMAGED, True, False)


@pytest.mark.parametrize("option", ["--store", "--namespace", "--backend", "--config"])
def test_an_empty_option_is_refused_before_the_command_as_behind_it(store: MemoryModule, option: str) -> None:
    before, behind = called(option, "", "list"), called("list", option, "")

    assert (before.code, before.err) == (failing.USAGE, behind.err)


def test_a_pipe_gets_utf_8_whatever_the_locale_is(store: MemoryModule) -> None:
    store.set_user_preference("theme", {"mode": "ä🎉"})

    ended = run("list", "--json", env={**os.environ, "PYTHONIOENCODING": "ascii"}, encoding="utf-8")

    assert (ended.returncode, ended.stderr) == (failing.DONE, "")
    assert json.loads(ended.stdout)[0]["value"] == {"mode": "ä🎉"}


@pytest.mark.parametrize("arguments", [["remember", "-"], ["set", "preferences/theme", "--from", "-"]])
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_an_input_that_is_not_utf_8_is_refused(store: MemoryModule, arguments: list[str], locale: str) -> None:
    ended = subprocess.run(
        command(*arguments),
        input=b'{"mode": "gr\xfcn"}',
        capture_output=True,
        check=False,
        env={**os.environ, "LC_ALL": locale},
    )

    assert (ended.returncode, b"not UTF-8" in ended.stderr) == (failing.USAGE, True)
    assert store.get_user_preferences() == {"theme": {"mode": "dark"}}
    assert store.count_memories() == 1


def test_a_page_of_charts_replaces_only_such_a_page(store: MemoryModule, tmp_path: Path) -> None:
    file, page = tmp_path / "store" / "memory.db", tmp_path / "page.html"

    assert called("stats", "--html", str(file)).code == failing.REFUSED
    assert file.read_bytes().startswith(b"SQLite format 3")
    assert called("verify").code == failing.DONE

    assert called("stats", "--html", str(page)).code == failing.DONE
    store.remember("one memory more")
    first = page.read_bytes()
    assert called("stats", "--html", str(page)).code == failing.DONE
    assert page.read_bytes() != first

    page.write_text("<!DOCTYPE html><title>of another program</title>", encoding="utf-8")
    assert called("stats", "--html", str(page)).code == failing.REFUSED


def test_an_import_with_damaged_lines_ends_with_the_code_of_damage(store: MemoryModule, tmp_path: Path) -> None:
    store.store.export(tmp_path / "all.jsonl")
    text = (tmp_path / "all.jsonl").read_text(encoding="utf-8")
    (tmp_path / "all.jsonl").write_text(text.replace('"dark"', '"dusk"'), encoding="utf-8")

    ended = called("import", "all.jsonl", "--store", "new")

    assert (ended.code, "crc" in ended.out) == (failing.DAMAGED, True)


def test_recent_counts_one_memory_as_one(store: MemoryModule) -> None:
    store.erase_memories(category="preferences")

    assert "\t1 memory\t" in called("recent").out
