"""`MemoryQuery`, a question about memories, and the checks of what is asked."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, Literal, TypeVar

import msgspec

from jarvis._calls.arguments import is_no_list, own_code, plain_moment, plain_text
from jarvis.codec import InvalidMomentError
from jarvis.codec.instants import nearest_instant
from jarvis.codec.values import NO_STACK
from jarvis.errors import InvalidQueryError
from jarvis.model.entry import MOST_VERSIONS, MemoryEntry, copied
from jarvis.model.marks import ABSENT, Absent
from jarvis.model.place import ORDERS, Order, Placed, cursor_of, place_in, place_of, unknown_order
from jarvis.model.value_filter import Test, check_where, compile_where

MAX_TAGS = 500
"""The most tags that a query may name."""

MAX_NAMED = 10_000
"""The most keys, or ids, that a question may name."""

EXACT = ("category", "key", "entity_type", "entity_id")
"""The filters of a query that compare one field whole. Notes of pruned and expired entries have these fields."""

_CHANGED: Order = "changed"
_ONLY_TEXT = {str}
_LAST_SIGN = chr(sys.maxunicode)
_FIRST_SURROGATE, _AFTER_SURROGATES = 0xD800, 0xE000

Found = TypeVar("Found", bound=Placed)


class MemoryQuery(msgspec.Struct, frozen=True, kw_only=True, dict=True):  # for `test`
    """A question, as a value. `matches` is its meaning; a backend may be faster, never different.

    A filter left at None is no filter; ``""`` and ``[]`` are values. `exclude_tags`: the entry has none of these tags;
    ``[]`` excludes nothing. `jarvis.persistent_memory.MemoryModule.search_memories` explains the others.

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
    entity_id: str | Absent | None = None
    key: str | None = None
    tags_match: Literal["any", "all"] = "any"
    since: datetime | None = None
    until: datetime | None = None
    where: Mapping[Any, Any] | None = None
    limit: int | None = None
    after: MemoryEntry | str | None = None
    exclude_tags: Collection[str] | None = None
    keys: Collection[str] | None = None
    key_prefix: str | None = None
    category_prefix: str | None = None
    order: Order = _CHANGED
    ascending: bool | None = None
    offset: int = 0

    def __post_init__(self) -> None:
        if self.category is not None:
            self._check_text("category", self.category)
        if self.key is not None:
            self._check_text("key", self.key)
        if self.entity_type is not None:
            self._check_text("entity_type", self.entity_type)
        if self.entity_id is not None and self.entity_id is not ABSENT:
            self._check_text("entity_id", self.entity_id)
        if self.tags is not None:
            msgspec.structs.force_setattr(self, "tags", asked_texts("tags", self.tags, MAX_TAGS))
        if self.exclude_tags is not None:
            msgspec.structs.force_setattr(
                self, "exclude_tags", asked_texts("exclude_tags", self.exclude_tags, MAX_TAGS)
            )
        if type(self.tags_match) is not str:
            msgspec.structs.force_setattr(self, "tags_match", plain_text(self.tags_match))
        if self.tags_match not in ("any", "all"):
            raise InvalidQueryError('tags_match: takes "any" or "all"')
        if self.limit is not None and (type(self.limit) is not int or not 0 <= self.limit < MOST_VERSIONS):
            raise InvalidQueryError("limit: takes a whole number from 0 up, or None for all")
        if (  # most questions leave these out
            self.order is not _CHANGED
            or self.ascending is not None
            or self.keys is not None
            or self.key_prefix is not None
            or self.category_prefix is not None
            or type(self.offset) is not int
            or self.offset
        ):
            self._check_rest()
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

    def _check_text(self, name: str, text: str) -> None:
        if _check_filter(name, text) is not text:
            msgspec.structs.force_setattr(self, name, plain_text(text))

    def _check_rest(self) -> None:
        if self.key_prefix is not None:
            self._check_text("key_prefix", self.key_prefix)
        if self.category_prefix is not None:
            self._check_text("category_prefix", self.category_prefix)
        if self.keys is not None:
            msgspec.structs.force_setattr(self, "keys", asked_texts("keys", self.keys, MAX_NAMED))
        if type(self.offset) is not int or not 0 <= self.offset < MOST_VERSIONS:
            raise InvalidQueryError("offset: takes a whole number from 0 up")
        if type(self.order) is not str:
            msgspec.structs.force_setattr(self, "order", plain_text(self.order))
        if self.order not in ORDERS:
            raise InvalidQueryError(unknown_order(self.order))
        if self.ascending is not None and type(self.ascending) is not bool:
            raise InvalidQueryError("ascending: takes True or False, or None for what is usual in this order")

    @property
    def instants(self) -> tuple[int | None, int | None]:
        """`since` (inclusive) and `until` (exclusive), in microseconds since 1970 UTC."""
        return asked_instant("since", self.since), asked_instant("until", self.until)

    @property
    def test(self) -> Test | None:
        """`where` as a function of a value, or None; compiled once."""
        if self.where is None:
            return None
        test: Test | None = self.__dict__.get("test")
        if test is None:
            self.__dict__["test"] = test = compile_where(self.where)
        return test

    @property
    def is_newest_first(self) -> bool:
        """Whether the list has the order that it has if nothing is asked."""
        return self.order == "changed" and not self.ascending

    @property
    def is_ascending(self) -> bool:
        """Whether the smallest comes first. By default that is so for keys, and the newest first otherwise."""
        return self.order == "key" if self.ascending is None else self.ascending

    @property
    def position(self) -> tuple[Any, ...] | None:
        """`after` as a sort key, see `place`. Entries that come later in the list lie beyond it."""
        if self.after is None:
            return None
        try:
            entry = self.after if type(self.after) is MemoryEntry else None
            text = cursor_of(entry) if entry is not None else plain_text(self.after)
            if text is None:
                raise ValueError("no text")
            return place_of(self.order, text)
        except (AttributeError, TypeError, ValueError):
            raise InvalidQueryError(
                "after: takes the last entry of the page before, or its .cursor (an id alone has no place; a cursor of "
                'an earlier release has one in the order "changed" only)'
            ) from None

    def place(self, entry: Placed) -> tuple[Any, ...]:
        """Return the sort key of an entry in the order of this query."""
        return place_in(self.order, entry)

    def arranged(self, matching: Iterable[Found]) -> list[Found]:
        """Return the part of the entries that match that is asked for: in order, from `offset` on, up to `limit`."""
        arranged = sorted(matching, key=self.place, reverse=not self.is_ascending)
        return arranged[self.offset : None if self.limit is None else self.offset + self.limit]

    def whole(self) -> MemoryQuery:
        """Return this question about all entries that match, and not about a page of them."""
        return msgspec.structs.replace(self, limit=None, after=None, offset=0, order="changed", ascending=None)

    def exact(self) -> dict[str, str | None]:
        """Return those of the `EXACT` filters that are given; None stands for "has none"."""
        given = [(name, text) for name in EXACT if (text := getattr(self, name)) is not None]
        return {name: None if text is ABSENT else text for name, text in given}

    def matches(self, entry: MemoryEntry) -> bool:
        """Tell whether `entry` satisfies every filter; order, `offset` and `limit` do not count."""
        return self.predicate()(entry)

    def predicate(self) -> Test:
        """Return `matches` compiled, for many entries."""
        since, until = self.instants
        test, position = self.test, self.position
        wanted = None if self.tags is None else frozenset(self.tags)
        unwanted = frozenset(self.exclude_tags or ())
        exact = self.exact().items()
        prefixes = [
            (name, text)
            for name, text in (("key", self.key_prefix), ("category", self.category_prefix))
            if text is not None
        ]
        keys = None if self.keys is None else frozenset(self.keys)
        place, is_ascending = self.place, self.is_ascending

        def matches(entry: MemoryEntry) -> bool:
            if any(getattr(entry, name) != text for name, text in exact):
                return False
            if prefixes and not all(getattr(entry, name).startswith(text) for name, text in prefixes):
                return False
            if keys is not None and entry.key not in keys:
                return False
            if wanted is not None and not _tagged(wanted, entry.tags, self.tags_match):
                return False
            if unwanted and not unwanted.isdisjoint(entry.tags):
                return False
            if since is not None or until is not None:
                instant = entry.order[0]
                if since is not None and instant < since:
                    return False
                if until is not None and instant >= until:
                    return False
            if position is not None:
                here = place(entry)
                if here <= position if is_ascending else here >= position:
                    return False
            return test is None or test(entry.value)

        return matches


