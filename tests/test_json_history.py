"""What `JSONBackend` keeps of the past, and that it answers as it would have answered then."""

from __future__ import annotations

import itertools
import json
import pickle
import random
import shutil
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from jarvis._json import past as json_past
from jarvis._json import record as json_record
from jarvis.capabilities import KeepsHistory, Past
from jarvis.codec import instant_of
from jarvis.config import HistoryPolicy
from jarvis.errors import (
    DuplicateEntryError,
    HistoryUnavailableError,
    InvalidEntryError,
    InvalidQueryError,
    InvalidSettingError,
    ReadOnlyStoreError,
    TransactionError,
)
from jarvis.json_backend import JSONBackend
from jarvis.model.entry import MemoryEntry
from jarvis.model.query import MemoryQuery
from jarvis.model.revision import Revision, Signature
from tests.erasing import erase_namespace
from tests.stores.make import entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VERSION_1 = Path(__file__).parent / "stores" / "version-1.json"
START = datetime(2100, 1, 1, tzinfo=UTC)  # ahead of the system's time, which would be taken otherwise
STEP = timedelta(microseconds=1)
DAY = timedelta(days=1)
FOREVER = HistoryPolicy(max_revisions=1000, max_age=None, cleared_max_age=None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.json"


@pytest.fixture
def backend(path: Path) -> Iterator[JSONBackend]:
    backend = JSONBackend(path)
    yield backend
    backend.shutdown()


def an_entry(entry_id: str = "1", value: dict[str, Any] | None = None, **fields: Any) -> MemoryEntry:
    fields = {"category": "preferences", "key": "theme", "timestamp": START, **fields}
    return MemoryEntry(id=entry_id, value={"mode": "dark"} if value is None else value, **fields)


def put(backend: JSONBackend, at: datetime, value: object, entry_id: str = "1", **fields: Any) -> None:
    """Create or update an entry in a transaction of its own, at a moment."""
    with backend.transaction():
        moment = backend.moment(at)
        assert moment == at
        entry = an_entry(entry_id, {"v": value}, timestamp=moment, **fields)
        if backend.read(entry_id) is None:
            backend.create(entry)
        else:
            backend.update(entry)


def delete(backend: JSONBackend, at: datetime, entry_id: str = "1") -> None:
    with backend.transaction():
        backend.moment(at)
        backend.delete(entry_id)


def clear(backend: JSONBackend, at: datetime) -> None:
    with backend.transaction():
        backend.moment(at)
        backend.clear()


def seen(backend: JSONBackend, at: datetime, query: MemoryQuery | None = None) -> list[Any]:
    return [entry.value["v"] for entry in backend.as_of(at).select(query or MemoryQuery())]


def document_of(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_bytes())
    del document["checksum"]
    return dict(document)


# --- what is kept --------------------------------------------------------------------------------


def test_the_capability_is_there(backend: JSONBackend) -> None:
    assert backend.capability(KeepsHistory) is backend


def test_an_update_a_deletion_and_a_clearing_each_keep_the_state_they_end(backend: JSONBackend) -> None:
    put(backend, START, 1)
    put(backend, START + DAY, 2)
    delete(backend, START + 2 * DAY)
    put(backend, START + 3 * DAY, 3)
    clear(backend, START + 4 * DAY)

    kept = backend.revisions("1")
    assert [(each.entry.value["v"], each.version, each.operation, each.timestamp) for each in kept] == [
        (3, 1, "clear", START + 4 * DAY),
        (2, 2, "delete", START + 2 * DAY),
        (1, 1, "update", START + DAY),
    ]
    assert [each.entry.version for each in kept] == [1, 2, 1]
    assert [each.entry.position for each in kept] == [
        (instant_of(START + 3 * DAY), 4),
        (instant_of(START + DAY), 2),
        (instant_of(START), 1),
    ]


def test_a_revision_is_the_entry_whole_after_reopening(path: Path, backend: JSONBackend) -> None:
    value = {"at": (START, {1, 2}), "$type": "mine", "text": "\ud800 ż", "none": None}
    made = an_entry(
        "ż", value, tags=["b", "a"], entity_id="7", provenance={"module": "m"}, timestamp=datetime(2024, 1, 1)
    )
    for store in (backend, backend.for_namespace("alice")):
        store.create(made)
        with store.transaction():
            store.sign(Signature("undo", "ui", "task-1", "because"))
            moment = store.moment(START)
            store.delete("ż")
        reopened = JSONBackend(path, read_only=True).for_namespace(store.namespace)

        (found,) = reopened.revisions("ż")
        assert found == Revision(
            version=1,
            entry=made,
            operation="undo",
            timestamp=moment,
            module="ui",
            task_id="task-1",
            reason="because",
        )
        assert repr(found.entry.value) == repr(value)
        assert backend.revisions("unknown") == []


def test_the_file_shows_the_past(path: Path, backend: JSONBackend) -> None:
    for store in (backend, backend.for_namespace("alice")):
        with store.transaction():
            store.sign(Signature("update", "ui"))
            store.create(an_entry())
            store.update(an_entry(value={"mode": "light"}))
    before = document_of(path)

    assert list(before) == ["format", "entries", "history", "namespaces", "clock", "commits"]
    (state,) = before["history"]
    assert list(state) == ["ended", "made", "change", "entry"]
    assert (state["ended"], state["change"]) == (2, {"operation": "update", "module": "ui"})
    assert state["entry"] == {**before["entries"]["1"], "value": {"mode": "dark"}, "version": 1, "position": [
        instant_of(START), 1,
    ]}  # fmt: skip
    assert list(before["namespaces"]["alice"]) == ["entries", "history"]
    text = path.read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"


def test_a_file_edited_by_hand_keeps_its_past_and_is_written_in_our_form(path: Path, backend: JSONBackend) -> None:
    put(backend, START, 1)
    put(backend, START + DAY, 2)
    whole = path.read_bytes()
    path.write_text(json.dumps(document_of(path)), encoding="utf-8")

    assert seen(backend, START) == [1]
    with backend.transaction():
        erase_namespace(backend, "default")
        moment = backend.moment(START + DAY * 2)
    assert moment == START + DAY * 2
    path.write_text(json.dumps({key: held for key, held in json.loads(whole).items() if key != "checksum"}))
    backend.for_namespace("other").create(an_entry())
    erase_namespace(backend, "other")
    assert document_of(path)["history"] == json.loads(whole)["history"]
    text = path.read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("left", ["history", "gaps", "commits"])
def test_numbers_go_on_after_the_greatest_of_the_past_in_a_file_edited_by_hand(path: Path, left: str) -> None:
    backend = JSONBackend(path, history=HistoryPolicy(max_revisions=1))
    with backend.transaction():
        backend.moment(START)
        backend.create(an_entry())
        for _ in range(2):
            backend.update(an_entry())
        backend.delete("1")
    document = document_of(path)
    document["clock"]["commit"] = 0
    for name in {"history", "gaps", "commits"} - {left}:
        del document[name]
    path.write_text(json.dumps(document))
    backend.create(an_entry("2"))

    found = backend.read("2")
    assert found is not None
    assert found.position == (instant_of(START), 4 if left == "gaps" else 5)


def test_nothing_of_the_past_is_encoded_anew(backend: JSONBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        put(backend, START + number * DAY, number)
    encodings, keepings = itertools.count(), itertools.count()
    real_fragment, real_state = json_record.fragment_of, json_past._state
    monkeypatch.setattr(json_record, "fragment_of", lambda *given: (next(encodings), real_fragment(*given))[1])
    monkeypatch.setattr(json_past, "_state", lambda *given: (next(keepings), real_state(*given))[1])
    backend.create(an_entry("2"))
    backend.delete("2")

    assert (next(encodings), next(keepings)) == (1, 1)


def test_a_signature_holds_to_the_end_of_its_block(backend: JSONBackend) -> None:
    def operations() -> list[str]:
        return [each.operation for each in reversed(backend.revisions("1"))]

    backend.create(an_entry())
    with backend.transaction():
        backend.sign(Signature("restore"))
        backend.update(an_entry())
        with backend.transaction():
            backend.update(an_entry())
            backend.sign(Signature("undo"))
            backend.update(an_entry())
        backend.update(an_entry())
    backend.update(an_entry())
    with backend.transaction():
        with backend.transaction():
            backend.sign(Signature("undo"))
        backend.delete("1")

    assert operations() == ["restore", "restore", "undo", "restore", "update", "delete"]
    with pytest.raises(TransactionError):
        backend.sign(Signature("undo"))
    with pytest.raises(TransactionError):
        backend.complete(START)


def test_a_signature_that_cannot_be_written_is_refused(backend: JSONBackend) -> None:
    with backend.transaction(), pytest.raises(InvalidEntryError, match="reason"):
        backend.sign(Signature("update", reason="\ud800"))


def test_a_signature_of_a_block_that_failed_is_gone(backend: JSONBackend) -> None:
    backend.create(an_entry())

    def fail() -> None:
        with backend.transaction():
            backend.sign(Signature("undo"))
            raise KeyError

    with backend.transaction():
        with pytest.raises(KeyError):
            fail()
        backend.delete("1")

    assert [each.operation for each in backend.revisions("1")] == ["delete"]


def test_what_is_taken_back_leaves_no_revision(path: Path, backend: JSONBackend) -> None:
    few = JSONBackend(path, history=HistoryPolicy(max_revisions=2, max_age=DAY))
    for version in range(4):
        put(few, START + version * DAY / 100, version)
    before = document_of(path)

    def fail() -> None:
        with few.transaction():
            few.moment(START + 50 * DAY)
            few.update(an_entry())
            few.update(an_entry())
            few.prune(START + 100 * DAY, 1)
            few.clear()
            few.create(an_entry())
            erase_namespace(few, "default")
            few.create(an_entry())
            few.update(an_entry())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert document_of(path) == before
    with few.transaction():
        with pytest.raises(KeyError):
            fail()
        few.for_namespace("alice").create(an_entry())

    after = document_of(path)
    assert {name: after[name] for name in ("entries", "history", "gaps")} == {
        name: before[name] for name in ("entries", "history", "gaps")
    }
    assert after["clock"]["begins"] == before["clock"]["begins"]
    assert seen(few, START + 3 * DAY / 100) == [3]


def test_a_block_that_is_taken_back_leaves_the_snapshot_of_others_alone(backend: JSONBackend) -> None:
    put(backend, START, 1)
    put(backend, START + DAY, 2)
    before = backend._store.seen().archive("default")
    held = (list(before.states), dict(before.of_id))
    put(backend, START + 2 * DAY, 3)

    assert (before.states, before.of_id) == held
    assert backend._store.seen().archive("default") is not before


# --- recreate ------------------------------------------------------------------------------------


def test_recreate_goes_on_counting(backend: JSONBackend) -> None:
    backend.create(an_entry())
    backend.update(an_entry())
    backend.delete("1")
    backend.recreate(an_entry())
    backend.recreate(an_entry("new"))

    found = [backend.read("1"), backend.read("new")]
    assert [entry and entry.version for entry in found] == [3, 1]
    with pytest.raises(DuplicateEntryError):
        backend.recreate(an_entry())


# --- as it was -----------------------------------------------------------------------------------


def test_the_past_answers_as_it_was(path: Path, backend: JSONBackend) -> None:
    put(backend, START, 1)
    put(backend, START + DAY, 2)
    put(backend, START + 2 * DAY, 3, "2", key="other")
    delete(backend, START + 3 * DAY)

    for store in (backend, JSONBackend(path, read_only=True)):
        assert [seen(store, START + number * DAY) for number in range(4)] == [[1], [2], [3, 2], [3]]
        assert [seen(store, START + number * DAY - STEP) for number in range(1, 4)] == [[1], [2], [3, 2]]
        then = store.as_of(START + 2 * DAY)
        by_id, by_key, nothing = then.read("1"), then.newest_of_key("theme"), then.read("3")
        assert by_id is not None
        assert by_id == by_key
        assert (by_id.value, by_id.version, nothing, then.newest_of_key("absent")) == ({"v": 2}, 2, None, None)
        assert then.count(MemoryQuery()) == 2
        assert then.count(MemoryQuery(limit=1)) == 1
        assert [entry.id for entry in then.iterate(MemoryQuery(limit=1))] == ["2"]
        (first,) = then.select(MemoryQuery(limit=1))
        assert [entry.id for entry in then.select(MemoryQuery(after=first))] == ["1"]
        assert seen(store, START + 2 * DAY, MemoryQuery(where={"v": {"$lt": 3}})) == [2]


def test_a_naive_moment_is_local_time_and_what_is_no_moment_is_refused(backend: JSONBackend) -> None:
    put(backend, START, 1)
    put(backend, START + DAY, 2)

    assert seen(backend, START.astimezone().replace(tzinfo=None)) == [1]
    for wrong in (None, "2100-01-01", 7, START.date()):
        with pytest.raises(InvalidQueryError, match="as_of"):
            backend.as_of(wrong)  # type: ignore[arg-type]  # what is tested


def test_what_was_before_the_store_is_not_known(backend: JSONBackend) -> None:
    put(backend, START, 1)
    put(backend, START + DAY, 2)

    for moment in (
        START - STEP,
        datetime.min.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=UTC) + DAY,
    ):
        then = backend.as_of(moment)
        questions: list[Callable[[Past], object]] = [
            lambda then: then.read("1"),
            lambda then: then.newest_of_key("theme"),
            lambda then: then.select(MemoryQuery()),
            lambda then: then.count(MemoryQuery()),
            lambda then: next(iter(then.iterate(MemoryQuery()))),
        ]
        for ask in questions:
            with pytest.raises(HistoryUnavailableError) as caught:
                ask(then)
            assert (caught.value.moment, caught.value.earliest) == (moment, START)


def test_a_moment_of_another_zone_before_the_calendar_is_only_not_known(backend: JSONBackend) -> None:
    put(backend, START, 1)

    with pytest.raises(HistoryUnavailableError):
        backend.as_of(datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))).read("1")
    late = datetime.max.replace(tzinfo=timezone(timedelta(hours=-14)))
    assert seen(backend, late) == [1]


