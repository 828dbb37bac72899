"""Every docstring's example runs, and everything public is documented where it is defined."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import tempfile
from pathlib import Path

import pytest

from jarvis.async_memory import AsyncMemoryModule, AsyncStore
from jarvis.config import ConfigLoader, JarvisConfig, RetentionRule, StorageConfig
from jarvis.container import Container
from jarvis.errors import JarvisError
from jarvis.json_backend import JSONBackend
from jarvis.model.entry import MemoryEntry
from jarvis.model.query import MemoryQuery
from jarvis.persistent_memory import HistoryPolicy, MemoryModule
from jarvis.services.store import Store
from jarvis.sqlite_backend import SQLiteBackend
from jarvis.storage_backend import BackendWrapper, StorageBackend

PUBLIC: tuple[type, ...] = (
    *(AsyncMemoryModule, BackendWrapper, ConfigLoader, Container, HistoryPolicy, JSONBackend, JarvisConfig),
    *(MemoryEntry, MemoryModule, MemoryQuery, RetentionRule, SQLiteBackend, StorageConfig, JarvisError),
    *(AsyncStore, Store),
)

SOURCE = Path(__file__).parent.parent / "src" / "jarvis"
MODULES = sorted(
    ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
    for path in SOURCE.rglob("*.py")
    if path.name != "__init__.py"
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    module = importlib.import_module(name)

    failed, _ = doctest.testmod(module)

    assert failed == 0


@pytest.mark.parametrize("kind", PUBLIC, ids=lambda kind: kind.__name__)
def test_the_examples_of_help_run_as_they_are(
    kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    runner = doctest.DocTestRunner()
    described = {kind.__name__: kind, **{name: held for name, held in inspect.getmembers(kind) if name[0] != "_"}}

    for name, held in described.items():
        text = inspect.getdoc(held) or ""
        runner.run(doctest.DocTestParser().get_doctest(text, {}, name, None, None))

    assert runner.summarize(verbose=False).failed == 0, capsys.readouterr().out


def test_every_public_class_of_the_interface_has_a_runnable_example() -> None:
    for kind in PUBLIC:
        assert ">>> " in (kind.__doc__ or ""), kind.__name__


def test_everything_public_is_documented_where_it_is_defined() -> None:
    missing = []
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inherited = _verbs_of_the_contract()
        kinds = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
        for kind in kinds:
            for function in kind.body:
                if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    public = not function.name.startswith("_") and not function.name.startswith("test_")
                    if public and not _is_documented(path, kind, function) and function.name not in inherited:
                        missing.append(f"{path.name}: {kind.name}.{function.name}")
    assert missing == []


def _is_documented(path: Path, kind: ast.ClassDef, function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Tell whether a method says what it does, or a class above its own does: an override copies nothing."""
    if ast.get_docstring(function):
        return True
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    module = importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    above = getattr(module, kind.name, object).__mro__[1:]
    return any(getattr(vars(each).get(function.name), "__doc__", None) for each in above)


def _verbs_of_the_contract() -> set[str]:
    from jarvis import capabilities
    from jarvis.persistent_memory import MemoryModule
    from jarvis.services.store import Store

    described = (
        StorageBackend,
        *(each for each in vars(capabilities).values() if getattr(each, "__module__", "") == capabilities.__name__),
        MemoryModule,
        Store,
    )
    return {name for kind in described for name in vars(kind)}
