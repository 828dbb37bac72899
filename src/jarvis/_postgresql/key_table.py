"""`KeyTable`: the file of keys of a sealed store, as a row of the table ``keys`` of its schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jarvis._postgresql.lease import Lease
    from jarvis._postgresql.pool import Sealing
    from jarvis._postgresql.server import Server


class KeyTable:
    """The place of the keys of one store; see `jarvis.sealing.keys.KeyPlace`."""

    def __init__(self, server: Server) -> None:
        self._server = server

    @property
    def path(self) -> str:
        """The name of the store in messages."""
        return self._server.path

    def seal_with(self, sealing: Sealing) -> None:
        """Open the store from now on, whether it has keys or not."""
        self._server.pool.sealing = sealing

    def read(self) -> bytes | None:
        """Return the keys, None if the store is plain; create the store if it is absent."""
        content = self._server.read(_read)
        return None if content is None else content.encode()

    def replace(self, old: bytes, new: bytes) -> bool:
        """Put `new` in the place of `old`; return whether that was still there."""
        if self._server.read_only:
            raise self._server.read_only_error()
        return self._server.read(_replace, old.decode(), new.decode())


def _read(session: Lease) -> str | None:
    return session.driver.keys()


def _replace(session: Lease, old: str, new: str) -> bool:
    return session.driver.replace_keys(old, new)
