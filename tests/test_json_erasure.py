"""That no byte of what `JSONBackend` erased is in a file of the store, also if it is killed half-way."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jarvis._disk import files
from jarvis._disk.locks import WriterLock
from jarvis.config import HistoryPolicy
from jarvis.conformance.fixtures import FakeClock
from jarvis.errors import CorruptStoreError, HistoryUnavailableError, ReadOnlyStoreError
from jarvis.json_backend import JSONBackend
from jarvis.model.entry import MemoryEntry
from jarvis.model.query import MemoryQuery
from jarvis.persistent_memory import MemoryModule

Which = str | MemoryQuery | None

START = datetime(2100, 1, 1, tzinfo=UTC)
LETTERS = "ghijkmnopqrstuvwxyz" + "éż漢"  # no digit of a UUID, and no escape
CANARIES, FRAGMENT = 200, 8


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.json"


@pytest.fixture
def backend(path: Path) -> Iterator[JSONBackend]:
    backend = JSONBackend(path)
    yield backend
    backend.shutdown()


def an_old_store(path: Path, *ids: str) -> None:
    """Write a file as the first life wrote it, which is kept beside the store that it becomes."""
    plain = {
        "category": "c",
        "key": "k",
        "value": {},
        "tags": [],
        "entity_type": "person",
        "entity_id": "ada",
        "timestamp": "2025-01-01T00:00:00",
        "provenance": {},
    }
    path.write_text(json.dumps({"entries": {entry_id: {"id": entry_id, **plain} for entry_id in ids}}))


def erase(backend: JSONBackend, *which: Which) -> tuple[str, ...]:
    """Erase in one transaction; return the ids."""
    with backend.transaction():
        return tuple(entry_id for each in which for entry_id in backend.erase(each).ids)


def document_of(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_bytes()))


# --- bytes ---------------------------------------------------------------------------------------


def fragments(canary: str) -> set[bytes]:
    """Return what of a canary must stand nowhere: every few bytes of it, as they are and as JSON escapes them."""
    whole = (canary.encode(), json.dumps(canary)[1:-1].encode())
    return {data[place : place + FRAGMENT] for data in whole for place in range(len(data) - FRAGMENT + 1)}


def files_of(path: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in path.parent.iterdir()}


def found_in(files: dict[str, bytes], canaries: list[str]) -> list[tuple[str, bytes]]:
    return [
        (name, piece)
        for name, data in files.items()
        for piece in set().union(*map(fragments, canaries))
        if any(byte > ord("9") for byte in piece) and b"\\u" not in piece and piece in data
    ]


def churned(path: Path, chance: random.Random, namespace: str) -> tuple[JSONBackend, list[str], list[str]]:
    """Fill a store with a past of everything; return a handle, the canaries in it, and the ids they belong to."""
    canaries = ["".join(chance.choices(LETTERS, k=24)) for _ in range(CANARIES)]
    old = canaries[:5] if namespace == "default" else []
    an_old_store(path, *old)
    clock = FakeClock(START)
    backend = JSONBackend(path, durability="normal", history=HistoryPolicy(max_revisions=3)).for_namespace(namespace)
    backend = backend.bind(clock=clock)
    memory = MemoryModule(storage_backend=backend, clock=clock)
    ids = []
    with memory.transaction():
        for number in range(300):
            memory.create_memory("things", f"thing {number}", {"n": number}, "thing", "other", ["x"], reason="made")
    for number, canary in enumerate(canaries):
        with memory.transaction():
            clock.step(seconds=1)
            entry_id = canary if number % 2 or canary in old else f"the id of number {number}"
            fields: dict[str, Any] = {"timestamp": clock.now, "entity_type": "person", "entity_id": "ada"}
            ids.append(entry_id)
            if entry_id in old:
                continue
            until = clock.now + timedelta(days=1) if number % 7 == 0 else None
            backend.create(
                MemoryEntry(
                    entry_id, canary, canary, {"of": "ada", canary: [canary]}, [canary], expires_at=until, **fields
                )
            )
            for turn in range(number % 6):
                memory.update_memory(entry_id, {"of": "ada", "n": turn, "text": canary}, module="m", reason=canary)
            if number % 5 == 0:
                memory.delete_memory(entry_id, reason=canary)
    clock.step(days=2)
    (path.parent / ".memory.json.7-0a0b0c0d.tmp").write_text(canaries[0])
    return backend, canaries, ids


KINDS: dict[str, Callable[[list[str]], list[Which]]] = {
    "ids": lambda ids: [*ids],
    "entity": lambda _: [MemoryQuery(entity_type="person", entity_id="ada")],
    "filters": lambda _: [MemoryQuery(until=START), MemoryQuery(where={"of": "ada"}), MemoryQuery(entity_id="ada")],
    "namespace": lambda _: [None],
}


@pytest.mark.parametrize("namespace", ["default", "alice"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_piece_of_what_was_erased_is_in_any_file(kind: str, namespace: str, path: Path) -> None:
    backend, canaries, ids = churned(path, random.Random(f"{kind} {namespace}"), namespace)
    before = files_of(path)
    assert len({name for name, _ in found_in(before, canaries)}) == (3 if namespace == "default" else 2)
    assert len(before) == 4
    others = [entry.id for entry in backend.query(category="things")]

    erased = erase(backend, *KINDS[kind](ids))
    searched = backend.finish_erasing(erased)

    assert set(ids) <= set(erased)
    files = files_of(path)
    assert found_in(files, canaries) == []
    assert files.keys() >= {"memory.json", "memory.json.lock"}
    assert ("memory.json.first-life" in files) is (namespace != "default")
    assert searched is not None
    assert (searched.found, searched.size) == (0, sum(map(len, files.values())))
    assert sorted(searched.files) == sorted(str(path.parent / name) for name in files)
    assert [entry.id for entry in backend.query(category="things")] == ([] if kind == "namespace" else others)
    backend.shutdown()
    backend.list_all()
    assert found_in(files_of(path), canaries) == []
    backend.shutdown()


def test_what_killed_writers_left_goes_with_the_erasure(path: Path, backend: JSONBackend) -> None:
    backend.for_namespace("alice").create(MemoryEntry("1", "c", "k", {}))
    left = path.with_name(".memory.json.7-0a0b0c0d.tmp")
    left.write_text("1")

    erase(backend.for_namespace("alice"), None)

    assert not left.exists()
    left.write_text("1")
    backend.finish_erasing([])
    assert not left.exists()


def test_an_id_that_only_a_gap_names_is_erased(path: Path) -> None:
    backend = JSONBackend(path, history=HistoryPolicy(max_revisions=1))
    backend.create(MemoryEntry("the name", "c", "k", {}))
    for _ in range(3):
        backend.update(MemoryEntry("the name", "c", "k", {}))
    document = document_of(path)
    assert document["gaps"][0]["id"] == "the name"
    document.update(entries={}, history=[], events=[])
    del document["checksum"]
    path.write_text(json.dumps(document))

    assert erase(backend, "the name") == ("the name",)

    assert b"the name" not in path.read_bytes()
    backend.shutdown()


@pytest.mark.parametrize(
    "name", ["żółć " * 4, 'żółć and a "quote"', 'quote " and \\ and more', "/slashes/" * 3, "\x01\x1f" + "x" * 20]
)
@pytest.mark.parametrize("ascii_only", [False, True])
def test_a_search_finds_an_id_however_it_is_written(
    path: Path, backend: JSONBackend, name: str, ascii_only: bool
) -> None:
    backend.create(MemoryEntry("1", "c", "k", {}))
    (path.parent / "memory.json.bak").write_text(json.dumps({"id": name}, ensure_ascii=ascii_only))
    (path.parent / "unrelated.json").write_text(json.dumps(name))

    searched = backend.finish_erasing([name, "short"])

    assert searched is not None
    assert searched.found == 1
    assert [Path(file).name for file in searched.files] == ["memory.json", "memory.json.bak", "memory.json.lock"]


# --- the copies of the first life ----------------------------------------------------------------


def test_erasing_a_memory_of_the_default_namespace_removes_the_kept_copies(path: Path, backend: JSONBackend) -> None:
    an_old_store(path, "one", "two")
    backend.bootstrap()
    assert Path(f"{path}.first-life").exists()

    assert erase(backend, "one") == ("one",)

    assert not Path(f"{path}.first-life").exists()
    assert [entry.id for entry in backend.list_all()] == ["two"]


def test_a_copy_that_cannot_be_removed_is_left_to_the_next_who_can(
    path: Path, backend: JSONBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_old_store(path, "one", "two")
    backend.bootstrap()

    def refuse(self: files.System, path: str) -> None:
        raise OSError(5, "it stays")

    with monkeypatch.context() as patched:
        patched.setattr(files.System, "unlink", refuse)
        erase(backend, "one")
        assert document_of(path)["erasing"] is True
        backend.create(MemoryEntry("3", "c", "k", {}))
        assert document_of(path)["erasing"] is True
        assert backend.finish_erasing(["one"]) is None
    assert Path(f"{path}.first-life").exists()
    whole = path.read_bytes()

    finishes: list[Callable[[], object]] = [
        lambda: backend.finish_erasing([]),
        lambda: JSONBackend(path).bootstrap(),
        lambda: backend.delete("3"),
    ]
    for finish in finishes:
        path.write_bytes(whole)
        Path(f"{path}.first-life").write_text("one")
        finish()
        assert not Path(f"{path}.first-life").exists()
    backend.delete("two")
    assert "erasing" not in document_of(path)


def test_reading_only_leaves_what_is_to_be_erased_to_others(path: Path, backend: JSONBackend) -> None:
    backend.create(MemoryEntry("1", "c", "k", {}))
    document = document_of(path)
    del document["checksum"]
    path.write_text(json.dumps({**document, "erasing": True}))
    Path(f"{path}.first-life").write_text("1")
    reader = JSONBackend(path, read_only=True)

    assert reader.read("1") is not None
    with pytest.raises(ReadOnlyStoreError):
        reader.finish_erasing([])

    assert Path(f"{path}.first-life").exists()


def test_finishing_waits_for_no_writer_longer_than_it_may(path: Path) -> None:
    backend = JSONBackend(path, busy_timeout_seconds=0)
    backend.bootstrap()
    lock = WriterLock(f"{path}.lock", str(path))
    lock.acquire(1)
    try:
        assert backend.finish_erasing([]) is None
    finally:
        lock.release()
        lock.close()

    assert backend.finish_erasing([]) is not None
    backend.shutdown()


def test_a_file_edited_by_hand_may_say_that_copies_are_to_be_removed(path: Path, backend: JSONBackend) -> None:
    backend.create(MemoryEntry("1", "c", "k", {}))
    document = document_of(path)
    del document["checksum"]
    for number, refused in ((2, True), (4, False)):
        path.write_text(json.dumps({**document, "format": number, "erasing": True}))
        if refused:
            with pytest.raises(CorruptStoreError):
                JSONBackend(path).bootstrap()
        else:
            assert JSONBackend(path).list_all() == backend.list_all()


# --- the past ------------------------------------------------------------------------------------


def test_the_past_before_an_erasure_stays_closed_when_the_feed_forgets_it(path: Path) -> None:
    clock = FakeClock(START)
    memory = MemoryModule(storage_backend=JSONBackend(path), clock=clock)
    secret = memory.create_memory("c", "k", {}, "t")
    clock.step(days=1)
    memory.create_memory("c", "other", {}, "t")
    clock.step(days=1)
    erase(memory.backend, secret)  # type: ignore[arg-type]
    clock.step(days=400)

    memory.store.prune_history()

    assert memory.changes() == []
    for days in (0, 1):
        with pytest.raises(HistoryUnavailableError):
            memory.count_memories(as_of=START + timedelta(days=days))
    assert memory.count_memories(as_of=START + timedelta(days=3)) == 1
    memory.shutdown()


# --- kills ---------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from jarvis._disk import files
from jarvis.json_backend import JSONBackend
from jarvis.model.query import MemoryQuery

class Dying(files.System):
    left = int(sys.argv[2])

def dying(name):
    real = getattr(files.System, name)
    def operation(self, *arguments):
        Dying.left -= 1
        if Dying.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, *arguments)
    return operation

backend = JSONBackend(sys.argv[1])
backend.bootstrap()
print("opened", flush=True)
for name in ("open", "write", "sync", "sync_directory", "replace", "link", "unlink"):
    setattr(Dying, name, dying(name))
if Dying.left:
    files.system = Dying()
with backend.transaction():
    erased = backend.erase(MemoryQuery(entity_id="ada"))
print("erased", flush=True)
backend.finish_erasing(erased.ids)
print("survived", flush=True)
"""


