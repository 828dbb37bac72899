"""`KeyTable`: the file of keys of a sealed store, as a row of the table ``keys`` of its schema."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, TypeVar

import psycopg

from jarvis._postgresql import failures, rewriting
from jarvis.errors import TransactionError
from jarvis.model.key_place import Rewritable

if TYPE_CHECKING:
    from collections.abc import Callable

    from jarvis._postgresql.lease import Lease
    from jarvis._postgresql.raw import Raw
    from jarvis._postgresql.server import Server
    from jarvis.model.key_place import Sealing
    from jarvis.model.options import Compression
    from jarvis.model.rewriting import Rewording, RewriteProgress, Rewritten


Result = TypeVar("Result")


class KeyTable(Rewritable):
    """The place of the keys of one store."""

    def __init__(self, server: Server, compression: Compression) -> None:
        self._server, self._compression = server, compression

    @property
    def path(self) -> str:
        return self._server.path

    def seal_with(self, sealing: Sealing) -> None:
        self._server.pool.sealing = sealing

    def read(self) -> bytes | None:
        content = self._server.read(_read)
        return None if content is None else content.encode()

    def replace(self, old: bytes, new: bytes) -> bool:
        if self._server.read_only:
            raise self._server.read_only_error()
        return self._server.read(_replace, old.decode(), new.decode())

    def rewrite(
        self,
        old: bytes | None,
        new: bytes | None,
        reword: Callable[[str], Rewording],
        progress: Callable[[RewriteProgress], None] | None,
    ) -> Rewritten:
        given = [None if keys is None else keys.decode() for keys in (old, new)]

        def rewrite(raw: Raw, path: str, schema: str) -> Rewritten:
            return rewriting.Rewriting(raw, path, schema, self._compression, progress).run(given[0], given[1], reword)

        try:
            return self._alone("rewrite the store", rewrite)
        finally:
            self._server.pool.close()  # the connections know the store as it was

    def scrub(self) -> None:
        """Remove the former bytes from the files of the tables."""
        scrub = functools.partial(rewriting.scrub, patience_seconds=self._server.busy_timeout_seconds)
        self._alone("vacuum the tables", scrub)

    def _alone(self, doing: str, work: Callable[[Raw, str, str], Result]) -> Result:
        """Return what `work` returns for a connection, the name of the store and its schema."""
        server = self._server
        if server.read_only:
            raise server.read_only_error()
        if server.in_transaction():
            raise TransactionError(f"{server.path}: this rewrites the store; leave the transaction first")
        server.check_sees_all()
        with server.snapshot() as session:
            session.drop()
            raw = session.driver.raw
            try:
                return work(raw, server.path, session.driver.in_schema("{schema}"))
            except psycopg.Error as error:
                raise failures.translated(server.path, error, doing, is_lost=raw.closed) from None


def _read(session: Lease) -> str | None:
    return session.driver.keys()


def _replace(session: Lease, old: str, new: str) -> bool:
    return session.driver.replace_keys(old, new)
