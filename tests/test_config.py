"""Settings: what a file may say, what it means, and how a mistake is reported."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.pretty import Pretty

from jarvis.config import ConfigLoader, JarvisConfig, PostgreSQLConfig, StorageConfig
from jarvis.errors import InvalidSettingError, MisplacedSettingWarning

REFERENCE = Path(__file__).parent.parent / "docs" / "reference" / "configuration.md"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a home directory of its own."""
    directory = tmp_path / "home"
    directory.mkdir()
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.setenv("USERPROFILE", str(directory))
    return directory


def written(directory: Path, text: str | bytes, name: str = "config.yaml") -> Path:
    """Write a configuration file."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def storage_of(path: Path) -> StorageConfig:
    """Return what a configuration file says about storage."""
    return ConfigLoader(path).load().storage


def refusal_of(path: Path) -> str:
    """Return the message with which a configuration file is refused."""
    with pytest.raises(InvalidSettingError) as caught:
        ConfigLoader(path).load()
    return str(caught.value)


# --- defaults ------------------------------------------------------------------------------------


def test_without_a_file_every_setting_has_its_default(home: Path) -> None:
    config = ConfigLoader().load()

    assert config == JarvisConfig(
        storage=StorageConfig(
            data_dir=home / ".jarvis" / "data",
            logs_dir=home / ".jarvis" / "logs",
            backend="sqlite",
            durability="full",
            namespace="default",
            read_only=False,
            busy_timeout_seconds=30.0,
        )
    )


def test_loading_creates_nothing(home: Path) -> None:
    ConfigLoader().load()

    assert list(home.iterdir()) == []


def test_the_home_directory_is_looked_up_at_each_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    StorageConfig()
    monkeypatch.setenv("HOME", str(tmp_path / "other"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "other"))

    assert StorageConfig().data_dir == tmp_path / "other" / ".jarvis" / "data"


def test_the_default_file_is_in_the_home_directory(home: Path) -> None:
    written(home / ".jarvis", "storage: {namespace: alice}")

    assert ConfigLoader().load().storage.namespace == "alice"


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "storage:\n", "storage: {}\n", "other: {a: 1}\n"])
def test_an_empty_yaml_file_or_section_means_the_defaults(tmp_path: Path, text: str) -> None:
    assert storage_of(written(tmp_path, text)) == StorageConfig()


@pytest.mark.parametrize("text", ["", " \n", "null", "{}", '{"storage": null}', '{"storage": {}}', '{"other": 1}'])
def test_an_empty_json_file_or_section_means_the_defaults(tmp_path: Path, text: str) -> None:
    assert storage_of(written(tmp_path, text, "config.json")) == StorageConfig()


# --- what is read --------------------------------------------------------------------------------

EVERY_KEY: dict[str, Any] = {
    "data_dir": "/srv/data",
    "logs_dir": "/srv/logs",
    "backend": "json",
    "durability": "normal",
    "namespace": "alice",
    "read_only": True,
    "busy_timeout_seconds": 2,
}


@pytest.mark.parametrize("name", ["config.yaml", "config.yml", "config.json", "CONFIG.YAML"])
def test_every_key_is_read_from_every_kind_of_file(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, json.dumps({"storage": EVERY_KEY}), name)

    storage = storage_of(path)

    assert storage == StorageConfig(**EVERY_KEY)
    assert {key: getattr(storage, key) for key in EVERY_KEY} == EVERY_KEY | {
        "data_dir": Path("/srv/data"),
        "logs_dir": Path("/srv/logs"),
    }


def test_seconds_are_always_a_float(tmp_path: Path) -> None:
    storage = storage_of(written(tmp_path, "storage: {busy_timeout_seconds: 2}"))

    assert isinstance(storage.busy_timeout_seconds, float)


def test_a_tilde_expands_in_a_file(tmp_path: Path, home: Path) -> None:
    storage = storage_of(written(tmp_path, "storage: {data_dir: ~/kept, logs_dir: '~'}"))

    assert (storage.data_dir, storage.logs_dir) == (home / "kept", home)


def test_a_tilde_expands_in_python(home: Path) -> None:
    storage = StorageConfig(data_dir="~/kept", logs_dir=Path("~/logs"))

    assert (storage.data_dir, storage.logs_dir) == (home / "kept", home / "logs")


def test_a_tilde_expands_in_the_path_of_the_file(home: Path) -> None:
    written(home, "storage: {namespace: alice}", "mine.yaml")

    assert ConfigLoader("~/mine.yaml").load().storage.namespace == "alice"


def test_a_relative_directory_is_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "project", "storage: {data_dir: kept}")
    monkeypatch.chdir(tmp_path)

    assert storage_of(Path("project/config.yaml")).data_dir == tmp_path / "project" / "kept"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    yaml_file = written(tmp_path, "\r\nstorage: {namespace: alice}\r\n".encode(encoding))
    json_file = written(tmp_path, '{"storage": {"namespace": "alice"}}'.encode(encoding), "config.json")

    assert storage_of(yaml_file) == storage_of(json_file) == StorageConfig(namespace="alice")


def test_a_file_is_read_anew_at_each_load(tmp_path: Path) -> None:
    loader = ConfigLoader(written(tmp_path, "storage: {namespace: alice}"))
    loader.load()
    written(tmp_path, "storage: {namespace: bob}")

    assert loader.load().storage.namespace == "bob"


def test_yaml_merge_keys_work_in_the_section(tmp_path: Path) -> None:
    text = "base: &base {backend: json, namespace: alice}\nstorage:\n  <<: *base\n  namespace: bob\n"

    storage = storage_of(written(tmp_path, text))

    assert (storage.backend, storage.namespace) == ("json", "bob")


@pytest.mark.parametrize(
    "other",
    [
        "llm: {storage: {a: 1}}",
        "llm: !secret key",
        "llm: {a: 1, a: 2}",
        "llm: 2024-99-99",
        "llm: !!python/name:os.system x",
    ],
)
def test_other_sections_are_left_alone(tmp_path: Path, other: str) -> None:
    assert storage_of(written(tmp_path, f"{other}\nstorage: {{namespace: alice}}\n")).namespace == "alice"


# --- mistakes in a file --------------------------------------------------------------------------


def test_a_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    path = tmp_path / "absent.yaml"

    assert refusal_of(path) == f"{path}: there is no such file"


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_default_file_that_is_a_dangling_link_is_no_absent_file(home: Path) -> None:
    (home / ".jarvis").mkdir()
    (home / ".jarvis" / "config.yaml").symlink_to(home / "gone.yaml")

    with pytest.raises(InvalidSettingError, match="no such file"):
        ConfigLoader().load()


@pytest.mark.parametrize("name", ["config.toml", "config", "config.yaml.bak"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidSettingError, match=r"\.yaml, \.yml, \.json files only"):
        ConfigLoader(tmp_path / name)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.mkdir()

    assert refusal_of(path).startswith(f"{path}: cannot be read")


@pytest.mark.parametrize("name", ["config.yaml", "config.json"])
def test_a_file_that_is_not_utf_8_is_named_with_the_line(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, b"\n\nstorage: \xff\n", name)

    assert refusal_of(path) == f"{path}, line 3: is not UTF-8"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nstorage: {backend: json\n", 3),
        ("storage:\n\tbackend: json\n", 2),
        ("storage:\n  backend: *unknown\n", 2),
        ("storage: {}\n---\nstorage: {}\n", 2),
        ("a: \x07\n", 1),
        ("- a\n", 1),
        ("\njust text\n", 2),
        ("storage: [backend]\n", 1),
        ("a: 1\nstorage: sqlite\n", 2),
        ("storage: {}\nstorage: {}\n", 2),
        ("storage:\n  backend: json\n  backend: sqlite\n", 3),
        ("storage:\n  history:\n    max_age: 1 day\n    max_revisions: 2\n    max_age: never\n", 5),
        ("storage:\n  keys:\n  - {environment: A, environment: B}\n", 3),
        ("storage:\n  durabilty: full\n", 2),
        ("storage:\n  1: full\n", 2),
        ("storage:\n  ? [a, b]\n  : full\n", 2),
        ("storage:\n  backend: json\n  durability: never\n", 3),
        ("storage:\n  data_dir: 2024-13-01\n", 2),
        ("storage:\n  read_only: !!bool x\n", 2),
        ("storage:\n  backend: !!python/name:os.system x\n", 2),
    ],
)
def test_a_mistake_in_yaml_is_named_with_file_and_line(tmp_path: Path, text: str, line: int) -> None:
    path = written(tmp_path, text)

    assert refusal_of(path).startswith(f"{path}, line {line}: ")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"storage": {},\nstorage}', ", line 2: is not valid JSON: "),
        ("{} {}", ", line 1: is not valid JSON: "),
        ("[]", ": must be an object of sections"),
        ('{"storage": []}', ": storage must be an object of keys"),
        ('{"storage": {}, "storage": {}}', ": has the section 'storage' twice"),
        ('{"storage": {"backend": "a", "backend": "b"}}', ": storage has the key 'backend' twice"),
        ('{"storage": {"history": {"max_age": "1 day", "max_age": "never"}}}', ": storage.history has a key twice"),
        ('{"storage": {"backend": 1}}', ": storage.backend must be text"),
        ('{"storage": {"busy_timeout_seconds": NaN}}', ": storage.busy_timeout_seconds must be from 0"),
        (f'{{"other": {"9" * 5000}}}', ": holds a number that is too long"),
    ],
)
def test_a_mistake_in_json_is_named_with_the_file(tmp_path: Path, text: str, place: str) -> None:
    path = written(tmp_path, text, "config.json")

    assert refusal_of(path).startswith(f"{path}{place}")


@pytest.mark.parametrize("name", ["config.yaml", "config.json"])
def test_endless_nesting_is_refused(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, "[" * 100_000, name)

    assert refusal_of(path) == f"{path}: is nested too deeply"


@pytest.mark.parametrize("name", ["config.yaml", "config.json"])
def test_an_unknown_key_is_named_with_the_nearest_known_one(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, '{"storage": {"durabilty": "full"}}', name)

    assert refusal_of(path).endswith("storage has no key 'durabilty' (did you mean 'durability'?)")


def test_an_unknown_key_that_resembles_none_is_answered_with_all(tmp_path: Path) -> None:
    path = written(tmp_path, "storage: {zzz: 1}")

    assert refusal_of(path).endswith(f"storage has no key 'zzz'; known: {', '.join(StorageConfig.__struct_fields__)}")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("storage: {data_dir: [hunter2]}", "config.yaml"),
        ("storage: {durability: hunter2}", "config.yaml"),
        ("storage: {backend: !!int hunter2}", "config.yaml"),
        ("password: *hunter2", "config.yaml"),
        ("password: !hunter2!x y", "config.yaml"),
        ("password: hunter2: x", "config.yaml"),
        ("password: hunter2\x07", "config.yaml"),
        ("password: 'hunter2", "config.yaml"),
        ('{"password": "hunter2}', "config.json"),
        ('{"storage": {"busy_timeout_seconds": "hunter2"}}', "config.json"),
        (b"password: hunter2\xff", "config.yaml"),
        ("storage: {postgresql: 'postgresql://u:hunter2@host/db'}", "config.yaml"),
        ("storage: {postgresql: {dsn: 'postgresql://u:hunter2@host/db'}}", "config.yaml"),
        ("storage: {postgresql: {dsn: 'postgresql://u:a$hunter2@host/db'}}", "config.yaml"),
        ('{"storage": {"postgresql": {"dsn": ["hunter2"]}}}', "config.json"),
    ],
)
def test_a_message_never_repeats_what_a_file_holds(tmp_path: Path, text: str | bytes, name: str) -> None:
    program = "import sys; from jarvis.config import ConfigLoader; ConfigLoader(sys.argv[1]).load()"

    ended = subprocess.run(  # the whole traceback counts, with causes
        [sys.executable, "-c", program, written(tmp_path, text, name)], capture_output=True, text=True, check=False
    )

    assert "InvalidSettingError" in ended.stderr
    assert "hunter2" not in ended.stderr


# --- unfit values --------------------------------------------------------------------------------

UNFIT: list[tuple[str, Any]] = [
    ("data_dir", None),
    ("data_dir", 5),
    ("data_dir", ""),
    ("data_dir", "a\0b"),
    ("data_dir", "~no-such-user/data"),
    ("logs_dir", b"logs"),
    ("logs_dir", True),
    ("backend", None),
    ("backend", ""),
    ("backend", 5),
    ("durability", "never"),
    ("durability", "FULL"),
    ("durability", None),
    ("durability", ["full"]),
    ("namespace", ""),
    ("namespace", True),
    ("read_only", "no"),
    ("read_only", 0),
    ("read_only", None),
    ("busy_timeout_seconds", -1),
    ("busy_timeout_seconds", -0.001),
    ("busy_timeout_seconds", True),
    ("busy_timeout_seconds", "30"),
    ("busy_timeout_seconds", None),
    ("busy_timeout_seconds", math.nan),
    ("busy_timeout_seconds", math.inf),
    ("busy_timeout_seconds", 10**309),
    ("cache", True),
    ("cache", "on"),
    ("cache", 5),
    ("cache", {"entry": 5}),
    ("cache", {"entries": 0}),
    ("cache", {"bytes": "64 MB"}),
    ("cache", {"bytes": 10**309}),
    ("cache", {"stale_seconds": 0}),
    ("postgresql", False),
    ("postgresql", "postgresql://host/db"),
    ("postgresql", {}),
    ("postgresql", {"dsn": ""}),
    ("postgresql", {"dsn": None}),
    ("postgresql", {"dsn": "$NO_SUCH_VARIABLE_ANYWHERE"}),
    ("postgresql", {"dsn": "postgresql://host/db", "pool_size": 0}),
    ("postgresql", {"dsn": "postgresql://host/db", "pool_size": True}),
    ("postgresql", {"dsn": "postgresql://host/db", "pool": 5}),
]


@pytest.mark.parametrize(("key", "value"), UNFIT)
def test_an_unfit_value_is_refused_in_python(key: str, value: Any) -> None:
    with pytest.raises(InvalidSettingError, match=rf"^storage\.{key} "):
        StorageConfig(**{key: value})


@pytest.mark.parametrize(("key", "value"), [unfit for unfit in UNFIT if not isinstance(unfit[1], bytes)])
def test_an_unfit_value_is_refused_in_a_file(tmp_path: Path, key: str, value: Any) -> None:
    path = written(tmp_path, json.dumps({"storage": {key: value}}), "config.json")

    assert refusal_of(path).startswith(f"{path}: storage.{key} ")


@pytest.mark.parametrize("backend", ["postgresql", "PostgreSQL"])
def test_a_backend_on_a_server_needs_to_know_where_that_is(tmp_path: Path, backend: str) -> None:
    path = written(tmp_path, f"storage: {{backend: {backend}}}")

    assert refusal_of(path).startswith(f"{path}: storage.postgresql.dsn is missing: the backend 'postgresql' needs it")


def test_a_server_is_refused_for_another_backend(tmp_path: Path) -> None:
    path = written(tmp_path, "storage: {backend: json, postgresql: {dsn: 'postgresql://host/db'}}")

    assert refusal_of(path) == (
        f"{path}: storage.postgresql is only for storage.backend: postgresql; set that, or leave it out"
    )


def test_a_dsn_takes_variables_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHO", "alice")
    monkeypatch.setenv("WORD", "hunter$WHO")
    server = PostgreSQLConfig(dsn="postgresql://$WHO:${WORD}@host/db")

    again = pickle.loads(pickle.dumps(server))

    assert again == server
    assert again.location() == "postgresql://alice:hunter$WHO@host/db"
    monkeypatch.delenv("WORD")
    for use in (server.location, lambda: PostgreSQLConfig(dsn="${WORD}")):
        with pytest.raises(
            InvalidSettingError, match=r"^postgresql\.dsn names an environment variable that is not set"
        ):
            use()


def test_what_is_printed_of_the_settings_shows_no_dsn() -> None:
    config = JarvisConfig(
        storage=StorageConfig(backend="postgresql", postgresql={"dsn": "postgresql://u:hunter2@host/db"})
    )

    printed = Console(file=io.StringIO(), width=1_000)
    printed.print(Pretty(config))

    for shown in (repr(config), str(config.storage.postgresql), printed.file.getvalue()):  # type: ignore[attr-defined]  # it is one
        assert "dsn=…" in shown or "dsn='…'" in shown
        assert "hunter2" not in shown


@pytest.mark.parametrize("value", [0, 0.0, 0.5, 1_000_000])
def test_the_ends_of_the_range_are_fit(value: float) -> None:
    assert StorageConfig(busy_timeout_seconds=value).busy_timeout_seconds == value


def test_a_word_that_yaml_takes_for_a_truth_value_is_explained(tmp_path: Path) -> None:
    path = written(tmp_path, "storage: {namespace: on}")

    assert refusal_of(path).endswith("storage.namespace must be text, not a value of type bool, write it in quotes")


def test_a_section_of_the_wrong_type_is_refused_in_python() -> None:
    with pytest.raises(InvalidSettingError, match="must be a StorageConfig"):
        JarvisConfig(storage={"backend": "json"})  # type: ignore[arg-type]  # that is the mistake


def test_settings_do_not_change() -> None:
    storage = StorageConfig()

    with pytest.raises(AttributeError):
        storage.backend = "json"  # type: ignore[misc]  # that is the mistake


# --- cost and documentation ----------------------------------------------------------------------


def test_importing_the_settings_imports_no_parser() -> None:
    program = "import sys, jarvis.config; print([name for name in ('yaml', 'json') if name in sys.modules])"

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ended.stdout.strip() == "[]"


def documented() -> dict[str, tuple[str, str]]:
    """Return type and default of each key in the reference's table."""
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| `(.+?)` \| .+ \|$", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE)
    return {key: (kind, default) for key, kind, default in rows}


