"""The tables of a store on a PostgreSQL server, in a schema of their own, and their versions.

Every table begins with the number of the namespace, in its key and in each index, and no sequence, constraint, index or
name crosses a namespace: so the tables can be partitioned, or spread over servers, by namespace. What the columns mean
is written in `jarvis._sqlite.schema`.
"""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from jarvis._postgresql import word_tables
from jarvis._sql import registry
from jarvis._sql.side_tables import SideTable
from jarvis._sql.tables import CLEARED, REMOVED, ClockRow, clock_checksum
from jarvis.errors import StoreAccessError, StoreMissingError, StoreTooNewError
from jarvis.model.change import generation_from

_VECTORS = """
CREATE TABLE {schema}.vectors (
    namespace bigint NOT NULL, row bigint NOT NULL, number bigint NOT NULL, model text COLLATE "C" NOT NULL,
    signs bytea NOT NULL, codes bytea NOT NULL, PRIMARY KEY (namespace, row));
CREATE UNIQUE INDEX vectors_by_number ON {schema}.vectors (namespace, number) INCLUDE (model, row, signs);
"""

CURRENT_VERSION = 4
OLDEST_SERVER = 150_000
WITHOUT_KEYS = 1
"""The last version that has no place for the keys of a sealed store."""

_ADDED = {word_tables.FIRST_VERSION: word_tables.CREATE, 4: _VECTORS}
"""By version: the tables of namespaces that it added."""

_STATE = """
    namespace bigint NOT NULL,
    id text COLLATE "C" NOT NULL,
    category bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    entity_type bigint NOT NULL,
    entity_id text COLLATE "C",
    instant bigint NOT NULL,
    version bigint NOT NULL,
    body text NOT NULL,
    checksum bigint NOT NULL,
    expires bigint,
    packed bytea,
    created bigint,
"""
_TAG = """
    namespace bigint NOT NULL,
    tag bigint NOT NULL,
    instant bigint NOT NULL,
    row bigint NOT NULL,
    category bigint NOT NULL,
    entity_type bigint NOT NULL,
"""
_WALL_OF_ROLES = """ALTER TABLE {schema}.roles ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_the_role ON {schema}.roles USING (role = current_user);
"""
_KEYS = """
CREATE TABLE {schema}.keys (is_this boolean PRIMARY KEY CHECK (is_this), content text NOT NULL);
"""
"""Creates the place of the file of keys; the store is plain if it has no row."""

