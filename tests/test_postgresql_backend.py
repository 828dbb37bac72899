"""How a user reaches a store on a PostgreSQL server, and what is said when that is not possible."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import re
import subprocess
import sys
import traceback
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import conninfo

from jarvis.async_memory import AsyncMemoryModule
from jarvis.backend_registry import load_backend
from jarvis.container import Container
from jarvis.errors import (
    InvalidEntryError,
    InvalidSettingError,
    JarvisError,
    ReadOnlyStoreError,
    StoreAccessError,
    StoreBusyError,
    StoreMissingError,
    UnknownBackendError,
)
from jarvis.moving import migrate
from jarvis.persistent_memory import CategoryPolicy, HistoryPolicy, MemoryModule
from jarvis.postgresql_backend import PostgreSQLBackend

from .postgresql import a_database, programs

SECRET = "geheim7"


@pytest.fixture
def url() -> Iterator[str]:
    """Make an empty database; return its URL."""
    with a_database() as url:
        yield url


def told(error: BaseException) -> str:
    """Return all that is shown of an error: its message, its repr and its traceback with every cause."""
    return "".join(traceback.format_exception(error)) + repr(error)


# --- the constructor -----------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_a_url_opens_the_store_on_its_server(url: str, scheme: str) -> None:
    with MemoryModule(url.replace("postgresql", scheme, 1)) as memory:
        memory.set_user_preference("theme", {"mode": "dark"})

    with MemoryModule(url) as memory:
        assert memory.get_user_preferences() == {"theme": {"mode": "dark"}}


def test_the_options_of_a_store_are_given_beside_a_url(url: str) -> None:
    short = HistoryPolicy(max_revisions=1)
    with MemoryModule(url, namespace="alice", history=short, durability="normal", busy_timeout_seconds=5) as memory:
        for mode in ("dark", "light", "grey"):
            theme = memory.set_user_preference("theme", {"mode": mode})
        assert [each.version for each in memory.get_history(theme)] == [2]

    with MemoryModule(url, backend_type="postgresql", read_only=True) as memory:
        assert memory.get_user_preferences() == {}
        assert memory.for_namespace("alice").count_memories() == 1
        with pytest.raises(ReadOnlyStoreError):
            memory.set_user_preference("theme", {})


def test_policies_are_given_beside_a_url(url: str) -> None:
    policies = [CategoryPolicy("preferences", max_entries=2, history=HistoryPolicy(max_revisions=0))]
    with MemoryModule(url, policies=policies) as memory:
        for number in range(4):
            memory.set_user_preference(f"p{number}", {"n": number})

        assert [*memory.get_user_preferences()] == ["p3", "p2"]


def test_an_absent_store_is_not_made_if_that_is_not_wanted(url: str) -> None:
    for option in ({"create": False}, {"read_only": True}):
        memory = MemoryModule(url, **option)  # type: ignore[arg-type]  # whichever it is
        with pytest.raises(StoreMissingError):
            memory.get_user_preferences()
        memory.shutdown()


def test_the_async_module_takes_a_url(url: str) -> None:
    async def remember() -> object:
        async with AsyncMemoryModule(url, namespace="alice") as memory:
            await memory.set_user_preference("theme", {"mode": "dark"})
            return await memory.get_user_preferences()

    assert asyncio.run(remember()) == {"theme": {"mode": "dark"}}


def test_keywords_are_taken_by_the_backend(url: str) -> None:
    dsn = conninfo.make_conninfo(url, application_name="jarvis")

    with MemoryModule(PostgreSQLBackend(dsn, pool_size=2)) as memory:
        assert "application_name=jarvis" in dsn
        memory.set_user_preference("theme", {"mode": "dark"})


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"storage_dir": "here"}, "storage_dir: a store at a URL is in no directory"),
        ({"backend_type": "json"}, "backend_type: the URL names the backend 'postgresql'"),
    ],
)
def test_what_does_not_go_with_a_url_is_refused(option: Any, message: str) -> None:
    with pytest.raises(InvalidSettingError, match=message):
        MemoryModule("postgresql://localhost/memories", **option)


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("postgresq://u:geheim7@host/db", " (did you mean 'postgresql'?)"),
        ("postgresql+psycopg://u:geheim7@host/db", " (did you mean 'postgresql'?)"),
        ("POSTGRESQL://u:geheim7@host/db", " (did you mean 'postgresql'?)"),
        ("sqlite:///memory.db", ""),
    ],
)
def test_a_scheme_that_is_none_is_answered_with_the_known_ones(url: str, hint: str) -> None:
    with pytest.raises(UnknownBackendError) as caught:
        MemoryModule(url)

    scheme = url.partition(":")[0]
    assert str(caught.value) == (
        f"no backend has stores at {scheme}:// URLs; known: postgres://, postgresql://{hint}; "
        "a directory goes into storage_dir="
    )


@pytest.mark.parametrize("text", ["memory", "/srv/jarvis", r"C:\jarvis", "host=localhost", "", "://x"])
def test_another_text_is_no_store(text: str) -> None:
    with pytest.raises(InvalidSettingError, match=r"takes a StorageBackend, not str; a directory goes into"):
        MemoryModule(text)


def test_a_backend_without_its_server_says_where_that_is_named() -> None:
    with pytest.raises(InvalidSettingError, match=r"such as postgresql://user@host/database.*storage\.postgresql\.dsn"):
        MemoryModule(backend_type="postgresql")


def test_a_namespace_that_is_no_name_is_refused(url: str) -> None:
    with pytest.raises(InvalidEntryError, match="namespace"):
        MemoryModule(url, namespace="")


# --- settings --------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a test a home directory of its own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


def written(home: Path, *lines: str) -> Path:
    """Write settings of which each line is a key."""
    path = home / "config.yaml"
    path.write_text("storage:\n" + "".join(f"  {line}\n" for line in lines), encoding="utf-8")
    return path


def test_the_settings_name_the_server(url: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", url.partition("?")[2])
    path = written(
        home,
        "backend: PostgreSQL",
        "namespace: alice",
        "policies: [{category: preferences, max_entries: 2, history: {max_revisions: 0}}]",
        "retention: [{category: tasks, max_entries: 1}]",
        "postgresql: {dsn: 'postgresql://?$WHERE', pool_size: 1}",
    )
    container = Container()

    memory = container.get_memory_module(path)
    with memory.transaction():
        memory.create_memories([{"category": "tasks", "key": f"{n}", "value": {}, "entity_type": ""} for n in range(3)])
    for number in range(3):
        preference = memory.set_user_preference(f"p{number}", {"n": 1})
    memory.set_user_preference("p2", {"n": 2})

    assert memory.sweep().deleted == 2
    assert memory.get_history(preference) == []
    assert MemoryModule(url, namespace="alice").count_memories(category="preferences") == 2
    container.shutdown()
    assert [entry.name for entry in home.iterdir()] == ["config.yaml"]


def test_a_pool_has_as_many_connections_as_the_settings_say(url: str, home: Path) -> None:
    memory = Container().get_memory_module(
        written(home, "backend: postgresql", "busy_timeout_seconds: 0.2", f"postgresql: {{dsn: '{url}', pool_size: 1}}")
    )

    with memory.transaction(), ThreadPoolExecutor() as threads, pytest.raises(StoreBusyError):
        threads.submit(memory.count_memories).result()

    assert memory.count_memories() == 0
    memory.shutdown()


@pytest.mark.parametrize(
    ("lines", "kind", "message"),
    [
        (
            ["postgresql: {dsn: 'postgresql://u:geheim7%@host'}"],
            InvalidSettingError,
            "line 3: storage.postgresql: dsn: ",
        ),
        (
            ["postgresql: {dsn: 'postgresql://u:geheim7@host'}", 'namespace: "a\\0b"'],
            InvalidSettingError,
            "line 4: storage.namespace: ",
        ),
    ],
)
def test_a_mistake_in_the_settings_is_named_with_file_and_line(
    home: Path, lines: list[str], kind: type[JarvisError], message: str
) -> None:
    path = written(home, "backend: postgresql", *lines)

    with pytest.raises(kind) as caught:
        Container().get_memory_module(path)

    assert str(caught.value).startswith(f"{path}, {message}")
    assert SECRET not in told(caught.value)


# --- an address that is none, and what is said of one ----------------------------------------------

MALFORMED: list[Any] = [
    "postgresql://u:geheim7%@host/db",
    "postgresql://u:x@geheim7@host/db",
    "postgresql://u:geheim7/x@host/db",
    "postgresql://u:12/geheim7@host/db",
    "postgresql://u:x@host:geheim7/db",
    "postgresql://u:x@host/db?passwort=geheim7",
    "postgresql://u:x@host/db?geheim7",
    "postgresql://u:x@[geheim7",
    "postgresql://host/db\0geheim7",
    "postgresql://u:geheim7\ud800@host/db",
    "host=h password=x geheim7",
    "host=h port=geheim7",
    "dbname=postgresql://u:geheim7@host/db",
    "hst=geheim7",
    Path("geheim7"),
    b"geheim7",
    7,
    None,
]


@pytest.mark.parametrize("dsn", MALFORMED, ids=repr)
def test_a_dsn_that_is_none_is_refused_and_never_quoted(dsn: Any) -> None:
    with pytest.raises(InvalidSettingError) as caught:
        PostgreSQLBackend(dsn)

    assert str(caught.value).startswith("dsn: ")
    assert SECRET not in told(caught.value)


@pytest.mark.parametrize("dsn", ["mysql://geheim7@host/db", " postgresql://geheim7@host/db", "geheim7", "host geheim7"])
def test_a_dsn_that_is_no_url_is_told_which_one_is(dsn: str) -> None:
    makers = {"dsn": partial(PostgreSQLBackend, dsn), "listen_dsn": partial(PostgreSQLBackend, "", listen_dsn=dsn)}
    for name, make in makers.items():
        with pytest.raises(InvalidSettingError, match=f"^{name}: is neither a URL such as postgresql://") as caught:
            make()

        assert SECRET not in told(caught.value)


class Text(str):
    """A text that answers questions about itself with errors."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    __hash__ = str.__hash__
    __eq__ = __str__ = __format__ = lambda *_: 1 / 0  # type: ignore[assignment]  # the code of a stranger


