"""What a tool is for the server: its name, its schemas, its effect, and the function behind it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec

from jarvis.errors import InvalidQueryError, nearest

NextCursor = Annotated[str | None, msgspec.Meta(description="If there is more: call again with this as cursor")]
Note = Annotated[str | None, msgspec.Meta(description="What is not shown, and how to get it")]


class Answer(NamedTuple):
    """The result of a tool.

    Attributes:
        text: for models.
        content: the same for programs, as the tool's `answer` has it.
    """

    text: str
    content: dict[str, Any]


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool of a server.

    Attributes:
        name, title, description: tell a model when to call it.
        arguments: the class of its arguments.
        answer: the class of `Answer.content`.
        run: is called in a thread, with the arguments.
        reads: it changes nothing.
        destroys: it may delete or replace what is remembered.
        is_idempotent: a second call with the same arguments changes nothing more.
    """

    name: str
    title: str
    description: str
    arguments: type[msgspec.Struct]
    answer: type[msgspec.Struct]
    run: Callable[[Any], Answer]
    reads: bool = False
    destroys: bool = False
    is_idempotent: bool = False


def schema_of(shape: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the JSON schema of a class, with no references and no null: some clients and models take neither well."""
    schema = msgspec.json.schema(shape)
    parts = schema.pop("$defs", {})

    def inlined(part: Any) -> Any:
        if isinstance(part, list):
            return [inlined(each) for each in part]
        if not isinstance(part, dict):
            return part
        if "anyOf" in part:
            (only, *others) = [each for each in part["anyOf"] if each != {"type": "null"}]
            if not others:
                rest = {name: part[name] for name in part if name not in ("anyOf", "default")}
                default = {"default": part["default"]} if part.get("default") is not None else {}
                part = {**only, **rest, **default}
        if "$ref" in part:
            named = parts[part["$ref"].rpartition("/")[2]]
            part = {name: named[name] for name in named if name != "description"} | part  # that is for programmers
            del part["$ref"]
        return {name: inlined(each) for name, each in part.items() if name != "title" or not isinstance(each, str)}

    whole: dict[str, Any] = inlined(schema)
    whole.pop("description", None)  # the tool has one
    return whole


def arguments_of(tool: Tool, given: dict[str, Any] | None) -> Any:
    """Return the arguments of a call as the tool takes them.

    Raises:
        InvalidQueryError: they are wrong; the message names the argument and says what the tool takes.
    """
    try:
        return msgspec.convert(given or {}, tool.arguments)
    except msgspec.ValidationError as error:
        raise InvalidQueryError(_told(tool, str(error))) from None
    except RecursionError:
        raise InvalidQueryError(f"{tool.name}: the arguments are nested too deep") from None


_WHERE = re.compile(r"(?P<problem>.*?)(?: - at `\$\.?(?P<path>.*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)


def _told(tool: Tool, message: str) -> str:
    match = _WHERE.fullmatch(message)
    problem, path = (match["problem"], match["path"]) if match else (message, None)
    unknown = _UNKNOWN.fullmatch(problem)
    near = nearest(unknown[1], tool.arguments.__struct_encode_fields__) if unknown else ""
    place = path.replace("[...]", "[…]") if path else "arguments"
    takes = _shape(schema_of(tool.arguments))
    return f"{place}: {problem[:1].lower()}{problem[1:]}{near}; {tool.name} takes {takes}; nothing was done"


def _shape(schema: dict[str, Any]) -> str:
    """Return a schema in short, for messages: ``{"names": [string], "cursor"?: string}``."""
    kind = schema.get("type")
    if "anyOf" in schema:
        return " or ".join(_shape(each) for each in schema["anyOf"] if each.get("type") != "null")
    if "enum" in schema:
        return " or ".join(f'"{each}"' for each in schema["enum"] if each is not None)
    if kind == "array":
        return f"[{_shape(schema.get('items', {}))}]"
    if kind == "object" and "properties" in schema:
        needed: Sequence[str] = schema.get("required", ())
        parts = (
            f'"{name}"{"" if name in needed else "?"}: {_shape(part)}' for name, part in schema["properties"].items()
        )
        return f"{{{', '.join(parts)}}}"
    return str(kind or "anything")
