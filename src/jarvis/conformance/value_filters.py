"""Promises of value filters: what a condition on the value of an entry means."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest

from jarvis.capabilities import Erases
from jarvis.conformance.fixtures import NOON, FakeClock, Promises, an_entry
from jarvis.errors import InvalidQueryError
from jarvis.model.query import MemoryQuery
from jarvis.model.value_filter import compile_where
from jarvis.persistent_memory import MemoryModule
from jarvis.storage_backend import StorageBackend

_STORED: tuple[Any, ...] = (
    *(0, 1, -0.0, 1.5, 2**53, 2**53 + 1, 2.0**53, 2**63, 2**64 - 1, 2.0**64, 2**70, -(2**70), 1e308, 5e-324),
    *(Decimal(1), Decimal("1.5"), Decimal(2**53 + 1), Decimal("NaN"), float("nan"), float("inf"), True, False, None),
    *("", "a", "ab", "a\0b", "a\ud800", "\ud7ff", "\ue000", "\U0010ffff", "{", "1", "again and again " * 500),
    *(b"a", NOON, time(1), [1], [], {"x": 1}, {"$type": "int", "x": 1}, (1,), {1}),
)
"""Values that stores keep in forms of their own, or that a database reads otherwise than Python."""

_CONDITIONS: tuple[Any, ...] = (
    *(0, 1, 1.5, 2**53 + 1, 2.0**53, 2**64 - 1, 2**70, True, None, "a", "a\0b", "a\ud800", "", NOON, Decimal("1.5")),
    *({name: 1} for name in ("$gt", "$gte", "$lt", "$lte", "$ne")),
    *({name: 2**53 + 1} for name in ("$gt", "$gte", "$lt", "$lte")),
    *({name: "a"} for name in ("$gt", "$gte", "$lt", "$lte", "$startswith", "$icontains")),
    *({"$gt": False}, {"$gt": 1e400}, {"$lt": 10**400}, {"$gte": "\ud7ff"}, {"$startswith": "\ud7ff"}, {"$gt": b""}),
    *({"$in": [1, "a", True]}, {"$in": [2**53 + 1, 1.5]}, {"$in": [None, "\ud800"]}, {"$in": []}, {"$nin": [1, "a"]}),
    *({"$exists": True}, {"$exists": False}, {"$gt": 0, "$lt": 2}, {"$not": {"$gt": 0}}),
)


class ValueFilterPromises(Promises):
    """Conditions on values: kinds, texts, elements of lists, paths."""

    def test_a_filter_finds_what_matches_in_whatever_form_it_is_stored(self, backend: StorageBackend) -> None:
        entries = [an_entry(str(number), value={"v": value}) for number, value in enumerate(_STORED)]
        entries += [an_entry("none", value={}), an_entry("tagged", value={"v": 1, "$type": "x", "d": {"v": 1}})]
        for entry in entries:
            backend.create(entry)
        entries.reverse()  # newest first

        for condition in _CONDITIONS:
            for path, others in (
                ("v", {}),
                ("v", {"limit": 3, "offset": 1, "tags": ["ui", "x"]}),
                (("v", "x"), {"key": "theme"}),
            ):
                query = MemoryQuery(where={path: condition}, **others)
                wanted = [entry.id for entry in entries if query.matches(entry)][query.offset :][: query.limit]
                assert [entry.id for entry in backend.select(query)] == wanted, query
                assert [entry.id for entry in backend.iterate(query)] == wanted, query
                assert backend.count(query) == len(wanted), query

    def test_a_filter_on_values_finds_and_erases_what_was(self, past: MemoryModule, later: FakeClock) -> None:
        self.need(past.backend, Erases)
        values = {past.create_memory("c", "k", {"v": value}, "t"): {"v": value} for value in _STORED}
        then = later.now = later.now + timedelta(hours=1)
        later.step(hours=1)
        for memory_id in values:
            past.update_memory(memory_id, {})

        for condition in _CONDITIONS:
            test = compile_where({"v": condition})
            wanted = {memory_id for memory_id, value in values.items() if test(value)}
            assert {entry.id for entry in past.search_memories(where={"v": condition}, as_of=then)} == wanted
            assert past.count_memories(where={"v": condition}, as_of=then) == len(wanted)
        erased = sum(map(compile_where({"v": {"$gte": 1}}), values.values()))
        assert past.erase_memories(where={"v": {"$gte": 1}}).memories == erased
        assert past.count_memories() == len(values) - erased

    def test_value_filters_compare_within_a_type_only(self, backend: StorageBackend) -> None:
        values: dict[str, Any] = {
            "int": 10,
            "float": 10.0,
            "text": "10",
            "true": True,
            "one": 1,
            "null": None,
            "list": [10],
            "dict": {"x": 10},
        }
        for entry_id, value in values.items():
            backend.create(an_entry(entry_id, value={"v": value}))
        backend.create(an_entry("missing", value={}))

        def matches(condition: Any) -> set[str]:
            return {entry.id for entry in backend.select(MemoryQuery(where={"v": condition}))}

        assert matches(10) == {"int", "float"}
        assert matches({"$gt": 5}) == {"int", "float"}
        assert matches("10") == {"text"}
        assert matches(True) == {"true"}
        assert matches(1) == {"one"}
        assert matches(None) == {"null"}
        assert matches({"$exists": False}) == {"missing"}
        assert matches({"$contains": 10}) == {"list"}
        assert matches({"$ne": 10}) == {*values, "missing"} - {"int", "float"}
        assert matches({"$in": [1, None]}) == {"one", "null"}
        assert {entry.id for entry in backend.select(MemoryQuery(where={"v.x": 10}))} == {"dict"}

    def test_texts_are_found_by_a_part_in_any_case_and_by_their_beginning(self, backend: StorageBackend) -> None:
        values = {"1": "Straße", "2": ["STRASSE", "x"], "3": 1, "4": "ΣΊΣΥΦΟΣ", "5": ["a strasse"]}
        for entry_id, value in values.items():
            backend.create(an_entry(entry_id, value={"v": value}))
        backend.create(an_entry("missing", value={}))

        def matches(condition: Any) -> set[str]:
            return {entry.id for entry in backend.select(MemoryQuery(where={"v": condition}))}

        assert matches({"$icontains": "strasse"}) == matches({"$icontains": "STRAßE"}) == {"1", "2"}
        assert matches({"$icontains": "σίσυφος"}) == {"4"}
        assert matches({"$icontains": ""}) == {"1", "4"}  # an element of a list is compared whole, as by $contains
        assert matches({"$startswith": "Str"}) == {"1"}
        assert matches({"$startswith": "str"}) == set()
        assert matches({"$startswith": ""}) == {"1", "4"}

    def test_conditions_on_elements_are_for_lists_and_name_paths_in_dicts(self, backend: StorageBackend) -> None:
        values: dict[str, Any] = {
            "empty": [],
            "low": [1, 2],
            "both": (1, 9),
            "high": {8, 9},
            "texts": ["9", None],
            "steps": [{"status": "ok", "seconds": 9}, {"status": "failed", "seconds": 1}],
            "slow": [{"status": "failed", "seconds": 9}, 9],
            "nested": [[9], [1]],
            "no list": 9,
            "dict": {"status": "failed", "seconds": 9},
        }
        for entry_id, value in values.items():
            backend.create(an_entry(entry_id, value={"v": value}))
        backend.create(an_entry("missing", value={}))

        def matches(condition: Any) -> set[str]:
            return {entry.id for entry in backend.select(MemoryQuery(where={"v": condition}))}

        assert matches({"$any": {"$gt": 5}}) == {"both", "high", "slow"}
        assert matches({"$all": {"$gt": 5}}) == {"empty", "high"}  # nothing in an empty list fails a condition
        assert matches({"$any": 9}) == matches({"$contains": 9}) == {"both", "high", "slow"}
        assert matches({"$all": {"$in": ["9", None]}}) == {"empty", "texts"}
        assert matches({"$any": {"status": "failed", "seconds": {"$gt": 5}}}) == {"slow"}  # one element satisfies both
        assert matches({"$any": {"$or": [{"status": "ok"}, {"seconds": 9}]}}) == {"steps", "slow"}
        assert matches({"$all": {"seconds": {"$exists": True}}}) == {"empty", "steps"}
        assert matches({"$all": {"$not": {"status": "failed"}}}) == set(values) - {"steps", "slow", "no list", "dict"}
        assert matches({"$any": {"$eq": {"status": "ok", "seconds": 9}}}) == {"steps"}
        assert matches({"$any": {"$all": 9}}) == {"nested"}
        assert matches({"$any": {}}) == {"steps", "slow"}
        assert matches({"$not": {"$any": {"$exists": True}}}) == {"empty", "no list", "dict", "missing"}

    @pytest.mark.parametrize(
        ("where", "hint"),
        [
            ({"n": {"$contain": 1}}, r"did you mean '\$contains'\?"),
            ({"n": {"$iconatins": "a"}}, r"did you mean '\$icontains'\?"),
            ({"n": {"$any": {"$gtt": 1}}}, r"did you mean '\$gte?'\?"),
            ({"$nott": {"n": 1}}, r"did you mean '\$not'\?"),
            ({"$gt": 1}, "only paths"),
        ],
    )
    def test_an_unknown_operator_names_the_nearest_and_the_page(self, where: dict[str, Any], hint: str) -> None:
        with pytest.raises(InvalidQueryError, match=rf"{hint}.*docs/reference/value-filters\.md"):
            MemoryQuery(where=where)

    def test_what_cannot_be_compared_does_not_match_and_does_not_fail(self, backend: StorageBackend) -> None:
        odd = [Decimal("NaN"), Decimal("sNaN"), float("nan"), time(1), time(1, tzinfo=UTC), datetime(2026, 1, 1)]  # noqa: DTZ001 - naive is the point
        for number, value in enumerate(odd):
            backend.create(an_entry(str(number), value={"v": value}))

        def matches(condition: Any) -> set[str]:
            return {entry.id for entry in backend.select(MemoryQuery(where={"v": condition}))}

        assert matches({"$gt": 1}) == matches(Decimal("NaN")) == matches({"$lt": NOON}) == set()
        assert matches({"$gte": time(0)}) == matches(time(1)) == {"3"}
        assert matches({"$gte": time(0, tzinfo=UTC)}) == {"4"}

    def test_a_tuple_is_a_path_whose_keys_may_hold_dots(self, backend: StorageBackend) -> None:
        backend.create(an_entry("dotted", value={"a.b": {"c": 1}}))
        backend.create(an_entry("nested", value={"a": {"b": {"c": 1}}}))

        assert [entry.id for entry in backend.select(MemoryQuery(where={("a.b", "c"): 1}))] == ["dotted"]
        assert [entry.id for entry in backend.select(MemoryQuery(where={"a.b.c": 1}))] == ["nested"]