def test_a_text_of_a_class_of_its_own_is_taken_as_the_text_it_is(url: str) -> None:
    for memory in (MemoryModule(Text(url)), MemoryModule(PostgreSQLBackend(Text(url)))):
        with memory:
            memory.set_user_preference("theme", {"mode": "dark"})
    with pytest.raises(InvalidSettingError, match="takes a StorageBackend, not Text"):
        MemoryModule(Text("memory"))


def test_a_password_is_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    memory = MemoryModule(f"postgresql://u:{SECRET}@127.0.0.1:1/db?connect_timeout=2", busy_timeout_seconds=0.1)

    with pytest.raises(StoreAccessError) as caught:
        memory.get_user_preferences()

    again = pickle.loads(pickle.dumps(memory))
    shown = [told(caught.value), repr(memory), repr(memory.backend), repr(again), str(vars(memory)), caplog.text]
    assert "postgresql://127.0.0.1:1/db" in shown[0]
    assert [text for text in shown if SECRET in text] == []


# --- several handles, threads and processes ------------------------------------------------------


def test_namespaces_lie_beside_each_other(url: str) -> None:
    with MemoryModule(url) as memory, MemoryModule(url, namespace="alice") as alice:
        memory.set_user_preference("theme", {"mode": "dark"})
        alice.set_user_preference("theme", {"mode": "light"})

        assert memory.get_user_preferences() == {"theme": {"mode": "dark"}}
        assert memory.for_namespace("alice").get_user_preferences() == {"theme": {"mode": "light"}}
        assert memory.store.list_namespaces() == ["alice", "default"]


