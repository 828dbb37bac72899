"""Checks of the files of a store, of what lies beside them, and of the file of settings; they open no store."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

from jarvis._disk import location
from jarvis.config import ConfigLoader
from jarvis.errors import InvalidSettingError, MisplacedSettingWarning
from jarvis.interfaces.doctor.finding import Finding
from jarvis.interfaces.doctor.patient import Patient, status_of
from jarvis.interfaces.readable import size

_READ_BY_OTHERS = stat.S_IRGRP | stat.S_IROTH
_WRITTEN_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_TEMPORARY = (".tmp", ".tmp-journal", ".tmp-wal", ".tmp-shm")
_LOCKS = (".lock",)
_USUAL_PLACE = "~/.jarvis/memory"


def permissions(patient: Patient) -> Iterator[Finding]:
    """Files that others than their owner may read or write, and directories in which others may replace them."""
    if os.name != "posix":
        return
    for path, status in patient.files:
        mode = stat.S_IMODE(status.st_mode)
        if mode & (_READ_BY_OTHERS | _WRITTEN_BY_OTHERS) and not path.name.endswith(_LOCKS):
            what = "read and change" if mode & _WRITTEN_BY_OTHERS else "read"
            yield Finding(
                "permissions",
                "problem",
                str(path),
                f"has the mode {mode:04o}: others than its owner may {what} it",
                shlex.join(["chmod", "600", str(path)]),
            )
    directory = None if patient.file is None else patient.file.parent
    if directory is not None and (found := status_of(directory)) is not None:
        mode = stat.S_IMODE(found.st_mode)
        if mode & _WRITTEN_BY_OTHERS and not mode & stat.S_ISVTX:
            yield Finding(
                "permissions",
                "problem",
                str(directory),
                f"has the mode {mode:04o}: others may put another file in the place of the store",
                shlex.join(["chmod", "700", str(directory)]),
            )


def owner(patient: Patient) -> Iterator[Finding]:
    """Files that belong to another user than the one that uses the store, or than the store's own file."""
    if os.name != "posix" or not patient.files:
        return
    me = os.geteuid()
    wanted = patient.files[0][1].st_uid if me == 0 else me
    for path, status in patient.files:
        own = status.st_uid
        if own != wanted:
            yield Finding(
                "owner",
                "problem",
                str(path),
                f"belongs to the user {own}, not to {wanted}: a program of that user may fail to open the store",
                shlex.join(["chown", str(wanted), str(path)]),
            )


def place(patient: Patient) -> Iterator[Finding]:
    """A store on a network file system, behind a mount of its file alone, or in a shared or synchronised folder."""
    if patient.file is None:
        return
    problem = location.problem_of(patient.file)
    if problem is not None:
        yield Finding("place", "problem", str(patient.file), problem.error.problem, patient.moving_to(_USUAL_PLACE))
    for risk in location.risks_of(patient.file):
        yield Finding(
            "place", "advice", str(patient.file), risk.removeprefix(f"{patient.file} "), patient.moving_to(_USUAL_PLACE)
        )


def leftovers(patient: Patient) -> Iterator[Finding]:
    """Temporary files of a process that was killed, and the copy of a change of key that was broken off."""
    if patient.file is None:
        return
    name = patient.file.name
    for path in patient.beside():
        if path.name.startswith(f".{name}.") and path.name.endswith(_TEMPORARY) and patient.is_old(path):
            yield Finding(
                "leftovers",
                "advice",
                str(path),
                "was left by a process that was killed while it wrote; nobody needs it, and it may hold memories",
                shlex.join(["rm", "--", str(path)]),
            )
        elif path.name == f".{name}.moving" and patient.is_old(path):
            yield Finding(
                "leftovers",
                "problem",
                str(path),
                "is the copy that an encryption, a decryption or a change of key was writing when it was broken off. "
                "The store is whole; the same command goes on where it was. The copy may hold memories in plain text",
                _going_on(patient, path),
            )


