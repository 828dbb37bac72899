"""The reference of the command line is made from the commands, and is of today.

Run as a program, it writes the page: ``python -m tests.test_command_reference``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jarvis.interfaces.cli.app import GROUPS, OWN, command, root
from jarvis.interfaces.cli.failing import EXIT_CODES
from jarvis.interfaces.operations import OPERATIONS
from tests.commands import called

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "command-line.md"
BEGIN, END = "<!-- commands -->\n", "<!-- end of commands -->\n"
EFFECTS = {"reads": "", "changes": " It changes the store.", "destroys": " It says what it will do, and asks."}
COMMON = ("Which store", "How it is shown")


def _records(made: Any) -> Iterator[tuple[str, str, str]]:
    """Yield panel, name and help of each parameter of a command."""
    context = made.make_context("jarvis-memory", [], resilient_parsing=True)
    for parameter in made.get_params(context):
        if parameter.param_type_name == "argument":
            yield "Arguments", f"`{parameter.metavar}`", parameter.help or ""
        else:
            names, text = parameter.get_help_record(context)
            yield getattr(parameter, "rich_help_panel", None) or "Options", f"`{names}`", text


def _table(rows: list[tuple[str, str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return ["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in cells), ""]


def reference() -> str:
    """Return the reference as Markdown."""
    lines = ["## Options of every command", ""]
    made = root()
    lines += _table([(name, text) for panel, name, text in _records(made) if panel in COMMON])
    for group, names in GROUPS.items():
        lines += [f"## {group}", ""]
        for name in names:
            each = command(name)
            effect = (
                ""
                if name in OWN
                else {"reads": "", "changes": " It changes the store.", "destroys": " It asks before."}[
                    OPERATIONS[name.replace(" ", "_").replace("-", "_")].effect
                ]
            )
            summary = " ".join(each.help.split())
            lines += [f"### `{name}`", "", f"{summary}{effect}", ""]
            rows = [(shown, text) for panel, shown, text in _records(each) if panel not in COMMON]
            rows = [row for row in rows if "--help" not in row[0]]
            lines += _table(rows) if rows else []
    lines += ["## Exit codes", "", "| code | means |", "|---|---|"]
    lines += [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    return "\n".join(lines) + "\n"


def test_the_reference_is_of_today() -> None:
    text = PAGE.read_text(encoding="utf-8")

    assert text.partition(BEGIN)[2].partition(END)[0] == reference(), "run python -m tests.test_command_reference"


def test_every_parameter_of_an_operation_says_what_it_is() -> None:
    for operation in OPERATIONS.values():
        assert operation.summary.endswith("."), operation
        for parameter in operation.parameters:
            assert parameter.about, (operation, parameter.name)


def test_what_destroys_has_a_plan_and_nothing_else_has() -> None:
    for operation in OPERATIONS.values():
        assert (operation.plan is not None) == (operation.effect == "destroys"), operation


@pytest.mark.parametrize("name", [name for names in GROUPS.values() for name in names])
def test_every_command_has_help(name: str) -> None:
    ended = called(*name.split(), "--help")

    assert ended.code == 0
    assert ended.out.startswith(f"Usage: jarvis-memory {name} [OPTIONS]")
    assert all(len(line) <= 110 for line in ended.out.splitlines())


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + reference() + END + rest.partition(END)[2], encoding="utf-8")