def test_a_pickled_memory_is_a_handle_on_the_same_store(url: str) -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    backend = PostgreSQLBackend(url, namespace="alice", pool_size=3, history=HistoryPolicy(max_revisions=1))
    with MemoryModule(backend, clock=Still(noon)) as memory:
        theme = memory.set_user_preference("theme", {"mode": "dark"})

        with pickle.loads(pickle.dumps(memory)) as again:
            for mode in ("light", "grey"):
                again.set_user_preference("theme", {"mode": mode})

            assert repr(again) == repr(memory)
            assert [each.version for each in again.get_history(theme)] == [2]
            assert memory.get_memory(theme) == again.get_memory(theme)
            assert again.get_memory(theme).timestamp - noon < timedelta(seconds=1)


class Still:
    """A clock that stands still, and can be pickled."""

    def __init__(self, moment: datetime) -> None:
        self.moment = moment

    def __call__(self) -> datetime:
        return self.moment


COUNTS = """
import sys
from jarvis.persistent_memory import MemoryModule

memory = MemoryModule(sys.argv[1])
for _ in range(50):
    with memory.transaction():
        visits = memory.get_memory_by_key("visits")
        memory.update_memory(visits.id, {"count": visits.value["count"] + 1})
memory.shutdown()
"""


def test_two_processes_share_a_store(url: str) -> None:
    with MemoryModule(url) as memory:
        memory.upsert_memory("counters", "visits", {"count": 0})

        writers = [subprocess.Popen([sys.executable, "-c", COUNTS, url]) for _ in range(2)]
        assert [writer.wait(timeout=120) for writer in writers] == [0, 0]

        visits = memory.get_memory_by_key("visits")
        assert visits is not None
        assert (visits.value, visits.version) == ({"count": 100}, 101)


