"""Many memories in one change: the items that a caller gives, a deletion of many, and undoing a change of many."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from jarvis._calls.arguments import own_code, plain_text, tag_list
from jarvis.backend_registry import ask
from jarvis.capabilities import Expires, FeedsChanges, KeepsHistory
from jarvis.errors import InvalidEntryError, InvalidQueryError, RevisionNotFoundError
from jarvis.model.author import Author
from jarvis.model.change import Change, Deleted, position_of
from jarvis.model.dating import times_of_import
from jarvis.model.entry import MemoryEntry
from jarvis.model.query import MemoryQuery
from jarvis.services import timeline
from jarvis.services.bounds import Bounds
from jarvis.services.changing import sign
from jarvis.services.expiry import Expiry, moment_of_expiry
from jarvis.services.watching import Feed
from jarvis.storage_backend import StorageBackend

_NAMES = (
    "category",
    "key",
    "value",
    "entity_type",
    "entity_id",
    "tags",
    "ttl",
    "expires_at",
    "sliding",
    "timestamp",
    "created_at",
)
_PAGE = 256


class Item(NamedTuple):
    """One item, read: the arguments of `MemoryModule.create_memory`."""

    category: str
    key: str
    value: dict[str, Any]
    entity_type: str
    entity_id: str | None
    tags: list[str] | None
    expires_at: Expiry | None
    times: tuple[datetime | None, datetime] | None


def items_of(
    items: Iterable[Mapping[str, Any]], needed: tuple[str, ...], backend: StorageBackend, now: datetime
) -> list[Item]:
    """Return the items that a caller gives, their values prepared.

    Raises:
        InvalidEntryError: an item is no mapping of these arguments, or a value cannot be stored; the error names its
            position, counted from 0.
        UnsupportedError: an item expires, and the backend has no expiry.
    """
    kind = type(items)
    if issubclass(kind, (str, bytes, Mapping)) or not issubclass(kind, Iterable):
        raise InvalidEntryError("items", f"takes a list of dicts, not {kind.__name__}")
    with own_code(InvalidEntryError, "items"):
        given = list(items)
    read = []
    for position, item in enumerate(given):
        try:
            read.append(_item(item, needed, backend, now))
        except InvalidEntryError as error:
            raise error.of_item(position) from None
    return read


def _item(item: Mapping[str, Any], needed: tuple[str, ...], backend: StorageBackend, now: datetime) -> Item:
    if type(item) is not dict:
        if not issubclass(type(item), Mapping):
            raise InvalidEntryError("item", f"takes a dict, not {type(item).__name__}")
        with own_code(InvalidEntryError, "item"):
            item = dict(item)
    known = {name: item[name] for name in _NAMES if name in item}
    if len(known) < len(item):
        raise InvalidEntryError("item", f"has another name than {', '.join(_NAMES)}")
    for name in needed:
        if name not in known:
            raise InvalidEntryError(name, "is missing")
    get = known.get
    expires_at, times, tags = None, None, get("tags")
    if "ttl" in known or "expires_at" in known or "sliding" in known:
        expires_at = moment_of_expiry(now, get("ttl"), get("expires_at"), get("sliding", False))
        if expires_at is not None:
            ask(backend, Expires)
    if "timestamp" in known or "created_at" in known:
        times = times_of_import(get("timestamp"), get("created_at"), now)
    return Item(
        known["category"],
        known["key"],
        backend.prepare(known["value"]),
        get("entity_type", ""),
        get("entity_id"),
        None if tags is None else tag_list(tags),
        expires_at,
        times,
    )


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Let the garbage collector wait during a block: it would scan new entries again and again, and free nothing."""
    is_on = gc.isenabled()
    try:
        gc.disable()
        yield
    finally:
        if is_on:
            gc.enable()


def ids_of(ids: Collection[str]) -> list[str]:
    """Return the ids that a caller gives; raise `InvalidQueryError` if they are no list of texts."""
    with own_code(InvalidQueryError, "ids"):
        is_list = issubclass(type(ids), Collection) and not issubclass(type(ids), (str, bytes, Mapping))
        texts = [plain_text(text) for text in ids] if is_list else [None]
    if None in texts:
        raise InvalidQueryError("ids: takes a list of str")
    return [text for text in texts if text is not None]


def delete(backend: StorageBackend, which: list[str] | MemoryQuery, author: Author) -> Deleted:
    """Delete the entries with these ids, or that match a query, inside the caller's change."""
    ids = which if isinstance(which, list) else [entry.id for entry in backend.iterate(which)]
    sign(backend, author, "delete")
    count = sum(map(backend.discard, ids))
    if not count or not backend.has_capability(FeedsChanges):
        return Deleted(count, None)
    return Deleted(count, Feed(backend).cursor_of(backend.capability(FeedsChanges).own_position()))


def undo(
    backend: StorageBackend,
    cursor: str,
    author: Author,
    bounds: Bounds,
    change: Callable[[Callable[[datetime], int]], int],
) -> int:
    """Undo the change at a cursor, and what was changed with it; return how many entries got an earlier state.

    Raises:
        RevisionNotFoundError: the change is not known any more, or one of its entries was changed since.
    """
    ask(backend, KeepsHistory)
    feed, position = ask(backend, FeedsChanges), position_of(cursor)

    def work(moment: datetime) -> int:
        changes = _made_at_once(feed, cursor, position)
        steps: dict[str, list[Change]] = {}
        for each in changes:
            if each.memory_id is not None:
                steps.setdefault(each.memory_id, []).append(each)
        stored: list[MemoryEntry] = []
        for entry_id, made in steps.items():
            if not timeline.ends_with(backend, entry_id, made[-1]):
                raise RevisionNotFoundError("a memory was changed after that change; undo the later change first")
            stored += timeline.take_back(backend, entry_id, len(made), author, bounds, moment) or ()
        bounds.keep(backend, stored, author)  # at the end, for it might delete what is still to be undone
        return len(steps)

    Feed(backend).since(cursor, 1)  # raises if it is a cursor of another store
    return change(work)


def _made_at_once(feed: FeedsChanges, cursor: str, position: int) -> list[Change]:
    """Return the changes that have moment, operation and author of the one at a position, in their order."""

    def changes(after: int) -> list[Change]:
        return [each for each in feed.changes(after, position - after) if position_of(each.cursor) <= position]

    span, first = _PAGE, feed.first_position()
    while True:
        after = max(position - span, first)
        found = changes(after)
        if not found or position_of(found[-1].cursor) != position:
            raise RevisionNotFoundError(f"there is no change of this namespace at the cursor {cursor}")
        last = found[-1]
        one = [each for each in found if _made(each) == _made(last)]
        if after == first or len(one) < len(found):
            return one
        span *= 4


def _made(change: Change) -> tuple[object, ...]:
    return change.timestamp, change.operation, change.module, change.task_id, change.reason
