"""`Leader`: makes the writes of several threads in one transaction, see `jarvis._sql.write_queue`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from jarvis._sql.write_queue import NO_COMMIT, Write, WriteQueue
from jarvis.errors import CorruptStoreError, JarvisError, ReadOnlyStoreError, StoreAccessError

if TYPE_CHECKING:
    from jarvis._sqlite.pool import Lease, Pool


class Leader:
    """Makes writes, each alone or together with the waiting writes of other threads of this process.

    Args:
        pool: the pool of connections.
        commit: commits on a connection, given the file's status when the lock was taken.
        finish: is called with the connection after a commit if an erasure is still to be finished.
        timeout_seconds: how long a write waits for its turn.

    Attributes:
        shared: the waiting writes.
    """

    def __init__(
        self,
        pool: Pool,
        commit: Callable[[Lease, os.stat_result], None],
        finish: Callable[[Lease], None],
        timeout_seconds: float,
    ) -> None:
        self._pool, self._lock = pool, pool.lock
        self._commit, self._finish, self._timeout = commit, finish, timeout_seconds
        self._writer: Lease | None = None  # lent to the leading thread while threads take turns
        self.start_again()

    def start_again(self) -> None:
        """Forget all waiting writes and the connection: a forked child has none of its parent's."""
        self.shared = WriteQueue(self._lock, self._timeout)
        self._writer = None

    def be_ready(self) -> None:
        """Open a connection of the calling thread, so that it need not do so while it leads."""
        session = self._pool.threads.here.session
        if (
            session is None
            or session.depth
            or session.epoch != self._pool.epoch
            or session.closed
            or session.pid != os.getpid()
            or session.is_still
        ):
            self._pool.leave(self._pool.enter(look=False))

    def lead(self, own: Write) -> None:
        """Make `own` and the waiting writes in one transaction, or leave each to be made alone.

        Without a current connection, as after a fork or if the file was replaced, this does nothing.
        """
        pool, shared, thread = self._pool, self.shared, self._pool.threads.here
        mine = thread.session
        if mine is None:
            return
        session, commit = mine, NO_COMMIT
        try:
            try:
                if shared.is_crowded and self._lock.is_mine():
                    session = self._lend_writer(mine)
                    thread.lend(session)
                before = pool.file.take_lock(self._timeout)
                session.take()  # only from here on: during the wait a fork may close it
                is_current = session.epoch == pool.epoch and not session.closed
                if not is_current or (before.st_dev, before.st_ino) != session.identity:
                    mine.drop()
                    session.drop()
                    return
                if own.commit.is_done:  # opening released the lock: a thread that led meanwhile made this write
                    return
                session.begin()
                commit = shared.join(own)
                self._lock.announce()  # before any write reads the time
                commit.make(session, thread)
                self._commit(session, before)
                commit.is_done = True
            except BaseException as error:
                is_made = commit is not NO_COMMIT and session.is_committed
                if is_made and not isinstance(error, JarvisError):  # an interrupt after the commit
                    commit.is_done = True
                    raise
                session.roll_back(0)
                if isinstance(error, (StoreAccessError, CorruptStoreError, ReadOnlyStoreError)):
                    session.drop()
                if len(commit.writes) <= 1:
                    raise
                if not isinstance(error, Exception):
                    shared.part(commit.writes[1:])
                    raise
                shared.part(commit.writes)
                return
            finally:
                if session is not mine:
                    thread.lend(mine)
                if session.busy:
                    pool.leave(session)
                if shared.is_crowded:
                    for write in commit.writes[1:]:
                        write.wake()
        finally:  # again, see `_put_right`
            if session is not mine:
                thread.lend(mine)
            if session.depth:
                session.roll_back(0)
        if session.clock.erasing:
            self._finish(session)

    def _lend_writer(self, mine: Lease) -> Lease:
        """Return the connection that writes in place of the calling thread's `mine` while threads take turns.

        A connection drops its cached pages when another one writes: each leader would read them again.
        """
        writer = self._writer
        if writer is None or not self._pool.is_current(writer):
            writer = self._pool.open_at_once()  # a thread that is opening one may wait for this one, which leads
            if writer is None:
                return mine
            if not self._lock.is_mine():  # opening released the lock: another thread may lead by now
                self._pool.retire(writer)
                return mine
            old, self._writer = self._writer, writer
            if old is not None:
                self._pool.retire(old)
        writer.hand_over()
        return writer
