"""`Lease`: a session, and what a process knows of the connection that it is on."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import apsw

from jarvis._calls.caller import holding
from jarvis._sql.session import Session
from jarvis._sqlite.connection import Connection
from jarvis.errors import ReadOnlyStoreError, StoreAccessError

if TYPE_CHECKING:
    from jarvis._disk.files import Stamp
    from jarvis._sql.names import NameBook
    from jarvis.model.options import HistoryPolicy


class Lease(Session):
    """A session on a connection of its own. Only the thread that owns it calls its methods,
    except `close`, which anybody may call while `busy` is 0.

    Attributes:
        raw: the driver's connection.
        busy: how many calls and iterations use the connection just now.
        epoch: the `Database.epoch` it was opened in; another one there means that it is stale.
        identity: (device, inode) of the file it has open.
        immutable: None, or the stamp of a file that it reads without locks: right only while nobody writes.
        is_suspended: it belongs to an iteration that has handed out an entry, and may be left open for ever.
        task: which has the transaction open, see `jarvis._calls.caller.current_task`, if other verbs take part in it.
        pid: of the process that opened it.
        thread: that uses it.
        closed: whether it is.
        guard: held by whoever closes the connection, or uses another thread's.
    """

    def __init__(
        self,
        raw: apsw.Connection,
        path: str,
        book: NameBook,
        *,
        epoch: int,
        identity: tuple[int, int],
        immutable: Stamp | None,
        history: HistoryPolicy,
    ) -> None:
        self._connection = Connection(raw, path)
        super().__init__(self._connection, book, history)
        self.raw = raw
        self.epoch = epoch
        self.identity = identity
        self.immutable = immutable
        self.pid, self.thread = os.getpid(), threading.get_ident()
        self.busy = 0
        self.task: object = None
        self.closed = self.is_suspended = False
        self.guard = threading.RLock()

    def _roll_back_all(self) -> None:
        super()._roll_back_all()
        if self._connection.is_lost:
            self.epoch = -1  # it is dropped

    def close(self) -> None:
        """Close the connection, in the process that opened it; no-op if it is closed."""
        if self.pid != os.getpid():
            return
        holding(self.guard, self._close)

    def _close(self) -> None:
        if self.closed:
            return
        self.closed = True
        try:
            self.raw.close(True)
        except apsw.Error as error:
            raise StoreAccessError(self.path, "the connection could not be closed") from error


def read_only(path: str) -> ReadOnlyStoreError:
    """Return the error that says that a read-only store was asked to change."""
    return ReadOnlyStoreError(path, "is open with read_only=True; open it without to change anything")
