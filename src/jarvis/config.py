"""Settings (`StorageConfig`), and how they are read from a file (`ConfigLoader`).

Messages name the file, the line where the parser knows it, and the key, but never quote the file:
other sections of it may hold secrets.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias

import msgspec

from jarvis._disk.encodings import encoding_of
from jarvis.errors import InvalidSettingError, MisplacedSettingWarning, kind_of, nearest
from jarvis.model.cache_limits import CacheLimits
from jarvis.model.options import AnySource, Compression, Durability, Encryption, Keys, Pairs, TextIndex, checked
from jarvis.model.policies import CategoryPolicy, HistoryPolicy, RetentionRule
from jarvis.model.postgresql_config import PostgreSQLConfig, check_server
from jarvis.model.sections import SECTION, Top, demands_encryption, misplaced, misspelt_section
from jarvis.model.store_options import StoreOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from yaml import MappingNode, Node, SafeLoader

__all__ = [
    "CacheLimits",
    "CategoryPolicy",
    "ConfigLoader",
    "HistoryPolicy",
    "JarvisConfig",
    "PostgreSQLConfig",
    "RetentionRule",
    "StorageConfig",
]


class StorageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how memories are kept. A field that is left out has its default.

    Attributes:
        data_dir: directory of the data of jarvis; may be a str. ``~``, ``$NAME`` and ``${NAME}`` expand, and a
            relative path is made absolute here.
        logs_dir: directory for log files; likewise.
        backend: name of a registered backend; `jarvis.backend_registry` checks it.
        durability: ``full``, an acknowledged write survives power loss, or ``normal``, it survives a
            crash of the process.
        namespace: the memory within the store.
        read_only: write nothing, not even the store itself.
        create: make a store that is not there.
        busy_timeout_seconds: how long a write waits for another writer; 0 does not wait.
        history: how much of the past is kept; may be a mapping of the fields of `HistoryPolicy`.
        compression: how values from 1 KiB up are written: ``auto``, compressed fast; ``max``, as small as it gets;
            ``off``, as they are.
        text_index: the language of the texts, for a new store; ``off``: no index of words is kept. None: as the store
            is; a new one gets ``english``.
        embedder: the name of the model with which `recall` finds memories that mean the same; ``off``: none. None: the
            installed one, if there are vectors.
        policies: how the memories of some categories are kept; a policy may be a mapping of the fields of
            `CategoryPolicy`.
        retention: the rules of cleaning up; a rule may be a mapping of the fields of `RetentionRule`.
        encryption: ``off``; ``on``, a new store is encrypted; or ``required``, a plain one is refused, too.
        keys: the sources of the keys of an encrypted store, see `jarvis.keys`; a source may be a mapping such as
            ``{"environment": "JARVIS_KEY"}``.
        sweep_every: how often `jarvis.container.Container` cleans up; None for never.
        cache: how much of what is read `jarvis.container.Container` keeps in memory, None for nothing; may be a mapping
            of the fields of `CacheLimits`.
        postgresql: where the server of the backend ``postgresql`` is, for no other backend; may be a mapping of the
            fields of `PostgreSQLConfig`.

    Raises:
        InvalidSettingError: a value has the wrong type or is out of range, or does not go with another one.

    >>> from jarvis.config import StorageConfig
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
    create: bool = True
    busy_timeout_seconds: float = 30.0
    history: HistoryPolicy = HistoryPolicy()
    encryption: Encryption = "off"
    keys: Keys = ()
    compression: Compression = "auto"
    text_index: TextIndex | None = None
    embedder: str | None = None
    policies: tuple[CategoryPolicy, ...] = ()
    retention: tuple[RetentionRule, ...] = ()
    sweep_every: timedelta | None = None
    cache: CacheLimits | None = None
    postgresql: PostgreSQLConfig | None = None

    if TYPE_CHECKING:  # the arguments may have more types than the fields

        def __init__(
            self,
            *,
            data_dir: str | os.PathLike[str] = ...,
            logs_dir: str | os.PathLike[str] = ...,
            backend: str = ...,
            durability: Durability = ...,
            namespace: str = ...,
            read_only: bool = ...,
            create: bool = ...,
            busy_timeout_seconds: float = ...,
            history: HistoryPolicy | Mapping[str, Any] = ...,
            encryption: Encryption | bool = ...,
            keys: Sequence[AnySource | Mapping[str, str]] = ...,
            compression: Compression = ...,
            text_index: TextIndex | None = ...,
            embedder: str | None = ...,
            policies: Sequence[CategoryPolicy | Mapping[str, Any]] = ...,
            retention: Sequence[RetentionRule | Mapping[str, Any]] = ...,
            sweep_every: timedelta | str | None = ...,
            cache: CacheLimits | Mapping[str, Any] | None = ...,
            postgresql: PostgreSQLConfig | Mapping[str, Any] | None = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        """Check and normalise every field."""
        for key in self.__struct_fields__:
            msgspec.structs.force_setattr(self, key, _accepted(key, getattr(self, key)))
        if self.read_only and self.sweep_every is not None:
            raise InvalidSettingError("storage.sweep_every cannot be together with read_only: a sweep deletes")
        check_server(self.backend, self.postgresql)

    @property
    def options(self) -> StoreOptions:
        """The options of opening the store."""
        return StoreOptions(**{name: getattr(self, name) for name in StoreOptions.__struct_fields__})


class JarvisConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting of jarvis that this library knows.

    Attributes:
        storage: where and how memories are kept.

    >>> from jarvis.config import JarvisConfig
    >>> from jarvis.config import StorageConfig
    >>> JarvisConfig(storage=StorageConfig(backend="json")).storage.backend
    'json'
    """

    storage: StorageConfig = msgspec.field(default_factory=StorageConfig)

    def __post_init__(self) -> None:
        """Check the section's type."""
        if not issubclass(type(self.storage), StorageConfig):
            raise InvalidSettingError(f"storage must be a StorageConfig, not {kind_of(self.storage)}")


