"""The feed of changes of `JSONBackend`: what happened, in the order of commits, and how long it is known."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jarvis._json import event as json_event
from jarvis._json import record as json_record
from jarvis.capabilities import FeedsChanges
from jarvis.config import HistoryPolicy
from jarvis.errors import CursorExpiredError
from jarvis.json_backend import JSONBackend
from jarvis.model.change import Change, Kind, cursor_of, position_of
from jarvis.model.entry import MemoryEntry
from jarvis.model.revision import Operation, Signature
from tests.erasing import erase_namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VERSION_1 = Path(__file__).parent / "stores" / "version-1.json"
START = datetime(2100, 1, 1, tzinfo=UTC)  # ahead of the system's time, which would be taken otherwise
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MANY = 10**6


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.json"


@pytest.fixture
def backend(path: Path) -> Iterator[JSONBackend]:
    backend = JSONBackend(path)
    yield backend
    backend.shutdown()


def an_entry(entry_id: str = "1", **fields: Any) -> MemoryEntry:
    fields = {"category": "preferences", "key": "theme", "value": {}, "timestamp": START, **fields}
    return MemoryEntry(id=entry_id, **fields)


def told(backend: JSONBackend, after: int = 0, limit: int = MANY) -> list[tuple[str, ...]]:
    """Return what the feed tells in short: number, operation, id and version."""
    found = backend.changes(after, limit)
    return [(str(position_of(each.cursor)), each.operation, f"{each.memory_id} {each.version}") for each in found]


@contextlib.contextmanager
def at(backend: JSONBackend, moment: datetime) -> Iterator[None]:
    """Make changes in a transaction at a moment."""
    with backend.transaction():
        assert backend.moment(moment) == moment
        yield


@contextlib.contextmanager
def signed(backend: JSONBackend, operation: Operation) -> Iterator[None]:
    with backend.transaction():
        backend.sign(Signature(operation, "ui", "task-1", f"a reason to {operation}"))
        yield


def put(backend: JSONBackend, entry: MemoryEntry) -> None:
    if backend.read(entry.id) is None:
        backend.create(entry)
    else:
        backend.update(entry)


def fail(backend: JSONBackend, *changes: Callable[[], object]) -> None:
    """Make changes in a block that is taken back."""

    def make() -> None:
        with backend.transaction():
            for change in changes:
                change()
            raise KeyError

    with pytest.raises(KeyError):
        make()


def document_of(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_bytes())
    del document["checksum"]
    return dict(document)


# --- what is told --------------------------------------------------------------------------------


def test_the_capability_is_there(backend: JSONBackend) -> None:
    assert backend.capability(FeedsChanges) is backend


def test_every_kind_of_change_is_told_in_order_with_its_author_and_reason(path: Path, backend: JSONBackend) -> None:
    provenance = {"module": "ui", "task_id": "task-1", "created_at": "", "reason": "asked for"}
    backend.create(an_entry(provenance=provenance, timestamp=START.astimezone(timezone(5 * HOUR))))
    changes: list[tuple[Operation, Callable[[], object]]] = [
        ("update", lambda: backend.update(an_entry(category="tasks", key="k"))),
        ("delete", lambda: backend.delete("1")),
        ("undo", lambda: backend.recreate(an_entry())),
        ("undo", lambda: backend.update(an_entry())),
        ("delete", lambda: backend.delete("1")),
        ("restore", lambda: backend.recreate(an_entry(key="k"))),
        ("restore", lambda: backend.update(an_entry())),
        ("clear", lambda: backend.clear()),
    ]
    for number, (operation, change) in enumerate(changes, 1):
        with at(backend, START + number * DAY), signed(backend, operation):
            change()

    told_then: list[tuple[Kind, int, str, str]] = [
        ("create", 1, "preferences", "theme"),
        ("update", 2, "preferences", "theme"),
        ("delete", 2, "tasks", "k"),
        ("undo", 3, "preferences", "theme"),
        ("undo", 4, "preferences", "theme"),
        ("delete", 4, "preferences", "theme"),
        ("restore", 5, "preferences", "k"),
        ("restore", 6, "preferences", "k"),
        ("clear", 6, "preferences", "theme"),
    ]
    expected = [
        Change(
            cursor=cursor_of(number + 1, document_of(path)["clock"]["generation"]),
            operation=kind,
            memory_id="1",
            version=version,
            category=category,
            key=key,
            timestamp=START + number * DAY,
            module="ui",
            task_id="task-1",
            reason=f"a reason to {kind}" if number else "asked for",
        )
        for number, (kind, version, category, key) in enumerate(told_then)
    ]
    for store in (backend, JSONBackend(path, read_only=True)):
        found = store.changes(0, MANY)
        assert found == expected
        assert {each.timestamp.utcoffset() for each in found} == {timedelta(0)}
        assert (store.first_position(), store.last_position()) == (0, 9)


def test_what_nobody_signed_has_no_author(backend: JSONBackend) -> None:
    nobody = {"module": "unknown", "task_id": "none", "created_at": ""}
    backend.create(an_entry(provenance=nobody))
    backend.create(an_entry("2"))
    backend.update(an_entry())
    backend.delete("1")
    backend.recreate(an_entry())
    backend.recreate(an_entry("3", provenance={"module": "none", "task_id": "unknown"}))
    erase_namespace(backend, "alice")

    found = backend.changes(0, MANY)
    assert [each.operation for each in found] == ["create", "create", "update", "delete", "create", "create"]
    assert [each.version for each in found] == [1, 1, 2, 2, 3, 1]
    assert {(each.module, each.task_id, each.reason) for each in found[:5]} == {(None, None, None)}
    assert (found[5].module, found[5].task_id) == ("none", "unknown")


def test_an_id_that_is_given_anew_is_told_to_be_created_anew(backend: JSONBackend) -> None:
    for _ in range(2):
        backend.create(an_entry())
        backend.delete("1")

    assert [what for _, *what in told(backend)] == 2 * [["create", "1 1"], ["delete", "1 1"]]


def test_a_limit_takes_the_first_and_a_cursor_goes_on_behind_it(backend: JSONBackend) -> None:
    for number in range(10):
        backend.create(an_entry(str(number)))
        backend.update(an_entry(str(number)))
        backend.delete(str(number))
    whole = told(backend)
    paged, after = [], 0
    while page := told(backend, after, 4):
        assert len(page) <= 4
        assert int(page[0][0]) > after
        paged += page
        after = int(page[-1][0])

    assert [int(cursor) for cursor, *_ in whole] == list(range(1, 31))
    assert paged == whole
    assert told(backend, 29) == whole[29:]
    assert told(backend, 0, 0) == told(backend, 30) == []
    with pytest.raises(CursorExpiredError):  # of another store, or of a later copy of this one
        told(backend, 31)


def test_a_creation_outside_the_calendar_is_told_at_its_edge(backend: JSONBackend) -> None:
    for number, moment in enumerate(("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00")):
        backend.create(an_entry(str(number), timestamp=datetime.fromisoformat(moment)))

    assert [each.timestamp.year for each in backend.changes(0, MANY)] == [1, 9999]


def test_namespaces_are_fed_apart(backend: JSONBackend) -> None:
    alice = backend.for_namespace("alice")
    for store in (backend, alice, backend, alice):
        store.create(an_entry(str(backend.last_position())))
    alice.delete("1")
    erase_namespace(alice, "default")

    assert told(alice) == [("2", "create", "1 1"), ("4", "create", "3 1"), ("5", "delete", "1 1")]
    assert [each.operation for each in backend.changes(0, MANY)] == ["erase"]
    assert backend.last_position() == alice.last_position()


# --- transactions --------------------------------------------------------------------------------


def test_nobody_is_told_what_is_not_committed(path: Path, backend: JSONBackend) -> None:
    backend.create(an_entry())
    other = JSONBackend(path, read_only=True)
    with backend.transaction():
        backend.update(an_entry())
        backend.delete("1")
        backend.recreate(an_entry())

        for store in (backend, other):
            assert (told(store, 1), store.last_position(), store.first_position()) == ([], 1, 0)
    assert [operation for _, operation, _ in told(backend, 1)] == ["update", "delete", "create"]
    assert told(other) == told(backend)


def test_what_is_taken_back_is_not_told(path: Path) -> None:
    backend = JSONBackend(path, history=HistoryPolicy(max_revisions=1, max_age=DAY))
    for number in range(4):
        with at(backend, START + number * DAY):
            put(backend, an_entry())
    before, first = told(backend), backend.first_position()
    everything: list[Callable[[], object]] = [
        lambda: backend.moment(START + 50 * DAY),
        lambda: backend.update(an_entry()),
        lambda: backend.prune(START + 99 * DAY, 3),
        lambda: backend.delete("1"),
        lambda: backend.recreate(an_entry()),
        lambda: backend.clear(),
        lambda: erase_namespace(backend, "default"),
        lambda: backend.create(an_entry()),
    ]
    fail(backend, *everything)
    assert (told(backend), backend.first_position()) == (before, first)
    with backend.transaction():
        fail(backend, *everything)
        assert (told(backend), backend.first_position()) == (before, first)
        backend.create(an_entry("2"))

    for store in (backend, JSONBackend(path)):
        assert store.first_position() == first
        assert told(store)[:-1] == before
        assert told(store)[-1][1:] == ("create", "2 1")


def test_a_number_that_was_told_is_not_given_again(path: Path, backend: JSONBackend) -> None:
    backend.create(an_entry())
    cursors: list[int] = []
    ways: list[Callable[[], object]] = [
        lambda: cursors.append(backend.last_position()),
        lambda: cursors.append(position_of(backend.changes(0, MANY)[-1].cursor)),
    ]
    for number, note in enumerate(ways):
        with backend.transaction():
            fail(backend, lambda: backend.update(an_entry()), note)
        backend.create(an_entry(f"new {number}"))

        assert [each.memory_id for each in backend.changes(cursors[-1], MANY)] == [f"new {number}"]


# --- cursors go on -------------------------------------------------------------------------------


def test_a_cursor_goes_on_across_reopening_and_handles(path: Path) -> None:
    handles = [JSONBackend(path), JSONBackend(path)]
    seen: list[str] = []
    for number in range(20):
        handles[number % 2].create(an_entry(str(number)))
        if number % 5 == 4:
            handles[0].shutdown()
            handles[1] = JSONBackend(path)
        if number % 3 == 2:
            after = int(seen[-1]) if seen else 0
            seen += [str(position_of(each.cursor)) for each in handles[number % 2].changes(after, MANY)]

    assert seen == [str(number) for number in range(1, 19)]


WRITER = """
import sys
from jarvis.json_backend import JSONBackend
from jarvis.model.entry import MemoryEntry

