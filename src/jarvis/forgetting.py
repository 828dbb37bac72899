"""`Forgets`: the verbs of `MemoryModule` that keep a memory from growing for ever."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from jarvis import retention
from jarvis.authorship import Author
from jarvis.config import ARCHIVED, RetentionRule, checked
from jarvis.errors import InvalidQueryError, InvalidSettingError
from jarvis.retention import RetentionPlan, SweepReport
from jarvis.storage_backend import StorageBackend
from jarvis.sweeping import Sweeper

Result = TypeVar("Result")

_BATCH = 500  # some 30 ms, for which other writers wait
_MANY = 10_000


class Forgets:
    """Clean up by rules: say what would go, let it go, now or again and again."""

    backend: StorageBackend
    retention: tuple[RetentionRule, ...]
    _sweepers: list[Sweeper]

    if TYPE_CHECKING:  # what MemoryModule has

        def _author(
            self, module: str | None, task_id: str | None, reason: str | None = None, usual: str | None = None
        ) -> Author: ...
        def _change(self, work: Callable[[datetime], Result]) -> Result: ...
        def _now(self) -> datetime: ...

    # --- by rules ---------------------------------------------------------------------------------

    def plan_retention(self, *, examples: int = 3) -> RetentionPlan:
        """Return what `sweep` would do now, rule by rule, with `examples` of each, the newest; change nothing.

        The rules are judged in their order: what one acts upon is of no concern to those that follow. On
        a store that stands still a sweep does just what is said here.

        Raises:
            InvalidQueryError: `examples` is no number from 0 up.

        >>> from datetime import timedelta
        >>> from jarvis.persistent_memory import MemoryModule, RetentionRule
        >>> newest = RetentionRule(category="tasks", max_entries=1, keep_tags=("important",))
        >>> memory = MemoryModule(storage_dir=getfixture("tmp_path"), retention=[newest])
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
        """Delete and archive what the rules of this module say; return how much that was.

        At most `batch` memories go in one transaction, each judged in there as it is then, so others write
        in between. A sweep that is killed or fails keeps what was done; another one goes on. Each is a
        change like any other: in the history, in the feed, and with a reason that names the rule if none is
        given. Being archived leaves a memory its timestamp. Without rules nothing happens.

        Raises:
            InvalidQueryError: `batch` is no number from 1 to 10,000.
        """
        _check("batch", batch, 1)
        return self._sweep(batch, self._author(module, task_id, reason, "retention"), lambda: False)

    def sweep_every(self, interval: timedelta | float) -> Sweeper:
        """Start a daemon thread that sweeps now and then after each `interval` (a timedelta, or seconds).

        It goes on until `Sweeper.stop` or `shutdown`, whichever comes first.

        Raises:
            InvalidSettingError: `interval` is not above 0, or longer than 30 days.
        """
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

    def _sweep(self, batch: int, author: Author, is_over: Callable[[], bool]) -> SweepReport:
        report = retention.sweep(
            self.backend, self.retention, self._now(), batch=batch, change=self._change, author=author, is_over=is_over
        )
        if report.deleted or report.archived:
            import logging  # 8 ms to import, which most sessions never need

            logging.getLogger("jarvis.retention").info("deleted %d, archived %d", report.deleted, report.archived)
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
        if include_archived or not self._hides_archived():
            return None
        return None if isinstance(tags, Collection) and ARCHIVED in tags else (ARCHIVED,)


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
