"""Promises of value filters: what a condition on the value of an entry means."""

from __future__ import annotations

from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any

from jarvis.conformance.fixtures import NOON, Promises, an_entry
from jarvis.model.entry import MemoryQuery
from jarvis.storage_backend import StorageBackend


class ValueFilterPromises(Promises):
    """Conditions on values: kinds, texts, elements of lists, paths."""

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
