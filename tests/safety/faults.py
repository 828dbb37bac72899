"""The seams under both backends: every file operation passes a hook, which may record it, refuse it or end it all."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import apsw

from jarvis._disk import files
from jarvis._sqlite import engine

BASE = "cksmvfs"
NAME = "jarvis-seam"
BENEATH = f"{NAME}-beneath"
"""The layer under the page cipher: what passes there is what the disk gets."""

CHANGING = frozenset(("write", "truncate", "sync", "sync_directory", "replace", "link", "unlink", "make_directory"))

SECTOR = 512
"""Bytes that a disk writes whole or not at all."""


class Operation(NamedTuple):
    """One file operation. `path` is the file's; of a replace or link the target's."""

    verb: str
    path: str
    size: int = 0


class Hook:
    """Lets everything pass; subclasses do not."""

    def before(self, operation: Operation) -> bool:
        """Raise OSError to refuse the operation; return True to let half of a write pass and `tear` then."""
        return False

    def tear(self) -> None:
        """Come after half a write."""

    def done(self, operation: Operation) -> None:
        """Come after an operation that worked."""


class Recorder(Hook):
    """Lists what was done."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def done(self, operation: Operation) -> None:
        self.operations.append(operation)


class FailAt(Hook):
    """Refuses the n-th operation (from 1) of those in `verbs`; with `lasting` also all later ones."""

    def __init__(self, number: int, code: int, *, verbs: frozenset[str] = CHANGING, lasting: bool = False) -> None:
        self.number, self.code, self.verbs, self.lasting = number, code, verbs, lasting
        self.seen = 0
        self.failed: Operation | None = None

    def before(self, operation: Operation) -> bool:
        if operation.verb in self.verbs:
            self.seen += 1
            if self.seen == self.number or (self.lasting and self.seen > self.number):
                self.failed = self.failed or operation
                raise OSError(self.code, os.strerror(self.code))
        return False