def _tagged(wanted: frozenset[str], tags: list[str], how: str) -> bool:
    if how == "any" or not wanted:  # no tag wanted: nothing matches, by either rule
        return not wanted.isdisjoint(tags)
    return wanted.issubset(tags)


def end_of(prefix: str) -> str | None:
    """Return the first text, by code points, after all that begin with `prefix`; None if there is none.

    >>> end_of("a/"), end_of("a\U0010ffff"), end_of("\U0010ffff")
    ('a0', 'b', None)
    """
    head = prefix.rstrip(_LAST_SIGN)
    if not head:
        return None
    following = ord(head[-1]) + 1
    return head[:-1] + chr(_AFTER_SURROGATES if following == _FIRST_SURROGATE else following)


def asked_texts(name: str, given: Collection[str], most: int) -> tuple[str, ...]:
    """Return a copy of the texts that a query names; raise `InvalidQueryError` if they are no texts, or too many."""
    texts: list[str | None]
    if type(given) is list and _ONLY_TEXT.issuperset(map(type, given)):  # as most are
        texts = given
    else:
        with own_code(InvalidQueryError, name):
            texts = [None] if type(given) is not list and is_no_list(given) else [plain_text(text) for text in given]
    if None in texts:
        raise InvalidQueryError(f'{name}: takes a list of str, such as ["ui"]')
    if len(texts) > most:
        raise InvalidQueryError(f"{name}: takes at most {most:,}, not {len(texts):,}")
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


def asked_as_of(moment: datetime) -> int:
    """Return the instant of which a question is asked; raise `InvalidQueryError` if it is no datetime."""
    instant = asked_instant("as_of", moment)
    if instant is None:
        raise InvalidQueryError("as_of: takes a datetime, not None")
    return instant


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


def asked_number(field: str, number: int, least: int = 1, most: int | None = None) -> int:
    """Return a number; raise `InvalidQueryError` if it is no whole number from `least` to `most`, or up."""
    if type(number) is not int or not least <= number <= (MOST_VERSIONS - 1 if most is None else most):
        bound = "up" if most is None else f"to {most:,}"
        raise InvalidQueryError(f"{field}: takes a whole number from {least} {bound}")
    return number
