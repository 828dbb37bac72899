"""Promises of listings: the names that memories use, from every backend as from all memories."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest

from jarvis.capabilities import Expires, Namespaced, Transactional
from jarvis.conformance.asking import LOOK_ALIKES
from jarvis.conformance.filters import CrowdPromises
from jarvis.conformance.fixtures import FakeClock, an_entry
from jarvis.errors import InvalidQueryError
from jarvis.model.entry import MemoryEntry
from jarvis.model.listing import Listing
from jarvis.model.policies import RetentionRule
from jarvis.persistent_memory import MemoryModule
from jarvis.storage_backend import StorageBackend


class ListingPromises(CrowdPromises):
    """Listings of categories, keys, entity types, entity ids, tags and namespaces."""

    def test_every_listing_is_that_of_the_memories(self, backend: StorageBackend, crowd: list[MemoryEntry]) -> None:
        pages: tuple[dict[str, Any], ...] = (
            {},
            {"limit": 2},
            {"limit": 0},
            {"prefix": "t"},
            {"prefix": "Th", "limit": 1},
            {"prefix": ""},
            {"after": "tasks"},
            {"after": "", "limit": 2},
            {"after": "u", "prefix": "u"},
        )
        within: tuple[dict[str, Any], ...] = (
            {"field": "id"},
            {"field": "id", "category": "tasks"},
            {"field": "category"},
            {"field": "key"},
            {"field": "key", "category": "tasks"},
            {"field": "key", "category": "absent"},
            {"field": "entity_type"},
            {"field": "entity_id"},
            {"field": "entity_id", "entity_type": "task"},
            {"field": "entity_id", "entity_type": "\0"},
            {"field": "tag"},
        )
        for asked, page, excluded in itertools.product(within, pages, (None, ["ui"], ["ui", "u"], ["absent"])):
            listing = Listing(counts=True, exclude_tags=excluded, **asked, **page)
            wanted = listing.collected([entry for entry in crowd if listing.query.matches(entry)])

            assert list(backend.list_names(listing).items()) == list(wanted.items()), listing
            names = Listing(exclude_tags=excluded, **asked, **page)
            assert list(backend.list_names(names)) == list(wanted), names

    def test_names_are_in_the_order_of_code_points(self, memory: MemoryModule) -> None:
        for text in LOOK_ALIKES:
            memory.create_memory(text, text, {}, text, text, [text])
        for verb in (
            memory.list_categories,
            memory.list_keys,
            memory.list_entity_types,
            memory.list_entities,
            memory.list_tags,
        ):
            ordered = sorted(LOOK_ALIKES)
            assert verb() == ordered
            assert verb(limit=5, after=ordered[4]) == ordered[5:10]
            for prefix in LOOK_ALIKES:
                assert verb(prefix=prefix) == [text for text in ordered if text.startswith(prefix)]

    def test_an_id_is_found_by_its_beginning(self, memory: MemoryModule) -> None:
        first, second = (memory.create_memory("notes", key, {}, "note") for key in ("a", "b"))

        assert memory.list_ids(prefix=first[:-1]) == [first]
        assert memory.list_ids("notes", prefix=first[:8], limit=2) == sorted([first, second])
        assert memory.list_ids("tasks") == memory.list_ids(prefix="no") == []

    def test_a_memory_counts_once_for_a_tag_that_it_repeats(self, memory: MemoryModule) -> None:
        memory.create_memory("notes", "n", {}, "note", tags=["x", "x", "y"])

        assert memory.list_tags(counts=True).counts == {"x": 1, "y": 1}
        with pytest.raises(InvalidQueryError, match="counts=True"):
            _ = memory.list_tags().counts

    def test_what_expired_or_was_deleted_has_no_name(self, memory: MemoryModule, clock: FakeClock) -> None:
        self.need(memory.backend, Expires)
        for category, key, ttl in (("a", "1", None), ("a", "2", 60), ("b", "3", 60), ("c", "4", None)):
            memory.create_memory(category, key, {}, category, key, [category], ttl=ttl)
        memory.delete_memory(memory.search_memories(key="4")[0].id)
        clock.step(minutes=2)

        assert memory.list_categories(counts=True).counts == {"a": 1}
        assert memory.list_keys() == memory.list_keys("a") == memory.list_entities() == ["1"]
        assert memory.list_entity_types() == memory.list_tags() == ["a"]
        assert memory.list_keys("b") == memory.list_entities("c") == []

    def test_what_a_module_hides_as_archived_has_no_name_there(self, memory: MemoryModule) -> None:
        hiding = MemoryModule(
            storage_backend=memory.backend,
            retention=[RetentionRule(category="a", max_age=timedelta(days=1), action="archive")],
        )
        memory.create_memory("a", "1", {}, "t", tags=["archived", "x"])
        memory.create_memory("b", "2", {}, "t", tags=["y"])

        assert hiding.list_categories() == ["b"]
        assert hiding.list_tags() == ["y"]
        assert hiding.list_tags(include_archived=True) == memory.list_tags() == ["archived", "x", "y"]

    def test_names_of_the_past_and_of_a_transaction(self, past: MemoryModule, later: FakeClock) -> None:
        self.need(past.backend, Transactional)
        first = past.create_memory("notes", "first", {}, "note", tags=["x"])
        moment = later.now
        later.step(hours=1)
        with past.transaction():
            past.delete_memory(first)
            past.create_memory("tasks", "second", {}, "task", "1")

            assert past.list_categories() == ["tasks"]
            assert past.list_entities("task") == ["1"]
        assert past.list_categories(as_of=moment) == ["notes"]
        assert past.list_tags(as_of=moment, counts=True).counts == {"x": 1}
        assert past.list_tags() == []

    def test_names_of_a_namespace_are_its_own(self, memory: MemoryModule) -> None:
        self.need(memory.backend, Namespaced)
        for name in ("b/1", "b/2", "a", "b0"):
            memory.for_namespace(name).create_memory("notes", name, {}, "note", tags=[name])

        assert memory.list_categories() == []
        assert memory.for_namespace("a").list_keys() == memory.for_namespace("a").list_tags() == ["a"]
        assert memory.store.list_namespaces() == ["a", "b/1", "b/2", "b0"]
        assert memory.store.list_namespaces(prefix="b/") == ["b/1", "b/2"]
        assert memory.store.list_namespaces(limit=2, after="a") == ["b/1", "b/2"]

    @pytest.mark.parametrize(
        "wrong", [{"prefix": 1}, {"limit": -1}, {"after": b"x"}, {"limit": True}, {"prefix": "\ud800"}]
    )
    def test_an_argument_of_a_listing_that_means_nothing_is_named(
        self, memory: MemoryModule, wrong: dict[str, Any]
    ) -> None:
        memory.backend.create(an_entry())
        name = next(iter(wrong))
        for verb in (memory.list_categories, memory.list_tags, memory.store.list_namespaces):
            with pytest.raises(InvalidQueryError, match=f"^{name}: "):
                verb(**wrong)
        with pytest.raises(InvalidQueryError, match=r"^category: "):
            memory.list_keys(1)  # type: ignore[arg-type]  # hostile
