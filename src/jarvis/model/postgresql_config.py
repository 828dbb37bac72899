"""`PostgreSQLConfig`: where the server of a store is, in the settings."""

from __future__ import annotations

from typing import Any

import msgspec

from jarvis._calls.arguments import own_code, plain_text
from jarvis._disk.paths import with_variables
from jarvis.errors import InvalidSettingError

MOST_CONNECTIONS = 262_143
"""The most connections that a server can be told to allow."""

_BACKEND = "postgresql"
_UNSEEN = "…"


class PostgreSQLConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where a PostgreSQL server is, and how many connections a process opens to it. Its repr does not show the dsn.

    Attributes:
        dsn: a URL, such as ``postgresql://user@host/database``, or keywords as of libpq. ``$NAME`` and ``${NAME}``
            expand when the store is opened.
        pool_size: how many connections this process opens at most.
        transaction_pooling: the dsn is that of a proxy that gives each transaction any connection of its own.
        listen_dsn: where the server itself is, for watchers behind such a proxy; it expands likewise.

    Raises:
        InvalidSettingError: a value has the wrong type or is out of range, or a variable is not set.

    >>> from jarvis.model.postgresql_config import PostgreSQLConfig
    >>> PostgreSQLConfig(dsn="postgresql://jarvis:secret@db.example.com/memories")
    PostgreSQLConfig(dsn=…, pool_size=10)
    """

    dsn: str
    pool_size: int = 10
    transaction_pooling: bool = False
    listen_dsn: str | None = None

    @own_code(InvalidSettingError, "postgresql")
    def __post_init__(self) -> None:
        """Check every field."""
        dsn = plain_text(self.dsn)
        if not dsn:
            raise InvalidSettingError("postgresql.dsn must be a text such as postgresql://user@host/database")
        msgspec.structs.force_setattr(self, "dsn", dsn)
        self.location()
        if not is_pool_size(self.pool_size):
            raise InvalidSettingError(f"postgresql.pool_size must be a whole number from 1 to {MOST_CONNECTIONS}")
        if type(self.transaction_pooling) is not bool:
            raise InvalidSettingError("postgresql.transaction_pooling must be true or false")
        if self.listen_dsn is not None and not plain_text(self.listen_dsn):
            raise InvalidSettingError("postgresql.listen_dsn must be a text such as postgresql://user@host/database")
        self.more()

    def more(self) -> dict[str, Any]:
        """Return the further arguments of the backend; raise as `location` does."""
        listen_dsn = plain_text(self.listen_dsn)
        return {
            "pool_size": self.pool_size,
            "transaction_pooling": self.transaction_pooling,
            "listen_dsn": None if listen_dsn is None else _expanded(listen_dsn),
        }

    def location(self) -> str:
        """Return the dsn with the values of its environment variables.

        Raises:
            InvalidSettingError: one of them is not set. It is not named, because it may be a part of a password.
        """
        return _expanded(self.dsn)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(dsn={_UNSEEN}, pool_size={self.pool_size})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("dsn", _UNSEEN), ("pool_size", self.pool_size)]


def is_pool_size(number: object) -> bool:
    """Tell whether a process can have that many connections."""
    return type(number) is int and 1 <= number <= MOST_CONNECTIONS


def _expanded(dsn: str) -> str:
    try:
        return with_variables(dsn)
    except LookupError:
        raise InvalidSettingError(
            "postgresql.dsn names an environment variable that is not set; in a URL write a $ of a password as %24"
        ) from None


def check_server(backend: str, server: PostgreSQLConfig | None) -> None:
    """Raise `InvalidSettingError` if the backend needs a server and has none, or has one and needs none."""
    needs_one = (plain_text(backend) or "").lower() == _BACKEND
    if needs_one and server is None:
        raise InvalidSettingError(
            f"storage.postgresql.dsn is missing: the backend {_BACKEND!r} needs it, "
            "such as postgresql://user@host/database"
        )
    if server is not None and not needs_one:
        raise InvalidSettingError(
            f"storage.postgresql is only for storage.backend: {_BACKEND}; set that, or leave it out"
        )
