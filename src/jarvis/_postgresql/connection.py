"""One connection to a PostgreSQL server, as the shared statements use it: see `jarvis._sql.driver.Driver`."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg import pq

from jarvis._postgresql import failures, schema
from jarvis._postgresql.dialect import DIALECT, translated
from jarvis._postgresql.notices import CHANNEL
from jarvis._postgresql.raw import Raw
from jarvis._postgresql.wire import Wire
from jarvis._postgresql.word_tables import TSVectorIndex
from jarvis._sql.tables import READ_CLOCK
from jarvis.errors import CorruptStoreError, DuplicateEntryError, StoreTooNewError, torn_transaction

if TYPE_CHECKING:
    from jarvis._sql.driver import Bindings
    from jarvis._sql.word_index import WordIndex

_FIRST_PAGE, _MOST_ROWS = 64, 4_096
_MANY = 20  # rows from which on a COPY is worth its round trips
_INSERT = re.compile(r"\s*INSERT INTO ([^()]+\([^()]+\))\s*VALUES \(\$1(?:, \$\d+)*\)\s*")
_READ_CLOCK = DIALECT.say(READ_CLOCK)
RUN = """
concat_ws(' ', extract(epoch FROM pg_postmaster_start_time()),
    extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time()))
"""
"""Names the present run of the server: a crash of one of its processes sets its statistics back.

It is the same in every time zone that a connection may have.
"""

_LOCK = f"""
SELECT s.version, s.seed, CAST(pg_current_xact_id() AS text), {RUN} FROM clock AS c CROSS JOIN {{schema}}.store AS s
WHERE c.namespace = :here_ FOR UPDATE OF c{{how}}
"""
_LOCK_AND_ANNOUNCE = f"SELECT locked.*, pg_advisory_xact_lock(:here_) FROM ({_LOCK}) AS locked"
_ANNOUNCE = "SELECT pg_advisory_xact_lock(:here_)"
_AWAIT = "SELECT pg_advisory_xact_lock_shared(:here_)"
_LOOKS = "SELECT coalesce(nullif(current_setting('jarvis.looks', true), ''), '0')"
_SEED = "SELECT seed FROM {schema}.store"
"""Tells whether the store is still the one that was opened; sent along with each question, it takes 4 µs.

