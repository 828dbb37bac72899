"""How `JSONBackend` shows expiry in its file, and that what was purged is not in there any more."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from jarvis.codec import instant_of
from jarvis.config import HistoryPolicy
from jarvis.conformance.fixtures import FAR as START
from jarvis.conformance.fixtures import FakeClock
from jarvis.errors import CorruptStoreError, DuplicateEntryError, HistoryUnavailableError
from jarvis.json_backend import JSONBackend
from jarvis.model.change import position_of
from jarvis.model.entry import MemoryEntry
from jarvis.persistent_memory import MemoryModule

FORMAT_2 = Path(__file__).parent / "stores" / "version-3.json"
SECOND = timedelta(seconds=1)
AT_ONCE = 16


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.json"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def memory(path: Path, clock: FakeClock) -> Iterator[MemoryModule]:
    memory = MemoryModule(storage_backend=JSONBackend(path), clock=clock)
    yield memory
    memory.shutdown()


def document_of(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_bytes())
    document.pop("checksum", None)
    return dict(document)


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> JSONBackend:
    """Change the file as by hand, without its checksum, and return a new handle on it."""
    document = document_of(path)
    change(document)
    path.write_text(json.dumps(document))
    return JSONBackend(path)


def test_the_file_shows_when_an_entry_expires(path: Path, memory: MemoryModule) -> None:
    mortal = memory.create_memory("c", "k", {}, "t", expires_at=START + timedelta(hours=1, microseconds=1))
    whole = memory.create_memory("c", "k", {}, "t", ttl=3600)
    kept = memory.create_memory("c", "k", {}, "t")
    memory.touch_memory(mortal, ttl=None)

    document = document_of(path)

    assert document["format"] == 4
    assert document["history"][0]["entry"]["expires_at"] == "2100-01-01T01:00:00.000001+00:00"
    assert document["entries"][whole]["expires_at"] == "2100-01-01T01:00:00+00:00"
    assert "expires_at" not in document["entries"][kept]
    assert "expires_at" not in document["entries"][mortal]


def test_a_gap_says_when_what_was_purged_expired(path: Path, memory: MemoryModule, clock: FakeClock) -> None:
    memory.create_memory("c", "k", {}, "t", ttl=1)
    clock.step(seconds=1)
    memory.store.purge_expired()

    (gap,) = document_of(path)["gaps"]

    assert gap["expires"] == instant_of(START + SECOND)
    memory.shutdown()
    for store in (memory.backend, edited(path, lambda _: None)):
        with pytest.raises(HistoryUnavailableError, match="expired and was purged"):
            MemoryModule(storage_backend=store, clock=clock).count_memories(as_of=START)


def test_nothing_of_what_was_purged_is_in_the_file(path: Path, memory: MemoryModule, clock: FakeClock) -> None:
    secret = memory.create_memory("c", "k", {"code": "first secret"}, "t", ttl=1)
    memory.update_memory(secret, {"code": "second secret"})
    deleted = memory.create_memory("c", "k", {"code": "third secret"}, "t", ttl=1)
    memory.delete_memory(deleted)
    memory.create_memory("c", "k", {"code": "public"}, "t", ttl=2)
    assert path.read_bytes().count(b" secret") == 3
    clock.step(seconds=1)

    memory.create_memory("c", "other", {}, "t")  # which purges beside

    assert b" secret" not in path.read_bytes()
    assert b"public" in path.read_bytes()
    assert memory.store.purge_expired() == 0
    assert [(each.operation, each.memory_id, each.module, each.reason) for each in memory.changes()[-2:]] == [
        ("create", memory.list_memories()[0].id, None, None),
        ("expire", secret, None, "expired at 2100-01-01T00:00:01+00:00"),
    ]


def test_a_change_purges_a_few_and_a_store_that_is_only_asked_none(
    path: Path, memory: MemoryModule, clock: FakeClock
) -> None:
    with memory.transaction():
        for number in range(AT_ONCE + 2):
            memory.create_memory("c", str(number), {}, "t", ttl=1)
    clock.step(seconds=1)
    before = path.read_bytes()
    assert memory.count_memories() == 0
    assert path.read_bytes() == before

    memory.set_user_preference("theme", {})

    assert len(document_of(path)["entries"]) == 2 + 1
    assert memory.store.purge_expired() == 2


def test_purging_stays_within_its_limit(memory: MemoryModule, clock: FakeClock) -> None:
    for number in range(3):
        memory.create_memory("c", str(number), {}, "t", ttl=3 - number)
        memory.delete_memory(memory.create_memory("c", str(number), {}, "t", ttl=1))
    clock.step(seconds=3)

    purged = [memory.store.purge_expired(limit=4) for _ in range(3)]

    assert purged == [4, 2, 0]
    expired = [each.key for each in memory.changes() if each.operation == "expire"]
    assert expired == ["2", "1", "0"]  # what expired first goes first


def test_clearing_purges_what_has_expired_and_counts_what_has_not(
    path: Path, memory: MemoryModule, clock: FakeClock
) -> None:
    memory.create_memory("c", "old", {}, "t", ttl=1)
    memory.create_memory("c", "new", {}, "t")
    clock.step(seconds=1)

    assert memory.clear_all(module="sweeper") == 1

    assert [(each.operation, each.key, each.module) for each in memory.changes()[-2:]] == [
        ("expire", "old", None),
        ("clear", "new", "sweeper"),
    ]
    assert [state["entry"]["key"] for state in document_of(path)["history"]] == ["new"]


def test_the_verbs_of_the_backend_find_nothing_that_has_expired(memory: MemoryModule, clock: FakeClock) -> None:
    backend = memory.backend
    memory_id = memory.create_memory("c", "k", {}, "t", ttl=1)
    clock.step(seconds=1)
    told = memory.changes()

    assert backend.discard(memory_id) is False
    backend.delete(memory_id)

    assert backend.newest_of_key("k") is backend.last_written("c", "k") is None
    assert memory.changes() == told


def test_an_id_is_given_anew_from_version_one(path: Path, memory: MemoryModule, clock: FakeClock) -> None:
    backend = memory.backend
    assert isinstance(backend, JSONBackend)
    for store in (backend.create, backend.recreate):
        backend.create(MemoryEntry("1", "c", "k", {"n": 1}, expires_at=clock.now + SECOND))
        memory.update_memory("1", {"n": 2})
        with pytest.raises(DuplicateEntryError):
            store(MemoryEntry("1", "c", "k", {"n": 3}))
        clock.step(seconds=1)

        store(MemoryEntry("1", "c", "k", {"n": 3}))

        entry = memory.get_memory("1")
        assert entry is not None
        assert (entry.version, entry.value) == (1, {"n": 3})
        assert memory.get_history("1") == []
        backend.delete("1")
        clock.step(seconds=1)
        assert memory.get_history("1")[0].version == 1
        backend.create(MemoryEntry("1", "c", "k", {}, expires_at=clock.now + SECOND))
        clock.step(seconds=1)
        memory.store.purge_expired()


def test_without_history_what_is_purged_leaves_nothing(path: Path, clock: FakeClock) -> None:
    policy = HistoryPolicy(max_revisions=0)
    memory = MemoryModule(storage_backend=JSONBackend(path, history=policy), clock=clock)
    memory.create_memory("c", "k", {}, "t", ttl=1)
    clock.step(seconds=1)

    assert memory.store.purge_expired() == 1

    assert document_of(path).keys() == {"format", "entries", "clock"}
    memory.shutdown()


def test_a_transaction_purges_by_the_clock_of_whom_opens_it(path: Path, memory: MemoryModule) -> None:
    memory.create_memory("c", "k", {}, "t", ttl=1)
    ahead = JSONBackend(path).bind(clock=lambda: START + SECOND)

    ahead.for_namespace("other").create(MemoryEntry("1", "c", "k", {}))

    assert memory.count_memories() == 0  # purged, though to this handle it has not expired
    ahead.shutdown()


def test_a_copy_keeps_the_clock(path: Path, memory: MemoryModule) -> None:
    memory.create_memory("c", "k", {}, "t", ttl=1)
    ahead = JSONBackend(path).bind(clock=after_a_second)

    for copy in (pickle.loads(pickle.dumps(ahead)), ahead.for_namespace("default")):
        assert copy.list_all() == []
        copy.shutdown()
    system = pickle.loads(pickle.dumps(JSONBackend(path)))
    assert len(system.list_all()) == 1
    system.shutdown()


def after_a_second() -> datetime:
    return START + SECOND


# --- files of other versions, and those edited by hand --------------------------------------------


def test_a_file_of_format_2_opens_with_its_past_and_is_written_as_format_4(tmp_path: Path, clock: FakeClock) -> None:
    path = Path(shutil.copy(FORMAT_2, tmp_path / "memory.json"))
    old = document_of(path)
    assert old["format"] == 2
    memory = MemoryModule(storage_backend=JSONBackend(path), clock=clock)
    lived = memory.for_namespace("lived")
    changes = lived.changes()

    memory.create_memory("c", "k", {}, "t", ttl=1)

    new = document_of(path)
    assert new["format"] == 4
    numbered = [replace(each, cursor=str(position_of(each.cursor))) for each in lived.changes()]
    assert numbered == changes
    assert new["namespaces"]["lived"] == old["namespaces"]["lived"]
    memory.shutdown()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2100-01-01T05:00:01.000001+05:00", datetime(2100, 1, 1, 0, 0, 1, 1, UTC)),
        ("2100-01-01 00:00:01Z", datetime(2100, 1, 1, 0, 0, 1, tzinfo=UTC)),
    ],
)
def test_an_expiry_written_by_hand_in_any_zone_is_the_instant_it_means(
    path: Path, memory: MemoryModule, text: str, wanted: datetime
) -> None:
    memory_id = memory.create_memory("c", "k", {}, "t", ttl=1)
    memory.shutdown()

    store = edited(path, lambda document: document["entries"][memory_id].update(expires_at=text))

    entry = store.read(memory_id)
    assert entry is not None
    assert entry.expires_at == wanted
    store.create(MemoryEntry("2", "c", "k", {}))
    assert document_of(path)["entries"][memory_id]["expires_at"] == wanted.isoformat()
    store.shutdown()


@pytest.mark.parametrize(
    "change",
    [
        lambda document, entry: entry.update(expires_at="2100-01-01T00:00:01"),
        lambda document, entry: entry.update(expires_at="tomorrow"),
        lambda document, entry: entry.update(expires_at=1),
        lambda document, entry: entry.update(expires_at="9999-12-31T23:59:59-05:00"),
        lambda document, entry: document.update(format=2),
        lambda document, entry: (document.update(format=2), entry.pop("expires_at")),
        lambda document, entry: (document.update(format=2, history=[]), entry.pop("expires_at")),
        lambda document, entry: document["gaps"][0].update(expires="2100-01-01T00:00:01+00:00"),
    ],
)
def test_an_expiry_that_cannot_be_is_refused(
    path: Path, memory: MemoryModule, clock: FakeClock, change: Callable[[dict[str, Any], dict[str, Any]], object]
) -> None:
    memory.create_memory("c", "k", {}, "t", ttl=1)
    memory_id = memory.create_memory("c", "k", {}, "t", ttl=5)
    memory.touch_memory(memory_id, ttl=10)
    clock.step(seconds=1)
    memory.store.purge_expired()
    memory.shutdown()
    edited(path, lambda _: None).bootstrap()

    with pytest.raises(CorruptStoreError) as caught:
        edited(path, lambda document: change(document, document["entries"][memory_id])).bootstrap()

    assert "tomorrow" not in str(caught.value)


def test_an_expiry_written_by_hand_that_has_passed_makes_it_absent(path: Path, memory: MemoryModule) -> None:
    memory_id = memory.create_memory("c", "k", {}, "t", ttl=1)
    memory.shutdown()

    store = edited(path, lambda document: document["entries"][memory_id].update(expires_at="1969-01-01T00:00:00Z"))

    assert store.read(memory_id) is None
    assert store.list_namespaces() == []
    store.shutdown()