TABLES = f"""
CREATE TABLE {{schema}}.store (
    is_this boolean PRIMARY KEY CHECK (is_this), version bigint NOT NULL, seed bigint NOT NULL);
CREATE TABLE {{schema}}.names (
    namespace bigint NOT NULL, id bigint NOT NULL, name text COLLATE "C" NOT NULL,
    PRIMARY KEY (namespace, id), UNIQUE (namespace, name));
CREATE TABLE {{schema}}.clock (
    namespace bigint PRIMARY KEY,
    commit_number bigint NOT NULL,
    made bigint NOT NULL,
    names_generation bigint NOT NULL,
    checksum bigint NOT NULL,
    begins bigint,
    ahead bigint NOT NULL,
    fed_from bigint NOT NULL,
    erasing bigint NOT NULL,
    generation bigint NOT NULL,
    copied bigint NOT NULL
);
CREATE TABLE {{schema}}.entries (row bigint NOT NULL, {_STATE} PRIMARY KEY (namespace, row));
CREATE UNIQUE INDEX entries_by_id ON {{schema}}.entries (namespace, id);
CREATE INDEX entries_by_time ON {{schema}}.entries (namespace, instant, row);
CREATE INDEX entries_by_key ON {{schema}}.entries (namespace, key, instant, row);
CREATE INDEX entries_by_category ON {{schema}}.entries (namespace, category, instant, row, entity_type);
CREATE INDEX entries_by_type ON {{schema}}.entries (namespace, entity_type, instant, row);
CREATE INDEX entries_by_entity ON {{schema}}.entries (namespace, entity_id, instant, row) WHERE entity_id IS NOT NULL;
CREATE INDEX entries_by_expiry ON {{schema}}.entries (namespace, expires, category, entity_type)
    WHERE expires IS NOT NULL;
CREATE TABLE {{schema}}.tags ({_TAG} PRIMARY KEY (namespace, tag, instant, row));
CREATE TABLE {{schema}}.revisions (
    ended bigint NOT NULL, made bigint NOT NULL, change text NOT NULL, change_checksum bigint NOT NULL,
    row bigint NOT NULL, {_STATE} PRIMARY KEY (namespace, ended));
CREATE INDEX revisions_by_id ON {{schema}}.revisions (namespace, id, ended);
CREATE INDEX revisions_by_time ON {{schema}}.revisions (namespace, instant, row, made, entity_type);
CREATE INDEX revisions_by_key ON {{schema}}.revisions (namespace, key, instant, row, made);
CREATE INDEX revisions_by_category ON {{schema}}.revisions (namespace, category, instant, row, made, entity_type);
CREATE INDEX revisions_by_entity ON {{schema}}.revisions (namespace, entity_id, instant, row, made)
    WHERE entity_id IS NOT NULL;
CREATE INDEX revisions_created ON {{schema}}.revisions (namespace, row) WHERE version = 1;
CREATE INDEX revisions_cleared ON {{schema}}.revisions (namespace, made) WHERE {CLEARED};
CREATE INDEX revisions_by_expiry ON {{schema}}.revisions (namespace, expires) WHERE expires IS NOT NULL AND {REMOVED};
CREATE TABLE {{schema}}.past_tags (
    {_TAG} ended bigint NOT NULL, made bigint NOT NULL, PRIMARY KEY (namespace, tag, instant, row));
CREATE TABLE {{schema}}.commits (
    namespace bigint NOT NULL, last bigint NOT NULL, first bigint NOT NULL, moment bigint NOT NULL,
    PRIMARY KEY (namespace, last));
CREATE INDEX commits_by_moment ON {{schema}}.commits (namespace, moment, last, first);
CREATE TABLE {{schema}}.events (
    number bigint NOT NULL, made bigint NOT NULL, namespace bigint NOT NULL, change text NOT NULL,
    id text COLLATE "C", category bigint, key text COLLATE "C", version bigint, count bigint NOT NULL,
    checksum bigint NOT NULL, PRIMARY KEY (namespace, number));
CREATE INDEX erasures ON {{schema}}.events (namespace, number) WHERE id IS NULL;
CREATE TABLE {{schema}}.gaps (
    namespace bigint NOT NULL, id text COLLATE "C" NOT NULL, category bigint, key text COLLATE "C", entity_type bigint,
    entity_id text COLLATE "C", row bigint NOT NULL, instant bigint NOT NULL, ended bigint NOT NULL,
    made bigint NOT NULL, expires bigint, PRIMARY KEY (namespace, id));
CREATE INDEX gaps_by_end ON {{schema}}.gaps (namespace, made);
CREATE TABLE {{schema}}.roles (role name, namespace bigint, PRIMARY KEY (role, namespace));
{_WALL_OF_ROLES}
CREATE FUNCTION {{schema}}.texts_in(list text) RETURNS TABLE (value text) LANGUAGE sql IMMUTABLE STRICT ROWS 10 AS
    'SELECT jsonb_array_elements_text(list::jsonb) COLLATE "C"';
CREATE FUNCTION {{schema}}.numbers_in(list text) RETURNS TABLE (value bigint) LANGUAGE sql IMMUTABLE STRICT ROWS 10 AS
    'SELECT jsonb_array_elements_text(list::jsonb)::bigint';
CREATE FUNCTION {{schema}}.looked_at(number bigint) RETURNS boolean LANGUAGE sql VOLATILE COST 0.0001 AS
    $$SELECT set_config('jarvis.looks',
        (coalesce(nullif(current_setting('jarvis.looks', true), ''), '0')::bigint + 1)::text, false) IS NOT NULL$$;
INSERT INTO {{schema}}.store VALUES (true, {CURRENT_VERSION}, {{seed}});
{word_tables.LANGUAGE}
{_KEYS}{word_tables.CREATE}{_VECTORS}"""
_OF_NAMESPACES = tuple(table.name for table in registry.tables())
_WALL = """
ALTER TABLE {schema}.{table} ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_the_role ON {schema}.{table}
    USING (namespace = ANY (ARRAY(SELECT r.namespace FROM {schema}.roles AS r WHERE r.role = current_user))
        OR EXISTS (SELECT 1 FROM {schema}.roles AS r WHERE r.role = current_user AND r.namespace = {all}));
"""
"""Lets every role but the owner of the tables, and those that bypass row-level security, see its namespaces only.

The array and what stands behind OR are made once for a statement, so that the indexes serve it as before.
"""

