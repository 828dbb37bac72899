"""Writes every row of a store again with other names and values, in one transaction, and removes the former bytes.

The transaction locks out all writers first. Readers see the former rows until it commits, and from then on are told
that the store is another one: see `jarvis._postgresql.connection`. So a process that is killed at any moment leaves
the one state or the other.
"""

from __future__ import annotations

import secrets
import time
import uuid
from typing import TYPE_CHECKING, Any

import msgspec
from psycopg.rows import dict_row

from jarvis._postgresql.names import number_of
from jarvis._postgresql.schema import READ_KEYS
from jarvis._sql import feed, registry, tables
from jarvis.errors import CorruptStoreError, StoreBusyError
from jarvis.model.portable import PortableEntry, fields_of
from jarvis.model.record import encode_entry, is_renewed, renewed
from jarvis.model.revision import Signature
from jarvis.model.rewriting import RewriteProgress, Rewritten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jarvis._postgresql.raw import Raw
    from jarvis.model.options import Compression
    from jarvis.model.rewriting import Rewording

    Row = dict[str, Any]

REWRITTEN = ("clock", "entries", "tags", "revisions", "past_tags", "commits", "events", "gaps")
"""The tables whose rows are written again. Names are collected on the way."""

_AT_ONCE = 100  # rows that are read, and then written
_LOCKED_FIRST = ("clock", "names")  # each writer begins with the clock, so one that waits for it has locked nothing
_NUMBERED, _NAMED = ("category", "entity_type", "tag"), ("id", "key", "entity_id")
_NAMESPACES = """
SELECT c.namespace, n.name FROM {schema}.clock AS c
LEFT JOIN {schema}.names AS n ON n.namespace = c.namespace AND n.id = c.namespace ORDER BY c.namespace
"""
_OLDER = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND greatest(age(backend_xmin), age(backend_xid)) >= age(CAST(%s AS xid))
"""
_SAME_TYPES = """
SELECT string_agg(format('ALTER COLUMN %%I TYPE %%s', attname, atttypid::regtype || coalesce(
    (SELECT format(' COLLATE %%I', collname) FROM pg_catalog.pg_collation AS c WHERE c.oid = attcollation), '')), ', ')
FROM pg_catalog.pg_attribute
WHERE attrelid = CAST(%s AS regclass) AND attnum > 0 AND NOT attisdropped
    AND atttypid IN ('text'::regtype, 'bytea'::regtype, 'tsvector'::regtype)
