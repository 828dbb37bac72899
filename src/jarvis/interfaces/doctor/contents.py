"""Checks of what a store says of itself: its version, keys, dates and past. They read it, and change nothing."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator

import msgspec

from jarvis._sqlite import schema
from jarvis.errors import (
    CorruptStoreError,
    KeyUnavailableError,
    StoreError,
    StoreMissingError,
    StoreTooNewError,
    UnsafeLocationError,
    WrongKeyError,
)
from jarvis.interfaces.doctor.finding import Finding
from jarvis.interfaces.doctor.patient import Patient, status_of
from jarvis.interfaces.readable import size
from jarvis.model.dating import SKEW

_UPGRADE = "pip install --upgrade"
SOUND_SQLITE = (3, 51, 3)
"""The first version that is sound: in earlier ones a checkpoint during a commit may lose data."""

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def opening(patient: Patient) -> Iterator[Finding]:
    """A store that cannot be opened or read at all."""
    if patient.memory is not None:
        _ = patient.report
    error = patient.error
    if isinstance(error, UnsafeLocationError):  # `files.place` tells of it
        return
    if error is None:
        if patient.url is None and patient.file is None:
            yield Finding("opening", "problem", patient.shown, "there is no store", patient.command("init"))
        return
    if isinstance(error, CorruptStoreError):
        command = patient.command("repair", f"{patient.shown.rstrip('/')}-repaired")
    elif isinstance(error, (KeyUnavailableError, WrongKeyError)):
        command = patient.command("keys", "list")
    elif isinstance(error, StoreTooNewError):
        command = f"{_UPGRADE} jarvis-memory"
    elif isinstance(error, StoreMissingError):
        command = patient.command("init")
    else:
        command = patient.command("verify")
    said = error.problem if isinstance(error, StoreError) else str(error)
    yield Finding("opening", "problem", patient.shown, f"cannot be opened: {said}", command)


def old_format(patient: Patient) -> Iterator[Finding]:
    """A file of the first life, or of an earlier version, which its next change migrates."""
    if patient.file is None:
        return
    said = _of_json(patient) if patient.is_json else _of_sqlite(patient)
    if said:
        yield Finding(
            "old-format",
            "advice",
            str(patient.file),
            f"{said}; the next change of a memory migrates it. Back it up before",
            shlex.join(["cp", "-a", str(patient.file), f"{patient.file}.before"]),
        )


def _of_sqlite(patient: Patient) -> str:
    page = patient.first_page
    if not patient.is_plain_file:
        return ""
    version, application = int.from_bytes(page[60:64], signed=True), int.from_bytes(page[68:72])
    if application == schema.APPLICATION_ID:
        if 0 < version < schema.CURRENT_VERSION:
            return f"has the version {version}, and {schema.CURRENT_VERSION} is current"
        return ""
    is_first = application == 0 and version in (0, schema.MIGRATING) and b"memories" in page
    return "is of the first life of this library" if is_first else ""


def _of_json(patient: Patient) -> str:
    try:
        document = _decode(patient.file.read_bytes()) if patient.file is not None else {}
    except (OSError, ValueError):  # `opening` tells of it
        return ""
    return "is of the first life of this library" if "entries" in document and "format" not in document else ""


def engine_version(patient: Patient, version: tuple[int, ...] | None = None) -> Iterator[Finding]:
    """A SQLite with a known fault that loses data."""
    if patient.file is None or patient.is_json:
        return
    import apsw

    found = version or tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    if found < SOUND_SQLITE:
        shown, sound = (".".join(map(str, each)) for each in (found, SOUND_SQLITE))
        yield Finding(
            "engine",
            "problem",
            patient.shown,
            f"is used with SQLite {shown}, which may lose data if a checkpoint runs during a commit; {sound} is sound",
            f"{_UPGRADE} apsw-sqlite3mc",
        )


def key_files(patient: Patient) -> Iterator[Finding]:
    """A file with a key of the store that others than its owner can read."""
    for slot in patient.slots if os.name == "posix" else ():
        if slot.source != "file" or slot.hint is None:
            continue
        status = status_of(slot.hint)  # None if it is on a disk that is not mounted now
        mode = 0 if status is None else stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            yield Finding(
                "key-file",
                "problem",
                slot.hint,
                f"opens the store, and has the mode {mode:04o}: others than its owner may read or replace it. If that "
                "was so for long, give the store another key as well",
                shlex.join(["chmod", "600", slot.hint]),
            )


def recovery(patient: Patient) -> Iterator[Finding]:
    """An encrypted store that one source alone opens, so that it is lost with that."""
    if len(patient.slots) == 1:
        source = patient.slots[0].source
        yield Finding(
            "recovery",
            "problem" if source == "keyring" else "advice",
            patient.shown,
            f"only one source opens the store ({source}): if that is lost, so are all memories. Add a passphrase, and "
            "keep it elsewhere",
            patient.command("keys", "add", "passphrase"),
        )


def history(patient: Patient) -> Iterator[Finding]:
    """Past states that take far more room than the memories."""
    report, limits = patient.report, patient.limits
    past = None if report is None else report.overhead.past_bytes
    if report is None or past is None or past <= limits.history_bytes or past <= limits.history_times * report.bytes:
        return
    yield Finding(
        "history",
        "advice",
        patient.shown,
        f"keeps {report.overhead.past_states:,} past states with {size(past)}, for memories with {size(report.bytes)}: "
        "give the history a shorter max_age or max_revisions in the configuration; writers then prune it",
        patient.command("config", "show"),
    )


def clock(patient: Patient) -> Iterator[Finding]:
    """A clock that is behind the last change of the store."""
    last = patient.last_moment
    if last is not None and last - patient.now > SKEW:
        yield Finding(
            "clock",
            "problem",
            patient.shown,
            f"its last change is dated {last:%Y-%m-%d %H:%M} UTC, and the clock of this machine says "
            f"{patient.now:%Y-%m-%d %H:%M}: one of them is wrong. If it is the clock, set it right; if not, call "
            "store.mend_dates()",
            "timedatectl set-ntp true",
        )
