"""`Resealed`: what is stored of one namespace, opened with one key and sealed with another; either may be none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jarvis.codec import InvalidMomentError
from jarvis.errors import CorruptStoreError, StoreAccessError
from jarvis.model.record import unknown_zone
from jarvis.sealing import wholes
from jarvis.sealing.sealer import Draft, Sealer, opened_namespace

if TYPE_CHECKING:
    from collections.abc import Callable

    from jarvis.model.entry import MemoryEntry
    from jarvis.model.options import Compression
    from jarvis.model.portable import PortableEntry
    from jarvis.model.revision import Signature
    from jarvis.sealing.seal import Seal


class Resealed:
    """See `jarvis.model.rewriting.Rewording`.

    Args:
        old: opens what is stored; None if that is plain.
        new: seals what is to be stored; None if that is to be plain.
        path: names the store in messages.
        plain: the name of the namespace, opened.
        compression: how values from 1 KiB up are to be written.
    """

    def __init__(self, old: Sealer | None, new: Sealer | None, path: str, plain: str, compression: Compression) -> None:
        self._old, self._new, self._path, self._compression = old, new, path, compression
        self.namespace = plain if new is None else new.namespace_name

    def text(self, kind: str, text: str) -> str:
        """Return a name of this kind."""
        plain = text if self._old is None else self._old.text(kind, text)
        return plain if self._new is None else self._new.name(kind, plain)

    def signature(self, signature: Signature) -> Signature:
        """Return who made a change."""
        plain = signature if self._old is None else self._old.opened_signature(signature)
        return plain if self._new is None else self._new.signature(plain)

    def state(self, entry_id: str, state: PortableEntry) -> MemoryEntry:
        """Return one state of an entry.

        Raises:
            CorruptStoreError: it is damaged.
            StoreAccessError: it has a time zone that this machine does not know.
        """
        if self._old is not None:
            entry_id = self._old.text("id", entry_id)
            wholes.open_state(state, entry_id, self._old)
        try:
            entry = state.prepared(entry_id, self._compression)
        except InvalidMomentError as error:
            raise StoreAccessError(self._path, unknown_zone(entry_id, error)) from None
        except (ValueError, OverflowError):
            raise CorruptStoreError(self._path, f"is damaged: the entry {entry_id} cannot be decoded") from None
        return entry if self._new is None else self._new.entry(Draft(entry, self._compression), entry.version)


def resealed(old: Seal | None, new: Seal | None, path: str, compression: Compression) -> Callable[[str], Resealed]:
    """Return what says, for each namespace by its stored name, how it is to be stored."""

    def of_namespace(stored: str) -> Resealed:
        opener = None
        if old is not None:
            try:
                opener = Sealer(old, opened_namespace(old, stored), path)
            except ValueError:
                raise CorruptStoreError(path, "is damaged: the name of a namespace is not what was sealed") from None
        plain = stored if opener is None else opener.namespace
        return Resealed(opener, None if new is None else Sealer(new, plain, path), path, plain, compression)

    return of_namespace
