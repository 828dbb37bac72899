"""Sealed stores: what their database shows, what cannot be changed there unnoticed, and who opens them."""

from __future__ import annotations

import base64
import logging
import os
import pickle
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import conninfo

from jarvis._postgresql import schema
from jarvis.capabilities import Encrypts, Erases, KeepsHistory, Transactional, Transfers
from jarvis.conformance.fixtures import FAR, NOON, an_entry
from jarvis.container import Container
from jarvis.errors import (
    CorruptStoreError,
    DuplicateEntryError,
    EntryNotFoundError,
    InvalidEntryError,
    InvalidSettingError,
    KeyUnavailableError,
    NotEncryptedError,
    ReadOnlyStoreError,
    StoreAccessError,
    StoreMissingError,
    UnsupportedError,
    WrongKeyError,
)
from jarvis.json_backend import JSONBackend
from jarvis.keys import EnvironmentKey, KeyFunction, Passphrase, new_key
from jarvis.model.entry import MAX_NAME_BYTES, MemoryEntry
from jarvis.model.policies import CategoryPolicy, HistoryPolicy
from jarvis.model.query import MemoryQuery
from jarvis.moving import migrate
from jarvis.persistent_memory import MemoryModule
from jarvis.postgresql_backend import PostgreSQLBackend
from jarvis.sealing import SealedBackend
from jarvis.storage_backend import StorageBackend

from .postgresql import Server, a_database

Open = Callable[..., SealedBackend]


def a_key() -> bytes:
    return bytes(range(32))


def another_key() -> bytes:
    return bytes(range(32, 64))


@pytest.fixture
def dsn() -> Iterator[str]:
    with a_database() as dsn:
        yield dsn


@pytest.fixture
def sealed(dsn: str) -> Iterator[Open]:
    """Opens the store of a database, sealed with `a_key`; arguments go to `SealedBackend`, or else to the backend."""
    opened = []

    def open_it(dsn: str = dsn, **options: Any) -> SealedBackend:
        of_sealing = {name: options.pop(name) for name in ("encryption", "keys", "compression") if name in options}
        backend = SealedBackend(PostgreSQLBackend(dsn, **options), **{"keys": [KeyFunction(a_key)], **of_sealing})
        opened.append(backend)
        return backend

    yield open_it
    for backend in opened:
        backend.shutdown()


def run(dsn: str, statement: str, *values: object) -> list[Any]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


def everything(dsn: str) -> bytes:
    """Return every column of every table, as a dump has them, and the bytes of columns that are bytes."""
    content = b""
    with psycopg.connect(dsn, autocommit=True) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'jarvis'").fetchall()
        for (table,) in tables:
            with connection.cursor() as cursor, cursor.copy(f"COPY jarvis.{table} TO STDOUT (FORMAT binary)") as copy:
                content += b"".join(map(bytes, copy))
    return content


# --- what the database shows ---------------------------------------------------------------------

WORDS = (
    *("canary_id", "canary_category", "canary_key", "canary_tag", "canary_type", "canary_entity", "canary_value"),
    *("canary_module", "canary_task", "canary_reason", "canary_space", "canary_note", "canary_gone", "canary_new"),
)


