"""Promises of erasure: no trace of erased memories is left, and no others are touched."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

import pytest

from jarvis.capabilities import Erases, Expires, FeedsChanges, KeepsHistory, Namespaced, Transactional
from jarvis.conformance.fixtures import FAR as START
from jarvis.conformance.fixtures import FakeClock, OpenBackend, Promises
from jarvis.errors import HistoryUnavailableError, TransactionError
from jarvis.model.change import Change
from jarvis.model.entry import MemoryEntry
from jarvis.model.erasure import Erased
from jarvis.model.query import MemoryQuery
from jarvis.model.revision import Signature
from jarvis.model.rules import WAS_ERASED
from jarvis.persistent_memory import MemoryModule
from jarvis.storage_backend import StorageBackend

Which = str | MemoryQuery | None
SECRETS = ("there", "changed", "deleted", "expired")
"""The keys of erased memories: one was changed and matches no more, one was deleted, and one has expired."""

_WANTED = MemoryQuery(limit=1, entity_type="person", entity_id="ada")


class Kind(NamedTuple):
    """Returns the argument of an erasure from the ids by key, and the keys of the memories that it erases."""

    which: Callable[[dict[str, str]], Which]
    keys: tuple[str, ...] = SECRETS


NAMES = (
    "0b8f5f0e-5f4c-4c1e-9c1a-0d7a3c1f9b2e",
    "one that is plain ASCII",
    "żółć żółć żółć",
    'żółć and a "quote"',
    '"all of it is quoted"',
    "\\begins with a backslash",
    "a\\b\\" * 8,
    "\\" * 20,
    "\x01\x1f\t\n\x7f" + "x" * 20,
    "\x7fżó" * 8,
    "🦊🦊🦊 beyond the plane",
    "/slashes/" * 3,
    "\u2028 and \u2029 and \u0085 end lines",
)
KINDS = {
    "id": Kind(lambda ids: ids["changed"], ("changed",)),
    "deleted id": Kind(lambda ids: ids["deleted"], ("deleted",)),
    "expired id": Kind(lambda ids: ids["expired"], ("expired",)),
    "entity": Kind(lambda _: _WANTED),
    "where": Kind(lambda _: MemoryQuery(where={"of": "ada"}, limit=1)),
    "tags": Kind(lambda _: MemoryQuery(tags=["ada", "nobody"], limit=0)),
    "after": Kind(lambda _: MemoryQuery(entity_type="person", entity_id="ada", after="-9000000000000000:0:x")),
    "until": Kind(lambda _: MemoryQuery(category="people", until=START + timedelta(hours=1))),
    "since": Kind(lambda _: MemoryQuery(since=START, until=START + timedelta(hours=1), entity_type="person")),
    "namespace": Kind(lambda _: None, (*SECRETS, "other")),
}


class Story:
    """A namespace with memories to erase, about a person, and with memories about other things."""

    def __init__(self, memory: MemoryModule, clock: FakeClock) -> None:
        self.memory, self.clock = memory, clock
        self.ids: dict[str, str] = {}
        for key in SECRETS:
            mortal = key == "expired" and memory.backend.has_capability(Expires)
            ttl = timedelta(hours=4) if mortal else None  # nobody writes after that, so it is not purged
            self.ids[key] = memory.create_memory("people", key, {"of": "ada"}, "person", "ada", ["ada"], ttl=ttl)
            clock.step(seconds=1)
        self.then = clock.now
        clock.step(hours=2)
        self.ids["other"] = memory.create_memory("things", "other", {"n": 1}, "thing", "ada", ["x"])
        clock.step(hours=1)
        self.changed(self.ids["changed"])
        memory.delete_memory(self.ids["deleted"], module="cleaner")
        memory.update_memory(self.ids["other"], {"n": 2})
        clock.step(hours=1)

    def changed(self, memory_id: str) -> None:
        """Change an entry in every field that a query can match."""
        entry = MemoryEntry(memory_id, "changed", "new key", {}, ["new"], "new type", "new", self.clock.now)
        with self.memory.transaction():
            backend: Any = self.memory.backend
            backend.moment(self.clock.now)
            backend.update(entry)

    def erase(self, which: Which, reason: str | None = None) -> Erased:
        """Erase by the verbs of the backend, in a transaction of its own."""
        backend = self.memory.backend.capability(Erases)
        with self.memory.transaction():
            store: Any = self.memory.backend
            store.moment(self.clock.now)
            store.sign(Signature("erase", "eraser", "task", reason))
            return backend.erase(which)

    def told(self) -> list[Change]:
        """Return the whole feed."""
        return self.memory.changes(limit=1_000)


class ErasurePromises(Promises):
    """Erased memories are gone from reads, the past, the feed and files."""

    @pytest.fixture
    def story(self, backend: StorageBackend, later: FakeClock) -> Story:
        """Return a namespace with memories to erase."""
        self.need(backend, Erases)
        for protocol in (KeepsHistory, FeedsChanges):
            self.need(backend, protocol)
        return Story(MemoryModule(storage_backend=backend, clock=later), later)

    @pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
    def test_what_is_erased_is_gone_from_every_answer(self, story: Story, kind: Kind) -> None:
        memory, ids = story.memory, story.ids
        before = {entry.id: entry for entry in memory.list_memories()}
        pasts = {key: memory.get_history(memory_id) for key, memory_id in ids.items()}

        erased = story.erase(kind.which(ids))

        gone = {ids[key] for key in kind.keys}
        assert set(erased.ids) == gone
        assert all(count > 0 for count in erased.removed.values())
        for key, memory_id in ids.items():
            if memory_id in gone:
                assert memory.get_memory(memory_id) is None
                assert memory.get_history(memory_id) == []
                assert memory.undo(memory_id) is False
                assert memory.restore_memory(memory_id, 1) is False
            else:
                assert memory.get_history(memory_id) == pasts[key]
        left = [entry for entry in before.values() if entry.id not in gone]
        assert memory.list_memories() == left
        assert memory.count_memories() == len(left)
        assert memory.search_memories(tags=["new"]) == [entry for entry in left if entry.tags == ["new"]]
        assert memory.count_memories(key="there") == (ids["there"] not in gone)

    def test_what_is_erased_is_counted_by_what_it_was(self, story: Story) -> None:
        self.need(story.memory.backend, KeepsHistory)

        changed, deleted = (story.erase(story.ids[key]).removed for key in ("changed", "deleted"))

        assert changed == {"entries": 1, "tags": 2, "past states": 1}
        assert deleted == {"tags": 1, "past states": 1}

    @pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
    def test_the_feed_tells_that_something_was_erased_and_not_what(self, story: Story, kind: Kind) -> None:
        gone = {story.ids[key] for key in kind.keys}
        others = [each for each in story.told() if each.memory_id not in gone]
        cursor = story.told()[0].cursor

        story.erase(kind.which(story.ids), "asked for")

        *rest, last = story.told()
        assert rest == others
        assert story.memory.changes(cursor)[-1] == last
        assert last == Change(
            cursor=last.cursor,
            operation="erase",
            timestamp=story.clock.now,
            module="eraser",
            task_id="task",
            reason="asked for",
            count=len(gone),
        )

    @pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
    def test_a_moment_before_is_refused_but_for_what_is_known(self, story: Story, kind: Kind) -> None:
        memory, ids = story.memory, story.ids
        gone = {ids[key] for key in kind.keys}
        story.clock.now += timedelta(hours=1)

        story.erase(kind.which(ids))

        erased = story.clock.now
        for then in (story.then, erased - timedelta(microseconds=1)):
            refused: list[Callable[[], object]] = [
                partial(memory.search_memories, as_of=then),
                partial(memory.search_memories, key="other", as_of=then),
                partial(memory.count_memories, category="nowhere", as_of=then),
                partial(next, memory.iter_memories(tags=["x"], as_of=then)),
                partial(memory.get_memory_by_key, "other", as_of=then),
                *(partial(memory.get_memory, each, as_of=then) for each in ("never there", *gone)),
            ]
            for question in refused:
                with pytest.raises(HistoryUnavailableError) as caught:
                    question()
                assert (caught.value.earliest is None, caught.value.because) == (False, WAS_ERASED)
        first = None
        if ids["other"] not in gone:
            assert memory.get_memory(ids["other"], as_of=story.then) is None
            first = memory.get_memory(ids["other"], as_of=story.then + timedelta(hours=2, minutes=1))
            assert first is not None
            assert first.value == {"n": 1}
        assert memory.search_memories(as_of=erased) == memory.list_memories()
        story.clock.step(hours=1)
        if memory.update_memory(ids["other"], {"n": 3}):  # it existed before, and so it is known
            assert memory.get_memory(ids["other"], as_of=story.then + timedelta(hours=2, minutes=1)) == first
        memory.create_memory("c", "new", {}, "t")
        assert memory.get_memory_by_key("new", as_of=erased) is None

    def test_an_id_that_is_given_anew_hides_no_erased_life(self, story: Story) -> None:
        memory_id = story.ids["there"]
        story.erase(memory_id)
        story.clock.step(hours=1)
        story.memory.backend.create(MemoryEntry(memory_id, "c", "k", {"n": 1}, timestamp=story.clock.now))

        entry = story.memory.get_memory(memory_id)
        assert entry is not None
        assert entry.version == 1
        assert story.memory.get_history(memory_id) == []
        with pytest.raises(HistoryUnavailableError):
            story.memory.get_memory(memory_id, as_of=story.then)

    def test_other_namespaces_are_not_touched(self, story: Story) -> None:
        self.need(story.memory.backend, Namespaced)
        twin = Story(story.memory.for_namespace("twin"), story.clock)
        told, memories = twin.told(), twin.memory.list_memories()
        seen = twin.memory.search_memories(category="things", as_of=twin.clock.now - timedelta(hours=1, minutes=1))
        assert [entry.value for entry in seen] == [{"n": 1}]

        story.erase(None)

        assert twin.told() == told
        assert twin.memory.list_memories() == memories
        assert (
            twin.memory.search_memories(category="things", as_of=twin.clock.now - timedelta(hours=1, minutes=1)) == seen
        )
        assert len(twin.memory.get_history(twin.ids["changed"])) == 1
        twin.erase(MemoryQuery(entity_id="ada"))
        assert story.told()[-1].operation == "erase"

    def test_erasing_a_namespace_by_name_is_erasing_all_of_it(self, story: Story) -> None:
        self.need(story.memory.backend, Namespaced)
        receipt = story.memory.store.erase_namespace(story.memory.namespace, module="eraser")

        assert (receipt.state, receipt.memories) == ("done", len(story.ids))
        (told,) = story.told()
        assert (told.operation, told.module, told.memory_id) == ("erase", "eraser", None)
        assert story.memory.list_memories() == []

    @pytest.mark.parametrize(
        "which", ["absent", MemoryQuery(key="absent"), MemoryQuery(tags=[]), MemoryQuery(where={"n": 99})]
    )
    def test_erasing_nothing_leaves_no_event(self, story: Story, which: Which) -> None:
        told = story.told()

        assert story.erase(which) == Erased((), {})

        assert story.told() == told
        assert story.memory.count_memories(category="things", as_of=story.then + timedelta(hours=2, minutes=1)) == 1

    def test_what_is_left_of_a_purged_memory_goes_by_its_id(self, story: Story) -> None:
        self.need(story.memory.backend, Expires)
        while story.memory.store.purge_expired():
            pass
        assert any(each.memory_id == story.ids["expired"] for each in story.told())

        assert story.erase(story.ids["expired"]).ids == (story.ids["expired"],)

        assert all(each.memory_id != story.ids["expired"] for each in story.told())
        assert story.memory.get_memory(story.ids["expired"]) is None

    def test_a_judge_decides_of_every_state(self, story: Story) -> None:
        store, query, judged = story.memory.backend.capability(Erases), MemoryQuery(entity_type="person"), list[str]()

        def judge(entry: MemoryEntry) -> bool:
            judged.append(entry.key)
            wanted, entry.key = entry.key == "changed", "a judge may change what it gets"
            return wanted

        with story.memory.transaction():
            erased = store.erase(query, judge)

        assert sorted(judged) == sorted(SECRETS)
        assert erased.ids == (story.ids["changed"],)
        assert story.memory.get_history(story.ids["deleted"])[0].entry.key == "deleted"

    def test_a_judge_decides_alone_where_a_state_is_left(self, story: Story) -> None:
        self.need(story.memory.backend, Expires)
        while story.memory.store.purge_expired():
            pass
        store = story.memory.backend.capability(Erases)
        story.memory.backend.create(MemoryEntry(story.ids["expired"], "people", "again", {}))

        with story.memory.transaction():
            assert store.erase(MemoryQuery(category="people"), lambda _: False).ids == ()
            assert store.erase(MemoryQuery(category="people"), lambda entry: entry.key == "again").ids == (
                story.ids["expired"],
            )

    @pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
    def test_an_erasure_can_be_taken_back_with_its_transaction(self, story: Story, kind: Kind) -> None:
        told, memories = story.told(), story.memory.list_memories()
        pasts = {memory_id: story.memory.get_history(memory_id) for memory_id in story.ids.values()}

        with contextlib.suppress(KeyError), story.memory.transaction():
            story.erase(kind.which(story.ids))
            raise KeyError
        with story.memory.transaction():
            with contextlib.suppress(KeyError), story.memory.transaction():
                story.erase(kind.which(story.ids))
                raise KeyError
            story.memory.update_memory(story.ids["other"], {"n": 3})

        assert [each for each in story.told() if each.operation != "expire"][:-1] == told  # writers purge too
        assert [entry.id for entry in story.memory.list_memories()[1:]] == [
            entry.id for entry in memories if entry.id != story.ids["other"]
        ]
        del pasts[story.ids["other"]]
        assert {memory_id: story.memory.get_history(memory_id) for memory_id in pasts} == pasts
        assert story.memory.count_memories(category="things", as_of=story.then) == 0

    def test_what_was_made_in_the_same_transaction_goes_too(self, story: Story) -> None:
        told = story.told()

        with story.memory.transaction():
            made = story.memory.create_memory("people", "new", {}, "person", "bob")
            story.memory.update_memory(made, {"n": 1})
            story.erase(MemoryQuery(entity_id="bob"))

        assert story.memory.get_memory(made) is None
        assert story.memory.get_history(made) == []
        assert story.told()[:-1] == told
        assert (story.told()[-1].operation, story.told()[-1].count) == ("erase", 1)

    def test_erasing_is_for_the_inside_of_a_transaction(self, story: Story) -> None:
        with pytest.raises(TransactionError):
            story.memory.backend.capability(Erases).erase(story.ids["there"])

        assert story.memory.get_memory(story.ids["there"]) is not None

    @pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
    def test_every_handle_and_the_next_opening_know_of_it(
        self, story: Story, kind: Kind, open_backend: OpenBackend
    ) -> None:
        other = MemoryModule(storage_backend=open_backend(), clock=story.clock)
        before = other.list_memories()
        gone = {story.ids[key] for key in kind.keys}

        story.erase(kind.which(story.ids))

        left = [entry for entry in before if entry.id not in gone]
        assert other.list_memories() == left
        story.memory.shutdown()
        reopened = MemoryModule(storage_backend=open_backend(), clock=story.clock)
        for memory in (story.memory, reopened, other):
            assert memory.list_memories() == left
            assert all(memory.get_history(memory_id) == [] for memory_id in gone)
            assert gone.isdisjoint(each.memory_id or "" for each in memory.changes())
            with pytest.raises(HistoryUnavailableError):
                memory.search_memories(as_of=story.then)
        other.shutdown()
        reopened.shutdown()

    @pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
    def test_no_file_names_what_was_erased(self, story: Story, kind: Kind) -> None:
        backend = story.memory.backend.capability(Erases)
        erased = story.erase(kind.which(story.ids))

        searched = backend.finish_erasing(erased.ids)

        assert searched is not None
        assert searched.found == 0
        assert searched.size > 0
        assert searched.files
        again = backend.finish_erasing(["short"])
        assert again is not None
        assert again.found == 0

    def test_a_search_finds_who_mentions_what_was_erased(self, story: Story) -> None:
        backend, gone = story.memory.backend.capability(Erases), story.ids["there"]
        story.memory.update_memory(story.ids["other"], {"see": gone})
        erased = story.erase(gone)

        searched = backend.finish_erasing(erased.ids)

        assert searched is not None
        assert searched.found > 0

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("size", [0, 2_000, 200_000])
    def test_a_mention_is_counted_once_however_it_is_written(
        self, backend: StorageBackend, name: str, size: int
    ) -> None:
        self.need(backend, Erases)
        store = backend.capability(Erases)
        filling = " ".join(str(number * 7919 % 10_007) for number in range(size // 5))
        backend.create(MemoryEntry(name, "c", "k", {"n": 1}))
        backend.create(MemoryEntry("1", "c", "k", {"text": filling, "see": name, "more": [filling]}))
        with backend.capability(Transactional).transaction():
            store.erase(name)

        searched = store.finish_erasing([name])

        assert searched is not None
        assert searched.found == 1

    def test_a_search_lets_a_wrapper_look_at_every_state(self, story: Story) -> None:
        states = list[tuple[str, int]]()

        def look(found: Iterator[MemoryEntry]) -> int:
            states.extend((entry.id, entry.version) for entry in found)
            return 5

        searched = story.memory.backend.capability(Erases).finish_erasing(["an id that nothing has"], look)

        assert searched is not None
        assert searched.found == 5
        versions = {"there": [1], "changed": [1, 2], "deleted": [1], "expired": [1], "other": [1, 2]}
        assert sorted(states) == sorted((story.ids[key], n) for key, several in versions.items() for n in several)

    def test_inside_a_transaction_finishing_has_to_wait(self, story: Story) -> None:
        backend = story.memory.backend.capability(Erases)
        with story.memory.transaction():
            erased = story.erase(story.ids["there"])
            assert backend.finish_erasing(erased.ids) is None

        searched = backend.finish_erasing(erased.ids)

        assert searched is not None
        assert searched.found == 0
