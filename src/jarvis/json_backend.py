"""`JSONBackend`: memories in one readable file, for development and small stores."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from jarvis._json.file import Draft, Record, Room
from jarvis._json.store import NO_ENTRIES, Store
from jarvis.codec import InvalidMomentError
from jarvis.config import Durability, checked
from jarvis.errors import CorruptStoreError, DuplicateEntryError, EntryNotFoundError, StoreAccessError
from jarvis.memory_entry import DEFAULT_NAMESPACE, MemoryEntry, MemoryQuery, check_namespace
from jarvis.storage_backend import Namespaced, StorageBackend, Transactional

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterator
    from datetime import datetime


class JSONBackend(StorageBackend):
    """Memories in one human-readable JSON file. A commit rewrites the file: put bulk work in `transaction`.

    A pickle holds the path and the options; the copy opens the file for itself.

    Args:
        file_path: the file; ``~`` is expanded. Missing directories are created.
        namespace: the one that the verbs work in.
        read_only: write nothing at all, not even a lock's file; the store must exist.
        durability: ``"full"`` has every commit on the disk when it returns. ``"normal"`` does not wait
            for the disk: a killed process loses nothing, a power cut MAY LOSE THE WHOLE FILE.
        busy_timeout_seconds: how long a write waits for other writers.

    Raises:
        InvalidSettingError: an option is unknown or out of range.
        InvalidEntryError: `namespace` cannot be the name of one.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     backend = JSONBackend(directory + "/memory.json")
    ...     backend.create(MemoryEntry("1", "preferences", "theme", {"mode": "dark"}))
    ...     found = backend.query(key="theme")
    ...     backend.shutdown()
    >>> found[0].value
    {'mode': 'dark'}
    """

    name: ClassVar[str] = "json"
    file_name: ClassVar[str] = "memory.json"
    capabilities: ClassVar[tuple[type, ...]] = (Transactional, Namespaced)

    def __init__(
        self,
        file_path: str | os.PathLike[str],
        *,
        namespace: str = DEFAULT_NAMESPACE,
        read_only: bool = False,
        durability: Durability = "full",
        busy_timeout_seconds: float = 30.0,
    ) -> None:
        self.namespace = check_namespace(namespace)
        self._options = {
            "read_only": checked("read_only", read_only),
            "durability": checked("durability", durability),
            "busy_timeout_seconds": checked("busy_timeout_seconds", busy_timeout_seconds),
        }
        self._store = Store(
            checked("file_path", file_path),
            read_only=read_only,
            sync=durability == "full",
            busy_timeout_seconds=busy_timeout_seconds,
        )

    @property
    def file_path(self) -> Path:
        """The store's file, as it was given."""
        return self._store.file_path

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.file_path)!r}, namespace={self.namespace!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"file_path": self.file_path, "namespace": self.namespace, **self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        JSONBackend.__init__(self, **state)

    # --- the eight verbs -------------------------------------------------------------------------

    def bootstrap(self) -> None:
        self._store.rooms()

    def create(self, entry: MemoryEntry) -> None:
        draft = Draft(entry)
        with self._store.transaction() as transaction:
            if entry.id in transaction.room(self.namespace).records:
                raise DuplicateEntryError(f"an entry with this id is already in namespace {self.namespace!r}")
            transaction.put(self.namespace, draft.record(self.namespace, 1, transaction.next_commit()))

    def read(self, entry_id: str) -> MemoryEntry | None:
        record = self._room().records.get(entry_id)
        if record is None:
            return None
        with self._decoding():
            return record.entry()

    def update(self, entry: MemoryEntry) -> None:
        draft = Draft(entry)
        with self._store.transaction() as transaction:
            before = transaction.room(self.namespace).records.get(entry.id)
            if before is None:
                raise EntryNotFoundError(f"no entry with this id is in namespace {self.namespace!r}")
            commit = transaction.next_commit()
            transaction.put(self.namespace, draft.record(self.namespace, before.version + 1, commit))

    def delete(self, entry_id: str) -> None:
        with self._store.transaction() as transaction:
            if entry_id in transaction.room(self.namespace).records:
                transaction.remove(self.namespace, entry_id)

    def list_all(self) -> list[MemoryEntry]:
        return self.select(MemoryQuery())

    def query(
        self,
        category: str | None = None,
        tags: Collection[str] | None = None,
        entity_type: str | None = None,
        entity_id: str | None = None,
        key: str | None = None,
    ) -> list[MemoryEntry]:
        return self.select(
            MemoryQuery(category=category, tags=tags, entity_type=entity_type, entity_id=entity_id, key=key)
        )

    def shutdown(self) -> None:
        self._store.shut_down()

    # --- faster than the defaults ----------------------------------------------------------------

    def select(self, query: MemoryQuery) -> list[MemoryEntry]:
        found = self._found(query)
        with self._decoding():
            return [record.entry() for record in found]

    def count(self, query: MemoryQuery) -> int:
        found = self._found(query)
        with self._decoding():
            return sum(1 for _ in found)

    def iterate(self, query: MemoryQuery) -> Iterator[MemoryEntry]:
        found = self._found(query)
        while True:
            with self._decoding():
                record = next(found, None)
                if record is None:
                    return
                entry = record.entry()
            yield entry

    def clear(self) -> int:
        return self._empty(self.namespace)

    # --- capabilities ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Open a write transaction, or a savepoint; see `jarvis.storage_backend.Transactional`.

        It covers every sibling of this backend. The file is rewritten once, on leaving, if at all.
        """
        with self._store.transaction():
            yield

    def moment(self, now: datetime) -> datetime:
        """Return the timestamp of a change made now; see `jarvis.storage_backend.Transactional`."""
        return self._store.own_transaction().moment(now)

    def for_namespace(self, namespace: str) -> JSONBackend:
        """Return a sibling on the same state, lock and transaction; raise `InvalidEntryError` for a bad name."""
        sibling = object.__new__(type(self))
        sibling.__dict__.update(self.__dict__, namespace=check_namespace(namespace))
        return sibling

    def list_namespaces(self) -> list[str]:
        """Return the names of the namespaces that hold an entry, sorted."""
        return sorted(name for name, room in self._store.rooms().items() if room.records)

    def erase_namespace(self, namespace: str) -> int:
        """Delete every entry of `namespace` and every file of ours that may still hold one; return how many.

        The file system may keep the blocks of the replaced file until it needs them.
        """
        with self._store.transaction() as transaction:
            if check_namespace(namespace) == DEFAULT_NAMESPACE:
                transaction.erase_kept_copies()
            return self._empty(namespace)

    # --- inside ----------------------------------------------------------------------------------

    def _room(self) -> Room:
        return self._store.rooms().get(self.namespace, NO_ENTRIES)

    def _found(self, query: MemoryQuery) -> Iterator[Record]:
        candidates = self._room().candidates(query)
        return itertools.islice(filter(query.predicate(), candidates), query.limit)

    def _empty(self, namespace: str) -> int:
        with self._store.transaction() as transaction:
            ids = list(transaction.room(namespace).records)
            for entry_id in ids:
                transaction.remove(namespace, entry_id)
        return len(ids)

    @contextlib.contextmanager
    def _decoding(self) -> Iterator[None]:
        try:
            yield
        except InvalidMomentError as error:
            raise StoreAccessError(self.file_path, f"an entry {error}") from None
        except ValueError:  # whose message may hold what is stored
            raise CorruptStoreError(self.file_path, "holds an entry that cannot be read; restore a copy") from None
