"""`Analytics`: what a store holds, in figures, and never a value.

Sizes of memories are *encoded bytes*: the length of the JSON that is stored beside an entry's names, before
compression, which is the same on every backend. What files and indexes take is each backend's own.
"""

from __future__ import annotations

from datetime import date, datetime

import msgspec


class Share(msgspec.Struct, frozen=True):
    """The memories that have one name, such as those of one category.

    Attributes:
        name: the name.
        memories: how many there are.
        bytes: their encoded bytes.
    """

    name: str
    memories: int
    bytes: int


class Breakdown(msgspec.Struct, frozen=True):
    """All memories by one of their names: those with most memories, and the rest in one sum.

    Attributes:
        shares: the names with most memories; of as many, the first ones in the order of code points.
        more_names: how many names are not among `shares`.
        more_memories: how many memories those have. A memory with several tags counts for each.
        more_bytes: the encoded bytes of those.
    """

    shares: list[Share]
    more_names: int = 0
    more_memories: int = 0
    more_bytes: int = 0


class Period(msgspec.Struct, frozen=True):
    """A span of days in which memories were created.

    Attributes:
        start: its first day, UTC.
        memories: how many of the present memories were created in it.
        total: how many were created in it or before.
    """

    start: date
    memories: int
    total: int


class Growth(msgspec.Struct, frozen=True):
    """When the present memories were created.

    Attributes:
        days: how many days each period has: 1, 7, 28, …, so that there are at most 60 periods.
        periods: from the oldest memory to the newest one, without a gap; empty if there are no memories.
    """

    days: int
    periods: list[Period]


class Bar(msgspec.Struct, frozen=True):
    """One bar of a histogram of times.

    Attributes:
        name: says which times it counts, such as ``under 1 hour``.
        below_seconds: times below this, and not below that of the bar before; None: all others.
        memories: how many memories there are.
    """

    name: str
    below_seconds: int | None
    memories: int


class Ages(msgspec.Struct, frozen=True):
    """How old the present memories are: the time since `MemoryEntry.created_at`.

    Attributes:
        oldest: when the oldest was created, in UTC; None, as the next three, if there are no memories.
        newest: when the newest was created.
        median_seconds: at least half of the memories are not older than this, and at least half are not younger. Below
            0 if they are dated ahead of the clock.
        histogram: bars with fixed bounds.
    """

    oldest: datetime | None
    newest: datetime | None
    median_seconds: float | None
    histogram: list[Bar]


class Expiry(msgspec.Struct, frozen=True):
    """When memories expire.

    Attributes:
        expired: how many have expired, and are still in the files: no other figure of `Analytics` but those of
            `Churn` and `Overhead` counts them.
        histogram: of the others: bars by the time that is left, with fixed bounds.
        never: how many do not expire.
    """

    expired: int
    histogram: list[Bar]
    never: int


class Day(msgspec.Struct, frozen=True):
    """The changes of one day, UTC.

    Attributes:
        date: the day.
        created: how many memories were created or restored.
        updated: how many changes of a memory there were, `undo` included.
        removed: how many memories were deleted, cleared, purged or erased.
    """

    date: date
    created: int
    updated: int
    removed: int


class Changed(msgspec.Struct, frozen=True):
    """A memory that was changed often.

    Attributes:
        namespace, id, category, key: of the memory.
        version: how often it was created and changed.
    """

    namespace: str
    id: str
    category: str
    key: str
    version: int


class Churn(msgspec.Struct, frozen=True):
    """What was changed, as the feed of changes tells it; its length is limited by the history's policy.

    Attributes:
        created, updated, removed: of all changes that the feed has, see `Day`; None if the backend has no feed.
        days: the last 30 days with today, the earliest first; empty if the backend has no feed.
        most_changed: the memories with the greatest versions, above 1.
    """

    created: int | None
    updated: int | None
    removed: int | None
    days: list[Day]
    most_changed: list[Changed]


