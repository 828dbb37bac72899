"""`Pool`: the connections of this process to one store. A call has one for as long as it takes, a transaction too."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, NamedTuple, Protocol

import psycopg

from jarvis._postgresql import failures, outcome, schema
from jarvis._postgresql.connecting import Connector
from jarvis._postgresql.connection import Connection, Raw
from jarvis._postgresql.failures import LostConnectionError
from jarvis._postgresql.names import HashedNames, number_of
from jarvis._sql import lending, registry
from jarvis._sql.clock import Clock, Mark
from jarvis._sql.names import NameBook
from jarvis._sql.tables import ClockRow
from jarvis.errors import InvalidSettingError, TransactionError

if TYPE_CHECKING:
    from jarvis.model.policies import Histories
    from jarvis.model.store_options import StoreOptions

TRIES = 3
"""How often a read, or the beginning of a transaction, is tried: each time on a new connection."""

_MOST_PLACES = 100  # namespaces that one connection remembers
_PATIENCE_SECONDS = 0.05  # how long a call waits for a free connection before it looks whether there may be one more
_SUSPICIOUS_SECONDS = 1.0
"""After so long without a free connection, those are looked for that only the frames of interrupted calls refer to."""


class Place(NamedTuple):
    """A namespace, as one connection sees it."""

    namespace: str
    number: int
    clock: Clock
    names: HashedNames


class Lease(lending.Lease):
    """A session on a connection of its own. It works in one namespace at a time, see `go_to`.

    A transaction has the clock of each namespace that it goes to, and all of them commit at once.

    Args:
        slot: what counts it among the connections of its pool.
        raw: the connection.
        connector: makes another connection.
        store: what tells the store from others.
        history: how much of the past is kept.
        texts: see `HashedNames`.

    Attributes:
        busy: how many calls use it now.
        is_dropped: it is closed when nobody uses it.
    """

    driver: Connection

    def __init__(
        self,
        slot: Slot,
        raw: Raw,
        connector: Connector,
        store: schema.Store,
        history: Histories,
        texts: dict[int, str],
    ) -> None:
        super().__init__(Connection(raw, connector.path, store), NameBook(), history, registry.SIDE_TABLES)
        self.slot: Slot | None = slot
        self._connector, self._texts, self._store = connector, texts, store
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
        if self.depth or self._place is None:
            super().begin()
            return
        self._inside = [self._place]
        for tried in range(1, TRIES + 1):
            try:
                super().begin()
            except LostConnectionError:  # nothing was written yet
                if tried == TRIES:
                    raise
                self.renew()
            else:
                return

    def commit(self) -> None:
        """Commit the changes since the matching `begin`, in all namespaces.

        Raises:
            LostConnectionError: the connection has ended; nothing was kept.
            OutcomeUnknownError: it has ended, and it cannot be told whether they were kept.
        """
        if self.depth != 1:
            super().commit()
            return
        try:
            for place in self._inside:
                self.go_to(place.namespace)
                if place is not self._inside[-1]:
                    place.clock.write()
            super().commit()
        except BaseException as error:
            if not self.is_doubtful() or not self._was_kept() or not isinstance(error, LostConnectionError):
                raise

    def is_doubtful(self) -> bool:
        """Tell whether nobody knows yet how the last transaction ended."""
        return self.driver.doubt is not None and self.driver.is_lost

    def _was_kept(self) -> bool:
        doubt = self.driver.doubt
        assert doubt is not None  # noqa: S101 - asked before
        traces = [
            outcome.Trace(place.number, place.clock.commit_number, place.clock.made)
            for place in self._inside
            if place.clock.commit_number > place.clock.began
        ]
        self.is_committed = outcome.is_kept(
            self._connector, self._store.schema, doubt, traces, keeps_history=self.history.keep_any
        )
        self.driver.doubt = None
        return self.is_committed

    def renew(self) -> None:
        """Go on with a new connection: this one has ended, outside of transactions.

        Raises:
            StoreError: the server cannot be reached.
        """
        self.driver.raw.close()
        self._forget()
        self.driver.attach(self._connector.connect())

    def digest_of(self, namespace: str) -> int:
        """Return the number of the namespace: it tells as little as a digest."""
        return number_of(namespace)

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

    def may_stay(self) -> bool:
        """Tell whether another call can use it next: an interrupt has left nothing of the last one."""
        driver = self.driver
        return not (self.is_dropped or self.depth or self.joined or self.is_still or driver.is_lost or driver.is_open())

    def end(self) -> None:
        """Close the connection, and let there be another one in its place."""
        self.driver.raw.close()
        self.slot = None

    def abandon(self) -> None:
        """Let go of the connection of a parent process: the server is not told, and it ends when the parent's does."""
        raw = self.driver.raw
        if not raw.closed:
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, raw.fileno())
            os.close(nothing)


class _Threads(threading.local):
    """The part of each thread; `here` is the one of the calling thread."""

    def __init__(self) -> None:
        self.here: lending.Thread[Lease] = lending.Thread()


class Slot:
    """Counts one connection of a pool, as long as anybody refers to it."""

    __slots__ = ("__weakref__", "lease")

    def __init__(self) -> None:
        self.lease: weakref.ref[Lease] | None = None


