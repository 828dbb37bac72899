"""Finds backends by name, and imports their classes only when they are asked for.

A package adds its own with an entry point of the group `ENTRY_POINT_GROUP`; the names of jarvis's own backends always
mean the classes of jarvis.
"""

from __future__ import annotations

import contextlib
import re
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from jarvis._calls.arguments import plain_text
from jarvis.errors import UnknownBackendError, UnsupportedError, nearest
from jarvis.model.cache_limits import CacheLimits
from jarvis.model.entry import DEFAULT_NAMESPACE
from jarvis.model.store_options import USUAL, StoreOptions
from jarvis.storage_backend import Location, StorageBackend

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.metadata import EntryPoint

Capability = TypeVar("Capability")

ENTRY_POINT_GROUP = "jarvis.storage_backends"

_BUILT_IN = {
    "json": ("jarvis.json_backend", "JSONBackend"),
    "postgresql": ("jarvis.postgresql_backend", "PostgreSQLBackend"),
    "sqlite": ("jarvis.sqlite_backend", "SQLiteBackend"),
}

_EXTRAS = {"postgresql": "psycopg"}
"""Backends that need a package which is not installed with jarvis, but with the extra of their name."""

_SCHEMES = {"postgres": "postgresql", "postgresql": "postgresql"}
"""Backends whose stores lie where a URL says, by its scheme."""

_SEALED = ("postgresql",)
"""Backends that do not encrypt themselves: `jarvis.sealing` seals what they store."""

_OF_SEALING = ("encryption", "keys")

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def known_backends() -> list[str]:
    """Return every name that `load_backend` takes, sorted.

    >>> {"json", "sqlite"} <= set(known_backends())
    True
    """
    added = {point.name for point in _entry_points() if point.name.lower() not in _BUILT_IN}
    return sorted({*_BUILT_IN, *added})


def load_backend(name: str) -> type[StorageBackend]:
    """Import and return the backend registered as `name`, in upper or lower case.

    Raises:
        UnknownBackendError: no usable class is registered under the name.
        UnsupportedError: a package that the backend needs is not installed.

    >>> load_backend("zebra")
    Traceback (most recent call last):
    ...
    jarvis.errors.UnknownBackendError: no backend named 'zebra'; known: json, postgresql, sqlite
    """
    text = plain_text(name)
    if text is None:
        raise UnknownBackendError(f"a backend is named by a text, not by a {type(name).__name__}")
    name, folded = text, text.lower()
    if folded in _BUILT_IN:
        module, attribute = _BUILT_IN[folded]
        try:
            built_in: type[StorageBackend] = getattr(import_module(module), attribute)
        except ImportError as error:
            if folded not in _EXTRAS or str(error.name).startswith("jarvis"):
                raise
            package = error.name or _EXTRAS[folded]  # it is there, but not what it stands on
            raise UnsupportedError(
                f"the backend {folded!r} needs the package {package}: pip install 'jarvis-memory[{folded}]'"
            ) from None
        return built_in
    points = [point for point in _entry_points() if point.name.lower() == folded]
    targets = sorted({point.value for point in points})
    if not points:
        known = known_backends()
        raise UnknownBackendError(f"no backend named {name!r}; known: {', '.join(known)}{nearest(folded, known)}")
    if len(targets) > 1:
        raise UnknownBackendError(
            f"several packages register a backend {name!r} ({', '.join(targets)}); uninstall all but one"
        )
    return _loaded(points[0])


def backend_at(location: str) -> str | None:
    """Return the name of the backend whose store lies where a URL says, None if the text is no URL.

    Raises:
        UnknownBackendError: no backend has stores at such URLs. The message quotes the scheme alone.

    >>> backend_at("postgresql://alice@db.example.com/memories")
    'postgresql'
    """
    match = _URL.match(location)
    if match is None:
        return None
    scheme = match[1]
    if scheme not in _SCHEMES:
        raise UnknownBackendError(
            f"no backend has stores at {scheme}:// URLs; known: {', '.join(f'{known}://' for known in _SCHEMES)}"
            f"{nearest(scheme.lower(), _SCHEMES)}; a directory goes into storage_dir="
        )
    return _SCHEMES[scheme]


