"""The plan of the house: every room stands on a floor, and imports go down only.

Run as a program, it writes the table of rooms into the docs: ``python tests/test_floors.py``.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FrameType

import pytest

from jarvis.persistent_memory import MemoryModule

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "jarvis"
PAGE = ROOT / "docs" / "explanation" / "design.md"

# From the ground up. Neighbours on a floor do not import each other; a folder is one room.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("_calls",),
    ("_disk",),
    ("codec", "keys"),
    ("encryption",),
    ("model",),
    ("text", "embedding", "capabilities"),
    ("search", "conversations"),
    ("config", "exports", "storage_backend", "memory_entry", "entry_record", "value_filter"),
    ("_sql",),
    ("_sqlite", "_postgresql", "_json"),
    ("sqlite_backend", "postgresql_backend", "json_backend", "caching", "sealing"),
    ("backend_registry",),
    ("services",),
    ("persistent_memory",),
    ("async_memory", "importers"),
    ("container",),
    ("conformance", "moving"),
    ("interfaces",),
    ("__main__",),
)
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}
MOST_ROOMS = 37
MOST_IMPORTS = 4.2
"""Imports between rooms for each room; the top floor opens most of the house."""

MOST_LINES = 450
LONG = {
    "async_memory.py": "a line for each verb, and what a transaction across awaits needs",
    "capabilities.py": "signatures, and what they promise",
    "conformance/expiry.py": "a list of promises",
    "conformance/history.py": "a list of promises",
    "conformance/machine.py": "one state machine",
    "conformance/module/retention.py": "a list of promises",
    "storage_backend.py": "the contract, and a line for each verb that a wrapper passes on",
    "services/store.py": "signatures, and what they promise",
    "interfaces/operations.py": "signatures, and what they promise",
    "persistent_memory.py": "signatures, and what they promise",
}
"""Files of more than `MOST_LINES`, and why."""

BEGIN, END = "<!-- rooms -->\n", "<!-- end of rooms -->\n"


@cache
def _modules() -> dict[str, Path]:
    """Return the path of every module by its name below ``jarvis``; a folder is a module of its own."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            found[name] = path
    return found