def test_a_store_without_a_change_has_only_a_present(backend: JSONBackend) -> None:
    assert backend.as_of(START).select(MemoryQuery()) == []


def test_changes_of_one_transaction_appear_together(path: Path, backend: JSONBackend) -> None:
    put(backend, START, "old")
    with backend.transaction():
        for number in range(3):
            moment = backend.moment(START + DAY + number * STEP)
            backend.create(an_entry(str(10 + number), {"v": number}, timestamp=moment))
        backend.update(an_entry("1", {"v": "new"}, timestamp=START + 9 * DAY))
        backend.complete(START + 2 * DAY)
    put(backend, START + 3 * DAY, "last", "last")

    for store in (backend, JSONBackend(path, read_only=True)):
        assert seen(store, START + 2 * DAY - STEP) == ["old"]
        assert seen(store, START + 2 * DAY) == ["new", 2, 1, 0]
        assert seen(store, START + 3 * DAY - STEP) == ["new", 2, 1, 0]


def test_completing_without_a_change_gives_no_moment(backend: JSONBackend) -> None:
    put(backend, START, 1)
    with backend.transaction():
        backend.complete(START + DAY)
        assert backend.moment(START + STEP) == START + STEP


def test_a_change_without_moment_is_made_at_the_systems_time(backend: JSONBackend) -> None:
    before = datetime.now(UTC)
    backend.create(an_entry(timestamp=START))
    between = datetime.now(UTC)
    while datetime.now(UTC) == between:
        pass
    backend.delete("1")

    (kept,) = backend.revisions("1")
    assert between < kept.timestamp <= datetime.now(UTC)
    assert [entry.id for entry in backend.as_of(between).select(MemoryQuery())] == ["1"]
    with pytest.raises(HistoryUnavailableError):
        backend.as_of(before - STEP).read("1")


