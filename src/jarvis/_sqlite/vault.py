"""`Vault`: the keys with which a process opens the files of one store."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from jarvis._disk import files
from jarvis._disk.files import Stamp
from jarvis._sqlite import cipher
from jarvis.errors import (
    WAY_OUT,
    CorruptStoreError,
    KeyUnavailableError,
    NotEncryptedError,
    StoreAccessError,
    StoreMissingError,
    WrongKeyError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jarvis.encryption.data_key import DataKey
    from jarvis.encryption.envelope import Change, Envelope, Opener
    from jarvis.keys import KeySource
    from jarvis.model.options import Encryption

_SUFFIX = ".keys"


class Vault:
    """Reads and writes the file of keys of a store, and opens it with the key sources of this process.

    Args:
        store: the path of the store.
        encryption: ``off``, ``on`` (a new store is encrypted) or ``required`` (a plain one is also refused).
        sources: the key sources; if there are none, those that the file of keys names.
    """

    def __init__(self, store: str, encryption: Encryption, sources: Sequence[KeySource]) -> None:
        self.store = store
        # `notes.db` and `notes.sqlite` have different files of keys, or a rotation of one would lose the other.
        self.path = store.removesuffix(".db") + _SUFFIX
        self.encryption = encryption
        self.sources = tuple(sources)
        self._opener: Opener | None = None
        self._read: tuple[Stamp, Envelope] | None = None
        self._warned = False

    @property
    def opener(self) -> Opener:
        """The opener of slots in this process."""
        if self._opener is None:
            from jarvis.encryption.envelope import Opener

            self._opener = Opener(self.path, self.sources)
        return self._opener

    def envelope(self) -> Envelope | None:
        """Return the present content of the file of keys, or None if there is none; raise as `key_file.read`."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise files.translated(self.path, error, "find the keys") from error
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait
            raise StoreAccessError(self.path, "is no regular file; put the file of keys there")
        stamp = Stamp.of(status)
        if self._read is None or self._read[0] != stamp:
            from jarvis.encryption import key_file

            envelope = key_file.read(self.path)
            if envelope is None:
                return None
            self._read = (stamp, envelope)
        return self._read[1]

    def key_of(self, beginning: bytes) -> DataKey | None:
        """Return the key of the store's file, which begins with these bytes; None if it is plain.

        Raises:
            NotEncryptedError: the file is plain, but must not be.
            WrongKeyError, KeyUnavailableError: see `jarvis.encryption.envelope.Opener.open`.
            CorruptStoreError: the file, or the file of keys, is damaged.
        """
        envelope = self.envelope()
        if beginning == cipher.PLAIN:
            self._accept_plain(envelope)
            return None
        return self.key_of_copy(beginning)

    def key_of_copy(self, beginning: bytes) -> DataKey | None:
        """Return the key of a file beside the store that begins with these bytes, None if it is plain.

        Raises:
            WrongKeyError, KeyUnavailableError, CorruptStoreError: as `key_of` does.
        """
        envelope = self.envelope()
        if beginning == cipher.PLAIN:
            return None
        if envelope is None:
            self._accept_without_envelope(beginning)
            return None
        number = envelope.key_with(beginning)
        if number is None:
            if any(cipher.opens(self.store, self.opener.open(envelope, other)) for other in envelope.keys):
                raise CorruptStoreError(self.store, f"is damaged in its first bytes; {WAY_OUT}")
            raise WrongKeyError(
                self.store,
                f"is encrypted with another key than {self.path} holds: one of the two belongs to another store. "
                "Put back those that belong together, from a backup; nothing was written",
            )
        return self.opener.open(envelope, number)

    def _accept_plain(self, envelope: Envelope | None) -> None:
        if envelope is not None and envelope.change not in {"encrypt", "decrypt"}:
            raise NotEncryptedError(
                self.store,
                f"is plain, but {self.path} holds the keys of an encrypted store: somebody put another file in its "
                "place. Put the encrypted one back; if the plain one is meant, move the file of keys away",
            )
        if self.encryption == "required":
            raise NotEncryptedError(
                self.store,
                "is plain, and encryption is required; open it with encryption='on' and call store.encrypt()",
            )
        if self.encryption == "on" and envelope is None and not self._warned:
            self._warned = True
            import logging

            logging.getLogger("jarvis.sqlite").warning(
                "%s is plain, though encryption is on: it was there before; call store.encrypt()", self.store
            )

    def _accept_without_envelope(self, beginning: bytes) -> None:
        if self.encryption == "off" and not self.sources:
            with files.explaining(self.store, "find the store"):
                size = os.stat(self.store).st_size
            if not cipher.may_be_sealed(beginning, size):
                return  # SQLite's own error says that it is damaged
        raise KeyUnavailableError(
            self.store,
            f"is encrypted, or damaged, and its keys are missing: there is no {self.path}; "
            "put it back from a backup. No source was tried",
        )

    def key_to_create(self, *, was_there: bool) -> DataKey | None:
        """Return the key of a store that is about to be created, None for a plain one. Needs the writers' lock.

        Until `settle` is called, the file of keys says that the store is being created. A file that says so already
        is used again: its process was killed before the store existed.

        Args:
            was_there: the lock's file has a note of a store.

        Raises:
            StoreMissingError: the file of keys belongs to a store that existed.
            KeyUnavailableError: there is no source, or one has no secret to give.
            WrongKeyError: no source opens the existing keys.
        """
        if self.encryption == "off" and not os.path.exists(self.path):
            return None
        envelope = self.envelope()
        if envelope is None:
            envelope = self.new_envelope("create")
            self.keep(envelope, keep_existing=True)
            self.suggest_recovery(envelope)
        elif was_there or envelope.change != "create":
            raise StoreMissingError(
                self.store,
                f"is not there, but the keys of an encrypted store are ({self.path}): put the store back; or, to start "
                f"again, remove {self.path} and {self.store}.lock, after which nothing opens the store they belong to",
            )
        return self.opener.open(envelope, envelope.newest)

    def add_sources(self, sources: Sequence[KeySource]) -> None:
        """Add sources that open the store from now on."""
        self.take_sources((*self.sources, *(source for source in sources if source not in self.sources)))

    def take_sources(self, sources: Sequence[KeySource]) -> None:
        """Replace the sources that open the store."""
        self.sources = tuple(sources)
        self._opener = None

    def new_envelope(self, change: Change | None) -> Envelope:
        """Return new keys for a plain store, with a slot for each source; nothing is written.

        Raises:
            KeyUnavailableError: there is no source, or one has no secret to give.
        """
        from jarvis.encryption import envelope

        return envelope.make(self.opener, self.sources or envelope.usual_sources(), change)[0]

    def keep(self, envelope: Envelope, *, keep_existing: bool = False) -> None:
        """Write the file of keys durably, and remove leftovers of killed processes. Needs the writers' lock."""
        from jarvis.encryption.key_file import write

        with files.explaining(self.path, "write the keys"):
            files.remove_leftovers(self.path)
        write(self.path, envelope, store=self.store, keep_existing=keep_existing)

    def remove(self) -> None:
        """Remove the file of keys durably. Needs the writers' lock."""
        with files.explaining(self.path, "remove the keys"):
            files.remove_leftovers(self.path)
            files.system.unlink(self.path)
            files.sync_directory(os.path.dirname(self.path))

    def is_changing(self) -> bool:
        """Tell whether a change of the store's keys was begun and is not known to be complete."""
        envelope = self.envelope()
        return envelope is not None and envelope.change is not None

    def settle(self, beginnings: Sequence[bytes]) -> bool:
        """End a change of keys, if all the store's files have the new key; return whether no change is left.

        Needs the writers' lock.

        Args:
            beginnings: the first bytes of the store, and then of the kept copies beside it.
        """
        envelope = self.envelope()
        if envelope is None or envelope.change is None:
            return True
        if envelope.change == "decrypt":
            if set(beginnings) != {cipher.PLAIN}:
                return False
            self.remove()
            return True
        if envelope.change == "create":  # copies beside an earlier store do not belong to this one
            beginnings = beginnings[:1]
        if {envelope.key_with(beginning) for beginning in beginnings} != {envelope.newest}:
            return False
        from jarvis.encryption.envelope import with_only

        self.keep(with_only(envelope, envelope.newest))
        return True

    def suggest_recovery(self, envelope: Envelope) -> None:
        """Warn if only a keyring opens the store."""
        from jarvis.encryption.envelope import suggest_recovery

        suggest_recovery(self.path, envelope)
