"""Which store a door opens, in one order of precedence.

1. the store that is named: ``--store``, a directory, a file or a URL;
2. the environment variable ``JARVIS_MEMORY_STORE``, the same;
3. the store of the configuration: that of ``--config``, else of ``~/.jarvis/config.yaml``, if that file or its store
   exists;
4. ``~/.jarvis/memory``.

All other settings are those of ``--config``; without it those of ``~/.jarvis/config.yaml`` count for the store of that
configuration only. ``--backend`` and ``--namespace`` come before the settings.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import msgspec

from jarvis.config import ConfigLoader, StorageConfig
from jarvis.container import STORE_DIRECTORY, memory_at, memory_of
from jarvis.keys import KeySource
from jarvis.model.options import Encryption, checked
from jarvis.persistent_memory import USUAL_DIRECTORY, MemoryModule
from jarvis.services.places import store_file

VARIABLE = "JARVIS_MEMORY_STORE"
_PASSWORD = re.compile(r"(?<=://)([^/@:]*):[^/@]*(?=@)|(?<=[?&])password=[^&]*&?")


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller says of the store.

    Attributes:
        store: a directory, a file or a URL.
        keys: sources that open an encrypted store, before those of the settings.
        encryption: of a new store; None: as the settings say.
    """

    store: str | None = None
    backend: str | None = None
    namespace: str | None = None
    config: str | None = None
    keys: tuple[KeySource, ...] = ()
    encryption: Encryption | None = None


class Found(NamedTuple):
    """The store that a choice means; nothing of it is opened yet.

    Attributes:
        place: where it is, as it may be shown.
        location: where it is, as a path or a URL, which may have a password.
        because: which rule of precedence chose it.
        note: a sentence about another store that may be meant, or None.
    """

    memory: MemoryModule
    place: str
    location: str
    because: str
    note: str | None = None


def find(choice: Choice, *, create: bool, read_only: bool = False) -> Found:
    """Return the store that is meant; `create` lets its first use create it.

    Raises:
        InvalidSettingError: a setting is wrong.
        UnknownBackendError, UnsupportedError, StoreAccessError: as `jarvis.container.memory_at`.
    """
    place, because = choice.store, "--store"
    if place is None:
        place, because = os.environ.get(VARIABLE) or None, VARIABLE
    loader = ConfigLoader(choice.config)
    if place is not None:
        storage = loader.load().storage if choice.config is not None else StorageConfig()
        memory = memory_at(place, _said(storage, choice, create, read_only), choice.backend)
        return Found(memory, without_password(place), place, because)
    storage = loader.load().storage
    usual: Path = checked("path", USUAL_DIRECTORY)
    own = storage.data_dir / STORE_DIRECTORY
    if choice.config is None and not loader.path.exists() and store_file(own, any_name=False) is None:
        said = _said(StorageConfig(), choice, create, read_only)
        return Found(memory_at(str(usual), said, choice.backend), str(usual), str(usual), "the default")
    storage = _said(storage, choice, create, read_only)
    if choice.backend is not None:
        storage = msgspec.structs.replace(storage, backend=choice.backend, postgresql=None)
    where = str(own) if storage.postgresql is None else _url_of(storage.postgresql.location())
    shown, note = without_password(where), None
    if store_file(usual, any_name=False) is not None and usual != own:
        note = f"opened the store of the configuration, {shown}; there is another one: --store {usual}"
    return Found(memory_of(storage, loader), shown, where, f"the configuration {loader.path}", note)


def _said(storage: StorageConfig, choice: Choice, create: bool, read_only: bool) -> StorageConfig:
    """Return the settings with what the choice says."""
    changed = {
        "create": storage.create and create,
        "read_only": storage.read_only or read_only,
        "namespace": storage.namespace if choice.namespace is None else choice.namespace,
        "encryption": choice.encryption or storage.encryption,
        "keys": (*choice.keys, *storage.keys),
    }
    if changed["read_only"]:
        changed["sweep_every"] = None
    return msgspec.structs.replace(storage, **changed)


def without_password(place: str) -> str:
    """Return a place as it may be shown."""
    return _PASSWORD.sub(r"\1", place)


def _url_of(dsn: str) -> str:
    """Return the URL of a store on a server, also for keywords as of libpq."""
    if "://" in dsn:
        return dsn
    from psycopg.conninfo import conninfo_to_dict

    return f"postgresql:///?{urlencode(conninfo_to_dict(dsn))}"
