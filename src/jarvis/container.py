"""`Container`: makes one memory module from the settings and shares it with the whole application."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from jarvis._calls.caller import holding
from jarvis.backend_registry import backend_at as registered_at
from jarvis.backend_registry import cached, load_backend, open_backend
from jarvis.config import ConfigLoader
from jarvis.errors import InvalidEntryError, InvalidSettingError, UnknownBackendError, UnsupportedError
from jarvis.model.options import checked
from jarvis.persistent_memory import MemoryModule
from jarvis.services.places import backend_at

if TYPE_CHECKING:
    from os import PathLike

    from jarvis.async_memory import AsyncMemoryModule
    from jarvis.config import JarvisConfig, PostgreSQLConfig, StorageConfig
    from jarvis.persistent_memory import Sweeper

_log = logging.getLogger("jarvis.container")

STORE_DIRECTORY = "persistent_memory"
"""The name of the store's directory within `StorageConfig.data_dir`."""


class Container:
    """The shared parts of an application, each created at its first use. Safe to use from any thread.

    The first settings that a container loads are valid for its whole life.

    >>> from jarvis.container import Container
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     config = Path(directory, "config.yaml")
    ...     _ = config.write_text("storage: {data_dir: data}")
    ...     container = Container()
    ...     memory = container.get_memory_module(config)
    ...     _ = memory.set_user_preference("theme", {"mode": "dark"})
    ...     print(container.get_memory_module().get_user_preferences())
    ...     container.shutdown()
    {'theme': {'mode': 'dark'}}
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._config: JarvisConfig | None = None
        self._loader: ConfigLoader | None = None
        self._memory_module: MemoryModule | None = None
        self._async_memory_module: AsyncMemoryModule | None = None
        self._sweeper: Sweeper | None = None

    def get_config(self, config_path: str | PathLike[str] | None = None) -> JarvisConfig:
        """Return the settings, read once: from `config_path` or, if None, ``~/.jarvis/config.yaml``.

        A path other than that of the first call is ignored, with a warning in the log.

        Raises:
            InvalidSettingError: as `ConfigLoader.load` does; the next call tries again.
        """
        return holding(self._lock, lambda: self._loaded(config_path)[0])

    def _loaded(self, config_path: str | PathLike[str] | None) -> tuple[JarvisConfig, ConfigLoader]:
        """Return the settings and their loader."""
        if self._config is None or self._loader is None:
            loader = ConfigLoader(config_path)
            self._config, self._loader = loader.load(), loader
        elif config_path is not None:
            asked_for = ConfigLoader(config_path).path
            if asked_for != self._loader.path:
                _log.warning("ignored %s: this container is configured from %s", asked_for, self._loader.path)
        return self._config, self._loader

    def get_memory_module(self, config_path: str | PathLike[str] | None = None) -> MemoryModule:
        """Return the one memory module of this container, ready for use, and swept as the settings say.

        The first call creates the store, if it is absent and ``create`` is not off, in ``persistent_memory`` within the
        configured ``data_dir``; `config_path` is as for `get_config`.

        Raises:
            InvalidSettingError: as `ConfigLoader.load` does, or the namespace is no valid name.
            UnknownBackendError: no backend has the configured name; the message names the line of the setting.
            UnsupportedError: the configured backend lacks a feature that the settings ask for.
            StoreError: the store cannot be opened. After any error the next call tries again.
        """
        return holding(self._lock, lambda: self._opened(config_path))

    def _opened(self, config_path: str | PathLike[str] | None) -> MemoryModule:
        config, loader = self._loaded(config_path)
        storage = config.storage
        if self._memory_module is None:
            module = memory_of(storage, loader)
            module.bootstrap()
            self._memory_module = module
        if storage.sweep_every is not None and (self._sweeper is None or not self._sweeper.is_running):
            self._sweeper = self._memory_module.sweep_every(storage.sweep_every)
        return self._memory_module

    def get_async_memory_module(self, config_path: str | PathLike[str] | None = None) -> AsyncMemoryModule:
        """Return the awaitable face of the memory module of `get_memory_module`, ready for use.

        The first call may create or open the store, in the calling thread. Raises as `get_memory_module` does.

        >>> import tempfile
        >>> from pathlib import Path
        >>> from jarvis.container import Container
        >>> import asyncio
        >>> container = Container()
        >>> async def remember():
        ...     memory = container.get_async_memory_module(config)
        ...     await memory.set_user_preference("theme", {"mode": "dark"})
        >>> config = Path(tempfile.mkdtemp()) / "config.yaml"
        >>> _ = config.write_text("storage: {data_dir: data}")
        >>> asyncio.run(remember())
        >>> container.get_memory_module().get_user_preferences()
        {'theme': {'mode': 'dark'}}
        >>> container.shutdown()
        """
        from jarvis.async_memory import AsyncMemoryModule  # imports asyncio, which only async code needs

        memory = self.get_memory_module(config_path)

        def face() -> AsyncMemoryModule:
            if self._async_memory_module is None:
                self._async_memory_module = AsyncMemoryModule.of(memory)
            return self._async_memory_module

        return holding(self._lock, face)

    def shutdown(self) -> None:
        """Close the store and end the sweeps; no-op if nothing was opened.

        Settings and modules stay the same: a module that is still in use, or asked for again, opens the store again
        at its next call.
        """
        module, async_module = holding(self._lock, lambda: (self._memory_module, self._async_memory_module))
        if module is not None:
            module.shutdown()
        if async_module is not None:
            async_module._workers.stop()  # the store is closed by now; `AsyncMemoryModule.shutdown` would await that


def memory_of(storage: StorageConfig, loader: ConfigLoader) -> MemoryModule:
    """Return a module with these settings; an error about a setting names its line. Nothing is opened yet."""
    try:
        if storage.postgresql is None:
            memory = MemoryModule(
                storage_dir=storage.data_dir / STORE_DIRECTORY,
                backend_type=storage.backend,
                namespace=storage.namespace,
                embedder=storage.embedder,
                retention=storage.retention,
                **msgspec.structs.asdict(storage.options),
            )
        else:
            memory = _on_server(storage, storage.postgresql, loader)
        if storage.cache is not None:
            memory.backend = cached(memory.backend, storage.cache)
        return memory
    except (UnknownBackendError, UnsupportedError) as error:
        raise type(error)(f"{loader.place('backend')}: storage.backend: {error}") from error
    except InvalidEntryError as error:
        raise InvalidSettingError(f"{loader.place('namespace')}: storage.{error}") from error


def memory_at(place: str, storage: StorageConfig, backend: str | None = None) -> MemoryModule:
    """Return a module on the store at a place, with all settings but those that say where the store is.

    Nothing is opened yet.

    Args:
        place: the URL of a store on a server, the directory of one, or its file.
        storage: the settings.
        backend: its name; None: as the place tells.

    Raises:
        UnknownBackendError, UnsupportedError: as `MemoryModule`.
        StoreAccessError: the directory has several files that may be the store.
    """
    options, namespace = storage.options, storage.namespace
    at_url = registered_at(place)
    if at_url is not None:
        made = open_backend(at_url, place, options, namespace=namespace)
    elif backend is not None:
        path: Path = checked("path", place)
        location = path if os.path.isfile(path) else load_backend(backend).location_in(path)
        made = open_backend(backend, location, options, namespace=namespace)
    else:
        made = backend_at(checked("path", place), options)
        made = made.for_namespace(namespace)
    memory = MemoryModule(made, embedder=storage.embedder, retention=storage.retention)
    memory._govern(options)
    return memory


def _on_server(storage: StorageConfig, server: PostgreSQLConfig, loader: ConfigLoader) -> MemoryModule:
    namespace = storage.namespace
    try:
        backend = open_backend(
            storage.backend, server.location(), storage.options, namespace=namespace, **server.more()
        )
    except InvalidSettingError as error:
        raise InvalidSettingError(f"{loader.place('postgresql')}: storage.postgresql: {error}") from error
    memory = MemoryModule(backend, embedder=storage.embedder, retention=storage.retention)
    memory._govern(storage.options)
    return memory
