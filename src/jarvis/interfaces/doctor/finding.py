"""`Finding`: one thing that the doctor says of a store."""

from __future__ import annotations

from typing import Literal

import msgspec

Severity = Literal["problem", "advice"]


class Finding(msgspec.Struct, frozen=True):
    """What is wrong with a store, or could be better, and what to do.

    Attributes:
        check: the name of the check that found it, one of those in `jarvis.interfaces.doctor.CHECKS`.
        severity: ``problem``: memories can be lost, read by others, or not be reached; or ``advice``.
        subject: the file, directory or server that it is about.
        explanation: what is the matter and what it leads to; it has no memory in it.
        command: what mends it, as a line for a shell.
    """

    check: str
    severity: Severity
    subject: str
    explanation: str
    command: str


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """From where on the doctor says that something is large, or small.

    Attributes:
        history_bytes, history_times: past states with more encoded bytes than this, and than this many times those of
            the memories.
        log_bytes: a log beside the store.
        free_bytes: less room on the disk than this is a problem.
        leftover_seconds: a file that was not written for so long belongs to no process that is at work.
        transaction_seconds: a transaction on the server.
    """

    history_bytes: int = 50_000_000
    history_times: float = 4.0
    log_bytes: int = 64_000_000
    free_bytes: int = 100_000_000
    leftover_seconds: float = 600.0
    transaction_seconds: float = 3_600.0
