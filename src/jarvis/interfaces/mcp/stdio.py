"""The protocol over standard input and output: one message of JSON a line.

The SDK's own transport has three gaps that matter here: a line that is no message gets no answer, so a client waits for
ever; a client that closes its end before it has read all answers gets none; and a signal does not end a server that
waits for input. Hence this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import threading
from collections.abc import AsyncIterator, Iterator

import anyio
import anyio.from_thread
import anyio.lowlevel
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import (
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

MAX_LINE_BYTES = 64 * 1024 * 1024
"""The longest message that is read; a value of a memory may have as many."""

_CHUNK = 1 << 16
_ENDLESS = frozenset(("subscriptions/listen",))

Incoming = MemoryObjectReceiveStream[SessionMessage | Exception]
Outgoing = MemoryObjectSendStream[SessionMessage]


class Unanswered:
    """The requests that have no answer yet."""

    def __init__(self) -> None:
        self._ids: set[str | int] = set()
        self._changed = anyio.Event()

    def asked(self, message: JSONRPCMessage) -> None:
        """Note a message that came in."""
        if isinstance(message, JSONRPCRequest) and message.method not in _ENDLESS:
            self._ids.add(message.id)
        if isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            cancelled = str((message.params or {}).get("requestId"))  # such a request gets no answer
            self._ids = {each for each in self._ids if str(each) != cancelled}
            self._changed.set()

    def answered(self, message: JSONRPCMessage) -> None:
        """Note a message that goes out."""
        if isinstance(message, JSONRPCResponse | JSONRPCError) and message.id in self._ids:
            self._ids.discard(message.id)
            self._changed.set()

    async def none_left(self) -> None:
        """Wait until all are answered."""
        while self._ids:
            self._changed = anyio.Event()
            await self._changed.wait()


@contextlib.asynccontextmanager
async def stdio_streams(source: int, sink: int) -> AsyncIterator[tuple[Incoming, Outgoing]]:
    """Carry messages between two descriptors and two streams, in a block."""
    arrived, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, leaving = anyio.create_memory_object_stream[SessionMessage](0)
    unanswered = Unanswered()

    async def read(refusals: Outgoing) -> None:
        async with arrived, refusals:
            async for line in _lines(source):
                try:
                    message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                except ValidationError as error:
                    await refusals.send(SessionMessage(_refusal(line, error)))
                    continue
                unanswered.asked(message)
                await arrived.send(SessionMessage(message))
            await unanswered.none_left()

    async def write() -> None:
        writer = _Writer(sink)
        async with leaving:
            async for each in leaving:
                text = each.message.model_dump_json(by_alias=True, exclude_unset=True)
                if not await writer.write(text.encode() + b"\n"):
                    tasks.cancel_scope.cancel()  # the client reads no more
                unanswered.answered(each.message)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, outgoing.clone())
        tasks.start_soon(write)
        yield incoming, outgoing
        tasks.cancel_scope.cancel()


async def _lines(source: int) -> AsyncIterator[bytes]:
    """Yield the lines of a descriptor. The thread that reads them ends with the process: nobody waits for it."""
    send, receive = anyio.create_memory_object_stream[bytes](16)
    token = anyio.lowlevel.current_token()

    def read() -> None:
        with contextlib.suppress(anyio.BrokenResourceError, RuntimeError):  # the server has ended
            for line in _lines_of(source):
                anyio.from_thread.run(send.send, line, token=token)
            anyio.from_thread.run_sync(send.close, token=token)

    threading.Thread(target=read, name="jarvis-mcp-input", daemon=True).start()
    async with receive:
        async for line in receive:
            yield line


class _Writer:
    """Writes to a descriptor in a thread of its own: a client that does not read cannot keep the server from ending."""

    def __init__(self, sink: int) -> None:
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._waiting: queue.SimpleQueue[tuple[bytes, asyncio.Future[bool]]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="jarvis-mcp-output", daemon=True).start()

    async def write(self, data: bytes) -> bool:
        """Write all of it; return whether that was possible."""
        done: asyncio.Future[bool] = self._loop.create_future()
        self._waiting.put((data, done))
        return await done

    def _work(self) -> None:
        while True:
            data, done = self._waiting.get()
            is_written = _write(self._sink, data)
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(_settle, done, is_written)


def _settle(done: asyncio.Future[bool], is_written: bool) -> None:
    if not done.done():
        done.set_result(is_written)


def _lines_of(source: int) -> Iterator[bytes]:
    """Yield lines that hold something, without their ends; of one that is too long only the beginning."""
    line = bytearray()
    while chunk := _chunk_of(source):
        *ended, rest = chunk.split(b"\n")
        for end in ended:
            line += end
            if line.strip():
                yield bytes(line[:MAX_LINE_BYTES])
            line.clear()
        if len(line) < MAX_LINE_BYTES:
            line += rest
    if line.strip():
        yield bytes(line)


def _chunk_of(source: int) -> bytes:
    try:
        return os.read(source, _CHUNK)
    except OSError:
        return b""


def _write(sink: int, data: bytes) -> bool:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(sink, view) :]
    except OSError:
        return False
    return True


def _refusal(line: bytes, error: ValidationError) -> JSONRPCError:
    """Return the answer to a line that is no message, with the id of the request if it can be told."""
    request_id = None
    with contextlib.suppress(ValueError, RecursionError):
        given = json.loads(line)
        request_id = given.get("id") if isinstance(given, dict) else None
    if type(request_id) not in (str, int):
        request_id = None
    problem = error.errors(include_input=False, include_url=False)[0]["msg"]
    message = f"Parse error: no message of JSON-RPC 2.0: {problem}; texts are UTF-8, without lone surrogates"
    return JSONRPCError(jsonrpc="2.0", id=request_id, error=ErrorData(code=PARSE_ERROR, message=message))
