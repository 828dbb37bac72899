"""The doctor: examines a store from outside and says what is wrong with it, or could be better, and what mends it.

It creates, migrates and changes nothing, and examines a store that cannot be opened as far as that goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from jarvis.interfaces.doctor import contents, files, server
from jarvis.interfaces.doctor.finding import Finding, Limits
from jarvis.interfaces.doctor.patient import Patient
from jarvis.model.options import KeySource

__all__ = ["CHECKS", "Check", "Finding", "Limits", "examine"]


class Check(NamedTuple):
    """A check of the doctor.

    Attributes:
        names: those that its findings have.
        look: yields what it finds.
        about: what it looks for.
    """

    names: tuple[str, ...]
    look: Callable[[Patient], Iterable[Finding]]
    about: str


CHECKS = (
    Check(("opening",), contents.opening, "a store that is absent, damaged, locked by a key or of a newer version"),
    Check(
        ("permissions",), files.permissions, "files that others may read or write, directories that others may change"
    ),
    Check(("owner",), files.owner, "files that belong to another user"),
    Check(("place",), files.place, "a network, synchronised or shared folder, or a mount of the file alone"),
    Check(
        ("leftovers",), files.leftovers, "files of a killed process, and of a compaction or change of key broken off"
    ),
    Check(("kept-copies",), files.kept_copies, "copies of the file from before a migration"),
    Check(("old-format",), contents.old_format, "a file of the first life, or of an earlier version"),
    Check(("second-store",), files.second_store, "a store of another backend in the same directory"),
    Check(("key-file",), contents.key_files, "a file with the key that others may read"),
    Check(("recovery",), contents.recovery, "an encrypted store that only one source opens"),
    Check(("history",), contents.history, "a history that is much larger than the memories"),
    Check(("log",), files.log, "a log that is not folded into the store"),
    Check(("engine",), contents.engine_version, "a SQLite with a fault that loses data, or an old server"),
    Check(("disk-space",), files.disk_space, "a disk that is full, or has no room for a copy of the store"),
    Check(("clock",), contents.clock, "a clock that is behind the last change"),
    Check(("settings",), files.settings, "a file of settings that is refused, or settings in it that do nothing"),
    Check(
        ("engine", "role", "connection", "transactions"),
        server.server,
        "on a server: its version, a role with all rights, an open connection, transactions that never end",
    ),
)
"""All checks, in the order of their findings."""


def examine(
    place: str | Path,
    *,
    config: str | Path | None = None,
    keys: Sequence[KeySource] = (),
    now: datetime | None = None,
    limits: Limits = Limits(),  # noqa: B008  frozen
    checks: Iterable[Check] = CHECKS,
) -> list[Finding]:
    """Return what is found of a store, problems first; an empty list if it is in good health.

    Args:
        place: the directory or the file of the store, or its URL.
        config: the file of settings with which it is used.
        keys: sources of the key of an encrypted store, besides those that the store names.
        now: the moment of the examination; None for the clock of this machine.
        limits: from where on something is large.
        checks: which.

    >>> import tempfile
    >>> from jarvis.persistent_memory import MemoryModule
    >>> directory = tempfile.mkdtemp()
    >>> with MemoryModule(storage_dir=directory) as memory:
    ...     _ = memory.set_user_preference("theme", {"mode": "dark"})
    >>> from jarvis.interfaces.doctor import examine
    >>> examine(directory)
    []
    """
    patient = Patient(
        place,
        config=None if config is None else Path(config).expanduser(),
        keys=keys,
        now=datetime.now(UTC) if now is None else now,
        limits=limits,
    )
    try:
        found = [*_found(patient, checks)]
    finally:
        patient.close()
    return sorted(found, key=lambda finding: finding.severity != "problem")


def _found(patient: Patient, checks: Iterable[Check]) -> Iterator[Finding]:
    for check in checks:
        yield from check.look(patient)
