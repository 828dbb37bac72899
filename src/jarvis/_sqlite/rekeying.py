"""The ways to an encrypted store's key, changed: only the file of keys is written, whatever the store's size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jarvis.errors import NotEncryptedError, StoreBusyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jarvis._sqlite.database import Database
    from jarvis.envelope import Envelope, SlotInfo
    from jarvis.keys import KeySource

_MANY_TRIES = 20


def slots(database: Database) -> list[SlotInfo]:
    """Return the ways to the store's key, none if it is plain; it need not be opened for that."""
    from jarvis.envelope import SlotInfo

    found = database.vault.envelope()
    return [] if found is None else [SlotInfo(slot.id, slot.source, slot.hint) for slot in found.slots]


def add_slot(database: Database, source: KeySource) -> int:
    """Let `source` open the store, from now on; return the number of its slot.

    Raises:
        KeyUnavailableError: the source has no secret to give.
        NotEncryptedError: the store is plain.
    """
    from jarvis import envelope

    opener = database.vault.opener
    changed = _change(database, lambda found: envelope.with_slot(opener, found, source))
    return changed.slots[-1].id


def remove_slot(database: Database, slot_id: int) -> None:
    """Let a slot open the store no longer.

    Raises:
        InvalidSettingError: there is no such slot, or it is the last one.
        NotEncryptedError: the store is plain.
    """
    from jarvis import envelope

    path = database.vault.path
    _change(database, lambda found: envelope.without_slot(path, found, slot_id))
    database.vault.opener.forget()


def _change(database: Database, change: Callable[[Envelope], Envelope]) -> Envelope:
    """Replace the envelope by what `change` makes of it, outside of the lock: a passphrase takes its time."""
    from jarvis import envelope

    database.check_may_rewrite()
    vault = database.vault
    database.read(lambda _: None)  # the key that it is opened with is at hand, or that is an error
    for _ in range(_MANY_TRIES):
        found = vault.envelope()
        if found is None:
            raise NotEncryptedError(vault.store, "is plain, so it has no keys; call encrypt_store()")
        changed = change(found)
        with database.locked():
            if vault.envelope() == found:
                envelope.write(vault.path, changed)
                vault.suggest_recovery(changed)
                return changed
    raise StoreBusyError(vault.path, "others keep changing it; retry")
