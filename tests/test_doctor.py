"""The doctor: each check finds what it is for, is silent on a healthy store, and changes nothing."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import conninfo

from jarvis._disk import location
from jarvis.interfaces import doctor
from jarvis.interfaces.cli.app import GROUPS
from jarvis.interfaces.doctor import CHECKS, Finding, Limits, contents, examine, server
from jarvis.interfaces.doctor.patient import Patient
from jarvis.keys import KeyFile, KeySource, Passphrase
from jarvis.persistent_memory import MemoryModule
from jarvis.postgresql_backend import PostgreSQLBackend
from tests.commands import called
from tests.postgresql import IS_ROOT, NOBODY, a_database

STORES = Path(__file__).parent / "stores"
LATER = timedelta(hours=1)


def made(directory: Path, **options: Any) -> Path:
    """Make a healthy store; return its directory."""
    with MemoryModule(storage_dir=directory, **options) as memory:
        memory.set_user_preference("theme", {"mode": "dark"})
        memory.set_user_preference("theme", {"mode": "light"})
    return directory


def names(findings: list[Finding]) -> list[str]:
    return [finding.check for finding in findings]


def image(directory: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_mode, path.read_bytes())
        for path in directory.rglob("*")
        if path.is_file()
    }


# --- health ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "json"])
def test_a_healthy_store_has_no_findings(tmp_path: Path, kind: str) -> None:
    store = made(tmp_path / "store", backend_type=kind)

    assert examine(store) == examine(str(store)) == []
    assert examine(next(path for path in store.iterdir() if path.suffix in (".db", ".json"))) == []


def test_a_healthy_encrypted_store_has_no_findings(tmp_path: Path) -> None:
    keys: list[KeySource] = [KeyFile.create(tmp_path / "key"), Passphrase("correct horse battery staple")]
    store = made(tmp_path / "store", encryption="on", keys=keys)

    assert examine(store, keys=keys[:1]) == []


def test_a_healthy_server_has_no_findings() -> None:
    role = f"tenant_{uuid.uuid4().hex[:12]}"
    with a_database() as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        owner = PostgreSQLBackend(dsn)
        MemoryModule(owner).set_user_preference("theme", {"mode": "dark"})
        connection.execute(f"CREATE ROLE {role} LOGIN")
        owner.admit(role, all_namespaces=True)

        found = examine(a_url(dsn, role))

        owner.shutdown()
        connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert [finding for finding in found if finding.check != "engine"] == []  # its support may have ended by now


def a_url(dsn: str, role: str | None = None) -> str:
    """Return a URL, with another role."""
    from urllib.parse import quote, urlencode

    given = {**conninfo.conninfo_to_dict(dsn), **({"user": role} if role else {})}
    return f"postgresql://?{urlencode(given, quote_via=quote)}"


@pytest.mark.parametrize("name", ["plain", "json", "encrypted", "first life", "damaged", "absent"])
def test_an_examination_changes_nothing(tmp_path: Path, name: str) -> None:
    store = tmp_path / "store"
    keys = [KeyFile.create(tmp_path / "key")]
    match name:
        case "first life":
            store.mkdir()
            (store / "memory.json").write_text('{"entries": {}}')
        case "damaged":
            made(store)
            damage(store / "memory.db")
        case "absent":
            pass
        case _:
            options: dict[str, Any] = {"encryption": "on", "keys": keys} if name == "encrypted" else {}
            made(store, backend_type="json" if name == "json" else "sqlite", **options)
    before = image(tmp_path)

    examine(store, keys=keys)

    assert image(tmp_path) == before
    assert store.exists() == (name != "absent")


def test_a_store_in_use_is_examined_beside_its_writer(tmp_path: Path) -> None:
    with MemoryModule(storage_dir=tmp_path) as memory:
        memory.set_user_preference("theme", {"mode": "dark"})
        before = image(tmp_path)

        assert examine(tmp_path) == []
        assert image(tmp_path).keys() == before.keys()
        memory.set_user_preference("theme", {"mode": "light"})


# --- opening -----------------------------------------------------------------------------------------


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for place in range(5_000, len(data), 4_096):
        data[place] ^= 255
    path.write_bytes(data)


def test_a_damaged_store_is_to_be_repaired(tmp_path: Path) -> None:
    damage(made(tmp_path) / "memory.db")

    found = {finding.check: finding for finding in examine(tmp_path)}

    assert "repair" in found["opening"].command
    assert "damaged" in found["opening"].explanation


def test_an_absent_store_is_to_be_made(tmp_path: Path) -> None:
    (finding,) = examine(tmp_path / "none")

    assert (finding.check, finding.severity) == ("opening", "problem")
    assert finding.command.endswith("init")


def test_a_store_without_its_key_is_examined_as_far_as_that_goes(tmp_path: Path) -> None:
    store = made(tmp_path / "store", encryption="on", keys=[Passphrase("correct horse battery staple")])
    (store / "memory.db").chmod(0o644)

    found = names(examine(store))

    assert found == ["opening", "permissions", "recovery"]


def test_a_file_that_is_no_store_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "memory.db").write_bytes(b"something else" * 900)
    (tmp_path / "memory.db").chmod(0o600)

    assert names(examine(tmp_path)) == ["opening"]


@pytest.mark.parametrize(
    "place", ["", "a\0b", "half \ud83d", "x" * 5_000, "~nobody-has-this-name/x", "nope://x", "://"]
)
def test_a_place_that_is_none_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.chdir(tmp_path)

    assert names(examine(place)) == ["opening"]
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_regular_file_is_a_finding(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "memory.db")
    (tmp_path / "other" / "memory.json").mkdir(parents=True)

    assert names(examine(tmp_path)) == names(examine(tmp_path / "other")) == ["opening"]


# --- files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "mode"), [("memory.db", 0o640), ("memory.db", 0o602), (".", 0o770), (".", 0o757)])
def test_what_others_may_read_or_change_is_found(tmp_path: Path, path: str, mode: int) -> None:
    store = made(tmp_path / "store")
    (store / path).chmod(mode)

    (finding,) = examine(store)

    assert (finding.check, finding.severity, finding.subject) == ("permissions", "problem", str(store / path))
    os.system(finding.command)
    assert examine(store) == []


@pytest.mark.skipif(not IS_ROOT, reason="only root gives files away")
def test_a_file_of_another_owner_is_found(tmp_path: Path) -> None:
    store = made(tmp_path / "store")
    os.chown(store / "memory.db.lock", NOBODY, -1)

    (finding,) = examine(store)

    assert (finding.check, finding.subject) == ("owner", str(store / "memory.db.lock"))
    os.system(finding.command)
    assert examine(store) == []


@pytest.mark.parametrize(("kind", "severity"), [("nfs4", "problem"), ("virtiofs", "advice"), ("ext4", None)])
def test_a_place_where_a_store_may_not_lie_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, severity: str | None
) -> None:
    store = made(tmp_path / "store")
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 2 0:1 / {store} rw - {kind} x rw\n")
    monkeypatch.setattr(location, "MOUNTS", str(mounts))

    found = [finding for finding in examine(store) if finding.check == "place"]

    assert [finding.severity for finding in found] == ([severity] if severity else [])


def test_a_synchronised_folder_and_a_mounted_file_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Dropbox").mkdir()
    store = made(tmp_path / "store").rename(tmp_path / "Dropbox" / "store")
    assert names(examine(store)) == ["place"]
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 2 0:1 / {store / 'memory.db'} rw - ext4 x rw\n")
    monkeypatch.setattr(location, "MOUNTS", str(mounts))

    assert [finding.severity for finding in examine(store)] == ["problem", "advice"]


@pytest.mark.parametrize("name", [".memory.db.1-abcd.tmp", ".memory.db.1-abcd.tmp-wal", ".memory.db.moving"])
def test_what_a_killed_process_left_is_found_when_nobody_writes_it(tmp_path: Path, name: str) -> None:
    store = made(tmp_path)
    (store / name).write_bytes(b"x")

    assert examine(store) == []
    (finding,) = examine(store, now=datetime.now(UTC) + LATER)

    assert (finding.check, finding.subject) == ("leftovers", str(store / name))


def test_a_change_of_key_that_was_broken_off_is_ended_by_the_command(tmp_path: Path) -> None:
    keys: list[KeySource] = [KeyFile.create(tmp_path / "key"), Passphrase("correct horse battery staple")]
    store = made(tmp_path / "store")

    def stop(progress: Any) -> None:
        if progress.stage == "copy":
            raise KeyboardInterrupt

    with MemoryModule(storage_dir=store) as memory, pytest.raises(KeyboardInterrupt):
        memory.store.encrypt(keys, progress=stop)
    copy = store / ".memory.db.moving"
    copy.touch()  # that of a killed process stays

    found = [each for each in examine(store, now=datetime.now(UTC) + LATER) if each.check == "leftovers"]

    assert [finding.subject for finding in found] == [str(copy)]
    assert called(*shlex.split(found[0].command)[1:]).code == 0
    assert examine(store, now=datetime.now(UTC) + LATER) == []
    assert MemoryModule(storage_dir=store).store.key_slots()


def test_a_kept_copy_is_found(tmp_path: Path) -> None:
    store = made(tmp_path)
    (store / "memory.db.first-life").write_bytes(b"x")

    (finding,) = examine(store)

    assert (finding.check, shlex.split(finding.command)[-1]) == ("kept-copies", str(store / "memory.db.first-life"))


def test_a_second_store_is_found(tmp_path: Path) -> None:
    made(tmp_path, backend_type="json")
    store = made(tmp_path)

    (finding,) = examine(store)

    assert (finding.check, finding.subject) == ("second-store", str(store / "memory.json"))
    other = MemoryModule(storage_dir=store, backend_type="json").create_memory("notes", "mine", {}, "note")
    for line in finding.command.split(" && "):
        assert called(*shlex.split(line)[1:]).code == 0
    assert MemoryModule(storage_dir=store).get_memory(other)


def test_a_full_disk_is_found(tmp_path: Path) -> None:
    store = made(tmp_path)

    (finding,) = examine(store, limits=Limits(free_bytes=2**62))

    assert (finding.check, finding.severity) == ("disk-space", "problem")


def test_a_disk_without_room_for_a_copy_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = made(tmp_path)
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    (finding,) = examine(store, limits=Limits(free_bytes=1))

    assert (finding.check, finding.severity) == ("disk-space", "advice")


def test_a_large_log_is_found(tmp_path: Path) -> None:
    with MemoryModule(storage_dir=tmp_path) as memory:
        memory.set_user_preference("theme", {"mode": "dark"})

        (finding,) = examine(tmp_path, limits=Limits(log_bytes=1))

    assert (finding.check, finding.subject) == ("log", str(tmp_path / "memory.db-wal"))


# --- contents ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", sorted(STORES.glob("version-*.db")), ids=lambda file: file.stem)
def test_a_file_of_an_earlier_version_is_found(tmp_path: Path, file: Path) -> None:
    shutil.copy(file, tmp_path / "memory.db")
    (tmp_path / "memory.db").chmod(0o600)
    before = image(tmp_path)

    found = examine(tmp_path)

    assert "old-format" in names(found)
    assert {finding.check for finding in found} <= {"old-format", "clock"}
    assert image(tmp_path) == before


def test_a_file_of_the_first_life_is_found(tmp_path: Path) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "memory.db") as connection:
        connection.execute(
            "CREATE TABLE memories (id TEXT PRIMARY KEY, category TEXT, key TEXT, value TEXT, tags TEXT, "
            "entity_type TEXT, entity_id TEXT, timestamp TEXT, provenance TEXT, created_at TEXT)"
        )
    connection.close()
    (tmp_path / "memory.db").chmod(0o600)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "memory.json").write_text('{"entries": {}}')
    (tmp_path / "other" / "memory.json").chmod(0o600)

    for place in (tmp_path, tmp_path / "other"):
        assert "old-format" in names(examine(place))


def test_a_sqlite_with_a_fault_is_found(tmp_path: Path) -> None:
    patient = Patient(made(tmp_path), config=None, keys=(), now=datetime.now(UTC), limits=Limits())

    assert names(list(contents.engine_version(patient, (3, 51, 2)))) == ["engine"]
    assert list(contents.engine_version(patient, (3, 51, 3))) == []
    assert list(contents.engine_version(patient)) == []


def test_a_key_file_that_others_may_read_is_found(tmp_path: Path) -> None:
    keys: list[KeySource] = [KeyFile.create(tmp_path / "key"), Passphrase("correct horse battery staple")]
    store = made(tmp_path / "store", encryption="on", keys=keys)
    (tmp_path / "key").chmod(0o640)

    found = {finding.check: finding for finding in examine(store, keys=keys[1:])}

    assert found.keys() == {"key-file"}
    os.system(found["key-file"].command)
    assert examine(store) == []


def test_a_store_that_one_source_opens_is_found(tmp_path: Path) -> None:
    keys = [KeyFile.create(tmp_path / "key")]
    store = made(tmp_path / "store", encryption="on", keys=keys)

    (finding,) = examine(store)

    assert (finding.check, finding.severity) == ("recovery", "advice")
    assert finding.command.endswith("keys add passphrase")


def test_a_history_larger_than_the_memories_is_found(tmp_path: Path) -> None:
    with MemoryModule(storage_dir=tmp_path) as memory:
        for number in range(20):
            memory.set_user_preference("theme", {"mode": number})

    assert examine(tmp_path, limits=Limits(history_bytes=2**40, history_times=0.1)) == []
    assert examine(tmp_path, limits=Limits(history_bytes=1, history_times=100)) == []
    assert names(examine(tmp_path, limits=Limits(history_bytes=1, history_times=4))) == ["history"]


@pytest.mark.parametrize("kind", ["sqlite", "json"])
def test_a_clock_behind_the_store_is_found(tmp_path: Path, kind: str) -> None:
    store = made(tmp_path, backend_type=kind)

    (finding,) = examine(store, now=datetime.now(UTC) - timedelta(days=30))

    assert (finding.check, finding.severity) == ("clock", "problem")


# --- settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "severity"),
    [
        ("storage:\n  backend: sqlite\n", None),
        ("storage:\n  backend: sqlite\ndurability: normal\n", "advice"),
        ("storage:\n  backnd: sqlite\n", "problem"),
    ],
)
def test_settings_that_do_nothing_are_found(tmp_path: Path, text: str, severity: str | None) -> None:
    store, config = made(tmp_path / "store"), tmp_path / "config.yaml"
    config.write_text(text)

    found = examine(store, config=config)

    assert [(finding.check, finding.severity) for finding in found] == ([("settings", severity)] if severity else [])


def test_encryption_that_is_only_a_setting_is_found(tmp_path: Path) -> None:
    keys: list[KeySource] = [KeyFile.create(tmp_path / "key"), Passphrase("correct horse battery staple")]
    plain, sealed = made(tmp_path / "plain"), made(tmp_path / "sealed", encryption="on", keys=keys)
    config = tmp_path / "config.yaml"
    config.write_text("storage:\n  encryption: 'on'\n")

    (finding,) = examine(plain, config=config)

    assert (finding.check, finding.severity) == ("settings", "problem")
    assert finding.command.endswith("encrypt passphrase")
    assert examine(sealed, config=config) == []


# --- servers -----------------------------------------------------------------------------------------


@pytest.fixture
def database() -> Iterator[str]:
    with a_database() as dsn:
        with MemoryModule(dsn) as memory:
            memory.set_user_preference("theme", {"mode": "dark"})
        yield dsn


def test_an_old_server_is_found() -> None:
    def at(year: int) -> list[Finding]:
        patient = Patient(
            "postgresql://x", config=None, keys=(), now=datetime(year, 10, 1, tzinfo=UTC), limits=Limits()
        )
        return list(server.version(patient, 15))

    assert [finding.severity for year in (2026, 2027, 2028) for finding in at(year)] == ["advice", "problem"]


def test_a_role_with_all_rights_is_found(database: str) -> None:
    found = examine(database)

    assert "role" in names(found)


def test_a_transaction_that_never_ends_is_found(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("SELECT 1")

        found = examine(database, limits=Limits(transaction_seconds=0.0))

    assert "transactions" in names(found)
    assert "transactions" not in names(examine(database))


@pytest.mark.parametrize(
    "url", ["postgresql://alice:secret@/db?host={}", "postgresql://alice@/db?password=secret&host={}"]
)
def test_a_server_that_is_not_there_is_a_finding(tmp_path: Path, url: str) -> None:
    (finding,) = examine(url.format(tmp_path))

    assert finding.check == "opening"
    assert "secret" not in repr(finding)
    assert "alice" in finding.subject


def test_an_open_connection_across_a_network_is_found() -> None:
    class Answers:
        """What the server says of a connection: it has no network here."""

        def __init__(self, *rows: tuple[bool, bool]) -> None:
            self.rows = rows

        def execute(self, _: str) -> Answers:
            return self

        def fetchall(self) -> tuple[tuple[bool, bool], ...]:
            return self.rows

    patient = Patient("postgresql://alice:secret@host/db", config=None, keys=(), now=datetime.now(UTC), limits=Limits())

    found = [
        names(list(server.way(patient, Answers((local, tls))))) for local in (True, False) for tls in (True, False)
    ]
    assert found == [[], [], [], ["connection"]]


# --- the table ---------------------------------------------------------------------------------------


def test_the_page_of_the_doctor_lists_each_check() -> None:
    page = (Path(__file__).parent.parent / "docs" / "reference" / "doctor.md").read_text(encoding="utf-8")

    rows = re.findall(r"^\| ((?:`[\w-]+`(?:, )?)+) \| ([^|]+) \|", page, re.MULTILINE)

    assert [(tuple(re.findall(r"`([\w-]+)`", first)), about) for first, about in rows] == [
        (check.names, check.about) for check in CHECKS
    ]


def test_every_command_is_one_of_the_command_line() -> None:
    known = {name for names in GROUPS.values() for name in names}
    written = "".join(path.read_text(encoding="utf-8") for path in Path(doctor.__file__).parent.glob("*.py"))

    commands = re.findall(r"command\(((?:\"[\w-]+\"(?:, )?)+)", written)
    assert len(commands) > 9
    for words in commands:
        first, *more = re.findall(r"[\w-]+", words)
        assert first in known or f"{first} {more[0]}" in known, words


def test_every_finding_in_the_code_belongs_to_a_check() -> None:
    written = "".join(path.read_text(encoding="utf-8") for path in Path(doctor.__file__).parent.glob("*.py"))

    assert set(re.findall(r'Finding\(\s*"([\w-]+)"', written)) == {name for check in CHECKS for name in check.names}
