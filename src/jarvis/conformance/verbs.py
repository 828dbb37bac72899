"""Promises of the eight verbs."""

from __future__ import annotations

import copy
from datetime import datetime, timedelta
from typing import Any

import pytest

from jarvis.capabilities import Namespaced
from jarvis.conformance.fixtures import NOON, FakeClock, OpenBackend, Promises, an_entry
from jarvis.errors import DuplicateEntryError, EntryNotFoundError, InvalidEntryError, UnsupportedError
from jarvis.model.entry import MemoryEntry
from jarvis.model.query import MemoryQuery
from jarvis.storage_backend import StorageBackend


class VerbPromises(Promises):
    """Create, read, update, delete, list; order; copies; reopening."""

    def test_an_entry_comes_back_with_every_field(self, backend: StorageBackend) -> None:
        entry = an_entry()

        backend.create(entry)

        assert backend.read("1") == an_entry()

    def test_reading_twice_gives_the_same(self, backend: StorageBackend) -> None:
        backend.create(an_entry())

        assert backend.read("1") == backend.read("1") == an_entry()

    def test_an_absent_id_is_read_as_none(self, backend: StorageBackend) -> None:
        assert backend.read("absent") is None

    def test_a_taken_id_is_refused_and_the_first_entry_stays(self, backend: StorageBackend) -> None:
        backend.create(an_entry())

        with pytest.raises(DuplicateEntryError):
            backend.create(an_entry(value={"mode": "light"}))

        assert backend.list_all() == [an_entry()]

    def test_an_update_replaces_every_field_but_the_id(self, backend: StorageBackend) -> None:
        backend.create(an_entry())
        changed = MemoryEntry("1", "c", "k", {"new": True}, ["t"], "e", None, NOON + timedelta(days=1), {"module": "m"})

        backend.update(changed)

        changed.version = 2
        assert backend.read("1") == changed
        assert backend.query(category="preferences", tags=["ui"], key="theme") == []
        assert backend.query(category="c", tags=["t"], entity_type="e", key="k") == [changed]

    def test_each_update_counts_the_version_up(self, backend: StorageBackend) -> None:
        backend.create(an_entry(version=7))
        versions = [_version(backend)]

        for _ in range(3):
            backend.update(an_entry())
            versions.append(_version(backend))

        assert versions == [1, 2, 3, 4]

    def test_an_update_of_an_absent_id_raises_and_stores_nothing(self, backend: StorageBackend) -> None:
        with pytest.raises(EntryNotFoundError):
            backend.update(an_entry())

        assert backend.list_all() == []

    def test_a_deleted_entry_is_gone_from_every_answer(self, backend: StorageBackend) -> None:
        backend.create(an_entry())

        backend.delete("1")

        assert backend.read("1") is None
        assert backend.list_all() == backend.query(category="preferences") == backend.query(tags=["ui"]) == []
        assert backend.query(key="theme") == backend.query(entity_id="user-1") == []

    def test_deleting_an_absent_id_changes_nothing(self, backend: StorageBackend) -> None:
        backend.create(an_entry())

        backend.delete("absent")

        assert backend.list_all() == [an_entry()]

    def test_a_deleted_id_may_be_used_again_from_version_one(self, backend: StorageBackend) -> None:
        backend.create(an_entry())
        backend.update(an_entry())
        backend.delete("1")

        backend.create(an_entry(key="other"))

        assert backend.read("1") == an_entry(key="other")

    def test_clearing_counts_and_removes_everything(self, backend: StorageBackend) -> None:
        for number in range(5):
            backend.create(an_entry(str(number)))

        assert backend.clear() == 5
        assert backend.list_all() == []
        assert backend.clear() == 0

    # --- order ---

    def test_lists_are_newest_first_by_instant(self, backend: StorageBackend) -> None:
        hours = {"a": 3, "b": 1, "c": 2}
        for entry_id, hour in hours.items():
            backend.create(an_entry(entry_id, timestamp=NOON + timedelta(hours=hour)))

        assert [entry.id for entry in backend.list_all()] == ["a", "c", "b"]
        assert [entry.id for entry in backend.query(category="preferences", tags=["ui"])] == ["a", "c", "b"]

    def test_times_of_different_zones_are_ordered_as_instants(self, backend: StorageBackend) -> None:
        backend.create(an_entry("later", timestamp=datetime.fromisoformat("2026-03-01T10:00:00-05:00")))
        backend.create(an_entry("sooner", timestamp=datetime.fromisoformat("2026-03-01T11:00:00+02:00")))

        assert [entry.id for entry in backend.list_all()] == ["later", "sooner"]

    def test_an_entry_equals_its_copy_and_no_other(self, backend: StorageBackend) -> None:
        backend.create(an_entry("1"))
        backend.create(an_entry("2"))
        one, again, other = backend.read("1"), backend.read("1"), backend.read("2")

        assert (one == again, one != again) == (True, False)
        assert (one == other, one != other) == (False, True)
        assert (one == 1, one != 1) == (False, True)

    def test_of_equal_instants_the_last_written_comes_first(self, backend: StorageBackend) -> None:
        for entry_id in ("b", "c", "a"):
            backend.create(an_entry(entry_id))
        backend.update(an_entry("c"))

        assert [entry.id for entry in backend.list_all()] == ["c", "a", "b"]

    def test_a_naive_timestamp_comes_back_naive_and_is_ordered_as_local_time(self, backend: StorageBackend) -> None:
        naive = datetime(2026, 3, 1, 12, 0, 0, 5)  # noqa: DTZ001 - naive is the point
        backend.create(an_entry("naive", timestamp=naive))
        backend.create(an_entry("before", timestamp=naive.astimezone() - timedelta(microseconds=1)))
        backend.create(an_entry("after", timestamp=naive.astimezone() + timedelta(microseconds=1)))

        entries = backend.list_all()

        assert [entry.id for entry in entries] == ["after", "naive", "before"]
        assert entries[1].timestamp == naive
        assert entries[1].timestamp.tzinfo is None

    # --- copies ---

    def test_changing_what_was_passed_in_changes_nothing_stored(self, backend: StorageBackend) -> None:
        entry = an_entry(value={"list": [1], "dict": {"a": 1}})
        backend.create(entry)

        entry.value["list"].append(2)
        entry.value["dict"]["b"] = 2
        entry.tags.append("new")
        entry.provenance["module"] = "other"

        assert backend.read("1") == an_entry(value={"list": [1], "dict": {"a": 1}})
        assert backend.query(tags=["new"]) == []

    def test_changing_what_was_handed_out_changes_nothing_stored(self, backend: StorageBackend) -> None:
        backend.create(an_entry(value={"list": [1]}))
        query = MemoryQuery(category="preferences")

        for entry in (backend.read("1"), *backend.list_all(), *backend.query(tags=["ui"]), *backend.iterate(query)):
            assert entry is not None
            entry.value["list"].append(2)
            entry.tags.clear()
            entry.provenance.clear()
            entry.key = "other"

        assert backend.read("1") == an_entry(value={"list": [1]})
        assert backend.select(query) == [an_entry(value={"list": [1]})]

    # --- life ---

    def test_everything_is_there_after_shutdown_and_in_a_new_handle(
        self, backend: StorageBackend, open_backend: OpenBackend
    ) -> None:
        backend.create(an_entry())
        backend.shutdown()

        assert backend.read("1") == an_entry()
        other = open_backend()
        try:
            assert other.list_all() == [an_entry()]
        finally:
            other.shutdown()

    def test_bootstrap_and_shutdown_may_be_called_any_number_of_times(self, backend: StorageBackend) -> None:
        backend.create(an_entry())

        for _ in range(3):
            backend.bootstrap()
        for _ in range(3):
            backend.shutdown()

        assert backend.list_all() == [an_entry()]

    def test_a_second_handle_sees_each_write_at_once(self, backend: StorageBackend, open_backend: OpenBackend) -> None:
        other = open_backend()
        try:
            backend.create(an_entry())
            seen_after_create = other.read("1")
            other.update(an_entry(value={"mode": "light"}))
            seen_after_update = backend.read("1")
            backend.delete("1")
            seen_after_delete = other.list_all()
        finally:
            other.shutdown()

        assert seen_after_create == an_entry()
        assert seen_after_update == an_entry(value={"mode": "light"}, version=2)
        assert seen_after_delete == []

    @pytest.mark.parametrize(
        ("field", "content"),
        [
            *(("id", content) for content in (None, 1, "", "nul\0", "\ud800", "x" * 2001)),
            *(
                (name, content)
                for name in ("category", "key", "entity_type")
                for content in (None, 1, "a\0b", "\udfff", b"x")
            ),
            *(("entity_id", content) for content in (1, "\0", "é" * 1001)),
            *(("tags", content) for content in (None, "ui", ("ui",), [1], ["\0"], [None])),
            *(("value", content) for content in (None, "text", [1], 1)),
            *(("provenance", content) for content in (None, {"module": 1}, {1: "m"}, ["m"])),
            *(("timestamp", content) for content in (None, "2026-03-01T12:00:00", 0)),
        ],
    )
    def test_a_field_that_cannot_be_kept_is_refused_by_name(
        self, backend: StorageBackend, field: str, content: Any
    ) -> None:
        backend.create(an_entry("before"))
        entry = an_entry()
        setattr(entry, field, content)

        with pytest.raises(InvalidEntryError) as caught:
            backend.create(entry)

        assert caught.value.field.startswith(field)
        assert backend.list_all() == [an_entry("before")]

    def test_a_refused_update_leaves_the_entry_as_it_was(self, backend: StorageBackend) -> None:
        backend.create(an_entry())

        with pytest.raises(InvalidEntryError):
            backend.update(an_entry(value={"bad": object()}))

        assert backend.read("1") == an_entry()

    def test_a_handle_bound_to_another_clock_is_of_the_same_kind_and_store(
        self, backend: StorageBackend, clock: FakeClock
    ) -> None:
        bound = backend.bind(clock=clock)

        bound.create(an_entry())

        assert type(bound) is type(backend)
        assert bound.namespace == backend.namespace
        assert backend.list_all() == backend.bind(namespace=backend.namespace).list_all() == [an_entry()]

    def test_a_backend_without_namespaces_has_its_own_one_only(self, backend: StorageBackend) -> None:
        if backend.has_capability(Namespaced):
            pytest.skip("the backend has namespaces")
        backend.for_namespace("default").create(an_entry())

        with pytest.raises(UnsupportedError, match="namespaces"):
            backend.bind(namespace="alice")

        assert backend.list_all() == [an_entry()]

    def test_entries_can_be_deep_copied_and_pickled(self, backend: StorageBackend) -> None:
        import pickle

        backend.create(an_entry())
        entry = backend.read("1")

        assert copy.deepcopy(entry) == entry
        assert pickle.loads(pickle.dumps(entry)) == entry  # noqa: S301 - our own bytes


def _version(backend: StorageBackend) -> int:
    entry = backend.read("1")
    assert entry is not None
    return entry.version
