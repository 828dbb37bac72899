"""`AsyncMemoryModule`: the same verbs, awaitable.

SQLite has no asynchronous input and output, so each call runs in one of a few threads of its own; an
asynchronous core would make every caller pay five to ten times the price of a call.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import itertools
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Literal, ParamSpec, TypeVar

from jarvis.errors import TransactionError
from jarvis.memory_entry import DEFAULT_NAMESPACE, MemoryEntry
from jarvis.persistent_memory import Clock, MemoryModule, utc_now
from jarvis.storage_backend import StorageBackend

WORKERS = 4
"""Threads of one memory: readers overlap, writers queue at the store's lock anyway."""

_BATCH = 64  # entries an iteration fetches at a time: a hop between threads costs 50 to 150 µs

P = ParamSpec("P")
Result = TypeVar("Result")

# The thread that holds the transaction of this task, by the token of its memory.
_pinned: contextvars.ContextVar[Mapping[int, ThreadPoolExecutor]] = contextvars.ContextVar(
    "jarvis_pinned", default=MappingProxyType({})
)


class _Workers:
    """The threads of one memory and its siblings, started when first needed."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    def pool(self) -> ThreadPoolExecutor:
        pinned = _pinned.get().get(id(self))
        if pinned is not None:
            return pinned
        if self._pool is None:
            self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="jarvis-memory")
        return self._pool

    def stop(self) -> None:
        """Let the threads end when they have nothing left to do."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)