def _going_on(patient: Patient, copy: Path) -> str:
    """Return the command that ends a change of key that was broken off."""
    if not patient.slots:
        return shlex.join(["rm", "--", str(copy)])
    if not patient.is_plain_file:
        return patient.command("keys", "rotate")
    slot = patient.slots[0]
    return patient.command("encrypt", slot.source if slot.hint is None else f"{slot.source}:{slot.hint}")


def kept_copies(patient: Patient) -> Iterator[Finding]:
    """Copies of the file from before a migration, which hold what was in it, also what was erased since."""
    if patient.file is None:
        return
    for path in patient.beside():
        if path.name.startswith(f"{patient.file.name}.first-life"):
            yield Finding(
                "kept-copies",
                "advice",
                str(path),
                "is the file as it was before its migration; it holds all memories of that time, in plain text. If "
                "the store has them, it can go",
                shlex.join(["rm", "--", str(path)]),
            )


def second_store(patient: Patient) -> Iterator[Finding]:
    """The store of another backend in the same directory: only one of the two is used."""
    other = None if patient.file is None else location.other_store_beside(patient.file)
    if other is not None:
        yield Finding(
            "second-store",
            "advice",
            str(other),
            f"holds the memories of another backend beside {patient.shown}: nothing of one is in the other. Take its "
            "memories over, and move it away",
            _taking_over(other, f"{patient.file}"),
        )


def _taking_over(other: Path, own: str) -> str:
    """Return the commands that take the memories of one store over into another one."""
    export = f"{other}.jsonl"
    return (
        f"{shlex.join(['jarvis-memory', '--store', str(other), 'export', export])} && "
        f"{shlex.join(['jarvis-memory', '--store', own, 'import', export, '--on-conflict', 'skip'])}"
    )


def disk_space(patient: Patient) -> Iterator[Finding]:
    """Too little room on the disk: for writes at all, or for a second copy of the store."""
    if patient.file is None or not patient.files:
        return
    try:
        free, own = shutil.disk_usage(patient.file.parent).free, patient.files[0][1].st_size
    except OSError:  # `opening` tells of it
        return
    show = shlex.join(["df", "-h", str(patient.file.parent)])
    if free < patient.limits.free_bytes:
        said = f"the disk has {size(free)} left: soon writes fail"
        yield Finding("disk-space", "problem", str(patient.file.parent), said, show)
    elif free < own:
        said = (
            f"the disk has {size(free)} left and the store {size(own)}: there is no room for a backup beside it, a "
            "compaction or a change of key"
        )
        yield Finding("disk-space", "advice", str(patient.file.parent), said, show)


def log(patient: Patient) -> Iterator[Finding]:
    """A log that has grown far beyond the size at which it is folded into the store."""
    for path, status in patient.files:
        if path.name.endswith("-wal") and status.st_size > patient.limits.log_bytes:
            yield Finding(
                "log",
                "advice",
                str(path),
                f"has {size(status.st_size)}: a reader that never ends keeps it from being folded into the store, "
                "or a process was killed. End old readers; the next compaction folds it in",
                patient.command("compact"),
            )


def settings(patient: Patient) -> Iterator[Finding]:
    """A file of settings that is refused, or has settings that do nothing."""
    if patient.config is None:
        return
    path = str(patient.config)
    command = f"jarvis-memory --config {patient.quoted(path)} config check"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            storage = ConfigLoader(patient.config).load().storage
        except InvalidSettingError as error:
            yield Finding("settings", "problem", path, str(error).removeprefix(f"{path}: "), command)
            return
    for warning in caught:
        if issubclass(warning.category, MisplacedSettingWarning):
            said = str(warning.message).removeprefix(f"{path}: ")
            yield Finding("settings", "advice", path, said, command)
    is_plain = (
        patient.memory is not None and patient.memory.backend.name in ("sqlite", "postgresql") and not patient.slots
    )
    if storage.encryption == "on" and is_plain:
        said = "says encryption: on, which is for new stores; this one is plain, and stays so until it is encrypted"
        yield Finding("settings", "problem", path, said, patient.command("encrypt", "passphrase"))
