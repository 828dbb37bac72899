"""`MemoryModule`: what an assistant should still know tomorrow."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import MAXYEAR, UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

from jarvis import backend_registry
from jarvis._calls.arguments import is_on, tag_list
from jarvis._calls.caller import Gates
from jarvis.backend_registry import ask
from jarvis.capabilities import (
    Compresses,
    Erases,
    Expires,
    KeepsHistory,
    MendsDates,
    Namespaced,
    Past,
    Settles,
    SharesCommits,
    Transactional,
)
from jarvis.codec.instants import datetime_of, instant_of
from jarvis.codec.unstorable import storable
from jarvis.errors import (
    ConflictError,
    EntryNotFoundError,
    InvalidEntryError,
    InvalidQueryError,
    InvalidSettingError,
)
from jarvis.keys import KeySources
from jarvis.model.author import NOBODY, Author, acting
from jarvis.model.change import Change
from jarvis.model.dating import Dates
from jarvis.model.entry import (
    DEFAULT_NAMESPACE,
    MOST_VERSIONS,
    NO_MODULE,
    MemoryEntry,
    MemoryQuery,
    asked_name,
    asked_text,
    check_name,
    check_namespace,
    check_text,
)
from jarvis.model.identifiers import new_id
from jarvis.model.options import ARCHIVED, Compression, Encryption, HistoryPolicy, RetentionRule, checked
from jarvis.model.recompression import Progress, Recompression
from jarvis.model.revision import Difference, Operation, Revision
from jarvis.services.forgetting import Forgets, Lifetime, moment_of_expiry, rules_of
from jarvis.services.looking_back import LooksBack
from jarvis.services.merging import check_changes, merged
from jarvis.services.ongoing import Ongoing
from jarvis.services.securing import Secures
from jarvis.storage_backend import StorageBackend

__all__ = [
    "Change",
    "Difference",
    "HistoryPolicy",
    "MemoryEntry",
    "MemoryModule",
    "MemoryQuery",
    "RetentionRule",
    "Revision",
]

PREFERENCES, TASKS, DEVICES = "preferences", "tasks", "devices"
DEVICE_KEY = "device_info"

_USUAL_DIRECTORY = "~/.jarvis/memory"
_USUAL_HISTORY = HistoryPolicy()
_USUAL: dict[str, Any] = {
    "read_only": False,
    "durability": "full",
    "busy_timeout_seconds": 30.0,
    "history": _USUAL_HISTORY,
    "encryption": "off",
    "keys": (),
    "compression": "auto",
    "create": True,
}

Result = TypeVar("Result")
Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the time now, aware, in UTC."""
    return datetime.now(UTC)


