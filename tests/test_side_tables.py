"""What goes with entries in tables of its own follows them through all that can happen to them."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest

from jarvis._sql import registry
from jarvis._sql.side_tables import End, Lent, Place, SideTable
from jarvis._sql.tables import Table
from jarvis._sqlite import schema, verification
from jarvis._sqlite.database import Database
from jarvis._sqlite.replace import move as moving
from jarvis._sqlite.replace import touched_rows
from jarvis.config import HistoryPolicy
from jarvis.errors import CorruptStoreError, StoreAccessError
from jarvis.keys import KeyFile
from jarvis.model.entry import MemoryEntry
from jarvis.model.record import Encoded, check_stored
from jarvis.persistent_memory import MemoryModule
from jarvis.sqlite_backend import SQLiteBackend

CREATE = """
CREATE TABLE words (row INTEGER NOT NULL, word TEXT NOT NULL, PRIMARY KEY (row, word)) STRICT, WITHOUT ROWID;
CREATE TABLE past_words (row INTEGER NOT NULL, word TEXT NOT NULL, PRIMARY KEY (row, word)) STRICT, WITHOUT ROWID;
CREATE VIRTUAL TABLE word_index USING fts5 (text);
INSERT INTO word_index (word_index, rank) VALUES ('automerge', 0);
"""
IN_NAMESPACE = "(SELECT row FROM entries WHERE namespace = ?)"


def words_of(entry: MemoryEntry, value: object) -> set[str]:
    text = json.dumps([entry.key, entry.tags, entry.entity_type, entry.entity_id, value], ensure_ascii=False)
    return set(re.findall(r"\w+", text.lower()))


def _stored_words(entry: MemoryEntry, encoded: Encoded) -> set[str]:
    return words_of(entry, check_stored(encoded.body, encoded.packed).value)


class Words(SideTable):
    """A row a word of each state, of the present and of the past, which a move copies."""

    tables = (Table("words"), Table("past_words"))

    def put(self, session: Lent, place: tuple[int, int, int, int, int], entry: MemoryEntry, encoded: Encoded) -> None:
        for word in _stored_words(entry, encoded):
            session.driver.run("INSERT INTO words VALUES (?, ?)", (place[2], word))

    def take(self, session: Lent, place: Place, tags: Sequence[str]) -> int:
        session.driver.run("DELETE FROM words WHERE row = ?", (place[2],))
        return session.driver.changed()

    def keep(self, session: Lent, place: Place, tags: Sequence[str], end: End) -> None:
        session.driver.run("INSERT INTO past_words SELECT * FROM words WHERE row = ?", (place[2],))
        self.take(session, place, tags)

    def take_past(self, session: Lent, place: Place, tags: Sequence[str]) -> int:
        session.driver.run("DELETE FROM past_words WHERE row = ?", (place[2],))
        return session.driver.changed()

    def take_all(self, session: Lent, namespace: int) -> None:
        session.driver.run(f"DELETE FROM words WHERE row IN {IN_NAMESPACE}", (namespace,))

    def keep_all(self, session: Lent, namespace: int, before: int, made: int) -> None:
        session.driver.run(f"INSERT INTO past_words SELECT * FROM words WHERE row IN {IN_NAMESPACE}", (namespace,))
        self.take_all(session, namespace)

    def erase(self, session: Lent, namespace: int) -> int:
        self.take_all(session, namespace)
        of_past = IN_NAMESPACE.replace("entries", "revisions")
        session.driver.run(f"DELETE FROM past_words WHERE row IN {of_past}", (namespace,))
        return session.driver.changed()

    def date_past(self, session: Lent, now: int) -> None:
        pass

    def stored(self, *, is_past: bool) -> str:
        return f"SELECT row, word FROM {self.tables[is_past].name} ORDER BY row"

    def verify(
        self, namespace: str, entry: MemoryEntry, encoded: Encoded, end: End | None, rows: Sequence[tuple[Any, ...]]
    ) -> str | None:
        return None if {word for _, word in rows} == _stored_words(entry, encoded) else "its words are others"


class WordIndex(SideTable):
    """The words of each present state in a table of FTS5, which a move makes anew."""

    tables = (Table("word_index", is_derived=True),)

    def put(self, session: Lent, place: tuple[int, int, int, int, int], entry: MemoryEntry, encoded: Encoded) -> None:
        text = " ".join(sorted(_stored_words(entry, encoded)))
        session.driver.run("INSERT INTO word_index (rowid, text) VALUES (?, ?)", (place[2], text))

    def take(self, session: Lent, place: Place, tags: Sequence[str]) -> int:
        session.driver.run("DELETE FROM word_index WHERE rowid = ?", (place[2],))
        return 1

    def keep(self, session: Lent, place: Place, tags: Sequence[str], end: End) -> None:
        self.take(session, place, tags)

    def take_past(self, session: Lent, place: Place, tags: Sequence[str]) -> int:
        return 0

    def take_all(self, session: Lent, namespace: int) -> None:
        session.driver.run(f"DELETE FROM word_index WHERE rowid IN {IN_NAMESPACE}", (namespace,))

    def keep_all(self, session: Lent, namespace: int, before: int, made: int) -> None:
        self.take_all(session, namespace)

    def erase(self, session: Lent, namespace: int) -> int:
        self.take_all(session, namespace)
        return 0

    def date_past(self, session: Lent, now: int) -> None:
        pass

    def stored(self, *, is_past: bool) -> str | None:
        return None if is_past else "SELECT rowid, text FROM word_index ORDER BY rowid"

    def verify(
        self, namespace: str, entry: MemoryEntry, encoded: Encoded, end: End | None, rows: Sequence[tuple[Any, ...]]
    ) -> str | None:
        wanted = [" ".join(sorted(_stored_words(entry, encoded)))]
        return None if [text for _, text in rows] == wanted else "its text is another"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def memory(store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryModule]:
    """A memory of two namespaces whose store has words."""
    monkeypatch.setattr(registry, "SIDE_TABLES", (*registry.SIDE_TABLES, Words(), WordIndex()))
    monkeypatch.setattr(schema, "CURRENT", schema.CURRENT + CREATE)
    with MemoryModule(storage_dir=store, busy_timeout_seconds=5) as memory:
        for each in (memory, memory.for_namespace("another")):
            for number in range(12):
                value = {"text": f"alpha beta{number}", "large": f"gamma{number} " * (number % 3 * 400)}
                each.create_memory(
                    "things", f"key{number}", value, "thing", f"entity{number}", tags=["red", f"t{number}"]
                )
        yield memory


def database_of(memory: MemoryModule) -> Database:
    assert isinstance(memory.backend, SQLiteBackend)
    return memory.backend._database


def ask(memory: MemoryModule, sql: str, *bindings: object) -> list[Any]:
    return database_of(memory).read(lambda session: session.rows(sql, bindings))


def check(memory: MemoryModule) -> None:
    """Compare the words of the present with what the verbs return, and all of them by verification."""
    expected = {
        entry.position[1]: words_of(entry, entry.value)
        for each in (memory, memory.for_namespace("another"))
        for entry in each.list_memories()
        if entry.position is not None
    }
    found: dict[int, set[str]] = {}
    for row, word in ask(memory, "SELECT row, word FROM words"):
        found.setdefault(row, set()).add(word)
    assert found == expected
    assert {row: set(text.split()) for row, text in ask(memory, "SELECT rowid, text FROM word_index")} == expected
    for word in ("alpha", "beta3", "changed"):
        rows = {row for (row,) in ask(memory, "SELECT rowid FROM word_index WHERE word_index MATCH ?", word)}
        assert rows == {row for row, words in expected.items() if word in words}, word
    past = {row for (row,) in ask(memory, "SELECT row FROM past_words")}
    assert past == {row for (row,) in ask(memory, "SELECT row FROM revisions")}
    database_of(memory).read(lambda session: verify(session.raw, memory))


def verify(connection: apsw.Connection, memory: MemoryModule) -> None:
    encrypted = database_of(memory).file.key() is not None
    verification.verify(connection, "store", encrypted=encrypted)


# --- what happens to entries -----------------------------------------------------------------------------


def _update(memory: MemoryModule) -> None:
    first, second, *_ = memory.list_memories()
    memory.update_memory(first.id, {"text": "changed"}, ["blue"])
    memory.update_memory(first.id, {"text": "changed twice"}, [])
    memory.update_memory(second.id, {"text": "changed"})


def _delete_and_restore(memory: MemoryModule) -> None:
    entry = memory.list_memories()[0]
    memory.update_memory(entry.id, {"text": "changed"})
    memory.delete_memory(entry.id)
    memory.restore_memory(entry.id, 1)
    memory.undo(memory.list_memories()[3].id)


def _roll_back(memory: MemoryModule) -> None:
    def update() -> None:
        with memory.transaction():
            _update(memory)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        update()


def _expire(memory: MemoryModule) -> None:
    kept, gone = memory.list_memories()[:2]
    memory.update_memory(kept.id, {"text": "changed"})
    memory.update_memory(gone.id, {"text": "changed"})
    memory.touch_memory(gone.id, ttl=timedelta(microseconds=1))
    memory.create_memory("things", "passing", {"text": "alpha"}, "thing", ttl=timedelta(microseconds=1))
    assert memory.store.purge_expired() == 2


def _prune(memory: MemoryModule) -> None:
    entry = memory.list_memories()[0]
    memory.update_memory(entry.id, {"text": "changed"})
    memory.update_memory(entry.id, {"text": "changed again"})
    memory.delete_memory(memory.list_memories()[1].id)
    backend = SQLiteBackend(database_of(memory).path, history=HistoryPolicy(max_age=timedelta(days=1)))
    assert backend.prune(datetime.now(UTC) + timedelta(days=2), 1000) == 3
    backend.shutdown()


def _keep_few(memory: MemoryModule) -> None:
    path = Path(database_of(memory).path)
    with MemoryModule(storage_dir=path.parent, history=HistoryPolicy(max_revisions=2)) as other:
        for number in range(5):
            other.update_memory(other.list_memories()[0].id, {"text": f"changed {number}"})


def _keep_none(memory: MemoryModule) -> None:
    path = Path(database_of(memory).path)
    with MemoryModule(storage_dir=path.parent, history=HistoryPolicy(max_revisions=0)) as other:
        _update(other)
        other.delete_memory(other.list_memories()[3].id)
        other.for_namespace("another").clear_all()


def _clear(memory: MemoryModule) -> None:
    memory.for_namespace("another").clear_all()


def _erase_some(memory: MemoryModule) -> None:
    _update(memory)
    assert memory.erase_memory(memory.list_memories()[0].id).state == "done"
    assert memory.erase_memories(key="key3").state == "done"


def _erase_namespace(memory: MemoryModule) -> None:
    other = memory.for_namespace("another")
    _update(other)
    assert memory.store.erase_namespace("another").state == "done"


def _recompress(memory: MemoryModule) -> None:
    assert memory.store.recompress().entries == 0
    path = Path(database_of(memory).path)
    with MemoryModule(storage_dir=path.parent, compression="off") as other:
        assert other.store.recompress().entries > 0


HAPPENINGS: tuple[Callable[[MemoryModule], None], ...] = (
    _update,
    _delete_and_restore,
    _roll_back,
    _expire,
    _prune,
    _keep_few,
    _keep_none,
    _clear,
    _erase_some,
    _erase_namespace,
    _recompress,
)


@pytest.mark.parametrize("happening", HAPPENINGS, ids=lambda each: each.__name__.strip("_"))
def test_words_follow_their_entries(memory: MemoryModule, happening: Callable[[MemoryModule], None]) -> None:
    check(memory)

    happening(memory)

    check(memory)


def test_a_receipt_counts_what_is_to_be_told_of(memory: MemoryModule) -> None:
    receipt = memory.erase_memory(memory.list_memories()[0].id)

    assert receipt.removed == {"entries": 1, "tags": 2}


@pytest.mark.parametrize("which", ["one", "all"])
def test_nothing_of_an_erased_word_is_in_any_file(memory: MemoryModule, store: Path, which: str) -> None:
    other = memory.for_namespace("secrets")
    for number in range(60):
        entry_id = other.create_memory(
            "secrets", f"qwertzuiop{number}", {"x": "asdfghjkl alpha"}, "thing", tags=["yxcvbn"]
        )
        other.update_memory(entry_id, {"x": f"asdfghjkl{number} beta"})
        memory.create_memory("things", f"between{number}", {"x": f"asparagus{number} qwerty"}, "thing")
    if which == "one":
        assert other.erase_memories(category="secrets").state == "done"
    else:
        assert memory.store.erase_namespace("secrets").state == "done"
    memory.shutdown()

    content = b"".join(path.read_bytes() for path in store.iterdir())
    assert [text for text in (b"wertzuio", b"sdfghjk", b"yxcvb") if text in content] == []
    check(memory)


# --- verification ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM words WHERE word = 'beta3'",
        "UPDATE words SET word = 'forged' WHERE word = 'beta3'",
        "INSERT INTO words VALUES (1000, 'of_nobody')",
        "DELETE FROM past_words WHERE word = 'beta10'",
        "INSERT INTO past_words SELECT row, 'forged' FROM past_words LIMIT 1",
        "DELETE FROM word_index WHERE rowid = 3",
        "UPDATE word_index SET text = 'forged' WHERE rowid = 3",
        "INSERT INTO word_index (rowid, text) VALUES (1000, 'of nobody')",
        "UPDATE word_index_content SET c0 = c0 || ' forged' WHERE id = 3",
        "DELETE FROM word_index_data WHERE id > 100",
    ],
)
def test_a_damaged_row_is_found(memory: MemoryModule, store: Path, damage: str) -> None:
    _update(memory)
    check(memory)
    memory.shutdown()
    connection = moving.plain(str(store / "memory.db"))
    connection.execute(damage)
    assert connection.total_changes()
    connection.close()

    with pytest.raises(CorruptStoreError):
        memory.list_memories()


# --- moves and copies ------------------------------------------------------------------------------------


def _writing(memory: MemoryModule, write: Callable[[int], None], work: Callable[[], object]) -> int:
    """Do some work while a thread writes again and again; return how often it did."""
    stop, begun, wrong, number = threading.Event(), threading.Event(), [], 0

    def go_on() -> None:
        nonlocal number
        try:
            while not stop.is_set():
                write(number)
                number += 1
                begun.set()
        except BaseException as error:  # noqa: BLE001  it is the finding
            wrong.append(repr(error))
            begun.set()

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        begun.wait()
        work()
    finally:
        stop.set()
        thread.join()
    assert wrong == []
    return number


def _change_all(memory: MemoryModule) -> Callable[[int], None]:
    def write(number: int) -> None:
        entries = memory.list_memories()
        memory.update_memory(entries[-1].id, {"text": f"changed {number}"})
        memory.delete_memory(entries[number % 5].id)
        memory.create_memory("things", f"new{number}", {"text": f"alpha changed{number}"}, "thing", tags=["new"])

    return write


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    pytest.importorskip("cryptography")
    return KeyFile.create(tmp_path / "key")


def test_words_are_moved_while_a_thread_writes(memory: MemoryModule, keys: KeyFile, monkeypatch: Any) -> None:
    monkeypatch.setattr(touched_rows, "MOST_ROWS", 20)
    write = _change_all(memory)
    _update(memory)

    for work in (lambda: memory.store.encrypt([keys]), memory.store.rotate_key, memory.store.decrypt):
        assert _writing(memory, write, work) > 0
        check(memory)

    assert ask(memory, "SELECT v FROM word_index_config WHERE k = 'automerge'") == [(0,)]


@pytest.mark.parametrize("stage", ["copy", "index", "verify", "swap"])
def test_a_move_that_was_broken_off_makes_words_anew(memory: MemoryModule, stage: str) -> None:
    def break_off(progress: Any) -> None:
        if progress.stage == stage:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        moving.move(database_of(memory), progress=break_off)
    _update(memory)
    memory.delete_memory(memory.list_memories()[4].id)

    moved = moving.move(database_of(memory))

    check(memory)
    assert (moved.rows["words"] > 0, moved.rows.get("word_index")) == (True, None)


def test_a_change_at_any_stage_of_a_move_is_in_the_words(memory: MemoryModule) -> None:
    write, stages = _change_all(memory), set()

    def report(progress: Any) -> None:
        if progress.stage not in stages:
            stages.add(progress.stage)
            write(len(stages))

    moving.move(database_of(memory), progress=report)

    assert {"copy", "index", "verify", "swap"} <= stages
    check(memory)


def test_a_derived_table_that_is_not_virtual_is_made_anew(memory: MemoryModule, monkeypatch: Any) -> None:
    monkeypatch.setattr(Words, "tables", tuple(table._replace(is_derived=True) for table in Words.tables))
    with database_of(memory).changing() as session:
        session.run("CREATE INDEX past_words_by_word ON past_words (word)")
    write = _change_all(memory)

    moved = None

    def move() -> None:
        nonlocal moved
        moved = moving.move(database_of(memory))

    _writing(memory, write, move)

    check(memory)
    assert moved is not None
    assert not {"words", "past_words"} & moved.rows.keys()
    assert ask(memory, "SELECT tbl_name FROM sqlite_schema WHERE name = 'past_words_by_word'") == [("past_words",)]


def test_words_are_in_a_backup(memory: MemoryModule, tmp_path: Path) -> None:
    _update(memory)
    (tmp_path / "backup").mkdir()

    memory.store.back_up(tmp_path / "backup")

    with MemoryModule(storage_dir=tmp_path / "backup") as copy:
        check(copy)
        _update(copy)
        check(copy)


# --- tables of somebody else -----------------------------------------------------------------------------

OTHERS = """
CREATE TABLE "my notes" (id INTEGER PRIMARY KEY, "the text" TEXT);
CREATE VIRTUAL TABLE note_index USING fts5 ("the text", content='my notes', content_rowid='id');
CREATE TRIGGER note_added AFTER INSERT ON "my notes" BEGIN
    INSERT INTO note_index (rowid, "the text") VALUES (NEW.id, NEW."the text");
