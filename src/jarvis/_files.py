"""Files that are whole or not there, and where a store may lie.

Every operation that touches the disk goes through `system`, so that a test can let the n-th one fail
or record the order of writes and syncs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jarvis._paths import NO_SUCH_SYNC
from jarvis.errors import (
    OtherStoreWarning,
    ReadOnlyStoreError,
    StoreAccessError,
    StoreError,
    StoreFullError,
    StoreMissingError,
    UnsafeLocationError,
    UnsafeLocationWarning,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700


class System:
    """The file operations that change the disk; `system` is the instance in use."""

    def open(self, path: str, flags: int) -> int:
        """Open a file for its owner only; return its descriptor."""
        return os.open(path, flags | getattr(os, "O_BINARY", 0), FILE_MODE)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        """Write some of `data`; return how many bytes."""
        return os.write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        """Return when everything written to the file is on the disk, not in a cache of the drive."""
        if sys.platform == "darwin":
            import fcntl

            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        else:
            os.fsync(descriptor)

    def sync_directory(self, path: str) -> None:
        """Return when the names in a directory are on the disk; no-op on Windows, which has no such call."""
        if sys.platform == "win32":
            return
        descriptor = os.open(path, os.O_RDONLY)
        try:
            self.sync(descriptor)
        finally:
            os.close(descriptor)

    def replace(self, source: str, target: str) -> None:
        """Give `source` the name `target`, in one step, in place of what had it."""
        os.replace(source, target)

    def link(self, source: str, target: str) -> None:
        """Give `source` the second name `target`; raise FileExistsError if it is taken."""
        os.link(source, target)

    def unlink(self, path: str) -> None:
        """Remove a name."""
        os.unlink(path)

    def make_directory(self, path: str) -> None:
        """Create one directory for its owner only."""
        os.mkdir(path, DIRECTORY_MODE)


system = System()

_can_sync: dict[str, bool] = {}  # by directory, what the first try told


# --- what the operating system says, in our words -------------------------------------------------


def translated(path: str | os.PathLike[str], error: OSError, doing: str) -> StoreError:
    """Return the error of ours that says what `error` means for the store at `path`."""
    reason = error.strerror or type(error).__name__
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreFullError(
            path, f"cannot {doing}: {reason}; nothing of this write was kept, free some space and retry"
        )
    if error.errno == errno.ENOENT:
        return StoreMissingError(path, f"cannot {doing}: it is not there")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return ReadOnlyStoreError(
            path, f"cannot {doing}: {reason}; check the owner and mode of the file and its directory"
        )
    return StoreAccessError(path, f"cannot {doing}: {reason}")


@contextlib.contextmanager
def explaining(path: str | os.PathLike[str], doing: str) -> Iterator[None]:
    """Turn an OSError of the block into a `StoreError` that names `path`."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise translated(path, error, doing) from error


# --- files of ours, and what somebody may have put in their places ---------------------------------


def open_regular(path: str, flags: int, open_file: Callable[[str, int], int] | None = None) -> int:
    """Return a descriptor of one of our files, or raise; no link is followed, and no pipe waited for.

    Args:
        path: the file.
        flags: as for `os.open`.
        open_file: opens it; `system` if it is not given.

    Raises:
        StoreAccessError: something else than a regular file has the name; it was not touched.
        OSError: it cannot be opened.
    """
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = (open_file or system.open)(path, flags)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO):  # a link; a pipe that nobody reads
            check_regular(path)
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise _irregular(path)


def read_regular(path: str, most: int = -1) -> bytes:
    """Return the bytes of one of our files, at most so many; raise as `open_regular` does."""
    with open(open_regular(path, os.O_RDONLY, os.open), "rb") as file:
        return file.read(most)


def check_regular(path: str) -> None:
    """Raise `StoreAccessError` if something else than a regular file has the name; no-op if nothing has it."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise _irregular(path)


def _irregular(path: str) -> StoreAccessError:
    return StoreAccessError(
        path, "is no regular file, but a link, a pipe, a directory or a device: move it away, and open the store again"
    )


def is_there(path: str | os.PathLike[str]) -> bool:
    """Tell whether something has the name.

    Raises:
        StoreError: the system does not tell, such as in another user's directory.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise translated(path, error, "look for it") from error
    return True


def absent(path: str | os.PathLike[str]) -> StoreMissingError:
    """Return the error that there is no store where none is to be created."""
    return StoreMissingError(
        path, "is not there, and create=False; give the path of the store, or create it with create=True"
    )


# --- whole files ---------------------------------------------------------------------------------


