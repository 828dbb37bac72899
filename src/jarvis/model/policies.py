"""Policies and rules as values: how much of the past is kept, and what a sweep cleans up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Literal, TypeVar, get_args

import msgspec

from jarvis._calls.arguments import own_code
from jarvis.errors import InvalidSettingError

Stored = TypeVar("Stored")
_MANY_REVISIONS = 1_000_000
_MANY_EVENTS = 1_000_000_000
_LONGEST = timedelta(days=36_525)


class HistoryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the past a store keeps. A writer prunes by the policy that it opened the store with.

    Attributes:
        max_revisions: past states kept of one memory; 0 keeps no past at all.
        max_age: how long a past state is kept after the change that ended it; None for ever.
        cleared_max_age: how long memories that `clear_all` removed are kept; None as long as any other past state.
        max_events: what the feed alone knows is forgotten once so many changes of the store were made after it. It
            alone knows changes whose past states are not kept. Beyond them a cursor raises `CursorExpiredError`.

    Raises:
        InvalidSettingError: a value has the wrong type or is out of range.

    >>> from datetime import timedelta
    >>> from jarvis.model.policies import HistoryPolicy
    >>> HistoryPolicy(max_revisions=10, max_age=timedelta(days=7)).max_revisions
    10
    """

    max_revisions: int = 100
    max_age: timedelta | None = timedelta(days=365)
    cleared_max_age: timedelta | None = timedelta(days=30)
    max_events: int = 10_000

    @own_code(InvalidSettingError, "history")
    def __post_init__(self) -> None:
        """Check every field."""
        if type(self.max_revisions) is not int or not 0 <= self.max_revisions <= _MANY_REVISIONS:
            raise InvalidSettingError(f"history.max_revisions must be a whole number from 0 to {_MANY_REVISIONS:,}")
        if type(self.max_events) is not int or not 0 <= self.max_events <= _MANY_EVENTS:
            raise InvalidSettingError(f"history.max_events must be a whole number from 0 to {_MANY_EVENTS:,}")
        for key in ("max_age", "cleared_max_age"):
            age = getattr(self, key)
            if age is not None and (not isinstance(age, timedelta) or not timedelta(0) < age <= _LONGEST):
                raise InvalidSettingError(f"history.{key} must be a timedelta above 0, up to 100 years, or None")


ARCHIVED = "archived"
"""The tag of memories that a rule, or somebody by hand, has archived."""

RetentionAction = Literal["delete", "archive"]
RETENTION_ACTIONS: tuple[str, ...] = get_args(RetentionAction)
_MANY_KEPT_TAGS = 100


class RetentionRule(msgspec.Struct, frozen=True, kw_only=True):
    """A limit for memories of a category: those beyond it are deleted or archived.

    At least one of `max_age` and `max_entries` is given. A memory beyond either of them is cleaned up.

    Attributes:
        category: of the memories that the rule governs.
        entity_type: it governs only those about entities of this type.
        tag: it governs only those with this tag.
        max_age: how long after its timestamp a memory stays as it is.
        max_entries: how many of the memories that it governs, the newest, stay as they are.
        action: ``"delete"``, or ``"archive"``: the memory gets the tag ``archived``.
        keep_tags: a memory with one of these tags is pinned: it is neither governed nor counted.

    Raises:
        InvalidSettingError: a value has the wrong type or is out of range, or the rule can govern nothing.

    >>> from datetime import timedelta
    >>> from jarvis.model.policies import RetentionRule
    >>> RetentionRule(category="tasks", max_age=timedelta(days=30), keep_tags=("important",)).action
    'delete'
    >>> RetentionRule(category="tasks")
    Traceback (most recent call last):
    ...
    jarvis.errors.InvalidSettingError: retention: a rule needs a max_age or a max_entries
    """

    category: str
    entity_type: str | None = None
    tag: str | None = None
    max_age: timedelta | None = None
    max_entries: int | None = None
    action: RetentionAction = "delete"
    keep_tags: tuple[str, ...] = ()

    @own_code(InvalidSettingError, "retention")
    def __post_init__(self) -> None:
        """Check every field."""
        for key in ("category", "entity_type", "tag"):
            name = getattr(self, key)
            if not _is_name(name) and (name is not None or key == "category"):
                raise InvalidSettingError(f"retention: {key} must be a text")
        if self.max_age is None and self.max_entries is None:
            raise InvalidSettingError("retention: a rule needs a max_age or a max_entries")
        if self.max_age is not None and (
            not isinstance(self.max_age, timedelta) or not timedelta(0) <= self.max_age <= _LONGEST
        ):
            raise InvalidSettingError("retention: max_age must be a timedelta from 0 to 100 years")
        _check_number("retention: max_entries", self.max_entries)
        if self.action not in RETENTION_ACTIONS:
            raise InvalidSettingError(f"retention: action must be {' or '.join(map(repr, RETENTION_ACTIONS))}")
        msgspec.structs.force_setattr(self, "keep_tags", _tags("retention", self.keep_tags))
        if self.tag is not None and (self.tag in self.keep_tags or (self.tag, self.action) == (ARCHIVED, "archive")):
            raise InvalidSettingError("retention: the rule governs nothing, for it leaves memories with its tag alone")


