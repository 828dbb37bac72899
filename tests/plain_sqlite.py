"""The standard library's ``sqlite3`` behind the seam of SQL backends: what another SQL database has to bring."""

from __future__ import annotations

import sqlite3
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, TypeVar, TypeVarTuple, cast

from jarvis._calls.caller import Gate, current_task, foreign_task, let_go, no_transaction
from jarvis._sql import registry
from jarvis._sql.backend import SQLBackend
from jarvis._sql.dialect import Dialect
from jarvis._sql.driver import Bindings
from jarvis._sql.names import NameBook
from jarvis._sql.session import Session
from jarvis._sqlite import engine, schema, word_tables
from jarvis.config import CategoryPolicy, HistoryPolicy
from jarvis.errors import CorruptStoreError, StoreAccessError, StoreBusyError, TransactionError, torn_transaction
from jarvis.model.policies import Histories

from .plain_words import TABLE, WORDS

Result = TypeVar("Result")
Args = TypeVarTuple("Args")
_USUAL = HistoryPolicy()


class PlainDriver:  # one connection of the standard library, in the plainest words
    dialect = Dialect(**{**engine.WORDS, "here": "1", "unindexed": "", "join_in_order": "JOIN"}, values=engine.VALUES)
    words = WORDS

    def __init__(self, path: str) -> None:
        self.path = path
        self._raw: Any = sqlite3.connect(path, isolation_level=None, timeout=20, check_same_thread=False)
        self._raw.execute("PRAGMA synchronous = OFF")
        self._is_torn, self._looks = False, engine.Looks()
        self._raw.create_function("octet_length", 1, lambda v: len(v.encode() if isinstance(v, str) else v or b""))
        self._raw.create_function("looked_at", 1, self._looks.look)

    def rows(self, sql: str, bindings: Bindings = ()) -> list[Any]:
        return list(self.each(sql, bindings))

    def each(self, sql: str, bindings: Bindings = ()) -> Iterator[Any]:
        if self._is_torn:
            raise torn_transaction(self.path)
        try:
            yield from self._raw.execute(sql, bindings)
        except sqlite3.OperationalError as error:
            kind = StoreBusyError if "locked" in str(error) else StoreAccessError
            raise kind(self.path, f"the database says: {error}") from error
        except sqlite3.DatabaseError as error:
            raise self.corrupt(str(error)) from error

    def index_of(self, sql: str, bindings: Bindings = ()) -> str:
        return engine.leading_index(step for _, _, _, step in self.rows(f"EXPLAIN QUERY PLAN {sql}", bindings))

    def looks(self) -> int:
        return self._looks.count

    def run(self, sql: str, bindings: Bindings = ()) -> None:
        self.rows(sql, bindings)

    def many(self, sql: str, several: Sequence[Bindings]) -> None:
        for bindings in several:
            self.run(sql, bindings)

    def put_all(self, sql: str, several: Sequence[Bindings]) -> bool:  # then they are put one by one
        return False

    def put(self, sql: str, bindings: Bindings) -> bool:
        if self._is_torn:
            raise torn_transaction(self.path)
        try:
            self._raw.execute(sql, bindings)
        except sqlite3.IntegrityError:
            return False
        return True

    def changed(self) -> int:
        return int(self.rows("SELECT changes()")[0][0])

    def is_open(self) -> bool:
        return bool(self._raw.in_transaction)

    def begin(self) -> bool:
        self.run("BEGIN IMMEDIATE")
        return False  # somebody else may have written

    def commit(self) -> None:
        self.run("COMMIT")

    def roll_back(self) -> None:
        self._is_torn = False
        self._raw.rollback()

    def save(self, level: int) -> None:
        self.run(f"SAVEPOINT level_{level}")

    def release(self, level: int) -> None:
        self.run(f"RELEASE level_{level}")

    def back_to(self, level: int) -> None:
        self._is_torn = False
        self.run(f"ROLLBACK TO level_{level}")
        self.run(f"RELEASE level_{level}")

    def tear(self) -> None:
        self._is_torn = True

    def stand_still(self) -> None:
        self.run("BEGIN")

    def go_on(self) -> None:
        if self._raw.in_transaction:
            self.run("COMMIT")

    def keeps_past(self) -> bool:
        return True

    def corrupt(self, finding: str) -> CorruptStoreError:
        return CorruptStoreError(self.path, finding)

    def create(self) -> None:
        tables = schema.CURRENT.replace(word_tables.WORDS, TABLE)
        self._raw.executescript(f"PRAGMA journal_mode = WAL; BEGIN IMMEDIATE; {tables}")
        schema.begin_generation(self._raw)
        schema.mark(self._raw, schema.CURRENT_VERSION)
        self.run("COMMIT")

    def close(self) -> None:
        self._raw.close()


_in_flight: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)  # held from a date until that is visible


class _Here(Gate):  # what a thread has: its session, the task with a transaction on it, and the call that is going on
    def __init__(self) -> None:
        super().__init__()
        self.session: Session | None = None
        self.epoch = 0
        self.task: object = None


