"""Makes a command of an operation: its parameters become arguments and options, its docstring the help."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from jarvis.interfaces import times
from jarvis.interfaces.cli import arguments
from jarvis.interfaces.cli.session import Session
from jarvis.interfaces.operation import Operation, Parameter
from jarvis.keys import KeySource

WHICH_STORE, HOW_SHOWN, FILTERS = "Which store", "How it is shown", "Filters"

_FILTERS = frozenset(
    ("category", "entity_type", "entity_id", "no_entity_id", "tag", "all_tags", "key", "key_prefix", "category_prefix")
) | {"since", "until", "where"}
_PARSERS: dict[Any, tuple[Callable[[str], Any], str]] = {
    datetime: (times.moment, "MOMENT"),
    timedelta: (times.duration, "DURATION"),
    KeySource: (arguments.source, "SOURCE"),
}
_METAVARS: dict[Any, str] = {str: "TEXT", int: "N", float: "X", Path: "PATH"}

Form = Literal["usual", "json", "jsonl"]


def common_options() -> list[inspect.Parameter]:
    """Return the options that every command has: which store it is, and how results are shown."""
    return [
        option("store", str, "a directory, a file or a URL", "-s", panel=WHICH_STORE, metavar="PLACE"),
        option("backend", str, "one of sqlite, json, postgresql, or one that a package adds", "-b", panel=WHICH_STORE),
        option("namespace", str, "the part of the store", "-n", panel=WHICH_STORE),
        option("config", str, "a file of settings", "-c", panel=WHICH_STORE, metavar="FILE"),
        option(
            "unlock",
            list[KeySource],
            "a source of the key of an encrypted store, if it does not name its own: file:PATH, environment:NAME, "
            "keyring:SERVICE, passphrase-environment:NAME or passphrase",
            panel=WHICH_STORE,
        ),
        flag("json", "as one JSON document", panel=HOW_SHOWN, name="as_json"),
        flag("jsonl", "as a line of JSON for each item", panel=HOW_SHOWN, name="as_jsonl"),
        flag("exact", "moments as they are, not how long ago", panel=HOW_SHOWN),
        flag("full", "cut no long values", panel=HOW_SHOWN),
        flag("quiet", "say nothing but results", "-q", panel=HOW_SHOWN),
        flag("debug", "show where an error comes from", panel=HOW_SHOWN),
    ]


_AUTHOR = "who makes the change, for the history"


def command_of(operation: Operation[..., Any]) -> Callable[..., None]:
    """Return a function that Typer makes a command of; calling it runs the operation and shows its result."""
    parameters = argument_options(operation)
    if operation.effect != "reads":
        parameters.append(option("author", str, _AUTHOR))
    if operation.effect == "destroys":
        parameters.append(flag("yes", "do not ask", "-y"))
        parameters.append(flag("dry-run", "only say what would be done"))
    parameters += common_options()

    def command(**given: Any) -> None:
        session = Session.of(given)
        session.run(operation, _values(operation, given))

    return signed(command, parameters, operation.name, f"{operation.summary}\n\n{operation.details}".strip())


def argument_options(operation: Operation[..., Any]) -> list[inspect.Parameter]:
    """Return the arguments and options for the parameters of an operation."""
    return [each for parameter in operation.parameters for each in _bound(operation, parameter)]


def signed(
    function: Callable[..., None], parameters: list[inspect.Parameter], name: str, text: str
) -> Callable[..., None]:
    """Return a function that looks to Typer as if it had these parameters, name and help."""
    ordered = sorted(parameters, key=lambda each: each.default is not inspect.Parameter.empty)
    function.__name__, function.__doc__ = name, text
    function.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]  # what `inspect` looks for
    function.__annotations__ = {each.name: each.annotation for each in ordered}
    return function


def _bound(operation: Operation[..., Any], parameter: Parameter) -> list[inspect.Parameter]:
    """Return the parameters of the command for one of an operation."""
    name, kind, about = parameter.name, parameter.type, parameter.about
    panel = FILTERS if name in _FILTERS and not parameter.is_subject and len(operation.parameters) > 10 else None
    if get_origin(kind) is dict:
        if name == "value":
            return [
                argument("pairs", list[str], about, required=False, metavar="KEY=VALUE..."),
                option("value", str, "the value as a JSON object", metavar="JSON"),
                option("from", str, "a file with the value as JSON; - is the standard input", name="file"),
            ]
        return [option(name, list[str], about, panel=panel, metavar="CONDITION")]
    if parameter.is_subject:
        return [argument(name, kind, about, required=parameter.is_required)]
    if kind is bool:
        return [flag(name.replace("_", "-"), about, panel=panel, name=name)]
    letter = {"limit": "-l", "tag": "-t"}.get(name)
    letters = () if letter is None else (letter,)
    default = None if parameter.is_required else parameter.default
    return [option(name.replace("_", "-"), kind, about, *letters, panel=panel, name=name, default=default)]


def _values(operation: Operation[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return the values of an operation's parameters for those that a command was given."""
    values: dict[str, Any] = {}
    for parameter in operation.parameters:
        if get_origin(parameter.type) is not dict:
            value = given[parameter.name]
            values[parameter.name] = _typed_in() if parameter.name == "text" and value == "-" else value
            continue
        try:
            if parameter.name == "value":
                values["value"] = arguments.value(given["pairs"] or (), given["value"], given["file"])
            elif given[parameter.name]:
                values[parameter.name] = arguments.where(given[parameter.name])
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint=f"--{parameter.name}") from None
    return {name: value for name, value in values.items() if value is not None}