def test_the_reference_holds_every_key_and_no_other() -> None:
    assert list(documented()) == list(StorageConfig.__struct_fields__)


def test_the_reference_states_the_defaults(tmp_path: Path) -> None:
    stated = "".join(f"  {key}: {default}\n" for key, (_, default) in documented().items())

    assert storage_of(written(tmp_path, f"storage:\n{stated}")) == StorageConfig()


def test_the_example_in_the_reference_loads_and_holds_every_key(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.+?)```", REFERENCE.read_text(encoding="utf-8"), re.DOTALL)

    assert storage_of(written(tmp_path, example)) == StorageConfig()
    assert re.findall(r"^  (\w+):", example, re.MULTILINE) == list(StorageConfig.__struct_fields__)


def test_the_python_example_in_the_reference_runs() -> None:
    (example,) = re.findall(r"```python\n(.+?)```", REFERENCE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}

    exec(example, names)

    assert names["config"].storage.data_dir == Path(os.sep, "srv", "jarvis")


# --- slips outside of the section ----------------------------------------------------------------

SLIPS = ["Storage", "STORAGE", '"storage "', '" storage"', "storage\u00a0", '"\\u200bstorage"', "ｓtorage"]
SLIPS += [
    "stroage",
    "storag",
    "torage",
    "storagee",
    "storages",
    "st0rage",
    "Stroage",
    "sotrage",
    "storaeg",
    "st\u043erage",
]


@pytest.mark.parametrize("name", SLIPS)
def test_a_section_whose_name_is_nearly_ours_is_refused(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, f"other: 1\n{name}:\n  encryption: required\n")

    message = refusal_of(path)

    assert message.startswith(f"{path}, line 2: has no section 'storage' but ")
    assert message.endswith("write it as storage")


@pytest.mark.parametrize("name", ["Storage", "stroage", " storage", "\u00a0storage"])
def test_a_section_whose_name_is_nearly_ours_is_refused_in_json(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, json.dumps({name: {"backend": "json"}}), "config.json")

    assert refusal_of(path).startswith(f"{path}: has no section 'storage' but ")


@pytest.mark.parametrize("name", ["Storage", "stroage"])
def test_a_name_like_ours_beside_our_section_is_another_parts(tmp_path: Path, name: str) -> None:
    assert storage_of(written(tmp_path, f"{name}: {{a: 1}}\nstorage: {{namespace: alice}}\n")).namespace == "alice"


@pytest.mark.parametrize("name", ["store", "stages", "storage_of_models", "tortage", "data", "''", "[a, b]", "1", "~"])
def test_a_name_unlike_ours_is_another_parts(tmp_path: Path, name: str) -> None:
    assert storage_of(written(tmp_path, f"? {name}\n: {{a: 1}}\n")) == StorageConfig()


@pytest.mark.parametrize(
    "text",
    [
        "storage:\nbackend: json\nnamespace: alice\n",
        "storage:\n\u00a0\u00a0backend: json\n\u00a0\u00a0namespace: alice\n",
        "storage: {}\nBackend: json\nNAMESPACE: alice\n",
        "\nstorage.backend: json\nstorage.namespace: alice\n",
    ],
)
def test_our_keys_outside_of_the_section_are_one_warning(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)

    with pytest.warns(MisplacedSettingWarning) as warned:
        storage = storage_of(path)

    assert storage == StorageConfig()
    (warning,) = warned
    message = str(warning.message)
    assert message.startswith(f"{path}: outside of the section 'storage', so not read: ")
    assert all(part in message for part in ("(line 2)", "(line 3)"))
    assert warning.filename == __file__
    assert "alice" not in message


def test_our_keys_outside_of_the_section_are_one_warning_in_json(tmp_path: Path) -> None:
    path = written(tmp_path, '{"backend": "json", "storage": {"namespace": "alice"}}', "config.json")

    with pytest.warns(MisplacedSettingWarning, match="not read: 'backend'; settings"):
        assert storage_of(path) == StorageConfig(namespace="alice")


@pytest.mark.parametrize(
    "text",
    [
        "encryption: required\n",
        "Encryption: Required\n",
        "storage.encryption: required\n",
        "encrypton: required\n",
        "\u00a0\u00a0encryption: required\n",
    ],
)
@pytest.mark.parametrize("section", ["", "storage:\n", "storage: {backend: sqlite}\n"])
def test_encryption_that_is_required_outside_of_the_section_is_refused(tmp_path: Path, text: str, section: str) -> None:
    path = written(tmp_path, section + text)

    message = refusal_of(path)

    assert message.startswith(f"{path}, line {1 + section.count(chr(10))}: requires encryption outside of the section")


def test_encryption_outside_of_the_section_is_a_warning_where_the_section_says_it(tmp_path: Path) -> None:
    path = written(tmp_path, "encryption: required\nstorage: {encryption: 'on'}\n")

    with pytest.warns(MisplacedSettingWarning, match="'encryption'"):
        assert storage_of(path).encryption == "on"