class _Threads(threading.local):
    def __init__(self) -> None:
        self.here = _Here()


class PlainPool:
    read_only = False

    def __init__(self, path: Path, history: HistoryPolicy, policies: Sequence[CategoryPolicy]) -> None:
        self.path, self._history, self._policies = str(path), history, policies
        self._threads, self._book, self._epoch = _Threads(), NameBook(), 1

    def _open(self) -> Session:
        driver = PlainDriver(self.path)
        with _in_flight[self.path]:
            if not driver.rows("PRAGMA user_version")[0][0]:
                driver.create()
        return Session(driver, self._book, Histories(self._history, self._policies), registry.SIDE_TABLES)

    @contextmanager
    def _aside(self) -> Iterator[Session]:
        session = self._open()
        with closing(cast("PlainDriver", session.driver)):
            yield session

    def _mine(self, here: _Here) -> Session:
        if here.session is None or (here.epoch != self._epoch and not here.session.depth):
            here.session, here.epoch = self._open(), self._epoch
        return here.session

    def _own(self, here: _Here) -> Session | None:
        here.check(self.path)
        session = here.session
        if session is None or not session.depth:
            return None
        if not session.joined and here.task is not current_task():
            raise foreign_task(self.path)
        return session

    def _is_aside(self, here: _Here) -> bool:
        session = here.session
        is_foreign = session is not None and session.depth and not session.joined and here.task is not current_task()
        return here.is_closed() or bool(is_foreign)

    def read(self, work: Callable[[Session, *Args], Result], *args: *Args) -> Result:
        here = self._threads.here
        if self._is_aside(here):
            with self._aside() as session:
                return work(session, *args)
        try:
            here.call = sys._getframe()
            return work(self._mine(here), *args)
        finally:
            here.call = None

    def iterate(self, find: Callable[[Session], Iterator[Result]]) -> Iterator[Result]:
        with self._aside() as session:
            yield from find(session)

    def in_transaction(self) -> Session | None:
        here = self._threads.here
        is_open = here.session is not None and here.session.depth and not self._is_aside(here)
        return here.session if is_open else None

    def await_commit(self) -> None:
        if not self.in_transaction():
            _in_flight[self.path].acquire()
            _in_flight[self.path].release()

    def own_session(self) -> Session:
        session = self._own(self._threads.here)
        if session is None:
            raise no_transaction(self.path)
        return session

    def within(self, work: Callable[[Session], Result]) -> Result:
        session, here = self.own_session(), self._threads.here
        try:
            here.call = sys._getframe()
            return work(session)
        finally:
            here.call = None

    def change(self, work: Callable[[Session, *Args], Result], *args: *Args) -> Result:
        session = self._own(self._threads.here)
        if session is None:
            with self.changing() as session:
                return session.join(work, session, *args)

        def join(session: Session) -> Result:
            return work(session, *args) if session.joined else session.join(work, session, *args)

        return self.within(join)

    def change_at_once(self, work: Callable[[Session], Result]) -> Result:
        return self.change(work)

    def change_as_one(self, work: Callable[[], Result]) -> Result:
        def letting_in(_: Session) -> Result:
            here = self._threads.here
            call, here.call = here.call, None
            try:
                return work()
            finally:
                here.call = call

        return self.change(letting_in)

    def changing(self) -> AbstractContextManager[Session]:
        return self._begun(sys._getframe(1))

    def transaction(self) -> AbstractContextManager[Session]:
        return self._begun(None)

    @contextmanager
    def _begun(self, call: FrameType | None) -> Iterator[Session]:
        here = self._threads.here
        own, here.call = self._own(here), sys._getframe()
        session = own or self._mine(here)
        level = session.depth
        try:
            session.begin()
            if not level:
                here.task = current_task()
                if call:
                    _in_flight[self.path].acquire()
            here.call = call
            yield session
            is_elsewhere = self._threads.here is not here or here.task is not current_task()
            if is_elsewhere or session.depth != level + 1:
                raise TransactionError(f"{self.path}: a transaction was left elsewhere, or before one inside of it")
            here.call = call or sys._getframe()
            session.commit()
        except BaseException:
            session.roll_back(level)
            raise
        finally:
            if not level:
                let_go(_in_flight[self.path])
            here.call = None

    def announce(self) -> None:
        if self.own_session().depth == 1:
            _in_flight[self.path].acquire()

    def shutdown(self) -> None:
        if self.in_transaction():
            raise TransactionError(f"{self.path}: shutdown() inside a transaction; leave the transaction first")
        self._epoch += 1

    def corrupt(self, finding: str) -> CorruptStoreError:
        return CorruptStoreError(self.path, finding)


class PlainBackend(SQLBackend):
    name: ClassVar[str] = "plain"

    def __init__(self, path: Path, history: HistoryPolicy = _USUAL, policies: Sequence[CategoryPolicy] = ()) -> None:
        super().__init__(PlainPool(path, history, policies), "default", "off")
