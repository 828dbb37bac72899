"""`Leader`: makes the writes of several threads to one namespace in one transaction, see `jarvis._sql.write_queue`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from jarvis._postgresql import outcome
from jarvis._postgresql.failures import LostConnectionError
from jarvis._sql.write_queue import NO_COMMIT, Write, WriteQueue
from jarvis.errors import JarvisError, StoreAccessError, StoreBusyError

if TYPE_CHECKING:
    from jarvis._postgresql.pool import Pool


class Turn:
    """Lets one thread of this process at a time lead the writes to a namespace; the server orders the processes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._mutex = threading.RLock()

    def try_threads(self) -> bool:
        """Take the turn if no other thread has it."""
        return self._mutex.acquire(blocking=False)

    def release(self) -> None:
        """Give the turn away; no-op if the calling thread does not have it."""
        while self._mutex._is_owned():  # type: ignore[attr-defined]  # threading.Condition relies on it too
            self._mutex.release()

    def busy(self, timeout_seconds: float) -> StoreBusyError:
        """Return the error of a wait that took too long."""
        return StoreBusyError(
            self._path,
            f"other threads have written to the namespace for {timeout_seconds:g} s; "
            "retry, or raise busy_timeout_seconds",
        )


class Leader:
    """Makes writes to one namespace, each alone or together with the waiting writes of other threads.

    Args:
        pool: the connections.
        namespace: the name of the namespace.
        timeout_seconds: how long a write waits for its turn.

    Attributes:
        shared: the waiting writes.
        turn: held by the thread that leads.
    """

    def __init__(self, pool: Pool, namespace: str, timeout_seconds: float) -> None:
        self._pool, self.namespace, self._timeout = pool, namespace, timeout_seconds
        self.begin_again()
        pool.inherited.add(self)

    def begin_again(self) -> None:
        """Start with no waiting writes: in a child, those of its parent's threads are not there."""
        self.turn = Turn(self._pool.path)
        self.shared = WriteQueue(self.turn, self._timeout)

    def be_ready(self) -> None:
        """Do nothing: the connection is taken when the thread leads."""

    def lead(self, own: Write) -> None:
        """Make `own` and the waiting writes in one transaction, or leave each to be made alone."""
        pool, shared, thread, commit = self._pool, self.shared, self._pool.threads.here, NO_COMMIT
        session = pool.enter()
        try:
            session.go_to(self.namespace)
            session.driver.announce()  # before any write reads the time
            session.begin()
            commit = shared.join(own)
            commit.make(session, thread)
            session.commit()
            commit.is_done = True
        except BaseException as error:
            if commit is not NO_COMMIT and session.is_committed and not isinstance(error, JarvisError):
                commit.is_done = True  # an interrupt after the commit
                raise
            is_doubtful = session.is_doubtful()
            session.roll_back(0)
            if not isinstance(error, Exception) or isinstance(error, StoreAccessError):
                session.drop()
            if is_doubtful:  # none of them is made again
                for write in commit.writes:
                    write.error = outcome.unknown(session.path, "it was not looked up")
                commit.is_done = True
                raise
            may_be_again = commit.writes and not own.alone and isinstance(error, LostConnectionError)
            if len(commit.writes) <= 1 and not may_be_again:
                raise
            shared.part(commit.writes if isinstance(error, Exception) else commit.writes[1:])
            if not isinstance(error, Exception):
                raise
        finally:
            pool.leave(session)
            if shared.is_crowded:
                for write in commit.writes[1:]:
                    write.wake()
