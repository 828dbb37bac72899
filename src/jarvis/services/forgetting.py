"""`Forgets`: the verbs of `MemoryModule` by which memories expire, are erased, and are cleaned up by rules."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from jarvis._calls.arguments import is_on, own_code, plain_moment
from jarvis._calls.caller import holding
from jarvis.backend_registry import ask
from jarvis.capabilities import Erases, Expires, Namespaced, Transactional
from jarvis.errors import EntryNotFoundError, InvalidEntryError, InvalidQueryError, InvalidSettingError
from jarvis.model.author import Author
from jarvis.model.entry import NO_MODULE, OUTSIDE, MemoryQuery, asked_limit, asked_text, check_expiry, check_namespace
from jarvis.model.erasure import MOST_SEARCHED, ErasureReceipt
from jarvis.model.options import ARCHIVED, RetentionRule, checked
from jarvis.model.revision import Operation
from jarvis.services import retention
from jarvis.services.ongoing import Ongoing
from jarvis.services.retention import RetentionPlan, SweepReport
from jarvis.services.sweeping import Sweeper
from jarvis.storage_backend import StorageBackend

Result = TypeVar("Result")
Lifetime = timedelta | float

_BATCH = 500  # some 30 ms, for which other writers wait
_MANY = 10_000


class Forgets:
    """Let memories expire, erase them, and clean up by rules: say what would go, let it go, now or again and again."""

    backend: StorageBackend
    retention: tuple[RetentionRule, ...]
    _sweepers: list[Sweeper]
    _ongoing: Ongoing

    if TYPE_CHECKING:  # what MemoryModule has

        def _author(
            self, module: str | None, task_id: str | None, reason: str | None = None, usual: str | None = None
        ) -> Author: ...
        def _change(self, work: Callable[[datetime], Result]) -> Result: ...
        def _date(self, given: Callable[[datetime], datetime]) -> datetime: ...
        def _now(self) -> datetime: ...
        def _sign(self, author: Author, operation: Operation) -> None: ...
        def _verb_transaction(self) -> AbstractContextManager[None]: ...

    # --- expiry -----------------------------------------------------------------------------------

    def touch_memory(
        self,
        memory_id: str,
        *,
        ttl: Lifetime | msgspec.UnsetType | None = msgspec.UNSET,
        expires_at: datetime | None = None,
        module: str | None = None,
        task_id: str | None = None,
        reason: str | None = None,
    ) -> bool:
        """Let the memory expire at another time, or never; return whether it exists.

        That is a change with a version and a place in its history; its timestamp, and so its place in lists, stays.

        Args:
            memory_id: which memory; one that has expired does not exist.
            ttl: how long from now on, a timedelta or seconds; None for ever.
            expires_at: until when, in place of `ttl`; naive means local time.
            module, task_id, reason: who makes the change, for which task, and why.

        Raises:
            InvalidEntryError: neither or both are given, `ttl` is not above 0, or `expires_at` has passed.
            UnsupportedError: the backend has no expiry.

        >>> import tempfile
        >>> from jarvis.persistent_memory import MemoryModule
        >>> memory = MemoryModule(storage_dir=tempfile.mkdtemp())
        >>> memory_id = memory.set_user_preference("code", {"door": 4711}, ttl=60)
        >>> memory.touch_memory(memory_id, ttl=None)
        True
        >>> print(memory.get_memory(memory_id).expires_at)
        None
        """
        ask(self.backend, Expires)
        memory_id, author = asked_text("memory_id", memory_id), self._author(module, task_id, reason)
        if ttl is msgspec.UNSET and expires_at is None:
            raise InvalidEntryError("ttl", "is not given; give it, or expires_at=, or ttl=None to keep it for ever")
        if ttl is None and expires_at is not None:
            raise InvalidEntryError("ttl", "and expires_at exclude each other; give one of them")
        until = moment_of_expiry(self._now(), None if ttl is msgspec.UNSET else ttl, expires_at)

        def touch(_: datetime) -> bool:
            entry = self.backend.read(memory_id)
            if entry is None:
                return False
            entry.expires_at = until
            self._sign(author, "touch")
            try:
                self.backend.update(entry)
            except EntryNotFoundError:  # it has expired since it was read
                return False
            return True

        return self._change(touch)

    def purge_expired(
        self,
        *,
        limit: int = 1_000,
        module: str | None = None,
        task_id: str | None = None,
        reason: str | None = None,
    ) -> int:
        """Remove at most `limit` memories that have expired, in every namespace, and their past; return how many.

        Reads do not see them anyway. Writers purge a few beside their changes, so this is for a store that nobody
        writes to, or to have it done now. Their changes stay in the feed, with the purge of each: who, when and why.

        Raises:
            InvalidQueryError: `limit` is no number above 0.
            UnsupportedError: the backend has no expiry.
        """
        ask(self.backend, Expires)
        return self._purge(asked_limit(limit), self._author(module, task_id, reason))

    # --- erasure ----------------------------------------------------------------------------------

    def erase_memory(
        self, memory_id: str, *, module: str | None = None, task_id: str | None = None, reason: str | None = None
    ) -> ErasureReceipt:
        """ERASE the memory, its past, and whatever names it, from every file of the store; return what came of it.

        It may be there, deleted or expired. In the feed stays that something was erased, when, by whom and why. As
        of a moment before, only questions about the id of another memory are answered. The file is written anew,
        for which other writers wait: 0.3 s with 100,000 memories. See `ErasureReceipt` for what that cannot reach.

        Raises:
            UnsupportedError: the backend has no erasure.

        >>> import tempfile
        >>> from jarvis.persistent_memory import MemoryModule
        >>> memory = MemoryModule(storage_dir=tempfile.mkdtemp())
        >>> memory_id = memory.create_memory("notes", "secret", {"text": "the safe is behind the stove"}, "note")
        >>> receipt = memory.erase_memory(memory_id, reason="asked for")
        >>> receipt.state, receipt.memories, receipt.removed["entries"], receipt.searched.found
        ('done', 1, 1, 0)
        """
        return self._erase(asked_text("memory_id", memory_id), self._author(module, task_id, reason))

    def erase_entity(
        self,
        entity_type: str,
        entity_id: str | None = None,
        *,
        module: str | None = None,
        task_id: str | None = None,
        reason: str | None = None,
    ) -> ErasureReceipt:
        """ERASE every memory that is or was about the entity, or about any of this type, as `erase_memory` does."""
        query = MemoryQuery(entity_type=asked_text("entity_type", entity_type), entity_id=entity_id)
        return self._erase(query, self._author(module, task_id, reason))

    def erase_memories(
        self,
        category: str | None = None,
        entity_type: str | None = None,
        entity_id: str | None = None,
        tags: Collection[str] | None = None,
        key: str | None = None,
        *,
        tags_match: Literal["any", "all"] = "any",
        since: datetime | None = None,
        until: datetime | None = None,
        where: Mapping[Any, Any] | None = None,
        module: str | None = None,
        task_id: str | None = None,
        reason: str | None = None,
    ) -> ErasureReceipt:
        """ERASE every memory that satisfies every filter, or did in a past state that is kept, as `erase_memory` does.

        The filters are those of `search_memories`; archived memories are erased too.

        Raises:
            InvalidQueryError: no filter is given (`erase_namespace` erases everything), or one means nothing.
            UnsupportedError: the backend has no erasure.
        """
        query = MemoryQuery(
            category=category,
            entity_type=entity_type,
            entity_id=entity_id,
            tags=tags,
            key=key,
            tags_match=tags_match,
            since=since,
            until=until,
            where=where,
        )
        if query == MemoryQuery(tags_match=tags_match):
            raise InvalidQueryError("erase_memories: give a filter; erase_namespace() erases everything")
        return self._erase(query, self._author(module, task_id, reason))

    def erase_namespace(
        self, namespace: str, *, module: str | None = None, task_id: str | None = None, reason: str | None = None
    ) -> ErasureReceipt:
        """ERASE EVERY MEMORY OF `namespace`, its past and its name, as `erase_memory` does.

        Raises:
            UnsupportedError: the backend has no namespaces, or no erasure.
        """
        check_namespace(namespace)
        author = self._author(module, task_id, reason)
        ask(self.backend, Namespaced)
        return self._erase(None, author, self.backend.for_namespace(namespace))

    # --- by rules ---------------------------------------------------------------------------------

    def plan_retention(self, *, examples: int = 3) -> RetentionPlan:
        """Return what `sweep` would do now, rule by rule, with `examples` of each, the newest; change nothing.

        The rules are judged in their order: what one acts upon is of no concern to those that follow. On
        a store that stands still a sweep does just what is said here.

        Raises:
            InvalidQueryError: `examples` is no number from 0 up.

        >>> import tempfile
        >>> from datetime import timedelta
        >>> from jarvis.persistent_memory import MemoryModule, RetentionRule
        >>> newest = RetentionRule(category="tasks", max_entries=1, keep_tags=("important",))
        >>> memory = MemoryModule(storage_dir=tempfile.mkdtemp(), retention=[newest])
        >>> for name in ("a", "b", "c"):
        ...     _ = memory.record_task(name, {"status": "completed"}, ["important"] if name == "a" else [])
        >>> [(step.count, [entry.key for entry in step.examples]) for step in memory.plan_retention().steps]
        [(1, ['task_b'])]
        >>> memory.sweep().deleted
        1
        """
        _check("examples", examples, 0)
        return retention.plan(self.backend, self.retention, self._now(), examples)

    def sweep(
        self,
        *,
        batch: int = _BATCH,
        module: str | None = None,
        task_id: str | None = None,
        reason: str | None = None,
    ) -> SweepReport:
        """Delete and archive what the rules of this module say, purge what has expired; return how much that was.

        At most `batch` memories go in one transaction, each judged in there as it is then, so others write
        in between. A sweep that is killed or fails keeps what was done; another one goes on. Each is a
        change like any other: in the history, in the feed, and with a reason that names the rule if none is
        given. Being archived leaves a memory its timestamp. Without rules only what has expired goes. `shutdown`
        ends it behind the transaction it is in.

        Raises:
            InvalidQueryError: `batch` is no number from 1 to 10,000.
        """
        _check("batch", batch, 1)
        author, activity = self._author(module, task_id, reason, "retention"), self._ongoing.begin()
        return holding(activity.lock, lambda: self._sweep(batch, author, lambda: activity.is_over))

    def sweep_every(self, interval: timedelta | float) -> Sweeper:
        """Start a daemon thread that sweeps now and then after each `interval` (a timedelta, or seconds).

        It goes on until `Sweeper.stop` or `shutdown`, whichever comes first.

        Raises:
            InvalidSettingError: `interval` is not above 0, or longer than 30 days.
        """
        with own_code(InvalidSettingError, "sweep_every"):
            if isinstance(interval, float | int) and not isinstance(interval, bool):
                try:
                    interval = timedelta(seconds=interval)
                except (ValueError, OverflowError):
                    raise InvalidSettingError("sweep_every: takes a number of seconds up to 30 days") from None
            if not isinstance(interval, timedelta):
                raise InvalidSettingError(
                    f"sweep_every: takes a timedelta or a number of seconds, not {type(interval).__name__}"
                )
        checked("sweep_every", interval)
        author = self._author(None, None, None, "retention")
        sweeper = Sweeper(lambda is_over: self._sweep(_BATCH, author, is_over), interval)
        self._sweepers[:] = [*(each for each in self._sweepers if each.is_running), sweeper]
        return sweeper

    # --- inside -----------------------------------------------------------------------------------

    def _erase(
        self, which: str | MemoryQuery | None, author: Author, backend: StorageBackend | None = None
    ) -> ErasureReceipt:
        backend = backend or self.backend
        store = ask(backend, Erases)
        with self._verb_transaction():
            moment = self._date(ask(self.backend, Transactional).moment)
            self._sign(author, "erase")
            ids, removed = store.erase(which)
        asked = (which,) if isinstance(which, str) else ()
        found = store.finish_erasing(ids[:MOST_SEARCHED] or asked)
        import logging  # 8 ms to import, which most sessions never need

        logging.getLogger("jarvis.memory").info("erased %d memories, by %s", len(ids), author.module or NO_MODULE)
        return ErasureReceipt(
            moment=moment,
            memories=len(ids),
            removed=removed,
            state="pending" if found is None else "done",
            searched=found,
        )

    def _purge(self, limit: int, author: Author) -> int:
        def purge(_: datetime) -> int:
            self._sign(author, "expire")
            return self.backend.capability(Expires).purge_expired(limit)

        return self._change(purge)

    def _sweep(self, batch: int, author: Author, is_over: Callable[[], bool]) -> SweepReport:
        report = retention.sweep(
            self.backend, self.retention, self._now(), batch=batch, change=self._change, author=author, is_over=is_over
        )
        if self.backend.has_capability(Expires):
            purged, last = 0, batch
            while last == batch and not is_over():
                last = self._purge(batch, author)
                purged += last
            report = msgspec.structs.replace(report, purged=purged)
        if report.deleted or report.archived or report.purged:
            import logging  # 8 ms to import, which most sessions never need

            logging.getLogger("jarvis.retention").info(
                "deleted %d, archived %d, purged %d", report.deleted, report.archived, report.purged
            )
        return report

    def _stop_sweeping(self) -> bool:
        """Stop every sweeper of this module and its siblings; return whether there was one."""
        stopped = self._sweepers[:]
        for sweeper in stopped:
            sweeper.stop()
        self._sweepers[:] = [each for each in self._sweepers if each not in stopped]
        return bool(stopped)

    def _hides_archived(self) -> bool:
        return any(rule.action == "archive" for rule in self.retention)

    def _hidden(self, include_archived: bool, tags: Collection[str] | None = None) -> tuple[str, ...] | None:
        """Return the tags of what a list that asks for `tags` leaves out, or None."""
        if is_on("include_archived", include_archived) or not self._hides_archived():
            return None
        return None if isinstance(tags, Collection) and ARCHIVED in tags else (ARCHIVED,)


@own_code(InvalidSettingError, "retention")
def rules_of(given: Sequence[RetentionRule]) -> tuple[RetentionRule, ...]:
    """Return the rules that a module is given.

    Raises:
        InvalidSettingError: they are none.
    """
    if not isinstance(given, list | tuple) or not all(isinstance(rule, RetentionRule) for rule in given):
        raise InvalidSettingError("retention: takes a list of RetentionRule")
    return tuple(given)


def _check(name: str, number: int, least: int) -> None:
    if type(number) is not int or not least <= number <= _MANY:
        raise InvalidQueryError(f"{name}: takes a whole number from {least} to {_MANY:,}")


@own_code(InvalidEntryError, "expiry")
def moment_of_expiry(now: datetime, ttl: Lifetime | None, expires_at: datetime | None) -> datetime | None:
    """Return when a memory expires that shall live for `ttl` from `now` on, or until `expires_at`; None for never.

    Raises:
        InvalidEntryError: both are given, `ttl` is not above 0, or `expires_at` has passed.
    """
    if ttl is not None and expires_at is not None:
        raise InvalidEntryError("ttl", "and expires_at exclude each other; give one of them")
    if ttl is not None:
        return _end_of(now, ttl)
    if expires_at is None:
        return None
    expires_at = plain_moment(expires_at) or expires_at  # what is no moment is refused below
    if type(expires_at) is datetime and expires_at.tzinfo is None:
        try:
            expires_at = expires_at.astimezone()
        except (ValueError, OverflowError, OSError):  # of datetime.max, for one, in some time zones
            raise InvalidEntryError("expires_at", OUTSIDE) from None
    check_expiry(expires_at)
    if expires_at <= now:
        raise InvalidEntryError("expires_at", f"has passed, it is {now.isoformat()}; to forget it now, delete it")
    return expires_at


def _end_of(now: datetime, ttl: Lifetime) -> datetime:
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float, timedelta)):
        raise InvalidEntryError("ttl", f"takes a timedelta or a number of seconds, not {type(ttl).__name__}")
    try:
        lifetime = ttl if isinstance(ttl, timedelta) else timedelta(seconds=ttl)
        until = now + lifetime
    except (OverflowError, ValueError):  # ValueError: not a number
        raise InvalidEntryError("ttl", "is no length of time that ends before the year 9999") from None
    if until <= now:
        raise InvalidEntryError("ttl", "must be above 0; to forget it now, delete it")
    return until
