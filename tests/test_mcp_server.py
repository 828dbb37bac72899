"""A server of the Model Context Protocol, as clients meet it: over pipes and HTTP, killed, and asked for nonsense."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.server.subscriptions import ResourceUpdated
from mcp_types import ClientCapabilities, Implementation, InitializeRequestParams, TextResourceContents

from jarvis.errors import InvalidSettingError
from jarvis.interfaces.mcp.http import checked_token
from jarvis.interfaces.mcp.room import LEAST_TOKENS
from jarvis.interfaces.mcp.served import Served, author_of
from jarvis.interfaces.mcp.server import serve
from jarvis.persistent_memory import MemoryModule

from .mcp_clients import TOKEN, client, command, environment, http_client, http_server, piped, store_options

GRAPH = "memory://knowledge-graph"
FILE = Path(__file__).parent / "importing" / "memory.jsonl"
ERAS = ["legacy", "auto"]

pytestmark = pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")


@pytest.fixture(params=["sqlite", "json", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """The options that name a store of each backend."""
    dsn = request.getfixturevalue("dsn") if request.param == "postgresql" else None
    return store_options(request.param, tmp_path, dsn)


@pytest.fixture
def file(tmp_path: Path) -> list[str]:
    """The options that name a SQLite store."""
    return store_options("sqlite", tmp_path, None)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(work, 60)

    return asyncio.run(bounded())


def _memory(file: list[str]) -> MemoryModule:
    return MemoryModule(storage_dir=file[-1])


def _entity(name: str) -> dict[str, Any]:
    return {"name": name, "entityType": "thing", "observations": [f"is called {name}"]}


def _text(result: Any) -> str:
    return str(result.content[0].text)


async def _resource(server: Client) -> str:
    (content,) = (await server.read_resource(GRAPH)).contents
    assert isinstance(content, TextResourceContents)
    assert (content.uri, content.mime_type) == (GRAPH, "application/json")
    return content.text


def _message(number: int, method: str, **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode() + b"\n"


HELLO = _message(
    0, "initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo={"name": "raw", "version": "1"}
) + (b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')


def _call(number: int, tool: str, **arguments: Any) -> bytes:
    return _message(number, "tools/call", name=tool, arguments=arguments)


# --- both sets, on every backend ------------------------------------------------------------------


@pytest.mark.parametrize("mode", ERAS)
def test_our_tools_work_through_the_client_of_the_sdk(store: list[str], mode: str) -> None:
    async def talk() -> None:
        async with client(*store, mode=mode) as server:
            names = [tool.name for tool in (await server.list_tools()).tools]
            fact = await server.call_tool("remember", {"text": "Maria moves to Lisbon", "about": "person/maria"})
            recalled = await server.call_tool("recall", {"question": "where does Maria move?"})

        assert sorted(names) == sorted(
            ["context", "recall", "remember", "record_turn", "list", "get", "history", "update", "forget", "undo"]
        )
        assert recalled.structured_content["memories"][0]["id"] == fact.structured_content["memory"]["id"]
        assert 'by "a client 1.2", today: "Maria moves to Lisbon"' in _text(recalled)

    run(talk())


@pytest.mark.parametrize("mode", ERAS)
def test_fifty_creates_at_once_are_all_kept(store: list[str], mode: str) -> None:
    async def talk() -> None:
        async with client("--tools", "official", *store, mode=mode) as server:
            calls = (server.call_tool("create_entities", {"entities": [_entity(str(n))]}) for n in range(50))
            answers = await asyncio.gather(*calls)
            graph = await server.call_tool("read_graph", {})

        assert all(len(answer.structured_content["entities"]) == 1 for answer in answers)
        assert len(graph.structured_content["entities"]) == 50

    run(talk())


def test_two_servers_on_one_store_lose_nothing(store: list[str]) -> None:
    async def talk() -> None:
        async with client("--tools", "official", *store) as one, client("--tools", "official", *store) as two:
            shared = [_entity("shared")]
            calls = [
                server.call_tool("create_entities", {"entities": [_entity(f"{server is one} {n}"), *shared]})
                for n in range(25)
                for server in (one, two)
            ]
            await asyncio.gather(*calls)
            graphs = [(await server.call_tool("read_graph", {})).structured_content for server in (one, two)]

        assert graphs[0] == graphs[1]
        names = [entity["name"] for entity in graphs[0]["entities"]]
        assert len(names) == len(set(names)) == 51

    run(talk())


def test_the_answers_are_those_of_the_reference_server(file: list[str]) -> None:
    async def talk() -> None:
        relation = {"from": "Ada", "to": "Ada", "relationType": "knows"}
        ada = {"name": "Ada", "entityType": "person", "observations": ["counts"]}
        graph = {"entities": [ada], "relations": [relation]}
        async with client("--tools", "official", *file) as server:
            created = await server.call_tool("create_entities", {"entities": [ada]})
            related = await server.call_tool("create_relations", {"relations": [relation]})
            added = await server.call_tool(
                "add_observations", {"observations": [{"entityName": "Ada", "contents": ["writes", "counts"]}]}
            )
            removed = await server.call_tool(
                "delete_observations", {"deletions": [{"entityName": "Ada", "observations": ["writes"]}]}
            )
            found = [
                await server.call_tool("read_graph", {}),
                await server.call_tool("search_nodes", {"query": "COUNT"}),
                await server.call_tool("open_nodes", {"names": ["Ada"]}),
            ]
            resource = await _resource(server)
            unknown = await server.call_tool(
                "add_observations", {"observations": [{"entityName": "Bob", "contents": []}]}
            )
            gone = [
                await server.call_tool("delete_relations", {"relations": [relation]}),
                await server.call_tool("delete_entities", {"entityNames": ["Ada"]}),
            ]

        assert (created.structured_content, json.loads(_text(created))) == ({"entities": [ada]}, [ada])
        assert (related.structured_content, json.loads(_text(related))) == ({"relations": [relation]}, [relation])
        results = [{"entityName": "Ada", "addedObservations": ["writes"]}]
        assert (added.structured_content, json.loads(_text(added))) == ({"results": results}, results)
        assert _text(removed) == "Observations deleted successfully"
        assert removed.structured_content == {"success": True, "message": "Observations deleted successfully"}
        assert [each.structured_content for each in found] == [graph] * 3
        assert {_text(each) for each in found} == {json.dumps(graph, indent=2)}
        assert resource == json.dumps(graph, indent=2)
        assert unknown.is_error
        assert "Entity with name Bob not found" in _text(unknown)
        assert [_text(each) for each in gone] == ["Relations deleted successfully", "Entities deleted successfully"]

    run(talk())


def test_the_official_tools_have_the_hints_of_the_reference_server(file: list[str]) -> None:
    async def talk() -> None:
        async with client("--tools", "official", *file) as server:
            tools = (await server.list_tools()).tools
            resources = (await server.list_resources()).resources

        hints = {tool.name: tool.annotations for tool in tools if tool.annotations is not None}
        assert [name for name, each in hints.items() if each.read_only_hint] == [
            "read_graph",
            "search_nodes",
            "open_nodes",
        ]
        assert [name for name, each in hints.items() if each.destructive_hint] == [
            "delete_entities",
            "delete_observations",
            "delete_relations",
        ]
        assert not any(each.open_world_hint for each in hints.values())
        assert all(tool.output_schema for tool in tools)
        assert [(each.name, str(each.uri)) for each in resources] == [("knowledge-graph", GRAPH)]

    run(talk())


def test_a_large_graph_is_told_in_parts(file: list[str]) -> None:
    memory = _memory(file)
    memory.create_memories(
        {"category": "entities", "key": f"thing {n}", "value": {"observations": ["is big"]}, "entity_type": "thing"}
        for n in range(3_000)
    )
    memory.shutdown()

    async def talk() -> None:
        names: list[str] = []
        cursor: dict[str, str] = {}
        async with client("--tools", "official", *file) as server:
            while True:
                part = await server.call_tool("read_graph", cursor)
                assert len(_text(part).encode()) < 40_000
                names += [entity["name"] for entity in part.structured_content["entities"]]
                if "nextCursor" not in part.structured_content:
                    break
                assert "Call read_graph again with this cursor" in part.structured_content["note"]
                cursor = {"cursor": part.structured_content["nextCursor"]}
            whole = json.loads(await _resource(server))

        assert sorted(names) == sorted(f"thing {n}" for n in range(3_000))
        assert len(whole["entities"]) == 3_000

    run(talk())


# --- subscriptions --------------------------------------------------------------------------------


def test_a_subscriber_is_told_of_changes_of_another_process(store: list[str]) -> None:
    async def talk() -> None:
        told = asyncio.Event()

        async def note(message: Any) -> None:
            if getattr(message, "method", "") == "notifications/resources/updated":
                told.set()

        async with client("--tools", "official", *store, message_handler=note) as server:
            await server.session.subscribe_resource(GRAPH)
            async with client("--tools", "official", *store) as other:
                await other.call_tool("create_entities", {"entities": [_entity("new")]})
            await asyncio.wait_for(told.wait(), 10)

            told.clear()
            await server.call_tool("delete_entities", {"entityNames": ["new"]})
            await asyncio.wait_for(told.wait(), 10)

            told.clear()
            await server.session.unsubscribe_resource(GRAPH)
            await server.call_tool("create_entities", {"entities": [_entity("more")]})
            await asyncio.sleep(0.6)
            assert not told.is_set()

    run(talk())


def test_a_listening_client_is_told_of_changes_of_another_process(file: list[str]) -> None:
    async def talk() -> None:
        async with (
            client("--tools", "official", *file, mode="auto") as server,
            server.listen(resource_subscriptions=[GRAPH]) as events,
            client("--tools", "official", *file) as other,
        ):
            await other.call_tool("create_entities", {"entities": [_entity("new")]})
            assert await anext(aiter(events)) == ResourceUpdated(uri=GRAPH)

    run(talk())


def test_an_unknown_resource_is_refused(file: list[str]) -> None:
    async def talk() -> None:
        async with client("--tools", "official", *file) as server:
            with pytest.raises(Exception, match="there is no resource 'memory://other'; there is memory://"):
                await server.read_resource("memory://other")

    run(talk())


# --- who may do what ------------------------------------------------------------------------------


@pytest.mark.parametrize("tools", ["ours", "official"])
def test_a_server_that_only_reads_has_no_tools_that_change(file: list[str], tools: str) -> None:
    with _memory(file) as memory:
        memory.remember("one")

    async def talk() -> None:
        async with client("--tools", tools, "--read-only", *file) as server:
            listed = (await server.list_tools()).tools
            refused = await server.call_tool("forget" if tools == "ours" else "create_entities", {"text": "one"})

        assert listed
        assert all(tool.annotations is not None and tool.annotations.read_only_hint for tool in listed)
        assert refused.is_error
        assert "this server only reads; it has" in _text(refused)

    run(talk())


def test_clients_of_a_namespace_see_only_that(file: list[str]) -> None:
    async def talk() -> None:
        async with client("--namespace", "alice", *file) as alice, client(*file) as other:
            await alice.call_tool("remember", {"text": "Maria moves"})
            assert "Maria moves" in _text(await alice.call_tool("list", {}))
            assert _text(await other.call_tool("list", {})) == "There is no memory here."

    run(talk())


def test_each_change_has_its_client_as_author(file: list[str]) -> None:
    async def talk() -> None:
        async with client("--tools", "official", *file) as server:
            await server.call_tool("create_entities", {"entities": [_entity("new")]})

    run(talk())
    with _memory(file) as memory:
        assert [entry.provenance["module"] for entry in memory.list_memories()] == ["a client 1.2"]


def test_an_author_is_one_line() -> None:
    info = Implementation(name="a\n\0\u202eclient", version="x" * 500)
    params = InitializeRequestParams(protocol_version="1", capabilities=ClientCapabilities(), client_info=info)

    assert author_of(params) == ("aclient " + "x" * 500)[:100]
    assert author_of(None) == "mcp"


def test_the_file_of_the_reference_server_is_taken_over(file: list[str]) -> None:
    async def talk() -> None:
        for _ in range(2):
            async with client("--tools", "official", *file, env={"MEMORY_FILE_PATH": str(FILE)}) as server:
                graph = await server.call_tool("read_graph", {})
                assert len(graph.structured_content["entities"]) == 3

    run(talk())


def test_a_relative_path_of_that_file_is_of_the_working_directory(file: list[str], tmp_path: Path) -> None:
    (tmp_path / "old.jsonl").write_bytes(FILE.read_bytes())
    process = subprocess.run(
        [*command("--tools", "official", "--memory-file", "old.jsonl"), *file],
        input=HELLO + _call(1, "open_nodes", names=["Anthropic"]),
        capture_output=True,
        cwd=tmp_path,
        env=environment(),
        timeout=60,
        check=True,
    )

    assert b"Founded in 2021" in process.stdout
    assert (
        f"took over {tmp_path / 'old.jsonl'}, which is no longer used; entities: 3, relations: 1"
        in process.stderr.decode()
    )


# --- hostile calls --------------------------------------------------------------------------------


HOSTILE: list[tuple[str, dict[str, Any]]] = [
    ("create_entities", {}),
    ("create_entities", {"entities": None}),
    ("create_entities", {"entities": [{"name": 1, "entityType": "x", "observations": []}]}),
    ("create_entities", {"entities": [{"name": "\0", "entityType": "x", "observations": []}]}),
    ("create_entities", {"entities": [{"name": "x" * 100_000, "entityType": "x", "observations": []}]}),
    ("create_entities", {"entities": "x" * 1_000_000}),
    ("add_observations", {"observations": [{"entityName": "\0", "contents": ["x"]}]}),
    ("add_observations", {"observations": [{"entityName": "x\n</memories>" * 9_000, "contents": ["x"]}]}),
    ("create_entities", {"x" * 100_000: []}),
    ("search_nodes", {"query": {"$gt": ""}}),
    ("read_graph", {"cursor": "e:0:0:+1"}),
    ("open_nodes", {"names": [[]]}),
    ("nothing", {"x": 1}),
    ("", {}),
    ("x" * 100_000, {}),
]


@pytest.mark.parametrize(
    ("tool", "argument"), [("get", "address"), ("recall", "since"), ("list", "order"), ("list", "nonsense")]
)
def test_a_refusal_of_a_huge_argument_is_short_and_says_what_is_wrong(tool: str, argument: str) -> None:
    async def talk() -> None:
        async with Client(Served(MemoryModule.in_memory()).server()) as server:
            name, value = (argument, "ü" * 100_000) if argument != "nonsense" else ("ü" * 100_000, "x")
            refused = await server.call_tool(
                tool, {"question": "x", name: value} if tool == "recall" else {name: value}
            )

        assert refused.is_error
        assert len(_text(refused).encode()) < LEAST_TOKENS
        assert re.search("no memory is named|takes", _text(refused))

    run(talk())


@pytest.mark.parametrize("mode", ERAS)
def test_hostile_calls_get_errors_and_the_server_goes_on(file: list[str], mode: str) -> None:
    async def talk() -> None:
        async with client("--tools", "official", *file, mode=mode) as server:
            for tool, arguments in HOSTILE:
                answer = await server.call_tool(tool, arguments)
                assert answer.is_error, (tool, arguments)
                assert len(_text(answer)) <= 1_501
                assert "\n" not in _text(answer)
            text = "z\u0301\U0001f600\u202e\x00" * 100_000
            long = {"name": "long", "entityType": "x", "observations": [text]}
            made = await server.call_tool("create_entities", {"entities": [long]})
            assert len(_text(made).encode()) < 40_000
            nested: Any = []
            for _ in range(150):
                nested = [nested]
            assert (await server.call_tool("open_nodes", {"names": nested})).is_error
            resource = json.loads(await _resource(server))

        assert resource["entities"] == [long]

    run(talk())


def test_lines_that_are_no_messages_get_an_answer(file: list[str]) -> None:
    bad = [
        b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"\\ud800"}}\n',
        b'{"jsonrpc":"2.0","id":"eight","method":\n',
        b"[" * 100_000 + b"\n",
        b"\xff\xfe\n",
        b"GET / HTTP/1.1\r\n",
        b"\n",
        b'{"jsonrpc":"2.0","id":9}\n',
    ]
    with piped(*file) as process:
        output, _ = process.communicate(HELLO + b"".join(bad) + _call(5, "list"), timeout=60)

    answers = [json.loads(line) for line in output.splitlines()]
    refused = [answer for answer in answers if "error" in answer]
    assert [answer["id"] for answer in refused] == [7, None, None, None, None, 9]
    assert {answer["error"]["code"] for answer in refused} == {-32700}
    assert "lone surrogates" in refused[0]["error"]["message"]
    assert [answer["id"] for answer in answers if "result" in answer] == [0, 5]


# --- standard output, and the end -----------------------------------------------------------------


NOISY = """
import logging, os, subprocess, sys, warnings
print("printed before")
from jarvis.interfaces.mcp import official, server
from jarvis.persistent_memory import MemoryModule