END;
CREATE VIRTUAL TABLE "my diary" USING fts5 (day UNINDEXED, text, tokenize = 'porter', prefix = '2 3');
INSERT INTO "my diary" ("my diary", rank) VALUES ('rank', 'bm25(2.0)');
CREATE VIRTUAL TABLE diary_words USING fts5vocab ('my diary', 'row');
CREATE VIRTUAL TABLE memory_index USING fts5 (key, content='entries', content_rowid='row');
"""


@pytest.fixture
def shared(store: Path) -> Iterator[MemoryModule]:
    """A memory whose store somebody else has text indexes in."""
    with MemoryModule(storage_dir=store, busy_timeout_seconds=5) as memory:
        memory.create_memory("things", "first", {}, "thing")
        memory.shutdown()
        connection = moving.plain(str(store / "memory.db"))
        connection.execute(OTHERS)
        connection.close()
        yield memory


def _write_beside(memory: MemoryModule) -> Callable[[int], None]:
    def write(number: int) -> None:
        memory.create_memory("things", f"key{number}", {}, "thing")
        with database_of(memory).changing() as session:
            session.run('INSERT INTO "my notes" ("the text") VALUES (?)', (f"noted word{number}",))
            session.run('INSERT INTO "my diary" VALUES (?, ?)', (number, f"walking word{number}"))
            session.run('DELETE FROM "my diary" WHERE rowid = ?', (number - 7,))
            session.run('UPDATE "my diary" SET day = ? WHERE rowid = ?', (1.0, number - 3))

    return write


def _found(memory: MemoryModule, index: str, word: str) -> list[Any]:
    return ask(memory, f'SELECT rowid, * FROM "{index}" WHERE "{index}" MATCH ? ORDER BY rowid', word)


def test_the_text_indexes_of_somebody_else_are_moved_while_a_thread_writes(
    shared: MemoryModule, keys: KeyFile, monkeypatch: Any
) -> None:
    monkeypatch.setattr(touched_rows, "MOST_ROWS", 20)
    write = _write_beside(shared)
    for number in range(50):
        write(number)
    schema_before = ask(shared, "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")

    done = 50
    for work in (lambda: shared.store.encrypt([keys]), shared.store.rotate_key, shared.store.decrypt):
        start = done
        done += _writing(shared, lambda number: write(start + number), work)  # noqa: B023  at once

        notes = ask(shared, 'SELECT id, "the text" FROM "my notes" ORDER BY id')
        assert len(notes) == done
        assert _found(shared, "note_index", "noted") == notes
        diary = ask(shared, 'SELECT rowid, * FROM "my diary" ORDER BY rowid')
        days = [*([1.0] * 4), *range(done - 4, done)]
        assert [repr(day) for _, day, _ in diary] == [repr(day) for day in days]
        assert [text for *_, text in diary] == [f"walking word{number}" for number in range(done - 8, done)]
        assert _found(shared, "my diary", "walked") == diary
        assert ask(shared, "SELECT cnt FROM diary_words WHERE term = 'walk'") == [(len(diary),)]
        assert ask(shared, "SELECT v FROM \"my diary_config\" WHERE k = 'rank'") == [("bm25(2.0)",)]
        database_of(shared).read(lambda session: verify(session.raw, shared))

    shared.shutdown()
    assert ask(shared, "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name") == schema_before


def test_an_index_over_a_table_of_ours_is_made_anew(shared: MemoryModule) -> None:
    moving.move(database_of(shared))

    assert [row[1] for row in _found(shared, "memory_index", "first")] == ["first"]


def test_what_changes_its_type_alone_is_moved(shared: MemoryModule) -> None:
    def change(progress: Any) -> None:
        if progress.stage == "verify":
            with database_of(shared).changing() as session:
                session.run('UPDATE "my diary" SET day = 1.0')

    with database_of(shared).changing() as session:
        session.run('INSERT INTO "my diary" VALUES (1, NULL)')

    moving.move(database_of(shared), progress=change)

    assert [repr(row) for row in ask(shared, 'SELECT * FROM "my diary"')] == ["(1.0, None)"]


def test_a_trigger_of_somebody_else_does_once_what_it_does(shared: MemoryModule) -> None:
    def note(text: str) -> None:
        with database_of(shared).changing() as session:
            session.run('INSERT INTO "my notes" ("the text") VALUES (?)', (text,))

    def break_off(_: str) -> None:
        raise ZeroDivisionError

    with database_of(shared).changing() as session:
        session.run("CREATE TABLE noted (text)")
        session.run("""CREATE TRIGGER "moved, or ""noted" AFTER INSERT ON "my notes" BEGIN
            INSERT INTO noted VALUES (NEW."the text"); END""")
    note("before")
    with pytest.raises(ZeroDivisionError):
        moving.move(database_of(shared), before_swap=break_off)
    note("meanwhile")

    moved = moving.move(database_of(shared))
    note("after")

    assert moved.resumed > 0
    assert ask(shared, "SELECT text FROM noted") == [("before",), ("meanwhile",), ("after",)]


@pytest.mark.parametrize("stage", ["copy", "index", "verify", "swap"])
@pytest.mark.parametrize(
    "created",
    ["TABLE a", "VIRTUAL TABLE a USING fts5", "INDEX a ON entries", "VIEW a"],
    ids=lambda text: text.split()[0],
)
def test_what_somebody_creates_meanwhile_is_not_lost(memory: MemoryModule, stage: str, created: str) -> None:
    sql = f"CREATE {created} AS SELECT 1" if created == "VIEW a" else f"CREATE {created} (key)"

    def create(progress: Any) -> None:
        if progress.stage == stage and not ask(memory, "SELECT 1 FROM sqlite_schema WHERE name = 'a'"):
            with database_of(memory).changing() as session:
                session.run(sql)

    with contextlib.suppress(StoreAccessError):  # where it was too late to take it along
        moving.move(database_of(memory), progress=create)
    moving.move(database_of(memory))

    assert ask(memory, "SELECT sql FROM sqlite_schema WHERE name = 'a'") == [(sql,)]
    check(memory)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("CREATE TABLE b (key)", "CREATE TABLE a (key)"),
        ("CREATE TABLE a (key)", "DROP TABLE a"),
        ("CREATE TABLE a (key)", "ALTER TABLE a ADD COLUMN value"),
        ("CREATE VIRTUAL TABLE a USING fts5 (key)", "DROP TABLE a"),
        ("CREATE INDEX a ON entries (key)", "DROP INDEX a"),
        ("CREATE VIEW a AS SELECT 1", "DROP VIEW a"),
    ],
)
def test_a_move_goes_on_with_the_tables_of_today(memory: MemoryModule, before: str, after: str) -> None:
    def break_off(_: str) -> None:
        raise ZeroDivisionError

    def run(sql: str) -> None:
        with database_of(memory).changing() as session:
            session.run(sql)

    run(before)
    with pytest.raises(ZeroDivisionError):
        moving.move(database_of(memory), before_swap=break_off)
    run(after)
    named = "SELECT name, sql FROM sqlite_schema WHERE name IN ('a', 'b')"
    expected = ask(memory, named)

    moving.move(database_of(memory))

    assert ask(memory, named) == expected
    check(memory)


@pytest.mark.parametrize(
    "table",
    [
        "t USING fts5 (text, content='')",
        "t USING fts5 (text, content='', contentless_delete=1)",
        "t USING fts5 (text, content='not_there')",
        "t USING fts4 (text)",
        "t USING rtree (id, low, high)",
    ],
)
def test_a_table_that_cannot_be_read_back_is_refused_before_anything_is_copied(
    memory: MemoryModule, store: Path, keys: KeyFile, table: str
) -> None:
    with database_of(memory).changing() as session:
        session.run(f"CREATE VIRTUAL TABLE {table}")
    memory.shutdown()
    names = sorted(path.name for path in store.iterdir())

    with pytest.raises(StoreAccessError, match=r"virtual table 't'.*DROP"):
        moving.move(database_of(memory))
    with pytest.raises(StoreAccessError, match=r"virtual table 't'.*DROP"):
        memory.store.encrypt([keys])

    memory.shutdown()
    assert sorted(path.name for path in store.iterdir()) == names
    with database_of(memory).changing() as session:
        session.run("DROP TABLE t")
    memory.store.encrypt([keys])
    check(memory)


# --- the registry ----------------------------------------------------------------------------------------


def test_the_registry_names_the_tables_and_columns_of_the_schema() -> None:
    connection = apsw.Connection(":memory:")
    connection.execute(schema.CURRENT)
    columns = {
        name: {column for (column,) in connection.execute("SELECT name FROM pragma_table_info(?)", (name,))}
        for (name,) in connection.execute(
            "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'virtual') "
            "AND name NOT LIKE 'sqlite@_%' ESCAPE '@'"
        )
    }
    connection.close()

    assert {table.name for table in registry.tables()} == set(columns)
    of_names = {"namespace", "category", "entity_type", "tag"}
    for table in registry.own_tables():
        assert set(table.names) == columns[table.name] & of_names, table.name
    for side in registry.SIDE_TABLES:
        for table in side.tables:
            assert set(table.names) == columns[table.name] & of_names - {"namespace", "category", "entity_type"}


@pytest.mark.parametrize("version", range(1, 9))
def test_the_registry_knows_since_when_a_table_is_there(tmp_path: Path, version: int) -> None:
    shutil.copy(Path(__file__).parent / "stores" / f"version-{version}.db", tmp_path / "store.db")
    connection = moving.plain(str(tmp_path / "store.db"))
    found = connection.execute(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'virtual')"
    )
    there = {name for (name,) in found if not name.startswith("sqlite_")}
    connection.close()

    assert {table.name for table in registry.tables() if table.since <= version} == there
