"""`Pool`: the connections of this process to one store. A call has one for as long as it takes, a transaction too."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import psycopg_pool

from jarvis._postgresql import failures, schema
from jarvis._postgresql.connection import Connection, configure
from jarvis._postgresql.names import HashedNames, number_of
from jarvis._postgresql.notices import Notices
from jarvis._sql import lending, registry
from jarvis._sql.clock import Clock, Mark
from jarvis._sql.names import NameBook
from jarvis._sql.tables import ClockRow
from jarvis.errors import InvalidSettingError, StoreAccessError, TransactionError

if TYPE_CHECKING:
    from jarvis.model.policies import Histories
    from jarvis.model.store_options import StoreOptions

_MOST_PLACES = 100  # namespaces that one connection remembers


class _Raw(psycopg.Connection[Any]):
    """A connection of the driver, and our session on it."""

    lease: Lease | None = None


class Place(NamedTuple):
    """A namespace, as one connection sees it."""

    namespace: str
    number: int
    clock: Clock
    names: HashedNames


class Lease(lending.Lease):
    """A session on a connection of its own. It works in one namespace at a time, see `go_to`.

    A transaction has the clock of each namespace that it goes to, and all of them commit at once.

    Attributes:
        raw: the driver's connection.
        busy: how many calls use it now.
        is_dropped: it is closed when nobody uses it.
    """

    driver: Connection

    def __init__(
        self,
        raw: _Raw,
        path: str,
        store: schema.Store,
        history: Histories,
        texts: dict[int, str],
        notices: Notices,
    ) -> None:
        self.raw, self._notices = raw, notices
        super().__init__(Connection(raw, path, store), NameBook(), history, registry.SIDE_TABLES)
        self._texts, self._store = texts, store
        self._places: dict[str, Place] = {}
        self._place: Place | None = None
        self._inside: list[Place] = []  # the namespaces whose clocks the transaction has locked
        self.pid, self.thread, self.task = os.getpid(), threading.get_ident(), None
        self.busy = 0
        self.is_dropped = False

    def go_to(self, namespace: str) -> None:
        """Work in this namespace from here on; inside a transaction wait for others that change it."""
        place = self._place
        if place is None or place.namespace != namespace:
            place = self._places.get(namespace)
            if place is None:
                if len(self._places) >= _MOST_PLACES and not self.depth:
                    self._places.clear()
                clock = Clock(self.driver, keeps_history=self.history.keep_any)
                place = Place(namespace, number_of(namespace), clock, HashedNames(self.driver, self._texts))
                self._places[namespace] = place
            self._place, self.driver.here = place, place.number
            self.clock, self.names = place.clock, place.names
        if self.depth and place not in self._inside:
            self.driver.lock()
            self._begin_at(place)
            self._inside.append(place)

    def _begin_at(self, place: Place) -> None:
        place.clock.forget()
        place.clock.begin()
        place.names.begin(place.clock.generation)

    def begin(self) -> None:
        """Begin a transaction in the namespace, or a savepoint."""
        if not self.depth and self._place is not None:
            self._inside = [self._place]
        super().begin()

    def commit(self) -> None:
        """Commit the changes since the matching `begin`, in all namespaces."""
        if self.depth == 1:
            for place in self._inside:
                self.go_to(place.namespace)
                if place.clock.commit_number != place.clock.began and self._notices.is_due(place.number):
                    self.driver.notify()
                if place is not self._inside[-1]:
                    place.clock.write()
        super().commit()

    def digest_of(self, namespace: str) -> int:
        """Return the number of the namespace: it tells as little as a digest."""
        return number_of(namespace)

    def touched(self) -> list[str]:
        """Return the namespaces to which the transaction has gone."""
        return [place.namespace for place in self._inside]

    def clock_seen(self) -> ClockRow:
        """Return the clock as this thread sees it; that of a new namespace before the first change."""
        row = super().clock_seen()
        return row if row.generation else row._replace(generation=self._store.generation_of(self.driver.here))

    def _mark(self) -> list[tuple[Place, Mark]]:
        return [(place, place.clock.mark()) for place in self._inside]

    def _back_to(self, mark: list[tuple[Place, Mark]]) -> None:
        self._inside = [place for place, _ in mark]  # those that were locked since are not locked any more
        for place in self._places.values():
            place.names.forget()
        for place, values in mark:
            place.clock.back_to(values)

    def _forget(self) -> None:
        for place in self._places.values():
            place.names.forget()
            place.clock.forget()

    # --- how it is used --------------------------------------------------------------------------

    def drop(self) -> None:
        """Have the connection closed when nobody uses it."""
        self.is_dropped = True


class _Threads(threading.local):
    """The part of each thread; `here` is the one of the calling thread."""

    def __init__(self) -> None:
        self.here: lending.Thread[Lease] = lending.Thread()


class Pool:
    """The connections to one store.

    Args:
        dsn: where the server is, as a URL or in keywords.
        path: names the store in messages.
        schema_name: the schema of its tables, quoted.
        size: how many connections there are at most.
        options: the options of the store.
        partitions: in how many partitions by namespace a new store has its tables; 0: in none.

    Raises:
        InvalidSettingError: the size is out of range.

    Attributes:
        threads: `threads.here` is the calling thread's part.
        notices: what other processes tell of their commits.
    """

    def __init__(
        self, dsn: str, path: str, schema_name: str, size: int, options: StoreOptions, *, partitions: int = 0
    ) -> None:
        if type(size) is not int or size < 1:
            raise InvalidSettingError("pool_size: takes a whole number from 1 up")
        if type(partitions) is not int or partitions < 0:
            raise InvalidSettingError("partitions: takes a whole number from 1 up, or 0 for none")
        self.path = path
        self._dsn, self._size, self._options = dsn, size, options
        self._store, self._partitions = schema.Store(schema_name), partitions
        self.threads = _Threads()
        self._texts: dict[int, str] = {}
        self.notices = Notices(dsn)
        self._mutex = threading.Lock()
        self._open: psycopg_pool.ConnectionPool[_Raw] | None = None
        self._pid = os.getpid()

    # --- a call ----------------------------------------------------------------------------------

    def enter(self) -> Lease:
        """Return the calling thread's connection, or a free one; the caller must call `leave`."""
        thread = self.threads.here
        session = thread.session
        if session is None:
            session = thread.session = self.take()
        elif session.pid != os.getpid():
            raise self.forked()
        session.busy += 1
        return session

    def leave(self, session: Lease) -> None:
        """End the use of a connection that `enter` returned."""
        session.busy = session.busy - 1 if session.depth else 0
        if not session.busy:
            thread = self.threads.here
            if thread.session is session:
                thread.session = None
            self.give_back(session)

    def take(self) -> Lease:
        """Return a free connection; wait for one if all are in use.

        Raises:
            StoreBusyError: none was free for too long.
            StoreAccessError: the server cannot be reached.
        """
        raw = None
        while raw is None:
            opened = self._open
            if opened is None or self._pid != os.getpid():
                opened = self._opened()
            try:
                raw = opened.getconn()
            except psycopg_pool.PoolClosed:
                continue  # it was shut down beside this call, which opens it again
            except psycopg_pool.PoolTimeout as error:
                raise failures.translated(self.path, error, "get a connection") from None
        session = raw.lease
        if session is None:
            session = raw.lease = Lease(raw, self.path, self._store, self._options.histories, self._texts, self.notices)
        session.thread = threading.get_ident()
        return session

    def give_back(self, session: Lease) -> None:
        """Let others use a connection that `take` returned, or close it if it may not be used again."""
        if session.pid != os.getpid():
            return
        raw = session.raw
        if session.is_dropped or session.driver.is_lost or session.driver.is_spent or session.driver.is_open():
            raw.close()
        opened = self._open
        if opened is None or opened.closed:
            raw.close()
        else:
            try:
                opened.putconn(raw)
            except ValueError:  # it is of a pool that was shut down since
                raw.close()

    def forked(self) -> TransactionError:
        """Return the error for a child whose parent forked during a call."""
        return TransactionError(
            f"{self.path}: this process was forked while its parent was inside a call or transaction on the store; "
            "fork outside of them, or start processes with spawn"
        )

    # --- opening and closing ---------------------------------------------------------------------

    def close(self) -> None:
        """Close idle connections, and let the others close when they are given back."""
        self.notices.close()
        with self._mutex:
            opened, self._open = self._open, None
        if opened is not None and self._pid == os.getpid():
            opened.close()

    def _opened(self) -> psycopg_pool.ConnectionPool[_Raw]:
        with self._mutex:
            if self._pid != os.getpid():  # a forked child: its parent's connections are not its own
                _abandoned.extend((self._open, self.notices))
                self.notices = Notices(self._dsn)
                self._open, self._pid = None, os.getpid()
            if self._open is None:
                self._prepare()
                self._open = psycopg_pool.ConnectionPool(
                    self._dsn,
                    connection_class=_Raw,
                    kwargs={"autocommit": True},
                    min_size=0,
                    max_size=self._size,
                    timeout=self._options.busy_timeout_seconds,
                    configure=self._configure,
                    name="jarvis",
                    open=True,
                )
            return self._open

    def _prepare(self) -> None:
        """Connect once, so that what is wrong is said at once, and make the tables if need be."""
        try:
            with psycopg.connect(self._dsn, autocommit=True) as raw:
                may_create = self._options.create and not self._options.read_only
                self._store = schema.prepared(
                    raw, self.path, self._store.schema, may_create=may_create, partitions=self._partitions
                )
        except psycopg.Error as error:
            if error.sqlstate is None:
                raise StoreAccessError(self.path, f"cannot be reached: {_said(error)}") from None
            raise failures.translated(self.path, error, "open the store") from None

    def _configure(self, raw: _Raw) -> None:
        configure(raw)
        options = self._options
        milliseconds = int(options.busy_timeout_seconds * 1_000)
        raw.execute(f"SET lock_timeout = {max(milliseconds, 1)}")
        raw.execute("SET jit = off; SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan")
        if options.durability == "normal":
            raw.execute("SET synchronous_commit = off")
        elif raw.execute("SHOW synchronous_commit").fetchall() == [("off",)]:
            raw.execute("SET synchronous_commit = on")
        if options.read_only:
            raw.execute("SET default_transaction_read_only = on")


_abandoned: list[object] = []
"""Pools of a parent process, kept for ever in its child: to close one would end the parent's connections."""


def _said(error: psycopg.Error) -> str:
    """Return what the client library says of a connection that failed: it names hosts and users, and no password."""
    return " ".join(str(error).split()) or type(error).__name__