def open_backend(
    name: str, location: Location, options: StoreOptions = USUAL, *, namespace: str = DEFAULT_NAMESPACE, **more: Any
) -> StorageBackend:
    """Return a backend of the store at `location`; nothing is opened or created before its first verb.

    Args:
        name: as for `load_backend`.
        location: what the constructor takes first; see `StorageBackend.location_in`.
        options: the options of the store. The constructor gets those that differ from the default, by keyword.
        namespace: the part of the store to see; passed on likewise.
        more: further keyword arguments of the constructor.

    Raises:
        UnknownBackendError: as `load_backend` does.
        UnsupportedError: the backend has no such option.
    """
    cls = load_backend(name)
    make: Any = cls  # the contract leaves constructors free
    given = {**options.given(), **({} if namespace == DEFAULT_NAMESPACE else {"namespace": namespace}), **more}
    seals = (plain_text(name) or "").lower() in _SEALED and not given.keys().isdisjoint(_OF_SEALING)
    if seals:
        given = {option: value for option, value in given.items() if option not in _OF_SEALING} | {"compression": "off"}
    try:
        backend: StorageBackend = make(location, **given)
    except TypeError:
        foreign = sorted(option for option in given if not _takes(cls, option))
        if not foreign:
            raise  # an error of the constructor itself
        able = [other for other, backend in _installed() if all(_has(other, backend, option) for option in foreign)]
        listed_able = " and ".join([", ".join(able[:-1]), able[-1]] if len(able) > 1 else able)
        way_out = f"; {listed_able} {'have' if len(able) > 1 else 'has'}" if able else ""
        listed = ", ".join(map(repr, foreign))
        raise UnsupportedError(f"the backend {name!r} has no option {listed}{way_out}") from None
    return _sealed(backend, options) if seals else backend


def open_in_memory(**options: Any) -> StorageBackend:
    """Return a backend whose store ends with it; `options` are those of `jarvis.sqlite_backend.InMemoryBackend`."""
    make: Any = import_module("jarvis.sqlite_backend").InMemoryBackend
    backend: StorageBackend = make(**options)
    return backend


def cached(backend: StorageBackend, limits: CacheLimits) -> StorageBackend:
    """Return `backend` in a `jarvis.caching.CachedBackend` with these limits, which see for what it raises."""
    make: Any = import_module("jarvis.caching").CachedBackend
    around: StorageBackend = make(backend, **{name: getattr(limits, name) for name in limits.__struct_fields__})
    return around


def _sealed(backend: StorageBackend, options: StoreOptions) -> StorageBackend:
    make: Any = import_module("jarvis.sealing").SealedBackend
    around: StorageBackend = make(
        backend, encryption=options.encryption, keys=options.keys, compression=options.compression
    )
    return around


def backends_with(protocol: type) -> list[str]:
    """Return the names of jarvis's own backends that have a capability and are installed, sorted.

    >>> from jarvis.capabilities import Transactional
    >>> "sqlite" in backends_with(Transactional)
    True
    """
    return [name for name, backend in _installed() if protocol in backend.capabilities]


def ask(backend: StorageBackend, protocol: type[Capability]) -> Capability:
    """Return `backend` as one that fulfils a capability's Protocol.

    Raises:
        UnsupportedError: the backend lacks it; the message names the backends that have it.
    """
    try:
        return backend.capability(protocol)
    except UnsupportedError as error:
        known = ", ".join(backends_with(protocol))
        raise UnsupportedError(f"{error}; backends that have it: {known}") from None


def _installed() -> Iterator[tuple[str, type[StorageBackend]]]:
    """Yield the name and class of each of jarvis's own backends whose packages are installed, sorted."""
    for name in sorted(_BUILT_IN):
        with contextlib.suppress(UnsupportedError):
            yield name, load_backend(name)


def _entry_points() -> list[EntryPoint]:
    from importlib.metadata import entry_points  # takes 20 ms, and looks at every installed package

    return list(entry_points(group=ENTRY_POINT_GROUP))


def _loaded(point: EntryPoint) -> type[StorageBackend]:
    described = f"the backend {point.name!r}, registered as {point.value},"
    try:
        loaded = point.load()
    except Exception as error:  # the import of somebody else's module may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise UnknownBackendError(f"{described} cannot be imported: {reason}") from error
    if not (isinstance(loaded, type) and issubclass(loaded, StorageBackend)):
        raise UnknownBackendError(f"{described} is no subclass of jarvis.storage_backend.StorageBackend")
    return loaded


def _has(name: str, cls: type[StorageBackend], option: str) -> bool:
    return _takes(cls, option) or (name in _SEALED and option in _OF_SEALING)


def _takes(cls: type[StorageBackend], option: str) -> bool:
    import inspect  # needed only when something went wrong

    parameters = inspect.signature(cls).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return True
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return option in list(parameters)[1:] and parameters[option].kind in kinds
