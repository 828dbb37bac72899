"""`Server`: lends the calls of this process connections to one namespace of a store on a PostgreSQL server."""

from __future__ import annotations

import contextlib
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from jarvis._postgresql.failures import GivenUpError, LostConnectionError, damaged, replaced
from jarvis._postgresql.leader import Leader
from jarvis._postgresql.lease import TRIES, Lease
from jarvis._postgresql.names import number_of
from jarvis._postgresql.pool import Pool
from jarvis._postgresql.schema import ALL_NAMESPACES, is_role
from jarvis._sql import lending
from jarvis._sql.lending import Lending
from jarvis.errors import CorruptStoreError, InvalidSettingError, ReadOnlyStoreError, StoreAccessError, TransactionError

if TYPE_CHECKING:
    from jarvis.model.store_options import StoreOptions

Result = TypeVar("Result")
Args = TypeVarTuple("Args")


class _Unlocked:
    """Stands for the lock of those who write, which the server has: whoever has a transaction open has it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def is_mine(self) -> bool:
        """Tell whether the calling thread may go on with its transaction: not if a parent process opened it."""
        session = self._pool.threads.here.session
        return session is None or session.pid == self._pool.pid

    def try_threads(self) -> bool:
        """Tell that no other thread of this process is in the way."""
        return True

    def release(self) -> None:
        """Do nothing: the end of the transaction releases the lock."""

    def release_for(self, holder: tuple[int, int]) -> None:
        """Do nothing: the end of the transaction releases the lock."""

    def announce(self) -> None:
        """Say that a commit is in flight."""
        session = self._pool.threads.here.session
        if session is not None:
            session.driver.announce()


class Server(Lending[Lease]):
    """One namespace of a store, and this process's connections to it.

    Args:
        pool: the connections, which all namespaces share.
        namespace: the name of the namespace.
        options: the options of the store.
        leaders: by namespace, those who make the writes of several threads.
        keys: what tells the keys from others with which the store must have been opened; None: it may have any.
    """

    pool: Pool
    leader: Leader

    def __init__(
        self,
        pool: Pool,
        namespace: str,
        options: StoreOptions,
        leaders: weakref.WeakValueDictionary[str, Leader] | None = None,
        keys: str | None = None,
    ) -> None:
        self.pool, self.path, self.options, self.namespace = pool, pool.path, options, namespace
        self.read_only, self.busy_timeout_seconds = options.read_only, options.busy_timeout_seconds
        self.lock: Any = _Unlocked(pool)
        self._leaders = weakref.WeakValueDictionary[str, Leader]() if leaders is None else leaders
        self._keys = keys
        self._pulse: object = None
        self._looked = 0.0
        self.leader = self._leaders.setdefault(namespace, Leader(pool, namespace, options.busy_timeout_seconds))

    def at(self, namespace: str) -> Server:
        """Return the lender of another namespace of the store."""
        return Server(self.pool, namespace, self.options, self._leaders, self._keys)

    def expecting(self, keys: str) -> Server:
        """Return a lender that refuses a store which was opened with other keys."""
        return Server(self.pool, self.namespace, self.options, self._leaders, keys)

    # --- for the backend -------------------------------------------------------------------------

    def read(self, work: Callable[[Lease, *Args], Result], *args: *Args) -> Result:
        """Run `work` with a connection and `args`, inside a transaction with the caller's own; return its result.

        A call that interrupts another one of its thread, or another task's transaction, gets a connection of its own,
        which sees the last commit.

        Raises:
            StoreError: the store cannot be read.
        """
        thread = self.pool.threads.here
        if self._is_aside(thread):
            with self.snapshot() as session:
                return self._repeated(session, work, args)
        call = thread.call
        try:
            thread.call = sys._getframe()
            session = self.pool.enter()
            try:
                self._go(session)
                if session.depth or session.busy > 1:
                    return work(session, *args)
                return self._repeated(session, work, args)
            finally:
                self.pool.leave(session)
        except BaseException:
            if thread.session is None or not thread.session.depth:
                self._put_right(thread)
            raise
        finally:
            thread.call = call

    def _repeated(self, session: Lease, work: Callable[[Lease, *Args], Result], args: tuple[*Args]) -> Result:
        """Run `work` outside of transactions, again on a new connection if the server has ended it."""
        for _ in range(1, TRIES):
            try:
                return work(session, *args)
            except (LostConnectionError, GivenUpError):
                session.renew()
        return work(session, *args)

    def change(self, work: Callable[[Lease, *Args], Result], *args: *Args) -> Result:
        """Run `work` in this namespace, as `Lending.change` does."""
        return super().change(self._there, work, args)

    def _there(self, session: Lease, work: Callable[[Lease, *Args], Result], args: tuple[*Args]) -> Result:
        self._go(session)
        return work(session, *args)

    def change_at_once(self, work: Callable[[Lease], Result]) -> Result:
        """Run `work` in a transaction of its own that is not synced; inside one of the caller's as a part of that.

        Raises:
            StoreBusyError: another writer is writing; it was not waited for.
        """
        if self.read_only:
            raise self.read_only_error()
        if self.in_transaction():
            return self.within(work)
        thread = self.pool.threads.here
        self._own(thread)  # raises if this interrupts a call
        with self.snapshot() as session:
            try:
                thread.call = sys._getframe()
                session.driver.is_hasty = True
                session.begin()
                result = work(session)
                session.commit()
            except BaseException:
                session.roll_back(0)
                raise
            finally:
                session.driver.is_hasty = False
                thread.call = None
        return result

    def own_session(self) -> Lease:
        session = super().own_session()
        self._go(session)
        return session

    def iterate(self, find: Callable[[Lease], Iterator[Result]]) -> Iterator[Result]:
        """Yield what `find` yields on a connection of its own; not for callers inside a transaction."""
        with self.snapshot() as session:
            for tried in range(1, TRIES + 1):
                has_begun = False
                try:
                    with session.standing_still():
                        for found in find(session):
                            has_begun = True
                            yield found
                    return
                except (LostConnectionError, GivenUpError):
                    if has_begun or tried == TRIES:
                        raise
                session.renew()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Lease]:
        session = self.pool.take()
        try:
            self._go(session)
            yield session
        finally:
            self.pool.give_back(session)

    def announce(self) -> None:
        """Say that the caller's transaction is about to end: its date is read after this."""
        session = self.own_session()
        if session.depth == 1:
            session.driver.announce()

    def await_commit(self) -> None:
        """Wait for the commit of this namespace that is in progress now, if there is one and it is not the caller's.

        Raises:
            StoreBusyError: the commit takes too long.
        """
        if not self.in_transaction():
            self.read(lambda session: session.driver.await_commit())

    def pulse(self, look: Callable[[], object]) -> object:
        """Return what `look` returned last; call it again if another process may have committed since."""
        if self.pool.notices.should_look(number_of(self.namespace), self._looked):
            self._looked = time.monotonic()
            self._pulse = look()
        return self._pulse

    def govern(self, make: Callable[[str, int, str], str], role: str, *, everywhere: bool) -> None:
        """Run what `make` returns for a role, the number of this namespace or of all, and the schema.

        Raises:
            InvalidSettingError: the role is no text.
            StoreAccessError: there is no such role, or the caller may not do this.
        """
        if type(role) is not str or not is_role(role):
            raise InvalidSettingError("role: takes the name of a role of the database, of at most 63 bytes in UTF-8")
        number = ALL_NAMESPACES if everywhere else number_of(self.namespace)
        self.read(lambda session: session.driver.govern(make, role, number))

    def is_walled(self) -> bool:
        """Tell whether the server shows the role of this process only some namespaces."""
        return self.read(lambda session: session.driver.is_walled())

    def check_sees_all(self) -> None:
        """Raise `StoreAccessError` if the server shows the role of this process only some namespaces."""
        if self.is_walled():
            raise StoreAccessError(
                self.path,
                "the role may see its own namespaces only; this verb concerns all of them, and needs the owner of the "
                "tables, or a role that it admitted with all_namespaces=True",
            )

    def shutdown(self) -> None:
        """Close idle connections, and let the others close when they are given back.

        Raises:
            TransactionError: the caller has a transaction open.
        """
        if self.in_transaction():
            raise TransactionError(f"{self.path}: shutdown() inside a transaction; leave the transaction first")
        self.pool.close()

    def read_only_error(self) -> ReadOnlyStoreError:
        return ReadOnlyStoreError(self.path, "is open with read_only=True; open it without to change anything")

    def corrupt(self, finding: str) -> CorruptStoreError:
        """Return the error that says that the store is damaged, and what to do."""
        return damaged(self.path, finding)

    # --- a call ----------------------------------------------------------------------------------

    def _go(self, session: Lease) -> None:
        """Let a connection work in this namespace."""
        if self._keys is not None and session.keys != self._keys:
            raise replaced(self.path)
        session.go_to(self.namespace)

    def _own(self, thread: lending.Thread[Lease]) -> Lease | None:
        session = super()._own(thread)
        if session is not None:
            self._go(session)
        return session

    def _lock_out(self, session: Lease, patience_seconds: float) -> tuple[Lease, None]:  # noqa: ARG002  the server waits
        self._go(session)
        return session, None

    def _commit(self, session: Lease, before: None) -> None:  # noqa: ARG002  nothing is to be known
        session.commit()

    def _put_right(self, thread: lending.Thread[Lease]) -> None:
        session = thread.session
        if session is not None:
            if session.depth or session.driver.is_open():
                session.roll_back(0)
                session.drop()
            self.pool.leave(session)
        self.leader.turn.release()
        self.leader.shared.wake_next()
