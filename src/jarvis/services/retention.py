"""Retention: entries that the rules have no room for are deleted or archived, some at a time.

The *boundary* of a rule is a place in the list of the entries that it governs: entries after it are too old, or too
many. All boundaries are computed before anything is changed. The first rule whose boundary an entry is after decides
about it, in `plan` as in `sweep`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from jarvis._calls.arguments import own_code
from jarvis.capabilities import Expires
from jarvis.codec import instant_of
from jarvis.codec.instants import MICROSECOND
from jarvis.errors import EntryNotFoundError, InvalidSettingError
from jarvis.model.author import Author
from jarvis.model.entry import MemoryEntry
from jarvis.model.policies import ARCHIVED, RetentionRule
from jarvis.model.query import MemoryQuery
from jarvis.services import expiry
from jarvis.services.changing import Changes, sign
from jarvis.storage_backend import StorageBackend

_END = (-(2**62), 0, "")  # of any list: long before the year 1
_PAGE = 1_000  # entries that are read at a time
_UNITS = (("day", timedelta(days=1)), ("hour", timedelta(hours=1)), ("minute", timedelta(minutes=1)))


class RetentionStep(msgspec.Struct, frozen=True, kw_only=True):
    """The effect of one rule.

    Attributes:
        rule: the rule.
        count: the number of memories that it deletes or archives.
        examples: the newest of them, if a plan was asked for examples.
    """

    rule: RetentionRule
    count: int
    examples: list[MemoryEntry] = []


class RetentionPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The steps of a sweep at `moment`, one for each rule, in their order; nothing was done."""

    moment: datetime
    steps: list[RetentionStep]

    @property
    def count(self) -> int:
        """The number of memories that it would delete or archive."""
        return sum(step.count for step in self.steps)


class SweepReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a sweep at `moment`: a step for each rule, in their order, the sums, and the purged memories."""

    moment: datetime
    steps: list[RetentionStep]
    deleted: int
    archived: int
    purged: int = 0


class _Reach(NamedTuple):
    """The entries that a rule acts upon: those that `query` finds after its boundary, but none of `earlier` rules."""

    rule: RetentionRule
    query: MemoryQuery
    earlier: tuple[Callable[[MemoryEntry], bool], ...]

    def has(self, entry: MemoryEntry) -> bool:
        """Tell whether an entry that `query` found belongs to this rule."""
        return not any(reaches(entry) for reaches in self.earlier)


@own_code(InvalidSettingError, "retention")
def rules_of(given: Sequence[RetentionRule]) -> tuple[RetentionRule, ...]:
    """Return the rules that a module is given; raise `InvalidSettingError` if they are no rules."""
    if not isinstance(given, list | tuple) or not all(isinstance(rule, RetentionRule) for rule in given):
        raise InvalidSettingError("retention: takes a list of RetentionRule")
    return tuple(given)


def plan(backend: StorageBackend, rules: Sequence[RetentionRule], now: datetime, examples: int) -> RetentionPlan:
    """Return the plan of a sweep now, with at most `examples` of each step; change nothing."""
    return RetentionPlan(moment=now, steps=[_step(backend, reach, examples) for reach in _reaches(backend, rules, now)])


def sweep(
    backend: StorageBackend,
    rules: Sequence[RetentionRule],
    now: datetime,
    *,
    batch: int,
    change: Changes,
    author: Author,
    is_over: Callable[[], bool],
) -> SweepReport:
    """Apply the rules, then purge expired entries.

    An author without a reason gets that of the rule.

    Args:
        backend: whose entries they are.
        now: the moment to judge by.
        batch: entries in one change, at most.
        change: makes a change.
        is_over: tells, between two changes, whether to end early.
    """
    reaches = _reaches(backend, rules, now)
    counts = [0] * len(rules)
    # Deletions go first: else entries that this sweep archives would count as archived before it.
    for index in sorted(range(len(rules)), key=lambda index: rules[index].action == "archive"):
        reach = reaches[index]
        signed = author if author.reason is not None else author._replace(reason=_reason(reach.rule))
        work = functools.partial(_clean_up, backend, reach, signed)
        counts[index] = _batches(backend, reach, batch, change, work, is_over)
    steps = [RetentionStep(rule=rule, count=count) for rule, count in zip(rules, counts, strict=True)]
    deleted, archived = (
        sum(step.count for step in steps if step.rule.action == each) for each in ("delete", "archive")
    )
    purged, last = 0, batch if backend.has_capability(Expires) else 0
    while last == batch and not is_over():
        last = expiry.purge(backend, batch, author, change)
        purged += last
    if deleted or archived or purged:
        import logging  # 8 ms to import, which most sessions never need

        logging.getLogger("jarvis.retention").info("deleted %d, archived %d, purged %d", deleted, archived, purged)
    return SweepReport(moment=now, steps=steps, deleted=deleted, archived=archived, purged=purged)


# --- the boundaries -------------------------------------------------------------------------------


def _reaches(backend: StorageBackend, rules: Sequence[RetentionRule], now: datetime) -> list[_Reach]:
    reaches: list[_Reach] = []
    for rule in rules:
        earlier = tuple(reach.query.predicate() for reach in reaches if _may_meet(reach.rule, rule))
        whole = _Reach(rule, _governed(rule), earlier)
        reaches.append(whole._replace(query=replace(whole.query, after=_boundary(backend, whole, now))))
    return reaches


def _governed(rule: RetentionRule) -> MemoryQuery:
    archived = (ARCHIVED,) if rule.action == "archive" else ()
    tags = None if rule.tag is None else (rule.tag,)
    return MemoryQuery(
        category=rule.category, entity_type=rule.entity_type, tags=tags, exclude_tags=(*rule.keep_tags, *archived)
    )


def _may_meet(one: RetentionRule, other: RetentionRule) -> bool:
    types = {one.entity_type, other.entity_type}
    return one.category == other.category and (len(types) == 1 or None in types)


def _boundary(backend: StorageBackend, whole: _Reach, now: datetime) -> str:
    """Return the cursor of the boundary: the rule acts upon the entries after it."""
    rule, orders = whole.rule, [_END]
    if rule.max_age is not None:
        orders.append((instant_of(now) - rule.max_age // MICROSECOND, 0, ""))
    if rule.max_entries is not None:
        kept = filter(whole.has, _each(backend, whole.query))
        orders += [entry.order for entry in itertools.islice(kept, rule.max_entries - 1, rule.max_entries)]
    instant, commit, entry_id = max(orders)
    return f"{instant}:{commit}:{entry_id}"


def _each(backend: StorageBackend, query: MemoryQuery) -> Iterator[MemoryEntry]:
    """Yield the entries of a query, read a page at a time: more than a page is never in memory."""
    while page := backend.select(replace(query, limit=_PAGE)):
        yield from page
        if len(page) < _PAGE:
            return
        query = replace(query, after=page[-1].cursor)


def _step(backend: StorageBackend, reach: _Reach, examples: int) -> RetentionStep:
    if not reach.earlier:  # else each entry is looked at
        shown = backend.select(replace(reach.query, limit=examples))
        return RetentionStep(rule=reach.rule, count=backend.count(reach.query), examples=shown)
    count, shown = 0, []
    for entry in filter(reach.has, _each(backend, reach.query)):
        count += 1
        if count <= examples:
            shown.append(entry)
    return RetentionStep(rule=reach.rule, count=count, examples=shown)


# --- cleaning up ----------------------------------------------------------------------------------


def _batches(
    backend: StorageBackend,
    reach: _Reach,
    batch: int,
    change: Changes,
    work: Callable[[MemoryQuery, datetime], tuple[int, str | None]],
    is_over: Callable[[], bool],
) -> int:
    """Clean up page by page, each in a change of its own; return the number of entries."""
    done, after = 0, reach.query.after
    if not backend.select(replace(reach.query, limit=1)):
        return 0  # and not even a transaction
    while after is not None and not is_over():
        page = replace(reach.query, after=after, limit=batch)
        count, after = change(functools.partial(work, page))
        done += count
    return done


def _clean_up(
    backend: StorageBackend, reach: _Reach, author: Author, page: MemoryQuery, moment: datetime
) -> tuple[int, str | None]:
    """Delete or archive a page, inside a transaction.

    Returns:
        the number of entries, and the cursor of the next page, or None if this was the last one.
    """
    entries = backend.select(page)
    after = entries[-1].cursor if len(entries) == page.limit else None
    doomed = [entry for entry in entries if reach.has(entry)]
    is_removal = reach.rule.action == "delete"
    if doomed:
        sign(backend, author, "delete" if is_removal else "update")
    if is_removal:
        return sum(backend.discard(entry.id) for entry in doomed), after
    return sum(_archive(backend, entry, author, moment) for entry in doomed), after


def _archive(backend: StorageBackend, entry: MemoryEntry, author: Author, moment: datetime) -> bool:
    timestamp = entry.timestamp
    author.updates(entry, moment)
    entry.timestamp = timestamp  # or archived entries would come before those that are in use
    entry.tags.append(ARCHIVED)
    try:
        backend.update(entry)
    except EntryNotFoundError:  # it has expired since it was found
        return False
    return True


# --- in words -------------------------------------------------------------------------------------


def _reason(rule: RetentionRule) -> str:
    what = rule.category
    if rule.entity_type is not None:
        what += f" of type {rule.entity_type}"
    if rule.tag is not None:
        what += f" tagged {rule.tag}"
    bounds = [] if rule.max_age is None else [f"older than {_period(rule.max_age)}"]
    if rule.max_entries is not None:
        bounds.append(f"beyond the newest {rule.max_entries}")
    return f"retention: {what} {' or '.join(bounds)}"


def _period(length: timedelta) -> str:
    whole = [(length // unit, name) for name, unit in _UNITS if length and not length % unit]
    count, name = whole[0] if whole else (length.total_seconds(), "second")
    return f"{count:.12g} {name}{'' if count == 1 else 's'}"
