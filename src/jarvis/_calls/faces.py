"""Verbs that call other verbs, and have their signature: those of an async face, and former ones."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
Result = TypeVar("Result")


def like(
    verb: Callable[Concatenate[Any, P], object],
) -> Callable[[Callable[..., Result]], Callable[Concatenate[Any, P], Result]]:
    """Return a decorator that gives a verb the signature and docstring of `verb`."""

    def described(function: Callable[..., Result]) -> Callable[Concatenate[Any, P], Result]:
        describe(function, verb)
        return function

    return described


def describe(function: Callable[..., object], verb: Callable[..., object]) -> None:
    """Give a function of an async face the signature and docstring of a verb, and an async name."""
    assigned = [attribute for attribute in functools.WRAPPER_ASSIGNMENTS if attribute != "__module__"]
    functools.update_wrapper(function, verb, assigned)
    function.__qualname__ = f"Async{verb.__qualname__}"


def former_verb(
    former: str, part: str, verb: Callable[Concatenate[Any, P], Result]
) -> Callable[Concatenate[Any, P], Result]:
    """Return the verb that a class had as `former`: it warns, and calls `verb` of its attribute `part`."""
    now = verb.__name__

    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        name = f"{type(self).__name__}.{former}()"
        warnings.warn(f"{name} has moved: call {part}.{now}()", DeprecationWarning, stacklevel=2)
        result: Result = getattr(getattr(self, part), now)(*args, **kwargs)
        return result

    functools.update_wrapper(call, verb, assigned=())
    call.__name__ = former
    call.__doc__ = f"Call `{part}.{now}`, which this has become; warn of it. The name goes with the next release."
    return call
