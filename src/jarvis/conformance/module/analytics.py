"""Promises of analytics: what a store holds, in figures that are the same on every backend."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from jarvis.capabilities import (
    CAPABILITIES,
    Analyses,
    Erases,
    Expires,
    FeedsChanges,
    KeepsHistory,
    Namespaced,
    Transfers,
)
from jarvis.conformance.fixtures import FAR, FakeClock, Promises, an_entry
from jarvis.errors import InvalidEntryError, InvalidQueryError
from jarvis.model.analytics import Analytics
from jarvis.model.record import encode_body
from jarvis.persistent_memory import MemoryModule
from jarvis.storage_backend import BackendWrapper, StorageBackend


class Uncounted(BackendWrapper):
    """A backend that counts nothing itself."""

    capabilities = tuple(each for each in CAPABILITIES if each is not Analyses)


class AnalyticsPromises(Promises):
    """Analytics."""

    @pytest.fixture
    def counted(self, backend: StorageBackend, later: FakeClock) -> MemoryModule:
        """Return a module on an empty store."""
        return MemoryModule(storage_backend=backend, clock=later)

    def _all_sorts(self, counted: MemoryModule, later: FakeClock) -> None:
        """Make memories of all sorts, with a past if the backend has one."""
        chance, backend = random.Random(7), counted.backend  # noqa: S311  no secret
        spaces = ["default", "bob"] if backend.has_capability(Namespaced) else ["default"]
        for space in spaces:
            part, ids = counted.for_namespace(space) if space != counted.namespace else counted, list[str]()
            for number in range(40):
                later.step(hours=chance.randrange(40))
                life = chance.choice([None, timedelta(hours=2), timedelta(days=9), timedelta(days=700)])
                named: dict[str, Any] = {"category": f"c{number % 7}", "key": f"k{number}", "entity_type": "t"}
                value = {"text": chance.choice(["a", "é" * 9, "again and again " * chance.choice([1, 200])])}
                tags = chance.sample(["a", "b", "Ü"], chance.randrange(4))
                if not backend.has_capability(Expires):
                    life = None
                ids.append(part.create_memory(**named, value=value, tags=tags, ttl=life, module=f"m{number % 3}"))
            for _ in range(30):
                later.step(minutes=chance.randrange(90))
                some = chance.choice(ids)
                match chance.randrange(4):
                    case 0:
                        part.delete_memory(some)
                    case 1:
                        part.set_user_preference("theme", {"n": chance.randrange(2)})
                    case _:
                        part.update_memory(some, value={"n": chance.randrange(3)})

            for _ in range(2):  # the second time it is renewed
                later.step(hours=2)
                part.set_user_preference("kept", {"n": 1})
            if backend.has_capability(Erases):
                part.erase_memory(part.create_memory("doomed", "k", {}, "t"))

    def test_a_backend_counts_as_its_memories_are_counted(self, counted: MemoryModule, later: FakeClock) -> None:
        self.need(counted.backend, Analyses)
        self._all_sorts(counted, later)
        plain = MemoryModule(storage_backend=Uncounted(counted.backend), clock=later)

        for top in (1, 3, 1_000):
            assert counted.store.analytics(top=top) == plain.store.analytics(top=top)
        if counted.backend.has_capability(Namespaced):
            assert counted.store.analytics(namespaces=["bob"]) == plain.store.analytics(namespaces=["bob"])

    def test_memories_are_counted_by_each_of_their_names(self, counted: MemoryModule, later: FakeClock) -> None:
        self._all_sorts(counted, later)

        report = counted.store.analytics(top=1_000)

        entries = [(name, e) for name in ("default", "bob") for e in self._entries_of(counted, name)]
        sizes = {entry.id: len(encode_body(entry)[0]) for _, entry in entries}
        assert (report.memories, report.bytes) == (len(entries), sum(sizes.values()))
        for breakdown, names_of in (
            (report.categories, lambda _, entry: [entry.category]),
            (report.entity_types, lambda _, entry: [entry.entity_type]),
            (report.tags, lambda _, entry: entry.tags),
            (report.modules, lambda _, entry: [entry.provenance["module"]]),
            (report.namespaces, lambda name, _: [name]),
        ):
            wanted: dict[str, list[int]] = {}
            for name, entry in entries:
                for each in names_of(name, entry):
                    counts = wanted.setdefault(each, [0, 0])
                    counts[0], counts[1] = counts[0] + 1, counts[1] + sizes[entry.id]
            assert {share.name: [share.memories, share.bytes] for share in breakdown.shares} == wanted
            assert [share.memories for share in breakdown.shares] == sorted((n for n, _ in wanted.values()))[::-1]
        assert [large.bytes for large in report.largest] == sorted(sizes.values())[::-1]

    def _entries_of(self, counted: MemoryModule, name: str) -> list[Any]:
        if name == counted.namespace:
            return list(counted.iter_memories())
        if not counted.backend.has_capability(Namespaced):
            return []
        return list(counted.for_namespace(name).iter_memories())

    def test_ages_and_growth_are_those_of_the_creation(self, counted: MemoryModule, later: FakeClock) -> None:
        old = counted.create_memory("notes", "old", {}, "note")
        later.step(days=10)
        counted.create_memory("notes", "new", {}, "note")
        later.step(minutes=5)
        counted.update_memory(old, value={"n": 1})

        report = counted.store.analytics()

        assert (report.ages.oldest, report.ages.newest) == (FAR, FAR + timedelta(days=10))
        assert [bar.memories for bar in report.ages.histogram] == [1, 0, 0, 1, 0, 0]
        assert report.ages.median_seconds == timedelta(minutes=5).total_seconds()
        assert (report.growth.days, len(report.growth.periods)) == (1, 11)
        first, *between, last = report.growth.periods
        assert (first.start, first.memories, last.memories, last.total) == (FAR.date(), 1, 1, 2)
        assert {(period.memories, period.total) for period in between} == {(0, 1)}

    def test_memories_expire_when_the_report_says(self, counted: MemoryModule, later: FakeClock) -> None:
        self.need(counted.backend, Expires)
        lives = [timedelta(minutes=30), timedelta(hours=1), timedelta(days=6), timedelta(days=400), None]
        for life in lives:
            counted.create_memory("notes", "it", {}, "note", ttl=life)

        before = counted.store.analytics()
        later.step(minutes=30)
        after = counted.store.analytics()

        assert [bar.memories for bar in before.expiry.histogram] == [1, 1, 1, 0, 0, 1]
        assert (before.expiry.expired, before.expiry.never, before.memories) == (0, 1, 5)
        assert [bar.memories for bar in after.expiry.histogram] == [1, 0, 1, 0, 0, 1]
        assert after.memories == 4
        if counted.backend.has_capability(Transfers):
            assert after.expiry.expired == 1

    def test_changes_are_told_by_day(self, counted: MemoryModule, later: FakeClock) -> None:
        self.need(counted.backend, FeedsChanges)
        self.need(counted.backend, KeepsHistory)
        one = counted.create_memory("notes", "one", {}, "note")
        later.step(days=40)
        counted.update_memory(one, value={"n": 1})
        counted.update_memory(one, value={"n": 2})
        later.step(days=1)
        counted.delete_memory(counted.create_memory("notes", "two", {}, "note"))

        churn = counted.store.analytics().churn

        assert (churn.created, churn.updated, churn.removed) == (2, 2, 1)
        assert [(day.created, day.updated, day.removed) for day in churn.days[-2:]] == [(0, 2, 0), (1, 0, 1)]
        assert (len(churn.days), churn.days[-1].date) == (30, later().date())
        assert [(changed.id, changed.version) for changed in churn.most_changed] == [(one, 3)]

    def test_past_states_are_counted_with_their_bytes(self, counted: MemoryModule) -> None:
        self.need(counted.backend, KeepsHistory)
        self.need(counted.backend, Transfers)
        one = counted.create_memory("notes", "one", {"text": "long " * 1_000}, "note")
        before = counted.store.analytics()
        counted.update_memory(one, value={})

        after = counted.store.analytics()

        assert (before.overhead.past_states, before.overhead.past_bytes) == (0, 0)
        assert (after.overhead.past_states, after.overhead.past_bytes) == (1, before.bytes)

    def test_equal_values_are_found_within_a_namespace(self, backend: StorageBackend, counted: MemoryModule) -> None:
        for number in range(7):
            backend.create(an_entry(f"same {number}", value={"a": 1, "b": "x"}))
        for number, text in enumerate(["long " * 900, "long " * 900, "other"]):
            backend.create(an_entry(f"long {number}", value={"text": text}))
        backend.create(an_entry("float", value={"a": 1.0, "b": "x"}))
        if backend.has_capability(Namespaced):
            backend.bind(namespace="bob").create(an_entry("theirs", value={"a": 1, "b": "x"}))

        found = counted.store.analytics().duplicates

        assert (found.groups, found.memories, found.bytes) == (2, 9, 6 * len('{"a":1,"b":"x"}') + 4_511)
        assert [(group.memories, group.ids) for group in found.largest] == [
            (7, [f"same {number}" for number in range(5)]),
            (2, ["long 0", "long 1"]),
        ]

    def test_nearly_equal_texts_are_found_when_asked(self, counted: MemoryModule) -> None:
        for cup in ("first", "second", "second"):
            text = f"The user likes green tea with a little honey, after a long walk in the morning, {cup}"
            counted.create_memory("facts", "tea", {"text": text}, "fact")
        counted.create_memory("facts", "other", {"text": "Something else"}, "fact")

        near = counted.store.analytics(near=True).near

        assert counted.store.analytics().near is None
        assert near is not None
        assert (near.groups, near.memories, len(near.largest[0].ids)) == (1, 3, 3)
        assert 0.8 <= near.largest[0].similarity < 1

    def test_lists_have_a_bounded_length_and_tell_the_rest(self, counted: MemoryModule) -> None:
        for number in range(9):
            counted.create_memory(f"c{number}", "k", {"n": number}, "t", tags=["all", f"t{number}"])

        report = counted.store.analytics(top=2)

        assert [share.name for share in report.categories.shares] == ["c0", "c1"]
        assert (report.categories.more_names, report.categories.more_memories) == (7, 7)
        assert [share.name for share in report.tags.shares] == ["all", "t0"]
        assert (report.tags.more_names, report.tags.more_memories, len(report.largest)) == (8, 8, 2)
        assert report.categories.more_bytes + sum(share.bytes for share in report.categories.shares) == report.bytes

    def test_a_report_has_no_value(self, counted: MemoryModule) -> None:
        counted.create_memory("notes", "secret", {"field": "the value"}, "note")

        written = msgspec.json.encode(counted.store.analytics(near=True))

        assert b"secret" in written
        assert b"field" not in written
        assert b"the value" not in written

    def test_an_empty_store_has_an_empty_report(self, counted: MemoryModule) -> None:
        report = counted.store.analytics(near=True)

        assert isinstance(report, Analytics)
        assert (report.memories, report.bytes, report.growth.periods, report.largest) == (0, 0, [], [])
        assert (report.ages.oldest, report.ages.median_seconds) == (None, None)

    def test_a_number_of_names_out_of_range_is_refused(self, counted: MemoryModule) -> None:
        for top in (0, 1_001, True, "20", None):
            with pytest.raises(InvalidQueryError, match="top"):
                counted.store.analytics(top=top)  # type: ignore[arg-type]  # on purpose
        with pytest.raises(InvalidEntryError):
            counted.store.analytics(namespaces=[""])
