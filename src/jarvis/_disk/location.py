"""Where a store may lie: refused where its promises cannot hold, and with a warning where it is at risk."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jarvis.errors import (
    OtherStoreWarning,
    ReadableByOthersWarning,
    StoreMissingError,
    UnsafeLocationError,
    UnsafeLocationWarning,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_NETWORK_TYPES = frozenset(
    (
        *("nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "ncpfs", "afs", "coda", "ceph", "glusterfs", "lustre"),
        *("gfs", "gfs2", "ocfs2", "beegfs", "davfs", "fuse.sshfs", "fuse.rclone", "fuse.s3fs", "fuse.gcsfuse"),
        *("fuse.davfs", "fuse.glusterfs"),
    )
)
MOUNTS = "/proc/self/mountinfo"
_OTHER_NAMES = {"memory.db": "memory.json", "memory.json": "memory.db"}  # the files of the two backends
_warned_of: set[str] = set()
_warned_of_readers: set[str] = set()
_OTHERS_BITS = stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH
_OCTAL = re.compile(r"\\([0-7]{3})")
_SHARED_TYPES = frozenset(("9p", "virtiofs", "vboxsf", "drvfs", "fuse.vmhgfs-fuse"))  # host and guest see one file
_SYNCED_NAMES = frozenset(
    (
        *("dropbox", "onedrive", "google drive", "googledrive", "my drive", "mobile documents", "icloud drive"),
        *("icloudclouddocs", "nextcloud", "owncloud", "pclouddrive", "megasync", "syncthing"),
    )
)


def check_links(path: Path) -> None:
    """Check that no link on the way to a store leads nowhere, such as to a disk that is not mounted.

    If a store were created through such a link, there would be two stores when the disk is back.

    Raises:
        StoreMissingError: one does; the message names it and its target.
    """
    for each in reversed([path, *path.parents]):
        if os.path.islink(each):
            try:
                os.stat(each)
            except FileNotFoundError:
                raise StoreMissingError(
                    path,
                    f"cannot be reached: {each} is a symbolic link to {os.readlink(each)}, which is not there; "
                    "mount or put back what it points to, or remove the link. Nothing was created",
                ) from None
            except OSError:  # the opening of the store meets and reports it, too
                return


def check_location(path: Path) -> None:
    """Refuse a store where its promises cannot hold; warn of one in a synchronised or host-shared folder.

    Warn, too, once in a process, if the store of another backend lies beside it.

    Locks and the write-ahead log's shared memory do not work between machines, and a program that copies the file
    while it is written makes a torn copy. If the file alone is mounted, processes that open it elsewhere have
    another log and another lock.

    Raises:
        UnsafeLocationError: `path` is on a network file system, or is a mount of its own. The file `MOUNTS` tells that,
            which only Linux has; elsewhere, the device of the file's directory does.
    """
    error = problem_of(path)
    if error is not None and error.is_mounted_alone:
        raise error.error
    _warn_of_another_store(path)
    if error is not None:
        raise error.error
    for risk in risks_of(path):
        warn(risk)


class Problem(NamedTuple):
    """Why a store may not lie where it lies.

    Attributes:
        error: says it.
        is_mounted_alone: its file is a mount of its own; else it is on a network file system.
    """

    error: UnsafeLocationError
    is_mounted_alone: bool


def problem_of(path: Path) -> Problem | None:
    """Return why a store may not lie there; None if it may."""
    types = _mounts()
    if str(path) in types or (not types and _is_on_another_device(path)):
        message = (
            "is mounted as a file alone, so its log, its lock and a file that is to replace it lie elsewhere; "
            f"mount its directory in place of it ({path.parent})"
        )
        return Problem(UnsafeLocationError(path, message), is_mounted_alone=True)
    kind = _file_system_type(path, types)
    if kind in _NETWORK_TYPES:
        message = (
            f"lies on a network file system ({kind}), where file locks cannot be trusted; choose a local directory"
        )
        return Problem(UnsafeLocationError(path, message), is_mounted_alone=False)
    return None


def risks_of(path: Path) -> Iterator[str]:
    """Yield why a store is at risk where it lies: in a folder that a host shares, or one that is synchronised."""
    kind = _file_system_type(path, _mounts())
    if kind in _SHARED_TYPES:
        yield f"{path} lies in a folder shared with the host of this machine ({kind}): open it from one side only"
    for folder in [path, *path.parents]:
        name = folder.name.lower()
        if name in _SYNCED_NAMES or name.startswith("onedrive - ") or os.path.isdir(folder / ".stfolder"):
            yield (
                f"{path} lies in a synchronised folder ({folder}): its program may copy the store while it is "
                "being written, or put an old copy in its place; choose a directory that is not synchronised"
            )
            return


def other_store_beside(path: Path) -> Path | None:
    """Return the file of the store of another backend beside a store's, None if there is none."""
    other = path.with_name(_OTHER_NAMES.get(path.name, path.name))
    return other if other != path and os.path.exists(other) else None


def warn_of_readers(*paths: str) -> None:
    """Warn of files of a store that others than their owner may read or write, once for each in a process.

    Their modes stay: somebody may have chosen them. No-op on Windows, whose modes say nothing.
    """
    for path in paths if os.name == "posix" else ():
        try:
            mode = stat.S_IMODE(os.stat(path).st_mode)
        except OSError:  # the opening of the file meets and reports it, too
            continue
        if mode & _OTHERS_BITS and path not in _warned_of_readers:
            import shlex

            _warned_of_readers.add(path)
            warn(
                f"{path} has the mode {mode:04o}, so others than its owner may read or write it; it keeps "
                f"that. If it is not shared on purpose: chmod 600 {shlex.quote(path)}",
                ReadableByOthersWarning,
            )


def _warn_of_another_store(path: Path) -> None:
    other = other_store_beside(path)
    if other is None or str(path) in _warned_of:
        return
    _warned_of.add(str(path))
    warn(
        f"{path} is opened, and {other.name} beside it holds the memories of another backend: nothing is taken over "
        f"from {other}. To take its memories over: jarvis.moving.migrate. Else open that one, or move it away",
        OtherStoreWarning,
    )


def warn(message: str, kind: type[UserWarning] = UnsafeLocationWarning) -> None:
    """Warn the program that opens a store, at the line of its own code as far as that can be told."""
    import warnings

    warnings.warn(message, kind, stacklevel=4)


def _mounts() -> dict[str, str]:
    """Return the type of the file system last mounted at each mount point; empty if that is not known.

    See https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html: four characters are written as octal numbers.
    """
    try:
        lines = Path(MOUNTS).read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except OSError:
        return {}
    types: dict[str, str] = {}
    for line in lines:
        before, separator, after = line.partition(" - ")
        if separator:
            point = _OCTAL.sub(lambda sign: chr(int(sign[1], 8)), before.split(" ")[4])
            types[point] = after.split(" ")[0]
    return types


def _file_system_type(path: Path, mounts: dict[str, str]) -> str | None:
    return next((mounts[str(each)] for each in (path, *path.parents) if str(each) in mounts), None)


def _is_on_another_device(path: Path) -> bool:
    """Tell whether a file lies on another device than its directory.

    Not used on Linux, where each file of an overlay may show the device of the layer below
    (https://docs.kernel.org/filesystems/overlayfs.html#inode-properties).
    """
    try:
        return path.stat().st_dev != path.parent.stat().st_dev
    except OSError:
        return False
