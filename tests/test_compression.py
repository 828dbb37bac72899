"""Large values in the SQLite backend are stored compressed, as a setting has it; and stored anew by `recompress`."""

from __future__ import annotations

import base64
import json
import os
import pickle
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jarvis._sql import recompressing, tables
from jarvis._sql.session import Session
from jarvis._sqlite import recompress
from jarvis.codec import MAX_VALUE_BYTES, compression
from jarvis.codec.compression import compress, decompress
from jarvis.config import ConfigLoader, HistoryPolicy, StorageConfig
from jarvis.conformance.compression import LARGE, PROSE, prose
from jarvis.conformance.fixtures import FAR, FakeClock
from jarvis.conformance.values import identical
from jarvis.errors import (
    CorruptStoreError,
    InvalidSettingError,
    ReadOnlyStoreError,
    TransactionError,
    UnsupportedError,
)
from jarvis.json_backend import JSONBackend
from jarvis.model.entry import MemoryEntry
from jarvis.model.options import COMPRESSIONS
from jarvis.model.query import MemoryQuery
from jarvis.model.record import encode_entry, repack
from jarvis.persistent_memory import MemoryModule
from jarvis.sqlite_backend import SQLiteBackend

NOISE = random.Random(7).randbytes(5_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


def _rows(backend: Any, sql: str, *bindings: Any) -> list[Any]:
    def read(session: Session) -> list[Any]:
        return session.rows(sql, bindings)

    found: list[Any] = backend._database.read(read)
    return found


def _forms(backend: Any, table: str = "entries") -> dict[str, tuple[Any, int | None]]:
    """Return what bodies have as the value, and the length of what is beside them, by keys."""
    found = _rows(backend, f"SELECT key, json_extract(body, '$[0]'), length(packed) FROM {table}")
    return {key: (value, length) for key, value, length in found}


# --- bytes ---


@pytest.mark.parametrize("mode", ["auto", "max"])
@pytest.mark.parametrize(("data", "is_packed"), [(b"x" * 1023, False), (b"x" * 1024, True), (NOISE, False)])
def test_what_is_large_and_becomes_smaller_is_compressed(mode: Any, data: bytes, is_packed: bool) -> None:
    packed = compress(data, mode)

    assert (packed is not None) is is_packed
    assert packed is None or decompress(packed) == data


def test_with_off_nothing_is_compressed() -> None:
    assert compress(b"x" * 100_000, "off") is None


def test_max_makes_it_smaller_than_auto() -> None:
    text = Path(__file__).read_bytes()
    fast, thorough = compress(text, "auto"), compress(text, "max")

    assert fast is not None
    assert thorough is not None
    assert len(thorough) < len(fast) < len(text) / 2


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"no frame",
        NOISE,
        *(compress(PROSE.encode() * 20, "auto")[:length] for length in (1, 5, 20, -1)),  # type: ignore[index]  # it is one
        compress(PROSE.encode() * 20, "auto") + b"\0",  # type: ignore[operator]  # it is one
        compress(PROSE.encode() * 20, "auto") * 2,  # type: ignore[operator]  # it is one
    ],
)
def test_what_is_no_whole_frame_is_refused(damage: bytes) -> None:
    with pytest.raises(ValueError, match=r"is (not )?compressed"):
        decompress(damage)


def test_a_frame_of_more_than_the_largest_value_is_not_made() -> None:
    zeros = bytes(MAX_VALUE_BYTES)
    largest, bomb = (compression._zstd().compress(zeros + more, 1) for more in (b"", b"\0"))

    assert decompress(largest) == zeros
    with pytest.raises(ValueError, match="not whole"):
        decompress(bomb)