def live_through_everything(backend: StorageBackend) -> None:
    """Write each of `WORDS` somewhere, and change, delete, restore, erase, prune and purge it."""
    now = [NOON]
    memory = MemoryModule(backend, clock=lambda: now[0], policies=[CategoryPolicy("canary_category", max_entries=50)])
    for namespace in ("default", "canary_space"):
        there = memory.for_namespace(namespace)
        author: dict[str, Any] = {"module": "canary_module", "task_id": "canary_task", "reason": "canary_reason"}
        entry = an_entry("canary_id", category="canary_category", provenance={"canary_note": "canary_note"})
        there.backend.create(entry)
        made = [
            there.create_memory(
                "canary_category",
                f"canary_key {number}",
                {"canary_value": "canary_value " * 10 ** (number % 4)},
                "canary_type",
                "canary_entity",
                ["canary_tag", str(number)],
                ttl=None if number % 3 else timedelta(minutes=5),
                **author,
            )
            for number in range(6)
        ]
        there.update_memory(made[0], {"canary_new": 1}, tags=["canary_new"], **author)
        there.move_memory(made[1], category="canary_new", key="canary_new", **author)
        there.delete_memory(made[2], **author)
        there.restore_memory(made[2], 1, **author)
        there.create_memory("canary_gone", "canary_gone", {"canary_gone": 1}, "canary_gone", **author)
        there.erase_memories("canary_gone", **author)
        there.delete_memory(made[4], **author)
        there.set_user_preference("canary_key", {"canary_value": 1})
        there.clear_all()
        there.record_task("canary_task", {"canary_value": 2})
    now[0] += timedelta(days=40)
    memory.store.purge_expired()
    memory.store.prune_history()
    memory.set_user_preference("canary_key", {"canary_value": 3})
    memory.backend.create(an_entry("canary_id again", provenance={"canary_note": "canary_note"}))


def test_the_database_shows_nothing_that_was_stored(sealed: Open, dsn: str) -> None:
    live_through_everything(sealed())

    content = everything(dsn)
    assert len(content) > 10_000
    assert [word for word in WORDS if word.encode() in content] == []
    assert b"preferences" not in content
    assert a_key() not in content


def test_a_plain_store_would_show_each_of_these_words(dsn: str, sealed: Open) -> None:
    live_through_everything(sealed(encryption="off"))

    content = everything(dsn)
    assert [word for word in WORDS if word.encode() not in content and word != "canary_gone"] == []


def test_the_log_of_the_server_shows_nothing_that_was_stored(sealed: Open) -> None:
    server = Server("log_statement = 'all'\nfsync = off")
    try:
        live_through_everything(sealed(server.dsn))
        log = (server.directory / "log").read_bytes()
    finally:
        server.process.kill()
        server.process.wait()

    assert b"INSERT INTO" in log
    assert [word for word in WORDS if word.encode() in log] == []


def test_equal_names_show_within_a_namespace_and_nowhere_else(sealed: Open, dsn: str) -> None:
    backend = sealed()
    for namespace in ("one", "two"):
        for number in range(2):
            entry = an_entry(str(number), category="same", key="same", entity_id="same", tags=["same"])
            backend.for_namespace(namespace).create(entry)

    columns = "category, key, entity_id, body::jsonb -> 1 ->> 0, body::jsonb -> 0 ->> 'sealed'"
    rows = run(dsn, f"SELECT {columns} FROM jarvis.entries")

    assert len({row[:4] for row in rows}) == 2  # of two entries in each namespace
    assert len({name[:15] for row in rows for name in row[1:4]}) == 6  # of three kinds, also their nonces
    assert len({base64.b64decode(row[4])[:12] for row in rows}) == 4  # equal values never show


# --- what cannot be changed there unnoticed ------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        "id = (SELECT id FROM jarvis.entries WHERE row = 2) || ''",
        "key = (SELECT key FROM jarvis.entries WHERE row = 2)",
        "category = (SELECT category FROM jarvis.entries WHERE row = 2)",
        "entity_type = (SELECT category FROM jarvis.entries WHERE row = 2)",
        "entity_id = NULL",
        "entity_id = key",
        "version = 2",
        "body = (SELECT body FROM jarvis.entries WHERE row = 2)",
        "body = jsonb_set(body::jsonb, '{1}', '[]')::text",
        "body = jsonb_set(body::jsonb, '{0}', '{\"mode\": \"light\"}')::text",
        "body = jsonb_set(body::jsonb, '{0,sealed}', '\"AAAA\"')::text",
        "body = jsonb_set(body::jsonb, '{0,sealed}', '5')::text",
        "body = jsonb_set(body::jsonb, '{2,0}', '\"mallory\"')::text",
    ],
)
def test_what_was_changed_in_the_database_is_damage(sealed: Open, dsn: str, change: str) -> None:
    backend = sealed()
    backend.create(an_entry("1", tags=["one", "two"]))
    backend.create(an_entry("2", category="other", key="other", value={"mode": "other"}, tags=["one"]))

    if change.startswith("id"):
        run(dsn, "DELETE FROM jarvis.entries WHERE row = 2 RETURNING 1")
        run(dsn, "UPDATE jarvis.entries SET id = overlay(id placing 'A' from 5) || '' WHERE row = 1")
    else:
        run(dsn, f"UPDATE jarvis.entries SET {change} WHERE row = 1")

    with pytest.raises(CorruptStoreError, match="was changed, or moved to another place, since it was sealed"):
        backend.list_all()


