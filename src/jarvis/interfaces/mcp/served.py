"""`Served`: a memory and its tools, as a server of the SDK of the Model Context Protocol."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.metadata import version
from typing import Any

import anyio
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    EmptyResult,
    InitializeRequestParams,
    ListResourcesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    ToolAnnotations,
    UnsubscribeRequestParams,
)
from mcp_types import Tool as ListedTool

from jarvis._calls.lanes import Lane, Workers
from jarvis.conversations.lines import in_one_line
from jarvis.errors import InvalidSettingError, JarvisError, nearest
from jarvis.importers.mcp_memory import ENTITIES, RELATIONS
from jarvis.interfaces.mcp import official, ours
from jarvis.interfaces.mcp.graph import KnowledgeGraph
from jarvis.interfaces.mcp.room import LEAST_TOKENS, cleaned
from jarvis.interfaces.mcp.stdio import stdio_streams
from jarvis.interfaces.mcp.subscribers import Subscribers
from jarvis.interfaces.mcp.tools import Tool, arguments_of, schema_of
from jarvis.persistent_memory import MemoryModule

NAME = "jarvis-memory"
SETS = ("ours", "official")
_Context = ServerRequestContext[Any, Any]
_MOST_SIGNS_OF_A_CLIENT, _MOST_BYTES_OF_AN_ERROR = 100, 1_500
_log = logging.getLogger("jarvis.mcp")


async def serve_stdio(served: Served, source: int, sink: int) -> None:
    """Serve a client over two descriptors until it closes its end, or a signal arrives."""
    scope = anyio.CancelScope()
    with ending_at_signals(scope.cancel), scope:
        async with served.watching(), stdio_streams(source, sink) as (incoming, outgoing):
            server = served.server()
            await server.run(incoming, outgoing, server.create_initialization_options())


@contextlib.contextmanager
def ending_at_signals(end: Callable[[], object]) -> Iterator[None]:
    """Call `end` when SIGTERM or SIGINT arrives in a block, in the main thread of a system that has signals."""
    loop, caught = asyncio.get_running_loop(), []
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, end)
            caught.append(number)
    try:
        yield
    finally:
        for number in caught:
            loop.remove_signal_handler(number)


class Served:
    """A memory and its tools, as a server of the SDK; see `serve` for the arguments."""

    def __init__(
        self,
        memory: MemoryModule,
        *,
        tools: str = "ours",
        read_only: bool = False,
        max_tokens: int | None = None,
    ) -> None:
        if not isinstance(memory, MemoryModule):
            raise InvalidSettingError(f"memory: takes a MemoryModule, not {type(memory).__name__}")
        if tools not in SETS:
            raise InvalidSettingError(f"tools: takes {' or '.join(SETS)}{nearest(str(tools), SETS)}")
        if max_tokens is not None and (type(max_tokens) is not int or max_tokens < LEAST_TOKENS):
            raise InvalidSettingError(f"max_tokens: takes a whole number from {LEAST_TOKENS:,} up")
        self._memory, self._workers, self._is_read_only = memory, Workers(), read_only
        self._graph: official.GraphTools | None = None
        self._subscribers: Subscribers | None = None
        if tools == "official":
            self._graph = official.GraphTools(KnowledgeGraph(memory), max_tokens or official.USUAL_TOKENS)
            self._subscribers = Subscribers(memory, (ENTITIES, RELATIONS), official.GRAPH_URI, self._read)
            self._instructions, every = official.INSTRUCTIONS, self._graph.tools()
        else:
            self._instructions, every = (
                ours.INSTRUCTIONS,
                ours.MemoryTools(memory, max_tokens or ours.USUAL_TOKENS).tools(),
            )
        self._every = {tool.name: tool for tool in every}
        self.tools = {tool.name: tool for tool in every if tool.reads or not read_only}

    def server(self) -> Server[Any]:
        """Return the server of the SDK. It can serve several clients."""
        resources: dict[str, Any] = {}
        if self._subscribers is not None:
            resources = {
                "on_list_resources": self._list_resources,
                "on_read_resource": self._read_resource,
                "on_subscribe_resource": self._subscribe,
                "on_unsubscribe_resource": self._unsubscribe,
                "on_subscriptions_listen": self._subscribers.listen,
            }
        return Server(
            NAME,
            version=version(NAME),
            title="Memory",
            instructions=self._instructions,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            **resources,
        )

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Tell subscribers of changes, in a block; at its end let the threads end."""
        try:
            async with anyio.create_task_group() as tasks:
                if self._subscribers is not None:
                    tasks.start_soon(self._subscribers.watch)
                yield
                tasks.cancel_scope.cancel()
        finally:
            self._workers.stop()

    async def _read(self, call: Callable[[], Any]) -> Any:
        return await self._workers.call("read", call)

    # --- tools -----------------------------------------------------------------------------------

    async def _list_tools(self, _: _Context, __: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=[listed(tool) for tool in self.tools.values()])

    async def _call_tool(self, context: _Context, params: CallToolRequestParams) -> CallToolResult:
        tool = self.tools.get(params.name)
        if tool is None:
            return _refused(self._why_there_is_no(params.name))
        author = author_of(context.session.client_params)
        try:
            arguments = arguments_of(tool, params.arguments)
            lane: Lane = "read" if tool.reads else "change"
            answer = await self._workers.call(lane, lambda: self._run(tool, arguments, author))
        except JarvisError as error:
            return _refused(str(error))
        except Exception as error:  # noqa: BLE001 - the outermost door: one bad call must not end the server
            steps = "".join(traceback.format_tb(error.__traceback__))  # its message may hold what is remembered
            _log.error("the tool %s failed with %s:\n%s", tool.name, type(error).__name__, steps)
            return _refused(f"{tool.name} failed: {type(error).__name__}; the server's standard error says more")
        return CallToolResult(
            content=[TextContent(type="text", text=cleaned(answer.text))], structured_content=cleaned(answer.content)
        )

    def _run(self, tool: Tool, arguments: Any, author: str) -> Any:
        with self._memory.acting_as(module=author):
            return tool.run(arguments)

    def _why_there_is_no(self, name: str) -> str:
        if name in self._every:
            return f"{name}: this server only reads; it has {', '.join(self.tools)}"
        return f"there is no tool {name[:100]!r}{nearest(name[:100], self.tools)}; there are {', '.join(self.tools)}"

    # --- the resource ----------------------------------------------------------------------------

    async def _list_resources(self, _: _Context, __: PaginatedRequestParams | None) -> ListResourcesResult:
        graph = Resource(
            name="knowledge-graph",
            title="Knowledge Graph",
            uri=official.GRAPH_URI,
            description="The whole knowledge graph: all entities and relations",
            mime_type="application/json",
        )
        return ListResourcesResult(resources=[graph])

    async def _read_resource(self, _: _Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        uri = _known(str(params.uri))
        graph = self._graph
        assert graph is not None  # noqa: S101 - there are no resources without it
        text = await self._read(graph.whole)
        return ReadResourceResult(contents=[TextResourceContents(uri=uri, mime_type="application/json", text=text)])

    async def _subscribe(self, context: _Context, params: SubscribeRequestParams) -> EmptyResult:
        _known(str(params.uri))
        if self._subscribers is not None:
            await self._subscribers.add(context.session)
        return EmptyResult()

    async def _unsubscribe(self, context: _Context, params: UnsubscribeRequestParams) -> EmptyResult:
        _known(str(params.uri))
        if self._subscribers is not None:
            self._subscribers.remove(context.session)
        return EmptyResult()


def listed(tool: Tool) -> ListedTool:
    """Return a tool as clients see it."""
    return ListedTool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=schema_of(tool.arguments),
        output_schema=schema_of(tool.answer),
        annotations=ToolAnnotations(
            title=tool.title,
            read_only_hint=tool.reads,
            destructive_hint=tool.destroys,
            idempotent_hint=tool.is_idempotent,
            open_world_hint=False,
        ),
    )


def author_of(client: InitializeRequestParams | None) -> str:
    """Return the author of a client's changes: its name and version, without signs that are not printed."""
    if client is None:
        return "mcp"
    text = f"{client.client_info.name} {client.client_info.version}"
    printed = "".join(sign for sign in text if sign.isprintable()).strip()
    return printed[:_MOST_SIGNS_OF_A_CLIENT] or "mcp"


def _known(uri: str) -> str:
    if uri.rstrip("/") != official.GRAPH_URI:
        raise MCPError(INVALID_PARAMS, f"there is no resource {uri[:200]!r}; there is {official.GRAPH_URI}")
    return uri


def _refused(message: str) -> CallToolResult:
    """Return an error as one line in which no name that it quotes can speak."""
    text = cleaned(in_one_line(message)).encode()
    if len(text) > _MOST_BYTES_OF_AN_ERROR:  # it repeats an argument; its beginning and its end say what is wrong
        half = _MOST_BYTES_OF_AN_ERROR // 2
        text = text[:half] + "…".encode() + text[-half:]
    return CallToolResult(content=[TextContent(type="text", text=text.decode("utf-8", "ignore"))], is_error=True)
