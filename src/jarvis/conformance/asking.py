"""Promises of orders, pages, and filters by several keys, by beginnings and by what is absent."""

from __future__ import annotations

import copy
import itertools
import pickle
from datetime import timedelta
from typing import Any

import pytest

from jarvis.capabilities import Erases, Expires, KeepsHistory, Transactional
from jarvis.conformance.filters import CrowdPromises
from jarvis.conformance.fixtures import NOON, FakeClock, an_entry
from jarvis.errors import InvalidQueryError
from jarvis.model.entry import MemoryEntry
from jarvis.model.marks import ABSENT
from jarvis.model.place import ORDERS
from jarvis.model.query import MemoryQuery
from jarvis.persistent_memory import MemoryModule
from jarvis.storage_backend import StorageBackend

LAST_SIGN = chr(0x10FFFF)
LOOK_ALIKES = (
    "",
    "a",
    "a%",
    "a%b",
    "a_",
    "a_b",
    "a*",
    "a.b",
    "a/",
    "a/b",
    "a0",
    "aa",
    "A/",
    "\u0101/",
    "a\u0304/",
    "a" + LAST_SIGN,
    "a" + LAST_SIGN + "b",
    "a\ud7ff",
    "a\ud7ffz",
    "a\ue000",
    LAST_SIGN,
    LAST_SIGN + LAST_SIGN,
    "b",
)
"""Texts that are next to each other, or that patterns of databases take for each other."""

_OTHERS: tuple[dict[str, Any], ...] = (
    {},
    {"category": "tasks"},
    {"tags": ["ui"]},
    {"tags": ["ui", "u", "urgent"]},
    {"tags": ["ui", "u"], "tags_match": "all"},
    {"exclude_tags": ["ui"]},
    {"where": {"s": "a"}},
    {"key": "theme"},
    {"keys": ["theme", "Theme"], "tags": ["ui", "u"]},
    {"key_prefix": "them", "tags": ["ui"]},
    {"category_prefix": "ta", "tags": ["ui", "u"]},
    {"entity_id": ABSENT, "since": NOON + timedelta(hours=1)},
)