class ConfigLoader:
    """Read settings from a YAML or JSON file; nothing is created or changed.

    Args:
        config_path: a ``.yaml``, ``.yml`` or ``.json`` file; ``~`` expands. None means
            ``~/.jarvis/config.yaml``, which may be absent.

    Raises:
        InvalidSettingError: the path has another suffix.

    >>> from jarvis.config import ConfigLoader
    >>> from pathlib import Path
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     file = Path(directory, "config.yaml")
    ...     _ = file.write_text("storage: {backend: json}")
    ...     ConfigLoader(file).load().storage.backend
    'json'
    """

    def __init__(self, config_path: str | os.PathLike[str] | None = None) -> None:
        self.may_be_absent = config_path is None
        usual = _home() / ".jarvis" / "config.yaml" if config_path is None else config_path
        self.path: Path = checked("config_path", usual)
        if self.path.suffix.lower() not in _READERS:
            raise InvalidSettingError(f"{self.path}: settings are read from {', '.join(_READERS)} files only")
        self._lines: dict[str, int] = {}

    def load(self) -> JarvisConfig:
        """Return the settings of the file as it is now.

        A relative path in the file is relative to the file. Sections other than ``storage`` are ignored;
        `MisplacedSettingWarning` tells of our keys beside them.

        Raises:
            InvalidSettingError: the file was named and is absent; it cannot be read or is malformed; its ``storage``
                section has an unknown key or an unfit value. Or there is no such section but one with nearly its
                name, or ``encryption: required`` stands outside of it and no ``encryption`` inside.
        """
        text = self._text()
        tops, settings = _READERS[self.path.suffix.lower()](self, text) if text is not None else ([], [])
        self._check_top(tops, [setting.key for setting in settings])
        self._lines = {}
        values: dict[str, Any] = {}
        for key, value, line in settings:
            if not isinstance(key, str) or key not in StorageConfig.__struct_fields__:
                fields = StorageConfig.__struct_fields__
                hint = nearest(str(key), fields) or f"; known: {', '.join(fields)}"
                self._refuse(f"storage has no key {key!r}{hint}", line)
            if line is not None:
                self._lines[key] = line
            try:
                values[key] = _accepted(key, value, self.path.parent)
            except InvalidSettingError as error:
                self._refuse(str(error), line)
        try:
            return JarvisConfig(storage=StorageConfig(**values))
        except InvalidSettingError as error:  # about settings that exclude each other
            self._refuse(str(error))

    def place(self, key: str) -> str:
        """Return where the last loaded file sets `key`: its path, and the line where the parser knows it."""
        line = self._lines.get(key)
        return str(self.path) if line is None else f"{self.path}, line {line}"

    def _check_top(self, tops: list[Top], keys: list[object]) -> None:
        """Check the names at the top of the file for slips; `keys` are those in our section.

        Raises:
            InvalidSettingError: because of a slip, defaults would silently take the place of settings.
        """
        slip = misspelt_section(tops)
        if slip is not None:
            self._refuse(f"has no section {SECTION!r} but {slip.name!r}; write it as {SECTION}", slip.line)
        demand = demands_encryption(tops)
        if demand is not None and "encryption" not in keys:
            self._refuse(
                f"requires encryption outside of the section {SECTION!r}; indent it under {SECTION}:", demand.line
            )
        strays = misplaced(tops, StorageConfig.__struct_fields__)
        if strays:
            listed = ", ".join(f"{top.name!r}" + (f" (line {top.line})" if top.line else "") for top in strays)
            warnings.warn(
                f"{self.path}: outside of the section {SECTION!r}, so not read: {listed}; settings of the memory "
                f"go under {SECTION}:",
                MisplacedSettingWarning,
                stacklevel=3,
            )

    def _text(self) -> str | None:
        try:
            data = self.path.read_bytes()
            return data.decode(encoding_of(data))
        except FileNotFoundError:
            if self.may_be_absent and not os.path.islink(self.path):  # a dangling link is a mistake
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

    # --- from text to settings ---

    def _read_yaml(self, text: str) -> _Contents:
        import yaml  # 15 ms, only for users with a file

        try:
            loader = yaml.SafeLoader(text)
            root = loader.get_single_node()
            if root is None or root.tag == "tag:yaml.org,2002:null":
                return [], []
            section = self._yaml_section(root)
            tops = [Top(name.value, _scalar(value), name.start_mark.line + 1) for name, value in root.value]
            return tops, self._yaml_settings(loader, section) if section is not None else []
        except yaml.reader.ReaderError as error:
            self._refuse("holds a character that YAML does not allow", text.count("\n", 0, error.position) + 1)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._refuse(f"is not valid YAML{_quotable(error)}", mark.line + 1 if mark is not None else None)
        except RecursionError:
            self._refuse("is nested too deeply")

    def _yaml_section(self, root: Node) -> MappingNode | None:
        """Return our section; nothing becomes an object, so other sections may use tags of their own."""
        import yaml

        if not isinstance(root, yaml.MappingNode):
            self._refuse("must be a mapping of sections", root.start_mark.line + 1)
        sections = [value for name, value in root.value if name.value == SECTION]
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
        for name, value in section.value:
            self._refuse_repeated_in(value, f"{SECTION}.{name.value}")
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

    def _refuse_repeated_in(self, node: Node, place: str) -> None:
        """Refuse a key that stands twice in a mapping anywhere in the value of a setting."""
        import yaml

        nodes, seen = [node], set[int]()
        while nodes:
            node = nodes.pop()
            if id(node) in seen or not isinstance(node, yaml.CollectionNode):
                continue
            seen.add(id(node))  # an alias may stand for what it is in
            if isinstance(node, yaml.MappingNode):
                self._refuse_repeated([(key.value, key.start_mark.line + 1) for key, _ in node.value], place)
                nodes += [value for _, value in node.value]
            else:
                nodes += node.value

    def _read_json(self, text: str) -> _Contents:
        import json

        if not text.strip():
            return [], []
        try:
            root = json.loads(text, object_pairs_hook=Pairs)
        except json.JSONDecodeError as error:
            self._refuse(f"is not valid JSON: {error.msg}", error.lineno)
        except ValueError:  # an integer of thousands of digits
            self._refuse("holds a number that is too long")
        except RecursionError:
            self._refuse("is nested too deeply")
        if root is None:
            return [], []
        if not isinstance(root, Pairs):
            self._refuse("must be an object of sections")
        sections = [value for name, value in root.pairs if name == SECTION]
        if len(sections) > 1:
            self._refuse("has the section 'storage' twice")
        tops = [Top(name, value if isinstance(value, str) else None, None) for name, value in root.pairs]
        if not sections or sections[0] is None:
            return tops, []
        if not isinstance(sections[0], Pairs):
            self._refuse("storage must be an object of keys")
        self._refuse_repeated([(name, None) for name, _ in sections[0].pairs])
        return tops, [_Setting(name, value, None) for name, value in sections[0].pairs]

    def _refuse_repeated(self, keys: Sequence[tuple[object, int | None]], place: str = SECTION) -> None:
        seen: list[object] = []
        for key, line in keys:
            if key in seen:
                self._refuse(f"{place} has the key {key!r} twice", line)
            seen.append(key)


_READERS: dict[str, Callable[[ConfigLoader, str], _Contents]] = {
    ".yaml": ConfigLoader._read_yaml,
    ".yml": ConfigLoader._read_yaml,
    ".json": ConfigLoader._read_json,
}


class _Setting(NamedTuple):
    key: object
    value: object
    line: int | None


_Contents: TypeAlias = tuple[list[Top], list[_Setting]]


def _scalar(node: Node) -> str | None:
    return node.value if isinstance(node.value, str) else None


def _quotable(error: Exception) -> str:
    """Return the parser's message, if it cannot quote the file."""
    from yaml.parser import ParserError
    from yaml.scanner import ScannerError

    problem = getattr(error, "problem", None)
    plain = isinstance(error, ScannerError | ParserError) and problem and "handle" not in problem
    return f": {problem}" if plain else ""


def _accepted(key: str, value: object, base: Path | None = None) -> Any:
    try:
        return checked(key, value, base=base)
    except InvalidSettingError as error:
        raise InvalidSettingError(f"storage.{error}") from None


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        raise InvalidSettingError("the home directory is unknown: set HOME, or give paths") from None
