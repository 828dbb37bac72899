"""`Operation`: one thing that a memory can be asked to do through a door, and what a door needs to know of it.

A door is a command line, a server for agents, or one for other programs. It learns the name, the parameters and the
effect of an operation from here, asks for the values in its own way, and calls it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Annotated, Any, Generic, Literal, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from jarvis.model.entry import MemoryEntry
from jarvis.model.rewriting import Progress
from jarvis.persistent_memory import MemoryModule

P = ParamSpec("P")
Result = TypeVar("Result")

Effect = Literal["reads", "changes", "destroys"]
"""What an operation does to the store; what destroys is announced by a plan, and asked for before it is done."""

REQUIRED: Any = inspect.Parameter.empty
"""The default of a parameter that must be given."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What an operation that destroys would do.

    Attributes:
        action: one line, such as ``"delete 3 memories"``.
        count: how many memories, states or other things it concerns; None if that is not known.
        examples: some of the memories.
        can_be_undone: whether `undo` brings them back.
    """

    action: str
    count: int | None
    examples: tuple[MemoryEntry, ...] = ()
    can_be_undone: bool = False


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter of an operation, as a door offers it.

    Attributes:
        name: of the argument.
        type: without None, which every parameter that is not required takes too.
        about: what it is; one line without a full stop.
        default: the value if it is left out, or `REQUIRED`.
        is_subject: it says what the operation is about, as the words of a search do; else it refines that.
    """

    name: str
    type: Any
    about: str
    default: Any = REQUIRED
    is_subject: bool = False

    @property
    def is_required(self) -> bool:
        """Whether it must be given."""
        return self.default is REQUIRED


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters that many operations share: a subclass is the type of one argument, and a door offers its fields."""


class Operation(Generic[P, Result]):
    """A function over a memory, with what doors need to know of it.

    Args:
        function: its first argument is a memory, unless it needs none; each other one is annotated with
            ``Annotated[type, "what it is"]``, or is of a `Group`. Its docstring begins with the summary.
        effect: see `Effect`.
        plan: takes the same arguments, and says what the function would do.
    """

    def __init__(self, function: Callable[P, Result], effect: Effect, plan: Callable[..., Plan] | None) -> None:
        self.function, self.effect, self.plan = function, effect, plan
        self.name: str = function.__name__.rstrip("_")
        text = inspect.cleandoc(function.__doc__ or "")
        self.summary, _, rest = text.partition("\n\n")
        self.summary = " ".join(self.summary.split())
        self.details = rest.strip()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Result:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def needs_memory(self) -> bool:
        """Whether its first argument is a memory."""
        return self._hints.get(next(iter(self._signature.parameters), "")) is MemoryModule

    @property
    def tells_progress(self) -> bool:
        """Whether it takes ``progress=``, a function that is called with (done, total)."""
        return "progress" in self._signature.parameters

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """What a door asks for: all arguments but the memory and the progress, with the fields of groups."""
        found: list[Parameter] = []
        for name, argument in self._signature.parameters.items():
            hint = self._hints[name]
            if name in self._groups:
                found += _fields(hint)
            elif hint is not MemoryModule and name != "progress":
                is_subject = argument.kind is argument.POSITIONAL_OR_KEYWORD
                found.append(_parameter(name, hint, argument.default, is_subject=is_subject))
        return tuple(found)

    def arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keyword arguments of the function for the values of `parameters`; what is missing is as usual."""
        left = {each.name: values.get(each.name, each.default) for each in self.parameters}
        left = {name: value for name, value in left.items() if value is not REQUIRED}
        given = {}
        for name, group in self._groups.items():
            given[name] = group(**{field: left.pop(field) for field in group.__struct_fields__})
        return {**left, **given}

    def run(self, memory: MemoryModule | None, values: Mapping[str, Any], progress: Progress | None = None) -> Result:
        """Call the function with the values of `parameters`, by name; those that are missing have their defaults."""
        result: Result = self._called(self.function, memory, values, progress)
        return result

    def planned(self, memory: MemoryModule | None, values: Mapping[str, Any]) -> Plan | None:
        """Say what `run` would do, without doing it; None if there is no plan."""
        plan: Plan | None = None if self.plan is None else self._called(self.plan, memory, values, None)
        return plan

    def _called(
        self,
        function: Callable[..., Any],
        memory: MemoryModule | None,
        values: Mapping[str, Any],
        progress: Progress | None,
    ) -> Any:
        told = {"progress": progress} if self.tells_progress and function is self.function else {}
        subjects = (memory,) if self.needs_memory else ()
        return function(*subjects, **self.arguments(values), **told)

    @cached_property
    def _groups(self) -> dict[str, type[Group]]:
        """The arguments that are of a group, by name."""
        return {name: hint for name, hint in self._hints.items() if isinstance(hint, type) and issubclass(hint, Group)}

    @property
    def _signature(self) -> inspect.Signature:
        return inspect.signature(self.function)

    @cached_property
    def _hints(self) -> dict[str, Any]:
        return get_type_hints(self.function, include_extras=True)


def operation(
    effect: Effect, *, plan: Callable[..., Plan] | None = None
) -> Callable[[Callable[P, Result]], Operation[P, Result]]:
    """Return a decorator that makes an `Operation` of a function."""
    return lambda function: Operation(function, effect, plan)


def _fields(group: type[Group]) -> list[Parameter]:
    hints = get_type_hints(group, include_extras=True)
    defaults = {field.name: field.default for field in msgspec.structs.fields(group)}
    return [_parameter(name, hints[name], defaults[name], is_subject=False) for name in group.__struct_fields__]


def _parameter(name: str, hint: Any, default: Any, *, is_subject: bool) -> Parameter:
    about = ""
    if get_origin(hint) is Annotated:
        hint, about = get_args(hint)[:2]
    if type(None) in get_args(hint):
        (hint,) = [each for each in get_args(hint) if each is not type(None)] or [hint]
    if default is msgspec.NODEFAULT:
        default = REQUIRED
    return Parameter(name=name, type=hint, about=about, default=default, is_subject=is_subject)