@pytest.mark.skipif(sys.platform != "linux", reason="others count memory otherwise")
def test_of_a_frame_that_would_fill_the_memory_no_more_is_made_than_of_the_largest_value() -> None:
    """A gigabyte in 8,192 blocks that repeat one byte (https://www.rfc-editor.org/rfc/rfc8878#section-3.1.1.2)."""
    program = """
import resource
from jarvis.codec.compression import decompress
blocks = [((128 * 1024) << 3 | 1 << 1 | (number == 8191)).to_bytes(3, "little") + b"x" for number in range(8192)]
bomb = bytes.fromhex("28b52ffd") + bytes([0, (17 - 10) << 3]) + b"".join(blocks)
decompress(bytes.fromhex("28b52ffd2000010000"))  # what it needs is loaded
resource.setrlimit(resource.RLIMIT_AS, (700 << 20, 700 << 20))
try:
    decompress(bomb)
except ValueError as error:
    print(error)
"""
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert shown.stdout == "is compressed, but not whole\n"


def test_a_frame_may_not_ask_for_more_memory_than_the_largest_value_takes() -> None:
    header = bytes.fromhex("28b52ffd")  # https://www.rfc-editor.org/rfc/rfc8878#section-3.1.1
    window = (27 - 10) << 3  # 128 MiB
    empty_last_block = (1).to_bytes(3, "little")

    with pytest.raises(ValueError, match="is not compressed"):
        decompress(header + bytes([0, window]) + empty_last_block)
    assert decompress(header + bytes([0, window - 8]) + empty_last_block) == b""


# --- what is stored ---


@pytest.mark.parametrize("mode", COMPRESSIONS)
def test_the_setting_says_how_values_are_written(path: Path, mode: Any) -> None:
    with MemoryModule(storage_dir=path.parent, compression=mode) as memory:
        for kind in ("1 KiB less 1", "1 KiB", "50 KiB"):
            memory.create_memory("notes", kind, LARGE[kind], "note", tags=["x"], module="maker")
        found = _forms(memory.backend)

    whole = json.dumps(LARGE["1 KiB less 1"], separators=(",", ":"))
    assert found["1 KiB less 1"] == (whole, None)
    for kind in ("1 KiB", "50 KiB"):
        value, length = found[kind]
        assert (value is None) is (length is not None) is (mode != "off")


def test_tags_author_and_time_of_a_compressed_value_stay_readable(path: Path) -> None:
    with MemoryModule(storage_dir=path.parent) as memory:
        memory_id = memory.create_memory("notes", "k", prose(5_000), "note", tags=["x"], module="maker", task_id="7")
        entry = memory.get_memory(memory_id)
        ((body,),) = _rows(memory.backend, "SELECT body FROM entries")

    assert entry is not None
    assert json.loads(body) == [None, ["x"], ["maker", "7"], entry.timestamp.isoformat().removesuffix("+00:00")]
    with sqlite3.connect(path) as other:
        found = other.execute("SELECT key, value, tags, timestamp, provenance ->> 'module' FROM memories").fetchall()
    other.close()
    assert found == [("k", None, '["x"]', entry.timestamp.isoformat(), "maker")]


def test_what_was_compressed_is_read_with_every_setting(path: Path) -> None:
    for mode in get_args(compression.Mode):
        with MemoryModule(storage_dir=path.parent, compression=mode) as memory:
            memory.create_memory("notes", mode, prose(5_000), "note")
    options: list[dict[str, Any]] = [*({"compression": mode} for mode in COMPRESSIONS), {"read_only": True}]
    for each in options:
        with MemoryModule(storage_dir=path.parent, **each) as memory:
            assert [entry.value for entry in memory.list_memories()] == [prose(5_000)] * 3


def test_an_update_writes_as_its_own_setting_has_it_and_keeps_the_past_as_it_is(path: Path) -> None:
    with MemoryModule(storage_dir=path.parent) as memory:
        memory_id = memory.create_memory("notes", "k", prose(5_000), "note")
    with MemoryModule(storage_dir=path.parent, compression="off") as memory:
        memory.update_memory(memory_id, prose(6_000))
        now, past = _forms(memory.backend)["k"], _forms(memory.backend, "revisions")["k"]
        states = [revision.entry.value for revision in memory.get_history(memory_id)]

    assert now[1] is None
    assert past[1] is not None
    assert states == [prose(5_000)]