def test_the_tests_use_the_server_that_is_given(url: str) -> None:
    program = "import tests.postgresql as t\nwith t.a_database() as dsn: print(t.server(), dsn)"
    given = {**os.environ, "JARVIS_TEST_POSTGRESQL_DSN": url}

    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent.parent,
        env=given,
        capture_output=True,
        text=True,
        check=True,
    )

    server, dsn = ended.stdout.split()
    assert server == url
    assert conninfo.conninfo_to_dict(dsn)["host"] == conninfo.conninfo_to_dict(url)["host"]


# --- the same answers ------------------------------------------------------------------------------


def lived(memory: MemoryModule, wait: Callable[[float], None]) -> list[Any]:
    """Live through a program that uses most verbs; return what is known then, with a name for each id."""
    ids: dict[str, str] = {}
    began = memory.newest_cursor()

    def named(name: str, memory_id: str) -> str:
        ids[memory_id] = name
        return memory_id

    grep = named("grep", memory.create_memory("tools", "grep", {"p": -0.0, "z": [1, "ü"], "a": None}, "tool", "grep"))
    wait(1)
    with memory.transaction():
        rows = [{"category": "tasks", "key": f"t{n}", "value": {"n": n}, "entity_type": "task"} for n in range(5)]
        for number, memory_id in enumerate(memory.create_memories(rows, module="loader")):
            named(f"task {number}", memory_id)
        with contextlib.suppress(KeyError), memory.transaction():
            memory.update_memory(grep, {"gone": True})
            raise KeyError
        memory.update_memory(grep, tags=["ß", "a", "Z"])
    wait(1)
    before = memory._clock()
    memory.merge_memory(grep, {"a": {"b": 1}}, module="teacher", reason="more")
    memory.move_memory(grep, key="rg")
    named("code", memory.set_user_preference("code", {"n": 1}, ttl=5))
    memory.delete_memories(category="tasks", where={"n": {"$gte": 3}})
    wait(10)
    memory.undo(grep, steps=2)
    memory.store.purge_expired()

    def plain(entry: Any) -> tuple[Any, ...]:
        kept = entry.model_dump()
        return (ids[kept.pop("id")], kept)

    everything = [plain(entry) for entry in memory.list_memories()]
    history = [
        (name, [(r.version, r.operation, r.module, r.reason, r.timestamp, plain(r.entry)) for r in past])
        for memory_id, name in ids.items()
        for past in [memory.get_history(memory_id)]
    ]
    feed = [(c.operation, ids.get(c.memory_id or ""), c.version, c.timestamp, c.count) for c in memory.changes(began)]
    questions = [
        [plain(entry) for entry in memory.search_memories(**filters)]
        for filters in (
            {"where": {"n": {"$lt": 3}}},
            {"tags": ["ß", "Z"], "order": "key"},
            {"category_prefix": "t", "order": "created", "limit": 3},
            {"as_of": before},
        )
    ]
    names = [memory.list_tags(), memory.list_categories(), memory.list_keys("tasks"), memory.count_memories()]
    return [everything, history, feed, questions, names]


