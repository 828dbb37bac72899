"""Promises of transfers: whole memories go out of a namespace and into another one, as they are."""

from __future__ import annotations

from datetime import timedelta, timezone
from typing import Any

import msgspec
import pytest

from jarvis.capabilities import Expires, FeedsChanges, KeepsHistory, Namespaced, Transactional, Transfers
from jarvis.conformance.fixtures import FAR, NOON, FakeClock, Promises, an_entry
from jarvis.errors import DuplicateEntryError, InvalidEntryError, TransactionError
from jarvis.model.portable import Ending, PastEntry, PortableEntry, WholeMemory, portable
from jarvis.persistent_memory import MemoryModule
from jarvis.storage_backend import StorageBackend


class TransferPromises(Promises):
    """Transfers."""

    @pytest.fixture
    def source(self, backend: StorageBackend) -> Any:
        """Return a handle from which memories are read."""
        self.need(backend, Transfers)
        return backend

    @pytest.fixture
    def target(self, source: Any) -> Any:
        """Return a handle into whose namespace they are loaded."""
        self.need(source, Namespaced)
        return source.bind(namespace="other")

    def _carry(self, source: Any, target: Any) -> list[WholeMemory]:
        """Load everything of one namespace into the other; return it."""
        read = list(source.whole_memories(past=True))
        target.load(read, source.known_since())
        return read

    def _in_other(self, read: list[WholeMemory]) -> list[WholeMemory]:
        return [msgspec.structs.replace(whole, namespace="other") for whole in read]

    def test_an_entry_goes_out_with_all_of_its_fields(self, source: Any) -> None:
        source.create(an_entry(value={"a": (1, 2.0, None), "big": "x" * 3_000}))

        (whole,) = source.whole_memories(past=True)

        assert (whole.namespace, whole.id, whole.past, whole.lost) == ("default", "1", [], None)
        assert whole.entry is not None
        assert whole.entry.named("1") == source.read("1")
        assert whole.entry == portable(source.read("1"))

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"tags": [], "entity_id": None, "entity_type": ""},
            {"value": {"set": {1, "a"}, "far": 10**30, "nan": float("inf"), "lone": "\ud800", "empty": {}}},
            {"value": {"text": "ä" * 5_000}},
            {"timestamp": NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))},
            {"expires_at": FAR + timedelta(days=1), "ttl": timedelta(days=2), "sliding": True},
            {"provenance": {"module": "m", "task_id": "t", "created_at": NOON.isoformat(), "updated_by": "x"}},
        ],
    )
    def test_an_entry_comes_in_exactly(self, source: Any, target: Any, fields: dict[str, Any]) -> None:
        if "expires_at" in fields:
            self.need(source, Expires)
        source.create(an_entry(**fields))

        read = self._carry(source, target)

        assert target.read("1") == source.read("1")
        assert list(target.whole_memories(past=True)) == self._in_other(read)

    def test_versions_and_the_past_come_in_exactly(self, source: Any, target: Any, past: MemoryModule) -> None:
        clock: Any = past
        memory_id = clock.create_memory("notes", "tea", {"n": 1}, "note", tags=["a"], module="first")
        clock.update_memory(memory_id, value={"n": 2}, module="second", reason="why")
        clock.update_memory(memory_id, tags=["b"])
        gone = clock.create_memory("notes", "milk", {"n": 1}, "note")
        clock.delete_memory(gone, reason="sour")

        read = self._carry(source, target)

        assert target.read(memory_id).version == 3
        assert target.read(gone) is None
        for each in (memory_id, gone):
            assert target.revisions(each) == source.revisions(each)
        assert list(target.whole_memories(past=True)) == self._in_other(read)
        assert [whole.id for whole in read] == [memory_id, gone]
        assert clock.for_namespace("other").restore_memory(gone, version=1)

    def test_memories_go_out_in_the_order_of_their_last_change(self, source: Any) -> None:
        for entry_id in "123":
            source.create(an_entry(entry_id))
        source.update(an_entry("1", value={"n": 2}))

        assert [whole.id for whole in source.whole_memories(past=True)] == ["2", "3", "1"]

    def test_without_the_past_only_present_states_go_out(self, source: Any, past: MemoryModule) -> None:
        memory_id = past.create_memory("notes", "tea", {"n": 1}, "note")
        past.update_memory(memory_id, value={"n": 2})
        past.delete_memory(past.create_memory("notes", "milk", {"n": 1}, "note"))

        (whole,) = source.whole_memories(past=False)

        assert (whole.id, whole.past, whole.entry.version) == (memory_id, [], 2)

    def test_a_renewed_memory_is_known_from_before_its_renewal(
        self, source: Any, target: Any, past: MemoryModule, later: FakeClock
    ) -> None:
        memory_id = past.set_user_preference("theme", {"mode": "dark"})
        later.now += timedelta(hours=2)
        past.set_user_preference("theme", {"mode": "dark"})

        read = self._carry(source, target)

        assert list(target.whole_memories(past=True)) == self._in_other(read)
        assert target.revisions(memory_id) == []
        assert past.for_namespace("other").get_memory(memory_id, as_of=FAR + timedelta(hours=1)) is not None

    def test_what_was_purged_leaves_a_gap_that_comes_in(
        self, source: Any, target: Any, past: MemoryModule, later: FakeClock
    ) -> None:
        self.need(source, Expires)
        past.create_memory("notes", "tea", {"n": 1}, "note", ttl=timedelta(hours=1))
        later.now += timedelta(hours=2)
        past.store.purge_expired()

        (whole,) = self._carry(source, target)

        assert (whole.entry, whole.past) == (None, [])
        assert whole.lost is not None
        assert whole.lost.key == "tea"
        assert list(target.whole_memories(past=True)) == self._in_other([whole])

    def test_an_expired_memory_that_is_not_purged_goes_out_and_says_so(self, source: Any, memory: MemoryModule) -> None:
        self.need(source, Expires)
        memory.create_memory("notes", "tea", {"n": 1}, "note", ttl=timedelta(hours=1))

        (whole,) = source.whole_memories(past=True)

        end = (NOON + timedelta(hours=1)).timestamp() * 1_000_000
        assert not whole.has_expired(int(end) - 1)
        assert whole.has_expired(int(end))

    def test_questions_as_of_a_moment_find_loaded_memories_from_their_own_dates_on(
        self, source: Any, target: Any, past: MemoryModule, later: FakeClock
    ) -> None:
        memory_id = past.create_memory("notes", "tea", {"n": 1}, "note")
        later.now += timedelta(hours=2)
        past.update_memory(memory_id, value={"n": 2})
        later.now += timedelta(hours=2)

        self._carry(source, target)

        other = past.for_namespace("other")
        for hours, n in ((1, 1), (3, 2)):
            found = other.get_memory(memory_id, as_of=FAR + timedelta(hours=hours))
            assert found is not None
            assert found.value == {"n": n}

    def test_without_since_they_are_new_and_the_feed_tells_of_them(
        self, source: Any, target: Any, past: MemoryModule
    ) -> None:
        self.need(source, FeedsChanges)
        memory_id = past.create_memory("notes", "tea", {"n": 1}, "note")
        another = past.create_memory("notes", "cup", {"n": 1}, "note")
        for each in (memory_id, another):
            past.update_memory(each, value={"n": 2})
        read = list(source.whole_memories(past=False))
        past.for_namespace("other").create_memory("notes", "milk", {"n": 1}, "note")
        (own,), before = target.list_all(), target.last_position()

        target.load(read, None)

        told = {(each.operation, each.memory_id, each.version) for each in target.changes(before, 10)}
        assert told == {("create", memory_id, 2), ("create", another, 2)}
        assert target.as_of(own.timestamp).read(memory_id) is None

    def test_they_come_in_all_or_none(self, source: Any, target: Any) -> None:
        for entry_id in "12":
            source.create(an_entry(entry_id))
        target.create(an_entry("2", value={"own": True}))

        with pytest.raises(DuplicateEntryError):
            target.load(list(source.whole_memories(past=True)), None)

        assert [entry.id for entry in target.list_all()] == ["2"]
        assert target.read("2").value == {"own": True}

    def test_an_id_with_a_past_is_taken(self, source: Any, target: Any, past: MemoryModule) -> None:
        memory_id = past.create_memory("notes", "tea", {"n": 1}, "note")
        self._carry(source, target)
        past.for_namespace("other").delete_memory(memory_id)

        with pytest.raises(DuplicateEntryError):
            target.load(list(source.whole_memories(past=True)), None)

        assert target.read(memory_id) is None

    @pytest.mark.parametrize(
        "changes",
        [
            {"value": msgspec.Raw(b"[1]")},
            {"value": msgspec.Raw(b'{"a":{"$type":"date","$value":"never"}}')},
            {"value": msgspec.Raw(b"{")},
            {"timestamp": "yesterday"},
            {"zone": "Nowhere/Land"},
            {"key": "\0"},
            {"tags": ["x", "\0"]},
            {"expires_at": "2026-01-01T00:00:00"},
            {"provenance": {"module": "\ud800"}},
        ],
    )
    def test_a_part_that_cannot_be_stored_is_refused(self, source: Any, changes: dict[str, Any]) -> None:
        good = portable(an_entry())
        bad = WholeMemory("default", "2", msgspec.structs.replace(good, **changes))

        with pytest.raises(InvalidEntryError):
            source.load([WholeMemory("default", "1", good), bad], None)

        assert source.list_all() == []

    def test_versions_out_of_order_are_refused(self, source: Any) -> None:
        self.need(source, KeepsHistory)
        entry = portable(an_entry())
        fields = {name: getattr(entry, name) for name in PortableEntry.__struct_fields__}
        state = PastEntry(**{**fields, "version": 2}, ended=Ending("update", NOON.isoformat()))

        with pytest.raises(InvalidEntryError, match="out of order"):
            source.load([WholeMemory("default", "1", entry, [state])], None)

    def test_a_memory_without_any_state_is_refused(self, source: Any) -> None:
        with pytest.raises(InvalidEntryError, match="is missing"):
            source.load([WholeMemory("default", "1")], None)

    def test_reading_sees_one_state(self, source: Any) -> None:
        for number in range(600):
            source.create(an_entry(str(number)))
        reading = source.whole_memories(past=True)
        read = [next(reading)]

        source.delete("599")
        source.update(an_entry("0", value={"n": 2}))

        read += reading
        assert [whole.id for whole in read] == [str(number) for number in range(600)]
        assert all(whole.entry is not None and whole.past == [] for whole in read)

    def test_inside_a_transaction_they_are_not_read(self, source: Any) -> None:
        self.need(source, Transactional)
        with source.transaction(), pytest.raises(TransactionError):
            list(source.whole_memories(past=True))

    def test_loading_is_a_part_of_the_open_transaction(self, source: Any, target: Any) -> None:
        self.need(source, Transactional)
        source.create(an_entry())
        read = list(source.whole_memories(past=True))

        with pytest.raises(ZeroDivisionError), target.transaction():  # noqa: PT012  the block is what is tested
            target.load(read, source.known_since())
            assert target.read("1") is not None
            raise ZeroDivisionError

        assert target.list_all() == []
        target.load(read, source.known_since())
        assert target.read("1") == source.read("1")
