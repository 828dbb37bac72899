"""`Secures`: the verbs of `MemoryModule` about the store as a whole: its keys, its encryption, its backups."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from jarvis.backend_registry import ask
from jarvis.config import checked
from jarvis.envelope import SlotInfo
from jarvis.errors import InvalidSettingError
from jarvis.keys import KeySource, sources_of
from jarvis.storage_backend import BacksUp, Encrypts, StorageBackend


class Secures:
    """Keep a store from those it is not for, and from being lost. All of it is about every namespace of the store."""

    backend: StorageBackend

    def back_up(self, directory: str | os.PathLike[str]) -> Path:
        """Write a copy of the store as it is now into `directory`, durably; return the copy's path.

        Readers and writers go on meanwhile. A copy of an encrypted store is encrypted, and its file of keys stands
        beside it: any of its sources opens it. To go back, put the files in the place of the store's.

        Args:
            directory: made if it is absent; holds no backup yet.

        Raises:
            StoreAccessError: it holds one already.
            UnsupportedError: the backend makes no backups.

        >>> from jarvis.persistent_memory import MemoryModule
        >>> tmp_path = getfixture("tmp_path")
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
            InvalidSettingError: it is no source.
            UnsupportedError: the backend does not encrypt.

        >>> from jarvis.keys import KeyFile, Passphrase
        >>> from jarvis.persistent_memory import MemoryModule
        >>> tmp_path = getfixture("tmp_path")
        >>> memory = MemoryModule(storage_dir=tmp_path, encryption="on", keys=[KeyFile.create(tmp_path / "key")])
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