_ADMIT = """
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT SELECT ON {schema}.store, {schema}.roles, {schema}.keys TO {role};
GRANT {rights} ON {tables} TO {role};
INSERT INTO {schema}.roles VALUES ({name}, {namespace}) ON CONFLICT DO NOTHING;
"""
_EXPEL = "DELETE FROM {schema}.roles WHERE role = {name} AND namespace = {namespace}"
HAS_WALLS = "SELECT row_security_active('{schema}.entries')"
IS_WALLED = """
SELECT row_security_active('{schema}.clock')
    AND NOT EXISTS (SELECT 1 FROM {schema}.roles WHERE role = current_user AND namespace = {all})
"""
ALL_NAMESPACES = -1
"""Stands for all namespaces in the table of roles: no namespace has this number."""

READ_KEYS = "SELECT content FROM {schema}.keys"
_MIGRATIONS = {
    2: f"""{_KEYS}
DROP POLICY IF EXISTS of_the_role ON {{schema}}.roles;
{_WALL_OF_ROLES}
DO $$
DECLARE admitted name;
BEGIN
    EXECUTE (SELECT format('ALTER TABLE {{schema}}.keys OWNER TO %I', pg_get_userbyid(relowner))
        FROM pg_catalog.pg_class WHERE oid = '{{schema}}.store'::regclass);
    FOR admitted IN SELECT DISTINCT role FROM {{schema}}.roles LOOP
        EXECUTE format('GRANT SELECT ON {{schema}}.keys TO %I', admitted);
    END LOOP;
END $$;
""",
    3: word_tables.LANGUAGE,
    4: "",
}
"""By version: the statements that make a store of it from one of the version before, but for the added tables."""

_ADMIT_AGAIN = """
DO $$
DECLARE admitted name; added text;
BEGIN
    FOREACH added IN ARRAY ARRAY[{added}] LOOP
        EXECUTE (SELECT format('ALTER TABLE {schema}.%I OWNER TO %I', added, pg_get_userbyid(relowner))
            FROM pg_catalog.pg_class WHERE oid = '{schema}.store'::regclass);
        FOR admitted IN SELECT DISTINCT role FROM {schema}.roles LOOP
            EXECUTE format('GRANT ' || CASE WHEN has_table_privilege(admitted, '{schema}.entries', 'INSERT')
                THEN 'SELECT, INSERT, UPDATE, DELETE' ELSE 'SELECT' END || ' ON {schema}.%I TO %I', added, admitted);
        END LOOP;
    END LOOP;
END $$
"""
"""Gives added tables to the owner of the store, and to each admitted role the rights that it has on entries."""

_MAY_MIGRATE = """
SELECT pg_has_role(relowner, 'USAGE') AND current_setting('transaction_read_only') = 'off'
FROM pg_catalog.pg_class WHERE oid = '{schema}.store'::regclass
"""

_PARTITIONS = "SELECT count(*) FROM pg_catalog.pg_inherits WHERE inhparent = '{schema}.entries'::regclass"
_SET_LANGUAGE = "UPDATE {schema}.store SET language = %s"
_MOST_BYTES = 63
"""The length at which a server cuts names off."""

_ALL_RIGHTS, _READING = "SELECT, INSERT, UPDATE, DELETE", "SELECT"
LOCK = "SELECT pg_advisory_xact_lock(7267815403516901)"
"""Locks out all others who change the tables themselves, or rights on them."""

# Reads the catalogue: `to_regclass` answers from what its process remembered before it waited for others.
_IS_THERE = """
SELECT EXISTS (
    SELECT 1 FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relname = 'store')
"""