"""
"""Gives columns the types that they have, which removes the statistics of them, also of a table that is empty now."""

_PAUSE_SECONDS = 0.05
_decode_signature = msgspec.json.Decoder(tuple[Any, str | None, str | None, str | None]).decode


class Rewriting:
    """Writes the rows of one store again.

    Args:
        raw: a connection with the rights of the owner of its tables.
        path: names the store in messages.
        schema: the schema of its tables, quoted.
        compression: how values from 1 KiB up are written.
        progress: is called again and again; if it raises, all is as it was.
    """

    def __init__(
        self,
        raw: Raw,
        path: str,
        schema: str,
        compression: Compression,
        progress: Callable[[RewriteProgress], None] | None,
    ) -> None:
        self._raw, self._path, self._schema = raw, path, schema
        self._compression: Compression = compression
        self._progress = progress
        self._digest = self._total = 0
        self._rows: dict[str, int] = {}

    def run(self, old: str | None, new: str | None, reword: Callable[[str], Rewording]) -> Rewritten:
        """Give the store other keys, and every row the form that belongs to them.

        Args:
            old: the keys that it has, None for none.
            new: the keys that it is to have.
            reword: returns the form of a namespace, whose stored name it is given.

        Raises:
            StoreBusyError: it has other keys than `old` by now. Nothing was done.
            CorruptStoreError: something stored is damaged. Nothing was done.
        """
        began = time.monotonic()
        with self._raw.transaction():
            for setting in self._raw.local:
                self._run(setting)
            self._lock()
            self._replace_keys(old, new)
            namespaces = self._all(_NAMESPACES)
            self._total = sum(self._count(table) for table in REWRITTEN)
            for number, name in namespaces:
                if name is None:
                    self._drop_empty(number)
                else:
                    self._namespace(number, reword(name))
        seconds = time.monotonic() - began
        return Rewritten(uuid.uuid4().hex, self._rows, f"{self._digest % (1 << 128):032x}", 0, 0, seconds)

    # --- one transaction -------------------------------------------------------------------------

    def _lock(self) -> None:
        others = [table.name for table in registry.tables() if table.name not in _LOCKED_FIRST]
        for table in (*_LOCKED_FIRST, *others, "roles", "store", "keys"):
            self._run(f"LOCK TABLE {{schema}}.{table} IN EXCLUSIVE MODE")

    def _replace_keys(self, old: str | None, new: str | None) -> None:
        stored = self._all(READ_KEYS)
        if (stored[0][0] if stored else None) != old:
            raise StoreBusyError(self._path, "was given other keys by somebody else meanwhile; call the verb again")
        self._run("DELETE FROM {schema}.keys")
        if new is not None:
            self._run("INSERT INTO {schema}.keys VALUES (true, %s)", new)
        self._run("UPDATE {schema}.store SET seed = %s", secrets.randbits(62))

    def _namespace(self, number: int, form: Rewording) -> None:
        names = _Names(form, dict(self._all("SELECT id, name FROM {schema}.names WHERE namespace = %s", number)))
        for table in REWRITTEN:
            written = 0
            for page in self._pages(table, number):
                rows = [self._again(table, row, form, names) for row in page]
                self._copy(table, rows)
                written += len(rows)
                if self._progress is not None:
                    self._progress(RewriteProgress("copy", sum(self._rows.values()) + written, self._total))
            self._rows[table] = self._rows.get(table, 0) + written
            if self._run(f"DELETE FROM {{schema}}.{table} WHERE namespace = %s", number) != written:
                raise CorruptStoreError(self._path, f"is damaged: rows of {table} cannot be read; nothing was done")
        for other in registry.tables():  # what is made of entries, and would show them, is made again
            if other.name not in REWRITTEN:
                self._run(f"DELETE FROM {{schema}}.{other.name} WHERE namespace = %s", number)
        new = number_of(form.namespace)
        self._copy("names", [{"namespace": new, "id": each, "name": text} for each, text in names.stored.items()])
        self._run("UPDATE {schema}.roles SET namespace = %s WHERE namespace = %s", new, number)

    def _drop_empty(self, number: int) -> None:
        """Remove the clock of a namespace in which nothing was ever kept."""
        if not self._run("DELETE FROM {schema}.clock WHERE namespace = %s AND commit_number = 0", number):
            raise CorruptStoreError(self._path, "is damaged: a namespace has no name; nothing was done")

    # --- one row ---------------------------------------------------------------------------------

    def _again(self, table: str, row: Row, form: Rewording, names: _Names) -> Row:
        state = None
        if "body" in row:  # before its names are replaced
            state = self._state(row, form, names)
        row["namespace"] = number_of(form.namespace)
        for kind in _NUMBERED:
            if row.get(kind) is not None:
                row[kind] = names.again(kind, row[kind])
        for kind in _NAMED:
            if row.get(kind) is not None:
                row[kind] = form.text(kind, row[kind])
        if "change" in row:
            row["change"] = feed.written(form.signature(Signature(*_decode_signature(row["change"]))))
        if "change_checksum" in row:
            row["change_checksum"] = tables.change_checksum(row["ended"], row["made"], row["change"])
        if table == "events":
            row["checksum"] = tables.event_checksum((*row.values(),)[:-1])
        if state is not None:
            row.update(state)
        self._digest += tables.digest_of_row(table, (*row.values(),))
        return row

    def _state(self, row: Row, form: Rewording, names: _Names) -> Row:
        """Return the columns of a state that depend on its content."""
        fields = (names.old[row["category"]], row["key"], names.old[row["entity_type"]], row["entity_id"])
        body, expires = row["body"], row["expires"]
        try:
            stored = PortableEntry(*fields_of(fields, row["version"], expires, body, row["packed"]))
        except ValueError:
            raise CorruptStoreError(self._path, "is damaged: an entry cannot be decoded; nothing was done") from None
        entry = form.state(row["id"], stored)
        encoded = encode_entry(entry, self._compression)
        new = renewed(encoded.body) if is_renewed(body) else encoded.body
        for tag in entry.tags:
            names.store(tag)
        end = (entry.version,) if expires is None else (entry.version, expires)
        of_names = (form.namespace, entry.id, entry.category, entry.key, entry.entity_type, entry.entity_id)
        checksum = tables.row_checksum((row["row"], *of_names, row["instant"], *end), new, encoded.packed)
        return {"body": new.decode(), "packed": encoded.packed, "created": encoded.created, "checksum": checksum}

    # --- statements ------------------------------------------------------------------------------

    def _pages(self, table: str, number: int) -> Iterator[list[Row]]:
        with self._raw.cursor("jarvis_rewriting", row_factory=dict_row) as cursor:
            cursor.execute(f"SELECT * FROM {self._schema}.{table} WHERE namespace = %s", (number,))
            while page := cursor.fetchmany(_AT_ONCE):
                yield page

    def _copy(self, table: str, rows: list[Row]) -> None:
        if not rows:
            return
        into = f"COPY {self._schema}.{table} ({', '.join(rows[0])}) FROM STDIN"
        with self._raw.cursor() as cursor, cursor.copy(into) as copy:
            for row in rows:
                copy.write_row((*row.values(),))

    def _count(self, table: str) -> int:
        ((count,),) = self._all(f"SELECT count(*) FROM {{schema}}.{table}")
        return int(count)

    def _all(self, statement: str, *values: object) -> list[Any]:
        return self._raw.execute(statement.replace("{schema}", self._schema), values).fetchall()

    def _run(self, statement: str, *values: object) -> int:
        return self._raw.execute(statement.replace("{schema}", self._schema), values).rowcount


class _Names:
    """The names of one namespace, by their numbers: as they were, and as they are to be stored."""

    def __init__(self, form: Rewording, old: dict[int, str]) -> None:
        self._form, self.old = form, old
        self.stored: dict[int, str] = {}
        self._numbers: dict[tuple[str, int], int] = {}
        self.store(form.namespace)

    def again(self, kind: str, number: int) -> int:
        """Return the number of a name of this kind, and have it stored."""
        known = self._numbers.get((kind, number))
        if known is None:
            known = self._numbers[kind, number] = self.store(self._form.text(kind, self.old[number]))
        return known

    def store(self, name: str) -> int:
        """Have a name stored; return its number."""
        number = number_of(name)
        self.stored[number] = name
        return number


def scrub(raw: Raw, path: str, schema: str, patience_seconds: float) -> None:
    """Remove what was deleted from the tables' files, and the statistics that the server has made of it.

    Raises:
        StoreBusyError: another transaction still sees what was deleted.
    """
    ((number,),) = raw.execute("SELECT CAST(pg_current_xact_id()::xid AS text)").fetchall()
    deadline = time.monotonic() + patience_seconds
    while raw.execute(_OLDER, (number,)).fetchall() != [(0,)]:
        if time.monotonic() >= deadline:
            raise StoreBusyError(
                path,
                "has its new form, but the former bytes are still in the server's files: a transaction in this "
                "database began before. Let it end, and call the verb again",
            )
        time.sleep(_PAUSE_SECONDS)
    for table in (*(each.name for each in registry.tables()), "keys"):
        name = f"{schema}.{table}"
        ((same_types,),) = raw.execute(_SAME_TYPES, (name,)).fetchall()
        if same_types is not None:
            raw.execute(f"ALTER TABLE {name} {same_types}")
        raw.execute(f"VACUUM (FULL, ANALYZE) {name}")