def test_a_program_finds_the_same_on_sqlite_and_on_postgresql(url: str, tmp_path: Path) -> None:
    found = []
    for arguments in ({"storage_backend": url}, {"storage_dir": tmp_path}):
        clock = Still(datetime(2026, 3, 1, 12, tzinfo=UTC))

        def wait(seconds: float, clock: Still = clock) -> None:
            clock.moment += timedelta(seconds=seconds)

        with MemoryModule(**arguments, clock=clock) as memory:
            found.append(lived(memory, wait))

    assert all(found[0])
    for on_postgresql, on_sqlite in zip(*found, strict=True):
        assert on_postgresql == on_sqlite


def test_texts_are_exact_whatever_encoding_the_environment_asks_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    with MemoryModule(url) as memory:
        memory.create_memory("Größe", "鍵", {"text": "é ✓ 𝄞"}, "ärt", tags=["ß"])
    monkeypatch.delenv("PGCLIENTENCODING")
    with MemoryModule(url) as memory:
        (entry,) = memory.search_memories(tags=["ß"])

    assert (entry.category, entry.key, entry.value, entry.entity_type) == ("Größe", "鍵", {"text": "é ✓ 𝄞"}, "ärt")


def test_a_database_that_cannot_hold_every_text_is_refused(url: str) -> None:
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
        memory = MemoryModule(PostgreSQLBackend(conninfo.make_conninfo(url, dbname=name)))
        with pytest.raises(StoreAccessError, match="with the encoding LATIN1; create one with ENCODING 'UTF8'"):
            memory.bootstrap()
        memory.shutdown()
        admin.execute(f"DROP DATABASE {name}")


def test_a_url_is_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InvalidSettingError, match="storage_dir: takes a directory; give the URL of a store first"):
        MemoryModule(storage_dir="postgresql://user@host/memories")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_syncs_no_commits_does_so_for_a_full_store(url: str) -> None:
    name = conninfo.conninfo_to_dict(url)["dbname"]
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    shown = {}
    for durability in ("full", "normal"):
        memory = MemoryModule(url, durability=durability)
        server = memory.backend._server  # type: ignore[attr-defined]  # PostgreSQL's
        shown[durability] = server.read(lambda session: session.rows("SHOW synchronous_commit"))
        memory.shutdown()

    assert shown == {"full": [("on",)], "normal": [("off",)]}


# --- what the page about running it says -----------------------------------------------------------

PAGE = (Path(__file__).parent.parent / "docs" / "how-to" / "run-on-postgresql.md").read_text(encoding="utf-8")


def blocks(language: str, word: str) -> list[str]:
    """Return the programs of the page in a language in which a word stands."""
    return [text for text in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if word in text]


