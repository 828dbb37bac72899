"""`SQLiteBackend`: memories in one SQLite file that several threads and processes share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import msgspec

from jarvis._sql import sliding
from jarvis._sql.backend import SQLBackend
from jarvis._sql.erasing import look_through
from jarvis._sql.session import Session
from jarvis._sqlite import measuring, recompress, traces
from jarvis._sqlite.database import Database
from jarvis._sqlite.replace import rekey
from jarvis.capabilities import (
    BacksUp,
    Compresses,
    Encrypts,
    Erases,
    Salvages,
    Slides,
    TellsSize,
    TellsVersion,
    Verifies,
)
from jarvis.model.analytics import Sizes
from jarvis.model.entry import DEFAULT_NAMESPACE, check_expiry
from jarvis.model.erasure import Look, Search
from jarvis.model.key_place import SlotInfo
from jarvis.model.options import (
    NO_INDEX,
    Compression,
    Durability,
    Encryption,
    KeySource,
    KeySources,
    TextIndex,
    check_utf8,
    checked,
)
from jarvis.model.policies import CategoryPolicy, HistoryPolicy
from jarvis.model.rewriting import Progress, Recompression, RewriteProgress, Rewritten
from jarvis.model.salvaged import Salvaged
from jarvis.model.store_options import StoreOptions

_USUAL_HISTORY = HistoryPolicy()
Moved = TypeVar("Moved", Rewritten, Rewritten | None)


class SQLiteBackend(SQLBackend):
    """Memories in one SQLite file. See `StorageBackend` for what every verb does.

    A write that returned is on the disk: it survives ``kill -9`` and, unless `durability` is ``"normal"``, a power cut.
    Any SQLite tool can read the file (view ``memories``). If another tool wrote to it, the next opening verifies it and
    refuses it if it is damaged.

    Args:
        db_path: the file; created with its directory at the first call, for the owner only.
        namespace: the part of the store that this handle sees.
        read_only: write nothing at all; works on read-only media.
        durability: ``"full"``, or ``"normal"``: several times faster, but a POWER CUT LOSES THE LAST
            COMMITS (a killed process still loses nothing).
        busy_timeout_seconds: how long a write waits for other writers before `StoreBusyError`.
        history: how much of the past is kept.
        encryption: ``"on"`` encrypts a store that is created; ``"required"`` also refuses a plain store. An encrypted
            store is opened with its keys, whatever this says.
        keys: the key sources, see `jarvis.keys`; if there are none, those that the store names, and for a new store
            the environment variable ``JARVIS_KEY``.
        compression: how values from 1 KiB up are written: ``"auto"``, compressed fast; ``"max"``, as small as
            possible; ``"off"``, as they are, for other tools to read. Values with any compression can be read.
        create: create an absent store; False: raise `StoreMissingError` at the first call, and create nothing.
        text_index: the language of the index of words of a new store; ``"off"``: this handle keeps no index and uses
            none. None: as the store is; a new one gets ``"english"``.

    Raises:
        InvalidSettingError: an argument is out of range.
        InvalidEntryError: the namespace is no valid name.

    >>> from jarvis.model.entry import MemoryEntry
    >>> from jarvis.sqlite_backend import SQLiteBackend
    >>> from pathlib import Path
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     backend = SQLiteBackend(Path(directory) / "memory.db")
    ...     backend.create(MemoryEntry("1", "preferences", "theme", {"mode": "dark"}))
    ...     backend.shutdown()
    ...     backend.read("1").value
    {'mode': 'dark'}
    """

    name: ClassVar[str] = "sqlite"
    file_name: ClassVar[str] = "memory.db"
    capabilities: ClassVar[tuple[type, ...]] = (
        *SQLBackend.capabilities,
        Erases,
        Compresses,
        BacksUp,
        Encrypts,
        Slides,
        TellsSize,
        TellsVersion,
        Verifies,
        Salvages,
    )

    def __init__(
        self,
        db_path: str | Path,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        read_only: bool = False,
        durability: Durability = "full",
        busy_timeout_seconds: float = 30.0,
        history: HistoryPolicy = _USUAL_HISTORY,
        encryption: Encryption = "off",
        keys: KeySources = (),
        compression: Compression = "auto",
        policies: Sequence[CategoryPolicy] = (),
        create: bool = True,
        text_index: TextIndex | None = None,
    ) -> None:
        self.db_path: Path = check_utf8(checked("db_path", db_path), "db_path")
        options = StoreOptions(
            read_only=read_only,
            durability=durability,
            busy_timeout_seconds=busy_timeout_seconds,
            history=history,
            encryption=encryption,
            keys=keys,
            compression=compression,
            policies=policies,
            create=create,
            text_index=text_index,
        )
        self._database = Database(self.db_path, options)
        super().__init__(self._database, namespace, options.compression, options.text_index)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.db_path)!r}, namespace={self.namespace!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        database = self._database
        vault = database.vault
        options = msgspec.structs.replace(database.options, encryption=vault.encryption, keys=vault.sources)
        return _reopen, (type(self), self.db_path, self.namespace, options, self._reader.clock)

    def slide(self, entry_id: str, expires_at: datetime) -> bool:
        until = check_expiry(expires_at)
        return sliding.try_to(self._database, self.namespace, entry_id, until, self._reader.now())

    def finish_erasing(self, ids: Collection[str], look: Look | None = None) -> Search | None:
        if not self._database.finish_erasing(self._database.busy_timeout_seconds):
            return None
        found = 0 if look is None else self._database.read(look_through, self._reader, look)
        searched = traces.search(self._database, ids)
        return searched._replace(found=searched.found + found)

    def version(self) -> object:
        return self._database.version(self._reader.now())

    # --- BacksUp, Encrypts -----------------------------------------------------------------------

    def back_up(self, directory: Path, progress: Progress | None = None) -> Path:
        from jarvis._sqlite import backup  # with what copies and compares files, which other verbs do not need

        return backup.back_up(self._database, check_utf8(directory, "directory"), progress)

    def findings(self, looked_at: Callable[[], object]) -> Iterator[str]:
        from jarvis._sqlite import verification

        self._check_outside()
        yield from self._database.iterate(partial(verification.all_findings, looked_at=looked_at))

    def sizes(self) -> Sizes:
        return measuring.sizes(self._database)

    def salvage(self) -> Salvaged:
        from jarvis._sqlite import salvage

        return salvage.salvage(self._database.path, self._database.vault)

    def empty_at(self, directory: Path) -> Self:
        database, vault = self._database, self._database.vault
        is_sealed = vault.envelope() is not None
        given = {**database.options.given(), "keys": vault.sources, "encryption": "on" if is_sealed else "off"}
        return type(self)(directory / self.file_name, **{**given, "read_only": False, "create": True})

    def key_slots(self) -> list[SlotInfo]:
        return rekey.slots(self._database)

    def add_key_slot(self, source: KeySource) -> int:
        return rekey.add_slot(self._database, source)

    def remove_key_slot(self, slot_id: int) -> None:
        rekey.remove_slot(self._database, slot_id)

    def encrypt(
        self, sources: Sequence[KeySource], progress: Callable[[RewriteProgress], None] | None
    ) -> Rewritten | None:
        return self._indexed(rekey.encrypt(self._database, sources, progress))

    def decrypt(self, progress: Callable[[RewriteProgress], None] | None) -> Rewritten | None:
        return self._indexed(rekey.decrypt(self._database, progress))

    def rotate(self, sources: Sequence[KeySource], progress: Callable[[RewriteProgress], None] | None) -> Rewritten:
        return self._indexed(rekey.rotate(self._database, sources, progress))

    def _indexed(self, rewritten: Moved) -> Moved:
        """Index the texts of a store that was just moved, which copied no index; return the argument."""
        if rewritten is not None and self._text_index != NO_INDEX:
            from jarvis._sql import searching

            searching.try_to_catch_up(self._reader)
        return rewritten

    # --- Compresses ------------------------------------------------------------------------------

    def recompress(self, progress: Progress | None) -> Recompression:
        return recompress.recompress(self._database, self._compression, progress)

    def _look_after(self, session: Session) -> None:  # noqa: ARG002  it looks at files
        self._database.file.log_watch.look()


class InMemoryBackend(SQLiteBackend):
    """A `SQLiteBackend` whose store ends with the last handle on it, or with the process: for tests and notebooks.

    On Linux it lies in ``/dev/shm``, which is memory; elsewhere in the directory of temporary files. What a killed
    process leaves there is removed when the next store in memory is made. A pickle is a handle on the same store, for
    as long as that exists.

    Args:
        namespace: the part of the store that this handle sees.
        history: how much of the past is kept.
        compression: as for `SQLiteBackend`.
        policies: likewise.
    """

    name: ClassVar[str] = "in-memory"

    def __init__(
        self,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        history: HistoryPolicy = _USUAL_HISTORY,
        compression: Compression = "auto",
        policies: Sequence[CategoryPolicy] = (),
    ) -> None:
        from jarvis._sqlite.volatile import Volatile

        directory = Volatile()
        path = Path(directory.path) / self.file_name
        super().__init__(
            path,
            namespace=namespace,
            durability="normal",
            history=history,
            compression=compression,
            policies=policies,
        )
        directory.end_with(self._database)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(namespace={self.namespace!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        reopen, (_, *arguments) = super().__reduce__()
        return reopen, (SQLiteBackend, *arguments)


def _reopen(
    kind: type[SQLiteBackend],
    db_path: Path,
    namespace: str,
    options: StoreOptions,
    clock: Callable[[], datetime] | None,
) -> SQLiteBackend:
    return kind(db_path, namespace=namespace, **options.given()).bind(clock=clock)
