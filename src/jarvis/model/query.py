"""`MemoryQuery`, a question about memories, and the checks of what is asked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

from jarvis._calls.arguments import is_no_list, own_code, plain_moment, plain_text
from jarvis.codec import InvalidMomentError
from jarvis.codec.instants import nearest_instant
from jarvis.codec.values import NO_STACK
from jarvis.errors import InvalidQueryError
from jarvis.model.entry import MOST_VERSIONS, MemoryEntry, copied
from jarvis.model.value_filter import Test, check_where, compile_where

MAX_TAGS = 500
"""The most tags that a query may name."""

EXACT = ("category", "key", "entity_type", "entity_id")
"""The filters of a query that compare one field whole. Notes of pruned and expired entries have these fields."""

_ONLY_TEXT = {str}


class MemoryQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A question, as a value. `matches` is its meaning; a backend may be faster, never different.

    A filter left at None is no filter; ``""`` and ``[]`` are values. `exclude_tags`: the entry has none of these tags;
    ``[]`` excludes nothing. `jarvis.persistent_memory.MemoryModule.search_memories` explains the other filters.

    >>> from jarvis.model.entry import MemoryEntry
    >>> from jarvis.model.query import MemoryQuery
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
                msgspec.structs.force_setattr(self, "where", copied(self.where))
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
