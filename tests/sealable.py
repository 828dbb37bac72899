"""Backends of files whose stores can be sealed: their keys lie in memory, for all handles on one path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from jarvis.json_backend import JSONBackend
from jarvis.sqlite_backend import SQLiteBackend

if TYPE_CHECKING:
    from jarvis.model.key_place import Sealing


class Place:
    """The keys of one store."""

    places: ClassVar[dict[str, bytes]] = {}

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def seal_with(self, sealing: Sealing) -> None:
        """Make the keys if there are none."""
        made = None if self.path in self.places else sealing.new_keys()
        if made is not None:
            self.places[self.path] = made

    def read(self) -> bytes | None:
        """Return the keys."""
        return self.places.get(self.path)

    def replace(self, old: bytes, new: bytes) -> bool:
        """Replace the keys."""
        if self.places.get(self.path) != old:
            return False
        self.places[self.path] = new
        return True


class SealableSQLite(SQLiteBackend):
    """A SQLite store that can be sealed."""

    @property
    def key_place(self) -> Place:
        """The place of its keys."""
        return Place(self.db_path)


class SealableJSON(JSONBackend):
    """A JSON store that can be sealed."""

    @property
    def key_place(self) -> Place:
        """The place of its keys."""
        return Place(self.file_path)
