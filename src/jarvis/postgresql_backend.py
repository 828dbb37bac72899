"""`PostgreSQLBackend`: memories on a PostgreSQL server that many processes and machines share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any, ClassVar, Self

from jarvis._postgresql import measuring, schema, traces
from jarvis._postgresql.dsn import Address, Reach
from jarvis._postgresql.key_table import KeyTable
from jarvis._postgresql.pool import Pool
from jarvis._postgresql.server import Server
from jarvis._sql import recompressing, sliding, verifying
from jarvis._sql.backend import SQLBackend
from jarvis._sql.erasing import look_through
from jarvis._sql.select import LIVE
from jarvis._sql.session import Session
from jarvis.capabilities import Compresses, Erases, Slides, TellsSize, TellsVersion, Verifies
from jarvis.model.analytics import Sizes
from jarvis.model.entry import DEFAULT_NAMESPACE, check_expiry, check_namespace
from jarvis.model.erasure import Erased, Judge, Look, Search
from jarvis.model.mending import Entries
from jarvis.model.options import Compression, Durability, TextIndex
from jarvis.model.policies import CategoryPolicy, HistoryPolicy
from jarvis.model.query import MemoryQuery
from jarvis.model.revision import Signature
from jarvis.model.rewriting import Progress, Recompression
from jarvis.model.store_options import StoreOptions
from jarvis.model.tally import Tally

_USUAL_HISTORY = HistoryPolicy()
_ALL_NAMESPACES = """
SELECT n.name FROM clock AS c JOIN names AS n ON n.namespace = c.namespace AND n.id = c.namespace
"""
_AGAIN = f"""
UPDATE {{table}} SET body = ?, packed = ?, checksum = ?
WHERE {{{{here}}}} AND {{number}} = ? AND {recompressing.AS_READ}
"""
_NAMESPACES = f"""
{_ALL_NAMESPACES}
WHERE EXISTS (SELECT 1 FROM entries AS e WHERE e.namespace = c.namespace AND {LIVE})
"""


class PostgreSQLBackend(SQLBackend):
    """Memories on a PostgreSQL server. See `StorageBackend` for what every verb does.

    A write that returned is durable as the server promises it. Writers of one namespace wait for each other; those of
    different namespaces do not.

    Args:
        dsn: where the server is: a URL, such as ``postgresql://user@host/database``, or keywords as of libpq. What is
            missing is taken from libpq's environment variables and password file.
        namespace: the part of the store that this handle sees.
        read_only: write nothing at all; works on a standby server.
        durability: ``"full"``, or ``"normal"``: a crash of the server loses the last commits.
        busy_timeout_seconds: how long a call waits for other writers, or for a free connection, before
            `StoreBusyError`.
        history: how much of the past is kept.
        compression: how values from 1 KiB up are written, as for `jarvis.sqlite_backend.SQLiteBackend`.
        create: create the tables if they are absent; False: raise `StoreMissingError` at the first call.
        text_index: the language of the index of words, as for `jarvis.sqlite_backend.SQLiteBackend`.
        pool_size: how many connections this process opens at most.
        partitions: in how many partitions by namespace a new store has its tables, for an administrator who wants to
            move some of them; 0: in none. A store that is there stays as it is.
        transaction_pooling: the dsn is that of a proxy, such as pgbouncer with ``pool_mode = transaction``, which gives
            each transaction any connection of its own. Nothing is prepared then, and no settings are made that stay.
        listen_dsn: where the server itself is, for watchers that listen for notices; without it, behind such a proxy,
            they ask each time.

    Raises:
        InvalidSettingError: an argument is out of range.
        InvalidEntryError: the namespace is no valid name.
    """

    name: ClassVar[str] = "postgresql"
    capabilities: ClassVar[tuple[type, ...]] = (
        *SQLBackend.capabilities,
        Erases,
        Compresses,
        Slides,
        TellsSize,
        TellsVersion,
        Verifies,
    )

    def __init__(
        self,
        dsn: str,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        read_only: bool = False,
        durability: Durability = "full",
        busy_timeout_seconds: float = 30.0,
        history: HistoryPolicy = _USUAL_HISTORY,
        compression: Compression = "auto",
        policies: Sequence[CategoryPolicy] = (),
        create: bool = True,
        text_index: TextIndex | None = None,
        pool_size: int = 10,
        partitions: int = 0,
        transaction_pooling: bool = False,
        listen_dsn: str | None = None,
    ) -> None:
        options = StoreOptions(
            read_only=read_only,
            durability=durability,
            busy_timeout_seconds=busy_timeout_seconds,
            history=history,
            compression=compression,
            policies=policies,
            create=create,
            text_index=text_index,
        )
        self._address, self._options = Address(dsn), options
        self._reach = Reach(pool_size, partitions, transaction_pooling, listen_dsn).checked()
        pool = Pool(self._address.dsn, str(self._address), "jarvis", self._reach, options)
        self._server = Server(pool, check_namespace(namespace), options)
        super().__init__(self._server, namespace, options.compression, options.text_index)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._address)!r}, namespace={self.namespace!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        reopen = (type(self), self._address.dsn, self.namespace, self._options, self._reach, self._reader.clock)
        return _reopen, reopen

    def bind(self, *, namespace: str | None = None, clock: Callable[[], datetime] | None = None) -> Self:
        sibling = super().bind(namespace=namespace, clock=clock)
        return sibling if sibling.namespace == self.namespace else sibling._on(self._server.at(sibling.namespace))

    def expecting(self, keys: str) -> Self:
        """Return a handle that refuses the store if it has other keys; see `jarvis.model.key_place.Sealing.accept`."""
        return super().bind()._on(self._server.expecting(keys))

    def _on(self, server: Server) -> Self:
        self._server = self._lender = self._reader.lender = server
        return self

    @property
    def key_place(self) -> KeyTable:
        """Where the keys of the store lie if `jarvis.sealing.SealedBackend` seals it."""
        return KeyTable(self._server, self._compression)

    def version(self) -> object:
        if self._server.in_transaction():
            return None
        return self._server.read(lambda session: self._server.pool.version(session, self._reader.now()))

    def slide(self, entry_id: str, expires_at: datetime) -> bool:
        return sliding.try_to(self._server, self.namespace, entry_id, check_expiry(expires_at), self._reader.now())

    def erase(self, which: str | MemoryQuery | None, judge: Judge | None = None) -> Erased:
        erased = super().erase(which, judge)
        self._server.within(traces.remove_unused_names)
        return erased

    def finish_erasing(self, ids: Collection[str], look: Look | None = None) -> Search | None:
        if self._server.in_transaction():
            return None
        found = 0 if look is None else self._server.read(look_through, self._reader, look)
        searched = self._server.read(traces.search, ids)
        return searched._replace(found=searched.found + found)

    def recompress(self, progress: Progress | None) -> Recompression:
        if self._server.read_only:
            raise self._server.read_only_error()
        servers = [self._server.at(name) for name in self.all_namespaces()]
        return recompressing.recompress(servers, self._compression, progress, _replace)

    def _look_after(self, session: Session) -> None:
        if session.clock.erasing:
            traces.remove_unused_names(session)

    def complete(self, now: datetime) -> None:
        names = self._server.own_session().touched()
        for name in names:  # each has a clock, and is to be dated by the end of the transaction
            super(PostgreSQLBackend, self if name == self.namespace else self.for_namespace(name)).complete(now)

    def pulse(self) -> object:
        return self._server.pulse(super().pulse)

    # --- what concerns all namespaces ------------------------------------------------------------

    def list_namespaces(self) -> list[str]:
        now = {"now": self._reader.now()}
        self._server.check_sees_all()
        return sorted(name for (name,) in self._lender.read(lambda session: session.rows(_NAMESPACES, now)))

    def all_namespaces(self) -> list[str]:
        self._server.check_sees_all()
        return sorted(name for (name,) in self._lender.read(lambda session: session.rows(_ALL_NAMESPACES)))

    def prune(self, now: datetime, limit: int) -> int:
        return self._in_each(lambda handle, most: SQLBackend.prune(handle, now, most), limit)

    def purge_expired(self, limit: int) -> int:
        return self._in_each(SQLBackend.purge_expired, limit)

    def _in_each(self, step: Callable[[Self, int], int], limit: int) -> int:
        """Remove at most `limit` states, in this namespace and then in the others that the role sees; return how many.

        A role that may not see all namespaces removes those of its own.
        """
        removed = step(self, limit)
        if removed < limit and not self._server.is_walled():
            for name in self.all_namespaces():
                if removed < limit and name != self.namespace:
                    removed += step(self.for_namespace(name), limit - removed)
        return removed

    def mend_dates(self, signature: Signature, entries: Callable[[str], Entries] | None = None) -> int:
        handles = map(self.for_namespace, self.all_namespaces())
        return sum(super(PostgreSQLBackend, handle).mend_dates(signature, entries) for handle in handles)

    def rebuild_index(self, language: TextIndex | None, progress: Progress | None) -> None:
        for name in self.all_namespaces() or [self.namespace]:
            super(PostgreSQLBackend, self.for_namespace(name)).rebuild_index(language, progress)

    def findings(self, looked_at: Callable[[], object]) -> Iterator[str]:
        self._check_outside()
        for name in self.all_namespaces():
            yield from self._server.at(name).iterate(partial(verifying.findings, looked_at=looked_at))

    def tallies(
        self, namespaces: Sequence[str], now: int, most: int, looked_at: Callable[[int], object]
    ) -> Iterator[Tally]:
        for name in namespaces:
            yield from super(PostgreSQLBackend, self.for_namespace(name)).tallies([name], now, most, looked_at)

    def sizes(self) -> Sizes:
        return self._server.read(measuring.sizes)

    def admit(self, role: str, *, all_namespaces: bool = False, read_only: bool = False) -> None:
        """Let a role of the database read and change this namespace, or all of them.

        The server refuses it every other one, whatever it asks. The caller has the rights of the owner of the tables.

        Args:
            role: its name.
            all_namespaces: let it see the whole store, and use the verbs that concern all of it.
            read_only: it may not change anything.

        Raises:
            InvalidSettingError: the name is no text.
            StoreAccessError: there is no such role, or the caller may not do this.
        """
        make = partial(schema.admit, read_only=read_only)
        self._server.govern(make, role, everywhere=all_namespaces)

    def expel(self, role: str, *, all_namespaces: bool = False) -> None:
        """Take from a role what `admit` gave it with the same `all_namespaces`; raise as that does."""
        self._server.govern(schema.expel, role, everywhere=all_namespaces)


def _replace(session: Session, table: str, states: Sequence[recompressing.Again]) -> list[recompressing.Again]:
    """Store states of a table again, as far as they are as they were read; return these."""
    sql = session.say(_AGAIN.format(table=table, number=recompressing.NUMBERS[table]))
    replaced = []
    for each in states:
        session.run(sql, (*each.values, *each.as_read))
        replaced += [each] * session.driver.changed()
    return replaced


def _reopen(
    kind: type[PostgreSQLBackend],
    dsn: str,
    namespace: str,
    options: StoreOptions,
    reach: Reach,
    clock: Callable[[], datetime] | None,
) -> PostgreSQLBackend:
    return kind(dsn, namespace=namespace, **reach._asdict(), **options.given()).bind(clock=clock)