def test_an_open_transaction_is_not_in_the_past_but_in_its_own_present(backend: JSONBackend) -> None:
    put(backend, START, 1)
    with backend.transaction():
        now = backend.moment(START + DAY)
        backend.update(an_entry("1", {"v": 2}, timestamp=START - 9 * DAY))

        assert seen(backend, START) == seen(backend, now - STEP) == [1]
        assert seen(backend, now) == [2]
        assert [each.entry.value["v"] for each in backend.revisions("1")] == [1]


def test_two_handles_see_one_past(path: Path) -> None:
    one, other = JSONBackend(path), JSONBackend(path)
    for number in range(6):
        put((one, other)[number % 2], START + number * DAY, number)

    for store in (one, other):
        assert [seen(store, START + number * DAY) for number in range(6)] == [[number] for number in range(6)]


def test_namespaces_have_a_past_of_their_own(backend: JSONBackend) -> None:
    alice = backend.for_namespace("alice")
    put(backend, START, 1)
    put(alice, START + DAY, 2)
    delete(backend, START + 2 * DAY)
    delete(alice, START + 3 * DAY)

    assert (seen(backend, START + DAY), seen(alice, START + DAY)) == ([1], [2])
    assert [each.entry.value["v"] for each in alice.revisions("1")] == [2]
    assert backend.list_namespaces() == []


