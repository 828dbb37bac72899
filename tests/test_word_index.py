"""The index of words of a SQLite store lags behind its entries, and no search ever shows it."""

from __future__ import annotations

import logging
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jarvis._sql import indexing, searching
from jarvis._sql.session import Session
from jarvis.conformance.fixtures import an_entry
from jarvis.conformance.words import check, entries
from jarvis.errors import InvalidSettingError, UnsupportedError
from jarvis.keys import KeyFile
from jarvis.model.options import TEXT_INDEXES
from jarvis.model.query import MemoryQuery
from jarvis.model.words import Term
from jarvis.persistent_memory import MemoryModule
from jarvis.sqlite_backend import SQLiteBackend
from jarvis.text.analysis import analyser
from jarvis.text.candidates import choose
from jarvis.text.document import words_of

STORES = sorted((Path(__file__).parent / "stores").glob("version-*.db"))


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[SQLiteBackend]:
    backend = SQLiteBackend(tmp_path / "memory.db", durability="normal")
    yield backend
    backend.shutdown()


def rows(backend: SQLiteBackend, sql: str) -> list[Any]:
    def read(session: Session) -> list[Any]:
        return session.rows(sql)

    return backend._database.read(read)


def change(backend: SQLiteBackend, sql: str) -> None:
    with backend._database.changing() as session:
        session.run(sql)


def behind(backend: SQLiteBackend) -> int:
    """Return how many entries are not in the index."""
    return int(rows(backend, "SELECT count(*) FROM entries WHERE row > (SELECT upto FROM text_mark)")[0][0])


def tell(backend: SQLiteBackend, word: str) -> tuple[list[str], list[int], int]:
    found = backend.candidates([Term(word)], MemoryQuery(), 100)
    return [entry.id for entry in found.entries], found.counts, found.total


# --- it lags behind -----------------------------------------------------------------------------------


def test_every_64th_change_indexes_what_was_left(backend: SQLiteBackend) -> None:
    left = []
    for entry in entries(200):
        backend.create(entry)
        left.append(behind(backend))

    assert max(left) == 63
    assert left.count(0) == 3
    for entry in entries(64, 1):  # each makes a row stale
        backend.update(entry)
    assert rows(backend, "SELECT count(*) FROM text_stale")[0][0] < 64
    check(backend)