def _check_number(name: str, number: object) -> None:
    if number is not None and (type(number) is not int or not 1 <= number < 2**63):
        raise InvalidSettingError(f"{name} must be a whole number from 1 up")


def _tags(setting: str, tags: object) -> tuple[str, ...]:
    names = _names(tags)
    if names is None:
        raise InvalidSettingError(f'{setting}: keep_tags must be tags, such as ("important",)')
    if len(names) > _MANY_KEPT_TAGS:
        raise InvalidSettingError(f"{setting}: keep_tags must be at most {_MANY_KEPT_TAGS} tags")
    return names


def _names(names: object) -> tuple[str, ...] | None:
    """Return texts that a store can hold as a tuple; None if they are none."""
    if not isinstance(names, tuple | list | set | frozenset):
        return None
    return tuple(names) if all(map(_is_name, names)) else None


ALL_CATEGORIES = "*"
"""The category of the policy of all categories that have none of their own."""

_SHORTEST_TTL = timedelta(microseconds=1)


class _OfCategory(msgspec.Struct, frozen=True):
    category: str


class CategoryPolicy(_OfCategory, frozen=True, kw_only=True):
    """How the memories of a category are kept, from the next write on.

    Attributes:
        category: of the memories that it governs; ``"*"`` for each category that has no policy of its own.
        history: how much of the past of its memories is kept; None for what the store keeps. A memory that was moved
            is kept as its category says when it is changed.
        max_entries: how many memories the category has at most. A write that makes it more deletes those that were
            written longest ago, in its own transaction, and never the memory that it writes.
        max_bytes: how many bytes they take at most: as `StorageBackend.size_of` counts a memory. A memory that
            alone is larger is refused.
        keep_tags: a memory with one of these tags is pinned: the two limits neither delete nor count it.
        ttl: how long a new memory lives that is given neither a ttl nor a moment of expiry.
        text_fields: the fields of the value that hold the main text of a memory, for the ranking of searches; the
            others count less. Without it that is the field ``text``, or all of them if there is none.

    Raises:
        InvalidSettingError: a value has the wrong type or is out of range, or the policy says nothing.

    >>> from datetime import timedelta
    >>> from jarvis.model.policies import CategoryPolicy
    >>> CategoryPolicy("sessions", ttl=timedelta(hours=12)).category
    'sessions'
    >>> CategoryPolicy("sessions", ttl=timedelta(0))
    Traceback (most recent call last):
    ...
    jarvis.errors.InvalidSettingError: policies: ttl must be a timedelta above 0, up to 100 years
    """

    history: HistoryPolicy | None = None
    max_entries: int | None = None
    max_bytes: int | None = None
    keep_tags: tuple[str, ...] = ()
    ttl: timedelta | None = None
    text_fields: tuple[str, ...] = ()

    @own_code(InvalidSettingError, "policies")
    def __post_init__(self) -> None:
        """Check every field."""
        if not _is_name(self.category):
            raise InvalidSettingError("policies: category must be a text")
        fields = _names(self.text_fields)
        if fields is None:
            raise InvalidSettingError('policies: text_fields must be names of fields, such as ("title", "body")')
        msgspec.structs.force_setattr(self, "text_fields", fields)
        if not self.is_bound and self.ttl is None and self.history is None and not self.text_fields:
            raise InvalidSettingError(
                "policies: a policy needs a history, a max_entries, a max_bytes, a ttl or text_fields"
            )
        if self.history is not None and type(self.history) is not HistoryPolicy:
            raise InvalidSettingError("policies: history must be a HistoryPolicy")
        if self.history is not None and self.history.max_events != HistoryPolicy().max_events:
            raise InvalidSettingError("policies: max_events is of the whole store; set it in its own history")
        _check_number("policies: max_entries", self.max_entries)
        _check_number("policies: max_bytes", self.max_bytes)
        msgspec.structs.force_setattr(self, "keep_tags", _tags("policies", self.keep_tags))
        if self.keep_tags and not self.is_bound:
            raise InvalidSettingError("policies: keep_tags need a max_entries or a max_bytes, from which they keep")
        if self.ttl is not None and (type(self.ttl) is not timedelta or not _SHORTEST_TTL <= self.ttl <= _LONGEST):
            raise InvalidSettingError("policies: ttl must be a timedelta above 0, up to 100 years")

    @property
    def is_bound(self) -> bool:
        """Whether it limits how much the category has."""
        return self.max_entries is not None or self.max_bytes is not None

    def beyond(self, stored: Sequence[Stored], size_of: Callable[[Stored], int]) -> Sequence[Stored]:
        """Return those of a category's entries without `keep_tags` that it has no room for.

        Both are in the order in which the entries were written. What is left out is the longest end within the limits.

        >>> CategoryPolicy("c", max_entries=3, max_bytes=9).beyond([9, 1, 2, 3, 4], int)
        [9, 1]
        """
        most = len(stored) if self.max_entries is None else self.max_entries
        first, place, size = max(len(stored) - most, 0), len(stored), 0
        if self.max_bytes is None:
            return stored[:first]
        while place > first:
            size += size_of(stored[place - 1])
            if size > self.max_bytes:
                break
            place -= 1
        return stored[:place]