# --- the policy ----------------------------------------------------------------------------------


def test_a_policy_is_checked_kept_by_copies_and_shared_by_siblings(path: Path) -> None:
    backend = pickle.loads(pickle.dumps(JSONBackend(path, history=HistoryPolicy(max_revisions=2)))).for_namespace("a")
    for number in range(9):
        put(backend, START + number * DAY, number)

    assert len(backend.revisions("1")) == 2
    with pytest.raises(InvalidSettingError, match="history"):
        JSONBackend(path, history=7)  # type: ignore[arg-type]  # what is tested


def test_no_revisions_means_no_past(path: Path) -> None:
    backend = JSONBackend(path, history=HistoryPolicy(max_revisions=0))
    put(backend, START, 1)
    put(backend, START + DAY, 2)

    document = document_of(path)
    assert list(document) == ["format", "entries", "clock"]
    assert document["clock"]["begins"] is None
    assert seen(backend, START + DAY) == [2]
    with pytest.raises(HistoryUnavailableError) as caught:
        seen(backend, START)
    assert caught.value.earliest is None


def test_a_past_begins_anew_after_a_writer_that_kept_none(path: Path) -> None:
    keeping, careless = JSONBackend(path), JSONBackend(path, history=HistoryPolicy(max_revisions=0))
    put(keeping, START, 1)
    put(careless, START + DAY, 2)
    careless.create(an_entry("2", {"v": "ahead"}, timestamp=START + 99 * DAY))
    put(keeping, START + 3 * DAY, 3)
    put(keeping, START + 4 * DAY, 4)

    assert seen(keeping, START + 3 * DAY) == ["ahead", 3]
    with pytest.raises(HistoryUnavailableError) as caught:
        seen(keeping, START + 2 * DAY)
    assert caught.value.earliest == START + 3 * DAY


