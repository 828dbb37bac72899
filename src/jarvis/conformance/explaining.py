"""Promises of explanations: their figures are those of the answer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from jarvis.capabilities import Transactional
from jarvis.conformance.filters import CrowdPromises
from jarvis.conformance.fixtures import NOON, FakeClock
from jarvis.model.explanation import filters_of
from jarvis.model.query import MemoryQuery
from jarvis.persistent_memory import MemoryModule
from jarvis.storage_backend import StorageBackend

_ASKED: tuple[dict[str, Any], ...] = (
    {},
    {"category": "tasks"},
    {"category": "absent", "where": {"n": 1}},
    {"key": "theme", "tags": ["ui", "u"]},
    {"keys": ["theme", "Theme"]},
    {"key_prefix": "them", "entity_type": "task"},
    {"category_prefix": "ta", "order": "key", "limit": 3},
    {"tags": ["ui"], "exclude_tags": ["u"]},
    {"tags": ["ui", "urgent", "u"], "limit": 4},
    {"tags": ["ui", "urgent"], "tags_match": "all"},
    {"tags": [*map(str, range(20)), "ui"]},
    {"tags": ["ui", "u"] * 6, "tags_match": "all", "limit": 1},
    {"tags": ["ui"], "exclude_tags": [*map(str, range(20)), "u"]},
    {"since": NOON + timedelta(hours=2), "until": NOON + timedelta(hours=4)},
    {"where": {"n": {"$gte": 2}, "s": "a"}},
    {"where": {"$or": [{"n": 1}, {"flag": True}]}, "limit": 5, "offset": 2},
    {"where": {"s": "a"}, "category": "tasks", "order": "created", "limit": 2},
    {"limit": 0},
)


class ExplainingPromises(CrowdPromises):
    """What was looked at, returned and decided."""

    @pytest.mark.usefixtures("crowd")
    @pytest.mark.parametrize("asked", _ASKED, ids=str)
    def test_an_explanation_agrees_with_the_answer(self, backend: StorageBackend, asked: dict[str, Any]) -> None:
        query = MemoryQuery(**asked)

        for counting, returned in ((False, len(backend.select(query))), (True, backend.count(query))):
            told = backend.explain(query, counting=counting)
            assert told.returned == returned
            assert returned <= told.looked_at
            assert told.judged <= told.looked_at
            assert {name.split()[0] for name in (*told.in_database, *told.in_python)} == set(filters_of(query))
            assert f"{returned} returned of {told.looked_at} looked at" in str(told)
            assert told.index in str(told) or told.index == "none"

    @pytest.mark.usefixtures("crowd")
    def test_a_hint_tells_that_no_index_finds_a_filter(self, backend: StorageBackend) -> None:
        hinted = backend.explain(MemoryQuery(where={"n": 1}))

        assert hinted.looked_at == 60
        assert f"hint: {hinted.hint}" in str(hinted)
        assert hinted.hint is not None
        for narrow in ({"category": "tasks"}, {"key": "theme"}, {"tags": ["ui"]}, {"entity_id": "1"}, {}):
            told = backend.explain(MemoryQuery(**narrow))
            assert told.hint is None or told.index == "none"
            assert "hint" not in str(told) or told.index == "none"

    def test_a_module_explains_what_it_searches_and_counts(self, memory: MemoryModule) -> None:
        for number in range(6):
            memory.record_task(str(number), {"n": number})

        found = memory.search_memories("tasks", where={"n": {"$gt": 1}}, limit=2, explain=True)
        counted = memory.count_memories("tasks", explain=True)

        assert (found.returned, counted.returned) == (2, 6)
        assert "where" in found.in_python
        assert memory.search_memories("tasks", explain=False)[0].key == "task_5"

    def test_an_explanation_sees_the_changes_of_its_transaction(self, memory: MemoryModule) -> None:
        self.need(memory.backend, Transactional)
        with memory.transaction():
            memory.record_task("1", {"n": 1})

            assert memory.search_memories("tasks", explain=True).returned == 1

    def test_the_past_is_explained_too(self, past: MemoryModule, later: FakeClock) -> None:
        ids = [past.record_task(str(number), {"n": number}) for number in range(4)]
        then = later.now = later.now + timedelta(hours=1)
        later.step(hours=1)
        past.delete_memory(ids[0])
        past.update_memory(ids[1], {"n": 9})

        for filters in ({"category": "tasks"}, {"where": {"n": {"$lt": 2}}}, {"tags": ["executed"]}):
            found = past.search_memories(**filters, as_of=then)
            told = past.search_memories(**filters, as_of=then, explain=True)
            counted = past.count_memories(**filters, as_of=then, explain=True)
            assert told.returned == counted.returned == len(found)
            assert told.looked_at >= len(found) > 0
