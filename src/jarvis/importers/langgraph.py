"""The kind ``langgraph``: the SQLite file of a `SqliteStore` of LangGraph.

Source: https://github.com/langchain-ai/langgraph/blob/main/libs/checkpoint-sqlite/langgraph/store/sqlite/base.py
(langgraph-checkpoint-sqlite 2 and 3): the table ``store`` with prefix (the namespace, its parts joined with dots), key,
value (JSON), created_at, updated_at and, since its third migration, expires_at; times are in UTC.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from jarvis.importers.source import Item, OtherKindError, Unmapped
from jarvis.importers.sqlite_file import columns_of, has, moment, opened

_COLUMNS = ("prefix", "key", "value", "created_at", "updated_at")


def looks_like(path: Path) -> bool:
    """Tell whether it is a SQLite file with a table ``store`` of LangGraph."""
    return has(path, "store", _COLUMNS)


def read(path: Path) -> Iterator[Item | Unmapped]:
    """Yield the items; the category is the namespace, and the key is the key."""
    now = datetime.now(UTC)
    with opened(path) as connection:
        columns = columns_of(connection, "store")
        if not set(_COLUMNS) <= columns:
            raise OtherKindError("it has no table 'store' of LangGraph")
        expires = "expires_at" if "expires_at" in columns else "NULL"
        rows = connection.execute(f"SELECT rowid, {', '.join(_COLUMNS)}, {expires} FROM store ORDER BY rowid")
        for row, prefix, key, value, created, changed, until in rows:
            place = f"{path.name}, row {row} of store"
            try:
                found = json.loads(value)
            except (TypeError, ValueError, RecursionError):
                yield Unmapped(place, "its value is no JSON")
                continue
            if not isinstance(found, dict):
                yield Unmapped(place, "its value is no object of JSON")
                continue
            expires_at = moment(until)
            if expires_at is not None and expires_at <= now:
                yield Unmapped(place, "has expired")
                continue
            yield Item(
                place=place,
                category=prefix,
                key=key,
                value=found,
                entity_type="item",
                expires_at=expires_at,
                created_at=moment(created),
                timestamp=moment(changed),
            )
        if columns_of(connection, "store_vectors"):
            ((count,),) = connection.execute("SELECT count(*) FROM store_vectors")
            if count:
                yield Unmapped(f"{path.name}, table store_vectors", f"its {count} vectors are no memories")
