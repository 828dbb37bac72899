"""Promises of the table view: values by key over ordinary memories."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from jarvis.capabilities import Erases, Expires, KeepsHistory, Transactional
from jarvis.conformance.fixtures import FakeClock, Promises
from jarvis.errors import InvalidEntryError, InvalidQueryError
from jarvis.persistent_memory import MemoryModule, Table


class TablePromises(Promises):
    """The table view."""

    @pytest.fixture
    def table(self, memory: MemoryModule) -> Table:
        """Return an empty table, beside a memory of another category with the same key."""
        self.need(memory.backend, Transactional)
        memory.create_memory("others", "a", {"n": 0}, "other")
        return memory.table("things")

    def test_what_is_put_is_got(self, table: Table, memory: MemoryModule) -> None:
        table.put("a", {"n": 1})
        table.put_many({"b": {"n": 2}, "a/1": {"n": 3}})

        assert table.get("a") == {"n": 1}
        assert (table.get("c"), table.get("c", {"n": 9})) == (None, {"n": 9})
        assert list(table.get_many(["b", "c", "a", "b"]).items()) == [("b", {"n": 2}), ("a", {"n": 1})]
        assert table.keys() == ["a", "a/1", "b"]
        assert table.keys("a", limit=1, after="a") == ["a/1"]
        assert table.items() == [("a", {"n": 1}), ("a/1", {"n": 3}), ("b", {"n": 2})]
        assert table.items("a", where={"n": {"$gt": 1}}) == table.items(limit=1, offset=1) == [("a/1", {"n": 3})]
        assert (table.count(), table.count("a"), table.count(where={"n": 2})) == (3, 2, 1)
        assert memory.table("others").items() == [("a", {"n": 0})]

    def test_a_put_replaces_all(self, table: Table, memory: MemoryModule, clock: FakeClock) -> None:
        self.need(memory.backend, Expires)
        table.put("a", {"n": 1}, tags=["x"], entity_type="user", entity_id="7", ttl=60)
        (first,) = memory.search_memories("things")
        table.put("a", {"n": 2})
        (entry,) = memory.search_memories("things")

        assert (first.tags, first.entity_type, first.entity_id, first.expires_at is None) == (["x"], "user", "7", False)
        assert (entry.id, entry.tags, entry.entity_type, entry.entity_id) == (first.id, [], "", None)
        assert entry.expires_at is None
        clock.step(hours=1)
        assert table.get("a") == {"n": 2}
        table.put("a", {"n": 3}, ttl=60)
        clock.step(hours=1)
        assert (table.get("a"), table.keys(), table.count()) == (None, [], 0)

    def test_an_absent_key_is_put_once(self, table: Table) -> None:
        def attempt(number: int) -> bool:
            return table.put_if_absent("a", {"n": number}, tags=["x"])

        with ThreadPoolExecutor(4) as threads:
            done = list(threads.map(attempt, range(8)))

        assert done.count(True) == 1
        assert table.items() == [("a", {"n": done.index(True)})]

    def test_a_key_is_popped_once(self, table: Table) -> None:
        table.put("a", {"n": 1})

        with ThreadPoolExecutor(4) as threads:
            popped = list(threads.map(lambda _: table.pop("a"), range(8)))

        assert sorted(map(str, popped)) == ["None"] * 7 + ["{'n': 1}"]
        assert table.pop("a", {"n": 9}) == {"n": 9}

    def test_keys_are_deleted_all_or_none(self, table: Table, memory: MemoryModule) -> None:
        table.put_many({key: {} for key in "abcd"})

        assert (table.delete("a"), table.delete("a"), table.delete_many(["b", "c", "x"])) == (True, False, 2)
        assert table.keys() == ["d"]
        assert (table.clear(), table.clear(), memory.count_memories()) == (1, 0, 1)

    def test_clearing_keeps_the_past_unless_it_is_asked_not_to(self, table: Table, past: MemoryModule) -> None:
        self.need(past.backend, Erases)
        past.acting_as(module="m")
        table.put("a", {"n": 1})
        (entry,) = past.search_memories("things")
        table.clear()
        assert [revision.entry.value for revision in past.get_history(entry.id)] == [{"n": 1}]

        table.put("b", {"n": 2})
        assert table.clear(history=True) == 2
        assert past.get_history(entry.id) == []
        assert past.backend.has_capability(KeepsHistory)

    @pytest.mark.parametrize("items", [None, ["a"], "a"])
    def test_many_items_that_are_no_dict_are_refused(self, table: Table, items: Any) -> None:
        with pytest.raises(InvalidEntryError, match="items"):
            table.put_many(items)

    def test_a_wrong_item_changes_nothing_and_a_wrong_name_is_named(self, table: Table, memory: MemoryModule) -> None:
        with pytest.raises(InvalidEntryError, match="value"):
            table.put_many({"a": {}, "b": {"o": object()}})
        with pytest.raises(InvalidQueryError, match="key"):
            table.get(1)  # type: ignore[arg-type]  # hostile
        with pytest.raises(InvalidEntryError, match="category"):
            memory.table(1)  # type: ignore[arg-type]  # hostile
        assert table.keys() == []