def test_an_open_transaction_that_keeps_no_past_knows_none(path: Path) -> None:
    keeping, careless = JSONBackend(path), JSONBackend(path, history=HistoryPolicy(max_revisions=0))
    put(keeping, START, 1)
    with careless.transaction():
        careless.moment(START + DAY)
        careless.delete("1")

        with pytest.raises(HistoryUnavailableError):
            seen(careless, START)


def test_what_a_gap_may_have_held_is_refused_and_nothing_else(path: Path) -> None:
    backend = JSONBackend(path, history=HistoryPolicy(max_revisions=2, max_age=None, cleared_max_age=None))
    for number in range(6):
        put(backend, START + number * DAY, number)
    put(backend, START + 6 * DAY, "2", "2", category="tasks", key="k", entity_type="task", entity_id="7")

    for store in (backend, JSONBackend(path, read_only=True)):
        assert [each.entry.value["v"] for each in store.revisions("1")] == [4, 3]
        assert [seen(store, START + number * DAY) for number in (3, 4, 5)] == [[3], [4], [5]]
        for moment in (START, START + 3 * DAY - STEP):
            then = store.as_of(moment)
            for query in (
                MemoryQuery(),
                MemoryQuery(category="preferences"),
                MemoryQuery(key="theme", entity_type=""),
                MemoryQuery(tags=["any"]),
            ):
                with pytest.raises(HistoryUnavailableError) as caught:
                    then.select(query)
                assert caught.value.earliest == START + 3 * DAY
            with pytest.raises(HistoryUnavailableError):
                then.read("1")
            assert then.read("2") is None
            assert then.newest_of_key("k") is None
            for query in (
                MemoryQuery(category="tasks"),
                MemoryQuery(entity_id="7"),
                MemoryQuery(key="theme", entity_type="task"),
            ):
                assert then.select(query) == []


def test_a_gap_whose_states_differ_is_met_by_the_filter_of_each(path: Path) -> None:
    backend = JSONBackend(path, history=HistoryPolicy(max_revisions=1, max_age=None))
    put(backend, START, 1, category="tasks", entity_id=None)
    put(backend, START + DAY, 2, category="tools", entity_id="7")
    put(backend, START + 2 * DAY, 3, category="tools")
    put(backend, START + 3 * DAY, 4, category="tools")

    for query in (MemoryQuery(category="tasks"), MemoryQuery(category="tools"), MemoryQuery(entity_id="7")):
        with pytest.raises(HistoryUnavailableError):
            seen(backend, START, query)
    assert seen(backend, START, MemoryQuery(key="absent")) == []


def test_pruning_takes_the_oldest_and_moves_the_beginning(path: Path) -> None:
    backend = JSONBackend(path, history=HistoryPolicy(max_age=timedelta(days=3), cleared_max_age=None))
    alice = backend.for_namespace("alice")
    for number in range(6):
        put((backend, alice)[number % 2], START + number * DAY, number)
    now = START + 7 * DAY + STEP

    assert backend.prune(START + 5 * DAY, 9) == 0  # what ended on day 2 is as old as it may be
    assert backend.prune(now, 0) == 0
    assert backend.prune(now, 2) == 2  # what ended on the days 2 and 3
    assert [each.entry.value["v"] for each in (*backend.revisions("1"), *alice.revisions("1"))] == [2, 3]
    assert (seen(backend, START + 3 * DAY), seen(alice, START + 3 * DAY)) == ([2], [3])
    with pytest.raises(HistoryUnavailableError) as caught:
        seen(alice, START + 3 * DAY - STEP)
    assert caught.value.earliest == START + 3 * DAY
    assert backend.prune(now, 10) == 1  # what ended on day 4: not yet that of day 5
    assert backend.prune(now, 10) == 0
    assert seen(JSONBackend(path), START + 4 * DAY) == [4]


def test_what_a_clearing_ended_may_be_kept_shorter(path: Path) -> None:
    backend = JSONBackend(path, history=HistoryPolicy(max_age=None, cleared_max_age=DAY))
    put(backend, START, 1)
    put(backend, START + DAY, 2)
    clear(backend, START + 2 * DAY)

    assert backend.prune(START + 3 * DAY, 10) == 0
    assert backend.prune(START + 3 * DAY + STEP, 10) == 2
    assert backend.revisions("1") == []
    with pytest.raises(HistoryUnavailableError):
        seen(backend, START + 2 * DAY - STEP)


