"""``init``, ``config``, ``completion`` and ``keys new``: what a person does before there is a memory."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec

from jarvis.config import ConfigLoader
from jarvis.errors import InvalidSettingError
from jarvis.interfaces.cli.binding import argument, common_options, flag, option, signed
from jarvis.interfaces.cli.session import Session
from jarvis.interfaces.cli.showing import say
from jarvis.interfaces.readable import lasting, several
from jarvis.interfaces.stores import VARIABLE, find
from jarvis.keys import KeyFile
from jarvis.model.options import KeySource

PROGRAM = "jarvis-memory"
VARIABLE_OF_COMPLETION = "_JARVIS_MEMORY_COMPLETE"


def _init(**given: Any) -> None:
    session = Session.of(given)
    keys = tuple(given["encrypt"] or ())
    if keys:
        choice = msgspec.structs.replace(session.choice, keys=(*session.choice.keys, *keys), encryption="required")
        session = msgspec.structs.replace(session, choice=choice)
    found = find(session.choice, create=True)
    with session.memory(create=True) as memory:
        memory.bootstrap()
        count = memory.count_memories()
    state = "is ready" if not count else f"was there already, with {several(count, 'memory')}"
    session.show({"store": found.place, "chosen by": found.because, "state": state})
    if not session.look.quiet:
        say(f"next: {PROGRAM} remember 'a fact'; see it: {PROGRAM} list")


def _config_show(**given: Any) -> None:
    session = Session.of(given)
    loader = ConfigLoader(session.choice.config)
    storage = loader.load().storage
    settings = {name: getattr(storage, name) for name in storage.__struct_fields__}
    session.show({name: _setting(value) for name, value in settings.items()})


def _setting(value: Any) -> Any:
    """Return a setting as JSON can say it; no key and no password is in it."""
    if isinstance(value, msgspec.Struct):
        return {name: _setting(getattr(value, name)) for name in value.__struct_fields__ if name != "dsn"}
    if isinstance(value, tuple | list):
        return [_setting(each) for each in value]
    if hasattr(value, "secret"):
        return f"{value.kind}:{value.hint}" if getattr(value, "hint", None) else value.kind
    if isinstance(value, timedelta):
        return lasting(value)
    if value is None or isinstance(value, str | int | float | bool | dict):
        return value
    return str(value)


def _config_path(**given: Any) -> None:
    session = Session.of(given)
    path = ConfigLoader(session.choice.config).path
    found = find(session.choice, create=False)
    session.show(
        {
            "settings": str(path) if path.exists() else f"{path} (not there: every setting is as usual)",
            "store": found.place,
            "chosen by": found.because,
            VARIABLE: os.environ.get(VARIABLE, "(not set)"),
        }
    )


def _config_check(**given: Any) -> None:
    session = Session.of(given)
    path = ConfigLoader(session.choice.config).path
    if not path.exists():
        raise InvalidSettingError(f"{path}: there is no such file")
    find(msgspec.structs.replace(session.choice, config=str(path)), create=False)
    session.show({"settings": str(path), "state": "every setting is known and in range"})


def _completion(**given: Any) -> None:
    from typer.completion import get_completion_script, install  # type: ignore[attr-defined]  # imported there for this

    shell = given["shell"]
    if given["install"]:
        name, path = install(shell=shell, prog_name=PROGRAM, complete_var=VARIABLE_OF_COMPLETION)
        say(f"{name} completes {PROGRAM} from its next start on, as {path} says")
        return
    sys.stdout.write(get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE_OF_COMPLETION, shell=shell) + "\n")


def _keys_new(**given: Any) -> None:
    session = Session.of(given)
    source = KeyFile.create(given["path"])
    session.show({"key file": str(source.hint), "state": "written; keep a copy of it at another place"})
    if not session.look.quiet:
        say(f"encrypt the store with it: {PROGRAM} encrypt file:{source.hint}")


_encrypt = option("encrypt", list[KeySource], "encrypt a new store; this source opens it, such as file:PATH")
_shell = argument("shell", Literal["bash", "zsh", "fish", "powershell"], "the shell", required=True)
_path = argument("path", Path, "the new file", required=True)
_install = flag("install", "write it where the shell looks for it")

init = signed(_init, [_encrypt, *common_options()], "init", "Make a store, or say that there is one.")
config_show = signed(_config_show, common_options(), "show", "Show every setting, as it is read.")
config_path = signed(_config_path, common_options(), "path", "Show which settings and which store are used, and why.")
config_check = signed(_config_check, common_options(), "check", "Check the file of settings.")
completion = signed(
    _completion, [_shell, _install], "completion", "Print what lets a shell complete commands, or install it."
)
keys_new = signed(_keys_new, [_path, *common_options()], "new", "Write a new random key to a file.")
