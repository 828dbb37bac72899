"""The commands in their groups, and the outermost door: what ends the process, with which exit code."""

from __future__ import annotations

import inspect
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command_from_info, get_group
from typer.models import CommandInfo

from jarvis.errors import InvalidSettingError, JarvisError
from jarvis.interfaces.cli.failing import DONE, INTERRUPTED, REFUSED, USAGE, code_of, in_commands, told
from jarvis.interfaces.cli.showing import say
from jarvis.interfaces.readable import safe

GROUPS: dict[str, tuple[str, ...]] = {
    "Look": ("list", "get", "find", "tags", "categories", "prefs", "device", "tasks", "tools", "namespaces"),
    "In words": ("remember", "recall", "forget", "context"),
    "Change": ("set", "edit", "tag", "move", "delete"),
    "The past": ("history", "diff", "undo", "recent"),
    "The future": ("expire", "retention plan", "retention apply"),
    "Privacy": (
        "erase",
        "encrypt",
        "decrypt",
        "keys list",
        "keys add",
        "keys remove",
        "keys rotate",
        "keys new",
    ),
    "Moving": ("export", "import", "migrate", "restore"),
    "Care": ("doctor", "verify", "repair", "backup", "compact", "index", "mend-dates"),
    "Insight": ("stats",),
    "Live": ("watch",),
    "Setup": ("init", "config show", "config path", "config check", "mcp", "completion"),
}
"""The commands as a person thinks of them."""

SUBGROUPS = {
    "retention": "Clean up by the rules of the configuration.",
    "keys": "Say what opens the encrypted store.",
    "config": "Look at the settings.",
}

OWN = {
    "edit": "editing",
    "doctor": "health",
    "stats": "insight",
    "watch": "watching",
    "init": "setup",
    "config show": "setup",
    "config path": "setup",
    "config check": "setup",
    "completion": "setup",
    "mcp": "serving",
    "keys new": "setup",
}
"""Commands that are no operations, and the module of each; its function has the name of the command."""

HELP = "The memory of your assistant: see, correct and erase what it knows."
_EPILOG = (
    "A memory is named by its id, the beginning of one, or category/key. "
    "Exit codes and more: docs/reference/command-line.md"
)


_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class _Group(TyperGroup):
    """Commands that are made when they are asked for, so that one command pays for itself only."""

    prefix = ""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        names: Any = dict.fromkeys(self.list_commands(None))
        self.commands = names  # with which a misspelt one is compared

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  as Typer calls it
        """Return the names of the commands in the order of `GROUPS`."""
        names = [name for names in GROUPS.values() for name in names]
        if self.prefix:
            return [name.partition(" ")[2] for name in names if name.startswith(f"{self.prefix} ")]
        return list(dict.fromkeys(name.partition(" ")[0] for name in names))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command with this name, or None."""
        if cmd_name not in self.list_commands(ctx):
            return None
        name = f"{self.prefix} {cmd_name}".strip()
        return _subgroup(name) if name in SUBGROUPS else command(name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands in their groups."""
        for group, names in GROUPS.items():
            rows = []
            for name in self.list_commands(ctx):
                whole = f"{self.prefix} {name}".strip()
                if any(each == whole or each.startswith(f"{whole} ") for each in names):
                    rows.append((name, self.get_command(ctx, name).help.partition("\n")[0]))
            if rows:
                with formatter.section(group if not self.prefix else "Commands"):
                    formatter.write_dl(rows)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options in their panels, behind the commands."""
        self.format_commands(ctx, formatter)
        _in_panels(self, ctx, formatter)


class _Command(TyperCommand):
    """A command whose options are shown in their panels."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, and the options in their panels."""
        _in_panels(self, ctx, formatter)


def _in_panels(shown: TyperCommand | TyperGroup, ctx: Any, formatter: Any) -> None:
    panels: dict[str, list[tuple[str, str]]] = {}
    for parameter in shown.get_params(ctx):
        if parameter.param_type_name == "argument":
            panels.setdefault("Arguments", []).append(
                (parameter.metavar or parameter.name.upper(), getattr(parameter, "help", ""))
            )
        elif (record := parameter.get_help_record(ctx)) is not None:
            panels.setdefault(getattr(parameter, "rich_help_panel", None) or "Options", []).append(record)
    for panel, records in panels.items():
        with formatter.section(panel):
            formatter.write_dl(records)