A store that was created again, or sealed with another key, has other names for its namespaces: what is asked by the
former ones finds nothing, which would be a wrong answer.
"""

_SAME = "SELECT 1 / count(*) FROM {schema}.store WHERE seed = $1"
"""Asks the same where the answer is not looked at: it fails if the store is another one."""

_STILL = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_cursor_numbers = itertools.count()


class Doubt(NamedTuple):
    """A transaction whose outcome is not known.

    Attributes:
        number: its number on the server.
        run: the run of the server that gave the number.
    """

    number: str
    run: str


class Connection:
    """A connection of the driver, with its errors translated.

    What only changes something waits until an answer is needed, and is sent along with that.

    Attributes:
        raw: the driver's connection.
        here: the number of the namespace that ``{here}`` means.
        is_lost: it is not used again.
        is_hasty: the next transaction waits neither for a lock nor for the disk.
        doubt: the transaction whose commit was sent, until the server has answered.
    """

    dialect = DIALECT
    words: WordIndex = TSVectorIndex()

    def __init__(self, raw: Raw, path: str, store: schema.Store) -> None:
        self.path, self.here = path, 0
        self._store, self._version = store, store.version
        self._seed, self._same = (self.in_schema(_SEED), ()), (self.in_schema(_SAME), (store.seed,))
        self._waiting: list[tuple[str, Sequence[Any]]] = []
        self._is_announcing = False
        self._transaction: Doubt | None = None
        self.attach(raw)

    def attach(self, raw: Raw) -> None:
        """Go on with another connection of the driver."""
        self.raw, self.is_lost, self.is_hasty = raw, False, False
        self._wire = Wire(raw, may_prepare=not raw.local)
        self._last = ""  # the server's word for the last statement: what it did, and to how many rows
        self._waiting.clear()
        self._is_torn = self._is_open = False
        self._clock: list[Any] | None = None  # what `begin` has read
        self._is_checked: bool | None = None  # what `_has_walls` has found out
        self.doubt: Doubt | None = None

    # --- statements ------------------------------------------------------------------------------

    def rows(self, sql: str, bindings: Bindings = ()) -> list[Any]:
        """Run one statement and return all its rows."""
        if self._clock is not None and sql is _READ_CLOCK:
            clock, self._clock = self._clock, None
            return clock
        asked = self._translated(sql, bindings)
        if self._is_open:
            return self._exchange("read", asked)[0]
        found, seeds = self._exchange("read", asked, self._seed)  # in this order: it may change in between
        if seeds != [(self._store.seed,)]:
            raise failures.replaced(self.path)
        return found

    def each(self, sql: str, bindings: Bindings = ()) -> Iterator[Any]:
        """Run one statement and yield its rows as they are found."""
        text, values = self._translated(sql, bindings)
        name, size, is_own = f"jarvis_{next(_cursor_numbers)}", _FIRST_PAGE, not self._is_open
        if is_own:
            self.stand_still()
        try:
            self._waiting.append((f"DECLARE {name} NO SCROLL CURSOR FOR {text}", values))
            page = self._exchange("read", (f"FETCH {size} FROM {name}", ()))[0]
            yield from page
            while len(page) == size:
                size = min(4 * size, _MOST_ROWS)
                page = self._exchange("read", (f"FETCH {size} FROM {name}", ()))[0]
                yield from page
        finally:
            if is_own:
                self.go_on()
            elif not self._is_torn and self._is_open:
                self._waiting.append((f"CLOSE {name}", ()))

    def index_of(self, sql: str, bindings: Bindings = ()) -> str:
        """Return the index that leads in a statement."""
        text, values = self._translated(sql, bindings)
        answer = self._exchange("read", (f"EXPLAIN (FORMAT JSON) {text}", values))[0][0][0]
        plan = answer if isinstance(answer, list) else json.loads(answer)
        return _leading_index(plan[0]["Plan"])

    def looks(self) -> int:
        """Return how often statements have called the function ``looked_at``."""
        return int(self._exchange("read", (_LOOKS, ()))[0][0][0])

    def run(self, sql: str, bindings: Bindings = ()) -> None:
        """Run one statement that changes something and has no answer."""
        self._waiting.append(self._translated(sql, bindings))

    def many(self, sql: str, several: Sequence[Bindings]) -> None:
        """Run one statement that changes something once for each of these bindings."""
        into = _INSERT.fullmatch(translated(sql, self._store.schema).sql) if len(several) >= _MANY else None
        if into is None or self._has_walls():
            self._waiting += [self._translated(sql, bindings) for bindings in several]
            return
        if self._waiting:
            self._exchange("write", self._waiting.pop())
        try:
            with self.raw.cursor() as cursor, cursor.copy(f"COPY {into[1]} FROM STDIN") as copy:
                for bindings in several:
                    copy.write_row(self._translated(sql, bindings)[1])
        except psycopg.Error as error:
            raise self._failed(error, "write") from None

    def _has_walls(self) -> bool:
        """Tell whether the server checks each row that the role writes; then it refuses a COPY."""
        if self._is_checked is None:
            asked = schema.HAS_WALLS.format(schema=self._store.schema)
            self._is_checked = bool(self._exchange("read", (asked, ()))[0][0][0])
        return self._is_checked

    def put(self, sql: str, bindings: Bindings) -> bool:
        """Insert a row; False, and nothing done, if a unique index already has such a row."""
        self._exchange("write", self._translated(f"{sql} ON CONFLICT DO NOTHING", bindings))
        return self._last.endswith(" 1")

    def put_all(self, sql: str, several: Sequence[Bindings]) -> bool:
        """Insert several rows; False, and nothing done, if a unique index already has one."""
        self.run("SAVEPOINT all_or_none")
        try:
            self.many(sql, several)
            self._exchange("write", ("RELEASE all_or_none", ()))
        except DuplicateEntryError:
            self._is_torn = False
            self.run("ROLLBACK TO all_or_none")
            self.run("RELEASE all_or_none")
            return False
        return True

    def changed(self) -> int:
        """Return how many rows the last statement changed."""
        if self._waiting:
            self._exchange("write", self._waiting.pop())
        return int(self._last.rpartition(" ")[2])

    # --- transactions ----------------------------------------------------------------------------

    def is_open(self) -> bool:
        """Ask whether a transaction is open."""
        return bool(self.raw.pgconn.transaction_status != pq.TransactionStatus.IDLE)

    def begin(self) -> bool:
        """Begin a transaction and lock the clock of the namespace.

        Raises:
            StoreTooNewError: a newer jarvis has migrated the store meanwhile.
        """
        is_announcing = self._is_announcing
        self.doubt = None
        self._begin("BEGIN")
        self._waiting += [(setting, ()) for setting in self.raw.local]
        if self.is_hasty:
            self._exchange("write", ("SET LOCAL synchronous_commit = off", ()))
        self.lock(_LOCK_AND_ANNOUNCE if is_announcing else _LOCK)
        self._is_announcing = False
        return False

    def lock(self, lock: str = _LOCK) -> None:
        """Lock the clock of the namespace; the next statement that reads it gets what it is from now on."""
        if not self._is_locked(lock):
            self._exchange("write", self._translated(*self._new_clock()))
            self._is_locked(lock)

    def _is_locked(self, lock: str) -> bool:
        """Wait for the clock of the namespace, lock and read it; return whether there is one."""
        locking = self._translated(lock.format(schema=self._store.schema, how=" NOWAIT" if self.is_hasty else ""), ())
        if self.is_hasty:  # a refusal is usual: nothing else is sent along with the question
            self._exchange("write", locking)
        versions, clock = self._exchange("write", locking, self._translated(_READ_CLOCK, ()))
        if not versions:
            return False
        if versions[0][0] > schema.CURRENT_VERSION:
            raise StoreTooNewError(
                self.path,
                f"has store version {versions[0][0]}, this jarvis knows up to {schema.CURRENT_VERSION}: "
                "pip install -U jarvis-memory",
            )
        if versions[0][1] != self._store.seed:
            raise failures.replaced(self.path)
        self._version = versions[0][0]  # somebody may have migrated it since it was opened
        self._clock, self._transaction = clock, Doubt(*versions[0][2:4])
        return True

    def _new_clock(self) -> tuple[str, Bindings]:
        return schema.new_clock(self._store.generation_of(self.here))

    def announce(self) -> None:
        """Let `await_commit` of other connections wait for the end of this transaction, or of the next one."""
        if self._is_open:
            self._exchange("write", self._translated(_ANNOUNCE, ()))
        else:
            self._is_announcing = True

    def notify(self) -> None:
        """Tell the watchers of other processes that the transaction, when it commits, changes the namespace."""
        self._waiting.append((f"SELECT pg_notify('{CHANNEL}', $1)", (str(self.here),)))

    def await_commit(self) -> None:
        """Wait for the end of the transaction of this namespace that has announced it, if there is one."""
        self._exchange("read", self._translated(_AWAIT, ()))

    def commit(self) -> None:
        """Commit the transaction: when this returns, its changes are durable.

        Raises:
            LostConnectionError: if `doubt` is set, and the connection lost, they may be durable all the same.
        """
        self.doubt = self._transaction
        self.raw.warnings.clear()
        self._exchange("write", ("COMMIT", ()))
        if self.raw.warnings or self._last != "COMMIT":
            self.is_lost = True
            raise failures.LostConnectionError(self.path, "cannot write: the server ended the commit early")
        self.doubt = None
        self._is_open = False

    def roll_back(self) -> None:
        """Roll back the open transaction, if there is one."""
        self._waiting.clear()
        self._clock = None
        self._is_torn = self._is_open = False
        if self.is_lost:
            self.raw.close()
            return
        try:
            status = self.raw.pgconn.transaction_status
            if status in (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR):
                self._wire.exchange([("ROLLBACK", ())])
            elif status != pq.TransactionStatus.IDLE:
                self.is_lost = True
        except psycopg.Error:
            self.is_lost = True

    def save(self, level: int) -> None:
        """Set a savepoint."""
        if self._is_torn:
            raise torn_transaction(self.path)
        self._waiting.append((f"SAVEPOINT level_{level}", ()))

    def release(self, level: int) -> None:
        """Release a savepoint and keep its changes."""
        self._exchange("write", (f"RELEASE level_{level}", ()))

    def back_to(self, level: int) -> None:
        """Roll back to a savepoint and remove it, if it still exists."""
        self._clock = None
        if self.is_lost:
            self._is_torn = True
            return
        save = (f"SAVEPOINT level_{level}", ())
        if save in self._waiting:  # the server does not know it yet, and what waits before it stays
            del self._waiting[self._waiting.index(save) :]
            self._is_torn = False
            return
        self._waiting.clear()
        if self._is_open and self.is_open():
            self._is_torn = False
            self._waiting.append((f"ROLLBACK TO level_{level}", ()))
            self.release(level)

    def tear(self) -> None:
        """Refuse to commit the transaction or savepoint in which a change was interrupted half-way."""
        self._is_torn = True

    def stand_still(self) -> None:
        """Let all reads from here on see one state."""
        self._begin(_STILL)
        self._waiting.append(self._same)

    def go_on(self) -> None:
        """Let reads see the newest state again."""
        self._waiting.clear()
        self._is_open = self._is_torn = False
        if self.is_open() and not self.is_lost:
            self._exchange("read", ("COMMIT", ()))  # a rollback would take back what `looks` counts

    # --- the store -------------------------------------------------------------------------------

    def keeps_past(self) -> bool:
        """Tell that every store has the tables of the past."""
        return True

    @property
    def version(self) -> int:
        """The version of the store's tables, as far as this connection has seen."""
        return self._version

    def in_schema(self, sql: str) -> str:
        """Return a statement with the name of the schema in it."""
        return sql.replace("{schema}", self._store.schema)

    def corrupt(self, finding: str) -> CorruptStoreError:
        """Return the error that says that the store is damaged, and what to do."""
        return failures.damaged(self.path, finding)

    def govern(self, make: Callable[[str, int, str], str], role: str, namespace: int) -> None:
        """Run what `make` returns for a role, the number of a namespace and the schema, in one transaction."""
        try:
            with self.raw.transaction():
                self.raw.execute(schema.LOCK)  # two who grant rights at once fail with an internal error
                self.raw.execute(make(role, namespace, self._store.schema))
        except psycopg.Error as error:
            raise self._failed(error, "change rights") from None

    def is_walled(self) -> bool:
        """Tell whether the server shows the role only some namespaces."""
        asked = schema.IS_WALLED.format(schema=self._store.schema, all=schema.ALL_NAMESPACES)
        return bool(self._exchange("read", (asked, ()))[0][0][0])

    def keys(self) -> str | None:
        """Return the content of the file of keys, None if the store is plain."""
        if self._store.version <= schema.WITHOUT_KEYS:
            return None
        rows = self._exchange("read", (schema.READ_KEYS.format(schema=self._store.schema), ()))[0]
        return str(rows[0][0]) if rows else None

    def replace_keys(self, old: str, new: str) -> bool:
        """Put another content of the file of keys in the place of `old`; return whether that was still there."""
        update = f"UPDATE {self._store.schema}.keys SET content = $1 WHERE content = $2"
        self._exchange("write", (update, (new, old)))
        return self._last == "UPDATE 1"

    # --- inside ----------------------------------------------------------------------------------

    def _translated(self, sql: str, bindings: Bindings) -> tuple[str, Sequence[Any]]:
        statement = translated(sql, self._store.schema)
        return statement.sql, statement.values(bindings, self.here)

    def _begin(self, begin: str) -> None:
        self._waiting[:], self._is_open = [(begin, ())], True

    def _exchange(self, doing: str, *last: tuple[str, Sequence[Any]]) -> list[list[Any]]:
        """Send all that waits and `last` in one round trip; return the rows of each of `last`."""
        if self._is_torn:
            raise torn_transaction(self.path)
        try:
            sent = [*self._waiting, *last]
            self._waiting.clear()
            results = self._wire.exchange(sent)
            self._last = (results[-1].command_status or b"").decode()
            return [self._wire.rows_of(result) for result in results[-len(last) :]]
        except psycopg.Error as error:
            raise self._failed(error, doing) from None
        except BaseException:  # what was sent, and what is still to come, is not known
            self.is_lost = True
            raise

    def _failed(self, error: psycopg.Error, doing: str) -> Exception:
        """Return our error for the driver's `error`; note what it ended."""
        if self._is_open:
            self._is_torn = True
        self.is_lost = self.is_lost or self.raw.broken or self.raw.closed
        return failures.translated(self.path, error, doing, is_lost=self.is_lost)


def _leading_index(plan: dict[str, Any]) -> str:
    """Return the index that the first scan of a plan uses; ``"none"`` if it reads the table."""
    while "Plans" in plan and "Index Name" not in plan:
        plan = plan["Plans"][0]
    return str(plan.get("Index Name", "none"))