class Overhead(msgspec.Struct, frozen=True):
    """What the store takes besides its memories; None where that is not known, or the backend has no such thing.

    Attributes:
        past_states: how many past states it has.
        past_bytes: their encoded bytes.
        store_bytes: of its file, or of its tables on a server with their indexes. Of all namespaces, as the next three.
        log_bytes: of the log beside the file.
        index_bytes: of the index of words: a part of `store_bytes`.
        free_bytes: how much of `store_bytes` is free, for later writes.
    """

    past_states: int | None
    past_bytes: int | None
    store_bytes: int | None
    log_bytes: int | None
    index_bytes: int | None
    free_bytes: int | None


class Large(msgspec.Struct, frozen=True):
    """A large memory.

    Attributes:
        namespace, id, category, key: of the memory.
        bytes: its encoded bytes.
    """

    namespace: str
    id: str
    category: str
    key: str
    bytes: int


class SameValue(msgspec.Struct, frozen=True):
    """Memories of one namespace with equal values.

    Attributes:
        namespace: of the memories.
        memories: how many there are.
        bytes: the bytes of the value's JSON, of one of them.
        ids: of at most five, the first ones in the order of code points.
    """

    namespace: str
    memories: int
    bytes: int
    ids: list[str]


class Repeats(msgspec.Struct, frozen=True):
    """Memories whose values are equal, byte for byte as they are encoded.

    Attributes:
        groups: how many values several memories of a namespace have.
        memories: how many memories have one of those.
        bytes: of the JSON of values that would not be there if each were stored once.
        largest: the groups with most memories; of as many, those with the larger values.
    """

    groups: int
    memories: int
    bytes: int
    largest: list[SameValue]


class Alike(msgspec.Struct, frozen=True):
    """Memories of one namespace, category and entity that say nearly the same; see `MemoryModule.find_duplicates`.

    Attributes:
        namespace: of the memories.
        memories: how many there are.
        similarity: of the least alike pair that joined them, from 0 to 1.
        ids: of at most five, the first ones in the order of code points.
    """

    namespace: str
    memories: int
    similarity: float
    ids: list[str]


class Near(msgspec.Struct, frozen=True):
    """Memories that say nearly the same.

    Attributes:
        groups: how many groups there are.
        memories: how many memories are in one.
        largest: the groups with most memories.
    """

    groups: int
    memories: int
    largest: list[Alike]


class Analytics(msgspec.Struct, frozen=True, kw_only=True):
    """What a store holds: `Store.analytics`. It has names, ids and keys of memories, and never a value.

    Attributes:
        made_at: the moment from which ages and expiry are counted, in UTC.
        memories: how many there are. Expired ones are not there.
        bytes: their encoded bytes.
        categories, entity_types, tags, modules, namespaces: the memories by these names. The module is the one that
            created a memory; ``unknown`` if none was told.
        growth: when they were created.
        ages: how old they are.
        expiry: when they expire.
        churn: what was changed.
        overhead: what the store takes besides.
        largest: the largest memories.
        duplicates: memories with equal values.
        near: memories that say nearly the same; None if it was not asked.

    >>> from jarvis.persistent_memory import MemoryModule
    >>> memory = MemoryModule.in_memory()
    >>> _ = memory.set_user_preference("theme", {"mode": "dark"})
    >>> report = memory.store.analytics()
    >>> report.memories, report.categories.shares[0].name
    (1, 'preferences')
    """

    made_at: datetime
    memories: int
    bytes: int
    categories: Breakdown
    entity_types: Breakdown
    tags: Breakdown
    modules: Breakdown
    namespaces: Breakdown
    growth: Growth
    ages: Ages
    expiry: Expiry
    churn: Churn
    overhead: Overhead
    largest: list[Large]
    duplicates: Repeats
    near: Near | None = None


class Sizes(msgspec.Struct, frozen=True):
    """What a store takes on its disk, in bytes; None where that is not known. See `Overhead`."""

    store_bytes: int | None = None
    log_bytes: int | None = None
    index_bytes: int | None = None
    free_bytes: int | None = None