def test_a_memory_that_was_moved_to_another_namespace_is_damage(sealed: Open, dsn: str) -> None:
    backend = sealed()
    backend.for_namespace("alice").create(an_entry(tags=[]))
    backend.for_namespace("mallory").create(an_entry("2", tags=[]))

    alice, mallory = run(dsn, "SELECT namespace FROM jarvis.entries ORDER BY id = %s", "")
    run(dsn, "DELETE FROM jarvis.entries WHERE namespace = %s", mallory[0])
    run(dsn, "UPDATE jarvis.entries SET namespace = %s", mallory[0])
    run(dsn, "INSERT INTO jarvis.names SELECT %s, id, name FROM jarvis.names ON CONFLICT DO NOTHING", mallory[0])

    found: list[Any] = []
    for name in ("alice", "mallory"):
        try:
            found.append(backend.for_namespace(name).list_all())
        except CorruptStoreError:
            found.append("damage")
    assert "damage" in found
    assert alice != mallory
    assert found.count([]) == 1


def test_a_name_that_was_written_in_another_way_is_damage(sealed: Open, dsn: str) -> None:
    backend = sealed()
    backend.create(an_entry(key="a name"))
    ((key,),) = run(dsn, "SELECT key FROM jarvis.entries")
    other = f"{key[:-3]}{chr(ord(key[-3]) + 1)}=="  # the same bytes, for four bits of that sign mean nothing
    assert base64.b64decode(other) == base64.b64decode(key)

    run(dsn, "UPDATE jarvis.entries SET key = %s", other)

    with pytest.raises(CorruptStoreError):
        backend.list_all()


def test_an_earlier_state_put_back_as_the_present_version_is_damage(sealed: Open, dsn: str) -> None:
    backend = sealed()
    backend.create(an_entry(value={"mode": "old"}))
    backend.update(an_entry(value={"mode": "new"}))

    run(dsn, "UPDATE jarvis.entries SET body = (SELECT body FROM jarvis.revisions)")

    with pytest.raises(CorruptStoreError):
        backend.read("1")
    assert [each.entry.value for each in backend.revisions("1")] == [{"mode": "old"}]


# --- who opens it --------------------------------------------------------------------------------


def test_a_wrong_key_or_none_is_an_error_and_writes_nothing(sealed: Open, dsn: str) -> None:
    sealed().create(an_entry())
    before = everything(dsn)

    with pytest.raises(WrongKeyError, match="the key is wrong"):
        sealed(keys=[KeyFunction(another_key)]).list_all()
    with pytest.raises(KeyUnavailableError, match="no key is available"):
        sealed(keys=[]).create(an_entry("2"))
    for plain in (PostgreSQLBackend(dsn), PostgreSQLBackend(dsn, read_only=True)):
        with pytest.raises(KeyUnavailableError, match=r"is sealed; open it with encryption='on'.*SealedBackend"):
            plain.list_all()
    assert everything(dsn) == before


