"""Lets the ttl of an entry begin again, if nobody holds the writers' lock; see `jarvis.capabilities.Slides`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jarvis.errors import ReadOnlyStoreError, StoreBusyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jarvis._json.store import Store


def try_to(store: Store, namespace: str, entry_id: str, expires: int, now: Callable[[], int]) -> bool:
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
