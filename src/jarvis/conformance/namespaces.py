"""Promises of namespaces: several memories in one store that never see each other."""

from __future__ import annotations

from typing import Any

import pytest

from jarvis.capabilities import Namespaced, Transactional
from jarvis.conformance.fixtures import Promises, an_entry
from jarvis.errors import DuplicateEntryError, EntryNotFoundError, InvalidEntryError
from jarvis.model.entry import MemoryQuery
from jarvis.storage_backend import StorageBackend


class NamespacePromises(Promises):
    """Apart from each other in every verb; together in one transaction."""

    @pytest.fixture
    def store(self, backend: StorageBackend) -> Any:
        """Return the backend as one with namespaces."""
        self.need(backend, Namespaced)
        return backend

    def test_an_entry_is_seen_in_its_own_namespace_only(self, store: Any) -> None:
        alice = store.for_namespace("alice")
        alice.create(an_entry())

        assert store.read("1") is None
        assert store.list_all() == store.query(category="preferences") == store.query(tags=["ui"]) == []
        assert store.query(key="theme") == store.query(entity_id="user-1") == list(store.iterate(MemoryQuery())) == []
        assert store.count(MemoryQuery()) == 0
        assert alice.list_all() == [an_entry()]

    def test_what_is_not_there_and_what_is_not_yours_answer_alike(self, store: Any) -> None:
        store.for_namespace("alice").create(an_entry())

        store.delete("1")
        with pytest.raises(EntryNotFoundError) as not_yours:
            store.update(an_entry())
        with pytest.raises(EntryNotFoundError) as not_there:
            store.update(an_entry("absent"))

        assert str(not_yours.value) == str(not_there.value)
        assert store.for_namespace("alice").list_all() == [an_entry()]

    def test_ids_are_unique_within_a_namespace(self, store: Any) -> None:
        alice = store.for_namespace("alice")

        store.create(an_entry(key="mine"))
        alice.create(an_entry(key="hers"))
        with pytest.raises(DuplicateEntryError):
            alice.create(an_entry(key="again"))

        assert store.read("1") == an_entry(key="mine")
        assert alice.read("1") == an_entry(key="hers")

    def test_clearing_spares_the_other_namespaces(self, store: Any) -> None:
        store.create(an_entry())
        store.for_namespace("alice").create(an_entry())

        assert store.clear() == 1
        assert store.for_namespace("alice").query(tags=["ui"]) == [an_entry()]

    def test_namespaces_with_entries_are_listed_sorted(self, store: Any) -> None:
        for name in ("zoe", "alice", "Bob", "é", "empty"):
            store.for_namespace(name).create(an_entry())
        store.for_namespace("empty").clear()

        assert store.list_namespaces() == ["Bob", "alice", "zoe", "é"]

    def test_an_erased_namespace_is_empty_and_the_others_stay(self, store: Any) -> None:
        store.create(an_entry())
        alice = store.for_namespace("alice")
        for number in range(3):
            alice.create(an_entry(str(number), tags=["hers", "ui"], category="hers"))

        assert store.erase_namespace("alice") == 3
        assert alice.list_all() == []
        assert store.list_namespaces() == ["default"]
        alice.create(an_entry(tags=["hers"], category="hers"))
        assert alice.query(category="hers", tags=["hers"]) == [an_entry(tags=["hers"], category="hers")]
        assert store.query(tags=["ui"], category="preferences") == [an_entry()]

    def test_the_namespace_is_kept_after_reopening(self, store: Any) -> None:
        alice = store.for_namespace("alice")
        alice.create(an_entry())
        store.shutdown()

        assert alice.list_all() == [an_entry()]
        assert store.list_all() == []

    def test_one_transaction_covers_the_siblings(self, store: Any) -> None:
        self.need(store, Transactional)
        alice = store.for_namespace("alice")

        def fail() -> None:
            with store.transaction():
                store.create(an_entry())
                alice.create(an_entry())
                raise ValueError

        with pytest.raises(ValueError):  # noqa: PT011 - our own, just above
            fail()
        with alice.transaction():
            store.create(an_entry("both"))
            alice.create(an_entry("both"))

        assert store.list_all() == alice.list_all() == [an_entry("both")]

    @pytest.mark.parametrize("name", ["", None, 1, "nul\0", "\ud800", "x" * 2001])
    def test_a_namespace_that_is_no_name_is_refused(self, store: Any, name: Any) -> None:
        with pytest.raises(InvalidEntryError, match="namespace"):
            store.for_namespace(name)
