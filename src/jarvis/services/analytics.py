"""Analytics of a store: counted by its backend, or from its memories, and summed up to a report without values."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, timedelta

import msgspec

from jarvis.capabilities import Analyses, FeedsChanges, KeepsHistory, TellsSize, Transfers
from jarvis.codec.instants import datetime_of, instant_of
from jarvis.errors import CursorExpiredError
from jarvis.model import analytics
from jarvis.model.entry import MemoryEntry
from jarvis.model.query import MemoryQuery
from jarvis.model.record import encode_body
from jarvis.model.rewriting import Progress
from jarvis.model.tally import A_DAY, BOUNDS, DAYS, IDS, Tally, measured
from jarvis.services import duplicates, transferring
from jarvis.storage_backend import StorageBackend

_WIDTHS = (1, 7, 28, 91, 364, 3_640, 36_400, 364_000)
"""How many days a period of growth may have: whole weeks but for the first."""

_MOST_PERIODS, MOST_TOP = 60, 1_000
_AT_ONCE = 1_000
_SIMILARITY = 0.8
"""How alike memories are at least that say nearly the same, as in `MemoryModule.find_duplicates`."""

_EPOCH = date(1970, 1, 1)
_AGES = ("under 1 hour", "under 1 day", "under 1 week", "under 30 days", "under 1 year", "older")
_TIMES = ("within 1 hour", "within 1 day", "within 1 week", "within 30 days", "within 1 year", "later")


def analyse(
    backend: StorageBackend,
    parts: Sequence[StorageBackend],
    now: datetime,
    *,
    top: int,
    near: bool,
    progress: Progress | None = None,
) -> analytics.Analytics:
    """Return a report of a store, or of the parts of it that are given; see `jarvis.services.store.Store.analytics`."""
    instant = instant_of(now)
    tallies = list(_tallies(parts, instant, top, _told(parts, progress)))
    created = sorted(instant for tally in tallies for instant in tally.created)
    return analytics.Analytics(
        made_at=datetime_of(instant),
        memories=sum(tally.memories for tally in tallies),
        bytes=sum(tally.bytes for tally in tallies),
        categories=_breakdown([tally.by(0) for tally in tallies], top),
        entity_types=_breakdown([tally.by(1) for tally in tallies], top),
        tags=_breakdown([tally.tags for tally in tallies], top),
        modules=_breakdown([tally.by(2) for tally in tallies], top),
        namespaces=_breakdown([{t.namespace: [t.memories, t.bytes]} for t in tallies if t.memories], top),
        growth=_growth(created),
        ages=_ages(created, instant),
        expiry=_expiry(tallies),
        churn=_churn(tallies, instant, top),
        overhead=_overhead(backend, tallies),
        largest=_largest(tallies, top),
        duplicates=_repeats(tallies, top),
        near=_near(parts, top) if near else None,
    )


# --- counting ---------------------------------------------------------------------------------------


def _told(parts: Sequence[StorageBackend], progress: Progress | None) -> Callable[[int], None]:
    """Return a function that is told how many states were counted, and tells it on with their whole number."""
    done, total = 0, 0 if progress is None else transferring.count(parts)

    def looked_at(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, max(done, total))  # past states were not counted before

    return looked_at


def _tallies(
    parts: Sequence[StorageBackend], now: int, most: int, looked_at: Callable[[int], object]
) -> Iterator[Tally]:
    if parts and parts[0].has_capability(Analyses):
        names = [part.namespace for part in parts]
        yield from parts[0].capability(Analyses).tallies(names, now, most, looked_at)
        return
    for part in parts:
        yield count_each(part, now, most, looked_at)


def count_each(
    backend: StorageBackend, now: int, most: int, looked_at: Callable[[int], object] = lambda _: None
) -> Tally:
    """Return what is counted of the namespace of a handle: the meaning of `Analyses.tallies`, on any backend.

    Args:
        now: the instant from which expiry is counted.
        most: how many memories and groups are told.
        looked_at: is called for each memory.
    """
    tally, ids = Tally(backend.namespace, now, most), list[str]()
    tally.keep(past=backend.has_capability(KeepsHistory) and backend.has_capability(Transfers), feed=False)
    for entry in _states(backend, tally):
        state = measured(encode_body(entry)[0].decode(), None)
        names = entry.id, entry.category, entry.key
        expires = None if entry.expires_at is None else instant_of(entry.expires_at)
        tally.add(len(ids), names, entry.entity_type, entry.version, entry.creation, expires, state)
        ids.append(entry.id)
        looked_at(1)
    if backend.has_capability(FeedsChanges):
        _follow(backend.capability(FeedsChanges), tally)
    tally.finish(lambda members: [ids[each] for each in members])
    return tally


def _states(backend: StorageBackend, tally: Tally) -> Iterator[MemoryEntry]:
    """Yield the present states, those that have expired among them, and count the past ones."""
    if not backend.has_capability(Transfers):
        yield from backend.iterate(MemoryQuery())
        return
    for whole in backend.capability(Transfers).whole_memories(past=True):
        for past in whole.past:
            tally.add_past(len(encode_body(past.named(whole.id))[0]))
        if whole.entry is not None:
            yield whole.entry.named(whole.id)


def _follow(feed: FeedsChanges, tally: Tally) -> None:
    try:
        after = feed.first_position()
    except CursorExpiredError:
        return
    tally.keep(past=False, feed=True)
    while changes := feed.changes(after, _AT_ONCE):
        for change in changes:
            tally.add_change(change.operation, instant_of(change.timestamp), change.count)
        after = int(changes[-1].cursor.partition(".")[0])


# --- summing up -------------------------------------------------------------------------------------


def _breakdown(several: Sequence[dict[str, list[int]]], top: int) -> analytics.Breakdown:
    counts: dict[str, list[int]] = {}
    for each in several:
        for name, (memories, size) in each.items():
            both = counts.setdefault(name, [0, 0])
            both[0] += memories
            both[1] += size
    ordered = sorted(counts.items(), key=lambda each: (-each[1][0], each[0]))
    rest = [each[1] for each in ordered[top:]]
    return analytics.Breakdown(
        [analytics.Share(name, memories, size) for name, (memories, size) in ordered[:top]],
        len(rest),
        sum(memories for memories, _ in rest),
        sum(size for _, size in rest),
    )


def _growth(created: Sequence[int]) -> analytics.Growth:
    """Return how many memories were created when, given the instants of creation, the earliest first."""
    if not created:
        return analytics.Growth(1, [])
    first, last = created[0] // A_DAY, created[-1] // A_DAY
    monday = first - (first + 3) % 7  # 1970 began with a Thursday
    for days in _WIDTHS:
        start = first if days == 1 else monday
        if (last - start) // days < _MOST_PERIODS:
            break
    periods, before = [], 0
    for day in range(start, last + 1, days):
        until = bisect_left(created, (day + days) * A_DAY)
        periods.append(analytics.Period(_EPOCH + timedelta(days=day), until - before, until))
        before = until
    return analytics.Growth(days, periods)


def _ages(created: Sequence[int], now: int) -> analytics.Ages:
    """Return how old memories are, given the instants of creation, the earliest first."""
    if not created:
        return analytics.Ages(None, None, None, _bars(_AGES, [0] * len(_AGES)))
    counts, younger = [], 0
    for bound in BOUNDS:
        below = len(created) - bisect_left(created, now - bound * 1_000_000 + 1)
        counts.append(below - younger)
        younger = below
    counts.append(len(created) - younger)
    median = (now - created[len(created) // 2]) / 1_000_000
    return analytics.Ages(datetime_of(created[0]), datetime_of(created[-1]), median, _bars(_AGES, counts))


def _bars(names: Sequence[str], counts: Sequence[int]) -> list[analytics.Bar]:
    return [analytics.Bar(*each) for each in zip(names, (*BOUNDS, None), counts, strict=True)]


def _expiry(tallies: Sequence[Tally]) -> analytics.Expiry:
    counts = [sum(tally.expiring[index] for tally in tallies) for index in range(len(_TIMES))]
    return analytics.Expiry(
        sum(tally.expired for tally in tallies), _bars(_TIMES, counts), sum(tally.never for tally in tallies)
    )


def _churn(tallies: Sequence[Tally], now: int, top: int) -> analytics.Churn:
    changed = sorted(
        (-version, tally.namespace, memory) for tally in tallies for version, memory in tally.most_changed.found()
    )
    most = [analytics.Changed(namespace, *memory, -negative) for negative, namespace, memory in changed[:top]]
    if any(tally.changes is None for tally in tallies):
        return analytics.Churn(None, None, None, [], most)
    changes: Counter[tuple[str, int | None]] = Counter()
    for tally in tallies:
        changes.update(tally.changes or {})
    kinds = ("created", "updated", "removed")
    created, updated, removed = (sum(count for (each, _), count in changes.items() if each == kind) for kind in kinds)
    today = now // A_DAY
    days = [
        analytics.Day(_EPOCH + timedelta(days=day), *(changes[kind, day] for kind in kinds))
        for day in range(today - DAYS + 1, today + 1)
    ]
    return analytics.Churn(created, updated, removed, days, most)


def _overhead(backend: StorageBackend, tallies: Sequence[Tally]) -> analytics.Overhead:
    sizes = analytics.Sizes()
    if backend.has_capability(TellsSize):
        sizes = backend.capability(TellsSize).sizes()
    states = [tally.past_states for tally in tallies if tally.past_states is not None]
    size = [tally.past_bytes for tally in tallies if tally.past_bytes is not None]
    is_kept = len(states) == len(tallies)
    return analytics.Overhead(
        past_states=sum(states) if is_kept else None,
        past_bytes=sum(size) if is_kept else None,
        **msgspec.structs.asdict(sizes),
    )


def _largest(tallies: Sequence[Tally], top: int) -> list[analytics.Large]:
    found = sorted((-size, tally.namespace, memory) for tally in tallies for size, memory in tally.largest.found())
    return [analytics.Large(namespace, *memory, -negative) for negative, namespace, memory in found[:top]]


def _repeats(tallies: Sequence[Tally], top: int) -> analytics.Repeats:
    groups = [group for tally in tallies for group in tally.groups]
    groups.sort(key=lambda each: (-each[1].memories, -each[1].bytes, each[1].namespace, each[0]))
    found, memories, spare = (sum(tally.repeats[index] for tally in tallies) for index in range(3))
    return analytics.Repeats(found, memories, spare, [group for _, group in groups[:top]])


def _near(parts: Sequence[StorageBackend], top: int) -> analytics.Near:
    found = [
        analytics.Alike(
            part.namespace, len(group.entries), group.similarity, sorted(entry.id for entry in group.entries)[:IDS]
        )
        for part in parts
        for group in duplicates.groups(part.iterate(MemoryQuery()), _SIMILARITY)
    ]
    found.sort(key=lambda each: (-each.memories, -each.similarity, each.namespace, each.ids))
    return analytics.Near(len(found), sum(each.memories for each in found), found[:top])
