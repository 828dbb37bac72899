"""Promises about a clock that was once ahead: dates of new changes, questions about the past, and mending."""

from __future__ import annotations

import warnings
from datetime import timedelta

import pytest

from jarvis.capabilities import FeedsChanges, KeepsHistory, MendsDates, Namespaced, Transactional
from jarvis.conformance.fixtures import FakeClock, OpenBackend, Promises, an_entry
from jarvis.errors import ClockBehindWarning, HistoryUnavailableError, TransactionError
from jarvis.model.entry import MemoryEntry
from jarvis.model.revision import Signature
from jarvis.persistent_memory import MemoryModule, RetentionRule
from jarvis.storage_backend import StorageBackend

YEARS = 4_400  # days
MINUTE = timedelta(minutes=1)


class DatingPromises(Promises):
    """The clock of a device starts years ahead, the device stores memories, and then its clock is set right."""

    @pytest.fixture
    def blip(self, memory: MemoryModule, clock: FakeClock) -> dict[str, str]:
        """Create a memory before, while and after the clock is ahead, a minute apart; return their ids."""
        ids = {"before": memory.create_memory("c", "before", {"n": 0}, "t")}
        clock.step(days=YEARS)
        ids["first"] = memory.create_memory("c", "first", {"n": 1}, "t", tags=["x"])
        clock.step(minutes=1)
        ids["second"] = memory.create_memory("c", "second", {"n": 2}, "t")
        clock.step(days=-YEARS, minutes=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ClockBehindWarning)
            ids["after"] = memory.create_memory("c", "after", {"n": 3}, "t")
        clock.step(minutes=1)
        return ids

    def _get(self, memory: MemoryModule, memory_id: str) -> MemoryEntry:
        entry = memory.get_memory(memory_id)
        assert entry is not None
        return entry

    # --- until it is mended ---

    def test_a_clock_behind_the_store_is_warned_of_once(self, memory: MemoryModule, clock: FakeClock) -> None:
        memory.create_memory("c", "k", {}, "t")
        clock.step(days=-2)

        with pytest.warns(ClockBehindWarning, match=r"mend_dates\(\)"):
            memory.create_memory("c", "k", {}, "t")

        with warnings.catch_warnings():
            warnings.simplefilter("error", ClockBehindWarning)
            memory.create_memory("c", "k", {}, "t")

    def test_a_clock_behind_the_store_is_warned_of_at_its_opening(
        self, memory: MemoryModule, clock: FakeClock, open_backend: OpenBackend
    ) -> None:
        self.need(memory.backend, MendsDates)
        memory.create_memory("c", "k", {}, "t")
        clock.step(days=-2)
        again = open_backend()
        reader = MemoryModule(storage_backend=again, clock=clock)

        with pytest.warns(ClockBehindWarning):
            reader.bootstrap()
        again.shutdown()

    def test_a_clock_that_is_less_than_a_day_behind_is_not_warned_of(
        self, memory: MemoryModule, clock: FakeClock
    ) -> None:
        memory.create_memory("c", "k", {}, "t")
        clock.step(hours=-23)

        with warnings.catch_warnings():
            warnings.simplefilter("error", ClockBehindWarning)
            memory.create_memory("c", "k", {}, "t")
            memory.bootstrap()

    @pytest.mark.filterwarnings("ignore::jarvis.errors.ClockBehindWarning")
    def test_later_changes_are_dated_by_the_clock_again(
        self, memory: MemoryModule, clock: FakeClock, blip: dict[str, str]
    ) -> None:
        assert self._get(memory, blip["after"]).timestamp == clock.now - MINUTE
        assert memory.update_memory(blip["second"], {"n": 4})

        entry = self._get(memory, blip["second"])
        assert entry.timestamp == clock.now
        assert entry.provenance["updated_at"] == clock.now.isoformat()
        assert [each.key for each in memory.list_memories()] == ["first", "second", "after", "before"]

    @pytest.mark.filterwarnings("ignore::jarvis.errors.ClockBehindWarning")
    def test_what_is_written_last_leads_its_key(self, memory: MemoryModule, blip: dict[str, str]) -> None:
        created = memory.create_memory("c", "second", {"n": 5}, "t")
        found = memory.get_memory_by_key("second")
        assert found is not None
        assert found.id == created

        assert memory.update_memory(blip["second"], {"n": 6})
        found = memory.get_memory_by_key("second")
        assert found is not None
        assert found.value == {"n": 6}

    @pytest.mark.filterwarnings("ignore::jarvis.errors.ClockBehindWarning")
    def test_history_and_feed_date_later_changes_by_the_clock(
        self, memory: MemoryModule, clock: FakeClock, blip: dict[str, str]
    ) -> None:
        self.need(memory.backend, KeepsHistory)
        memory.update_memory(blip["before"], {"n": 7})
        memory.delete_memory(blip["second"])

        assert [memory.get_history(blip[name])[0].timestamp for name in ("before", "second")] == [clock.now] * 2
        if memory.backend.has_capability(FeedsChanges):
            assert [each.timestamp for each in memory.changes()[-3:]] == [clock.now - MINUTE, clock.now, clock.now]

    @pytest.mark.filterwarnings("ignore::jarvis.errors.ClockBehindWarning")
    def test_the_past_is_refused_where_dates_and_order_disagree(
        self, memory: MemoryModule, clock: FakeClock, blip: dict[str, str]
    ) -> None:
        self.need(memory.backend, KeepsHistory)
        begin = self._get(memory, blip["before"]).timestamp

        assert [each.key for each in memory.search_memories(as_of=begin + MINUTE)] == ["before"]
        for moment in (clock.now - MINUTE, clock.now):
            with pytest.raises(HistoryUnavailableError, match=r"mend_dates\(\)"):
                memory.search_memories(as_of=moment)
            with pytest.raises(HistoryUnavailableError, match=r"mend_dates\(\)"):
                memory.get_memory(blip["before"], as_of=moment)
        assert memory.count_memories(as_of=clock.now + timedelta(days=YEARS)) == 4

    @pytest.mark.filterwarnings("ignore::jarvis.errors.ClockBehindWarning")
    def test_deletions_behind_the_last_moment_close_the_past_too(
        self, memory: MemoryModule, clock: FakeClock, blip: dict[str, str]
    ) -> None:
        self.need(memory.backend, KeepsHistory)
        memory.delete_memory(blip["after"])
        clock.step(minutes=1)

        with pytest.raises(HistoryUnavailableError):
            memory.count_memories(as_of=clock.now)

    @pytest.mark.usefixtures("blip")
    @pytest.mark.filterwarnings("ignore::jarvis.errors.ClockBehindWarning")
    def test_what_is_dated_by_the_clock_grows_old_beside_what_is_ahead(
        self, backend: StorageBackend, clock: FakeClock
    ) -> None:
        ruled = MemoryModule(
            storage_backend=backend, clock=clock, retention=[RetentionRule(category="c", max_age=timedelta(days=30))]
        )
        clock.step(days=31)

        assert ruled.sweep().deleted == 2
        assert {each.key for each in ruled.list_memories()} == {"first", "second"}

    # --- mended ---

    @pytest.mark.usefixtures("blip")
    def test_mending_dates_what_is_ahead_between_what_is_not(self, memory: MemoryModule, clock: FakeClock) -> None:
        self.need(memory.backend, MendsDates)

        assert memory.store.mend_dates() == 2

        entries = memory.list_memories()
        assert [each.key for each in entries] == ["after", "second", "first", "before"]
        assert entries[1].timestamp - entries[2].timestamp == MINUTE
        assert entries[0].timestamp == clock.now - MINUTE > entries[1].timestamp
        assert [each.provenance["created_at"] for each in entries] == [each.timestamp.isoformat() for each in entries]
        assert memory.get_memories_by_tags(["x"]) == [entries[2]]
        assert memory.store.mend_dates() == 0

    @pytest.mark.usefixtures("blip")
    def test_mending_goes_through_a_wrapper(self, backend: StorageBackend, memory: MemoryModule) -> None:
        self.need(backend, MendsDates)
        asked = []

        class Wrapped:
            def read(self, entry_id: str) -> MemoryEntry | None:
                return backend.read(entry_id)

            def update(self, entry: MemoryEntry) -> None:
                entry.tags.append("mended")
                backend.update(entry)

        def entries(namespace: str) -> Wrapped:
            asked.append(namespace)
            return Wrapped()

        assert backend.capability(MendsDates).mend_dates(Signature("update"), entries) == 2

        assert set(asked) == {backend.namespace}
        assert [each.key for each in memory.get_memories_by_tags(["mended"])] == ["second", "first"]

    @pytest.mark.usefixtures("blip")
    def test_behind_a_mending_the_clock_dates_and_nothing_warns(
        self, memory: MemoryModule, clock: FakeClock, open_backend: OpenBackend
    ) -> None:
        self.need(memory.backend, MendsDates)
        memory.store.mend_dates()
        clock.step(minutes=1)
        again = open_backend()
        other = MemoryModule(storage_backend=again, clock=clock)

        with warnings.catch_warnings():
            warnings.simplefilter("error", ClockBehindWarning)
            other.bootstrap()
            created = other.create_memory("c", "second", {"n": 8}, "t")
        assert self._get(memory, created).timestamp == clock.now
        found = memory.get_memory_by_key("second")
        assert found is not None
        assert found.id == created
        again.shutdown()

    def test_mending_is_told_as_an_update_and_keeps_cursors_and_versions(
        self, memory: MemoryModule, clock: FakeClock, blip: dict[str, str]
    ) -> None:
        self.need(memory.backend, MendsDates)
        self.need(memory.backend, FeedsChanges)
        cursor = memory.newest_cursor()
        memory.store.mend_dates(module="admin")

        told = memory.changes(cursor)
        assert [(each.operation, each.memory_id, each.version, each.module) for each in told] == [
            ("update", blip["first"], 2, "admin"),
            ("update", blip["second"], 2, "admin"),
        ]
        assert told[0].reason is not None
        assert {each.timestamp for each in told} == {clock.now}
        assert self._get(memory, blip["after"]).version == 1
        assert memory.update_memory(blip["first"], {"n": 9}, if_version=2)
        assert [each.version for each in memory.get_history(blip["first"])] == [2, 1]

    @pytest.mark.filterwarnings("ignore::jarvis.errors.ClockBehindWarning")
    def test_mending_dates_past_states_and_the_feed_in_the_order_of_the_changes(
        self, memory: MemoryModule, clock: FakeClock
    ) -> None:
        self.need(memory.backend, MendsDates)
        self.need(memory.backend, FeedsChanges)
        one, other = (memory.create_memory("c", name, {"n": 0}, "t") for name in ("one", "other"))
        clock.step(days=YEARS)
        memory.update_memory(one, {"n": 1})
        memory.delete_memory(other)
        clock.step(days=-YEARS, minutes=1)
        memory.update_memory(one, {"n": 2})
        memory.store.mend_dates()

        dates = [each.timestamp for each in memory.changes()]
        assert dates == sorted(dates)
        assert dates[-1] == clock.now
        assert all(each.timestamp <= clock.now for name in (one, other) for each in memory.get_history(name))
        assert memory.restore_memory(other, 1)

    def test_the_past_is_known_from_the_mending_on(
        self, memory: MemoryModule, clock: FakeClock, blip: dict[str, str]
    ) -> None:
        self.need(memory.backend, MendsDates)
        self.need(memory.backend, KeepsHistory)
        memory.store.mend_dates()
        mended = clock.now
        clock.step(minutes=1)
        memory.delete_memory(blip["first"])
        clock.step(minutes=1)

        assert memory.count_memories(as_of=mended) == 4
        assert memory.count_memories(as_of=clock.now) == 3
        with pytest.raises(HistoryUnavailableError) as caught:
            memory.count_memories(as_of=mended - MINUTE)
        assert caught.value.earliest == mended

    @pytest.mark.usefixtures("blip")
    def test_mending_reaches_every_namespace(self, memory: MemoryModule, clock: FakeClock) -> None:
        self.need(memory.backend, MendsDates)
        self.need(memory.backend, Namespaced)
        clock.step(days=YEARS)
        elsewhere = memory.for_namespace("bob")
        created = elsewhere.create_memory("c", "k", {}, "t")
        clock.step(days=-YEARS)

        assert memory.store.mend_dates() == 3
        assert self._get(elsewhere, created).timestamp <= clock.now

    def test_what_is_not_ahead_is_not_mended(self, memory: MemoryModule, clock: FakeClock) -> None:
        self.need(memory.backend, MendsDates)
        memory_id = memory.create_memory("c", "k", {}, "t")
        assert memory.store.mend_dates() == 0
        clock.step(minutes=1)

        assert memory.store.mend_dates() == 0
        assert self._get(memory, memory_id).version == 1
        if memory.backend.has_capability(KeepsHistory):
            assert memory.count_memories(as_of=clock.now - MINUTE) == 1

    @pytest.mark.usefixtures("blip")
    def test_a_date_that_a_caller_gave_is_not_mended(self, memory: MemoryModule, clock: FakeClock) -> None:
        self.need(memory.backend, MendsDates)
        appointment = clock.now + timedelta(days=YEARS + 400)
        memory.backend.create(an_entry("1", timestamp=appointment))

        assert memory.store.mend_dates() == 2
        assert self._get(memory, "1").timestamp == appointment
        clock.step(minutes=1)
        memory.delete_memory("1")
        if memory.backend.has_capability(KeepsHistory):
            assert memory.search_memories(as_of=clock.now - MINUTE)[0].id == "1"

    def test_mending_is_refused_inside_a_transaction(self, memory: MemoryModule, blip: dict[str, str]) -> None:
        self.need(memory.backend, MendsDates)
        self.need(memory.backend, Transactional)

        with memory.transaction(), pytest.raises(TransactionError, match="outside of transactions"):
            memory.store.mend_dates()
        assert self._get(memory, blip["first"]).version == 1

    @pytest.mark.filterwarnings("ignore::jarvis.errors.ClockBehindWarning")
    def test_what_was_before_the_clock_went_ahead_stays_until_it_is_old_by_the_clock(
        self, memory: MemoryModule, blip: dict[str, str]
    ) -> None:
        self.need(memory.backend, KeepsHistory)
        for number in range(80):  # states are pruned beside every 64th change
            memory.update_memory(blip["before"], {"n": number})

        assert [each.version for each in memory.get_history(blip["before"])][-1] == 1