def killed_store(directory: Path) -> tuple[Path, list[str]]:
    """Make a store with a past, a kept copy and what a killed writer left; return its path and what goes."""
    directory.mkdir()
    path = directory / "memory.json"
    secrets = [f"the secret number {number}" for number in range(20)]
    an_old_store(path, *secrets)
    backend = JSONBackend(path, durability="normal")
    with backend.transaction():
        for secret in secrets[:10]:
            backend.update(MemoryEntry(secret, secret, secret, {"text": secret}, [secret], "person", "bob"))
        backend.delete(secrets[10])
        for number in range(20):
            backend.create(MemoryEntry(f"public {number}", "c", "k", {"text": "y" * number}))
    backend.shutdown()
    return path, secrets


def look_at(path: Path, secrets: list[str], *, is_erased: bool) -> bool:
    """Open what a killed process left, and write to it; return whether it had erased."""
    backend = JSONBackend(path)
    public = [entry for entry in backend.list_all() if entry.id.startswith("public")]
    assert len(public) == 20
    there = [secret in b"".join(files_of(path).values()).decode() for secret in secrets]
    assert any(there) is all(there)
    assert not (is_erased and any(there))
    known = [backend.read(secret) or backend.revisions(secret) for secret in secrets]
    assert all(known) if any(there) else not any(known)
    assert [each.name for each in path.parent.glob(".*")] == []
    backend.create(MemoryEntry("new", "c", "k", {}))
    assert any(each.operation == "erase" for each in backend.changes(backend.first_position(), 100)) is not any(there)
    backend.shutdown()
    return not any(there)


