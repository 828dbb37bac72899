"""What a system must be able to do to be compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

from benchmarks.corpus import Record

Touched = tuple[str, int, int]
"""What is read of a returned entry, inside the clock: key, length of the text in its value, tags plus authors."""


class System(ABC):
    """One way to keep memories. Lists are newest first and each entry is touched (see `Touched`)."""

    exact_order: ClassVar[bool] = True
    """Whether "newest first" also holds among entries of one second; if not, any order of them is right."""

    @staticmethod
    @abstractmethod
    def versions() -> dict[str, str]:
        """Return the versions of what does the work."""

    @abstractmethod
    def bulk(self, records: Iterable[Record]) -> list[Any]:
        """Store all in one transaction, or whatever comes closest; return their ids."""

    @abstractmethod
    def create(self, record: Record) -> Any:
        """Store one; it is as durable as the system was opened when this returns. Return its id."""

    @abstractmethod
    def get(self, entry_id: Any) -> Touched:
        """Return the entry with this id."""

    @abstractmethod
    def get_by_key(self, key: str) -> Touched:
        """Return the newest entry with this key."""

    @abstractmethod
    def of_category(self, category: str, limit: int) -> list[Touched]:
        """Return the newest entries of a category."""

    @abstractmethod
    def of_tag(self, tag: str, limit: int) -> list[Touched]:
        """Return the newest entries with a tag."""

    @abstractmethod
    def of_entity(self, entity_type: str, entity_id: str) -> list[Touched]:
        """Return all entries about one entity."""

    @abstractmethod
    def combined(self, category: str, entity_type: str, tag: str) -> list[Touched]:
        """Return all entries of a category and an entity type with a tag."""

    @abstractmethod
    def longer_than(self, duration: int, category: str) -> list[Touched]:
        """Return all entries of a category whose value has a greater ``duration``, which has no index."""

    @abstractmethod
    def everything(self) -> list[Touched]:
        """Return all entries."""

    @abstractmethod
    def update(self, entry_id: Any, value: dict[str, Any]) -> None:
        """Replace the value of an entry, and note when and by whom."""

    @abstractmethod
    def delete(self, entry_id: Any) -> None:
        """Remove an entry."""

    @abstractmethod
    def set_preference(self, key: str, value: dict[str, Any]) -> None:
        """Create the preference or replace its value, atomically where the system can."""

    @abstractmethod
    def clear(self) -> int:
        """Remove all entries; return how many there were."""

    @abstractmethod
    def close(self) -> None:
        """Let go of all files."""