def ensure_directory(path: Path) -> None:
    """Create the directory and its missing parents, each for its owner only, and durably."""
    missing: list[Path] = []
    with explaining(path, "find the directory"):
        check_links(path)
        while not is_there(path) and path != path.parent:
            missing.append(path)
            path = path.parent
    for directory in reversed(missing):
        with explaining(directory, "create the directory"):
            with contextlib.suppress(FileExistsError):
                system.make_directory(str(directory))
            sync_directory(str(directory.parent))


def sync_directory(path: str) -> None:
    """Return when the names in a directory are on the disk; at once, with one warning, if its file system cannot tell.

    Some cannot, such as those of FUSE, 9p and CIFS: that is found out at the first try, and holds for the process.

    Raises:
        OSError: it could, and failed.
    """
    if _can_sync.get(path, True):
        try:
            system.sync_directory(path)
        except OSError as error:
            if error.errno not in NO_SUCH_SYNC:
                raise
            _can_sync[path] = False
            _warn(
                f"{path} lies on a file system that cannot sync a directory ({error.strerror}): a power cut may take "
                "the last change back, though it was acknowledged; choose a directory on a local disk"
            )
        else:
            _can_sync[path] = True


def try_directory(path: str) -> None:
    """Find out, and warn, if a directory cannot be synced, before anything is written that relies on it."""
    if path not in _can_sync:
        with contextlib.suppress(OSError):  # the first write meets it again
            sync_directory(path)


def temporary_path(path: str) -> str:
    """Return an unused name beside `path`, which `remove_leftovers` of the same path recognises."""
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")


def remove_leftovers(path: str) -> None:
    """Remove temporary files of killed writers of `path`. Call it under the writer lock only."""
    directory, name = os.path.split(path)
    for entry in os.listdir(directory):
        if entry.startswith(f".{name}.") and entry.endswith((".tmp", ".tmp-journal", ".tmp-wal", ".tmp-shm")):
            with contextlib.suppress(FileNotFoundError):
                system.unlink(os.path.join(directory, entry))


def write_whole(
    path: str, parts: Iterable[bytes], *, keep_existing: bool = False, sync: bool = True, strict: bool = False
) -> None:
    """Write a file so that at any moment, also after a power cut, the old or the new one is there whole.

    Args:
        path: the file; its directory exists.
        parts: its content.
        keep_existing: a file that is there already stays, and nothing happens.
        sync: wait for the disk; without, a power cut MAY LOSE BOTH FILES (a killed process loses none).
        strict: see `put_in_place`.

    Raises:
        StoreError: the write failed; the old file is untouched.
    """
    temporary = temporary_path(path)
    with explaining(path, "write"):
        descriptor = system.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            try:
                for part in parts:
                    view = memoryview(part)
                    while view:
                        view = view[system.write(descriptor, view) :]
                if sync:
                    system.sync(descriptor)
            finally:
                os.close(descriptor)
            put_in_place(temporary, path, keep_existing=keep_existing, sync=sync, strict=strict)
        except BaseException:
            with contextlib.suppress(OSError):
                system.unlink(temporary)
            raise


def sync_file(path: str) -> None:
    """Return when all that was written to the file at `path`, by whomever, is on the disk."""
    descriptor = open_regular(path, os.O_RDWR)
    try:
        system.sync(descriptor)
    finally:
        os.close(descriptor)


def put_in_place(temporary: str, path: str, *, keep_existing: bool, sync: bool = True, strict: bool = False) -> None:
    """Move a finished and synced file to its name, durably; with `keep_existing` only if none is there.

    From then on it is there, so what fails behind that is no error: whoever was told of one would write again. It is
    logged. But with `strict` it is one: something else is about to be given up, which this file alone replaces.

    Raises:
        StoreAccessError: it is `strict`, and the directory cannot be synced.
        OSError: the file could not be moved.
    """
    if keep_existing:
        try:
            system.link(temporary, path)
        except FileExistsError:
            system.unlink(temporary)
            return
        except OSError:  # a file system without hard links; the writer lock keeps others away
            if os.path.exists(path):
                system.unlink(temporary)
                return
            system.replace(temporary, path)
        else:
            system.unlink(temporary)
    else:
        system.replace(temporary, path)
    if sync:
        try:
            sync_directory(os.path.dirname(path))
        except (OSError, UnsafeLocationWarning) as error:  # which warnings are that somebody turned into errors
            problem = (
                f"was written, but its directory could not be synced ({getattr(error, 'strerror', None) or error}): "
                "it is there now, and a power cut may take this write back"
            )
            if strict:
                raise StoreAccessError(path, problem) from error
            import logging  # 8 ms to import, which most processes never need

            logging.getLogger("jarvis.files").warning("%s %s", path, problem)


