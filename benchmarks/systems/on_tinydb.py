"""TinyDB (https://pypi.org/project/tinydb): documents in one JSON file, read whole and written whole.

It syncs each write and cannot be told not to, has no transactions and no limit, and answers a search that is
repeated from memory, if nothing was written in between. A write that is killed may leave half a file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tinydb import TinyDB, where

from benchmarks.corpus import Record
from benchmarks.systems.system import System, Touched


def open_in(directory: Path, *, durable: bool) -> OnTinyDB:
    """Return the store in `directory`, opened; `durable` changes nothing."""
    return OnTinyDB(TinyDB(directory / "tiny.json"))


class OnTinyDB(System):
    """A `tinydb.TinyDB` whose default table holds the memories."""

    def __init__(self, db: TinyDB) -> None:
        self.db = db

    @staticmethod
    def versions() -> dict[str, str]:
        return {"tinydb": version("tinydb"), "python": sys.version.split()[0]}

    def bulk(self, records: Iterable[Record]) -> list[Any]:
        return list(self.db.insert_multiple(map(_document, records)))

    def create(self, record: Record) -> Any:
        return self.db.insert(_document(record))

    def get(self, entry_id: Any) -> Touched:
        return _touched(self.db.get(doc_id=entry_id))

    def get_by_key(self, key: str) -> Touched:
        return _touched(max(self.db.search(where("key") == key), key=_age))

    def of_category(self, category: str, limit: int) -> list[Touched]:
        return self._search(where("category") == category, limit)

    def of_tag(self, tag: str, limit: int) -> list[Touched]:
        return self._search(where("tags").any([tag]), limit)

    def of_entity(self, entity_type: str, entity_id: str) -> list[Touched]:
        return self._search((where("entity_type") == entity_type) & (where("entity_id") == entity_id))

    def combined(self, category: str, entity_type: str, tag: str) -> list[Touched]:
        return self._search(
            (where("category") == category) & (where("entity_type") == entity_type) & where("tags").any([tag])
        )

    def longer_than(self, duration: int, category: str) -> list[Touched]:
        return self._search((where("category") == category) & (where("value")["duration"] > duration))

    def everything(self) -> list[Touched]:
        return [_touched(document) for document in sorted(self.db.all(), key=_age, reverse=True)]

    def _search(self, condition: Any, limit: int | None = None) -> list[Touched]:
        found = sorted(self.db.search(condition), key=_age, reverse=True)[:limit]
        return [_touched(document) for document in found]

    def update(self, entry_id: Any, value: dict[str, Any]) -> None:
        self.db.update(_change(value, "updater"), doc_ids=[entry_id])

    def delete(self, entry_id: Any) -> None:
        self.db.remove(doc_ids=[entry_id])

    def set_preference(self, key: str, value: dict[str, Any]) -> None:
        # What its own upsert does, but that one cannot keep the author of an existing document.
        is_it = (where("category") == "preferences") & (where("key") == key)
        if not self.db.update(_change(value, "preferences_manager"), is_it):
            author = ("preferences_manager", "none")
            self.create(Record("preferences", key, value, "user_preference", "", [], *author))

    def clear(self) -> int:
        number = len(self.db)
        self.db.truncate()
        return number

    def close(self) -> None:
        self.db.close()


def _document(record: Record) -> dict[str, Any]:
    document = record._asdict()
    document["timestamp"] = document["created_at"] = datetime.now(UTC).isoformat()
    return document


def _change(value: dict[str, Any], module: str) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat()
    return {"value": value, "timestamp": now, "updated_at": now, "updated_by": module}


def _age(document: Any) -> tuple[str, int]:
    return document["timestamp"], document.doc_id


def _touched(document: Any) -> Touched:
    several = len(document["tags"]) + len(document["module"]) + datetime.fromisoformat(document["timestamp"]).day
    return document["key"], len(document["value"]["text"]), several
