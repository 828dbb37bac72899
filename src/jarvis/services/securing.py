"""`Secures`: the verbs of `MemoryModule` about the store as a whole: its keys, its encryption, its backups."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from jarvis.backend_registry import ask
from jarvis.capabilities import BacksUp, Encrypts
from jarvis.encryption.envelope import SlotInfo
from jarvis.errors import InvalidSettingError
from jarvis.keys import KeySource, KeySources, sources_of
from jarvis.model.options import checked
from jarvis.model.rewriting import RewriteProgress, Rewritten
from jarvis.storage_backend import StorageBackend


class Secures:
    """Keep a store from those it is not for, and from being lost. All of it is about every namespace of the store."""

    backend: StorageBackend

    def back_up(self, directory: str | os.PathLike[str]) -> Path:
        """Write a copy of the store as it is now into `directory`, durably; return the copy's path.

        Readers and writers go on meanwhile. A copy of an encrypted store is encrypted, and its file of keys stands
        beside it: any of its sources opens it. To go back, remove the store's files, its log above all, and put these
        in their place, see docs/how-to/back-up.md.

        Args:
            directory: made if it is absent; holds no backup yet.

        Raises:
            StoreAccessError: it holds one already, or a log of one.
            StoreBusyError: writers keep changing what a read-only module reads without locks; call it again.
            UnsupportedError: the backend makes no backups.

        >>> import tempfile
        >>> from pathlib import Path
        >>> from jarvis.persistent_memory import MemoryModule
        >>> tmp_path = Path(tempfile.mkdtemp())
        >>> memory = MemoryModule(storage_dir=tmp_path)
        >>> _ = memory.set_user_preference("theme", {"mode": "dark"})
        >>> memory.back_up(tmp_path / "monday").name
        'memory.db'
        >>> MemoryModule(storage_dir=tmp_path / "monday").get_user_preferences()
        {'theme': {'mode': 'dark'}}
        """
        path: Path = checked("directory", directory)
        return ask(self.backend, BacksUp).back_up(path)

    def key_slots(self) -> list[SlotInfo]:
        """Return the ways to the key of the encrypted store: which sources open it. None if it is plain.

        Raises:
            KeyUnavailableError, CorruptStoreError: it is encrypted, but its file of keys is lost.
            UnsupportedError: the backend does not encrypt.
        """
        return ask(self.backend, Encrypts).key_slots()

    def add_key_slot(self, source: KeySource | Callable[[], bytes]) -> int:
        """Let one more source open the store, see `jarvis.keys`; return the number of its slot.

        Only the file of keys is written, whatever the size of the store. Have two at least: a store whose sources
        are all lost is lost.

        Raises:
            KeyUnavailableError: the source has no key to give.
            NotEncryptedError: the store is plain.
            InvalidSettingError: it is no source, the file of keys cannot hold what it says of itself, or there are 64.
            UnsupportedError: the backend does not encrypt.

        >>> import tempfile
        >>> from pathlib import Path
        >>> from jarvis.keys import KeyFile, Passphrase
        >>> from jarvis.persistent_memory import MemoryModule
        >>> tmp_path = Path(tempfile.mkdtemp())
        >>> key = KeyFile.create(tmp_path / "key")
        >>> memory = MemoryModule(storage_dir=tmp_path / "new", encryption="on", keys=[key])
        >>> memory.bootstrap()
        >>> memory.add_key_slot(Passphrase("correct horse battery staple"))
        2
        >>> [slot.source for slot in memory.key_slots()]
        ['file', 'passphrase']
        """
        return ask(self.backend, Encrypts).add_key_slot(sources_of([source])[0])

    def remove_key_slot(self, slot_id: int) -> None:
        """Let a slot open the store no longer, such as that of a source that is lost.

        Only the file of keys is written. Who has a copy of the file from before, and the source, still has the key:
        to shut them out, call `rotate_data_key` as well.

        Raises:
            InvalidSettingError: there is no such slot, or it is the last one.
            NotEncryptedError: the store is plain.
            UnsupportedError: the backend does not encrypt.
        """
        if type(slot_id) is not int:
            raise InvalidSettingError("slot_id must be a number that key_slots() gives")
        ask(self.backend, Encrypts).remove_key_slot(slot_id)

    def encrypt_store(
        self, keys: KeySources = (), *, progress: Callable[[RewriteProgress], None] | None = None
    ) -> Rewritten | None:
        """Encrypt the plain store, while all its processes go on reading and writing.

        The store is written anew into an encrypted file, beside writers, compared row by row, and put in the place
        of the plain one; for a moment writers wait. Killed at any point it leaves a store that opens, and the next
        call goes on. Other processes open the encrypted file by themselves, if they have a key: by their ``keys=``, or
        from where the file of keys says.

        The blocks of the plain file are free then, but not overwritten: see docs/security.md.

        Args:
            keys: the sources that open it, see `jarvis.keys`; those that this module was opened with count, too.
            progress: called again and again with what was done; what it raises breaks it off.

        Returns:
            What was done; None if that was only to end an encryption that was broken off, or to call off a decryption.

        Raises:
            InvalidSettingError: it is encrypted already.
            KeyUnavailableError: a source has no key to give, or there is none. Nothing was done.
            StoreBusyError: somebody else changes the keys just now, or an iteration that was begun before goes on for
                too long; call it again.
            UnsupportedError: the backend does not encrypt.

        >>> import tempfile
        >>> from pathlib import Path
        >>> from jarvis.keys import KeyFile
        >>> from jarvis.persistent_memory import MemoryModule
        >>> tmp_path = Path(tempfile.mkdtemp())
        >>> memory = MemoryModule(storage_dir=tmp_path / "store")
        >>> _ = memory.set_user_preference("theme", {"mode": "dark"})
        >>> done = memory.encrypt_store([KeyFile.create(tmp_path / "its-key")])
        >>> done.rows["entries"], memory.get_user_preferences()
        (1, {'theme': {'mode': 'dark'}})
        """
        return ask(self.backend, Encrypts).encrypt(sources_of(keys), checked("progress", progress))

    def decrypt_store(self, *, progress: Callable[[RewriteProgress], None] | None = None) -> Rewritten | None:
        """Make the encrypted store plain, as `encrypt_store` encrypts it, and remove its file of keys.

        Args:
            progress: called again and again with what was done; what it raises breaks it off.

        Raises:
            NotEncryptedError: it is plain already.
            InvalidSettingError: this module was opened with ``encryption="required"``.
            StoreBusyError: as for `encrypt_store`.
            UnsupportedError: the backend does not encrypt.
        """
        return ask(self.backend, Encrypts).decrypt(checked("progress", progress))

    def rotate_data_key(
        self, *, keys: KeySources = (), progress: Callable[[RewriteProgress], None] | None = None
    ) -> Rewritten:
        """Give the encrypted store a new random key, as `encrypt_store` encrypts it; its sources stay as they are.

        From then on an old copy of the file of keys is of no use for what is in the store, nor is the old key. The
        new one has to be put into every slot, so the source of each must be at hand.

        Args:
            keys: sources besides those that the module was opened with, such as the passphrase.
            progress: called again and again with what was done; what it raises breaks it off.

        Raises:
            NotEncryptedError: the store is plain.
            KeyUnavailableError, WrongKeyError: the source of a slot is not at hand; nothing was done. Give it, or
                remove the slot.
            StoreBusyError: as for `encrypt_store`.
            UnsupportedError: the backend does not encrypt.
        """
        return ask(self.backend, Encrypts).rotate(sources_of(keys), checked("progress", progress))
