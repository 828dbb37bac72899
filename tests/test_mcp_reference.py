"""The reference of the tools for agents is made from the tools, and is of today.

Run as a program, it writes the page: ``python -m tests.test_mcp_reference``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jarvis.interfaces.mcp import official, ours
from jarvis.interfaces.mcp.graph import KnowledgeGraph
from jarvis.interfaces.mcp.tools import Tool, schema_of
from jarvis.persistent_memory import MemoryModule

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "reference" / "mcp.md"
BEGIN, END = "<!-- tools -->\n", "<!-- end of tools -->\n"


def _sets() -> Iterator[tuple[str, list[Tool]]]:
    with MemoryModule.in_memory() as memory:
        yield "Our tools", ours.MemoryTools(memory, ours.USUAL_TOKENS).tools()
        graph = KnowledgeGraph(memory)
        yield "The tools of the reference server", official.GraphTools(graph, official.USUAL_TOKENS).tools()


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(f"`{each}`" for each in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    if "properties" in schema:
        return f"{{{', '.join(schema['properties'])}}}"
    limits = [f"{schema['minimum']:,} to {schema['maximum']:,}"] if "maximum" in schema else []
    return " ".join([schema.get("type", "anything"), *limits])


def _rows(schema: dict[str, Any], names: str = "") -> Iterator[str]:
    """Yield a row for each argument, and for those inside of it."""
    for name, part in schema.get("properties", {}).items():
        path = f"{names}{name}"
        needed = name in schema.get("required", ())
        usual = f"{json.dumps(part['default'], ensure_ascii=False)}" if "default" in part else "left out"
        yield f"| `{path}` | {_kind(part)} | {'**needed**' if needed else usual} | {part.get('description', '')} |"
        inner = part.get("items", part)
        if "properties" in inner:
            yield from _rows(inner, f"{path}[]." if "items" in part else f"{path}.")


def _described(tool: Tool) -> Iterator[str]:
    effect = (
        "It only reads."
        if tool.reads
        else "It changes the store."
        if not tool.destroys
        else ("It may replace or delete what is remembered.")
    )
    again = " A second call changes nothing more." if tool.is_idempotent and not tool.reads else ""
    yield f"### `{tool.name}`\n"
    yield f"{tool.description} {effect}{again}\n"
    yield from ("| argument | type | usual | |", "|---|---|---|---|")
    yield from _rows(schema_of(tool.arguments))
    answer = ", ".join(f"`{name}`" for name in schema_of(tool.answer)["properties"])
    yield f"\nThe answer has {answer}.\n"


def tools() -> str:
    """Return all tools with their arguments, as Markdown."""
    lines = []
    for title, some in _sets():
        lines.append(f"## {title}\n")
        for tool in some:
            lines += _described(tool)
    return "\n".join(lines).rstrip() + "\n"


def test_the_tools_on_the_page_are_those_of_the_code() -> None:
    text = PAGE.read_text(encoding="utf-8")

    assert text.partition(BEGIN)[2].partition(END)[0] == tools(), "run python -m tests.test_mcp_reference"


def test_the_usual_rooms_are_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")

    assert f"{ours.USUAL_TOKENS:,}" in text
    assert f"{official.USUAL_TOKENS:,}" in text


@pytest.mark.parametrize(
    "block",
    re.findall(r"```json\n(.*?)```", (DOCS / "how-to" / "serve-agents.md").read_text(encoding="utf-8"), re.DOTALL),
)
def test_the_settings_of_clients_are_json_that_runs_our_command(block: str) -> None:
    settings = json.loads(block)

    (servers,) = settings.values()
    for server in servers.values():
        assert server.get("command") == "jarvis-memory" or server.get("url", server.get("httpUrl", "")).endswith("/mcp")
        assert server.get("args", ["mcp"])[0] == "mcp"


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    PAGE.write_text(before + BEGIN + tools() + END + rest.partition(END)[2], encoding="utf-8")
