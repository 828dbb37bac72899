"""Tells clients that a resource has changed: by a call of theirs, of another client, or of another process."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any, Protocol

import anyio
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourceUpdated
from mcp_types import InitializeRequestParams, SubscriptionsListenRequestParams, SubscriptionsListenResult

from jarvis.errors import JarvisError
from jarvis.persistent_memory import MemoryModule

_INTERVAL_SECONDS = 0.2
_BATCH, _MOST_SUBSCRIBERS = 1_000, 1_000
_log = logging.getLogger("jarvis.mcp")

InThread = Callable[[Callable[[], Any]], Awaitable[Any]]


class Session(Protocol):
    """The part of a session of the SDK that is needed here."""

    @property
    def client_params(self) -> InitializeRequestParams | None:
        """What the client said of itself: the same object in each request of a connection."""

    async def send_resource_updated(self, uri: str) -> None:
        """Tell the client that a resource has changed."""


class Subscribers:
    """The clients that follow a resource, and the watch over the store that tells them.

    Args:
        memory: is watched.
        categories: a change of a memory of these is a change of the resource.
        uri: of the resource.
        in_thread: calls a function that blocks.
    """

    def __init__(self, memory: MemoryModule, categories: Collection[str], uri: str, in_thread: InThread) -> None:
        self._memory, self._categories, self._uri, self._in_thread = memory, categories, uri, in_thread
        self._sessions: dict[int, tuple[object, Session]] = {}
        self._bus = InMemorySubscriptionBus()
        self._listen = ListenHandler(self._bus)
        self._listening = 0
        self._cursor: str | None = None
        self._is_wanted = anyio.Event()

    async def add(self, session: Session) -> None:
        """Let a client follow the resource: from now on it is told of each change."""
        client = session.client_params
        self._sessions[id(client)] = client, session  # the client is kept, so that no other object gets its id
        while len(self._sessions) > _MOST_SUBSCRIBERS:  # the SDK does not say when a session over HTTP ends
            del self._sessions[next(iter(self._sessions))]
        await self._begin()

    def remove(self, session: Session) -> None:
        """Let a client follow the resource no more."""
        self._sessions.pop(id(session.client_params), None)

    async def listen(
        self, context: ServerRequestContext[Any, Any], params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Tell a client of each change as long as its request is open: so it is from the protocol of 2026-07-28 on."""
        self._listening += 1
        try:
            await self._begin()
            return await self._listen(context, params)
        finally:
            self._listening -= 1

    async def _begin(self) -> None:
        if self._cursor is None:
            self._cursor = await self._newest(None)
        self._is_wanted.set()

    async def watch(self) -> None:
        """Tell the clients of each change, until this is cancelled. Without a client the store is not asked."""
        while True:
            await self._is_wanted.wait()
            while self._sessions or self._listening:
                if await self._is_changed():
                    await self._tell()
                await anyio.sleep(_INTERVAL_SECONDS)
            self._cursor, self._is_wanted = None, anyio.Event()

    async def _is_changed(self) -> bool:
        """Tell whether there was a change since the last look."""
        if self._cursor is None:
            return False
        try:
            changes = await self._in_thread(partial(self._memory.changes, self._cursor, limit=_BATCH))
        except JarvisError as error:  # such as a store that was restored: the cursor is of another one
            _log.warning("changes cannot be read, trying again: %s", error)
            self._cursor = await self._newest(self._cursor)
            return True
        self._cursor = changes[-1].cursor if changes else self._cursor
        return any(change.category in (*self._categories, None) for change in changes)

    async def _newest(self, cursor: str | None) -> str | None:
        """Return the cursor of now; `cursor` if the store cannot tell, such as one without a feed of changes."""
        try:
            return str(await self._in_thread(self._memory.newest_cursor))
        except JarvisError as error:
            _log.warning("subscriptions are not told of changes: %s", error)
            return cursor

    async def _tell(self) -> None:
        await self._bus.publish(ResourceUpdated(uri=self._uri))
        for _, session in list(self._sessions.values()):
            await session.send_resource_updated(self._uri)