def test_pruning_moves_the_beginning_to_the_end_of_the_transaction(path: Path) -> None:
    backend = JSONBackend(path, history=HistoryPolicy(max_age=DAY))
    put(backend, START, 1)
    with backend.transaction():
        backend.moment(START + DAY)
        backend.delete("1")
        backend.complete(START + 2 * DAY)
    put(backend, START + 3 * DAY, 3)

    assert backend.prune(START + 9 * DAY, 10) == 1
    with pytest.raises(HistoryUnavailableError) as caught:
        seen(backend, START + 2 * DAY - STEP)  # where the deletion was made, but not yet to be seen
    assert caught.value.earliest == START + 2 * DAY
    assert seen(backend, START + 2 * DAY) == []


def test_pruning_what_the_open_transaction_ended_lets_the_past_begin_with_it(path: Path) -> None:
    backend = JSONBackend(path, history=HistoryPolicy(max_age=DAY))
    put(backend, START, 1)
    with backend.transaction():
        backend.moment(START + DAY)
        backend.delete("1")
        assert backend.prune(START + 9 * DAY, 10) == 1
        with pytest.raises(HistoryUnavailableError):
            seen(backend, START)
        backend.complete(START + 2 * DAY)

    with pytest.raises(HistoryUnavailableError) as caught:
        seen(backend, START)
    assert caught.value.earliest == START + 2 * DAY


def test_gaps_and_commits_before_the_beginning_are_forgotten(path: Path) -> None:
    backend = JSONBackend(path, history=HistoryPolicy(max_revisions=1, max_age=DAY))
    for number in range(4):
        with backend.transaction():
            put(backend, START + number * DAY, number)
            backend.complete(START + number * DAY + STEP)
    assert (len(document_of(path)["gaps"]), len(document_of(path)["commits"])) == (1, 4)
    backend.prune(START + 99 * DAY, 10)

    document = document_of(path)
    assert "gaps" not in document
    assert "history" not in document
    assert len(document["commits"]) == 1


def test_writers_prune_now_and_then_and_after_clearing(path: Path) -> None:
    backend = JSONBackend(path, history=HistoryPolicy(max_age=DAY, cleared_max_age=None))
    for number in range(10):
        put(backend, START + number * STEP, number)
    for number in range(10, 70):
        put(backend, START + 9 * DAY + number * STEP, number)
    assert len(backend.revisions("1")) == 60  # all that the tenth of the first day had ended are gone
    clear(backend, START + 99 * DAY)

    assert [each.operation for each in backend.revisions("1")] == ["clear"]


def test_pruning_needs_a_store_that_may_be_written(path: Path, backend: JSONBackend) -> None:
    backend.bootstrap()

    with pytest.raises(ReadOnlyStoreError):
        JSONBackend(path, read_only=True).prune(START, 1)


# --- erasing -------------------------------------------------------------------------------------


def test_erasing_a_namespace_leaves_no_byte_of_its_past(path: Path) -> None:
    backend = JSONBackend(path, history=HistoryPolicy(max_revisions=1))
    alice = backend.for_namespace("alice")
    for store, word in ((backend, "basalt"), (alice, "cobalt")):
        for number in range(4):
            with store.transaction():
                store.sign(Signature("update", reason=f"{word} reason"))
                put(store, START + (number + 10 * (store is alice)) * DAY, f"{word} {number}", key=word)
    assert path.read_bytes().count(b"cobalt") > 4

    assert erase_namespace(backend, "alice") == 1
    assert b"cobalt" not in path.read_bytes()
    assert b"basalt reason" in path.read_bytes()
    assert alice.revisions("1") == []
    with pytest.raises(HistoryUnavailableError):
        alice.as_of(START + 12 * DAY).select(MemoryQuery())
    assert seen(backend, START + 2 * DAY) == ["basalt 2"]
    assert erase_namespace(backend, "default") == 1
    assert b"basalt" not in path.read_bytes()


def test_a_past_without_a_present_is_erased_too(path: Path, backend: JSONBackend) -> None:
    put(backend, START, "basalt")
    delete(backend, START + DAY)

    assert erase_namespace(backend, "default") == 0
    assert b"basalt" not in path.read_bytes()


# --- older files ---------------------------------------------------------------------------------


def test_a_file_of_format_1_is_read_as_it_is_and_written_as_format_4(tmp_path: Path) -> None:
    path = Path(shutil.copy(VERSION_1, tmp_path / "memory.json"))
    reader = JSONBackend(path, read_only=True)
    assert reader.list_all() == reader.for_namespace("alice").list_all() == entries()
    newest = max(entry.timestamp for entry in entries())
    assert reader.as_of(newest).select(MemoryQuery()) == entries()
    with pytest.raises(HistoryUnavailableError) as caught:
        reader.as_of(newest - STEP).read("id-0")
    assert caught.value.earliest == newest
    assert path.read_bytes() == VERSION_1.read_bytes()

    backend = JSONBackend(path)
    assert backend.list_all() == entries()
    assert path.read_bytes() == VERSION_1.read_bytes()
    delete(backend, START, "id-3")
    document = document_of(path)
    assert document["format"] == 4
    assert document["clock"]["begins"] == instant_of(newest)
    assert document["entries"] == {
        key: held for key, held in json.loads(VERSION_1.read_bytes())["entries"].items() if key != "id-3"
    }
    for store in (backend, reader, JSONBackend(path)):
        assert store.as_of(START - STEP).select(MemoryQuery()) == entries()
        assert store.as_of(START).count(MemoryQuery()) == len(entries()) - 1
        with pytest.raises(HistoryUnavailableError):
            store.as_of(newest - STEP).read("id-0")