class KillAt(Hook):
    """Kills this process at the n-th changing operation: before it, or with `torn` in the middle of a write."""

    def __init__(self, number: int, report: int, *, torn: bool) -> None:
        self.left, self.report, self.torn = number, report, torn

    def before(self, operation: Operation) -> bool:
        if operation.verb not in CHANGING:
            return False
        self.left -= 1
        if self.left:
            return False
        os.write(self.report, f"at {operation.verb} {os.path.basename(operation.path)}\n".encode())
        if self.torn and operation.verb == "write" and operation.size > SECTOR:
            return True
        self.tear()
        return False

    def tear(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


_hook = Hook()


@contextlib.contextmanager
def installed(hook: Hook) -> Iterator[None]:
    """Let every file operation of both backends in this process pass `hook`; connections open now keep theirs."""
    global _hook
    engine.load_checksums()
    _seam_vfs()
    before = engine.vfs, engine.cipher_vfs, files.system, _hook
    engine.vfs, engine.cipher_vfs = NAME, f"multipleciphers-{BENEATH}"
    files.system, _hook = _SeamSystem(), hook
    try:
        yield
    finally:
        engine.vfs, engine.cipher_vfs, files.system, _hook = before


@contextlib.contextmanager
def lifted() -> Iterator[None]:
    """Let everything pass for a while."""
    global _hook
    before, _hook = _hook, Hook()
    try:
        yield
    finally:
        _hook = before


# --- the file layer of the JSON store, and of whole files ------------------------------------------------


class _SeamSystem(files.System):
    def __init__(self) -> None:
        self._paths: dict[int, str] = {}

    def _path(self, descriptor: int) -> str:
        return self._paths.get(descriptor, "opened before.lock")  # only the lock's file stays open between calls

    def open(self, path: str, flags: int) -> int:
        operation = Operation("open", path)
        _hook.before(operation)
        descriptor = super().open(path, flags)
        self._paths[descriptor] = path
        _hook.done(operation)
        return descriptor

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        operation = Operation("write", self._path(descriptor), len(data))
        if _hook.before(operation):
            super().write(descriptor, bytes(data)[: len(data) // 2])
            _hook.tear()
        written = super().write(descriptor, data)
        _hook.done(operation)
        return written

    def sync(self, descriptor: int) -> None:
        operation = Operation("sync", self._path(descriptor))
        _hook.before(operation)
        super().sync(descriptor)
        _hook.done(operation)

    def sync_directory(self, path: str) -> None:
        operation = Operation("sync_directory", path)
        _hook.before(operation)
        files.System().sync_directory(path)
        _hook.done(operation)

    def replace(self, source: str, target: str) -> None:
        operation = Operation("replace", target)
        _hook.before(operation)
        super().replace(source, target)
        _hook.done(operation)

    def link(self, source: str, target: str) -> None:
        operation = Operation("link", target)
        _hook.before(operation)
        super().link(source, target)
        _hook.done(operation)

    def unlink(self, path: str) -> None:
        operation = Operation("unlink", path)
        _hook.before(operation)
        super().unlink(path)
        _hook.done(operation)

    def make_directory(self, path: str) -> None:
        operation = Operation("make_directory", path)
        _hook.before(operation)
        super().make_directory(path)
        _hook.done(operation)


# --- the file layer of SQLite -----------------------------------------------------------------------------


def _before(operation: Operation, otherwise: int) -> bool:
    """Ask the hook; say no in the words in which SQLite's own file layer says it."""
    try:
        return _hook.before(operation)
    except OSError as error:
        full = error.errno == errno.ENOSPC and operation.verb == "write"
        raise apsw.exception_for(apsw.SQLITE_FULL if full else otherwise) from None


class _SeamFile(apsw.VFSFile):
    def __init__(self, base: str, name: Any, flags: list[int]) -> None:
        self.path = str(name.filename() if isinstance(name, apsw.URIFilename) else name or "")
        _before(Operation("open", self.path), apsw.SQLITE_CANTOPEN)
        super().__init__(base, name, flags)
        _hook.done(Operation("open", self.path))

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802  the driver's name
        _before(Operation("read", self.path, amount), apsw.SQLITE_IOERR_READ)
        return super().xRead(amount, offset)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802  the driver's name
        operation = Operation("write", self.path, len(data))
        if _before(operation, apsw.SQLITE_IOERR_WRITE):
            with open(self.path, "r+b") as file:  # past the checksums, as a torn write is
                file.seek(offset)
                file.write(bytes(data)[: len(data) // 2])
            _hook.tear()
        super().xWrite(data, offset)
        _hook.done(operation)

    def xSync(self, flags: int) -> None:  # noqa: N802  the driver's name
        operation = Operation("sync", self.path)
        _before(operation, apsw.SQLITE_IOERR_FSYNC)
        super().xSync(flags)
        _hook.done(operation)

    def xTruncate(self, size: int) -> None:  # noqa: N802  the driver's name
        operation = Operation("truncate", self.path, size)
        _before(operation, apsw.SQLITE_IOERR_TRUNCATE)
        super().xTruncate(size)
        _hook.done(operation)


class _SeamVFS(apsw.VFS):
    def __init__(self, name: str, base: str) -> None:
        super().__init__(name, base)
        self._base = base

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802  the driver's name
        return _SeamFile(self._base, name, flags)

    def xDelete(self, path: str, sync: bool) -> None:  # noqa: N802  the driver's name
        operation = Operation("unlink", path)
        _before(operation, apsw.SQLITE_IOERR_DELETE)
        super().xDelete(path, sync)
        _hook.done(operation)
        if sync:
            _hook.done(Operation("sync_directory", os.path.dirname(path)))


_vfs: list[_SeamVFS] = []


def _seam_vfs() -> None:
    if not _vfs:
        _vfs.extend((_SeamVFS(NAME, BASE), _SeamVFS(BENEATH, "unix")))
