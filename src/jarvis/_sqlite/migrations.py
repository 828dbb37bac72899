"""Migrates stores of earlier versions in numbered steps, or makes them readable as they are."""

from __future__ import annotations

from typing import Any

import apsw

from jarvis._sql import registry, tables
from jarvis._sqlite import creation, engine, schema, vector_tables, word_tables
from jarvis.errors import CorruptStoreError

_TO_VERSION_2 = """
DROP INDEX entries_by_category_key;
DELETE FROM sqlite_stat1 WHERE idx = 'entries_by_category_key';
"""
_TO_VERSION_3 = f"""
ALTER TABLE clock ADD COLUMN begins INTEGER;
ALTER TABLE clock ADD COLUMN ahead INTEGER NOT NULL DEFAULT 0;
ALTER TABLE clock ADD COLUMN fed_from INTEGER NOT NULL DEFAULT 0;
{schema.HISTORY}
"""
_TO_VERSION_4 = f"""
ALTER TABLE clock ADD COLUMN erasing INTEGER NOT NULL DEFAULT 0;
ALTER TABLE entries ADD COLUMN expires INTEGER;
CREATE INDEX entries_by_expiry ON entries (expires, namespace, category, entity_type) WHERE expires IS NOT NULL;
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ('entries', 'entries_by_expiry', '1000 1 1 1 1');
DROP VIEW memories;
{schema.VIEW}
"""
_HISTORY_TO_VERSION_4 = f"""
ALTER TABLE revisions ADD COLUMN expires INTEGER;
ALTER TABLE gaps ADD COLUMN expires INTEGER;
CREATE INDEX revisions_by_expiry ON revisions (expires) WHERE expires IS NOT NULL AND {tables.REMOVED};
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ('revisions', 'revisions_by_expiry', '1000 1');
"""
_TO_VERSION_5 = "ALTER TABLE entries ADD COLUMN packed BLOB;"
_TO_VERSION_6 = """
ALTER TABLE clock ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
ALTER TABLE clock ADD COLUMN copied INTEGER NOT NULL DEFAULT 0;
"""
_TO_VERSION_7 = f"""
ALTER TABLE entries ADD COLUMN created INTEGER;
{creation.FILL.format("entries")}
"""
_HISTORY_TO_VERSION_7 = f"""
ALTER TABLE revisions ADD COLUMN created INTEGER;
{creation.FILL.format("revisions")}
"""
_HISTORY_TO_VERSION_5 = "ALTER TABLE revisions ADD COLUMN packed BLOB;"


def migrate(connection: apsw.Connection, language: str) -> None:
    """Migrate an undamaged store of an earlier version to the current one, in one transaction that changes no entry.

    Needs the writers' lock. No-op on a current store. Its texts are to be indexed in `language`: searches do it.
    """
    version = schema.read_mark(connection)[1]
    if version == schema.CURRENT_VERSION:
        return
    with connection:
        rows: Any = connection.execute(engine.DIALECT.say(tables.READ_FIRST_CLOCK)).fetchall()
        commit, made, generation, *_ = tables.clock_row(rows[0])
        if version == 1:
            connection.execute(_TO_VERSION_2).fetchall()
        if version < tables.FIRST_WITH_PAST:
            connection.execute(_TO_VERSION_3).fetchall()  # it creates today's tables of the past
        else:
            if version < schema.FIRST_WITH_EXPIRY:
                connection.execute(_HISTORY_TO_VERSION_4).fetchall()
            if version < schema.FIRST_WITH_PACKED:
                connection.execute(_HISTORY_TO_VERSION_5).fetchall()
        if version < schema.FIRST_WITH_EXPIRY:
            connection.execute(_TO_VERSION_4).fetchall()
        if version < schema.FIRST_WITH_PACKED:
            connection.execute(_TO_VERSION_5).fetchall()
        if version < schema.FIRST_WITH_GENERATION:
            connection.execute(_TO_VERSION_6).fetchall()
        if version < schema.FIRST_WITH_CREATION:
            creation.tell(connection)
            connection.execute(_TO_VERSION_7).fetchall()
        if version < tables.FIRST_WITH_WORDS:
            connection.execute(word_tables.CREATE).fetchall()
            word_tables.set_language(connection, language)
        connection.execute(vector_tables.CREATE).fetchall()
        if version < tables.FIRST_WITH_PAST:
            schema.begin_history(connection, commit, made, generation)
        else:
            if version < schema.FIRST_WITH_CREATION:
                connection.execute(_HISTORY_TO_VERSION_7).fetchall()
            if version < schema.FIRST_WITH_GENERATION:
                schema.begin_generation(connection)
        schema.mark(connection, schema.CURRENT_VERSION)


def unmarked(connection: apsw.Connection, path: str) -> CorruptStoreError:
    """Return the error that says that a file is not marked as a store, and what to do if it is one all the same.

    A file restored from a ``.dump`` has neither the two numbers of the header nor room for the checksums of pages.
    """
    if schema.read_mark(connection) != (0, 0) or "body" not in schema.columns_of(connection, "entries"):
        return CorruptStoreError(path, "is a SQLite file, but no store of jarvis; give another path")
    import shlex

    return CorruptStoreError(
        path,
        "has the tables of a store but not its marks, like a file restored from a .dump. Restore a "
        f'backup; or take this over: sqlite3 {shlex.quote(path)} ".filectrl reserve_bytes {engine.RESERVED_BYTES}" '
        f'"VACUUM" "PRAGMA application_id = {schema.APPLICATION_ID}" '
        f'"PRAGMA user_version = {schema.version_of_tables(connection)}", after which the next opening verifies it',
    )


def views_for_reading(connection: apsw.Connection) -> str:
    """Return the SQL of temporary views through which a store of an earlier version reads like a current one.

    If a writer migrates the store meanwhile, the real column comes before the made-up one, and is used.
    """
    version = schema.read_mark(connection)[1]
    if not 0 < version < schema.CURRENT_VERSION:
        return ""
    if version == tables.FIRST_WITH_WORDS:
        return vector_tables.BEFORE
    before = word_tables.BEFORE + vector_tables.BEFORE
    if version == schema.FIRST_WITH_CREATION:
        return before
    creation.tell(connection)
    made_up = dict.fromkeys(("entries", "revisions"), f"{creation.COMPUTED} AS created")
    if version < schema.FIRST_WITH_PACKED:
        made_up = {table: f"NULL AS packed, {column}" for table, column in made_up.items()}
    if version < schema.FIRST_WITH_GENERATION:
        made_up["clock"] = "0 AS generation, 0 AS copied"
    if version < schema.FIRST_WITH_EXPIRY:
        made_up = {table: f"NULL AS expires, {column}" for table, column in made_up.items() if table != "clock"}
        made_up.update(gaps="NULL AS expires", clock="0 AS erasing, 0 AS generation, 0 AS copied")
    existing = {table.name for table in registry.tables() if table.since <= version}
    return before + "".join(
        f"CREATE TEMP VIEW {table} AS SELECT *, {column} FROM main.{table};"
        for table, column in made_up.items()
        if table in existing
    )
