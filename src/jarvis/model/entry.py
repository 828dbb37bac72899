"""`MemoryEntry`, one memory, and `MemoryQuery`, a question about memories; and the checks of both."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, MutableMapping, MutableSequence, MutableSet
from datetime import datetime
from typing import Any, Literal

import msgspec

from jarvis._calls.arguments import is_no_list, own_code, plain_moment, plain_text
from jarvis.codec import InvalidMomentError, Prepared, check_extent, flatten, instant_of
from jarvis.codec.instants import datetime_of, nearest_instant
from jarvis.codec.json_form import json_form
from jarvis.codec.values import MAX_VALUE_BYTES, NO_STACK, why_refused
from jarvis.errors import InvalidEntryError, InvalidQueryError
from jarvis.model.value_filter import Test, check_where, compile_where

DEFAULT_NAMESPACE = "default"
NO_MODULE, NO_TASK = "unknown", "none"
"""In the provenance of an entry: the module and the task of an author who is not known."""

MOST_VERSIONS = 2**63
"""The limit of counts in a store, and of numbers in messages: Python refuses to print very long ones."""

MAX_NAME_BYTES = 2_000
"""Longest id, namespace, category, key, tag, entity type or entity id, in UTF-8 bytes. Every backend can index it."""

MAX_TAGS = 500
"""The most tags that a query may name."""

EXACT = ("category", "key", "entity_type", "entity_id")
"""The filters of a query that compare one field whole. Notes of pruned and expired entries have these fields."""

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
        position: where lists place it, (instant in microseconds since 1970 UTC, commit number); set
            by the backend, None before an entry was stored.
        expires_at: from this instant on it is absent; None for never. Aware; comes back in UTC.

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

    @property
    def order(self) -> tuple[int, int, str]:
        """The sort key of lists, the greatest first: (instant, commit number, id)."""
        instant, commit = self.position or (nearest_instant(self.timestamp), 0)
        return instant, commit, self.id

    @property
    def cursor(self) -> str:
        """The place of this entry in every list, as text: `after=` takes it, also in another process."""
        instant, commit, entry_id = self.order
        return f"{instant}:{commit}:{entry_id}"

    def model_dump(self, *, mode: Literal["python", "json"] = "python") -> dict[str, Any]:
        """Return the nine fields, the version and the expiry as a dict, which shares nothing with the entry.

        With ``mode="json"`` it holds only what JSON can, in the forms that `jarvis.codec.json_form` lists.

        Raises:
            InvalidEntryError: the entry was not stored, and a field is nested too deep or explodes; or two keys of
                a dict would be one in JSON.

        >>> from jarvis.model.entry import MemoryEntry
        >>> MemoryEntry("1", "tools", "ls", {}).model_dump()["category"]
        'tools'
        """
        make = json_form if mode == "json" else _copied
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

    __hash__ = None  # type: ignore[assignment]  # mutable, so not hashable, like a list


def _copied(value: Any) -> Any:
    kind = type(value)
    if kind in _UNCHANGEABLE:
        return value
    if kind is dict:
        return {key: _copied(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return kind(map(_copied, value))
    if kind is set:
        return set(value)  # its members are hashable, and so do not change
    if issubclass(kind, _CHANGEABLE):  # only in an entry that was not stored
        return copy.deepcopy(value)
    return value


class MemoryQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A question, as a value. `matches` is its meaning; a backend may be faster, never different.

    A filter left at None is no filter; ``""`` and ``[]`` are values. `exclude_tags`: the entry has none of these tags;
    ``[]`` excludes nothing. `jarvis.persistent_memory.MemoryModule.search_memories` explains the other filters.

    >>> from jarvis.model.entry import MemoryEntry
    >>> from jarvis.model.entry import MemoryQuery
    >>> query = MemoryQuery(category="tasks", where={"status": "failed"})
    >>> query.matches(MemoryEntry("1", "tasks", "task_1", {"status": "failed"}))
    True

    Raises:
        InvalidQueryError: at construction, when a filter means nothing.
    """

    category: str | None = None
    tags: Collection[str] | None = None
    entity_type: str | None = None
    entity_id: str | None = None
    key: str | None = None
    tags_match: Literal["any", "all"] = "any"
    since: datetime | None = None
    until: datetime | None = None
    where: Mapping[Any, Any] | None = None
    limit: int | None = None
    after: MemoryEntry | str | None = None
    exclude_tags: Collection[str] | None = None

    def __post_init__(self) -> None:
        for name in EXACT:
            text = getattr(self, name)
            if text is not None and _check_filter(name, text) is not text:
                msgspec.structs.force_setattr(self, name, plain_text(text))
        if self.tags is not None:
            msgspec.structs.force_setattr(self, "tags", _asked_tags("tags", self.tags))
        if self.exclude_tags is not None:
            msgspec.structs.force_setattr(self, "exclude_tags", _asked_tags("exclude_tags", self.exclude_tags))
        if type(self.tags_match) is not str:
            msgspec.structs.force_setattr(self, "tags_match", plain_text(self.tags_match))
        if self.tags_match not in ("any", "all"):
            raise InvalidQueryError('tags_match: takes "any" or "all"')
        if self.limit is not None and (type(self.limit) is not int or not 0 <= self.limit < MOST_VERSIONS):
            raise InvalidQueryError("limit: takes a whole number from 0 up, or None for all")
        if type(self.where) is dict:
            try:
                with own_code(InvalidQueryError, "where"):
                    check_where(self.where)
                msgspec.structs.force_setattr(self, "where", _copied(self.where))
            except RecursionError:
                raise InvalidQueryError(f"where: {NO_STACK}") from None
        if self.since is not None or self.until is not None or self.where is not None or self.after is not None:
            with own_code(InvalidQueryError, "filter"):
                _ = self.instants, self.test, self.position  # each raises if its filter means nothing

    @property
    def instants(self) -> tuple[int | None, int | None]:
        """`since` (inclusive) and `until` (exclusive), in microseconds since 1970 UTC."""
        return asked_instant("since", self.since), asked_instant("until", self.until)

    @property
    def test(self) -> Test | None:
        """`where` as a function of a value, or None."""
        return None if self.where is None else compile_where(self.where)

    @property
    def position(self) -> tuple[int, int, str] | None:
        """`after` as (instant, commit number, id). Entries that come later in a list have smaller ones."""
        if self.after is None:
            return None
        try:
            if type(self.after) is MemoryEntry:
                instant, commit, entry_id = self.after.order
            else:
                first, second, entry_id = str.split(self.after, ":", 2)  # type: ignore[arg-type]  # caught below
                instant, commit = int(first), int(second)
            if not (abs(instant) < MOST_VERSIONS and 0 <= commit < MOST_VERSIONS and type(entry_id) is str):
                raise ValueError("no cursor of ours")
            return instant, commit, entry_id
        except (AttributeError, TypeError, ValueError):
            raise InvalidQueryError(
                "after: takes the last entry of the page before, or its .cursor (an id alone has no place)"
            ) from None

    def matches(self, entry: MemoryEntry) -> bool:
        """Tell whether `entry` satisfies every filter; `limit` does not count."""
        return self.predicate()(entry)

    def predicate(self) -> Test:
        """Return `matches` compiled, for many entries."""
        since, until = self.instants
        test, position = self.test, self.position
        wanted = None if self.tags is None else frozenset(self.tags)
        unwanted = frozenset(self.exclude_tags or ())
        exact = [(name, text) for name in EXACT if (text := getattr(self, name)) is not None]

        def matches(entry: MemoryEntry) -> bool:
            if any(getattr(entry, name) != text for name, text in exact):
                return False
            if wanted is not None and not _tagged(wanted, entry.tags, self.tags_match):
                return False
            if unwanted and not unwanted.isdisjoint(entry.tags):
                return False
            if since is not None or until is not None or position is not None:
                order = entry.order
                if since is not None and order[0] < since:
                    return False
                if until is not None and order[0] >= until:
                    return False
                if position is not None and order >= position:
                    return False
            return test is None or test(entry.value)

        return matches


