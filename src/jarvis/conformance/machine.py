"""A state machine (https://hypothesis.readthedocs.io/en/latest/stateful.html) of a backend against a dict.

Every step does the same to the backend, through `MemoryModule` or its verbs, and to a plain dict of entries, which
gives the right answers. Any difference fails, and hypothesis shrinks it to the shortest run of steps that shows it.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from jarvis.capabilities import Expires, KeepsHistory, Namespaced, Transactional
from jarvis.conformance.compression import PROSE
from jarvis.conformance.fixtures import NOON, FakeClock
from jarvis.errors import DuplicateEntryError, EntryNotFoundError, HistoryUnavailableError
from jarvis.model.dating import SKEW
from jarvis.model.entry import MemoryEntry
from jarvis.model.marks import ABSENT
from jarvis.model.place import ORDERS
from jarvis.model.query import MemoryQuery
from jarvis.model.rules import exact_filters
from jarvis.persistent_memory import MemoryModule
from jarvis.storage_backend import StorageBackend

OpenIn = Callable[[Path], StorageBackend]

_names = st.sampled_from(["preferences", "tasks", "theme", "task_1", "device_info", "", "é"])
_tags = st.lists(st.sampled_from(["ui", "urgent", "", "UI", "x"]), max_size=3)
_types = st.sampled_from(["task", "tool", ""])
_entities = st.sampled_from([None, "1", "2", ""])
_small_values = st.dictionaries(
    st.sampled_from(["n", "s", "d"]),
    st.one_of(
        st.integers(-2, 2),
        st.booleans(),
        st.none(),
        st.sampled_from(["a", "1"]),
        st.tuples(st.integers(0, 1)),
        st.dictionaries(st.sampled_from(["x", "$type"]), st.integers(0, 2), max_size=2),
    ),
    max_size=3,
)
_large_texts = st.sampled_from([PROSE * 5, PROSE * 20])  # just below and above the threshold of compression
_large_values = st.builds(lambda value, text: {**value, "text": text}, _small_values, _large_texts)
_values = st.one_of(_small_values, _small_values, _small_values, _large_values)
_moments = st.integers(-3, 3).map(lambda hours: NOON + timedelta(hours=hours))
_wheres = st.sampled_from(
    [
        None,
        {"n": {"$gte": 0}},
        {"n": 1},
        {"s": {"$in": ["a", None, True]}},
        {"d.x": {"$exists": True}},
        {"$or": [{"n": {"$lt": 0}}, {"s": "1"}]},
        {"$not": {"n": {"$ne": True}}},
        {"text": {"$exists": True}, "n": {"$exists": False}},
    ]
)
_some_tags = st.one_of(st.none(), _tags)
_limits = st.one_of(st.none(), st.integers(0, 4))
_beginnings = st.one_of(st.none(), _names.map(lambda name: name[:2]))
_queries = st.builds(
    MemoryQuery,
    category=st.one_of(st.none(), _names),
    tags=_some_tags,
    tags_match=st.sampled_from(["any", "all"]),
    entity_type=st.one_of(st.none(), _types),
    entity_id=st.one_of(_entities, st.just(ABSENT)),
    key=st.one_of(st.none(), _names),
    keys=st.one_of(st.none(), st.lists(_names, max_size=3)),
    key_prefix=_beginnings,
    category_prefix=_beginnings,
    order=st.sampled_from(ORDERS),
    ascending=st.sampled_from([None, True, False]),
    offset=st.sampled_from([0, 0, 1, 3]),
    since=st.one_of(st.none(), _moments),
    until=st.one_of(st.none(), _moments),
    where=_wheres,
    limit=_limits,
    exclude_tags=_some_tags,
)
_few_filters = st.builds(
    MemoryQuery, category=st.one_of(st.none(), _names), tags=_some_tags, limit=_limits, exclude_tags=_some_tags
)


_ttls = st.sampled_from([None, None, 1, 2.5, 3600])
_EXACT = ("category", "key", "entity_type", "entity_id")

Key = tuple[str, str]


def _another(value: dict[str, Any], before: MemoryEntry | None) -> dict[str, Any]:
    """Return a value that `before` does not have: to set what is there is no change, see `RenewalPromises`."""
    return value if before is None else {**value, "set": before.version}


class Life(NamedTuple):
    """One life of an id, from a creation or return to the removal: its expiry, and whether it has expired."""

    expires_at: datetime | None
    is_over: bool = False


class Model:
    """The content of a store, as dicts: namespace to id to entry, with the commit number of its last change.

    `before` has the entry before the last change of an id, or None. Expired entries leave `entries` and `before`, and
    stay in `lives`. `names` has the fields of their states that exact filters compare.
    """

    def __init__(self) -> None:
        self.entries: dict[str, dict[str, MemoryEntry]] = {}
        self.before: dict[Key, MemoryEntry | None] = {}
        self.versions: dict[Key, int] = {}
        self.lives: dict[Key, tuple[Life, ...]] = {}
        self.names: dict[Key, frozenset[tuple[str | None, ...]]] = {}
        self.ended: Counter[Key] = Counter()  # past states of an entry
        self.erased: set[str] = set()  # erased since, if this is a past state
        self.commits = 0

    def copy(self) -> Model:
        """Return a copy of this state; entries are never changed in place."""
        twin = Model()
        twin.entries = {namespace: dict(entries) for namespace, entries in self.entries.items()}
        twin.before, twin.versions = dict(self.before), dict(self.versions)
        twin.lives, twin.names = dict(self.lives), dict(self.names)
        twin.ended, twin.commits = self.ended.copy(), self.commits
        return twin

    def put(self, namespace: str, entry: MemoryEntry, version: int) -> None:
        """Store a copy of `entry`."""
        self.commits += 1
        kept = MemoryEntry(**entry.model_dump())
        kept.version = version
        kept.position = (kept.order[0], self.commits)
        entries, key = self.entries.setdefault(namespace, {}), (namespace, kept.id)
        lives = self.lives.get(key, ())
        self.lives[key] = (*(lives[:-1] if kept.id in entries else lives), Life(kept.expires_at))
        self.names[key] = self.names.get(key, frozenset()) | {tuple(getattr(kept, name) for name in _EXACT)}
        self.ended[key] += kept.id in entries
        self.before[key], self.versions[key] = entries.get(kept.id), version
        entries[kept.id] = kept

    def remove(self, namespace: str, entry_id: str) -> bool:
        """Remove an entry; return whether it existed."""
        entry = self.entries.get(namespace, {}).pop(entry_id, None)
        if entry is not None:
            self.before[namespace, entry_id] = entry
            self.ended[namespace, entry_id] += 1
        return entry is not None

    def has_pruned(self, namespace: str, most: int) -> bool:
        """Tell whether an entry has more past states than are kept."""
        return any(count > most for key, count in self.ended.items() if key[0] == namespace)

    def erase(self, namespace: str) -> None:
        """Forget a namespace and its content."""
        self.entries.pop(namespace, None)
        for table in (self.before, self.versions, self.lives, self.names):
            for key in [key for key in table if key[0] == namespace]:
                del table[key]

    def expire(self, now: datetime) -> None:
        """Remove expired entries, and the past of entries that were removed earlier."""
        for key, lives in self.lives.items():
            namespace, entry_id = key
            entries = self.entries.get(namespace, {})
            over = [life.is_over or (life.expires_at is not None and life.expires_at <= now) for life in lives]
            self.lives[key] = tuple(life._replace(is_over=gone) for life, gone in zip(lives, over, strict=True))
            if over[-1]:
                entries.pop(entry_id, None)
                self.before.pop(key, None)

    def expired(self, namespace: str) -> list[str]:
        """Return the ids that are unknown because they have expired, the latest first."""
        return [
            name for (space, name), lives in reversed(self.lives.items()) if space == namespace and lives[-1].is_over
        ]

    def gone_of(self, key: Key, then: Model) -> datetime | None:
        """Return until when an entry that `then` has existed, if it is gone because it has expired."""
        lives = self.lives.get(key, ())[len(then.lives.get(key, ())) - 1 :]
        return min((life.expires_at for life in lives if life.is_over and life.expires_at is not None), default=None)

    def may_miss(self, namespace: str, query: MemoryQuery) -> bool:
        """Tell whether an entry that the exact filters of a query match existed earlier and has expired since."""
        for key, lives in self.lives.items():
            if key[0] == namespace and any(life.is_over for life in lives):
                columns = [set(column) for column in zip(*self.names[key], strict=True)]
                asked = [getattr(query, name) for name in _EXACT]
                if all(
                    one is None or one in values or None in values or len(values) > 1
                    for one, values in zip(asked, columns, strict=True)
                ):
                    return True
        return False

    def select(self, namespace: str, query: MemoryQuery) -> list[MemoryEntry]:
        """Return the right answer to `query`."""
        return query.arranged(filter(query.matches, self.entries.get(namespace, {}).values()))

    def addressed(self, namespace: str, category: str, key: str) -> MemoryEntry | None:
        """Return the entry of (category, key) that was written last."""
        matches = self.select(namespace, MemoryQuery(category=category, key=key))
        return max(matches, key=lambda entry: (entry.position or (0, 0))[1], default=None)


class BackendMachine(RuleBasedStateMachine):
    """The steps. `machine` binds them to a backend; `counts` counts each step."""

    open_in: ClassVar[OpenIn]
    max_revisions: ClassVar[int]
    counts: ClassVar[Counter[str]]

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory()
        self.clock = FakeClock()
        self.namespace = "default"
        self.handles = [self._open(), self._open()]
        self.plain = not self.handles[0].has_capability(Transactional)
        self.looks_back = self.handles[0].has_capability(KeepsHistory)
        self.forgets = self.handles[0].has_capability(Expires)
        self.moments: list[tuple[datetime, Model]] = []
        self.last_made: datetime | None = None
        self.latest = self.clock.now  # that the clock ever returned
        self.open_blocks: list[tuple[AbstractContextManager[None], Model, datetime | None]] = []
        self.model = Model()
        self.committed = self.model
        self.number = 0
        self._bind()

    def _open(self) -> StorageBackend:
        return type(self).open_in(Path(self._directory.name))

    def _bind(self) -> None:
        """Make `memory` and `other` two modules on two handles, in the present namespace."""
        modules = [MemoryModule(storage_backend=handle, clock=self.clock) for handle in self.handles]
        if self.namespace != "default":
            modules = [module.for_namespace(self.namespace) for module in modules]
        self.memory, self.other = modules
        if self.plain:  # with eight verbs a new module cannot know the last one's time
            self.last_made = None
        self.backend = self.memory.backend

    def teardown(self) -> None:
        """Leave open transactions, and remove the store."""
        while self.open_blocks:
            self.open_blocks.pop()[0].__exit__(None, None, None)
        for handle in self.handles:
            handle.shutdown()
        self._directory.cleanup()

    # --- what the steps share ---

    def _count(self, name: str) -> None:
        type(self).counts[name] += 1

    def _held(self) -> dict[str, MemoryEntry]:
        return self.model.entries.get(self.namespace, {})

    def _some_id(self, choice: int) -> str:
        """Return an id that exists, or one that has expired or never existed."""
        ids = [*sorted(self._held()), *self.model.expired(self.namespace)[:2], "absent"]
        return ids[choice % len(ids)]

    def _lifetime(self, ttl: float | None) -> dict[str, Any]:
        """Return the argument that makes a memory expire, if the backend has expiry."""
        return {} if ttl is None or not self.forgets else {"ttl": ttl}

    def _check_expiry(self, memory_id: str, ttl: float | None, before: MemoryEntry | None = None) -> None:
        wanted = (None, None) if before is None else (before.expires_at, before.ttl)
        if ttl is not None and self.forgets:
            lasts = timedelta(seconds=ttl)
            wanted = self.clock.now + lasts, lasts
        entry = self._held()[memory_id]
        assert (entry.expires_at, entry.ttl) == wanted

    def _made(self, entry_id: str, version: int) -> None:
        """Check an entry whose timestamp the module made, and store it in the dict."""
        entry = self.backend.read(entry_id)
        assert entry is not None
        assert entry.version == version
        assert entry.timestamp >= self.clock.now
        is_later = self.last_made is None or entry.timestamp > self.last_made
        assert is_later or self._may_be_ahead()
        if not self._may_be_ahead():
            self.last_made = entry.timestamp
        self.model.put(self.namespace, entry, version)

    def _may_be_ahead(self) -> bool:
        """Tell whether the store may be so far ahead of the clock that changes are dated by the clock."""
        return self.latest - self.clock.now > SKEW - timedelta(seconds=1)

    def _dated(self, verb: Callable[[MemoryEntry], None], entry: MemoryEntry) -> None:
        """Call a verb of the backend as a change at the clock's time: at the system's all might be too old."""
        if self.plain:
            verb(entry)
            return
        store = self.backend.capability(Transactional)
        with store.transaction():
            store.moment(self.clock.now)
            verb(entry)

    def _same(self, answer: list[MemoryEntry], wanted: list[MemoryEntry]) -> None:
        assert answer == wanted
        assert [type(value) for entry in answer for value in entry.value.values()] == [
            type(value) for entry in wanted for value in entry.value.values()
        ]

    # --- writing ---

    @rule(category=_names, key=_names, value=_values, entity_type=_types, entity_id=_entities, tags=_tags, ttl=_ttls)
    def create_memory(self, ttl: float | None, **fields: Any) -> None:
        """Create through the module."""
        self._count("create_memory")
        memory_id = self.memory.create_memory(**fields, **self._lifetime(ttl))
        self._made(memory_id, 1)
        self._check_expiry(memory_id, ttl)
        for name, value in fields.items():
            assert getattr(self._held()[memory_id], name) == value
        if not self.open_blocks and self.looks_back and not self._may_be_ahead():  # later changes have later moments
            self.moments.append((self._held()[memory_id].timestamp, self.model.copy()))

    @rule(
        key=_names,
        category=_names,
        value=_values,
        tags=_tags,
        entity_id=_entities,
        timestamp=_moments,
        choice=st.integers(0, 30),
    )
    def create_with_timestamp(self, choice: int, **fields: Any) -> None:
        """Create through the backend, with a timestamp that others may have too, or with an id that existed."""
        self._count("create_with_timestamp")
        self.number += 1
        absent = sorted(name for space, name in self.model.lives if space == self.namespace)
        absent = [name for name in absent if name not in self._held()]
        entry_id = absent[choice] if choice < len(absent) else f"own-{self.number}"
        entry = MemoryEntry(entry_id, entity_type="tool", provenance={}, **fields)
        self._dated(self.backend.create, entry)
        self.model.put(self.namespace, entry, 1)

    @rule(choice=st.integers(0, 30), value=_values)
    def create_with_taken_id(self, choice: int, value: dict[str, Any]) -> None:
        """A duplicate is refused and changes nothing."""
        self._count("create_with_taken_id")
        entry_id = self._some_id(choice)
        if entry_id not in self._held():
            return
        try:
            self.backend.create(MemoryEntry(entry_id, "c", "k", value))
        except DuplicateEntryError:
            return
        raise AssertionError("a taken id was accepted")

    @rule(choice=st.integers(0, 30), value=st.one_of(st.none(), _values), tags=_some_tags)
    def update_memory(self, choice: int, value: dict[str, Any] | None, tags: list[str] | None) -> None:
        """Update through the module."""
        self._count("update_memory")
        entry_id = self._some_id(choice)
        before = self._held().get(entry_id)
        assert self.memory.update_memory(entry_id, value, tags, module="changer") is (before is not None)
        if before is not None:
            self._made(entry_id, before.version + 1)
            now = self._held()[entry_id]
            assert now.value == (before.value if value is None else value)
            assert now.tags == (before.tags if tags is None else tags)

    @rule(choice=st.integers(0, 30), category=_names, key=_names, tags=_tags, entity_id=_entities, timestamp=_moments)
    def update_every_field(self, choice: int, **fields: Any) -> None:
        """Update through the backend."""
        self._count("update_every_field")
        entry_id = self._some_id(choice)
        entry = MemoryEntry(entry_id, value={"n": choice}, entity_type="task", provenance={}, **fields)
        before = self._held().get(entry_id)
        try:
            self._dated(self.backend.update, entry)
        except EntryNotFoundError:
            assert before is None
        else:
            assert before is not None
            self.model.put(self.namespace, entry, before.version + 1)

    @rule(choice=st.integers(0, 30))
    def delete_memory(self, choice: int) -> None:
        """Delete."""
        self._count("delete_memory")
        entry_id = self._some_id(choice)
        assert self.memory.delete_memory(entry_id) is self.model.remove(self.namespace, entry_id)

    @precondition(lambda self: self.forgets)
    @rule(choice=st.integers(0, 30), ttl=_ttls)
    def touch_memory(self, choice: int, ttl: float | None) -> None:
        """Change the expiry, and nothing else."""
        self._count("touch_memory")
        entry_id = self._some_id(choice)
        before = self._held().get(entry_id)
        assert self.memory.touch_memory(entry_id, ttl=ttl) is (before is not None)
        if before is None:
            return
        entry = self.backend.read(entry_id)
        assert entry is not None
        lasts = None if ttl is None else timedelta(seconds=ttl)
        life = {"ttl": lasts, "expires_at": None if lasts is None else self.clock.now + lasts}
        assert entry == MemoryEntry(**{**before.model_dump(), "version": before.version + 1, **life})
        self.model.put(self.namespace, entry, entry.version)

    @precondition(lambda self: self.forgets)
    @rule(limit=st.integers(1, 3))
    def purge_expired(self, limit: int) -> None:
        """Purge: no answer changes."""
        self._count("purge_expired")
        assert 0 <= self.memory.store.purge_expired(limit=limit) <= limit

    @precondition(lambda self: self.looks_back)
    @rule(choice=st.integers(0, 30))
    def undo(self, choice: int) -> None:
        """Undo the last change of a present or removed entry: the state before it returns."""
        self._count("undo")
        ids = [entry_id for namespace, entry_id in sorted(self.model.before) if namespace == self.namespace]
        entry_id = [*ids, "absent"][choice % (len(ids) + 1)]
        key = (self.namespace, entry_id)
        assert self.memory.undo(entry_id, module="undoer") is (key in self.model.before)
        if key not in self.model.before:
            return
        wanted, now = self.model.before[key], self._held().get(entry_id)
        if wanted is None:
            assert self.memory.get_memory(entry_id) is None
            assert self.model.remove(*key)
            return
        self._made(entry_id, self.model.versions[key] + 1)
        until, made = wanted.expires_at, self._held()[entry_id]
        if now is not None and until is not None and until <= made.timestamp:
            until = now.expires_at
        assert made.expires_at == until
        assert (made.value, made.tags, made.category, made.key) == (
            wanted.value,
            wanted.tags,
            wanted.category,
            wanted.key,
        )

    @rule(key=_names, value=_values, ttl=_ttls)
    def set_user_preference(self, key: str, value: dict[str, Any], ttl: float | None) -> None:
        """Set a preference: the last written entry of (preferences, key), or a new one; the next read returns it."""
        self._count("set_user_preference")
        before = self.model.addressed(self.namespace, "preferences", key)
        value = _another(value, before)
        memory_id = self.memory.set_user_preference(key, value, **self._lifetime(ttl))
        assert before is None or before.id == memory_id
        self._made(memory_id, before.version + 1 if before else 1)
        self._check_expiry(memory_id, ttl, before)
        assert self.memory.get_user_preferences()[key] == value

    @precondition(lambda self: not self.plain)
    @rule(category=_names, key=_names, value=_values, tags=_some_tags, ttl=_ttls)
    def upsert_memory(
        self, category: str, key: str, value: dict[str, Any], tags: list[str] | None, ttl: float | None
    ) -> None:
        """Upsert."""
        self._count("upsert_memory")
        before = self.model.addressed(self.namespace, category, key)
        value = _another(value, before)
        memory_id = self.memory.upsert_memory(category, key, value, tags=tags, **self._lifetime(ttl))
        assert before is None or before.id == memory_id
        self._made(memory_id, before.version + 1 if before else 1)
        self._check_expiry(memory_id, ttl, before)

    @rule(task_id=st.sampled_from(["1", "2"]), value=_values)
    def record_task(self, task_id: str, value: dict[str, Any]) -> None:
        """Record a task, and look at the newest."""
        self._count("record_task")
        self._made(self.memory.record_task(task_id, value), 1)
        self._same(
            self.memory.get_task_history(2), self.model.select(self.namespace, MemoryQuery(category="tasks", limit=2))
        )

    @rule(seldom=st.integers(0, 3))
    def clear(self, seldom: int) -> None:
        """Clear the namespace, or erase it; only a quarter of the times, so that stores grow."""
        self._count("clear")
        if seldom:
            return
        ids = list(self._held())
        if not self.plain and not self.open_blocks and len(ids) % 2:
            assert self.memory.clear_all(erase=True) == len(ids)
            had_memories = any(name == self.namespace for name, _ in self.model.lives)
            self.model.erase(self.namespace)
            for _, then in self.moments:
                if had_memories:
                    then.erased.add(self.namespace)
        else:
            assert self.memory.clear_all() == len(ids)
            for entry_id in ids:
                self.model.remove(self.namespace, entry_id)

    # --- asking ---

    @rule(query=st.one_of(_queries, _few_filters))
    def search(self, query: MemoryQuery) -> None:
        """Search, with many filters or, so that answers are seldom empty, with few."""
        self._count("search")
        self._same(self.backend.select(query), self.model.select(self.namespace, query))

    @rule(query=st.one_of(_queries, _few_filters))
    def count(self, query: MemoryQuery) -> None:
        """Count."""
        self._count("count")
        assert self.backend.count(query) == len(self.model.select(self.namespace, query))

    @rule(query=st.one_of(_queries, _few_filters))
    def iterate(self, query: MemoryQuery) -> None:
        """Iterate."""
        self._count("iterate")
        self._same(list(self.backend.iterate(query)), self.model.select(self.namespace, query))

    @rule(query=_few_filters, size=st.integers(1, 4))
    def page(self, query: MemoryQuery, size: int) -> None:
        """Pages add up to the list."""
        self._count("page")
        filters: dict[str, Any] = {"category": query.category, "tags": query.tags, "exclude_tags": query.exclude_tags}
        whole = self.model.select(self.namespace, MemoryQuery(**filters))
        after: MemoryEntry | str | None = None
        pages: list[MemoryEntry] = []
        while page := self.backend.select(MemoryQuery(**filters, limit=size, after=after)):
            pages += page
            after = page[-1] if size % 2 else page[-1].cursor
        self._same(pages, whole)

    @rule(choice=st.integers(0, 30), key=_names)
    def look_up(self, choice: int, key: str) -> None:
        """Look up by id, by key, by entity."""
        self._count("look_up")
        entry_id = self._some_id(choice)
        assert self.memory.get_memory(entry_id) == self._held().get(entry_id)
        newest = self.model.select(self.namespace, MemoryQuery(key=key, limit=1))
        assert self.memory.get_memory_by_key(key) == (newest[0] if newest else None)
        self._same(
            self.memory.get_memories_by_entity("task", "1"),
            self.model.select(self.namespace, MemoryQuery(entity_type="task", entity_id="1")),
        )

    @precondition(lambda self: self.looks_back)
    @rule(choice=st.integers(0, 1_000), query=st.one_of(_queries, _few_filters))
    def look_back(self, choice: int, query: MemoryQuery) -> None:
        """Ask as of a moment: every verb answers as it did then, or says that a possible match has expired."""
        self._count("look_back")
        self._look_back(choice, query)

    def _look_back(self, choice: int, query: MemoryQuery) -> None:
        if not self.moments:
            return
        moment, then = self.moments[choice % len(self.moments)]
        past: Any = self.backend
        past = past.as_of(moment)
        is_pruned = self.model.has_pruned(self.namespace, self.max_revisions) or self._may_be_ahead()
        if self.namespace in then.erased:
            with pytest.raises(HistoryUnavailableError):
                past.select(query)
            return
        entries = then.entries.get(self.namespace, {})
        gone = {
            name: until for name in entries if (until := self.model.gone_of((self.namespace, name), then)) is not None
        }
        left = [entry for name, entry in entries.items() if name not in gone]
        missed = [entries[name] for name, until in gone.items() if moment < until]

        def answer(ask: Callable[[], Any], query: MemoryQuery) -> list[Any]:
            """Return the answer in a list; an empty list if it is not known."""
            exact = MemoryQuery(**exact_filters(query))
            must = any(map(exact.matches, missed))
            if not must and not is_pruned and not self.model.may_miss(self.namespace, exact):
                return [ask()]
            try:
                result = ask()
            except HistoryUnavailableError:
                return []
            assert not must, "what has expired was left out in silence"
            return [result]

        def check(answered: list[MemoryEntry], query: MemoryQuery) -> None:
            self._same(answered, query.arranged(filter(query.matches, left)))

        for result in answer(lambda: past.select(query), query):
            check(result, query)
            self._same(list(past.iterate(query)), result)
            assert past.count(query) == len(result)
        for entry_id, entry in [*entries.items(), ("absent", None)]:
            if entry_id in gone and moment < gone[entry_id]:
                with pytest.raises(HistoryUnavailableError):
                    past.read(entry_id)
            elif entry_id not in gone and not self._has_expired_once(entry_id):
                with contextlib.suppress(HistoryUnavailableError) if is_pruned else contextlib.nullcontext():
                    assert past.read(entry_id) == entry
        of_key = MemoryQuery(key="theme", limit=1)
        for result in answer(lambda: past.newest_of_key("theme"), of_key):
            check([] if result is None else [result], of_key)

    def _has_expired_once(self, entry_id: str) -> bool:
        return any(life.is_over for life in self.model.lives.get((self.namespace, entry_id), ()))

    # --- transactions, handles, time, namespaces ---

    @precondition(lambda self: not self.plain)
    @rule()
    def begin(self) -> None:
        """Open a transaction or a savepoint, up to three deep."""
        self._count("begin")
        if len(self.open_blocks) < 3:
            self._begin()

    def _begin(self) -> None:
        block = self.memory.transaction()
        block.__enter__()
        if not self.open_blocks:
            self.committed = self.model.copy()
        self.open_blocks.append((block, self.model.copy(), self.last_made))

    @precondition(lambda self: not self.plain)
    @rule()
    def commit(self) -> None:
        """Leave the innermost block normally, or an empty one."""
        self._count("commit")
        if not self.open_blocks:
            self._begin()
        self.open_blocks.pop()[0].__exit__(None, None, None)

    @precondition(lambda self: not self.plain)
    @rule(value=_values)
    def roll_back(self, value: dict[str, Any]) -> None:
        """Leave the innermost block, or one that wrote, with an error: only its changes are gone."""
        self._count("roll_back")
        if not self.open_blocks:
            self._begin()
            self._made(self.memory.record_task("taken back", value), 1)
        block, before, self.last_made = self.open_blocks.pop()
        error = ValueError("taken back")
        with pytest.raises(ValueError, match="taken back"):
            _raise_unless(block.__exit__(ValueError, error, None), error)
        commits = self.model.commits
        self.model = before
        self.model.commits = commits
        self.model.expire(self.clock.now)

    @rule()
    def ask_second_handle(self) -> None:
        """Another handle sees all committed changes and nothing else."""
        self._count("ask_second_handle")
        model = self.committed if self.open_blocks else self.model
        self._same(self.other.list_memories(), model.select(self.namespace, MemoryQuery()))

    @rule(new_handle=st.booleans())
    def reopen(self, new_handle: bool) -> None:
        """Commit open transactions, shut down and continue, with the same handle or a new one."""
        self._count("reopen")
        while self.open_blocks:
            self.open_blocks.pop()[0].__exit__(None, None, None)
        self.handles[0].shutdown()
        if new_handle:
            self.handles[0] = self._open()
        self.handles.reverse()
        self._bind()

    @rule(
        seconds=st.sampled_from([-86400, -1, 1, 1, 3, 3600]),
        choice=st.integers(0, 1_000),
        query=st.one_of(_queries, _few_filters),
    )
    def step_clock(self, seconds: int, choice: int, query: MemoryQuery) -> None:
        """Move the clock forward or back, but never back to a time at which an entry existed that has expired.

        Expired entries are unknown even before anybody had a chance to purge them.
        """
        self._count("step_clock")
        if seconds < 0 and self.forgets:
            if self.open_blocks:
                return
            while self.memory.store.purge_expired():
                pass
        self.clock.step(seconds=seconds)
        self.latest = max(self.latest, self.clock.now)
        self.model.expire(self.clock.now)
        self.committed.expire(self.clock.now)
        if not self.looks_back:
            return
        self._look_back(choice, query)
        for entry_id in self.model.expired(self.namespace)[:3]:
            assert self.memory.get_memory(entry_id) is None
            assert self.memory.get_history(entry_id) == []
        assert self.plain or self.memory.store.list_namespaces() == self._held_namespaces()

    @rule(namespace=st.sampled_from(["default", "alice"]))
    def change_namespace(self, namespace: str) -> None:
        """Continue in another namespace."""
        self._count("change_namespace")
        if self.handles[0].has_capability(Namespaced):
            self.namespace = namespace
            self._bind()
            assert self.memory.store.list_namespaces() == self._held_namespaces()

    def _held_namespaces(self) -> list[str]:
        return sorted(name for name, entries in self.model.entries.items() if entries)

    @invariant()
    def holds_as_many_as_the_model(self) -> None:
        """After each step both have the same number of entries."""
        assert self.backend.count(MemoryQuery()) == len(self._held())


def _raise_unless(swallowed: bool | None, error: Exception) -> None:
    if not swallowed:
        raise error


def machine(open_in: OpenIn, *, name: str = "Machine", max_revisions: int = 100) -> type[BackendMachine]:
    """Return the state machine of the backend that `open_in` opens on a store in a directory.

    `max_revisions` is that of its `jarvis.config.HistoryPolicy`. If an entry has more past states, a question as of a
    moment may be refused, but is never answered wrong.
    """
    members = {"open_in": staticmethod(open_in), "max_revisions": max_revisions, "counts": Counter()}
    return type(name, (BackendMachine,), members)
