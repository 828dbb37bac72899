"""`Address`: where a server is, and its name in messages, without the password."""

from __future__ import annotations

import os

import psycopg
from psycopg import conninfo

from jarvis.errors import InvalidSettingError


class Address:
    """Where a server is.

    Args:
        dsn: a URL or keywords, as libpq takes them.

    Attributes:
        dsn: the same.

    Raises:
        InvalidSettingError: it is no such text.
    """

    def __init__(self, dsn: str) -> None:
        if not issubclass(type(dsn), str):
            raise InvalidSettingError(
                f"dsn: takes where a server is, such as postgresql://user@host/database, not {type(dsn).__name__}"
            )
        try:
            given = conninfo.conninfo_to_dict(dsn)
        except psycopg.Error as error:
            raise InvalidSettingError(f"dsn: {_without_values(str(error))}") from None
        self.dsn = dsn
        host = given.get("host") or given.get("hostaddr") or os.environ.get("PGHOST") or "localhost"
        if "@" in str(host):
            raise InvalidSettingError("dsn: has a second @ before its host; write %40 for each @ of a password")
        port = given.get("port") or os.environ.get("PGPORT")
        database = given.get("dbname") or os.environ.get("PGDATABASE") or given.get("user") or ""
        self._name = f"postgresql://{host}{f':{port}' if port else ''}/{database}"

    def __str__(self) -> str:
        return self._name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r})"


def _without_values(message: str) -> str:
    """Return what libpq says, without what it quotes of the text."""
    return " ".join(message.split('"')[0].split()) or "is malformed"