class _Opened:
    """The connections from the opening of a store to its shutdown, in one process.

    An exception from outside at any place loses one at most, and that is then neither referred to nor counted.
    """

    def __init__(self) -> None:
        self.idle: SimpleQueue[Lease] = SimpleQueue()
        self.slots: weakref.WeakSet[Slot] = weakref.WeakSet()
        self.mutex = threading.Lock()
        self.store: schema.Store | None = None

    def free_slot(self, size: int) -> Slot | None:
        """Return a slot for one more connection, None if there are as many as there may be."""
        with self.mutex:
            if len(self.slots) >= size:
                return None
            slot = Slot()
            self.slots.add(slot)
            return slot


class Inherited(Protocol):
    """What belongs to the threads of this process, and not to a child."""

    def begin_again(self) -> None:
        """Forget the threads of the parent."""


class Pool:
    """The connections to one store.

    Args:
        dsn: where the server is, as a URL or in keywords.
        path: names the store in messages.
        schema_name: the schema of its tables, quoted.
        size: how many connections there are at most.
        options: the options of the store.

    Raises:
        InvalidSettingError: the size is out of range.

    Attributes:
        threads: `threads.here` is the calling thread's part.
        pid: of this process.
        inherited: what a forked child begins again, too.
    """

    def __init__(self, dsn: str, path: str, schema_name: str, size: int, options: StoreOptions) -> None:
        if type(size) is not int or size < 1:
            raise InvalidSettingError("pool_size: takes a whole number from 1 up")
        self.path = path
        self._schema, self._size, self._options = schema_name, size, options
        self._connector = Connector(dsn, path, options)
        self.threads = _Threads()
        self._texts: dict[int, str] = {}
        self._opened = _Opened()
        self.pid = os.getpid()
        self.inherited: weakref.WeakSet[Inherited] = weakref.WeakSet()
        _pools.add(self)

    # --- a call ----------------------------------------------------------------------------------

    def enter(self) -> Lease:
        """Return the calling thread's connection, or a free one; the caller must call `leave`."""
        thread = self.threads.here
        session = thread.session
        if session is None:
            session = thread.session = self.take()
        elif session.pid != self.pid:
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
        opened = self._opened
        try:
            session = opened.idle.get_nowait()
        except Empty:
            session = self._another(opened)
        session.thread = threading.get_ident()
        return session

    def give_back(self, session: Lease) -> None:
        """Let others use a connection that `take` returned, or close it if it may not be used again."""
        if session.pid != self.pid:
            return
        opened = self._opened
        if session.may_stay() and session.slot in opened.slots:
            opened.idle.put(session)
        else:
            session.end()

    def forked(self) -> TransactionError:
        """Return the error for a child whose parent forked during a call."""
        return TransactionError(
            f"{self.path}: this process was forked while its parent was inside a call or transaction on the store; "
            "fork outside of them, or start processes with spawn"
        )

    # --- opening and closing ---------------------------------------------------------------------

    def close(self) -> None:
        """Close idle connections, and let the others close when they are given back."""
        opened, self._opened = self._opened, _Opened()
        try:
            while True:
                opened.idle.get_nowait().end()
        except Empty:
            return

    def _another(self, opened: _Opened) -> Lease:
        """Return a new connection, or wait for one."""
        timeout_seconds = self._options.busy_timeout_seconds
        deadline = time.monotonic() + timeout_seconds
        collect_at: float | None = deadline - timeout_seconds + min(_SUSPICIOUS_SECONDS, timeout_seconds / 2)
        while True:
            slot = opened.free_slot(self._size)
            if slot is not None:
                try:
                    return self._made(slot, opened)
                except BaseException:
                    opened.slots.discard(slot)  # the traceback refers to it
                    raise
            left = deadline - time.monotonic()
            if left <= 0:
                raise failures.exhausted(self.path, self._size, timeout_seconds) from None
            try:
                return opened.idle.get(timeout=min(left, _PATIENCE_SECONDS))
            except Empty:
                if collect_at is not None and time.monotonic() >= collect_at:
                    collect_at = None
                    gc.collect()

    def _made(self, slot: Slot, opened: _Opened) -> Lease:
        """Return a new connection; make the tables first if need be."""
        raw = self._connector.connect()
        if opened.store is None:
            try:
                may_create = self._options.create and not self._options.read_only
                opened.store = schema.prepared(raw, self.path, self._schema, may_create=may_create)
            except BaseException as error:
                is_lost = raw.closed
                raw.close()
                if not isinstance(error, psycopg.Error):
                    raise
                raise failures.translated(self.path, error, "open the store", is_lost=is_lost) from None
        session = Lease(slot, raw, self._connector, opened.store, self._options.histories, self._texts)
        slot.lease = weakref.ref(session)
        return session

    # --- forks -----------------------------------------------------------------------------------

    def begin_again(self) -> None:
        """Start with no connection, in a child: leave those of the parent alone, but do not keep them open for it."""
        opened, self._opened, self.pid = self._opened, _Opened(), os.getpid()
        _abandoned.append(opened)
        for slot in list(opened.slots):
            lease = None if slot.lease is None else slot.lease()
            if lease is not None:
                lease.abandon()
        for other in list(self.inherited):
            other.begin_again()


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_abandoned: list[_Opened] = []
"""Connections of a parent process, kept for ever in its child."""


def _after_fork_in_child() -> None:
    for pool in list(_pools):
        pool.begin_again()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