@pytest.fixture
def roles(url: str) -> Iterator[Callable[[str, Callable[[str], Any]], Any]]:
    """Return what runs a program as a role of the page, after the SQL of the page up to there."""
    mark = uuid.uuid4().hex
    scripts = [
        re.sub(r"\b(ROLE|TO) (\w+)", rf"\1 \2_{mark}", text).replace(
            "DATABASE memories", f'DATABASE "{conninfo.conninfo_to_dict(url)["dbname"]}"'
        )
        for text in blocks("sql", "ROLE")
    ]
    made: list[str] = []

    def run_as(role: str, program: Callable[[str], Any]) -> Any:
        while f"{role}_{mark}" not in made:
            script = scripts.pop(0)
            admin.execute(script)
            made.extend(re.findall(r"CREATE ROLE (\w+)", script))
        return program(conninfo.make_conninfo(url, options=f"-c role={role}_{mark}"))

    with psycopg.connect(url, autocommit=True) as admin:
        yield run_as
        for role in made:
            admin.execute(f"DROP OWNED BY {role} CASCADE")
        for role in made:
            admin.execute(f"DROP ROLE {role}")


def test_the_rights_that_the_page_grants_are_enough_and_needed(roles: Callable[..., Any]) -> None:
    def fill(dsn: str) -> None:
        with MemoryModule(PostgreSQLBackend(dsn)) as memory:
            memory.set_user_preference("theme", {"mode": "dark"})

    def live(dsn: str) -> None:
        clock = Still(datetime.now(UTC) + timedelta(minutes=1))

        def wait(seconds: float) -> None:
            clock.moment += timedelta(seconds=seconds)

        with MemoryModule(PostgreSQLBackend(dsn, namespace="alice"), clock=clock) as memory:
            assert all(lived(memory, wait))

    def read(dsn: str) -> None:
        with MemoryModule(PostgreSQLBackend(dsn, read_only=True)) as memory:
            assert memory.get_user_preferences() == {"theme": {"mode": "dark"}}
            theme = memory.get_memory_by_key("theme")
            assert theme is not None
            assert memory.get_history(theme.id) == []
            assert memory.get_user_preferences(as_of=datetime.now(UTC)) == {"theme": {"mode": "dark"}}
            assert memory.for_namespace("alice").count_memories() > 0
        memory = MemoryModule(PostgreSQLBackend(dsn))
        with pytest.raises(StoreAccessError, match=r"a right is missing .*permission denied for table"):
            memory.set_user_preference("theme", {})
        memory.shutdown()

    def admit(dsn: str) -> None:
        mark = dsn.rpartition("_")[2].strip("'")
        program = blocks("python", "admit")[0].replace("postgresql://jarvis@db.example.com/memories", dsn)
        exec(re.sub(r"admit\(\"(\w+)\"", rf'admit("\1_{mark}"', program))

    def see_one(dsn: str) -> None:
        with MemoryModule(PostgreSQLBackend(dsn, namespace="alice")) as memory:
            assert memory.count_memories() > 0
            assert memory.for_namespace("default").list_memories() == []

    roles("jarvis", fill)
    with pytest.raises(StoreAccessError, match=r"a right is missing"):
        roles("assistant", live)
    roles("jarvis", admit)
    roles("assistant", live)
    roles("reader", read)
    roles("alice_app", see_one)


def test_a_role_without_rights_is_told_which_is_missing(roles: Callable[..., Any], url: str) -> None:
    def open_it(dsn: str) -> str:
        memory = MemoryModule(PostgreSQLBackend(dsn))
        with pytest.raises(StoreAccessError) as caught:
            memory.get_user_preferences()
        memory.shutdown()
        return str(caught.value)

    role = roles("jarvis", lambda dsn: dsn.rpartition("role=")[2].strip("'"))
    with psycopg.connect(url) as admin:
        admin.execute(f'REVOKE CREATE ON DATABASE "{conninfo.conninfo_to_dict(url)["dbname"]}" FROM {role}')

    assert "permission denied for database" in roles("jarvis", open_it)
    with MemoryModule(url) as memory:
        memory.bootstrap()
    assert "permission denied for schema jarvis" in roles("jarvis", open_it)


