"""`MemoryEntry`, one memory, and the checks of what may be stored."""

from __future__ import annotations

import copy
from collections.abc import MutableMapping, MutableSequence, MutableSet
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

from jarvis._calls.arguments import own_code, plain_moment
from jarvis.codec import InvalidMomentError, Prepared, check_extent, flatten, instant_of
from jarvis.codec.instants import datetime_of, nearest_instant
from jarvis.codec.json_form import json_form
from jarvis.codec.values import MAX_VALUE_BYTES, NO_STACK, why_refused
from jarvis.errors import InvalidEntryError
from jarvis.model.former import former_names
from jarvis.model.place import cursor_of

DEFAULT_NAMESPACE = "default"
NO_MODULE, NO_TASK = "unknown", "none"
"""In the provenance of an entry: the module and the task of an author who is not known."""

MOST_VERSIONS = 2**63
"""The limit of counts in a store, and of numbers in messages: Python refuses to print very long ones."""

MAX_NAME_BYTES = 2_000
"""Longest id, namespace, category, key, tag, entity type or entity id, in UTF-8 bytes. Every backend can index it."""

LONG_SEALED, _MAX_SEALED_BYTES = "\x01", 2_536
"""What a sealed name begins with that is longer than `MAX_NAME_BYTES`, and how long such a name may be.

That is the length of a sealed name of `MAX_NAME_BYTES`; an index of PostgreSQL takes 2,704 bytes.
"""

__getattr__ = former_names(__name__, "jarvis.model.query")  # where what is asked stood here, too

_UNCHANGEABLE = frozenset((str, int, float, bool, type(None)))
_CHANGEABLE = (MutableMapping, MutableSequence, MutableSet, tuple)


class MemoryEntry(msgspec.Struct, eq=False):
    """One memory. A copy that the caller owns: changing it changes nothing stored.

    Two entries are equal when all that a caller can set is equal; `position` does not count.

    Attributes:
        id: unique within a namespace; a UUID when the module made it.
        category: ``preferences``, ``tasks``, ``devices``, ``tools``, or any other.
        key: semantic key for lookup; need not be unique.
        value: the data: a dict with str keys of anything that `jarvis.codec` can keep exactly.
        tags: for retrieval; order and repetitions are kept.
        entity_type: what the memory is about: ``task``, ``tool``, ``device``, ``user_preference``, …
        entity_id: which one of them, or None.
        timestamp: when it was created or last updated; aware UTC when the module made it.
        provenance: who made it and when: module, task_id, created_at, updated_by, updated_at.
        version: 1 at creation, one more at each update; set by the backend.
        position: its place in the order of changes, (instant in microseconds since 1970 UTC, commit number); set
            by the backend, None before an entry was stored.
        expires_at: from this instant on it is absent; None for never. Aware; comes back in UTC.
        ttl: how long it was to live when it got that expiry; None if it was given a moment, or none.
        sliding: reads by id or key let the ttl begin again.

    >>> from jarvis.model.entry import MemoryEntry
    >>> entry = MemoryEntry(id="1", category="preferences", key="theme", value={"mode": "dark"})
    >>> entry.value["mode"], entry.tags, entry.version
    ('dark', [], 1)
    """

    id: str
    category: str
    key: str
    value: dict[str, Any]
    tags: list[str] = []
    entity_type: str = ""
    entity_id: str | None = None
    timestamp: datetime = msgspec.field(default_factory=lambda: datetime.now().astimezone())
    provenance: dict[str, str] = {}
    version: int = 1
    position: tuple[int, int] | None = None
    expires_at: datetime | None = None
    ttl: timedelta | None = None
    sliding: bool = False

    @property
    def order(self) -> tuple[int, int, str]:
        """The sort key of lists, the greatest first: (instant, commit number, id)."""
        instant, commit = self.position or (nearest_instant(self.timestamp), 0)
        return instant, commit, self.id

    @property
    def created_at(self) -> datetime:
        """The moment of creation, from the provenance; the timestamp if that tells none."""
        return moment_in(self.provenance, "created_at") or self.timestamp

    @property
    def updated_at(self) -> datetime:
        """The moment of the last update, from the provenance; that of creation if it was never updated."""
        return moment_in(self.provenance, "updated_at") or self.created_at

    @property
    def creation(self) -> int:
        """The instant of `created_at`, by which the order ``created`` sorts."""
        created = self.created_at
        return self.order[0] if created == self.timestamp else nearest_instant(created)

    @property
    def cursor(self) -> str:
        """The place of this entry in every list and order, as text: `after=` takes it, also in another process.

        It holds the id and the key.
        """
        return cursor_of(self)

    def model_dump(self, *, mode: Literal["python", "json"] = "python") -> dict[str, Any]:
        """Return the nine fields, the version, expiry and ttl as a dict, which shares nothing with the entry.

        With ``mode="json"`` it holds only what JSON can, in the forms that `jarvis.codec.json_form` lists.

        Raises:
            InvalidEntryError: the entry was not stored, and a field is nested too deep or explodes; or two keys of
                a dict would be one in JSON.

        >>> from jarvis.model.entry import MemoryEntry
        >>> MemoryEntry("1", "tools", "ls", {}).model_dump()["category"]
        'tools'
        """
        make = json_form if mode == "json" else copied
        try:
            with own_code(InvalidEntryError, "entry"):
                for name in self.__struct_fields__:
                    check_extent(getattr(self, name), field=name)
                return {name: make(getattr(self, name)) for name in self.__struct_fields__ if name != "position"}
        except RecursionError:
            raise InvalidEntryError("value", NO_STACK) from None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MemoryEntry):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__struct_fields__ if name != "position")

    def __ne__(self, other: object) -> bool:
        is_equal = self.__eq__(other)  # `msgspec.Struct` compares by identity here
        return is_equal if is_equal is NotImplemented else not is_equal

    __hash__ = None  # type: ignore[assignment]  # mutable, so not hashable, like a list


