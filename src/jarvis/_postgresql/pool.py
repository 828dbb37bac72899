"""`Pool`: the connections of this process to one store. A call has one for as long as it takes, a transaction too."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Protocol

import psycopg

from jarvis._calls.caller import holding
from jarvis._postgresql import failures, schema
from jarvis._postgresql.connecting import Connector
from jarvis._postgresql.dsn import Reach
from jarvis._postgresql.lease import Lease, Slot
from jarvis._postgresql.notices import Notices
from jarvis._postgresql.version_watch import Version, VersionWatch
from jarvis._sql import lending
from jarvis.errors import KeyUnavailableError, TransactionError
from jarvis.model.options import ENGLISH

if TYPE_CHECKING:
    from jarvis._postgresql.raw import Raw
    from jarvis.model.key_place import Sealing
    from jarvis.model.policies import Histories
    from jarvis.model.store_options import StoreOptions

_PATIENCE_SECONDS = 0.05  # how long a call waits for a free connection before it looks whether there may be one more
_SUSPICIOUS_SECONDS = 1.0
"""After so long without a free connection, those are looked for that only the frames of interrupted calls refer to."""


class _Threads(threading.local):
    """The part of each thread; `here` is the one of the calling thread."""

    def __init__(self) -> None:
        self.here: lending.Thread[Lease] = lending.Thread()


class _Opened:
    """The connections from the opening of a store to its shutdown, in one process.

    An exception from outside at any place loses one at most, and that is then neither referred to nor counted.
    """

    def __init__(self) -> None:
        self.idle: SimpleQueue[Lease] = SimpleQueue()
        self.slots: weakref.WeakSet[Slot] = weakref.WeakSet()
        self._mutex = threading.RLock()
        self.store: schema.Store | None = None
        self.keys: str | None = None  # what tells its keys from others, if anybody seals its entries
        self.identity = object()

    def free_slot(self, size: int) -> Slot | None:
        """Return a slot for one more connection, None if there are as many as there may be."""
        return holding(self._mutex, lambda: self._free_slot(size))

    def _free_slot(self, size: int) -> Slot | None:
        if len(self.slots) >= size:
            return None
        slot = Slot()
        self.slots.add(slot)
        return slot


class Inherited(Protocol):
    """What belongs to the threads of this process, and not to a child."""

    def begin_again(self) -> None:
        """Forget the threads of the parent."""


def _no_keys() -> None:
    """Return the keys of a plain store."""


class Pool:
    """The connections to one store.

    Args:
        dsn: where the server is, as a URL or in keywords.
        path: names the store in messages.
        schema_name: the schema of its tables, quoted.
        reach: how the process reaches the server.

    Attributes:
        threads: `threads.here` is the calling thread's part.
        notices: what other processes tell of their commits.
        pid: of this process.
        inherited: what a forked child begins again, too.
        sealing: who seals the entries, or None.
    """

    def __init__(self, dsn: str, path: str, schema_name: str, reach: Reach, options: StoreOptions) -> None:
        self.path = path
        self._schema, self._options, self._histories = schema_name, options, options.histories
        self.sealing: Sealing | None = None
        self._size, self._partitions, is_pooled, listen_dsn = reach
        self._connector = Connector(dsn, path, options, transaction_pooling=is_pooled)
        self.threads = _Threads()
        self._texts: dict[int, str] = {}
        self._listen_dsn = listen_dsn or (None if is_pooled else dsn)
        self.notices = Notices(self._listen_dsn)
        self._opened = _Opened()
        self._versions = VersionWatch()
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

    def version(self, session: Lease, now: int) -> Version | None:
        """Return what stays equal as long as no answer of the store changes; None if that cannot be told."""
        return self._versions.version(session, self._opened.identity, now)

    # --- opening and closing ---------------------------------------------------------------------

    def close(self) -> None:
        """Close idle connections, and let the others close when they are given back."""
        opened, self._opened = self._opened, _Opened()
        self.notices.close()
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
                opened.store = self._prepared(raw, opened)
            except BaseException as error:
                is_lost = raw.closed
                raw.close()
                if not isinstance(error, psycopg.Error):
                    raise
                raise failures.translated(self.path, error, "open the store", is_lost=is_lost) from None
        session = Lease(slot, raw, self._connector, opened.store, self._histories_in, self._texts, self.notices)
        session.keys = opened.keys
        slot.lease = weakref.ref(session)
        return session

    def _prepared(self, raw: Raw, opened: _Opened) -> schema.Store:
        may_write, sealing = not self._options.read_only, self.sealing
        store = schema.prepared(
            raw,
            self.path,
            self._schema,
            may_create=self._options.create and may_write,
            may_write=may_write,
            partitions=self._partitions,
            new_keys=_no_keys if sealing is None else sealing.new_keys,
            language=self._options.text_index or ENGLISH,
        )
        if sealing is not None:
            opened.keys = sealing.accept(store.keys)
        elif store.keys is not None:
            raise KeyUnavailableError(
                self.path,
                "is sealed; open it with encryption='on', and with keys= unless the store names its source: a "
                "MemoryModule takes them, and around a PostgreSQLBackend goes a jarvis.sealing.SealedBackend that does",
            )
        return store

    def _histories_in(self, namespace: str) -> Histories:
        return self._histories if self.sealing is None else self.sealing.histories(namespace, self._histories)

    # --- forks -----------------------------------------------------------------------------------

    def begin_again(self) -> None:
        """Start with no connection, in a child: leave those of the parent alone, but do not keep them open for it."""
        opened, self._opened, self.pid = self._opened, _Opened(), os.getpid()
        _abandoned.append((opened, self.notices))
        self.notices = Notices(self._listen_dsn)
        for slot in list(opened.slots):
            lease = None if slot.lease is None else slot.lease()
            if lease is not None:
                lease.abandon()
        for other in list(self.inherited):
            other.begin_again()


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_abandoned: list[tuple[_Opened, Notices]] = []
"""Connections of a parent process, kept for ever in its child."""


def _after_fork_in_child() -> None:
    for pool in list(_pools):
        pool.begin_again()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
