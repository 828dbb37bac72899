"""The composition root: `Container` makes one memory module out of the settings and hands it to everybody."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from jarvis._calls.caller import holding
from jarvis.backend_registry import open_backend
from jarvis.config import ConfigLoader
from jarvis.errors import InvalidEntryError, InvalidSettingError, UnknownBackendError, UnsupportedError
from jarvis.persistent_memory import MemoryModule

if TYPE_CHECKING:
    from os import PathLike

    from jarvis.async_memory import AsyncMemoryModule
    from jarvis.config import JarvisConfig, StorageConfig
    from jarvis.persistent_memory import Sweeper

_log = logging.getLogger("jarvis.container")

STORE_DIRECTORY = "persistent_memory"
"""Name of the store's directory within `StorageConfig.data_dir`."""


class Container:
    """The shared parts of an application, each made when first asked for. Safe to use from any thread.

    The first configuration that a container loads counts for its whole life.

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

        Another path than that of the first call is ignored, with a warning in the log.

        Raises:
            InvalidSettingError: as `ConfigLoader.load` does; the next call tries again.
        """
        return holding(self._lock, lambda: self._loaded(config_path)[0])

    def _loaded(self, config_path: str | PathLike[str] | None) -> tuple[JarvisConfig, ConfigLoader]:
        """Return the settings, and what has read them."""
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
            InvalidSettingError: as `ConfigLoader.load` does, or the namespace is no name that a store can hold.
            UnknownBackendError: no backend has the configured name; the message says where it stands.
            UnsupportedError: the configured backend lacks something that the settings ask for.
            StoreError: the store cannot be opened. After any error the next call tries again.
        """
        return holding(self._lock, lambda: self._opened(config_path))

    def _opened(self, config_path: str | PathLike[str] | None) -> MemoryModule:
        config, loader = self._loaded(config_path)
        storage = config.storage
        if self._memory_module is None:
            module = _made(storage, loader)
            module.bootstrap()
            self._memory_module = module
        if storage.sweep_every is not None and (self._sweeper is None or not self._sweeper.is_running):
            self._sweeper = self._memory_module.sweep_every(storage.sweep_every)
        return self._memory_module

    def get_async_memory_module(self, config_path: str | PathLike[str] | None = None) -> AsyncMemoryModule:
        """Return the one awaitable face of what `get_memory_module` returns, ready for use: the same in all it does.

        The first call may make or open the store, in the calling thread. Raises as `get_memory_module` does.

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
        from jarvis.async_memory import AsyncMemoryModule  # asyncio, for those only who await

        memory = self.get_memory_module(config_path)

        def face() -> AsyncMemoryModule:
            if self._async_memory_module is None:
                self._async_memory_module = AsyncMemoryModule.of(memory)
            return self._async_memory_module

        return holding(self._lock, face)

    def shutdown(self) -> None:
        """Close what was opened, and sweep no more; no-op if nothing was opened.

        Settings and modules stay what they are: whoever still holds a module, or asks for it again,
        uses the same one, and its next call opens the store again.
        """
        module, async_module = holding(self._lock, lambda: (self._memory_module, self._async_memory_module))
        if module is not None:
            module.shutdown()
        if async_module is not None:
            async_module._workers.stop()  # what awaits the same is `AsyncMemoryModule.shutdown`


def _made(storage: StorageConfig, loader: ConfigLoader) -> MemoryModule:
    """Return a module as the settings have it; an error about one of them says where it stands."""
    try:
        directory = storage.data_dir / STORE_DIRECTORY
        backend = open_backend(storage.backend, directory, storage.options, namespace=storage.namespace)
        return MemoryModule(backend, retention=storage.retention)
    except (UnknownBackendError, UnsupportedError) as error:
        raise type(error)(f"{loader.place('backend')}: storage.backend: {error}") from error
    except InvalidEntryError as error:
        raise InvalidSettingError(f"{loader.place('namespace')}: storage.{error}") from error