def _statements(schema: str, partitions: int) -> Iterator[str]:
    """Yield what creates the tables of a store, each in this many partitions by namespace if that is not 0."""
    yield from _creating(TABLES.replace("{seed}", str(secrets.randbits(62))), schema, partitions)
    yield from _walls(schema, _OF_NAMESPACES)


def _walls(schema: str, tables: Iterable[str]) -> Iterator[str]:
    for table in tables:
        yield _WALL.format(schema=schema, table=table, all=ALL_NAMESPACES)


def _creating(text: str, schema: str, partitions: int) -> Iterator[str]:
    for statement in filter(str.strip, text.replace("{schema}", schema).split(";\n")):
        made = re.match(r"\s*CREATE TABLE \S+\.(\w+)", statement)
        if made is None or made[1] not in _OF_NAMESPACES or not partitions:
            yield statement
            continue
        yield f"{statement} PARTITION BY HASH (namespace)"
        for number in range(partitions):
            yield (
                f"CREATE TABLE {schema}.{made[1]}_{number} PARTITION OF {schema}.{made[1]} "
                f"FOR VALUES WITH (MODULUS {partitions}, REMAINDER {number})"
            )


@functools.cache
def side_tables(version: int) -> tuple[SideTable, ...]:
    """Return the side tables that stores of a version have."""
    later = {name for number, text in _ADDED.items() if number > version for name in _made_by(text)}
    return tuple(side for side in registry.SIDE_TABLES if side.tables[0].name not in later)


def _made_by(text: str) -> list[str]:
    return re.findall(r"CREATE TABLE \S+\.(\w+)", text)


def is_role(name: str) -> bool:
    """Tell whether a role can have this name: a longer one would be cut short, and "public" means every role."""
    try:
        return 0 < len(name.encode()) <= _MOST_BYTES and "\0" not in name and name not in ("public", "none")
    except UnicodeEncodeError:
        return False


def admit(role: str, namespace: int, schema: str, *, read_only: bool = False) -> str:
    """Return the statements that let a role read, and change if it is not `read_only`, a namespace."""
    tables = ", ".join(f"{schema}.{table}" for table in _OF_NAMESPACES)
    name, quoted = sql.Literal(role).as_string(), sql.Identifier(role).as_string()
    rights = _READING if read_only else _ALL_RIGHTS
    return _ADMIT.format(schema=schema, role=quoted, name=name, namespace=namespace, tables=tables, rights=rights)


def expel(role: str, namespace: int, schema: str) -> str:
    """Return the statement that takes a namespace from a role."""
    return _EXPEL.format(schema=schema, name=sql.Literal(role).as_string(), namespace=namespace)


class Store(NamedTuple):
    """What tells a store from others.

    Attributes:
        schema: the schema of its tables, quoted.
        seed: a random number.
        keys: the content of its file of keys when it was opened; None if it is plain.
        version: of its tables: an older one than is current if this process may not migrate it.
    """

    schema: str
    seed: int = 0
    keys: bytes | None = None
    version: int = CURRENT_VERSION

    def generation_of(self, namespace: int) -> int:
        """Return the number in each cursor of a namespace: no cursor of another one, or of another store, has it."""
        return generation_from(self.seed ^ namespace)


def new_clock(generation: int) -> tuple[str, dict[str, Any]]:
    """Return the statement that adds the clock of the namespace, and its bindings; no-op if it is there."""
    row = ClockRow(0, 0, 0, generation=generation)
    columns = ", ".join(row._fields)
    marks = ", ".join(f":{name}" for name in row._fields)
    text = (
        f"INSERT INTO clock (namespace, {columns}, checksum) VALUES (:here_, {marks}, :checksum) "
        "ON CONFLICT (namespace) DO NOTHING"
    )
    return text, {**row._asdict(), "checksum": clock_checksum(row)}


