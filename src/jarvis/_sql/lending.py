"""`Lending`: how a store lends its sessions to calls, and how the transactions of these end."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, TypeVarTuple

from jarvis._calls.caller import Gate, current_task, foreign_task, no_transaction
from jarvis._sql.session import Session
from jarvis._sql.write_queue import NO_COMMIT, Turns, Write, WriteQueue
from jarvis.errors import (
    CorruptStoreError,
    ReadOnlyStoreError,
    StoreAccessError,
    TransactionError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from types import FrameType

Result = TypeVar("Result")
Args = TypeVarTuple("Args")


class Lease(Session, ABC):
    """A session on a connection of its own. Only the thread that owns it calls its methods.

    Attributes:
        task: the task that has the transaction open (`jarvis._calls.caller.current_task`), if other verbs take part.
        pid: the process that opened it.
        thread: the thread that uses it.
    """

    task: object
    pid: int
    thread: int

    def belong_to(self, task: object) -> None:
        """Let its transaction be one of a task, None for one that has ended."""
        self.task = task

    @abstractmethod
    def drop(self) -> None:
        """Have the connection closed when nobody uses it: after a failed write or sync its state is unknown."""


Leased = TypeVar("Leased", bound=Lease)


class Thread(Gate, Generic[Leased]):
    """A thread's part of a store: its connection, and its call in progress."""

    __slots__ = ("session",)

    def __init__(self) -> None:
        super().__init__()
        self.session: Leased | None = None


class Here(Protocol[Leased]):
    """`here` is the part of the calling thread."""

    @property
    def here(self) -> Thread[Leased]:
        """The part of the calling thread."""


class Leases(Protocol[Leased]):
    """The sessions of this process."""

    @property
    def threads(self) -> Here[Leased]:
        """The parts of the threads."""

    def enter(self) -> Leased:
        """Return the calling thread's session, opened if need be; the caller must call `leave`."""

    def leave(self, session: Leased) -> None:
        """End the use of a session that `enter` returned."""


class Lock(Turns, Protocol):
    """The lock of those who write.

    Attributes:
        is_mine: tells whether the calling thread holds it.
    """

    is_mine: Callable[[], bool]

    def release_for(self, holder: tuple[int, int]) -> None:
        """Release it if the thread with this (process id, thread id) holds it."""

    def announce(self) -> None:
        """Say that a commit is in flight: changes dated from here on become visible when it is over."""


class Lead(Protocol):
    """Makes the writes of several threads in one transaction."""

    shared: WriteQueue

    def lead(self, own: Write) -> None:
        """Make `own` and the waiting writes in one transaction, or leave each to be made alone."""

    def be_ready(self) -> None:
        """Prepare the calling thread to lead."""


