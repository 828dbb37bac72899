"""`Keys`: the keys with which a process opens a sealed store, which lie in that store, each of them wrapped."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from jarvis.encryption.envelope import Envelope, Opener, make, suggest_recovery, usual_sources, with_slot, without_slot
from jarvis.encryption.key_file import content_of, envelope_in
from jarvis.errors import NotEncryptedError, StoreBusyError, WrongKeyError
from jarvis.model.key_place import SlotInfo
from jarvis.sealing.seal import Seal
from jarvis.sealing.sealer import Sealer, opened_namespace

if TYPE_CHECKING:
    from jarvis.model.key_place import KeyPlace
    from jarvis.model.options import Encryption, KeySource
    from jarvis.model.policies import Histories

_MANY_TRIES = 20
PLAIN = ""
"""Stands for the keys of a plain store."""


class Keys:
    """Opens one store, and makes its keys. It keeps no connection.

    Args:
        path: names the place of the keys in messages.
        encryption: ``"off"``, ``"on"`` (a new store is sealed) or ``"required"`` (a plain one is also refused).
        sources: the key sources; if there are none, those that the store names.
    """

    def __init__(self, path: str, encryption: Encryption, sources: Sequence[KeySource]) -> None:
        self.path, self.encryption, self.sources = path, encryption, tuple(sources)
        self.opener = Opener(path, self.sources)
        self._opened: tuple[Seal | None, str] | None = None  # with what tells these keys from others
        self._has_warned = False

    def __reduce__(self) -> tuple[object, ...]:
        return Keys, (self.path, self.encryption, self.sources)

    def again(self, *more: KeySource) -> Keys:
        """Return the keys of the same store, not opened yet, with these sources besides."""
        keys = Keys(self.path, self.encryption, (*self.sources, *more))
        keys.opener, keys._has_warned = self.opener.besides(()), self._has_warned
        keys.opener.sources = keys.sources
        return keys

    def opened(self, place: KeyPlace) -> Seal | None:
        """Return the seal of the store, None if that is plain; the first call creates the store if it is absent.

        Raises:
            NotEncryptedError: it is plain, but must not be.
            WrongKeyError, KeyUnavailableError: no source opens it.
            CorruptStoreError: its keys are damaged.
        """
        if self._opened is None:
            envelope = self.envelope(place)
            if envelope is None:
                self._accept_plain()
                self._opened = None, PLAIN
            else:
                self._opened = Seal(self.opener.open(envelope, envelope.newest)), _identity(envelope)
        return self._opened[0]

    def identity(self, place: KeyPlace) -> str:
        """Return what tells the data key of the store from others; raise as `opened` does."""
        self.opened(place)
        assert self._opened is not None  # noqa: S101 - it was just opened
        return self._opened[1]

    def envelope(self, place: KeyPlace) -> Envelope | None:
        """Return the keys of the store as they are now, None if it is plain; create the store if it is absent."""
        place.seal_with(self)  # before the first look, which may create it
        content = place.read()
        return None if content is None else envelope_in(content, self.path)

    def change(self, place: KeyPlace, change: Callable[[Envelope], Envelope]) -> Envelope:
        """Replace the keys by the result of `change`, which may be called again.

        Raises:
            NotEncryptedError: the store is plain.
        """
        self.opened(place)  # raises if no source opens the store
        for _ in range(_MANY_TRIES):
            old = place.read()
            if old is None:
                raise NotEncryptedError(self.path, "is a place without keys: the store is plain")
            changed = change(envelope_in(old, self.path))
            if place.replace(old, content_of(changed, self.path)):
                suggest_recovery(self.path, changed)
                return changed
        raise StoreBusyError(self.path, "others keep changing the keys; retry")

    def slots(self, place: KeyPlace) -> list[SlotInfo]:
        """Return the slots of the store, none if it is plain; this does not open it."""
        envelope = self.envelope(place)
        return [] if envelope is None else [SlotInfo(slot.id, slot.source, slot.hint) for slot in envelope.slots]

    def add(self, place: KeyPlace, source: KeySource) -> int:
        """Add a slot so that `source` opens the store; return its number. Raise as `change` and `with_slot` do."""
        return self.change(place, lambda envelope: with_slot(self.opener, envelope, source)).slots[-1].id

    def remove(self, place: KeyPlace, slot_id: int) -> None:
        """Remove a slot; raise as `change` and `without_slot` do."""
        self.change(place, lambda envelope: without_slot(self.path, envelope, slot_id))
        self.opener.forget()

    def new_keys(self) -> bytes | None:
        """Return the keys of a store that is being created, None for a plain store.

        Raises:
            KeyUnavailableError: there is no source, or one has no secret to give.
        """
        if self.encryption == "off":
            return None
        envelope, _ = make(self.opener, self.sources or usual_sources(), None)
        suggest_recovery(self.path, envelope)
        return content_of(envelope, self.path)

    def accept(self, keys: bytes | None) -> str:
        """Return what tells the data key of a store that is opened from others; `keys` is None for a plain store.

        Raises:
            WrongKeyError: it has other keys than when it was opened before.
        """
        present = PLAIN if keys is None else _identity(envelope_in(keys, self.path))
        if self._opened is not None and self._opened[1] != present:
            raise WrongKeyError(
                self.path,
                "has other keys than when it was opened: it was rewritten, or another store put in its place; call "
                "shutdown() to open it as it is now. Nothing was written",
            )
        return present

    def histories(self, namespace: str, usual: Histories) -> Histories:
        """Return how much of the past is kept in a sealed namespace."""
        seal = self._opened[0] if self._opened is not None else None
        if seal is None or not usual.named:
            return usual
        try:
            sealer = Sealer(seal, opened_namespace(seal, namespace), self.path)
        except ValueError:  # it has no memories: that of the handle that read the keys
            return usual
        there = copy.copy(usual)
        there.named = {sealer.name("category", category): policy for category, policy in usual.named.items()}
        return there

    def _accept_plain(self) -> None:
        if self.encryption == "required":
            raise NotEncryptedError(
                self.path,
                "has no keys, so the store is plain, and encryption is required; open it with encryption='on', and "
                "copy its memories into a new store, which is then sealed",
            )
        if self.encryption == "on" and not self._has_warned:
            self._has_warned = True
            import logging

            logging.getLogger("jarvis.sealing").warning(
                "%s has no keys, so the store is plain, though encryption is on: it was there before", self.path
            )


def _identity(envelope: Envelope) -> str:
    """Return what tells the data key of a store from earlier ones, and from those of other stores."""
    return f"{envelope.store} {envelope.newest}"
