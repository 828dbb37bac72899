"""The protocol as streamable HTTP, for clients on this machine that know a token."""

from __future__ import annotations

import contextlib
import secrets
import socket
import sys
from typing import Any

import uvicorn
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from jarvis.errors import InvalidSettingError
from jarvis.interfaces.mcp.descriptors import say
from jarvis.interfaces.mcp.served import Served, ending_at_signals

HOST, PATH = "127.0.0.1", "/mcp"
LEAST_SIGNS_OF_A_TOKEN = 16
_LAST_SECONDS = 1


class OnlyWithToken:
    """Lets a request through that has the token and was meant for this machine; refuses every other.

    A page that a browser shows can send requests to this machine, and let a name of its own lead here. Such a request
    names a foreign host or origin.
    """

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app, self._token = app, f"Bearer {token}".encode()
        self._hosts = {f"{host}:{port}" for host in (HOST, "localhost", "[::1]")}
        self._origins = {f"http://{host}" for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(Headers(scope=scope))
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, headers: Headers) -> PlainTextResponse | None:
        if headers.get("host", "").lower() not in self._hosts:
            return PlainTextResponse("This server answers only to requests for this machine.\n", 421)
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in self._origins:
            return PlainTextResponse("This server answers no page of another origin.\n", 403)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = f"{scheme.capitalize()} {token.strip()}".encode()
        if not secrets.compare_digest(given, self._token):
            challenge = {"WWW-Authenticate": 'Bearer realm="jarvis-memory"'}
            return PlainTextResponse("Send the token: Authorization: Bearer …\n", 401, challenge)
        return None


async def serve_http(served: Served, port: int | None, token: str | None) -> None:
    """Serve until a signal arrives. The address, and a token that is made here, are printed to standard error.

    Raises:
        InvalidSettingError: the port is none, or taken; or the token is too short, or cannot stand in a header.
    """
    token, is_made = checked_token(token)
    with contextlib.closing(_listening(port)) as listener:
        number = int(listener.getsockname()[1])
        app = served.server().streamable_http_app(streamable_http_path=PATH, host=HOST)
        config = uvicorn.Config(
            OnlyWithToken(app, token, number),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_LAST_SECONDS,
        )
        server = _Server(config)
        with ending_at_signals(server.end):
            async with served.watching():
                say(f"memory at http://{HOST}:{number}{PATH}")
                if is_made:
                    say(f"token: {token}")
                await server.serve(sockets=[listener])


class _Server(uvicorn.Server):
    """Leaves signals to us: its own handlers would end the process before the memory is shut down."""

    def end(self) -> None:
        """Answer no more requests; end those that take too long."""
        self.should_exit = True

    def capture_signals(self) -> Any:
        return contextlib.nullcontext()


def checked_token(token: str | None) -> tuple[str, bool]:
    """Return the token, and whether it was made here."""
    if token is None:
        return secrets.token_urlsafe(32), True
    if not (type(token) is str and token.isascii() and token.isprintable() and " " not in token):
        raise InvalidSettingError("token: takes printed ASCII signs without spaces")
    if len(token) < LEAST_SIGNS_OF_A_TOKEN:
        raise InvalidSettingError(f"token: takes at least {LEAST_SIGNS_OF_A_TOKEN} signs, so that nobody guesses it")
    return token, False


def _listening(port: int | None) -> socket.socket:
    if type(port) is not int or not 0 <= port < 65_536:
        raise InvalidSettingError("http: takes a port, from 0 (a free one) to 65,535")
    listener = socket.socket()
    try:
        if sys.platform != "win32":  # there it would let another program take the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise InvalidSettingError(f"http: port {port} of {HOST} cannot be used: {error.strerror}") from None
    return listener
