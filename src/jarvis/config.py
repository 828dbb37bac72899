"""Settings: what they are (`StorageConfig`) and how a file becomes them (`ConfigLoader`).

Messages name the file, the line where the parser knows it, and the key, but never what the file
says: other sections of it may hold secrets.
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, get_args

import msgspec

from jarvis.errors import InvalidSettingError, nearest
from jarvis.keys import KeySource, source_from_setting, sources_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from yaml import MappingNode, Node, SafeLoader

Durability = Literal["full", "normal"]
DURABILITIES: tuple[str, ...] = get_args(Durability)
Encryption = Literal["off", "on", "required"]
ENCRYPTIONS: tuple[str, ...] = get_args(Encryption)
Compression = Literal["auto", "off", "max"]
COMPRESSIONS: tuple[str, ...] = get_args(Compression)
_MANY_REVISIONS = 1_000_000
_LONGEST = timedelta(days=36_525)
_LONGEST_INTERVAL = timedelta(days=30)  # what every platform can wait for
MAX_BUSY_TIMEOUT_SECONDS = 1_000_000.0
"""Over eleven days. SQLite counts milliseconds in 31 bits, Windows in 32; beyond that a wait overflows."""


class HistoryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the past a store keeps. Whoever writes prunes by the policy it was opened with.

    Attributes:
        max_revisions: past states kept of one memory; 0 keeps no past at all.
        max_age: how long a past state is kept after the change that ended it; None for ever.
        cleared_max_age: how long what `clear_all` removed is kept; None as long as anything else.

    Raises:
        InvalidSettingError: a value has the wrong type or is out of range.

    >>> HistoryPolicy(max_revisions=10, max_age=timedelta(days=7)).max_revisions
    10
    """

    max_revisions: int = 100
    max_age: timedelta | None = timedelta(days=365)
    cleared_max_age: timedelta | None = timedelta(days=30)

    def __post_init__(self) -> None:
        """Check every field."""
        if type(self.max_revisions) is not int or not 0 <= self.max_revisions <= _MANY_REVISIONS:
            raise InvalidSettingError(f"history.max_revisions must be a whole number from 0 to {_MANY_REVISIONS:,}")
        for key in ("max_age", "cleared_max_age"):
            held = getattr(self, key)
            if held is not None and (not isinstance(held, timedelta) or not timedelta(0) < held <= _LONGEST):
                raise InvalidSettingError(f"history.{key} must be a timedelta above 0, up to 100 years, or None")


ARCHIVED = "archived"
"""The tag of what a rule has archived, or somebody by hand."""

RetentionAction = Literal["delete", "archive"]
RETENTION_ACTIONS: tuple[str, ...] = get_args(RetentionAction)
_MANY_KEPT_TAGS = 100