def _tagged(wanted: frozenset[str], tags: list[str], how: str) -> bool:
    if how == "any" or not wanted:  # no tag wanted: nothing matches, by either rule
        return not wanted.isdisjoint(tags)
    return wanted.issubset(tags)


def _asked_tags(name: str, tags: Collection[str]) -> tuple[str, ...]:
    """Return a copy of the tags that a query names; raise `InvalidQueryError` if they are no tags."""
    texts: list[str | None]
    if type(tags) is list and _ONLY_TEXT.issuperset(map(type, tags)):  # as most are
        texts = tags
    else:
        with own_code(InvalidQueryError, name):
            texts = [None] if type(tags) is not list and is_no_list(tags) else [plain_text(tag) for tag in tags]
    if None in texts:
        raise InvalidQueryError(f'{name}: takes a list of str, such as ["ui"]')
    if len(texts) > MAX_TAGS:
        raise InvalidQueryError(f"{name}: takes at most {MAX_TAGS}, not {len(texts)}")
    return tuple(_check_filter(name, text) for text in texts)


def _check_filter(name: str, given: object) -> str:
    text = given if type(given) is str else plain_text(given)
    if text is None:
        raise InvalidQueryError(f"{name}: takes a str or None, not {type(given).__name__}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidQueryError(f"{name}: holds a lone surrogate, which no stored name does") from None
    return text


def asked_instant(name: str, moment: datetime | None) -> int | None:
    """Return the instant of a moment that a query names, see `nearest_instant`, or None; raise `InvalidQueryError`."""
    if moment is None:
        return None
    plain = plain_moment(moment)
    if plain is None:
        raise InvalidQueryError(f"{name}: takes a datetime, not {type(moment).__name__}")
    try:
        return nearest_instant(plain)
    except InvalidMomentError as error:
        raise InvalidQueryError(f"{name}: {error}") from None


def asked_text(field: str, text: object) -> str:
    """Return a text that a query names; raise `InvalidQueryError` if it is no text."""
    if type(text) is str:
        return text
    plain = plain_text(text)  # for a member of a str enumeration, its text
    if plain is None:
        raise InvalidQueryError(f"{field}: takes a str, not {type(text).__name__}")
    return plain


def asked_name(field: str, name: object) -> str:
    """Return a name that a query names; raise `InvalidQueryError` if it is no text or holds a lone surrogate."""
    return _check_filter(field, asked_text(field, name))


def asked_limit(limit: int) -> int:
    """Return `limit`; raise `InvalidQueryError` if it is no whole number above 0."""
    if type(limit) is not int or not 1 <= limit < MOST_VERSIONS:
        raise InvalidQueryError("limit: takes a whole number from 1 up")
    return limit


# --- what may be stored --------------------------------------------------------------------------


def check_name(field: str, name: object) -> str:
    """Return `name` if it can be looked up on every backend.

    Raises:
        InvalidEntryError: it is no str, holds a NUL or a lone surrogate, or is over `MAX_NAME_BYTES`.
    """
    if type(name) is str and name.isascii() and len(name) <= MAX_NAME_BYTES and "\0" not in name:
        return name  # as most are
    text = check_text(field, name)
    size = len(text) if text.isascii() else len(text.encode())
    if size > MAX_NAME_BYTES:
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
