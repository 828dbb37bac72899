"""Every backend keeps the contract: ours, and those that the page about backends writes."""

from __future__ import annotations

import re
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import conninfo

from jarvis.caching import CachedBackend
from jarvis.conformance import BackendContract
from jarvis.conformance.fixtures import OpenBackend
from jarvis.json_backend import JSONBackend
from jarvis.keys import KeyFunction
from jarvis.postgresql_backend import PostgreSQLBackend
from jarvis.sealing import SealedBackend
from jarvis.sqlite_backend import SQLiteBackend
from jarvis.storage_backend import BackendWrapper, StorageBackend

from .plain_sqlite import PlainBackend
from .postgresql import a_database, server
from .sealable import SealableJSON, SealableSQLite

PAGE: dict[str, Any] = {"__name__": "write_a_backend"}
_TEXT = (Path(__file__).parent.parent / "docs" / "how-to" / "write-a-backend.md").read_text(encoding="utf-8")
for _program in re.findall(r"```python\n(.*?)```", _TEXT, re.DOTALL):
    exec(_program, PAGE)

DictBackend = PAGE["DictBackend"]
TestThirdParty = PAGE["TestDictBackend"]
TestThirdPartyNamespaced = PAGE["TestNamespacedDictBackend"]


class TestSQLite(BackendContract):
    @pytest.fixture
    def open_backend(self, tmp_path: Path) -> OpenBackend:
        return lambda: SQLiteBackend(tmp_path / "memory.db", durability="normal")


def a_key() -> bytes:
    return b"a key of the suite, 32 bytes long"[:32]


class TestSQLiteEncrypted(BackendContract):
    @pytest.fixture
    def open_backend(self, tmp_path: Path) -> OpenBackend:
        keys = [KeyFunction(a_key)]
        return lambda: SQLiteBackend(tmp_path / "memory.db", durability="normal", encryption="required", keys=keys)


class TestPostgreSQL(BackendContract):
    partitions = 0

    @pytest.fixture
    def open_backend(self) -> Iterator[OpenBackend]:
        backends: list[StorageBackend] = []

        def open_it() -> StorageBackend:
            backends.append(self.open_it(dsn))
            return backends[-1]

        with a_database() as dsn:
            yield open_it
            for backend in backends:
                backend.shutdown()

    def open_it(self, dsn: str) -> StorageBackend:
        return PostgreSQLBackend(dsn, durability="normal", partitions=self.partitions)


class TestPostgreSQLPartitioned(TestPostgreSQL):
    partitions = 3


ROLE = f"admitted_{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def role() -> Iterator[None]:
    with psycopg.connect(server(syncs=False), autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {ROLE} LOGIN")
        yield
        owner.execute(f"DROP ROLE {ROLE}")


@pytest.mark.usefixtures("role")
class TestPostgreSQLAdmitted(TestPostgreSQL):
    """With a role that owns nothing, and sees what the owner has admitted it to: every row passes the wall."""

    def open_it(self, dsn: str) -> StorageBackend:
        owner = PostgreSQLBackend(dsn)
        owner.admit(ROLE, all_namespaces=True)
        owner.shutdown()
        return super().open_it(conninfo.make_conninfo(dsn, user=ROLE))


class TestPostgreSQLSealed(TestPostgreSQL):
    def open_it(self, dsn: str) -> StorageBackend:
        keys = [KeyFunction(a_key)]
        return SealedBackend(super().open_it(dsn), keys=keys)


class TestJSON(BackendContract):
    @pytest.fixture
    def open_backend(self, tmp_path: Path) -> OpenBackend:
        return lambda: JSONBackend(tmp_path / "memory.json", durability="normal")


class TestWrapped(BackendContract):
    @pytest.fixture
    def open_backend(self, tmp_path: Path) -> OpenBackend:
        return lambda: BackendWrapper(SQLiteBackend(tmp_path / "memory.db", durability="normal"))


class TestSealedSQLite(BackendContract):
    @pytest.fixture
    def open_backend(self, tmp_path: Path) -> OpenBackend:
        keys = [KeyFunction(a_key)]
        return lambda: SealedBackend(SealableSQLite(tmp_path / "memory.db", durability="normal"), keys=keys)


class TestSealedJSON(BackendContract):
    @pytest.fixture
    def open_backend(self, tmp_path: Path) -> OpenBackend:
        keys = [KeyFunction(a_key)]
        return lambda: SealedBackend(SealableJSON(tmp_path / "memory.json", durability="normal"), keys=keys)


class AskedTwice(CachedBackend):
    """Gives the second answer to each question, which is one that was kept."""

    def _answer(self, *question: Any) -> Any:
        super()._answer(*question)
        return super()._answer(*question)


class TestCachedSQLite(BackendContract):
    @pytest.fixture
    def open_backend(self, tmp_path: Path) -> OpenBackend:
        return lambda: AskedTwice(SQLiteBackend(tmp_path / "memory.db", durability="normal"))


class TestCachedJSON(BackendContract):
    @pytest.fixture
    def open_backend(self, tmp_path: Path) -> OpenBackend:
        return lambda: AskedTwice(JSONBackend(tmp_path / "memory.json", durability="normal"))


class TestPlainSQLite(BackendContract):
    """The shared statements on another driver: see `plain_sqlite`."""

    @pytest.fixture
    def open_backend(self, tmp_path: Path) -> OpenBackend:
        return lambda: PlainBackend(tmp_path / "memory.db")


def test_another_driver_takes_a_small_file() -> None:
    assert len((Path(__file__).parent / "plain_sqlite.py").read_text(encoding="utf-8").splitlines()) < 310


def test_no_group_of_promises_hides_a_promise_or_a_fixture_of_another_one() -> None:
    groups = [kind for kind in BackendContract.__mro__ if kind.__module__.startswith("jarvis.conformance.")]
    names = [name for kind in groups for name in vars(kind) if not name.startswith("__")]

    assert len(groups) > 10
    assert [name for name, times in Counter(names).items() if times > 1] == []


def test_a_failed_assert_shows_its_values(tmp_path: Path) -> None:
    (tmp_path / "test_forgetful.py").write_text(FORGETFUL, encoding="utf-8")

    for plugin in ([], ["-p", "jarvis.conformance.plugin"]):
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", *plugin, "-k", "updating_or_deleting_an_absent"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

        assert "1 failed" in ended.stdout
        assert "assert False is True" in ended.stdout
        assert "Warning" not in ended.stdout


def test_promises_of_the_backend_and_of_the_module_are_shown_apart(tmp_path: Path) -> None:
    (tmp_path / "test_forgetful.py").write_text(FORGETFUL, encoding="utf-8")
    chosen = "updating_or_deleting_an_absent or absent_id_is_read_as_none"

    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "jarvis.conformance.plugin", "-k", chosen],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    _, _, rest = ended.stdout.partition("promises of the backend")
    of_backend, _, of_module = rest.partition("promises of the module")
    assert re.search(r"^an absent id is read as none +kept$", of_backend, re.MULTILINE)
    assert re.search(r"^updating or deleting an absent id returns false +BROKEN$", of_module, re.MULTILINE)


FORGETFUL = """
import pytest
from jarvis.caching import CachedBackend
from jarvis.conformance import BackendContract
from jarvis.json_backend import JSONBackend

class Forgetful(JSONBackend):
    def discard(self, entry_id):
        return False

class TestForgetful(BackendContract):
    @pytest.fixture
    def open_backend(self, tmp_path):
        return lambda: Forgetful(tmp_path / "memory.json")
"""