def test_who_has_small_values_never_imports_zstd(tmp_path: Path) -> None:
    program = """
import sys
from jarvis.persistent_memory import MemoryModule
loaded = lambda: {"backports.zstd", "_zstd"} & set(sys.modules)
with MemoryModule(storage_dir=sys.argv[1]) as memory:
    memory_id = memory.create_memory("notes", "k", {"text": "x" * 900}, "note")
    memory.update_memory(memory_id, {"text": "x" * 901})
    assert memory.get_memory(memory_id) and memory.search_memories(where={"text": "x" * 901})
    before = bool(loaded())
    memory.create_memory("notes", "k", {"text": "x" * 2_000}, "note")
    print(before, bool(loaded()))
"""
    shown = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)

    assert shown.stdout == "False True\n"


def test_a_pickled_backend_and_its_siblings_write_alike(path: Path) -> None:
    backend = SQLiteBackend(path, compression="off")
    for number, each in enumerate((pickle.loads(pickle.dumps(backend)), backend.for_namespace("alice"))):
        each.create(MemoryEntry(f"id-{number}", "notes", str(number), prose(5_000)))
        each.shutdown()

    assert {length for _, length in _forms(backend).values()} == {None}
    backend.shutdown()


# --- any value, in every mode ---

_texts = st.one_of(st.text(max_size=5), st.sampled_from([PROSE * 5, PROSE * 30, "é" * 600, '"$type"' * 200]))
_leaves = st.one_of(_texts, st.integers(), st.floats(), st.booleans(), st.none(), st.binary(max_size=1_500))
_nested = st.one_of(
    _leaves,
    st.lists(_leaves, max_size=4),
    st.tuples(_leaves, st.lists(_leaves, max_size=2)),
    st.dictionaries(st.sampled_from(["$type", "a", "é"]), st.one_of(_leaves, st.tuples(_leaves)), max_size=3),
)
_values = st.dictionaries(_texts.filter(lambda text: len(text) < 2_000), _nested, max_size=4)


@pytest.fixture(scope="module")
def modes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, SQLiteBackend]]:
    directory = tmp_path_factory.mktemp("modes")
    made = {
        mode: SQLiteBackend(directory / f"{mode}.db", durability="normal", compression=mode)
        for mode in get_args(compression.Mode)
    }
    yield made
    for backend in made.values():
        backend.shutdown()


@given(value=_values, tags=st.lists(_texts.filter(lambda text: len(text) < 1_500 and "\0" not in text), max_size=2))
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
def test_any_value_comes_back_equal_in_every_mode(
    modes: dict[str, SQLiteBackend], value: dict[str, Any], tags: list[str]
) -> None:
    for backend in modes.values():
        backend.delete("1")
        backend.create(MemoryEntry("1", "c", "k", value, tags))
        entry = backend.read("1")
        assert entry is not None
        assert identical(entry.value, value)
        assert entry.tags == tags


@given(value=_values, modes_taken=st.lists(st.sampled_from(COMPRESSIONS), max_size=4))
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
def test_storing_anew_in_any_order_changes_no_value(value: dict[str, Any], modes_taken: list[Any]) -> None:
    entry = MemoryEntry("1", "c", "k", value, ["x"], timestamp=FAR)
    plain, fast = encode_entry(entry, "off"), encode_entry(entry, "auto")
    body, packed = plain.body, plain.packed
    for mode in modes_taken:
        body, packed = repack(body.decode(), packed, mode) or (body, packed)

    assert (repack(body.decode(), packed, "off") or (body, packed)) == (plain.body, None)
    assert repack(fast.body.decode(), fast.packed, "auto") is None
    assert (repack(plain.body.decode(), None, "auto") or (plain.body, None)) == (fast.body, fast.packed)


# --- damage ---