def test_a_plain_store_stays_plain_and_is_refused_where_encryption_is_required(
    sealed: Open, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    plain = PostgreSQLBackend(dsn)
    plain.create(an_entry())
    plain.shutdown()

    with pytest.raises(NotEncryptedError, match="encryption is required"):
        sealed().read("1")
    with caplog.at_level(logging.WARNING, "jarvis.sealing"):
        backend = sealed(encryption="on")
        assert backend.read("1") == an_entry()
        assert backend.for_namespace("other").list_all() == []
    assert len(caplog.records) == 1
    assert backend.capability(Encrypts).key_slots() == []
    with pytest.raises(NotEncryptedError, match="the store is plain"):
        backend.add_key_slot(KeyFunction(a_key))


def test_who_only_reads_needs_the_key_and_writes_nothing(sealed: Open, dsn: str) -> None:
    for options in ({"read_only": True}, {"create": False}):
        with pytest.raises(StoreMissingError):
            sealed(**options).list_all()
    assert run(dsn, "SELECT 1 FROM pg_namespace WHERE nspname = 'jarvis'") == []
    sealed().create(an_entry())
    reader = sealed(read_only=True, transaction_pooling=True)  # then the server does not know that

    assert reader.read("1") == an_entry()
    for write in (lambda: reader.create(an_entry("2")), lambda: reader.add_key_slot(KeyFunction(another_key))):
        with pytest.raises(ReadOnlyStoreError):
            write()
    assert sealed(create=False, keys=[KeyFunction(a_key)]).read("1") == an_entry()


def test_who_creates_it_at_once_makes_one_key(sealed: Open) -> None:
    backends = [sealed() for _ in range(4)]
    ready = threading.Barrier(len(backends))

    def create(number: int) -> None:
        ready.wait()
        backends[number].create(an_entry(str(number)))

    threads = [threading.Thread(target=create, args=(number,)) for number in range(len(backends))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for backend in backends:
        assert sorted(entry.id for entry in backend.list_all()) == ["0", "1", "2", "3"]
        assert len(backend.key_slots()) == 1


def test_a_key_in_the_usual_variable_is_found_again(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JARVIS_KEY", new_key())
    with MemoryModule(dsn, encryption="required") as memory:
        memory.set_user_preference("theme", {"mode": "dark"})
    with MemoryModule(dsn, encryption="on") as memory:
        assert memory.get_user_preferences() == {"theme": {"mode": "dark"}}
    monkeypatch.delenv("JARVIS_KEY")

    with pytest.raises(KeyUnavailableError, match="JARVIS_KEY"):
        MemoryModule(dsn, encryption="on").get_user_preferences()


def test_the_settings_name_what_opens_it(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_KEY", new_key())
    path = tmp_path / "jarvis.yml"
    postgresql = f"postgresql: {{dsn: '{dsn}', pool_size: 2}}"
    keys = "encryption: required\n  keys: [{environment: OUR_KEY}]"
    path.write_text(f"storage:\n  backend: postgresql\n  {postgresql}\n  {keys}\n  cache: {{stale_seconds: 1}}\n")

    with Container().get_memory_module(path) as memory:
        memory.set_user_preference("theme", {"mode": "dark"})

        assert [slot.hint for slot in memory.store.key_slots()] == ["OUR_KEY"]
    assert b"theme" not in everything(dsn)


def test_sources_are_added_and_removed_beside_those_who_use_it(sealed: Open) -> None:
    backend, words = sealed(), Passphrase("correct horse battery staple")
    assert len(backend.key_slots()) == 1  # which creates the store
    backend.create(an_entry())

    assert backend.add_key_slot(words) == 2
    assert [slot.source for slot in backend.key_slots()] == ["function", "passphrase"]
    assert sealed(keys=[words]).read("1") == an_entry()
    backend.remove_key_slot(1)
    with pytest.raises(InvalidSettingError, match="is the last one"):
        backend.remove_key_slot(2)
    with pytest.raises(KeyUnavailableError):
        sealed().read("1")
    assert backend.read("1") == an_entry()


def test_damaged_keys_are_damage(sealed: Open, dsn: str) -> None:
    sealed().bootstrap()
    run(dsn, 'UPDATE jarvis.keys SET content = replace(content, \'"format": 1\', \'"format": "one"\')')

    with pytest.raises(CorruptStoreError, match="is damaged"):
        sealed().read("1")


def test_another_store_in_its_place_gets_nothing_that_its_keys_do_not_open(sealed: Open, dsn: str) -> None:
    backend = sealed()
    backend.create(an_entry())
    run(dsn, "DROP SCHEMA jarvis CASCADE")
    other = sealed(keys=[KeyFunction(another_key)])
    other.bootstrap()

    with pytest.raises(StoreAccessError, match="is another store than the one that was opened"):
        backend.create(an_entry("2"))
    backend.shutdown()
    with pytest.raises(WrongKeyError, match="the key is wrong"):
        backend.create(an_entry("2"))
    assert other.list_all() == []


def test_a_role_that_was_admitted_opens_it_with_a_key(sealed: Open, dsn: str) -> None:
    role = f"tenant_{uuid.uuid4().hex[:12]}"
    owner = sealed(namespace="alice")
    owner.create(an_entry())
    owner.for_namespace("bob").create(an_entry())
    run(dsn, f"CREATE ROLE {role} LOGIN")
    try:
        owner.wrapped.admit(role)  # type: ignore[attr-defined]  # that of PostgreSQL
        tenant = sealed(conninfo.make_conninfo(dsn, user=role), namespace="alice")
        tenant.update(an_entry(value={"mode": "light"}))

        assert tenant.read("1") == an_entry(value={"mode": "light"}, version=2)
        assert tenant.for_namespace("bob").list_all() == []
        with pytest.raises(StoreAccessError, match="a right is missing"):
            tenant.add_key_slot(KeyFunction(another_key))
    finally:
        run(dsn, f"DROP OWNED BY {role}; DROP ROLE {role}")


# --- what else is promised -----------------------------------------------------------------------


def test_a_name_may_be_as_long_as_in_a_plain_store(sealed: Open) -> None:
    names = [os.urandom(MAX_NAME_BYTES // 2).hex() for _ in range(8)]
    backend = sealed().for_namespace(names[0])
    entry = MemoryEntry(names[1], names[2], names[3], {}, [names[4]], names[5], names[6], provenance={"module": "m"})
    backend.create(entry)
    entry.value = {"n": 1}
    backend.update(entry)
    MemoryModule(backend).delete_memory(names[1], module=names[7])

    memory = MemoryModule(backend)
    assert memory.store.list_namespaces() == []
    memory.restore_memory(names[1], 2)
    assert backend.list_namespaces() == [names[0]]
    found = backend.select(MemoryQuery(category=names[2], key=names[3], tags=[names[4]], entity_id=names[6]))
    assert [each.id for each in found] == [names[1]]
    for too_long in ("x" * (MAX_NAME_BYTES + 1), "\x01" + "x" * MAX_NAME_BYTES):
        with pytest.raises(InvalidEntryError):
            backend.create(an_entry(too_long))


def test_errors_name_the_namespace_as_the_caller_does(sealed: Open) -> None:
    backend = sealed().for_namespace("alice")
    backend.create(an_entry())

    with pytest.raises(DuplicateEntryError, match="in namespace 'alice' of"):
        backend.create(an_entry())
    with pytest.raises(EntryNotFoundError, match="in namespace 'alice' of"):
        backend.update(an_entry("2"))


def test_policies_of_the_past_by_category_hold(sealed: Open) -> None:
    policies = [CategoryPolicy("few", history=HistoryPolicy(max_revisions=2))]
    backend = sealed(policies=policies)
    for category in ("few", "many"):
        there = backend.for_namespace(category)
        there.create(an_entry(category=category))
        for number in range(5):
            there.update(an_entry(category=category, value={"n": number}))

    assert [len(backend.for_namespace(name).revisions("1")) for name in ("few", "many")] == [2, 5]


def test_updates_at_once_are_versions_one_after_the_other(sealed: Open) -> None:
    backend = sealed()
    backend.create(an_entry())

    def update(number: int) -> None:
        for count in range(20):
            backend.update(an_entry(value={"of": number, "n": count}))

    threads = [threading.Thread(target=update, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [each.version for each in backend.revisions("1")] == [*range(80, 0, -1)]
    present = backend.read("1")
    assert present is not None
    assert present.version == 81


def test_what_another_compression_wrote_is_unchanged(sealed: Open) -> None:
    entry = an_entry(value={"text": " ".join(map(str, range(2_000)))})
    sealed(compression="max").create(entry)
    backend = sealed()

    assert backend.update_if_changed(entry, renews=False) is False
    assert backend.update_if_changed(entry, renews=True) is True
    assert backend.read("1") == entry
    assert backend.update_if_changed(an_entry(), renews=False) is True
    assert backend.read("1") == an_entry(version=2)


def test_what_expires_while_it_comes_back_comes_back_whole(sealed: Open) -> None:
    backend = sealed()
    backend.create(an_entry(expires_at=FAR))
    backend.delete("1")
    moments = [FAR - timedelta(seconds=1)]

    backend.bind(clock=lambda: moments.pop() if moments else FAR).recreate(an_entry())

    assert backend.read("1") == an_entry(version=2)


def test_what_is_judged_here_is_erased_in_every_state(sealed: Open) -> None:
    backend = sealed()
    memory = MemoryModule(backend)
    was = memory.create_memory("notes", "a/1", {"n": 1}, "note")
    memory.update_memory(was, {"n": 2})
    gone = memory.create_memory("notes", "a/2", {"n": 1}, "note")
    memory.delete_memory(gone)
    stays = memory.create_memory("notes", "b/1", {"n": 3}, "note")
    store = backend.capability(Erases)

    with backend.capability(Transactional).transaction():
        assert set(store.erase(MemoryQuery(where={"n": 1})).ids) == {was, gone}
    with backend.capability(Transactional).transaction():
        assert store.erase(MemoryQuery(key_prefix="b/", category="notes")).ids == (stays,)
    assert backend.capability(KeepsHistory).revisions(gone) == []


def test_no_secret_is_in_a_repr_or_a_pickle(sealed: Open) -> None:
    words = "correct horse battery staple"
    backend = sealed(keys=[KeyFunction(a_key), Passphrase(words)]).for_namespace("alice")
    backend.create(an_entry())

    copy = pickle.loads(pickle.dumps(sealed(keys=[KeyFunction(a_key)], namespace="alice")))
    try:
        assert copy.read("1") == an_entry()
        sealer = backend._own
        for shown in (
            repr(backend),
            repr(sealer),
            repr(sealer.seal),
            repr(backend._store.opening[1]),
            repr(backend.key_slots()),
        ):
            assert words not in shown
            assert repr(a_key())[2:20] not in shown
        with pytest.raises(TypeError):
            pickle.dumps(sealer)
    finally:
        copy.shutdown()


def test_a_copy_of_a_handle_opens_the_store_for_itself(sealed: Open) -> None:
    backend = sealed()
    backend.create(an_entry())

    copy = pickle.loads(pickle.dumps(backend))

    assert copy.read("1") == an_entry()
    copy.shutdown()


def test_what_a_sealed_store_cannot_do_is_said(sealed: Open, tmp_path: Path) -> None:
    backend, memory = sealed(), MemoryModule(sealed())

    with pytest.raises(UnsupportedError, match="no backups when it is sealed"):
        memory.store.back_up(tmp_path)
    with pytest.raises(UnsupportedError, match="when it is sealed"):
        memory.store.recompress()
    with pytest.raises(UnsupportedError, match="cannot keep the keys"):
        SealedBackend(JSONBackend(tmp_path / "memory.json"))
    with pytest.raises(InvalidSettingError, match="takes a StorageBackend"):
        SealedBackend("postgresql://localhost/memories")  # type: ignore[arg-type]  # on purpose
    with pytest.raises(InvalidSettingError, match="encryption"):
        sealed(encryption="maybe")
    assert backend.has_capability(Encrypts)


def test_a_large_value_is_compressed_before_it_is_sealed(sealed: Open, dsn: str) -> None:
    backend = sealed()
    backend.create(an_entry(value={"text": "again and again " * 10_000}))

    ((size,),) = run(dsn, "SELECT octet_length(body) + coalesce(octet_length(packed), 0) FROM jarvis.entries")
    assert size < 2_000
    assert backend.read("1") == an_entry(value={"text": "again and again " * 10_000})


# --- whole stores --------------------------------------------------------------------------------


def live_through_the_past(memory: MemoryModule) -> None:
    """Leave memories of several versions, removed ones, a renewed one, and some of which only a gap is left."""
    changed, gone = (memory.create_memory("notes", key, {"n": 1}, "note", module="canary_module") for key in "ab")
    for number in range(3):
        memory.update_memory(changed, {"n": number}, module="canary_module", reason="canary_reason")
    memory.delete_memory(gone, task_id="canary_task")
    for number in range(6):
        memory.create_memory("canary_gone", f"canary_gone {number}", {}, "canary_gone", str(number), ttl=0.01)
    time.sleep(0.02)
    assert memory.store.purge_expired() == 6
    entry = memory.get_memory(changed)
    assert entry is not None
    assert memory.backend.update_if_changed(entry, renews=True)


def test_a_store_becomes_sealed_gets_another_key_and_becomes_plain_by_migration(sealed: Open, tmp_path: Path) -> None:
    with a_database() as first, a_database() as second:
        plain = MemoryModule(storage_dir=tmp_path / "plain")
        live_through_everything(plain.backend)
        live_through_the_past(plain)
        words = plain.store.digest()

        one = MemoryModule(sealed(first))
        other = MemoryModule(sealed(second, keys=[KeyFunction(another_key)]))
        for source, target in ((plain, one), (one, other)):
            assert migrate(source, target).digest == words == target.store.digest()
        with pytest.raises(InvalidSettingError, match="the source is encrypted"):
            migrate(other, tmp_path / "again")
        migrate(other, tmp_path / "again", plain_text=True)

        again = MemoryModule(storage_dir=tmp_path / "again")
        assert again.store.digest() == words
        wholes = one.backend.capability(Transfers).whole_memories(past=True)
        assert sum(whole.entry is None and not whole.past for whole in wholes) == 6
        for name in ("default", "canary_space"):
            there = [memory.for_namespace(name).list_memories() for memory in (plain, one, other, again)]
            assert there == [there[0]] * 4
            assert there[0] != []
        assert [word for word in WORDS if word.encode() in everything(second)] == []
        for memory in (plain, again):
            memory.shutdown()


def test_a_verification_finds_what_is_not_what_was_sealed(sealed: Open, dsn: str) -> None:
    memory = MemoryModule(sealed())
    for namespace in ("alice", "bob"):
        there = memory.for_namespace(namespace)
        memory_id = there.create_memory("notes", "k", {"n": 1}, "note")
        there.update_memory(memory_id, {"n": 2})
    assert memory.store.verify().problems == {}

    for table in ("entries", "revisions"):
        other = f"SELECT o.body FROM jarvis.{table} AS o WHERE o.namespace <> t.namespace"
        run(dsn, f"UPDATE jarvis.{table} AS t SET body = ({other})")

    assert memory.store.verify().problems["a memory is not what was sealed"] == 2
    run(dsn, "UPDATE jarvis.names SET name = name || 'x' WHERE namespace = id")
    with pytest.raises(CorruptStoreError):
        memory.store.verify()


def test_the_words_of_what_is_sealed_are_not_indexed(sealed: Open, dsn: str) -> None:
    backend = sealed()
    memory = MemoryModule(backend)
    for number in range(130):
        memory.create_memory("notes", f"key-{number}", {"text": "secretive words"}, "note")

    assert [entry.value for entry, *_ in memory.recall("secretive", limit=1)] == [{"text": "secretive words"}]
    assert run(dsn, "SELECT count(*) FROM jarvis.text_index") == [(0,)]
    assert run(dsn, "SELECT count(*) FROM jarvis.text_vocabulary") == [(0,)]


# --- stores of the version before ----------------------------------------------------------------


NO_WORDS = (
    "DROP TABLE jarvis.text_stale, jarvis.text_counts, jarvis.text_mark, jarvis.text_index, jarvis.text_vocabulary, "
    "jarvis.vectors; "
    "ALTER TABLE jarvis.store DROP COLUMN language"
)


def a_store_of_version_1(dsn: str, role: str) -> None:
    plain = PostgreSQLBackend(dsn)
    plain.create(an_entry())
    plain.admit(role, all_namespaces=True)
    plain.shutdown()
    run(dsn, f"{NO_WORDS}; DROP TABLE jarvis.keys; DROP POLICY of_the_role ON jarvis.roles")
    run(dsn, "ALTER TABLE jarvis.roles DISABLE ROW LEVEL SECURITY; UPDATE jarvis.store SET version = 1")


def test_a_store_of_version_1_gets_a_place_for_keys_from_its_owner(dsn: str) -> None:
    role = f"tenant_{uuid.uuid4().hex[:12]}"
    run(dsn, f"CREATE ROLE {role} LOGIN")
    try:
        a_store_of_version_1(dsn, role)
        tenant = PostgreSQLBackend(conninfo.make_conninfo(dsn, user=role))
        tenant.update(an_entry(value={"n": 1}))
        for untouched in (tenant, PostgreSQLBackend(dsn, read_only=True)):
            assert untouched.read("1") == an_entry(value={"n": 1}, version=2)
            assert run(dsn, "SELECT version FROM jarvis.store") == [(1,)]
            untouched.shutdown()
        tenant.bootstrap()  # it has seen version 1, and goes on with it

        owner = PostgreSQLBackend(dsn)
        owner.update(an_entry(value={"n": 2}))

        assert run(dsn, "SELECT version FROM jarvis.store") == [(schema.CURRENT_VERSION,)]
        assert run(dsn, "SELECT * FROM jarvis.keys") == []
        assert run(dsn, "SELECT relrowsecurity FROM pg_class WHERE oid = 'jarvis.roles'::regclass") == [(True,)]
        tenant.update(an_entry(value={"n": 3}))
        newcomer = PostgreSQLBackend(conninfo.make_conninfo(dsn, user=role))
        assert newcomer.read("1") == an_entry(value={"n": 3}, version=4)
        for backend in (owner, tenant, newcomer):
            backend.shutdown()
    finally:
        run(dsn, f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_migrated_store_has_the_tables_of_a_new_one(dsn: str) -> None:
    def shape() -> list[Any]:
        columns = "table_name, column_name, data_type, is_nullable"
        return run(dsn, f"SELECT {columns} FROM information_schema.columns WHERE table_schema = 'jarvis' ORDER BY 1, 2")

    PostgreSQLBackend(dsn).bootstrap()
    new = shape()
    a_store = PostgreSQLBackend(dsn)
    run(dsn, f"{NO_WORDS}; DROP TABLE jarvis.keys")
    run(dsn, "UPDATE jarvis.store SET version = 1")
    a_store.bootstrap()

    assert shape() == new


def test_a_source_without_a_secret_creates_no_store(sealed: Open, dsn: str) -> None:
    with pytest.raises(KeyUnavailableError, match="cannot become a slot"):
        sealed(keys=[EnvironmentKey("NO_SUCH_VARIABLE")]).bootstrap()

    assert run(dsn, "SELECT 1 FROM pg_namespace WHERE nspname = 'jarvis'") == []
