"""Promises of namespaces: several memories in one store that never see each other."""

from __future__ import annotations

from typing import Any

import pytest

from jarvis.capabilities import Erases, Namespaced, Transactional
from jarvis.conformance.fixtures import Promises, an_entry
from jarvis.errors import DuplicateEntryError, EntryNotFoundError, InvalidEntryError
from jarvis.model.query import MemoryQuery
from jarvis.storage_backend import StorageBackend


class NamespacePromises(Promises):
    """Namespaces are separate in every verb, and together in one transaction."""

    @pytest.fixture
    def spaces(self, backend: StorageBackend) -> Any:
        """Return the backend as one with namespaces."""
        self.need(backend, Namespaced)
        return backend

    def test_an_entry_is_seen_in_its_own_namespace_only(self, spaces: Any) -> None:
        alice = spaces.bind(namespace="alice")
        alice.create(an_entry())

        assert spaces.read("1") is None
        assert spaces.list_all() == spaces.query(category="preferences") == spaces.query(tags=["ui"]) == []
        assert (
            spaces.query(key="theme") == spaces.query(entity_id="user-1") == list(spaces.iterate(MemoryQuery())) == []
        )
        assert spaces.count(MemoryQuery()) == 0
        assert alice.list_all() == [an_entry()]

    def test_what_is_not_there_and_what_is_not_yours_answer_alike(self, spaces: Any) -> None:
        spaces.bind(namespace="alice").create(an_entry())

        spaces.delete("1")
        with pytest.raises(EntryNotFoundError) as not_yours:
            spaces.update(an_entry())
        with pytest.raises(EntryNotFoundError) as not_there:
            spaces.update(an_entry("absent"))

        assert str(not_yours.value) == str(not_there.value)
        assert spaces.bind(namespace="alice").list_all() == [an_entry()]

    def test_ids_are_unique_within_a_namespace(self, spaces: Any) -> None:
        alice = spaces.bind(namespace="alice")

        spaces.create(an_entry(key="mine"))
        alice.create(an_entry(key="hers"))
        with pytest.raises(DuplicateEntryError):
            alice.create(an_entry(key="again"))

        assert spaces.read("1") == an_entry(key="mine")
        assert alice.read("1") == an_entry(key="hers")

    def test_clearing_spares_the_other_namespaces(self, spaces: Any) -> None:
        spaces.create(an_entry())
        spaces.bind(namespace="alice").create(an_entry())

        assert spaces.clear() == 1
        assert spaces.bind(namespace="alice").query(tags=["ui"]) == [an_entry()]

    def test_namespaces_with_entries_are_listed_sorted(self, spaces: Any) -> None:
        for name in ("zoe", "alice", "Bob", "é", "empty"):
            spaces.bind(namespace=name).create(an_entry())
        spaces.bind(namespace="empty").clear()

        assert spaces.list_namespaces() == ["Bob", "alice", "zoe", "é"]

    def test_an_erased_namespace_is_empty_and_the_others_stay(self, spaces: Any) -> None:
        self.need(spaces, Erases)
        spaces.create(an_entry())
        alice = spaces.bind(namespace="alice")
        for number in range(3):
            alice.create(an_entry(str(number), tags=["hers", "ui"], category="hers"))

        with alice.transaction():
            assert alice.erase(None).removed["entries"] == 3

        assert alice.list_all() == []
        assert spaces.list_namespaces() == ["default"]
        alice.create(an_entry(tags=["hers"], category="hers"))
        assert alice.query(category="hers", tags=["hers"]) == [an_entry(tags=["hers"], category="hers")]
        assert spaces.query(tags=["ui"], category="preferences") == [an_entry()]

    def test_the_namespace_is_kept_after_reopening(self, spaces: Any) -> None:
        alice = spaces.bind(namespace="alice")
        alice.create(an_entry())
        spaces.shutdown()

        assert alice.list_all() == [an_entry()]
        assert spaces.list_all() == []

    def test_a_handle_of_another_namespace_is_of_the_same_kind(self, spaces: Any) -> None:
        alice = spaces.bind(namespace="alice")

        assert type(alice) is type(spaces)
        assert (spaces.namespace, alice.namespace, alice.bind().namespace) == ("default", "alice", "alice")

    def test_one_transaction_covers_the_siblings(self, spaces: Any) -> None:
        self.need(spaces, Transactional)
        alice = spaces.bind(namespace="alice")

        def fail() -> None:
            with spaces.transaction():
                spaces.create(an_entry())
                alice.create(an_entry())
                raise ValueError

        with pytest.raises(ValueError):  # noqa: PT011 - our own, just above
            fail()
        with alice.transaction():
            spaces.create(an_entry("both"))
            alice.create(an_entry("both"))

        assert spaces.list_all() == alice.list_all() == [an_entry("both")]

    @pytest.mark.parametrize("name", ["", None, 1, "nul\0", "\ud800", "x" * 2001])
    def test_a_namespace_that_is_no_name_is_refused(self, spaces: Any, name: Any) -> None:
        with pytest.raises(InvalidEntryError, match="namespace"):
            spaces.for_namespace(name)