@cache
def _imports(name: str) -> frozenset[str]:
    """Return the modules that a module imports anywhere in it, also inside functions and for types only."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(_modules()[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {_module_of(each.removeprefix("jarvis.")) for each in names if each.startswith("jarvis.")}
    return frozenset(found - {name})


def _module_of(name: str) -> str:
    while name and name not in _modules():
        name = name.rpartition(".")[0]
    return name


def _room(module: str) -> str:
    return module.partition(".")[0]


@cache
def _rooms() -> dict[str, list[str]]:
    """Return the rooms that each room imports."""
    rooms: dict[str, set[str]] = {}
    for module in _modules():
        rooms.setdefault(_room(module), set()).update(_room(each) for each in _imports(module))
    return {room: sorted(imported - {room}) for room, imported in rooms.items()}


def _imports_a_room() -> float:
    return sum(len(imported) for imported in _rooms().values()) / len(_rooms())


def test_every_room_stands_on_a_floor() -> None:
    assert set(_rooms()) == set(FLOOR_OF)


@pytest.mark.parametrize("room", sorted(FLOOR_OF))
def test_imports_go_down_only(room: str) -> None:
    above = [other for other in _rooms()[room] if FLOOR_OF[other] >= FLOOR_OF[room]]

    assert not above, f"{room} imports {', '.join(above)}, which stand on its floor or above"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: set(_imports(name)) for name in _modules()}
    while graph:
        free = [name for name, needs in graph.items() if not needs & (graph.keys() - {name})]
        assert free, f"{', '.join(sorted(graph))} import each other in a circle"
        graph = {name: needs for name, needs in graph.items() if name not in free}


def test_rooms_are_few_and_know_few_others() -> None:
    assert len(_rooms()) <= MOST_ROOMS
    assert _imports_a_room() <= MOST_IMPORTS


def test_every_folder_says_what_belongs_there() -> None:
    for folder in {path.parent for path in SOURCE.rglob("*.py")}:
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))), folder


def test_a_long_file_has_a_reason() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCE.rglob("*.py")}

    assert {str(path.relative_to(SOURCE)) for path, lines in lengths.items() if lines > MOST_LINES} == set(LONG)


def table() -> str:
    """Return the rooms from the top down with what they import, and the files that are long, as Markdown."""
    lines = ["| floor | room | what is there | it imports |", "| --- | --- | --- | --- |"]
    for number, names in reversed(list(enumerate(FLOORS, 1))):
        for name in names:
            path = _modules()[name]
            is_folder = path.name == "__init__.py"
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            imported = " ".join(f"`{each}`" for each in sorted(_rooms()[name], key=FLOOR_OF.__getitem__, reverse=True))
            lines.append(f"| {number} | `{name}{'/' if is_folder else ''}` | {text.splitlines()[0]} | {imported} |")
    lines.append("")
    lines.append(f"{len(_rooms())} rooms, {_imports_a_room():.1f} imports between rooms for each room.")
    lines.append(f"Files of more than {MOST_LINES} lines, and why:")
    lines.append("")
    lines += [f"- `{name}`: {reason}" for name, reason in sorted(LONG.items())]
    return "\n".join(lines) + "\n"


def test_the_table_of_rooms_in_the_docs_is_of_today() -> None:
    text = PAGE.read_text(encoding="utf-8")

    shown = text.partition(BEGIN)[2].partition(END)[0]
    assert shown == table(), f"{PAGE.name} shows another house; run python {Path(__file__).name}"


STEP = re.compile(r"^(?P<room>\w+(?:/\w+)?) +(?P<function>[\w.]+)(?: {2,}|$)", re.MULTILINE)
"""A line of the way of a call: the file, and the function there."""


def steps_of(title: str) -> list[tuple[str, str]]:
    """Return the steps of the way that the page shows under a title."""
    text = PAGE.read_text(encoding="utf-8").partition(f"## {title}\n")[2].partition("```text\n")[2].partition("```")[0]
    return [(step["room"], step["function"]) for step in STEP.finditer(text)]


def functions_run_by(call: Callable[[], object]) -> list[tuple[str, str]]:
    """Return the file and the name of each function of jarvis that a call runs, in order."""
    ran: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(SOURCE):
            ran.append((str(path.relative_to(SOURCE).with_suffix("")), frame.f_code.co_qualname))

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return ran


CALLS: dict[str, Callable[[MemoryModule], object]] = {
    "How a memory is created": lambda memory: memory.create_memory("tasks", "b", {"n": 1}, "task", tags=["b"]),
    "How memories are found": lambda memory: memory.search_memories("tasks", tags=["a", "b"], where={"n": 1}),
}


@pytest.mark.parametrize("title", CALLS)
def test_the_way_of_a_call_in_the_docs_is_the_one_it_takes(title: str, tmp_path: Path) -> None:
    with MemoryModule(storage_dir=tmp_path) as memory:
        memory.create_memory("tasks", "a", {"n": 1}, "task", tags=["a"])
        ran = iter(functions_run_by(lambda: CALLS[title](memory)))
    steps = steps_of(title)

    assert len(steps) > 10
    assert [step for step in steps if step not in ran] == []  # `in` goes on behind the step before


def test_importing_the_module_pulls_in_no_extra_and_nothing_heavy() -> None:
    program = "import sys, jarvis.persistent_memory; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    loaded = {name.partition(".")[0] for name in shown.stdout.split()}
    heavy = {"typer", "click", "rich", "yaml", "pydantic", "numpy", "psycopg", "fastapi", "mcp", "pytest", "hypothesis"}
    heavy |= {"backports"}  # where zstd is, for who has large values
    assert not loaded & heavy
    assert not loaded & {"apsw", "asyncio", "sqlite3", "difflib"}, "these are for the backend in use, or for errors"


def test_a_question_to_a_store_imports_nothing_that_few_calls_need(tmp_path: Path) -> None:
    with MemoryModule(storage_dir=tmp_path) as memory:
        memory.set_user_preference("theme", {"mode": "dark"})
    program = "import sys; from jarvis.persistent_memory import MemoryModule; "
    program += "MemoryModule(storage_dir=sys.argv[1]).get_user_preference('theme'); print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)

    assert not set(shown.stdout.split()) & {"logging", "shutil", "tempfile", "asyncio", "difflib", "sqlite3"}


def test_importing_the_package_imports_nothing_of_it_before_it_is_asked_for() -> None:
    program = """if True:
        import sys, jarvis, jarvis.errors
        print("importlib.metadata" in sys.modules, *(name for name in sys.modules if name.startswith("jarvis.")))
        from jarvis import MemoryModule
        import importlib.metadata, jarvis.persistent_memory
        print(MemoryModule is jarvis.persistent_memory.MemoryModule)
        print(jarvis.__version__ == importlib.metadata.version("jarvis-memory"), hasattr(jarvis, "MemoryModul"))
    """
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert shown.stdout.split() == ["False", "jarvis.errors", "True", "True", "False"]


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.partition(END)[2], encoding="utf-8")
