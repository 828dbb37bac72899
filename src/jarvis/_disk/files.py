"""Files that are whole or not there, made and replaced in one step.

Every operation that changes the disk goes through `system`. A test can let the n-th one fail there, or record the
order of writes and syncs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jarvis._disk import location, ownership
from jarvis._disk.paths import NO_SUCH_SYNC
from jarvis.errors import NO_DESCRIPTORS, StoreAccessError, StoreError, StoreMissingError, UnsafeLocationWarning
from jarvis.errors import translated as translated  # part of what this file is for

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
        """Rename `source` to `target`, in one step; a file of that name is replaced."""
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

_can_sync: dict[str, bool] = {}  # by directory, the result of the first try


# --- errors of the operating system --------------------------------------------------------------


def check_descriptors(least: int = 1) -> None:
    """Raise OSError if this process has too few descriptors left to open `least` more files."""
    opened: list[int] = []
    try:
        for _ in range(least):
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        if error.errno in NO_DESCRIPTORS:
            raise
    finally:
        for descriptor in opened:
            os.close(descriptor)


def check_room(directory: str) -> None:
    """Raise OSError if the file system of a directory says that it has no room for another file."""
    if not hasattr(os, "statvfs"):
        return
    room = os.statvfs(directory)
    is_full = (room.f_files and not room.f_favail) or (room.f_blocks and not room.f_bavail)
    if is_full and not room.f_flag & os.ST_RDONLY:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), directory)


@contextlib.contextmanager
def explaining(path: str | os.PathLike[str], doing: str) -> Iterator[None]:
    """Turn an OSError of the block into a `StoreError` that names `path`."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise translated(path, error, doing) from error


# --- our files, and what somebody may have put in their places ------------------------------------


def open_regular(path: str, flags: int, open_file: Callable[[str, int], int] | None = None) -> int:
    """Open one of our files and return its descriptor. It follows no link, and waits for no pipe.

    Raises:
        StoreAccessError: the name is that of something else than a regular file, which was not touched.
        OSError: it cannot be opened.
    """
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = (open_file or system.open)(path, flags)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR):  # a link, or a pipe without a reader
            check_regular(path)
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise _irregular(path)


def open_or_create(path: str, *models: str) -> int:
    """Open one of our files for reading and writing, or create it; return its descriptor.

    Args:
        path: of the file.
        models: files from which a new one takes its owner and mode, see `jarvis._disk.ownership.take_after`.

    Raises:
        StoreAccessError: as `open_regular` does.
        OSError: it cannot be opened or created.
    """
    while True:
        with contextlib.suppress(FileNotFoundError):
            return open_regular(path, os.O_RDWR)
        with contextlib.suppress(FileExistsError):  # another process was faster
            return create(path, *models, flags=os.O_RDWR)


def create(path: str, *models: str, flags: int = os.O_WRONLY, private: bool = False) -> int:
    """Create a file that is not there yet; return its descriptor.

    Args:
        models: see `jarvis._disk.ownership.take_after`.
        private: as for `take_after`.

    Raises:
        OSError: it is there, or cannot be created.
    """
    descriptor = system.open(path, flags | os.O_CREAT | os.O_EXCL)
    try:
        ownership.take_after(descriptor, path, *models, private=private)
    except BaseException:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            system.unlink(path)
        raise
    return descriptor


def read_regular(path: str, most: int = -1) -> bytes:
    """Return the bytes of one of our files, at most `most` of them; raise as `open_regular` does."""
    with open(open_regular(path, os.O_RDONLY, os.open), "rb") as file:
        return file.read(most)


def check_regular(path: str) -> None:
    """Raise `StoreAccessError` if something else than a regular file has this path; no-op if nothing has it."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise _irregular(path)


def _irregular(path: str) -> StoreAccessError:
    return StoreAccessError(
        path, "is no regular file, but a link, a pipe, a directory or a device: move it away, and open the store again"
    )


def is_there(path: str | os.PathLike[str]) -> bool:
    """Tell whether something has this path.

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
    """Return the error that there is no store, and create=False."""
    return StoreMissingError(
        path, "is not there, and create=False; give the path of the store, or create it with create=True"
    )


