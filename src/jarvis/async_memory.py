"""`AsyncMemoryModule`: the verbs of `MemoryModule`, awaitable.

SQLite has no asynchronous input and output, so each call runs in one of a few threads; an asynchronous core would make
each call cost every caller five to ten times as much.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Mapping
from concurrent.futures import Executor
from datetime import timedelta
from types import MappingProxyType, TracebackType
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Protocol, TypeVar, overload

from jarvis._calls.arguments import is_on
from jarvis._calls.faces import describe, former_verb, like
from jarvis._calls.lanes import Lane, Workers, one_thread
from jarvis.errors import InvalidEntryError, TransactionError
from jarvis.model.change import Change
from jarvis.model.entry import MemoryEntry
from jarvis.model.explanation import Explanation
from jarvis.persistent_memory import MemoryModule
from jarvis.services.ongoing import closed
from jarvis.services.store import Store
from jarvis.services.sweeping import Sweeper
from jarvis.services.table import Table
from jarvis.services.watching import INTERVAL_SECONDS, Watch, new_watch
from jarvis.storage_backend import StorageBackend

_BATCH = 64  # entries an iteration fetches at a time: a hop between threads costs 50 to 150 µs

P = ParamSpec("P")
Inner = TypeVar("Inner")
Result = TypeVar("Result")
Answer = TypeVar("Answer", covariant=True)


class _Level:
    """A transaction that a task has open, or a savepoint in it: its thread, and the lock for turns in it."""

    def __init__(self, thread: Executor) -> None:
        self.thread = thread
        self.is_over = False
        self.is_detached = False  # it was left from another context, so this context still has it
        self.turn = asyncio.Lock()  # for tasks that share this level: a savepoint of one keeps the others out

    def check(self) -> None:
        """Raise `TransactionError` if the transaction has ended."""
        if self.is_over:
            raise TransactionError("the transaction in which this task was started has ended")


# The innermost level of this task, by the token of its memory.
_levels: contextvars.ContextVar[Mapping[int, _Level]] = contextvars.ContextVar(
    "jarvis_levels", default=MappingProxyType({})
)


class _Face(Generic[Inner]):
    """Calls each verb of `_inner` in one of a few threads, or in that of the open transaction."""

    _inner: Inner
    _workers: Workers

    async def _called(self, lane: Lane, call: Callable[P, Result], /, *args: P.args, **kwargs: P.kwargs) -> Result:
        bound = functools.partial(contextvars.copy_context().run, call, *args, **kwargs)
        level = _levels.get().get(id(self._workers))
        if level is None or level.is_detached:
            result: Result = await self._workers.call(lane, bound)
            return result
        async with level.turn:
            level.check()
            return await _in_thread(level.thread, bound)


def awaitable(
    verb: Callable[Concatenate[Inner, P], Result], lane: Lane
) -> Callable[Concatenate[_Face[Inner], P], Coroutine[Any, Any, Result]]:
    """Return a verb that calls `verb` of the inner object in a lane, with the signature and docstring of `verb`."""

    async def call(face: _Face[Inner], /, *args: P.args, **kwargs: P.kwargs) -> Result:
        return await face._called(lane, getattr(face._inner, verb.__name__), *args, **kwargs)

    describe(call, verb)
    return call


class Explainable(Protocol[P, Answer]):
    """A verb that answers, or with ``explain=True`` says how."""

    @overload
    def __call__(self, *args: P.args, **filters: P.kwargs) -> Coroutine[Any, Any, Answer]: ...

    @overload
    def __call__(self, *args: Any, explain: Literal[True], **filters: Any) -> Coroutine[Any, Any, Explanation]: ...


def explainable(verb: Callable[Concatenate[MemoryModule, P], Answer]) -> Explainable[P, Answer]:
    """Return an awaitable verb that can explain itself, as `awaitable` does."""
    return awaitable(verb, "read")  # type: ignore[arg-type, return-value]  # bound, it has no face among its arguments


class AsyncStore(_Face[Store]):
    """`jarvis.services.store.Store`, awaitable: the same arguments, results and errors.

    A `progress` function is called in the thread that does the work.

    >>> from jarvis.async_memory import AsyncMemoryModule
    >>> import asyncio, tempfile
    >>> async def spaces():
    ...     async with AsyncMemoryModule(storage_dir=tempfile.mkdtemp()) as memory:
    ...         await memory.for_namespace("alice").set_user_preference("theme", {"mode": "dark"})
    ...         return await memory.store.list_namespaces()
    >>> asyncio.run(spaces())
    ['alice']
    """

    def __init__(self, inner: Store, workers: Workers) -> None:
        self._inner, self._workers = inner, workers

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._inner.backend!r})"

    back_up = awaitable(Store.back_up, "long")
    export = awaitable(Store.export, "long")
    import_ = awaitable(Store.import_, "long")
    digest = awaitable(Store.digest, "long")
    verify = awaitable(Store.verify, "long")
    repair = awaitable(Store.repair, "long")
    encrypt = awaitable(Store.encrypt, "long")
    decrypt = awaitable(Store.decrypt, "long")
    rotate_key = awaitable(Store.rotate_key, "long")
    key_slots = awaitable(Store.key_slots, "change")
    add_key_slot = awaitable(Store.add_key_slot, "change")
    remove_key_slot = awaitable(Store.remove_key_slot, "change")
    analytics = awaitable(Store.analytics, "long")
    recompress = awaitable(Store.recompress, "long")
    rebuild_index = awaitable(Store.rebuild_index, "long")
    index_pending = awaitable(Store.index_pending, "long")
    prune_history = awaitable(Store.prune_history, "change")
    purge_expired = awaitable(Store.purge_expired, "change")
    mend_dates = awaitable(Store.mend_dates, "change")
    list_namespaces = awaitable(Store.list_namespaces, "read")
    erase_namespace = awaitable(Store.erase_namespace, "long")


class AsyncTable(_Face[Table]):
    """`jarvis.services.table.Table`, awaitable: the same arguments, results and errors."""

    def __init__(self, inner: Table, workers: Workers) -> None:
        self._inner, self._workers = inner, workers

    def __repr__(self) -> str:
        return f"Async{self._inner!r}"

    get = awaitable(Table.get, "read")
    get_many = awaitable(Table.get_many, "read")
    keys = awaitable(Table.keys, "read")
    items = awaitable(Table.items, "read")
    count = awaitable(Table.count, "read")
    put = awaitable(Table.put, "change")
    put_many = awaitable(Table.put_many, "change")
    put_if_absent = awaitable(Table.put_if_absent, "change")
    delete = awaitable(Table.delete, "change")
    delete_many = awaitable(Table.delete_many, "change")
    pop = awaitable(Table.pop, "change")
    clear = awaitable(Table.clear, "long")


class AsyncMemoryModule(_Face[MemoryModule]):
    """`jarvis.persistent_memory.MemoryModule`, awaitable: the same arguments, results and errors.

    A cancelled call either never starts or completes; it leaves nothing half-done. Calls inside
    ``async with memory.transaction():`` run in the one thread of the transaction.

    >>> from jarvis.async_memory import AsyncMemoryModule
    >>> import asyncio, tempfile
    >>> async def remember():
    ...     with tempfile.TemporaryDirectory() as directory:
    ...         async with AsyncMemoryModule(storage_dir=directory) as memory:
    ...             await memory.set_user_preference("theme", {"mode": "dark"})
    ...             return await memory.get_user_preferences()
    >>> asyncio.run(remember())
    {'theme': {'mode': 'dark'}}
    """

    @like(MemoryModule.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._inner, self._workers = MemoryModule(*args, **kwargs), Workers()

    @classmethod
    def of(cls, memory: MemoryModule) -> AsyncMemoryModule:
        """Return the awaitable face of `memory`: the same store, namespace, retention rules and clock."""
        face = object.__new__(cls)
        face.__setstate__({"memory": memory})
        return face

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
        return self._inner.backend

    @property
    def namespace(self) -> str:
        """The namespace to which this memory is bound."""
        return self._inner.namespace

    @property
    def store(self) -> AsyncStore:
        """The whole store that this memory is in: its copies, keys, size, dates and namespaces."""
        return AsyncStore(self._inner.store, self._workers)

    def __getstate__(self) -> dict[str, Any]:
        return {"memory": self._inner}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._inner, self._workers = state["memory"], Workers()

    def _started(self, call: Callable[[], Result]) -> asyncio.Future[Result]:
        """Start a read that comes before all changes that are called from now on; return its future."""
        level = _levels.get().get(id(self._workers))
        if level is None or level.is_detached:
            return self._workers.call_first(functools.partial(contextvars.copy_context().run, call))
        return asyncio.ensure_future(self._called("read", call))

    # --- the verbs: MemoryModule has their docstrings ----------------------------------------------

    bootstrap = awaitable(MemoryModule.bootstrap, "change")

    create_memory = awaitable(MemoryModule.create_memory, "change")
    upsert_memory = awaitable(MemoryModule.upsert_memory, "change")
    create_memories = awaitable(MemoryModule.create_memories, "change")
    upsert_memories = awaitable(MemoryModule.upsert_memories, "change")
    set_user_preference = awaitable(MemoryModule.set_user_preference, "change")
    set_device_info = awaitable(MemoryModule.set_device_info, "change")
    record_task = awaitable(MemoryModule.record_task, "change")
    remember = awaitable(MemoryModule.remember, "change")
    record_turn = awaitable(MemoryModule.record_turn, "change")
    save_conversation_turn = awaitable(MemoryModule.save_conversation_turn, "change")
    save_execution = awaitable(MemoryModule.save_execution, "change")

    get_memory = awaitable(MemoryModule.get_memory, "read")
    list_categories = awaitable(MemoryModule.list_categories, "read")
    list_keys = awaitable(MemoryModule.list_keys, "read")
    list_entity_types = awaitable(MemoryModule.list_entity_types, "read")
    list_ids = awaitable(MemoryModule.list_ids, "read")
    list_entities = awaitable(MemoryModule.list_entities, "read")
    list_tags = awaitable(MemoryModule.list_tags, "read")
    get_memories = awaitable(MemoryModule.get_memories, "read")
    get_memory_by_key = awaitable(MemoryModule.get_memory_by_key, "read")
    get_memories_by_category = awaitable(MemoryModule.get_memories_by_category, "read")
    get_memories_by_entity = awaitable(MemoryModule.get_memories_by_entity, "read")
    get_memories_by_tags = awaitable(MemoryModule.get_memories_by_tags, "read")
    search_memories = explainable(MemoryModule.search_memories)
    count_memories = explainable(MemoryModule.count_memories)
    recall = awaitable(MemoryModule.recall, "read")
    search_text = awaitable(MemoryModule.search_text, "read")
    get_conversation = awaitable(MemoryModule.get_conversation, "read")
    get_conversation_history = awaitable(MemoryModule.get_conversation_history, "read")
    get_recent_conversations = awaitable(MemoryModule.get_recent_conversations, "read")
    get_recent_context = awaitable(MemoryModule.get_recent_context, "read")
    get_recent_executions = awaitable(MemoryModule.get_recent_executions, "read")
    search_by_description = awaitable(MemoryModule.search_by_description, "read")
    get_executions_by_tag = awaitable(MemoryModule.get_executions_by_tag, "read")
    get_file_locations = awaitable(MemoryModule.get_file_locations, "read")
    build_context = awaitable(MemoryModule.build_context, "read")
    find_duplicates = awaitable(MemoryModule.find_duplicates, "long")
    list_memories = awaitable(MemoryModule.list_memories, "read")
    get_user_preferences = awaitable(MemoryModule.get_user_preferences, "read")
    get_user_preference = awaitable(MemoryModule.get_user_preference, "read")
    get_device_info = awaitable(MemoryModule.get_device_info, "read")
    get_task_history = awaitable(MemoryModule.get_task_history, "read")

    update_memory = awaitable(MemoryModule.update_memory, "change")
    move_memory = awaitable(MemoryModule.move_memory, "change")
    merge_memory = awaitable(MemoryModule.merge_memory, "change")
    modify_memory = awaitable(MemoryModule.modify_memory, "change")
    forget = awaitable(MemoryModule.forget, "change")
    delete_memory = awaitable(MemoryModule.delete_memory, "change")
    delete_memories = awaitable(MemoryModule.delete_memories, "change")
    pop_memory = awaitable(MemoryModule.pop_memory, "change")
    delete_user_preference = awaitable(MemoryModule.delete_user_preference, "change")
    touch_memory = awaitable(MemoryModule.touch_memory, "change")

    get_history = awaitable(MemoryModule.get_history, "read")
    diff_memory = awaitable(MemoryModule.diff_memory, "read")
    restore_memory = awaitable(MemoryModule.restore_memory, "change")
    undo = awaitable(MemoryModule.undo, "change")
    undo_change = awaitable(MemoryModule.undo_change, "change")

    changes = awaitable(MemoryModule.changes, "read")
    recent_changes = awaitable(MemoryModule.recent_changes, "read")
    newest_cursor = awaitable(MemoryModule.newest_cursor, "read")

    erase_memory = awaitable(MemoryModule.erase_memory, "long")
    erase_entity = awaitable(MemoryModule.erase_entity, "long")
    erase_memories = awaitable(MemoryModule.erase_memories, "long")
    plan_retention = awaitable(MemoryModule.plan_retention, "long")
    sweep = awaitable(MemoryModule.sweep, "long")

    @like(MemoryModule.clear_all)
    async def clear_all(self, *, erase: bool = False, **signed: Any) -> int:
        erase = is_on("erase", erase)
        return await self._called("long" if erase else "change", self._inner.clear_all, erase=erase, **signed)

    @like(MemoryModule.sweep_every)
    def sweep_every(self, interval: timedelta | float) -> Sweeper:
        return self._inner.sweep_every(interval)

    @like(MemoryModule.iter_memories)
    async def iter_memories(self, *args: Any, **kwargs: Any) -> AsyncIterator[MemoryEntry]:
        entries = self._inner.iter_memories(*args, **kwargs)
        activity = self._inner._ongoing.begin()
        fetch: asyncio.Future[list[MemoryEntry]] | None = None
        lane: Lane = "read"  # which may wait for a connection; from then on the iteration has one
        try:
            while True:
                fetch = asyncio.ensure_future(self._called(lane, lambda: list(itertools.islice(entries, _BATCH))))
                batch, lane = await asyncio.shield(fetch), "step"
                if not batch:
                    return
                for entry in batch:
                    if activity.is_over:
                        raise closed(self.backend)
                    yield entry
        finally:
            if fetch is not None and not fetch.done():  # cancelled, and the thread is still reading
                with contextlib.suppress(Exception, asyncio.CancelledError):
                    await _settled(fetch)
            await _settled(asyncio.ensure_future(self._called("step", _close, entries)))

    @like(MemoryModule.watch)
    def watch(self, since: str | None = None, *, idle_seconds: float | None = None) -> AsyncIterator[Change]:
        watch = new_watch(self.backend, self._inner._ongoing, since, idle_seconds)
        start = self._started(functools.partial(watch.begin, since))
        return self._watching(watch, start, idle_seconds)

    async def _watching(
        self, watch: Watch, start: asyncio.Future[None], idle_seconds: float | None
    ) -> AsyncIterator[Change]:
        await asyncio.shield(start)  # see `Workers.call_first`
        quiet = 0.0
        while not watch.is_over:
            changes = await self._called("read", watch.look)
            for change in changes:
                quiet = 0.0
                yield change
                if watch.is_over:
                    return
            while not changes and await self._called("read", watch.is_still):
                if idle_seconds is not None and quiet >= idle_seconds:
                    return
                await asyncio.sleep(INTERVAL_SECONDS)
                quiet += INTERVAL_SECONDS

    @like(MemoryModule.shutdown)
    async def shutdown(self) -> None:
        await self._called("change", self._inner.shutdown)
        self._workers.stop()

    # --- transactions, authors, namespaces -------------------------------------------------------

    async def run(self, function: Callable[[MemoryModule], Result]) -> Result:
        """Call `function` with the module behind this face, in one thread and one transaction; return its result.

        Many calls then cost one hop between threads. If `function` raises, nothing is changed. It runs to its end even
        if the task is cancelled.

        Raises:
            InvalidEntryError: `function` is no function, or a coroutine function; nothing is changed.
            UnsupportedError: the backend has no transactions.

        >>> from jarvis.async_memory import AsyncMemoryModule
        >>> import asyncio, tempfile
        >>> def moved(memory):
        ...     theme = memory.get_user_preference("theme", {"mode": "dark"})
        ...     return memory.set_user_preference("look", theme) and memory.delete_user_preference("theme")
        >>> asyncio.run(AsyncMemoryModule(storage_dir=tempfile.mkdtemp()).run(moved))
        False
        """
        if not callable(function) or inspect.iscoroutinefunction(function):
            raise InvalidEntryError("function", "takes a plain function, no coroutine function")

        def compound() -> Result:
            with self._inner.transaction():
                return function(self._inner)

        return await self._called("change", compound)

    def transaction(self, *, namespaces: Collection[str] = ()) -> contextlib.AbstractAsyncContextManager[None]:
        """Make the changes of an ``async with`` block one change; it uses one thread until the block ends.

        `namespaces` are those of `MemoryModule.transaction`.
        """
        return _AsyncTransaction(self._inner.transaction(namespaces=namespaces), self._workers)

    @like(MemoryModule.acting_as)
    def acting_as(self, **author: str | None) -> contextlib.AbstractContextManager[None]:
        return self._inner.acting_as(**author)

    @like(MemoryModule.table)
    def table(self, category: str) -> AsyncTable:
        return AsyncTable(self._inner.table(category), self._workers)

    def for_namespace(self, namespace: str) -> AsyncMemoryModule:
        """Return a memory of another namespace of the same store, sharing threads and connections."""
        sibling = self.of(self._inner.for_namespace(namespace))
        sibling._workers = self._workers
        return sibling

    # --- under their former names, until the next release -----------------------------------------

    back_up = former_verb("back_up", "store", AsyncStore.back_up)
    encrypt_store = former_verb("encrypt_store", "store", AsyncStore.encrypt)
    decrypt_store = former_verb("decrypt_store", "store", AsyncStore.decrypt)
    rotate_data_key = former_verb("rotate_data_key", "store", AsyncStore.rotate_key)
    key_slots = former_verb("key_slots", "store", AsyncStore.key_slots)
    add_key_slot = former_verb("add_key_slot", "store", AsyncStore.add_key_slot)
    remove_key_slot = former_verb("remove_key_slot", "store", AsyncStore.remove_key_slot)
    recompress = former_verb("recompress", "store", AsyncStore.recompress)
    prune_history = former_verb("prune_history", "store", AsyncStore.prune_history)
    purge_expired = former_verb("purge_expired", "store", AsyncStore.purge_expired)
    mend_dates = former_verb("mend_dates", "store", AsyncStore.mend_dates)
    list_namespaces = former_verb("list_namespaces", "store", AsyncStore.list_namespaces)
    erase_namespace = former_verb("erase_namespace", "store", AsyncStore.erase_namespace)


class _AsyncTransaction(contextlib.AbstractAsyncContextManager[None]):
    """One transaction of `MemoryModule`, entered, used and left in one thread."""

    def __init__(self, inner: contextlib.AbstractContextManager[None], workers: Workers) -> None:
        self._inner = inner
        self._workers, self._key = workers, id(workers)
        self._settled = threading.Lock()
        self._entered = self._abandoned = False

    async def __aenter__(self) -> None:
        self._outer = _levels.get().get(self._key)
        if self._outer is not None and self._outer.is_detached:
            self._outer = None
        if self._outer is not None:
            await self._outer.turn.acquire()
            try:
                self._outer.check()
            except TransactionError:
                self._outer.turn.release()
                raise
            self._thread = self._outer.thread
        else:
            self._thread = one_thread("jarvis-transaction")
        try:
            enter = functools.partial(contextvars.copy_context().run, self._enter)
            await _in_thread(self._thread, self._workers.fenced(enter))
        except BaseException:
            self._abandon()
            self._end()
            raise
        self._level = _Level(self._thread)
        self._reset = _levels.set({**_levels.get(), self._key: self._level})

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._level.is_over = True
        try:
            leave = functools.partial(contextvars.copy_context().run, self._inner.__exit__, kind, error, trace)
            await _settled(asyncio.ensure_future(_in_thread(self._thread, leave)))
        finally:
            self._end()
            try:
                _levels.reset(self._reset)
            except ValueError:  # an async generator that was left open is closed from another context
                self._level.is_detached = True

    def _enter(self) -> None:
        """Enter the transaction in its thread; leave it at once if its task was cancelled."""
        self._inner.__enter__()
        with self._settled:
            self._entered = True
            if self._abandoned:
                self._leave_cancelled()

    def _abandon(self) -> None:
        """Leave the transaction, now or once it is entered, without the event loop: that may be about to close."""
        with self._settled:
            self._abandoned = True
            if self._entered:
                self._thread.submit(self._leave_cancelled)

    def _leave_cancelled(self) -> None:
        error = asyncio.CancelledError()
        with contextlib.suppress(asyncio.CancelledError):
            self._inner.__exit__(asyncio.CancelledError, error, None)

    def _end(self) -> None:
        if self._outer is None:
            self._thread.shutdown(wait=False)
        else:
            self._outer.turn.release()


async def _in_thread(thread: Executor, call: Callable[[], Result]) -> Result:
    try:
        future = asyncio.get_running_loop().run_in_executor(thread, call)
    except RuntimeError as error:
        raise TransactionError("the transaction in which this task was started has ended") from error
    return await future


def _close(entries: Iterator[MemoryEntry]) -> None:
    entries.close()  # type: ignore[attr-defined]  # every backend iterates with a generator


async def _settled(future: asyncio.Future[Result]) -> Result:
    """Await `future` to its end, even if cancelled meanwhile; then raise the cancellation."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError as error:
            cancelled = error
        except BaseException:  # noqa: BLE001 - result() raises it below
            break
    result = future.result()
    if cancelled is not None:
        raise cancelled
    return result
