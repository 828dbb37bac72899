"""`Lease`: a session on a connection to a server, which works in one namespace at a time."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from typing import TYPE_CHECKING, NamedTuple

from jarvis._postgresql import figures, outcome, schema
from jarvis._postgresql.connecting import Connector
from jarvis._postgresql.connection import Connection
from jarvis._postgresql.failures import LostConnectionError
from jarvis._postgresql.names import HashedNames, number_of
from jarvis._postgresql.notices import Notices
from jarvis._postgresql.raw import Raw
from jarvis._sql import lending, registry
from jarvis._sql.clock import Clock, Mark
from jarvis._sql.names import NameBook
from jarvis._sql.tables import ClockRow
from jarvis.errors import OutcomeUnknownError, ReadOnlyStoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jarvis.model.policies import Histories

TRIES = 3
"""How often a read, or the beginning of a transaction, is tried: each time on a new connection."""

_HASTY_SECONDS = 1.0
"""How long the outcome of a commit is looked up for a caller who has interrupted it."""

_MOST_PLACES = 100  # namespaces that one connection remembers


class Slot:
    """Counts one connection of a pool, as long as anybody refers to it."""

    __slots__ = ("__weakref__", "lease")

    def __init__(self) -> None:
        self.lease: weakref.ref[Lease] | None = None


class Place(NamedTuple):
    """A namespace, as one connection sees it."""

    namespace: str
    number: int
    clock: Clock
    names: HashedNames
    history: Histories


class Lease(lending.Lease):
    """A session on a connection of its own. It works in one namespace at a time, see `go_to`.

    A transaction has the clock of each namespace that it goes to, and all of them commit at once.

    Args:
        slot: what counts it among the connections of its pool.
        raw: the connection.
        connector: makes another connection.
        store: what tells the store from others.
        histories: returns how much of the past is kept in a namespace.
        texts: see `HashedNames`.
        notices: tells other processes of commits.

    Attributes:
        keys: what tells the keys of the store from others, as it was opened; None if nobody seals its entries.
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
        histories: Callable[[str], Histories],
        texts: dict[int, str],
        notices: Notices,
    ) -> None:
        nowhere = histories("")
        super().__init__(Connection(raw, connector.path, store), NameBook(), nowhere, registry.SIDE_TABLES)
        self._histories = histories
        self.slot: Slot | None = slot
        self._connector, self._texts, self._store, self._notices = connector, texts, store, notices
        self._places: dict[str, Place] = {}
        self._place: Place | None = None
        self._inside: list[Place] = []  # the namespaces whose clocks the transaction has locked
        self.pid, self.thread, self.task = os.getpid(), threading.get_ident(), None
        self.keys: str | None = None
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
                history = self._histories(namespace)
                clock = Clock(self.driver, keeps_history=history.keep_any)
                place = Place(namespace, number_of(namespace), clock, HashedNames(self.driver, self._texts), history)
                self._places[namespace] = place
            self._place, self.driver.here = place, place.number
            self.clock, self.names, self.history = place.clock, place.names, place.history
        if self.depth and place not in self._inside:
            self.driver.lock()
            self._begin_at(place)
            self._inside.append(place)

    def _begin_at(self, place: Place) -> None:
        self._suit()
        place.clock.forget()
        place.clock.begin()
        place.names.begin(place.clock.generation)

    def _suit(self) -> None:
        """Write the side tables that the store has."""
        self.side_tables = schema.side_tables(self.driver.version)

    def begin(self) -> None:
        """Begin a transaction in the namespace, or a savepoint."""
        if self.depth or self._place is None:
            super().begin()
            return
        self._inside = [self._place]
        for tried in range(1, TRIES + 1):
            try:
                super().begin()
                self._suit()
            except LostConnectionError:  # nothing was written yet
                if tried == TRIES:
                    raise
                self.renew()
            except ReadOnlyStoreError:  # perhaps another of several servers writes by now
                if tried > 1 or self.driver.is_hasty:
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
                if place.clock.commit_number != place.clock.began and self._notices.is_due(place.number):
                    self.driver.notify()
                if place is not self._inside[-1]:
                    place.clock.write()
            super().commit()
        except BaseException as error:
            if not self.is_doubtful():
                raise
            if not isinstance(error, LostConnectionError):
                with contextlib.suppress(OutcomeUnknownError):
                    self._was_kept(_HASTY_SECONDS)
                raise
            if not self._was_kept(self._connector.timeout_seconds):
                raise
        if sum(place.clock.commit_number - place.clock.began for place in self._inside) >= figures.MANY:
            figures.learn(self.driver)

    def is_doubtful(self) -> bool:
        """Tell whether nobody knows yet how the last transaction ended."""
        return self.driver.doubt is not None and self.driver.is_lost

    def _was_kept(self, patience_seconds: float) -> bool:
        doubt = self.driver.doubt
        assert doubt is not None  # noqa: S101 - asked before
        traces = [
            outcome.Trace(place.number, place.clock.commit_number, place.clock.made)
            for place in self._inside
            if place.clock.commit_number > place.clock.began
        ]
        self.is_committed = outcome.is_kept(
            self._connector, self._store.schema, doubt, traces, patience_seconds, keeps_history=self.history.keep_any
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

    def may_stay(self) -> bool:
        """Tell whether another call can use it next: an interrupt has left nothing of the last one."""
        driver = self.driver
        is_used_up = self.is_dropped or driver.is_lost
        return not (is_used_up or self.depth or self.joined or self.is_still or driver.is_open())

    def end(self) -> None:
        """Close the connection, and let there be another one in its place."""
        self.driver.is_lost = True  # an iteration that was not finished would end its transaction when it is collected
        self.driver.raw.close()
        self.slot = None

    def abandon(self) -> None:
        """Let go of the connection of a parent process: the server is not told, and it ends when the parent's does."""
        raw = self.driver.raw
        if not raw.closed:
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, raw.fileno())
            os.close(nothing)
