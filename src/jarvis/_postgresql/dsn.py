"""`Address`: where a server is, and its name in messages, without the password."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

import psycopg
from psycopg import conninfo

from jarvis._calls.arguments import plain_text
from jarvis.errors import InvalidSettingError
from jarvis.model.postgresql_config import MOST_CONNECTIONS, is_pool_size

_MOST_PARTITIONS = 1_000  # of each table; a server of the usual settings runs out of locks for fewer
_URLS = ("postgres://", "postgresql://")
_PORTS = frozenset("0123456789,")
_QUOTE = re.compile(r"[^\w\s/%-]")
"""The quotation marks that a server's message may use, in any language."""


class Reach(NamedTuple):
    """How a process reaches a server.

    Attributes:
        pool_size: how many connections it opens at most.
        partitions: in how many partitions by namespace a new store has its tables; 0: in none.
        transaction_pooling: a proxy gives each transaction any connection of its own.
        listen_dsn: where notices of other processes are heard of, None for the dsn.
    """

    pool_size: int = 10
    partitions: int = 0
    transaction_pooling: bool = False
    listen_dsn: str | None = None

    def checked(self) -> Reach:
        """Return the same; raise `InvalidSettingError` if a value is out of range."""
        if not is_pool_size(self.pool_size):
            raise InvalidSettingError(f"pool_size: takes a whole number from 1 to {MOST_CONNECTIONS}")
        if type(self.partitions) is not int or not 0 <= self.partitions <= _MOST_PARTITIONS:
            raise InvalidSettingError(f"partitions: takes a whole number from 1 to {_MOST_PARTITIONS}, or 0 for none")
        if type(self.transaction_pooling) is not bool:
            raise InvalidSettingError("transaction_pooling: takes True or False")
        return self if self.listen_dsn is None else self._replace(listen_dsn=Address(self.listen_dsn, "listen_dsn").dsn)


class Address:
    """Where a server is.

    Args:
        dsn: a URL or keywords, as libpq takes them.
        argument: its name in messages.

    Raises:
        InvalidSettingError: it is no such text.
    """

    def __init__(self, dsn: str, argument: str = "dsn") -> None:
        text = plain_text(dsn)
        if text is None:
            raise InvalidSettingError(
                f"{argument}: takes where a server is, such as postgresql://user@host/database, not "
                f"{type(dsn).__name__}; MemoryModule takes that URL first, settings under storage.postgresql.dsn"
            )
        if "\0" in text:  # libpq would read no further
            raise InvalidSettingError(f"{argument}: holds a NUL character")
        try:
            given = conninfo.conninfo_to_dict(text)
        except (psycopg.Error, UnicodeError) as error:
            said = _without_values(str(error))
            if not text.startswith(_URLS):
                said = f"is neither a URL such as postgresql://user@host/database nor keywords such as host=h: {said}"
            raise InvalidSettingError(f"{argument}: {said}") from None
        host = str(given.get("host") or given.get("hostaddr") or os.environ.get("PGHOST") or "localhost")
        port = str(given.get("port") or os.environ.get("PGPORT") or "")
        database = str(given.get("dbname") or os.environ.get("PGDATABASE") or given.get("user") or "")
        written = text.partition("://")[2].partition("?")[0].partition("/")[2] if text.startswith(_URLS) else database
        # The end of a password with such signs would be read as one of these, and be named in messages.
        if "@" in written or any("@" in each[1:] for each in host.split(",")) or not set(port) <= _PORTS:
            raise InvalidSettingError(
                f"{argument}: its host, port or database, or that of PGHOST, PGPORT or PGDATABASE, is none; in a "
                "URL write the signs @ : / % of a user or a password as %40 %3A %2F %25"
            )
        self.dsn = text
        self._name = f"postgresql://{_places(host.split(','), port.split(','))}/{database}"

    def __str__(self) -> str:
        return self._name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r})"


def _places(hosts: list[str], ports: list[str]) -> str:
    """Return hosts with their ports, of which one may stand for all."""
    if len(ports) != len(hosts):
        ports = ports[:1] * len(hosts)
    return ",".join(f"{host}:{port}" if port else host for host, port in zip(hosts, ports, strict=True))


def _without_values(message: str) -> str:
    """Return what libpq says, without what it quotes of the text."""
    return " ".join(_QUOTE.split(message)[0].split()) or "is malformed"
