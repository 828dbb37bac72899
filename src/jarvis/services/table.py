"""`Table`: the memories of one category as values by key, for whoever needs no more than that."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from jarvis.errors import InvalidEntryError
from jarvis.model.listing import Names
from jarvis.model.marks import ABSENT, NEVER
from jarvis.services.expiry import Lifetime

Value = dict[str, Any]


class Table:
    """The memories of one category, by key. They stay memories, with authors, a history and a place in the feed.

    Each verb is a call of `MemoryModule` or two, in one transaction; see there for what they raise. `acting_as` names
    the author. If other verbs give several memories one key, this shows the newest of them.

    >>> from jarvis.persistent_memory import MemoryModule
    >>> sessions = MemoryModule.in_memory().table("sessions")
    >>> sessions.put("alice", {"token": 1}, ttl=3600)
    >>> sessions.get("alice"), sessions.get("bob"), sessions.keys()
    ({'token': 1}, None, ['alice'])
    """

    def __init__(self, memory: Any, category: str) -> None:
        self._memory, self._category = memory, category  # a `MemoryModule`, which stands above this room

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._memory!r}, {self._category!r})"

    # --- reading ---------------------------------------------------------------------------------

    def get(self, key: str, default: Value | None = None) -> Value | None:
        """Return the value of a key, or `default`."""
        entry = self._memory.get_memory_by_key(key, self._category)
        return default if entry is None else entry.value

    def get_many(self, keys: Collection[str]) -> dict[str, Value]:
        """Return the values of these keys, at most 10,000, in their order; absent ones are left out."""
        found = {entry.key: entry.value for entry in reversed(self._search(keys=keys))}
        return {key: found[key] for key in keys if key in found}

    def keys(self, prefix: str | None = None, *, limit: int | None = None, after: str | None = None) -> Names:
        """Return the keys, in the order of code points; `prefix`, `limit` and `after` as for `list_categories`."""
        names: Names = self._memory.list_keys(
            self._category, prefix=prefix, limit=limit, after=after, include_archived=True
        )
        return names

    def items(
        self,
        prefix: str | None = None,
        *,
        where: Mapping[Any, Any] | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[tuple[str, Value]]:
        """Return keys and values in the order of keys; the arguments are those of `search_memories`."""
        entries = self._search(key_prefix=prefix, where=where, limit=limit, offset=offset, order="key")
        return [(entry.key, entry.value) for entry in entries]

    def count(self, prefix: str | None = None, *, where: Mapping[Any, Any] | None = None) -> int:
        """Return how many `items` there are."""
        return int(self._memory.count_memories(self._category, key_prefix=prefix, where=where, include_archived=True))

    # --- changing --------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        value: Value,
        *,
        tags: Collection[str] = (),
        entity_type: str = "",
        entity_id: str | None = None,
        ttl: Lifetime | None = None,
        expires_at: datetime | None = None,
    ) -> None:
        """Set all of a key: what is not given is empty, and without `ttl` and `expires_at` it never expires."""
        if ttl is None and expires_at is None:
            ttl = NEVER
        with self._memory.transaction():
            entry = self._memory.get_memory_by_key(key, self._category)
            if entry is not None and (entry.entity_type, entry.entity_id) != (entity_type, entity_id):
                about = ABSENT if entity_id is None else entity_id
                self._memory.move_memory(entry.id, entity_type=entity_type, entity_id=about)
            self._memory.upsert_memory(
                self._category, key, value, entity_type, entity_id, tags, ttl=ttl, expires_at=expires_at
            )

    def put_many(self, items: Mapping[str, Value], *, tags: Collection[str] = (), ttl: Lifetime | None = None) -> None:
        """Set all of several keys, as `put` does, all or none.

        Raises:
            InvalidEntryError: `items` is no dict of keys and values.
        """
        if not isinstance(items, Mapping):
            raise InvalidEntryError("items", f"takes a dict of keys and values, not {type(items).__name__}")
        with self._memory.transaction():
            for key, value in items.items():
                self.put(key, value, tags=tags, ttl=ttl)

    def put_if_absent(
        self,
        key: str,
        value: Value,
        *,
        tags: Collection[str] = (),
        entity_type: str = "",
        entity_id: str | None = None,
        ttl: Lifetime | None = None,
        expires_at: datetime | None = None,
    ) -> bool:
        """Set a key as `put` does if it is absent; return whether it was. Atomic."""
        with self._memory.transaction():
            if self._memory.get_memory_by_key(key, self._category) is not None:
                return False
            self._memory.create_memory(
                self._category, key, value, entity_type, entity_id, tags, ttl=ttl, expires_at=expires_at
            )
            return True

    def delete(self, key: str) -> bool:
        """Delete a key; return whether it was there."""
        return self.delete_many([key]) > 0

    def delete_many(self, keys: Collection[str]) -> int:
        """Delete these keys, all or none; return how many were there."""
        return int(self._memory.delete_memories(self._category, keys=keys, include_archived=True).count)

    def pop(self, key: str, default: Value | None = None) -> Value | None:
        """Delete a key and return its value, or `default`. Atomic: of any number of callers, one gets it."""
        entry = self._memory.pop_memory(self._category, key=key, include_archived=True)
        return default if entry is None else entry.value

    def clear(self, history: bool = False) -> int:
        """Delete every key, all or none; return how many there were. With ``history=True`` erase their past as well."""
        if history:
            return int(self._memory.erase_memories(self._category).memories)
        return int(self._memory.delete_memories(self._category, include_archived=True).count)

    # --- inside ----------------------------------------------------------------------------------

    def _search(self, **filters: Any) -> list[Any]:
        entries: list[Any] = self._memory.search_memories(self._category, include_archived=True, **filters)
        return entries
