"""Look up, on another connection, whether a transaction is committed whose commit got no answer.

The server numbers its transactions, and knows how each ended. Only a crash, or a failover, can make it give a number
again that it had given before, to a transaction of which nothing was durable. So a number of an earlier run of the
server that stands for a commit is believed only with what that transaction wrote: its last commit number and moment.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import psycopg
from psycopg import RawCursor

from jarvis._postgresql.connecting import Connector
from jarvis._postgresql.connection import RUN, Doubt
from jarvis._postgresql.raw import Raw
from jarvis.errors import OutcomeUnknownError, StoreError

# A process that still has the transaction open waits for a client that has gone. Once it ended, the outcome is known.
# The message in the log makes the commit of the question wait for the disk and the standbys, as ours should have.
_ASK = f"""
SELECT pg_xact_status($1::xid8), {RUN} = $2, pg_logical_emit_message(true, 'jarvis', ''), (
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE backend_xid = $1::xid8::xid AND {RUN} = $2 AND usename = current_user)
"""
_TRACES = """
SELECT EXISTS (SELECT FROM {schema}.commits WHERE namespace = $1 AND last = $2 AND moment = $3)
    OR EXISTS (SELECT FROM {schema}.entries WHERE namespace = $1 AND row = $2 AND instant = $3)
    OR EXISTS (SELECT FROM {schema}.revisions WHERE namespace = $1 AND ended = $2 AND made = $3)
    OR EXISTS (SELECT FROM {schema}.revisions WHERE namespace = $1 AND instant = $3 AND row = $2),
    greatest((SELECT commit_number FROM {schema}.clock WHERE namespace = $1),
        (SELECT max(row) FROM {schema}.entries WHERE namespace = $1), 0) < $2,
    EXISTS (SELECT FROM {schema}.commits WHERE namespace = $1 AND $2 BETWEEN first AND last)
    OR EXISTS (SELECT FROM {schema}.entries WHERE namespace = $1 AND row = $2)
    OR EXISTS (SELECT FROM {schema}.revisions WHERE namespace = $1 AND (ended = $2 OR row = $2))
"""
_PAUSE_SECONDS = 0.01


class Trace(NamedTuple):
    """What a transaction wrote in one namespace: its last commit number there, and its moment."""

    namespace: int
    commit_number: int
    moment: int


def is_kept(
    connector: Connector,
    schema: str,
    doubt: Doubt,
    traces: list[Trace],
    patience_seconds: float,
    *,
    keeps_history: bool,
) -> bool:
    """Tell whether a transaction was committed, and is as durable as the server promises.

    A server that is away is waited for, for as long as the patience lasts.

    Raises:
        OutcomeUnknownError: that cannot be told.
    """
    deadline = time.monotonic() + patience_seconds
    reason = ""
    while (left := deadline - time.monotonic()) > 0 or not reason:
        try:
            with connector.connect(max(left, 0)) as raw:
                raw.ends = time.monotonic() + max(left, 0.1)  # no setting limits how long a commit waits
                kept = _asked(raw, schema, doubt, traces, keeps_history=keeps_history)
            if kept is not None and not raw.warnings:
                return kept
            reason = "the transaction goes on" if kept is None else "no standby has confirmed it"
        except _OverwrittenError:
            raise unknown(connector.path, "what it wrote was changed since") from None
        except (psycopg.Error, StoreError):
            reason = "the server could not be asked since"
        time.sleep(_PAUSE_SECONDS)
    raise unknown(connector.path, reason)


def unknown(path: str, reason: str) -> OutcomeUnknownError:
    """Return the error for a write of which nobody can tell whether it was kept."""
    return OutcomeUnknownError(
        path,
        f"cannot tell whether the write was kept: the connection ended during its commit, and {reason}; "
        "read what it was to change before you repeat it",
    )


class _OverwrittenError(Exception):
    """There is no trace of the transaction any more."""


def _asked(raw: Raw, schema: str, doubt: Doubt, traces: list[Trace], *, keeps_history: bool) -> bool | None:
    """Tell whether a transaction was committed, None while it goes on."""
    cursor = RawCursor(raw)
    try:
        with raw.transaction():
            ((status, is_same_run, *_),) = cursor.execute(_ASK, doubt).fetchall()
    except psycopg.errors.InvalidParameterValue:  # no such number yet: a crash has taken it back
        return False
    if status == "in progress":  # ours, or that of another transaction: the run may have another name since
        return None
    if is_same_run and status is not None:
        return bool(status == "committed")
    if status == "aborted":  # the number may be of a later transaction, but ours was not kept
        return False
    for trace in traces:
        ((is_there, is_free, is_taken),) = cursor.execute(_TRACES.replace("{schema}", schema), trace).fetchall()
        if is_there or is_free or (is_taken and keeps_history):  # ours, nobody's, or another's
            return bool(is_there)
    raise _OverwrittenError