backend = JSONBackend(sys.argv[1], durability="normal")
for number in range(50):
    backend.create(MemoryEntry(f"{sys.argv[2]}-{number}", "c", "k", {}))
"""


def test_a_follower_of_four_processes_misses_nothing_and_reads_nothing_twice(path: Path) -> None:
    follower = JSONBackend(path)
    follower.bootstrap()
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, str(name)]) for name in range(4)]
    seen: list[Change] = []
    while True:
        working = any(writer.poll() is None for writer in writers)
        after = position_of(seen[-1].cursor) if seen else 0
        page = follower.changes(after, 7)
        assert all(position_of(each.cursor) > after for each in page)
        seen += page
        if not page and not working:
            break

    assert [writer.returncode for writer in writers] == [0] * 4
    assert [str(position_of(each.cursor)) for each in seen] == [str(number) for number in range(1, 201)]
    for name in range(4):
        own = [each.memory_id for each in seen if str(each.memory_id).startswith(f"{name}-")]
        assert own == [f"{name}-{number}" for number in range(50)]


# --- the policy ----------------------------------------------------------------------------------


def test_pruning_by_number_keeps_what_happened(path: Path, backend: JSONBackend) -> None:
    few = JSONBackend(path, history=HistoryPolicy(max_revisions=1))
    provenance = {"module": "maker", "task_id": "none", "reason": "asked for"}
    few.create(an_entry(provenance=provenance))
    for number in range(5):
        with signed(few, "update"):
            few.update(an_entry(key=f"k{number}"))
    with signed(few, "delete"):
        few.delete("1")

    assert len(few.revisions("1")) == 1
    for store in (few, JSONBackend(path, read_only=True)):
        found = store.changes(0, MANY)
        assert [(each.operation, each.version, each.key) for each in found] == [
            ("create", 1, "theme"),
            ("update", 2, "theme"),
            *(("update", number + 3, f"k{number}") for number in range(4)),
            ("delete", 6, "k4"),
        ]
        assert [str(position_of(each.cursor)) for each in found] == [str(number) for number in range(1, 8)]
        assert found[0].timestamp == START
        assert (found[0].module, found[0].task_id, found[0].reason) == ("maker", None, "asked for")
        assert {(each.module, each.reason) for each in found[1:-1]} == {("ui", "a reason to update")}
        assert store.first_position() == 0


def test_pruning_what_was_cleared_keeps_what_happened(path: Path) -> None:
    backend = JSONBackend(path, history=HistoryPolicy(max_age=90 * DAY, cleared_max_age=DAY))
    with at(backend, START):
        backend.create(an_entry())
    with at(backend, START + DAY):
        backend.clear()
    before = backend.changes(0, MANY)

    assert backend.prune(START + 9 * DAY, 10) == 1
    assert backend.revisions("1") == []
    assert backend.changes(0, MANY) == before
    assert [each.operation for each in JSONBackend(path).changes(0, MANY)] == ["create", "clear"]


def test_age_drops_what_happened_and_the_feed_begins_behind_it(path: Path) -> None:
    backend = JSONBackend(path, history=HistoryPolicy(max_age=5 * DAY))
    with at(backend, START):
        backend.create(an_entry(timestamp=START))
    for number in range(1, 4):
        with at(backend, START + number * DAY):
            backend.update(an_entry())
    whole = told(backend)

    assert backend.prune(START + 7 * DAY, 10) == 1  # what ended on day 1; the events of the days 0 and 1 go with it
    for store in (backend, JSONBackend(path, read_only=True)):
        assert store.first_position() == 2
        assert told(store, 2) == whole[2:]
        for after in (0, 1):
            with pytest.raises(CursorExpiredError) as caught:
                store.changes(after, 1)
            assert (caught.value.cursor, position_of(caught.value.earliest or "")) == (str(after), 2)
    assert backend.prune(START + 99 * DAY, 10) == 2
    assert (backend.first_position(), told(backend, 4)) == (4, [])
    assert "events" not in document_of(path)
    assert "history" not in document_of(path)


def test_pruning_takes_no_more_events_than_it_may(path: Path) -> None:
    backend = JSONBackend(path, history=HistoryPolicy(max_revisions=1, max_age=DAY))
    alice = backend.for_namespace("alice")
    for number in range(4):
        for store in (backend, alice):
            with at(backend, START + (2 * number + (store is alice)) * timedelta(minutes=1)):
                put(store, an_entry())
    before = [told(store) for store in (backend, alice)]
    assert sum(len(document["events"]) for document in _members(path)) == 6

    assert backend.prune(START + 9 * DAY, 1) == 1
    assert backend.first_position() == 1
    backend.prune(START + 9 * DAY, 0)
    assert backend.first_position() == 1
    assert backend.prune(START + 9 * DAY, 2) == 1
    assert backend.first_position() == 3
    assert [told(store, 3) for store in (backend, alice)] == [
        [each for each in whole if int(each[0]) > 3] for whole in before
    ]
    assert backend.prune(START + 9 * DAY, 99) == 0
    assert backend.first_position() == 8
    assert [member.get("events", []) for member in _members(path)] == [[], []]


def _members(path: Path) -> list[dict[str, Any]]:
    document = document_of(path)
    return [document, *document.get("namespaces", {}).values()]


def test_a_creation_with_an_old_timestamp_takes_what_was_before_it_along(path: Path) -> None:
    backend = JSONBackend(path, history=HistoryPolicy(max_revisions=1, max_age=DAY))
    with at(backend, START):
        backend.create(an_entry("1"))
    with at(backend, START + DAY):
        backend.update(an_entry("1"))
    with at(backend, START + DAY * 1.1):
        backend.update(an_entry("1"))
    with at(backend, START + DAY * 1.2):
        backend.create(an_entry("2", timestamp=START - 99 * DAY))
    for number in (1.3, 1.4):
        with at(backend, START + DAY * number):
            backend.update(an_entry("2"))
    assert len(document_of(path)["events"]) == 4

    assert backend.prune(START + DAY * 1.5, 99) == 0
    assert backend.first_position() == 4
    backend.prune(START + DAY * 1.5, 99)
    assert [event["number"] for event in document_of(path)["events"]] == [5]  # nobody can ask for the second
    assert [operation for _, operation, _ in told(backend, 4)] == ["update", "update"]


def test_a_store_that_keeps_no_history_has_no_feed(path: Path) -> None:
    backend = JSONBackend(path, history=HistoryPolicy(max_revisions=0))
    assert (backend.changes(0, MANY), backend.first_position(), backend.last_position()) == ([], 0, 0)
    backend.create(an_entry())
    backend.delete("1")
    backend.create(an_entry())
    erase_namespace(backend, "default")

    assert backend.last_position() == 4
    for after in (0, 4):
        with pytest.raises(CursorExpiredError) as caught:
            backend.changes(after, MANY)
        assert (caught.value.cursor, caught.value.earliest) == (str(after), None)
    with pytest.raises(CursorExpiredError) as caught:
        backend.first_position()
    assert (caught.value.cursor, caught.value.earliest) == ("0", None)
    assert list(document_of(path)) == ["format", "entries", "clock"]


def test_a_feed_begins_anew_after_a_writer_that_kept_no_history(path: Path) -> None:
    keeping, careless = JSONBackend(path), JSONBackend(path, history=HistoryPolicy(max_revisions=0))
    keeping.create(an_entry())
    careless.update(an_entry())
    careless.create(an_entry("2"))
    with keeping.transaction():
        fail(keeping, lambda: keeping.prune(START + 999 * DAY, 9), lambda: keeping.delete("1"))
        keeping.update(an_entry("2"))
        keeping.delete("2")

    for store in (keeping, JSONBackend(path, read_only=True)):
        assert store.first_position() == 3
        assert told(store, 3) == [("5", "update", "2 2"), ("6", "delete", "2 2")]
        with pytest.raises(CursorExpiredError):
            store.changes(2, MANY)


def test_what_is_taken_back_does_not_bring_back_what_nobody_noted(path: Path) -> None:
    keeping, careless = JSONBackend(path), JSONBackend(path, history=HistoryPolicy(max_revisions=0))
    keeping.create(an_entry())
    keeping.delete("1")
    keeping.recreate(an_entry())
    careless.update(an_entry())
    with keeping.transaction():  # the beginning moves, then history is turned on, then the first is taken back
        fail(keeping, lambda: keeping.prune(START + 999 * DAY, 9), lambda: keeping.create(an_entry("2")))
        keeping.create(an_entry("3"))

    assert keeping.first_position() == 4


# --- erasing -------------------------------------------------------------------------------------


def test_erasing_leaves_only_that_it_was_done(path: Path) -> None:
    backend = JSONBackend(path, history=HistoryPolicy(max_revisions=1))
    alice = backend.for_namespace("alice")
    for store, word in ((backend, "basalt"), (alice, "cobalt")):
        for entry_id in (f"{word}-1", f"{word}-2"):
            store.create(an_entry(entry_id, key=f"{word} key", category=f"{word} category"))
            for _ in range(3):
                store.update(an_entry(entry_id, key=f"{word} key", category=f"{word} category"))
        store.delete(f"{word}-2")
        store.recreate(an_entry(f"{word}-2", key=f"{word} key", category=f"{word} category"))
    moment = START + DAY
    others = told(backend)
    assert b"cobalt" in path.read_bytes()
    with backend.transaction():
        backend.sign(Signature("erase", "ui", "task-1", "asked for"))
        backend.moment(moment)
        assert erase_namespace(backend, "alice") == 2

    assert b"cobalt" not in path.read_bytes()
    for store in (backend, JSONBackend(path, read_only=True)):
        assert store.for_namespace("alice").changes(0, MANY) == [
            Change(
                cursor=store.newest_cursor(),
                operation="erase",
                timestamp=moment,
                module="ui",
                task_id="task-1",
                reason="asked for",
                count=2,
            )
        ]
        assert told(store) == others
        assert store.list_namespaces() == ["default"]


def test_a_past_without_a_present_is_told_to_be_erased_and_nothing_is_not(path: Path, backend: JSONBackend) -> None:
    erase_namespace(backend, "default")
    assert (backend.changes(0, MANY), backend.last_position()) == ([], 0)
    few = JSONBackend(path, history=HistoryPolicy(max_revisions=1, max_age=None, cleared_max_age=DAY))
    few.create(an_entry("basalt"))
    few.delete("basalt")
    assert erase_namespace(few, "default") == 0
    (erased,) = few.changes(0, MANY)
    assert (erased.operation, erased.count, position_of(erased.cursor)) == ("erase", 1, 3)
    before = path.read_bytes()
    assert erase_namespace(few, "default") == 0
    assert path.read_bytes() == before

    with at(few, START):
        few.create(an_entry("basalt"))
    with at(few, START + DAY):
        few.clear()
    few.prune(START + 9 * DAY, 9)
    assert few.revisions("basalt") == []
    assert b"basalt" in path.read_bytes()
    erase_namespace(few, "default")
    assert b"basalt" not in path.read_bytes()
    assert [(each.operation, each.count) for each in few.changes(0, MANY)] == [("erase", 1), ("erase", 1)]


# --- the file ------------------------------------------------------------------------------------


def test_the_file_shows_what_happened(path: Path) -> None:
    backend = JSONBackend(path, history=HistoryPolicy(max_revisions=1))
    for store in (backend, backend.for_namespace("alice")):
        store.create(an_entry(provenance={"module": "maker"}))
        for _ in range(2):
            with signed(store, "update"):
                store.update(an_entry())
    document = document_of(path)

    assert list(document) == ["format", "entries", "history", "gaps", "events", "namespaces", "clock", "commits"]
    assert document["clock"]["fed_from"] == 0
    created, updated = document["events"]
    assert created == {
        "number": 1,
        "made": 4_102_444_800_000_000,
        "operation": "create",
        "id": "1",
        "version": 1,
        "category": "preferences",
        "key": "theme",
        "module": "maker",
    }
    assert (updated["task_id"], updated["reason"]) == ("task-1", "a reason to update")
    assert list(document["namespaces"]["alice"]) == ["entries", "history", "gaps", "events"]
    text = path.read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"


def test_a_file_edited_by_hand_keeps_what_happened_and_is_written_in_our_form(path: Path) -> None:
    backend = JSONBackend(path, history=HistoryPolicy(max_revisions=1))
    for store in (backend, backend.for_namespace("alice")):
        store.create(an_entry())
        for _ in range(3):
            store.update(an_entry())
    before = [told(store) for store in (backend, backend.for_namespace("alice"))]
    path.write_text(json.dumps(document_of(path)), encoding="utf-8")

    assert [told(store) for store in (backend, backend.for_namespace("alice"))] == before
    backend.create(an_entry("2"))
    text = path.read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"
    assert told(JSONBackend(path))[:-1] == before[0]


def test_an_edited_file_that_does_not_say_where_its_feed_begins_tells_nothing_old(path: Path) -> None:
    backend = JSONBackend(path)
    backend.create(an_entry())
    document = document_of(path)
    del document["clock"]["fed_from"]
    path.write_text(json.dumps(document), encoding="utf-8")

    assert backend.first_position() == 1
    backend.delete("1")
    assert told(backend, 1) == [("2", "delete", "1 1")]


@pytest.mark.parametrize("left", ["events", "fed_from"])
def test_numbers_go_on_after_the_greatest_of_the_feed_in_a_file_edited_by_hand(path: Path, left: str) -> None:
    backend = JSONBackend(path, history=HistoryPolicy(max_age=DAY))
    with backend.transaction():
        backend.moment(START)
        backend.create(an_entry())
        erase_namespace(backend, "default")
    if left == "fed_from":
        backend.prune(START + 9 * DAY, 9)
    document = document_of(path)
    document["clock"]["commit"] = 0
    del document["commits"]
    path.write_text(json.dumps(document), encoding="utf-8")
    backend.create(an_entry())

    assert backend.last_position() == 3


def test_an_instant_of_an_edited_file_that_no_file_may_hold_does_no_harm_later(path: Path) -> None:
    backend = JSONBackend(path, history=HistoryPolicy(max_revisions=1, max_age=None))
    backend.create(an_entry())
    document = document_of(path)
    document["entries"]["1"]["position"][0] = 10**30
    path.write_text(json.dumps(document), encoding="utf-8")
    for _ in range(2):
        backend.update(an_entry())

    assert JSONBackend(path).changes(0, 1)[0].timestamp.year == 9999


def test_nothing_that_happened_is_encoded_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = JSONBackend(path, history=HistoryPolicy(max_revisions=1))
    other = JSONBackend(path, history=HistoryPolicy(max_revisions=1))
    backend.create(an_entry())
    for _ in range(9):
        backend.update(an_entry())
    other.bootstrap()
    assert len(document_of(path)["events"]) == 9
    work: list[str] = []

    def noting(what: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*given: Any) -> Any:
            work.append(what)
            return real(*given)

        return noted

    monkeypatch.setattr(json_record, "fragment_of", noting("encode entry", json_record.fragment_of))
    monkeypatch.setattr("jarvis._json.transaction.store_event", noting("encode event", json_event.store_event))
    monkeypatch.setattr("jarvis._json.file.read_event", noting("decode event", json_event.read_event))
    backend.update(an_entry())
    other.read("1")

    assert work == ["encode entry", "encode event", "decode event"]


def test_a_snapshot_that_others_hold_is_left_alone(path: Path) -> None:
    backend = JSONBackend(path, history=HistoryPolicy(max_revisions=1, max_age=DAY))
    backend.create(an_entry())
    for _ in range(3):
        backend.update(an_entry())
    backend.delete("1")
    snapshot = backend._store.seen()
    before = snapshot.changes("default", 0, MANY)
    backend.create(an_entry())
    backend.update(an_entry())
    backend.prune(START + 9 * DAY, 99)
    erase_namespace(backend, "default")

    assert snapshot.changes("default", 0, MANY) == before


# --- older files ---------------------------------------------------------------------------------


def test_a_file_of_format_1_is_fed_from_its_last_change_on(tmp_path: Path) -> None:
    path = Path(shutil.copy(VERSION_1, tmp_path / "memory.json"))
    for store in (JSONBackend(path, read_only=True), JSONBackend(path)):
        assert (store.first_position(), store.last_position(), store.changes(8, MANY)) == (8, 8, [])
        with pytest.raises(CursorExpiredError) as caught:
            store.changes(7, MANY)
        assert caught.value.earliest == "8"
    store.delete("id-3")
    store.for_namespace("alice").create(an_entry())

    assert document_of(path)["clock"]["fed_from"] == 8
    assert told(JSONBackend(path), 8) == [("9", "delete", "id-3 1")]
    assert told(store.for_namespace("alice"), 8) == [("10", "create", "1 1")]
    with pytest.raises(CursorExpiredError):
        store.changes(7, MANY)


def test_an_empty_file_of_format_1_is_fed_from_its_beginning(path: Path, backend: JSONBackend) -> None:
    path.write_text('{"format": 1, "entries": {}, "clock": {"commit": 0, "made": null}}')
    assert (backend.changes(0, MANY), backend.first_position()) == ([], 0)
    backend.create(an_entry())

    assert told(backend) == [("1", "create", "1 1")]


def test_a_first_lifes_file_is_fed_from_its_migration_on(path: Path, backend: JSONBackend) -> None:
    old: dict[str, Any] = {
        "id": "1",
        "category": "preferences",
        "key": "theme",
        "value": {},
        "tags": [],
        "entity_type": "",
        "entity_id": None,
        "timestamp": "2024-01-15T10:30:00",
        "provenance": {},
    }
    path.write_text(json.dumps({"entries": {"1": old}, "updated_at": ""}))
    backend.delete("1")

    assert backend.first_position() == 1
    assert told(backend, 1) == [("2", "delete", "1 1")]


# --- against what was done -----------------------------------------------------------------------


def _number(backend: JSONBackend) -> int:
    """Return the number of the last change, committed or not."""
    return backend._store.seen().clock.commit


class Diary:
    """Changes a store at random, and writes down what it did."""

    NAMES = ("default", "alice")

    def __init__(self, path: Path, seed: int, policy: HistoryPolicy) -> None:
        self.path, self.policy, self.chance = path, policy, random.Random(seed)
        self.done: dict[str, list[tuple[int, str, str | None, int | None]]] = {name: [] for name in self.NAMES}
        self.clock = START
        self.reopen()

    def reopen(self) -> None:
        self.backend = JSONBackend(self.path, durability="normal", history=self.policy)

    def change(self) -> None:
        name, entry_id = self.chance.choice(self.NAMES), str(self.chance.randrange(5))
        store, done = self.backend.for_namespace(name), self.done[name]
        entry, how = store.read(entry_id), self.chance.random()
        if how < 0.02:
            there, had = len(store.list_all()), any(each[1] != "erase" for each in done)
            erase_namespace(store, name)
            if there or had:
                done[:] = [each for each in done if each[1] == "erase"]  # of earlier ones that stays
                done.append((_number(store), "erase", None, None))
        elif how < 0.06:
            number = _number(store)
            order = sorted(store.list_all(), key=lambda entry: (entry.position or (0, 0))[1])
            store.clear()
            done += [(number + place, "clear", each.id, each.version) for place, each in enumerate(order, 1)]
        elif entry is None:
            known = max((each.version for each in store.revisions(entry_id)[:1]), default=0)
            again = self.chance.random() < 0.6
            with self.backend.transaction():
                store.sign(Signature("restore"))
                (store.recreate if again else store.create)(self._entry(entry_id))
            version = known + 1 if again else 1
            done.append((_number(store), "restore" if version > 1 else "create", entry_id, version))
        elif how < 0.75:
            store.update(self._entry(entry_id))
            done.append((_number(store), "update", entry_id, (entry.version or 0) + 1))
        else:
            store.delete(entry_id)
            done.append((_number(store), "delete", entry_id, entry.version))

    def _entry(self, entry_id: str) -> MemoryEntry:
        return an_entry(entry_id, timestamp=self.clock)

    def step(self) -> None:
        """Make a transaction, in which some changes may be taken back."""
        self.clock += timedelta(hours=1)
        with self.backend.transaction():
            self.clock = self.backend.moment(self.clock)
            for _ in range(self.chance.randrange(1, 4)):
                if self.chance.random() < 0.2:
                    before = {name: done.copy() for name, done in self.done.items()}
                    fail(self.backend, *[self.change] * 3, self.prune)
                    self.done = before
                self.change()
        if self.chance.random() < 0.2:
            self.prune()
        if self.chance.random() < 0.1:
            self.reopen()

    def prune(self) -> None:
        self.backend.prune(self.clock, self.chance.randrange(6))

    def check(self) -> None:
        first = self.backend.first_position()
        for name in self.NAMES:
            after, limit = (
                max(first, self.chance.randrange(self.backend.last_position() + 1)),
                self.chance.choice((5, MANY)),
            )
            for store in (self.backend.for_namespace(name), JSONBackend(self.path, read_only=True, namespace=name)):
                found = [
                    (position_of(each.cursor), each.operation, each.memory_id, each.version)
                    for each in store.changes(after, limit)
                ]
                assert found == [each for each in self.done[name] if each[0] > after][:limit]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("age", [None, 40])
def test_the_feed_tells_what_was_done(path: Path, seed: int, age: int | None) -> None:
    max_age = None if age is None else timedelta(hours=age)
    policy = HistoryPolicy(max_revisions=2, max_age=max_age, cleared_max_age=timedelta(hours=9))
    diary = Diary(path, seed, policy)
    for _ in range(120):
        diary.step()
        diary.check()

    assert (diary.backend.first_position() > 0) is (age is not None)
