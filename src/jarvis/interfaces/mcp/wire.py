"""The arguments of an operation as JSON can have them, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec

from jarvis.errors import InvalidQueryError
from jarvis.interfaces.operation import Operation, Parameter
from jarvis.interfaces.times import duration, moment


class Field(msgspec.Struct, frozen=True):
    """What a tool changes of a parameter; None leaves it.

    Attributes:
        about: tells a model what it is.
        most: the greatest number that it takes.
        name: as the tool calls it.
        has_no_usual: the tool decides itself what it is if it is left out.
    """

    about: str | None = None
    most: int | None = None
    name: str | None = None
    has_no_usual: bool = False


def arguments_class(
    operation: Operation[..., Any], names: Sequence[str], fields: Mapping[str, Field], more: Sequence[Any] = ()
) -> type[msgspec.Struct]:
    """Return the class of a tool's arguments: some parameters of an operation, and more of the tool's own."""
    parameters = {each.name: each for each in operation.parameters}
    made = [_field(parameters[name], fields.get(name, Field())) for name in names]
    made.sort(key=lambda field: len(field))  # those that must be given come first
    name = f"{operation.name.title().replace('_', '')}Arguments"
    return msgspec.defstruct(name, [*made, *more], forbid_unknown_fields=True, kw_only=True)


def values_of(operation: Operation[..., Any], arguments: msgspec.Struct, fields: Mapping[str, Field]) -> dict[str, Any]:
    """Return the values for `Operation.run`; what is None was not given.

    Raises:
        InvalidQueryError: a moment or a duration is none.
    """
    values = {}
    for parameter in operation.parameters:
        name = fields.get(parameter.name, Field()).name or parameter.name
        value = getattr(arguments, name, None)
        if value is None:
            continue
        if parameter.type is datetime:
            value = _value(name, moment, value)
        elif parameter.type is timedelta:
            value = _value(name, duration, value)
        values[parameter.name] = value
    return values


def _field(parameter: Parameter, field: Field) -> tuple[Any, ...]:
    kind: Any = parameter.type
    about = field.about or parameter.about
    if kind is datetime:
        kind, about = str, f"{about}, such as 2026-03-01, 2026-03-01T18:30+02:00, yesterday or '2 hours ago'"
    elif kind is timedelta:
        kind = str
    about = about[:1].upper() + about[1:]
    meta = msgspec.Meta(description=about)
    if field.most is not None:
        meta = msgspec.Meta(description=about, ge=1, le=field.most)
    hint: Any = Annotated[kind, meta]
    name = field.name or parameter.name
    if parameter.is_required:
        return name, hint
    return name, hint | None, None if field.has_no_usual else parameter.default


def _value(name: str, parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise InvalidQueryError(f"{name}: {error}") from None
