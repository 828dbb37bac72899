"""`MemoryModule`: what an assistant should still know tomorrow."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Literal, NamedTuple, TypeVar

from jarvis import backend_registry
from jarvis._identifiers import new_id
from jarvis.errors import InvalidEntryError, InvalidQueryError, InvalidSettingError, UnsupportedError
from jarvis.memory_entry import DEFAULT_NAMESPACE, MemoryEntry, MemoryQuery, check_name, check_namespace, check_text
from jarvis.storage_backend import Namespaced, SharesCommits, StorageBackend, Transactional

__all__ = ["MemoryEntry", "MemoryModule", "MemoryQuery"]

PREFERENCES, TASKS, DEVICES = "preferences", "tasks", "devices"
DEVICE_KEY = "device_info"
NO_MODULE, NO_TASK = "unknown", "none"

_USUAL = {"read_only": False, "durability": "full", "busy_timeout_seconds": 30.0}

Capability = TypeVar("Capability")
Result = TypeVar("Result")
Clock = Callable[[], datetime]


class _Author(NamedTuple):
    module: str | None
    task_id: str | None


_NOBODY = _Author(None, None)
# One variable for all modules, keyed by the module's token: context variables are never collected.
_authors: ContextVar[Mapping[int, _Author]] = ContextVar("jarvis_authors", default=MappingProxyType({}))


def utc_now() -> datetime:
    """Return the time now, aware, in UTC."""
    return datetime.now(UTC)


class MemoryModule:
    """A memory that is kept across sessions, in one namespace of one store.

    Safe to use from any number of threads and processes at once. Opens its store at the first call,
    and again after `shutdown`. Never calling `shutdown` loses nothing.

    What returns a list returns the newest first. What returns entries returns copies. Every verb may
    raise `jarvis.errors.StoreError`; every changing one `jarvis.errors.InvalidEntryError`, which names
    the field that cannot be stored exactly, and takes ``module=`` and ``task_id=``: who makes the
    change, and for which task (see also `acting_as`).

    Args:
        storage_backend: where to keep memories; a backend of your own, or None for one by type.
        storage_dir: the directory of the store; ``~/.jarvis/memory`` if None.
        backend_type: ``"sqlite"`` (file ``memory.db``), ``"json"`` (file ``memory.json``), or a name that a
            package registered under the entry point ``jarvis.storage_backends``.
        namespace: which of the store's memories to see; they never see each other.
        read_only: write nothing at all.
        durability: ``"full"``: a write that returned survives a power cut; ``"normal"``: it survives a killed
            process, and a POWER CUT LOSES THE LAST WRITES.
        busy_timeout_seconds: how long a write waits for other writers before `StoreBusyError`.
        clock: returns the time now, aware; for tests.

    Raises:
        UnknownBackendError: no backend has that name.
        InvalidSettingError: an argument is out of range.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     with MemoryModule(storage_dir=directory) as memory:
    ...         _ = memory.set_user_preference("theme", {"mode": "dark"})
    ...     with MemoryModule(storage_dir=directory) as memory:
    ...         memory.get_user_preferences()
    {'theme': {'mode': 'dark'}}
    """

    def __init__(
        self,
        storage_backend: StorageBackend | None = None,
        storage_dir: str | Path | None = None,
        backend_type: str = "sqlite",
        *,
        namespace: str = DEFAULT_NAMESPACE,
        read_only: bool = False,
        durability: Literal["full", "normal"] = "full",
        busy_timeout_seconds: float = 30.0,
        clock: Clock = utc_now,
    ) -> None:
        check_namespace(namespace)
        options: dict[str, Any] = {
            "read_only": read_only,
            "durability": durability,
            "busy_timeout_seconds": busy_timeout_seconds,
        }
        asked_for = {name: held for name, held in options.items() if held != _USUAL[name]}
        if storage_backend is None:
            if namespace != DEFAULT_NAMESPACE:
                asked_for["namespace"] = namespace
            directory = (
                Path(storage_dir).expanduser() if storage_dir is not None else Path.home() / ".jarvis" / "memory"
            )
            backend: Any = backend_registry.open_backend(backend_type, directory, **asked_for)
        else:
            if not isinstance(storage_backend, StorageBackend):
                raise InvalidSettingError(
                    f"storage_backend: takes a StorageBackend, not {type(storage_backend).__name__}; "
                    "a directory goes into storage_dir="
                )
            if storage_dir is not None or asked_for:
                named = ", ".join([*asked_for, *([] if storage_dir is None else ["storage_dir"])])
                raise InvalidSettingError(f"{named}: set it on the backend that is given as storage_backend")
            backend = storage_backend
            if namespace != DEFAULT_NAMESPACE:
                backend = _ask(storage_backend, Namespaced).for_namespace(namespace)
        self.backend: StorageBackend = backend
        self._clock = clock
        self._plain = _PlainClock()
        self._token = id(self._plain)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.backend!r})"

    def __enter__(self) -> MemoryModule:
        self.bootstrap()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    def __getstate__(self) -> dict[str, Any]:
        return {"backend": self.backend, "clock": self._clock}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.backend, self._clock = state["backend"], state["clock"]
        self._plain = _PlainClock()
        self._token = id(self._plain)

    # --- life ------------------------------------------------------------------------------------

    def bootstrap(self) -> None:
        """Make the store ready: create it if absent, migrate or verify it if need be; else nothing changes.

        Optional: every other verb does it by itself.
        """
        self.backend.bootstrap()

    def shutdown(self) -> None:
        """Release files and locks; any number of times. The next call opens the store again.

        Raises:
            TransactionError: the calling thread has a transaction open.
        """
        self.backend.shutdown()

    # --- creating --------------------------------------------------------------------------------

    def create_memory(
        self,
        category: str,
        key: str,
        value: dict[str, Any],
        entity_type: str,
        entity_id: str | None = None,
        tags: Collection[str] | None = None,
        module: str | None = None,
        task_id: str | None = None,
    ) -> str:
        """Store a new memory, whether or not one with this key exists; return its id (a UUID).

        Raises:
            InvalidEntryError: a field cannot be stored exactly; nothing was stored.
        """
        author, tags = self._author(module, task_id), _tag_list(tags)
        return self._change(
            lambda moment: self._create(category, key, value, entity_type, entity_id, tags, author, moment)
        )

    def upsert_memory(
        self,
        category: str,
        key: str,
        value: dict[str, Any],
        entity_type: str = "",
        entity_id: str | None = None,
        tags: Collection[str] | None = None,
        module: str | None = None,
        task_id: str | None = None,
    ) -> str:
        """Give the memory of (category, key), the one written last, this value, or create it; return its id.

        Atomic: of any number of threads and processes that upsert one key at once, one creates and
        the others update. An update leaves entity type and id as they are, and the tags if None.

        Raises:
            InvalidEntryError: a field cannot be stored exactly; nothing was changed.
            UnsupportedError: the backend has no transactions.
        """
        _ask(self.backend, Transactional)
        return self._upsert(category, key, value, entity_type, entity_id, tags, self._author(module, task_id))

    def set_user_preference(
        self, key: str, value: dict[str, Any], *, module: str | None = None, task_id: str | None = None
    ) -> str:
        """Set the preference `key`, creating or replacing it; return its id.

        Preferences have a place of their own: a task or device with the same key is not touched.
        """
        author = self._author(module, task_id, "preferences_manager")
        return self._upsert(PREFERENCES, key, value, "user_preference", None, None, author)

    def set_device_info(
        self, device_info: dict[str, Any], *, module: str | None = None, task_id: str | None = None
    ) -> str:
        """Set what is known of the device, creating or replacing it; return its id."""
        return self._upsert(
            DEVICES, DEVICE_KEY, device_info, "device", None, None, self._author(module, task_id, "device_manager")
        )

    def record_task(
        self,
        task_id: str,
        task_data: dict[str, Any],
        tags: Collection[str] | None = None,
        *,
        module: str | None = None,
    ) -> str:
        """Store a record of a task, under the key ``task_<task_id>``; return the record's id.

        Tagged ``executed`` unless `tags` is given. Recording a task again adds a record.
        """
        if type(task_id) is not str:
            raise InvalidEntryError("task_id", f"takes a str, not {type(task_id).__name__}")
        author = self._author(module, task_id, "task_executor")
        tags = ["executed"] if tags is None else _tag_list(tags)
        return self._change(
            lambda moment: self._create(TASKS, f"task_{task_id}", task_data, "task", task_id, tags, author, moment)
        )

    # --- reading ---------------------------------------------------------------------------------

    def get_memory(self, memory_id: str) -> MemoryEntry | None:
        """Return the memory with this id, or None."""
        return self.backend.read(_text("memory_id", memory_id))

    def get_memory_by_key(self, key: str) -> MemoryEntry | None:
        """Return the newest memory with this key, in any category, or None."""
        return self.backend.newest_of_key(_text("key", key))

    def get_memories_by_category(self, category: str) -> list[MemoryEntry]:
        """Return every memory of the category."""
        return self.backend.select(MemoryQuery(category=_text("category", category)))

    def get_memories_by_entity(self, entity_type: str, entity_id: str | None = None) -> list[MemoryEntry]:
        """Return every memory about entities of this type, or about the one with this id."""
        return self.backend.select(MemoryQuery(entity_type=_text("entity_type", entity_type), entity_id=entity_id))

    def get_memories_by_tags(
        self, tags: Collection[str], *, tags_match: Literal["any", "all"] = "any"
    ) -> list[MemoryEntry]:
        """Return every memory that has any, or all, of the tags; none if `tags` is empty."""
        if tags is None:
            raise InvalidQueryError('tags: takes a list of str, such as ["ui"]')
        return self.backend.select(MemoryQuery(tags=tags, tags_match=tags_match))

    def search_memories(
        self,
        category: str | None = None,
        entity_type: str | None = None,
        entity_id: str | None = None,
        tags: Collection[str] | None = None,
        key: str | None = None,
        *,
        tags_match: Literal["any", "all"] = "any",
        since: datetime | None = None,
        until: datetime | None = None,
        where: Mapping[Any, Any] | None = None,
        limit: int | None = None,
        after: MemoryEntry | str | None = None,
    ) -> list[MemoryEntry]:
        """Return the memories that satisfy every filter that is given.

        Args:
            category, entity_type, entity_id, key: equal, whole; ``""`` matches only ``""``.
            tags: has any of these tags, or all of them by `tags_match`; ``[]`` matches nothing.
            tags_match: ``"any"`` or ``"all"``.
            since: timestamp at this moment or later; naive means local time.
            until: timestamp before this moment.
            where: conditions on the value, see `jarvis.value_filter`.
            limit: at most this many.
            after: only what comes after this entry (or its `MemoryEntry.cursor`) in the list: pass the last
                entry of a page to get the next page. Stable while others write: nothing that stays
                unchanged is skipped or given twice.

        Raises:
            InvalidQueryError: a filter means nothing; the message says what it takes.
        """
        return self.backend.select(
            MemoryQuery(
                category=category,
                entity_type=entity_type,
                entity_id=entity_id,
                tags=tags,
                key=key,
                tags_match=tags_match,
                since=since,
                until=until,
                where=where,
                limit=limit,
                after=after,
            )
        )

    def count_memories(
        self,
        category: str | None = None,
        entity_type: str | None = None,
        entity_id: str | None = None,
        tags: Collection[str] | None = None,
        key: str | None = None,
        *,
        tags_match: Literal["any", "all"] = "any",
        since: datetime | None = None,
        until: datetime | None = None,
        where: Mapping[Any, Any] | None = None,
    ) -> int:
        """Return how many memories `search_memories` would return, without building them."""
        return self.backend.count(
            MemoryQuery(
                category=category,
                entity_type=entity_type,
                entity_id=entity_id,
                tags=tags,
                key=key,
                tags_match=tags_match,
                since=since,
                until=until,
                where=where,
            )
        )

    def iter_memories(
        self,
        category: str | None = None,
        entity_type: str | None = None,
        entity_id: str | None = None,
        tags: Collection[str] | None = None,
        key: str | None = None,
        *,
        tags_match: Literal["any", "all"] = "any",
        since: datetime | None = None,
        until: datetime | None = None,
        where: Mapping[Any, Any] | None = None,
        limit: int | None = None,
        after: MemoryEntry | str | None = None,
    ) -> Iterator[MemoryEntry]:
        """Yield what `search_memories` returns, one by one, in memory that does not grow with their number.

        The iteration sees the store as it was at its first step, whatever is written meanwhile, and
        blocks no writer. Close it, or let it end: while it is open the store's log cannot be folded in.
        Inside a transaction the entries are collected first, so that it sees the transaction's changes.
        """
        return self.backend.iterate(
            MemoryQuery(
                category=category,
                entity_type=entity_type,
                entity_id=entity_id,
                tags=tags,
                key=key,
                tags_match=tags_match,
                since=since,
                until=until,
                where=where,
                limit=limit,
                after=after,
            )
        )

    def list_memories(self, *, limit: int | None = None, after: MemoryEntry | str | None = None) -> list[MemoryEntry]:
        """Return every memory, or a page of them; `limit` and `after` as in `search_memories`."""
        return self.backend.select(MemoryQuery(limit=limit, after=after))

    def get_user_preferences(self) -> dict[str, Any]:
        """Return the value of every preference by its key; of several with one key, the one written last."""
        held: dict[str, MemoryEntry] = {}
        for entry in self.backend.select(MemoryQuery(category=PREFERENCES)):
            known = held.setdefault(entry.key, entry)
            if known.position and entry.position and entry.position[1] > known.position[1]:
                held[entry.key] = entry
        return {key: entry.value for key, entry in held.items()}

    def get_device_info(self) -> dict[str, Any]:
        """Return what is known of the device; ``{}`` if nothing was set."""
        entry = self.backend.last_written(DEVICES, DEVICE_KEY)
        return {} if entry is None else entry.value

    def get_task_history(self, limit: int | None = None) -> list[MemoryEntry]:
        """Return the records of tasks, at most `limit` of them."""
        return self.backend.select(MemoryQuery(category=TASKS, limit=limit))

    # --- changing and deleting -------------------------------------------------------------------

    def update_memory(
        self,
        memory_id: str,
        value: dict[str, Any] | None = None,
        tags: Collection[str] | None = None,
        module: str | None = None,
        task_id: str | None = None,
    ) -> bool:
        """Replace the value, the tags or both; return whether the memory exists.

        What is None stays; ``tags=[]`` clears the tags. The timestamp becomes now, ``created_at`` stays,
        ``updated_at`` is added to the provenance, and ``updated_by`` if the module is known.

        Raises:
            InvalidEntryError: a field cannot be stored exactly; the memory stays as it was.
        """
        memory_id = _text("memory_id", memory_id)
        author = self._author(module, task_id)
        tags = None if tags is None else _tag_list(tags)

        def update(moment: datetime) -> bool:
            entry = self.backend.read(memory_id)
            if entry is None:
                return False
            self._update(entry, value, tags, author, moment)
            return True

        return self._change(update)

    def delete_memory(self, memory_id: str, *, module: str | None = None, task_id: str | None = None) -> bool:
        """Delete the memory; return whether there was one."""
        memory_id = _text("memory_id", memory_id)
        self._author(module, task_id)

        return self._change(lambda _: self.backend.discard(memory_id))

    def clear_all(self, *, module: str | None = None, task_id: str | None = None) -> int:
        """DELETE EVERY MEMORY of this namespace, all or none; return how many there were."""
        author = self._author(module, task_id)
        removed = self._change(lambda _: self.backend.clear())
        _log("cleared all %d memories, by %s", removed, author)
        return removed

    # --- transactions, authors, namespaces -------------------------------------------------------

    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """Make the changes of a ``with`` block one: all are kept, at its end, or none if it raises anything.

        Inside another transaction it takes back its own part only. Other threads and processes see
        nothing before the end; writers wait, readers do not. It belongs to the thread that opened it.

        Raises:
            UnsupportedError: the backend has no transactions.

        >>> memory = MemoryModule(storage_dir=getfixture("tmp_path"))
        >>> with memory.transaction():
        ...     for number in range(1000):
        ...         _ = memory.record_task(str(number), {"status": "completed"})
        >>> memory.count_memories(category="tasks")
        1000
        """
        return _ask(self.backend, Transactional).transaction()

    @contextlib.contextmanager
    def acting_as(self, *, module: str | None = None, task_id: str | None = None) -> Iterator[None]:
        """Make `module` and `task_id` the author of the changes of a ``with`` block that name none.

        Holds for this memory and its siblings of other namespaces, in this thread or async task.
        """
        known = _authors.get()
        outer = known.get(self._token, _NOBODY)
        author = _Author(
            outer.module if module is None else check_text("module", module),
            outer.task_id if task_id is None else check_text("task_id", task_id),
        )
        reset = _authors.set({**known, self._token: author})
        try:
            yield
        finally:
            with contextlib.suppress(ValueError):  # an async generator that was left open ends in another context
                _authors.reset(reset)

    @property
    def namespace(self) -> str:
        """The namespace this memory is bound to."""
        return str(getattr(self.backend, "namespace", DEFAULT_NAMESPACE))

    def for_namespace(self, namespace: str) -> MemoryModule:
        """Return a memory of another namespace of the same store, sharing its connections.

        Raises:
            UnsupportedError: the backend has no namespaces.
        """
        sibling = object.__new__(type(self))
        sibling.__dict__.update(self.__dict__)
        sibling.backend = _ask(self.backend, Namespaced).for_namespace(namespace)
        return sibling

    def list_namespaces(self) -> list[str]:
        """Return the names of the namespaces that hold a memory, sorted."""
        return _ask(self.backend, Namespaced).list_namespaces()

    def erase_namespace(self, namespace: str, *, module: str | None = None, task_id: str | None = None) -> int:
        """DELETE EVERY MEMORY OF `namespace`, overwriting their bytes in the store; return how many there were."""
        author = self._author(module, task_id)
        removed = _ask(self.backend, Namespaced).erase_namespace(check_namespace(namespace))
        _log("erased a namespace of %d memories, by %s", removed, author)
        return removed

    # --- inside ----------------------------------------------------------------------------------

    def _change(self, work: Callable[[datetime], Result]) -> Result:
        """Return what `work` returns, given the moment at which all it changes is one change.

        Where the backend shares commits, `work` may be called in another thread, and again: so all that
        is the caller's (clock, author, arguments) was read before. On a backend without transactions it is
        atomic between the threads of this module only.
        """
        now = self._now()
        backend = self.backend
        if not backend.has_capability(Transactional):
            with self._plain.lock:
                return work(self._plain.moment(now))
        store = backend.capability(Transactional)
        if backend.has_capability(SharesCommits):
            return backend.capability(SharesCommits).change(lambda: work(store.moment(now)))
        with store.transaction():
            return work(store.moment(now))

    def _now(self) -> datetime:
        now = self._clock()
        if not isinstance(now, datetime) or now.tzinfo is None:
            raise InvalidSettingError("clock: must return an aware datetime")
        return now.astimezone(UTC)

    def _author(self, module: str | None, task_id: str | None, usual: str | None = None) -> _Author:
        acting = _authors.get().get(self._token, _NOBODY)
        module = acting.module if module is None else check_text("module", module)
        task_id = acting.task_id if task_id is None else check_text("task_id", task_id)
        return _Author(usual if module is None else module, task_id)

    def _create(
        self,
        category: str,
        key: str,
        value: dict[str, Any],
        entity_type: str,
        entity_id: str | None,
        tags: list[str],
        author: _Author,
        moment: datetime,
    ) -> str:
        entry = MemoryEntry(
            new_id(),
            category,
            key,
            value,
            tags,
            entity_type,
            entity_id,
            moment,
            {
                "module": author.module or NO_MODULE,
                "task_id": author.task_id or NO_TASK,
                "created_at": moment.isoformat(),
            },
        )
        self.backend.create(entry)
        return entry.id

    def _update(
        self,
        entry: MemoryEntry,
        value: dict[str, Any] | None,
        tags: list[str] | None,
        author: _Author,
        moment: datetime,
    ) -> None:
        if value is not None:
            entry.value = value
        if tags is not None:
            entry.tags = tags
        entry.timestamp = moment
        entry.provenance["updated_at"] = moment.isoformat()
        if author.module:
            entry.provenance["updated_by"] = author.module
        if author.task_id:
            entry.provenance["updated_task_id"] = author.task_id
        self.backend.update(entry)

    def _upsert(
        self,
        category: str,
        key: str,
        value: dict[str, Any],
        entity_type: str,
        entity_id: str | None,
        tags: Collection[str] | None,
        author: _Author,
    ) -> str:
        if value is None:
            raise InvalidEntryError("value", "takes a dict, not None")
        check_name("category", category)
        check_name("key", key)
        tags = None if tags is None else _tag_list(tags)

        def upsert(moment: datetime) -> str:
            entry = self.backend.last_written(category, key)
            if entry is None:
                return self._create(category, key, value, entity_type, entity_id, tags or [], author, moment)
            self._update(entry, value, tags, author, moment)
            return entry.id

        return self._change(upsert)


def _ask(backend: StorageBackend, protocol: type[Capability]) -> Capability:
    try:
        return backend.capability(protocol)
    except UnsupportedError as error:
        known = ", ".join(backend_registry.backends_with(protocol))
        raise UnsupportedError(f"{error}; backends that have it: {known}") from None


def _log(decision: str, count: int, author: _Author) -> None:
    import logging  # 8 ms to import, which most sessions never need

    logging.getLogger("jarvis.memory").info(decision, count, author.module or NO_MODULE)


class _PlainClock:
    """Stands in for `Transactional.moment` on a backend of eight verbs, for one module's threads."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._last = datetime.min.replace(tzinfo=UTC)

    def moment(self, now: datetime) -> datetime:
        self._last = max(now, self._last + timedelta(microseconds=1))
        return self._last


def _tag_list(tags: Collection[str] | None) -> list[str]:
    """Return tags as the list an entry holds; what is no collection of tags is left to the entry's check."""
    if tags is None:
        return []
    if isinstance(tags, (str, bytes, Mapping)) or not isinstance(tags, Collection):
        raise InvalidEntryError("tags", f"takes a list of str, not {type(tags).__name__}")
    return list(tags)


def _text(field: str, text: object) -> str:
    if not isinstance(text, str):
        raise InvalidQueryError(f"{field}: takes a str, not {type(text).__name__}")
    return str.__str__(text)  # of a member of a str enumeration, the text it stands for