# --- whole files ---------------------------------------------------------------------------------


def ensure_directory(path: Path) -> None:
    """Create the directory and its missing parents durably, each for its owner only."""
    missing: list[Path] = []
    with explaining(path, "find the directory"):
        location.check_links(path)
        while not is_there(path) and path != path.parent:
            missing.append(path)
            path = path.parent
    for directory in reversed(missing):
        with explaining(directory, "create the directory"):
            with contextlib.suppress(FileExistsError):
                system.make_directory(str(directory))
                ownership.take_after_parent(str(directory))
            sync_directory(str(directory.parent))


def sync_directory(path: str) -> None:
    """Return when the names in a directory are on the disk.

    Some file systems cannot sync a directory, such as those of FUSE, 9p and CIFS. The first try in a process finds that
    out and warns; later calls return at once.

    Raises:
        OSError: the sync failed.
    """
    if _can_sync.get(path, True):
        try:
            system.sync_directory(path)
        except OSError as error:
            if error.errno not in NO_SUCH_SYNC:
                raise
            _can_sync[path] = False
            location.warn(
                f"{path} lies on a file system that cannot sync a directory ({error.strerror}): a power cut may take "
                "the last change back, though it was acknowledged; choose a directory on a local disk"
            )
        else:
            _can_sync[path] = True


def try_directory(path: str) -> None:
    """Warn if a directory cannot be synced, before anything is written that relies on it."""
    if path not in _can_sync:
        with contextlib.suppress(OSError):  # the first write will raise it
            sync_directory(path)


def temporary_path(path: str) -> str:
    """Return an unused path beside `path` that `remove_leftovers` of `path` recognises."""
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
    path: str,
    parts: Iterable[bytes],
    *,
    beside: str | None = None,
    private: bool = False,
    keep_existing: bool = False,
    sync: bool = True,
    strict: bool = False,
) -> None:
    """Write a file; at any moment, also after a power cut, the old file or the new one is there whole.

    Args:
        path: of the file; its directory exists.
        parts: its content.
        beside: the file that it belongs to; a new file takes its owner and mode from that one.
        private: the file is for its owner only, whatever the mode of `beside`.
        keep_existing: if the file is there already, do nothing.
        sync: wait for the disk; without, a power cut MAY LOSE BOTH FILES (a killed process loses none).
        strict: see `put_in_place`.

    Raises:
        StoreError: the write failed; the old file is untouched.
    """
    temporary = temporary_path(path)
    with explaining(path, "write"):
        descriptor = create(temporary, path, *([] if beside is None else [beside]), private=private)
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
    """Return when all that any process wrote to the file at `path` is on the disk."""
    descriptor = open_regular(path, os.O_RDWR)
    try:
        system.sync(descriptor)
    finally:
        os.close(descriptor)


def put_in_place(temporary: str, path: str, *, keep_existing: bool, sync: bool = True, strict: bool = False) -> None:
    """Rename a finished and synced file to `path`, durably; with `keep_existing` only if nothing is there.

    If the file is renamed and only the sync of its directory fails, that is logged: after an error the caller would
    write again. With `strict` it is an error: the caller is about to remove what this file alone replaces.

    Raises:
        StoreAccessError: with `strict`, the directory cannot be synced.
        OSError: the file could not be renamed.
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
        except (OSError, UnsafeLocationWarning) as error:  # a caller may have turned warnings into errors
            problem = (
                f"was written, but its directory could not be synced ({getattr(error, 'strerror', None) or error}): "
                "it is there now, and a power cut may take this write back"
            )
            if strict:
                raise StoreAccessError(path, problem) from error
            import logging  # 8 ms to import, which most processes never need

            logging.getLogger("jarvis.files").warning("%s %s", path, problem)


class Stamp(NamedTuple):
    """The part of a file's status that differs once the file was changed or replaced."""

    inode: int
    size: int
    modified_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """Return the stamp in a stat result."""
        return tuple.__new__(cls, (status.st_ino, status.st_size, status.st_mtime_ns))