class AsyncMemoryModule:
    """`jarvis.persistent_memory.MemoryModule`, awaitable: the same arguments, results and errors.

    A call that is cancelled either never started or completes; it leaves nothing half-done. Calls
    inside ``async with memory.transaction():`` run in the one thread that holds the transaction.

    >>> import asyncio, tempfile
    >>> async def remember():
    ...     with tempfile.TemporaryDirectory() as directory:
    ...         async with AsyncMemoryModule(storage_dir=directory) as memory:
    ...             await memory.set_user_preference("theme", {"mode": "dark"})
    ...             return await memory.get_user_preferences()
    >>> asyncio.run(remember())
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
        self._memory = MemoryModule(
            storage_backend,
            storage_dir,
            backend_type,
            namespace=namespace,
            read_only=read_only,
            durability=durability,
            busy_timeout_seconds=busy_timeout_seconds,
            clock=clock,
        )
        self._workers = _Workers()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.backend!r})"

    async def __aenter__(self) -> AsyncMemoryModule:
        await self.bootstrap()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.shutdown()

    @property
    def backend(self) -> StorageBackend:
        """The backend that keeps the memories."""
        return self._memory.backend

    @property
    def namespace(self) -> str:
        """The namespace this memory is bound to."""
        return self._memory.namespace

    async def _run(self, call: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
        bound = functools.partial(contextvars.copy_context().run, call, *args, **kwargs)
        try:
            future = asyncio.get_running_loop().run_in_executor(self._workers.pool(), bound)
        except RuntimeError as error:
            raise TransactionError("the transaction that this task was started in has ended") from error
        return await future

    # --- the verbs: what each does is said once, in MemoryModule ---------------------------------

    async def bootstrap(self) -> None:
        await self._run(self._memory.bootstrap)

    async def create_memory(
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
        return await self._run(
            self._memory.create_memory, category, key, value, entity_type, entity_id, tags, module, task_id
        )

    async def upsert_memory(
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
        return await self._run(
            self._memory.upsert_memory, category, key, value, entity_type, entity_id, tags, module, task_id
        )

    async def set_user_preference(
        self, key: str, value: dict[str, Any], *, module: str | None = None, task_id: str | None = None
    ) -> str:
        return await self._run(self._memory.set_user_preference, key, value, module=module, task_id=task_id)

    async def set_device_info(
        self, device_info: dict[str, Any], *, module: str | None = None, task_id: str | None = None
    ) -> str:
        return await self._run(self._memory.set_device_info, device_info, module=module, task_id=task_id)

    async def record_task(
        self,
        task_id: str,
        task_data: dict[str, Any],
        tags: Collection[str] | None = None,
        *,
        module: str | None = None,
    ) -> str:
        return await self._run(self._memory.record_task, task_id, task_data, tags, module=module)

    async def get_memory(self, memory_id: str) -> MemoryEntry | None:
        return await self._run(self._memory.get_memory, memory_id)

    async def get_memory_by_key(self, key: str) -> MemoryEntry | None:
        return await self._run(self._memory.get_memory_by_key, key)

    async def get_memories_by_category(self, category: str) -> list[MemoryEntry]:
        return await self._run(self._memory.get_memories_by_category, category)

    async def get_memories_by_entity(self, entity_type: str, entity_id: str | None = None) -> list[MemoryEntry]:
        return await self._run(self._memory.get_memories_by_entity, entity_type, entity_id)

    async def get_memories_by_tags(
        self, tags: Collection[str], *, tags_match: Literal["any", "all"] = "any"
    ) -> list[MemoryEntry]:
        return await self._run(self._memory.get_memories_by_tags, tags, tags_match=tags_match)

    async def search_memories(
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
        return await self._run(
            self._memory.search_memories,
            category,
            entity_type,
            entity_id,
            tags,
            key,
            tags_match=tags_match,
            since=since,
            until=until,
            where=where,
            limit=limit,
            after=after,
        )

    async def count_memories(
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
        return await self._run(
            self._memory.count_memories,
            category,
            entity_type,
            entity_id,
            tags,
            key,
            tags_match=tags_match,
            since=since,
            until=until,
            where=where,
        )

    async def list_memories(
        self, *, limit: int | None = None, after: MemoryEntry | str | None = None
    ) -> list[MemoryEntry]:
        return await self._run(self._memory.list_memories, limit=limit, after=after)

    async def get_user_preferences(self) -> dict[str, Any]:
        return await self._run(self._memory.get_user_preferences)

    async def get_device_info(self) -> dict[str, Any]:
        return await self._run(self._memory.get_device_info)

    async def get_task_history(self, limit: int | None = None) -> list[MemoryEntry]:
        return await self._run(self._memory.get_task_history, limit)

    async def update_memory(
        self,
        memory_id: str,
        value: dict[str, Any] | None = None,
        tags: Collection[str] | None = None,
        module: str | None = None,
        task_id: str | None = None,
    ) -> bool:
        return await self._run(self._memory.update_memory, memory_id, value, tags, module, task_id)

    async def delete_memory(self, memory_id: str, *, module: str | None = None, task_id: str | None = None) -> bool:
        return await self._run(self._memory.delete_memory, memory_id, module=module, task_id=task_id)

    async def clear_all(self, *, module: str | None = None, task_id: str | None = None) -> int:
        return await self._run(self._memory.clear_all, module=module, task_id=task_id)

    async def list_namespaces(self) -> list[str]:
        return await self._run(self._memory.list_namespaces)

    async def erase_namespace(self, namespace: str, *, module: str | None = None, task_id: str | None = None) -> int:
        return await self._run(self._memory.erase_namespace, namespace, module=module, task_id=task_id)

    async def iter_memories(
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
    ) -> AsyncIterator[MemoryEntry]:
        entries = self._memory.iter_memories(
            category,
            entity_type,
            entity_id,
            tags,
            key,
            tags_match=tags_match,
            since=since,
            until=until,
            where=where,
            limit=limit,
            after=after,
        )
        try:
            while batch := await self._run(lambda: list(itertools.islice(entries, _BATCH))):
                for entry in batch:
                    yield entry
        finally:
            await _settled(asyncio.ensure_future(self._run(_close, entries)))

    async def shutdown(self) -> None:
        await self._run(self._memory.shutdown)
        self._workers.stop()

    # --- transactions, authors, namespaces -------------------------------------------------------

    def transaction(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Make the changes of an ``async with`` block one; it holds one thread until it is left."""
        return _AsyncTransaction(self._memory, self._workers)

    def acting_as(
        self, *, module: str | None = None, task_id: str | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """Make `module` and `task_id` the author of the changes of a ``with`` block that name none."""
        return self._memory.acting_as(module=module, task_id=task_id)

    def for_namespace(self, namespace: str) -> AsyncMemoryModule:
        """Return a memory of another namespace of the same store, sharing threads and connections."""
        sibling = object.__new__(type(self))
        sibling._memory, sibling._workers = self._memory.for_namespace(namespace), self._workers
        return sibling


class _AsyncTransaction(contextlib.AbstractAsyncContextManager[None]):
    """One transaction of `MemoryModule`, entered, used and left in one thread."""

    def __init__(self, memory: MemoryModule, workers: _Workers) -> None:
        self._inner = memory.transaction()
        self._key = id(workers)
        self._reset: contextvars.Token[Mapping[int, ThreadPoolExecutor]] | None = None

    async def __aenter__(self) -> None:
        outer = _pinned.get().get(self._key)
        self._thread = outer or ThreadPoolExecutor(1, thread_name_prefix="jarvis-transaction")
        self._mine = outer is None
        entering = self._submit(self._inner.__enter__)
        try:
            await asyncio.shield(entering)
        except asyncio.CancelledError:
            # The thread may be waiting for the lock, and get it: then it is to give it back at once.
            entering.add_done_callback(self._undo)
            raise
        except BaseException:
            self._end()
            raise
        self._reset = _pinned.set({**_pinned.get(), self._key: self._thread})

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reset is not None:
            _pinned.reset(self._reset)
        try:
            await _settled(self._submit(self._inner.__exit__, kind, error, trace))
        finally:
            self._end()

    def _submit(self, call: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        bound = functools.partial(contextvars.copy_context().run, call, *args)
        return asyncio.get_running_loop().run_in_executor(self._thread, bound)

    def _undo(self, entering: asyncio.Future[Any]) -> None:
        if not entering.cancelled() and entering.exception() is None:
            cancelled = asyncio.CancelledError()
            self._thread.submit(_leave_quietly, self._inner, cancelled)
        self._end()

    def _end(self) -> None:
        if self._mine:
            self._thread.shutdown(wait=False)


def _leave_quietly(transaction: contextlib.AbstractContextManager[None], error: BaseException) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        transaction.__exit__(type(error), error, None)


def _close(entries: Iterator[MemoryEntry]) -> None:
    entries.close()  # type: ignore[attr-defined]  # every backend iterates with a generator


async def _settled(future: asyncio.Future[Result]) -> Result:
    """Await `future` to its end, also when cancelled meanwhile; then pass the cancellation on."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError as error:
            cancelled = error
        except BaseException:  # noqa: BLE001 - it is raised below, by result()
            break
    result = future.result()
    if cancelled is not None:
        raise cancelled
    return result