def _version_and_seed(raw: psycopg.Connection[Any], path: str, schema: str) -> tuple[int, int] | None:
    """Return the version of the store's tables and its seed, None if there is no store."""
    ((is_there,),) = raw.execute(_IS_THERE, (schema,)).fetchall()
    if not is_there:
        return None
    try:
        ((version, seed),) = raw.execute(f"SELECT version, seed FROM {schema}.store").fetchall()
    except (psycopg.errors.UndefinedColumn, ValueError):
        raise StoreAccessError(
            path,
            f"has tables in the schema {schema} that are another program's, or no whole store of jarvis; nothing was "
            "done. Drop or rename that schema, or restore the database from a backup",
        ) from None
    return version, seed


def prepared(
    raw: psycopg.Connection[Any],
    path: str,
    schema: str,
    *,
    may_create: bool,
    may_write: bool,
    partitions: int,
    new_keys: Callable[[], bytes | None],
    language: str,
) -> Store:
    """Return the store in a schema, after it was created or migrated if need be.

    Args:
        path: names the store in messages.
        schema: the schema of its tables, quoted.
        may_create: create the store if it is absent.
        may_write: migrate it if this role has the rights of the owner of its tables.
        new_keys: returns the keys of a new store, None for a plain one.
        language: in which the texts of a new or migrated store are to be indexed.

    Raises:
        StoreMissingError: there is no store, and none may be created.
        StoreTooNewError: a newer jarvis made it.
        StoreAccessError: the server is too old, or the encoding of the database cannot hold every text.
    """
    if raw.info.server_version < OLDEST_SERVER:
        raise StoreAccessError(path, f"is on PostgreSQL {raw.info.server_version // 10_000}; jarvis needs 15 or newer")
    encoding = raw.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise StoreAccessError(
            path, f"is a database with the encoding {encoding}; create one with ENCODING 'UTF8' for jarvis"
        )
    found = _version_and_seed(raw, path, schema)
    if found is None:
        if not may_create:
            raise StoreMissingError(path, f"has no store in the schema {schema}; open it once with create=True")
        with raw.transaction():
            raw.execute(LOCK)
            if _version_and_seed(raw, path, schema) is None:
                raw.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
                for statement in _statements(schema, partitions):
                    raw.execute(statement)
                raw.execute(_SET_LANGUAGE.format(schema=schema), (language,))
                keys = new_keys()
                if keys is not None:
                    raw.execute(f"INSERT INTO {schema}.keys VALUES (true, %s)", (keys.decode(),))
        found = _version_and_seed(raw, path, schema)
        assert found is not None  # noqa: S101 - it was just made
    version, seed = found
    if version > CURRENT_VERSION:
        raise StoreTooNewError(
            path,
            f"has store version {version}, this jarvis knows up to {CURRENT_VERSION}: pip install -U jarvis-memory",
        )
    if version < CURRENT_VERSION and may_write:
        version = _migrated(raw, schema, version, language)
    kept = raw.execute(READ_KEYS.format(schema=schema)).fetchall() if version > WITHOUT_KEYS else []
    return Store(schema, seed, kept[0][0].encode() if kept else None, version)


def _migrated(raw: psycopg.Connection[Any], schema: str, version: int, language: str) -> int:
    """Migrate a store to the current version, if this role may; return its version."""
    ((may_migrate,),) = raw.execute(_MAY_MIGRATE.format(schema=schema)).fetchall()
    if not may_migrate:
        return version
    with raw.transaction():
        raw.execute(LOCK)
        ((version,),) = raw.execute(f"SELECT version FROM {schema}.store").fetchall()  # another process may be faster
        ((partitions,),) = raw.execute(_PARTITIONS.format(schema=schema)).fetchall()
        for number in range(version + 1, CURRENT_VERSION + 1):
            added = _made_by(_ADDED.get(number, ""))
            creating = _creating(_ADDED.get(number, ""), schema, partitions)
            for statement in (_MIGRATIONS[number].replace("{schema}", schema), *creating, *_walls(schema, added)):
                raw.execute(statement)
            if added:
                listed = ", ".join(map(repr, added))
                raw.execute(_ADMIT_AGAIN.replace("{schema}", schema).replace("{added}", listed))
        if version < word_tables.FIRST_VERSION:
            raw.execute(_SET_LANGUAGE.format(schema=schema), (language,))
        raw.execute(f"UPDATE {schema}.store SET version = {CURRENT_VERSION}")
    return CURRENT_VERSION
