"""Files that are whole or not there, locks between processes, and where a store may lie.

Every operation that touches the disk goes through `system`, so that a test can let the n-th one fail
or record the order of writes and syncs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from jarvis.errors import (
    ReadOnlyStoreError,
    StoreAccessError,
    StoreBusyError,
    StoreError,
    StoreFullError,
    StoreMissingError,
    TransactionError,
    UnsafeLocationError,
    UnsafeLocationWarning,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Member = TypeVar("Member")

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


# --- whole files ---------------------------------------------------------------------------------


def ensure_directory(path: Path) -> None:
    """Create the directory and its missing parents, each for its owner only, and durably."""
    missing: list[Path] = []
    with explaining(path, "find the directory"):
        while not path.exists() and path != path.parent:
            missing.append(path)
            path = path.parent
    for directory in reversed(missing):
        with explaining(directory, "create the directory"):
            with contextlib.suppress(FileExistsError):
                system.make_directory(str(directory))
            system.sync_directory(str(directory.parent))


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


def write_whole(path: str, parts: Iterable[bytes], *, keep_existing: bool = False, sync: bool = True) -> None:
    """Write a file so that at any moment, also after a power cut, the old or the new one is there whole.

    Args:
        path: the file; its directory exists.
        parts: its content.
        keep_existing: a file that is there already stays, and nothing happens.
        sync: wait for the disk; without, a power cut MAY LOSE BOTH FILES (a killed process loses none).

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
            put_in_place(temporary, path, keep_existing=keep_existing, sync=sync)
        except BaseException:
            with contextlib.suppress(OSError):
                system.unlink(temporary)
            raise


def put_in_place(temporary: str, path: str, *, keep_existing: bool, sync: bool = True) -> None:
    """Move a finished and synced file to its name, durably; with `keep_existing` only if none is there."""
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
            system.sync_directory(os.path.dirname(path))
        except OSError as error:
            raise StoreAccessError(
                path,
                f"was written, but its directory could not be synced ({error.strerror}): it is there now, and a power "
                "cut may take this write back",
            ) from error


class Stamp(NamedTuple):
    """What changes when a file is changed or replaced."""

    inode: int
    size: int
    modified_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """Return the stamp in a stat result."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


class Note(NamedTuple):
    """What the last writer left word of: the store's stamp, and the last commit that was synced before."""

    stamp: Stamp
    commit: int


# --- where a store may lie -----------------------------------------------------------------------

