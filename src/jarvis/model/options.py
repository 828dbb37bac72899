"""The settings of a store, and the check of every setting.

A message says what is wrong with a setting, but never quotes the file: other sections of it may hold secrets.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

import msgspec

from jarvis._calls.arguments import own_code, plain_text
from jarvis._disk.paths import given_path
from jarvis.codec.compression import Mode
from jarvis.errors import InvalidEntryError, InvalidSettingError, kind_of, nearest
from jarvis.keys import EnvironmentKey, KeyFile, KeyFunction, KeyringKey, Passphrase, check_text
from jarvis.keys import KeySource as KeySource  # for those who take options, too
from jarvis.model.cache_limits import CacheLimits
from jarvis.model.policies import CategoryPolicy, HistoryPolicy, RetentionRule
from jarvis.model.postgresql_config import PostgreSQLConfig

Durability = Literal["full", "normal"]
DURABILITIES: tuple[str, ...] = get_args(Durability)
Encryption = Literal["off", "on", "required"]
ENCRYPTIONS: tuple[str, ...] = get_args(Encryption)
Compression = Mode
Language = Literal[
    "arabic", "armenian", "basque", "catalan", "danish", "dutch", "english", "estonian", "finnish", "french", "german",
    "greek", "hindi", "hungarian", "indonesian", "irish", "italian", "lithuanian", "nepali", "norwegian", "portuguese",
    "romanian", "russian", "serbian", "spanish", "swedish", "tamil", "turkish", "yiddish", "plain",
]  # fmt: skip
"""The languages whose endings the text index cuts (https://snowballstem.org); ``plain``: words stay whole."""

TextIndex = Language | Literal["off"]
PLAIN: Language = "plain"
ENGLISH: Language = "english"
"""The language of a store of which nothing else is said."""

NO_INDEX: TextIndex = "off"
TEXT_INDEXES: tuple[str, ...] = (*get_args(Language), NO_INDEX)

OnDuplicate = Literal["keep", "return_existing", "supersede"]
KEEP: Literal["keep"] = "keep"
COMPRESSIONS: tuple[str, ...] = get_args(Compression)
_Readers = Mapping[str, Callable[[object], object]]
Fields = TypeVar("Fields", bound=msgspec.Struct)
_LONGEST_INTERVAL = timedelta(days=30)  # what every platform can wait for
MAX_BUSY_TIMEOUT_SECONDS = 1_000_000.0
"""Over eleven days. SQLite counts milliseconds in 31 bits, Windows in 32; beyond that a wait overflows."""


AnySource = KeySource | Callable[[], bytes]
"""A source of a key, as somebody gives it; a function returns the key."""

KeySources = Sequence[AnySource]
"""What ``keys=`` takes."""

Keys = tuple[KeySource, ...]
"""The sources of ``keys=``, checked."""


# --- the check of a setting ----------------------------------------------------------------------


def checked(key: str, value: object, *, base: Path | None = None) -> Any:
    """Return `value` in the form in which the setting or argument `key` is kept; a path becomes absolute.

    Args:
        key: of the setting.
        base: the directory that a relative path is relative to; None for the working directory.

    Raises:
        InvalidSettingError: the value has the wrong type or is out of range.
    """
    with own_code(InvalidSettingError, key):
        try:
            if key in _PATHS:
                return given_path(key, value, base=base, variables=_PATHS[key])
            return _CHECKS[key](value)
        except _UnfitError as unfit:
            raise InvalidSettingError(f"{key} {unfit}") from None


def chosen_duplicate(on_duplicate: object) -> str:
    """Return what is to happen to a new memory that says the same as another one.

    Raises:
        InvalidEntryError: it is none of `OnDuplicate`.
    """
    name, names = plain_text(on_duplicate), get_args(OnDuplicate)
    if name is None or name not in names:
        raise InvalidEntryError("on_duplicate", f"takes one of {', '.join(names)}")
    return name


class Pairs:
    """A JSON object that keeps repeated keys."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        self.pairs = pairs

    def once(self) -> dict[str, object]:
        """Return the pairs as a dict; raise if a key stands twice."""
        once = dict(self.pairs)
        if len(once) != len(self.pairs):
            raise _UnfitError("has a key twice")
        return once


class _UnfitError(Exception):
    """The rest of a sentence that begins with the setting."""


def check_utf8(path: Path, key: str) -> Path:
    """Return the path of the setting `key` if its name is UTF-8, as SQLite's files need.

    Raises:
        InvalidSettingError: it is not, such as a directory that was named in Latin-1.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        raise InvalidSettingError(
            f"{key} must be a path in UTF-8: the backend 'sqlite' can use no other; rename {os.fspath(path)!a}, "
            "or use the backend 'json'"
        ) from None
    return path


def _text(value: object) -> str:
    if not isinstance(value, str):
        quotes = ", write it in quotes" if value is not None else ""
        raise _UnfitError(f"must be text, not {kind_of(value)}{quotes}")
    if not value:
        raise _UnfitError("must not be empty")
    return value


def _one_of(value: object, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise _UnfitError(f"must be {', '.join(map(repr, choices[:-1]))} or {choices[-1]!r}")
    return str(value)


def _encryption(value: object) -> str:
    if isinstance(value, bool):  # YAML reads on and off without quotes as that
        return "on" if value else "off"
    return _one_of(value, ENCRYPTIONS)


def _keys(value: object) -> Keys:
    if not isinstance(value, list | tuple):
        raise _UnfitError(f"must be a list of sources, not {kind_of(value)}")
    sources = [each.once() if isinstance(each, Pairs) else each for each in value]
    try:
        return sources_of([source_from_setting(each) if isinstance(each, dict) else each for each in sources])
    except InvalidSettingError as error:
        raise _UnfitError(f"does not fit: {error}") from None


@own_code(InvalidSettingError, "keys")
def sources_of(keys: object) -> Keys:
    """Return the sources in an argument ``keys=``; raise `InvalidSettingError` if an item of it is no source."""
    if not isinstance(keys, list | tuple):
        raise InvalidSettingError("keys must be a list of sources, such as [EnvironmentKey('JARVIS_KEY')]")
    return tuple(_source(number, given) for number, given in enumerate(keys, 1))


@own_code(InvalidSettingError, "keys")
def _source(number: int, given: object) -> KeySource:
    if isinstance(given, type):
        raise InvalidSettingError(f"keys: item {number} is the class {given.__name__}; call it to make a source of it")
    if isinstance(getattr(given, "kind", None), str) and callable(getattr(given, "secret", None)):
        source = cast("KeySource", given)
        _check_storable(number, source)
        return source
    if callable(given):
        return KeyFunction(given)
    raise InvalidSettingError(
        f"keys: item {number} is no source of a key but a {type(given).__name__}; jarvis.keys has the sources"
    )


def _check_storable(number: int, source: KeySource) -> None:
    """Raise `InvalidSettingError` if the file of keys could not hold the kind and hint of a source."""
    hint: object = getattr(source, "hint", None)
    try:
        if not isinstance(hint, str | None) or not isinstance(getattr(source, "is_passphrase", None), bool):
            raise TypeError
        f"{source.kind}{hint}".encode()
    except (TypeError, UnicodeEncodeError):
        raise InvalidSettingError(
            f"keys: item {number} needs a kind, and a hint or None, that are texts of UTF-8, and is_passphrase"
        ) from None


_SOURCES: dict[str, Callable[[str], KeySource]] = {
    "environment": EnvironmentKey,
    "file": KeyFile,
    "keyring": KeyringKey,
    "passphrase_environment": Passphrase.from_environment,
}


def source_from_setting(setting: object) -> KeySource:
    """Return the source that a mapping of one key describes, such as ``{"environment": "JARVIS_KEY"}``.

    Raises:
        InvalidSettingError: it describes none.
    """
    kinds = ", ".join(_SOURCES)
    if not isinstance(setting, dict) or len(setting) != 1:
        raise InvalidSettingError(f"a source of a key is a mapping of one of {kinds}")
    [(kind, name)] = setting.items()
    if kind not in _SOURCES:
        raise InvalidSettingError(f"there is no source {kind!r} of keys; known: {kinds}")
    name = check_text(f"the source {kind!r}", name)
    if kind == "file":
        name = str(given_path(f"the source {kind!r}", name, variables=True))
    return _SOURCES[kind](name)


def _compression(value: object) -> str:
    return "off" if value is False else _one_of(value, COMPRESSIONS)  # YAML reads off without quotes as False


def _text_index(value: object) -> str | None:
    if value is None:
        return None
    return NO_INDEX if value is False else _one_of(value, TEXT_INDEXES)  # YAML reads off without quotes as False


def _embedder(value: object) -> str | None:
    if value is None or (isinstance(value, str) and value):
        return value
    if value is False:  # YAML reads off without quotes as False
        return "off"
    raise _UnfitError(f"must be the name of an embedder, or off, not {kind_of(value)}")


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise _UnfitError(f"must be true or false, not {kind_of(value)}")
    return value


def _progress(value: object) -> object:
    if value is not None and not callable(value):
        raise _UnfitError(f"must be a function or None, not {kind_of(value)}")
    return value


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _UnfitError(f"must be a number of seconds, not {kind_of(value)}")
    if not 0 <= value <= MAX_BUSY_TIMEOUT_SECONDS:
        raise _UnfitError(f"must be from 0 to {MAX_BUSY_TIMEOUT_SECONDS:.0f} seconds")
    return float(value)


_DURATION = re.compile(r"(\d+(?:\.\d+)?) *(seconds?|minutes?|hours?|days?|weeks?)", re.IGNORECASE)


def _duration(value: object) -> timedelta | None:
    """Return a duration; text such as ``30 days`` is read, and ``null`` or ``never`` is None."""
    if value is None or value == "never":
        return None
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise _UnfitError("must be a duration such as '12 hours' or '30 days', or 'never'")
    unit = match[2].lower().rstrip("s")
    try:
        return timedelta(**{f"{unit}s": float(match[1])})
    except OverflowError:
        raise _UnfitError("must be shorter; 'never' is taken too") from None


def _history(value: object) -> HistoryPolicy:
    if isinstance(value, HistoryPolicy):
        return value
    return _made(HistoryPolicy, value, {"max_age": _duration, "cleared_max_age": _duration})


def _retention(value: object) -> tuple[RetentionRule, ...]:
    return _several(RetentionRule, ("rule", "rules"), value, {"max_age": _duration})


def _policies(value: object) -> tuple[CategoryPolicy, ...]:
    policies = _several(CategoryPolicy, ("policy", "policies"), value, {"ttl": _duration, "history": _history})
    numbers: dict[str, int] = {}
    for number, policy in enumerate(policies, 1):
        earlier = numbers.setdefault(policy.category, number)
        if earlier != number:
            raise _UnfitError(f"{earlier} and {number} are of one category; make one of them")
    return policies


def _several(kind: type[Fields], words: tuple[str, str], value: object, readers: _Readers) -> tuple[Fields, ...]:
    """Return policies or rules, of which each is made as by `_made`."""
    one, several = words
    if not isinstance(value, list | tuple):
        raise _UnfitError(f"must be a list of {several}, not {kind_of(value)}")
    made = []
    for number, given in enumerate(value, 1):
        try:
            made.append(given if isinstance(given, kind) else _made(kind, given, readers))
        except _UnfitError as unfit:
            raise _UnfitError(f"{one} {number} {unfit}") from None
    return tuple(made)


def _made(kind: type[Fields], value: object, readers: _Readers) -> Fields:
    """Return a policy or rule made of a mapping of its fields, of which some are read."""
    if isinstance(value, Pairs):
        value = value.once()
    if not isinstance(value, dict):
        raise _UnfitError(f"must be a {kind.__name__} or a mapping of its fields, not {kind_of(value)}")
    names, fields = kind.__struct_fields__, dict(value)
    for key, given in value.items():
        if key not in names:
            raise _UnfitError(f"has no key {key!r}{nearest(str(key), names)}; known: {', '.join(names)}")
        if key in readers:
            try:
                fields[key] = readers[key](given)
            except _UnfitError as unfit:
                raise _UnfitError(f"has a {key} that {unfit}") from None
    try:
        return kind(**fields)
    except TypeError:  # at most the first field has no default
        raise _UnfitError(f"needs a {names[0]}") from None
    except InvalidSettingError as error:
        raise _UnfitError(f"does not fit: {error}") from None


def _cache(value: object) -> CacheLimits | None:
    if value is None or value is False:  # YAML reads off without quotes as False
        return None
    return value if isinstance(value, CacheLimits) else _made(CacheLimits, value, {})


def _postgresql(value: object) -> PostgreSQLConfig | None:
    return value if value is None or isinstance(value, PostgreSQLConfig) else _made(PostgreSQLConfig, value, {})


def _sweep_every(value: object) -> timedelta | None:
    interval = _duration(value)
    if interval is not None and not timedelta(0) < interval <= _LONGEST_INTERVAL:
        raise _UnfitError(f"must be above 0 and at most {_LONGEST_INTERVAL.days} days")
    return interval


_PATHS = {  # and whether variables are expanded: people write a file of settings as they write for a shell
    "storage_dir": False,
    "db_path": False,
    "file_path": False,
    "directory": False,
    "path": False,
    "config_path": False,
    "data_dir": True,
    "logs_dir": True,
}
_CHECKS: dict[str, Callable[[object], object]] = {
    "backend": _text,
    "durability": lambda value: _one_of(value, DURABILITIES),
    "namespace": _text,
    "read_only": _switch,
    "create": _switch,
    "busy_timeout_seconds": _seconds,
    "history": _history,
    "compression": _compression,
    "retention": _retention,
    "policies": _policies,
    "sweep_every": _sweep_every,
    "cache": _cache,
    "postgresql": _postgresql,
    "encryption": _encryption,
    "keys": _keys,
    "text_index": _text_index,
    "embedder": _embedder,
    "index": _switch,
    "progress": _progress,
}
