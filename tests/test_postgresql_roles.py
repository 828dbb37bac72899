"""Roles of a PostgreSQL server: the wall around a namespace stands in the database, not only in our statements."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg import conninfo

from jarvis._postgresql.names import number_of
from jarvis.errors import InvalidSettingError, StoreAccessError
from jarvis.persistent_memory import MemoryModule
from jarvis.postgresql_backend import PostgreSQLBackend

from .postgresql import a_database

ROLE = f"tenant_{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with a_database() as dsn:
        with psycopg.connect(dsn, autocommit=True) as owner:
            owner.execute(f"CREATE ROLE {ROLE} LOGIN")
        yield dsn
        with psycopg.connect(dsn, autocommit=True) as owner:
            owner.execute(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")


@pytest.fixture
def tenant(dsn: str) -> Iterator[MemoryModule]:
    """A memory of the namespace alice, opened with a role that may see that alone."""
    owner = PostgreSQLBackend(dsn)
    for name in ("alice", "bob"):
        memory = MemoryModule(owner.for_namespace(name))
        memory.set_user_preference("whose", {"name": name})
        memory.set_user_preference("whose", {"name": name, "n": 2})
        memory.create_memory("notes", "note", {"of": name}, "note", tags=["tag"])
    owner.for_namespace("alice").admit(ROLE)
    owner.for_namespace("bob").admit("pg_monitor")
    backend = PostgreSQLBackend(conninfo.make_conninfo(dsn, user=ROLE), namespace="alice")
    yield MemoryModule(backend)
    backend.shutdown()
    owner.shutdown()


def test_a_role_reads_and_writes_its_namespace(tenant: MemoryModule) -> None:
    assert tenant.get_user_preference("whose") == {"name": "alice", "n": 2}

    memory_id = tenant.create_memory("new category", "k", {}, "t", tags=["a", "b"])
    tenant.update_memory(memory_id, {"n": 1})

    assert [revision.version for revision in tenant.get_history(memory_id)] == [1]
    assert tenant.delete_memory(memory_id) is True
    assert [change.operation for change in tenant.changes()][-3:] == ["create", "update", "delete"]


def test_a_role_makes_the_vectors_of_its_namespace(tenant: MemoryModule, dsn: str) -> None:
    class Letters:
        name, dim = "letters", 26

        def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
            return [[text.lower().count(chr(97 + place)) + 0.1 for place in range(26)] for text in texts]

        def embed_query(self, text: str) -> list[float]:
            return self.embed_documents([text])[0]

    memory = MemoryModule(tenant.backend, embedder=Letters())
    here = memory.count_memories()

    assert memory.store.index_pending() == here > 0

    memory.remember("banana")
    memory.store.index_pending()
    assert memory.recall("abnaan", limit=1)[0].entry.value == {"text": "banana"}
    with psycopg.connect(dsn) as owner:
        ((namespaces,),) = owner.execute("SELECT count(DISTINCT namespace) FROM jarvis.vectors").fetchall()
    assert namespaces == 1


def test_a_role_writes_much_at_once(tenant: MemoryModule) -> None:
    items = [
        {"category": "many", "key": str(n), "value": {"n": n}, "entity_type": "t", "tags": ["x"]} for n in range(300)
    ]

    ids = tenant.create_memories(items)

    assert len(set(ids)) == tenant.count_memories("many", tags=["x"]) == 300
    assert tenant.delete_memories("many").count == 300
    assert tenant.erase_memories("many").memories == 300


def test_no_statement_of_a_role_sees_another_namespace(tenant: MemoryModule, dsn: str) -> None:
    bob = number_of("bob")
    with psycopg.connect(conninfo.make_conninfo(dsn, user=ROLE), autocommit=True) as connection:
        tables = connection.execute(
            "SELECT table_name FROM information_schema.columns "
            "WHERE table_schema = 'jarvis' AND column_name = 'namespace'"
        ).fetchall()
        assert len(tables) > 8
        for (table,) in tables:
            of_bob = f"SELECT count(*) FROM jarvis.{table} WHERE namespace = {bob}"
            assert connection.execute(of_bob).fetchone() == (0,)
            seen = connection.execute(f"SELECT DISTINCT namespace FROM jarvis.{table}").fetchall()
            assert seen in ([], [(number_of("alice"),)]), table
        connection.execute("SET jarvis.namespace = 'bob'")  # a setting opens no door
        for statement in (
            f"UPDATE jarvis.entries SET namespace = {bob}",
            f"INSERT INTO jarvis.names VALUES ({bob}, 1, 'x')",
            f"INSERT INTO jarvis.roles VALUES ('{ROLE}', {bob})",
            "TRUNCATE jarvis.entries",
            "ALTER TABLE jarvis.entries DISABLE ROW LEVEL SECURITY",
            "SET ROLE postgres",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
        assert connection.execute(f"DELETE FROM jarvis.entries WHERE namespace = {bob}").rowcount == 0


def test_a_handle_on_another_namespace_is_empty_and_writes_nothing(tenant: MemoryModule) -> None:
    bob = tenant.for_namespace("bob")

    assert bob.list_memories() == []
    with pytest.raises(StoreAccessError, match="a right is missing"):
        bob.set_user_preference("whose", {"name": "mallory"})


def test_what_concerns_all_namespaces_is_had_as_advised(tenant: MemoryModule, dsn: str) -> None:
    owner = PostgreSQLBackend(dsn)
    calls = (tenant.store.list_namespaces, tenant.store.recompress, tenant.store.mend_dates)
    for call in calls:
        with pytest.raises(StoreAccessError, match="a role that it admitted with all_namespaces=True"):
            call()
    owner.admit(ROLE, all_namespaces=True)

    for call in calls:
        call()
    owner.expel(ROLE, all_namespaces=True)
    owner.shutdown()


def test_a_role_purges_its_namespace_and_no_other(tenant: MemoryModule, dsn: str) -> None:
    owner = PostgreSQLBackend(dsn)
    later = datetime(2100, 1, 1, tzinfo=UTC)
    for name in ("alice", "bob"):
        MemoryModule(owner.for_namespace(name)).create_memory("notes", "short", {}, "note", ttl=60)

    assert MemoryModule(tenant.backend, clock=lambda: later).store.purge_expired() == 1
    assert MemoryModule(owner, clock=lambda: later).store.purge_expired() == 1
    owner.shutdown()


def test_a_role_that_was_expelled_sees_nothing(tenant: MemoryModule, dsn: str) -> None:
    owner = PostgreSQLBackend(dsn, namespace="alice")
    owner.expel(ROLE)

    assert tenant.list_memories() == []
    owner.shutdown()


def test_who_may_not_admit_is_told(tenant: MemoryModule, dsn: str) -> None:
    owner = PostgreSQLBackend(dsn, namespace="alice")

    with pytest.raises(StoreAccessError, match='role "nobody_of_that_name" does not exist'):
        owner.admit("nobody_of_that_name")
    for name in ("", "public", f"{ROLE:x<63}y", "\ud83d"):  # the server would cut it to the name of another role
        with pytest.raises(InvalidSettingError, match="role: takes the name"):
            owner.admit(name)
    with pytest.raises(StoreAccessError, match="a right is missing"):
        tenant.backend.admit("postgres")  # type: ignore[attr-defined]  # PostgreSQL's
    owner.shutdown()