def test_a_kill_at_any_file_operation_leaves_all_or_nothing(tmp_path: Path) -> None:
    erased = []
    for number in itertools.count(1):
        path, secrets = killed_store(tmp_path / str(number))
        (path.parent / ".memory.json.7-0a0b0c0d.tmp").write_text(secrets[0])
        ended = subprocess.run(
            [sys.executable, "-c", KILLED, path, str(number)], capture_output=True, text=True, check=False
        )
        erased.append(look_at(path, secrets, is_erased="erased" in ended.stdout))
        if "survived" in ended.stdout:
            break
        assert ended.returncode == -signal.SIGKILL, ended.stderr

    assert number > 6
    assert erased == sorted(erased)
    assert (erased[0], erased[-1]) == (False, True)


def test_a_kill_at_any_moment_leaves_all_or_nothing(tmp_path: Path) -> None:
    chance = random.Random(7)
    for number in range(12):
        path, secrets = killed_store(tmp_path / str(number))
        process = subprocess.Popen([sys.executable, "-c", KILLED, path, "0"], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "opened\n"
        time.sleep(chance.random() * 0.02)
        os.kill(process.pid, signal.SIGKILL)
        said = process.communicate(timeout=60)[0]

        look_at(path, secrets, is_erased="erased" in said)