class MemoryModule(LooksBack, Forgets, Secures):
    """A memory that is kept across sessions, in one namespace of one store.

    Safe to use from any number of threads and processes at once. Opens its store at the first call,
    and again after `shutdown`. Never calling `shutdown` loses nothing.

    What returns a list returns the newest first. What returns entries returns copies. Every verb may
    raise `jarvis.errors.StoreError`; every changing one `jarvis.errors.InvalidEntryError`, which names
    the field that cannot be stored exactly, and takes ``module=``, ``task_id=`` and ``reason=``: who makes
    the change, for which task (see also `acting_as`), and why.

    Where a reading verb takes ``as_of=`` (a moment; naive means local time) it answers as it did then; at
    or after the newest change that is the present. It raises `jarvis.errors.HistoryUnavailableError` if
    that is not known (any more), and `jarvis.errors.UnsupportedError` if the backend keeps no history.

    A module with a rule that archives leaves what has the tag ``archived`` out of every list and count, unless
    the tags that are asked for name it, or ``include_archived=True`` is passed. One without hides nothing.

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
        history: how much of the past is kept, see `HistoryPolicy`.
        encryption: ``"on"`` encrypts a store that is created; ``"required"`` also refuses one that is plain. A store
            that is encrypted is opened with its keys, whatever this says.
        keys: where the keys of an encrypted store come from, see `jarvis.keys`.
        compression: how values from 1 KiB up are written: ``"auto"``, compressed fast; ``"max"``, as small as it
            gets, at 80 times the cost; ``"off"``, as they are. Whatever is stored is read. See also `recompress`.
        create: make a store that is not there; False: `StoreMissingError` at the first call, and nothing is made.
        retention: what `sweep` cleans up, see `RetentionRule`.
        clock: returns the time now, aware; for tests.

    Raises:
        UnknownBackendError: no backend has that name.
        UnsupportedError: the backend lacks something that an argument asks for.
        InvalidSettingError: an argument is out of range.

    >>> from jarvis.persistent_memory import MemoryModule
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
        history: HistoryPolicy = _USUAL_HISTORY,
        encryption: Encryption = "off",
        keys: KeySources = (),
        compression: Compression = "auto",
        create: bool = True,
        retention: Sequence[RetentionRule] = (),
        clock: Clock = utc_now,
    ) -> None:
        check_namespace(namespace)
        options: dict[str, Any] = {
            "read_only": read_only,
            "durability": durability,
            "busy_timeout_seconds": busy_timeout_seconds,
            "history": history,
            "encryption": encryption,
            "keys": tuple(keys) if type(keys) is list else keys,
            "compression": compression,
            "create": create,
        }
        asked_for = {name: held for name, held in options.items() if not _is_usual(name, held)}
        if not callable(clock):
            raise InvalidSettingError(f"clock: takes a function, not {type(clock).__name__}")
        if storage_backend is None:
            if namespace != DEFAULT_NAMESPACE:
                asked_for["namespace"] = namespace
            directory = checked("storage_dir", _USUAL_DIRECTORY if storage_dir is None else storage_dir)
            backend: Any = backend_registry.open_backend(backend_type, directory, **asked_for)
        else:
            if not issubclass(type(storage_backend), StorageBackend):
                raise InvalidSettingError(
                    f"storage_backend: takes a StorageBackend, not {type(storage_backend).__name__}; "
                    "a directory goes into storage_dir="
                )
            if storage_dir is not None or asked_for:
                named = ", ".join([*asked_for, *([] if storage_dir is None else ["storage_dir"])])
                raise InvalidSettingError(f"{named}: set it on the backend that is given as storage_backend")
            backend = storage_backend
            if namespace != DEFAULT_NAMESPACE:
                ask(storage_backend, Namespaced)
                backend = storage_backend.for_namespace(namespace)
        if clock is not utc_now:
            backend = backend.bind(clock=functools.partial(_time_of, clock))
        self.backend: StorageBackend = backend
        self.retention = rules_of(retention)
        self._sweepers, self._ongoing = [], Ongoing()
        self._clock = clock
        self._gates = Gates()
        self._dates = Dates()
        self._token = id(self._dates)

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
        return {"backend": self.backend, "clock": self._clock, "retention": self.retention}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.backend, self._clock, self.retention = state["backend"], state["clock"], state["retention"]
        self._sweepers, self._ongoing = [], Ongoing()
        self._gates = Gates()
        self._dates = Dates()
        self._token = id(self._dates)

    # --- life ------------------------------------------------------------------------------------

    def bootstrap(self) -> None:
        """Make the store ready: create it if absent, migrate or verify it if need be; else nothing changes.

        Optional: every other verb does it by itself.
        """
        self.backend.bootstrap()
        if self.backend.has_capability(MendsDates):
            last = self.backend.capability(MendsDates).last_moment()
            if last is not None:
                self._dates.look(last, _time_of(self._clock), self.backend)

    def shutdown(self) -> None:
        """Release files and locks; end every watch, iteration and sweep of this memory and its siblings of other
        namespaces. Any number of times.

        A watch just ends, an iteration raises `StoreClosedError` at its next step, a sweep ends behind its transaction:
        nothing that was begun before opens the store again. The next call does.

        In a signal handler that interrupts a change it releases nothing.

        Raises:
            TransactionError: the calling thread has a transaction open.
        """
        if self._gates.here.is_closed():
            return
        self.backend.shutdown()
        had_any = self._ongoing.end()
        if self._stop_sweeping() or had_any:
            self.backend.shutdown()  # which one of them may have opened again, or have kept open

    def recompress(self, progress: Progress | None = None) -> Recompression:
        """Store every value of the store, in all namespaces and with the past, as `compression` has it.

        For a store from before there was compression, or after the setting was changed. It is no change: versions,
        timestamps, history and feed stay. What is compressed stays so with ``"auto"``; with ``"max"`` it becomes
        smaller, with ``"off"`` it is written out. Others write in between; if it is ended, call it again.

        Args:
            progress: is called with (done, total) after each step.

        Raises:
            UnsupportedError: the backend has no compression.
            TransactionError: the calling thread has a transaction open.

        >>> import tempfile
        >>> from jarvis.persistent_memory import MemoryModule
        >>> directory = tempfile.mkdtemp()
        >>> memory = MemoryModule(storage_dir=directory, compression="off")
        >>> _ = memory.create_memory("notes", "long", {"text": "again and again " * 500}, "note")
        >>> memory.shutdown()
        >>> memory = MemoryModule(storage_dir=directory)
        >>> done = memory.recompress()
        >>> done.entries, done.bytes_before > 5 * done.bytes_after
        (1, True)
        """
        return ask(self.backend, Compresses).recompress(checked("progress", progress))

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
        *,
        ttl: Lifetime | None = None,
        expires_at: datetime | None = None,
        reason: str | None = None,
    ) -> str:
        """Store a new memory, whether or not one with this key exists; return its id (a UUID).

        With `ttl` (how long from now on: a timedelta or seconds) or `expires_at` (until when; naive means local
        time) it expires: from that instant on no call returns it. See also `touch_memory`.

        Raises:
            InvalidEntryError: a field cannot be stored exactly; nothing was stored.
        """
        author, tags = self._author(module, task_id, reason), tag_list(tags)
        until = self._expiry(ttl, expires_at)
        value = self.backend.prepare(value)
        return self._change(
            lambda moment: self._create(category, key, value, entity_type, entity_id, tags, until, author, moment)
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
        *,
        ttl: Lifetime | None = None,
        expires_at: datetime | None = None,
        reason: str | None = None,
    ) -> str:
        """Give the memory of (category, key), the one written last, this value, or create it; return its id.

        Atomic: of any number of threads and processes that upsert one key at once, one creates and
        the others update. An update leaves entity type and id as they are, the expiry if neither `ttl` nor
        `expires_at` is given, and the tags if None, but for ``archived`` where this module hides what has it: what
        is set again is in use again. Over one that has expired a new memory is created.

        Raises:
            InvalidEntryError: a field cannot be stored exactly; nothing was changed.
            UnsupportedError: the backend has no transactions.
        """
        ask(self.backend, Transactional)
        author = self._author(module, task_id, reason)
        until = self._expiry(ttl, expires_at)
        return self._upsert(category, key, value, entity_type, entity_id, tags, until, author)

    def set_user_preference(
        self,
        key: str,
        value: dict[str, Any],
        *,
        ttl: Lifetime | None = None,
        expires_at: datetime | None = None,
        module: str | None = None,
        task_id: str | None = None,
        reason: str | None = None,
    ) -> str:
        """Set the preference `key`, creating or replacing it; return its id.

        Preferences have a place of their own: a task or device with the same key is not touched. `ttl` and
        `expires_at` are as for `upsert_memory`; a preference that has expired is absent.
        """
        author = self._author(module, task_id, reason, "preferences_manager")
        until = self._expiry(ttl, expires_at)
        return self._upsert(PREFERENCES, key, value, "user_preference", None, None, until, author)

    def set_device_info(
        self,
        device_info: dict[str, Any],
        *,
        module: str | None = None,
        task_id: str | None = None,
        reason: str | None = None,
    ) -> str:
        """Set what is known of the device, creating or replacing it; return its id."""
        author = self._author(module, task_id, reason, "device_manager")
        return self._upsert(DEVICES, DEVICE_KEY, device_info, "device", None, None, None, author)

    def record_task(
        self,
        task_id: str,
        task_data: dict[str, Any],
        tags: Collection[str] | None = None,
        *,
        ttl: Lifetime | None = None,
        expires_at: datetime | None = None,
        module: str | None = None,
        reason: str | None = None,
        on_unstorable: Literal["raise", "repr"] = "raise",
    ) -> str:
        """Store a record of a task, under the key ``task_<task_id>``; return the record's id.

        Tagged ``executed`` unless `tags` is given. Recording a task again adds a record. `ttl` and `expires_at` are
        as for `create_memory`.

        With ``on_unstorable="repr"`` a part of `task_data` that cannot be stored is kept as the text that ``repr``
        gives, up to 1,000 characters, and is no reason to refuse the record: a task that succeeded stays one.
        """
        if type(task_id) is not str:
            raise InvalidEntryError("task_id", f"takes a str, not {type(task_id).__name__}")
        author = self._author(module, task_id, reason, "task_executor")
        tags = ["executed"] if tags is None else tag_list(tags)
        until = self._expiry(ttl, expires_at)
        task_data = self.backend.prepare(storable(task_data, on_unstorable))
        return self._change(
            lambda moment: self._create(
                TASKS, f"task_{task_id}", task_data, "task", task_id, tags, until, author, moment
            )
        )

    # --- reading ---------------------------------------------------------------------------------

    def get_memory(self, memory_id: str, *, as_of: datetime | None = None) -> MemoryEntry | None:
        """Return the memory with this id, or None."""
        if as_of is None:
            return self.backend.read(asked_text("memory_id", memory_id))
        return self._past(as_of).read(asked_text("memory_id", memory_id))

    def get_memory_by_key(self, key: str, *, as_of: datetime | None = None) -> MemoryEntry | None:
        """Return the newest memory with this key, in any category, or None."""
        if as_of is None:
            return self.backend.newest_of_key(asked_name("key", key))
        return self._past(as_of).newest_of_key(asked_name("key", key))

    def get_memories_by_category(self, category: str, *, include_archived: bool = False) -> list[MemoryEntry]:
        """Return every memory of the category."""
        return self.backend.select(
            MemoryQuery(category=asked_text("category", category), exclude_tags=self._hidden(include_archived))
        )

    def get_memories_by_entity(
        self, entity_type: str, entity_id: str | None = None, *, include_archived: bool = False
    ) -> list[MemoryEntry]:
        """Return every memory about entities of this type, or about the one with this id."""
        return self.backend.select(
            MemoryQuery(
                entity_type=asked_text("entity_type", entity_type),
                entity_id=entity_id,
                exclude_tags=self._hidden(include_archived),
            )
        )

    def get_memories_by_tags(
        self, tags: Collection[str], *, tags_match: Literal["any", "all"] = "any", include_archived: bool = False
    ) -> list[MemoryEntry]:
        """Return every memory that has any, or all, of the tags; none if `tags` is empty."""
        if tags is None:
            raise InvalidQueryError('tags: takes a list of str, such as ["ui"]')
        return self.backend.select(
            MemoryQuery(tags=tags, tags_match=tags_match, exclude_tags=self._hidden(include_archived, tags))
        )

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
        as_of: datetime | None = None,
        include_archived: bool = False,
    ) -> list[MemoryEntry]:
        """Return the memories that satisfy every filter that is given.

        Args:
            category, entity_type, entity_id, key: equal, whole; ``""`` matches only ``""``.
            tags: has any of these tags, or all of them by `tags_match`; ``[]`` matches nothing.
            tags_match: ``"any"`` or ``"all"``.
            since: timestamp at this moment or later; naive means local time.
            until: timestamp before this moment.
            where: conditions on the value, see `jarvis.model.value_filter`.
            limit: at most this many.
            after: only what comes after this entry (or its `MemoryEntry.cursor`) in the list: pass the last
                entry of a page to get the next page. Stable while others write: nothing that stays
                unchanged is skipped or given twice.
            as_of: answer as at this moment.
            include_archived: also what this module hides.

        Raises:
            InvalidQueryError: a filter means nothing; the message says what it takes.
        """
        return self._seen(as_of).select(
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
                exclude_tags=self._hidden(include_archived, tags),
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
        as_of: datetime | None = None,
        include_archived: bool = False,
    ) -> int:
        """Return how many memories `search_memories` would return, without building them."""
        return self._seen(as_of).count(
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
                exclude_tags=self._hidden(include_archived, tags),
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
        as_of: datetime | None = None,
        include_archived: bool = False,
    ) -> Iterator[MemoryEntry]:
        """Yield what `search_memories` returns, one by one, in memory that does not grow with their number.

        The iteration sees the store as it was at its first step, whatever is written meanwhile, and
        blocks no writer. Close it, or let it end: while it is open the store's log cannot be folded in (it is logged
        when that has 64 MB).
        Inside a transaction the entries are collected first, so that it sees the transaction's changes.

        Raises:
            StoreClosedError: at the next step behind `shutdown`, which closes what the iteration has open.
        """
        query = MemoryQuery(
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
            exclude_tags=self._hidden(include_archived, tags),
        )
        return self._ongoing.iterating(self.backend, self._seen(as_of).iterate(query))

    def list_memories(
        self, *, limit: int | None = None, after: MemoryEntry | str | None = None, include_archived: bool = False
    ) -> list[MemoryEntry]:
        """Return every memory, or a page of them; `limit` and `after` as in `search_memories`."""
        return self.backend.select(MemoryQuery(limit=limit, after=after, exclude_tags=self._hidden(include_archived)))

    def get_user_preferences(self, *, as_of: datetime | None = None, include_archived: bool = False) -> dict[str, Any]:
        """Return the value of every preference by its key; of several with one key, the one written last."""
        held: dict[str, MemoryEntry] = {}
        query = MemoryQuery(category=PREFERENCES, exclude_tags=self._hidden(include_archived))
        for entry in self._seen(as_of).select(query):
            known = held.setdefault(entry.key, entry)
            if known.position and entry.position and entry.position[1] > known.position[1]:
                held[entry.key] = entry
        return {key: entry.value for key, entry in held.items()}

    def get_device_info(self) -> dict[str, Any]:
        """Return what is known of the device; ``{}`` if nothing was set."""
        entry = self.backend.last_written(DEVICES, DEVICE_KEY)
        return {} if entry is None else entry.value

    def get_task_history(
        self, limit: int | None = None, *, as_of: datetime | None = None, include_archived: bool = False
    ) -> list[MemoryEntry]:
        """Return the records of tasks, at most `limit` of them."""
        query = MemoryQuery(category=TASKS, limit=limit, exclude_tags=self._hidden(include_archived))
        return self._seen(as_of).select(query)

    # --- changing and deleting -------------------------------------------------------------------

    def update_memory(
        self,
        memory_id: str,
        value: dict[str, Any] | None = None,
        tags: Collection[str] | None = None,
        module: str | None = None,
        task_id: str | None = None,
        *,
        if_version: int | None = None,
        reason: str | None = None,
    ) -> bool:
        """Replace the value, the tags or both; return whether the memory exists.

        What is None stays; ``tags=[]`` clears the tags. The timestamp becomes now, ``created_at`` stays,
        ``updated_at`` is added to the provenance, and ``updated_by`` if the module is known.

        Args:
            memory_id: which memory.
            value: the new value.
            tags: the new tags.
            module, task_id, reason: who makes the change, for which task, and why.
            if_version: make the change only if the memory still has this version.

        Raises:
            InvalidEntryError: a field cannot be stored exactly; the memory stays as it was.
            ConflictError: it has another version than `if_version`, or is gone; it stays as it is.
        """
        tags = None if tags is None else tag_list(tags)
        author = self._author(module, task_id, reason)
        value = None if value is None else self.backend.prepare(value)
        return self._revise(memory_id, lambda entry: entry.value if value is None else value, tags, author, if_version)

    def merge_memory(
        self,
        memory_id: str,
        changes: Mapping[str, Any],
        *,
        if_version: int | None = None,
        module: str | None = None,
        task_id: str | None = None,
        reason: str | None = None,
    ) -> bool:
        """Lay `changes` over the value, as a JSON merge patch; return whether the memory exists.

        What is a dict on both sides is merged, what is None is removed, all else is replaced
        (https://www.rfc-editor.org/rfc/rfc7396). To set None, use `modify_memory`.

        Raises:
            InvalidEntryError, ConflictError: as `update_memory` does.
        """
        check_changes(changes)
        author = self._author(module, task_id, reason)
        return self._revise(memory_id, lambda entry: merged(entry.value, changes), None, author, if_version)

    def modify_memory(
        self,
        memory_id: str,
        change: Callable[[dict[str, Any]], dict[str, Any]],
        *,
        if_version: int | None = None,
        module: str | None = None,
        task_id: str | None = None,
        reason: str | None = None,
    ) -> bool:
        """Replace the value by what `change` returns, given a copy of it; return whether the memory exists.

        `change` is called once, in this thread, inside the transaction: nobody else changes the memory in
        between, and other writers wait for it. If it raises, nothing is changed. What it changes with this memory is
        part of the same transaction.

        Raises:
            InvalidEntryError, ConflictError: as `update_memory` does.

        >>> import tempfile
        >>> from jarvis.persistent_memory import MemoryModule
        >>> memory = MemoryModule(storage_dir=tempfile.mkdtemp())
        >>> memory_id = memory.set_user_preference("visits", {"count": 1})
        >>> memory.modify_memory(memory_id, lambda value: {"count": value["count"] + 1})
        True
        >>> memory.get_user_preferences()["visits"]
        {'count': 2}
        """
        if not callable(change):
            raise InvalidEntryError("change", f"takes a function, not {type(change).__name__}")
        author = self._author(module, task_id, reason)
        memory_id = asked_text("memory_id", memory_id)
        if not self.backend.has_capability(Transactional):
            with self._dates.lock:
                return self._modify(memory_id, change, if_version, author)
        with self.transaction():
            return self._modify(memory_id, change, if_version, author)

    def _modify(
        self,
        memory_id: str,
        change: Callable[[dict[str, Any]], dict[str, Any]],
        if_version: int | None,
        author: Author,
    ) -> bool:
        """Do what `modify_memory` does, in a transaction: `change` may call other verbs, which take part in it."""
        entry = self.backend.read(memory_id)
        if if_version is not None:
            _check_version(entry, if_version)
        if entry is None:
            return False
        value = change(entry.value)
        if value is None:
            raise InvalidEntryError("value", "takes a dict: the function must return the new value")
        return self._change(lambda moment: self._revise_read(entry, value, None, author, if_version, moment))

    def delete_memory(
        self,
        memory_id: str,
        *,
        if_version: int | None = None,
        module: str | None = None,
        task_id: str | None = None,
        reason: str | None = None,
    ) -> bool:
        """Delete the memory; return whether there was one.

        What it held stays in its history, for as long as `HistoryPolicy` says.

        Raises:
            ConflictError: it has another version than `if_version`, or is gone; it stays as it is.
        """
        memory_id = asked_text("memory_id", memory_id)
        author = self._author(module, task_id, reason)

        def delete(_: datetime) -> bool:
            if if_version is not None:
                _check_version(self.backend.read(memory_id), if_version)
            self._sign(author, "delete")
            return self.backend.discard(memory_id)

        return self._change(delete)

    def clear_all(
        self,
        *,
        erase: bool = False,
        module: str | None = None,
        task_id: str | None = None,
        reason: str | None = None,
    ) -> int:
        """DELETE EVERY MEMORY of this namespace, all or none; return how many there were.

        They can be restored one by one for a time (`HistoryPolicy.cleared_max_age`). With ``erase=True``
        they and their past are gone for ever, as with `erase_namespace`.
        """
        author = self._author(module, task_id, reason)
        if is_on("erase", erase):
            return self._clear_and_erase(author)

        def clear(_: datetime) -> int:
            self._sign(author, "clear")
            return self.backend.clear()

        removed = self._change(clear)
        _log("cleared all %d memories, by %s", removed, author)
        return removed

    # --- transactions, authors, namespaces -------------------------------------------------------

    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """Make the changes of a ``with`` block one: all are kept, at its end, or none if it raises anything.

        Inside another transaction it takes back its own part only. Other threads and processes see
        nothing before the end; writers wait, readers do not. It belongs to the thread that opened it.

        Raises:
            UnsupportedError: the backend has no transactions.

        >>> import tempfile
        >>> from jarvis.persistent_memory import MemoryModule
        >>> memory = MemoryModule(storage_dir=tempfile.mkdtemp())
        >>> with memory.transaction():
        ...     for number in range(1000):
        ...         _ = memory.record_task(str(number), {"status": "completed"})
        >>> memory.count_memories(category="tasks")
        1000
        """
        store = ask(self.backend, Transactional)
        self._gates.here.check(self.backend)
        return self._transaction(store)

    @contextlib.contextmanager
    def acting_as(self, *, module: str | None = None, task_id: str | None = None) -> Iterator[None]:
        """Make `module` and `task_id` the author of the changes of a ``with`` block that name none.

        Holds for this memory and its siblings of other namespaces, in this thread or async task.
        """
        known = acting.get()
        outer = known.get(self._token, NOBODY)
        author = Author(
            outer.module if module is None else check_text("module", module),
            outer.task_id if task_id is None else check_text("task_id", task_id),
        )
        reset = acting.set({**known, self._token: author})
        try:
            yield
        finally:
            with contextlib.suppress(ValueError):  # an async generator that was left open ends in another context
                acting.reset(reset)

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
        ask(self.backend, Namespaced)
        sibling.backend = self.backend.for_namespace(namespace)
        return sibling

    def list_namespaces(self) -> list[str]:
        """Return the names of the namespaces that hold a memory, sorted."""
        return ask(self.backend, Namespaced).list_namespaces()

    # --- inside ----------------------------------------------------------------------------------

    def _change(self, work: Callable[[datetime], Result]) -> Result:
        """Return what `work` returns, given the moment at which all it changes is one change.

        Where the backend shares commits, `work` may be called in another thread, and again: so all that
        is the caller's (author, arguments) was read before. The clock is read when the writers' lock is had: a
        change is not dated before others could see it. On a backend without transactions it is
        atomic between the threads of this module only.
        """
        backend, gate = self.backend, self._gates.here
        if gate.call is not None:
            gate.check(backend)
        try:
            gate.call = sys._getframe()
            if backend.has_capability(SharesCommits):
                given = backend.capability(Transactional).moment
                return backend.capability(SharesCommits).change(lambda: work(self._date(given)))
            if not backend.has_capability(Transactional):
                with self._dates.lock:
                    return work(self._date(self._dates.moment))
            store = backend.capability(Transactional)
            with store.transaction():
                if backend.has_capability(Settles):
                    backend.capability(Settles).announce()
                return work(self._date(store.moment))
        finally:
            gate.call = None

    def _date(self, given: Callable[[datetime], datetime]) -> datetime:
        """Return the moment that the store has `given`, or the clock's if the store is far ahead of that."""
        now = self._now()
        moment = given(now)
        return now if moment > now and self._dates.look(moment, now, self.backend) else moment

    def _behind_its_key(self, key: str, entry_id: str | None, moment: datetime) -> datetime:
        """Return `moment`, or one right behind the newest other entry with this key: what is written last leads."""
        others = [each for each in self.backend.select(MemoryQuery(key=key, limit=2)) if each.id != entry_id]
        return max([moment, *(datetime_of(instant_of(each.timestamp) + 1) for each in others)])

    def _now(self) -> datetime:
        now = _time_of(self._clock)
        if now.year == MAXYEAR:  # a change dated so would be the newest for ever
            raise InvalidSettingError("clock: stands at the end of the calendar; set the clock of this machine right")
        return now

    def _expiry(self, ttl: Lifetime | None, expires_at: datetime | None) -> datetime | None:
        if ttl is None and expires_at is None:
            return None
        ask(self.backend, Expires)
        return moment_of_expiry(self._now(), ttl, expires_at)

    @contextlib.contextmanager
    def _transaction(self, store: Transactional) -> Iterator[None]:
        keeps_history = self.backend.has_capability(KeepsHistory)
        with store.transaction():
            yield
            gate = self._gates.here
            call = gate.call
            try:
                gate.call = call or sys._getframe()
                if keeps_history:
                    self.backend.capability(KeepsHistory).complete(self._now())
            finally:
                gate.call = call

    @contextlib.contextmanager
    def _verb_transaction(self) -> Iterator[None]:
        """Open a transaction in which nothing takes part that interrupts the function whose block this is."""
        gate = self._gates.here
        gate.check(self.backend)
        try:
            gate.call = sys._getframe(2)
            with self._transaction(ask(self.backend, Transactional)):
                yield
        finally:
            gate.call = None

    def _clear_and_erase(self, author: Author) -> int:
        with self._verb_transaction():
            there = self.backend.count(MemoryQuery())
            self._date(ask(self.backend, Transactional).moment)
            self._sign(author, "erase")
            ask(self.backend, Erases).erase(None)
        ask(self.backend, Erases).finish_erasing(())
        _log("erased all %d memories, by %s", there, author)
        return there

    def _seen(self, as_of: datetime | None) -> Past:
        return self.backend if as_of is None else self._past(as_of)

    def _past(self, as_of: datetime) -> Past:
        return ask(self.backend, KeepsHistory).as_of(as_of)

    def _author(
        self, module: str | None, task_id: str | None, reason: str | None = None, usual: str | None = None
    ) -> Author:
        known = acting.get().get(self._token, NOBODY)
        module = known.module if module is None else check_text("module", module)
        task_id = known.task_id if task_id is None else check_text("task_id", task_id)
        return Author(
            usual if module is None else module, task_id, None if reason is None else check_text("reason", reason)
        )

    def _sign(self, author: Author, operation: Operation) -> None:
        if self.backend.has_capability(KeepsHistory):
            self.backend.capability(KeepsHistory).sign(author.signature(operation))

    def _create(
        self,
        category: str,
        key: str,
        value: dict[str, Any],
        entity_type: str,
        entity_id: str | None,
        tags: list[str],
        expires_at: datetime | None,
        author: Author,
        moment: datetime,
    ) -> str:
        if self._dates.are_ahead:
            moment = self._behind_its_key(key, None, moment)
        entry = MemoryEntry(
            new_id(),
            category,
            key,
            value,
            tags,
            entity_type,
            entity_id,
            moment,
            author.creates(moment),
            expires_at=expires_at,
        )
        self.backend.create(entry)
        return entry.id

    def _revise(
        self,
        memory_id: str,
        value_of: Callable[[MemoryEntry], dict[str, Any]],
        tags: list[str] | None,
        author: Author,
        if_version: int | None,
    ) -> bool:
        memory_id = asked_text("memory_id", memory_id)
        return self._change(lambda moment: self._revised(memory_id, value_of, tags, author, if_version, moment))

    def _revised(
        self,
        memory_id: str,
        value_of: Callable[[MemoryEntry], dict[str, Any]],
        tags: list[str] | None,
        author: Author,
        if_version: int | None,
        moment: datetime,
    ) -> bool:
        entry = self.backend.read(memory_id)
        if if_version is not None:
            _check_version(entry, if_version)
        if entry is None:
            return False
        return self._revise_read(entry, value_of(entry), tags, author, if_version, moment)

    def _revise_read(
        self,
        entry: MemoryEntry,
        value: dict[str, Any],
        tags: list[str] | None,
        author: Author,
        if_version: int | None,
        moment: datetime,
    ) -> bool:
        is_updated = self._update(entry, value, tags, None, author, moment)
        if not is_updated and if_version is not None:
            _check_version(None, if_version)
        return is_updated

    def _update(
        self,
        entry: MemoryEntry,
        value: dict[str, Any],
        tags: list[str] | None,
        expires_at: datetime | None,
        author: Author,
        moment: datetime,
    ) -> bool:
        """Update an entry that was read just now; return whether it was still there."""
        if self._dates.are_ahead:
            moment = self._behind_its_key(entry.key, entry.id, moment)
        entry.value = value
        if tags is not None:
            entry.tags = tags
        if expires_at is not None:
            entry.expires_at = expires_at
        author.updates(entry, moment)
        self._sign(author, "update")
        try:
            self.backend.update(entry)
        except EntryNotFoundError:  # it has expired, or where there are no transactions, was deleted
            return False
        return True

    def _upsert(
        self,
        category: str,
        key: str,
        value: dict[str, Any],
        entity_type: str,
        entity_id: str | None,
        tags: Collection[str] | None,
        expires_at: datetime | None,
        author: Author,
    ) -> str:
        if value is None:
            raise InvalidEntryError("value", "takes a dict, not None")
        check_name("category", category)
        check_name("key", key)
        tags = None if tags is None else tag_list(tags)
        value = self.backend.prepare(value)

        def upsert(moment: datetime) -> str:
            entry = self.backend.last_written(category, key)
            if entry is not None:
                kept = tags
                if kept is None and self._hides_archived():
                    kept = [tag for tag in entry.tags if tag != ARCHIVED]
                if self._update(entry, value, kept, expires_at, author, moment):
                    return entry.id
            return self._create(category, key, value, entity_type, entity_id, tags or [], expires_at, author, moment)

        return self._change(upsert)


_COMPARED = (bool, int, float, str, tuple, HistoryPolicy)  # what equals another one by no code of a caller


def _is_usual(name: str, held: object) -> bool:
    usual = _USUAL[name]
    return held is usual or (type(held) in _COMPARED and held == usual)


def _time_of(clock: Clock) -> datetime:
    now = clock()
    if type(now) is datetime and now.tzinfo is UTC:
        return now
    if not isinstance(now, datetime) or now.tzinfo is None:
        raise InvalidSettingError("clock: must return an aware datetime")
    try:
        return now.astimezone(UTC)
    except (OverflowError, ValueError, NotImplementedError):
        raise InvalidSettingError("clock: tells a time that lies outside of the calendar in UTC") from None


def _check_version(entry: MemoryEntry | None, wanted: int) -> None:
    if type(wanted) is not int:
        raise InvalidQueryError(f"if_version: takes a version, a whole number, not {type(wanted).__name__}")
    if abs(wanted) >= MOST_VERSIONS:
        raise InvalidQueryError("if_version: no memory has so many versions")
    if entry is None or entry.version != wanted:
        raise ConflictError(wanted, None if entry is None else entry.version)


def _log(decision: str, count: int, author: Author) -> None:
    import logging  # 8 ms to import, which most sessions never need

    logging.getLogger("jarvis.memory").info(decision, count, author.module or NO_MODULE)