_NETWORK_TYPES = frozenset(
    (
        *("nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "ncpfs", "afs", "coda", "ceph", "glusterfs", "lustre"),
        *("gfs", "gfs2", "ocfs2", "beegfs", "davfs", "fuse.sshfs", "fuse.rclone", "fuse.s3fs", "fuse.gcsfuse"),
        *("fuse.davfs", "fuse.glusterfs"),
    )
)
_SHARED_TYPES = frozenset(("9p", "virtiofs", "vboxsf", "drvfs", "fuse.vmhgfs-fuse"))  # host and guest see one file
_SYNCED_NAMES = frozenset(
    (
        *("dropbox", "onedrive", "google drive", "googledrive", "my drive", "mobile documents", "icloud drive"),
        *("icloudclouddocs", "nextcloud", "owncloud", "pclouddrive", "megasync", "syncthing"),
    )
)


def check_location(path: Path, *, mounts: str = "/proc/self/mountinfo") -> None:
    """Refuse a store on a network file system; warn of one in a synchronised or host-shared folder.

    Locks and the write-ahead log's shared memory do not work between machines, and a program that
    copies the file about while it is written copies a torn one.

    Raises:
        UnsafeLocationError: `path` is on a network file system (told from `mounts`, Linux only).
    """
    kind = _file_system_type(path, mounts)
    if kind in _NETWORK_TYPES:
        raise UnsafeLocationError(
            path,
            f"lies on a network file system ({kind}), where file locks cannot be trusted; choose a local directory",
        )
    if kind in _SHARED_TYPES:
        _warn(f"{path} lies in a folder shared with the host of this machine ({kind}): open it from one side only")
    for folder in [path, *path.parents]:
        name = folder.name.lower()
        if name in _SYNCED_NAMES or name.startswith("onedrive - ") or (folder / ".stfolder").is_dir():
            _warn(
                f"{path} lies in a synchronised folder ({folder}): its program may copy the store while it is "
                "being written, or put an old copy in its place; choose a directory that is not synchronised"
            )
            return


def _warn(message: str) -> None:
    import warnings

    warnings.warn(message, UnsafeLocationWarning, stacklevel=4)


def _file_system_type(path: Path, mounts: str) -> str | None:
    try:
        lines = Path(mounts).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    best, found = -1, None
    for line in lines:
        before, _, after = line.partition(" - ")
        point = before.split()[4].replace("\\040", " ")
        if (path.is_relative_to(point)) and len(point) >= best:
            best, found = len(point), after.split()[0]
    return found


# --- a lock between processes and threads --------------------------------------------------------

_locks: weakref.WeakSet[WriterLock] = weakref.WeakSet()


class WriterLock:
    """An exclusive advisory lock: one holder among all threads of all processes.

    Waiters queue in the kernel, so none starves. The lock dies with its process. A forked child
    never holds, and never keeps alive, a lock of its parent. An exception that arrives from outside,
    such as KeyboardInterrupt, at any place in here leaves nothing that `release` does not put right.

    The lock's file also carries a `Note` for its holders (see `read_note`).

    Args:
        path: the lock's file, created when first needed; it may be removed while nobody holds the lock.
        guarded: the file that error messages name.
    """

    def __init__(self, path: str, guarded: str) -> None:
        self.path = path
        self.guarded = guarded
        self._mutex = threading.RLock()  # of the threads of this process; it knows its owner by itself
        self._descriptors: set[int] = set()  # every open one
        self._held: int | None = None
        self._waiters: list[_Waiter] = []  # at most one: the wait that goes on, wanted or given up
        weakref.finalize(self, _let_go, self._descriptors, self._waiters).atexit = False  # others still need it then
        _locks.add(self)

    def is_mine(self) -> bool:
        """Tell whether the calling thread holds the lock."""
        return bool(self._mutex._is_owned())  # type: ignore[attr-defined]  # threading.Condition relies on it too

    def acquire(self, timeout_seconds: float) -> None:
        """Wait for the lock. Whoever calls this calls `release` next, also if this raises.

        Raises:
            StoreBusyError: somebody else held it for longer than `timeout_seconds`.
            TransactionError: this thread holds it already, for the same store opened another time.
            StoreError: the lock's file cannot be opened.
        """
        deadline = time.monotonic() + timeout_seconds
        if not self._mutex.acquire(timeout=max(timeout_seconds, 0)):
            raise self._busy(timeout_seconds)
        while True:
            if self._held is None:
                self._held = self._open()
                self._descriptors.add(self._held)
            if not _try_lock(self._held):
                self._wait(deadline, timeout_seconds)
            if self._is_current():
                return
            self._close(self._held)  # somebody removed the file meanwhile: that lock guards nothing

    def release(self) -> None:
        """Give the lock to the next waiter; no-op if the calling thread does not hold it."""
        if self.is_mine():
            for waiter in self._waiters:  # one that an interrupt kept from being handed over
                waiter.give_up()
            if self._held is not None:
                _unlock(self._held)
            while self.is_mine():
                self._mutex.release()

    def release_for(self, holder: tuple[int, int]) -> None:
        """Release what the thread with this (process id, thread id) acquired.

        Another thread of its process may do that, which was left its transaction or collects it after
        its end; a forked child holds nothing to release.
        """
        if holder == (os.getpid(), threading.get_ident()):
            self.release()
        elif holder[0] == os.getpid():
            if self._held is not None:
                self._close(self._held)
            self._mutex = threading.RLock()

    def close(self) -> None:
        """Close the lock's file, if nobody in this process holds the lock; it opens again when needed."""
        mutex = self._mutex
        if mutex.acquire(blocking=False):
            try:
                if self._held is not None:
                    self._close(self._held)
            finally:
                mutex.release()

    def read_note(self) -> Note | None:
        """Return the note that a holder left last, or None; anybody may read it."""
        try:
            with open(self.path, "rb") as file:
                fields = [int(field) for field in file.read(200).split()]
        except (OSError, ValueError):
            return None
        return Note(Stamp(*fields[:3]), fields[3]) if len(fields) == 4 else None

    def write_note(self, note: Note) -> None:
        """Leave a note; the caller holds the lock.

        It is not synced, so a power cut may leave an older one, and never one that runs ahead of what
        the caller synced before.
        """
        if self._held is None:
            raise RuntimeError("only the holder of the lock leaves a note")
        text = b"%d %d %d %d" % (*note.stamp, note.commit)
        with explaining(self.path, "write"):
            os.lseek(self._held, 0, os.SEEK_SET)
            system.write(self._held, text.ljust(99) + b"\n")

    # --- inside ---

    def _open(self) -> int:
        with explaining(self.path, "open the writer lock"):
            return system.open(self.path, os.O_RDWR | os.O_CREAT)

    def _close(self, descriptor: int) -> None:
        if descriptor == self._held:
            self._held = None
        if descriptor in self._descriptors:
            self._descriptors.discard(descriptor)
            os.close(descriptor)

    def _wait(self, deadline: float, timeout_seconds: float) -> None:
        """Wait in the kernel's queue, in a thread of its own: a blocking flock knows no timeout.

        A wait that is given up goes on, for the next one to take over; if none does, the thread lets
        go of the lock as soon as it gets it.
        """
        if deadline <= time.monotonic():
            raise self._busy(timeout_seconds)
        self._refuse_deadlock()
        if self._waiters and not self._waiters[0].take_over():
            self._waiters.clear()
        try:
            if not self._waiters:
                self._waiters.append(_Waiter(self._open))
                self._waiters[0].start()
            descriptor = self._waiters[0].wait(max(deadline - time.monotonic(), 0))
            if descriptor is None:
                raise self._busy(timeout_seconds)
        except BaseException:
            for waiter in self._waiters:
                waiter.give_up()
            raise
        if self._held is not None:
            self._close(self._held)
        self._held = descriptor
        self._descriptors.add(descriptor)
        self._waiters.clear()

    def _refuse_deadlock(self) -> None:
        """Raise if this thread waits for itself: the store is open twice, and the other one is in a transaction."""
        for other in listed(_locks):
            if other is not self and other.path == self.path and other.is_mine():
                raise TransactionError(
                    f"{self.guarded}: this thread has a transaction open on it through another module or backend; "
                    "use that one, or its for_namespace()"
                )

    def _is_current(self) -> bool:
        try:
            return self._held is not None and os.path.samestat(os.stat(self.path), os.fstat(self._held))
        except OSError:
            return False

    def _busy(self, timeout_seconds: float) -> StoreBusyError:
        return StoreBusyError(
            self.guarded,
            f"another writer has kept it locked for {timeout_seconds:g} s; "
            "retry, let the other finish, or raise busy_timeout_seconds",
        )

    def _forget(self) -> None:
        """In a forked child: let go of the parent's descriptors without unlocking what it holds."""
        for waiter in self._waiters:
            self._descriptors.add(waiter.descriptor)
        self._waiters.clear()
        _let_go(self._descriptors, self._waiters)
        self._held = None
        self._mutex = threading.RLock()


class _Waiter:
    """A thread that waits for the lock on a descriptor of its own, until somebody wants it or nobody does.

    The descriptor is the waiter's to close until `wait` hands it out.
    """

    def __init__(self, open_file: Callable[[], int]) -> None:
        self.descriptor = open_file()
        self._settled = threading.Lock()
        self._got = threading.Event()
        self._wanted = True
        self._over = False
        self._thread = threading.Thread(target=self._run, name="jarvis-writer-lock", daemon=True)

    def start(self) -> None:
        """Begin to wait."""
        self._thread.start()

    def _run(self) -> None:
        _lock(self.descriptor)
        with self._settled:
            if self._wanted:
                self._got.set()
            else:
                self._finish()

    def take_over(self) -> bool:
        """Want it again; False if the thread got the lock meanwhile and let it go."""
        with self._settled:
            self._wanted = not self._over
            return self._wanted

    def wait(self, seconds: float) -> int | None:
        """Wait at most that long; return the descriptor, locked and now the caller's, or None."""
        return self.descriptor if self._got.wait(seconds) else None

    def give_up(self) -> None:
        """Want it no longer; let go of it if it was got in this very moment."""
        with self._settled:
            self._wanted = False
            if not self._over and (self._got.is_set() or self._thread.ident is None):
                self._finish()

    def _finish(self) -> None:
        self._over = True
        os.close(self.descriptor)  # which unlocks it


def _let_go(descriptors: set[int], waiters: list[_Waiter]) -> None:
    while waiters:
        waiters.pop().give_up()
    while descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptors.pop())


def listed(held: weakref.WeakSet[Member]) -> list[Member]:
    """Return what a set of weak references holds now, also while other threads add to it."""
    while True:
        try:
            return list(held)
        except RuntimeError:  # it changed size during the iteration
            continue


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # beyond the stamp: such locks are mandatory
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _lock(descriptor: int) -> None:
        while not _try_lock(descriptor):
            time.sleep(0.01)

    def _unlock(descriptor: int) -> None:
        with contextlib.suppress(OSError):  # it was not locked
            os.lseek(descriptor, 1 << 30, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _forget_locks() -> None:
        for lock in listed(_locks):
            lock._forget()

    os.register_at_fork(after_in_child=_forget_locks)
