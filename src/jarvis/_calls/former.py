"""Keeps modules and verbs that have moved available under their former names for a while."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
Result = TypeVar("Result")


def former_names(former: str, *now: str) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of the module `former`, for names that a module of `now` has.

    Each use of a name warns with `DeprecationWarning`.
    """

    def get(name: str) -> Any:
        for module in () if name.startswith("__") else map(importlib.import_module, now):
            if name in vars(module):
                place = f"import {name} from {module.__name__}"
                warnings.warn(f"{former}.{name} has moved: {place}", DeprecationWarning, stacklevel=2)
                return vars(module)[name]
        raise AttributeError(f"module {former!r} has no attribute {name!r}")

    return get


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
