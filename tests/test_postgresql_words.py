"""The index of words of a store on a PostgreSQL server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import conninfo

from jarvis._postgresql import schema
from jarvis._sql.session import Session
from jarvis.conformance.fixtures import an_entry
from jarvis.conformance.words import check, entries
from jarvis.errors import InvalidSettingError
from jarvis.model.query import MemoryQuery
from jarvis.model.words import Term
from jarvis.persistent_memory import MemoryModule
from jarvis.postgresql_backend import PostgreSQLBackend

from .postgresql import a_database

NO_WORDS = (
    "DROP TABLE jarvis.text_stale, jarvis.text_counts, jarvis.text_mark, jarvis.text_index, jarvis.text_vocabulary, "
    "jarvis.vectors; "
    "ALTER TABLE jarvis.store DROP COLUMN language; UPDATE jarvis.store SET version = 2"
)
SHAPE = """
SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns WHERE table_schema = 'jarvis'
ORDER BY 1, 2
"""


@pytest.fixture
def dsn() -> Iterator[str]:
    with a_database() as dsn:
        yield dsn


@pytest.fixture
def role(dsn: str) -> Iterator[str]:
    name = f"tenant_{uuid.uuid4().hex[:12]}"
    run(dsn, f"CREATE ROLE {name} LOGIN")
    yield name
    run(dsn, f"DROP OWNED BY {name}; DROP ROLE {name}")


def run(dsn: str, sql: Any) -> list[Any]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description else []


def rows(backend: PostgreSQLBackend, sql: str) -> list[Any]:
    def read(session: Session) -> list[Any]:
        return session.rows(session.say(sql))

    return backend._lender.read(read)


@pytest.mark.parametrize("partitions", [0, 3])
def test_a_store_of_version_2_gets_the_tables_of_a_new_one(dsn: str, partitions: int) -> None:
    backend = PostgreSQLBackend(dsn, partitions=partitions)
    backend.create_many(entries(200))
    backend.for_namespace("other").create_many(entries(30, 1))
    new = run(dsn, SHAPE)
    backend.shutdown()
    run(dsn, NO_WORDS)

    reader = PostgreSQLBackend(dsn, read_only=True)
    assert reader.text_language() == "off"
    reader.shutdown()
    migrated = PostgreSQLBackend(dsn, text_index="german")

    assert migrated.text_language() == "german"
    for name in ("default", "other"):
        check(migrated.for_namespace(name))
    assert run(dsn, SHAPE) == new
    assert run(dsn, "SELECT version FROM jarvis.store") == [(schema.CURRENT_VERSION,)]
    assert list(migrated.index_findings(lambda: None)) == []
    migrated.shutdown()


def test_a_role_keeps_its_rights_and_sees_its_words_only(dsn: str, role: str) -> None:
    owner = PostgreSQLBackend(dsn, namespace="mine")
    owner.create_many(entries(200))
    owner.for_namespace("other").create(an_entry("1", value={"text": "unseen"}))
    owner.admit(role)
    owner.shutdown()
    run(dsn, NO_WORDS)
    tenant = PostgreSQLBackend(conninfo.make_conninfo(dsn, user=role), namespace="mine")
    tenant.update(an_entry("e-1", value={"text": "from before"}))  # it may not migrate the store
    assert tenant.text_language() == "off"

    owner.bootstrap()

    for entry in entries(70, 1):
        tenant.update(entry)
    check(owner)
    tenant.shutdown()
    check(tenant)
    for number in range(100):
        tenant.create(an_entry(f"new-{number}", value={"text": "word0x then"}))
    check(tenant)
    check(owner)
    elsewhere = tenant.for_namespace("other")
    assert elsewhere.candidates([Term("unseen")], MemoryQuery(), 10).total == 0
    assert run(
        conninfo.make_conninfo(dsn, user=role), "SELECT count(*) FROM jarvis.text_vocabulary WHERE word = 'unseen'"
    ) == [(0,)]
    owner.shutdown()
    tenant.shutdown()


def test_a_memory_may_have_more_words_than_a_tsvector(dsn: str) -> None:
    backend = PostgreSQLBackend(dsn)
    words = [f"{'x' * 30}{number:06}" for number in range(40_000)]
    backend.create(an_entry("large", value={"text": " ".join(words)}))
    backend.create(an_entry("small", value={"text": words[-1]}))
    backend.rebuild_index(None, None)

    found = backend.candidates([Term(words[0]), Term(words[-1]), Term("x" * 30, is_prefix=True)], MemoryQuery(), 10)

    assert found.counts == [1, 2, 2]
    assert [entry.id for entry in found.entries] == ["large", "small"]
    assert rows(backend, "SELECT count(*) FROM text_index WHERE {here}")[0][0] > 20
    backend.delete("large")
    backend.rebuild_index(None, None)
    assert run(dsn, "SELECT word FROM jarvis.text_vocabulary WHERE word LIKE 'x%'") == [(words[-1],)]
    backend.shutdown()


def test_words_that_nobody_has_any_more_leave_the_vocabulary(dsn: str) -> None:
    memory = MemoryModule(dsn)
    backend = memory.backend
    assert isinstance(backend, PostgreSQLBackend)
    backend.create_many(entries(200))
    check(backend)
    secret = memory.create_memory("facts", "k", {"text": "zanzibar word0x"}, "note")
    memory.store.rebuild_index()
    assert run(dsn, "SELECT count(*) FROM jarvis.text_vocabulary WHERE word = 'zanzibar'") == [(1,)]

    memory.erase_memory(secret)

    assert run(dsn, "SELECT count(*) FROM jarvis.text_vocabulary WHERE word = 'zanzibar'") == [(0,)]
    assert run(dsn, "SELECT count(*) FROM jarvis.text_index WHERE words::text LIKE '%zanzibar%'") == [(0,)]
    check(backend)
    memory.shutdown()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE jarvis.text_counts SET entries = entries + 1",
        "DELETE FROM jarvis.text_index WHERE row = 5",
        "UPDATE jarvis.text_vocabulary SET entries = entries + 1 WHERE word = 'word0x'",
    ],
)
def test_an_index_that_does_not_match_is_found(dsn: str, damage: str) -> None:
    memory = MemoryModule(dsn)
    memory.backend.create_many(entries(200))
    memory.store.rebuild_index()
    assert memory.store.verify(index=True).problems == {}
    run(dsn, damage)

    assert [name for name in memory.store.verify(index=True).problems if "rebuild_index()" in name] != []
    memory.store.rebuild_index()
    assert memory.store.verify(index=True).problems == {}
    memory.shutdown()


def test_a_language_is_that_of_the_store(dsn: str) -> None:
    german = PostgreSQLBackend(dsn, text_index="german")
    german.create(an_entry("1", value={"text": "die Häuser"}))
    other = german.for_namespace("other")
    other.create(an_entry("1", value={"text": "die Häuser"}))
    english = PostgreSQLBackend(dsn, text_index="english")

    with pytest.raises(InvalidSettingError, match="indexed as 'german'"):
        english.text_language()
    english.rebuild_index("english", None)

    assert PostgreSQLBackend(dsn).text_language() == "english"
    for handle in (english, english.for_namespace("other")):
        assert handle.candidates([Term("häuser"), Term("hauser")], MemoryQuery(), 1).counts == [0, 1]
        check(handle)
    for backend in (german, english):
        backend.shutdown()