def _typed_in() -> str:
    try:
        return arguments.standard_input().removesuffix("\n")
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def argument(name: str, kind: Any, about: str, *, required: bool, metavar: str | None = None) -> inspect.Parameter:
    """Return an argument of a command, which is given by its place."""
    kind, parser, _ = _typed(kind)
    shown = metavar or name.upper().replace("_", "-")
    info = typer.Argument(help=_sentence(about), parser=parser, metavar=shown, show_default=False)
    annotation = kind if required else kind | None
    default = inspect.Parameter.empty if required else None
    return _parameter(name, Annotated[annotation, info], default)


def option(
    flag: str,
    kind: Any,
    about: str,
    *letters: str,
    panel: str | None = None,
    metavar: str | None = None,
    name: str | None = None,
    default: Any = None,
) -> inspect.Parameter:
    """Return an option of a command: ``--flag VALUE``; None if it is not given."""
    kind, parser, usual = _typed(kind)
    info = typer.Option(
        f"--{flag}",
        *letters,
        help=_sentence(about),
        parser=parser,
        metavar=metavar or usual,
        rich_help_panel=panel,
        show_default=default is not None,
    )
    return _parameter(name or flag.replace("-", "_"), Annotated[kind | None, info], default)


def flag(
    flag: str,
    about: str,
    *letters: str,
    panel: str | None = None,
    name: str | None = None,
    callback: Callable[..., bool] | None = None,
) -> inspect.Parameter:
    """Return an option without a value, which is False if it is not given; a callback is called before all else."""
    info = typer.Option(
        f"--{flag}",
        *letters,
        help=_sentence(about),
        rich_help_panel=panel,
        show_default=False,
        callback=callback,
        is_eager=callback is not None,
    )
    return _parameter(name or flag.replace("-", "_"), Annotated[bool, info], False)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _typed(kind: Any) -> tuple[Any, Callable[[str], Any] | None, str | None]:
    """Return the type for Typer, how a text becomes one, and what stands for it in the help."""
    item = get_args(kind)[0] if get_origin(kind) is list else kind
    if item in _PARSERS:
        parser, metavar = _PARSERS[item]
        return (list[str] if item is not kind else str), _refusing(parser), metavar
    return kind, None, _METAVARS.get(item)


def _refusing(parser: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        if not isinstance(text, str):  # a default
            return text
        try:
            return parser(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return parse


def _sentence(about: str) -> str:
    return f"{about[:1].upper()}{about[1:]}." if about else ""