def test_a_file_of_format_1_with_a_last_instant_begins_there(path: Path, backend: JSONBackend) -> None:
    backend.create(an_entry("1", {"v": "ahead"}, timestamp=START + 9 * DAY))
    document = document_of(path)
    del document["commits"]
    document["format"], document["clock"] = 1, {"commit": 7, "made": instant_of(START)}
    path.write_text(json.dumps(document))
    put(backend, START + DAY, 2, "2")

    assert seen(backend, START) == ["ahead"]
    with pytest.raises(HistoryUnavailableError):
        seen(backend, START - STEP)


def test_an_empty_file_of_format_1_has_no_past(path: Path, backend: JSONBackend) -> None:
    path.write_text('{"format": 1, "entries": {}, "clock": {"commit": 0, "made": null}}')
    assert backend.as_of(START).select(MemoryQuery()) == []
    put(backend, START, 1)

    assert document_of(path)["clock"]["begins"] == instant_of(START)


def test_a_first_lifes_past_begins_at_its_newest_entry(path: Path, backend: JSONBackend) -> None:
    old: dict[str, Any] = {
        "id": "1",
        "category": "preferences",
        "key": "theme",
        "value": {"v": 1},
        "tags": [],
        "entity_type": "",
        "entity_id": None,
        "timestamp": "2024-01-15T10:30:00",
        "provenance": {},
    }
    path.write_text(json.dumps({"entries": {"1": old}, "updated_at": ""}))
    put(backend, START, 2)

    assert seen(backend, datetime(2024, 1, 15, 10, 30)) == [1]
    assert seen(backend, START - STEP) == [1]
    with pytest.raises(HistoryUnavailableError):
        seen(backend, datetime(2024, 1, 15, 10, 29))


# --- against what was seen then ------------------------------------------------------------------


class Then(NamedTuple):
    """What was there from a moment on, by namespace."""

    moment: datetime
    entries: dict[str, list[MemoryEntry]]


class Driver:
    """Changes a store at random, and writes down what was there after each transaction."""

    NAMES = ("default", "alice")

    def __init__(self, path: Path, seed: int, policy: HistoryPolicy) -> None:
        self.path, self.policy = path, policy
        self.chance = random.Random(seed)
        self.clock = self.last = START
        self.told: list[Then] = []
        self.reopen()
        put(self.backend, START, 0)
        self._write_down()

    def reopen(self) -> None:
        self.backend = JSONBackend(self.path, durability="normal", history=self.policy)

    def store(self, name: str) -> JSONBackend:
        return self.backend.for_namespace(name)

    def _tick(self) -> None:
        self.clock += timedelta(microseconds=self.chance.choice([0, 0, 1, 1, 2, 5]))
        self.last = self.backend.moment(self.clock)

    def _entry(self, entry_id: str) -> MemoryEntry:
        ahead = timedelta(microseconds=self.chance.randrange(-20, 40))
        return an_entry(
            entry_id,
            {"n": self.chance.randrange(40)},
            category=self.chance.choice("xy"),
            key=self.chance.choice("kl"),
            entity_type=self.chance.choice(["t", ""]),
            entity_id=self.chance.choice([None, "1"]),
            tags=self.chance.choices("abc", k=self.chance.randrange(3)),
            timestamp=self.last if self.chance.random() < 0.7 else self.last + ahead,
        )

    def _change(self) -> None:
        store = self.store(self.chance.choice(self.NAMES))
        entry_id = str(self.chance.randrange(6))
        there = store.read(entry_id) is not None
        if self.chance.random() < 0.03:
            store.clear()
        elif not there:
            self.chance.choice([store.create, store.recreate])(self._entry(entry_id))
        elif self.chance.random() < 0.7:
            store.update(self._entry(entry_id))
        else:
            store.delete(entry_id)

    def _fail(self) -> None:
        with self.backend.transaction():
            for _ in range(self.chance.randrange(1, 4)):
                self._change()
            if self.chance.random() < 0.5:
                self._tick()
            raise KeyError

    def step(self) -> None:
        """Make one transaction of one of many kinds."""
        how = self.chance.random()
        if how < 0.15:  # a change that nobody gave a moment for
            self._change()
        else:
            with self.backend.transaction():
                if how < 0.9:
                    self._tick()
                for _ in range(1 if how < 0.5 else self.chance.randrange(5)):
                    self._change()
                    if how > 0.8 and self.chance.random() < 0.3:
                        self._tick()
                    if how > 0.7 and self.chance.random() < 0.2:
                        with pytest.raises(KeyError):
                            self._fail()
                if how > 0.6:
                    self.clock += STEP
                    self.backend.complete(self.clock)
        self._write_down()

    def _write_down(self) -> None:
        made = json.loads(self.path.read_bytes())["clock"]["made"]
        self.last = START + timedelta(microseconds=made - instant_of(START))
        self.told.append(Then(self.last, {name: self.store(name).list_all() for name in self.NAMES}))

    def query(self) -> MemoryQuery:
        def some(names: str) -> str | None:
            return None if self.chance.random() < 0.5 else self.chance.choice(names)

        near = START + timedelta(microseconds=self.chance.randrange(200))
        return MemoryQuery(
            category=some("xy"),
            key=some("kl"),
            entity_type=some("t"),
            entity_id=some("1"),
            tags=self.chance.choice([None, None, ["a"], ["a", "b"]]),
            tags_match=self.chance.choice(["any", "all"]),
            since=self.chance.choice([None, None, near]),
            until=self.chance.choice([None, None, near]),
            where=self.chance.choice([None, {"n": {"$gt": 20}}]),
            after=self.chance.choice([None, None, f"{instant_of(near)}:30:"]),
            limit=self.chance.choice([None, None, 0, 1, 3]),
        )

    def expected(self, moment: datetime, name: str) -> list[MemoryEntry]:
        held = [each.entries[name] for each in self.told if each.moment <= moment][-1]
        return sorted(held, key=lambda entry: entry.order, reverse=True)


