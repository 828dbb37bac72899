"""The plan of the house: every module stands on a floor, and imports go down only."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "jarvis"

# From the ground up. Neighbours on a floor do not import each other; a package is one neighbour.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("_calls",),
    ("_disk",),
    ("codec", "keys"),
    ("encryption",),
    ("model",),
    ("config", "storage_backend", "_sql", "memory_entry", "entry_record", "value_filter"),
    ("_sqlite", "_json"),
    ("sqlite_backend", "json_backend"),
    ("backend_registry",),
    ("services",),
    ("persistent_memory",),
    ("async_memory",),
    ("container",),
    ("conformance",),
)
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}


def _rooms() -> dict[str, list[Path]]:
    rooms: dict[str, list[Path]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if room != "__init__":
            rooms.setdefault(room, []).append(path)
    return rooms


def _imported_rooms(path: Path) -> set[str]:
    """Return the rooms that a file imports anywhere in it, also inside functions and for types only."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {parts[1] for name in names if (parts := name.split("."))[0] == "jarvis" and len(parts) > 1}
    return found


def test_every_module_stands_on_a_floor() -> None:
    assert set(_rooms()) == set(FLOOR_OF)


@pytest.mark.parametrize("room", sorted(FLOOR_OF))
def test_imports_go_down_only(room: str) -> None:
    for path in _rooms()[room]:
        above = {other for other in _imported_rooms(path) - {room} if FLOOR_OF[other] >= FLOOR_OF[room]}
        assert not above, f"{path.name} imports {', '.join(sorted(above))}, which stand on its floor or above"


def test_packages_have_no_circles_inside() -> None:
    for room, paths in _rooms().items():
        if len(paths) > 1:
            graph = {path.stem: _inner_imports(path, room) for path in paths}
            while graph:
                free = [name for name, needs in graph.items() if not needs & (graph.keys() - {name})]
                assert free, f"{room}: {', '.join(sorted(graph))} import each other in a circle"
                graph = {name: needs for name, needs in graph.items() if name not in free}


def _inner_imports(path: Path, room: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module.startswith(f"jarvis.{room}."):
                found.add(node.module.split(".")[2])
            elif node.module == f"jarvis.{room}":
                found |= {alias.name for alias in node.names}
    return found - {path.stem}


def test_importing_the_module_pulls_in_no_extra_and_nothing_heavy() -> None:
    program = "import sys, jarvis.persistent_memory; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    loaded = {name.partition(".")[0] for name in shown.stdout.split()}
    heavy = {"typer", "click", "rich", "yaml", "pydantic", "numpy", "psycopg", "fastapi", "mcp", "pytest", "hypothesis"}
    heavy |= {"backports"}  # where zstd is, for who has large values
    assert not loaded & heavy
    assert not loaded & {"apsw", "asyncio", "sqlite3", "difflib"}, "these are for the backend in use, or for errors"
