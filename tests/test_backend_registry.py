"""The registry: names, the packages that add some, and what is said when a name cannot be used."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Protocol

import pytest

from jarvis.backend_registry import backends_with, known_backends, load_backend, open_backend
from jarvis.capabilities import Namespaced, Transactional
from jarvis.errors import UnknownBackendError, UnsupportedError
from jarvis.json_backend import JSONBackend
from jarvis.sqlite_backend import SQLiteBackend
from jarvis.storage_backend import StorageBackend

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Install = Callable[..., None]

DICT_BACKEND = """
from jarvis.storage_backend import StorageBackend

class DictBackend(StorageBackend):
    name = "dict"
    file_name = "memory.dict"
    def __init__(self, path, *, namespace="default"):
        if not namespace:
            raise TypeError("of the constructor itself")
        self.path, self.namespace = path, namespace
    def bootstrap(self): ...
    def create(self, entry): ...
    def read(self, entry_id): ...
    def update(self, entry): ...
    def delete(self, entry_id): ...
    def list_all(self): return []
    def query(self, category=None, tags=None, entity_type=None, entity_id=None, key=None): return []
    def shutdown(self): ...

class AnythingBackend(DictBackend):
    def __init__(self, path, **options):
        super().__init__(path, **options)

def make(): ...
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install packages for the test: a module, and entry points that name its classes."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(module: str, source: str, **backends: str) -> None:
        (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
        information = tmp_path / f"{module}-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        lines = "".join(f"{name} = {target}\n" for name, target in backends.items())
        (information / "entry_points.txt").write_text(f"[jarvis.storage_backends]\n{lines}")
        monkeypatch.delitem(sys.modules, module, raising=False)

    return install


# --- names ---------------------------------------------------------------------------------------


def test_the_backends_of_jarvis_are_known() -> None:
    assert known_backends() == ["json", "postgresql", "sqlite"]


@pytest.mark.parametrize(("name", "cls"), [("json", JSONBackend), ("sqlite", SQLiteBackend), ("SQLite", SQLiteBackend)])
def test_a_name_in_any_case_means_its_class(name: str, cls: type[StorageBackend]) -> None:
    assert load_backend(name) is cls


@pytest.mark.parametrize("name", ["json", "sqlite"])
def test_a_backend_calls_itself_what_it_is_registered_as(name: str) -> None:
    assert load_backend(name).name == name


def test_an_unknown_name_is_answered_with_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(UnknownBackendError) as caught:
        load_backend("sqllite")

    assert str(caught.value) == "no backend named 'sqllite'; known: json, postgresql, sqlite (did you mean 'sqlite'?)"


def test_a_backend_is_imported_only_when_it_is_asked_for() -> None:
    tell = "print([n for n in ('jarvis.sqlite_backend', 'importlib.metadata', 'inspect') if n in sys.modules])"
    asked = f"import sys; from jarvis.backend_registry import load_backend; load_backend('json'); {tell}"
    bare = f"import sys; import jarvis.json_backend; {tell}"

    def printed(program: str) -> str:
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert printed(asked) == printed(bare)


# --- names that packages add ---------------------------------------------------------------------


def test_an_installed_package_adds_a_backend(install: Install) -> None:
    install("dict_store", DICT_BACKEND, dict="dict_store:DictBackend")

    assert known_backends() == ["dict", "json", "postgresql", "sqlite"]
    assert load_backend("DICT").__name__ == "DictBackend"


def test_an_unknown_name_is_answered_with_what_packages_add(install: Install) -> None:
    install("dict_store", DICT_BACKEND, dict="dict_store:DictBackend")

    with pytest.raises(UnknownBackendError, match=r"known: dict, json, postgresql, sqlite \(did you mean 'dict'\?\)"):
        load_backend("dicct")


@pytest.mark.parametrize("name", ["sqlite", "SQLite"])
def test_a_package_cannot_take_a_name_of_jarvis(install: Install, name: str) -> None:
    install("dict_store", DICT_BACKEND, **{name: "dict_store:DictBackend"})

    assert load_backend(name) is SQLiteBackend
    assert known_backends() == ["json", "postgresql", "sqlite"]


def test_a_name_that_two_packages_register_differently_is_refused(install: Install) -> None:
    install("dict_store", DICT_BACKEND, dict="dict_store:DictBackend")
    install("other_store", DICT_BACKEND, dict="other_store:DictBackend")

    with pytest.raises(UnknownBackendError, match=r"dict_store:DictBackend, other_store:DictBackend.*uninstall"):
        load_backend("dict")


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import no_such_module_anywhere", ModuleNotFoundError),
        ("raise RuntimeError('no licence')", RuntimeError),
        ("def broken(:", SyntaxError),
        ("", AttributeError),
    ],
)
def test_a_package_that_cannot_be_imported_is_named_with_the_cause(
    install: Install, source: str, cause: type[Exception]
) -> None:
    install("broken_store", source, broken="broken_store:Backend")

    with pytest.raises(UnknownBackendError, match=r"'broken', registered as broken_store:Backend, cannot be") as caught:
        load_backend("broken")

    assert isinstance(caught.value.__cause__, cause)