def test_a_write_of_many_leaves_them_to_the_next_search(
    backend: SQLiteBackend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.create_many(entries(2_500))
    assert behind(backend) == 2_500

    with caplog.at_level(logging.INFO, "jarvis"):
        check(backend)

    assert behind(backend) == 0
    assert [record.message for record in caplog.records] == [
        f"indexing the texts of {backend.db_path}: 2500 changes behind"
    ]


def test_a_search_waits_for_no_writer(backend: SQLiteBackend) -> None:
    backend.create_many(entries(500))
    inside, over = threading.Event(), threading.Event()

    def write() -> None:
        with backend.transaction():
            inside.set()
            over.wait(30)

    writer = threading.Thread(target=write)
    writer.start()
    inside.wait(30)
    check(backend)
    assert behind(backend) == 500
    over.set()
    writer.join()

    check(backend)

    assert behind(backend) == 0


def test_few_that_are_left_are_read_by_each_search(backend: SQLiteBackend) -> None:
    backend.create_many(entries(100))

    check(backend)

    assert behind(backend) == 100


def test_writes_index_what_no_search_does(backend: SQLiteBackend) -> None:
    backend.create_many(entries(300))
    for entry in entries(400, 1, "more"):
        backend.create(entry)

    assert behind(backend) < 64
    check(backend)


def test_of_a_word_that_many_have_the_newest_are_candidates(
    backend: SQLiteBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "MOST_ROWS", 20)
    for number in range(40):
        key = "old" if number == 4 else "new"
        backend.create(an_entry(str(number), key=key, value={"text": "frequent" + " rare" * (number < 3)}))
    backend.rebuild_index(None, None)

    terms = [Term("frequent"), Term("rare")]

    old = backend.candidates(terms, MemoryQuery(key="old"), 20)
    assert (old.counts, [entry.id for entry in old.entries]) == ([40, 3], ["4"])
    found = backend.candidates(terms, MemoryQuery(), 20)
    assert [entry.id for entry in found.entries] == [*"210", *(str(number) for number in range(39, 22, -1))]
    everything = backend.candidates(terms, MemoryQuery(), 100)
    assert [entry.id for entry in everything.entries] == [*"210", *(str(number) for number in range(39, 2, -1))]


def test_the_newest_of_many_equal_ones_are_found_either_way(
    backend: SQLiteBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.create_many(entries(3_000, 7))
    check(backend, most=(1, 20, 300))
    for scanned in (0, 1, 10**6):
        monkeypatch.setattr(searching, "_SCANNED_FOR_ONE", scanned)
        monkeypatch.setattr(searching, "_AT_ONCE", 10)
        check(backend, most=(1, 20, 300))


def test_words_that_are_looked_up_last_still_tell_rows_apart(backend: SQLiteBackend) -> None:
    chance = random.Random(9)
    words, chances = [f"wort{place}" for place in range(300)], [1 / (place + 1) for place in range(300)]
    backend.create_many(
        [
            an_entry(str(number), value={"text": " ".join(chance.choices(words, chances, k=8))})
            for number in range(3_000)
        ]
    )
    for number in range(0, 400, 7):
        backend.delete(str(number))
    every = backend.list_all()
    documents, ids = [(entry, words_of(entry, analyser("english"))) for entry in every], [entry.id for entry in every]

    for _ in range(60):
        terms = [Term(word) for word in dict.fromkeys(chance.choices(words, chances, k=chance.randint(2, 8)))]
        most = chance.choice([1, 5, 20, 100, 300])
        assert backend.candidates(terms, MemoryQuery(), most) == choose(documents, terms, ids, most)


# --- other processes, and the end of one ----------------------------------------------------------------


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_another_process_finds_what_was_just_written(backend: SQLiteBackend) -> None:
    backend.create_many(entries(200))
    check(backend)
    program = """if True:
        import sys
        from jarvis.conformance.fixtures import an_entry
        from jarvis.sqlite_backend import SQLiteBackend
        backend = SQLiteBackend(sys.argv[1])
        backend.create(an_entry("other", value={"text": "from another process"}))
        backend.delete("e-1")
        for number in range(100):
            backend.update(an_entry(f"e-{number + 2}", value={"text": "changed there"}))
    """

    assert run(program, backend.db_path).stderr == ""

    assert tell(backend, "process") == (["other"], [1], 200)
    check(backend)


def test_a_process_that_is_killed_while_it_indexes_loses_nothing(backend: SQLiteBackend) -> None:
    backend.create_many(entries(3_000))
    program = """if True:
        import os, signal, sys
        from jarvis._sqlite import word_tables
        from jarvis.sqlite_backend import SQLiteBackend
        done = 0
        def add(self, driver, documents, add=word_tables.FTS5Index.add):
            global done
            add(self, driver, documents)
            done += 1
            if done == 2:
                os.kill(os.getpid(), signal.SIGKILL)
        word_tables.FTS5Index.add = add
        SQLiteBackend(sys.argv[1]).rebuild_index(None, None)
    """

    assert run(program, backend.db_path).returncode == -signal.SIGKILL

    assert behind(backend) == 2_000  # the first step was kept
    check(backend)
    assert behind(backend) == 0
    assert list(backend.index_findings(lambda: None)) == []


# --- stores of before, and for reading only ---------------------------------------------------------------


@pytest.mark.parametrize("store", STORES, ids=lambda path: path.stem)
def test_a_store_of_every_version_is_searched(store: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(store, tmp_path / "memory.db"))
    reader = SQLiteBackend(path, read_only=True)
    for name in reader.all_namespaces():
        check(reader.for_namespace(name))
    reader.shutdown()
    assert path.read_bytes() == store.read_bytes()

    writer = SQLiteBackend(path)
    for name in writer.all_namespaces():
        check(writer.for_namespace(name))
    writer.rebuild_index(None, None)
    for name in writer.all_namespaces():
        check(writer.for_namespace(name))
    assert list(writer.index_findings(lambda: None)) == []
    writer.shutdown()


def test_a_reader_answers_alike_without_writing(backend: SQLiteBackend) -> None:
    backend.create_many(entries(500))
    backend.shutdown()
    before = backend.db_path.read_bytes()

    reader = SQLiteBackend(backend.db_path, read_only=True)
    check(reader)
    reader.shutdown()

    assert backend.db_path.read_bytes() == before


def test_what_another_analyser_indexed_is_indexed_again(backend: SQLiteBackend) -> None:
    backend.create_many(entries(300))
    check(backend)
    change(backend, "UPDATE text_mark SET analyser = 'english 0'")
    for entry in entries(100, 1, "more"):  # no write begins that
        backend.create(entry)
    assert rows(backend, "SELECT analyser FROM text_mark") == [("english 0",)]

    check(backend)

    assert rows(backend, "SELECT analyser FROM text_mark") == [(analyser("english").name,)]
    assert behind(backend) == 0


def test_what_a_newer_library_indexed_is_left_alone(backend: SQLiteBackend) -> None:
    backend.create_many(entries(300))
    check(backend)
    change(backend, "UPDATE text_mark SET analyser = 'english 1000'")
    backend.create_many(entries(300, 1, "more"))

    check(backend)

    assert rows(backend, "SELECT analyser, upto FROM text_mark") == [("english 1000", 300)]


# --- the setting ------------------------------------------------------------------------------------------


def test_a_store_has_the_language_that_it_got_first(tmp_path: Path) -> None:
    german = SQLiteBackend(tmp_path / "memory.db", text_index="german")
    german.create(an_entry("1", value={"text": "die Häuser"}))
    assert german.text_language() == "german"
    assert tell(german, "haus")[0] == ["1"]
    german.shutdown()

    assert SQLiteBackend(tmp_path / "memory.db").text_language() == "german"
    english = SQLiteBackend(tmp_path / "memory.db", text_index="english")
    english.create(an_entry("2", value={"text": "moving"}))
    with pytest.raises(InvalidSettingError, match=r"indexed as 'german'.*rebuild_index\(language='english'\)"):
        english.text_language()
    english.rebuild_index("english", None)
    assert english.text_language() == "english"
    assert tell(english, "move")[0] == ["2"]
    check(english)
    with pytest.raises(InvalidSettingError, match="indexed as 'english'"):
        german.text_language()
    english.shutdown()
    german.shutdown()


def test_every_language_makes_words(tmp_path: Path) -> None:
    for language in TEXT_INDEXES[:-1]:
        backend = SQLiteBackend(tmp_path / f"{language}.db", text_index=language)  # type: ignore[arg-type]  # each is one
        backend.create(an_entry("1", value={"text": "Москва дом casa Häuser évidemment ελληνικά हिन्दी"}))
        backend.rebuild_index(None, None)
        assert backend.text_language() == language
        check(backend)
        backend.shutdown()


def test_a_store_without_an_index_indexes_nothing(tmp_path: Path) -> None:
    backend = SQLiteBackend(tmp_path / "memory.db", text_index="off")
    for entry in entries(200):
        backend.create(entry)
    backend.delete("e-1")

    assert backend.text_language() == "off"
    assert rows(backend, "SELECT * FROM text_mark") == [(1, "off", "", 0)]
    assert rows(backend, "SELECT count(*) FROM text_stale") == [(0,)]
    with pytest.raises(UnsupportedError, match="no index"):
        SQLiteBackend(tmp_path / "memory.db").candidates([], MemoryQuery(), 1)
    backend.shutdown()


def test_a_handle_without_the_index_keeps_it_right_for_others(backend: SQLiteBackend) -> None:
    backend.create_many(entries(200))
    check(backend)
    without = SQLiteBackend(backend.db_path, text_index="off")
    assert without.text_language() == "off"
    for entry in entries(150, 1):
        without.update(entry)
    for number in range(150, 200):
        without.delete(f"e-{number}")
    without.shutdown()

    assert behind(backend) == 150
    check(backend)


# --- moves, erasure and damage -----------------------------------------------------------------------------


def test_a_move_makes_the_index_again(backend: SQLiteBackend, tmp_path: Path) -> None:
    keys = KeyFile.create(tmp_path / "key")
    backend.create_many(entries(500))
    check(backend)
    backend.rebuild_index("german", None)
    moves: list[Callable[[], object]] = [
        lambda: backend.encrypt([keys], None),
        lambda: backend.rotate([keys], None),
        lambda: backend.decrypt(None),
    ]
    for move in moves:
        move()

        assert backend.text_language() == "german"
        assert behind(backend) == 0
        assert rows(backend, "SELECT count(*) FROM text_index") == [(500,)]
        check(backend)
        for entry in entries(50, 3):
            backend.update(entry)
        check(backend)


def test_erased_words_stand_in_no_byte_of_any_file(tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path)
    backend = memory.backend
    assert isinstance(backend, SQLiteBackend)
    backend.create_many(entries(300))
    secret = memory.create_memory("facts", "k", {"text": "zanzibar"}, "note")
    memory.update_memory(secret, {"text": "xylophone"})
    other = memory.for_namespace("other")
    other.create_memory("facts", "k", {"text": "quagmire"}, "note")
    backend.rebuild_index(None, None)
    memory.update_memory(secret, {"text": "yesteryear"})
    words = [b"zanzibar", b"xylophon", b"yesteryear", b"quagmir"]

    def there() -> list[bool]:
        memory.shutdown()
        content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        return [word in content for word in words]

    assert there() == [True] * 4
    memory.erase_memory(secret)
    assert there() == [False, False, False, True]
    memory.store.erase_namespace("other")
    assert there() == [False] * 4
    check(backend)
    assert memory.store.verify().problems == {}


@pytest.mark.parametrize(
    ("damage", "is_deep"),
    [
        ("UPDATE text_counts SET entries = entries + 1", False),
        ("UPDATE text_mark SET upto = upto + 1000", False),
        ("INSERT INTO text_stale VALUES (1, 3)", False),
        ("DELETE FROM text_index WHERE rowid = 3", True),
        ("INSERT INTO text_index (rowid, tokens) VALUES (9999, '1_forged')", True),
    ],
)
def test_an_index_that_does_not_match_is_found_and_made_again(tmp_path: Path, damage: str, *, is_deep: bool) -> None:
    memory = MemoryModule(storage_dir=tmp_path)
    backend = memory.backend
    assert isinstance(backend, SQLiteBackend)
    backend.create_many(entries(300))
    check(backend)
    change(backend, damage)

    problems = memory.store.verify().problems
    whole = memory.store.verify(index=True).problems

    assert bool(problems) is not is_deep
    assert [key for key in whole if "rebuild_index()" in key] == list(whole)
    assert whole
    memory.store.rebuild_index()
    assert memory.store.verify(index=True).problems == {}
    check(backend)
    memory.shutdown()


def test_a_broken_index_makes_nothing_unreadable(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    memory = MemoryModule(storage_dir=tmp_path)
    backend = memory.backend
    assert isinstance(backend, SQLiteBackend)
    backend.create_many(entries(300))
    check(backend)
    with backend._database.changing() as session:
        raw: Any = session.driver
        raw.raw.config(1010, 0)  # SQLITE_DBCONFIG_DEFENSIVE: the tables below the index can be written
        session.run("UPDATE text_index_data SET block = zeroblob(length(block)) WHERE id > 10")
    memory.shutdown()
    (tmp_path / "memory.db.lock").unlink()  # the next opening verifies the whole

    with caplog.at_level(logging.WARNING, "jarvis"):
        check(backend)
    assert "rebuild_index()" in caplog.text
    assert any("rebuild_index()" in problem for problem in memory.store.verify().problems)
    for entry in entries(130, 1, "more"):
        backend.create(entry)
    check(backend)
    assert memory.erase_memory("e-1").state == "done"  # it leaves nothing in a broken index, either
    assert rows(backend, "SELECT analyser FROM text_mark") == [("",)]
    check(backend)
    backend.rebuild_index(None, None)
    assert memory.store.verify().problems == {}
    check(backend)
    memory.shutdown()


def test_a_backup_and_a_repaired_store_find_the_same(tmp_path: Path) -> None:
    memory = MemoryModule(storage_dir=tmp_path / "store")
    memory.backend.create_many(entries(500))
    memory.for_namespace("other").backend.create_many(entries(100, 1))
    memory.store.rebuild_index()
    memory.store.back_up(tmp_path / "backup")
    memory.shutdown()
    backup = SQLiteBackend(tmp_path / "backup" / "memory.db")
    assert behind(backup) == 0
    check(backup)
    check(backup.for_namespace("other"))
    backup.shutdown()

    report = memory.store.repair(tmp_path / "repaired")

    assert report.memories == 600
    repaired = MemoryModule(storage_dir=tmp_path / "repaired")
    check(repaired.backend)
    check(repaired.for_namespace("other").backend)
    assert repaired.store.verify(index=True).problems == {}
    repaired.shutdown()


def test_a_namespace_that_is_gone_leaves_no_number(backend: SQLiteBackend) -> None:
    other = backend.for_namespace("other")
    other.create_many(entries(200))
    backend.create_many(entries(10))
    backend.rebuild_index(None, None)
    assert sorted(rows(backend, "SELECT entries FROM text_counts")) == [(10,), (200,)]

    other.clear()
    check(other)

    assert rows(backend, "SELECT entries FROM text_counts") == [(10,)]
    assert rows(backend, "SELECT count(*) FROM text_stale") == [(0,)]


def test_a_step_of_a_search_is_bounded(backend: SQLiteBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "AT_ONCE", 100)
    backend.create_many(entries(1_050))
    told: list[tuple[int, int]] = []

    backend.rebuild_index(None, lambda done, of: told.append((done, of)))

    assert told == [(100 * step, 1_050) for step in range(1, 11)] + [(1_050, 1_050)]
    check(backend)