def command(name: str) -> Any:
    """Return the command with this whole name, such as ``keys list``."""
    function = _function(name)
    info = CommandInfo(
        name=name.rpartition(" ")[2],
        callback=function,
        help=function.__doc__,
        context_settings=_CONTEXT,
        cls=_Command,
    )
    return get_command_from_info(info, pretty_exceptions_short=True, rich_markup_mode=None)


def _function(name: str) -> Callable[..., None]:
    if name in OWN:
        module = import_module(f"jarvis.interfaces.cli.{OWN[name]}")
        function: Callable[..., None] = getattr(module, name.replace(" ", "_"))
        return function
    from jarvis.interfaces.cli.binding import command_of
    from jarvis.interfaces.operations import OPERATIONS

    return command_of(OPERATIONS[name.replace(" ", "_").replace("-", "_")])


def _subgroup(name: str) -> TyperGroup:
    cls = type(f"_{name.title()}Group", (_Group,), {"prefix": name})
    app = typer.Typer(
        name=name,
        help=SUBGROUPS[name],
        cls=cls,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        context_settings=_CONTEXT,
    )
    app.callback()(_nothing)
    return get_group(app)


def _nothing() -> None:
    return


def root() -> TyperGroup:
    """Return the whole command line."""
    from jarvis.interfaces.cli import binding

    app = typer.Typer(
        name="jarvis-memory",
        help=HELP,
        epilog=_EPILOG,
        cls=_Group,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        context_settings=_CONTEXT,
    )

    def begin(**given: Any) -> None:
        from jarvis.interfaces.cli.session import Session

        Session.root = {name: value for name, value in given.items() if value not in (None, False)}

    app.callback(invoke_without_command=False)(binding.signed(begin, _root_options(), "jarvis-memory", HELP))
    return get_group(app)


def _root_options() -> list[inspect.Parameter]:
    from datetime import datetime

    from jarvis.interfaces.cli import binding

    as_of = binding.option("as-of", datetime, "answer as of this moment of the past", panel=binding.WHICH_STORE)
    return [*binding.common_options(), as_of, binding.flag("version", "show the version and end", callback=_version)]


def _version(*, is_asked: bool) -> bool:
    if is_asked:
        from importlib.metadata import version

        sys.stdout.write(f"jarvis-memory {version('jarvis-memory')}\n")
        raise typer.Exit
    return is_asked


def run() -> NoReturn:
    """Run the command line, and end the process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a memory may hold signs that the encoding of the locale lacks
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    """Run a command, say what went wrong, and return the exit code."""
    is_debugged = "--debug" in arguments
    logging.getLogger("jarvis").addHandler(logging.StreamHandler() if is_debugged else logging.NullHandler())
    warnings.showwarning = _warned  # type: ignore[assignment]  # the other arguments are not looked at
    try:
        _check_encoding(arguments)
        code: int = root().main(arguments, prog_name="jarvis-memory", standalone_mode=False) or DONE
        sys.stdout.flush()
        if code == INTERRUPTED:  # Typer took the interrupt
            say(_interrupted())
        return code
    except typer.Abort:
        say("nothing was changed")
        return REFUSED
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a class that Typer keeps to itself
            sys.stdout.write(f"{error.message}\n")
            return DONE
        say(_usage(error))
        return USAGE
    except JarvisError as error:
        if is_debugged:
            raise
        say(f"jarvis-memory: {told(error)}")
        return code_of(error)
    except KeyboardInterrupt:
        say(_interrupted())
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:  # none of a store, those are ours: the output cannot be written
        say(f"jarvis-memory: {safe(str(error))}")
        return REFUSED
    except Exception as error:
        if is_debugged:
            raise
        say(f"jarvis-memory: {type(error).__name__}: {safe(str(error))}\n  this is a fault of jarvis: see --debug")
        return REFUSED


def _check_encoding(arguments: list[str]) -> None:
    """Refuse an argument whose bytes are no text, rather than store an escape in its place."""
    for number, argument in enumerate(arguments, 1):
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise InvalidSettingError(f"argument {number} is not UTF-8") from None


def _usage(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "jarvis-memory"
    text = safe(error.format_message())
    return f"{path}: {text}\n  see {path} --help"


def _interrupted() -> str:
    from jarvis.interfaces.cli.progress import Interruption

    if Interruption.total:
        return (
            f"\ninterrupted after {Interruption.done:,} of {Interruption.total:,}: the store is sound, "
            "what was done before is kept, and the command can be called again"
        )
    return "\ninterrupted: the store is sound, and a change that was not told as done was not made"


def _warned(message: Warning | str, category: type[Warning], *_: Any) -> None:
    if category.__module__.startswith("jarvis"):
        say(f"warning: {safe(in_commands(str(message)))}")
