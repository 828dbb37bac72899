"""Checks of a store on a PostgreSQL server: they ask the server over a connection of their own, which cannot write."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from jarvis.interfaces.doctor.finding import Finding
from jarvis.interfaces.doctor.patient import Patient
from jarvis.interfaces.readable import span

_ENDS = {15: (2027, 11, 11), 16: (2028, 11, 9), 17: (2029, 11, 8), 18: (2030, 11, 14)}
"""When the support of a version ends: https://www.postgresql.org/support/versioning/."""

_ROLE = """
SELECT current_user, rolsuper, rolbypassrls FROM pg_catalog.pg_roles WHERE rolname = current_user
"""
_ENCRYPTED = """
SELECT inet_server_addr() IS NULL OR host(inet_server_addr()) IN ('127.0.0.1', '::1'),
    coalesce((SELECT ssl FROM pg_catalog.pg_stat_ssl WHERE pid = pg_backend_pid()), false)
"""
_LONG = """
SELECT pid, usename, CAST(extract(epoch FROM now() - xact_start) AS float8) FROM pg_catalog.pg_stat_activity
WHERE xact_start IS NOT NULL AND backend_type = 'client backend' AND pid <> pg_backend_pid()
    AND datname = current_database() AND now() - xact_start > make_interval(secs => %s)
ORDER BY xact_start LIMIT 5
"""
_SECONDS = 5


def server(patient: Patient) -> Iterator[Finding]:
    """The version of the server, the role, the connection, and transactions that never end."""
    if patient.url is None:
        return
    try:
        import psycopg
    except ImportError:  # `opening` tells of it
        return
    with (
        contextlib.suppress(psycopg.Error, UnicodeError),
        psycopg.connect(patient.url, connect_timeout=_SECONDS, autocommit=True) as connection,
    ):
        connection.execute("SET default_transaction_read_only = on")
        yield from version(patient, connection.info.server_version // 10_000)
        yield from _role(patient, connection)
        yield from way(patient, connection)
        yield from _transactions(patient, connection)


def version(patient: Patient, major: int) -> Iterator[Finding]:
    """A server whose support has ended, or ends within half a year."""
    ends = _ENDS.get(major)
    if ends is None:
        return
    left = datetime(*ends, tzinfo=UTC) - patient.now
    if left.days < 183:
        when = "has ended" if left.days < 0 else "ends soon"
        yield Finding(
            "engine",
            "problem" if left.days < 0 else "advice",
            patient.shown,
            f"the server is PostgreSQL {major}, whose support {when} ({ends[0]}-{ends[1]:02}-{ends[2]:02})",
            "pg_upgrade --help",
        )


def _role(patient: Patient, connection: Any) -> Iterator[Finding]:
    for name, is_super, bypasses in connection.execute(_ROLE).fetchall():
        if is_super or bypasses:
            what = "is a superuser" if is_super else "passes by row-level security"
            yield Finding(
                "role",
                "advice",
                patient.shown,
                f"the role {name} {what}: the server keeps it from no namespace and no other table. Let programs "
                "connect with a role of their own, which PostgreSQLBackend.admit() lets into its namespace",
                "createuser --no-superuser --no-createdb --no-createrole NAME",
            )


def way(patient: Patient, connection: Any) -> Iterator[Finding]:
    """A connection across a network that is not encrypted."""
    for is_local, is_encrypted in connection.execute(_ENCRYPTED).fetchall():
        if not is_local and not is_encrypted:
            yield Finding(
                "connection",
                "problem",
                patient.shown,
                "the connection crosses a network and is not encrypted: others may read memories on their way. Add "
                "sslmode=verify-full to the URL",
                f"jarvis-memory --store '{patient.shown}?sslmode=verify-full' doctor",
            )


def _transactions(patient: Patient, connection: Any) -> Iterator[Finding]:
    for pid, user, seconds in connection.execute(_LONG, (patient.limits.transaction_seconds,)).fetchall():
        yield Finding(
            "transactions",
            "advice",
            patient.shown,
            f"a transaction of {user} (process {pid}) has been open for {span(seconds)}: meanwhile the server can "
            "remove no row that was deleted, and writers may wait",
            f"psql -c 'SELECT pg_terminate_backend({pid})'",
        )