class Lending(ABC, Generic[Leased]):
    """Lends sessions to the calls of this process, as `jarvis._sql.lender.Lender` says.

    A subclass says how a session is taken and given back, and what else a commit needs.

    Attributes:
        pool: the sessions.
        lock: held by the thread that changes the store.
        leader: makes the changes of several threads in one transaction.
        busy_timeout_seconds: how long a change waits for others.
    """

    path: str
    read_only: bool
    busy_timeout_seconds: float
    pool: Leases[Leased]
    lock: Lock
    leader: Lead

    # --- what each database does in its own way --------------------------------------------------

    @abstractmethod
    def _lock_out(self, session: Leased, patience_seconds: float) -> tuple[Leased, Any]:
        """Keep all other writers out; return the session to write with, and what `_commit` is to know."""

    @abstractmethod
    def _commit(self, session: Leased, before: Any) -> None:
        """Commit a transaction, given what `_lock_out` returned."""

    @abstractmethod
    def _put_right(self, thread: Thread[Leased]) -> None:
        """Clean up a call outside of transactions after an exception that was raised from outside at any place.

        Each clean-up of a call stands twice, where it belongs and here: one exception can keep only one of the two
        from running. Mostly there is nothing to do here.
        """

    def _finish_after_commit(self, session: Leased) -> None:
        """Do what is due after a commit."""

    @abstractmethod
    def snapshot(self) -> AbstractContextManager[Leased]:
        """Lend a separate session, for an iteration that outlives the call; not for transactions."""

    @abstractmethod
    def read_only_error(self) -> ReadOnlyStoreError:
        """Return the error for a change of a store that is open for reading only."""

    # --- calls ------------------------------------------------------------------------------------

    def _is_aside(self, thread: Thread[Leased]) -> bool:
        """Tell whether another call, or another task's transaction, is using the thread's connection."""
        return (thread.call is not None and thread.is_closed()) or self._is_of_another_task(thread.session)

    def _is_of_another_task(self, session: Leased | None) -> bool:
        # While a change is made no other task runs, so `joined` saves the look at the task.
        return bool(
            session is not None
            and session.depth
            and not session.joined
            and session.task is not current_task()
            and self.lock.is_mine()
        )

    def _own(self, thread: Thread[Leased]) -> Leased | None:
        """Return the connection on which the caller, about to write, has a transaction open, or None.

        Raises:
            TransactionError: the caller interrupts a call, or meets another task's transaction.
        """
        if thread.call is not None:
            thread.check(self.path)
        session = thread.session
        if session is None or not session.depth or not self.lock.is_mine():
            return None
        if not session.joined and session.task is not current_task():
            raise foreign_task(self.path)
        return session

    def changing(self) -> AbstractContextManager[Leased]:
        """Lend the calling thread its connection inside a transaction, or inside a savepoint of the open one.

        The transaction commits when the block ends, and rolls back when it raises anything. Neither a call that
        interrupts the calling function nor another task takes part in it.

        Raises:
            StoreError: the store is read-only, busy, full, damaged or gone; nothing of the block was kept.
            TransactionError: the caller interrupts another call, or meets another task's transaction; or this process
                was forked inside the block.
        """
        return self._begun(sys._getframe(1))

    def transaction(self) -> AbstractContextManager[Leased]:
        """Lend a connection as `changing` does, for a block whose calls of other verbs take part in the transaction."""
        return self._begun(None)

    @contextlib.contextmanager
    def _begun(self, call: FrameType | None) -> Iterator[Leased]:
        if self.read_only:
            raise self.read_only_error()
        thread = self.pool.threads.here
        own = self._own(thread)
        level = 0 if own is None else own.depth
        closing = call or sys._getframe()
        try:
            thread.call = closing
            session = self.pool.enter()
            try:
                if not level:
                    session, before = self._lock_out(session, self.busy_timeout_seconds)
                session.begin()
                if not level:
                    session.belong_to(current_task())
                    if call:
                        self.lock.announce()
                thread.call = call
                yield session
                thread.call = closing
                self._check_leaving(session, level)
                if level:
                    session.commit()
                else:
                    self._commit(session, before)
            except BaseException as error:
                thread.call = closing
                if session.pid == os.getpid():
                    session.roll_back(level)
                if isinstance(error, (StoreAccessError, CorruptStoreError, ReadOnlyStoreError)):
                    session.drop()
                raise
            finally:
                if not level:
                    session.belong_to(None)
                    self.lock.release_for((session.pid, session.thread))
                    self.leader.shared.wake_next()
                self.pool.leave(session)
        except BaseException:
            if own is None:
                self._put_right(thread)
            else:
                own.roll_back(level)
            raise
        finally:
            thread.call = None
            del closing  # else the frame would keep itself alive until the garbage collector runs
        if not level:
            self._finish_after_commit(session)

    def change(self, work: Callable[[Leased, *Args], Result], *args: *Args) -> Result:
        """Run `work` with a connection and `args`, and keep its changes whole or not at all; return its result.

        Inside the calling task's transaction the changes are part of that. Elsewhere another thread may make them,
        together with those of other threads, and they are durable when this returns. `work` may be called twice, and
        uses no other store. A call that interrupts it takes no part in it, see also `letting_in`.

        Raises:
            StoreError: the store is read-only, busy, full, damaged or gone; nothing of `work` was kept.
            TransactionError: the caller interrupts another call, or meets another task's transaction.
        """
        thread = self.pool.threads.here
        session = thread.session
        # If this thread is just making a change, this is part of it, and the session need not be checked.
        if thread.call is not None or session is None or not session.joined or not self.lock.is_mine():
            session = self._own(thread)
        if session is None:
            result: Result = self._share(Write(work, args, NO_COMMIT), thread)
            return result
        try:
            thread.call = sys._getframe()
            return work(session, *args) if session.joined else session.join(work, session, *args)
        finally:
            thread.call = None

    def _share(self, write: Write, thread: Thread[Leased]) -> Any:
        if self.read_only:
            raise self.read_only_error()
        leader = self.leader
        try:
            thread.call = sys._getframe()
            return leader.shared.make(write, leader.lead, leader.be_ready)
        except BaseException:
            self._put_right(thread)
            raise
        finally:
            thread.call = None

    def within(self, work: Callable[[Leased], Result]) -> Result:
        """Run `work` with the connection on which the caller has a transaction open; return its result.

        Raises:
            TransactionError: the caller has none.
        """
        session, thread = self.own_session(), self.pool.threads.here
        try:
            thread.call = sys._getframe()
            return work(session)
        finally:
            thread.call = None

    def own_session(self) -> Leased:
        """Return the connection on which the caller has a transaction open; without one raise `TransactionError`."""
        thread = self.pool.threads.here
        session = thread.session
        if session is not None and session.joined and thread.call is None and self.lock.is_mine():
            return session  # of the change that this thread is making; `_own` returns the same at more cost
        session = self._own(thread)
        if session is None:
            raise no_transaction(self.path)
        return session

    def change_as_one(self, work: Callable[[], Result]) -> Result:
        """Run `work` as `change` does; the verbs that it calls take part in the change."""
        thread = self.pool.threads.here
        session = thread.session
        may_be_inside = thread.call is not None or (session is not None and session.depth > 0)
        session = self._own(thread) if may_be_inside else None
        if session is None:
            result: Result = self._share(Write(work, (), NO_COMMIT, lets_in=True), thread)
            return result
        return work() if session.joined else session.join(work)

    def letting_in(self, work: Callable[[], Result]) -> Result:
        """Run `work` inside `change` so that the verbs it calls take part in the change; return its result."""
        thread = self.pool.threads.here
        call = thread.call
        try:
            thread.call = None
            return work()
        finally:
            thread.call = call

    def _check_leaving(self, session: Leased, level: int) -> None:
        if session.pid != os.getpid():
            raise TransactionError(f"{self.path}: forked inside the transaction, which belongs to the parent process")
        if session.thread != threading.get_ident():
            raise TransactionError(
                f"{self.path}: a transaction was left in another thread than it was entered in; nothing of it was kept"
            )
        if session.task is not current_task():
            raise TransactionError(
                f"{self.path}: a transaction was left in another task than it was entered in; nothing of it was kept"
            )
        if session.depth != level + 1:
            raise TransactionError(f"{self.path}: a transaction was left before one that was entered inside it")

    def in_transaction(self) -> Leased | None:
        """Return the connection on which the caller has a transaction open, or None.

        A call that interrupts the one with the transaction has none, nor has another task than the one that opened it.
        """
        thread = self.pool.threads.here
        session = thread.session
        if session is None or not session.depth or not self.lock.is_mine() or self._is_aside(thread):
            return None
        return session
