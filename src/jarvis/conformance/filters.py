"""Promises of queries: the law that every fast answer equals the plain meaning of the query."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from datetime import UTC, timedelta
from typing import Any

import pytest

from jarvis.capabilities import Erases, Expires, Transactional
from jarvis.conformance.fixtures import FIRST, LAST, NOON, FakeClock, OpenBackend, Promises, an_entry
from jarvis.conformance.values import exploding
from jarvis.errors import InvalidQueryError
from jarvis.model.entry import MemoryEntry
from jarvis.model.marks import ABSENT, NEVER
from jarvis.model.query import MemoryQuery
from jarvis.persistent_memory import MemoryModule
from jarvis.storage_backend import StorageBackend

_CATEGORIES = ("preferences", "tasks", "", "%", "Tasks")
_TAGS = ("ui", "urgent", "UI", "u", "%", "")
_TYPES = ("task", "tool", "")
_ENTITIES = (None, "1", "2", "")
_KEYS = ("theme", "Theme", "them_", "")
_WHERES: tuple[dict[Any, Any], ...] = (
    {"n": {"$gte": 2}},
    {"s": "a"},
    {"$or": [{"n": 1}, {"flag": True}]},
    {"d.x": {"$exists": True}},
    {"$not": {"n": {"$in": [0, 1]}}},
    {"l": {"$contains": 1}},
    {"s": {"$icontains": "A"}},
    {"s": {"$startswith": "b"}},
    {"l": {"$any": {"$gte": 1}}},
    {"l": {"$all": "1"}},
)


def a_crowd(seed: int = 7, count: int = 60) -> list[MemoryEntry]:
    """Return entries that share categories, keys, tags, entities and instants in many combinations."""
    rng = random.Random(seed)  # noqa: S311 - a fixed choice, no secret
    crowd = []
    for number in range(count):
        value: dict[str, Any] = {"n": rng.randrange(4), "s": rng.choice("ab")}
        if rng.random() < 0.5:
            value |= {
                "flag": rng.choice([True, 1]),
                "d": {"x": None} if rng.random() < 0.5 else {},
                "l": [rng.choice([1, True, "1"])],
            }
        crowd.append(
            MemoryEntry(
                f"id-{number}",
                rng.choice(_CATEGORIES),
                rng.choice(_KEYS),
                value,
                rng.sample(_TAGS, rng.randrange(4)),
                rng.choice(_TYPES),
                rng.choice(_ENTITIES),
                NOON + timedelta(hours=rng.randrange(6)),
                {} if number % 3 else {"created_at": (NOON + timedelta(hours=number % 7)).isoformat()},
            )
        )
    return crowd


def expected(crowd: list[MemoryEntry], query: MemoryQuery) -> list[str]:
    """Return the ids that `query` must return, in order; `crowd` is in the order of writing."""

    def place(number: int, entry: MemoryEntry) -> tuple[Any, ...]:
        first = {"changed": 0, "created": entry.created_at, "key": entry.key}[query.order]
        return first, entry.timestamp, number

    ordered = sorted(enumerate(crowd), key=lambda each: place(*each), reverse=not query.is_ascending)
    matching = [entry.id for _, entry in ordered if query.matches(entry)][query.offset :]
    return matching[: query.limit]


class CrowdPromises(Promises):
    """The base of groups that ask about sixty entries."""

    @pytest.fixture
    def crowd(self, backend: StorageBackend) -> list[MemoryEntry]:
        """Return sixty entries that were stored in this order."""
        crowd = a_crowd()
        for entry in crowd:
            backend.create(entry)
        return crowd

    def _agree(self, backend: StorageBackend, crowd: list[MemoryEntry], query: MemoryQuery) -> None:
        wanted = expected(crowd, query)
        assert [entry.id for entry in backend.select(query)] == wanted, query
        assert [entry.id for entry in backend.iterate(query)] == wanted, query
        assert backend.count(query) == len(wanted), query


class FilterPromises(CrowdPromises):
    """Filters, value filters, paging, counting, iterating."""

    def test_every_combination_of_filters_means_what_the_query_means(
        self, backend: StorageBackend, crowd: list[MemoryEntry]
    ) -> None:
        combinations = itertools.product(
            (None, "tasks", ""), (None, ["ui"], ["u", "urgent"]), (None, "task"), (None, "1", ""), (None, "theme")
        )
        for category, tags, entity_type, entity_id, key in combinations:
            query = MemoryQuery(category=category, tags=tags, entity_type=entity_type, entity_id=entity_id, key=key)
            self._agree(backend, crowd, query)
            by_verb = backend.query(category, tags, entity_type, entity_id, key)
            assert [entry.id for entry in by_verb] == expected(crowd, query)

    def test_tags_match_any_or_all_and_whole(self, backend: StorageBackend, crowd: list[MemoryEntry]) -> None:
        for wanted in (["ui"], ["u"], ["%"], [""], ["ui", "urgent"], ["ui", "ui"], ["ui", "absent"], ["absent"]):
            for how in ("any", "all"):
                self._agree(backend, crowd, MemoryQuery(tags=wanted, tags_match=how))
                self._agree(backend, crowd, MemoryQuery(tags=wanted, tags_match=how, category="tasks", limit=3))

    def test_an_empty_list_of_tags_matches_nothing(self, backend: StorageBackend, crowd: list[MemoryEntry]) -> None:
        assert len(crowd) == 60
        assert backend.query(tags=[]) == backend.select(MemoryQuery(tags=[], tags_match="all")) == []
        assert backend.count(MemoryQuery(tags=[])) == 0

    @pytest.mark.usefixtures("crowd")
    def test_excluded_tags_leave_out_what_has_any_of_them(self, backend: StorageBackend) -> None:
        listed = backend.list_all()[::-1]
        excluded: tuple[list[str] | None, ...] = (
            ["ui"],
            ["ui", "urgent", "ui"],
            [""],
            ["%"],
            ["absent", "u"],
            [],
            None,
        )
        others: tuple[dict[str, Any], ...] = (
            {},
            {"limit": 3},
            {"category": "tasks", "limit": 2},
            {"entity_type": "task"},
            {"key": "theme"},
            {"entity_id": "1", "until": NOON + timedelta(hours=3)},
            {"where": {"s": "a"}, "limit": 4},
            {"after": listed[40], "limit": 5},
        )
        for unwanted, tags, other in itertools.product(excluded, (None, ["ui"], ["u", "ui", "urgent"]), others):
            for how in ("any", "all"):
                self._agree(backend, listed, MemoryQuery(exclude_tags=unwanted, tags=tags, tags_match=how, **other))

    def test_many_tags_mean_what_few_mean(self, backend: StorageBackend) -> None:
        many, rng = [f"tag-{number}" for number in range(40)], random.Random(5)  # noqa: S311 - no secret
        numbers = (40, 40, 39, 12, 9, 3, 0)
        for number, tagged in enumerate(numbers):
            tags = [*rng.sample(many, tagged), "more"]
            backend.create(an_entry(str(number), category=f"c-{number % 2}", key=f"k-{number % 3}", tags=tags))
        listed = backend.list_all()
        others: tuple[dict[str, Any], ...] = (
            {},
            {"limit": 2},
            {"category": "c-0", "limit": 1},
            {"key": "k-0"},
            {"where": {"mode": "dark"}, "limit": 2},
            {"where": {"mode": "light"}},
            {"after": listed[2], "limit": 2},
            {"exclude_tags": many[:12], "limit": 1},
            {"offset": 1, "limit": 1},
            {"order": "created", "limit": 2, "ascending": True},
            {"order": "key", "offset": 1, "limit": 3},
            {"keys": ["k-0", "k-1"], "limit": 2},
        )
        for asked, other in itertools.product((many, many[:9], many[::-3], [*many[:20], "absent"]), others):
            for how in ("any", "all"):
                self._agree(backend, listed[::-1], MemoryQuery(tags=asked, tags_match=how, **other))
            self._agree(backend, listed[::-1], MemoryQuery(**{"exclude_tags": asked, "tags": ["more"], **other}))
        assert backend.count(MemoryQuery(tags=many, tags_match="all")) == 2

    def test_many_tags_find_and_erase_what_was(self, past: MemoryModule, later: FakeClock) -> None:
        self.need(past.backend, Erases)
        many = [f"tag-{number}" for number in range(30)]
        whole = past.create_memory("c", "whole", {}, "t", tags=many)
        part, rest = (past.create_memory("c", "part", {}, "t", tags=tags) for tags in (many[:20], many[20:]))
        then = later.now = later.now + timedelta(hours=1)
        later.step(hours=1)
        for memory_id in (whole, part, rest):
            past.update_memory(memory_id, {}, tags=["other"])

        assert [each.id for each in past.search_memories(tags=many, tags_match="all", as_of=then)] == [whole]
        assert [each.id for each in past.search_memories(tags=many, as_of=then)] == [rest, part, whole]
        assert [each.id for each in past.search_memories(tags=many, limit=1, as_of=then)] == [rest]
        assert past.count_memories(tags=many, tags_match="all", as_of=then) == 1
        assert past.erase_memories(tags=many, tags_match="all").memories == 1
        assert [each.id for each in past.search_memories()] == [rest, part]

    def test_many_tags_do_not_find_what_has_expired(self, backend: StorageBackend, clock: FakeClock) -> None:
        self.need(backend, Expires)
        memory, many = MemoryModule(storage_backend=backend, clock=clock), [str(number) for number in range(20)]
        memory.create_memory("c", "mortal", {}, "t", tags=many, ttl=timedelta(hours=1))
        memory.create_memory("c", "other", {}, "t", ttl=timedelta(hours=1))
        memory.create_memory("c", "immortal", {}, "t", tags=many)

        clock.step(hours=2)

        assert memory.count_memories(tags=many) == memory.count_memories(tags=many, tags_match="all") == 1
        assert [each.key for each in memory.search_memories(tags=many, limit=5)] == ["immortal"]

    def test_excluded_tags_may_be_named_before_anything_has_them(self, backend: StorageBackend) -> None:
        backend.create(an_entry("1", tags=[]))
        query = MemoryQuery(exclude_tags=["late"])
        assert backend.count(query) == 1

        backend.create(an_entry("2", tags=["late"]))

        assert [entry.id for entry in backend.select(query)] == [entry.id for entry in backend.iterate(query)] == ["1"]
        assert backend.count(query) == 1

    def test_a_tag_that_was_erased_and_given_anew_is_excluded_by_every_handle(
        self, backend: StorageBackend, open_backend: OpenBackend
    ) -> None:
        self.need(backend, Erases)
        query, other = MemoryQuery(exclude_tags=["late"]), open_backend()
        backend.create(an_entry("1", tags=["late"]))
        assert other.select(query) == []

        with backend.capability(Transactional).transaction():
            backend.capability(Erases).erase(None)
        backend.create(an_entry("2", tags=["between"]))
        backend.create(an_entry("3", tags=["late"]))

        assert [entry.id for entry in other.select(query)] == ["2"]
        other.shutdown()

    def test_an_empty_string_is_a_filter_that_matches_the_empty_string(
        self, backend: StorageBackend, crowd: list[MemoryEntry]
    ) -> None:
        for query in (MemoryQuery(category=""), MemoryQuery(key=""), MemoryQuery(entity_id=""), MemoryQuery(tags=[""])):
            assert 0 < backend.count(query) < 60
            self._agree(backend, crowd, query)

    def test_no_wildcards_and_no_case_folding(self, backend: StorageBackend, crowd: list[MemoryEntry]) -> None:
        for query in (
            MemoryQuery(category="%"),
            MemoryQuery(category="TASKS"),
            MemoryQuery(key="them_"),
            MemoryQuery(key="Theme"),
            MemoryQuery(tags=["UI"]),
            MemoryQuery(category="* OR 1=1"),
        ):
            self._agree(backend, crowd, query)

    def test_since_is_inclusive_and_until_exclusive(self, backend: StorageBackend, crowd: list[MemoryEntry]) -> None:
        for since, until in itertools.product((None, 1, 2, 9), (None, 2, 4, -1)):
            query = MemoryQuery(
                since=None if since is None else NOON + timedelta(hours=since),
                until=None if until is None else NOON + timedelta(hours=until),
            )
            self._agree(backend, crowd, query)
            self._agree(backend, crowd, MemoryQuery(since=query.since, until=query.until, tags=["ui"], limit=5))

    @pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
    def test_the_ends_of_the_calendar_are_moments_to_ask_about_in_every_zone(
        self, backend: StorageBackend, crowd: list[MemoryEntry], in_zone: Callable[[str], None], zone: str
    ) -> None:
        in_zone(zone)
        day = timedelta(days=1)

        for since in (FIRST, FIRST + day / 2, FIRST.replace(tzinfo=UTC), None):
            for until in (LAST, LAST - day / 2, LAST.replace(tzinfo=UTC), None):
                query = MemoryQuery(since=since, until=until)
                self._agree(backend, crowd, query)
                assert backend.count(query) == len(crowd)
        assert backend.count(MemoryQuery(since=LAST)) == backend.count(MemoryQuery(until=FIRST)) == 0
        assert backend.count(MemoryQuery(after=an_entry(timestamp=LAST))) == len(crowd)

    def test_value_filters_mean_the_same_as_in_plain_python(
        self, backend: StorageBackend, crowd: list[MemoryEntry]
    ) -> None:
        for where in _WHERES:
            self._agree(backend, crowd, MemoryQuery(where=where))
            self._agree(backend, crowd, MemoryQuery(where=where, category="tasks", limit=2))
            self._agree(backend, crowd, MemoryQuery(where=where, tags=["ui"], key="theme"))

    def test_limit_cuts_the_list_and_zero_is_nothing(self, backend: StorageBackend, crowd: list[MemoryEntry]) -> None:
        for limit in (0, 1, 7, 60, 1000):
            self._agree(backend, crowd, MemoryQuery(limit=limit))
            self._agree(backend, crowd, MemoryQuery(limit=limit, tags=["ui", "u"]))

    @pytest.mark.usefixtures("crowd")
    def test_pages_by_entry_or_cursor_give_the_whole_list_once(self, backend: StorageBackend) -> None:
        for filters in ({}, {"category": "tasks"}, {"tags": ["ui", "u"]}, {"where": {"s": "a"}}):
            whole = [entry.id for entry in backend.select(MemoryQuery(**filters))]
            for as_cursor in (False, True):
                pages: list[str] = []
                last: MemoryEntry | str | None = None
                while page := backend.select(MemoryQuery(limit=4, after=last, **filters)):
                    pages += [entry.id for entry in page]
                    last = page[-1].cursor if as_cursor else page[-1]
                assert pages == whole

    @pytest.mark.usefixtures("crowd")
    def test_paging_is_stable_while_others_write(self, backend: StorageBackend) -> None:
        whole = [entry.id for entry in backend.list_all()]
        first = backend.select(MemoryQuery(limit=10))

        backend.create(an_entry("newest", timestamp=NOON + timedelta(days=1)))
        backend.delete(first[-1].id)
        backend.delete(whole[30])
        rest = backend.select(MemoryQuery(after=first[-1]))

        assert [entry.id for entry in rest] == [each for each in whole[10:] if each != whole[30]]

    @pytest.mark.usefixtures("crowd")
    def test_an_iteration_sees_the_store_as_it_was_at_its_first_step(self, backend: StorageBackend) -> None:
        before = [entry.id for entry in backend.list_all()]
        steps = backend.iterate(MemoryQuery())
        seen = [next(steps).id]

        backend.create(an_entry("new", timestamp=NOON + timedelta(days=1)))
        backend.delete(before[20])
        backend.update(an_entry(before[30], timestamp=NOON + timedelta(days=1)))
        seen += [entry.id for entry in steps]

        assert seen == before

    def test_changing_a_filter_that_was_passed_in_changes_no_answer(self, backend: StorageBackend) -> None:
        backend.create(an_entry(value={"n": 1}))
        members = {1}
        where: dict[str, Any] = {"n": {"$in": [1]}, "$and": ({"n": {"$in": members}},)}
        tags = ["ui"]
        query = MemoryQuery(where=where, tags=tags)

        where["n"]["$in"].append(2)
        where["m"] = 3
        members.clear()
        tags.append("x")

        assert list(backend.iterate(query)) == backend.select(query) == [an_entry(value={"n": 1})]
        assert query.tags == ("ui",)

    @pytest.mark.parametrize(
        "filters",
        [
            {"category": 1},
            {"key": b"theme"},
            {"entity_id": 1},
            {"tags": "ui"},
            {"tags": [1]},
            {"tags": {"ui": 1}},
            {"exclude_tags": "ui"},
            {"exclude_tags": [1]},
            {"exclude_tags": ["\ud800"]},
            {"exclude_tags": [str(number) for number in range(501)]},
            {"tags_match": "most"},
            {"limit": -1},
            {"limit": True},
            {"limit": "10"},
            {"since": "yesterday"},
            {"after": "id-1"},
            {"after": 5},
            {"where": "status"},
            {"where": {"$gt": 1}},
            {"where": {"n": {"$gtt": 1}}},
            {"where": {"n": {"$in": "ab"}}},
            {"where": {"n": {"$exists": 1}}},
            {"where": {"n": {"$gt": [1]}}},
            {"where": {"n": {"$gt": None}}},
            {"where": {"$or": []}},
            {"where": {1: 1}},
            {"where": {"n": object()}},
            {"where": {"n": {"$contains": int}}},
            {"where": {"n": {"$icontains": 1}}},
            {"where": {"n": {"$icontains": ["a"]}}},
            {"where": {"n": {"$startswith": None}}},
            {"where": {"n": {"$startswith": b"a"}}},
            {"where": {"n": {"$all": ["a", "b"]}}},
            {"where": {"n": {"$any": ("a",)}}},
            {"where": {"n": {"$any": {"$lt": 1, "a": 1}}}},
            {"where": {"n": {"$any": {"$or": []}}}},
            {"key": "\ud800"},
            {"tags": ["\ud800"]},
            {"tags": [str(number) for number in range(501)]},
            {"limit": 10**30},
            {"after": f"{10**30}:1:x"},
            {"after": "+1:2:3:9:short"},
            {"keys": "theme"},
            {"keys": [1]},
            {"keys": ["\ud800"]},
            {"keys": [str(number) for number in range(10_001)]},
            {"key_prefix": 1},
            {"key_prefix": "\ud800"},
            {"category_prefix": ["a"]},
            {"order": "age"},
            {"order": None},
            {"order": ["key"]},
            {"ascending": 1},
            {"offset": -1},
            {"offset": True},
            {"offset": None},
            {"offset": 10**30},
            {"category": ABSENT},
            {"entity_id": NEVER},
        ],
    )
    def test_a_filter_that_means_nothing_is_an_error_that_names_it(self, filters: dict[str, Any]) -> None:
        with pytest.raises(InvalidQueryError, match=next(iter(filters))):
            MemoryQuery(**filters)

    @pytest.mark.parametrize("name", ["$and", "$or"])
    def test_a_filter_of_shared_conditions_that_explodes_is_refused(self, name: str) -> None:
        where: dict[str, Any] = {"n": 1}
        for _ in range(45):
            where = {name: [where, where]}

        with pytest.raises(InvalidQueryError, match="conditions and operands"):
            MemoryQuery(where=where)

    @pytest.mark.parametrize("kind", [dict, list, tuple])
    def test_an_operand_that_explodes_is_refused(self, kind: type) -> None:
        for condition in (exploding(kind), {"$ne": exploding(kind)}, {"$in": [exploding(kind)]}):
            with pytest.raises(InvalidQueryError, match="conditions and operands"):
                MemoryQuery(where={"n": condition})

    def test_a_filter_that_is_nested_without_end_is_refused(self) -> None:
        endless: dict[str, Any] = {}
        endless["$not"] = endless
        deep: Any = 1
        for _ in range(100_000):
            deep = [deep]

        for where in (endless, {"n": endless}, {"n": deep}, {"n": {"$in": deep}}):
            with pytest.raises(InvalidQueryError, match="nested deeper"):
                MemoryQuery(where=where)

    def test_large_sets_are_compared_member_by_member(self, backend: StorageBackend) -> None:
        numbers = {(number, str(number)) for number in range(20_000)}
        backend.create(an_entry("1", value={"set": numbers}))
        backend.create(an_entry("2", value={"set": {*numbers, "x"} - {(0, "0")}}))

        matches = backend.select(MemoryQuery(where={"set": frozenset(numbers)}))

        assert [entry.id for entry in matches] == ["1"]