class Histories:
    """How much of the past a store keeps of each category.

    Attributes:
        usual: what it keeps of the categories that are not `named`.
        named: what it keeps of the others.
        keep_any: it keeps some of the past.
        max_events: after how many changes it forgets what only the feed knows.

    >>> few = CategoryPolicy("few", history=HistoryPolicy(max_revisions=2))
    >>> histories = Histories(HistoryPolicy(), [few])
    >>> [histories.of(category).max_revisions for category in ("few", "other")]
    [2, 100]
    """

    def __init__(self, store: HistoryPolicy, policies: Sequence[CategoryPolicy] = ()) -> None:
        self.named = {policy.category: policy.history or store for policy in policies}
        self.usual = self.named.pop(ALL_CATEGORIES, store)
        self.max_events = store.max_events
        self.keep_any = any(history.max_revisions for history in (self.usual, *self.named.values()))

    def of(self, category: str) -> HistoryPolicy:
        """Return how much of the past of a category is kept."""
        return self.named.get(category, self.usual)


class Policies:
    """The policies of a module, by category.

    >>> from datetime import timedelta
    >>> policies = Policies([CategoryPolicy("a", ttl=timedelta(1)), CategoryPolicy("*", ttl=timedelta(2))])
    >>> [policies.of(category).ttl.days for category in ("a", "b")]
    [1, 2]
    """

    def __init__(self, policies: Sequence[CategoryPolicy]) -> None:
        self.given = tuple(policies)
        self._named = {policy.category: policy for policy in policies}
        self._usual = self._named.get(ALL_CATEGORIES)

    def of(self, category: str) -> CategoryPolicy | None:
        """Return the policy of a category, or None; None for what is no name, which the backend refuses."""
        return self._named.get(category, self._usual) if type(category) is str else None

    def text_fields(self, category: str) -> tuple[str, ...]:
        """Return the fields of the values of a category that hold the main text."""
        policy = self.of(category)
        return () if policy is None else policy.text_fields


def _is_name(name: object) -> bool:
    """Tell whether this is a text that a store can hold."""
    return type(name) is str and not any("\ud800" <= sign <= "\udfff" for sign in name)
