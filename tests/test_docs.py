"""The documentation is true: its programs run, its tables are complete, its links lead somewhere."""

from __future__ import annotations

import contextlib
import doctest
import inspect
import os
import re
import shlex
import unittest.mock
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jarvis import errors
from jarvis.backend_registry import load_backend
from jarvis.capabilities import Encrypts
from jarvis.config import ConfigLoader
from jarvis.container import Container
from jarvis.persistent_memory import HistoryPolicy, MemoryModule, RetentionRule, utc_now
from jarvis.sealing import SealedBackend
from jarvis.services.store import Store
from tests.commands import called
from tests.postgresql import a_database
from tests.test_former_names import MOVED_TO_STORE

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
_DATABASES = ("memories", "sealed", "sealed_later")
_SERVERS = {f"postgresql://jarvis@db.example.com/{name}": name for name in _DATABASES}
"""By URL: the fixture that makes the database."""

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def _own_environment() -> Iterator[None]:
    with unittest.mock.patch.dict(os.environ):  # what a program sets is gone behind it
        yield


@pytest.fixture
def memories() -> Iterator[str]:
    """Make the database whose URL the programs of a page find in the place of one of `_SERVERS`."""
    with a_database() as url, psycopg.connect(url, autocommit=True) as admin:
        for role in ("alice_app", "assistant", "reader"):
            with contextlib.suppress(psycopg.errors.DuplicateObject):
                admin.execute(f"CREATE ROLE {role}")
        yield url


@pytest.fixture
def sealed(memories: str) -> Iterator[str]:  # which has made the roles
    """Make another such database."""
    with a_database() as url:
        yield url


@pytest.fixture
def sealed_later() -> Iterator[str]:
    """Make another one."""
    with a_database() as url:
        yield url


@pytest.mark.usefixtures("_own_environment")
@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_the_programs_of_a_page_run_in_order(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    names: dict[str, Any] = {"__name__": "documentation"}
    text = page.read_text(encoding="utf-8")

    for block in _BLOCK.finditer(text):
        language, program = block.groups()
        line = text[: block.start()].count("\n") + 1
        for url, fixture in _SERVERS.items():
            if f'{url}"' in program and language.startswith("py"):
                program = program.replace(f'{url}"', f'{request.getfixturevalue(fixture)}"')
        if language == "python":
            exec(compile("\n" * line + program, _name(page), "exec"), names)
        elif language == "console" and "$ jarvis-memory " in program:
            _run_commands(program, _name(page))
        elif language == "pycon":
            example = doctest.DocTestParser().get_doctest(program, names, _name(page), _name(page), line)
            runner = doctest.DocTestRunner()
            runner.run(example, clear_globs=False)
            assert runner.failures == 0, capsys.readouterr().out
            names.update(example.globs)


def _run_commands(session: str, name: str) -> None:
    """Run the commands of a session in a pipe, and compare what they write; ``…`` stands for any text."""
    for line in re.findall(r"^\$ jarvis-memory .*(?:\n(?!\$ ).*)*", session, re.MULTILINE):
        command, _, shown = line.removeprefix("$ jarvis-memory ").partition("\n")
        ended = called(*shlex.split(command))
        assert ended.code == 0, (name, command, ended)
        pattern = ".*".join(map(re.escape, shown.strip("\n").split("…")))
        assert re.fullmatch(pattern, ended.out.strip("\n")), (name, command, ended.out)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_the_links_of_a_page_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_error_is_documented_with_its_parents() -> None:
    table = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    defined = {
        name: kind
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and kind.__module__ == errors.__name__
    }

    documented = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", table, re.MULTILINE))

    assert documented.keys() == defined.keys()
    for name, parent in documented.items():
        assert parent in {kind.__name__ for kind in defined[name].__mro__[1:]}, name


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_the_settings_of_a_page_load(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JARVIS_PASSWORD", "secret")
    file = tmp_path / "config.yaml"

    for language, settings in _BLOCK.findall(page.read_text(encoding="utf-8")):
        if language in ("yaml", "yml"):
            file.write_text(settings, encoding="utf-8")
            ConfigLoader(file).load()


def test_the_table_of_capabilities_is_that_of_the_code() -> None:
    page = (ROOT / "docs" / "reference" / "backends.md").read_text(encoding="utf-8")
    header, *rows = [line.strip("| ").split(" | ") for line in page.splitlines() if re.match(r"\| (`|cap)", line)]

    shown = {row[0].strip("`"): row[2:] for row in rows}

    kinds = {name: load_backend(name).capabilities for name in header[2:5]}
    kinds[header[5]] = (Encrypts, *(kind for kind in kinds["postgresql"] if kind in SealedBackend.capabilities))
    known = {kind.__name__: kind for each in kinds.values() for kind in each}
    assert [*kinds] == ["sqlite", "json", "postgresql", "postgresql, sealed"]
    assert shown == {name: ["yes" if kind in able else "no" for able in kinds.values()] for name, kind in known.items()}


API = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", [MemoryModule, HistoryPolicy, RetentionRule], ids=lambda kind: kind.__name__)
def test_a_signature_on_the_map_is_that_of_the_code(kind: type) -> None:
    shown = API.partition(f"`{kind.__name__}(")[2].partition(")`")[0]

    known = {"HistoryPolicy": HistoryPolicy, "timedelta": timedelta, "utc_now": utc_now}
    documented = inspect.signature(eval(f"lambda {' '.join(shown.split())}: None", known)).parameters.values()
    parameters = inspect.signature(kind).parameters.values()
    assert [(each.name, each.default) for each in documented] == [(each.name, each.default) for each in parameters]


def test_every_parameter_of_a_verb_is_on_the_map() -> None:
    code = " ".join(re.findall(r"`([^`]+)`", API))

    verbs = {**vars(MemoryModule), **vars(Container)}.items()
    public = [verb for name, verb in verbs if name[0] != "_" and name not in MOVED_TO_STORE and callable(verb)]
    parameters = {name for verb in public for name in inspect.signature(verb).parameters}
    assert {name for name in parameters - {"self"} if not re.search(rf"\b{name}\b", code)} == set()


def test_every_verb_is_on_the_map() -> None:
    verbs = [name for name in dir(MemoryModule) if not name.startswith("_") and name not in MOVED_TO_STORE]
    verbs += [name for name in dir(Container) if not name.startswith("_")]

    assert [name for name in verbs if f"`{name}" not in API] == []


def test_every_verb_of_the_store_is_on_its_page_and_so_is_every_former_name() -> None:
    page = (ROOT / "docs" / "reference" / "store.md").read_text(encoding="utf-8")
    table, _, former = page.partition("## Former names")

    assert [name for name in vars(Store) if name[0] != "_" and f"| `{name}(" not in table] == []
    assert [name for name in MOVED_TO_STORE if f"`{name}`" not in former] == []


def test_every_target_of_the_readme_is_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    for page in PAGES:
        for target in re.findall(r"^make (\w+)", page.read_text(encoding="utf-8"), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