def shown(found: list[MemoryEntry]) -> list[object]:
    return [(entry, entry.position) for entry in found]


def newest(found: list[MemoryEntry], key: str) -> MemoryEntry | None:
    return next((entry for entry in found if entry.key == key), None)


@pytest.mark.parametrize("seed", range(8))
def test_the_past_is_what_was_seen_then(path: Path, seed: int) -> None:
    driver = Driver(path, seed, FOREVER)
    for _ in range(120):
        driver.step()
        if driver.chance.random() < 0.05:
            driver.reopen()

    for reopened in (False, True):
        if reopened:
            driver.reopen()
        edges = [moment for each in driver.told for moment in (each.moment - STEP, each.moment, each.moment + STEP)]
        for moment in edges:
            for name in Driver.NAMES:
                then = driver.store(name).as_of(moment)
                if moment < driver.told[0].moment:
                    with pytest.raises(HistoryUnavailableError):
                        then.select(MemoryQuery())
                    continue
                everything = driver.expected(moment, name)
                assert shown(then.select(MemoryQuery())) == shown(everything)
                for query in (driver.query(), driver.query()):
                    found = list(filter(query.matches, everything))[: query.limit]
                    assert shown(then.select(query)) == shown(list(then.iterate(query))) == shown(found)
                    assert then.count(query) == len(found)
                entry_id = str(driver.chance.randrange(7))
                assert then.read(entry_id) == next((each for each in everything if each.id == entry_id), None)
                assert then.newest_of_key("k") == newest(everything, "k")
    assert len({each.moment for each in driver.told}) > 100


@pytest.mark.parametrize("seed", range(8))
def test_a_past_with_gaps_is_what_was_seen_then_or_refused(path: Path, seed: int) -> None:
    driver = Driver(path, seed, HistoryPolicy(max_revisions=3, max_age=60 * STEP, cleared_max_age=20 * STEP))
    answered = refused = 0
    later = True
    for _ in range(150):
        driver.step()
        if driver.chance.random() < 0.1:
            driver.backend.prune(driver.last, driver.chance.randrange(4))
        if driver.chance.random() < 0.1:
            driver.reopen()
        for moment in {driver.chance.choice(driver.told).moment + STEP * driver.chance.randrange(2) for _ in range(3)}:
            for name in Driver.NAMES:
                everything = driver.expected(moment, name)
                query = driver.query()
                entry_id = str(driver.chance.randrange(6))
                then = driver.store(name).as_of(moment)
                try:
                    found = list(filter(query.matches, everything))[: query.limit]
                    assert shown(then.select(query)) == shown(found)
                    assert then.read(entry_id) == next((each for each in everything if each.id == entry_id), None)
                    answered += 1
                except HistoryUnavailableError as error:
                    later = later and error.earliest is not None and error.earliest > moment
                    refused += 1

    assert later, "an error named a moment that is not known either"
    assert answered > 100
    assert refused > 100
