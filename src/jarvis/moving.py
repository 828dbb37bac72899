"""Moves stores: into another backend, back from a backup, and out of a damaged file."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from jarvis.async_memory import AsyncMemoryModule
from jarvis.container import Container
from jarvis.model.options import KeySources, checked
from jarvis.model.rewriting import Progress
from jarvis.model.salvaged import RepairReport
from jarvis.model.store_options import StoreOptions
from jarvis.model.transfers import MigrationReport
from jarvis.persistent_memory import MemoryModule
from jarvis.services import migrating
from jarvis.services.backups import generations
from jarvis.services.places import backend_at, no_place

__all__ = ["migrate", "migrate_async", "repair", "repair_async", "restore_backup", "restore_backup_async"]

Place = MemoryModule | AsyncMemoryModule | str | Path
"""A memory; or the URL of a store on a server, the directory or the file of a store, or a YAML file of settings."""

P = ParamSpec("P")
Result = TypeVar("Result")


def migrate(
    source: Place,
    target: Place,
    *,
    plain_text: bool = False,
    progress: Progress | None = None,
) -> MigrationReport:
    """Copy all memories of one store into another one, on any backends, and compare the two.

    All namespaces are copied, with ids, versions, timestamps, provenance, expiry and the past. The source is not
    touched. Stop its writers before: what they write meanwhile may be missing. After an interruption call it again with
    the same stores, and it goes on where it was. Cursors of the source's feed do not work with the target.

    Args:
        source: a `MemoryModule` or `AsyncMemoryModule` on the store, or a place where one is opened: see `Place`.
        target: the same, of a store that is absent or empty.
        plain_text: copy an encrypted store into one that is not.
        progress: is called with (done, total) now and then.

    Returns:
        How many memories there are, and the digest of both stores.

    Raises:
        TargetNotEmptyError: the target has other memories.
        InvalidSettingError: the source is encrypted, the target is not, and `plain_text` is False; or the target keeps
            no history and the source does.
        StoreBusyError: the source was written to meanwhile.
        StoreFullError: the target is full; make room and call it again.

    >>> import tempfile
    >>> from jarvis.moving import migrate
    >>> from jarvis.persistent_memory import MemoryModule
    >>> directory = tempfile.mkdtemp()
    >>> with MemoryModule(storage_dir=directory) as memory:
    ...     _ = memory.set_user_preference("theme", {"mode": "dark"})
    >>> readable = MemoryModule(storage_dir=directory + "/readable", backend_type="json")
    >>> migrate(directory, readable).memories
    1
    >>> readable.get_user_preferences()
    {'theme': {'mode': 'dark'}}
    """
    with _opened("source", source) as one, _opened("target", target) as other:
        told = checked("progress", progress)
        if (not isinstance(target, (str, Path)) or _is_settings(target)) and migrating.is_encrypted(one.backend):
            other.bootstrap()  # an absent one that is to be encrypted has no keys yet
        return migrating.migrate(one.backend, other.backend, plain_text=plain_text is True, progress=told)


def restore_backup(
    path: str | Path, into: str | Path, *, keys: KeySources = (), progress: Progress | None = None
) -> Path:
    """Make a store of a backup; return the path of its file.

    The whole backup is verified before, and the store is read again and compared. The backup is not changed. The store
    is a new one for whoever follows its changes: an earlier cursor is an error there, because changes are missing.

    Args:
        path: of a backup that `store.back_up` made, or its directory; or the directory above its generations: then the
            newest is taken.
        into: the directory of the store; it must hold none. To go back, move the damaged store away before.
        keys: key sources of an encrypted backup, besides those that its file of keys names.
        progress: is called with (done, total) now and then.

    Raises:
        StoreMissingError: there is no backup.
        CorruptStoreError: the backup is damaged.
        StoreAccessError: there is a store, or a part of one, in `into`; or there are several at `path`.
        KeyUnavailableError, WrongKeyError: the backup is encrypted, and no key opens it.

    >>> import tempfile
    >>> from jarvis.moving import restore_backup
    >>> from jarvis.persistent_memory import MemoryModule
    >>> directory = tempfile.mkdtemp()
    >>> with MemoryModule(storage_dir=directory + "/store") as memory:
    ...     _ = memory.set_user_preference("theme", {"mode": "dark"})
    ...     _ = memory.store.back_up(directory + "/backups", keep_daily=7, keep_weekly=4)
    >>> restore_backup(directory + "/backups", directory + "/restored").name
    'memory.db'
    >>> MemoryModule(storage_dir=directory + "/restored").get_user_preferences()
    {'theme': {'mode': 'dark'}}
    """
    directory: Path = checked("path", path)
    newest = generations(directory)
    if newest:
        directory /= newest[0]
    with _at(directory, StoreOptions(create=False, read_only=True, keys=keys)) as backup:
        return backup.store.back_up(into, progress=progress)


def repair(
    path: str | Path, to: str | Path, *, keys: KeySources = (), progress: Progress | None = None
) -> RepairReport:
    """Make a new store of all that can be read of the damaged one in a directory: `Store.repair`, without opening it.

    Args:
        path: the directory of the damaged store, or its file.
        to: the directory of the new one: absent or empty.
        keys: key sources of an encrypted store, besides those that its file of keys names.
        progress: is called with (done, total) now and then.

    Raises:
        StoreError: as `Store.repair`.

    >>> import tempfile
    >>> from jarvis.moving import repair
    >>> from jarvis.persistent_memory import MemoryModule
    >>> directory = tempfile.mkdtemp()
    >>> with MemoryModule(storage_dir=directory + "/store") as memory:
    ...     _ = memory.set_user_preference("theme", {"mode": "dark"})
    >>> repair(directory + "/store", directory + "/new").memories
    1
    """
    return _at(checked("path", path), StoreOptions(create=False, keys=keys)).store.repair(to, progress=progress)


def _awaitable(function: Callable[P, Result]) -> Callable[P, Coroutine[Any, Any, Result]]:
    """Return a function that calls `function` in a thread, with its signature and docstring."""

    @functools.wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> Result:
        return await asyncio.to_thread(function, *args, **kwargs)

    call.__name__ = call.__qualname__ = f"{function.__name__}_async"
    return call


migrate_async = _awaitable(migrate)
restore_backup_async = _awaitable(restore_backup)
repair_async = _awaitable(repair)


@contextlib.contextmanager
def _opened(argument: str, place: Place) -> Iterator[MemoryModule]:
    """Lend the memory at a place, and close it at the end if it was opened for this; only a target is created."""
    if isinstance(place, MemoryModule):
        yield place
        return
    if isinstance(place, AsyncMemoryModule):
        yield MemoryModule(place.backend)
        return
    if not isinstance(place, (str, Path)):
        raise no_place(argument, place)
    text, create = str(place), argument == "target"
    if _is_settings(place):
        container = Container()
        try:
            yield container.get_memory_module(text)
        finally:
            container.shutdown()
        return
    at_url = "://" in text
    with (
        MemoryModule(text, create=create)
        if at_url
        else _at(checked("path", place), StoreOptions(create=create)) as memory
    ):
        yield memory


def _is_settings(place: str | Path) -> bool:
    return str(place).endswith((".yaml", ".yml"))


def _at(path: Path, options: StoreOptions) -> MemoryModule:
    return MemoryModule(backend_at(path, options))
