"""`Patient`: the store that the doctor examines. It is opened read-only or not at all, and nothing is written."""

from __future__ import annotations

import os
import shlex
import stat
import warnings
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from jarvis._sqlite import engine
from jarvis.capabilities import Encrypts, MendsDates
from jarvis.errors import InvalidSettingError, JarvisError
from jarvis.interfaces.doctor.finding import Limits
from jarvis.interfaces.stores import without_password
from jarvis.model.analytics import Analytics
from jarvis.model.key_place import SlotInfo
from jarvis.model.options import KeySource, check_utf8
from jarvis.model.store_options import StoreOptions
from jarvis.persistent_memory import MemoryModule
from jarvis.services.places import backend_at, store_file
from jarvis.storage_backend import StorageBackend

Answer = TypeVar("Answer")
_PAGE, _SQLITE = 4_096, b"SQLite format 3\0"
_ENDS = ("", "-wal", "-shm", "-journal", ".lock")


def status_of(path: str | Path) -> os.stat_result | None:
    """Return the status of a file; None if it cannot be told, as of one that was just removed."""
    try:
        return os.stat(path)
    except OSError:
        return None


class Patient:
    """A store, and what several checks ask of it.

    Args:
        place: the directory or the file of the store, or its URL.
        config: the file of settings; None if there is none.
        keys: sources of the key of an encrypted store.
        now: the moment of the examination.
        limits: from where on something is large.
    """

    def __init__(
        self, place: str | Path, *, config: Path | None, keys: Sequence[KeySource], now: datetime, limits: Limits
    ) -> None:
        self.config, self.now, self.limits = config, now, limits
        self._keys = tuple(keys)
        self.url = str(place) if "://" in str(place) else None
        self.shown = without_password(str(place))
        self.file: Path | None = None
        self.error: JarvisError | None = None
        if self.url is None:
            try:
                self.file = store_file(check_utf8(Path(place).expanduser().absolute(), "place"))
            except JarvisError as error:
                self.error = error
            except (OSError, ValueError, RuntimeError):  # no file can have that name, or there is no such user
                self.error = InvalidSettingError("place: takes the directory or the file of a store, or a URL")

    # --- files -----------------------------------------------------------------------------------

    @property
    def is_json(self) -> bool:
        """Whether the store is a JSON file."""
        return self.file is not None and self.file.suffix == ".json"

    @cached_property
    def files(self) -> list[tuple[Path, os.stat_result]]:
        """The files of the store that are there, its own first: its log, its lock and its file of keys."""
        if self.file is None:
            return []
        names = [self.file.name + end for end in _ENDS] + [self.file.name.removesuffix(".db") + ".keys"]
        looked = ((path, status_of(path)) for path in map(self.file.with_name, names))
        return [(path, status) for path, status in looked if status is not None and stat.S_ISREG(status.st_mode)]

    def beside(self) -> list[Path]:
        """Return what else lies in the directory of the store, sorted; empty if that cannot be read."""
        try:
            return [] if self.file is None else sorted(self.file.parent.iterdir())
        except OSError:
            return []

    def is_old(self, path: Path) -> bool:
        """Tell whether nobody has written a file for some time."""
        status = status_of(path)
        return status is not None and self.now.timestamp() - status.st_mtime >= self.limits.leftover_seconds

    @cached_property
    def first_page(self) -> bytes:
        """The beginning of the store's file; empty if it cannot be read, or is no SQLite store's."""
        if self.file is None or self.is_json:
            return b""
        try:
            return next(engine.chunks_of(str(self.file), _PAGE), b"")
        except (OSError, JarvisError):
            return b""

    @property
    def is_plain_file(self) -> bool:
        """Whether the store is a SQLite file that is not encrypted."""
        return self.first_page.startswith(_SQLITE)

    # --- what is in it ---------------------------------------------------------------------------

    @cached_property
    def backend(self) -> StorageBackend | None:
        """The backend of the store's file, which opens nothing before it is asked; None on a server, or without one."""
        if self.file is None:
            return None
        try:
            return backend_at(self.file, StoreOptions(read_only=True, create=False, keys=self._keys))
        except JarvisError as error:
            self.error = error
            return None

    @cached_property
    def memory(self) -> MemoryModule | None:
        """The memory on the store, read-only; None if it cannot be opened, see `error`."""
        if self.url is None and self.backend is None:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they tell is found here by checks
            try:
                if self.url is None:
                    memory = MemoryModule(self.backend, clock=lambda: self.now)
                else:
                    memory = MemoryModule(
                        self.url, read_only=True, create=False, keys=self._keys, clock=lambda: self.now
                    )
                memory.bootstrap()
            except JarvisError as error:
                self.error = error
                return None
        return memory

    def close(self) -> None:
        """Close the store, if it was opened."""
        if self.memory is not None:
            self.memory.shutdown()

    @cached_property
    def report(self) -> Analytics | None:
        """The analytics of the store; None if it cannot be read."""
        memory = self.memory
        return None if memory is None else self._asked(lambda: memory.store.analytics(top=1))

    @cached_property
    def last_moment(self) -> datetime | None:
        """The moment of the last change; None if there is none, or it is not known."""
        backend = None if self.memory is None else self.memory.backend
        if backend is None or not backend.has_capability(MendsDates):
            return None
        return self._asked(backend.capability(MendsDates).last_moment)

    @cached_property
    def slots(self) -> list[SlotInfo]:
        """The key slots of the store, also of one that cannot be opened; empty if it is plain."""
        backend = self.backend if self.memory is None else self.memory.backend
        if backend is None or not backend.has_capability(Encrypts):
            return []
        return self._asked(backend.capability(Encrypts).key_slots) or []

    def _asked(self, question: Callable[[], Answer]) -> Answer | None:
        """Return the answer to a question about the content; None if it fails, which `error` then tells."""
        try:
            return question()
        except JarvisError as error:
            self.error = self.error or error
            return None

    def command(self, *words: str) -> str:
        """Return a line for a shell that asks our command line to do something with this store."""
        return shlex.join(["jarvis-memory", "--store", self.shown, *words])

    def moving_to(self, place: str) -> str:
        """Return a line for a shell that copies the store to another place."""
        return f"{self.command('migrate')} {place}"

    @staticmethod
    def quoted(text: str) -> str:
        """Return a text as one word of a line for a shell."""
        return shlex.quote(text)