def test_a_dump_restores_the_store_with_its_past(url: str, tmp_path: Path) -> None:
    packaged = programs()
    if packaged is None:
        pytest.skip("there is no pg_dump")
    with MemoryModule(url) as memory:
        theme = memory.set_user_preference("theme", {"mode": "dark"})
        memory.set_user_preference("theme", {"mode": "light"})
        before = [memory.list_memories(), memory.get_history(theme), memory.changes()]

    with a_database() as restored:
        for line in blocks("console", "pg_dump")[0].splitlines():
            line = re.sub(r'"postgresql://.*/memories"', f"'{url}'", line)
            line = re.sub(r'"postgresql://.*/restored"', f"'{restored}'", line)
            subprocess.run(["/bin/sh", "-ec", f"{packaged}/{line}"], cwd=tmp_path, check=True)

        with MemoryModule(restored) as memory:
            assert [memory.list_memories(), memory.get_history(theme), memory.changes()] == before
            memory.set_user_preference("theme", {"mode": "grey"})
            assert len(memory.get_history(theme)) == 2


def test_a_sqlite_store_moves_as_it_is(url: str, tmp_path: Path) -> None:
    noon = Still(datetime.now(UTC))

    def wait(seconds: float) -> None:
        noon.moment += timedelta(seconds=seconds)

    source = MemoryModule(storage_dir=tmp_path, clock=noon)
    lived(source, wait)
    source.create_memory(
        "notes", "old", {"n": 1}, "note", timestamp=datetime(2020, 1, 1, tzinfo=UTC), module="importer"
    )
    source.create_memory("notes", "old", {"n": 2}, "note", timestamp=datetime(2019, 1, 1, tzinfo=UTC))
    source.for_namespace("alice").set_user_preference("code", {"n": 1}, ttl=3600, task_id="t")
    wait(1)

    with MemoryModule(url, clock=noon) as target:
        for _ in range(2):
            migrate(source, target)

            assert target.store.list_namespaces() == ["alice", "default"]
            for name in ("alice", "default"):
                old, new = source.for_namespace(name), target.for_namespace(name)
                for order in ("changed", "created", "key"):
                    arrived, left = new.list_memories(order=order), old.list_memories(order=order)
                    assert arrived == left
                    assert [entry.provenance for entry in arrived] == [entry.provenance for entry in left]
            for memory in (source, target):
                assert memory.backend.last_written("notes", "old").value == {"n": 2}  # type: ignore[union-attr]  # there is one


# --- without the extra ---------------------------------------------------------------------------

WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import jarvis.persistent_memory
from jarvis.backend_registry import backends_with, known_backends
from jarvis.capabilities import Transactional
from jarvis.errors import UnsupportedError

for open_it in (
    lambda: jarvis.persistent_memory.MemoryModule("postgresql://host/db"),
    lambda: jarvis.persistent_memory.MemoryModule(backend_type="postgresql"),
):
    try:
        open_it()
    except UnsupportedError as error:
        print(error)
print(known_backends(), backends_with(Transactional))
"""


@pytest.mark.parametrize(
    ("hidden", "package"),
    [(["psycopg"], "psycopg"), (["psycopg_c", "psycopg_binary"], "psycopg")],
)
def test_without_the_extra_its_pip_command_is_told(hidden: list[str], package: str) -> None:
    program = WITHOUT
    if package == "psycopg" and len(hidden) > 1:  # nor is there a library of PostgreSQL's own
        program = f"import ctypes.util\nctypes.util.find_library = lambda name: None\n{WITHOUT}"
    ended = subprocess.run([sys.executable, "-c", program, *hidden], capture_output=True, text=True, check=True)

    line = f"the backend 'postgresql' needs the package {package}: pip install 'jarvis-memory[postgresql]'"
    assert ended.stdout.splitlines() == [line, line, "['json', 'postgresql', 'sqlite'] ['json', 'sqlite']"]


def test_other_faults_of_an_import_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "jarvis.postgresql_backend")
    monkeypatch.setitem(sys.modules, "jarvis._postgresql.pool", None)

    with pytest.raises(ImportError) as caught:
        load_backend("postgresql")
    assert not isinstance(caught.value, JarvisError)