class Noisy(official.GraphTools):
    def whole(self):
        print("printed")
        os.write(1, b"written\\n")
        subprocess.run([sys.executable, "-c", "print('printed by a child', input())"], check=False)
        warnings.warn("warned")
        assert os.path.sameopenfile(0, os.open(os.devnull, os.O_RDONLY)), "input is left to others"
        logging.getLogger().warning("logged")
        sys.__stdout__.write("written to the first\\n")
        sys.__stdout__.flush()
        return super().whole()

official.GraphTools = Noisy
server.serve(MemoryModule(storage_dir=sys.argv[1]), tools="official")
print("printed after")
"""


def test_nothing_but_messages_is_on_standard_output(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-c", NOISY, str(tmp_path / "store")],
        input=HELLO + _message(1, "resources/read", uri=GRAPH) + _call(2, "read_graph"),
        capture_output=True,
        env=environment(),
        timeout=60,
        check=True,
    )

    first, *lines, last = process.stdout.decode().splitlines()
    assert (first, last) == ("printed before", "printed after")
    assert sorted(json.loads(line)["id"] for line in lines) == [0, 1, 2]
    for text in (b"printed\n", b"written\n", b"warned", b"logged", b"written to the first\n"):
        assert text in process.stderr


def test_all_requests_are_answered_before_a_server_ends_at_the_end_of_its_input(file: list[str]) -> None:
    calls = b"".join(_call(number, "remember", text=f"fact {number}") for number in range(1, 101))
    with piped(*file) as process:
        output, _ = process.communicate(HELLO + calls, timeout=60)

    assert process.returncode == 0
    answers = [json.loads(line) for line in output.splitlines()]
    assert sorted(answer["id"] for answer in answers) == list(range(101))
    with _memory(file) as memory:
        assert memory.count_memories() == 100


@pytest.mark.parametrize("request_id", [1, "1"])
def test_a_request_that_was_cancelled_keeps_no_server_from_ending(file: list[str], request_id: Any) -> None:
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request_id}}
    call = _call(1, "remember", text="one") + json.dumps(cancel).encode() + b"\n"
    with piped(*file) as process:
        output, _ = process.communicate(HELLO + call + _call(2, "list"), timeout=60)

    assert process.returncode == 0
    assert {json.loads(line)["id"] for line in output.splitlines()} >= {0, 2}


def test_a_client_that_listens_keeps_no_server_from_ending(file: list[str]) -> None:
    names = ("protocolVersion", "clientCapabilities", "clientInfo")
    values: tuple[Any, ...] = ("2026-07-28", {}, {"name": "raw", "version": "1"})
    meta = {f"io.modelcontextprotocol/{name}": value for name, value in zip(names, values, strict=True)}
    listen = _message(1, "subscriptions/listen", _meta=meta, notifications={"resourceSubscriptions": [GRAPH]})
    with piped("--tools", "official", *file) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(listen)
        process.stdin.flush()
        assert b"notifications/subscriptions/acknowledged" in process.stdout.readline()
        process.communicate(timeout=30)

    assert process.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("tools", ["ours", "official"])
def test_a_signal_ends_a_server_that_waits_for_input(file: list[str], number: int, tools: str) -> None:
    with piped("--tools", tools, *file) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(HELLO)
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(number)

        assert process.wait(10) == 0
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_a_signal_ends_a_server_whose_client_reads_nothing(file: list[str]) -> None:
    with _memory(file) as memory:
        note = {"category": "notes", "value": {"text": "x" * 300}, "entity_type": "note"}
        memory.create_memories({**note, "key": str(number)} for number in range(20))
    with piped(*file) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(HELLO)
        process.stdin.flush()
        process.stdout.readline()
        process.stdin.write(b"".join(_call(number, "list") for number in range(1, 60)))
        process.stdin.flush()
        time.sleep(1)  # the pipe is full by now
        process.send_signal(signal.SIGTERM)

        assert process.wait(10) == 0


def test_a_server_whose_client_is_gone_ends(file: list[str]) -> None:
    with piped(*file) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.close()
        process.stdin.write(HELLO)
        process.stdin.flush()

        assert process.wait(10) == 0


def test_what_was_acknowledged_survives_kill_9(store: list[str]) -> None:
    kept: list[int] = []
    for _ in range(2):
        with piped("--tools", "official", *store) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(HELLO)
            numbers = range(len(kept) + 1, len(kept) + 200)
            calls = b"".join(_call(n, "create_entities", entities=[_entity(str(n))]) for n in numbers)

            def write(pipe: Any = process.stdin, data: bytes = calls) -> None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.write(data)
                    pipe.flush()

            threading.Thread(target=write, daemon=True).start()
            while len(kept) < numbers.start + 20:
                answer = json.loads(process.stdout.readline())
                if answer["id"]:
                    kept.append(answer["id"])
            process.kill()
            process.wait()

    async def talk() -> None:
        async with client("--tools", "official", *store) as server:
            found = [await server.call_tool("open_nodes", {"names": [str(n)]}) for n in kept]

        assert [each.structured_content["entities"] for each in found] == [[_entity(str(n))] for n in kept]

    run(talk())


# --- HTTP -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ERAS)
def test_clients_are_served_over_http(file: list[str], mode: str) -> None:
    async def talk(address: str, token: str) -> None:
        async with http_client(address, token, mode) as one, http_client(address, token, mode) as two:
            await one.call_tool("remember", {"text": "Maria moves to Lisbon"})
            assert 'by "a client 1.2"' in _text(await two.call_tool("recall", {"question": "Maria"}))
            calls = [
                each.call_tool("remember", {"text": f"fact {n} of {each is one}"})
                for n in range(25)
                for each in (one, two)
            ]
            assert not any(answer.is_error for answer in await asyncio.gather(*calls))

    with http_server(*file) as (process, address, token):
        run(talk(address, token))
        if sys.platform != "win32":
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
    with _memory(file) as memory:
        assert memory.count_memories() == 51


def test_a_subscriber_over_http_is_told_of_changes(file: list[str]) -> None:
    async def talk(address: str, token: str) -> None:
        told = asyncio.Event()

        async def note(message: Any) -> None:
            if getattr(message, "method", "") == "notifications/resources/updated":
                told.set()

        async with http_client(address, token, message_handler=note) as one, http_client(address, token) as two:
            await one.session.subscribe_resource(GRAPH)
            await asyncio.sleep(0.5)  # the stream of notifications is opened in the background
            await two.call_tool("create_entities", {"entities": [_entity("new")]})
            await asyncio.wait_for(told.wait(), 10)
        async with (
            http_client(address, token, "auto") as one,
            one.listen(resource_subscriptions=[GRAPH]) as events,
        ):
            await one.call_tool("create_entities", {"entities": [_entity("newer")]})
            assert await anext(aiter(events)) == ResourceUpdated(uri=GRAPH)

    with http_server("--tools", "official", *file) as (_, address, token):
        run(talk(address, token))


def test_a_token_is_made_if_none_is_given(file: list[str]) -> None:
    with http_server(*file, token=None) as (_, address, token):
        assert len(token) >= 40
        assert _post(address, {"Authorization": f"Bearer {token}"}).status_code == 200


def test_a_token_of_the_environment_is_taken(file: list[str]) -> None:
    with http_server(*file, token=None, JARVIS_MEMORY_MCP_TOKEN=TOKEN) as (_, address, made):
        assert made == "None"
        assert _post(address, {"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def _post(address: str, headers: dict[str, str]) -> httpx2.Response:
    usual = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    content = HELLO.splitlines()[0]
    return httpx2.post(address, headers={**usual, **headers}, content=content, timeout=30)


def test_who_has_no_token_or_is_foreign_is_refused(file: list[str]) -> None:
    right = {"Authorization": f"Bearer {TOKEN}"}
    with http_server(*file) as (_, address, _token):
        port = address.split(":")[2].partition("/")[0]
        assert _post(address, right).status_code == 200
        assert _post(address, {**right, "Origin": f"http://localhost:{port}"}).status_code == 200
        assert _post(address, {"authorization": f"bearer {TOKEN}"}).status_code == 200
        for refused, status in [
            ({}, 401),
            ({"Authorization": "Bearer"}, 401),
            ({"Authorization": f"Bearer {TOKEN}x"}, 401),
            ({"Authorization": f"Basic {TOKEN}"}, 401),
            ({**right, "Host": "evil.example"}, 421),
            ({**right, "Host": f"evil.example:{port}"}, 421),
            ({**right, "Host": "127.0.0.1:1"}, 421),
            ({**right, "Host": f"127.0.0.1.evil.example:{port}"}, 421),
            ({**right, "Origin": "http://evil.example"}, 403),
            ({**right, "Origin": "null"}, 403),
            ({**right, "Origin": f"http://localhost:{port}.evil.example"}, 403),
            ({**right, "Origin": f"https://localhost:{port}"}, 403),
        ]:
            answer = _post(address, refused)
            assert answer.status_code == status, refused
            assert "WWW-Authenticate" in answer.headers or status != 401
            assert TOKEN not in answer.text
        for method in ("GET", "DELETE", "OPTIONS", "PUT"):
            assert httpx2.request(method, address, timeout=30).status_code == 401
        assert httpx2.get(address.replace("/mcp", "/"), timeout=30).status_code == 401


def test_a_server_listens_on_this_machine_only(file: list[str]) -> None:
    with http_server(*file) as (process, address, _):
        port = int(address.split(":")[2].partition("/")[0])
        tables = [Path(f"/proc/{process.pid}/net/{name}") for name in ("tcp", "tcp6")]
        if not tables[0].exists():
            pytest.skip("there is no /proc")
        listening = [line.split()[1] for table in tables for line in table.read_text().splitlines() if " 0A " in line]

    assert [each for each in listening if each.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["", "short", "with spaces in it, and long", "ä" * 20, "x" * 20 + "\n", 7])
def test_a_token_that_is_none_is_refused(token: Any) -> None:
    with pytest.raises(InvalidSettingError, match=r"^token: takes"):
        checked_token(token)


def test_a_wrong_setting_is_refused() -> None:
    memory = MemoryModule.in_memory()
    for wrong, message in [
        ({"tools": "offical"}, r"tools: takes ours or official \(did you mean 'official'\?\)"),
        ({"max_tokens": 100}, "max_tokens: takes a whole number from 2,000 up"),
        ({"max_tokens": "4000"}, "max_tokens: takes a whole number"),
    ]:
        with pytest.raises(InvalidSettingError, match=message):
            Served(memory, **wrong)  # type: ignore[arg-type]  # that is what is tested
    with pytest.raises(InvalidSettingError, match="memory: takes a MemoryModule, not str"):
        serve("memory")  # type: ignore[arg-type]  # that is what is tested
    for port in (-1, 65_536, True, "80"):
        with pytest.raises(InvalidSettingError, match="http: takes a port"):
            serve(memory, http=port)  # type: ignore[arg-type]  # that is what is tested
    memory.shutdown()


def test_a_port_that_is_taken_is_said(file: list[str]) -> None:
    with http_server(*file) as (_, address, _token):
        port = int(address.split(":")[2].partition("/")[0])
        with pytest.raises(InvalidSettingError, match=f"http: port {port} of 127.0.0.1 cannot be used"):
            serve(MemoryModule.in_memory(), http=port)


def test_a_server_in_the_same_process_needs_no_pipes() -> None:
    memory = MemoryModule.in_memory()

    async def talk() -> None:
        served = Served(memory)
        async with served.watching(), Client(served.server()) as server:
            await server.call_tool("remember", {"text": "one"})
            assert "one" in _text(await server.call_tool("list", {}))

    run(talk())
    memory.shutdown()


WITHOUT = """
import sys
sys.modules["mcp"] = sys.modules["mcp_types"] = None
from jarvis.errors import UnsupportedError
from jarvis.interfaces.mcp.server import serve
from jarvis.persistent_memory import MemoryModule
try:
    serve(MemoryModule.in_memory())
except UnsupportedError as error:
    print(error)
"""


def test_without_the_package_of_the_protocol_the_way_out_is_said() -> None:
    told = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, env=environment(), timeout=60, check=True
    )

    assert told.stdout.decode().strip() == "the server needs the package mcp: pip install 'jarvis-memory[mcp]'"


@pytest.mark.parametrize("setting", [{}, {"tools": "official", "read_only": True}])
def test_a_file_that_would_be_passed_over_is_refused(tmp_path: Path, setting: dict[str, Any]) -> None:
    with pytest.raises(InvalidSettingError, match="memory_file"):
        serve(MemoryModule(storage_dir=tmp_path), memory_file=FILE, **setting)