def test_a_broken_package_disturbs_no_other_backend(install: Install) -> None:
    install("broken_store", "raise RuntimeError", broken="broken_store:Backend")

    assert load_backend("sqlite") is SQLiteBackend
    assert known_backends() == ["broken", "json", "postgresql", "sqlite"]


@pytest.mark.parametrize("target", ["dict_store:make", "builtins:dict", "dict_store"])
def test_what_is_no_backend_is_refused(install: Install, target: str) -> None:
    install("dict_store", DICT_BACKEND, wrong=target)

    with pytest.raises(UnknownBackendError, match=rf"'wrong', registered as {target}, is no subclass of"):
        load_backend("wrong")


# --- opening -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "file"), [("sqlite", "memory.db"), ("json", "memory.json")])
def test_a_backend_keeps_its_own_file_in_the_directory(tmp_path: Path, name: str, file: str) -> None:
    backend = open_backend(name, load_backend(name).location_in(tmp_path))
    backend.bootstrap()
    backend.shutdown()

    assert (tmp_path / file).is_file()


def test_opening_creates_nothing(tmp_path: Path) -> None:
    open_backend("sqlite", tmp_path / "new" / "memory.db")
    open_backend("json", tmp_path / "new" / "memory.json")

    assert list(tmp_path.iterdir()) == []


def test_options_reach_the_constructor(tmp_path: Path, install: Install) -> None:
    install("dict_store", DICT_BACKEND, dict="dict_store:DictBackend", anything="dict_store:AnythingBackend")

    location = load_backend("dict").location_in(tmp_path)
    assert vars(open_backend("dict", location, namespace="alice")) == {
        "path": tmp_path / "memory.dict",
        "namespace": "alice",
    }
    assert vars(open_backend("anything", "dict://somewhere", namespace="bob"))["namespace"] == "bob"


def test_an_option_that_a_backend_lacks_is_named_with_the_backends_that_have_it(
    tmp_path: Path, install: Install
) -> None:
    install("dict_store", DICT_BACKEND, dict="dict_store:DictBackend")

    with pytest.raises(UnsupportedError) as caught:
        open_backend("dict", tmp_path, namespace="alice", read_only=True)

    assert str(caught.value) == "the backend 'dict' has no option 'read_only'; json, postgresql and sqlite have"


def test_an_option_that_no_backend_has_is_named(tmp_path: Path, install: Install) -> None:
    install("dict_store", DICT_BACKEND, dict="dict_store:DictBackend")

    with pytest.raises(UnsupportedError) as caught:
        open_backend("dict", tmp_path, colour="red", path="elsewhere")

    assert str(caught.value) == "the backend 'dict' has no option 'colour', 'path'"


@pytest.mark.parametrize("cls", ["DictBackend", "AnythingBackend"])
def test_an_error_of_the_constructor_itself_stays_what_it_is(tmp_path: Path, install: Install, cls: str) -> None:
    install("dict_store", DICT_BACKEND, dict=f"dict_store:{cls}")

    with pytest.raises(TypeError, match="of the constructor itself"):
        open_backend("dict", tmp_path, namespace="")


# --- capabilities --------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [Transactional, Namespaced])
def test_a_capability_is_answered_with_the_backends_that_have_it(protocol: type) -> None:
    assert backends_with(protocol) == ["json", "postgresql", "sqlite"]


def test_a_capability_that_no_backend_has_is_answered_with_none() -> None:
    class Levitates(Protocol):
        """levitation: the store floats."""

    assert backends_with(Levitates) == []
