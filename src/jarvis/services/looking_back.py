"""`LooksBack`: the verbs of `MemoryModule` about the past of a memory, and about what happens."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from jarvis._calls.caller import Gates
from jarvis.backend_registry import ask
from jarvis.capabilities import KeepsHistory, MendsDates, WakesWatchers
from jarvis.errors import InvalidQueryError
from jarvis.model.author import Author
from jarvis.model.change import Change, position_of
from jarvis.model.entry import MOST_VERSIONS, asked_limit, asked_text
from jarvis.model.revision import Difference, Revision
from jarvis.services import timeline
from jarvis.services.ongoing import Ongoing
from jarvis.services.watching import Feed, Watch, watching
from jarvis.storage_backend import StorageBackend

Result = TypeVar("Result")


class LooksBack:
    """See, compare, restore and undo changes, and follow them. Needs a backend that keeps history, or has a feed."""

    backend: StorageBackend
    _ongoing: Ongoing

    if TYPE_CHECKING:  # what MemoryModule has

        def _author(self, module: str | None, task_id: str | None, reason: str | None = None) -> Author: ...
        def _change(self, work: Callable[[datetime], Result]) -> Result: ...
        def _now(self) -> datetime: ...

        _gates: Gates

    # --- the past ---------------------------------------------------------------------------------

    def get_history(self, memory_id: str) -> list[Revision]:
        """Return the past states of the memory, each with the change that ended it, the newest first.

        Also of a memory that was deleted; ``[]`` if nothing is known of it, or it was never changed.

        Raises:
            UnsupportedError: the backend keeps no history.
        """
        return ask(self.backend, KeepsHistory).revisions(asked_text("memory_id", memory_id))

    def diff_memory(self, memory_id: str, from_version: int, to_version: int) -> list[Difference]:
        """Return what differs between two versions of the memory, of which one may be the present one.

        Raises:
            RevisionNotFoundError: a version is not known; the message says which are.
            UnsupportedError: the backend keeps no history.
        """
        ask(self.backend, KeepsHistory)
        _check_versions(from_version, to_version)
        return timeline.diff(self.backend, asked_text("memory_id", memory_id), from_version, to_version)

    def restore_memory(
        self,
        memory_id: str,
        version: int,
        *,
        module: str | None = None,
        task_id: str | None = None,
        reason: str | None = None,
    ) -> bool:
        """Give the memory, deleted or not, what it held as `version`; return whether anything is known of it.

        That is a change as any other: the memory gets a new version, and it can be undone. It expires as it did then;
        where that has passed, it goes on to expire as it does now.

        Raises:
            RevisionNotFoundError: the version is not known; the message says which are.
            UnsupportedError: the backend keeps no history.
        """
        ask(self.backend, KeepsHistory)
        _check_versions(version)
        memory_id, author = asked_text("memory_id", memory_id), self._author(module, task_id, reason)
        return self._change(lambda moment: timeline.restore(self.backend, memory_id, version, author, moment))

    def undo(
        self,
        memory_id: str,
        *,
        module: str | None = None,
        task_id: str | None = None,
        reason: str | None = None,
    ) -> bool:
        """Take back the last change of the memory; return whether anything is known of it.

        Also its deletion, or its creation. Undoing an undo makes the change again. It expires as `restore_memory` says.

        Raises:
            RevisionNotFoundError: what it was before is not known any more.
            UnsupportedError: the backend keeps no history.

        >>> import tempfile
        >>> from jarvis.persistent_memory import MemoryModule
        >>> memory = MemoryModule(storage_dir=tempfile.mkdtemp())
        >>> memory_id = memory.set_user_preference("theme", {"mode": "dark"})
        >>> _ = memory.set_user_preference("theme", {"mode": "light"}, module="ui", reason="asked for")
        >>> memory.get_history(memory_id)[0].reason
        'asked for'
        >>> memory.undo(memory_id)
        True
        >>> memory.get_memory(memory_id).value
        {'mode': 'dark'}
        """
        ask(self.backend, KeepsHistory)
        memory_id, author = asked_text("memory_id", memory_id), self._author(module, task_id, reason)
        return self._change(lambda moment: timeline.undo(self.backend, memory_id, author, moment))

    def prune_history(self, *, limit: int = 1_000) -> int:
        """Remove at most `limit` past states that the policy has no room for; return how many.

        Writers do that beside their changes, in small steps; this is for a store that nobody writes to.

        Raises:
            UnsupportedError: the backend keeps no history.
        """
        asked_limit(limit)
        self._gates.here.check(self.backend)
        return ask(self.backend, KeepsHistory).prune(self._now(), limit)

    def mend_dates(self, *, module: str | None = None, task_id: str | None = None, reason: str | None = None) -> int:
        """Date anew what is dated ahead of the clock, in every namespace; return how many memories got another date.

        For a store that was written to while the clock of its machine was ahead. SET THE CLOCK RIGHT BEFORE. Each such
        memory is updated: it gets a version, which the feed tells, and a date between those of the changes before
        and behind it. Past states and the feed are dated anew, too; cursors stay good. As of a moment before
        this one nothing is known any more; every past state is kept. All or nothing: no-op if all dates have passed.

        Raises:
            TransactionError: a transaction is open in this thread.
            UnsupportedError: the backend cannot.

        >>> import tempfile
        >>> from datetime import UTC, datetime, timedelta
        >>> from jarvis.persistent_memory import MemoryModule
        >>> directory, ahead = tempfile.mkdtemp(), datetime.now(UTC) + timedelta(days=4000)
        >>> memory = MemoryModule(storage_dir=directory, clock=lambda: ahead)
        >>> memory_id = memory.set_user_preference("theme", {"mode": "dark"})
        >>> memory = MemoryModule(storage_dir=directory)
        >>> memory.mend_dates()
        1
        >>> memory.get_memory(memory_id).timestamp <= datetime.now(UTC)
        True
        """
        store = ask(self.backend, MendsDates)
        gate = self._gates.here
        gate.check(self.backend)
        self._now()
        author = self._author(module, task_id, "its date lay ahead of the clock" if reason is None else reason)
        try:
            gate.call = sys._getframe()
            return store.mend_dates(author.signature("update"))
        finally:
            gate.call = None

    # --- what happened -----------------------------------------------------------------------------

    def changes(self, since: str | None = None, *, limit: int = 100) -> list[Change]:
        """Return what happened in this namespace, in the order of commits, by all processes: at most `limit` changes.

        Args:
            since: only what happened behind this cursor: `Change.cursor` of the last one you have seen. It
                stays good across restarts. None begins with the earliest change that is known.
            limit: at most this many; fewer mean that there are no more just now.

        Raises:
            CursorExpiredError: changes behind the cursor are not known any more, and the error names the earliest; or
                the cursor is of before the store was restored from a backup.
            InvalidQueryError: `since` is no cursor, or `limit` no number above 0.
            UnsupportedError: the backend has no feed.

        >>> import tempfile
        >>> from jarvis.persistent_memory import MemoryModule
        >>> memory = MemoryModule(storage_dir=tempfile.mkdtemp())
        >>> cursor = memory.newest_cursor()
        >>> _ = memory.set_user_preference("sound", {"on": True}, module="ui")
        >>> [(change.operation, change.key, change.module) for change in memory.changes(cursor)]
        [('create', 'sound', 'ui')]
        """
        feed = Feed(self.backend)
        asked_limit(limit)
        return feed.earliest(limit) if since is None else feed.since(since, limit)

    def newest_cursor(self) -> str:
        """Return the cursor of now: behind it lies what has not happened yet.

        Raises:
            UnsupportedError: the backend has no feed.
        """
        return Feed(self.backend).newest()

    def watch(self, since: str | None = None, *, idle_seconds: float | None = None) -> Iterator[Change]:
        """Yield what happens in this namespace, by any process, as it happens: within a tenth of a second.

        Nothing is skipped and nothing given twice, also when you go on from the cursor of the last change
        after a restart. Waiting takes about four thousandths of a core. It ends when you leave the loop, and behind
        `shutdown`, also by another thread.

        Args:
            since: begin behind this cursor; None means now, which is when this is called.
            idle_seconds: end when nothing happened for so long; None waits for ever.

        Raises:
            CursorExpiredError, InvalidQueryError: as `changes` does; or `idle_seconds` is no number from 0 up.
            UnsupportedError: the backend has no feed, or nothing that wakes a watcher.
        """
        watch = self._watch(since, idle_seconds)
        watch.begin(since)
        return watching(watch, idle_seconds)

    def _watch(self, since: str | None, idle_seconds: float | None) -> Watch:
        if idle_seconds is not None and not (type(idle_seconds) in (int, float) and idle_seconds >= 0):
            raise InvalidQueryError("idle_seconds: takes a number of seconds from 0 up, or None")
        feed, waker = Feed(self.backend), ask(self.backend, WakesWatchers)
        if since is not None:
            position_of(since)  # what is no cursor is refused at once
        return Watch(feed, waker, self._ongoing.begin())


def _check_versions(*versions: int) -> None:
    for version in versions:
        if type(version) is not int:
            raise InvalidQueryError(f"version: takes a whole number, not {type(version).__name__}")
        if abs(version) >= MOST_VERSIONS:
            raise InvalidQueryError("version: no memory has so many versions")