_GOOD = compress(json.dumps(prose(2_000)).encode(), "auto")
DAMAGE = {
    "no frame": ("body", NOISE),
    "cut": ("body", (_GOOD or b"")[:-3]),
    "no object": ("body", compress(json.dumps([PROSE] * 20).encode(), "auto")),
    "no JSON": ("body", compress(PROSE.encode() * 20, "auto")),
    "no text": ("body", compress(b'{"a":"' + b"\xff" * 2_000 + b'"}', "auto")),
    "malformed tagged form": ("body", compress(b'{"a":{"$type":"int","$value":"' + b"x" * 2_000 + b'"}}', "auto")),
    "no value": ("body", None),
    "two values": ("json_set(body, '$[0]', json('{}'))", _GOOD),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_value_that_cannot_be_decompressed_is_damage_to_every_verb(path: Path, kind: str) -> None:
    clock = FakeClock(FAR)
    memory = MemoryModule(storage_dir=path.parent, clock=clock)
    memory_id = memory.create_memory("notes", "k", prose(5_000), "note")
    clock.step(hours=1)
    memory.update_memory(memory_id, prose(6_000))
    body, packed = DAMAGE[kind]
    for table in ("entries", "revisions"):
        _rows(memory.backend, f"UPDATE {table} SET body = {body}, packed = ?", packed)

    for ask in (
        lambda: memory.get_memory(memory_id),
        lambda: memory.list_memories(),
        lambda: list(memory.iter_memories()),
        lambda: memory.search_memories(where={"n": 1}),
        lambda: memory.count_memories(where={"n": 1}),
        lambda: memory.get_history(memory_id),
        lambda: memory.get_memory(memory_id, as_of=FAR),
        lambda: memory.erase_memories(where={"n": 1}),
    ):
        with pytest.raises(CorruptStoreError) as caught:
            ask()
        assert "lights" not in str(caught.value)
    memory.shutdown()


@pytest.mark.parametrize("kind", [kind for kind in DAMAGE if kind != "malformed tagged form"])
@pytest.mark.parametrize("table", ["entries", "revisions"])
def test_a_value_that_cannot_be_decompressed_is_found_by_verification(path: Path, table: str, kind: str) -> None:
    with MemoryModule(storage_dir=path.parent) as memory:
        memory_id = memory.create_memory("notes", "k", prose(5_000), "note", tags=["x"])
        memory.update_memory(memory_id, prose(6_000))
        body, packed = DAMAGE[kind]
        _rows(memory.backend, f"UPDATE {table} SET body = {body}, packed = ?", packed)
        ((row, body, entry_id, instant, version),) = _rows(
            memory.backend, f"SELECT row, body, id, instant, version FROM {table}"
        )
        fields = (row, "default", entry_id, "notes", "k", "note", None, instant, version)
        _rows(memory.backend, f"UPDATE {table} SET checksum = ?", tables.row_checksum(fields, body, packed))
        writing = SQLiteBackend(path, compression="off")
        if packed is not None:
            with pytest.raises(CorruptStoreError, match="decoded"):
                writing.recompress(None)
        writing.shutdown()
    (path.parent / "memory.db.lock").unlink()

    with pytest.raises(CorruptStoreError, match="decoded"):
        SQLiteBackend(path).bootstrap()


@pytest.mark.parametrize("table", ["entries", "revisions"])
def test_the_checksum_covers_what_is_compressed(path: Path, table: str) -> None:
    with MemoryModule(storage_dir=path.parent) as memory:
        memory_id = memory.create_memory("notes", "k", prose(5_000), "note")
        memory.update_memory(memory_id, prose(6_000))
        other = compress(json.dumps({"text": "other " * 500}).encode(), "auto")
        _rows(memory.backend, f"UPDATE {table} SET packed = ?", other)
        writing = SQLiteBackend(path, compression="off")
        with pytest.raises(CorruptStoreError, match="checksum"):
            writing.recompress(None)
        writing.shutdown()
    (path.parent / "memory.db.lock").unlink()

    with pytest.raises(CorruptStoreError, match="checksum"):
        SQLiteBackend(path).bootstrap()


# --- erasure ---


@pytest.mark.parametrize("how", ["erase_memory", "delete without history"])
def test_no_compressed_byte_of_what_was_erased_is_left(path: Path, how: str) -> None:
    memory = MemoryModule(storage_dir=path.parent, history=HistoryPolicy(max_revisions=0 if "delete" in how else 9))
    for number in range(30):  # among others, so that pages are split and cells are moved
        memory.create_memory("notes", f"other {number}", prose(1_500 + number), "note")
    memory_id = memory.create_memory("notes", "secret", {"text": Path(__file__).read_text()[:9_000]}, "note")
    memory.update_memory(memory_id, {"text": Path(__file__).read_text()[4_000:14_000]})
    tables = "(SELECT id, packed FROM entries UNION ALL SELECT id, packed FROM revisions)"
    secrets = [packed for (packed,) in _rows(memory.backend, f"SELECT packed FROM {tables} WHERE id = ?", memory_id)]
    assert len(secrets) == (1 if "delete" in how else 2)
    memory.shutdown()
    assert all(_holds(path, packed) for packed in secrets)

    if how == "erase_memory":
        assert memory.erase_memory(memory_id).state == "done"
    else:
        memory.delete_memory(memory_id)
        memory.shutdown()

    assert not any(_holds(path, packed) for packed in secrets)
    memory.shutdown()


def _holds(path: Path, packed: bytes) -> bool:
    """Tell whether any part of it, as it stands in pages of 4 KiB, is in a file of the store."""
    held = b"".join(file.read_bytes() for file in path.parent.iterdir())
    return any(packed[start : start + 64] in held for start in range(0, len(packed) - 64, 64))


# --- recompress ---


def _old(directory: Path, mode: Any = "off") -> MemoryModule:
    """Return a store with a past, in two namespaces, as a setting wrote it."""
    memory = MemoryModule(storage_dir=directory, compression=mode, clock=FakeClock(FAR))
    for each in (memory, memory.for_namespace("alice")):
        for number in range(20):
            ttl = timedelta(hours=1) if number % 2 else None
            memory_id = each.create_memory(
                "notes", f"{number}", prose(1_000 + 50 * number), "note", tags=["x"], ttl=ttl
            )
            each.update_memory(memory_id, {**prose(1_000 + 60 * number), "at": FAR})
        each.create_memory("notes", "small", {"n": 1}, "note")
    return memory


SMALL, PLAIN, PACKED = "small", "plain", "packed"


def _shapes(backend: Any) -> set[str]:
    """Return how the values of all states are stored."""
    size = "octet_length(json_extract(body, '$[0]'))"
    shape = f"iif(packed IS NOT NULL, 'packed', iif({size} >= 1024, 'plain', 'small'))"
    tables = "(SELECT body, packed FROM entries UNION ALL SELECT body, packed FROM revisions)"
    return {found for (found,) in _rows(backend, f"SELECT DISTINCT {shape} FROM {tables}")}


def _clock(backend: Any) -> Any:
    return backend._database.read(lambda session: (session.clock_seen(), session.rows("SELECT * FROM commits")))


@pytest.mark.parametrize(
    ("before", "after", "shapes"),
    [
        ("off", "auto", {SMALL, PACKED}),
        ("off", "max", {SMALL, PACKED}),
        ("auto", "off", {SMALL, PLAIN}),
        ("max", "off", {SMALL, PLAIN}),
    ],
)
def test_recompressing_stores_all_states_of_all_namespaces_anew(
    path: Path, before: str, after: Any, shapes: set[Any]
) -> None:
    old = _old(path.parent, before)
    held = {name: old.for_namespace(name).list_memories() for name in ("default", "alice")}
    versions = _rows(old.backend, "SELECT row, version, instant, expires, id FROM entries ORDER BY row")
    clock = _clock(old.backend)
    old.shutdown()

    memory = MemoryModule(storage_dir=path.parent, compression=after, clock=FakeClock(FAR))
    done = memory.store.recompress()

    assert (done.entries, done.past_states) == (40, 38)  # the first states of both namespaces are small
    assert (done.bytes_before > done.bytes_after) is (after != "off")
    assert _shapes(memory.backend) == shapes
    assert {name: memory.for_namespace(name).list_memories() for name in ("default", "alice")} == held
    assert _rows(memory.backend, "SELECT row, version, instant, expires, id FROM entries ORDER BY row") == versions
    assert _clock(memory.backend) == clock
    memory.shutdown()
    (path.parent / "memory.db.lock").unlink()
    with MemoryModule(storage_dir=path.parent) as verified:
        assert verified.count_memories() == 21


@pytest.mark.parametrize("mode", COMPRESSIONS)
def test_what_is_as_the_setting_has_it_is_not_written_again(path: Path, mode: Any) -> None:
    with _old(path.parent, mode) as memory:
        before = _rows(memory.backend, "SELECT * FROM entries")
        told: list[tuple[int, int]] = []
        done = memory.store.recompress(lambda *progress: told.append(progress))

        assert (done.entries, done.past_states, done.bytes_before, done.bytes_after) == (0, 0, 0, 0)
        assert _rows(memory.backend, "SELECT * FROM entries") == before
        assert told[-1][0] == told[-1][1]


def test_auto_leaves_what_max_has_made_smaller(path: Path) -> None:
    with _old(path.parent, "max") as memory:
        before = _rows(memory.backend, "SELECT packed FROM entries")
    with MemoryModule(storage_dir=path.parent) as memory:
        assert memory.store.recompress().entries == 0
        assert _rows(memory.backend, "SELECT packed FROM entries") == before


def test_recompressing_goes_in_small_steps_and_goes_on_where_it_was_ended(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recompressing, "AT_ONCE_BYTES", 10_000)
    _old(path.parent).shutdown()
    memory = MemoryModule(storage_dir=path.parent)
    steps: list[tuple[int, int]] = []

    def stop_soon(done: int, total: int) -> None:
        steps.append((done, total))
        if len(steps) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        memory.store.recompress(stop_soon)
    packed = _rows(memory.backend, "SELECT count(*) FROM entries WHERE packed IS NOT NULL")[0][0]
    assert 3 <= packed <= 30
    assert [done for done, _ in steps] == sorted({done for done, _ in steps})

    rest = memory.store.recompress()

    assert rest.entries == 40 - packed
    assert _shapes(memory.backend) == {SMALL, PACKED}
    memory.shutdown()


def test_others_write_between_the_steps(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recompressing, "AT_ONCE_BYTES", 10_000)
    _old(path.parent).shutdown()
    memory = MemoryModule(storage_dir=path.parent)
    other = MemoryModule(storage_dir=path.parent, busy_timeout_seconds=0, compression="off")
    made: list[str] = []

    def write(done: int, total: int) -> None:
        assert done <= total
        made.append(other.create_memory("notes", "beside", prose(1_000 + done), "note"))
        other.update_memory(made[0], prose(2_000 + done))

    memory.store.recompress(write)

    assert len(made) > 5
    assert other.count_memories(category="notes") == memory.count_memories()
    assert len(memory.get_history(made[0])) == len(made)
    memory.shutdown()
    other.shutdown()


@pytest.mark.parametrize("meanwhile", ["updated", "deleted", "erased", "stored anew"])
def test_what_changed_since_it_was_read_is_not_overwritten(path: Path, meanwhile: str) -> None:
    memory = MemoryModule(storage_dir=path.parent, compression="off")
    ids = [memory.create_memory("notes", str(number), prose(3_000 + number), "note") for number in range(3)]
    database = memory.backend._database  # type: ignore[attr-defined]  # SQLite's
    states = database.read(recompressing._next, "entries", "auto", 0, 3)
    other = MemoryModule(storage_dir=path.parent)
    if meanwhile == "updated":
        other.update_memory(ids[1], prose(9_000))
    elif meanwhile == "deleted":
        other.delete_memory(ids[1])
    elif meanwhile == "erased":
        other.erase_memory(ids[1])
    else:
        other.store.recompress()
    before = _rows(memory.backend, "SELECT * FROM entries WHERE key = '1'")

    stored = recompressing._replaced(database, "entries", "max", states, recompress._replace)

    assert [state.number for state, _, _ in stored] == ([] if meanwhile == "stored anew" else [1, 3])
    assert _rows(memory.backend, "SELECT * FROM entries WHERE key = '1'") == before
    memory.shutdown()
    other.shutdown()


def test_what_an_update_ends_meanwhile_is_stored_anew_in_the_past(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recompressing, "AT_ONCE", 1)
    monkeypatch.setattr(recompressing, "AT_ONCE_BYTES", 1)
    memory = MemoryModule(storage_dir=path.parent, compression="off")
    ids = [memory.create_memory("notes", str(number), prose(3_000), "note") for number in range(3)]
    memory.shutdown()
    memory = MemoryModule(storage_dir=path.parent)

    def update(done: int, total: int) -> None:
        if done == 1:
            memory.update_memory(ids[2], prose(4_000))

    done = memory.store.recompress(update)

    assert (done.entries, done.past_states) == (2, 1)
    assert _shapes(memory.backend) == {PACKED}
    memory.shutdown()


@pytest.mark.parametrize("meanwhile", ["an entry", "a tag"])
def test_recompressing_makes_no_damage_right(path: Path, meanwhile: str) -> None:
    with MemoryModule(storage_dir=path.parent, compression="off") as memory:
        memory.create_memory("notes", "k", prose(3_000), "note")
    memory = MemoryModule(storage_dir=path.parent)
    change = "body = replace(body, 'lights', 'knives')" if meanwhile == "an entry" else "key = 'other'"
    _rows(memory.backend, f"UPDATE entries SET {change}")

    with pytest.raises(CorruptStoreError, match="checksum"):
        memory.store.recompress()

    assert _rows(memory.backend, "SELECT count(packed) FROM entries") == [(0,)]
    memory.shutdown()


def test_the_room_is_given_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with MemoryModule(storage_dir=path.parent, compression="off") as memory, memory.transaction():
        for number in range(200):
            memory.create_memory("notes", str(number), prose(6_000), "note")
    sizes = [path.stat().st_size]
    for bound in (1_000, recompress.VACUUMED_BYTES):  # too large, and not
        monkeypatch.setattr(recompress, "VACUUMED_BYTES", bound)
        with MemoryModule(storage_dir=path.parent) as memory:
            memory.store.recompress()
        sizes.append(path.stat().st_size)
        with MemoryModule(storage_dir=path.parent, compression="off") as memory:
            memory.store.recompress()

    assert sizes[1] >= sizes[0]
    assert sizes[2] < sizes[0] / 4


@pytest.mark.parametrize("size", [1_500, 2_500, 6_000])
def test_the_room_is_free_for_whatever_is_written_next(path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(recompress, "VACUUMED_BYTES", 0)
    with MemoryModule(storage_dir=path.parent, compression="off") as memory, memory.transaction():
        for number in range(1_000):
            memory.create_memory("notes", str(number), prose(size), "note")
    with MemoryModule(storage_dir=path.parent) as memory:
        memory.store.recompress()
        ((pages, free),) = _rows(memory.backend, "SELECT * FROM pragma_page_count, pragma_freelist_count")

    assert pages * 4_096 == path.stat().st_size
    assert free > pages / 2


def test_what_only_reads_does_not_store_anew(path: Path) -> None:
    _old(path.parent).shutdown()
    before = path.read_bytes()
    with MemoryModule(storage_dir=path.parent, read_only=True) as memory, pytest.raises(ReadOnlyStoreError):
        memory.store.recompress()
    assert path.read_bytes() == before
    with MemoryModule(storage_dir=path.parent) as memory, memory.transaction(), pytest.raises(TransactionError):
        memory.store.recompress()


def test_a_store_is_stored_anew_while_it_is_encrypted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JARVIS_KEY", base64.b64encode(bytes(range(32))).decode())
    with MemoryModule(storage_dir=path.parent, compression="off") as memory, memory.transaction():
        for number in range(1_000):
            memory.create_memory("notes", str(number), {**prose(2_000), "n": number}, "note")
    memory, other = MemoryModule(storage_dir=path.parent), MemoryModule(storage_dir=path.parent)
    stored: list[int] = []

    def recompress(_: object) -> None:
        if not stored:
            stored.append(other.store.recompress().entries)

    memory.store.encrypt(progress=recompress)

    assert stored == [1_000]
    assert _shapes(memory.backend) == {PACKED}
    assert [entry.value["n"] for entry in memory.list_memories()] == list(range(1_000))[::-1]
    memory.shutdown()
    other.shutdown()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_of_a_process_that_compressed_compresses(path: Path) -> None:
    with MemoryModule(storage_dir=path.parent) as memory:
        memory.create_memory("notes", "parent", prose(5_000), "note")
    child = os.fork()
    if not child:
        try:
            with MemoryModule(storage_dir=path.parent) as memory:
                memory.create_memory("notes", "child", prose(5_000), "note")
            os._exit(0)
        except BaseException:  # noqa: BLE001 - told by the exit code
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    with MemoryModule(storage_dir=path.parent) as memory:
        assert [entry.value for entry in memory.list_memories()] == [prose(5_000)] * 2


# --- settings, and other backends ---


def test_the_settings_reach_the_store(tmp_path: Path) -> None:
    from jarvis.container import Container

    file = tmp_path / "config.yaml"
    file.write_text("storage: {data_dir: data, compression: off}")  # which YAML reads as false
    container = Container()
    memory = container.get_memory_module(file)
    memory.create_memory("notes", "k", prose(5_000), "note")

    assert _forms(memory.backend)["k"][1] is None
    container.shutdown()


@pytest.mark.parametrize("text", ["on", "best", "'AUTO'", "3", "null", "[max]"])
def test_another_compression_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"storage: {{compression: {text}}}")

    with pytest.raises(InvalidSettingError, match="'auto', 'off' or 'max'"):
        ConfigLoader(file).load()


def test_each_compression_is_a_mode_of_the_codec() -> None:
    assert get_args(compression.Mode) == COMPRESSIONS
    assert StorageConfig().compression == "auto"


def test_the_json_file_is_plain_and_says_so(tmp_path: Path) -> None:
    modes: tuple[compression.Mode, ...] = ("auto", "off")
    for mode in modes:
        with MemoryModule(storage_dir=tmp_path, backend_type="json", compression=mode) as memory:
            memory.create_memory("notes", mode, prose(5_000), "note")
            with pytest.raises(UnsupportedError, match="has no compression; backends that have it: postgresql, sqlite"):
                memory.store.recompress()
    assert (tmp_path / "memory.json").read_text().count(PROSE * 20) == 2
    with pytest.raises(UnsupportedError, match="sqlite"):
        MemoryModule(storage_dir=tmp_path, backend_type="json", compression="max")
    with pytest.raises(InvalidSettingError):
        JSONBackend(tmp_path / "memory.json", compression="zip")  # type: ignore[arg-type]  # that is the test


def test_a_query_by_value_looks_into_what_is_compressed(path: Path) -> None:
    with MemoryModule(storage_dir=path.parent) as memory:
        for number in range(5):
            memory.create_memory("notes", str(number), {**prose(2_000), "n": {"m": number}}, "note")

        assert memory.backend.count(MemoryQuery(where={"n.m": {"$gte": 3}})) == 2
        assert [entry.key for entry in memory.search_memories(where={"n.m": 3})] == ["3"]
