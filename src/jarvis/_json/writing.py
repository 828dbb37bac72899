"""Stores one entry in a JSON store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jarvis._json.record import Draft
from jarvis.errors import DuplicateEntryError, EntryNotFoundError, ReadOnlyStoreError, StoreBusyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jarvis._json.store import Store
    from jarvis._json.transaction import Transaction
    from jarvis.model.entry import MemoryEntry


def create(store: Store, namespace: str, now: Callable[[], int], entry: MemoryEntry) -> None:
    """Store an entry that is absent as version 1; raise `DuplicateEntryError` if it is not."""
    draft = Draft(entry)
    with store.changing(now) as transaction:
        _make_room(transaction, namespace, now, entry.id)
        transaction.put(namespace, draft.record(namespace, 1, transaction.next_commit()))


def recreate(store: Store, namespace: str, now: Callable[[], int], entry: MemoryEntry) -> None:
    """Store an entry that is absent with the version after the last known one; raise as `create` does."""
    draft = Draft(entry)
    with store.changing(now) as transaction:
        _make_room(transaction, namespace, now, entry.id)
        states = transaction.archive(namespace).of_id.get(entry.id)
        version = states[-1].version + 1 if states else 1
        record = draft.record(namespace, version, transaction.next_commit())
        transaction.put(namespace, record)
        if version > 1:  # else the record tells
            transaction.tell_again(namespace, record)


def update(
    store: Store, namespace: str, now: Callable[[], int], entry: MemoryEntry, *, is_change: bool, renews: bool = True
) -> bool:
    """Replace an entry; see `StorageBackend.update_if_changed`, and with `is_change` `StorageBackend.update`."""
    draft = Draft(entry)
    with store.changing(now) as transaction:
        before = transaction.room(namespace).get(entry.id)
        if before is None or before.has_expired(now()):
            raise EntryNotFoundError(f"no entry with this id is in namespace {namespace!r}")
        is_same = not is_change and draft.is_in(before)
        if is_same and not renews:
            transaction.found = True
            return False
        version, commit = before.version + (not is_same), transaction.next_commit()
        transaction.put(namespace, draft.record(namespace, version, commit, renewed=is_same))
        return True


def _make_room(transaction: Transaction, namespace: str, now: Callable[[], int], entry_id: str) -> None:
    """Purge the entry with this id if it has expired; raise `DuplicateEntryError` if it has not."""
    transaction.purge_entry(namespace, entry_id, now())
    if transaction.room(namespace).get(entry_id) is not None:
        raise DuplicateEntryError(f"an entry with this id is already in namespace {namespace!r}")


def slide(store: Store, namespace: str, entry_id: str, expires: int, now: Callable[[], int]) -> bool:
    """Let an entry expire at a later instant; return whether it does. Raise ValueError if it is malformed."""
    instant = now()
    try:
        with store.changing(now, 0) as transaction:
            record = transaction.room(namespace).get(entry_id)
            if record is None or record.expires is None or not instant < record.expires < expires:
                return False
            transaction.slide(namespace, record, expires)
            return True
    except (ReadOnlyStoreError, StoreBusyError):
        return False
