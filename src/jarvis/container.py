"""The composition root: `Container` makes one memory module out of the settings and hands it to everybody."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from jarvis.config import ConfigLoader
from jarvis.persistent_memory import MemoryModule

if TYPE_CHECKING:
    from os import PathLike
    from pathlib import Path

    from jarvis.config import JarvisConfig
    from jarvis.sweeping import Sweeper

_log = logging.getLogger("jarvis.container")

STORE_DIRECTORY = "persistent_memory"
"""Name of the store's directory within `StorageConfig.data_dir`."""


class Container:
    """The shared parts of an application, each made when first asked for. Safe to use from any thread.

    The first configuration that a container loads counts for its whole life.

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
        self._config_file: Path | None = None
        self._memory_module: MemoryModule | None = None
        self._sweeper: Sweeper | None = None

    def get_config(self, config_path: str | PathLike[str] | None = None) -> JarvisConfig:
        """Return the settings, read once: from `config_path` or, if None, ``~/.jarvis/config.yaml``.

        Another path than that of the first call is ignored, with a warning in the log.

        Raises:
            InvalidSettingError: as `ConfigLoader.load` does; the next call tries again.
        """
        with self._lock:
            if self._config is None:
                loader = ConfigLoader(config_path)
                self._config, self._config_file = loader.load(), loader.path
            elif config_path is not None:
                asked_for = ConfigLoader(config_path).path
                if asked_for != self._config_file:
                    _log.warning("ignored %s: this container is configured from %s", asked_for, self._config_file)
            return self._config

    def get_memory_module(self, config_path: str | PathLike[str] | None = None) -> MemoryModule:
        """Return the one memory module of this container, ready for use, and swept as the settings say.

        The first call creates the store, if it is absent and ``create`` is not off, in ``persistent_memory`` within the
        configured ``data_dir``; `config_path` is as for `get_config`.

        Raises:
            InvalidSettingError: as `ConfigLoader.load` does.
            UnknownBackendError: no backend has the configured name.
            UnsupportedError: the configured backend lacks something that the settings ask for.
            StoreError: the store cannot be opened. After any error the next call tries again.
        """
        with self._lock:
            storage = self.get_config(config_path).storage
            if self._memory_module is None:
                module = MemoryModule(
                    storage_dir=storage.data_dir / STORE_DIRECTORY,
                    backend_type=storage.backend,
                    namespace=storage.namespace,
                    read_only=storage.read_only,
                    durability=storage.durability,
                    busy_timeout_seconds=storage.busy_timeout_seconds,
                    history=storage.history,
                    encryption=storage.encryption,
                    keys=storage.keys,
                    compression=storage.compression,
                    create=storage.create,
                    retention=storage.retention,
                )
                module.bootstrap()
                self._memory_module = module
            if storage.sweep_every is not None and (self._sweeper is None or not self._sweeper.is_running):
                self._sweeper = self._memory_module.sweep_every(storage.sweep_every)
            return self._memory_module

    def shutdown(self) -> None:
        """Close what was opened, and sweep no more; no-op if nothing was opened.

        Settings and module stay what they are: whoever still holds the module, or asks for it again,
        uses the same one, and its next call opens the store again.
        """
        with self._lock:
            module = self._memory_module
        if module is not None:
            module.shutdown()