class Stamp(NamedTuple):
    """What changes when a file is changed or replaced."""

    inode: int
    size: int
    modified_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """Return the stamp in a stat result."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


# --- where a store may lie -----------------------------------------------------------------------

_NETWORK_TYPES = frozenset(
    (
        *("nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "ncpfs", "afs", "coda", "ceph", "glusterfs", "lustre"),
        *("gfs", "gfs2", "ocfs2", "beegfs", "davfs", "fuse.sshfs", "fuse.rclone", "fuse.s3fs", "fuse.gcsfuse"),
        *("fuse.davfs", "fuse.glusterfs"),
    )
)
_OTHER_NAMES = {"memory.db": "memory.json", "memory.json": "memory.db"}  # in which two backends keep their stores
_warned_of: set[str] = set()
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

    Whoever creates a store through such a link has two of them when the disk is back.

    Raises:
        StoreMissingError: one does; the message says which, and where to.
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
            except OSError:  # whoever opens the store gets it, too, and says so
                return


def check_location(path: Path, *, mounts: str = "/proc/self/mountinfo") -> None:
    """Refuse a store where its promises cannot hold; warn of one in a synchronised or host-shared folder.

    Warn, too, where the backend was switched and the store of the other one lies beside it: once in a process.

    Locks and the write-ahead log's shared memory do not work between machines, and a program that
    copies the file about while it is written copies a torn one. Where the file alone is mounted, its log and its
    lock lie in another place than those of whoever opens the same file there.

    Raises:
        UnsafeLocationError: `path` is on a network file system, or is a mount of its own (told from `mounts`,
            which only Linux has; elsewhere from what the file's directory lies on).
    """
    known = _mounts(mounts)
    if str(path) in known or (not known and _is_on_another_device(path)):
        raise UnsafeLocationError(
            path,
            "is mounted as a file alone, so that its log, its lock and what is to take its place lie elsewhere; "
            f"mount its directory in place of it ({path.parent})",
        )
    _warn_of_another_store(path)
    kind = _file_system_type(path, known)
    if kind in _NETWORK_TYPES:
        raise UnsafeLocationError(
            path,
            f"lies on a network file system ({kind}), where file locks cannot be trusted; choose a local directory",
        )
    if kind in _SHARED_TYPES:
        _warn(f"{path} lies in a folder shared with the host of this machine ({kind}): open it from one side only")
    for folder in [path, *path.parents]:
        name = folder.name.lower()
        if name in _SYNCED_NAMES or name.startswith("onedrive - ") or os.path.isdir(folder / ".stfolder"):
            _warn(
                f"{path} lies in a synchronised folder ({folder}): its program may copy the store while it is "
                "being written, or put an old copy in its place; choose a directory that is not synchronised"
            )
            return


def _warn_of_another_store(path: Path) -> None:
    other = path.with_name(_OTHER_NAMES.get(path.name, path.name))
    if other == path or str(path) in _warned_of or not os.path.exists(other):
        return
    _warned_of.add(str(path))
    _warn(
        f"{path} is opened, and {other.name} beside it holds the memories of another backend: nothing is taken over "
        f"from {other}. Open that one, copy what is to be kept, or move it away",
        OtherStoreWarning,
    )


def _warn(message: str, kind: type[UserWarning] = UnsafeLocationWarning) -> None:
    import warnings

    warnings.warn(message, kind, stacklevel=4)


def _mounts(path: str) -> dict[str, str]:
    """Return the type of the file system at each mount point, the last one that was mounted there; none if unknown.

    See https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html: four signs are written as octal numbers.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except OSError:
        return {}
    found: dict[str, str] = {}
    for line in lines:
        before, separator, after = line.partition(" - ")
        if separator:
            point = _OCTAL.sub(lambda sign: chr(int(sign[1], 8)), before.split(" ")[4])
            found[point] = after.split(" ")[0]
    return found


def _file_system_type(path: Path, mounts: dict[str, str]) -> str | None:
    return next((mounts[str(each)] for each in (path, *path.parents) if str(each) in mounts), None)


def _is_on_another_device(path: Path) -> bool:
    """Tell whether a file lies elsewhere than its directory.

    Not asked on Linux, where each file of an overlay may tell the device of the layer below
    (https://docs.kernel.org/filesystems/overlayfs.html#inode-properties).
    """
    try:
        return path.stat().st_dev != path.parent.stat().st_dev
    except OSError:
        return False
