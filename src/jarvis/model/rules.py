"""The rules of every backend, each written once."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from jarvis.codec.instants import EPOCH, LAST_INSTANT, MICROSECOND, datetime_of
from jarvis.errors import HistoryUnavailableError
from jarvis.model.dating import SKEW_MICROSECONDS, date_of
from jarvis.model.entry import MemoryEntry
from jarvis.model.marks import ABSENT
from jarvis.model.query import MemoryQuery
from jarvis.model.revision import REMOVALS, Operation, Signature

Usual = TypeVar("Usual", bound=str)

PRUNED_EVERY = 64
"""A writer prunes states that are too old once in so many changes."""

PRUNED_AT_ONCE = 256
"""The most past states that are pruned beside one change."""

WAS_ERASED = "something was erased"
HAS_EXPIRED = "what was there then has expired"
WAS_PURGED = f"{HAS_EXPIRED} and was purged"

_EXPIRED_AT = "expired at "
_ALONE = ("erase", "expire", "renew")


# --- the clock -----------------------------------------------------------------------------------


def next_moment(now: datetime, last: int | None) -> tuple[datetime, int, int]:
    """Return the moment of a change made at `now`, after the instant of the `last` one; its instant; and its date.

    See `jarvis.model.dating.date_of` for the date, which is an instant, too.
    """
    instant = date = (now - EPOCH) // MICROSECOND
    if last is not None and instant <= last:
        instant = min(last + 1, LAST_INSTANT)  # commit numbers tell the order there
        now, date = EPOCH + timedelta(0, 0, instant), date_of(instant, date)
    return (now if now.tzinfo is UTC else now.astimezone(UTC)), instant, date


def own_instant(last: int | None) -> int:
    """Return the instant of a change without a given moment: the system's, or one after the `last` one."""
    now = time.time_ns() // 1000
    return now if last is None else max(now, min(last + 1, LAST_INSTANT))


def written(entry: MemoryEntry) -> tuple[int, tuple[int, int, str]]:
    """Return a key that grows with each write: the commit number, or the order if a backend has none."""
    return (entry.position[1] if entry.position else 0), entry.order


# --- who and why ---------------------------------------------------------------------------------


def signed(
    signature: Signature | None, operation: Usual
) -> tuple[Usual | Operation, str | None, str | None, str | None]:
    """Return how and by whom a change is made: as `signature` says, or else `operation` by nobody that is known.

    An erasure and a purge need a signature of their own, which signs no other change. Nobody signs a renewal.
    """
    if signature is None:
        return operation, None, None, None
    said = signature.operation
    if said != operation and (said in _ALONE or operation in _ALONE):
        return operation, None, None, None
    return signature


def signed_expiry(signature: Signature | None, expires: int) -> tuple[str, str | None, str | None, str]:
    """Return how, by whom and why an entry is purged: because it expired, unless another reason is given."""
    operation, module, task_id, reason = signed(signature, "expire")
    return operation, module, task_id, reason or f"{_EXPIRED_AT}{datetime_of(expires).isoformat()}"


def is_reason_of_expiry(reason: str) -> bool:
    """Tell whether `signed_expiry` gave this reason, and nobody else."""
    return reason.startswith(_EXPIRED_AT)


def version_after(operation: str, version: int) -> int:
    """Return the version after a change of an entry that had `version`: a removal leaves it as it is."""
    return version if operation in REMOVALS else version + 1


# --- what may be asked ---------------------------------------------------------------------------


def exact_filters(query: MemoryQuery) -> dict[str, Any]:
    """Return those filters of a query that compare one field whole with a text."""
    return {name: text for name, text in query.exact().items() if text is not None}


def asks_for_more(query: MemoryQuery) -> bool:
    """Tell whether a query has filters that only a state can answer."""
    others = (query.tags, query.since, query.until, query.where, query.keys, query.key_prefix, query.category_prefix)
    return query.entity_id is ABSENT or any(given is not None for given in others)


def settle(instant: int, now: int, await_commit: Callable[[], None]) -> None:
    """Wait for changes that are dated up to `instant` and not visible yet: later answers are then the same."""
    if instant == now:
        time.sleep(0.00001)  # a commit that begins now is dated later
    await_commit()


def is_present(instant: int, made: int | None, begins: int | None) -> bool:
    """Tell whether a question as of `instant` is about the present.

    Args:
        instant: of the question.
        made: the instant of the last change of the store; None if there was none.
        begins: the instant from which on the past is known; None if it is not.

    Raises:
        HistoryUnavailableError: it is before the past begins.
    """
    if made is None or instant >= made:
        return True
    if begins is None or instant < begins:
        raise unavailable(instant, begins)
    return False


def may_be_dated_back(instant: int, now: int, made: int) -> bool:
    """Tell whether dates and order may disagree up to `instant`: the store's last change is dated ahead of the clock.

    They do if a change dated by then was made after changes that are ahead: see `jarvis.model.dating.DATED_BACK`.
    """
    return instant <= now < made - SKEW_MICROSECONDS


def unavailable(instant: int, earliest: int | None, because: str | None = None) -> HistoryUnavailableError:
    """Return the error that the past is not known at `instant`, but from `earliest` on, and perhaps why."""
    return HistoryUnavailableError(datetime_of(instant), None if earliest is None else datetime_of(earliest), because)
