"""How people and agents name a memory: by its id, by the beginning of one, or by ``category/key``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from jarvis.capabilities import FeedsChanges
from jarvis.errors import AmbiguousError, EntryNotFoundError, InvalidQueryError, nearest
from jarvis.model.change import Change
from jarvis.model.entry import MemoryEntry
from jarvis.persistent_memory import MemoryModule

_LEAST_SIGNS = 4
"""A shorter beginning of an id is none: a slip of one key must not name a memory."""
_MOST_SHOWN = 5
_MOST_KEYS = 2_000
"""The most keys that are compared with a misspelt one."""
_MOST_CHANGES = 20_000
"""The most changes, counted from the last, that are searched for a deleted memory."""


def found(memory: MemoryModule, address: str, *, as_of: datetime | None = None) -> MemoryEntry:
    """Return the memory that an address names.

    An id comes before ``category/key``, and that before the beginning of an id.

    Raises:
        EntryNotFoundError: it names none; the message has the nearest key, if there is one.
        AmbiguousError: it names several.
        InvalidQueryError: it is empty.
    """
    if not address:
        raise InvalidQueryError("an address is an id, the beginning of one, or category/key; this one is empty")
    entry = memory.get_memory(address, as_of=as_of)
    if entry is not None:
        return entry
    entries = [
        each
        for category, key in names_in(address)
        for each in memory.search_memories(category, key=key, limit=_MOST_SHOWN + 1, as_of=as_of, include_archived=True)
    ]
    if not entries and len(address) >= _LEAST_SIGNS:
        ids = memory.list_ids(prefix=address, limit=_MOST_SHOWN + 1, as_of=as_of, include_archived=True)
        entries = memory.get_memories(ids, as_of=as_of)
    if len(entries) > 1:
        raise AmbiguousError([each.id for each in entries[:_MOST_SHOWN]], len(entries), address)
    if not entries:
        raise EntryNotFoundError(f"no memory is named {address!r}{_nearest(memory, address)}")
    return entries[0]


def id_of(memory: MemoryModule, address: str) -> str:
    """Return the id of the memory that an address names, or that it named before that memory was deleted.

    Raises:
        EntryNotFoundError, AmbiguousError, InvalidQueryError: as `found`.
    """
    try:
        return found(memory, address).id
    except EntryNotFoundError:
        if memory.backend.has_capability(FeedsChanges):
            for change in memory.recent_changes(limit=_MOST_CHANGES):
                if change.memory_id is not None and _is_named(change, address):
                    return change.memory_id
        raise


def names_in(address: str) -> Iterator[tuple[str, str]]:
    """Yield each (category, key) that an address may mean: both may hold a slash."""
    for place, sign in enumerate(address):
        if sign == "/" and place > 0:
            yield address[:place], address[place + 1 :]


def split(address: str) -> tuple[str, str]:
    """Return the category and the key of a new memory; the category ends at the first slash.

    Raises:
        InvalidQueryError: there is no slash, or nothing before or behind it.
    """
    category, slash, key = address.partition("/")
    if not (category and slash and key):
        raise InvalidQueryError(f"a memory is named category/key, such as notes/idea, not {address!r}")
    return category, key


def _is_named(change: Change, address: str) -> bool:
    memory_id = change.memory_id or ""
    is_beginning = len(address) >= _LEAST_SIGNS and memory_id.startswith(address)
    return address in (memory_id, f"{change.category}/{change.key}") or is_beginning


def _nearest(memory: MemoryModule, address: str) -> str:
    known = [
        f"{category}/{name}"
        for category, _ in names_in(address)
        for name in memory.list_keys(category, limit=_MOST_KEYS)
    ]
    if not known and "/" in address:
        known = [f"{name}/" for name in memory.list_categories(limit=_MOST_KEYS)]
        address = address.partition("/")[0] + "/"
    return nearest(address, known)