def moment_in(provenance: dict[str, str], name: str) -> datetime | None:
    """Return the moment that a text of a provenance tells, or None. Without a time zone it is in UTC."""
    try:
        moment = datetime.fromisoformat(provenance[name])
    except (KeyError, TypeError, ValueError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def copied(value: Any) -> Any:
    """Return a copy of `value` that shares nothing that can be changed."""
    kind = type(value)
    if kind in _UNCHANGEABLE:
        return value
    if kind is dict:
        return {key: copied(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return kind(map(copied, value))
    if kind is set:
        return set(value)  # its members are hashable, and so do not change
    if issubclass(kind, _CHANGEABLE):  # only in an entry that was not stored
        return copy.deepcopy(value)
    return value


def check_name(field: str, name: object) -> str:
    """Return `name` if it can be looked up on every backend.

    Raises:
        InvalidEntryError: it is no str, holds a NUL or a lone surrogate, or is over `MAX_NAME_BYTES`.
    """
    if type(name) is str and name.isascii() and len(name) <= MAX_NAME_BYTES and "\0" not in name:
        return name  # as most are
    text = check_text(field, name)
    size = len(text) if text.isascii() else len(text.encode())
    if size > MAX_NAME_BYTES and not (size <= _MAX_SEALED_BYTES and text.startswith(LONG_SEALED)):
        raise InvalidEntryError(field, f"is {size:,} bytes long, the limit is {MAX_NAME_BYTES:,}")
    if "\0" in text:
        raise InvalidEntryError(field, "holds a NUL character, which cannot be looked up everywhere")
    return text


def check_namespace(name: object) -> str:
    """Return `name` if it can be a namespace: it passes `check_name` and is not empty."""
    text = check_name("namespace", name)
    if not text:
        raise InvalidEntryError("namespace", "is empty")
    return text


def check_entry(entry: MemoryEntry) -> None:
    """Check every field; `jarvis.codec` checks the inside of `value`.

    Raises:
        InvalidEntryError: a field has the wrong type or cannot be stored; the error names it.
    """
    if not isinstance(entry, MemoryEntry):
        raise InvalidEntryError("entry", f"takes a MemoryEntry, not {type(entry).__name__}")
    if type(entry.tags) is not list or type(entry.provenance) is not dict or not _are_plain(entry):
        _check_each(entry)
    if not entry.id:
        raise InvalidEntryError("id", "is empty")
    if type(entry.value) is not dict and type(entry.value) is not Prepared:
        check_value(entry.value)
    if type(entry.timestamp) is not datetime:
        raise InvalidEntryError("timestamp", f"takes a datetime, not {type(entry.timestamp).__name__}")
    if entry.expires_at is not None:
        check_expiry(entry.expires_at)
    if entry.ttl is not None or entry.sliding is not False:
        _check_ttl(entry.ttl, entry.expires_at)
        if type(entry.sliding) is not bool:
            raise InvalidEntryError("sliding", f"takes True or False, not {type(entry.sliding).__name__}")


def _check_ttl(ttl: object, expires_at: datetime | None) -> None:
    if type(ttl) is not timedelta:
        raise InvalidEntryError("ttl", f"takes a timedelta, not {type(ttl).__name__}")
    if ttl <= timedelta(0):
        raise InvalidEntryError("ttl", "must be above 0")
    if expires_at is None:
        raise InvalidEntryError("ttl", "is for an entry that expires; give it expires_at, too")


def check_value(value: object) -> None:
    """Check that `value` is a dict; raise `InvalidEntryError` otherwise."""
    kind = type(value)
    if kind is dict:
        return
    try:
        flatten({"value": value})
    except InvalidEntryError as error:
        if error.field == "value.value":  # inside a dict it would be refused as well
            raise InvalidEntryError("value", f"takes a dict, not {why_refused(kind)}") from None
    raise InvalidEntryError("value", f'takes a dict, not {kind.__name__}; wrap it, such as {{"value": …}}')


def check_expiry(given: object) -> int:
    """Return the instant of an expiry; raise `InvalidEntryError` if it is no moment, or has no time zone."""
    moment = plain_moment(given)
    if moment is None:
        raise InvalidEntryError("expires_at", f"takes a datetime, not {type(given).__name__}")
    if moment.tzinfo is None:
        raise InvalidEntryError("expires_at", "takes an aware datetime; give it a time zone, such as datetime.UTC")
    try:
        instant = instant_of(moment)
    except InvalidMomentError as error:
        raise InvalidEntryError("expires_at", str(error)) from None
    if datetime_of(instant) != moment:
        raise InvalidEntryError("expires_at", OUTSIDE)
    return instant


OUTSIDE = "lies outside of the calendar in UTC; None keeps it for ever"
_ONLY_TEXT = {str}


def _are_plain(entry: MemoryEntry) -> bool:
    """Tell whether all names and texts are short ASCII, so that `_check_each` would find nothing wrong."""
    names = [entry.id, entry.category, entry.key, entry.entity_type, *entry.tags]
    if entry.entity_id is not None:
        names.append(entry.entity_id)
    texts = [*names, *entry.provenance, *entry.provenance.values()]
    if set(map(type, texts)) != _ONLY_TEXT:
        return False
    if sum(map(len, texts)) > MAX_NAME_BYTES:  # before they are joined: a long one may repeat any number of times
        return False
    return "\0" not in "".join(names) and "".join(texts).isascii()


def _check_each(entry: MemoryEntry) -> None:
    check_name("id", entry.id)
    check_name("category", entry.category)
    check_name("key", entry.key)
    check_name("entity_type", entry.entity_type)
    if entry.entity_id is not None:
        check_name("entity_id", entry.entity_id)
    if type(entry.tags) is not list:
        raise InvalidEntryError("tags", f"takes a list of str, not {type(entry.tags).__name__}")
    size = 0
    for index, tag in enumerate(entry.tags):
        size = _sum_up("tags", size, check_name(f"tags[{index}]", tag))
    if type(entry.provenance) is not dict:
        raise InvalidEntryError("provenance", f"takes a dict of str, not {type(entry.provenance).__name__}")
    size = 0
    for name, text in entry.provenance.items():
        size = _sum_up("provenance", size, check_text("provenance", name), check_text("provenance", text))


def _sum_up(field: str, size: int, *texts: str) -> int:
    """Return `size` plus the lengths of `texts`; raise `InvalidEntryError` if no entry could hold that much."""
    size += sum(map(len, texts))
    if size > MAX_VALUE_BYTES:
        raise InvalidEntryError(field, f"takes at most {MAX_VALUE_BYTES:,} bytes in all")
    return size


def check_text(field: str, text: object) -> str:
    """Return `text` if UTF-8 can hold it; raise `InvalidEntryError` naming `field` otherwise."""
    if type(text) is not str:
        raise InvalidEntryError(field, f"takes a str, not {type(text).__name__}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidEntryError(field, "holds a lone surrogate, which UTF-8 cannot hold") from None
    return text
