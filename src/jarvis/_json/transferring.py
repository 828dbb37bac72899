"""Whole memories out of a namespace and into one: see `jarvis.capabilities.Transfers`."""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import msgspec

from jarvis._json.past import Gap, decode_kept, keep
from jarvis._json.record import Draft, Record, Stored, by_number, decode_stored, encode
from jarvis.codec.instants import datetime_of
from jarvis.errors import DuplicateEntryError
from jarvis.model.portable import Ending, Lost, PastEntry, PortableEntry, Step, WholeMemory, text_at
from jarvis.model.query import EXACT
from jarvis.model.revision import REMOVALS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jarvis._json.past import State, StoredSignature
    from jarvis._json.seen import Seen
    from jarvis._json.transaction import Transaction


def namespaces(seen: Seen) -> set[str]:
    """Return the names of the namespaces that have entries, a past or gaps."""
    past = {name for name, archive in seen.archives.items() if archive.states or archive.gaps}
    return past | {name for name, room in seen.rooms.items() if room.records}


def wholes(seen: Seen, namespace: str, *, past: bool) -> Iterator[WholeMemory]:
    """Yield the memories of a namespace; see `jarvis.capabilities.Transfers.whole_memories`."""
    records, archive = seen.room(namespace).records, seen.archive(namespace)
    last: list[tuple[int, str]] = [(by_number(record), entry_id) for entry_id, record in records.items()]
    if past:
        last += [(states[-1].ended, entry_id) for entry_id, states in archive.of_id.items() if entry_id not in records]
    for _, entry_id in sorted(last, key=itemgetter(0)):
        record = records.get(entry_id)
        entry = None if record is None else PortableEntry(*fields_of(decode_stored(record.fragment)))
        states = archive.of_id.get(entry_id, ()) if past else ()
        gap = archive.gaps.get(entry_id) if past else None
        yield WholeMemory(namespace, entry_id, entry, [*map(_ended, states)], None if gap is None else _lost(gap))
    for entry_id, gap in sorted(archive.gaps.items()) if past else ():
        if entry_id not in records and entry_id not in archive.of_id:
            yield WholeMemory(namespace, entry_id, lost=_lost(gap))


def fields_of(stored: Stored) -> tuple[Any, ...]:
    """Return the fields of `PortableEntry` for a stored entry."""
    value = msgspec.Raw(encode(stored.value))
    names, about = (stored.category, stored.key), (stored.entity_type, stored.entity_id)
    until = None if stored.expires is None else text_at(stored.expires)
    life = until, stored.ttl_microseconds, stored.sliding, stored.fold, stored.zone
    return *names, value, stored.tags, *about, stored.timestamp, stored.provenance, stored.version, *life


def _ended(state: State) -> PastEntry:
    return ended_entry(decode_kept(state.fragment).entry, state.made, state.change)


def ended_entry(stored: Stored, made: int, change: StoredSignature) -> PastEntry:
    """Return the portable form of a past state, which a change ended at the instant `made`."""
    ended = Ending(change.operation, text_at(made), change.module, change.task_id, change.reason)
    return PastEntry(*fields_of(stored), ended=ended)


def _lost(gap: Gap) -> Lost:
    texts = {name: getattr(gap, name) for name in EXACT}
    expired_at = None if gap.expires is msgspec.UNSET else text_at(gap.expires)
    known = {name: text for name, text in texts.items() if isinstance(text, str)}
    return Lost(text_at(gap.instant), text_at(gap.made), expired_at, **known)


def load(
    transaction: Transaction,
    namespace: str,
    several: Sequence[tuple[WholeMemory, Sequence[tuple[Step, Draft]]]],
    since: int | None,
) -> None:
    """Store memories with their states; see `jarvis.capabilities.Transfers.load`."""
    transaction.purge(0, 0)  # and nothing else beside this: a store that is copied has what has expired as well
    for whole, states in several:
        if transaction.room(namespace).get(whole.id) is not None or transaction.archive(namespace).of_id.get(whole.id):
            raise DuplicateEntryError(f"the id is taken, or has a past, in namespace {namespace!r}")
        _load(transaction, namespace, whole, states)
        record = transaction.room(namespace).get(whole.id)
        if since is None and not whole.past and record is not None and record.version > 1:
            transaction.tell_again(namespace, record)
    if since is not None:
        transaction.take_over(since)


def _load(transaction: Transaction, namespace: str, whole: WholeMemory, states: Sequence[tuple[Step, Draft]]) -> None:
    begun = None
    if not transaction.keeps_history:
        states = [state for state in states if state[0].made is None]
    elif whole.lost is not None:
        begun = _load_gap(transaction, namespace, whole.id, whole.lost)
    for step, draft in states:
        begun = transaction.next_commit() if begun is None else begun
        record: Record = draft.record(namespace, step.entry.version, begun, renewed=step.renews)
        if step.made is None or step.signature is None:
            transaction.put(namespace, record)
            return
        ended = transaction.next_commit()
        _let_pass(transaction, step.made)
        transaction.add_state(namespace, keep(record, namespace, ended, step.made, step.signature))
        begun = None if step.signature.operation in REMOVALS else ended


def _load_gap(transaction: Transaction, namespace: str, entry_id: str, lost: Lost) -> int:
    """Store that states are missing; return the number of the change that ended them."""
    first, ended = transaction.next_commit(), transaction.next_commit()
    since, until, expires = lost.instants
    known = {name: getattr(lost, name) for name in EXACT}
    gap = Gap(entry_id, first, since, ended, until, msgspec.UNSET if expires is None else expires, **known)
    _let_pass(transaction, until)
    transaction.set_gap(namespace, entry_id, gap)
    return ended


def _let_pass(transaction: Transaction, instant: int) -> None:
    """Let no later change be dated before an instant at which a change was made in another store."""
    if instant > (transaction.clock.made or 0):
        transaction.moment(datetime_of(instant))