class RetentionRule(msgspec.Struct, frozen=True, kw_only=True):
    """Which memories of a category are not kept for ever, and what becomes of them.

    At least one of `max_age` and `max_entries` is given; what goes beyond any of the two is cleaned up.

    Attributes:
        category: of the memories that the rule governs.
        entity_type: it governs only those about entities of this type.
        tag: it governs only those with this tag.
        max_age: how long after its timestamp a memory stays as it is.
        max_entries: so many of the memories that it governs, the newest, stay as they are.
        action: ``"delete"``, or ``"archive"``: the memory gets the tag ``archived``.
        keep_tags: what has one of these tags is pinned: it is neither governed nor counted.

    Raises:
        InvalidSettingError: a value has the wrong type or is out of range, or the rule can govern nothing.

    >>> RetentionRule(category="tasks", max_age=timedelta(days=30), keep_tags=("important",)).action
    'delete'
    >>> RetentionRule(category="tasks")
    Traceback (most recent call last):
    ...
    jarvis.errors.InvalidSettingError: retention: a rule needs a max_age or a max_entries
    """

    category: str
    entity_type: str | None = None
    tag: str | None = None
    max_age: timedelta | None = None
    max_entries: int | None = None
    action: RetentionAction = "delete"
    keep_tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check every field."""
        for key in ("category", "entity_type", "tag"):
            held = getattr(self, key)
            if not _is_name(held) and (held is not None or key == "category"):
                raise InvalidSettingError(f"retention: {key} must be a text")
        if self.max_age is None and self.max_entries is None:
            raise InvalidSettingError("retention: a rule needs a max_age or a max_entries")
        if self.max_age is not None and (
            not isinstance(self.max_age, timedelta) or not timedelta(0) <= self.max_age <= _LONGEST
        ):
            raise InvalidSettingError("retention: max_age must be a timedelta from 0 to 100 years")
        if self.max_entries is not None and (type(self.max_entries) is not int or not 1 <= self.max_entries < 2**63):
            raise InvalidSettingError("retention: max_entries must be a whole number from 1 up")
        if self.action not in RETENTION_ACTIONS:
            raise InvalidSettingError(f"retention: action must be {' or '.join(map(repr, RETENTION_ACTIONS))}")
        if not isinstance(self.keep_tags, tuple | list | set | frozenset) or not all(map(_is_name, self.keep_tags)):
            raise InvalidSettingError('retention: keep_tags must be tags, such as ("important",)')
        if len(self.keep_tags) > _MANY_KEPT_TAGS:
            raise InvalidSettingError(f"retention: keep_tags must be at most {_MANY_KEPT_TAGS} tags")
        msgspec.structs.force_setattr(self, "keep_tags", tuple(self.keep_tags))
        if self.tag is not None and (self.tag in self.keep_tags or (self.tag, self.action) == (ARCHIVED, "archive")):
            raise InvalidSettingError("retention: the rule governs nothing, for it leaves alone what has its tag")


def _is_name(held: object) -> bool:
    """Tell whether this is a text that a store can hold."""
    return type(held) is str and not any("\ud800" <= sign <= "\udfff" for sign in held)


class StorageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how memories are kept. What is left out has its default.

    Attributes:
        data_dir: directory of what jarvis keeps; a str is taken too and ``~`` expands.
        logs_dir: directory for log files; likewise.
        backend: name of a registered backend; `jarvis.backend_registry` judges it.
        durability: ``full``, an acknowledged write survives power loss, or ``normal``, it survives a
            crash of the process.
        namespace: the memory within the store.
        read_only: write nothing, not even the store itself.
        busy_timeout_seconds: how long a write waits for another writer; 0 does not wait.
        history: how much of the past is kept; a mapping of the fields of `HistoryPolicy` is taken too.
        compression: how values from 1 KiB up are written: ``auto``, compressed fast; ``max``, as small as it gets;
            ``off``, as they are.
        retention: what is cleaned up; for a rule a mapping of the fields of `RetentionRule` is taken too.
        encryption: ``off``; ``on``, a store that is created is encrypted; or ``required``, a plain one is refused too.
        keys: where the keys of an encrypted store come from, see `jarvis.keys`; for a source a mapping such as
            ``{"environment": "JARVIS_KEY"}`` is taken too.
        sweep_every: how often `jarvis.container.Container` lets that be done; None for not at all.

    Raises:
        InvalidSettingError: a value has the wrong type or is out of range.

    >>> StorageConfig(data_dir="/srv/jarvis", durability="normal").durability
    'normal'
    >>> StorageConfig(durability="never")
    Traceback (most recent call last):
    ...
    jarvis.errors.InvalidSettingError: storage.durability must be 'full' or 'normal'
    """

    data_dir: Path = msgspec.field(default_factory=lambda: _home() / ".jarvis" / "data")
    logs_dir: Path = msgspec.field(default_factory=lambda: _home() / ".jarvis" / "logs")
    backend: str = "sqlite"
    durability: Durability = "full"
    namespace: str = "default"
    read_only: bool = False
    busy_timeout_seconds: float = 30.0
    history: HistoryPolicy = HistoryPolicy()
    encryption: Encryption = "off"
    keys: tuple[KeySource, ...] = ()
    compression: Compression = "auto"
    retention: tuple[RetentionRule, ...] = ()
    sweep_every: timedelta | None = None

    if TYPE_CHECKING:  # what is taken is wider than what is held

        def __init__(
            self,
            *,
            data_dir: str | os.PathLike[str] = ...,
            logs_dir: str | os.PathLike[str] = ...,
            backend: str = ...,
            durability: Durability = ...,
            namespace: str = ...,
            read_only: bool = ...,
            busy_timeout_seconds: float = ...,
            history: HistoryPolicy | Mapping[str, Any] = ...,
            encryption: Encryption | bool = ...,
            keys: Sequence[KeySource | Callable[[], bytes] | Mapping[str, str]] = ...,
            compression: Compression = ...,
            retention: Sequence[RetentionRule | Mapping[str, Any]] = ...,
            sweep_every: timedelta | str | None = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        """Check and normalise every field."""
        for key in self.__struct_fields__:
            msgspec.structs.force_setattr(self, key, _accepted(key, getattr(self, key)))
        if self.read_only and self.sweep_every is not None:
            raise InvalidSettingError("storage.sweep_every cannot be together with read_only: a sweep deletes")


class JarvisConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting of jarvis that this library knows.

    Attributes:
        storage: where and how memories are kept.

    >>> JarvisConfig(storage=StorageConfig(backend="json")).storage.backend
    'json'
    """

    storage: StorageConfig = msgspec.field(default_factory=StorageConfig)

    def __post_init__(self) -> None:
        """Check the section's type."""
        if not isinstance(self.storage, StorageConfig):
            raise InvalidSettingError(f"storage must be a StorageConfig, not {_kind(self.storage)}")


class ConfigLoader:
    """Read settings from a YAML or JSON file; nothing is created or changed.

    Args:
        config_path: a ``.yaml``, ``.yml`` or ``.json`` file; ``~`` expands. None means
            ``~/.jarvis/config.yaml``, which may be absent.

    Raises:
        InvalidSettingError: the path has another suffix.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     file = Path(directory, "config.yaml")
    ...     _ = file.write_text("storage: {backend: json}")
    ...     ConfigLoader(file).load().storage.backend
    'json'
    """

    def __init__(self, config_path: str | os.PathLike[str] | None = None) -> None:
        self.may_be_absent = config_path is None
        path = _home() / ".jarvis" / "config.yaml" if config_path is None else Path(config_path)
        try:
            self.path = path.expanduser().absolute()
        except RuntimeError:
            raise InvalidSettingError(f"{path}: the home directory it starts with is unknown") from None
        if self.path.suffix.lower() not in _READERS:
            raise InvalidSettingError(f"{self.path}: settings are read from {', '.join(_READERS)} files only")

    def load(self) -> JarvisConfig:
        """Return the settings of the file as it is now.

        A directory that the file gives as a relative path is relative to the file. Sections other
        than ``storage`` are not looked at.

        Raises:
            InvalidSettingError: the file was asked for and is absent, cannot be read, is malformed,
                or its ``storage`` section holds an unknown key or an unfit value.
        """
        text = self._text()
        settings = _READERS[self.path.suffix.lower()](self, text) if text is not None else []
        values: dict[str, Any] = {}
        for key, value, line in settings:
            if not isinstance(key, str) or key not in StorageConfig.__struct_fields__:
                known = StorageConfig.__struct_fields__
                hint = nearest(str(key), known) or f"; known: {', '.join(known)}"
                self._refuse(f"storage has no key {key!r}{hint}", line)
            try:
                values[key] = _accepted(key, value)
            except InvalidSettingError as error:
                self._refuse(str(error), line)
            if isinstance(values[key], Path):
                values[key] = self.path.parent / values[key]
        try:
            return JarvisConfig(storage=StorageConfig(**values))
        except InvalidSettingError as error:  # of settings that do not go together
            self._refuse(str(error))

    def _text(self) -> str | None:
        try:
            return self.path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            if self.may_be_absent and not self.path.is_symlink():  # a dangling link was meant to be there
                return None
            self._refuse("there is no such file")
        except OSError as error:
            self._refuse(f"cannot be read: {error.strerror}")
        except UnicodeDecodeError as error:
            self._refuse("is not UTF-8", error.object.count(b"\n", 0, error.start) + 1)

    def _refuse(self, problem: str, line: int | None = None) -> NoReturn:
        # Without its cause: the parsers' own errors quote the file.
        place = f"{self.path}, line {line}" if line is not None else str(self.path)
        raise InvalidSettingError(f"{place}: {problem}") from None

    # --- from text to the settings in `storage` ---

    def _read_yaml(self, text: str) -> list[_Setting]:
        import yaml  # 15 ms, for those only who have a file

        try:
            loader = yaml.SafeLoader(text)
            root = loader.get_single_node()
            section = self._yaml_section(root) if root is not None else None
            return self._yaml_settings(loader, section) if section is not None else []
        except yaml.reader.ReaderError as error:
            self._refuse("holds a character that YAML does not allow", text.count("\n", 0, error.position) + 1)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._refuse(f"is not valid YAML{_quotable(error)}", mark.line + 1 if mark is not None else None)
        except RecursionError:
            self._refuse("is nested too deeply")

    def _yaml_section(self, root: Node) -> MappingNode | None:
        """Return ours among the sections; nothing becomes an object, so others may use tags of their own."""
        import yaml

        if root.tag == "tag:yaml.org,2002:null":
            return None
        if not isinstance(root, yaml.MappingNode):
            self._refuse("must be a mapping of sections", root.start_mark.line + 1)
        sections = [value for name, value in root.value if name.value == "storage"]
        if len(sections) > 1:
            self._refuse("has the section 'storage' twice", sections[1].start_mark.line + 1)
        if not sections or sections[0].tag == "tag:yaml.org,2002:null":
            return None
        section = sections[0]
        if not isinstance(section, yaml.MappingNode):
            self._refuse("storage must be a mapping of keys", section.start_mark.line + 1)
        return section

    def _yaml_settings(self, loader: SafeLoader, section: MappingNode) -> list[_Setting]:
        self._refuse_repeated([(name.value, name.start_mark.line + 1) for name, _ in section.value])
        loader.flatten_mapping(section)  # puts what `<<` names before the section's own keys
        settings = []
        for name, value in section.value:
            line = name.start_mark.line + 1
            try:
                setting = _Setting(loader.construct_document(name), loader.construct_document(value), line)
            except (ValueError, LookupError, AttributeError, TypeError):  # PyYAML, of `2024-13-01` or `!!bool x`
                self._refuse("storage holds a malformed date, number or other scalar", line)
            settings.append(setting)
        return settings

    def _read_json(self, text: str) -> list[_Setting]:
        import json

        if not text.strip():
            return []
        try:
            root = json.loads(text, object_pairs_hook=_Pairs)
        except json.JSONDecodeError as error:
            self._refuse(f"is not valid JSON: {error.msg}", error.lineno)
        except ValueError:  # an integer of thousands of digits
            self._refuse("holds a number that is too long")
        except RecursionError:
            self._refuse("is nested too deeply")
        if root is None:
            return []
        if not isinstance(root, _Pairs):
            self._refuse("must be an object of sections")
        sections = [value for name, value in root.pairs if name == "storage"]
        if len(sections) > 1:
            self._refuse("has the section 'storage' twice")
        if not sections or sections[0] is None:
            return []
        if not isinstance(sections[0], _Pairs):
            self._refuse("storage must be an object of keys")
        self._refuse_repeated([(name, None) for name, _ in sections[0].pairs])
        return [_Setting(name, value, None) for name, value in sections[0].pairs]

    def _refuse_repeated(self, keys: list[tuple[object, int | None]]) -> None:
        seen: list[object] = []
        for key, line in keys:
            if key in seen:
                self._refuse(f"storage has the key {key!r} twice", line)
            seen.append(key)


_READERS: dict[str, Callable[[ConfigLoader, str], list[_Setting]]] = {
    ".yaml": ConfigLoader._read_yaml,
    ".yml": ConfigLoader._read_yaml,
    ".json": ConfigLoader._read_json,
}


class _Setting(NamedTuple):
    key: object
    value: object
    line: int | None


class _Pairs:
    """A JSON object with the keys it repeats."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        self.pairs = pairs

    def once(self) -> dict[str, object]:
        """Return the pairs as a dict; raise if a key stands twice."""
        found = dict(self.pairs)
        if len(found) != len(self.pairs):
            raise _UnfitError("has a key twice")
        return found


def _quotable(error: Exception) -> str:
    """Return what the parser says, where that cannot be a word of the file."""
    from yaml.parser import ParserError
    from yaml.scanner import ScannerError

    problem = getattr(error, "problem", None)
    plain = isinstance(error, ScannerError | ParserError) and problem and "handle" not in problem
    return f": {problem}" if plain else ""


# --- what a setting may be -----------------------------------------------------------------------


def checked(key: str, value: object) -> Any:
    """Return `value` as the setting or argument `key` is kept.

    Raises:
        InvalidSettingError: the value has the wrong type or is out of range.
    """
    try:
        return _CHECKS[key](value)
    except _UnfitError as unfit:
        raise InvalidSettingError(f"{key} {unfit}") from None


def _accepted(key: str, value: object) -> Any:
    try:
        return checked(key, value)
    except InvalidSettingError as error:
        raise InvalidSettingError(f"storage.{error}") from None


class _UnfitError(Exception):
    """The rest of a sentence that begins with the setting."""


def _directory(value: object) -> Path:
    if not isinstance(value, str | os.PathLike) or not isinstance(name := os.fspath(value), str):
        raise _UnfitError(f"must be a path, not {_kind(value)}")
    if not name or "\0" in name:
        raise _UnfitError("must be a path: it is empty or holds a NUL character")
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise _UnfitError("starts with a home directory that is unknown") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        quotes = ", write it in quotes" if value is not None else ""
        raise _UnfitError(f"must be text, not {_kind(value)}{quotes}")
    if not value:
        raise _UnfitError("must not be empty")
    return value


def _durability(value: object) -> str:
    if value not in DURABILITIES:
        raise _UnfitError(f"must be {' or '.join(map(repr, DURABILITIES))}")
    return str(value)


def _encryption(value: object) -> str:
    if isinstance(value, bool):  # what YAML makes of on and off
        return "on" if value else "off"
    if value not in ENCRYPTIONS:
        raise _UnfitError(f"must be {', '.join(map(repr, ENCRYPTIONS[:-1]))} or {ENCRYPTIONS[-1]!r}")
    return str(value)


def _keys(value: object) -> tuple[KeySource, ...]:
    if not isinstance(value, list | tuple):
        raise _UnfitError(f"must be a list of sources, not {_kind(value)}")
    held = [each.once() if isinstance(each, _Pairs) else each for each in value]
    try:
        return sources_of([source_from_setting(each) if isinstance(each, dict) else each for each in held])
    except InvalidSettingError as error:
        raise _UnfitError(f"does not fit: {error}") from None


def _compression(value: object) -> str:
    if value is False:  # what YAML reads an `off` without quotes as
        return "off"
    if value not in COMPRESSIONS:
        raise _UnfitError(f"must be {', '.join(map(repr, COMPRESSIONS[:-1]))} or {COMPRESSIONS[-1]!r}")
    return str(value)


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise _UnfitError(f"must be true or false, not {_kind(value)}")
    return value


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _UnfitError(f"must be a number of seconds, not {_kind(value)}")
    if not 0 <= value <= MAX_BUSY_TIMEOUT_SECONDS:
        raise _UnfitError(f"must be from 0 to {MAX_BUSY_TIMEOUT_SECONDS:.0f} seconds")
    return float(value)


_DURATION = re.compile(r"(\d+(?:\.\d+)?) *(seconds?|minutes?|hours?|days?|weeks?)", re.IGNORECASE)


def _duration(value: object) -> timedelta | None:
    """Return a duration that is given as one, or as text such as ``30 days``; ``null`` or ``never`` is None."""
    if value is None or value == "never":
        return None
    if isinstance(value, timedelta):
        return value
    found = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise _UnfitError("must be a duration such as '12 hours' or '30 days', or 'never'")
    unit = found[2].lower().rstrip("s")
    try:
        return timedelta(**{f"{unit}s": float(found[1])})
    except OverflowError:
        raise _UnfitError("must be shorter; 'never' is taken too") from None


def _history(value: object) -> HistoryPolicy:
    if isinstance(value, HistoryPolicy):
        return value
    if isinstance(value, _Pairs):
        value = value.once()
    if not isinstance(value, dict):
        raise _UnfitError(f"must be a HistoryPolicy or a mapping of its fields, not {_kind(value)}")
    fields: dict[str, Any] = {}
    for key, held in value.items():
        if key not in HistoryPolicy.__struct_fields__:
            known = HistoryPolicy.__struct_fields__
            raise _UnfitError(f"has no key {key!r}{nearest(str(key), known) or '; known: ' + ', '.join(known)}")
        try:
            fields[key] = held if key == "max_revisions" else _duration(held)
        except _UnfitError as unfit:
            raise _UnfitError(f"has a {key} that {unfit}") from None
    try:
        return HistoryPolicy(**fields)
    except InvalidSettingError as error:
        raise _UnfitError(f"does not fit: {error}") from None


def _retention(value: object) -> tuple[RetentionRule, ...]:
    if not isinstance(value, list | tuple):
        raise _UnfitError(f"must be a list of rules, not {_kind(value)}")
    return tuple(_retention_rule(place, held) for place, held in enumerate(value, 1))


def _retention_rule(place: int, value: object) -> RetentionRule:
    if isinstance(value, RetentionRule):
        return value
    rule = f"rule {place}"
    if isinstance(value, _Pairs):
        try:
            value = value.once()
        except _UnfitError as unfit:
            raise _UnfitError(f"{rule} {unfit}") from None
    if not isinstance(value, dict):
        raise _UnfitError(f"{rule} must be a RetentionRule or a mapping of its fields, not {_kind(value)}")
    known = RetentionRule.__struct_fields__
    for key in value:
        if key not in known:
            raise _UnfitError(f"{rule} has no key {key!r}{nearest(str(key), known)}; known: {', '.join(known)}")
    if "category" not in value:
        raise _UnfitError(f"{rule} needs a category")
    fields: dict[str, Any] = dict(value)
    try:
        if "max_age" in fields:
            fields["max_age"] = _duration(fields["max_age"])
        return RetentionRule(**fields)
    except _UnfitError as unfit:
        raise _UnfitError(f"{rule} has a max_age that {unfit}") from None
    except InvalidSettingError as error:
        raise _UnfitError(f"{rule} does not fit: {error}") from None


def _sweep_every(value: object) -> timedelta | None:
    interval = _duration(value)
    if interval is not None and not timedelta(0) < interval <= _LONGEST_INTERVAL:
        raise _UnfitError(f"must be above 0 and at most {_LONGEST_INTERVAL.days} days")
    return interval


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a value of type {type(value).__name__}"


_CHECKS: dict[str, Callable[[object], object]] = {
    "storage_dir": _directory,
    "db_path": _directory,
    "file_path": _directory,
    "directory": _directory,
    "data_dir": _directory,
    "logs_dir": _directory,
    "backend": _text,
    "durability": _durability,
    "namespace": _text,
    "read_only": _switch,
    "busy_timeout_seconds": _seconds,
    "history": _history,
    "compression": _compression,
    "retention": _retention,
    "sweep_every": _sweep_every,
    "encryption": _encryption,
    "keys": _keys,
}


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        raise InvalidSettingError("the home directory is unknown: set HOME, or give paths") from None
