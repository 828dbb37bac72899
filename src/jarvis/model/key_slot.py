"""`SlotInfo`: a slot of an encrypted store, as callers see it."""

from __future__ import annotations

from typing import NamedTuple


class SlotInfo(NamedTuple):
    """A way to the key of a store, as `Store.key_slots` shows it.

    Attributes:
        id: what `Store.remove_key_slot` takes.
        source: ``"environment"``, ``"file"``, ``"keyring"``, ``"passphrase"`` or ``"function"``.
        hint: what finds the source again, such as the name of the variable; None for a passphrase.
    """

    id: int
    source: str
    hint: str | None