class AskingPromises(CrowdPromises):
    """Orders, pages, several keys, beginnings, and what is absent."""

    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize("ascending", [None, True, False])
    def test_every_order_and_page_means_what_the_query_means(
        self, backend: StorageBackend, crowd: list[MemoryEntry], order: Any, ascending: bool | None
    ) -> None:
        pages: tuple[dict[str, Any], ...] = (
            {},
            {"limit": 5},
            {"offset": 3},
            {"limit": 4, "offset": 2},
            {"offset": 1000},
            {"limit": 0, "offset": 1},
            {"limit": 2**63 - 1, "offset": 2**63 - 1},
        )
        for other, page in itertools.product(_OTHERS, pages):
            self._agree(backend, crowd, MemoryQuery(order=order, ascending=ascending, **other, **page))

    @pytest.mark.usefixtures("crowd")
    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize("ascending", [True, False])
    def test_pages_add_up_in_every_order(self, backend: StorageBackend, order: Any, ascending: bool) -> None:
        for other in _OTHERS:
            asked = {"order": order, "ascending": ascending, **other}
            whole = [entry.id for entry in backend.select(MemoryQuery(**asked))]
            for as_cursor in (False, True):
                pages: list[str] = []
                last: MemoryEntry | str | None = None
                while page := backend.select(MemoryQuery(limit=4, after=last, **asked)):
                    pages += [entry.id for entry in page]
                    last = page[-1].cursor if as_cursor else page[-1]
                assert pages == whole, asked

    @pytest.mark.usefixtures("crowd")
    @pytest.mark.parametrize("order", ORDERS)
    def test_pages_are_stable_in_every_order_while_others_write(self, backend: StorageBackend, order: Any) -> None:
        whole = [entry.id for entry in backend.select(MemoryQuery(order=order))]
        first = backend.select(MemoryQuery(order=order, limit=10))

        backend.create(an_entry("newest", key="", timestamp=NOON - timedelta(days=1), provenance={}))
        backend.create(an_entry("oldest", key="zzz", timestamp=NOON + timedelta(days=1), provenance={}))
        backend.delete(first[-1].id)
        backend.delete(whole[30])
        rest = backend.select(MemoryQuery(order=order, after=first[-1].cursor))

        kept = [entry.id for entry in rest if entry.id not in ("newest", "oldest")]
        assert kept == [each for each in whole[10:] if each != whole[30]]

    def test_a_cursor_of_earlier_releases_has_a_place_in_the_order_of_changes(
        self, backend: StorageBackend, crowd: list[MemoryEntry]
    ) -> None:
        listed = backend.list_all()
        instant, commit, entry_id = listed[9].order

        after = f"{instant}:{commit}:{entry_id}"
        assert backend.select(MemoryQuery(after=after)) == listed[10:]
        assert len(listed) == len(crowd)
        with pytest.raises(InvalidQueryError, match="earlier release"):
            MemoryQuery(after=after, order="key")

    def test_a_memory_keeps_the_moment_of_its_creation(self, memory: MemoryModule, clock: FakeClock) -> None:
        first = memory.create_memory("notes", "first", {}, "note")
        clock.now += timedelta(hours=1)
        second = memory.create_memory("notes", "second", {}, "note")
        clock.now += timedelta(hours=1)
        memory.update_memory(first, {"n": 1})

        entry = memory.get_memory(first)

        assert entry is not None
        assert entry.updated_at - entry.created_at >= timedelta(hours=2)
        assert entry.updated_at == entry.timestamp
        assert [each.id for each in memory.list_memories()] == [first, second]
        assert [each.id for each in memory.list_memories(order="created")] == [second, first]
        assert [each.id for each in memory.list_memories(order="created", ascending=True)] == [first, second]

    def test_the_moment_of_creation_is_the_timestamp_where_nothing_tells_it(self, backend: StorageBackend) -> None:
        told: tuple[dict[str, str], ...] = ({}, {"created_at": "long ago"}, {"created_at": NOON.isoformat()})
        for number, provenance in enumerate(told):
            moment = NOON + timedelta(hours=number)
            backend.create(an_entry(str(number), timestamp=moment, provenance=provenance))
        backend.create(an_entry("naive", timestamp=NOON - timedelta(hours=1), provenance={"created_at": "2999-01-01"}))

        listed = backend.select(MemoryQuery(order="created"))

        assert [entry.id for entry in listed] == ["naive", "1", "2", "0"]
        assert [entry.created_at for entry in listed[1:]] == [NOON + timedelta(hours=1), NOON, NOON]

    def test_orders_hold_for_the_past_too(self, past: MemoryModule, later: FakeClock) -> None:
        for key in ("b", "c", "a"):
            past.create_memory("notes", key, {}, "note", tags=["x"])
            later.now += timedelta(hours=1)
        moment = later.now
        later.now += timedelta(hours=1)
        changed = past.search_memories(key="b")[0].id
        past.update_memory(changed, {"n": 1})
        past.delete_memory(past.search_memories(key="c")[0].id)
        later.now += timedelta(hours=1)

        def keys(**asked: Any) -> list[str]:
            return [entry.key for entry in past.search_memories(as_of=moment, **asked)]

        assert keys(order="key") == ["a", "b", "c"]
        assert keys(order="key", ascending=False, offset=1, limit=1) == ["b"]
        assert keys(order="created", ascending=True, tags=["x"]) == ["b", "c", "a"]
        assert keys(ascending=True) == ["b", "c", "a"]
        assert keys(keys=["a", "c"]) == ["a", "c"]
        assert keys(key_prefix="c") == ["c"]
        assert keys(category_prefix="not", entity_id=ABSENT, order="key") == ["a", "b", "c"]
        assert past.count_memories(as_of=moment, keys=["a", "c", "d"]) == 2
        assert [entry.key for entry in past.search_memories(order="created", ascending=True)] == ["b", "a"]

    def test_several_keys_are_any_of_them(self, backend: StorageBackend, crowd: list[MemoryEntry]) -> None:
        for keys in ([], ["theme"], ["theme", "theme", "absent"], ["", "Theme"], ["them%"], ["theme\0"], {"theme"}):
            for other in ({}, {"category": "tasks"}, {"tags": ["ui"], "limit": 3}, {"key": "theme"}):
                self._agree(backend, crowd, MemoryQuery(keys=keys, **other))

    def test_a_beginning_is_compared_sign_by_sign(self, backend: StorageBackend) -> None:
        crowd = [
            an_entry(str(number), key=text, category=text, timestamp=NOON + timedelta(seconds=number))
            for number, text in enumerate(LOOK_ALIKES)
        ]
        for entry in crowd:
            backend.create(entry)

        for prefix in (*LOOK_ALIKES, "%", "_", "*", "[a]", "a\0", "\U0001f600"):
            begin = [entry.id for entry in reversed(crowd) if entry.key.startswith(prefix)]
            queries = (MemoryQuery(key_prefix=prefix), MemoryQuery(category_prefix=prefix))
            for query in queries:
                assert [entry.id for entry in backend.select(query)] == begin, query
                assert backend.count(query) == len(begin)
        by_key = [entry.key for entry in backend.select(MemoryQuery(order="key", key_prefix="a"))]
        assert by_key == sorted(text for text in LOOK_ALIKES if text.startswith("a"))

    def test_absent_is_not_empty_and_not_any(self, backend: StorageBackend, crowd: list[MemoryEntry]) -> None:
        for other in ({}, {"entity_type": "task"}, {"tags": ["ui"]}, {"limit": 3}):
            self._agree(backend, crowd, MemoryQuery(entity_id=ABSENT, **other))
        assert backend.count(MemoryQuery(entity_id=ABSENT)) == sum(entry.entity_id is None for entry in crowd)
        assert copy.deepcopy(ABSENT) is pickle.loads(pickle.dumps(ABSENT)) is ABSENT  # noqa: S301 - ours

    def test_many_are_read_in_the_order_asked(self, memory: MemoryModule, crowd: list[MemoryEntry]) -> None:
        ids = [entry.id for entry in crowd][::-1]

        found = memory.get_memories([*ids, "absent", "\0", "", "id-1\0", *ids])

        assert [entry.id for entry in found] == ids
        assert found == [memory.get_memory(entry_id) for entry_id in ids]
        assert memory.get_memories([]) == []
        assert memory.get_memories(tuple(ids[:2])) == found[:2]

    def test_many_are_read_without_those_that_expired_or_were_not_there(
        self, past: MemoryModule, later: FakeClock
    ) -> None:
        self.need(past.backend, Expires)
        ids = [past.create_memory("notes", str(number), {}, "note") for number in range(3)]
        ids.append(past.create_memory("notes", "short", {}, "note", ttl=60))
        later.now += timedelta(hours=1)
        moment = later.now
        later.now += timedelta(hours=1)
        past.delete_memory(ids[0])
        later.now += timedelta(hours=1)

        assert [entry.id for entry in past.get_memories(ids)] == ids[1:3]
        assert [entry.id for entry in past.get_memories(ids[:3], as_of=moment)] == ids[:3]

    def test_a_transaction_sees_its_own_changes_in_every_order(self, memory: MemoryModule) -> None:
        self.need(memory.backend, Transactional)
        with memory.transaction():
            ids = [memory.create_memory("notes", key, {}, "note") for key in ("b", "a")]
            assert [entry.id for entry in memory.get_memories(ids)] == ids
            assert [entry.key for entry in memory.list_memories(order="key")] == ["a", "b"]
            assert [entry.key for entry in memory.search_memories(keys=["a", "b"], ascending=True)] == ["b", "a"]

    @pytest.mark.parametrize("ids", ["id-1", None, [1], ["\ud800"], [str(number) for number in range(10_001)]])
    def test_ids_that_are_no_list_of_texts_are_refused(self, memory: MemoryModule, ids: Any) -> None:
        with pytest.raises(InvalidQueryError, match="ids"):
            memory.get_memories(ids)

    def test_what_is_erased_by_several_keys_or_a_beginning_is_what_matches(self, past: MemoryModule) -> None:
        self.need(past.backend, Erases)
        for key in ("a/1", "a/2", "a0", "b"):
            past.create_memory("notes", key, {}, "note", entity_id=None if key == "b" else "e")

        assert past.erase_memories(key_prefix="a/").memories == 2
        assert past.erase_memories(keys=["b", "c"], entity_id=ABSENT).memories == 1
        assert [entry.key for entry in past.list_memories()] == ["a0"]
        assert past.backend.has_capability(KeepsHistory)
