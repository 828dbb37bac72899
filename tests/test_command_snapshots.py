"""What a person sees, whole: the help, and tables on a terminal. Ids and moments are masked.

Run as a program, it writes the snapshots again, to be looked at: ``python -m tests.test_command_snapshots``.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import pytest

from tests.commands import called, shown

SNAPSHOTS = Path(__file__).parent / "snapshots"
HELP = ("--help", "find --help", "delete --help", "keys --help", "set --help")
TABLES = ("list", "get preferences/theme", "history preferences/theme", "recent", "tags", "stats", "doctor")


def _name(command: str) -> str:
    return re.sub(r"[^a-z]+", "-", command).strip("-") or "help"


def _masked(text: str) -> str:
    text = re.sub(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "<id>", text)
    text = re.sub(r"\b01[0-9a-f]{6}[0-9a-f-]*", "<id>", text)
    text = re.sub(r"\d{4}-\d\d-\d\d", "<day>", text)
    text = re.sub(r"\b\d+(\.\d+)? (B|kB|seconds?)\b", "<size>", text)
    text = re.sub(r"jarvis-memory \(\w*\)?", "jarvis-memory (ada)", text)
    return re.sub(r"[ \u2588-\u258f]{2,}", "  ", text).rstrip() + "\n"


def _filled(store: str) -> None:
    for command in (
        ["set", "preferences/theme", "mode=dark", "--tag", "ui"],
        ["set", "preferences/theme", "mode=light", "--reason", "it was noon"],
        ["set", "tools/grep", "purpose=find lines", "--tag", "learned"],
    ):
        assert called(*command, "--store", store).code == 0


@pytest.mark.parametrize("command", HELP)
def test_the_help_looks_as_it_did(command: str) -> None:
    assert called(*command.split()).out == (SNAPSHOTS / f"{_name(command)}.txt").read_text(encoding="utf-8")


def test_tables_look_as_they_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JARVIS_MEMORY_STORE", str(tmp_path))
    _filled(str(tmp_path))

    for command in TABLES:
        text = _masked(shown(*command.split()).text.replace(str(tmp_path), "STORE"))
        assert text == (SNAPSHOTS / f"{_name(command)}.txt").read_text(encoding="utf-8"), command


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        os.environ["JARVIS_MEMORY_STORE"] = directory
        _filled(directory)
        for each in HELP:
            (SNAPSHOTS / f"{_name(each)}.txt").write_text(called(*each.split()).out, encoding="utf-8")
        for each in TABLES:
            seen = _masked(shown(*each.split()).text.replace(directory, "STORE"))
            (SNAPSHOTS / f"{_name(each)}.txt").write_text(seen, encoding="utf-8")
